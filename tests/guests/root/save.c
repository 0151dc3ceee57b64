/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS 17: a parent saves a child by the hypervisor's own calls, deletes it, makes it anew, restores it, and it goes
 * on: registers, floating point and vectors, memory that the parent kept, its clock and a timer that was running.
 */
#include "programs.h"

#define START 1u
#define COMPLETE 0u
#define INCOMPLETE 1u
#define CHUNK 4080u
#define MOST (256u << 10)

#define CR4_OSFXSR 0x200u /* without it vector instructions are #UD */

void guest_cleanup(void)
{
    root_reset_state();
}

static uint8_t *stream;
static unsigned length;

static void save_all(void)
{
    struct hv_in_save_partition_state input = {.partition = child.id, .flags = START};
    static struct hv_out_save_partition_state output;
    length = 0;
    do {
        HV_MUST(hvcall_save_partition_state(&input, &output));
        REQUIRE(output.count <= CHUNK && length + output.count <= MOST);
        memcpy(stream + length, output.data, output.count);
        length += output.count;
        input.flags = 0;
    } while (output.state == INCOMPLETE);
    EXPECT_EQ(output.state, COMPLETE);
}

static unsigned restore_chunk(unsigned flags, const uint8_t *data, unsigned count,
                              struct hv_out_restore_partition_state *output)
{
    static struct {
        struct hv_in_restore_partition_state head;
        uint8_t data[CHUNK];
    } input;
    struct hv_call_form form = hv_form_restore_partition_state;
    input.head = (struct hv_in_restore_partition_state){.partition = child.id, .flags = flags, .count = count};
    memcpy(input.data, data, count);
    form.input = (uint16_t)(sizeof(input.head) + count);
    return hv_call_simple(&form, &input, output);
}

static void restore_all(void)
{
    struct hv_out_restore_partition_state output = {.state = INCOMPLETE};
    for (unsigned at = 0; at < length && output.state == INCOMPLETE; at += output.count) {
        unsigned count = length - at < CHUNK ? length - at : CHUNK;
        HV_MUST(restore_chunk(at ? 0 : START, stream + at, count, &output));
    }
    EXPECT_EQ(output.state, COMPLETE);
}

static void suspend_all(void)
{
    for (unsigned i = 0; child.vps >> i; i++) {
        child_suspend(&child, i);
    }
}

/* The same memory below a new partition: what it holds is the parent's to keep (17.1.4). */
static void make_again(unsigned vps)
{
    struct child_range range = child.ranges[0];
    child_delete(&child);
    child = (struct child){.privileges = CHILD_PRIVILEGES};
    child_create(&child);
    child_map(&child, range.gpa, range.root, range.size, CHILD_RAM);
    for (unsigned i = 0; i < vps; i++) {
        child_add_vp(&child, i);
    }
    child_intercept_ports(&child, PORT_DONE, 1);
}

static void prepare(unsigned vps)
{
    begin(vps);
    stream = (uint8_t *)ram_reserve(MOST, PAGE_SIZE);
}

/* It counts in a register and in memory, and looks at the clock, for ever. */
#define COUNT                                                                                                          \
    "mov $0x40000020, %ecx;"                                                                                           \
    "1: incq %r12; mov %r12, 0x7000; rdmsr; shl $32, %rdx; or %rdx, %rax;"                                             \
    "cmp 0x7008, %rax; jae 2f; movl $1, 0x7018; 2: mov %rax, 0x7008; jmp 1b"
#define SAY(what) "mov $" what ", %al; out %al, $0x80;"
CHILD_PROGRAM(count, 64, COUNT)
CHILD_PROGRAM(finish, 64, SAY("0x42") "hlt")
/* The same with a stack of two numbers, and one in XMM9. */
CHILD_PROGRAM(count_with_fpu, 64, "fninit; fld1; fldpi; mov $7, %r13; movq %r13, %xmm9;" COUNT)
CHILD_PROGRAM(finish_with_fpu, 64,
              "fxch; fld1; fcomip; jne 3f; movq %xmm9, %rax; cmp $7, %rax; jne 3f;" SAY("0x42") "3:" SAY("0xEE") "hlt")

static void save_and_restore(bool fpu)
{
    volatile uint64_t *counter, *clock, *backwards;
    prepare(1);
    counter = data_at(DATA_GPA);
    clock = data_at(DATA_GPA + 8);
    backwards = data_at(DATA_GPA + 0x18);
    if (fpu) {
        PUT64(0, count_with_fpu);
    } else {
        PUT64(0, count);
    }
    set(HV_REGISTER_Cr4, get(HV_REGISTER_Cr4) | CR4_OSFXSR);
    child_resume(&child, 0);
    REQUIRE(WAIT_UNTIL(*counter > 100, SOON));
    suspend_all();
    save_all();
    uint64_t counted = get(HV_REGISTER_R12), rip = get(HV_REGISTER_Rip), time = *clock;
    make_again(1);
    EXPECT_THAT(get(HV_REGISTER_R12) != counted, "a new VP has a counter of %llx", (unsigned long long)counted);
    restore_all();
    EXPECT_EQ(get(HV_REGISTER_R12), counted);
    EXPECT_EQ(get(HV_REGISTER_Rip), rip);
    EXPECT_EQ(*clock, time);
    child_resume(&child, 0);
    REQUIRE(WAIT_UNTIL(*counter > counted + 100, SOON));
    EXPECT_EQ(*backwards, 0);
    child_suspend(&child, 0);
    if (fpu) {
        PUT64(0, finish_with_fpu);
    } else {
        PUT64(0, finish);
    }
    set(HV_REGISTER_Cr4, get(HV_REGISTER_Cr4) | CR4_OSFXSR);
    child_resume(&child, 0);
    EXPECT_EQ(said(), 0x42);
    child_delete(&child);
}

CHECK(a_child_goes_on, "TLFS 17.1.7, 17.1.8: saved, deleted, made anew and restored, a child goes on")
{
    save_and_restore(false);
}

CHECK(floating_point_goes_on, "TLFS 17.1.5: so do its floating-point and vector registers")
{
    save_and_restore(true);
}

CHECK(the_caller_is_told, "TLFS 17.3.1, 17.3.2: VPs that run, a restore that was not begun, a damaged stream")
{
    struct hv_in_save_partition_state input = {.partition = 0, .flags = START};
    static struct hv_out_save_partition_state saved;
    struct hv_out_restore_partition_state output;
    prepare(1);
    input.partition = child.id;
    PUT64(0, count);
    child_resume(&child, 0);
    EXPECT_EQ(hvcall_save_partition_state(&input, &saved), HV_STATUS_OPERATION_DENIED);
    EXPECT_EQ(restore_chunk(START, stream, 0, &output), HV_STATUS_OPERATION_DENIED);
    child_suspend(&child, 0);
    EXPECT_EQ(restore_chunk(0, stream, 0, &output), HV_STATUS_INVALID_SAVE_RESTORE_STATE);
    save_all();
    stream[length / 2] ^= 1;
    unsigned at = 0;
    do {
        unsigned count = length - at < CHUNK ? length - at : CHUNK;
        HV_MUST(restore_chunk(at ? 0 : START, stream + at, count, &output));
        at += output.count;
    } while (output.state == INCOMPLETE && at < length);
    EXPECT_EQ(output.state, 3); /* HvStateCorruptData */
    child_resume(&child, 0);
    child_delete(&child);
}
