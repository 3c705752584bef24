/* SPDX-License-Identifier: Apache-2.0 */
/* Inputs that come with the firmware; generated (samples.c). */
#ifndef MCUFORGE_SAMPLES_H
#define MCUFORGE_SAMPLES_H

#include <stdint.h>

extern const uint32_t sample_count;
extern const uint8_t *const sample_inputs[];  /* bytes of the input tensors */
extern const uint8_t *const sample_outputs[]; /* bytes the outputs must have; NULL: not known */

#endif
