/* SPDX-License-Identifier: Apache-2.0 */
/* Device side of the MLPerf Tiny (EEMBC EnergyRunner) serial protocol; see docs/protocol.md. */
#include "application.h"

#include <stddef.h>
#include <stdint.h>

#include "inference.h"
#include "model.h"
#include "operators.h"
#include "port.h"
#include "print.h"

#define COMMAND_SIZE 80u /* EE_CMD_SIZE; the digits of `db` are decoded as they come, see below */
#define FIRMWARE_VERSION "ULPMark for tinyML Firmware V0.0.1"

/* Where `db` puts its bytes: the model's input tensors themselves, or the features of ad01. */
static struct {
    uint32_t size;     /* announced by `db load` */
    uint32_t position; /* bytes that arrived */
    uint8_t raw;       /* `db load N raw`: bytes of the input tensors, whatever the data set is */
} buffer;

static uint8_t *buffer_byte(uint32_t position) {
    if (model.features && !buffer.raw) {
        return (uint8_t *)model.features + position;
    }
    const struct model_tensor *tensor = model.inputs;
    while (position >= tensor->bytes) {
        position -= tensor->bytes;
        tensor++;
    }
    return (uint8_t *)tensor->data + position;
}

static uint32_t buffer_capacity(void) {
    return model.features && !buffer.raw ? model.feature_count * (uint32_t)sizeof(float)
                                         : model.input_bytes;
}

/* An image's pixels become int8 on their way into the tensor and come back on their way out. */
static uint8_t pixel_flip(void) {
    return model.dataset == MODEL_DATASET_IMAGE && !buffer.raw ? 0x80u : 0u;
}

/* Between features and the int8 input tensor of ad01, as MLPerf Tiny's reference does it. */
static void features_load(void) {
    const struct model_tensor *input = model.inputs;
    for (uint32_t i = 0; i < model.feature_count; i++) {
        if (buffer.raw) {
            model.features[i] = model_tensor_value(input, i);
            continue;
        }
        float value = model.features[i] / input->scale;
        value = value < -512.0f ? -512.0f : (value > 512.0f ? 512.0f : value);
        int32_t rounded = (int32_t)(value < 0.0f ? value - 0.5f : value + 0.5f) + input->zero_point;
        ((int8_t *)input->data)[i] =
            (int8_t)(rounded < -128 ? -128 : (rounded > 127 ? 127 : rounded));
    }
}

static float anomaly_score(void) {
    float sum = 0.0f;
    for (uint32_t i = 0; i < model.feature_count; i++) {
        float input = model.features ? model.features[i] : model_tensor_value(model.inputs, i);
        float difference = model_tensor_value(model.outputs, i) - input;
        sum += difference * difference;
    }
    return sum / (float)model.feature_count;
}

static void print_results(void) {
    print_text("m-mcuforge-output-[");
    for (uint32_t k = 0; k < model.output_count; k++) {
        for (uint32_t i = 0; i < model.outputs[k].bytes; i++) {
            print_hex(((const uint8_t *)model.outputs[k].data)[i], 2);
        }
    }
    print_text("]\r\nm-results-[");
    if (model.dataset == MODEL_DATASET_FEATURES) {
        print_float(anomaly_score());
    } else {
        for (uint32_t k = 0; k < model.output_count; k++) {
            uint32_t elements = model_tensor_elements(&model.outputs[k]);
            for (uint32_t i = 0; i < elements; i++) {
                if (k || i) {
                    port_putc(',');
                }
                print_float(model_tensor_value(&model.outputs[k], i));
            }
        }
    }
    print_text("]\r\n");
}

static void print_timestamp(void) {
    print_text("m-lap-us-");
    print_uint(port_time_us());
    print_text("\r\n");
}

static void print_field(const char *name, uint64_t value) {
    print_text(name);
    print_uint(value);
    print_text("]\r\n");
}

static void infer(uint32_t count, uint32_t warmup) {
    struct inference run;

    if (buffer.position < buffer.size) {
        print_text("e-[Input incomplete: ");
        print_uint(buffer.position);
        print_text(" of ");
        print_uint(buffer.size);
        print_text(" bytes]\r\n");
        return;
    }
    if (model.features) {
        features_load();
    }
    print_text("m-warmup-start-");
    print_uint(warmup);
    print_text("\r\n");
    inference_begin(&run);
    while (warmup--) {
        inference_step(&run);
    }
    print_text("m-warmup-done\r\nm-infer-start-");
    print_uint(count);
    print_text("\r\n");
    inference_begin(&run);
    print_timestamp();
    while (count--) {
        inference_step(&run);
    }
    print_timestamp();
    print_text("m-infer-done\r\n");
    if (!run.stack_intact) {
        print_text("e-[Stack overflow]\r\n");
        return;
    }
    if (run.error) {
        print_text("e-[Inference failed: ");
        print_int(run.error);
        print_text("]\r\n");
        return;
    }
    print_text("m-mcuforge-ticks-[");
    print_uint(run.count);
    port_putc(',');
    print_uint(run.ticks_sum);
    port_putc(',');
    print_uint(run.ticks_min);
    port_putc(',');
    print_uint(run.ticks_max);
    print_text("]\r\n");
    print_field("m-mcuforge-stack-[", run.stack_bytes);
#ifdef TVMGEN_PROFILE
    operators_print();
#endif
    print_results();
}

/* The words of a command. */
static char *next_word(char **rest) {
    char *word = *rest;
    while (*word == ' ') {
        word++;
    }
    char *end = word;
    while (*end && *end != ' ') {
        end++;
    }
    *rest = *end ? end + 1 : end;
    *end = '\0';
    return *word ? word : NULL;
}

static int equal(const char *a, const char *b) {
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

/* As atoi(): 0 for what is no number; saturates. */
static int32_t number(const char *word) {
    int32_t sign = 1;
    uint32_t value = 0;
    if (*word == '-') {
        sign = -1;
        word++;
    }
    for (; *word >= '0' && *word <= '9'; word++) {
        value = value > 200000000u ? 2000000000u : value * 10u + (uint32_t)(*word - '0');
    }
    return sign * (int32_t)value;
}

static void db_load(char *rest) {
    const char *word = next_word(&rest);
    if (!word) {
        print_text("e-[Command 'db load' requires the # of bytes]\r\n");
        return;
    }
    int32_t size = number(word);
    word = next_word(&rest);
    buffer.raw = word && equal(word, "raw");
    buffer.position = 0;
    buffer.size = 0;
    if (size <= 0) {
        print_text("e-[Command 'db load' must be >0 bytes]\r\n");
    } else if ((uint32_t)size > buffer_capacity()) {
        print_text("e-[Supplied buffer size ");
        print_int(size);
        print_text(" exceeds maximum of ");
        print_uint(buffer_capacity());
        print_text("]\r\n");
    } else {
        buffer.size = (uint32_t)size;
        print_text("m-[Expecting ");
        print_int(size);
        print_text(" bytes]\r\n");
    }
}

static void db_print(char *rest) {
    const char *word = next_word(&rest);
    uint32_t end = word && number(word) > 0 ? (uint32_t)number(word) : buffer.size;
    word = word ? next_word(&rest) : NULL;
    uint32_t start = word && number(word) > 0 ? (uint32_t)number(word) : 0u;

    end = start >= buffer.size || end > buffer.size - start ? buffer.size : start + end;
    for (uint32_t i = start; i < end; i++) {
        if ((i - start) % 8u == 0u) {
            print_text("m-buffer-");
        }
        print_hex(*buffer_byte(i) ^ pixel_flip(), 2);
        print_text((i - start) % 8u == 7u || i + 1u == end ? "\r\n" : "-");
    }
}

static void help(void) {
    print_text(
        FIRMWARE_VERSION
        "\r\n\r\n"
        "help         : Print this information\r\n"
        "name         : Print the name of the device\r\n"
        "timestamp    : Generate a timestamp\r\n"
        "profile      : Print the firmware's version, the model and the build\r\n"
        "db SUBCMD    : Manipulate a generic byte buffer\r\n"
        "  load N [raw] : Expect N bytes, of the data set or raw bytes of the input tensors\r\n"
        "  HH[HH]*    : Load 8-bit hex byte(s) until N bytes\r\n"
        "  print [N] [offset=0]\r\n"
        "             : Print N bytes at offset as hex\r\n"
        "b64 DATA     : As db HH[HH]*, in base64\r\n"
        "infer N [W=10]: Load input, execute N inferences after W warmup loops\r\n"
        "results      : Return the result fp32 vector\r\n");
}

static void profile(void) {
    print_text("m-profile-[" FIRMWARE_VERSION "]\r\nm-model-[");
    print_text(model.benchmark);
    print_text("]\r\nm-mcuforge-build-[");
    print_text(model.build_id);
    print_text("]\r\n");
    print_field("m-mcuforge-tick-hz-[", port_ticks_hz());
    print_field("m-mcuforge-input-bytes-[", model.input_bytes);
    print_field("m-mcuforge-output-bytes-[", model.output_bytes);
}

static void infer_command(char *rest) {
    int32_t count = 1;
    int32_t warmup = 10;
    const char *word = next_word(&rest);
    if (word) {
        count = number(word);
        word = next_word(&rest);
        warmup = word ? number(word) : warmup;
    }
    if (count <= 0) {
        print_text("e-[Inference iterations must be >0]\r\n");
    } else if (warmup < 0) {
        print_text("e-[Inference warmup must be >=0]\r\n");
    } else {
        infer((uint32_t)count, (uint32_t)warmup);
    }
}

static void execute(char *line) {
    char *rest = line;
    const char *word = next_word(&rest);
    if (!word) {
        return; /* a bare terminator: the host flushes what a broken connection left behind */
    }
    if (equal(word, "name")) {
        print_text("m-name-dut-[");
        print_text(model.vendor);
        print_text("]\r\n");
    } else if (equal(word, "timestamp")) {
        print_timestamp();
    } else if (equal(word, "profile")) {
        profile();
    } else if (equal(word, "help")) {
        help();
    } else if (equal(word, "infer")) {
        infer_command(rest);
    } else if (equal(word, "results")) {
        print_results();
    } else if (equal(word, "db")) {
        word = next_word(&rest);
        if (!word) {
            print_text("e-[Command 'db' requires a subcommand]\r\n");
        } else if (equal(word, "load")) {
            db_load(rest);
        } else if (equal(word, "print")) {
            db_print(rest);
        } else { /* what db_digits() did not take, as it might have been one of the above */
            print_text("e-[Invalid hex digit '");
            port_putc(word[0]);
            if (word[1]) {
                port_putc(word[1]);
            }
            print_text("']\r\n");
        }
    } else {
        print_text("e-[Unknown command: ");
        print_text(word);
        print_text("]\r\n");
    }
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* 1 if the byte had a place. EEMBC: disregard the remainder of the digits when done. */
static int store(uint32_t byte) {
    if (buffer.position >= buffer.size) {
        return 0;
    }
    *buffer_byte(buffer.position++) = (uint8_t)(byte ^ pixel_flip());
    return 1;
}

static void report_load(int overflow, uint32_t start) {
    if (overflow && start == buffer.position) {
        print_text("e-[Buffer is full: use 'db load' first]\r\n");
    } else if (buffer.position == buffer.size) {
        print_text("m-load-done\r\n");
    }
}

/* The data of a command, from its first character on, needs no buffer for the line: it goes where
 * it belongs as it comes, so a command may load any number of bytes. */

/* `db HH[HH]*%`: pairs of hexadecimal digits. */
static void db_digits(char c) {
    uint32_t start = buffer.position;
    uint32_t digits = 0;
    char pair[3] = {0};
    char invalid[3] = {0};
    int overflow = 0;

    for (; c != '%' && c != ' '; c = port_getc()) {
        if (c == '\r' || c == '\n') {
            continue;
        }
        pair[digits++ & 1u] = c;
        if (digits & 1u || invalid[0]) {
            continue;
        }
        int high = hex_digit(pair[0]);
        int low = hex_digit(pair[1]);
        if (high < 0 || low < 0) {
            invalid[0] = pair[0];
            invalid[1] = pair[1];
        } else {
            overflow |= !store((uint32_t)(high << 4 | low));
        }
    }
    while (c != '%') {
        c = port_getc();
    }
    if (digits & 1u) {
        buffer.position = start;
        print_text("e-[Insufficent number of hex digits]\r\n");
    } else if (invalid[0]) {
        print_text("e-[Invalid hex digit '");
        print_text(invalid);
        print_text("']\r\n");
    } else {
        report_load(overflow, start);
    }
}

static int base64_digit(char c) {
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : (c == '/' ? 63 : -1);
}

/* `b64 DATA%`: the same in base64, two thirds of the characters. */
static void b64_digits(char c) {
    uint32_t start = buffer.position;
    uint32_t bits = 0;
    uint32_t count = 0;
    char invalid = 0;
    int overflow = 0;

    for (; c != '%'; c = port_getc()) {
        int digit = base64_digit(c);
        if (digit < 0) {
            invalid = c == '=' || c == '\r' || c == '\n' ? invalid : c;
            continue;
        }
        bits = bits << 6 | (uint32_t)digit;
        count += 6;
        if (count >= 8) {
            count -= 8;
            overflow |= !store(bits >> count & 0xFFu);
        }
    }
    if (invalid) {
        buffer.position = start;
        print_text("e-[Invalid base64 digit '");
        port_putc(invalid);
        print_text("']\r\n");
    } else {
        report_load(overflow, start);
    }
}

/* Whether the line so far is the word `name` and spaces. */
static int begins_data(const char *line, uint32_t length, const char *name) {
    uint32_t i = 0;
    for (; name[i]; i++) {
        if (i >= length || line[i] != name[i]) {
            return 0;
        }
    }
    uint32_t end = i;
    for (; i < length; i++) {
        if (line[i] != ' ') {
            return 0;
        }
    }
    return length > end;
}

/* One command: assembled up to its terminator, or decoded as it comes. */
static void read_and_execute(void) {
    char line[COMMAND_SIZE + 1];
    uint32_t length = 0;
    int too_long = 0;

    for (char c = port_getc(); c != '%'; c = port_getc()) {
        if (c == '\r' || c == '\n') {
            continue;
        }
        if (c != ' ' && c != 'l' && c != 'p' && begins_data(line, length, "db")) {
            db_digits(c);
            return;
        }
        if (c != ' ' && begins_data(line, length, "b64")) {
            b64_digits(c);
            return;
        }
        if (length < COMMAND_SIZE) {
            line[length++] = c;
        } else {
            too_long = 1;
        }
    }
    line[length] = '\0';
    if (too_long) {
        print_text("e-[Command too long]\r\n");
    } else {
        execute(line);
    }
}

/* Says that it is ready, then answers commands for ever. */
void application_run(void) {
    print_text("m-timestamp-mode-performance\r\n");
    print_timestamp();
    print_text("m-init-done\r\nm-ready\r\n");
    for (;;) {
        read_and_execute();
        print_text("m-ready\r\n");
    }
}
