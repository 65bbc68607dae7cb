/* hw_add on a Cortex-M0+: sum of two tensors of equal shape, each on its own scale; the loop is in assembly. */
#include "hw_cortex_m0.h"

#ifdef HW_CORTEX_M0
#include "generated/hw_add_m0_loops.h"

void hw_add(const hw_op *op);

/* The zero points and the rounding term are gathered in one constant; 255 * 2 * 2^21 + 2^29 fits int32. */
void hw_add(const hw_op *op)
{
    const uint32_t count = (uint32_t)op->out_h * op->out_w * op->out_c, whole = count & ~3u;
    const uint8_t *const first = op->input[0], *const second = op->input[1];
    uint8_t *const output = op->output;
    const int32_t m0 = op->multiplier[0], m1 = op->multiplier[1], shift = op->shift[0];
    const int32_t constant = ((int32_t)1 << (shift - 1)) - op->input_zero[0] * m0 - op->input_zero[1] * m1;
    const struct add_call call = {
        .first = hw_address(first),
        .second = hw_address(second),
        .output = hw_address(output),
        .multiplier0 = (uint32_t)m0,
        .multiplier1 = (uint32_t)m1,
        .shift = (uint32_t)shift,
        .constant = (uint32_t)constant,
        .zero = op->output_zero,
        .max = op->output_max,
        .end = hw_address(output + whole),
    };
    if (whole)
        hw_add_fours(&call);
    for (uint32_t i = whole; i < count; i++)
        output[i] = hw_clamped(((first[i] * m0 + second[i] * m1 + constant) >> shift) + op->output_zero, op->output_max);
}

#endif
