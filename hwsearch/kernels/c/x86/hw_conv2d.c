/* hw_conv2d_w?a? for x86-64: a matrix product of windows and filters; see hw_products.h.
 *
 * The weights of a panel, as many filters as fit 64 KB, are expanded once. Then, for a few output pixels at a time, the windows
 * are copied to rows of units, and multiplied by one block of filters after the other. A 1x1 convolution whose codes are used as
 * they are reads them in place. Only a window of more than UNITS units is cut, and its weights expanded for each tile anew.
 */
#include "x86/hw_products.h"

#if defined(HW_X86) && defined(HW_W)

enum { PANEL_WORDS = 16384, PIXEL_WORDS = 8192, SPAN = 512, ROW_SLACK = 64, WINDOW_BYTES = PIXEL_WORDS / SSE2_PIXELS * 2 + 16 };

/* Sizes of the work of one call. */
typedef struct cut {
    hw_form form;
    uint32_t channels, window;          /* input channels of a group; codes under a window */
    uint32_t pixels, lanes, vectors;    /* of one block */
    uint32_t units, chunk;              /* of a window; at a time */
    uint32_t width, blocks;             /* filters of a block; blocks of a panel */
    int in_place;
} cut;

HW_INLINE cut make_cut(const hw_op *op, uint32_t bits, uint32_t activation_bits)
{
    cut c = {.form = hw_make_form(bits, activation_bits), .channels = op->in_c / op->groups};
    const uint32_t filters = op->out_c / op->groups;
    const int level = c.form.level, is_pixel = op->kernel_h * op->kernel_w == 1 && op->pad_h + op->pad_w == 0;
    c.window = (uint32_t)op->kernel_h * op->kernel_w * c.channels;
    c.pixels = level == HW_VNNI ? VNNI_PIXELS : level == HW_AVX2 ? AVX2_PIXELS : SSE2_PIXELS;
    c.lanes = level == HW_VNNI ? VNNI_LANES : level == HW_AVX2 ? AVX2_LANES : SSE2_LANES;
    c.units = (c.window + c.form.codes - 1) / c.form.codes;
    c.chunk = c.units < PIXEL_WORDS / c.pixels ? c.units : PIXEL_WORDS / c.pixels;
    c.vectors = filters > c.lanes && 2 * c.lanes * c.chunk <= PANEL_WORDS ? 2 : 1;
    c.width = c.vectors * c.lanes;
    c.blocks = c.chunk < c.units ? 1 : PANEL_WORDS / (c.width * c.chunk);
    if (c.blocks > HW_CHANNELS / c.width)
        c.blocks = HW_CHANNELS / c.width;
    c.in_place = is_pixel && c.form.codes == 4 && c.channels % 4 == 0 && c.chunk == c.units;
    return c;
}

/* Units `start` .. `start + units - 1` of four rows of weights, to every `width`th word quadruple. */
HW_APART void expand_four(const hw_op *op, const cut *c, const uint8_t *const rows[4], uint32_t start, uint32_t units, uint32_t *words)
{
    const uint32_t row_bytes = hw_row_bytes(c->window, op->stored_bits), span = SPAN / c->form.codes;
    for (uint32_t first = 0; first < units; first += span) {
        const uint32_t count = units - first < span ? units - first : span, codes = c->form.codes;
        uint8_t values[SPAN];
        uint32_t four[4][SPAN / 2];
        for (uint32_t i = 0; i < 4; i++) {
            uint8_t *bytes = codes == 4 ? (uint8_t *)four[i] : values;
            hw_row_values(op, &c->form, rows[i], row_bytes, (start + first) * codes, count * codes, bytes);
            if (codes == 2)
                hw_widen(values, (count * codes + 15u) & ~15u, (uint16_t *)four[i]);
        }
        for (uint32_t u = 0; u < count; u += 4) {
            __m128i r[4];
            for (uint32_t i = 0; i < 4; i++)
                r[i] = _mm_loadu_si128((const __m128i *)(const void *)(four[i] + u));
            const __m128i a = _mm_unpacklo_epi32(r[0], r[1]), b = _mm_unpacklo_epi32(r[2], r[3]);
            const __m128i d = _mm_unpackhi_epi32(r[0], r[1]), e = _mm_unpackhi_epi32(r[2], r[3]);
            const __m128i columns[4] = {_mm_unpacklo_epi64(a, b), _mm_unpackhi_epi64(a, b), _mm_unpacklo_epi64(d, e),
                                        _mm_unpackhi_epi64(d, e)};
            for (uint32_t i = 0; i < 4 && u + i < count; i++, words += c->width)
                _mm_store_si128((__m128i *)(void *)words, columns[i]);
        }
    }
}

/* The panel of filters from `o` on; those beyond the last repeat it, and nobody stores the result. */
HW_APART void fill_panel(const hw_op *op, const cut *c, uint32_t o, uint32_t end, uint32_t start, uint32_t units, uint32_t *panel)
{
    const uint32_t row_bytes = hw_row_bytes(c->window, op->stored_bits);
    for (uint32_t block = 0; block < c->blocks && o < end; block++, panel += units * c->width)
        for (uint32_t f = 0; f < c->width; f += 4, o += 4) {
            const uint8_t *rows[4];
            for (uint32_t i = 0; i < 4; i++)
                rows[i] = op->weights + (o + i < end ? o + i : end - 1) * row_bytes;
            expand_four(op, c, rows, start, units, panel + f);
        }
}

/* Copies of a window's codes from `first` on; what is before is skipped. */
typedef struct cursor {
    uint8_t *codes;
    uint32_t skip, left;
} cursor;

/* At least 16 bytes may be written. */
HW_INLINE void copy_bytes(uint8_t *to, const uint8_t *from, uint32_t count)
{
    if (count >= 16) {
        uint32_t i = 0;
        for (; i + 16 <= count; i += 16)
            memcpy(to + i, from + i, 16);
        memcpy(to + count - 16, from + count - 16, 16);
    } else if (count >= 8) {
        memcpy(to, from, 8);
        memcpy(to + count - 8, from + count - 8, 8);
    } else if (count >= 4) {
        memcpy(to, from, 4);
        memcpy(to + count - 4, from + count - 4, 4);
    } else
        for (uint32_t i = 0; i < count; i++)
            to[i] = from[i];
}

/* Append `count` codes, or as many times `zero` where there are none. */
HW_INLINE void append(cursor *at, const uint8_t *codes, uint8_t zero, uint32_t count)
{
    if (at->skip >= count) {
        at->skip -= count;
        return;
    }
    const uint32_t skip = at->skip, rest = count - skip, taken = rest < at->left ? rest : at->left;
    if (codes)
        copy_bytes(at->codes, codes + skip, taken);
    else
        memset(at->codes, zero, taken);
    at->codes += taken;
    at->left -= taken;
    at->skip = 0;
}

/* Codes `first` .. `first + count - 1` of the window whose first is that of `top` and `left`, and of `channel`. */
HW_INLINE void copy_window(const hw_op *op, const cut *c, int32_t top, int32_t left, uint32_t channel, uint32_t first,
                           uint32_t count, uint8_t *codes)
{
    const uint8_t zero = op->input_zero[0];
    const int32_t from = hw_larger(left, 0), to = hw_smaller(left + op->kernel_w, op->in_w);
    const uint32_t outside_left = (uint32_t)(hw_smaller(from, left + op->kernel_w) - left);
    const uint32_t inside = to > from ? (uint32_t)(to - from) : 0, outside_right = op->kernel_w - outside_left - inside;
    cursor at = {codes, first, count};
    for (int32_t v = top; v < top + op->kernel_h && at.left; v++) {
        if (v < 0 || v >= op->in_h || inside == 0) {
            append(&at, 0, zero, op->kernel_w * c->channels);
            continue;
        }
        const uint8_t *row = op->input[0] + ((uint32_t)v * op->in_w + (uint32_t)from) * op->in_c + channel;
        append(&at, 0, zero, outside_left * c->channels);
        if (op->groups == 1)
            append(&at, row, zero, inside * c->channels);
        else
            for (uint32_t u = 0; u < inside; u++)
                append(&at, row + u * op->in_c, zero, c->channels);
        append(&at, 0, zero, outside_right * c->channels);
    }
}

/* A tile's pixels as rows of units, from unit `start` of their windows on, and `centre` times the sums of their codes. Those
 * beyond the last repeat it. */
HW_APART void pack_pixels(const hw_op *op, const cut *c, uint32_t pixel, uint32_t count, uint32_t channel, uint32_t start,
                          uint32_t units, uint8_t *rows, hw_products *m, int32_t *extra)
{
    const uint32_t first = start * c->form.codes, rest = c->window - first, most = units * c->form.codes;
    const uint32_t codes = rest < most ? rest : most;
    const int32_t end = op->out_w * op->stride_w - op->pad_w;
    int32_t top = (int32_t)(pixel / op->out_w * op->stride_h) - op->pad_h;
    int32_t left = (int32_t)(pixel % op->out_w * op->stride_w) - op->pad_w;
    uint8_t window[WINDOW_BYTES];
    for (uint32_t p = 0; p < c->pixels; p++, rows += c->chunk * 4 + ROW_SLACK) {
        if (p >= count) {
            m->pixels[p] = m->pixels[count - 1];
            continue;
        }
        uint8_t *const copy = c->form.codes == 4 ? rows : window;
        if (!c->in_place) {
            copy_window(op, c, top, left, channel, first, codes, copy);
            memset(copy + codes, 0, 16);
        }
        if (c->form.codes == 2)
            hw_widen(window, (codes + 15u) & ~15u, (uint16_t *)(void *)rows);
        const uint8_t *const place = op->input[0] + ((uint32_t)top * op->in_w + (uint32_t)left) * op->in_c + channel;
        m->pixels[p] = c->in_place ? place : rows;
        extra[p] = (start ? extra[p] : 0) + c->form.centre * hw_sum_codes(c->in_place ? place : copy, codes);
        left += op->stride_w;
        if (left == end)
            left = -op->pad_w, top += op->stride_h;
    }
}

/* Room for what one call works on. */
typedef struct room {
    uint32_t panel[PANEL_WORDS] __attribute__((aligned(64)));
    int32_t sums[VNNI_PIXELS * 2 * VNNI_LANES] __attribute__((aligned(64)));
    uint8_t rows[PIXEL_WORDS * 4 + VNNI_PIXELS * ROW_SLACK] __attribute__((aligned(64)));
    int32_t extra[VNNI_PIXELS];
    hw_channels channels;
} room;

/* One tile of pixels times the filters `o` .. `end - 1` of a panel. */
HW_INLINE void convolve_tile(const hw_op *op, const cut *c, room *r, uint32_t pixel, uint32_t channel, uint32_t o, uint32_t end)
{
    const uint32_t pixels = (uint32_t)op->out_h * op->out_w - pixel, count = pixels < c->pixels ? pixels : c->pixels;
    hw_products m = {.weights = r->panel, .sums = r->sums, .limit = c->form.limit};
    for (uint32_t first = o; o < end; o += c->width) {
        for (uint32_t start = 0; start < c->units; start += c->chunk) {
            m.units = c->units - start < c->chunk ? c->units - start : c->chunk;
            m.more = start > 0;
            if (o == first)
                pack_pixels(op, c, pixel, count, channel, start, m.units, r->rows, &m, r->extra);
            if (c->chunk < c->units)
                fill_panel(op, c, o, end, start, m.units, r->panel);
            hw_multiply(&c->form, &m, c->vectors);
        }
        const hw_block block = {
            .sums = r->sums, .extra = r->extra, .width = c->width, .pixels = count, .first = o - first, .doubled = 1,
            .count = end - o < c->width ? end - o : c->width, .index = pixel * op->out_c + o,
        };
        hw_finish_block(op, c->form.level, &r->channels, &block);
        m.weights += c->chunk * c->width;
    }
}

HW_INLINE void conv2d(const hw_op *op, uint32_t bits, uint32_t activation_bits)
{
    room r;
    const cut c = make_cut(op, bits, activation_bits);
    const uint32_t outputs = op->out_c / op->groups, pixels = (uint32_t)op->out_h * op->out_w, panel = c.blocks * c.width;
    for (uint32_t group = 0; group < op->groups; group++)
        for (uint32_t o = group * outputs, end = o + outputs; o < end; o += panel) {
            const uint32_t next = end - o < panel ? end : o + panel;
            hw_fill_channels(op, o, next - o, &r.channels);
            if (c.chunk == c.units)
                fill_panel(op, &c, o, next, 0, c.units, r.panel);
            for (uint32_t pixel = 0; pixel < pixels; pixel += c.pixels)
                convolve_tile(op, &c, &r, pixel, group * c.channels, o, next);
        }
}

void HW_OF_WIDTHS(hw_conv2d)(const hw_op *op);
void HW_OF_WIDTHS(hw_conv2d)(const hw_op *op) { conv2d(op, HW_W, HW_A); }

#endif
