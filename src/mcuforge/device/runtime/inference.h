/* SPDX-License-Identifier: Apache-2.0 */
/* One bench run: iterations of the model with the time and the stack they took. */
#ifndef MCUFORGE_INFERENCE_H
#define MCUFORGE_INFERENCE_H

#include <stdint.h>

struct inference {
    uint32_t count;
    uint64_t ticks_sum; /* ticks from entering the model's function to its return */
    uint64_t ticks_min;
    uint64_t ticks_max;
    uint32_t stack_bytes; /* used by the model's function and what it calls */
    int32_t error;        /* what the model returned: 0 is success */
    int stack_intact;
};

void inference_begin(struct inference *run);
void inference_step(struct inference *run);

#endif
