/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "intercept.h"

#include "guest.h"

#define SINT0_SLOT 0

static uint8_t message_pages[GUEST_MAX_CPUS][PAGE_SIZE] __attribute__((aligned(4096)));

static struct hv_message *slot(void)
{
    return (struct hv_message *)message_pages[cpu_index()] + SINT0_SLOT;
}

void intercept_enable(uint8_t vector)
{
    interrupt_set_handler(vector, interrupt_handle_eoi);
    wrmsr(HV_MSR_SIMP, (uintptr_t)message_pages[cpu_index()] | HV_MSR_ENABLE);
    wrmsr(HV_MSR_SINT0 + SINT0_SLOT, vector);
    wrmsr(HV_MSR_SCONTROL, 1);
}

/* -- Decoding -- */

static void decode_io(struct intercept *intercept, const struct hv_io_message *message)
{
    unsigned size = message->access & HV_IO_SIZE;
    uint32_t mask = size == 4 ? UINT32_MAX : (1u << size * 8) - 1;
    intercept->io.port = message->port;
    intercept->io.size = (uint8_t)size;
    intercept->io.string = message->access & HV_IO_STRING;
    intercept->io.repeated = message->access & HV_IO_REPEATED;
    intercept->io.value = intercept->io.write ? (uint32_t)message->rax & mask : mask;
}

static void decode_msr(struct intercept *intercept, const struct hv_msr_message *message)
{
    intercept->msr.index = message->index;
    intercept->msr.value = intercept->msr.write ? message->rdx << 32 | (uint32_t)message->rax : 0;
    intercept->msr.fault = false;
}

static void decode_cpuid(struct intercept *intercept, const struct hv_cpuid_message *message)
{
    intercept->cpuid.leaf = (uint32_t)message->rax;
    intercept->cpuid.subleaf = (uint32_t)message->rcx;
    intercept->cpuid.eax = (uint32_t)message->default_rax;
    intercept->cpuid.ebx = (uint32_t)message->default_rbx;
    intercept->cpuid.ecx = (uint32_t)message->default_rcx;
    intercept->cpuid.edx = (uint32_t)message->default_rdx;
}

static void decode_memory(struct intercept *intercept, const struct hv_memory_message *message)
{
    bool older = root_is_2008r2();
    uint8_t flags = older ? message->r2.flags : message->current.flags;
    unsigned count = older ? message->r2.count : message->current.count;
    intercept->memory.gpa = message->gpa;
    intercept->memory.gva = message->gva;
    intercept->memory.gva_valid = flags & 1;
    intercept->memory.mapped = intercept->message.type == (uint32_t)HV_MESSAGE_GpaIntercept;
    intercept->memory.count = count < 16 ? count : 16;
    memcpy(intercept->memory.bytes, message->bytes, sizeof(message->bytes));
}

static void decode_exception(struct intercept *intercept, const struct hv_exception_message *message)
{
    intercept->exception.vector = message->vector;
    intercept->exception.has_error = message->flags & 1;
    intercept->exception.error = message->error_code;
    intercept->exception.parameter = message->parameter;
}

/* The generations encode the kind of access differently: a mask in the specification, a number today. */
static void decode_access(const struct intercept *intercept, bool *write, bool *execute)
{
    uint8_t access = intercept_header(intercept)->access;
    *write = root_is_2008r2() ? access & HV_INTERCEPT_WRITE : access == 1;
    *execute = root_is_2008r2() ? access & HV_INTERCEPT_EXECUTE : access == 2;
}

static void decode(struct intercept *intercept)
{
    const void *payload = (const void *)intercept->message.payload;
    bool write, execute;
    intercept->partition = intercept->message.sender;
    intercept->vp = *(const uint32_t *)payload;
    intercept->length = intercept_header(intercept)->instruction_length & 0xF;
    decode_access(intercept, &write, &execute);
    switch ((int)intercept->message.type) {
    case HV_MESSAGE_X64IoPortIntercept:
        intercept->io.write = write;
        decode_io(intercept, payload);
        break;
    case HV_MESSAGE_X64MsrIntercept:
        intercept->msr.write = write;
        decode_msr(intercept, payload);
        break;
    case HV_MESSAGE_X64CpuidIntercept:
        decode_cpuid(intercept, payload);
        break;
    case HV_MESSAGE_UnmappedGpa:
    case HV_MESSAGE_GpaIntercept:
        intercept->memory.write = write;
        intercept->memory.execute = execute;
        decode_memory(intercept, payload);
        break;
    case HV_MESSAGE_X64ExceptionIntercept:
        decode_exception(intercept, payload);
        break;
    default:
        break;
    }
}

/* -- Receiving -- */

/*
 * Empty the slot before the VP is resumed: the VP's next message goes there, and one that finds the slot full waits for
 * an EOI or for the write to EOM that the flag asks for (TLFS 14.8.3).
 */
static void take(struct intercept *intercept)
{
    struct hv_message *from = slot();
    memcpy((void *)&intercept->message, (const void *)from, sizeof(*from));
    __atomic_store_n(&from->type, 0, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&from->flags, __ATOMIC_SEQ_CST) & HV_MESSAGE_PENDING) {
        wrmsr(HV_MSR_EOM, 0);
    }
}

/* Interrupts are off between the look at the slot and the halt, so none is lost. */
static void wait_for_message(void (*idle)(void *), void *context)
{
    while (slot()->type == 0) {
        if (idle) {
            idle(context);
        }
        if (slot()->type == 0) {
            interrupts_on_halt();
        }
    }
}

bool intercept_receive(struct intercept *intercept, uint64_t microseconds)
{
    if (microseconds) {
        if (!WAIT_UNTIL((interrupts_on(), cpu_pause(), interrupts_off(), slot()->type != 0), microseconds)) {
            return false;
        }
    }
    wait_for_message(NULL, NULL);
    take(intercept);
    decode(intercept);
    return true;
}

/* -- Completing -- */

struct completion {
    struct hv_register_assignment list[8];
    unsigned count;
};

static void set(struct completion *completion, uint32_t name, uint64_t value)
{
    completion->list[completion->count++] = (struct hv_register_assignment){.name = name, .value.u64 = value};
}

/* IN to AL and AX leaves the rest of RAX alone, to EAX clears its upper half. */
static uint64_t merge_in(uint64_t rax, uint32_t value, unsigned size)
{
    if (size == 4) {
        return value;
    }
    uint64_t mask = (UINT64_C(1) << size * 8) - 1;
    return (rax & ~mask) | (value & mask);
}

static void set_results(struct completion *completion, const struct intercept *intercept)
{
    switch ((int)intercept->message.type) {
    case HV_MESSAGE_X64IoPortIntercept:
        if (!intercept->io.write && !intercept->io.string) {
            const struct hv_io_message *message = (const void *)intercept_header(intercept);
            set(completion, HV_REGISTER_Rax, merge_in(message->rax, intercept->io.value, intercept->io.size));
        }
        break;
    case HV_MESSAGE_X64MsrIntercept:
        if (!intercept->msr.write) {
            set(completion, HV_REGISTER_Rax, (uint32_t)intercept->msr.value);
            set(completion, HV_REGISTER_Rdx, intercept->msr.value >> 32);
        }
        break;
    case HV_MESSAGE_X64CpuidIntercept:
        set(completion, HV_REGISTER_Rax, intercept->cpuid.eax);
        set(completion, HV_REGISTER_Rbx, intercept->cpuid.ebx);
        set(completion, HV_REGISTER_Rcx, intercept->cpuid.ecx);
        set(completion, HV_REGISTER_Rdx, intercept->cpuid.edx);
        break;
    default:
        break;
    }
}

/* Outside of 64-bit code the instruction pointer wraps with the code segment's size, which is 4 GiB here or less. */
static uint64_t next_rip(const struct intercept *intercept)
{
    const struct hv_intercept_header *header = intercept_header(intercept);
    uint64_t rip = header->rip + intercept->length;
    bool wide = header->execution_state & HV_STATE_LMA && header->cs.attributes & 0x2000;
    return wide ? rip : (uint32_t)rip;
}

void intercept_complete(struct intercept *intercept, enum intercept_action action)
{
    struct completion completion = {.count = 0};
    struct child child = {.id = intercept->partition};
    if (action == INTERCEPT_SUSPENDED || action == INTERCEPT_END) {
        return;
    }
    bool is_msr = intercept->message.type == (uint32_t)HV_MESSAGE_X64MsrIntercept;
    if (action == INTERCEPT_DONE && is_msr && intercept->msr.fault) {
        child_inject_exception(&child, intercept->vp, VECTOR_GP, true, 0);
    } else if (action == INTERCEPT_DONE) {
        if (intercept->length == 0) {
            intercept_describe(intercept);
            guest_panic("an intercept was handled without knowing the instruction's length");
        }
        set_results(&completion, intercept);
        set(&completion, HV_REGISTER_Rip, next_rip(intercept));
    }
    set(&completion, HV_REGISTER_InterceptSuspend, 0);
    child_set_registers(&child, intercept->vp, completion.list, completion.count);
}

static intercept_handler *handler_for(const struct intercept_handlers *handlers, uint32_t type)
{
    switch ((int)type) {
    case HV_MESSAGE_X64IoPortIntercept:
        return handlers->io;
    case HV_MESSAGE_X64MsrIntercept:
        return handlers->msr;
    case HV_MESSAGE_X64CpuidIntercept:
        return handlers->cpuid;
    case HV_MESSAGE_UnmappedGpa:
    case HV_MESSAGE_GpaIntercept:
        return handlers->memory;
    case HV_MESSAGE_X64ExceptionIntercept:
        return handlers->exception;
    default:
        return handlers->other;
    }
}

void intercept_loop(const struct intercept_handlers *handlers, void *context, struct intercept *last)
{
    struct intercept intercept;
    enum intercept_action action;
    do {
        wait_for_message(handlers->idle, context);
        take(&intercept);
        decode(&intercept);
        intercept_handler *handler = handler_for(handlers, intercept.message.type);
        if (!handler) {
            intercept_describe(&intercept);
            guest_panic("no handler for this message");
        }
        action = handler(&intercept, context);
        intercept_complete(&intercept, action);
    } while (action != INTERCEPT_END);
    if (last) {
        *last = intercept;
    }
}

/* -- Words -- */

static const char *type_name(uint32_t type)
{
    switch ((int)type) {
#define HV_MESSAGE_TYPE_ROW(value, name, ...)                                                                          \
    case (int)(value):                                                                                                 \
        return #name;
#include "message_types.def"
#undef HV_MESSAGE_TYPE_ROW
    default:
        return "?";
    }
}

static void describe_registers(const struct child *child, unsigned vp)
{
    static const uint32_t names[] = {
        HV_REGISTER_Rax, HV_REGISTER_Rcx, HV_REGISTER_Rdx, HV_REGISTER_Rbx, HV_REGISTER_Rsp, HV_REGISTER_Rbp,
        HV_REGISTER_Rsi, HV_REGISTER_Rdi, HV_REGISTER_R8,  HV_REGISTER_R9,  HV_REGISTER_R10, HV_REGISTER_R11,
        HV_REGISTER_R12, HV_REGISTER_R13, HV_REGISTER_R14, HV_REGISTER_R15, HV_REGISTER_Rip, HV_REGISTER_Rflags,
        HV_REGISTER_Cr0, HV_REGISTER_Cr2, HV_REGISTER_Cr3, HV_REGISTER_Cr4, HV_REGISTER_Efer};
    static const char *const texts[] = {"rax", "rcx",   "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8",  "r9",    "r10", "r11", "r12", "r13", "r14", "r15",
                                        "rip", "flags", "cr0", "cr2", "cr3", "cr4", "efer"};
    enum { COUNT = sizeof(names) / sizeof(names[0]) };
    _Static_assert(sizeof(texts) / sizeof(texts[0]) == COUNT, "one name each");
    union hv_register_value values[COUNT];
    struct hv_in_get_vp_registers input = {.partition = child->id, .vp = vp};
    if (hvcall_get_vp_registers(&input, names, values, COUNT, NULL) != HV_STATUS_SUCCESS) {
        return;
    }
    for (unsigned i = 0; i < COUNT; i++) {
        print("%s%5s %016llx%s", i % 4 == 0 ? "# " : " ", texts[i], (unsigned long long)values[i].u64,
              i % 4 == 3 || i + 1 == COUNT ? "\n" : "");
    }
}

void intercept_describe(const struct intercept *intercept)
{
    const struct child child = {.id = intercept->partition};
    const volatile uint64_t *payload = intercept->message.payload;
    print("# message %x %s of partition %llx, VP %u\n", intercept->message.type, type_name(intercept->message.type),
          (unsigned long long)intercept->partition, intercept->vp);
    for (unsigned i = 0; i < intercept->message.payload_size / 8u && i < 16; i += 4) {
        print("# +%02x %016llx %016llx %016llx %016llx\n", 16 + i * 8, (unsigned long long)payload[i],
              (unsigned long long)payload[i + 1], (unsigned long long)payload[i + 2],
              (unsigned long long)payload[i + 3]);
    }
    describe_registers(&child, intercept->vp);
}
