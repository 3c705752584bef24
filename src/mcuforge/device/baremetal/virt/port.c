/* SPDX-License-Identifier: Apache-2.0 */
/* Port for RISC-V boards with a 16550 UART behind a PLIC, as QEMU's machine `virt`. */
#include "port.h"

#include "board.h"
#include "print.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define BYTE(address) (*(volatile uint8_t *)(address))

/* 16550 UART: National Semiconductor PC16550D, section 8. */
#define UART_DATA BYTE(BOARD_UART_BASE + 0u)
#define UART_INTERRUPTS BYTE(BOARD_UART_BASE + 1u)
#define UART_FIFO BYTE(BOARD_UART_BASE + 2u)
#define UART_LINE BYTE(BOARD_UART_BASE + 3u)
#define UART_STATE BYTE(BOARD_UART_BASE + 5u)
#define UART_INTERRUPTS_RX (1u << 0)
#define UART_FIFO_ENABLE (1u << 0)
#define UART_LINE_8N1 3u
#define UART_STATE_RX (1u << 0)
#define UART_STATE_TX_EMPTY (1u << 5)

/* PLIC, context 0, the first core's machine mode: RISC-V PLIC specification, chapter 3. */
#define PLIC_BASE 0x0C000000u
#define PLIC_PRIORITY(irq) REGISTER(PLIC_BASE + 4u * (irq))
#define PLIC_ENABLE(irq) REGISTER(PLIC_BASE + 0x2000u + 4u * ((irq) / 32u))
#define PLIC_CLAIM REGISTER(PLIC_BASE + 0x200004u)

#define MIE_EXTERNAL (1u << 11)

_Static_assert(BOARD_TICK_HZ % 1000000u == 0u, "ticks per microsecond must be whole");

extern uint32_t __stack_limit[];

/* The time of a board is the time it works: what minstret counts while the board listens is taken
 * off. A tick is an instruction. */
static uint64_t skipped;
static uint64_t listening_since;
static uint64_t started;
static int listening;

static uint64_t retired(void) {
    uint32_t high;
    uint32_t low;
    uint32_t again;
    do { /* again if the lower half wrapped between the reads */
        __asm volatile(".option push\n\t.option arch, +zicsr\n\t"
                       "csrr %0, minstreth\n\t"
                       "csrr %1, minstret\n\t"
                       "csrr %2, minstreth\n\t"
                       ".option pop"
                       : "=r"(high), "=r"(low), "=r"(again)
                       :
                       : "memory");
    } while (high != again);
    return (uint64_t)high << 32 | low;
}

static uint64_t worked(void) { return (listening ? listening_since : retired()) - skipped; }

void port_ticks_start(void) {
    __asm volatile("" ::: "memory");
    started = worked();
}

uint64_t port_ticks(void) { return worked() - started; }

uint32_t port_ticks_hz(void) { return BOARD_TICK_HZ; }

uint64_t port_time_us(void) { return divide_u64(worked(), BOARD_TICK_HZ / 1000000u, 0); }

uint32_t *port_stack_limit(void) { return __stack_limit; }

void port_init(void) {
    UART_LINE = UART_LINE_8N1;
    UART_FIFO = UART_FIFO_ENABLE;
    PLIC_PRIORITY(BOARD_UART_RX_IRQ) = 1u;
    PLIC_ENABLE(BOARD_UART_RX_IRQ) = 1u << (BOARD_UART_RX_IRQ % 32u);
    /* Interrupts stay masked in mstatus: they end WFI, and none is ever taken. */
    __asm volatile(".option push\n\t.option arch, +zicsr\n\t"
                   "csrs mie, %0\n\t"
                   ".option pop" ::"r"(MIE_EXTERNAL));
    port_ticks_start();
}

/* Only while the board listens may the UART interrupt: nothing disturbs what is measured. Bytes
 * that come meanwhile wait in the UART and the host. */
char port_getc(void) {
    if (!listening) {
        listening_since = retired();
        listening = 1;
        UART_INTERRUPTS = UART_INTERRUPTS_RX;
    }
    while (!(UART_STATE & UART_STATE_RX)) {
        __asm volatile("wfi" ::: "memory");
        PLIC_CLAIM = PLIC_CLAIM; /* claims what woke the core, and completes it */
    }
    return (char)UART_DATA;
}

static void work(void) {
    UART_INTERRUPTS = 0u;
    listening = 0;
    skipped += retired() - listening_since;
}

void port_putc(char c) {
    if (listening) {
        work();
    }
    while (!(UART_STATE & UART_STATE_TX_EMPTY)) {
    }
    UART_DATA = (uint8_t)c;
}
