/* SPDX-License-Identifier: Apache-2.0 */
/* What the harness knows of the model it runs; the definitions are generated (model_glue.c). */
#ifndef MCUFORGE_MODEL_H
#define MCUFORGE_MODEL_H

#include <stdint.h>

enum model_dtype { MODEL_INT8, MODEL_UINT8, MODEL_INT16, MODEL_INT32, MODEL_FLOAT32 };

/* A tensor the caller of the model owns. real = (value - zero_point) * scale. */
struct model_tensor {
    void *data;
    uint32_t bytes;
    enum model_dtype dtype;
    float scale;
    int32_t zero_point;
};

/* How the bytes of an MLPerf Tiny data set become the model's input (see docs/protocol.md). */
enum model_dataset {
    MODEL_DATASET_RAW,     /* the input tensors as they are */
    MODEL_DATASET_IMAGE,   /* uint8 pixels for an int8 model: subtract 128 */
    MODEL_DATASET_FEATURES /* float32 features; the result is the mean squared error (ad01) */
};

struct model {
    const char *benchmark; /* kws01, vww01, ... or the model's own name */
    const char *vendor;
    const char *build_id;
    const struct model_tensor *inputs;
    const struct model_tensor *outputs;
    uint32_t input_count;
    uint32_t output_count;
    uint32_t input_bytes;
    uint32_t output_bytes;
    enum model_dataset dataset;
    float *features; /* MODEL_DATASET_FEATURES: input_count(elements) floats, else NULL */
    uint32_t feature_count;
};

extern const struct model model;

/* The element at index i as the real number it stands for. */
float model_tensor_value(const struct model_tensor *tensor, uint32_t i);
uint32_t model_tensor_elements(const struct model_tensor *tensor);

#endif
