/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The library itself, where it needs no child: instructions taken apart, RAM shared out. */
#include "root.h"

void guest_cleanup(void)
{
    root_reset_state();
}

struct load {
    uint8_t bytes[12];
    unsigned length, size, extend;
    uint32_t name;
    bool high_byte, narrow; /* narrow: 32-bit code */
};

static const struct load loads[] = {
    {{0x8B, 0x06}, 2, 4, 0, HV_REGISTER_Rax, false, false}, /* mov (%rsi), %eax */
    {{0x8B, 0x4E, 0x10}, 3, 4, 0, HV_REGISTER_Rcx, false, false}, /* mov 16(%rsi), %ecx */
    {{0x8B, 0x96, 0, 1, 0, 0}, 6, 4, 0, HV_REGISTER_Rdx, false, false}, /* mov 256(%rsi), %edx */
    {{0x8B, 0x05, 0, 0, 0, 0}, 6, 4, 0, HV_REGISTER_Rax, false, false}, /* mov 0(%rip), %eax */
    {{0x8B, 0x1D, 0, 0, 0, 0}, 6, 4, 0, HV_REGISTER_Rbx, false, true}, /* mov 0, %ebx */
    {{0x48, 0x8B, 0x06}, 3, 8, 0, HV_REGISTER_Rax, false, false}, /* mov (%rsi), %rax */
    {{0x4D, 0x8B, 0x07}, 3, 8, 0, HV_REGISTER_R8, false, false}, /* mov (%r15), %r8 */
    {{0x66, 0x8B, 0x06}, 3, 2, 0, HV_REGISTER_Rax, false, false}, /* mov (%rsi), %ax */
    {{0x8A, 0x26}, 2, 1, 0, HV_REGISTER_Rax, true, false}, /* mov (%rsi), %ah */
    {{0x40, 0x8A, 0x26}, 3, 1, 0, HV_REGISTER_Rsp, false, false}, /* mov (%rsi), %spl */
    {{0x8B, 0x04, 0x25, 0, 0, 0, 0}, 7, 4, 0, HV_REGISTER_Rax, false, false}, /* mov 0, %eax (absolute) */
    {{0x8B, 0x44, 0x88, 0x04}, 4, 4, 0, HV_REGISTER_Rax, false, false}, /* mov 4(%rax,%rcx,4), %eax */
    {{0x42, 0x8B, 0x84, 0x20, 0, 0, 0, 0}, 8, 4, 0, HV_REGISTER_Rax, false, false}, /* mov 0(%rax,%r12), %eax */
    {{0x0F, 0xB6, 0x06}, 3, 1, 4, HV_REGISTER_Rax, false, false}, /* movzbl (%rsi), %eax */
    {{0x0F, 0xB7, 0x36}, 3, 2, 4, HV_REGISTER_Rsi, false, false}, /* movzwl (%rsi), %esi */
    {{0x48, 0x0F, 0xB6, 0x06}, 4, 1, 8, HV_REGISTER_Rax, false, false}, /* movzbq (%rsi), %rax */
    {{0x65, 0x8B, 0x06}, 3, 4, 0, HV_REGISTER_Rax, false, false}, /* mov %gs:(%rsi), %eax */
    {{0xA1, 0, 0, 0, 0}, 5, 4, 0, HV_REGISTER_Rax, false, true}, /* mov 0, %eax, short form */
    {{0xA1, 0, 0, 0, 0, 0, 0, 0, 0}, 9, 4, 0, HV_REGISTER_Rax, false, false}, /* movabs 0, %eax */
    {{0x41}, 0, 0, 0, 0, false, false}, /* too few bytes */
    {{0x03, 0x06}, 0, 0, 0, 0, false, false}, /* add (%rsi), %eax: no move */
    {{0x8B, 0xC1}, 0, 0, 0, 0, false, false}, /* mov %ecx, %eax: no memory */
    {{0x0F, 0xBE, 0x06}, 0, 0, 0, 0, false, false}, /* movsbl (%rsi), %eax */
    {{0x89, 0x06}, 0, 0, 0, 0, false, false}, /* mov %eax, (%rsi): a write, the message says read */
};

static struct intercept make_read(const struct load *load)
{
    struct intercept intercept = {.memory = {.gpa = 0x1234000, .count = load->length ? load->length : 2}};
    struct hv_intercept_header *header = (void *)intercept.message.payload;
    header->execution_state = load->narrow ? 0 : HV_STATE_LMA;
    header->cs.attributes = load->narrow ? 0xC09B : 0xA09B;
    memcpy(intercept.memory.bytes, load->bytes, sizeof(load->bytes));
    return intercept;
}

CHECK(loads_are_decoded, "the library: length, size and register of plain moves from memory")
{
    for (unsigned i = 0; i < sizeof(loads) / sizeof(loads[0]); i++) {
        struct intercept intercept = make_read(&loads[i]);
        struct mmio mmio;
        bool known = mmio_decode(&intercept, &mmio);
        EXPECT_THAT(known == (loads[i].length > 0), "instruction %u: %s", i, known ? "decoded" : "not decoded");
        if (!known || !loads[i].length) {
            continue;
        }
        EXPECT_THAT(intercept.length == loads[i].length, "instruction %u: length %u", i, intercept.length);
        EXPECT_THAT(mmio.size == loads[i].size && mmio.extend == loads[i].extend, "instruction %u: size %u, %u", i,
                    mmio.size, mmio.extend);
        EXPECT_THAT(mmio.name == loads[i].name && mmio.high_byte == loads[i].high_byte, "instruction %u: register %x",
                    i, mmio.name);
    }
}

CHECK(truncated_instructions_are_not, "the library: never beyond the bytes of the message")
{
    for (unsigned i = 0; i < sizeof(loads) / sizeof(loads[0]); i++) {
        for (unsigned count = 0; count < loads[i].length; count++) {
            struct intercept intercept = make_read(&loads[i]);
            struct mmio mmio;
            intercept.memory.count = count;
            EXPECT_THAT(!mmio_decode(&intercept, &mmio), "instruction %u of %u bytes", i, count);
        }
    }
}

CHECK(ram_is_shared_out, "the library: ranges are aligned, zeroed and apart; pages come back")
{
    uintptr_t first = ram_take(3 * PAGE_SIZE, PAGE_SIZE), large = ram_take(LARGE_PAGE_SIZE, LARGE_PAGE_SIZE);
    EXPECT(large >= first + 3 * PAGE_SIZE);
    EXPECT_EQ(large % LARGE_PAGE_SIZE, 0);
    uintptr_t page = ram_take_page();
    EXPECT(page >= large + LARGE_PAGE_SIZE);
    *(uint64_t *)page = 1;
    ram_give_page(page);
    EXPECT_EQ(ram_take_page(), page);
    EXPECT_EQ(*(uint64_t *)page, 0);
    size_t left = ram_left();
    ram_free_all();
    EXPECT(ram_left() > left);
}

CHECK(tables_agree_with_the_machine, "4.2: a call's row gives what the hypervisor checks")
{
    root_enable();
    struct hv_out_get_partition_id self;
    HV_MUST(hvcall_get_partition_id(NULL, &self));
    EXPECT(self.partition != 0);
    struct hv_in_get_next_child_partition input = {.parent = self.partition};
    struct hv_out_get_next_child_partition output = {.child = 1};
    HV_MUST(hvcall_get_next_child_partition(&input, &output));
    EXPECT_EQ(output.child, 0);
    struct hv_in_delete_partition missing = {.partition = 0x123456};
    EXPECT_EQ(hvcall_delete_partition(&missing, NULL), HV_STATUS_INVALID_PARTITION_ID);
    EXPECT(text_equal(hv_status_name(HV_STATUS_INVALID_PARTITION_ID), "INVALID_PARTITION_ID"));
}
