/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "string.h"

#include <stdint.h>

/* By words and then by bytes: an emulated processor takes as long for the one as for the other. */
#ifdef __x86_64__
#define STORE_WORDS "rep stosq"
#define MOVE_WORDS "rep movsq"
#else
#define STORE_WORDS "rep stosl"
#define MOVE_WORDS "rep movsl"
#endif
#define WORD sizeof(uintptr_t)

void *memset(void *to, int value, size_t size)
{
    void *start = to;
    size_t words = size / WORD, bytes = size % WORD;
    uintptr_t pattern = (uintptr_t)-1 / 0xFF * (uint8_t)value;
    __asm__ volatile(STORE_WORDS : "+D"(to), "+c"(words) : "a"(pattern) : "memory");
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(pattern) : "memory");
    return start;
}

void *memcpy(void *to, const void *from, size_t size)
{
    void *start = to;
    size_t words = size / WORD, bytes = size % WORD;
    __asm__ volatile(MOVE_WORDS : "+D"(to), "+S"(from), "+c"(words) : : "memory");
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
    return start;
}

void *memmove(void *to, const void *from, size_t size)
{
    uint8_t *t = to;
    const uint8_t *f = from;
    if ((uintptr_t)t - (uintptr_t)f >= size) {
        return memcpy(to, from, size);
    }
    while (size-- > 0) {
        ((volatile uint8_t *)t)[size] = f[size];
    }
    return to;
}

int memcmp(const void *a, const void *b, size_t size)
{
    const uint8_t *x = a, *y = b;
    for (size_t i = 0; i < size; i++) {
        if (x[i] != y[i]) {
            return x[i] < y[i] ? -1 : 1;
        }
    }
    return 0;
}

size_t strlen(const char *text)
{
    const char *end = text;
    while (*end) {
        end++;
    }
    return (size_t)(end - text);
}

bool text_equal(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}
