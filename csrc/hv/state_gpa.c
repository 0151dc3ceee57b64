/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * GPA spaces in the stream of state: what is mapped, in runs of pages that continue each other. A run ends with its
 * large range, so that a stream makes no more tables than it is long.
 */
#include "gpa_table.h"
#include "stream.h"

#define ENTRY_BITS                                                                                                     \
    (HV_GPA_MAPPED | (uint64_t)HV_ACCESS_ALL << HV_GPA_RIGHTS_SHIFT | HV_GPA_NO_SOURCE | HV_GPA_DEPOSITED |            \
     HV_GPA_SOURCE_MASK)
#define WHOLE_RIGHTS ((uint64_t)HV_ACCESS_ALL << HV_GPA_RIGHTS_SHIFT)
#define PAGE_STEP (UINT64_C(1) << HV_PAGE_SHIFT) /* from an entry to the one that continues it */

struct run {
    uint64_t page, value;
    uint32_t count; /* 0: the last one was before */
};

static uint64_t page_limit(const struct hv_gpa_space *space)
{
    return space->partition->hv->gpa_limit >> HV_PAGE_SHIFT;
}

static unsigned rest_of_block(uint64_t page)
{
    return HV_GPA_BLOCK_PAGES - (unsigned)(page % HV_GPA_BLOCK_PAGES);
}

/* Pages from one on whose entries continue each other, up to the end of its large range. */
static unsigned measure(const struct hv_gpa_space *space, uint64_t page, struct hv_gpa_entry entry)
{
    unsigned count = 1;

    if (entry.shift >= HV_GPA_BLOCK_SHIFT)
        return rest_of_block(page);
    while (count < rest_of_block(page) && hv_gpa_lookup(space, page + count).value == entry.value + count * PAGE_STEP)
        count++;
    return count;
}

/* The first run behind one. */
static void find_next(const struct hv_gpa_space *space, struct run *run)
{
    uint64_t page = run->page + run->count, limit = page_limit(space);

    run->count = 0;
    while (page < limit) {
        struct hv_gpa_entry entry = hv_gpa_lookup(space, page);

        if (entry.value) {
            *run = (struct run){.page = page, .value = entry.value, .count = measure(space, page, entry)};
            return;
        }
        page = (page | ((UINT64_C(1) << entry.shift) - 1)) + 1;
    }
}

static bool is_possible(const struct hv_gpa_space *space, const struct run *run)
{
    uint64_t source = hv_gpa_entry_source(run->value), limit = page_limit(space);

    if (run->page >= limit || run->count > rest_of_block(run->page) || source + run->count > limit)
        return false;
    if ((run->value & ~ENTRY_BITS) || !(run->value & HV_GPA_MAPPED))
        return false;
    if ((run->value & HV_GPA_DEPOSITED) && (run->value & WHOLE_RIGHTS) != WHOLE_RIGHTS)
        return false;
    if (space->identity || (run->value & HV_GPA_NO_SOURCE))
        return source == run->page;
    return true;
}

/* A map that is empty otherwise, or has what came earlier in the stream. */
static bool restore(struct hv_gpa_space *space, const struct run *run)
{
    bool deposited = run->value & HV_GPA_DEPOSITED;
    struct hv_gpa_change change = {0};
    unsigned done;

    if (!is_possible(space, run))
        return false;
    if (!(deposited && space->identity) &&
        hv_gpa_set(space, run->page, run->count, run->value & ~HV_GPA_DEPOSITED, &change, &done) != HV_STATUS_SUCCESS)
        return false;
    for (unsigned i = 0; deposited && i < run->count; i++) {
        if (hv_gpa_set_deposited(space, run->page + i, true) != HV_STATUS_SUCCESS)
            return false;
    }
    return true;
}

void hv_state_gpa_space(struct hv_stream *s, struct hv_partition *partition)
{
    struct hv_gpa_space *space = partition->gpa_space;
    struct run run = {0};

    if (!space)
        return;
    do {
        if (!hv_stream_reading(s))
            find_next(space, &run);
        hv_stream_u32(s, &run.count);
        if (s->error || !run.count)
            break;
        hv_stream_u64(s, &run.page);
        hv_stream_u64(s, &run.value);
        if (hv_stream_reading(s) && !s->error && !restore(space, &run))
            hv_stream_fail(s, "the saved hypervisor state has an impossible mapping");
    } while (!s->error);
}

size_t hv_gpa_runs(const struct hv_partition *partition, struct hv_child_run *runs, size_t max)
{
    struct hv_child_run last = {0};
    struct run run = {0};
    size_t n = 0;

    for (find_next(partition->gpa_space, &run); run.count; find_next(partition->gpa_space, &run)) {
        uint64_t source = hv_gpa_entry_source(run.value);

        if (run.value & HV_GPA_NO_SOURCE)
            continue;
        if (n && run.page == last.gpa_page + last.pages && source == last.parent_page + last.pages) {
            last.pages += run.count;
        } else {
            last = (struct hv_child_run){.gpa_page = run.page, .parent_page = source, .pages = run.count};
            n++;
        }
        if (n <= max)
            runs[n - 1] = last;
    }
    return n;
}
