/* hw_add for x86-64: the portable sum, written so that compilers make vectors of it, for SSE2 and for AVX2. */
#include "x86/hw_x86.h"

#ifdef HW_X86

void hw_add(const hw_op *op);

/* The zero points and the rounding term are gathered in one constant; 255 * 2 * 2^21 + 2^29 fits int32. */
HW_INLINE void add(const hw_op *op)
{
    const uint32_t count = (uint32_t)op->out_h * op->out_w * op->out_c;
    const uint8_t *first = op->input[0], *second = op->input[1];
    uint8_t *output = op->output;
    const int32_t m0 = op->multiplier[0], m1 = op->multiplier[1], shift = op->shift[0];
    const int32_t constant = ((int32_t)1 << (shift - 1)) - op->input_zero[0] * m0 - op->input_zero[1] * m1;
    const int32_t zero = op->output_zero, max = op->output_max;
    for (uint32_t i = 0; i < count; i++)
        output[i] = hw_clamped(((first[i] * m0 + second[i] * m1 + constant) >> shift) + zero, max);
}

HW_AVX2_CODE void add_avx2(const hw_op *op) { add(op); }

void hw_add(const hw_op *op)
{
    if (hw_level() == HW_SSE2)
        add(op);
    else
        add_avx2(op);
}

#endif
