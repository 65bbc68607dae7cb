/* hw_linear_w?a? for RV32IM: matrix times vector, four filters at a time.
 *
 * Each weight is used once, so it is taken out of its stored word in place, with its neighbours: a shift and a mask leave codes
 * n / lanes apart in the lanes of a word of n codes, ready to be multiplied by as many inputs in reverse order (hw_riscv.h),
 * which are arranged to match, once. With 8-bit weights and inputs there is one lane, and single bytes are multiplied.
 *
 * Of 32 weights stored at 3 bits each of three words holds ten whole ones, whose halves lie 15 bits apart: five pairs, in two
 * lanes of 15 bits; inputs are two bits up, so that what lies beyond the second lane is beyond the word. A sixteenth pair is put
 * together from those two weights that lie in two words.
 *
 * sum (2u + 1 - 2^b) q = 2 sum u q - (2^b - 1) sum q.
 */
#include "portable/hw_portable.h"

#if defined(HW_RISCV) && defined(HW_W)

#include "hw_riscv.h"

enum { ROWS = 4 };

/* Inputs as the masked words want them, lane l of weights from position i + l * n / lanes of n. Returns their sum. */
HW_INLINE int32_t arrange(const uint8_t *codes, uint32_t count, uint32_t per_word, uint32_t lanes, uint32_t *words)
{
    const uint32_t parts = per_word / lanes;
    uint32_t sum = 0;
    for (uint32_t k = 0; k < count; k += per_word)
        for (uint32_t i = 0; i < parts; i++) {
            uint32_t word = 0;
            for (uint32_t lane = 0; lane < lanes; lane++) {
                const uint32_t index = k + i + lane * parts, q = index < count ? codes[index] : 0;
                sum += q;
                word |= q << 32 / lanes * (lanes - 1 - lane);
            }
            *words++ = word;
        }
    return (int32_t)sum;
}

/* Sums of products of four filters. `count` stored words each; sums are emptied after `limit` products of words. */
HW_INLINE void multiply_rows(const uint8_t *const rows[ROWS], uint32_t count, uint32_t stored, uint32_t bits, uint32_t lanes,
                             uint32_t limit, const uint32_t *words, int32_t totals[ROWS])
{
    const uint32_t parts = 32 / stored / lanes, cut = stored - bits;
    const uint32_t mask = ((1u << bits) - 1u) * (lanes == 4 ? 0x01010101u : 0x10001u), top = lanes == 4 ? 24 : 16;
    const int full = lanes == 4 && limit == 1;
    const uint8_t *row0 = rows[0], *row1 = rows[1], *row2 = rows[2], *row3 = rows[3];
    uint32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0, room = parts > limit ? 1 : limit / parts;
    uint32_t t0 = 0, t1 = 0, t2 = 0, t3 = 0;
    for (uint32_t k = 0; k < count; k++, words += parts) {
        const uint32_t w0 = hw_load(row0 + 4 * k), w1 = hw_load(row1 + 4 * k);
        const uint32_t w2 = hw_load(row2 + 4 * k), w3 = hw_load(row3 + 4 * k);
        for (uint32_t i = 0; i < parts; i++) {
            const uint32_t shift = i * stored + cut, a = words[i];
            hw_multiply_add_32(full ? &t0 : &s0, a, w0 >> shift & mask, full);
            hw_multiply_add_32(full ? &t1 : &s1, a, w1 >> shift & mask, full);
            hw_multiply_add_32(full ? &t2 : &s2, a, w2 >> shift & mask, full);
            hw_multiply_add_32(full ? &t3 : &s3, a, w3 >> shift & mask, full);
            if (!full && parts > limit && (i + 1) % limit == 0) {
                t0 += s0 >> top, t1 += s1 >> top, t2 += s2 >> top, t3 += s3 >> top;
                s0 = s1 = s2 = s3 = 0;
            }
        }
        if (!full && --room == 0) {
            t0 += s0 >> top, t1 += s1 >> top, t2 += s2 >> top, t3 += s3 >> top;
            s0 = s1 = s2 = s3 = 0;
            room = parts > limit ? 1 : limit / parts;
        }
    }
    totals[0] = (int32_t)(t0 + (s0 >> top)), totals[1] = (int32_t)(t1 + (s1 >> top));
    totals[2] = (int32_t)(t2 + (s2 >> top)), totals[3] = (int32_t)(t3 + (s3 >> top));
}

/* Inputs for weights stored at 3 bits, whole stretches of 32 only. */
HW_APART void arrange_threes(const uint8_t *codes, uint32_t stretches, uint32_t *words)
{
    for (; stretches; stretches--, codes += 32, words += 16) {
        for (uint32_t i = 0; i < 15; i++) {
            const uint32_t first = i % 3 * 11 + i / 3;
            words[i] = (uint32_t)codes[first + 5] << 2 | (uint32_t)codes[first] << 17;
        }
        words[15] = (uint32_t)codes[21] << 2 | (uint32_t)codes[10] << 17;
    }
}

/* A stretch of one row. */
typedef struct threes {
    uint32_t word[3];
} threes;

HW_INLINE threes load_threes(const uint8_t *row) { return (threes){{hw_load(row), hw_load(row + 4), hw_load(row + 8)}}; }

/* Pair `i` of it, not masked: first those within words, word by word, then that between words. */
HW_INLINE uint32_t pair_of(threes t, uint32_t i, uint32_t cut)
{
    const uint32_t tenth = t.word[0] >> 30 | (t.word[1] & 1u) << 2, other = t.word[1] >> 31 | (t.word[2] & 3u) << 1;
    return (i == 15 ? tenth | other << 15 : t.word[i % 3] >> (i / 3 * 3 + i % 3)) >> cut;
}

/* Sums of products of two filters whose weights are stored at 3 bits; sums are emptied after `room` halves of stretches. */
HW_INLINE void multiply_threes(const uint8_t *first, const uint8_t *second, const uint8_t *codes, uint32_t count, uint32_t bits,
                               uint32_t room, const uint32_t *words, int32_t totals[2])
{
    const uint32_t mask = ((1u << bits) - 1u) * 0x8001u, cut = 3 - bits;
    uint32_t s0 = 0, s1 = 0, t0 = 0, t1 = 0, left = room;
    for (uint32_t k = 0; k < count / 32; k++, words += 16) {
        const threes w0 = load_threes(first + 12 * k), w1 = load_threes(second + 12 * k);
        HW_UNROLLED_16
        for (uint32_t i = 0; i < 16; i++) {
            hw_multiply_add_32(&s0, words[i], pair_of(w0, i, cut) & mask, 0);
            hw_multiply_add_32(&s1, words[i], pair_of(w1, i, cut) & mask, 0);
            if (i % 8 == 7 && --left == 0) {
                t0 += s0 >> 17, t1 += s1 >> 17;
                s0 = s1 = 0, left = room;
            }
        }
    }
    t0 += s0 >> 17, t1 += s1 >> 17;
    for (uint32_t k = count & ~31u; k < count; k++) {
        t0 += hw_weight_code(first, k, 3, bits) * codes[k];
        t1 += hw_weight_code(second, k, 3, bits) * codes[k];
    }
    totals[0] = (int32_t)t0, totals[1] = (int32_t)t1;
}

/* The same for bytes: `count` codes each. */
HW_INLINE void multiply_bytes(const uint8_t *const rows[ROWS], uint32_t count, const uint8_t *codes, int32_t totals[ROWS])
{
    const uint8_t *row0 = rows[0], *row1 = rows[1], *row2 = rows[2], *row3 = rows[3], *const end = codes + count;
    uint32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    HW_UNROLLED_4
    for (; codes < end; codes++) {
        const uint32_t q = *codes, w0 = *row0++, w1 = *row1++, w2 = *row2++, w3 = *row3++;
        hw_multiply_add_32(&s0, q, w0, 0);
        hw_multiply_add_32(&s1, q, w1, 0);
        hw_multiply_add_32(&s2, q, w2, 0);
        hw_multiply_add_32(&s3, q, w3, 0);
    }
    totals[0] = (int32_t)s0, totals[1] = (int32_t)s1, totals[2] = (int32_t)s2, totals[3] = (int32_t)s3;
}

HW_INLINE int32_t sum_codes(const uint8_t *codes, uint32_t count)
{
    uint32_t sum = 0;
    for (uint32_t k = 0; k < count; k++)
        sum += codes[k];
    return (int32_t)sum;
}

/* Four filters at a time; one beyond the last repeats it, and nobody stores the result. `room`: halves of stretches of 3-bit
 * weights that a lane of 15 bits sums. */
HW_INLINE void multiply_all(const hw_op *op, uint32_t stored, uint32_t bits, uint32_t lanes, uint32_t limit, uint32_t room)
{
    uint32_t *const words = (uint32_t *)(void *)op->scratch;
    const uint32_t per_word = 32 / stored, row_bytes = hw_row_bytes(op->in_c, stored), count = op->in_c;
    const uint8_t *const codes = op->input[0];
    const int apart = lanes == 1 || stored == 3;
    const int32_t sum = apart ? sum_codes(codes, count) : arrange(codes, count, per_word, lanes, words);
    const int32_t centre = sum * ((1 << bits) - 1);
    if (stored == 3)
        arrange_threes(codes, count / 32, words);
    for (uint32_t o = 0; o < op->out_c; o += ROWS) {
        const uint8_t *rows[ROWS];
        int32_t totals[ROWS];
        for (uint32_t i = 0; i < ROWS; i++)
            rows[i] = op->weights + (uint32_t)hw_smaller((int32_t)(o + i), op->out_c - 1) * row_bytes;
        if (lanes == 1)
            multiply_bytes(rows, count, codes, totals);
        else if (stored == 3)
            for (uint32_t i = 0; i < ROWS; i += 2)
                multiply_threes(rows[i], rows[i + 1], codes, count, bits, room, words, totals + i);
        else
            multiply_rows(rows, (count + per_word - 1) / per_word, stored, bits, lanes, limit, words, totals);
        for (uint32_t i = 0; i < ROWS && o + i < op->out_c; i++)
            hw_finish(op, o + i, o + i, op->bias[o + i] + 2 * totals[i] - centre);
    }
}

HW_INLINE void linear(const hw_op *op, uint32_t bits, uint32_t lanes, uint32_t limit, uint32_t room)
{
    if (op->stored_bits == 8)
        multiply_all(op, 8, bits, lanes, limit, room);
    else if (op->stored_bits == 4 && bits <= 4)
        multiply_all(op, 4, bits, lanes, limit, room);
    else if (op->stored_bits == 3 && bits <= 3)
        multiply_all(op, 3, bits, lanes, limit, room);
    else if (op->stored_bits == 2 && bits <= 2)
        multiply_all(op, 2, bits, lanes, limit, room);
    else if (bits == 1)
        multiply_all(op, 1, bits, lanes, limit, room);
}

void HW_OF_WIDTHS(hw_linear)(const hw_op *op);
void HW_OF_WIDTHS(hw_linear)(const hw_op *op)
{
    linear(op, HW_W, HW_LANES(HW_W, HW_A), HW_LIMIT(HW_W, HW_A), 32767u / (2u * HW_LARGEST(HW_W, HW_A)) / 8u);
}

#endif
