/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * VMs and memory slots on a KVM that is made up: every call fails once, with every error it may have, and nothing is
 * left behind.
 */
#include "kvm_calls.h"

#include <errno.h>

#include "check.h"

/* -- The KVM -- */

enum { DEV_KVM = 3, FIRST_DESCRIPTOR = 10, DESCRIPTORS = 64, SLOTS = 16 };

static struct {
    bool open[DESCRIPTORS];
    int made; /* descriptors */
    struct kvm_userspace_memory_region slot[SLOTS];
    int calls; /* so far */
    int fail_at; /* this call, counted from 1; 0: none */
    int error;
    unsigned long failed; /* the request of it */
    bool enabled[512]; /* capabilities */
    int lacking; /* one that is not there */
    uint64_t dirty; /* what each dirty log says */
} host;

static int new_descriptor(void)
{
    int fd = FIRST_DESCRIPTOR + host.made++;

    host.open[fd] = true;
    return fd;
}

static int open_descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < DESCRIPTORS; fd++)
        count += host.open[fd];
    return count;
}

static bool overlap(const struct kvm_userspace_memory_region *a, const struct kvm_userspace_memory_region *b)
{
    return a->guest_phys_addr < b->guest_phys_addr + b->memory_size &&
           b->guest_phys_addr < a->guest_phys_addr + a->memory_size;
}

/* As KVM does: a slot goes or comes, and changes its flags, but never moves or overlaps another. */
static int set_region(const struct kvm_userspace_memory_region *region)
{
    struct kvm_userspace_memory_region *slot = &host.slot[region->slot];

    if (region->slot >= SLOTS || (region->memory_size | region->guest_phys_addr) % 4096)
        return -EINVAL;
    if (region->memory_size && slot->memory_size &&
        (slot->memory_size != region->memory_size || slot->guest_phys_addr != region->guest_phys_addr))
        return -EINVAL;
    if (!region->memory_size && !slot->memory_size)
        return -EINVAL;
    for (int i = 0; i < SLOTS && region->memory_size; i++) {
        if (i != (int)region->slot && host.slot[i].memory_size && overlap(&host.slot[i], region))
            return -EEXIST;
    }
    *slot = *region;
    return 0;
}

static int get_dirty_log(const struct kvm_dirty_log *log)
{
    if (log->slot >= SLOTS || !(host.slot[log->slot].flags & KVM_MEM_LOG_DIRTY_PAGES))
        return -ENOENT;
    memcpy(log->dirty_bitmap, &host.dirty, sizeof(host.dirty));
    return 0;
}

static int fake_call(int fd, unsigned long request, uintptr_t argument)
{
    EXPECT(fd == DEV_KVM || host.open[fd]);
    if (++host.calls == host.fail_at) {
        host.failed = request;
        return -host.error;
    }
    switch (request) {
    case KVM_CREATE_VM:
        EXPECT(fd == DEV_KVM);
        return new_descriptor();
    case KVM_CREATE_VCPU:
        return new_descriptor();
    case KVM_ENABLE_CAP:
        host.enabled[((const struct kvm_enable_cap *)argument)->cap] = true;
        return 0;
    case KVM_CHECK_EXTENSION:
        return argument != (uintptr_t)host.lacking;
    case KVM_X86_SET_MSR_FILTER:
        EXPECT(((const struct kvm_msr_filter *)argument)->flags & KVM_MSR_FILTER_DEFAULT_DENY);
        return 0;
    case KVM_SET_USER_MEMORY_REGION:
        return set_region((const struct kvm_userspace_memory_region *)argument);
    case KVM_GET_DIRTY_LOG:
        return get_dirty_log((const struct kvm_dirty_log *)argument);
    default:
        EXPECT(!"a call that nobody makes");
        return -ENOTTY;
    }
}

static void fake_close(int fd)
{
    EXPECT(host.open[fd]);
    host.open[fd] = false;
}

static const struct mshv_kvm_calls fake = {.call = fake_call, .close = fake_close};

static void begin(int fail_at, int error)
{
    memset(&host, 0, sizeof(host));
    host.fail_at = fail_at;
    host.error = error;
}

static const int errors[] = {EPERM,  ENOENT, EINTR,  ENXIO,  ENOMEM, EACCES,
                             EFAULT, EBUSY,  EEXIST, EINVAL, EMFILE, ENOSPC};
#define FOR_ERRORS(error)                                                                                              \
    for (size_t at_##error = 0, error;                                                                                 \
         at_##error < sizeof(errors) / sizeof(errors[0]) && ((error = (size_t)errors[at_##error]), true);              \
         at_##error++)

/* -- VMs -- */

static void makes_a_vm(void)
{
    struct mshv_kvm_failure failure;
    struct mshv_kvm_vm vm;

    begin(0, 0);
    EXPECT(mshv_kvm_vm_create(&vm, DEV_KVM, &failure));
    EXPECT(host.open[vm.vm] && host.open[vm.vcpu] && open_descriptors() == 2);
    EXPECT(host.enabled[KVM_CAP_X86_USER_SPACE_MSR] && host.enabled[KVM_CAP_EXCEPTION_PAYLOAD]);
    fake_close(vm.vcpu);
    mshv_kvm_vm_close(&vm);
    EXPECT(open_descriptors() == 0 && vm.vm == -1);
}

static void an_older_kvm_serves(void)
{
    struct mshv_kvm_failure failure;
    struct mshv_kvm_vm vm;

    begin(0, 0);
    host.lacking = KVM_CAP_X86_TRIPLE_FAULT_EVENT;
    EXPECT(mshv_kvm_vm_create(&vm, DEV_KVM, &failure));
    EXPECT(!host.enabled[KVM_CAP_X86_TRIPLE_FAULT_EVENT] && host.enabled[KVM_CAP_EXCEPTION_PAYLOAD]);
}

static void every_call_of_making_a_vm_fails(void)
{
    static const char *const names[] = {"KVM_CREATE_VM",          "KVM_CHECK_EXTENSION", "KVM_ENABLE_CAP",
                                        "KVM_CHECK_EXTENSION",    "KVM_ENABLE_CAP",      "KVM_ENABLE_CAP",
                                        "KVM_X86_SET_MSR_FILTER", "KVM_CREATE_VCPU"};

    for (int call = 1; call <= (int)(sizeof(names) / sizeof(names[0])); call++) {
        FOR_ERRORS(error)
        {
            struct mshv_kvm_failure failure = {0};
            struct mshv_kvm_vm vm;

            begin(call, (int)error);
            EXPECT(!mshv_kvm_vm_create(&vm, DEV_KVM, &failure));
            EXPECT(failure.call && strcmp(failure.call, names[call - 1]) == 0 && failure.error == (int)error);
            EXPECT(open_descriptors() == 0 && vm.vm == -1 && vm.vcpu == -1);
        }
    }
}

/* -- Ranges -- */

static uint8_t memory[64 * 4096];

static void add(struct mshv_kvm_ranges *ranges, unsigned page, unsigned pages, unsigned host_page, bool read_only)
{
    struct mshv_kvm_range range = {.gpa = page * UINT64_C(4096),
                                   .size = pages * UINT64_C(4096),
                                   .host = memory + host_page * 4096,
                                   .read_only = read_only};

    mshv_kvm_ranges_add(ranges, &range);
}

static void ranges_that_continue_are_one(void)
{
    struct mshv_kvm_ranges ranges = {.most = 100};

    add(&ranges, 0, 2, 0, false);
    add(&ranges, 2, 3, 2, false);
    EXPECT(ranges.count == 1 && ranges.list[0].size == 5 * 4096);
    add(&ranges, 5, 1, 5, true); /* another right */
    add(&ranges, 6, 1, 9, true); /* elsewhere */
    add(&ranges, 8, 1, 10, true); /* behind a hole */
    EXPECT(ranges.count == 4 && !ranges.left_out && !ranges.failed);
    free(ranges.list);
}

static void what_is_over_the_limit_is_left_out(void)
{
    struct mshv_kvm_ranges ranges = {.most = 2};

    for (unsigned i = 0; i < 5; i++)
        add(&ranges, 2 * i, 1, 2 * i, false);
    EXPECT(ranges.count == 2 && ranges.left_out == 3 * 4096);
    free(ranges.list);
}

/* -- Slots -- */

static bool has(unsigned page, unsigned pages, unsigned host_page, uint32_t flags)
{
    for (int i = 0; i < SLOTS; i++) {
        const struct kvm_userspace_memory_region *slot = &host.slot[i];

        if (slot->memory_size == pages * UINT64_C(4096) && slot->guest_phys_addr == page * UINT64_C(4096) &&
            slot->userspace_addr == (uintptr_t)memory + host_page * 4096 && slot->flags == flags)
            return true;
    }
    return false;
}

static int used_slots(void)
{
    int count = 0;

    for (int i = 0; i < SLOTS; i++)
        count += host.slot[i].memory_size != 0;
    return count;
}

static struct mshv_kvm_ranges first_arrangement(void)
{
    struct mshv_kvm_ranges ranges = {.most = 100};

    add(&ranges, 0, 4, 0, false);
    add(&ranges, 4, 1, 20, true);
    add(&ranges, 10, 2, 10, false);
    return ranges;
}

/* One stays, one becomes two others at the same place, one goes. */
static struct mshv_kvm_ranges second_arrangement(void)
{
    struct mshv_kvm_ranges ranges = {.most = 100};

    add(&ranges, 0, 2, 0, false);
    add(&ranges, 2, 2, 30, false);
    add(&ranges, 4, 1, 20, true);
    return ranges;
}

static void slots_follow_the_map(void)
{
    struct mshv_kvm_ranges first = first_arrangement(), second = second_arrangement(), none = {.most = 100};
    struct mshv_kvm_slots slots = {.vm = FIRST_DESCRIPTOR};
    struct mshv_kvm_failure failure;

    begin(0, 0);
    new_descriptor();
    EXPECT(mshv_kvm_slots_set(&slots, &first, &failure));
    EXPECT(used_slots() == 3 && has(0, 4, 0, 0) && has(4, 1, 20, KVM_MEM_READONLY) && has(10, 2, 10, 0));
    host.calls = 0;
    EXPECT(mshv_kvm_slots_set(&slots, &first, &failure));
    EXPECT(host.calls == 0); /* nothing has changed */
    EXPECT(mshv_kvm_slots_set(&slots, &second, &failure));
    EXPECT(host.calls == 4);
    EXPECT(used_slots() == 3 && has(0, 2, 0, 0) && has(2, 2, 30, 0) && has(4, 1, 20, KVM_MEM_READONLY));
    EXPECT(mshv_kvm_slots_set(&slots, &none, &failure));
    EXPECT(used_slots() == 0);
    mshv_kvm_slots_free(&slots);
    free(first.list);
    free(second.list);
}

/* Whatever fails, there is never memory that is not wanted, but for a slot that KVM itself would not let go. */
static void every_call_of_a_change_fails(void)
{
    for (int call = 1; call <= 4; call++) {
        FOR_ERRORS(error)
        {
            struct mshv_kvm_ranges first = first_arrangement(), second = second_arrangement();
            struct mshv_kvm_slots slots = {.vm = FIRST_DESCRIPTOR};
            struct mshv_kvm_failure failure = {0};

            begin(0, 0);
            new_descriptor();
            EXPECT(mshv_kvm_slots_set(&slots, &first, &failure));
            host.calls = 0;
            host.fail_at = call;
            host.error = (int)error;
            EXPECT(!mshv_kvm_slots_set(&slots, &second, &failure));
            EXPECT(failure.call && strcmp(failure.call, "KVM_SET_USER_MEMORY_REGION") == 0 &&
                   failure.error == (int)error);
            EXPECT(has(4, 1, 20, KVM_MEM_READONLY));
            if (call > 2)
                EXPECT(!has(0, 4, 0, 0) && !has(10, 2, 10, 0));
            /* What was missing comes when it is tried again. */
            host.fail_at = 0;
            EXPECT(mshv_kvm_slots_set(&slots, &second, &failure));
            EXPECT(used_slots() == 3 && has(0, 2, 0, 0) && has(2, 2, 30, 0));
            mshv_kvm_slots_free(&slots);
            free(first.list);
            free(second.list);
        }
    }
}

/* -- What is written -- */

static uint64_t told[2][8]; /* page, pages */
static unsigned told_count;

static void tell(void *opaque, uint8_t *at, uint64_t size)
{
    EXPECT(opaque == &told_count && told_count < 8);
    told[0][told_count] = (uint64_t)(at - memory) / 4096;
    told[1][told_count++] = size / 4096;
}

static void writes_are_told_in_runs(void)
{
    struct mshv_kvm_ranges first = first_arrangement();
    struct mshv_kvm_slots slots = {.vm = FIRST_DESCRIPTOR};
    struct mshv_kvm_failure failure;

    begin(0, 0);
    new_descriptor();
    EXPECT(mshv_kvm_slots_set(&slots, &first, &failure));
    EXPECT(mshv_kvm_slots_log(&slots, true, &failure));
    EXPECT(has(0, 4, 0, KVM_MEM_LOG_DIRTY_PAGES) && has(10, 2, 10, KVM_MEM_LOG_DIRTY_PAGES));
    host.dirty = 0xFFFFFFFFFFFFFFF6; /* beyond a slot's end, too */
    told_count = 0;
    EXPECT(mshv_kvm_slots_collect(&slots, tell, &told_count, &failure));
    EXPECT(told_count == 2 && told[0][0] == 1 && told[1][0] == 2 && told[0][1] == 11 && told[1][1] == 1);
    EXPECT(mshv_kvm_slots_log(&slots, false, &failure));
    EXPECT(has(0, 4, 0, 0) && has(10, 2, 10, 0));
    mshv_kvm_slots_free(&slots);
    free(first.list);
}

/* A log that cannot be had counts as full. */
static void a_log_fails(void)
{
    FOR_ERRORS(error)
    {
        struct mshv_kvm_ranges first = first_arrangement();
        struct mshv_kvm_slots slots = {.vm = FIRST_DESCRIPTOR};
        struct mshv_kvm_failure failure = {0};

        begin(0, 0);
        new_descriptor();
        EXPECT(mshv_kvm_slots_set(&slots, &first, &failure));
        host.calls = 0;
        host.fail_at = 1;
        host.error = (int)error;
        EXPECT(!mshv_kvm_slots_log(&slots, true, &failure));
        EXPECT(host.failed == KVM_SET_USER_MEMORY_REGION && failure.error == (int)error);
        EXPECT(mshv_kvm_slots_log(&slots, false, &failure) && mshv_kvm_slots_log(&slots, true, &failure));
        host.calls = 0;
        host.fail_at = 1;
        told_count = 0;
        EXPECT(!mshv_kvm_slots_collect(&slots, tell, &told_count, &failure));
        EXPECT(strcmp(failure.call, "KVM_GET_DIRTY_LOG") == 0 && failure.error == (int)error);
        EXPECT(told_count >= 1 && told[0][0] == 0 && told[1][0] == 4);
        mshv_kvm_slots_free(&slots);
        free(first.list);
    }
}

int main(void)
{
    mshv_kvm_calls = &fake;
    makes_a_vm();
    an_older_kvm_serves();
    every_call_of_making_a_vm_fails();
    ranges_that_continue_are_one();
    what_is_over_the_limit_is_left_out();
    slots_follow_the_map();
    every_call_of_a_change_fails();
    writes_are_told_in_runs();
    a_log_fails();
    printf("%d failures\n", failures);
    return failures != 0;
}
