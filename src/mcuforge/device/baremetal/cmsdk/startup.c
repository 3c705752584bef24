/* SPDX-License-Identifier: Apache-2.0 */
/* From reset to main(), and from a fault to a line on the serial port. ARMv7-M and ARMv8-M. */
#include <stdint.h>

#include "application.h"
#include "board.h"
#include "port.h"
#include "print.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define SCB_VTOR REGISTER(0xE000ED08u)
#define SCB_AIRCR REGISTER(0xE000ED0Cu)
#define SCB_CFSR REGISTER(0xE000ED28u)
#define SCB_HFSR REGISTER(0xE000ED2Cu)
#define SCB_BFAR REGISTER(0xE000ED38u)
#define SCB_CPACR REGISTER(0xE000ED88u)
#define SCB_AIRCR_RESET (0x05FA0000u | 1u << 2)

/* From the linker script. */
extern uint32_t __stack_limit[], __stack_top[];
extern uint32_t __data_load[], __data_start[], __data_end[];
extern uint32_t __bss_start[], __bss_end[], __workspace_start[], __workspace_end[];

extern void SysTick_Handler(void);
extern void UART_RX_Handler(void);
void Reset_Handler(void);
void Fault_Handler(void);

typedef void (*vector)(void);

__attribute__((section(".vectors"), used)) static const vector vectors[] = {
    [0] = (vector)(uintptr_t)__stack_top,
    [1] = Reset_Handler,
    [2] = Fault_Handler,
    [3] = Fault_Handler,
    [4] = Fault_Handler,
    [5] = Fault_Handler,
    [6] = Fault_Handler,
    [7] = Fault_Handler,
    [11] = Fault_Handler,
    [12] = Fault_Handler,
    [14] = Fault_Handler,
    [15] = SysTick_Handler,
    [16 + BOARD_UART_RX_IRQ] = UART_RX_Handler,
};

static void zero(uint32_t *from, const uint32_t *to) {
    while (from < to) {
        *from++ = 0u;
    }
}

__attribute__((noinline, noreturn, used)) static void start(void) {
    const uint32_t *from = __data_load;
    for (uint32_t *to = __data_start; to < __data_end;) {
        *to++ = *from++;
    }
    zero(__bss_start, __bss_end);
    zero(__workspace_start, __workspace_end);
    port_init();
    application_run();
    __builtin_unreachable();
}

/* Naked: the FPU, and Helium with it, is enabled before the compiler may use a register of it. */
__attribute__((naked, noreturn)) void Reset_Handler(void) {
    __asm volatile("ldr r0, =0xE000ED88\n\t" /* CPACR */
                   "ldr r1, [r0]\n\t"
                   "orr r1, r1, #0xF00000\n\t"
                   "str r1, [r0]\n\t"
                   "dsb\n\t"
                   "isb\n\t"
#if __ARM_ARCH >= 8
                   "ldr r0, =__stack_limit\n\t"
                   "msr msplim, r0\n\t"
#endif
                   "b %c0\n\t"
                   ".ltorg"
                   :
                   : "i"(start));
}

/* Reports the fault and resets the board, so that the next command finds it ready again. */
__attribute__((noinline, noreturn, used)) static void report(uint32_t exception,
                                                             const uint32_t *frame) {
    print_text("\r\ne-[Fault ");
    print_uint(exception);
    print_text(": pc=0x");
    print_hex(frame ? frame[6] : 0u, 8);
    print_text(" cfsr=0x");
    print_hex(SCB_CFSR, 8);
    print_text(" hfsr=0x");
    print_hex(SCB_HFSR, 8);
    print_text(" bfar=0x");
    print_hex(SCB_BFAR, 8);
    print_text("]\r\n");
    __asm volatile("dsb" ::: "memory");
    SCB_AIRCR = SCB_AIRCR_RESET;
    for (;;) {
    }
}

/* The stack may be what is broken: the report gets a fresh one. A frame outside of the stack was
 * never written and is not read. */
__attribute__((naked, noreturn)) void Fault_Handler(void) {
    __asm volatile("mrs r0, ipsr\n\t"
                   "mov r1, sp\n\t"
                   "ldr r2, =__stack_limit\n\t"
                   "cmp r1, r2\n\t"
                   "it lo\n\t"
                   "movlo r1, #0\n\t"
#if __ARM_ARCH >= 8
                   "movs r3, #0\n\t"
                   "msr msplim, r3\n\t"
#endif
                   "ldr r2, =__stack_top\n\t"
                   "sub r3, r2, #1024\n\t"
                   "cmp r1, r3\n\t" /* keep a frame that lies where the report's stack will be */
                   "it lo\n\t"
                   "movlo sp, r2\n\t"
                   "b %c0\n\t"
                   ".ltorg"
                   :
                   : "i"(report));
}
