/* What the portable kernels share: rounding, weight codes, packed multiplication, and which functions are compiled.
 *
 * Assumed of the compiler, as gcc and clang do on every target: right shifts of negative numbers are arithmetic, and
 * conversion to a narrower signed type wraps. Assumed of the target: little-endian.
 */
#ifndef HW_PORTABLE_H
#define HW_PORTABLE_H

#include "hw_kernels.h"

#include <string.h>

/* A source of an operation with weights gives the function of one pair of widths, which the macros HW_W (of weights) and HW_A
 * (of inputs) say in bits, and nothing without them. HW_OF_WIDTHS(name) is its name: name_w4a8. */
#ifdef HW_W
#define HW_OF_WIDTHS(NAME) HW_EXPANDED(NAME, HW_W, HW_A)
#define HW_EXPANDED(NAME, W, A) HW_PASTED(NAME, W, A)
#define HW_PASTED(NAME, W, A) NAME##_w##W##a##A
#endif

/* The kind of core that is compiled for, where some operations have a body of their own in a folder of that name. An operation's
 * name below switches its portable body off.
 *
 * A package's scratch memory is enough for the portable bodies and those of the core that it was made for, whose number is
 * HW_BODIES there, or 0 if it has none; on another core, such as that of the computer which tests it, the portable ones run.
 * Without HW_BODIES every core takes its own. */
#ifdef HW_BODIES
#define HW_TAKES(NUMBER) (HW_BODIES == (NUMBER))
#else
#define HW_TAKES(NUMBER) 1
#endif

#ifdef __GNUC__
#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__) && HW_TAKES(1)
#define HW_CORTEX_M
#define HW_OWN_ADD
#define HW_OWN_AVG_POOL
#define HW_OWN_CONV2D
#define HW_OWN_DEPTHWISE_CONV2D
#define HW_OWN_LINEAR
#define HW_OWN_MAX_POOL
#define HW_OWN_REQUANTIZE
#elif defined(__ARM_ARCH_6M__) && HW_TAKES(2)
#define HW_CORTEX_M0
#define HW_OWN_ADD
#define HW_OWN_CONV2D
#define HW_OWN_DEPTHWISE_CONV2D
#define HW_OWN_LINEAR
#elif defined(__riscv) && HW_TAKES(3)
#define HW_RISCV
#define HW_OWN_LINEAR
#define HW_OWN_DEPTHWISE_CONV2D
#define HW_OWN_CONV2D
#elif defined(__x86_64__) && HW_TAKES(4)
#define HW_X86
#define HW_OWN_ADD
#define HW_OWN_CONV2D
#define HW_OWN_DEPTHWISE_CONV2D
#define HW_OWN_LINEAR
#define HW_OWN_MAX_POOL
#define HW_OWN_REQUANTIZE
#elif defined(__aarch64__) && HW_TAKES(5)
#define HW_NEON
#define HW_OWN_ADD
#define HW_OWN_AVG_POOL
#define HW_OWN_CONV2D
#define HW_OWN_DEPTHWISE_CONV2D
#define HW_OWN_LINEAR
#define HW_OWN_MAX_POOL
#define HW_OWN_REQUANTIZE
#endif
#endif

/* Inner functions take widths as constants, so they must merge into the function that gives them. Inner loops that need
 * every register stay apart. */
#ifdef __GNUC__
#define HW_INLINE static inline __attribute__((always_inline, unused))
#define HW_APART static __attribute__((noinline, unused))
#else
#define HW_INLINE static inline
#define HW_APART static
#endif

/* Before a loop whose body already fills the registers. */
#if defined(__clang__)
#define HW_ROLLED _Pragma("clang loop unroll(disable)")
#elif defined(__GNUC__) && __GNUC__ >= 8
#define HW_ROLLED _Pragma("GCC unroll 1")
#else
#define HW_ROLLED
#endif

HW_INLINE int32_t hw_smaller(int32_t a, int32_t b) { return a < b ? a : b; }
HW_INLINE int32_t hw_larger(int32_t a, int32_t b) { return a > b ? a : b; }

HW_INLINE uint8_t hw_clamped(int32_t value, int32_t max)
{
    if (value < 0)
        value = 0;
    return (uint8_t)(value > max ? max : value);
}

/* How one channel's accumulators become codes: clamp(floor(accumulator * multiplier / 2^shift + 1/2) + zero, 0, max).
 *
 * Shifts lie in 1 .. 51, and multipliers in 2^30 .. 2^31 - 1 unless the shift is 51. Above 32 the rounding term has no
 * low word, so the product's high word is enough. A smaller shift is raised to 33 by shifting the accumulator left; where
 * it would overflow, so would the code, whatever the accumulator. `limit` is the largest that does not, and whether any
 * can exceed it is known before: all shifts cost the same. */
typedef struct hw_scale {
    int32_t multiplier, shift, half, left, limit;
} hw_scale;

HW_INLINE hw_scale hw_make_scale(int32_t multiplier, int32_t shift)
{
    const int32_t left = shift > 32 ? 0 : hw_smaller(33 - shift, 31), right = shift > 32 ? shift - 32 : 1;
    return (hw_scale){multiplier, right, (int32_t)1 << (right - 1), left, INT32_MAX >> left};
}

HW_INLINE uint32_t hw_magnitude(int32_t value) { return value < 0 ? 0u - (uint32_t)value : (uint32_t)value; }

/* Bound on the magnitude of a sum of `count` products, which the catalogue keeps below 2^30. */
HW_INLINE uint32_t hw_reach(uint32_t count, uint32_t bits)
{
    const uint32_t largest = 255u * ((1u << bits) - 1u);
    return count < (1u << 30) / largest ? count * largest : 1u << 30;
}

/* The accumulator as hw_code takes it; hw_shifted is enough for one within the limit. */
HW_INLINE int32_t hw_shifted(int32_t accumulator, hw_scale scale) { return (int32_t)((uint32_t)accumulator << scale.left); }

HW_INLINE int32_t hw_raised(int32_t accumulator, hw_scale scale)
{
    if (accumulator > scale.limit)
        return INT32_MAX;
    return accumulator < -scale.limit ? -INT32_MAX : hw_shifted(accumulator, scale);
}

/* The high word of a product of signed numbers, the second positive. A core without long multiplication would call a function
 * for it; four products of halves are a fifth of that. */
HW_INLINE int32_t hw_high_product(int32_t a, int32_t b)
{
#ifdef HW_CORTEX_M0
    const uint32_t a_low = (uint32_t)a & 0xFFFFu, b_low = (uint32_t)b & 0xFFFFu;
    const int32_t a_high = a >> 16, b_high = b >> 16, middle = a_high * (int32_t)b_low + (int32_t)(a_low * b_low >> 16);
    const uint32_t other = ((uint32_t)middle & 0xFFFFu) + a_low * (uint32_t)b_high;
    return a_high * b_high + (middle >> 16) + (int32_t)(other >> 16);
#else
    return (int32_t)((int64_t)a * b >> 32);
#endif
}

HW_INLINE uint8_t hw_code(int32_t raised, hw_scale scale, int32_t zero, int32_t max)
{
    return hw_clamped(((hw_high_product(raised, scale.multiplier) + scale.half) >> scale.shift) + zero, max);
}

/* Write one output of a weighted operation: a code, or the accumulator itself where there is no multiplier. */
HW_INLINE void hw_finish(const hw_op *op, uint32_t index, uint32_t channel, int32_t accumulator)
{
    if (op->multiplier == 0) {
        ((int32_t *)op->output)[index] = accumulator;
        return;
    }
    const hw_scale scale = hw_make_scale(op->multiplier[channel], op->shift[channel]);
    ((uint8_t *)op->output)[index] = hw_code(hw_raised(accumulator, scale), scale, op->output_zero, op->output_max);
}

/* Four bytes of a 4-byte aligned place, the first in the lowest bits. */
HW_INLINE uint32_t hw_load(const uint8_t *bytes)
{
    uint32_t word;
#ifdef __GNUC__
    __builtin_memcpy(&word, __builtin_assume_aligned(bytes, 4), 4);
#else
    memcpy(&word, bytes, 4);
#endif
    return word;
}

/* Two bytes of a 2-byte aligned place. */
HW_INLINE uint32_t hw_load_half(const uint8_t *bytes)
{
    uint16_t half;
#ifdef __GNUC__
    __builtin_memcpy(&half, __builtin_assume_aligned(bytes, 2), 2);
#else
    memcpy(&half, bytes, 2);
#endif
    return half;
}

HW_INLINE void hw_store(uint8_t *bytes, uint32_t word)
{
#ifdef __GNUC__
    __builtin_memcpy(__builtin_assume_aligned(bytes, 4), &word, 4);
#else
    memcpy(bytes, &word, 4);
#endif
}

/* The larger of each pair of bytes. */
HW_INLINE uint32_t hw_larger_bytes(uint32_t a, uint32_t b)
{
    /* The top bit of a difference says which lower seven bits are larger; it decides where the top bits are equal. */
    const uint32_t top = 0x80808080u, difference = (a | top) - (b & ~top);
    const uint32_t is_larger = ((a & ~b) | (~(a ^ b) & difference)) & top, mask = (is_larger << 1) - (is_larger >> 7);
    return b ^ ((a ^ b) & mask);
}

/* Bytes of one output channel's row of weights. */
HW_INLINE uint32_t hw_row_bytes(uint32_t reduction, uint32_t stored_bits)
{
    return (reduction * stored_bits + 31u) / 32u * 4u;
}

/* Code `index` of a row of dense codes, cut to its top `bits` bits. Codes of 3 bits may lie in two bytes. */
HW_INLINE uint32_t hw_weight_code(const uint8_t *row, uint32_t index, uint32_t stored_bits, uint32_t bits)
{
    const uint32_t bit = index * stored_bits, at = bit & 7;
    uint32_t code = row[bit >> 3];
    if (stored_bits == 3 && at > 5)
        code |= (uint32_t)row[(bit >> 3) + 1] << 8;
    return (code >> at & ((1u << stored_bits) - 1u)) >> (stored_bits - bits);
}

/* The same, centred: 2u + 1 - 2^bits. */
HW_INLINE int32_t hw_weight(const uint8_t *row, uint32_t index, uint32_t stored_bits, uint32_t bits)
{
    return 2 * (int32_t)hw_weight_code(row, index, stored_bits, bits) + 1 - (int32_t)(1u << bits);
}

/* Codes 4 `quad` .. 4 `quad` + 3 of such a row, cut likewise, one per byte. Beyond the row's last code they are any. */
HW_INLINE uint32_t hw_four_codes(const uint8_t *row, uint32_t row_bytes, uint32_t quad, uint32_t stored_bits, uint32_t bits)
{
    uint32_t word;
    (void)row_bytes;
    if (stored_bits == 8) {
        word = hw_load(row + 4 * quad);
    } else if (stored_bits == 4) {
        word = hw_load_half(row + 2 * quad);
        word = (word | word << 8) & 0x00FF00FFu;
        word = (word | word << 4) & 0x0F0F0F0Fu;
    } else if (stored_bits == 3) { /* 12 bits of two bytes, the second of which the row may lack where it has no code */
        const uint32_t first = 3 * quad / 2, second = first + 1 < row_bytes ? first + 1 : first;
        word = (row[first] | (uint32_t)row[second] << 8) >> 4 * (quad & 1);
        word = (word & 0x3Fu) | (word & 0xFC0u) << 10;
        word = (word | word << 5) & 0x07070707u;
    } else if (stored_bits == 2) {
        word = row[quad];
        word = (word | word << 12) & 0x000F000Fu;
        word = (word | word << 6) & 0x03030303u;
    } else {
        word = row[quad / 2] >> 4 * (quad & 1) & 15u;
        word = (word | word << 14) & 0x00030003u;
        word = (word | word << 7) & 0x01010101u;
    }
    return word >> (stored_bits - bits) & ((1u << bits) - 1u) * 0x01010101u;
}

/* sum + low halves' product + high halves' product; halves are signed. */
HW_INLINE int32_t hw_dual_multiply_add(int32_t sum, uint32_t a, uint32_t b)
{
    return sum + (int16_t)a * (int16_t)b + (int16_t)(a >> 16) * (int16_t)(b >> 16);
}

/* A 64-bit sum of 32-bit products. Arm compilers keep it in one instruction only if they are told to: written in C, sums
 * of several products are reordered into separate multiplications and additions, three times as slow. */
#if defined(__arm__) && defined(__GNUC__) && (!defined(__thumb__) || defined(__thumb2__))
#define HW_UMLAL
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
