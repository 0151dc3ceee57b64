/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fault injection: rules by which what a guest asks of the hypervisor fails, is late, gets lost, comes twice or out of
 * order. Nothing of the specification; the operator tests with it how guests cope (docs/fault-injection.md).
 *
 * Where a rule may act there is one branch on hv->attention, which has a bit for each point that has a rule. Behind
 * it everything may cost something: rules and their counters are under one lock. What is held back is copied into
 * buffers of our own, of which there are a fixed number, and waits in a list of its VP for a platform timer; so what it
 * was copied from is free at once, and may go.
 */
#include "inject.h"

#include <string.h>

#define RULES 64u
#define HELD 256u
#define MICROSECONDS_PER_SECOND UINT64_C(1000000)
#define LONGEST_DELAY UINT32_C(3600000000)

#define BIT(n) (1u << (n))

/* Which action makes sense where. */
static const uint8_t possible_actions[HV_INJECT_POINTS] = {
    [HV_INJECT_HYPERCALL] =
        BIT(HV_INJECT_STATUS) | BIT(HV_INJECT_GP) | BIT(HV_INJECT_UD) | BIT(HV_INJECT_DELAY) | BIT(HV_INJECT_DROP),
    [HV_INJECT_MSR_READ] = BIT(HV_INJECT_GP),
    [HV_INJECT_MSR_WRITE] = BIT(HV_INJECT_GP) | BIT(HV_INJECT_DROP),
    [HV_INJECT_MESSAGE] = BIT(HV_INJECT_DELAY) | BIT(HV_INJECT_DROP) | BIT(HV_INJECT_DOUBLE) | BIT(HV_INJECT_REORDER),
    [HV_INJECT_EVENT] = BIT(HV_INJECT_DELAY) | BIT(HV_INJECT_DROP) | BIT(HV_INJECT_DOUBLE),
    [HV_INJECT_TIMER] = BIT(HV_INJECT_DELAY) | BIT(HV_INJECT_DROP) | BIT(HV_INJECT_DOUBLE),
};

struct rule {
    struct hv_inject_rule rule;
    uint64_t matched, injected, skipped;
};

/* Something that happens later. */
struct hv_held {
    struct hv_held *next; /* of its VP; VP's lock */
    enum { HELD_MESSAGE, HELD_REORDERED, HELD_EVENT, HELD_INTERRUPT } what;
    uint64_t due; /* TSC */
    uint16_t flag; /* of an event, for buffer.sint */
    uint8_t vector; /* of an interrupt */
    struct hv_message_buffer buffer; /* in_use while this is; a message stays in it until it is delivered */
};

struct hv_injection {
    struct hv_inject_lock lock; /* of the rules */
    unsigned count;
    struct rule rules[RULES]; /* in the order in which they are looked at */
    struct hv_held held[HELD];
};

/* -- Rules -- */

/* A number that looks random and depends on nothing but these two (splitmix64). */
static uint64_t chance(uint64_t seed, uint64_t number)
{
    uint64_t z = seed + number * UINT64_C(0x9E3779B97F4A7C15);

    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* Whether a rule acts on what it has matched last. */
static bool chooses(const struct rule *r)
{
    const struct hv_inject_rule *rule = &r->rule;

    if (rule->limit && r->injected >= rule->limit)
        return false;
    switch (rule->when) {
    case HV_INJECT_NTH:
        return r->matched == rule->number;
    case HV_INJECT_EVERY:
        return r->matched % rule->number == 0;
    case HV_INJECT_FRACTION: /* 53 bits, as many as a double has */
        return (double)(chance(rule->seed, r->matched) >> 11) * 0x1p-53 < rule->fraction;
    default:
        return true;
    }
}

static bool matches(const struct hv_inject_rule *rule, const struct hv_vp *vp, enum hv_inject_point point,
                    uint64_t target)
{
    const struct hv_partition *partition = vp->partition;

    return rule->point == point && partition && rule->partition == partition->id &&
           (rule->vp == HV_ANY_VP || rule->vp == vp->index) &&
           (rule->target == HV_INJECT_ANY || rule->target == target);
}

bool hv_inject(struct hv_vp *vp, enum hv_inject_point point, uint64_t target, struct hv_injected *injected)
{
    struct hv_injection *injection = atomic_load(&vp->hv->injection);
    bool acts = false;

    if (!injection)
        return false;
    hv_inject_lock_take(&injection->lock);
    for (unsigned i = 0; i < injection->count; i++) {
        struct rule *r = &injection->rules[i];

        if (!matches(&r->rule, vp, point, target))
            continue;
        r->matched++;
        if (acts || !chooses(r))
            continue;
        r->injected++;
        acts = true;
        injected->action = r->rule.action;
        injected->status = (hv_status)r->rule.status;
        injected->delay = r->rule.delay_us * vp->hv->config.tsc_frequency / MICROSECONDS_PER_SECOND;
        memcpy(injected->id, r->rule.id, sizeof(injected->id));
    }
    hv_inject_lock_drop(&injection->lock);
    return acts;
}

static struct rule *find_rule(struct hv_injection *injection, const char *id)
{
    for (unsigned i = 0; i < injection->count; i++) {
        if (strcmp(injection->rules[i].rule.id, id) == 0)
            return &injection->rules[i];
    }
    return NULL;
}

/* It could not be done after all. */
static void note_skipped(struct hv *hv, const struct hv_injected *injected)
{
    struct hv_injection *injection = atomic_load(&hv->injection);
    struct rule *r;

    hv_inject_lock_take(&injection->lock);
    r = find_rule(injection, injected->id);
    if (r) {
        r->injected--;
        r->skipped++;
    }
    hv_inject_lock_drop(&injection->lock);
}

/* -- What is held back; VP's lock held -- */

static void arm(struct hv_vp *vp)
{
    uint64_t first = HV_NANO100_NEVER;

    for (const struct hv_held *held = vp->held; held; held = held->next)
        first = held->due < first ? held->due : first;
    vp->hv->ops->set_timer(vp->hv->context, vp->handle, HV_VP_TIMER_INJECT, first);
}

/* Behind what is due at the same time or earlier. */
static struct hv_held *hold(struct hv_vp *vp, const struct hv_injected *injected)
{
    struct hv_injection *injection = atomic_load(&vp->hv->injection);
    struct hv_held **link = &vp->held, *held = NULL;

    for (unsigned i = 0; !held && i < HELD; i++) {
        bool free = false;

        if (atomic_compare_exchange_strong(&injection->held[i].buffer.in_use, &free, true))
            held = &injection->held[i];
    }
    if (!held) {
        note_skipped(vp->hv, injected);
        return NULL;
    }
    held->due = hv_machine_tsc(vp->hv) + injected->delay;
    while (*link && (*link)->due <= held->due)
        link = &(*link)->next;
    held->next = *link;
    *link = held;
    arm(vp);
    return held;
}

static bool hold_message(struct hv_vp *vp, const struct hv_message_buffer *buffer, const struct hv_injected *injected)
{
    struct hv_held *held = hold(vp, injected);

    if (!held)
        return false;
    held->what = injected->action == HV_INJECT_REORDER ? HELD_REORDERED : HELD_MESSAGE;
    held->buffer.sint = buffer->sint;
    held->buffer.timer = buffer->timer;
    held->buffer.intercept = false;
    held->buffer.injected = true;
    held->buffer.message = buffer->message;
    return true;
}

static void happen(struct hv_vp *vp, struct hv_held *held, struct hv_interrupts *interrupts)
{
    switch (held->what) {
    case HELD_MESSAGE:
    case HELD_REORDERED:
        hv_message_enqueue_now(vp, &held->buffer, interrupts);
        return; /* free when it is delivered */
    case HELD_EVENT:
        hv_event_set_now(vp, held->buffer.sint, held->flag, interrupts);
        break;
    case HELD_INTERRUPT:
        hv_interrupts_add(interrupts, held->vector);
        break;
    }
    hv_message_drop(&held->buffer);
}

/* Let happen what is due, and messages for `sint` that have waited for another one. */
static void release(struct hv_vp *vp, uint64_t now, int sint, struct hv_interrupts *interrupts)
{
    struct hv_held **link = &vp->held;

    while (*link) {
        struct hv_held *held = *link;

        if (held->due > now && !(held->what == HELD_REORDERED && held->buffer.sint == sint)) {
            link = &held->next;
            continue;
        }
        *link = held->next;
        happen(vp, held, interrupts);
        link = &vp->held; /* that a message was delivered may have led to others */
    }
    arm(vp);
}

void hv_inject_expired(struct hv_vp *vp)
{
    struct hv_interrupts interrupts = {{0}};

    hv_vp_lock_take(&vp->lock);
    if (vp->partition)
        release(vp, hv_machine_tsc(vp->hv), -1, &interrupts);
    hv_vp_lock_drop(&vp->lock);
    hv_interrupts_request(vp, &interrupts);
}

void hv_inject_reset(struct hv_vp *vp)
{
    vp->inject_passed = false;
    vp->inject_until = 0;
    if (!vp->held)
        return;
    while (vp->held) {
        struct hv_held *held = vp->held;

        vp->held = held->next;
        hv_message_drop(&held->buffer);
    }
    arm(vp);
}

/* -- Points; VP's lock held, but for registers -- */

enum hv_exit hv_inject_msr(struct hv_vp *vp, enum hv_inject_point point, uint32_t index)
{
    struct hv_injected injected;

    if (!hv_inject(vp, point, index, &injected))
        return HV_EXIT_NATIVE;
    return injected.action == HV_INJECT_GP ? HV_EXIT_GP : HV_EXIT_DONE;
}

void hv_inject_message(struct hv_vp *vp, struct hv_message_buffer *buffer, struct hv_interrupts *interrupts)
{
    int sint = buffer->sint;
    struct hv_injected injected;

    if (hv_inject(vp, HV_INJECT_MESSAGE, buffer->message.header.message_type, &injected)) {
        if (injected.action == HV_INJECT_DROP || hold_message(vp, buffer, &injected)) {
            if (injected.action != HV_INJECT_DOUBLE) {
                hv_message_drop(buffer);
                return;
            }
        }
    }
    hv_message_enqueue_now(vp, buffer, interrupts);
    release(vp, 0, sint, interrupts);
}

void hv_inject_event(struct hv_vp *vp, unsigned sint, unsigned flag, struct hv_interrupts *interrupts)
{
    struct hv_injected injected;
    struct hv_held *held;

    if (hv_inject(vp, HV_INJECT_EVENT, flag, &injected)) {
        if (injected.action == HV_INJECT_DROP)
            return;
        held = hold(vp, &injected);
        if (held) {
            held->what = HELD_EVENT;
            held->buffer.sint = (uint8_t)sint;
            held->flag = (uint16_t)flag;
            if (injected.action == HV_INJECT_DELAY)
                return;
        }
    }
    hv_event_set_now(vp, sint, flag, interrupts);
}

void hv_inject_second_expiration(struct hv_vp *vp, unsigned timer, int vector, const struct hv_injected *injected)
{
    struct hv_held *held;

    if (vector < 0) {
        hold_message(vp, &vp->timer[timer].buffer, injected);
        return;
    }
    held = hold(vp, injected);
    if (held) {
        held->what = HELD_INTERRUPT;
        held->vector = (uint8_t)vector;
    }
}

/* -- The operator -- */

#ifdef HV_NO_INJECTION
const char *hv_inject_add(struct hv *hv, const struct hv_inject_rule *rule)
{
    (void)hv;
    (void)rule;
    return "fault injection is not compiled in";
}
#else

static const char *check_msr(const struct hv *hv, const struct hv_inject_rule *rule)
{
    uint64_t slot = rule->target - HV_MSR_FIRST;

    if (slot >= HV_MSR_CODES || hv->msr_row[slot] == HV_NO_ROW)
        return "there is no such MSR in this interface generation";
    if (rule->point == HV_INJECT_MSR_READ ? !hv->msr_read[slot] : !hv->msr_write[slot])
        return rule->point == HV_INJECT_MSR_READ ? "this MSR cannot be read" : "this MSR cannot be written";
    return NULL;
}

static const char *check_target(const struct hv *hv, const struct hv_inject_rule *rule)
{
    if (rule->target == HV_INJECT_ANY)
        return NULL;
    switch (rule->point) {
    case HV_INJECT_HYPERCALL:
        if (rule->target >= HV_CALL_CODES || hv->call_row[rule->target] == HV_NO_ROW)
            return "there is no such hypercall in this interface generation";
        return NULL;
    case HV_INJECT_MSR_READ:
    case HV_INJECT_MSR_WRITE:
        return check_msr(hv, rule);
    case HV_INJECT_MESSAGE:
        return rule->target && rule->target <= UINT32_MAX ? NULL : "a message type is 1 to 0xFFFFFFFF";
    case HV_INJECT_EVENT:
        return rule->target < HV_EVENT_FLAGS_COUNT ? NULL : "an event flag is 0 to 2047";
    default:
        return rule->target < HV_SYNTHETIC_TIMER_COUNT ? NULL : "a timer is 0 to 3";
    }
}

static const char *check_action(const struct hv_inject_rule *rule)
{
    bool late =
        rule->action == HV_INJECT_DELAY || rule->action == HV_INJECT_DOUBLE || rule->action == HV_INJECT_REORDER;

    if (!(possible_actions[rule->point] & BIT(rule->action)))
        return "this action makes no sense there";
    if (rule->action == HV_INJECT_STATUS && !rule->status)
        return "a status other than HV_STATUS_SUCCESS is needed";
    if (late && (!rule->delay_us || rule->delay_us > LONGEST_DELAY))
        return "a delay is 1 us to 1 hour";
    return NULL;
}

static const char *check_when(const struct hv_inject_rule *rule)
{
    if ((rule->when == HV_INJECT_NTH || rule->when == HV_INJECT_EVERY) && !rule->number)
        return "what a rule matches is counted from 1 on";
    if (rule->when == HV_INJECT_FRACTION && !(rule->fraction > 0 && rule->fraction <= 1))
        return "a fraction is above 0 and at most 1";
    return NULL;
}

/* Structure lock held. */
static const char *check_partition(struct hv *hv, const struct hv_inject_rule *rule)
{
    const struct hv_partition *partition = hv_find_partition(hv, rule->partition);

    if (!partition)
        return "there is no such partition";
    if (rule->vp != HV_ANY_VP && rule->vp >= partition->vp_limit)
        return "the partition can have no such virtual processor";
    return NULL;
}

static struct hv_injection *get_injection(struct hv *hv)
{
    struct hv_injection *injection = atomic_load(&hv->injection);

    if (injection)
        return injection;
    injection = calloc(1, sizeof(*injection));
    if (injection) {
        hv_inject_lock_init(&injection->lock);
        atomic_store(&hv->injection, injection);
    }
    return injection;
}

/* Which points have rules; the lock is held. */
static void publish_points(struct hv *hv, const struct hv_injection *injection)
{
    unsigned points = 0;

    for (unsigned i = 0; i < injection->count; i++)
        points |= BIT(injection->rules[i].rule.point);
    hv_set_attention(hv, BIT(HV_INJECT_POINTS) - 1, points);
}

static const char *insert(struct hv *hv, const struct hv_inject_rule *rule)
{
    struct hv_injection *injection = get_injection(hv);
    const char *error = NULL;

    if (!injection)
        return "the host's memory is too short";
    hv_inject_lock_take(&injection->lock);
    if (find_rule(injection, rule->id))
        error = "there is a rule with this id";
    else if (injection->count == RULES)
        error = "there are 64 rules already; remove one";
    else
        injection->rules[injection->count++] = (struct rule){.rule = *rule};
    publish_points(hv, injection);
    hv_inject_lock_drop(&injection->lock);
    return error;
}

const char *hv_inject_add(struct hv *hv, const struct hv_inject_rule *rule)
{
    const char *error = rule->id[0] ? check_action(rule) : "a rule needs an id";

    if (!error)
        error = check_target(hv, rule);
    if (!error)
        error = check_when(rule);
    if (error)
        return error;
    hv_structure_lock_read(&hv->structure);
    error = check_partition(hv, rule);
    if (!error)
        error = insert(hv, rule);
    hv_structure_lock_drop(&hv->structure);
    return error;
}
#endif

bool hv_inject_remove(struct hv *hv, const char *id)
{
    struct hv_injection *injection = atomic_load(&hv->injection);
    struct rule *r;

    if (!injection)
        return id == NULL;
    hv_inject_lock_take(&injection->lock);
    r = id ? find_rule(injection, id) : NULL;
    if (!id) {
        injection->count = 0;
    } else if (r) {
        injection->count--;
        memmove(r, r + 1, (size_t)(injection->rules + injection->count - r) * sizeof(*r));
    }
#ifndef HV_NO_INJECTION
    publish_points(hv, injection);
#endif
    hv_inject_lock_drop(&injection->lock);
    return !id || r;
}

size_t hv_list_injections(struct hv *hv, struct hv_injection_state *states, size_t max)
{
    struct hv_injection *injection = atomic_load(&hv->injection);
    size_t count = 0;

    if (!injection)
        return 0;
    hv_structure_lock_read(&hv->structure);
    hv_inject_lock_take(&injection->lock);
    for (; count < injection->count; count++) {
        const struct rule *r = &injection->rules[count];

        if (count < max)
            states[count] = (struct hv_injection_state){
                .rule = r->rule,
                .orphaned = !hv_find_partition(hv, r->rule.partition),
                .matched = r->matched,
                .injected = r->injected,
                .skipped = r->skipped,
            };
    }
    hv_inject_lock_drop(&injection->lock);
    hv_structure_lock_drop(&hv->structure);
    return count;
}

void hv_injection_free(struct hv *hv)
{
    struct hv_injection *injection = atomic_exchange(&hv->injection, NULL);

    if (!injection)
        return;
    free(injection);
}
