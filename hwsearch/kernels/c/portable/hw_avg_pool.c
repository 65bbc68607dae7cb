/* hw_avg_pool: sum of each window above the zero point, requantized; the divisor is part of the multiplier.
 *
 * Padding has the code of zero and adds nothing, so positions outside the input are skipped.
 */
#include "hw_portable.h"

#ifndef HW_OWN_AVG_POOL

void hw_avg_pool(const hw_op *op);

typedef struct window {
    const uint8_t *codes;
    uint32_t rows, columns, channels, next_row; /* next_row: codes from the end of one row of the window to the next */
} window;

/* Sums of four aligned channels. Two share a word; a row of at most 255 codes does not overflow its halves. */
HW_INLINE void sum_four(const window *w, uint32_t c, int32_t sums[4])
{
    const uint8_t *codes = w->codes + c;
    uint32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (uint32_t v = w->rows; v; v--, codes += w->next_row) {
        uint32_t even = 0, odd = 0;
        for (uint32_t u = w->columns; u; u--, codes += w->channels) {
            const uint32_t word = hw_load(codes);
            even += word & 0xFF00FFu;
            odd += word >> 8 & 0xFF00FFu;
        }
        s0 += even & 0xFFFFu, s1 += odd & 0xFFFFu, s2 += even >> 16, s3 += odd >> 16;
    }
    sums[0] = (int32_t)s0, sums[1] = (int32_t)s1, sums[2] = (int32_t)s2, sums[3] = (int32_t)s3;
}

HW_INLINE int32_t sum_one(const window *w, uint32_t c)
{
    const uint8_t *code = w->codes + c;
    int32_t sum = 0;
    for (uint32_t v = w->rows; v; v--, code += w->next_row)
        for (uint32_t u = w->columns; u; u--, code += w->channels)
            sum += *code;
    return sum;
}

HW_INLINE void average_pixel(const hw_op *op, const window *w, uint8_t *output)
{
    const hw_scale scale = hw_make_scale(op->multiplier[0], op->shift[0]);
    const int32_t empty = (int32_t)(w->rows * w->columns) * op->input_zero[0], zero = op->output_zero, max = op->output_max;
    const uint32_t whole = w->channels % 4 == 0 ? w->channels : 0;
    for (uint32_t c = 0; c < whole; c += 4) {
        int32_t sums[4];
        sum_four(w, c, sums);
        for (uint32_t i = 0; i < 4; i++)
            output[c + i] = hw_code(hw_raised(sums[i] - empty, scale), scale, zero, max);
    }
    for (uint32_t c = whole; c < w->channels; c++)
        output[c] = hw_code(hw_raised(sum_one(w, c) - empty, scale), scale, zero, max);
}

void hw_avg_pool(const hw_op *op)
{
    const uint32_t channels = op->in_c, row_codes = op->in_w * channels;
    uint8_t *output = op->output;
    for (int32_t y = 0; y < op->out_h; y++)
        for (int32_t x = 0; x < op->out_w; x++, output += channels) {
            const int32_t top = y * op->stride_h - op->pad_h, left = x * op->stride_w - op->pad_w;
            const int32_t v = hw_larger(top, 0), rows = hw_smaller(top + op->kernel_h, op->in_h) - v;
            const int32_t u = hw_larger(left, 0), columns = hw_smaller(left + op->kernel_w, op->in_w) - u;
            const window w = {
                .codes = op->input[0] + (uint32_t)v * row_codes + (uint32_t)u * channels,
                .rows = (uint32_t)rows,
                .columns = (uint32_t)columns,
                .channels = channels,
                .next_row = row_codes - (uint32_t)columns * channels,
            };
            average_pixel(op, &w, output);
        }
}

#endif
