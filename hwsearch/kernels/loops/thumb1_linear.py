"""Linear operations on the Cortex-M0+: two rows of dense codes times one vector of arranged inputs."""

from collections.abc import Iterator

from hwsearch.kernels.loops.listing import Listing, call_struct
from hwsearch.kernels.loops.thumb1 import enter, leave

CALL = ("first", "second", "inputs", "end", "mask", "dropped_bits", "sum0", "sum1")
STORED = (1, 2, 4, 8)


def dot(stored_bits: int, lanes: int) -> str:
    """Words of two rows: codes at r0 and r1, cut by lr bits, times words of `lanes` inputs at r2; sums in r10 and r11."""
    out = Listing()
    out(".syntax unified")
    enter(out, 0)
    out("push {r0}", "ldm r0!, {r1, r2, r3, r4, r5, r6}", "mov r12, r4", "mov lr, r6", "mov r7, r5", "movs r4, #0")
    out("mov r10, r4", "mov r11, r4", "mov r0, r1", "mov r1, r2", "mov r2, r3")
    out.label(1)
    out("ldm r0!, {r3}", "ldm r1!, {r4}")
    (single_products if lanes == 1 else packed_products)(out, stored_bits, lanes)
    out("cmp r0, r12", "beq 2f", "b 1b", "2:", "pop {r0}", "mov r1, r10", "mov r2, r11", "str r1, [r0, #24]", "str r2, [r0, #28]")
    leave(out, 0)
    form = "one product at a time" if lanes == 1 else f"{lanes} products at a time"
    return out.function(f"hw_dot_{stored_bits}x{lanes}", f"Codes stored at {stored_bits} bits, {form}.")


def single_products(out: Listing, _stored_bits: int, _lanes: int) -> None:
    """Four codes of 8 bits of each row times four inputs."""
    out("ldm r2!, {r5}")
    for i in range(4):
        take = "uxtb" if i < 3 else "mov"
        out(f"{take} r6, r5", f"{take} r7, r3", "muls r7, r6", "add r10, r7", f"{take} r7, r4", "muls r7, r6", "add r11, r7")
        if i < 3:
            out("lsrs r3, r3, #8", "lsrs r4, r4, #8", "lsrs r5, r5, #8")


def packed_products(out: Listing, stored_bits: int, lanes: int) -> None:
    """All codes of a word of each row; the sums' top fields are added to the rows' sums."""
    parts = 32 // stored_bits // lanes
    out("mov r6, lr", "lsrs r3, r6", "lsrs r4, r6")
    for i in range(parts):
        out("ldm r2!, {r5}")
        for weights, total in (("r3", "r8"), ("r4", "r9")):
            out(f"lsrs r6, {weights}, #{i * stored_bits}" if i else f"mov r6, {weights}", "ands r6, r7", "muls r6, r5")
            out(f"add {total}, r6" if i else f"mov {total}, r6")
    for total, row in (("r8", "r10"), ("r9", "r11")):
        out(f"mov r5, {total}", f"lsrs r5, r5, #{32 - 32 // lanes}", f"add {row}, r5")


def linear_m0_header() -> Iterator[str]:
    yield call_struct("dot_call", CALL)
    yield dot(8, 1)
    yield from (dot(stored, lanes) for lanes in (2, 4) for stored in STORED)
