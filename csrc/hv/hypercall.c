/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLFS chapter 4: the hypercall interface.
 *
 * The dispatcher reads the parameters once, checks everything that can be checked from the table's row, runs the
 * handler and writes the output. Order of checks (TLFS 4.11.2 leaves it open): #UD, call code, input value, alignment,
 * privilege, partition ID, state, parameters.
 */
#include "inject.h"
#include "stats.h"

#include <string.h>

enum { SIMPLE = 0, REP = 1 };
enum { SLOW = 0, FAST = 1, XMM = 2 };
enum { LOCK_NOLOCK, LOCK_SHARED, LOCK_EXCLUSIVE };
enum relation {
    RELATION_NONE,
    RELATION_PARENT,
    RELATION_PARENT_OR_SELF,
    RELATION_PARENT_OR_ROOT_SELF,
    RELATION_PARENT_OR_SYSTEM, /* ID 0 stands for the system (TLFS 17.3): the caller's partition is handed on */
    RELATION_ROOT
};

/* A gate is written P_<privilege> or NONE in the table. */
enum {
    GATE_NONE = -1,
#define HV_PRIVILEGE_ROW(bit, name, property, generations, ...) GATE_P_##name = bit,
#include "tlfs/privileges.def"
#undef HV_PRIVILEGE_ROW
};

#define IS_IMPLEMENTED true
#define IS_MISSING false
#define HANDLER_IMPLEMENTED(snake) hv_call_##snake
#define HANDLER_MISSING(snake) NULL

const struct hv_hypercall_row_info hv_hypercall_rows[HV_HYPERCALL_ROWS] = {
#define HV_HYPERCALL_ROW(code_, name_, snake, kind, fast_, gens, gate_, relation, lock, in, in_el, out, out_el, var,   \
                         handler, sec)                                                                                 \
    [HV_CALL_ROW_##snake##_##gens] = {                                                                                 \
        .code = code_,                                                                                                 \
        .name = #name_,                                                                                                \
        .section = sec,                                                                                                \
        .generations = gens,                                                                                           \
        .rep = kind == REP,                                                                                            \
        .fast = fast_ != SLOW,                                                                                         \
        .xmm = fast_ == XMM,                                                                                           \
        .variable = (var) == 1,                                                                                        \
        .trailing = (var) == 2,                                                                                        \
        .implemented = IS_##handler,                                                                                   \
        .gate = GATE_##gate_,                                                                                          \
        .input = in,                                                                                                   \
        .input_element = in_el,                                                                                        \
        .output = out,                                                                                                 \
        .output_element = out_el,                                                                                      \
    },
#include "tlfs/hypercalls.def"
#undef HV_HYPERCALL_ROW
};

static const hv_call_handler handlers[HV_HYPERCALL_ROWS] = {
#define HV_HYPERCALL_ROW(code, name, snake, kind, fast, gens, gate, relation, lock, in, in_el, out, out_el, var,       \
                         handler, sec)                                                                                 \
    [HV_CALL_ROW_##snake##_##gens] = HANDLER_##handler(snake),
#include "tlfs/hypercalls.def"
#undef HV_HYPERCALL_ROW
};

static const uint8_t relations[HV_HYPERCALL_ROWS] = {
#define HV_HYPERCALL_ROW(code, name, snake, kind, fast, gens, gate, relation, lock, in, in_el, out, out_el, var,       \
                         handler, sec)                                                                                 \
    [HV_CALL_ROW_##snake##_##gens] = RELATION_##relation,
#include "tlfs/hypercalls.def"
#undef HV_HYPERCALL_ROW
};

static const uint8_t lock_modes[HV_HYPERCALL_ROWS] = {
#define HV_HYPERCALL_ROW(code, name, snake, kind, fast, gens, gate, relation, lock, in, in_el, out, out_el, var,       \
                         handler, sec)                                                                                 \
    [HV_CALL_ROW_##snake##_##gens] = LOCK_##lock,
#include "tlfs/hypercalls.def"
#undef HV_HYPERCALL_ROW
};

/* Fields of the hypercall input value (TLFS 4.7). */
#define INPUT_CODE(input) ((uint16_t)(input))
#define INPUT_FAST (UINT64_C(1) << 16)
#define INPUT_VARIABLE_SHIFT 17
#define INPUT_VARIABLE_MASK (UINT64_C(0x3FF) << INPUT_VARIABLE_SHIFT)
#define INPUT_COUNT(input) ((unsigned)((input) >> 32) & 0xFFF)
#define INPUT_START(input) ((unsigned)((input) >> 48) & 0xFFF)
#define INPUT_START_MASK (UINT64_C(0xFFF) << 48)
#define INPUT_REP_MASK ((UINT64_C(0xFFF) << 32) | INPUT_START_MASK)
#define INPUT_RESERVED ((UINT64_C(0xF) << 60) | (UINT64_C(0xF) << 44) | (UINT64_C(0x1F) << 27))

#define FAST_SIZE 16u /* two registers */
#define XMM_SIZE 112u /* two registers and XMM0..5 (TLFS 4.7.1) */
#define TRAILING_COUNT_OFFSET 12 /* in the header: 32 bits */

/* What leaves the dispatcher: an exit, and when it is HV_EXIT_DONE a result. */
struct outcome {
    enum hv_exit exit;
    hv_status status;
    unsigned reps_done;
};

static struct outcome fail(hv_status status)
{
    return (struct outcome){.exit = HV_EXIT_DONE, .status = status};
}

static struct outcome leave(enum hv_exit exit)
{
    return (struct outcome){.exit = exit};
}

/* Which kind of hypercalls it is counted as (TLFS J.4.2): that of its chapter, which for later calls is told here. */
static uint8_t counter_of(unsigned row)
{
    switch (row) {
    case HV_CALL_ROW_flush_virtual_address_space_ex_HV_GEN_CURRENT:
    case HV_CALL_ROW_flush_virtual_address_list_ex_HV_GEN_CURRENT:
        return HV_VPV_VirtualMmuHypercalls;
    case HV_CALL_ROW_send_synthetic_cluster_ipi_HV_GEN_CURRENT:
    case HV_CALL_ROW_send_synthetic_cluster_ipi_ex_HV_GEN_CURRENT:
        return HV_VPV_VirtualInterruptHypercalls;
    default:
        break;
    }
    switch (strtoul(hv_hypercall_rows[row].section, NULL, 10)) {
    case 6:
        return HV_VPV_LogicalProcessorHypercalls;
    case 8:
        return HV_VPV_GpaSpaceHypercalls;
    case 10:
        return HV_VPV_VirtualProcessorHypercalls;
    case 12:
        return HV_VPV_VirtualMmuHypercalls;
    case 13:
        return HV_VPV_VirtualInterruptHypercalls;
    case 14:
        return HV_VPV_SyntheticInterruptHypercalls;
    case 18:
        return HV_VPV_LongSpinWaitHypercalls;
    default:
        return HV_VPV_OtherHypercalls;
    }
}

void hv_hypercall_init(struct hv *hv)
{
    memset(hv->call_row, HV_NO_ROW, sizeof(hv->call_row));
    for (unsigned row = 0; row < HV_HYPERCALL_ROWS; row++) {
        const struct hv_hypercall_row_info *info = &hv_hypercall_rows[row];
        uint64_t reserved = INPUT_RESERVED;

        if (!(info->generations & hv->config.generation))
            continue;
        hv->call_row[info->code] = (uint8_t)row;
        if (!info->variable)
            reserved |= INPUT_VARIABLE_MASK;
        if (!info->rep)
            reserved |= INPUT_REP_MASK;
        if (!info->fast)
            reserved |= INPUT_FAST;
        hv->call_reserved[row] = reserved;
        hv->call_counter[row] = counter_of(row);
    }
}

const char *hv_status_name(unsigned status)
{
    switch (status) {
#define HV_STATUS_ROW(value, name, generations)                                                                        \
    case value:                                                                                                        \
        return "HV_STATUS_" #name;
#include "tlfs/status.def"
#undef HV_STATUS_ROW
    default:
        return NULL;
    }
}

/* -- Register conventions (TLFS 4.7) -- */

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 };

static uint64_t pair(uint64_t high, uint64_t low)
{
    return high << 32 | (uint32_t)low;
}

static uint64_t input_value(const struct hv_call_frame *frame)
{
    return frame->long_mode ? frame->gpr[RCX] : pair(frame->gpr[RDX], frame->gpr[RAX]);
}

static uint64_t first_parameter(const struct hv_call_frame *frame)
{
    return frame->long_mode ? frame->gpr[RDX] : pair(frame->gpr[RBX], frame->gpr[RCX]);
}

static uint64_t second_parameter(const struct hv_call_frame *frame)
{
    return frame->long_mode ? frame->gpr[R8] : pair(frame->gpr[RDI], frame->gpr[RSI]);
}

static void set_result(struct hv_call_frame *frame, uint64_t result)
{
    if (frame->long_mode) {
        frame->gpr[RAX] = result;
    } else {
        frame->gpr[RAX] = (uint32_t)result;
        frame->gpr[RDX] = result >> 32;
    }
}

static uint64_t result_of(const struct hv_call_frame *frame)
{
    return frame->long_mode ? frame->gpr[RAX] : pair(frame->gpr[RDX], frame->gpr[RAX]);
}

/* A rep call that is not finished is executed again, from its next element (TLFS 4.3). */
static void set_rep_start(struct hv_call_frame *frame, unsigned start)
{
    uint64_t input = (input_value(frame) & ~INPUT_START_MASK) | (uint64_t)start << 48;

    if (frame->long_mode)
        frame->gpr[RCX] = input;
    else
        frame->gpr[RDX] = input >> 32;
}

/* -- Parameters -- */

static void read_registers(struct hv_vp *vp, const struct hv_call_frame *frame, size_t size)
{
    uint64_t parameters[2] = {first_parameter(frame), second_parameter(frame)};

    memcpy(vp->input_page, parameters, sizeof(parameters));
    if (size > FAST_SIZE)
        vp->hv->ops->read_xmm(vp->hv->context, vp->handle, vp->input_page + FAST_SIZE);
}

/* A parameter block must be aligned, inside one page and inside the GPA space (TLFS 4.6, 4.11.3). */
static bool block_is_placed_well(const struct hv *hv, hv_gpa gpa, size_t size)
{
    return (gpa & 7) == 0 && gpa < hv->gpa_limit && (gpa & ~HV_PAGE_MASK) + size <= HV_PAGE_SIZE;
}

static bool blocks_overlap(hv_gpa a, size_t a_size, hv_gpa b, size_t b_size)
{
    return a_size && b_size && a < b + b_size && b < a + a_size;
}

/* No parent can put memory there, so it would be told again and again. */
static bool is_local_apic(struct hv_vp *vp, hv_gpa gpa, unsigned access)
{
    struct hv_translation translation;

    hv_translate_gpa(vp, gpa, access, &translation);
    return translation.kind == HV_TRANSLATION_APIC;
}

/*
 * A parameter page that the VP could not access itself (TLFS 4.11.1, 11.8): its parent gets a memory intercept; a
 * partition without a parent reads ones and drops writes where nothing is mapped, and gets #MC for a missing right.
 * Parameters never reach a device, which a child's own local APIC is one of.
 */
static enum hv_exit parameter_fault(struct hv_vp *vp, hv_gpa gpa, unsigned access, enum hv_gpa_result result)
{
    if (hv_vp_is_child(vp) && !is_local_apic(vp, gpa, access)) {
        struct hv_memory_access fault = {.gpa = gpa, .access = access, .unmapped = result == HV_GPA_UNMAPPED};

        return hv_memory_intercept(vp, &fault);
    }
    return result == HV_GPA_UNMAPPED ? HV_EXIT_DONE : HV_EXIT_MC;
}

/* `size` bytes of the input, not 0, from `offset` behind its beginning on, to their place in the scratch page. */
static enum hv_exit read_memory(struct hv_vp *vp, hv_gpa input, size_t offset, size_t size)
{
    hv_gpa gpa = input + offset;
    enum hv_gpa_result result = hv_read_gpa(vp, gpa, vp->input_page + offset, size);

    if (result == HV_GPA_OK)
        return HV_EXIT_DONE;
    memset(vp->input_page + offset, 0xFF, size);
    return parameter_fault(vp, gpa, HV_ACCESS_READ, result);
}

bool hv_call_read_tail(struct hv_call *call, size_t offset, size_t size)
{
    if (size)
        call->exit = read_memory(call->vp, call->input_gpa, offset, size);
    return call->exit == HV_EXIT_DONE;
}

/*
 * What the caller has to be to the partition named by the first field of the input (TLFS 4.10). ACCESS_DENIED is for a
 * partition that exists and is not the caller's to work on.
 */
static hv_status check_relation(struct hv_call *call, enum relation relation)
{
    struct hv_partition *own = call->vp->partition;
    struct hv_partition *named;
    hv_partition_id id;
    bool self;

    call->partition = own;
    if (relation == RELATION_NONE)
        return HV_STATUS_SUCCESS;
    if (relation == RELATION_ROOT)
        return own->is_root ? HV_STATUS_SUCCESS : HV_STATUS_ACCESS_DENIED;
    memcpy(&id, call->input, sizeof(id));
    if (relation == RELATION_PARENT_OR_SYSTEM && id == HV_PARTITION_ID_INVALID)
        return HV_STATUS_SUCCESS;
    named = id == HV_PARTITION_ID_SELF ? own : hv_find_partition(own->hv, id);
    if (!named)
        return HV_STATUS_INVALID_PARTITION_ID;
    call->partition = named;
    self = named == own;
    if (named->parent == own ||
        (self && (relation == RELATION_PARENT_OR_SELF || (relation == RELATION_PARENT_OR_ROOT_SELF && own->is_root))))
        return HV_STATUS_SUCCESS;
    return HV_STATUS_ACCESS_DENIED;
}

/* Where a call's parameters are and how long they are, all checked. */
struct hv_call_blocks {
    bool fast;
    unsigned variable_count;
    size_t input_size, output_size; /* whole lists included */
    size_t told_output; /* the output's bytes if the handler has told them */
    hv_gpa input_gpa, output_gpa;
    struct hv_translation output; /* where the output goes, once it is known that it can be written */
};

static hv_status check_input_value(const struct hv *hv, unsigned row, uint64_t input, struct hv_call_blocks *blocks)
{
    const struct hv_hypercall_row_info *info = &hv_hypercall_rows[row];
    unsigned count = INPUT_COUNT(input);

    if (input & hv->call_reserved[row])
        return HV_STATUS_INVALID_HYPERCALL_INPUT;
    if (info->rep && INPUT_START(input) >= count)
        return HV_STATUS_INVALID_HYPERCALL_INPUT;
    blocks->fast = input & INPUT_FAST;
    blocks->variable_count = (unsigned)((input & INPUT_VARIABLE_MASK) >> INPUT_VARIABLE_SHIFT);
    blocks->input_size = info->input + blocks->variable_count * sizeof(uint64_t) + (size_t)count * info->input_element;
    blocks->output_size = info->output + (size_t)count * info->output_element;
    if (blocks->fast && blocks->input_size > (info->xmm ? XMM_SIZE : FAST_SIZE))
        return HV_STATUS_INVALID_HYPERCALL_INPUT;
    return HV_STATUS_SUCCESS;
}

static hv_status check_alignment(const struct hv *hv, const struct hv_call_frame *frame, struct hv_call_blocks *blocks)
{
    if (blocks->fast)
        return HV_STATUS_SUCCESS;
    blocks->input_gpa = first_parameter(frame);
    blocks->output_gpa = second_parameter(frame);
    if (blocks->input_size && !block_is_placed_well(hv, blocks->input_gpa, blocks->input_size))
        return HV_STATUS_INVALID_ALIGNMENT;
    if (blocks->output_size && !block_is_placed_well(hv, blocks->output_gpa, blocks->output_size))
        return HV_STATUS_INVALID_ALIGNMENT;
    /* The text forbids overlap and names no status for it (TLFS 4.6). */
    if (blocks_overlap(blocks->input_gpa, blocks->input_size, blocks->output_gpa, blocks->output_size))
        return HV_STATUS_INVALID_ALIGNMENT;
    return HV_STATUS_SUCCESS;
}

/* Elsewhere the root reads ones and drops writes (parameter_fault()); no call of another partition comes here. */
hv_status hv_call_output(struct hv_call *call, size_t size)
{
    struct hv_call_blocks *blocks = call->blocks;
    enum hv_gpa_result result;

    if (!block_is_placed_well(call->vp->hv, blocks->output_gpa, size) ||
        blocks_overlap(blocks->input_gpa, blocks->input_size, blocks->output_gpa, size))
        return HV_STATUS_INVALID_ALIGNMENT;
    result = hv_lock_write_gpa(call->vp, blocks->output_gpa, size, &blocks->output);
    if (result == HV_GPA_NO_ACCESS)
        call->exit = HV_EXIT_MC;
    else
        memset(call->output, 0, size);
    blocks->output_size = blocks->told_output = size;
    return HV_STATUS_SUCCESS;
}

static void lock_structure(struct hv_vp *vp, unsigned row)
{
    if (lock_modes[row] == LOCK_SHARED)
        hv_structure_lock_enter(&vp->hv->structure, &vp->reader);
    else if (lock_modes[row] == LOCK_EXCLUSIVE)
        hv_structure_lock_write(&vp->hv->structure);
}

static void unlock_structure(struct hv_vp *vp, unsigned row)
{
    if (lock_modes[row] == LOCK_SHARED)
        hv_structure_lock_leave(&vp->reader);
    else if (lock_modes[row] == LOCK_EXCLUSIVE)
        hv_structure_lock_drop(&vp->hv->structure);
}

/* Check the relation and run the handler, both under the structure lock. */
static hv_status run_locked(struct hv_call *call, unsigned row)
{
    hv_status status;

    if (lock_modes[row] != LOCK_NOLOCK)
        hv_calling_vp = call->vp;
    lock_structure(call->vp, row);
    status = check_relation(call, (enum relation)relations[row]);
    if (status == HV_STATUS_SUCCESS)
        status = handlers[row] ? handlers[row](call) : HV_STATUS_INVALID_HYPERCALL_CODE;
    unlock_structure(call->vp, row);
    if (call->interrupted)
        hv_interrupts_request(call->interrupted, &call->interrupts);
    return status;
}

/* One that never was drops what is written to it. Elements before the start index are an earlier execution's. */
static void write_output(const struct hv_call *call, const struct hv_hypercall_row_info *info,
                         const struct hv_call_blocks *blocks)
{
    size_t from = info->output + (size_t)call->rep_start * info->output_element;
    size_t to = info->output + (size_t)call->reps_done * info->output_element;
    const uint8_t *page = call->output;
    size_t header = info->output + blocks->told_output + call->output_tail;

    if (header)
        hv_write_locked_gpa(call->vp, &blocks->output, blocks->output_gpa, page, header);
    if (to > from)
        hv_write_locked_gpa(call->vp, &blocks->output, blocks->output_gpa + from, page + from, to - from);
}

static struct outcome run_handler(struct hv_vp *vp, unsigned row, uint64_t input, struct hv_call_blocks *blocks)
{
    const struct hv_hypercall_row_info *info = &hv_hypercall_rows[row];
    const uint8_t *variable = vp->input_page + info->input;
    struct hv_call call = {
        .vp = vp,
        .input = vp->input_page,
        .variable = (const uint64_t *)(const void *)variable,
        .variable_count = blocks->variable_count,
        .elements = variable + blocks->variable_count * sizeof(uint64_t),
        .output = vp->output_page,
        .blocks = blocks,
        .rep_count = INPUT_COUNT(input),
        .rep_start = INPUT_START(input),
        .reps_done = INPUT_START(input),
        .input_gpa = blocks->input_gpa,
        .output_gpa = blocks->output_gpa,
        /* The rest too, so that the compiler need not clear all of it first. */
        .partition = NULL,
        .output_tail = 0,
        .interrupted = NULL,
        .interrupts = {{0, 0, 0, 0}},
        .exit = HV_EXIT_DONE,
    };
    struct outcome outcome = {.exit = HV_EXIT_DONE};

    if (blocks->output_size)
        memset(vp->output_page, 0, blocks->output_size);
    outcome.status = run_locked(&call, row);
    if (call.exit != HV_EXIT_DONE)
        return leave(call.exit);
    outcome.reps_done = call.reps_done;
    if (outcome.status == HV_STATUS_SUCCESS || call.reps_done > call.rep_start)
        write_output(&call, info, blocks);
    if (outcome.status == HV_STATUS_WAIT)
        outcome.exit = HV_EXIT_RETRY;
    if (info->rep && outcome.status == HV_STATUS_SUCCESS && call.reps_done < call.rep_count)
        outcome.exit = HV_EXIT_RETRY;
    return outcome;
}

/* Bring the input into the VP's scratch page and see that the output can be written. */
static enum hv_exit fetch_parameters(struct hv_vp *vp, const struct hv_call_frame *frame, struct hv_call_blocks *blocks)
{
    enum hv_exit exit = HV_EXIT_DONE;

    if (blocks->fast)
        read_registers(vp, frame, blocks->input_size);
    else if (blocks->input_size)
        exit = read_memory(vp, blocks->input_gpa, 0, blocks->input_size);
    if (exit == HV_EXIT_DONE && blocks->output_size) {
        enum hv_gpa_result result = hv_lock_write_gpa(vp, blocks->output_gpa, blocks->output_size, &blocks->output);

        if (result != HV_GPA_OK)
            exit = parameter_fault(vp, blocks->output_gpa, HV_ACCESS_WRITE, result);
    }
    return exit;
}

/* The bytes behind the header, which says how many there are; they end in its page like the header (TLFS 4.6). */
static struct outcome fetch_trailing_bytes(struct hv_vp *vp, const struct hv_call_blocks *blocks)
{
    hv_gpa gpa = blocks->input_gpa + blocks->input_size;
    enum hv_exit exit;
    uint32_t count;

    memcpy(&count, vp->input_page + TRAILING_COUNT_OFFSET, sizeof(count));
    if (count > HV_PAGE_SIZE || !block_is_placed_well(vp->hv, blocks->input_gpa, blocks->input_size + count) ||
        blocks_overlap(gpa, count, blocks->output_gpa, blocks->output_size))
        return fail(HV_STATUS_INVALID_ALIGNMENT);
    if (!count)
        return fail(HV_STATUS_SUCCESS);
    exit = read_memory(vp, blocks->input_gpa, blocks->input_size, count);
    return exit == HV_EXIT_DONE ? fail(HV_STATUS_SUCCESS) : leave(exit);
}

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))

static ALWAYS_INLINE struct outcome attempt(struct hv_vp *vp, struct hv_call_frame *frame, unsigned row, uint64_t input)
{
    struct hv_partition *partition = vp->partition;
    const struct hv_hypercall_row_info *info = &hv_hypercall_rows[row];
    struct hv_call_blocks blocks = {0};
    enum hv_exit exit;
    hv_status status;

    /* The XMM form is #UD where it is not offered (TLFS 4.7.1). */
    if ((input & INPUT_FAST) && info->xmm && !hv_has_feature(partition, HV_FEATURE_HypercallXmmInput))
        return leave(HV_EXIT_UD);
    status = check_input_value(partition->hv, row, input, &blocks);
    if (status == HV_STATUS_SUCCESS)
        status = check_alignment(partition->hv, frame, &blocks);
    if (status == HV_STATUS_SUCCESS && info->gate >= 0 && !hv_has_privilege(partition, (enum hv_privilege)info->gate))
        status = HV_STATUS_ACCESS_DENIED;
    if (status != HV_STATUS_SUCCESS)
        return fail(status);
    exit = fetch_parameters(vp, frame, &blocks);
    if (exit != HV_EXIT_DONE)
        return leave(exit);
    if (info->trailing) {
        struct outcome outcome = fetch_trailing_bytes(vp, &blocks);

        if (outcome.exit != HV_EXIT_DONE || outcome.status != HV_STATUS_SUCCESS)
            return outcome;
    }
    return run_handler(vp, row, input, &blocks);
}

/* A call that has come to its end, whatever its status. */
static void count_call(struct hv_vp *vp, unsigned row)
{
    uint64_t *counters = vp->stats.release;

    hv_counter_add(&vp->hypercalls[row], 1);
    hv_counter_add(&counters[vp->hv->call_counter[row]], 1);
    hv_counter_add(&counters[HV_VPV_Hypercalls], 1);
}

/* Counted here, where what it takes is at hand. */
static NOINLINE struct outcome dispatch(struct hv_vp *vp, struct hv_call_frame *frame, unsigned row, uint64_t input)
{
    struct outcome outcome = attempt(vp, frame, row, input);

    if (outcome.exit == HV_EXIT_DONE)
        count_call(vp, row);
    return outcome;
}

/* -- Calls that wait for a time -- */

#define TIME_STANDS_STILL 1000 /* attempts at the same time */

bool hv_call_waits(struct hv_vp *vp, uint64_t deadline)
{
    const struct hv *hv = vp->hv;
    uint64_t now = hv_machine_tsc(hv);

    vp->waited_in_vain = now == vp->waited_at ? vp->waited_in_vain + 1 : 0;
    vp->waited_at = now;
    if (now >= deadline || vp->waited_in_vain > TIME_STANDS_STILL)
        return false;
    hv->ops->spin_wait(hv->context, vp->handle);
    return true;
}

/* -- Fault injection -- */

/* Ask the rules about a call: once, however often it has to be executed until it is done. */
static struct outcome ask_rules(struct hv_vp *vp, unsigned row, uint64_t input)
{
    struct hv_injected injected = {.action = HV_INJECT_NOTHING};
    struct outcome outcome = {.exit = HV_EXIT_NATIVE, .reps_done = INPUT_START(input)};

    if (vp->inject_passed && vp->inject_call == (input & ~INPUT_START_MASK))
        return outcome;
    hv_inject(vp, HV_INJECT_HYPERCALL, hv_hypercall_rows[row].code, &injected);
    switch (injected.action) {
    case HV_INJECT_STATUS:
        outcome.exit = HV_EXIT_DONE;
        outcome.status = injected.status;
        return outcome;
    case HV_INJECT_DROP:
        outcome.exit = HV_EXIT_DONE;
        outcome.reps_done = INPUT_COUNT(input);
        return outcome;
    case HV_INJECT_GP:
        return leave(HV_EXIT_GP);
    case HV_INJECT_UD:
        return leave(HV_EXIT_UD);
    default:
        vp->inject_passed = true;
        vp->inject_call = input & ~INPUT_START_MASK;
        vp->inject_until = injected.action == HV_INJECT_DELAY ? hv_machine_tsc(vp->hv) + injected.delay : 0;
        return outcome;
    }
}

static struct outcome dispatch_with_rules(struct hv_vp *vp, struct hv_call_frame *frame, unsigned row, uint64_t input)
{
    struct outcome outcome = ask_rules(vp, row, input);

    if (outcome.exit == HV_EXIT_DONE)
        count_call(vp, row);
    if (outcome.exit != HV_EXIT_NATIVE)
        return outcome;
    if (vp->inject_until && hv_call_waits(vp, vp->inject_until)) {
        outcome.exit = HV_EXIT_RETRY;
        return outcome;
    }
    vp->inject_until = 0;
    outcome = dispatch(vp, frame, row, input);
    vp->inject_passed = outcome.exit == HV_EXIT_RETRY;
    return outcome;
}

static NOINLINE struct outcome fail_unknown(struct hv_vp *vp)
{
    hv_counter_add(&vp->unknown_hypercalls, 1);
    HV_COUNT(vp, OtherHypercalls);
    HV_COUNT(vp, Hypercalls);
    return fail(HV_STATUS_INVALID_HYPERCALL_CODE);
}

/* With `attention` what is not usual is seen to. */
static ALWAYS_INLINE enum hv_exit hypercall(struct hv_vp *vp, struct hv_call_frame *frame, bool attention)
{
    struct hv_partition *partition = vp->partition;
    const struct hv *hv = partition->hv;
    uint64_t input, result;
    unsigned code, row;
    struct outcome outcome;

    /* TLFS 4.5; without an enabled page there is no interface to call through. */
    if (!frame->legal || !(atomic_load_explicit(&partition->hypercall_msr, memory_order_relaxed) & HV_PAGE_MSR_ENABLE))
        return HV_EXIT_UD;
    input = input_value(frame);
    code = INPUT_CODE(input);
    row = code < HV_CALL_CODES ? hv->call_row[code] : HV_NO_ROW;
    if (row == HV_NO_ROW) {
        outcome = fail_unknown(vp);
    } else {
        outcome = attention && HV_INJECTING(hv, HV_INJECT_HYPERCALL) ? dispatch_with_rules(vp, frame, row, input)
                                                                     : dispatch(vp, frame, row, input);
        if (outcome.exit == HV_EXIT_RETRY) {
            set_rep_start(frame, outcome.reps_done);
            return HV_EXIT_RETRY;
        }
        if (outcome.exit != HV_EXIT_DONE)
            return outcome.exit;
    }
    result = (uint64_t)outcome.reps_done << 32 | outcome.status;
    set_result(frame, result);
    if (attention && HV_ATTENTION(hv, HV_ATTENTION_TRACE))
        hv->ops->trace_hypercall(hv->context, vp->handle, row == HV_NO_ROW ? -1 : (int)row, input, result);
    return HV_EXIT_DONE;
}

static enum hv_exit timed_hypercall(struct hv_vp *vp, struct hv_call_frame *frame)
{
    uint64_t began = hv_cost_begin(vp, HV_VPV_Hypercalls);
    enum hv_exit exit = hypercall(vp, frame, true);

    if (exit == HV_EXIT_DONE)
        hv_cost_end(vp, HV_VPV_Hypercalls, began);
    return exit;
}

/* A call that was left off, to let others go on or because it waits, is one call. */
static NOINLINE enum hv_exit hypercall_with_attention(struct hv_vp *vp, struct hv_call_frame *frame)
{
    uint64_t input = input_value(frame);
    enum hv_exit exit;

    if (!HV_ATTENTION(vp->hv, HV_ATTENTION_CALL_EVENTS))
        return timed_hypercall(vp, frame);
    if (input != vp->unfinished_call)
        HV_LOG(vp, HC_HYPERCALL, hv_event_rip(vp), input);
    exit = timed_hypercall(vp, frame);
    vp->unfinished_call = exit == HV_EXIT_RETRY ? input_value(frame) : 0;
    if (exit != HV_EXIT_RETRY)
        HV_LOG(vp, HYPERCALL_END, input, exit == HV_EXIT_DONE ? result_of(frame) : 0, exit);
    hv_log_reflected(vp, exit);
    return exit;
}

#define UNUSUAL_CALLS (HV_ATTENTION_CALL_EVENTS | HV_ATTENTION_TRACE | HV_ATTENTION_RULES(HV_INJECT_HYPERCALL))

enum hv_exit hv_hypercall(struct hv_vp *vp, struct hv_call_frame *frame)
{
    if (HV_ATTENTION(vp->hv, UNUSUAL_CALLS) || hv_cost_is_due(vp, HV_VPV_Hypercalls))
        return hypercall_with_attention(vp, frame);
    return hypercall(vp, frame, false);
}

/* -- Registers of this chapter -- */

/* TLFS 3.6: without an identity there is no hypercall page, unless the guest locked the page's place. */
#define HYPERCALL_LOCKED (UINT64_C(1) << 1) /* later than 2.0a */

static bool hypercall_locked(const struct hv_partition *partition)
{
    return partition->hv->config.generation == HV_GEN_CURRENT &&
           (atomic_load(&partition->hypercall_msr) & HYPERCALL_LOCKED);
}

static void show_hypercall_page(struct hv_partition *partition)
{
    hv_show_overlay(partition, HV_OVERLAY_HYPERCALL, 0, partition->hypercall_page,
                    atomic_load(&partition->hypercall_msr), HV_OVERLAY_READ_EXECUTE);
}

enum hv_exit hv_msr_read_guest_os_id(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)offset;
    *value = atomic_load(&vp->partition->guest_os_id);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_write_guest_os_id(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    struct hv_partition *partition = vp->partition;
    bool disable;

    (void)offset;
    hv_vp_lock_take(&partition->register_lock);
    atomic_store(&partition->guest_os_id, value);
    disable =
        value == 0 && (atomic_load(&partition->hypercall_msr) & HV_PAGE_MSR_ENABLE) && !hypercall_locked(partition);
    if (disable)
        atomic_fetch_and(&partition->hypercall_msr, ~HV_PAGE_MSR_ENABLE);
    hv_vp_lock_drop(&partition->register_lock);
    if (disable)
        show_hypercall_page(partition);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_read_hypercall(struct hv_vp *vp, uint32_t offset, uint64_t *value)
{
    (void)offset;
    *value = atomic_load(&vp->partition->hypercall_msr);
    return HV_EXIT_DONE;
}

enum hv_exit hv_msr_write_hypercall(struct hv_vp *vp, uint32_t offset, uint64_t value)
{
    struct hv_partition *partition = vp->partition;
    enum hv_exit exit = HV_EXIT_DONE;

    (void)offset;
    if ((value & HV_PAGE_MASK) >= partition->hv->gpa_limit)
        return HV_EXIT_GP; /* TLFS 4.12 */
    hv_vp_lock_take(&partition->register_lock);
    if (hypercall_locked(partition)) {
        exit = HV_EXIT_GP;
    } else {
        if (atomic_load(&partition->guest_os_id) == 0)
            value &= ~HV_PAGE_MSR_ENABLE;
        atomic_store(&partition->hypercall_msr, value);
    }
    hv_vp_lock_drop(&partition->register_lock);
    if (exit == HV_EXIT_DONE)
        show_hypercall_page(partition);
    return exit;
}
