/* hw_conv2d_w?a? on NEON: convolution with groups.
 *
 * Codes are unsigned and multiplied as they are; the centre of the weights is put back once per pixel:
 * sum (2u + 1 - 2^b) q = 2 sum u q - (2^b - 1) sum q. Work goes by tiles of pixels whose windows are copied to rows of bytes,
 * and by four filters whose weights are expanded once per tile. Four pixels times four filters are computed together, in
 * one of three ways:
 *
 * - w8a8: two signed 8 x 8 bit products share a 16-bit lane before SADALP adds pairs of lanes: 5 products per instruction. With
 *   q' = q - 128, the first eight weights of sixteen as s = u - 128 and the others as r = 127 - u, all of them -128 .. 127, SMULL
 *   and SMLSL make s q' - r q' = -32640 .. 32640, which fits. Then
 *   sum (2u - 255) q = 2 sum (s q' - r q') + 256 sum u - 32640 n + sum q of the first eights - sum q of the others.
 * - narrower: UMLAL adds products in 16-bit lanes, which hold 65535 / (largest product) of them, before UADALP empties them:
 *   8 products per instruction, so half the instructions. It is one multiplication per 8 products all the same: a core that
 *   multiplies beside adding, as the Cortex-A72 does, gains little.
 * - at most 4 pairs of bits (w1a2, w1a4, w2a2), where windows are long enough: bit by bit. AND, CNT, ADD count 128 pairs, so
 *   10 products per instruction at w2a2 and 21 at w1a2, none of them a multiplication. Two pixels share a vector.
 */
#include "neon/hw_neon.h"

#if defined(HW_NEON) && defined(HW_W)

#include "portable/hw_tile.h"

enum { LEVELS = 5 }; /* most weights of a pair of bits, 2^0 .. 2^4 */

/* How a tile lies in the scratch memory. */
typedef struct pixels {
    uint32_t channels;      /* of a group's input */
    uint32_t window, row;   /* codes of a window; the same padded to whole vectors */
    uint32_t count, tile;   /* output pixels; most of them in a tile, a multiple of four */
    uint32_t pixel_bytes;   /* of a pixel in a tile */
    int direct;             /* rows are read where the input lies */
    uint8_t *weights;       /* of four filters */
    int32_t *sums;          /* what to take from each pixel's sums: of its codes, times the centre; w8a8: see compare_halves */
    uint8_t *rows, *staged; /* of the tile; two rows on their way to bits */
} pixels;

/* Whether going bit by bit takes fewer instructions. */
HW_INLINE int by_bits(uint32_t window, uint32_t bits, uint32_t activation_bits)
{
    const uint32_t pairs = bits * activation_bits;
    return pairs <= 4 && window >= 64 && 3 * pairs * ((window + 63) / 64) < (window + 15) / 16 * 5;
}

/* Whether a 16-bit lane holds one product alone. */
HW_INLINE int is_wide(uint32_t bits, uint32_t activation_bits) { return bits == 8 && activation_bits == 8; }

/* Everything lies in the memory that the portable tiling needs, which is at least 8 bytes for each code of a window, 8 more for
 * each of a window padded to 16, and 16. */
HW_INLINE pixels make_pixels(const hw_op *op, uint32_t bits, uint32_t activation_bits, int bitwise)
{
    const tiling t = make_tiling(op, bits);
    const uint32_t channels = op->in_c / op->groups;
    pixels p = {.channels = channels, .count = (uint32_t)op->out_h * op->out_w};
    p.window = (uint32_t)op->kernel_h * op->kernel_w * channels;
    uint32_t room = (uint32_t)(t.padding - op->scratch), weight_bytes, staged = 0;
    if (bitwise) {
        p.row = (p.window + 63u) & ~63u;
        p.pixel_bytes = p.row / 8 * activation_bits;
        weight_bytes = p.row * bits;
        staged = 2 * p.row;
    } else {
        p.row = (p.window + 15u) & ~15u;
        p.direct = op->kernel_h * op->kernel_w == 1 && op->stride_h * op->stride_w == 1 && op->pad_h + op->pad_w == 0 &&
                   op->groups == 1 && p.row == channels;
        p.pixel_bytes = p.direct ? 0 : p.row;
        weight_bytes = 4 * p.row;
    }
    room -= weight_bytes + staged;
    p.tile = room / (p.pixel_bytes + 4) & ~3u;
    p.weights = op->scratch;
    p.staged = p.weights + weight_bytes;
    p.sums = (int32_t *)(void *)(p.staged + staged);
    p.rows = (uint8_t *)(p.sums + p.tile);
    return p;
}

/* The codes under the window of an output pixel, in order, with the zero point where there is no input, and zeros behind. */
HW_INLINE void copy_window(const hw_op *op, const pixels *p, uint32_t pixel, uint32_t first, uint8_t *row)
{
    const uint32_t channels = p->channels;
    const int32_t top = (int32_t)(pixel / op->out_w) * op->stride_h - op->pad_h;
    const int32_t left = (int32_t)(pixel % op->out_w) * op->stride_w - op->pad_w;
    const int inside = left >= 0 && left + op->kernel_w <= op->in_w && op->groups == 1;
    uint8_t *const end = row + p->row;
    for (int32_t v = top; v < top + op->kernel_h; v++) {
        const uint8_t *line = op->input[0] + (uint32_t)hw_larger(v, 0) * op->in_w * op->in_c + first;
        const int within = v >= 0 && v < op->in_h;
        if (within && inside) {
            neon_copy(row, line + (uint32_t)left * channels, op->kernel_w * channels);
            row += op->kernel_w * channels;
            continue;
        }
        for (int32_t u = left; u < left + op->kernel_w; u++, row += channels) {
            if (within && u >= 0 && u < op->in_w)
                neon_copy(row, line + (uint32_t)u * op->in_c, channels);
            else
                neon_fill(row, op->input_zero[0], channels);
        }
    }
    neon_fill(row, 0, (uint32_t)(end - row));
}

HW_INLINE int32_t sum_row(const uint8_t *row, uint32_t count)
{
    uint32x4_t sum = vdupq_n_u32(0);
    for (uint32_t k = 0; k < count; k += 16)
        sum = vpadalq_u16(sum, vpaddlq_u8(vld1q_u8(row + k)));
    return (int32_t)vaddvq_u32(sum);
}

/* Bit 0 of 8 x 16 codes in one vector: codes of vector i in bits i of its bytes. What lies above is written over. */
HW_INLINE uint8x16_t gather_bits(const uint8x16_t codes[8])
{
    uint8x16_t bits = vsliq_n_u8(codes[0], codes[1], 1);
    bits = vsliq_n_u8(bits, codes[2], 2);
    bits = vsliq_n_u8(bits, codes[3], 3);
    bits = vsliq_n_u8(bits, codes[4], 4);
    bits = vsliq_n_u8(bits, codes[5], 5);
    bits = vsliq_n_u8(bits, codes[6], 6);
    return vsliq_n_u8(bits, codes[7], 7);
}

/* Two rows of bytes to planes of bits: for each 64 codes and each bit, 8 bytes of the first row and 8 of the second. */
HW_INLINE void spread_bits(const uint8_t *first, const uint8_t *second, uint32_t count, uint32_t bits, uint32_t stride,
                           uint8_t *planes)
{
    for (uint32_t k = 0; k < count; k += 64, planes += stride) {
        uint8x16_t codes[8];
        HW_UNROLLED
        for (uint32_t i = 0; i < 8; i++)
            codes[i] = vcombine_u8(vld1_u8(first + k + 8 * i), vld1_u8(second + k + 8 * i));
        HW_UNROLLED
        for (uint32_t bit = 0; bit < bits; bit++) {
            vst1q_u8(planes + 16 * bit, gather_bits(codes));
            HW_UNROLLED
            for (uint32_t i = 0; i < 8; i++)
                codes[i] = vshrq_n_u8(codes[i], 1);
        }
    }
}

/* Weights of four filters: bytes, 16 codes of each filter in turn, or planes of bits, each 8 bytes twice. Filters beyond the
 * last repeat it, and nobody stores what comes of them. */
HW_INLINE void expand_filters(const hw_op *op, const pixels *p, uint32_t stored, uint32_t bits, int bitwise, uint32_t o,
                              uint32_t last)
{
    const uint32_t row_bytes = hw_row_bytes(p->window, stored);
    HW_UNROLLED
    for (uint32_t f = 0; f < 4; f++) {
        const uint8_t *row = op->weights + (o + f < last ? o + f : last) * row_bytes;
        const uint32_t step = bitwise ? 16 : 64;
        uint8_t *codes = bitwise ? p->staged : p->weights + 16 * f;
        for (uint32_t k = 0; k < p->row; k += 16, codes += step)
            vst1q_u8(codes, neon_weights(row, row_bytes, k, stored, bits));
        if (bitwise)
            spread_bits(p->staged, p->staged, p->row, bits, 64 * bits, p->weights + 16 * bits * f);
    }
}

/* Weights are mostly stored at the width that they are used at, or at 8 bits. */
HW_INLINE void expand(const hw_op *op, const pixels *p, uint32_t bits, int bitwise, uint32_t o, uint32_t last)
{
    if (op->stored_bits == 8)
        expand_filters(op, p, 8, bits, bitwise, o, last);
    else if (op->stored_bits == bits)
        expand_filters(op, p, bits, bits, bitwise, o, last);
    else
        expand_filters(op, p, op->stored_bits, bits, bitwise, o, last);
}

/* Signs of the bytes of a vector of sixteen weights, and of codes. */
HW_INLINE uint8x16_t weight_signs(void) { return vcombine_u8(vdup_n_u8(0x80), vdup_n_u8(0x7F)); }

/* The weights of four filters as multiply_wide wants them. Returns 256 sum u - 32640 n of each. */
HW_INLINE int32x4_t sign_weights(const pixels *p)
{
    uint32x4_t sums[4] = {vdupq_n_u32(0), vdupq_n_u32(0), vdupq_n_u32(0), vdupq_n_u32(0)};
    uint8_t *codes = p->weights;
    for (uint32_t k = 0; k < p->row; k += 16) {
        HW_UNROLLED
        for (uint32_t f = 0; f < 4; f++, codes += 16) {
            const uint8x16_t u = vld1q_u8(codes);
            sums[f] = vpadalq_u16(sums[f], vpaddlq_u8(u));
            vst1q_u8(codes, veorq_u8(u, weight_signs()));
        }
    }
    return vsubq_s32(vshlq_n_s32(neon_sums(sums[0], sums[1], sums[2], sums[3]), 8), vdupq_n_s32(32640 * (int32_t)p->row));
}

/* Sum of the codes of the second eight of every sixteen, less that of the first; signed codes are stored at `over`, if given. */
HW_INLINE int32_t compare_halves(const uint8_t *row, uint32_t count, uint8_t *over)
{
    uint32x4_t sums = vdupq_n_u32(0);
    for (uint32_t k = 0; k < count; k += 16) {
        const uint8x16_t q = vld1q_u8(row + k);
        sums = vpadalq_u16(sums, vpaddlq_u8(q));
        if (over)
            vst1q_u8(over + k, veorq_u8(q, vdupq_n_u8(0x80)));
    }
    return (int32_t)(vaddv_u32(vget_high_u32(sums)) - vaddv_u32(vget_low_u32(sums)));
}

HW_INLINE int8x16_t load_signed(const uint8_t *codes, int is_signed)
{
    const uint8x16_t q = vld1q_u8(codes);
    return vreinterpretq_s8_u8(is_signed ? q : veorq_u8(q, vdupq_n_u8(0x80)));
}

/* Sums of products of four pixels and four filters, whose weights are stored 16 bytes of each filter in turn. */
HW_INLINE void multiply_wide(const uint8_t *const rows[4], int is_signed, const uint8_t *weights, uint32_t count,
                             int32x4_t totals[4])
{
    int32x4_t sums[4][4];
    HW_UNROLLED
    for (uint32_t i = 0; i < 16; i++)
        sums[i / 4][i % 4] = vdupq_n_s32(0);
    HW_ROLLED
    for (uint32_t k = 0; k < count; k += 16, weights += 64) {
        const int8x16_t codes[4] = {load_signed(rows[0] + k, is_signed), load_signed(rows[1] + k, is_signed),
                                    load_signed(rows[2] + k, is_signed), load_signed(rows[3] + k, is_signed)};
        HW_UNROLLED
        for (uint32_t f = 0; f < 4; f++) {
            const int8x16_t w = vreinterpretq_s8_u8(vld1q_u8(weights + 16 * f));
            HW_UNROLLED
            for (uint32_t i = 0; i < 4; i++) {
                const int16x8_t first = vmull_s8(vget_low_s8(w), vget_low_s8(codes[i]));
                sums[i][f] = vpadalq_s16(sums[i][f], vmlsl_high_s8(first, w, codes[i]));
            }
        }
    }
    HW_UNROLLED
    for (uint32_t i = 0; i < 4; i++)
        totals[i] = vpaddq_s32(vpaddq_s32(sums[i][0], sums[i][1]), vpaddq_s32(sums[i][2], sums[i][3]));
}

/* The same in 16-bit lanes, which hold `limit` products. */
HW_INLINE void multiply_narrow(const uint8_t *const rows[4], const uint8_t *weights, uint32_t count, uint32_t limit,
                               int32x4_t totals[4])
{
    const uint32_t stretch = limit / 2 * 16;
    uint32x4_t sums[4][4];
    HW_UNROLLED
    for (uint32_t i = 0; i < 16; i++)
        sums[i / 4][i % 4] = vdupq_n_u32(0);
    for (uint32_t start = 0; start < count; start += stretch) {
        const uint32_t end = count - start < stretch ? count : start + stretch;
        uint16x8_t lanes[4][4];
        HW_UNROLLED
        for (uint32_t i = 0; i < 16; i++)
            lanes[i / 4][i % 4] = vdupq_n_u16(0);
        HW_ROLLED
        for (uint32_t k = start; k < end; k += 16, weights += 64) {
            const uint8x16_t codes[4] = {vld1q_u8(rows[0] + k), vld1q_u8(rows[1] + k), vld1q_u8(rows[2] + k),
                                         vld1q_u8(rows[3] + k)};
            HW_UNROLLED
            for (uint32_t f = 0; f < 4; f++) {
                const uint8x16_t w = vld1q_u8(weights + 16 * f);
                HW_UNROLLED
                for (uint32_t i = 0; i < 4; i++) {
                    lanes[i][f] = vmlal_u8(lanes[i][f], vget_low_u8(w), vget_low_u8(codes[i]));
                    lanes[i][f] = vmlal_high_u8(lanes[i][f], w, codes[i]);
                }
            }
        }
        HW_UNROLLED
        for (uint32_t i = 0; i < 16; i++)
            sums[i / 4][i % 4] = vpadalq_u16(sums[i / 4][i % 4], lanes[i / 4][i % 4]);
    }
    HW_UNROLLED
    for (uint32_t i = 0; i < 4; i++)
        totals[i] = neon_sums(sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
}

/* Sums of products of two pairs of pixels and `filters` filters from planes of bits; `filters` vectors to each pair's sums,
 * whose low half belongs to the pair's first pixel. A byte holds the counts of 255 / 8 vectors. */
HW_INLINE void count_pairs(const uint8_t *const planes[2], const uint8_t *weights, uint32_t count, uint32_t bits,
                           uint32_t activation_bits, uint32_t filters, uint32x4_t sums[2][4])
{
    const uint32_t levels = bits + activation_bits - 1, step = 16 * activation_bits;
    const uint32_t stretch = 64 * (31 / (bits < activation_bits ? bits : activation_bits));
    HW_UNROLLED
    for (uint32_t f = 0; f < 4; f++)
        sums[0][f] = sums[1][f] = vdupq_n_u32(0);
    for (uint32_t start = 0; start < count; start += stretch) {
        const uint32_t end = count - start < stretch ? count : start + stretch;
        uint8x16_t counts[2][4][LEVELS];
        HW_UNROLLED
        for (uint32_t f = 0; f < filters; f++)
            HW_UNROLLED
            for (uint32_t level = 0; level < levels; level++)
                counts[0][f][level] = counts[1][f][level] = vdupq_n_u8(0);
        HW_ROLLED
        for (uint32_t k = start; k < end; k += 64, weights += 64 * bits) {
            const uint8_t *place[2] = {planes[0] + k / 64 * step, planes[1] + k / 64 * step};
            uint8x16_t codes[2][4];
            HW_UNROLLED
            for (uint32_t a = 0; a < activation_bits; a++)
                codes[0][a] = vld1q_u8(place[0] + 16 * a), codes[1][a] = vld1q_u8(place[1] + 16 * a);
            HW_UNROLLED
            for (uint32_t f = 0; f < filters; f++)
                HW_UNROLLED
                for (uint32_t b = 0; b < bits; b++) {
                    const uint8x16_t w = vld1q_u8(weights + 16 * (f * bits + b));
                    HW_UNROLLED
                    for (uint32_t a = 0; a < activation_bits; a++)
                        HW_UNROLLED
                        for (uint32_t pair = 0; pair < 2; pair++)
                            counts[pair][f][a + b] = vaddq_u8(counts[pair][f][a + b], vcntq_u8(vandq_u8(w, codes[pair][a])));
                }
        }
        HW_UNROLLED
        for (uint32_t pair = 0; pair < 2; pair++)
            HW_UNROLLED
            for (uint32_t f = 0; f < filters; f++) {
                uint16x8_t sum = vpaddlq_u8(counts[pair][f][0]);
                HW_UNROLLED
                for (uint32_t level = 1; level < levels; level++)
                    sum = vaddq_u16(sum, vshlq_u16(vpaddlq_u8(counts[pair][f][level]), vdupq_n_s16((int16_t)level)));
                sums[pair][f] = vpadalq_u16(sums[pair][f], sum);
            }
    }
}

/* Four filters go at once where the counts of two weights fit the registers, else two and two. */
HW_INLINE void multiply_bits(const uint8_t *const planes[2], const uint8_t *weights, uint32_t count, uint32_t bits,
                             uint32_t activation_bits, int32x4_t totals[4])
{
    const uint32_t filters = bits + activation_bits <= 3 ? 4 : 2;
    uint32x4_t sums[2][4];
    if (filters == 4) {
        count_pairs(planes, weights, count, bits, activation_bits, 4, sums);
    } else {
        uint32x4_t half[2][4];
        count_pairs(planes, weights, count, bits, activation_bits, 2, sums);
        count_pairs(planes, weights + 32 * bits, count, bits, activation_bits, 2, half);
        sums[0][2] = half[0][0], sums[0][3] = half[0][1], sums[1][2] = half[1][0], sums[1][3] = half[1][1];
    }
    HW_UNROLLED
    for (uint32_t pair = 0; pair < 2; pair++) {
        const uint32x4_t low = vpaddq_u32(sums[pair][0], sums[pair][1]), high = vpaddq_u32(sums[pair][2], sums[pair][3]);
        totals[2 * pair] = vreinterpretq_s32_u32(vuzp1q_u32(low, high));
        totals[2 * pair + 1] = vreinterpretq_s32_u32(vuzp2q_u32(low, high));
    }
}

/* What the sums of four filters become codes with. */
typedef struct channels {
    neon_scale scale;
    int32x4_t bias, zero;
    uint8x8_t max;
    uint32_t first, count;
} channels;

HW_INLINE channels make_channels(const hw_op *op, uint32_t o, uint32_t count)
{
    channels c = {.bias = neon_load_words(op->bias + o, count), .first = o, .count = count};
    if (op->multiplier) {
        c.scale = neon_make_scale(neon_load_words(op->multiplier + o, count), neon_load_words(op->shift + o, count));
        c.zero = vdupq_n_s32(op->output_zero);
        c.max = vdup_n_u8(op->output_max);
    }
    return c;
}

/* Write the outputs of `count` pixels from `pixel` on. */
HW_INLINE void finish(const hw_op *op, const channels *c, uint32_t pixel, uint32_t count, const int32x4_t totals[4],
                      const int32_t *centre)
{
    int32x4_t values[4];
    HW_UNROLLED
    for (uint32_t i = 0; i < 4; i++)
        values[i] = vsubq_s32(vaddq_s32(c->bias, vaddq_s32(totals[i], totals[i])), vdupq_n_s32(centre[i]));
    if (op->multiplier == 0) {
        int32_t some[4][4];
        HW_UNROLLED
        for (uint32_t i = 0; i < 4; i++)
            vst1q_s32(some[i], values[i]);
        for (uint32_t i = 0; i < count; i++)
            for (uint32_t f = 0; f < c->count; f++)
                ((int32_t *)op->output)[(pixel + i) * op->out_c + c->first + f] = some[i][f];
        return;
    }
    HW_UNROLLED
    for (uint32_t i = 0; i < 4; i++)
        values[i] = neon_scaled(values[i], c->scale);
    uint8_t some[16], *output = (uint8_t *)op->output + pixel * op->out_c + c->first;
    const uint8x8_t low = neon_clamped(values[0], values[1], c->zero, c->max);
    const uint8x8_t high = neon_clamped(values[2], values[3], c->zero, c->max);
    if (c->count == 4 && count == 4) {
        const uint32x2_t first = vreinterpret_u32_u8(low), second = vreinterpret_u32_u8(high);
        neon_store_word(output, vget_lane_u32(first, 0));
        neon_store_word(output + op->out_c, vget_lane_u32(first, 1));
        neon_store_word(output + 2 * op->out_c, vget_lane_u32(second, 0));
        neon_store_word(output + 3 * op->out_c, vget_lane_u32(second, 1));
        return;
    }
    vst1q_u8(some, vcombine_u8(low, high));
    for (uint32_t i = 0; i < count; i++, output += op->out_c)
        for (uint32_t f = 0; f < c->count; f++)
            output[f] = some[4 * i + f];
}

/* Bring a tile's windows into the scratch memory, and sum their codes. */
HW_INLINE void bring_tile(const hw_op *op, const pixels *p, uint32_t bits, uint32_t activation_bits, int bitwise,
                          uint32_t pixel, uint32_t count, uint32_t first)
{
    const int32_t centre = (1 << bits) - 1;
    if (p->direct && is_wide(bits, activation_bits)) {
        for (uint32_t i = 0; i < count; i++)
            p->sums[i] = compare_halves(op->input[0] + (pixel + i) * op->in_c, p->row, 0);
    } else if (p->direct) {
        for (uint32_t i = 0; i < count; i++)
            p->sums[i] = centre * sum_row(op->input[0] + (pixel + i) * op->in_c, p->row);
    } else if (!bitwise) {
        for (uint32_t i = 0; i < count; i++) {
            uint8_t *const row = p->rows + i * p->row;
            copy_window(op, p, pixel + i, first, row);
            p->sums[i] = is_wide(bits, activation_bits) ? compare_halves(row, p->row, row) : centre * sum_row(row, p->row);
        }
    } else {
        for (uint32_t i = 0; i < count; i += 2) {
            for (uint32_t half = 0; half < 2; half++) {
                const uint32_t one = pixel + (i + half < count ? i + half : count - 1);
                copy_window(op, p, one, first, p->staged + half * p->row);
                p->sums[i + half] = centre * sum_row(p->staged + half * p->row, p->row);
            }
            spread_bits(p->staged, p->staged + p->row, p->row, activation_bits, 16 * activation_bits,
                        p->rows + i * p->pixel_bytes);
        }
    }
}

/* Four pixels times four filters, from `done` on in a tile of `count` pixels; pixels beyond the last repeat it. */
HW_INLINE void multiply_four(const hw_op *op, const pixels *p, uint32_t bits, uint32_t activation_bits, int bitwise,
                             uint32_t pixel, uint32_t done, uint32_t count, int32x4_t totals[4])
{
    const uint32_t limit = 65535u / (((1u << bits) - 1u) * ((1u << activation_bits) - 1u));
    const uint8_t *const start = p->direct ? op->input[0] + pixel * op->in_c : p->rows;
    const uint32_t step = p->direct ? op->in_c : p->pixel_bytes;
    if (bitwise) {
        const uint32_t second = done + 2 < count ? done + 2 : done;
        const uint8_t *const planes[2] = {p->rows + done * step, p->rows + second * step};
        multiply_bits(planes, p->weights, p->row, bits, activation_bits, totals);
        return;
    }
    const uint8_t *rows[4];
    HW_UNROLLED
    for (uint32_t i = 0; i < 4; i++)
        rows[i] = start + (done + i < count ? done + i : count - 1) * step;
    if (is_wide(bits, activation_bits) && p->direct)
        multiply_wide(rows, 0, p->weights, p->row, totals);
    else if (is_wide(bits, activation_bits))
        multiply_wide(rows, 1, p->weights, p->row, totals);
    else
        multiply_narrow(rows, p->weights, p->row, limit, totals);
}

HW_INLINE void convolve(const hw_op *op, uint32_t bits, uint32_t activation_bits, int bitwise)
{
    const pixels p = make_pixels(op, bits, activation_bits, bitwise);
    const uint32_t outputs = op->out_c / op->groups, inputs = op->in_c / op->groups;
    for (uint32_t group = 0; group < op->groups; group++)
        for (uint32_t pixel = 0; pixel < p.count; pixel += p.tile) {
            const uint32_t count = p.count - pixel < p.tile ? p.count - pixel : p.tile, end = (group + 1) * outputs;
            bring_tile(op, &p, bits, activation_bits, bitwise, pixel, count, group * inputs);
            for (uint32_t o = group * outputs; o < end; o += 4) {
                channels c = make_channels(op, o, end - o < 4 ? end - o : 4);
                expand(op, &p, bits, bitwise, o, end - 1);
                if (is_wide(bits, activation_bits))
                    c.bias = vaddq_s32(c.bias, sign_weights(&p));
                for (uint32_t done = 0; done < count; done += 4) {
                    int32x4_t totals[4];
                    multiply_four(op, &p, bits, activation_bits, bitwise, pixel, done, count, totals);
                    finish(op, &c, pixel + done, count - done < 4 ? count - done : 4, totals, p.sums + done);
                }
            }
        }
}

HW_INLINE void conv2d(const hw_op *op, uint32_t bits, uint32_t activation_bits)
{
    if (by_bits((uint32_t)op->kernel_h * op->kernel_w * (op->in_c / op->groups), bits, activation_bits))
        convolve(op, bits, activation_bits, 1);
    else
        convolve(op, bits, activation_bits, 0);
}

void HW_OF_WIDTHS(hw_conv2d)(const hw_op *op);
void HW_OF_WIDTHS(hw_conv2d)(const hw_op *op) { conv2d(op, HW_W, HW_A); }

#endif
