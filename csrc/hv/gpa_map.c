/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS 8.3: hypercalls that change the GPA map of a child, or the root's rights to its own pages.
 *
 * Lists are taken in runs, pages that follow each other on both sides inside one large range. One call goes on for a
 * bounded number of changed entries, then it is executed again from the next element (TLFS 4.3). What VPs may still use
 * of what went is flushed once for each of these pieces.
 */
#include "gpa_table.h"
#include "stats.h"

#include <string.h>

#define CHANGE_BUDGET 512u /* entries: 3 to 30 us */
#define RUN_WORK 4u /* what a run costs besides its entries */

/* HV_MAP_GPA_FLAGS: 2.0a's three rights (TLFS 8.2.1), and what came later. */
#define MAP_READABLE 0x1u
#define MAP_WRITABLE 0x2u
#define MAP_EXECUTABLE 0x4u
#define MAP_USER_EXECUTABLE 0x8u /* the right to execute is one: either bit gives it */
#define MAP_ADJUSTABLE 0x8000u /* advice */
#define MAP_NO_ACCESS 0x10000u /* inaccessible, and the list of source pages has no meaning */
#define MAP_NOT_CACHED 0x200000u /* caches are not modelled */
#define MAP_LARGE_PAGE 0x80000000u /* elements are large ranges */
#define MAP_FLAGS_2008R2 (MAP_READABLE | MAP_WRITABLE | MAP_EXECUTABLE)
#define MAP_FLAGS_CURRENT                                                                                              \
    (MAP_FLAGS_2008R2 | MAP_USER_EXECUTABLE | MAP_ADJUSTABLE | MAP_NO_ACCESS | MAP_NOT_CACHED | MAP_LARGE_PAGE)
#define UNMAP_LARGE_PAGE 0x2u

struct map_input {
    hv_partition_id target;
    uint64_t base;
    uint32_t flags;
    uint32_t padding;
};

struct map_sparse_input {
    hv_partition_id target;
    uint32_t flags;
    uint32_t padding;
};

/* 2.0a's input ends before the flags. */
struct unmap_input {
    hv_partition_id target;
    uint64_t base;
    uint32_t flags;
    uint32_t padding;
};

struct mapping {
    uint64_t target, source;
};

/* One piece of a call. */
struct job {
    struct hv_call *call;
    struct hv_partition *parent; /* NULL: the root changes its own rights */
    struct hv_partition *child; /* whose map changes */
    unsigned rights;
    bool no_source, unmap;
    unsigned pages; /* of an element: 1, or those of a large range */
    struct hv_gpa_change change;
    /* Pages of the machine that are known to be memory. */
    uint64_t memory_first;
    unsigned memory_count;
};

static uint64_t page_limit(const struct job *job)
{
    return job->child->hv->gpa_limit >> HV_PAGE_SHIFT;
}

/* -- Source pages -- */

#define MEMORY_PIECE (1u << 20) /* pages */

/* How many of the machine's pages are memory; the piece found last is remembered. */
static unsigned count_memory(struct job *job, uint64_t page, unsigned count)
{
    uint64_t end = job->memory_first + job->memory_count;

    if (page < job->memory_first || page >= end) {
        bool cheap = job->child->hv->ops->memory_pages != NULL;

        job->memory_first = page;
        job->memory_count = hv_gpa_count_memory(job->child, page, cheap ? MEMORY_PIECE : count);
        end = page + job->memory_count;
    }
    return end - page < count ? (unsigned)(end - page) : count;
}

/* How many pages of a source run can be mapped, and what keeps the next one from it. */
static hv_status check_source(struct job *job, uint64_t page, unsigned count, unsigned *good)
{
    const struct hv_partition *owner = job->parent ? job->parent : job->child;

    *good = 0;
    while (*good < count) {
        uint64_t at = page + *good;
        struct hv_gpa_entry entry;
        uint64_t rest;
        unsigned part = count - *good;

        if (at >= page_limit(job))
            return HV_STATUS_INVALID_PARAMETER;
        if (owner->is_root && hv_event_log_page(owner->hv, at))
            return HV_STATUS_OBJECT_IN_USE;
        entry = hv_gpa_lookup(owner->gpa_space, at);
        rest = (UINT64_C(1) << entry.shift) - at % (UINT64_C(1) << entry.shift);
        part = rest < part ? (unsigned)rest : part;
        if (entry.value & HV_GPA_DEPOSITED)
            return job->parent ? HV_STATUS_OPERATION_DENIED : HV_STATUS_ACCESS_DENIED;
        if (owner->is_root) {
            part = count_memory(job, at, part);
            if (part == 0)
                return HV_STATUS_OPERATION_DENIED;
        } else if (!entry.value || (entry.value & HV_GPA_NO_SOURCE)) {
            return HV_STATUS_OPERATION_DENIED;
        }
        *good += part;
    }
    return HV_STATUS_SUCCESS;
}

/* -- Changing the map -- */

/*
 * How many pages of a run may be mapped before the child has more than the operator's policy allows it. What is mapped
 * already is only superseded.
 */
static unsigned count_allowed(struct job *job, uint64_t target, unsigned count)
{
    const struct hv_gpa_space *space = job->child->gpa_space;
    uint64_t limit = job->child->page_limit, mapped = hv_gpa_mapped_pages(job->child), room;
    unsigned allowed = 0;

    if (mapped + count <= limit)
        return count;
    room = limit > mapped ? limit - mapped : 0;
    while (allowed < count) {
        struct hv_gpa_entry entry = hv_gpa_lookup(space, target + allowed);
        unsigned part = 1;

        job->change.work++;
        if (entry.shift >= HV_GPA_BLOCK_SHIFT)
            part = count - allowed; /* a run is in one large range */
        if (!hv_gpa_entry_is_counted(entry.value)) {
            part = room < part ? (unsigned)room : part;
            room -= part;
            if (part == 0)
                break;
        }
        allowed += part;
    }
    return allowed;
}

static uint64_t entry_for(const struct job *job, uint64_t target, uint64_t source)
{
    if (job->unmap || (!job->parent && job->rights == HV_ACCESS_ALL))
        return 0;
    if (job->no_source)
        return hv_gpa_entry_make(target, 0) | HV_GPA_NO_SOURCE;
    return hv_gpa_entry_make(source, job->rights);
}

/* A run is one range, but may split another. What has fallen apart otherwise, by unmapping, is nobody's to refuse. */
static bool has_range_for(const struct job *job, uint64_t target, uint64_t source, unsigned count)
{
    const struct hv_gpa_space *space = job->child->gpa_space;
    uint64_t most = job->child->hv->config.gpa_ranges_most, ranges;

    if (!most || !job->parent || job->unmap || job->no_source || space->ranges + 2 <= most)
        return true;
    ranges = hv_gpa_ranges_with(space, target, count, entry_for(job, target, source));
    return ranges <= most || ranges <= space->ranges;
}

/* Change a run of elements in one large range of the target; counts those that are done. */
static hv_status change_run(struct job *job, uint64_t target, uint64_t source, unsigned elements)
{
    unsigned count = elements * job->pages, good = count, checked, done = 0;
    hv_status status = HV_STATUS_SUCCESS, set;

    job->change.work += RUN_WORK;
    if (target >= page_limit(job) || (target | source) % job->pages)
        return HV_STATUS_INVALID_PARAMETER;
    if (!job->parent && source != target)
        return HV_STATUS_ACCESS_DENIED;
    if (!job->unmap && !job->no_source) {
        status = check_source(job, source, count, &checked);
        good = count_allowed(job, target, checked);
        if (good < checked)
            status = HV_STATUS_NO_RESOURCES; /* as for all that the policy denies */
    }
    good -= good % job->pages;
    if (good && !has_range_for(job, target, source, good)) {
        status = HV_STATUS_NO_RESOURCES;
        good = 0;
    }
    if (good) {
        set = hv_gpa_set(job->child->gpa_space, target, good, entry_for(job, target, source), &job->change, &done);
        status = set == HV_STATUS_SUCCESS ? status : set;
    }
    job->call->reps_done += done / job->pages;
    HV_COUNT_PARTITION(job->child, GpaSpaceModifications, done / job->pages);
    return status;
}

static bool may_go_on(const struct job *job)
{
    return job->call->reps_done < job->call->rep_count && job->change.work < CHANGE_BUDGET;
}

/* Elements that follow each other from the next one on, up to the end of the target's large range or the budget. */
static unsigned count_in_reach(const struct job *job, uint64_t target)
{
    unsigned rest = job->call->rep_count - job->call->reps_done;
    unsigned block = HV_GPA_BLOCK_PAGES - (unsigned)(target % HV_GPA_BLOCK_PAGES);

    if (job->pages > 1)
        return 1;
    return rest < block ? rest : block;
}

static hv_status map_list(struct job *job, uint64_t base, const uint64_t *sources)
{
    hv_status status = HV_STATUS_SUCCESS;

    while (status == HV_STATUS_SUCCESS && may_go_on(job)) {
        unsigned at = job->call->reps_done, run = 1;
        uint64_t target = base + (uint64_t)at * job->pages;
        unsigned most = count_in_reach(job, target);

        while (run < most && (job->no_source || sources[at + run] == sources[at] + run))
            run++;
        status = change_run(job, target, job->no_source ? target : sources[at], run);
    }
    return status;
}

static hv_status map_pairs(struct job *job, const struct mapping *list)
{
    hv_status status = HV_STATUS_SUCCESS;

    while (status == HV_STATUS_SUCCESS && may_go_on(job)) {
        const struct mapping *first = &list[job->call->reps_done];
        unsigned most = count_in_reach(job, first->target), run = 1;

        while (run < most && first[run].target == first->target + run &&
               (job->no_source || first[run].source == first->source + run))
            run++;
        status = change_run(job, first->target, job->no_source ? first->target : first->source, run);
    }
    return status;
}

static hv_status unmap_range(struct job *job, uint64_t base)
{
    hv_status status = HV_STATUS_SUCCESS;

    while (status == HV_STATUS_SUCCESS && may_go_on(job)) {
        uint64_t target = base + (uint64_t)job->call->reps_done * job->pages;

        status = change_run(job, target, target, count_in_reach(job, target));
    }
    return status;
}

/* -- Calls -- */

static bool is_current(const struct hv_call *call)
{
    return call->vp->hv->config.generation == HV_GEN_CURRENT;
}

static void begin(struct job *job, struct hv_call *call)
{
    memset(job, 0, sizeof(*job));
    job->call = call;
    job->child = call->partition;
    job->parent = call->partition->parent;
    job->pages = 1;
}

static void take_locks(const struct job *job)
{
    if (job->parent)
        hv_partition_lock_take(&job->parent->lock);
    hv_partition_lock_take(&job->child->lock);
}

static void drop_locks(const struct job *job)
{
    hv_gpa_changed(job->child->gpa_space);
    hv_partition_lock_drop(&job->child->lock);
    if (job->parent)
        hv_partition_lock_drop(&job->parent->lock);
    if (job->change.lost)
        hv_gpa_flush(job->call->vp, job->child);
}

/* The combinations that the processor knows (TLFS 8.1.2): nothing without the right to read. */
static hv_status read_map_flags(struct job *job, uint32_t flags)
{
    bool current = is_current(job->call);

    if (flags & ~(current ? MAP_FLAGS_CURRENT : MAP_FLAGS_2008R2))
        return HV_STATUS_INVALID_PARAMETER;
    job->rights = (flags & MAP_READABLE ? HV_ACCESS_READ : 0) | (flags & MAP_WRITABLE ? HV_ACCESS_WRITE : 0) |
                  (flags & (MAP_EXECUTABLE | MAP_USER_EXECUTABLE) ? HV_ACCESS_EXECUTE : 0);
    if (job->rights && !(job->rights & HV_ACCESS_READ))
        return HV_STATUS_INVALID_PARAMETER;
    if (flags & MAP_NO_ACCESS) {
        if (job->rights)
            return HV_STATUS_INVALID_PARAMETER;
        job->no_source = job->parent != NULL;
    }
    if (flags & MAP_LARGE_PAGE)
        job->pages = HV_GPA_BLOCK_PAGES;
    return HV_STATUS_SUCCESS;
}

static hv_status begin_map(struct job *job, struct hv_call *call, uint32_t flags)
{
    begin(job, call);
    if (!hv_partition_is_active(call->partition))
        return HV_STATUS_INVALID_PARTITION_STATE;
    return read_map_flags(job, flags);
}

/* TLFS 8.3.1 */
hv_status hv_call_map_gpa_pages(struct hv_call *call)
{
    const struct map_input *in = call->input;
    struct job job;
    hv_status status = begin_map(&job, call, in->flags);

    if (status != HV_STATUS_SUCCESS)
        return status;
    take_locks(&job);
    status = map_list(&job, in->base, call->elements);
    drop_locks(&job);
    return status;
}

/* TLFS 8.3.3 */
hv_status hv_call_map_sparse_gpa_pages(struct hv_call *call)
{
    const struct map_sparse_input *in = call->input;
    struct job job;
    hv_status status = begin_map(&job, call, in->flags);

    if (status != HV_STATUS_SUCCESS)
        return status;
    take_locks(&job);
    status = map_pairs(&job, call->elements);
    drop_locks(&job);
    return status;
}

/*
 * TLFS 8.3.2. Deployed clients finalize a partition first and unmap its memory then, when there is nothing left to be
 * unmapped; they have to be told that all is well.
 */
hv_status hv_call_unmap_gpa_pages(struct hv_call *call)
{
    const struct unmap_input *in = call->input;
    uint32_t flags = is_current(call) ? in->flags : 0;
    struct job job;
    hv_status status;

    begin(&job, call);
    job.unmap = true;
    if (is_current(call) && atomic_load(&call->partition->state) == HV_PARTITION_FINALIZED) {
        call->reps_done = call->rep_count;
        return HV_STATUS_SUCCESS;
    }
    if (!hv_partition_is_active(call->partition))
        return HV_STATUS_INVALID_PARTITION_STATE;
    if (flags & ~UNMAP_LARGE_PAGE)
        return HV_STATUS_INVALID_PARAMETER;
    if (flags & UNMAP_LARGE_PAGE)
        job.pages = HV_GPA_BLOCK_PAGES;
    take_locks(&job);
    status = unmap_range(&job, in->base);
    drop_locks(&job);
    return status;
}
