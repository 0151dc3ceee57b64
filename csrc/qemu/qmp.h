/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The hypervisor's QMP commands and events, and its hypercall trace event.
 *
 * The schema's generated code is in QEMU's main binary, this code is in the loadable module: the object registers the
 * table of implementations while it exists.
 */
#ifndef MICROSOFT_HYPERVISOR_QMP_H
#define MICROSOFT_HYPERVISOR_QMP_H

#include "hypervisor.h"

/* The core of the machine's microsoft-hypervisor object, NULL when there is none. Given by the object's file. */
struct hv *microsoft_hypervisor_core(void);

/* Put the commands to work, once the core exists; and out of work, before it goes. Called with the BQL held. */
void microsoft_hypervisor_qmp_register(void);
void microsoft_hypervisor_qmp_unregister(void);

/*
 * Emit HV_GUEST_CRASH (platform crash()). `message` is `size` bytes of the guest's in any encoding, or NULL. Any
 * thread.
 */
void microsoft_hypervisor_qmp_crash(hv_vp_index vp, const uint64_t parameters[5], const char *message, size_t size);

/* Emit the trace event of a hypercall (platform trace_hypercall()). Any thread. */
void microsoft_hypervisor_qmp_trace(hv_vp_index vp, int row, uint64_t input, uint64_t result);

#endif
