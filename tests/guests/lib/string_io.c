/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "string_io.h"

#include "guest.h"

#define RFLAGS_DF 0x400u
#define PAGE_FAULT_WRITE 0x2u
#define PAGE_FAULT_USER 0x4u
#define ATTRIBUTE_LONG 0x2000u
#define ATTRIBUTE_BIG 0x4000u

struct transfer {
    const struct child *child;
    struct intercept *intercept;
    const struct hv_io_message *message;
    uint64_t segment_base, address_mask;
    uint64_t index, count; /* RSI or RDI, and RCX */
};

/* Prefixes and one byte of opcode; the hypervisor need not tell the length of string instructions (TLFS 16.5.3). */
static unsigned instruction_length(const struct hv_io_message *message)
{
    for (unsigned i = 0; i < message->count && i < sizeof(message->bytes); i++) {
        if ((message->bytes[i] & 0xFC) == 0x6C) {
            return i + 1;
        }
    }
    return 0;
}

static bool has_prefix(const struct hv_io_message *message, uint8_t prefix)
{
    for (unsigned i = 0; i < message->count && (message->bytes[i] & 0xFC) != 0x6C; i++) {
        if (message->bytes[i] == prefix) {
            return true;
        }
    }
    return false;
}

static uint64_t address_mask(const struct hv_io_message *message)
{
    const struct hv_intercept_header *header = &message->header;
    bool other = has_prefix(message, 0x67);
    if (header->execution_state & HV_STATE_LMA && header->cs.attributes & ATTRIBUTE_LONG) {
        return other ? UINT32_MAX : UINT64_MAX;
    }
    return !!(header->cs.attributes & ATTRIBUTE_BIG) != other ? UINT32_MAX : UINT16_MAX;
}

static struct transfer begin(struct intercept *intercept, const struct child *child)
{
    const struct hv_io_message *message = (const void *)intercept_header(intercept);
    bool write = intercept->io.write;
    struct transfer transfer = {.child = child, .intercept = intercept, .message = message};
    transfer.address_mask = address_mask(message);
    bool long_code = intercept_header(intercept)->cs.attributes & ATTRIBUTE_LONG;
    transfer.segment_base = long_code ? 0 : write ? message->ds.base : message->es.base;
    transfer.index = write ? message->rsi : message->rdi;
    transfer.count = intercept->io.repeated ? message->rcx & transfer.address_mask : 1;
    return transfer;
}

/* Where the current element lies, or NULL: a fault. */
static uint8_t *find_element(const struct transfer *transfer)
{
    uint64_t address = transfer->segment_base + (transfer->index & transfer->address_mask);
    struct hv_in_translate_virtual_address input = {
        .partition = transfer->child->id,
        .vp = transfer->intercept->vp,
        .flags = transfer->intercept->io.write ? HV_TRANSLATE_READ : HV_TRANSLATE_WRITE,
        .gva_page = address / PAGE_SIZE,
    };
    struct hv_out_translate_virtual_address output;
    HV_MUST(hvcall_translate_virtual_address(&input, &output));
    if (output.result != HV_TRANSLATE_SUCCESS) {
        return NULL;
    }
    uint64_t gpa = output.gpa_page * PAGE_SIZE + address % PAGE_SIZE;
    uint8_t *at = child_memory(transfer->child, gpa, transfer->intercept->io.size);
    if (!at) {
        guest_panic("INS or OUTS at GPA %llx, which is no memory", (unsigned long long)gpa);
    }
    return at;
}

static void store_progress(const struct transfer *transfer)
{
    struct hv_register_assignment list[2] = {
        {.name = transfer->intercept->io.write ? HV_REGISTER_Rsi : HV_REGISTER_Rdi, .value.u64 = transfer->index},
        {.name = HV_REGISTER_Rcx, .value.u64 = transfer->count},
    };
    child_set_registers(transfer->child, transfer->intercept->vp, list, transfer->intercept->io.repeated ? 2 : 1);
}

static enum intercept_action fault(const struct transfer *transfer)
{
    const struct intercept *intercept = transfer->intercept;
    bool user = (intercept_header(intercept)->execution_state & HV_STATE_CPL) == 3;
    uint32_t error = (intercept->io.write ? 0 : PAGE_FAULT_WRITE) | (user ? PAGE_FAULT_USER : 0);
    child_set_register(transfer->child, intercept->vp, HV_REGISTER_Cr2,
                       transfer->segment_base + (transfer->index & transfer->address_mask));
    child_inject_exception(transfer->child, intercept->vp, VECTOR_PF, true, error);
    return INTERCEPT_AGAIN;
}

enum intercept_action string_io(struct intercept *intercept, const struct child *child, string_io_element *element,
                                void *context)
{
    struct transfer transfer = begin(intercept, child);
    unsigned size = intercept->io.size;
    uint64_t step = intercept_header(intercept)->rflags & RFLAGS_DF ? -(uint64_t)size : size;
    while (transfer.count > 0) {
        uint8_t *at = find_element(&transfer);
        if (!at) {
            store_progress(&transfer);
            return fault(&transfer);
        }
        if (intercept->io.write) {
            intercept->io.value = 0;
            memcpy(&intercept->io.value, at, size);
        }
        element(intercept, context);
        if (!intercept->io.write) {
            memcpy(at, &intercept->io.value, size);
        }
        transfer.index += step;
        transfer.count--;
    }
    store_progress(&transfer);
    intercept->length = instruction_length(transfer.message);
    return INTERCEPT_DONE;
}
