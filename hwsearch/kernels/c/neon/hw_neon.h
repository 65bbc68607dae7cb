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

/* Before a loop over vectors that must stay in registers. Loops that vanish with a width cannot be unrolled: no fault. */
#ifdef __clang__
#pragma clang diagnostic ignored "-Wpass-failed"
#define HW_UNROLLED _Pragma("clang loop unroll(full)")
#else
#define HW_UNROLLED _Pragma("GCC unroll 16")
#endif

/* How four accumulators become codes; see hw_scale. SQDMULH leaves the product's high word and one bit more, which the
 * rounding shift takes away: `right` is minus one more than hw_scale's shift. SQSHL saturates, as hw_raised does; most scales
 * shift nothing left, and are not `raised`. */
typedef struct neon_scale {
    int32x4_t multiplier, left, right;
    int raised;
} neon_scale;

HW_INLINE neon_scale neon_make_scale(int32x4_t multiplier, int32x4_t shift)
{
    const int32x4_t left = vminq_s32(vmaxq_s32(vsubq_s32(vdupq_n_s32(33), shift), vdupq_n_s32(0)), vdupq_n_s32(31));
    const int32x4_t right = vnegq_s32(vmaxq_s32(vsubq_s32(shift, vdupq_n_s32(31)), vdupq_n_s32(2)));
    return (neon_scale){multiplier, left, right, vmaxvq_s32(left) > 0};
}

HW_INLINE neon_scale neon_one_scale(const hw_op *op)
{
    return neon_make_scale(vdupq_n_s32(op->multiplier[0]), vdupq_n_s32(op->shift[0]));
}

HW_INLINE int32x4_t neon_scaled(int32x4_t accumulators, neon_scale scale)
{
    const int32x4_t raised = scale.raised ? vqshlq_s32(accumulators, scale.left) : accumulators;
    return vrshlq_s32(vqdmulhq_s32(raised, scale.multiplier), scale.right);
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

HW_INLINE void neon_store_word(uint8_t *to, uint32_t word) { __builtin_memcpy(to, &word, 4); }

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

/* Where eight codes of `stored` bits, which start at a byte, lie: the byte that holds the start of each, how far it is
 * shifted right, and the next byte left, which only codes of 3 bits need. */
#define NEON_BYTE(s, i) (uint8_t)((i) * (s) / 8)
#define NEON_RIGHT(s, i) (int8_t)(-((i) * (s) % 8))
#define NEON_LEFT(s, i) (int8_t)(8 - (i) * (s) % 8)
#define NEON_EIGHT(of, s) of(s, 0), of(s, 1), of(s, 2), of(s, 3), of(s, 4), of(s, 5), of(s, 6), of(s, 7)
#define NEON_PLACES(s) \
    { \
        {NEON_EIGHT(NEON_BYTE, s)}, {NEON_EIGHT(NEON_RIGHT, s)}, {NEON_EIGHT(NEON_LEFT, s)} \
    }

typedef struct neon_places {
    uint8_t byte[8];
    int8_t right[8], left[8];
} neon_places;

static const neon_places neon_codes_at[4]
    __attribute__((unused)) = {NEON_PLACES(1), NEON_PLACES(2), NEON_PLACES(3), NEON_PLACES(4)};

/* Eight codes from the bytes that hold them, cut to their top `bits` bits. */
HW_INLINE uint8x8_t neon_eight(uint8x8_t bytes, uint32_t stored, uint32_t bits)
{
    const neon_places *at = &neon_codes_at[stored - 1];
    const uint8x8_t place = vld1_u8(at->byte);
    const int8x8_t cut = vdup_n_s8((int8_t)(stored - bits));
    uint8x8_t codes = vshl_u8(vtbl1_u8(bytes, place), vsub_s8(vld1_s8(at->right), cut));
    if (stored == 3)
        codes = vorr_u8(codes, vshl_u8(vtbl1_u8(bytes, vadd_u8(place, vdup_n_u8(1))), vsub_s8(vld1_s8(at->left), cut)));
    return vand_u8(codes, vdup_n_u8((uint8_t)((1u << bits) - 1u)));
}

/* The codes index .. index + 15 of a row, cut likewise; index is a multiple of 16. Beyond the row come zeros or the codes of
 * the next. */
HW_INLINE uint8x16_t neon_weights(const uint8_t *row, uint32_t row_bytes, uint32_t index, uint32_t stored, uint32_t bits)
{
    const uint32_t offset = index / 8 * stored, left = offset < row_bytes ? row_bytes - offset : 0;
    if (stored == 8) {
        const uint8x16_t codes = left >= 16 ? vld1q_u8(row + offset) : neon_load_some(row + offset, left);
        return bits == 8 ? codes : vshlq_u8(codes, vdupq_n_s8((int8_t)-(int32_t)(8 - bits)));
    }
    const uint8x8_t bytes = left >= 8 ? vld1_u8(row + offset) : vget_low_u8(neon_load_some(row + offset, left));
    const uint8x8_t next = vreinterpret_u8_u64(vshl_u64(vreinterpret_u64_u8(bytes), vdup_n_s64(-(int64_t)(8 * stored))));
    return vcombine_u8(neon_eight(bytes, stored, bits), neon_eight(next, stored, bits));
}

/* Sums of the lanes of four vectors. */
HW_INLINE int32x4_t neon_sums(uint32x4_t a, uint32x4_t b, uint32x4_t c, uint32x4_t d)
{
    return vreinterpretq_s32_u32(vpaddq_u32(vpaddq_u32(a, b), vpaddq_u32(c, d)));
}

#endif
#endif
