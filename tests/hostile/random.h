/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random numbers for those who do their worst. The state is a word that is not 0. */
#ifndef HOSTILE_RANDOM_H
#define HOSTILE_RANDOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RANDOM_OF(random, array) ((array)[below((random), sizeof(array) / sizeof((array)[0]))])

static inline uint64_t next(uint64_t *random)
{
    *random ^= *random >> 12;
    *random ^= *random << 25;
    *random ^= *random >> 27;
    return *random * UINT64_C(0x2545F4914F6CDD1D);
}

static inline unsigned below(uint64_t *random, size_t limit)
{
    return (unsigned)((next(random) >> 33) % limit);
}

static inline bool one_in(uint64_t *random, unsigned times)
{
    return below(random, times) == 0;
}

/* The state a seed begins with, another one for each `stream`. */
static inline uint64_t random_begin(uint64_t seed, unsigned stream)
{
    return (seed * 64 + stream + 1) * UINT64_C(0x9E3779B97F4A7C15);
}

/* A number of the kinds that break things. */
static inline uint64_t edge(uint64_t *random)
{
    static const uint64_t edges[] = {
        0,
        1,
        2,
        3,
        7,
        8,
        0xFF,
        0xFFF,
        0x1000,
        0xFFFF,
        0x10000,
        0x7FFFFFFF,
        0x80000000,
        0xFFFFFFFF,
        0x100000000,
        INT64_MAX,
        (uint64_t)INT64_MAX + 1,
        UINT64_MAX - 1,
        UINT64_MAX,
    };

    switch (below(random, 5)) {
    case 0:
        return RANDOM_OF(random, edges);
    case 1:
        return UINT64_C(1) << below(random, 64);
    case 2:
        return next(random) >> below(random, 64);
    case 3:
        return below(random, 64);
    default:
        return next(random);
    }
}

#endif
