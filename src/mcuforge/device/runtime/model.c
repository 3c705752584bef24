/* SPDX-License-Identifier: Apache-2.0 */
#include "model.h"

float model_tensor_value(const struct model_tensor *tensor, uint32_t i) {
    int32_t value;
    switch (tensor->dtype) {
    case MODEL_FLOAT32:
        return ((const float *)tensor->data)[i];
    case MODEL_INT32:
        value = ((const int32_t *)tensor->data)[i];
        break;
    case MODEL_INT16:
        value = ((const int16_t *)tensor->data)[i];
        break;
    case MODEL_UINT8:
        value = ((const uint8_t *)tensor->data)[i];
        break;
    default:
        value = ((const int8_t *)tensor->data)[i];
        break;
    }
    return (float)(value - tensor->zero_point) * tensor->scale;
}

uint32_t model_tensor_elements(const struct model_tensor *tensor) {
    static const uint8_t bytes[] = {
        [MODEL_INT8] = 1,  [MODEL_UINT8] = 1,   [MODEL_INT16] = 2,
        [MODEL_INT32] = 4, [MODEL_FLOAT32] = 4,
    };
    return tensor->bytes / bytes[tensor->dtype];
}
