/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Child VPs with KVM: each is a vCPU in a VM of its own, executed by the thread of the LP it is scheduled on (lp.c), as
 * with TCG. So a switch between root and child wakes no thread. KVM takes a vCPU from any thread; only moving to
 * another LP costs something. A VM per VP and not per partition: a VP's local APIC page is its own (TLFS 13.2), and a
 * VP that is deleted takes all that it had in KVM along.
 *
 * Registers are in QEMU's CPU while the VP does not run: `vcpu_dirty` says that they are newer there.
 *
 * An intercept leaves the instruction unretired. What KVM has done before it tells is undone (kvm_undo.h), and what it
 * would still do it is let do at once, with what comes of it thrown away.
 */
#include "kvm_backend.h"

#include "hw/core/cpu.h"
#include "hw/i386/apic_internal.h"
#include "kvm/kvm_i386.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "system/kvm.h"
#include "system/kvm_int.h"
#include "tcg/helper-tcg.h"
#include "trace.h"

#include "kvm_undo.h"

/* What the VP's thread does next. */
enum next { NEXT_GO_ON, NEXT_LEAVE };

/* -- The vCPU -- */

static bool take_vm(struct mshv_vp *vp, struct mshv_kvm_vm *vm, Error **errp)
{
    struct mshv_kvm_child *kvm = vp->kvm;

    kvm_carried_cpu_end(CPU(vp->cpu));
    mshv_kvm_slots_free(&kvm->slots);
    mshv_kvm_vm_close(&kvm->vm);
    kvm->vm = *vm;
    kvm->slots.vm = vm->vm;
    kvm->slots.log_dirty = qatomic_read(&vp->machine->kvm_log);
    kvm->synced = kvm->used = kvm->renew = kvm->tsc_told = false;
    if (kvm_carried_cpu_init(CPU(vp->cpu), vm->vcpu, errp) == 0)
        return true;
    mshv_kvm_calls->close(vm->vcpu);
    mshv_kvm_vm_close(&kvm->vm);
    return false;
}

/* A vCPU that has never executed anything. BQL held. On failure the VP has what it had, but for the last step. */
static bool make_vcpu(struct mshv_vp *vp, Error **errp)
{
    struct mshv_kvm_failure failure;
    struct mshv_kvm_vm vm;

    if (!mshv_kvm_vm_create(&vm, kvm_state->fd, &failure)) {
        error_setg_errno(errp, failure.error, "%s", failure.call);
        return false;
    }
    return take_vm(vp, &vm, errp);
}

bool mshv_kvm_make_child(struct mshv_vp *vp, Error **errp)
{
    vp->kvm = g_new0(struct mshv_kvm_child, 1);
    vp->kvm->vm.vm = vp->kvm->vm.vcpu = -1;
    vp->cpu->fill_mtrr_mask = false; /* masks are what the parent has set */
    qemu_mutex_init(&vp->kvm->lock);
    return make_vcpu(vp, errp);
}

/* Of a new VP that has the vCPU of an old one: KVM takes other CPUID leaves only before the first instruction. */
void mshv_kvm_reset_child(struct mshv_vp *vp)
{
    vp->kvm->renew = vp->kvm->used;
    vp->kvm->tsc_told = false;
    vp->kvm->told_of_limit = false;
    CPU(vp->cpu)->vcpu_dirty = true;
    vp->put_all = true;
}

static void renew(struct mshv_vp *vp)
{
    Error *err = NULL;
    BQL_LOCK_GUARD();

    if (!make_vcpu(vp, &err))
        error_reportf_err(err, TYPE_MICROSOFT_HYPERVISOR ": no processor for a child partition: ");
}

static bool set_cpuid(struct mshv_vp *vp)
{
    int ret = kvm_hypervisor_set_cpuid(vp->cpu);

    if (ret < 0)
        error_report(TYPE_MICROSOFT_HYPERVISOR ": KVM refuses the CPUID leaves of a child partition: %s",
                     strerror(-ret));
    return ret >= 0;
}

/* Returns whether there is a vCPU that can execute the VP. */
static bool be_ready(struct mshv_vp *vp)
{
    if (likely(vp->kvm->used && !vp->kvm->renew))
        return true;
    if (vp->kvm->renew)
        renew(vp);
    if (CPU(vp->cpu)->kvm_fd < 0 || !set_cpuid(vp))
        return false;
    vp->kvm->used = true;
    return true;
}

/* -- Registers -- */

static void clear_event(CPUX86State *env)
{
    env->exception_pending = env->exception_injected = 0;
    env->exception_has_payload = false;
    env->exception_nr = -1;
    env->has_error_code = env->nmi_injected = env->soft_interrupt = 0;
    env->error_code = 0;
    env->interrupt_injected = -1;
}

/* An event that KVM is delivering is the VP's pending interruption (TLFS 10.3.4). */
static void take_event(CPUX86State *env)
{
    X86HypervisorEvent event = {.valid = true};

    if (env->exception_injected || env->exception_pending) {
        event.vector = (uint8_t)env->exception_nr;
        event.error_code = (uint32_t)env->error_code;
    } else if (env->nmi_injected) {
        event.is_hw = true;
        event.vector = EXCP02_NMI;
    } else if (env->interrupt_injected >= 0 && !env->soft_interrupt) {
        event.is_hw = true;
        event.vector = (uint8_t)env->interrupt_injected;
    } else {
        return;
    }
    env->hypervisor_event = event;
    clear_event(env);
}

static void give_event(CPUX86State *env)
{
    X86HypervisorEvent *event = &env->hypervisor_event;

    if (!event->valid)
        return;
    clear_event(env);
    if (event->is_hw && event->vector == EXCP02_NMI) {
        env->nmi_injected = 1;
    } else if (event->is_hw) {
        env->interrupt_injected = event->vector;
    } else {
        env->exception_injected = 1;
        env->exception_nr = event->vector;
        env->has_error_code = (env->cr[0] & CR0_PE_MASK) && exception_has_error_code(event->vector);
        env->error_code = env->has_error_code ? (int)event->error_code : 0;
    }
    event->valid = false;
}

/* QEMU leaves the shadow of STI and MOV SS to KVM; here it is a register (TLFS 10.3.3). */
static void take_shadow(struct mshv_vp *vp)
{
    CPUX86State *env = &vp->cpu->env;
    struct kvm_vcpu_events events = {0};

    env->hflags &= ~HF_INHIBIT_IRQ_MASK;
    vp->kvm->shadow = kvm_vcpu_ioctl(CPU(vp->cpu), KVM_GET_VCPU_EVENTS, &events) == 0 && events.interrupt.shadow;
    if (vp->kvm->shadow)
        env->hflags |= HF_INHIBIT_IRQ_MASK;
}

static void give_shadow(struct mshv_vp *vp)
{
    bool shadow = (vp->cpu->env.hflags & HF_INHIBIT_IRQ_MASK) != 0;
    struct kvm_vcpu_events events = {0};

    if (shadow == vp->kvm->shadow && !shadow)
        return;
    vp->kvm->shadow = shadow;
    if (kvm_vcpu_ioctl(CPU(vp->cpu), KVM_GET_VCPU_EVENTS, &events) < 0)
        return;
    events.flags |= KVM_VCPUEVENT_VALID_SHADOW;
    events.interrupt.shadow = shadow ? KVM_X86_SHADOW_INT_STI : 0;
    kvm_vcpu_ioctl(CPU(vp->cpu), KVM_SET_VCPU_EVENTS, &events);
}

void mshv_kvm_get_registers(struct mshv_vp *vp)
{
    CPUState *cs = CPU(vp->cpu);
    Error *err = NULL;

    if (!cs->vcpu_dirty) {
        if (kvm_arch_get_registers(cs, &err) < 0)
            error_reportf_err(err, TYPE_MICROSOFT_HYPERVISOR ": registers of a child partition: ");
        take_shadow(vp);
        cs->vcpu_dirty = true;
    }
    take_event(&vp->cpu->env); /* QEMU may have got them, too */
}

static bool put_registers(struct mshv_vp *vp)
{
    CPUState *cs = CPU(vp->cpu);
    Error *err = NULL;

    if (!cs->vcpu_dirty)
        return true;
    give_event(&vp->cpu->env);
    if (kvm_arch_put_registers(cs, vp->put_all ? KVM_PUT_RESET_STATE : KVM_PUT_RUNTIME_STATE, &err) < 0) {
        error_free(err); /* what a parent may have set KVM need not take (TLFS 10.1.2) */
        return false;
    }
    give_shadow(vp);
    vp->put_all = false;
    cs->vcpu_dirty = false;
    return true;
}

/* -- Time -- */

#define TSC_NEAR 10000000 /* ticks that a look at both may take */

static bool has_tsc(struct mshv_vp *vp)
{
    uint64_t tsc;

    return mshv_kvm_read_msr(CPU(vp->cpu), MSR_IA32_TSC, &tsc) && hv_vp_read_tsc(vp->core) - tsc < TSC_NEAR;
}

/*
 * Exactly by its distance from the host's, which KVM may not know; else by its value. There is a KVM that does neither:
 * then the vCPU's TSC is the VP's, so that it reads the reference time right.
 */
static void set_tsc(struct mshv_vp *vp)
{
    const struct mshv_clock *clock = &vp->machine->clock;
    int64_t offset = (int64_t)(hv_vp_tsc_offset(vp->core) + clock->anchor_guest - clock->anchor_host);
    CPUState *cs = CPU(vp->cpu);
    uint64_t tsc;

    if (mshv_kvm_tsc_offset_attribute(cs, KVM_SET_DEVICE_ATTR, &offset) != 0 || !has_tsc(vp))
        mshv_kvm_write_msr(cs, MSR_IA32_TSC, hv_vp_read_tsc(vp->core));
    if (!has_tsc(vp) && mshv_kvm_read_msr(cs, MSR_IA32_TSC, &tsc))
        hv_vp_write_tsc(vp->core, tsc);
    vp->kvm->tsc_offset = hv_vp_tsc_offset(vp->core);
    vp->kvm->tsc_told = true;
}

static void update_tsc(struct mshv_vp *vp)
{
    if (unlikely(!vp->kvm->tsc_told || vp->kvm->tsc_offset != hv_vp_tsc_offset(vp->core)))
        set_tsc(vp);
}

void mshv_kvm_children_stopped(MicrosoftHypervisor *s)
{
    for (hv_vp_handle i = s->vp_count; i < HV_MAX_VPS; i++) {
        struct mshv_vp *vp = mshv_vp(s, i);

        if (vp && vp->kvm)
            vp->kvm->tsc_told = false;
    }
}

/* Let KVM complete what it was left for, and whatever it leaves for next in the same instruction. */
#define COMPLETIONS_MOST 8192

static void complete_instruction(CPUState *cs)
{
    int ret;

    for (unsigned i = 0; i < COMPLETIONS_MOST; i++) {
        qatomic_set(&cs->kvm_run->immediate_exit, 1);
        ret = kvm_vcpu_ioctl(cs, KVM_RUN, 0);
        qatomic_set(&cs->kvm_run->immediate_exit, 0);
        if (ret < 0)
            return;
    }
}

/* -- Interrupts: the local APIC is the core's -- */

static void inject_nmi(CPUState *cs)
{
    qatomic_and(&cs->interrupt_request, ~CPU_INTERRUPT_NMI);
    kvm_vcpu_ioctl(cs, KVM_NMI);
}

static void inject(struct mshv_vp *vp, bool registers_are_new)
{
    CPUState *cs = CPU(vp->cpu);
    struct kvm_run *run = cs->kvm_run;
    int vector;

    mshv_child_update_request(vp);
    if (cs->interrupt_request & CPU_INTERRUPT_NMI)
        inject_nmi(cs);
    if (registers_are_new && (cs->interrupt_request & CPU_INTERRUPT_HARD))
        complete_instruction(cs); /* there is none: KVM only looks whether it could take an interrupt */
    if ((cs->interrupt_request & CPU_INTERRUPT_HARD) && run->ready_for_interrupt_injection &&
        (vp->cpu->env.eflags & IF_MASK)) {
        vector = hv_child_interrupt(vp->core);
        if (vector >= 0) {
            struct kvm_interrupt interrupt = {.irq = (uint32_t)vector};

            kvm_vcpu_ioctl(cs, KVM_INTERRUPT, &interrupt);
        }
        mshv_child_update_request(vp);
    }
    run->request_interrupt_window = (cs->interrupt_request & CPU_INTERRUPT_HARD) != 0;
    run->cr8 = hv_lapic_read_cr8(vp->core);
}

/* -- Undoing -- */

static void undo_state(const CPUX86State *env, struct mshv_undo_state *state)
{
    *state = (struct mshv_undo_state){
        .rip = env->eip,
        .bits = env->hflags & HF_CS64_MASK   ? 64
                : env->hflags & HF_CS32_MASK ? 32
                                             : 16,
        .wide_stack = (env->hflags & HF_SS32_MASK) != 0,
        .down = (env->eflags & DF_MASK) != 0,
    };
    for (unsigned i = 0; i < 16; i++)
        state->gpr[i] = env->regs[i];
    for (unsigned i = 0; i < 6; i++)
        state->segment[i] = env->segs[i].base;
}

static void redo_state(CPUX86State *env, const struct mshv_undo_state *state)
{
    for (unsigned i = 0; i < 16; i++)
        env->regs[i] = state->gpr[i];
    env->eip = state->rip;
}

static size_t read_code(void *opaque, uint64_t rip, uint8_t *bytes, size_t size)
{
    return mshv_read_code(opaque, rip, bytes, size);
}

struct memory_exit {
    struct mshv_vp *vp;
    uint64_t gpa;
};

static bool is_there(void *opaque, uint64_t linear)
{
    const struct memory_exit *memory = opaque;
    struct hv_gva_translation translation;

    mshv_translate_gva(memory->vp->machine, memory->vp->handle, linear, HV_GVA_PRIVILEGE_EXEMPT, &translation);
    return translation.result == HV_GVA_OK && translation.gpa == memory->gpa;
}

static size_t read_exit_code(void *opaque, uint64_t rip, uint8_t *bytes, size_t size)
{
    return mshv_read_code(((const struct memory_exit *)opaque)->vp, rip, bytes, size);
}

/* -- Memory -- */

/* An instruction that is not known is told of as if it were behind, and with its GVA unknown. */
static bool undo_memory(struct mshv_vp *vp, const struct kvm_run *run, uint64_t *gva)
{
    struct memory_exit memory = {.vp = vp, .gpa = run->mmio.phys_addr};
    struct mshv_undo_access access = {
        .write = run->mmio.is_write,
        .size = run->mmio.len,
        .value = ldq_le_p(run->mmio.data) & MAKE_64BIT_MASK(0, run->mmio.len * 8),
        .is_there = is_there,
        .read_code = read_exit_code,
        .opaque = &memory,
    };
    struct mshv_undo_state state;

    undo_state(&vp->cpu->env, &state);
    if (!mshv_undo(&state, &access, gva))
        return false;
    redo_state(&vp->cpu->env, &state);
    return true;
}

static enum next finish(struct mshv_vp *vp, enum hv_exit exit);

static enum next memory_intercept(struct mshv_vp *vp, const struct kvm_run *run, bool unmapped)
{
    struct hv_memory_access access = {
        .gpa = run->mmio.phys_addr,
        .access = run->mmio.is_write ? HV_ACCESS_WRITE : HV_ACCESS_READ,
        .unmapped = unmapped,
    };
    enum hv_exit exit;

    mshv_kvm_get_registers(vp);
    access.interruption_pending = vp->cpu->env.hypervisor_event.valid;
    access.gva_valid = undo_memory(vp, run, &access.gva);
    complete_instruction(CPU(vp->cpu));
    exit = hv_memory_intercept(vp->core, &access);
    return finish(vp, exit);
}

/* TLFS 4.12, 21.1.2: an exception; the write has been retired, and nothing of it happened. */
static enum next refuse_write(struct mshv_vp *vp, const struct kvm_run *run, enum hv_exit exit)
{
    uint64_t gva;

    mshv_kvm_get_registers(vp);
    undo_memory(vp, run, &gva);
    complete_instruction(CPU(vp->cpu));
    return finish(vp, exit);
}

static void access_apic(struct mshv_vp *vp, struct kvm_run *run)
{
    uint32_t offset = run->mmio.phys_addr & ~HV_PAGE_MASK;

    if (run->mmio.is_write) {
        if (run->mmio.len == 4 && offset % 4 == 0)
            hv_lapic_write(vp->core, offset, ldl_le_p(run->mmio.data));
        return;
    }
    stq_le_p(run->mmio.data, 0);
    stl_le_p(run->mmio.data, hv_lapic_read(vp->core, offset & ~3u) >> (8 * (offset % 4)));
}

/* There is memory, but no slot for it yet, or none at all. */
static void access_memory(struct mshv_vp *vp, struct kvm_run *run, const struct hv_translation *translation)
{
    uint64_t offset = run->mmio.phys_addr & ~HV_PAGE_MASK;
    size_t size = MIN(run->mmio.len, HV_PAGE_SIZE - offset);

    if (translation->kind == HV_TRANSLATION_OVERLAY) {
        if (run->mmio.is_write)
            memcpy(translation->page + offset, run->mmio.data, size);
        else
            memcpy(run->mmio.data, translation->page + offset, size);
    } else if (run->mmio.is_write) {
        mshv_write_gpa(vp->machine, vp->handle, translation->spa + offset, run->mmio.data, size);
    } else if (mshv_read_gpa(vp->machine, vp->handle, translation->spa + offset, run->mmio.data, size) != HV_GPA_OK) {
        memset(run->mmio.data, 0xFF, size); /* the parent has mapped what is no memory (TLFS 11.8) */
    }
}

static enum next memory_exit(struct mshv_vp *vp, struct kvm_run *run)
{
    struct hv_translation translation;

    hv_translate_gpa(vp->core, run->mmio.phys_addr, run->mmio.is_write ? HV_ACCESS_WRITE : HV_ACCESS_READ,
                     &translation);
    switch (translation.kind) {
    case HV_TRANSLATION_APIC:
        access_apic(vp, run);
        return finish(vp, HV_EXIT_DONE);
    case HV_TRANSLATION_UNMAPPED:
        return memory_intercept(vp, run, true);
    case HV_TRANSLATION_DENIED:
        return memory_intercept(vp, run, false);
    case HV_TRANSLATION_FAULT:
        return refuse_write(vp, run, HV_EXIT_GP);
    case HV_TRANSLATION_CHECK:
        return refuse_write(vp, run, HV_EXIT_MC);
    default:
        access_memory(vp, run, &translation);
        return NEXT_GO_ON;
    }
}

/* KVM could not read an instruction, or a page table on the way to it. */
static enum next code_exit(struct mshv_vp *vp)
{
    const CPUX86State *env = &vp->cpu->env;
    struct hv_memory_access access = {.access = HV_ACCESS_EXECUTE, .gva_valid = true};
    struct hv_gva_translation translation;
    struct hv_translation place;

    mshv_kvm_get_registers(vp);
    access.gva = env->segs[R_CS].base + env->eip;
    if (!(env->hflags & HF_CS64_MASK))
        access.gva = (uint32_t)access.gva;
    mshv_translate_gva(vp->machine, vp->handle, access.gva, HV_GVA_PRIVILEGE_EXEMPT, &translation);
    access.gpa = translation.gpa;
    if (translation.result == HV_GVA_TABLE_UNMAPPED || translation.result == HV_GVA_TABLE_NO_READ) {
        access.access = HV_ACCESS_READ;
        access.gva_valid = false;
    } else if (translation.result != HV_GVA_OK) {
        return finish(vp, hv_triple_fault(vp->core));
    }
    hv_translate_gpa(vp->core, access.gpa, access.access, &place);
    if (place.kind != HV_TRANSLATION_UNMAPPED && place.kind != HV_TRANSLATION_DENIED)
        return finish(vp, hv_unsupported_feature(vp->core, HV_UNSUPPORTED_INTERCEPT, 0));
    access.unmapped = place.kind == HV_TRANSLATION_UNMAPPED;
    access.interruption_pending = env->hypervisor_event.valid;
    return finish(vp, hv_memory_intercept(vp->core, &access));
}

/* -- I/O -- */

/* Whether KVM has retired OUT when it tells of it differs: it has if completing it does not move RIP any more. */
static bool complete_out(struct mshv_vp *vp)
{
    CPUState *cs = CPU(vp->cpu);
    struct kvm_regs regs;

    complete_instruction(cs);
    return kvm_vcpu_ioctl(cs, KVM_GET_REGS, &regs) == 0 && regs.rip == vp->cpu->env.eip;
}

static uint32_t io_value(const struct kvm_run *run)
{
    const uint8_t *data = (const uint8_t *)run + run->io.data_offset;

    return run->io.size == 1 ? *data : run->io.size == 2 ? lduw_le_p(data) : ldl_le_p(data);
}

static void set_io_value(struct kvm_run *run, uint32_t value)
{
    uint8_t *data = (uint8_t *)run + run->io.data_offset;

    for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
        if (run->io.size == 1)
            *data = (uint8_t)value;
        else if (run->io.size == 2)
            stw_le_p(data, (uint16_t)value);
        else
            stl_le_p(data, value);
    }
}

static enum next io_exit(struct mshv_vp *vp, struct kvm_run *run)
{
    struct hv_io_access io = {
        .port = run->io.port,
        .size = run->io.size,
        .write = run->io.direction == KVM_EXIT_IO_OUT,
        .value = io_value(run),
    };
    struct mshv_undo_io found = {.write = io.write, .size = io.size};
    struct mshv_undo_access code = {.read_code = read_code, .opaque = vp};
    struct mshv_undo_state state;
    enum hv_exit exit;

    mshv_kvm_get_registers(vp);
    undo_state(&vp->cpu->env, &state);
    if (io.write)
        found.retired = complete_out(vp);
    else
        io.value = 0;
    if (mshv_undo_io(&state, &code, &found)) {
        io.string = found.string;
        io.rep = found.rep;
        io.instruction_length = io.string ? 0 : (uint8_t)found.length;
        redo_state(&vp->cpu->env, &state);
    }
    exit = hv_io(vp->core, &io);
    if (exit == HV_EXIT_DONE) {
        CPU(vp->cpu)->vcpu_dirty = false; /* KVM's own are right */
        vp->cpu->env.hypervisor_event.valid = false;
        set_io_value(run, io.value);
    } else if (!io.write) {
        complete_instruction(CPU(vp->cpu));
    }
    return finish(vp, exit);
}

/* -- MSRs -- */

#define MSR_INSTRUCTION_LENGTH 2

static enum hv_exit access_own_msr(struct mshv_vp *vp, struct kvm_run *run, bool write)
{
    if (write)
        return mshv_kvm_write_msr(CPU(vp->cpu), run->msr.index, run->msr.data) ? HV_EXIT_DONE : HV_EXIT_GP;
    return mshv_kvm_read_msr(CPU(vp->cpu), run->msr.index, (uint64_t *)&run->msr.data) ? HV_EXIT_DONE : HV_EXIT_GP;
}

static enum next msr_exit(struct mshv_vp *vp, struct kvm_run *run, bool write)
{
    uint64_t value = 0;
    enum hv_exit exit;

    if (write)
        exit = hv_child_wrmsr(vp->core, run->msr.index, MSR_INSTRUCTION_LENGTH, run->msr.data);
    else
        exit = hv_child_rdmsr(vp->core, run->msr.index, MSR_INSTRUCTION_LENGTH, &value);
    run->msr.data = write ? run->msr.data : value;
    if (exit == HV_EXIT_NATIVE)
        exit = access_own_msr(vp, run, write);
    run->msr.error = exit == HV_EXIT_GP;
    if (exit == HV_EXIT_INTERCEPT)
        mshv_kvm_get_registers(vp);
    if (exit == HV_EXIT_INTERCEPT || exit == HV_EXIT_IDLE)
        complete_instruction(CPU(vp->cpu));
    return finish(vp, exit == HV_EXIT_GP ? HV_EXIT_DONE : exit);
}

/* -- How it goes on -- */

static enum next idle(struct mshv_vp *vp, bool any_interrupt)
{
    vp->cpu->env.hypervisor_idle = any_interrupt;
    CPU(vp->cpu)->halted = 1;
    return NEXT_LEAVE;
}

/* One that it cannot take shuts a processor down. */
static bool can_take_machine_check(X86CPU *cpu)
{
    return (cpu->env.cr[4] & CR4_MCE_MASK) && !(cpu->env.mcg_status & MCG_STATUS_MCIP);
}

static enum next finish(struct mshv_vp *vp, enum hv_exit exit)
{
    X86HypervisorExit end = mshv_finish(vp, exit);

    switch (end) {
    case X86_HYPERVISOR_DONE:
    case X86_HYPERVISOR_LEAVE:
    case X86_HYPERVISOR_NATIVE:
    case X86_HYPERVISOR_RETRY:
        return NEXT_GO_ON;
    case X86_HYPERVISOR_IDLE:
        return idle(vp, true);
    case X86_HYPERVISOR_YIELD:
        qatomic_set(&CPU(vp->cpu)->exit_request, 1); /* when KVM has completed the instruction */
        return NEXT_GO_ON;
    case X86_HYPERVISOR_INTERCEPT:
        return NEXT_LEAVE;
    case X86_HYPERVISOR_MC:
        if (!can_take_machine_check(vp->cpu))
            return finish(vp, hv_triple_fault(vp->core));
        /* fall through */
    case X86_HYPERVISOR_GP:
        kvm_hypervisor_raise(vp->cpu, end);
        take_event(&vp->cpu->env);
        return NEXT_GO_ON;
    case X86_HYPERVISOR_UD:
        break;
    }
    g_assert_not_reached();
}

static enum next hypercall(struct mshv_vp *vp)
{
    if (kvm_hypervisor_call(vp->cpu) < 0)
        return finish(vp, hv_triple_fault(vp->core));
    if (CPU(vp->cpu)->vcpu_dirty)
        take_event(&vp->cpu->env);
    return NEXT_GO_ON; /* an exit has been asked for where it has to leave */
}

static enum next triple_fault(struct mshv_vp *vp)
{
    mshv_kvm_get_registers(vp);
    vp->cpu->env.hypervisor_event.valid = false;
    return finish(vp, hv_triple_fault(vp->core));
}

static enum next internal_error(struct mshv_vp *vp, const struct kvm_run *run)
{
    trace_microsoft_hypervisor_kvm_error(vp->handle, run->internal.suberror);
    if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION)
        return code_exit(vp);
    return triple_fault(vp);
}

static enum next handle_exit(struct mshv_vp *vp, struct kvm_run *run)
{
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        return kvm_arch_io_is_hypercall(run) ? hypercall(vp) : io_exit(vp, run);
    case KVM_EXIT_MMIO:
        return memory_exit(vp, run);
    case KVM_EXIT_X86_RDMSR:
    case KVM_EXIT_X86_WRMSR:
        return msr_exit(vp, run, run->exit_reason == KVM_EXIT_X86_WRMSR);
    case KVM_EXIT_HLT:
        return idle(vp, false);
    case KVM_EXIT_SHUTDOWN:
        return triple_fault(vp);
    case KVM_EXIT_INTERNAL_ERROR:
    case KVM_EXIT_FAIL_ENTRY:
        return internal_error(vp, run);
    default: /* an interrupt window, CR8 */
        return NEXT_GO_ON;
    }
}

static void after_run(struct mshv_vp *vp, const struct kvm_run *run)
{
    CPUX86State *env = &vp->cpu->env;

    if (run->if_flag)
        env->eflags |= IF_MASK;
    else
        env->eflags &= ~IF_MASK;
    if ((run->cr8 & 0xF) != hv_lapic_read_cr8(vp->core))
        hv_lapic_write_cr8(vp->core, run->cr8 & 0xF);
}

static bool is_still_halted(struct mshv_vp *vp)
{
    CPUState *cs = CPU(vp->cpu);

    if (!cs->halted)
        return false;
    if (!x86_cpu_pending_interrupt(cs, cs->interrupt_request) &&
        !(vp->cpu->env.hypervisor_idle && (cs->interrupt_request & CPU_INTERRUPT_HARD)))
        return true;
    cs->halted = 0;
    vp->cpu->env.hypervisor_idle = false;
    return false;
}

/* Enter the guest once, until KVM has something to tell; false: nothing, but that somebody wants the thread. */
static bool enter(struct mshv_vp *vp)
{
    CPUState *cs = CPU(vp->cpu);
    int ret;

    qatomic_set_mb(&vp->running, true);
    mshv_kvm_sync_child(vp);
    if (unlikely(qatomic_read(&vp->stale))) {
        qatomic_set_mb(&vp->stale, false);
        mshv_kvm_flush_own(cs);
    }
    ret = kvm_carried_cpu_run(cs);
    qatomic_store_release(&vp->running, false);
    after_run(vp, cs->kvm_run);
    if (ret < 0 && ret != -EINTR && ret != -EAGAIN)
        cs->kvm_run->exit_reason = KVM_EXIT_FAIL_ENTRY;
    return ret != -EINTR && ret != -EAGAIN;
}

/* KVM's debugging is for one guest, by virtual address (accel/kvm): a debugger may look at a child, but not step it. */
static int refuse_step(struct mshv_vp *vp)
{
    error_report(TYPE_MICROSOFT_HYPERVISOR ": with KVM, single steps are not possible in CPU %d, which runs a child "
                                           "partition; use -accel tcg",
                 CPU(vp->cpu)->cpu_index);
    return EXCP_DEBUG;
}

static int exec_child(X86Hypervisor *hv, X86CPU *cpu)
{
    struct mshv_vp *vp = mshv_vp_of((MicrosoftHypervisor *)hv, cpu);
    enum next next = NEXT_GO_ON;

    if (unlikely(CPU(cpu)->singlestep_enabled))
        return refuse_step(vp);
    if (!be_ready(vp)) {
        hv_triple_fault(vp->core);
        return EXCP_INTERRUPT;
    }
    mshv_child_update_request(vp);
    while (next == NEXT_GO_ON && !is_still_halted(vp)) {
        bool registers_are_new = CPU(cpu)->vcpu_dirty;

        if (!put_registers(vp)) {
            hv_invalid_vp_state(vp->core);
            break;
        }
        update_tsc(vp);
        inject(vp, registers_are_new);
        if (!enter(vp))
            break;
        next = handle_exit(vp, CPU(cpu)->kvm_run);
        if (vp->yield) {
            vp->yield = false;
            qatomic_set(&CPU(cpu)->exit_request, 1); /* when KVM has completed the instruction */
        }
    }
    vp->leave = vp->yield = false;
    return EXCP_INTERRUPT;
}

void mshv_kvm_set_child_hooks(X86HypervisorClass *hooks)
{
    hooks->exec_child = exec_child;
}
