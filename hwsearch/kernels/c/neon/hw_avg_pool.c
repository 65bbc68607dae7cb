/* hw_avg_pool on NEON: sum of each window above the zero point, requantized; the divisor is part of the multiplier.
 *
 * Padding has the code of zero and adds nothing, so positions outside the input are skipped. Eight channels at a time; the
 * last may overlap those before and are computed twice; fewer than 8 go one by one.
 */
#include "neon/hw_neon.h"

#ifdef HW_NEON

void hw_avg_pool(const hw_op *op);

typedef struct window {
    const uint8_t *codes;
    uint32_t rows, columns, channels, next_row; /* next_row: codes from the end of one row of the window to the next */
} window;

/* A row of at most 255 codes does not overflow 16 bits. */
HW_INLINE void sum_eight(window w, uint32_t c, int32x4_t *low, int32x4_t *high)
{
    const uint8_t *codes = w.codes + c;
    uint32x4_t first = vdupq_n_u32(0), second = vdupq_n_u32(0);
    for (uint32_t v = w.rows; v; v--, codes += w.next_row) {
        uint16x8_t row = vdupq_n_u16(0);
        for (uint32_t u = w.columns; u; u--, codes += w.channels)
            row = vaddw_u8(row, vld1_u8(codes));
        first = vaddw_u16(first, vget_low_u16(row)), second = vaddw_high_u16(second, row);
    }
    *low = vreinterpretq_s32_u32(first), *high = vreinterpretq_s32_u32(second);
}

HW_INLINE int32_t sum_one(window w, uint32_t c)
{
    const uint8_t *code = w.codes + c;
    int32_t sum = 0;
    for (uint32_t v = w.rows; v; v--, code += w.next_row)
        for (uint32_t u = w.columns; u; u--, code += w.channels)
            sum += *code;
    return sum;
}

HW_INLINE void average_pixel(const hw_op *op, window w, uint8_t *output)
{
    const int32_t empty = (int32_t)(w.rows * w.columns) * op->input_zero[0];
    if (w.channels < 8) {
        const hw_scale scale = hw_make_scale(op->multiplier[0], op->shift[0]);
        for (uint32_t c = 0; c < w.channels; c++)
            output[c] = hw_code(hw_raised(sum_one(w, c) - empty, scale), scale, op->output_zero, op->output_max);
        return;
    }
    const neon_scale scale = neon_one_scale(op);
    const int32x4_t zero = vdupq_n_s32(op->output_zero), less = vdupq_n_s32(empty);
    for (uint32_t c = 0; c < w.channels; c += 8) {
        const uint32_t from = c + 8 <= w.channels ? c : w.channels - 8;
        int32x4_t low, high;
        sum_eight(w, from, &low, &high);
        low = neon_scaled(vsubq_s32(low, less), scale), high = neon_scaled(vsubq_s32(high, less), scale);
        vst1_u8(output + from, neon_clamped(low, high, zero, vdup_n_u8(op->output_max)));
    }
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
            average_pixel(op, w, output);
        }
}

#endif
