/* hw_max_pool: largest code of each window; positions outside the input do not take part. */
#include "hw_portable.h"

void hw_max_pool(const hw_op *op);

static void max_pixel(const hw_op *op, int32_t top, int32_t left, uint8_t *output)
{
    const int32_t v0 = hw_larger(top, 0), v1 = hw_smaller(top + op->kernel_h, op->in_h);
    const int32_t u0 = hw_larger(left, 0), u1 = hw_smaller(left + op->kernel_w, op->in_w);
    const uint32_t channels = op->in_c;
    for (uint32_t c = 0; c < channels; c++)
        output[c] = 0;
    for (int32_t v = v0; v < v1; v++) {
        const uint8_t *pixel = op->input[0] + ((uint32_t)v * op->in_w + (uint32_t)u0) * channels;
        for (int32_t u = u0; u < u1; u++, pixel += channels)
            for (uint32_t c = 0; c < channels; c++)
                if (pixel[c] > output[c])
                    output[c] = pixel[c];
    }
}

void hw_max_pool(const hw_op *op)
{
    uint8_t *output = op->output;
    for (int32_t y = 0; y < op->out_h; y++)
        for (int32_t x = 0; x < op->out_w; x++, output += op->out_c)
            max_pixel(op, y * op->stride_h - op->pad_h, x * op->stride_w - op->pad_w, output);
}
