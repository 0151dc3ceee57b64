/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * In place of kvm.c where QEMU is built without KVM: none of this is ever called.
 */
#include "module.h"

bool mshv_kvm_check(const MicrosoftHypervisor *s, Error **errp)
{
    g_assert_not_reached();
}

const struct hv_platform_ops *mshv_kvm_platform_ops(bool root)
{
    g_assert_not_reached();
}

bool mshv_kvm_adapt_config(const MicrosoftHypervisor *s, struct hv_config *config, Error **errp)
{
    g_assert_not_reached();
}

bool mshv_kvm_clock_init(MicrosoftHypervisor *s, Error **errp)
{
    g_assert_not_reached();
}

bool mshv_kvm_set_up(MicrosoftHypervisor *s, Error **errp)
{
    g_assert_not_reached();
}

void mshv_kvm_start(MicrosoftHypervisor *s)
{
    g_assert_not_reached();
}

void mshv_kvm_stop(MicrosoftHypervisor *s)
{
    g_assert_not_reached();
}

void mshv_kvm_page_write(CPUState *cs, X86HypervisorExit exit)
{
    g_assert_not_reached();
}

/* Called without KVM, too: there is nothing to be made for it. */
void mshv_kvm_root_init(MicrosoftHypervisor *s)
{
}

void mshv_kvm_flush_second_stage(void *context, hv_vp_handle caller, const struct hv_vp_set *set)
{
    g_assert_not_reached();
}

bool mshv_kvm_make_child(struct mshv_vp *vp, Error **errp)
{
    g_assert_not_reached();
}

void mshv_kvm_reset_child(struct mshv_vp *vp)
{
    g_assert_not_reached();
}

void mshv_kvm_sync_registers(struct mshv_vp *vp)
{
    g_assert_not_reached();
}
