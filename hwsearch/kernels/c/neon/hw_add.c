/* hw_add on NEON: sum of two tensors of equal shape, each on its own scale; see the portable body for its constant. */
#include "neon/hw_neon.h"

#ifdef HW_NEON

void hw_add(const hw_op *op);

/* What two tensors become one with. */
typedef struct mix {
    int32_t first, second;
    int32x4_t constant, shift, zero;
    uint8x8_t max;
} mix;

HW_INLINE int32x4_t add_four(mix m, uint16x4_t a, uint16x4_t b)
{
    const int32x4_t sum = vmlaq_n_s32(m.constant, vreinterpretq_s32_u32(vmovl_u16(a)), m.first);
    return vshlq_s32(vmlaq_n_s32(sum, vreinterpretq_s32_u32(vmovl_u16(b)), m.second), m.shift);
}

HW_INLINE uint8x8_t add_eight(mix m, uint8x8_t a, uint8x8_t b)
{
    const uint16x8_t first = vmovl_u8(a), second = vmovl_u8(b);
    const int32x4_t low = add_four(m, vget_low_u16(first), vget_low_u16(second));
    const int32x4_t high = add_four(m, vget_high_u16(first), vget_high_u16(second));
    return neon_clamped(low, high, m.zero, m.max);
}

void hw_add(const hw_op *op)
{
    const uint32_t count = (uint32_t)op->out_h * op->out_w * op->out_c;
    const uint8_t *first = op->input[0], *second = op->input[1];
    const int32_t m0 = op->multiplier[0], m1 = op->multiplier[1], shift = op->shift[0];
    const int32_t constant = ((int32_t)1 << (shift - 1)) - op->input_zero[0] * m0 - op->input_zero[1] * m1;
    const mix m = {m0, m1, vdupq_n_s32(constant), vdupq_n_s32(-shift), vdupq_n_s32(op->output_zero), vdup_n_u8(op->output_max)};
    uint8_t *output = op->output;
    uint32_t i = 0;
    for (; i + 8 <= count; i += 8)
        vst1_u8(output + i, add_eight(m, vld1_u8(first + i), vld1_u8(second + i)));
    for (; i < count; i++)
        output[i] = hw_clamped(((first[i] * m0 + second[i] * m1 + constant) >> shift) + op->output_zero, op->output_max);
}

#endif
