/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The simulated platform's guest physical address space: sparse RAM with rights per page, and overlays on top. */
#ifndef QEMU_HV_GUEST_MEMORY_HPP
#define QEMU_HV_GUEST_MEMORY_HPP

#include <array>
#include <map>
#include <memory>
#include <vector>

#include "core.hpp"

namespace qemu_hv
{

/* What a guest's own access to an address ends with. */
enum class Access {
    ok,
    unmapped, /* reads ones, drops writes (TLFS 11.8, root) */
    no_access, /* #MC (TLFS 11.8, root) */
    overlay_read_only, /* #GP (TLFS 4.12) */
    overlay_checked, /* #MC (TLFS 21.1.2) */
};

struct Overlay {
    hv_overlay_kind kind;
    hv_vp_index vp;
    uint8_t *page;
    uint64_t gpa;
    hv_overlay_access access;
};

class GuestMemory
{
  public:
    using Page = std::array<uint8_t, HV_PAGE_SIZE>;

    /* RAM is the pages of [0, size); a page's bytes come into being at its first write. */
    explicit GuestMemory(uint64_t size) : size_(size)
    {
    }

    GuestMemory(const GuestMemory &other);
    GuestMemory &operator=(const GuestMemory &) = delete;

    /* Change every page touched by [gpa, gpa + size). */
    void map(uint64_t gpa, uint64_t size, bool readable, bool writable);
    void unmap(uint64_t gpa, uint64_t size);

    /* How many pages of RAM that may be written follow each other, at most `most`. Overlays are not seen. */
    uint64_t writable_pages(uint64_t gpa, uint64_t most) const;

    /* An access inside one page, overlays seen. */
    Access check(uint64_t gpa, bool write) const;
    Access read(uint64_t gpa, void *buffer, size_t size) const;
    Access write(uint64_t gpa, const void *buffer, size_t size);

    /* An access inside one page to the RAM under any overlay, whatever its rights. False where there is no RAM. */
    bool read_ram(uint64_t gpa, void *buffer, size_t size) const;
    bool write_ram(uint64_t gpa, const void *buffer, size_t size);

    /* Overlays shown later lie on top. */
    void set_overlay(const Overlay &overlay, bool enabled);
    const std::vector<Overlay> &overlays() const
    {
        return overlays_;
    }

  private:
    struct Rights {
        bool mapped, readable, writable;
    };
    Rights rights(uint64_t page) const;
    const Overlay *overlay_at(uint64_t gpa) const;

    uint64_t size_;
    std::map<uint64_t, std::unique_ptr<Page>> pages_;
    std::map<uint64_t, Rights> rights_;
    std::vector<Overlay> overlays_;
};

} // namespace qemu_hv

#endif
