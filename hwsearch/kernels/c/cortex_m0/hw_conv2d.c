/* hw_conv2d_w?a? on a Cortex-M0+.
 *
 * Its multiplication gives 32 bits in one cycle, but overwrites a factor, and loads take two. So everything is unpacked to
 * words first, which are loaded several at a time, and two words of pixels meet three filters: 21 cycles for 6 products.
 *
 * Low bits pay by packed multiplication: a word holds one pixel, two in fields of 16 bits, or four in fields of 8 bits,
 *
 *     (q0 + q1 * 2^16) * u = q0 u + q1 u * 2^16
 *
 * and one filter's unsigned code u multiplies all of them. Fields never borrow, and `limit` products fit before they are
 * emptied into totals. The centre of the weights is put back once per pixel:
 * sum (2u + 1 - 2^b) q = 2 sum u q - (2^b - 1) sum q. hw_blocks.h explains the order of work.
 */
#include "hw_cortex_m0.h"

#if defined(HW_CORTEX_M0) && defined(HW_W)
#include "hw_blocks.h"
#include "generated/hw_expand_loops.h"
#include "generated/hw_finish_loops.h"

enum { ON, EMPTY, LAST }; /* after a stretch: go on, empty the fields, the column ends */

/* Stretches of consecutive words that the loop runs through: to the end of a run or where fields must be emptied. Per
 * stretch: where its weights end, by how much to move to its pixels, where to enter the loop, and what comes after. */
HW_INLINE void plan_stretches(const blocks *b, uint32_t filters, uint32_t step_bytes)
{
    uint32_t *stretch = b->stretches, end = hw_address(b->weights), room = b->limit;
    for (uint32_t run = 0; run < b->runs; run++)
        for (uint32_t start = 0, count; start < b->run; start += count) {
            count = b->run - start < room ? b->run - start : room;
            const uint32_t skipped = 0u - count & (STEP_UNROLL - 1u);
            room -= count;
            end += 4 * filters * count;
            stretch[0] = end;
            stretch[1] = run && !start ? b->row_bytes - 8 * b->run : 0;
            stretch[2] = skipped * step_bytes;
            stretch[3] = run + 1 == b->runs && start + count == b->run ? LAST : room ? ON : EMPTY;
            room = room ? room : b->limit;
            stretch += STRETCH_WORDS;
        }
}

/* Whole words of dense codes of three rows. */
HW_INLINE void expand_words(const uint8_t *row, uint32_t row_bytes, uint32_t count, uint32_t stored, uint32_t bits, uint32_t *words)
{
    const struct expand_call call = {
        .words = hw_address(words),
        .row0 = hw_address(row),
        .row1 = hw_address(row + row_bytes),
        .row2 = hw_address(row + 2 * row_bytes),
        .end = hw_address(words + 3 * count),
        .unused_bits = 32 - bits,
    };
    (stored == 8 ? hw_expand_8 : stored == 4 ? hw_expand_4 : stored == 2 ? hw_expand_2 : hw_expand_1)(&call);
}

/* The first `count` codes of 3 bits of a word, cut to their top `bits` bits, to every third word. */
HW_INLINE void expand_threes(uint32_t codes, uint32_t count, uint32_t bits, uint32_t *words)
{
    for (uint32_t i = 0; i < count; i++)
        words[3 * i] = codes << (29 - 3 * i) >> (32 - bits);
}

/* Codes of 3 bits of one row, 32 at a time, of which two lie in two words. */
HW_APART void expand_three_bits(const uint8_t *row, uint32_t count, uint32_t bits, uint32_t *words)
{
    HW_ROLLED
    for (; count; count -= 32, row += 12, words += 96) {
        const uint32_t w0 = hw_load(row), w1 = hw_load(row + 4), w2 = hw_load(row + 8);
        expand_threes(w0, 10, bits, words);
        expand_threes(w0 >> 30 | w1 << 2, 1, bits, words + 30);
        expand_threes(w1 >> 1, 10, bits, words + 33);
        expand_threes(w1 >> 31 | w2 << 1, 1, bits, words + 63);
        expand_threes(w2 >> 2, 10, bits, words + 66);
    }
}

/* Codes of one row to every `step`th word. */
HW_APART void expand_row(const uint8_t *row, uint32_t from, uint32_t to, uint32_t stored, uint32_t bits, uint32_t *words, uint32_t step)
{
    words += from * step;
    for (; from < to; from++, words += step)
        *words = hw_weight_code(row, from, stored, bits);
}

/* Expand `filters` rows to words [code][filter]. */
HW_APART void expand(const hw_op *op, const blocks *b, uint32_t bits, uint32_t o, uint32_t filters)
{
    const uint32_t stored = op->stored_bits, row_bytes = hw_row_bytes(b->window, stored);
    const uint32_t per_step = stored == 8 ? 4 : stored == 4 ? 8 : stored == 2 ? 16 : 32;
    const uint32_t whole = filters == 3 ? b->window & ~(per_step - 1) : 0;
    const uint8_t *row = op->weights + o * row_bytes;
    if (whole && stored != 3)
        expand_words(row, row_bytes, whole, stored, bits, b->weights);
    for (uint32_t f = 0; f < filters; f++, row += row_bytes) {
        if (stored == 3)
            expand_three_bits(row, whole, bits, b->weights + f);
        expand_row(row, whole, b->window, stored, bits, b->weights + f, filters);
    }
}

HW_INLINE void multiply(uint32_t fields, uint32_t filters, const struct multiply_call *call)
{
    if (fields == 1)
        (filters == 3 ? hw_multiply_3x1 : filters == 2 ? hw_multiply_2x1 : hw_multiply_1x1)(call);
    else if (fields == 2)
        (filters == 3 ? hw_multiply_3x2 : filters == 2 ? hw_multiply_2x2 : hw_multiply_1x2)(call);
    else
        (filters == 3 ? hw_multiply_3x4 : filters == 2 ? hw_multiply_2x4 : hw_multiply_1x4)(call);
}

/* Write `count` neighbours of one channel and lane from a total of each column: 32 bits, or 16 for four fields. */
HW_INLINE void finish_lane(const hw_op *op, uint32_t fields, const hw_parts *parts, const uint8_t *totals,
                           const int32_t *centres, uint32_t count, uint32_t index, uint32_t o)
{
    if (parts->way == HW_SLOW) {
        for (uint32_t i = 0; i < count; i++, totals += COLUMN_BYTES, index += op->out_c) {
            const int32_t total = fields == 4 ? *(const uint16_t *)(const void *)totals : *(const int32_t *)(const void *)totals;
            hw_finish(op, index, o, parts->bias + 2 * total - centres[i]);
        }
        return;
    }
    const struct finish_call call = {
        .totals = hw_address(totals),
        .centres = hw_address(centres),
        .output = hw_address(op->output) + index,
        .shift = parts->shift,
        .bias = (uint32_t)parts->bias,
        .low = parts->low,
        .high = parts->high,
        .offset = (uint32_t)parts->offset,
        .output_step = op->out_c,
        .max = op->output_max,
        .end = hw_address(centres + count),
    };
    if (fields == 4)
        (parts->way == HW_NARROW ? hw_finish_halfs_narrow : hw_finish_halfs_wide)(&call);
    else if (parts->way == HW_NARROW)
        hw_finish_words_narrow(&call);
    else
        hw_finish_words_wide(&call);
}

/* One row of places: `filters` filters from `o` on. */
HW_APART void finish_row(const hw_op *op, const blocks *b, uint32_t fields, const hw_parts *parts, int32_t y, int32_t x,
                         const int32_t *centres, uint32_t o, uint32_t filters)
{
    uint32_t lane = 0;
    for (uint32_t r = 0; r < b->row_parts; r++)
        for (uint32_t c = 0; c < b->column_parts; c++, lane++) {
            const int32_t row = (int32_t)r * b->part_h + y, column = (int32_t)c * b->part_w + x;
            const int32_t count = hw_smaller(hw_smaller(b->columns, b->part_w - x), b->out_w - column);
            if (row >= b->out_h || count <= 0)
                continue;
            const uint32_t index = ((uint32_t)row * (uint32_t)b->out_w + (uint32_t)column) * op->out_c + o;
            for (uint32_t f = 0; f < filters; f++)
                finish_lane(op, fields, parts + f, b->totals + (f * b->lanes + lane) * (fields == 4 ? 2 : 4),
                            centres + lane * b->positions, (uint32_t)count, index + f, o + f);
        }
}

/* All filters of a group, `o` to `end`, on a packed tile. */
HW_INLINE void convolve_tile(const hw_op *op, const blocks *b, uint32_t fields, uint32_t bits, int32_t y, int32_t x, uint32_t o,
                             uint32_t end)
{
    const int32_t rows = hw_smaller(b->rows, b->part_h - y), columns = hw_smaller(b->columns, b->part_w - x);
    const uint32_t row_step = b->row_bytes * (b->gathered ? 1u : op->stride_h);
    uint32_t planned = 0;
    for (uint32_t filters; o < end; o += filters) {
        filters = end - o < MOST_FILTERS ? end - o : MOST_FILTERS;
        hw_parts parts[MOST_FILTERS];
        for (uint32_t f = 0; f < filters; f++)
            parts[f] = hw_make_parts(op, b->reach, o + f);
        expand(op, b, bits, o, filters);
        if (planned != filters)
            plan_stretches(b, filters, filters == 3 ? STEP_BYTES_3 : filters == 2 ? STEP_BYTES_2 : STEP_BYTES_1);
        planned = filters;
        for (int32_t row = 0; row < rows; row++) {
            const struct multiply_call call = {
                .pixels = hw_address(b->pixels) + (uint32_t)row * row_step,
                .weights = hw_address(b->weights),
                .stretches = hw_address(b->stretches),
                .totals = hw_address(b->totals),
                .columns = (uint32_t)columns,
                .column_bytes = b->column_bytes,
            };
            multiply(fields, filters, &call);
            finish_row(op, b, fields, parts, y + row, x, b->sums + (uint32_t)row * b->lanes * b->positions, o, filters);
        }
    }
}

HW_INLINE void convolve(const hw_op *op, uint32_t bits, uint32_t product, uint32_t fields, uint32_t limit)
{
    blocks b;
    make_blocks(&b, op, product, fields, limit);
    const uint32_t outputs = op->out_c / op->groups;
    for (uint32_t g = 0; g < op->groups; g++)
        for (int32_t y = 0; y < b.part_h; y += b.rows)
            for (int32_t x = 0; x < b.part_w; x += b.columns) {
                pack_block(op, &b, fields, y, x, g * b.channels, (1 << bits) - 1);
                convolve_tile(op, &b, fields, bits, y, x, g * outputs, (g + 1) * outputs);
            }
}

/* Pixels of a word: as many as fields that hold enough products to be worth emptying. */
#define PRODUCT(W, A) (((1u << (W)) - 1u) * ((1u << (A)) - 1u))
#define PIXELS(W, A) (255u / PRODUCT(W, A) >= 16 ? 4 : 65535u / PRODUCT(W, A) >= 16 ? 2 : 1)
#define LIMIT(W, A) (PIXELS(W, A) == 4 ? 255u / PRODUCT(W, A) : PIXELS(W, A) == 2 ? 65535u / PRODUCT(W, A) : 1u << 20)

void HW_OF_WIDTHS(hw_conv2d)(const hw_op *op);
void HW_OF_WIDTHS(hw_conv2d)(const hw_op *op) { convolve(op, HW_W, PRODUCT(HW_W, HW_A), PIXELS(HW_W, HW_A), LIMIT(HW_W, HW_A)); }

#endif
