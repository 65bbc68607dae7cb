/* What the kernels for the Cortex-M0+ share: a core with eight registers that compute, a 32-bit multiplication without a
 * long product, and no access to words at odd places.
 *
 * They replace the portable kernels on such a core, have the same names and compute the same, bit for bit.
 */
#ifndef HW_CORTEX_M0_H
#define HW_CORTEX_M0_H

#include "portable/hw_portable.h"

#ifdef HW_CORTEX_M0

HW_INLINE uint32_t hw_address(const void *place) { return (uint32_t)(uintptr_t)place; }

/* How one channel's accumulators become codes; hw_code of hw_portable.h, taken apart.
 *
 * The multiplier is high * 2^16 + low. Wide: shifts of 33 and more leave the accumulator as it is; `offset` holds the
 * rounding term and the zero point and goes to the product's high word. Narrow accumulators fit 16 bits, so two products
 * give the product without its lowest 16 bits, where shifts of 17 to 37 leave room for both. All others go the slow way. */
typedef enum hw_way { HW_SLOW, HW_WIDE, HW_NARROW } hw_way;

typedef struct hw_parts {
    uint32_t shift;
    int32_t bias;
    uint32_t low, high;
    int32_t offset;
    hw_way way;
} hw_parts;

HW_APART hw_parts hw_make_parts(const hw_op *op, uint32_t reach, uint32_t channel)
{
    hw_parts parts = {.bias = op->bias[channel], .way = HW_SLOW};
    if (op->multiplier == 0)
        return parts;
    const uint32_t multiplier = (uint32_t)op->multiplier[channel], shift = (uint32_t)op->shift[channel];
    parts.low = multiplier & 0xFFFFu, parts.high = multiplier >> 16;
    if (shift >= 17 && shift <= 37 && reach + hw_magnitude(parts.bias) < 1u << 15)
        parts.way = HW_NARROW, parts.shift = shift - 16;
    else if (shift > 32)
        parts.way = HW_WIDE, parts.shift = shift - 32;
    if (parts.way != HW_SLOW)
        parts.offset = ((int32_t)1 << (parts.shift - 1)) + op->output_zero * ((int32_t)1 << parts.shift);
    return parts;
}

#endif
#endif
