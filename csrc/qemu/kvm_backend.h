/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the backend for KVM share.
 */
#ifndef MICROSOFT_HYPERVISOR_KVM_BACKEND_H
#define MICROSOFT_HYPERVISOR_KVM_BACKEND_H

#include "module.h"

#include "kvm_calls.h"

/* What a child VP has in KVM: a VM of its own with one vCPU. */
struct mshv_kvm_child {
    struct mshv_kvm_vm vm;
    bool used; /* the vCPU has executed something: KVM takes no other CPUID leaves any more */
    bool renew; /* it has become another VP since */
    bool shadow; /* the vCPU's, as far as it is known: interrupts are held back for an instruction */
    bool tsc_told; /* `tsc_offset` is what the vCPU's TSC has */
    uint64_t tsc_offset;

    QemuMutex lock; /* innermost, for the rest */
    struct mshv_kvm_slots slots;
    uint64_t changes; /* hv_gpa_changes() for which the slots are right, */
    unsigned memory_generation; /* and that of the machine's memory; valid while `synced` */
    bool synced;
    bool told_of_limit;
};

/* kvm_memory.c */
void mshv_kvm_memory_init(MicrosoftHypervisor *s);
/* Before a child enters the guest, on its thread */
void mshv_kvm_sync_child(struct mshv_vp *vp);
/* Before a root VP enters the guest: whether what it sees has changed, and it has to leave for that. */
bool mshv_kvm_root_is_stale(const MicrosoftHypervisor *s);
void mshv_kvm_sync_root_soon(struct mshv_vp *vp);
/* The slots that a child's VM may have: KVM's, but for some that a VM has by itself. */
size_t mshv_kvm_most_slots(void);
void mshv_kvm_log_child(struct mshv_kvm_child *child, bool on);

/* kvm_child.c */
void mshv_kvm_set_child_hooks(X86HypervisorClass *hooks);
void mshv_kvm_get_registers(struct mshv_vp *vp);
void mshv_kvm_children_stopped(MicrosoftHypervisor *s); /* their TSCs go on, but their time does not */

/* kvm.c */
bool mshv_kvm_read_msr(CPUState *cs, uint32_t index, uint64_t *value); /* false: KVM knows no such MSR */
bool mshv_kvm_write_msr(CPUState *cs, uint32_t index, uint64_t value);
int mshv_kvm_tsc_offset_attribute(CPUState *cs, unsigned long request, int64_t *offset);
void mshv_kvm_flush_own(CPUState *cs);

#endif
