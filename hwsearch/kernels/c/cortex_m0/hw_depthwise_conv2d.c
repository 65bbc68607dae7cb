/* hw_depthwise_conv2d_w?a? on a Cortex-M0+: 3x3 with steps of 1 or 2 along rows; other shapes take the portable body.
 *
 * Channel by channel. The output is dealt to `lanes` parts of equal size, as in hw_blocks.h, and the pixels at one place of
 * every part share a word, which one weight multiplies. Fields of 8 or 16 bits hold whole sums: codes are centred,
 *
 *     sum w q = sum w (q - 2^(a-1)) + 2^(a-1) sum w,      |w| <= 2^b - 1,      9 (2^b - 1) 2^(a-1) < 2^15 (or 2^7)
 *
 * and every field of a total gets half its range added, so that none is negative. Both constants go to the bias. Precisions
 * whose sums are wider go one pixel at a time.
 *
 * A tile is some rows of every part. Its input lies [column][row], so that three rows are loaded at once.
 */
#include "hw_cortex_m0.h"

#if defined(HW_CORTEX_M0) && defined(HW_W)
#include "generated/hw_depthwise_m0_loops.h"
#include "generated/hw_finish_loops.h"
#include "portable/hw_stretches.h"

enum { MOST_PIXELS = 4, SIDE = 3, TAPS = SIDE * SIDE, CHANNEL_BYTES = 8192, FEW_ROWS = 12 };

/* Sizes of a tile of one channel; `hwsearch/kernels/bodies/cortex_m0.py` computes the same. */
typedef struct channel_tile {
    uint32_t lanes, row_parts, column_parts;
    int32_t part_h, part_w;      /* output places of a part */
    int32_t rows;                /* rows of places in a tile */
    int32_t in_rows, in_columns; /* input positions under them */
    uint32_t *codes;             /* [column][row] */
    uint32_t *totals;            /* [row][column] of places */
} channel_tile;

HW_INLINE uint32_t channel_bytes(channel_tile *t, const hw_op *op, int32_t rows)
{
    t->rows = rows, t->in_rows = (rows - 1) * op->stride_h + SIDE;
    return 4u * (uint32_t)(t->in_rows * t->in_columns + rows * t->part_w);
}

/* Parts that waste the fewest places, of equal ones the widest; as many rows as fit. */
HW_INLINE void make_channel_tile(channel_tile *t, const hw_op *op, uint32_t lanes)
{
    uint32_t best = 0;
    t->lanes = lanes;
    for (uint32_t rows = 1; rows <= lanes; rows *= 2) {
        const uint32_t columns = lanes / rows, h = (op->out_h + rows - 1) / rows, w = (op->out_w + columns - 1) / columns;
        if (best == 0 || h * w <= best)
            best = h * w, t->row_parts = rows, t->column_parts = columns, t->part_h = (int32_t)h, t->part_w = (int32_t)w;
    }
    t->in_columns = (t->part_w - 1) * op->stride_w + SIDE;
    int32_t rows = t->part_h;
    while (channel_bytes(t, op, rows) > CHANNEL_BYTES && rows > 1)
        rows = (rows + 1) / 2;
    t->codes = (uint32_t *)(void *)op->scratch;
    t->totals = t->codes + t->in_rows * t->in_columns;
}

/* Where a lane's input begins. */
typedef struct corner {
    int32_t top, left;
} corner;

HW_INLINE uint32_t lane_bit(uint32_t lanes, uint32_t lane) { return lane * (lanes == 4 ? 8 : 16); }

/* Input positions `from` to `to` of a row, of which some lanes may lie outside. */
HW_APART void pack_any(const hw_op *op, const channel_tile *t, const corner *corners, int32_t v, int32_t from, int32_t to, uint32_t c, uint32_t centre)
{
    for (; from < to; from++) {
        uint32_t word = 0;
        for (uint32_t lane = 0; lane < t->lanes; lane++) {
            const uint32_t row = (uint32_t)(corners[lane].top + v), column = (uint32_t)(corners[lane].left + from);
            const int inside = row < op->in_h && column < op->in_w;
            const uint32_t code = inside ? op->input[0][(row * op->in_w + column) * op->in_c + c] : op->input_zero[0];
            word |= code << lane_bit(t->lanes, lane);
        }
        t->codes[from * t->in_rows + v] = word - centre;
    }
}

/* `count` neighbours in a row of which every lane lies inside, a column of words apart. */
HW_INLINE void pack_inside(uint32_t lanes, const uint8_t *const codes[], uint32_t step, int32_t count, uint32_t centre,
                           uint32_t *words, uint32_t column)
{
    const uint8_t *q0 = codes[0], *q1 = codes[lanes > 1 ? 1 : 0], *q2 = codes[lanes > 2 ? 2 : 0], *q3 = codes[lanes > 2 ? 3 : 0];
    HW_ROLLED
    for (; count > 0; count--, words += column) {
        uint32_t word = *q0;
        q0 += step;
        if (lanes == 2)
            word |= (uint32_t)*q1 << 16, q1 += step;
        if (lanes == 4)
            word |= (uint32_t)*q1 << 8 | (uint32_t)*q2 << 16 | (uint32_t)*q3 << 24, q1 += step, q2 += step, q3 += step;
        *words = lanes > 1 ? word - centre : word;
    }
}

/* The same where some lanes read the zero point: every lane has its own step, 0 for those. */
HW_APART void pack_steps(uint32_t lanes, const uint8_t *codes[], const uint32_t *steps, int32_t count, uint32_t centre,
                         uint32_t *words, uint32_t column)
{
    const uint32_t bits = lane_bit(lanes, 1);
    for (; count > 0; count--, words += column) {
        uint32_t word = 0;
        HW_ROLLED
        for (uint32_t lane = 0, bit = 0; lane < lanes; lane++, bit += bits) {
            word |= (uint32_t)*codes[lane] << bit;
            codes[lane] += steps[lane];
        }
        *words = word - centre;
    }
}

/* What the channels of a tile have in common. */
typedef struct tile_input {
    corner corners[MOST_PIXELS];
    int32_t from, to; /* columns that lie inside for every lane */
} tile_input;

/* Find the input under a tile whose first row of places is `y`; fill what is padding for all lanes. */
HW_INLINE void find_input(tile_input *in, const hw_op *op, const channel_tile *t, uint32_t lanes, int32_t y, uint32_t padding)
{
    in->from = 0, in->to = t->in_columns;
    for (uint32_t lane = 0; lane < lanes; lane++) {
        corner *at = in->corners + lane;
        at->top = ((int32_t)(lane / t->column_parts) * t->part_h + y) * op->stride_h - op->pad_h;
        at->left = (int32_t)(lane % t->column_parts) * t->part_w * op->stride_w - op->pad_w;
        in->from = hw_larger(in->from, -at->left), in->to = hw_smaller(in->to, op->in_w - at->left);
    }
    in->to = hw_larger(in->from, in->to);
    const int32_t count = t->in_rows * t->in_columns;
    HW_ROLLED
    for (int32_t i = 0; i < count; i++)
        t->codes[i] = padding;
}

/* The input of one channel under a tile; words that are padding for all lanes are there already. */
HW_INLINE void pack_channel(const hw_op *op, const channel_tile *t, uint32_t lanes, const tile_input *in, uint32_t c, uint32_t centre)
{
    const uint32_t row_codes = (uint32_t)op->in_w * op->in_c;
    const uint8_t *codes[MOST_PIXELS];
    for (uint32_t lane = 0; lane < lanes; lane++)
        codes[lane] = op->input[0] + (uint32_t)((in->corners[lane].top * op->in_w + in->corners[lane].left + in->from) * op->in_c) + c;
    uint32_t *words = t->codes + in->from * t->in_rows;
    for (int32_t v = 0; v < t->in_rows; v++, words++) {
        uint32_t inside = 0, steps[MOST_PIXELS];
        const uint8_t *places[MOST_PIXELS];
        for (uint32_t lane = 0; lane < lanes; lane++) {
            const int is_inside = (uint32_t)(in->corners[lane].top + v) < op->in_h;
            inside += (uint32_t)is_inside;
            places[lane] = is_inside ? codes[lane] : op->input_zero;
            steps[lane] = is_inside ? op->in_c : 0;
        }
        if (inside == lanes)
            pack_inside(lanes, codes, op->in_c, in->to - in->from, centre, words, (uint32_t)t->in_rows);
        else if (inside)
            pack_steps(lanes, places, steps, in->to - in->from, centre, words, (uint32_t)t->in_rows);
        if (t->column_parts > 1 && inside) {
            pack_any(op, t, in->corners, v, 0, hw_smaller(in->from, t->in_columns), c, centre);
            pack_any(op, t, in->corners, v, in->to, t->in_columns, c, centre);
        }
        for (uint32_t lane = 0; lane < lanes; lane++)
            codes[lane] += row_codes;
    }
}

/* Write `count` outputs of one channel and lane from consecutive words of totals. */
HW_INLINE void finish_lane(const hw_op *op, uint32_t lanes, const hw_parts *parts, const uint32_t *totals, uint32_t lane,
                           uint32_t count, uint32_t index, uint32_t c)
{
    if (parts->way == HW_SLOW) {
        for (; count; count--, totals++, index += op->out_c)
            hw_finish(op, index, c, parts->bias + (int32_t)(lanes == 1 ? *totals : *totals >> lane_bit(lanes, lane) & (lanes == 2 ? 0xFFFFu : 0xFFu)));
        return;
    }
    const struct finish_plain_call call = {
        .totals = hw_address(totals) + lane * (4 / lanes),
        .end = hw_address(totals + count) + lane * (4 / lanes),
        .output = hw_address(op->output) + index,
        .shift = parts->shift,
        .bias = (uint32_t)parts->bias,
        .low = parts->low,
        .high = parts->high,
        .offset = (uint32_t)parts->offset,
        .output_step = op->out_c,
        .max = op->output_max,
    };
    if (lanes == 1)
        (parts->way == HW_NARROW ? hw_finish_plain_words_narrow : hw_finish_plain_words_wide)(&call);
    else if (lanes == 2)
        (parts->way == HW_NARROW ? hw_finish_plain_halfs_narrow : hw_finish_plain_halfs_wide)(&call);
    else
        (parts->way == HW_NARROW ? hw_finish_plain_bytes_narrow : hw_finish_plain_bytes_wide)(&call);
}

/* `rows` rows of places from `y` on. Where parts are as wide as the output, their rows follow each other there too. */
HW_INLINE void finish_channel_tile(const hw_op *op, const channel_tile *t, uint32_t lanes, const hw_parts *parts, int32_t y,
                                   int32_t rows, uint32_t c)
{
    for (uint32_t lane = 0; lane < lanes; lane++) {
        const int32_t top = (int32_t)(lane / t->column_parts) * t->part_h + y, left = (int32_t)(lane % t->column_parts) * t->part_w;
        const int32_t inside = hw_smaller(rows, op->out_h - top), width = hw_smaller(t->part_w, op->out_w - left);
        const uint32_t index = ((uint32_t)top * op->out_w + (uint32_t)left) * op->out_c + c;
        if (inside <= 0 || width <= 0)
            continue;
        if (t->column_parts == 1) {
            finish_lane(op, lanes, parts, t->totals, lane, (uint32_t)(inside * width), index, c);
            continue;
        }
        for (int32_t r = 0; r < inside; r++)
            finish_lane(op, lanes, parts, t->totals + r * t->part_w, lane, (uint32_t)width,
                        index + (uint32_t)r * op->out_w * op->out_c, c);
    }
}

/* Weights of one channel, centred; returns their sum. */
HW_INLINE int32_t expand_channel(const hw_op *op, uint32_t bits, uint32_t c, int32_t weights[TAPS])
{
    const uint8_t *row = op->weights + c * hw_row_bytes(TAPS, op->stored_bits);
    int32_t sum = 0;
    HW_ROLLED
    for (uint32_t k = 0; k < TAPS; k++)
        sum += weights[k] = hw_weight(row, k, op->stored_bits, bits);
    return sum;
}

HW_INLINE void depthwise_3x3(const hw_op *op, uint32_t bits, uint32_t activation_bits, uint32_t lanes)
{
    const uint32_t half = 1u << (activation_bits - 1), reach = TAPS * ((1u << bits) - 1u) * ((1u << activation_bits) - 1u);
    const uint32_t ones = lanes == 4 ? 0x01010101u : 0x10001u, half_range = lanes == 4 ? 128 : 32768;
    const uint32_t centre = lanes > 1 ? half * ones : 0, padding = op->input_zero[0] * (lanes > 1 ? ones : 1) - centre;
    channel_tile t;
    tile_input in;
    make_channel_tile(&t, op, lanes);
    for (int32_t y = 0; y < t.part_h; y += t.rows) {
        const int32_t rows = hw_smaller(t.rows, t.part_h - y);
        int32_t weights[TAPS];
        const struct depthwise_call call = {
            .codes = hw_address(t.codes),
            .row_step = 4u * op->stride_h,
            .totals_bytes = 4u * (uint32_t)t.part_w,
            .rows = (uint32_t)rows,
            .half_ranges = half_range * ones,
            .next_column = 4u * (uint32_t)t.in_rows - 4u * SIDE,
            .totals = hw_address(t.totals),
            .weights = hw_address(weights),
        };
        find_input(&in, op, &t, lanes, y, padding);
        for (uint32_t c = 0; c < op->in_c; c++) {
            const int32_t sum = expand_channel(op, bits, c, weights);
            hw_parts parts = hw_make_parts(op, reach, c);
            if (lanes > 1)
                parts.bias += sum * (int32_t)half - (int32_t)half_range;
            pack_channel(op, &t, lanes, &in, c, centre);
            if (op->stride_w == 1)
                (lanes > 1 ? hw_depthwise_stride1_packed : hw_depthwise_stride1_single)(&call);
            else
                (lanes > 1 ? hw_depthwise_stride2_packed : hw_depthwise_stride2_single)(&call);
            finish_channel_tile(op, &t, lanes, &parts, y, rows, c);
        }
    }
}

HW_INLINE void depthwise_conv2d(const hw_op *op, uint32_t bits, uint32_t activation_bits)
{
    const uint32_t centred = TAPS * ((1u << bits) - 1u) << (activation_bits - 1);
    if (op->kernel_h != SIDE || op->kernel_w != SIDE || op->stride_w > 2)
        depthwise_by_stretches(op, bits);
    else if (op->out_h < FEW_ROWS) /* parts would have so few that packing takes longer than it saves */
        depthwise_3x3(op, bits, activation_bits, 1);
    else
        depthwise_3x3(op, bits, activation_bits, centred < 128 ? 4 : centred < 32768 ? 2 : 1);
}

void HW_OF_WIDTHS(hw_depthwise_conv2d)(const hw_op *op);
void HW_OF_WIDTHS(hw_depthwise_conv2d)(const hw_op *op) { depthwise_conv2d(op, HW_W, HW_A); }

#endif
