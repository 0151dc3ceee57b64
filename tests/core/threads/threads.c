/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The core under threads that really run at the same time: a thread for each logical processor, which executes what the
 * scheduler picks, one that wakes VPs, and one that is all timers. Root VPs suspend, resume, read, delete and create
 * their children's VPs and make and break ports; children post, signal, receive, spin and halt. Meant to be built with
 * the thread sanitizer, or the address sanitizer.
 *
 * Usage: threads SECONDS. Says what it did; the exit status is not 0 when a rule was broken.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "internal.h"

#define LPS 2u
#define CHILDREN 2u
#define CHILD_VPS 3u
#define PORTS 4u
#define MEMORY (16u << 20)
#define CHILD_MEMORY 0x400000u /* of child i from here on, in steps of a megabyte, at its GPA 0 */
#define PARAMETERS 0x80000u /* of handle n: two pages from here on, at 2 * n */
#define POOL 0x2000u /* page numbers from which pools get memory */
#define SIM 0x40000u
#define EOM 0x40000084u
#define RETRIES 1000

static uint8_t memory[MEMORY];
static struct hv *hv;
static hv_partition_id children[CHILDREN];
static atomic_bool ending;
static atomic_ulong broken, runs, posted, signaled, received, replaced, retried;

static void fail(const char *what)
{
    if (atomic_fetch_add(&broken, 1) < 10)
        fprintf(stderr, "broken: %s\n", what);
}

/* -- The platform: VPs wait when they say so, kicks stay until they are looked at -- */

struct vp {
    atomic_bool halted, kicked;
    atomic_ulong events, seen; /* what has woken it, and how much of that it has noticed */
    atomic_uint on; /* LPs that execute it */
    unsigned seed;
};
struct lp {
    pthread_mutex_t mutex;
    pthread_cond_t condition;
    bool woken;
    atomic_bool kicked;
};
static struct vp vps[HV_MAX_VPS];
static struct lp lps[LPS];

static uint64_t read_tsc(void *context, hv_vp_handle vp)
{
    struct timespec now;

    (void)context;
    (void)vp;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static enum hv_gpa_result read_gpa(void *context, hv_vp_handle vp, hv_gpa gpa, void *buffer, size_t size)
{
    (void)context;
    (void)vp;
    if (gpa + size > MEMORY)
        return HV_GPA_UNMAPPED;
    memcpy(buffer, memory + gpa, size);
    return HV_GPA_OK;
}

static enum hv_gpa_result write_gpa(void *context, hv_vp_handle vp, hv_gpa gpa, const void *buffer, size_t size)
{
    (void)context;
    (void)vp;
    if (gpa + size > MEMORY)
        return HV_GPA_UNMAPPED;
    memcpy(memory + gpa, buffer, size);
    return HV_GPA_OK;
}

static enum hv_gpa_result probe_write(void *context, hv_vp_handle vp, hv_gpa gpa, size_t size)
{
    (void)context;
    (void)vp;
    return gpa + size > MEMORY ? HV_GPA_UNMAPPED : HV_GPA_OK;
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
    (void)context;
    (void)count;
    free(pages);
}

static size_t hypercall_code(void *context, uint8_t *code)
{
    (void)context;
    code[0] = 0xC3;
    return 1;
}

static void set_timer(void *context, hv_vp_handle vp, unsigned timer, uint64_t tsc)
{
    (void)context, (void)vp, (void)timer, (void)tsc; /* the timer thread calls them all, all the time */
}

static uint64_t vp_run_time(void *context, hv_vp_handle vp)
{
    (void)context, (void)vp;
    return 0;
}

static void request_interrupt(void *context, hv_vp_handle vp, uint8_t vector)
{
    (void)context, (void)vector;
    atomic_fetch_add(&vps[vp].events, 1);
}

static enum hv_progress create_vp(void *context, hv_vp_handle vp)
{
    (void)context, (void)vp;
    return HV_PROGRESS_DONE;
}

static void reset_vp(void *context, hv_vp_handle vp, uint32_t apic_id, bool wait_for_sipi)
{
    (void)context, (void)apic_id, (void)wait_for_sipi;
    atomic_store(&vps[vp].halted, false);
}

static void set_line(void *context, hv_vp_handle vp, enum hv_line line, bool raised)
{
    (void)context, (void)line;
    if (raised)
        atomic_fetch_add(&vps[vp].events, 1);
}

static bool vp_waits(void *context, hv_vp_handle vp)
{
    (void)context;
    return atomic_load(&vps[vp].halted) && atomic_load(&vps[vp].events) == atomic_load(&vps[vp].seen);
}

static void kick_vp(void *context, hv_vp_handle vp)
{
    (void)context;
    atomic_store(&vps[vp].kicked, true);
}

static void kick_lp(void *context, unsigned number)
{
    struct lp *lp = &lps[number];

    (void)context;
    atomic_store(&lp->kicked, true);
    pthread_mutex_lock(&lp->mutex);
    lp->woken = true;
    pthread_cond_signal(&lp->condition);
    pthread_mutex_unlock(&lp->mutex);
}

static void get_register(void *context, hv_vp_handle vp, enum hv_register_name name, union hv_register_value *value)
{
    (void)context, (void)name;
    if (atomic_load(&vps[vp].on))
        fail("registers of a VP that runs were read");
    memset(value, 0, sizeof(*value));
}

static bool set_register(void *context, hv_vp_handle vp, enum hv_register_name name,
                         const union hv_register_value *value)
{
    (void)context, (void)name, (void)value;
    if (atomic_load(&vps[vp].on))
        fail("registers of a VP that runs were written");
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

static const struct hv_platform_ops ops = {
    .read_gpa = read_gpa,
    .write_gpa = write_gpa,
    .probe_write = probe_write,
    .allocate_pages = allocate_pages,
    .free_pages = free_pages,
    .hypercall_code = hypercall_code,
    .read_tsc = read_tsc,
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

/* -- Hypercalls of a VP, on the thread that executes it -- */

/* Where the parameters of a VP are: its GPA, and the same in the machine's memory. */
static uint64_t parameters_gpa(const struct hv_vp *vp)
{
    return PARAMETERS + 2 * HV_PAGE_SIZE * (uint64_t)vp->handle;
}

static uint8_t *parameters(const struct hv_vp *vp)
{
    uint64_t base = 0;

    for (unsigned i = 0; hv_vp_is_child(vp) && i < CHILDREN; i++) {
        if (vp->partition->id == children[i])
            base = CHILD_MEMORY + i * 0x100000u;
    }
    return memory + base + parameters_gpa(vp);
}

/* The status; a call that has to wait is given up after a while, which a caller may do as well. */
static unsigned execute(struct hv_vp *vp, uint64_t gpr[16])
{
    struct hv_call_frame frame = {.gpr = gpr, .legal = true, .long_mode = true};

    for (unsigned i = 0; i < RETRIES; i++) {
        enum hv_exit exit = hv_hypercall(vp, &frame);

        if (exit == HV_EXIT_DONE)
            return (unsigned)gpr[0] & 0xFFFF;
        if (exit != HV_EXIT_RETRY) {
            fail("a hypercall left by another exit");
            return HV_STATUS_INVALID_HYPERCALL_INPUT;
        }
        atomic_fetch_add(&retried, 1);
        if (atomic_load(&vps[vp->handle].kicked))
            break; /* two root VPs that want each other's time: let the scheduler choose */
        sched_yield();
    }
    return HV_STATUS_OPERATION_DENIED;
}

static unsigned call(struct hv_vp *vp, uint64_t input, const void *data, size_t size)
{
    uint64_t gpr[16] = {0};

    memcpy(parameters(vp), data, size);
    gpr[1] = input;
    gpr[2] = parameters_gpa(vp);
    gpr[8] = parameters_gpa(vp) + HV_PAGE_SIZE;
    return execute(vp, gpr);
}

static unsigned fast(struct hv_vp *vp, uint64_t code, uint64_t first, uint64_t second)
{
    uint64_t gpr[16] = {0};

    gpr[1] = code | 1u << 16;
    gpr[2] = first;
    gpr[8] = second;
    return execute(vp, gpr);
}

static uint64_t output(const struct hv_vp *vp)
{
    uint64_t value;

    memcpy(&value, parameters(vp) + HV_PAGE_SIZE, sizeof(value));
    return value;
}

static void must(unsigned status, const char *what)
{
    if (status != HV_STATUS_SUCCESS) {
        fprintf(stderr, "%s: status %#x\n", what, status);
        exit(2);
    }
}

#define REPS(count) ((uint64_t)(count) << 32)

static unsigned suspend(struct hv_vp *root, hv_partition_id partition, unsigned index, bool explicit)
{
    const uint64_t data[] = {partition, index, HV_REGISTER_ExplicitSuspend, 0, explicit, 0};

    return call(root, 0x51 | REPS(1), data, sizeof(data));
}

static unsigned create_child_vp(struct hv_vp *root, hv_partition_id partition, unsigned index)
{
    const uint64_t data[5] = {partition, index};

    return call(root, 0x4E, data, sizeof(data));
}

/* Let a new VP take messages and events at SINT2, before it runs. */
static void enable_synic(hv_partition_id partition, unsigned index)
{
    for (hv_vp_handle handle = LPS; handle < HV_MAX_VPS; handle++) {
        struct hv_vp *vp = hv_get_vp_by_handle(hv, handle);

        if (!vp || hv_vp_get_partition_id(vp) != partition || hv_vp_get_index(vp) != index)
            continue;
        hv_write_msr(vp, 0x40000083, (SIM + index * HV_PAGE_SIZE) | 1);
        hv_write_msr(vp, 0x40000082, (SIM + (8 + index) * HV_PAGE_SIZE) | 1);
        hv_write_msr(vp, 0x40000092, 0x40);
        hv_write_msr(vp, 0x40000080, 1);
        hv_lapic_write(vp, 0xF0, 0x1FF);
        return;
    }
}

static void create_child(struct hv_vp *root, unsigned i)
{
    const uint64_t creation[7] = {0, 0, 0x609};
    uint64_t pages[402];

    must(call(root, 0x40, creation, sizeof(creation)), "HvCreatePartition");
    children[i] = pages[0] = output(root);
    for (unsigned page = 0; page < 200; page++)
        pages[1 + page] = (POOL >> 2) + i * 200 + page;
    must(call(root, 0x48 | REPS(200), pages, 201 * 8), "HvDepositMemory");
    must(fast(root, 0x41, children[i], 0), "HvInitializePartition");
    pages[1] = 0;
    pages[2] = HV_ACCESS_ALL;
    for (unsigned page = 0; page < 0x100; page++)
        pages[3 + page] = (CHILD_MEMORY >> 12) + i * 0x100 + page;
    must(call(root, 0x4B | REPS(0x100), pages, (3 + 0x100) * 8), "HvMapGpaPages");
    pages[1] = 0x10000;
    must(call(root, 0x44, pages, 16), "HvGetPartitionProperty");
    pages[2] = output(root) | UINT64_C(0xF) << 36;
    must(call(root, 0x45, pages, 24), "HvSetPartitionProperty");
    for (unsigned index = 0; index < CHILD_VPS; index++) {
        must(create_child_vp(root, children[i], index), "HvCreateVp");
        enable_synic(children[i], index);
    }
    hv_write_msr(hv_find_partition(hv, children[i])->vps[0], 0x40000000, 1);
    hv_write_msr(hv_find_partition(hv, children[i])->vps[0], 0x40000001, 0x20001);
}

/* -- What VPs do in a slice -- */

static unsigned pick(struct vp *vp, unsigned choices)
{
    vp->seed = vp->seed * 1103515245u + 12345u;
    return (vp->seed >> 16) % choices;
}

static void change_ports(struct hv_vp *root, struct vp *self)
{
    unsigned type = 1 + pick(self, 3), receiver = pick(self, CHILDREN);
    uint64_t id = root->index * PORTS + pick(self, PORTS);
    const uint64_t port[7] = {children[receiver],
                              id,
                              children[1 - receiver],
                              type,
                              type == HV_PORT_TYPE_MONITOR ? 0x60000 : 2 | (uint64_t)HV_ANY_VP << 32,
                              type == HV_PORT_TYPE_EVENT ? 64u << 16 : 0};
    const uint64_t connection[9] = {
        children[1 - receiver], id, children[receiver], id, type, type == HV_PORT_TYPE_MONITOR ? 0x61000 : 0};

    if (pick(self, 4) == 0) {
        fast(root, 0x58, children[receiver], id);
        fast(root, 0x5B, children[1 - receiver], id);
    }
    call(root, 0x95, port, sizeof(port));
    call(root, 0x96, connection, sizeof(connection));
}

static void replace_vp(struct hv_vp *root, hv_partition_id child)
{
    unsigned index = CHILD_VPS - 1;

    if (fast(root, 0x4F, child, index) != HV_STATUS_SUCCESS)
        return;
    while (create_child_vp(root, child, index) == HV_STATUS_OPERATION_DENIED)
        sched_yield();
    atomic_fetch_add(&replaced, 1);
}

static void be_root(struct hv_vp *vp, struct vp *self)
{
    hv_partition_id child = children[pick(self, CHILDREN)];
    unsigned index = pick(self, CHILD_VPS);
    const uint64_t rip[] = {child, index, HV_REGISTER_Rip};

    switch (pick(self, 8)) {
    case 0:
        suspend(vp, child, index, true);
        break;
    case 1:
        call(vp, 0x50 | REPS(1), rip, 20);
        break;
    case 2:
        if (vp->index == 0 && pick(self, 4) == 0)
            replace_vp(vp, child);
        break;
    case 3:
        fast(vp, 0x09, pick(self, 1u << LPS), 0);
        break;
    case 4:
    case 5:
        change_ports(vp, self);
        break;
    default:
        suspend(vp, child, index, false);
    }
}

static void receive(struct hv_vp *vp)
{
    struct hv_message *slot = (struct hv_message *)(void *)(vp->sim_page + 2 * HV_MESSAGE_SIZE);

    while (__atomic_load_n(&slot->header.message_type, __ATOMIC_SEQ_CST)) {
        atomic_fetch_add(&received, 1);
        __atomic_store_n(&slot->header.message_type, 0, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&slot->header.message_flags, __ATOMIC_SEQ_CST) & HV_MESSAGE_FLAG_PENDING)
            hv_write_msr(vp, EOM, 0);
    }
    while (hv_child_interrupt(vp) >= 0)
        hv_lapic_write(vp, 0xB0, 0);
}

static void be_child(struct hv_vp *vp, struct vp *self)
{
    uint64_t id = pick(self, LPS * PORTS);
    const uint32_t message[64] = {(uint32_t)id, 0, 1, 8};

    receive(vp);
    if (call(vp, 0x5C, message, sizeof(message)) == HV_STATUS_SUCCESS)
        atomic_fetch_add(&posted, 1);
    if (fast(vp, 0x5D, id | (uint64_t)pick(self, 64) << 32, 0) == HV_STATUS_SUCCESS)
        atomic_fetch_add(&signaled, 1);
    if (pick(self, 8) == 0)
        fast(vp, 0x08, 0, 0);
}

/* -- The threads -- */

static void run_vp(struct hv_vp *vp, struct lp *lp, uint64_t slice)
{
    struct vp *self = &vps[vp->handle];

    if (atomic_fetch_add(&self->on, 1) != 0)
        fail("a VP runs on two LPs");
    atomic_fetch_add(&runs, 1);
    atomic_store(&self->halted, false);
    atomic_store(&self->seen, atomic_load(&self->events));
    do {
        if (hv_vp_is_child(vp))
            be_child(vp, self);
        else if (!atomic_load(&ending))
            be_root(vp, self);
        if (pick(self, 4) == 0 || atomic_load(&ending))
            atomic_store(&self->halted, true);
    } while (!atomic_load(&self->halted) && !atomic_load(&self->kicked) && !atomic_load(&lp->kicked) &&
             read_tsc(NULL, 0) < slice);
    atomic_store(&self->kicked, false);
    atomic_fetch_sub(&self->on, 1);
    hv_stopped(vp);
}

static void sleep_until(struct lp *lp, unsigned number, uint64_t slice)
{
    uint64_t now = read_tsc(NULL, 0), wait = slice - now > 100000000u ? 100000000u : slice > now ? slice - now : 0;
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)wait;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&lp->mutex);
    if (!lp->woken && !hv_lp_has_work(hv, number))
        pthread_cond_timedwait(&lp->condition, &lp->mutex, &until);
    lp->woken = false;
    pthread_mutex_unlock(&lp->mutex);
}

static atomic_bool stopping;

static void *run_lp(void *number_of)
{
    unsigned number = (unsigned)(uintptr_t)number_of;
    struct lp *lp = &lps[number];

    while (!atomic_load(&stopping)) {
        struct hv_vp *vp;
        uint64_t slice;

        atomic_store(&lp->kicked, false);
        vp = hv_schedule(hv, number, &slice);
        if (vp)
            run_vp(vp, lp, slice);
        else
            sleep_until(lp, number, slice);
    }
    return NULL;
}

static void wake(hv_vp_handle handle)
{
    atomic_fetch_add(&vps[handle].events, 1);
    hv_vp_wake(hv_get_vp_by_handle(hv, handle));
}

static void *wake_vps(void *unused)
{
    struct vp own = {.seed = 99};

    (void)unused;
    while (!atomic_load(&ending)) {
        hv_vp_handle handle = pick(&own, LPS + CHILDREN * CHILD_VPS);

        if (hv_get_vp_by_handle(hv, handle))
            wake(handle);
        sched_yield();
    }
    return NULL;
}

static void *expire_timers(void *unused)
{
    (void)unused;
    while (!atomic_load(&stopping)) {
        hv_timer_expired(hv_get_vp(hv, 0), HV_VP_TIMER_MONITOR);
        for (hv_vp_handle handle = LPS; handle < LPS + CHILDREN * CHILD_VPS; handle++)
            hv_timer_expired(hv_get_vp_by_handle(hv, handle), HV_VP_TIMER_MESSAGE_RETRY);
        sched_yield();
    }
    return NULL;
}

/* When nobody changes anything any more, a VP that is woken and not suspended runs, and soon. */
static void check_wakes(void)
{
    for (unsigned turn = 0; turn < 200; turn++) {
        hv_vp_handle handle = turn % (LPS + CHILDREN * CHILD_VPS);
        struct hv_vp *vp = hv_get_vp_by_handle(hv, handle);
        uint64_t start = read_tsc(NULL, 0);
        unsigned long event;

        hv_vp_clear_suspend(vp, HV_SUSPEND_EXPLICIT);
        wake(handle);
        event = atomic_load(&vps[handle].events);
        while (atomic_load(&vps[handle].seen) < event) {
            if (read_tsc(NULL, 0) - start > UINT64_C(5000000000)) {
                fail("a VP that was woken does not run");
                return;
            }
            sched_yield();
        }
    }
}

static void check_times(void)
{
    for (unsigned i = 0; i < LPS; i++) {
        struct hv_lp_times times;

        hv_get_lp_times(hv, i, &times);
        if (times.hypervisor > times.run)
            fail("an LP ran VPs for longer than it ran");
        printf("LP %u: run %llu ms, of that hypervisor %llu ms, idle %llu ms\n", i,
               (unsigned long long)times.run / 10000, (unsigned long long)times.hypervisor / 10000,
               (unsigned long long)times.idle / 10000);
    }
}

/* All that was charged comes back when the children are gone. */
static void check_end(struct hv_vp *root, uint64_t before)
{
    uint64_t own[2] = {HV_PARTITION_ID_SELF};

    for (unsigned i = 0; i < CHILDREN; i++) {
        uint64_t withdrawal[2] = {children[i]};

        must(fast(root, 0x42, children[i], 0), "HvFinalizePartition");
        must(call(root, 0x49 | REPS(200), withdrawal, sizeof(withdrawal)), "HvWithdrawMemory");
        must(fast(root, 0x43, children[i], 0), "HvDeletePartition");
    }
    must(call(root, 0x4A, own, sizeof(own)), "HvGetMemoryBalance");
    if (output(root) != before)
        fail("memory of the root's pool is missing");
}

int main(int argc, char **argv)
{
    struct hv_config config;
    uint64_t own[2] = {HV_PARTITION_ID_SELF}, before;
    pthread_t threads[LPS + 2];
    const char *error;
    struct hv_vp *root;

    hv_config_defaults(&config, HV_GEN_CURRENT);
    config.root = true;
    config.privileges = UINT64_MAX;
    config.vp_count = LPS;
    config.gpa_bits = 36;
    config.tsc_frequency = config.apic_frequency = 1000000000;
    hv = hv_create(&config, &ops, NULL, &error);
    if (!hv || argc != 2)
        return 2;
    root = hv_get_vp(hv, 0);
    hv_write_msr(root, 0x40000000, 1);
    hv_write_msr(root, 0x40000001, 0x3000001);
    must(call(root, 0x4A, own, sizeof(own)), "HvGetMemoryBalance");
    before = output(root);
    for (unsigned i = 0; i < HV_MAX_VPS; i++)
        vps[i].seed = i + 1;
    for (unsigned i = 0; i < CHILDREN; i++)
        create_child(root, i);
    for (unsigned i = 0; i < LPS; i++) {
        pthread_mutex_init(&lps[i].mutex, NULL);
        pthread_cond_init(&lps[i].condition, NULL);
        pthread_create(&threads[i], NULL, run_lp, (void *)(uintptr_t)i);
    }
    pthread_create(&threads[LPS], NULL, wake_vps, NULL);
    pthread_create(&threads[LPS + 1], NULL, expire_timers, NULL);
    nanosleep(&(struct timespec){.tv_sec = atoi(argv[1])}, NULL);
    atomic_store(&ending, true);
    pthread_join(threads[LPS], NULL);
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    check_wakes();
    atomic_store(&stopping, true);
    for (unsigned i = 0; i < LPS; i++) {
        kick_lp(NULL, i);
        pthread_join(threads[i], NULL);
    }
    pthread_join(threads[LPS + 1], NULL);
    check_times();
    check_end(root, before);
    printf("runs %lu, posted %lu, received %lu, signaled %lu, VPs replaced %lu, calls retried %lu\n",
           atomic_load(&runs), atomic_load(&posted), atomic_load(&received), atomic_load(&signaled),
           atomic_load(&replaced), atomic_load(&retried));
    if (!atomic_load(&posted) || !atomic_load(&received) || !atomic_load(&signaled) || !atomic_load(&replaced))
        fail("something was never done");
    hv_destroy(hv);
    return atomic_load(&broken) ? 1 : 0;
}
