"""Sums of two tensors on the Cortex-M0+, four codes at a time."""

from collections.abc import Iterator

from hwsearch.kernels.loops.listing import Listing, call_struct
from hwsearch.kernels.loops.thumb1 import HIGH, enter, leave

CALL = ("first", "second", "output", "multiplier0", "multiplier1", "shift", "constant", "zero", "max", "end")
AT_ONCE = 4


def add() -> str:
    """Codes at r0 and r1, their multipliers r4 and r5, shift r6, output r7; constant, zero point, largest code and end."""
    out = Listing()
    out(".syntax unified")
    enter(out, 0)
    out(*(line for i in range(4) for line in (f"ldr r1, [r0, #{24 + 4 * i}]", f"mov {HIGH[i]}, r1")))
    out("ldm r0!, {r1, r2, r3, r4, r5, r6}", "mov r7, r3", "mov r0, r1", "mov r1, r2")
    out.label(1)
    for i in range(AT_ONCE):
        out(f"ldrb r2, [r0, #{i}]", f"ldrb r3, [r1, #{i}]", "muls r2, r4", "muls r3, r5", "adds r2, r2, r3", f"add r2, {HIGH[0]}")
        out("asrs r2, r6", f"add r2, {HIGH[1]}", f"cmp r2, {HIGH[2]}", f"bhi {20 + i}f", f"{10 + i}:", f"strb r2, [r7, #{i}]")
    out(*(f"adds r{i}, #{AT_ONCE}" for i in (0, 1, 7)), f"cmp r7, {HIGH[3]}", "bne 1b")
    leave(out, 0)
    for i in range(AT_ONCE):
        out.note("below 0 or above the largest")
        out(f"{20 + i}:", "asrs r2, r2, #31", f"mov r3, {HIGH[2]}", "bics r3, r2", "mov r2, r3", f"b {10 + i}b")
    return out.function("hw_add_fours", "Fours of codes.")


def add_m0_header() -> Iterator[str]:
    yield call_struct("add_call", CALL)
    yield add()
