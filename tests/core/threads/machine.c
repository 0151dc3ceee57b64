/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine.h"

uint8_t memory[MEMORY];
uint64_t ram_pages = MEMORY / HV_PAGE_SIZE;
struct hv *hv;

static atomic_ulong broken;

void fail(const char *what)
{
    if (atomic_fetch_add(&broken, 1) < 10)
        fprintf(stderr, "broken: %s\n", what);
}

int result(void)
{
    return atomic_load(&broken) ? 1 : 0;
}

unsigned pick(uint64_t *seed, unsigned choices)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(*seed >> 33) % choices;
}

/* -- The platform -- */

static bool exists(hv_gpa gpa, size_t size)
{
    return (gpa + size - 1) / HV_PAGE_SIZE < ram_pages;
}

static enum hv_gpa_result read_gpa(void *context, hv_vp_handle vp, hv_gpa gpa, void *buffer, size_t size)
{
    (void)context, (void)vp;
    if (!exists(gpa, size))
        return HV_GPA_UNMAPPED;
    if (gpa + size <= MEMORY)
        memcpy(buffer, memory + gpa, size);
    else
        memset(buffer, 0, size);
    return HV_GPA_OK;
}

static enum hv_gpa_result write_gpa(void *context, hv_vp_handle vp, hv_gpa gpa, const void *buffer, size_t size)
{
    (void)context, (void)vp;
    if (!exists(gpa, size))
        return HV_GPA_UNMAPPED;
    if (gpa + size <= MEMORY)
        memcpy(memory + gpa, buffer, size);
    return HV_GPA_OK;
}

static enum hv_gpa_result probe_write(void *context, hv_vp_handle vp, hv_gpa gpa, size_t size)
{
    (void)context, (void)vp;
    return exists(gpa, size) ? HV_GPA_OK : HV_GPA_UNMAPPED;
}

static void *allocate_pages(void *context, size_t count)
{
    void *pages = aligned_alloc(HV_PAGE_SIZE, count * HV_PAGE_SIZE);

    (void)context;
    if (pages)
        memset(pages, 0, count * HV_PAGE_SIZE);
    return pages;
}

static void free_pages(void *context, void *pages, size_t count)
{
    (void)context, (void)count;
    free(pages);
}

static size_t hypercall_code(void *context, uint8_t *code)
{
    (void)context;
    *code = 0xC3;
    return 1;
}

static uint64_t sample_tsc(void *context)
{
    struct timespec now;

    (void)context;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t read_tsc(void *context, hv_vp_handle vp)
{
    (void)vp;
    return sample_tsc(context);
}

static void set_timer(void *context, hv_vp_handle vp, unsigned timer, uint64_t tsc)
{
    (void)context, (void)vp, (void)timer, (void)tsc;
}

static uint64_t vp_run_time(void *context, hv_vp_handle vp)
{
    (void)context, (void)vp;
    return 0;
}

static void request_interrupt(void *context, hv_vp_handle vp, uint8_t vector)
{
    (void)context, (void)vp, (void)vector;
}

static enum hv_progress create_vp(void *context, hv_vp_handle vp)
{
    (void)context, (void)vp;
    return HV_PROGRESS_DONE;
}

static void reset_vp(void *context, hv_vp_handle vp, uint32_t apic_id, bool wait_for_sipi)
{
    (void)context, (void)vp, (void)apic_id, (void)wait_for_sipi;
}

static void set_line(void *context, hv_vp_handle vp, enum hv_line line, bool raised)
{
    (void)context, (void)vp, (void)line, (void)raised;
}

static bool vp_waits(void *context, hv_vp_handle vp)
{
    (void)context, (void)vp;
    return true;
}

static void kick_vp(void *context, hv_vp_handle vp)
{
    (void)context, (void)vp;
}

static void kick_lp(void *context, unsigned lp)
{
    (void)context, (void)lp;
}

static void get_register(void *context, hv_vp_handle vp, enum hv_register_name name, union hv_register_value *value)
{
    (void)context, (void)vp, (void)name;
    memset(value, 0, sizeof(*value));
}

static bool set_register(void *context, hv_vp_handle vp, enum hv_register_name name,
                         const union hv_register_value *value)
{
    (void)context, (void)vp, (void)name, (void)value;
    return true;
}

static void flush_second_stage(void *context, hv_vp_handle caller, const struct hv_vp_set *set)
{
    (void)context, (void)caller, (void)set;
}

static enum hv_progress admit(void *context, hv_vp_handle caller, struct hv_admission *admission)
{
    (void)context, (void)caller, (void)admission;
    return HV_PROGRESS_DONE;
}

static void spin_wait(void *context, hv_vp_handle vp)
{
    (void)context, (void)vp;
}

const struct hv_platform_ops memory_ops = {
    .read_gpa = read_gpa,
    .write_gpa = write_gpa,
    .probe_write = probe_write,
    .allocate_pages = allocate_pages,
    .free_pages = free_pages,
    .hypercall_code = hypercall_code,
    .read_tsc = read_tsc,
    .sample_tsc = sample_tsc,
    .set_timer = set_timer,
    .vp_run_time = vp_run_time,
    .request_interrupt = request_interrupt,
    .create_vp = create_vp,
    .reset_vp = reset_vp,
    .set_line = set_line,
    .vp_waits = vp_waits,
    .kick_vp = kick_vp,
    .kick_lp = kick_lp,
    .get_register = get_register,
    .set_register = set_register,
    .flush_second_stage = flush_second_stage,
    .admit = admit,
    .spin_wait = spin_wait,
};

bool start_machine(const struct hv_platform_ops *ops, unsigned vp_count, unsigned gpa_bits, uint64_t hypercall_page)
{
    struct hv_config config;
    const char *error;

    hv_config_defaults(&config, HV_GEN_CURRENT);
    config.root = true;
    config.privileges = UINT64_MAX;
    config.vp_count = vp_count;
    config.gpa_bits = gpa_bits;
    config.tsc_frequency = config.apic_frequency = 1000000000;
    hv = hv_create(&config, ops, NULL, &error);
    if (!hv) {
        fprintf(stderr, "no machine: %s\n", error);
        return false;
    }
    hv_write_msr(hv_get_vp(hv, 0), 0x40000000, 1);
    hv_write_msr(hv_get_vp(hv, 0), 0x40000001, hypercall_page);
    return true;
}

/* -- Hypercalls -- */

static unsigned execute(struct hv_vp *vp, uint64_t gpr[16], gives_up *gives_up)
{
    struct hv_call_frame frame = {.gpr = gpr, .legal = true, .long_mode = true};

    for (unsigned tries = 1;; tries++) {
        enum hv_exit exit = hv_hypercall(vp, &frame);

        if (exit == HV_EXIT_DONE)
            return (unsigned)gpr[0] & 0xFFFF;
        if (exit != HV_EXIT_RETRY) {
            fail("a hypercall left by another exit");
            return HV_STATUS_INVALID_HYPERCALL_INPUT;
        }
        if (gives_up && gives_up(vp, tries))
            return HV_STATUS_OPERATION_DENIED;
        sched_yield();
    }
}

unsigned call_at(struct hv_vp *vp, struct parameters at, uint64_t input, const void *data, size_t size,
                 gives_up *gives_up)
{
    uint64_t gpr[16] = {0};

    memcpy(at.content, data, size);
    gpr[1] = input;
    gpr[2] = at.gpa;
    gpr[8] = at.gpa + HV_PAGE_SIZE;
    return execute(vp, gpr, gives_up);
}

unsigned call_fast(struct hv_vp *vp, uint64_t code, uint64_t first, uint64_t second, gives_up *gives_up)
{
    uint64_t gpr[16] = {0};

    gpr[1] = code | 1u << 16;
    gpr[2] = first;
    gpr[8] = second;
    return execute(vp, gpr, gives_up);
}

uint64_t output_at(struct parameters at)
{
    uint64_t value;

    memcpy(&value, at.content + HV_PAGE_SIZE, sizeof(value));
    return value;
}

void must(unsigned status, const char *what)
{
    if (status != HV_STATUS_SUCCESS) {
        fprintf(stderr, "%s: status %#x\n", what, status);
        exit(2);
    }
}

hv_partition_id make_child(struct hv_vp *root, struct parameters at, uint64_t first, unsigned count)
{
    const uint64_t creation[7] = {0};
    uint64_t list[HV_PAGE_SIZE / 8];

    must(call_at(root, at, 0x40, creation, sizeof(creation), NULL), "HvCreatePartition");
    list[0] = output_at(at);
    for (unsigned i = 0; i < count; i++)
        list[1 + i] = first + i;
    must(call_at(root, at, 0x48 | REPS(count), list, (1 + count) * 8, NULL), "HvDepositMemory");
    must(call_fast(root, 0x41, list[0], 0, NULL), "HvInitializePartition");
    return list[0];
}

unsigned make_child_vp(struct hv_vp *root, struct parameters at, hv_partition_id child, unsigned index,
                       gives_up *gives_up)
{
    const uint64_t data[5] = {child, index};

    return call_at(root, at, 0x4E, data, sizeof(data), gives_up);
}
