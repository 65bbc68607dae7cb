/* hw_add: sum of two tensors of equal shape, each on its own scale. */
#include "hw_portable.h"

#ifndef HW_OWN_ADD

void hw_add(const hw_op *op);

/* The zero points and the rounding term are gathered in one constant; 255 * 2 * 2^21 + 2^29 fits int32. */
void hw_add(const hw_op *op)
{
    const uint32_t count = (uint32_t)op->out_h * op->out_w * op->out_c;
    const uint8_t *first = op->input[0], *second = op->input[1];
    uint8_t *output = op->output;
    const int32_t m0 = op->multiplier[0], m1 = op->multiplier[1], shift = op->shift[0];
    const int32_t constant = ((int32_t)1 << (shift - 1)) - op->input_zero[0] * m0 - op->input_zero[1] * m1;
    const int32_t zero = op->output_zero, max = op->output_max;
    uint32_t i = 0;
#define SUM(a, b) hw_clamped((((int32_t)(a) * m0 + (int32_t)(b) * m1 + constant) >> shift) + zero, max)
    HW_ROLLED
    for (; i + 4 <= count; i += 4) {
        const uint32_t a = hw_load(first + i), b = hw_load(second + i);
        output[i] = SUM(a & 255u, b & 255u);
        output[i + 1] = SUM(a >> 8 & 255u, b >> 8 & 255u);
        output[i + 2] = SUM(a >> 16 & 255u, b >> 16 & 255u);
        output[i + 3] = SUM(a >> 24, b >> 24);
    }
    for (; i < count; i++)
        output[i] = SUM(first[i], second[i]);
#undef SUM
}

#endif
