/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A child on its way out of QEMU and into it; see save_file.h. */
#include "save_file.h"

#include <poll.h>
#include <sys/mman.h>

#include "qapi/error.h"
#include "types.h"

#define IMAGE_MAGIC UINT64_C(0x01444C4948435648) /* "HVCHILD\1" */
#define IMAGE_END UINT64_C(0x00444E4544564848) /* "HHVDEND" */
#define MOST_STATE (UINT64_C(256) << 20)
#define PATIENCE_S 10 /* for the other end of a FIFO */
#define CHUNK (UINT64_C(1) << 20)

struct image_head {
    uint64_t magic, state_size, pages, content_count;
};

/* -- Memory -- */

bool mshv_image_reserve(struct mshv_child_image *image, uint64_t pages)
{
    size_t size = pages * HV_PAGE_SIZE;
    void *contents = mmap(NULL, size ? size : HV_PAGE_SIZE, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (contents == MAP_FAILED)
        return false;
    madvise(contents, size ? size : HV_PAGE_SIZE, MADV_HUGEPAGE);
    for (size_t at = 0; at < size; at += HV_PAGE_SIZE)
        ((volatile uint8_t *)contents)[at] = 0;
    image->contents = contents;
    image->capacity = pages;
    image->index = g_try_new0(uint32_t, pages ? pages : 1);
    return image->index;
}

void mshv_image_free(struct mshv_child_image *image)
{
    if (image->contents)
        munmap(image->contents, image->capacity ? image->capacity * HV_PAGE_SIZE : HV_PAGE_SIZE);
    g_free(image->index);
    free(image->state);
    memset(image, 0, sizeof(*image));
}

/* -- Pages with the same content -- */

static uint64_t hash_page(const uint8_t *page)
{
    const uint64_t *words = (const uint64_t *)(const void *)page;
    uint64_t a = 1, b = 2, c = 3, d = 4;

    for (unsigned i = 0; i < HV_PAGE_SIZE / sizeof(uint64_t); i += 4) {
        a = (a ^ words[i]) * UINT64_C(0x9E3779B97F4A7C15);
        b = (b ^ words[i + 1]) * UINT64_C(0xC2B2AE3D27D4EB4F);
        c = (c ^ words[i + 2]) * UINT64_C(0x165667B19E3779F9);
        d = (d ^ words[i + 3]) * UINT64_C(0xD6E8FEB86659FD93);
        a ^= a >> 29;
        b ^= b >> 31;
        c ^= c >> 30;
        d ^= d >> 28;
    }
    a ^= b + (c << 7) + (d << 13);
    return a ^ a >> 32;
}

static uint8_t *content(const struct mshv_child_image *image, uint64_t number)
{
    return image->contents + (number - 1) * HV_PAGE_SIZE;
}

/* The number of the same content before `number`, which is entered otherwise. */
static uint32_t find_content(const struct mshv_child_image *image, uint32_t *table, uint64_t mask, uint32_t number)
{
    const uint8_t *page = content(image, number);
    uint64_t slot = hash_page(page) & mask;

    while (table[slot]) {
        if (memcmp(content(image, table[slot]), page, HV_PAGE_SIZE) == 0)
            return table[slot];
        slot = (slot + 1) & mask;
    }
    table[slot] = number;
    return number;
}

/* Contents move together; an index entry names the content of its page's number before. */
void mshv_image_deduplicate(struct mshv_child_image *image)
{
    uint64_t slots = 1024;
    g_autofree uint32_t *table = NULL, *renamed = g_try_new(uint32_t, image->content_count + 1);
    uint32_t kept = 0;

    while (slots < image->content_count * 2)
        slots *= 2;
    table = g_try_new0(uint32_t, slots);
    if (!table || !renamed)
        return; /* it is only larger then */
    renamed[0] = 0;
    for (uint32_t number = 1; number <= image->content_count; number++) {
        uint32_t found;

        if (number != kept + 1)
            memcpy(content(image, kept + 1), content(image, number), HV_PAGE_SIZE);
        found = find_content(image, table, slots - 1, kept + 1);
        renamed[number] = found;
        kept += found == kept + 1;
    }
    for (uint64_t i = 0; i < image->pages; i++)
        image->index[i] = renamed[image->index[i]];
    image->content_count = kept;
}

/* -- The other end -- */

struct pipe_end {
    int fd;
    const struct mshv_channel *channel;
    bool begun; /* there has been the other end */
};

static bool is_cancelled(const struct mshv_channel *channel, Error **errp)
{
    if (!channel->cancelled(channel->opaque))
        return false;
    error_setg(errp, "it was cancelled");
    return true;
}

static bool open_end(struct pipe_end *end, int flags, Error **errp)
{
    int64_t deadline = g_get_monotonic_time() + PATIENCE_S * G_USEC_PER_SEC;

    for (;;) {
        end->fd = open(end->channel->path, flags | O_NONBLOCK | O_CLOEXEC, 0600);
        if (end->fd >= 0)
            return true;
        /* A FIFO that nobody reads yet. */
        if (errno != ENXIO || g_get_monotonic_time() > deadline) {
            error_setg_errno(errp, errno, "cannot open '%s'", end->channel->path);
            return false;
        }
        if (is_cancelled(end->channel, errp))
            return false;
        g_usleep(1000);
    }
}

static bool wait_for(const struct pipe_end *end, short events, Error **errp)
{
    struct pollfd fd = {.fd = end->fd, .events = events};

    for (;;) {
        if (poll(&fd, 1, 100) > 0)
            return true;
        if (is_cancelled(end->channel, errp))
            return false;
    }
}

static bool put(struct pipe_end *end, const void *data, uint64_t size, Error **errp)
{
    const uint8_t *from = data;

    while (size) {
        ssize_t done = write(end->fd, from, MIN(size, CHUNK));

        if (done < 0 && errno != EAGAIN && errno != EINTR) {
            error_setg_errno(errp, errno, "cannot write '%s'", end->channel->path);
            return false;
        }
        if (done < 0) {
            if (!wait_for(end, POLLOUT, errp))
                return false;
            continue;
        }
        if (is_cancelled(end->channel, errp))
            return false;
        from += done;
        size -= (uint64_t)done;
        end->channel->progress(end->channel->opaque, (uint64_t)done);
    }
    return true;
}

/* The next bytes; at the end of the file 0, -1 after an error. */
static ssize_t get_some(struct pipe_end *end, void *data, uint64_t size, Error **errp)
{
    int64_t deadline = g_get_monotonic_time() + PATIENCE_S * G_USEC_PER_SEC;

    for (;;) {
        ssize_t done = read(end->fd, data, MIN(size, CHUNK));

        if (done > 0)
            end->begun = true;
        if (done > 0 || (done == 0 && (end->begun || g_get_monotonic_time() > deadline)))
            return is_cancelled(end->channel, errp) ? -1 : done;
        if (done < 0 && errno != EAGAIN && errno != EINTR) {
            error_setg_errno(errp, errno, "cannot read '%s'", end->channel->path);
            return -1;
        }
        if (done == 0) {
            g_usleep(1000); /* a FIFO that nobody writes yet */
            if (is_cancelled(end->channel, errp))
                return -1;
        } else if (!wait_for(end, POLLIN, errp)) {
            return -1;
        }
    }
}

static bool get(struct pipe_end *end, void *data, uint64_t size, Error **errp)
{
    uint8_t *to = data;

    while (size) {
        ssize_t done = get_some(end, to, size, errp);

        if (done == 0)
            error_setg(errp, "'%s' ends early", end->channel->path);
        if (done <= 0)
            return false;
        to += done;
        size -= (uint64_t)done;
        end->channel->progress(end->channel->opaque, (uint64_t)done);
    }
    return true;
}

/* -- The whole -- */

bool mshv_image_write(const struct mshv_child_image *image, const struct mshv_channel *channel, Error **errp)
{
    struct image_head head = {IMAGE_MAGIC, image->state_size, image->pages, image->content_count};
    struct pipe_end end = {.channel = channel};
    uint64_t magic = IMAGE_END;
    bool done;

    if (!open_end(&end, O_WRONLY | O_CREAT | O_TRUNC, errp))
        return false;
    done = put(&end, &head, sizeof(head), errp) && put(&end, image->state, image->state_size, errp) &&
           put(&end, image->index, image->pages * sizeof(uint32_t), errp) &&
           put(&end, image->contents, image->content_count * HV_PAGE_SIZE, errp) &&
           put(&end, &magic, sizeof(magic), errp);
    if (close(end.fd) && done) {
        error_setg_errno(errp, errno, "cannot write '%s'", channel->path);
        done = false;
    }
    return done;
}

static bool index_is_sound(const struct mshv_child_image *image)
{
    for (uint64_t i = 0; i < image->pages; i++) {
        if (image->index[i] > image->content_count)
            return false;
    }
    return true;
}

static bool read_parts(struct mshv_child_image *image, uint64_t most_pages, struct pipe_end *end, Error **errp)
{
    struct image_head head;
    uint64_t magic;

    if (!get(end, &head, sizeof(head), errp))
        return false;
    if (head.magic != IMAGE_MAGIC) {
        error_setg(errp, "'%s' was not written by hv-partition-save", end->channel->path);
        return false;
    }
    if (head.state_size > MOST_STATE || head.pages > most_pages || head.content_count > head.pages) {
        error_setg(errp, "'%s' is of a partition that has more memory than this machine", end->channel->path);
        return false;
    }
    image->pages = head.pages;
    image->state_size = head.state_size;
    image->content_count = head.content_count;
    image->state = malloc(head.state_size + 1);
    if (!image->state || !mshv_image_reserve(image, head.content_count)) {
        error_setg(errp, "there is too little memory for it");
        return false;
    }
    g_free(image->index);
    image->index = g_try_new(uint32_t, head.pages + 1);
    if (!image->index) {
        error_setg(errp, "there is too little memory for it");
        return false;
    }
    if (!get(end, image->state, head.state_size, errp) ||
        !get(end, image->index, head.pages * sizeof(uint32_t), errp) ||
        !get(end, image->contents, head.content_count * HV_PAGE_SIZE, errp) || !get(end, &magic, sizeof(magic), errp))
        return false;
    if (magic == IMAGE_END && index_is_sound(image))
        return true;
    error_setg(errp, "'%s' is damaged", end->channel->path);
    return false;
}

bool mshv_image_read(struct mshv_child_image *image, uint64_t most_pages, const struct mshv_channel *channel,
                     Error **errp)
{
    struct pipe_end end = {.channel = channel};
    bool done;

    if (!open_end(&end, O_RDONLY, errp))
        return false;
    done = read_parts(image, most_pages, &end, errp);
    close(end.fd);
    return done;
}
