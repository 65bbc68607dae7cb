/* hw_conv2d_w?a? for RV32IM: convolution with groups, four pixels times four filters at a time.
 *
 * Sixteen sums stay in registers; each step loads four words of codes and four of weights for sixteen multiplications of 1, 2 or
 * 4 lanes (hw_riscv.h). Tiles are those of hw_tile.h: a quad is 4 output pixels of one column, and the codes of a tile are
 * packed once for all filters, the weights of four filters once for all quads of a tile. Codes lie in groups of four: one word
 * per pixel and group, or two with two lanes, the even codes and then the odd ones. A window is a run of groups per kernel row;
 * where channels do not come in fours, it is gathered to one run.
 *
 * sum (2u + 1 - 2^b) q = 2 sum u q - (2^b - 1) sum q.
 */
#include "portable/hw_portable.h"

#if defined(HW_RISCV) && defined(HW_W)

#include "hw_riscv.h"
#include "portable/hw_tile.h"

enum { FILTERS = 4, SUMS = FILTERS * QUAD };

/* `room`: groups after which fields are emptied; where it would be few, each at once. */
typedef struct fields {
    uint32_t bits, lanes, room;
} fields;

#define ROOM(W, A) (HW_LANES(W, A) == 2 ? HW_LIMIT(W, A) / 2 : HW_LANES(W, A) == 4 && HW_LIMIT(W, A) < 8 ? 1 : HW_LIMIT(W, A))
#define FIELDS(W, A) {.bits = (W), .lanes = HW_LANES(W, A), .room = ROOM(W, A)}

/* How windows lie in the packed codes, in words; `groups` is the length of a run. */
typedef struct windows {
    uint32_t groups, runs, run_words, column_words, row_words;
    int32_t columns, rows;
    int gathered;
    uint32_t *weights;
    int32_t *sums;
    int32_t gathered_sums[TILE_QUADS * QUAD];
} windows;

HW_INLINE uint32_t group_words(uint32_t lanes) { return lanes == 2 ? 2 * QUAD : QUAD; }

/* The same memory as the portable tile takes, cut anew: codes that are not split into two words leave room for twice the rows.
 * A gathered window takes at most three codes more than there, for which the
 * sums and the padding leave room: neither is used then. */
HW_INLINE void make_windows(windows *s, const hw_op *op, const tiling *t, uint32_t lanes)
{
    const uint32_t window = (uint32_t)op->kernel_h * op->kernel_w * t->channels, words = group_words(lanes);
    const uint32_t all = (uint32_t)((uint32_t *)(void *)t->padding - t->pixels) + t->channels / 4;
    s->gathered = t->channels % 4 != 0 || t->positions < (uint32_t)(t->columns - 1) * op->stride_w + op->kernel_w;
    s->columns = t->columns, s->rows = t->rows;
    if (s->gathered) {
        s->groups = (window + 3) / 4, s->runs = 1, s->run_words = 0;
        s->column_words = s->groups * words;
        while (s->rows > 1 && (uint32_t)(s->rows * s->columns + 1) * s->column_words > all)
            s->rows = (s->rows + 1) / 2;
        while (s->columns > 1 && (uint32_t)(s->columns + 1) * s->column_words > all)
            s->columns = (s->columns + 1) / 2;
        s->row_words = (uint32_t)s->columns * s->column_words;
        s->sums = s->gathered_sums;
    } else {
        const uint32_t pixel_words = t->channels / 4 * words;
        const uint32_t sums = t->positions * QUAD, block = window / 4 * words;
        s->groups = op->kernel_w * t->channels / 4, s->runs = op->kernel_h;
        s->run_words = t->positions * pixel_words;
        s->column_words = op->stride_w * pixel_words;
        s->row_words = s->runs * s->run_words;
        s->sums = t->sums;
        if (lanes != 2 && 2 * (uint32_t)s->rows * (s->row_words + sums) + block <= all - t->channels / 4) {
            s->rows = hw_smaller(2 * s->rows, (t->out_h + QUAD - 1) / QUAD);
            s->sums = (int32_t *)(void *)t->pixels + (uint32_t)s->rows * s->row_words + block;
        }
    }
    s->weights = t->pixels + (uint32_t)s->rows * s->row_words;
}

/* Four pixels' codes of `channels` channels, a multiple of 4. 64 steps do not overflow the sums' 16-bit halves. */
HW_INLINE void pack_groups(uint32_t lanes, uint32_t *words, const uint8_t *const codes[QUAD], uint32_t channels, int32_t *sums)
{
    for (uint32_t p = 0; p < QUAD; p++) {
        uint32_t *word = words + p;
        const uint8_t *code = codes[p];
        for (uint32_t left = channels / 4; left;) {
            const uint32_t count = left < 64 ? left : 64;
            uint32_t halves = 0;
            left -= count;
            for (uint32_t n = count; n; n--, code += 4, word += group_words(lanes)) {
                const uint32_t four = hw_load(code), even = four & 0xFF00FFu, odd = four >> 8 & 0xFF00FFu;
                halves += even + odd;
                word[0] = lanes == 2 ? even : four;
                if (lanes == 2)
                    word[QUAD] = odd;
            }
            sums[p] += (int32_t)((halves & 0xFFFFu) + (halves >> 16));
        }
    }
}

/* One row of quads, kernel row by kernel row, and the sums of the codes under each window. */
HW_APART void pack_aligned(const hw_op *op, const tiling *t, const windows *s, int32_t top, int32_t left, uint32_t first,
                           uint32_t lanes, uint32_t *words, int32_t *sums)
{
    for (uint32_t i = 0; i < t->positions * QUAD; i++)
        sums[i] = 0;
    for (uint32_t dy = 0; dy < s->runs; dy++)
        for (uint32_t p = 0; p < t->positions; p++, words += t->channels / 4 * group_words(lanes)) {
            const uint8_t *codes[QUAD];
            find_codes(op, t, top + (int32_t)dy, left + (int32_t)p, first, codes);
            if (lanes == 2)
                pack_groups(2, words, codes, t->channels, sums + p * QUAD);
            else
                pack_groups(4, words, codes, t->channels, sums + p * QUAD);
        }
    sum_windows(op, t, sums);
}

/* Loads before stores: either takes two instructions' time if the other waits for it. */
HW_INLINE uint8_t *copy_bytes(uint8_t *to, const uint8_t *from, uint32_t count)
{
    HW_ROLLED
    for (; count >= 4; count -= 4, from += 4, to += 4) {
        const uint8_t q0 = from[0], q1 = from[1], q2 = from[2], q3 = from[3];
        to[0] = q0, to[1] = q1, to[2] = q2, to[3] = q3;
    }
    HW_ROLLED
    for (; count; count--)
        *to++ = *from++;
    return to;
}

/* The codes of a window that reaches beyond the input, or of one of several groups. */
HW_APART uint8_t *copy_clipped(const hw_op *op, const tiling *t, int32_t top, int32_t left, uint32_t first, uint8_t *copy)
{
    const int32_t beyond = left + op->kernel_w - t->in_w, zero = op->input_zero[0];
    const uint32_t before = (uint32_t)hw_smaller(left < 0 ? -left : 0, op->kernel_w) * t->channels;
    const uint32_t after = (uint32_t)hw_smaller(beyond < 0 ? 0 : beyond, op->kernel_w) * t->channels;
    for (int32_t row = top; row < top + op->kernel_h; row++) {
        const int inside = row >= 0 && row < t->in_h && before + after < op->kernel_w * t->channels;
        uint8_t *const stop = copy + op->kernel_w * t->channels;
        uint8_t *const begin = inside ? copy + before : stop, *const end = inside ? stop - after : stop;
        const uint32_t pixel = (uint32_t)row * (uint32_t)t->in_w + (uint32_t)(left < 0 ? 0 : left);
        const uint8_t *code = op->input[0] + pixel * op->in_c + first;
        while (copy < begin)
            *copy++ = (uint8_t)zero;
        for (; copy < end; code += op->in_c)
            copy = copy_bytes(copy, code, t->channels);
        while (copy < stop)
            *copy++ = (uint8_t)zero;
    }
    return copy;
}

/* The codes of one window in a row, and 0 beyond the last. */
HW_APART void copy_window(const hw_op *op, const tiling *t, int32_t top, int32_t left, uint32_t first, uint8_t *copy,
                          uint8_t *end)
{
    const int inside = top >= 0 && top + op->kernel_h <= t->in_h && left >= 0 && left + op->kernel_w <= t->in_w;
    if (inside && op->groups == 1) {
        const uint32_t run = op->kernel_w * t->channels, width = (uint32_t)t->in_w * op->in_c;
        const uint8_t *code = op->input[0] + (uint32_t)top * width + (uint32_t)left * op->in_c;
        HW_ROLLED
        for (uint32_t rows = op->kernel_h; rows; rows--, code += width)
            copy = copy_bytes(copy, code, run);
    } else
        copy = copy_clipped(op, t, top, left, first, copy);
    while (copy < end)
        *copy++ = 0;
}

/* The windows of one quad, by way of the room for weights. */
HW_APART void pack_gathered(const hw_op *op, const tiling *t, const windows *s, int32_t top, int32_t left, uint32_t first,
                            uint32_t lanes, uint32_t *words, int32_t sums[QUAD])
{
    const uint8_t *codes[QUAD];
    for (int32_t p = 0; p < QUAD; p++) {
        uint8_t *copy = (uint8_t *)(s->weights + (uint32_t)p * s->groups);
        codes[p] = copy;
        copy_window(op, t, top + p * op->stride_h, left, first, copy, copy + 4 * s->groups);
        sums[p] = 0;
    }
    pack_groups(lanes, words, codes, 4 * s->groups, sums);
}

/* Pack a tile whose first output is in quad row y and column x, and the sums under its windows, times `centre`. */
HW_APART void pack_windows(const hw_op *op, const tiling *t, const windows *s, int32_t y, int32_t x, uint32_t first,
                            uint32_t lanes, int32_t centre)
{
    const uint32_t row_sums = s->gathered ? (uint32_t)s->columns * QUAD : t->positions * QUAD;
    for (int32_t r = 0; r < s->rows; r++) {
        const int32_t top = (y + r) * QUAD * op->stride_h - op->pad_h;
        int32_t left = x * op->stride_w - op->pad_w;
        uint32_t *words = t->pixels + (uint32_t)r * s->row_words;
        int32_t *sums = s->sums + (uint32_t)r * row_sums;
        if (s->gathered)
            for (int32_t i = 0; i < s->columns; i++, left += op->stride_w)
                pack_gathered(op, t, s, top, left, first, lanes, words + (uint32_t)i * s->column_words, sums + i * QUAD);
        else
            pack_aligned(op, t, s, top, left, first, lanes, words, sums);
        for (int32_t i = 0; i < s->columns * QUAD; i++)
            sums[i] *= centre;
    }
}

/* One filter's weights, every fourth word. */
HW_INLINE void expand_filter(fields f, const uint8_t *row, uint32_t row_bytes, uint32_t groups, uint32_t stored, uint32_t *word)
{
    for (uint32_t g = 0; g < groups; g++, word += f.lanes == 2 ? 2 * FILTERS : FILTERS) {
        const uint32_t four = hw_stored_codes(row, row_bytes, g, stored);
        if (f.lanes == 1) {
            word[0] = four;
            continue;
        }
        const hw_pairs pairs = hw_reversed(four, stored, f.bits);
        word[0] = f.lanes == 4 ? pairs.even << 8 | pairs.odd : pairs.even;
        if (f.lanes == 2)
            word[FILTERS] = pairs.odd;
    }
}

/* The weights of four filters; one beyond the last repeats it, and nobody stores the result. */
HW_INLINE void expand_block(fields f, const hw_op *op, const tiling *t, const windows *s, uint32_t o, uint32_t last)
{
    const uint32_t row_bytes = hw_row_bytes((uint32_t)op->kernel_h * op->kernel_w * t->channels, op->stored_bits);
    for (uint32_t i = 0; i < FILTERS; i++) {
        const uint8_t *row = op->weights + (o + i < last ? o + i : last) * row_bytes;
        const uint32_t groups = s->groups * s->runs;
        if (op->stored_bits == 8)
            expand_filter(f, row, row_bytes, groups, 8, s->weights + i);
        else if (op->stored_bits == 4 && f.bits <= 4)
            expand_filter(f, row, row_bytes, groups, 4, s->weights + i);
        else if (op->stored_bits == 3 && f.bits <= 3)
            expand_filter(f, row, row_bytes, groups, 3, s->weights + i);
        else if (op->stored_bits == 2 && f.bits <= 2)
            expand_filter(f, row, row_bytes, groups, 2, s->weights + i);
        else if (f.bits == 1)
            expand_filter(f, row, row_bytes, groups, 1, s->weights + i);
    }
}

/* Multiply four words of codes by four of weights. Where `full`, the sum of four products is taken out of its field at once. Each
 * word of codes is loaded two products before it is needed. */
HW_INLINE void multiply_words(uint32_t sums[SUMS], const uint32_t *a, const uint32_t *w, int full)
{
    uint32_t q = a[0];
    const uint32_t w0 = w[0], w1 = w[1], w2 = w[2], w3 = w[3];
    for (uint32_t p = 0; p < QUAD; p++) {
        hw_multiply_add_32(sums + p, q, w0, full);
        hw_multiply_add_32(sums + QUAD + p, q, w1, full);
        uint32_t next = p + 1 < QUAD ? a[p + 1] : 0;
        if (p + 1 < QUAD)
            HW_LOADED(next);
        hw_multiply_add_32(sums + 2 * QUAD + p, q, w2, full);
        hw_multiply_add_32(sums + 3 * QUAD + p, q, w3, full);
        q = next;
    }
}

/* The same for one byte of each word. */
HW_INLINE void multiply_bytes(uint32_t sums[SUMS], const uint8_t *a, const uint8_t *w)
{
    uint32_t q = a[0];
    const uint32_t w0 = w[0], w1 = w[4], w2 = w[8], w3 = w[12];
    for (uint32_t p = 0; p < QUAD; p++) {
        hw_multiply_add_32(sums + p, q, w0, 0);
        hw_multiply_add_32(sums + QUAD + p, q, w1, 0);
        uint32_t next = p + 1 < QUAD ? a[4 * (p + 1)] : 0;
        if (p + 1 < QUAD)
            HW_LOADED(next);
        hw_multiply_add_32(sums + 2 * QUAD + p, q, w2, 0);
        hw_multiply_add_32(sums + 3 * QUAD + p, q, w3, 0);
        q = next;
    }
}

/* Add the topmost fields to `totals` and empty all. */
HW_INLINE void empty_fields(uint32_t lanes, uint32_t sums[SUMS], int32_t totals[SUMS])
{
    for (uint32_t i = 0; i < SUMS; i++) {
        totals[i] += (int32_t)(sums[i] >> (lanes == 4 ? 24 : 16));
        sums[i] = 0;
    }
}

/* One quad times one block of filters. */
HW_INLINE void multiply_quad(fields f, const windows *s, const uint32_t *pixels, int32_t totals[SUMS])
{
    const int full = f.lanes == 4 && f.room == 1, is_whole = full || f.lanes == 1;
    uint32_t sums[SUMS] = {0}, room = f.room;
    const uint32_t *weights = s->weights;
    if (!is_whole)
        for (uint32_t i = 0; i < SUMS; i++)
            totals[i] = 0;
    for (uint32_t runs = s->runs; runs; runs--, pixels += s->run_words) {
        const uint32_t *a = pixels;
        for (uint32_t left = s->groups; left;) {
            uint32_t count = is_whole || left < room ? left : room;
            left -= count, room -= count;
            HW_ROLLED
            for (; count; count--, a += group_words(f.lanes), weights += f.lanes == 2 ? 2 * FILTERS : FILTERS) {
                const uint8_t *q = (const uint8_t *)a, *u = (const uint8_t *)weights;
                if (f.lanes == 1) {
                    multiply_bytes(sums, q, u);
                    multiply_bytes(sums, q + 1, u + 1);
                    multiply_bytes(sums, q + 2, u + 2);
                    multiply_bytes(sums, q + 3, u + 3);
                } else
                    multiply_words(sums, a, weights, full);
                if (f.lanes == 2)
                    multiply_words(sums, a + QUAD, weights + FILTERS, 0);
            }
            if (!is_whole && room == 0) {
                empty_fields(f.lanes, sums, totals);
                room = f.room;
            }
        }
    }
    if (is_whole)
        for (uint32_t i = 0; i < SUMS; i++)
            totals[i] = (int32_t)sums[i];
    else
        empty_fields(f.lanes, sums, totals);
}

/* Logits, quads that reach beyond the last row, and accumulators that may exceed their limit. */
HW_APART void finish_slowly(const hw_op *op, uint32_t index, uint32_t stride, uint32_t o, uint32_t count, uint32_t rows,
                            const int32_t *totals, const int32_t *centre)
{
    for (uint32_t i = 0; i < count; i++, totals += QUAD)
        for (uint32_t r = 0; r < rows; r++)
            hw_finish(op, index + i + r * stride, o + i, op->bias[o + i] + 2 * totals[r] - centre[r]);
}

/* Four codes of each of `count` channels, `stride` bytes apart. */
HW_APART void finish_quickly(uint8_t *code, uint32_t stride, uint32_t count, const hw_channel *channels, const int32_t *totals,
                             const int32_t *centre, int32_t max)
{
    const int32_t c0 = centre[0], c1 = centre[1], c2 = centre[2], c3 = centre[3];
    uint8_t *const second = code + stride, *const third = second + stride, *const fourth = third + stride;
    for (uint32_t i = 0; i < count; i++, totals += QUAD, channels++) {
        const hw_channel c = *channels;
        const int32_t a0 = hw_raise(c.bias - c0 + 2 * totals[0], &c), a1 = hw_raise(c.bias - c1 + 2 * totals[1], &c);
        const int32_t a2 = hw_raise(c.bias - c2 + 2 * totals[2], &c), a3 = hw_raise(c.bias - c3 + 2 * totals[3], &c);
        code[i] = hw_channel_code(&c, a0, max);
        second[i] = hw_channel_code(&c, a1, max);
        third[i] = hw_channel_code(&c, a2, max);
        fourth[i] = hw_channel_code(&c, a3, max);
    }
}

/* All filters of a group on one packed tile. */
HW_INLINE void convolve_tile(fields f, const hw_op *op, const tiling *t, const windows *s, int32_t y0, int32_t x0, uint32_t first,
                             uint32_t end)
{
    const uint32_t row_sums = s->gathered ? (uint32_t)s->columns * QUAD : t->positions * QUAD;
    for (uint32_t o = first; o < end; o += FILTERS) {
        const uint32_t count = end - o < FILTERS ? end - o : FILTERS;
        const uint32_t stride = (uint32_t)t->out_w * op->out_c;
        hw_channel channels[FILTERS];
        int quick = op->multiplier != 0;
        for (uint32_t i = 0; i < count; i++) {
            channels[i] = hw_make_channel(op, t->reach, o + i);
            quick &= !channels[i].saturates;
        }
        expand_block(f, op, t, s, o, end - 1);
        for (int32_t row = 0; row < s->rows && (y0 + row) * QUAD < t->out_h; row++)
            for (int32_t x = 0; x < s->columns && x0 + x < t->out_w; x++) {
                int32_t totals[SUMS];
                const uint32_t *pixels = t->pixels + (uint32_t)row * s->row_words + (uint32_t)x * s->column_words;
                const int32_t *centre = s->sums + (uint32_t)row * row_sums + (uint32_t)x * QUAD;
                multiply_quad(f, s, pixels, totals);
                const int32_t y = (y0 + row) * QUAD;
                const uint32_t index = ((uint32_t)y * (uint32_t)t->out_w + (uint32_t)(x0 + x)) * op->out_c + o;
                if (quick && t->out_h - y >= QUAD)
                    finish_quickly((uint8_t *)op->output + index, stride, count, channels, totals, centre, op->output_max);
                else
                    finish_slowly(op, index, stride, o, count, (uint32_t)hw_smaller(t->out_h - y, QUAD), totals, centre);
            }
    }
}

HW_INLINE void conv2d(fields f, const hw_op *op)
{
    const tiling t = make_tiling(op, f.bits);
    const uint32_t outputs = op->out_c / op->groups;
    windows s;
    make_windows(&s, op, &t, f.lanes);
    for (uint32_t group = 0; group < op->groups; group++)
        for (int32_t y = 0; y * QUAD < t.out_h; y += s.rows)
            for (int32_t x = 0; x < t.out_w; x += s.columns) {
                pack_windows(op, &t, &s, y, x, group * t.channels, f.lanes, (1 << f.bits) - 1);
                convolve_tile(f, op, &t, &s, y, x, group * outputs, (group + 1) * outputs);
            }
}

void HW_OF_WIDTHS(hw_conv2d)(const hw_op *op);
void HW_OF_WIDTHS(hw_conv2d)(const hw_op *op)
{
    const fields f = FIELDS(HW_W, HW_A);
    conv2d(f, op);
}

#endif
