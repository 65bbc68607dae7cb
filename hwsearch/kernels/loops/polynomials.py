"""3x3 convolutions as products of polynomials; c/cortex_m/hw_polynomials.h explains."""

from collections.abc import Iterator

from hwsearch.kernels.loops.listing import SCALE, SUMS, Listing, call_struct, enter, field, leave, loop_record

POLY_CALL = ("first", "last", "segment_step", "pairs", "weights", "end", "skipped", "totals")
POLY_CHANNEL = {1: 22 * 4, 2: 46 * 4}
"""Bytes of code of one channel, by stride."""
POLY_ROWS, POLY_STRIDED_ROWS = 10, 17
"""Input rows under 8 output rows."""
POLY_WORDS = {1: POLY_ROWS, 2: 2 * POLY_STRIDED_ROWS}
"""Words of one channel of one segment, by stride."""
POLYNOMIALS = {
    "s15_k2": (1, 15, 2, 4, False),
    "s15_k2_turns": (1, 15, 2, 8, True),
    "s14_k2": (1, 14, 2, 8, False),
    "s13_k3_turns": (1, 13, 3, 8, True),
    "s10_k4": (1, 10, 4, 12, False),
    "s10_k4_turns": (1, 10, 4, 8, True),
    "s14_k3_strided": (2, 14, 3, 4, True),
    "s10_k4_strided": (2, 10, 4, 4, True),
}
"""Stride, bits of a field, pixels in a word, channels in the code, and whether it takes more of them in several turns."""


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


def poly_strided_channel(out: Listing, i: int) -> None:
    """One channel of five input rows, each of two words, times the weights of the same columns of two filters."""
    sums = ("r4, r5", "r6, r7"), ("r8, r9", "r10, r11")
    for phase in range(2):
        pixel, weight = 4 * POLY_WORDS[2] * i + 4 * phase, 48 * i + 24 * phase
        for dy, (upper, lower) in ((1, ("r2", "r3")), (0, ("r2", "r3")), (2, ("r3", "r2"))):
            loads = [f"ldr.w {lower}, [r0, #{pixel + 8 * (dy + 2)}]"]
            if dy < 2:
                loads.insert(0, f"ldr.w {upper}, [r0, #{pixel + 8 * dy}]")
            out(*loads, f"ldr.w r12, [r1, #{weight + 8 * dy}]", f"ldr.w lr, [r1, #{weight + 8 * dy + 4}]")
            for word, (sum0, sum1) in zip((upper, lower), sums, strict=True):
                out(f"umlal {sum0}, {word}, r12", f"umlal {sum1}, {word}, lr")


def add_fields(out: Listing, width: int, count: int) -> None:
    """Add twice the lowest `count` fields of each sum to totals[position][row][filter], at r1."""
    parts = [range(count)] if count < 4 else [range(2), range(2, count)]
    for i in range(4):
        low, high = SUMS[2 * i], SUMS[2 * i + 1]
        for part in parts:
            at = dict(zip(("r2", "r3", "r12"), part, strict=False))
            out(*(f"ldr.w {register}, [r1, #{16 * k + 4 * i}]" for register, k in at.items()))
            for register, k in at.items():
                field(out, "lr", low, high, k * width, width)
                out(f"add.w {register}, {register}, lr, lsl #1")
            out(*(f"str.w {register}, [r1, #{16 * k + 4 * i}]" for register, k in at.items()))


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
    stride, width, pixels, channels, turns = POLYNOMIALS[name]
    words, pair = POLY_WORDS[stride], 8 if stride == 1 else 32
    names = (*POLY_CALL, "entry")
    at = {entry: 4 * i for i, entry in enumerate(names)}
    out = Listing()
    enter(out, len(POLY_CALL), len(names))
    out(f"ldr.w r0, [sp, #{at['skipped']}]", "adr.w r1, 2f", "add.w r0, r0, r1", "orr.w r0, r0, #1")
    out(f"str.w r0, [sp, #{at['entry']}]")
    out.label(1)
    out.note("a pair of output rows: enter at the first channel")
    out(f"ldr.w r0, [sp, #{at['first']}]", f"ldr.w r2, [sp, #{at['last']}]", f"ldr.w r1, [sp, #{at['weights']}]")
    out(*(f"mov.w {register}, #0" for register in SUMS), f"add.w r3, r0, #{pair}", f"add.w r2, r2, #{pair}")
    out(f"str.w r3, [sp, #{at['first']}]", f"str.w r2, [sp, #{at['last']}]", f"ldr.w pc, [sp, #{at['entry']}]")
    out.label(2)
    out.note("a segment")
    for i in range(channels):
        poly_channel(out, i) if stride == 1 else poly_strided_channel(out, i)
    if turns:
        out(
            f"ldr.w r12, [sp, #{at['end']}]", f"add.w r1, r1, #{24 * stride * channels}", f"add.w r0, r0, #{4 * words * channels}"
        )
        out("cmp.w r1, r12", "bne.w 2b")
    out(f"ldr.w r1, [sp, #{at['totals']}]")
    add_fields(out, width, pixels)
    drop_fields(out, width * pixels)
    out(
        f"add.w r1, r1, #{16 * pixels}", f"str.w r1, [sp, #{at['totals']}]", f"ldr.w r2, [sp, #{at['segment_step']}]",
        f"ldr.w r3, [sp, #{at['last']}]", f"ldr.w lr, [sp, #{at['entry']}]", f"ldr.w r1, [sp, #{at['weights']}]",
        "add.w r0, r0, r2", "cmp.w r0, r3", "it ne", "bxne lr",
    )  # fmt: skip
    out(f"ldr.w r1, [sp, #{at['totals']}]")
    if stride == 1:
        out.note("what reaches beyond the last segment")
        add_fields(out, width, 2)
        out("add.w r1, r1, #32", f"str.w r1, [sp, #{at['totals']}]")
    out(f"ldr.w r2, [sp, #{at['pairs']}]", "subs.w r2, r2, #1", f"str.w r2, [sp, #{at['pairs']}]", "bne.w 1b")
    leave(out, len(names))
    count = f"{channels} channels a turn" if turns else f"up to {channels} channels"
    comment = f"Two filters times {pixels} pixels at a time, fields of {width} bits, {count}."
    record = loop_record("poly_loop", f"hw_poly_{name}", channels, int(turns), POLY_CHANNEL[stride], pair)
    return out.function(f"hw_poly_{name}", comment) + record


BEGIN_CALL = ("totals", "gap", "centres", "columns", "pairs", "bias0", "bias1")


def poly_begin() -> str:
    """Totals of all pairs of rows, two filters: bias - centre; two positions at a time, then one.

    r0 totals, r1 and r2 centres of both rows, r3 end of the first row's, r4 and r5 biases.
    """
    at = {entry: 4 * i for i, entry in enumerate(BEGIN_CALL)}
    out = Listing()
    enter(out, len(BEGIN_CALL), len(BEGIN_CALL))
    out(f"ldr.w r0, [sp, #{at['totals']}]", f"ldr.w r2, [sp, #{at['centres']}]", f"ldr.w r10, [sp, #{at['columns']}]")
    out(f"ldr.w r11, [sp, #{at['pairs']}]", f"ldr.w r4, [sp, #{at['bias0']}]", f"ldr.w r5, [sp, #{at['bias1']}]")
    out.label(1)
    out.note("a pair of rows")
    out("mov.w r1, r2", "add.w r3, r1, r10", "mov.w r2, r3", "tst.w r10, #4", "bne.w 3f")
    out.label(2)
    for half in range(2):
        if half:
            out.label(3)
        out("ldr.w r12, [r1], #4", "ldr.w lr, [r2], #4", "sub.w r6, r4, r12", "sub.w r7, r5, r12", "sub.w r8, r4, lr")
        out("sub.w r9, r5, lr", "stm.w r0!, {r6-r9}")
    out("cmp.w r1, r3", "bne.w 2b", f"ldr.w r12, [sp, #{at['gap']}]", "subs.w r11, r11, #1", "add.w r0, r0, r12", "bne.w 1b")
    leave(out, len(BEGIN_CALL))
    return out.function("hw_poly_begin", "Totals before anything is multiplied.")


FINISH_CALL = ("totals", "to_other", "to_next", "bytes", "output", "row_step", "out_step", "rows", "skipped", "max", "scales")
FINISH_UNROLL = 4
FINISH_POSITION = 15 * 4
"""Bytes of code of one position."""


def poly_finish() -> str:
    """Totals [position][2 rows][2 filters] of all rows to codes, two filters to a halfword.

    r0 totals, r1 output, r2 step, r4 largest codes; r3 r6 r7 r8 and lr r9 r10 r11 scale filters 0 and 1.
    """
    names = (*FINISH_CALL, "end", "entry")
    at = {entry: 4 * i for i, entry in enumerate(names)}
    out = Listing()
    enter(out, len(FINISH_CALL), len(names))
    out(f"ldr.w r0, [sp, #{at['skipped']}]", "adr.w r1, 2f", "add.w r0, r0, r1", "orr.w r0, r0, #1")
    out(f"str.w r0, [sp, #{at['entry']}]", f"ldr.w r5, [sp, #{at['scales']}]", f"ldr.w r4, [sp, #{at['max']}]")
    scales = ("r6", "r7", "r8", "r3", "r9", "r10", "r11", "lr")
    out(*(f"ldr.w {register}, [r5, #{SCALE * (i // 4) + 4 * (i % 4 + 1)}]" for i, register in enumerate(scales)))
    out.label(1)
    out.note("a row; the other of its pair and the first of the next take turns")
    out(f"ldr.w r0, [sp, #{at['totals']}]", f"ldr.w r2, [sp, #{at['to_other']}]", f"ldr.w r12, [sp, #{at['to_next']}]")
    out(f"ldr.w r1, [sp, #{at['output']}]", f"ldr.w r5, [sp, #{at['bytes']}]", f"str.w r2, [sp, #{at['to_next']}]")
    out(f"str.w r12, [sp, #{at['to_other']}]", "add.w r2, r0, r2", "add.w r5, r0, r5", f"str.w r2, [sp, #{at['totals']}]")
    out(f"str.w r5, [sp, #{at['end']}]", f"ldr.w r12, [sp, #{at['row_step']}]", f"ldr.w r2, [sp, #{at['out_step']}]")
    out("add.w r12, r1, r12", f"str.w r12, [sp, #{at['output']}]", f"ldr.w pc, [sp, #{at['entry']}]")
    out.label(2)
    for _ in range(FINISH_UNROLL):
        out("ldr.w r5, [r0, #4]", "ldr.w r12, [r0], #16", "lsl.w r5, r5, lr", "lsl.w r12, r12, r3")
        out("smmla r5, r5, r9, r10", "smmla r12, r12, r6, r7", "asr.w r5, r5, r11", "asr.w r12, r12, r8")
        out("usat r5, #8, r5", "usat r12, #8, r12", "orr.w r12, r12, r5, lsl #8")
        out("usub8 r5, r12, r4", "sel r12, r4, r12", "strh.w r12, [r1, #0]", "add.w r1, r1, r2")
    out(f"ldr.w r5, [sp, #{at['end']}]", "cmp.w r0, r5", "bne.w 2b")
    out(f"ldr.w r5, [sp, #{at['rows']}]", "subs.w r5, r5, #1", f"str.w r5, [sp, #{at['rows']}]", "bne.w 1b")
    leave(out, len(names))
    return out.function("hw_poly_finish", "All output of two filters.")


def poly_header() -> Iterator[str]:
    yield "/* 3x3 convolutions as products of polynomials; hw_polynomials.h explains. */"
    yield f"enum {{ POLY_ROWS = {POLY_ROWS}, POLY_STRIDED_ROWS = {POLY_STRIDED_ROWS} }};"
    yield f"enum {{ FINISH_UNROLL = {FINISH_UNROLL}, FINISH_POSITION_BYTES = {FINISH_POSITION} }};\n"
    yield "/* A loop, the channels in its code, whether it moves along them, several turns to a segment, bytes of code of one,"
    yield " * and bytes from the input rows under one pair of output rows to those under the next. */"
    yield "struct poly_loop {\n    void (*run)(const void *call);\n    uint32_t unroll, turns, channel_bytes, pair_bytes;\n};\n"
    yield call_struct("poly_call", POLY_CALL)
    for name in POLYNOMIALS:
        yield polynomial(name)
    yield call_struct("poly_begin_call", BEGIN_CALL)
    yield poly_begin()
    yield call_struct("poly_finish_call", FINISH_CALL)
    yield poly_finish()
