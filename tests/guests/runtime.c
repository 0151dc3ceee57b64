/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The runtime checks itself: what other guests rely on. Needs no hypervisor. */
#include "guest.h"

static void store_index(void *argument)
{
    volatile unsigned *indices = argument;
    indices[cpu_index()] = cpu_index() + 1;
}

CHECK(boot_options, "command line and format")
{
    char text[64];
    EXPECT(guest_command_line()[0] != '\0');
    EXPECT(guest_option("mode", text, sizeof(text)));
    EXPECT_EQ(format_text(text, sizeof(text), "%d|%05x|%-4s|%llu|%c", -7, 0xABCu, "ab", 18446744073709551615ull, 'z'),
              strlen("-7|00abc|ab  |18446744073709551615|z"));
    EXPECT(text_equal(text, "-7|00abc|ab  |18446744073709551615|z"));
}

CHECK(all_cpus_run, "INIT-SIPI-SIPI; CPU i has APIC ID i")
{
    unsigned indices[GUEST_MAX_CPUS] = {0};
    smp_run_all(store_index, indices);
    for (unsigned i = 0; i < cpu_count(); i++) {
        EXPECT_EQ(indices[i], i + 1);
    }
    EXPECT_EQ(apic_id(), 0);
}

static struct barrier rounds_barrier;
static volatile unsigned rounds_sum;

static void count_rounds(void *argument)
{
    (void)argument;
    for (unsigned round = 0; round < 100; round++) {
        __atomic_add_fetch(&rounds_sum, 1, __ATOMIC_RELAXED);
        barrier_wait(&rounds_barrier, cpu_count());
        EXPECT_EQ(__atomic_load_n(&rounds_sum, __ATOMIC_RELAXED), (round + 1) * cpu_count());
        barrier_wait(&rounds_barrier, cpu_count());
    }
}

CHECK(barrier_rounds, "a barrier holds everybody back", .min_vps = 2)
{
    rounds_sum = 0;
    smp_run_all(count_rounds, NULL);
}

CHECK(exceptions_are_caught, "vector, error code, RIP and address")
{
    struct fault fault;
    uintptr_t expected_ip = 0;
    CATCH(fault, __asm__ volatile("lea 1f, %0; mov %0, %1; 1: ud2" : "=&r"((uintptr_t){0}), "=m"(expected_ip)));
    EXPECT(fault.raised);
    EXPECT_EQ(fault.vector, VECTOR_UD);
    EXPECT_EQ(fault.ip, expected_ip);
    CATCH(fault, __asm__ volatile("mov %0, %%fs" : : "r"(0x1000)));
    EXPECT_EQ(fault.vector, VECTOR_GP);
    EXPECT_EQ(fault.error, 0x1000);
    EXPECT_WRMSR_FAULT(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) ^ 0xC00, VECTOR_GP); /* x2APIC without enable */
    EXPECT_RDMSR_FAULT(MSR_APIC_BASE, NO_FAULT);
    CATCH(fault, *(volatile uint32_t *)VM_TEST_BASE = 1);
    EXPECT_EQ(fault.vector, VECTOR_PF);
    EXPECT_EQ(fault.error, 2);
    EXPECT_EQ(fault.address, VM_TEST_BASE);
    EXPECT_FAULT(NO_FAULT, cpu_pause());
}

static void fault_everywhere(void *argument)
{
    (void)argument;
    for (unsigned i = 0; i < 100; i++) {
        EXPECT_FAULT(VECTOR_UD, __asm__ volatile("ud2"));
    }
}

CHECK(exceptions_on_all_cpus, "every CPU has its own CATCH", .min_vps = 2)
{
    smp_run_all(fault_everywhere, NULL);
}

__asm__(".text; user_code: hlt; user_code_breakpoint: int3");
extern const uint8_t user_code[], user_code_breakpoint[];

CHECK(user_mode, "CPL 3 and back")
{
    struct user_registers registers = {{0}};
    struct fault fault = user_run((uintptr_t)user_code, &registers);
    EXPECT_EQ(fault.vector, VECTOR_GP);
    EXPECT_EQ(fault.ip, (uintptr_t)user_code);
    fault = user_run((uintptr_t)user_code_breakpoint, &registers);
    EXPECT_EQ(fault.vector, VECTOR_BP);
}

CHECK(real_mode, "a CPU in real mode, and afresh after it", .min_vps = 2)
{
    static const uint8_t nothing[] = {0x90}, undefined[] = {0x0F, 0x0B};
    EXPECT_EQ(smp_run_real_mode(1, nothing, sizeof(nothing)), NO_FAULT);
    EXPECT_EQ(smp_run_real_mode(1, undefined, sizeof(undefined)), VECTOR_UD);
    unsigned indices[GUEST_MAX_CPUS] = {0};
    smp_run(1, store_index, indices);
    EXPECT_EQ(indices[1], 2);
}

CHECK(paging_maps, "4 KiB mappings, address spaces")
{
    volatile uint32_t *first = page_alloc(1), *second = page_alloc(1), *window = (volatile uint32_t *)VM_TEST_BASE;
    uintptr_t root = vm_create(), other = vm_create();
    *first = 1;
    *second = 2;
    vm_map(root, VM_TEST_BASE, (uintptr_t)first, PTE_P | PTE_W);
    vm_map(other, VM_TEST_BASE, (uintptr_t)second, PTE_P | PTE_W);
    write_cr3(root);
    EXPECT_EQ(*window, 1);
    write_cr3(other);
    EXPECT_EQ(*window, 2);
    vm_map(other, VM_TEST_BASE, (uintptr_t)first, PTE_P | PTE_W);
    invlpg(VM_TEST_BASE);
    EXPECT_EQ(*window, 1);
    vm_unmap(other, VM_TEST_BASE);
    invlpg(VM_TEST_BASE);
    EXPECT_FAULT(VECTOR_PF, (void)*window);
    write_cr3(vm_root());
    EXPECT_FAULT(VECTOR_PF, (void)*window);
}

CHECK(clock_runs, "HPET")
{
    uint64_t before = clock_nanoseconds();
    clock_delay(1000);
    uint64_t after = clock_nanoseconds();
    EXPECT(after - before >= 1000000);
    EXPECT(clock_measure_tsc() > 1000000);
    EXPECT(!WAIT_UNTIL(false, 100));
    EXPECT(WAIT_UNTIL(true, 0));
}

CHECK(self_ipi, "interrupts are counted and ended")
{
    interrupt_set_handler(0x40, interrupt_handle_eoi);
    apic_send_ipi(apic_id(), 0x40);
    EXPECT(WAIT_UNTIL(apic_vector_set(APIC_IRR, 0x40), SOON));
    EXPECT_EQ(interrupt_count(0, 0x40), 0);
    interrupts_on();
    EXPECT(WAIT_UNTIL(interrupt_count(0, 0x40) == 1, SOON));
    interrupts_off();
    EXPECT(!apic_vector_set(APIC_ISR, 0x40));
}

CHECK(apic_timer_wakes, "HLT ends at the local APIC's timer")
{
    interrupt_set_handler(0x41, interrupt_handle_eoi);
    apic_write(APIC_TIMER_DIVIDE, 0xB);
    apic_write(APIC_LVT_TIMER, 0x41);
    apic_write(APIC_TIMER_INITIAL, 100000);
    while (interrupt_count(0, 0x41) == 0) {
        interrupts_on_halt();
    }
    EXPECT_EQ(interrupt_count(0, 0x41), 1);
    apic_write(APIC_LVT_TIMER, 0x10000);
}

CHECK(x2apic_mode, "to x2APIC mode and back")
{
    if (!apic_enable_x2apic()) {
        EXPECT(!(cpuid(1, 0).ecx & 1u << 21));
        return;
    }
    EXPECT_EQ(apic_id(), 0);
    apic_init();
    interrupt_set_handler(0x42, interrupt_handle_eoi);
    apic_send_ipi(0, 0x42);
    interrupts_on();
    EXPECT(WAIT_UNTIL(interrupt_count(0, 0x42) == 1, SOON));
    interrupts_off();
    apic_reset_mode();
    EXPECT_EQ(apic_id(), 0);
}

struct persistent {
    uint32_t magic, boots;
};

CHECK(reset_and_continue, "a check can reset the machine", .flags = CHECK_RESETS)
{
    volatile struct persistent *persistent = (volatile struct persistent *)GUEST_PERSISTENT;
    if (persistent->magic != 0x52E5E7) {
        persistent->magic = 0x52E5E7;
        persistent->boots = 1;
        outb(0xCF9, 0x02);
        outb(0xCF9, 0x06);
        clock_delay(1000000);
        persistent->magic = 0;
        REQUIRE(false && "the machine did not reset");
    }
    persistent->magic = 0;
    EXPECT_EQ(persistent->boots, 1);
}
