/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 18: scheduling. Logical processors run virtual processors; who runs a VP, or works on its registers,
 * owns it.
 *
 * Every VP is assigned to one LP. An LP picks, among its VPs that may run, the one with the least virtual time: run
 * time divided by weight. A VP that has got less than its reserve goes before that, and one for which an interrupt has
 * come before all, as long as it is not far ahead of its share. A VP that has used more than its cap is held back until
 * that is paid for. Slices end at ticks of one millisecond that are the same for all VPs of an LP, so switching to and
 * fro within one does not move its timer.
 *
 * Why no wake-up is lost. Whether a VP is ready (not suspended, not waiting) is asked under its LP's lock, and a VP
 * found not ready goes HV_SCHED_OFF in the same critical section. Whoever makes a VP ready first stores what makes it
 * so (clears a suspend bit, latches an interrupt, gives up ownership) and then takes that lock. If that is before the
 * LP's section, the LP sees the store; if after, the waker finds the VP OFF, queues it, and kicks the LP when it is
 * idle or runs without a limit. A VP moves to another LP with both LPs' locks held, and who wants the lock of a VP's
 * LP looks again once he has it. A kick of an LP that is just going to sleep is the platform's to remember.
 */
#include "pairing_heap.h"
#include "stats.h"

#include <stdlib.h>
#include <string.h>

#define SLICES_PER_SECOND 1000
/* Caps and reserves are kept over windows of this many slices: unused credit, and debt of a reserve, end there. */
#define WINDOW_SLICES 10
/* A capped VP pays off its debt within this time at most, whatever its cap: 10 s. */
#define LONGEST_HOLD_SLICES 10000
/* A capped VP runs for at least this part of a slice. */
#define SHORTEST_RUN_DIVISOR 20
/* How far ahead of its share a VP may be to be preferred for an interrupt, in slices of its own. */
#define BOOST_SLICES 5
/* A VP that became ready this part of a slice ago, or later, is left to its LP: it will have its turn there. */
#define SETTLE_DIVISOR 4
/* VPs looked at, to find one that may move to another LP. */
#define STEAL_SEARCH 16

#define FULL_LP UINT64_C(0x10000) /* a cap or reserve of one LP (TLFS 18.2) */
#define DEFAULT_WEIGHT 100
#define WEIGHT_SHIFT 20
#define BOOSTED_KEY (UINT64_C(1) << 62) /* taken off the key */

#define VP_OF(node, member) ((struct hv_vp *)(void *)((char *)(node)-offsetof(struct hv_vp, sched.member)))

/* -- Locks of LPs -- */

static unsigned number_of(const struct hv *hv, const struct hv_lp *lp)
{
    return (unsigned)(lp - hv->lps);
}

static struct hv_lp *lock_lp_of(struct hv_vp *vp)
{
    for (;;) {
        unsigned number = atomic_load(&vp->lp);
        struct hv_lp *lp = &vp->hv->lps[number];

        hv_scheduler_lock_take(&lp->lock);
        if (atomic_load(&vp->lp) == number)
            return lp;
        hv_scheduler_lock_drop(&lp->lock);
    }
}

static void unlock_lp(struct hv_lp *lp)
{
    hv_scheduler_lock_drop(&lp->lock);
}

static void lock_two(struct hv_lp *a, struct hv_lp *b)
{
    hv_scheduler_lock_take(a < b ? &a->lock : &b->lock);
    hv_scheduler_lock_take(a < b ? &b->lock : &a->lock);
}

_Thread_local unsigned hv_this_lp;

static void kick(struct hv *hv, const struct hv_lp *lp)
{
    hv_stats_ipi(hv, number_of(hv, lp));
    hv->ops->kick_lp(hv->context, number_of(hv, lp));
}

/* -- Shares; from here on static functions are called with the LP's lock held -- */

static uint64_t weighted(const struct hv_vp *vp, uint64_t ticks)
{
    return (uint64_t)(((unsigned __int128)ticks * vp->sched.inverse_weight) >> WEIGHT_SHIFT);
}

static uint64_t elapsed(uint64_t since, uint64_t now)
{
    return now > since ? now - since : 0;
}

static void load_properties(struct hv_vp *vp, const struct hv_partition *partition)
{
    const struct hv_partition_properties *properties = &partition->properties;
    bool set = properties->cpu_weight != 0; /* it cannot be 0 (TLFS 18.2.3): else there are only defaults */

    vp->sched.weight = set ? (uint32_t)properties->cpu_weight : DEFAULT_WEIGHT;
    vp->sched.cap = set ? (uint32_t)properties->cpu_cap : (uint32_t)FULL_LP;
    vp->sched.reserve = set ? (uint32_t)properties->cpu_reserve : 0;
    vp->sched.inverse_weight = ((uint64_t)DEFAULT_WEIGHT << WEIGHT_SHIFT) / vp->sched.weight;
}

/* What `ticks` of run time cost at a rate that is a fraction of an LP. */
static uint64_t at_rate(uint64_t ticks, uint32_t rate)
{
    return (uint64_t)((unsigned __int128)ticks * FULL_LP / rate);
}

static uint64_t between(uint64_t value, uint64_t low, uint64_t high)
{
    return value < low ? low : value > high ? high : value;
}

static void account_cap(const struct hv *hv, struct hv_sched_vp *sched, uint64_t ran, uint64_t now)
{
    uint64_t start = now - ran, window = WINDOW_SLICES * hv->slice_length;
    uint64_t earliest = start > window ? start - window : 0;

    if (sched->cap_time < earliest)
        sched->cap_time = earliest;
    sched->cap_time =
        between(sched->cap_time + at_rate(ran, sched->cap), 0, now + LONGEST_HOLD_SLICES * hv->slice_length);
}

static void account_reserve(const struct hv *hv, struct hv_sched_vp *sched, uint64_t ran, uint64_t now)
{
    uint64_t start = now - ran, window = WINDOW_SLICES * hv->slice_length;

    sched->reserve_time = between(sched->reserve_time, start > window ? start - window : 0, start + window);
    sched->reserve_time = between(sched->reserve_time + at_rate(ran, sched->reserve), 0, now + window);
}

static void account(struct hv_lp *lp, struct hv_vp *vp, uint64_t now)
{
    uint64_t ran = elapsed(vp->sched.started, now);

    vp->sched.run_time += ran;
    vp->sched.virtual_time += weighted(vp, ran);
    lp->run_time += ran;
    if (vp->sched.cap && vp->sched.cap < FULL_LP)
        account_cap(vp->hv, &vp->sched, ran, now);
    if (vp->sched.reserve)
        account_reserve(vp->hv, &vp->sched, ran, now);
}

/* The LP's virtual time follows the least of its VPs that want to run. */
static void advance_virtual_time(struct hv_lp *lp, uint64_t now)
{
    const struct hv_vp *running = lp->running ? lp->running : lp->last;
    uint64_t least;

    if (!running && !lp->fair)
        return;
    if (running) {
        least = running->sched.virtual_time;
        if (running == lp->running)
            least += weighted(running, elapsed(running->sched.started, now));
    } else {
        least = VP_OF(lp->fair, fair)->sched.virtual_time;
    }
    if (lp->fair && hv_before(VP_OF(lp->fair, fair)->sched.virtual_time, least))
        least = VP_OF(lp->fair, fair)->sched.virtual_time;
    if (hv_before(lp->virtual_time, least))
        lp->virtual_time = least;
}

/* A VP that has waited gets the virtual time of one that has not, and a slice of credit: it is picked soon. */
static void place(struct hv_lp *lp, struct hv_vp *vp, uint64_t now)
{
    uint64_t least;

    advance_virtual_time(lp, now);
    least = lp->virtual_time - vp->hv->slice_length;
    if (hv_before(vp->sched.virtual_time, least))
        vp->sched.virtual_time = least;
    vp->sched.ready_since = now;
}

/* -- The queue of an LP -- */

/* Other LPs look without the lock. */
static void count_queued(struct hv_lp *lp, unsigned change)
{
    atomic_store_explicit(&lp->queued, atomic_load_explicit(&lp->queued, memory_order_relaxed) + change,
                          memory_order_relaxed);
}

static void enqueue(struct hv_lp *lp, struct hv_vp *vp)
{
    struct hv_sched_vp *sched = &vp->sched;

    sched->state = HV_SCHED_QUEUED;
    sched->fair.key = sched->virtual_time - (sched->boosted ? BOOSTED_KEY : 0);
    hv_heap_insert(&lp->fair, &sched->fair);
    if (sched->reserve) {
        sched->reserved.key = sched->reserve_time;
        hv_heap_insert(&lp->reserved, &sched->reserved);
    }
    count_queued(lp, 1);
}

static void dequeue(struct hv_lp *lp, struct hv_vp *vp)
{
    vp->sched.state = HV_SCHED_OFF;
    hv_heap_remove(&lp->fair, &vp->sched.fair);
    if (vp->sched.reserve)
        hv_heap_remove(&lp->reserved, &vp->sched.reserved);
    count_queued(lp, -1u);
}

static void hold(struct hv_lp *lp, struct hv_vp *vp, uint64_t until)
{
    vp->sched.state = HV_SCHED_HELD;
    vp->sched.held_until = until;
    vp->sched.previous_held = NULL;
    vp->sched.next_held = lp->held;
    if (lp->held)
        lp->held->sched.previous_held = vp;
    lp->held = vp;
    if (until < lp->next_release)
        lp->next_release = until;
}

static void unhold(struct hv_lp *lp, struct hv_vp *vp)
{
    vp->sched.state = HV_SCHED_OFF;
    if (vp->sched.previous_held)
        vp->sched.previous_held->sched.next_held = vp->sched.next_held;
    else
        lp->held = vp->sched.next_held;
    if (vp->sched.next_held)
        vp->sched.next_held->sched.previous_held = vp->sched.previous_held;
}

/* Take a VP out of whatever it is in, but not out of the LP's hands. */
static void detach(struct hv_lp *lp, struct hv_vp *vp)
{
    if (vp->sched.state == HV_SCHED_QUEUED)
        dequeue(lp, vp);
    else if (vp->sched.state == HV_SCHED_HELD)
        unhold(lp, vp);
    else if (vp->sched.state == HV_SCHED_STOPPED)
        lp->last = NULL;
    else
        return;
    vp->sched.state = HV_SCHED_OFF;
}

static bool is_ready(const struct hv_vp *vp)
{
    return !atomic_load(&vp->suspend) && !vp->hv->ops->vp_waits(vp->hv->context, vp->handle);
}

/* When a VP may run, as far as its cap and the calls that want its registers are concerned. */
static uint64_t earliest_start(const struct hv_vp *vp)
{
    uint64_t until = atomic_load(&vp->yield_until);

    if (vp->sched.cap < FULL_LP) {
        if (vp->sched.cap == 0)
            return HV_NANO100_NEVER;
        if (vp->sched.cap_time > until)
            until = vp->sched.cap_time;
    }
    return until;
}

/* Queue a VP that has become ready, or hold it back. */
static void admit(struct hv_lp *lp, struct hv_vp *vp, uint64_t now)
{
    uint64_t until = earliest_start(vp);

    if (until > now)
        hold(lp, vp, until);
    else
        enqueue(lp, vp);
}

static void release_held(struct hv_lp *lp, uint64_t now)
{
    struct hv_vp *vp, *next;

    if (now < lp->next_release)
        return;
    lp->next_release = HV_NANO100_NEVER;
    for (vp = lp->held; vp; vp = next) {
        next = vp->sched.next_held;
        if (vp->sched.held_until > now) {
            if (vp->sched.held_until < lp->next_release)
                lp->next_release = vp->sched.held_until;
            continue;
        }
        unhold(lp, vp);
        advance_virtual_time(lp, now);
        if (hv_before(vp->sched.virtual_time, lp->virtual_time - vp->hv->slice_length))
            vp->sched.virtual_time = lp->virtual_time - vp->hv->slice_length;
        admit(lp, vp, now);
    }
}

/* -- Picking -- */

/* Without a word from the root's VP an idle LP is in C1, where HLT leaves it. */
static void count_halt(struct hv_lp *lp)
{
    lp->power_state = lp->next_power_state;
    lp->next_power_state = 0;
    HV_COUNT_LP(lp, ProcessorHalts);
    hv_counter_add(&lp->stats.page[HV_LPA_C1Transitions + 2 * lp->power_state], 1);
}

static void set_idle(struct hv *hv, struct hv_lp *lp, bool idle, uint64_t now)
{
    unsigned number = number_of(hv, lp);
    uint64_t bit = UINT64_C(1) << (number % 64);

    if (lp->idle) {
        lp->idle_time += elapsed(lp->idle_since, now);
        lp->power_state_time[lp->power_state] += elapsed(lp->idle_since, now);
    }
    lp->idle_since = now;
    if (lp->idle == idle)
        return;
    lp->idle = idle;
    if (idle) {
        atomic_fetch_add(&lp->idle_entries, 1);
        count_halt(lp);
    }
    if (idle && !atomic_load(&lp->parked))
        atomic_fetch_or(&hv->idle_lps[number / 64], bit);
    else
        atomic_fetch_and(&hv->idle_lps[number / 64], ~bit);
}

/* Become the owner of a VP that may run and is in no queue. Else it goes where it belongs. */
static bool start(struct hv_lp *lp, struct hv_vp *vp, uint64_t now)
{
    unsigned none = HV_OWNER_NONE;
    uint64_t until;

    vp->sched.state = HV_SCHED_OFF;
    if (!is_ready(vp)) {
        vp->sched.boosted = false;
        return false;
    }
    until = earliest_start(vp);
    if (until > now) {
        hold(lp, vp, until);
        return false;
    }
    if (!atomic_compare_exchange_strong(&vp->owner, &none, number_of(vp->hv, lp) + 1))
        return false;
    if (atomic_load(&vp->suspend)) {
        atomic_store(&vp->owner, HV_OWNER_NONE);
        return false;
    }
    vp->sched.state = HV_SCHED_RUNNING;
    vp->sched.boosted = vp->sched.yields = false;
    vp->sched.started = now;
    lp->running = vp;
    return true;
}

/* The VP that runs, if one does, has left the guest. */
static void stop(struct hv_lp *lp, uint64_t now)
{
    struct hv_vp *vp = lp->running;

    if (!vp)
        return;
    account(lp, vp, now);
    lp->running = NULL;
    lp->last = vp;
    vp->sched.state = HV_SCHED_STOPPED;
    /* Who still sees the LP as the owner asks it to stop, and once more. */
    atomic_store_explicit(&vp->owner, HV_OWNER_NONE, memory_order_release);
}

static bool is_entitled(const struct hv_vp *vp, uint64_t now)
{
    return vp->sched.reserve && vp->sched.reserve_time <= now;
}

/* The queued VP whose turn it is, or NULL. */
static struct hv_vp *first(const struct hv_lp *lp, uint64_t now)
{
    struct hv_vp *fair = lp->fair ? VP_OF(lp->fair, fair) : NULL;

    if (fair && !fair->sched.boosted && lp->reserved) {
        struct hv_vp *reserved = VP_OF(lp->reserved, reserved);

        if (is_entitled(reserved, now))
            return reserved;
    }
    return fair;
}

static bool start_queued(struct hv_lp *lp, uint64_t now)
{
    struct hv_vp *vp;

    while ((vp = first(lp, now))) {
        dequeue(lp, vp);
        if (start(lp, vp, now))
            return true;
    }
    return false;
}

static void new_slice(const struct hv *hv, struct hv_lp *lp, uint64_t now)
{
    if (now >= lp->next_tick || lp->next_tick - now > hv->slice_length)
        lp->next_tick = (now / hv->slice_length + 1) * hv->slice_length;
    lp->slice_end = lp->fair || now < lp->shared_until ? lp->next_tick : HV_NANO100_NEVER;
}

/* The VP that has just stopped stays in a queue, or out of it, until its next turn. */
static void put_back(struct hv_lp *lp, struct hv_vp *last, uint64_t now)
{
    last->sched.state = HV_SCHED_OFF;
    last->sched.yields = false;
    if (is_ready(last)) {
        HV_LOG_AT(last->hv, last, number_of(last->hv, lp), VP_PREEMPTED);
        admit(lp, last, now);
    } else {
        last->sched.boosted = false;
    }
}

/* Pick a VP and start its slice, or let the one that was stopped go on with its own. */
static bool pick(struct hv *hv, struct hv_lp *lp, uint64_t now)
{
    struct hv_vp *last = lp->last;
    bool slice_over = now >= lp->slice_end, found;

    advance_virtual_time(lp, now);
    lp->last = NULL;
    if (last && !last->sched.yields && !slice_over && (!lp->fair || !VP_OF(lp->fair, fair)->sched.boosted)) {
        if (start(lp, last, now)) {
            if (lp->slice_end == HV_NANO100_NEVER)
                new_slice(hv, lp, now);
            return true;
        }
        last = NULL;
    }
    if (last && last->sched.yields) {
        found = start_queued(lp, now);
        put_back(lp, last, now);
        found = found || start_queued(lp, now);
    } else {
        if (last)
            put_back(lp, last, now);
        found = start_queued(lp, now);
    }
    if (found)
        new_slice(hv, lp, now);
    return found;
}

/* Prefer the VP to others, unless interrupts have already given it more than its share. */
static void boost(struct hv_lp *lp, struct hv_vp *vp, uint64_t now)
{
    advance_virtual_time(lp, now);
    if (!hv_before(vp->sched.virtual_time, lp->virtual_time + weighted(vp, BOOST_SLICES * vp->hv->slice_length)))
        return;
    if (vp->sched.state == HV_SCHED_QUEUED && !vp->sched.boosted) {
        dequeue(lp, vp);
        vp->sched.boosted = true;
        enqueue(lp, vp);
    }
    vp->sched.boosted = true;
}

/* The root VP is asked each time: the machine's own devices wake it, and make it go first. */
static void look_at_root(struct hv_lp *lp, bool interrupted, uint64_t now)
{
    struct hv_vp *root = lp->root;

    if (!root)
        return;
    if (root->sched.state == HV_SCHED_OFF && is_ready(root)) {
        place(lp, root, now);
        admit(lp, root, now);
        interrupted = true;
    }
    if (!interrupted || root->sched.boosted)
        return;
    if (root->sched.state == HV_SCHED_QUEUED)
        boost(lp, root, now);
    else
        root->sched.boosted = root->sched.state == HV_SCHED_STOPPED;
}

/* -- More than one LP -- */

/* VPs of the root are bound to their LP, and those of partitions that manage processors (TLFS 5.2.3, 22.3). */
static bool may_move(const struct hv_vp *vp)
{
    const struct hv_partition *partition = atomic_load(&vp->partition);

    return partition && partition->parent && !hv_has_privilege(partition, HV_PRIVILEGE_CpuManagement);
}

static void assign(struct hv_vp *vp, struct hv_lp *lp)
{
    atomic_store(&vp->lp, number_of(vp->hv, lp));
    if (!hv_vp_is_child(vp)) {
        lp->root = vp;
        return;
    }
    atomic_fetch_add(&lp->assigned, 1);
    atomic_fetch_add(&lp->reserves, vp->sched.reserve);
}

static void unassign(struct hv_vp *vp, struct hv_lp *lp)
{
    if (lp->root == vp) {
        lp->root = NULL;
        return;
    }
    atomic_fetch_sub(&lp->assigned, 1);
    atomic_fetch_sub(&lp->reserves, vp->sched.reserve);
}

/* Both LPs' locks are held; the VP does not run. It keeps its distance from the VPs around it. */
static void move(struct hv_vp *vp, struct hv_lp *from, struct hv_lp *to)
{
    enum hv_sched_state state = vp->sched.state;

    detach(from, vp);
    unassign(vp, from);
    vp->sched.virtual_time += to->virtual_time - from->virtual_time;
    assign(vp, to);
    HV_COUNT_SHARED(vp, LogicalProcessorMigrations);
    if (state == HV_SCHED_HELD)
        hold(to, vp, vp->sched.held_until);
    else if (state != HV_SCHED_OFF)
        enqueue(to, vp);
}

/* Whether LP `a` is the better place for a VP with this reserve; `here` counts the VP itself. */
static bool better_place(const struct hv_lp *a, const struct hv_lp *b, uint64_t reserve)
{
    bool parked_a = atomic_load(&a->parked), parked_b = atomic_load(&b->parked);
    bool full_a = atomic_load(&a->reserves) + reserve > FULL_LP, full_b = atomic_load(&b->reserves) + reserve > FULL_LP;

    if (parked_a != parked_b)
        return parked_b;
    if (reserve && full_a != full_b)
        return full_b;
    return atomic_load(&a->assigned) < atomic_load(&b->assigned);
}

static struct hv_lp *best_place(struct hv *hv, uint64_t reserve)
{
    struct hv_lp *best = &hv->lps[0];

    for (unsigned i = 1; i < hv->lp_count; i++) {
        if (better_place(&hv->lps[i], best, reserve))
            best = &hv->lps[i];
    }
    return best;
}

/* A VP of this heap that may move and has waited for a while, or NULL; looks at a few. */
static struct hv_vp *find_movable(struct hv_heap_node *node, uint64_t now, uint64_t settle, unsigned *left)
{
    for (; node && *left; node = node->next) {
        struct hv_vp *vp = VP_OF(node, fair), *found;

        (*left)--;
        if (may_move(vp) && elapsed(vp->sched.ready_since, now) >= settle && is_ready(vp))
            return vp;
        found = find_movable(node->child, now, settle, left);
        if (found)
            return found;
    }
    return NULL;
}

/* Take a VP over from an LP that has more than it can run. No lock is held before; this LP's is afterwards. */
static bool steal(struct hv *hv, struct hv_lp *lp, uint64_t now)
{
    uint64_t settle = hv->slice_length / SETTLE_DIVISOR;

    for (unsigned i = 1; i < hv->lp_count; i++) {
        struct hv_lp *victim = &hv->lps[(number_of(hv, lp) + i) % hv->lp_count];
        unsigned left = STEAL_SEARCH;
        struct hv_vp *vp;

        if (!atomic_load_explicit(&victim->queued, memory_order_relaxed))
            continue;
        lock_two(lp, victim);
        vp = find_movable(victim->fair, now, settle, &left);
        if (vp)
            move(vp, victim, lp);
        unlock_lp(victim);
        if (vp)
            return true;
        unlock_lp(lp);
    }
    hv_scheduler_lock_take(&lp->lock);
    return false;
}

/* Send VPs that may move away from a parked LP. No lock is held. */
static void evacuate(struct hv *hv, struct hv_lp *lp, uint64_t now)
{
    for (;;) {
        unsigned left = STEAL_SEARCH;
        uint64_t reserve;
        struct hv_vp *vp;
        struct hv_lp *to;
        bool moved;

        hv_scheduler_lock_take(&lp->lock);
        stop(lp, now);
        vp = lp->last && may_move(lp->last) ? lp->last : find_movable(lp->fair, 0, 0, &left);
        reserve = vp ? vp->sched.reserve : 0;
        unlock_lp(lp);
        if (!vp)
            return;
        to = best_place(hv, reserve);
        if (to == lp || atomic_load(&to->parked))
            return; /* there is no better place: parking is advice (TLFS 6.4.2) */
        lock_two(lp, to);
        moved = atomic_load(&vp->lp) == number_of(hv, lp) &&
                (vp->sched.state == HV_SCHED_QUEUED || vp->sched.state == HV_SCHED_STOPPED);
        if (moved)
            move(vp, lp, to);
        unlock_lp(lp);
        unlock_lp(to);
        if (moved)
            kick(hv, to);
    }
}

/*
 * A VP that waited on an LP which has been parked meanwhile wakes elsewhere. No lock is held. What is asked of the VP
 * is asked under its LP's lock, as long as it is in the scheduler's hands: else its partition may be gone.
 */
static void leave_parked_lp(struct hv_vp *vp)
{
    struct hv *hv = vp->hv;
    struct hv_lp *from = &hv->lps[atomic_load(&vp->lp)], *to;
    uint64_t reserve;
    bool may;

    if (!atomic_load_explicit(&from->parked, memory_order_relaxed))
        return;
    from = lock_lp_of(vp);
    may = vp->sched.state == HV_SCHED_OFF && may_move(vp);
    reserve = vp->sched.reserve;
    unlock_lp(from);
    to = best_place(hv, reserve);
    if (!may || to == from || atomic_load(&to->parked))
        return;
    lock_two(from, to);
    if (atomic_load(&vp->lp) == number_of(hv, from) && vp->sched.state == HV_SCHED_OFF && may_move(vp))
        move(vp, from, to);
    unlock_lp(from);
    unlock_lp(to);
}

/* An LP that wants work, or NULL. */
static struct hv_lp *find_idle(struct hv *hv)
{
    for (unsigned i = 0; i * 64 < hv->lp_count; i++) {
        uint64_t idle = atomic_load_explicit(&hv->idle_lps[i], memory_order_relaxed);

        if (idle)
            return &hv->lps[i * 64 + (unsigned)__builtin_ctzll(idle)];
    }
    return NULL;
}

/* The lock is held; the LP's own thread. An LP that has no more to run need not choose again: it is idle when it stops.
 */
static void log_switch(struct hv *hv, struct hv_lp *lp)
{
    const struct hv_vp *vp = lp->running;

    if (vp == lp->logged)
        return;
    lp->logged = vp;
    HV_LOG_AT(hv, vp, number_of(hv, lp), SCH_CONTEXT_SWITCH, vp ? vp->partition->id : HV_PARTITION_ID_INVALID,
              vp ? vp->handle : HV_ANY_VP, vp ? atomic_load(&vp->tsc_offset) : 0);
}

/* -- What the platform and the other chapters call -- */

/* Of the time that switches take there are samples. */
static void count_switch(struct hv_lp *lp, struct hv_vp *vp, uint64_t began)
{
    lp->previous = vp;
    if (HV_COUNTING && lp->stats.page[HV_LPA_ContextSwitches] % HV_COST_SAMPLE == 0)
        lp->switch_time += HV_COST_SAMPLE * elapsed(began, hv_sample_tsc(vp->hv));
    HV_COUNT_LP(lp, ContextSwitches);
}

/* The child's VP from which an interrupt takes the LP; its thread may have been wanted elsewhere first. */
static struct hv_vp *interrupted_vp(struct hv_lp *lp)
{
    struct hv_vp *vp = lp->running ? lp->running : lp->last;

    return vp && hv_vp_is_child(vp) && (vp == lp->running || is_ready(vp)) ? vp : NULL;
}

struct hv_vp *hv_schedule(struct hv *hv, unsigned number, bool interrupted, uint64_t *slice)
{
    struct hv_lp *lp = &hv->lps[number], *helper = NULL;
    uint64_t now = hv_sample_tsc(hv);
    bool parked = atomic_load_explicit(&lp->parked, memory_order_relaxed), slice_over, found;
    uint64_t began = 0;
    struct hv_vp *vp, *stopped;

    hv_this_lp = number + 1;
    if (parked)
        evacuate(hv, lp, now);
    hv_scheduler_lock_take(&lp->lock);
    stopped = interrupted ? interrupted_vp(lp) : NULL;
    if (stopped)
        began = hv_event_begin(stopped, HV_VPV_ExternalInterrupts);
    stop(lp, now);
    slice_over = now >= lp->slice_end;
    if (slice_over)
        HV_COUNT_LP(lp, SchedulerInterrupts);
    release_held(lp, now);
    look_at_root(lp, interrupted, now);
    found = pick(hv, lp, now);
    set_idle(hv, lp, !found, now);
    if (!found && !parked && hv->lp_count > 1) {
        unlock_lp(lp);
        steal(hv, lp, now);
        found = pick(hv, lp, now);
        set_idle(hv, lp, !found, now);
    }
    vp = lp->running;
    log_switch(hv, lp);
    if (found && vp != lp->previous)
        count_switch(lp, vp, now);
    if (stopped)
        hv_cost_end(stopped, HV_VPV_ExternalInterrupts, began);
    if (!found)
        lp->slice_end = HV_NANO100_NEVER;
    else if (slice_over && lp->fair)
        helper = find_idle(hv);
    *slice = lp->slice_end < lp->next_release ? lp->slice_end : lp->next_release;
    if (found && vp->sched.cap < FULL_LP) {
        /* As long as what it uses is paid for within a window, or almost. */
        uint64_t run = WINDOW_SLICES * hv->slice_length * vp->sched.cap / FULL_LP;
        uint64_t end = now + between(run, hv->slice_length / SHORTEST_RUN_DIVISOR, hv->slice_length);

        if (end < *slice)
            *slice = end;
    }
    unlock_lp(lp);
    if (helper)
        kick(hv, helper);
    if (!found)
        hv_this_lp = 0;
    return vp;
}

void hv_stopped(struct hv_vp *vp)
{
    struct hv *hv = vp->hv;
    struct hv_lp *lp = &hv->lps[atomic_load_explicit(&vp->lp, memory_order_relaxed)]; /* it cannot move while it runs */
    uint64_t now = hv_sample_tsc(hv);

    hv_scheduler_lock_take(&lp->lock);
    stop(lp, now);
    log_switch(hv, lp);
    unlock_lp(lp);
    hv_this_lp = 0;
}

/* Whether the LP has to choose again now that this VP is queued. */
static bool must_choose(struct hv_lp *lp, const struct hv_vp *vp, uint64_t now)
{
    const struct hv_vp *running = lp->running;

    if (!running)
        return true;
    if (atomic_load(&running->suspend))
        return false; /* who suspended it has kicked it: the LP chooses soon */
    if (vp->sched.boosted)
        return true;
    lp->shared_until = now + WINDOW_SLICES * vp->hv->slice_length;
    return lp->slice_end == HV_NANO100_NEVER;
}

/* Returns whether the LP is to be kicked. */
static bool make_ready(struct hv_lp *lp, struct hv_vp *vp, bool interrupt)
{
    enum hv_sched_state state = vp->sched.state;
    uint64_t now;

    switch (state) {
    case HV_SCHED_NONE:
    case HV_SCHED_RUNNING:
        return false;
    case HV_SCHED_STOPPED:
        vp->sched.boosted |= interrupt;
        return true;
    default:
        break;
    }
    if (!is_ready(vp))
        return false;
    now = hv_sample_tsc(vp->hv);
    if (state == HV_SCHED_OFF) {
        place(lp, vp, now);
        admit(lp, vp, now);
    } else if (state == HV_SCHED_HELD) {
        unhold(lp, vp);
        admit(lp, vp, now);
    } else if (!interrupt) {
        return false;
    }
    if (vp->sched.state == HV_SCHED_HELD) /* the LP may have to set a timer for it */
        return state == HV_SCHED_OFF && vp->sched.held_until == lp->next_release;
    if (interrupt)
        boost(lp, vp, now);
    return must_choose(lp, vp, now);
}

void hv_scheduler_wake(struct hv_vp *vp, bool interrupt)
{
    struct hv_lp *lp;
    bool choose;

    if (!vp->hv->lps)
        return;
    leave_parked_lp(vp);
    lp = lock_lp_of(vp);
    choose = make_ready(lp, vp, interrupt);
    unlock_lp(lp);
    if (choose)
        kick(vp->hv, lp);
}

void hv_vp_wake(struct hv_vp *vp)
{
    hv_scheduler_wake(vp, true);
}

bool hv_lp_has_work(struct hv *hv, unsigned number)
{
    struct hv_lp *lp = &hv->lps[number];
    uint64_t now = hv_sample_tsc(hv), release;
    bool work;

    hv_scheduler_lock_take(&lp->lock);
    release = lp->next_release;
    release_held(lp, now);
    look_at_root(lp, false, now);
    /* Who has to be held back is the LP's to hold: only when it chooses does it set its timer for the time of release.
     */
    work = (lp->last && is_ready(lp->last)) || (lp->next_release != release && lp->next_release != HV_NANO100_NEVER);
    while (!work && lp->fair) {
        struct hv_vp *vp = VP_OF(lp->fair, fair);

        work = is_ready(vp);
        if (!work) {
            dequeue(lp, vp);
            put_back(lp, vp, now);
        }
    }
    unlock_lp(lp);
    return work;
}

unsigned hv_vp_get_lp(const struct hv_vp *vp)
{
    return atomic_load(&vp->lp);
}

/* -- VPs and LPs come and go -- */

bool hv_scheduler_init(struct hv *hv)
{
    uint64_t now = hv_sample_tsc(hv);

    hv_this_lp = 0;
    hv->slice_length = hv->config.tsc_frequency / SLICES_PER_SECOND;
    hv->lps = calloc(hv->config.vp_count, sizeof(*hv->lps));
    if (!hv->lps)
        return false;
    hv->lp_count = hv->config.vp_count;
    for (unsigned i = 0; i < hv->lp_count; i++) {
        struct hv_lp *lp = &hv->lps[i];

        hv_scheduler_lock_init(&lp->lock);
        hv_stats_init(hv, &lp->stats, HV_STATS_OBJECT_LOGICAL_PROCESSOR,
                      (uint8_t *)hv->stats.page + (size_t)(1 + i) * HV_PAGE_SIZE);
        lp->created = lp->idle_since = now;
        lp->next_release = lp->slice_end = HV_NANO100_NEVER;
    }
    return true;
}

void hv_scheduler_free(struct hv *hv)
{
    free(hv->lps);
}

/* The new VP is suspended, or it is the root's, which its LP looks at by itself. */
void hv_scheduler_add(struct hv_vp *vp)
{
    struct hv *hv = vp->hv;
    struct hv_lp *lp, *old = lock_lp_of(vp); /* who comes late to wake what it was before sees one LP or the other */

    memset(&vp->sched, 0, sizeof(vp->sched));
    load_properties(vp, vp->partition);
    lp = hv_vp_is_child(vp) ? best_place(hv, vp->sched.reserve) : &hv->lps[vp->index];
    atomic_store(&vp->lp, number_of(hv, lp));
    unlock_lp(old);
    hv_scheduler_lock_take(&lp->lock);
    assign(vp, lp);
    vp->sched.virtual_time = lp->virtual_time;
    vp->sched.state = HV_SCHED_OFF;
    unlock_lp(lp);
}

void hv_scheduler_remove(struct hv_vp *vp)
{
    struct hv_lp *lp = lock_lp_of(vp);

    detach(lp, vp);
    unassign(vp, lp);
    vp->sched.state = HV_SCHED_NONE;
    unlock_lp(lp);
}

static void reload(struct hv_vp *vp, const struct hv_partition *partition)
{
    struct hv_lp *lp = lock_lp_of(vp);
    uint64_t now = hv_sample_tsc(vp->hv);
    enum hv_sched_state state = vp->sched.state;
    bool running = state == HV_SCHED_RUNNING;

    if (running) {
        account(lp, vp, now);
        vp->sched.started = now;
    }
    if (state == HV_SCHED_QUEUED || state == HV_SCHED_HELD)
        detach(lp, vp);
    if (lp->root != vp)
        atomic_fetch_sub(&lp->reserves, vp->sched.reserve);
    load_properties(vp, partition);
    if (lp->root != vp)
        atomic_fetch_add(&lp->reserves, vp->sched.reserve);
    vp->sched.cap_time = vp->sched.reserve_time = 0; /* what it used under the old policy is settled */
    if (state == HV_SCHED_QUEUED || state == HV_SCHED_HELD)
        admit(lp, vp, now);
    unlock_lp(lp);
    if (running || state == HV_SCHED_HELD)
        kick(vp->hv, lp);
}

void hv_scheduler_properties_changed(struct hv_partition *partition)
{
    for (hv_vp_index i = 0; partition->hv->lps && i < partition->vp_limit; i++) {
        if (partition->vps[i])
            reload(partition->vps[i], partition);
    }
}

void hv_scheduler_park(struct hv *hv, uint64_t mask)
{
    for (unsigned i = 0; i < hv->lp_count; i++) {
        struct hv_lp *lp = &hv->lps[i];
        bool park = i < 64 && ((mask >> i) & 1);
        uint64_t bit = UINT64_C(1) << (i % 64);

        if (atomic_exchange(&lp->parked, park) == park)
            continue;
        hv_scheduler_lock_take(&lp->lock);
        if (park || !lp->idle)
            atomic_fetch_and(&hv->idle_lps[i / 64], ~bit);
        else
            atomic_fetch_or(&hv->idle_lps[i / 64], bit);
        unlock_lp(lp);
        kick(hv, lp); /* it sends its VPs away, or looks for some */
    }
}

/* -- Run times (TLFS 6.3.3, 10.3.2) -- */

static uint64_t nano100_of(const struct hv *hv, uint64_t ticks)
{
    return (uint64_t)(((unsigned __int128)ticks * hv->machine_partition->tsc_scale) >> 64);
}

uint64_t hv_vp_run_time(struct hv_vp *vp)
{
    struct hv_lp *lp = lock_lp_of(vp);
    uint64_t ticks = vp->sched.run_time;

    if (vp->sched.state == HV_SCHED_RUNNING)
        ticks += elapsed(vp->sched.started, hv_sample_tsc(vp->hv));
    unlock_lp(lp);
    return nano100_of(vp->hv, ticks);
}

void hv_get_lp_times(struct hv *hv, unsigned number, struct hv_lp_times *times)
{
    struct hv_lp *lp = &hv->lps[number];
    uint64_t now, run, idle, all, idle_now;

    hv_scheduler_lock_take(&lp->lock);
    now = hv_sample_tsc(hv);
    run = lp->run_time + (lp->running ? elapsed(lp->running->sched.started, now) : 0);
    idle_now = lp->idle ? elapsed(lp->idle_since, now) : 0;
    idle = lp->idle_time + idle_now;
    all = elapsed(lp->created, now);
    for (unsigned i = 0; i < 3; i++)
        times->power_states[i] = nano100_of(hv, lp->power_state_time[i] + (i == lp->power_state ? idle_now : 0));
    times->switching = nano100_of(hv, 100 * lp->switch_time);
    unlock_lp(lp);
    times->idle = nano100_of(hv, idle);
    times->run = nano100_of(hv, all) - times->idle;
    times->hypervisor = times->run - nano100_of(hv, run);
}

/* -- After a restore: the TSC may stand anywhere, and shares start anew; the times that were counted do not -- */

static void lp_restored(struct hv *hv, struct hv_lp *lp, uint64_t now)
{
    struct hv_vp *root = lp->root;
    uint64_t run_time = root->sched.run_time;

    hv_scheduler_remove(root);
    hv_scheduler_add(root);
    root->sched.run_time = run_time;
    lp->next_release = lp->slice_end = HV_NANO100_NEVER;
    lp->next_tick = lp->shared_until = 0;
    lp->idle_since = now;
    hv->ops->kick_lp(hv->context, number_of(hv, lp));
}

void hv_scheduler_restored(struct hv *hv)
{
    uint64_t now = hv_sample_tsc(hv);

    hv_this_lp = 0; /* no VP runs */

    hv->slice_length = hv->config.tsc_frequency / SLICES_PER_SECOND;
    for (unsigned i = 0; i < hv->lp_count; i++)
        lp_restored(hv, &hv->lps[i], now);
}

/*
 * TLFS 18.5.1: advice, which never fails. The rest of the caller's slice goes to others on the LP, among them perhaps
 * the one that holds the lock.
 */
hv_status hv_call_notify_long_spin_wait(struct hv_call *call)
{
    struct hv_vp *vp = call->vp;
    struct hv *hv = vp->hv;
    struct hv_lp *lp;
    bool others;

    hv->ops->spin_wait(hv->context, vp->handle);
    if (!hv->lps)
        return HV_STATUS_SUCCESS;
    lp = lock_lp_of(vp);
    others = lp->running == vp && lp->fair;
    vp->sched.yields = others;
    unlock_lp(lp);
    if (others)
        kick(hv, lp);
    return HV_STATUS_SUCCESS;
}
