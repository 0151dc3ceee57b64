/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP commands of fault injection; see qapi/hypervisor-inject-target.json of the patched QEMU. */
#ifndef MICROSOFT_HYPERVISOR_QMP_INJECT_H
#define MICROSOFT_HYPERVISOR_QMP_INJECT_H

/* Put the commands to work, once the core exists. Called with the BQL held. */
void microsoft_hypervisor_qmp_inject_register(void);

#endif
