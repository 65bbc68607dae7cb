/* What the NEON kernels share (ARMv8.0-A: no dot products): rounding of vectors, codes of weights, rows of bytes.
 *
 * Vectors may lie at any address. Nothing is read beyond the end of a tensor or of the weights: the last vector of a row is
 * read byte by byte where it would be.
 */
#ifndef HW_NEON_H
#define HW_NEON_H

#include "portable/hw_portable.h"

#ifdef HW_NEON

#include <arm_neon.h>

/* How four accumulators become codes; see hw_scale. SQDMULH leaves the product's high word and one bit more, which the
 * rounding shift takes away: `right` is minus one more than hw_scale's shift. SQSHL saturates, as hw_raised does. */
typedef struct neon_scale {
    int32x4_t multiplier, left, right;
} neon_scale;

HW_INLINE neon_scale neon_make_scale(int32x4_t multiplier, int32x4_t shift)
{
    const int32x4_t left = vminq_s32(vmaxq_s32(vsubq_s32(vdupq_n_s32(33), shift), vdupq_n_s32(0)), vdupq_n_s32(31));
    return (neon_scale){multiplier, left, vnegq_s32(vmaxq_s32(vsubq_s32(shift, vdupq_n_s32(31)), vdupq_n_s32(2)))};
}

HW_INLINE neon_scale neon_one_scale(const hw_op *op)
{
    return neon_make_scale(vdupq_n_s32(op->multiplier[0]), vdupq_n_s32(op->shift[0]));
}

HW_INLINE int32x4_t neon_scaled(int32x4_t accumulators, neon_scale scale)
{
    return vrshlq_s32(vqdmulhq_s32(vqshlq_s32(accumulators, scale.left), scale.multiplier), scale.right);
}

/* Eight values to codes: zero point, clamp. */
HW_INLINE uint8x8_t neon_clamped(int32x4_t low, int32x4_t high, int32x4_t zero, uint8x8_t max)
{
    const uint16x4_t narrow = vqmovun_s32(vaddq_s32(low, zero));
    return vmin_u8(vqmovn_u16(vqmovun_high_s32(narrow, vaddq_s32(high, zero))), max);
}

/* Up to 16 bytes, the rest 0. */
HW_INLINE uint8x16_t neon_load_some(const uint8_t *bytes, uint32_t count)
{
    uint8_t some[16] = {0};
    for (uint32_t i = 0; i < count && i < 16; i++)
        some[i] = bytes[i];
    return vld1q_u8(some);
}

HW_INLINE int32x4_t neon_load_words(const int32_t *words, uint32_t count)
{
    int32_t some[4] = {0, 0, 0, 0};
    if (count >= 4)
        return vld1q_s32(words);
    for (uint32_t i = 0; i < count; i++)
        some[i] = words[i];
    return vld1q_s32(some);
}

HW_INLINE void neon_copy(uint8_t *to, const uint8_t *from, uint32_t count)
{
    if (count >= 16) {
        for (uint32_t i = 0; i + 16 < count; i += 16)
            vst1q_u8(to + i, vld1q_u8(from + i));
        vst1q_u8(to + count - 16, vld1q_u8(from + count - 16));
    } else if (count >= 8) {
        const uint8x8_t last = vld1_u8(from + count - 8);
        vst1_u8(to, vld1_u8(from));
        vst1_u8(to + count - 8, last);
    } else {
        HW_ROLLED
        for (uint32_t i = 0; i < count; i++)
            to[i] = from[i];
    }
}

HW_INLINE void neon_fill(uint8_t *to, uint8_t code, uint32_t count)
{
    const uint8x16_t codes = vdupq_n_u8(code);
    uint32_t i = 0;
    for (; i + 16 <= count; i += 16)
        vst1q_u8(to + i, codes);
    HW_ROLLED
    for (; i < count; i++)
        to[i] = code;
}

/* Where 16 codes of `stored` bits, which start at a byte, lie: the two bytes that hold each, and how far it is shifted. */
#define NEON_BYTES(s, i) (uint8_t)((i) * (s) / 8), (uint8_t)((i) * (s) / 8 + 1)
#define NEON_EIGHT(s, i) \
    NEON_BYTES(s, i), NEON_BYTES(s, i + 1), NEON_BYTES(s, i + 2), NEON_BYTES(s, i + 3), NEON_BYTES(s, i + 4), \
        NEON_BYTES(s, i + 5), NEON_BYTES(s, i + 6), NEON_BYTES(s, i + 7)
#define NEON_SHIFT(s, i) (int16_t)(-((i) * (s) % 8))
#define NEON_SHIFTS(s) \
    NEON_SHIFT(s, 0), NEON_SHIFT(s, 1), NEON_SHIFT(s, 2), NEON_SHIFT(s, 3), NEON_SHIFT(s, 4), NEON_SHIFT(s, 5), \
        NEON_SHIFT(s, 6), NEON_SHIFT(s, 7)

typedef struct neon_places {
    uint8_t low[16], high[16];
    int16_t shift[8];
} neon_places;

static const neon_places neon_codes_at[4] __attribute__((unused)) = {
    {{NEON_EIGHT(1, 0)}, {NEON_EIGHT(1, 8)}, {NEON_SHIFTS(1)}},
    {{NEON_EIGHT(2, 0)}, {NEON_EIGHT(2, 8)}, {NEON_SHIFTS(2)}},
    {{NEON_EIGHT(3, 0)}, {NEON_EIGHT(3, 8)}, {NEON_SHIFTS(3)}},
    {{NEON_EIGHT(4, 0)}, {NEON_EIGHT(4, 8)}, {NEON_SHIFTS(4)}},
};

/* The codes index .. index + 15 of a row, cut to their top `bits` bits; index is a multiple of 16. Beyond the row come
 * zeros or the codes of the next. */
HW_INLINE uint8x16_t neon_weights(const uint8_t *row, uint32_t row_bytes, uint32_t index, uint32_t stored, uint32_t bits)
{
    const uint32_t offset = index / 8 * stored, left = offset < row_bytes ? row_bytes - offset : 0;
    const int8_t cut = (int8_t)(stored - bits);
    if (stored == 8) {
        const uint8x16_t codes = left >= 16 ? vld1q_u8(row + offset) : neon_load_some(row + offset, left);
        return vshlq_u8(codes, vdupq_n_s8((int8_t)-cut));
    }
    const neon_places *at = &neon_codes_at[stored - 1];
    const uint8x16_t bytes =
        left >= 8 ? vcombine_u8(vld1_u8(row + offset), vdup_n_u8(0)) : neon_load_some(row + offset, left);
    const int16x8_t shift = vsubq_s16(vld1q_s16(at->shift), vdupq_n_s16(cut));
    const uint16x8_t low = vshlq_u16(vreinterpretq_u16_u8(vqtbl1q_u8(bytes, vld1q_u8(at->low))), shift);
    const uint16x8_t high = vshlq_u16(vreinterpretq_u16_u8(vqtbl1q_u8(bytes, vld1q_u8(at->high))), shift);
    return vandq_u8(vmovn_high_u16(vmovn_u16(low), high), vdupq_n_u8((uint8_t)((1u << bits) - 1u)));
}

/* Sums of the lanes of four vectors. */
HW_INLINE int32x4_t neon_sums(uint32x4_t a, uint32x4_t b, uint32x4_t c, uint32x4_t d)
{
    return vreinterpretq_s32_u32(vpaddq_u32(vpaddq_u32(a, b), vpaddq_u32(c, d)));
}

#endif
#endif
