/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Instructions as far as it matters what memory they access and how long they are. See kvm_undo.h.
 */
#include "kvm_undo.h"

#include <string.h>

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI };
enum { ES, CS, SS, DS, FS, GS, NO_SEGMENT };

/* What it does to registers, beside reading or writing at `places`. */
enum kind { PLAIN, STRING, PUSH, POP, CALL, EXCHANGE };

#define PLACES 2

struct instruction {
    uint8_t bytes[MSHV_INSTRUCTION_MOST];
    size_t there; /* bytes that could be read */
    size_t at;
    bool ran_out;

    unsigned rex, segment;
    bool operand_prefix, address_prefix, rep;
    unsigned address_bits, operand; /* operand: bytes */
    bool operand_known;

    enum kind kind;
    bool string_read, string_write;
    bool writes; /* to memory */
    unsigned reg; /* ModRM.reg with REX.R */
    size_t immediate; /* bytes behind */
    unsigned places;
    uint64_t place[PLACES];
    uint64_t pushed; /* where PUSH or CALL has written to; `place` is what it reads */
};

/* -- Bytes -- */

static uint8_t next(struct instruction *i)
{
    if (i->at >= i->there) {
        i->ran_out = true;
        return 0;
    }
    return i->bytes[i->at++];
}

static int64_t next_signed(struct instruction *i, unsigned size)
{
    uint64_t value = 0;

    for (unsigned n = 0; n < size; n++)
        value |= (uint64_t)next(i) << (8 * n);
    return size == 1 ? (int8_t)value : size == 2 ? (int16_t)value : size == 4 ? (int32_t)value : (int64_t)value;
}

static uint64_t mask(unsigned bits)
{
    return bits >= 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
}

/* -- Prefixes -- */

static bool take_prefix(struct instruction *i, uint8_t byte)
{
    static const uint8_t overrides[] = {0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65}; /* ES CS SS DS FS GS */

    for (unsigned n = 0; n < sizeof(overrides); n++) {
        if (byte == overrides[n]) {
            i->segment = n;
            return true;
        }
    }
    switch (byte) {
    case 0x66:
        i->operand_prefix = true;
        return true;
    case 0x67:
        i->address_prefix = true;
        return true;
    case 0xF2:
    case 0xF3:
        i->rep = true;
        return true;
    case 0xF0:
        return true;
    default:
        return false;
    }
}

static uint8_t take_prefixes(struct instruction *i, unsigned bits)
{
    uint8_t byte;

    i->segment = NO_SEGMENT;
    do
        byte = next(i);
    while (!i->ran_out && take_prefix(i, byte));
    if (bits == 64 && (byte & 0xF0) == 0x40) {
        i->rex = byte;
        byte = next(i);
    }
    i->address_bits = i->address_prefix ? (bits == 32 ? 16 : 32) : bits;
    if (i->rex & 8)
        i->operand = 8;
    else
        i->operand = (bits == 16) != i->operand_prefix ? 2 : 4;
    return byte;
}

/* -- Where it goes in memory -- */

static uint64_t linear(const struct mshv_undo_state *s, const struct instruction *i, unsigned segment, uint64_t offset)
{
    offset &= mask(i->address_bits);
    if (s->bits == 64)
        return offset + (segment == FS || segment == GS ? s->segment[segment] : 0);
    return (uint32_t)(offset + s->segment[segment]);
}

static unsigned segment_of(const struct instruction *i, unsigned by_default)
{
    return i->segment == NO_SEGMENT ? by_default : i->segment;
}

static void add_place(struct instruction *i, uint64_t address)
{
    if (i->places < PLACES)
        i->place[i->places++] = address;
}

static uint64_t address_16(const struct mshv_undo_state *s, struct instruction *i, unsigned mod, unsigned rm,
                           unsigned *segment)
{
    static const int8_t first[] = {RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX},
                        second[] = {RSI, RDI, RSI, RDI, -1, -1, -1, -1};
    uint64_t address = 0;

    if (mod == 0 && rm == 6) {
        *segment = DS;
        return (uint64_t)next_signed(i, 2);
    }
    address = s->gpr[first[rm]] + (second[rm] >= 0 ? s->gpr[second[rm]] : 0);
    *segment = first[rm] == RBP ? SS : DS;
    if (mod)
        address += (uint64_t)next_signed(i, mod == 1 ? 1 : 2);
    return address;
}

static uint64_t address_sib(const struct mshv_undo_state *s, struct instruction *i, unsigned mod, unsigned *segment)
{
    uint8_t sib = next(i);
    unsigned index = (sib >> 3 & 7) | (i->rex & 2 ? 8 : 0), base = (sib & 7) | (i->rex & 1 ? 8 : 0);
    uint64_t address = index == RSP ? 0 : s->gpr[index] << (sib >> 6);

    if ((base & 7) == RBP && mod == 0)
        return address + (uint64_t)next_signed(i, 4);
    if (base == RSP || base == RBP)
        *segment = SS;
    return address + s->gpr[base];
}

static uint64_t address_wide(const struct mshv_undo_state *s, struct instruction *i, unsigned mod, unsigned rm,
                             unsigned *segment, bool *relative)
{
    uint64_t address;

    if (rm == 4) {
        address = address_sib(s, i, mod, segment);
    } else if (rm == 5 && mod == 0) {
        *relative = s->bits == 64;
        return (uint64_t)next_signed(i, 4);
    } else {
        unsigned base = rm | (i->rex & 1 ? 8 : 0);

        address = s->gpr[base];
        if (base == RBP)
            *segment = SS;
    }
    if (mod)
        address += (uint64_t)next_signed(i, mod == 1 ? 1 : 4);
    return address;
}

/* Returns ModRM.reg without REX. `at` is where the instruction begins. */
static unsigned take_modrm(const struct mshv_undo_state *s, struct instruction *i, uint64_t at, size_t immediate)
{
    uint8_t modrm = next(i);
    unsigned mod = modrm >> 6, rm = modrm & 7, segment = DS;
    bool relative = false;
    uint64_t address;

    i->reg = (modrm >> 3 & 7) | (i->rex & 4 ? 8 : 0);
    if (mod == 3)
        return modrm >> 3 & 7;
    if (i->address_bits == 16)
        address = address_16(s, i, mod, rm, &segment);
    else
        address = address_wide(s, i, mod, rm, &segment, &relative);
    if (relative)
        address += at + i->at + immediate;
    add_place(i, linear(s, i, segment_of(i, segment), address));
    return modrm >> 3 & 7;
}

/* -- Opcodes: what follows them -- */

static bool is_in(uint8_t opcode, const uint8_t *ranges, size_t count)
{
    for (size_t n = 0; n < count; n += 2) {
        if (opcode >= ranges[n] && opcode <= ranges[n + 1])
            return true;
    }
    return false;
}
#define IS_IN(opcode, ...) is_in(opcode, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static bool one_byte_has_modrm(uint8_t opcode)
{
    if (opcode < 0x40)
        return (opcode & 7) < 4;
    return IS_IN(opcode, 0x63, 0x63, 0x69, 0x69, 0x6B, 0x6B, 0x80, 0x8F, 0xC0, 0xC1, 0xC4, 0xC7, 0xD0, 0xD3, 0xD8, 0xDF,
                 0xF6, 0xF7, 0xFE, 0xFF);
}

static size_t one_byte_immediate(const struct instruction *i, uint8_t opcode)
{
    size_t wide = i->operand == 2 ? 2 : 4;

    if (opcode < 0x40)
        return (opcode & 7) == 4 ? 1 : (opcode & 7) == 5 ? wide : 0;
    if (IS_IN(opcode, 0x6A, 0x6B, 0x70, 0x80, 0x82, 0x83, 0xA8, 0xA8, 0xB0, 0xB7, 0xC0, 0xC1, 0xC6, 0xC6, 0xCD, 0xCD,
              0xD4, 0xD5, 0xE0, 0xE7, 0xEB, 0xEB))
        return 1;
    if (IS_IN(opcode, 0x68, 0x69, 0x81, 0x81, 0xA9, 0xA9, 0xC7, 0xC7, 0xE8, 0xE9))
        return wide;
    if (IS_IN(opcode, 0xB8, 0xBF))
        return i->operand == 8 ? 8 : wide;
    if (opcode == 0xC2 || opcode == 0xCA)
        return 2;
    return opcode == 0xC8 ? 3 : 0;
}

static bool two_byte_has_modrm(uint8_t opcode)
{
    return !IS_IN(opcode, 0x05, 0x09, 0x0B, 0x0B, 0x30, 0x37, 0x77, 0x77, 0x80, 0x8F, 0xA0, 0xA2, 0xA8, 0xAA, 0xC8,
                  0xCF);
}

static size_t two_byte_immediate(const struct instruction *i, uint8_t opcode)
{
    if (IS_IN(opcode, 0x70, 0x73, 0xA4, 0xA4, 0xAC, 0xAC, 0xBA, 0xBA, 0xC2, 0xC2, 0xC4, 0xC6))
        return 1;
    return IS_IN(opcode, 0x80, 0x8F) ? (i->operand == 2 ? 2 : 4) : 0;
}

/* `sub` is ModRM.reg. */
static bool one_byte_writes(uint8_t opcode, unsigned sub)
{
    if (opcode < 0x38)
        return (opcode & 7) < 2;
    if (IS_IN(opcode, 0x80, 0x83))
        return sub != 7;
    if (opcode == 0xF6 || opcode == 0xF7)
        return sub == 2 || sub == 3;
    if (opcode == 0xFE || opcode == 0xFF)
        return sub < 4;
    if (opcode == 0xD9)
        return IS_IN((uint8_t)sub, 2, 3, 6, 7);
    if (opcode == 0xDB || opcode == 0xDD || opcode == 0xDF)
        return IS_IN((uint8_t)sub, 1, 3, 6, 7);
    return IS_IN(opcode, 0x86, 0x89, 0x8C, 0x8C, 0x8F, 0x8F, 0xA2, 0xA5, 0xAA, 0xAB, 0xC0, 0xC1, 0xC6, 0xC7, 0xD0,
                 0xD3);
}

static bool two_byte_writes(uint8_t opcode, unsigned sub)
{
    if (opcode == 0xBA)
        return sub >= 5;
    if (opcode == 0xAE)
        return sub == 0 || sub == 3 || sub == 4 || sub == 6;
    if (opcode < 2)
        return sub < 2 || (opcode == 1 && sub == 4);
    return IS_IN(opcode, 0x11, 0x11, 0x13, 0x13, 0x17, 0x17, 0x29, 0x29, 0x2B, 0x2B, 0x7E, 0x7F, 0x90, 0x9F, 0xA4, 0xA5,
                 0xAB, 0xAD, 0xB0, 0xB1, 0xB3, 0xB3, 0xBB, 0xBB, 0xC0, 0xC1, 0xC3, 0xC3, 0xC7, 0xC7, 0xD6, 0xD6, 0xE7,
                 0xE7);
}

/* 0F 38 (`map` 2) and 0F 3A (3) */
static bool three_byte_writes(unsigned map, uint8_t opcode)
{
    if (map == 2)
        return IS_IN(opcode, 0x2E, 0x2F, 0x8E, 0x8E, 0xF1, 0xF1);
    return IS_IN(opcode, 0x14, 0x17, 0x19, 0x19, 0x1D, 0x1D, 0x39, 0x39);
}

/* -- Particular instructions -- */

/* The width of RSP, and of what is pushed. */
static unsigned stack_bits(const struct mshv_undo_state *s)
{
    return s->bits == 64 ? 64 : s->wide_stack ? 32 : 16;
}

static void set_pushed_size(const struct mshv_undo_state *s, struct instruction *i)
{
    if (s->bits == 64)
        i->operand = i->operand_prefix ? 2 : 8;
    i->operand_known = true;
}

static uint64_t stack_linear(const struct mshv_undo_state *s, uint64_t rsp)
{
    rsp &= mask(stack_bits(s));
    return s->bits == 64 ? rsp : (uint32_t)(rsp + s->segment[SS]);
}

static void push(const struct mshv_undo_state *s, struct instruction *i, enum kind kind)
{
    i->kind = kind;
    i->writes = true;
    set_pushed_size(s, i);
    i->pushed = stack_linear(s, s->gpr[RSP]); /* when it has been done */
}

static void string_operand(struct instruction *i, uint8_t opcode)
{
    i->kind = STRING;
    i->string_read = IS_IN(opcode, 0x6E, 0x6F, 0xA4, 0xA7, 0xAC, 0xAD);
    i->string_write = IS_IN(opcode, 0x6C, 0x6D, 0xA4, 0xA7, 0xAA, 0xAB, 0xAE, 0xAF);
    if (!(opcode & 1))
        i->operand = 1;
    i->operand_known = true;
}

static bool is_string(uint8_t opcode)
{
    return IS_IN(opcode, 0x6C, 0x6F, 0xA4, 0xA7, 0xAA, 0xAF);
}

/* MOV, arithmetic, XCHG, shifts: bit 0 of the opcode says how wide. */
static bool has_sized_operand(uint8_t opcode)
{
    return (opcode < 0x40 && (opcode & 7) < 4) ||
           IS_IN(opcode, 0x80, 0x8B, 0xA0, 0xA3, 0xC0, 0xC1, 0xC6, 0xC7, 0xD0, 0xD3, 0xF6, 0xF7, 0xFE, 0xFE);
}

static void group_ff(const struct mshv_undo_state *s, struct instruction *i, unsigned sub)
{
    if (sub == 6)
        push(s, i, PUSH);
    else if (sub == 2)
        push(s, i, CALL);
    else if (sub < 2)
        i->operand_known = true;
}

static void decode_one_byte(const struct mshv_undo_state *s, struct instruction *i, uint8_t opcode, uint64_t at)
{
    unsigned sub = 0;

    i->immediate = one_byte_immediate(i, opcode);
    if (has_sized_operand(opcode)) {
        if (!(opcode & 1))
            i->operand = 1;
        i->operand_known = true;
    }
    if (opcode == 0x8F) { /* its address is made with what RSP is afterwards, as it is now */
        i->kind = POP;
        set_pushed_size(s, i);
    }
    if (one_byte_has_modrm(opcode)) {
        sub = take_modrm(s, i, at, i->immediate);
        if ((opcode & 0xFE) == 0xF6 && sub < 2)
            i->immediate = i->operand == 1 ? 1 : i->operand == 2 ? 2 : 4;
    }
    i->writes = one_byte_writes(opcode, sub);
    if (is_string(opcode))
        string_operand(i, opcode);
    else if (IS_IN(opcode, 0x50, 0x57, 0x68, 0x68, 0x6A, 0x6A, 0x9C, 0x9C) ||
             (s->bits != 64 && (opcode == 0x06 || opcode == 0x0E || opcode == 0x16 || opcode == 0x1E)))
        push(s, i, PUSH);
    else if (opcode == 0xE8)
        push(s, i, CALL);
    else if (opcode == 0xFF)
        group_ff(s, i, sub);
    else if (opcode == 0x86 || opcode == 0x87)
        i->kind = EXCHANGE;
    else if (opcode >= 0xA0 && opcode <= 0xA3)
        add_place(i, linear(s, i, segment_of(i, DS), (uint64_t)next_signed(i, i->address_bits / 8)));
}

/* 0F, 0F 38 and 0F 3A */
static void decode_two_byte(const struct mshv_undo_state *s, struct instruction *i, uint64_t at)
{
    uint8_t opcode = next(i);
    unsigned sub = 0;

    if (opcode == 0x38 || opcode == 0x3A) {
        i->immediate = opcode == 0x3A;
        i->writes = three_byte_writes(opcode == 0x38 ? 2 : 3, next(i));
        take_modrm(s, i, at, i->immediate);
    } else {
        i->immediate = two_byte_immediate(i, opcode);
        if (two_byte_has_modrm(opcode))
            sub = take_modrm(s, i, at, i->immediate);
        i->writes = two_byte_writes(opcode, sub);
        if (opcode == 0xA0 || opcode == 0xA8)
            push(s, i, PUSH);
    }
}

static void decode_vex(const struct mshv_undo_state *s, struct instruction *i, uint8_t prefix, uint64_t at)
{
    uint8_t first = next(i);
    unsigned map = 1;

    i->rex = first & 0x80 ? 0 : 4;
    if (prefix == 0xC4) {
        map = first & 0x1F;
        i->rex = ~first >> 5 & 7;
        next(i);
    }
    first = next(i);
    i->writes = map == 1 ? two_byte_writes(first, 0) : three_byte_writes(map, first);
    i->immediate = map == 3 || (map == 1 && two_byte_immediate(i, first));
    take_modrm(s, i, at, i->immediate);
}

/* LES and LDS have memory operands; VEX has a register in that place. */
static bool is_vex(const struct mshv_undo_state *s, const struct instruction *i, uint8_t opcode)
{
    return (opcode == 0xC4 || opcode == 0xC5) && (s->bits == 64 || (i->at < i->there && i->bytes[i->at] >= 0xC0));
}

/* Returns the length, or 0 when the bytes are not an instruction. */
static size_t decode(const struct mshv_undo_state *s, struct instruction *i, uint64_t at)
{
    uint8_t opcode = take_prefixes(i, s->bits);

    if (is_vex(s, i, opcode))
        decode_vex(s, i, opcode, at);
    else if (opcode == 0x0F)
        decode_two_byte(s, i, at);
    else
        decode_one_byte(s, i, opcode, at);
    for (size_t n = 0; n < i->immediate; n++)
        next(i);
    return i->ran_out ? 0 : i->at;
}

/* -- Undoing -- */

static void set_low(uint64_t *reg, unsigned bits, uint64_t value)
{
    if (bits == 32)
        *reg = (uint32_t)value;
    else
        *reg = (*reg & ~mask(bits)) | (value & mask(bits));
}

static void move(uint64_t *reg, unsigned bits, int64_t by)
{
    set_low(reg, bits, *reg + (uint64_t)by);
}

static void undo_string(struct mshv_undo_state *s, const struct instruction *i)
{
    int64_t step = s->down ? (int64_t)i->operand : -(int64_t)i->operand;

    if (i->string_read)
        move(&s->gpr[RSI], i->address_bits, step);
    if (i->string_write)
        move(&s->gpr[RDI], i->address_bits, step);
    if (i->rep)
        move(&s->gpr[RCX], i->address_bits, 1);
}

/* Memory has what the register had. */
static void undo_exchange(struct mshv_undo_state *s, const struct instruction *i, uint64_t value)
{
    bool high = i->operand == 1 && !i->rex && i->reg >= 4 && i->reg < 8;
    uint64_t *reg = &s->gpr[high ? i->reg - 4 : i->reg];

    if (high)
        *reg = (*reg & ~UINT64_C(0xFF00)) | (value & 0xFF) << 8;
    else
        set_low(reg, i->operand * 8, value);
}

static void undo_registers(struct mshv_undo_state *s, const struct instruction *i, uint64_t value)
{
    switch (i->kind) {
    case STRING:
        undo_string(s, i);
        break;
    case PUSH:
    case CALL:
        move(&s->gpr[RSP], stack_bits(s), i->operand);
        break;
    case POP:
        move(&s->gpr[RSP], stack_bits(s), -(int64_t)i->operand);
        break;
    case EXCHANGE:
        undo_exchange(s, i, value);
        break;
    case PLAIN:
        break;
    }
}

static void add_string_places(const struct mshv_undo_state *s, struct instruction *i)
{
    if (i->string_write)
        add_place(i, linear(s, i, ES, s->gpr[RDI]));
    if (i->string_read)
        add_place(i, linear(s, i, segment_of(i, DS), s->gpr[RSI]));
}

static void set_rip(struct mshv_undo_state *s, uint64_t rip)
{
    s->rip = s->bits == 64 ? rip : s->bits == 32 ? (uint32_t)rip : (uint16_t)rip;
}

static void begin(struct instruction *i, const struct mshv_undo_access *access, uint64_t at, size_t most)
{
    memset(i, 0, sizeof(*i));
    i->there = access->read_code(access->opaque, at, i->bytes, most);
}

static bool find_place(const struct instruction *i, const struct mshv_undo_access *access, uint64_t *linear)
{
    if (access->write && (i->kind == PUSH || i->kind == CALL)) {
        *linear = i->pushed;
        return access->is_there(access->opaque, i->pushed);
    }
    for (unsigned n = 0; n < i->places; n++) {
        if (access->is_there(access->opaque, i->place[n])) {
            *linear = i->place[n];
            return true;
        }
    }
    return false;
}

/* It has been executed, and ends `length` bytes behind `at`; a repeated one may not have moved RIP. */
static bool fits_write(const struct mshv_undo_state *after, const struct mshv_undo_access *access, uint64_t at,
                       size_t length, struct mshv_undo_state *before, uint64_t *linear)
{
    struct instruction i;
    size_t size;

    begin(&i, access, at, length ? length : MSHV_INSTRUCTION_MOST);
    size = decode(after, &i, at);
    if (!size || !i.writes || (length ? size != length : i.kind != STRING || !i.rep))
        return false;
    if (i.operand_known && access->size < i.operand &&
        access->size + (access->size & (access->size - 1)) == access->size)
        return false; /* an access of that size that crosses a page comes in parts that may be of any */
    if (i.operand_known && access->size > i.operand)
        return false;
    *before = *after;
    undo_registers(before, &i, access->value);
    set_rip(before, at);
    if (i.kind == STRING)
        add_string_places(before, &i);
    return find_place(&i, access, linear);
}

/* A call has gone to its target; what it writes tells where it was. */
static bool undo_call(struct mshv_undo_state *state, const struct mshv_undo_access *access, uint64_t *linear)
{
    struct mshv_undo_state before;
    struct instruction i;

    for (size_t length = 2; length <= MSHV_INSTRUCTION_MOST; length++) {
        uint64_t at = access->value - length;

        begin(&i, access, at, length);
        if (decode(state, &i, at) != length || i.kind != CALL || i.operand != access->size)
            continue;
        if (!find_place(&i, access, linear))
            continue;
        before = *state;
        undo_registers(&before, &i, 0);
        set_rip(&before, at);
        *state = before;
        return true;
    }
    return false;
}

static bool is_prefix(const struct mshv_undo_access *access, uint64_t at, unsigned bits)
{
    struct instruction i = {0};
    uint8_t byte;

    if (access->read_code(access->opaque, at, &byte, 1) != 1)
        return false;
    return take_prefix(&i, byte) || (bits == 64 && (byte & 0xF0) == 0x40);
}

static bool undo_write(struct mshv_undo_state *state, const struct mshv_undo_access *access, uint64_t *linear)
{
    struct mshv_undo_state before, longer;
    size_t length = 0;

    while (length <= MSHV_INSTRUCTION_MOST && !fits_write(state, access, state->rip - length, length, &before, linear))
        length++;
    if (length > MSHV_INSTRUCTION_MOST)
        return undo_call(state, access, linear);
    while (length > 0 && length < MSHV_INSTRUCTION_MOST && is_prefix(access, state->rip - length - 1, state->bits)) {
        length++;
        if (fits_write(state, access, state->rip - length, length, &longer, linear))
            before = longer;
    }
    *state = before;
    return true;
}

/* Registers are as before a read. */
static bool find_read(const struct mshv_undo_state *state, const struct mshv_undo_access *access, uint64_t *linear)
{
    struct instruction i;

    begin(&i, access, state->rip, MSHV_INSTRUCTION_MOST);
    if (!decode(state, &i, state->rip))
        return false;
    if (i.kind == STRING)
        add_string_places(state, &i);
    else if (!i.places) /* POP, RET, IRET, LEAVE: from the stack */
        add_place(&i, stack_linear(state, i.bytes[0] == 0xC9 ? state->gpr[RBP] : state->gpr[RSP]));
    return find_place(&i, access, linear);
}

bool mshv_undo(struct mshv_undo_state *state, const struct mshv_undo_access *access, uint64_t *linear)
{
    return access->write ? undo_write(state, access, linear) : find_read(state, access, linear);
}

/* -- I/O -- */

static bool is_io(const struct instruction *i, const struct mshv_undo_io *io, uint8_t opcode)
{
    unsigned size = opcode & 1 ? (i->operand == 2 ? 2 : 4) : 1;

    if (size != io->size)
        return false;
    return io->write ? IS_IN(opcode, 0x6E, 0x6F, 0xE6, 0xE7, 0xEE, 0xEF)
                     : IS_IN(opcode, 0x6C, 0x6D, 0xE4, 0xE5, 0xEC, 0xED);
}

static bool decode_io(const struct mshv_undo_state *s, struct instruction *i, struct mshv_undo_io *io)
{
    uint8_t opcode = take_prefixes(i, s->bits);

    if (i->ran_out || !is_io(i, io, opcode))
        return false;
    io->string = is_string(opcode);
    io->rep = io->string && i->rep;
    if (opcode < 0xEC && !io->string)
        next(i);
    i->operand = io->size;
    if (io->string)
        string_operand(i, opcode);
    if (io->string)
        i->operand = io->size;
    io->length = (unsigned)i->at;
    return !i->ran_out;
}

bool mshv_undo_io(struct mshv_undo_state *state, const struct mshv_undo_access *code, struct mshv_undo_io *io)
{
    struct instruction i;

    begin(&i, code, state->rip, MSHV_INSTRUCTION_MOST);
    if (decode_io(state, &i, io) && (!io->retired || io->rep)) {
        if (io->retired)
            undo_string(state, &i);
        return true;
    }
    for (size_t length = 1; io->retired && length <= MSHV_INSTRUCTION_MOST; length++) {
        begin(&i, code, state->rip - length, length);
        if (!decode_io(state, &i, io) || io->length != length)
            continue;
        if (io->string)
            undo_string(state, &i);
        set_rip(state, state->rip - length);
        return true;
    }
    return false;
}
