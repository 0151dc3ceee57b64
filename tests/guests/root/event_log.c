/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLFS chapter 19: the root's event log, read through its own mappings while processors write to it. */
#include "rig.h"

#define INITIALIZE_GROUP 0x60u
#define FINALIZE_GROUP 0x61u
#define CREATE_BUFFER 0x62u
#define DELETE_BUFFER 0x63u
#define MAP_BUFFER 0x64u
#define UNMAP_BUFFER 0x65u
#define SET_SOURCES 0x66u
#define RELEASE_BUFFER 0x67u
#define FLUSH_BUFFER 0x68u

enum { SYSTEM, DIAGNOSTICS };
enum { STANDBY, FREE, IN_USE, COMPLETE, READY };

#define GROUP_HYPERCALL 0x400u
#define GROUP_OBJECTS 0x2000u
#define SYSTEM_SUCCESS 1u
#define EVENT_HYPERCALL 0x1Au
#define EVENT_CREATE_PARTITION 0x40u
#define LONG_SPIN_WAIT 0x0008u
#define INDEX_NONE 0xFFFFFFFFu
#define PROXIMITY_VALID (UINT64_C(1) << 63)
#define VECTOR_MC 18
#define CR4_MCE 0x40u

#define BUFFERS 8u
#define SPINS 2000u

/* HV_EVENTLOG_BUFFER_HEADER (TLFS 19.2.5) */
struct buffer_header {
    uint32_t size, index, lost, first;
    uint64_t time;
    uint64_t reserved1, reserved2;
    volatile uint32_t lp, state;
    volatile uint64_t next_offset;
    uint32_t type;
    volatile uint32_t next_index;
    uint64_t reserved3, reserved4[2];
};

/* HV_EVENTLOG_ENTRY_HEADER (TLFS 19.2.6) */
struct entry_header {
    uint32_t context;
    uint16_t size, type;
    uint64_t time;
};

struct initialize {
    uint32_t type, buffers, pages, threshold, basis, time[2], padding;
};

static uintptr_t buffer_va(unsigned index)
{
    return VM_TEST_BASE + index * PAGE_SIZE;
}

static struct buffer_header *header(unsigned index)
{
    return (struct buffer_header *)buffer_va(index);
}

static unsigned fast(unsigned code, unsigned type, unsigned index, uint64_t second)
{
    return HV_RESULT_STATUS(hv_call(code | HV_CALL_FAST, type | (uint64_t)index << 32, second));
}

/* Whatever a check leaves. */
static void end_group(unsigned type)
{
    fast(SET_SOURCES, type, 0, 0);
    for (unsigned i = 0; i < BUFFERS; i++) {
        fast(FLUSH_BUFFER, type, i, 0);
        fast(UNMAP_BUFFER, type, i, 0);
        fast(DELETE_BUFFER, type, i, 0);
    }
    fast(FINALIZE_GROUP, type, 0, 0);
}

void guest_cleanup(void)
{
    end_group(SYSTEM);
    end_group(DIAGNOSTICS);
    root_reset_state();
}

static uint64_t map(unsigned type, unsigned index)
{
    uint32_t *input = page_alloc(1);
    volatile uint64_t *output = page_alloc(1);
    input[0] = type;
    input[1] = index;
    REQUIRE_EQ(HV_RESULT_STATUS(hv_call(MAP_BUFFER, (uintptr_t)input, (uintptr_t)output)), HV_STATUS_SUCCESS);
    return output[0] * PAGE_SIZE;
}

/* A group of buffers of one page, all mapped. */
static void set_up(unsigned type, unsigned threshold)
{
    struct initialize *input = page_alloc(1);
    root_enable();
    intercept_enable(VECTOR_MESSAGE);
    *input = (struct initialize){.type = type, .buffers = BUFFERS, .pages = 1, .threshold = threshold};
    REQUIRE_EQ(HV_RESULT_STATUS(hv_call(INITIALIZE_GROUP, (uintptr_t)input, 0)), HV_STATUS_SUCCESS);
    for (unsigned i = 0; i < BUFFERS; i++) {
        REQUIRE_EQ(fast(CREATE_BUFFER, type, i, PROXIMITY_VALID), HV_STATUS_SUCCESS);
        vm_map(vm_root(), buffer_va(i), map(type, i), PTE_P | PTE_W);
    }
    write_cr3(read_cr3());
}

static void spin(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        fast(LONG_SPIN_WAIT, 1, 0, 0);
    }
}

/* Entries of the type in a buffer; each begins where the one before ends, and none is from before it. */
static unsigned count_entries(unsigned index, unsigned type)
{
    const struct buffer_header *buffer = header(index);
    unsigned count = 0;
    uint64_t at = sizeof(*buffer), time = 0;
    while (at < buffer->next_offset) {
        const struct entry_header *entry = (const void *)((uintptr_t)buffer + at);
        REQUIRE(entry->size >= sizeof(*entry) && entry->size % 8 == 0);
        EXPECT(entry->time >= time);
        time = entry->time;
        count += entry->type == type;
        at += entry->size;
    }
    EXPECT_EQ(at, buffer->next_offset);
    return count;
}

static unsigned next_list(unsigned type)
{
    struct intercept intercept;
    REQUIRE(intercept_receive(&intercept, SOON));
    EXPECT_EQ(intercept.message.type, (uint32_t)HV_MESSAGE_EventLogBuffersComplete);
    EXPECT_EQ(intercept.message.payload_size, 8);
    EXPECT_EQ(intercept.message.sender, 0);
    EXPECT_EQ((uint32_t)intercept.message.payload[0], type);
    return (unsigned)(intercept.message.payload[0] >> 32);
}

CHECK(read_only, "19.1.1, 19.1.6: a buffer can be read, and a write is an access violation")
{
    set_up(DIAGNOSTICS, 1);
    EXPECT_EQ(header(3)->size, PAGE_SIZE);
    EXPECT_EQ(header(3)->index, 3);
    EXPECT_EQ(header(3)->state, FREE);
    write_cr4(read_cr4() | CR4_MCE);
    EXPECT_FAULT(VECTOR_MC, header(3)->state = 0);
    EXPECT_EQ(header(3)->state, FREE);
}

CHECK(unmapped, "19.3.6: a buffer that is unmapped is not seen any more, through the same translation")
{
    set_up(DIAGNOSTICS, 1);
    EXPECT_EQ(header(0)->size, PAGE_SIZE);
    EXPECT_EQ(fast(UNMAP_BUFFER, DIAGNOSTICS, 0, 0), HV_STATUS_SUCCESS);
    EXPECT(header(0)->size != PAGE_SIZE); /* what the machine has there: nothing */
    map(DIAGNOSTICS, 0);
    EXPECT_EQ(header(0)->size, PAGE_SIZE);
}

CHECK(entries, "19.1.12, 19.2.6: entries of a buffer in use are seen as they are written")
{
    uint64_t before = rdmsr(HV_MSR_TIME_REF_COUNT);
    set_up(DIAGNOSTICS, 1);
    EXPECT_EQ(fast(SET_SOURCES, DIAGNOSTICS, 0, GROUP_HYPERCALL), HV_STATUS_SUCCESS);
    spin(1);
    EXPECT_EQ(header(0)->state, IN_USE);
    EXPECT_EQ(count_entries(0, EVENT_HYPERCALL), 1);
    const struct entry_header *entry = (const void *)((uintptr_t)header(0) + sizeof(struct buffer_header));
    const uint64_t *values = (const void *)(entry + 1);
    EXPECT_EQ(entry->size, 32);
    EXPECT(values[0] >= 0x100000); /* where the hypercall page is */
    EXPECT_EQ(values[1], LONG_SPIN_WAIT | HV_CALL_FAST);
    EXPECT(entry->time >= before && entry->time <= rdmsr(HV_MSR_TIME_REF_COUNT));
    EXPECT(header(0)->time <= entry->time);
    EXPECT_EQ(header(0)->lp, 0);
    spin(4);
    EXPECT_EQ(count_entries(0, EVENT_HYPERCALL), 5);
}

CHECK(message, "16.5.10, 19.1.10: a full buffer is ready, and a message says so")
{
    set_up(DIAGNOSTICS, 2);
    EXPECT_EQ(fast(SET_SOURCES, DIAGNOSTICS, 0, GROUP_HYPERCALL), HV_STATUS_SUCCESS);
    spin(3 * PAGE_SIZE / 32);
    unsigned first = next_list(DIAGNOSTICS);
    EXPECT_EQ(first, 0);
    EXPECT_EQ(header(0)->state, READY);
    EXPECT_EQ(header(0)->next_index, 1);
    EXPECT_EQ(header(1)->state, READY);
    EXPECT_EQ(header(1)->next_index, INDEX_NONE);
    EXPECT_EQ(header(1)->first - header(0)->first, count_entries(0, EVENT_HYPERCALL));
    EXPECT_EQ(fast(RELEASE_BUFFER, DIAGNOSTICS, 0, 0), HV_STATUS_SUCCESS);
    EXPECT_EQ(header(0)->state, FREE);
}

CHECK(flush, "19.3.9: what is in use is announced though it is not full")
{
    set_up(SYSTEM, BUFFERS);
    EXPECT_EQ(fast(SET_SOURCES, SYSTEM, 0, SYSTEM_SUCCESS), HV_STATUS_SUCCESS);
    struct child child = {.privileges = CHILD_PRIVILEGES};
    child_create(&child);
    EXPECT_EQ(header(0)->state, IN_USE);
    EXPECT_EQ(fast(FLUSH_BUFFER, SYSTEM, 0, 0), HV_STATUS_SUCCESS);
    EXPECT_EQ(next_list(SYSTEM), 0);
    EXPECT_EQ(header(0)->state, READY);
    EXPECT_EQ(count_entries(0, EVENT_CREATE_PARTITION), 1);
}

static void spin_on(void *unused)
{
    (void)unused;
    spin(SPINS);
}

/* Release what is ready, and count what was in it. */
static unsigned drain(unsigned index, unsigned *lost)
{
    unsigned count = count_entries(index, EVENT_HYPERCALL);
    *lost += header(index)->lost;
    EXPECT_EQ(fast(RELEASE_BUFFER, DIAGNOSTICS, index, 0), HV_STATUS_SUCCESS);
    return count;
}

CHECK(processors, "19.1.3, 19.1.9, 19.2.5: each processor fills its own buffers; nothing is lost that is not counted")
{
    unsigned recorded[GUEST_MAX_CPUS] = {0}, lost[GUEST_MAX_CPUS] = {0}, seen[GUEST_MAX_CPUS] = {0};
    set_up(DIAGNOSTICS, 1);
    EXPECT_EQ(fast(SET_SOURCES, DIAGNOSTICS, 0, GROUP_HYPERCALL), HV_STATUS_SUCCESS);
    smp_run_all(spin_on, NULL);
    EXPECT_EQ(fast(SET_SOURCES, DIAGNOSTICS, 0, 0), HV_STATUS_SUCCESS);
    for (unsigned i = 0; i < BUFFERS; i++) {
        unsigned status = fast(FLUSH_BUFFER, DIAGNOSTICS, i, 0);
        EXPECT(status == HV_STATUS_SUCCESS || status == HV_STATUS_OPERATION_DENIED);
        if (header(i)->state == READY) {
            unsigned lp = header(i)->lp;
            REQUIRE(lp < cpu_count());
            uint32_t end = header(i)->first + count_entries(i, EVENT_HYPERCALL);
            seen[lp] = end > seen[lp] ? end : seen[lp];
            recorded[lp] += drain(i, &lost[lp]);
        }
    }
    for (unsigned i = 0; i < cpu_count(); i++) {
        EXPECT_THAT(recorded[i] + lost[i] == seen[i], "LP %u: %u recorded, %u lost, %u numbered", i, recorded[i],
                    lost[i], seen[i]);
        EXPECT(seen[i] <= SPINS + 2);
    }
}
