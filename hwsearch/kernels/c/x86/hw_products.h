/* The matrix product of x86-64: some pixels times one or two vectors of filters, unit by unit.
 *
 * Every lane of a vector is a filter, 32 bits a unit of its weights; a unit of a pixel's codes is copied to all lanes. Weights lie
 * as [unit][vector][lane], each pixel's codes in a row of units, sums as [pixel][vector][lane]. */
#ifndef HW_PRODUCTS_H
#define HW_PRODUCTS_H

#include "x86/hw_x86.h"

#ifdef HW_X86

#if defined(__clang__)
#define HW_UNROLLED _Pragma("clang loop unroll(full)")
#else
#define HW_UNROLLED _Pragma("GCC unroll 8")
#endif

enum { VNNI_PIXELS = 8, VNNI_LANES = 16, AVX2_PIXELS = 4, AVX2_LANES = 8, SSE2_PIXELS = 4, SSE2_LANES = 4 };

typedef struct hw_products {
    const uint8_t *pixels[VNNI_PIXELS]; /* 4-byte aligned */
    const uint32_t *weights;            /* 64-byte aligned */
    int32_t *sums;                      /* 64-byte aligned */
    uint32_t units, limit;
    int more; /* add to the sums; else they are new */
} hw_products;

#define HW_EACH(p, v) \
    HW_UNROLLED for (uint32_t p = 0; p < pixels; p++) HW_UNROLLED for (uint32_t v = 0; v < vectors; v++)

HW_VNNI_INLINE void hw_loop_vnni(const hw_products *m, const uint32_t vectors)
{
    enum { pixels = VNNI_PIXELS, lanes = VNNI_LANES };
    const uint32_t *weights = m->weights;
    __m512i sums[pixels][2];
    HW_EACH(p, v) sums[p][v] = m->more ? _mm512_load_si512(m->sums + (p * vectors + v) * lanes) : _mm512_setzero_si512();
    for (uint32_t u = 0; u < m->units; u++, weights += vectors * lanes) {
        const __m512i w[2] = {_mm512_load_si512(weights), _mm512_load_si512(weights + (vectors - 1) * lanes)};
        HW_UNROLLED for (uint32_t p = 0; p < pixels; p++) {
            const __m512i codes = _mm512_set1_epi32((int)hw_load(m->pixels[p] + 4 * u));
            HW_UNROLLED for (uint32_t v = 0; v < vectors; v++) sums[p][v] = _mm512_dpbusd_epi32(sums[p][v], codes, w[v]);
        }
    }
    HW_EACH(p, v) _mm512_store_si512(m->sums + (p * vectors + v) * lanes, sums[p][v]);
}

HW_AVX2_INLINE __m256i hw_aligned_256(const void *values) { return _mm256_load_si256((const __m256i *)values); }

/* Sums of 16 bits are emptied before they could overflow. */
HW_AVX2_INLINE void hw_loop_avx2_bytes(const hw_products *m, const uint32_t vectors)
{
    enum { pixels = AVX2_PIXELS, lanes = AVX2_LANES };
    const uint32_t *weights = m->weights;
    for (uint32_t start = 0; start < m->units; start += m->limit) {
        const uint32_t end = m->units - start < m->limit ? m->units : start + m->limit;
        __m256i sums[pixels][2];
        HW_EACH(p, v) sums[p][v] = _mm256_setzero_si256();
        for (uint32_t u = start; u < end; u++, weights += vectors * lanes) {
            const __m256i w[2] = {hw_aligned_256(weights), hw_aligned_256(weights + (vectors - 1) * lanes)};
            HW_UNROLLED for (uint32_t p = 0; p < pixels; p++) {
                const __m256i codes = _mm256_set1_epi32((int)hw_load(m->pixels[p] + 4 * u));
                HW_UNROLLED for (uint32_t v = 0; v < vectors; v++)
                    sums[p][v] = _mm256_add_epi16(sums[p][v], _mm256_maddubs_epi16(codes, w[v]));
            }
        }
        HW_EACH(p, v)
        {
            int32_t *total = m->sums + (p * vectors + v) * lanes;
            const __m256i sum = _mm256_madd_epi16(sums[p][v], _mm256_set1_epi16(1));
            const int more = m->more || start;
            _mm256_store_si256((__m256i *)(void *)total, more ? _mm256_add_epi32(sum, hw_aligned_256(total)) : sum);
        }
    }
}

HW_AVX2_INLINE void hw_loop_avx2_words(const hw_products *m, const uint32_t vectors)
{
    enum { pixels = AVX2_PIXELS, lanes = AVX2_LANES };
    const uint32_t *weights = m->weights;
    __m256i sums[pixels][2];
    HW_EACH(p, v) sums[p][v] = m->more ? hw_aligned_256(m->sums + (p * vectors + v) * lanes) : _mm256_setzero_si256();
    for (uint32_t u = 0; u < m->units; u++, weights += vectors * lanes) {
        const __m256i w[2] = {hw_aligned_256(weights), hw_aligned_256(weights + (vectors - 1) * lanes)};
        HW_UNROLLED for (uint32_t p = 0; p < pixels; p++) {
            const __m256i codes = _mm256_set1_epi32((int)hw_load(m->pixels[p] + 4 * u));
            HW_UNROLLED for (uint32_t v = 0; v < vectors; v++)
                sums[p][v] = _mm256_add_epi32(sums[p][v], _mm256_madd_epi16(codes, w[v]));
        }
    }
    HW_EACH(p, v) _mm256_store_si256((__m256i *)(void *)(m->sums + (p * vectors + v) * lanes), sums[p][v]);
}

HW_INLINE __m128i hw_aligned_128(const void *values) { return _mm_load_si128((const __m128i *)values); }

HW_INLINE void hw_loop_sse2(const hw_products *m, const uint32_t vectors)
{
    enum { pixels = SSE2_PIXELS, lanes = SSE2_LANES };
    const uint32_t *weights = m->weights;
    __m128i sums[pixels][2];
    HW_EACH(p, v) sums[p][v] = m->more ? hw_aligned_128(m->sums + (p * vectors + v) * lanes) : _mm_setzero_si128();
    for (uint32_t u = 0; u < m->units; u++, weights += vectors * lanes) {
        const __m128i w[2] = {hw_aligned_128(weights), hw_aligned_128(weights + (vectors - 1) * lanes)};
        HW_UNROLLED for (uint32_t p = 0; p < pixels; p++) {
            const __m128i codes = _mm_set1_epi32((int)hw_load(m->pixels[p] + 4 * u));
            HW_UNROLLED for (uint32_t v = 0; v < vectors; v++)
                sums[p][v] = _mm_add_epi32(sums[p][v], _mm_madd_epi16(codes, w[v]));
        }
    }
    HW_EACH(p, v) _mm_store_si128((__m128i *)(void *)(m->sums + (p * vectors + v) * lanes), sums[p][v]);
}

#undef HW_EACH

HW_VNNI_CODE void hw_multiply_vnni(const hw_products *m, uint32_t vectors)
{
    if (vectors == 2)
        hw_loop_vnni(m, 2);
    else
        hw_loop_vnni(m, 1);
}

HW_AVX2_CODE void hw_multiply_avx2(const hw_products *m, uint32_t vectors, uint32_t codes)
{
    if (codes == 4 && vectors == 2)
        hw_loop_avx2_bytes(m, 2);
    else if (codes == 4)
        hw_loop_avx2_bytes(m, 1);
    else if (vectors == 2)
        hw_loop_avx2_words(m, 2);
    else
        hw_loop_avx2_words(m, 1);
}

HW_APART void hw_multiply_sse2(const hw_products *m, uint32_t vectors)
{
    if (vectors == 2)
        hw_loop_sse2(m, 2);
    else
        hw_loop_sse2(m, 1);
}

HW_INLINE void hw_multiply(const hw_form *form, const hw_products *m, uint32_t vectors)
{
    if (form->level == HW_VNNI)
        hw_multiply_vnni(m, vectors);
    else if (form->level == HW_AVX2)
        hw_multiply_avx2(m, vectors, form->codes);
    else
        hw_multiply_sse2(m, vectors);
}

#endif
#endif
