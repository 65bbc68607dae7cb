/* hw_depthwise_conv2d_w?a?: one filter per channel; all of them by the body that takes any shape. */
#include "hw_portable.h"

#if !defined(HW_OWN_DEPTHWISE_CONV2D) && defined(HW_W)

#include "hw_stretches.h"

void HW_OF_WIDTHS(hw_depthwise_conv2d)(const hw_op *op);
void HW_OF_WIDTHS(hw_depthwise_conv2d)(const hw_op *op) { depthwise_by_stretches(op, HW_W); }

#endif
