/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The hypervisor's interface as a guest sees it: numbers and layouts written down from the specification, on purpose
 * not shared with the implementation, and calls through a hypercall page.
 */
#ifndef GUEST_HYPERV_H
#define GUEST_HYPERV_H

#include "cpu.h"

/* -- Discovery: CPUID (TLFS 3.4) -- */
#define HV_LEAF_RANGE 0x40000000u
#define HV_LEAF_INTERFACE 0x40000001u
#define HV_LEAF_VERSION 0x40000002u
#define HV_LEAF_FEATURES 0x40000003u
#define HV_LEAF_RECOMMENDATIONS 0x40000004u
#define HV_LEAF_LIMITS 0x40000005u
#define HV_LEAF_HARDWARE 0x40000006u

/* Privileges, CPUID 0x40000003 EAX (bits 31:0) and EBX (63:32) */
#define HV_ACCESS_VP_RUN_TIME (1u << 0)
#define HV_ACCESS_REFERENCE_COUNTER (1u << 1)
#define HV_ACCESS_SYNIC (1u << 2)
#define HV_ACCESS_SYNTHETIC_TIMERS (1u << 3)
#define HV_ACCESS_APIC (1u << 4)
#define HV_ACCESS_HYPERCALL (1u << 5)
#define HV_ACCESS_VP_INDEX (1u << 6)
#define HV_ACCESS_RESET (1u << 7)
#define HV_ACCESS_STATS (1u << 8)
#define HV_ACCESS_REFERENCE_TSC (1u << 9)
#define HV_ACCESS_GUEST_IDLE (1u << 10)
#define HV_ACCESS_FREQUENCY (1u << 11)
#define HV_ACCESS_TSC_INVARIANT (1u << 15)
#define HV_EBX_CREATE_PARTITIONS (1u << 0)
#define HV_EBX_ACCESS_PARTITION_ID (1u << 1)
#define HV_EBX_POST_MESSAGES (1u << 4)
#define HV_EBX_SIGNAL_EVENTS (1u << 5)
/* Features, CPUID 0x40000003 EDX */
#define HV_EDX_XMM_INPUT (1u << 4)
#define HV_EDX_GUEST_IDLE (1u << 5)
#define HV_EDX_FREQUENCY (1u << 8)
#define HV_EDX_CRASH (1u << 10)
#define HV_EDX_DIRECT_TIMERS (1u << 19)

/* -- Synthetic MSRs (TLFS appendix H) -- */
#define HV_MSR_GUEST_OS_ID 0x40000000u
#define HV_MSR_HYPERCALL 0x40000001u
#define HV_MSR_VP_INDEX 0x40000002u
#define HV_MSR_RESET 0x40000003u
#define HV_MSR_VP_RUNTIME 0x40000010u
#define HV_MSR_TIME_REF_COUNT 0x40000020u
#define HV_MSR_REFERENCE_TSC 0x40000021u
#define HV_MSR_TSC_FREQUENCY 0x40000022u
#define HV_MSR_APIC_FREQUENCY 0x40000023u
#define HV_MSR_EOI 0x40000070u
#define HV_MSR_ICR 0x40000071u
#define HV_MSR_TPR 0x40000072u
#define HV_MSR_APIC_ASSIST_PAGE 0x40000073u
#define HV_MSR_SCONTROL 0x40000080u
#define HV_MSR_SVERSION 0x40000081u
#define HV_MSR_SIEFP 0x40000082u
#define HV_MSR_SIMP 0x40000083u
#define HV_MSR_EOM 0x40000084u
#define HV_MSR_SINT0 0x40000090u
#define HV_MSR_STIMER0_CONFIG 0x400000B0u
#define HV_MSR_STIMER0_COUNT 0x400000B1u
#define HV_MSR_STIMER_CONFIG(n) (HV_MSR_STIMER0_CONFIG + 2 * (n))
#define HV_MSR_STIMER_COUNT(n) (HV_MSR_STIMER0_COUNT + 2 * (n))
#define HV_MSR_STATS_PARTITION_RETAIL 0x400000E0u
#define HV_MSR_GUEST_IDLE 0x400000F0u
#define HV_MSR_CRASH_P0 0x40000100u
#define HV_MSR_CRASH_CTL 0x40000105u
#define HV_MSR_TSC_INVARIANT_CONTROL 0x40000118u

#define HV_MSR_ENABLE 1u /* bit 0 of every register that places a page */

#define HV_SINT_MASKED 0x10000u
#define HV_SINT_AUTO_EOI 0x20000u
#define HV_SINT_POLLING 0x40000u

#define HV_STIMER_ENABLE 0x1u
#define HV_STIMER_PERIODIC 0x2u
#define HV_STIMER_LAZY 0x4u
#define HV_STIMER_AUTO_ENABLE 0x8u
#define HV_STIMER_VECTOR(vector) ((uint64_t)(vector) << 4)
#define HV_STIMER_DIRECT 0x1000u
#define HV_STIMER_SINT(n) ((uint64_t)(n) << 16)

#define HV_CRASH_NOTIFY (UINT64_C(1) << 63)
#define HV_CRASH_MESSAGE (UINT64_C(1) << 62)

/* -- Hypercalls (TLFS 4, appendix B) -- */
#define HV_SWITCH_VIRTUAL_ADDRESS_SPACE 0x0001u
#define HV_FLUSH_VIRTUAL_ADDRESS_SPACE 0x0002u
#define HV_FLUSH_VIRTUAL_ADDRESS_LIST 0x0003u
#define HV_NOTIFY_LONG_SPIN_WAIT 0x0008u
#define HV_SEND_SYNTHETIC_CLUSTER_IPI 0x000Bu
#define HV_FLUSH_VIRTUAL_ADDRESS_SPACE_EX 0x0013u
#define HV_FLUSH_VIRTUAL_ADDRESS_LIST_EX 0x0014u
#define HV_SEND_SYNTHETIC_CLUSTER_IPI_EX 0x0015u
#define HV_CREATE_PARTITION 0x0040u
#define HV_GET_PARTITION_ID 0x0046u
#define HV_POST_MESSAGE 0x005Cu
#define HV_SIGNAL_EVENT 0x005Du

#define HV_CALL_FAST (UINT64_C(1) << 16)
#define HV_CALL_VARIABLE(qwords) ((uint64_t)(qwords) << 17)
#define HV_CALL_REPS(count) ((uint64_t)(count) << 32)
#define HV_CALL_START(index) ((uint64_t)(index) << 48)
#define HV_RESULT_STATUS(result) ((unsigned)((result)&0xFFFF))
#define HV_RESULT_REPS(result) ((unsigned)((result) >> 32 & 0xFFF))

/* Status codes (TLFS appendix C) */
#define HV_SUCCESS 0x0000
#define HV_INVALID_HYPERCALL_CODE 0x0002
#define HV_INVALID_HYPERCALL_INPUT 0x0003
#define HV_INVALID_ALIGNMENT 0x0004
#define HV_INVALID_PARAMETER 0x0005
#define HV_ACCESS_DENIED 0x0006
#define HV_INVALID_VP_INDEX 0x000E
#define HV_INVALID_PORT_ID 0x0011
#define HV_INVALID_CONNECTION_ID 0x0012
#define HV_INSUFFICIENT_BUFFERS 0x0013

/* Flags of the flush calls (TLFS 12.3.2) */
#define HV_FLUSH_ALL_PROCESSORS 0x1u
#define HV_FLUSH_ALL_SPACES 0x2u
#define HV_FLUSH_NON_GLOBAL_ONLY 0x4u

#define HV_VP_SET_SPARSE_4K 0u
#define HV_VP_SET_ALL 1u

/* -- Messages (TLFS 14.8.4). payload_size before flags: the order that deployed guests read. -- */
struct hv_message {
    volatile uint32_t type;
    volatile uint8_t payload_size;
    volatile uint8_t flags; /* bit 0: another one waits */
    uint16_t reserved;
    volatile uint64_t sender;
    volatile uint64_t payload[30];
};
_Static_assert(sizeof(struct hv_message) == 256, "TLFS 14.8.4");
#define HV_MESSAGE_PENDING 0x1u
#define HV_MESSAGE_TIMER_EXPIRED 0x80000010u

/* TLFS 16.4.1 */
struct hv_timer_payload {
    uint32_t timer, reserved;
    uint64_t expiration, delivery; /* 100 ns */
};

/* TLFS 15.4.2 */
struct hv_reference_tsc {
    volatile uint32_t sequence;
    uint32_t reserved;
    volatile uint64_t scale;
    volatile int64_t offset;
};

/* -- Calls, through a hypercall page that the caller has enabled -- */

/* Set the OS identity and put the hypercall page at a page of the runtime's own; hv_disable() undoes both. */
void hv_enable(void);
void hv_disable(void);
/*
 * On every VP: timers off, SINTs masked, the SynIC's and the assist page off, TPR 0; then the partition's pages and
 * identity. For guest_cleanup(); what the partition may not access is left out.
 */
void hv_reset_state(void);
/* First GPA beyond the GPA space (CPUID 0x80000008). */
uint64_t hv_gpa_limit(void);
/* A GPA in the GPA space with neither memory nor a device. */
#define HV_UNMAPPED_GPA 0x40000000u
/* Address of that page. */
uintptr_t hv_hypercall_page(void);

/* A call in the convention of the guest's width; returns the result value. For fast calls the GPAs are the input. */
uint64_t hv_call_at(uintptr_t page, uint64_t input_value, uint64_t input, uint64_t output);
static inline uint64_t hv_call(uint64_t input_value, uint64_t input, uint64_t output)
{
    return hv_call_at(hv_hypercall_page(), input_value, input, output);
}
/* The same with XMM0..5 loaded from `xmm`, 96 bytes, 16-byte aligned. */
uint64_t hv_call_xmm(uint64_t input_value, uint64_t input, uint64_t output, const void *xmm);

/*
 * Reference time by the reference TSC page (TLFS 15.4.3), in 100 ns; false when the page says not to use it.
 */
bool hv_tsc_page_time(const struct hv_reference_tsc *page, uint64_t *time);

#endif
