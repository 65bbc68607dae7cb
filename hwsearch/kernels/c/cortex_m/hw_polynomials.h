/* 3x3 convolutions of narrow codes, as products of polynomials.
 *
 * K neighbouring pixels in one word and the three weights of a kernel row, reversed, in another, fields S bits apart:
 *
 *     (q0 + q1 X + ..) * (u2 + u1 X + u0 X^2),  X = 2^S
 *
 * has in field t the products that output t - 2 gets from these pixels. So one UMLAL makes 3K useful products. The upper two
 * fields are what the segment gives to the next one: they stay in the sum, which is shifted down by K fields. Only the K
 * complete fields are taken out.
 *
 * A field gets 3 products per kernel row and channel, 9 per channel, and is emptied into totals after so many channels
 * (POLY_LIMIT) that even the largest products fit it:
 *
 *     w2a8, S = 15:  9 *  4 *  3 * 255 = 27540 <= 32767        w4a4, S = 14:  9 *  8 * 15 *  15 = 16200 <= 16383
 *     w1a8, S = 15:  9 * 14 *  1 * 255 = 32130 <= 32767        w3a4, S = 13:  9 *  8 *  7 *  15 = 7560 <= 8191
 *     w2a2, S = 10:  9 * 12 *  3 *   3 =   972 <=  1023        w3a3, S = 13:  9 * 18 *  7 *   7 = 7938 <= 8191
 *     w1a2, S = 10:  9 * 37 *  1 *   3 =   999 <=  1023        w2a4, S = 13:  9 * 20 *  3 *  15 = 8100 <= 8191
 *
 * and w1a4 takes 60 channels. Both factors end below bit 32. Of K + 2 fields the last, of q_(K-1) u0, gets a third of the
 * products: with S = 13 and K = 3 it has 12 bits, and 8191 / 3 < 4096.
 *
 * A tile is 8 rows of output, packed as [segment][channel][10 input rows]: 2 output rows times 2 filters share their loads,
 * 10 for 12 multiplications.
 *
 * With stride 2, an output gets a product from one column in the middle of its window, and shares the columns beside it with
 * its neighbours. K middle columns are one word, m0 + m1 X + .., to be multiplied by u1; the K columns behind them another, to
 * be multiplied by u2 + u0 X. So two UMLAL make 3K products, and one field stays in the sum. Pixels need no room for three
 * weights: w4a4 has K = 3 with S = 14. A tile is [segment][channel][17 input rows][2 words].
 *
 * Segments start and end with the image: a column of padding counts as zeros, and what it adds with another zero point, which
 * depends on the filter alone, is added to the totals of the first or last output column.
 */
#ifndef HW_POLYNOMIALS_H
#define HW_POLYNOMIALS_H

#include "hw_cortex_m.h"
#include "generated/hw_poly_loops.h"

#ifdef HW_CORTEX_M

enum { POLY_BYTES = 16384, POLY_OUT_ROWS = 8, POLY_MOST_CHANNELS = 128, POLY_WEIGHTS = 6, POLY_STRIDED_SIDE = 6 };

static const uint32_t poly_zeros[POLY_MOST_CHANNELS / 4];

typedef struct poly {
    uint32_t channels, pixels, most; /* of a group; K; most segments of a tile */
    uint32_t stride, pitch;          /* positions of one input row */
    uint32_t channel_words, weight_words; /* of one channel: of a segment, and of two filters */
    uint32_t ahead;                  /* outputs before the first of a segment that starts with position 0, and fields that stay in sums */
    int32_t columns;                 /* output columns of a tile */
    uint32_t *words, *weights;
    int32_t *totals;                 /* [pair of rows][position][row][filter] */
    int32_t *sums, *centres;         /* of codes: [input row][position]; under a window: [row][column] */
    uint8_t *padding;
} poly;

/* One tile: where it begins, its size, and the position of its first segment: 0 is the left end of the first window. `edges`:
 * whether the columns of padding on the left and on the right count as zeros. */
typedef struct poly_tile {
    int32_t y0, x0, rows, columns, start;
    int edges[2];
    uint32_t segments;
} poly_tile;

HW_INLINE int is_polynomial(const hw_op *op, uint32_t stride)
{
    const uint32_t channels = op->in_c / op->groups, outputs = op->out_c / op->groups;
    if (stride == 2 && (op->out_h < POLY_STRIDED_SIDE || op->out_w < POLY_STRIDED_SIDE)) /* most of few segments would be waste */
        return 0;
    return op->kernel_h == 3 && op->kernel_w == 3 && op->stride_h == stride && op->stride_w == stride && channels % 4 == 0 && channels <= POLY_MOST_CHANNELS / (stride * stride) && outputs % 2 == 0 && op->out_c % 2 == 0;
}

HW_APART void make_poly(poly *p, const hw_op *op, uint32_t pixels)
{
    int32_t pieces = 1;
    p->channels = op->in_c / op->groups;
    p->pixels = pixels;
    p->stride = op->stride_w;
    p->ahead = 3 - p->stride;
    p->channel_words = p->stride == 1 ? POLY_ROWS : POLY_STRIDED_ROWS * 2;
    p->weight_words = POLY_WEIGHTS * p->stride;
    for (;; pieces++) {
        p->columns = (op->out_w + pieces - 1) / pieces;
        p->most = ((uint32_t)p->columns + p->ahead - 1 + pixels) / pixels;
        if (p->columns == 1 || p->most * p->channels * p->channel_words * 4 <= POLY_BYTES)
            break;
    }
    p->pitch = p->most * pixels * p->stride + 2;
    p->words = (uint32_t *)(void *)op->scratch;
    p->weights = p->words + p->most * p->channels * p->channel_words;
    p->totals = (int32_t *)(p->weights + p->weight_words * p->channels);
    p->sums = p->totals + POLY_OUT_ROWS * 2 * (p->most * pixels + 2);
    p->centres = p->sums + p->channel_words / p->stride * p->pitch;
    uint32_t *padding = (uint32_t *)(p->centres + POLY_OUT_ROWS * p->columns);
    p->padding = (uint8_t *)padding;
    for (uint32_t c = 0; c < p->channels; c += 4)
        *padding++ = op->input_zero[0] * 0x01010101u;
}

HW_APART poly_tile poly_tile_at(const poly *p, const hw_op *op, int32_t y0, int32_t x0)
{
    poly_tile t = {.y0 = y0, .x0 = x0, .rows = hw_smaller(POLY_OUT_ROWS, op->out_h - y0), .columns = hw_smaller(p->columns, op->out_w - x0)};
    int32_t last = t.columns + (int32_t)p->ahead - 1;
    if (op->pad_w == 1) {
        t.edges[0] = x0 == 0;
        t.edges[1] = p->stride == 1 && x0 + t.columns == op->out_w;
        t.start = t.edges[0];
        last = hw_larger(last - t.edges[1], t.start);
    }
    t.segments = (uint32_t)(last - t.start) / p->pixels + 1;
    return t;
}

/* Totals from one pair of rows to the next, and those before the first output's. */
HW_INLINE uint32_t totals_pitch(const poly *p, const poly_tile *t) { return 4 * (t->segments * p->pixels + (p->stride == 1 ? 2 : 0)); }
HW_INLINE uint32_t totals_before(const poly *p, const poly_tile *t) { return 4 * (p->ahead - (uint32_t)t->start); }

/* Four codes of each of `count` words to four words of fields, `step` apart: code j of every word to word j. Where two fields
 * fit a halfword, two words are made at a time. */
HW_INLINE void pack_fields(uint32_t *words, uint32_t step, const uint32_t codes[4], uint32_t count, int shift, uint32_t bits)
{
    if (count > 2 && (uint32_t)shift + bits <= 16) {
        for (uint32_t odd = 0; odd < 2; odd++) {
            uint32_t halves[4] = {0, 0, 0, 0};
            for (uint32_t i = 0; i < count; i++)
                halves[i] = odd ? hw_odd_bytes(codes[i]) : hw_even_bytes(codes[i]);
            const uint32_t low = halves[0] | halves[1] << shift;
            const uint32_t high = halves[2] << (2 * shift - 16) | (count > 3 ? halves[3] << (3 * shift - 16) : 0);
            words[odd * step] = (low & 0xFFFFu) | high << 16;
            words[(odd + 2) * step] = low >> 16 | (high & 0xFFFF0000u);
        }
        return;
    }
    for (uint32_t j = 0; j < 4; j++) {
        uint32_t word = codes[0] >> 8 * j & 255u;
        for (uint32_t i = 1; i < count; i++)
            word |= (codes[i] >> 8 * j & 255u) << (i * (uint32_t)shift);
        words[j * step] = word;
    }
}

/* The codes of one segment and input row, and their sums. */
HW_INLINE void pack_segment(uint32_t *words, uint32_t step, const uint8_t *const codes[4], uint32_t channels, uint32_t pixels, int shift, uint32_t bits, int32_t *sums, uint32_t stride)
{
    uint32_t sum[4] = {0, 0, 0, 0};
    for (uint32_t c = 0; c < channels; c += 4, words += 4 * step) {
        uint32_t q[4] = {0, 0, 0, 0};
        for (uint32_t i = 0; i < pixels; i++) {
            q[i] = hw_load(codes[i] + c);
            sum[i] = hw_add_bytes(sum[i], q[i]);
        }
        pack_fields(words, step, q, pixels, shift, bits);
    }
    for (uint32_t i = 0; i < pixels; i++)
        sums[i * stride] = (int32_t)sum[i];
}

/* With stride 2, a segment's columns between windows follow those in their middle. */
HW_INLINE void pack_poly(const poly *p, const poly_tile *t, const hw_op *op, uint32_t first, uint32_t stride, uint32_t pixels, int shift, uint32_t bits)
{
    const uint32_t channel_words = stride == 1 ? POLY_ROWS : POLY_STRIDED_ROWS * 2, in_w = op->in_w;
    const uint32_t left = (uint32_t)(stride == 1 ? t->x0 - op->pad_w + t->start : 2 * (t->x0 + t->start) - 1 - op->pad_w);
    const uint8_t *const beside = stride == 1 && op->pad_w == 1 ? (const uint8_t *)poly_zeros : p->padding;
    for (int32_t r = 0; r < (((t->rows + 1) & ~1) - 1) * (int32_t)stride + 3; r++) {
        const int32_t v = t->y0 * (int32_t)stride - op->pad_h + r;
        const int inside = v >= 0 && v < op->in_h;
        const uint8_t *const row = inside ? op->input[0] + (uint32_t)v * in_w * op->in_c + first : p->padding;
        const uint32_t step = inside ? op->in_c : 0;
        uint32_t *words = p->words + (uint32_t)r * stride, u = left;
        int32_t *sums = p->sums + (uint32_t)r * p->pitch;
        for (uint32_t s = 0; s < t->segments; s++, words += p->channels * channel_words, sums += pixels * stride, u += pixels * stride)
            for (uint32_t phase = 0; phase < stride; phase++) {
                const uint8_t *codes[4];
                for (uint32_t i = 0; i < pixels; i++) {
                    const uint32_t at = u + i * stride + phase; /* left of the image, it is huge */
                    codes[i] = at < in_w ? row + at * step : beside;
                }
                pack_segment(words + phase, channel_words, codes, p->channels, pixels, shift, bits, sums + phase, stride);
            }
        sums[0] = sums[1] = 0;
    }
}

HW_INLINE int32_t sum_rows(const int32_t *sum, uint32_t pitch) { return sum[0] + sum[pitch] + sum[2 * pitch]; }

/* Sums of codes under each window, times `centre`. Positions before the first segment are zero. */
HW_APART void sum_poly(const poly *p, const poly_tile *t, int32_t centre)
{
    const uint32_t pitch = p->pitch;
    for (int32_t r = 0; r < t->rows; r++) {
        const int32_t *sum = p->sums + (uint32_t)r * p->stride * pitch;
        int32_t *centres = p->centres + r * t->columns, *const end = centres + t->columns;
        int32_t before, last;
        if (p->stride == 1) {
            before = t->start ? 0 : sum_rows(sum++, pitch), last = sum_rows(sum++, pitch);
            while (centres < end) {
                const int32_t now = sum_rows(sum++, pitch);
                *centres++ = (before + last + now) * centre;
                before = last;
                last = now;
            }
            continue;
        }
        before = 0;
        if (!t->start)
            before = sum_rows(sum + 1, pitch), sum += 2;
        for (; centres < end; sum += 2, before = last) {
            last = sum_rows(sum + 1, pitch);
            *centres++ = (before + sum_rows(sum, pitch) + last) * centre;
        }
    }
}

/* Weights of two filters: [channel][kernel row][filter], the last of a kernel row in the lowest field. With stride 2 those of
 * the middle column come first, and then the others: [channel][2][kernel row][filter]. */
HW_INLINE void expand_poly(const poly *p, const uint8_t *const rows[2], uint32_t row_bytes, uint32_t stride, uint32_t stored, uint32_t bits, int shift)
{
    const uint32_t quads = p->channels / 4, step = POLY_WEIGHTS * stride;
    HW_ROLLED
    for (uint32_t f = 0; f < 2; f++)
        HW_ROLLED
        for (uint32_t dy = 0; dy < 3; dy++) {
            uint32_t *words = p->weights + 2 * dy + f;
            HW_ROLLED
            for (uint32_t quad = 3 * dy * quads; quad < (3 * dy + 1) * quads; quad++, words += 4 * step) {
                const uint32_t first = hw_four_codes(rows[f], row_bytes, quad, stored, bits);
                const uint32_t middle = hw_four_codes(rows[f], row_bytes, quad + quads, stored, bits);
                const uint32_t last = hw_four_codes(rows[f], row_bytes, quad + 2 * quads, stored, bits);
                const uint32_t reversed[4] = {last, stride == 1 ? middle : first, first, 0}, alone[4] = {middle, 0, 0, 0};
                if (stride == 2)
                    pack_fields(words, step, alone, 1, shift, bits);
                pack_fields(words + step - POLY_WEIGHTS, step, reversed, 4 - stride, shift, bits);
            }
        }
}

/* Sums of a filter's centred weights in the first and in the last kernel column, from its expanded weights. */
HW_APART void sum_edges(const poly *p, uint32_t bits, int shift, int32_t edges[2][2])
{
    const uint32_t mask = (1u << bits) - 1u, *const end = p->weights + p->weight_words * p->channels;
    for (uint32_t f = 0; f < 2; f++) {
        uint32_t first = 0, last = 0;
        for (const uint32_t *words = p->weights + p->weight_words - POLY_WEIGHTS + f; words < end; words += p->weight_words)
            for (uint32_t dy = 0; dy < 3; dy++)
                first += words[2 * dy] >> (p->ahead * (uint32_t)shift), last += words[2 * dy] & mask;
        edges[f][0] = (int32_t)(2 * first - 3 * p->channels * mask);
        edges[f][1] = (int32_t)(2 * last - 3 * p->channels * mask);
    }
}

HW_INLINE void expand_pair(const poly *p, const hw_op *op, uint32_t filter, uint32_t stride, uint32_t bits, int shift)
{
    const uint32_t row_bytes = hw_row_bytes(9 * p->channels, op->stored_bits);
    const uint8_t *rows[2] = {op->weights + filter * row_bytes, op->weights + (filter + 1) * row_bytes};
    if (op->stored_bits == 8)
        expand_poly(p, rows, row_bytes, stride, 8, bits, shift);
    else if (op->stored_bits == 4 && bits <= 4)
        expand_poly(p, rows, row_bytes, stride, 4, bits, shift);
    else if (op->stored_bits == 3 && bits <= 3)
        expand_poly(p, rows, row_bytes, stride, 3, bits, shift);
    else if (op->stored_bits == 2 && bits <= 2)
        expand_poly(p, rows, row_bytes, stride, 2, bits, shift);
    else if (bits == 1)
        expand_poly(p, rows, row_bytes, stride, 1, bits, shift);
}

/* Totals start from the biases, the centres and what padding beside the image adds. */
HW_APART void begin_totals(const poly *p, const poly_tile *t, const hw_quick_scale scales[2], int32_t edges[2][2], int32_t zero)
{
    const uint32_t pitch = totals_pitch(p, t), pairs = (uint32_t)(t->rows + 1) / 2;
    int32_t *totals = p->totals + totals_before(p, t), *const end = totals + pairs * pitch;
    const struct poly_begin_call call = {
        .totals = hw_address(totals), .gap = 4 * pitch - 16 * (uint32_t)t->columns, .centres = hw_address(p->centres),
        .columns = 4 * (uint32_t)t->columns, .pairs = pairs, .bias0 = (uint32_t)scales[0].bias, .bias1 = (uint32_t)scales[1].bias,
    };
    hw_poly_begin(&call);
    for (const int32_t last = 4 * (t->columns - 1); zero && totals < end; totals += pitch)
        for (uint32_t i = 0; i < 4; i++) {
            totals[i] += t->edges[0] ? zero * edges[i % 2][0] : 0;
            totals[last + (int32_t)i] += t->edges[1] ? zero * edges[i % 2][1] : 0;
        }
}

HW_INLINE void multiply_poly(const poly *p, const poly_tile *t, uint32_t most_channels, const struct poly_loop *loop)
{
    const uint32_t blocks = (p->channels + most_channels - 1) / most_channels;
    const uint32_t word_bytes = p->channel_words * 4, weight_bytes = p->weight_words * 4, step = p->channels * word_bytes;
    for (uint32_t block = 0; block < blocks; block++) {
        const uint32_t begin = p->channels * block / blocks, end = p->channels * (block + 1) / blocks;
        const uint32_t skipped = (loop->unroll - (end - begin) % loop->unroll) % loop->unroll;
        const uint32_t first = hw_address(p->words) + begin * word_bytes - skipped * word_bytes;
        const struct poly_call call = {
            .first = first, .last = first - loop->pair_bytes + t->segments * step,
            .segment_step = step - (loop->turns ? (end - begin + skipped) * word_bytes : 0), .pairs = (uint32_t)(t->rows + 1) / 2,
            .weights = hw_address(p->weights) + begin * weight_bytes - skipped * weight_bytes,
            .end = hw_address(p->weights) + end * weight_bytes, .skipped = skipped * loop->channel_bytes, .totals = hw_address(p->totals),
        };
        loop->run(&call);
    }
}

HW_APART void finish_poly(const poly *p, const poly_tile *t, const hw_op *op, uint32_t filter, const hw_quick_scale scales[2])
{
    const uint32_t columns = (uint32_t)t->columns;
    const uint32_t index = ((uint32_t)t->y0 * op->out_w + (uint32_t)t->x0) * op->out_c + filter;
    const struct poly_finish_call call = {
        .totals = hw_address(p->totals + totals_before(p, t)), .to_other = 8, .to_next = 4 * totals_pitch(p, t) - 8,
        .bytes = 16 * columns, .output = hw_address(op->output) + index, .row_step = (uint32_t)op->out_w * op->out_c,
        .out_step = op->out_c, .rows = (uint32_t)t->rows, .skipped = (0u - columns) % FINISH_UNROLL * FINISH_POSITION_BYTES,
        .max = op->output_max * 0x01010101u, .scales = hw_address(scales),
    };
    hw_poly_finish(&call);
}

/* Whether it was done: the caller has another way for shapes and scales that do not fit. */
HW_INLINE int conv2d_polynomial(const hw_op *op, uint32_t stride, uint32_t bits, uint32_t code_bits, int32_t largest, int shift, uint32_t pixels, uint32_t most_channels, const struct poly_loop *loop)
{
    if (!is_polynomial(op, stride) || !hw_is_quick(op, largest))
        return 0;
    const uint32_t outputs = op->out_c / op->groups;
    poly p;
    make_poly(&p, op, pixels);
    for (uint32_t group = 0; group < op->groups; group++)
        for (int32_t y0 = 0; y0 < op->out_h; y0 += POLY_OUT_ROWS)
            for (int32_t x0 = 0; x0 < op->out_w; x0 += p.columns) {
                const poly_tile t = poly_tile_at(&p, op, y0, x0);
                pack_poly(&p, &t, op, group * p.channels, stride, pixels, shift, code_bits);
                sum_poly(&p, &t, (1 << bits) - 1);
                for (uint32_t o = group * outputs; o < (group + 1) * outputs; o += 2) {
                    const hw_quick_scale scales[2] = {hw_make_quick_scale(op, o), hw_make_quick_scale(op, o + 1)};
                    int32_t edges[2][2] = {{0, 0}, {0, 0}};
                    expand_pair(&p, op, o, stride, bits, shift);
                    if (op->input_zero[0])
                        sum_edges(&p, bits, shift, edges);
                    begin_totals(&p, &t, scales, edges, op->input_zero[0]);
                    multiply_poly(&p, &t, most_channels, loop);
                    finish_poly(&p, &t, op, o, scales);
                }
            }
    return 1;
}

#endif
#endif
