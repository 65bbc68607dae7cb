/* Depthwise convolutions of any shape.
 *
 * Every product has its own pair of factors, so low bits save nothing but weight memory: all widths share one body. Work
 * goes by groups of four channels; in words, the codes or weights of channels c and c + 2 share one, as 16-bit numbers.
 * Weights are expanded once. Then, for a few rows at a time and each group: the input is copied with its padding, products
 * are summed pixel by pixel, and the sums become codes channel by channel.
 */
#ifndef HW_STRETCHES_H
#define HW_STRETCHES_H

#include "hw_portable.h"

enum { STRETCH = 64 }; /* output pixels at a time, where rows are shorter */

typedef struct stretch {
    int32_t rows;                 /* output rows at a time */
    uint32_t in_rows, in_columns; /* input positions under them, padding included */
    uint32_t *weights;            /* [groups][kernel_h][kernel_w][2] */
    uint32_t *codes;              /* [in_rows][in_columns][2] */
    int32_t *sums;                /* [rows][out_w][4] */
} stretch;

HW_INLINE stretch make_stretch(const hw_op *op)
{
    stretch s = {.weights = (uint32_t *)(void *)op->scratch};
    s.rows = hw_smaller(hw_larger(STRETCH / op->out_w, 1), op->out_h);
    s.in_rows = (uint32_t)(s.rows - 1) * op->stride_h + op->kernel_h;
    s.in_columns = (uint32_t)(op->out_w - 1) * op->stride_w + op->kernel_w;
    s.codes = s.weights + (op->in_c + 3u) / 4u * 2u * op->kernel_h * op->kernel_w;
    s.sums = (int32_t *)(s.codes + 2 * s.in_rows * s.in_columns);
    return s;
}

/* The last group's missing channels get the weight 0. */
HW_INLINE void expand(const hw_op *op, uint32_t bits, uint32_t *words)
{
    const uint32_t count = (uint32_t)op->kernel_h * op->kernel_w, row_bytes = hw_row_bytes(count, op->stored_bits);
    const uint32_t channels = (op->in_c + 3u) & ~3u;
    for (uint32_t c = 0; c < channels; c++) {
        const uint8_t *row = op->weights + c * row_bytes;
        uint32_t *word = words + c / 4 * 2 * count + c % 2;
        HW_ROLLED
        for (uint32_t k = 0; k < count; k++, word += 2) {
            const uint32_t weight = c < op->in_c ? (uint32_t)hw_weight(row, k, op->stored_bits, bits) & 0xFFFFu : 0;
            *word = c % 4 < 2 ? weight : *word | weight << 16;
        }
    }
}

/* Four codes in two words; `count` of them exist. Where channels are a multiple of 4 they are aligned and all exist. */
HW_INLINE uint32_t *copy_codes(uint32_t *words, const uint8_t *codes, uint32_t stride, int32_t columns, uint32_t count)
{
    if (stride % 4 == 0) {
        for (; columns > 0; columns--, codes += stride, words += 2) {
            const uint32_t word = hw_load(codes);
            words[0] = word & 0xFF00FFu;
            words[1] = word >> 8 & 0xFF00FFu;
        }
        return words;
    }
    for (; columns > 0; columns--, codes += stride, words += 2) {
        words[0] = codes[0] | (count > 2 ? (uint32_t)codes[2] << 16 : 0);
        words[1] = (count > 1 ? codes[1] : 0) | (count > 3 ? (uint32_t)codes[3] << 16 : 0);
    }
    return words;
}

HW_INLINE uint32_t *copy_zeros(uint32_t *words, uint32_t zeros, int32_t columns)
{
    for (; columns > 0; columns--, words += 2)
        words[0] = words[1] = zeros;
    return words;
}

/* Copy one group's codes, from input row `top` on, with the zero point where there is no input. */
HW_APART void copy_group(const hw_op *op, const stretch *s, int32_t top, uint32_t c)
{
    const uint32_t channels = op->in_c, count = channels - c < 4 ? channels - c : 4, zeros = op->input_zero[0] * 0x10001u;
    const int32_t columns = (int32_t)s->in_columns, left = hw_smaller(op->pad_w, columns);
    const int32_t inside = hw_smaller(op->in_w, columns - left), right = columns - left - inside;
    uint32_t *words = s->codes;
    for (int32_t v = top; v < top + (int32_t)s->in_rows; v++) {
        if (v < 0 || v >= op->in_h) {
            words = copy_zeros(words, zeros, columns);
            continue;
        }
        words = copy_zeros(words, zeros, left);
        words = copy_codes(words, op->input[0] + (uint32_t)v * op->in_w * channels + c, channels, inside, count);
        words = copy_zeros(words, zeros, right);
    }
}

/* Add the products of one tap to the sums of channels 0, 1, 2, 3 of a group. */
HW_INLINE void multiply_tap(int32_t sums[4], const uint32_t *codes, const uint32_t *weights)
{
    const uint32_t even = codes[0], odd = codes[1], w0 = weights[0], w1 = weights[1];
    sums[0] += (int16_t)even * (int16_t)w0;
    sums[1] += (int16_t)odd * (int16_t)w1;
    sums[2] += (int16_t)(even >> 16) * (int16_t)(w0 >> 16);
    sums[3] += (int16_t)(odd >> 16) * (int16_t)(w1 >> 16);
}

/* Sums of one group at `pixels` neighbours of a row. */
HW_APART void sum_pixels(const hw_op *op, const uint32_t *codes, uint32_t row_words, const uint32_t *weights, int32_t *sums,
                         uint32_t pixels)
{
    const uint32_t rows = op->kernel_h, columns = op->kernel_w, step = 2u * op->stride_w;
    HW_ROLLED
    for (; pixels; pixels--, codes += step, sums += 4) {
        const uint32_t *row = codes, *weight = weights;
        int32_t s[4] = {0, 0, 0, 0};
        HW_ROLLED
        for (uint32_t v = rows; v; v--, row += row_words) {
            if (columns == 3) {
                multiply_tap(s, row, weight);
                multiply_tap(s, row + 2, weight + 2);
                multiply_tap(s, row + 4, weight + 4);
                weight += 6;
                continue;
            }
            HW_ROLLED
            for (uint32_t u = 0; u < columns; u++, weight += 2)
                multiply_tap(s, row + 2 * u, weight);
        }
        sums[0] = s[0], sums[1] = s[1], sums[2] = s[2], sums[3] = s[3];
    }
}

/* Write one channel of `pixels` pixels, from every fourth sum. */
HW_APART void finish_channel(const hw_op *op, uint32_t bits, uint32_t index, uint32_t c, const int32_t *sums, uint32_t pixels)
{
    const uint32_t stride = op->out_c;
    const int32_t bias = op->bias[c], zero = op->output_zero, max = op->output_max;
    if (op->multiplier == 0) {
        for (; pixels; pixels--, sums += 4, index += stride)
            hw_finish(op, index + c, c, bias + *sums);
        return;
    }
    const hw_scale scale = hw_make_scale(op->multiplier[c], op->shift[c]);
    const uint32_t reach = hw_reach((uint32_t)op->kernel_h * op->kernel_w, bits) + hw_magnitude(bias);
    uint8_t *output = (uint8_t *)op->output + index + c;
    if (reach > (uint32_t)scale.limit)
        for (; pixels; pixels--, sums += 4, output += stride)
            *output = hw_code(hw_raised(bias + *sums, scale), scale, zero, max);
    else
        for (; pixels; pixels--, sums += 4, output += stride)
            *output = hw_code(hw_shifted(bias + *sums, scale), scale, zero, max);
}

HW_INLINE void depthwise_by_stretches(const hw_op *op, uint32_t bits)
{
    const uint32_t channels = op->in_c, out_w = op->out_w;
    const stretch s = make_stretch(op);
    expand(op, bits, s.weights);
    for (int32_t y = 0; y < op->out_h; y += s.rows) {
        const uint32_t rows = (uint32_t)hw_smaller(s.rows, op->out_h - y), index = (uint32_t)y * out_w * channels;
        const uint32_t *weights = s.weights;
        for (uint32_t c = 0; c < channels; c += 4, weights += 2 * op->kernel_h * op->kernel_w) {
            copy_group(op, &s, y * op->stride_h - op->pad_h, c);
            for (uint32_t r = 0; r < rows; r++) {
                const uint32_t *codes = s.codes + 2 * r * op->stride_h * s.in_columns;
                sum_pixels(op, codes, 2 * s.in_columns, weights, s.sums + 4 * r * out_w, out_w);
            }
            for (uint32_t i = 0; i < 4 && c + i < channels; i++)
                finish_channel(op, bits, index, c + i, s.sums + i, rows * out_w);
        }
    }
}

#endif
