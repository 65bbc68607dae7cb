"""Operations without weights: four codes or channels to a word."""

from collections.abc import Iterator

from hwsearch.kernels.loops.listing import Listing, call_struct

ADD_CALL = ("first", "second", "output", "count", "multiplier0", "multiplier1", "constant", "shift", "max")
LOOKUP_CALL = ("first", "second", "output", "count", "table", "left")
LOOKUP_WORDS = 4
"""Words of each input that a turn of `hw_add_lookup` takes."""
MAX_CALL = ("top", "bottom", "output", "words", "channels", "skip", "pixels")
SUM_CALL = ("codes", "columns", "step", "rows", "next_row", "sums")


def given(out: Listing, call: tuple[str, ...], registers: tuple[str, ...]) -> None:
    """Members of the call in r0 to registers; r0 itself comes last."""
    members = [(register, 4 * i) for i, register in enumerate(registers)]
    out(*(f"ldr.w {register}, [r0, #{offset}]" for register, offset in members[1:] + members[:1]))


def add() -> str:
    """q0 * m0 + q1 * m1 + constant, shifted right: 16 bits hold it, also before it is clamped."""
    out = Listing()
    out("push.w {r4-r11, lr}")
    given(out, ADD_CALL, ("r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8"))

    def total(to: str, code: str, other: str) -> None:
        out(f"mla {to}, {code}, r4, r6", f"mla {to}, {other}, r5, {to}", f"asr.w {to}, {to}, r7")

    def word() -> None:
        out("ldr.w r9, [r0], #4", "ldr.w r10, [r1], #4")
        out("uxtb.w r11, r9", "uxtb.w r12, r10")
        total("r11", "r11", "r12")
        out("uxtb.w lr, r9, ror #16", "uxtb.w r12, r10, ror #16")
        total("lr", "lr", "r12")
        out("pkhbt r11, r11, lr, lsl #16", "uxtb.w lr, r9, ror #8", "uxtb.w r12, r10, ror #8")
        total("lr", "lr", "r12")
        out("lsr.w r9, r9, #24", "lsr.w r10, r10, #24")
        total("r9", "r9", "r10")
        out("pkhbt lr, lr, r9, lsl #16", "usat16 r11, #8, r11", "usat16 lr, #8, lr", "orr.w r11, r11, lr, lsl #8")
        out("usub8 r12, r11, r8", "sel r11, r8, r11", "str.w r11, [r2], #4")

    out("tst.w r3, #1", "beq.w 1f", "add.w r3, r3, #1", "b.w 2f")
    out.label(1)
    word()
    out.label(2)
    word()
    out("subs.w r3, r3, #2", "bgt.w 1b", "pop.w {r4-r11, pc}")
    return out.function("hw_add_words", "Sums of two tensors, `count` words of codes.")


def look_up(out: Listing, word: str, at: int, codes: tuple[str, str, str, str], table: str, output: str) -> None:
    """Four bytes of a word, each replaced by that of the table it points to."""
    out(*(f"uxtb.w {code}, {word}" + (f", ror #{8 * i}" if i else "") for i, code in enumerate(codes)))
    out(*(f"ldrb.w {code}, [{table}, {code}]" for code in codes))
    out(f"orr.w {codes[0]}, {codes[0]}, {codes[1]}, lsl #8", f"orr.w {codes[2]}, {codes[2]}, {codes[3]}, lsl #8")
    out(f"orr.w {codes[0]}, {codes[0]}, {codes[2]}, lsl #16", f"str.w {codes[0]}, [{output}, #{4 * at}]")


def add_lookup() -> str:
    """Codes below 16: a pair of them is a byte, and the table holds the code of its sum.

    Stops before the 16 codes among which is a greater one, and says how many turns are left.
    """
    out = Listing()
    out("push.w {r4-r11, lr}")
    given(out, LOOKUP_CALL, ("r0", "r1", "r2", "r3", "r4", "lr"))
    out.label(1)
    out("mov.w r5, #0")
    for i in range(LOOKUP_WORDS):
        out(f"ldr.w r6, [r0, #{4 * i}]", f"ldr.w r7, [r1, #{4 * i}]", "orr.w r5, r5, r6", "orr.w r5, r5, r7")
        out("orr.w r6, r6, r7, lsl #4")
        look_up(out, "r6", i, ("r8", "r9", "r10", "r11"), "r4", "r2")
    out("tst.w r5, #0xF0F0F0F0", "bne.w 2f", *(f"add.w r{i}, r{i}, #{4 * LOOKUP_WORDS}" for i in range(3)))
    out("subs.w r3, r3, #1", "bne.w 1b")
    out.label(2)
    out("str.w r3, [lr, #0]", "pop.w {r4-r11, pc}")
    return out.function("hw_add_lookup", "Sums of two tensors of narrow codes, 16 at a turn.")


def lookup() -> str:
    out = Listing()
    out("push.w {r4-r11, lr}")
    given(out, LOOKUP_CALL, ("r0", "r1", "r2", "r3", "r4"))
    out.label(1)
    for i in range(2):
        out(f"ldr.w r6, [r0, #{4 * i}]")
        look_up(out, "r6", i, ("r8", "r9", "r10", "r11"), "r4", "r2")
    out("add.w r0, r0, #8", "add.w r2, r2, #8", "subs.w r3, r3, #1", "bne.w 1b", "pop.w {r4-r11, pc}")
    return out.function("hw_lookup", "Codes through a table, 8 at a turn; the second tensor is not used.")


def max_of_two_by_two() -> str:
    """`pixels` windows of 2 x 2 beside each other. Two words a turn; where their number is odd, the first turn does one."""
    out = Listing()
    out("push.w {r4-r11, lr}")
    given(out, MAX_CALL, ("r0", "r1", "r2", "r12", "r9", "r10", "r11"))
    out("ands.w r3, r12, #1", "add.w r12, r12, r3", "ite eq", "adreq.w lr, 2f", "adrne.w lr, 3f", "nop", "orr.w lr, lr, #1")
    out.label(1)
    out("mov.w r3, r12", "bx lr", "nop")
    for label in (2, 3):
        out.label(label)
        out("ldr.w r4, [r0, r9]", "ldr.w r5, [r1, r9]", "ldr.w r6, [r0], #4", "ldr.w r7, [r1], #4")
        out("usub8 r8, r4, r5", "sel r4, r4, r5", "usub8 r8, r6, r7", "sel r6, r6, r7", "usub8 r8, r4, r6", "sel r4, r4, r6")
        out("str.w r4, [r2], #4")
    out("subs.w r3, r3, #2", "bne.w 2b", "add.w r0, r0, r10", "add.w r1, r1, r10", "subs.w r11, r11, #1", "bne.w 1b")
    out("pop.w {r4-r11, pc}")
    return out.function("hw_max_two_by_two", "A row of windows of 2 x 2, four channels to a word.")


def sums(words: int) -> str:
    """Channels of a window, summed as 16-bit numbers: channels 0 and 2 of each four, then 1 and 3."""
    out = Listing()
    out("push.w {r4-r11, lr}")
    totals = tuple(f"r{4 + i}" for i in range(2 * words))
    loaded = ("r12", "lr", "r2", "r3")[:words] if words > 1 else ("r12",)
    out("sub.w sp, sp, #24")
    given(out, SUM_CALL, ("r4", "r5", "r6", "r7", "r8", "r9"))
    out("ldr.w r4, [r0, #0]", *(f"str.w r{4 + i}, [sp, #{4 * i}]" for i in range(len(SUM_CALL))), "mov.w r0, r4")
    out(*(f"mov.w {total}, #0" for total in totals))
    out.label(1)
    out("ldr.w r1, [sp, #4]")
    out.label(2)
    out(*(f"ldr.w {register}, [r0, #{4 * i}]" for i, register in enumerate(loaded)))
    for i, register in enumerate(loaded):
        out(
            f"uxtab16 {totals[2 * i]}, {totals[2 * i]}, {register}",
            f"uxtab16 {totals[2 * i + 1]}, {totals[2 * i + 1]}, {register}, ror #8",
        )
    out("ldr.w r12, [sp, #8]", "subs.w r1, r1, #1", "add.w r0, r0, r12", "bne.w 2b")
    out(
        "ldr.w r12, [sp, #16]", "ldr.w lr, [sp, #12]", "add.w r0, r0, r12", "subs.w lr, lr, #1", "str.w lr, [sp, #12]", "bne.w 1b"
    )
    out("ldr.w r0, [sp, #20]", *(f"str.w {total}, [r0, #{4 * i}]" for i, total in enumerate(totals)))
    out("add.w sp, sp, #24", "pop.w {r4-r11, pc}")
    return out.function(f"hw_sum_{4 * words}_channels", f"{4 * words} channels, summed over a window.")


def add_header() -> Iterator[str]:
    yield f"enum {{ LOOKUP_CODES = {4 * LOOKUP_WORDS} }};\n"
    yield call_struct("add_call", ADD_CALL)
    yield add()
    yield call_struct("lookup_call", LOOKUP_CALL)
    yield add_lookup()
    yield lookup()


def pool_header() -> Iterator[str]:
    yield call_struct("max_call", MAX_CALL)
    yield max_of_two_by_two()
    yield call_struct("sum_call", SUM_CALL)
    yield sums(4)
    yield sums(1)
