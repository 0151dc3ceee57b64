/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One function per row of csrc/hv/tlfs/hypercalls.def, named for the call:
 *
 *   unsigned hvcall_<call>(const struct hv_in_<call> *input, struct hv_out_<call> *output)        returns the status
 *   unsigned hvcall_<call>(const struct hv_in_<call> *input, const void *list, void *output_list,
 *                          unsigned count, unsigned *done)                                        for rep calls
 *
 * and hvcall_<call>_2008r2(), hvcall_<call>_current() where the generations differ. A NULL output is allowed where the
 * call has none. The structures are in layouts.h; code, sizes and form come from the table. Callable on every CPU, not
 * from interrupt handlers: parameters are copied through a pair of pages per CPU.
 */
#ifndef ROOT_CALLS_H
#define ROOT_CALLS_H

#include "layouts.h"

struct hv_call_form {
    uint16_t code, input, input_element, output, output_element;
};

unsigned hv_call_simple(const struct hv_call_form *form, const void *input, void *output);
/* `done` (NULL: not wanted) becomes the number of list elements that are dealt with. */
unsigned hv_call_rep(const struct hv_call_form *form, const void *input, const void *list, void *output_list,
                     unsigned count, unsigned *done);
/* The longest list that fits the call's pages. */
unsigned hv_call_rep_limit(const struct hv_call_form *form);

#define HVCALL_ID_HV_GEN_ALL(snake) snake
#define HVCALL_ID_HV_GEN_2008R2(snake) snake##_2008r2
#define HVCALL_ID_HV_GEN_CURRENT(snake) snake##_current

#define HVCALL_SIMPLE(id)                                                                                              \
    struct hv_in_##id;                                                                                                 \
    struct hv_out_##id;                                                                                                \
    static inline unsigned hvcall_##id(const struct hv_in_##id *input, struct hv_out_##id *output)                     \
    {                                                                                                                  \
        return hv_call_simple(&hv_form_##id, input, output);                                                           \
    }
#define HVCALL_REP(id)                                                                                                 \
    struct hv_in_##id;                                                                                                 \
    static inline unsigned hvcall_##id(const struct hv_in_##id *input, const void *list, void *output_list,            \
                                       unsigned count, unsigned *done)                                                 \
    {                                                                                                                  \
        return hv_call_rep(&hv_form_##id, input, list, output_list, count, done);                                      \
    }
#define HVCALL_DEFINE(id, kind, ...)                                                                                   \
    static const struct hv_call_form hv_form_##id __attribute__((unused)) = {__VA_ARGS__};                             \
    HVCALL_##kind(id)
/* One more level, so that the name is put together before it is used. */
#define HVCALL_EXPAND(...) HVCALL_DEFINE(__VA_ARGS__)
#define HV_HYPERCALL_ROW(code, name, snake, kind, fast, generations, gate, relation, lock, input, input_element,       \
                         output, output_element, ...)                                                                  \
    HVCALL_EXPAND(HVCALL_ID_##generations(snake), kind, code, input, input_element, output, output_element)
#include "hypercalls.def"
#undef HV_HYPERCALL_ROW

/* The sizes of the table again, as constants, for the comparison with layouts.h. */
enum hv_call_sizes {
#define HVCALL_SIZES(id, in, out) HVCALL_INPUT_##id = (in), HVCALL_OUTPUT_##id = (out),
#define HVCALL_SIZES_EXPAND(...) HVCALL_SIZES(__VA_ARGS__)
#define HV_HYPERCALL_ROW(code, name, snake, kind, fast, generations, gate, relation, lock, input, input_element,       \
                         output, ...)                                                                                  \
    HVCALL_SIZES_EXPAND(HVCALL_ID_##generations(snake), input, output)
#include "hypercalls.def"
#undef HV_HYPERCALL_ROW
};

#define HVCALL_INPUT_IS(id) _Static_assert(sizeof(struct hv_in_##id) == (unsigned)HVCALL_INPUT_##id, "hypercalls.def")
#define HVCALL_OUTPUT_IS(id)                                                                                           \
    _Static_assert(sizeof(struct hv_out_##id) == (unsigned)HVCALL_OUTPUT_##id, "hypercalls.def")
HVCALL_INPUT_IS(create_partition_2008r2);
HVCALL_OUTPUT_IS(create_partition_2008r2);
HVCALL_INPUT_IS(create_partition_current);
HVCALL_OUTPUT_IS(create_partition_current);
HVCALL_INPUT_IS(initialize_partition);
HVCALL_INPUT_IS(finalize_partition);
HVCALL_INPUT_IS(delete_partition);
HVCALL_INPUT_IS(get_partition_property);
HVCALL_OUTPUT_IS(get_partition_property);
HVCALL_INPUT_IS(set_partition_property);
HVCALL_OUTPUT_IS(get_partition_id);
HVCALL_INPUT_IS(get_next_child_partition);
HVCALL_OUTPUT_IS(get_next_child_partition);
HVCALL_INPUT_IS(get_logical_processor_run_time_current);
HVCALL_OUTPUT_IS(get_logical_processor_run_time_2008r2);
HVCALL_OUTPUT_IS(get_logical_processor_run_time_current);
HVCALL_INPUT_IS(park_logical_processors);
HVCALL_INPUT_IS(notify_long_spin_wait);
HVCALL_INPUT_IS(deposit_memory);
HVCALL_INPUT_IS(withdraw_memory);
HVCALL_INPUT_IS(unmap_stats_page);
HVCALL_INPUT_IS(get_memory_balance);
HVCALL_OUTPUT_IS(get_memory_balance);
HVCALL_INPUT_IS(map_gpa_pages);
HVCALL_INPUT_IS(map_sparse_gpa_pages);
HVCALL_INPUT_IS(unmap_gpa_pages_2008r2);
HVCALL_INPUT_IS(unmap_gpa_pages_current);
HVCALL_INPUT_IS(install_intercept);
HVCALL_INPUT_IS(create_vp_2008r2);
HVCALL_INPUT_IS(create_vp_current);
HVCALL_INPUT_IS(delete_vp);
HVCALL_INPUT_IS(get_vp_registers);
HVCALL_INPUT_IS(set_vp_registers);
HVCALL_INPUT_IS(translate_virtual_address);
HVCALL_OUTPUT_IS(translate_virtual_address);
HVCALL_INPUT_IS(read_gpa);
HVCALL_OUTPUT_IS(read_gpa);
HVCALL_INPUT_IS(write_gpa);
HVCALL_OUTPUT_IS(write_gpa);
HVCALL_INPUT_IS(assert_virtual_interrupt_2008r2);
HVCALL_INPUT_IS(assert_virtual_interrupt_current);
HVCALL_INPUT_IS(clear_virtual_interrupt);
HVCALL_INPUT_IS(create_port_2008r2);
HVCALL_INPUT_IS(create_port_current);
HVCALL_INPUT_IS(delete_port);
HVCALL_INPUT_IS(connect_port_2008r2);
HVCALL_INPUT_IS(connect_port_current);
HVCALL_INPUT_IS(disconnect_port);
HVCALL_INPUT_IS(get_port_property);
HVCALL_OUTPUT_IS(get_port_property);
HVCALL_INPUT_IS(set_port_property);
HVCALL_OUTPUT_IS(set_port_property);
HVCALL_INPUT_IS(post_message);
HVCALL_INPUT_IS(signal_event);
HVCALL_INPUT_IS(save_partition_state);
HVCALL_OUTPUT_IS(save_partition_state);
HVCALL_INPUT_IS(restore_partition_state);
HVCALL_OUTPUT_IS(restore_partition_state);

/* Text for a status code, such as "INVALID_PARAMETER". */
const char *hv_status_name(unsigned status);
/*
 * A call that must succeed: in a check a failure ends the check, in another program it ends the program, both with
 * the expression and the status in words. HV_MUST(hvcall_delete_vp(&input, NULL));
 */
#define HV_MUST(call) hv_must((call), #call, __FILE__, __LINE__)
void hv_must(unsigned status, const char *call, const char *file, int line);

#endif
