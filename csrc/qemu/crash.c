/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest reported its crash (CRASH_CTL).
 */
#include "module.h"

#include "qapi/qapi-types-run-state.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "system/runstate.h"

#include "qmp.h"

static GuestPanicInformation *panic_information(const uint64_t parameters[5])
{
    GuestPanicInformation *information = g_new0(GuestPanicInformation, 1);

    information->type = GUEST_PANIC_INFORMATION_TYPE_HYPER_V;
    information->u.hyper_v = (GuestPanicInformationHyperV){
        .arg1 = parameters[0],
        .arg2 = parameters[1],
        .arg3 = parameters[2],
        .arg4 = parameters[3],
        .arg5 = parameters[4],
    };
    return information;
}

void mshv_crash(void *context, hv_vp_index vp, const uint64_t parameters[5], const char *message, size_t size)
{
    MicrosoftHypervisor *s = context;

    warn_report("the guest reported a crash on VP %u: 0x%" PRIx64 " 0x%" PRIx64 " 0x%" PRIx64 " 0x%" PRIx64
                " 0x%" PRIx64,
                vp, parameters[0], parameters[1], parameters[2], parameters[3], parameters[4]);
    BQL_LOCK_GUARD();
    microsoft_hypervisor_qmp_crash(vp, parameters, message, size);
    if (s->crash == MICROSOFT_HYPERVISOR_CRASH_PANIC)
        qemu_system_guest_panicked(panic_information(parameters));
}
