/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest that a debugger outside talks to (TLFS chapter 20). It says what it can post, then sends back every byte it
 * receives with all bits turned over; "way=registers" on its command line: by the synthetic debugger's registers.
 */
#include "guest.h"

#define POST_DEBUG_DATA 0x0069u
#define RETRIEVE_DEBUG_DATA 0x006Au
#define MAXIMUM 4088u
#define LOOP 1u
#define WAIT_NANO100 100000u /* 10 ms */

#define SYNDBG_CONTROL 0x400000F1u
#define SYNDBG_STATUS 0x400000F2u
#define SYNDBG_SEND 0x400000F3u
#define SYNDBG_RECEIVE 0x400000F4u
#define SYNDBG_PENDING 0x400000F5u

#define STATUS_SUCCESS 0x00
#define STATUS_INSUFFICIENT_BUFFERS 0x13
#define STATUS_NO_DATA 0x1B

struct post {
    uint32_t count, options;
    uint8_t data[MAXIMUM];
};
struct retrieval {
    uint32_t count, options;
    uint64_t timeout;
};
struct retrieved {
    uint32_t count, remaining;
    uint8_t data[MAXIMUM];
};

static struct post *outgoing;
static struct retrieved *incoming;
static struct retrieval *request;
static uint32_t *pending;

static void fail(const char *what, unsigned status)
{
    print("%s failed: status %x\n", what, status);
    for (;;) {
        cpu_halt();
    }
}

static void send_back(const uint8_t *data, uint32_t count)
{
    unsigned status;

    for (uint32_t i = 0; i < count; i++) {
        outgoing->data[i] = (uint8_t)~data[i];
    }
    outgoing->count = count;
    outgoing->options = LOOP;
    do {
        status = HV_RESULT_STATUS(hv_call(POST_DEBUG_DATA, (uintptr_t)outgoing, (uintptr_t)pending));
    } while (status == STATUS_INSUFFICIENT_BUFFERS);
    if (status != STATUS_SUCCESS) {
        fail("HvPostDebugData", status);
    }
}

static void serve_by_hypercalls(void)
{
    unsigned status;

    request->count = MAXIMUM;
    request->options = LOOP;
    request->timeout = WAIT_NANO100;
    status = HV_RESULT_STATUS(hv_call(RETRIEVE_DEBUG_DATA, (uintptr_t)request, (uintptr_t)incoming));
    if (status == STATUS_SUCCESS) {
        send_back(incoming->data, incoming->count);
    } else if (status != STATUS_NO_DATA) {
        fail("HvRetrieveDebugData", status);
    }
}

static void serve_by_registers(void)
{
    uint8_t *data = (uint8_t *)incoming;
    uint64_t status;
    uint32_t count;

    if (!*(volatile uint8_t *)pending) {
        return;
    }
    wrmsr(SYNDBG_CONTROL, 2);
    status = rdmsr(SYNDBG_STATUS);
    count = (uint32_t)(status >> 16) & 0xFFFF;
    for (uint32_t i = 0; i < count; i++) {
        data[i] = (uint8_t)~data[i];
    }
    do {
        wrmsr(SYNDBG_CONTROL, 1 | (uint64_t)count << 16);
    } while (count && !(rdmsr(SYNDBG_STATUS) & 1));
}

void guest_main(void)
{
    char way[16];
    bool registers = guest_option("way", way, sizeof(way)) && text_equal(way, "registers");

    hv_enable();
    outgoing = page_alloc(1);
    incoming = page_alloc(1);
    request = page_alloc(1);
    pending = page_alloc(1);
    if (registers) {
        wrmsr(SYNDBG_SEND, (uintptr_t)incoming);
        wrmsr(SYNDBG_RECEIVE, (uintptr_t)incoming);
        wrmsr(SYNDBG_PENDING, (uintptr_t)pending);
    }
    print("ready\n");
    for (;;) {
        if (registers) {
            serve_by_registers();
        } else {
            serve_by_hypercalls();
        }
    }
}
