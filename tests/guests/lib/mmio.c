/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "mmio.h"

#include "guest.h"

/* What the prefixes say, and how far the bytes have been read. */
struct cursor {
    const uint8_t *bytes;
    unsigned at, count;
    bool wide; /* 64-bit code */
    bool operand16, address_override;
    uint8_t rex;
    bool overrun;
};

static uint8_t next_byte(struct cursor *cursor)
{
    if (cursor->at >= cursor->count) {
        cursor->overrun = true;
        return 0;
    }
    return cursor->bytes[cursor->at++];
}

static uint64_t next_value(struct cursor *cursor, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++) {
        value |= (uint64_t)next_byte(cursor) << i * 8;
    }
    return value;
}

/* Returns the first opcode byte. Segment and lock prefixes change nothing here: the GPA is known already. */
static uint8_t read_prefixes(struct cursor *cursor)
{
    for (;;) {
        uint8_t byte = next_byte(cursor);
        switch (byte) {
        case 0x66:
            cursor->operand16 = true;
            break;
        case 0x67:
            cursor->address_override = true;
            break;
        case 0x26:
        case 0x2E:
        case 0x36:
        case 0x3E:
        case 0x64:
        case 0x65:
        case 0xF0:
            break;
        default:
            if (cursor->wide && (byte & 0xF0) == 0x40) {
                cursor->rex = byte;
                return next_byte(cursor);
            }
            return byte;
        }
    }
}

/* Skips the address of a ModRM operand in memory; returns the register number in the other half. */
static unsigned read_modrm(struct cursor *cursor, bool *memory)
{
    uint8_t modrm = next_byte(cursor);
    unsigned mode = modrm >> 6, base = modrm & 7;
    *memory = mode != 3;
    if (*memory && base == 4) {
        base = next_byte(cursor) & 7; /* SIB: a base of 5 without displacement has 32 bits of it, like RIP-relative */
    }
    if (mode == 1) {
        next_value(cursor, 1);
    } else if (mode == 2 || (mode == 0 && base == 5)) {
        next_value(cursor, 4);
    }
    return (modrm >> 3 & 7) | (cursor->rex & 4 ? 8 : 0);
}

static unsigned operand_size(const struct cursor *cursor)
{
    return cursor->rex & 8 ? 8 : cursor->operand16 ? 2 : 4;
}

static void name_register(const struct cursor *cursor, struct mmio *mmio, unsigned number)
{
    mmio->high_byte = mmio->size == 1 && !mmio->extend && !cursor->rex && number >= 4;
    mmio->name = HV_REGISTER_Rax + (mmio->high_byte ? number - 4 : number);
}

/* 16-bit address forms lay ModRM out differently; nobody reaches a device above 1 MiB with them. */
static bool address_size_known(const struct cursor *cursor)
{
    return cursor->wide || !cursor->address_override;
}

static bool decode_move(struct cursor *cursor, struct mmio *mmio, uint8_t opcode)
{
    bool memory;
    mmio->size = opcode & 1 ? operand_size(cursor) : 1;
    switch (opcode) {
    case 0x88: /* MOV r/m, r */
    case 0x89:
    case 0x8A: /* MOV r, r/m */
    case 0x8B:
        name_register(cursor, mmio, read_modrm(cursor, &memory));
        return memory && mmio->write == (opcode < 0x8A);
    case 0xC6: /* MOV r/m, immediate; the immediate is sign-extended from 32 bits */
    case 0xC7:
        read_modrm(cursor, &memory);
        mmio->value = next_value(cursor, mmio->size == 8 ? 4 : mmio->size);
        mmio->value = mmio->size == 8 ? (uint64_t)(int32_t)mmio->value : mmio->value;
        mmio->name = 0;
        return memory && mmio->write;
    case 0xA0: /* MOV AL/rAX, moffs */
    case 0xA1:
    case 0xA2: /* MOV moffs, AL/rAX */
    case 0xA3:
        next_value(cursor, cursor->wide && !cursor->address_override ? 8 : 4);
        mmio->name = HV_REGISTER_Rax;
        return mmio->write == (opcode >= 0xA2);
    default:
        return false;
    }
}

/* MOVZX r, r/m8 and r/m16 */
static bool decode_extension(struct cursor *cursor, struct mmio *mmio, uint8_t opcode)
{
    bool memory;
    if (opcode != 0xB6 && opcode != 0xB7) {
        return false;
    }
    mmio->size = opcode == 0xB6 ? 1 : 2;
    mmio->extend = operand_size(cursor);
    name_register(cursor, mmio, read_modrm(cursor, &memory));
    return memory && !mmio->write;
}

static uint64_t size_mask(unsigned size)
{
    return size == 8 ? UINT64_MAX : (UINT64_C(1) << size * 8) - 1;
}

bool mmio_decode(struct intercept *intercept, struct mmio *mmio)
{
    const struct hv_intercept_header *header = intercept_header(intercept);
    const struct child child = {.id = intercept->partition};
    struct cursor cursor = {.bytes = intercept->memory.bytes,
                            .count = intercept->memory.count,
                            .wide = header->execution_state & HV_STATE_LMA && header->cs.attributes & 0x2000};
    *mmio = (struct mmio){.gpa = intercept->memory.gpa, .write = intercept->memory.write};
    uint8_t opcode = read_prefixes(&cursor);
    bool extension = opcode == 0x0F;
    if (!(extension ? decode_extension(&cursor, mmio, next_byte(&cursor)) : decode_move(&cursor, mmio, opcode)) ||
        cursor.overrun || !address_size_known(&cursor)) {
        return false;
    }
    intercept->length = cursor.at;
    if (mmio->write && mmio->name) {
        mmio->value = child_get_register(&child, intercept->vp, mmio->name) >> (mmio->high_byte ? 8 : 0);
        mmio->value &= size_mask(mmio->size);
    }
    return true;
}

void mmio_finish(const struct intercept *intercept, const struct mmio *mmio)
{
    const struct child child = {.id = intercept->partition};
    if (mmio->write) {
        return;
    }
    unsigned size = mmio->extend ? mmio->extend : mmio->size, shift = mmio->high_byte ? 8 : 0;
    uint64_t value = mmio->value & size_mask(mmio->size);
    if (size < 4) {
        /* Narrow registers leave the rest of the wide one alone. */
        uint64_t old = child_get_register(&child, intercept->vp, mmio->name);
        value = (old & ~(size_mask(size) << shift)) | value << shift;
    }
    child_set_register(&child, intercept->vp, mmio->name, value);
}
