/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * State of the core, and what its chapters offer to each other. Nothing outside csrc/hv includes this.
 */
#ifndef HV_INTERNAL_H
#define HV_INTERNAL_H

#include <stdatomic.h>
#include <stdlib.h>

#include "hypervisor.h"
#include "locking.h"

#define HV_CALL_CODES 0x140u /* call codes below this are looked up in a table */
#define HV_MSR_CODES 0x120u /* so are MSR indices relative to HV_MSR_FIRST */
#define HV_NO_ROW 0xFF

/* Elements of a rep hypercall done before it yields: far less than 50 us of work (TLFS 4.3). */
#define HV_REP_BUDGET 64

struct hv_call;
typedef hv_status (*hv_call_handler)(struct hv_call *call);
typedef enum hv_exit (*hv_msr_read_handler)(struct hv_vp *vp, uint32_t offset, uint64_t *value);
typedef enum hv_exit (*hv_msr_write_handler)(struct hv_vp *vp, uint32_t offset, uint64_t value);

/* Interrupts of one VP, collected under its lock, requested after it is dropped. */
struct hv_interrupts {
    uint64_t vectors[4];
};

/* A hypercall on its way: what the dispatcher hands to a handler, checked (TLFS chapter 4). */
struct hv_call {
    struct hv_vp *vp;
    struct hv_partition *partition; /* the one the call is about: named by its first field, else the caller's */
    const void *input; /* header; padding may hold anything */
    const uint64_t *variable; /* variable header of `variable_count` qwords */
    unsigned variable_count;
    const void *elements; /* list of all input elements */
    void *output; /* header, zeroed */
    unsigned rep_count, rep_start; /* a handler starts at rep_start... */
    unsigned reps_done; /* ...and counts here, absolute */
    struct hv_call_blocks *blocks; /* hypercall.c: for hv_call_output() */
    hv_gpa input_gpa, output_gpa; /* of parameters in memory */
    size_t output_tail; /* bytes behind the output's header that the handler has filled in, in the same page */
    struct hv_vp *interrupted; /* the dispatcher requests these when it has dropped the structure lock */
    struct hv_interrupts interrupts;
    enum hv_exit exit; /* if not HV_EXIT_DONE, the call ends this way instead of with a status */
};

/* What a handler answers that has to wait: the call is executed again, from reps_done on. Not seen by a guest. */
#define HV_STATUS_WAIT ((hv_status)0x10000)

/* -- Messages (TLFS 14.2) -- */

struct hv_message_buffer {
    struct hv_message_buffer *next; /* in its queue; VP's lock */
    atomic_bool in_use;
    struct hv_vp *vp; /* whose queue it is in, while in use */
    uint8_t sint;
    int8_t timer; /* index of the timer it belongs to, or -1 */
    bool intercept; /* the one of a child VP's intercepts (TLFS 16.2) */
    bool event_log; /* one of the event log's (TLFS 16.5.10) */
    uint32_t log_id; /* number of the message, for those who log it */
    bool injected; /* it was held back or doubled by a rule (inject.c) */
    struct hv_message message;
};

struct hv_message_queue {
    struct hv_message_buffer *head, **tail;
};

/* -- Ports and connections (TLFS 14.4) -- */

#define HV_PORT_BUCKETS 64u
#define HV_MAX_PORTS 4096u

struct hv_port {
    struct hv_port *next;
    struct hv_partition *partition; /* whose it is: the receiver */
    uint32_t id;
    hv_partition_id connecting; /* the partition that may connect to it; HV_PARTITION_ID_INVALID: the operator's port */
    struct hv_connection *connection; /* NULL: none */
    struct hv_port_info info;
    _Atomic hv_vp_index preferred_vp; /* TLFS 14.8.7 */
    atomic_uint_fast64_t post_count;
    struct hv_message_buffer *buffers; /* HV_PORT_MESSAGE_BUFFERS of a message port */
    struct hv_monitor *monitor; /* of a monitor port */
};

struct hv_connection {
    struct hv_connection *next;
    struct hv_partition *partition; /* whose it is: the sender */
    uint32_t id;
    uint32_t port_id;
    struct hv_port *port; /* NULL once the port has been deleted */
    bool by_operator;
    struct hv_monitor *monitor; /* of a monitor port's connection */
};

/* -- Synthetic timers (TLFS 15.3) -- */

#define HV_STIMER_ENABLE (UINT64_C(1) << 0)
#define HV_STIMER_PERIODIC (UINT64_C(1) << 1)
#define HV_STIMER_LAZY (UINT64_C(1) << 2)
#define HV_STIMER_AUTO_ENABLE (UINT64_C(1) << 3)
#define HV_STIMER_DIRECT (UINT64_C(1) << 12)

struct hv_timer {
    uint64_t config, count;
    hv_nano100_time due; /* HV_NANO100_NEVER: not armed */
    bool blocked; /* expired, but its message buffer is still queued */
    bool injected; /* rules of fault injection have been asked about the expiration that is due */
    uint64_t expirations;
    struct hv_message_buffer buffer;
};

/* Fields of a SINT register (TLFS 14.6.5). */
#define HV_SINT_VECTOR(sint) ((uint8_t)(sint))
#define HV_SINT_MASKED (UINT64_C(1) << 16)
#define HV_SINT_AUTO_EOI (UINT64_C(1) << 17)

/* Enable bit and page address of the overlay page registers. */
#define HV_PAGE_MSR_ENABLE UINT64_C(1)

/* -- Virtual processors (TLFS chapter 10) -- */

#define HV_SUSPEND_EXPLICIT 1u /* HvRegisterExplicitSuspend */
#define HV_SUSPEND_INTERCEPT 2u /* HvRegisterInterceptSuspend */
#define HV_SUSPEND_OPERATOR 4u /* paused from outside; no register shows it */
#define HV_SUSPEND_TLB_FLUSH 8u /* wants to flush a TLB that must not be flushed now (TLFS 12.1.4); likewise */
#define HV_SUSPEND_ALL 15u

/* -- Statistics (TLFS 21) -- */

/* Where a page is shown by HvMapStatsPage; structure lock. */
struct hv_stats_mapping {
    bool mapped, from_pool; /* at a page of the viewer's pool (later than 2.0a) */
    hv_gpa gpa;
};

/* An object's counters, in the page that guests see. Of two groups in a page `release` is the second. */
struct hv_stats {
    uint64_t *page, *release; /* each begins with a group's header, so that an index is one of its counters */
    struct hv_stats_mapping by_own, by_parent; /* by its own partition; by its parent, or of global objects the root */
};

/* What an event costs, from samples; VP's thread. */
#define HV_COST_KINDS 14u
struct hv_timed {
    uint64_t ticks, samples;
    uint64_t events; /* the counter, at the last sample */
};

#define HV_OWNER_NONE 0u
#define HV_OWNER_HANDLER UINT32_C(0xFFFFFFFF) /* a call that works on its registers; else the LP's number + 1 */

/* A node of a pairing heap (scheduler.c). */
struct hv_heap_node {
    struct hv_heap_node *child, *next,
        *previous; /* first child; right and left sibling, or the parent of a first child */
    uint64_t key; /* compared as a signed difference */
};

enum hv_sched_state {
    HV_SCHED_NONE, /* in no partition */
    HV_SCHED_OFF, /* waits, is suspended, or a call has its registers: hv_vp_wake() and the like bring it back */
    HV_SCHED_QUEUED, /* may be picked */
    HV_SCHED_HELD, /* not before `held_until` */
    HV_SCHED_RUNNING,
    HV_SCHED_STOPPED, /* was the last to run on its LP, which has not chosen again yet */
};

/* What the scheduler keeps for a VP; the lock of the LP it is assigned to. Times are TSC ticks. */
struct hv_sched_vp {
    enum hv_sched_state state;
    bool boosted; /* an interrupt came for it: it goes first */
    bool yields; /* it spins on a lock or has nothing to do: others go first, once (TLFS 18.3.3); its LP's thread */
    uint32_t weight, cap, reserve; /* TLFS 18.2 */
    uint64_t inverse_weight; /* virtual ticks for a tick, times 2^20 */
    struct hv_heap_node fair, reserved; /* by virtual time; by when its reserve entitles it */
    struct hv_vp *next_held, *previous_held;
    uint64_t held_until;
    uint64_t started, ready_since;
    uint64_t run_time;
    uint64_t virtual_time; /* run time over weight */
    uint64_t cap_time, reserve_time; /* when what it has used is paid for at the rate of its cap, of its reserve */
};

/* Memory behind a page as a VP sees it (gpa_space.c). */
#define HV_KNOWN_PAGES 4u
struct hv_known_page {
    uint64_t page, epoch, spa;
    unsigned rights; /* HV_ACCESS_* */
};

struct hv_vp {
    /* Pages that guests may see (allocate_pages()). */
    uint8_t *sim_page, *sief_page, *apic_assist_page;
    uint8_t *input_page, *output_page; /* scratch of the VP's own thread */
    struct hv_structure_reader reader; /* its thread's */
    struct hv_known_page known_pages[HV_KNOWN_PAGES]; /* its owner's */

    struct hv *hv;
    struct hv_partition *_Atomic partition; /* NULL: in the pool of unused VPs */
    hv_vp_index index;
    hv_vp_handle handle;
    struct hv_vp *next_free; /* structure lock */
    bool made; /* the platform has its processor; structure lock */
    struct hv_vp_lock lock;

    /* Running it (scheduler.c): who may touch its registers, what keeps it from running. */
    atomic_uint owner; /* HV_OWNER_* */
    atomic_uint suspend; /* HV_SUSPEND_* */
    _Atomic uint64_t yield_until; /* TSC: a handler wants its registers, so LPs leave it alone till then */
    atomic_uint lp; /* the LP it is assigned to */
    struct hv_sched_vp sched;

    /* Child VPs */
    struct hv_lapic *lapic; /* lapic.c; NULL: the machine's own */
    struct hv_message_buffer intercept_buffer; /* message.c */
    struct hv_vp *intercept_receiver; /* whose queue that buffer went to last; VP's thread, or its owner's */
    atomic_bool tlb_flush_inhibit; /* TLFS 12.1.4 */
    uint32_t initial_apic_id; /* HvX64RegisterInitialApicId (TLFS 10.1.6); accessed atomically */
    atomic_uint deliverability; /* HvX64RegisterDeliverabilityNotifications */
    _Atomic uint64_t tsc_offset; /* its TSC is this much ahead of the machine's; written by its owner */

    uint64_t power_state_config[3]; /* TLFS 6.3.2.1, of C1 to C3; VP's thread */
    uint64_t idle_entries; /* of its LP when it last triggered one */
    bool inject_passed; /* the call `inject_call` has been let through; VP's thread, as the next lines */
    uint64_t inject_call; /* its input value, without the rep start index */
    uint64_t inject_until; /* TSC: not before that; 0: at once */
    uint64_t waited_at; /* TSC, when hv_call_waits() looked last */
    unsigned waited_in_vain; /* how often in a row it was the same */
    uint64_t debug_deadline; /* TSC: until when HvRetrieveDebugData waits; 0: it does not. VP's thread */

    /* Written by the VP's thread under its lock; other threads look without it when they choose a target. */
    _Atomic uint64_t scontrol, siefp, simp;
    _Atomic uint64_t sint[HV_SYNIC_SINT_COUNT];
    uint64_t auto_eoi[4]; /* vectors ended by the hypervisor; VP's thread */
    uint64_t apic_assist_msr; /* APIC's lock, or the VP's thread */
    int assist_vector; /* "no EOI required" is shown for it, or -1; APIC's lock */
    struct hv_message_queue queue[HV_SYNIC_SINT_COUNT]; /* lock */
    _Atomic uint16_t waiting; /* SINTs whose queue is not empty: written under the lock, read without */
    bool retry_set; /* message retry timer; lock */
    struct hv_timer timer[HV_SYNTHETIC_TIMER_COUNT]; /* lock */
    struct hv_held *held; /* what rules of fault injection hold back (inject.c), by when it is due; lock */

    struct hv_stats stats;
    uint64_t stats_msr[4]; /* TLFS 21.3.3; VP's thread */
    struct hv_timed costs[HV_COST_KINDS];
    uint64_t hypervisor_ticks, intercept_began; /* likewise */
    _Atomic uint64_t raised[4], raised_by_synic[4]; /* vectors requested by the hypervisor, not accepted yet */

    uint64_t unfinished_call; /* input value of a call that was left off, to be executed again; VP's thread */

    /* Counters: of the VP's thread, or under the lock where other threads count. */
    uint64_t hypercalls[HV_HYPERCALL_ROWS];
    uint64_t unknown_hypercalls;
    uint64_t msr_reads[HV_MSR_ROWS], msr_writes[HV_MSR_ROWS];
    uint64_t unknown_msrs;
    atomic_uint_fast64_t messages_delivered, events_signaled, interrupts_requested;
    uint64_t auto_eois, assisted_eois;
};

/* -- Partitions (TLFS chapter 5) -- */

/* Properties that are plain numbers (TLFS 5.2); partition's lock. */
struct hv_partition_properties {
    uint64_t cpu_reserve, cpu_cap, cpu_weight; /* TLFS 18.2 */
    uint64_t emulated_timer_period, emulated_timer_control; /* TLFS 15.1.5 */
    uint64_t pm_timer_assist; /* TLFS 15.1.6 */
    uint64_t debug_channel;
    uint64_t virtual_tlb_pages;
    uint64_t processor_features, xsave_features, clflush_size; /* TLFS 5.2.8 to 5.2.10 */
};

/*
 * Creation flags (TLFS 5.2.4). 2.0a defines none. Of those that came later these are taken: every child has a local
 * APIC and may have large mappings whether its parent asks or not.
 */
#define HV_CREATE_SMT_ENABLED (UINT64_C(1) << 0)
#define HV_CREATE_GPA_SUPER_PAGES (UINT64_C(1) << 4)
#define HV_CREATE_LAPIC (UINT64_C(1) << 13)
#define HV_CREATE_X2APIC (UINT64_C(1) << 22) /* it may be offered an x2APIC */

struct hv_partition {
    struct hv *hv;
    hv_partition_id id;
    struct hv_partition *next_in_bucket; /* structure lock, as the next lines */
    struct hv_partition *parent; /* NULL: the machine's own */
    struct hv_partition *children, *next_sibling; /* in the order of their creation, which is that of IDs */
    unsigned depth; /* the machine's own has 0 */
    atomic_uint state; /* enum hv_partition_run_state */
    bool is_root, second_stage;
    atomic_bool paused; /* by the operator */

    _Atomic uint64_t privileges;
    uint32_t features, recommendations, spinlock_retries;
    uint64_t creation_flags; /* HV_CREATE_* (TLFS 5.2.4) */
    char name[64]; /* what the operator calls it */
    uint64_t page_limit; /* pages it may have mapped, by the operator's policy; or HV_PAGES_UNLIMITED */
    struct hv_partition_lock lock;
    struct hv_partition_properties properties;
    struct hv_memory_pool *pool; /* memory_pool.c */
    struct hv_gpa_space *gpa_space; /* gpa_space.c; NULL: no second stage */
    struct hv_intercepts *_Atomic intercepts; /* intercept.c; NULL: none installed */

    struct hv_stats stats;
    uint16_t number; /* of the partitions that exist no two have the same */
    struct hv_vp **vps; /* HV_MAX_VPS entries for a child, some NULL; the machine's: vp_count entries, all there */
    uint32_t vp_count; /* VPs that exist: of a child they need not be the first ones */
    uint32_t vp_limit; /* entries of vps */
    struct hv_vp_set all_vps;
    unsigned vp_banks; /* banks of a VP set that can hold a VP of this partition */

    uint8_t *hypercall_page;
    union {
        struct hv_reference_tsc_page *reference_tsc_page;
        uint8_t *reference_tsc_bytes;
    };

    /* Partition-wide registers; written by any VP, the last writer wins. */
    struct hv_vp_lock register_lock; /* leaf lock, as a VP's: serializes writers of the next lines */
    _Atomic uint64_t guest_os_id, hypercall_msr, reference_tsc_msr, crash_control;
    _Atomic uint64_t crash_parameters[5];
    _Atomic uint64_t tsc_invariant_control;
    uint64_t tsc_scale; /* reference time = ((tsc * scale) >> 64) + offset (TLFS 15.4.3) */
    int64_t tsc_offset;
    uint32_t tsc_sequence;

    struct hv_port *ports[HV_PORT_BUCKETS]; /* structure lock */
    struct hv_connection *connections[HV_PORT_BUCKETS];
    size_t port_count, connection_count;

    /* Time (TLFS 15.1.2): it stops while all VPs of a child are explicitly suspended. */
    atomic_bool time_stopped;
    _Atomic hv_nano100_time stopped_time;
    int active_vps; /* not explicitly suspended; register_lock */
    hv_nano100_time emulated_timer_due; /* TLFS 15.1.5; partition's lock */

    struct hv_transfer *transfer, *system_transfer; /* save.c: of its own state, and of the system's for it */

    atomic_uint arbitrations; /* of lowest-priority interrupts (lapic_delivery.c) */

    struct hv_debug_session *_Atomic debug_session; /* debug.c; NULL: none */
};

/* -- The machine -- */

struct hv_lp {
    struct hv_scheduler_lock lock; /* of the next lines, and of the scheduling of VPs assigned to it */
    struct hv_vp *running; /* NULL: idle, or in the machine's own hands */
    struct hv_vp *last; /* HV_SCHED_STOPPED */
    struct hv_vp *root; /* the VP of the machine's partition, which is bound to it */
    struct hv_heap_node *fair, *reserved; /* VPs that may be picked; those of them that have a reserve */
    const struct hv_vp *logged; /* the last one that a context switch was logged to */
    struct hv_vp *held;
    uint64_t next_release; /* the earliest held_until */
    uint64_t virtual_time; /* that of a VP which gets its share, no more and no less; never goes back */
    uint64_t slice_end, next_tick, shared_until; /* TSC */
    bool idle; /* hv_schedule() found nothing */
    uint64_t created, run_time, idle_time, idle_since; /* TSC ticks */
    unsigned power_state, next_power_state; /* that it is idle in, and will be next: 0 for C1, or 1, 2 */
    uint64_t power_state_time[3]; /* TSC ticks idle in each */
    uint64_t switch_time; /* TSC ticks */
    struct hv_vp *previous; /* it ran last */
    struct hv_stats stats;
    atomic_ullong idle_entries; /* how often it became idle (TLFS 6.3.2.1.2) */
    atomic_uint queued, assigned; /* VPs that may be picked; children assigned to it */
    atomic_ullong reserves; /* theirs together */
    atomic_bool parked; /* TLFS 6.4.2 */
    atomic_ullong profiler_samples; /* TLFS 23.3 */
};

/* Where the debugger is (debug.c). What comes from it belongs to the platform's thread that tells it. */
struct hv_debug_connection {
    _Atomic uint32_t received; /* bytes, for any session; wraps (TLFS 20.1.5) */
    uint8_t header[4]; /* of the frame that is being received */
    uint8_t header_bytes;
    uint16_t channel, left; /* of its bytes so many are still to come */
    unsigned next_bucket; /* whose turn it is to send */
};

#define HV_PARTITION_BUCKETS 64u
#define HV_MAX_PARTITIONS 1024u
#define HV_MAX_PARTITION_DEPTH 4u /* levels below the root */

/*
 * What is not as usual, in one word of the machine, so that what happens often looks once whether it is to be done with
 * all that may belong to it. Bit n below HV_INJECT_POINTS: there is a rule of fault injection for that point.
 */
enum hv_attention {
    HV_ATTENTION_TRACE = 1u << HV_INJECT_POINTS, /* hypercalls are traced */
    HV_ATTENTION_CALL_EVENTS = HV_ATTENTION_TRACE << 1, /* somebody logs these events */
    HV_ATTENTION_MSR_EVENTS = HV_ATTENTION_TRACE << 2,
    HV_ATTENTION_MESSAGE_EVENTS = HV_ATTENTION_TRACE << 3,
};
#ifdef HV_NO_INJECTION
#define HV_ATTENTION_RULES(point) 0u
#else
#define HV_ATTENTION_RULES(point) (1u << (point))
#endif

struct hv {
    /* Dispatch: made from the tables and the generation at creation. */
    uint8_t call_row[HV_CALL_CODES];
    uint8_t call_counter[HV_HYPERCALL_ROWS]; /* by kind of call: an index of group VPV */
    uint64_t call_reserved[HV_HYPERCALL_ROWS]; /* bits of the input value that must be zero */
    uint8_t msr_row[HV_MSR_CODES];
    hv_msr_read_handler msr_read[HV_MSR_CODES]; /* NULL: #GP */
    hv_msr_write_handler msr_write[HV_MSR_CODES];

    const struct hv_platform_ops *ops;
    void *context;
    struct hv_config config; /* of the machine, and of its own partition */
    uint64_t gpa_limit; /* first GPA beyond the GPA space */
    int64_t tsc_ahead; /* what RDTSC reads is ahead of read_tsc(); changes while no VP runs */
    _Atomic uint64_t translation_epoch; /* changes when any partition's second stage loses something */
    atomic_uint attention; /* HV_ATTENTION(): what is not as usual */
    atomic_uint messages_logged;
    _Atomic uint64_t events_wanted; /* groups of events that somebody logs (event_log.h) */
    struct hv_event_log *event_log;
    struct hv_event_rings *event_rings;
    struct hv_injection *_Atomic injection; /* inject.c; NULL until there is a rule */

    struct hv_structure_lock structure;
    struct hv_partition *machine_partition;
    struct hv_partition *partitions[HV_PARTITION_BUCKETS]; /* by ID */
    hv_partition_id next_partition_id;
    unsigned partition_count, vp_count; /* that exist */
    struct hv_vp *by_handle[HV_MAX_VPS]; /* never freed before hv_destroy() */
    unsigned handle_count;
    struct hv_vp *free_vps;

    struct hv_debug_connection debug;

    struct {
        uint32_t source; /* HV_PROFILE_SOURCE; 0: not configured. Structure lock, as the next line */
        uint64_t period; /* TSC ticks */
        atomic_bool running;
    } profiler; /* system_property.c (TLFS 23.3) */

    struct hv_monitor *monitors; /* structure lock, as the next line */
    struct hv_retired_page *retired_pages;
    atomic_uint monitor_inspections; /* asked for and not ended */

    struct hv_stats stats;
    uint64_t partition_numbers[HV_MAX_PARTITIONS / 64]; /* those in use; structure lock */

    struct hv_lp *lps; /* with a root only */
    unsigned lp_count;
    uint64_t slice_length; /* TSC ticks */
    _Atomic uint64_t idle_lps[HV_VP_BANKS]; /* those that want work */
};

/* Whether any of these bits is set, which is rare. */
#define HV_ATTENTION(hv, bits)                                                                                         \
    __builtin_expect((atomic_load_explicit(&(hv)->attention, memory_order_relaxed) & (bits)) != 0, 0)
/* Of the bits in `mask`, those in `bits` are set from now on. Any thread. */
void hv_set_attention(struct hv *hv, unsigned mask, unsigned bits);

static inline bool hv_has_privilege(const struct hv_partition *partition, enum hv_privilege privilege)
{
    return (atomic_load_explicit(&partition->privileges, memory_order_relaxed) >> privilege) & 1;
}

static inline bool hv_has_feature(const struct hv_partition *partition, enum hv_feature feature)
{
    return (partition->features >> feature) & 1;
}

/* property.c (TLFS 5.2) */
uint64_t hv_privileges_of(enum hv_generation generation); /* those that exist in it */
uint64_t
hv_child_privileges(const struct hv_partition *parent); /* what a new child has until its parent says otherwise */
uint64_t hv_child_privileges_limit(const struct hv_partition *parent); /* what a child may have at most */
void hv_properties_reset(struct hv_partition *partition); /* default values; the parent's are there */
/* Whether one more VP can have the CPU reserve of its partition (TLFS 10.4.1, 18.2.1); structure lock held. */
bool hv_reserve_allows_vp(const struct hv_partition *partition);

/* partition.c */
struct hv_partition *hv_find_partition(struct hv *hv, hv_partition_id id); /* structure lock held */
/* Ask the operator's policy about something of `parent`'s; SUCCESS, WAIT or NO_RESOURCES. Structure lock held. */
hv_status hv_admit(struct hv_vp *caller, const struct hv_partition *parent, struct hv_admission *admission);
static inline bool hv_partition_is_active(const struct hv_partition *partition)
{
    return atomic_load(&partition->state) == HV_PARTITION_ACTIVE;
}

/* HV_PROXIMITY_DOMAIN_INFO (TLFS 7.2.1): whether its flags are valid; every node has a part of the one pool there is.
 */
bool hv_proximity_is_valid(uint64_t proximity_domain_info);
/* All VPs of a partition and of its descendants, by handle; structure lock held. */
void hv_partition_tree_vps(const struct hv_partition *partition, struct hv_vp_set *handles);

/*
 * What other chapters attach to partitions and VPs. partition.c and vp.c call these with the structure lock held for
 * writing. The partition's VPs do not run when it is torn down, and the removed VP does not.
 */
bool hv_gpa_space_create(struct hv_partition *partition); /* gpa_space.c; false: the host's memory is short */
void hv_gpa_space_free(
    struct hv_partition *partition); /* mappings end, charged pages return to the pool; may be NULL */
bool hv_lapic_create(
    struct hv_vp *vp); /* lapic.c: its local APIC after reset, initial APIC ID = index; false likewise */
void hv_gpa_space_reset(struct hv_partition *root); /* identity with all rights again (TLFS 22.3); no VP runs */
void hv_lapic_remove(struct hv_vp *vp); /* its timers are off; vp->lapic may be kept for the VP's next life */
void hv_intercepts_free(struct hv_partition *partition); /* intercept.c: those installed; charged pages return */
void hv_intercept_vp_remove(struct hv_vp *vp); /* message.c: its message leaves the queue of the parent's VP */
void hv_emulated_timer_changed(
    struct hv_partition *partition); /* timer_assist.c, TLFS 15.1.5; partition's lock not held */

/*
 * Deposited pages (TLFS 7.3); gpa_space.c. `gpa_page` is a page number in the depositor's GPA space, whose lock is not
 * held. Taking it answers OPERATION_DENIED when it is not RAM with all rights there, is deposited already, or another
 * partition has a right to it; OBJECT_IN_USE when the hypervisor uses it otherwise. The caller flushes once, by
 * hv_gpa_flush(), before its call ends. Giving it back zeroes it and gives all rights.
 */
hv_status hv_gpa_take_page(struct hv_partition *depositor, uint64_t gpa_page);
void hv_gpa_give_page(struct hv_partition *depositor, uint64_t gpa_page);
/* No VP of the partition or of its descendants uses what was taken away, once the caller's instruction has retired. */
void hv_gpa_flush(struct hv_vp *caller, struct hv_partition *partition);
/* The same for these VPs only. `caller` is NULL when no VP runs. */
void hv_flush_second_stage(struct hv *hv, struct hv_vp *caller, const struct hv_vp_set *handles);
/* Of `count` pages from an SPA's page on so many are memory; the next ones may be, unless it is 0. */
unsigned hv_gpa_count_memory(const struct hv_partition *partition, uint64_t page, unsigned count);
/* The VP on whose thread this is, for platform functions that want to know: set by what may change overlays. */
extern _Thread_local struct hv_vp *hv_calling_vp;

/* memory_pool.c (TLFS 7): under any lock or none; costs are those of tlfs/costs.def */
bool hv_pool_create(struct hv_partition *partition, uint64_t own_pages); /* false: the host's memory is short */
void hv_pool_free(struct hv_partition *partition);
void hv_pool_return_pages(struct hv_partition *partition); /* free deposited pages go back to the depositor */
/* More than anything costs: released while state is read, so that no charge fails; hv_state_pool() sets what is right.
 */
#define HV_POOL_UNLIMITED (UINT64_C(1) << 62)
void hv_pool_set_available(struct hv_partition *partition, uint64_t pages);
/* Take the pages that a stream has put into a pool from their depositor; false: it does not have them all. */
bool hv_pool_deposits_taken(struct hv_partition *partition);
uint64_t hv_pool_deposited(const struct hv_partition *partition); /* pages that are to be withdrawn; structure lock */
/*
 * A certain deposited page is used, and cannot be withdrawn until it is put back. False: none is free. `adopt` is for
 * one that was in use when the state was saved.
 */
bool hv_pool_take_page(struct hv_partition *partition, uint64_t *page);
void hv_pool_put_page(struct hv_partition *partition, uint64_t page);
void hv_pool_adopt_page(struct hv_partition *partition);
bool hv_pool_charge(struct hv_partition *partition, uint64_t pages); /* false: HV_STATUS_INSUFFICIENT_MEMORY */
void hv_pool_release(struct hv_partition *partition, uint64_t pages);
/* Balance: pages that are free, and that are in use (TLFS 7.3.3). */
void hv_pool_balance(const struct hv_partition *partition, uint64_t *available, uint64_t *in_use);
enum hv_cost {
#define HV_COST_ROW(name, pages, meaning) HV_COST_##name = pages,
#include "tlfs/costs.def"
#undef HV_COST_ROW
};

/* An object that belongs nowhere yet, with room for VPs 0..vp_limit-1; NULL when memory is short. */
struct hv_partition *hv_partition_allocate(struct hv *hv, hv_vp_index vp_limit);
void hv_partition_insert(struct hv_partition *partition, hv_partition_id id); /* structure lock held */
void hv_partition_free(struct hv_partition *partition); /* without VPs */
/* An uninitialized child as it was saved, with an empty pool that pays nothing; NULL when the host's memory is short.
 */
struct hv_partition *hv_partition_restore(struct hv_partition *parent, hv_partition_id id);
void hv_partition_delete_children(struct hv_partition *partition); /* no VP runs; structure lock held for writing */
static inline struct hv_vp *hv_partition_vp(const struct hv_partition *partition, hv_vp_index index)
{
    return index < partition->vp_limit ? partition->vps[index] : NULL;
}

/* hypercall.c, msr.c */
void hv_hypercall_init(struct hv *hv);
/*
 * For a handler whose output has a length that the row does not know, which is not 0: check its place as the dispatcher
 * does, before the handler has an effect. With SUCCESS and call->exit HV_EXIT_DONE, `size` bytes of call->output are
 * written afterwards.
 */
hv_status hv_call_output(struct hv_call *call, size_t size);
/*
 * Bring `size` bytes more of the input, which begin `offset` bytes behind its beginning and lie in the same page, to
 * their place behind the header. False: they cannot be read, and the call ends as call->exit says. No core lock held.
 */
bool hv_call_read_tail(struct hv_call *call, size_t offset, size_t size);
/*
 * Whether the call is to be executed again because the TSC has not reached `deadline`; others are let run meanwhile.
 * False too where time stands still as long as an instruction is executed again and again, as it does under -icount.
 */
bool hv_call_waits(struct hv_vp *vp, uint64_t deadline);
void hv_msr_init(struct hv *hv);
/* Whether the hypervisor virtualizes a synthetic MSR for the VP's partition, which has the privilege (TLFS 11.10). */
bool hv_msr_is_virtualized(const struct hv_vp *vp, uint32_t index);
/* Show or hide an overlay as the value of its register says; a page beyond the GPA space is shown nowhere. */
void hv_show_overlay(struct hv_partition *partition, enum hv_overlay_kind kind, hv_vp_index vp, void *page,
                     uint64_t msr, enum hv_overlay_access access);
void hv_show_all_overlays(struct hv_partition *partition);

/* vp.c: with a root the scheduler knows, else the machine; 100 ns. Any thread. */
hv_nano100_time hv_run_time(struct hv_vp *vp);
extern _Thread_local unsigned hv_this_lp; /* scheduler.c: the LP whose VP this thread executes, plus 1; else 0 */

/* interrupt.c */
static inline void hv_interrupts_add(struct hv_interrupts *interrupts, uint8_t vector)
{
    interrupts->vectors[vector / 64] |= UINT64_C(1) << (vector % 64);
}
/* Request an interrupt at the VP's local APIC, or what was collected; no lock held. */
void hv_interrupt_request(struct hv_vp *vp, uint8_t vector);
void hv_interrupts_request(struct hv_vp *vp, const struct hv_interrupts *interrupts);
void hv_interrupt_update_auto_eoi(struct hv_vp *vp);

/* synic.c */
void hv_synic_reset(struct hv_vp *vp);
/* Queue a buffer that is marked in use and deliver what can be; the VP's lock is held. */
void hv_message_enqueue(struct hv_vp *vp, struct hv_message_buffer *buffer, struct hv_interrupts *interrupts);
void hv_message_enqueue_now(struct hv_vp *vp, struct hv_message_buffer *buffer,
                            struct hv_interrupts *interrupts); /* whatever rules of fault injection say */
void hv_message_drop(struct hv_message_buffer *buffer); /* it is in no queue, and free now */
void hv_message_unlink(struct hv_message_buffer *buffer); /* VP's lock held */
void hv_message_deliver_all(struct hv_vp *vp, struct hv_interrupts *interrupts); /* VP's lock held */
void hv_message_retry(struct hv_vp *vp);
static inline bool hv_synic_is_enabled(struct hv_vp *vp)
{
    return atomic_load(&vp->scontrol) & 1;
}
/* Whether messages may be queued to the VP (TLFS 14.2.4); those that are need only the SIM page (TLFS 14.6.6). */
static inline bool hv_synic_accepts_messages(struct hv_vp *vp)
{
    return hv_synic_is_enabled(vp) && (atomic_load(&vp->simp) & HV_PAGE_MSR_ENABLE);
}
static inline bool hv_synic_accepts_events(struct hv_vp *vp)
{
    return hv_synic_is_enabled(vp) && (atomic_load(&vp->siefp) & HV_PAGE_MSR_ENABLE);
}
/* Set event flag `flag` of `sint`; VP's lock held. */
void hv_event_set(struct hv_vp *vp, unsigned sint, unsigned flag, struct hv_interrupts *interrupts);
void hv_event_set_now(struct hv_vp *vp, unsigned sint, unsigned flag, struct hv_interrupts *interrupts);
bool hv_sint_masked(struct hv_vp *vp, unsigned sint);

/* timer.c */
void hv_timer_reset(struct hv_vp *vp);
void hv_timer_message_delivered(struct hv_vp *vp, unsigned timer, struct hv_interrupts *interrupts); /* lock held */
/* The SynIC has been enabled: signal what could not be (lock held). */
void hv_timer_signal_blocked(struct hv_vp *vp, struct hv_interrupts *interrupts);
void hv_timer_set_all(struct hv_vp *vp); /* after a restore */
void hv_time_init(struct hv_partition *partition);
void hv_publish_reference_tsc(struct hv_partition *partition);
static inline hv_nano100_time hv_time_from_tsc(const struct hv_partition *partition, uint64_t tsc)
{
    /* Written while others read it, when time goes on (hv_time_vp_resumed()). */
    int64_t offset = __atomic_load_n(&partition->tsc_offset, __ATOMIC_RELAXED);

    return (uint64_t)(((unsigned __int128)tsc * partition->tsc_scale) >> 64) + (uint64_t)offset;
}
static inline uint64_t hv_sample_tsc(const struct hv *hv)
{
    return hv->ops->sample_tsc(hv->context);
}

static inline uint64_t hv_machine_tsc(const struct hv *hv)
{
    return hv->ops->read_tsc(hv->context, 0);
}
static inline hv_nano100_time hv_partition_time(const struct hv_partition *partition)
{
    if (atomic_load(&partition->time_stopped))
        return atomic_load(&partition->stopped_time);
    return hv_time_from_tsc(partition, hv_machine_tsc(partition->hv));
}
static inline hv_nano100_time hv_time_now(const struct hv_vp *vp)
{
    return hv_partition_time(vp->partition);
}
/* A VP is explicitly suspended, or not any more; no VP's lock held. */
void hv_time_vp_suspended(struct hv_vp *vp);
void hv_time_vp_resumed(struct hv_vp *vp);
/* The partition's time, its VPs' suspension and timers have been restored from a stream: publish it, set timers. */
void hv_time_restored(struct hv_partition *partition);
/*
 * A periodic timer that fires at `now`: moves *due on by the period, and answers when to look at it again. When it is
 * late it catches up by shortened periods, and skips expirations that are more than `catch_up` behind (TLFS 15.1.4).
 */
hv_nano100_time hv_next_period(hv_nano100_time *due, uint64_t period, unsigned catch_up, hv_nano100_time now);
uint64_t hv_shortest_period(uint64_t period); /* which a timer that is late shortens to */
#define HV_TIMER_CATCH_UP_PERIODS 16 /* a lazy timer has none */
void hv_emulated_timer_expired(struct hv_vp *vp); /* timer_assist.c; no core lock held */
void hv_emulated_timer_set(struct hv_partition *partition); /* timer_assist.c: reference time goes on, or a VP is new */
/* First TSC value at which reference time is `time` or later; HV_NANO100_NEVER when there is none, or time is stopped.
 */
uint64_t hv_tsc_at_time(const struct hv_partition *partition, hv_nano100_time time);

/* port.c: tables of a partition; structure lock held as it changes them or not */
struct hv_port *hv_find_port(struct hv_partition *partition, uint32_t id);
struct hv_connection *hv_find_connection(struct hv_partition *partition, uint32_t id);
/* What is wrong with the numbers of a message or event port, if anything. */
hv_status hv_port_check(const struct hv_partition *partition, const struct hv_port_info *info);
/* The ID is free; `connecting` as in struct hv_port. Memory is charged to the pool unless it is the operator's. */
hv_status hv_port_insert(struct hv_partition *partition, uint32_t id, hv_partition_id connecting,
                         const struct hv_port_info *info);
void hv_port_remove(struct hv_port *port);
/* The ID is free and the port not connected; `monitor_gpa` is of a monitor port's connection. */
hv_status hv_connection_insert(struct hv_partition *partition, uint32_t id, struct hv_port *port, bool by_operator,
                               hv_gpa monitor_gpa);
void hv_connection_remove(struct hv_connection *connection);
void hv_ports_free(struct hv_partition *partition); /* structure lock held, or no VP runs; memory returns to the pool */
void hv_ports_reset(struct hv_partition *partition); /* queued messages go, the operator's ports stay */
/* HvSignalEvent for a VP of `sender`, or for none; structure lock held for reading. */
hv_status hv_signal_event(struct hv_partition *sender, struct hv_vp *caller, uint32_t connection_id, uint16_t flag,
                          struct hv_vp **target, struct hv_interrupts *interrupts);

/* monitor.c (TLFS 14.5); structure lock held for writing */
struct hv_monitor *hv_monitor_create(struct hv *hv); /* NULL: there can be no more */
void hv_monitor_set_port(struct hv_monitor *monitor, struct hv_port *port); /* NULL: it goes */
void hv_monitor_set_connection(struct hv_monitor *monitor, struct hv_connection *connection, hv_gpa gpa);
hv_gpa hv_monitor_connection_gpa(const struct hv_monitor *monitor); /* as given, 0 without a connection */
uint8_t *hv_monitor_page(struct hv_monitor *monitor); /* HV_PAGE_SIZE bytes, to save and restore them */
void hv_monitors_free(struct hv *hv);
void hv_monitors_inspect(struct hv *hv); /* no lock held, any thread */

/* vp_owner.c: who may touch a VP's registers */
/*
 * Become the owner of a VP's registers. When it answers false an LP runs the VP and has been asked to stop: answer
 * HV_STATUS_WAIT. A caller owns its own VP. To be undone by hv_vp_release().
 */
bool hv_vp_acquire(struct hv_vp *caller, struct hv_vp *vp);
void hv_vp_release(struct hv_vp *caller, struct hv_vp *vp);
void hv_vp_set_suspend(struct hv_vp *vp, unsigned bits); /* stops it soon if it runs */
void hv_vp_clear_suspend(struct hv_vp *vp, unsigned bits); /* may make it ready */
/* scheduler.c */
bool hv_scheduler_init(struct hv *hv);
void hv_scheduler_wake(struct hv_vp *vp, bool interrupt); /* what kept it from running is gone, or hv_vp_wake() */
void hv_scheduler_free(struct hv *hv);
void hv_scheduler_add(struct hv_vp *vp); /* a new VP: choose its LP */
void hv_scheduler_remove(struct hv_vp *vp); /* the caller owns it; it is not picked again */
void hv_scheduler_properties_changed(struct hv_partition *partition); /* reserve, cap or weight */
void hv_scheduler_restored(struct hv *hv); /* no VP runs; before children's VPs may become ready */
void hv_scheduler_park(struct hv *hv, uint64_t mask); /* bit i: LP i; replaces the mask given before (TLFS 6.4.2) */
struct hv_lp_times {
    uint64_t run, hypervisor, idle; /* 100 ns; `run` includes `hypervisor`, and run + idle is all the time there was */
    uint64_t power_states[3]; /* 100 ns idle in C1 to C3 */
    uint64_t switching; /* ns */
};
void hv_get_lp_times(struct hv *hv, unsigned lp, struct hv_lp_times *times); /* any thread */

/* stats.c (TLFS 21); structure lock held for writing, or no VP runs */
bool hv_stats_create(struct hv *hv); /* pages of the hypervisor and the LPs; false: there is no memory */
void hv_stats_free(struct hv *hv);
void hv_stats_init(struct hv *hv, struct hv_stats *stats, enum hv_stats_object_type object, void *page); /* zeroed */
void hv_stats_partition_added(struct hv_partition *partition);
void hv_stats_partition_finalized(struct hv_partition *partition); /* its own view of itself goes */
void hv_stats_partition_removed(struct hv_partition *partition); /* its parent's view of it goes */
void hv_stats_vp_added(struct hv_vp *vp);
void hv_stats_vp_removed(struct hv_vp *vp); /* all views of it go; it still is in its partition */
void hv_stats_properties_changed(struct hv_partition *partition);
void hv_stats_reset(struct hv *hv); /* all mappings go; there are no children any more */
void hv_stats_show_vp(struct hv_vp *vp); /* as its MSRs say */
void hv_stats_restored(struct hv *hv); /* show what is mapped */
void hv_stats_timer_expired(struct hv *hv); /* any thread, no lock held */

/* gpa_space.c: overlays of a partition with a second stage (TLFS 8.1.3) */
void hv_gpa_set_overlay(struct hv_partition *partition, enum hv_overlay_kind kind, hv_vp_index vp, uint8_t *page,
                        bool enabled, hv_gpa gpa);

/* gpa_space.c: memory as a partition's VPs see it, overlays included; ranges lie in one page */
enum hv_gpa_result hv_read_gpa(struct hv_vp *vp, hv_gpa gpa, void *buffer, size_t size);
enum hv_gpa_result hv_write_gpa(struct hv_vp *vp, hv_gpa gpa, const void *buffer, size_t size);
/*
 * A place for a call's output, which is the same until the VP's instruction ends (TLFS 4.6): who takes the page away or
 * maps another waits for the VP to leave the guest before its own call is complete (ops->flush_second_stage()).
 */
enum hv_gpa_result hv_lock_write_gpa(struct hv_vp *vp, hv_gpa gpa, size_t size, struct hv_translation *place);
void hv_write_locked_gpa(struct hv_vp *vp, const struct hv_translation *place, hv_gpa gpa, const void *buffer,
                         size_t size);

/* vp.c */
/* A VP out of the pool, or a new one, that is in no partition. False: no memory, or no handle left. */
bool hv_vp_allocate(struct hv *hv, struct hv_vp **vp);
void hv_vp_insert(struct hv_partition *partition, struct hv_vp *vp, hv_vp_index index);
void hv_vp_free(struct hv_vp *vp); /* hv_destroy() only */
/*
 * Take a child's VP, which the caller owns, out of its partition and put it into the pool; structure lock held for
 * writing. What it was charged returns to the partition's pool.
 */
void hv_vp_remove(struct hv_vp *vp);
/* The VP of the pool that has this handle, with its processor; NULL: it lives, or there can be none. */
struct hv_vp *hv_vp_prepare_restore(struct hv *hv, hv_vp_handle handle);
/* Put a VP of the pool, whose processor is there, into a child as after HvCreateVp; its pool pays nothing. */
bool hv_vp_restore(struct hv_partition *partition, struct hv_vp *vp, hv_vp_index index);
void hv_vp_reset(struct hv_vp *vp);
#define HV_VP_SET_SPARSE 0
#define HV_VP_SET_ALL 1
/* Read a VP set from a call's fields and variable header; VPs that do not exist are left out. */
/* Turn a set by index into one by handle, as the platform wants it. */
void hv_vp_handles(const struct hv_partition *partition, const struct hv_vp_set *by_index, struct hv_vp_set *handles);
hv_status hv_read_vp_set(const struct hv_call *call, uint64_t format, uint64_t bank_mask, struct hv_vp_set *set);
void hv_keep_existing_vps(const struct hv_partition *partition, struct hv_vp_set *set);

/*
 * message.c: intercept messages of a child's VP (TLFS 16), on the VP's thread. Suspend the VP, post the message, answer
 * HV_EXIT_INTERCEPT. No core lock is held.
 */
enum hv_exit hv_message_memory(struct hv_vp *vp, const struct hv_memory_access *access);
enum hv_exit hv_message_cpuid(struct hv_vp *vp, uint8_t length, const struct hv_cpuid *result);
enum hv_exit hv_message_msr(struct hv_vp *vp, uint32_t index, uint8_t length, unsigned access);
enum hv_exit hv_message_io(struct hv_vp *vp, const struct hv_io_access *io);
enum hv_exit hv_message_exception(struct hv_vp *vp, const struct hv_exception *exception);
enum hv_exit hv_message_unrecoverable_exception(struct hv_vp *vp);
enum hv_exit hv_message_invalid_register_value(struct hv_vp *vp);
enum hv_exit hv_message_ferr_asserted(struct hv_vp *vp);
enum hv_exit hv_message_apic_eoi(struct hv_vp *vp, uint8_t vector);
enum hv_exit hv_message_unsupported_feature(struct hv_vp *vp, uint32_t code, uint64_t parameter);
enum hv_exit hv_message_interruption_deliverable(struct hv_vp *vp, uint32_t type);

/* processor.c: what a VP's processor is (TLFS 11, appendices D, F, G) */
/* `result` comes as the machine answers. */
void hv_processor_cpuid(const struct hv_vp *vp, uint32_t leaf, uint32_t subleaf, struct hv_cpuid *result);
/* False: not an MSR that the hypervisor virtualizes or lets the processor keep. Not for synthetic ones. */
bool hv_processor_rdmsr(struct hv_vp *vp, uint32_t index, uint64_t *value, enum hv_exit *exit);
bool hv_processor_wrmsr(struct hv_vp *vp, uint32_t index, uint64_t value, enum hv_exit *exit);
/* Values that the processor can hold: what WRMSR and HvSetVpRegisters check (TLFS 10.4.4). */
bool hv_address_is_canonical(uint64_t address);
bool hv_processor_msr_is_valid(const struct hv_vp *vp, uint32_t index, uint64_t value);

/* lapic.c: a child's local APIC; no VP's lock held. On the VP's thread, or by whoever owns the VP, but for request. */
void hv_lapic_request(struct hv_vp *vp, uint8_t vector); /* edge-triggered; any thread; dropped when the VP has gone */
void hv_lapic_eoi(struct hv_vp *vp);
uint64_t hv_lapic_read_icr(struct hv_vp *vp);
void hv_lapic_write_icr(struct hv_vp *vp, uint64_t value);
uint8_t hv_lapic_read_tpr(struct hv_vp *vp);
void hv_lapic_write_tpr(struct hv_vp *vp, uint8_t value);
void hv_lapic_timer_expired(struct hv_vp *vp);
void hv_lapic_tsc_changed(struct hv_vp *vp); /* a child's TSC was set: its timer may go by that */
/* Its state has been restored from a stream: make it one that could have come about, tell the platform. */
void hv_lapic_restored(struct hv_vp *vp);
/* Where its registers are in memory: HV_LAPIC_NO_PAGE while it is off or in x2APIC mode. Any thread, no lock. */
#define HV_LAPIC_NO_PAGE UINT64_MAX
hv_gpa hv_lapic_page(const struct hv_vp *vp);
uint64_t hv_lapic_get_base(const struct hv_vp *vp);
bool hv_lapic_set_base(struct hv_vp *caller, struct hv_vp *vp, uint64_t value); /* false: #GP */
bool hv_lapic_has_x2apic(const struct hv_partition *partition);
bool hv_lapic_has_deadline(const struct hv_partition *partition); /* the TSC-deadline mode of its timer */
uint32_t hv_lapic_get_initial_id(const struct hv_vp *vp); /* HvX64RegisterInitialApicId */
void hv_lapic_set_initial_id(struct hv_vp *vp, uint32_t id);
bool hv_lapic_waits_for_sipi(struct hv_vp *vp);
/* lapic.c: MSRs of a child's local APIC: APIC base, TSC deadline, the x2APIC range. HV_EXIT_DONE or HV_EXIT_GP. */
enum hv_exit hv_lapic_rdmsr(struct hv_vp *vp, uint32_t index, uint64_t *value);
enum hv_exit hv_lapic_wrmsr(struct hv_vp *vp, uint32_t index, uint64_t value);
/* timer_assist.c, TLFS 15.1.6: whether the access is one of the PM timer assist, and what it reads. */
bool hv_pm_timer_read(struct hv_vp *vp, const struct hv_io_access *io, uint32_t *value);

/* system_property.c: the profiler's platform timer, of the LP's root VP; and a machine that is launched anew */
void hv_profiler_expired(struct hv *hv, unsigned lp);
void hv_profiler_reset(struct hv *hv);
bool hv_profiler_is_possible(const struct hv *hv); /* what it is configured to */

/*
 * debug.c: the session of an active partition that has the Debugging privilege (TLFS 20.1.1); structure lock held for
 * writing, or no VP runs. Creating one that is there, or that no debugger could use, does nothing.
 */
hv_status hv_debug_session_create(struct hv_partition *partition); /* charges the pool of a child */
void hv_debug_session_free(struct hv_partition *partition); /* no VP of the partition runs */
void hv_debug_session_reset(struct hv_partition *partition);

/* vp_registers.c: all registers of a VP the caller owns; `count`: in: room, out: entries */
void hv_vp_read_all_registers(struct hv_vp *vp, struct hv_register_entry *entries, size_t *count);
/* gpa_space.c: pages of a child that have memory of its parent behind them; 0 for the machine's own */
uint64_t hv_gpa_mapped_pages(const struct hv_partition *partition);
/* gpa_space.c: as the VPs of the partition see it; the range lies in one page */
enum hv_gpa_result hv_partition_read_gpa(struct hv_partition *partition, hv_gpa gpa, void *buffer, size_t size);
enum hv_gpa_result hv_partition_write_gpa(struct hv_partition *partition, hv_gpa gpa, const void *buffer, size_t size);

/* register_values.c: whether an architectural register can hold a value, as far as one sees from it (TLFS 10.4.4) */
bool hv_register_value_is_valid(const struct hv_vp *vp, enum hv_register_name name,
                                const union hv_register_value *value);

/* vp_registers.c: what hv_vp_reset() leaves: suspend, pending events, TSC (TLFS 10.1.1). The VP does not run. */
void hv_vp_registers_reset(struct hv_vp *vp);

/* vp_registers.c: the VP could take an interrupt now. True: its parent wanted to know and has a message (later). */
bool hv_interrupt_deliverable(struct hv_vp *vp);
/* Whether that is so at this task priority. Any thread. */
static inline bool hv_wants_interrupt_deliverable(const struct hv_vp *vp, uint32_t tpr)
{
    unsigned wanted = atomic_load_explicit(&vp->deliverability, memory_order_relaxed), priority = (wanted >> 2) & 0xF;

    return wanted && (!priority || priority > tpr >> 4);
}

/* state_gpa.c: what a child has mapped, in order; fill at most `max`, return how many there are */
size_t hv_gpa_runs(const struct hv_partition *partition, struct hv_child_run *runs, size_t max);
/* save.c (TLFS 17): what is under way is dropped; structure lock held for writing, or no VP runs */
void hv_transfers_free(struct hv_partition *partition);

/* vmmu.c: the parent has allowed flushes of this VP's TLB again (TLFS 12.1.4): VPs that wait for it go on. */
void hv_tlb_flush_inhibit_cleared(struct hv_vp *vp);

/* Handlers, one per row of the tables; a handler may serve several rows and is then declared several times. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wredundant-decls"
#define HV_HYPERCALL_ROW(code, name, snake, kind, fast, generations, gate, relation, lock, in, in_el, out, out_el,     \
                         var, handler, section)                                                                        \
    hv_status hv_call_##snake(struct hv_call *call);
#include "tlfs/hypercalls.def"
#undef HV_HYPERCALL_ROW

#define HV_MSR_ROW(index, count, name, access, scope, gate, generations, read, write, section)                         \
    enum hv_exit hv_msr_read_##read(struct hv_vp *vp, uint32_t offset, uint64_t *value);                               \
    enum hv_exit hv_msr_write_##write(struct hv_vp *vp, uint32_t offset, uint64_t value);
#include "tlfs/msrs.def"
#undef HV_MSR_ROW
#pragma GCC diagnostic pop

#include "event_log.h"

#endif
