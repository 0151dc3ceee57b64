/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QEMU's TCG machine as the platform of the core: what the files of the module share.
 *
 * Locks: those of the core come after the BQL (csrc/hv/locking.h); the clock's and the timers' are innermost. What a
 * platform function may assume is said in csrc/hv/platform.h.
 */
#ifndef MICROSOFT_HYPERVISOR_MODULE_H
#define MICROSOFT_HYPERVISOR_MODULE_H

#include "qemu/osdep.h"

/* QEMU has macros for some of these names, for KVM: the core's enumerations must come before they do. */
#include "hypervisor.h"
#undef HV_MESSAGE_FLAG_PENDING

#include "cpu.h"
#include "exec/memory.h"
#include "qapi/qapi-types-qom.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "qom/object.h"
#include "system/kvm.h"
#include "target/i386/x86-hypervisor.h"

#define TYPE_MICROSOFT_HYPERVISOR "microsoft-hypervisor"
OBJECT_DECLARE_SIMPLE_TYPE(MicrosoftHypervisor, MICROSOFT_HYPERVISOR)

/* -- clock.c -- */

struct mshv_clock {
    bool exact; /* computed from the virtual clock at every read */
    uint64_t last_exact; /* what it was then */
    bool parallel; /* ticks with the host's TSC, whatever the virtual clock does */
    uint64_t frequency; /* Hz */
    uint64_t host_frequency; /* Hz, as far as it could be measured */

    /*
     * Between two looks at the virtual clock the guest's TSC is a line through (anchor_host, anchor_guest); readers
     * take the line under `sequence`, which is odd while it is being changed.
     */
    unsigned sequence;
    uint64_t anchor_host, anchor_guest;
    uint64_t rate; /* guest ticks per host tick, a binary fraction (clock.c); 0 while stopped */
    uint64_t valid_for; /* host ticks; then it is time to look again */

    /* The rest belongs to whoever holds the lock. */
    QemuMutex lock;
    uint64_t nominal_rate;
    uint64_t measured_rate;
    uint64_t interval; /* host ticks */
    uint64_t sample_host;
    int64_t sample_virtual; /* ns */
    int64_t offset; /* guest ticks that the TSC is ahead of the virtual clock; changes only while stopped */

    uint64_t start_host; /* for measuring the host's frequency */
    int64_t start_ns;
};

void mshv_clock_start_measuring(struct mshv_clock *clock);
/* Stand at 0, and tick with the host's TSC, which has that frequency. */
bool mshv_clock_init_parallel(struct mshv_clock *clock, uint64_t frequency, Error **errp);
/* Choose the frequency (0: the host's) and stand at 0. Returns false when it cannot be represented. */
bool mshv_clock_init(struct mshv_clock *clock, uint64_t frequency, Error **errp);
uint64_t mshv_clock_read(struct mshv_clock *clock);
void mshv_clock_stop(struct mshv_clock *clock);
void mshv_clock_resume(struct mshv_clock *clock);
/* While stopped: stand at `tsc`, tick at `frequency` from the next start on. */
bool mshv_clock_set(struct mshv_clock *clock, uint64_t frequency, uint64_t tsc, Error **errp);
/* How long the virtual clock takes for `ticks`, rounded up, in ns; at most INT64_MAX / 2. */
int64_t mshv_clock_ticks_to_ns(const struct mshv_clock *clock, uint64_t ticks);

/* -- timers.c -- */

struct mshv_timer {
    struct mshv_vp *vp;
    unsigned index;
    QemuMutex lock;
    QEMUTimer timer;
    uint64_t deadline; /* guest TSC */
};

/* -- guest_memory.c -- */

#define MSHV_PAGE_CACHE_SIZE 8u

struct mshv_cached_page {
    bool valid;
    unsigned generation;
    uint64_t page; /* GPA */
    uint8_t *host; /* NULL: no memory */
    MemoryRegion *region;
    uint64_t offset; /* of the page in it */
    bool writable;
};

/* -- overlay.c -- */

struct mshv_overlay {
    MemoryRegion region;
    bool created;
    bool enabled; /* wanted, at `gpa` */
    bool shown; /* in the memory map */
    hv_gpa gpa;
};

/* -- lp.c -- */

struct mshv_lp {
    MicrosoftHypervisor *machine;
    unsigned index; /* also the handle of its root VP */
    X86CPU *cpu; /* the machine's CPU whose thread it is; NULL while there is none */
    uint64_t slice; /* guest TSC at which it is to choose again, or HV_NANO100_NEVER */
    bool armed; /* the timer is set, for `armed_for` or an earlier time */
    uint64_t armed_for; /* guest TSC */
    QEMUTimer timer;
    bool wake_again; /* its thread may have gone to sleep as it was kicked */
    bool kicked; /* it is to choose again */
    bool polls; /* ... and will see that without being woken */
    int64_t poll_for; /* ns; its thread's, as the next */
    int64_t idle_since; /* host ns; 0: it is not */
    QEMUBH *wake;
};

/* -- A virtual processor; each has one of QEMU's CPUs: VP i of the machine's partition one of the machine's -- */

/* child.c: the CPU of a child VP */
enum mshv_making { MSHV_CPU_NONE, MSHV_CPU_BEING_MADE, MSHV_CPU_MADE, MSHV_CPU_FAILED };

/* What other threads read, what only the VP's thread touches, and timers are on cache lines of their own. */
#define MSHV_CACHE_LINE 64

struct mshv_vp {
    QEMU_ALIGNED(MSHV_CACHE_LINE) MicrosoftHypervisor *machine;
    hv_vp_handle handle;
    struct hv_vp *core;
    X86CPU *cpu; /* NULL until there is such a CPU; may have been unplugged since, see mshv_cpu_is_there() */

    /* Child VPs, see child.c */
    bool child;
    bool waits_for_sipi;
    bool held; /* found stopped by a debugger or the operator, or loaded; any thread */
    uint8_t sipi_vector;
    unsigned making; /* enum mshv_making */
    unsigned lines; /* raised by any thread */

    /* The rest but for timers and overlays belongs to the VP's thread. */
    QEMU_ALIGNED(MSHV_CACHE_LINE) bool leave; /* the instruction being executed has to leave the translated code */
    bool completing; /* ... after work that other threads have been given is done */
    bool yield; /* ... and the LP is to choose again (lp.c) */
    bool wake_lps; /* ... and threads of LPs are to be woken again (lp.c) */
    bool ferr; /* of a child: FERR# was asserted */
    bool put_all; /* with KVM: registers that no instruction changes were set, too */
    bool unchecked; /* ... registers were set that may not agree with each other; of whoever owns the VP */
    bool stale; /* its TLB has to be flushed before it runs; set by any thread */
    bool running; /* with KVM any thread may ask */
    uint64_t tlb_fills; /* second_stage.c */
    struct mshv_cached_page pages[MSHV_PAGE_CACHE_SIZE];
    uint64_t running_since; /* guest TSC; with KVM the thread's CPU time in ns */
    uint64_t run_ticks;
    QEMUTimer *idle_timer; /* with KVM, see kvm.c */
    struct mshv_kvm_child *kvm; /* of a child with KVM, see kvm_child.c */
    /* Only while state is saved or loaded; but for the first, of children. */
    bool saved_idle;
    uint32_t saved_apic_id, saved_halted, saved_request;
    int32_t saved_exception;

    QEMU_ALIGNED(MSHV_CACHE_LINE) struct mshv_timer timers[HV_VP_TIMER_COUNT];
    struct mshv_overlay overlays[HV_OVERLAY_KINDS];
};

/* -- The object -- */

/* What the operator said about a set of bits. */
struct mshv_switches {
    uint64_t on, off;
};

enum { MSHV_PRIVILEGES, MSHV_FEATURES, MSHV_RECOMMENDATIONS, MSHV_SWITCH_KINDS };

/* Numbers the operator may give. */
enum {
    MSHV_TSC_FREQUENCY,
    MSHV_SPINLOCK_RETRIES,
    MSHV_VERSION_MAJOR,
    MSHV_VERSION_MINOR,
    MSHV_VERSION_BUILD,
    MSHV_VERSION_SERVICE_PACK,
    MSHV_VERSION_SERVICE_BRANCH,
    MSHV_VERSION_SERVICE_NUMBER,
    MSHV_NUMBERS
};

struct mshv_number {
    bool given;
    uint64_t value;
};

struct MicrosoftHypervisor {
    X86Hypervisor parent_obj;

    MicrosoftHypervisorRole role;
    MicrosoftHypervisorInterface interface;
    MicrosoftHypervisorVpIndex vp_index;
    MicrosoftHypervisorCrash crash;
    char *policy; /* NULL: none */
    struct mshv_policy *policy_state; /* policy.c; NULL: none */
    char *debug_chardev; /* NULL: none */
    struct mshv_debugger *debugger; /* debug.c; NULL: none */
    struct mshv_switches switches[MSHV_SWITCH_KINDS];
    struct mshv_number numbers[MSHV_NUMBERS];

    Notifier machine_done;
    struct hv *core; /* NULL until the machine is complete */
    struct mshv_clock clock;
    uint32_t vp_count;
    struct mshv_vp *vps; /* the machine's own, by VP index */
    struct mshv_vp **by_handle; /* HV_MAX_VPS entries; NULL where there never was a VP */
    int cpu_count; /* CPUs the machine may have: children's have higher indices */
    struct mshv_vp **by_cpu; /* by CPU index */
    struct mshv_lp *lps; /* role=root: vp_count of them, else NULL */
    bool any_held; /* perhaps a child VP is `held` */
    struct mshv_arena *arena; /* role=root: pages of the hypervisor that guests see (second_stage.c), else NULL */
    MemoryListener listener;
    unsigned memory_generation; /* changes with the machine's memory map */
    struct mshv_kvm_root *kvm_root; /* role=root: what its VPs see with KVM (kvm_memory.c) */
    MemoryListener kvm_listener;
    bool kvm_log; /* writes of children are noted */

    /* Only while state is saved or loaded. */
    uint64_t saved_frequency, saved_tsc;
    uint32_t saved_size;
    uint8_t *saved_core;
};

static inline bool mshv_is_root(const MicrosoftHypervisor *s)
{
    return s->role == MICROSOFT_HYPERVISOR_ROLE_ROOT;
}

static inline struct mshv_vp *mshv_vp(const MicrosoftHypervisor *s, hv_vp_handle handle)
{
    return s->by_handle[handle];
}

static inline struct mshv_vp *mshv_vp_of(MicrosoftHypervisor *s, X86CPU *cpu)
{
    return s->by_cpu[CPU(cpu)->cpu_index];
}

/* Keeps the CPU's memory, so that other threads may look at it after it was unplugged. */
void mshv_bind_cpu(struct mshv_vp *vp, X86CPU *cpu);

static inline bool mshv_cpu_is_there(const struct mshv_vp *vp)
{
    return vp && vp->cpu && CPU(vp->cpu)->created;
}

/* The VP whose thread this is, or NULL. */
struct mshv_vp *mshv_current_vp(MicrosoftHypervisor *s);

/*
 * After this, work that other threads of the machine have been given is done before the calling VP's instruction
 * retires, and the VP leaves the translated code.
 */
void mshv_complete_before_retiring(struct mshv_vp *vp);

/* properties.c */
void mshv_add_properties(ObjectClass *oc);
bool mshv_check_properties(const MicrosoftHypervisor *s, Error **errp);
/* All but what the machine decides: VPs, address width, frequencies. */
void mshv_make_config(const MicrosoftHypervisor *s, struct hv_config *config);
/* The processor's vendor and features (processor.c). */
void mshv_describe_processor(const CPUX86State *env, struct hv_config *config);

/* tcg.c */
void mshv_set_hooks(X86HypervisorClass *hooks);
/* How QEMU is to go on after the core has been asked about an instruction. */
X86HypervisorExit mshv_finish_otherwise(struct mshv_vp *vp, enum hv_exit exit);
static inline X86HypervisorExit mshv_finish(struct mshv_vp *vp, enum hv_exit exit)
{
    if (likely(exit == HV_EXIT_DONE && !vp->leave && !vp->yield && !vp->wake_lps))
        return X86_HYPERVISOR_DONE;
    return mshv_finish_otherwise(vp, exit);
}

/* platform.c */
extern const struct hv_platform_ops mshv_platform_ops;

/* Platform operations, by file; see platform.h. */
uint64_t mshv_read_tsc(void *context, hv_vp_handle vp);
uint64_t mshv_sample_tsc(void *context);

enum hv_gpa_result mshv_read_gpa(void *context, hv_vp_handle vp, hv_gpa gpa, void *buffer, size_t size);
enum hv_gpa_result mshv_write_gpa(void *context, hv_vp_handle vp, hv_gpa gpa, const void *buffer, size_t size);
enum hv_gpa_result mshv_probe_write(void *context, hv_vp_handle vp, hv_gpa gpa, size_t size);
uint64_t mshv_memory_pages(void *context, hv_gpa gpa, uint64_t most);
void mshv_guest_memory_init(MicrosoftHypervisor *s);

void mshv_set_overlay(void *context, enum hv_overlay_kind kind, hv_vp_handle vp, void *page, bool enabled, hv_gpa gpa,
                      enum hv_overlay_access access);
size_t mshv_hypercall_code(void *context, uint8_t *code);
/* A page that the machine's VPs can read and execute, with a copy of the content; a write is #GP. */
void mshv_init_code_page(MicrosoftHypervisor *s, MemoryRegion *region, const char *name, const void *page);
/* One that they can read only, with the content as the core changes it; a write is #MC. */
void mshv_init_stats_page(MicrosoftHypervisor *s, MemoryRegion *region, const char *name, void *page);

void mshv_set_timer(void *context, hv_vp_handle vp, unsigned timer, uint64_t tsc);
void mshv_timers_init(struct mshv_vp *vp);
void mshv_timers_rearm(struct mshv_vp *vp); /* the relation of TSC and virtual clock has changed */

void mshv_request_interrupt(void *context, hv_vp_handle vp, uint8_t vector);
void mshv_apic_eoi(void *context, hv_vp_handle vp, uint32_t value);
uint64_t mshv_apic_read_icr(void *context, hv_vp_handle vp);
void mshv_apic_write_icr(void *context, hv_vp_handle vp, uint64_t value);
uint8_t mshv_apic_read_tpr(void *context, hv_vp_handle vp);
void mshv_apic_write_tpr(void *context, hv_vp_handle vp, uint8_t value);
void mshv_set_apic_hooks(X86HypervisorClass *hooks);

void mshv_flush_tlb(void *context, hv_vp_handle caller, const struct hv_vp_set *set, bool keep_global);
void mshv_flush_tlb_ranges(void *context, hv_vp_handle caller, const struct hv_vp_set *set,
                           const struct hv_gva_range *ranges, size_t count);
void mshv_set_cr3(void *context, hv_vp_handle vp, uint64_t cr3);

/* lp.c */
void mshv_lps_init(MicrosoftHypervisor *s);
void mshv_lp_bind(struct mshv_vp *root); /* its CPU is there */
void mshv_lps_restored(MicrosoftHypervisor *s); /* times of slices have lost their meaning: the TSC was set */
bool mshv_vp_waits(void *context, hv_vp_handle vp);
void mshv_kick_vp(void *context, hv_vp_handle vp);
void mshv_kick_lp(void *context, unsigned lp);
/* What was kicked by threads that held core locks is woken for sure; no core lock held. */
void mshv_wake_lps(MicrosoftHypervisor *s);
void mshv_hold(struct mshv_vp *vp); /* a child VP is to be looked at when its CPU is not stopped */
void mshv_set_lp_hooks(X86HypervisorClass *hooks);

/* child.c */
enum hv_progress mshv_create_vp(void *context, hv_vp_handle vp);
void mshv_reset_vp(void *context, hv_vp_handle vp, uint32_t apic_id, bool wait_for_sipi);
void mshv_start_vp(void *context, hv_vp_handle vp, uint8_t vector);
void mshv_set_line(void *context, hv_vp_handle vp, enum hv_line line, bool raised);
void mshv_get_activity(void *context, hv_vp_handle vp, struct hv_activity *activity);
void mshv_set_activity(void *context, hv_vp_handle vp, const struct hv_activity *activity);
bool mshv_child_prepare(struct mshv_vp *vp); /* before the LP executes it; false: it cannot be executed now */
bool mshv_child_waits(const struct mshv_vp *vp); /* any thread */
void mshv_child_update_request(struct mshv_vp *vp); /* on the thread that executes it: what has come for it */
void mshv_set_child_hooks(X86HypervisorClass *hooks);

/* second_stage.c; with role=root, but for the pages */
void mshv_second_stage_init(MicrosoftHypervisor *s);
bool mshv_second_stage_add_pages(MicrosoftHypervisor *s, Error **errp);
void mshv_second_stage_enter(struct mshv_vp *vp);
/* Where a VP finds a page of its GPA space: the page's address in what CPUs see as memory. False: it may not. */
bool mshv_translate(const struct mshv_vp *vp, uint64_t gpa, unsigned access, uint64_t *addr, unsigned *rights);
void *mshv_allocate_pages(void *context, size_t count);
void mshv_free_pages(void *context, void *pages, size_t count);
void mshv_flush_second_stage(void *context, hv_vp_handle caller, const struct hv_vp_set *set);
void mshv_set_second_stage_hooks(X86HypervisorClass *hooks);
MemoryRegion *mshv_arena_region(struct mshv_arena *arena);
uint8_t *mshv_arena_host(const struct mshv_arena *arena); /* where the region's first byte is */

/* Before the VP, which does not run or is the caller, executes its next instruction */
static inline void mshv_flush_before_running(struct mshv_vp *vp)
{
    vp->leave = true;
    qatomic_set_mb(&vp->stale, true);
}

/* child_exits.c */
void mshv_child_left(struct mshv_vp *vp); /* its CPU has left the execution loop */
void mshv_set_child_exit_hooks(X86HypervisorClass *hooks);

/* stats.c */
void mshv_set_stats_hooks(X86HypervisorClass *hooks);

/* registers.c */
void mshv_get_register(void *context, hv_vp_handle vp, enum hv_register_name name, union hv_register_value *value);
bool mshv_set_register(void *context, hv_vp_handle vp, enum hv_register_name name,
                       const union hv_register_value *value);
uint64_t *mshv_gprs(void *context, hv_vp_handle vp);
void mshv_get_execution(void *context, hv_vp_handle vp, struct hv_execution *execution);
/* Whether what a parent has set makes a state that the processor can execute with (TLFS 10.1.2). */
bool mshv_registers_agree(struct mshv_vp *vp);

/* page_tables.c */
void mshv_translate_gva(void *context, hv_vp_handle vp, uint64_t gva, unsigned flags, struct hv_gva_translation *out);
size_t mshv_read_instruction(void *context, hv_vp_handle vp, uint8_t bytes[16]);
/* Up to 16 bytes of code at CS:`rip`; how many could be read. */
size_t mshv_read_code(const struct mshv_vp *vp, uint64_t rip, uint8_t *bytes, size_t size);

/* run_time.c */
uint64_t mshv_vp_run_time(void *context, hv_vp_handle vp);
void mshv_set_run_time_hooks(X86HypervisorClass *hooks);

/* crash.c */
void mshv_crash(void *context, hv_vp_handle vp, const uint64_t parameters[5], const char *message, size_t size);

/* debug.c */
bool mshv_debugger_init(MicrosoftHypervisor *s, Error **errp); /* before the core is there */
void mshv_debugger_connect(MicrosoftHypervisor *s); /* after */
void mshv_debug_changed(void *context);

/* policy.c */
bool mshv_policy_check(const char *name, Error **errp); /* whether the property may have this value */
void mshv_policy_init(MicrosoftHypervisor *s);
enum hv_progress mshv_admit(void *context, hv_vp_handle caller, struct hv_admission *admission);

/* kvm.c: the backend for KVM; without KVM in QEMU these are never called */
bool mshv_kvm_check(const MicrosoftHypervisor *s, Error **errp);
const struct hv_platform_ops *mshv_kvm_platform_ops(bool root);
bool mshv_kvm_adapt_config(const MicrosoftHypervisor *s, struct hv_config *config, Error **errp);
bool mshv_kvm_clock_init(MicrosoftHypervisor *s, Error **errp);
bool mshv_kvm_set_up(MicrosoftHypervisor *s, Error **errp); /* the core is there */
void mshv_kvm_start(MicrosoftHypervisor *s); /* the machine is about to go on */
void mshv_kvm_stop(MicrosoftHypervisor *s);
void mshv_kvm_page_write(CPUState *cs, X86HypervisorExit exit); /* a CPU has written to a read-only overlay */
void mshv_kvm_root_init(MicrosoftHypervisor *s);
void mshv_kvm_flush_second_stage(void *context, hv_vp_handle caller, const struct hv_vp_set *set);
bool mshv_kvm_make_child(struct mshv_vp *vp, Error **errp); /* BQL held */
void mshv_kvm_reset_child(struct mshv_vp *vp); /* its CPU has been reset */
/* The registers of a VP that does not run, or is the caller, are in its CPU now, where they may be changed. */
void mshv_kvm_sync_registers(struct mshv_vp *vp);

static inline void mshv_sync_registers(struct mshv_vp *vp)
{
    if (kvm_enabled())
        mshv_kvm_sync_registers(vp);
}

/* Make a CPU leave the guest, or not enter it. Any thread. */
static inline void mshv_exit_cpu(CPUState *cs)
{
    cpu_exit(cs);
    if (kvm_enabled())
        qemu_cpu_kick(cs);
}

/* state.c */
void mshv_state_register(MicrosoftHypervisor *s);

#endif
