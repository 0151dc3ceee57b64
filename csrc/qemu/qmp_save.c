/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP: jobs that save a child partition as a whole and make it again.
 *
 * What takes long runs on a worker thread: making room, reading, and writing what belongs to the pages' contents. The
 * machine stands still while the child's state and memory are written, or put into place; that is done on the main
 * thread with all CPUs paused, so that nothing of the core's moves. Before a save the child is paused and its parent
 * gets the time to answer intercepts that it owes an answer to.
 */
#include "module.h"

#include "block/aio.h"
#include "block/thread-pool.h"
#include "exec/address-spaces.h"
#include "hw/boards.h"
#include "qapi/error.h"
#include "qapi/qapi-types-job.h"
#include "qemu/coroutine.h"
#include "qemu/cutils.h"
#include "qemu/job.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include "system/cpus.h"
#include "target/i386/hypervisor-save-qmp.h"

#include "qmp.h"
#include "qmp_save.h"
#include "save_file.h"

#define SETTLE_NS (2 * NANOSECONDS_PER_SECOND)
#define SETTLE_INTERVAL_NS (200 * SCALE_US)

struct transfer_job {
    Job common;
    hv_partition_id partition;
    char *path;
    bool restoring;
    bool pause; /* of a restore: leave it paused */
    struct mshv_child_image image;
    struct mshv_image_writer *writer;
    struct mshv_channel channel;
    struct hv_child_run *runs; /* of the partition's memory, when last looked at */
    size_t run_count;
    uint64_t run_pages;
    Coroutine *co;
    bool done; /* what the main thread was asked for */
    Error *err;
};

/* -- On a worker thread -- */

static bool cancelled(void *opaque)
{
    return job_is_cancelled(opaque);
}

static void progress(void *opaque, uint64_t bytes)
{
    job_progress_update(opaque, bytes);
}

static int read_image(void *opaque)
{
    struct transfer_job *s = opaque;
    uint64_t most_pages = current_machine->maxram_size / HV_PAGE_SIZE * 2; /* pages may be mapped more than once */

    return mshv_image_read(&s->image, most_pages, &s->channel, &s->err) ? 0 : -EIO;
}

static int finish_image(void *opaque)
{
    struct transfer_job *s = opaque;

    job_progress_set_remaining(&s->common, mshv_image_left(s->writer));
    return mshv_image_finish(s->writer, &s->err) ? 0 : -EIO;
}

/* -- The child's memory -- */

static void list_runs(struct transfer_job *s)
{
    struct hv *core = microsoft_hypervisor_core();

    g_free(s->runs);
    s->run_count = hv_list_child_runs(core, s->partition, NULL, 0);
    s->runs = g_new(struct hv_child_run, s->run_count + 1);
    s->run_count = MIN(hv_list_child_runs(core, s->partition, s->runs, s->run_count), s->run_count);
    s->run_pages = 0;
    for (size_t i = 0; i < s->run_count; i++)
        s->run_pages += s->runs[i].pages;
}

typedef void (*visit_page)(void *opaque, uint64_t number, uint8_t *page);

/* In pieces that lie together. False: there is no memory. */
static bool visit_run(const struct hv_child_run *run, uint64_t first, bool write, visit_page visit, void *opaque)
{
    hwaddr at = run->parent_page << HV_PAGE_SHIFT, left = run->pages << HV_PAGE_SHIFT;

    while (left) {
        hwaddr length = left;
        uint8_t *host = address_space_map(&address_space_memory, at, &length, write, MEMTXATTRS_UNSPECIFIED);
        ram_addr_t unused;
        /* Else it is a copy of what a device gave. */
        bool is_memory = host && length >= HV_PAGE_SIZE && memory_region_from_host(host, &unused);

        length &= HV_PAGE_MASK;
        for (hwaddr offset = 0; is_memory && offset < length; offset += HV_PAGE_SIZE)
            visit(opaque, first++, host + offset);
        if (host)
            address_space_unmap(&address_space_memory, host, length, write && is_memory, length);
        if (!is_memory)
            return false;
        at += length;
        left -= length;
    }
    return true;
}

static bool visit_pages(struct transfer_job *s, bool write, visit_page visit, void *opaque)
{
    for (size_t i = 0, first = 0; i < s->run_count; first += s->runs[i].pages, i++) {
        if (visit_run(&s->runs[i], first, write, visit, opaque))
            continue;
        error_setg(&s->err, "Page 0x%" PRIx64 " of partition %" PRIu64 " is no memory", s->runs[i].gpa_page,
                   s->partition);
        return false;
    }
    return true;
}

static void count_page(void *opaque, uint64_t number, uint8_t *page)
{
    *(uint64_t *)opaque += !mshv_page_is_zero(page);
}

static void save_page(void *opaque, uint64_t number, uint8_t *page)
{
    mshv_image_add(opaque, page);
}

static void place_page(void *opaque, uint64_t number, uint8_t *page)
{
    const struct mshv_child_image *image = opaque;
    uint32_t content = image->index[number];

    if (content)
        memcpy(page, image->contents + (uint64_t)(content - 1) * HV_PAGE_SIZE, HV_PAGE_SIZE);
    else if (!mshv_page_is_zero(page))
        memset(page, 0, HV_PAGE_SIZE);
}

/* On a worker thread, while the child runs: how many contents there will be is a guess, which costs time when wrong. */
static int create_image(void *opaque)
{
    struct transfer_job *s = opaque;
    uint64_t contents = 0;

    if (!visit_pages(s, false, count_page, &contents))
        return -EIO;
    job_progress_set_remaining(&s->common, (contents + 1) * HV_PAGE_SIZE);
    s->writer = mshv_image_create(&s->image, s->run_pages, contents, &s->channel, &s->err);
    return s->writer ? 0 : -EIO;
}

/* -- On the main thread, with all CPUs paused -- */

static bool take(struct transfer_job *s)
{
    bool done;

    s->image.state = hv_save_child(microsoft_hypervisor_core(), s->partition, &s->image.state_size);
    if (!s->image.state) {
        error_setg(&s->err, "Partition %" PRIu64 " has gone meanwhile", s->partition);
        return false;
    }
    list_runs(s);
    if (s->run_pages > mshv_image_capacity(s->writer)) {
        error_setg(&s->err, "Partition %" PRIu64 " got more memory meanwhile; try again", s->partition);
        return false;
    }
    done = visit_pages(s, false, save_page, s->writer);
    mshv_image_flush(s->writer);
    return done;
}

static bool put_back(struct transfer_job *s)
{
    const char *why;

    if (!hv_restore_child(microsoft_hypervisor_core(), s->image.state, s->image.state_size, s->image.pages,
                          &s->partition, &why)) {
        error_setg(&s->err, "The partition cannot be restored: %s", why);
        return false;
    }
    list_runs(s);
    return visit_pages(s, true, place_page, &s->image);
}

static void stopped(void *opaque)
{
    struct transfer_job *s = opaque;

    pause_all_vcpus();
    s->done = s->restoring ? put_back(s) : take(s);
    resume_all_vcpus();
    aio_co_wake(s->co);
}

static bool coroutine_fn do_stopped(struct transfer_job *s)
{
    s->co = qemu_coroutine_self();
    aio_bh_schedule_oneshot(qemu_get_aio_context(), stopped, s);
    qemu_coroutine_yield();
    return s->done;
}

/* -- The jobs -- */

static bool find_partition(hv_partition_id id, struct hv_partition_info *found)
{
    struct hv *core = microsoft_hypervisor_core();
    size_t count = hv_list_partitions(core, NULL, 0);
    g_autofree struct hv_partition_info *list = g_new(struct hv_partition_info, count + 1);

    count = MIN(hv_list_partitions(core, list, count), count);
    for (size_t i = 0; i < count; i++) {
        if (list[i].id == id && list[i].parent) {
            *found = list[i];
            return true;
        }
    }
    return false;
}

static bool coroutine_fn settle(struct transfer_job *s)
{
    int64_t started = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    const char *why;

    for (;;) {
        switch (hv_child_is_settled(microsoft_hypervisor_core(), s->partition, &why)) {
        case HV_PROGRESS_DONE:
            return true;
        case HV_PROGRESS_FAILED:
            error_setg(&s->err, "Partition %" PRIu64 " cannot be put aside: %s", s->partition, why);
            return false;
        case HV_PROGRESS_WAIT:
            break;
        }
        if (job_is_cancelled(&s->common) || qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - started > SETTLE_NS) {
            error_setg(&s->err, "The parent of partition %" PRIu64 " does not answer an intercept of it; try again",
                       s->partition);
            return false;
        }
        qemu_co_sleep_ns(QEMU_CLOCK_REALTIME, SETTLE_INTERVAL_NS);
    }
}

static int finish(struct transfer_job *s, bool done, Error **errp)
{
    if (done)
        return 0;
    error_propagate(errp, s->err);
    s->err = NULL;
    return -EIO;
}

static int coroutine_fn save_run(Job *job, Error **errp)
{
    struct transfer_job *s = container_of(job, struct transfer_job, common);
    struct hv *core = microsoft_hypervisor_core();
    struct hv_partition_info info;
    bool done;

    if (!find_partition(s->partition, &info)) {
        error_setg(errp, "There is no child partition %" PRIu64 "; query-hv-partitions lists what there is",
                   s->partition);
        return -ENOENT;
    }
    list_runs(s);
    if (thread_pool_submit_co(create_image, s))
        return finish(s, false, errp);
    if (!info.paused)
        hv_operator_pause_partition(core, s->partition, true);
    done = settle(s) && do_stopped(s);
    if (!info.paused)
        hv_operator_pause_partition(core, s->partition, false);
    return finish(s, done && thread_pool_submit_co(finish_image, s) == 0, errp);
}

/* The one that will be replaced must stand still, which an LP needs its thread for. */
static bool coroutine_fn replace(struct transfer_job *s)
{
    struct hv *core = microsoft_hypervisor_core();
    struct hv_partition_info old;
    bool exists, done;

    s->partition = hv_saved_child_id(core, s->image.state, s->image.state_size);
    exists = s->partition != HV_PARTITION_ID_INVALID && find_partition(s->partition, &old);
    if (exists && !old.paused)
        hv_operator_pause_partition(core, s->partition, true);
    done = (!exists || settle(s)) && do_stopped(s);
    if (!done && exists && !old.paused)
        hv_operator_pause_partition(core, old.id, false);
    return done;
}

static int coroutine_fn restore_run(Job *job, Error **errp)
{
    struct transfer_job *s = container_of(job, struct transfer_job, common);
    bool done;

    done = thread_pool_submit_co(read_image, s) == 0 && replace(s);
    if (done && !s->pause)
        hv_operator_pause_partition(microsoft_hypervisor_core(), s->partition, false);
    return finish(s, done, errp);
}

static void free_job(Job *job)
{
    struct transfer_job *s = container_of(job, struct transfer_job, common);

    if (s->writer)
        mshv_image_close(s->writer);
    mshv_image_free(&s->image);
    g_free(s->runs);
    g_free(s->path);
    error_free(s->err);
}

static const JobDriver save_driver = {
    .instance_size = sizeof(struct transfer_job),
    .job_type = JOB_TYPE_HV_PARTITION_SAVE,
    .run = save_run,
    .free = free_job,
};

static const JobDriver restore_driver = {
    .instance_size = sizeof(struct transfer_job),
    .job_type = JOB_TYPE_HV_PARTITION_RESTORE,
    .run = restore_run,
    .free = free_job,
};

static struct transfer_job *create(const char *id, const JobDriver *driver, const char *path, Error **errp)
{
    struct transfer_job *s = job_create(id, driver, NULL, qemu_get_aio_context(), JOB_MANUAL_DISMISS, NULL, NULL, errp);

    if (!s)
        return NULL;
    s->path = g_strdup(path);
    s->channel = (struct mshv_channel){s->path, cancelled, progress, &s->common};
    return s;
}

static void save(const char *job_id, uint64_t partition, const char *path, Error **errp)
{
    struct hv_partition_info info;
    struct transfer_job *s;

    if (!find_partition(partition, &info)) {
        error_setg(errp, "There is no child partition %" PRIu64 "; query-hv-partitions lists what there is", partition);
        return;
    }
    s = create(job_id, &save_driver, path, errp);
    if (!s)
        return;
    s->partition = partition;
    job_start(&s->common);
}

static void restore(const char *job_id, const char *path, bool pause, Error **errp)
{
    struct transfer_job *s = create(job_id, &restore_driver, path, errp);

    if (!s)
        return;
    s->restoring = true;
    s->pause = pause;
    job_start(&s->common);
}

static const X86HypervisorSaveOps ops = {.save = save, .restore = restore};

void microsoft_hypervisor_save_register(void)
{
    x86_hypervisor_set_save_ops(&ops);
}

void microsoft_hypervisor_save_unregister(void)
{
    x86_hypervisor_set_save_ops(NULL);
}
