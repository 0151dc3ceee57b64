/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine.hpp"

#include <algorithm>
#include <cstring>

namespace qemu_hv
{

__extension__ typedef unsigned __int128 uint128;

static constexpr uint64_t nano100_per_second = 10000000;

/* -- What the core calls: platform.h -- */

struct PlatformOps {
    static Machine &machine(void *context)
    {
        return *static_cast<Machine *>(context);
    }

    static bool known_vp(Machine &m, hv_vp_index vp, const char *function)
    {
        if (vp >= (m.config_.core.root ? HV_MAX_VPS : m.config_.core.vp_count)) {
            m.violation(std::string(function) + ": no VP has index " + std::to_string(vp));
            return false;
        }
        return true;
    }

    static bool in_one_page(Machine &m, hv_gpa gpa, size_t size, const char *function)
    {
        if (size == 0 || size > HV_PAGE_SIZE || (gpa & (HV_PAGE_SIZE - 1)) + size > HV_PAGE_SIZE) {
            m.violation(std::string(function) + ": the range does not lie in one page");
            return false;
        }
        return true;
    }

    static hv_gpa_result result_of(Access access)
    {
        switch (access) {
        case Access::ok:
            return HV_GPA_OK;
        case Access::unmapped:
            return HV_GPA_UNMAPPED;
        default:
            return HV_GPA_NO_ACCESS;
        }
    }

    static hv_gpa_result read_gpa(void *context, hv_vp_index vp, hv_gpa gpa, void *buffer, size_t size)
    {
        Machine &m = machine(context);
        if (!known_vp(m, vp, "read_gpa") || !in_one_page(m, gpa, size, "read_gpa")) {
            return HV_GPA_UNMAPPED;
        }
        return result_of(m.memory.read(gpa, buffer, size));
    }

    static hv_gpa_result write_gpa(void *context, hv_vp_index vp, hv_gpa gpa, const void *buffer, size_t size)
    {
        Machine &m = machine(context);
        if (!known_vp(m, vp, "write_gpa") || !in_one_page(m, gpa, size, "write_gpa")) {
            return HV_GPA_UNMAPPED;
        }
        return result_of(m.memory.write(gpa, buffer, size));
    }

    static hv_gpa_result probe_write(void *context, hv_vp_index vp, hv_gpa gpa, size_t size)
    {
        Machine &m = machine(context);
        if (!known_vp(m, vp, "probe_write") || !in_one_page(m, gpa, size, "probe_write")) {
            return HV_GPA_UNMAPPED;
        }
        return result_of(m.memory.check(gpa, true));
    }

    static void set_overlay(void *context, hv_overlay_kind kind, hv_vp_index vp, void *page, bool enabled, hv_gpa gpa,
                            hv_overlay_access access)
    {
        Machine &m = machine(context);
        if (!known_vp(m, vp, "set_overlay")) {
            return;
        }
        if (kind < 0 || kind >= HV_OVERLAY_KINDS) {
            m.violation("set_overlay: unknown kind");
        } else if (enabled && (!page || reinterpret_cast<uintptr_t>(page) % HV_PAGE_SIZE)) {
            m.violation("set_overlay: the page is not page-aligned");
        } else if (enabled && (gpa % HV_PAGE_SIZE || gpa >> m.config_.core.gpa_bits)) {
            m.violation("set_overlay: the address is not page-aligned or not inside the GPA space");
        } else if (vp != 0 && (kind == HV_OVERLAY_HYPERCALL || kind == HV_OVERLAY_REFERENCE_TSC)) {
            m.violation("set_overlay: a partition-wide page belongs to VP 0");
        } else {
            m.memory.set_overlay(Overlay{kind, vp, static_cast<uint8_t *>(page), gpa, access}, enabled);
            m.records.overlay_changes.push_back({kind, vp, enabled, enabled ? gpa : 0});
        }
    }

    static size_t hypercall_code(void *context, uint8_t *code)
    {
        const auto &bytes = machine(context).config_.hypercall_code;
        std::copy(bytes.begin(), bytes.end(), code);
        return bytes.size();
    }

    static uint64_t read_tsc(void *context, hv_vp_index vp)
    {
        Machine &m = machine(context);
        known_vp(m, vp, "read_tsc");
        return m.tsc;
    }

    static uint64_t sample_tsc(void *context)
    {
        return machine(context).tsc;
    }

    static void set_timer(void *context, hv_vp_index vp, unsigned timer, uint64_t tsc)
    {
        Machine &m = machine(context);
        if (!known_vp(m, vp, "set_timer")) {
            return;
        }
        if (timer >= HV_VP_TIMER_COUNT) {
            m.violation("set_timer: no timer has this index");
            return;
        }
        m.timers_[vp][timer].tsc = tsc;
    }

    static uint64_t vp_run_time(void *context, hv_vp_index vp)
    {
        Machine &m = machine(context);
        return known_vp(m, vp, "vp_run_time") ? m.run_time[vp] : 0;
    }

    static void request_interrupt(void *context, hv_vp_index vp, uint8_t vector)
    {
        Machine &m = machine(context);
        if (!known_vp(m, vp, "request_interrupt")) {
            return;
        }
        if (vector < 16) {
            m.violation("request_interrupt: vector below 16");
            return;
        }
        if (!m.apics_[vp].enabled) {
            m.records.lost_interrupts.push_back({vp, vector});
            return;
        }
        m.records.interrupts.push_back({vp, vector});
        m.apics_[vp].irr.set(vector);
        m.revoke_later_.push_back(vp);
        hv_vp_wake(m.vp(vp));
    }

    static void apic_eoi(void *context, hv_vp_index vp, uint32_t value)
    {
        Machine &m = machine(context);
        if (known_vp(m, vp, "apic_eoi")) {
            m.records.eoi_writes.push_back({vp, value});
            m.eoi_later_.push_back(vp);
        }
    }

    static uint64_t apic_read_icr(void *context, hv_vp_index vp)
    {
        Machine &m = machine(context);
        return known_vp(m, vp, "apic_read_icr") ? m.apics_[vp].icr : 0;
    }

    static void apic_write_icr(void *context, hv_vp_index vp, uint64_t value)
    {
        Machine &m = machine(context);
        if (known_vp(m, vp, "apic_write_icr")) {
            m.apics_[vp].icr = value;
            m.records.icr_writes.push_back({vp, value});
        }
    }

    static uint8_t apic_read_tpr(void *context, hv_vp_index vp)
    {
        Machine &m = machine(context);
        return known_vp(m, vp, "apic_read_tpr") ? m.apics_[vp].tpr : 0;
    }

    static void apic_write_tpr(void *context, hv_vp_index vp, uint8_t value)
    {
        Machine &m = machine(context);
        if (known_vp(m, vp, "apic_write_tpr")) {
            m.apics_[vp].tpr = value;
        }
    }

    static std::vector<hv_vp_index> members(Machine &m, const hv_vp_set &set, const char *function)
    {
        std::vector<hv_vp_index> vps;
        for (hv_vp_index vp = 0; vp < HV_MAX_VPS; vp++) {
            if (set.bank[vp / 64] >> (vp % 64) & 1 && known_vp(m, vp, function)) {
                vps.push_back(vp);
            }
        }
        return vps;
    }

    static void flush_tlb(void *context, hv_vp_index caller, const hv_vp_set *set, bool keep_global)
    {
        Machine &m = machine(context);
        known_vp(m, caller, "flush_tlb");
        m.records.flushes.push_back({caller, members(m, *set, "flush_tlb"), keep_global, false, {}});
    }

    static void flush_tlb_ranges(void *context, hv_vp_index caller, const hv_vp_set *set, const hv_gva_range *ranges,
                                 size_t count)
    {
        Machine &m = machine(context);
        known_vp(m, caller, "flush_tlb_ranges");
        for (size_t i = 0; i < count; i++) {
            if (ranges[i].gva % HV_PAGE_SIZE || ranges[i].count < 1 || ranges[i].count > 4096) {
                m.violation("flush_tlb_ranges: a range is not page-aligned or not 1 to 4096 pages");
            }
        }
        m.records.flushes.push_back({caller, members(m, *set, "flush_tlb_ranges"), false, true,
                                     std::vector<hv_gva_range>(ranges, ranges + count)});
    }

    static void set_cr3(void *context, hv_vp_index vp, uint64_t cr3)
    {
        Machine &m = machine(context);
        if (known_vp(m, vp, "set_cr3")) {
            m.records.cr3_loads.push_back({vp, cr3});
            m.tsc += m.call_ticks;
        }
    }

    static void read_xmm(void *context, hv_vp_index vp, uint8_t xmm[96])
    {
        Machine &m = machine(context);
        known_vp(m, vp, "read_xmm");
        if (!m.registers_) {
            m.violation("read_xmm: no VP is in a hypercall");
            std::memset(xmm, 0, 96);
            return;
        }
        std::copy(m.registers_->xmm.begin(), m.registers_->xmm.end(), xmm);
    }

    static void spin_wait(void *context, hv_vp_index vp)
    {
        Machine &m = machine(context);
        known_vp(m, vp, "spin_wait");
        m.records.spin_waits.push_back(vp);
    }

    static void reset(void *context)
    {
        machine(context).records.resets++;
    }

    static void cpuid_changed(void *context)
    {
        machine(context).records.cpuid_changes++;
    }

    static void debug_changed(void *context)
    {
        machine(context).records.debug_posts++;
    }

    static void crash(void *context, hv_vp_index vp, const uint64_t parameters[5], const char *message, size_t size)
    {
        Machine &m = machine(context);
        known_vp(m, vp, "crash");
        Records::Crash crash{vp, {}, message != nullptr, message ? std::string(message, size) : std::string()};
        std::copy(parameters, parameters + 5, crash.parameters.begin());
        m.records.crashes.push_back(crash);
    }

    static void trace_hypercall(void *context, hv_vp_index vp, int row, uint64_t input, uint64_t result)
    {
        Machine &m = machine(context);
        known_vp(m, vp, "trace_hypercall");
        if (row < -1 || row >= HV_HYPERCALL_ROWS) {
            m.violation("trace_hypercall: no such row");
        }
        m.records.traces.push_back({vp, row, input, result});
    }

    static const hv_platform_ops table;
};

static hv_platform_ops make_table()
{
    hv_platform_ops ops{};
    ops.read_gpa = PlatformOps::read_gpa;
    ops.write_gpa = PlatformOps::write_gpa;
    ops.probe_write = PlatformOps::probe_write;
    ops.set_overlay = PlatformOps::set_overlay;
    ops.hypercall_code = PlatformOps::hypercall_code;
    ops.read_tsc = PlatformOps::read_tsc;
    ops.sample_tsc = PlatformOps::sample_tsc;
    ops.set_timer = PlatformOps::set_timer;
    ops.vp_run_time = PlatformOps::vp_run_time;
    ops.request_interrupt = PlatformOps::request_interrupt;
    ops.apic_eoi = PlatformOps::apic_eoi;
    ops.apic_read_icr = PlatformOps::apic_read_icr;
    ops.apic_write_icr = PlatformOps::apic_write_icr;
    ops.apic_read_tpr = PlatformOps::apic_read_tpr;
    ops.apic_write_tpr = PlatformOps::apic_write_tpr;
    ops.flush_tlb = PlatformOps::flush_tlb;
    ops.flush_tlb_ranges = PlatformOps::flush_tlb_ranges;
    ops.set_cr3 = PlatformOps::set_cr3;
    ops.read_xmm = PlatformOps::read_xmm;
    ops.spin_wait = PlatformOps::spin_wait;
    ops.reset = PlatformOps::reset;
    ops.cpuid_changed = PlatformOps::cpuid_changed;
    ops.debug_changed = PlatformOps::debug_changed;
    ops.crash = PlatformOps::crash;
    ops.trace_hypercall = PlatformOps::trace_hypercall;
    add_child_operations(ops);
    return ops;
}

const hv_platform_ops PlatformOps::table = make_table();

/* -- The machine -- */

Machine::Machine(const MachineConfig &config, const GuestMemory &initial_memory)
    : processors(HV_MAX_VPS + 1), memory(initial_memory),
      run_time(config.core.root ? HV_MAX_VPS : config.core.vp_count), config_(config), apics_(config.core.vp_count),
      timers_(config.core.root ? HV_MAX_VPS : config.core.vp_count)
{
    const char *error = nullptr;
    if (config_.hypercall_code.size() > HV_PAGE_SIZE) {
        throw std::invalid_argument("the hypercall page's code is longer than a page");
    }
    hv_.reset(hv_create(&config_.core, &PlatformOps::table, this, &error));
    if (!core()) {
        throw std::invalid_argument(error ? error : "hv_create() failed without saying why");
    }
    leave();
}

void Machine::violation(const std::string &text)
{
    if (violation_.empty()) {
        violation_ = text;
    }
}

hv_vp *Machine::vp(hv_vp_handle index)
{
    hv_vp *vp = hv_get_vp_by_handle(core(), index);
    if (!vp) {
        throw std::out_of_range("the machine has no VP " + std::to_string(index));
    }
    return vp;
}

Processor &Machine::processor(hv_vp_handle handle)
{
    if (handle >= HV_MAX_VPS || !processors[handle].created) {
        throw std::out_of_range("no child has VP " + std::to_string(handle));
    }
    return processors[handle];
}

LocalApic &Machine::apic(hv_vp_index index)
{
    return apics_.at(index);
}

void Machine::leave()
{
    registers_ = nullptr;
    for (unsigned rounds = 0; !revoke_later_.empty() || !eoi_later_.empty(); rounds++) {
        if (rounds > 1000) {
            violation("interrupts are requested without end");
            revoke_later_.clear();
            eoi_later_.clear();
        } else if (!eoi_later_.empty()) {
            hv_vp_index index = eoi_later_.front();
            eoi_later_.erase(eoi_later_.begin());
            finish_eoi(index);
        } else {
            hv_vp_index index = revoke_later_.front();
            revoke_later_.erase(revoke_later_.begin());
            revoke_assist(index);
        }
    }
    if (!violation_.empty()) {
        std::string text;
        text.swap(violation_);
        throw ContractViolation(text);
    }
}

hv_exit Machine::hypercall(hv_vp_index index, Registers &registers, bool long_mode, bool legal)
{
    hv_vp *caller = vp(index);
    hv_call_frame frame{};
    frame.gpr = registers.gpr.data();
    frame.legal = legal;
    frame.long_mode = long_mode;
    registers_ = &registers;
    hv_exit exit = hv_hypercall(caller, &frame);
    leave();
    return exit;
}

static std::string msr_name(const char *what, uint32_t msr)
{
    char text[64];
    std::snprintf(text, sizeof text, "#GP: %s of MSR 0x%08X", what, msr);
    return text;
}

uint64_t Machine::read_msr(hv_vp_index index, uint32_t msr)
{
    uint64_t value = UINT64_C(0xBADBADBADBADBAD0); /* seen only if the core forgets to set it */
    hv_exit exit = hv_read_msr(vp(index), msr, &value);
    if (exit == HV_EXIT_IDLE) {
        records.idles.push_back(index);
    } else if (exit != HV_EXIT_DONE && exit != HV_EXIT_GP) {
        violation("hv_read_msr() answers an exit that is none of DONE, GP and IDLE");
    }
    leave();
    if (exit == HV_EXIT_GP) {
        throw GeneralProtectionFault(msr_name("read", msr));
    }
    return value;
}

bool Machine::write_msr_quietly(hv_vp_index index, uint32_t msr, uint64_t value)
{
    hv_exit exit = hv_write_msr(vp(index), msr, value);
    if (exit != HV_EXIT_DONE && exit != HV_EXIT_GP) {
        violation("hv_write_msr() answers an exit that is neither DONE nor GP");
    }
    leave();
    return exit == HV_EXIT_DONE;
}

void Machine::write_msr(hv_vp_index index, uint32_t msr, uint64_t value)
{
    if (!write_msr_quietly(index, msr, value)) {
        throw GeneralProtectionFault(msr_name("write", msr));
    }
}

static void throw_for(Access access)
{
    if (access == Access::overlay_read_only) {
        throw GeneralProtectionFault("#GP: write to a read-only overlay page");
    }
    if (access == Access::overlay_checked) {
        throw MachineCheck("#MC: write to a statistics page");
    }
    if (access == Access::no_access) {
        throw MachineCheck("#MC: access without the right to the page");
    }
}

static size_t rest_of_page(uint64_t gpa, size_t size)
{
    return std::min<size_t>(size, HV_PAGE_SIZE - static_cast<size_t>(gpa % HV_PAGE_SIZE));
}

/* Inside one page, through the second stage. */
void Machine::access_page(hv_vp_handle handle, uint64_t gpa, uint8_t *read_to, const uint8_t *write_from, size_t size)
{
    unsigned wanted = write_from ? HV_ACCESS_WRITE : HV_ACCESS_READ;
    hv_vp *accessor = vp(handle);
    hv_translation to{};
    hv_translate_gpa(accessor, gpa, wanted, &to);
    uint64_t offset = gpa % HV_PAGE_SIZE;
    switch (to.kind) {
    case HV_TRANSLATION_OVERLAY:
        write_from ? std::memcpy(to.page + offset, write_from, size) : std::memcpy(read_to, to.page + offset, size);
        return;
    case HV_TRANSLATION_RAM:
        if (write_from ? memory.write_ram(to.spa + offset, write_from, size)
                       : memory.read_ram(to.spa + offset, read_to, size)) {
            return;
        }
        break;
    case HV_TRANSLATION_FAULT:
        throw GeneralProtectionFault("#GP: write to a read-only overlay page");
    case HV_TRANSLATION_CHECK:
        throw MachineCheck("#MC: write to a statistics page");
    case HV_TRANSLATION_UNMAPPED:
        break;
    default:
        if (!hv_vp_is_child(accessor)) {
            throw MachineCheck("#MC: access without the right to the page");
        }
    }
    if (hv_vp_is_child(accessor)) {
        throw GpaFault(to.kind == HV_TRANSLATION_UNMAPPED ? "the GPA is not mapped" : "a right to the GPA is missing");
    }
    if (read_to) {
        std::memset(read_to, 0xFF, size); /* a device would be there */
    }
}

void Machine::read(uint64_t gpa, uint8_t *buffer, size_t size, hv_vp_handle handle)
{
    while (size) {
        size_t part = rest_of_page(gpa, size);
        if (config_.core.root) {
            access_page(handle, gpa, buffer, nullptr, part);
        } else {
            Access access = memory.read(gpa, buffer, part);
            throw_for(access);
            if (access == Access::unmapped) {
                std::memset(buffer, 0xFF, part);
            }
        }
        gpa += part;
        buffer += part;
        size -= part;
    }
}

void Machine::write(uint64_t gpa, const uint8_t *buffer, size_t size, hv_vp_handle handle)
{
    while (size) {
        size_t part = rest_of_page(gpa, size);
        if (config_.core.root) {
            access_page(handle, gpa, nullptr, buffer, part);
        } else {
            throw_for(memory.write(gpa, buffer, part));
        }
        gpa += part;
        buffer += part;
        size -= part;
    }
}

/* -- Time -- */

uint64_t Machine::timer_tsc(hv_vp_index index, unsigned timer)
{
    vp(index);
    return timers_[index].at(timer).tsc;
}

void Machine::timer_expired(hv_vp_index index, unsigned timer)
{
    if (timer >= HV_VP_TIMER_COUNT) {
        throw std::out_of_range("a VP has no such timer");
    }
    hv_timer_expired(vp(index), timer);
    leave();
}

void Machine::advance_tsc(uint64_t ticks, unsigned budget)
{
    uint64_t target = tsc + ticks < tsc ? UINT64_MAX : tsc + ticks;
    for (; budget; budget--) {
        hv_vp_index next_vp = 0;
        unsigned next_timer = 0;
        uint64_t next = HV_NANO100_NEVER;
        for (hv_vp_index index = 0; index < timers_.size(); index++) {
            for (unsigned timer = 0; timer < HV_VP_TIMER_COUNT; timer++) {
                if (timers_[index][timer].tsc < next) {
                    next = timers_[index][timer].tsc;
                    next_vp = index;
                    next_timer = timer;
                }
            }
        }
        if (next == HV_NANO100_NEVER || next > target) {
            break;
        }
        tsc = std::max(tsc, next);
        timers_[next_vp][next_timer].tsc = HV_NANO100_NEVER;
        timer_expired(next_vp, next_timer);
    }
    tsc = std::max(tsc, target);
}

void Machine::fire_due_timers(unsigned budget)
{
    advance_tsc(0, budget);
}

void Machine::advance(uint64_t nano100)
{
    uint128 ticks =
        (static_cast<uint128>(nano100) * config_.core.tsc_frequency + nano100_per_second - 1) / nano100_per_second;
    advance_tsc(ticks > UINT64_MAX ? UINT64_MAX : static_cast<uint64_t>(ticks));
}

/* -- The local APICs -- */

void Machine::ended(hv_vp_index index, int vector)
{
    if (vector > 255) {
        violation("hv_apic_assist_collect() or _revoke() answers no vector");
        return;
    }
    if (vector >= 0) {
        apics_[index].isr.reset(static_cast<size_t>(vector));
        hv_interrupt_ended(vp(index), static_cast<uint8_t>(vector));
    }
}

void Machine::collect_assisted(hv_vp_index index)
{
    ended(index, hv_apic_assist_collect(vp(index)));
}

void Machine::revoke_assist(hv_vp_index index)
{
    ended(index, hv_apic_assist_revoke(vp(index)));
}

/* The EOI of the highest vector in service. */
void Machine::finish_eoi(hv_vp_index index)
{
    revoke_assist(index);
    ended(index, LocalApic::highest(apics_[index].isr));
}

void Machine::request_interrupt(hv_vp_index index, uint8_t vector)
{
    LocalApic &apic = this->apic(index);
    if (apic.enabled) {
        apic.irr.set(vector);
        revoke_later_.push_back(index);
    }
    leave();
}

int Machine::accept_interrupt(hv_vp_index index)
{
    LocalApic &apic = this->apic(index);
    collect_assisted(index);
    int vector = apic.deliverable();
    if (vector >= 0) {
        apic.irr.reset(static_cast<size_t>(vector));
        apic.isr.set(static_cast<size_t>(vector));
        hv_acceptance acceptance = hv_interrupt_accepted(vp(index), static_cast<uint8_t>(vector), apic.irr.none());
        if (acceptance == HV_ACCEPT_AUTO_EOI) {
            ended(index, vector);
        }
    }
    leave();
    return vector;
}

void Machine::end_interrupt(hv_vp_index index)
{
    vp(index);
    eoi_later_.push_back(index);
    leave();
}

bool Machine::end_interrupt_assisted(hv_vp_index index)
{
    uint64_t page = read_msr(index, HV_X64_MSR_APIC_ASSIST_PAGE);
    if (page & 1) {
        uint32_t field = 0;
        const uint32_t cleared = 0;
        read(page & HV_PAGE_MASK, reinterpret_cast<uint8_t *>(&field), sizeof field);
        write(page & HV_PAGE_MASK, reinterpret_cast<const uint8_t *>(&cleared), sizeof cleared);
        if (field & 1) {
            return true;
        }
    }
    write_msr(index, HV_X64_MSR_EOI, 0);
    return false;
}

/* -- Operator -- */

hv_status Machine::create_port(uint32_t port, const hv_port_info &info)
{
    hv_status status = hv_operator_create_port(hv_machine_partition(core()), port, &info);
    leave();
    return status;
}

hv_status Machine::delete_port(uint32_t port)
{
    hv_status status = hv_operator_delete_port(hv_machine_partition(core()), port);
    leave();
    return status;
}

hv_status Machine::connect_port(uint32_t connection, uint32_t port)
{
    hv_status status = hv_operator_connect_port(hv_machine_partition(core()), connection, port);
    leave();
    return status;
}

hv_status Machine::disconnect_port(uint32_t connection)
{
    hv_status status = hv_operator_disconnect_port(hv_machine_partition(core()), connection);
    leave();
    return status;
}

hv_status Machine::post_message(uint32_t port, uint32_t type, const std::string &payload)
{
    hv_status status =
        hv_operator_post_message(hv_machine_partition(core()), port, type, payload.data(), payload.size());
    leave();
    return status;
}

hv_status Machine::signal_event(uint32_t port, uint16_t flag)
{
    hv_status status = hv_operator_signal_event(hv_machine_partition(core()), port, flag);
    leave();
    return status;
}

/* -- The debugger -- */

std::string Machine::debug_take(size_t size)
{
    std::string buffer(size, '\0');
    size_t taken = hv_debug_take(core(), reinterpret_cast<uint8_t *>(&buffer[0]), size);
    if (taken > size) {
        violation("hv_debug_take() gave more than was asked for");
        taken = size;
    }
    buffer.resize(taken);
    leave();
    return buffer;
}

void Machine::debug_receive(const std::string &data)
{
    hv_debug_receive(core(), reinterpret_cast<const uint8_t *>(data.data()), data.size());
    leave();
}

/* -- State -- */

void Machine::reset()
{
    hv_reset(core());
    for (LocalApic &apic : apics_) {
        apic = LocalApic();
    }
    leave();
}

std::vector<uint8_t> Machine::save()
{
    std::vector<uint8_t> stream(hv_save_size(core()));
    size_t length = hv_save(core(), stream.data(), stream.size());
    if (length > stream.size()) {
        violation("hv_save() wrote more than hv_save_size() said");
        length = stream.size();
    }
    stream.resize(length);
    leave();
    return stream;
}

void Machine::restore(const std::vector<uint8_t> &stream)
{
    const char *error = nullptr;
    bool restored = hv_restore(core(), stream.data(), stream.size(), &error);
    if (!restored && !error) {
        violation("hv_restore() failed without saying why");
    }
    leave();
    if (!restored) {
        throw RestoreError(error ? error : "");
    }
    config_.core.tsc_frequency = hv_get_config(core())->tsc_frequency;
}

/* What a platform saves itself: children's processors. Their lines are where the core has set them. */
void Machine::copy_processors(const Machine &from)
{
    for (size_t vp = 0; vp < HV_MAX_VPS; vp++) {
        auto lines = processors[vp].lines;
        if (processors[vp].created) {
            processors[vp] = from.processors[vp];
            processors[vp].lines = lines;
        }
    }
}

std::unique_ptr<Machine> Machine::migrate(uint64_t frequency)
{
    MachineConfig config = config_;
    config.core.tsc_frequency = frequency;
    std::vector<uint8_t> stream = save();
    auto target = std::unique_ptr<Machine>(new Machine(config, memory));
    target->tsc = tsc;
    target->run_time = run_time;
    target->apics_ = apics_;
    target->restore(stream);
    target->copy_processors(*this);
    return target;
}

} // namespace qemu_hv
