/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef MICROSOFT_HYPERVISOR_QMP_STATS_H
#define MICROSOFT_HYPERVISOR_QMP_STATS_H

/* Put query-hv-stats to work, once the core exists; and out of work, before it goes. */
void microsoft_hypervisor_stats_register(bool on);

#endif
