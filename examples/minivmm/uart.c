/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The child's serial port: a 16550A. Every byte is out at once, so the transmitter is always empty; what was typed at
 * our console is received.
 */
#include "vmm.h"

enum { DATA, INTERRUPT_ENABLE, FIFO_CONTROL, LINE_CONTROL, MODEM_CONTROL, LINE_STATUS, MODEM_STATUS, SCRATCH };
#define INTERRUPT_IDENTIFICATION FIFO_CONTROL /* when read */

#define IER_RECEIVED 0x01
#define IER_TRANSMITTER 0x02
#define IIR_NONE 0x01
#define IIR_TRANSMITTER 0x02
#define IIR_RECEIVED 0x04
#define IIR_FIFOS 0xC0
#define FCR_ENABLE 0x01
#define FCR_CLEAR_RECEIVED 0x02
#define LCR_DIVISOR 0x80
#define MCR_DTR 0x01
#define MCR_RTS 0x02
#define MCR_OUT1 0x04
#define MCR_OUT2 0x08 /* on a PC: lets the interrupt out */
#define MCR_LOOP 0x10
#define LSR_DATA 0x01
#define LSR_EMPTY 0x60
#define MSR_CTS 0x10
#define MSR_DSR 0x20
#define MSR_RI 0x40
#define MSR_DCD 0x80

static bool wants_receive(const struct uart *uart)
{
    return uart->received_count > 0 && uart->interrupt_enable & IER_RECEIVED;
}

static bool wants_transmit(const struct uart *uart)
{
    return uart->transmitter_interrupt && uart->interrupt_enable & IER_TRANSMITTER;
}

static void update_line(struct vmm *vmm)
{
    struct uart *uart = &vmm->devices->uart;
    bool line = (wants_receive(uart) || wants_transmit(uart)) && uart->modem_control & MCR_OUT2;
    if (line != uart->line) {
        uart->line = line;
        ioapic_set_line(vmm, IRQ_UART, line);
    }
}

static void transmit(struct vmm *vmm, uint8_t byte)
{
    struct uart *uart = &vmm->devices->uart;
    if (!(uart->modem_control & MCR_LOOP)) {
        serial_put((char)byte);
    }
    /* The transmitter is full for a moment and empty again: that is an edge. */
    uart->transmitter_interrupt = false;
    update_line(vmm);
    uart->transmitter_interrupt = true;
    update_line(vmm);
}

static uint8_t identify_interrupt(struct vmm *vmm)
{
    struct uart *uart = &vmm->devices->uart;
    uint8_t fifos = uart->fifo_control & FCR_ENABLE ? IIR_FIFOS : 0;
    if (wants_receive(uart)) {
        return fifos | IIR_RECEIVED; /* ends when all has been read */
    }
    if (wants_transmit(uart)) {
        uart->transmitter_interrupt = false; /* reading acknowledges it */
        update_line(vmm);
        return fifos | IIR_TRANSMITTER;
    }
    return fifos | IIR_NONE;
}

void uart_receive(struct vmm *vmm)
{
    struct uart *uart = &vmm->devices->uart;
    unsigned room = uart->fifo_control & FCR_ENABLE ? UART_FIFO : 1;
    int byte;
    while (uart->received_count < room && (byte = serial_get()) >= 0) {
        uart->received[uart->received_count++] = (uint8_t)byte;
    }
    update_line(vmm);
}

static uint8_t take_received(struct vmm *vmm)
{
    struct uart *uart = &vmm->devices->uart;
    uint8_t byte = uart->received[0];
    if (uart->received_count == 0) {
        return 0;
    }
    memmove(uart->received, uart->received + 1, --uart->received_count);
    update_line(vmm);
    return byte;
}

/* In loopback the modem's control outputs come back as its status inputs: how drivers find out that this is a UART. */
static uint8_t modem_status(const struct uart *uart)
{
    uint8_t control = uart->modem_control;
    if (!(control & MCR_LOOP)) {
        return MSR_CTS | MSR_DSR | MSR_DCD;
    }
    return (uint8_t)((control & MCR_RTS ? MSR_CTS : 0) | (control & MCR_DTR ? MSR_DSR : 0) |
                     (control & MCR_OUT1 ? MSR_RI : 0) | (control & MCR_OUT2 ? MSR_DCD : 0));
}

static uint32_t uart_read(struct vmm *vmm, unsigned offset, unsigned size)
{
    struct uart *uart = &vmm->devices->uart;
    bool divisor = uart->line_control & LCR_DIVISOR;
    (void)size;
    switch (offset) {
    case DATA:
        return divisor ? uart->divisor & 0xFF : take_received(vmm);
    case INTERRUPT_ENABLE:
        return divisor ? uart->divisor >> 8 : uart->interrupt_enable;
    case INTERRUPT_IDENTIFICATION:
        return identify_interrupt(vmm);
    case LINE_CONTROL:
        return uart->line_control;
    case MODEM_CONTROL:
        return uart->modem_control;
    case LINE_STATUS:
        return LSR_EMPTY | (uart->received_count > 0 ? LSR_DATA : 0);
    case MODEM_STATUS:
        return modem_status(uart);
    default:
        return uart->scratch;
    }
}

static void enable_interrupts(struct vmm *vmm, uint8_t value)
{
    struct uart *uart = &vmm->devices->uart;
    /* Switched on while the transmitter is empty, the interrupt comes at once. */
    if (value & ~uart->interrupt_enable & IER_TRANSMITTER) {
        uart->transmitter_interrupt = true;
    }
    uart->interrupt_enable = value & 0x0F;
    update_line(vmm);
}

static void uart_write(struct vmm *vmm, unsigned offset, unsigned size, uint32_t value)
{
    struct uart *uart = &vmm->devices->uart;
    uint8_t byte = (uint8_t)value;
    bool divisor = uart->line_control & LCR_DIVISOR;
    (void)size;
    switch (offset) {
    case DATA:
        if (divisor) {
            uart->divisor = (uint16_t)((uart->divisor & 0xFF00) | byte);
        } else {
            transmit(vmm, byte);
        }
        break;
    case INTERRUPT_ENABLE:
        if (divisor) {
            uart->divisor = (uint16_t)((uart->divisor & 0x00FF) | byte << 8);
        } else {
            enable_interrupts(vmm, byte);
        }
        break;
    case FIFO_CONTROL:
        uart->fifo_control = byte;
        uart->received_count = byte & FCR_CLEAR_RECEIVED ? 0 : uart->received_count;
        update_line(vmm);
        break;
    case LINE_CONTROL:
        uart->line_control = byte;
        break;
    case MODEM_CONTROL:
        uart->modem_control = byte & 0x1F;
        update_line(vmm);
        break;
    case SCRATCH:
        uart->scratch = byte;
        break;
    default: /* the status registers are read-only */
        break;
    }
}

const struct device uart_device = {.base = PORT_UART, .size = 8, .read = uart_read, .write = uart_write};
