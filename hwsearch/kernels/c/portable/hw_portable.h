/* What the portable kernels share: rounding, weight codes, packed multiplication, and which functions are compiled.
 *
 * Assumed of the compiler, as gcc and clang do on every target: right shifts of negative numbers are arithmetic, and
 * conversion to a narrower signed type wraps. Assumed of the target: little-endian.
 */
#ifndef HW_PORTABLE_H
#define HW_PORTABLE_H

#include "hw_kernels.h"

#include <string.h>

/* A package compiled with -DHW_SELECTED has a header hw_selected.h with one `#define HW_USE_<symbol>` per function that
 * it calls; without it every function is compiled. */
#ifdef HW_SELECTED
#include "hw_selected.h"
#endif

/* Inner functions take widths as constants, so they must merge into the function that gives them. */
#ifdef __GNUC__
#define HW_INLINE static inline __attribute__((always_inline))
#else
#define HW_INLINE static inline
#endif

HW_INLINE int32_t hw_smaller(int32_t a, int32_t b) { return a < b ? a : b; }
HW_INLINE int32_t hw_larger(int32_t a, int32_t b) { return a > b ? a : b; }

/* floor(accumulator * multiplier / 2^shift + 1/2), shift 1 .. 51. Above 32 the rounding term has no low word, so the
 * product's high word is enough. */
HW_INLINE int32_t hw_rounded(int32_t accumulator, int32_t multiplier, int32_t shift)
{
    const int64_t product = (int64_t)accumulator * multiplier;
    if (shift > 32)
        return ((int32_t)(product >> 32) + ((int32_t)1 << (shift - 33))) >> (shift - 32);
    return (int32_t)((product + ((int64_t)1 << (shift - 1))) >> shift);
}

HW_INLINE uint8_t hw_clamped(int32_t value, int32_t max)
{
    if (value < 0)
        value = 0;
    return (uint8_t)(value > max ? max : value);
}

/* Write one output of a weighted operation: a code, or the accumulator itself where there is no multiplier. */
HW_INLINE void hw_finish(const hw_op *op, uint32_t index, uint32_t channel, int32_t accumulator)
{
    if (op->multiplier == 0) {
        ((int32_t *)op->output)[index] = accumulator;
        return;
    }
    const int32_t value = hw_rounded(accumulator, op->multiplier[channel], op->shift[channel]);
    ((uint8_t *)op->output)[index] = hw_clamped(value + op->output_zero, op->output_max);
}

/* Four dense bytes, the first in the lowest bits. */
HW_INLINE uint32_t hw_load(const uint8_t *bytes)
{
    uint32_t word;
    memcpy(&word, bytes, 4);
    return word;
}

/* Code `index` of a row of dense codes, cut to its top `bits` bits. */
HW_INLINE uint32_t hw_weight(const uint8_t *row, uint32_t index, uint32_t stored_bits, uint32_t bits)
{
    const uint32_t bit = index * stored_bits;
    const uint32_t code = ((uint32_t)row[bit >> 3] >> (bit & 7)) & ((1u << stored_bits) - 1u);
    return code >> (stored_bits - bits);
}

/* Bytes of one output channel's row of weights. */
HW_INLINE uint32_t hw_row_bytes(uint32_t reduction, uint32_t stored_bits)
{
    return (reduction * stored_bits + 31u) / 32u * 4u;
}

/* A 64-bit sum of 32-bit products. Arm compilers keep it in one instruction only if they are told to: written in C, sums
 * of several products are reordered into separate multiplications and additions, three times as slow. */
#if defined(__arm__) && defined(__GNUC__) && (!defined(__thumb__) || defined(__thumb2__))
typedef struct hw_sum {
    uint32_t low, high;
} hw_sum;
HW_INLINE void hw_multiply_add(hw_sum *sum, uint32_t a, uint32_t b)
{
    __asm__ volatile("umlal %0, %1, %2, %3" : "+r"(sum->low), "+r"(sum->high) : "r"(a), "r"(b));
}
HW_INLINE uint64_t hw_total(hw_sum sum) { return (uint64_t)sum.high << 32 | sum.low; }
#else
typedef struct hw_sum {
    uint64_t value;
} hw_sum;
HW_INLINE void hw_multiply_add(hw_sum *sum, uint32_t a, uint32_t b) { sum->value += (uint64_t)a * b; }
HW_INLINE uint64_t hw_total(hw_sum sum) { return sum.value; }
#endif

#endif
