/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * KVM as its descriptors offer it, for what QEMU's own code does not do for us: the VMs of children. A test puts its
 * own functions in the place of these (tests/core/threads). No QEMU and no core in here.
 */
#ifndef MICROSOFT_HYPERVISOR_KVM_CALLS_H
#define MICROSOFT_HYPERVISOR_KVM_CALLS_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mshv_kvm_calls {
    int (*call)(int fd, unsigned long request, uintptr_t argument); /* ioctl(); negative: -errno */
    void (*close)(int fd);
};
extern const struct mshv_kvm_calls *mshv_kvm_calls;

/* What went wrong: which call, and with which error. */
struct mshv_kvm_failure {
    const char *call;
    int error; /* positive errno */
};

/* A VM without local APICs in KVM, all of whose MSR accesses leave it, and its one vCPU. */
struct mshv_kvm_vm {
    int vm, vcpu; /* -1: none */
};
/* Either both descriptors are there afterwards, or none. `kvm` is the descriptor of /dev/kvm. */
bool mshv_kvm_vm_create(struct mshv_kvm_vm *vm, int kvm, struct mshv_kvm_failure *failure);
/* The VM alone: the vCPU's descriptor is whoever's who took it. */
void mshv_kvm_vm_close(struct mshv_kvm_vm *vm);

/* -- Memory slots -- */

struct mshv_kvm_range {
    uint64_t gpa, size; /* bytes, of whole pages */
    uint8_t *host;
    bool read_only;
};

/* A range list in the making; ranges come in the order of their addresses, and those that continue are merged. */
struct mshv_kvm_ranges {
    struct mshv_kvm_range *list;
    size_t count, room, most;
    uint64_t left_out; /* bytes of ranges behind the limit of `most` */
    bool failed; /* memory was short: some are missing */
};
void mshv_kvm_ranges_add(struct mshv_kvm_ranges *ranges, const struct mshv_kvm_range *range);

struct mshv_kvm_slots {
    int vm;
    struct mshv_kvm_range *ranges; /* by slot number; size 0: not in use */
    size_t count; /* slot numbers ever used */
    bool log_dirty;
};
/*
 * Make the VM's memory exactly `wanted`, and touch nothing that stays as it is. On failure some memory may be missing,
 * but none is there that is not wanted.
 */
bool mshv_kvm_slots_set(struct mshv_kvm_slots *slots, const struct mshv_kvm_ranges *wanted,
                        struct mshv_kvm_failure *failure);
/* Whether KVM notes writes from now on. */
bool mshv_kvm_slots_log(struct mshv_kvm_slots *slots, bool on, struct mshv_kvm_failure *failure);
/* Call `dirty` for each run of pages written since the last time. */
bool mshv_kvm_slots_collect(struct mshv_kvm_slots *slots, void (*dirty)(void *opaque, uint8_t *host, uint64_t size),
                            void *opaque, struct mshv_kvm_failure *failure);
void mshv_kvm_slots_free(struct mshv_kvm_slots *slots); /* the VM's are left as they are */

#endif
