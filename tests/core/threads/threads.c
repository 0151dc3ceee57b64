/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The core under threads that really run at the same time: a thread for each logical processor, which executes what the
 * scheduler picks, one that wakes VPs, and one that is all timers. Root VPs suspend, resume, read, delete and create
 * their children's VPs and make and break ports; children post, signal, receive, spin and halt. Meant to be built with
 * the thread sanitizer, or the address sanitizer.
 *
 * Usage: threads SECONDS. Says what it did; the exit status is not 0 when a rule was broken.
 */
#include "machine.h"

#define LPS 2u
#define CHILDREN 2u
#define CHILD_VPS 3u
#define PORTS 4u
#define CHILD_MEMORY 0x400000u /* of child i from here on, in steps of a megabyte, at its GPA 0 */
#define PARAMETERS 0x80000u /* of handle n: two pages from here on, at 2 * n */
#define POOL 0x2000u /* page numbers from which pools get memory */
#define SIM 0x40000u
#define EOM 0x40000084u
#define RETRIES 1000

static hv_partition_id children[CHILDREN];
static atomic_bool ending;
static atomic_ulong runs, posted, signaled, received, replaced, retried;

/* -- The platform: VPs wait when they say so, kicks stay until they are looked at -- */

struct vp {
    atomic_bool halted, kicked;
    atomic_ulong events, seen; /* what has woken it, and how much of that it has noticed */
    atomic_uint on; /* LPs that execute it */
    uint64_t seed;
};
struct lp {
    pthread_mutex_t mutex;
    pthread_cond_t condition;
    bool woken;
    atomic_bool kicked;
};
static struct vp vps[HV_MAX_VPS];
static struct lp lps[LPS];

static uint64_t now(void)
{
    return memory_ops.read_tsc(NULL, 0);
}

static void wake(hv_vp_handle handle)
{
    atomic_fetch_add(&vps[handle].events, 1);
    hv_vp_wake(hv_get_vp_by_handle(hv, handle));
}

static void request_interrupt(void *context, hv_vp_handle vp, uint8_t vector)
{
    (void)context, (void)vector;
    wake(vp);
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

static struct hv_platform_ops platform(void)
{
    struct hv_platform_ops ops = memory_ops;

    ops.request_interrupt = request_interrupt;
    ops.reset_vp = reset_vp;
    ops.set_line = set_line;
    ops.vp_waits = vp_waits;
    ops.kick_vp = kick_vp;
    ops.kick_lp = kick_lp;
    ops.get_register = get_register;
    ops.set_register = set_register;
    return ops;
}

/* -- Hypercalls of a VP, on the thread that executes it -- */

static struct parameters parameters(const struct hv_vp *vp)
{
    uint64_t gpa = PARAMETERS + 2 * HV_PAGE_SIZE * (uint64_t)vp->handle, base = 0;

    for (unsigned i = 0; hv_vp_is_child(vp) && i < CHILDREN; i++) {
        if (vp->partition->id == children[i])
            base = CHILD_MEMORY + i * 0x100000u;
    }
    return (struct parameters){gpa, memory + base + gpa};
}

/* After a while; and two root VPs that want each other's time let the scheduler choose. */
static bool tires(struct hv_vp *vp, unsigned tries)
{
    atomic_fetch_add(&retried, 1);
    return tries == RETRIES || atomic_load(&vps[vp->handle].kicked);
}

static unsigned call(struct hv_vp *vp, uint64_t input, const void *data, size_t size)
{
    return call_at(vp, parameters(vp), input, data, size, tires);
}

static unsigned fast(struct hv_vp *vp, uint64_t code, uint64_t first, uint64_t second)
{
    return call_fast(vp, code, first, second, tires);
}

static uint64_t output(const struct hv_vp *vp)
{
    return output_at(parameters(vp));
}

static unsigned suspend(struct hv_vp *root, hv_partition_id partition, unsigned index, bool explicit)
{
    const uint64_t data[] = {partition, index, HV_REGISTER_ExplicitSuspend, 0, explicit, 0};

    return call(root, 0x51 | REPS(1), data, sizeof(data));
}

static unsigned create_child_vp(struct hv_vp *root, hv_partition_id partition, unsigned index)
{
    return make_child_vp(root, parameters(root), partition, index, tires);
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
    uint64_t pages[3 + 0x100];

    children[i] = pages[0] = make_child(root, parameters(root), (POOL >> 2) + i * 200, 200);
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

static void change_ports(struct hv_vp *root, struct vp *self)
{
    unsigned type = 1 + pick(&self->seed, 3), receiver = pick(&self->seed, CHILDREN);
    uint64_t id = root->index * PORTS + pick(&self->seed, PORTS);
    const uint64_t port[7] = {children[receiver],
                              id,
                              children[1 - receiver],
                              type,
                              type == HV_PORT_TYPE_MONITOR ? 0x60000 : 2 | (uint64_t)HV_ANY_VP << 32,
                              type == HV_PORT_TYPE_EVENT ? 64u << 16 : 0};
    const uint64_t connection[9] = {
        children[1 - receiver], id, children[receiver], id, type, type == HV_PORT_TYPE_MONITOR ? 0x61000 : 0};

    if (pick(&self->seed, 4) == 0) {
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
    hv_partition_id child = children[pick(&self->seed, CHILDREN)];
    unsigned index = pick(&self->seed, CHILD_VPS);
    const uint64_t rip[] = {child, index, HV_REGISTER_Rip};

    switch (pick(&self->seed, 8)) {
    case 0:
        suspend(vp, child, index, true);
        break;
    case 1:
        call(vp, 0x50 | REPS(1), rip, 20);
        break;
    case 2:
        if (vp->index == 0 && pick(&self->seed, 4) == 0)
            replace_vp(vp, child);
        break;
    case 3:
        fast(vp, 0x09, pick(&self->seed, 1u << LPS), 0);
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
    uint64_t id = pick(&self->seed, LPS * PORTS);
    const uint32_t message[64] = {(uint32_t)id, 0, 1, 8};

    receive(vp);
    if (call(vp, 0x5C, message, sizeof(message)) == HV_STATUS_SUCCESS)
        atomic_fetch_add(&posted, 1);
    if (fast(vp, 0x5D, id | (uint64_t)pick(&self->seed, 64) << 32, 0) == HV_STATUS_SUCCESS)
        atomic_fetch_add(&signaled, 1);
    if (pick(&self->seed, 8) == 0)
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
        if (pick(&self->seed, 4) == 0 || atomic_load(&ending))
            atomic_store(&self->halted, true);
    } while (!atomic_load(&self->halted) && !atomic_load(&self->kicked) && !atomic_load(&lp->kicked) && now() < slice);
    atomic_store(&self->kicked, false);
    atomic_fetch_sub(&self->on, 1);
    hv_stopped(vp);
}

static void sleep_until(struct lp *lp, unsigned number, uint64_t slice)
{
    uint64_t start = now(), left = slice > start ? slice - start : 0, wait = left < 100000000u ? left : 100000000u;
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
        vp = hv_schedule(hv, number, false, &slice);
        if (vp)
            run_vp(vp, lp, slice);
        else
            sleep_until(lp, number, slice);
    }
    return NULL;
}

static void *wake_vps(void *unused)
{
    uint64_t seed = 99;

    (void)unused;
    while (!atomic_load(&ending)) {
        hv_vp_handle handle = pick(&seed, LPS + CHILDREN * CHILD_VPS);

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
        uint64_t start = now();
        unsigned long event;

        hv_vp_clear_suspend(vp, HV_SUSPEND_EXPLICIT);
        wake(handle);
        event = atomic_load(&vps[handle].events);
        while (atomic_load(&vps[handle].seen) < event) {
            if (now() - start > UINT64_C(5000000000)) {
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
    const struct hv_platform_ops ops = platform();
    uint64_t own[2] = {HV_PARTITION_ID_SELF}, before;
    pthread_t threads[LPS + 2];
    struct hv_vp *root;

    if (argc != 2 || !start_machine(&ops, LPS, 36, 0x3000001))
        return 2;
    root = hv_get_vp(hv, 0);
    must(call(root, 0x4A, own, sizeof(own)), "HvGetMemoryBalance");
    before = output(root);
    for (unsigned i = 0; i < HV_MAX_VPS; i++)
        vps[i].seed = i + 1;
    for (unsigned i = 0; i < CHILDREN; i++)
        create_child(root, i);
    for (unsigned i = 0; i < LPS; i++) {
        pthread_mutex_init(&lps[i].mutex, NULL);
        pthread_cond_init(&lps[i].condition, NULL);
    }
    for (unsigned i = 0; i < LPS; i++)
        pthread_create(&threads[i], NULL, run_lp, (void *)(uintptr_t)i);
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
    return result();
}
