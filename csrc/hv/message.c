/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 16: the messages by which a parent learns of its child's intercepts.
 *
 * A VP has one buffer for them (TLFS 14.2.1). A message is built in it, from no more registers than it shows, the VP is
 * suspended, and the buffer goes to SINT0 of a VP of the parent. Everything here runs on the VP's own thread, which
 * owns its registers; only the queue needs a lock, that of the receiving VP.
 *
 * Segment registers are laid out as deployed clients read them (types.h).
 */
#include "stats.h"

#include <string.h>

#define INTERCEPT_SINT 0
#define PAGE_FAULT 14

/* -- Layouts (TLFS 16.2.2 to 16.5.9). The payload begins at offset 16 of the message. -- */

struct intercept_header {
    uint32_t vp_index;
    uint8_t instruction_length;
    uint8_t access_type;
    uint16_t execution_state;
    struct hv_segment_register cs;
    uint64_t rip, rflags;
};
_Static_assert(sizeof(struct intercept_header) == 40, "TLFS 16.2.2");

#define STATE_CPL 0x3u
#define STATE_CR0_PE (1u << 2)
#define STATE_CR0_AM (1u << 3)
#define STATE_EFER_LMA (1u << 4)
#define STATE_DEBUG_ACTIVE (1u << 5)
#define STATE_INTERRUPTION_PENDING (1u << 6)

struct cpuid_message {
    struct intercept_header header;
    uint64_t rax, rcx, rdx, rbx;
    uint64_t default_rax, default_rcx, default_rdx, default_rbx;
};
_Static_assert(sizeof(struct cpuid_message) == 104, "TLFS 16.5.1");

struct msr_message {
    struct intercept_header header;
    uint32_t msr_number, reserved;
    uint64_t rdx, rax;
};
_Static_assert(sizeof(struct msr_message) == 64, "TLFS 16.5.2");

struct io_message {
    struct intercept_header header;
    uint16_t port;
    uint8_t access_info; /* 2:0 size, 3 string, 4 rep */
    uint8_t instruction_byte_count;
    uint32_t reserved;
    uint64_t rax;
    uint8_t instruction_bytes[16];
    struct hv_segment_register ds, es;
    uint64_t rcx, rsi, rdi;
};
_Static_assert(sizeof(struct io_message) == 128, "TLFS 16.5.3");

#define IO_STRING (1u << 3)
#define IO_REP (1u << 4)

/* The end of the larger messages. */
struct registers {
    struct hv_segment_register ds, ss;
    uint64_t gpr[16]; /* in the order of their register names */
};

struct exception_message {
    struct intercept_header header;
    uint16_t vector;
    uint8_t flags; /* bit 0: there is an error code */
    uint8_t instruction_byte_count;
    uint32_t error_code;
    uint64_t parameter, reserved;
    uint8_t instruction_bytes[16];
    struct registers registers;
};
_Static_assert(sizeof(struct exception_message) == 240, "TLFS 16.5.4");

struct memory_message_2008r2 {
    struct intercept_header header;
    uint16_t reserved;
    uint8_t flags; /* bit 0: the GVA is valid */
    uint8_t instruction_byte_count;
    uint32_t cache_type;
    uint64_t gva, gpa;
    uint8_t instruction_bytes[16];
    struct registers registers;
};
_Static_assert(sizeof(struct memory_message_2008r2) == 240, "TLFS 16.3");

/* Later than 2.0a: another order, and no registers. */
struct memory_message_current {
    struct intercept_header header;
    uint32_t cache_type;
    uint8_t instruction_byte_count;
    uint8_t flags; /* bit 0: the GVA is valid, bit 1: it is that of the GPA */
    uint8_t tpr_priority;
    uint8_t reserved;
    uint64_t gva, gpa;
    uint8_t instruction_bytes[16];
};
_Static_assert(sizeof(struct memory_message_current) == 80, "later");

#define MEMORY_GVA_VALID 1u
#define MEMORY_GVA_OF_GPA 2u
#define CACHE_TYPE_WB 6

struct vp_message { /* TLFS 16.5.5 to 16.5.7 */
    uint32_t vp_index;
    uint32_t vector; /* APIC EOI only */
};

struct unsupported_message {
    uint32_t vp_index, code;
    uint64_t parameter;
};
_Static_assert(sizeof(struct unsupported_message) == 16, "TLFS 16.5.9");

/* Later than 2.0a. */
struct deliverable_message {
    struct intercept_header header;
    uint32_t type; /* as of a pending interruption (TLFS 10.3.4) */
    uint32_t reserved;
};

static bool is_current(const struct hv_vp *vp)
{
    return vp->hv->config.generation == HV_GEN_CURRENT;
}

/* -- Registers -- */

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI }; /* in the order of their register names */

static const uint64_t *gprs(const struct hv_vp *vp)
{
    return vp->hv->ops->gprs(vp->hv->context, vp->handle);
}

static struct hv_segment_register segment(struct hv_vp *vp, enum hv_register_name name)
{
    union hv_register_value value;

    vp->hv->ops->get_register(vp->hv->context, vp->handle, name, &value);
    return value.segment;
}

static size_t instruction_bytes(struct hv_vp *vp, uint8_t bytes[16])
{
    return vp->hv->ops->read_instruction(vp->hv->context, vp->handle, bytes);
}

#define CR0_PE (UINT64_C(1) << 0)
#define CR0_AM (UINT64_C(1) << 18)
#define EFER_LMA (UINT64_C(1) << 10)
#define RFLAGS_VM (UINT64_C(1) << 17)
#define DR7_ENABLE_BITS UINT64_C(0xFF)

/* TLFS 16.2.3 */
static uint16_t execution_state(const struct hv_execution *execution)
{
    unsigned state = 0;

    if (execution->cr0 & CR0_PE)
        state = STATE_CR0_PE | (execution->rflags & RFLAGS_VM ? 3u : execution->cs.selector & STATE_CPL);
    if (execution->cr0 & CR0_AM)
        state |= STATE_CR0_AM;
    if (execution->efer & EFER_LMA)
        state |= STATE_EFER_LMA;
    if (execution->dr7 & DR7_ENABLE_BITS)
        state |= STATE_DEBUG_ACTIVE;
    if (execution->interruption_pending)
        state |= STATE_INTERRUPTION_PENDING;
    return (uint16_t)state;
}

/* The text types this field as a mask; deployed clients read 0, 1, 2 for read, write, execute. */
static uint8_t access_type(const struct hv_vp *vp, unsigned access)
{
    return (uint8_t)(is_current(vp) ? access >> 1 : access);
}

static void fill_header(struct hv_vp *vp, struct intercept_header *header, uint8_t length, unsigned access)
{
    struct hv_execution execution;

    vp->hv->ops->get_execution(vp->hv->context, vp->handle, &execution);
    header->vp_index = vp->index;
    header->instruction_length = length;
    header->access_type = access_type(vp, access);
    header->execution_state = execution_state(&execution);
    header->cs = execution.cs;
    header->rip = execution.rip;
    header->rflags = execution.rflags;
}

static void fill_registers(struct hv_vp *vp, struct registers *registers)
{
    registers->ds = segment(vp, HV_REGISTER_Ds);
    registers->ss = segment(vp, HV_REGISTER_Ss);
    memcpy(registers->gpr, gprs(vp), sizeof(registers->gpr));
}

/* -- The buffer and its queue (TLFS 14.2.6) -- */

void hv_intercept_vp_remove(struct hv_vp *vp)
{
    struct hv_message_buffer *buffer = &vp->intercept_buffer;
    struct hv_vp *receiver = vp->intercept_receiver;

    if (!receiver || !atomic_load_explicit(&buffer->in_use, memory_order_acquire))
        return;
    hv_vp_lock_take(&receiver->lock);
    if (atomic_load(&buffer->in_use))
        hv_message_unlink(buffer);
    hv_vp_lock_drop(&receiver->lock);
}

/* Make the buffer free, though the parent may not have read what it holds: it resumed the VP too early. `size` bytes of
 * the payload become zero. */
static void *begin(struct hv_vp *vp, size_t size)
{
    vp->intercept_began = hv_cost_begin(vp, HV_VPV_OtherMessages);
    hv_intercept_vp_remove(vp);
    memset(vp->intercept_buffer.message.payload, 0, size);
    return vp->intercept_buffer.message.payload;
}

/* Entries of a nested parent's table may change meanwhile: what is found is looked at again under its lock. */
static struct hv_vp *vp_at(const struct hv_partition *partition, hv_vp_index index)
{
    return __atomic_load_n(&partition->vps[index], __ATOMIC_ACQUIRE);
}

/*
 * The VP of the parent that gets the message: the text leaves the choice. One that runs on the same LP needs no wake-up
 * of another; one that cannot take messages now is the last resort, as somebody has to know.
 */
static struct hv_vp *choose_receiver(struct hv_vp *vp)
{
    const struct hv_partition *parent = vp->partition->parent;
    unsigned lp = hv_vp_get_lp(vp);
    struct hv_vp *fallback = NULL, *accepting = NULL;

    if (!parent->parent && lp < parent->vp_limit && hv_synic_accepts_messages(parent->vps[lp]))
        return parent->vps[lp]; /* VP i of the root is bound to LP i (TLFS 22.3) */
    for (hv_vp_index i = 0; i < parent->vp_limit; i++) {
        struct hv_vp *candidate = vp_at(parent, i);

        if (!candidate)
            continue;
        if (!fallback)
            fallback = candidate;
        if (!hv_synic_accepts_messages(candidate))
            continue;
        if (hv_vp_get_lp(candidate) == lp)
            return candidate;
        if (!accepting)
            accepting = candidate;
    }
    return accepting ? accepting : fallback;
}

/* Queue the buffer. A receiver that has just been deleted is not one: try the next choice. */
static void post(struct hv_vp *vp, enum hv_message_type type, size_t size)
{
    struct hv_message_buffer *buffer = &vp->intercept_buffer;
    struct hv_interrupts interrupts = {{0}};
    struct hv_vp *receiver;

    buffer->sint = INTERCEPT_SINT;
    buffer->timer = -1;
    buffer->intercept = true;
    buffer->message.header = (struct hv_message_header){
        .message_type = (uint32_t)type,
        .payload_size = (uint8_t)size,
        .origination_id = vp->partition->id,
    };
    while ((receiver = choose_receiver(vp)) != NULL) {
        bool exists;

        hv_vp_lock_take(&receiver->lock);
        exists = receiver->partition == vp->partition->parent;
        if (exists) {
            vp->intercept_receiver = receiver;
            atomic_store_explicit(&buffer->in_use, true, memory_order_relaxed); /* who owns the VP looks */
            hv_message_enqueue(receiver, buffer, &interrupts);
        }
        hv_vp_lock_drop(&receiver->lock);
        if (exists)
            break;
    }
    if (receiver)
        hv_interrupts_request(receiver, &interrupts);
}

static bool is_page_fault(const struct hv_vp *vp)
{
    const struct exception_message *message = (const void *)vp->intercept_buffer.message.payload;

    return message->vector == PAGE_FAULT;
}

/* By message, and what no other counter has as an intercept (TLFS J.4.2): whether it is one of those. */
static bool count(struct hv_vp *vp, enum hv_message_type type)
{
    bool is_other = true;

    switch (type) {
    case HV_MESSAGE_TYPE_X64IoPortIntercept:
        HV_COUNT(vp, IoInterceptMessages);
        return false;
    case HV_MESSAGE_TYPE_UnmappedGpa:
    case HV_MESSAGE_TYPE_GpaIntercept:
        HV_COUNT(vp, MemoryInterceptMessages);
        return false;
    case HV_MESSAGE_TYPE_X64CpuidIntercept:
    case HV_MESSAGE_TYPE_X64MsrIntercept:
        is_other = false;
        break;
    case HV_MESSAGE_TYPE_X64ExceptionIntercept:
        is_other = !is_page_fault(vp);
        break;
    default:
        break;
    }
    HV_COUNT(vp, OtherMessages);
    if (is_other)
        HV_COUNT(vp, OtherIntercepts);
    return is_other;
}

/* The VP is suspended, and the message counted, before its parent can see it. */
static enum hv_exit suspend_and_post(struct hv_vp *vp, enum hv_message_type type, size_t size)
{
    bool is_other = count(vp, type);

    HV_LOG(vp, INTERCEPT_BEGIN, hv_event_rip(vp), (uint32_t)type);
    atomic_fetch_or(&vp->suspend, HV_SUSPEND_INTERCEPT);
    post(vp, type, size);
    if (is_other)
        hv_cost_end(vp, HV_VPV_OtherIntercepts, vp->intercept_began);
    return HV_EXIT_INTERCEPT;
}

/* -- Memory (TLFS 16.3) -- */

static bool delivers_interruption(const struct intercept_header *header, const struct hv_memory_access *access)
{
    return access->interruption_pending || (header->execution_state & STATE_INTERRUPTION_PENDING);
}

/* Of the page, from the guest's tables; an access without a GVA is one to a table, which is write-back. */
static uint32_t cache_type(struct hv_vp *vp, const struct hv_memory_access *access)
{
    struct hv_gva_translation translation = {.result = HV_GVA_NOT_PRESENT};

    if (access->gva_valid)
        vp->hv->ops->translate_gva(vp->hv->context, vp->handle, access->gva, HV_GVA_PRIVILEGE_EXEMPT, &translation);
    return translation.result == HV_GVA_OK ? translation.cache_type : CACHE_TYPE_WB;
}

static size_t memory_2008r2(struct hv_vp *vp, const struct hv_memory_access *access)
{
    struct memory_message_2008r2 *message = begin(vp, sizeof(*message));

    fill_header(vp, &message->header, 0, access->access);
    message->flags = access->gva_valid ? MEMORY_GVA_VALID : 0;
    message->cache_type = cache_type(vp, access);
    message->gva = access->gva_valid ? access->gva : 0;
    message->gpa = access->gpa;
    if (!delivers_interruption(&message->header, access))
        message->instruction_byte_count = (uint8_t)instruction_bytes(vp, message->instruction_bytes);
    fill_registers(vp, &message->registers);
    return sizeof(*message);
}

static size_t memory_current(struct hv_vp *vp, const struct hv_memory_access *access)
{
    struct memory_message_current *message = begin(vp, sizeof(*message));

    fill_header(vp, &message->header, 0, access->access);
    message->flags = access->gva_valid ? MEMORY_GVA_VALID | MEMORY_GVA_OF_GPA : 0;
    message->cache_type = cache_type(vp, access);
    message->tpr_priority = hv_lapic_read_cr8(vp);
    message->gva = access->gva_valid ? access->gva : 0;
    message->gpa = access->gpa;
    if (!delivers_interruption(&message->header, access))
        message->instruction_byte_count = (uint8_t)instruction_bytes(vp, message->instruction_bytes);
    return sizeof(*message);
}

enum hv_exit hv_message_memory(struct hv_vp *vp, const struct hv_memory_access *access)
{
    size_t size = is_current(vp) ? memory_current(vp, access) : memory_2008r2(vp, access);

    return suspend_and_post(vp, access->unmapped ? HV_MESSAGE_TYPE_UnmappedGpa : HV_MESSAGE_TYPE_GpaIntercept, size);
}

/* -- Instructions (TLFS 16.5.1 to 16.5.3) -- */

enum hv_exit hv_message_cpuid(struct hv_vp *vp, uint8_t length, const struct hv_cpuid *result)
{
    struct cpuid_message *message = begin(vp, 0); /* nothing of it is left out below */
    const uint64_t *gpr = gprs(vp);

    fill_header(vp, &message->header, length, HV_ACCESS_EXECUTE);
    message->rax = gpr[RAX];
    message->rcx = gpr[RCX];
    message->rdx = gpr[RDX];
    message->rbx = gpr[RBX];
    message->default_rax = result->eax;
    message->default_rcx = result->ecx;
    message->default_rdx = result->edx;
    message->default_rbx = result->ebx;
    return suspend_and_post(vp, HV_MESSAGE_TYPE_X64CpuidIntercept, sizeof(*message));
}

enum hv_exit hv_message_msr(struct hv_vp *vp, uint32_t index, uint8_t length, unsigned access)
{
    struct msr_message *message = begin(vp, sizeof(*message));
    const uint64_t *gpr = gprs(vp);

    fill_header(vp, &message->header, length, access);
    message->msr_number = index;
    message->rdx = gpr[RDX];
    message->rax = gpr[RAX];
    return suspend_and_post(vp, HV_MESSAGE_TYPE_X64MsrIntercept, sizeof(*message));
}

/* What string forms add, to emulate them with. */
static void fill_string_io(struct hv_vp *vp, const struct hv_io_access *io, struct io_message *message)
{
    const uint64_t *gpr = gprs(vp);

    message->access_info |= IO_STRING | (io->rep ? IO_REP : 0);
    message->instruction_byte_count = (uint8_t)instruction_bytes(vp, message->instruction_bytes);
    message->ds = segment(vp, HV_REGISTER_Ds);
    message->es = segment(vp, HV_REGISTER_Es);
    message->rcx = gpr[RCX];
    message->rsi = gpr[RSI];
    message->rdi = gpr[RDI];
}

enum hv_exit hv_message_io(struct hv_vp *vp, const struct hv_io_access *io)
{
    struct io_message *message = begin(vp, sizeof(*message));

    fill_header(vp, &message->header, io->instruction_length, io->write ? HV_ACCESS_WRITE : HV_ACCESS_READ);
    message->port = io->port;
    message->access_info = io->size;
    message->rax = gprs(vp)[RAX];
    if (io->string)
        fill_string_io(vp, io, message);
    return suspend_and_post(vp, HV_MESSAGE_TYPE_X64IoPortIntercept, sizeof(*message));
}

/* -- Exceptions and the rest (TLFS 16.5.4 to 16.5.9) -- */

enum hv_exit hv_message_exception(struct hv_vp *vp, const struct hv_exception *exception)
{
    struct exception_message *message = begin(vp, sizeof(*message));

    fill_header(vp, &message->header, 0, HV_ACCESS_EXECUTE);
    message->vector = exception->vector;
    message->flags = exception->error_code_valid;
    message->error_code = exception->error_code_valid ? exception->error_code : 0;
    message->parameter = exception->parameter;
    if (!(message->header.execution_state & STATE_INTERRUPTION_PENDING))
        message->instruction_byte_count = (uint8_t)instruction_bytes(vp, message->instruction_bytes);
    fill_registers(vp, &message->registers);
    return suspend_and_post(vp, HV_MESSAGE_TYPE_X64ExceptionIntercept, sizeof(*message));
}

enum hv_exit hv_message_unrecoverable_exception(struct hv_vp *vp)
{
    struct intercept_header *header = begin(vp, sizeof(*header));

    fill_header(vp, header, 0, HV_ACCESS_EXECUTE);
    return suspend_and_post(vp, HV_MESSAGE_TYPE_UnrecoverableException, sizeof(*header));
}

static enum hv_exit vp_message(struct hv_vp *vp, enum hv_message_type type, uint32_t vector)
{
    struct vp_message *message = begin(vp, sizeof(*message));

    message->vp_index = vp->index;
    message->vector = vector;
    return suspend_and_post(vp, type, sizeof(*message));
}

enum hv_exit hv_message_invalid_register_value(struct hv_vp *vp)
{
    return vp_message(vp, HV_MESSAGE_TYPE_InvalidVpRegisterValue, 0);
}

/* The instruction that is behind these retires: the VP stops at the boundary after it (TLFS 13.3.4, 16.5.6). */
static enum hv_exit stop_behind(struct hv_vp *vp, enum hv_message_type type, uint32_t vector)
{
    enum hv_exit exit = vp_message(vp, type, vector);

    vp->hv->ops->kick_vp(vp->hv->context, vp->handle);
    return exit;
}

enum hv_exit hv_message_ferr_asserted(struct hv_vp *vp)
{
    return stop_behind(vp, is_current(vp) ? HV_MESSAGE_TYPE_X64FerrAsserted : HV_MESSAGE_TYPE_FerrAsserted, 0);
}

enum hv_exit hv_message_apic_eoi(struct hv_vp *vp, uint8_t vector)
{
    return stop_behind(vp, is_current(vp) ? HV_MESSAGE_TYPE_X64ApicEoi : HV_MESSAGE_TYPE_ApicEoi, vector);
}

enum hv_exit hv_message_unsupported_feature(struct hv_vp *vp, uint32_t code, uint64_t parameter)
{
    struct unsupported_message *message = begin(vp, sizeof(*message));

    *message = (struct unsupported_message){.vp_index = vp->index, .code = code, .parameter = parameter};
    return suspend_and_post(vp, HV_MESSAGE_TYPE_UnsupportedFeature, sizeof(*message));
}

enum hv_exit hv_message_interruption_deliverable(struct hv_vp *vp, uint32_t type)
{
    struct deliverable_message *message = begin(vp, sizeof(*message));
    enum hv_exit exit;

    fill_header(vp, &message->header, 0, HV_ACCESS_EXECUTE);
    message->type = type;
    exit = suspend_and_post(vp, HV_MESSAGE_TYPE_X64InterruptionDeliverable, sizeof(*message));
    vp->hv->ops->kick_vp(vp->hv->context, vp->handle);
    return exit;
}
