/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest whose VPs all look at their clocks for ever: the reference counter, the reference TSC page, and a periodic
 * timer. VP 0 tells how far they are, and says FAILED when two of them disagree.
 */
#include "guest.h"

#define VECTOR 0x60
#define PERIOD 100000 /* 10 ms */
#define LINE_EVERY 10

static struct hv_reference_tsc *page;
static volatile uint32_t ticks[GUEST_MAX_CPUS];
static volatile uint64_t looks[GUEST_MAX_CPUS];

static void tick(struct frame *frame)
{
    ticks[cpu_index()]++;
    interrupt_handle_eoi(frame);
}

static void look(uint64_t *latest)
{
    uint64_t first = 0, second = 0;
    bool valid = hv_tsc_page_time(page, &first);
    uint64_t middle = rdmsr(HV_MSR_TIME_REF_COUNT);

    valid = hv_tsc_page_time(page, &second) && valid;
    if (!valid || first < *latest || middle < first || second < middle) {
        print("FAILED: VP %u: after %llu page %llu, register %llu, page %llu\n", cpu_index(),
              (unsigned long long)*latest, (unsigned long long)first, (unsigned long long)middle,
              (unsigned long long)second);
    }
    *latest = second;
    looks[cpu_index()]++;
}

static void watch(void *argument)
{
    uint64_t latest = 0;
    uint32_t next = LINE_EVERY;

    (void)argument;
    wrmsr(HV_MSR_STIMER_CONFIG(0),
          HV_STIMER_PERIODIC | HV_STIMER_DIRECT | HV_STIMER_VECTOR(VECTOR) | HV_STIMER_AUTO_ENABLE);
    wrmsr(HV_MSR_STIMER_COUNT(0), PERIOD);
    interrupts_on();
    for (;;) {
        look(&latest);
        if (cpu_index() == 0 && ticks[0] >= next) {
            print("time=%llu ticks=%u looks=%llu/%llu\n", (unsigned long long)latest, ticks[0],
                  (unsigned long long)looks[0], (unsigned long long)looks[cpu_count() - 1]);
            next = ticks[0] + LINE_EVERY;
        }
    }
}

void guest_main(void)
{
    interrupt_set_handler(VECTOR, tick);
    hv_enable();
    page = page_alloc(1);
    wrmsr(HV_MSR_REFERENCE_TSC, (uintptr_t)page | HV_MSR_ENABLE);
    print("ready\n");
    smp_run_all(watch, NULL);
}
