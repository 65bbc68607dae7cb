/* Depthwise 3x3 convolutions with stride 1 or 2 for Arm cores with DSP instructions; other shapes keep the portable body.
 *
 * SMLAD needs two neighbouring pixels of one channel in a word. Four channels at a time and 10 input rows at a time are
 * packed so, every pixel once. A step takes one pair of each of three rows and the next one, and sums two output pixels.
 */
#ifndef HW_DEPTHWISE_H
#define HW_DEPTHWISE_H

#include "hw_cortex_m.h"
#include "hw_depthwise_loops.h"

#ifdef HW_CORTEX_M

enum { DEPTHWISE_COLUMNS = 256, PAIR_WORDS = 4 * DEPTHWISE_ROWS };

HW_INLINE uint32_t hw_join_even(uint32_t a, uint32_t b)
{
    uint32_t halves;
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(halves) : "r"(a), "r"(b));
    return halves;
}

HW_INLINE uint32_t hw_join_odd(uint32_t a, uint32_t b)
{
    uint32_t halves;
    __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(halves) : "r"(b), "r"(a));
    return halves;
}

/* Four channels of two pixels, channel by channel. */
HW_INLINE void pack_depthwise_pair(uint32_t *words, uint32_t first, uint32_t second)
{
    const uint32_t even0 = hw_even_bytes(first), even1 = hw_even_bytes(second), odd0 = hw_odd_bytes(first), odd1 = hw_odd_bytes(second);
    words[0] = hw_join_even(even0, even1), words[1] = hw_join_even(odd0, odd1);
    words[2] = hw_join_odd(even0, even1), words[3] = hw_join_odd(odd0, odd1);
}

/* `rows` input rows of channels c .. c + 3, from input row `top` on. */
HW_APART void pack_depthwise(const hw_op *op, uint32_t *words, int32_t top, int32_t rows, int32_t pairs, uint32_t c)
{
    const int32_t in_w = op->in_w, in_h = op->in_h, left = -(int32_t)op->pad_w, right = left + 2 * pairs;
    const uint32_t channels = op->in_c, zero = op->input_zero[0] * 0x01010101u;
    for (int32_t v = top; v < top + rows; v++, words += 4) {
        const uint8_t *codes = op->input[0] + (uint32_t)(v * in_w) * channels + c;
        uint32_t *to = words;
        int32_t u = left;
        if (v < 0 || v >= in_h) {
            for (; u < right; u += 2, to += PAIR_WORDS)
                pack_depthwise_pair(to, zero, zero);
            continue;
        }
        for (; u < 0 && u < right; u += 2, to += PAIR_WORDS)
            pack_depthwise_pair(to, zero, u + 1 >= 0 && u + 1 < in_w ? hw_load(codes + (uint32_t)(u + 1) * channels) : zero);
        const uint8_t *code = codes + (uint32_t)u * channels;
        for (const int32_t last = hw_smaller(right, in_w - 1); u < last; u += 2, to += PAIR_WORDS, code += 2 * channels)
            pack_depthwise_pair(to, hw_load(code), hw_load(code + channels));
        for (; u < right; u += 2, to += PAIR_WORDS)
            pack_depthwise_pair(to, u < in_w ? hw_load(codes + (uint32_t)u * channels) : zero, zero);
    }
}

/* w0 w1 and w1 w2 of each kernel row of a channel, centred. */
HW_INLINE void expand_depthwise(const hw_op *op, uint32_t c, uint32_t stored, uint32_t bits, uint32_t weights[6])
{
    const uint32_t row_bytes = hw_row_bytes(9, stored);
    const uint8_t *row = op->weights + c * row_bytes;
    const uint32_t centre = (1u << bits) - 1u;
    uint32_t codes[12];
    for (uint32_t quad = 0; quad < 3; quad++) {
        const uint32_t four = hw_four_codes(row, row_bytes, quad, stored, bits);
        for (uint32_t i = 0; i < 4; i++)
            codes[4 * quad + i] = 2 * (four >> 8 * i & 255u) - centre;
    }
    for (uint32_t v = 0; v < 3; v++) {
        weights[2 * v] = hw_join_even(codes[3 * v], codes[3 * v + 1]);
        weights[2 * v + 1] = hw_join_even(codes[3 * v + 1], codes[3 * v + 2]);
    }
}

HW_APART void depthwise_channel(const hw_op *op, const uint32_t *words, int32_t *sums, int32_t y0, uint32_t rows, uint32_t c, uint32_t bits)
{
    const uint32_t stride = op->stride_w, steps = stride == 1 ? (op->out_w + 1u) / 2 : op->out_w, skipped = (0u - steps) % DEPTHWISE_UNROLL;
    uint32_t weights[6];
    if (op->stored_bits == 8)
        expand_depthwise(op, c, 8, bits, weights);
    else if (op->stored_bits == 4)
        expand_depthwise(op, c, 4, bits, weights);
    else if (op->stored_bits == 3)
        expand_depthwise(op, c, 3, bits, weights);
    else if (op->stored_bits == 2)
        expand_depthwise(op, c, 2, bits, weights);
    else
        expand_depthwise(op, c, 1, bits, weights);
    const struct depthwise_call call = {
        .codes = hw_address(words + c % 4), .row_step = 16 * stride, .weights = hw_address(weights), .sums = hw_address(sums),
        .sums_step = 4u * op->out_w, .sums_bytes = steps * (stride == 1 ? 8 : 4), .rows = rows, .entry = skipped * DEPTHWISE_ENTRY_BYTES,
    };
    const hw_quick_scale scale = hw_make_quick_scale(op, c);
    const struct depthwise_finish_call finish = {
        .sums = hw_address(sums), .output = hw_address(op->output) + (uint32_t)y0 * op->out_w * op->out_c + c, .out_step = op->out_c,
        .count = rows * op->out_w, .scale = hw_address(&scale), .max = op->output_max * 0x01010101u,
    };
    if (stride == 1)
        hw_depthwise_stride1(&call);
    else
        hw_depthwise_stride2(&call);
    hw_depthwise_finish(&finish);
}

/* Whether it was done. Scratch: 10 rows of packed pairs, and sums of one channel; fewer bytes than the portable body takes
 * are never asked for. */
HW_INLINE int depthwise_3x3(const hw_op *op, uint32_t bits)
{
    const int32_t largest = 9 * 255 * ((1 << bits) - 1);
    if (op->kernel_h != 3 || op->kernel_w != 3 || op->stride_h != op->stride_w || op->stride_h > 2)
        return 0;
    if (op->in_c % 4 != 0 || op->out_w > DEPTHWISE_COLUMNS || !hw_is_quick(op, largest))
        return 0;
    const int32_t stride = op->stride_h, most_rows = (DEPTHWISE_ROWS - 3) / stride + 1;
    const int32_t pairs = (stride == 1 ? (op->out_w + 1) / 2 : op->out_w) + 1;
    uint32_t *words = (uint32_t *)(void *)op->scratch;
    int32_t *sums = (int32_t *)(words + pairs * PAIR_WORDS);
    for (int32_t y = 0; y < op->out_h; y += most_rows) {
        const int32_t rows = hw_smaller(most_rows, op->out_h - y);
        for (uint32_t c = 0; c < op->in_c; c += 4) {
            pack_depthwise(op, words, y * stride - op->pad_h, (rows - 1) * stride + 3, pairs, c);
            for (uint32_t i = 0; i < 4; i++)
                depthwise_channel(op, words, sums, y, (uint32_t)rows, c + i, bits);
        }
    }
    return 1;
}

#endif
#endif
