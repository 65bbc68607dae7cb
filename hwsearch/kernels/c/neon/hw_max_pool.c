/* hw_max_pool on NEON: largest code of each window, 16 or 8 channels at a time; positions outside the input do not take part.
 *
 * The last channels may overlap those before and are computed twice; fewer than 8 go one by one.
 */
#include "neon/hw_neon.h"

#ifdef HW_NEON

void hw_max_pool(const hw_op *op);

typedef struct window {
    const uint8_t *codes;
    uint32_t rows, columns, channels, next_row; /* next_row: codes from the end of one row of the window to the next */
} window;

HW_INLINE uint8x16_t largest_of_sixteen(window w, uint32_t c)
{
    const uint8_t *codes = w.codes + c;
    uint8x16_t largest = vdupq_n_u8(0);
    for (uint32_t v = w.rows; v; v--, codes += w.next_row)
        for (uint32_t u = w.columns; u; u--, codes += w.channels)
            largest = vmaxq_u8(largest, vld1q_u8(codes));
    return largest;
}

HW_INLINE uint8x8_t largest_of_eight(window w, uint32_t c)
{
    const uint8_t *codes = w.codes + c;
    uint8x8_t largest = vdup_n_u8(0);
    for (uint32_t v = w.rows; v; v--, codes += w.next_row)
        for (uint32_t u = w.columns; u; u--, codes += w.channels)
            largest = vmax_u8(largest, vld1_u8(codes));
    return largest;
}

HW_INLINE uint8_t largest_of_one(window w, uint32_t c)
{
    const uint8_t *code = w.codes + c;
    uint8_t largest = 0;
    for (uint32_t v = w.rows; v; v--, code += w.next_row)
        for (uint32_t u = w.columns; u; u--, code += w.channels)
            largest = *code > largest ? *code : largest;
    return largest;
}

HW_INLINE void max_pixel(window w, uint8_t *output)
{
    uint32_t c = 0;
    for (; c + 16 <= w.channels; c += 16)
        vst1q_u8(output + c, largest_of_sixteen(w, c));
    if (w.channels < 8)
        for (; c < w.channels; c++)
            output[c] = largest_of_one(w, c);
    for (; c < w.channels; c += 8) {
        const uint32_t from = c + 8 <= w.channels ? c : w.channels - 8;
        vst1_u8(output + from, largest_of_eight(w, from));
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
            const window w = {
                .codes = op->input[0] + (uint32_t)v * row_codes + (uint32_t)u * channels,
                .rows = (uint32_t)rows,
                .columns = (uint32_t)columns,
                .channels = channels,
                .next_row = row_codes - (uint32_t)columns * channels,
            };
            max_pixel(w, output);
        }
}

#endif
