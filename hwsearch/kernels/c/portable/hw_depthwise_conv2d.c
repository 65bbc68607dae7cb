/* hw_depthwise_conv2d_w?a?: one filter per channel; all of them by the body that takes any shape. */
#include "hw_stretches.h"

#ifndef HW_OWN_DEPTHWISE_CONV2D

#define HW_DEPTHWISE_CONV2D(W, A) \
    void hw_depthwise_conv2d_w##W##a##A(const hw_op *op); \
    void hw_depthwise_conv2d_w##W##a##A(const hw_op *op) { depthwise_by_stretches(op, W); }

#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w1a2)
HW_DEPTHWISE_CONV2D(1, 2)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w1a4)
HW_DEPTHWISE_CONV2D(1, 4)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w1a8)
HW_DEPTHWISE_CONV2D(1, 8)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w2a2)
HW_DEPTHWISE_CONV2D(2, 2)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w2a4)
HW_DEPTHWISE_CONV2D(2, 4)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w2a8)
HW_DEPTHWISE_CONV2D(2, 8)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w3a3)
HW_DEPTHWISE_CONV2D(3, 3)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w3a4)
HW_DEPTHWISE_CONV2D(3, 4)
#endif
#if !defined(HW_SELECTED) || defined(HW_USE_hw_depthwise_conv2d_w3a8)
HW_DEPTHWISE_CONV2D(3, 8)
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

#endif
