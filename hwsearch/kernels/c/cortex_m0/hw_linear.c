/* hw_linear_w?a? on a Cortex-M0+: matrix times vector.
 *
 * Each weight is used once, so it is taken out of its stored word in place: a shift and a mask leave two codes in the word's
 * halves, or with 1- or 2-bit weights and 2-bit inputs four in its bytes. One multiplication by as many inputs in reverse
 * order sums all products in its top field, and the fields below never reach it:
 *
 *     (u0 + u1 * 2^16) * (q1 + q0 * 2^16) = u0 q1 + (u0 q0 + u1 q1) * 2^16     modulo 2^32
 *
 * A stored word has at most 32 codes: with 2 to a product the top field holds at most 16 times 2 products below 2^16 / 32,
 * or, of 8-bit by 4-bit factors, 2 times 2 or 4 times 2 below 2^12. Products of 8 by 8 bits go one at a time. Two filters
 * share each input. Weights stored at 3 bits are spread to bytes, four at a time, and then as if stored at 8.
 *
 * sum (2u + 1 - 2^b) q = 2 sum u q - (2^b - 1) sum q.
 */
#include "hw_cortex_m0.h"

#if defined(HW_CORTEX_M0) && defined(HW_W)
#include "generated/hw_dot_loops.h"

/* Inputs in the order of the codes of a word: with `lanes` to a product, lane l from position i + l * n / lanes of n codes.
 * Returns their sum. */
HW_INLINE int32_t arrange(const uint8_t *codes, uint32_t count, uint32_t per_word, uint32_t lanes, uint32_t *words)
{
    const uint32_t parts = per_word / lanes, bits = 32 / lanes;
    int32_t sum = 0;
    for (uint32_t k = 0; k < count; k += per_word)
        for (uint32_t i = 0; i < parts; i++) {
            uint32_t word = 0;
            for (uint32_t lane = 0; lane < lanes; lane++) {
                const uint32_t index = k + i + lane * parts, q = index < count ? codes[index] : 0;
                sum += (int32_t)q;
                word = word << bits | q;
            }
            *words++ = word;
        }
    return sum;
}

/* Sums of products of two filters, `lanes` to a multiplication. */
HW_INLINE void multiply_words(const uint8_t *first, const uint8_t *second, uint32_t row_bytes, uint32_t stored, uint32_t bits,
                              uint32_t lanes, const uint32_t *inputs, int32_t sums[2])
{
    struct dot_call call = {
        .first = hw_address(first),
        .second = hw_address(second),
        .inputs = hw_address(inputs),
        .end = hw_address(first + row_bytes),
        .mask = ((1u << bits) - 1u) * (lanes == 4 ? 0x01010101u : 0x10001u),
        .dropped_bits = stored - bits,
    };
    if (lanes == 1)
        hw_dot_8x1(&call);
    else if (lanes == 2)
        (stored == 8 ? hw_dot_8x2 : stored == 4 ? hw_dot_4x2 : stored == 2 ? hw_dot_2x2 : hw_dot_1x2)(&call);
    else
        (stored == 8 ? hw_dot_8x4 : stored == 4 ? hw_dot_4x4 : stored == 2 ? hw_dot_2x4 : hw_dot_1x4)(&call);
    sums[0] = (int32_t)call.sum0, sums[1] = (int32_t)call.sum1;
}

/* The same for weights stored at 3 bits: `count` of them, four to a step. */
HW_INLINE void multiply_spread(const uint8_t *first, const uint8_t *second, uint32_t row_bytes, uint32_t count, uint32_t bits,
                               const uint32_t *words, int32_t sums[2])
{
    uint32_t s0 = 0, s1 = 0;
    HW_ROLLED
    for (uint32_t quad = 0; 4 * quad < count; quad++, words += 2) {
        const uint32_t w0 = hw_four_codes(first, row_bytes, quad, 3, bits), w1 = hw_four_codes(second, row_bytes, quad, 3, bits);
        s0 += (words[0] * (w0 & 0xFF00FFu) + words[1] * (w0 >> 8 & 0xFF00FFu)) >> 16;
        s1 += (words[0] * (w1 & 0xFF00FFu) + words[1] * (w1 >> 8 & 0xFF00FFu)) >> 16;
    }
    sums[0] = (int32_t)s0, sums[1] = (int32_t)s1;
}

/* The inputs as they are, in words whose last may hold zeros; returns their sum. */
HW_INLINE int32_t copy_inputs(const uint8_t *codes, uint32_t count, uint8_t *copies)
{
    int32_t sum = 0;
    HW_ROLLED
    for (uint32_t k = 0; k < ((count + 3u) & ~3u); k++) {
        copies[k] = k < count ? codes[k] : 0;
        sum += copies[k];
    }
    return sum;
}

HW_INLINE void multiply_rows(const hw_op *op, uint32_t stored, uint32_t bits, uint32_t lanes)
{
    uint32_t *const words = (uint32_t *)(void *)op->scratch;
    const uint32_t row_bytes = hw_row_bytes(op->in_c, stored);
    const int32_t sum = lanes == 1 ? copy_inputs(op->input[0], op->in_c, op->scratch)
                                   : arrange(op->input[0], op->in_c, stored == 3 ? 4 : 32 / stored, lanes, words);
    const int32_t centre = sum * ((1 << bits) - 1);
    for (uint32_t o = 0; o < op->out_c; o += 2) {
        const uint8_t *first = op->weights + o * row_bytes, *second = o + 1 < op->out_c ? first + row_bytes : first;
        int32_t sums[2];
        if (stored == 3)
            multiply_spread(first, second, row_bytes, op->in_c, bits, words, sums);
        else
            multiply_words(first, second, row_bytes, stored, bits, lanes, words, sums);
        hw_finish(op, o, o, op->bias[o] + 2 * sums[0] - centre);
        if (o + 1 < op->out_c)
            hw_finish(op, o + 1, o + 1, op->bias[o + 1] + 2 * sums[1] - centre);
    }
}

HW_INLINE void linear(const hw_op *op, uint32_t bits, uint32_t lanes)
{
    if (op->stored_bits == 8)
        multiply_rows(op, 8, bits, lanes);
    else if (op->stored_bits == 4 && bits <= 4)
        multiply_rows(op, 4, bits, lanes);
    else if (op->stored_bits == 3 && bits <= 3)
        multiply_rows(op, 3, bits, 2);
    else if (op->stored_bits == 2 && bits <= 2)
        multiply_rows(op, 2, bits, lanes);
    else if (bits == 1)
        multiply_rows(op, 1, bits, lanes);
}

void HW_OF_WIDTHS(hw_linear)(const hw_op *op);
void HW_OF_WIDTHS(hw_linear)(const hw_op *op) { linear(op, HW_W, HW_W <= 2 && HW_A == 2 ? 4 : HW_W == 8 && HW_A == 8 ? 1 : 2); }

#endif
