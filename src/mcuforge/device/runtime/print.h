/* SPDX-License-Identifier: Apache-2.0 */
/* Output to the host without stdio, heap or 64-bit division. */
#ifndef MCUFORGE_PRINT_H
#define MCUFORGE_PRINT_H

#include <stdint.h>

void print_text(const char *text);
void print_uint(uint64_t value);
void print_int(int32_t value);
void print_hex(uint32_t value, unsigned digits);
/* Six decimals below 1e9, otherwise seven significant digits and an exponent. */
void print_float(float value);

/* value / divisor; divisor < 65536. */
uint64_t divide_u64(uint64_t value, uint32_t divisor, uint32_t *remainder);

#endif
