"""4 pixels x 4 or 6 filters by UMLAL: products of packed words, whose fields are emptied before they overflow."""

from collections.abc import Iterator

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
    next_stretch,
    stretch_loop,
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
    if filters == 2:
        out(*(f"str.w r{4 + p}, [r{p}, #0]" for p in range(4)))
    else:
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
    names = (*UMLAL_CALL, "ends", "stretch")
    at = {entry: 4 * i for i, entry in enumerate(names)}
    totals = 4 * len(names)
    codes = totals + 4 * 8 * filters
    words = codes // 4 + 8
    out = Listing()
    enter(out, len(UMLAL_CALL), words)
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
    empty_fields(out, layout, totals, add=False)
    enter_stretch(out, at)
    add = out.size
    empty_fields(out, layout, totals, add=True)
    enter_stretch(out, at)
    done = out.size
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
    return out.function(name, comment) + stretch_loop(name, UMLAL_UNROLL, UMLAL_STEP, (loop, store, add, done))


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
