/* hw_linear_w?a? for x86-64: four filters at a time times the input.
 *
 * Each weight is used once, so rows are expanded by stretches of SPAN weights and multiplied as they lie; a lane sums the
 * products of every 8th unit.
 */
#include "x86/hw_x86.h"

#if defined(HW_X86) && defined(HW_W)

enum { SPAN = 512, FILTERS = 4 };

/* A stretch of the input and of four rows of weights; both filled up with zeros or what is multiplied by them. */
typedef struct stretch {
    const uint8_t *codes; /* `bytes` of units */
    uint32_t bytes;       /* a multiple of 32 */
    uint8_t weights[FILTERS][2 * SPAN] __attribute__((aligned(64)));
    int32_t sums[FILTERS];
} stretch;

HW_AVX2_INLINE __m256i load_32(const uint8_t *bytes) { return _mm256_loadu_si256((const __m256i *)(const void *)bytes); }

HW_AVX2_INLINE int32_t sum_lanes(__m256i lanes)
{
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
    const __m128i two = _mm_add_epi32(four, _mm_srli_si128(four, 8));
    return _mm_cvtsi128_si32(two) + _mm_extract_epi32(two, 1);
}

HW_VNNI_CODE void multiply_vnni(stretch *s)
{
    __m256i sums[FILTERS] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    for (uint32_t i = 0; i < s->bytes; i += 32) {
        const __m256i codes = load_32(s->codes + i);
        for (uint32_t f = 0; f < FILTERS; f++)
            sums[f] = _mm256_dpbusd_epi32(sums[f], codes, load_32(s->weights[f] + i));
    }
    for (uint32_t f = 0; f < FILTERS; f++)
        s->sums[f] += sum_lanes(sums[f]);
}

/* Two products fit 16 bits; pairs of them are summed in 32. */
HW_AVX2_CODE void multiply_avx2_bytes(stretch *s)
{
    __m256i sums[FILTERS] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    for (uint32_t i = 0; i < s->bytes; i += 32) {
        const __m256i codes = load_32(s->codes + i);
        for (uint32_t f = 0; f < FILTERS; f++) {
            const __m256i pairs = _mm256_maddubs_epi16(codes, load_32(s->weights[f] + i));
            sums[f] = _mm256_add_epi32(sums[f], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        }
    }
    for (uint32_t f = 0; f < FILTERS; f++)
        s->sums[f] += sum_lanes(sums[f]);
}

HW_AVX2_CODE void multiply_avx2_words(stretch *s)
{
    __m256i sums[FILTERS] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    for (uint32_t i = 0; i < s->bytes; i += 32) {
        const __m256i codes = load_32(s->codes + i);
        for (uint32_t f = 0; f < FILTERS; f++)
            sums[f] = _mm256_add_epi32(sums[f], _mm256_madd_epi16(codes, load_32(s->weights[f] + i)));
    }
    for (uint32_t f = 0; f < FILTERS; f++)
        s->sums[f] += sum_lanes(sums[f]);
}

HW_APART void multiply_sse2(stretch *s)
{
    for (uint32_t f = 0; f < FILTERS; f++) {
        __m128i sum = _mm_setzero_si128();
        for (uint32_t i = 0; i < s->bytes; i += 16) {
            const __m128i codes = _mm_loadu_si128((const __m128i *)(const void *)(s->codes + i));
            sum = _mm_add_epi32(sum, _mm_madd_epi16(codes, _mm_load_si128((const __m128i *)(const void *)(s->weights[f] + i))));
        }
        const __m128i two = _mm_add_epi32(sum, _mm_srli_si128(sum, 8));
        s->sums[f] += _mm_cvtsi128_si32(two) + _mm_cvtsi128_si32(_mm_srli_si128(two, 4));
    }
}

/* The input as units in the scratch memory, filled up with zeros to a multiple of 32 bytes. */
HW_INLINE void arrange(const hw_op *op, const hw_form *form)
{
    const uint32_t count = op->in_c, whole = count & ~15u;
    if (form->codes == 4) {
        memcpy(op->scratch, op->input[0], count);
        memset(op->scratch + count, 0, -count & 31u);
        return;
    }
    uint8_t rest[16] = {0};
    memcpy(rest, op->input[0] + whole, count - whole);
    hw_widen(op->input[0], whole, (uint16_t *)(void *)op->scratch);
    if (count > whole)
        hw_widen(rest, 16, (uint16_t *)(void *)op->scratch + whole);
}

/* Add the products of weights `first` .. `first + count - 1` of four rows to the sums. */
HW_INLINE void multiply_stretch(const hw_op *op, const hw_form *form, const uint8_t *const rows[FILTERS], uint32_t first,
                                uint32_t count, stretch *s)
{
    const uint32_t row_bytes = hw_row_bytes(op->in_c, op->stored_bits), size = 4 / form->codes;
    for (uint32_t f = 0; f < FILTERS; f++) {
        uint8_t values[SPAN];
        hw_row_values(op, form, rows[f], row_bytes, first, count, form->codes == 4 ? s->weights[f] : values);
        if (form->codes == 2)
            hw_widen(values, (count + 15u) & ~15u, (uint16_t *)(void *)s->weights[f]);
    }
    s->codes = op->scratch + first * size;
    s->bytes = (count * size + 31u) & ~31u;
    if (form->level == HW_VNNI)
        multiply_vnni(s);
    else if (form->level == HW_SSE2)
        multiply_sse2(s);
    else if (form->codes == 4)
        multiply_avx2_bytes(s);
    else
        multiply_avx2_words(s);
}

HW_INLINE void linear(const hw_op *op, uint32_t bits, uint32_t activation_bits)
{
    const hw_form form = hw_make_form(bits, activation_bits);
    const uint32_t row_bytes = hw_row_bytes(op->in_c, op->stored_bits), last = op->out_c - 1u;
    const int32_t centre = form.centre * hw_sum_codes(op->input[0], op->in_c);
    arrange(op, &form);
    for (uint32_t o = 0; o < op->out_c; o += FILTERS) {
        stretch s;
        const uint8_t *rows[FILTERS];
        for (uint32_t f = 0; f < FILTERS; f++) {
            rows[f] = op->weights + (o + f < last ? o + f : last) * row_bytes;
            s.sums[f] = 0;
        }
        for (uint32_t first = 0; first < op->in_c; first += SPAN)
            multiply_stretch(op, &form, rows, first, op->in_c - first < SPAN ? op->in_c - first : SPAN, &s);
        for (uint32_t f = 0; f < FILTERS && o + f <= last; f++) {
            const uint32_t sum = (uint32_t)op->bias[o + f] + 2u * (uint32_t)s.sums[f] + (uint32_t)centre;
            hw_finish(op, o + f, o + f, (int32_t)sum);
        }
    }
}

void HW_OF_WIDTHS(hw_linear)(const hw_op *op);
void HW_OF_WIDTHS(hw_linear)(const hw_op *op) { linear(op, HW_W, HW_A); }

#endif
