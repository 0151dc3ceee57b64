/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the operator does to child partitions from outside: pause, look, interrupt. The partition's parent takes no
 * part. Deletion is in partition.c, ports are in port.c.
 */
#include "internal.h"

#include <string.h>

/* Pausing is a bit of its own, so that it neither shows in nor undoes what the parent does with suspend registers. */
static void pause_vps(struct hv_partition *partition, bool pause)
{
    for (hv_vp_index i = 0; i < partition->vp_limit; i++) {
        struct hv_vp *vp = partition->vps[i];

        if (!vp)
            continue;
        if (pause)
            hv_vp_set_suspend(vp, HV_SUSPEND_OPERATOR);
        else
            hv_vp_clear_suspend(vp, HV_SUSPEND_OPERATOR);
    }
}

bool hv_operator_pause_partition(struct hv *hv, hv_partition_id id, bool pause)
{
    struct hv_partition *partition;
    bool found;

    hv_structure_lock_write(&hv->structure); /* no VP comes into being meanwhile */
    partition = hv_find_partition(hv, id);
    found = partition && partition->parent;
    if (found) {
        atomic_store(&partition->paused, pause);
        pause_vps(partition, pause);
    }
    hv_structure_lock_drop(&hv->structure);
    return found;
}

/* Structure lock held. */
static struct hv_vp *find_vp(struct hv *hv, hv_partition_id id, hv_vp_index index)
{
    const struct hv_partition *partition = hv_find_partition(hv, id);

    return partition ? hv_partition_vp(partition, index) : NULL;
}

enum hv_progress hv_operator_read_registers(struct hv *hv, hv_partition_id id, hv_vp_index index,
                                            struct hv_register_entry *entries, size_t *count)
{
    enum hv_progress progress = HV_PROGRESS_FAILED;
    struct hv_vp *vp;

    hv_structure_lock_read(&hv->structure);
    vp = find_vp(hv, id, index);
    if (vp && vp->lapic) {
        progress = HV_PROGRESS_WAIT;
        if (hv_vp_acquire(NULL, vp)) {
            hv_vp_read_all_registers(vp, entries, count);
            hv_vp_release(NULL, vp);
            progress = HV_PROGRESS_DONE;
        }
    }
    hv_structure_lock_drop(&hv->structure);
    return progress;
}

bool hv_operator_interrupt(struct hv *hv, hv_partition_id id, hv_vp_index index, uint8_t vector)
{
    struct hv_vp *vp;

    hv_structure_lock_read(&hv->structure);
    vp = find_vp(hv, id, index);
    hv_structure_lock_drop(&hv->structure);
    if (vp)
        hv_interrupt_request(vp, vector); /* harmless when it has been deleted since: it is in the pool then */
    return vp;
}

bool hv_operator_read_memory(struct hv *hv, hv_partition_id id, hv_gpa gpa, void *buffer, size_t *size)
{
    struct hv_partition *partition;
    size_t done = 0;

    hv_structure_lock_read(&hv->structure);
    partition = hv_find_partition(hv, id);
    while (partition && done < *size && gpa < hv->gpa_limit) {
        size_t part = HV_PAGE_SIZE - (size_t)(gpa & ~HV_PAGE_MASK);

        if (part > *size - done)
            part = *size - done;
        if (hv_partition_read_gpa(partition, gpa, (uint8_t *)buffer + done, part) != HV_GPA_OK)
            break;
        done += part;
        gpa += part;
    }
    hv_structure_lock_drop(&hv->structure);
    *size = done;
    return partition;
}
