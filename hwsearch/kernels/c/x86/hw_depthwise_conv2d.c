/* hw_depthwise_conv2d_w?a? for x86-64: 16 channels at a time, two taps of the window in one multiplication.
 *
 * Codes of two taps are interleaved and widened to pairs of 16 bits, as the weights 2u + 1 - 2^b are; their products are summed in
 * 32 bits. Codes are read in place, of a run of pixels whose windows lie inside the input at a time; only where 16 of them would
 * reach beyond the input, they are copied. A window of more than TAPS taps is cut, and its weights expanded for each
 * run anew.
 */
#include "x86/hw_x86.h"

#if defined(HW_X86) && defined(HW_W)

enum { LANES = 16, TAPS = 128, RUN = 16 };

/* `pixels` windows, `step` codes apart, times one vector of weights per pair of taps. */
typedef struct run {
    const uint8_t *taps[TAPS + 1];                        /* of the first pixel; 16 codes may be read from each */
    uint32_t weights[TAPS / 2 * LANES] __attribute__((aligned(64))); /* [pair][lane]: two of 16 bits */
    int32_t sums[RUN * LANES] __attribute__((aligned(64)));          /* [pixel][lane] */
    uint8_t padding[LANES], copies[TAPS * LANES];
    uint32_t pixels, step, pairs;
    int more; /* add to the sums; else they are new */
} run;

HW_INLINE __m128i load_codes(const uint8_t *codes) { return _mm_loadu_si128((const __m128i *)(const void *)codes); }

/* `pixels` neighbours from `p` on. */
HW_VNNI_INLINE void sum_pixels_vnni(run *r, uint32_t p, const uint32_t pixels)
{
    __m512i sums[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    for (uint32_t q = 0; q < pixels && r->more; q++)
        sums[q] = _mm512_load_si512(r->sums + (p + q) * LANES);
    for (uint32_t i = 0; i < r->pairs; i++) {
        const uint8_t *const first = r->taps[2 * i] + p * r->step, *const second = r->taps[2 * i + 1] + p * r->step;
        const __m512i weights = _mm512_load_si512(r->weights + i * LANES);
        for (uint32_t q = 0; q < pixels; q++) {
            const __m128i a = load_codes(first + q * r->step), b = load_codes(second + q * r->step);
            const __m256i both = _mm256_set_m128i(_mm_unpackhi_epi8(a, b), _mm_unpacklo_epi8(a, b));
            sums[q] = _mm512_dpwssd_epi32(sums[q], _mm512_cvtepu8_epi16(both), weights);
        }
    }
    for (uint32_t q = 0; q < pixels; q++)
        _mm512_store_si512(r->sums + (p + q) * LANES, sums[q]);
}

HW_VNNI_CODE void sum_run_vnni(run *r)
{
    uint32_t p = 0;
    for (; p + 2 <= r->pixels; p += 2)
        sum_pixels_vnni(r, p, 2);
    if (p < r->pixels)
        sum_pixels_vnni(r, p, 1);
}

HW_AVX2_INLINE void sum_pixels_avx2(run *r, uint32_t p, const uint32_t pixels)
{
    __m256i *const totals = (__m256i *)(void *)(r->sums + p * LANES), sums[2][2];
    for (uint32_t q = 0; q < pixels; q++)
        for (uint32_t half = 0; half < 2; half++)
            sums[q][half] = r->more ? totals[2 * q + half] : _mm256_setzero_si256();
    for (uint32_t i = 0; i < r->pairs; i++) {
        const uint8_t *const first = r->taps[2 * i] + p * r->step, *const second = r->taps[2 * i + 1] + p * r->step;
        const __m256i *const weights = (const __m256i *)(const void *)(r->weights + i * LANES), low = weights[0], high = weights[1];
        for (uint32_t q = 0; q < pixels; q++) {
            const __m128i a = load_codes(first + q * r->step), b = load_codes(second + q * r->step);
            const __m256i lower = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(a, b));
            const __m256i upper = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(a, b));
            sums[q][0] = _mm256_add_epi32(sums[q][0], _mm256_madd_epi16(lower, low));
            sums[q][1] = _mm256_add_epi32(sums[q][1], _mm256_madd_epi16(upper, high));
        }
    }
    for (uint32_t q = 0; q < pixels; q++)
        totals[2 * q] = sums[q][0], totals[2 * q + 1] = sums[q][1];
}

HW_AVX2_CODE void sum_run_avx2(run *r)
{
    uint32_t p = 0;
    for (; p + 2 <= r->pixels; p += 2)
        sum_pixels_avx2(r, p, 2);
    if (p < r->pixels)
        sum_pixels_avx2(r, p, 1);
}

HW_APART void sum_run_sse2(run *r)
{
    const __m128i zero = _mm_setzero_si128();
    for (uint32_t p = 0; p < r->pixels; p++) {
        __m128i *const sums = (__m128i *)(void *)(r->sums + p * LANES), s[4] = {zero, zero, zero, zero};
        for (uint32_t i = 0; i < r->pairs; i++) {
            const __m128i a = load_codes(r->taps[2 * i] + p * r->step), b = load_codes(r->taps[2 * i + 1] + p * r->step);
            const __m128i low = _mm_unpacklo_epi8(a, b), high = _mm_unpackhi_epi8(a, b);
            const __m128i *weights = (const __m128i *)(const void *)(r->weights + i * LANES);
            s[0] = _mm_add_epi32(s[0], _mm_madd_epi16(_mm_unpacklo_epi8(low, zero), weights[0]));
            s[1] = _mm_add_epi32(s[1], _mm_madd_epi16(_mm_unpackhi_epi8(low, zero), weights[1]));
            s[2] = _mm_add_epi32(s[2], _mm_madd_epi16(_mm_unpacklo_epi8(high, zero), weights[2]));
            s[3] = _mm_add_epi32(s[3], _mm_madd_epi16(_mm_unpackhi_epi8(high, zero), weights[3]));
        }
        for (uint32_t i = 0; i < 4; i++)
            sums[i] = r->more ? _mm_add_epi32(sums[i], s[i]) : s[i];
    }
}

/* Weights of taps `first` .. `first + count - 1` of the channels from `c` on; those beyond the last repeat it. */
HW_APART void expand_lanes(const hw_op *op, const hw_form *form, uint32_t c, uint32_t first, uint32_t count, uint32_t *weights)
{
    const uint32_t row_bytes = hw_row_bytes((uint32_t)op->kernel_h * op->kernel_w, op->stored_bits);
    const int32_t centre = 1 - (1 << form->bits);
    for (uint32_t lane = 0; lane < LANES; lane++) {
        const uint32_t channel = c + lane < op->in_c ? c + lane : op->in_c - 1u;
        uint8_t values[TAPS];
        hw_row_values(op, form, op->weights + channel * row_bytes, row_bytes, first, count, values);
        for (uint32_t t = 0; t < count; t += 2) {
            const uint32_t low = (uint32_t)(2 * values[t] + centre) & 0xFFFFu;
            const uint32_t high = t + 1 < count ? (uint32_t)(2 * values[t + 1] + centre) : 0;
            weights[t / 2 * LANES + lane] = low | high << 16;
        }
    }
}

/* Where a run of pixels begins: the input row and column of its first window's first tap. */
typedef struct place {
    int32_t top, left;
    int inside; /* all that is read lies inside the input */
} place;

/* Find taps `first` .. `first + count - 1`. */
HW_INLINE void find_taps(const hw_op *op, run *r, place at, uint32_t c, uint32_t first, uint32_t count)
{
    const uint32_t channels = op->in_c - c < LANES ? op->in_c - c : LANES;
    const uint8_t *const end = op->input[0] + (uint32_t)op->in_h * op->in_w * op->in_c;
    const int32_t top = at.top + (int32_t)(first / op->kernel_w);
    int32_t u = (int32_t)(first % op->kernel_w);
    uint32_t t = 0;
    for (int32_t v = top; t < count; v++, u = 0) {
        const uint8_t *row = op->input[0] + (uint32_t)v * op->in_w * op->in_c + c;
        for (; u < op->kernel_w && t < count; u++, t++) {
            const int32_t x = at.left + u;
            const uint8_t *const codes = row + (uint32_t)x * op->in_c;
            if (at.inside) {
                r->taps[t] = codes;
            } else if (v < 0 || v >= op->in_h || x < 0 || x >= op->in_w) {
                r->taps[t] = r->padding;
            } else if (codes + LANES <= end) {
                r->taps[t] = codes;
            } else {
                r->taps[t] = memcpy(r->copies + t * LANES, codes, channels);
            }
        }
    }
    r->taps[count] = r->taps[count - 1]; /* the partner of an odd last tap; its weight is 0 */
}

/* How many pixels from column `x` on may be read in place; 0 if the first may not. */
HW_INLINE uint32_t count_inside(const hw_op *op, place at, uint32_t x, uint32_t c)
{
    const uint32_t step = (uint32_t)op->stride_w * op->in_c, size = (uint32_t)op->in_h * op->in_w * op->in_c;
    const int32_t room = op->in_w - op->kernel_w - at.left;
    if (at.top < 0 || at.top + op->kernel_h > op->in_h || at.left < 0 || room < 0)
        return 0;
    uint32_t pixels = (uint32_t)hw_smaller(room / op->stride_w + 1, hw_smaller(RUN, op->out_w - (int32_t)x));
    const uint32_t row = (uint32_t)at.top + op->kernel_h - 1u, column = (uint32_t)at.left + op->kernel_w - 1u;
    const uint32_t last = (row * op->in_w + column) * op->in_c + c;
    while (pixels && last + (pixels - 1) * step + LANES > size)
        pixels--;
    return pixels;
}

/* 16 channels from `c` on. */
HW_INLINE void convolve_channels(const hw_op *op, const hw_form *form, run *r, uint32_t c)
{
    const uint32_t taps = (uint32_t)op->kernel_h * op->kernel_w, count = op->in_c - c < LANES ? op->in_c - c : LANES;
    const int32_t extra[RUN] = {0};
    hw_channels channels;
    hw_fill_channels(op, c, count, &channels);
    if (taps <= TAPS)
        expand_lanes(op, form, c, 0, taps, r->weights);
    for (uint32_t y = 0; y < op->out_h; y++)
        for (uint32_t x = 0; x < op->out_w; x += r->pixels) {
            place at = {.top = (int32_t)(y * op->stride_h) - op->pad_h, .left = (int32_t)(x * op->stride_w) - op->pad_w};
            r->pixels = count_inside(op, at, x, c);
            at.inside = r->pixels > 0;
            r->pixels += !at.inside;
            for (uint32_t first = 0; first < taps; first += TAPS) {
                const uint32_t part = taps - first < TAPS ? taps - first : TAPS;
                r->pairs = (part + 1) / 2, r->more = first > 0;
                find_taps(op, r, at, c, first, part);
                if (taps > TAPS)
                    expand_lanes(op, form, c, first, part, r->weights);
                if (form->level == HW_VNNI)
                    sum_run_vnni(r);
                else if (form->level == HW_AVX2)
                    sum_run_avx2(r);
                else
                    sum_run_sse2(r);
            }
            const hw_block block = {.sums = r->sums, .extra = extra, .width = LANES, .pixels = r->pixels, .count = count,
                                    .index = (y * op->out_w + x) * op->out_c + c};
            hw_finish_block(op, form->level, &channels, &block);
        }
}

HW_INLINE void depthwise_conv2d(const hw_op *op, uint32_t bits)
{
    const hw_form form = {.level = hw_level(), .bits = bits};
    run r;
    memset(r.padding, op->input_zero[0], LANES);
    r.step = (uint32_t)op->stride_w * op->in_c;
    for (uint32_t c = 0; c < op->in_c; c += LANES)
        convolve_channels(op, &form, &r, c);
}

void HW_OF_WIDTHS(hw_depthwise_conv2d)(const hw_op *op);
void HW_OF_WIDTHS(hw_depthwise_conv2d)(const hw_op *op) { depthwise_conv2d(op, HW_W); }

#endif
