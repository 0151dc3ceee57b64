/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A VP's page tables as others than its processor walk them: the hypervisor, for HvTranslateVirtualAddress
 * (TLFS 12.4.4) and for the bytes of an instruction it tells a parent about.
 *
 * The tables, and what they lead to, are found through the second stage, and never at a device. The VP does not run, or
 * it is the caller.
 */
#include "module.h"

#include "exec/address-spaces.h"
#include "exec/ram_addr.h"
#include "hw/core/cpu.h"
#include "qemu/rcu.h"

/* -- Memory as the VP sees it -- */

struct place {
    MemoryRegion *region;
    uint8_t *host;
};

/* Called in an RCU read-side critical section. `size` bytes lie in one page. */
static bool find_place(const struct mshv_vp *vp, uint64_t gpa, unsigned access, struct place *place)
{
    hwaddr offset, length = HV_PAGE_SIZE - gpa % HV_PAGE_SIZE;
    bool write = access == HV_ACCESS_WRITE;
    uint64_t page;
    unsigned rights;

    if (!mshv_translate(vp, gpa, access, &page, &rights))
        return false;
    place->region = address_space_translate(CPU(vp->cpu)->as, page | gpa % HV_PAGE_SIZE, &offset, &length, write,
                                            MEMTXATTRS_UNSPECIFIED);
    if (!memory_access_is_direct(place->region, write, MEMTXATTRS_UNSPECIFIED))
        return false;
    place->host = (uint8_t *)memory_region_get_ram_ptr(place->region) + offset;
    return true;
}

/* -- The walk -- */

enum { LEVELS_32 = 2, LEVELS_PAE = 3, LEVELS_LONG = 4, LEVELS_LA57 = 5 };

struct walk {
    const struct mshv_vp *vp;
    const CPUX86State *env;
    uint64_t gva;
    unsigned flags;
    bool user; /* all tables so far allow an access of user mode, */
    bool writable, executable;
    unsigned levels;
    struct hv_gva_translation *out;
};

static bool fail(struct walk *walk, unsigned result)
{
    walk->out->result = result;
    return false;
}

/* A table that cannot be accessed: the caller is told where it is. */
static bool fail_at(struct walk *walk, uint64_t gpa, unsigned result)
{
    walk->out->gpa = gpa;
    return fail(walk, result);
}

/* Whether it is not mapped at all, or only this access is denied */
static bool is_mapped(const struct mshv_vp *vp, uint64_t gpa)
{
    struct hv_translation translation;

    hv_translate_gpa(vp->core, gpa, 0, &translation);
    return translation.kind != HV_TRANSLATION_UNMAPPED;
}

static bool find_entry(struct walk *walk, uint64_t gpa, struct place *place)
{
    if (find_place(walk->vp, gpa, HV_ACCESS_READ, place))
        return true;
    return fail_at(walk, gpa, is_mapped(walk->vp, gpa) ? HV_GVA_TABLE_NO_READ : HV_GVA_TABLE_UNMAPPED);
}

/* Accessed and dirty bits are in the low half of all kinds of entry. */
static bool set_bits(struct walk *walk, uint64_t gpa, uint64_t entry, uint32_t bits)
{
    struct place place;
    uint32_t *low;

    if (!(walk->flags & HV_GVA_SET_PAGE_TABLE_BITS) || !(bits & ~entry))
        return true;
    if (!find_place(walk->vp, gpa, HV_ACCESS_WRITE, &place))
        return fail_at(walk, gpa, HV_GVA_TABLE_NO_WRITE);
    low = (uint32_t *)place.host;
    qatomic_or(low, cpu_to_le32(bits));
    memory_region_ref(place.region);
    address_space_unmap(CPU(walk->vp->cpu)->as, low, sizeof(*low), true, sizeof(*low));
    return true;
}

static unsigned index_bits(const struct walk *walk)
{
    return walk->levels == LEVELS_32 ? 10 : 9;
}

static unsigned entry_size(const struct walk *walk)
{
    return walk->levels == LEVELS_32 ? 4 : 8;
}

static unsigned page_shift(const struct walk *walk, unsigned level)
{
    return HV_PAGE_SHIFT + (level - 1) * index_bits(walk);
}

static uint64_t address_mask(const struct walk *walk)
{
    return MAKE_64BIT_MASK(HV_PAGE_SHIFT, walk->levels == LEVELS_32 ? 20 : 40);
}

static bool is_page(const struct walk *walk, unsigned level, uint64_t entry)
{
    if (level == 1)
        return true;
    if (!(entry & PG_PSE_MASK))
        return false;
    if (walk->levels == LEVELS_32)
        return walk->env->cr[4] & CR4_PSE_MASK;
    return level == 2 || (level == 3 && walk->levels >= LEVELS_LONG);
}

static uint64_t physical_limit_bits(const struct walk *walk)
{
    return ~MAKE_64BIT_MASK(0, walk->vp->cpu->phys_bits) & PG_ADDRESS_MASK;
}

static uint64_t reserved_bits(const struct walk *walk, unsigned level, uint64_t entry)
{
    bool page = is_page(walk, level, entry);
    uint64_t bits;

    if (walk->levels == LEVELS_32)
        return page && level == 2 ? 1u << 21 : 0; /* with PSE-36 */
    bits = physical_limit_bits(walk);
    if (!(walk->env->efer & MSR_EFER_NXE))
        bits |= PG_NX_MASK;
    if (walk->levels == LEVELS_PAE)
        bits |= PG_HI_USER_MASK | (level == 3 ? PG_NX_MASK | 0x1E6 : 0);
    else if (level >= 4)
        bits |= PG_PSE_MASK;
    else if (level == 3 && (entry & PG_PSE_MASK) && !(walk->env->features[FEAT_8000_0001_EDX] & CPUID_EXT2_PDPE1GB))
        bits |= PG_PSE_MASK;
    if (page && level > 1)
        bits |= MAKE_64BIT_MASK(HV_PAGE_SHIFT + 1, page_shift(walk, level) - HV_PAGE_SHIFT - 1);
    return bits;
}

static bool may_access(const struct walk *walk)
{
    const CPUX86State *env = walk->env;
    bool user_mode = (env->hflags & HF_CPL_MASK) == 3 && !(walk->flags & HV_GVA_PRIVILEGE_EXEMPT);

    if (user_mode && !walk->user)
        return false;
    if (!user_mode && walk->user && (walk->flags & (HV_GVA_VALIDATE_READ | HV_GVA_VALIDATE_WRITE)) &&
        (env->cr[4] & CR4_SMAP_MASK) && !(env->eflags & AC_MASK))
        return false;
    if ((walk->flags & HV_GVA_VALIDATE_WRITE) && !walk->writable && (user_mode || (env->cr[0] & CR0_WP_MASK)))
        return false;
    if (!(walk->flags & HV_GVA_VALIDATE_EXECUTE))
        return true;
    if (!walk->executable)
        return false;
    return user_mode || !walk->user || !(env->cr[4] & CR4_SMEP_MASK);
}

static uint8_t cache_type(const CPUX86State *env, uint64_t entry, bool large)
{
    unsigned index = (entry & PG_PWT_MASK ? 1 : 0) | (entry & PG_PCD_MASK ? 2 : 0) |
                     (entry & (large ? PG_PSE_PAT_MASK : PG_PSE_MASK) ? 4 : 0);
    uint8_t type = (uint8_t)(env->pat >> (8 * index)) & 7;

    return type == 7 ? 0 : type; /* UC- */
}

static bool finish_page(struct walk *walk, unsigned level, uint64_t gpa, uint64_t entry)
{
    uint64_t offset_mask = MAKE_64BIT_MASK(0, page_shift(walk, level)), address = entry & address_mask(walk);

    if (!may_access(walk))
        return fail(walk, HV_GVA_NO_ACCESS);
    if (!set_bits(walk, gpa, entry, PG_ACCESSED_MASK | (walk->flags & HV_GVA_VALIDATE_WRITE ? PG_DIRTY_MASK : 0)))
        return false;
    if (walk->levels == LEVELS_32 && level == 2)
        address |= extract64(entry, 13, 8) << 32; /* PSE-36 */
    walk->out->gpa = (address & ~offset_mask) | (walk->gva & offset_mask);
    walk->out->cache_type = cache_type(walk->env, entry, level > 1);
    walk->out->result = HV_GVA_OK;
    return true;
}

/* One level; *table becomes the next table, or 0 after a page. */
static bool walk_level(struct walk *walk, unsigned level, uint64_t *table)
{
    uint64_t index = walk->gva >> page_shift(walk, level) & MAKE_64BIT_MASK(0, index_bits(walk));
    uint64_t gpa = *table + index * entry_size(walk), entry;
    bool pae_pointer = walk->levels == LEVELS_PAE && level == 3;
    struct place place;

    if (!find_entry(walk, gpa, &place))
        return false;
    entry = entry_size(walk) == 4 ? ldl_le_p(place.host) : ldq_le_p(place.host);
    if (!(entry & PG_PRESENT_MASK))
        return fail(walk, HV_GVA_NOT_PRESENT);
    if (entry & reserved_bits(walk, level, entry))
        return fail(walk, HV_GVA_INVALID_TABLE_FLAGS);
    if (!pae_pointer) {
        walk->user &= (entry & PG_USER_MASK) != 0;
        walk->writable &= (entry & PG_RW_MASK) != 0;
        walk->executable &= !(entry & PG_NX_MASK);
    }
    if (is_page(walk, level, entry)) {
        *table = 0;
        return finish_page(walk, level, gpa, entry);
    }
    if (!pae_pointer && !set_bits(walk, gpa, entry, PG_ACCESSED_MASK))
        return false;
    *table = entry & address_mask(walk);
    return true;
}

static bool start(struct walk *walk, uint64_t *table)
{
    const CPUX86State *env = walk->env;

    if (!(env->efer & MSR_EFER_LMA)) {
        bool pae = env->cr[4] & CR4_PAE_MASK;

        walk->levels = pae ? LEVELS_PAE : LEVELS_32;
        *table = env->cr[3] & (pae ? 0xFFFFFFE0 : 0xFFFFF000);
        return walk->gva <= UINT32_MAX || fail(walk, HV_GVA_NOT_PRESENT);
    }
    walk->levels = env->cr[4] & CR4_LA57_MASK ? LEVELS_LA57 : LEVELS_LONG;
    *table = env->cr[3] & PG_ADDRESS_MASK;
    if (sextract64(walk->gva, 0, walk->levels == LEVELS_LA57 ? 57 : 48) == (int64_t)walk->gva)
        return true;
    return fail(walk, HV_GVA_NOT_PRESENT);
}

void mshv_translate_gva(void *context, hv_vp_handle handle, uint64_t gva, unsigned flags,
                        struct hv_gva_translation *out)
{
    const struct mshv_vp *vp = mshv_vp(context, handle);
    struct walk walk = {
        .vp = vp,
        .env = &vp->cpu->env,
        .gva = gva,
        .flags = flags,
        .user = true,
        .writable = true,
        .executable = true,
        .out = out,
    };
    uint64_t table;
    unsigned level;

    mshv_sync_registers(mshv_vp(context, handle));
    if (!(walk.env->cr[0] & CR0_PG_MASK)) {
        *out = (struct hv_gva_translation){.gpa = (uint32_t)gva, .result = HV_GVA_OK, .cache_type = 6};
        return;
    }
    if (!start(&walk, &table))
        return;
    RCU_READ_LOCK_GUARD();
    for (level = walk.levels; level > 0 && walk_level(&walk, level, &table) && table; level--)
        continue;
}

/* -- The bytes of an instruction (TLFS 16.3) -- */

#define MAXIMUM_LENGTH 16

/* Up to the end of the page or of the segment; 0 when there is nothing to be read. */
static size_t read_page_of_code(const struct mshv_vp *vp, uint64_t linear, uint8_t *bytes, size_t most)
{
    struct hv_gva_translation translation;
    size_t size = MIN(most, HV_PAGE_SIZE - linear % HV_PAGE_SIZE);
    struct place place;

    mshv_translate_gva(vp->machine, vp->handle, linear, HV_GVA_PRIVILEGE_EXEMPT, &translation);
    if (translation.result != HV_GVA_OK)
        return 0;
    RCU_READ_LOCK_GUARD();
    if (!find_place(vp, translation.gpa, HV_ACCESS_READ, &place))
        return 0;
    memcpy(bytes, place.host, size);
    return size;
}

size_t mshv_read_code(const struct mshv_vp *vp, uint64_t rip, uint8_t *bytes, size_t most)
{
    const CPUX86State *env = &vp->cpu->env;
    uint64_t linear = env->segs[R_CS].base + rip;
    size_t size;

    if (!(env->hflags & HF_CS64_MASK)) {
        if (rip > env->segs[R_CS].limit)
            return 0;
        most = MIN(most, (size_t)(env->segs[R_CS].limit - rip) + 1);
        linear = (uint32_t)linear;
    }
    size = read_page_of_code(vp, linear, bytes, most);
    if (size > 0 && size < most)
        size += read_page_of_code(vp, linear + size, bytes + size, most - size);
    return size;
}

size_t mshv_read_instruction(void *context, hv_vp_handle handle, uint8_t bytes[16])
{
    struct mshv_vp *vp = mshv_vp(context, handle);

    mshv_sync_registers(vp);
    return mshv_read_code(vp, vp->cpu->env.eip, bytes, MAXIMUM_LENGTH);
}
