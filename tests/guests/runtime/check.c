/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs the checks and reports. One line each, to the debug port:
 *
 *   GUEST bits=64 vps=4          once
 *   RUN name                     before a check
 *   PASS name                    or
 *   FAIL name: file:line: what, got ..., expected ...
 *   END                          after the last one
 *
 * and text of the checks' own, in lines that begin with "# ". A failure a CPU reports after the check's end, and PANIC,
 * are lines of their own. Checks that do not fit the number of VPs or the generation are not run: the host leaves them
 * out by the same rule.
 */
#include "check.h"

#include "apic.h"
#include "paging.h"
#include "string.h"

extern const struct guest_check guest_checks_begin[], guest_checks_end[];

static const struct guest_check *current;
static struct spinlock failure_lock;
static volatile bool failed;
static char failure[400];

const struct guest_check *check_current(void)
{
    return current;
}

bool check_failed(void)
{
    return failed;
}

/* The last component: the directory says nothing about the check. */
static const char *base_name(const char *path)
{
    const char *base = path;
    for (; *path; path++) {
        if (*path == '/') {
            base = path + 1;
        }
    }
    return base;
}

void check_fail(const char *file, int line, const char *format, ...)
{
    va_list arguments;
    uintptr_t flags = read_flags();
    interrupts_off();
    spinlock_lock(&failure_lock);
    if (!failed) {
        va_start(arguments, format);
        size_t length = format_text(failure, sizeof(failure), "%s:%d: ", base_name(file), line);
        format_text_va(failure + length, sizeof(failure) - length, format, arguments);
        va_end(arguments);
        failed = true;
    }
    spinlock_unlock(&failure_lock);
    if (flags & RFLAGS_IF) {
        interrupts_on();
    }
}

_Noreturn void check_abort(void)
{
    struct cpu *cpu = this_cpu();
    if (!cpu->abort_armed) {
        guest_panic("check_abort() outside of a check: %s", failure);
    }
    context_restore(&cpu->abort);
}

bool check_equal(const char *file, int line, const char *expression, uint64_t got, uint64_t expected)
{
    if (got != expected) {
        check_fail(file, line, "%s, got 0x%llx (%llu), expected 0x%llx (%llu)", expression, (unsigned long long)got,
                   (unsigned long long)got, (unsigned long long)expected, (unsigned long long)expected);
    }
    return got == expected;
}

static const char *vector_name(int vector)
{
    static const char *const names[] = {
        [VECTOR_DE] = "#DE", [VECTOR_DB] = "#DB", [VECTOR_NMI] = "NMI", [VECTOR_BP] = "#BP", [VECTOR_UD] = "#UD",
        [VECTOR_DF] = "#DF", [VECTOR_GP] = "#GP", [VECTOR_PF] = "#PF",  [VECTOR_MC] = "#MC"};
    if (vector == NO_FAULT) {
        return "no exception";
    }
    if ((unsigned)vector < sizeof(names) / sizeof(names[0]) && names[vector]) {
        return names[vector];
    }
    return "another exception";
}

void check_vector(const char *file, int line, const char *text, int vector, int expected)
{
    if (vector != expected) {
        check_fail(file, line, "%s, got %s (%d), expected %s", text, vector_name(vector), vector,
                   vector_name(expected));
    }
}

void check_fault(const char *file, int line, const char *text, const struct fault *fault, int expected)
{
    int vector = fault->raised ? fault->vector : NO_FAULT;
    if (vector != expected) {
        check_fail(file, line, "%s, got %s (vector %d, error code %x, at %lx, address %lx), expected %s", text,
                   vector_name(vector), vector, fault->error, (unsigned long)fault->ip, (unsigned long)fault->address,
                   vector_name(expected));
    }
}

__attribute__((weak)) void guest_cleanup(void)
{
}

static bool applies(const struct guest_check *check, uint32_t generation, bool parallel)
{
    return check->min_vps <= cpu_count() && (check->max_vps == 0 || cpu_count() <= check->max_vps) &&
           (check->generations == 0 || check->generations & generation) &&
           (parallel || !(check->flags & CHECK_PARALLEL));
}

/* Also called for the clean-up function, whose failure is the check's. */
static void run_guarded(void (*function)(void))
{
    struct cpu *cpu = this_cpu();
    if (!context_save(&cpu->abort)) {
        cpu->abort_armed = true;
        function();
    }
    interrupts_off();
    cpu->abort_armed = false;
    cpu->catcher = NULL;
}

static void report(const struct guest_check *check)
{
    if (failed) {
        print("FAIL %s: %s\n", check->name, failure);
    } else {
        print("PASS %s\n", check->name);
    }
}

/* How long to wait for CPUs at the end of a check, in microseconds: patience=n on the command line. */
static uint64_t patience(void)
{
    char text[20];
    uint64_t value = 0;
    if (!guest_option("patience", text, sizeof(text))) {
        return SOON;
    }
    for (const char *digit = text; *digit >= '0' && *digit <= '9'; digit++) {
        value = value * 10 + (uint64_t)(*digit - '0');
    }
    return value;
}

/* A CPU that does not come back is lost to the checks that follow: the host starts the guest again for them. */
static void wait_for_others(const struct guest_check *check)
{
    for (unsigned i = 1; i < cpu_count(); i++) {
        if (!smp_wait(i, patience())) {
            check_fail("smp", 0, "CPU %u does not come to an end", i);
            report(check);
            guest_panic("CPU %u is lost", i);
        }
    }
}

static void settle_cpu(void *argument)
{
    (void)argument;
    apic_drain();
    vm_flush_all();
}

/* Interrupts and translations that are still about are this check's: they must not reach the next one. */
static void settle(void)
{
    for (unsigned vector = 0x20; vector < VECTOR_WAKE; vector++) {
        interrupt_set_handler((uint8_t)vector, interrupt_handle_eoi);
    }
    smp_run_all(settle_cpu, NULL);
    for (unsigned vector = 0; vector < VECTOR_WAKE; vector++) {
        interrupt_set_handler((uint8_t)vector, NULL);
    }
}

/* What must outlive a reset of the machine, at GUEST_RESUME. */
#define RESUME_MAGIC UINT64_C(0x656D757365722121)
struct resume {
    uint64_t magic;
    char name[sizeof(((struct guest_check *)0)->name)];
};

static struct resume *resume(void)
{
    return (struct resume *)GUEST_RESUME;
}

static void remember_for_reset(const struct guest_check *check)
{
    memcpy(resume()->name, check->name, sizeof(check->name));
    resume()->magic = RESUME_MAGIC;
}

/* Where to begin: at the check that reset the machine, else as the command line says, else (empty) with the first. */
static void find_begin(char *from, size_t size)
{
    if (resume()->magic == RESUME_MAGIC) {
        memcpy(from, resume()->name, sizeof(resume()->name));
        resume()->magic = 0;
    } else if (!guest_option("from", from, size)) {
        from[0] = '\0';
    }
}

static void run_check(const struct guest_check *check)
{
    failed = false;
    current = check;
    interrupt_clear_counts();
    print("RUN %s\n", check->name);
    if (check->flags & CHECK_RESETS) {
        remember_for_reset(check);
    }
    run_guarded(check->function);
    resume()->magic = 0;
    wait_for_others(check);
    run_guarded(guest_cleanup);
    page_release_all();
    run_guarded(settle);
    report(check);
}

uint32_t guest_generation(void)
{
    char option[32];
    bool older = guest_option("generation", option, sizeof(option)) && text_equal(option, "2008r2");
    return older ? GENERATION_2008R2 : GENERATION_CURRENT;
}

__attribute__((weak)) void guest_main(void)
{
    char from[sizeof(((struct guest_check *)0)->name)], option[32];
    uint32_t generation = guest_generation();
    bool parallel = !(guest_option("threads", option, sizeof(option)) && text_equal(option, "single"));
    find_begin(from, sizeof(from));
    bool reached = from[0] == '\0';
    print("GUEST bits=%d vps=%u\n", GUEST_BITS, cpu_count());
    for (const struct guest_check *check = guest_checks_begin; check < guest_checks_end; check++) {
        reached |= text_equal(check->name, from);
        if (reached && applies(check, generation, parallel)) {
            run_check(check);
        }
    }
    if (!reached) {
        guest_panic("from=%s: no such check", from);
    }
    print("END\n");
}
