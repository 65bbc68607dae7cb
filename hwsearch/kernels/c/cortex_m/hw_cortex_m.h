/* What the kernels for Arm cores with DSP instructions (Cortex-M4, M7, M33) share.
 *
 * They replace the portable kernels on such a core, have the same names and compute the same, bit for bit. Words of tensors,
 * weights and scratch memory are only read and written at aligned places.
 */
#ifndef HW_CORTEX_M_H
#define HW_CORTEX_M_H

#include "portable/hw_portable.h"

#ifdef HW_CORTEX_M

/* Bytes 0 and 2 of a word as 16-bit numbers; rotated by 8 bits first, those are bytes 1 and 3. */
HW_INLINE uint32_t hw_even_bytes(uint32_t word)
{
    uint32_t halves;
    __asm__("uxtb16 %0, %1" : "=r"(halves) : "r"(word));
    return halves;
}

HW_INLINE uint32_t hw_odd_bytes(uint32_t word)
{
    uint32_t halves;
    __asm__("uxtb16 %0, %1, ror #8" : "=r"(halves) : "r"(word));
    return halves;
}

/* The same, added to two 16-bit numbers. */
HW_INLINE uint32_t hw_add_even_bytes(uint32_t halves, uint32_t word)
{
    __asm__("uxtab16 %0, %0, %1" : "+r"(halves) : "r"(word));
    return halves;
}

HW_INLINE uint32_t hw_add_odd_bytes(uint32_t halves, uint32_t word)
{
    __asm__("uxtab16 %0, %0, %1, ror #8" : "+r"(halves) : "r"(word));
    return halves;
}

/* Copies bytes between odd places; compilers would merge them to words. */
HW_INLINE uint8_t *hw_copy_bytes(uint8_t *to, const uint8_t *from, uint32_t count)
{
    uint32_t b0, b1, b2, b3;
    for (; count >= 4; count -= 4, to += 4, from += 4)
        __asm__ volatile("ldrb %0, [%5]\n ldrb %1, [%5, #1]\n ldrb %2, [%5, #2]\n ldrb %3, [%5, #3]\n"
                         "strb %0, [%4]\n strb %1, [%4, #1]\n strb %2, [%4, #2]\n strb %3, [%4, #3]"
                         : "=&r"(b0), "=&r"(b1), "=&r"(b2), "=&r"(b3)
                         : "r"(to), "r"(from)
                         : "memory");
    for (; count; count--)
        __asm__ volatile("ldrb %0, [%2], #1\n strb %0, [%1], #1" : "=&r"(b0), "+r"(to), "+r"(from) : : "memory");
    return to;
}

/* Three bytes of an odd place in one word, as a pixel of a picture has. */
HW_INLINE uint32_t hw_three_bytes(const uint8_t *from)
{
    uint32_t word, second, third;
    __asm__ volatile("ldrb %0, [%3]\n ldrb %1, [%3, #1]\n ldrb %2, [%3, #2]\n orr %0, %0, %1, lsl #8\n orr %0, %0, %2, lsl #16"
                     : "=&r"(word), "=&r"(second), "=&r"(third)
                     : "r"(from)
                     : "memory");
    return word;
}

/* Two bytes of an odd place as 16-bit numbers. */
HW_INLINE uint32_t hw_two_bytes(const uint8_t *from)
{
    uint32_t word, second;
    __asm__ volatile("ldrb %0, [%2]\n ldrb %1, [%2, #1]\n orr %0, %0, %1, lsl #16" : "=&r"(word), "=&r"(second) : "r"(from) : "memory");
    return word;
}

HW_INLINE uint8_t *hw_fill_bytes(uint8_t *to, uint32_t byte, uint32_t count)
{
    for (; count; count--)
        __asm__ volatile("strb %1, [%0], #1" : "+r"(to) : "r"(byte) : "memory");
    return to;
}

/* Both low halves of two words, and both high ones. */
HW_INLINE uint32_t hw_join_low(uint32_t a, uint32_t b)
{
    uint32_t halves;
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(halves) : "r"(a), "r"(b));
    return halves;
}

HW_INLINE uint32_t hw_join_high(uint32_t a, uint32_t b)
{
    uint32_t halves;
    __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(halves) : "r"(b), "r"(a));
    return halves;
}

/* Four words of four bytes, first bytes to the first word. */
HW_INLINE void hw_transpose(uint32_t *to, uint32_t w0, uint32_t w1, uint32_t w2, uint32_t w3)
{
    const uint32_t even01 = hw_even_bytes(w0) | hw_even_bytes(w1) << 8, even23 = hw_even_bytes(w2) | hw_even_bytes(w3) << 8;
    const uint32_t odd01 = hw_odd_bytes(w0) | hw_odd_bytes(w1) << 8, odd23 = hw_odd_bytes(w2) | hw_odd_bytes(w3) << 8;
    to[0] = hw_join_low(even01, even23), to[1] = hw_join_low(odd01, odd23);
    to[2] = hw_join_high(even01, even23), to[3] = hw_join_high(odd01, odd23);
}

/* The larger of each pair of bytes. */
HW_INLINE uint32_t hw_larger_of_bytes(uint32_t a, uint32_t b)
{
    uint32_t larger;
    __asm__("usub8 %0, %1, %2\n\tsel %0, %1, %2" : "=&r"(larger) : "r"(a), "r"(b) : "cc");
    return larger;
}

/* sum + the four bytes of a word. */
HW_INLINE uint32_t hw_add_bytes(uint32_t sum, uint32_t word)
{
    __asm__("usada8 %0, %1, %2, %0" : "+r"(sum) : "r"(word), "r"(0));
    return sum;
}

/* What turns an accumulator into a code: high half of (accumulator << left) * multiplier, plus `offset`, shifted right. The
 * offset holds the rounding term and the zero point: both stay below 2^28 since shifts are at most 51. */
typedef struct hw_quick_scale {
    int32_t bias, multiplier, offset, shift, left;
} hw_quick_scale;

HW_INLINE hw_quick_scale hw_make_quick_scale(const hw_op *op, uint32_t channel)
{
    const hw_scale scale = hw_make_scale(op->multiplier[channel], op->shift[channel]);
    return (hw_quick_scale){op->bias[channel], scale.multiplier, scale.half + op->output_zero * ((int32_t)1 << scale.shift), scale.shift, scale.left};
}

/* Whether every channel may use a quick scale: not logits, nor accumulators that might overflow when shifted left, which
 * scales of trained networks do not ask for. A sum of products is at most `largest`; catalogue.py refuses 2^30 and more. */
HW_APART int hw_is_quick(const hw_op *op, int32_t largest)
{
    if (op->multiplier == 0)
        return 0;
    for (uint32_t c = 0; c < op->out_c; c++) {
        const int32_t limit = hw_make_scale(op->multiplier[c], op->shift[c]).limit, bias = op->bias[c] < 0 ? -op->bias[c] : op->bias[c];
        if (bias < 0 || bias > limit || largest > limit - bias)
            return 0;
    }
    return 1;
}

/* A loop whose windows are stretches of steps (hw_strips.h): its steps per turn, their bytes of code, and places in the
 * function. Those are the loop; where fields are stored, or added to those stored, before the next stretch; and where a window
 * ends: finished from the first fields, from fields and those stored, or left as sums. */
struct stretch_loop {
    void (*run)(const void *call);
    uint32_t unroll, step_bytes, loop, store, add, finish, finish_added, raw;
};

HW_INLINE uint32_t hw_address(const void *place) { return (uint32_t)(uintptr_t)place; }

#endif
#endif
