/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "machine.hpp"

namespace qemu_hv
{

namespace
{

/* Ends with zeros when the input is used up. */
class Bytes
{
  public:
    Bytes(const uint8_t *data, size_t size) : data_(data), left_(size)
    {
    }
    bool empty() const
    {
        return left_ == 0;
    }
    template <typename T> T take()
    {
        T value{};
        size_t size = std::min(left_, sizeof value);
        std::memcpy(&value, data_, size);
        data_ += size;
        left_ -= size;
        return value;
    }

  private:
    const uint8_t *data_;
    size_t left_;
};

class HostileGuest
{
  public:
    HostileGuest(const uint8_t *data, size_t size) : bytes_(data, size), machine_(make_machine())
    {
    }

    size_t run()
    {
        size_t steps = 0;
        for (; !bytes_.empty() && steps < max_steps; steps++) {
            step();
            check_time();
        }
        return steps;
    }

  private:
    static constexpr size_t max_steps = 4096;
    static constexpr unsigned timer_budget = 64;
    static constexpr uint64_t ram = 64 * HV_PAGE_SIZE;

    std::unique_ptr<Machine> make_machine()
    {
        uint8_t choice = bytes_.take<uint8_t>();
        MachineConfig config;
        hv_config_defaults(&config.core, choice & 1 ? HV_GEN_2008R2 : HV_GEN_CURRENT);
        config.core.vp_count = choice & 2 ? 70 : 1 + (choice >> 2 & 1);
        config.core.gpa_bits = 36;
        config.core.tsc_frequency = choice & 8 ? UINT64_C(2595999000) : UINT64_C(2560000000);
        config.core.apic_frequency = 1000000000;
        if (choice & 16) {
            config.core.privileges = bytes_.take<uint64_t>();
            config.core.features = bytes_.take<uint32_t>();
        }
        config.memory = ram;
        config.hypercall_code = {0x0F, 0x01, 0xC1, 0xC3};
        auto machine = std::make_unique<Machine>(config);
        hv_set_trace(machine->core(), choice & 32);
        if (choice & 64) {
            machine->write_msr_quietly(0, HV_X64_MSR_GUEST_OS_ID, 1);
            machine->write_msr_quietly(0, HV_X64_MSR_HYPERCALL, 1);
        }
        return machine;
    }

    hv_vp_index some_vp()
    {
        return bytes_.take<uint8_t>() % machine_->config().core.vp_count;
    }

    /* Mostly inside RAM and often aligned, sometimes anywhere. */
    uint64_t some_gpa()
    {
        uint16_t choice = bytes_.take<uint16_t>();
        if (choice & 0x8000) {
            return bytes_.take<uint64_t>();
        }
        uint64_t gpa = choice % (ram + 2 * HV_PAGE_SIZE) * 8;
        return choice & 0x4000 ? gpa & HV_PAGE_MASK : gpa;
    }

    uint64_t some_input_value()
    {
        uint8_t choice = bytes_.take<uint8_t>();
        if (choice >= 0xF0) {
            return bytes_.take<uint64_t>();
        }
        const hv_hypercall_row_info &row = hv_hypercall_rows[choice % HV_HYPERCALL_ROWS];
        uint64_t input = row.code;
        uint8_t shape = bytes_.take<uint8_t>();
        if (shape & 1 && (row.fast || row.xmm)) {
            input |= UINT64_C(1) << 16;
        }
        if (row.rep || shape & 0x80) {
            uint64_t reps = bytes_.take<uint16_t>() % (shape & 2 ? 4096 : 8);
            uint64_t start = shape & 4 ? bytes_.take<uint16_t>() % 4096 : 0;
            input |= reps << 32 | start << 48;
        }
        if (row.variable || shape & 0x40) {
            input |= static_cast<uint64_t>(shape >> 3 & 7) << 17;
        }
        return input;
    }

    void hypercall()
    {
        hv_vp_index vp = some_vp();
        uint8_t how = bytes_.take<uint8_t>();
        bool long_mode = !(how & 1), legal = (how & 6) != 6;
        uint64_t input = some_input_value();
        uint64_t first = how & 8 ? some_gpa() : bytes_.take<uint64_t>();
        uint64_t second = how & 16 ? some_gpa() : bytes_.take<uint64_t>();
        Registers registers;
        if (how & 32) {
            for (uint8_t &byte : registers.xmm) {
                byte = bytes_.take<uint8_t>();
            }
        }
        if (long_mode) {
            registers.gpr[Registers::rcx] = input;
            registers.gpr[Registers::rdx] = first;
            registers.gpr[Registers::r8] = second;
        } else {
            registers.gpr[Registers::rdx] = input >> 32;
            registers.gpr[Registers::rax] = input & UINT32_MAX;
            registers.gpr[Registers::rbx] = first >> 32;
            registers.gpr[Registers::rcx] = first & UINT32_MAX;
            registers.gpr[Registers::rdi] = second >> 32;
            registers.gpr[Registers::rsi] = second & UINT32_MAX;
        }
        hv_exit exit = HV_EXIT_RETRY;
        /* 4.3: every turn completes at least one of at most 4095 reps. */
        for (unsigned turns = 0; exit == HV_EXIT_RETRY; turns++) {
            if (turns > 4096) {
                throw ContractViolation("a hypercall is continued without progress");
            }
            exit = machine_->hypercall(vp, registers, long_mode, legal);
        }
        if (exit == HV_EXIT_DONE || exit == HV_EXIT_IDLE) {
            check_result(input, long_mode ? registers.gpr[Registers::rax]
                                          : registers.gpr[Registers::rdx] << 32 |
                                                (registers.gpr[Registers::rax] & UINT32_MAX));
        } else if (exit == HV_EXIT_GP) {
            throw ContractViolation("a hypercall ended with #GP");
        }
    }

    static void check_result(uint64_t input, uint64_t result)
    {
        uint64_t reps = input >> 32 & 0xFFF, completed = result >> 32 & 0xFFF;
        unsigned status = result & 0xFFFF;
        if (!hv_status_name(status)) {
            throw ContractViolation("a hypercall answered a status that is not in the table");
        }
        if (completed > reps) {
            throw ContractViolation("a hypercall completed more reps than there are");
        }
        if (status == HV_STATUS_SUCCESS && reps && completed != reps) {
            throw ContractViolation("a rep hypercall succeeded without completing all reps");
        }
    }

    uint32_t some_msr()
    {
        uint8_t choice = bytes_.take<uint8_t>();
        if (choice >= 0xF8) {
            return bytes_.take<uint32_t>();
        }
        const hv_msr_row_info &row = hv_msr_rows[choice % HV_MSR_ROWS];
        return row.index + bytes_.take<uint8_t>() % (row.count + 1u);
    }

    void write_msr()
    {
        hv_vp_index vp = some_vp();
        uint32_t msr = some_msr();
        uint8_t choice = bytes_.take<uint8_t>();
        uint64_t value = bytes_.take<uint16_t>();
        switch (choice & 3) {
        case 1: /* a page inside RAM, enabled */
            value = (value % 70) << HV_PAGE_SHIFT | 1;
            break;
        case 2:
            value = machine_reference_time() + value;
            break;
        case 3:
            value = bytes_.take<uint64_t>();
            break;
        }
        machine_->write_msr_quietly(vp, msr, value);
    }

    void read_msr()
    {
        hv_vp_index vp = some_vp();
        uint32_t msr = some_msr();
        try {
            machine_->read_msr(vp, msr);
        } catch (const GeneralProtectionFault &) {
            /* what the interface says of most indices */
        }
    }

    void guest_write()
    {
        uint64_t gpa = some_gpa();
        uint8_t buffer[32];
        size_t size = 1 + bytes_.take<uint8_t>() % sizeof buffer;
        for (size_t i = 0; i < size; i++) {
            buffer[i] = bytes_.take<uint8_t>();
        }
        try {
            machine_->write(gpa, buffer, size);
        } catch (const ProcessorException &) {
            /* a guest may try */
        }
    }

    void change_memory()
    {
        uint64_t gpa = some_gpa() % (ram * 2);
        switch (bytes_.take<uint8_t>() % 4) {
        case 0:
            machine_->memory.unmap(gpa, 1);
            break;
        case 1:
            machine_->memory.map(gpa, 1, true, false);
            break;
        case 2:
            machine_->memory.map(gpa, 1, false, false);
            break;
        default:
            machine_->memory.map(gpa, 1, true, true);
            break;
        }
    }

    void operate()
    {
        uint8_t choice = bytes_.take<uint8_t>();
        uint32_t port = bytes_.take<uint8_t>() % 4, connection = bytes_.take<uint8_t>() % 4;
        switch (choice % 6) {
        case 0: {
            hv_port_info info{};
            info.type = static_cast<hv_port_type>(bytes_.take<uint8_t>() % 4);
            info.sint = bytes_.take<uint8_t>() % 18;
            info.vp = choice & 64 ? HV_ANY_VP : bytes_.take<uint8_t>();
            info.base_flag = bytes_.take<uint16_t>();
            info.flag_count = bytes_.take<uint16_t>();
            machine_->create_port(port, info);
            break;
        }
        case 1:
            machine_->delete_port(port);
            break;
        case 2:
            machine_->connect_port(connection, port);
            break;
        case 3:
            machine_->disconnect_port(connection);
            break;
        case 4:
            machine_->post_message(port, bytes_.take<uint32_t>(), std::string(bytes_.take<uint8_t>(), 'm'));
            break;
        default:
            machine_->signal_event(port, bytes_.take<uint16_t>());
            break;
        }
    }

    void run_apic()
    {
        hv_vp_index vp = some_vp();
        switch (bytes_.take<uint8_t>() % 5) {
        case 0:
            machine_->accept_interrupt(vp);
            break;
        case 1:
            machine_->end_interrupt(vp);
            break;
        case 2:
            machine_->request_interrupt(vp, static_cast<uint8_t>(16 + bytes_.take<uint8_t>() % 240));
            break;
        case 3:
            machine_->apic(vp).enabled = !machine_->apic(vp).enabled;
            break;
        default:
            try {
                machine_->end_interrupt_assisted(vp);
            } catch (const ProcessorException &) {
                /* without the privilege, or with the assist page where the guest cannot write */
            }
            break;
        }
    }

    void save_and_restore()
    {
        std::vector<uint8_t> stream = machine_->save();
        uint8_t choice = bytes_.take<uint8_t>();
        if (choice & 1) {
            machine_ = machine_->migrate(machine_->config().core.tsc_frequency);
            return;
        }
        for (unsigned changes = choice >> 1 & 7; changes && !stream.empty(); changes--) {
            stream[bytes_.take<uint16_t>() % stream.size()] = bytes_.take<uint8_t>();
        }
        if (choice & 16) {
            stream.resize(bytes_.take<uint16_t>() % (stream.size() + 1));
        }
        try {
            machine_->restore(stream);
        } catch (const RestoreError &) {
            /* a damaged stream may be refused */
        }
        last_time_ = 0;
    }

    void step()
    {
        switch (bytes_.take<uint8_t>() % 16) {
        case 0:
        case 1:
        case 2:
        case 3:
        case 4:
            hypercall();
            break;
        case 5:
        case 6:
        case 7:
            write_msr();
            break;
        case 8:
            read_msr();
            break;
        case 9:
            guest_write();
            break;
        case 10:
            change_memory();
            break;
        case 11:
            operate();
            break;
        case 12:
            run_apic();
            break;
        case 13:
            machine_->advance_tsc(bytes_.take<uint32_t>(), timer_budget);
            break;
        case 14:
            save_and_restore();
            break;
        default:
            inspect();
            break;
        }
        machine_->records = Records();
    }

    void inspect()
    {
        struct hv_cpuid leaf;
        hv_cpuid(hv_machine_partition(machine_->core()), HV_CPUID_FIRST + bytes_.take<uint16_t>(), &leaf);
        hv_partition_state partition;
        hv_get_partition_state(hv_machine_partition(machine_->core()), &partition);
        hv_vp_state state;
        hv_get_vp_state(machine_->vp(some_vp()), &state);
        uint8_t choice = bytes_.take<uint8_t>();
        if (choice == 1) {
            machine_->reset();
        } else if (choice == 2) {
            machine_->timer_expired(some_vp(), bytes_.take<uint8_t>() % HV_VP_TIMER_COUNT);
        }
    }

    uint64_t machine_reference_time()
    {
        return hv_reference_time(hv_machine_partition(machine_->core()));
    }

    void check_time()
    {
        uint64_t now = machine_reference_time();
        if (now < last_time_) {
            throw ContractViolation("reference time went back");
        }
        last_time_ = now;
    }

    Bytes bytes_;
    std::unique_ptr<Machine> machine_;
    uint64_t last_time_ = 0;
};

} // namespace

size_t fuzz(const uint8_t *data, size_t size)
{
    return HostileGuest(data, size).run();
}

} // namespace qemu_hv

extern "C" void hv_fuzz_input(const uint8_t *data, size_t size)
{
    try {
        qemu_hv::fuzz(data, size);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "hv_fuzz_input: %s\n", error.what());
        std::abort();
    }
}
