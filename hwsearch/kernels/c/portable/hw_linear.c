/* hw_linear_w?a?: matrix times vector.
 *
 * Each weight is used once, so it is taken out of its stored word in place, with its neighbours: a shift and a mask leave
 * the codes i and i + n/2 of a word of n codes in its two halves, ready for a dual multiplication. The input is arranged
 * to match, once. Two filters share each input word.
 *
 * With 1- or 2-bit weights and 2-bit inputs four codes are left in the four bytes, and one multiplication by four inputs in
 * reverse order sums their products in its top byte. Such a sum is at most 36, or 12 with 1-bit weights: 7 or 21 of them fit;
 * a stored word has at most 4 or 8.
 *
 * Weights stored at 3 bits are spread to bytes, four at a time, and then as if stored at 8.
 *
 * sum (2u + 1 - 2^b) q = 2 sum u q - (2^b - 1) sum q.
 */
#include "hw_portable.h"

#if !defined(HW_OWN_LINEAR) && defined(HW_W)

/* Inputs as the masked words want them: `lanes` codes a word, lane l from position i + l * n / lanes. Returns their sum. */
HW_INLINE int32_t arrange(const uint8_t *codes, uint32_t count, uint32_t per_word, uint32_t lanes, uint32_t *words)
{
    const uint32_t parts = per_word / lanes;
    int32_t sum = 0;
    for (uint32_t k = 0; k < count; k += per_word)
        for (uint32_t i = 0; i < parts; i++) {
            uint32_t word = 0;
            for (uint32_t lane = 0; lane < lanes; lane++) {
                const uint32_t index = k + i + lane * parts, q = index < count ? codes[index] : 0;
                sum += (int32_t)q;
                word |= q << (lanes == 2 ? 16 * lane : 24 - 8 * lane);
            }
            *words++ = word;
        }
    return sum;
}

/* Sums of products of two filters. */
HW_INLINE void multiply_pairs(const uint8_t *first, const uint8_t *second, uint32_t row_bytes, uint32_t stored,
                              uint32_t bits, const uint32_t *words, int32_t sums[2])
{
    const uint32_t mask = ((1u << bits) - 1u) * 0x10001u;
    int32_t s0 = 0, s1 = 0;
    for (uint32_t offset = 0; offset < row_bytes; offset += 4, words += 16 / stored) {
        const uint32_t w0 = hw_load(first + offset), w1 = hw_load(second + offset);
        for (uint32_t i = 0; i < 16 / stored; i++) {
            const uint32_t shift = i * stored + stored - bits;
            s0 = hw_dual_multiply_add(s0, words[i], w0 >> shift & mask);
            s1 = hw_dual_multiply_add(s1, words[i], w1 >> shift & mask);
        }
    }
    sums[0] = s0, sums[1] = s1;
}

/* The same for inputs of 2 bits, four products in one. */
HW_INLINE void multiply_fours(const uint8_t *first, const uint8_t *second, uint32_t row_bytes, uint32_t stored,
                              uint32_t bits, const uint32_t *words, int32_t sums[2])
{
    const uint32_t mask = ((1u << bits) - 1u) * 0x01010101u;
    uint32_t s0 = 0, s1 = 0;
    for (uint32_t offset = 0; offset < row_bytes; offset += 4, words += 8 / stored) {
        const uint32_t w0 = hw_load(first + offset), w1 = hw_load(second + offset);
        uint32_t p0 = 0, p1 = 0;
        for (uint32_t i = 0; i < 8 / stored; i++) {
            const uint32_t shift = i * stored + stored - bits;
            p0 += words[i] * (w0 >> shift & mask);
            p1 += words[i] * (w1 >> shift & mask);
        }
        s0 += p0 >> 24, s1 += p1 >> 24;
    }
    sums[0] = (int32_t)s0, sums[1] = (int32_t)s1;
}

/* The same for weights stored at 3 bits: `count` of them, four to a step. */
HW_INLINE void multiply_spread(const uint8_t *first, const uint8_t *second, uint32_t row_bytes, uint32_t count,
                               uint32_t bits, int fours, const uint32_t *words, int32_t sums[2])
{
    int32_t s0 = 0, s1 = 0;
    for (uint32_t quad = 0; 4 * quad < count; quad++, words += fours ? 1 : 2) {
        const uint32_t w0 = hw_four_codes(first, row_bytes, quad, 3, bits), w1 = hw_four_codes(second, row_bytes, quad, 3, bits);
        if (fours) {
            s0 += (int32_t)(words[0] * w0 >> 24), s1 += (int32_t)(words[0] * w1 >> 24);
            continue;
        }
        s0 = hw_dual_multiply_add(hw_dual_multiply_add(s0, words[0], w0 & 0xFF00FFu), words[1], w0 >> 8 & 0xFF00FFu);
        s1 = hw_dual_multiply_add(hw_dual_multiply_add(s1, words[0], w1 & 0xFF00FFu), words[1], w1 >> 8 & 0xFF00FFu);
    }
    sums[0] = s0, sums[1] = s1;
}

HW_INLINE void multiply_rows(const hw_op *op, uint32_t stored, uint32_t bits, int fours)
{
    uint32_t *const words = (uint32_t *)(void *)op->scratch;
    const uint32_t row_bytes = hw_row_bytes(op->in_c, stored), per_word = stored == 3 ? 4 : 32 / stored;
    const int32_t centre = arrange(op->input[0], op->in_c, per_word, fours ? 4 : 2, words) * ((1 << bits) - 1);
    for (uint32_t o = 0; o < op->out_c; o += 2) {
        const uint8_t *first = op->weights + o * row_bytes, *second = o + 1 < op->out_c ? first + row_bytes : first;
        int32_t sums[2];
        if (stored == 3)
            multiply_spread(first, second, row_bytes, op->in_c, bits, fours, words, sums);
        else if (fours)
            multiply_fours(first, second, row_bytes, stored, bits, words, sums);
        else
            multiply_pairs(first, second, row_bytes, stored, bits, words, sums);
        hw_finish(op, o, o, op->bias[o] + 2 * sums[0] - centre);
        if (o + 1 < op->out_c)
            hw_finish(op, o + 1, o + 1, op->bias[o + 1] + 2 * sums[1] - centre);
    }
}

HW_INLINE void linear(const hw_op *op, uint32_t bits, int fours)
{
    if (op->stored_bits == 8)
        multiply_rows(op, 8, bits, fours);
    else if (op->stored_bits == 4 && bits <= 4)
        multiply_rows(op, 4, bits, fours);
    else if (op->stored_bits == 3 && bits <= 3)
        multiply_rows(op, 3, bits, fours);
    else if (op->stored_bits == 2 && bits <= 2)
        multiply_rows(op, 2, bits, fours);
    else if (bits == 1)
        multiply_rows(op, 1, bits, fours);
}

void HW_OF_WIDTHS(hw_linear)(const hw_op *op);
void HW_OF_WIDTHS(hw_linear)(const hw_op *op) { linear(op, HW_W, HW_W <= 2 && HW_A == 2); }

#endif
