/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the machine's processors have, in the hypervisor's terms (TLFS 5.2.8 to 5.2.10): the default, and the most, that
 * a child partition sees.
 */
#include "module.h"

#define CLFLUSH_SIZE 8 /* what QEMU's CPUID tells for every model, in units of 8 bytes */

/* By the property's bits. */
static const struct {
    FeatureWord word;
    uint32_t mask;
} processor_features[] = {
    {FEAT_1_ECX, CPUID_EXT_SSE3},
    {FEAT_8000_0001_ECX, CPUID_EXT3_LAHF_LM},
    {FEAT_1_ECX, CPUID_EXT_SSSE3},
    {FEAT_1_ECX, CPUID_EXT_SSE41},
    {FEAT_1_ECX, CPUID_EXT_SSE42},
    {FEAT_8000_0001_ECX, CPUID_EXT3_SSE4A},
    {FEAT_8000_0001_ECX, CPUID_EXT3_XOP}, /* the place that SSE5 had */
    {FEAT_1_ECX, CPUID_EXT_POPCNT},
    {FEAT_1_ECX, CPUID_EXT_CX16},
    {FEAT_8000_0001_ECX, CPUID_EXT3_CR8LEG},
    {FEAT_8000_0001_ECX, CPUID_EXT3_ABM},
    {FEAT_8000_0001_ECX, CPUID_EXT3_MISALIGNSSE},
    {FEAT_8000_0001_EDX, CPUID_EXT2_MMXEXT},
    {FEAT_8000_0001_EDX, CPUID_EXT2_3DNOW},
    {FEAT_8000_0001_EDX, CPUID_EXT2_3DNOWEXT},
};

static const struct {
    FeatureWord word;
    uint32_t mask;
} xsave_features[] = {
    {FEAT_1_ECX, CPUID_EXT_XSAVE},
    {FEAT_XSAVE, CPUID_XSAVE_XSAVEOPT},
    {FEAT_1_ECX, CPUID_EXT_AVX},
};

void mshv_describe_processor(const CPUX86State *env, struct hv_config *config)
{
    config->intel = IS_INTEL_CPU(env);
    config->clflush_size = CLFLUSH_SIZE;
    config->processor_features = config->xsave_features = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(processor_features); i++) {
        if (env->features[processor_features[i].word] & processor_features[i].mask)
            config->processor_features |= UINT64_C(1) << i;
    }
    for (unsigned i = 0; i < ARRAY_SIZE(xsave_features); i++) {
        if (env->features[xsave_features[i].word] & xsave_features[i].mask)
            config->xsave_features |= UINT64_C(1) << i;
    }
}
