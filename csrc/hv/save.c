/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 17: HvSavePartitionState and HvRestorePartitionState. docs/save-restore.md has the format of the stream.
 *
 * A stream is made whole when a save begins, so it is of one moment, and is handed out in chunks. What is presented to
 * a restore is collected, and looked at when it is whole: a stream that is damaged or does not fit changes nothing. One
 * that lies in spite of sound checksums is found out while it is read; then the VPs are as after HvCreateVp.
 *
 * Everything runs under the structure lock held for writing, and owns the VPs meanwhile. The functions that walk a
 * part of the state are those of the machine's snapshots (stream.h).
 */
#include "lapic.h"
#include "save.h"

#include <stdlib.h>

#define FLAG_START 1u
#define FLAG_SUMMARY 2u
#define MAX_CHUNK 4080u

static uint32_t checksum_of(uint32_t checksum, const void *data, size_t size)
{
    const uint8_t *bytes = data;

    checksum = ~checksum;
    for (size_t i = 0; i < size; i++) {
        static const uint32_t nibbles[16] = {
            0x00000000, 0x105EC76F, 0x20BD8EDE, 0x30E349B1, 0x417B1DBC, 0x5125DAD3, 0x61C69362, 0x7198540D,
            0x82F63B78, 0x92A8FC17, 0xA24BB5A6, 0xB21572C9, 0xC38D26C4, 0xD3D3E1AB, 0xE330A81A, 0xF36E6F75,
        };

        checksum = nibbles[(checksum ^ bytes[i]) & 0xF] ^ checksum >> 4;
        checksum = nibbles[(checksum ^ bytes[i] >> 4) & 0xF] ^ checksum >> 4;
    }
    return ~checksum;
}

static uint32_t head_checksum(const struct head *head)
{
    return checksum_of(0, head, offsetof(struct head, checksum));
}

static uint32_t section_checksum(const struct section_head *head, const uint8_t *content)
{
    uint32_t checksum = checksum_of(0, head, offsetof(struct section_head, checksum));

    return checksum_of(checksum, content, head->length);
}

/* -- Life of a transfer -- */

static void drop(struct hv_transfer **place)
{
    struct hv_transfer *transfer = *place;

    if (!transfer)
        return;
    hv_pool_release(transfer->payer, transfer->pages);
    free(transfer->data);
    free(transfer);
    *place = NULL;
}

void hv_transfers_free(struct hv_partition *partition)
{
    drop(&partition->transfer);
    drop(&partition->system_transfer);
}

static hv_status allocate(struct hv_transfer *transfer, uint64_t size)
{
    uint64_t pages = (size + HV_PAGE_SIZE - 1) / HV_PAGE_SIZE * HV_COST_StreamPage;

    if (!hv_pool_charge(transfer->payer, pages))
        return HV_STATUS_INSUFFICIENT_MEMORY;
    transfer->pages = pages;
    transfer->size = size;
    transfer->data = malloc(size);
    return transfer->data ? HV_STATUS_SUCCESS : HV_STATUS_INSUFFICIENT_MEMORY;
}

/* -- What both calls look at -- */

struct transfer_input {
    hv_partition_id partition;
    uint32_t flags;
    uint32_t count; /* HvRestorePartitionState only */
    uint8_t data[];
};

struct transfer_output {
    uint32_t state, count;
    uint8_t data[]; /* HvSavePartitionState only */
};

static bool is_of_system(const struct hv_call *call)
{
    const struct transfer_input *in = call->input;

    return in->partition == HV_PARTITION_ID_INVALID;
}

static struct hv_transfer **place_of(const struct hv_call *call)
{
    return is_of_system(call) ? &call->partition->system_transfer : &call->partition->transfer;
}

static bool all_are_suspended(const struct hv_partition *partition)
{
    for (hv_vp_index i = 0, left = partition->vp_count; left; i++) {
        if (!partition->vps[i])
            continue;
        if (!(atomic_load(&partition->vps[i]->suspend) & HV_SUSPEND_EXPLICIT))
            return false;
        left--;
    }
    return true;
}

static hv_status check(const struct hv_call *call, bool restoring)
{
    const struct transfer_input *in = call->input;
    bool summary = in->flags & FLAG_SUMMARY;

    if (is_of_system(call)) {
        if (!summary)
            return HV_STATUS_INVALID_PARTITION_ID; /* a system has a summary only */
        if (!call->partition->second_stage)
            return HV_STATUS_ACCESS_DENIED; /* role=guest: it never is a parent */
        return in->flags & ~(FLAG_START | FLAG_SUMMARY) ? HV_STATUS_INVALID_PARAMETER : HV_STATUS_SUCCESS;
    }
    if (!hv_partition_is_active(call->partition))
        return HV_STATUS_INVALID_PARTITION_STATE;
    if (in->flags & ~(FLAG_START | FLAG_SUMMARY))
        return HV_STATUS_INVALID_PARAMETER;
    if ((restoring || !summary) && !all_are_suspended(call->partition))
        return HV_STATUS_OPERATION_DENIED;
    return HV_STATUS_SUCCESS;
}

/* What was begun and goes on, or what begins now. */
static hv_status find_transfer(const struct hv_call *call, bool restoring, struct hv_transfer **found)
{
    const struct transfer_input *in = call->input;
    struct hv_transfer **place = place_of(call);
    bool summary = in->flags & FLAG_SUMMARY;

    if (in->flags & FLAG_START) {
        drop(place);
        *place = calloc(1, sizeof(**place));
        if (!*place)
            return HV_STATUS_INSUFFICIENT_MEMORY;
        **place = (struct hv_transfer){.restoring = restoring, .summary = summary, .payer = call->vp->partition};
    }
    *found = *place;
    if (!*found || (*found)->restoring != restoring || (*found)->summary != summary)
        return HV_STATUS_INVALID_SAVE_RESTORE_STATE;
    return HV_STATUS_SUCCESS;
}

/* Own all VPs; false: one is still on its way out of the guest. */
static bool acquire_vps(struct hv_vp *caller, struct hv_partition *partition, bool acquire)
{
    for (hv_vp_index i = 0; i < partition->vp_limit; i++) {
        if (!partition->vps[i])
            continue;
        if (!acquire) {
            hv_vp_release(caller, partition->vps[i]);
        } else if (!hv_vp_acquire(caller, partition->vps[i])) {
            while (i-- > 0) {
                if (partition->vps[i])
                    hv_vp_release(caller, partition->vps[i]);
            }
            return false;
        }
    }
    return true;
}

/* -- Contents of the sections, for both directions -- */

/* What the processor has beside its registers. */
static void stream_activity(struct hv_stream *s, struct hv_activity *activity)
{
    hv_stream_u32(s, &activity->flags);
    hv_stream_u32(s, &activity->start_vector);
    hv_stream_u64(s, &activity->tsc_aux);
    hv_stream_u64(s, &activity->mcg_status);
    if (hv_stream_reading(s) && ((activity->flags & ~HV_ACTIVITY_ALL) || activity->start_vector > UINT8_MAX))
        hv_stream_fail(s, "the saved state of a virtual processor has an impossible activity");
}

/* Timers that have expired may still post messages. */
static void stream_vp(struct hv_stream *s, struct hv_vp *vp)
{
    hv_vp_lock_take(&vp->lock);
    hv_state_vp(s, vp);
    hv_vp_lock_drop(&vp->lock);
}

/* The clocks of a partition's state: what the machine's TSC and the partition's reference time were. */
struct moment {
    uint64_t tsc;
    hv_nano100_time reference_time;
};

#define LATEST_TIME (UINT64_C(1) << 62) /* 14000 years: sums of times do not overflow */

static void stream_partition(struct hv_stream *s, struct hv_partition *partition, struct moment *moment)
{
    hv_stream_u64(s, &moment->tsc);
    hv_stream_u64(s, &moment->reference_time);
    hv_state_partition_registers(s, partition);
    hv_stream_u32(s, &partition->tsc_sequence);
    hv_stream_u64(s, &partition->emulated_timer_due);
    if (hv_stream_reading(s) && moment->reference_time >= LATEST_TIME)
        hv_stream_fail(s, "the saved state has an impossible reference time");
}

/* -- Saving -- */

static void describe_system(const struct hv *hv, struct summary *summary)
{
    *summary = (struct summary){
        .generation = hv->config.generation,
        .intel = hv->config.intel,
        .processor_features = hv->config.processor_features,
        .xsave_features = hv->config.xsave_features,
        .clflush_size = hv->config.clflush_size,
        .gpa_bits = hv->config.gpa_bits,
        .tsc_frequency = hv->config.tsc_frequency,
        .apic_frequency = hv->config.apic_frequency,
    };
}

static void describe_partition(const struct hv_partition *partition, struct summary *summary)
{
    describe_system(partition->hv, summary);
    summary->partition_features = partition->properties.processor_features;
    summary->partition_xsave_features = partition->properties.xsave_features;
    summary->partition_clflush_size = partition->properties.clflush_size;
    summary->vps = partition->all_vps;
}

/* Where a section begins, whose head is written when its length is known. */
size_t hv_section_begin(struct hv_stream *s)
{
    size_t start = s->position;
    struct section_head head = {0};

    hv_stream_bytes(s, &head, sizeof(head));
    return start;
}

void hv_section_end(struct hv_stream *s, size_t start, uint32_t tag, uint32_t index)
{
    struct section_head head = {.tag = tag, .index = index};

    if (!s->write || s->error)
        return;
    head.length = (uint32_t)(s->position - start - sizeof(head));
    head.checksum = section_checksum(&head, s->write + start + sizeof(head));
    memcpy(s->write + start, &head, sizeof(head));
}

static void write_vp(struct hv_stream *s, struct hv_vp *vp)
{
    struct hv_activity activity = {0};
    size_t start = hv_section_begin(s);

    vp->hv->ops->get_activity(vp->hv->context, vp->handle, &activity);
    stream_activity(s, &activity);
    hv_state_registers(s, vp);
    hv_section_end(s, start, TAG_PROCESSOR, vp->index);
    start = hv_section_begin(s);
    stream_vp(s, vp);
    hv_section_end(s, start, TAG_VP, vp->index);
}

void hv_write_partition(struct hv_stream *s, struct hv_partition *partition)
{
    struct moment moment = {hv_machine_tsc(partition->hv), hv_partition_time(partition)};
    size_t start = hv_section_begin(s);

    stream_partition(s, partition, &moment);
    hv_section_end(s, start, TAG_PARTITION, 0);
    for (hv_vp_index i = 0; i < partition->vp_limit; i++) {
        if (partition->vps[i])
            write_vp(s, partition->vps[i]);
    }
}

void hv_write_summary(struct hv_stream *s, const struct hv_partition *partition, enum stream_kind kind, size_t length)
{
    struct head head = {.magic = STREAM_MAGIC, .version = STREAM_VERSION, .kind = kind, .length = length};
    struct summary summary;
    size_t start;

    head.checksum = head_checksum(&head);
    hv_stream_bytes(s, &head, sizeof(head));
    start = hv_section_begin(s);
    if (kind == KIND_SYSTEM_SUMMARY)
        describe_system(partition->hv, &summary);
    else
        describe_partition(partition, &summary);
    hv_stream_bytes(s, &summary, sizeof(summary));
    hv_section_end(s, start, TAG_SUMMARY, 0);
}

static void write_stream(struct hv_stream *s, struct hv_partition *partition, enum stream_kind kind, size_t length)
{
    hv_write_summary(s, partition, kind, length);
    if (kind == KIND_PARTITION)
        hv_write_partition(s, partition);
}

/* Counting stores every value back unchanged. */
static hv_status make_stream(struct hv_transfer *transfer, struct hv_partition *partition, enum stream_kind kind)
{
    struct hv_stream counting = {.alone = true}, s = {.alone = true};
    hv_status status;

    write_stream(&counting, partition, kind, 0);
    status = allocate(transfer, counting.position);
    if (status != HV_STATUS_SUCCESS)
        return status;
    s.write = transfer->data;
    s.size = transfer->size;
    write_stream(&s, partition, kind, transfer->size);
    return s.error || s.position != s.size ? HV_STATUS_WAIT : HV_STATUS_SUCCESS; /* a timer came in between */
}

static hv_status begin_save(struct hv_call *call, struct hv_transfer *transfer)
{
    enum stream_kind kind = is_of_system(call)  ? KIND_SYSTEM_SUMMARY
                            : transfer->summary ? KIND_PARTITION_SUMMARY
                                                : KIND_PARTITION;
    hv_status status;

    if (kind == KIND_PARTITION && !acquire_vps(call->vp, call->partition, true))
        return HV_STATUS_WAIT;
    status = make_stream(transfer, call->partition, kind);
    if (kind == KIND_PARTITION)
        acquire_vps(call->vp, call->partition, false);
    return status;
}

/* TLFS 17.3.1 */
hv_status hv_call_save_partition_state(struct hv_call *call)
{
    struct transfer_output *out = call->output;
    struct hv_transfer *transfer;
    hv_status status = check(call, false);

    if (status == HV_STATUS_SUCCESS)
        status = find_transfer(call, false, &transfer);
    if (status != HV_STATUS_SUCCESS)
        return status;
    if (!transfer->data) {
        status = begin_save(call, transfer);
        if (status != HV_STATUS_SUCCESS) {
            drop(place_of(call));
            return status;
        }
    }
    out->count = (uint32_t)(transfer->size - transfer->position);
    if (out->count > MAX_CHUNK)
        out->count = MAX_CHUNK;
    memcpy(out->data, transfer->data + transfer->position, out->count);
    transfer->position += out->count;
    out->state = transfer->position < transfer->size ? STATE_INCOMPLETE : STATE_COMPLETE;
    if (out->state == STATE_COMPLETE)
        drop(place_of(call));
    return HV_STATUS_SUCCESS;
}

/* -- Restoring: whether it fits -- */

static unsigned feature_mismatch(uint64_t missing)
{
    unsigned bit = (unsigned)__builtin_ctzll(missing);

    return STATE_FIRST_FEATURE_MISMATCH + bit < STATE_CLFLUSH_SIZE_MISMATCH ? STATE_FIRST_FEATURE_MISMATCH + bit
                                                                            : STATE_PROCESSOR_FEATURE_MISMATCH;
}

static unsigned xsave_mismatch(uint64_t missing)
{
    static const uint8_t states[] = {STATE_XSAVE_MISMATCH, STATE_XSAVEOPT_MISMATCH, STATE_XSAVE_AVX_MISMATCH};
    unsigned bit = (unsigned)__builtin_ctzll(missing);

    return bit < sizeof(states) ? states[bit] : STATE_XSAVE_UNKNOWN_MISMATCH;
}

/* What the state may use must be there; more does no harm. */
static unsigned check_features(uint64_t features, uint64_t xsave, uint64_t clflush, uint64_t has, uint64_t has_xsave,
                               uint64_t has_clflush)
{
    if (features & ~has)
        return feature_mismatch(features & ~has);
    if (xsave & ~has_xsave)
        return xsave_mismatch(xsave & ~has_xsave);
    return clflush == has_clflush ? STATE_RESTORABLE : STATE_CLFLUSH_SIZE_MISMATCH;
}

/* A guest has been told the frequency and is not told that it changed: less than clocks of hardware drift, then. */
#define FREQUENCY_TOLERANCE 2000 /* one in so many */

static bool frequencies_agree(uint64_t a, uint64_t b)
{
    return (a > b ? a - b : b - a) <= b / FREQUENCY_TOLERANCE;
}

static unsigned check_system(const struct hv *hv, const struct summary *summary, bool of_partition)
{
    const struct hv_config *config = &hv->config;

    if (summary->generation != config->generation)
        return STATE_UNSUPPORTED_VERSION;
    if (summary->intel != config->intel)
        return STATE_INCOMPATIBLE_PROCESSOR;
    if (summary->gpa_bits > config->gpa_bits || !frequencies_agree(summary->tsc_frequency, config->tsc_frequency) ||
        summary->apic_frequency != config->apic_frequency)
        return STATE_HARDWARE_FEATURE_MISMATCH;
    if (of_partition)
        return check_features(summary->partition_features, summary->partition_xsave_features,
                              summary->partition_clflush_size, config->processor_features, config->xsave_features,
                              config->clflush_size);
    return check_features(summary->processor_features, summary->xsave_features, summary->clflush_size,
                          config->processor_features, config->xsave_features, config->clflush_size);
}

static unsigned check_vps(const struct hv_partition *partition, const struct summary *summary)
{
    uint32_t count = 0;
    bool same = true;

    for (unsigned i = 0; i < HV_VP_BANKS; i++) {
        count += (uint32_t)__builtin_popcountll(summary->vps.bank[i]);
        same &= summary->vps.bank[i] == partition->all_vps.bank[i];
    }
    if (count != partition->vp_count)
        return STATE_PROCESSOR_COUNT_MISMATCH;
    if (!same)
        return STATE_PROCESSOR_INDEX_MISMATCH;
    return summary->vp_flags ? STATE_PROCESSOR_FLAGS_MISMATCH : STATE_RESTORABLE; /* HvCreateVp knows none */
}

static unsigned check_partition(const struct hv_partition *partition, const struct summary *summary)
{
    const struct hv_partition_properties *properties = &partition->properties;
    unsigned state = check_vps(partition, summary);

    if (state != STATE_RESTORABLE)
        return state;
    return check_features(summary->partition_features, summary->partition_xsave_features,
                          summary->partition_clflush_size, properties->processor_features, properties->xsave_features,
                          properties->clflush_size);
}

unsigned hv_check_summary(const struct hv *hv, const struct hv_partition *partition, const struct hv_transfer *transfer)
{
    bool of_partition = transfer->head.kind != KIND_SYSTEM_SUMMARY;
    struct section_head head;
    struct summary summary;
    unsigned state;

    memcpy(&head, transfer->data + sizeof(struct head), sizeof(head));
    memcpy(&summary, transfer->data + sizeof(struct head) + sizeof(head), sizeof(summary));
    if (head.tag != TAG_SUMMARY || head.index || head.length != sizeof(summary) ||
        head.checksum != section_checksum(&head, (const uint8_t *)&summary))
        return STATE_CORRUPT_DATA;
    state = check_system(hv, &summary, of_partition);
    if (state != STATE_RESTORABLE || !partition || !of_partition)
        return state;
    return check_partition(partition, &summary);
}

/* A summary ends a stream, or is looked at alone. */
unsigned hv_check_head(const struct head *head, bool summary_only)
{
    if (head->magic != STREAM_MAGIC)
        return STATE_CORRUPT_DATA;
    if (head->version != STREAM_VERSION)
        return STATE_UNSUPPORTED_VERSION;
    if (head->checksum != head_checksum(head) || head->reserved || head->kind >= KINDS || head->length < SUMMARY_END ||
        head->length > UINT32_MAX)
        return STATE_CORRUPT_DATA;
    if (head->kind == KIND_PARTITION || head->kind == KIND_CHILD)
        return STATE_INCOMPLETE;
    return summary_only && head->length == SUMMARY_END ? STATE_INCOMPLETE : STATE_CORRUPT_DATA;
}

/* -- Restoring: the state itself -- */

/* The section that comes next, with its content to read; false: it is another one. */
bool hv_next_section(const struct hv_transfer *transfer, size_t *position, uint32_t tag, uint32_t index,
                     struct hv_stream *content)
{
    struct section_head head;

    if (transfer->size - *position < sizeof(head))
        return false;
    memcpy(&head, transfer->data + *position, sizeof(head));
    *position += sizeof(head);
    if (head.tag != tag || head.index != index || head.length > transfer->size - *position || !head.length ||
        head.checksum != section_checksum(&head, transfer->data + *position))
        return false;
    *content = (struct hv_stream){.read = transfer->data + *position, .size = head.length, .alone = true};
    *position += head.length;
    return true;
}

/* Whether the sections are those that are due, and whole; then nothing but a lie can stop the restore. */
bool hv_sections_are_sound(const struct hv_transfer *transfer, size_t position, const struct hv_partition *partition)
{
    struct hv_stream content;
    bool sound = hv_next_section(transfer, &position, TAG_PARTITION, 0, &content);

    for (hv_vp_index i = 0; sound && i < partition->vp_limit; i++) {
        if (partition->vps[i])
            sound = hv_next_section(transfer, &position, TAG_PROCESSOR, i, &content) &&
                    hv_next_section(transfer, &position, TAG_VP, i, &content);
    }
    return sound && position == transfer->size;
}

static bool ended_well(const struct hv_stream *s)
{
    return !s->error && s->position == s->size;
}

/* As after HvCreateVp. */
static void power_on(struct hv_vp *vp)
{
    unsigned kept = atomic_load(&vp->suspend) & HV_SUSPEND_OPERATOR;

    if (atomic_exchange(&vp->tlb_flush_inhibit, false))
        hv_tlb_flush_inhibit_cleared(vp);
    hv_vp_reset(vp);
    hv_vp_registers_reset(vp);
    atomic_fetch_or(&vp->suspend, kept);
    vp->hv->ops->reset_vp(vp->hv->context, vp->handle, vp->index, vp->index != 0);
    hv_lapic_create(vp);
}

/* Its local APIC's times are the machine's TSC, which was another one there. */
static void move_times(struct hv_vp *vp, uint64_t ahead)
{
    atomic_fetch_sub(&vp->tsc_offset, ahead);
    vp->lapic->timer_start += ahead;
}

/* What keeps it from running is its parent's and the operator's business, but for an intercept. */
static void restore_suspension(struct hv_vp *vp, unsigned before)
{
    unsigned saved = atomic_load(&vp->suspend) & HV_SUSPEND_INTERCEPT;

    atomic_store(&vp->suspend, saved | HV_SUSPEND_EXPLICIT | (before & HV_SUSPEND_OPERATOR));
}

static void set_lines(struct hv_vp *vp, const struct hv_activity *activity)
{
    const struct hv *hv = vp->hv;

    if (activity->flags & HV_ACTIVITY_STARTING)
        hv->ops->start_vp(hv->context, vp->handle, (uint8_t)activity->start_vector);
    if (activity->flags & HV_ACTIVITY_NMI)
        hv->ops->set_line(hv->context, vp->handle, HV_LINE_NMI, true);
    if (vp->lapic->init_pending)
        hv->ops->set_line(hv->context, vp->handle, HV_LINE_INIT, true);
}

static bool read_vp(struct hv_vp *vp, struct hv_stream *processor, struct hv_stream *state, uint64_t ahead)
{
    const struct hv *hv = vp->hv;
    unsigned before = atomic_load(&vp->suspend);
    struct hv_activity activity = {0};

    power_on(vp);
    stream_vp(state, vp);
    restore_suspension(vp, before);
    move_times(vp, ahead);
    stream_activity(processor, &activity);
    hv->ops->reset_vp(hv->context, vp->handle, vp->index,
                      vp->lapic->waits_for_sipi || (activity.flags & HV_ACTIVITY_STARTING));
    hv_state_registers(processor, vp);
    if (!ended_well(processor) || !ended_well(state))
        return false;
    hv_lapic_restored(vp);
    set_lines(vp, &activity);
    hv->ops->set_activity(hv->context, vp->handle, &activity);
    return true;
}

bool hv_read_partition(const struct hv_transfer *transfer, size_t position, struct hv_partition *partition)
{
    struct hv_stream content, processor;
    struct moment moment = {0};
    uint64_t ahead;

    hv_next_section(transfer, &position, TAG_PARTITION, 0, &content);
    stream_partition(&content, partition, &moment);
    if (!ended_well(&content))
        return false;
    atomic_store(&partition->stopped_time, moment.reference_time); /* it stands, as all VPs are suspended */
    ahead = hv_machine_tsc(partition->hv) - moment.tsc;
    for (hv_vp_index i = 0; i < partition->vp_limit; i++) {
        if (!partition->vps[i])
            continue;
        hv_next_section(transfer, &position, TAG_PROCESSOR, i, &processor);
        hv_next_section(transfer, &position, TAG_VP, i, &content);
        if (!read_vp(partition->vps[i], &processor, &content, ahead))
            return false;
    }
    return true;
}

/* A stream that lied: what it left is not to be run. */
void hv_undo_partition(struct hv_partition *partition)
{
    for (hv_vp_index i = 0; i < partition->vp_limit; i++) {
        if (partition->vps[i])
            power_on(partition->vps[i]);
    }
    atomic_store(&partition->guest_os_id, 0);
    atomic_store(&partition->hypercall_msr, 0);
    atomic_store(&partition->reference_tsc_msr, 0);
}

void hv_show_partition(struct hv_partition *partition)
{
    hv_show_all_overlays(partition);
    hv_publish_reference_tsc(partition);
    hv_time_restored(partition);
    for (hv_vp_index i = 0; i < partition->vp_limit; i++) {
        if (!partition->vps[i])
            continue;
        hv_interrupt_update_auto_eoi(partition->vps[i]);
        hv_message_retry(partition->vps[i]);
    }
}

static hv_status restore_state(struct hv_call *call, const struct hv_transfer *transfer, unsigned *state)
{
    struct hv_partition *partition = call->partition;

    *state = STATE_CORRUPT_DATA;
    if (!hv_sections_are_sound(transfer, SUMMARY_END, partition))
        return HV_STATUS_SUCCESS;
    if (!acquire_vps(call->vp, partition, true))
        return HV_STATUS_WAIT;
    if (hv_read_partition(transfer, SUMMARY_END, partition))
        *state = STATE_COMPLETE;
    else
        hv_undo_partition(partition);
    hv_show_partition(partition);
    acquire_vps(call->vp, partition, false);
    return HV_STATUS_SUCCESS;
}

/* -- Restoring: chunk by chunk -- */

/* Take what is missing up to `end`; whether all of it is there. */
static bool collect(struct hv_transfer *transfer, void *to, size_t end, const struct transfer_input *in, uint32_t *used)
{
    size_t wanted = end > transfer->position ? end - transfer->position : 0;
    size_t part = wanted < in->count - *used ? wanted : in->count - *used;

    memcpy((uint8_t *)to + transfer->position, in->data + *used, part);
    transfer->position += part;
    *used += (uint32_t)part;
    return transfer->position >= end;
}

/* INCOMPLETE: the head is not there yet, or it is sound and there is room for the rest. */
static hv_status collect_head(struct hv_transfer *transfer, const struct transfer_input *in, uint32_t *used,
                              unsigned *state)
{
    hv_status status;

    *state = STATE_INCOMPLETE;
    if (transfer->data || !collect(transfer, &transfer->head, sizeof(transfer->head), in, used))
        return HV_STATUS_SUCCESS;
    *state = hv_check_head(&transfer->head, transfer->summary);
    if (transfer->head.kind == KIND_CHILD && !transfer->summary)
        *state = STATE_CORRUPT_DATA; /* only the operator restores it */
    if (*state != STATE_INCOMPLETE)
        return HV_STATUS_SUCCESS;
    status = allocate(transfer, transfer->summary ? SUMMARY_END : transfer->head.length);
    if (status == HV_STATUS_SUCCESS)
        memcpy(transfer->data, &transfer->head, sizeof(transfer->head));
    return status;
}

static hv_status go_on(struct hv_call *call, struct hv_transfer *transfer, uint32_t *used, unsigned *state)
{
    const struct transfer_input *in = call->input;
    hv_status status = collect_head(transfer, in, used, state);
    bool fits = transfer->position >= SUMMARY_END;

    if (status != HV_STATUS_SUCCESS || *state != STATE_INCOMPLETE || !transfer->data)
        return status;
    if (!fits) {
        if (!collect(transfer, transfer->data, SUMMARY_END, in, used))
            return HV_STATUS_SUCCESS;
        *state = hv_check_summary(call->vp->hv, is_of_system(call) ? NULL : call->partition, transfer);
        if (*state != STATE_RESTORABLE || transfer->summary)
            return HV_STATUS_SUCCESS;
    }
    *state = STATE_INCOMPLETE;
    if (!collect(transfer, transfer->data, transfer->size, in, used))
        return HV_STATUS_SUCCESS;
    /* VPs may have come or gone since. */
    *state = hv_check_summary(call->vp->hv, is_of_system(call) ? NULL : call->partition, transfer);
    return *state == STATE_RESTORABLE ? restore_state(call, transfer, state) : HV_STATUS_SUCCESS;
}

/* TLFS 17.3.2 */
hv_status hv_call_restore_partition_state(struct hv_call *call)
{
    struct transfer_output *out = call->output;
    struct hv_transfer *transfer;
    unsigned state = STATE_INCOMPLETE;
    uint32_t used = 0;
    size_t before;
    hv_status status = check(call, true);

    if (status == HV_STATUS_SUCCESS)
        status = find_transfer(call, true, &transfer);
    if (status != HV_STATUS_SUCCESS)
        return status;
    before = transfer->position;
    status = go_on(call, transfer, &used, &state);
    if (status == HV_STATUS_WAIT) {
        transfer->position = before; /* the call is executed again, with its data */
        return status;
    }
    if (status != HV_STATUS_SUCCESS || state != STATE_INCOMPLETE)
        drop(place_of(call));
    out->state = state;
    out->count = used;
    return status;
}
