/* SPDX-License-Identifier: Apache-2.0 */
/* From reset to main(), and from a fault to a line on the serial port. RISC-V, machine mode only;
 * numbers of chapters are those of the privileged specification. */
#include <stdint.h>

#include "application.h"
#include "port.h"
#include "print.h"

/* QEMU's test device, which resets the machine. */
#define TEST_DEVICE (*(volatile uint32_t *)0x00100000u)
#define TEST_DEVICE_RESET 0x7777u

/* From the linker script. */
extern uint32_t __stack_limit[], __stack_top[];
extern uint32_t __data_load[], __data_start[], __data_end[];
extern uint32_t __bss_start[], __bss_end[], __workspace_start[], __workspace_end[];

void Reset_Handler(void);
void Fault_Handler(void);

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

/* The core starts at the first byte. What lies from there to the stack's limit may be read and
 * executed, but not written, so that a stack that overflows is a fault: physical memory protection
 * (section 3.7), entry 0 off and the range's start, entry 1 its end, locked: machine mode too. */
__attribute__((naked, noreturn, section(".vectors"), used)) void Reset_Handler(void) {
    __asm volatile(".option push\n\t.option arch, +zicsr\n\t"
                   "la sp, __stack_top\n\t"
                   "andi sp, sp, -16\n\t"
                   "la t0, Fault_Handler\n\t"
                   "csrw mtvec, t0\n\t"
                   "la t0, Reset_Handler\n\t"
                   "srli t0, t0, 2\n\t"
                   "csrw pmpaddr0, t0\n\t"
                   "la t0, __stack_limit\n\t"
                   "srli t0, t0, 2\n\t"
                   "csrw pmpaddr1, t0\n\t"
                   "li t0, 0x8D00\n\t" /* L, TOR, X, R */
                   "csrw pmpcfg0, t0\n\t"
                   ".option pop\n\t"
                   "tail %0"
                   :
                   : "i"(start));
}

/* Reports the fault and resets the board, so that the next command finds it ready again. */
__attribute__((noinline, noreturn, used)) static void report(uint32_t cause, uint32_t pc,
                                                             uint32_t value) {
    print_text("\r\ne-[Fault ");
    print_uint(cause);
    print_text(": pc=0x");
    print_hex(pc, 8);
    print_text(" mtval=0x");
    print_hex(value, 8);
    print_text("]\r\n");
    TEST_DEVICE = TEST_DEVICE_RESET;
    for (;;) {
    }
}

/* The stack may be what is broken: the report gets a fresh one. */
__attribute__((naked, noreturn, aligned(4))) void Fault_Handler(void) {
    __asm volatile(".option push\n\t.option arch, +zicsr\n\t"
                   "csrr a0, mcause\n\t"
                   "csrr a1, mepc\n\t"
                   "csrr a2, mtval\n\t"
                   ".option pop\n\t"
                   "la sp, __stack_top\n\t"
                   "andi sp, sp, -16\n\t"
                   "tail %0"
                   :
                   : "i"(report));
}
