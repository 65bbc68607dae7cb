/* hw_linear_w?a? on NEON: matrix times vector.
 *
 * Each weight is used once, so it is taken out of its stored byte in place: a vector of 16 bytes holds 8 / stored_bits parts,
 * each a shift and a mask away, and the input is arranged to match, once. Codes of 3 bits straddle bytes and are spread out
 * instead. Products of few bits add up in 16-bit lanes, as in hw_conv2d.c. sum (2u + 1 - 2^b) q = 2 sum u q - (2^b - 1) sum q.
 */
#include "neon/hw_neon.h"

#ifdef HW_NEON

enum { MOST_PARTS = 8 };

/* How weights are stored and multiplied; all compile-time constants. */
typedef struct layout {
    uint32_t stored, bits, parts; /* parts of a byte */
    uint32_t limit;               /* products that a 16-bit lane holds */
} layout;

HW_INLINE uint32_t step_codes(layout l) { return 16 * l.parts; }
HW_INLINE uint32_t step_bytes(layout l) { return l.stored == 3 ? 6 : 16; }

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

/* One part of a vector of stored bytes, as codes of `bits` bits. */
HW_INLINE uint8x16_t part_of(layout l, uint8x16_t bytes, uint32_t part)
{
    const uint8x16_t shifted = vshlq_u8(bytes, vdupq_n_s8((int8_t)-(int32_t)(part * l.stored + l.stored - l.bits)));
    return part + 1 == l.parts ? shifted : vandq_u8(shifted, vdupq_n_u8((uint8_t)((1u << l.bits) - 1u)));
}

/* The weights of one step, of which `left` bytes are the row's. */
HW_INLINE uint8x16_t weights_of(layout l, const uint8_t *row, uint32_t left)
{
    if (l.stored == 3)
        return neon_weights(row, left, 0, 3, l.bits);
    return left >= 16 ? vld1q_u8(row) : neon_load_some(row, left);
}

/* How many steps can read whole vectors of a row: a step of 3-bit codes uses 6 bytes and reads 8. */
HW_INLINE uint32_t whole_steps(layout l, uint32_t steps, uint32_t row_bytes)
{
    return l.stored == 3 && steps * 6 + 2 > row_bytes ? steps - 1 : steps;
}

HW_INLINE void multiply_step(layout l, uint8x16_t bytes, const uint8_t *arranged, uint16x8_t lanes[2], uint32x4_t *sum)
{
    HW_UNROLLED
    for (uint32_t part = 0; part < l.parts; part++) {
        const uint8x16_t codes = vld1q_u8(arranged + 16 * part), w = l.stored == 3 ? bytes : part_of(l, bytes, part);
        if (l.limit < l.parts) {
            *sum = vpadalq_u16(*sum, vmull_u8(vget_low_u8(w), vget_low_u8(codes)));
            *sum = vpadalq_u16(*sum, vmull_high_u8(w, codes));
        } else {
            lanes[0] = vmlal_u8(lanes[0], vget_low_u8(w), vget_low_u8(codes));
            lanes[1] = vmlal_high_u8(lanes[1], w, codes);
        }
    }
}

/* Sums of products of four rows with `steps` steps of arranged input; `left` bytes of each row are its own. */
HW_INLINE void multiply_rows(layout l, const uint8_t *const rows[4], uint32_t left, const uint8_t *arranged, uint32_t steps,
                             uint32x4_t sums[4])
{
    const uint32_t most = l.limit < l.parts ? steps : l.limit / l.parts;
    uint32_t offset = 0;
    while (steps) {
        const uint32_t count = steps < most ? steps : most;
        uint16x8_t lanes[4][2];
        HW_UNROLLED
        for (uint32_t f = 0; f < 4; f++)
            lanes[f][0] = lanes[f][1] = vdupq_n_u16(0);
        HW_ROLLED
        for (uint32_t i = 0; i < count; i++, arranged += step_codes(l), offset += step_bytes(l)) {
            HW_UNROLLED
            for (uint32_t f = 0; f < 4; f++)
                multiply_step(l, weights_of(l, rows[f] + offset, left), arranged, lanes[f], &sums[f]);
        }
        HW_UNROLLED
        for (uint32_t f = 0; f < 4; f++)
            if (l.limit >= l.parts)
                sums[f] = vpadalq_u16(vpadalq_u16(sums[f], lanes[f][0]), lanes[f][1]);
        steps -= count;
    }
}

HW_INLINE void store_outputs(const hw_op *op, uint32_t o, uint32_t count, int32x4_t accumulators)
{
    uint8_t codes[8];
    int32_t some[4];
    vst1q_s32(some, accumulators);
    if (op->multiplier) {
        const neon_scale scale = neon_make_scale(neon_load_words(op->multiplier + o, count), neon_load_words(op->shift + o, count));
        const int32x4_t values = neon_scaled(accumulators, scale);
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
    const uint32_t steps = whole_steps(l, inputs / step_codes(l), row_bytes), rest = inputs - steps * step_codes(l);
    const uint32_t done = steps * step_bytes(l), ends_in = (rest + step_codes(l) - 1) / step_codes(l);
    uint8_t last[16 * MOST_PARTS] = {0}, last_arranged[16 * MOST_PARTS], *arranged = op->scratch;
    uint32x4_t sum = vdupq_n_u32(0);
    for (uint32_t i = 0; i < steps; i++)
        arrange(l, op->input[0] + i * step_codes(l), arranged + i * step_codes(l));
    neon_copy(last, op->input[0] + steps * step_codes(l), rest);
    for (uint32_t i = 0; i < ends_in; i++)
        arrange(l, last + i * step_codes(l), last_arranged + i * step_codes(l));
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
        multiply_rows(l, rows, 16, arranged, steps, sums);
        for (uint32_t i = 0; i < ends_in; i++) {
            const uint32_t from = done + i * step_bytes(l);
            const uint8_t *const ends[4] = {rows[0] + from, rows[1] + from, rows[2] + from, rows[3] + from};
            multiply_rows(l, ends, row_bytes - from, last_arranged + i * step_codes(l), 1, sums);
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
            multiply_matrix((layout){3, bits, 1, limit}, op);
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

#define HW_LINEAR(W, A) \
    void hw_linear_w##W##a##A(const hw_op *op); \
    void hw_linear_w##W##a##A(const hw_op *op) { linear(op, W, A); }

#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w1a2)
HW_LINEAR(1, 2)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w1a4)
HW_LINEAR(1, 4)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w1a8)
HW_LINEAR(1, 8)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w2a2)
HW_LINEAR(2, 2)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w2a4)
HW_LINEAR(2, 4)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w2a8)
HW_LINEAR(2, 8)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w3a3)
HW_LINEAR(3, 3)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w3a4)
HW_LINEAR(3, 4)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w3a8)
HW_LINEAR(3, 8)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w4a2)
HW_LINEAR(4, 2)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w4a4)
HW_LINEAR(4, 4)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w4a8)
HW_LINEAR(4, 8)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w8a2)
HW_LINEAR(8, 2)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w8a4)
HW_LINEAR(8, 4)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w8a8)
HW_LINEAR(8, 8)
#endif

#endif
