/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 18: scheduling.
 */
#include "internal.h"

/* TLFS 18.5.1: advice, which never fails. */
hv_status hv_call_notify_long_spin_wait(struct hv_call *call)
{
    call->vp->hv->ops->spin_wait(call->vp->hv->context, call->vp->index);
    return HV_STATUS_SUCCESS;
}
