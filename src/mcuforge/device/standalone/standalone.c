/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the model on the samples it comes with and prints results and timing. */
#include <stdint.h>
#include <string.h>

#include "application.h"
#include "inference.h"
#include "model.h"
#include "port.h"
#include "print.h"
#include "samples.h"

static void load(const uint8_t *bytes) {
    for (uint32_t k = 0; k < model.input_count; k++) {
        memcpy(model.inputs[k].data, bytes, model.inputs[k].bytes);
        bytes += model.inputs[k].bytes;
    }
}

static int as_expected(const uint8_t *bytes) {
    for (uint32_t k = 0; k < model.output_count; k++) {
        if (memcmp(model.outputs[k].data, bytes, model.outputs[k].bytes) != 0) {
            return 0;
        }
        bytes += model.outputs[k].bytes;
    }
    return 1;
}

static void print_outputs(void) {
    for (uint32_t k = 0; k < model.output_count; k++) {
        uint32_t elements = model_tensor_elements(&model.outputs[k]);
        for (uint32_t i = 0; i < elements; i++) {
            port_putc(' ');
            print_float(model_tensor_value(&model.outputs[k], i));
        }
    }
    print_text("\r\n");
}

static void run_sample(uint32_t index) {
    struct inference run;

    load(sample_inputs[index]);
    inference_begin(&run);
    inference_step(&run);
    print_text("sample ");
    print_uint(index);
    print_text(": ");
    print_uint(run.ticks_sum * 1000000u / port_ticks_hz());
    print_text(" us (");
    print_uint(run.ticks_sum);
    print_text(" ticks of ");
    print_uint(port_ticks_hz());
    print_text(" Hz), ");
    print_uint(run.stack_bytes);
    print_text(" bytes of stack, ");
    if (run.error || !run.stack_intact) {
        print_text(run.error ? "failed\r\n" : "stack overflow\r\n");
        return;
    }
    print_text(!sample_outputs[index]               ? "outputs"
               : as_expected(sample_outputs[index]) ? "exact, outputs"
                                                    : "DIFFERENT, outputs");
    print_outputs();
}

void application_run(void) {
    for (;;) {
        print_text("\r\nmodel ");
        print_text(model.benchmark);
        print_text(", build ");
        print_text(model.build_id);
        print_text("\r\n");
        for (uint32_t i = 0; i < sample_count; i++) {
            run_sample(i);
        }
        print_text("done; send a character to run again\r\n");
        port_getc();
    }
}
