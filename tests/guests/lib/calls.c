/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "calls.h"

#include "guest.h"

/* The bits of a call's input value that the runtime's hyperv.h has no name for. */
#define REPS_LIMIT 0xFFFu

struct call_pages {
    uint8_t input[PAGE_SIZE], output[PAGE_SIZE];
};
/* Parameter lists must not cross a page (TLFS 4.6). */
static struct call_pages pages[GUEST_MAX_CPUS] __attribute__((aligned(4096)));

/*
 * A call with output may give input GPA 0 and the other way round: what a call does not have is ignored (TLFS 4.6).
 */
static uint64_t call(const struct hv_call_form *form, uint64_t reps, bool has_input, bool has_output)
{
    struct call_pages *own = &pages[cpu_index()];
    return hv_call(form->code | reps, has_input ? (uintptr_t)own->input : 0, has_output ? (uintptr_t)own->output : 0);
}

unsigned hv_call_simple(const struct hv_call_form *form, const void *input, void *output)
{
    struct call_pages *own = &pages[cpu_index()];
    if (form->input) {
        memcpy(own->input, input, form->input);
    }
    unsigned status = HV_RESULT_STATUS(call(form, 0, form->input, form->output));
    if (status == HV_STATUS_SUCCESS && form->output && output) {
        memcpy(output, own->output, form->output);
    }
    return status;
}

unsigned hv_call_rep_limit(const struct hv_call_form *form)
{
    unsigned limit = REPS_LIMIT;
    if (form->input_element && (PAGE_SIZE - form->input) / form->input_element < limit) {
        limit = (PAGE_SIZE - form->input) / form->input_element;
    }
    if (form->output_element && PAGE_SIZE / form->output_element < limit) {
        limit = PAGE_SIZE / form->output_element;
    }
    return limit;
}

unsigned hv_call_rep(const struct hv_call_form *form, const void *input, const void *list, void *output_list,
                     unsigned count, unsigned *done)
{
    struct call_pages *own = &pages[cpu_index()];
    if (count == 0 || count > hv_call_rep_limit(form)) {
        guest_panic("call %x: a list of %u elements", form->code, count);
    }
    memcpy(own->input, input, form->input);
    if (form->input_element) {
        memcpy(own->input + form->input, list, (size_t)count * form->input_element);
    }
    /* A hypervisor may return early with success; it goes on from where it was (TLFS 4.3). */
    unsigned complete = 0, before;
    uint64_t result;
    do {
        before = complete;
        result = call(form, HV_CALL_REPS(count) | HV_CALL_START(before), true, form->output_element);
        complete = HV_RESULT_REPS(result);
    } while (HV_RESULT_STATUS(result) == HV_STATUS_SUCCESS && complete < count && complete > before);
    if (form->output_element && output_list) {
        memcpy(output_list, own->output, (size_t)complete * form->output_element);
    }
    if (done) {
        *done = complete;
    }
    return HV_RESULT_STATUS(result);
}

const char *hv_status_name(unsigned status)
{
    switch (status) {
#define HV_STATUS_ROW(value, name, generations)                                                                        \
    case value:                                                                                                        \
        return #name;
#include "status.def"
#undef HV_STATUS_ROW
    default:
        return "?";
    }
}

void hv_must(unsigned status, const char *call, const char *file, int line)
{
    if (status == HV_STATUS_SUCCESS) {
        return;
    }
    if (check_current()) {
        check_fail(file, line, "%s: status 0x%x %s", call, status, hv_status_name(status));
        check_abort();
    }
    guest_panic("%s:%d: %s: status 0x%x %s", file, line, call, status, hv_status_name(status));
}
