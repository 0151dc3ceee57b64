/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guest_memory.hpp"

#include <algorithm>
#include <cstring>

namespace qemu_hv
{

static uint64_t page_of(uint64_t gpa)
{
    return gpa >> HV_PAGE_SHIFT;
}

static size_t offset_of(uint64_t gpa)
{
    return static_cast<size_t>(gpa & (HV_PAGE_SIZE - 1));
}

/* Overlays are not copied: the core that owns their pages shows them again when it is restored. */
GuestMemory::GuestMemory(const GuestMemory &other) : size_(other.size_), rights_(other.rights_)
{
    for (const auto &[number, page] : other.pages_) {
        pages_.emplace(number, std::make_unique<Page>(*page));
    }
}

GuestMemory::Rights GuestMemory::rights(uint64_t page) const
{
    auto found = rights_.find(page);
    if (found != rights_.end()) {
        return found->second;
    }
    bool ram = page < page_of(size_);
    return Rights{ram, ram, ram};
}

uint64_t GuestMemory::writable_pages(uint64_t gpa, uint64_t most) const
{
    uint64_t first = page_of(gpa), page = first;
    auto special = rights_.lower_bound(first);

    /* Up to the next page with rights of its own all are RAM, or none. */
    while (page - first < most) {
        if (special != rights_.end() && special->first == page) {
            if (!special->second.mapped || !special->second.writable) {
                break;
            }
            page++;
            ++special;
        } else {
            uint64_t end = special == rights_.end() ? page_of(size_) : std::min(special->first, page_of(size_));
            if (page >= end) {
                break;
            }
            page = end;
        }
    }
    return std::min(page - first, most);
}

void GuestMemory::map(uint64_t gpa, uint64_t size, bool readable, bool writable)
{
    for (uint64_t page = page_of(gpa); size && page <= page_of(gpa + size - 1); page++) {
        rights_[page] = Rights{true, readable, writable};
    }
}

void GuestMemory::unmap(uint64_t gpa, uint64_t size)
{
    for (uint64_t page = page_of(gpa); size && page <= page_of(gpa + size - 1); page++) {
        rights_[page] = Rights{false, false, false};
    }
}

const Overlay *GuestMemory::overlay_at(uint64_t gpa) const
{
    for (auto overlay = overlays_.rbegin(); overlay != overlays_.rend(); ++overlay) {
        if (page_of(overlay->gpa) == page_of(gpa)) {
            return &*overlay;
        }
    }
    return nullptr;
}

Access GuestMemory::check(uint64_t gpa, bool write) const
{
    if (const Overlay *overlay = overlay_at(gpa)) {
        if (!write || overlay->access == HV_OVERLAY_READ_WRITE) {
            return Access::ok;
        }
        return overlay->access == HV_OVERLAY_READ_ONLY ? Access::overlay_checked : Access::overlay_read_only;
    }
    Rights rights = this->rights(page_of(gpa));
    if (!rights.mapped) {
        return Access::unmapped;
    }
    return (write ? rights.writable : rights.readable) ? Access::ok : Access::no_access;
}

Access GuestMemory::read(uint64_t gpa, void *buffer, size_t size) const
{
    Access access = check(gpa, false);
    if (access != Access::ok) {
        return access;
    }
    if (const Overlay *overlay = overlay_at(gpa)) {
        std::memcpy(buffer, overlay->page + offset_of(gpa), size);
    } else {
        read_ram(gpa, buffer, size);
    }
    return Access::ok;
}

Access GuestMemory::write(uint64_t gpa, const void *buffer, size_t size)
{
    Access access = check(gpa, true);
    if (access != Access::ok) {
        return access;
    }
    if (const Overlay *overlay = overlay_at(gpa)) {
        std::memcpy(overlay->page + offset_of(gpa), buffer, size);
    } else {
        write_ram(gpa, buffer, size);
    }
    return Access::ok;
}

bool GuestMemory::read_ram(uint64_t gpa, void *buffer, size_t size) const
{
    if (!rights(page_of(gpa)).mapped) {
        return false;
    }
    auto found = pages_.find(page_of(gpa));
    if (found == pages_.end()) {
        std::memset(buffer, 0, size);
    } else {
        std::memcpy(buffer, found->second->data() + offset_of(gpa), size);
    }
    return true;
}

bool GuestMemory::write_ram(uint64_t gpa, const void *buffer, size_t size)
{
    if (!rights(page_of(gpa)).mapped) {
        return false;
    }
    auto &page = pages_[page_of(gpa)];
    if (!page) {
        page = std::make_unique<Page>();
        page->fill(0);
    }
    std::memcpy(page->data() + offset_of(gpa), buffer, size);
    return true;
}

void GuestMemory::set_overlay(const Overlay &overlay, bool enabled)
{
    overlays_.erase(
        std::remove_if(overlays_.begin(), overlays_.end(),
                       [&](const Overlay &other) { return other.kind == overlay.kind && other.vp == overlay.vp; }),
        overlays_.end());
    if (enabled) {
        overlays_.push_back(overlay);
    }
}

} // namespace qemu_hv
