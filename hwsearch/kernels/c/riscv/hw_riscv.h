/* What the bodies for RV32IM share: taking dense weight codes apart four at a time, and from accumulators to codes.
 *
 * The core has one multiplication per instruction, of 32 x 32 bits to the low or to the high word, nothing that accumulates, and
 * 31 registers. A sum of products therefore costs two instructions per multiplication, and low bits pay by what one
 * multiplication holds: n codes against n weights in reverse order, as polynomials in X = 2^(32 / n), leave the sum of their n
 * products in the topmost field,
 *
 *     (q0 + q1 X) (w1 + w0 X) = q0 w1 + (q0 w0 + q1 w1) X + (beyond 32 bits),
 *
 * which is right as long as no field below has overflowed: codes are unsigned, so fields never borrow, and the field just below
 * holds one product less.
 */
#ifndef HW_RISCV_H
#define HW_RISCV_H

#include "portable/hw_portable.h"

/* Codes per multiplication: 4 or 2 if the sum of as many largest products fits a field, else 1. */
#define HW_LARGEST(W, A) (((1u << (W)) - 1u) * ((1u << (A)) - 1u))
#define HW_LANES(W, A) (4u * HW_LARGEST(W, A) < 256u ? 4u : 2u * HW_LARGEST(W, A) < 65536u ? 2u : 1u)
/* Products of words that a field sums before it overflows. */
#define HW_LIMIT(W, A) \
    (HW_LANES(W, A) == 4 ? 255u / (4u * HW_LARGEST(W, A)) : HW_LANES(W, A) == 2 ? 65535u / (2u * HW_LARGEST(W, A)) : 65536u)

/* sum += a * b, or if `top` the uppermost byte of the product. In assembly, because compilers move all multiplications of a block
 * before all additions and run out of registers. */
HW_INLINE void hw_multiply_add_32(uint32_t *sum, uint32_t a, uint32_t b, int top)
{
    uint32_t product;
    if (top)
        __asm__ volatile("mul %1, %2, %3\n\tsrli %1, %1, 24\n\tadd %0, %0, %1" : "+r"(*sum), "=&r"(product) : "r"(a), "r"(b));
    else
        __asm__ volatile("mul %1, %2, %3\n\tadd %0, %0, %1" : "+r"(*sum), "=&r"(product) : "r"(a), "r"(b));
}

#if defined(__clang__) || __GNUC__ >= 8
#define HW_UNROLLED_4 _Pragma("GCC unroll 4")
#define HW_UNROLLED_16 _Pragma("GCC unroll 16")
#else
#define HW_UNROLLED_4
#define HW_UNROLLED_16
#endif

/* What was loaded must be in its register here: the next instruction but one may use it without waiting. */
#define HW_LOADED(VALUE) __asm__ volatile("" : "+r"(VALUE))

/* Codes 4 `quad` .. 4 `quad` + 3 of a row as they are stored, the first in the lowest bits; 3-bit codes may lie in two bytes, the
 * second of which the row lacks where it has no code. */
HW_INLINE uint32_t hw_stored_codes(const uint8_t *row, uint32_t row_bytes, uint32_t quad, uint32_t stored)
{
    if (stored == 8)
        return hw_load(row + 4 * quad);
    if (stored == 4)
        return hw_load_half(row + 2 * quad);
    if (stored == 2)
        return row[quad];
    if (stored == 1)
        return (uint32_t)row[quad / 2] >> 4 * (quad & 1) & 15u;
    const uint32_t first = 3 * quad / 2, second = first + 1 < row_bytes ? row[first + 1] : 0;
    return (row[first] | second << 8) >> 4 * (quad & 1) & 0xFFFu;
}

/* Of four codes, those with even and those with odd numbers, the later one in the lower half; cut to their top `bits` bits. */
typedef struct hw_pairs {
    uint32_t even, odd;
} hw_pairs;

HW_INLINE hw_pairs hw_reversed(uint32_t four, uint32_t stored, uint32_t bits)
{
    const uint32_t both = four << 16 | four >> 2 * stored, mask = ((1u << bits) - 1u) * 0x10001u;
    return (hw_pairs){both >> (stored - bits) & mask, both >> (2 * stored - bits) & mask};
}

/* What one output channel's accumulators become codes with: hw_portable.h's scale with the zero point in the rounding term. Of a
 * shifted accumulator the product's high word is below 2^30 and that term below 2^28. */
typedef struct hw_channel {
    int32_t bias, multiplier, addend, shift, left;
    int saturates; /* an accumulator may exceed the limit of its scale */
} hw_channel;

HW_INLINE hw_channel hw_make_channel(const hw_op *op, uint32_t reach, uint32_t o)
{
    hw_channel c = {.bias = op->bias[o]};
    if (op->multiplier) {
        const hw_scale scale = hw_make_scale(op->multiplier[o], op->shift[o]);
        c.multiplier = scale.multiplier, c.shift = scale.shift, c.left = scale.left;
        c.addend = scale.half + (op->output_zero << scale.shift);
        c.saturates = reach + hw_magnitude(c.bias) > (uint32_t)scale.limit;
    }
    return c;
}

HW_INLINE int32_t hw_raise(int32_t accumulator, const hw_channel *c) { return (int32_t)((uint32_t)accumulator << c->left); }

/* The code of an accumulator that was shifted left. Few reach beyond the largest code. */
HW_INLINE uint8_t hw_channel_code(const hw_channel *c, int32_t shifted, int32_t max)
{
    int32_t code = ((int32_t)((int64_t)shifted * c->multiplier >> 32) + c->addend) >> c->shift;
    code &= ~(code >> 31);
    if (__builtin_expect(code > max, 0))
        code = max;
    return (uint8_t)code;
}

#endif
