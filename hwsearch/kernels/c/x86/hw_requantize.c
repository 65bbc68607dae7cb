/* hw_requantize for x86-64: the portable loops, of which compilers make vectors, for SSE2 and for AVX2. */
#include "x86/hw_x86.h"

#ifdef HW_X86

void hw_requantize(const hw_op *op);

HW_INLINE void requantize(const hw_op *op)
{
    const uint32_t count = (uint32_t)op->out_h * op->out_w * op->out_c;
    const uint8_t *input = op->input[0];
    uint8_t *output = op->output;
    const hw_scale scale = hw_make_scale(op->multiplier[0], op->shift[0]);
    const int32_t in_zero = op->input_zero[0], zero = op->output_zero, max = op->output_max;
    if (scale.limit < 255)
        for (uint32_t i = 0; i < count; i++)
            output[i] = hw_code(hw_raised(input[i] - in_zero, scale), scale, zero, max);
    else
        for (uint32_t i = 0; i < count; i++)
            output[i] = hw_code(hw_shifted(input[i] - in_zero, scale), scale, zero, max);
}

HW_AVX2_CODE void requantize_avx2(const hw_op *op) { requantize(op); }

void hw_requantize(const hw_op *op)
{
    if (hw_level() == HW_SSE2)
        requantize(op);
    else
        requantize_avx2(op);
}

#endif
