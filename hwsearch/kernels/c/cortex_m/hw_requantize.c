/* hw_requantize for Arm cores with DSP instructions: where there are more codes than a byte has values, each value is computed
 * once.
 */
#include "hw_cortex_m.h"
#include "generated/hw_element_loops.h"

#ifdef HW_CORTEX_M

void hw_requantize(const hw_op *op);

enum { VALUES = 256 };

/* `codes` may be 0: then they are 0, 1, 2, ... */
HW_APART void requantize(const hw_op *op, const uint8_t *codes, uint8_t *output, uint32_t count)
{
    const hw_scale scale = hw_make_scale(op->multiplier[0], op->shift[0]);
    const int32_t in_zero = op->input_zero[0], zero = op->output_zero, max = op->output_max;
    HW_ROLLED
    for (uint32_t i = 0; i < count; i++)
        output[i] = hw_code(hw_raised((codes ? (int32_t)codes[i] : (int32_t)i) - in_zero, scale), scale, zero, max);
}

void hw_requantize(const hw_op *op)
{
    const uint32_t count = (uint32_t)op->out_h * op->out_w * op->out_c;
    uint8_t *output = op->output, table[VALUES] __attribute__((aligned(4)));
    uint32_t i = 0;
    if (count > VALUES) {
        requantize(op, 0, table, VALUES);
        const struct lookup_call call = {
            .first = hw_address(op->input[0]), .output = hw_address(output), .count = count / 8, .table = hw_address(table),
        };
        hw_lookup(&call);
        i = call.count * 8;
    }
    requantize(op, op->input[0] + i, output + i, count - i);
}

#endif
