/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Preloaded into QEMU: a host whose KVM lacks something. In the environment,
 *
 *     OTHER_KVM_LACKS    number of a capability that it does not have
 *     OTHER_KVM_ERRNO    why /dev/kvm cannot be opened
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static int number(const char *name)
{
    const char *value = getenv(name);

    return value ? atoi(value) : -1;
}

int ioctl(int fd, unsigned long request, ...)
{
    int (*next)(int, unsigned long, void *) = dlsym(RTLD_NEXT, "ioctl");
    va_list list;
    void *argument;

    va_start(list, request);
    argument = va_arg(list, void *);
    va_end(list);
    if (request == KVM_CHECK_EXTENSION && (long)argument == number("OTHER_KVM_LACKS"))
        return 0;
    return next(fd, request, argument);
}

static int open_as(const char *function, const char *path, int flags, int mode)
{
    int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, function);
    int error = number("OTHER_KVM_ERRNO");

    if (error >= 0 && !strcmp(path, "/dev/kvm")) {
        errno = error;
        return -1;
    }
    return next(path, flags, mode);
}

#define OPEN(function)                                                                                                 \
    int function(const char *path, int flags, ...)                                                                     \
    {                                                                                                                  \
        va_list list;                                                                                                  \
        int mode;                                                                                                      \
                                                                                                                       \
        va_start(list, flags);                                                                                         \
        mode = va_arg(list, int);                                                                                      \
        va_end(list);                                                                                                  \
        return open_as(#function, path, flags, mode);                                                                  \
    }
OPEN(open)
OPEN(open64)
