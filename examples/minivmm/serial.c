/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Our own serial port: the machine's first one, which the root partition reaches without anybody between. */
#include "vmm.h"

#define DATA (PORT_UART + 0)
#define INTERRUPT_ENABLE (PORT_UART + 1)
#define FIFO_CONTROL (PORT_UART + 2)
#define LINE_CONTROL (PORT_UART + 3)
#define MODEM_CONTROL (PORT_UART + 4)
#define LINE_STATUS (PORT_UART + 5)
#define LINE_STATUS_DATA 0x01
#define LINE_STATUS_EMPTY 0x20
#define INTERRUPT_RECEIVED 0x01

/* The machine's own I/O APIC, which nobody else uses */
#define IOAPIC_SELECT (*(volatile uint32_t *)GPA_IOAPIC)
#define IOAPIC_DATA (*(volatile uint32_t *)(GPA_IOAPIC + 0x10))
#define IOAPIC_REDIRECTION(pin) (0x10 + 2 * (pin))

/* Something may have been typed. */
static volatile bool attention;

static void interrupt(struct frame *frame)
{
    (void)frame;
    attention = true;
    apic_eoi();
}

/* Edge-triggered, to the first CPU, whose halt it ends. */
static void enable_interrupt(void)
{
    interrupt_set_handler(VECTOR_SERIAL, interrupt);
    IOAPIC_SELECT = IOAPIC_REDIRECTION(IRQ_UART) + 1;
    IOAPIC_DATA = 0;
    IOAPIC_SELECT = IOAPIC_REDIRECTION(IRQ_UART);
    IOAPIC_DATA = VECTOR_SERIAL;
    outb(INTERRUPT_ENABLE, INTERRUPT_RECEIVED);
}

void serial_init(void)
{
    outb(LINE_CONTROL, 0x80); /* divisor: 115200 baud */
    outb(DATA, 1);
    outb(INTERRUPT_ENABLE, 0);
    outb(LINE_CONTROL, 0x03); /* 8 bits, no parity */
    outb(FIFO_CONTROL, 0x07);
    outb(MODEM_CONTROL, 0x0B);
    console_set_output(serial_put);
    enable_interrupt();
}

void serial_put(char c)
{
    while (!(inb(LINE_STATUS) & LINE_STATUS_EMPTY)) {
        cpu_pause();
    }
    outb(DATA, (uint8_t)c);
}

/* The port is asked only after an interrupt: asking costs more than all else that is done for most intercepts. */
int serial_get(void)
{
    if (!attention) {
        return -1;
    }
    if (inb(LINE_STATUS) & LINE_STATUS_DATA) {
        return inb(DATA);
    }
    attention = false; /* the next byte is an edge again */
    return -1;
}
