/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The whole library for code in the root partition, on top of the runtime. */
#ifndef ROOT_ROOT_H
#define ROOT_ROOT_H

#include "blob.h"
#include "boot.h"
#include "calls.h"
#include "child.h"
#include "guest.h"
#include "intercept.h"
#include "layouts.h"
#include "mmio.h"
#include "program.h"
#include "ram.h"
#include "string_io.h"
#include "tlfs.h"

#endif
