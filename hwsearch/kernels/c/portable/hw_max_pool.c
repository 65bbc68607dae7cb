/* hw_max_pool: largest code of each window; positions outside the input do not take part. */
#include "hw_portable.h"

#ifndef HW_OWN_MAX_POOL

void hw_max_pool(const hw_op *op);

/* One output pixel from a window of `rows` x `columns` codes inside the input. */
HW_INLINE void max_pixel(const uint8_t *window, uint32_t rows, uint32_t columns, uint32_t row_codes, uint32_t channels,
                         uint8_t *output)
{
    const uint32_t whole = channels % 4 == 0 ? channels : 0, next_row = row_codes - columns * channels;
    for (uint32_t c = 0; c < whole; c += 4) {
        const uint8_t *codes = window + c;
        uint32_t largest = 0;
        for (uint32_t v = rows; v; v--, codes += next_row)
            for (uint32_t u = columns; u; u--, codes += channels)
                largest = hw_larger_bytes(largest, hw_load(codes));
        hw_store(output + c, largest);
    }
    for (uint32_t c = whole; c < channels; c++) {
        const uint8_t *code = window + c;
        uint8_t largest = 0;
        for (uint32_t v = rows; v; v--, code += next_row)
            for (uint32_t u = columns; u; u--, code += channels)
                largest = *code > largest ? *code : largest;
        output[c] = largest;
    }
}

void hw_max_pool(const hw_op *op)
{
    const uint32_t channels = op->in_c, row_codes = op->in_w * channels;
    uint8_t *output = op->output;
    for (int32_t y = 0; y < op->out_h; y++)
        for (int32_t x = 0; x < op->out_w; x++, output += channels) {
            const int32_t top = y * op->stride_h - op->pad_h, left = x * op->stride_w - op->pad_w;
            const int32_t v = hw_larger(top, 0), rows = hw_smaller(top + op->kernel_h, op->in_h) - v;
            const int32_t u = hw_larger(left, 0), columns = hw_smaller(left + op->kernel_w, op->in_w) - u;
            const uint8_t *window = op->input[0] + (uint32_t)v * row_codes + (uint32_t)u * channels;
            max_pixel(window, (uint32_t)rows, (uint32_t)columns, row_codes, channels, output);
        }
}

#endif
