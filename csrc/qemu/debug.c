/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The connection to a debugger (TLFS 20.1): the object's debug-chardev.
 *
 * Everything here runs in the main loop but for what the core tells, which only asks the main loop to look. What guests
 * post waits in their sessions until somebody is connected and takes it.
 */
#include "module.h"

#include "chardev/char-fe.h"
#include "chardev/char.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"

#define CHUNK 4096
#define CHUNKS_AT_ONCE 16 /* then the main loop has other things to do first */

struct mshv_debugger {
    MicrosoftHypervisor *machine;
    CharBackend chardev;
    QEMUBH *look;
    bool open;
    guint watch; /* 0: the character device takes what it is given */
    uint8_t chunk[CHUNK];
    size_t begin, end; /* of what was taken from the core and has not been written */
};

static void write_chunks(struct mshv_debugger *d);

static gboolean can_write(void *do_not_use, GIOCondition condition, void *opaque)
{
    struct mshv_debugger *d = opaque;

    d->watch = 0;
    write_chunks(d);
    return G_SOURCE_REMOVE;
}

/* False: there is nothing, or it has to wait. */
static bool write_chunk(struct mshv_debugger *d)
{
    int written;

    if (d->begin == d->end) {
        d->begin = 0;
        d->end = hv_debug_take(d->machine->core, d->chunk, sizeof(d->chunk));
        if (d->end == 0)
            return false;
    }
    written = qemu_chr_fe_write(&d->chardev, d->chunk + d->begin, (int)(d->end - d->begin));
    d->begin += written > 0 ? (size_t)written : 0;
    if (d->begin < d->end && d->open)
        d->watch = qemu_chr_fe_add_watch(&d->chardev, G_IO_OUT | G_IO_HUP, can_write, d);
    return d->begin == d->end;
}

static void write_chunks(struct mshv_debugger *d)
{
    unsigned chunks = 0;

    while (d->open && !d->watch && chunks < CHUNKS_AT_ONCE && write_chunk(d))
        chunks++;
    if (chunks == CHUNKS_AT_ONCE)
        qemu_bh_schedule(d->look);
}

static void look(void *opaque)
{
    struct mshv_debugger *d = opaque;

    write_chunks(d);
    qemu_chr_fe_accept_input(&d->chardev);
}

static int can_receive(void *opaque)
{
    struct mshv_debugger *d = opaque;

    return (int)MIN(hv_debug_room(d->machine->core), CHUNK);
}

static void receive(void *opaque, const uint8_t *data, int size)
{
    struct mshv_debugger *d = opaque;

    hv_debug_receive(d->machine->core, data, (size_t)size);
}

static void event(void *opaque, QEMUChrEvent event)
{
    struct mshv_debugger *d = opaque;

    if (event != CHR_EVENT_OPENED && event != CHR_EVENT_CLOSED)
        return;
    d->open = event == CHR_EVENT_OPENED;
    d->begin = d->end = 0; /* who comes next is not sent the rest of a chunk */
    if (d->watch)
        g_source_remove(d->watch);
    d->watch = 0;
    hv_debug_connected(d->machine->core);
    qemu_bh_schedule(d->look);
}

void mshv_debug_changed(void *context)
{
    MicrosoftHypervisor *s = context;

    qemu_bh_schedule(s->debugger->look);
}

bool mshv_debugger_init(MicrosoftHypervisor *s, Error **errp)
{
    Chardev *chardev = s->debug_chardev ? qemu_chr_find(s->debug_chardev) : NULL;
    struct mshv_debugger *d;

    if (!s->debug_chardev)
        return true;
    if (!chardev) {
        error_setg(errp, "debug-chardev=%s: there is no such character device; add -chardev ...,id=%s",
                   s->debug_chardev, s->debug_chardev);
        return false;
    }
    d = s->debugger = g_new0(struct mshv_debugger, 1);
    d->machine = s;
    if (!qemu_chr_fe_init(&d->chardev, chardev, errp)) {
        error_prepend(errp, "debug-chardev=%s: ", s->debug_chardev);
        return false;
    }
    d->look = qemu_bh_new(look, d);
    return true;
}

void mshv_debugger_connect(MicrosoftHypervisor *s)
{
    if (s->debugger)
        qemu_chr_fe_set_handlers(&s->debugger->chardev, can_receive, receive, event, NULL, s->debugger, NULL, true);
}
