/* SPDX-License-Identifier: Apache-2.0 */
#include "operators.h"

#include "model_glue.h"
#include "port.h"
#include "print.h"

/* The generated code calls these around each operator. */
void tvmgen_operator_begin(uint32_t index);
void tvmgen_operator_end(uint32_t index);

static uint64_t begun;
static uint64_t ticks[MODEL_OPERATORS + 1]; /* the last is of the operator that does nothing */

__attribute__((noinline)) void tvmgen_operator_begin(uint32_t index) {
    (void)index;
    begun = port_ticks();
}

__attribute__((noinline)) void tvmgen_operator_end(uint32_t index) {
    ticks[index] += port_ticks() - begun;
}

void operators_begin(void) {
    for (uint32_t i = 0; i <= MODEL_OPERATORS; i++) {
        ticks[i] = 0u;
    }
}

void operators_calibrate(void) {
    tvmgen_operator_begin(MODEL_OPERATORS);
    tvmgen_operator_end(MODEL_OPERATORS);
}

void operators_print(void) {
    for (uint32_t i = 0; i < MODEL_OPERATORS; i++) {
        print_text("m-mcuforge-operator-[");
        print_uint(i);
        port_putc(',');
        print_uint(ticks[i] > ticks[MODEL_OPERATORS] ? ticks[i] - ticks[MODEL_OPERATORS] : 0u);
        print_text("]\r\n");
    }
}
