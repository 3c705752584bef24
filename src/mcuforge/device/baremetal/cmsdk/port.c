/* SPDX-License-Identifier: Apache-2.0 */
/* Port for bare-metal Cortex-M boards: CMSDK APB UART and SysTick. */
#include "port.h"

#include "board.h"
#include "print.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

/* CMSDK APB UART: ARM DDI 0479, section 4.3. */
#define UART_DATA REGISTER(BOARD_UART_BASE + 0x000u)
#define UART_STATE REGISTER(BOARD_UART_BASE + 0x004u)
#define UART_CTRL REGISTER(BOARD_UART_BASE + 0x008u)
#define UART_INTSTATUS REGISTER(BOARD_UART_BASE + 0x00Cu)
#define UART_BAUDDIV REGISTER(BOARD_UART_BASE + 0x010u)
#define UART_STATE_TX_FULL (1u << 0)
#define UART_CTRL_TX_ENABLE (1u << 0)
#define UART_CTRL_RX_ENABLE (1u << 1)
#define UART_CTRL_RX_INTERRUPT (1u << 3)
#define UART_INTSTATUS_RX (1u << 1)

/* SysTick and NVIC: ARMv7-M ARM, sections B3.3 and B3.4; the same on ARMv8-M. */
#define SYST_CSR REGISTER(0xE000E010u)
#define SYST_RVR REGISTER(0xE000E014u)
#define SYST_CVR REGISTER(0xE000E018u)
#define SYST_CSR_RUN 7u  /* counter and interrupt enabled, processor clock */
#define SYST_CSR_STOP 4u /* processor clock still: the value is not rescaled to another clock */
#define SYST_PERIOD 0x1000000u
#define NVIC_ISER(irq) REGISTER(0xE000E100u + 4u * ((irq) / 32u))
#define NVIC_ICER(irq) REGISTER(0xE000E180u + 4u * ((irq) / 32u))
#define NVIC_BIT(irq) (1u << ((irq) % 32u))

_Static_assert(BOARD_TICK_HZ % 1000000u == 0u, "ticks per microsecond must be whole");

extern uint32_t __stack_limit[];

static volatile uint32_t wraps;
static uint64_t ticks_before_start;

void SysTick_Handler(void) { wraps++; }

uint64_t port_ticks(void) {
    uint32_t high;
    uint32_t low;
    do { /* again if the counter wrapped between the two reads */
        high = wraps;
        low = SYST_CVR;
    } while (high != wraps);
    /* CVR counts down, from 0 to the reload value on the first tick. */
    return (uint64_t)high * SYST_PERIOD + ((0u - low) & (SYST_PERIOD - 1u));
}

static void ticks_stop(void) {
    SYST_CSR = SYST_CSR_STOP;
    ticks_before_start += port_ticks();
    SYST_CVR = 0u;
    wraps = 0u;
}

void port_ticks_start(void) {
    ticks_stop();
    __asm volatile("" ::: "memory");
    SYST_CSR = SYST_CSR_RUN;
}

uint32_t port_ticks_hz(void) { return BOARD_TICK_HZ; }

uint64_t port_time_us(void) {
    return divide_u64(ticks_before_start + port_ticks(), BOARD_TICK_HZ / 1000000u, 0);
}

uint32_t *port_stack_limit(void) { return __stack_limit; }

void port_init(void) {
    /* BAUDDIV before CTRL, both before the first DATA; 16 is the smallest divider that works. */
    UART_BAUDDIV = BOARD_CLOCK_HZ / BOARD_BAUD;
    UART_CTRL = UART_CTRL_TX_ENABLE | UART_CTRL_RX_ENABLE | UART_CTRL_RX_INTERRUPT;
    SYST_RVR = SYST_PERIOD - 1u;
    SYST_CVR = 0u;
    port_ticks_start();
}

/* While the board listens, SysTick stands still and the UART may interrupt: the time of a board is
 * the time it works, and nothing disturbs what is measured. Each access to a device costs an
 * emulator a microsecond, so a byte takes two: the handler fetches it and acknowledges. */
static char received[64];
static volatile uint32_t received_end;
static volatile uint32_t received_begin;
static int listening;

static void receive_interrupt(int enable) {
    if (enable) {
        NVIC_ISER(BOARD_UART_RX_IRQ) = NVIC_BIT(BOARD_UART_RX_IRQ);
    } else {
        NVIC_ICER(BOARD_UART_RX_IRQ) = NVIC_BIT(BOARD_UART_RX_IRQ);
    }
}

void UART_RX_Handler(void) {
    UART_INTSTATUS = UART_INTSTATUS_RX; /* first: with DATA read, the next byte may interrupt */
    received[received_end % sizeof received] = (char)UART_DATA;
    received_end++;
    if (received_end - received_begin == sizeof received) {
        receive_interrupt(0); /* the rest waits in the UART until there is room */
    }
}

static void listen(void) {
    listening = 1;
    ticks_stop();
    receive_interrupt(1);
}

static void work(void) {
    listening = 0;
    receive_interrupt(0);
    SYST_CSR = SYST_CSR_RUN;
}

char port_getc(void) {
    if (!listening) {
        listen();
    }
    while (received_begin == received_end) {
        /* Masked, an interrupt ends WFI and is taken afterwards: none slips in between. */
        __asm volatile("cpsid i" ::: "memory");
        if (received_begin == received_end) {
            __asm volatile("dsb\n\twfi" ::: "memory");
        }
        __asm volatile("cpsie i\n\tisb" ::: "memory");
    }
    char c = received[received_begin % sizeof received];
    if (received_end - received_begin++ == sizeof received) {
        receive_interrupt(1);
    }
    return c;
}

void port_putc(char c) {
    if (listening) {
        work();
    }
    while (UART_STATE & UART_STATE_TX_FULL) {
    }
    UART_DATA = (uint8_t)c;
}
