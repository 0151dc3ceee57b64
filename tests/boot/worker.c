/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the boot tests make a Linux guest do beyond what a shell can: one static program for the initramfs.
 *
 *   worker clock                          answer each line of input with the monotonic clock, in ns
 *   worker shootdown ROUNDS [PAGES]       make remote TLB flushes, of 8 pages or so many, and IPIs between all CPUs
 *   worker watch                          run timers and compare clocks on all CPUs until a line of input comes
 *   worker checksum                       add up 64 MiB again and again, and say whether the sum stays the same
 *   worker kexec KERNEL INITRD ARGUMENTS  start another kernel
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/membarrier.h>
#include <linux/reboot.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAX_CPUS 64
#define FEW_PAGES 8 /* Linux flushes them one by one */
#define NS_PER_S INT64_C(1000000000)
#define NS_PER_MS INT64_C(1000000)

static _Noreturn void die(const char *what)
{
    printf("worker: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(clockid_t clock)
{
    struct timespec t;

    if (clock_gettime(clock, &t) != 0)
        die("clock_gettime");
    return t.tv_sec * NS_PER_S + t.tv_nsec;
}

static unsigned cpu_count(void)
{
    long count = sysconf(_SC_NPROCESSORS_ONLN);

    if (count < 1 || count > MAX_CPUS)
        die("number of CPUs");
    return (unsigned)count;
}

static void pin(unsigned cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0)
        die("sched_setaffinity");
}

static void start_thread(pthread_t *thread, void *(*function)(void *), unsigned cpu)
{
    errno = pthread_create(thread, NULL, function, (void *)(uintptr_t)cpu);
    if (errno != 0)
        die("pthread_create");
}

/* -- clock -- */

static int serve_clock(void)
{
    char line[64];

    while (fgets(line, sizeof(line), stdin) && line[0] != 'e') {
        printf("clock %" PRId64 "\n", now(CLOCK_MONOTONIC));
        fflush(stdout);
    }
    return 0;
}

/* -- shootdown -- */

static atomic_bool stop;
static atomic_uint spinning;

/* Being on a CPU in the same address space is what makes the others' flushes and barriers concern this CPU. */
static void *spin(void *argument)
{
    pin((unsigned)(uintptr_t)argument);
    spinning++;
    while (!stop)
        __builtin_ia32_pause();
    return NULL;
}

static void touch_and_unmap(size_t pages)
{
    const size_t page = 4096;
    volatile char *memory = mmap(NULL, pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        die("mmap");
    for (size_t i = 0; i < pages; i++)
        memory[i * page] = 1;
    if (munmap((void *)memory, pages * page) != 0)
        die("munmap");
}

static int shoot_down(unsigned long rounds, size_t pages)
{
    pthread_t threads[MAX_CPUS];
    unsigned cpus = cpu_count();

    pin(0);
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0)
        die("membarrier");
    for (unsigned cpu = 1; cpu < cpus; cpu++)
        start_thread(&threads[cpu], spin, cpu);
    while (spinning != cpus - 1)
        sched_yield();
    for (unsigned long round = 0; round < rounds; round++) {
        touch_and_unmap(pages);
        if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0)
            die("membarrier");
    }
    stop = true;
    for (unsigned cpu = 1; cpu < cpus; cpu++)
        pthread_join(threads[cpu], NULL);
    return 0;
}

/* -- watch -- */

static _Atomic int64_t latest; /* nanoseconds that some CPU has seen already */
static _Atomic int64_t worst_step_back;
static _Atomic int64_t longest_sleep;
static _Atomic uint64_t wakeups[MAX_CPUS];

static void keep_maximum(_Atomic int64_t *maximum, int64_t value)
{
    int64_t seen = *maximum;

    while (value > seen && !atomic_compare_exchange_weak(maximum, &seen, value)) {
    }
}

static void compare_clock(void)
{
    int64_t before = latest, time = now(CLOCK_MONOTONIC);

    keep_maximum(&worst_step_back, before - time);
    keep_maximum(&latest, time);
}

/* Always one timer armed, and in between a burst of clock reads that meet those of the other CPUs. */
static void *watch_cpu(void *argument)
{
    unsigned cpu = (unsigned)(uintptr_t)argument;
    const struct timespec pause = {.tv_nsec = 3 * NS_PER_MS};

    pin(cpu);
    while (!stop) {
        for (int i = 0; i < 200; i++)
            compare_clock();
        int64_t start = now(CLOCK_MONOTONIC);
        if (clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL) != 0)
            die("clock_nanosleep");
        keep_maximum(&longest_sleep, now(CLOCK_MONOTONIC) - start);
        wakeups[cpu]++;
    }
    return NULL;
}

/*
 * watch TIME STEP-BACK LONGEST-SLEEP WAKE-UPS-OF-CPU-0 ... TIME; times in nanoseconds. The time comes twice so that a
 * reader knows a line made of the pieces of two, which happens when the machine is taken back to an earlier state.
 */
static void report_watch(unsigned cpus)
{
    int64_t time = now(CLOCK_MONOTONIC);

    printf("watch %" PRId64 " %" PRId64 " %" PRId64, time, worst_step_back, longest_sleep);
    for (unsigned cpu = 0; cpu < cpus; cpu++)
        printf(" %" PRIu64, wakeups[cpu]);
    printf(" %" PRId64 "\n", time);
    fflush(stdout);
}

static int watch(void)
{
    pthread_t threads[MAX_CPUS];
    unsigned cpus = cpu_count();
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char line[64];

    for (unsigned cpu = 0; cpu < cpus; cpu++)
        start_thread(&threads[cpu], watch_cpu, cpu);
    while (poll(&input, 1, 100) == 0)
        report_watch(cpus);
    stop = true;
    for (unsigned cpu = 0; cpu < cpus; cpu++)
        pthread_join(threads[cpu], NULL);
    return fgets(line, sizeof(line), stdin) ? 0 : 1;
}

/* -- checksum -- */

#define CHECKSUM_WORDS (64u * 1024 * 1024 / sizeof(uint64_t))

static uint64_t sum_of(const uint64_t *words)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < CHECKSUM_WORDS; i++)
        sum = (sum << 1 | sum >> 63) ^ words[i];
    return sum;
}

static int checksum(void)
{
    uint64_t *words = malloc(CHECKSUM_WORDS * sizeof(*words)), expected, value = 1;

    if (!words)
        die("malloc");
    for (size_t i = 0; i < CHECKSUM_WORDS; i++) {
        value = value * UINT64_C(6364136223846793005) + 1442695040888963407;
        words[i] = value;
    }
    expected = sum_of(words);
    for (unsigned long pass = 0;; pass++) {
        bool same = sum_of(words) == expected;

        printf("checksum %lu %s\n", pass, same ? "right" : "WRONG");
        fflush(stdout);
        if (!same)
            return 1;
    }
}

/* -- kexec -- */

static int kexec(const char *kernel, const char *initrd, const char *arguments)
{
    int kernel_fd = open(kernel, O_RDONLY), initrd_fd = open(initrd, O_RDONLY);

    if (kernel_fd < 0 || initrd_fd < 0)
        die("open");
    if (syscall(SYS_kexec_file_load, kernel_fd, initrd_fd, strlen(arguments) + 1, arguments, 0UL) != 0)
        die("kexec_file_load");
    reboot(LINUX_REBOOT_CMD_KEXEC);
    die("reboot");
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";

    if (argc == 2 && strcmp(command, "clock") == 0)
        return serve_clock();
    if ((argc == 3 || argc == 4) && strcmp(command, "shootdown") == 0)
        return shoot_down(strtoul(argv[2], NULL, 0), argc == 4 ? strtoul(argv[3], NULL, 0) : FEW_PAGES);
    if (argc == 2 && strcmp(command, "watch") == 0)
        return watch();
    if (argc == 2 && strcmp(command, "checksum") == 0)
        return checksum();
    if (argc == 5 && strcmp(command, "kexec") == 0)
        return kexec(argv[2], argv[3], argv[4]);
    fprintf(stderr,
            "usage: worker clock | shootdown ROUNDS [PAGES] | watch | checksum | kexec KERNEL INITRD ARGUMENTS\n");
    return 2;
}
