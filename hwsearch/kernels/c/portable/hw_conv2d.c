/* hw_conv2d_w?a?: convolution with groups.
 *
 * Low bits pay by packed multiplication: one 32 x 32 -> 64 bit multiply-add carries 2 pixels x F filters.
 *
 *     A = q0 + q1 * 2^SP          W = u0 + u1 * 2^SF (+ u2 * 2^2SF)
 *     A * W = q0 u0 + q1 u0 * 2^SP + q0 u1 * 2^SF + q1 u1 * 2^(SP+SF) + ...
 *
 * Codes are unsigned, so fields never borrow, and `limit` products fit a field before it must be emptied. The centre of the
 * weights is put back once per pixel: sum (2u + 1 - 2^b) q = 2 sum u q - (2^b - 1) sum q.
 *
 * Work goes tile by tile. A quad is 4 output pixels of one column; its input codes are packed to two words A, A' per
 * position and channel. For each block of 2F filters the weights are expanded to two words W, W' and used by every quad
 * of the tile: 4 loads and 4 multiply-adds for 8F products. A 1x1 convolution sees the image as a single column.
 */
#include "hw_portable.h"

#if !defined(HW_OWN_CONV2D) && defined(HW_W)

#include "hw_tile.h"

/* Where fields lie in the packed words; all compile-time constants. */
typedef struct fields {
    uint32_t bits;    /* of a weight */
    uint32_t filters; /* per word */
    int width, pixel_shift, filter_shift;
    uint32_t limit; /* products a field holds */
} fields;

#define FILTERS(W, A) ((W) <= 2 && (A) == 2 ? 3 : (W) <= 2 || (A) == 2 || ((W) <= 4 && (A) <= 4) ? 2 : 1)
#define WIDTH(W, A) (FILTERS(W, A) == 3 ? 10 : FILTERS(W, A) == 1 ? 24 : (W) <= 2 || (A) <= 2 ? 15 : 14)
#define PIXELS_FIRST(W, A) (FILTERS(W, A) == 1 || (FILTERS(W, A) == 2 && (W) <= (A)))
#define FIELDS(W, A) \
    { \
        .bits = (W), .filters = FILTERS(W, A), .width = WIDTH(W, A), \
        .pixel_shift = PIXELS_FIRST(W, A) ? WIDTH(W, A) : FILTERS(W, A) * WIDTH(W, A), \
        .filter_shift = PIXELS_FIRST(W, A) ? 2 * WIDTH(W, A) : WIDTH(W, A), \
        .limit = ((1u << WIDTH(W, A)) - 1u) / (((1u << (W)) - 1u) * ((1u << (A)) - 1u)), \
    }

/* Expand rows of dense codes to packed words, every second from `words` on, whole stored words at a time. */
HW_INLINE void expand(fields f, const uint8_t *const rows[], uint32_t row_bytes, uint32_t stored, uint32_t *words)
{
    const uint32_t mask = (1u << f.bits) - 1u;
    for (uint32_t offset = 0; offset < row_bytes; offset += 4, words += 64 / stored) {
        uint32_t codes[3] = {0, 0, 0};
        for (uint32_t n = 0; n < f.filters; n++)
            codes[n] = hw_load(rows[n] + offset);
        for (uint32_t i = 0; i < 32 / stored; i++) {
            uint32_t word = 0;
            for (uint32_t n = 0; n < f.filters; n++)
                word |= (codes[n] >> (i * stored + stored - f.bits) & mask) << (n * (uint32_t)f.filter_shift);
            words[2 * i] = word;
        }
    }
}

/* The same where codes straddle stored words or fill no pair of them, four codes at a time. */
HW_INLINE void expand_fours(fields f, const uint8_t *const rows[], uint32_t row_bytes, uint32_t count, uint32_t stored, uint32_t *words)
{
    for (uint32_t quad = 0; 4 * quad < count; quad++, words += 8) {
        uint32_t codes[3] = {0, 0, 0};
        for (uint32_t n = 0; n < f.filters; n++)
            codes[n] = hw_four_codes(rows[n], row_bytes, quad, stored, f.bits);
        for (uint32_t i = 0; i < 4; i++) {
            uint32_t word = 0;
            for (uint32_t n = 0; n < f.filters; n++)
                word |= (codes[n] >> 8 * i & 255u) << (n * (uint32_t)f.filter_shift);
            words[2 * i] = word;
        }
    }
}

/* Both words of a block of filters; a block beyond the last filter repeats it, and nobody stores the result. There
 * is room for the codes that pad a row; the pixels that meet them are 0. */
HW_INLINE void expand_block(fields f, const hw_op *op, const tiling *t, uint32_t o, uint32_t last)
{
    const uint32_t count = (uint32_t)op->kernel_h * op->kernel_w * t->channels, row_bytes = hw_row_bytes(count, op->stored_bits);
    for (uint32_t half = 0; half < 2; half++) {
        const uint8_t *rows[3];
        for (uint32_t n = 0; n < f.filters; n++) {
            const uint32_t filter = o + half * f.filters + n;
            rows[n] = op->weights + (filter < last ? filter : last) * row_bytes;
        }
        if (op->stored_bits == 8)
            expand(f, rows, row_bytes, 8, t->weights + half);
        else if (op->stored_bits == 4 && f.bits <= 4)
            expand(f, rows, row_bytes, 4, t->weights + half);
        else if (op->stored_bits == 3 && f.bits <= 3)
            expand_fours(f, rows, row_bytes, count, 3, t->weights + half);
        else if (op->stored_bits == 2 && f.bits <= 2)
            expand(f, rows, row_bytes, 2, t->weights + half);
        else if (f.bits == 1)
            expand_fours(f, rows, row_bytes, count, 1, t->weights + half);
    }
}

/* Multiply a pair of pixel words by a pair of weight words into 2 x 2 sums. */
HW_INLINE void multiply_one(hw_sum s[4], const uint32_t *a, const uint32_t *w)
{
    hw_multiply_add(&s[0], a[0], w[0]);
    hw_multiply_add(&s[1], a[1], w[0]);
    hw_multiply_add(&s[2], a[0], w[1]);
    hw_multiply_add(&s[3], a[1], w[1]);
}

/* The same four times, advancing both. In assembly, because it needs 13 registers in this very order of loads. */
#ifdef HW_UMLAL
#define STEP \
    "ldr %[x], [%[a]], #4\n\tldr %[y], [%[a]], #4\n\tldr %[z], [%[w]], #4\n\t" \
    "umlal %[l0], %[h0], %[x], %[z]\n\tumlal %[l1], %[h1], %[y], %[z]\n\tldr %[z], [%[w]], #4\n\t" \
    "umlal %[l2], %[h2], %[x], %[z]\n\tumlal %[l3], %[h3], %[y], %[z]\n\t"
#define MULTIPLY_FOUR(s, a, w) \
    do { \
        uint32_t x, y, z; \
        __asm__ volatile(STEP STEP STEP STEP \
                         : [l0] "+r"(s[0].low), [h0] "+r"(s[0].high), [l1] "+r"(s[1].low), [h1] "+r"(s[1].high), \
                           [l2] "+r"(s[2].low), [h2] "+r"(s[2].high), [l3] "+r"(s[3].low), [h3] "+r"(s[3].high), \
                           [a] "+r"(a), [w] "+r"(w), [x] "=&r"(x), [y] "=&r"(y), [z] "=&r"(z) \
                         : \
                         : "memory"); \
    } while (0)
#else
#define MULTIPLY_FOUR(s, a, w) \
    do { \
        for (uint32_t i = 0; i < 4; i++, a += 2, w += 2) \
            multiply_one(s, a, w); \
    } while (0)
#endif

/* The same `count` times. */
HW_INLINE void multiply(hw_sum sums[4], const uint32_t *a, const uint32_t *w, uint32_t count)
{
    hw_sum s[4] = {sums[0], sums[1], sums[2], sums[3]};
    HW_ROLLED
    for (uint32_t fours = count / 4; fours; fours--)
        MULTIPLY_FOUR(s, a, w);
    HW_ROLLED
    for (uint32_t ones = count % 4; ones; ones--, a += 2, w += 2)
        multiply_one(s, a, w);
    sums[0] = s[0], sums[1] = s[1], sums[2] = s[2], sums[3] = s[3];
}

/* Add the fields of 2 x 2 sums to `totals[filter][pixel]`, or store them the first time, and empty the sums. */
HW_INLINE void empty_fields(fields f, hw_sum sums[4], int first, int32_t totals[][QUAD])
{
    for (uint32_t i = 0; i < 4; i++) {
        const uint64_t sum = hw_total(sums[i]);
        sums[i] = (hw_sum){0};
        for (uint32_t n = 0; n < f.filters; n++)
            for (uint32_t p = 0; p < 2; p++) {
                const uint32_t field = (uint32_t)(sum >> (p * (uint32_t)f.pixel_shift + n * (uint32_t)f.filter_shift));
                const int32_t value = (int32_t)(f.filters == 1 && p == 1 ? field : field & ((1u << f.width) - 1u));
                int32_t *total = &totals[i / 2 * f.filters + n][i % 2 * 2 + p];
                *total = first ? value : *total + value;
            }
    }
}

/* Logits, quads that reach beyond the last row, and accumulators that may exceed their limit. */
HW_APART void finish_slowly(const hw_op *op, uint32_t index, uint32_t stride, uint32_t channel, uint32_t rows,
                            const int32_t *totals, const int32_t *centre)
{
    for (uint32_t r = 0; r < rows; r++)
        hw_finish(op, index + r * stride, channel, op->bias[channel] + 2 * totals[r] - centre[r]);
}

/* What one output channel's sums become codes with. */
typedef struct channel {
    hw_scale scale;
    int32_t bias;
    int saturates;
} channel;

HW_APART channel make_channel(const hw_op *op, uint32_t reach, uint32_t o)
{
    channel c = {.bias = op->bias[o]};
    if (op->multiplier) {
        c.scale = hw_make_scale(op->multiplier[o], op->shift[o]);
        c.saturates = reach + hw_magnitude(c.bias) > (uint32_t)c.scale.limit;
    }
    return c;
}

/* Write four codes of one channel, `stride` bytes apart. */
HW_INLINE void finish_codes(uint8_t *code, uint32_t stride, const channel *c, const int32_t *total,
                            const int32_t centre[QUAD], int32_t zero, int32_t max)
{
    const hw_scale scale = c->scale;
    int32_t a0 = c->bias + 2 * total[0] - centre[0], a1 = c->bias + 2 * total[1] - centre[1];
    int32_t a2 = c->bias + 2 * total[2] - centre[2], a3 = c->bias + 2 * total[3] - centre[3];
    a0 = hw_shifted(a0, scale), a1 = hw_shifted(a1, scale);
    a2 = hw_shifted(a2, scale), a3 = hw_shifted(a3, scale);
    code[0] = hw_code(a0, scale, zero, max), code += stride;
    code[0] = hw_code(a1, scale, zero, max), code += stride;
    code[0] = hw_code(a2, scale, zero, max), code += stride;
    code[0] = hw_code(a3, scale, zero, max);
}

/* Write the outputs of one quad: `count` channels from `o` on. */
HW_INLINE void finish_quad(const hw_op *op, const tiling *t, int32_t y, int32_t x, uint32_t o, uint32_t count,
                           const channel *channels, int32_t totals[][QUAD], const int32_t *centre)
{
    const uint32_t rows = (uint32_t)hw_smaller(t->out_h - y, QUAD), stride = (uint32_t)t->out_w * op->out_c;
    const uint32_t index = ((uint32_t)y * (uint32_t)t->out_w + (uint32_t)x) * op->out_c + o;
    if (op->multiplier == 0 || rows < QUAD) {
        for (uint32_t f = 0; f < count; f++)
            finish_slowly(op, index + f, stride, o + f, rows, totals[f], centre);
        return;
    }
    const int32_t centres[QUAD] = {centre[0], centre[1], centre[2], centre[3]};
    const int32_t zero = op->output_zero, max = op->output_max;
    uint8_t *code = (uint8_t *)op->output + index;
    for (uint32_t f = 0; f < count; f++, code++)
        if (channels[f].saturates)
            finish_slowly(op, index + f, stride, o + f, rows, totals[f], centre);
        else
            finish_codes(code, stride, channels + f, totals[f], centres, zero, max);
}

/* One quad times one block of filters. */
HW_INLINE void multiply_quad(fields f, const tiling *t, const uint32_t *pixels, int32_t totals[][QUAD])
{
    hw_sum sums[4] = {{0}, {0}, {0}, {0}};
    const uint32_t *weights = t->weights;
    uint32_t run = 0, start = 0, room = f.limit;
    int first = 1;
    while (run < t->runs) {
        const uint32_t left = t->run - start, count = left < room ? left : room;
        multiply(sums, pixels + 2 * start, weights, count);
        weights += 2 * count;
        start += count;
        room -= count;
        if (start == t->run) {
            start = 0;
            run++;
            pixels += t->run_words;
        }
        if (room == 0 || run == t->runs) {
            if (first)
                empty_fields(f, sums, 1, totals);
            else
                empty_fields(f, sums, 0, totals);
            first = 0;
            room = f.limit;
        }
    }
}

/* All filters of a group on one packed tile. */
HW_INLINE void convolve_tile(fields f, const hw_op *op, const tiling *t, int32_t y0, int32_t x0, uint32_t first,
                             uint32_t end)
{
    for (uint32_t o = first; o < end; o += 2 * f.filters) {
        const uint32_t count = end - o < 2 * f.filters ? end - o : 2 * f.filters;
        channel channels[6];
        for (uint32_t i = 0; i < count; i++)
            channels[i] = make_channel(op, t->reach, o + i);
        expand_block(f, op, t, o, end - 1);
        for (int32_t row = 0; row < t->rows && (y0 + row) * QUAD < t->out_h; row++)
            for (int32_t x = 0; x < t->columns && x0 + x < t->out_w; x++) {
                int32_t totals[6][QUAD];
                const uint32_t *pixels = t->pixels + (uint32_t)row * t->row_words + (uint32_t)x * t->column_words;
                multiply_quad(f, t, pixels, totals);
                const int32_t *centre = t->sums + ((uint32_t)row * t->positions + (uint32_t)x) * QUAD;
                finish_quad(op, t, (y0 + row) * QUAD, x0 + x, o, count, channels, totals, centre);
            }
    }
}

HW_INLINE void conv2d(fields f, const hw_op *op)
{
    const tiling t = make_tiling(op, f.bits);
    const uint32_t outputs = op->out_c / op->groups;
    const uint32_t scale = (uint32_t)1 << f.pixel_shift;
    const int32_t centre = (1 << f.bits) - 1;
    for (uint32_t group = 0; group < op->groups; group++)
        for (int32_t y = 0; y * QUAD < t.out_h; y += t.rows)
            for (int32_t x = 0; x < t.out_w; x += t.columns) {
                pack_tile(op, &t, y, x, group * t.channels, scale, centre);
                convolve_tile(f, op, &t, y, x, group * outputs, (group + 1) * outputs);
            }
}

void HW_OF_WIDTHS(hw_conv2d)(const hw_op *op);
void HW_OF_WIDTHS(hw_conv2d)(const hw_op *op)
{
    const fields f = FIELDS(HW_W, HW_A);
    conv2d(f, op);
}

#endif
