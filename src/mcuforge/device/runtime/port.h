/* SPDX-License-Identifier: Apache-2.0 */
/* What the harness needs of a board: a serial port, a tick counter and the limits of its stack.
 * Implemented once per platform (device/baremetal, device/zephyr). */
#ifndef MCUFORGE_PORT_H
#define MCUFORGE_PORT_H

#include <stdint.h>

/* Brings up the serial port and the tick counter. */
void port_init(void);

/* Next byte from the host; waits for it without burning power. Nothing is lost while the board is
 * busy as long as the host waits for m-ready before it sends the next command. */
char port_getc(void);
void port_putc(char c);

/* Tick counter. port_ticks_start() restarts it at phase zero, so that equal work gives equal
 * counts; port_ticks() is the number of whole ticks since. 64 bits: never wraps. */
void port_ticks_start(void);
uint64_t port_ticks(void);
uint32_t port_ticks_hz(void);

/* Monotonic time in microseconds, unaffected by port_ticks_start(). */
uint64_t port_time_us(void);

/* Lowest address the stack may use. */
uint32_t *port_stack_limit(void);

#endif
