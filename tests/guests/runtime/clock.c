/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "clock.h"

#include "console.h"

#define HPET_BASE 0xFED00000u
#define HPET_CAPABILITIES 0x000 /* 63:32: period in femtoseconds */
#define HPET_CONFIG 0x010
#define HPET_COUNTER 0x0F0
#define FEMTOSECONDS_PER_NANOSECOND 1000000u

static uint32_t period_ns;

static volatile uint32_t *hpet(unsigned offset)
{
    return (volatile uint32_t *)(uintptr_t)(HPET_BASE + offset);
}

static uint64_t counter(void)
{
    uint32_t high, low;
    do {
        high = *hpet(HPET_COUNTER + 4);
        low = *hpet(HPET_COUNTER);
    } while (high != *hpet(HPET_COUNTER + 4));
    return (uint64_t)high << 32 | low;
}

void clock_init(void)
{
    uint32_t period = *hpet(HPET_CAPABILITIES + 4);
    if (period == 0 || period == 0xFFFFFFFF || period % FEMTOSECONDS_PER_NANOSECOND != 0) {
        guest_panic("no usable HPET (period %u fs): the runtime needs a machine of type q35 or pc with hpet=on",
                    period);
    }
    period_ns = period / FEMTOSECONDS_PER_NANOSECOND;
    *hpet(HPET_CONFIG) = *hpet(HPET_CONFIG) | 1;
}

uint64_t clock_nanoseconds(void)
{
    return counter() * period_ns;
}

#ifndef __x86_64__
/* 64-bit quotients for 32-bit code, which has no library to take them from. */
static uint64_t divide_long(uint64_t dividend, uint64_t divisor, uint64_t *remainder)
{
    uint64_t quotient = 0, rest = 0;
    for (int bit = 63; bit >= 0; bit--) {
        rest = rest << 1 | (dividend >> bit & 1);
        if (rest >= divisor) {
            rest -= divisor;
            quotient |= UINT64_C(1) << bit;
        }
    }
    *remainder = rest;
    return quotient;
}

uint64_t __udivdi3(uint64_t dividend, uint64_t divisor);
uint64_t __umoddi3(uint64_t dividend, uint64_t divisor);
int64_t __divdi3(int64_t dividend, int64_t divisor);

uint64_t __udivdi3(uint64_t dividend, uint64_t divisor)
{
    uint64_t remainder;
    return divide_long(dividend, divisor, &remainder);
}

uint64_t __umoddi3(uint64_t dividend, uint64_t divisor)
{
    uint64_t remainder;
    divide_long(dividend, divisor, &remainder);
    return remainder;
}

int64_t __divdi3(int64_t dividend, int64_t divisor)
{
    uint64_t remainder;
    uint64_t quotient = divide_long(dividend < 0 ? -(uint64_t)dividend : (uint64_t)dividend,
                                    divisor < 0 ? -(uint64_t)divisor : (uint64_t)divisor, &remainder);
    return (int64_t)((dividend < 0) != (divisor < 0) ? -quotient : quotient);
}
#endif

void clock_delay(uint64_t microseconds)
{
    uint64_t end = clock_nanoseconds() + microseconds * 1000;
    while (clock_nanoseconds() < end) {
        cpu_pause();
    }
}

uint64_t clock_measure_tsc(void)
{
    uint64_t clock_begin = clock_nanoseconds(), tsc_begin = rdtsc();
    clock_delay(20000);
    uint64_t clock_end = clock_nanoseconds(), tsc_end = rdtsc();
    return (tsc_end - tsc_begin) * 1000000 / ((clock_end - clock_begin) / 1000);
}
