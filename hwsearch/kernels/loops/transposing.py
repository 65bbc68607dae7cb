"""Four channels of pixels to streams of words of one channel each, and back; see `depthwise.py` about the streams."""

from collections.abc import Iterator

from hwsearch.kernels.loops.listing import Listing, call_struct, enter, leave

PACK_CALL = (
    "codes", "to", "rows", "pixel_step", "row_step", "to_row_step", "to_step", "before", "width", "zeros", "left", "inner",
    "right", "behind",
)  # fmt: skip
UNPACK_CALL = ("words", "output", "x", "width", "limit", "step", "pitch", "next", "rows")
PIXELS = ("r4", "r5", "r6", "r7")


def transpose_begin(out: Listing) -> None:
    """Pixels in r4 to r7: even channels of neighbours to r10 and r12, odd ones to r4 and r6."""
    for even, first, second in (("r10", "r4", "r5"), ("r12", "r6", "r7")):
        out(
            f"uxtb16 {even}, {first}",
            f"uxtb16 r11, {second}",
            f"uxtb16 {first}, {first}, ror #8",
            f"uxtb16 {second}, {second}, ror #8",
        )
        out(f"orr.w {even}, {even}, r11, lsl #8", f"orr.w {first}, {first}, {second}, lsl #8")


FOUR = (
    ("r11", "pkhbt r11, r10, r12, lsl #16"), ("r5", "pkhbt r5, r4, r6, lsl #16"), ("r12", "pkhtb r12, r12, r10, asr #16"),
    ("r6", "pkhtb r6, r6, r4, asr #16"),
)  # fmt: skip
"""What is left to do for each channel, after `transpose_begin`."""


def store_channels(out: Listing, pixels: int) -> None:
    """Words of four channels, from four pixels, or 16-bit numbers of two."""
    if pixels == 4:
        transpose_begin(out)
    else:
        out("uxtb16 r10, r4", "uxtb16 r12, r5", "uxtb16 r4, r4, ror #8", "uxtb16 r6, r5, ror #8")
    for channel, (register, instruction) in enumerate(FOUR):
        out(instruction, f"str.w {register}, [r1, #{4 * channel}]")


def pack_edge(out: Listing, at: dict[str, int], count: str, start: str, pixels: int, label: int) -> None:
    """Words of which some pixels lie outside: r8 counts pixels from the first inside, of which there are r9."""
    out(f"ldr.w r2, [sp, #{at[count]}]", f"ldr.w r8, [sp, #{at[start]}]", f"ldr.w r9, [sp, #{at['width']}]")
    out(f"ldr.w lr, [sp, #{at['zeros']}]", "cmp.w r2, #0", f"beq.w {label + 1}f")
    out.label(label)
    for pixel in PIXELS[:pixels]:
        out(f"mov.w {pixel}, lr", "cmp.w r8, r9", "it lo", f"ldrlo.w {pixel}, [r0, #0]", "add.w r8, r8, #1", "add.w r0, r0, r3")
    out(f"ldr.w r9, [sp, #{at['to_step']}]")
    store_channels(out, pixels)
    out("add.w r1, r1, r9", f"ldr.w r9, [sp, #{at['width']}]", "subs.w r2, r2, #1", f"bne.w {label}b")
    out.label(label + 1)


def pack(name: str, pixels: int) -> str:
    """Some input rows; `before` and `behind` are negative or positive places of the first pixels of the words at either edge."""
    at = {entry: 4 * i for i, entry in enumerate(PACK_CALL)}
    words = len(PACK_CALL) + 1
    out = Listing()
    enter(out, len(PACK_CALL), words)
    out(f"ldr.w r3, [sp, #{at['pixel_step']}]")
    out.label(1)
    out.note("a row")
    out(f"ldr.w r0, [sp, #{at['codes']}]", f"ldr.w r1, [sp, #{at['to']}]")
    pack_edge(out, at, "left", "before", pixels, 2)
    out(f"ldr.w r2, [sp, #{at['inner']}]", f"ldr.w lr, [sp, #{at['to_step']}]")
    out("add.w r8, r3, r3", "add.w r9, r8, r3", "cmp.w r2, #0", "beq.w 5f")
    out.label(4)
    out("ldr.w r4, [r0, #0]", "ldr.w r5, [r0, r3]", *(["ldr.w r6, [r0, r8]", "ldr.w r7, [r0, r9]"] if pixels == 4 else []))
    out(f"add.w r0, r0, r3, lsl #{2 if pixels == 4 else 1}")
    store_channels(out, pixels)
    out("add.w r1, r1, lr", "subs.w r2, r2, #1", "bne.w 4b")
    out.label(5)
    pack_edge(out, at, "right", "behind", pixels, 6)
    out(*(f"ldr.w r{i}, [sp, #{at[entry]}]" for i, entry in enumerate(("codes", "to", "rows"))))
    out(f"ldr.w r8, [sp, #{at['row_step']}]", f"ldr.w r9, [sp, #{at['to_row_step']}]", "add.w r0, r0, r8", "add.w r1, r1, r9")
    out("subs.w r2, r2, #1", *(f"str.w r{i}, [sp, #{at[entry]}]" for i, entry in enumerate(("codes", "to", "rows"))), "bne.w 1b")
    leave(out, words)
    return out.function(name, f"Rows of four channels to words of {pixels} pixels.")


def unpack() -> str:
    """Words of four pixels back; x in r2 is the column of the next one, which has a place where it is below the width.

    Below the limit so have the three after it, and the row goes on.
    """
    at = {entry: 4 * i for i, entry in enumerate(UNPACK_CALL)}
    words = len(UNPACK_CALL)
    out = Listing()
    enter(out, len(UNPACK_CALL), words)
    fixed = {"words": "r0", "output": "r1", "x": "r2", "width": "r3", "step": "r8", "pitch": "r9", "limit": "lr"}
    out(*(f"ldr.w {register}, [sp, #{at[entry]}]" for entry, register in fixed.items()))
    out.label(1)
    out(*(f"ldr.w {register}, [r0, #{4 * i}]" for i, register in enumerate(PIXELS)))
    transpose_begin(out)
    out("add.w r0, r0, #16", "cmp.w r2, lr", "bhs.w 2f")
    for register, instruction in FOUR:
        out(instruction, f"str.w {register}, [r1, #0]", "add.w r1, r1, r8")
    out("add.w r2, r2, #4", "b.w 1b")
    out.label(2)
    out.note("pixel by pixel")
    out(*(instruction for _, instruction in FOUR), f"ldr.w r7, [sp, #{at['rows']}]")
    for pixel, (register, _) in enumerate(FOUR):
        out("cmp.w r2, r3", "it lo", f"strlo.w {register}, [r1, #0]", "add.w r1, r1, r8", "add.w r2, r2, #1", "cmp.w r2, r9")
        out(f"beq.w {10 + pixel}f", f"{20 + pixel}:")
    out("b.w 1b")
    for pixel in range(4):
        out.label(10 + pixel)
        out(
            f"ldr.w r10, [sp, #{at['next']}]",
            "mov.w r2, #0",
            "subs.w r7, r7, #1",
            f"str.w r7, [sp, #{at['rows']}]",
            "add.w r1, r1, r10",
        )
        out(f"bne.w {20 + pixel}b", "b.w 3f")
    out.label(3)
    leave(out, words)
    return out.function("hw_depthwise_unpack", "Codes of four channels to some output rows.")


def transposing() -> Iterator[str]:
    yield call_struct("depthwise_pack_call", PACK_CALL)
    yield pack("hw_depthwise_pack_quarters", 4)
    yield pack("hw_depthwise_pack_halves", 2)
    yield call_struct("depthwise_unpack_call", UNPACK_CALL)
    yield unpack()
