"""Depthwise 3x3 convolutions on the Cortex-M0+: one, two or four pixels to a word, times one weight of their channel."""

from collections.abc import Iterator

from hwsearch.kernels.loops.listing import Listing, call_struct
from hwsearch.kernels.loops.thumb1 import HIGH, enter, leave

CALL = ("codes", "row_step", "totals_bytes", "rows", "half_ranges", "next_column", "totals", "weights")
COPIED = 5
IN_REGISTERS = 5
"""Weights in high registers; the others are on the stack."""


def load_column(out: Listing) -> None:
    """Three rows of one column of words."""
    out("ldm r0!, {r1, r2, r3}", "add r0, lr")


def add_products(out: Listing, to: str, column: int, at: dict[str, int], first: bool = False) -> None:
    """Three rows of a column times three weights."""
    for row in range(3):
        weight, fresh = 3 * row + column, first and row == 0
        register = to if fresh else "r7"
        if weight < IN_REGISTERS:
            out(f"mov {register}, {HIGH[weight]}")
        else:
            out(f"ldr {register}, [sp, #{at[f'w{weight}']}]")
        out(f"muls {register}, r{1 + row}")
        if not fresh:
            out(f"adds {to}, {to}, r7")


def store(out: Listing, total: str, packed: bool, at: dict[str, int]) -> None:
    """Write a total; packed ones get half their range added to every field, so that none is negative."""
    if packed:
        out(f"ldr r7, [sp, #{at['half_ranges']}]", f"adds {total}, {total}, r7")
    out(f"stm r6!, {{{total}}}")


def depthwise(stride: int, packed: bool) -> str:
    """Rows of totals of one channel: r4 and r5 are those whose columns have not all been seen, r6 where the next one goes."""
    names = (*CALL[:COPIED], "end", *(f"w{i}" for i in range(IN_REGISTERS, 9)))
    at = {name: 4 * i for i, name in enumerate(names)}
    out = Listing()
    out(".syntax unified")
    enter(out, len(names))
    out("ldm r0!, {r1, r2, r3, r4, r5}", "mov r7, sp", "stm r7!, {r1, r2, r3, r4, r5}", "ldm r0!, {r1, r6, r7}", "mov lr, r1")
    out("ldm r7!, {r0, r1, r2, r3, r4}", *(f"mov {HIGH[i]}, r{i}" for i in range(IN_REGISTERS)), "ldm r7!, {r0, r1, r2, r3}")
    out(*(f"str r{i}, [sp, #{at[f'w{IN_REGISTERS + i}']}]" for i in range(9 - IN_REGISTERS)))
    out.label(1)
    out.note("a row: its codes, where its totals end")
    out(f"ldr r0, [sp, #{at['codes']}]", f"ldr r1, [sp, #{at['row_step']}]", "adds r1, r1, r0", f"str r1, [sp, #{at['codes']}]")
    out(f"ldr r5, [sp, #{at['totals_bytes']}]", "adds r7, r6, r5", f"str r7, [sp, #{at['end']}]")
    if stride == 1:
        sliding_columns(out, packed, at)
    else:
        separate_columns(out, packed, at)
    out(f"ldr r7, [sp, #{at['rows']}]", "subs r7, #1", f"str r7, [sp, #{at['rows']}]", "beq 6f", "b 1b", "6:")
    leave(out, len(names))
    form = "packed words" if packed else "words of one pixel"
    return out.function(f"hw_depthwise_stride{stride}_{'packed' if packed else 'single'}", f"Stride {stride}, {form}.")


def sliding_columns(out: Listing, packed: bool, at: dict[str, int]) -> None:
    """Every column belongs to three totals. Two at a time; an odd count enters at the second."""
    load_column(out)
    add_products(out, "r4", 0, at, first=True)
    load_column(out)
    add_products(out, "r4", 1, at)
    out("lsls r7, r5, #29", "bmi 4f")
    add_products(out, "r5", 0, at, first=True)
    out("b 2f", "4:")
    add_products(out, "r5", 0, at, first=True)
    out("mov r7, r4", "mov r4, r5", "mov r5, r7", "b 3f")
    out.label(2)
    for first, second in (("r4", "r5"), ("r5", "r4")):
        if first == "r5":
            out("3:")
        load_column(out)
        add_products(out, first, 2, at)
        store(out, first, packed, at)
        add_products(out, second, 1, at)
        add_products(out, first, 0, at, first=True)
    out(f"ldr r7, [sp, #{at['end']}]", "cmp r6, r7", "bne 2b")


def separate_columns(out: Listing, packed: bool, at: dict[str, int]) -> None:
    """Every second column belongs to two totals, the others to one."""
    load_column(out)
    add_products(out, "r4", 0, at, first=True)
    out.label(2)
    load_column(out)
    add_products(out, "r4", 1, at)
    load_column(out)
    add_products(out, "r4", 2, at)
    store(out, "r4", packed, at)
    add_products(out, "r4", 0, at, first=True)
    out(f"ldr r7, [sp, #{at['end']}]", "cmp r6, r7", "bne 2b")


def depthwise_m0_header() -> Iterator[str]:
    yield call_struct("depthwise_call", CALL)
    yield from (depthwise(stride, packed) for stride in (1, 2) for packed in (False, True))
