/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest that the operator talks to: it enables its synthetic interrupt controller, tells each message and event that
 * arrives on its console, and does what a message of type COMMAND_TYPE says.
 */
#include "guest.h"

#define SINT 2
#define VECTOR 0x60
#define COMMAND_TYPE 7u

enum command {
    COMMAND_POST = 1, /* post a message to connection `argument` */
    COMMAND_SIGNAL, /* signal flag 5 of connection `argument` */
    COMMAND_UNKNOWN_CALL, /* make a hypercall with a code that does not exist */
    COMMAND_CRASH, /* report a crash, with text when `argument` is not 0 */
    COMMAND_HOLD, /* take no more messages until event flag 0 comes */
    COMMAND_TIMER, /* start timer 1: periodic, direct, every `argument` units of 100 ns */
};

static struct hv_message *slots;
static volatile uint32_t *event_flags; /* of SINT: 2048 flags */
static bool holding;

/* Not text at all, a control character, and trailing bytes that are cut off. */
static const char crash_text[] = "Kernel panic: test\n\x1b[31m\xff\xfe caf\xc3\xa9\0\0";

static void post(uint32_t connection)
{
    uint64_t *input = page_alloc(1);
    input[0] = connection;
    input[1] = 1 | UINT64_C(8) << 32; /* message type, payload size */
    input[2] = 0x1122334455667788;
    print("posted status=%x\n", HV_RESULT_STATUS(hv_call(HV_POST_MESSAGE, (uintptr_t)input, 0)));
}

static void signal(uint32_t connection)
{
    uint64_t input = connection | UINT64_C(5) << 32;
    print("signaled status=%x\n", HV_RESULT_STATUS(hv_call(HV_SIGNAL_EVENT | HV_CALL_FAST, input, 0)));
}

static void crash(bool with_text)
{
    uint64_t values[5] = {0xDEAD, 1, 2, with_text ? (uintptr_t)crash_text : 3, with_text ? sizeof(crash_text) - 1 : 4};
    for (unsigned i = 0; i < 5; i++) {
        wrmsr(HV_MSR_CRASH_P0 + i, values[i]);
    }
    wrmsr(HV_MSR_CRASH_CTL, HV_CRASH_NOTIFY | (with_text ? HV_CRASH_MESSAGE : 0));
    print("crash reported\n");
}

static void start_timer(uint64_t period)
{
    interrupt_set_handler(VECTOR + 1, interrupt_handle_eoi);
    wrmsr(HV_MSR_STIMER_COUNT(1), period);
    wrmsr(HV_MSR_STIMER_CONFIG(1),
          HV_STIMER_ENABLE | HV_STIMER_PERIODIC | HV_STIMER_DIRECT | HV_STIMER_VECTOR(VECTOR + 1));
    print("timer started\n");
}

static void execute(uint64_t command, uint64_t argument)
{
    switch (command) {
    case COMMAND_POST:
        post((uint32_t)argument);
        break;
    case COMMAND_SIGNAL:
        signal((uint32_t)argument);
        break;
    case COMMAND_UNKNOWN_CALL:
        print("called status=%x\n", HV_RESULT_STATUS(hv_call(0x0FFF, 0, 0)));
        break;
    case COMMAND_CRASH:
        crash(argument);
        break;
    case COMMAND_HOLD:
        holding = true;
        print("holding\n");
        break;
    case COMMAND_TIMER:
        start_timer(argument);
        break;
    default:
        print("unknown command %llu\n", (unsigned long long)command);
    }
}

static void take_message(void)
{
    struct hv_message *slot = &slots[SINT];
    uint32_t type = slot->type;
    uint64_t command = slot->payload[0], argument = slot->payload[1];
    bool pending;

    if (!type) {
        return;
    }
    print("message type=%x size=%u sender=%llx payload=%llx\n", type, slot->payload_size,
          (unsigned long long)slot->sender, (unsigned long long)command);
    slot->type = 0;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    pending = slot->flags & HV_MESSAGE_PENDING;
    if (pending) {
        wrmsr(HV_MSR_EOM, 0);
    }
    if (type == COMMAND_TYPE) {
        execute(command, argument);
    }
}

static void take_events(void)
{
    for (unsigned word = 0; word < 64; word++) {
        uint32_t flags = __atomic_exchange_n(&event_flags[word], 0, __ATOMIC_SEQ_CST);
        for (unsigned bit = 0; bit < 32; bit++) {
            if (!(flags >> bit & 1)) {
                continue;
            }
            print("event flag=%u\n", word * 32 + bit);
            holding = holding && word * 32 + bit != 0;
        }
    }
}

static void enable_synic(void)
{
    uint8_t *flags = page_alloc(1);

    slots = page_alloc(1);
    event_flags = (uint32_t *)(flags + 256 * SINT);
    interrupt_set_handler(VECTOR, interrupt_handle_eoi);
    wrmsr(HV_MSR_SIMP, (uintptr_t)slots | HV_MSR_ENABLE);
    wrmsr(HV_MSR_SIEFP, (uintptr_t)flags | HV_MSR_ENABLE);
    wrmsr(HV_MSR_SINT0 + SINT, VECTOR);
    wrmsr(HV_MSR_SCONTROL, HV_MSR_ENABLE);
}

void guest_main(void)
{
    char synic[8];

    hv_enable();
    wrmsr(HV_MSR_REFERENCE_TSC, (uintptr_t)page_alloc(1) | HV_MSR_ENABLE);
    wrmsr(HV_MSR_APIC_ASSIST_PAGE, (uintptr_t)page_alloc(1) | HV_MSR_ENABLE);
    if (guest_option("synic", synic, sizeof(synic)) && text_equal(synic, "off")) {
        print("ready\n");
        for (;;) {
            cpu_halt();
        }
    }
    enable_synic();
    print("ready\n");
    for (;;) {
        take_events();
        if (!holding) {
            take_message();
        }
        __asm__ volatile("sti; hlt; cli" : : : "memory");
    }
}
