/* hw_depthwise_conv2d_w?a? on NEON: one filter per channel; vectors run along the channels, four pixels go
 * together. In one of three ways:
 *
 * - weights of at most 4 bits, inputs of at most 4: SMLAL of the centred weights, in 16-bit lanes; 8 products per instruction.
 * - products of at most 12 bits: UMLAL of the codes in 16-bit lanes, and UADDW for sum q; 4 products per instruction.
 * - w8a8, and kernels with more taps than lanes hold: SMLAL of 16-bit numbers in 32-bit lanes; 2.7 products per instruction.
 *
 * sum (2u + 1 - 2^b) q = 2 sum u q - (2^b - 1) sum q. Fewer than 8 channels, and more than 64 taps, go one by one.
 */
#include "neon/hw_neon.h"

#if defined(HW_NEON) && defined(HW_W)

enum { MOST_TAPS = 64 };

/* How products are summed; all compile-time constants. */
typedef struct way {
    uint32_t bits;
    enum { CENTRED, CODES, WIDE } kind;
} way;

/* The codes under four pixels, tap by tap. */
typedef struct windows {
    const uint8_t *codes[MOST_TAPS][4];
} windows;

typedef struct channels {
    const uint8_t *weights; /* [taps][channels]: centred and signed for CENTRED, codes otherwise */
    uint32_t taps, stride;  /* stride: from one tap's weights to the next */
    int eight;              /* there are fewer than 16 channels, and vectors are half used */
} channels;

/* Sums of 16 channels, without the bias, of each pixel: four and four. */
typedef struct sums {
    int32x4_t of[4][4];
} sums;

HW_INLINE uint8x16_t load_channels(const uint8_t *codes, int eight)
{
    return eight ? vcombine_u8(vld1_u8(codes), vdup_n_u8(0)) : vld1q_u8(codes);
}

HW_INLINE void multiply_centred(const channels *ch, int eight, const windows *at, uint32_t c, sums *out)
{
    int16x8_t lanes[4][2];
    HW_UNROLLED
    for (uint32_t i = 0; i < 4; i++)
        lanes[i][0] = lanes[i][1] = vdupq_n_s16(0);
    HW_ROLLED
    for (uint32_t k = 0; k < ch->taps; k++) {
        const int8x16_t w = vreinterpretq_s8_u8(load_channels(ch->weights + k * ch->stride + c, eight));
        HW_UNROLLED
        for (uint32_t i = 0; i < 4; i++) {
            const int8x16_t q = vreinterpretq_s8_u8(load_channels(at->codes[k][i] + c, eight));
            lanes[i][0] = vmlal_s8(lanes[i][0], vget_low_s8(q), vget_low_s8(w));
            lanes[i][1] = eight ? lanes[i][1] : vmlal_high_s8(lanes[i][1], q, w);
        }
    }
    HW_UNROLLED
    for (uint32_t i = 0; i < 4; i++) {
        out->of[i][0] = vmovl_s16(vget_low_s16(lanes[i][0])), out->of[i][1] = vmovl_high_s16(lanes[i][0]);
        out->of[i][2] = vmovl_s16(vget_low_s16(lanes[i][1])), out->of[i][3] = vmovl_high_s16(lanes[i][1]);
    }
}

/* 2 sum u q - centre * sum q of eight channels. */
HW_INLINE void subtract_centre(uint16x8_t products, uint16x8_t codes, uint16x4_t centre, int32x4_t *low, int32x4_t *high)
{
    const uint32x4_t first = vshll_n_u16(vget_low_u16(products), 1), second = vshll_n_u16(vget_high_u16(products), 1);
    *low = vreinterpretq_s32_u32(vmlsl_u16(first, vget_low_u16(codes), centre));
    *high = vreinterpretq_s32_u32(vmlsl_u16(second, vget_high_u16(codes), centre));
}

HW_INLINE void multiply_codes(way y, const channels *ch, int eight, const windows *at, uint32_t c, sums *out)
{
    uint16x8_t lanes[4][2], codes[4][2];
    HW_UNROLLED
    for (uint32_t i = 0; i < 4; i++)
        lanes[i][0] = lanes[i][1] = codes[i][0] = codes[i][1] = vdupq_n_u16(0);
    HW_ROLLED
    for (uint32_t k = 0; k < ch->taps; k++) {
        const uint8x16_t w = load_channels(ch->weights + k * ch->stride + c, eight);
        HW_UNROLLED
        for (uint32_t i = 0; i < 4; i++) {
            const uint8x16_t q = load_channels(at->codes[k][i] + c, eight);
            lanes[i][0] = vmlal_u8(lanes[i][0], vget_low_u8(q), vget_low_u8(w));
            codes[i][0] = vaddw_u8(codes[i][0], vget_low_u8(q));
            lanes[i][1] = eight ? lanes[i][1] : vmlal_high_u8(lanes[i][1], q, w);
            codes[i][1] = eight ? codes[i][1] : vaddw_high_u8(codes[i][1], q);
        }
    }
    const uint16x4_t centre = vdup_n_u16((uint16_t)((1u << y.bits) - 1u));
    HW_UNROLLED
    for (uint32_t i = 0; i < 4; i++) {
        subtract_centre(lanes[i][0], codes[i][0], centre, &out->of[i][0], &out->of[i][1]);
        subtract_centre(lanes[i][1], codes[i][1], centre, &out->of[i][2], &out->of[i][3]);
    }
}

HW_INLINE void multiply_wide(way y, const channels *ch, int eight, const windows *at, uint32_t c, sums *out)
{
    const int16x8_t centre = vdupq_n_s16((int16_t)((1u << y.bits) - 1u));
    HW_UNROLLED
    for (uint32_t i = 0; i < 4; i++)
        out->of[i][0] = out->of[i][1] = out->of[i][2] = out->of[i][3] = vdupq_n_s32(0);
    HW_ROLLED
    for (uint32_t k = 0; k < ch->taps; k++) {
        const uint8x16_t code = load_channels(ch->weights + k * ch->stride + c, eight);
        const int16x8_t w = vsubq_s16(vreinterpretq_s16_u16(vshll_n_u8(vget_low_u8(code), 1)), centre);
        const int16x8_t x = vsubq_s16(vreinterpretq_s16_u16(vshll_n_u8(vget_high_u8(code), 1)), centre);
        HW_UNROLLED
        for (uint32_t i = 0; i < 4; i++) {
            const uint8x16_t both = load_channels(at->codes[k][i] + c, eight);
            const int16x8_t q = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(both)));
            out->of[i][0] = vmlal_s16(out->of[i][0], vget_low_s16(q), vget_low_s16(w));
            out->of[i][1] = vmlal_high_s16(out->of[i][1], q, w);
            if (!eight) {
                const int16x8_t r = vreinterpretq_s16_u16(vmovl_high_u8(both));
                out->of[i][2] = vmlal_s16(out->of[i][2], vget_low_s16(r), vget_low_s16(x));
                out->of[i][3] = vmlal_high_s16(out->of[i][3], r, x);
            }
        }
    }
}

HW_INLINE void store_logits(const hw_op *op, uint32_t pixel, uint32_t count, uint32_t c, uint32_t parts, const sums *s)
{
    int32_t some[4][16], *output = (int32_t *)op->output + pixel * op->out_c + c;
    HW_UNROLLED
    for (uint32_t i = 0; i < 4; i++) {
        vst1q_s32(some[i], s->of[i][0]), vst1q_s32(some[i] + 4, s->of[i][1]);
        vst1q_s32(some[i] + 8, s->of[i][2]), vst1q_s32(some[i] + 12, s->of[i][3]);
    }
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t n = 0; n < 4 * parts; n++)
            output[i * op->out_c + n] = op->bias[c + n] + some[i][n];
}

/* Write 16 channels, or 8, of `count` pixels. */
HW_INLINE void finish(const hw_op *op, uint32_t pixel, uint32_t count, uint32_t c, int eight, sums *s)
{
    const uint32_t parts = eight ? 2 : 4;
    if (op->multiplier == 0) {
        store_logits(op, pixel, count, c, parts, s);
        return;
    }
    HW_UNROLLED
    for (uint32_t part = 0; part < parts; part++) {
        const uint32_t from = c + 4 * part;
        const neon_scale scale = neon_make_scale(vld1q_s32(op->multiplier + from), vld1q_s32(op->shift + from));
        const int32x4_t bias = vld1q_s32(op->bias + from);
        HW_UNROLLED
        for (uint32_t i = 0; i < 4; i++)
            s->of[i][part] = neon_scaled(vaddq_s32(bias, s->of[i][part]), scale);
    }
    const int32x4_t zero = vdupq_n_s32(op->output_zero);
    const uint8x8_t max = vdup_n_u8(op->output_max);
    uint8_t *output = (uint8_t *)op->output + pixel * op->out_c + c;
    HW_UNROLLED
    for (uint32_t i = 0; i < 4; i++, output += op->out_c) {
        if (i >= count)
            return;
        vst1_u8(output, neon_clamped(s->of[i][0], s->of[i][1], zero, max));
        if (!eight)
            vst1_u8(output + 8, neon_clamped(s->of[i][2], s->of[i][3], zero, max));
    }
}

HW_INLINE void multiply_channels(way y, const hw_op *op, const channels *ch, int eight, const windows *at, uint32_t pixel,
                                 uint32_t count, uint32_t c)
{
    sums s;
    if (y.kind == CENTRED)
        multiply_centred(ch, eight, at, c, &s);
    else if (y.kind == CODES)
        multiply_codes(y, ch, eight, at, c, &s);
    else
        multiply_wide(y, ch, eight, at, c, &s);
    finish(op, pixel, count, c, eight, &s);
}

/* Sixteen channels at a time, or eight; the last may overlap those before and are computed twice. */
HW_INLINE void multiply_pixels(way y, const hw_op *op, const channels *ch, const windows *at, uint32_t pixel, uint32_t count)
{
    const uint32_t channels = op->in_c;
    if (ch->eight) {
        multiply_channels(y, op, ch, 1, at, pixel, count, 0);
        if (channels > 8)
            multiply_channels(y, op, ch, 1, at, pixel, count, channels - 8);
        return;
    }
    for (uint32_t c = 0; c < channels; c += 16)
        multiply_channels(y, op, ch, 0, at, pixel, count, c + 16 <= channels ? c : channels - 16);
}

/* Where the codes under four pixels lie, from `pixel` on; the zero point's where there is no input. Pixels beyond the last
 * repeat it. */
HW_INLINE void find_windows(const hw_op *op, const uint8_t *zeros, uint32_t pixel, uint32_t last, windows *at)
{
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t one = pixel + i < last ? pixel + i : last;
        const int32_t top = (int32_t)(one / op->out_w) * op->stride_h - op->pad_h;
        const int32_t left = (int32_t)(one % op->out_w) * op->stride_w - op->pad_w;
        const int inside = top >= 0 && top + op->kernel_h <= op->in_h && left >= 0 && left + op->kernel_w <= op->in_w;
        const uint8_t *line = op->input[0] + ((int64_t)top * op->in_w + left) * op->in_c;
        uint32_t tap = 0;
        for (int32_t v = top; v < top + op->kernel_h; v++, line += (uint32_t)op->in_w * op->in_c) {
            const uint8_t *codes = line;
            for (int32_t u = left; u < left + op->kernel_w; u++, tap++, codes += op->in_c)
                at->codes[tap][i] = inside || (v >= 0 && v < op->in_h && u >= 0 && u < op->in_w) ? codes : zeros;
        }
    }
}

/* Weights tap by tap. */
HW_INLINE void expand(way y, const hw_op *op, uint8_t *weights)
{
    const uint32_t taps = (uint32_t)op->kernel_h * op->kernel_w, row_bytes = hw_row_bytes(taps, op->stored_bits);
    const uint8x16_t centre = vdupq_n_u8((uint8_t)((1u << y.bits) - 1u));
    for (uint32_t c = 0; c < op->in_c; c++)
        for (uint32_t k = 0; k < taps; k += 16) {
            const uint8x16_t codes = neon_weights(op->weights + c * row_bytes, row_bytes, k, op->stored_bits, y.bits);
            uint8_t some[16], *weight = weights + k * op->in_c + c;
            vst1q_u8(some, y.kind == CENTRED ? vsubq_u8(vaddq_u8(codes, codes), centre) : codes);
            for (uint32_t i = 0; i < 16 && k + i < taps; i++, weight += op->in_c)
                *weight = some[i];
        }
}

HW_INLINE void multiply_image(way y, const hw_op *op)
{
    const uint32_t taps = (uint32_t)op->kernel_h * op->kernel_w, pixels = (uint32_t)op->out_h * op->out_w;
    uint8_t *weights = op->scratch, *zeros = weights + taps * op->in_c;
    const channels ch = {.weights = weights, .taps = taps, .stride = op->in_c, .eight = op->in_c < 16};
    windows at;
    expand(y, op, weights);
    neon_fill(zeros, op->input_zero[0], op->in_c);
    for (uint32_t pixel = 0; pixel < pixels; pixel += 4) {
        find_windows(op, zeros, pixel, pixels - 1, &at);
        multiply_pixels(y, op, &ch, &at, pixel, pixels - pixel < 4 ? pixels - pixel : 4);
    }
}

/* One output after the other. */
HW_APART void multiply_each(const hw_op *op, uint32_t bits)
{
    const uint32_t row_bytes = hw_row_bytes((uint32_t)op->kernel_h * op->kernel_w, op->stored_bits);
    uint32_t index = 0;
    for (int32_t y = 0; y < op->out_h; y++)
        for (int32_t x = 0; x < op->out_w; x++)
            for (uint32_t c = 0; c < op->in_c; c++, index++) {
                int32_t sum = op->bias[c];
                for (int32_t k = 0; k < op->kernel_h * op->kernel_w; k++) {
                    const int32_t v = y * op->stride_h - op->pad_h + k / op->kernel_w;
                    const int32_t u = x * op->stride_w - op->pad_w + k % op->kernel_w;
                    const int inside = v >= 0 && v < op->in_h && u >= 0 && u < op->in_w;
                    const uint32_t at = ((uint32_t)hw_larger(v, 0) * op->in_w + (uint32_t)hw_larger(u, 0)) * op->in_c + c;
                    sum += (inside ? op->input[0][at] : op->input_zero[0]) *
                           hw_weight(op->weights + c * row_bytes, (uint32_t)k, op->stored_bits, bits);
                }
                hw_finish(op, index, c, sum);
            }
}

HW_INLINE void depthwise_conv2d(const hw_op *op, uint32_t bits, uint32_t activation_bits)
{
    const uint32_t largest = ((1u << bits) - 1u) * ((1u << activation_bits) - 1u), taps = (uint32_t)op->kernel_h * op->kernel_w;
    if (op->in_c < 8 || taps > MOST_TAPS)
        multiply_each(op, bits);
    else if (bits <= 4 && activation_bits <= 4 && taps <= 32767u / largest)
        multiply_image((way){bits, CENTRED}, op);
    else if (65535u / largest >= 9 && taps <= 65535u / largest)
        multiply_image((way){bits, CODES}, op);
    else
        multiply_image((way){bits, WIDE}, op);
}

void HW_OF_WIDTHS(hw_depthwise_conv2d)(const hw_op *op);
void HW_OF_WIDTHS(hw_depthwise_conv2d)(const hw_op *op) { depthwise_conv2d(op, HW_W, HW_A); }

#endif
