/* What the kernels for x86-64 share: the choice of instructions, weights as bytes, and sums that become codes.
 *
 * Three forms of product are known, all exact. The best that the processor has is chosen when a kernel is called:
 *
 *     SSE2 (every x86-64)   pairs of 16-bit numbers       u * q
 *     AVX2                  the same, twice as wide; where two products fit 16 bits, fours of bytes
 *     AVX-512 VNNI          fours of bytes, four times as wide
 *
 * A weight w = 2u + 1 - 2^b takes part as v = u - offset, so that it fits a signed byte: offset is 128 if b = 8 and bytes are
 * multiplied, else 0. What is left is put back once per sum: sum w q = 2 sum v q + (2 offset + 1 - 2^b) sum q.
 *
 * Kernels for x86-64 take their working memory, at most about 120 KB, from the stack; op->scratch is made for small memories.
 */
#ifndef HW_X86_H
#define HW_X86_H

#include "portable/hw_portable.h"

#ifdef HW_X86

#include <cpuid.h>
#include <immintrin.h>

#define HW_AVX2_TARGET __attribute__((target("avx2")))
#define HW_VNNI_TARGET __attribute__((target("avx2,avx512f,avx512bw,avx512vl,avx512vnni")))
#define HW_AVX2_CODE HW_APART HW_AVX2_TARGET
#define HW_VNNI_CODE HW_APART HW_VNNI_TARGET
#define HW_AVX2_INLINE HW_INLINE HW_AVX2_TARGET
#define HW_VNNI_INLINE HW_INLINE HW_VNNI_TARGET

enum { HW_SSE2, HW_AVX2, HW_VNNI };

/* What processor and system have. __builtin_cpu_supports would do, but always says no where zig links it. Which bits of XCR0
 * stand for saved registers is recalled from Intel's manual, not looked up. */
HW_APART int hw_detect(void)
{
    enum { YMM_STATE = 0x6, ZMM_STATE = 0xE6 };
    const uint32_t avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512VL;
    uint32_t a, b, c, d, saved, unused;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return HW_SSE2;
    __asm__ volatile("xgetbv" : "=a"(saved), "=d"(unused) : "c"(0));
    if ((saved & YMM_STATE) != YMM_STATE || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2))
        return HW_SSE2;
    return (saved & ZMM_STATE) == ZMM_STATE && (b & avx512) == avx512 && c & bit_AVX512VNNI ? HW_VNNI : HW_AVX2;
}

/* The best form there is, found once, since CPUID takes long on virtual machines. -DHW_X86_LEVEL=0, 1 or 2 fixes the choice, for
 * tests of each; the processor must have what it names. */
HW_INLINE int hw_level(void)
{
#ifdef HW_X86_LEVEL
    return HW_X86_LEVEL;
#else
    static int known = -1;
    int level = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (level < 0) {
        level = hw_detect();
        __atomic_store_n(&known, level, __ATOMIC_RELAXED);
    }
    return level;
#endif
}

/* How the products of one precision are multiplied. A unit is 32 bits: 4 codes, or 2 widened to 16 bits. */
typedef struct hw_form {
    int level;
    uint32_t bits, codes; /* of a weight; in a unit */
    uint32_t limit;       /* units whose products' sums fit 16 bits, where such sums are made */
    int32_t offset, centre;
} hw_form;

HW_INLINE hw_form hw_make_form(uint32_t bits, uint32_t activation_bits)
{
    const int level = hw_level(), fits = bits < 8 || activation_bits < 8;
    const int bytes = level == HW_VNNI || (level == HW_AVX2 && fits);
    const int32_t offset = bytes && bits == 8 ? 128 : 0;
    const uint32_t largest = offset ? 128u : (1u << bits) - 1u;
    return (hw_form){
        .level = level,
        .bits = bits,
        .codes = bytes ? 4 : 2,
        .limit = 32767u / (2u * largest * ((1u << activation_bits) - 1u)),
        .offset = offset,
        .centre = 2 * offset + 1 - (1 << bits),
    };
}

/* Codes of twice `width` bits, one a byte, to codes of `width` bits. */
HW_INLINE void hw_split(__m128i codes, int width, __m128i halves[2])
{
    const __m128i mask = _mm_set1_epi8((char)((1 << width) - 1));
    const __m128i low = _mm_and_si128(codes, mask), high = _mm_and_si128(_mm_srli_epi16(codes, width), mask);
    halves[0] = _mm_unpacklo_epi8(low, high);
    halves[1] = _mm_unpackhi_epi8(low, high);
}

/* Eight codes of 3 bits to eight bytes; halves are spread three times. */
HW_INLINE uint64_t hw_spread_threes(const uint8_t *bytes)
{
    uint64_t codes = bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16;
    codes = (codes & 0xFFFu) | (codes & 0xFFF000u) << 20;
    codes = (codes & 0x3F0000003Fu) | (codes & 0xFC000000FC0u) << 10;
    return (codes & 0x7000700070007u) | (codes & 0x38003800380038u) << 5;
}

/* 32 codes from 4 * stored bytes, as bytes v. */
HW_INLINE void hw_spread(const uint8_t *bytes, uint32_t stored, uint32_t bits, int32_t offset, uint8_t *values)
{
    const __m128i *from = (const __m128i *)(const void *)bytes;
    __m128i *to = (__m128i *)(void *)values, codes[2];
    if (stored == 8) {
        codes[0] = _mm_loadu_si128(from);
        codes[1] = _mm_loadu_si128(from + 1);
    } else if (stored == 4) {
        hw_split(_mm_loadu_si128(from), 4, codes);
    } else if (stored == 3) {
        codes[0] = _mm_set_epi64x((int64_t)hw_spread_threes(bytes + 3), (int64_t)hw_spread_threes(bytes));
        codes[1] = _mm_set_epi64x((int64_t)hw_spread_threes(bytes + 9), (int64_t)hw_spread_threes(bytes + 6));
    } else if (stored == 2) {
        hw_split(_mm_loadl_epi64(from), 4, codes);
        hw_split(codes[0], 2, codes);
    } else {
        hw_split(_mm_cvtsi32_si128((int)hw_load(bytes)), 4, codes);
        hw_split(codes[0], 2, codes);
        hw_split(codes[0], 1, codes);
    }
    const __m128i shift = _mm_cvtsi32_si128((int)(stored - bits)), mask = _mm_set1_epi8((char)((1u << bits) - 1u));
    for (uint32_t i = 0; i < 2; i++) {
        const __m128i cut = _mm_and_si128(_mm_srl_epi16(codes[i], shift), mask);
        _mm_storeu_si128(to + i, _mm_xor_si128(cut, _mm_set1_epi8((char)offset)));
    }
}

HW_INLINE void hw_spread_row(const uint8_t *bytes, uint32_t left, uint32_t count, uint32_t stored, const hw_form *form,
                             uint8_t *values)
{
    for (uint32_t i = 0; i < count; i += 32, bytes += 4 * stored, values += 32) {
        if (left >= 4 * stored) {
            hw_spread(bytes, stored, form->bits, form->offset, values);
            left -= 4 * stored;
            continue;
        }
        uint8_t rest[32] = {0};
        memcpy(rest, bytes, left);
        hw_spread(rest, stored, form->bits, form->offset, values);
        left = 0;
    }
}

/* Weights `first` .. `first + count - 1` of a row as bytes v, rounded up to a multiple of 32; `first` is a multiple of 8. What
 * lies beyond the row is not defined; it is multiplied by zeros. */
HW_APART void hw_row_values(const hw_op *op, const hw_form *form, const uint8_t *row, uint32_t row_bytes, uint32_t first,
                            uint32_t count, uint8_t *values)
{
    const uint32_t stored = op->stored_bits, start = first / 8 * stored, left = row_bytes - start;
    const uint8_t *bytes = row + start;
    if (stored == 8)
        hw_spread_row(bytes, left, count, 8, form, values);
    else if (stored == 4)
        hw_spread_row(bytes, left, count, 4, form, values);
    else if (stored == 3)
        hw_spread_row(bytes, left, count, 3, form, values);
    else if (stored == 2)
        hw_spread_row(bytes, left, count, 2, form, values);
    else
        hw_spread_row(bytes, left, count, 1, form, values);
}

/* Bytes to 16 bits, a multiple of 16 of them; the places may not overlap. */
HW_INLINE void hw_widen(const uint8_t *bytes, uint32_t count, uint16_t *words)
{
    const __m128i zero = _mm_setzero_si128();
    for (uint32_t i = 0; i < count; i += 16) {
        const __m128i codes = _mm_loadu_si128((const __m128i *)(const void *)(bytes + i));
        _mm_storeu_si128((__m128i *)(void *)(words + i), _mm_unpacklo_epi8(codes, zero));
        _mm_storeu_si128((__m128i *)(void *)(words + i + 8), _mm_unpackhi_epi8(codes, zero));
    }
}

/* Sum of `count` codes. */
HW_INLINE int32_t hw_sum_codes(const uint8_t *codes, uint32_t count)
{
    __m128i sums = _mm_setzero_si128();
    uint32_t i = 0;
    for (; i + 16 <= count; i += 16)
        sums = _mm_add_epi64(
            sums, _mm_sad_epu8(_mm_loadu_si128((const __m128i *)(const void *)(codes + i)), _mm_setzero_si128()));
    int32_t sum = _mm_cvtsi128_si32(sums) + _mm_cvtsi128_si32(_mm_srli_si128(sums, 8));
    for (; i < count; i++)
        sum += codes[i];
    return sum;
}

/* What the sums of up to HW_CHANNELS neighbouring channels become codes with; see hw_scale. */
enum { HW_CHANNELS = 256 };

typedef struct hw_channels {
    int32_t bias[HW_CHANNELS], multiplier[HW_CHANNELS], shift[HW_CHANNELS], half[HW_CHANNELS];
    int32_t left[HW_CHANNELS], limit[HW_CHANNELS];
    int32_t zero, max;
} hw_channels;

/* Channels beyond the last repeat it. */
HW_APART void hw_fill_channels(const hw_op *op, uint32_t first, uint32_t count, hw_channels *c)
{
    c->zero = op->output_zero, c->max = op->output_max;
    for (uint32_t i = 0; i < ((count + 15u) & ~15u); i++) {
        const uint32_t channel = first + (i < count ? i : count - 1);
        c->bias[i] = op->bias[channel];
        if (op->multiplier == 0)
            continue;
        const hw_scale scale = hw_make_scale(op->multiplier[channel], op->shift[channel]);
        c->multiplier[i] = scale.multiplier, c->shift[i] = scale.shift, c->half[i] = scale.half;
        c->left[i] = scale.left, c->limit[i] = scale.limit;
    }
}

/* Sums of some pixels and channels on their way to codes or logits: accumulator = bias + (sum << doubled) + extra[pixel].
 * The sums lie `width` apart from pixel to pixel, the outputs op->out_c apart. */
typedef struct hw_block {
    const int32_t *sums, *extra;
    uint32_t width, pixels, count; /* `count` channels, from `first` of the hw_channels on */
    uint32_t first, index;         /* of the first output */
    int doubled;
} hw_block;

HW_INLINE int32_t hw_accumulator(const hw_channels *c, const hw_block *b, uint32_t pixel, uint32_t i)
{
    const uint32_t sum = (uint32_t)b->sums[pixel * b->width + i] << b->doubled;
    return (int32_t)((uint32_t)c->bias[b->first + i] + sum + (uint32_t)b->extra[pixel]);
}

HW_INLINE void hw_finish_logits(const hw_op *op, const hw_channels *c, const hw_block *b)
{
    for (uint32_t p = 0; p < b->pixels; p++)
        for (uint32_t i = 0; i < b->count; i++)
            ((int32_t *)op->output)[b->index + p * op->out_c + i] = hw_accumulator(c, b, p, i);
}

HW_APART void hw_finish_sse2(const hw_op *op, const hw_channels *c, const hw_block *b)
{
    uint8_t *output = (uint8_t *)op->output + b->index;
    for (uint32_t p = 0; p < b->pixels; p++, output += op->out_c)
        for (uint32_t i = 0; i < b->count; i++) {
            const uint32_t f = b->first + i;
            const hw_scale scale = {c->multiplier[f], c->shift[f], c->half[f], c->left[f], c->limit[f]};
            output[i] = hw_code(hw_raised(hw_accumulator(c, b, p, i), scale), scale, c->zero, c->max);
        }
}

HW_AVX2_INLINE __m256i hw_load_256(const int32_t *values)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)values);
}

/* Eight channels of one pixel, in the lowest 8 bytes. */
HW_AVX2_INLINE __m128i hw_eight_codes(const hw_channels *c, uint32_t f, __m256i accumulator)
{
    const __m256i limit = hw_load_256(c->limit + f), multiplier = hw_load_256(c->multiplier + f);
    const __m256i above = _mm256_cmpgt_epi32(accumulator, limit);
    const __m256i below = _mm256_cmpgt_epi32(_mm256_sub_epi32(_mm256_setzero_si256(), limit), accumulator);
    __m256i raised = _mm256_sllv_epi32(accumulator, hw_load_256(c->left + f));
    raised = _mm256_blendv_epi8(raised, _mm256_set1_epi32(INT32_MAX), above);
    raised = _mm256_blendv_epi8(raised, _mm256_set1_epi32(-INT32_MAX), below);
    const __m256i even = _mm256_mul_epi32(raised, multiplier);
    const __m256i odd = _mm256_mul_epi32(_mm256_srli_epi64(raised, 32), _mm256_srli_epi64(multiplier, 32));
    const __m256i high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
    __m256i code = _mm256_srav_epi32(_mm256_add_epi32(high, hw_load_256(c->half + f)), hw_load_256(c->shift + f));
    code = _mm256_add_epi32(code, _mm256_set1_epi32(c->zero));
    code = _mm256_min_epi32(_mm256_max_epi32(code, _mm256_setzero_si256()), _mm256_set1_epi32(c->max));
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
    return _mm_packus_epi16(words, words);
}

HW_AVX2_CODE void hw_finish_avx2(const hw_op *op, const hw_channels *c, const hw_block *b)
{
    const __m128i doubled = _mm_cvtsi32_si128(b->doubled);
    uint8_t *output = (uint8_t *)op->output + b->index;
    for (uint32_t p = 0; p < b->pixels; p++, output += op->out_c) {
        const __m256i extra = _mm256_set1_epi32(b->extra[p]);
        for (uint32_t i = 0; i < b->count; i += 8) {
            const __m256i sums = _mm256_sll_epi32(hw_load_256(b->sums + p * b->width + i), doubled);
            const __m256i bias = _mm256_add_epi32(hw_load_256(c->bias + b->first + i), extra);
            const __m128i codes = hw_eight_codes(c, b->first + i, _mm256_add_epi32(sums, bias));
            if (b->count - i >= 8)
                _mm_storel_epi64((__m128i *)(void *)(output + i), codes);
            else {
                uint64_t rest = (uint64_t)_mm_cvtsi128_si64(codes);
                for (uint32_t j = i; j < b->count; j++, rest >>= 8)
                    output[j] = (uint8_t)rest;
            }
        }
    }
}

HW_VNNI_INLINE __m512i hw_load_512(const int32_t *values) { return _mm512_loadu_si512(values); }

/* Sixteen channels of one pixel. */
HW_VNNI_INLINE __m128i hw_sixteen_codes(const hw_channels *c, uint32_t f, __m512i accumulator)
{
    const __m512i limit = hw_load_512(c->limit + f), multiplier = hw_load_512(c->multiplier + f);
    const __mmask16 above = _mm512_cmpgt_epi32_mask(accumulator, limit);
    const __mmask16 below = _mm512_cmplt_epi32_mask(accumulator, _mm512_sub_epi32(_mm512_setzero_si512(), limit));
    __m512i raised = _mm512_sllv_epi32(accumulator, hw_load_512(c->left + f));
    raised = _mm512_mask_mov_epi32(raised, above, _mm512_set1_epi32(INT32_MAX));
    raised = _mm512_mask_mov_epi32(raised, below, _mm512_set1_epi32(-INT32_MAX));
    const __m512i even = _mm512_mul_epi32(raised, multiplier);
    const __m512i odd = _mm512_mul_epi32(_mm512_srli_epi64(raised, 32), _mm512_srli_epi64(multiplier, 32));
    const __m512i high = _mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), 0xAAAA, odd);
    __m512i code = _mm512_srav_epi32(_mm512_add_epi32(high, hw_load_512(c->half + f)), hw_load_512(c->shift + f));
    code = _mm512_add_epi32(code, _mm512_set1_epi32(c->zero));
    code = _mm512_min_epi32(_mm512_max_epi32(code, _mm512_setzero_si512()), _mm512_set1_epi32(c->max));
    return _mm512_cvtepi32_epi8(code);
}

HW_VNNI_CODE void hw_finish_vnni(const hw_op *op, const hw_channels *c, const hw_block *b)
{
    const __m128i doubled = _mm_cvtsi32_si128(b->doubled);
    uint8_t *output = (uint8_t *)op->output + b->index;
    for (uint32_t p = 0; p < b->pixels; p++, output += op->out_c) {
        const __m512i extra = _mm512_set1_epi32(b->extra[p]);
        for (uint32_t i = 0; i < b->count; i += 16) {
            const __m512i sums = _mm512_sll_epi32(hw_load_512(b->sums + p * b->width + i), doubled);
            const __m512i bias = _mm512_add_epi32(hw_load_512(c->bias + b->first + i), extra);
            const __m128i codes = hw_sixteen_codes(c, b->first + i, _mm512_add_epi32(sums, bias));
            if (b->count - i >= 16)
                _mm_storeu_si128((__m128i *)(void *)(output + i), codes);
            else
                _mm_mask_storeu_epi8(output + i, (__mmask16)((1u << (b->count - i)) - 1u), codes);
        }
    }
}

HW_INLINE void hw_finish_block(const hw_op *op, int level, const hw_channels *c, const hw_block *b)
{
    if (op->multiplier == 0)
        hw_finish_logits(op, c, b);
    else if (level == HW_VNNI)
        hw_finish_vnni(op, c, b);
    else if (level == HW_AVX2)
        hw_finish_avx2(op, c, b);
    else
        hw_finish_sse2(op, c, b);
}

#endif
#endif
