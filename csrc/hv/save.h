/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The stream of one partition's state: a head, then sections in a fixed order. What save.c, which has the hypercalls,
 * and save_child.c, which saves a child with all that its parent gave it, share. docs/save-restore.md describes it.
 */
#ifndef HV_SAVE_H
#define HV_SAVE_H

#include "stream.h"

#define STREAM_MAGIC UINT64_C(0x4554415453505648) /* "HVPSTATE" */
#define STREAM_VERSION 1u
#define TAG_SUMMARY UINT32_C(0x4D4D5553) /* "SUMM": what decides whether it fits */
#define TAG_CHILD UINT32_C(0x444C4843) /* "CHLD": what the parent has set up; of KIND_CHILD only */
#define TAG_PARTITION UINT32_C(0x54524150) /* "PART": partition-wide state */
#define TAG_PROCESSOR UINT32_C(0x434F5250) /* "PROC": a VP's registers, what the platform keeps */
#define TAG_VP UINT32_C(0x54535056) /* "VPST": what the hypervisor keeps of it */

enum stream_kind { KIND_SYSTEM_SUMMARY, KIND_PARTITION_SUMMARY, KIND_PARTITION, KIND_CHILD, KINDS };

struct head {
    uint64_t magic;
    uint32_t version, kind;
    uint64_t length; /* of the whole stream */
    uint32_t reserved, checksum; /* CRC-32C of what comes before */
};
_Static_assert(sizeof(struct head) == 32, "docs/save-restore.md");

struct section_head {
    uint32_t tag, index; /* the VP's */
    uint32_t length; /* of what follows */
    uint32_t checksum; /* CRC-32C of what comes before and what follows */
};
_Static_assert(sizeof(struct section_head) == 16, "docs/save-restore.md");

/* What decides whether a state fits. */
struct summary {
    uint64_t generation, intel, processor_features, xsave_features, clflush_size; /* of logical processors */
    uint64_t gpa_bits, tsc_frequency, apic_frequency;
    /* Of the partition; all 0 in a system's. */
    uint64_t partition_features, partition_xsave_features, partition_clflush_size, vp_flags;
    struct hv_vp_set vps;
};

#define SUMMARY_END (sizeof(struct head) + sizeof(struct section_head) + sizeof(struct summary))

/* A save or restore that is under way. */
struct hv_transfer {
    bool restoring, summary;
    struct hv_partition *payer;
    uint64_t pages; /* charged to its pool */
    size_t size, position; /* of `data`; handed out, or collected */
    struct head head; /* restoring: until it is there `data` is not */
    uint8_t *data;
};

/* HV_SAVE_RESTORE_STATE_RESULT (TLFS 17.2.1) */
enum {
    STATE_COMPLETE = 0,
    STATE_INCOMPLETE = 1,
    STATE_RESTORABLE = 2,
    STATE_CORRUPT_DATA = 3,
    STATE_UNSUPPORTED_VERSION = 4,
    STATE_PROCESSOR_FEATURE_MISMATCH = 5,
    STATE_HARDWARE_FEATURE_MISMATCH = 6,
    STATE_PROCESSOR_COUNT_MISMATCH = 7,
    STATE_PROCESSOR_FLAGS_MISMATCH = 8,
    STATE_PROCESSOR_INDEX_MISMATCH = 9,
    STATE_INCOMPATIBLE_PROCESSOR = 11,
    STATE_FIRST_FEATURE_MISMATCH = 12, /* of SSE3, bit 0 of the property; the others follow in the order of its bits */
    STATE_CLFLUSH_SIZE_MISMATCH = 28,
    STATE_XSAVE_MISMATCH = 29,
    STATE_XSAVEOPT_MISMATCH = 30,
    STATE_XSAVE_AVX_MISMATCH = 32,
    STATE_XSAVE_UNKNOWN_MISMATCH = 33,
};

/* Writing; all VPs are owned, or no VP runs. */
size_t hv_section_begin(struct hv_stream *s);
void hv_section_end(struct hv_stream *s, size_t start, uint32_t tag, uint32_t index);
void hv_write_summary(struct hv_stream *s, const struct hv_partition *partition, enum stream_kind kind, size_t length);
void hv_write_partition(struct hv_stream *s, struct hv_partition *partition);

/* Reading a stream that is there as a whole. */
/* STATE_INCOMPLETE: go on. `alone`: nothing but a summary is wanted. */
unsigned hv_check_head(const struct head *head, bool summary_only);
unsigned hv_check_summary(const struct hv *hv, const struct hv_partition *partition,
                          const struct hv_transfer *transfer);
/* The section that comes next, with its content to read; false: it is another one, or damaged. */
bool hv_next_section(const struct hv_transfer *transfer, size_t *position, uint32_t tag, uint32_t index,
                     struct hv_stream *content);
/* Whether the sections from a position on are those of the partition and whole, up to the end. */
bool hv_sections_are_sound(const struct hv_transfer *transfer, size_t position, const struct hv_partition *partition);
/* VPs are suspended. False: the stream lied; hv_undo_partition() has to follow. */
bool hv_read_partition(const struct hv_transfer *transfer, size_t position, struct hv_partition *partition);
void hv_undo_partition(struct hv_partition *partition);
void hv_show_partition(struct hv_partition *partition); /* behind either */

#endif
