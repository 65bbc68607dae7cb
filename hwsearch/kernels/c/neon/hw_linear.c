/* hw_linear_w?a? on NEON: matrix times vector.
 *
 * Each weight is used once, so it is taken out of its stored byte in place: a vector of 16 bytes holds 8 / stored_bits parts,
 * each a shift and a mask away, and the input is arranged to match, once. Eight codes of 3 bits lie in three bytes, of
 * which three vectors hold 16 each. Products of few bits add up in 16-bit lanes, as in hw_conv2d.c.
 *
 * sum (2u + 1 - 2^b) q = 2 sum u q - (2^b - 1) sum q.
 */
#include "neon/hw_neon.h"

#if defined(HW_NEON) && defined(HW_W)

enum { MOST_PARTS = 8 };

/* How weights are stored and multiplied; all compile-time constants. */
typedef struct layout {
    uint32_t stored, bits, parts; /* parts of a byte; of three bytes with codes of 3 bits */
    uint32_t limit;               /* products that a 16-bit lane holds */
} layout;

HW_INLINE uint32_t step_codes(layout l) { return 16 * l.parts; }
HW_INLINE uint32_t step_bytes(layout l) { return l.stored == 3 ? 48 : 16; }

/* The codes of one step as its parts want them: code i of a byte's l.parts in vector i. */
HW_INLINE void arrange(layout l, const uint8_t *codes, uint8_t *arranged)
{
    if (l.parts == 1) {
        vst1q_u8(arranged, vld1q_u8(codes));
    } else if (l.parts == 2) {
        const uint8x16x2_t two = vld2q_u8(codes);
        vst1q_u8(arranged, two.val[0]), vst1q_u8(arranged + 16, two.val[1]);
    } else {
        const uint8x16x4_t low = vld4q_u8(codes);
        const uint8x16x4_t high = l.parts == 8 ? vld4q_u8(codes + 64) : low;
        HW_UNROLLED
        for (uint32_t i = 0; i < 4; i++) {
            if (l.parts == 4) {
                vst1q_u8(arranged + 16 * i, low.val[i]);
            } else {
                vst1q_u8(arranged + 16 * i, vuzp1q_u8(low.val[i], high.val[i]));
                vst1q_u8(arranged + 64 + 16 * i, vuzp2q_u8(low.val[i], high.val[i]));
            }
        }
    }
}

HW_INLINE uint8x16_t shifted(uint8x16_t bytes, uint32_t right, uint32_t bits)
{
    const uint8x16_t codes = right ? vshlq_u8(bytes, vdupq_n_s8((int8_t)-(int32_t)right)) : bytes;
    return right + bits == 8 ? codes : vandq_u8(codes, vdupq_n_u8((uint8_t)((1u << bits) - 1u)));
}

/* Codes of 3 bits, of which those that straddle bytes are joined first; cut to their top `bits`. */
HW_INLINE void take_threes(uint8x16x3_t bytes, uint32_t bits, uint8x16_t codes[MOST_PARTS])
{
    const uint32_t cut = 3 - bits;
    const uint8x16_t low = vsliq_n_u8(vshrq_n_u8(bytes.val[0], 6), bytes.val[1], 2);
    const uint8x16_t high = vsliq_n_u8(vshrq_n_u8(bytes.val[1], 7), bytes.val[2], 1);
    codes[0] = shifted(bytes.val[0], cut, bits), codes[1] = shifted(bytes.val[0], 3 + cut, bits);
    codes[2] = shifted(low, cut, bits), codes[3] = shifted(bytes.val[1], 1 + cut, bits);
    codes[4] = shifted(bytes.val[1], 4 + cut, bits), codes[5] = shifted(high, cut, bits);
    codes[6] = shifted(bytes.val[2], 2 + cut, bits), codes[7] = shifted(bytes.val[2], 5 + cut, bits);
}

/* Sums of one row: in 16-bit lanes where they hold a step's products, else in 32-bit ones. */
typedef struct lanes {
    uint16x8_t low, high;
    uint32x4_t wide;
} lanes;

HW_INLINE void multiply_part(layout l, uint8x16_t weights, uint8x16_t codes, lanes *s)
{
    if (l.limit < l.parts) {
        s->wide = vpadalq_u16(s->wide, vmull_u8(vget_low_u8(weights), vget_low_u8(codes)));
        s->wide = vpadalq_u16(s->wide, vmull_high_u8(weights, codes));
    } else {
        s->low = vmlal_u8(s->low, vget_low_u8(weights), vget_low_u8(codes));
        s->high = vmlal_high_u8(s->high, weights, codes);
    }
}

/* One step of four rows, part by part, so that rows share codes. `left` bytes of each row are its own. */
HW_INLINE void multiply_parts(layout l, const uint8_t *const rows[4], uint32_t offset, uint32_t left, const uint8_t *arranged,
                              lanes s[4])
{
    uint8x16_t bytes[4];
    HW_UNROLLED
    for (uint32_t f = 0; f < 4; f++)
        bytes[f] = left >= 16 ? vld1q_u8(rows[f] + offset) : neon_load_some(rows[f] + offset, left);
    HW_UNROLLED
    for (uint32_t part = 0; part < l.parts; part++) {
        const uint8x16_t codes = vld1q_u8(arranged + 16 * part);
        HW_UNROLLED
        for (uint32_t f = 0; f < 4; f++)
            multiply_part(l, shifted(bytes[f], part * l.stored + l.stored - l.bits, l.bits), codes, &s[f]);
    }
}

/* One step of one row of 3-bit codes. */
HW_INLINE void multiply_threes(layout l, const uint8_t *row, uint32_t left, const uint8_t *arranged, lanes *s)
{
    uint8_t some[48];
    uint8x16_t weights[MOST_PARTS];
    if (left < 48) {
        neon_fill(some, 0, 48);
        neon_copy(some, row, left);
    }
    take_threes(vld3q_u8(left < 48 ? some : row), l.bits, weights);
    HW_UNROLLED
    for (uint32_t part = 0; part < l.parts; part++)
        multiply_part(l, weights[part], vld1q_u8(arranged + 16 * part), s);
}

/* Sums of products of four rows with `steps` steps of arranged input; `left` bytes of each row are its own. */
HW_INLINE void multiply_rows(layout l, const uint8_t *const rows[4], uint32_t left, const uint8_t *arranged, uint32_t steps,
                             uint32x4_t sums[4])
{
    const uint32_t most = l.limit < l.parts ? steps : l.limit / l.parts;
    uint32_t offset = 0;
    while (steps) {
        const uint32_t count = steps < most ? steps : most;
        lanes s[4];
        HW_UNROLLED
        for (uint32_t f = 0; f < 4; f++)
            s[f] = (lanes){vdupq_n_u16(0), vdupq_n_u16(0), sums[f]};
        HW_ROLLED
        for (uint32_t i = 0; i < count; i++, arranged += step_codes(l), offset += step_bytes(l)) {
            if (l.stored != 3) {
                multiply_parts(l, rows, offset, left, arranged, s);
                continue;
            }
            HW_UNROLLED
            for (uint32_t f = 0; f < 4; f++)
                multiply_threes(l, rows[f] + offset, left, arranged, &s[f]);
        }
        HW_UNROLLED
        for (uint32_t f = 0; f < 4; f++)
            sums[f] = l.limit < l.parts ? s[f].wide : vpadalq_u16(vpadalq_u16(s[f].wide, s[f].low), s[f].high);
        steps -= count;
    }
}

HW_INLINE void store_outputs(const hw_op *op, uint32_t o, uint32_t count, int32x4_t accumulators)
{
    uint8_t codes[8];
    int32_t some[4];
    vst1q_s32(some, accumulators);
    if (op->multiplier) {
        const int32x4_t multiplier = neon_load_words(op->multiplier + o, count);
        const int32x4_t values = neon_scaled(accumulators, neon_make_scale(multiplier, neon_load_words(op->shift + o, count)));
        vst1_u8(codes, neon_clamped(values, values, vdupq_n_s32(op->output_zero), vdup_n_u8(op->output_max)));
    }
    for (uint32_t i = 0; i < count; i++)
        if (op->multiplier)
            ((uint8_t *)op->output)[o + i] = codes[i];
        else
            ((int32_t *)op->output)[o + i] = some[i];
}

HW_INLINE void multiply_matrix(layout l, const hw_op *op)
{
    const uint32_t inputs = op->in_c, row_bytes = hw_row_bytes(inputs, l.stored);
    const uint32_t steps = inputs / step_codes(l), rest = inputs % step_codes(l), done = steps * step_bytes(l);
    uint8_t last[16 * MOST_PARTS] = {0}, last_arranged[16 * MOST_PARTS], *arranged = op->scratch;
    uint32x4_t sum = vdupq_n_u32(0);
    for (uint32_t i = 0; i < steps; i++)
        arrange(l, op->input[0] + i * step_codes(l), arranged + i * step_codes(l));
    neon_copy(last, op->input[0] + steps * step_codes(l), rest);
    arrange(l, last, last_arranged);
    for (uint32_t k = 0; k < steps * step_codes(l); k += 16)
        sum = vpadalq_u16(sum, vpaddlq_u8(vld1q_u8(arranged + k)));
    for (uint32_t k = 0; k < rest; k += 16)
        sum = vpadalq_u16(sum, vpaddlq_u8(vld1q_u8(last + k)));
    const int32x4_t centre = vdupq_n_s32((int32_t)vaddvq_u32(sum) * ((1 << l.bits) - 1));
    for (uint32_t o = 0; o < op->out_c; o += 4) {
        const uint32_t count = op->out_c - o < 4 ? op->out_c - o : 4;
        uint32x4_t sums[4];
        const uint8_t *rows[4];
        HW_UNROLLED
        for (uint32_t f = 0; f < 4; f++) {
            rows[f] = op->weights + (f < count ? o + f : o) * row_bytes;
            sums[f] = vdupq_n_u32(0);
        }
        multiply_rows(l, rows, step_bytes(l), arranged, steps, sums);
        if (rest) {
            const uint8_t *const ends[4] = {rows[0] + done, rows[1] + done, rows[2] + done, rows[3] + done};
            multiply_rows(l, ends, row_bytes - done, last_arranged, 1, sums);
        }
        const int32x4_t totals = neon_sums(sums[0], sums[1], sums[2], sums[3]);
        const int32x4_t bias = neon_load_words(op->bias + o, count);
        store_outputs(op, o, count, vsubq_s32(vaddq_s32(bias, vaddq_s32(totals, totals)), centre));
    }
}

/* The layouts that hold codes of `bits` bits. */
HW_INLINE void linear(const hw_op *op, uint32_t bits, uint32_t activation_bits)
{
    const uint32_t limit = 65535u / (((1u << bits) - 1u) * ((1u << activation_bits) - 1u));
    switch (op->stored_bits) {
    case 8:
        multiply_matrix((layout){8, bits, 1, limit}, op);
        break;
    case 4:
        if (bits <= 4)
            multiply_matrix((layout){4, bits, 2, limit}, op);
        break;
    case 3:
        if (bits <= 3)
            multiply_matrix((layout){3, bits, 8, limit}, op);
        break;
    case 2:
        if (bits <= 2)
            multiply_matrix((layout){2, bits, 4, limit}, op);
        break;
    case 1:
        if (bits <= 1)
            multiply_matrix((layout){1, bits, 8, limit}, op);
        break;
    }
}

void HW_OF_WIDTHS(hw_linear)(const hw_op *op);
void HW_OF_WIDTHS(hw_linear)(const hw_op *op) { linear(op, HW_W, HW_A); }

#endif
