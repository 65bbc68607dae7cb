/* Kernels of hwsearch: one C99 function per operation and precision (weighted operations) or per operation, all with the
 * same signature.
 *
 * Tensors are unsigned codes, one byte each, in (height, width, channel) order. The arithmetic is that of
 * `hwsearch/integers/reference.py`, bit for bit; its definitions stand there and are not repeated here.
 */
#ifndef HW_KERNELS_H
#define HW_KERNELS_H

#include <stdint.h>

typedef struct hw_op {
    const uint8_t *input[2];   /* HWC codes, each 0 .. 2^a - 1; the second only for hw_add; 4-byte aligned */
    void *output;              /* uint8_t HWC codes; int32_t logits if multiplier is 0 and the kernel has weights */
    const uint8_t *weights;    /* dense stored_bits codes, first code in the lowest bits; rows padded to 4 bytes, 4-byte aligned */
    const int32_t *bias;       /* [out_c] */
    const int32_t *multiplier; /* [out_c] or [1], 2^30 .. 2^31 - 1 or, with shift 51, less; [2] below 2^21 (hw_add); 0 for logits */
    const int32_t *shift;      /* [out_c] or [1]; 1 .. 51 (hw_add: 1 .. 30) */
    uint8_t *scratch;          /* as many bytes as the catalogue says, 4-byte aligned; 0 if none */
    uint16_t in_h, in_w, in_c;
    uint16_t out_h, out_w, out_c;
    uint16_t groups;
    uint8_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
    uint8_t stored_bits;       /* 1, 2, 3, 4 or 8; the kernel uses the top weight_bits of each code */
    uint8_t input_zero[2];     /* zero point of each input; also the code of padding */
    uint8_t output_zero, output_max;
} hw_op;

typedef void (*hw_kernel)(const hw_op *op);

#endif
