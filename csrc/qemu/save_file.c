/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A child on its way out of QEMU and into it; see save_file.h. */
#include "save_file.h"

#include <sys/mman.h>
#include <sys/uio.h>

#include "qapi/error.h"
#include "qemu/bitops.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/thread.h"
#include "qemu/units.h"
#include "types.h"

#define IMAGE_MAGIC UINT64_C(0x02444C4948435648) /* "HVCHILD\2" */
#define IMAGE_END UINT64_C(0x00444E4544564848) /* "HHVDEND" */
#define MOST_STATE (UINT64_C(256) << 20)
#define CHUNK (UINT64_C(1) << 20)
#define ROOM_STEP (UINT64_C(32) << 20)

/* At the file's beginning, and written last; the contents begin at the second page. */
struct image_head {
    uint64_t magic, state_size, pages, content_count;
};

void mshv_image_free(struct mshv_child_image *image)
{
    if (image->contents)
        munmap(image->contents, image->content_count * HV_PAGE_SIZE);
    g_free(image->index);
    g_free(image->sums);
    free(image->state);
    memset(image, 0, sizeof(*image));
}

static bool is_cancelled(const struct mshv_channel *channel, Error **errp)
{
    if (!channel->cancelled(channel->opaque))
        return false;
    error_setg(errp, "it was cancelled");
    return true;
}

/* -- XXH64 of a page, with the seed 0 -- */

#define PRIME1 UINT64_C(0x9E3779B185EBCA87)
#define PRIME2 UINT64_C(0xC2B2AE3D27D4EB4F)
#define PRIME3 UINT64_C(0x165667B19E3779F9)
#define PRIME4 UINT64_C(0x85EBCA77C2B2AE63)

static inline uint64_t mix(uint64_t lane, uint64_t word)
{
    return rol64(lane + word * PRIME2, 31) * PRIME1;
}

static inline uint64_t merge(uint64_t hash, uint64_t lane)
{
    return (hash ^ mix(0, lane)) * PRIME1 + PRIME4;
}

static uint64_t hash_page(const uint8_t *page)
{
    uint64_t a = PRIME1 + PRIME2, b = PRIME2, c = 0, d = -PRIME1, hash;

    for (unsigned i = 0; i < HV_PAGE_SIZE; i += 32) {
        a = mix(a, ldq_le_p(page + i));
        b = mix(b, ldq_le_p(page + i + 8));
        c = mix(c, ldq_le_p(page + i + 16));
        d = mix(d, ldq_le_p(page + i + 24));
    }
    hash = rol64(a, 1) + rol64(b, 7) + rol64(c, 12) + rol64(d, 18);
    hash = merge(merge(merge(merge(hash, a), b), c), d) + HV_PAGE_SIZE;
    hash = (hash ^ hash >> 33) * PRIME2;
    hash = (hash ^ hash >> 29) * PRIME3;
    return hash ^ hash >> 32;
}

/* -- Writing contents: one thread looks at pages, the other writes those it has looked at -- */

#define PIECES 4u
#define PIECE_RANGES 256u
#define PIECE_SIZE (UINT64_C(512) << 10) /* all of them fit the processor's caches */

struct piece {
    struct iovec ranges[PIECE_RANGES];
    unsigned count;
    uint64_t size;
};

struct mshv_image_writer {
    struct mshv_child_image *image;
    const struct mshv_channel *channel;
    int fd;
    uint64_t capacity; /* pages that there is memory for */
    uint64_t room; /* bytes of the file for which progress has been told */
    const uint8_t **where; /* by content: where it lies in the machine */
    uint32_t *table; /* contents by their sums */
    uint64_t mask;
    QemuThread thread;
    QemuMutex lock;
    QemuCond changed;
    struct piece pieces[PIECES];
    unsigned filled, written; /* pieces so far */
    bool ended;
    uint64_t offset; /* the thread's */
    int error; /* its first, an errno */
};

static int write_ranges(int fd, struct iovec *ranges, unsigned count, uint64_t offset)
{
    while (count) {
        ssize_t done = pwritev(fd, ranges, (int)count, (off_t)offset);

        if (done < 0 && errno != EINTR)
            return errno;
        for (offset += done > 0 ? (uint64_t)done : 0; done > 0;) {
            size_t part = MIN((size_t)done, ranges->iov_len);

            ranges->iov_base = (uint8_t *)ranges->iov_base + part;
            ranges->iov_len -= part;
            done -= (ssize_t)part;
            if (!ranges->iov_len) {
                ranges++;
                count--;
            }
        }
    }
    return 0;
}

static void *write_pieces(void *opaque)
{
    struct mshv_image_writer *w = opaque;

    qemu_mutex_lock(&w->lock);
    for (;;) {
        struct piece *piece = &w->pieces[w->written % PIECES];

        if (w->written == w->filled) {
            if (w->ended)
                break;
            qemu_cond_wait(&w->changed, &w->lock);
            continue;
        }
        qemu_mutex_unlock(&w->lock);
        if (!w->error)
            w->error = write_ranges(w->fd, piece->ranges, piece->count, w->offset);
        w->offset += piece->size;
        qemu_mutex_lock(&w->lock);
        w->written++;
        qemu_cond_broadcast(&w->changed);
    }
    qemu_mutex_unlock(&w->lock);
    return NULL;
}

/* Hand the piece over; the next one is free then. */
static void hand_over(struct mshv_image_writer *w, unsigned left)
{
    qemu_mutex_lock(&w->lock);
    w->filled += w->pieces[w->filled % PIECES].count != 0;
    qemu_cond_broadcast(&w->changed);
    while (w->filled - w->written > left)
        qemu_cond_wait(&w->changed, &w->lock);
    qemu_mutex_unlock(&w->lock);
    w->pieces[w->filled % PIECES].count = 0;
    w->pieces[w->filled % PIECES].size = 0;
}

static void write_later(struct mshv_image_writer *w, uint8_t *page)
{
    struct piece *piece = &w->pieces[w->filled % PIECES];
    struct iovec *last = &piece->ranges[piece->count ? piece->count - 1 : 0];

    if (piece->count && (uint8_t *)last->iov_base + last->iov_len == page)
        last->iov_len += HV_PAGE_SIZE;
    else
        piece->ranges[piece->count++] = (struct iovec){page, HV_PAGE_SIZE};
    piece->size += HV_PAGE_SIZE;
    if (piece->count == PIECE_RANGES || piece->size == PIECE_SIZE)
        hand_over(w, PIECES - 1);
}

/* Most of those that are not begin with something: one line of memory then, of which the rest may not be wanted. */
bool mshv_page_is_zero(const uint8_t *page)
{
    return ldq_he_p(page) == 0 && buffer_is_zero(page, HV_PAGE_SIZE);
}

void mshv_image_add(struct mshv_image_writer *w, uint8_t *page)
{
    struct mshv_child_image *image = w->image;
    uint32_t *number = &image->index[image->pages++];
    uint64_t sum, slot;

    *number = 0;
    if (mshv_page_is_zero(page))
        return;
    sum = hash_page(page);
    for (slot = sum & w->mask; w->table[slot]; slot = (slot + 1) & w->mask) {
        uint32_t other = w->table[slot];

        if (image->sums[other - 1] == sum && memcmp(w->where[other - 1], page, HV_PAGE_SIZE) == 0) {
            *number = other;
            return;
        }
    }
    image->sums[image->content_count] = sum;
    w->where[image->content_count] = page;
    *number = w->table[slot] = (uint32_t)++image->content_count;
    write_later(w, page);
}

void mshv_image_flush(struct mshv_image_writer *w)
{
    hand_over(w, 0);
}

/* -- Before and behind the contents -- */

uint64_t mshv_image_capacity(const struct mshv_image_writer *w)
{
    return w->capacity;
}

static void *touched(uint64_t count, size_t size)
{
    void *memory = g_try_malloc_n(count + 1, size);

    if (memory)
        memset(memory, 0, (count + 1) * size);
    return memory;
}

static bool get_memory(struct mshv_image_writer *w, Error **errp)
{
    uint64_t slots = 1024;

    while (slots < w->capacity * 2)
        slots *= 2;
    w->mask = slots - 1;
    w->table = touched(slots, sizeof(*w->table));
    w->where = touched(w->capacity, sizeof(*w->where));
    w->image->index = touched(w->capacity, sizeof(*w->image->index));
    w->image->sums = touched(w->capacity, sizeof(*w->image->sums));
    if (w->table && w->where && w->image->index && w->image->sums)
        return true;
    error_setg(errp, "There is too little memory");
    return false;
}

/* File systems that cannot do it ahead do it while they are written to. */
static bool get_room(struct mshv_image_writer *w, uint64_t contents, Error **errp)
{
    uint64_t end = (contents + 1) * HV_PAGE_SIZE;

    for (uint64_t at = 0; at < end; at += ROOM_STEP) {
        uint64_t size = MIN(ROOM_STEP, end - at);

        if (is_cancelled(w->channel, errp))
            return false;
        if (fallocate(w->fd, 0, (off_t)at, (off_t)size) && errno != EOPNOTSUPP && errno != EINTR) {
            error_setg_errno(errp, errno, "cannot write '%s'", w->channel->path);
            return false;
        }
        w->room += size;
        w->channel->progress(w->channel->opaque, size);
    }
    return true;
}

/* Opening a FIFO would wait for its other end, which nobody could put an end to. */
static int open_file(const struct mshv_channel *channel, int flags, Error **errp)
{
    int fd = open(channel->path, flags | O_NONBLOCK | O_CLOEXEC, 0600);
    struct stat about;

    if (fd < 0) {
        error_setg_errno(errp, errno, "cannot open '%s'", channel->path);
        return -1;
    }
    if (fstat(fd, &about) == 0 && S_ISREG(about.st_mode))
        return fd;
    error_setg(errp, "'%s' is no ordinary file", channel->path);
    close(fd);
    return -1;
}

struct mshv_image_writer *mshv_image_create(struct mshv_child_image *image, uint64_t pages, uint64_t contents,
                                            const struct mshv_channel *channel, Error **errp)
{
    struct mshv_image_writer *w = g_new0(struct mshv_image_writer, 1);

    *w = (struct mshv_image_writer){.image = image, .channel = channel, .capacity = pages, .offset = HV_PAGE_SIZE};
    qemu_mutex_init(&w->lock);
    qemu_cond_init(&w->changed);
    qemu_thread_create(&w->thread, "hv-save", write_pieces, w, QEMU_THREAD_JOINABLE);
    w->fd = open_file(channel, O_RDWR | O_CREAT | O_TRUNC, errp);
    if (w->fd >= 0 && get_memory(w, errp) && get_room(w, contents, errp))
        return w;
    mshv_image_close(w);
    return NULL;
}

static uint64_t file_size(const struct mshv_child_image *image)
{
    return (1 + image->content_count) * HV_PAGE_SIZE + image->state_size + image->pages * sizeof(*image->index) +
           image->content_count * sizeof(*image->sums) + sizeof(uint64_t);
}

uint64_t mshv_image_left(const struct mshv_image_writer *w)
{
    return file_size(w->image) > w->room ? file_size(w->image) - w->room : 0;
}

static int write_at(struct mshv_image_writer *w, const void *data, uint64_t size, uint64_t *offset)
{
    struct iovec range = {(void *)(uintptr_t)data, size};
    uint64_t at = *offset;

    *offset += size;
    return size ? write_ranges(w->fd, &range, 1, at) : 0;
}

bool mshv_image_finish(struct mshv_image_writer *w, Error **errp)
{
    const struct mshv_child_image *image = w->image;
    struct image_head head = {IMAGE_MAGIC, image->state_size, image->pages, image->content_count};
    uint64_t end = IMAGE_END, at = (1 + image->content_count) * HV_PAGE_SIZE, begin = 0;
    int error = w->error;

    error = error ?: write_at(w, image->state, image->state_size, &at);
    error = error ?: write_at(w, image->index, image->pages * sizeof(*image->index), &at);
    error = error ?: write_at(w, image->sums, image->content_count * sizeof(*image->sums), &at);
    error = error ?: write_at(w, &end, sizeof(end), &at);
    if (!error && ftruncate(w->fd, (off_t)at))
        error = errno;
    error = error ?: write_at(w, &head, sizeof(head), &begin);
    if (error)
        error_setg_errno(errp, error, "cannot write '%s'", w->channel->path);
    else
        w->channel->progress(w->channel->opaque, mshv_image_left(w));
    return !error;
}

void mshv_image_close(struct mshv_image_writer *w)
{
    qemu_mutex_lock(&w->lock);
    w->ended = true;
    qemu_cond_broadcast(&w->changed);
    qemu_mutex_unlock(&w->lock);
    qemu_thread_join(&w->thread);
    qemu_cond_destroy(&w->changed);
    qemu_mutex_destroy(&w->lock);
    if (w->fd >= 0)
        close(w->fd);
    g_free(w->table);
    g_free(w->where);
    g_free(w);
}

/* -- Reading -- */

struct reader {
    int fd;
    const struct mshv_channel *channel;
};

static bool get(struct reader *r, void *data, uint64_t size, Error **errp)
{
    uint8_t *to = data;

    while (size) {
        ssize_t done = read(r->fd, to, MIN(size, CHUNK));

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0) {
            error_setg_errno(errp, errno, "cannot read '%s'", r->channel->path);
            return false;
        }
        if (done == 0) {
            error_setg(errp, "'%s' ends early", r->channel->path);
            return false;
        }
        if (is_cancelled(r->channel, errp))
            return false;
        to += done;
        size -= (uint64_t)done;
        r->channel->progress(r->channel->opaque, (uint64_t)done);
    }
    return true;
}

static uint8_t *contents_memory(uint64_t count)
{
    void *memory;

    if (!count)
        return NULL;
    memory =
        mmap(NULL, count * HV_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    madvise(memory, count * HV_PAGE_SIZE, MADV_HUGEPAGE);
    return memory;
}

static bool get_head(struct mshv_child_image *image, uint64_t most_pages, struct reader *r, Error **errp)
{
    uint8_t page[HV_PAGE_SIZE];
    struct image_head head;

    if (!get(r, page, sizeof(page), errp))
        return false;
    memcpy(&head, page, sizeof(head));
    if (head.magic != IMAGE_MAGIC) {
        error_setg(errp, "'%s' was not written by hv-partition-save", r->channel->path);
        return false;
    }
    if (head.state_size > MOST_STATE || head.pages > most_pages || head.content_count > head.pages) {
        error_setg(errp, "'%s' is of a partition that has more memory than this machine", r->channel->path);
        return false;
    }
    image->pages = head.pages;
    image->state_size = head.state_size;
    image->state = malloc(head.state_size + 1);
    image->index = g_try_new(uint32_t, head.pages + 1);
    image->sums = g_try_new(uint64_t, head.content_count + 1);
    image->contents = contents_memory(head.content_count);
    if (image->contents)
        image->content_count = head.content_count;
    if (image->state && image->index && image->sums && image->content_count == head.content_count)
        return true;
    error_setg(errp, "there is too little memory for it");
    return false;
}

static bool is_sound(const struct mshv_child_image *image)
{
    for (uint64_t i = 0; i < image->pages; i++) {
        if (image->index[i] > image->content_count)
            return false;
    }
    for (uint64_t i = 0; i < image->content_count; i++) {
        if (image->sums[i] != hash_page(image->contents + i * HV_PAGE_SIZE))
            return false;
    }
    return true;
}

static bool read_parts(struct mshv_child_image *image, uint64_t most_pages, struct reader *r, Error **errp)
{
    uint64_t end;

    if (!get_head(image, most_pages, r, errp) || !get(r, image->contents, image->content_count * HV_PAGE_SIZE, errp) ||
        !get(r, image->state, image->state_size, errp) ||
        !get(r, image->index, image->pages * sizeof(*image->index), errp) ||
        !get(r, image->sums, image->content_count * sizeof(*image->sums), errp) || !get(r, &end, sizeof(end), errp))
        return false;
    if (end == IMAGE_END && is_sound(image))
        return true;
    error_setg(errp, "'%s' is damaged", r->channel->path);
    return false;
}

bool mshv_image_read(struct mshv_child_image *image, uint64_t most_pages, const struct mshv_channel *channel,
                     Error **errp)
{
    struct reader r = {.fd = open_file(channel, O_RDONLY, errp), .channel = channel};
    bool done;

    if (r.fd < 0)
        return false;
    done = read_parts(image, most_pages, &r, errp);
    close(r.fd);
    return done;
}
