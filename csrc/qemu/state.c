/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The hypervisor's part of snapshots and migration streams: the core's stream, the clock, and what is kept per VP here.
 */
#include "module.h"

#include "migration/vmstate.h"
#include "qapi/error.h"
#include "qemu/error-report.h"

static int pre_save(void *opaque)
{
    MicrosoftHypervisor *s = opaque;
    size_t size = hv_save_size(s->core);

    s->saved_frequency = s->clock.frequency;
    s->saved_tsc = mshv_clock_read(&s->clock);
    g_free(s->saved_core);
    s->saved_core = g_malloc0(size);
    s->saved_size = (uint32_t)hv_save(s->core, s->saved_core, size);
    for (hv_vp_index i = 0; i < s->vp_count; i++)
        s->vps[i].saved_idle = s->vps[i].cpu && s->vps[i].cpu->env.hypervisor_idle;
    return 0;
}

static int post_save(void *opaque)
{
    MicrosoftHypervisor *s = opaque;

    g_free(s->saved_core);
    s->saved_core = NULL;
    return 0;
}

static int restore(MicrosoftHypervisor *s, Error **errp)
{
    const char *why;

    /* The core sets its timers by the restored TSC; they are armed again when the machine starts. */
    if (!mshv_clock_set(&s->clock, s->saved_frequency, s->saved_tsc, errp))
        return -EINVAL;
    if (!hv_restore(s->core, s->saved_core, s->saved_size, &why)) {
        error_setg(errp, "the state of " TYPE_MICROSOFT_HYPERVISOR " cannot be restored: %s", why);
        return -EINVAL;
    }
    for (hv_vp_index i = 0; i < s->vp_count; i++) {
        if (s->vps[i].cpu)
            s->vps[i].cpu->env.hypervisor_idle = s->vps[i].saved_idle;
    }
    return 0;
}

static int post_load(void *opaque, int version_id)
{
    MicrosoftHypervisor *s = opaque;
    Error *err = NULL;
    int ret = restore(s, &err);

    post_save(s);
    if (ret < 0)
        error_report_err(err);
    return ret;
}

static const VMStateDescription vmstate_vp = {
    .name = TYPE_MICROSOFT_HYPERVISOR "/vp",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields =
        (const VMStateField[]){
            VMSTATE_UINT64(run_ticks, struct mshv_vp),
            VMSTATE_BOOL(saved_idle, struct mshv_vp),
            VMSTATE_END_OF_LIST(),
        },
};

static const VMStateDescription vmstate_hypervisor = {
    .name = TYPE_MICROSOFT_HYPERVISOR,
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_save = pre_save,
    .post_save = post_save,
    .post_load = post_load,
    .fields =
        (const VMStateField[]){
            VMSTATE_UINT64(saved_frequency, MicrosoftHypervisor),
            VMSTATE_UINT64(saved_tsc, MicrosoftHypervisor),
            VMSTATE_UINT32_EQUAL(vp_count, MicrosoftHypervisor,
                                 "the saved machine has another number of virtual processors; use its -smp"),
            VMSTATE_STRUCT_VARRAY_POINTER_UINT32(vps, MicrosoftHypervisor, vp_count, vmstate_vp, struct mshv_vp),
            VMSTATE_UINT32(saved_size, MicrosoftHypervisor),
            VMSTATE_VBUFFER_ALLOC_UINT32(saved_core, MicrosoftHypervisor, 0, NULL, saved_size),
            VMSTATE_END_OF_LIST(),
        },
};

void mshv_state_register(MicrosoftHypervisor *s)
{
    vmstate_register(NULL, 0, &vmstate_hypervisor, s);
}
