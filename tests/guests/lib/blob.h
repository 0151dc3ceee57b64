/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The file given to QEMU's -initrd: named parts in one piece, packed by qemu_hv/blob.py. All numbers little-endian:
 *
 *     offset  0  "HVBLOB1\0"
 *             8  u32 number of parts, u32 zero
 *            16  for each part: name, 16 bytes filled up with zeroes; u64 offset in the file; u64 size
 *                then the parts' bytes, each beginning at a multiple of 4096
 */
#ifndef ROOT_BLOB_H
#define ROOT_BLOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct blob_part {
    const uint8_t *data;
    size_t size;
};

/* Whether there is a part of that name; it is told in `part`. Panics when the file is no such blob. */
bool blob_find(const char *name, struct blob_part *part);
/* One that must be there. */
struct blob_part blob_get(const char *name);
/* A part that is a decimal number in text; `otherwise` when it is not there. */
uint64_t blob_number(const char *name, uint64_t otherwise);

#endif
