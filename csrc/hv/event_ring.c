/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The operator's event log: a ring of words for each LP, and one for other threads.
 *
 * Any thread writes to any ring without a lock: it moves `head` on if there is room, writes the entry, and its first
 * word last. One reader takes entries out; it sees that one is complete by its first word, which is never 0, and clears
 * what it has read. Positions only grow, also when a ring gets other memory, so a writer that comes late with an old
 * position never succeeds. Memory goes when what was begun in it is complete.
 */
#include "event_log_internal.h"

#include <stdlib.h>
#include <string.h>

#define WORD sizeof(uint64_t)
#define ENTRY_WORDS (sizeof(struct hv_event_entry) / WORD)
#define WORDS_MOST (ENTRY_WORDS + HV_EVENT_VALUES_MOST)
#define CLOSED (UINT64_C(1) << 63) /* of `head`: nobody begins an entry */

struct ring {
    _Alignas(64) _Atomic uint64_t head; /* in words, as the next line */
    _Atomic uint64_t *words;
    uint64_t mask;
    _Atomic uint64_t recorded, lost, untold; /* events; `untold` are lost ones that no entry tells of yet */
    _Alignas(64) _Atomic uint64_t tail;
};

struct hv_event_rings {
    struct hv_event_lock lock; /* of who starts, stops and reads; taken before the event log's */
    struct hv_events_options options;
    bool running;
    _Atomic uint64_t groups; /* 0: not running */
    _Atomic uint64_t partition;
    unsigned count; /* of rings, the last one is for other threads */
    struct ring *rings;
};

struct hv_event_rings *hv_event_rings_create(struct hv *hv)
{
    struct hv_event_rings *rings = calloc(1, sizeof(*rings));

    if (!rings)
        return NULL;
    rings->count = hv->config.vp_count + 1;
    rings->rings = aligned_alloc(_Alignof(struct ring), rings->count * sizeof(*rings->rings));
    if (!rings->rings) {
        free(rings);
        return NULL;
    }
    memset(rings->rings, 0, rings->count * sizeof(*rings->rings));
    for (unsigned i = 0; i < rings->count; i++)
        atomic_store(&rings->rings[i].head, CLOSED);
    hv_event_lock_init(&rings->lock);
    return rings;
}

void hv_event_rings_free(struct hv_event_rings *rings)
{
    if (!rings)
        return;
    for (unsigned i = 0; i < rings->count; i++)
        free(rings->rings[i].words);
    free(rings->rings);
    free(rings);
}

uint64_t hv_event_rings_groups(const struct hv_event_rings *rings)
{
    return atomic_load(&rings->groups);
}

/* -- Writing -- */

/* Move the head on; false: there is no room, or the ring is closed. */
static bool reserve(struct ring *ring, unsigned words, uint64_t *position)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

    do {
        if (head & CLOSED)
            return false;
        if (head + words - atomic_load_explicit(&ring->tail, memory_order_acquire) > ring->mask + 1) {
            atomic_fetch_add_explicit(&ring->lost, 1, memory_order_relaxed);
            atomic_fetch_add_explicit(&ring->untold, 1, memory_order_relaxed);
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&ring->head, &head, head + words, memory_order_acq_rel,
                                                    memory_order_relaxed));
    *position = head;
    return true;
}

static void put(const struct ring *ring, uint64_t position, uint64_t word)
{
    atomic_store_explicit(&ring->words[position & ring->mask], word, memory_order_relaxed);
}

static bool write(struct ring *ring, const struct hv_event_entry *entry, const uint64_t *values, unsigned count)
{
    uint64_t words[ENTRY_WORDS], position;

    if (!reserve(ring, (unsigned)ENTRY_WORDS + count, &position))
        return false;
    memcpy(words, entry, sizeof(words));
    for (unsigned i = 1; i < ENTRY_WORDS; i++)
        put(ring, position + i, words[i]);
    for (unsigned i = 0; i < count; i++)
        put(ring, position + ENTRY_WORDS + i, values[i]);
    atomic_store_explicit(&ring->words[position & ring->mask], words[0], memory_order_release);
    return true;
}

/* There is room again: say how many events are missing here. */
static void tell_lost(struct ring *ring, const struct hv_event_entry *next)
{
    struct hv_event_entry entry = *next;
    uint64_t lost;

    if (atomic_load_explicit(&ring->head, memory_order_relaxed) + 2 * WORDS_MOST -
            atomic_load_explicit(&ring->tail, memory_order_acquire) >
        ring->mask + 1)
        return;
    lost = atomic_exchange_explicit(&ring->untold, 0, memory_order_relaxed);
    if (!lost)
        return;
    entry.type = HV_EVENT_LOST;
    entry.size = sizeof(entry) + WORD;
    entry.vp = HV_ANY_VP;
    entry.partition = 0;
    write(ring, &entry, &lost, 1);
}

void hv_event_rings_record(struct hv_event_rings *rings, const struct hv_event_record *record, uint64_t tsc)
{
    const struct hv_partition *partition =
        record->vp ? atomic_load_explicit(&record->vp->partition, memory_order_relaxed) : NULL;
    uint64_t only = atomic_load_explicit(&rings->partition, memory_order_relaxed);
    unsigned lp = record->lp < rings->count - 1 ? record->lp : rings->count - 1;
    struct ring *ring = &rings->rings[lp];
    struct hv_event_entry entry = {
        .type = record->type,
        .size = (uint16_t)(sizeof(entry) + record->count * WORD),
        .vp = partition ? record->vp->index : HV_ANY_VP,
        .tsc = tsc,
        .lp = record->lp,
        .partition = partition ? (uint32_t)partition->id : 0,
    };

    if (!((atomic_load_explicit(&rings->groups, memory_order_relaxed) >> record->group) & 1))
        return;
    if (only != HV_PARTITION_ID_INVALID && (!partition || partition->id != only))
        return;
    if (atomic_load_explicit(&ring->untold, memory_order_relaxed))
        tell_lost(ring, &entry);
    if (write(ring, &entry, record->values, record->count))
        atomic_fetch_add_explicit(&ring->recorded, 1, memory_order_relaxed);
}

/* -- Reading; the rings' lock is held -- */

/* The words of the next complete entry; 0: there is none. */
static unsigned next_entry(const struct ring *ring, uint64_t tail)
{
    uint64_t first;

    if (tail == (atomic_load(&ring->head) & ~CLOSED))
        return 0;
    first = atomic_load_explicit(&ring->words[tail & ring->mask], memory_order_acquire);
    return first ? (unsigned)((first >> 16) & 0xFFFF) / WORD : 0;
}

static size_t take(struct ring *ring, uint8_t *buffer, size_t size)
{
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    size_t done = 0;
    unsigned words;

    while ((words = next_entry(ring, tail)) != 0 && words * WORD <= size - done) {
        for (unsigned i = 0; i < words; i++, tail++, done += WORD) {
            uint64_t word = atomic_load_explicit(&ring->words[tail & ring->mask], memory_order_relaxed);

            put(ring, tail, 0);
            memcpy(buffer + done, &word, WORD);
        }
        atomic_store_explicit(&ring->tail, tail, memory_order_release);
    }
    return done;
}

/* What is left in a full ring is told of at last. */
static size_t take_lost(struct ring *ring, unsigned lp, uint64_t tsc, uint8_t *buffer, size_t size)
{
    struct hv_event_entry entry = {
        .type = HV_EVENT_LOST,
        .size = sizeof(entry) + WORD,
        .vp = HV_ANY_VP,
        .tsc = tsc,
        .lp = lp,
    };
    uint64_t lost;

    if (size < entry.size || atomic_load(&ring->tail) != (atomic_load(&ring->head) & ~CLOSED))
        return 0;
    lost = atomic_exchange(&ring->untold, 0);
    if (!lost)
        return 0;
    memcpy(buffer, &entry, sizeof(entry));
    memcpy(buffer + sizeof(entry), &lost, WORD);
    return entry.size;
}

size_t hv_events_read(struct hv *hv, void *buffer, size_t size)
{
    struct hv_event_rings *rings = hv->event_rings;
    uint64_t tsc = hv_sample_tsc(hv);
    size_t done = 0;

    hv_event_lock_take(&rings->lock);
    for (unsigned i = 0; i < rings->count; i++) {
        struct ring *ring = &rings->rings[i];

        if (!ring->words)
            continue;
        done += take(ring, (uint8_t *)buffer + done, size - done);
        done += take_lost(ring, i < rings->count - 1 ? i : HV_ANY_VP, tsc, (uint8_t *)buffer + done, size - done);
    }
    hv_event_lock_drop(&rings->lock);
    return done;
}

/* -- Starting and stopping -- */

static void close_rings(struct hv *hv)
{
    struct hv_event_rings *rings = hv->event_rings;

    atomic_store(&rings->groups, 0);
    rings->running = false;
    hv_event_log_update_wanted(hv);
    for (unsigned i = 0; i < rings->count; i++)
        atomic_fetch_or(&rings->rings[i].head, CLOSED);
}

/* Drop what has not been read. False: an entry has been begun and is not complete. */
static bool drain(struct ring *ring)
{
    uint8_t entry[WORDS_MOST * WORD];

    if (!ring->words)
        return true;
    while (take(ring, entry, sizeof(entry)))
        ;
    return atomic_load(&ring->tail) == (atomic_load(&ring->head) & ~CLOSED);
}

static bool set_size(struct ring *ring, uint64_t words)
{
    if (!ring->words || ring->mask + 1 != words) {
        free(ring->words);
        ring->words = calloc(words, WORD);
        ring->mask = words - 1;
    }
    atomic_store(&ring->recorded, 0);
    atomic_store(&ring->lost, 0);
    atomic_store(&ring->untold, 0);
    return ring->words;
}

static enum hv_progress prepare(struct hv_event_rings *rings, uint64_t size)
{
    uint64_t words = HV_EVENTS_SIZE_LEAST / WORD;

    while (words * WORD < size && words * WORD < HV_EVENTS_SIZE_MOST)
        words *= 2;
    for (unsigned i = 0; i < rings->count; i++) {
        if (!drain(&rings->rings[i]))
            return HV_PROGRESS_WAIT;
        if (!set_size(&rings->rings[i], words))
            return HV_PROGRESS_FAILED;
    }
    rings->options.size = words * WORD;
    return HV_PROGRESS_DONE;
}

enum hv_progress hv_events_start(struct hv *hv, const struct hv_events_options *options)
{
    struct hv_event_rings *rings = hv->event_rings;
    enum hv_progress progress;

    hv_event_lock_take(&rings->lock);
    close_rings(hv);
    progress = prepare(rings, options->size);
    if (progress == HV_PROGRESS_DONE) {
        rings->options.groups = options->groups;
        rings->options.partition = options->partition;
        atomic_store(&rings->partition, options->partition);
        /* A position that nobody has seen while the ring had other memory. */
        for (unsigned i = 0; i < rings->count; i++)
            atomic_store(&rings->rings[i].head, (atomic_fetch_add(&rings->rings[i].tail, 1) + 1) & ~CLOSED);
        atomic_store(&rings->groups, options->groups);
        rings->running = true;
        hv_event_log_update_wanted(hv);
    }
    hv_event_lock_drop(&rings->lock);
    return progress;
}

void hv_events_stop(struct hv *hv)
{
    hv_event_lock_take(&hv->event_rings->lock);
    close_rings(hv);
    hv_event_lock_drop(&hv->event_rings->lock);
}

void hv_events_get_state(struct hv *hv, struct hv_events_state *state)
{
    struct hv_event_rings *rings = hv->event_rings;

    memset(state, 0, sizeof(*state));
    hv_event_lock_take(&rings->lock);
    state->running = rings->running;
    state->options = rings->options;
    for (unsigned i = 0; i < rings->count; i++) {
        const struct ring *ring = &rings->rings[i];

        state->recorded += atomic_load(&ring->recorded);
        state->lost += atomic_load(&ring->lost);
        state->unread += ((atomic_load(&ring->head) & ~CLOSED) - atomic_load(&ring->tail)) * WORD;
    }
    hv_event_lock_drop(&rings->lock);
}
