/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * VMs of children: their descriptors and memory slots. See kvm_calls.h.
 */
#include "kvm_calls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int call_kvm(int fd, unsigned long request, uintptr_t argument)
{
    int ret = ioctl(fd, request, argument);

    return ret < 0 ? -errno : ret;
}

static void close_descriptor(int fd)
{
    close(fd);
}

static const struct mshv_kvm_calls the_host = {.call = call_kvm, .close = close_descriptor};
const struct mshv_kvm_calls *mshv_kvm_calls = &the_host;

static bool fail(struct mshv_kvm_failure *failure, const char *call, int ret)
{
    failure->call = call;
    failure->error = -ret;
    return false;
}

#define CALL(fd, request, argument) mshv_kvm_calls->call(fd, request, (uintptr_t)(argument))
#define TRY(ret, failure, fd, request, argument)                                                                       \
    ((ret = CALL(fd, request, argument)) >= 0 || fail(failure, #request, ret))

/* -- VMs -- */

/* KVM decides alone about none but those that change with every switch of a thread or of CPL. */
static struct kvm_msr_filter filter(uint8_t *all)
{
    struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_DENY};

    filter.ranges[0] = (struct kvm_msr_filter_range){
        .flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE, .base = 0xC0000100, .nmsrs = 3, .bitmap = all};
    return filter;
}

/* QEMU puts and gets a vCPU's events in the form that its own VM has: of all VMs, or of none. */
static bool enable_events(const struct mshv_kvm_vm *vm, struct mshv_kvm_failure *failure)
{
    static const uint32_t forms[] = {KVM_CAP_EXCEPTION_PAYLOAD, KVM_CAP_X86_TRIPLE_FAULT_EVENT};
    int ret;

    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        struct kvm_enable_cap form = {.cap = forms[i], .args = {true}};

        if (!TRY(ret, failure, vm->vm, KVM_CHECK_EXTENSION, forms[i]))
            return false;
        if (ret > 0 && !TRY(ret, failure, vm->vm, KVM_ENABLE_CAP, &form))
            return false;
    }
    return true;
}

static bool set_up(const struct mshv_kvm_vm *vm, struct mshv_kvm_failure *failure)
{
    uint8_t all[8];
    struct kvm_enable_cap exits = {
        .cap = KVM_CAP_X86_USER_SPACE_MSR,
        .args = {KVM_MSR_EXIT_REASON_FILTER | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_INVAL},
    };
    struct kvm_msr_filter msrs = filter(all);
    int ret;

    memset(all, 0xFF, sizeof(all));
    return enable_events(vm, failure) && TRY(ret, failure, vm->vm, KVM_ENABLE_CAP, &exits) &&
           TRY(ret, failure, vm->vm, KVM_X86_SET_MSR_FILTER, &msrs);
}

bool mshv_kvm_vm_create(struct mshv_kvm_vm *vm, int kvm, struct mshv_kvm_failure *failure)
{
    *vm = (struct mshv_kvm_vm){.vm = -1, .vcpu = -1};
    if (!TRY(vm->vm, failure, kvm, KVM_CREATE_VM, 0)) {
        vm->vm = -1;
        return false;
    }
    if (set_up(vm, failure) && TRY(vm->vcpu, failure, vm->vm, KVM_CREATE_VCPU, 0))
        return true;
    vm->vcpu = -1;
    mshv_kvm_vm_close(vm);
    return false;
}

void mshv_kvm_vm_close(struct mshv_kvm_vm *vm)
{
    if (vm->vm >= 0)
        mshv_kvm_calls->close(vm->vm);
    vm->vm = -1;
}

/* -- Ranges -- */

static bool continues(const struct mshv_kvm_range *last, const struct mshv_kvm_range *next)
{
    return last->gpa + last->size == next->gpa && last->host + last->size == next->host &&
           last->read_only == next->read_only;
}

static bool make_room(struct mshv_kvm_ranges *ranges)
{
    size_t room = ranges->room ? ranges->room * 2 : 16;
    struct mshv_kvm_range *list;

    if (ranges->count < ranges->room)
        return true;
    list = realloc(ranges->list, room * sizeof(*list));
    if (!list)
        return false;
    ranges->list = list;
    ranges->room = room;
    return true;
}

void mshv_kvm_ranges_add(struct mshv_kvm_ranges *ranges, const struct mshv_kvm_range *range)
{
    struct mshv_kvm_range *last = ranges->count ? &ranges->list[ranges->count - 1] : NULL;

    if (last && continues(last, range)) {
        last->size += range->size;
    } else if (ranges->count >= ranges->most) {
        ranges->left_out += range->size;
    } else if (!make_room(ranges)) {
        ranges->failed = true;
    } else {
        ranges->list[ranges->count++] = *range;
    }
}

/* -- Slots -- */

static bool put_slot(struct mshv_kvm_slots *slots, size_t slot, const struct mshv_kvm_range *range, uint64_t size,
                     struct mshv_kvm_failure *failure)
{
    struct kvm_userspace_memory_region region = {
        .slot = (uint32_t)slot,
        .flags = (range->read_only ? KVM_MEM_READONLY : 0) | (slots->log_dirty ? KVM_MEM_LOG_DIRTY_PAGES : 0),
        .guest_phys_addr = range->gpa,
        .memory_size = size,
        .userspace_addr = (uintptr_t)range->host,
    };
    int ret;

    return TRY(ret, failure, slots->vm, KVM_SET_USER_MEMORY_REGION, &region);
}

static bool same(const struct mshv_kvm_range *a, const struct mshv_kvm_range *b)
{
    return a->gpa == b->gpa && a->size == b->size && a->host == b->host && a->read_only == b->read_only;
}

/* By binary search: the list is in the order of its addresses. */
static bool is_wanted(const struct mshv_kvm_ranges *wanted, const struct mshv_kvm_range *range, size_t *at)
{
    size_t low = 0, high = wanted->count;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (wanted->list[middle].gpa < range->gpa)
            low = middle + 1;
        else
            high = middle;
    }
    *at = low;
    return low < wanted->count && same(&wanted->list[low], range);
}

/* What goes goes first, so that nothing overlaps; `there` tells what stays. */
static bool remove_unwanted(struct mshv_kvm_slots *slots, const struct mshv_kvm_ranges *wanted, bool *there,
                            struct mshv_kvm_failure *failure)
{
    bool good = true;
    size_t at;

    for (size_t i = 0; i < slots->count; i++) {
        struct mshv_kvm_range *range = &slots->ranges[i];

        if (!range->size)
            continue;
        if (is_wanted(wanted, range, &at)) {
            there[at] = true;
            continue;
        }
        if (put_slot(slots, i, range, 0, failure))
            range->size = 0;
        else
            good = false;
    }
    return good;
}

static size_t free_slot(struct mshv_kvm_slots *slots, size_t from)
{
    while (from < slots->count && slots->ranges[from].size)
        from++;
    return from;
}

static bool add_missing(struct mshv_kvm_slots *slots, const struct mshv_kvm_ranges *wanted, const bool *there,
                        struct mshv_kvm_failure *failure)
{
    size_t slot = 0;

    for (size_t i = 0; i < wanted->count; i++) {
        if (there[i])
            continue;
        slot = free_slot(slots, slot);
        if (!put_slot(slots, slot, &wanted->list[i], wanted->list[i].size, failure))
            return false;
        slots->ranges[slot] = wanted->list[i];
        if (slot == slots->count)
            slots->count++;
    }
    return true;
}

bool mshv_kvm_slots_set(struct mshv_kvm_slots *slots, const struct mshv_kvm_ranges *wanted,
                        struct mshv_kvm_failure *failure)
{
    size_t most = slots->count + wanted->count;
    struct mshv_kvm_range *ranges;
    bool *there, good;

    ranges = realloc(slots->ranges, (most ? most : 1) * sizeof(*ranges));
    if (!ranges)
        return fail(failure, "memory for slots", -ENOMEM);
    slots->ranges = ranges;
    there = calloc(wanted->count ? wanted->count : 1, sizeof(*there));
    if (!there)
        return fail(failure, "memory for slots", -ENOMEM);
    good = remove_unwanted(slots, wanted, there, failure) && add_missing(slots, wanted, there, failure);
    free(there);
    return good;
}

bool mshv_kvm_slots_log(struct mshv_kvm_slots *slots, bool on, struct mshv_kvm_failure *failure)
{
    bool good = true;

    if (slots->log_dirty == on)
        return true;
    slots->log_dirty = on;
    for (size_t i = 0; i < slots->count; i++) {
        if (slots->ranges[i].size && !slots->ranges[i].read_only)
            good &= put_slot(slots, i, &slots->ranges[i], slots->ranges[i].size, failure);
    }
    return good;
}

#define BITS 64

static void tell_dirty(const struct mshv_kvm_range *range, const uint64_t *bitmap, size_t page_size,
                       void (*dirty)(void *opaque, uint8_t *host, uint64_t size), void *opaque)
{
    size_t pages = (size_t)(range->size / page_size);

    for (size_t first = 0; first < pages; first++) {
        size_t end = first;

        while (end < pages && (bitmap[end / BITS] >> (end % BITS) & 1))
            end++;
        if (end > first) {
            dirty(opaque, range->host + first * page_size, (end - first) * page_size);
            first = end;
        }
    }
}

bool mshv_kvm_slots_collect(struct mshv_kvm_slots *slots, void (*dirty)(void *opaque, uint8_t *host, uint64_t size),
                            void *opaque, struct mshv_kvm_failure *failure)
{
    const size_t page_size = 4096;
    bool good = true;

    for (size_t i = 0; i < slots->count; i++) {
        const struct mshv_kvm_range *range = &slots->ranges[i];
        struct kvm_dirty_log log = {.slot = (uint32_t)i};
        size_t words = (size_t)(range->size / page_size / BITS) + 1;
        int ret;

        if (!range->size || range->read_only || !slots->log_dirty)
            continue;
        log.dirty_bitmap = calloc(words, sizeof(uint64_t));
        if (!log.dirty_bitmap)
            good = fail(failure, "memory for a dirty log", -ENOMEM);
        else if (TRY(ret, failure, slots->vm, KVM_GET_DIRTY_LOG, &log))
            tell_dirty(range, log.dirty_bitmap, page_size, dirty, opaque);
        else
            good = false;
        if (!good) /* it may have been written */
            dirty(opaque, range->host, range->size);
        free(log.dirty_bitmap);
    }
    return good;
}

void mshv_kvm_slots_free(struct mshv_kvm_slots *slots)
{
    free(slots->ranges);
    slots->ranges = NULL;
    slots->count = 0;
}
