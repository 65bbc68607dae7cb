/* hw_conv2d_w?a? for Arm cores with DSP instructions.
 *
 * Wide: products of 12 bits and more. SMLAD multiplies two codes at a time; 2 pixels x 4 filters, weights centred, so that
 * sums need no correction and start from the biases.
 *
 * Narrow: packed multiplication as in portable/hw_conv2d.c, two words of pixels times two words of filters by UMLAL. A word
 * holds 2 pixels, or 2 or 3 filters; fields are never left to overflow: LIMIT products of the largest codes fit.
 */
#include "hw_polynomials.h"
#include "generated/hw_smlad_loops.h"
#include "hw_strips.h"
#include "generated/hw_umlal_loops.h"

#if defined(HW_CORTEX_M) && defined(HW_W)

enum { WIDE_LANES = 2, NARROW_LANES = 4 };

/* What a block of filters needs of every pixel. */
typedef struct filter_block {
    uint32_t first, count; /* output channels */
    int quick;             /* codes leave the loop as words, or halves of them */
    hw_quick_scale scales[MOST_FILTERS];
} filter_block;

/* Blocks of 4 filters leave as words and must be whole; blocks of 6 leave as halfwords and may end with 2 or 4. */
HW_INLINE void begin_block(filter_block *block, const hw_op *op, uint32_t first, uint32_t end, uint32_t filters, int quick)
{
    block->first = first;
    block->count = end - first < filters ? end - first : filters;
    block->quick = quick && (block->count == filters || filters == 6);
    for (uint32_t f = 0; f < filters && block->quick; f++)
        block->scales[f] = hw_make_quick_scale(op, first + (f < block->count ? f : 0));
}

HW_INLINE uint32_t *pack_pairs(uint32_t *words, const uint8_t *const codes[MOST_LANES], uint32_t channels, int32_t *sums)
{
    const uint8_t *left = codes[0], *right = codes[1], *const end = left + channels;
    (void)sums;
    for (; left < end; left += 4, right += 4, words += 4) {
        const uint32_t q0 = hw_load(left), q1 = hw_load(right);
        words[0] = hw_even_bytes(q0), words[1] = hw_even_bytes(q1);
        words[2] = hw_odd_bytes(q0), words[3] = hw_odd_bytes(q1);
    }
    return words;
}

/* Four rows of dense codes to centred 16-bit numbers, the pairs (0, 2) and (1, 3) of every four codes: [pair][filter]. */
HW_INLINE void expand_pairs(const strip *s, const hw_op *op, const filter_block *block, uint32_t stored, uint32_t bits)
{
    const uint32_t row_bytes = hw_row_bytes((uint32_t)op->kernel_h * op->kernel_w * s->given, op->stored_bits), quads = s->window / 4;
    const uint32_t minus = ((1u - (1u << bits)) & 0xFFFFu) * 0x10001u;
    const uint8_t *rows[MOST_FILTERS];
    uint32_t *words = s->weights;
    for (uint32_t f = 0; f < 4; f++)
        rows[f] = op->weights + (block->first + (f < block->count ? f : 0)) * row_bytes;
    if (is_spread(s))
        spread_rows(s, op, rows, 4, bits);
    for (uint32_t quad = 0; quad < quads; quad++, words += 8)
        for (uint32_t f = 0; f < 4; f++) {
            const uint32_t codes = hw_four_codes(rows[f], row_bytes, quad, stored, bits);
            words[f] = hw_add_even_bytes(hw_add_even_bytes(minus, codes), codes);
            words[f + 4] = hw_add_odd_bytes(hw_add_odd_bytes(minus, codes), codes);
        }
    const uint32_t odd = s->paired && op->kernel_w * s->given % 2, step = s->run / 2 * 4; /* beside the last code lies that of another window */
    for (uint32_t run = 1; odd && run <= s->runs; run++)
        for (uint32_t f = 1; f <= 4; f++)
            s->weights[run * step - f] &= 0xFFFFu;
}

/* Pixels of a lane in a tile of so many columns. */
HW_INLINE uint32_t wide_part(const strip *s, int32_t columns)
{
    return (uint32_t)(s->paired ? columns / 2 : hw_smaller((int32_t)s->part, columns));
}

/* One row of output pixels, or its sums to `finish_slowly` one pixel at a time. */
HW_APART void wide_row(const strip *s, const hw_op *op, const filter_block *block, uint32_t pixels, uint32_t step, int32_t y, int32_t x0, int32_t columns)
{
    const uint32_t width = (uint32_t)s->out_w * op->out_c;
    const uint32_t index = (uint32_t)y * width + (uint32_t)x0 * op->out_c + block->first;
    const uint32_t right = index + (uint32_t)lane_column(s, 1, columns) * op->out_c, part = wide_part(s, columns);
    const uint32_t out_step = s->paired ? 2u * op->out_c : op->out_c;
    const uint32_t *const first = s->stretches;
    struct smlad_call call = {
        .pixels = pixels - 4 + first[2], .weights = hw_address(s->weights) - 4 + first[1], .end = first[0], .entry = first[3],
        .stretches = hw_address(first + STRETCH_WORDS), .count = part,
        .pixel_step = step, .left = hw_address(op->output) + index, .right = hw_address(op->output) + right,
        .out_step = out_step, .max = op->output_max * 0x01010101u, .scales = hw_address(block->scales),
    };
    if (block->quick) {
        hw_smlad_pixels(&call);
        return;
    }
    const hw_quick_scale nothing[4] = {{0, 0, 0, 0, 0}};
    int32_t sums[4][2];
    call.raw = hw_address(sums);
    call.scales = hw_address(nothing);
    for (uint32_t i = 0; i < part; i++, call.pixels += step) {
        hw_smlad_pixels(&call);
        for (uint32_t f = 0; f < block->count; f++) {
            hw_finish(op, index + i * out_step + f, block->first + f, op->bias[block->first + f] + sums[f][0]);
            hw_finish(op, right + i * out_step + f, block->first + f, op->bias[block->first + f] + sums[f][1]);
        }
    }
}

HW_INLINE void conv2d_wide(const hw_op *op, uint32_t bits, int32_t largest)
{
    strip s;
    make_strip(&s, op, WIDE_LANES, 1u << 20);
    const uint32_t outputs = op->out_c / op->groups, row_bytes = strip_row_words(&s, op, s.columns) * 4;
    const uint32_t step = s.gathered ? s.window * 4 : op->stride_w * (s.paired ? s.given * 8 : s.channels * 4);
    const int quick = op->out_c % 4 == 0 && outputs % 4 == 0 && hw_is_quick(op, largest);
    plan_stretches(&s, &hw_smlad_pixels_loop, s.run / 2, row_bytes, 8, 16, quick);
    for (uint32_t group = 0; group < op->groups; group++)
        for (int32_t y0 = 0; y0 < s.out_h; y0 += s.rows)
            for (int32_t x0 = 0; x0 < s.out_w; x0 += s.columns) {
                const int32_t columns = hw_smaller(s.columns, s.out_w - x0), rows = hw_smaller(s.rows, s.out_h - y0);
                if (s.gathered)
                    pack_gathered(&s, op, x0, columns, group * s.given, pack_pairs);
                else if (s.paired)
                    pack_pairs_of_rows(&s, op, y0, x0);
                else
                    pack_rows(&s, op, y0, x0, columns, group * s.given, pack_pairs);
                for (uint32_t o = group * outputs; o < (group + 1) * outputs; o += 4) {
                    filter_block block;
                    begin_block(&block, op, o, (group + 1) * outputs, 4, quick);
                    if (op->stored_bits == 8 || is_spread(&s))
                        expand_pairs(&s, op, &block, 8, bits);
                    else if (op->stored_bits == 4 && bits <= 4)
                        expand_pairs(&s, op, &block, 4, bits);
                    else if (bits <= 3)
                        expand_pairs(&s, op, &block, 3, bits);
                    for (int32_t r = 0; r < rows; r++)
                        wide_row(&s, op, &block, hw_address(s.pixels) + (uint32_t)r * op->stride_h * row_bytes, step, y0 + r, x0, columns);
                }
            }
}

/* Four lanes as two words per channel, two codes `shift` bits apart in each. */
HW_INLINE uint32_t *pack_words(uint32_t *words, const uint8_t *const codes[MOST_LANES], uint32_t channels, int32_t *sums, int shift)
{
    for (uint32_t half = 0; half < 2; half++) {
        const uint8_t *first = codes[2 * half], *second = codes[2 * half + 1], *const end = first + channels;
        uint32_t *word = words + half, sum0 = (uint32_t)sums[2 * half], sum1 = (uint32_t)sums[2 * half + 1];
        for (; first < end; first += 4, second += 4, word += 8) {
            const uint32_t q0 = hw_load(first), q1 = hw_load(second);
            word[0] = (q0 & 255u) | (q1 & 255u) << shift;
            word[2] = (q0 >> 8 & 255u) | (q1 >> 8 & 255u) << shift;
            word[4] = (q0 >> 16 & 255u) | (q1 >> 16 & 255u) << shift;
            word[6] = q0 >> 24 | q1 >> 24 << shift;
            sum0 = hw_add_bytes(sum0, q0), sum1 = hw_add_bytes(sum1, q1);
        }
        sums[2 * half] = (int32_t)sum0, sums[2 * half + 1] = (int32_t)sum1;
    }
    return words + 2 * channels;
}

#define PACKER(SHIFT) \
    __attribute__((unused)) static uint32_t *pack_##SHIFT(uint32_t *words, const uint8_t *const codes[MOST_LANES], uint32_t channels, int32_t *sums) \
    { \
        return pack_words(words, codes, channels, sums, SHIFT); \
    }
PACKER(14)
PACKER(15)
PACKER(30)

/* From sums of positions to sums of windows, times `centre`. */
HW_APART void sum_strip(const strip *s, const hw_op *op, int32_t centre)
{
    const uint32_t pitch = s->positions * NARROW_LANES, height = s->gathered ? 1 : op->kernel_h, width = s->gathered ? 1 : op->kernel_w;
    const uint32_t step = s->gathered ? NARROW_LANES : op->stride_w * NARROW_LANES;
    int32_t *centres = s->centres;
    for (int32_t r = 0; r < s->rows; r++)
        for (uint32_t i = 0; i < s->part; i++, centres += NARROW_LANES) {
            const int32_t *row = s->sums + (uint32_t)r * op->stride_h * pitch + i * step;
            int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
            for (uint32_t v = 0; v < height; v++, row += pitch)
                for (const int32_t *sum = row; sum < row + NARROW_LANES * width; sum += NARROW_LANES)
                    s0 += sum[0], s1 += sum[1], s2 += sum[2], s3 += sum[3];
            centres[0] = s0 * centre, centres[1] = s1 * centre, centres[2] = s2 * centre, centres[3] = s3 * centre;
        }
}

/* Two words of `filters` rows of dense codes each, `shift` bits apart, per position. */
HW_INLINE void expand_rows(const strip *s, const hw_op *op, const filter_block *block, uint32_t filters, uint32_t stored, uint32_t bits, int shift)
{
    const uint32_t row_bytes = hw_row_bytes((uint32_t)op->kernel_h * op->kernel_w * s->given, op->stored_bits), quads = s->window / 4;
    const uint8_t *rows[MOST_FILTERS];
    for (uint32_t f = 0; f < 2 * filters; f++)
        rows[f] = op->weights + (block->first + (f < block->count ? f : 0)) * row_bytes;
    if (s->given != s->channels)
        spread_rows(s, op, rows, 2 * filters, bits);
    HW_ROLLED
    for (uint32_t half = 0; half < 2; half++) {
        uint32_t *words = s->weights + half;
        HW_ROLLED
        for (uint32_t quad = 0; quad < quads; quad++, words += 8) {
            uint32_t codes[4] = {0, 0, 0, 0};
            for (uint32_t f = 0; f < filters; f++)
                codes[f] = hw_four_codes(rows[half * filters + f], row_bytes, quad, stored, bits);
            pack_fields(words, 2, codes, filters, shift, bits);
        }
    }
}

HW_INLINE void expand_words(const strip *s, const hw_op *op, const filter_block *block, uint32_t filters, uint32_t bits, int shift)
{
    if (op->stored_bits == 8 || s->given != s->channels)
        expand_rows(s, op, block, filters, 8, bits, shift);
    else if (op->stored_bits == 4 && bits <= 4)
        expand_rows(s, op, block, filters, 4, bits, shift);
    else if (op->stored_bits == 3 && bits <= 3)
        expand_rows(s, op, block, filters, 3, bits, shift);
    else if (op->stored_bits == 2 && bits <= 2)
        expand_rows(s, op, block, filters, 2, bits, shift);
    else if (bits == 1)
        expand_rows(s, op, block, filters, 1, bits, shift);
}

/* One row of output pixels, finished in the loop or one pixel at a time. */
HW_INLINE void narrow_row(const strip *s, const hw_op *op, const filter_block *block, const struct stretch_loop *loop, uint32_t pixels, uint32_t step, const int32_t *centres, int32_t y, int32_t x0, int32_t columns)
{
    const uint32_t width = (uint32_t)s->out_w * op->out_c, part = hw_smaller((int32_t)s->part, columns);
    uint32_t index[NARROW_LANES];
    for (uint32_t l = 0; l < NARROW_LANES; l++)
        index[l] = (uint32_t)y * width + (uint32_t)(x0 + lane_column(s, l, columns)) * op->out_c + block->first;
    const uint32_t *const first = s->stretches;
    struct umlal_call call = {
        .pixels = pixels - 4 + first[2], .weights = hw_address(s->weights) - 4 + first[1], .end = first[0], .entry = first[3],
        .stretches = hw_address(first + STRETCH_WORDS), .count = part,
        .pixel_step = step, .centres = hw_address(centres), .out0 = hw_address(op->output) + index[0],
        .out1 = hw_address(op->output) + index[1], .out2 = hw_address(op->output) + index[2],
        .out3 = hw_address(op->output) + index[3], .out_step = op->out_c, .max = op->output_max * 0x01010101u,
        .scales = hw_address(block->scales), .filters = block->count,
    };
    if (block->quick) {
        loop->run(&call);
        return;
    }
    int32_t totals[MOST_FILTERS][NARROW_LANES];
    call.raw = hw_address(totals);
    for (uint32_t i = 0; i < part; i++, call.pixels += step, centres += NARROW_LANES) {
        loop->run(&call);
        for (uint32_t f = 0; f < block->count; f++)
            for (uint32_t l = 0; l < NARROW_LANES; l++)
                hw_finish(op, index[l] + i * op->out_c + f, block->first + f, op->bias[block->first + f] + 2 * totals[f][l] - centres[l]);
    }
}

HW_INLINE void conv2d_narrow(const hw_op *op, uint32_t bits, int32_t largest, uint32_t filters, int shift, uint32_t limit, strip_packer pack, const struct stretch_loop *loop)
{
    strip s;
    make_strip(&s, op, NARROW_LANES, limit);
    const uint32_t outputs = op->out_c / op->groups, row_bytes = strip_row_words(&s, op, s.columns) * 4;
    const uint32_t step = (s.gathered ? s.window : op->stride_w * s.channels) * 8, aligned = filters == 2 ? 4 : 2;
    const int quick = op->out_c % aligned == 0 && outputs % aligned == 0 && hw_is_quick(op, largest);
    plan_stretches(&s, loop, s.run, row_bytes, 8, 8, quick);
    for (uint32_t group = 0; group < op->groups; group++)
        for (int32_t y0 = 0; y0 < s.out_h; y0 += s.rows)
            for (int32_t x0 = 0; x0 < s.out_w; x0 += s.columns) {
                const int32_t columns = hw_smaller(s.columns, s.out_w - x0), rows = hw_smaller(s.rows, s.out_h - y0);
                if (s.gathered)
                    pack_gathered(&s, op, x0, columns, group * s.given, pack);
                else
                    pack_rows(&s, op, y0, x0, columns, group * s.given, pack);
                sum_strip(&s, op, (1 << bits) - 1);
                for (uint32_t o = group * outputs; o < (group + 1) * outputs; o += 2 * filters) {
                    filter_block block;
                    begin_block(&block, op, o, (group + 1) * outputs, 2 * filters, quick);
                    for (uint32_t f = 0; f < 2 * filters && quick; f++) { /* as the loop takes them: to multiply by a power of two and add */
                        block.scales[f].bias = (int32_t)((uint32_t)block.scales[f].bias << block.scales[f].left);
                        block.scales[f].left = 1 << block.scales[f].left;
                    }
                    expand_words(&s, op, &block, filters, bits, shift);
                    for (int32_t r = 0; r < rows; r++) {
                        const uint32_t pixels = hw_address(s.pixels) + (uint32_t)r * op->stride_h * row_bytes;
                        narrow_row(&s, op, &block, loop, pixels, step, s.centres + (uint32_t)r * s.part * NARROW_LANES, y0 + r, x0, columns);
                    }
                }
            }
}

#define PRODUCT (((1u << HW_W) - 1u) * ((1u << HW_A) - 1u))
#define LARGEST ((int32_t)(op->kernel_h * op->kernel_w * (op->in_c / op->groups)) * (int32_t)PRODUCT)
#define WIDE conv2d_wide(op, HW_W, LARGEST)
#define NARROW(FILTERS, FIELD_BITS, FILTER_SHIFT, PIXEL_SHIFT, LOOP, POLYNOMIAL) \
    if (!(POLYNOMIAL)) \
        conv2d_narrow(op, HW_W, LARGEST, FILTERS, FILTER_SHIFT, ((1u << (FIELD_BITS)) - 1u) / PRODUCT, pack_##PIXEL_SHIFT, &LOOP##_loop)
#define POLYNOMIAL_OF_STRIDE(STRIDE, SHIFT, PIXELS, LOOP) \
    conv2d_polynomial(op, STRIDE, HW_W, HW_A, LARGEST, SHIFT, PIXELS, ((1u << (SHIFT)) - 1u) / (9u * PRODUCT), &LOOP##_loop)
#define POLYNOMIAL(SHIFT, PIXELS, LOOP) POLYNOMIAL_OF_STRIDE(1, SHIFT, PIXELS, LOOP)
#define STRIDED(SHIFT, PIXELS, LOOP) POLYNOMIAL_OF_STRIDE(2, SHIFT, PIXELS, LOOP)

/* How each pair of widths is computed. */
#define WAY_w1a2 NARROW(3, 10, 10, 30, hw_umlal_f3_s10, POLYNOMIAL(10, 4, hw_poly_s10_k4_turns) || STRIDED(10, 4, hw_poly_s10_k4_strided))
#define WAY_w1a4 NARROW(2, 15, 30, 15, hw_umlal_f2_s15, POLYNOMIAL(13, 3, hw_poly_s13_k3_turns) || STRIDED(14, 3, hw_poly_s14_k3_strided))
#define WAY_w1a8 NARROW(2, 15, 30, 15, hw_umlal_f2_s15, POLYNOMIAL(15, 2, hw_poly_s15_k2_turns))
#define WAY_w2a2 NARROW(3, 10, 10, 30, hw_umlal_f3_s10, POLYNOMIAL(10, 4, hw_poly_s10_k4) || STRIDED(10, 4, hw_poly_s10_k4_strided))
#define WAY_w2a4 NARROW(2, 15, 30, 15, hw_umlal_f2_s15, POLYNOMIAL(13, 3, hw_poly_s13_k3_turns) || STRIDED(14, 3, hw_poly_s14_k3_strided))
#define WAY_w2a8 NARROW(2, 15, 30, 15, hw_umlal_f2_s15, POLYNOMIAL(15, 2, hw_poly_s15_k2))
#define WAY_w3a3 NARROW(2, 14, 28, 14, hw_umlal_f2_s14, POLYNOMIAL(13, 3, hw_poly_s13_k3_turns) || STRIDED(14, 3, hw_poly_s14_k3_strided))
#define WAY_w3a4 NARROW(2, 14, 28, 14, hw_umlal_f2_s14, POLYNOMIAL(13, 3, hw_poly_s13_k3_turns) || STRIDED(14, 3, hw_poly_s14_k3_strided))
#define WAY_w3a8 WIDE
#define WAY_w4a2 NARROW(2, 15, 15, 30, hw_umlal_f2_s15_filters_first, POLYNOMIAL(13, 3, hw_poly_s13_k3_turns) || STRIDED(14, 3, hw_poly_s14_k3_strided))
#define WAY_w4a4 NARROW(2, 14, 28, 14, hw_umlal_f2_s14, POLYNOMIAL(14, 2, hw_poly_s14_k2) || STRIDED(14, 3, hw_poly_s14_k3_strided))
#define WAY_w4a8 WIDE
#define WAY_w8a2 NARROW(2, 15, 15, 30, hw_umlal_f2_s15_filters_first, 0)
#define WAY_w8a4 WIDE
#define WAY_w8a8 WIDE

void HW_OF_WIDTHS(hw_conv2d)(const hw_op *op);
void HW_OF_WIDTHS(hw_conv2d)(const hw_op *op) { HW_OF_WIDTHS(WAY); }

#endif
