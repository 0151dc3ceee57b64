/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP: the operator's hand on child partitions.
 *
 * A command that needs a VP to stop asks the core again and again; in between it lets go of the BQL, which the VP's
 * thread may need to leave the guest.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-types-microsoft-hypervisor-target.h"
#include "qapi/util.h"
#include "qemu/base64.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"

#include "qmp.h"
#include "qmp_partitions.h"

#define PATIENCE_NS (2 * NANOSECONDS_PER_SECOND)
#define INTERVAL_US 100
#define MAXIMUM_READ (1u << 20)

/* Whether a command that has to wait may ask once more. */
static bool may_ask_again(int64_t started)
{
    if (qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - started > PATIENCE_NS)
        return false;
    bql_unlock();
    g_usleep(INTERVAL_US);
    bql_lock();
    return true;
}

static void no_such_partition(uint64_t partition, Error **errp)
{
    error_setg(errp, "There is no child partition %" PRIu64 "; query-hv-partitions lists what there is", partition);
}

static void no_such_vp(uint64_t partition, uint32_t vp, Error **errp)
{
    error_setg(errp, "Partition %" PRIu64 " has no virtual processor %" PRIu32, partition, vp);
}

void microsoft_hypervisor_pause_partition(uint64_t partition, bool pause, Error **errp)
{
    if (!hv_operator_pause_partition(microsoft_hypervisor_core(), partition, pause))
        no_such_partition(partition, errp);
}

void microsoft_hypervisor_delete_partition(uint64_t partition, Error **errp)
{
    int64_t started = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    enum hv_progress progress;

    do {
        progress = hv_operator_delete_partition(microsoft_hypervisor_core(), partition);
    } while (progress == HV_PROGRESS_WAIT && may_ask_again(started));
    if (progress == HV_PROGRESS_FAILED)
        no_such_partition(partition, errp);
    else if (progress == HV_PROGRESS_WAIT)
        error_setg(errp, "The virtual processors of partition %" PRIu64 " cannot be stopped", partition);
}

static HvRegister *describe_register(const struct hv_register_entry *entry)
{
    HvRegister *description = g_new0(HvRegister, 1);

    description->name = g_strdup(entry->name);
    if (entry->size == 16)
        description->value =
            g_strdup_printf("%016" PRIx64 "%016" PRIx64, entry->value.reg128.high, entry->value.reg128.low);
    else
        description->value = g_strdup_printf("%016" PRIx64, entry->value.reg64);
    return description;
}

HvRegisterList *microsoft_hypervisor_query_registers(uint64_t partition, uint32_t vp, Error **errp)
{
    g_autofree struct hv_register_entry *entries = g_new0(struct hv_register_entry, HV_REGISTER_ROWS);
    int64_t started = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    HvRegisterList *list = NULL, **tail = &list;
    enum hv_progress progress;
    size_t count;

    do {
        count = HV_REGISTER_ROWS;
        progress = hv_operator_read_registers(microsoft_hypervisor_core(), partition, vp, entries, &count);
    } while (progress == HV_PROGRESS_WAIT && may_ask_again(started));
    if (progress == HV_PROGRESS_FAILED) {
        no_such_vp(partition, vp, errp);
        return NULL;
    }
    if (progress == HV_PROGRESS_WAIT) {
        error_setg(errp, "Virtual processor %" PRIu32 " of partition %" PRIu64 " cannot be stopped", vp, partition);
        return NULL;
    }
    for (size_t i = 0; i < count; i++)
        QAPI_LIST_APPEND(tail, describe_register(&entries[i]));
    return list;
}

HvMemory *microsoft_hypervisor_read_memory(uint64_t partition, uint64_t gpa, uint32_t size, Error **errp)
{
    g_autofree uint8_t *buffer = NULL;
    size_t length = size;
    HvMemory *memory;

    if (size > MAXIMUM_READ) {
        error_setg(errp, "'size' is %" PRIu32 ", more than the %u bytes that can be read at once", size, MAXIMUM_READ);
        return NULL;
    }
    buffer = g_malloc(size ? size : 1);
    if (!hv_operator_read_memory(microsoft_hypervisor_core(), partition, gpa, buffer, &length)) {
        error_setg(errp, "There is no partition %" PRIu64, partition);
        return NULL;
    }
    memory = g_new0(HvMemory, 1);
    memory->gpa = gpa;
    memory->data = g_base64_encode(buffer, length);
    return memory;
}

void microsoft_hypervisor_inject_interrupt(uint64_t partition, uint32_t vp, uint8_t vector, Error **errp)
{
    if (vector < 16)
        error_setg(errp, "Vector %u belongs to exceptions; use 16 to 255", vector);
    else if (!hv_operator_interrupt(microsoft_hypervisor_core(), partition, vp, vector))
        no_such_vp(partition, vp, errp);
}
