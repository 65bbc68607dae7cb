/* hw_requantize on NEON: a change of scale, zero point and width, eight codes at a time. */
#include "neon/hw_neon.h"

#ifdef HW_NEON

void hw_requantize(const hw_op *op);

void hw_requantize(const hw_op *op)
{
    const uint32_t count = (uint32_t)op->out_h * op->out_w * op->out_c;
    const uint8_t *input = op->input[0];
    const neon_scale scale = neon_one_scale(op);
    const hw_scale one = hw_make_scale(op->multiplier[0], op->shift[0]);
    const int16x8_t in_zero = vdupq_n_s16(op->input_zero[0]);
    const int32x4_t zero = vdupq_n_s32(op->output_zero);
    const uint8x8_t max = vdup_n_u8(op->output_max);
    uint8_t *output = op->output;
    uint32_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const int16x8_t codes = vsubq_s16(vreinterpretq_s16_u16(vmovl_u8(vld1_u8(input + i))), in_zero);
        const int32x4_t low = neon_scaled(vmovl_s16(vget_low_s16(codes)), scale);
        const int32x4_t high = neon_scaled(vmovl_high_s16(codes), scale);
        vst1_u8(output + i, neon_clamped(low, high, zero, max));
    }
    for (; i < count; i++)
        output[i] = hw_code(hw_raised(input[i] - op->input_zero[0], one), one, op->output_zero, op->output_max);
}

#endif
