/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * KVM as the platform: what differs from TCG for the machine's own partition.
 *
 * The hooks of tcg.c and interrupt.c serve here too: KVM's exits reach them through QEMU (target/i386/kvm). KVM's own
 * Hyper-V emulation is not used. What a guest can tell from TCG, and why, is listed in docs/architecture.md.
 */
#include "kvm_backend.h"

#include <linux/kvm.h>
#include <pthread.h>
#include <time.h>

#include "hw/core/cpu.h"
#include "hw/i386/apic-msidef.h"
#include "hw/i386/apic_internal.h"
#include "hw/pci/msi.h"
#include "kvm/kvm_i386.h"
#include "qapi/error.h"
#include "system/kvm.h"

/* -- What KVM has to have -- */

struct capability {
    int number;
    const char *name;
};
#define CAPABILITY(name)                                                                                               \
    {                                                                                                                  \
        name, #name                                                                                                    \
    }

/* Beside those without which QEMU itself does not use KVM */
static const struct capability capabilities[] = {
    CAPABILITY(KVM_CAP_X86_USER_SPACE_MSR), /* synthetic MSRs */
    CAPABILITY(KVM_CAP_X86_MSR_FILTER), /* the same */
    CAPABILITY(KVM_CAP_READONLY_MEM), /* the hypercall page */
    CAPABILITY(KVM_CAP_IMMEDIATE_EXIT), /* flushes of other VPs' TLBs */
    CAPABILITY(KVM_CAP_GET_TSC_KHZ), /* the reference TSC page */
};

bool mshv_kvm_check(const MicrosoftHypervisor *s, Error **errp)
{
    for (size_t i = 0; i < ARRAY_SIZE(capabilities); i++) {
        if (kvm_check_extension(kvm_state, (unsigned)capabilities[i].number) <= 0) {
            error_setg(errp, "the host's KVM lacks %s; use -accel tcg, or a newer Linux", capabilities[i].name);
            return false;
        }
    }
    if (mshv_is_root(s) && kvm_irqchip_in_kernel()) {
        error_setg(errp, "role=root needs to be told when a processor halts, which KVM's own local APIC does not; use "
                         "-machine kernel-irqchip=off");
        return false;
    }
    return true;
}

/* -- What the guest is offered -- */

static bool refuse(const MicrosoftHypervisor *s, unsigned kind, unsigned bit, const char *property, const char *why,
                   Error **errp)
{
    if (!(s->switches[kind].on >> bit & 1))
        return false;
    error_setg(errp, "%s=on is not possible with KVM%s", property, why);
    return true;
}

static void default_off(const MicrosoftHypervisor *s, struct hv_config *config, unsigned bit)
{
    if (!(s->switches[MSHV_RECOMMENDATIONS].on >> bit & 1))
        config->recommendations &= ~(UINT32_C(1) << bit);
}

/*
 * KVM's own local APIC does not tell when it accepts or ends an interrupt, and offers no way to end one from outside
 * without losing another that comes meanwhile. So no auto-EOI, no assist page, no registers in the place of its own.
 */
static bool adapt_to_kernel_apic(const MicrosoftHypervisor *s, struct hv_config *config, Error **errp)
{
    static const char *const way = "'s own local APIC; use -machine kernel-irqchip=off";

    if (config->generation == HV_GEN_2008R2) {
        error_setg(errp, "interface=2008r2 has no way to tell the guest that KVM's own local APIC cannot do auto-EOI; "
                         "use -machine kernel-irqchip=off");
        return false;
    }
    if (refuse(s, MSHV_PRIVILEGES, HV_PRIVILEGE_AccessApicMsrs, "access-apic-msrs", way, errp) ||
        refuse(s, MSHV_RECOMMENDATIONS, HV_RECOMMENDATION_UseApicMsrs, "apic-msrs", way, errp))
        return false;
    config->privileges &= ~(UINT64_C(1) << HV_PRIVILEGE_AccessApicMsrs);
    config->recommendations &= ~(UINT32_C(1) << HV_RECOMMENDATION_UseApicMsrs);
    config->recommendations |= UINT32_C(1) << HV_RECOMMENDATION_DeprecateAutoEoi;
    default_off(s, config, HV_RECOMMENDATION_UseClusterIpi); /* its own IPIs do not leave KVM */
    return true;
}

/* Slots of a child that are not for what its parent maps, but for pages laid over that, which also split ranges. */
#define FOR_OVERLAYS 64

bool mshv_kvm_adapt_config(const MicrosoftHypervisor *s, struct hv_config *config, Error **errp)
{
    if (refuse(s, MSHV_PRIVILEGES, HV_PRIVILEGE_AccessTscInvariantControls, "access-tsc-invariant-controls",
               ", which does not change CPUID once a CPU has run; use +invtsc of -cpu", errp))
        return false;
    config->fixed_cpuid = true;
    config->fewer_intercepts = true;
    config->gpa_ranges_most = (uint32_t)mshv_kvm_most_slots() - FOR_OVERLAYS;
    /* INVLPG and the guest's own shootdown cost less than leaving KVM. */
    default_off(s, config, HV_RECOMMENDATION_UseHypercallForRemoteFlush);
    return !kvm_irqchip_in_kernel() || adapt_to_kernel_apic(s, config, errp);
}

/*
 * ENDBR64, NOP, OUT, RET: see X86_HYPERVISOR_KVM_CALL. At CPL 3 the processor's answer is #GP, where VMCALL gives #UD.
 */
static size_t hypercall_code(void *context, uint8_t *code)
{
    static const uint8_t begin[] = {0xF3, 0x0F, 0x1E, 0xFA};
    static const uint8_t call[] = X86_HYPERVISOR_KVM_CALL;

    QEMU_BUILD_BUG_ON(sizeof(begin) != X86_HYPERVISOR_KVM_CALL_OFFSET);
    memcpy(code, begin, sizeof(begin));
    memcpy(code + sizeof(begin), call, sizeof(call));
    code[sizeof(begin) + sizeof(call)] = 0xC3;
    return sizeof(begin) + sizeof(call) + 1;
}

/*
 * A write to the hypercall page is #GP (TLFS 4.12), one to a statistics page #MC (21.1.2). KVM has retired the
 * instruction by then, so the exception is the next one's.
 */
void mshv_kvm_page_write(CPUState *cs, X86HypervisorExit exit)
{
    kvm_hypervisor_raise(X86_CPU(cs), exit);
}

/* -- Time: the processor's TSC. It goes on while the machine is stopped; the core's clock does not. -- */

struct one_msr {
    struct kvm_msrs header;
    struct kvm_msr_entry entry;
};

bool mshv_kvm_read_msr(CPUState *cs, uint32_t index, uint64_t *value)
{
    struct one_msr msr = {.header.nmsrs = 1, .entry.index = index};

    if (kvm_vcpu_ioctl(cs, KVM_GET_MSRS, &msr) != 1)
        return false;
    *value = msr.entry.data;
    return true;
}

bool mshv_kvm_write_msr(CPUState *cs, uint32_t index, uint64_t value)
{
    struct one_msr msr = {.header.nmsrs = 1, .entry = {.index = index, .data = value}};

    return kvm_vcpu_ioctl(cs, KVM_SET_MSRS, &msr) == 1;
}

int mshv_kvm_tsc_offset_attribute(CPUState *cs, unsigned long request, int64_t *offset)
{
    struct kvm_device_attr attribute = {
        .group = KVM_VCPU_TSC_CTRL,
        .attr = KVM_VCPU_TSC_OFFSET,
        .addr = (uint64_t)(uintptr_t)offset,
    };

    return kvm_vcpu_ioctl(cs, request, &attribute);
}

#define TSC_SAMPLES 8

/* How far the CPU's TSC is ahead of the host's: exactly where KVM tells, else from the closest of some samples. */
static bool tsc_offset(CPUState *cs, int64_t *offset)
{
    uint64_t best = UINT64_MAX, least = 0, most = UINT64_MAX;
    int64_t told;

    for (int i = 0; i < TSC_SAMPLES; i++) {
        uint64_t before = (uint64_t)cpu_get_host_ticks(), tsc, after;

        if (!mshv_kvm_read_msr(cs, MSR_IA32_TSC, &tsc))
            return false;
        after = (uint64_t)cpu_get_host_ticks();
        if (after - before >= best)
            continue;
        best = after - before;
        least = tsc - after;
        most = tsc - before;
    }
    *offset = (int64_t)(least + (most - least) / 2);
    if (mshv_kvm_tsc_offset_attribute(cs, KVM_GET_DEVICE_ATTR, &told) == 0 && told >= (int64_t)least &&
        told <= (int64_t)most)
        *offset = told;
    return true;
}

bool mshv_kvm_clock_init(MicrosoftHypervisor *s, Error **errp)
{
    int khz = kvm_vcpu_ioctl(first_cpu, KVM_GET_TSC_KHZ);

    if (khz <= 0) {
        error_setg(errp, "KVM does not know the frequency of the TSC; use -accel tcg");
        return false;
    }
    if (s->numbers[MSHV_TSC_FREQUENCY].given) {
        error_setg(errp, "tsc-frequency= is not possible with KVM: it is the processor's, %d kHz", khz);
        return false;
    }
    if (X86_CPU(first_cpu)->env.user_tsc_khz && X86_CPU(first_cpu)->env.user_tsc_khz != khz) {
        error_setg(errp, "tsc-freq= of -cpu is not possible with KVM: it is the processor's, %d kHz", khz);
        return false;
    }
    return mshv_clock_init_parallel(&s->clock, (uint64_t)khz * 1000, errp);
}

static void align_other_cpus(int64_t offset)
{
    CPUState *cs;

    CPU_FOREACH(cs)
    {
        int64_t own;

        if (cs != first_cpu && mshv_kvm_tsc_offset_attribute(cs, KVM_GET_DEVICE_ATTR, &own) == 0 && own != offset)
            mshv_kvm_tsc_offset_attribute(cs, KVM_SET_DEVICE_ATTR, &offset);
    }
}

/* -- Run time (TLFS 10.3.2): the CPU time of the VP's thread, which KVM's HLT is no part of -- */

#define NOT_RUNNING UINT64_MAX

static uint64_t thread_time(const struct mshv_vp *vp)
{
    struct timespec time;
    clockid_t clock;

    if (!mshv_cpu_is_there(vp) || pthread_getcpuclockid(CPU(vp->cpu)->thread->thread, &clock) ||
        clock_gettime(clock, &time))
        return 0;
    return (uint64_t)time.tv_sec * NANOSECONDS_PER_SECOND + (uint64_t)time.tv_nsec;
}

static uint64_t run_ns(const struct mshv_vp *vp)
{
    uint64_t since = qatomic_read(&vp->running_since), now;

    if (since == NOT_RUNNING)
        return 0;
    now = thread_time(vp);
    return now > since ? now - since : 0;
}

static uint64_t vp_run_time(void *context, hv_vp_handle handle)
{
    MicrosoftHypervisor *s = context;
    const struct mshv_vp *vp = mshv_vp(s, handle);
    uint64_t ticks = qatomic_read(&vp->run_ticks);

    return (uint64_t)((unsigned __int128)ticks * 10000000 / s->clock.frequency) + run_ns(vp) / 100;
}

void mshv_kvm_stop(MicrosoftHypervisor *s)
{
    for (hv_vp_handle i = 0; i < s->vp_count; i++) {
        struct mshv_vp *vp = mshv_vp(s, i);

        vp->run_ticks += (uint64_t)((unsigned __int128)run_ns(vp) * s->clock.frequency / NANOSECONDS_PER_SECOND);
        qatomic_set(&vp->running_since, NOT_RUNNING);
    }
    mshv_kvm_children_stopped(s);
}

/* The clock has just been let go on, parallel to the host's TSC. */
void mshv_kvm_start(MicrosoftHypervisor *s)
{
    int64_t offset;

    for (hv_vp_handle i = 0; i < s->vp_count; i++)
        qatomic_set(&mshv_vp(s, i)->running_since, thread_time(mshv_vp(s, i)));
    if (!tsc_offset(first_cpu, &offset))
        return;
    align_other_cpus(offset);
    hv_set_tsc_ahead(s->core, (int64_t)((uint64_t)offset + s->clock.anchor_host - s->clock.anchor_guest));
}

/* -- Virtual MMU (TLFS chapter 12) -- */

static bool uses_pae_tables(const struct kvm_sregs *sregs)
{
    return (sregs->cr0 & CR0_PG_MASK) && (sregs->cr4 & CR4_PAE_MASK) && !(sregs->efer & MSR_EFER_LMA);
}

#define CR3_PWT 0x8

/* KVM forgets a CPU's translations when its CR3 is set to another value; with PAE tables to any. On its thread. */
static void flush_own(CPUState *cs, const uint64_t *new_cr3)
{
    struct kvm_sregs sregs;
    uint64_t cr3;

    if (kvm_vcpu_ioctl(cs, KVM_GET_SREGS, &sregs) < 0)
        return;
    cr3 = new_cr3 ? *new_cr3 : sregs.cr3;
    if (cr3 == sregs.cr3 && !uses_pae_tables(&sregs)) {
        sregs.cr3 ^= CR3_PWT;
        kvm_vcpu_ioctl(cs, KVM_SET_SREGS, &sregs);
    }
    sregs.cr3 = cr3;
    kvm_vcpu_ioctl(cs, KVM_SET_SREGS, &sregs);
}

static bool entered_the_guest_with_old_translations(const struct mshv_vp *vp)
{
    return qatomic_read(&vp->running) && qatomic_read(&vp->stale);
}

/*
 * The others flush before they enter the guest next. To wait until they have left it cannot last: nobody waits inside
 * the guest, and who waits here is not there.
 */
static void flush_set(MicrosoftHypervisor *s, hv_vp_handle caller, const struct hv_vp_set *set)
{
    for (hv_vp_handle i = 0; i < HV_MAX_VPS; i++) {
        struct mshv_vp *vp = mshv_vp(s, i);

        if (!(set->bank[i / 64] >> (i % 64) & 1) || !mshv_cpu_is_there(vp))
            continue;
        qatomic_set_mb(&vp->stale, true);
        if (i != caller && entered_the_guest_with_old_translations(vp))
            mshv_exit_cpu(CPU(vp->cpu));
    }
    for (hv_vp_handle i = 0; i < HV_MAX_VPS; i++) {
        struct mshv_vp *vp = mshv_vp(s, i);

        if (i == caller || !(set->bank[i / 64] >> (i % 64) & 1) || !mshv_cpu_is_there(vp))
            continue;
        while (entered_the_guest_with_old_translations(vp)) {
            mshv_exit_cpu(CPU(vp->cpu));
            sched_yield();
        }
    }
}

static void flush_tlb(void *context, hv_vp_handle caller, const struct hv_vp_set *set, bool keep_global)
{
    flush_set(context, caller, set);
}

static void flush_tlb_ranges(void *context, hv_vp_handle caller, const struct hv_vp_set *set,
                             const struct hv_gva_range *ranges, size_t count)
{
    flush_set(context, caller, set);
}

static void set_cr3(void *context, hv_vp_handle handle, uint64_t cr3)
{
    X86CPU *cpu = mshv_vp(context, handle)->cpu;

    cpu->env.cr[3] = cr3; /* should the rest be there */
    flush_own(CPU(cpu), &cr3);
}

void mshv_kvm_flush_own(CPUState *cs)
{
    flush_own(cs, NULL);
}

/* -- Processor -- */

static void read_xmm(void *context, hv_vp_handle vp, uint8_t xmm[96])
{
    struct kvm_fpu fpu;

    memset(xmm, 0, 96);
    if (kvm_vcpu_ioctl(CPU(mshv_vp(context, vp)->cpu), KVM_GET_FPU, &fpu) >= 0)
        memcpy(xmm, fpu.xmm, 96);
}

static void spin_wait(void *context, hv_vp_handle vp)
{
    sched_yield();
}

/* -- KVM's own local APIC -- */

static void request_interrupt(void *context, hv_vp_handle vp, uint8_t vector)
{
    X86CPU *cpu = mshv_vp(context, vp)->cpu;
    MSIMessage message;

    if (!cpu)
        return;
    message = (MSIMessage){
        .address = APIC_DEFAULT_ADDRESS | (uint64_t)(cpu->apic_id & 0xFF) << MSI_ADDR_DEST_ID_SHIFT |
                   (uint64_t)(cpu->apic_id & ~UINT32_C(0xFF)) << 32,
        .data = vector,
    };
    kvm_irqchip_send_msi(kvm_state, message);
}

/* The registers do not exist there (adapt_to_kernel_apic()). */
static void no_write(void *context, hv_vp_handle vp, uint32_t value)
{
}

static void no_write_icr(void *context, hv_vp_handle vp, uint64_t value)
{
}

static void no_write_tpr(void *context, hv_vp_handle vp, uint8_t value)
{
}

static uint64_t no_read_icr(void *context, hv_vp_handle vp)
{
    return 0;
}

static uint8_t no_read_tpr(void *context, hv_vp_handle vp)
{
    return 0;
}

const struct hv_platform_ops *mshv_kvm_platform_ops(bool root)
{
    static struct hv_platform_ops ops;

    ops = mshv_platform_ops;
    ops.hypercall_code = hypercall_code;
    if (!root)
        ops.vp_run_time = vp_run_time; /* else the core's scheduler counts */
    ops.flush_tlb = flush_tlb;
    ops.flush_tlb_ranges = flush_tlb_ranges;
    ops.set_cr3 = set_cr3;
    ops.read_xmm = read_xmm;
    if (!root)
        ops.spin_wait = spin_wait;
    ops.flush_second_stage = mshv_kvm_flush_second_stage;
    if (kvm_irqchip_in_kernel()) {
        ops.request_interrupt = request_interrupt;
        ops.apic_eoi = no_write;
        ops.apic_read_icr = no_read_icr;
        ops.apic_write_icr = no_write_icr;
        ops.apic_read_tpr = no_read_tpr;
        ops.apic_write_tpr = no_write_tpr;
    }
    return &ops;
}

/* -- What QEMU's KVM tells, and what it is asked -- */

void mshv_kvm_sync_registers(struct mshv_vp *vp)
{
    if (vp->child)
        mshv_kvm_get_registers(vp);
    else
        cpu_synchronize_state(CPU(vp->cpu));
}

#define IDLE_POLL_NS (NANOSECONDS_PER_SECOND / 1000)

static void poll_idle(void *opaque)
{
    qemu_cpu_kick(CPU(((struct mshv_vp *)opaque)->cpu));
}

/* See "halted state" in QEMU: KVM's own local APIC does not wake a CPU for an interrupt that it cannot take. */
static void watch_idle(struct mshv_vp *vp)
{
    const CPUX86State *env = &vp->cpu->env;

    if (kvm_irqchip_in_kernel() && !(env->eflags & IF_MASK))
        timer_mod(vp->idle_timer, qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) + IDLE_POLL_NS);
}

static void exec_enter(X86Hypervisor *hv, X86CPU *cpu)
{
    MicrosoftHypervisor *s = (MicrosoftHypervisor *)hv;
    struct mshv_vp *vp = s->core ? mshv_vp_of(s, cpu) : NULL;

    if (!vp)
        return;
    if (unlikely(vp->cpu != cpu)) {
        mshv_bind_cpu(vp, cpu); /* plugged in later */
        qatomic_set(&vp->running_since, thread_time(vp));
    }
    if (unlikely(cpu->env.hypervisor_idle))
        watch_idle(vp);
    qatomic_set_mb(&vp->running, true);
    if (unlikely(qatomic_read(&vp->stale))) {
        qatomic_set_mb(&vp->stale, false);
        flush_own(CPU(cpu), NULL);
    }
    if (unlikely(mshv_kvm_root_is_stale(s)))
        mshv_kvm_sync_root_soon(vp);
    if (unlikely(vp->yield)) { /* the LP is to choose again once KVM has completed the instruction */
        vp->yield = false;
        qatomic_set(&CPU(cpu)->exit_request, 1);
    }
}

static void exec_exit(X86Hypervisor *hv, X86CPU *cpu)
{
    MicrosoftHypervisor *s = (MicrosoftHypervisor *)hv;

    if (s->core)
        qatomic_store_release(&mshv_vp_of(s, cpu)->running, false);
}

static bool set_cpuid(Error **errp)
{
    CPUState *cs;

    CPU_FOREACH(cs)
    {
        int ret = kvm_hypervisor_set_cpuid(X86_CPU(cs));

        if (ret < 0) {
            error_setg_errno(errp, -ret, "KVM refuses the hypervisor's CPUID leaves");
            return false;
        }
    }
    return true;
}

bool mshv_kvm_set_up(MicrosoftHypervisor *s, Error **errp)
{
    X86HypervisorClass *hooks = X86_HYPERVISOR_GET_CLASS(s);

    hooks->exec_enter = exec_enter;
    hooks->exec_exit = exec_exit;
    mshv_kvm_set_child_hooks(hooks);
    if (mshv_is_root(s))
        mshv_kvm_memory_init(s);
    for (hv_vp_handle i = 0; i < s->vp_count; i++) {
        struct mshv_vp *vp = mshv_vp(s, i);

        vp->running_since = NOT_RUNNING;
        vp->idle_timer = timer_new_ns(QEMU_CLOCK_VIRTUAL, poll_idle, vp);
    }
    return set_cpuid(errp);
}
