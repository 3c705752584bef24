/* SPDX-License-Identifier: Apache-2.0 */
#include "inference.h"

#include "model_glue.h"
#include "operators.h"
#include "port.h"
#include "stack.h"

void inference_begin(struct inference *run) {
    *run = (struct inference){.ticks_min = UINT64_MAX, .stack_intact = 1};
#ifdef TVMGEN_PROFILE
    operators_begin();
#endif
}

/* Its own function, so that nothing is scheduled into or out of the bracket between the two reads
 * of the tick counter: only the model's entry function is there. */
__attribute__((noinline)) void inference_step(struct inference *run) {
    const uint32_t *top = stack_paint();
    port_ticks_start();
    int32_t error = MODEL_RUN();
    uint64_t ticks = port_ticks();

#ifdef TVMGEN_PROFILE
    operators_calibrate();
#endif
    uint32_t used = stack_used(top);
    run->stack_bytes = used > run->stack_bytes ? used : run->stack_bytes;
    run->stack_intact &= stack_intact();
    run->error = run->error ? run->error : error;
    run->count++;
    run->ticks_sum += ticks;
    run->ticks_min = ticks < run->ticks_min ? ticks : run->ticks_min;
    run->ticks_max = ticks > run->ticks_max ? ticks : run->ticks_max;
}
