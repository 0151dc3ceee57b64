/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP jobs that save and restore child partitions; see qapi/hypervisor-save-target.json of the patched QEMU. */
#ifndef MICROSOFT_HYPERVISOR_QMP_SAVE_H
#define MICROSOFT_HYPERVISOR_QMP_SAVE_H

void microsoft_hypervisor_save_register(void);
void microsoft_hypervisor_save_unregister(void);

#endif
