/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MICROSOFT_HYPERVISOR_QMP_EVENTS_H
#define MICROSOFT_HYPERVISOR_QMP_EVENTS_H

/* Put the commands of the event log to work, or out of work, as those of qmp.h. */
void microsoft_hypervisor_qmp_events_register(void);
void microsoft_hypervisor_qmp_events_unregister(void);

#endif
