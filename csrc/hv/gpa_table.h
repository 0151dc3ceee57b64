/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The map of a GPA space (TLFS 8.1.1): a radix tree over GPA pages, read without a lock, changed under its partition's
 * lock. Used by gpa_space.c and gpa_map.c only.
 *
 * An entry of a child's map names a page of the parent's GPA space, never an SPA: what the parent loses, all its
 * descendants lose with it. The root's map is the identity; it holds entries only where that does not hold with all
 * rights.
 *
 * A table that is not needed any more is kept for the space's next one. A reader that was inside when its content
 * changed its meaning sees that `generation` has moved, and looks again.
 */
#ifndef HV_GPA_TABLE_H
#define HV_GPA_TABLE_H

#include "internal.h"

#define HV_GPA_BLOCK_SHIFT 9
#define HV_GPA_BLOCK_PAGES 512u /* a large range: 2 MiB, aligned in both spaces */
#define HV_GPA_LEVELS 5 /* 9 bits each, for up to 40 bits of page number */

/* An entry: 0 where nothing is mapped, a table of the next lower level, or a mapping. */
#define HV_GPA_MAPPED (UINT64_C(1) << 0)
#define HV_GPA_TABLE (UINT64_C(1) << 1)
#define HV_GPA_RIGHTS_SHIFT 2 /* 4:2 HV_ACCESS_* */
#define HV_GPA_NO_SOURCE (UINT64_C(1) << 5) /* inaccessible, with no page behind it (later than 2.0a) */
#define HV_GPA_DEPOSITED (UINT64_C(1) << 6) /* out of reach of every partition until it is withdrawn (TLFS 7.1.1) */
#define HV_GPA_SOURCE_MASK                                                                                             \
    (((UINT64_C(1) << 40) - 1) << HV_PAGE_SHIFT) /* the page in the parent's space; without one its own */

static inline unsigned hv_gpa_entry_rights(uint64_t entry)
{
    return (unsigned)(entry >> HV_GPA_RIGHTS_SHIFT) & HV_ACCESS_ALL;
}

static inline uint64_t hv_gpa_entry_source(uint64_t entry)
{
    return (entry & HV_GPA_SOURCE_MASK) >> HV_PAGE_SHIFT;
}

static inline uint64_t hv_gpa_entry_make(uint64_t source, unsigned rights)
{
    return source << HV_PAGE_SHIFT | (uint64_t)rights << HV_GPA_RIGHTS_SHIFT | HV_GPA_MAPPED;
}

/* Whether it adds to the space's mapped pages. */
static inline bool hv_gpa_entry_is_counted(uint64_t entry)
{
    return entry && !(entry & HV_GPA_NO_SOURCE);
}

struct hv_gpa_table {
    _Atomic uint64_t entries[HV_GPA_BLOCK_PAGES];
    struct hv_gpa_table *next; /* in the list of those not in use */
    uint16_t used; /* entries that are not 0 */
    uint16_t breaks; /* lowest level: entries that do not continue the one before */
    uint16_t deposited; /* lowest level: entries with that bit */
};

/*
 * How often the pages of one large range are mapped by children with any right at all: a page counts
 * `whole` + pages[its index]. A deposit wants to know (TLFS 7.3.1).
 */
struct hv_gpa_uses {
    uint32_t whole;
    uint32_t nonzero; /* of `pages`; they are there only while one is */
    uint32_t *pages;
};
struct hv_gpa_use_node {
    void *slots[HV_GPA_BLOCK_PAGES]; /* nodes; arrays of HV_GPA_BLOCK_PAGES struct hv_gpa_uses at the end */
};
#define HV_GPA_USE_LEVELS 3 /* over the 31 bits of a large range's number; the last is the array */

struct hv_gpa_overlays; /* gpa_space.c */

struct hv_gpa_space {
    struct hv_partition *partition;
    bool identity; /* the root's */
    struct hv_gpa_space *parent; /* NULL: none, or it has gone before its children, with the machine */
    struct hv_gpa_space *children, *next_sibling; /* structure lock */
    unsigned levels;
    _Atomic uint64_t generation;
    _Atomic uint64_t changes; /* of what is where, overlays included */
    struct hv_gpa_table *top;
    struct hv_gpa_table *unused;
    struct hv_gpa_use_node *uses;
    _Atomic uint64_t bytes; /* of the host's memory */
    uint64_t ranges; /* counted where their number is limited, of a child: pages that continue each other are one */
    _Atomic uint64_t mapped_pages; /* with a page behind them; of the root those that are not as at boot */

    struct hv_vp_lock overlay_lock; /* leaf lock, as a VP's: serializes writers of the next lines */
    struct hv_gpa_overlays *_Atomic overlays; /* in the order of their addresses; NULL: none ever */
    struct hv_gpa_overlays *spare, *retired;
};

/* What a walk ends at: an entry, and how many pages (1 << shift) around it are mapped alike. */
struct hv_gpa_entry {
    uint64_t value;
    unsigned shift;
};

/* Somebody who keeps a copy of it has to look again: after the change, before hv_flush_second_stage(). */
static inline void hv_gpa_changed(struct hv_gpa_space *space)
{
    atomic_fetch_add(&space->changes, 1);
}

bool hv_gpa_table_init(struct hv_gpa_space *space);
void hv_gpa_table_free(struct hv_gpa_space *space);

/* Any thread, no lock. */
struct hv_gpa_entry hv_gpa_lookup(const struct hv_gpa_space *space, uint64_t page);

/* What a change did. */
struct hv_gpa_change {
    unsigned work; /* counts entries touched */
    bool lost; /* somebody may have used a translation that does not hold any more */
};
/*
 * Map `count` pages from `page` on, all in one large range, to consecutive pages from `value`'s on; or unmap them
 * (`value` 0; of the root: all rights again). *done is how many it came to. OBJECT_IN_USE where a page is deposited.
 * Locks of the partition and its parent held.
 */
hv_status hv_gpa_set(struct hv_gpa_space *space, uint64_t page, unsigned count, uint64_t value,
                     struct hv_gpa_change *change, unsigned *done);
/* How many ranges there would be then; likewise. */
uint64_t hv_gpa_ranges_with(const struct hv_gpa_space *space, uint64_t page, unsigned count, uint64_t value);
/* Mark or unmark one page that is mapped with all rights; the same locks. */
hv_status hv_gpa_set_deposited(struct hv_gpa_space *space, uint64_t page, bool deposited);
/* Unmap everything; deposited pages too. The same locks. */
void hv_gpa_clear(struct hv_gpa_space *space);
/* How often children map a page with any right; partition's lock held. */
uint32_t hv_gpa_use_count(const struct hv_gpa_space *space, uint64_t page);

#endif
