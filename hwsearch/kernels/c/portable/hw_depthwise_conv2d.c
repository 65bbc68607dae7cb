/* hw_depthwise_conv2d_w?a?: one filter per input channel. Plain form. */
#include "hw_portable.h"

HW_INLINE void depthwise_conv2d(const hw_op *op, uint32_t bits)
{
    const uint32_t group_in = op->in_c / op->groups, group_out = op->out_c / op->groups;
    const uint32_t row_bytes = hw_row_bytes((uint32_t)op->kernel_h * op->kernel_w * group_in, op->stored_bits);
    uint32_t index = 0;
    for (int32_t y = 0; y < op->out_h; y++)
        for (int32_t x = 0; x < op->out_w; x++)
            for (uint32_t o = 0; o < op->out_c; o++, index++) {
                const uint8_t *row = op->weights + o * row_bytes;
                const uint32_t first = o / group_out * group_in;
                int32_t sum = op->bias[o];
                uint32_t k = 0;
                for (int32_t i = 0; i < op->kernel_h; i++)
                    for (int32_t j = 0; j < op->kernel_w; j++) {
                        const int32_t v = y * op->stride_h + i - op->pad_h, u = x * op->stride_w + j - op->pad_w;
                        const int inside = v >= 0 && v < op->in_h && u >= 0 && u < op->in_w;
                        const uint8_t *pixel = inside ? op->input[0] + ((uint32_t)v * op->in_w + (uint32_t)u) * op->in_c + first : 0;
                        for (uint32_t c = 0; c < group_in; c++, k++) {
                            const int32_t q = pixel ? pixel[c] : op->input_zero[0];
                            sum += q * (2 * (int32_t)hw_weight(row, k, op->stored_bits, bits) + 1 - (1 << bits));
                        }
                    }
                hw_finish(op, index, o, sum);
            }
}

#define HW_DEPTHWISE_CONV2D(W, A) void hw_depthwise_conv2d_w##W##a##A(const hw_op *op); void hw_depthwise_conv2d_w##W##a##A(const hw_op *op) { depthwise_conv2d(op, W); }
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w2a2)
HW_DEPTHWISE_CONV2D(2, 2)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w2a4)
HW_DEPTHWISE_CONV2D(2, 4)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w2a8)
HW_DEPTHWISE_CONV2D(2, 8)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w4a2)
HW_DEPTHWISE_CONV2D(4, 2)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w4a4)
HW_DEPTHWISE_CONV2D(4, 4)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w4a8)
HW_DEPTHWISE_CONV2D(4, 8)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w8a2)
HW_DEPTHWISE_CONV2D(8, 2)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w8a4)
HW_DEPTHWISE_CONV2D(8, 4)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w8a8)
HW_DEPTHWISE_CONV2D(8, 8)
#endif
