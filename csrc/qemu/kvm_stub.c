/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * In place of kvm.c where QEMU is built without KVM: none of this is ever called.
 */
#include "module.h"

bool mshv_kvm_check(const MicrosoftHypervisor *s, Error **errp)
{
    g_assert_not_reached();
}

const struct hv_platform_ops *mshv_kvm_platform_ops(void)
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
