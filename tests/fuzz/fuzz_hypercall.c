/* SPDX-License-Identifier: GPL-2.0-or-later */
/* libFuzzer's target: the hostile guest of csrc/python/fuzz.cpp. Built and run by scripts/fuzz. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    hv_fuzz_input(data, size);
    return 0;
}
