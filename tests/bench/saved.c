/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The benchmark's program for a root whose child is saved: 512 MiB without a page of zeros, half of them random, half
 * what data structures look like. The child counts; each millisecond the root looks whether it does, and tells how long
 * it has stood still:
 *
 *   ready
 *   still MICROSECONDS           after each time of more than 5 ms
 */
#include "root.h"

#define CHILD_MEMORY (UINT64_C(512) << 20)
#define CODE 0x10000u
#define COUNTER 0x20000u
#define VECTOR_TICK 0x50
#define TICK_NS 1000000u
#define APIC_PERIODIC 0x20000u
#define APIC_UNDIVIDED 0xBu
#define WORTH_TELLING_US 5000u

/* In real mode: DS is 0x2000, so COUNTER is DS:0. */
static const uint8_t counting[] = {
    0xB8, 0x00, 0x20, /* mov $0x2000, %ax */
    0x8E, 0xD8, /* mov %ax, %ds */
    0x66, 0xFF, 0x06, 0x00, 0x00, /* incl 0 */
    0xEB, 0xF9, /* jmp to the incl */
};

static volatile uint32_t *counter;
static uint32_t counted;
static uint64_t since, longest;

static void tick(struct frame *frame)
{
    uint64_t now = clock_microseconds();

    (void)frame;
    if (*counter != counted) {
        if (now - since > WORTH_TELLING_US)
            longest = now - since;
        counted = *counter;
        since = now;
    }
    apic_eoi();
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Records of eight words: pointers to others, a number that counts up, small numbers, padding. */
static void fill_with_records(uint64_t *words, uint64_t *state)
{
    for (unsigned i = 0; i < PAGE_SIZE / 8; i += 8) {
        uint64_t random = next_random(state);

        words[i] = UINT64_C(0x7F3200000000) + (random & 0xFFFFFF0);
        words[i + 1] = (uintptr_t)&words[i] / 64;
        words[i + 2] = 0;
        words[i + 3] = UINT64_C(0x7F3200000000) + (random >> 32 & 0xFFFFFF0);
        words[i + 4] = random >> 56;
        words[i + 5] = 0;
        words[i + 6] = 1;
        words[i + 7] = random >> 48 & 0xFFF;
    }
}

static void fill(uint64_t *words)
{
    uint64_t state = 1;

    for (uint64_t page = 0; page < CHILD_MEMORY / PAGE_SIZE; page++, words += PAGE_SIZE / 8) {
        if (page / 64 % 2) {
            fill_with_records(words, &state);
            continue;
        }
        for (unsigned i = 0; i < PAGE_SIZE / 8; i++)
            words[i] = next_random(&state);
    }
}

void guest_main(void)
{
    struct child child = {.privileges = CHILD_PRIVILEGES};

    root_enable();
    child_create(&child);
    child_add_memory(&child, 0, CHILD_MEMORY);
    fill(child_memory(&child, 0, CHILD_MEMORY));
    memcpy(child_memory(&child, CODE, sizeof(counting)), counting, sizeof(counting));
    counter = child_memory(&child, COUNTER, sizeof(*counter));
    child_add_vp(&child, 0);
    child_enter_real_mode(&child, 0, CODE >> 4);
    child_resume(&child, 0);
    since = clock_microseconds();
    interrupt_set_handler(VECTOR_TICK, tick);
    apic_write(APIC_TIMER_DIVIDE, APIC_UNDIVIDED);
    apic_write(APIC_LVT_TIMER, APIC_PERIODIC | VECTOR_TICK);
    apic_write(APIC_TIMER_INITIAL, TICK_NS);
    print("child %llu\nready\n", (unsigned long long)child.id);
    for (;;) {
        __asm__ volatile("sti; hlt; cli" : : : "memory");
        if (longest)
            print("still %llu\n", (unsigned long long)longest);
        longest = 0;
    }
}
