/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * GPA maps under threads that really run at the same time: two root VPs map and unmap each other's children's pages at
 * full speed, one by one and in large ranges, while a VP of each child translates and moves an overlay page about. Any
 * translation must be one that somebody asked for. In the end nothing may be left. Meant to be built with the thread
 * sanitizer, or the address sanitizer.
 *
 * Usage: gpa_map SECONDS. Says what it did; the exit status is not 0 when a rule was broken.
 */
#include "machine.h"

#define ROOTS 2u
#define CHILDREN 2u
#define PARAMETERS 0x10000u /* of root VP n: a page for input, one for output */
#define RAM_PAGES (UINT64_C(1) << 24)
#define POOL 0x1000u /* page numbers from which pools get memory */
#define LARGE_PAGE 0x80000000u
#define ALL_RIGHTS 7u
#define SIMP 0x40000083u

static hv_partition_id children[CHILDREN];
static struct hv_vp *child_vps[CHILDREN];
static atomic_bool ending;
static atomic_ulong changes, translations, overlays, flushes, deposits;

/*
 * Child pages that are used: some blocks near each other and some far away, so that tables of all levels come and go.
 * A page's source is a region plus its number, a different one for any page that it could be taken for.
 */
static const uint64_t places[] = {0, 512, 1024, 0x40000, 0x40200, 0x800000};
static const uint64_t regions[] = {0x100000, 0x223400, 0x345679};

/* -- The platform: much memory, which comes in pieces, as a machine has it -- */

static uint64_t memory_pages(void *context, hv_gpa gpa, uint64_t most)
{
    uint64_t page = gpa / HV_PAGE_SIZE, piece = 1000 - page % 1000;

    (void)context;
    if (page >= RAM_PAGES)
        return 0;
    return piece < most ? piece : most;
}

static void flush_second_stage(void *context, hv_vp_handle caller, const struct hv_vp_set *set)
{
    (void)context, (void)caller, (void)set;
    atomic_fetch_add(&flushes, 1);
}

/* -- Hypercalls -- */

static struct parameters parameters(const struct hv_vp *root)
{
    uint64_t gpa = PARAMETERS + 2 * HV_PAGE_SIZE * (uint64_t)root->index;

    return (struct parameters){gpa, memory + gpa};
}

static unsigned call(struct hv_vp *root, uint64_t input, const void *data, size_t size)
{
    return call_at(root, parameters(root), input, data, size, NULL);
}

static void create_child(struct hv_vp *root, unsigned i)
{
    children[i] = make_child(root, parameters(root), POOL + i * 500, 500);
    must(make_child_vp(root, parameters(root), children[i], 0, NULL), "HvCreateVp");
    child_vps[i] = hv_partition_vp(hv_find_partition(hv, children[i]), 0);
}

/* -- Those that change -- */

static void map(struct hv_vp *root, uint64_t *seed, hv_partition_id child)
{
    uint64_t list[3 + 256], place = places[pick(seed, COUNT(places))], region = regions[pick(seed, COUNT(regions))];
    unsigned how = pick(seed, 4), first = 0, count = 1, status;

    if (how == 0) {
        first = pick(seed, 512);
        count = 1 + pick(seed, 512 - first > 8 ? 8 : 512 - first);
    } else if (how < 3) {
        first = how == 1 ? 0 : 256;
        count = 256;
    }
    list[0] = child;
    list[1] = place + first;
    list[2] = ALL_RIGHTS | (how == 3 && region % 512 == 0 ? LARGE_PAGE : 0);
    for (unsigned i = 0; i < count; i++)
        list[3 + i] = region + place + first + i;
    status = call(root, 0x4B | REPS(count), list, (3 + count) * 8);
    if (status != HV_STATUS_SUCCESS && status != HV_STATUS_OPERATION_DENIED)
        fail("HvMapGpaPages");
}

static void unmap(struct hv_vp *root, uint64_t *seed, hv_partition_id child)
{
    uint64_t place = places[pick(seed, COUNT(places))];
    unsigned first = pick(seed, 2) ? pick(seed, 512) : 0, count = pick(seed, 2) ? 512 - first : 1;
    uint64_t input[3] = {child, place + first, 0};

    must(call(root, 0x4C | REPS(count), input, sizeof(input)), "HvUnmapGpaPages");
}

/* A page that is mapped is not deposited, and one that is deposited is not mapped: no translation is ever denied. */
static void deposit(struct hv_vp *root, uint64_t *seed, hv_partition_id child)
{
    uint64_t place = places[pick(seed, COUNT(places))] + pick(seed, 512), region = regions[pick(seed, COUNT(regions))];
    uint64_t input[2] = {child, region + place}, none[2] = {child, 0};

    if (call(root, 0x48 | REPS(1), input, sizeof(input)) != HV_STATUS_SUCCESS)
        return;
    must(call(root, 0x49 | REPS(1), none, sizeof(none)), "HvWithdrawMemory");
    atomic_fetch_add(&deposits, 1);
}

static void *change(void *number)
{
    struct hv_vp *root = hv_get_vp(hv, (hv_vp_index)(uintptr_t)number);
    uint64_t seed = root->index + 1;

    while (!atomic_load(&ending)) {
        hv_partition_id child = children[pick(&seed, CHILDREN)];

        switch (pick(&seed, 8)) {
        case 0:
            deposit(root, &seed, child);
            break;
        case 1:
        case 2:
            unmap(root, &seed, child);
            break;
        default:
            map(root, &seed, child);
        }
        atomic_fetch_add(&changes, 1);
    }
    return NULL;
}

/* -- Those that look -- */

static bool is_source(uint64_t page, uint64_t source)
{
    for (unsigned i = 0; i < COUNT(regions); i++) {
        if (source == regions[i] + page)
            return true;
    }
    return false;
}

static void look(struct hv_vp *vp, uint64_t page, uint64_t overlay)
{
    struct hv_translation out;

    hv_translate_gpa(vp, page << HV_PAGE_SHIFT, HV_ACCESS_READ, &out);
    switch (out.kind) {
    case HV_TRANSLATION_RAM:
        if (!is_source(page, out.spa >> HV_PAGE_SHIFT) || page == overlay)
            fail("a page leads where nobody mapped it");
        break;
    case HV_TRANSLATION_OVERLAY:
        if (page != overlay || out.page != vp->sim_page)
            fail("an overlay where there is none");
        break;
    case HV_TRANSLATION_UNMAPPED:
        if (page == overlay)
            fail("an overlay is not seen");
        break;
    default:
        fail("a translation of an impossible kind");
    }
    atomic_fetch_add(&translations, 1);
}

static void *translate(void *number)
{
    struct hv_vp *vp = child_vps[(uintptr_t)number];
    uint64_t seed = 100 + vp->handle, overlay = UINT64_MAX;

    while (!atomic_load(&ending)) {
        if (pick(&seed, 64) == 0) {
            overlay = places[pick(&seed, COUNT(places))] + pick(&seed, 512);
            hv_write_msr(vp, SIMP, overlay << HV_PAGE_SHIFT | 1);
            atomic_fetch_add(&overlays, 1);
            look(vp, overlay, overlay);
        }
        look(vp, places[pick(&seed, COUNT(places))] + pick(&seed, 512), overlay);
    }
    return NULL;
}

/* -- The end -- */

static void check_end(struct hv_vp *root)
{
    for (unsigned i = 0; i < CHILDREN; i++) {
        struct hv_gpa_space_state state;

        for (unsigned n = 0; n < COUNT(places); n++) {
            uint64_t input[3] = {children[i], places[n], 0};

            must(call(root, 0x4C | REPS(512), input, sizeof(input)), "HvUnmapGpaPages");
        }
        hv_get_gpa_space_state(hv, children[i], &state);
        if (state.mapped_pages)
            fail("pages are counted that are not mapped");
    }
    /* No page is in use any more, so each can be deposited. */
    for (unsigned n = 0; n < COUNT(places) * COUNT(regions) * 512; n += 7) {
        uint64_t page = places[n / 512 / COUNT(regions)] + regions[n / 512 % COUNT(regions)] + n % 512;
        uint64_t input[2] = {children[0], page};

        must(call(root, 0x48 | REPS(1), input, sizeof(input)), "a page is still in use: HvDepositMemory");
    }
    for (unsigned i = 0; i < CHILDREN; i++) {
        uint64_t id = children[i];

        must(call(root, 0x42, &id, sizeof(id)), "HvFinalizePartition");
    }
}

int main(int argc, char **argv)
{
    pthread_t threads[ROOTS + CHILDREN];
    struct hv_platform_ops ops = memory_ops;

    ops.memory_pages = memory_pages;
    ops.flush_second_stage = flush_second_stage;
    ram_pages = RAM_PAGES;
    if (argc != 2 || !start_machine(&ops, ROOTS, 40, 0x20001))
        return 2;
    for (unsigned i = 0; i < CHILDREN; i++)
        create_child(hv_get_vp(hv, 0), i);
    for (unsigned i = 0; i < ROOTS; i++)
        pthread_create(&threads[i], NULL, change, (void *)(uintptr_t)i);
    for (unsigned i = 0; i < CHILDREN; i++)
        pthread_create(&threads[ROOTS + i], NULL, translate, (void *)(uintptr_t)i);
    nanosleep(&(struct timespec){.tv_sec = atoi(argv[1])}, NULL);
    atomic_store(&ending, true);
    for (unsigned i = 0; i < ROOTS + CHILDREN; i++)
        pthread_join(threads[i], NULL);
    check_end(hv_get_vp(hv, 0));
    printf("maps changed %lu, pages deposited %lu, translations %lu, overlays moved %lu, flushes %lu\n",
           atomic_load(&changes), atomic_load(&deposits), atomic_load(&translations), atomic_load(&overlays),
           atomic_load(&flushes));
    if (!atomic_load(&changes) || !atomic_load(&deposits) || !atomic_load(&translations) || !atomic_load(&overlays) ||
        !atomic_load(&flushes))
        fail("something was never done");
    hv_destroy(hv);
    return result();
}
