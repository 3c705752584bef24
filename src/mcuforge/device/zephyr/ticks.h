/* SPDX-License-Identifier: Apache-2.0 */
/* Arithmetic of counters that wrap. */
#ifndef MCUFORGE_TICKS_H
#define MCUFORGE_TICKS_H

#include <stdint.h>

/* The 64-bit value near `coarse` whose low half is `low`: right as long as `coarse` is wrong by
 * less than 2^31. */
static inline uint64_t ticks_extend(uint64_t coarse, uint32_t low) {
    return coarse + (uint64_t)(int64_t)(int32_t)(low - (uint32_t)coarse);
}

/* floor(value * to_hz / from_hz), of which only the result must fit. */
static inline uint64_t ticks_scale(uint64_t value, uint32_t from_hz, uint32_t to_hz) {
    return value / from_hz * to_hz + value % from_hz * to_hz / from_hz;
}

#endif
