/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP: rules of fault injection, with the names of what they match.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-types-hypervisor-inject-target.h"
#include "qapi/util.h"
#include "qemu/cutils.h"
#include "target/i386/hypervisor-inject-qmp.h"

#include "qmp.h"
#include "qmp_inject.h"

#define DEFAULT_DELAY_US 1000

struct name {
    uint64_t value;
    const char *name;
};

static const struct name message_types[] = {
#define HV_MESSAGE_TYPE_ROW(value, name, ...) {value, #name},
#include "tlfs/message_types.def"
#undef HV_MESSAGE_TYPE_ROW
};

static const struct name statuses[] = {
#define HV_STATUS_ROW(value, name, generations) {value, "HV_STATUS_" #name},
#include "tlfs/status.def"
#undef HV_STATUS_ROW
};

static const enum hv_inject_point points[] = {
    [QAPI_HV_INJECT_POINT_HYPERCALL] = HV_INJECT_HYPERCALL, [QAPI_HV_INJECT_POINT_MSR_READ] = HV_INJECT_MSR_READ,
    [QAPI_HV_INJECT_POINT_MSR_WRITE] = HV_INJECT_MSR_WRITE, [QAPI_HV_INJECT_POINT_MESSAGE] = HV_INJECT_MESSAGE,
    [QAPI_HV_INJECT_POINT_EVENT] = HV_INJECT_EVENT,         [QAPI_HV_INJECT_POINT_TIMER] = HV_INJECT_TIMER,
};

static const enum hv_inject_action actions[] = {
    [QAPI_HV_INJECT_ACTION_STATUS] = HV_INJECT_STATUS,   [QAPI_HV_INJECT_ACTION_GP] = HV_INJECT_GP,
    [QAPI_HV_INJECT_ACTION_UD] = HV_INJECT_UD,           [QAPI_HV_INJECT_ACTION_DELAY] = HV_INJECT_DELAY,
    [QAPI_HV_INJECT_ACTION_DROP] = HV_INJECT_DROP,       [QAPI_HV_INJECT_ACTION_DOUBLE] = HV_INJECT_DOUBLE,
    [QAPI_HV_INJECT_ACTION_REORDER] = HV_INJECT_REORDER,
};

/* -- Names and numbers -- */

static bool find(const struct name *names, size_t count, const char *text, uint64_t *value)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i].name, text) == 0) {
            *value = names[i].value;
            return true;
        }
    }
    return false;
}

static const char *name_of(const struct name *names, size_t count, uint64_t value)
{
    for (size_t i = 0; i < count; i++) {
        if (names[i].value == value)
            return names[i].name;
    }
    return NULL;
}

static enum hv_generation generation(void)
{
    return hv_get_config(microsoft_hypervisor_core())->generation;
}

static const struct hv_hypercall_row_info *hypercall_row(unsigned row)
{
    return hv_hypercall_rows[row].generations & generation() ? &hv_hypercall_rows[row] : NULL;
}

static bool find_hypercall(const char *text, uint64_t *code)
{
    for (unsigned i = 0; i < HV_HYPERCALL_ROWS; i++) {
        if (hypercall_row(i) && strcmp(hypercall_row(i)->name, text) == 0) {
            *code = hypercall_row(i)->code;
            return true;
        }
    }
    return false;
}

/* A register of a family is named with its number: SINT2, STIMER1, CRASH_P0. */
static bool find_msr(const char *text, uint64_t *index)
{
    for (unsigned i = 0; i < HV_MSR_ROWS; i++) {
        const struct hv_msr_row_info *row = &hv_msr_rows[i];
        const char *rest;
        unsigned number = 0;

        if (!(row->generations & generation()) || !strstart(text, row->name, &rest))
            continue;
        if (row->count == 1 ? *rest : (!*rest || qemu_strtoui(rest, NULL, 10, &number) || number >= row->count))
            continue;
        *index = row->index + number;
        return true;
    }
    return false;
}

static bool find_name(const HvInjectRule *rule, uint64_t *target)
{
    switch (rule->point) {
    case QAPI_HV_INJECT_POINT_HYPERCALL:
        return find_hypercall(rule->target, target);
    case QAPI_HV_INJECT_POINT_MSR_READ:
    case QAPI_HV_INJECT_POINT_MSR_WRITE:
        return find_msr(rule->target, target);
    case QAPI_HV_INJECT_POINT_MESSAGE:
        return find(message_types, ARRAY_SIZE(message_types), rule->target, target);
    default:
        return false;
    }
}

static bool is_number(const char *text, uint64_t maximum, uint64_t *value)
{
    return qemu_strtou64(text, NULL, 0, value) == 0 && *value <= maximum && text[0] != '-';
}

/* -- From QMP to the core -- */

static bool take_target(const HvInjectRule *rule, struct hv_inject_rule *out, Error **errp)
{
    out->target = HV_INJECT_ANY;
    if (!rule->target || is_number(rule->target, UINT32_MAX, &out->target) || find_name(rule, &out->target))
        return true;
    error_setg(errp, "Rule '%s': '%s' is neither a number nor the name of %s", rule->id, rule->target,
               rule->point == QAPI_HV_INJECT_POINT_HYPERCALL ? "a hypercall"
               : rule->point == QAPI_HV_INJECT_POINT_MESSAGE ? "a message type"
               : rule->point == QAPI_HV_INJECT_POINT_EVENT   ? "anything: event flags have numbers"
               : rule->point == QAPI_HV_INJECT_POINT_TIMER   ? "anything: timers have numbers"
                                                             : "an MSR");
    return false;
}

static bool take_when(const HvInjectRule *rule, struct hv_inject_rule *out, Error **errp)
{
    if (rule->has_nth + rule->has_every + rule->has_fraction > 1) {
        error_setg(errp, "Rule '%s': only one of 'nth', 'every' and 'fraction' can be given", rule->id);
        return false;
    }
    if (rule->has_seed && !rule->has_fraction) {
        error_setg(errp, "Rule '%s': 'seed' belongs to 'fraction'", rule->id);
        return false;
    }
    if (rule->has_limit && !rule->limit) {
        error_setg(errp, "Rule '%s': 'limit' must be at least 1", rule->id);
        return false;
    }
    out->when = rule->has_nth        ? HV_INJECT_NTH
                : rule->has_every    ? HV_INJECT_EVERY
                : rule->has_fraction ? HV_INJECT_FRACTION
                                     : HV_INJECT_ALWAYS;
    out->number = rule->has_nth ? rule->nth : rule->every;
    out->fraction = rule->fraction;
    out->seed = rule->seed;
    out->limit = rule->limit;
    return true;
}

static bool take_status(const HvInjectRule *rule, struct hv_inject_rule *out, Error **errp)
{
    uint64_t value = 0;

    if (!rule->status != (rule->action != QAPI_HV_INJECT_ACTION_STATUS)) {
        error_setg(errp, "Rule '%s': 'status' and the action 'status' belong together", rule->id);
        return false;
    }
    if (rule->status && !is_number(rule->status, UINT16_MAX, &value) &&
        !find(statuses, ARRAY_SIZE(statuses), rule->status, &value)) {
        error_setg(errp, "Rule '%s': '%s' is neither a number up to 0xFFFF nor the name of a status", rule->id,
                   rule->status);
        return false;
    }
    out->status = (uint16_t)value;
    return true;
}

static bool is_late(HvInjectAction action)
{
    return action == QAPI_HV_INJECT_ACTION_DELAY || action == QAPI_HV_INJECT_ACTION_DOUBLE ||
           action == QAPI_HV_INJECT_ACTION_REORDER;
}

static bool take_rule(const HvInjectRule *rule, struct hv_inject_rule *out, Error **errp)
{
    if (strlen(rule->id) >= sizeof(out->id)) {
        error_setg(errp, "'id' is longer than %zu bytes", sizeof(out->id) - 1);
        return false;
    }
    if (rule->has_delay && !is_late(rule->action)) {
        error_setg(errp, "Rule '%s': 'delay' belongs to the actions 'delay', 'double' and 'reorder'", rule->id);
        return false;
    }
    strcpy(out->id, rule->id);
    out->point = points[rule->point];
    out->action = actions[rule->action];
    out->partition = rule->has_partition ? rule->partition : HV_PARTITION_ID_MACHINE;
    out->vp = rule->has_vp ? rule->vp : HV_ANY_VP;
    out->delay_us = rule->has_delay ? rule->delay : is_late(rule->action) ? DEFAULT_DELAY_US : 0;
    return take_target(rule, out, errp) && take_when(rule, out, errp) && take_status(rule, out, errp);
}

static void add(const HvInjectRule *rule, Error **errp)
{
    struct hv_inject_rule taken = {0};
    const char *error;

    if (!take_rule(rule, &taken, errp))
        return;
    error = hv_inject_add(microsoft_hypervisor_core(), &taken);
    if (error)
        error_setg(errp, "Rule '%s' (%s at %s): %s", rule->id, HvInjectAction_str(rule->action),
                   HvInjectPoint_str(rule->point), error);
}

static void remove_rule(const char *id, Error **errp)
{
    if (!hv_inject_remove(microsoft_hypervisor_core(), id))
        error_setg(errp, "There is no rule '%s'; query-hv-injections lists what there is", id);
}

/* -- And back -- */

static char *describe_msr(uint64_t index)
{
    for (unsigned i = 0; i < HV_MSR_ROWS; i++) {
        const struct hv_msr_row_info *row = &hv_msr_rows[i];

        if ((row->generations & generation()) && index >= row->index && index - row->index < row->count)
            return row->count == 1 ? g_strdup(row->name)
                                   : g_strdup_printf("%s%u", row->name, (unsigned)(index - row->index));
    }
    return NULL;
}

static char *describe_hypercall(uint64_t code)
{
    for (unsigned i = 0; i < HV_HYPERCALL_ROWS; i++) {
        if (hypercall_row(i) && hypercall_row(i)->code == code)
            return g_strdup(hypercall_row(i)->name);
    }
    return NULL;
}

static char *describe_target(const struct hv_inject_rule *rule)
{
    char *text = NULL;

    if (rule->target == HV_INJECT_ANY)
        return NULL;
    if (rule->point == HV_INJECT_HYPERCALL)
        text = describe_hypercall(rule->target);
    else if (rule->point == HV_INJECT_MSR_READ || rule->point == HV_INJECT_MSR_WRITE)
        text = describe_msr(rule->target);
    else if (rule->point == HV_INJECT_MESSAGE)
        text = g_strdup(name_of(message_types, ARRAY_SIZE(message_types), rule->target));
    return text ?: g_strdup_printf("%" PRIu64, rule->target);
}

static char *describe_status(uint16_t status)
{
    const char *name = name_of(statuses, ARRAY_SIZE(statuses), status);

    return name ? g_strdup(name) : g_strdup_printf("0x%x", status);
}

static HvInjectRule *describe_rule(const struct hv_inject_rule *rule)
{
    HvInjectRule *out = g_new0(HvInjectRule, 1);

    out->id = g_strdup(rule->id);
    while (points[out->point] != rule->point)
        out->point++;
    while (actions[out->action] != rule->action)
        out->action++;
    out->target = describe_target(rule);
    out->has_partition = true;
    out->partition = rule->partition;
    out->has_vp = rule->vp != HV_ANY_VP;
    out->vp = rule->vp;
    out->has_nth = rule->when == HV_INJECT_NTH;
    out->has_every = rule->when == HV_INJECT_EVERY;
    out->nth = out->every = rule->number;
    out->has_fraction = out->has_seed = rule->when == HV_INJECT_FRACTION;
    out->fraction = rule->fraction;
    out->seed = rule->seed;
    out->has_limit = rule->limit;
    out->limit = rule->limit;
    out->status = rule->action == HV_INJECT_STATUS ? describe_status(rule->status) : NULL;
    out->has_delay = rule->delay_us;
    out->delay = rule->delay_us;
    return out;
}

static HvInjectionList *query(Error **errp)
{
    struct hv *hv = microsoft_hypervisor_core();
    size_t count = hv_list_injections(hv, NULL, 0);
    g_autofree struct hv_injection_state *states = g_new0(struct hv_injection_state, count);
    HvInjectionList *list = NULL, **tail = &list;

    count = MIN(count, hv_list_injections(hv, states, count));
    for (size_t i = 0; i < count; i++) {
        HvInjection *injection = g_new0(HvInjection, 1);

        *injection = (HvInjection){
            .rule = describe_rule(&states[i].rule),
            .orphaned = states[i].orphaned,
            .matched = states[i].matched,
            .injected = states[i].injected,
            .skipped = states[i].skipped,
        };
        QAPI_LIST_APPEND(tail, injection);
    }
    return list;
}

void microsoft_hypervisor_qmp_inject_register(void)
{
    static const X86HypervisorInjectQMPOps ops = {.add = add, .remove = remove_rule, .query = query};

    x86_hypervisor_set_inject_qmp_ops(&ops);
}
