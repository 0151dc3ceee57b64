/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Instructions that KVM has executed, or begun, and the registers before them. */
#include "kvm_undo.h"

#include "check.h"

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 };
enum { ES, CS, SS, DS, FS, GS };

#define BEGIN 0x1010u /* where the instruction under test is */
#define PLACE UINT64_C(0x800000)

/* -- The machine: code from BEGIN on, and before it whatever may be taken for a prefix -- */

struct machine {
    uint8_t code[64]; /* from BEGIN - 16 on */
    uint64_t place; /* where there is an access */
};

static size_t read_code(void *opaque, uint64_t rip, uint8_t *bytes, size_t size)
{
    const struct machine *machine = opaque;
    uint64_t first = BEGIN - 16;

    if (rip < first || rip >= first + sizeof(machine->code))
        return 0;
    if (size > first + sizeof(machine->code) - rip)
        size = (size_t)(first + sizeof(machine->code) - rip);
    memcpy(bytes, machine->code + (rip - first), size);
    return size;
}

static bool is_there(void *opaque, uint64_t linear)
{
    return linear == ((const struct machine *)opaque)->place;
}

/* What lies before: NOPs. */
static struct machine machine_with(const char *code, size_t size)
{
    struct machine machine = {.place = PLACE};

    memset(machine.code, 0x90, sizeof(machine.code));
    memcpy(machine.code + 16, code, size);
    return machine;
}

static struct mshv_undo_state state_of(unsigned bits)
{
    struct mshv_undo_state state = {.rip = BEGIN, .bits = bits, .wide_stack = bits == 32};

    for (unsigned i = 0; i < 16; i++)
        state.gpr[i] = 0x1000 + i;
    state.gpr[RBX] = PLACE;
    state.gpr[RDI] = 0x5000;
    state.gpr[RSI] = 0x6000;
    state.gpr[RSP] = 0x7000;
    return state;
}

static bool equal(const struct mshv_undo_state *a, const struct mshv_undo_state *b)
{
    return a->rip == b->rip && memcmp(a->gpr, b->gpr, sizeof(a->gpr)) == 0;
}

/* KVM has executed the instruction; `after` is what it made of `before`. */
#define UNDOES_WRITE(before, after, size_, value_, code)                                                               \
    do {                                                                                                               \
        struct machine m = machine_with(code, sizeof(code) - 1);                                                       \
        struct mshv_undo_access access = {.write = true,                                                               \
                                          .size = (size_),                                                             \
                                          .value = (value_),                                                           \
                                          .is_there = is_there,                                                        \
                                          .read_code = read_code,                                                      \
                                          .opaque = &m};                                                               \
        struct mshv_undo_state state = (after);                                                                        \
        uint64_t linear = 0;                                                                                           \
        EXPECT(mshv_undo(&state, &access, &linear));                                                                   \
        EXPECT(linear == PLACE);                                                                                       \
        EXPECT(equal(&state, &(before)));                                                                              \
    } while (0)

#define PLAIN_WRITE(bits, size, code)                                                                                  \
    do {                                                                                                               \
        struct mshv_undo_state before = state_of(bits), after = before;                                                \
        after.rip += sizeof(code) - 1;                                                                                 \
        UNDOES_WRITE(before, after, size, 0x1000, code);                                                               \
    } while (0)

static void stores(void)
{
    PLAIN_WRITE(64, 4, "\x89\x03"); /* mov %eax, (%rbx) */
    PLAIN_WRITE(64, 8, "\x48\x89\x03"); /* REX.W is no prefix that does nothing */
    PLAIN_WRITE(64, 2, "\x66\x89\x03");
    PLAIN_WRITE(64, 1, "\x88\x03");
    PLAIN_WRITE(64, 1, "\xC6\x03\x55"); /* movb $0x55, (%rbx) */
    PLAIN_WRITE(64, 4, "\xC7\x03\x11\x22\x33\x44");
    PLAIN_WRITE(64, 8, "\x48\xC7\x03\x11\x22\x33\x44");
    PLAIN_WRITE(64, 4, "\x01\x03"); /* add */
    PLAIN_WRITE(64, 4, "\x83\x03\x01"); /* addl $1 */
    PLAIN_WRITE(64, 4, "\xFF\x03"); /* incl */
    PLAIN_WRITE(64, 4, "\xF7\x13"); /* notl */
    PLAIN_WRITE(64, 4, "\xC1\x23\x03"); /* shll $3 */
    PLAIN_WRITE(64, 4, "\xF0\x0F\xB1\x0B"); /* lock cmpxchg */
    PLAIN_WRITE(64, 1, "\x0F\x94\x03"); /* sete */
    PLAIN_WRITE(64, 4, "\x0F\xAB\x03"); /* bts */
    PLAIN_WRITE(64, 4, "\x0F\xBA\x2B\x03"); /* btsl $3 */
    PLAIN_WRITE(64, 16, "\x0F\x11\x03"); /* movups */
    PLAIN_WRITE(64, 8, "\x66\x0F\xD6\x03"); /* movq */
    PLAIN_WRITE(64, 8, "\xDD\x1B"); /* fstpl */
    PLAIN_WRITE(64, 4, "\x66\x0F\x3A\x16\x03\x01"); /* pextrd $1 */
    PLAIN_WRITE(64, 16, "\xC5\xF8\x11\x03"); /* vmovups */
    PLAIN_WRITE(32, 4, "\x89\x03");
    PLAIN_WRITE(32, 4, "\xA3\x00\x00\x80\x00"); /* mov %eax, 0x800000 */
    PLAIN_WRITE(16, 4, "\x66\x67\x89\x03"); /* mov %eax, (%ebx) */
}

static void addresses(void)
{
    struct mshv_undo_state before = state_of(64), after;

    before.gpr[RBX] = PLACE - 0x10;
    after = before;
    after.rip += 3;
    UNDOES_WRITE(before, after, 4, 0, "\x89\x43\x10"); /* 0x10(%rbx) */
    before.gpr[RBX] = PLACE - 0x1000 * 4 - 8;
    before.gpr[RCX] = 0x1000;
    after = before;
    after.rip += 4;
    UNDOES_WRITE(before, after, 4, 0, "\x89\x44\x8B\x08"); /* 8(%rbx,%rcx,4) */
    before = state_of(64);
    before.segment[GS] = PLACE - 0x20;
    after = before;
    after.rip += 8;
    UNDOES_WRITE(before, after, 4, 0, "\x65\x89\x04\x25\x20\x00\x00\x00"); /* %gs:0x20 */
}

static void relative_to_rip(void)
{
    struct mshv_undo_state before = state_of(64), after = before;

    after.rip += 10;
    /* movl $1, disp(%rip): the displacement counts from behind the immediate. */
    UNDOES_WRITE(before, after, 4, 1, "\xC7\x05\xE6\xEF\x7F\x00\x01\x00\x00\x00");
}

static void what_changes_registers(void)
{
    struct mshv_undo_state before = state_of(64), after;

    before.gpr[RSP] = PLACE + 8;
    after = before;
    after.rip += 1;
    after.gpr[RSP] -= 8;
    UNDOES_WRITE(before, after, 8, 0x1000, "\x50"); /* push %rax */
    after = before;
    after.rip = 0x4242;
    after.gpr[RSP] -= 8;
    UNDOES_WRITE(before, after, 8, BEGIN + 5, "\xE8\x2D\x32\x00\x00"); /* call: its return address tells */
    before = state_of(64);
    after = before;
    after.rip += 2;
    after.gpr[RAX] = 0x7777; /* what memory had */
    UNDOES_WRITE(before, after, 4, 0x1000, "\x87\x03"); /* xchg %eax, (%rbx) */
}

static void strings(void)
{
    struct mshv_undo_state before = state_of(64), after;

    before.gpr[RDI] = PLACE;
    before.gpr[RCX] = 5;
    after = before;
    after.rip += 1;
    after.gpr[RDI] += 4;
    UNDOES_WRITE(before, after, 4, 0x1000, "\xAB"); /* stosl */
    after = before; /* a repeated one stays where it is, */
    after.gpr[RDI] += 8;
    after.gpr[RCX]--;
    UNDOES_WRITE(before, after, 8, 0x1000, "\xF3\x48\xAB");
    after.rip += 3; /* but for the last time */
    UNDOES_WRITE(before, after, 8, 0x1000, "\xF3\x48\xAB");
    before.down = true;
    after = before;
    after.rip += 1;
    after.gpr[RDI] -= 1;
    after.gpr[RSI] -= 1;
    UNDOES_WRITE(before, after, 1, 0, "\xA4"); /* movsb, downwards */
}

static void what_does_not_fit(void)
{
    static const char *const codes[] = {"\x89\x01", "\x90\x90", "\xFF\xFF", "\x0F\x0B"};

    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        struct machine m = machine_with(codes[i], 2);
        struct mshv_undo_access access = {
            .write = true, .size = 4, .is_there = is_there, .read_code = read_code, .opaque = &m};
        struct mshv_undo_state before = state_of(64), state;
        uint64_t linear;

        before.rip += 2;
        state = before;
        EXPECT(!mshv_undo(&state, &access, &linear));
        EXPECT(equal(&state, &before));
    }
}

/* KVM has not executed them yet. */
static void reads(void)
{
    static const struct {
        const char *code;
        size_t size;
    } codes[] = {{"\x8B\x03", 2}, {"\x03\x03", 2}, {"\xFF\x33", 2}, {"\x0F\xB6\x03", 3}, {"\x48\x3B\x03", 3}};

    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        struct machine m = machine_with(codes[i].code, codes[i].size);
        struct mshv_undo_access access = {.size = 4, .is_there = is_there, .read_code = read_code, .opaque = &m};
        struct mshv_undo_state before = state_of(64), state = before;
        uint64_t linear = 0;

        EXPECT(mshv_undo(&state, &access, &linear) && linear == PLACE && equal(&state, &before));
    }
}

/* -- I/O -- */

static struct mshv_undo_io undo_io(struct mshv_undo_state *state, const char *code, size_t length, bool write,
                                   bool retired, unsigned size)
{
    struct machine m = machine_with(code, length);
    struct mshv_undo_access access = {.read_code = read_code, .opaque = &m};
    struct mshv_undo_io io = {.write = write, .retired = retired, .size = size};

    EXPECT(mshv_undo_io(state, &access, &io));
    return io;
}

static void ports(void)
{
    struct mshv_undo_state before = state_of(64), state = before;
    struct mshv_undo_io io = undo_io(&state, "\xE6\x80\xE6\x80", 4, true, false, 1);

    EXPECT(io.length == 2 && !io.string && !io.rep && equal(&state, &before));
    state.rip += 2; /* retired, and there is another one behind */
    io = undo_io(&state, "\xE6\x80\xE6\x80", 4, true, true, 1);
    EXPECT(io.length == 2 && equal(&state, &before));
    state.rip += 2;
    io = undo_io(&state, "\x66\xEF", 2, true, true, 2);
    EXPECT(io.length == 2 && equal(&state, &before));
    io = undo_io(&state, "\xED", 1, false, false, 4);
    EXPECT(io.length == 1 && !io.string && equal(&state, &before));
    state.gpr[RSI]++;
    state.gpr[RCX]--;
    io = undo_io(&state, "\xF3\x6E", 2, true, true, 1);
    EXPECT(io.string && io.rep && io.length == 2 && equal(&state, &before));
    io = undo_io(&state, "\xF3\x6C", 2, false, false, 1);
    EXPECT(io.string && io.rep && equal(&state, &before));
}

/* Whatever the bytes, nothing is read or written that is not ours (the sanitizers look). */
static void any_bytes(void)
{
    uint32_t seed = 1;

    for (unsigned turn = 0; turn < 20000; turn++) {
        struct machine m;
        struct mshv_undo_access access = {.write = turn & 1,
                                          .size = 1u << (turn / 2 % 4),
                                          .is_there = is_there,
                                          .read_code = read_code,
                                          .opaque = &m};
        struct mshv_undo_state state = state_of(turn % 3 == 0 ? 16 : turn % 3 == 1 ? 32 : 64);
        uint64_t linear;

        for (size_t i = 0; i < sizeof(m.code); i++) {
            seed = seed * 1664525 + 1013904223;
            m.code[i] = (uint8_t)(seed >> 24);
        }
        m.place = PLACE;
        state.rip += turn % 16;
        mshv_undo(&state, &access, &linear);
    }
}

int main(void)
{
    stores();
    addresses();
    relative_to_rip();
    what_changes_registers();
    strings();
    what_does_not_fit();
    reads();
    ports();
    any_bytes();
    printf("%d failures\n", failures);
    return failures != 0;
}
