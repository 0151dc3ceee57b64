/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The object's properties. The switches come from the core's tables of privileges, features and recommendations.
 *
 * QEMU's schema (MicrosoftHypervisorProperties in the patched qapi/qom.json) has to name the same properties.
 */
#include "module.h"

#include "qapi/error.h"
#include "qapi/visitor.h"

/* -- Switches -- */

struct switch_row {
    unsigned kind, bit;
    unsigned generations;
    bool guest_default;
    const char *property, *description;
};

#define DEFAULT_IS_0 "off"
#define DEFAULT_IS_1 "on"
#define ONLY_HV_GEN_ALL ""
#define ONLY_HV_GEN_CURRENT ", only with interface=current"
#define ONLY_HV_GEN_2008R2 ", only with interface=2008r2"
#define SWITCH(kind_, word, bit_, name, property_, generations_, guest_default_, ...)                                  \
    {                                                                                                                  \
        .kind = kind_,                                                                                                 \
        .bit = bit_,                                                                                                   \
        .generations = generations_,                                                                                   \
        .guest_default = guest_default_,                                                                               \
        .property = property_,                                                                                         \
        .description = word " " #name " (default: " DEFAULT_IS_##guest_default_ ONLY_##generations_ ")",               \
    },

static const struct switch_row switch_rows[] = {
#define HV_PRIVILEGE_ROW(...) SWITCH(MSHV_PRIVILEGES, "privilege", __VA_ARGS__)
#include "tlfs/privileges.def"
#undef HV_PRIVILEGE_ROW
#define HV_FEATURE_ROW(...) SWITCH(MSHV_FEATURES, "feature", __VA_ARGS__)
#include "tlfs/features.def"
#undef HV_FEATURE_ROW
#define HV_RECOMMENDATION_ROW(...) SWITCH(MSHV_RECOMMENDATIONS, "recommendation", __VA_ARGS__)
#include "tlfs/recommendations.def"
#undef HV_RECOMMENDATION_ROW
};

static enum hv_generation generation_of(const MicrosoftHypervisor *s)
{
    return s->interface == MICROSOFT_HYPERVISOR_INTERFACE_2008R2 ? HV_GEN_2008R2 : HV_GEN_CURRENT;
}

static bool switch_is_on(const MicrosoftHypervisor *s, const struct switch_row *row)
{
    const struct mshv_switches *switches = &s->switches[row->kind];
    uint64_t bit = UINT64_C(1) << row->bit;

    if (switches->on & bit)
        return true;
    return row->guest_default && (row->generations & generation_of(s)) && !(switches->off & bit);
}

static void get_switch(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
    bool value = switch_is_on(MICROSOFT_HYPERVISOR(obj), opaque);

    visit_type_bool(v, name, &value, errp);
}

static bool may_be_set(const MicrosoftHypervisor *s, const char *name, Error **errp)
{
    if (x86_hypervisor != &s->parent_obj)
        return true;
    error_setg(errp, "property '%s' can only be set when the object is created", name);
    return false;
}

static void set_switch(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
    MicrosoftHypervisor *s = MICROSOFT_HYPERVISOR(obj);
    const struct switch_row *row = opaque;
    struct mshv_switches *switches = &s->switches[row->kind];
    uint64_t bit = UINT64_C(1) << row->bit;
    bool value;

    if (!may_be_set(s, name, errp) || !visit_type_bool(v, name, &value, errp))
        return;
    switches->on = value ? switches->on | bit : switches->on & ~bit;
    switches->off = value ? switches->off & ~bit : switches->off | bit;
}

/* -- Numbers -- */

struct number_row {
    const char *property, *description;
    uint64_t minimum, maximum;
};

static const struct number_row number_rows[MSHV_NUMBERS] = {
    [MSHV_TSC_FREQUENCY] = {"tsc-frequency",
                            "frequency of the guest's TSC in Hz (default: that of the host's, rounded to 1 MHz)",
                            10000001, UINT64_C(100000000000)},
    [MSHV_SPINLOCK_RETRIES] = {"spinlock-retries",
                               "how often to try a spinlock before HvNotifyLongSpinWait; 4294967295: never notify "
                               "(default: 4095)",
                               0, UINT32_MAX},
#define VERSION(word) word " in CPUID leaf 0x40000002 (default: that of the interface generation)"
    [MSHV_VERSION_MAJOR] = {"version-major", VERSION("major version"), 0, UINT16_MAX},
    [MSHV_VERSION_MINOR] = {"version-minor", VERSION("minor version"), 0, UINT16_MAX},
    [MSHV_VERSION_BUILD] = {"version-build", VERSION("build number"), 0, UINT32_MAX},
    [MSHV_VERSION_SERVICE_PACK] = {"version-service-pack", VERSION("service pack"), 0, UINT32_MAX},
    [MSHV_VERSION_SERVICE_BRANCH] = {"version-service-branch", VERSION("service branch"), 0, UINT8_MAX},
    [MSHV_VERSION_SERVICE_NUMBER] = {"version-service-number", VERSION("service number"), 0, 0xFFFFFF},
#undef VERSION
};

/* What holds now: of the core once there is one, else what the operator gave or the generation's default. */
static uint64_t number_of(const MicrosoftHypervisor *s, unsigned number)
{
    struct hv_config config;

    if (s->core)
        config = *hv_get_config(s->core);
    else
        mshv_make_config(s, &config);
    switch (number) {
    case MSHV_TSC_FREQUENCY:
        return s->core ? config.tsc_frequency : s->numbers[number].value;
    case MSHV_SPINLOCK_RETRIES:
        return config.spinlock_retries;
    case MSHV_VERSION_MAJOR:
        return config.major_version;
    case MSHV_VERSION_MINOR:
        return config.minor_version;
    case MSHV_VERSION_BUILD:
        return config.build_number;
    case MSHV_VERSION_SERVICE_PACK:
        return config.service_pack;
    case MSHV_VERSION_SERVICE_BRANCH:
        return config.service_branch;
    case MSHV_VERSION_SERVICE_NUMBER:
        return config.service_number;
    }
    g_assert_not_reached();
}

static void get_number(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
    uint64_t value = number_of(MICROSOFT_HYPERVISOR(obj), (unsigned)((const struct number_row *)opaque - number_rows));

    visit_type_uint64(v, name, &value, errp);
}

static void set_number(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
    MicrosoftHypervisor *s = MICROSOFT_HYPERVISOR(obj);
    const struct number_row *row = opaque;
    uint64_t value;

    if (!may_be_set(s, name, errp) || !visit_type_uint64(v, name, &value, errp))
        return;
    if (value < row->minimum || value > row->maximum) {
        error_setg(errp, "%s=%" PRIu64 " is out of range; it must be %" PRIu64 " to %" PRIu64, name, value,
                   row->minimum, row->maximum);
        return;
    }
    s->numbers[row - number_rows] = (struct mshv_number){.given = true, .value = value};
}

/* -- Choices -- */

#define CHOICE(Type, field)                                                                                            \
    static int get_##field(Object *obj, Error **errp)                                                                  \
    {                                                                                                                  \
        return MICROSOFT_HYPERVISOR(obj)->field;                                                                       \
    }                                                                                                                  \
    static void set_##field(Object *obj, int value, Error **errp)                                                      \
    {                                                                                                                  \
        MicrosoftHypervisor *s = MICROSOFT_HYPERVISOR(obj);                                                            \
                                                                                                                       \
        if (may_be_set(s, #field, errp))                                                                               \
            s->field = (Type)value;                                                                                    \
    }

CHOICE(MicrosoftHypervisorRole, role)
CHOICE(MicrosoftHypervisorInterface, interface)
CHOICE(MicrosoftHypervisorVpIndex, vp_index)
CHOICE(MicrosoftHypervisorCrash, crash)

static char *get_policy(Object *obj, Error **errp)
{
    return g_strdup(MICROSOFT_HYPERVISOR(obj)->policy ?: "none");
}

static void set_policy(Object *obj, const char *value, Error **errp)
{
    MicrosoftHypervisor *s = MICROSOFT_HYPERVISOR(obj);

    if (!may_be_set(s, "policy", errp) || !mshv_policy_check(value, errp))
        return;
    g_free(s->policy);
    s->policy = g_strdup(value);
}

static char *get_debug_chardev(Object *obj, Error **errp)
{
    return g_strdup(MICROSOFT_HYPERVISOR(obj)->debug_chardev ?: "");
}

static void set_debug_chardev(Object *obj, const char *value, Error **errp)
{
    MicrosoftHypervisor *s = MICROSOFT_HYPERVISOR(obj);

    if (!may_be_set(s, "debug-chardev", errp))
        return;
    g_free(s->debug_chardev);
    s->debug_chardev = g_strdup(value);
}

static void add_choices(ObjectClass *oc)
{
    object_class_property_add_enum(oc, "role", "MicrosoftHypervisorRole", &MicrosoftHypervisorRole_lookup, get_role,
                                   set_role);
    object_class_property_set_description(oc, "role",
                                          "what the machine is: guest, one enlightened partition (default), or root, "
                                          "which may create partitions of its own");
    object_class_property_add_enum(oc, "interface", "MicrosoftHypervisorInterface",
                                   &MicrosoftHypervisorInterface_lookup, get_interface, set_interface);
    object_class_property_set_description(oc, "interface",
                                          "generation of the interface: current (default) or 2008r2, "
                                          "which hides all that came later than TLFS 2.0a");
    object_class_property_add_enum(oc, "vp-index", "MicrosoftHypervisorVpIndex", &MicrosoftHypervisorVpIndex_lookup,
                                   get_vp_index, set_vp_index);
    object_class_property_set_description(oc, "vp-index", "what VPs are numbered by: cpu-index (default) or apic-id");
    object_class_property_add_enum(oc, "crash", "MicrosoftHypervisorCrash", &MicrosoftHypervisorCrash_lookup, get_crash,
                                   set_crash);
    object_class_property_set_description(oc, "crash",
                                          "when the guest reports a crash: report it (default), or also "
                                          "treat it as a guest panic (see -action panic=)");
    object_class_property_add_str(oc, "policy", get_policy, set_policy);
    object_class_property_set_description(oc, "policy",
                                          "who takes decisions the guest cannot see, with role=root: none, built-in "
                                          "defaults (default); default, the policy of the Python package qemu_hv; or "
                                          "FILE.py:CLASS");
    object_class_property_add_str(oc, "debug-chardev", get_debug_chardev, set_debug_chardev);
    object_class_property_set_description(oc, "debug-chardev",
                                          "ID of the character device by which a debugger outside talks to guests; "
                                          "switches debugging on (default: none)");
}

void mshv_add_properties(ObjectClass *oc)
{
    add_choices(oc);
    for (size_t i = 0; i < ARRAY_SIZE(number_rows); i++) {
        const struct number_row *row = &number_rows[i];

        object_class_property_add(oc, row->property, "uint64", get_number, set_number, NULL, (void *)row);
        object_class_property_set_description(oc, row->property, row->description);
    }
    for (size_t i = 0; i < ARRAY_SIZE(switch_rows); i++) {
        const struct switch_row *row = &switch_rows[i];

        object_class_property_add(oc, row->property, "bool", get_switch, set_switch, NULL, (void *)row);
        object_class_property_set_description(oc, row->property, row->description);
    }
}

bool mshv_check_properties(const MicrosoftHypervisor *s, Error **errp)
{
    for (size_t i = 0; i < ARRAY_SIZE(switch_rows); i++) {
        const struct switch_row *row = &switch_rows[i];

        if ((s->switches[row->kind].on >> row->bit & 1) && !(row->generations & generation_of(s))) {
            error_setg(errp, "%s=on is not part of interface=%s; remove one of them", row->property,
                       MicrosoftHypervisorInterface_str(s->interface));
            return false;
        }
    }
    return true;
}

static uint64_t apply(const MicrosoftHypervisor *s, unsigned kind, uint64_t defaults)
{
    return (defaults | s->switches[kind].on) & ~s->switches[kind].off;
}

static uint64_t number_or(const MicrosoftHypervisor *s, unsigned number, uint64_t otherwise)
{
    return s->numbers[number].given ? s->numbers[number].value : otherwise;
}

void mshv_make_config(const MicrosoftHypervisor *s, struct hv_config *config)
{
    if (mshv_is_root(s))
        hv_config_root_defaults(config, generation_of(s));
    else
        hv_config_defaults(config, generation_of(s));
    if (s->debug_chardev)
        config->privileges |= UINT64_C(1) << HV_PRIVILEGE_Debugging;
    config->privileges = apply(s, MSHV_PRIVILEGES, config->privileges);
    config->debugging = s->debug_chardev != NULL;
    config->features = (uint32_t)apply(s, MSHV_FEATURES, config->features);
    config->recommendations = (uint32_t)apply(s, MSHV_RECOMMENDATIONS, config->recommendations);
    config->spinlock_retries = (uint32_t)number_or(s, MSHV_SPINLOCK_RETRIES, config->spinlock_retries);
    config->major_version = (uint16_t)number_or(s, MSHV_VERSION_MAJOR, config->major_version);
    config->minor_version = (uint16_t)number_or(s, MSHV_VERSION_MINOR, config->minor_version);
    config->build_number = (uint32_t)number_or(s, MSHV_VERSION_BUILD, config->build_number);
    config->service_pack = (uint32_t)number_or(s, MSHV_VERSION_SERVICE_PACK, config->service_pack);
    config->service_branch = (uint8_t)number_or(s, MSHV_VERSION_SERVICE_BRANCH, config->service_branch);
    config->service_number = (uint32_t)number_or(s, MSHV_VERSION_SERVICE_NUMBER, config->service_number);
}
