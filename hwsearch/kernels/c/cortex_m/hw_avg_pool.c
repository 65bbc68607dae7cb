/* hw_avg_pool for Arm cores with DSP instructions: sum of each window above the zero point, requantized; the divisor is part
 * of the multiplier.
 *
 * Padding has the code of zero and adds nothing, so positions outside the input are skipped. Where channels come in fours, 16
 * or 4 of them are summed as 16-bit numbers, over as many rows of the window as these hold.
 */
#include "hw_cortex_m.h"
#include "generated/hw_pool_loops.h"

#ifdef HW_CORTEX_M

void hw_avg_pool(const hw_op *op);

enum { MOST_CHANNELS = 16, MOST_CODES = 257 }; /* summed at once; 257 * 255 fits 16 bits */

typedef struct window {
    const uint8_t *codes;
    uint32_t rows, columns, channels, next_row; /* next_row: codes from the end of one row of the window to the next */
} window;

/* Sums of channels c .. c + count - 1, which are 16 or 4; at most 257 columns. */
HW_INLINE void sum_channels(const window *w, uint32_t c, uint32_t count, int32_t sums[MOST_CHANNELS])
{
    const uint32_t most_rows = MOST_CODES / w->columns;
    uint32_t halves[MOST_CHANNELS / 2];
    struct sum_call call = {
        .codes = hw_address(w->codes + c), .columns = w->columns, .step = w->channels, .next_row = w->next_row, .sums = hw_address(halves),
    };
    for (uint32_t i = 0; i < count; i++)
        sums[i] = 0;
    for (uint32_t left = w->rows; left; left -= call.rows) {
        call.rows = left < most_rows ? left : most_rows;
        if (count == MOST_CHANNELS)
            hw_sum_16_channels(&call);
        else
            hw_sum_4_channels(&call);
        call.codes += call.rows * (w->columns * w->channels + w->next_row);
        __asm__ volatile("" : : : "memory"); /* halves were written */
        for (uint32_t i = 0; i < count; i += 4) {
            const uint32_t even = halves[i / 2], odd = halves[i / 2 + 1];
            sums[i] += (int32_t)(even & 0xFFFFu), sums[i + 1] += (int32_t)(odd & 0xFFFFu);
            sums[i + 2] += (int32_t)(even >> 16), sums[i + 3] += (int32_t)(odd >> 16);
        }
    }
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
    const int by_words = w->channels % 4 == 0 && w->columns <= MOST_CODES;
    int32_t sums[MOST_CHANNELS];
    for (uint32_t c = 0, count; c < w->channels; c += count) {
        count = !by_words ? 1 : w->channels - c >= MOST_CHANNELS ? MOST_CHANNELS : 4;
        if (by_words)
            sum_channels(w, c, count, sums);
        else
            sums[0] = sum_one(w, c);
        HW_ROLLED
        for (uint32_t i = 0; i < count; i++)
            output[c + i] = hw_code(hw_raised(sums[i] - empty, scale), scale, zero, max);
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
            window w = {
                .codes = op->input[0] + (uint32_t)v * row_codes + (uint32_t)u * channels,
                .rows = (uint32_t)rows,
                .columns = (uint32_t)columns,
                .channels = channels,
                .next_row = row_codes - (uint32_t)columns * channels,
            };
            if (w.next_row == 0 && w.rows * w.columns <= MOST_CODES) /* rows of a whole image follow each other */
                w.columns *= w.rows, w.rows = 1;
            average_pixel(op, &w, output);
        }
}

#endif
