/* hw_linear_w?a? for Arm cores with DSP instructions: matrix times vector, two filters at a time.
 *
 * Ways to multiply: see hwsearch/kernels/loops/linear.py. Fours need the sum of their products in a byte: one product of four
 * codes is at most 180 at w2a4 and 196 at w3a3, so it is read at once; 60 at w1a4, 36 at w2a2 and 12 at w1a2 are summed 4, 4
 * and 8 times.
 *
 * Pairs are multiplied where they lie, as multiples of a power of two; a sum of 65535 products of 8 bits fits 32 bits.
 *
 * sum (2u + 1 - 2^b) q = 2 sum u q - (2^b - 1) sum q.
 */
#include "hw_cortex_m.h"
#include "generated/hw_linear_loops.h"

#if defined(HW_CORTEX_M) && defined(HW_W)

enum { PAIRS = 2, FOURS = 4, BITS = 8 }; /* inputs of a word are 16 bits; bytes in reverse order; bytes */

/* Inputs of one word of `n` weights, by words of inputs. Pairs lie n / 2 codes apart, fours n / 4. */
HW_INLINE void arrange_word(const uint8_t *codes, uint32_t n, uint32_t way, uint32_t *words)
{
    if (way == PAIRS && n == 4) {
        words[0] = hw_even_bytes(hw_load(codes)), words[1] = hw_odd_bytes(hw_load(codes));
        return;
    }
    for (uint32_t i = 0; way == PAIRS && i < n / 2; i += 4) {
        const uint32_t first = hw_load(codes + i), second = hw_load(codes + i + n / 2);
        const uint32_t even0 = hw_even_bytes(first), even1 = hw_even_bytes(second), odd0 = hw_odd_bytes(first), odd1 = hw_odd_bytes(second);
        words[i] = hw_join_low(even0, even1), words[i + 1] = hw_join_low(odd0, odd1);
        words[i + 2] = hw_join_high(even0, even1), words[i + 3] = hw_join_high(odd0, odd1);
    }
    for (uint32_t i = 0; way != PAIRS && i < n / 4; i += 4) {
        const uint32_t w0 = hw_load(codes + i), w1 = hw_load(codes + i + n / 4), w2 = hw_load(codes + i + n / 2), w3 = hw_load(codes + i + n / 4 * 3);
        if (way == FOURS) {
            hw_transpose(words + i, w3, w2, w1, w0);
        } else {
            uint32_t turned[4];
            hw_transpose(turned, w0, w1, w2, w3);
            for (uint32_t k = 0; k < 4; k++)
                words[n / 4 - 1 - i - k] = turned[k];
        }
    }
}

/* Inputs as the words of weights want them: lane l of word i holds the one of code i + l * parts; with BITS, that of bits 7 - i
 * of each byte. Returns their sum. */
HW_INLINE int32_t arrange(const uint8_t *codes, uint32_t count, uint32_t per_word, uint32_t way, uint32_t *words)
{
    const uint32_t lanes = way == PAIRS ? 2 : 4, parts = per_word / lanes;
    uint32_t sum = 0, k = 0;
    for (; k + per_word <= count && (way == PAIRS || parts >= 4); k += per_word, words += parts) {
        arrange_word(codes + k, per_word, way, words);
        for (uint32_t i = k; i < k + per_word; i += 4)
            sum = hw_add_bytes(sum, hw_load(codes + i));
    }
    HW_ROLLED
    for (; k < count; k += per_word)
        for (uint32_t i = 0; i < parts; i++) {
            uint32_t word = 0;
            for (uint32_t lane = 0; lane < lanes; lane++) {
                const uint32_t index = k + (way == BITS ? parts - 1 - i : i) + lane * parts, q = index < count ? codes[index] : 0;
                sum += q;
                word |= q << (way == PAIRS ? 16 * lane : way == FOURS ? 24 - 8 * lane : 8 * lane);
            }
            *words++ = word;
        }
    return (int32_t)sum;
}

/* The same for weights stored at 3 bits: 18 words for 32 codes. */
HW_INLINE int32_t arrange_threes(const uint8_t *codes, uint32_t count, uint32_t *words)
{
    int32_t sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += codes[i];
    HW_ROLLED
    for (uint32_t block = 0; block < count; block += 32)
        for (uint32_t word = 0; word < 3; word++) {
            const uint32_t first = block + 10 * word + word / 2;
            HW_ROLLED
            for (uint32_t i = first; i < first + 6; i++)
                *words++ = (i < count ? 4u * codes[i] : 0) | (i + 6 < count ? (uint32_t)codes[i + 6] << 16 : 0);
        }
    return sum;
}

/* One call of the loop for these widths, and bytes of code of one of its steps; all but `call` are constants. */
#define CALL_LOOP(LOOP, BYTES) \
    do { \
        call->entry = skipped * (BYTES); \
        LOOP(call); \
    } while (0)

HW_INLINE void call_loop(struct linear_call *call, uint32_t stored, uint32_t way, uint32_t summed, uint32_t skipped)
{
    if (way == BITS)
        CALL_LOOP(hw_linear_bits, 0);
    else if (stored == 3)
        CALL_LOOP(hw_linear_threes, 0);
    else if (stored == 8)
        CALL_LOOP(hw_linear_pairs_8, LINEAR_PAIRS_8_BYTES);
    else if (way == PAIRS && stored == 4)
        CALL_LOOP(hw_linear_pairs_4, LINEAR_PAIRS_4_BYTES);
    else if (way == PAIRS && stored == 2)
        CALL_LOOP(hw_linear_pairs_2, LINEAR_PAIRS_2_BYTES);
    else if (way == PAIRS)
        CALL_LOOP(hw_linear_pairs_1, LINEAR_PAIRS_1_BYTES);
    else if (stored == 4 && summed > 1)
        CALL_LOOP(hw_linear_fours_4_2, LINEAR_FOURS_4_2_BYTES);
    else if (stored == 4)
        CALL_LOOP(hw_linear_fours_4_1, LINEAR_FOURS_4_1_BYTES);
    else if (stored == 2 && summed > 1)
        CALL_LOOP(hw_linear_fours_2_4, LINEAR_FOURS_2_4_BYTES);
    else if (stored == 2)
        CALL_LOOP(hw_linear_fours_2_1, LINEAR_FOURS_2_1_BYTES);
    else if (summed > 4)
        CALL_LOOP(hw_linear_fours_1_8, LINEAR_FOURS_1_8_BYTES);
    else
        CALL_LOOP(hw_linear_fours_1_4, LINEAR_FOURS_1_4_BYTES);
}

/* `summed`: how many products of four codes a byte holds. */
HW_INLINE void multiply_rows(const hw_op *op, uint32_t stored, uint32_t bits, uint32_t way, uint32_t summed)
{
    uint32_t *const words = (uint32_t *)(void *)op->scratch;
    const uint32_t row_bytes = hw_row_bytes(op->in_c, stored), steps = stored == 8 ? LINEAR_STEPS_8 : stored == 4 ? LINEAR_STEPS_4 : 1;
    const uint32_t count = (row_bytes / 4 + steps - 1) / steps, cut = stored - bits, ones = (1u << bits) - 1u;
    const int32_t sum = stored == 3 ? arrange_threes(op->input[0], op->in_c, words) : arrange(op->input[0], op->in_c, 32 / stored, way, words);
    const int32_t centre = sum * (int32_t)ones;
    for (uint32_t o = 0; o < op->out_c; o += 2) {
        const int both = o + 1 < op->out_c;
        uint32_t sums[2];
        struct linear_call call = {
            .inputs = hw_address(words), .row = hw_address(op->weights + o * row_bytes), .row_bytes = both ? row_bytes : 0, .cut = cut,
            .mask = stored == 3 ? (ones << cut) * 0x40001u : way == PAIRS ? (ones << cut) * 0x10001u : way == FOURS ? ones * 0x01010101u : 0,
            .count = count, .sums = hw_address(sums),
        };
        call_loop(&call, stored, way, summed, count * steps - row_bytes / 4);
        __asm__ volatile("" : : : "memory"); /* sums were written */
        const uint32_t scaled = stored == 3 ? cut + 2 : way == PAIRS ? cut : 0;
        hw_finish(op, o, o, op->bias[o] + 2 * (int32_t)(sums[0] >> scaled) - centre);
        if (both)
            hw_finish(op, o + 1, o + 1, op->bias[o + 1] + 2 * (int32_t)(sums[1] >> scaled) - centre);
    }
}

HW_INLINE void linear(const hw_op *op, uint32_t bits, uint32_t activation_bits)
{
    const uint32_t largest = 4 * ((1u << bits) - 1u) * ((1u << activation_bits) - 1u), summed = 255 / largest;
    const uint32_t way = largest < 256 ? FOURS : PAIRS;
    if (op->stored_bits == 8)
        multiply_rows(op, 8, bits, PAIRS, 0);
    else if (op->stored_bits == 4 && bits <= 4)
        multiply_rows(op, 4, bits, way, summed);
    else if (op->stored_bits == 3 && bits <= 3)
        multiply_rows(op, 3, bits, PAIRS, 0);
    else if (op->stored_bits == 2 && bits <= 2)
        multiply_rows(op, 2, bits, way, summed);
    else if (bits == 1)
        multiply_rows(op, 1, bits, way == PAIRS ? BITS : way, summed);
}

void HW_OF_WIDTHS(hw_linear)(const hw_op *op);
void HW_OF_WIDTHS(hw_linear)(const hw_op *op) { linear(op, HW_W, HW_A); }

#endif
