/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the core asks of whoever runs it: QEMU's accelerator module (csrc/qemu) or the simulated platform (csrc/python).
 *
 * Rules for an implementation
 *   - `context` is the pointer given to hv_create(). `vp` is a VP index of the machine's partition; "the calling VP"
 *     is the one whose thread entered the core.
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
};

/* Overlay pages (TLFS 8.1.3). Partition-wide ones have vp == 0. */
enum hv_overlay_kind {
    HV_OVERLAY_HYPERCALL,
    HV_OVERLAY_REFERENCE_TSC,
    HV_OVERLAY_APIC_ASSIST,
    HV_OVERLAY_SIEF,
    HV_OVERLAY_SIM,
    HV_OVERLAY_KINDS
};

/* A set of VPs, 64 to a bank. */
#define HV_MAX_VPS 1024u
#define HV_VP_BANKS (HV_MAX_VPS / 64)
struct hv_vp_set {
    uint64_t bank[HV_VP_BANKS];
};

/* A range of guest virtual pages to flush: `count` pages from the page-aligned address `gva`. */
struct hv_gva_range {
    uint64_t gva;
    uint32_t count;
};

/* Platform timers of a VP: its synthetic timers 0..3, and one that retries the delivery of messages (TLFS 14.2.4). */
#define HV_VP_TIMER_MESSAGE_RETRY 4
#define HV_VP_TIMER_COUNT 5

struct hv_platform_ops {
    /* -- Guest memory. Ranges lie in one page. Overlays are seen as the guest sees them. -- */

    enum hv_gpa_result (*read_gpa)(void *context, hv_vp_index vp, hv_gpa gpa, void *buffer, size_t size);
    enum hv_gpa_result (*write_gpa)(void *context, hv_vp_index vp, hv_gpa gpa, const void *buffer, size_t size);
    /* Whether write_gpa() of the range would succeed. */
    enum hv_gpa_result (*probe_write)(void *context, hv_vp_index vp, hv_gpa gpa, size_t size);

    /* -- Overlays -- */

    /*
     * Show `page` (HV_PAGE_SIZE bytes of the core's, page-aligned, valid until hv_destroy()) at page-aligned `gpa`,
     * or nowhere when `enabled` is false. What lies under it comes back when it goes. `gpa` is inside the GPA space.
     * When the call returns, or before the calling instruction retires, no VP uses the old arrangement.
     */
    void (*set_overlay)(void *context, enum hv_overlay_kind kind, hv_vp_index vp, void *page, bool enabled, hv_gpa gpa,
                        enum hv_overlay_access access);

    /* Bytes to put at the start of the hypercall page (at most HV_PAGE_SIZE); the rest is INT3. Called at creation. */
    size_t (*hypercall_code)(void *context, uint8_t *code);

    /* -- Time. The one time base: the TSC as the guest reads it (docs/architecture.md, "Time"). -- */

    uint64_t (*read_tsc)(void *context, hv_vp_index vp);
    /*
     * `timer` is 0..HV_VP_TIMER_COUNT-1. Call hv_timer_expired(vp, timer) when the guest's TSC has reached `tsc`, or
     * never when it is HV_NANO100_NEVER. Replaces what was set for that timer. May be called with the VP's lock held:
     * must not call into the core from inside. Calling hv_timer_expired() early is harmless.
     */
    void (*set_timer)(void *context, hv_vp_index vp, unsigned timer, uint64_t tsc);
    /* Time this VP has spent running, hypervisor time spent for it included, in 100 ns (TLFS 10.3.2). */
    uint64_t (*vp_run_time)(void *context, hv_vp_index vp);

    /* -- Interrupts: the local APIC of a root or guest-role VP is the machine's own -- */

    /* Latch an edge-triggered fixed interrupt in the VP's local APIC; lost when the APIC is software-disabled. */
    void (*request_interrupt)(void *context, hv_vp_index vp, uint8_t vector);
    void (*apic_eoi)(void *context, hv_vp_index vp, uint32_t value);
    uint64_t (*apic_read_icr)(void *context, hv_vp_index vp);
    void (*apic_write_icr)(void *context, hv_vp_index vp, uint64_t value);
    uint8_t (*apic_read_tpr)(void *context, hv_vp_index vp);
    void (*apic_write_tpr)(void *context, hv_vp_index vp, uint8_t value);

    /* -- Virtual MMU: effects are complete before the calling instruction retires -- */

    /* Flush all translations of the VPs in `set`; global ones may be kept when `keep_global`. */
    void (*flush_tlb)(void *context, hv_vp_index caller, const struct hv_vp_set *set, bool keep_global);
    void (*flush_tlb_ranges)(void *context, hv_vp_index caller, const struct hv_vp_set *set,
                             const struct hv_gva_range *ranges, size_t count);
    /* Load CR3 of the calling VP; the value has been checked. */
    void (*set_cr3)(void *context, hv_vp_index vp, uint64_t cr3);

    /* -- Processor -- */

    /* XMM0..5 of the calling VP, 96 bytes. */
    void (*read_xmm)(void *context, hv_vp_index vp, uint8_t xmm[96]);
    /* The calling VP spins on a lock that another VP holds: let others run (TLFS 18.5.1). */
    void (*spin_wait)(void *context, hv_vp_index vp);

    /* -- Machine -- */

    void (*reset)(void *context);
    /* Architectural CPUID changed its answer (invariant TSC control). */
    void (*cpuid_changed)(void *context);
    /*
     * The guest reported a crash (CRASH_CTL): five parameters, and its text of `size` bytes when it gave one
     * (not terminated, not checked for encoding), else NULL.
     */
    void (*crash)(void *context, hv_vp_index vp, const uint64_t parameters[5], const char *message, size_t size);
    /* A hypercall ended, called only while hv_set_trace() is on. `row` is an index of hv_hypercall_rows, or -1. */
    void (*trace_hypercall)(void *context, hv_vp_index vp, int row, uint64_t input, uint64_t result);
};

#endif
