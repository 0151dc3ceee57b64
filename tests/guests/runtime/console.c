/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "console.h"

#include "boot.h"
#include "smp.h"
#include "string.h"

#define DEBUG_PORT 0xE9
#define EXIT_PORT 0xF4

struct text {
    char *buffer;
    size_t size, length;
};

static void put(struct text *text, char c)
{
    if (text->length + 1 < text->size) {
        text->buffer[text->length] = c;
    }
    text->length++;
}

struct field {
    bool left, zero;
    unsigned width;
};

static void put_field(struct text *text, const struct field *field, const char *content, size_t length)
{
    size_t padding = field->width > length ? field->width - length : 0;
    if (!field->left) {
        for (; padding > 0; padding--) {
            put(text, field->zero ? '0' : ' ');
        }
    }
    for (size_t i = 0; i < length; i++) {
        put(text, content[i]);
    }
    for (; padding > 0; padding--) {
        put(text, ' ');
    }
}

/* 64-bit division by a small number: a 32-bit program has no library for the whole. */
static uint64_t divide(uint64_t value, uint32_t divisor, uint32_t *remainder)
{
#ifdef __x86_64__
    *remainder = (uint32_t)(value % divisor);
    return value / divisor;
#else
    uint32_t high = (uint32_t)(value >> 32), quotient_high = high / divisor, quotient_low, rest;
    __asm__("divl %4" : "=a"(quotient_low), "=d"(rest) : "a"((uint32_t)value), "d"(high % divisor), "r"(divisor));
    *remainder = rest;
    return (uint64_t)quotient_high << 32 | quotient_low;
#endif
}

static void put_number(struct text *text, const struct field *field, uint64_t value, unsigned base, bool negative)
{
    char digits[24];
    size_t at = sizeof(digits);
    do {
        uint32_t digit;
        value = divide(value, base, &digit);
        digits[--at] = "0123456789abcdef"[digit];
    } while (value);
    if (negative) {
        digits[--at] = '-';
    }
    put_field(text, field, digits + at, sizeof(digits) - at);
}

/* `longs` 0: int; 1: long and size_t; 2: long long */
static uint64_t take_unsigned(va_list *arguments, unsigned longs)
{
    return longs == 0   ? va_arg(*arguments, unsigned)
           : longs == 1 ? va_arg(*arguments, unsigned long)
                        : va_arg(*arguments, unsigned long long);
}

static int64_t take_signed(va_list *arguments, unsigned longs)
{
    return longs == 0 ? va_arg(*arguments, int) : longs == 1 ? va_arg(*arguments, long) : va_arg(*arguments, long long);
}

size_t format_text_va(char *buffer, size_t size, const char *format, va_list list)
{
    struct text text = {buffer, size, 0};
    va_list arguments;
    va_copy(arguments, list);
    for (const char *f = format; *f; f++) {
        if (*f != '%') {
            put(&text, *f);
            continue;
        }
        struct field field = {0};
        unsigned longs = 0;
        for (f++; *f == '-' || *f == '0'; f++) {
            field.left |= *f == '-';
            field.zero |= *f == '0';
        }
        for (; *f >= '0' && *f <= '9'; f++) {
            field.width = field.width * 10 + (unsigned)(*f - '0');
        }
        for (; *f == 'l' || *f == 'z'; f++) {
            longs++;
        }
        switch (*f) {
        case 'd': {
            int64_t value = take_signed(&arguments, longs);
            put_number(&text, &field, value < 0 ? -(uint64_t)value : (uint64_t)value, 10, value < 0);
            break;
        }
        case 'u':
            put_number(&text, &field, take_unsigned(&arguments, longs), 10, false);
            break;
        case 'x':
            put_number(&text, &field, take_unsigned(&arguments, longs), 16, false);
            break;
        case 'p':
            put_number(&text, &field, (uintptr_t)va_arg(arguments, void *), 16, false);
            break;
        case 'c':
            put(&text, (char)va_arg(arguments, int));
            break;
        case 's': {
            const char *content = va_arg(arguments, const char *);
            put_field(&text, &field, content, strlen(content));
            break;
        }
        case '%':
            put(&text, '%');
            break;
        default:
            put(&text, '?');
            break;
        }
    }
    va_end(arguments);
    if (size > 0) {
        buffer[text.length < size ? text.length : size - 1] = '\0';
    }
    return text.length;
}

size_t format_text(char *buffer, size_t size, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    size_t length = format_text_va(buffer, size, format, arguments);
    va_end(arguments);
    return length;
}

static struct spinlock console_lock;
static void (*output)(char c);

void console_set_output(void (*put_character)(char c))
{
    output = put_character;
}

static void write_text(const char *text, size_t length)
{
    if (output) {
        for (size_t i = 0; i < length; i++) {
            output(text[i]);
        }
        return;
    }
    __asm__ volatile("rep outsb" : "+S"(text), "+c"(length) : "d"(DEBUG_PORT) : "memory");
}

static void print_va(const char *format, va_list arguments)
{
    char buffer[512];
    size_t length = format_text_va(buffer, sizeof(buffer), format, arguments);
    uintptr_t flags = read_flags();
    interrupts_off();
    spinlock_lock(&console_lock);
    write_text(buffer, length < sizeof(buffer) ? length : sizeof(buffer) - 1);
    spinlock_unlock(&console_lock);
    if (flags & RFLAGS_IF) {
        interrupts_on();
    }
}

void print(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print_va(format, arguments);
    va_end(arguments);
}

_Noreturn void guest_exit(unsigned code)
{
    for (;;) {
        outb(EXIT_PORT, (uint8_t)code);
        interrupts_off();
        cpu_halt();
    }
}

_Noreturn void guest_panic(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print("PANIC ");
    print_va(format, arguments);
    print("\n");
    va_end(arguments);
    guest_exit(127);
}

const char *guest_command_line(void)
{
    return boot_command_line;
}

bool guest_option(const char *name, char *buffer, size_t size)
{
    size_t name_length = strlen(name);
    for (const char *at = boot_command_line; *at; at++) {
        if ((at != boot_command_line && at[-1] != ' ') || memcmp(at, name, name_length) != 0 ||
            at[name_length] != '=') {
            continue;
        }
        size_t length = 0;
        for (at += name_length + 1; *at && *at != ' ' && length + 1 < size; at++) {
            buffer[length++] = *at;
        }
        buffer[length] = '\0';
        return true;
    }
    return false;
}
