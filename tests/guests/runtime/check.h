/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checks. A guest is a list of them; the host reads their names from the image's section "guest_checks", and each is
 * one test case. docs/test-guests.md shows a complete guest.
 */
#ifndef GUEST_CHECK_H
#define GUEST_CHECK_H

#include "clock.h"
#include "console.h"
#include "smp.h"

#define GENERATION_2008R2 0x1u
#define GENERATION_CURRENT 0x2u

/* Read by tests/guests/image.py: keep the two the same. */
struct guest_check {
    char name[64];
    char section[128]; /* of the specification, or what rule it is */
    uint32_t min_vps; /* 0: any number */
    uint32_t max_vps; /* 0: any number */
    uint32_t generations; /* GENERATION_*; 0: all */
    uint32_t flags; /* CHECK_* */
    void (*function)(void);
#ifndef __x86_64__
    uint32_t function_high;
#endif
    uint64_t reserved;
};
_Static_assert(sizeof(struct guest_check) == 224, "tests/guests/image.py reads this layout");

/* The check resets the machine: it is entered again after every reset, and keeps its state at GUEST_PERSISTENT. */
#define CHECK_RESETS 0x1u
/* Not in modes where the VPs take turns on one host thread. */
#define CHECK_PARALLEL 0x2u

/*
 * CHECK(name, "TLFS section", .min_vps = 2) { statements }
 * The trailing arguments set fields of struct guest_check.
 */
#define CHECK(id, tlfs_section, ...)                                                                                   \
    static void guest_check_##id(void);                                                                                \
    __attribute__((section("guest_checks"), used, aligned(8))) static const struct guest_check guest_entry_##id = {    \
        .name = #id, .section = tlfs_section, .function = guest_check_##id, __VA_ARGS__};                              \
    static void guest_check_##id(void)

/* Record a failure of the running check; the first is the one that is told. Any CPU. */
__attribute__((format(printf, 3, 4))) void check_fail(const char *file, int line, const char *format, ...);
/* Leave the check (on another CPU: the function given to it). */
_Noreturn void check_abort(void);
/* Whether the check is lost: a loop on another CPU that waits for CPU 0 should end then. */
bool check_failed(void);

/* The check goes on after a false EXPECT and ends at a false REQUIRE. */
#define EXPECT(condition)                                                                                              \
    ((void)((condition) ? 0 : (check_fail(__FILE__, __LINE__, "%s, got false, expected true", #condition), 0)))
#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            check_fail(__FILE__, __LINE__, "%s, got false, expected true", #condition);                                \
            check_abort();                                                                                             \
        }                                                                                                              \
    } while (0)

#define EXPECT_EQ(got, expected) ((void)check_equal(__FILE__, __LINE__, #got, (uint64_t)(got), (uint64_t)(expected)))
#define REQUIRE_EQ(got, expected)                                                                                      \
    do {                                                                                                               \
        if (!check_equal(__FILE__, __LINE__, #got, (uint64_t)(got), (uint64_t)(expected))) {                           \
            check_abort();                                                                                             \
        }                                                                                                              \
    } while (0)
bool check_equal(const char *file, int line, const char *expression, uint64_t got, uint64_t expected);

/* With a text of the check's own, for loops where the expression alone does not say which round it was. */
#define EXPECT_THAT(condition, ...) ((void)((condition) ? 0 : (check_fail(__FILE__, __LINE__, __VA_ARGS__), 0)))

/* The statements must raise this exception, or none. */
#define EXPECT_FAULT(expected_vector, ...)                                                                             \
    do {                                                                                                               \
        struct fault fault_;                                                                                           \
        CATCH(fault_, __VA_ARGS__);                                                                                    \
        check_fault(__FILE__, __LINE__, #__VA_ARGS__, &fault_, (expected_vector));                                     \
    } while (0)
#define NO_FAULT (-1)
void check_fault(const char *file, int line, const char *text, const struct fault *fault, int expected);

#define EXPECT_RDMSR_FAULT(index, expected_vector)                                                                     \
    check_vector(__FILE__, __LINE__, "rdmsr " #index, rdmsr_fault((index), NULL), (expected_vector))
#define EXPECT_WRMSR_FAULT(index, value, expected_vector)                                                              \
    check_vector(__FILE__, __LINE__, "wrmsr " #index ", " #value, wrmsr_fault((index), (value)), (expected_vector))
void check_vector(const char *file, int line, const char *text, int vector, int expected);

/* Text for the reader of the log. */
#define NOTE(...) print("# " __VA_ARGS__)

/* The running check's name, and how many CPUs (VPs) it may use. */
const struct guest_check *check_current(void);

/* A guest may define this: it is called on CPU 0 after every check, also one that was aborted. */
void guest_cleanup(void);
/* The interface generation the machine has: GENERATION_2008R2 or GENERATION_CURRENT. */
uint32_t guest_generation(void);
/*
 * The default runs all checks. Defining it makes another kind of program of the image (a benchmark, say); returning
 * from it ends QEMU with exit code 0.
 */
void guest_main(void);

#endif
