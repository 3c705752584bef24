/* SPDX-License-Identifier: Apache-2.0 */
#include "print.h"

#include "port.h"

void print_text(const char *text) {
    while (*text) {
        port_putc(*text++);
    }
}

/* Long division in 16-bit digits: four UDIVs instead of libgcc's 64-bit division. */
uint64_t divide_u64(uint64_t value, uint32_t divisor, uint32_t *remainder) {
    uint64_t quotient = 0;
    uint32_t rest = 0;
    for (int shift = 48; shift >= 0; shift -= 16) {
        uint32_t digit = rest << 16 | (uint32_t)(value >> shift & 0xFFFFu);
        quotient = quotient << 16 | digit / divisor;
        rest = digit % divisor;
    }
    if (remainder) {
        *remainder = rest;
    }
    return quotient;
}

void print_uint(uint64_t value) {
    char text[21];
    char *p = text + sizeof text;
    *--p = '\0';
    do {
        uint32_t digit;
        value = divide_u64(value, 10, &digit);
        *--p = (char)('0' + digit);
    } while (value);
    print_text(p);
}

void print_int(int32_t value) {
    if (value < 0) {
        port_putc('-');
    }
    print_uint(value < 0 ? 0u - (uint32_t)value : (uint32_t)value);
}

void print_hex(uint32_t value, unsigned digits) {
    while (digits--) {
        port_putc("0123456789abcdef"[value >> (4 * digits) & 0xFu]);
    }
}

void print_float(float value) {
    union {
        float value;
        uint32_t bits;
    } word = {value};
    int exponent = 0;

    if (word.bits >> 31) {
        port_putc('-');
        word.bits &= 0x7FFFFFFFu;
    }
    if (word.bits >= 0x7F800000u) {
        print_text(word.bits == 0x7F800000u ? "inf" : "nan");
        return;
    }
    value = word.value;
    if (value >= 1e9f) {
        for (; value >= 10.0f; value /= 10.0f) {
            exponent++;
        }
    }
    uint32_t whole = (uint32_t)value;
    uint32_t micros = (uint32_t)((value - (float)whole) * 1e6f + 0.5f);
    if (micros >= 1000000u) {
        micros -= 1000000u;
        whole++;
    }
    print_uint(whole);
    port_putc('.');
    for (uint32_t unit = 100000u; unit; unit /= 10u) {
        port_putc((char)('0' + micros / unit % 10u));
    }
    if (exponent) {
        port_putc('e');
        print_int(exponent);
    }
}
