/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 18 in QEMU: who gets how much of a logical processor, and when.
 *
 * Shares are those of run time as the hypervisor counts it, which is fair however busy the host is. What children get
 * done in their shares is looked at too, less closely: the host takes time from whichever VP just runs, which pays for
 * it all the same. With icount both are counted in instructions, and agree. Where there are more LPs than one, all but
 * the first are parked, so that all VPs are on one.
 */
#include "rig.h"

#include "apic.h"

#define TIMER_SINT 4u
#define VECTOR_TIMER 0x63
#define VECTOR_KNOCK 0x64
#define TICKS_PER_MS 10000u /* 100 ns */
#define SLICE_US 1000u
#define FULL 0x10000u /* a whole LP, as cap or reserve */
#define MAX_WORKERS 3u
/*
 * Policies hold over tens of milliseconds and more (TLFS 18.1). A VP that runs when the host takes its thread away for
 * that long has had its turn, and the others get theirs afterwards: so it is looked again for a while.
 */
#define LONG_MS 3000u
#define STEP_MS 300u
#define PATIENCE_MS 4000u
/* Of one hundred. */
#define TOLERANCE 2u
#define WORK_TOLERANCE 3u /* of what is done */
#define WORK_TOLERANCE_BUSY_HOST 30u /* where the host's time counts, and nobody knows who has it */

struct worker {
    struct child child;
    unsigned vp, cpu; /* the child's; the runtime's */
    volatile uint64_t turns; /* what it has done */
    uint64_t run_before, turns_before;
    uint64_t run, work; /* in the time that is measured: 100 ns, turns */
};
static struct worker workers[MAX_WORKERS];
static volatile bool enough;

static void park(uint64_t mask)
{
    struct hv_in_park_logical_processors input = {.mask = mask};
    HV_MUST(hvcall_park_logical_processors(&input, NULL));
}

void guest_cleanup(void)
{
    root_enable();
    park(0);
    root_reset_state();
}

/* -- The root -- */

static struct hv_message *timer_slot(void)
{
    return (struct hv_message *)(uintptr_t)(rdmsr(HV_MSR_SIMP) & ~(uint64_t)(PAGE_SIZE - 1)) + TIMER_SINT;
}

static uint64_t now(void)
{
    return rdmsr(HV_MSR_TIME_REF_COUNT);
}

/* Halted, so that the LP is the children's. */
static void sleep_until(uint64_t time)
{
    struct hv_message *slot = timer_slot();
    wrmsr(HV_MSR_STIMER_CONFIG(0), HV_STIMER_SINT(TIMER_SINT));
    wrmsr(HV_MSR_STIMER_COUNT(0), time);
    wrmsr(HV_MSR_STIMER_CONFIG(0), HV_STIMER_SINT(TIMER_SINT) | HV_STIMER_ENABLE);
    while (slot->type == 0) {
        interrupts_on_halt();
    }
    __atomic_store_n(&slot->type, 0, __ATOMIC_SEQ_CST);
    wrmsr(HV_MSR_EOM, 0);
}

static void sleep_ms(unsigned milliseconds)
{
    sleep_until(now() + (uint64_t)milliseconds * TICKS_PER_MS);
}

static void begin(unsigned count)
{
    root_enable();
    intercept_enable(VECTOR_MESSAGE);
    interrupt_set_handler(VECTOR_TIMER, interrupt_handle_eoi);
    interrupt_set_handler(VECTOR_KNOCK, interrupt_handle_eoi);
    wrmsr(HV_MSR_SINT0 + TIMER_SINT, VECTOR_TIMER);
    memset((void *)timer_slot(), 0, sizeof(struct hv_message));
    park((UINT64_C(1) << cpu_count()) - 2);
    enough = false;
    for (unsigned i = 0; i < count; i++) {
        workers[i] = (struct worker){.child.privileges = CHILD_PRIVILEGES, .cpu = INSIDE_CPU + i};
        inside_create_at(&workers[i].child, 1, workers[i].cpu);
    }
}

/* The shares of an LP are expressed in 0x10000ths. */
static void set_policy(const struct worker *worker, uint64_t weight, uint64_t cap, uint64_t reserve)
{
    child_set_property(&worker->child, HV_PROPERTY_CPU_WEIGHT, weight);
    child_set_property(&worker->child, HV_PROPERTY_CPU_CAP, cap);
    child_set_property(&worker->child, HV_PROPERTY_CPU_RESERVE, reserve);
}

static void work(void *argument)
{
    struct worker *worker = argument;
    while (!enough) {
        worker->turns = worker->turns + 1;
    }
}

static void start(struct worker *worker, void (*function)(void *))
{
    inside_start_at(&worker->child, worker->vp, worker->cpu, function, worker);
}

static void start_working(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        start(&workers[i], work);
    }
}

static void stop(unsigned count)
{
    enough = true;
    for (unsigned i = 0; i < count; i++) {
        child_set_property(&workers[i].child, HV_PROPERTY_CPU_CAP, FULL);
        inside_wait_at(workers[i].cpu);
    }
}

/* -- What everybody gets -- */

static uint64_t measuring_since;

static uint64_t run_time(const struct worker *worker)
{
    return child_get_register(&worker->child, worker->vp, HV_REGISTER_VpRuntime);
}

static void begin_measure(unsigned count)
{
    measuring_since = now();
    for (unsigned i = 0; i < count; i++) {
        workers[i].run_before = run_time(&workers[i]);
        workers[i].turns_before = workers[i].turns;
    }
}

/* Returns how long it has been, in 100 ns, since the beginning. */
static uint64_t measure_on(unsigned count, unsigned milliseconds)
{
    sleep_ms(milliseconds);
    uint64_t elapsed = now() - measuring_since;
    for (unsigned i = 0; i < count; i++) {
        workers[i].work = workers[i].turns - workers[i].turns_before;
        workers[i].run = run_time(&workers[i]) - workers[i].run_before;
    }
    return elapsed;
}

static uint64_t measure(unsigned count, unsigned milliseconds)
{
    begin_measure(count);
    return measure_on(count, milliseconds);
}

/* In hundredths of a percent. */
static unsigned part(uint64_t value, uint64_t whole)
{
    return whole ? (unsigned)(value * 10000 / whole) : 0;
}

static bool is_about(unsigned got, unsigned percent, unsigned tolerance)
{
    return got + tolerance * 100 >= percent * 100 && got <= (percent + tolerance) * 100;
}

static void expect_about(const char *what, unsigned got, unsigned percent, unsigned tolerance)
{
    NOTE("%s: %u.%02u %%, expected %u\n", what, got / 100, got % 100, percent);
    EXPECT_THAT(is_about(got, percent, tolerance), "%s: %u.%02u %%, expected %u, give or take %u", what, got / 100,
                got % 100, percent, tolerance);
}

/* The share of run time that each of the first `count` has had, among them. */
static unsigned share(unsigned count, unsigned which)
{
    uint64_t run = 0;
    for (unsigned i = 0; i < count; i++) {
        run += workers[i].run;
    }
    return part(workers[which].run, run);
}

static unsigned share_of_work(unsigned count, unsigned which)
{
    uint64_t done = 0;
    for (unsigned i = 0; i < count; i++) {
        done += workers[i].work;
    }
    return part(workers[which].work, done);
}

/* Whether time is that of instructions executed: then nothing on the host makes a timer late. */
static bool time_is_exact(void)
{
    char mode[32];
    return guest_option("mode", mode, sizeof(mode)) && memcmp(mode, "icount", 6) == 0;
}

static unsigned work_tolerance(void)
{
    return time_is_exact() ? WORK_TOLERANCE : WORK_TOLERANCE_BUSY_HOST;
}

static bool shares_are(unsigned count, const unsigned *percents)
{
    bool good = true;
    for (unsigned i = 0; i < count; i++) {
        good = good && is_about(share(count, i), percents[i], TOLERANCE) &&
               is_about(share_of_work(count, i), percents[i], work_tolerance());
    }
    return good;
}

/* From now on, over at least so long. */
static void expect_shares(unsigned count, const unsigned *percents, unsigned milliseconds)
{
    uint64_t elapsed;
    begin_measure(count);
    do {
        elapsed = measure_on(count, STEP_MS);
    } while (elapsed < milliseconds * (uint64_t)TICKS_PER_MS ||
             (!shares_are(count, percents) && elapsed < (milliseconds + PATIENCE_MS) * (uint64_t)TICKS_PER_MS));
    for (unsigned i = 0; i < count; i++) {
        expect_about("run time", share(count, i), percents[i], TOLERANCE);
        expect_about("work", share_of_work(count, i), percents[i], work_tolerance());
        EXPECT(percents[i] == 0 || workers[i].work > 0);
    }
}

static bool is_late(uint64_t since)
{
    return now() - since >= PATIENCE_MS * (uint64_t)TICKS_PER_MS;
}

/*
 * The first one's share of all the time there is, in one of several windows. A busy host takes the LP's thread away
 * from another VP for longer than the scheduler looks back, and what a VP could not have meanwhile is not made up for:
 * half of it is enough then, over all windows, but more it must not be. Returns the share over all windows.
 */
static unsigned expect_of_time(unsigned count, unsigned percent)
{
    uint64_t begin = now(), run = 0, all = 0;
    unsigned got, overall;
    bool good;
    do {
        uint64_t elapsed = measure(count, STEP_MS);
        got = part(workers[0].run, elapsed);
        good = is_about(got, percent, TOLERANCE);
        run += workers[0].run;
        all += elapsed;
    } while (!good && !is_late(begin));
    overall = part(run, all);
    NOTE("of time: %u of 10000, in all windows %u\n", got, overall);
    EXPECT_THAT(good || (!time_is_exact() && overall >= percent * 50 && overall <= (percent + TOLERANCE) * 100),
                "%u of 10000, in all windows %u, expected %u %%", got, overall, percent);
    return overall;
}

/* -- Weights (18.2.3) -- */

static void check_weights(unsigned milliseconds)
{
    static const unsigned percents[] = {10, 20, 70};
    begin(3);
    for (unsigned i = 0; i < 3; i++) {
        set_policy(&workers[i], percents[i] * 10, FULL, 0);
    }
    start_working(3);
    expect_shares(3, percents, milliseconds);
    stop(3);
}

CHECK(weights, "18.2.3: 100, 200 and 700 on one LP are 10, 20 and 70 % of three seconds", .max_vps = 1,
      .flags = CHECK_PARALLEL)
{
    check_weights(LONG_MS);
}

CHECK(weights_for_a_while, "18.2.3, 6.4.2: the same in a shorter time, and with the other LPs parked")
{
    check_weights(STEP_MS);
}

static const unsigned halves[] = {50, 50}, thirds[] = {33, 33, 33};

CHECK(weight_that_changes, "18.2.3, 5.6.6: from the time on when it is set")
{
    static const unsigned nine_to_one[] = {90, 10};
    begin(2);
    start_working(2);
    expect_shares(2, halves, STEP_MS);
    set_policy(&workers[0], 900, FULL, 0);
    expect_shares(2, nine_to_one, STEP_MS);
    stop(2);
}

CHECK(weights_of_two_vps, "18.2.3: the weight is that of each VP, not of the partition")
{
    begin(1);
    struct worker *first = &workers[1], *second = &workers[2];
    *first = (struct worker){.child.privileges = CHILD_PRIVILEGES, .cpu = INSIDE_CPU + 1};
    inside_create_at(&first->child, 2, first->cpu);
    *second = (struct worker){.child = first->child, .vp = 1, .cpu = first->cpu + 1};
    start_working(3);
    expect_shares(3, thirds, STEP_MS);
    stop(3);
}

/* -- Caps (18.2.2) -- */

CHECK(cap, "18.2.2: a VP gets no more than its cap, whether others want the LP or not")
{
    begin(2);
    set_policy(&workers[0], 10000, FULL / 4, 0);
    start(&workers[0], work);
    EXPECT(expect_of_time(1, 25) <= 2700);
    start(&workers[1], work);
    EXPECT(expect_of_time(2, 25) <= 2700);
    stop(2);
}

CHECK(cap_of_zero, "18.2.2: a VP that may use nothing does not run, until it may")
{
    begin(1);
    set_policy(&workers[0], 100, 0, 0);
    start(&workers[0], work);
    measure(1, 50);
    EXPECT_EQ(workers[0].work, 0);
    EXPECT_EQ(workers[0].run, 0);
    set_policy(&workers[0], 100, FULL, 0);
    measure(1, 50);
    EXPECT(workers[0].work > 0);
    EXPECT(workers[0].run > 0);
    stop(1);
}

/* -- Reserves (18.2.1) -- */

CHECK(reserve, "18.2.1: what a VP is guaranteed it gets, however little it weighs")
{
    begin(3);
    set_policy(&workers[0], 1, FULL, FULL / 2);
    set_policy(&workers[1], 10000, FULL, 0);
    set_policy(&workers[2], 10000, FULL, 0);
    start_working(3);
    expect_of_time(3, 50);
    stop(3);
}

CHECK(reserve_that_is_not_used, "18.2.1: others may have it")
{
    begin(2);
    set_policy(&workers[0], 100, FULL, FULL / 2);
    start(&workers[1], work);
    uint64_t since = now(), elapsed;
    do {
        elapsed = measure(2, STEP_MS);
    } while (part(workers[1].run, elapsed) < 9000 && !is_late(since));
    EXPECT_THAT(part(workers[1].run, elapsed) >= 9000, "%u of 10000", part(workers[1].run, elapsed));
    stop(2);
}

static unsigned try_property(const struct worker *worker, uint32_t property, uint64_t value)
{
    struct hv_in_set_partition_property input = {.partition = worker->child.id, .property = property, .value = value};
    return hvcall_set_partition_property(&input, NULL);
}

CHECK(policies_that_cannot_be, "18.2: ranges; the reserve is not above the cap; all reserves fit into the LPs")
{
    uint64_t lps = cpu_count();
    begin(2);
    EXPECT_EQ(try_property(&workers[0], HV_PROPERTY_CPU_WEIGHT, 0), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(try_property(&workers[0], HV_PROPERTY_CPU_WEIGHT, 10001), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(try_property(&workers[0], HV_PROPERTY_CPU_CAP, FULL + 1), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(try_property(&workers[0], HV_PROPERTY_CPU_RESERVE, FULL + 1), HV_STATUS_INVALID_PARAMETER);
    set_policy(&workers[0], 100, FULL / 2, FULL / 4);
    EXPECT_EQ(try_property(&workers[0], HV_PROPERTY_CPU_RESERVE, FULL / 2 + 1), HV_STATUS_PROPERTY_VALUE_OUT_OF_RANGE);
    EXPECT_EQ(try_property(&workers[0], HV_PROPERTY_CPU_CAP, FULL / 4 - 1), HV_STATUS_PROPERTY_VALUE_OUT_OF_RANGE);
    if (lps == 1) {
        EXPECT_EQ(try_property(&workers[1], HV_PROPERTY_CPU_RESERVE, FULL), HV_STATUS_PROPERTY_VALUE_OUT_OF_RANGE);
        HV_MUST(try_property(&workers[1], HV_PROPERTY_CPU_RESERVE, FULL - FULL / 4));
    } else {
        HV_MUST(try_property(&workers[1], HV_PROPERTY_CPU_RESERVE, FULL));
    }
}

/* -- Who goes first -- */

#define ROUNDS 40u
static uint64_t samples[ROUNDS];

/* The sample that a part of a hundred of all is below. */
static uint64_t quantile(unsigned percent)
{
    for (unsigned i = 1; i < ROUNDS; i++) {
        uint64_t value = samples[i];
        unsigned at = i;
        for (; at > 0 && samples[at - 1] > value; at--) {
            samples[at] = samples[at - 1];
        }
        samples[at] = value;
    }
    return samples[ROUNDS * percent / 100];
}

static volatile uint64_t turns_at_knock;

static uint64_t turns_of_others(void)
{
    return workers[0].turns + workers[1].turns;
}

static void look_at_turns(struct frame *frame)
{
    (void)frame;
    turns_at_knock = turns_of_others();
    apic_eoi();
}

/* Two have work and change with each other, a third is halted. Returns how many turns they do in a slice. */
static uint64_t begin_knocking(uint64_t parked)
{
    begin(3);
    park(parked);
    interrupt_set_handler(VECTOR_KNOCK, look_at_turns);
    set_policy(&workers[0], 10000, FULL, 0);
    set_policy(&workers[1], 10000, FULL, 0);
    start_working(2);
    measure(2, 20);
    return (workers[0].work + workers[1].work) * SLICE_US / (20 * 1000);
}

static void knock(void)
{
    HV_MUST(child_assert_interrupt(&workers[2].child, HV_INTERRUPT_FIXED, 0, VECTOR_KNOCK));
}

static bool has_heard(unsigned times)
{
    return interrupt_count(workers[2].cpu, VECTOR_KNOCK) == times;
}

static void end_knocking(uint64_t most, uint64_t in_slice)
{
    NOTE("turns of the others meanwhile: 25 %% %llu, 50 %% %llu, 75 %% %llu; in a slice: %llu\n",
         (unsigned long long)quantile(25), (unsigned long long)quantile(50), (unsigned long long)quantile(75),
         (unsigned long long)in_slice);
    EXPECT(quantile(50) <= most);
    stop(2);
}

CHECK(interrupted_vp_goes_first, "18.1: a VP that an interrupt has come for runs before those that have work")
{
    uint64_t in_slice = begin_knocking((UINT64_C(1) << cpu_count()) - 2);
    /* The LP is the root's from here until it halts; then it is to be the one's that was asleep. */
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t wake = now() + 2 * TICKS_PER_MS, turns = turns_of_others();
        knock();
        sleep_until(wake);
        REQUIRE(WAIT_UNTIL(has_heard(i + 1), SOON));
        samples[i] = turns_at_knock - turns;
    }
    end_knocking(0, in_slice);
}

CHECK(interrupt_preempts, "18.1: a VP on another LP that was asleep runs at once though the LP is busy", .min_vps = 2,
      .flags = CHECK_PARALLEL)
{
    uint64_t in_slice = begin_knocking(1);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t turns = turns_of_others();
        knock();
        REQUIRE(WAIT_UNTIL(has_heard(i + 1), SOON));
        samples[i] = turns_at_knock - turns;
        clock_delay(300 + i * 77 % 1000); /* at any time in a slice */
    }
    end_knocking(in_slice / 5, in_slice);
}

static struct hv_message *child_messages;

/* Asleep until a time at any place in a slice; by how much it is missed, in 100 ns, is a sample. */
static void sleep_again_and_again(void *argument)
{
    struct hv_message *slot = &child_messages[TIMER_SINT];
    (void)argument;
    wrmsr(HV_MSR_SIMP, (uintptr_t)child_messages | HV_MSR_ENABLE);
    wrmsr(HV_MSR_SINT0 + TIMER_SINT, VECTOR_TIMER);
    wrmsr(HV_MSR_SCONTROL, 1);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t time = now() + 2 * TICKS_PER_MS + i * 3777 % TICKS_PER_MS;
        wrmsr(HV_MSR_STIMER_CONFIG(0), HV_STIMER_SINT(TIMER_SINT));
        wrmsr(HV_MSR_STIMER_COUNT(0), time);
        wrmsr(HV_MSR_STIMER_CONFIG(0), HV_STIMER_SINT(TIMER_SINT) | HV_STIMER_ENABLE);
        while (slot->type == 0) {
            interrupts_on_halt();
        }
        uint64_t woken = now();
        EXPECT(woken >= time);
        samples[i] = woken - time;
        __atomic_store_n(&slot->type, 0, __ATOMIC_SEQ_CST);
        wrmsr(HV_MSR_EOM, 0);
    }
    enough = true;
}

CHECK(timer_preempts, "15.3, 18.1: a VP that its timer wakes does not wait for the end of another's slice")
{
    begin(2);
    child_messages = page_alloc(1);
    set_policy(&workers[0], 10000, FULL, 0);
    start(&workers[0], work);
    start(&workers[1], sleep_again_and_again);
    while (!enough) {
        sleep_ms(10);
    }
    stop(2);
    NOTE("late by: 25 %% %llu, 50 %% %llu, 75 %% %llu; a slice: %u\n", (unsigned long long)quantile(25),
         (unsigned long long)quantile(50), (unsigned long long)quantile(75), TICKS_PER_MS);
    /* At the end of the slice it would be three quarters of one. */
    EXPECT(quantile(75) < (time_is_exact() ? TICKS_PER_MS / 2 : SOON * 10u));
}

static volatile bool root_sleeps;
static volatile uint64_t first_turn;

static void look_at_clock(void *argument)
{
    (void)argument;
    while (!enough) {
        if (root_sleeps) {
            first_turn = rdtsc();
            root_sleeps = false;
        }
    }
}

CHECK(idle_root, "18.1: an LP that its root VP leaves is another's at once; the root uses next to nothing of it")
{
    uint64_t frequency = clock_measure_tsc();
    begin(1);
    start(&workers[0], look_at_clock);
    for (unsigned i = 0; i < ROUNDS; i++) {
        sleep_ms(1);
        uint64_t wake = now() + 3 * TICKS_PER_MS, begin = rdtsc();
        root_sleeps = true;
        sleep_until(wake);
        while (root_sleeps && !is_late(wake)) {
            sleep_ms(1); /* the host had the LP's thread asleep, too */
        }
        REQUIRE(!root_sleeps);
        samples[i] = first_turn - begin;
    }
    NOTE("ticks until the child runs: 25 %% %llu, 50 %% %llu, 75 %% %llu; in a slice: %llu\n",
         (unsigned long long)quantile(25), (unsigned long long)quantile(50), (unsigned long long)quantile(75),
         (unsigned long long)(frequency / 1000000 * SLICE_US));
    EXPECT(quantile(50) < frequency / 1000000 * SLICE_US / 4);
    uint64_t since = now(), root, elapsed;
    do {
        root = rdmsr(HV_MSR_VP_RUNTIME);
        elapsed = measure(1, 100);
        root = rdmsr(HV_MSR_VP_RUNTIME) - root;
    } while ((part(workers[0].run, elapsed) < 9000 || part(root, elapsed) > 1000) && !is_late(since));
    EXPECT_THAT(part(workers[0].run, elapsed) >= 9000, "%u of 10000", part(workers[0].run, elapsed));
    EXPECT_THAT(part(root, elapsed) <= 1000, "%u of 10000", part(root, elapsed));
    stop(1);
}

CHECK(busy_root, "18.2.3: a root VP that is busy shares its LP by weight, too")
{
    begin(1);
    start(&workers[0], work);
    uint64_t root_before = rdmsr(HV_MSR_VP_RUNTIME), root;
    begin_measure(1);
    unsigned got, steps = 0;
    do {
        clock_delay(STEP_MS * 1000);
        root = rdmsr(HV_MSR_VP_RUNTIME) - root_before;
        workers[0].run = run_time(&workers[0]) - workers[0].run_before;
        got = part(root, root + workers[0].run);
    } while (!is_about(got, 50, TOLERANCE) && ++steps < PATIENCE_MS / STEP_MS);
    expect_about("the root", got, 50, TOLERANCE);
    stop(1);
}

/* -- What guests tell the scheduler -- */

static void wait_for_lock(void *argument)
{
    struct worker *worker = argument;
    struct hv_in_notify_long_spin_wait input = {.spins = 1};
    hv_enable();
    while (!enough) {
        HV_MUST(hvcall_notify_long_spin_wait(&input, NULL));
        worker->turns = worker->turns + 1;
    }
}

CHECK(long_spin_wait, "18.3.3, 18.5.1: who waits for a lock leaves the LP to the one that may hold it")
{
    begin(2);
    start(&workers[0], wait_for_lock);
    start(&workers[1], work);
    uint64_t since = now();
    do {
        measure(2, STEP_MS);
    } while (share(2, 0) >= 1500 && !is_late(since));
    NOTE("the one that waits: %u of 10000\n", share(2, 0));
    EXPECT(workers[0].work > 0);
    EXPECT(share(2, 0) < 1500);
    stop(2);
}

static void rest(void *argument)
{
    struct worker *worker = argument;
    rdmsr(HV_MSR_GUEST_IDLE);
    worker->turns = worker->turns + 1;
}

CHECK(guest_idle, "10.1.4: a VP that is idle uses nothing, and an interrupt wakes it though it takes none")
{
    begin(2);
    start(&workers[0], rest);
    start(&workers[1], work);
    sleep_ms(10);
    measure(2, 100);
    EXPECT_EQ(workers[0].run, 0);
    EXPECT_EQ(workers[0].turns, 0);
    EXPECT_EQ(interrupt_count(workers[0].cpu, VECTOR_KNOCK), 0);
    HV_MUST(child_assert_interrupt(&workers[0].child, HV_INTERRUPT_FIXED, 0, VECTOR_KNOCK));
    EXPECT(WAIT_UNTIL(workers[0].turns == 1, SOON));
    stop(2);
}

static void halt(void *argument)
{
    (void)argument;
    while (!enough) {
        interrupts_on_halt();
    }
}

CHECK(halted, "18.1, 10.1: a VP that is halted has no share")
{
    static const unsigned percents[] = {50, 50, 0};
    begin(3);
    start(&workers[0], work);
    start(&workers[1], work);
    start(&workers[2], halt);
    sleep_ms(10);
    expect_shares(3, percents, STEP_MS);
    EXPECT_EQ(workers[2].run, 0);
    enough = true;
    HV_MUST(child_assert_interrupt(&workers[2].child, HV_INTERRUPT_FIXED, 0, VECTOR_KNOCK));
    stop(3);
}

/* -- Run times (6.3.3, 6.4.1, 10.3.2) -- */

struct lp_times {
    uint64_t global, run, hypervisor;
};

static void add_lp(void *argument)
{
    struct lp_times *sum = argument;
    struct hv_out_get_logical_processor_run_time_current out;
    struct hv_in_get_logical_processor_run_time_current in = {.lp = cpu_index()};
    if (root_is_2008r2()) {
        struct hv_out_get_logical_processor_run_time_2008r2 older;
        HV_MUST(hvcall_get_logical_processor_run_time_2008r2(NULL, &older));
        memcpy(&out, &older, sizeof(out));
    } else {
        HV_MUST(hvcall_get_logical_processor_run_time_current(&in, &out));
    }
    EXPECT(out.hypervisor <= out.local);
    sum->global = out.global;
    sum->run += out.local - out.hypervisor;
    sum->hypervisor += out.hypervisor;
}

/* Of all LPs, one after the other: each is asked on its own. */
static struct lp_times all_lps(void)
{
    struct lp_times sum = {0};
    for (unsigned i = 0; i < cpu_count(); i++) {
        smp_run(i, add_lp, &sum);
    }
    return sum;
}

static void add_own_run_time(void *argument)
{
    *(uint64_t *)argument += rdmsr(HV_MSR_VP_RUNTIME);
}

static uint64_t all_vps(unsigned children)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < cpu_count(); i++) {
        smp_run(i, add_own_run_time, &sum);
    }
    for (unsigned i = 0; i < children; i++) {
        sum += run_time(&workers[i]);
    }
    return sum;
}

/*
 * Every VP's time is read between two readings of every LP's, so what all VPs ran from one reading to the other lies
 * between what all LPs did, hypervisor's time left out.
 */
CHECK(run_times_add_up, "6.3.3, 6.4.1, 10.3.2: what LPs have run is what VPs have, and the hypervisor itself")
{
    begin(2);
    park(0);
    set_policy(&workers[0], 100, FULL / 2, 0);
    set_policy(&workers[1], 100, FULL / 4, 0);
    start_working(2);
    for (unsigned round = 0; round < 4; round++) {
        struct lp_times outer_begin = all_lps();
        uint64_t vps = all_vps(2);
        struct lp_times inner_begin = all_lps();
        sleep_ms(50);
        struct lp_times inner_end = all_lps();
        vps = all_vps(2) - vps;
        struct lp_times outer_end = all_lps();
        uint64_t least = inner_end.run - inner_begin.run, most = outer_end.run - outer_begin.run;
        unsigned rounding = 8 * (cpu_count() + 2); /* 100 ns: each number is rounded by itself */
        NOTE("VPs %llu, LPs %llu to %llu\n", (unsigned long long)vps, (unsigned long long)least,
             (unsigned long long)most);
        EXPECT_THAT(vps + rounding >= least && vps <= most + rounding, "VPs %llu, LPs %llu to %llu",
                    (unsigned long long)vps, (unsigned long long)least, (unsigned long long)most);
        uint64_t busy = most + outer_end.hypervisor - outer_begin.hypervisor;
        uint64_t all = (outer_end.global - outer_begin.global) * cpu_count();
        EXPECT_THAT(busy <= all + all / 50 + 5 * TICKS_PER_MS, "LPs ran %llu in %llu", (unsigned long long)busy,
                    (unsigned long long)all);
        EXPECT(vps > 0);
    }
    stop(2);
}

CHECK(idle_lps, "6.4.1: an LP that has nothing to run has next to no run time")
{
    begin(0);
    uint64_t since = now();
    unsigned used;
    do {
        struct lp_times begin = all_lps();
        sleep_ms(100);
        struct lp_times end = all_lps();
        uint64_t run = end.run + end.hypervisor - begin.run - begin.hypervisor;
        used = part(run, (end.global - begin.global) * cpu_count());
    } while (used >= 1000 && !is_late(since));
    EXPECT_THAT(used < 1000, "%u of 10000", used);
}
