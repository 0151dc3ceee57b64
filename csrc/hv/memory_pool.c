/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 7: memory pools.
 *
 * The hypervisor's own structures live in the host's memory, so the content of a deposited page is never used. What the
 * interface promises holds all the same: a page in a pool is out of reach of every partition, objects are charged by
 * tlfs/costs.def, and only as many pages can be withdrawn as are free. Which of them are in use has no meaning: any
 * free one is given back.
 *
 * Charging takes no lock, since objects are created under all kinds of them. `available` counts down before a page
 * leaves the list and up after one has joined it, so the list, which the partition's lock covers, is never the shorter.
 */
#include "stats.h"
#include "stream.h"

#include <string.h>

struct hv_memory_pool {
    _Atomic uint64_t available;
    _Atomic uint64_t total;
    uint64_t *pages; /* deposited: page numbers in the depositor's GPA space; partition's lock */
    size_t count, capacity;
    size_t taken; /* deposited pages that are not in the list (hv_pool_take_page()); partition's lock */
};

struct proximity_input {
    hv_partition_id partition;
    uint64_t proximity;
};

/* -- The pool -- */

bool hv_pool_create(struct hv_partition *partition, uint64_t own_pages)
{
    struct hv_memory_pool *pool = calloc(1, sizeof(*pool));

    if (!pool)
        return false;
    atomic_store(&pool->available, own_pages);
    atomic_store(&pool->total, own_pages);
    partition->pool = pool;
    hv_counter_add_shared(&partition->hv->stats.page[HV_HCA_TotalPages], own_pages);
    return true;
}

bool hv_pool_charge(struct hv_partition *partition, uint64_t pages)
{
    struct hv_memory_pool *pool = partition->pool;
    uint64_t available = atomic_load(&pool->available);

    do {
        if (available < pages)
            return false;
    } while (!atomic_compare_exchange_weak(&pool->available, &available, available - pages));
    return true;
}

void hv_pool_release(struct hv_partition *partition, uint64_t pages)
{
    atomic_fetch_add(&partition->pool->available, pages);
}

void hv_pool_set_available(struct hv_partition *partition, uint64_t pages)
{
    atomic_store(&partition->pool->available, pages);
}

void hv_pool_balance(const struct hv_partition *partition, uint64_t *available, uint64_t *in_use)
{
    struct hv_memory_pool *pool = partition->pool;

    /* In this order, so that a withdrawal in between never makes the difference negative. */
    *available = atomic_load(&pool->available);
    *in_use = atomic_load(&pool->total);
    *in_use = *in_use > *available ? *in_use - *available : 0;
}

uint64_t hv_pool_deposited(const struct hv_partition *partition)
{
    return partition->pool->count + partition->pool->taken;
}

/* One more or less is deposited. */
static void count_deposited(struct hv_partition *partition, int change)
{
    hv_counter_add_shared(&partition->hv->stats.page[HV_HCA_TotalPages], (uint64_t)change);
    HV_COUNT_PARTITION(partition, DepositedPages, change);
}

/* Whose GPA space the pages of a pool come from (TLFS 7.1.1). */
static struct hv_partition *depositor_of(struct hv_partition *partition)
{
    return partition->parent ? partition->parent : partition;
}

/* Partition's lock held. */
static bool append_page(struct hv_memory_pool *pool, uint64_t page)
{
    if (pool->count == pool->capacity) {
        size_t capacity = pool->capacity ? pool->capacity * 2 : 64;
        uint64_t *pages = realloc(pool->pages, capacity * sizeof(*pages));

        if (!pages)
            return false;
        pool->pages = pages;
        pool->capacity = capacity;
    }
    pool->pages[pool->count++] = page;
    return true;
}

static bool add_page(struct hv_partition *partition, uint64_t page)
{
    struct hv_memory_pool *pool = partition->pool;
    bool added;

    hv_partition_lock_take(&partition->lock);
    added = append_page(pool, page);
    hv_partition_lock_drop(&partition->lock);
    if (added) {
        atomic_fetch_add(&pool->total, 1);
        atomic_fetch_add(&pool->available, 1);
        count_deposited(partition, 1);
    }
    return added;
}

/* Take a free page out of the list; false when there is none that was deposited. */
static bool remove_page(struct hv_partition *partition, uint64_t *page)
{
    struct hv_memory_pool *pool = partition->pool;
    bool removed;

    if (!hv_pool_charge(partition, 1))
        return false;
    hv_partition_lock_take(&partition->lock);
    removed = pool->count > 0;
    if (removed)
        *page = pool->pages[--pool->count];
    hv_partition_lock_drop(&partition->lock);
    if (removed) {
        atomic_fetch_sub(&pool->total, 1);
        count_deposited(partition, -1);
    } else {
        hv_pool_release(partition, 1);
    }
    return removed;
}

bool hv_pool_take_page(struct hv_partition *partition, uint64_t *page)
{
    struct hv_memory_pool *pool = partition->pool;
    bool taken;

    if (!hv_pool_charge(partition, 1))
        return false;
    hv_partition_lock_take(&partition->lock);
    taken = pool->count > 0;
    if (taken) {
        *page = pool->pages[--pool->count];
        pool->taken++;
    }
    hv_partition_lock_drop(&partition->lock);
    if (!taken)
        hv_pool_release(partition, 1);
    return taken;
}

/* Only after a restore may there be no room in the list. */
void hv_pool_put_page(struct hv_partition *partition, uint64_t page)
{
    struct hv_memory_pool *pool = partition->pool;

    hv_partition_lock_take(&partition->lock);
    pool->taken--;
    if (!append_page(pool, page))
        abort(); /* the host has no memory, and the page would be lost */
    hv_partition_lock_drop(&partition->lock);
    hv_pool_release(partition, 1);
}

void hv_pool_adopt_page(struct hv_partition *partition)
{
    partition->pool->taken++;
    atomic_fetch_add(&partition->pool->total, 1);
    atomic_fetch_add(&partition->pool->available, 1); /* hv_state_pool() sets what is right */
    count_deposited(partition, 1);
}

void hv_pool_return_pages(struct hv_partition *partition)
{
    uint64_t page;

    while (remove_page(partition, &page))
        hv_gpa_give_page(depositor_of(partition), page);
}

void hv_pool_free(struct hv_partition *partition)
{
    if (!partition->pool)
        return;
    hv_counter_add_shared(&partition->hv->stats.page[HV_HCA_TotalPages], -atomic_load(&partition->pool->total));
    free(partition->pool->pages);
    free(partition->pool);
    partition->pool = NULL;
}

/* Which pages are deposited, and how many are free. What is charged is not charged anew. */
void hv_state_pool(struct hv_stream *s, struct hv_partition *partition)
{
    struct hv_memory_pool *pool = partition->pool;
    uint64_t own = atomic_load(&pool->total) - pool->count, in_use = 0, page = 0; /* own: those taken too */
    uint32_t count = hv_stream_count(s, (uint32_t)pool->count, UINT32_MAX);

    in_use = atomic_load(&pool->total) - atomic_load(&pool->available);
    hv_stream_u64(s, &in_use);
    for (uint32_t i = 0; i < count && !s->error; i++) {
        if (!hv_stream_reading(s))
            page = pool->pages[i];
        hv_stream_u64(s, &page);
        if (!hv_stream_reading(s) || s->error)
            continue;
        if (page >= partition->hv->gpa_limit >> HV_PAGE_SHIFT)
            hv_stream_fail(s, "the saved hypervisor state has an impossible deposited page");
        else if (!add_page(partition, page))
            hv_stream_fail(s, "out of memory");
    }
    if (!hv_stream_reading(s) || s->error)
        return;
    if (in_use > own + count)
        hv_stream_fail(s, "the saved hypervisor state has an impossible memory pool");
    else
        atomic_store(&pool->available, own + count - in_use);
}

bool hv_pool_deposits_taken(struct hv_partition *partition)
{
    struct hv_memory_pool *pool = partition->pool;

    for (size_t i = 0; i < pool->count; i++) {
        if (hv_gpa_take_page(depositor_of(partition), pool->pages[i]) == HV_STATUS_SUCCESS)
            continue;
        /* Those that could not be taken are nobody's to give back. */
        atomic_fetch_sub(&pool->total, pool->count - i);
        pool->count = i;
        return false;
    }
    return true;
}

/* -- Proximity domains (TLFS 7.2.1) -- */

#define PROXIMITY_ID(info) ((uint32_t)(info))
#define PROXIMITY_PREFERRED (UINT64_C(1) << 32)
#define PROXIMITY_RESERVED (UINT64_C(0x3FFFFFFF) << 33)
#define PROXIMITY_VALID (UINT64_C(1) << 63)

/* There is one node, 0. A domain that is only preferred may be any; without the valid bit nothing else is looked at. */
bool hv_proximity_is_valid(uint64_t info)
{
    if (!(info & PROXIMITY_VALID))
        return true;
    if (info & PROXIMITY_RESERVED)
        return false;
    return (info & PROXIMITY_PREFERRED) || PROXIMITY_ID(info) == 0;
}

/* -- Hypercalls -- */

static bool may_continue(const struct hv_call *call)
{
    return call->reps_done < call->rep_count && call->reps_done - call->rep_start < HV_REP_BUDGET;
}

static hv_status deposit(struct hv_partition *depositor, struct hv_partition *partition, uint64_t page)
{
    hv_status status = hv_gpa_take_page(depositor, page);

    if (status == HV_STATUS_SUCCESS && !add_page(partition, page)) {
        hv_gpa_give_page(depositor, page);
        return HV_STATUS_NO_RESOURCES;
    }
    return status;
}

/* TLFS 7.3.1 */
hv_status hv_call_deposit_memory(struct hv_call *call)
{
    const uint64_t *pages = call->elements;
    struct hv_partition *partition = call->partition;
    unsigned state = atomic_load(&partition->state);
    hv_status status = HV_STATUS_SUCCESS;

    if (state != HV_PARTITION_UNINITIALIZED && state != HV_PARTITION_ACTIVE)
        return HV_STATUS_INVALID_PARTITION_STATE;
    while (may_continue(call)) {
        status = deposit(depositor_of(partition), partition, pages[call->reps_done]);
        if (status != HV_STATUS_SUCCESS)
            break;
        call->reps_done++;
    }
    if (call->reps_done > call->rep_start)
        hv_gpa_flush(call->vp, depositor_of(partition));
    return status;
}

/* TLFS 7.3.2: the count so far comes with the status that ends it, as deployed clients need it. */
hv_status hv_call_withdraw_memory(struct hv_call *call)
{
    const struct proximity_input *in = call->input;
    struct hv_partition *partition = call->partition;
    uint64_t *pages = call->output; /* no header */

    if (!hv_proximity_is_valid(in->proximity))
        return HV_STATUS_INVALID_PARAMETER;
    while (may_continue(call)) {
        uint64_t *page = &pages[call->reps_done];

        if (!remove_page(partition, page))
            return HV_STATUS_NO_RESOURCES;
        hv_gpa_give_page(depositor_of(partition), *page);
        call->reps_done++;
    }
    return HV_STATUS_SUCCESS;
}

/* TLFS 7.3.3 */
hv_status hv_call_get_memory_balance(struct hv_call *call)
{
    const struct proximity_input *in = call->input;
    uint64_t balance[2];

    if (!hv_proximity_is_valid(in->proximity))
        return HV_STATUS_INVALID_PARAMETER;
    hv_pool_balance(call->partition, &balance[0], &balance[1]);
    memcpy(call->output, balance, sizeof(balance));
    return HV_STATUS_SUCCESS;
}
