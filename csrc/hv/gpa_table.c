/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 8: the radix tree of a GPA space, and the count of what children use of it.
 */
#include "gpa_table.h"
#include "stats.h"

#include <stdlib.h>
#include <string.h>

#define PAGE_STEP (UINT64_C(1) << HV_PAGE_SHIFT) /* from an entry to the one that continues it */

static void account(struct hv_gpa_space *space, int64_t bytes)
{
    atomic_fetch_add_explicit(&space->bytes, (uint64_t)bytes, memory_order_relaxed);
}

/* -- Uses of a space's pages by children -- */

static struct hv_gpa_uses *find_uses(const struct hv_gpa_space *space, uint64_t page)
{
    uint64_t number = page >> HV_GPA_BLOCK_SHIFT;
    void *at = space->uses;

    for (unsigned level = HV_GPA_USE_LEVELS; at && level > 0; level--)
        at = ((struct hv_gpa_use_node *)at)->slots[(number >> (9 * level)) % HV_GPA_BLOCK_PAGES];
    return at ? (struct hv_gpa_uses *)at + number % HV_GPA_BLOCK_PAGES : NULL;
}

static void *allocate(struct hv_gpa_space *space, size_t size)
{
    void *memory = calloc(1, size);

    if (memory)
        account(space, (int64_t)size);
    return memory;
}

static struct hv_gpa_uses *make_uses(struct hv_gpa_space *space, uint64_t page)
{
    uint64_t number = page >> HV_GPA_BLOCK_SHIFT;
    void **at = (void **)&space->uses;

    for (unsigned level = HV_GPA_USE_LEVELS; level > 0; level--) {
        if (!*at)
            *at = allocate(space, sizeof(struct hv_gpa_use_node));
        if (!*at)
            return NULL;
        at = &((struct hv_gpa_use_node *)*at)->slots[(number >> (9 * level)) % HV_GPA_BLOCK_PAGES];
    }
    if (!*at)
        *at = allocate(space, HV_GPA_BLOCK_PAGES * sizeof(struct hv_gpa_uses));
    return *at ? (struct hv_gpa_uses *)*at + number % HV_GPA_BLOCK_PAGES : NULL;
}

/* The part of a run of pages that lies in one large range. */
static unsigned part_in_block(uint64_t page, unsigned count)
{
    unsigned rest = HV_GPA_BLOCK_PAGES - (unsigned)(page % HV_GPA_BLOCK_PAGES);

    return count < rest ? count : rest;
}

/* Make sure that the uses of a run can be counted. */
static bool reserve_uses(struct hv_gpa_space *space, uint64_t page, unsigned count)
{
    while (count) {
        unsigned part = part_in_block(page, count);
        struct hv_gpa_uses *uses = make_uses(space, page);

        if (!uses)
            return false;
        if (part < HV_GPA_BLOCK_PAGES && !uses->pages) {
            uses->pages = allocate(space, HV_GPA_BLOCK_PAGES * sizeof(*uses->pages));
            if (!uses->pages)
                return false;
        }
        page += part;
        count -= part;
    }
    return true;
}

static void release_counts(struct hv_gpa_space *space, struct hv_gpa_uses *uses)
{
    if (uses->nonzero || !uses->pages)
        return;
    free(uses->pages);
    uses->pages = NULL;
    account(space, -(int64_t)(HV_GPA_BLOCK_PAGES * sizeof(*uses->pages)));
}

static void count_pages(struct hv_gpa_space *space, struct hv_gpa_uses *uses, unsigned first, unsigned count,
                        int change)
{
    for (unsigned i = first; i < first + count; i++) {
        uint32_t before = uses->pages[i];

        uses->pages[i] = before + (uint32_t)change;
        uses->nonzero += (uint32_t)((uses->pages[i] != 0) - (before != 0));
    }
    release_counts(space, uses);
}

/* Only what was reserved is counted up, and only what was counted up down again. */
static void count_uses(struct hv_gpa_space *space, uint64_t page, unsigned count, int change)
{
    while (count) {
        unsigned part = part_in_block(page, count);
        struct hv_gpa_uses *uses = find_uses(space, page);

        if (part == HV_GPA_BLOCK_PAGES)
            uses->whole += (uint32_t)change;
        else
            count_pages(space, uses, (unsigned)(page % HV_GPA_BLOCK_PAGES), part, change);
        page += part;
        count -= part;
    }
}

uint32_t hv_gpa_use_count(const struct hv_gpa_space *space, uint64_t page)
{
    const struct hv_gpa_uses *uses = find_uses(space, page);

    if (!uses)
        return 0;
    return uses->whole + (uses->pages ? uses->pages[page % HV_GPA_BLOCK_PAGES] : 0);
}

static void free_uses(void *node, unsigned level)
{
    if (!node)
        return;
    for (unsigned i = 0; i < HV_GPA_BLOCK_PAGES; i++) {
        if (level == 0)
            free(((struct hv_gpa_uses *)node)[i].pages);
        else
            free_uses(((struct hv_gpa_use_node *)node)->slots[i], level - 1);
    }
    free(node);
}

/* Whether a mapping counts as a use of the parent's page. */
static bool is_use(const struct hv_gpa_space *space, uint64_t entry)
{
    return space->parent && hv_gpa_entry_rights(entry) != 0;
}

static bool reserve_entry(const struct hv_gpa_space *space, uint64_t entry, unsigned count)
{
    return !is_use(space, entry) || reserve_uses(space->parent, hv_gpa_entry_source(entry), count);
}

static void count_entry(struct hv_gpa_space *space, uint64_t entry, unsigned count, int sign)
{
    if (hv_gpa_entry_is_counted(entry)) {
        atomic_fetch_add_explicit(&space->mapped_pages, (uint64_t)((int64_t)sign * count), memory_order_relaxed);
        hv_counter_set(&space->partition->stats.release[HV_PV_GpaPages], hv_gpa_mapped_pages(space->partition));
    }
    if (is_use(space, entry))
        count_uses(space->parent, hv_gpa_entry_source(entry), count, sign);
}

/* A large range's uses, counted as a whole, become those of its pages, or the other way round. */
static void recount_entry(struct hv_gpa_space *space, uint64_t entry, bool whole)
{
    struct hv_gpa_uses *uses;

    if (!is_use(space, entry))
        return;
    uses = find_uses(space->parent, hv_gpa_entry_source(entry));
    uses->whole += whole ? 1 : UINT32_MAX;
    count_pages(space->parent, uses, 0, HV_GPA_BLOCK_PAGES, whole ? -1 : 1);
}

static bool reserve_split(const struct hv_gpa_space *space, uint64_t entry)
{
    uint64_t source = hv_gpa_entry_source(entry);

    return !is_use(space, entry) || reserve_uses(space->parent, source, HV_GPA_BLOCK_PAGES - 1);
}

/* -- Tables -- */

static unsigned index_at(uint64_t page, unsigned level)
{
    return (unsigned)(page >> (level * HV_GPA_BLOCK_SHIFT)) % HV_GPA_BLOCK_PAGES;
}

static struct hv_gpa_table *table_of(uint64_t entry)
{
    return (struct hv_gpa_table *)(uintptr_t)(entry & ~(HV_GPA_TABLE | HV_GPA_MAPPED));
}

static uint64_t load(struct hv_gpa_table *table, unsigned index)
{
    return atomic_load_explicit(&table->entries[index], memory_order_relaxed);
}

static void store(struct hv_gpa_table *table, unsigned index, uint64_t value)
{
    table->used = (uint16_t)(table->used + (value != 0) - (load(table, index) != 0));
    atomic_store_explicit(&table->entries[index], value, memory_order_release);
}

static struct hv_gpa_table *take_unused(struct hv_gpa_space *space)
{
    struct hv_gpa_table *table = space->unused;

    if (!table) {
        table = aligned_alloc(64, (sizeof(*table) + 63) / 64 * 64);
        if (table)
            account(space, sizeof(*table));
        return table;
    }
    space->unused = table->next;
    /* From here on a reader that is still inside must find out. */
    atomic_fetch_add(&space->generation, 1);
    atomic_thread_fence(memory_order_release);
    return table;
}

/* A table with nothing in it; NULL: neither the pool nor the host may be short. */
static struct hv_gpa_table *make_table(struct hv_gpa_space *space)
{
    struct hv_gpa_table *table;

    /* What the root's identity map needs was set aside at boot. */
    if (!space->identity && !hv_pool_charge(space->partition, HV_COST_GpaTable))
        return NULL;
    table = take_unused(space);
    if (!table) {
        if (!space->identity)
            hv_pool_release(space->partition, HV_COST_GpaTable);
        return NULL;
    }
    for (unsigned i = 0; i < HV_GPA_BLOCK_PAGES; i++)
        atomic_store_explicit(&table->entries[i], 0, memory_order_relaxed);
    table->used = 0;
    table->breaks = HV_GPA_BLOCK_PAGES - 1;
    table->deposited = 0;
    return table;
}

static void retire_table(struct hv_gpa_space *space, struct hv_gpa_table *table)
{
    table->next = space->unused;
    space->unused = table;
    if (!space->identity)
        hv_pool_release(space->partition, HV_COST_GpaTable);
}

bool hv_gpa_table_init(struct hv_gpa_space *space)
{
    unsigned bits = 0;

    while (space->partition->hv->gpa_limit >> (bits + HV_PAGE_SHIFT) > 1)
        bits++;
    space->levels = (bits + 8) / 9;
    space->top = aligned_alloc(64, (sizeof(*space->top) + 63) / 64 * 64);
    if (!space->top)
        return false;
    memset(space->top, 0, sizeof(*space->top));
    account(space, sizeof(*space->top));
    return true;
}

static void free_tables(struct hv_gpa_table *table, unsigned level)
{
    for (unsigned i = 0; level > 0 && i < HV_GPA_BLOCK_PAGES; i++) {
        if (load(table, i) & HV_GPA_TABLE)
            free_tables(table_of(load(table, i)), level - 1);
    }
    free(table);
}

void hv_gpa_table_free(struct hv_gpa_space *space)
{
    if (space->top)
        free_tables(space->top, space->levels - 1);
    while (space->unused) {
        struct hv_gpa_table *table = space->unused;

        space->unused = table->next;
        free(table);
    }
    free_uses(space->uses, HV_GPA_USE_LEVELS);
}

/* -- Reading -- */

static struct hv_gpa_entry walk(const struct hv_gpa_space *space, uint64_t page)
{
    struct hv_gpa_table *table = space->top;

    for (unsigned level = space->levels - 1;; level--) {
        uint64_t value = atomic_load_explicit(&table->entries[index_at(page, level)], memory_order_acquire);

        /* A table below the lowest level is one that is in use elsewhere by now: the caller finds out. */
        if (!(value & HV_GPA_TABLE) || level == 0)
            return (struct hv_gpa_entry){value, level * HV_GPA_BLOCK_SHIFT};
        table = table_of(value);
    }
}

struct hv_gpa_entry hv_gpa_lookup(const struct hv_gpa_space *space, uint64_t page)
{
    uint64_t before, after = atomic_load_explicit(&space->generation, memory_order_acquire);
    struct hv_gpa_entry entry;

    do {
        before = after;
        entry = walk(space, page);
        atomic_thread_fence(memory_order_acquire);
        after = atomic_load_explicit(&space->generation, memory_order_relaxed);
    } while (after != before);
    if (entry.value && entry.shift)
        entry.value += (page % (UINT64_C(1) << entry.shift)) << HV_PAGE_SHIFT;
    return entry;
}

/* -- Writing -- */

/* The tables above and at the lowest level reached on the way to a page. */
struct path {
    struct hv_gpa_table *table[HV_GPA_LEVELS];
    unsigned level;
};

static void descend(const struct hv_gpa_space *space, uint64_t page, unsigned level, struct path *path)
{
    path->level = space->levels - 1;
    path->table[path->level] = space->top;
    while (path->level > level) {
        uint64_t value = load(path->table[path->level], index_at(page, path->level));

        if (!(value & HV_GPA_TABLE))
            break;
        path->table[--path->level] = table_of(value);
    }
}

/* Tables without content go. */
static void prune(struct hv_gpa_space *space, uint64_t page, struct path *path)
{
    while (path->level < space->levels - 1 && path->table[path->level]->used == 0) {
        struct hv_gpa_table *table = path->table[path->level++];

        store(path->table[path->level], index_at(page, path->level), 0);
        retire_table(space, table);
    }
}

/* Fill a new table with the pages of the large range it replaces. */
static bool split(struct hv_gpa_space *space, struct hv_gpa_table *table, uint64_t entry)
{
    if (!reserve_split(space, entry))
        return false;
    recount_entry(space, entry, false);
    for (unsigned i = 0; i < HV_GPA_BLOCK_PAGES; i++)
        atomic_store_explicit(&table->entries[i], entry + i * PAGE_STEP, memory_order_relaxed);
    table->used = HV_GPA_BLOCK_PAGES;
    table->breaks = 0;
    return true;
}

/* Go on to `level` with new tables. */
static bool extend(struct hv_gpa_space *space, uint64_t page, unsigned level, struct path *path)
{
    while (path->level > level) {
        struct hv_gpa_table *above = path->table[path->level];
        unsigned index = index_at(page, path->level);
        uint64_t value = load(above, index);
        struct hv_gpa_table *table = make_table(space);

        if (!table || (value && !split(space, table, value))) {
            if (table)
                retire_table(space, table);
            prune(space, page, path);
            return false;
        }
        store(above, index, (uint64_t)(uintptr_t)table | HV_GPA_TABLE);
        path->table[--path->level] = table;
    }
    return true;
}

/* The root's pages that have no entry have all rights. */
static uint64_t effective(const struct hv_gpa_space *space, uint64_t page, uint64_t entry)
{
    return entry || !space->identity ? entry : hv_gpa_entry_make(page, HV_ACCESS_ALL);
}

static bool loses(const struct hv_gpa_space *space, uint64_t page, uint64_t old, uint64_t value)
{
    old = effective(space, page, old);
    value = effective(space, page, value);
    return hv_gpa_entry_rights(old) &&
           (((old ^ value) & HV_GPA_SOURCE_MASK) || (hv_gpa_entry_rights(old) & ~hv_gpa_entry_rights(value)));
}

/* Consecutive mappings that go are counted as one run. */
struct run {
    uint64_t first;
    unsigned count;
};

static void end_run(struct hv_gpa_space *space, struct run *run)
{
    if (run->count)
        count_entry(space, run->first, run->count, -1);
    run->count = 0;
}

static void add_to_run(struct hv_gpa_space *space, struct run *run, uint64_t entry)
{
    if (run->count && entry == run->first + run->count * PAGE_STEP) {
        run->count++;
        return;
    }
    end_run(space, run);
    if (entry)
        *run = (struct run){entry, 1};
}

/* Replace entries of a table of the lowest level. */
static void replace(struct hv_gpa_space *space, struct hv_gpa_table *table, uint64_t page, unsigned count,
                    uint64_t value, struct hv_gpa_change *change)
{
    unsigned first = index_at(page, 0), end = first + count;
    uint64_t step = value ? PAGE_STEP : 0;
    uint64_t old_before = first ? load(table, first - 1) : 0, new_before = old_before;
    unsigned breaks = table->breaks, used = table->used;
    struct run run = {0};
    bool lost = false;

    for (unsigned i = first; i < end; i++, page++, value += step) {
        uint64_t old = load(table, i);

        if (i) {
            breaks -= old != old_before + PAGE_STEP;
            breaks += value != new_before + PAGE_STEP;
        }
        used += (unsigned)(value != 0) - (unsigned)(old != 0);
        lost |= loses(space, page, old, value);
        add_to_run(space, &run, old);
        atomic_store_explicit(&table->entries[i], value, memory_order_release);
        old_before = old;
        new_before = value;
    }
    if (end < HV_GPA_BLOCK_PAGES) {
        breaks -= load(table, end) != old_before + PAGE_STEP;
        breaks += load(table, end) != new_before + PAGE_STEP;
    }
    end_run(space, &run);
    table->breaks = (uint16_t)breaks;
    table->used = (uint16_t)used;
    change->lost |= lost;
    change->work += count;
}

/* The same for a table with nothing in it. */
static void fill(struct hv_gpa_space *space, struct hv_gpa_table *table, uint64_t page, unsigned count, uint64_t value,
                 struct hv_gpa_change *change)
{
    unsigned first = index_at(page, 0);

    for (unsigned i = 0; i < count; i++)
        atomic_store_explicit(&table->entries[first + i], value + i * PAGE_STEP, memory_order_release);
    table->used = (uint16_t)count;
    table->breaks = (uint16_t)(HV_GPA_BLOCK_PAGES - count);
    change->lost |= space->identity;
    change->work += count;
}

static bool is_large_source(uint64_t entry)
{
    return hv_gpa_entry_source(entry) % HV_GPA_BLOCK_PAGES == 0;
}

/* A table whose entries all continue each other becomes one large range (TLFS 8.3.1). */
static bool collapse(struct hv_gpa_space *space, uint64_t page, struct path *path)
{
    struct hv_gpa_table *table = path->table[0];
    uint64_t entry = load(table, 0);

    if (table->breaks || table->deposited || !is_large_source(entry))
        return false;
    recount_entry(space, entry, true);
    path->level = 1;
    store(path->table[1], index_at(page, 1), entry);
    retire_table(space, table);
    return true;
}

/* Bring a table of the lowest level into the form its content has at rest: its uses are counted accordingly. */
static void settle(struct hv_gpa_space *space, uint64_t page, struct path *path)
{
    if (!collapse(space, page, path))
        prune(space, page, path);
}

/* Pages from `page` on that may be changed. */
static unsigned count_free(struct hv_gpa_table *table, uint64_t page, unsigned count)
{
    unsigned first = index_at(page, 0), i = 0;

    if (!table->deposited)
        return count;
    while (i < count && !(load(table, first + i) & HV_GPA_DEPOSITED))
        i++;
    return i;
}

static hv_status set_pages(struct hv_gpa_space *space, uint64_t page, unsigned count, uint64_t value,
                           struct hv_gpa_change *change, unsigned *done)
{
    struct path path;

    descend(space, page, 0, &path);
    *done = count;
    if (path.level > 0) {
        uint64_t whole = load(path.table[path.level], index_at(page, path.level));

        /* As it is already: nothing, or as part of a large range. */
        if (whole ? whole + index_at(page, 0) * PAGE_STEP == value : !value)
            return HV_STATUS_SUCCESS;
        *done = 0;
        if (!extend(space, page, 0, &path))
            return HV_STATUS_INSUFFICIENT_MEMORY;
    }
    *done = count_free(path.table[0], page, count);
    if (*done) {
        if (!reserve_entry(space, value, *done)) {
            *done = 0;
            settle(space, page, &path);
            return HV_STATUS_INSUFFICIENT_MEMORY;
        }
        /* Counted first: the counts of a range that is mapped anew need not go and come again. */
        count_entry(space, value, *done, 1);
        if (value && path.table[0]->used == 0)
            fill(space, path.table[0], page, *done, value, change);
        else
            replace(space, path.table[0], page, *done, value, change);
        settle(space, page, &path);
    }
    return *done < count ? HV_STATUS_OBJECT_IN_USE : HV_STATUS_SUCCESS;
}

/* What is in a table that goes as a whole. */
static void release_table(struct hv_gpa_space *space, struct hv_gpa_table *table, uint64_t page, uint64_t value,
                          struct hv_gpa_change *change)
{
    uint64_t step = value ? PAGE_STEP : 0;
    struct run run = {0};

    for (unsigned i = 0; i < HV_GPA_BLOCK_PAGES; i++) {
        uint64_t old = load(table, i);

        change->lost |= loses(space, page + i, old, value + i * step);
        add_to_run(space, &run, old);
    }
    end_run(space, &run);
    change->work += HV_GPA_BLOCK_PAGES;
    retire_table(space, table);
}

/* A large range as one entry. */
static hv_status set_block(struct hv_gpa_space *space, uint64_t page, uint64_t value, struct path *path,
                           struct hv_gpa_change *change)
{
    uint64_t old;

    if (path->level > 1) {
        if (!value && !load(path->table[path->level], index_at(page, path->level)))
            return HV_STATUS_SUCCESS;
        if (!extend(space, page, 1, path))
            return HV_STATUS_INSUFFICIENT_MEMORY;
    }
    if (!reserve_entry(space, value, HV_GPA_BLOCK_PAGES)) {
        prune(space, page, path);
        return HV_STATUS_INSUFFICIENT_MEMORY;
    }
    old = load(path->table[1], index_at(page, 1));
    count_entry(space, value, HV_GPA_BLOCK_PAGES, 1);
    store(path->table[1], index_at(page, 1), value);
    if (old & HV_GPA_TABLE) {
        release_table(space, table_of(old), page, value, change);
    } else {
        change->lost |= loses(space, page, old, value);
        count_entry(space, old, HV_GPA_BLOCK_PAGES, -1);
    }
    change->work++;
    prune(space, page, path);
    return HV_STATUS_SUCCESS;
}

/* -- Ranges: what a platform that keeps a copy of the map has to tell apart -- */

static bool counts_ranges(const struct hv_gpa_space *space)
{
    return !space->identity && space->partition->hv->config.gpa_ranges_most;
}

static bool begins_range(uint64_t before, uint64_t value)
{
    return value && !(value & (HV_GPA_NO_SOURCE | HV_GPA_DEPOSITED)) && value != before + PAGE_STEP;
}

static uint64_t value_at(const struct hv_gpa_space *space, uint64_t page)
{
    return page < space->partition->hv->gpa_limit >> HV_PAGE_SHIFT ? hv_gpa_lookup(space, page).value : 0;
}

/* How many ranges begin in these pages and the one behind them. */
static uint64_t count_ranges(const struct hv_gpa_space *space, uint64_t page, unsigned count)
{
    uint64_t before, ranges = 0, step;

    if (!counts_ranges(space))
        return 0;
    before = value_at(space, page - 1);
    for (uint64_t at = page; at < page + count; at += step) {
        struct hv_gpa_entry entry = hv_gpa_lookup(space, at);

        ranges += begins_range(before, entry.value);
        step = (UINT64_C(1) << entry.shift) - at % (UINT64_C(1) << entry.shift);
        step = step < page + count - at ? step : page + count - at;
        before = entry.value ? entry.value + (step - 1) * PAGE_STEP : 0;
    }
    return ranges + begins_range(before, value_at(space, page + count));
}

uint64_t hv_gpa_ranges_with(const struct hv_gpa_space *space, uint64_t page, unsigned count, uint64_t value)
{
    uint64_t last = value ? value + (count - 1) * PAGE_STEP : 0;

    return space->ranges - count_ranges(space, page, count) + begins_range(value_at(space, page - 1), value) +
           begins_range(last, value_at(space, page + count));
}

/* -- The whole of it -- */

static hv_status set(struct hv_gpa_space *space, uint64_t page, unsigned count, uint64_t value,
                     struct hv_gpa_change *change, unsigned *done)
{
    struct path path;
    uint64_t below;
    hv_status status;

    if (count == HV_GPA_BLOCK_PAGES && is_large_source(value)) {
        descend(space, page, 1, &path);
        below = load(path.table[path.level], index_at(page, path.level));
        if (!(below & HV_GPA_TABLE) || !table_of(below)->deposited) {
            status = set_block(space, page, value, &path, change);
            *done = status == HV_STATUS_SUCCESS ? count : 0;
            return status;
        }
    }
    return set_pages(space, page, count, value, change, done);
}

hv_status hv_gpa_set(struct hv_gpa_space *space, uint64_t page, unsigned count, uint64_t value,
                     struct hv_gpa_change *change, unsigned *done)
{
    uint64_t before = count_ranges(space, page, count);
    hv_status status = set(space, page, count, value, change, done);

    space->ranges += count_ranges(space, page, count) - before;
    return status;
}

/* What an entry adds to its table's breaks, at its beginning and at its end. */
static unsigned count_breaks(struct hv_gpa_table *table, unsigned index)
{
    unsigned breaks = 0;

    if (index > 0)
        breaks += load(table, index) != load(table, index - 1) + PAGE_STEP;
    if (index < HV_GPA_BLOCK_PAGES - 1)
        breaks += load(table, index + 1) != load(table, index) + PAGE_STEP;
    return breaks;
}

hv_status hv_gpa_set_deposited(struct hv_gpa_space *space, uint64_t page, bool deposited)
{
    unsigned index = index_at(page, 0);
    uint64_t value, before = count_ranges(space, page, 1);
    struct hv_gpa_table *table;
    struct path path;

    descend(space, page, 0, &path);
    if (!extend(space, page, 0, &path))
        return HV_STATUS_INSUFFICIENT_MEMORY;
    table = path.table[0];
    value = effective(space, page, load(table, index));
    if (((value & HV_GPA_DEPOSITED) != 0) != deposited) {
        value ^= HV_GPA_DEPOSITED;
        if (!deposited && space->identity)
            value = 0;
        table->deposited = (uint16_t)(table->deposited + (deposited ? 1 : -1));
        table->breaks = (uint16_t)(table->breaks - count_breaks(table, index));
        store(table, index, value);
        table->breaks = (uint16_t)(table->breaks + count_breaks(table, index));
    }
    settle(space, page, &path);
    space->ranges += count_ranges(space, page, 1) - before;
    hv_gpa_changed(space);
    return HV_STATUS_SUCCESS;
}

static void clear_tables(struct hv_gpa_space *space, struct hv_gpa_table *table, unsigned level)
{
    struct run run = {0};

    for (unsigned i = 0; i < HV_GPA_BLOCK_PAGES && table->used; i++) {
        uint64_t value = load(table, i);

        if (value & HV_GPA_TABLE) {
            clear_tables(space, table_of(value), level - 1);
            retire_table(space, table_of(value));
        } else if (level == 1 && value) {
            count_entry(space, value, HV_GPA_BLOCK_PAGES, -1);
        } else {
            add_to_run(space, &run, value);
        }
        store(table, i, 0);
    }
    end_run(space, &run);
    table->breaks = HV_GPA_BLOCK_PAGES - 1;
    table->deposited = 0;
}

void hv_gpa_clear(struct hv_gpa_space *space)
{
    clear_tables(space, space->top, space->levels - 1);
    space->ranges = 0;
    hv_gpa_changed(space);
}
