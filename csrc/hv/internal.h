/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * State of the core, and what its chapters offer to each other. Nothing outside csrc/hv includes this.
 */
#ifndef HV_INTERNAL_H
#define HV_INTERNAL_H

#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L /* reader-writer locks */
#endif

#include <stdatomic.h>

#include "hypervisor.h"
#include "locking.h"

#define HV_CALL_CODES 0x120u /* call codes below this are looked up in a table */
#define HV_MSR_CODES 0x120u /* so are MSR indices relative to HV_MSR_FIRST */
#define HV_NO_ROW 0xFF

/* Elements of a rep hypercall done before it yields: far less than 50 us of work (TLFS 4.3). */
#define HV_REP_BUDGET 64

struct hv_call;
typedef hv_status (*hv_call_handler)(struct hv_call *call);
typedef enum hv_exit (*hv_msr_read_handler)(struct hv_vp *vp, uint32_t offset, uint64_t *value);
typedef enum hv_exit (*hv_msr_write_handler)(struct hv_vp *vp, uint32_t offset, uint64_t value);

/* A hypercall on its way: what the dispatcher hands to a handler, checked (TLFS chapter 4). */
struct hv_call {
    struct hv_vp *vp;
    const void *input; /* header; padding may hold anything */
    const uint64_t *variable; /* variable header of `variable_count` qwords */
    unsigned variable_count;
    const void *elements; /* list of all input elements */
    void *output; /* header, zeroed */
    unsigned rep_count, rep_start; /* a handler starts at rep_start... */
    unsigned reps_done; /* ...and counts here, absolute */
};

/* Interrupts of one VP, collected under its lock, requested after it is dropped. */
struct hv_interrupts {
    uint64_t vectors[4];
};

/* -- Messages (TLFS 14.2) -- */

struct hv_message_buffer {
    struct hv_message_buffer *next; /* in its queue; VP's lock */
    atomic_bool in_use;
    struct hv_vp *vp; /* whose queue it is in */
    uint8_t sint;
    int8_t timer; /* index of the timer it belongs to, or -1 */
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
    uint32_t id;
    struct hv_port_info info;
    atomic_uint_fast64_t post_count;
    struct hv_message_buffer *buffers; /* HV_PORT_MESSAGE_BUFFERS, or NULL for an event port */
};

struct hv_connection {
    struct hv_connection *next;
    uint32_t id;
    uint32_t port_id;
    struct hv_port *port; /* NULL once the port has been deleted */
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
    uint64_t expirations;
    struct hv_message_buffer buffer;
};

/* Fields of a SINT register (TLFS 14.6.5). */
#define HV_SINT_VECTOR(sint) ((uint8_t)(sint))
#define HV_SINT_MASKED (UINT64_C(1) << 16)
#define HV_SINT_AUTO_EOI (UINT64_C(1) << 17)

/* Enable bit and page address of the overlay page registers. */
#define HV_PAGE_MSR_ENABLE UINT64_C(1)

struct hv_vp {
    /* Page-sized overlays first: their alignment is the structure's. */
    _Alignas(HV_PAGE_SIZE) uint8_t sim_page[HV_PAGE_SIZE];
    uint8_t sief_page[HV_PAGE_SIZE];
    uint8_t apic_assist_page[HV_PAGE_SIZE];
    uint8_t input_page[HV_PAGE_SIZE]; /* scratch of the VP's own thread */
    uint8_t output_page[HV_PAGE_SIZE];

    struct hv *hv;
    hv_vp_index index;
    struct hv_vp_lock lock;

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

    /* Counters: of the VP's thread, or under the lock where other threads count. */
    uint64_t hypercalls[HV_HYPERCALL_ROWS];
    uint64_t unknown_hypercalls;
    uint64_t msr_reads[HV_MSR_ROWS], msr_writes[HV_MSR_ROWS];
    uint64_t unknown_msrs;
    atomic_uint_fast64_t messages_delivered, events_signaled, interrupts_requested;
    uint64_t auto_eois, assisted_eois;
};

struct hv {
    _Alignas(HV_PAGE_SIZE) uint8_t hypercall_page[HV_PAGE_SIZE];
    union {
        struct hv_reference_tsc_page reference_tsc_page;
        uint8_t reference_tsc_bytes[HV_PAGE_SIZE];
    };

    /* Dispatch: made from the tables and the configuration at creation. */
    uint8_t call_row[HV_CALL_CODES];
    uint64_t call_reserved[HV_HYPERCALL_ROWS]; /* bits of the input value that must be zero */
    bool call_denied[HV_HYPERCALL_ROWS]; /* the partition lacks the privilege */
    uint8_t msr_row[HV_MSR_CODES];
    hv_msr_read_handler msr_read[HV_MSR_CODES]; /* NULL: #GP */
    hv_msr_write_handler msr_write[HV_MSR_CODES];

    const struct hv_platform_ops *ops;
    void *context;
    struct hv_config config;
    uint64_t gpa_limit; /* first GPA beyond the GPA space */
    struct hv_vp **vps;
    struct hv_vp_set all_vps;
    unsigned vp_banks; /* banks of a VP set that can hold a VP of this partition */
    atomic_bool trace;

    /* Partition-wide registers; written by any VP, the last writer wins. */
    struct hv_vp_lock partition_lock; /* leaf lock, as a VP's: serializes writers of the next lines */
    _Atomic uint64_t guest_os_id, hypercall_msr, reference_tsc_msr, crash_control;
    _Atomic uint64_t crash_parameters[5];
    _Atomic uint64_t tsc_invariant_control;
    uint64_t tsc_scale; /* reference time = ((tsc * scale) >> 64) + offset (TLFS 15.4.3) */
    int64_t tsc_offset;
    uint32_t tsc_sequence;

    struct hv_port_lock port_lock;
    struct hv_port *ports[HV_PORT_BUCKETS];
    struct hv_connection *connections[HV_PORT_BUCKETS];
    size_t port_count, connection_count;
};

#define HV_PARTITION_ID_GUEST UINT64_C(1)

static inline bool hv_has_privilege(const struct hv *hv, enum hv_privilege privilege)
{
    return (hv->config.privileges >> privilege) & 1;
}

static inline bool hv_has_feature(const struct hv *hv, enum hv_feature feature)
{
    return (hv->config.features >> feature) & 1;
}

/* partition.c, hypercall.c, msr.c */
void hv_hypercall_init(struct hv *hv);
void hv_msr_init(struct hv *hv);
/* Show or hide an overlay as the value of its register says; a page beyond the GPA space is shown nowhere. */
void hv_show_overlay(struct hv *hv, enum hv_overlay_kind kind, hv_vp_index vp, void *page, uint64_t msr,
                     enum hv_overlay_access access);
void hv_show_all_overlays(struct hv *hv);

/* interrupt.c */
static inline void hv_interrupts_add(struct hv_interrupts *interrupts, uint8_t vector)
{
    interrupts->vectors[vector / 64] |= UINT64_C(1) << (vector % 64);
}
/* Request what was collected; no lock held. */
void hv_interrupts_request(struct hv_vp *vp, const struct hv_interrupts *interrupts);
void hv_interrupt_update_auto_eoi(struct hv_vp *vp);

/* synic.c */
void hv_synic_reset(struct hv_vp *vp);
/* Queue a buffer that is marked in use and deliver what can be; the VP's lock is held. */
void hv_message_enqueue(struct hv_vp *vp, struct hv_message_buffer *buffer, struct hv_interrupts *interrupts);
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
bool hv_sint_masked(struct hv_vp *vp, unsigned sint);

/* timer.c */
void hv_timer_reset(struct hv_vp *vp);
void hv_timer_message_delivered(struct hv_vp *vp, unsigned timer, struct hv_interrupts *interrupts); /* lock held */
/* The SynIC has been enabled: signal what could not be (lock held). */
void hv_timer_signal_blocked(struct hv_vp *vp, struct hv_interrupts *interrupts);
void hv_timer_set_all(struct hv_vp *vp); /* after a restore */
void hv_time_init(struct hv *hv);
void hv_publish_reference_tsc(struct hv *hv);
static inline hv_nano100_time hv_time_from_tsc(const struct hv *hv, uint64_t tsc)
{
    return (uint64_t)(((unsigned __int128)tsc * hv->tsc_scale) >> 64) + (uint64_t)hv->tsc_offset;
}
static inline hv_nano100_time hv_time_now(const struct hv_vp *vp)
{
    return hv_time_from_tsc(vp->hv, vp->hv->ops->read_tsc(vp->hv->context, vp->index));
}
/* First TSC value at which reference time is `time` or later; HV_NANO100_NEVER when there is none. */
uint64_t hv_tsc_at_time(const struct hv *hv, hv_nano100_time time);

/* port.c */
struct hv_port *hv_find_port(struct hv *hv, uint32_t id);
struct hv_connection *hv_find_connection(struct hv *hv, uint32_t id);
void hv_ports_free(struct hv *hv);
void hv_ports_reset(struct hv *hv); /* queued messages go, the operator's ports stay */

/* vp.c */
void hv_vp_reset(struct hv_vp *vp);
#define HV_VP_SET_SPARSE 0
#define HV_VP_SET_ALL 1
/* Read a VP set from a call's fields and variable header; VPs that do not exist are left out. */
hv_status hv_read_vp_set(const struct hv_call *call, uint64_t format, uint64_t bank_mask, struct hv_vp_set *set);
void hv_keep_existing_vps(const struct hv *hv, struct hv_vp_set *set);

/* Handlers, one per row of the tables; a handler may serve several rows and is then declared several times. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wredundant-decls"
#define HV_HYPERCALL_ROW(code, name, snake, kind, fast, generations, gate, relation, in, in_el, out, out_el, var,      \
                         handler, section)                                                                             \
    hv_status hv_call_##snake(struct hv_call *call);
#include "tlfs/hypercalls.def"
#undef HV_HYPERCALL_ROW

#define HV_MSR_ROW(index, count, name, access, scope, gate, generations, read, write, section)                         \
    enum hv_exit hv_msr_read_##read(struct hv_vp *vp, uint32_t offset, uint64_t *value);                               \
    enum hv_exit hv_msr_write_##write(struct hv_vp *vp, uint32_t offset, uint64_t value);
#include "tlfs/msrs.def"
#undef HV_MSR_ROW
#pragma GCC diagnostic pop

#endif
