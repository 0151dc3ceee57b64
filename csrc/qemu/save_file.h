/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A child on its way out of QEMU and into it: its state, and the contents of its pages. docs/save-restore.md has the
 * layout. Everything here runs on a worker thread and touches nothing of the machine.
 */
#ifndef MICROSOFT_HYPERVISOR_SAVE_FILE_H
#define MICROSOFT_HYPERVISOR_SAVE_FILE_H

#include "qemu/osdep.h"

struct mshv_child_image {
    uint8_t *state;
    size_t state_size;
    uint64_t pages; /* that the child has mapped, in the order of their GPAs */
    uint32_t *index; /* by page: 0 for one of zeros, else the number of its content, from 1 on */
    uint8_t *contents; /* HV_PAGE_SIZE bytes each */
    uint64_t content_count, capacity; /* capacity: that there is room for */
};

/* Room for the contents of so many pages, which is there: writing to it does not fault. False: no memory. */
bool mshv_image_reserve(struct mshv_child_image *image, uint64_t pages);
void mshv_image_free(struct mshv_child_image *image);
/* Pages with the same content share it from now on. */
void mshv_image_deduplicate(struct mshv_child_image *image);

/* What the transfer goes through: a file or FIFO, and who may want it to end. */
struct mshv_channel {
    const char *path;
    bool (*cancelled)(void *opaque);
    void (*progress)(void *opaque, uint64_t bytes);
    void *opaque;
};
bool mshv_image_write(const struct mshv_child_image *image, const struct mshv_channel *channel, Error **errp);
/* At most `most_pages` pages. */
bool mshv_image_read(struct mshv_child_image *image, uint64_t most_pages, const struct mshv_channel *channel,
                     Error **errp);

#endif
