/* hw_depthwise_conv2d_w?a? for Arm cores with DSP instructions: 3x3 with stride 1 or 2; other shapes take the portable body.
 *
 * Four channels and some rows at a time. The input is transposed, with its padding, to streams of words that hold
 * neighbouring pixels of one channel; sums and then codes are computed in place, channel by channel; codes are transposed back.
 *
 * Quarters: four pixels to a word, for sums that fit 8 bits. Halves: two pixels, for sums that fit 16 bits. Both sum by
 * packed multiplication (see hwsearch/kernels/loops/depthwise.py): to fields a constant is added that keeps them positive, and
 * partial sums too, which lie between the same bounds. Wide: two pixels to a word and 32-bit sums.
 *
 * Rows follow each other in a stream without a break, and where both ends are padded they share it. Neighbours lie along
 * rows or along columns, whichever fills words better; "rows" below are columns then.
 */
#include "hw_cortex_m.h"

#if defined(HW_CORTEX_M) && defined(HW_W)

#include "generated/hw_depthwise_loops.h"
#include "portable/hw_stretches.h"

enum { STREAM_BYTES = 8192, CHANNELS = 4 };

enum { QUARTERS = 4, HALVES = 2, WIDE = 1 }; /* how sums are packed */

/* Sizes of a tile; `hwsearch/kernels/bodies/cortex_m.py` computes the same. */
typedef struct streams {
    uint32_t pixels, phases;            /* neighbours in a word; 2 where words of even and of odd pixels alternate */
    uint32_t sums, first;               /* outputs that a word yields; position of the first output of a row */
    int32_t in_width, in_rows, width;   /* along a row: inputs, input rows, outputs */
    int32_t pad, pad_rows, stride, turned;
    int32_t out_rows, rows, lines;      /* output rows, those of a tile, and input rows under them */
    uint32_t words, pitch;              /* words of a row and phase; outputs from one row to the next */
    uint32_t pixel_step, row_step, out_pixel_step, out_row_step;
    uint32_t *stream;
    int32_t *wide;
    uint32_t weights[6];
} streams;

/* Words of a row along one axis. */
HW_INLINE uint32_t row_words(int32_t in_width, int32_t width, int32_t pad, int32_t stride, uint32_t sums)
{
    const int32_t shared = pad > 0 && (stride == 1 || 2 * width - pad >= in_width);
    return ((uint32_t)(width + 3 - stride - shared) + sums - 1) / sums;
}

HW_INLINE void make_streams(streams *s, const hw_op *op, uint32_t packing)
{
    const uint32_t channels = op->in_c;
    s->stride = op->stride_h;
    s->pixels = packing == QUARTERS ? 4 : 2;
    s->phases = packing != WIDE && s->stride == 2 ? 2 : 1;
    s->sums = packing == WIDE && s->stride == 2 ? 1 : s->pixels;
    s->first = packing == WIDE ? 0 : 3 - (uint32_t)s->stride;
    s->words = row_words(op->in_w, op->out_w, op->pad_w, s->stride, s->sums);
    const uint32_t turned = row_words(op->in_h, op->out_h, op->pad_h, s->stride, s->sums);
    s->turned = turned * op->out_w < s->words * op->out_h;
    if (s->turned) {
        s->words = turned;
        s->in_width = op->in_h, s->width = op->out_h, s->pad = op->pad_h;
        s->in_rows = op->in_w, s->out_rows = op->out_w, s->pad_rows = op->pad_w;
        s->pixel_step = op->in_w * channels, s->row_step = s->out_row_step = channels, s->out_pixel_step = op->out_w * channels;
    } else {
        s->in_width = op->in_w, s->width = op->out_w, s->pad = op->pad_w;
        s->in_rows = op->in_h, s->out_rows = op->out_h, s->pad_rows = op->pad_h;
        s->pixel_step = s->out_pixel_step = channels, s->row_step = op->in_w * channels, s->out_row_step = op->out_w * channels;
    }
    s->pitch = s->words * s->sums;
    const int32_t most = (int32_t)(STREAM_BYTES / (4 * CHANNELS * s->phases * s->words)); /* input rows that fit */
    s->rows = hw_smaller(hw_larger(s->stride == 1 ? most - 2 : (most - 1) / 2, 1), s->out_rows);
    const int32_t pieces = (s->out_rows + s->rows - 1) / s->rows;
    s->rows = (s->out_rows + pieces - 1) / pieces;
    s->lines = s->rows * s->stride + 3 - s->stride;
    s->stream = (uint32_t *)(void *)op->scratch;
    s->wide = (int32_t *)(s->stream + ((uint32_t)s->lines * s->words + DEPTHWISE_UNROLL + 2) * s->phases * CHANNELS);
}

/* Two pixels of four channels to four channels of two 16-bit numbers. */
HW_INLINE void spread_pair(uint32_t *to, uint32_t w0, uint32_t w1)
{
    const uint32_t even0 = hw_even_bytes(w0), even1 = hw_even_bytes(w1), odd0 = hw_odd_bytes(w0), odd1 = hw_odd_bytes(w1);
    to[0] = hw_join_low(even0, even1), to[1] = hw_join_low(odd0, odd1);
    to[2] = hw_join_high(even0, even1), to[3] = hw_join_high(odd0, odd1);
}

/* Up to four channels of a pixel that lies anywhere. */
HW_INLINE uint32_t load_pixel(const uint8_t *codes, uint32_t count)
{
    uint32_t word = codes[0];
    for (uint32_t i = 1; i < count; i++)
        word |= (uint32_t)codes[i] << 8 * i;
    return word;
}

/* One phase of an input row where channels are not a multiple of 4; `codes` is its channel c in the first column. */
HW_INLINE void pack_row(const streams *s, uint32_t *to, const uint8_t *codes, uint32_t phase, uint32_t zeros, uint32_t count)
{
    const int32_t step = (int32_t)s->phases, width = s->in_width;
    int32_t at = (int32_t)phase - s->pad;
    HW_ROLLED
    for (uint32_t i = s->words; i; i--, to += CHANNELS * s->phases) {
        uint32_t w[4] = {0};
        for (uint32_t p = 0; p < s->pixels; p++, at += step)
            w[p] = at >= 0 && at < width ? load_pixel(codes + (uint32_t)at * s->pixel_step, count) : zeros;
        if (s->pixels == 4)
            hw_transpose(to, w[0], w[1], w[2], w[3]);
        else
            spread_pair(to, w[0], w[1]);
    }
}

/* Place of an input row among the streams: with stride 2, rows of even number and then those of odd number. */
HW_INLINE uint32_t *stream_row(const streams *s, int32_t line)
{
    const int32_t place = s->stride == 1 ? line : (line & 1 ? s->rows + 1 : 0) + (line >> 1);
    return s->stream + (uint32_t)place * s->words * s->phases * CHANNELS;
}

/* One phase of `rows` input rows from `line` on, every one or every other. */
HW_INLINE void pack_rows(const streams *s, const uint8_t *codes, int32_t line, uint32_t rows, uint32_t phase, uint32_t zeros)
{
    const int32_t phases = (int32_t)s->phases, pixels = (int32_t)s->pixels, words = (int32_t)s->words;
    const int32_t missing = (s->pad - (int32_t)phase + phases - 1) / phases; /* pixels of this phase before the first inside */
    const int32_t width = (s->in_width + s->pad - (int32_t)phase + phases - 1) / phases - missing;
    const int32_t left = hw_smaller((missing + pixels - 1) / pixels, words), whole = (missing + width) / pixels;
    const int32_t inner = hw_larger(hw_smaller(whole, words) - left, 0);
    const uint32_t pixel_step = s->pixel_step * s->phases;
    const struct depthwise_pack_call call = {
        .codes = hw_address(codes) + ((uint32_t)((int32_t)phase - s->pad) * s->pixel_step),
        .to = hw_address(stream_row(s, line)) + 4 * CHANNELS * phase,
        .rows = rows,
        .pixel_step = pixel_step,
        .row_step = s->row_step * (uint32_t)s->stride,
        .to_row_step = 4 * CHANNELS * s->phases * s->words,
        .to_step = 4 * CHANNELS * s->phases,
        .before = (uint32_t)-missing,
        .width = (uint32_t)width,
        .zeros = zeros,
        .left = (uint32_t)left,
        .inner = (uint32_t)inner,
        .right = (uint32_t)(words - left - inner),
        .behind = (uint32_t)((left + inner) * pixels - missing),
    };
    if (s->pixels == 4)
        hw_depthwise_pack_quarters(&call);
    else
        hw_depthwise_pack_halves(&call);
}

HW_INLINE void pack_tile(const streams *s, const hw_op *op, int32_t y0, uint32_t c, uint32_t count, int aligned)
{
    const uint32_t zeros = op->input_zero[0] * 0x01010101u, padding = s->pixels == 4 ? zeros : op->input_zero[0] * 0x10001u;
    const uint32_t line_words = s->words * s->phases * CHANNELS;
    const int32_t top = y0 * s->stride - s->pad_rows;
    for (int32_t line = 0; line < s->lines; line++) {
        const int32_t v = top + line;
        const uint8_t *codes = op->input[0] + (uint32_t)v * s->row_step + c;
        uint32_t *to = stream_row(s, line);
        if (v < 0 || v >= s->in_rows)
            for (uint32_t i = 0; i < line_words; i++)
                to[i] = padding;
        else if (!aligned)
            for (uint32_t phase = 0; phase < s->phases; phase++)
                pack_row(s, to + phase * CHANNELS, codes, phase, zeros, count);
    }
    const int32_t first = hw_larger(-top, 0), last = hw_smaller(s->in_rows - top, s->lines);
    for (int32_t start = first; aligned && start < first + s->stride && start < last; start++)
        for (uint32_t phase = 0; phase < s->phases; phase++) {
            const uint32_t rows = (uint32_t)((last - start + s->stride - 1) / s->stride);
            pack_rows(s, op->input[0] + (uint32_t)(top + start) * s->row_step + c, start, rows, phase, zeros);
        }
    uint32_t *const end = s->stream + (uint32_t)s->lines * line_words; /* what the last row shares with a next one */
    for (uint32_t i = 0; i < CHANNELS * s->phases; i++)
        end[i] = padding;
}

/* Nine weight codes of a channel: [row][along]. None straddles words. */
HW_INLINE void nine_codes(const uint8_t *row, uint32_t stored, uint32_t bits, uint32_t codes[9])
{
    uint32_t words[3] = {hw_load(row), 0, 0};
    for (uint32_t i = 1; 32 * i < 9 * stored; i++)
        words[i] = hw_load(row + 4 * i);
    for (uint32_t k = 0; k < 9; k++)
        codes[k] = words[k * stored / 32] >> (k * stored % 32 + stored - bits) & ((1u << bits) - 1u);
}

HW_INLINE void swap(uint32_t *a, uint32_t *b)
{
    const uint32_t kept = *a;
    *a = *b, *b = kept;
}

HW_INLINE void expand_weights(const streams *s, const hw_op *op, uint32_t c, uint32_t bits, uint32_t codes[9])
{
    const uint8_t *row = op->weights + c * hw_row_bytes(9, op->stored_bits);
    if (op->stored_bits == 8)
        nine_codes(row, 8, bits, codes);
    else if (op->stored_bits == 4 && bits < 4)
        nine_codes(row, 4, bits, codes);
    else if (op->stored_bits == 3 && bits < 3)
        nine_codes(row, 3, bits, codes);
    else if (op->stored_bits == 2 && bits < 2)
        nine_codes(row, 2, bits, codes);
    else
        nine_codes(row, bits, bits, codes);
    if (s->turned)
        swap(codes + 1, codes + 3), swap(codes + 2, codes + 6), swap(codes + 5, codes + 7);
}

/* Centred weights as the loops want them: the last tap of a row in the lowest field, or pairs of 16-bit numbers. */
HW_INLINE void arrange_weights(streams *s, const uint32_t u[9], uint32_t bits, uint32_t packing)
{
    const uint32_t field = packing == QUARTERS ? 8 : 16, one = (1u << bits) - 1, two = one + (one << field);
    uint32_t *to = s->weights;
    for (uint32_t row = 0; row < 3; row++, u += 3, to += packing == QUARTERS && s->stride == 1 ? 1 : 2) {
        if (packing == WIDE) {
            to[0] = hw_join_low(2 * u[0] - one, 2 * u[1] - one), to[1] = hw_join_low(2 * u[1] - one, 2 * u[2] - one);
        } else if (s->stride == 2) {
            to[0] = 2 * (u[2] + (u[0] << field)) - two, to[1] = (2 * u[1] - one) << field;
        } else if (packing == HALVES) {
            to[0] = 2 * (u[2] + (u[1] << field)) - two, to[1] = 2 * u[0] - one;
        } else {
            to[0] = 2 * (u[2] + (u[1] << field) + (u[0] << 2 * field)) - two - (one << 2 * field);
        }
    }
}

/* Between what the sums of a channel lie, -below .. above, and what is added to keep their fields positive. */
typedef struct range {
    uint32_t below, above, middle;
} range;

/* Sums that may reach beyond half a field have the range that their weights give them. */
HW_INLINE range make_range(const uint32_t u[9], uint32_t bits, uint32_t activation_bits, uint32_t packing)
{
    const uint32_t ones = (1u << bits) - 1, largest = (1u << activation_bits) - 1, half = packing == QUARTERS ? 128 : 32768;
    range r = {.below = 9 * ones * largest, .above = 9 * ones * largest, .middle = half};
    if (r.above < half || packing == WIDE)
        return r;
    int32_t sum = 0, magnitudes = 0;
    for (uint32_t k = 0; k < 9; k++) {
        const int32_t weight = (int32_t)(2 * u[k]) - (int32_t)ones;
        sum += weight, magnitudes += weight < 0 ? -weight : weight;
    }
    r.below = r.middle = (uint32_t)(magnitudes - sum) / 2 * largest, r.above = (uint32_t)(magnitudes + sum) / 2 * largest;
    return r;
}

/* Whether 16-bit arithmetic finishes a channel; then the scale is made.
 *
 * With t = (sum + bias) * multiplier / 2^16, which stays below 2^30, codes are (t + offset) >> (shift - 16) and must fit 16 bits
 * before they are clamped. Shifts of 47 and more leave nothing but the zero point. */
HW_INLINE int make_narrow_scale(struct depthwise_narrow_scale *scale, const hw_op *op, uint32_t c, range r)
{
    const int32_t bias = op->bias[c], shift = op->shift[c] - 16;
    const uint32_t total = (r.below > r.above ? r.below : r.above) + hw_magnitude(bias), twice = 2u * op->output_zero + 1;
    if (hw_magnitude(bias) > 32767 || total > 32767 || shift < 1)
        return 0;
    scale->bias = (((uint32_t)bias - r.middle) & 0xFFFFu) * 0x10001u, scale->max = op->output_max * 0x01010101u;
    if (shift > 30) {
        scale->multiplier = 0, scale->shift = 1, scale->offset = 2u * op->output_zero;
        return 1;
    }
    scale->multiplier = (uint32_t)op->multiplier[c], scale->shift = (uint32_t)shift, scale->offset = twice << (shift - 1);
    return twice <= (1u << 30) >> (shift - 1) && total << 15 >> shift < 32000;
}

/* Whether sums of 32 bits may be shifted left, and codes fit 16 bits before they are clamped. */
HW_INLINE int make_wide_scale(struct depthwise_wide_scale *scale, const hw_op *op, uint32_t c, uint32_t reach)
{
    const hw_quick_scale quick = hw_make_quick_scale(op, c);
    const uint32_t total = reach + hw_magnitude(quick.bias);
    *scale = (struct depthwise_wide_scale){(uint32_t)quick.bias, (uint32_t)quick.multiplier, (uint32_t)quick.offset, (uint32_t)quick.shift,
                                           (uint32_t)quick.left, op->output_max * 0x01010101u};
    return hw_magnitude(quick.bias) < 1u << 30 && total <= (uint32_t)INT32_MAX >> quick.left &&
           (total << quick.left) >> (quick.shift + 1) < 32000;
}

/* Any other scale, sum by sum. */
HW_APART void finish_slowly(const streams *s, const hw_op *op, uint32_t c, uint32_t packing, uint32_t middle, uint32_t *to, uint32_t count)
{
    const hw_scale scale = hw_make_scale(op->multiplier[c], op->shift[c]);
    const uint32_t step = CHANNELS * s->phases;
    const uint32_t *words = to;
    const int32_t *sums = s->wide;
    for (; count; count--, to += CHANNELS) {
        uint32_t codes = 0;
        for (uint32_t i = 0; i < 4; i++) {
            int32_t sum;
            if (packing == QUARTERS)
                sum = (int32_t)(words[0] >> 8 * i & 255u) - (int32_t)middle;
            else if (packing == HALVES)
                sum = (int32_t)(words[i / 2 * step] >> 16 * (i & 1) & 65535u) - (int32_t)middle;
            else
                sum = *sums++;
            sum = (int32_t)((uint32_t)sum + (uint32_t)op->bias[c]);
            codes |= (uint32_t)hw_code(hw_raised(sum, scale), scale, op->output_zero, op->output_max) << 8 * i;
        }
        words += packing == QUARTERS ? step : 2 * step;
        *to = codes;
    }
}

/* How the loops are called for the first channel of four; places of the others lie one word on. */
typedef struct channel_calls {
    struct depthwise_call sum;
    struct depthwise_finish_call finish;
} channel_calls;

HW_INLINE channel_calls make_calls(const streams *s, uint32_t packing, uint32_t count)
{
    const uint32_t first = hw_address(s->stream), row = 4 * CHANNELS * s->phases * s->words;
    return (channel_calls){
        .sum = {
            .first = first, .second = first + (s->stride == 1 ? 1u : (uint32_t)s->rows + 1u) * row,
            .third = first + (s->stride == 1 ? 2 : 1) * row, .count = count, .weights = hw_address(s->weights),
            .sums = hw_address(s->wide),
        },
        .finish = {
            .sums = packing == WIDE ? hw_address(s->wide) : first, .sums_step = 4 * CHANNELS * s->phases, .output = first,
            .count = (count * s->sums + 3) / 4,
        },
    };
}

HW_INLINE void next_channel(channel_calls *calls, uint32_t packing)
{
    calls->sum.first += 4, calls->sum.second += 4, calls->sum.third += 4, calls->finish.output += 4;
    if (packing != WIDE)
        calls->finish.sums += 4;
}

/* Codes of one channel, four to a word, in its first stream. */
HW_INLINE void compute_channel(streams *s, const hw_op *op, channel_calls *calls, uint32_t c, uint32_t bits, uint32_t activation_bits, uint32_t packing)
{
    struct depthwise_narrow_scale narrow;
    struct depthwise_wide_scale wide;
    uint32_t codes[9];
    int quick;
    expand_weights(s, op, c, bits, codes);
    arrange_weights(s, codes, bits, packing);
    const range r = make_range(codes, bits, activation_bits, packing);
    calls->sum.offset = r.middle * (packing == QUARTERS ? 0x01010101u : 0x10001u);
    if (packing == WIDE) {
        if (s->stride == 1)
            hw_depthwise_wide1(&calls->sum);
        else
            hw_depthwise_wide2(&calls->sum);
        quick = make_wide_scale(&wide, op, c, r.above);
        calls->finish.scale = hw_address(&wide);
        if (quick)
            hw_depthwise_finish_wide(&calls->finish);
    } else {
        if (s->stride == 2)
            hw_depthwise_every_other(&calls->sum);
        else if (packing == QUARTERS)
            hw_depthwise_quarters(&calls->sum);
        else
            hw_depthwise_halves(&calls->sum);
        quick = make_narrow_scale(&narrow, op, c, r);
        calls->finish.scale = hw_address(&narrow);
        if (quick && packing == QUARTERS)
            hw_depthwise_finish_quarters(&calls->finish);
        else if (quick)
            hw_depthwise_finish_halves(&calls->finish);
    }
    if (!quick)
        finish_slowly(s, op, c, packing, r.middle, s->stream + c % CHANNELS, calls->finish.count);
}

/* Codes of four channels back to pixels; what lies between rows is left out. */
HW_INLINE void unpack_tile(const streams *s, const hw_op *op, int32_t y0, uint32_t c, int32_t rows, uint32_t count, int aligned)
{
    const int32_t width = s->width, pitch = (int32_t)s->pitch;
    const uint32_t step = s->out_pixel_step, next = s->out_row_step - (uint32_t)pitch * step, *words = s->stream;
    uint8_t *output = (uint8_t *)op->output + (uint32_t)y0 * s->out_row_step + c - s->first * step;
    int32_t x = -(int32_t)s->first;
    if (aligned) {
        const struct depthwise_unpack_call call = {
            .words = hw_address(words), .output = hw_address(output), .x = (uint32_t)x, .width = (uint32_t)width,
            .limit = (uint32_t)hw_larger(width - 3 - (width == pitch), 0), .step = step, .pitch = (uint32_t)pitch, .next = next,
            .rows = (uint32_t)rows,
        };
        hw_depthwise_unpack(&call);
        return;
    }
    for (;; words += CHANNELS) {
        uint32_t pixels[4];
        hw_transpose(pixels, words[0], words[1], words[2], words[3]);
        for (uint32_t p = 0; p < 4; p++, output += step) {
            for (uint32_t i = 0; i < count && x >= 0 && x < width; i++)
                output[i] = (uint8_t)(pixels[p] >> 8 * i);
            if (++x < pitch)
                continue;
            x = 0, output += next;
            if (--rows == 0)
                return;
        }
    }
}

HW_INLINE void compute_tile(streams *s, const hw_op *op, int32_t y, uint32_t bits, uint32_t activation_bits, uint32_t packing, int aligned)
{
    const int32_t rows = hw_smaller(s->rows, s->out_rows - y);
    const uint32_t count = ((uint32_t)(rows - 1) * s->pitch + s->first + (uint32_t)s->width - 1) / s->sums + 1;
    for (uint32_t c = 0; c < op->in_c; c += CHANNELS) {
        const uint32_t some = aligned ? CHANNELS : (uint32_t)hw_smaller(CHANNELS, (int32_t)(op->in_c - c));
        pack_tile(s, op, y, c, some, aligned);
        channel_calls calls = make_calls(s, packing, count);
        HW_ROLLED
        for (uint32_t i = 0; i < some; i++, next_channel(&calls, packing))
            compute_channel(s, op, &calls, c + i, bits, activation_bits, packing);
        unpack_tile(s, op, y, c, rows, some, aligned);
    }
}

HW_INLINE void depthwise_conv2d(const hw_op *op, uint32_t bits, uint32_t activation_bits)
{
    const uint32_t span = 9 * ((1u << bits) - 1) * ((1u << activation_bits) - 1), packing = span < 256 ? QUARTERS : span < 65536 ? HALVES : WIDE;
    if (op->kernel_h != 3 || op->kernel_w != 3 || op->stride_h != op->stride_w || op->stride_h > 2 || op->multiplier == 0) {
        depthwise_by_stretches(op, bits);
        return;
    }
    streams s;
    make_streams(&s, op, packing);
    for (int32_t y = 0; y < s.out_rows; y += s.rows)
        if (op->in_c % CHANNELS == 0)
            compute_tile(&s, op, y, bits, activation_bits, packing, 1);
        else
            compute_tile(&s, op, y, bits, activation_bits, packing, 0);
}

void HW_OF_WIDTHS(hw_depthwise_conv2d)(const hw_op *op);
void HW_OF_WIDTHS(hw_depthwise_conv2d)(const hw_op *op) { depthwise_conv2d(op, HW_W, HW_A); }

#endif
