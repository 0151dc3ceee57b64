/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The architectural local APIC, in xAPIC mode unless a CPU switches itself to x2APIC mode. */
#ifndef GUEST_APIC_H
#define GUEST_APIC_H

#include "cpu.h"

#define APIC_BASE 0xFEE00000u
#define APIC_ID 0x20
#define APIC_TPR 0x80
#define APIC_PPR 0xA0
#define APIC_EOI 0xB0
#define APIC_SVR 0xF0
#define APIC_ISR 0x100
#define APIC_TMR 0x180
#define APIC_IRR 0x200
#define APIC_ICR_LOW 0x300
#define APIC_ICR_HIGH 0x310
#define APIC_LVT_TIMER 0x320
#define APIC_LVT_LINT0 0x350
#define APIC_LVT_LINT1 0x360
#define APIC_TIMER_INITIAL 0x380
#define APIC_TIMER_CURRENT 0x390
#define APIC_TIMER_DIVIDE 0x3E0

#define APIC_ICR_INIT 0x4500u
#define APIC_ICR_STARTUP 0x4600u
#define APIC_ICR_SELF 0x40000u
#define APIC_ICR_OTHERS 0xC0000u

/* Registers of the calling CPU's APIC, by xAPIC offset in either mode (not the ICR in x2APIC mode). */
uint32_t apic_read(unsigned offset);
void apic_write(unsigned offset, uint32_t value);
void apic_eoi(void);
unsigned apic_id(void);
/* Send an IPI: `low` is the lower half of the ICR, `destination` an APIC ID. */
void apic_send_ipi(unsigned destination, uint32_t low);
/* Whether `vector` is set in the 256-bit register that starts at `offset` (APIC_ISR, APIC_TMR, APIC_IRR). */
bool apic_vector_set(unsigned offset, uint8_t vector);
/* False when the CPU has no x2APIC. There is no way back but apic_reset_mode(). */
bool apic_enable_x2apic(void);
/* To xAPIC mode, from either, with all state but the ID reset; enabled by software. */
void apic_reset_mode(void);
/* Take all interrupts that wait and end all that are in service: the calling CPU's, interrupts off. */
void apic_drain(void);
/* Enable the APIC by software and mask LINT0 and LINT1. */
void apic_init(void);

#endif
