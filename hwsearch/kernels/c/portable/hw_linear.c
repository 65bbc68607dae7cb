/* hw_linear_w?a?: matrix times vector. Plain form. */
#include "hw_portable.h"

HW_INLINE void linear(const hw_op *op, uint32_t bits)
{
    const uint32_t row_bytes = hw_row_bytes(op->in_c, op->stored_bits);
    for (uint32_t o = 0; o < op->out_c; o++) {
        int32_t sum = op->bias[o];
        for (uint32_t k = 0; k < op->in_c; k++)
            sum += (int32_t)op->input[0][k] * (2 * (int32_t)hw_weight(op->weights + o * row_bytes, k, op->stored_bits, bits) + 1 - (1 << bits));
        hw_finish(op, o, o, sum);
    }
}

#define HW_LINEAR(W, A) void hw_linear_w##W##a##A(const hw_op *op); void hw_linear_w##W##a##A(const hw_op *op) { linear(op, W); }
#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w2a2)
HW_LINEAR(2, 2)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w2a4)
HW_LINEAR(2, 4)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w2a8)
HW_LINEAR(2, 8)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w4a2)
HW_LINEAR(4, 2)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w4a4)
HW_LINEAR(4, 4)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w4a8)
HW_LINEAR(4, 8)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w8a2)
HW_LINEAR(8, 2)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w8a4)
HW_LINEAR(8, 4)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_linear_w8a8)
HW_LINEAR(8, 8)
#endif
