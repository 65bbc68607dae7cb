/* hw_avg_pool: sum of each window above the zero point, requantized; the divisor is part of the multiplier.
 *
 * Padding has the code of zero and adds nothing, so positions outside the input are skipped.
 */
#include "hw_portable.h"

void hw_avg_pool(const hw_op *op);

static void average_pixel(const hw_op *op, int32_t top, int32_t left, uint8_t *output)
{
    const int32_t v0 = hw_larger(top, 0), v1 = hw_smaller(top + op->kernel_h, op->in_h);
    const int32_t u0 = hw_larger(left, 0), u1 = hw_smaller(left + op->kernel_w, op->in_w);
    const hw_scale scale = hw_make_scale(op->multiplier[0], op->shift[0]);
    const int32_t empty = -(v1 - v0) * (u1 - u0) * op->input_zero[0];
    for (uint32_t c = 0; c < op->in_c; c++) {
        int32_t sum = empty;
        for (int32_t v = v0; v < v1; v++) {
            const uint8_t *code = op->input[0] + ((uint32_t)v * op->in_w + (uint32_t)u0) * op->in_c + c;
            for (int32_t u = u0; u < u1; u++, code += op->in_c)
                sum += *code;
        }
        output[c] = hw_code(hw_raised(sum, scale), scale, op->output_zero, op->output_max);
    }
}

void hw_avg_pool(const hw_op *op)
{
    uint8_t *output = op->output;
    for (int32_t y = 0; y < op->out_h; y++)
        for (int32_t x = 0; x < op->out_w; x++, output += op->out_c)
            average_pixel(op, y * op->stride_h - op->pad_h, x * op->stride_w - op->pad_w, output);
}
