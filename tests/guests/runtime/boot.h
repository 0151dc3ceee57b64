/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What start-up found, by the PVH boot protocol. */
#ifndef GUEST_BOOT_H
#define GUEST_BOOT_H

#include <stdint.h>

extern char boot_command_line[1024];

struct boot_range {
    uintptr_t begin, end; /* equal: none */
};
/* The machine's RAM from `begin` to the end of the range of RAM that holds it, below 4 GiB. */
struct boot_range boot_ram_above(uintptr_t begin);
/* The file given to QEMU's -initrd. */
struct boot_range boot_module(void);
_Noreturn void guest_start(uint32_t start_info);

#endif
