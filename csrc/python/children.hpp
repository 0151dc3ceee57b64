/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The processors of child VPs on the simulated platform: registers are a map, halting is a flag that the test sets, and
 * what the core asks of a processor is recorded.
 */
#ifndef QEMU_HV_CHILDREN_HPP
#define QEMU_HV_CHILDREN_HPP

#include <array>
#include <map>
#include <vector>

#include "core.hpp"

namespace qemu_hv
{

struct Processor {
    bool created = false;
    bool waits = false; /* halted, and nothing has woken it */
    bool waits_for_sipi = false;
    std::array<bool, HV_LINE_LINES> lines{};
    hv_activity activity{}; /* HALTED is `waits` */
    std::array<uint64_t, 16> gprs{};
    std::map<uint32_t, hv_register_value> registers; /* all others */
    std::vector<uint8_t> code; /* what read_instruction() finds */
    std::map<uint64_t, hv_gva_translation> translations; /* by page, what translate_gva() answers */
};

/* What the core asked about children, in order. */
struct ChildRecords {
    struct Line {
        hv_vp_handle vp;
        int line;
        bool raised;
    };
    struct Start {
        hv_vp_handle vp;
        uint8_t vector;
    };
    struct Flush {
        hv_vp_handle caller;
        std::vector<hv_vp_handle> vps;
    };
    std::vector<hv_vp_handle> kicks, creations, resets;
    std::vector<unsigned> lp_kicks;
    std::vector<Line> lines;
    std::vector<Start> starts;
    std::vector<Flush> second_stage_flushes;
    std::vector<hv_admission> admissions;
};

class Machine;

/* Fill in the platform functions that concern children. */
void add_child_operations(hv_platform_ops &ops);

} // namespace qemu_hv

#endif
