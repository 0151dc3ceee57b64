/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the core asks of whoever runs it: QEMU's accelerator module (csrc/qemu) or the simulated platform (csrc/python).
 *
 * Rules for an implementation
 *   - `context` is the pointer given to hv_create(). `vp` is a VP's handle: its index for a VP of the machine's
 *     partition, a number from there on for a child's. "The calling VP" is the one whose thread entered the core.
 *   - Unless a comment says otherwise a function is called with no core lock held, so it may take the machine's own
 *     lock. It must not call back into the core, but for what a local APIC tells and asks (hv_interrupt_accepted(),
 *     hv_apic_assist_collect(), hv_apic_assist_revoke(), hv_interrupt_ended()).
 *   - Guest memory functions never reach a device: an address that is not memory answers HV_GPA_UNMAPPED.
 */
#ifndef HV_PLATFORM_H
#define HV_PLATFORM_H

#include "types.h"

enum hv_gpa_result {
    HV_GPA_OK = 0,
    HV_GPA_UNMAPPED, /* nothing, or no memory, at this address (TLFS 11.8) */
    HV_GPA_NO_ACCESS, /* memory, but without the right asked for (TLFS 11.8) */
};

enum hv_overlay_access {
    HV_OVERLAY_READ_WRITE,
    HV_OVERLAY_READ_EXECUTE, /* a write is #GP (the hypercall page, TLFS 4.12) */
    HV_OVERLAY_READ_ONLY, /* a write is #MC; its content changes (statistics pages, TLFS 21.1.2) */
};

/* Overlay pages (TLFS 8.1.3). Partition-wide ones have vp == 0. */
enum hv_overlay_kind {
    HV_OVERLAY_HYPERCALL,
    HV_OVERLAY_REFERENCE_TSC,
    HV_OVERLAY_APIC_ASSIST,
    HV_OVERLAY_SIEF,
    HV_OVERLAY_SIM,
    HV_OVERLAY_STATS_MSR, /* by the four registers of TLFS 21.3.3, in their order */
    HV_OVERLAY_STATS_MSR_LAST = HV_OVERLAY_STATS_MSR + 3,
    HV_OVERLAY_STATS_OWN_PARTITION, /* by HvMapStatsPage */
    HV_OVERLAY_STATS_OWN_VP,
    HV_OVERLAY_KINDS,
    /* With a second stage only, platforms do not see these: */
    HV_OVERLAY_MONITOR = HV_OVERLAY_KINDS, /* TLFS 14.5.4 */
    HV_OVERLAY_STATS_HYPERVISOR, /* these four by HvMapStatsPage, of others' */
    HV_OVERLAY_STATS_LP,
    HV_OVERLAY_STATS_PARTITION,
    HV_OVERLAY_STATS_VP,
};

/* A set of VPs, by handle where the platform is concerned, 64 to a bank. */
#define HV_MAX_VPS 1024u /* of all partitions together */
#define HV_VP_BANKS (HV_MAX_VPS / 64)
struct hv_vp_set {
    uint64_t bank[HV_VP_BANKS];
};

/* A range of guest virtual pages to flush: `count` pages from the page-aligned address `gva`. */
struct hv_gva_range {
    uint64_t gva;
    uint32_t count;
};

/*
 * Platform timers of a VP: its synthetic timers 0..3, one that retries the delivery of messages (TLFS 14.2.4), a
 * child's local APIC timer, the periodic timer assist (VP 0 of a child, TLFS 15.1.5), the inspection of monitor pages
 * (VP 0 of the root, TLFS 14.5), messages of the event log (the same VP, TLFS 19.1.10), the profiler (VPs of the root,
 * TLFS 23.3), what fault injection holds back, and times in statistics pages (VP 0 of the machine's partition, TLFS
 * 21).
 */
#define HV_VP_TIMER_MESSAGE_RETRY 4
#define HV_VP_TIMER_APIC 5
#define HV_VP_TIMER_EMULATED 6
#define HV_VP_TIMER_MONITOR 7
#define HV_VP_TIMER_EVENT_LOG 8
#define HV_VP_TIMER_PROFILER 9
#define HV_VP_TIMER_INJECT 10
#define HV_VP_TIMER_STATS 11
#define HV_VP_TIMER_COUNT 12

/* What a platform function that may take long answers. */
enum hv_progress {
    HV_PROGRESS_DONE = 0,
    HV_PROGRESS_WAIT, /* under way: the calling instruction is executed again, and asks again */
    HV_PROGRESS_FAILED, /* it cannot be done; the platform has told the operator why */
};

/* Lines of a child VP's processor (TLFS 13): what its local APIC, which is the core's, asks of it. */
enum hv_line {
    HV_LINE_INTERRUPT, /* level: hv_child_interrupt() has a vector to give */
    HV_LINE_NMI, /* edge */
    HV_LINE_INIT, /* edge: INIT, after which it waits for SIPI; the core is told by hv_vp_init_done() */
    HV_LINE_LINES
};

/* What a child VP's processor has beside its registers by name: for its saved state (TLFS 17.1.5). */
#define HV_ACTIVITY_HALTED (1u << 0) /* and nothing has woken it */
#define HV_ACTIVITY_IDLE (1u << 1) /* with HALTED: by HV_EXIT_IDLE */
#define HV_ACTIVITY_NMI (1u << 2) /* one is pending */
#define HV_ACTIVITY_STARTING (1u << 3) /* start_vp() was called, and it has not taken that */
#define HV_ACTIVITY_ALL 15u
struct hv_activity {
    uint32_t flags;
    uint32_t start_vector; /* 0..255 */
    uint64_t tsc_aux; /* MSRs without a register's name that it keeps (tlfs/arch_msrs.def) */
    uint64_t mcg_status;
};

/* A guest virtual address through the tables of a child VP (TLFS 12.4.4). */
struct hv_gva_translation {
    hv_gpa gpa; /* of the byte addressed, when `fault` says none */
    enum {
        HV_GVA_OK,
        HV_GVA_NOT_PRESENT,
        HV_GVA_NO_ACCESS,
        HV_GVA_INVALID_TABLE_FLAGS,
        HV_GVA_TABLE_UNMAPPED,
        HV_GVA_TABLE_NO_READ,
        HV_GVA_TABLE_NO_WRITE
    } result;
    uint8_t cache_type; /* 0 UC, 1 WC, 4 WT, 5 WP, 6 WB */
};
#define HV_GVA_VALIDATE_READ (1u << 0)
#define HV_GVA_VALIDATE_WRITE (1u << 1)
#define HV_GVA_VALIDATE_EXECUTE (1u << 2)
#define HV_GVA_PRIVILEGE_EXEMPT (1u << 3)
#define HV_GVA_SET_PAGE_TABLE_BITS (1u << 4)
#define HV_GVA_TLB_FLUSH_INHIBIT (1u << 5)

#define HV_PAGES_UNLIMITED UINT64_MAX

/* A partition that its parent asks for; what the operator's policy may decide (qemu_hv/policy). */
struct hv_admission {
    enum { HV_ADMIT_PARTITION, HV_ADMIT_VP } what;
    uint64_t parent, partition; /* IDs; partition is 0 while it does not exist */
    unsigned depth; /* of the partition in the tree; the root has 0 */
    unsigned partitions, vps; /* that exist in the machine, not counting the new one */
    uint64_t mapped_pages; /* of the parent's children, together (TLFS 8.1.1) */
    uint64_t promised_pages; /* to them: as many as their limits allow, or as they have where there is none */
    uint64_t privileges; /* HV_ADMIT_PARTITION: in: default, out: the new partition's privileges */
    char name[64]; /* HV_ADMIT_PARTITION: out: what the operator calls it, UTF-8, terminated */
    uint64_t page_limit; /* HV_ADMIT_PARTITION: in: HV_PAGES_UNLIMITED, out: pages it may have mapped at a time */
};

/* Of a VP as it stands at an instruction (TLFS 16.2.2, 16.2.3). */
struct hv_execution {
    uint64_t rip, rflags, cr0, efer, dr7;
    struct hv_segment_register cs;
    bool interruption_pending; /* as the register PendingInterruption says (TLFS 10.3.4) */
};

struct hv_platform_ops {
    /*
     * -- The machine's memory. Ranges lie in one page. Where the machine's partition has no second stage (role=guest),
     * overlays are seen as its guest sees them; with role=root an address is an SPA, and overlays are not seen. --
     */

    enum hv_gpa_result (*read_gpa)(void *context, hv_vp_handle vp, hv_gpa gpa, void *buffer, size_t size);
    enum hv_gpa_result (*write_gpa)(void *context, hv_vp_handle vp, hv_gpa gpa, const void *buffer, size_t size);
    /* Whether write_gpa() of the range would succeed. */
    enum hv_gpa_result (*probe_write)(void *context, hv_vp_handle vp, hv_gpa gpa, size_t size);
    /*
     * With role=root: how many writable pages of memory follow each other from page-aligned `gpa` on, at most `most`;
     * fewer may be told, but not 0 where there is one. Any thread, any core lock. May be NULL: then pages are probed.
     */
    uint64_t (*memory_pages)(void *context, hv_gpa gpa, uint64_t most);

    /* -- Overlays -- */

    /*
     * Show `page` (HV_PAGE_SIZE bytes of the core's, page-aligned, valid until hv_destroy()) at page-aligned `gpa`,
     * or nowhere when `enabled` is false. What lies under it comes back when it goes. `gpa` is inside the GPA space.
     * When the call returns, or before the calling instruction retires, no VP uses the old arrangement.
     */
    void (*set_overlay)(void *context, enum hv_overlay_kind kind, hv_vp_handle vp, void *page, bool enabled, hv_gpa gpa,
                        enum hv_overlay_access access);

    /*
     * `count` zeroed pages that can be shown to guests as overlays of a partition with a second stage, and their end.
     * NULL when there are no more. Any thread, under any core lock.
     */
    void *(*allocate_pages)(void *context, size_t count);
    void (*free_pages)(void *context, void *pages, size_t count);

    /* Bytes to put at the start of the hypercall page (at most HV_PAGE_SIZE); the rest is INT3. Called at creation. */
    size_t (*hypercall_code)(void *context, uint8_t *code);

    /* -- Time. The one time base: the TSC as the guest reads it (docs/architecture.md, "Time"). -- */

    uint64_t (*read_tsc)(void *context, hv_vp_handle vp);
    /* The same, if need be ahead of what this thread has still to do before: for scheduling, not for guests. */
    uint64_t (*sample_tsc)(void *context);
    /*
     * `timer` is 0..HV_VP_TIMER_COUNT-1. Call hv_timer_expired(vp, timer) when the guest's TSC has reached `tsc`, or
     * never when it is HV_NANO100_NEVER. Replaces what was set for that timer. May be called with the VP's lock held:
     * must not call into the core from inside. Calling hv_timer_expired() early is harmless. HV_VP_TIMER_EVENT_LOG is
     * set under any core lock.
     */
    void (*set_timer)(void *context, hv_vp_handle vp, unsigned timer, uint64_t tsc);
    /* Time this VP has spent running, hypervisor time spent for it included, in 100 ns (TLFS 10.3.2). */
    uint64_t (*vp_run_time)(void *context, hv_vp_handle vp);

    /* -- Interrupts: the local APIC of a root or guest-role VP is the machine's own -- */

    /*
     * Latch an edge-triggered fixed interrupt in the VP's local APIC; lost when the APIC is software-disabled. With
     * role=root the VP's LP calls hv_schedule() soon, as for an interrupt of one of the machine's devices.
     */
    void (*request_interrupt)(void *context, hv_vp_handle vp, uint8_t vector);
    void (*apic_eoi)(void *context, hv_vp_handle vp, uint32_t value);
    uint64_t (*apic_read_icr)(void *context, hv_vp_handle vp);
    void (*apic_write_icr)(void *context, hv_vp_handle vp, uint64_t value);
    uint8_t (*apic_read_tpr)(void *context, hv_vp_handle vp);
    void (*apic_write_tpr)(void *context, hv_vp_handle vp, uint8_t value);

    /* -- Virtual MMU: effects are complete before the calling instruction retires -- */

    /* Flush all translations of the VPs in `set`; global ones may be kept when `keep_global`. */
    void (*flush_tlb)(void *context, hv_vp_handle caller, const struct hv_vp_set *set, bool keep_global);
    void (*flush_tlb_ranges)(void *context, hv_vp_handle caller, const struct hv_vp_set *set,
                             const struct hv_gva_range *ranges, size_t count);
    /* Load CR3 of the calling VP; the value has been checked. */
    void (*set_cr3)(void *context, hv_vp_handle vp, uint64_t cr3);

    /* -- Processor -- */

    /* XMM0..5 of the calling VP, 96 bytes. */
    void (*read_xmm)(void *context, hv_vp_handle vp, uint8_t xmm[96]);
    /* The calling VP spins on a lock that another VP holds: let others run (TLFS 18.5.1). */
    void (*spin_wait)(void *context, hv_vp_handle vp);

    /* -- Child VPs and logical processors (role=root) -- */

    /*
     * Make the processor of a VP that has never existed before. It is reset by reset_vp() before it runs. These two are
     * called with the structure lock held, as admit() is: they never take the machine's own lock and never wait. In
     * hv_restore() create_vp() is called with the machine's own lock held, and answers what has become of it at once.
     */
    enum hv_progress (*create_vp)(void *context, hv_vp_handle vp);
    /* Architectural state after power-on (TLFS 10.1.1); a VP that is not the partition's first waits for SIPI. Not
     * running. */
    void (*reset_vp)(void *context, hv_vp_handle vp, uint32_t apic_id, bool wait_for_sipi);
    /* Start a VP that waits for SIPI at `vector` << 12, in real mode. Any thread, VP's lock may be held. */
    void (*start_vp)(void *context, hv_vp_handle vp, uint8_t vector);
    /* Any thread, any core lock but the scheduler's may be held; never takes the machine's own lock. */
    void (*set_line)(void *context, hv_vp_handle vp, enum hv_line line, bool raised);
    /* Whether the VP is halted, idle or waits for SIPI, and nothing has woken it. Any thread, any lock. */
    bool (*vp_waits)(void *context, hv_vp_handle vp);
    /* Make a running VP leave the guest soon. Any thread, any core lock; never takes the machine's own lock. */
    void (*kick_vp)(void *context, hv_vp_handle vp);
    /* Make an LP call hv_schedule() soon, asleep or not. The same. */
    void (*kick_lp)(void *context, unsigned lp);
    /*
     * Architectural registers (rows of registers.def kept by the platform, but for RAX to R15) of a VP the caller owns.
     * set_register() answers false for a value the processor would refuse. Privileged side effects (TLB, translation
     * flags) included.
     */
    void (*get_register)(void *context, hv_vp_handle vp, enum hv_register_name name, union hv_register_value *value);
    bool (*set_register)(void *context, hv_vp_handle vp, enum hv_register_name name,
                         const union hv_register_value *value);
    /* RAX to R15 in the order of their names, of a VP the caller owns: to read and write as long as he does. */
    uint64_t *(*gprs)(void *context, hv_vp_handle vp);
    /* What every intercept message tells, in one piece; the same VP. */
    void (*get_execution)(void *context, hv_vp_handle vp, struct hv_execution *execution);
    /* Of a VP the caller owns; it is set after reset_vp() and the registers. */
    void (*get_activity)(void *context, hv_vp_handle vp, struct hv_activity *activity);
    void (*set_activity)(void *context, hv_vp_handle vp, const struct hv_activity *activity);
    /* Up to 16 bytes of code at the VP's CS:RIP; the number that could be read. The VP is owned. */
    size_t (*read_instruction)(void *context, hv_vp_handle vp, uint8_t bytes[16]);
    /* Walk the guest's page tables of a VP the caller owns; `flags` HV_GVA_*. */
    void (*translate_gva)(void *context, hv_vp_handle vp, uint64_t gva, unsigned flags, struct hv_gva_translation *out);
    /*
     * The GPA space of these VPs lost something: no VP of the set uses an old translation once the calling instruction
     * has retired. `caller` is the calling VP, or HV_ANY_VP when no VP runs. The structure lock may be held: never
     * takes the machine's own lock.
     */
    void (*flush_second_stage)(void *context, hv_vp_handle caller, const struct hv_vp_set *set);
    /* Ask the operator's policy. WAIT while it thinks, FAILED when it denies. `caller` tells waiting requests apart. */
    enum hv_progress (*admit)(void *context, hv_vp_handle caller, struct hv_admission *admission);

    /* -- Machine -- */

    /* A guest has posted data for the debugger, which hv_debug_take() is to fetch soon, or there is room again for what
     * comes from it. Any thread. */
    void (*debug_changed)(void *context);
    void (*reset)(void *context);
    /* Architectural CPUID changed its answer (invariant TSC control). */
    void (*cpuid_changed)(void *context);
    /*
     * The guest reported a crash (CRASH_CTL): five parameters, and its text of `size` bytes when it gave one
     * (not terminated, not checked for encoding), else NULL.
     */
    void (*crash)(void *context, hv_vp_handle vp, const uint64_t parameters[5], const char *message, size_t size);
    /* A hypercall ended, called only while hv_set_trace() is on. `row` is an index of hv_hypercall_rows, or -1. */
    void (*trace_hypercall)(void *context, hv_vp_handle vp, int row, uint64_t input, uint64_t result);
};

#endif
