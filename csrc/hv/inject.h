/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fault injection (inject.c), as the places see it where rules may act.
 */
#ifndef HV_INJECT_H
#define HV_INJECT_H

#include "internal.h"

/* Whether any rule is for this point: the only cost while there is none. */
#define HV_INJECTING(hv, point) HV_ATTENTION(hv, HV_ATTENTION_RULES(point))

/* What a rule wants. */
struct hv_injected {
    enum hv_inject_action action;
    hv_status status;
    uint64_t delay; /* TSC ticks */
    char id[HV_INJECT_ID_SIZE];
};
/* Ask the rules about something of `vp`'s, and count it. False: none acts. Any core lock but rules' may be held. */
bool hv_inject(struct hv_vp *vp, enum hv_inject_point point, uint64_t target, struct hv_injected *injected);

/* An access to a register: HV_EXIT_NATIVE when it takes place, else how the instruction ends. */
enum hv_exit hv_inject_msr(struct hv_vp *vp, enum hv_inject_point point, uint32_t index);

/* In place of hv_message_enqueue_now() and hv_event_set_now(); VP's lock held. */
void hv_inject_message(struct hv_vp *vp, struct hv_message_buffer *buffer, struct hv_interrupts *interrupts);
void hv_inject_event(struct hv_vp *vp, unsigned sint, unsigned flag, struct hv_interrupts *interrupts);

/* A timer's interrupt, or with a negative `vector` the message in its buffer, comes again later; VP's lock held. */
void hv_inject_second_expiration(struct hv_vp *vp, unsigned timer, int vector, const struct hv_injected *injected);

void hv_inject_expired(struct hv_vp *vp); /* platform timer HV_VP_TIMER_INJECT */
void hv_inject_reset(struct hv_vp *vp); /* nothing is held back any more; VP's lock held */
void hv_injection_free(struct hv *hv);

#endif
