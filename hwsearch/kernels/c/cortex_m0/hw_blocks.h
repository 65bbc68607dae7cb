/* How hw_conv2d cuts its work on a Cortex-M0+, and packs its input.
 *
 * The output is dealt to `lanes` parts of equal size, `row_parts` x `column_parts` of them; the pixels at one place of every
 * part are computed together. A tile is `rows` x `columns` places. The input under it is packed once: per input position and
 * channel two words, of one, two or four pixels each. A 1x1 convolution sees the image as one row.
 *
 * `hwsearch/kernels/bodies/cortex_m0.py` computes the same sizes.
 */
#ifndef HW_BLOCKS_H
#define HW_BLOCKS_H

#include "generated/hw_multiply_loops.h"

#ifdef HW_CORTEX_M0

enum { MOST_LANES = 8, MOST_FILTERS = 3, MOST_COLUMNS = 32, MOST_ROWS = 16, BLOCK_BYTES = 16384, SHORTEST_RUN = 8 };

typedef struct blocks {
    int32_t in_h, in_w, out_h, out_w;
    uint32_t fields, lanes;            /* pixels of one word, and together */
    uint32_t row_parts, column_parts;
    int32_t part_h, part_w;            /* places of a part */
    int32_t rows, columns;             /* places of a tile */
    int gathered;                      /* every window is copied; else neighbours share what is packed */
    uint32_t channels, window;         /* input channels of a group; codes under a window */
    uint32_t runs, run;                /* consecutive packed codes of a window: how many stretches, how long each */
    uint32_t positions, in_rows;       /* packed positions of a row, and rows, of a tile */
    uint32_t column_bytes, row_bytes;  /* from one place, and from one packed row, to the next */
    uint32_t limit, reach;             /* products that a field holds; bound on a sum of products */
    uint8_t *pixels, *totals, *padding;
    uint32_t *weights, *stretches;
    int32_t *sums;                     /* of codes: [row][lane][position] */
} blocks;

HW_INLINE uint32_t ceil_div(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

/* Parts that waste the fewest places; of equal ones the widest, whose rows are long. */
HW_INLINE void deal(blocks *b)
{
    uint32_t best = 0;
    for (uint32_t rows = 1; rows <= b->lanes; rows *= 2) {
        const uint32_t columns = b->lanes / rows;
        const uint32_t h = ceil_div((uint32_t)b->out_h, rows), w = ceil_div((uint32_t)b->out_w, columns);
        if (best == 0 || h * w <= best)
            best = h * w, b->row_parts = rows, b->column_parts = columns, b->part_h = (int32_t)h, b->part_w = (int32_t)w;
    }
}

/* Bytes of a tile's packed codes, sums of codes and totals. */
HW_INLINE uint32_t set_tile(blocks *b, const hw_op *op, int32_t rows, int32_t columns)
{
    b->rows = rows, b->columns = columns;
    b->in_rows = b->gathered ? (uint32_t)rows : (uint32_t)(rows - 1) * op->stride_h + op->kernel_h;
    b->positions = b->gathered ? (uint32_t)columns : (uint32_t)(columns - 1) * op->stride_w + op->kernel_w;
    b->row_bytes = b->positions * (b->gathered ? b->window : b->channels) * 8;
    return b->in_rows * (b->row_bytes + b->positions * b->lanes * 4) + (uint32_t)columns * COLUMN_BYTES;
}

HW_APART void make_blocks(blocks *b, const hw_op *op, uint32_t product, uint32_t fields, uint32_t limit)
{
    *b = (blocks){.in_h = op->in_h, .in_w = op->in_w, .out_h = op->out_h, .out_w = op->out_w};
    b->fields = fields, b->lanes = 2 * fields, b->limit = limit, b->channels = op->in_c / op->groups;
    b->window = (uint32_t)op->kernel_h * op->kernel_w * b->channels;
    b->reach = b->window * product;
    b->gathered = op->kernel_w * b->channels < SHORTEST_RUN || (op->kernel_h <= op->stride_h && op->kernel_w <= op->stride_w);
    if (op->kernel_h * op->kernel_w == 1 && op->stride_h * op->stride_w == 1 && op->pad_h + op->pad_w == 0) {
        b->in_w = b->out_w = b->in_h * b->in_w;
        b->in_h = b->out_h = 1;
    }
    b->runs = b->gathered ? 1 : op->kernel_h;
    b->run = b->gathered ? b->window : op->kernel_w * b->channels;
    b->column_bytes = 8 * (b->gathered ? b->window : op->stride_w * b->channels);
    deal(b);
    int32_t rows = hw_smaller(b->part_h, MOST_ROWS), columns = hw_smaller(b->part_w, MOST_COLUMNS);
    uint32_t bytes = set_tile(b, op, rows, columns);
    while (rows * columns > 1 && bytes + 4 * b->window > BLOCK_BYTES) {
        if (rows >= columns)
            rows = (rows + 1) / 2;
        else
            columns = (columns + 1) / 2;
        bytes = set_tile(b, op, rows, columns);
    }
    b->pixels = op->scratch;
    b->weights = (uint32_t *)(void *)(b->pixels + b->in_rows * b->row_bytes);
    b->stretches = b->weights + MOST_FILTERS * b->window;
    b->sums = (int32_t *)(b->stretches + STRETCH_WORDS * (b->runs + b->window / limit + 1));
    b->totals = (uint8_t *)(b->sums + b->in_rows * b->positions * b->lanes);
    b->padding = b->totals + (uint32_t)columns * COLUMN_BYTES;
    memset(b->padding, op->input_zero[0], b->channels);
}

/* The lowest bit of a pixel in its word; of four bytes, the even ones come first, as they do in totals. */
HW_INLINE uint32_t field_bit(uint32_t fields, uint32_t i) { return fields == 4 ? i % 2 * 16 + i / 2 * 8 : 16 * i; }

HW_INLINE void add_word(uint32_t fields, uint32_t word, int32_t *sums)
{
    for (uint32_t i = 0; i < fields; i++)
        sums[i] += (int32_t)(word >> field_bit(fields, i) & (fields == 1 ? ~0u : fields == 2 ? 0xFFFFu : 0xFFu));
}

/* Pack one half of the lanes, every second word from `words` on, and add their codes to `sums`; as many at a time as sums in
 * the words' own fields can hold. Four channels at a time where words can be read. */
HW_INLINE void pack_half(uint32_t fields, uint32_t *words, const uint8_t *const codes[], uint32_t channels, int32_t *sums)
{
    const uint32_t most = fields == 4 ? 16 : 256, whole = channels & 3 ? 0 : channels;
    uint32_t c = 0;
    while (c < channels) {
        const uint32_t end = channels < c + most ? channels : c + most;
        uint32_t sum = 0;
        HW_ROLLED
        for (; c < end && c < whole; c += 4, words += 8) {
            uint32_t four[4] = {0, 0, 0, 0};
            for (uint32_t i = 0; i < fields; i++) {
                const uint32_t word = hw_load(codes[i] + c), bit = field_bit(fields, i);
                four[0] |= (word & 255u) << bit, four[1] |= (word >> 8 & 255u) << bit;
                four[2] |= (word >> 16 & 255u) << bit, four[3] |= word >> 24 << bit;
            }
            words[0] = four[0], words[2] = four[1], words[4] = four[2], words[6] = four[3];
            sum += four[0] + four[1] + four[2] + four[3];
        }
        HW_ROLLED
        for (; c < end; c++, words += 2) {
            uint32_t word = 0;
            for (uint32_t i = 0; i < fields; i++)
                word |= (uint32_t)codes[i][c] << field_bit(fields, i);
            *words = word;
            sum += word;
        }
        add_word(fields, sum, sums);
    }
}

/* The first input row and column under a place, by lane. */
typedef struct corner {
    int32_t top, left;
} corner;

HW_INLINE void find_corners(const hw_op *op, const blocks *b, int32_t y, int32_t x, corner corners[MOST_LANES])
{
    uint32_t lane = 0;
    for (uint32_t r = 0; r < b->row_parts; r++)
        for (uint32_t c = 0; c < b->column_parts; c++, lane++) {
            corners[lane].top = ((int32_t)r * b->part_h + y) * op->stride_h - op->pad_h;
            corners[lane].left = ((int32_t)c * b->part_w + x) * op->stride_w - op->pad_w;
        }
}

/* Pack one input position, at (v, u) from every lane's corner. */
HW_APART uint32_t *pack_position(const hw_op *op, const blocks *b, uint32_t fields, const corner *corners, int32_t v, int32_t u,
                                 uint32_t first, uint32_t *words, int32_t sums[MOST_LANES])
{
    const uint8_t *codes[MOST_LANES];
    for (uint32_t lane = 0; lane < 2 * fields; lane++) {
        const uint32_t row = (uint32_t)(corners[lane].top + v), column = (uint32_t)(corners[lane].left + u);
        const int inside = row < (uint32_t)b->in_h && column < (uint32_t)b->in_w;
        codes[lane] = inside ? op->input[0] + (row * (uint32_t)b->in_w + column) * op->in_c + first : b->padding;
    }
    pack_half(fields, words, codes, b->channels, sums);
    pack_half(fields, words + 1, codes + fields, b->channels, sums + fields);
    return words + 2 * b->channels;
}

/* From sums of positions to sums of windows times `centre`, in place: a window never ends before its own place. */
HW_APART void sum_block(const hw_op *op, const blocks *b, int32_t centre)
{
    const uint32_t rows = b->gathered ? 1 : op->kernel_h, columns = b->gathered ? 1 : op->kernel_w;
    const uint32_t stride_h = b->gathered ? 1 : op->stride_h, stride_w = b->gathered ? 1 : op->stride_w;
    const uint32_t row_step = b->lanes * b->positions;
    for (uint32_t y = 0; y < (uint32_t)b->rows; y++)
        for (uint32_t lane = 0; lane < b->lanes; lane++) {
            int32_t *to = b->sums + y * row_step + lane * b->positions;
            const int32_t *from = b->sums + y * stride_h * row_step + lane * b->positions;
            HW_ROLLED
            for (uint32_t x = 0; x < (uint32_t)b->columns; x++, from += stride_w) {
                int32_t sum = 0;
                const int32_t *row = from;
                HW_ROLLED
                for (uint32_t v = rows; v; v--, row += row_step)
                    HW_ROLLED
                    for (uint32_t u = 0; u < columns; u++)
                        sum += row[u];
                *to++ = sum * centre;
            }
        }
}

/* Pack the input codes of a tile, from place (y, x) on, and sum them under each window, times `centre`. */
HW_INLINE void pack_block(const hw_op *op, const blocks *b, uint32_t fields, int32_t y, int32_t x, uint32_t first, int32_t centre)
{
    uint32_t *words = (uint32_t *)(void *)b->pixels;
    int32_t *sums = b->sums;
    corner corners[MOST_LANES];
    find_corners(op, b, y, x, corners);
    for (int32_t r = 0; r < (int32_t)b->in_rows; r++, sums += b->lanes * b->positions)
        for (int32_t p = 0; p < (int32_t)b->positions; p++) {
            int32_t sum[MOST_LANES] = {0};
            if (!b->gathered) {
                words = pack_position(op, b, fields, corners, r, p, first, words, sum);
            } else {
                const int32_t top = r * op->stride_h, left = p * op->stride_w;
                for (int32_t v = 0; v < op->kernel_h; v++)
                    for (int32_t u = 0; u < op->kernel_w; u++)
                        words = pack_position(op, b, fields, corners, top + v, left + u, first, words, sum);
            }
            for (uint32_t lane = 0; lane < 2 * fields; lane++)
                sums[lane * b->positions + (uint32_t)p] = sum[lane];
        }
    sum_block(op, b, centre);
}

#endif
#endif
