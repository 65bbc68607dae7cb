/* Convolutions of any shape, cut into strips: what the SMLAD and the UMLAL body share.
 *
 * A tile is some rows of output. Its columns are dealt to lanes, each a stretch of neighbours; the last lanes begin earlier
 * where columns run out, and compute some pixels twice. One pixel of every lane is computed together. The input under a tile
 * is packed once: [input row][position][channels][lane], so that a window is one run of words per kernel row.
 *
 * Channels are packed in fours, the missing ones as zeros. Windows of one or two channels, and windows that do not overlap,
 * are gathered instead: [pixel][window][lane], and the tile's pixels are dealt to lanes as one row. So is a 1x1 convolution, whose image is one row already.
 *
 * Pictures, where words hold two codes: lanes take turns, even columns to the first and odd ones to the second, and rows are
 * packed as they lie, without places for missing channels. The second lane's row is the first's, moved by one column, so that
 * every window begins with a word: [input row][two codes][lane].
 */
#ifndef HW_STRIPS_H
#define HW_STRIPS_H

#include "hw_cortex_m.h"

#ifdef HW_CORTEX_M

enum { STRIP_BYTES = 16384, FEW_CHANNELS = 2, MOST_LANES = 4, MOST_FILTERS = 6, STRETCH_WORDS = 5 };

/* Sizes of a tile and where it lies in the scratch memory; `hwsearch/kernels/bodies/cortex_m.py` computes the same. */
typedef struct strip {
    uint32_t lanes, limit;          /* limit: steps until sums must be emptied */
    int32_t in_h, in_w, out_h, out_w;
    uint32_t given, channels;       /* input channels of a group, and as they are packed */
    uint32_t window;                /* packed codes under a pixel */
    int gathered, paired;           /* paired: lanes take turns */
    int32_t columns, rows, in_rows; /* output columns and rows of a tile, input rows under it */
    uint32_t part, positions;       /* columns and packed positions of a lane */
    uint32_t runs, run;             /* runs of a window and codes in each */
    uint32_t code_words;            /* words from one code to the next, times 2 */
    uint32_t *pixels, *weights, *stretches;
    int32_t *sums, *centres;        /* of codes: [input row][position][lane]; under a window: [row][pixel][lane] */
    uint8_t *bytes, *staged;        /* one pixel of padding; bytes on their way to lanes: [lane][window or channels] */
    uint8_t *spread;                /* rows of weights with places for missing channels: [filter][window] */
} strip;

HW_INLINE uint32_t strip_part(const strip *s, int32_t columns) { return ((uint32_t)columns + s->lanes - 1) / s->lanes; }

/* Packed words of one input row (of all pixels if they are gathered). */
HW_INLINE uint32_t strip_row_words(const strip *s, const hw_op *op, int32_t columns)
{
    const uint32_t part = strip_part(s, columns);
    if (s->paired)
        return ((part - 1) * op->stride_w * s->given * 2 + s->run) * s->lanes / 2;
    return (s->gathered ? part * s->window : ((part - 1) * op->stride_w + op->kernel_w) * s->channels) * s->lanes / 2;
}

HW_APART void cut_strip(strip *s, const hw_op *op)
{
    const uint32_t rows = s->gathered ? 1 : (uint32_t)op->kernel_h;
    int32_t pieces = 1;
    s->columns = s->out_w;
    while (s->columns > (int32_t)s->lanes && strip_row_words(s, op, s->columns) * rows * 4 > STRIP_BYTES) {
        pieces++;
        s->columns = (s->out_w + pieces - 1) / pieces;
        s->columns += s->paired & s->columns;
    }
    const uint32_t row_bytes = strip_row_words(s, op, s->columns) * 4, fit = STRIP_BYTES / row_bytes;
    s->rows = 1;
    if (!s->gathered && fit > rows)
        s->rows = hw_smaller((int32_t)((fit - rows) / op->stride_h) + 1, s->out_h);
    pieces = (s->out_h + s->rows - 1) / s->rows;
    s->rows = (s->out_h + pieces - 1) / pieces;
    s->in_rows = s->gathered ? 1 : (s->rows - 1) * op->stride_h + op->kernel_h;
    s->part = strip_part(s, s->columns);
    s->positions = s->gathered ? s->part : ((s->paired ? (uint32_t)s->columns : s->part) - 1) * op->stride_w + op->kernel_w;
}

HW_INLINE void make_strip(strip *s, const hw_op *op, uint32_t lanes, uint32_t limit)
{
    s->lanes = lanes, s->limit = limit;
    s->in_h = op->in_h, s->in_w = op->in_w, s->out_h = op->out_h, s->out_w = op->out_w;
    s->given = s->channels = op->in_c / op->groups;
    s->gathered = s->given % 4 != 0 && s->given <= FEW_CHANNELS;
    if (op->kernel_h * op->kernel_w == 1 && op->stride_h * op->stride_w == 1 && op->pad_h + op->pad_w == 0 && !s->gathered) {
        s->in_w = s->out_w = s->in_h * s->in_w;
        s->in_h = s->out_h = 1;
    } else if (op->kernel_h <= op->stride_h && op->kernel_w <= op->stride_w) {
        s->gathered = 1;
    }
    s->paired = !s->gathered && lanes == 2 && s->given % 4 != 0 && op->groups == 1 && op->out_w % 2 == 0 && s->out_w == op->out_w;
    if (!s->gathered && !s->paired)
        s->channels = (s->given + 3u) & ~3u;
    s->window = (op->kernel_h * op->kernel_w * s->channels + 3u) & ~3u;
    if (s->gathered) {
        s->out_w *= s->out_h;
        s->out_h = 1;
    }
    s->runs = s->gathered ? 1 : op->kernel_h;
    s->run = s->gathered ? s->window : op->kernel_w * s->channels;
    if (s->paired) {
        s->run = (s->run + 1u) & ~1u;
        s->window = (s->runs * s->run + 3u) & ~3u;
    }
    cut_strip(s, op);
    s->pixels = (uint32_t *)(void *)op->scratch;
    s->weights = s->pixels + (uint32_t)s->in_rows * strip_row_words(s, op, s->columns);
    s->stretches = s->weights + 2 * s->window;
    s->sums = (int32_t *)(s->stretches + STRETCH_WORDS * (s->runs + s->window / limit + 2));
    /* Rows that are packed as they lie leave no sums: weights of SMLAD are centred. */
    s->centres = s->sums + (s->paired ? 0 : (uint32_t)s->in_rows * s->positions * lanes);
    uint32_t *padding = (uint32_t *)(s->centres + (s->paired ? 0 : (uint32_t)s->rows * s->part * lanes));
    s->bytes = (uint8_t *)padding;
    for (uint32_t c = 0; c < s->channels; c += 4)
        *padding++ = op->input_zero[0] * 0x01010101u;
    s->staged = (uint8_t *)padding;
    s->spread = s->staged + (s->paired ? (s->positions * s->given + 4u) & ~3u : lanes * (s->gathered ? s->window : s->channels));
}

/* First column of a lane, within its tile. */
HW_INLINE int32_t lane_column(const strip *s, uint32_t lane, int32_t columns)
{
    if (s->paired)
        return (int32_t)lane;
    return hw_smaller((int32_t)(lane * s->part), hw_larger(columns - (int32_t)s->part, 0));
}

/* Where the codes of input position (v, u) lie; padding if outside. */
HW_INLINE const uint8_t *strip_codes(const strip *s, const hw_op *op, int32_t v, int32_t u, uint32_t first)
{
    if (v < 0 || v >= s->in_h || u < 0 || u >= s->in_w)
        return s->bytes;
    return op->input[0] + ((uint32_t)v * (uint32_t)s->in_w + (uint32_t)u) * op->in_c + first;
}

/* One window of odd channels, as bytes; the row ends with zeros. */
HW_APART void gather_window(const strip *s, const hw_op *op, int32_t top, int32_t left, uint32_t first, uint8_t *bytes)
{
    const uint32_t channels = s->given, zero = op->input_zero[0];
    const int32_t in_w = s->in_w, kernel_w = op->kernel_w;
    const uint32_t before = (uint32_t)hw_smaller(hw_larger(-left, 0), kernel_w) * channels;
    const uint32_t after = (uint32_t)hw_smaller(hw_larger(left + kernel_w - in_w, 0), kernel_w) * channels;
    const uint32_t run = (uint32_t)kernel_w * channels, inside = before + after < run ? run - before - after : 0;
    uint8_t *const end = bytes + s->window;
    for (int32_t v = top; v < top + op->kernel_h; v++) {
        if (v < 0 || v >= s->in_h || inside == 0) {
            bytes = hw_fill_bytes(bytes, zero, run);
            continue;
        }
        bytes = hw_fill_bytes(bytes, zero, before);
        if (op->groups == 1) {
            bytes = hw_copy_bytes(bytes, op->input[0] + (uint32_t)(v * in_w + hw_larger(left, 0)) * channels, inside);
        } else {
            const uint8_t *codes = op->input[0] + (uint32_t)(v * in_w + hw_larger(left, 0)) * op->in_c + first;
            for (uint32_t c = 0; c < inside; c += channels, codes += op->in_c)
                bytes = hw_copy_bytes(bytes, codes, channels);
        }
        bytes = hw_fill_bytes(bytes, zero, after);
    }
    hw_fill_bytes(bytes, 0, (uint32_t)(end - bytes));
}

/* Whether a block's weights are spread, one code per byte, before they are expanded. */
HW_INLINE int is_spread(const strip *s) { return s->given != s->channels || s->paired; }

/* Rows of weights of a block, one code per byte and with zeros where the operation has no channel. Of every four codes of
 * paired rows the middle ones change places: words are made of codes 0 and 2, 1 and 3. */
HW_APART void spread_rows(const strip *s, const hw_op *op, const uint8_t *rows[MOST_FILTERS], uint32_t filters, uint32_t bits)
{
    const uint32_t given = s->paired ? op->kernel_w * s->given : s->given, places = s->paired ? s->run : s->channels;
    const uint32_t stretches = s->paired ? s->runs : (uint32_t)op->kernel_h * op->kernel_w;
    for (uint32_t f = 0; f < filters; f++) {
        uint8_t *const start = s->spread + f * s->window, *to = start;
        for (uint32_t stretch = 0, index = 0; stretch < stretches; stretch++)
            for (uint32_t c = 0; c < places; c++)
                *to++ = c < given ? (uint8_t)(hw_weight_code(rows[f], index++, op->stored_bits, bits) << (8 - bits)) : 0;
        for (uint8_t *quad = start; s->paired && quad < start + s->window; quad += 4) {
            const uint32_t codes = hw_load(quad);
            hw_store(quad, (codes & 0xFF0000FFu) | (codes >> 8 & 0xFF00u) | (codes << 8 & 0xFF0000u));
        }
        rows[f] = start;
    }
}

/* A way to pack `channels` codes of each lane; returns the next word, and adds the codes to the lanes' sums. */
typedef uint32_t *(*strip_packer)(uint32_t *words, const uint8_t *const codes[MOST_LANES], uint32_t channels, int32_t *sums);

HW_INLINE void pack_gathered(const strip *s, const hw_op *op, int32_t x0, int32_t columns, uint32_t first, strip_packer pack)
{
    const uint32_t window = s->window;
    const int bytewise = s->given % 4 != 0;
    uint32_t *words = s->pixels;
    int32_t *sums = s->sums;
    for (uint32_t i = 0; i < s->part; i++, sums += s->lanes) {
        const uint8_t *codes[MOST_LANES];
        int32_t top[MOST_LANES], left[MOST_LANES];
        for (uint32_t l = 0; l < s->lanes; l++) {
            const uint32_t pixel = (uint32_t)(x0 + hw_smaller(lane_column(s, l, columns) + (int32_t)i, columns - 1));
            top[l] = (int32_t)(pixel / op->out_w * op->stride_h) - op->pad_h;
            left[l] = (int32_t)(pixel % op->out_w * op->stride_w) - op->pad_w;
            sums[l] = 0;
        }
        if (bytewise) {
            for (uint32_t l = 0; l < s->lanes; l++) {
                codes[l] = s->staged + l * window;
                gather_window(s, op, top[l], left[l], first, s->staged + l * window);
            }
            words = pack(words, codes, window, sums);
            continue;
        }
        for (int32_t v = 0; v < op->kernel_h; v++)
            for (int32_t u = 0; u < op->kernel_w; u++) {
                for (uint32_t l = 0; l < s->lanes; l++)
                    codes[l] = strip_codes(s, op, top[l] + v, left[l] + u, first);
                words = pack(words, codes, s->channels, sums);
            }
    }
}

/* Pictures: three channels, each pixel read as one word. */
HW_INLINE void pack_picture(const strip *s, const hw_op *op, int32_t y0, int32_t x0, int32_t columns, strip_packer pack)
{
    const uint32_t in_w = op->in_w, padding = op->input_zero[0] * 0x010101u, lanes = s->lanes, positions = s->positions;
    uint32_t *words = s->pixels, *const staged = (uint32_t *)(void *)s->staged;
    int32_t *sums = s->sums, left[MOST_LANES];
    const uint8_t *codes[MOST_LANES];
    for (uint32_t l = 0; l < lanes; l++) {
        codes[l] = (const uint8_t *)(staged + l);
        left[l] = (x0 + lane_column(s, l, columns)) * op->stride_w - op->pad_w;
    }
    for (int32_t r = 0; r < s->in_rows; r++) {
        const int32_t v = y0 * op->stride_h - op->pad_h + r;
        const uint32_t width = v >= 0 && v < op->in_h ? in_w : 0;
        const uint8_t *row = op->input[0] + (width ? (uint32_t)v * in_w * 3 : 0);
        HW_ROLLED
        for (uint32_t i = 0; i < positions; i++, sums += lanes) {
            for (uint32_t l = 0; l < lanes; l++) {
                const uint32_t u = (uint32_t)left[l] + i;
                staged[l] = u < width ? hw_three_bytes(row + 3 * u) : padding;
                sums[l] = 0;
            }
            words = pack(words, codes, 4, sums);
        }
    }
}

/* Rows as they lie, in words of two codes, once for each lane. */
HW_APART void pack_pairs_of_rows(const strip *s, const hw_op *op, int32_t y0, int32_t x0)
{
    const uint32_t channels = s->given, zero = op->input_zero[0], step = op->stride_w * channels, steps = ((s->part - 1) * step * 2 + s->run) / 2;
    const int32_t left = x0 * op->stride_w - op->pad_w, end = left + (int32_t)s->positions;
    const int32_t first = hw_smaller(hw_larger(left, 0), end), last = hw_larger(hw_smaller(end, s->in_w), first);
    uint32_t *words = s->pixels;
    for (int32_t r = 0, v = y0 * op->stride_h - op->pad_h; r < s->in_rows; r++, v++) {
        const uint8_t *code = s->staged;
        if (v < 0 || v >= s->in_h) {
            hw_fill_bytes(s->staged, zero, s->positions * channels);
        } else {
            uint8_t *to = hw_fill_bytes(s->staged, zero, (uint32_t)(first - left) * channels);
            to = hw_copy_bytes(to, op->input[0] + (uint32_t)(v * s->in_w + first) * channels, (uint32_t)(last - first) * channels);
            hw_fill_bytes(to, zero, (uint32_t)(end - last) * channels);
        }
        HW_ROLLED
        for (uint32_t i = 0; i < steps; i++, code += 2, words += 2)
            words[0] = hw_two_bytes(code), words[1] = hw_two_bytes(code + step);
    }
}

HW_INLINE void pack_rows(const strip *s, const hw_op *op, int32_t y0, int32_t x0, int32_t columns, uint32_t first, strip_packer pack)
{
    uint32_t *words = s->pixels;
    int32_t *sums = s->sums;
    if (op->in_c == 3) {
        pack_picture(s, op, y0, x0, columns, pack);
        return;
    }
    uint32_t left[MOST_LANES];
    for (uint32_t l = 0; l < s->lanes; l++)
        left[l] = (uint32_t)((x0 + lane_column(s, l, columns)) * op->stride_w - op->pad_w);
    for (int32_t r = 0, v = y0 * op->stride_h - op->pad_h; r < s->in_rows; r++, v++) {
        const int inside = v >= 0 && v < s->in_h;
        const uint8_t *const row = inside ? op->input[0] + (uint32_t)(v * s->in_w) * op->in_c + first : s->bytes;
        const uint32_t step = inside ? op->in_c : 0, in_w = (uint32_t)s->in_w;
        for (uint32_t i = 0; i < s->positions; i++, sums += s->lanes) {
            const uint8_t *codes[MOST_LANES];
            for (uint32_t l = 0; l < s->lanes; l++) {
                const uint32_t u = left[l] + i; /* left of the image, it is huge */
                codes[l] = u < in_w ? row + u * step : s->bytes;
                sums[l] = 0;
            }
            for (uint32_t l = 0; s->given != s->channels && l < s->lanes; l++) {
                uint8_t *const bytes = s->staged + l * s->channels;
                hw_fill_bytes(hw_copy_bytes(bytes, codes[l], s->given), 0, s->channels - s->given);
                codes[l] = bytes;
            }
            words = pack(words, codes, s->channels, sums);
        }
    }
}

/* Stretches of steps that a loop runs through, each ending with a run or where sums must be emptied.
 *
 * Their records: where its weights end, by how much to move to its weights and pixels, where to go, and where to go from
 * there. That is into the loop, at the step where whole turns remain, but first to where fields are stored or added if the
 * stretch before leaves no room; and after the last to where codes are made (`quick`) or sums are left. Pointers stay 4 bytes behind, and as far behind as the skipped
 * steps of the first turn. */
HW_INLINE void plan_stretches(const strip *s, const struct stretch_loop *loop, uint32_t steps_of_run, uint32_t pitch, uint32_t pixel_bytes, uint32_t weight_bytes, int quick)
{
    const uint32_t start_of_code = (uint32_t)(uintptr_t)loop->run;
    uint32_t *record = s->stretches, end = hw_address(s->weights) - 4, room = s->limit, place = 0, next = loop->store;
    for (uint32_t run = 0; run < s->runs; run++)
        for (uint32_t start = 0, count; start < steps_of_run; start += count, record += STRETCH_WORDS) {
            count = hw_smaller((int32_t)(steps_of_run - start), (int32_t)room);
            const uint32_t skipped = (loop->unroll - count % loop->unroll) % loop->unroll;
            room -= count;
            end += count * weight_bytes;
            record[0] = end;
            record[1] = 0u - skipped * weight_bytes;
            record[2] = (start || run == 0 ? 0 : pitch - steps_of_run * pixel_bytes) - skipped * pixel_bytes;
            record[4] = start_of_code + loop->loop + skipped * loop->step_bytes;
            record[3] = place ? start_of_code + place : record[4];
            place = 0;
            if (room == 0)
                room = s->limit, place = next, next = loop->add;
        }
    record[0] = record[1] = record[2] = 0;
    place = place ? place : next;
    if (quick)
        place = place == loop->store ? loop->finish : loop->finish_added;
    record[3] = start_of_code + place;
    record[4] = start_of_code + loop->raw;
}

#endif
#endif
