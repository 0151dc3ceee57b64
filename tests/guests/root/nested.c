/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapters 5 and 8, further down: a child that creates partitions of its own, by the same library, and their
 * children. A partition's level is its distance from the root.
 *
 * The library reads the runtime's clock, a device, which no child has. So whoever waits for a child serves it its clock
 * meanwhile, from its own: the root from the machine's.
 */
#include "rig.h"

#define LEVELS 4u
#define CPU_AT(level) (INSIDE_CPU + 8u * ((level)-1))
#define ARENA_PAGES 1024u /* of each level, to make pools of */
#define ARENA_SIZE (ARENA_PAGES * (uint64_t)PAGE_SIZE)
#define SPARE_PAGES 128u /* in a child's pool, so that its map can be changed while it runs */
#define CLOCK_PAGE 0xFED00000u
#define PARENT_PRIVILEGES                                                                                              \
    (CHILD_PRIVILEGES | HV_PRIVILEGE_CreatePartitions | HV_PRIVILEGE_AccessPartitionId | HV_PRIVILEGE_AccessMemoryPool)
#define PORT_READ_VALUE 0x99
#define PARTITION_SELF UINT64_MAX

static struct child partitions[LEVELS + 1]; /* by level, made from the one above */
static uintptr_t arena; /* of level 1; that of the next level follows, and so on */
static volatile uint32_t *counter; /* in a page of its own */

static unsigned own_level(void)
{
    return cpu_index() < INSIDE_CPU ? 0 : (cpu_index() - INSIDE_CPU) / 8 + 1;
}

/* -- Parents at work -- */

/* What a child does that its parent has an eye on. */
static struct {
    volatile uint32_t writes; /* to PORT_DONE */
    volatile uint32_t value; /* the last */
    volatile uint64_t sender;
    volatile uint32_t denials; /* accesses to the counter's page that it may not make */
    volatile uint32_t denial_type;
    volatile uint32_t allowed; /* how many of them it may make after all */
} events[LEVELS + 1];

static bool message_waits(void)
{
    const struct hv_message *slot = (const void *)(uintptr_t)(rdmsr(HV_MSR_SIMP) & ~(uint64_t)(PAGE_SIZE - 1));
    return slot->type != 0;
}

static void serve_clock(struct intercept *intercept)
{
    struct mmio mmio;
    REQUIRE(mmio_decode(intercept, &mmio));
    REQUIRE(!mmio.write && mmio.size == 4);
    mmio.value = *(volatile uint32_t *)(uintptr_t)mmio.gpa;
    mmio_finish(intercept, &mmio);
    intercept_complete(intercept, INTERCEPT_DONE);
}

static void serve_port(struct intercept *intercept, unsigned level)
{
    if (intercept->io.write) {
        events[level].value = intercept->io.value;
        events[level].sender = intercept->partition;
        events[level].writes++;
    }
    intercept->io.value = PORT_READ_VALUE;
    intercept_complete(intercept, INTERCEPT_DONE);
}

static void unexpected(const struct intercept *intercept)
{
    if (own_level() == 0) {
        intercept_describe(intercept);
    }
    check_fail("nested", 0, "level %u got message %x of partition %llx", own_level(), intercept->message.type,
               (unsigned long long)intercept->partition);
    check_abort();
}

static bool is_memory(const struct intercept *intercept)
{
    return intercept->message.type == (uint32_t)HV_MESSAGE_UnmappedGpa ||
           intercept->message.type == (uint32_t)HV_MESSAGE_GpaIntercept;
}

/* The message that waits, if there is one. What stopped at the counter's page stays there until it is allowed. */
static void serve(void)
{
    struct intercept intercept;
    unsigned level = own_level();
    interrupts_on();
    cpu_pause();
    interrupts_off();
    if (events[level].allowed) {
        events[level].allowed = 0;
        child_set_register(&partitions[level + 1], 0, HV_REGISTER_InterceptSuspend, 0);
    }
    if (!message_waits()) {
        return;
    }
    intercept_receive(&intercept, 0);
    if (intercept.partition != partitions[level + 1].id) {
        unexpected(&intercept);
    }
    if (is_memory(&intercept) && intercept.memory.gpa / PAGE_SIZE == CLOCK_PAGE / PAGE_SIZE) {
        serve_clock(&intercept);
    } else if (is_memory(&intercept) && intercept.memory.gpa / PAGE_SIZE == (uintptr_t)counter / PAGE_SIZE) {
        events[level].denial_type = intercept.message.type;
        events[level].denials++;
    } else if (intercept.message.type == (uint32_t)HV_MESSAGE_X64IoPortIntercept && intercept.io.port == PORT_DONE) {
        serve_port(&intercept, level);
    } else {
        unexpected(&intercept);
    }
}

/* Serve until something is so. Only the root has a clock to lose patience by. */
#define SERVE_UNTIL(condition)                                                                                         \
    do {                                                                                                               \
        uint64_t serve_end_ = own_level() == 0 ? clock_microseconds() + 2 * SOON : 0;                                  \
        while (!(condition)) {                                                                                         \
            serve();                                                                                                   \
            REQUIRE(own_level() != 0 || clock_microseconds() < serve_end_);                                            \
        }                                                                                                              \
    } while (0)

static void start_below(void (*function)(void *), void *argument)
{
    unsigned next = own_level() + 1;
    inside_start_at(&partitions[next], 0, CPU_AT(next), function, argument);
}

static void wait_below(void)
{
    volatile uint32_t *busy = &cpus[CPU_AT(own_level() + 1)].busy;
    SERVE_UNTIL(!__atomic_load_n(busy, __ATOMIC_SEQ_CST));
}

static void run_below(void (*function)(void *), void *argument)
{
    start_below(function, argument);
    wait_below();
}

/* -- Partitions that can be parents -- */

static uintptr_t arena_of(unsigned level)
{
    return arena + (uintptr_t)(level - 1) * ARENA_SIZE;
}

/* Pages for the library to make pools of: they are taken first. */
static void take_arena(void)
{
    for (unsigned i = 0; i < ARENA_PAGES; i++) {
        ram_give_page(arena_of(own_level()) + i * (uintptr_t)PAGE_SIZE);
    }
}

/* It has what its creator has of this program's memory, and the arenas from its own on. */
static struct child *make_below(uint64_t privileges)
{
    unsigned next = own_level() + 1;
    struct child *child = &partitions[next];
    *child = (struct child){.privileges = privileges};
    memset((void *)&events[next - 1], 0, sizeof(events[0]));
    inside_create_at(child, 1, CPU_AT(next));
    partition_deposit(child->id, SPARE_PAGES);
    child_map(child, arena_of(next), arena_of(next), (LEVELS + 1 - next) * ARENA_SIZE, CHILD_RAM);
    return child;
}

static void delete_below(void)
{
    child_delete(&partitions[own_level() + 1]);
}

static void begin(uint64_t privileges)
{
    arena = ram_reserve(LEVELS * ARENA_SIZE, LARGE_PAGE_SIZE);
    counter = page_alloc(1);
    make_below(privileges);
}

/* -- Whatever a check left -- */

static uint64_t next_child(uint64_t parent, uint64_t previous, unsigned *status)
{
    struct hv_in_get_next_child_partition input = {.parent = parent, .previous = previous};
    struct hv_out_get_next_child_partition output = {.child = 0};
    *status = hvcall_get_next_child_partition(&input, &output);
    return output.child;
}

static void delete_descendants(void *argument)
{
    uint64_t id;
    unsigned status;
    unsigned next = own_level() + 1;
    (void)argument;
    hv_enable();
    while ((id = next_child(PARTITION_SELF, 0, &status)) != 0) {
        if (next <= LEVELS && partitions[next].id == id && partitions[next].vps) {
            child_suspend(&partitions[next], 0);
            inside_enter_at(&partitions[next], 0, CPU_AT(next));
            run_below(delete_descendants, NULL);
        }
        partition_delete(id);
    }
}

/* Only its own parent can delete a partition (TLFS 5.6.4), so each is made to, from the lowest up. */
void guest_cleanup(void)
{
    unsigned status = HV_STATUS_SUCCESS;
    root_enable();
    if (partitions[1].id && next_child(partitions[1].id, 0, &status) != 0) {
        child_suspend(&partitions[1], 0);
        inside_enter_at(&partitions[1], 0, CPU_AT(1));
        start_below(delete_descendants, NULL);
        uint64_t end = clock_microseconds() + SOON;
        while (cpus[CPU_AT(1)].busy && clock_microseconds() < end) {
            serve();
        }
    }
    memset(partitions, 0, sizeof(partitions));
    root_reset_state();
}

/* -- Checks -- */

static uint64_t ids[LEVELS + 1];

static void tell_id(void *argument)
{
    struct hv_out_get_partition_id self = {0};
    (void)argument;
    hv_enable();
    HV_MUST(hvcall_get_partition_id(NULL, &self));
    ids[own_level()] = self.partition;
    *counter = *counter + 1;
}

static void parent_of_one(void *argument)
{
    (void)argument;
    hv_enable();
    take_arena();
    make_below(PARENT_PRIVILEGES);
    run_below(tell_id, NULL);
    REQUIRE_EQ(ids[2], partitions[2].id);
    delete_below();
}

CHECK(grandchild, "5.1, 5.3, 5.4: a child creates, runs and deletes one; the root does not notice")
{
    begin(PARENT_PRIVILEGES);
    run_below(parent_of_one, NULL);
    EXPECT(ids[2] != partitions[1].id);
    EXPECT_EQ(*counter, 1);
}

static void parent_of_many(void *argument)
{
    struct hv_in_get_memory_balance input = {.partition = PARTITION_SELF};
    struct hv_out_get_memory_balance balance;
    (void)argument;
    hv_enable();
    take_arena();
    /* Only the root looks at its own pool (TLFS 7.3.3). */
    EXPECT_EQ(hvcall_get_memory_balance(&input, &balance), HV_STATUS_ACCESS_DENIED);
    for (unsigned i = 0; i < 10; i++) {
        make_below(CHILD_PRIVILEGES);
        delete_below();
    }
}

static struct hv_out_get_memory_balance balance_of(const struct child *child)
{
    struct hv_in_get_memory_balance input = {.partition = child->id};
    struct hv_out_get_memory_balance balance = {0};
    HV_MUST(hvcall_get_memory_balance(&input, &balance));
    return balance;
}

CHECK(what_grandchildren_cost, "5.6.1, 7.1.1: comes from the pool of who creates them, and back to it")
{
    begin(PARENT_PRIVILEGES);
    struct hv_out_get_memory_balance before = balance_of(&partitions[1]);
    run_below(parent_of_many, NULL);
    struct hv_out_get_memory_balance after = balance_of(&partitions[1]);
    EXPECT_EQ(after.in_use, before.in_use);
    EXPECT_EQ(after.available, before.available);
}

/* -- Intercepts -- */

static void use_port(void *argument)
{
    uint8_t *read = argument;
    outb(PORT_DONE, 0x42);
    *read = inb(PORT_DONE);
}

static void parent_of_port_user(void *argument)
{
    hv_enable();
    take_arena();
    make_below(CHILD_PRIVILEGES);
    child_intercept_ports(&partitions[2], PORT_DONE, 1);
    run_below(use_port, argument);
    EXPECT_EQ(events[1].writes, 1);
    EXPECT_EQ(events[1].value, 0x42);
    EXPECT_EQ(events[1].sender, partitions[2].id);
    delete_below();
}

CHECK(intercepts_go_to_the_parent, "9.1, 16.2: a grandchild's to the child, and the root does not hear of them")
{
    uint8_t *read = page_alloc(1);
    begin(PARENT_PRIVILEGES);
    child_intercept_ports(&partitions[1], PORT_DONE, 1);
    run_below(parent_of_port_user, read);
    EXPECT_EQ(*read, PORT_READ_VALUE);
    EXPECT_EQ(events[0].writes, 0);
    run_below(use_port, read); /* the child's own do */
    EXPECT_EQ(events[0].writes, 1);
}

/* -- Deeper -- */

static unsigned deepest;

static void dig(void *argument)
{
    uint64_t first, second;
    unsigned status, level = own_level();
    tell_id(NULL);
    deepest = level;
    if (level == LEVELS) {
        struct hv_in_create_partition_current current = {.flags = HV_CREATE_LAPIC};
        struct hv_out_create_partition_current made;
        struct hv_in_create_partition_2008r2 older = {0};
        struct hv_out_create_partition_2008r2 made_older;
        status = root_is_2008r2() ? hvcall_create_partition_2008r2(&older, &made_older)
                                  : hvcall_create_partition_current(&current, &made);
        EXPECT_EQ(status, HV_STATUS_PARTITION_TOO_DEEP);
        return;
    }
    take_arena();
    make_below(PARENT_PRIVILEGES);
    run_below(dig, argument);
    first = next_child(PARTITION_SELF, 0, &status);
    EXPECT_EQ(first, ids[level + 1]);
    second = next_child(PARTITION_SELF, first, &status);
    EXPECT_EQ(status, HV_STATUS_SUCCESS);
    EXPECT_EQ(second, 0);
    next_child(ids[0], 0, &status);
    EXPECT_EQ(status, HV_STATUS_ACCESS_DENIED);
    if (level + 2 <= LEVELS) { /* has been deleted by its parent */
        next_child(ids[level + 2], 0, &status);
        EXPECT_EQ(status, HV_STATUS_INVALID_PARTITION_ID);
    }
    delete_below();
    EXPECT_EQ(next_child(PARTITION_SELF, 0, &status), 0);
}

CHECK(four_levels, "5.5, 5.6.1, 5.6.8: each has its own child, the memory is the same; and no fifth")
{
    begin(PARENT_PRIVILEGES);
    tell_id(NULL);
    *counter = 0;
    run_below(dig, NULL);
    EXPECT_EQ(deepest, LEVELS);
    EXPECT_EQ(*counter, LEVELS); /* each added one */
    for (unsigned level = 1; level <= LEVELS; level++) {
        EXPECT(ids[level] != ids[level - 1]);
    }
}

static uint64_t create_only(void)
{
    if (root_is_2008r2()) {
        struct hv_in_create_partition_2008r2 input = {0};
        struct hv_out_create_partition_2008r2 output;
        HV_MUST(hvcall_create_partition_2008r2(&input, &output));
        return output.partition;
    }
    struct hv_in_create_partition_current input = {.flags = HV_CREATE_LAPIC};
    struct hv_out_create_partition_current output;
    HV_MUST(hvcall_create_partition_current(&input, &output));
    return output.partition;
}

static void parent_of_three(void *argument)
{
    uint64_t *made = argument, at = 0;
    unsigned status;
    hv_enable();
    for (unsigned i = 0; i < 3; i++) {
        made[i] = create_only();
    }
    for (unsigned i = 0; i < 3; i++) {
        at = next_child(PARTITION_SELF, at, &status);
        EXPECT_EQ(at, made[i]);
    }
    next_child(PARTITION_SELF, ids[0], &status);
    EXPECT_EQ(status, HV_STATUS_INVALID_PARTITION_ID); /* no child of its own */
}

static void delete_three(void *argument)
{
    const uint64_t *made = argument;
    for (unsigned i = 0; i < 3; i++) {
        struct hv_in_delete_partition input = {.partition = made[i]};
        HV_MUST(hvcall_delete_partition(&input, NULL));
    }
}

CHECK(enumeration, "5.5, 5.6.8: in the order of creation, by the parent and by the parent's parent, not further")
{
    uint64_t *made = page_alloc(1), at = 0;
    unsigned status;
    begin(PARENT_PRIVILEGES);
    tell_id(NULL);
    run_below(parent_of_three, made);
    for (unsigned i = 0; i < 3; i++) {
        at = next_child(partitions[1].id, at, &status);
        EXPECT_EQ(at, made[i]);
    }
    EXPECT_EQ(next_child(partitions[1].id, at, &status), 0);
    next_child(made[0], 0, &status);
    EXPECT_EQ(status, HV_STATUS_ACCESS_DENIED);
    EXPECT_EQ(next_child(PARTITION_SELF, 0, &status), partitions[1].id);
    EXPECT_EQ(next_child(PARTITION_SELF, partitions[1].id, &status), 0);
    run_below(delete_three, made);
    EXPECT_EQ(next_child(partitions[1].id, 0, &status), 0);
}

/* -- Memory -- */

static volatile bool enough, ready;

static void count_on(void *argument)
{
    (void)argument;
    while (!enough) {
        *counter = *counter + 1;
    }
}

static void parent_of_counter(void *argument)
{
    (void)argument;
    hv_enable();
    take_arena();
    make_below(CHILD_PRIVILEGES);
    enough = false;
    start_below(count_on, NULL);
    ready = true;
    wait_below();
    delete_below();
}

static void begin_counting(void)
{
    begin(PARENT_PRIVILEGES);
    ready = false;
    start_below(parent_of_counter, NULL);
    SERVE_UNTIL(ready && *counter > 0);
}

static void end_counting(void)
{
    enough = true;
    wait_below();
}

static void expect_to_go_on(void)
{
    uint32_t before = *counter;
    SERVE_UNTIL(*counter != before);
}

static void expect_to_stand(void)
{
    uint32_t before = *counter;
    for (unsigned i = 0; i < 300; i++) {
        serve();
        EXPECT_EQ(*counter, before);
    }
}

CHECK(memory_revoked_by_the_root, "8.1.1, 8.3.2: from the grandchild too, before the call returns; the child is told")
{
    begin_counting();
    for (uint32_t round = 1; round <= 5; round++) {
        child_unmap(&partitions[1], (uintptr_t)counter, PAGE_SIZE);
        expect_to_stand();
        SERVE_UNTIL(events[1].denials == round);
        child_map(&partitions[1], (uintptr_t)counter, (uintptr_t)counter, PAGE_SIZE, HV_MAP_READ | HV_MAP_WRITE);
        expect_to_stand(); /* until its parent lets it go on */
        events[1].allowed = 1;
        expect_to_go_on();
    }
    EXPECT_EQ(events[0].denials, 0);
    end_counting();
}

CHECK(right_revoked_by_the_root, "8.1.2: a grandchild has no more rights than the child; reading is still allowed")
{
    begin_counting();
    child_map(&partitions[1], (uintptr_t)counter, (uintptr_t)counter, PAGE_SIZE, HV_MAP_READ);
    expect_to_stand();
    SERVE_UNTIL(events[1].denials == 1);
    EXPECT_EQ(events[1].denial_type, (uint32_t)HV_MESSAGE_GpaIntercept);
    child_map(&partitions[1], (uintptr_t)counter, (uintptr_t)counter, PAGE_SIZE, HV_MAP_READ | HV_MAP_WRITE);
    events[1].allowed = 1;
    expect_to_go_on();
    end_counting();
}

static void read_then_write(void *argument)
{
    uint32_t *seen = argument;
    *seen = *counter;
    *counter = 12345;
}

static void parent_with_less(void *argument)
{
    hv_enable();
    take_arena();
    make_below(CHILD_PRIVILEGES);
    child_map(&partitions[2], (uintptr_t)counter, (uintptr_t)counter, PAGE_SIZE, CHILD_RAM);
    start_below(read_then_write, argument);
    SERVE_UNTIL(events[1].denials == 1);
    EXPECT_EQ(events[1].denial_type, (uint32_t)HV_MESSAGE_GpaIntercept);
    child_suspend(&partitions[2], 0);
    delete_below();
}

CHECK(rights_that_the_child_lacks, "8.1.2: it can map the page with more than it has, and gives no more")
{
    uint32_t *seen = page_alloc(1);
    begin(PARENT_PRIVILEGES);
    *counter = 4711;
    child_map(&partitions[1], (uintptr_t)counter, (uintptr_t)counter, PAGE_SIZE, HV_MAP_READ);
    run_below(parent_with_less, seen);
    EXPECT_EQ(*seen, 4711);
    EXPECT_EQ(*counter, 4711);
}

#define NOT_THERE UINT64_C(0x30000000) /* unmapped at every level */

static unsigned try_map(const struct child *child, uint64_t source)
{
    struct hv_in_map_gpa_pages input = {.partition = child->id, .gpa_page = NOT_THERE / PAGE_SIZE, .flags = 1};
    uint64_t list = source / PAGE_SIZE;
    return hvcall_map_gpa_pages(&input, &list, NULL, 1, NULL);
}

static unsigned try_deposit(uint64_t partition, uintptr_t page)
{
    struct hv_in_deposit_memory input = {.partition = partition};
    uint64_t list = page / PAGE_SIZE;
    return hvcall_deposit_memory(&input, &list, NULL, 1, NULL);
}

static void parent_of_nothing(void *argument)
{
    (void)argument;
    hv_enable();
    take_arena();
    make_below(CHILD_PRIVILEGES);
    EXPECT_EQ(try_map(&partitions[2], NOT_THERE), HV_STATUS_OPERATION_DENIED);
    EXPECT_EQ(try_deposit(partitions[2].id, (uintptr_t)NOT_THERE), HV_STATUS_OPERATION_DENIED);
    EXPECT_EQ(try_deposit(partitions[2].id, (uintptr_t)counter), HV_STATUS_OPERATION_DENIED); /* it is mapped */
    child_unmap(&partitions[2], (uintptr_t)counter, PAGE_SIZE);
    HV_MUST(try_deposit(partitions[2].id, (uintptr_t)counter));
    EXPECT_EQ(try_map(&partitions[2], (uintptr_t)counter), HV_STATUS_OPERATION_DENIED);
    /* The page is the pool's now: this stops, and the root is told. */
    __asm__ volatile("movl $1, (%0)" : : "a"(counter) : "memory");
    delete_below();
}

CHECK(memory_the_child_has_not, "7.3.1, 8.3.1: it can give none; what it has deposited it cannot use")
{
    begin(PARENT_PRIVILEGES);
    start_below(parent_of_nothing, NULL);
    SERVE_UNTIL(events[0].denials == 1);
    EXPECT_EQ(events[0].denial_type, (uint32_t)HV_MESSAGE_GpaIntercept);
    /* Go on behind the store: the child deletes the grandchild, and the page comes back from its pool. */
    uint64_t rip = child_get_register(&partitions[1], 0, HV_REGISTER_Rip);
    REQUIRE_EQ(*(const uint8_t *)(uintptr_t)rip, 0xC7);
    child_set_register(&partitions[1], 0, HV_REGISTER_Rip, rip + 6);
    events[0].allowed = 1;
    wait_below();
    EXPECT(*counter != 1); /* it did not reach the page */
}

/* -- A family that is not to be torn apart -- */

static unsigned finalize(uint64_t partition)
{
    struct hv_in_finalize_partition input = {.partition = partition};
    return hvcall_finalize_partition(&input, NULL);
}

static unsigned delete_partition(uint64_t partition)
{
    struct hv_in_delete_partition input = {.partition = partition};
    return hvcall_delete_partition(&input, NULL);
}

CHECK(child_with_a_grandchild, "5.6.3, 5.6.4: the grandchild is not the root's, but destroyed with its parent")
{
    struct hv_in_get_vp_registers registers = {0};
    union hv_register_value value;
    uint32_t name = HV_REGISTER_Rip;
    begin_counting();
    uint64_t grandchild = partitions[2].id;
    EXPECT_EQ(delete_partition(partitions[1].id), HV_STATUS_INVALID_PARTITION_STATE);
    EXPECT_EQ(finalize(grandchild), HV_STATUS_ACCESS_DENIED);
    EXPECT_EQ(delete_partition(grandchild), HV_STATUS_ACCESS_DENIED);
    registers.partition = grandchild;
    EXPECT_EQ(hvcall_get_vp_registers(&registers, &name, &value, 1, NULL), HV_STATUS_ACCESS_DENIED);
    EXPECT_EQ(try_map(&partitions[2], (uintptr_t)counter), HV_STATUS_ACCESS_DENIED);
    EXPECT_EQ(child_assert_interrupt(&partitions[2], HV_INTERRUPT_FIXED, 0, 0x40), HV_STATUS_ACCESS_DENIED);
    expect_to_go_on();
    HV_MUST(finalize(partitions[1].id)); /* both run */
    EXPECT_EQ(finalize(grandchild), HV_STATUS_INVALID_PARTITION_ID);
}

CHECK(parent_that_is_suspended, "10.3: its child's VPs run on")
{
    begin_counting();
    child_suspend(&partitions[1], 0);
    expect_to_go_on();
    child_resume(&partitions[1], 0);
    end_counting();
}

static void rebel(void *argument)
{
    const uint64_t *targets = argument;
    hv_enable();
    for (unsigned i = 0; i < 2; i++) {
        struct child target = {.id = targets[i]};
        EXPECT_EQ(finalize(targets[i]), HV_STATUS_ACCESS_DENIED);
        EXPECT_EQ(delete_partition(targets[i]), HV_STATUS_ACCESS_DENIED);
        EXPECT_EQ(try_map(&target, (uintptr_t)counter), HV_STATUS_ACCESS_DENIED);
        EXPECT_EQ(try_deposit(targets[i], (uintptr_t)counter), HV_STATUS_ACCESS_DENIED);
        EXPECT_EQ(child_assert_interrupt(&target, HV_INTERRUPT_NMI, 0, 0), HV_STATUS_ACCESS_DENIED);
    }
}

static void parent_of_rebel(void *argument)
{
    hv_enable();
    take_arena();
    make_below(PARENT_PRIVILEGES);
    run_below(rebel, argument);
    delete_below();
}

CHECK(against_ancestors, "4.10, 5.6: a partition works on its children, and on none above it")
{
    uint64_t *targets = page_alloc(1);
    begin(PARENT_PRIVILEGES);
    tell_id(NULL);
    targets[0] = ids[0];
    targets[1] = partitions[1].id;
    run_below(parent_of_rebel, targets);
}

/* -- Privileges (5.2.3) -- */

static unsigned set_privileges(const struct child *child, uint64_t privileges)
{
    struct hv_in_set_partition_property input = {
        .partition = child->id, .property = HV_PROPERTY_PRIVILEGES, .value = privileges};
    return hvcall_set_partition_property(&input, NULL);
}

static void tell_privileges(void *argument)
{
    uint64_t *told = argument;
    struct cpuid_result leaf = cpuid(HV_LEAF_FEATURES, 0);
    *told = (uint64_t)leaf.ebx << 32 | leaf.eax;
}

static void parent_lacking_some(void *argument)
{
    uint64_t *told = argument, lacking = told[1], own;
    tell_privileges(&own);
    EXPECT_EQ(own & lacking, 0);
    hv_enable();
    take_arena();
    make_below(CHILD_PRIVILEGES & ~lacking);
    for (unsigned bit = 0; bit < 64; bit++) {
        uint64_t mask = UINT64_C(1) << bit;
        if (lacking & mask) {
            EXPECT_EQ(set_privileges(&partitions[2], (CHILD_PRIVILEGES & ~lacking) | mask),
                      HV_STATUS_PROPERTY_VALUE_OUT_OF_RANGE);
        }
    }
    run_below(tell_privileges, told);
    delete_below();
}

CHECK(privileges_are_handed_down, "5.2.3, 5.6.6: what a parent was not given it cannot give")
{
    uint64_t lacking = HV_PRIVILEGE_PostMessages | HV_PRIVILEGE_AccessResetMsr | HV_PRIVILEGE_AccessVpRunTimeMsr |
                       HV_PRIVILEGE_CreatePort | HV_PRIVILEGE_CpuManagement;
    uint64_t *told = page_alloc(1);
    begin(PARENT_PRIVILEGES & ~lacking);
    EXPECT_EQ(set_privileges(&partitions[1], PARENT_PRIVILEGES | HV_PRIVILEGE_CpuManagement),
              HV_STATUS_PROPERTY_VALUE_OUT_OF_RANGE);
    told[1] = lacking;
    run_below(parent_lacking_some, told);
    EXPECT_EQ(told[0], CHILD_PRIVILEGES & ~lacking);
}

static void try_to_be_a_parent(void *argument)
{
    unsigned *statuses = argument;
    struct hv_in_create_partition_current current = {.flags = HV_CREATE_LAPIC};
    struct hv_out_create_partition_current made;
    struct hv_in_create_partition_2008r2 older = {0};
    struct hv_out_create_partition_2008r2 made_older;
    hv_enable();
    statuses[0] = root_is_2008r2() ? hvcall_create_partition_2008r2(&older, &made_older)
                                   : hvcall_create_partition_current(&current, &made);
    statuses[1] = try_deposit(partitions[1].id, (uintptr_t)counter);
}

CHECK(no_privilege_to_create, "5.6.1, 7.3.1: CreatePartitions, AccessMemoryPool")
{
    unsigned *statuses = page_alloc(1);
    begin(CHILD_PRIVILEGES);
    run_below(try_to_be_a_parent, statuses);
    EXPECT_EQ(statuses[0], HV_STATUS_ACCESS_DENIED);
    EXPECT_EQ(statuses[1], HV_STATUS_ACCESS_DENIED);
}
