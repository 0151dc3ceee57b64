/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "children.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "machine.hpp"

namespace qemu_hv
{

/* Its members are platform functions (csrc/hv/platform.h). */
struct ChildOperations {
    static Machine &machine(void *context)
    {
        return *static_cast<Machine *>(context);
    }

    static Processor &processor(void *context, hv_vp_handle vp, const char *function)
    {
        Machine &m = machine(context);
        if (vp >= HV_MAX_VPS || !m.processors[vp].created) {
            m.violation(std::string(function) + ": no processor was made for VP " + std::to_string(vp));
            return m.processors[HV_MAX_VPS];
        }
        return m.processors[vp];
    }

    static void *allocate_pages(void *, size_t count)
    {
        void *pages = std::aligned_alloc(HV_PAGE_SIZE, count * HV_PAGE_SIZE);
        if (pages) {
            std::memset(pages, 0, count * HV_PAGE_SIZE);
        }
        return pages;
    }

    static void free_pages(void *, void *pages, size_t)
    {
        std::free(pages);
    }

    static uint64_t memory_pages(void *context, hv_gpa gpa, uint64_t most)
    {
        return machine(context).memory.writable_pages(gpa, most);
    }

    static hv_progress create_vp(void *context, hv_vp_handle vp)
    {
        Machine &m = machine(context);
        if (m.creation_progress != HV_PROGRESS_DONE) {
            return m.creation_progress;
        }
        m.processors[vp].created = true;
        m.child_records.creations.push_back(vp);
        return HV_PROGRESS_DONE;
    }

    /* As a processor comes out of reset, as far as these registers go. */
    static void reset_vp(void *context, hv_vp_handle vp, uint32_t, bool wait_for_sipi)
    {
        Processor &p = processor(context, vp, "reset_vp");
        p = Processor();
        p.created = true;
        p.waits_for_sipi = wait_for_sipi;
        p.registers[HV_REGISTER_Rip].reg64 = 0xFFF0;
        p.registers[HV_REGISTER_Rflags].reg64 = 2;
        p.registers[HV_REGISTER_Cr0].reg64 = 0x60000010;
        p.registers[HV_REGISTER_Cs].segment = {0xFFFF0000, 0xFFFF, 0xF000, 0x93};
        p.registers[HV_REGISTER_Dr6].reg64 = 0xFFFF0FF0;
        p.registers[HV_REGISTER_Dr7].reg64 = 0x400;
        p.registers[HV_REGISTER_Xfem].reg64 = 1;
        machine(context).child_records.resets.push_back(vp);
    }

    static void start_vp(void *context, hv_vp_handle vp, uint8_t vector)
    {
        Processor &p = processor(context, vp, "start_vp");
        p.waits_for_sipi = false;
        p.registers[HV_REGISTER_Rip].reg64 = 0;
        p.registers[HV_REGISTER_Cs].segment = {static_cast<uint64_t>(vector) << 12, 0xFFFF,
                                               static_cast<uint16_t>(vector << 8), 0x93};
        machine(context).child_records.starts.push_back({vp, vector});
    }

    static void set_line(void *context, hv_vp_handle vp, hv_line line, bool raised)
    {
        Processor &p = processor(context, vp, "set_line");
        if (line < 0 || line >= HV_LINE_LINES) {
            machine(context).violation("set_line: no such line");
            return;
        }
        p.lines[line] = raised;
        if (raised) {
            p.waits = false;
        }
        machine(context).child_records.lines.push_back({vp, line, raised});
    }

    static bool vp_waits(void *context, hv_vp_handle vp)
    {
        Machine &m = machine(context);
        return vp < HV_MAX_VPS && (m.processors[vp].waits || m.processors[vp].waits_for_sipi);
    }

    static void kick_vp(void *context, hv_vp_handle vp)
    {
        machine(context).child_records.kicks.push_back(vp);
    }

    static void kick_lp(void *context, unsigned lp)
    {
        machine(context).child_records.lp_kicks.push_back(lp);
    }

    static void get_register(void *context, hv_vp_handle vp, hv_register_name name, hv_register_value *value)
    {
        Machine &m = machine(context);
        auto &registers = vp < HV_MAX_VPS ? m.processors[vp].registers : m.processors[HV_MAX_VPS].registers;
        auto found = registers.find(name);
        std::memset(value, 0, sizeof *value);
        if (found != registers.end()) {
            *value = found->second;
        }
    }

    static bool set_register(void *context, hv_vp_handle vp, hv_register_name name, const hv_register_value *value)
    {
        Machine &m = machine(context);
        if (m.refused_registers.count(name)) {
            return false;
        }
        m.processors[std::min<hv_vp_handle>(vp, HV_MAX_VPS)].registers[name] = *value;
        return true;
    }

    static uint64_t *gprs(void *context, hv_vp_handle vp)
    {
        return machine(context).processors[std::min<hv_vp_handle>(vp, HV_MAX_VPS)].gprs.data();
    }

    static void get_execution(void *context, hv_vp_handle vp, hv_execution *execution)
    {
        auto value = [=](hv_register_name name) {
            hv_register_value value;
            get_register(context, vp, name, &value);
            return value;
        };
        *execution = {value(HV_REGISTER_Rip).reg64,
                      value(HV_REGISTER_Rflags).reg64,
                      value(HV_REGISTER_Cr0).reg64,
                      value(HV_REGISTER_Efer).reg64,
                      value(HV_REGISTER_Dr7).reg64,
                      value(HV_REGISTER_Cs).segment,
                      (value(HV_REGISTER_PendingInterruption).reg64 & 1) != 0};
    }

    static void get_activity(void *context, hv_vp_handle vp, hv_activity *activity)
    {
        const Processor &p = processor(context, vp, "get_activity");
        *activity = p.activity;
        activity->flags = (activity->flags & ~HV_ACTIVITY_HALTED) | (p.waits ? HV_ACTIVITY_HALTED : 0);
    }

    static void set_activity(void *context, hv_vp_handle vp, const hv_activity *activity)
    {
        Processor &p = processor(context, vp, "set_activity");
        p.activity = *activity;
        p.waits = activity->flags & HV_ACTIVITY_HALTED;
    }

    static size_t read_instruction(void *context, hv_vp_handle vp, uint8_t bytes[16])
    {
        const Processor &p = processor(context, vp, "read_instruction");
        size_t count = std::min<size_t>(p.code.size(), 16);
        std::copy_n(p.code.begin(), count, bytes);
        return count;
    }

    static void translate_gva(void *context, hv_vp_handle vp, uint64_t gva, unsigned, hv_gva_translation *out)
    {
        const Processor &p = processor(context, vp, "translate_gva");
        auto found = p.translations.find(gva & HV_PAGE_MASK);
        std::memset(out, 0, sizeof *out);
        out->result = hv_gva_translation::HV_GVA_NOT_PRESENT;
        if (found != p.translations.end()) {
            *out = found->second;
            out->gpa += gva & ~HV_PAGE_MASK;
        }
    }

    static void flush_second_stage(void *context, hv_vp_handle caller, const hv_vp_set *set)
    {
        std::vector<hv_vp_handle> vps;
        for (hv_vp_handle vp = 0; vp < HV_MAX_VPS; vp++) {
            if (set->bank[vp / 64] >> (vp % 64) & 1) {
                vps.push_back(vp);
            }
        }
        machine(context).child_records.second_stage_flushes.push_back({caller, vps});
    }

    static hv_progress admit(void *context, hv_vp_handle, hv_admission *admission)
    {
        Machine &m = machine(context);
        m.child_records.admissions.push_back(*admission);
        if (admission->what == hv_admission::HV_ADMIT_PARTITION && m.admitted_privileges) {
            admission->privileges = *m.admitted_privileges;
        }
        if (admission->what == hv_admission::HV_ADMIT_PARTITION && m.admitted_pages) {
            admission->page_limit = *m.admitted_pages;
        }
        return m.admission_progress;
    }
};

void add_child_operations(hv_platform_ops &ops)
{
    ops.allocate_pages = ChildOperations::allocate_pages;
    ops.free_pages = ChildOperations::free_pages;
    ops.memory_pages = ChildOperations::memory_pages;
    ops.create_vp = ChildOperations::create_vp;
    ops.reset_vp = ChildOperations::reset_vp;
    ops.start_vp = ChildOperations::start_vp;
    ops.set_line = ChildOperations::set_line;
    ops.vp_waits = ChildOperations::vp_waits;
    ops.kick_vp = ChildOperations::kick_vp;
    ops.kick_lp = ChildOperations::kick_lp;
    ops.get_register = ChildOperations::get_register;
    ops.set_register = ChildOperations::set_register;
    ops.gprs = ChildOperations::gprs;
    ops.get_execution = ChildOperations::get_execution;
    ops.get_activity = ChildOperations::get_activity;
    ops.set_activity = ChildOperations::set_activity;
    ops.read_instruction = ChildOperations::read_instruction;
    ops.translate_gva = ChildOperations::translate_gva;
    ops.flush_second_stage = ChildOperations::flush_second_stage;
    ops.admit = ChildOperations::admit;
}

} // namespace qemu_hv
