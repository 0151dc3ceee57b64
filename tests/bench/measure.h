/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the benchmark's programs share: options, lines of output, and IPIs from CPU 0 to CPU 1 and back.
 *
 *   BENCH name ps value          mean of some turns
 *   BENCH name ns value          a single event
 *   BENCH-END
 *
 * Options: repeat=N, repetitions of each figure; only=PREFIX, nothing but names that begin so (for a profiler).
 */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include "guest.h"

#define PATIENCE_US 2000000u

static unsigned repeat = 9;
static uint64_t tsc_frequency;
static char only[32];

static inline bool wanted(const char *name)
{
    return memcmp(name, only, strlen(only)) == 0;
}

static inline void report(const char *name, const char *unit, int64_t value)
{
    print("BENCH %s %s %lld\n", name, unit, (long long)value);
}

static inline int64_t picoseconds(uint64_t ticks)
{
    return (int64_t)(ticks * 1000000 / (tsc_frequency / 1000000));
}

static inline void delay(unsigned microseconds)
{
    uint64_t end = rdtsc() + tsc_frequency / 1000000 * microseconds;
    while (rdtsc() < end) {
        cpu_pause();
    }
}

static inline void measure_begin(void)
{
    char text[16];
    guest_option("only", only, sizeof(only));
    if (guest_option("repeat", text, sizeof(text))) {
        repeat = 0;
        for (const char *digit = text; *digit >= '0' && *digit <= '9'; digit++) {
            repeat = repeat * 10 + (unsigned)(*digit - '0');
        }
        if (repeat == 0) {
            guest_panic("repeat=%s is not a positive number", text);
        }
    }
    tsc_frequency = clock_measure_tsc();
}

/* -- IPIs -- */

#define VECTOR_THERE 0x51
#define VECTOR_BACK 0x52
#define IPI_TURNS 10u /* timed at once: few, since the HPET's own access takes a microsecond */
#define IPI_REPETITIONS 4u /* for each of other figures */
#define IPI_SINGLE_TURNS 20u /* likewise */
#define IPI_RHYTHM_US 150u
/* While the two CPUs have to share one of the host's, a round trip takes milliseconds: there are fewer, then. */
#define IPI_TIME_LIMIT_NS 2000000000u

struct ipi_way {
    const char *name;
    void (*send)(unsigned cpu, uint8_t vector);
    void (*end)(void); /* of interrupt */
    bool receiver_halts, sender_halts; /* else they spin */
};

static const struct ipi_way *ipi_way;
static volatile uint32_t arrived;
static volatile bool other_ready, other_done;
static uint8_t assist_pages[2][PAGE_SIZE] __attribute__((aligned(4096)));

static inline void send_by_icr(unsigned cpu, uint8_t vector)
{
    apic_send_ipi(cpu, vector);
}

static inline void send_by_hypercall(unsigned cpu, uint8_t vector)
{
    hv_call(HV_SEND_SYNTHETIC_CLUSTER_IPI | HV_CALL_FAST, vector, UINT64_C(1) << cpu);
}

static inline void enable_assist_page(void *argument)
{
    (void)argument;
    wrmsr(HV_MSR_APIC_ASSIST_PAGE, (uintptr_t)assist_pages[cpu_index()] | HV_MSR_ENABLE);
}

/* TLFS 13.3.4.1, as deployed systems do it. */
static inline void end_by_assist_page(void)
{
    bool not_required;
    __asm__ volatile("lock btrl $0, %1"
                     : "=@ccc"(not_required), "+m"(*(uint32_t *)assist_pages[cpu_index()])
                     :
                     : "memory");
    if (!not_required) {
        wrmsr(HV_MSR_EOI, 0);
    }
}

static inline void handle_there(struct frame *frame)
{
    (void)frame;
    ipi_way->end();
    ipi_way->send(0, VECTOR_BACK);
}

static inline void handle_back(struct frame *frame)
{
    (void)frame;
    ipi_way->end();
    arrived++;
}

static inline void let_interrupts_in(bool halt)
{
    if (halt) {
        interrupts_on_halt();
    } else {
        interrupts_on();
    }
}

static inline void receive_ipis(void *argument)
{
    (void)argument;
    other_ready = true;
    while (!other_done) {
        let_interrupts_in(ipi_way->receiver_halts);
    }
    interrupts_off();
}

static inline void ipi_round_trip(void)
{
    uint32_t before = arrived;
    ipi_way->send(1, VECTOR_THERE);
    while (arrived == before) {
        let_interrupts_in(ipi_way->sender_halts);
    }
    interrupts_off();
}

static inline void time_ipis(void)
{
    uint64_t started = clock_nanoseconds();
    for (unsigned i = 0; i < repeat * IPI_REPETITIONS && clock_nanoseconds() - started < IPI_TIME_LIMIT_NS; i++) {
        uint64_t begin = rdtsc();
        for (unsigned turn = 0; turn < IPI_TURNS; turn++) {
            ipi_round_trip();
        }
        report(ipi_way->name, "ps", picoseconds(rdtsc() - begin) / IPI_TURNS);
    }
}

/* In a rhythm, as how long a host processor sleeps says how long it takes to wake. */
static inline void time_single_ipis(void)
{
    for (unsigned i = 0; i < repeat * IPI_SINGLE_TURNS; i++) {
        delay(IPI_RHYTHM_US);
        uint64_t begin = rdtsc();
        ipi_round_trip();
        report(ipi_way->name, "ns", picoseconds(rdtsc() - begin) / 1000);
    }
}

static inline void measure_ipis(const struct ipi_way *way)
{
    if (!wanted(way->name)) {
        return;
    }
    ipi_way = way;
    other_ready = other_done = false;
    interrupt_set_handler(VECTOR_THERE, handle_there);
    interrupt_set_handler(VECTOR_BACK, handle_back);
    smp_start(1, receive_ipis, NULL);
    while (!other_ready) {
        cpu_pause();
    }
    ipi_round_trip();
    if (way->receiver_halts) {
        time_single_ipis();
    } else {
        time_ipis();
    }
    other_done = true;
    ipi_round_trip();
    if (!smp_wait(1, PATIENCE_US)) {
        guest_panic("CPU 1 does not come back");
    }
}

#endif
