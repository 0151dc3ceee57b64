/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "blob.h"

#include "boot.h"
#include "guest.h"

struct part_entry {
    char name[16];
    uint64_t offset, size;
};
struct blob_header {
    char magic[8];
    uint32_t count, reserved;
    struct part_entry parts[];
};

static const struct blob_header *find_blob(size_t *size)
{
    struct boot_range module = boot_module();
    const struct blob_header *header = (const void *)module.begin;
    *size = module.end - module.begin;
    if (*size < sizeof(*header) || memcmp(header->magic, "HVBLOB1", 8) != 0 ||
        header->count > (*size - sizeof(*header)) / sizeof(header->parts[0])) {
        guest_panic("QEMU's -initrd must name a file that qemu_hv.blob has packed");
    }
    return header;
}

static bool name_is(const char field[16], const char *name)
{
    char text[17] = {0};
    memcpy(text, field, 16);
    return text_equal(text, name);
}

bool blob_find(const char *name, struct blob_part *part)
{
    size_t size;
    const struct blob_header *header = find_blob(&size);
    for (uint32_t i = 0; i < header->count; i++) {
        const struct part_entry *entry = &header->parts[i];
        if (!name_is(entry->name, name)) {
            continue;
        }
        if (entry->offset > size || entry->size > size - entry->offset) {
            guest_panic("part %s does not lie in the blob", name);
        }
        *part = (struct blob_part){(const uint8_t *)header + entry->offset, (size_t)entry->size};
        return true;
    }
    return false;
}

struct blob_part blob_get(const char *name)
{
    struct blob_part part;
    if (!blob_find(name, &part)) {
        guest_panic("the blob has no part %s", name);
    }
    return part;
}

uint64_t blob_number(const char *name, uint64_t otherwise)
{
    struct blob_part part;
    uint64_t value = 0;
    if (!blob_find(name, &part)) {
        return otherwise;
    }
    for (size_t i = 0; i < part.size; i++) {
        if (part.data[i] < '0' || part.data[i] > '9') {
            guest_panic("part %s of the blob is no number", name);
        }
        value = value * 10 + (uint64_t)(part.data[i] - '0');
    }
    return value;
}
