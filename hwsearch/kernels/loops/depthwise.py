"""Depthwise 3x3 convolutions: SMLAD on two neighbouring pixels of one channel."""

from collections.abc import Iterator

from hwsearch.kernels.loops.listing import SCALE, Listing, call_struct, enter, leave

ROWS = 10
"""Input rows that are packed together."""
PAIR = 16 * ROWS
"""Bytes from one pair of pixels to the next: rows of four channels."""
UNROLL = 4
CALL = ("codes", "row_step", "weights", "sums", "sums_step", "sums_bytes", "rows", "entry")
ENTRY = 16
"""Bytes of code that enter the loop at one of its steps."""
RING = ("r10", "r11", "r12", "lr")


def pairs_at(step: int) -> tuple[str, str, str, str]:
    """Registers that hold the pairs of three input rows when a step begins, and the free one; they move on with each step."""
    first = -step % 4
    a, b, c, free = (RING[(first + i) % 4] for i in range(4))
    return a, b, c, free


def step_code(out: Listing, step: int, stride: int) -> None:
    """Sums of the next two output pixels (stride 1), or of one (stride 2): r2, r3. Weights w0 w1 and w1 w2 of row i are in
    r4 + 2i and r5 + 2i."""
    *pairs, free = pairs_at(step)
    for row, pair in enumerate(pairs):
        w01, w12 = f"r{4 + 2 * row}", f"r{5 + 2 * row}"
        out(f"ldr.w {free}, [r0, #{PAIR * (step + 1) + 16 * row}]")
        out(f"smuad r2, {pair}, {w01}" if row == 0 else f"smlad r2, {pair}, {w01}, r2")
        if stride == 1:
            out(f"smultb r3, {pair}, {w01}" if row == 0 else f"smlatb r3, {pair}, {w01}, r3")
        out(f"smlabt r2, {free}, {w12}, r2")
        if stride == 1:
            out(f"smlad r3, {free}, {w12}, r3")
        free = pair
    if stride == 1:
        out(f"str.w r2, [r1, #{8 * step}]", f"str.w r3, [r1, #{8 * step + 4}]")
    else:
        out(f"str.w r2, [r1, #{4 * step}]")


def depthwise(stride: int) -> str:
    """Sums of one channel, output row by output row."""
    names = (*CALL, "end")
    at = {entry: 4 * i for i, entry in enumerate(names)}
    out = Listing()
    enter(out, len(CALL), len(names))
    out(f"ldr.w r0, [sp, #{at['weights']}]", *(f"ldr.w r{4 + i}, [r0, #{4 * i}]" for i in range(6)))
    out(
        f"ldr.w r0, [sp, #{at['entry']}]",
        "adr.w r1, 2f",
        "add.w r0, r0, r1",
        "orr.w r0, r0, #1",
        f"str.w r0, [sp, #{at['entry']}]",
    )
    out.label(1)
    out.note("an output row: its input, where its sums lie and end; enter the loop")
    out(f"ldr.w r0, [sp, #{at['codes']}]", f"ldr.w r1, [sp, #{at['row_step']}]", f"ldr.w r2, [sp, #{at['sums']}]")
    out(f"ldr.w r3, [sp, #{at['sums_bytes']}]", f"ldr.w r12, [sp, #{at['sums_step']}]", f"ldr.w lr, [sp, #{at['entry']}]")
    out("add.w r1, r0, r1", "add.w r3, r2, r3", "add.w r12, r2, r12", f"str.w r1, [sp, #{at['codes']}]")
    out(f"str.w r3, [sp, #{at['end']}]", f"str.w r12, [sp, #{at['sums']}]", "mov.w r1, r2", "bx lr", "nop")
    out.label(2)
    for step in range(UNROLL):
        a, b, c, _ = pairs_at(step)
        out(*(f"ldr.w {register}, [r0, #{16 * row}]" for row, register in enumerate((a, b, c))), f"b.w {10 + step}f")
    out.label(3)
    for step in range(UNROLL):
        if step:
            out(f"{10 + step}:")
            out(f"sub.w r0, r0, #{PAIR * step}", f"sub.w r1, r1, #{(8 if stride == 1 else 4) * step}", f"b.w {20 + step}f")
    out("10:", "20:")
    out.note("steps")
    for step in range(UNROLL):
        if step:
            out(f"{20 + step}:")
        step_code(out, step, stride)
    out(f"ldr.w r2, [sp, #{at['end']}]", f"add.w r0, r0, #{PAIR * UNROLL}", f"add.w r1, r1, #{(32 if stride == 1 else 16)}")
    out("cmp.w r1, r2", "bne.w 20b")
    out(f"ldr.w r3, [sp, #{at['rows']}]", "subs.w r3, r3, #1", f"str.w r3, [sp, #{at['rows']}]", "bne.w 1b")
    leave(out, len(names))
    return out.function(f"hw_depthwise_stride{stride}", f"Rows of one channel with stride {stride}.")


FINISH_CALL = ("sums", "output", "out_step", "count", "scale", "max")


def finish() -> str:
    """Sums of one channel to codes: four at a time, then one at a time."""
    out = Listing()
    out("push.w {r4-r11, lr}", "ldr.w r12, [r0, #16]")
    out(*(f"ldr.w r{4 + i}, [r12, #{4 * i}]" for i in range(SCALE // 4)), "ldr.w r9, [r0, #20]")
    out(*(f"ldr.w r{i}, [r0, #{4 * i}]" for i in (1, 2, 3, 0)), "subs.w r3, r3, #4", "blt.w 2f")

    def codes(*registers: str) -> None:
        for instruction in (
            "add.w {0}, {0}, r4", "lsl.w {0}, {0}, r8", "smmla {0}, {0}, r5, r6", "asr.w {0}, {0}, r7", "usat {0}, #8, {0}",
        ):  # fmt: skip
            out(*(instruction.format(register) for register in registers))

    out.label(1)
    out("ldr.w r10, [r0, #0]", "ldr.w r11, [r0, #4]", "ldr.w r12, [r0, #8]", "ldr.w lr, [r0, #12]")
    codes("r10", "r11", "r12", "lr")
    out("orr.w r10, r10, r11, lsl #8", "orr.w r12, r12, lr, lsl #8", "orr.w r10, r10, r12, lsl #16", "usub8 r11, r10, r9")
    out("sel r10, r9, r10", "add.w r0, r0, #16", "strb.w r10, [r1, #0]", "add.w r1, r1, r2")
    for _ in range(3):
        out("lsr.w r10, r10, #8", "strb.w r10, [r1, #0]", "add.w r1, r1, r2")
    out("subs.w r3, r3, #4", "bge.w 1b")
    out.label(2)
    out("adds.w r3, r3, #4", "beq.w 4f")
    out.label(3)
    out("ldr.w r10, [r0], #4")
    codes("r10")
    out("usub8 r11, r10, r9", "sel r10, r9, r10", "strb.w r10, [r1, #0]", "add.w r1, r1, r2", "subs.w r3, r3, #1", "bne.w 3b")
    out.label(4)
    out("pop.w {r4-r11, pc}")
    return out.function("hw_depthwise_finish", "All sums of one channel.")


def depthwise_header() -> Iterator[str]:
    yield "/* Depthwise 3x3 convolutions: [pair of pixels][10 input rows][4 channels], a pair in one word. */"
    yield f"enum {{ DEPTHWISE_ROWS = {ROWS}, DEPTHWISE_UNROLL = {UNROLL}, DEPTHWISE_ENTRY_BYTES = {ENTRY} }};\n"
    yield call_struct("depthwise_call", CALL)
    yield depthwise(1)
    yield depthwise(2)
    yield call_struct("depthwise_finish_call", FINISH_CALL)
    yield finish()
