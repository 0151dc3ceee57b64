/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * INS and OUTS, repeated or not: the data is in the child's virtual memory, which HvTranslateVirtualAddress finds.
 */
#ifndef ROOT_STRING_IO_H
#define ROOT_STRING_IO_H

#include "intercept.h"

/* One element: `intercept->io.value` is what is written, or what to set for a read. */
typedef void string_io_element(struct intercept *intercept, void *context);

/*
 * Do the whole instruction. INTERCEPT_DONE when it is over; INTERCEPT_AGAIN after injecting the page fault that the
 * processor would raise at an address that does not translate.
 */
enum intercept_action string_io(struct intercept *intercept, const struct child *child, string_io_element *element,
                                void *context);

#endif
