"""3x3 convolutions as products of polynomials; c/cortex_m/hw_polynomials.h explains."""

from collections.abc import Iterator

from hwsearch.kernels.loops.listing import SCALE, SUMS, Listing, call_struct, enter, field, leave

POLY_CALL = ("first", "segment_step", "segments", "pairs", "weights", "end", "skipped", "totals")
POLY_CHANNEL = 22 * 4
"""Bytes of code of one channel."""
POLY_ROWS = 10
"""Words of one channel of one segment: input rows under 8 output rows."""
POLYNOMIALS = {
    "s15_k2": (15, 2, 4, False),
    "s15_k2_turns": (15, 2, 8, True),
    "s14_k2": (14, 2, 8, False),
    "s13_k3_turns": (13, 3, 8, True),
    "s10_k4": (10, 4, 12, False),
    "s10_k4_turns": (10, 4, 8, True),
}
"""Bits of a field, pixels in a word, channels in the code, and whether it takes more of them in several turns."""


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
    width, pixels, channels, turns = POLYNOMIALS[name]
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
    if turns:
        out(f"ldr.w r12, [sp, #{at['end']}]", f"add.w r1, r1, #{24 * channels}", f"add.w r0, r0, #{4 * POLY_ROWS * channels}")
        out("cmp.w r1, r12", "bne.w 3b")
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
    count = f"{channels} channels a turn" if turns else f"up to {channels} channels"
    comment = f"Two filters times {pixels} pixels at a time, fields of {width} bits, {count}."
    return out.function(f"hw_poly_{name}", comment)


BEGIN_CALL = ("totals", "centres", "other_centres", "count", "bias0", "bias1")


def poly_begin() -> str:
    """Totals of two rows and filters: bias - centre; two positions at a time, then one."""
    out = Listing()
    out("push.w {r4-r11, lr}", *(f"ldr.w r{i}, [r0, #{4 * i}]" for i in (1, 2, 3, 4, 5, 0)))
    out("ands.w r12, r3, #1", "add.w r3, r1, r3, lsl #2", "bne.w 2f")
    out.label(1)
    for half in range(2):
        if half:
            out.label(2)
        out("ldr.w r12, [r1], #4", "ldr.w lr, [r2], #4", "sub.w r6, r4, r12", "sub.w r7, r5, r12", "sub.w r8, r4, lr")
        out("sub.w r9, r5, lr", "stm.w r0!, {r6-r9}")
    out("cmp.w r1, r3", "bne.w 1b", "pop.w {r4-r11, pc}")
    return out.function("hw_poly_begin", "Totals of one pair of rows before anything is multiplied.")


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
    channels = ", ".join(f"POLY_UNROLL_{name.upper()} = {unroll}" for name, (_, _, unroll, _) in POLYNOMIALS.items())
    yield f"enum {{ POLY_ROWS = {POLY_ROWS}, POLY_CHANNEL_BYTES = {POLY_CHANNEL} }};"
    yield f"enum {{ {channels} }};\n"
    yield call_struct("poly_call", POLY_CALL)
    for name in POLYNOMIALS:
        yield polynomial(name)
    yield call_struct("poly_begin_call", BEGIN_CALL)
    yield poly_begin()
    yield call_struct("poly_finish_call", FINISH_CALL)
    yield poly_finish()
