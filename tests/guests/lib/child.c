/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A child's life, its pool and its properties. */
#include "child.h"

#include "guest.h"

/* Enough for a partition with a few VPs; more follows when a call asks for it. */
#define FIRST_DEPOSIT 256u
#define NEXT_DEPOSIT 64u

bool root_is_2008r2(void)
{
    return guest_generation() == GENERATION_2008R2;
}

void root_enable(void)
{
    hv_enable();
}

/* -- Pools -- */

/* Pages of the specification's partitions are charged for what they hold, so every call here may run short of them. */
static bool wants_memory(uint64_t partition, unsigned status)
{
    if (status != HV_STATUS_INSUFFICIENT_MEMORY) {
        return false;
    }
    partition_deposit(partition, NEXT_DEPOSIT);
    return true;
}

void partition_deposit(uint64_t partition, unsigned pages)
{
    struct hv_in_deposit_memory input = {.partition = partition};
    while (pages > 0) {
        uint64_t list[64];
        unsigned count = pages < 64 ? pages : 64;
        for (unsigned i = 0; i < count; i++) {
            list[i] = ram_reserve_page() / PAGE_SIZE;
        }
        HV_MUST(hvcall_deposit_memory(&input, list, NULL, count, NULL));
        pages -= count;
    }
}

unsigned partition_withdraw(uint64_t partition)
{
    struct hv_in_withdraw_memory input = {.partition = partition};
    unsigned total = 0, count, status;
    do {
        uint64_t list[64];
        status = hvcall_withdraw_memory(&input, NULL, list, 64, &count);
        for (unsigned i = 0; i < count; i++) {
            ram_give_page((uintptr_t)list[i] * PAGE_SIZE);
        }
        total += count;
    } while (status == HV_STATUS_SUCCESS && count > 0);
    /* NO_RESOURCES: fewer were free than asked for (TLFS 7.3.2), which is the usual end. */
    if (status != HV_STATUS_NO_RESOURCES) {
        HV_MUST(status);
    }
    return total;
}

/* -- Life -- */

static unsigned create(const struct child *child, uint64_t *id)
{
    if (root_is_2008r2()) {
        struct hv_in_create_partition_2008r2 input = {0};
        struct hv_out_create_partition_2008r2 output = {0};
        unsigned status = hvcall_create_partition_2008r2(&input, &output);
        *id = output.partition;
        return status;
    }
    struct hv_in_create_partition_current input = {.flags = child->create_flags | HV_CREATE_LAPIC};
    struct hv_out_create_partition_current output = {0};
    unsigned status = hvcall_create_partition_current(&input, &output);
    *id = output.partition;
    return status;
}

static uint64_t own_id(void)
{
    struct hv_out_get_partition_id output;
    HV_MUST(hvcall_get_partition_id(NULL, &output));
    return output.partition;
}

void child_create(struct child *child)
{
    unsigned status;
    /* The partition itself is charged to its creator's pool (TLFS 5.6.1), the rest to its own. */
    do {
        status = create(child, &child->id);
    } while (status == HV_STATUS_INSUFFICIENT_MEMORY && wants_memory(own_id(), status));
    HV_MUST(status);
    child->vps = 0;
    child->range_count = 0;
    partition_deposit(child->id, FIRST_DEPOSIT);
    struct hv_in_initialize_partition input = {.partition = child->id};
    do {
        status = hvcall_initialize_partition(&input, NULL);
    } while (wants_memory(child->id, status));
    HV_MUST(status);
    if (child->privileges) {
        child_set_property(child, HV_PROPERTY_PRIVILEGES, child->privileges);
    }
}

static uint64_t next_child(uint64_t parent, uint64_t previous)
{
    struct hv_in_get_next_child_partition input = {.parent = parent, .previous = previous};
    struct hv_out_get_next_child_partition output;
    HV_MUST(hvcall_get_next_child_partition(&input, &output));
    return output.child;
}

void partition_delete(uint64_t partition)
{
    struct hv_in_finalize_partition finalize = {.partition = partition};
    unsigned status = hvcall_finalize_partition(&finalize, NULL);
    /* A partition that was never initialized has nothing to finalize; one that was finalized already has not either. */
    if (status != HV_STATUS_INVALID_PARTITION_STATE) {
        HV_MUST(status);
    }
    partition_withdraw(partition);
    struct hv_in_delete_partition input = {.partition = partition};
    HV_MUST(hvcall_delete_partition(&input, NULL));
}

void child_delete(struct child *child)
{
    partition_delete(child->id);
    child->id = 0;
    child->vps = 0;
    child->range_count = 0;
}

void root_reset_state(void)
{
    hv_enable();
    uint64_t self = own_id(), child;
    while ((child = next_child(self, 0)) != 0) {
        partition_delete(child);
    }
    partition_withdraw(self);
    hv_reset_state();
    ram_free_all();
}

/* -- Properties -- */

uint64_t child_get_property(const struct child *child, uint32_t property)
{
    struct hv_in_get_partition_property input = {.partition = child->id, .property = property};
    struct hv_out_get_partition_property output;
    HV_MUST(hvcall_get_partition_property(&input, &output));
    return output.value;
}

void child_set_property(const struct child *child, uint32_t property, uint64_t value)
{
    struct hv_in_set_partition_property input = {.partition = child->id, .property = property, .value = value};
    unsigned status;
    do {
        status = hvcall_set_partition_property(&input, NULL);
    } while (wants_memory(child->id, status));
    HV_MUST(status);
}

/* -- Memory -- */

static uint32_t map_flags(uint32_t rights)
{
    if (root_is_2008r2()) {
        return rights;
    }
    bool execute = rights & HV_MAP_EXECUTE_2008R2;
    return (rights & (HV_MAP_READ | HV_MAP_WRITE)) | (execute ? HV_MAP_EXECUTE_CURRENT : 0);
}

/* One run of pages of one size; `step` is that size in small pages. */
static void map_pages(const struct child *child, uint64_t gpa_page, uint64_t root_page, uint64_t count, unsigned step,
                      uint32_t flags)
{
    enum { LIST = 256 };
    struct hv_in_map_gpa_pages input = {.partition = child->id, .flags = flags};
    while (count > 0) {
        uint64_t list[LIST];
        unsigned now = count < LIST ? (unsigned)count : LIST, done;
        for (unsigned i = 0; i < now; i++) {
            list[i] = root_page + (uint64_t)i * step;
        }
        input.gpa_page = gpa_page;
        unsigned status = hvcall_map_gpa_pages(&input, list, NULL, now, &done);
        if (!wants_memory(child->id, status)) {
            HV_MUST(status);
        }
        /* What a call that ran short has mapped need not be mapped again (TLFS 4.8). */
        gpa_page += (uint64_t)done * step;
        root_page += (uint64_t)done * step;
        count -= done;
    }
}

void child_map(struct child *child, uint64_t gpa, uintptr_t root, uint64_t size, uint32_t rights)
{
    uint32_t flags = map_flags(rights);
    bool large = !root_is_2008r2() && gpa % LARGE_PAGE_SIZE == root % LARGE_PAGE_SIZE;
    uint64_t head = large ? -gpa % LARGE_PAGE_SIZE : size;
    head = head < size ? head : size;
    uint64_t body = (size - head) / LARGE_PAGE_SIZE * LARGE_PAGE_SIZE, tail = size - head - body;
    if (child->range_count == CHILD_MAX_RANGES) {
        guest_panic("child_map: more than %d ranges", CHILD_MAX_RANGES);
    }
    map_pages(child, gpa / PAGE_SIZE, root / PAGE_SIZE, head / PAGE_SIZE, 1, flags);
    map_pages(child, (gpa + head) / PAGE_SIZE, (root + head) / PAGE_SIZE, body / LARGE_PAGE_SIZE,
              LARGE_PAGE_SIZE / PAGE_SIZE, flags | HV_MAP_LARGE_CURRENT);
    map_pages(child, (gpa + head + body) / PAGE_SIZE, (root + head + body) / PAGE_SIZE, tail / PAGE_SIZE, 1, flags);
    child->ranges[child->range_count++] = (struct child_range){.gpa = gpa, .size = size, .root = root};
}

static unsigned unmap_some(uint64_t partition, uint64_t gpa_page, unsigned count, unsigned *done)
{
    if (root_is_2008r2()) {
        struct hv_in_unmap_gpa_pages_2008r2 input = {.partition = partition, .gpa_page = gpa_page};
        return hvcall_unmap_gpa_pages_2008r2(&input, NULL, NULL, count, done);
    }
    struct hv_in_unmap_gpa_pages_current input = {.partition = partition, .gpa_page = gpa_page};
    return hvcall_unmap_gpa_pages_current(&input, NULL, NULL, count, done);
}

static void forget_range(struct child *child, uint64_t gpa, uint64_t size)
{
    for (unsigned i = 0; i < child->range_count; i++) {
        if (child->ranges[i].gpa == gpa && child->ranges[i].size == size) {
            child->ranges[i] = child->ranges[--child->range_count];
            return;
        }
    }
}

void child_unmap(struct child *child, uint64_t gpa, uint64_t size)
{
    uint64_t page = gpa / PAGE_SIZE, count = size / PAGE_SIZE;
    while (count > 0) {
        unsigned done;
        unsigned status = unmap_some(child->id, page, count < 4095 ? (unsigned)count : 4095, &done);
        /* Taking a part out of a large range can cost memory. */
        if (!wants_memory(child->id, status)) {
            HV_MUST(status);
        }
        page += done;
        count -= done;
    }
    forget_range(child, gpa, size);
}

uintptr_t child_add_memory(struct child *child, uint64_t gpa, uint64_t size)
{
    uintptr_t root = ram_take(size, size >= LARGE_PAGE_SIZE ? LARGE_PAGE_SIZE : PAGE_SIZE);
    child_map(child, gpa, root, size, CHILD_RAM);
    return root;
}

void *child_memory(const struct child *child, uint64_t gpa, uint64_t size)
{
    for (unsigned i = 0; i < child->range_count; i++) {
        const struct child_range *range = &child->ranges[i];
        if (gpa >= range->gpa && gpa - range->gpa < range->size && size <= range->size - (gpa - range->gpa)) {
            return (void *)(range->root + (uintptr_t)(gpa - range->gpa));
        }
    }
    return NULL;
}

/* -- VPs -- */

static unsigned create_vp(uint64_t partition, unsigned vp)
{
    if (root_is_2008r2()) {
        struct hv_in_create_vp_2008r2 input = {.partition = partition, .vp = vp};
        return hvcall_create_vp_2008r2(&input, NULL);
    }
    struct hv_in_create_vp_current input = {.partition = partition, .vp = vp};
    return hvcall_create_vp_current(&input, NULL);
}

void child_add_vp(struct child *child, unsigned vp)
{
    unsigned status;
    do {
        status = create_vp(child->id, vp);
    } while (wants_memory(child->id, status));
    HV_MUST(status);
    child->vps |= UINT64_C(1) << vp;
}

void child_delete_vp(struct child *child, unsigned vp)
{
    struct hv_in_delete_vp input = {.partition = child->id, .vp = vp};
    HV_MUST(hvcall_delete_vp(&input, NULL));
    child->vps &= ~(UINT64_C(1) << vp);
}

void child_get_registers(const struct child *child, unsigned vp, const uint32_t *names, union hv_register_value *values,
                         unsigned count)
{
    struct hv_in_get_vp_registers input = {.partition = child->id, .vp = vp};
    HV_MUST(hvcall_get_vp_registers(&input, names, values, count, NULL));
}

uint64_t child_get_register(const struct child *child, unsigned vp, uint32_t name)
{
    union hv_register_value value;
    child_get_registers(child, vp, &name, &value, 1);
    return value.u64;
}

void child_set_registers(const struct child *child, unsigned vp, const struct hv_register_assignment *list,
                         unsigned count)
{
    struct hv_in_set_vp_registers input = {.partition = child->id, .vp = vp};
    HV_MUST(hvcall_set_vp_registers(&input, list, NULL, count, NULL));
}

void child_set_register(const struct child *child, unsigned vp, uint32_t name, uint64_t value)
{
    struct hv_register_assignment assignment = {.name = name, .value.u64 = value};
    child_set_registers(child, vp, &assignment, 1);
}

void child_resume(const struct child *child, unsigned vp)
{
    const struct hv_register_assignment list[] = {{.name = HV_REGISTER_InterceptSuspend},
                                                  {.name = HV_REGISTER_ExplicitSuspend}};
    child_set_registers(child, vp, list, 2);
}

void child_suspend(const struct child *child, unsigned vp)
{
    child_set_register(child, vp, HV_REGISTER_ExplicitSuspend, HV_SUSPEND_EXPLICIT);
}

/* -- Interrupts -- */

unsigned child_assert_interrupt(const struct child *child, uint64_t control, uint64_t destination, uint32_t vector)
{
    if (root_is_2008r2()) {
        struct hv_in_assert_virtual_interrupt_2008r2 input = {child->id, control, destination, vector, 0};
        return hvcall_assert_virtual_interrupt_2008r2(&input, NULL);
    }
    struct hv_in_assert_virtual_interrupt_current input = {child->id, control, destination, vector, 0, {0}};
    return hvcall_assert_virtual_interrupt_current(&input, NULL);
}

void child_inject_exception(const struct child *child, unsigned vp, unsigned vector, bool has_error, uint32_t error)
{
    uint64_t pending = HV_PENDING | HV_PENDING_EXCEPTION | HV_PENDING_VECTOR(vector);
    if (has_error) {
        pending |= HV_PENDING_ERROR_CODE | HV_PENDING_ERROR(error);
    }
    child_set_register(child, vp, HV_REGISTER_PendingInterruption, pending);
}

/* -- Intercepts -- */

static void install(const struct child *child, uint32_t type, uint32_t access, uint64_t parameter)
{
    struct hv_in_install_intercept input = {
        .partition = child->id, .access = access, .type = type, .parameter = parameter};
    unsigned status;
    do {
        status = hvcall_install_intercept(&input, NULL);
    } while (wants_memory(child->id, status));
    HV_MUST(status);
}

void child_intercept_ports(const struct child *child, unsigned first, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        install(child, HV_INTERCEPT_IO_PORT, HV_INTERCEPT_READ | HV_INTERCEPT_WRITE, first + i);
    }
}

void child_intercept_msrs(const struct child *child)
{
    install(child, HV_INTERCEPT_MSR, HV_INTERCEPT_READ | HV_INTERCEPT_WRITE, 0);
}

void child_intercept_cpuid(const struct child *child, uint32_t leaf)
{
    install(child, HV_INTERCEPT_CPUID, HV_INTERCEPT_EXECUTE, leaf);
}

void child_intercept_exception(const struct child *child, unsigned vector)
{
    install(child, HV_INTERCEPT_EXCEPTION, HV_INTERCEPT_EXECUTE, vector);
}
