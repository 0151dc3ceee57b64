/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Text to the debug port, and the way out. */
#ifndef GUEST_CONSOLE_H
#define GUEST_CONSOLE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * %d %u %x %c %s %p %%, with - 0 width and the lengths l, ll and z. One call's text is not mixed with another CPU's.
 */
__attribute__((format(printf, 1, 2))) void print(const char *format, ...);
__attribute__((format(printf, 3, 4))) size_t format_text(char *buffer, size_t size, const char *format, ...);
size_t format_text_va(char *buffer, size_t size, const char *format, va_list arguments);

/* Send print()'s text elsewhere than to the debug port. */
void console_set_output(void (*put_character)(char c));

/* End QEMU through isa-debug-exit; its exit status becomes code * 2 + 1. */
_Noreturn void guest_exit(unsigned code);
/* Say why and end with code 127: for faults of the runtime itself. */
__attribute__((format(printf, 1, 2))) _Noreturn void guest_panic(const char *format, ...);

/* The command line given by -append. */
const char *guest_command_line(void);
/* Value of `name=value` on the command line, copied into `buffer`; false when it is not there. */
bool guest_option(const char *name, char *buffer, size_t size);

#endif
