/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the core offers to the platform that runs it.
 *
 * Threads: every function naming a VP is called on the thread that runs that VP, unless a comment says "any thread".
 * hv_create(), hv_destroy(), hv_reset(), hv_save() and hv_restore() are called while no VP runs.
 */
#ifndef HV_HYPERVISOR_H
#define HV_HYPERVISOR_H

#include "platform.h"

struct hv; /* the machine: logical processors, time base, partitions */
struct hv_partition;
struct hv_vp;

struct hv_config {
    enum hv_generation generation;
    bool root; /* the machine's partition is the root: it has a second stage and may create children (TLFS 22) */
    bool debugging; /* there is a connection to a debugger (TLFS 20.1) */
    bool intel; /* processor vendor (TLFS 5.2.7) */
    /* What the machine's processors have and children may see (TLFS 5.2.8 to 5.2.10), as the properties' values. */
    uint64_t processor_features, xsave_features, clflush_size;
    uint64_t privileges; /* HV_PARTITION_PRIVILEGE_MASK; bits outside the generation are ignored */
    uint32_t features; /* CPUID 0x40000003 EDX; likewise */
    uint32_t recommendations; /* CPUID 0x40000004 EAX; likewise */
    uint32_t spinlock_retries; /* CPUID 0x40000004 EBX; 0xFFFFFFFF: never notify */
    uint32_t vp_count; /* 1..HV_MAX_VPS, of the machine's partition; with `root` as many logical processors */
    uint32_t gpa_bits; /* physical address width: the GPA space ends at 1 << gpa_bits */
    uint32_t gpa_ranges_most; /* that the map of a child may consist of; 0: any number */
    uint64_t tsc_frequency; /* Hz, as the guest reads its TSC */
    bool fixed_cpuid; /* what CPUID answers cannot change while the guest runs */
    bool fewer_intercepts; /* the platform does not tell of a child's CPUID and exceptions */
    uint64_t apic_frequency; /* Hz */
    /* CPUID 0x40000002 */
    uint32_t build_number, service_pack, service_number;
    uint16_t major_version, minor_version;
    uint8_t service_branch;
};

/* Fill in what a partition with role=guest has by default in this generation; counts and frequencies are left 0. */
void hv_config_defaults(struct hv_config *config, enum hv_generation generation);
/* The same for role=root: all privileges that the text defines (TLFS 22.4). */
void hv_config_root_defaults(struct hv_config *config, enum hv_generation generation);

/*
 * Returns NULL and points *error to a sentence when the configuration is impossible or memory is short. `ops` and
 * `context` must stay valid until hv_destroy().
 */
struct hv *hv_create(const struct hv_config *config, const struct hv_platform_ops *ops, void *context,
                     const char **error);
void hv_destroy(struct hv *hv);
const struct hv_config *hv_get_config(const struct hv *hv);
struct hv_partition *hv_machine_partition(struct hv *hv);
/* Of the machine's partition, or of any (by handle); NULL when there is none. */
struct hv_vp *hv_get_vp(struct hv *hv, hv_vp_index index);
struct hv_vp *hv_get_vp_by_handle(struct hv *hv, hv_vp_handle handle);
hv_vp_index hv_vp_get_index(const struct hv_vp *vp);
hv_vp_handle hv_vp_get_handle(const struct hv_vp *vp);
bool hv_vp_is_child(const struct hv_vp *vp);
hv_partition_id hv_vp_get_partition_id(const struct hv_vp *vp); /* 0 when it is in none (any more) */

/* Power-on reset of the machine: all guest-visible state but reference time and operator's ports goes. */
void hv_reset(struct hv *hv);

/* -- Chapter 3: discovery -- */

struct hv_cpuid {
    uint32_t eax, ebx, ecx, edx;
};
#define HV_CPUID_FIRST UINT32_C(0x40000000)
#define HV_CPUID_LAST UINT32_C(0x4000FFFF)
/* Any leaf in HV_CPUID_FIRST..HV_CPUID_LAST; those above the maximum answer 0. Any thread. */
void hv_cpuid(const struct hv_partition *partition, uint32_t leaf, struct hv_cpuid *out);
/* Whether the guest asked for an invariant TSC (CPUID 0x80000007 EDX bit 8). Any thread. */
bool hv_tsc_is_invariant(const struct hv_partition *partition);

/* -- Chapter 4: hypercalls -- */

enum hv_exit {
    HV_EXIT_DONE = 0, /* retired: advance the instruction pointer */
    HV_EXIT_RETRY, /* not retired: leave the instruction pointer, let interrupts in, run it again (TLFS 4.3) */
    HV_EXIT_IDLE, /* retired; then sleep until any interrupt is pending, whatever RFLAGS.IF says (TLFS 10.1.4) */
    HV_EXIT_UD, /* not retired: deliver #UD */
    HV_EXIT_GP, /* not retired: deliver #GP(0) */
    HV_EXIT_MC, /* not retired: deliver #MC (TLFS 11.8) */
    HV_EXIT_INTERCEPT, /* not retired: the VP is suspended and its parent has a message; leave the guest */
    HV_EXIT_NATIVE, /* the processor's own behaviour applies */
};

struct hv_call_frame {
    uint64_t *gpr; /* the VP's 16 general registers in encoding order: RAX RCX RDX RBX RSP RBP RSI RDI R8..R15 */
    bool legal; /* protected mode and CPL 0 (TLFS 4.5) */
    bool long_mode; /* EFER.LMA and CS.L: the 64-bit register convention (TLFS 4.7) */
};

enum hv_exit hv_hypercall(struct hv_vp *vp, struct hv_call_frame *frame);

struct hv_hypercall_row_info {
    uint16_t code;
    const char *name, *section;
    uint8_t generations;
    bool rep, fast, xmm, variable, implemented;
    bool trailing; /* bytes that the header counts follow it */
    int gate; /* bit of the privilege mask, or -1 */
    uint16_t input, input_element, output, output_element; /* bytes */
};
extern const struct hv_hypercall_row_info hv_hypercall_rows[HV_HYPERCALL_ROWS];
const char *hv_status_name(unsigned status); /* "HV_STATUS_..." or NULL */

/* -- Synthetic MSRs -- */

#define HV_MSR_FIRST UINT32_C(0x40000000)
#define HV_MSR_LAST UINT32_C(0x40001FFF)
/* HV_EXIT_DONE, HV_EXIT_GP, and for a read HV_EXIT_IDLE. Any index; one that does not exist is HV_EXIT_GP. */
enum hv_exit hv_read_msr(struct hv_vp *vp, uint32_t index, uint64_t *value);
enum hv_exit hv_write_msr(struct hv_vp *vp, uint32_t index, uint64_t value);

struct hv_msr_row_info {
    uint32_t index;
    uint16_t count;
    const char *name, *section;
    bool readable, writable, per_vp, implemented;
    uint8_t generations;
    int privilege, feature; /* bit of the gate, or -1 */
};
extern const struct hv_msr_row_info hv_msr_rows[HV_MSR_ROWS];

/* -- Chapter 13: the local APIC tells the core -- */

enum hv_acceptance {
    HV_ACCEPT_NORMAL = 0, /* the vector is in service until an EOI */
    HV_ACCEPT_AUTO_EOI, /* end it at once (TLFS 14.6.5) */
};
/*
 * The VP accepts `vector`. Called with the vector in service, and with `quiet` true when it is edge-triggered and no
 * other interrupt is requested: then the assist page may say that no EOI is required (TLFS 13.3.4.1), which the APIC
 * must ask about with the two functions below before it looks at or changes its state.
 */
enum hv_acceptance hv_interrupt_accepted(struct hv_vp *vp, uint8_t vector, bool quiet);
/* The vector the guest ended through the assist page since the last call, or -1. Under the APIC's lock, any thread. */
int hv_apic_assist_collect(struct hv_vp *vp);
/*
 * Withdraw "no EOI required". Returns as hv_apic_assist_collect(). Under the APIC's lock, on the thread of the VP: the
 * guest need not use a locked instruction to find out (TLFS 13.3.4.1).
 */
int hv_apic_assist_revoke(struct hv_vp *vp);
/*
 * The VP ended `vector` by an EOI: queued messages may be delivered now (TLFS 14.2.4). Any thread. Not needed for one
 * that it ended through the assist page, which it is not offered while messages wait.
 */
void hv_interrupt_ended(struct hv_vp *vp, uint8_t vector);

/* -- Chapter 15: timers -- */

void hv_timer_expired(struct hv_vp *vp, unsigned timer); /* any thread */
hv_nano100_time hv_reference_time(struct hv_partition *partition); /* any thread */
/*
 * What the processors of the machine's partition read by RDTSC is `ahead` of what the platform's read_tsc() tells: for
 * a platform that cannot stop them while the machine is stopped. Called while no VP runs.
 */
void hv_set_tsc_ahead(struct hv *hv, int64_t ahead);

/* -- Chapter 14: the operator's ports and connections; any thread -- */

struct hv_port_info {
    enum hv_port_type type; /* the operator's: message or event */
    uint32_t sint; /* 1..15 */
    hv_vp_index vp; /* or HV_ANY_VP */
    uint16_t base_flag, flag_count; /* event ports */
    hv_gpa monitor_gpa; /* monitor ports: where their page is shown to the partition */
};
hv_status hv_operator_create_port(struct hv_partition *partition, uint32_t port_id, const struct hv_port_info *info);
hv_status hv_operator_delete_port(struct hv_partition *partition, uint32_t port_id);
hv_status hv_operator_connect_port(struct hv_partition *partition, uint32_t connection_id, uint32_t port_id);
hv_status hv_operator_disconnect_port(struct hv_partition *partition, uint32_t connection_id);
/* As HvPostMessage and HvSignalEvent, but addressed to a port and without a calling partition. */
hv_status hv_operator_post_message(struct hv_partition *partition, uint32_t port_id, uint32_t type, const void *payload,
                                   size_t size);
hv_status hv_operator_signal_event(struct hv_partition *partition, uint32_t port_id, uint16_t flag);
struct hv_port_state {
    uint32_t port_id;
    struct hv_port_info info;
    uint64_t post_count;
    unsigned queued; /* messages waiting for a slot */
};
struct hv_connection_state {
    uint32_t connection_id, port_id;
};
/* Fill at most `max` entries, return how many exist. */
size_t hv_list_ports(struct hv_partition *partition, struct hv_port_state *ports, size_t max);
size_t hv_list_connections(struct hv_partition *partition, struct hv_connection_state *connections, size_t max);

/* -- Chapter 8: the second stage. On the VP's thread; takes no lock. -- */

enum hv_translation_kind {
    HV_TRANSLATION_RAM, /* `spa` in the machine's memory */
    HV_TRANSLATION_OVERLAY, /* `page`, made by allocate_pages() */
    HV_TRANSLATION_APIC, /* the xAPIC page of a child: hv_lapic_read(), hv_lapic_write() */
    HV_TRANSLATION_UNMAPPED, /* nothing there (a child: intercept; the root: straight to the machine's bus) */
    HV_TRANSLATION_DENIED, /* a right is missing (a child: intercept; the root: #MC) */
    HV_TRANSLATION_FAULT, /* #GP: a write to the hypercall page (TLFS 4.12) */
    HV_TRANSLATION_CHECK, /* #MC: a write to a statistics page (TLFS 21.1.2) */
};
struct hv_translation {
    enum hv_translation_kind kind;
    unsigned rights; /* HV_ACCESS_* that hold for the page, for the kinds that succeed */
    uint64_t spa; /* of the page */
    uint8_t *page;
    uint64_t size; /* bytes, a power of two: the aligned range around it that is mapped alike */
};
/* Translate a GPA of the VP's partition for `access` (HV_ACCESS_*). */
void hv_translate_gpa(struct hv_vp *vp, hv_gpa gpa, unsigned access, struct hv_translation *out);

/*
 * A number that changes when something has changed in the space of the VP's partition or of those above it: for a
 * platform that keeps a copy. A change is there before the number is, and the number before flush_second_stage() is
 * called for it. Any thread; the VP is in a partition.
 */
uint64_t hv_gpa_changes(const struct hv_vp *vp);

struct hv_gpa_space_state {
    uint64_t bytes; /* of the host's memory that it costs */
    uint64_t mapped_pages; /* of a child: with memory of its parent behind them */
};
/* Of a partition's map, zeros when it has none; false: there is no such partition. Any thread. */
bool hv_get_gpa_space_state(struct hv *hv, hv_partition_id id, struct hv_gpa_space_state *state);

/* -- Chapter 9: what a child's processor tells. On the VP's thread, registers as at the start of the instruction. -- */

struct hv_io_access {
    uint16_t port;
    uint8_t size; /* 1, 2, 4 */
    bool write, string, rep;
    uint8_t instruction_length; /* 0: not known (string forms) */
    uint32_t value; /* out for a write; filled in for a read that ends with HV_EXIT_DONE */
};
enum hv_exit hv_io(struct hv_vp *vp, struct hv_io_access *io);
/* `result` comes with what the machine would answer; HV_EXIT_DONE: with what the child sees (TLFS 11.11, appendix D).
 */
/* Of a root VP too, which has no intercepts: what the hypervisor hides from it. */
enum hv_exit hv_child_cpuid(struct hv_vp *vp, uint32_t leaf, uint32_t subleaf, uint8_t instruction_length,
                            struct hv_cpuid *result);
/*
 * Every MSR of a child, and those of the root that are not synthetic (TLFS 11.10, appendices F, G). HV_EXIT_NATIVE: the
 * processor keeps this one.
 */
enum hv_exit hv_child_rdmsr(struct hv_vp *vp, uint32_t index, uint8_t instruction_length, uint64_t *value);
enum hv_exit hv_child_wrmsr(struct hv_vp *vp, uint32_t index, uint8_t instruction_length, uint64_t value);
/* What RDTSC of a VP reads (TLFS 11.7). On its thread or its owner's. */
uint64_t hv_vp_read_tsc(const struct hv_vp *vp);
uint64_t hv_vp_tsc_offset(const struct hv_vp *vp); /* what it is ahead of the platform's read_tsc() */
void hv_vp_write_tsc(struct hv_vp *vp, uint64_t tsc); /* from now on; on the VP's thread, or its owner's */
struct hv_exception {
    uint8_t vector;
    bool error_code_valid;
    uint32_t error_code;
    uint64_t parameter; /* #PF: linear address; #DB: DR6 */
};
uint32_t hv_exception_intercepts(const struct hv_vp *vp); /* bit n: vector n is intercepted */
/* HV_EXIT_NATIVE: deliver it. Not for INT n, INTO, INT3, ICEBP; before double faults are made of two (TLFS 11.12). */
enum hv_exit hv_exception(struct hv_vp *vp, const struct hv_exception *exception);
struct hv_memory_access {
    uint64_t gva;
    bool gva_valid; /* false: an access to a page table, or of the hypervisor */
    hv_gpa gpa;
    unsigned access; /* one of HV_ACCESS_* */
    bool unmapped; /* else a right is missing */
    bool interruption_pending; /* it happened while an event was being delivered, which register state tells */
};
enum hv_exit hv_memory_intercept(struct hv_vp *vp, const struct hv_memory_access *access);
enum hv_exit hv_triple_fault(struct hv_vp *vp);
enum hv_exit hv_invalid_vp_state(struct hv_vp *vp);
#define HV_UNSUPPORTED_INTERCEPT 1
#define HV_UNSUPPORTED_TASK_SWITCH 2
enum hv_exit hv_unsupported_feature(struct hv_vp *vp, uint32_t code, uint64_t parameter);
/* An unmasked floating-point error with CR0.NE and IGNNE# clear, behind the instruction that made it (TLFS 16.5.6). */
enum hv_exit hv_ferr_asserted(struct hv_vp *vp);

/* -- Chapter 13: the local APIC of a child VP -- */

/* The vector to deliver now, moved into service; -1 when there is none. On the VP's thread. */
int hv_child_interrupt(struct hv_vp *vp);
uint32_t hv_lapic_read(struct hv_vp *vp, uint32_t offset);
void hv_lapic_write(struct hv_vp *vp, uint32_t offset, uint32_t value);
uint8_t hv_lapic_read_cr8(struct hv_vp *vp);
void hv_lapic_write_cr8(struct hv_vp *vp, uint8_t value);
void hv_vp_init_done(struct hv_vp *vp); /* the VP's processor has taken INIT */

/* -- Chapter 18: the scheduler. On the LP's thread. -- */

/*
 * The VP the LP runs next, or NULL when none is ready. `slice` is the TSC (that of hv_create()'s machine) at which the
 * LP is to call again, HV_NANO100_NEVER for no limit; with NULL it is when a VP that has used up its cap may run
 * again, so a timer is to be set for it then too. From here to hv_stopped(), or to the next call, the LP owns the VP,
 * and a kick_vp() or kick_lp() in between must make it come back even when the guest has not been entered yet.
 * `interrupted`: the machine has an interrupt for the LP's root VP, which is to go first.
 */
struct hv_vp *hv_schedule(struct hv *hv, unsigned lp, bool interrupted, uint64_t *slice);
/* The VP left the guest, and the LP does not choose again at once: the VP is not owned by the LP any more. */
void hv_stopped(struct hv_vp *vp);
/*
 * Something came for a VP: an interrupt, an NMI, INIT, SIPI, the end of a debugger's stop. It has to be told for a
 * child whenever platform vp_waits() turns false, and for any VP that may run it preempts what the LP runs. Any thread.
 */
void hv_vp_wake(struct hv_vp *vp);
/* Whether the LP has anything to run: what an idle LP's thread asks before it sleeps. Any thread. */
bool hv_lp_has_work(struct hv *hv, unsigned lp);
/* Time the VP has spent running, in 100 ns, as the scheduler counts it; with a root only. Any thread. */
uint64_t hv_vp_run_time(struct hv_vp *vp);
unsigned hv_vp_get_lp(const struct hv_vp *vp);

/*
 * -- Chapter 20: the connection to the debugger, with hv_config.debugging. One thread at a time; no core lock held. --
 */

/* Take at most `size` bytes that guests have posted; returns how many. `size` is more than 4. */
size_t hv_debug_take(struct hv *hv, uint8_t *buffer, size_t size);
/* Bytes that came from the debugger. More than there is room for are lost. */
void hv_debug_receive(struct hv *hv, const uint8_t *data, size_t size);
/* How many bytes can come without any being lost for want of a reader. Any thread. */
size_t hv_debug_room(struct hv *hv);
/* The connection was made anew: what comes is the beginning of a frame. */
void hv_debug_connected(struct hv *hv);

/* -- Chapter 23: the profiler, which the root configures and an event log starts and stops. Any core lock. -- */

/* False: the root has configured none. */
bool hv_profiler_start(struct hv *hv);
void hv_profiler_stop(struct hv *hv);
/* Samples taken on an LP since the machine was made; any thread. */
uint64_t hv_profiler_get_samples(const struct hv *hv, unsigned lp);

/* -- Fault injection (docs/fault-injection.md); any thread, no core lock held -- */

enum hv_inject_point {
    HV_INJECT_HYPERCALL,
    HV_INJECT_MSR_READ,
    HV_INJECT_MSR_WRITE,
    HV_INJECT_MESSAGE, /* that the partition is to get */
    HV_INJECT_EVENT, /* likewise */
    HV_INJECT_TIMER,
    HV_INJECT_POINTS
};
enum hv_inject_action {
    HV_INJECT_NOTHING, /* no rule's */
    HV_INJECT_STATUS,
    HV_INJECT_GP,
    HV_INJECT_UD,
    HV_INJECT_DELAY,
    HV_INJECT_DROP,
    HV_INJECT_DOUBLE,
    HV_INJECT_REORDER,
};
enum hv_inject_when {
    HV_INJECT_ALWAYS,
    HV_INJECT_NTH, /* only the one with this number, of those that the rule matches */
    HV_INJECT_EVERY, /* those whose number is a multiple */
    HV_INJECT_FRACTION, /* by chance */
};
#define HV_INJECT_ANY UINT64_MAX
#define HV_INJECT_ID_SIZE 64

struct hv_inject_rule {
    char id[HV_INJECT_ID_SIZE]; /* terminated */
    enum hv_inject_point point;
    enum hv_inject_action action;
    uint64_t target; /* call code, index of an MSR, message type, number of a flag or timer; or HV_INJECT_ANY */
    hv_partition_id partition;
    hv_vp_index vp; /* or HV_ANY_VP */
    enum hv_inject_when when;
    uint64_t number; /* HV_INJECT_NTH, HV_INJECT_EVERY */
    double fraction; /* HV_INJECT_FRACTION: above 0, at most 1 */
    uint64_t seed;
    uint64_t limit; /* act at most so often; 0: no limit */
    uint16_t status; /* HV_INJECT_STATUS */
    uint32_t delay_us; /* HV_INJECT_DELAY, _DOUBLE, and at most with _REORDER */
};
struct hv_injection_state {
    struct hv_inject_rule rule;
    bool orphaned; /* its partition is gone */
    uint64_t matched, injected, skipped;
};
/* NULL: the rule holds from now on. Else a sentence that says why not. */
const char *hv_inject_add(struct hv *hv, const struct hv_inject_rule *rule);
/* NULL: all rules. False: there is none with this ID. What was held back still happens. */
bool hv_inject_remove(struct hv *hv, const char *id);
/* In the order in which they are looked at. Fill at most `max` entries, return how many exist. */
size_t hv_list_injections(struct hv *hv, struct hv_injection_state *states, size_t max);

/* -- Looking at it; any thread; a snapshot, not atomic with a running guest -- */

struct hv_partition_state {
    hv_partition_id id;
    uint64_t guest_os_id, hypercall_msr, reference_tsc_msr, crash_control;
    uint64_t crash_parameters[5];
    uint64_t reference_time; /* 100 ns */
    uint64_t tsc_scale;
    int64_t tsc_offset;
    uint32_t tsc_sequence;
    uint64_t privileges;
    uint32_t features, recommendations;
    bool tsc_page_enabled, hypercall_page_enabled;
};
void hv_get_partition_state(struct hv_partition *partition, struct hv_partition_state *state);
/* By ID; false: there is none. */
bool hv_get_partition_state_of(struct hv *hv, hv_partition_id id, struct hv_partition_state *state);

/* TLFS 5.2.5 */
enum hv_partition_run_state {
    HV_PARTITION_UNINITIALIZED, /* between HvCreatePartition and HvInitializePartition */
    HV_PARTITION_ACTIVE,
    HV_PARTITION_FINALIZING, /* its VPs are being stopped */
    HV_PARTITION_FINALIZED,
};

struct hv_partition_info {
    hv_partition_id id, parent; /* parent 0: the machine's own */
    unsigned depth;
    char name[64]; /* what the operator's policy calls it; may be empty */
    enum hv_partition_run_state state;
    uint32_t vp_count;
    uint64_t privileges;
    uint64_t pages_available, pages_in_use; /* of its memory pool (TLFS 7.3.3) */
    uint64_t mapped_pages; /* of a child: with memory of its parent behind them */
    uint64_t page_limit; /* how many it may have of them, by the operator's policy; or HV_PAGES_UNLIMITED */
    bool paused; /* by the operator */
};
/* The tree, a parent before its children. Fill at most `max` entries, return how many exist. */
size_t hv_list_partitions(struct hv *hv, struct hv_partition_info *partitions, size_t max);
/*
 * Delete a child with everything that is attached to it, its descendants included, whatever their state; their pages go
 * back to who deposited them. WAIT: its VPs are being stopped, ask again. FAILED: there is no such child. Any thread.
 */
enum hv_progress hv_operator_delete_partition(struct hv *hv, hv_partition_id id);
/* Stop or let go on the VPs of a child; its parent does not see it. False: there is no such child. */
bool hv_operator_pause_partition(struct hv *hv, hv_partition_id id, bool pause);
struct hv_register_entry {
    const char *name;
    unsigned size; /* 8 or 16 bytes */
    union hv_register_value value;
};
/* All registers of a child's VP; `count`: in: room, out: entries. WAIT: it is being stopped. FAILED: no such VP. */
enum hv_progress hv_operator_read_registers(struct hv *hv, hv_partition_id id, hv_vp_index index,
                                            struct hv_register_entry *entries, size_t *count);
/* Request a fixed, edge-triggered interrupt. False: no such VP. The machine's own lock may be taken. */
bool hv_operator_interrupt(struct hv *hv, hv_partition_id id, hv_vp_index index, uint8_t vector);
/* Memory as a partition's VPs see it; `size`: in: bytes wanted, out: bytes read. False: no such partition. */
bool hv_operator_read_memory(struct hv *hv, hv_partition_id id, hv_gpa gpa, void *buffer, size_t *size);

struct hv_timer_state {
    uint64_t config, count;
    hv_nano100_time due; /* HV_NANO100_NEVER when not armed */
    bool message_pending;
    uint64_t expirations;
};
struct hv_vp_state {
    uint64_t apic_assist_page, scontrol, siefp, simp;
    uint64_t sint[HV_SYNIC_SINT_COUNT];
    unsigned queued[HV_SYNIC_SINT_COUNT]; /* messages waiting for a slot */
    struct hv_timer_state timers[HV_SYNTHETIC_TIMER_COUNT];
    uint64_t run_time; /* 100 ns */
    uint64_t hypercalls[HV_HYPERCALL_ROWS];
    uint64_t unknown_hypercalls;
    uint64_t msr_reads[HV_MSR_ROWS], msr_writes[HV_MSR_ROWS];
    uint64_t unknown_msrs;
    uint64_t messages_delivered, events_signaled, interrupts_requested, auto_eois, assisted_eois;
};
void hv_get_vp_state(struct hv_vp *vp, struct hv_vp_state *state);

/* -- Chapter 21: statistics -- */

/*
 * Events that the platform sees and the core does not (stats_counters.def, PLATFORM): an index of group VPV. On the
 * VP's thread; `shared` on any. What begin answers is for end, which follows when the event has been dealt with.
 */
void hv_count(struct hv_vp *vp, enum hv_stats_index counter);
void hv_count_shared(struct hv_vp *vp, enum hv_stats_index counter);
uint64_t hv_count_begin(struct hv_vp *vp, enum hv_stats_index counter);
void hv_count_end(struct hv_vp *vp, enum hv_stats_index counter, uint64_t began);

enum hv_stats_kind { HV_STATS_LEVEL, HV_STATS_COUNT, HV_STATS_TIME, HV_STATS_COST, HV_STATS_PERCENT };
enum hv_stats_by { HV_STATS_BY_CORE, HV_STATS_BY_PLATFORM, HV_STATS_BY_NEVER };
struct hv_stats_row_info {
    const char *group, *symbol, *name, *unit, *what;
    enum hv_stats_object_type object;
    uint8_t index, generations;
    enum hv_stats_kind kind;
    enum hv_stats_by by;
};
extern const struct hv_stats_row_info hv_stats_rows[HV_STATS_ROWS];
struct hv_stats_group_info {
    const char *group, *name, *section;
    enum hv_stats_object_type object;
    uint16_t id;
};
#define HV_STATS_GROUPS 6
extern const struct hv_stats_group_info hv_stats_groups[HV_STATS_GROUPS];

struct hv_stats_view {
    enum hv_stats_object_type object;
    hv_partition_id partition; /* of a partition or a VP */
    uint32_t index; /* of an LP or a VP */
    const char *partition_name; /* what the operator calls it; "" for none. Not of the others. */
    uint64_t values[HV_STATS_ROWS]; /* by row; those of other objects and generations are 0 */
    const uint64_t *hypercalls; /* of a VP, by row of hv_hypercall_rows */
};
/*
 * Call `visit` for each object: the hypervisor, LPs, and partitions, a parent before its children, each followed by
 * its VPs. Any thread. The structure lock is held: the function must not call back.
 */
void hv_visit_stats(struct hv *hv, void (*visit)(void *opaque, const struct hv_stats_view *view), void *opaque);

/* Whether platform trace_hypercall() is called. Any thread. */
void hv_set_trace(struct hv *hv, bool on);

/* -- The operator's event log: without the guest's help, with role=guest too; any thread, one at a time -- */

/* Groups and events are those of tlfs/event_log_entries.def. */
struct hv_events_options {
    uint64_t groups; /* mask */
    uint64_t size; /* bytes kept for each LP until they are read: rounded up to a power of two */
    hv_partition_id partition; /* only what is this partition's; HV_PARTITION_ID_INVALID: everything */
};
#define HV_EVENTS_SIZE_LEAST UINT64_C(4096)
#define HV_EVENTS_SIZE_MOST (UINT64_C(1) << 30)

/* How an event is read: this, and its values. */
struct hv_event_entry {
    uint16_t type, size; /* bytes, this included: a multiple of 8 */
    uint32_t vp; /* index, or HV_ANY_VP */
    uint64_t tsc; /* of the machine; ticks at its TSC frequency */
    uint32_t lp; /* logical processor, without a root the VP; or HV_ANY_VP: another thread of the machine */
    uint32_t partition; /* the low half of its ID; 0: nobody's */
};
_Static_assert(sizeof(struct hv_event_entry) == 24, "it is a format that tools read");

/*
 * Start to log, or go on with other options: what has not been read is dropped. WAIT: an event is being recorded just
 * now, ask again. FAILED: the host's memory is short; then nothing is logged.
 */
enum hv_progress hv_events_start(struct hv *hv, const struct hv_events_options *options);
void hv_events_stop(struct hv *hv); /* what has been recorded can still be read */
/*
 * Take out what has been recorded, each LP's events in their order. Returns the bytes written to `buffer`, whole
 * entries. Where events were lost because nobody read in time, there is an event LOST with their number.
 */
size_t hv_events_read(struct hv *hv, void *buffer, size_t size);
struct hv_events_state {
    bool running;
    struct hv_events_options options;
    uint64_t recorded, lost; /* events since it was started */
    uint64_t unread; /* bytes */
};
void hv_events_get_state(struct hv *hv, struct hv_events_state *state);

/*
 * -- A child of the root as a whole, with all that its parent gave it but the contents of pages (save_child.c). Called
 * while no VP runs, but for hv_child_is_settled(). --
 */

/*
 * Whether a child that the operator has paused stands still, and its parent owes it no answer to an intercept: then it
 * can be saved. WAIT: not yet. FAILED: there is no such child of the root, or *error tells why it can never be saved.
 */
enum hv_progress hv_child_is_settled(struct hv *hv, hv_partition_id id, const char **error);
/* Its state; to be freed. NULL: there is no such child, or no memory. */
uint8_t *hv_save_child(struct hv *hv, hv_partition_id id, size_t *size);
struct hv_child_run {
    uint64_t gpa_page, parent_page; /* page numbers: in the child, and of the machine's memory behind it */
    uint64_t pages;
};
/* What it has mapped, in the order of its GPAs. Fill at most `max` entries, return how many exist. */
size_t hv_list_child_runs(struct hv *hv, hv_partition_id id, struct hv_child_run *runs, size_t max);
/* The ID of the child in a stream; HV_PARTITION_ID_INVALID when it cannot be restored here. Any thread. */
hv_partition_id hv_saved_child_id(struct hv *hv, const uint8_t *stream, size_t size);
/*
 * Make a child that has `pages` mapped from its state, paused; *id becomes its ID. One that has this ID is replaced. On
 * failure returns false, points *error to a sentence, and everything is as before.
 */
bool hv_restore_child(struct hv *hv, const uint8_t *stream, size_t size, uint64_t pages, hv_partition_id *id,
                      const char **error);

/* -- State of the whole machine, for reset, snapshots and migration -- */

/* Bytes hv_save() writes at most. */
size_t hv_save_size(const struct hv *hv);
/* Write a versioned stream; returns its length. */
size_t hv_save(struct hv *hv, uint8_t *buffer, size_t size);
/*
 * Take over a stream saved by hv_save(). On failure returns false, points *error to a sentence, and the state is that
 * of a reset. The saved machine's TSC frequency comes with the stream: afterwards hv_get_config() tells it, and the
 * platform's TSC must tick at it and go on from the value it had when the stream was saved; then reference time is
 * continuous. Timers are set anew, so read_tsc() must already answer for the restored machine.
 */
bool hv_restore(struct hv *hv, const uint8_t *buffer, size_t size, const char **error);

#endif
