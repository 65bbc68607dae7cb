/* hw_max_pool for Arm cores with DSP instructions: largest code of each window; positions outside the input do not take part. */
#include "hw_cortex_m.h"
#include "generated/hw_pool_loops.h"

#ifdef HW_CORTEX_M

void hw_max_pool(const hw_op *op);

/* One output pixel from a window of `rows` x `columns` codes inside the input. */
HW_INLINE void max_pixel(const uint8_t *window, uint32_t rows, uint32_t columns, uint32_t row_codes, uint32_t channels, uint8_t *output)
{
    const uint32_t whole = channels % 4 == 0 ? channels : 0, next_row = row_codes - columns * channels;
    for (uint32_t c = 0; c < whole; c += 4) {
        const uint8_t *codes = window + c;
        uint32_t largest = 0;
        HW_ROLLED
        for (uint32_t v = rows; v; v--, codes += next_row)
            HW_ROLLED
            for (uint32_t u = columns; u; u--, codes += channels)
                largest = hw_larger_of_bytes(largest, hw_load(codes));
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

HW_INLINE void max_two_by_two(const hw_op *op)
{
    const uint32_t channels = op->in_c, row_codes = op->in_w * channels;
    struct max_call call = {
        .top = hw_address(op->input[0]), .output = hw_address(op->output), .words = channels / 4, .channels = channels,
        .skip = (op->stride_w - 1u) * channels, .pixels = op->out_w,
    };
    for (uint32_t y = op->out_h; y; y--, call.top += op->stride_h * row_codes, call.output += op->out_w * channels) {
        call.bottom = call.top + row_codes;
        hw_max_two_by_two(&call);
    }
}

void hw_max_pool(const hw_op *op)
{
    const uint32_t channels = op->in_c, row_codes = op->in_w * channels;
    uint8_t *output = op->output;
    if (op->kernel_h == 2 && op->kernel_w == 2 && op->pad_h + op->pad_w == 0 && channels % 4 == 0) {
        max_two_by_two(op);
        return;
    }
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
