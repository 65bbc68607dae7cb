/* hw_depthwise_conv2d_w?a? for RV32IM: 3x3 with a stride of 1 or 2 along rows; other shapes take the body for any.
 *
 * One channel at a time, whose nine weights stay in registers. Each column of three codes is loaded once and multiplied by three
 * columns of weights into the sums of up to three neighbouring outputs. Groups of four channels are copied with their padding, a
 * word per pixel, for as many rows of output at a time as fit the memory that hw_stretches.h takes for two words and sums. The
 * shift that rounding wants is in weights and bias.
 *
 * Where nine products and the bias, shifted, stay below 2^15, two rows of outputs are computed at once: codes of two rows share a
 * word, and so do the sums,
 *
 *     sum w (q + q' 2^16) = sum w q + 2^16 sum w q',
 *
 * of which the lower half is a signed number, and what is left of the upper one when it was taken away.
 */
#include "portable/hw_portable.h"

#if defined(HW_RISCV) && defined(HW_W)

#include "hw_riscv.h"
#include "portable/hw_stretches.h"

/* Some rows of outputs of one channel. */
typedef struct strip {
    const uint8_t *codes;         /* the channel's byte in each word */
    uint32_t row_bytes, down;     /* from one row of codes to the next, and from one output row's to the next one's */
    uint8_t *output;
    uint32_t stride;              /* from one output to the next */
    uint32_t rows, pixels;
    int32_t w[9], bias, max;      /* shifted left as rounding wants it */
    hw_channel channel;
} strip;

/* The codes of one group of four channels, from input row `top` on, with the zero point where there is no input. */
HW_APART void copy_words(const hw_op *op, const stretch *s, int32_t top, uint32_t c)
{
    const uint32_t channels = op->in_c, count = channels - c < 4 ? channels - c : 4, zeros = op->input_zero[0] * 0x01010101u;
    const int32_t columns = (int32_t)s->in_columns, left = hw_smaller(op->pad_w, columns);
    const int32_t inside = hw_smaller(op->in_w, columns - left);
    uint32_t *word = s->codes;
    for (int32_t v = top; v < top + (int32_t)s->in_rows; v++) {
        const int32_t found = v < 0 || v >= op->in_h ? 0 : inside;
        uint32_t *const end = word + columns, *const begin = found ? word + left : end, *const stop = begin + found;
        while (word < begin)
            *word++ = zeros;
        const uint8_t *code = op->input[0] + (uint32_t)v * op->in_w * channels + c;
        if (channels % 4 == 0) {
            HW_UNROLLED_4
            for (uint32_t left_over = (uint32_t)found; left_over; left_over--, code += channels)
                *word++ = hw_load(code);
        } else
            for (; word < stop; code += channels, word++)
                for (uint32_t i = 0; i < count; i++)
                    ((uint8_t *)word)[i] = code[i];
        while (word < end)
            *word++ = zeros;
    }
}

/* All weights, nine of each channel, centred. */
HW_APART void expand_taps(const hw_op *op, uint32_t bits, int16_t *taps)
{
    const uint32_t row_bytes = hw_row_bytes(9, op->stored_bits);
    const uint8_t *weights = op->weights;
    for (uint32_t c = op->in_c; c; c--, weights += row_bytes)
        for (uint32_t k = 0; k < 9; k++)
            *taps++ = (int16_t)hw_weight(weights, k, op->stored_bits, bits);
}

/* Add the products of a column of codes and one of weights. */
#define ADD_COLUMN(SUM, W0, W1, W2) \
    hw_multiply_add_32((uint32_t *)&(SUM), q0, W0, 0), hw_multiply_add_32((uint32_t *)&(SUM), q1, W1, 0), \
        hw_multiply_add_32((uint32_t *)&(SUM), q2, W2, 0)
#define NEXT_COLUMN() (q0 = *top, q1 = *middle, q2 = *bottom, top += 4, middle += 4, bottom += 4)
#define WRITE(SUM) (*output = hw_channel_code(&s->channel, SUM, max), output += stride)
#define STRIP_VARIABLES \
    const int32_t *const w = s->w, bias = s->bias, max = s->max; \
    const uint32_t w0 = (uint32_t)w[0], w1 = (uint32_t)w[1], w2 = (uint32_t)w[2], w3 = (uint32_t)w[3], w4 = (uint32_t)w[4]; \
    const uint32_t w5 = (uint32_t)w[5], w6 = (uint32_t)w[6], w7 = (uint32_t)w[7], w8 = (uint32_t)w[8], stride = s->stride; \
    const uint8_t *row = s->codes; \
    uint8_t *output = s->output

/* Three sums in turn: a column is the last of the first, the second of the next and the first of the third. */
#define STEP(LAST, SECOND, FIRST) \
    NEXT_COLUMN(); \
    FIRST = bias; \
    ADD_COLUMN(LAST, w2, w5, w8); \
    ADD_COLUMN(SECOND, w1, w4, w7); \
    ADD_COLUMN(FIRST, w0, w3, w6); \
    WRITE(LAST)

HW_APART void strip_of_stride_1(const strip *s)
{
    STRIP_VARIABLES;
    for (uint32_t rows = s->rows; rows; rows--, row += s->down) {
        const uint8_t *top = row, *middle = top + s->row_bytes, *bottom = middle + s->row_bytes;
        uint32_t left = s->pixels, q0, q1, q2;
        int32_t a = bias, b = bias, c;
        NEXT_COLUMN();
        ADD_COLUMN(a, w0, w3, w6);
        NEXT_COLUMN();
        ADD_COLUMN(a, w1, w4, w7);
        ADD_COLUMN(b, w0, w3, w6);
        for (;;) {
            STEP(a, b, c);
            if (--left == 0)
                break;
            STEP(b, c, a);
            if (--left == 0)
                break;
            STEP(c, a, b);
            if (--left == 0)
                break;
        }
    }
}

/* Codes of a column for two rows of outputs, and their two sums. */
#define NEXT_PAIRS(STEP) \
    do { \
        const uint32_t v0 = rows[0][at], v1 = rows[1][at], v2 = rows[2][at], v3 = rows[3][at]; \
        const uint32_t v4 = (STEP) == 2 ? rows[4][at] : 0; \
        q0 = v0 | ((STEP) == 2 ? v2 : v1) << 16; \
        q1 = v1 | ((STEP) == 2 ? v3 : v2) << 16; \
        q2 = v2 | ((STEP) == 2 ? v4 : v3) << 16; \
        at += 4; \
    } while (0)
#define WRITE_PAIR(SUM) \
    do { \
        const int32_t lower = (int16_t)(SUM), upper = ((SUM) - lower) >> 16; \
        const uint8_t first = hw_channel_code(&s->channel, lower, max); \
        const uint8_t second = hw_channel_code(&s->channel, upper, max); \
        output[0] = first, output[below] = second, output += stride; \
    } while (0)

#define PAIR_STEP(LAST, SECOND, FIRST) \
    NEXT_PAIRS(1); \
    FIRST = both; \
    ADD_COLUMN(LAST, w2, w5, w8); \
    ADD_COLUMN(SECOND, w1, w4, w7); \
    ADD_COLUMN(FIRST, w0, w3, w6); \
    WRITE_PAIR(LAST)

HW_APART void strip_of_stride_2(const strip *s)
{
    STRIP_VARIABLES;
    for (uint32_t rows = s->rows; rows; rows--, row += s->down) {
        const uint8_t *top = row, *middle = top + s->row_bytes, *bottom = middle + s->row_bytes;
        uint32_t q0, q1, q2;
        int32_t a = bias;
        NEXT_COLUMN();
        ADD_COLUMN(a, w0, w3, w6);
        for (uint32_t left = s->pixels; left; left--) {
            NEXT_COLUMN();
            ADD_COLUMN(a, w1, w4, w7);
            NEXT_COLUMN();
            ADD_COLUMN(a, w2, w5, w8);
            WRITE(a);
            a = bias;
            ADD_COLUMN(a, w0, w3, w6);
        }
    }
}

/* Rows in pairs. */
HW_INLINE void pairs_of_stride(const strip *s, uint32_t step)
{
    STRIP_VARIABLES;
    const uint32_t below = stride * s->pixels, row_bytes = s->row_bytes;
    const int32_t both = (int32_t)((uint32_t)bias * 0x10001u);
    for (uint32_t pairs = s->rows / 2; pairs; pairs--, row += 2 * s->down, output += below) {
        const uint8_t *const rows[5] = {row, row + row_bytes, row + 2 * row_bytes, row + 3 * row_bytes, row + 4 * row_bytes};
        uint32_t at = 0, q0, q1, q2;
        int32_t a = both, b = both, c;
        NEXT_PAIRS(step);
        ADD_COLUMN(a, w0, w3, w6);
        if (step == 1) {
            NEXT_PAIRS(step);
            ADD_COLUMN(a, w1, w4, w7);
            ADD_COLUMN(b, w0, w3, w6);
        }
        for (uint32_t left = s->pixels;;) {
            if (step == 1) {
                PAIR_STEP(a, b, c);
                if (--left == 0)
                    break;
                PAIR_STEP(b, c, a);
                if (--left == 0)
                    break;
                PAIR_STEP(c, a, b);
            } else {
                NEXT_PAIRS(2);
                ADD_COLUMN(a, w1, w4, w7);
                NEXT_PAIRS(2);
                ADD_COLUMN(a, w2, w5, w8);
                WRITE_PAIR(a);
                a = both;
                ADD_COLUMN(a, w0, w3, w6);
            }
            if (--left == 0)
                break;
        }
    }
}

HW_APART void pairs_of_stride_1(const strip *s) { pairs_of_stride(s, 1); }
HW_APART void pairs_of_stride_2(const strip *s) { pairs_of_stride(s, 2); }

/* Logits, and accumulators that may exceed their limit. */
HW_APART void strip_slowly(const hw_op *op, const strip *s, const int16_t *taps, uint32_t channel)
{
    uint32_t index = (uint32_t)(s->output - (uint8_t *)op->output);
    const uint8_t *row = s->codes;
    for (uint32_t rows = s->rows; rows; rows--, row += s->down) {
        const uint8_t *code = row;
        for (uint32_t left = s->pixels; left; left--, code += 4 * op->stride_w, index += s->stride) {
            int32_t sum = op->bias[channel];
            for (uint32_t k = 0; k < 9; k++)
                sum += taps[k] * code[k / 3 * s->row_bytes + k % 3 * 4];
            hw_finish(op, index, channel, sum);
        }
    }
}

/* One channel's outputs from row `y` on. */
HW_INLINE void convolve_channel(const hw_op *op, const stretch *t, uint32_t bits, uint32_t largest, uint32_t rows, uint32_t y,
                                uint32_t c)
{
    const int16_t *taps = (const int16_t *)(const void *)t->weights + 9 * c;
    strip s; /* filled one by one: an initializer would clear it first */
    s.codes = (const uint8_t *)t->codes + c % 4, s.row_bytes = 4 * t->in_columns, s.down = s.row_bytes * op->stride_h;
    s.output = (uint8_t *)op->output + y * op->out_w * op->out_c + c, s.stride = op->out_c;
    s.rows = rows, s.pixels = op->out_w, s.max = op->output_max;
    s.channel = hw_make_channel(op, hw_reach(9, bits), c);
    if (op->multiplier == 0 || s.channel.saturates) {
        strip_slowly(op, &s, taps, c);
        return;
    }
    s.bias = hw_raise(s.channel.bias, &s.channel);
    for (uint32_t k = 0; k < 9; k++)
        s.w[k] = hw_raise(taps[k], &s.channel);
    const uint32_t sum = largest + hw_magnitude(s.channel.bias);
    if (sum < 32768u >> s.channel.left && op->stride_h == op->stride_w) {
        if (op->stride_w == 1)
            pairs_of_stride_1(&s);
        else
            pairs_of_stride_2(&s);
        s.codes += (rows & ~1u) * s.down, s.output += (rows & ~1u) * s.pixels * s.stride, s.rows = rows & 1u;
    }
    if (op->stride_w == 1)
        strip_of_stride_1(&s);
    else
        strip_of_stride_2(&s);
}

HW_INLINE void depthwise_conv2d(const hw_op *op, uint32_t bits, uint32_t largest)
{
    if (op->kernel_h != 3 || op->kernel_w != 3 || op->stride_w > 2) {
        depthwise_by_stretches(op, bits);
        return;
    }
    stretch s = make_stretch(op);
    s.in_rows = (2 * s.in_rows * s.in_columns + 4 * (uint32_t)s.rows * op->out_w) / s.in_columns;
    s.rows = hw_smaller(op->out_h, (int32_t)(s.in_rows - 3) / op->stride_h + 1);
    s.in_rows = (uint32_t)(s.rows - 1) * op->stride_h + 3;
    expand_taps(op, bits, (int16_t *)(void *)s.weights);
    for (int32_t y = 0; y < op->out_h; y += s.rows)
        for (uint32_t c = 0; c < op->in_c; c++) {
            if (c % 4 == 0)
                copy_words(op, &s, y * op->stride_h - op->pad_h, c);
            convolve_channel(op, &s, bits, largest, (uint32_t)hw_smaller(s.rows, op->out_h - y), (uint32_t)y, c);
        }
}

void HW_OF_WIDTHS(hw_depthwise_conv2d)(const hw_op *op);
void HW_OF_WIDTHS(hw_depthwise_conv2d)(const hw_op *op) { depthwise_conv2d(op, HW_W, 9u * HW_LARGEST(HW_W, HW_A)); }

#endif
