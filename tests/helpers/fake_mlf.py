"""A compiled model without a compiler: a few lines of C in a Model Library Format archive."""

from pathlib import Path

import numpy as np

from mcuforge import mlf

# y[j] = clamp(sum_i(w[j][i] * x[i]) >> 4), through a workspace, as generated code would.
SOURCE = """\
#include <string.h>
#include "tvmgen_tiny.h"

TVMGEN_WEIGHTS_ATTR static const int8_t weights[4][16] = {{
{weights}
}};
TVMGEN_WORKSPACE_ATTR static uint8_t workspace[TVMGEN_TINY_WORKSPACE_SIZE];

static int32_t dot(const int8_t *restrict a, const int8_t *restrict b) {{
    int32_t sum = 0;
    for (int i = 0; i < 16; i++) {{
        sum += (int32_t)a[i] * b[i];
    }}
    return sum;
}}

int32_t tvmgen_tiny_run(struct tvmgen_tiny_inputs *inputs, struct tvmgen_tiny_outputs *outputs) {{
    int32_t *sums = (int32_t *)workspace;
    __asm volatile("" : "+r"(sums)); /* the workspace is used, whatever the compiler thinks */
    {body}
    for (int j = 0; j < 4; j++) {{
        sums[j] = dot(weights[j], inputs->input_1) >> 4;
    }}
    for (int j = 0; j < 4; j++) {{
        int32_t sum = sums[j] < -128 ? -128 : (sums[j] > 127 ? 127 : sums[j]);
        outputs->identity[j] = (int8_t)sum;
    }}
    return {result};
}}
"""
HEADER = """\
#ifndef TVMGEN_TINY_H
#define TVMGEN_TINY_H
#include <stdint.h>
#ifndef TVMGEN_WEIGHTS_ATTR
#define TVMGEN_WEIGHTS_ATTR
#endif
#ifndef TVMGEN_WORKSPACE_ATTR
#define TVMGEN_WORKSPACE_ATTR
#endif
#define TVMGEN_TINY_WORKSPACE_SIZE {workspace}
struct tvmgen_tiny_inputs {{
    int8_t *input_1;
}};
struct tvmgen_tiny_outputs {{
    int8_t *identity;
}};
int32_t tvmgen_tiny_run(struct tvmgen_tiny_inputs *inputs, struct tvmgen_tiny_outputs *outputs);
#endif
"""
WEIGHTS = np.random.default_rng(7).integers(-128, 128, (4, 16), dtype=np.int8)


def run(inputs: np.ndarray) -> np.ndarray:
    """What the model answers: int8 [n, 16] -> int8 [n, 4]."""
    sums = (inputs.astype(np.int32) @ WEIGHTS.astype(np.int32).T) >> 4
    return np.clip(sums, -128, 127).astype(np.int8)


def write(
    path: Path, *, body: str = "", result: str = "0", workspace: int = 64, core: str = "cortex-m7"
) -> Path:
    """Write the archive; `body` is C run before the model, `result` what it returns."""
    weights = ",\n".join("{" + ", ".join(str(w) for w in row) + "}" for row in WEIGHTS)
    quantized = {"dtype": "int8", "scale": 0.25, "zero_point": -3}
    return _write(
        path,
        SOURCE.format(weights=weights, body=body, result=result),
        HEADER.format(workspace=workspace),
        (mlf.Port("in", "input_1", (1, 16), bytes=16, **quantized),),
        (mlf.Port("out", "identity", (1, 4), bytes=4, **quantized),),
        workspace=workspace,
        core=core,
    )


MIXED_SOURCE = """\
#include "tvmgen_tiny.h"

int32_t tvmgen_tiny_run(struct tvmgen_tiny_inputs *inputs, struct tvmgen_tiny_outputs *outputs) {
    for (int i = 0; i < 3; i++) {
        outputs->scaled[i] = (float)inputs->bytes[i] * inputs->factors[i % 2];
    }
    outputs->last[0] = (uint8_t)inputs->bytes[2];
    return 0;
}
"""
MIXED_HEADER = """\
#include <stdint.h>
struct tvmgen_tiny_inputs {
    int8_t *bytes;
    float *factors;
};
struct tvmgen_tiny_outputs {
    float *scaled;
    uint8_t *last;
};
int32_t tvmgen_tiny_run(struct tvmgen_tiny_inputs *inputs, struct tvmgen_tiny_outputs *outputs);
"""


def write_mixed(path: Path) -> Path:
    """A model with two inputs and two outputs, integers and floats, of odd sizes."""

    def tensor(name: str, dtype: str, elements: int) -> mlf.Port:
        return mlf.Port(name, name, (elements,), dtype, elements * np.dtype(dtype).itemsize)

    return _write(
        path,
        MIXED_SOURCE,
        MIXED_HEADER,
        (tensor("bytes", "int8", 3), tensor("factors", "float32", 2)),
        (tensor("scaled", "float32", 3), tensor("last", "uint8", 1)),
        workspace=0,
        core="cortex-m7",
    )


def _write(path, source, header, inputs, outputs, workspace, core):
    info = mlf.Info(
        compiler_version="0.1.0+test",
        tvm_version="0.27.0.post1",
        opt_level=3,
        core=core,
        codegen="c",
        executor="aot",
        entry="tvmgen_tiny_run",
        header="tvmgen_tiny.h",
        inputs=inputs,
        outputs=outputs,
        workspace_bytes=workspace,
        workspace_lower_bound_bytes=16,
        weights_bytes=64,
        model_weights_bytes=64,
        macs_nominal=64,
        macs_executed=64,
        operators=(mlf.Operator("tvmgen_tiny_run", "fully_connected", (1, 4), 64, 64, "dense"),),
        model_sha256="0" * 64,
    )
    mlf.write(
        path,
        mlf.metadata("tiny", info, "", {}),
        {
            "codegen/host/src/tvmgen_tiny.c": source.encode(),
            "codegen/host/include/tvmgen_tiny.h": header.encode(),
        },
    )
    return path


def write_vectors(path: Path, count: int = 5) -> Path:
    """Seeded stimuli and the model's answers, as raw bytes."""
    inputs = np.random.default_rng(3).integers(-128, 128, (count, 16), dtype=np.int8)
    np.savez(path, inputs=inputs.view(np.uint8), outputs=run(inputs).view(np.uint8))
    return path
