/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What start-up found. The runtime's own. */
#ifndef GUEST_BOOT_H
#define GUEST_BOOT_H

#include <stdint.h>

extern char boot_command_line[1024];
_Noreturn void guest_start(uint32_t start_info);

#endif
