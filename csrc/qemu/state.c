/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The hypervisor's part of snapshots and migration streams: the core's stream, the clock, what is kept per VP here, and
 * the CPUs of children.
 *
 * Restoring the core makes the CPUs of the children that were saved, and resets them; only then are they loaded.
 */
#include "module.h"

#include "migration/qemu-file-types.h"
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

static bool restore_core(MicrosoftHypervisor *s, Error **errp)
{
    const char *why;

    /* The core sets its timers by the restored TSC; they are armed again when the machine starts. */
    if (!mshv_clock_set(&s->clock, s->saved_frequency, s->saved_tsc, errp))
        return false;
    mshv_lps_restored(s);
    if (hv_restore(s->core, s->saved_core, s->saved_size, &why))
        return true;
    error_setg(errp, "the state of " TYPE_MICROSOFT_HYPERVISOR " cannot be restored: %s", why);
    return false;
}

/* -- Children -- */

static bool is_living_child(const struct mshv_vp *vp)
{
    return vp && vp->child && hv_vp_get_partition_id(vp->core) != HV_PARTITION_ID_INVALID;
}

static int child_pre_save(void *opaque)
{
    struct mshv_vp *vp = opaque;
    CPUState *cs = CPU(vp->cpu);

    mshv_sync_registers(vp);
    vp->saved_idle = vp->cpu->env.hypervisor_idle;
    vp->saved_apic_id = vp->cpu->apic_id;
    vp->saved_halted = cs->halted;
    vp->saved_request = cs->interrupt_request;
    vp->saved_exception = cs->exception_index;
    return 0;
}

static int child_post_load(void *opaque, int version_id)
{
    struct mshv_vp *vp = opaque;
    CPUState *cs = CPU(vp->cpu);

    vp->cpu->env.hypervisor_idle = vp->saved_idle;
    vp->cpu->apic_id = vp->saved_apic_id;
    cs->halted = vp->saved_halted;
    cs->interrupt_request = (int)vp->saved_request;
    cs->exception_index = vp->saved_exception;
    vp->unchecked = vp->put_all = true;
    mshv_hold(vp);
    return 0;
}

static const VMStateDescription vmstate_child = {
    .name = TYPE_MICROSOFT_HYPERVISOR "/child",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_save = child_pre_save,
    .post_load = child_post_load,
    .fields =
        (const VMStateField[]){
            VMSTATE_STRUCT_POINTER(cpu, struct mshv_vp, vmstate_x86_cpu, X86CPU),
            VMSTATE_UINT32(saved_apic_id, struct mshv_vp),
            VMSTATE_UINT64(run_ticks, struct mshv_vp),
            VMSTATE_UINT32(lines, struct mshv_vp),
            VMSTATE_BOOL(waits_for_sipi, struct mshv_vp),
            VMSTATE_UINT8(sipi_vector, struct mshv_vp),
            VMSTATE_BOOL(saved_idle, struct mshv_vp),
            VMSTATE_UINT32(saved_halted, struct mshv_vp),
            VMSTATE_UINT32(saved_request, struct mshv_vp),
            VMSTATE_INT32(saved_exception, struct mshv_vp),
            VMSTATE_END_OF_LIST(),
        },
};

static int put_children(QEMUFile *f, void *pv, size_t size, const VMStateField *field, JSONWriter *vmdesc)
{
    MicrosoftHypervisor *s = pv;
    uint32_t count = 0;
    int ret = 0;

    for (hv_vp_handle i = 0; i < HV_MAX_VPS; i++)
        count += is_living_child(mshv_vp(s, i));
    qemu_put_be32(f, count);
    for (hv_vp_handle i = 0; i < HV_MAX_VPS && ret == 0; i++) {
        if (!is_living_child(mshv_vp(s, i)))
            continue;
        qemu_put_be32(f, i);
        ret = vmstate_save_state(f, &vmstate_child, mshv_vp(s, i), NULL);
    }
    return ret;
}

static int load_child(MicrosoftHypervisor *s, QEMUFile *f)
{
    uint32_t handle = qemu_get_be32(f);
    struct mshv_vp *vp = handle < HV_MAX_VPS ? mshv_vp(s, handle) : NULL;

    if (!is_living_child(vp)) {
        error_report(TYPE_MICROSOFT_HYPERVISOR ": the saved state has a processor of a virtual processor that is not "
                                               "there");
        return -EINVAL;
    }
    return vmstate_load_state(f, &vmstate_child, vp, 1);
}

static int get_children(QEMUFile *f, void *pv, size_t size, const VMStateField *field)
{
    MicrosoftHypervisor *s = pv;
    Error *err = NULL;
    uint32_t count;
    int ret = 0;

    if (!restore_core(s, &err)) {
        error_report_err(err);
        post_save(s);
        return -EINVAL;
    }
    post_save(s);
    count = qemu_get_be32(f);
    for (uint32_t i = 0; i < count && ret == 0; i++)
        ret = load_child(s, f);
    if (ret)
        hv_reset(s->core);
    return ret;
}

static const VMStateInfo vmstate_info_children = {
    .name = TYPE_MICROSOFT_HYPERVISOR "/children",
    .get = get_children,
    .put = put_children,
};

/* -- The whole -- */

static int post_load(void *opaque, int version_id)
{
    MicrosoftHypervisor *s = opaque;

    for (hv_vp_index i = 0; i < s->vp_count; i++) {
        if (s->vps[i].cpu)
            s->vps[i].cpu->env.hypervisor_idle = s->vps[i].saved_idle;
    }
    return 0;
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
    .version_id = 2,
    .minimum_version_id = 2,
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
            {
                .name = "children",
                .size = sizeof(MicrosoftHypervisor),
                .info = &vmstate_info_children,
                .flags = VMS_SINGLE,
                .offset = 0,
            },
            VMSTATE_END_OF_LIST(),
        },
};

void mshv_state_register(MicrosoftHypervisor *s)
{
    vmstate_register(NULL, 0, &vmstate_hypervisor, s);
}
