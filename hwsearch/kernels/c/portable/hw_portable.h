/* What the portable kernels share: rounding, weight codes, and which functions a package compiles.
 *
 * Right shifts of negative numbers are arithmetic, as gcc and clang define them on every target.
 */
#ifndef HW_PORTABLE_H
#define HW_PORTABLE_H

#include "hw_kernels.h"

/* A package that compiles with -DHW_SELECTED gives a header hw_selected.h with one `#define HW_USE_<symbol>` per
 * function it calls; without it every function is compiled. */
#ifdef HW_SELECTED
#include "hw_selected.h"
#endif

/* floor(accumulator * multiplier / 2^shift + 1/2), shift 1 .. 51. Above 32 the rounding term has no low word, so the
 * product's high word is enough. */
static inline int32_t hw_rounded(int32_t accumulator, int32_t multiplier, int32_t shift)
{
    const int64_t product = (int64_t)accumulator * multiplier;
    if (shift > 32)
        return ((int32_t)(product >> 32) + ((int32_t)1 << (shift - 33))) >> (shift - 32);
    return (int32_t)((product + ((int64_t)1 << (shift - 1))) >> shift);
}

static inline uint8_t hw_clamped(int32_t value, int32_t max)
{
    if (value < 0)
        value = 0;
    return (uint8_t)(value > max ? max : value);
}

/* Code `index` of a row of dense codes, cut to its top `bits` bits. */
static inline uint32_t hw_weight(const uint8_t *row, uint32_t index, uint32_t stored_bits, uint32_t bits)
{
    const uint32_t bit = index * stored_bits;
    const uint32_t code = ((uint32_t)row[bit >> 3] >> (bit & 7)) & ((1u << stored_bits) - 1u);
    return code >> (stored_bits - bits);
}

/* Bytes of one output channel's row of weights. */
static inline uint32_t hw_row_bytes(uint32_t reduction, uint32_t stored_bits)
{
    return (reduction * stored_bits + 31u) / 32u * 4u;
}

/* Write one output of a weighted operation: a code, or the accumulator itself where there is no multiplier. */
static inline void hw_finish(const hw_op *op, uint32_t index, uint32_t channel, int32_t accumulator)
{
    if (op->multiplier == 0) {
        ((int32_t *)op->output)[index] = accumulator;
        return;
    }
    const int32_t value = hw_rounded(accumulator, op->multiplier[channel], op->shift[channel]);
    ((uint8_t *)op->output)[index] = hw_clamped(value + op->output_zero, op->output_max);
}

#endif
