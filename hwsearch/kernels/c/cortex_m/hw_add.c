/* hw_add for Arm cores with DSP instructions: sum of two tensors of equal shape, each on its own scale.
 *
 * Zero points, the rounding term and the output's zero point are gathered in one constant. Where all codes are below 16, as
 * those of 4 bits and less are, a pair of them is one of 256, and a table of their sums takes less time.
 */
#include "hw_cortex_m.h"
#include "generated/hw_element_loops.h"

#ifdef HW_CORTEX_M

void hw_add(const hw_op *op);

enum { WORTH_A_TABLE = 1024 }; /* codes */

/* Sums of codes 0 .. 15: byte a + 16 b. */
HW_APART void make_table(uint8_t *table, int32_t m0, int32_t m1, int32_t constant, int32_t shift, int32_t max)
{
    for (int32_t b = 0; b < 16; b++, constant += m1)
        for (int32_t a = 0, sum = constant; a < 16; a++, sum += m0)
            *table++ = hw_clamped(sum >> shift, max);
}

/* Codes that the table served, from the first on. */
HW_INLINE uint32_t add_by_table(const hw_op *op, uint32_t count, int32_t constant)
{
    uint8_t table[256] __attribute__((aligned(4)));
    uint32_t seen = 0;
    volatile uint32_t left = count / LOOKUP_CODES;
    for (uint32_t i = 0; i < LOOKUP_CODES; i += 4)
        seen |= hw_load(op->input[0] + i) | hw_load(op->input[1] + i);
    if (seen & 0xF0F0F0F0u)
        return 0;
    make_table(table, op->multiplier[0], op->multiplier[1], constant, op->shift[0], op->output_max);
    const struct lookup_call call = {
        .first = hw_address(op->input[0]), .second = hw_address(op->input[1]), .output = hw_address(op->output),
        .count = left, .table = hw_address(table), .left = (uint32_t)(uintptr_t)&left,
    };
    hw_add_lookup(&call);
    return (count / LOOKUP_CODES - left) * LOOKUP_CODES;
}

void hw_add(const hw_op *op)
{
    const uint32_t count = (uint32_t)op->out_h * op->out_w * op->out_c;
    const uint8_t *first = op->input[0], *second = op->input[1];
    uint8_t *output = op->output;
    const int32_t m0 = op->multiplier[0], m1 = op->multiplier[1], shift = op->shift[0], zero = op->output_zero, max = op->output_max;
    const int32_t smallest = ((int32_t)1 << (shift - 1)) - op->input_zero[0] * m0 - op->input_zero[1] * m1;
    const int64_t constant = smallest + ((int64_t)zero << shift), largest = constant + 255 * (int64_t)(m0 + m1);
    uint32_t i = 0;
    if (m0 >= 0 && m1 >= 0 && constant >= INT32_MIN && largest <= INT32_MAX && constant >> shift >= INT16_MIN && largest >> shift <= INT16_MAX) {
        if (count >= WORTH_A_TABLE)
            i = add_by_table(op, count, (int32_t)constant);
        const struct add_call call = {
            .first = hw_address(first + i), .second = hw_address(second + i), .output = hw_address(output + i), .count = (count - i) / 4,
            .multiplier0 = (uint32_t)m0, .multiplier1 = (uint32_t)m1, .constant = (uint32_t)constant, .shift = (uint32_t)shift,
            .max = op->output_max * 0x01010101u,
        };
        if (call.count)
            hw_add_words(&call);
        i += call.count * 4;
    }
    HW_ROLLED
    for (; i < count; i++)
        output[i] = hw_clamped((((int32_t)first[i] * m0 + (int32_t)second[i] * m1 + smallest) >> shift) + zero, max);
}

#endif
