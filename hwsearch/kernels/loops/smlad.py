"""2 pixels x 4 filters by SMLAD, which multiplies two pairs of 16-bit codes."""

from collections.abc import Iterator

from hwsearch.kernels.loops.listing import (
    SCALE,
    STRETCH_CALL,
    SUMS,
    Listing,
    call_struct,
    enter,
    first_stretch,
    leave,
    loop_record,
    next_stretch,
)

SMLAD_UNROLL = 12
SMLAD_CALL = (*STRETCH_CALL, "count", "pixel_step", "left", "right", "out_step", "max", "scales", "raw")
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


def smlad() -> str:
    """8 sums of 2 pixels x 4 filters: r4 r5 of filter 0, r6 r7 of filter 1, ..."""
    names = (*SMLAD_CALL, "ends", "stretch")
    at = {name: 4 * i for i, name in enumerate(names)}
    words = len(names) + 1
    out = Listing()
    enter(out, len(SMLAD_CALL), words)
    out.label(1)
    out.note("a pixel of each lane: sums start from the biases")
    out(f"ldr.w lr, [sp, #{at['scales']}]")
    out(*(f"ldr.w {SUMS[2 * f]}, [lr, #{SCALE * f}]" for f in range(4)))
    first_stretch(out, at, *(f"mov.w {SUMS[2 * f + 1]}, {SUMS[2 * f]}" for f in range(4)))
    loop = out.size
    out.label(3)
    for i in range(SMLAD_UNROLL):
        smlad_step(out, i)
    next_stretch(out, at)
    out.note("all sums are complete")
    finish = out.size
    finish_pairs(out, at)
    out.note("the next pixel of each lane")
    out(
        f"ldr.w r0, [sp, #{at['pixels']}]", f"ldr.w r1, [sp, #{at['pixel_step']}]", f"ldr.w r2, [sp, #{at['count']}]",
        "add.w r0, r0, r1", "subs.w r2, r2, #1", f"str.w r0, [sp, #{at['pixels']}]", f"str.w r2, [sp, #{at['count']}]",
        "bne.w 1b", "b.w 5f",
    )  # fmt: skip
    raw = out.size
    out(f"ldr.w lr, [sp, #{at['raw']}]", "stm.w lr, {r4-r11}")
    out.label(5)
    leave(out, words)
    text = out.function("hw_smlad_pixels", "Pixels of two lanes times four filters; `struct smlad_call` is its argument.")
    return text + loop_record("stretch_loop", "hw_smlad_pixels", SMLAD_UNROLL, SMLAD_STEP, loop, raw, raw, finish, finish, raw)


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


def smlad_header() -> Iterator[str]:
    yield "/* 2 pixels x 4 filters by SMLAD: words of two 16-bit codes, [step][lane] and [step][filter]. */"
    yield call_struct("smlad_call", SMLAD_CALL)
    yield smlad()
