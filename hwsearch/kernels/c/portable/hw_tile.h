/* How hw_conv2d cuts its work into tiles and packs their input; see there for the packing itself.
 *
 * `hwsearch/kernels/bodies/portable.py` computes the same sizes.
 */
#ifndef HW_TILE_H
#define HW_TILE_H

#include "hw_portable.h"

enum { TILE_QUADS = 8, TILE_BYTES = 16384, SHORT_RUN = 16, QUAD = 4 };

/* Sizes of a tile and where it lies in the scratch memory. */
typedef struct tiling {
    int32_t in_h, in_w, out_h, out_w;
    int32_t columns, rows;            /* output columns and rows of quads in a tile */
    uint32_t channels, reach;         /* input channels of a group; bound on the sum of products of one output */
    uint32_t runs, run;               /* consecutive packed pairs of words: how many stretches, how long each */
    uint32_t run_words, column_words; /* from one run, and from one output column, to the next */
    uint32_t row_words, positions;    /* words and input columns of one row of quads */
    int gathered;                     /* short runs are gathered into one per output column, with copies */
    uint32_t *pixels, *weights;
    int32_t *sums; /* of the codes under a window: [rows][columns][QUAD] */
    uint8_t *padding;
} tiling;

HW_INLINE void set_columns(tiling *t, const hw_op *op, int32_t columns)
{
    t->columns = columns;
    t->positions = t->gathered ? (uint32_t)columns : (uint32_t)(columns - 1) * op->stride_w + op->kernel_w;
    t->run_words = t->gathered ? 0 : 2 * t->positions * t->channels;
    t->row_words = t->gathered ? (uint32_t)columns * t->column_words : t->runs * t->run_words;
}

HW_INLINE tiling make_tiling(const hw_op *op, uint32_t bits)
{
    tiling t = {.in_h = op->in_h, .in_w = op->in_w, .out_h = op->out_h, .out_w = op->out_w};
    if (op->kernel_h * op->kernel_w == 1 && op->stride_h * op->stride_w == 1 && op->pad_h + op->pad_w == 0) {
        t.in_h = t.out_h = t.in_h * t.in_w;
        t.in_w = t.out_w = 1;
    }
    t.channels = op->in_c / op->groups;
    t.reach = hw_reach((uint32_t)op->kernel_h * op->kernel_w * t.channels, bits);
    t.runs = op->kernel_h;
    t.run = op->kernel_w * t.channels;
    t.gathered = t.run < SHORT_RUN;
    t.column_words = 2 * op->stride_w * t.channels;
    if (t.gathered) {
        t.run = (t.runs * t.run + 3u) & ~3u;
        t.runs = 1;
        t.column_words = 2 * t.run;
    }
    set_columns(&t, op, hw_smaller(t.out_w, TILE_QUADS));
    while (t.columns > 1 && t.row_words * 4 > TILE_BYTES)
        set_columns(&t, op, (t.columns + 1) / 2);
    t.rows = hw_smaller((t.out_h + QUAD - 1) / QUAD, TILE_QUADS / t.columns);
    while (t.rows > 1 && (uint32_t)t.rows * t.row_words * 4 > TILE_BYTES)
        t.rows = (t.rows + 1) / 2;
    t.pixels = (uint32_t *)(void *)op->scratch;
    t.weights = t.pixels + (uint32_t)t.rows * t.row_words;
    t.sums = (int32_t *)(t.weights + 2 * ((op->kernel_h * op->kernel_w * t.channels + 15u) & ~15u));
    t.padding = (uint8_t *)(t.sums + (uint32_t)t.rows * t.positions * QUAD);
    memset(t.padding, op->input_zero[0], t.channels);
    return t;
}

/* Pack two of a quad's pixels: q0 + q1 * scale into every second word, and add their codes to two sums.
 *
 * Four channels at a time where words can be read; 128 such steps do not overflow the sums' 16-bit halves. */
HW_INLINE void pack_pair(uint32_t *words, const uint8_t *first, const uint8_t *second, uint32_t channels, uint32_t scale,
                         int32_t *sums)
{
    uint32_t sum0 = 0, sum1 = 0, c = 0;
    const uint32_t whole = channels & 3 ? 0 : channels;
    while (c < whole) {
        const uint32_t end = whole < c + 512 ? whole : c + 512;
        uint32_t halves0 = 0, halves1 = 0;
        for (; c < end; c += 4, words += 8) {
            const uint32_t q0 = hw_load(first + c), q1 = hw_load(second + c);
            words[0] = (q0 & 255u) + (q1 & 255u) * scale;
            words[2] = (q0 >> 8 & 255u) + (q1 >> 8 & 255u) * scale;
            words[4] = (q0 >> 16 & 255u) + (q1 >> 16 & 255u) * scale;
            words[6] = (q0 >> 24) + (q1 >> 24) * scale;
            halves0 += (q0 & 0xFF00FFu) + (q0 >> 8 & 0xFF00FFu);
            halves1 += (q1 & 0xFF00FFu) + (q1 >> 8 & 0xFF00FFu);
        }
        sum0 += (halves0 & 0xFFFFu) + (halves0 >> 16);
        sum1 += (halves1 & 0xFFFFu) + (halves1 >> 16);
    }
    for (; c < channels; c++, words += 2) {
        const uint32_t q0 = first[c], q1 = second[c];
        *words = q0 + q1 * scale;
        sum0 += q0, sum1 += q1;
    }
    sums[0] += (int32_t)sum0, sums[1] += (int32_t)sum1;
}

/* Where the codes of a quad's four pixels lie, the first in input row `top`; padding if outside. */
HW_INLINE void find_codes(const hw_op *op, const tiling *t, int32_t top, int32_t column, uint32_t first,
                          const uint8_t *codes[QUAD])
{
    for (int32_t r = 0; r < QUAD; r++) {
        const int32_t row = top + r * op->stride_h;
        const int inside = row >= 0 && row < t->in_h && column >= 0 && column < t->in_w;
        const uint32_t pixel = (uint32_t)row * (uint32_t)t->in_w + (uint32_t)column;
        codes[r] = inside ? op->input[0] + pixel * op->in_c + first : t->padding;
    }
}

/* Pack one row of quads. Usually kernel row by kernel row, each with all positions that the tile's columns touch;
 * gathered: output column by output column, each with its whole window. */
HW_INLINE void pack_row(const hw_op *op, const tiling *t, int32_t top, int32_t left, uint32_t first, uint32_t scale,
                        uint32_t *words, int32_t *sums)
{
    const uint32_t columns = t->gathered ? (uint32_t)t->columns : 1, positions = t->gathered ? op->kernel_w : t->positions;
    for (uint32_t x = 0; x < columns; x++, left += op->stride_w) {
        uint32_t *const end = words + t->column_words;
        for (uint32_t dy = 0; dy < op->kernel_h; dy++)
            for (uint32_t p = 0; p < positions; p++) {
                const uint8_t *codes[QUAD];
                int32_t *sum = sums + (t->gathered ? x : p) * QUAD;
                find_codes(op, t, top + (int32_t)dy, left + (int32_t)p, first, codes);
                for (uint32_t half = 0; half < 2; half++)
                    pack_pair(words + half, codes[2 * half], codes[2 * half + 1], t->channels, scale, sum + 2 * half);
                words += 2 * t->channels;
            }
        while (t->gathered && words < end)
            *words++ = 0;
    }
}

/* From sums of positions to sums of windows, in place: window x ends behind every window before it. */
HW_INLINE void sum_windows(const hw_op *op, const tiling *t, int32_t *sums)
{
    for (uint32_t x = 0; x < (uint32_t)t->columns; x++)
        for (uint32_t r = 0; r < QUAD; r++) {
            int32_t sum = 0;
            for (uint32_t dx = 0; dx < op->kernel_w; dx++)
                sum += sums[(x * op->stride_w + dx) * QUAD + r];
            sums[x * QUAD + r] = sum;
        }
}

/* Pack the input codes of a tile, `scale` apart, and sum them under each window, times `centre`. */
HW_APART void pack_tile(const hw_op *op, const tiling *t, int32_t y, int32_t x, uint32_t first, uint32_t scale,
                        int32_t centre)
{
    const uint32_t count = t->positions * QUAD;
    for (int32_t row = 0; row < t->rows; row++) {
        const int32_t top = (y + row) * QUAD * op->stride_h - op->pad_h, left = x * op->stride_w - op->pad_w;
        int32_t *sums = t->sums + (uint32_t)row * count;
        for (uint32_t i = 0; i < count; i++)
            sums[i] = 0;
        pack_row(op, t, top, left, first, scale, t->pixels + (uint32_t)row * t->row_words, sums);
        if (!t->gathered)
            sum_windows(op, t, sums);
        for (int32_t i = 0; i < t->columns * QUAD; i++)
            sums[i] *= centre;
    }
}

#endif
