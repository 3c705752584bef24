/* SPDX-License-Identifier: Apache-2.0 */
/* Measures how much stack a call uses: paint what is free, call, look what is still painted. */
#ifndef MCUFORGE_STACK_H
#define MCUFORGE_STACK_H

#include <stdint.h>

#include "port.h"

#define STACK_PAINT 0x5CAFF01Du
#define STACK_GUARD_WORDS 8u

/* The stack pointer: compilers name the register so on every architecture. */
register uint32_t *stack_pointer __asm("sp");

/* Paints from the stack's limit up to the caller's stack pointer and returns that. Inlined, so that
 * the frames below it are exactly those of the functions the caller calls next. */
__attribute__((always_inline)) static inline const uint32_t *stack_paint(void) {
    volatile uint32_t *p = port_stack_limit();
    uint32_t *top = stack_pointer;
    while (p < top) {
        *p++ = STACK_PAINT;
    }
    return top;
}

/* Bytes used below `top`. */
static inline uint32_t stack_used(const uint32_t *top) {
    const uint32_t *p = port_stack_limit();
    while (p < top && *p == STACK_PAINT) {
        p++;
    }
    return (uint32_t)((const char *)top - (const char *)p);
}

/* 0 if the last words of the stack were overwritten: it overflowed, or was about to. */
static inline int stack_intact(void) {
    const uint32_t *limit = port_stack_limit();
    for (uint32_t i = 0; i < STACK_GUARD_WORDS; i++) {
        if (limit[i] != STACK_PAINT) {
            return 0;
        }
    }
    return 1;
}

#endif
