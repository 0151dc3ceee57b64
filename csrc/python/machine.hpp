/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The simulated platform: a machine made of numbers. Memory is a sparse buffer, time is a TSC that its user sets,
 * interrupts land in a small local APIC, and everything else that the core asks for is recorded.
 *
 * It holds the core to platform.h's rules: a call that breaks one makes the next method that entered the core throw
 * ContractViolation.
 */
#ifndef QEMU_HV_MACHINE_HPP
#define QEMU_HV_MACHINE_HPP

#include <array>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "children.hpp"
#include "core.hpp"
#include "guest_memory.hpp"
#include "local_apic.hpp"

namespace qemu_hv
{

struct ContractViolation : std::logic_error {
    using std::logic_error::logic_error;
};
struct ProcessorException : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct InvalidOpcode : ProcessorException {
    using ProcessorException::ProcessorException;
};
struct GeneralProtectionFault : ProcessorException {
    using ProcessorException::ProcessorException;
};
struct MachineCheck : ProcessorException {
    using ProcessorException::ProcessorException;
};
/* A child's access that its GPA space does not allow. */
struct GpaFault : ProcessorException {
    using ProcessorException::ProcessorException;
};
struct RestoreError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Registers {
    enum { rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 };
    std::array<uint64_t, 16> gpr{};
    std::array<uint8_t, 96> xmm{};
};

struct MachineConfig {
    hv_config core{};
    uint64_t memory = 0;
    std::vector<uint8_t> hypercall_code;
};

/* Everything the core asked of the machine, in order. */
struct Records {
    struct Interrupt {
        hv_vp_index vp;
        uint8_t vector;
    };
    struct Flush {
        hv_vp_index caller;
        std::vector<hv_vp_index> vps;
        bool keep_global;
        bool listed; /* ranges are given, else everything */
        std::vector<hv_gva_range> ranges;
    };
    struct Crash {
        hv_vp_index vp;
        std::array<uint64_t, 5> parameters;
        bool has_message;
        std::string message;
    };
    struct Trace {
        hv_vp_index vp;
        int row;
        uint64_t input, result;
    };
    struct OverlayChange {
        hv_overlay_kind kind;
        hv_vp_index vp;
        bool enabled;
        uint64_t gpa;
    };
    struct VpValue {
        hv_vp_index vp;
        uint64_t value;
    };
    std::vector<Interrupt> interrupts;
    std::vector<Interrupt> lost_interrupts;
    std::vector<Flush> flushes;
    std::vector<Crash> crashes;
    std::vector<Trace> traces;
    std::vector<OverlayChange> overlay_changes;
    std::vector<VpValue> cr3_loads, icr_writes, eoi_writes;
    std::vector<hv_vp_index> spin_waits, idles;
    unsigned resets = 0, cpuid_changes = 0, debug_posts = 0;
};

class Machine
{
  public:
    /* Throws std::invalid_argument with the core's sentence when it refuses the configuration. */
    explicit Machine(const MachineConfig &config) : Machine(config, GuestMemory(config.memory))
    {
    }
    Machine(const Machine &) = delete;
    Machine &operator=(const Machine &) = delete;

    const MachineConfig &config() const
    {
        return config_;
    }
    hv *core()
    {
        return hv_.get();
    }
    /* By handle. Throws std::out_of_range where there is no such VP. */
    hv_vp *vp(hv_vp_handle handle);

    /* -- Children -- */
    std::vector<Processor> processors; /* by handle, and a last one for calls that name none */
    std::set<uint32_t> refused_registers; /* names whose values the processor refuses */
    hv_progress creation_progress = HV_PROGRESS_DONE, admission_progress = HV_PROGRESS_DONE;
    std::optional<uint64_t> admitted_privileges, admitted_pages;
    ChildRecords child_records;
    /* Throws std::out_of_range where no child's processor is. */
    Processor &processor(hv_vp_handle handle);
    void leave(); /* do what platform functions had to put off, then throw if the core broke a rule */
    void violation(const std::string &text);

    hv_exit hypercall(hv_vp_index index, Registers &registers, bool long_mode, bool legal);
    uint64_t read_msr(hv_vp_index index, uint32_t msr);
    void write_msr(hv_vp_index index, uint32_t msr, uint64_t value);
    bool write_msr_quietly(hv_vp_index index, uint32_t msr, uint64_t value); /* false: #GP */

    /* As the guest's own instructions: may cross pages, throws what the processor would. */
    void read(uint64_t gpa, uint8_t *buffer, size_t size, hv_vp_handle vp = 0);
    void write(uint64_t gpa, const uint8_t *buffer, size_t size, hv_vp_handle vp = 0);
    GuestMemory memory;

    /* -- Time -- */
    uint64_t tsc = 0;
    uint64_t call_ticks = 0; /* that a switch of address spaces takes */
    /* Move the TSC on and call due timers at their time; after `budget` calls the rest come late, at the end. */
    void advance_tsc(uint64_t ticks, unsigned budget = 1000000);
    void advance(uint64_t nano100);
    void fire_due_timers(unsigned budget = 1000000);
    void timer_expired(hv_vp_index index, unsigned timer);
    uint64_t timer_tsc(hv_vp_index index, unsigned timer);
    std::vector<uint64_t> run_time;

    /* -- The local APICs -- */
    LocalApic &apic(hv_vp_index index);
    void request_interrupt(hv_vp_index index, uint8_t vector);
    int accept_interrupt(hv_vp_index index); /* the vector, or -1 */
    void end_interrupt(hv_vp_index index); /* an EOI by the APIC's memory-mapped register */
    bool end_interrupt_assisted(hv_vp_index index); /* 13.3.4.1; whether no MSR write was needed */

    /* -- Operator -- */
    hv_status create_port(uint32_t port, const hv_port_info &info);
    hv_status delete_port(uint32_t port);
    hv_status connect_port(uint32_t connection, uint32_t port);
    hv_status disconnect_port(uint32_t connection);
    hv_status post_message(uint32_t port, uint32_t type, const std::string &payload);
    hv_status signal_event(uint32_t port, uint16_t flag);

    /* -- The debugger's end of the connection -- */
    std::string debug_take(size_t size);
    void debug_receive(const std::string &data);

    void reset();
    std::vector<uint8_t> save();
    void restore(const std::vector<uint8_t> &stream); /* throws RestoreError */
    /*
     * Another machine, made with another TSC frequency, in this one's state: memory, APICs and TSC copied, the core
     * saved and restored. Its TSC then ticks at this one's frequency.
     */
    std::unique_ptr<Machine> migrate(uint64_t frequency);
    void copy_processors(const Machine &from);

    Records records;

  private:
    friend struct PlatformOps;
    struct Destroy {
        void operator()(hv *core) const
        {
            hv_destroy(core);
        }
    };

    Machine(const MachineConfig &config, const GuestMemory &initial_memory);
    struct Timer {
        uint64_t tsc = HV_NANO100_NEVER;
    };

    void access_page(hv_vp_handle vp, uint64_t gpa, uint8_t *read_to, const uint8_t *write_from, size_t size);
    void collect_assisted(hv_vp_index index);
    void revoke_assist(hv_vp_index index);
    void finish_eoi(hv_vp_index index);
    void ended(hv_vp_index index, int vector);

    MachineConfig config_;
    std::vector<LocalApic> apics_;
    std::vector<std::array<Timer, HV_VP_TIMER_COUNT>> timers_;
    std::vector<hv_vp_index> revoke_later_, eoi_later_;
    const Registers *registers_ = nullptr; /* of the VP that is in a hypercall */
    std::string violation_;
    std::unique_ptr<hv, Destroy> hv_; /* last: it uses the rest until it is destroyed */
};

} // namespace qemu_hv

#endif
