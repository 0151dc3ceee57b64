/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A child on its way out of QEMU and into it: its state, and the contents of its pages, in a file.
 * docs/save-restore.md has the layout. What is not said to run while the machine stands still runs on a worker thread
 * and touches nothing of the machine.
 */
#ifndef MICROSOFT_HYPERVISOR_SAVE_FILE_H
#define MICROSOFT_HYPERVISOR_SAVE_FILE_H

#include "qemu/osdep.h"

struct mshv_child_image {
    uint8_t *state;
    size_t state_size;
    uint64_t pages; /* that the child has mapped, in the order of their GPAs */
    uint32_t *index; /* by page: 0 for one of zeros, else the number of its content, from 1 on */
    uint64_t *sums; /* by content: its XXH64 */
    uint64_t content_count;
    uint8_t *contents; /* of a restore: HV_PAGE_SIZE bytes each */
};

/* The file, and who may want the work to end. */
struct mshv_channel {
    const char *path;
    bool (*cancelled)(void *opaque);
    void (*progress)(void *opaque, uint64_t bytes);
    void *opaque;
};

bool mshv_page_is_zero(const uint8_t *page);
void mshv_image_free(struct mshv_child_image *image);

/* -- Saving -- */

struct mshv_image_writer;

/* Have a file, and in it room for `contents` contents, so that writing them is quick; and memory for `pages` pages. */
struct mshv_image_writer *mshv_image_create(struct mshv_child_image *image, uint64_t pages, uint64_t contents,
                                            const struct mshv_channel *channel, Error **errp);
uint64_t mshv_image_capacity(const struct mshv_image_writer *writer);
/* While the machine stands still: the next page, which is written from where it lies. */
void mshv_image_add(struct mshv_image_writer *writer, uint8_t *page);
/* While the machine stands still: until all are written. */
void mshv_image_flush(struct mshv_image_writer *writer);
/* Bytes that there was no room for yet. */
uint64_t mshv_image_left(const struct mshv_image_writer *writer);
/* Write what belongs to the contents. False: that, or one of the contents, could not be written. */
bool mshv_image_finish(struct mshv_image_writer *writer, Error **errp);
void mshv_image_close(struct mshv_image_writer *writer);

/* -- Restoring -- */

/* At most `most_pages` pages. */
bool mshv_image_read(struct mshv_child_image *image, uint64_t most_pages, const struct mshv_channel *channel,
                     Error **errp);

#endif
