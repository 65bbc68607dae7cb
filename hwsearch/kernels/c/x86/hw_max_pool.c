/* hw_max_pool for x86-64: 16 channels at a time, which SSE2 can do; positions outside the input do not take part. */
#include "x86/hw_x86.h"

#ifdef HW_X86

void hw_max_pool(const hw_op *op);

/* Channels of one output pixel from a window of `rows` x `columns` codes inside the input. */
HW_INLINE void max_pixel(const uint8_t *window, uint32_t rows, uint32_t columns, uint32_t row_codes, uint32_t channels,
                         uint8_t *output)
{
    uint32_t c = 0;
    for (; c + 16 <= channels; c += 16) {
        __m128i largest = _mm_setzero_si128();
        for (uint32_t v = 0; v < rows; v++)
            for (uint32_t u = 0; u < columns; u++) {
                const uint8_t *codes = window + v * row_codes + u * channels + c;
                largest = _mm_max_epu8(largest, _mm_loadu_si128((const __m128i *)(const void *)codes));
            }
        _mm_storeu_si128((__m128i *)(void *)(output + c), largest);
    }
    for (; c < channels; c++) {
        uint8_t largest = 0;
        for (uint32_t v = 0; v < rows; v++)
            for (uint32_t u = 0; u < columns; u++) {
                const uint8_t code = window[v * row_codes + u * channels + c];
                largest = code > largest ? code : largest;
            }
        output[c] = largest;
    }
}

void hw_max_pool(const hw_op *op)
{
    const uint32_t channels = op->in_c, row_codes = op->in_w * channels;
    uint8_t *output = op->output;
    for (int32_t y = 0; y < op->out_h; y++)
        for (int32_t x = 0; x < op->out_w; x++, output += channels) {
            const int32_t top = y * op->stride_h - op->pad_h, left = x * op->stride_w - op->pad_w;
            const int32_t v = hw_larger(top, 0), rows = hw_smaller(top + op->kernel_h, op->in_h) - v;
            const int32_t u = hw_larger(left, 0), columns = hw_smaller(left + op->kernel_w, op->in_w) - u;
            const uint8_t *window = op->input[0] + (uint32_t)v * row_codes + (uint32_t)u * channels;
            max_pixel(window, (uint32_t)rows, (uint32_t)columns, row_codes, channels, output);
        }
}

#endif
