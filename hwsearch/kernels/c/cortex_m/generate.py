"""Writes the inner loops of the Cortex-M kernels: `python generate.py` rewrites the .h files beside it.

Each loop is one C function whose body is assembly, so that every register is under control: compilers spill accumulators
around blocks that need all fourteen. Every instruction in a loop is 32 bits wide, so that loops stay word-aligned, and every
load is of an aligned word. A loop is entered in the middle where its count is no multiple of the unrolling: an instruction
has 4 bytes, so the address of a step is known.
"""

from collections.abc import Iterator
from pathlib import Path

SUMS = ("r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11")
SMLAD_UNROLL = 12


class Listing:
    """Assembly, line by line."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, *instructions: str) -> None:
        self.lines += instructions

    def note(self, text: str) -> None:
        self.lines.append(f"@ {text}")

    def label(self, number: int) -> None:
        self.lines += [".p2align 2", f"{number}:"]

    def function(self, name: str, comment: str) -> str:
        """A C function with this body; its only argument is in r0."""
        text = "\n".join(f'        "{line}\\n"' if line[0] != "@" else f"        /*{line[1:]} */" for line in self.lines)
        head = "__attribute__((naked, noinline, aligned(32), unused)) static void"
        start = f"/* {comment} */\n{head} {name}(__attribute__((unused)) const void *call)"
        return f"{start}\n{{\n    __asm__ volatile(\n{text});\n}}\n"


def enter(out: Listing, copied: int, words: int) -> None:
    """Save registers, take `words` words of stack, and copy the call from r0 to the lowest `copied` of them."""
    out("push.w {r4-r11, lr}", f"sub.w sp, sp, #{4 * words}")
    for first in range(0, copied, 8):
        count = min(8, copied - first)
        for i in range(count):
            out(f"ldr.w {SUMS[i]}, [r0, #{4 * (first + i)}]")
        for i in range(count):
            out(f"str.w {SUMS[i]}, [sp, #{4 * (first + i)}]")


def leave(out: Listing, words: int) -> None:
    out(f"add.w sp, sp, #{4 * words}", "pop.w {r4-r11, pc}")


SMLAD_CALL = (
    "pixels", "weights", "stretches", "count", "pixel_step", "left", "right", "out_step", "max", "scales", "raw",
)  # fmt: skip
SCALE = 20
"""Bytes of a `hw_quick_scale`: bias, multiplier, offset, shift, left."""
SMLAD_STEP = 14 * 4
"""Bytes of code of one step."""


def smlad_step(out: Listing, i: int) -> None:
    """Two codes of two pixels times those of four filters."""
    last = "!" if i == SMLAD_UNROLL - 1 else ""
    out(
        f"ldr.w r2, [r0, #{8 * i + 4}]", f"ldr.w r3, [r0, #{8 * i + 8}]{last}",
        f"ldr.w r12, [r1, #{16 * i + 4}]", f"ldr.w lr, [r1, #{16 * i + 8}]",
        "smlad r4, r12, r2, r4", "smlad r5, r12, r3, r5", "smlad r6, lr, r2, r6", "smlad r7, lr, r3, r7",
        f"ldr.w r12, [r1, #{16 * i + 12}]", f"ldr.w lr, [r1, #{16 * i + 16}]{last}",
        "smlad r8, r12, r2, r8", "smlad r9, r12, r3, r9", "smlad r10, lr, r2, r10", "smlad r11, lr, r3, r11",
    )  # fmt: skip


def begin_stretch(out: Listing, at: dict[str, int], loop: int) -> None:
    """With lr at a stretch: move r0 and r1, and enter the loop at its step."""
    out(
        f"str.w r2, [sp, #{at['end']}]", "ldr.w r2, [lr, #4]", "ldr.w r3, [lr, #8]", "ldr.w r12, [lr, #12]",
        "add.w lr, lr, #20", "add.w r0, r0, r2", "add.w r1, r1, r3", f"str.w lr, [sp, #{at['stretch']}]",
        f"adr.w lr, {loop}f", "add.w lr, lr, r12", "orr.w lr, lr, #1", "bx lr", "nop",
    )  # fmt: skip


def smlad() -> str:
    """8 sums of 2 pixels x 4 filters: r4 r5 of filter 0, r6 r7 of filter 1, ..."""
    names = (*SMLAD_CALL, "end", "stretch")
    at = {name: 4 * i for i, name in enumerate(names)}
    words = len(names) + 1
    out = Listing()
    enter(out, len(SMLAD_CALL), words)
    out.label(1)
    out.note("a pixel of each lane: sums start from the biases")
    out(f"ldr.w lr, [sp, #{at['scales']}]")
    out(*(f"ldr.w {SUMS[2 * f]}, [lr, #{SCALE * f}]" for f in range(4)))
    out(f"ldr.w r0, [sp, #{at['pixels']}]", f"ldr.w r1, [sp, #{at['weights']}]", f"ldr.w lr, [sp, #{at['stretches']}]")
    out("ldr.w r2, [lr, #0]")
    out(*(f"mov.w {SUMS[2 * f + 1]}, {SUMS[2 * f]}" for f in range(4)))
    out.label(2)
    begin_stretch(out, at, 3)
    out.label(3)
    for i in range(SMLAD_UNROLL):
        smlad_step(out, i)
    out(f"ldr.w r12, [sp, #{at['end']}]", "cmp.w r1, r12", "bne.w 3b")
    out(f"ldr.w lr, [sp, #{at['stretch']}]", "ldr.w r2, [lr, #0]", "cmp.w r2, #0", "bne.w 2b")
    out.note("all sums are complete")
    out(f"ldr.w lr, [sp, #{at['raw']}]", "cmp.w lr, #0", "bne.w 4f")
    finish_pairs(out, at)
    out.note("the next pixel of each lane")
    out(
        f"ldr.w r0, [sp, #{at['pixels']}]", f"ldr.w r1, [sp, #{at['pixel_step']}]", f"ldr.w r2, [sp, #{at['count']}]",
        "add.w r0, r0, r1", "subs.w r2, r2, #1", f"str.w r0, [sp, #{at['pixels']}]", f"str.w r2, [sp, #{at['count']}]",
        "bne.w 1b", "b.w 5f",
    )  # fmt: skip
    out.label(4)
    out("stm.w lr, {r4-r11}")
    out.label(5)
    leave(out, words)
    return out.function("hw_smlad_pixels", "Pixels of two lanes times four filters; `struct smlad_call` is its argument.")


def finish_pairs(out: Listing, at: dict[str, int]) -> None:
    """Eight sums to codes of 8 bits, and those of four filters to the output as one word per pixel."""
    out(f"ldr.w lr, [sp, #{at['scales']}]")
    for f in range(4):
        pair = SUMS[2 * f : 2 * f + 2]
        out(*(f"ldr.w r{i}, [lr, #{SCALE * f + 4 * (i + 1)}]" for i in range(4)))
        for instruction in ("lsl.w {0}, {0}, r3", "smmla {0}, {0}, r0, r1", "asr.w {0}, {0}, r2", "usat {0}, #8, {0}"):
            out(*(instruction.format(part) for part in pair))
    out(f"ldr.w r0, [sp, #{at['left']}]", f"ldr.w r1, [sp, #{at['right']}]", f"ldr.w r2, [sp, #{at['out_step']}]")
    out(f"ldr.w r3, [sp, #{at['max']}]")
    for first in (0, 1):
        for f in range(1, 4):
            out(f"orr.w {SUMS[first]}, {SUMS[first]}, {SUMS[2 * f + first]}, lsl #{8 * f}")
        out(f"usub8 lr, {SUMS[first]}, r3", f"sel {SUMS[first]}, r3, {SUMS[first]}")
    out("str.w r4, [r0, #0]", "str.w r5, [r1, #0]", "add.w r0, r0, r2", "add.w r1, r1, r2")
    out(f"str.w r0, [sp, #{at['left']}]", f"str.w r1, [sp, #{at['right']}]")


def call_struct(name: str, fields: tuple[str, ...]) -> str:
    return f"struct {name} {{\n    uint32_t " + ", ".join(fields) + ";\n};\n"


UMLAL_CALL = (
    "pixels", "weights", "stretches", "count", "pixel_step", "centres", "out0", "out1", "out2", "out3", "out_step", "max",
    "scales", "raw",
)  # fmt: skip
UMLAL_UNROLL = 16
UMLAL_STEP = 8 * 4
"""Bytes of code of one step."""


def umlal_step(out: Listing, i: int) -> None:
    """One channel of two words of pixels times two words of filters."""
    last = "!" if i == UMLAL_UNROLL - 1 else ""
    out(
        f"ldr.w r2, [r0, #{8 * i + 4}]", f"ldr.w r3, [r0, #{8 * i + 8}]{last}",
        f"ldr.w r12, [r1, #{8 * i + 4}]", f"ldr.w lr, [r1, #{8 * i + 8}]{last}",
        "umlal r4, r5, r2, r12", "umlal r6, r7, r3, r12", "umlal r8, r9, r2, lr", "umlal r10, r11, r3, lr",
    )  # fmt: skip


def field(out: Listing, to: str, low: str, high: str, bit: int, width: int) -> None:
    """One field of a 64-bit sum."""
    if bit + width <= 32:
        out(f"ubfx {to}, {low}, #{bit}, #{width}")
    elif bit >= 32:
        out(f"ubfx {to}, {high}, #{bit - 32}, #{width}")
    else:
        out(f"lsr.w {to}, {low}, #{bit}", f"bfi {to}, {high}, #{32 - bit}, #{bit + width - 32}")


def empty_fields(out: Listing, layout: tuple[int, int, int, int], totals: int, add: bool) -> None:
    """Move the fields of four sums to totals[filter][pixel] on the stack, two at a time, and clear the sums."""
    filters, width, pixel_shift, filter_shift = layout
    for i in range(4):
        low, high = SUMS[2 * i], SUMS[2 * i + 1]
        for f in range(filters):
            slots = [totals + 4 * (4 * (i // 2 * filters + f) + i % 2 * 2 + p) for p in range(2)]
            if add:
                out(f"ldr.w r3, [sp, #{slots[0]}]", f"ldr.w r12, [sp, #{slots[1]}]")
            field(out, "r2", low, high, f * filter_shift, width)
            field(out, "lr", low, high, f * filter_shift + pixel_shift, width)
            if add:
                out("add.w r2, r2, r3", "add.w lr, lr, r12")
            out(f"str.w r2, [sp, #{slots[0]}]", f"str.w lr, [sp, #{slots[1]}]")
    out(*(f"mov.w {register}, #0" for register in SUMS))


def scale_totals(out: Listing, at: dict[str, int], filters: int, totals: int, codes: int) -> None:
    """Totals to codes of 8 bits on the stack, filter by filter."""
    out(f"ldr.w r0, [sp, #{at['centres']}]", *(f"ldr.w r{4 + p}, [r0, #{4 * p}]" for p in range(4)))
    out("add.w r0, r0, #16", f"str.w r0, [sp, #{at['centres']}]", f"ldr.w r0, [sp, #{at['scales']}]")
    for f in range(2 * filters):
        out(*(f"ldr.w {register}, [r0, #{SCALE * f + 4 * i}]" for i, register in enumerate(("r8", "r9", "r10", "r11"))))
        pixels = ("r1", "r2", "r3", "r12")
        out(*(f"ldr.w {register}, [sp, #{totals + 16 * f + 4 * p}]" for p, register in enumerate(pixels)))
        for p, register in enumerate(pixels):
            out(f"sub.w lr, r8, r{4 + p}", f"add.w {register}, lr, {register}, lsl #1")
        out(f"ldr.w lr, [r0, #{SCALE * f + 16}]", *(f"lsl.w {register}, {register}, lr" for register in pixels))
        for instruction in ("smmla {0}, {0}, r9, r10", "asr.w {0}, {0}, r11", "usat {0}, #8, {0}"):
            out(*(instruction.format(register) for register in pixels))
        out(*(f"strb.w {register}, [sp, #{codes + 8 * p + f}]" for p, register in enumerate(pixels)))


def store_totals(out: Listing, at: dict[str, int], filters: int, codes: int) -> None:
    """Codes from the stack to the output, pixel by pixel."""
    out(*(f"ldr.w r{p}, [sp, #{at[f'out{p}']}]" for p in range(4)), f"ldr.w r12, [sp, #{at['max']}]")
    words = 1 if filters == 2 else 2
    out(*(f"ldr.w r{4 + words * p + i}, [sp, #{codes + 8 * p + 4 * i}]" for p in range(4) for i in range(words)))
    for register in range(4, 4 + 4 * words):
        out(f"usub8 lr, r{register}, r12", f"sel r{register}, r12, r{register}")
    out(f"ldr.w r12, [sp, #{at['out_step']}]")
    for p in range(4):
        first = 4 + words * p
        if filters == 2:
            out(f"str.w r{first}, [r{p}, #0]")
        else:
            out(f"strh.w r{first}, [r{p}, #0]", f"lsr.w r{first}, r{first}, #16", f"strh.w r{first}, [r{p}, #2]")
            out(f"strh.w r{first + 1}, [r{p}, #4]")
    out(*(f"add.w r{p}, r{p}, r12" for p in range(4)), *(f"str.w r{p}, [sp, #{at[f'out{p}']}]" for p in range(4)))


def umlal(name: str, layout: tuple[int, int, int, int], comment: str) -> str:
    """4 pixels x 2F filters; sums r4:r5 of A0 W0, r6:r7 of A1 W0, r8:r9 of A0 W1, r10:r11 of A1 W1."""
    filters = layout[0]
    names = (*UMLAL_CALL, "end", "stretch")
    at = {entry: 4 * i for i, entry in enumerate(names)}
    totals = 4 * len(names)
    codes = totals + 4 * 8 * filters
    words = codes // 4 + 8
    out = Listing()
    enter(out, len(UMLAL_CALL), words)
    out.label(1)
    out.note("a pixel of each lane")
    out(f"ldr.w r0, [sp, #{at['pixels']}]", f"ldr.w r1, [sp, #{at['weights']}]", f"ldr.w lr, [sp, #{at['stretches']}]")
    out("ldr.w r2, [lr, #0]", *(f"mov.w {register}, #0" for register in SUMS))
    out.label(2)
    begin_stretch(out, at, 3)
    out.label(3)
    for i in range(UMLAL_UNROLL):
        umlal_step(out, i)
    out(f"ldr.w r12, [sp, #{at['end']}]", "cmp.w r1, r12", "bne.w 3b")
    out.note("what comes after a stretch: nothing; fields are stored; or they are added")
    out(f"ldr.w lr, [sp, #{at['stretch']}]", "ldr r3, [lr, #-4]", "cmp.w r3, #1", "beq.w 5f", "bhi.w 4f")
    out("ldr.w r2, [lr, #0]", "b.w 2b")
    out.label(4)
    empty_fields(out, layout, totals, add=True)
    out("b.w 6f")
    out.label(5)
    empty_fields(out, layout, totals, add=False)
    out.label(6)
    out(f"ldr.w lr, [sp, #{at['stretch']}]", "ldr.w r2, [lr, #0]", "cmp.w r2, #0", "bne.w 2b")
    out(f"ldr.w lr, [sp, #{at['raw']}]", "cmp.w lr, #0", "bne.w 7f")
    scale_totals(out, at, filters, totals, codes)
    store_totals(out, at, filters, codes)
    out.note("the next pixel of each lane")
    out(
        f"ldr.w r0, [sp, #{at['pixels']}]", f"ldr.w r1, [sp, #{at['pixel_step']}]", f"ldr.w r2, [sp, #{at['count']}]",
        "add.w r0, r0, r1", "subs.w r2, r2, #1", f"str.w r0, [sp, #{at['pixels']}]", f"str.w r2, [sp, #{at['count']}]",
        "bne.w 1b", "b.w 8f",
    )  # fmt: skip
    out.label(7)
    for i in range(8 * filters):
        out(f"ldr.w r2, [sp, #{totals + 4 * i}]", f"str.w r2, [lr, #{4 * i}]")
    out.label(8)
    leave(out, words)
    return out.function(name, comment)


LAYOUTS = {
    "hw_umlal_f2_s14": (2, 14, 14, 28),
    "hw_umlal_f2_s15": (2, 15, 15, 30),
    "hw_umlal_f2_s15_filters_first": (2, 15, 30, 15),
    "hw_umlal_f3_s10": (3, 10, 30, 10),
}
"""Filters in a word, bits of a field, distance of two pixels and of two filters in a product."""


def umlal_header() -> Iterator[str]:
    yield "/* 2 x 2 words by UMLAL, [step][word of pixels] and [step][word of filters]; each word of pixels holds two, each"
    yield " * word of filters two or three. Sums of products lie in fields of a 64-bit sum until they are emptied. */"
    yield f"enum {{ UMLAL_UNROLL = {UMLAL_UNROLL}, UMLAL_STEP_BYTES = {UMLAL_STEP} }};\n"
    yield call_struct("umlal_call", UMLAL_CALL)
    for name, layout in LAYOUTS.items():
        _, width, pixel_shift, filter_shift = layout
        where = f"fields of {width} bits, pixels {pixel_shift} and filters {filter_shift} bits apart"
        yield umlal(name, layout, f"Pixels of four lanes times {2 * layout[0]} filters: {where}.")


def smlad_header() -> Iterator[str]:
    yield "/* 2 pixels x 4 filters by SMLAD: words of two 16-bit codes, [step][lane] and [step][filter]. */"
    yield f"enum {{ SMLAD_UNROLL = {SMLAD_UNROLL}, SMLAD_STEP_BYTES = {SMLAD_STEP} }};\n"
    yield call_struct("smlad_call", SMLAD_CALL)
    yield smlad()


POLY_CALL = ("first", "segment_step", "segments", "pairs", "weights", "skipped", "totals")
POLY_CHANNEL = 22 * 4
"""Bytes of code of one channel."""
POLY_ROWS = 10
"""Words of one channel of one segment: input rows under 8 output rows."""
POLYNOMIALS = {"s14_k2": (14, 2, 8), "s15_k2": (15, 2, 4), "s12_k3": (12, 3, 10), "s10_k4": (10, 4, 12)}
"""Bits of a field, pixels in a word, and channels after which fields must be emptied."""


def poly_channel(out: Listing, i: int) -> None:
    """One channel of four input rows times three kernel rows of two filters, for two output rows."""
    pixel, weight = 4 * POLY_ROWS * i, 24 * i
    rows = ("r4, r5", "r6, r7"), ("r8, r9", "r10, r11")
    first, second = "r2", "r3"
    for dy in range(3):
        if dy == 0:
            out(f"ldr.w r2, [r0, #{pixel}]")
        out(f"ldr.w r12, [r1, #{weight + 8 * dy}]", f"ldr.w lr, [r1, #{weight + 8 * dy + 4}]")
        out(f"ldr.w {second}, [r0, #{pixel + 4 * dy + 4}]")
        for word, (sum0, sum1) in zip((first, second), rows, strict=True):
            out(f"umlal {sum0}, {word}, r12", f"umlal {sum1}, {word}, lr")
        first, second = second, first


def add_fields(out: Listing, width: int, count: int) -> None:
    """Add twice the lowest `count` fields of each sum to totals[position][row][filter], at r0."""
    for i in range(4):
        low, high = SUMS[2 * i], SUMS[2 * i + 1]
        registers = ("r1", "r2", "r3", "r12")[:count]
        out(*(f"ldr.w {register}, [r0, #{16 * k + 4 * i}]" for k, register in enumerate(registers)))
        for k, register in enumerate(registers):
            field(out, "lr", low, high, k * width, width)
            out(f"add.w {register}, {register}, lr, lsl #1")
        out(*(f"str.w {register}, [r0, #{16 * k + 4 * i}]" for k, register in enumerate(registers)))


def drop_fields(out: Listing, bits: int) -> None:
    """Shift each sum right: what its upper fields hold belongs to the next segment."""
    for i in range(4):
        low, high = SUMS[2 * i], SUMS[2 * i + 1]
        if bits < 32:
            out(f"lsr.w {low}, {low}, #{bits}", f"orr.w {low}, {low}, {high}, lsl #{32 - bits}", f"lsr.w {high}, {high}, #{bits}")
        else:
            out(f"lsr.w {low}, {high}, #{bits - 32}", f"mov.w {high}, #0")


def polynomial(name: str) -> str:
    """Rows of segments: sums r4:r5 of row 0 and filter 0, r6:r7 of row 0 and filter 1, r8:r9 and r10:r11 of row 1."""
    width, pixels, channels = POLYNOMIALS[name]
    names = (*POLY_CALL, "pixels", "count", "entry")
    at = {entry: 4 * i for i, entry in enumerate(names)}
    out = Listing()
    enter(out, len(POLY_CALL), len(names))
    out(f"ldr.w r0, [sp, #{at['skipped']}]", "adr.w r1, 3f", "add.w r0, r0, r1", "orr.w r0, r0, #1")
    out(f"str.w r0, [sp, #{at['entry']}]")
    out.label(1)
    out.note("a pair of output rows")
    out(f"ldr.w r0, [sp, #{at['first']}]", f"ldr.w r1, [sp, #{at['segments']}]")
    out(*(f"mov.w {register}, #0" for register in SUMS), "add.w r2, r0, #8")
    out(f"str.w r2, [sp, #{at['first']}]", f"str.w r0, [sp, #{at['pixels']}]", f"str.w r1, [sp, #{at['count']}]")
    out.label(2)
    out.note("a segment: enter at its first channel")
    out(f"ldr.w r1, [sp, #{at['weights']}]", f"ldr.w lr, [sp, #{at['entry']}]", "bx lr", "nop")
    out.label(3)
    for i in range(channels):
        poly_channel(out, i)
    out(f"ldr.w r0, [sp, #{at['totals']}]")
    add_fields(out, width, pixels)
    drop_fields(out, width * pixels)
    out(
        f"ldr.w r1, [sp, #{at['pixels']}]", f"ldr.w r2, [sp, #{at['segment_step']}]", f"ldr.w r3, [sp, #{at['count']}]",
        f"add.w r12, r0, #{16 * pixels}", f"str.w r12, [sp, #{at['totals']}]", "add.w r0, r1, r2", "subs.w r3, r3, #1",
        f"str.w r0, [sp, #{at['pixels']}]", f"str.w r3, [sp, #{at['count']}]", "bne.w 2b",
    )  # fmt: skip
    out.note("what reaches beyond the last segment")
    out("mov.w r0, r12")
    add_fields(out, width, 2)
    out(
        "add.w r0, r0, #32", f"ldr.w r1, [sp, #{at['pairs']}]", f"str.w r0, [sp, #{at['totals']}]", "subs.w r1, r1, #1",
        f"str.w r1, [sp, #{at['pairs']}]", "bne.w 1b",
    )  # fmt: skip
    leave(out, len(names))
    comment = f"Two filters times {pixels} pixels at a time, fields of {width} bits, up to {channels} channels."
    return out.function(f"hw_poly_{name}", comment)


FINISH_CALL = ("totals", "output", "out_step", "count", "max", "scales")


def poly_finish() -> str:
    """Totals [position][2 rows][2 filters] of one row to codes, two filters to a halfword.

    r0 totals, r1 output, r2 step, r4 largest codes; r3 r6 r7 r8 and lr r9 r10 r11 scale filters 0 and 1. The end of the
    totals is on the stack.
    """
    out = Listing()
    out("push.w {r4-r11, lr}", "sub.w sp, sp, #8")
    fields = ((1, "r1"), (2, "r2"), (3, "r3"), (4, "r4"), (5, "r5"), (0, "r0"))
    out(*(f"ldr.w {register}, [r0, #{4 * i}]" for i, register in fields))
    out("ands.w r12, r3, #1", "add.w r3, r0, r3, lsl #4", "str.w r3, [sp, #0]")
    scales = ("r6", "r7", "r8", "r3", "r9", "r10", "r11", "lr")
    out(*(f"ldr.w {register}, [r5, #{SCALE * (i // 4) + 4 * (i % 4 + 1)}]" for i, register in enumerate(scales)), "bne.w 2f")
    out.label(1)
    for half in range(2):
        if half:
            out.label(2)
        out("ldr.w r5, [r0, #4]", "ldr.w r12, [r0], #16", "lsl.w r5, r5, lr", "lsl.w r12, r12, r3")
        out("smmla r5, r5, r9, r10", "smmla r12, r12, r6, r7", "asr.w r5, r5, r11", "asr.w r12, r12, r8")
        out("usat r5, #8, r5", "usat r12, #8, r12", "orr.w r12, r12, r5, lsl #8")
        out("usub8 r5, r12, r4", "sel r12, r4, r12", "strh.w r12, [r1, #0]", "add.w r1, r1, r2")
    out("ldr.w r5, [sp, #0]", "cmp.w r0, r5", "bne.w 1b", "add.w sp, sp, #8", "pop.w {r4-r11, pc}")
    return out.function("hw_poly_finish", "One row of output of two filters.")


def poly_header() -> Iterator[str]:
    yield "/* 3x3 convolutions as products of polynomials; hw_polynomials.h explains. */"
    channels = ", ".join(f"POLY_CHANNELS_{name.upper()} = {limit}" for name, (_, _, limit) in POLYNOMIALS.items())
    yield f"enum {{ POLY_ROWS = {POLY_ROWS}, POLY_CHANNEL_BYTES = {POLY_CHANNEL}, {channels} }};\n"
    yield call_struct("poly_call", POLY_CALL)
    for name in POLYNOMIALS:
        yield polynomial(name)
    yield call_struct("poly_finish_call", FINISH_CALL)
    yield poly_finish()


HEAD = """/* Written by generate.py, which explains it; do not edit. */
#include "hw_cortex_m.h"

#ifdef HW_CORTEX_M
"""
FILES = {"hw_smlad_loops.h": smlad_header, "hw_umlal_loops.h": umlal_header, "hw_poly_loops.h": poly_header}


def text_of(name: str) -> str:
    return "\n".join([HEAD, *FILES[name](), "#endif\n"])


if __name__ == "__main__":
    for file_name in FILES:
        Path(__file__).with_name(file_name).write_text(text_of(file_name), encoding="utf-8", newline="\n")
