/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Time from a clock that has nothing to do with the hypervisor: the HPET's counter, which follows QEMU's virtual clock.
 */
#ifndef GUEST_CLOCK_H
#define GUEST_CLOCK_H

#include "cpu.h"

uint64_t clock_nanoseconds(void);
static inline uint64_t clock_microseconds(void)
{
    return clock_nanoseconds() / 1000;
}
void clock_delay(uint64_t microseconds);
/* TSC ticks per second, measured against the clock in 20 ms. */
uint64_t clock_measure_tsc(void);
void clock_init(void);

/* Time within which anything happens that happens at all, however busy the host is; for WAIT_UNTIL. */
#define SOON 15000000

/* Spin until the condition holds; false when it does not within the time. */
#define WAIT_UNTIL(condition, microseconds)                                                                            \
    ({                                                                                                                 \
        uint64_t wait_end_ = clock_microseconds() + (microseconds);                                                    \
        bool wait_result_;                                                                                             \
        while (!(wait_result_ = !!(condition)) && clock_microseconds() < wait_end_) {                                  \
            cpu_pause();                                                                                               \
        }                                                                                                              \
        wait_result_ || (condition);                                                                                   \
    })

#endif
