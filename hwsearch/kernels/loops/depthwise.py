"""Depthwise 3x3 convolutions: streams of packed pixels of one channel, four pixels to a word, or two.

An output row needs three input rows. They are streams here, three pointers that walk in step, and rows follow each other
without a break. Four channels are interleaved in a stream, so that words of one channel lie 16 bytes apart (32 where a word
of even pixels and one of odd pixels alternate, for stride 2).

Narrow: a word of pixels times a word of taps in reverse order is a piece of a convolution, summed over three rows by SMLAL in
fields as wide as a pixel's. The low word holds finished fields, on top of an offset that keeps them positive. The high word
holds what belongs to the fields of the next word, and is carried over by adding it to the offset.

Wide: SMLAD on two neighbouring pixels.
"""

from collections.abc import Iterator

from hwsearch.kernels.loops.listing import Listing, call_struct
from hwsearch.kernels.loops.transposing import transposing

CHANNELS = 4
UNROLL, FINISH_UNROLL = 4, 2
"""Words of a stream, and words of codes, that a turn of a loop takes; streams end with as many words that nobody needs."""
CALL = ("first", "second", "third", "count", "weights", "offset", "sums")
FINISH_CALL = ("sums", "sums_step", "output", "count", "scale")
NARROW_SCALE = ("bias", "multiplier", "offset", "shift", "max")
WIDE_SCALE = ("bias", "multiplier", "offset", "shift", "left", "max")
POINTERS = ("r0", "r1", "r2")


def begin(out: Listing, weights: tuple[str, ...], offset: str | None, sums: str | None, count: str | None) -> None:
    """Registers from the call in r0; a count without a register goes to the stack."""
    out("push.w {r4-r11, lr}", "sub.w sp, sp, #4", f"ldr.w lr, [r0, #{4 * CALL.index('weights')}]")
    out(*(f"ldr.w {register}, [lr, #{4 * i}]" for i, register in enumerate(weights)))
    if offset:
        out(f"ldr.w {offset}, [r0, #{4 * CALL.index('offset')}]")
    if sums:
        out(f"ldr.w {sums}, [r0, #{4 * CALL.index('sums')}]")
    out(f"ldr.w {count or 'lr'}, [r0, #{4 * CALL.index('count')}]", *([] if count else ["str.w lr, [sp, #0]"]))
    out("ldr.w r2, [r0, #8]", "ldr.w r1, [r0, #4]", "ldr.w r0, [r0, #0]")


def end(out: Listing, step: int, count: str | None, scratch: str) -> None:
    """To the next turn: pointers move on by `step` bytes a word."""
    if not count:
        out(f"ldr.w {scratch}, [sp, #0]")
    out(*(f"add.w {pointer}, {pointer}, #{step * UNROLL}" for pointer in POINTERS))
    out(f"subs.w {count or scratch}, {count or scratch}, #{UNROLL}")
    if not count:
        out(f"str.w {scratch}, [sp, #0]")
    out("bgt.w 1b", "add.w sp, sp, #4", "pop.w {r4-r11, pc}")


def quarters() -> str:
    """Four pixels in a word, stride 1: three taps of a row at once."""
    out = Listing()
    begin(out, ("r4", "r5", "r6"), "r7", None, "r3")
    out("mov.w r9, #0")
    out.label(1)
    for i in range(UNROLL):
        out(*(f"ldr.w {to}, [{pointer}, #{16 * i}]" for to, pointer in zip(("r10", "r11", "r12"), POINTERS, strict=True)))
        out("add.w r8, r7, r9", "mov.w r9, #0")
        out("smlal r8, r9, r10, r4", "smlal r8, r9, r11, r5", "smlal r8, r9, r12, r6", f"str.w r8, [r0, #{16 * i}]")
    end(out, 16, "r3", "r10")
    return out.function("hw_depthwise_quarters", "Sums of four pixels in the bytes of each word, in place of the first stream.")


def halves() -> str:
    """Two pixels in a word, stride 1: two taps of a row by SMLAL, the third only touches the fields that are carried."""
    out = Listing()
    begin(out, ("r4", "r7", "r5", "r8", "r6", "r9"), "r10", None, "r3")
    out("mov.w r12, #0")
    out.label(1)
    for i in range(UNROLL):
        out(f"ldr.w lr, [r0, #{16 * i}]", "add.w r11, r10, r12", "mul r12, lr, r7", "smlal r11, r12, lr, r4")
        out(f"ldr.w lr, [r1, #{16 * i}]", "mla r12, lr, r8, r12", "smlal r11, r12, lr, r5")
        out(f"ldr.w lr, [r2, #{16 * i}]", "mla r12, lr, r9, r12", "smlal r11, r12, lr, r6", f"str.w r11, [r0, #{16 * i}]")
    end(out, 16, "r3", "lr")
    return out.function("hw_depthwise_halves", "Sums of two pixels in the halves of each word, in place of the first stream.")


def every_other(name: str, comment: str) -> str:
    """Stride 2, both widths: the outer taps of a row on a word of even pixels, the middle one on a word of odd pixels."""
    out = Listing()
    begin(out, ("r4", "r7", "r5", "r8", "r6", "r9"), "r10", None, "r3")
    out("mov.w r12, #0")
    out.label(1)
    for i in range(UNROLL):
        out(f"ldr.w lr, [r0, #{32 * i}]", "add.w r11, r10, r12", "mov.w r12, #0", "smlal r11, r12, lr, r4")
        taps = (("r0", 16, "r7"), ("r1", 0, "r5"), ("r1", 16, "r8"), ("r2", 0, "r6"), ("r2", 16, "r9"))
        for pointer, part, weight in taps:
            out(f"ldr.w lr, [{pointer}, #{32 * i + part}]", f"smlal r11, r12, lr, {weight}")
        out(f"str.w r11, [r0, #{32 * i}]")
    end(out, 32, "r3", "lr")
    return out.function(name, comment)


def wide(stride: int) -> str:
    """Two pixels in a word, as 16-bit numbers: two output pixels from two neighbouring words, or one with stride 2.

    r4 + 2i: the taps w0 w1 of row i, r5 + 2i: w1 w2.
    """
    out = Listing()
    begin(out, tuple(f"r{4 + i}" for i in range(6)), None, "r3", None)
    out.label(1)
    for i in range(UNROLL):
        for row, pointer in enumerate(POINTERS):
            w01, w12 = f"r{4 + 2 * row}", f"r{5 + 2 * row}"
            out(f"ldr.w r10, [{pointer}, #{16 * i}]", f"ldr.w r11, [{pointer}, #{16 * i + 16}]")
            out(f"smuad r12, r10, {w01}" if row == 0 else f"smlad r12, r10, {w01}, r12")
            if stride == 1:
                out(f"smultb lr, r10, {w01}" if row == 0 else f"smlatb lr, r10, {w01}, lr")
            out(f"smlabt r12, r11, {w12}, r12")
            if stride == 1:
                out(f"smlad lr, r11, {w12}, lr")
        out(*([f"str.w r12, [r3, #{8 * i}]", f"str.w lr, [r3, #{8 * i + 4}]"] if stride == 1 else [f"str.w r12, [r3, #{4 * i}]"]))
    out(f"add.w r3, r3, #{(8 if stride == 1 else 4) * UNROLL}")
    end(out, 16, None, "r10")
    return out.function(f"hw_depthwise_wide{stride}", f"Sums of pixels, a word each, with stride {stride}.")


def finish(name: str, comment: str, scale: tuple[str, ...], steps: tuple[str, ...], odd: str) -> str:
    """Four sums to a word of codes, 16 bytes apart. r0 to r3: sums, step, output, count; the scale from r4 on.

    `steps` load sums and leave those of pixels 0 and 2 in the halves of r10, scaled, and those of 1 and 3 in `odd`.
    """
    out = Listing()
    out("push.w {r4-r11, lr}", f"ldr.w r12, [r0, #{4 * FINISH_CALL.index('scale')}]")
    out(*(f"ldr.w r{4 + i}, [r12, #{4 * i}]" for i in range(min(len(scale), 5))))
    if len(scale) > 5:
        out("ldr.w lr, [r12, #20]")
    out(*(f"ldr.w r{i}, [r0, #{4 * i}]" for i in (1, 2, 3, 0)))
    largest = "lr" if len(scale) > 5 else "r8"
    out.label(1)
    for i in range(FINISH_UNROLL):
        out(*steps, "usat16 r10, #8, r10", f"usat16 r11, #8, {odd}", "orr.w r10, r10, r11, lsl #8")
        out(f"usub8 r11, r10, {largest}", f"sel r10, {largest}, r10", f"str.w r10, [r2, #{16 * i}]")
    out(f"add.w r2, r2, #{16 * FINISH_UNROLL}", f"subs.w r3, r3, #{FINISH_UNROLL}", "bgt.w 1b", "pop.w {r4-r11, pc}")
    return out.function(name, comment)


NARROW_CODES = (
    "smlawb r9, r5, r10, r6", "smlawt r10, r5, r10, r6", "smlawb r12, r5, r11, r6", "smlawt r11, r5, r11, r6",
    *(f"asr.w {register}, {register}, r7" for register in ("r9", "r10", "r12", "r11")),
)  # fmt: skip
"""The multiplier times sums in the halves of r10 and r11; the low 16 bits of each product are dropped."""


def finish_quarters() -> str:
    steps = ("ldr.w r9, [r0, #0]", "add.w r0, r0, r1", "uxtab16 r10, r4, r9", "uxtab16 r11, r4, r9, ror #8", *NARROW_CODES)
    pairs = ("pkhbt r10, r9, r10, lsl #16", "pkhbt r11, r12, r11, lsl #16")
    return finish("hw_depthwise_finish_quarters", "Sums in bytes to codes.", NARROW_SCALE, (*steps, *pairs), "r11")


def finish_halves() -> str:
    load = (
        "ldr.w r10, [r0, #0]",
        "ldr.w r11, [r0, r1]",
        "add.w r0, r0, r1, lsl #1",
        "sadd16 r10, r10, r4",
        "sadd16 r11, r11, r4",
    )
    pairs = ("pkhbt r11, r10, r11, lsl #16", "pkhbt r10, r9, r12, lsl #16")
    return finish("hw_depthwise_finish_halves", "Sums in halves to codes.", NARROW_SCALE, (*load, *NARROW_CODES, *pairs), "r11")


def finish_wide() -> str:
    """Sums are shifted left so that the product's high word is enough."""
    parts = ("r9", "r10", "r11", "r12")
    load = (*(f"ldr.w {part}, [r0, #{4 * i}]" for i, part in enumerate(parts)), "add.w r0, r0, #16")
    steps = ("add.w {0}, {0}, r4", "lsl.w {0}, {0}, r8", "smmla {0}, {0}, r5, r6", "asr.w {0}, {0}, r7")
    codes = (step.format(part) for step in steps for part in parts)
    pairs = ("pkhbt r12, r10, r12, lsl #16", "pkhbt r10, r9, r11, lsl #16")
    return finish("hw_depthwise_finish_wide", "Sums in words to codes.", WIDE_SCALE, (*load, *codes, *pairs), "r12")


def depthwise_header() -> Iterator[str]:
    yield "/* Depthwise 3x3 convolutions of streams of words: packed pixels of one channel, four channels interleaved. */"
    yield f"enum {{ DEPTHWISE_UNROLL = {UNROLL}, DEPTHWISE_FINISH_UNROLL = {FINISH_UNROLL} }};\n"
    yield call_struct("depthwise_call", CALL)
    yield quarters()
    yield halves()
    yield every_other(
        "hw_depthwise_every_other", "Either of these with stride 2, in place of the even words of the first stream."
    )
    yield wide(1)
    yield wide(2)
    yield call_struct("depthwise_finish_call", FINISH_CALL)
    yield call_struct("depthwise_narrow_scale", NARROW_SCALE)
    yield call_struct("depthwise_wide_scale", WIDE_SCALE)
    yield finish_quarters()
    yield finish_halves()
    yield finish_wide()
    yield from transposing()
