/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * -object microsoft-hypervisor: makes the machine a partition of the hypervisor.
 *
 * The object is created before the machine and its accelerator are. It claims the machine then, so that instructions
 * are translated for it, and makes the core when the machine is complete, before any guest code runs.
 */
#include "module.h"

#include "hw/boards.h"
#include "hw/core/cpu.h"
#include "hw/i386/x86.h"
#include "hw/qdev-core.h"
#include "qapi/error.h"
#include "qobject/qbool.h"
#include "qobject/qstring.h"
#include "qom/qom-qobject.h"
#include "qemu/error-report.h"
#include "qemu/memalign.h"
#include "qemu/module.h"
#include "qom/object_interfaces.h"
#include "system/kvm.h"
#include "system/reset.h"
#include "system/runstate.h"
#include "system/system.h"
#include "system/tcg.h"

#include "qmp.h"
#include "qmp_inject.h"
#include "trace.h"

/* QEMU's local APIC counts nanoseconds of the virtual clock. */
#define APIC_FREQUENCY UINT64_C(1000000000)

struct hv *microsoft_hypervisor_core(void)
{
    return x86_hypervisor ? MICROSOFT_HYPERVISOR(x86_hypervisor)->core : NULL;
}

/* -- The machine's CPUs -- */

/* Whether a property has the value that a CPU has without a word about it; what has no default is off or empty. */
static bool is_default(Object *cpu, ObjectProperty *property)
{
    QObject *value = object_property_get_qobject(cpu, property->name, &error_abort);
    QString *string = qobject_to(QString, value);
    QBool *flag = qobject_to(QBool, value);

    bool same = property->defval ? qobject_is_equal(value, property->defval)
                : string         ? !*qstring_get_str(string)
                                 : flag && !qbool_get_bool(flag);

    qobject_unref(value);
    return same;
}

/* Before KVM makes a processor that has its own emulation, which not every host's can. */
static bool check_cpu(X86Hypervisor *hv, X86CPU *cpu, Error **errp)
{
    ObjectPropertyIterator iterator;
    ObjectProperty *property;

    object_property_iter_init(&iterator, OBJECT(cpu));
    while ((property = object_property_iter_next(&iterator))) {
        if (!g_str_has_prefix(property->name, "hv-") || is_default(OBJECT(cpu), property))
            continue;
        error_setg(errp,
                   "%s of -cpu belongs to KVM's own emulation of Hyper-V; remove it and use the properties of "
                   "-object " TYPE_MICROSOFT_HYPERVISOR,
                   property->name);
        return false;
    }
    return true;
}

/* -- When the machine is complete -- */

/* The number of VPs that the machine's possible CPUs need. */
static bool count_vps(MicrosoftHypervisor *s, const CPUArchIdList *cpus, Error **errp)
{
    uint64_t count = (uint64_t)cpus->len;

    if (s->vp_index == MICROSOFT_HYPERVISOR_VP_INDEX_APIC_ID) {
        for (int i = 0; i < cpus->len; i++)
            count = MAX(count, cpus->cpus[i].arch_id + 1);
    }
    if (count > HV_MAX_VPS) {
        error_setg(errp,
                   "this machine needs %" PRIu64 " virtual processors, at most %u are supported; use a smaller "
                   "-smp",
                   count, HV_MAX_VPS);
        return false;
    }
    s->vp_count = (uint32_t)count;
    return true;
}

void mshv_bind_cpu(struct mshv_vp *vp, X86CPU *cpu)
{
    X86CPU *old = vp->cpu;

    object_ref(OBJECT(cpu));
    qatomic_set(&vp->cpu, cpu);
    if (vp->machine->lps)
        mshv_lp_bind(vp);
    if (old)
        object_unref(OBJECT(old));
}

/* A logical processor is the thread of a CPU, and the core expects all of them to be there (TLFS 6.2). */
static bool check_lps(MicrosoftHypervisor *s, Error **errp)
{
    for (hv_vp_handle i = 0; i < s->vp_count; i++) {
        if (!mshv_cpu_is_there(mshv_vp(s, i))) {
            error_setg(errp, "role=root needs a CPU for every VP from the start; leave out maxcpus= of -smp, and use "
                             "vp-index=cpu-index");
            return false;
        }
    }
    return true;
}

static bool bind_vps(MicrosoftHypervisor *s, Error **errp)
{
    const CPUArchIdList *cpus = MACHINE_GET_CLASS(current_machine)->possible_cpu_arch_ids(current_machine);
    CPUState *cs;

    if (!count_vps(s, cpus, errp))
        return false;
    s->vps = qemu_memalign(MSHV_CACHE_LINE, sizeof(struct mshv_vp) * s->vp_count);
    memset(s->vps, 0, sizeof(struct mshv_vp) * s->vp_count);
    s->cpu_count = cpus->len;
    s->by_cpu = g_new0(struct mshv_vp *, (size_t)cpus->len + HV_MAX_VPS);
    s->by_handle = g_new0(struct mshv_vp *, HV_MAX_VPS);
    for (hv_vp_index i = 0; i < s->vp_count; i++) {
        s->vps[i].machine = s;
        s->vps[i].handle = i;
        s->by_handle[i] = &s->vps[i];
        mshv_timers_init(&s->vps[i]);
    }
    for (int i = 0; i < cpus->len; i++) {
        uint64_t index = s->vp_index == MICROSOFT_HYPERVISOR_VP_INDEX_APIC_ID ? cpus->cpus[i].arch_id : (uint64_t)i;

        s->by_cpu[i] = &s->vps[index];
    }
    CPU_FOREACH(cs)
    {
        mshv_bind_cpu(s->by_cpu[cs->cpu_index], X86_CPU(cs));
    }
    return !mshv_is_root(s) || check_lps(s, errp);
}

static bool create_core(MicrosoftHypervisor *s, Error **errp)
{
    struct hv_config config;
    const char *why;

    mshv_make_config(s, &config);
    config.vp_count = s->vp_count;
    mshv_describe_processor(&X86_CPU(first_cpu)->env, &config);
    config.gpa_bits = X86_CPU(first_cpu)->phys_bits;
    config.tsc_frequency = s->clock.frequency;
    config.apic_frequency = APIC_FREQUENCY;
    if (kvm_enabled() && !mshv_kvm_adapt_config(s, &config, errp))
        return false;
    s->core = hv_create(&config, kvm_enabled() ? mshv_kvm_platform_ops(mshv_is_root(s)) : &mshv_platform_ops, s, &why);
    if (!s->core) {
        error_setg(errp, "the hypervisor cannot be created: %s", why);
        return false;
    }
    for (hv_vp_index i = 0; i < s->vp_count; i++)
        s->vps[i].core = hv_get_vp(s->core, i);
    return true;
}

static void run_state_changed(void *opaque, bool running, RunState state)
{
    MicrosoftHypervisor *s = opaque;

    if (!running) {
        mshv_clock_stop(&s->clock);
        if (kvm_enabled())
            mshv_kvm_stop(s);
        return;
    }
    mshv_clock_resume(&s->clock);
    if (kvm_enabled())
        mshv_kvm_start(s);
    for (hv_vp_handle i = 0; i < HV_MAX_VPS; i++) {
        if (mshv_vp(s, i))
            mshv_timers_rearm(mshv_vp(s, i));
    }
}

static void machine_reset(void *opaque)
{
    hv_reset(((MicrosoftHypervisor *)opaque)->core);
}

static bool set_up(MicrosoftHypervisor *s, Error **errp)
{
    if (!tcg_enabled() && !kvm_enabled()) {
        error_setg(errp, "only TCG and KVM are supported; use -accel tcg or -accel kvm");
        return false;
    }
    if (kvm_enabled() && !mshv_kvm_check(s, errp))
        return false;
    if (!bind_vps(s, errp))
        return false;
    if (kvm_enabled() ? !mshv_kvm_clock_init(s, errp)
                      : !mshv_clock_init(&s->clock, s->numbers[MSHV_TSC_FREQUENCY].value, errp))
        return false;
    if (mshv_is_root(s) && !mshv_second_stage_add_pages(s, errp))
        return false;
    if (!mshv_debugger_init(s, errp) || !create_core(s, errp))
        return false;
    if (kvm_enabled() && !mshv_kvm_set_up(s, errp))
        return false;
    if (mshv_is_root(s)) {
        mshv_lps_init(s);
        for (hv_vp_handle i = 0; i < s->vp_count; i++)
            mshv_vp(s, i)->cpu->env.hypervisor_second_stage = true;
    }
    mshv_guest_memory_init(s);
    mshv_policy_init(s);
    mshv_debugger_connect(s);
    mshv_state_register(s);
    qemu_add_vm_change_state_handler(run_state_changed, s);
    qemu_register_reset(machine_reset, s);
    microsoft_hypervisor_qmp_register();
    microsoft_hypervisor_qmp_inject_register();
    hv_set_trace(s->core, trace_event_get_state_backends(TRACE_HV_HYPERCALL));
    return true;
}

static void machine_done(Notifier *notifier, void *data)
{
    MicrosoftHypervisor *s = container_of(notifier, MicrosoftHypervisor, machine_done);
    Error *err = NULL;

    if (!set_up(s, &err)) {
        error_reportf_err(err, "-object " TYPE_MICROSOFT_HYPERVISOR ": ");
        exit(EXIT_FAILURE);
    }
}

/* -- The object -- */

static bool claim_machine(MicrosoftHypervisor *s, Error **errp)
{
    if (!mshv_check_properties(s, errp))
        return false;
    if (phase_check(PHASE_MACHINE_INITIALIZED)) {
        error_setg(errp, "it cannot be added to a running machine; use -object");
        return false;
    }
    if (!object_dynamic_cast(OBJECT(current_machine), TYPE_X86_MACHINE)) {
        error_setg(errp, "an x86 machine is needed; use for example -machine q35");
        return false;
    }
    return x86_hypervisor_set(X86_HYPERVISOR(s), errp);
}

static void complete(UserCreatable *uc, Error **errp)
{
    ERRP_GUARD();
    MicrosoftHypervisor *s = MICROSOFT_HYPERVISOR(uc);

    if (!claim_machine(s, errp)) {
        error_prepend(errp, TYPE_MICROSOFT_HYPERVISOR ": ");
        return;
    }
    if (mshv_is_root(s))
        mshv_second_stage_init(s);
    mshv_clock_start_measuring(&s->clock);
    s->machine_done.notify = machine_done;
    qemu_add_machine_init_done_notifier(&s->machine_done);
}

static bool can_be_deleted(UserCreatable *uc)
{
    return x86_hypervisor != X86_HYPERVISOR(uc);
}

static void class_init(ObjectClass *oc, void *data)
{
    UserCreatableClass *ucc = USER_CREATABLE_CLASS(oc);

    ucc->complete = complete;
    ucc->can_be_deleted = can_be_deleted;
    X86_HYPERVISOR_CLASS(oc)->check_cpu = check_cpu;
    mshv_set_hooks(X86_HYPERVISOR_CLASS(oc));
    mshv_add_properties(oc);
}

static const TypeInfo microsoft_hypervisor_info = {
    .name = TYPE_MICROSOFT_HYPERVISOR,
    .parent = TYPE_X86_HYPERVISOR,
    .instance_size = sizeof(MicrosoftHypervisor),
    .class_init = class_init,
    .interfaces = (InterfaceInfo[]){{TYPE_USER_CREATABLE}, {}},
};
module_obj(TYPE_MICROSOFT_HYPERVISOR);

static void register_types(void)
{
    type_register_static(&microsoft_hypervisor_info);
}

type_init(register_types)
