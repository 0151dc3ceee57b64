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

struct hv;
struct hv_vp;

struct hv_config {
    enum hv_generation generation;
    uint64_t privileges; /* HV_PARTITION_PRIVILEGE_MASK; bits outside the generation are ignored */
    uint32_t features; /* CPUID 0x40000003 EDX; likewise */
    uint32_t recommendations; /* CPUID 0x40000004 EAX; likewise */
    uint32_t spinlock_retries; /* CPUID 0x40000004 EBX; 0xFFFFFFFF: never notify */
    uint32_t vp_count; /* 1..HV_MAX_VPS */
    uint32_t gpa_bits; /* physical address width: the GPA space ends at 1 << gpa_bits */
    uint64_t tsc_frequency; /* Hz, as the guest reads its TSC */
    uint64_t apic_frequency; /* Hz */
    /* CPUID 0x40000002 */
    uint32_t build_number, service_pack, service_number;
    uint16_t major_version, minor_version;
    uint8_t service_branch;
};

/* Fill in what a partition with role=guest has by default in this generation; counts and frequencies are left 0. */
void hv_config_defaults(struct hv_config *config, enum hv_generation generation);

/*
 * Returns NULL and points *error to a sentence when the configuration is impossible or memory is short. `ops` and
 * `context` must stay valid until hv_destroy().
 */
struct hv *hv_create(const struct hv_config *config, const struct hv_platform_ops *ops, void *context,
                     const char **error);
void hv_destroy(struct hv *hv);
const struct hv_config *hv_get_config(const struct hv *hv);
struct hv_vp *hv_get_vp(struct hv *hv, hv_vp_index index); /* NULL when there is none */
hv_vp_index hv_vp_get_index(const struct hv_vp *vp);

/* Power-on reset of the machine: all guest-visible state but reference time and operator's ports goes. */
void hv_reset(struct hv *hv);

/* -- Chapter 3: discovery -- */

struct hv_cpuid {
    uint32_t eax, ebx, ecx, edx;
};
#define HV_CPUID_FIRST UINT32_C(0x40000000)
#define HV_CPUID_LAST UINT32_C(0x4000FFFF)
/* Any leaf in HV_CPUID_FIRST..HV_CPUID_LAST; those above the maximum answer 0. Any thread. */
void hv_cpuid(const struct hv *hv, uint32_t leaf, struct hv_cpuid *out);
/* Whether the guest asked for an invariant TSC (CPUID 0x80000007 EDX bit 8). Any thread. */
bool hv_tsc_is_invariant(const struct hv *hv);

/* -- Chapter 4: hypercalls -- */

enum hv_exit {
    HV_EXIT_DONE = 0, /* retired: advance the instruction pointer */
    HV_EXIT_RETRY, /* not retired: leave the instruction pointer, let interrupts in, run it again (TLFS 4.3) */
    HV_EXIT_IDLE, /* retired; then sleep until any interrupt is pending, whatever RFLAGS.IF says (TLFS 10.1.4) */
    HV_EXIT_UD, /* not retired: deliver #UD */
    HV_EXIT_GP, /* not retired: deliver #GP(0) */
    HV_EXIT_MC, /* not retired: deliver #MC (TLFS 11.8) */
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
hv_nano100_time hv_reference_time(struct hv *hv); /* any thread */

/* -- Chapter 14: the operator's ports and connections; any thread -- */

struct hv_port_info {
    enum hv_port_type type; /* message or event */
    uint32_t sint; /* 1..15 */
    hv_vp_index vp; /* or HV_ANY_VP */
    uint16_t base_flag, flag_count; /* event ports */
};
hv_status hv_operator_create_port(struct hv *hv, uint32_t port_id, const struct hv_port_info *info);
hv_status hv_operator_delete_port(struct hv *hv, uint32_t port_id);
hv_status hv_operator_connect_port(struct hv *hv, uint32_t connection_id, uint32_t port_id);
hv_status hv_operator_disconnect_port(struct hv *hv, uint32_t connection_id);
/* As HvPostMessage and HvSignalEvent, but addressed to a port and without a calling partition. */
hv_status hv_operator_post_message(struct hv *hv, uint32_t port_id, uint32_t type, const void *payload, size_t size);
hv_status hv_operator_signal_event(struct hv *hv, uint32_t port_id, uint16_t flag);
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
size_t hv_list_ports(struct hv *hv, struct hv_port_state *ports, size_t max);
size_t hv_list_connections(struct hv *hv, struct hv_connection_state *connections, size_t max);

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
void hv_get_partition_state(struct hv *hv, struct hv_partition_state *state);

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

/* Whether platform trace_hypercall() is called. Any thread. */
void hv_set_trace(struct hv *hv, bool on);

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
