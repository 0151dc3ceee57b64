/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A small virtual machine monitor for the Microsoft hypervisor: it runs in the root partition, without an operating
 * system, and boots Linux in a child partition. Start reading here.
 */
#include "vmm.h"

#define MEBIBYTE (UINT64_C(1) << 20)

static const struct device *const devices[] = {&uart_device, &ioapic_device, &rtc_device, &power_device};
#define DEVICES (sizeof(devices) / sizeof(devices[0]))

static const struct device *find_device(bool in_memory, uint64_t at)
{
    for (unsigned i = 0; i < DEVICES; i++) {
        if (devices[i]->in_memory == in_memory && at >= devices[i]->base && at - devices[i]->base < devices[i]->size) {
            return devices[i];
        }
    }
    return NULL;
}

/*
 * IN and OUT. Only ports that were asked for get here. The string forms (INS, OUTS) would need the child's memory; no
 * driver for these devices uses them, so they end the run rather than go wrong quietly.
 */
static enum intercept_action io_access(struct intercept *intercept, void *context)
{
    struct vmm *vmm = context;
    const struct device *device = find_device(false, intercept->io.port);
    vmm->intercepts.io++;
    if (!device || intercept->io.string) {
        print("minivmm: port %x: %s\n", intercept->io.port, device ? "INS and OUTS are not emulated" : "no device");
        intercept_describe(intercept);
        vmm->end = END_FAILED;
        return INTERCEPT_END;
    }
    unsigned offset = intercept->io.port - (unsigned)device->base;
    if (intercept->io.write) {
        device->write(vmm, offset, intercept->io.size, intercept->io.value);
    } else {
        intercept->io.value = device->read(vmm, offset, intercept->io.size);
    }
    return vmm->end == END_NOT_YET ? INTERCEPT_DONE : INTERCEPT_END;
}

/*
 * An access to a GPA where the child has no memory. Unlike with ports the hypervisor does not say what the instruction
 * does: we get its bytes, take them apart, and write the result to the VP's registers.
 */
static enum intercept_action memory_access(struct intercept *intercept, void *context)
{
    struct vmm *vmm = context;
    struct mmio mmio;
    const struct device *device = find_device(true, intercept->memory.gpa);
    vmm->intercepts.memory++;
    if (!device || !mmio_decode(intercept, &mmio)) {
        print("minivmm: GPA %llx: %s\n", (unsigned long long)intercept->memory.gpa,
              device ? "an instruction that is not emulated" : "nothing is there");
        intercept_describe(intercept);
        vmm->end = END_FAILED;
        return INTERCEPT_END;
    }
    unsigned offset = (unsigned)(mmio.gpa - device->base);
    if (mmio.write) {
        device->write(vmm, offset, mmio.size, (uint32_t)mmio.value);
    } else {
        mmio.value = device->read(vmm, offset, mmio.size);
        mmio_finish(intercept, &mmio);
    }
    return INTERCEPT_DONE;
}

/* Triple faults, states that no processor can be in, and whatever else is no use going on after. */
static enum intercept_action failure(struct intercept *intercept, void *context)
{
    struct vmm *vmm = context;
    print("minivmm: the child cannot go on\n");
    intercept_describe(intercept);
    vmm->end = END_FAILED;
    return INTERCEPT_END;
}

/* No intercept waits: the time to look what was typed. */
static void idle(void *context)
{
    uart_receive(context);
}

/*
 * The processors as firmware would leave them: memory is write-back wherever the MTRRs do not say otherwise, and none
 * does. Without it kernels take the MTRRs for disabled, and do without the page attributes as well.
 */
#define MTRR_ENABLED_WRITE_BACK 0x806

static void add_processors(struct vmm *vmm)
{
    for (unsigned i = 0; i < vmm->vps; i++) {
        child_add_vp(&vmm->child, i);
        child_set_register(&vmm->child, i, HV_REGISTER_MtrrDefType, MTRR_ENABLED_WRITE_BACK);
    }
}

/* In the same place each time: a child that is restored names the same of our pages. */
static void reserve_memory(struct vmm *vmm)
{
    /* As QEMU made it, so it need not be zeroed: going through all of it would take a good part of the boot's time. */
    vmm->ram = ram_reserve(vmm->memory, LARGE_PAGE_SIZE);
    vmm->devices = (struct device_state *)ram_take_page();
}

static void build(struct vmm *vmm)
{
    vmm->child.privileges = CHILD_PRIVILEGES;
    child_create(&vmm->child);
    child_map(&vmm->child, 0, vmm->ram, vmm->memory, CHILD_RAM);
    child_map(&vmm->child, GPA_DEVICE_STATE, (uintptr_t)vmm->devices, PAGE_SIZE, HV_MAP_READ);
    add_processors(vmm);
    for (unsigned i = 0; i < DEVICES; i++) {
        if (!devices[i]->in_memory) {
            child_intercept_ports(&vmm->child, (unsigned)devices[i]->base, devices[i]->size);
        }
    }
    child_intercept_msrs(&vmm->child);
    ioapic_reset(vmm);
    linux_load(vmm);
}

/* Wait until the operator restores a child below us: it comes with memory, VPs and intercepts, and runs. */
static void wait_for_child(struct vmm *vmm)
{
    struct hv_in_get_next_child_partition input = {.parent = UINT64_MAX}; /* HV_PARTITION_ID_SELF */
    struct hv_out_get_next_child_partition output = {0};
    print("minivmm: waits for a child\n");
    while (!output.child) {
        HV_MUST(hvcall_get_next_child_partition(&input, &output));
        cpu_pause();
    }
    vmm->child.id = output.child;
}

/* The others wait for the start-up IPI that Linux sends them; the hypervisor's local APICs see to that. */
static void start(struct vmm *vmm)
{
    for (unsigned i = 0; i < vmm->vps; i++) {
        child_resume(&vmm->child, i);
    }
}

static void run(struct vmm *vmm)
{
    static const struct intercept_handlers handlers = {
        .io = io_access, .msr = msr_access, .memory = memory_access, .other = failure, .idle = idle};
    intercept_loop(&handlers, vmm, NULL);
}

/*
 * What became of the child becomes of the machine: QEMU then ends or resets, and says which. ICH9 and PIIX4 have their
 * PM1 control register here once the firmware has placed it.
 */
#define PORT_PM1_CONTROL 0x604
#define PM1_SLEEP_ENABLE 0x2000
#define PORT_RESET_CONTROL 0xCF9
#define RESET_CONTROL_FULL 0x06
#define EXIT_FAILED 1

static _Noreturn void leave(enum vmm_end end)
{
    if (end == END_RESET) {
        outb(PORT_RESET_CONTROL, RESET_CONTROL_FULL);
    } else if (end == END_POWER_OFF) {
        outw(PORT_PM1_CONTROL, PM1_SLEEP_ENABLE);
    } else {
        guest_exit(EXIT_FAILED);
    }
    for (;;) {
        cpu_halt();
    }
}

static void take_parameters(struct vmm *vmm)
{
    vmm->vps = (unsigned)blob_number("vps", cpu_count());
    vmm->memory = blob_number("memory", 256) * MEBIBYTE;
    if (vmm->vps == 0 || vmm->vps > MINIVMM_MAX_VPS || vmm->memory < 64 * MEBIBYTE) {
        print("minivmm: 1 to %d VPs and at least 64 MiB, please\n", MINIVMM_MAX_VPS);
        leave(END_FAILED);
    }
}

void guest_main(void)
{
    static struct vmm vmm;
    char option[8];
    serial_init();
    take_parameters(&vmm);
    root_enable();
    intercept_enable(VECTOR_MESSAGE);
    reserve_memory(&vmm);
    if (guest_option("restore", option, sizeof(option))) {
        wait_for_child(&vmm);
    } else {
        build(&vmm);
        start(&vmm);
    }
    print("minivmm: partition %llx: %u VPs, %llu MiB\n", (unsigned long long)vmm.child.id, vmm.vps,
          (unsigned long long)(vmm.memory / MEBIBYTE));
    run(&vmm);
    print("minivmm: %lu port, %lu memory and %lu MSR intercepts\n", vmm.intercepts.io, vmm.intercepts.memory,
          vmm.intercepts.msr);
    /* The partition is left to the machine's end: until then the operator can look at what the child used. */
    leave(vmm.end);
}
