/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a compiler expects of a freestanding C library, and a few more. */
#ifndef GUEST_STRING_H
#define GUEST_STRING_H

#include <stdbool.h>
#include <stddef.h>

void *memset(void *to, int value, size_t size);
void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
int memcmp(const void *a, const void *b, size_t size);
size_t strlen(const char *text);
bool text_equal(const char *a, const char *b);

#endif
