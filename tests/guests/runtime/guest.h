/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The whole runtime. */
#ifndef GUEST_GUEST_H
#define GUEST_GUEST_H

#include "apic.h"
#include "check.h"
#include "clock.h"
#include "console.h"
#include "cpu.h"
#include "hyperv.h"
#include "interrupts.h"
#include "layout.h"
#include "paging.h"
#include "smp.h"
#include "string.h"

#endif
