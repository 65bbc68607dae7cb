"""Inner loops of the Cortex-M0+ (ARMv6-M): sixteen-bit instructions, eight registers that multiply, products of 32 bits.

A multiplication overwrites one of its factors, so a factor that is needed again is copied first. Sums live in the registers
r8 to r12 and lr, which can be added to and nothing else; loads of several words cost one cycle less per word. A step of three
filters and two words thus takes 3 + 4 cycles of loads, 2 copies, 6 products and 6 additions.
"""

from collections.abc import Iterator

from hwsearch.kernels.bodies.cortex_m0 import BLOCK_FILTERS
from hwsearch.kernels.loops.listing import Listing, call_struct

UNROLL = 8
HIGH = ("r8", "r9", "r10", "r11", "r12", "lr")
LOW_BYTES = 0x00FF00FF
COLUMN_BYTES = 48
"""Bytes of one column's totals: three filters times two words, of which packed ones take two totals of 16 or 32 bits each."""
CALL = ("pixels", "weights", "stretches", "totals", "columns", "column_bytes")
STRETCH = ("end", "pixels", "entry", "action")


def step_code(out: Listing, filters: int) -> None:
    """Two words of pixels times one word of each filter, added to the sums [filter][word]."""
    weights = ("r4", "r5", "r6")[:filters]
    out("ldm r0!, {r2, r3}", f"ldm r1!, {{{', '.join(weights)}}}")
    for i, weight in enumerate(weights[:-1]):
        out(
            f"mov r7, {weight}", "muls r7, r2", f"muls {weight}, r3", f"add {HIGH[2 * i]}, r7", f"add {HIGH[2 * i + 1]}, {weight}"
        )
    last = weights[-1]
    out(f"muls r2, {last}", f"muls r3, {last}", f"add {HIGH[2 * filters - 2]}, r2", f"add {HIGH[2 * filters - 1]}, r3")


def step_bytes(filters: int) -> int:
    out = Listing()
    step_code(out, filters)
    return 2 * len(out.lines)


def enter(out: Listing, words: int) -> None:
    out("push {r4, r5, r6, r7, lr}", "mov r4, r8", "mov r5, r9", "mov r6, r10", "mov r7, r11", "push {r4, r5, r6, r7}")
    if words:
        out(f"sub sp, #{4 * words}")


def leave(out: Listing, words: int) -> None:
    if words:
        out(f"add sp, #{4 * words}")
    out("pop {r4, r5, r6, r7}", "mov r8, r4", "mov r9, r5", "mov r10, r6", "mov r11, r7")
    out("pop {r4, r5, r6, r7, pc}")


def store_sums(out: Listing, sums: tuple[str, ...]) -> None:
    """Write the sums to totals at r7."""
    registers = ("r2", "r3", "r4", "r5", "r6")
    for part in (sums[:4], sums[4:]):
        names = registers[: len(part)]
        if part:
            out(*(f"mov {to}, {register}" for to, register in zip(names, part, strict=True)), f"stm r7!, {{{', '.join(names)}}}")


def add_fields(out: Listing, sums: tuple[str, ...], fields: int) -> None:
    """Add the two halves of each sum to two totals, or its even and odd bytes to two pairs of totals; both at r7.

    The pointers r0 and r1 wait in the first sums' registers.
    """
    for i, register in enumerate(sums):
        out(f"mov r2, {register}")
        if i < 2:
            out(f"mov {register}, r{i}")
        if fields == 2:
            out("lsrs r3, r2, #16", "uxth r2, r2")
        else:
            out("lsrs r3, r2, #8", "ands r2, r6", "ands r3, r6")
        if i % 2 == 0:
            out("mov r4, r2", "mov r5, r3")
            continue
        out("ldr r0, [r7]", "ldr r1, [r7, #4]", "adds r4, r4, r0", "adds r5, r5, r1", "stm r7!, {r4, r5}")
        out("ldr r0, [r7]", "ldr r1, [r7, #4]", "adds r2, r2, r0", "adds r3, r3, r1", "stm r7!, {r2, r3}")
    out(f"mov r0, {sums[0]}", f"mov r1, {sums[1]}")


def multiply(filters: int, fields: int) -> str:
    """Columns of one row of outputs: all products of their windows with `filters` filters."""
    names = (*CALL, "end", "stretch")
    at = {name: 4 * i for i, name in enumerate(names)}
    sums = HIGH[: 2 * filters]
    out = Listing()
    out(".syntax unified")
    enter(out, len(names))
    out("ldm r0!, {r1, r2, r3, r4, r5, r6}", "mov r7, sp", "stm r7!, {r1, r2, r3, r4, r5, r6}")
    out.label(1)
    out.note("a column: no sums yet")
    out("movs r2, #0", *(f"mov {register}, r2" for register in sums))
    if fields > 1:
        out(f"ldr r7, [sp, #{at['totals']}]", "movs r3, #0", "movs r4, #0", "movs r5, #0")
        out(*("stm r7!, {r2, r3, r4, r5}" for _ in range(filters)))
    out(f"ldr r0, [sp, #{at['pixels']}]", f"ldr r1, [sp, #{at['weights']}]", f"ldr r2, [sp, #{at['stretches']}]")
    out(f"str r2, [sp, #{at['stretch']}]")
    out.label(2)
    out.note("a stretch: where its weights end; enter the loop at one of its steps")
    out(f"ldr r7, [sp, #{at['stretch']}]", "ldm r7!, {r2, r3, r4}", f"str r7, [sp, #{at['stretch']}]")
    out(f"str r2, [sp, #{at['end']}]", "adds r0, r0, r3", "adr r6, 3f", "adds r6, r6, r4", "adds r6, #1", "bx r6")
    out.label(3)
    for _ in range(UNROLL):
        out.note("step")
        step_code(out, filters)
    out(f"ldr r7, [sp, #{at['end']}]", "cmp r1, r7", "beq 4f", "b 3b")
    out("4:")
    out(f"ldr r7, [sp, #{at['stretch']}]", "ldm r7!, {r6}", f"str r7, [sp, #{at['stretch']}]", "cmp r6, #0", "bne 5f", "b 2b")
    out("5:")
    out.note("take the sums; the next column if it was the last stretch")
    out(f"ldr r7, [sp, #{at['totals']}]")
    if fields == 4:
        out("ldr r6, 7f")
    if fields == 1:
        store_sums(out, sums)
    else:
        add_fields(out, sums, fields)
    return finish_multiply(out, filters, fields, at)


def finish_multiply(out: Listing, filters: int, fields: int, at: dict[str, int]) -> str:
    if fields > 1:
        sums = HIGH[: 2 * filters]
        out(f"ldr r7, [sp, #{at['stretch']}]", "subs r7, #4", "ldr r6, [r7]", "cmp r6, #2", "beq 6f")
        out("movs r2, #0", *(f"mov {register}, r2" for register in sums), "b 2b", "6:")
    out(f"ldr r7, [sp, #{at['totals']}]", f"adds r7, #{COLUMN_BYTES}", f"str r7, [sp, #{at['totals']}]")
    out(f"ldr r2, [sp, #{at['pixels']}]", f"ldr r3, [sp, #{at['column_bytes']}]", "adds r2, r2, r3")
    out(f"str r2, [sp, #{at['pixels']}]", f"ldr r3, [sp, #{at['columns']}]", "subs r3, #1", f"str r3, [sp, #{at['columns']}]")
    out("beq 8f", "b 1b", "8:")
    leave(out, len(at))
    if fields == 4:
        out(".p2align 2", "7:", f".word {LOW_BYTES:#010x}")
    comment = f"{filters} filter{'s' * (filters > 1)} times two words of {fields} pixel{'s' * (fields > 1)}."
    return out.function(f"hw_multiply_{filters}x{fields}", comment)


FINISH_CALL = (
    "totals", "centres", "output", "shift", "bias", "low", "high", "offset", "output_step", "max", "end",
)  # fmt: skip
FINISH_PLAIN_CALL = ("totals", "end", "output", "shift", "bias", "low", "high", "offset", "output_step", "max")


def code_of(out: Listing, narrow: bool) -> None:
    """From an accumulator without its bias in r2 to a code in r3, not yet clamped; r7 is the shift.

    Wide: four products of halves give the high word of accumulator * multiplier. Narrow accumulators, of 16 bits, take two and
    give the product without its lowest 16 bits.
    """
    out("add r2, r8")
    if narrow:
        out("mov r3, r9", "muls r3, r2", "asrs r3, r3, #16", "mov r4, r10", "muls r2, r4", "adds r3, r3, r2")
    else:
        out.note("high half r3 and low half r2 of the accumulator")
        out("asrs r3, r2, #16", "uxth r2, r2", "mov r4, r9", "muls r4, r2", "lsrs r4, r4, #16", "mov r5, r9", "muls r5, r3")
        out("adds r4, r4, r5", "mov r5, r10", "muls r3, r5", "muls r2, r5", "asrs r5, r4, #16", "uxth r4, r4")
        out("adds r3, r3, r5", "adds r4, r4, r2", "lsrs r4, r4, #16", "adds r3, r3, r4")
    out("add r3, r11", "asrs r3, r7")


def load_scale(out: Listing, max_at: int) -> None:
    """Bias, halves of the multiplier and offset to the first high registers; shift, output and its step."""
    out("ldr r1, [r0, #32]", "mov lr, r1", f"ldr r1, [r0, #{max_at}]")
    out(*(line for i, to in enumerate(HIGH[:4]) for line in (f"ldr r2, [r0, #{16 + 4 * i}]", f"mov {to}, r2")))
    out("ldr r7, [r0, #12]", "ldr r6, [r0, #8]")


def clamp(out: Listing) -> None:
    """Below 0 or above the largest code, which is r12."""
    out("3:", "asrs r3, r3, #31", "mov r4, r12", "bics r4, r3", "mov r3, r4", "b 2b")


def finish(totals: str, narrow: bool) -> str:
    """Codes of one channel and lane, from one total of every column and as many centres.

    An accumulator is bias + 2 * total - centre.
    """
    out = Listing()
    out(".syntax unified")
    enter(out, 1)
    load_scale(out, 36)
    out("mov r12, r1", "ldr r5, [r0, #40]", "str r5, [sp, #0]", "ldr r1, [r0, #4]", "ldr r0, [r0, #0]")
    out.label(1)
    out("ldr r2, [r0]" if totals == "word" else "ldrh r2, [r0]", f"adds r0, #{COLUMN_BYTES}", "ldm r1!, {r3}")
    out("adds r2, r2, r2", "subs r2, r2, r3")
    code_of(out, narrow)
    out("cmp r3, r12", "bhi 3f", "2:")
    out("strb r3, [r6]", "add r6, lr", *([] if narrow else ["ldr r5, [sp, #0]"]), "cmp r1, r5", "bne 1b")
    leave(out, 1)
    clamp(out)
    return out.function(f"hw_finish_{totals}s_{way_of(narrow)}", f"Codes from {totals}s and centres, {way_of(narrow)}.")


def finish_plain(totals: str, narrow: bool) -> str:
    """Codes of one channel and lane, from the totals in words up to `end`, or from halves or bytes of words.

    An accumulator is bias + total.
    """
    out = Listing()
    out(".syntax unified")
    enter(out, 0)
    load_scale(out, 36)
    out("mov r12, r1", "ldr r1, [r0, #4]", "ldr r0, [r0, #0]")
    out.label(1)
    loads = {"word": ["ldm r0!, {r2}"], "half": ["ldrh r2, [r0]", "adds r0, #4"], "byte": ["ldrb r2, [r0]", "adds r0, #4"]}
    out(*loads[totals])
    code_of(out, narrow)
    out("cmp r3, r12", "bhi 3f", "2:", "strb r3, [r6]", "add r6, lr", "cmp r0, r1", "bne 1b")
    leave(out, 0)
    clamp(out)
    return out.function(f"hw_finish_plain_{totals}s_{way_of(narrow)}", f"Codes from {totals}s, {way_of(narrow)}.")


def way_of(narrow: bool) -> str:
    return "narrow" if narrow else "wide"


EXPAND_CALL = ("words", "row0", "row1", "row2", "end", "unused_bits")


def expand(stored_bits: int) -> str:
    """Whole words of dense codes of three filters, each cut to its top 32 - `unused_bits` bits, to words [code][filter]."""
    out = Listing()
    out(".syntax unified")
    enter(out, 0)
    out("ldm r0!, {r1, r2, r3, r4, r5, r7}", "mov r0, r1", "mov r8, r2", "mov r9, r3", "mov r10, r4", "mov r12, r5")
    out.label(1)
    for i in range(3):
        out(f"mov r4, {HIGH[i]}", f"ldm r4!, {{r{i + 1}}}", f"mov {HIGH[i]}, r4")
    for bit in range(stored_bits, 33, stored_bits):
        out(*(f"lsls r{i + 4}, r{i + 1}, #{32 - bit}" if bit < 32 else f"mov r{i + 4}, r{i + 1}" for i in range(3)))
        out(*(f"lsrs r{i + 4}, r7" for i in range(3)), "stm r0!, {r4, r5, r6}")
    out("cmp r0, r12", "beq 2f", "b 1b", "2:")
    leave(out, 0)
    return out.function(f"hw_expand_{stored_bits}", f"Rows of three filters, {stored_bits} bits a code.")


def multiply_header() -> Iterator[str]:
    sizes = ", ".join(f"STEP_BYTES_{n} = {step_bytes(n)}" for n in range(1, BLOCK_FILTERS + 1))
    yield f"enum {{ STEP_UNROLL = {UNROLL}, STRETCH_WORDS = {len(STRETCH)}, {sizes} }};\n"
    yield f"enum {{ COLUMN_BYTES = {COLUMN_BYTES} }}; /* totals of a column: [filter][lane] */"
    yield call_struct("multiply_call", CALL)
    yield from (multiply(filters, fields) for fields in (1, 2, 4) for filters in (1, 2, 3))


def expand_header() -> Iterator[str]:
    yield call_struct("expand_call", EXPAND_CALL)
    yield from (expand(bits) for bits in (1, 2, 4, 8))


def finish_header() -> Iterator[str]:
    yield call_struct("finish_call", FINISH_CALL)
    yield from (finish(totals, narrow) for totals in ("word", "half") for narrow in (False, True))
    yield call_struct("finish_plain_call", FINISH_PLAIN_CALL)
    yield from (finish_plain(totals, narrow) for totals in ("word", "half", "byte") for narrow in (False, True))
