/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The CPUs of child VPs: each is one of QEMU's, which the thread of an LP executes (lp.c). A VP of the core, deleted
 * and reused or not, has the same CPU for ever.
 *
 * The lines of its processor (platform.h) may be raised by any thread without the BQL. They are kept in `lines`, and
 * become QEMU's interrupt requests on the thread that executes the CPU, which alone changes those of such a CPU.
 */
#include "module.h"

#include "hw/core/cpu.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/memalign.h"
#include "trace.h"

#define LINE(line) (1u << (line))
#define START LINE(HV_LINE_LINES) /* SIPI */

/* -- Making one -- */

static void report(Error *err)
{
    error_reportf_err(err, TYPE_MICROSOFT_HYPERVISOR ": no processor for a child partition: ");
}

static void make_cpu(struct mshv_vp *vp)
{
    MicrosoftHypervisor *s = vp->machine;
    unsigned lp = hv_vp_get_lp(vp->core);
    Error *err = NULL;
    X86CPU *cpu;

    cpu =
        x86_hypervisor_new_cpu(X86_HYPERVISOR(s), (int)(s->cpu_count + vp->handle - s->vp_count), s->lps[lp].cpu, &err);
    if (!cpu) {
        report(err);
        qatomic_store_release(&vp->making, MSHV_CPU_FAILED);
        return;
    }
    cpu->env.features[FEAT_1_ECX] &= ~CPUID_EXT_MONITOR; /* TLFS 11.5: they are #UD */
    cpu_vmstate_unregister(CPU(cpu)); /* state.c saves it, as part of what belongs to the VP */
    s->by_cpu[CPU(cpu)->cpu_index] = vp;
    vp->cpu = cpu;
    if (kvm_enabled() && !mshv_kvm_make_child(vp, &err)) {
        report(err);
        qatomic_store_release(&vp->making, MSHV_CPU_FAILED);
        return;
    }
    qatomic_store_release(&vp->making, MSHV_CPU_MADE);
}

static void make_cpu_on_thread(CPUState *caller, run_on_cpu_data data)
{
    make_cpu(data.host_ptr);
}

static struct mshv_vp *new_vp(MicrosoftHypervisor *s, hv_vp_handle handle)
{
    struct mshv_vp *vp = qemu_memalign(MSHV_CACHE_LINE, sizeof(*vp));

    memset(vp, 0, sizeof(*vp));
    vp->machine = s;
    vp->handle = handle;
    vp->child = true;
    vp->core = hv_get_vp_by_handle(s->core, handle);
    mshv_timers_init(vp);
    qatomic_store_release(&s->by_handle[handle], vp);
    return vp;
}

/*
 * On the calling VP's thread, which does the work when it leaves the guest; then it asks again. While state is loaded
 * there is no such VP, and the work is done at once.
 */
enum hv_progress mshv_create_vp(void *context, hv_vp_handle handle)
{
    MicrosoftHypervisor *s = context;
    struct mshv_vp *vp = mshv_vp(s, handle) ?: new_vp(s, handle);

    switch (qatomic_load_acquire(&vp->making)) {
    case MSHV_CPU_MADE:
        return HV_PROGRESS_DONE;
    case MSHV_CPU_FAILED:
        qatomic_set(&vp->making, MSHV_CPU_NONE); /* to be tried again when somebody asks again */
        return HV_PROGRESS_FAILED;
    case MSHV_CPU_NONE:
        if (!current_cpu) {
            make_cpu(vp);
            return vp->making == MSHV_CPU_MADE ? HV_PROGRESS_DONE : HV_PROGRESS_FAILED;
        }
        vp->making = MSHV_CPU_BEING_MADE;
        async_run_on_cpu(current_cpu, make_cpu_on_thread, RUN_ON_CPU_HOST_PTR(vp));
        break;
    case MSHV_CPU_BEING_MADE:
        break;
    }
    return HV_PROGRESS_WAIT;
}

/* -- Reset, INIT, SIPI -- */

void mshv_reset_vp(void *context, hv_vp_handle handle, uint32_t apic_id, bool wait_for_sipi)
{
    struct mshv_vp *vp = mshv_vp(context, handle);

    x86_hypervisor_reset_cpu(vp->cpu);
    vp->cpu->apic_id = apic_id;
    CPU(vp->cpu)->debug_domain = hv_vp_get_partition_id(vp->core); /* breakpoints are those of its partition */
    CPU(vp->cpu)->halted = 0;
    vp->run_ticks = 0;
    vp->waits_for_sipi = wait_for_sipi;
    vp->unchecked = false;
    qatomic_set_mb(&vp->lines, 0);
    if (vp->kvm)
        mshv_kvm_reset_child(vp);
}

static void take_init(struct mshv_vp *vp)
{
    BQL_LOCK_GUARD();
    mshv_sync_registers(vp);
    do_cpu_init(vp->cpu);
    vp->put_all = true;
    CPU(vp->cpu)->halted = 0;
}

static void start(struct mshv_vp *vp)
{
    if (!vp->waits_for_sipi)
        return;
    vp->waits_for_sipi = false;
    mshv_sync_registers(vp);
    cpu_x86_load_seg_cache_sipi(vp->cpu, qatomic_read(&vp->sipi_vector));
    CPU(vp->cpu)->halted = 0;
}

/* -- Lines -- */

/* On the thread that executes the CPU */
void mshv_child_update_request(struct mshv_vp *vp)
{
    CPUState *cs = CPU(vp->cpu);
    unsigned lines = qatomic_read(&vp->lines);

    if (lines & LINE(HV_LINE_INTERRUPT)) {
        if (!(cs->interrupt_request & CPU_INTERRUPT_HARD))
            qatomic_or(&cs->interrupt_request, CPU_INTERRUPT_HARD);
    } else if (cs->interrupt_request & CPU_INTERRUPT_HARD) {
        qatomic_and(&cs->interrupt_request, ~CPU_INTERRUPT_HARD);
    }
    if (lines & LINE(HV_LINE_NMI)) {
        qatomic_and(&vp->lines, ~LINE(HV_LINE_NMI));
        qatomic_or(&cs->interrupt_request, CPU_INTERRUPT_NMI);
    }
}

bool mshv_child_prepare(struct mshv_vp *vp)
{
    unsigned lines = qatomic_read(&vp->lines);

    if (unlikely(lines & LINE(HV_LINE_INIT))) {
        qatomic_and(&vp->lines, ~LINE(HV_LINE_INIT));
        take_init(vp);
        vp->waits_for_sipi = hv_vp_get_index(vp->core) != 0; /* the boot processor starts at once (TLFS 10.1.5) */
        hv_vp_init_done(vp->core);
    }
    if (unlikely(lines & START)) {
        qatomic_and(&vp->lines, ~START);
        start(vp);
    }
    mshv_child_update_request(vp);
    return !vp->waits_for_sipi;
}

/* Any thread */
bool mshv_child_waits(const struct mshv_vp *vp)
{
    CPUState *cs = CPU(vp->cpu);
    unsigned lines = qatomic_read(&vp->lines);
    int request;

    if (lines & LINE(HV_LINE_INIT))
        return false;
    if (qatomic_read(&vp->waits_for_sipi))
        return !(lines & START);
    if (!qatomic_read(&cs->halted))
        return false;
    if (vp->cpu->env.hypervisor_idle && (lines & LINE(HV_LINE_INTERRUPT)))
        return false;
    request = (int)(qatomic_read(&cs->interrupt_request) & ~CPU_INTERRUPT_HARD);
    if (lines & LINE(HV_LINE_INTERRUPT))
        request |= CPU_INTERRUPT_HARD;
    if (lines & LINE(HV_LINE_NMI))
        request |= CPU_INTERRUPT_NMI;
    return !x86_cpu_pending_interrupt(cs, request);
}

static void changed(struct mshv_vp *vp)
{
    CPUState *cs = CPU(vp->cpu);

    if (vp == mshv_current_vp(vp->machine)) {
        mshv_child_update_request(vp);
        if (qatomic_read(&vp->lines) & (LINE(HV_LINE_INIT) | START))
            vp->yield = true;
        qatomic_set(&cs->neg.icount_decr.u16.high, -1); /* look at the requests before the next block of code */
        return;
    }
    mshv_exit_cpu(cs); /* it may be executed, or just about to be */
    hv_vp_wake(vp->core);
}

void mshv_set_line(void *context, hv_vp_handle handle, enum hv_line line, bool raised)
{
    struct mshv_vp *vp = mshv_vp(context, handle);
    unsigned before;

    if (raised)
        before = qatomic_fetch_or(&vp->lines, LINE(line));
    else
        before = qatomic_fetch_and(&vp->lines, ~LINE(line));
    /* Nobody needs to hurry to see that one has gone down. */
    if (raised && !(before & LINE(line)))
        changed(vp);
}

void mshv_start_vp(void *context, hv_vp_handle handle, uint8_t vector)
{
    struct mshv_vp *vp = mshv_vp(context, handle);

    qatomic_set(&vp->sipi_vector, vector);
    qatomic_or(&vp->lines, START);
    changed(vp);
}

/* -- What there is beside registers (TLFS 17.1.5); the VP does not run -- */

void mshv_get_activity(void *context, hv_vp_handle handle, struct hv_activity *activity)
{
    struct mshv_vp *vp = mshv_vp(context, handle);
    const CPUX86State *env = &vp->cpu->env;
    const CPUState *cs = CPU(vp->cpu);
    unsigned lines = qatomic_read(&vp->lines);

    *activity = (struct hv_activity){.tsc_aux = env->tsc_aux, .mcg_status = env->mcg_status};
    if (cs->halted)
        activity->flags |= HV_ACTIVITY_HALTED | (env->hypervisor_idle ? HV_ACTIVITY_IDLE : 0);
    if ((lines & LINE(HV_LINE_NMI)) || (cs->interrupt_request & CPU_INTERRUPT_NMI))
        activity->flags |= HV_ACTIVITY_NMI;
    if (lines & START) {
        activity->flags |= HV_ACTIVITY_STARTING;
        activity->start_vector = vp->sipi_vector;
    }
}

void mshv_set_activity(void *context, hv_vp_handle handle, const struct hv_activity *activity)
{
    struct mshv_vp *vp = mshv_vp(context, handle);
    CPUX86State *env = &vp->cpu->env;

    env->tsc_aux = activity->tsc_aux;
    env->mcg_status = activity->mcg_status;
    CPU(vp->cpu)->halted = !!(activity->flags & HV_ACTIVITY_HALTED);
    env->hypervisor_idle = (activity->flags & HV_ACTIVITY_HALTED) && (activity->flags & HV_ACTIVITY_IDLE);
}

/* -- Its local APIC is the core's -- */

static int get_interrupt(X86Hypervisor *hv, X86CPU *cpu)
{
    struct mshv_vp *vp = mshv_vp_of((MicrosoftHypervisor *)hv, cpu);
    int vector = hv_child_interrupt(vp->core);

    mshv_child_update_request(vp); /* QEMU has taken the request back; there may be more */
    return vector;
}

static uint8_t read_cr8(X86Hypervisor *hv, X86CPU *cpu)
{
    return hv_lapic_read_cr8(mshv_vp_of((MicrosoftHypervisor *)hv, cpu)->core);
}

static void write_cr8(X86Hypervisor *hv, X86CPU *cpu, uint8_t value)
{
    hv_lapic_write_cr8(mshv_vp_of((MicrosoftHypervisor *)hv, cpu)->core, value);
}

void mshv_set_child_hooks(X86HypervisorClass *hooks)
{
    hooks->get_interrupt = get_interrupt;
    hooks->read_cr8 = read_cr8;
    hooks->write_cr8 = write_cr8;
}
