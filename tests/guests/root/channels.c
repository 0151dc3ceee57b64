/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLFS chapter 14: messages, events and monitored notifications between partitions, and their ports and connections. */
#include "rig.h"

#include "apic.h"

#define MESSAGE_SINT 2u
#define EVENT_SINT 3u
#define VECTOR_TAKE 0x61
#define VECTOR_EVENT 0x62
#define PORT_MESSAGE 1u
#define PORT_EVENT 2u
#define PORT_MONITOR 3u
#define BUFFERS 16u /* of a port (TLFS 14.9.1) */
#define MOST_PAYLOAD 240u
#define FIRST_TYPE 0x7001u
#define OTHER_CPU (INSIDE_CPU + 8) /* of the second child's VP 0 */
#define PARTITION_SELF UINT64_MAX
#define CHANNEL_PRIVILEGES (CHILD_PRIVILEGES | HV_PRIVILEGE_CreatePort | HV_PRIVILEGE_ConnectPort)

/* Numbers that must not be mixed up. */
#define PORT 0x10u
#define PORT_BACK 0x11u
#define CONNECTION 0x20u
#define CONNECTION_BACK 0x21u
#define EVENT_CONNECTION 0x30u
#define EVENT_PORT 0x31u
#define MONITOR_CONNECTION 0x32u
#define MONITOR_PORT 0x33u
#define NO_PORT 0x99u

/* What a CPU has of the SynIC, and what has come there. The root's and children's CPUs are the runtime's. */
#define LOG 64u
struct side {
    struct hv_message *messages;
    volatile uint32_t *flags;
    volatile unsigned count; /* messages that have been taken */
    struct hv_message log[LOG]; /* the last of them */
};
static struct side sides[GUEST_MAX_CPUS];
static struct child child, other;
static uint64_t root_id;

static void close_all(void);

void guest_cleanup(void)
{
    close_all();
    root_reset_state();
}

/* -- Both ends -- */

static struct side *own_side(void)
{
    return &sides[cpu_index()];
}

static struct hv_message *slot_of(struct side *side)
{
    return &side->messages[MESSAGE_SINT];
}

/* TLFS 14.2.5: copy, empty the slot, then ask for the next. */
static void take_one(struct side *side)
{
    struct hv_message *slot = slot_of(side);
    memcpy((void *)&side->log[side->count % LOG], (const void *)slot, sizeof(*slot));
    side->count++;
    __atomic_store_n(&slot->type, 0, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&slot->flags, __ATOMIC_SEQ_CST) & HV_MESSAGE_PENDING) {
        wrmsr(HV_MSR_EOM, 0);
    }
}

/* An interrupt may stand for a message that the handler before it has taken already. */
static void handle_message(struct frame *frame)
{
    (void)frame;
    if (slot_of(own_side())->type != 0) {
        take_one(own_side());
    }
    apic_eoi();
}

static void enable_side(void *argument)
{
    struct side *side = own_side();
    (void)argument;
    hv_enable();
    wrmsr(HV_MSR_SIMP, (uintptr_t)side->messages | HV_MSR_ENABLE);
    wrmsr(HV_MSR_SIEFP, (uintptr_t)side->flags | HV_MSR_ENABLE);
    wrmsr(HV_MSR_SINT0 + MESSAGE_SINT, VECTOR_TAKE);
    wrmsr(HV_MSR_SINT0 + EVENT_SINT, VECTOR_EVENT);
    wrmsr(HV_MSR_SCONTROL, 1);
}

static void make_side(unsigned cpu)
{
    sides[cpu].messages = page_alloc(1);
    sides[cpu].flags = page_alloc(1);
    sides[cpu].count = 0;
}

/* The root's: SINT0's slot, in the same page, stays intercept.h's. */
static void enable_root(void)
{
    struct hv_out_get_partition_id self;
    HV_MUST(hvcall_get_partition_id(NULL, &self));
    root_id = self.partition;
    make_side(0);
    sides[0].messages = (struct hv_message *)(uintptr_t)(rdmsr(HV_MSR_SIMP) & ~(uint64_t)(PAGE_SIZE - 1));
    memset((void *)slot_of(&sides[0]), 0, sizeof(struct hv_message));
    enable_side(NULL);
    interrupt_set_handler(VECTOR_TAKE, handle_message);
    interrupt_set_handler(VECTOR_EVENT, interrupt_handle_eoi);
}

static void make_child(struct child *to, unsigned vps, unsigned first, uint64_t privileges)
{
    *to = (struct child){.privileges = privileges};
    inside_create_at(to, vps, first);
    for (unsigned vp = 0; vp < vps; vp++) {
        make_side(first + vp);
        inside_run_at(to, vp, first + vp, enable_side, NULL);
    }
}

static void begin(unsigned vps)
{
    make_child(&child, vps, INSIDE_CPU, CHANNEL_PRIVILEGES);
    enable_root();
}

static void begin_two(void)
{
    make_child(&child, 1, INSIDE_CPU, CHANNEL_PRIVILEGES);
    make_child(&other, 1, OTHER_CPU, CHANNEL_PRIVILEGES);
    enable_root();
}

static void let_interrupts_in(void)
{
    interrupts_on();
    cpu_pause(); /* once: where one thread executes all LPs, it ends this one's turn */
    for (unsigned i = 0; i < 500; i++) {
        __asm__ volatile("nop");
    }
    interrupts_off();
}
#define WAIT_WITH_INTERRUPTS(condition) WAIT_UNTIL((let_interrupts_in(), (condition)), SOON)

/* -- Ports and connections, in the layout of the generation -- */

static unsigned create_port(uint64_t partition, uint32_t port, uint64_t connecting, const struct hv_port_info *info)
{
    if (root_is_2008r2()) {
        struct hv_in_create_port_2008r2 input = {
            .port_partition = partition, .port = port, .connection_partition = connecting, .info = *info};
        return hvcall_create_port_2008r2(&input, NULL);
    }
    struct hv_in_create_port_current input = {
        .port_partition = partition, .port = port, .connection_partition = connecting, .info = *info};
    return hvcall_create_port_current(&input, NULL);
}

static unsigned connect_as(uint64_t partition, uint32_t connection, uint64_t receiver, uint32_t port, uint32_t type,
                           uint64_t address)
{
    if (root_is_2008r2()) {
        struct hv_in_connect_port_2008r2 input = {.connection_partition = partition,
                                                  .connection = connection,
                                                  .port_partition = receiver,
                                                  .port = port,
                                                  .monitor_address = address};
        return hvcall_connect_port_2008r2(&input, NULL);
    }
    struct hv_in_connect_port_current input = {.connection_partition = partition,
                                               .connection = connection,
                                               .port_partition = receiver,
                                               .port = port,
                                               .type = type,
                                               .info = {address}};
    return hvcall_connect_port_current(&input, NULL);
}

static struct hv_port_info message_port(uint32_t vp)
{
    return (struct hv_port_info){.type = PORT_MESSAGE, .sint = MESSAGE_SINT, .vp = vp};
}

static struct hv_port_info event_port(uint32_t vp, uint16_t base, uint16_t count)
{
    return (struct hv_port_info){
        .type = PORT_EVENT, .sint = EVENT_SINT, .vp = vp, .base_flag = base, .flag_count = count};
}

static unsigned delete_port(uint64_t partition, uint32_t port)
{
    struct hv_in_delete_port input = {.partition = partition, .port = port};
    return hvcall_delete_port(&input, NULL);
}

static unsigned disconnect(uint64_t partition, uint32_t connection)
{
    struct hv_in_disconnect_port input = {.partition = partition, .connection = connection};
    return hvcall_disconnect_port(&input, NULL);
}

/* The root's own, which outlive the children that they were made for. */
static void close_all(void)
{
    static const uint32_t ports[] = {PORT, PORT_BACK, EVENT_PORT, MONITOR_PORT};
    static const uint32_t connections[] = {CONNECTION, CONNECTION_BACK};
    root_enable();
    for (unsigned i = 0; i < sizeof(ports) / sizeof(ports[0]); i++) {
        delete_port(PARTITION_SELF, ports[i]);
    }
    for (unsigned i = 0; i < sizeof(connections) / sizeof(connections[0]); i++) {
        disconnect(PARTITION_SELF, connections[i]);
    }
}

/* A channel from `from` to a port of `to`. */
static void open_channel(uint64_t from, uint32_t connection, uint64_t to, uint32_t port,
                         const struct hv_port_info *info)
{
    HV_MUST(create_port(to, port, from, info));
    HV_MUST(connect_as(from, connection, to, port, info->type, 0));
}

static void open_message_channel(uint64_t from, uint32_t connection, uint64_t to, uint32_t port)
{
    struct hv_port_info info = message_port(0);
    open_channel(from, connection, to, port, &info);
}

static unsigned post(uint32_t connection, uint32_t type, const void *payload, uint32_t size)
{
    struct hv_in_post_message input = {.connection = connection, .type = type, .size = size};
    memcpy(input.payload, payload, size < sizeof(input.payload) ? size : sizeof(input.payload));
    return hvcall_post_message(&input, NULL);
}

static unsigned post_number(uint32_t connection, uint64_t number)
{
    return post(connection, FIRST_TYPE, &number, sizeof(number));
}

static unsigned signal(uint32_t connection, unsigned flag)
{
    struct hv_in_signal_event input = {.connection = connection, .flag = (uint16_t)flag};
    return hvcall_signal_event(&input, NULL);
}

static unsigned get_property(uint64_t partition, uint32_t port, uint32_t property, uint64_t *value)
{
    struct hv_in_get_port_property input = {.partition = partition, .port = port, .property = property};
    struct hv_out_get_port_property output = {0};
    unsigned status = hvcall_get_port_property(&input, &output);
    *value = output.value;
    return status;
}

#define PROPERTY_POST_COUNT 0u
#define PROPERTY_PREFERRED_VP 1u

static unsigned prefer_vp(uint64_t partition, uint32_t port, uint64_t vp)
{
    struct hv_in_set_port_property input = {
        .partition = partition, .port = port, .property = PROPERTY_PREFERRED_VP, .value = vp};
    return hvcall_set_port_property(&input, NULL);
}

/* -- Messages (14.2, 14.9.7) -- */

static void post_bytes(void *argument)
{
    uint8_t payload[MOST_PAYLOAD];
    (void)argument;
    for (unsigned i = 0; i < MOST_PAYLOAD; i++) {
        payload[i] = (uint8_t)(i * 7 + 1);
    }
    HV_MUST(post(CONNECTION, FIRST_TYPE, payload, MOST_PAYLOAD));
    HV_MUST(post(CONNECTION, FIRST_TYPE + 1, payload, 0));
}

static void expect_bytes(const struct side *side, uint32_t port)
{
    const uint8_t *payload = (const uint8_t *)(const void *)side->log[0].payload;
    EXPECT_EQ(side->log[0].type, FIRST_TYPE);
    EXPECT_EQ(side->log[0].payload_size, MOST_PAYLOAD);
    EXPECT_EQ(side->log[0].sender, port);
    for (unsigned i = 0; i < MOST_PAYLOAD; i++) {
        EXPECT_THAT(payload[i] == (uint8_t)(i * 7 + 1), "byte %u of the payload is %x", i, payload[i]);
    }
    EXPECT_EQ(side->log[1].type, FIRST_TYPE + 1);
    EXPECT_EQ(side->log[1].payload_size, 0);
    EXPECT_EQ(side->log[1].sender, port);
}

CHECK(message_to_the_root, "14.2.4, 14.8.4, 14.9.7: type, size, port and payload, with an interrupt")
{
    begin(1);
    open_message_channel(child.id, CONNECTION, root_id, PORT);
    inside_run(&child, 0, post_bytes, NULL);
    REQUIRE(WAIT_WITH_INTERRUPTS(sides[0].count == 2));
    expect_bytes(&sides[0], PORT);
    EXPECT(interrupt_count(0, VECTOR_TAKE) >= 2);
}

CHECK(message_to_a_child, "14.2.4, 14.8.4, 14.9.7: it wakes a VP that is halted")
{
    begin(1);
    open_message_channel(root_id, CONNECTION, child.id, PORT);
    post_bytes(NULL);
    REQUIRE(WAIT_UNTIL(sides[INSIDE_CPU].count == 2, SOON));
    expect_bytes(&sides[INSIDE_CPU], PORT);
}

#define TURNS 200u

/* Answer every message with the next number. `first`: begin. */
static void bounce(void *argument)
{
    struct side *side = own_side();
    const bool *first = argument;
    if (*first) {
        HV_MUST(post_number(CONNECTION, 0));
    }
    for (unsigned turn = 0; turn < TURNS && !check_failed(); turn++) {
        while (side->count == turn && !check_failed()) {
            interrupts_on_halt();
        }
        uint64_t number = side->log[turn % LOG].payload[0];
        REQUIRE_EQ(number, 2 * turn + (*first ? 1 : 0));
        if (!*first || turn + 1 < TURNS) {
            HV_MUST(post_number(CONNECTION, number + 1));
        }
    }
}

static const bool begins = true, answers;

CHECK(to_and_fro, "14.4: two channels, one each way; the root halts between messages")
{
    begin(1);
    open_message_channel(child.id, CONNECTION, root_id, PORT);
    open_message_channel(root_id, CONNECTION, child.id, PORT);
    inside_start(&child, 0, bounce, (void *)&begins);
    bounce((void *)&answers);
    inside_wait(0);
}

CHECK(two_children, "14.4: they talk to each other, and their parent has no part in it")
{
    begin_two();
    open_message_channel(child.id, CONNECTION, other.id, PORT);
    open_message_channel(other.id, CONNECTION, child.id, PORT);
    inside_start_at(&other, 0, OTHER_CPU, bounce, (void *)&answers);
    inside_start(&child, 0, bounce, (void *)&begins);
    inside_wait(0);
    inside_wait_at(OTHER_CPU);
    EXPECT_EQ(sides[0].count, 0);
}

/* -- Queues (14.2.2, 14.2.3) -- */

/* One goes to the slot, BUFFERS wait, and there is no buffer for one more. */
static void fill(void *argument)
{
    (void)argument;
    for (uint64_t i = 0; i <= BUFFERS; i++) {
        HV_MUST(post_number(CONNECTION, i));
    }
    EXPECT_EQ(post_number(CONNECTION, 1000), HV_STATUS_INSUFFICIENT_BUFFERS);
}

static void mask_messages(void *argument)
{
    (void)argument;
    wrmsr(HV_MSR_SINT0 + MESSAGE_SINT, HV_SINT_MASKED | VECTOR_TAKE);
}

static void expect_in_slot(struct side *side, uint64_t number, bool more)
{
    struct hv_message *slot = slot_of(side);
    REQUIRE_EQ(slot->type, FIRST_TYPE);
    REQUIRE_EQ(slot->payload[0], number);
    EXPECT_THAT(((slot->flags & HV_MESSAGE_PENDING) != 0) == more, "message %u: flags %x", (unsigned)number,
                slot->flags);
}

static void drain(void *argument)
{
    struct side *side = own_side();
    (void)argument;
    for (uint64_t i = 0; i <= BUFFERS; i++) {
        expect_in_slot(side, i, i < BUFFERS);
        take_one(side);
    }
    EXPECT_EQ(slot_of(side)->type, 0);
}

CHECK(queue_of_the_root, "14.2.3, 14.9.7: 16 buffers, in the order they were posted; each is free when delivered")
{
    begin(1);
    mask_messages(NULL);
    open_message_channel(child.id, CONNECTION, root_id, PORT);
    for (unsigned round = 0; round < 2; round++) {
        inside_run(&child, 0, fill, NULL);
        drain(NULL);
    }
    EXPECT_EQ(interrupt_count(0, VECTOR_TAKE), 0);
}

CHECK(queue_of_a_child, "14.2.3, 14.2.4: the same; with the SINT masked interrupts are lost and messages stay")
{
    begin(1);
    inside_run(&child, 0, mask_messages, NULL);
    open_message_channel(root_id, CONNECTION, child.id, PORT);
    for (unsigned round = 0; round < 2; round++) {
        fill(NULL);
        inside_run(&child, 0, drain, NULL);
    }
    EXPECT_EQ(interrupt_count(INSIDE_CPU, VECTOR_TAKE), 0);
}

CHECK(delivery_without_eom, "14.2.4: a slot that became empty is found after a while, without an EOM or EOI")
{
    begin(1);
    mask_messages(NULL);
    open_message_channel(child.id, CONNECTION, root_id, PORT);
    inside_run(&child, 0, fill, NULL);
    for (uint64_t i = 0; i <= BUFFERS; i++) {
        REQUIRE(WAIT_UNTIL(slot_of(&sides[0])->type != 0, SOON));
        expect_in_slot(&sides[0], i, i < BUFFERS);
        __atomic_store_n(&slot_of(&sides[0])->type, 0, __ATOMIC_SEQ_CST);
    }
}

#define MANY 1000u

static void post_many(void *argument)
{
    (void)argument;
    for (uint64_t i = 0; i < MANY && !check_failed(); i++) {
        unsigned status;
        while ((status = post_number(CONNECTION, i)) == HV_STATUS_INSUFFICIENT_BUFFERS && !check_failed()) {
            cpu_pause();
        }
        HV_MUST(status);
    }
}

CHECK(order, "14.2.3: messages for one VP arrive as they were posted, however fast; none is lost")
{
    begin(1);
    open_message_channel(child.id, CONNECTION, root_id, PORT);
    inside_start(&child, 0, post_many, NULL);
    for (unsigned taken = 0; taken < MANY; taken++) {
        REQUIRE(WAIT_WITH_INTERRUPTS(sides[0].count > taken));
        if (sides[0].count - taken < LOG) {
            REQUIRE_EQ(sides[0].log[taken % LOG].payload[0], taken);
        }
    }
    inside_wait(0);
    EXPECT_EQ(sides[0].count, MANY);
}

#define SENDER(number) ((number) >> 32)
#define COUNT(number) ((uint32_t)(number))

static void post_as_one_of_two(void *argument)
{
    uint64_t sender = cpu_index();
    (void)argument;
    for (uint64_t i = 0; i < MANY / 2 && !check_failed(); i++) {
        unsigned status;
        while ((status = post_number(CONNECTION, sender << 32 | i)) == HV_STATUS_INSUFFICIENT_BUFFERS &&
               !check_failed()) {
            cpu_pause();
        }
        HV_MUST(status);
    }
}

static volatile uint32_t next_of[2], misplaced;

/* Looks at each as it comes: the log may be overwritten before anybody else does. */
static void check_sender(struct frame *frame)
{
    const struct hv_message *slot = slot_of(own_side());
    if (slot->type != 0) {
        uint64_t number = slot->payload[0], sender = SENDER(number) - INSIDE_CPU;
        if (sender < 2 && COUNT(number) == next_of[sender]) {
            next_of[sender] = next_of[sender] + 1;
        } else {
            misplaced = misplaced + 1;
        }
    }
    handle_message(frame);
}

CHECK(two_senders, "14.2.3: two VPs of a partition through one connection: all arrive, those of each in order")
{
    begin(2);
    interrupt_set_handler(VECTOR_TAKE, check_sender);
    next_of[0] = next_of[1] = misplaced = 0;
    open_message_channel(child.id, CONNECTION, root_id, PORT);
    inside_start(&child, 0, post_as_one_of_two, NULL);
    inside_start(&child, 1, post_as_one_of_two, NULL);
    REQUIRE(WAIT_WITH_INTERRUPTS(sides[0].count == MANY || misplaced > 0));
    EXPECT_EQ(misplaced, 0);
    EXPECT_EQ(next_of[0], MANY / 2);
    EXPECT_EQ(next_of[1], MANY / 2);
    inside_wait(0);
    inside_wait(1);
}

/* -- Which VP (14.8.6, 14.8.7) -- */

CHECK(chosen_vp, "14.8.6: the port says which of its partition's VPs")
{
    struct hv_port_info first = message_port(0), second = message_port(1);
    begin(2);
    open_channel(root_id, CONNECTION, child.id, PORT, &first);
    open_channel(root_id, CONNECTION_BACK, child.id, PORT_BACK, &second);
    for (unsigned i = 0; i < 10; i++) {
        HV_MUST(post_number(CONNECTION, 100));
        HV_MUST(post_number(CONNECTION_BACK, 200));
        REQUIRE(WAIT_UNTIL(sides[INSIDE_CPU].count == i + 1 && sides[INSIDE_CPU + 1].count == i + 1, SOON));
        EXPECT_EQ(sides[INSIDE_CPU].log[i].payload[0], 100);
        EXPECT_EQ(sides[INSIDE_CPU].log[i].sender, PORT);
        EXPECT_EQ(sides[INSIDE_CPU + 1].log[i].payload[0], 200);
        EXPECT_EQ(sides[INSIDE_CPU + 1].log[i].sender, PORT_BACK);
    }
}

static void disable_synic(void *argument)
{
    (void)argument;
    wrmsr(HV_MSR_SCONTROL, 0);
}

static void disable_message_page(void *argument)
{
    (void)argument;
    wrmsr(HV_MSR_SIMP, 0);
}

CHECK(any_vp, "14.2.4, 14.9.7: one whose SynIC and message page are enabled; else INVALID_SYNIC_STATE")
{
    struct hv_port_info any = message_port(HV_ANY_VP);
    begin(2);
    open_channel(root_id, CONNECTION, child.id, PORT, &any);
    for (unsigned i = 1; i <= 5; i++) {
        HV_MUST(post_number(CONNECTION, i));
        REQUIRE(WAIT_UNTIL(sides[INSIDE_CPU].count + sides[INSIDE_CPU + 1].count == i, SOON));
    }
    unsigned before = sides[INSIDE_CPU + 1].count;
    inside_run(&child, 0, disable_synic, NULL);
    for (unsigned i = 1; i <= 5; i++) {
        HV_MUST(post_number(CONNECTION, i));
        REQUIRE(WAIT_UNTIL(sides[INSIDE_CPU + 1].count == before + i, SOON));
    }
    inside_run(&child, 1, disable_message_page, NULL);
    EXPECT_EQ(post_number(CONNECTION, 0), HV_STATUS_INVALID_SYNIC_STATE);
}

CHECK(preferred_vp, "14.8.7, 14.9.5: a preference, for ports that leave the choice")
{
    struct hv_port_info any = message_port(HV_ANY_VP), fixed = message_port(0);
    uint64_t value;
    begin(2);
    open_channel(root_id, CONNECTION, child.id, PORT, &any);
    open_channel(root_id, CONNECTION_BACK, child.id, PORT_BACK, &fixed);
    for (unsigned round = 0; round < 4; round++) {
        unsigned vp = round % 2, before = sides[INSIDE_CPU + vp].count;
        HV_MUST(prefer_vp(child.id, PORT, vp));
        HV_MUST(get_property(child.id, PORT, PROPERTY_PREFERRED_VP, &value));
        EXPECT_EQ(value, vp);
        HV_MUST(post_number(CONNECTION, round));
        REQUIRE(WAIT_UNTIL(sides[INSIDE_CPU + vp].count == before + 1, SOON));
    }
    EXPECT_EQ(prefer_vp(child.id, PORT, 2), HV_STATUS_INVALID_VP_INDEX);
    EXPECT_EQ(prefer_vp(child.id, PORT_BACK, 1), HV_STATUS_INVALID_PARAMETER);
}

CHECK(no_vp, "14.9.7: a port of a partition without VPs leads nowhere: INVALID_VP_INDEX")
{
    struct hv_port_info any = message_port(HV_ANY_VP);
    root_enable();
    intercept_enable(VECTOR_MESSAGE);
    child = (struct child){.privileges = CHANNEL_PRIVILEGES};
    child_create(&child);
    enable_root();
    open_channel(root_id, CONNECTION, child.id, PORT, &any);
    EXPECT_EQ(post_number(CONNECTION, 0), HV_STATUS_INVALID_VP_INDEX);
    child_add_vp(&child, 0);
    EXPECT_EQ(post_number(CONNECTION, 0), HV_STATUS_INVALID_SYNIC_STATE);
}

CHECK(count_of_messages, "14.8.7, 14.9.4: those that were posted since the port was created")
{
    uint64_t value;
    begin(1);
    mask_messages(NULL);
    open_message_channel(child.id, CONNECTION, root_id, PORT);
    HV_MUST(get_property(root_id, PORT, PROPERTY_POST_COUNT, &value));
    EXPECT_EQ(value, 0);
    inside_run(&child, 0, fill, NULL);
    HV_MUST(get_property(root_id, PORT, PROPERTY_POST_COUNT, &value));
    EXPECT_EQ(value, BUFFERS + 1);
    EXPECT_EQ(get_property(root_id, PORT, 7, &value), HV_STATUS_UNKNOWN_PROPERTY);
    EXPECT_EQ(get_property(root_id, NO_PORT, PROPERTY_POST_COUNT, &value), HV_STATUS_INVALID_PORT_ID);
    HV_MUST(delete_port(root_id, PORT));
    EXPECT_EQ(get_property(root_id, PORT, PROPERTY_POST_COUNT, &value), HV_STATUS_INVALID_PORT_ID);
}

/* -- Events (14.3, 14.9.8) -- */

static uint32_t flag_word(const struct side *side, unsigned flag)
{
    return side->flags[EVENT_SINT * 2048 / 32 + flag / 32];
}

static bool flag_is_set(const struct side *side, unsigned flag)
{
    return flag_word(side, flag) >> flag % 32 & 1;
}

static void clear_flag(struct side *side, unsigned flag)
{
    __atomic_fetch_and(&side->flags[EVENT_SINT * 2048 / 32 + flag / 32], ~(1u << flag % 32), __ATOMIC_SEQ_CST);
}

/* Its page of flags only the child sees: this tells what is in it, and clears one when `argument` says so. */
static uint32_t seen_flags[2048 / 32];

static void look_at_flags(void *argument)
{
    const unsigned *clear = argument;
    for (unsigned i = 0; i < 2048 / 32; i++) {
        seen_flags[i] = flag_word(own_side(), i * 32);
    }
    if (clear) {
        clear_flag(own_side(), *clear);
    }
}

static bool was_set(unsigned flag)
{
    return seen_flags[flag / 32] >> flag % 32 & 1;
}

#define BASE_FLAG 40u
#define FLAG_COUNT 20u

static void open_event_channel(uint64_t from, uint64_t to)
{
    struct hv_port_info info = event_port(0, BASE_FLAG, FLAG_COUNT);
    open_channel(from, CONNECTION, to, PORT, &info);
}

CHECK(flag_of_a_child, "14.3.1, 14.9.8: counted from the port's base; an interrupt when it was clear, and only then")
{
    unsigned third = BASE_FLAG + 3;
    begin(1);
    open_event_channel(root_id, child.id);
    HV_MUST(signal(CONNECTION, 3));
    REQUIRE(WAIT_UNTIL(interrupt_count(INSIDE_CPU, VECTOR_EVENT) == 1, SOON));
    inside_run(&child, 0, look_at_flags, NULL);
    EXPECT_EQ(seen_flags[third / 32], 1u << third % 32);
    HV_MUST(signal(CONNECTION, 3));
    HV_MUST(signal(CONNECTION, 4));
    REQUIRE(WAIT_UNTIL(interrupt_count(INSIDE_CPU, VECTOR_EVENT) == 2, SOON));
    inside_run(&child, 0, look_at_flags, &third);
    EXPECT_EQ(seen_flags[third / 32], 3u << third % 32);
    HV_MUST(signal(CONNECTION, 3));
    REQUIRE(WAIT_UNTIL(interrupt_count(INSIDE_CPU, VECTOR_EVENT) == 3, SOON));
}

static void signal_twice(void *argument)
{
    (void)argument;
    HV_MUST(signal(CONNECTION, 0));
    HV_MUST(signal(CONNECTION, FLAG_COUNT - 1));
    EXPECT_EQ(signal(CONNECTION, FLAG_COUNT), HV_STATUS_INVALID_PARAMETER);
}

CHECK(flags_of_the_root, "14.9.8: from the first to the last of the port's, and INVALID_PARAMETER beyond")
{
    begin(1);
    open_event_channel(child.id, root_id);
    inside_run(&child, 0, signal_twice, NULL);
    REQUIRE(WAIT_WITH_INTERRUPTS(interrupt_count(0, VECTOR_EVENT) > 0));
    EXPECT_EQ(flag_word(&sides[0], BASE_FLAG), 1u << BASE_FLAG % 32 | 1u << (BASE_FLAG + FLAG_COUNT - 1) % 32);
}

CHECK(all_flags, "14.8.5, 14.8.6: a port may have all 2048 of a SINT")
{
    struct hv_port_info info = event_port(0, 0, 2048);
    begin(1);
    open_channel(root_id, CONNECTION, child.id, PORT, &info);
    for (unsigned flag = 0; flag < 2048; flag += 23) {
        HV_MUST(signal(CONNECTION, flag));
    }
    HV_MUST(signal(CONNECTION, 2047));
    EXPECT_EQ(signal(CONNECTION, 2048), HV_STATUS_INVALID_PARAMETER);
    inside_run(&child, 0, look_at_flags, NULL);
    for (unsigned flag = 0; flag < 2048; flag++) {
        EXPECT_THAT(was_set(flag) == (flag % 23 == 0 || flag == 2047), "flag %u", flag);
    }
}

static void mask_events(void *argument)
{
    (void)argument;
    wrmsr(HV_MSR_SINT0 + EVENT_SINT, HV_SINT_MASKED | VECTOR_EVENT);
}

static void disable_flags_page(void *argument)
{
    look_at_flags(argument);
    wrmsr(HV_MSR_SINT0 + EVENT_SINT, VECTOR_EVENT);
    wrmsr(HV_MSR_SIEFP, 0);
}

CHECK(event_nobody_can_take, "14.3.1: a masked SINT, or no page for flags: INVALID_SYNIC_STATE")
{
    begin(1);
    open_event_channel(root_id, child.id);
    inside_run(&child, 0, mask_events, NULL);
    EXPECT_EQ(signal(CONNECTION, 0), HV_STATUS_INVALID_SYNIC_STATE);
    inside_run(&child, 0, disable_flags_page, NULL);
    EXPECT(!was_set(BASE_FLAG));
    EXPECT_EQ(signal(CONNECTION, 0), HV_STATUS_INVALID_SYNIC_STATE);
    EXPECT_EQ(interrupt_count(INSIDE_CPU, VECTOR_EVENT), 0);
}

static volatile unsigned heard;

static void signal_and_wait(void *argument)
{
    (void)argument;
    for (unsigned i = 1; i <= TURNS && !check_failed(); i++) {
        HV_MUST(signal(CONNECTION, i % FLAG_COUNT));
        while (heard != i && !check_failed()) {
            cpu_pause();
        }
    }
}

static void take_events(void *argument)
{
    struct side *side = own_side();
    (void)argument;
    for (unsigned i = 1; i <= TURNS && !check_failed(); i++) {
        unsigned flag = BASE_FLAG + i % FLAG_COUNT;
        while (!flag_is_set(side, flag)) {
            interrupts_on_halt();
        }
        clear_flag(side, flag);
        heard = i;
    }
}

CHECK(events_between_children, "14.3.1, 14.4: each wakes the one that is halted")
{
    begin_two();
    open_event_channel(child.id, other.id);
    heard = 0;
    inside_start_at(&other, 0, OTHER_CPU, take_events, NULL);
    inside_start(&child, 0, signal_and_wait, NULL);
    inside_wait(0);
    inside_wait_at(OTHER_CPU);
}

/* -- Monitored notifications (14.5) -- */

#define MONITOR_DISABLED 0x10u
#define PENDING(trigger) (UINT64_C(1) << (trigger))
#define ARMED(trigger) (UINT64_C(1) << (32 + (trigger)))
#define SHORT 1u /* triggers, and the event flags they stand for */
#define LONG 2u
#define ASTRAY 3u
#define SHORT_LATENCY 10000u /* 100 ns */
#define LONG_LATENCY 65000u

/* HV_MONITOR_PAGE (TLFS 14.8.10) */
struct monitor_page {
    volatile uint32_t trigger_state;
    uint32_t reserved1;
    volatile uint64_t group[4]; /* pending in the lower half, armed in the upper */
    uint8_t reserved2[536];
    volatile uint16_t latency[4][32];
    uint8_t reserved3[256];
    volatile struct {
        uint32_t connection;
        uint16_t flag, reserved;
    } parameter[4][32];
    uint8_t reserved4[1984];
};
_Static_assert(sizeof(struct monitor_page) == PAGE_SIZE, "TLFS 14.8.10");

/* Where each partition sees the page. */
static struct monitor_page *root_page, *child_page;

static struct hv_port_info monitor_port(const struct monitor_page *page)
{
    return (struct hv_port_info){.type = PORT_MONITOR, .monitor_address = (uintptr_t)page};
}

/* The child sends; the root has the port. What its page has where that is shown stays under it. */
static void begin_monitor(void)
{
    struct hv_port_info events = event_port(0, 0, 32), monitor;
    begin(1);
    root_page = page_alloc(1);
    child_page = page_alloc(1);
    memset(root_page, 0x5A, PAGE_SIZE);
    memset(child_page, 0xA5, PAGE_SIZE);
    monitor = monitor_port(root_page);
    open_channel(child.id, EVENT_CONNECTION, root_id, EVENT_PORT, &events);
    HV_MUST(create_port(root_id, MONITOR_PORT, child.id, &monitor));
    EXPECT_EQ(root_page->trigger_state, MONITOR_DISABLED); /* nobody sends yet */
    HV_MUST(connect_as(child.id, MONITOR_CONNECTION, root_id, MONITOR_PORT, PORT_MONITOR, (uintptr_t)child_page));
    EXPECT_EQ(root_page->trigger_state, 0);
    for (unsigned group = 0; group < 4; group++) {
        for (unsigned trigger = SHORT; trigger <= ASTRAY; trigger++) {
            root_page->parameter[group][trigger].connection = trigger == ASTRAY ? NO_PORT : EVENT_CONNECTION;
            root_page->parameter[group][trigger].flag = (uint16_t)(group * 8 + trigger);
            root_page->latency[group][trigger] = trigger == LONG ? LONG_LATENCY : SHORT_LATENCY;
        }
    }
    root_page->trigger_state = 0x5; /* groups 0 and 2 */
}

static void set_pending(unsigned group, uint64_t triggers)
{
    uint64_t old = child_page->group[group], new;
    do {
        new = (old | triggers) & ~(triggers << 32);
    } while (
        !__atomic_compare_exchange_n(&child_page->group[group], &old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
}

static void clear_pending(unsigned group, uint64_t triggers)
{
    __atomic_fetch_and(&child_page->group[group], ~(triggers | triggers << 32), __ATOMIC_SEQ_CST);
}

static void trigger_both(void *argument)
{
    (void)argument;
    EXPECT_EQ(child_page->parameter[0][LONG].connection, EVENT_CONNECTION);
    EXPECT_EQ(child_page->latency[0][LONG], LONG_LATENCY);
    set_pending(0, PENDING(SHORT) | PENDING(LONG) | PENDING(ASTRAY));
}

CHECK(monitored_latencies, "14.5, 14.8.9.1: an event for each trigger, not before its latency has passed")
{
    uint64_t when[3] = {0};
    begin_monitor();
    for (unsigned round = 0; round < 3; round++) {
        uint64_t begin = clock_nanoseconds(), now;
        when[SHORT] = when[LONG] = 0;
        inside_run(&child, 0, trigger_both, NULL);
        while (!when[LONG]) {
            bool is_long = flag_is_set(&sides[0], LONG), is_short = flag_is_set(&sides[0], SHORT);
            now = clock_nanoseconds();
            REQUIRE(now - begin < UINT64_C(1000) * SOON);
            EXPECT(is_short || !is_long); /* both may be late, but this one is due first */
            when[SHORT] = is_short && !when[SHORT] ? now : when[SHORT];
            when[LONG] = is_long && !when[LONG] ? now : when[LONG];
        }
        EXPECT_THAT(when[SHORT] - begin >= SHORT_LATENCY * 100, "after %llu ns",
                    (unsigned long long)(when[SHORT] - begin));
        EXPECT_THAT(when[LONG] - begin >= LONG_LATENCY * 100, "after %llu ns",
                    (unsigned long long)(when[LONG] - begin));
        clear_flag(&sides[0], SHORT);
        clear_flag(&sides[0], LONG);
        EXPECT(WAIT_UNTIL(root_page->group[0] == 0, SOON)); /* the one whose connection is not there, too */
        EXPECT(WAIT_WITH_INTERRUPTS(interrupt_count(0, VECTOR_EVENT) > round));
    }
    EXPECT_EQ(flag_word(&sides[0], 0), 0);
}

/* Long before its time; the clock that both partitions have says whether it was. */
static void trigger_and_withdraw(void *argument)
{
    uint64_t *ticks = argument, begin = rdtsc();
    set_pending(0, PENDING(LONG));
    for (unsigned i = 0; i < 1000; i++) {
        cpu_pause();
    }
    clear_pending(0, PENDING(LONG));
    *ticks = rdtsc() - begin;
}

CHECK(monitored_and_withdrawn, "14.5.1, 14.8.9.1: a trigger that is cleared in time is none")
{
    uint64_t ticks = 0, frequency = clock_measure_tsc();
    unsigned in_time = 0;
    begin_monitor();
    for (unsigned i = 0; i < 40 && in_time < 5; i++) {
        inside_run(&child, 0, trigger_and_withdraw, &ticks);
        clock_delay(LONG_LATENCY / 10);
        if (ticks < frequency / 1000 * LONG_LATENCY / 10000) {
            EXPECT(!flag_is_set(&sides[0], LONG));
            in_time++;
        }
        clear_flag(&sides[0], LONG);
    }
    EXPECT(in_time > 0);
}

static void trigger_disabled_group(void *argument)
{
    (void)argument;
    set_pending(1, PENDING(SHORT));
    set_pending(2, PENDING(SHORT));
}

CHECK(monitored_groups, "14.8.10: only those that are enabled; one that waits goes when its group is")
{
    begin_monitor();
    inside_run(&child, 0, trigger_disabled_group, NULL);
    REQUIRE(WAIT_UNTIL(flag_is_set(&sides[0], 2 * 8 + SHORT), SOON));
    clock_delay(2 * SHORT_LATENCY / 10);
    EXPECT(!flag_is_set(&sides[0], 8 + SHORT));
    EXPECT_EQ(root_page->group[1] & UINT32_MAX, PENDING(SHORT));
    root_page->trigger_state = 0x2;
    EXPECT(WAIT_UNTIL(flag_is_set(&sides[0], 8 + SHORT), SOON));
}

static void look_at_page(void *argument)
{
    uint32_t *seen = argument;
    *seen = child_page->trigger_state;
}

CHECK(monitor_page_comes_and_goes, "14.5.4: an overlay in both; without either end it is disabled, and goes with it")
{
    uint32_t seen = 0;
    begin_monitor();
    inside_run(&child, 0, look_at_page, &seen);
    EXPECT_EQ(seen, 0x5);
    HV_MUST(delete_port(root_id, MONITOR_PORT));
    EXPECT_EQ(root_page->trigger_state, 0x5A5A5A5A);
    inside_run(&child, 0, look_at_page, &seen);
    EXPECT_EQ(seen, 0x5 | MONITOR_DISABLED);
    HV_MUST(disconnect(child.id, MONITOR_CONNECTION));
    inside_run(&child, 0, look_at_page, &seen);
    EXPECT_EQ(seen, 0xA5A5A5A5);
}

CHECK(monitor_is_the_parents, "14.5.4: by the parent of who gets the connection, at addresses of pages")
{
    struct hv_port_info info;
    begin(1);
    root_page = page_alloc(1);
    info = monitor_port(root_page);
    HV_MUST(create_port(child.id, MONITOR_PORT, root_id, &info));
    EXPECT_EQ(connect_as(root_id, MONITOR_CONNECTION, child.id, MONITOR_PORT, PORT_MONITOR, (uintptr_t)root_page),
              HV_STATUS_ACCESS_DENIED);
    info.monitor_address += 8;
    EXPECT_EQ(create_port(root_id, MONITOR_PORT, child.id, &info), HV_STATUS_INVALID_ALIGNMENT);
    info.monitor_address = hv_gpa_limit();
    EXPECT_EQ(create_port(root_id, MONITOR_PORT, child.id, &info), HV_STATUS_INVALID_PARAMETER);
}

/* -- Statuses (14.9) -- */

static unsigned try_port(uint32_t sint, uint32_t vp, uint32_t type)
{
    struct hv_port_info info = {.type = type, .sint = sint, .vp = vp};
    return create_port(child.id, PORT, root_id, &info);
}

static unsigned try_flags(uint16_t base, uint16_t count)
{
    struct hv_port_info info = event_port(0, base, count);
    return create_port(child.id, PORT, root_id, &info);
}

CHECK(ports_that_cannot_be, "14.9.1: statuses")
{
    struct hv_port_info info = message_port(0);
    begin(1);
    EXPECT_EQ(create_port(child.id, 1u << 24, root_id, &info), HV_STATUS_INVALID_PORT_ID);
    EXPECT_EQ(create_port(root_id, PORT, root_id, &info), HV_STATUS_INVALID_PARTITION_ID);
    EXPECT_EQ(create_port(child.id, PORT, 0x12345, &info), HV_STATUS_INVALID_PARTITION_ID);
    EXPECT_EQ(create_port(0x12345, PORT, root_id, &info), HV_STATUS_INVALID_PARTITION_ID);
    EXPECT_EQ(try_port(0, 0, PORT_MESSAGE), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(try_port(16, 0, PORT_MESSAGE), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(try_port(MESSAGE_SINT, 0, 4), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(try_port(MESSAGE_SINT, 1, PORT_MESSAGE), HV_STATUS_INVALID_VP_INDEX);
    EXPECT_EQ(try_flags(0, 0), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(try_flags(1, 2048), HV_STATUS_INVALID_PARAMETER);
    HV_MUST(create_port(child.id, PORT, root_id, &info));
    EXPECT_EQ(create_port(child.id, PORT, root_id, &info), HV_STATUS_INVALID_PORT_ID);
    HV_MUST(create_port(root_id, PORT, child.id, &info)); /* IDs are each partition's own */
}

CHECK(connections_that_cannot_be, "14.9.3: statuses; a port is for one connection of one partition")
{
    struct hv_port_info info = message_port(0);
    begin_two();
    HV_MUST(create_port(other.id, PORT, child.id, &info));
    EXPECT_EQ(connect_as(child.id, CONNECTION, other.id, NO_PORT, PORT_MESSAGE, 0), HV_STATUS_INVALID_PORT_ID);
    EXPECT_EQ(connect_as(child.id, 1u << 24, other.id, PORT, PORT_MESSAGE, 0), HV_STATUS_INVALID_CONNECTION_ID);
    EXPECT_EQ(connect_as(child.id, CONNECTION, 0x12345, PORT, PORT_MESSAGE, 0), HV_STATUS_INVALID_PARTITION_ID);
    EXPECT_EQ(connect_as(root_id, CONNECTION, other.id, PORT, PORT_MESSAGE, 0), HV_STATUS_INVALID_PORT_ID);
    EXPECT_EQ(connect_as(child.id, CONNECTION, other.id, PORT, PORT_MESSAGE, PAGE_SIZE), HV_STATUS_INVALID_PARAMETER);
    if (!root_is_2008r2()) {
        EXPECT_EQ(connect_as(child.id, CONNECTION, other.id, PORT, PORT_EVENT, 0), HV_STATUS_INVALID_PARAMETER);
    }
    HV_MUST(connect_as(child.id, CONNECTION, other.id, PORT, PORT_MESSAGE, 0));
    EXPECT_EQ(connect_as(child.id, CONNECTION_BACK, other.id, PORT, PORT_MESSAGE, 0), HV_STATUS_INVALID_PORT_ID);
    HV_MUST(create_port(other.id, PORT_BACK, child.id, &info));
    EXPECT_EQ(connect_as(child.id, CONNECTION, other.id, PORT_BACK, PORT_MESSAGE, 0), HV_STATUS_INVALID_CONNECTION_ID);
}

static void use_wrongly(void *argument)
{
    uint64_t payload[31] = {0};
    (void)argument;
    EXPECT_EQ(post_number(NO_PORT, 0), HV_STATUS_INVALID_CONNECTION_ID);
    EXPECT_EQ(signal(NO_PORT, 0), HV_STATUS_INVALID_CONNECTION_ID);
    EXPECT_EQ(post(CONNECTION, 0, payload, 8), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(post(CONNECTION, 0x80000001u, payload, 8), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(post(CONNECTION, FIRST_TYPE, payload, MOST_PAYLOAD + 1), HV_STATUS_INVALID_PARAMETER);
    EXPECT_EQ(signal(CONNECTION, 0), HV_STATUS_INVALID_PORT_ID);
    EXPECT_EQ(post_number(CONNECTION_BACK, 0), HV_STATUS_INVALID_PORT_ID);
}

CHECK(wrong_use, "14.9.7, 14.9.8: statuses of HvPostMessage and HvSignalEvent")
{
    struct hv_port_info message = message_port(0), event = event_port(0, 0, 1);
    begin(1);
    open_channel(child.id, CONNECTION, root_id, PORT, &message);
    open_channel(child.id, CONNECTION_BACK, root_id, PORT_BACK, &event);
    inside_run(&child, 0, use_wrongly, NULL);
    clock_delay(1000);
    interrupts_on();
    interrupts_off();
    EXPECT_EQ(sides[0].count, 0);
    EXPECT_EQ(interrupt_count(0, VECTOR_EVENT), 0);
}

static void use_without_privileges(void *argument)
{
    struct hv_port_info info = message_port(0);
    uint64_t value;
    (void)argument;
    EXPECT_EQ(post_number(CONNECTION, 0), HV_STATUS_ACCESS_DENIED);
    EXPECT_EQ(signal(CONNECTION_BACK, 0), HV_STATUS_ACCESS_DENIED);
    EXPECT_EQ(create_port(PARTITION_SELF, PORT, root_id, &info), HV_STATUS_ACCESS_DENIED);
    EXPECT_EQ(delete_port(PARTITION_SELF, PORT), HV_STATUS_ACCESS_DENIED);
    EXPECT_EQ(connect_as(PARTITION_SELF, CONNECTION, root_id, PORT, PORT_MESSAGE, 0), HV_STATUS_ACCESS_DENIED);
    EXPECT_EQ(disconnect(PARTITION_SELF, CONNECTION), HV_STATUS_ACCESS_DENIED);
    EXPECT_EQ(get_property(PARTITION_SELF, PORT, PROPERTY_POST_COUNT, &value), HV_STATUS_ACCESS_DENIED);
}

CHECK(privileges, "5.2.3, 14.9: PostMessages, SignalEvents, CreatePort and ConnectPort")
{
    make_child(&child, 1, INSIDE_CPU, CHILD_PRIVILEGES & ~(HV_PRIVILEGE_PostMessages | HV_PRIVILEGE_SignalEvents));
    enable_root();
    struct hv_port_info message = message_port(0), event = event_port(0, 0, 1);
    open_channel(child.id, CONNECTION, root_id, PORT, &message);
    open_channel(child.id, CONNECTION_BACK, root_id, PORT_BACK, &event);
    inside_run(&child, 0, use_without_privileges, NULL);
}

static void make_own_port(void *argument)
{
    struct hv_port_info info = message_port(0);
    (void)argument;
    HV_MUST(create_port(PARTITION_SELF, PORT, root_id, &info));
    EXPECT_EQ(create_port(other.id, PORT, root_id, &info), HV_STATUS_ACCESS_DENIED);
    EXPECT_EQ(delete_port(other.id, PORT), HV_STATUS_ACCESS_DENIED);
    EXPECT_EQ(disconnect(root_id, CONNECTION), HV_STATUS_ACCESS_DENIED);
    HV_MUST(connect_as(PARTITION_SELF, CONNECTION, other.id, PORT, PORT_MESSAGE, 0));
    HV_MUST(post_number(CONNECTION, 4711));
}

CHECK(ports_of_a_childs_own, "14.9.1, 14.9.3: with the privileges, for itself and for no other")
{
    struct hv_port_info info = message_port(0);
    begin_two();
    HV_MUST(create_port(other.id, PORT, child.id, &info));
    inside_run(&child, 0, make_own_port, NULL);
    REQUIRE(WAIT_UNTIL(sides[OTHER_CPU].count == 1, SOON));
    EXPECT_EQ(sides[OTHER_CPU].log[0].payload[0], 4711);
    HV_MUST(connect_as(root_id, CONNECTION, child.id, PORT, PORT_MESSAGE, 0));
    HV_MUST(post_number(CONNECTION, 4712));
    REQUIRE(WAIT_UNTIL(sides[INSIDE_CPU].count == 1, SOON));
    EXPECT_EQ(sides[INSIDE_CPU].log[0].payload[0], 4712);
}

/* -- The end of a channel -- */

static void post_in_vain(void *argument)
{
    (void)argument;
    EXPECT_EQ(post_number(CONNECTION, 0), HV_STATUS_INVALID_PORT_ID);
}

static void post_nowhere(void *argument)
{
    (void)argument;
    EXPECT_EQ(post_number(CONNECTION, 0), HV_STATUS_INVALID_CONNECTION_ID);
}

CHECK(deleted_port, "14.2.3, 14.4, 14.9.2: messages that wait go with it; its connection stays and is useless")
{
    begin(1);
    mask_messages(NULL);
    open_message_channel(child.id, CONNECTION, root_id, PORT);
    inside_run(&child, 0, fill, NULL);
    HV_MUST(delete_port(root_id, PORT));
    EXPECT_EQ(delete_port(root_id, PORT), HV_STATUS_INVALID_PORT_ID);
    expect_in_slot(&sides[0], 0, true); /* that one had arrived */
    take_one(&sides[0]);
    clock_delay(3000);
    EXPECT_EQ(slot_of(&sides[0])->type, 0);
    inside_run(&child, 0, post_in_vain, NULL);
    /* A new port of that ID is another one. */
    struct hv_port_info info = message_port(0);
    HV_MUST(create_port(root_id, PORT, child.id, &info));
    inside_run(&child, 0, post_in_vain, NULL);
    HV_MUST(disconnect(child.id, CONNECTION));
    EXPECT_EQ(disconnect(child.id, CONNECTION), HV_STATUS_INVALID_CONNECTION_ID);
    inside_run(&child, 0, post_nowhere, NULL);
    HV_MUST(connect_as(child.id, CONNECTION, root_id, PORT, PORT_MESSAGE, 0));
    inside_run(&child, 0, fill, NULL);
    drain(NULL);
}

CHECK(broken_connection, "14.2.3, 14.9.6: messages that wait are still delivered; the port can be connected again")
{
    begin(1);
    mask_messages(NULL);
    open_message_channel(child.id, CONNECTION, root_id, PORT);
    inside_run(&child, 0, fill, NULL);
    HV_MUST(disconnect(child.id, CONNECTION));
    inside_run(&child, 0, post_nowhere, NULL);
    drain(NULL);
    HV_MUST(connect_as(child.id, CONNECTION, root_id, PORT, PORT_MESSAGE, 0));
    inside_run(&child, 0, fill, NULL);
    drain(NULL);
}

CHECK(receiver_is_deleted, "5.4.1, 14.9.7: with messages in its queue; who was connected finds no port")
{
    begin_two();
    inside_run_at(&other, 0, OTHER_CPU, mask_messages, NULL);
    open_message_channel(child.id, CONNECTION, other.id, PORT);
    inside_run(&child, 0, fill, NULL);
    child_delete(&other);
    inside_run(&child, 0, post_in_vain, NULL);
    HV_MUST(disconnect(child.id, CONNECTION));
}

CHECK(sender_is_deleted, "5.4.1, 14.2.3: what it has posted arrives; nobody else gets its port")
{
    begin_two();
    mask_messages(NULL);
    open_message_channel(other.id, CONNECTION, root_id, PORT);
    inside_run_at(&other, 0, OTHER_CPU, fill, NULL);
    child_delete(&other);
    drain(NULL);
    EXPECT_EQ(connect_as(child.id, CONNECTION, root_id, PORT, PORT_MESSAGE, 0), HV_STATUS_INVALID_PORT_ID);
    HV_MUST(delete_port(root_id, PORT));
}

CHECK(monitor_and_its_child_go, "5.4.1, 14.5.4: the sender goes, and the page is disabled, and goes with its port")
{
    begin_monitor();
    child_delete(&child);
    EXPECT_EQ(root_page->trigger_state & MONITOR_DISABLED, MONITOR_DISABLED);
    HV_MUST(delete_port(root_id, MONITOR_PORT));
    EXPECT_EQ(root_page->trigger_state, 0x5A5A5A5A);
    HV_MUST(delete_port(root_id, EVENT_PORT));
}

static volatile bool enough;
static volatile unsigned posted;

/* What may come of it while the port and the connection come and go. */
static void post_on_and_on(void *argument)
{
    (void)argument;
    while (!enough && !check_failed()) {
        unsigned status = post_number(CONNECTION, posted);
        EXPECT_THAT(status == HV_STATUS_SUCCESS || status == HV_STATUS_INVALID_PORT_ID ||
                        status == HV_STATUS_INVALID_CONNECTION_ID || status == HV_STATUS_INSUFFICIENT_BUFFERS,
                    "status %x", status);
        posted = posted + (status == HV_STATUS_SUCCESS);
    }
}

CHECK(ports_that_come_and_go, "14.9: under a child that posts all the time")
{
    begin(1);
    enough = false;
    posted = 0;
    inside_start(&child, 0, post_on_and_on, NULL);
    for (unsigned i = 0; i < 60; i++) {
        unsigned before = posted;
        open_message_channel(child.id, CONNECTION, root_id, PORT);
        REQUIRE(WAIT_WITH_INTERRUPTS(posted > before));
        if (i % 2) {
            HV_MUST(disconnect(child.id, CONNECTION));
            HV_MUST(delete_port(root_id, PORT));
        } else {
            HV_MUST(delete_port(root_id, PORT));
            HV_MUST(disconnect(child.id, CONNECTION));
        }
    }
    enough = true;
    inside_wait(0);
    EXPECT(sides[0].count <= posted);
    EXPECT(sides[0].count > 0);
}
