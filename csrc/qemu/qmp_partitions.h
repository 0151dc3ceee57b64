/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP commands about child partitions; see qapi/microsoft-hypervisor-target.json of the patched QEMU. */
#ifndef MICROSOFT_HYPERVISOR_QMP_PARTITIONS_H
#define MICROSOFT_HYPERVISOR_QMP_PARTITIONS_H

#include "qapi/qapi-types-microsoft-hypervisor-target.h"

void microsoft_hypervisor_pause_partition(uint64_t partition, bool pause, Error **errp);
void microsoft_hypervisor_delete_partition(uint64_t partition, Error **errp);
HvRegisterList *microsoft_hypervisor_query_registers(uint64_t partition, uint32_t vp, Error **errp);
HvMemory *microsoft_hypervisor_read_memory(uint64_t partition, uint64_t gpa, uint32_t size, Error **errp);
void microsoft_hypervisor_inject_interrupt(uint64_t partition, uint32_t vp, uint8_t vector, Error **errp);

#endif
