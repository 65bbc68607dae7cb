"""Matrix times vector: two filters at a time, whose weights are taken out of their dense words in place.

A step takes one word of each filter. Pairs: a shift and a mask leave two codes 16 bits apart for SMLAD. Fours: four codes stay
in the bytes, and one multiplication by four inputs in reverse order sums their products in its top byte. Bits: of 1-bit
weights, UADD8 of a word and itself shifts a bit of each byte out, where SEL finds it and passes an input or zero to USADA8.
Inputs are arranged to match.

Codes of 3 bits come 32 to three words. Two that lie 18 bits apart share a multiplication, the lower half of whose inputs is
four times as large. A code that straddles words is multiplied in two parts, each where it lies.
"""

from collections.abc import Iterator

from hwsearch.kernels.loops.listing import Listing, call_struct

CALL = ("inputs", "row", "row_bytes", "mask", "cut", "count", "entry", "sums")
STEPS = {8: 4, 4: 2, 2: 1, 1: 1}
"""Steps to a turn of a loop, by bits of a stored code."""
THREES = ((0, -3, -6, -9, -12, -15), (2, -1, -4, -7, -10, -13), (1, -2, -5, -8, -11, -14))
"""By how much each of the three words is moved to the left, or right, to bring two codes under the mask."""
FOURS = ((4, 2), (4, 1), (2, 4), (2, 1), (1, 8), (1, 4))
"""Bits of a stored code, and how many products of four codes are summed before the top byte is read."""


def load_words(out: Listing) -> None:
    """A word of each of two filters: r4, r5."""
    out("ldr.w r5, [r1, r2]", "ldr.w r4, [r1], #4")


def load_inputs(out: Listing, registers: tuple[str, ...]) -> None:
    """The next words of inputs; the last load moves on."""
    last = len(registers) - 1
    loads = [f"ldr.w {register}, [r0, #{4 * (i + 1)}]" for i, register in enumerate(registers[1:])]
    out(*loads, f"ldr.w {registers[0]}, [r0], #{4 * (last + 1)}")


def pairs_step(out: Listing, stored: int) -> None:
    load_words(out)
    count = 16 // stored
    for first in range(0, count, 4):
        inputs = ("r8", "r9", "r10", "r11")[: min(4, count - first)]
        load_inputs(out, inputs)
        for i, register in enumerate(inputs, first):
            shift = f", lsr #{i * stored}" if i else ""
            out(
                f"and.w r12, r3, r4{shift}",
                f"smlad r6, {register}, r12, r6",
                f"and.w r12, r3, r5{shift}",
                f"smlad r7, {register}, r12, r7",
            )


def threes_turn() -> Listing:
    """Three words, or as many as are left."""
    out = Listing()
    for word, shifts in enumerate(THREES):
        load_words(out)
        for first, inputs in ((0, ("r8", "r9", "r10", "r11")), (4, ("r8", "r9"))):
            load_inputs(out, inputs)
            for register, shift in zip(inputs, shifts[first:], strict=False):
                moved = f", {'lsl' if shift > 0 else 'lsr'} #{abs(shift)}" if shift else ""
                out(f"and.w r12, r3, r4{moved}", f"smlad r6, {register}, r12, r6")
                out(f"and.w r12, r3, r5{moved}", f"smlad r7, {register}, r12, r7")
        if word < len(THREES) - 1:
            out("subs.w lr, lr, #1", "beq.w 2f")
    return out


def fours_step(out: Listing, stored: int, summed: int) -> None:
    out("ldr.w r12, [sp, #0]")
    load_words(out)
    out("lsr.w r4, r4, r12", "lsr.w r5, r5, r12")
    count = 8 // stored
    for first in range(0, count, 2):
        inputs = ("r8", "r9")[: min(2, count - first)]
        load_inputs(out, inputs)
        for i, register in enumerate(inputs, first):
            shift = f", lsr #{i * stored}" if i else ""
            for word, product in (("r4", "r11"), ("r5", "r12")):
                out(f"and.w r10, r3, {word}{shift}")
                out(f"mul {product}, {register}, r10" if i % summed == 0 else f"mla {product}, {register}, r10, {product}")
            if (i + 1) % summed == 0:
                out("add.w r6, r6, r11, lsr #24", "add.w r7, r7, r12, lsr #24")


def bits_step(out: Listing) -> None:
    load_words(out)
    for _ in range(4):
        load_inputs(out, ("r8", "r9"))
        for register in ("r8", "r9"):
            for word, total in (("r4", "r6"), ("r5", "r7")):
                out(f"uadd8 {word}, {word}, {word}", f"sel r12, {register}, r3", f"usada8 {total}, r12, r3, {total}")


def loop(name: str, comment: str, step: Listing, steps: int) -> str:
    """Registers: r0 inputs, r1 row, r2 bytes to the next row, r3 mask, lr turns; the cut is on the stack. Sums in r6 and r7.

    The first turn begins as many steps late as the last ones would be too many, at the entry.
    """
    out = Listing()
    out("push.w {r4-r11, lr}", f"ldr.w r4, [r0, #{4 * CALL.index('cut')}]", f"ldr.w r5, [r0, #{4 * CALL.index('sums')}]")
    out("push.w {r4, r5}", f"ldr.w lr, [r0, #{4 * CALL.index('count')}]", f"ldr.w r12, [r0, #{4 * CALL.index('entry')}]")
    out("ldr.w r3, [r0, #12]", "ldr.w r2, [r0, #8]", "ldr.w r1, [r0, #4]", "ldr.w r0, [r0, #0]")
    out("mov.w r6, #0", "mov.w r7, #0", "adr.w r4, 1f", "add.w r12, r12, r4", "orr.w r12, r12, #1", "bx r12", "nop")
    out.label(1)
    for _ in range(steps):
        out(*step.lines)
    out("subs.w lr, lr, #1", "bne.w 1b", "2:", "ldr.w r0, [sp, #4]", "str.w r6, [r0, #0]", "str.w r7, [r0, #4]")
    out("add.w sp, sp, #8", "pop.w {r4-r11, pc}")
    return out.function(name, comment)


def linear_header() -> Iterator[str]:
    yield call_struct("linear_call", CALL)
    for stored, steps in STEPS.items():
        step = Listing()
        pairs_step(step, stored)
        yield f"enum {{ LINEAR_STEPS_{stored} = {steps}, LINEAR_PAIRS_{stored}_BYTES = {4 * len(step.lines)} }};\n"
        yield loop(f"hw_linear_pairs_{stored}", f"Codes stored at {stored} bits, two to a multiplication.", step, steps)
    for stored, summed in FOURS:
        step = Listing()
        fours_step(step, stored, summed)
        name = f"{stored}_{summed}"
        yield f"enum {{ LINEAR_FOURS_{name}_BYTES = {4 * len(step.lines)} }};\n"
        comment = f"Codes stored at {stored} bits, four to a multiplication, {summed} of which are summed."
        yield loop(f"hw_linear_fours_{name}", comment, step, STEPS[stored])
    yield loop("hw_linear_threes", "Codes stored at 3 bits; `count` is of words.", threes_turn(), 1)
    step = Listing()
    bits_step(step)
    yield loop("hw_linear_bits", "Weights of 1 bit, inputs of up to 8.", step, 1)
