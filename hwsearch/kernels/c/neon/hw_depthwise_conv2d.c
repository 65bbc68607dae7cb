/* hw_depthwise_conv2d_w?a? on NEON: one filter per channel; vectors run along the channels, four neighbouring pixels go
 * together. In one of three ways:
 *
 * - weights of at most 4 bits, inputs of at most 4: SMLAL of the centred weights, in 16-bit lanes; 8 products per instruction.
 * - products of at most 12 bits: UMLAL of the codes in 16-bit lanes, and UADDW for sum q; 4 products per instruction.
 * - w8a8, and kernels with more taps than lanes hold: SMLAL of 16-bit numbers in 32-bit lanes; 2.7 products per instruction.
 *
 * sum (2u + 1 - 2^b) q = 2 sum u q - (2^b - 1) sum q. Fewer than 8 channels, and more than 64 taps, go one by one.
 */
#include "neon/hw_neon.h"

#ifdef HW_NEON

enum { MOST_TAPS = 64 };

/* How products are summed; all compile-time constants. */
typedef struct way {
    uint32_t bits;
    enum { CENTRED, CODES, WIDE } kind;
} way;

/* The codes under four neighbouring pixels, tap by tap. */
typedef struct windows {
    const uint8_t *codes[MOST_TAPS][4];
} windows;

typedef struct channels {
    const int8_t *weights; /* [taps][channels]: centred for CENTRED, codes otherwise */
    uint32_t taps, stride; /* stride: from one tap's weights to the next */
} channels;

/* Sums of 8 channels, without the bias, of each pixel. */
typedef struct sums {
    int32x4_t low[4], high[4];
} sums;

HW_INLINE void multiply_centred(const channels *ch, const windows *at, uint32_t c, sums *out)
{
    int16x8_t lanes[4] = {vdupq_n_s16(0), vdupq_n_s16(0), vdupq_n_s16(0), vdupq_n_s16(0)};
    HW_ROLLED
    for (uint32_t k = 0; k < ch->taps; k++) {
        const int8x8_t w = vld1_s8(ch->weights + k * ch->stride + c);
        for (uint32_t i = 0; i < 4; i++)
            lanes[i] = vmlal_s8(lanes[i], vreinterpret_s8_u8(vld1_u8(at->codes[k][i] + c)), w);
    }
    for (uint32_t i = 0; i < 4; i++)
        out->low[i] = vmovl_s16(vget_low_s16(lanes[i])), out->high[i] = vmovl_high_s16(lanes[i]);
}

HW_INLINE void multiply_codes(way y, const channels *ch, const windows *at, uint32_t c, sums *out)
{
    uint16x8_t lanes[4], codes[4];
    for (uint32_t i = 0; i < 4; i++)
        lanes[i] = codes[i] = vdupq_n_u16(0);
    HW_ROLLED
    for (uint32_t k = 0; k < ch->taps; k++) {
        const uint8x8_t w = vreinterpret_u8_s8(vld1_s8(ch->weights + k * ch->stride + c));
        for (uint32_t i = 0; i < 4; i++) {
            const uint8x8_t q = vld1_u8(at->codes[k][i] + c);
            lanes[i] = vmlal_u8(lanes[i], q, w);
            codes[i] = vaddw_u8(codes[i], q);
        }
    }
    const uint16x4_t centre = vdup_n_u16((uint16_t)((1u << y.bits) - 1u));
    for (uint32_t i = 0; i < 4; i++) {
        const uint32x4_t low = vshll_n_u16(vget_low_u16(lanes[i]), 1), high = vshll_n_u16(vget_high_u16(lanes[i]), 1);
        out->low[i] = vreinterpretq_s32_u32(vmlsl_u16(low, vget_low_u16(codes[i]), centre));
        out->high[i] = vreinterpretq_s32_u32(vmlsl_u16(high, vget_high_u16(codes[i]), centre));
    }
}

HW_INLINE void multiply_wide(way y, const channels *ch, const windows *at, uint32_t c, sums *out)
{
    const int16x8_t centre = vdupq_n_s16((int16_t)((1u << y.bits) - 1u));
    for (uint32_t i = 0; i < 4; i++)
        out->low[i] = out->high[i] = vdupq_n_s32(0);
    HW_ROLLED
    for (uint32_t k = 0; k < ch->taps; k++) {
        const uint8x8_t code = vreinterpret_u8_s8(vld1_s8(ch->weights + k * ch->stride + c));
        const int16x8_t w = vsubq_s16(vreinterpretq_s16_u16(vshll_n_u8(code, 1)), centre);
        for (uint32_t i = 0; i < 4; i++) {
            const int16x8_t q = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(at->codes[k][i] + c)));
            out->low[i] = vmlal_s16(out->low[i], vget_low_s16(q), vget_low_s16(w));
            out->high[i] = vmlal_high_s16(out->high[i], q, w);
        }
    }
}

/* Write 8 channels of `count` pixels. */
HW_INLINE void finish(const hw_op *op, uint32_t pixel, uint32_t count, uint32_t c, const sums *s)
{
    const int32x4_t bias_low = vld1q_s32(op->bias + c), bias_high = vld1q_s32(op->bias + c + 4);
    if (op->multiplier == 0) {
        int32_t *output = (int32_t *)op->output + pixel * op->out_c + c;
        for (uint32_t i = 0; i < count; i++, output += op->out_c) {
            vst1q_s32(output, vaddq_s32(bias_low, s->low[i]));
            vst1q_s32(output + 4, vaddq_s32(bias_high, s->high[i]));
        }
        return;
    }
    const neon_scale low = neon_make_scale(vld1q_s32(op->multiplier + c), vld1q_s32(op->shift + c));
    const neon_scale high = neon_make_scale(vld1q_s32(op->multiplier + c + 4), vld1q_s32(op->shift + c + 4));
    const int32x4_t zero = vdupq_n_s32(op->output_zero);
    const uint8x8_t max = vdup_n_u8(op->output_max);
    uint8_t *output = (uint8_t *)op->output + pixel * op->out_c + c;
    uint8x8_t codes[4];
    for (uint32_t i = 0; i < 4; i++)
        codes[i] = neon_clamped(neon_scaled(vaddq_s32(bias_low, s->low[i]), low),
                                neon_scaled(vaddq_s32(bias_high, s->high[i]), high), zero, max);
    for (uint32_t i = 0; i < count; i++, output += op->out_c)
        vst1_u8(output, codes[i]);
}

/* Eight channels at a time; the last eight may overlap those before and are computed twice. */
HW_INLINE void multiply_pixels(way y, const hw_op *op, const channels *ch, const windows *at, uint32_t pixel, uint32_t count)
{
    const uint32_t last = op->in_c - 8u;
    uint32_t c = 0;
    while (1) {
        sums s;
        if (y.kind == CENTRED)
            multiply_centred(ch, at, c, &s);
        else if (y.kind == CODES)
            multiply_codes(y, ch, at, c, &s);
        else
            multiply_wide(y, ch, at, c, &s);
        finish(op, pixel, count, c, &s);
        if (c == last)
            return;
        c = c + 8 < last ? c + 8 : last;
    }
}

/* Where the codes of four neighbours lie, from output column x of row y on; the zero point's where there is no input, and
 * pixels beyond the row repeat its last. */
HW_INLINE void find_windows(const hw_op *op, const uint8_t *zeros, int32_t y, int32_t x, windows *at)
{
    const uint8_t *(*tap)[4] = at->codes;
    for (int32_t dy = 0; dy < op->kernel_h; dy++) {
        const int32_t v = y * op->stride_h - op->pad_h + dy;
        const uint8_t *line = op->input[0] + (uint32_t)hw_larger(v, 0) * op->in_w * op->in_c;
        const int within = v >= 0 && v < op->in_h;
        for (int32_t dx = 0; dx < op->kernel_w; dx++, tap++)
            for (int32_t i = 0; i < 4; i++) {
                const int32_t u = hw_smaller(x + i, op->out_w - 1) * op->stride_w - op->pad_w + dx;
                (*tap)[i] = within && u >= 0 && u < op->in_w ? line + (uint32_t)u * op->in_c : zeros;
            }
    }
}

/* Weights tap by tap. */
HW_INLINE void expand(way y, const hw_op *op, int8_t *weights)
{
    const uint32_t taps = (uint32_t)op->kernel_h * op->kernel_w, row_bytes = hw_row_bytes(taps, op->stored_bits);
    const int32_t centre = y.kind == CENTRED ? 0 : (1 << y.bits) - 1;
    for (uint32_t c = 0; c < op->in_c; c++)
        for (uint32_t k = 0; k < taps; k++) {
            const int32_t weight = hw_weight(op->weights + c * row_bytes, k, op->stored_bits, y.bits);
            weights[k * op->in_c + c] = (int8_t)(y.kind == CENTRED ? weight : (weight + centre) / 2);
        }
}

HW_INLINE void multiply_image(way y, const hw_op *op)
{
    const uint32_t taps = (uint32_t)op->kernel_h * op->kernel_w;
    int8_t *weights = (int8_t *)op->scratch;
    uint8_t *zeros = op->scratch + taps * op->in_c;
    const channels ch = {.weights = weights, .taps = taps, .stride = op->in_c};
    windows at;
    expand(y, op, weights);
    neon_fill(zeros, op->input_zero[0], op->in_c);
    for (int32_t row = 0; row < op->out_h; row++)
        for (int32_t x = 0; x < op->out_w; x += 4) {
            const uint32_t pixel = (uint32_t)row * op->out_w + (uint32_t)x;
            find_windows(op, zeros, row, x, &at);
            multiply_pixels(y, op, &ch, &at, pixel, (uint32_t)hw_smaller(op->out_w - x, 4));
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

#define HW_DEPTHWISE_CONV2D(W, A) \
    void hw_depthwise_conv2d_w##W##a##A(const hw_op *op); \
    void hw_depthwise_conv2d_w##W##a##A(const hw_op *op) { depthwise_conv2d(op, W, A); }

#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w1a2)
HW_DEPTHWISE_CONV2D(1, 2)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w1a4)
HW_DEPTHWISE_CONV2D(1, 4)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w1a8)
HW_DEPTHWISE_CONV2D(1, 8)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w2a2)
HW_DEPTHWISE_CONV2D(2, 2)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w2a4)
HW_DEPTHWISE_CONV2D(2, 4)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w2a8)
HW_DEPTHWISE_CONV2D(2, 8)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w3a3)
HW_DEPTHWISE_CONV2D(3, 3)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w3a4)
HW_DEPTHWISE_CONV2D(3, 4)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w3a8)
HW_DEPTHWISE_CONV2D(3, 8)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w4a2)
HW_DEPTHWISE_CONV2D(4, 2)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w4a4)
HW_DEPTHWISE_CONV2D(4, 4)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w4a8)
HW_DEPTHWISE_CONV2D(4, 8)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w8a2)
HW_DEPTHWISE_CONV2D(8, 2)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w8a4)
HW_DEPTHWISE_CONV2D(8, 4)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w8a8)
HW_DEPTHWISE_CONV2D(8, 8)
#endif

#endif
