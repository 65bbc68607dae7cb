"""4 pixels x 4 or 6 filters by UMLAL: products of packed words, whose fields are emptied before they overflow."""

from collections.abc import Iterator
from dataclasses import dataclass

from hwsearch.kernels.loops.listing import (
    SCALE,
    STRETCH_CALL,
    SUMS,
    Listing,
    call_struct,
    enter,
    enter_stretch,
    field,
    first_stretch,
    leave,
    loop_record,
    next_stretch,
)

UMLAL_CALL = (
    *STRETCH_CALL, "count", "pixel_step", "centres", "out0", "out1", "out2", "out3", "out_step", "max",
    "scales", "filters", "raw",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Where things lie on the stack: the call, totals[filter][pixel], centres[pixel], scales[filter], codes[pixel][8]."""

    at: dict[str, int]
    totals: int
    centres: int
    scales: int
    codes: int

    @property
    def words(self) -> int:
        return self.codes // 4 + 8

    @classmethod
    def of(cls, filters: int) -> "Frame":
        names = (*UMLAL_CALL, "ends", "stretch")
        totals = 4 * len(names)
        centres = totals + 4 * 8 * filters
        scales = centres + 4 * 4
        return cls(
            at={name: 4 * i for i, name in enumerate(names)}, totals=totals, centres=centres, scales=scales,
            codes=scales + SCALE * 2 * filters,
        )  # fmt: skip


def copy_scales(out: Listing, frame: Frame, filters: int) -> None:
    out(f"ldr.w r0, [sp, #{frame.at['scales']}]", f"add.w r1, sp, #{frame.scales}")
    left = SCALE // 4 * 2 * filters
    while left:
        listed = "{r4-r" + str(3 + min(left, 8)) + "}"
        out(f"ldm.w r0!, {listed}", f"stm.w r1!, {listed}")
        left -= min(left, 8)


def finish_pixels(out: Listing, frame: Frame, layout: tuple[int, int, int, int], added: bool) -> None:
    """All fields of four sums, and what was emptied before if `added`, to codes, and those to the output."""
    filters, at = layout[0], frame.at
    out(f"ldr.w lr, [sp, #{at['centres']}]", "ldm.w lr!, {r0-r3}", f"str.w lr, [sp, #{at['centres']}]")
    out(*(f"str.w r{p}, [sp, #{frame.centres + 4 * p}]" for p in range(4)))
    for half in range(2):
        sums = SUMS[4 * half : 4 * half + 4]
        free = SUMS[:4] if half and filters == 2 else ("r0", "r1", "r2", "r3")
        last = (half + 1) * filters - 1
        for f in range(half * filters, last - 1):
            scale_group(out, frame, layout, {f: free}, sums, added)
        scale_group(out, frame, layout, {last - 1: free, last: sums}, sums, added)
        if filters == 2 and half == 0:
            out(*(f"orr.w r{p}, r{p}, {sums[p]}, lsl #8" for p in range(4)))
    if filters == 2:
        out(*(f"orr.w r{p}, r{p}, {SUMS[p]}, lsl #16" for p in range(4)))
        out(*(f"orr.w r{p}, r{p}, {SUMS[4 + p]}, lsl #24" for p in range(4)))
        out(*(f"ldr.w r{4 + p}, [sp, #{at[f'out{p}']}]" for p in range(4)))
        out(f"ldr.w r8, [sp, #{at['max']}]", f"ldr.w r9, [sp, #{at['out_step']}]")
        for p in range(4):
            out(f"usub8 lr, r{p}, r8", f"sel r{p}, r8, r{p}")
        out(*(f"str.w r{p}, [r{4 + p}, #0]" for p in range(4)), *(f"add.w r{4 + p}, r{4 + p}, r9" for p in range(4)))
        out(*(f"str.w r{4 + p}, [sp, #{at[f'out{p}']}]" for p in range(4)))
    else:
        store_codes(out, frame)
    out.note("the next pixel of each lane")
    out(
        f"ldr.w r0, [sp, #{at['pixels']}]", f"ldr.w r1, [sp, #{at['pixel_step']}]", f"ldr.w r2, [sp, #{at['count']}]",
        "add.w r0, r0, r1", "subs.w r2, r2, #1", f"str.w r0, [sp, #{at['pixels']}]", f"str.w r2, [sp, #{at['count']}]",
        "bne.w 1b", "b.w 8f",
    )  # fmt: skip


Quad = tuple[str, ...]


def scale_group(
    out: Listing, frame: Frame, layout: tuple[int, int, int, int], group: dict[int, Quad], sums: Quad, added: bool
) -> None:
    """Codes of filters of one word, four pixels each in their registers; the word's last filter may take those of the sums."""
    filters, width, pixel_shift, filter_shift = layout
    for f, registers in group.items():
        for p, register in enumerate(registers):
            field(out, register, sums[p // 2 * 2], sums[p // 2 * 2 + 1], f % filters * filter_shift + p % 2 * pixel_shift, width)
    for first in (0, 2):
        for f, registers in group.items():
            if added:
                slot = frame.totals + 16 * f + 4 * first
                out(f"ldr.w r12, [sp, #{slot}]", f"ldr.w lr, [sp, #{slot + 4}]")
                out(
                    f"add.w {registers[first]}, {registers[first]}, r12",
                    f"add.w {registers[first + 1]}, {registers[first + 1]}, lr",
                )
        out(f"ldr.w r12, [sp, #{frame.centres + 4 * first}]", f"ldr.w lr, [sp, #{frame.centres + 4 * first + 4}]")
        for registers in group.values():
            for register, centre in zip(registers[first : first + 2], ("r12", "lr"), strict=True):
                out(f"rsb.w {register}, {centre}, {register}, lsl #1")
    for f, registers in group.items():
        bias, multiplier, offset, shift, left = (frame.scales + SCALE * f + 4 * i for i in range(5))
        out(f"ldr.w r12, [sp, #{left}]", f"ldr.w lr, [sp, #{bias}]")
        out(*(f"mla {register}, {register}, r12, lr" for register in registers))
        out(f"ldr.w r12, [sp, #{multiplier}]", f"ldr.w lr, [sp, #{offset}]")
        out(*(f"smmla {register}, {register}, r12, lr" for register in registers))
        out(f"ldr.w r12, [sp, #{shift}]", *(f"asr.w {register}, {register}, r12" for register in registers))
        out(*(f"usat {register}, #8, {register}" for register in registers))
        if filters == 3:
            out(*(f"strb.w {register}, [sp, #{frame.codes + 8 * p + f}]" for p, register in enumerate(registers)))


def store_codes(out: Listing, frame: Frame) -> None:
    """Codes of up to six filters from the stack to the output, pixel by pixel."""
    at = frame.at
    out(*(f"ldr.w r{p}, [sp, #{at[f'out{p}']}]" for p in range(4)), f"ldr.w r12, [sp, #{at['max']}]")
    out(*(f"ldr.w r{4 + 2 * p + i}, [sp, #{frame.codes + 8 * p + 4 * i}]" for p in range(4) for i in range(2)))
    for register in range(4, 12):
        out(f"usub8 lr, r{register}, r12", f"sel r{register}, r12, r{register}")
    out(f"ldr.w r12, [sp, #{at['out_step']}]")
    store_halves(out, at)
    out(*(f"add.w r{p}, r{p}, r12" for p in range(4)), *(f"str.w r{p}, [sp, #{at[f'out{p}']}]" for p in range(4)))


def store_halves(out: Listing, at: dict[str, int]) -> None:
    """Codes of 2, 4 or 6 filters: r4 and r5 hold those of the pixel at r0, and so on."""
    out(f"ldr.w lr, [sp, #{at['filters']}]")
    out(*(f"strh.w r{4 + 2 * p}, [r{p}, #0]" for p in range(4)), "cmp.w lr, #4", "blt.w 9f")
    for p in range(4):
        out(f"lsr.w r{4 + 2 * p}, r{4 + 2 * p}, #16", f"strh.w r{4 + 2 * p}, [r{p}, #2]")
    out("beq.w 9f", *(f"strh.w r{5 + 2 * p}, [r{p}, #4]" for p in range(4)))
    out.label(9)


def umlal(name: str, layout: tuple[int, int, int, int], comment: str) -> str:
    """4 pixels x 2F filters; sums r4:r5 of A0 W0, r6:r7 of A1 W0, r8:r9 of A0 W1, r10:r11 of A1 W1."""
    filters = layout[0]
    frame = Frame.of(filters)
    at = frame.at
    out = Listing()
    enter(out, len(UMLAL_CALL), frame.words)
    copy_scales(out, frame, filters)
    out.label(1)
    out.note("a pixel of each lane")
    first_stretch(out, at, *(f"mov.w {register}, #0" for register in SUMS))
    loop = out.size
    out.label(3)
    for i in range(UMLAL_UNROLL):
        umlal_step(out, i)
    next_stretch(out, at)
    out.note("fields are stored, or added")
    store = out.size
    empty_fields(out, layout, frame.totals, add=False)
    enter_stretch(out, at)
    add = out.size
    empty_fields(out, layout, frame.totals, add=True)
    enter_stretch(out, at)
    out.note("all is complete: these are the first fields, or they are added")
    finish = out.size
    finish_pixels(out, frame, layout, added=False)
    finish_added = out.size
    finish_pixels(out, frame, layout, added=True)
    out.note("all is complete, but finished elsewhere")
    raw = out.size
    out(f"ldr.w lr, [sp, #{at['raw']}]")
    for i in range(8 * filters):
        out(f"ldr.w r2, [sp, #{frame.totals + 4 * i}]", f"str.w r2, [lr, #{4 * i}]")
    out.label(8)
    leave(out, frame.words)
    places = (loop, store, add, finish, finish_added, raw)
    return out.function(name, comment) + loop_record("stretch_loop", name, UMLAL_UNROLL, UMLAL_STEP, *places)


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
    yield call_struct("umlal_call", UMLAL_CALL)
    for name, layout in LAYOUTS.items():
        _, width, pixel_shift, filter_shift = layout
        where = f"fields of {width} bits, pixels {pixel_shift} and filters {filter_shift} bits apart"
        yield umlal(name, layout, f"Pixels of four lanes times {2 * layout[0]} filters: {where}.")
