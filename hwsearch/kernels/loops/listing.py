"""Assembly as text: functions, registers and the steps that several loops share.

Each loop is one C function whose body is assembly, so that every register is under control: compilers spill accumulators
around blocks that need all fourteen. Every instruction in a loop is 32 bits wide (16 on the Cortex-M0+), so that loops stay
word-aligned, and every load is of an aligned word. A loop is entered in the middle where its count is no multiple of the
unrolling: all instructions have as many bytes, so the address of a step is known.
"""

SUMS = ("r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11")
SCALE = 20
"""Bytes of a `hw_quick_scale` (hw_cortex_m.h): bias, multiplier, offset, shift, left."""


class Listing:
    """Assembly, line by line."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, *instructions: str) -> None:
        self.lines += instructions

    @property
    def size(self) -> int:
        """Bytes of code so far: four of every instruction, notes and labels aside."""
        return 4 * sum(not (line[0] in "@." or line.endswith(":")) for line in self.lines)

    def note(self, text: str) -> None:
        self.lines.append(f"@ {text}")

    def label(self, number: int) -> None:
        self.lines += [".p2align 2", f"{number}:"]

    def function(self, name: str, comment: str) -> str:
        """A C function with this body; its only argument is in r0."""
        text = "\n".join(f'        "{line}\\n"' if line[0] != "@" else f"        /*{line[1:]} */" for line in self.lines)
        head = "__attribute__((naked, noinline, aligned(32), unused)) static void"
        start = f"/* {comment} */\n{head} {name}(__attribute__((unused)) const void *call)"
        return f"{start}\n{{\n    __asm__ volatile(\n{text});\n}}\n"


def enter(out: Listing, copied: int, words: int) -> None:
    """Save registers, take `words` words of stack, and copy the call from r0 to the lowest `copied` of them."""
    out("push.w {r4-r11, lr}", f"sub.w sp, sp, #{4 * words}")
    for first in range(0, copied, 8):
        count = min(8, copied - first)
        for i in range(count):
            out(f"ldr.w {SUMS[i]}, [r0, #{4 * (first + i)}]")
        for i in range(count):
            out(f"str.w {SUMS[i]}, [sp, #{4 * (first + i)}]")


def leave(out: Listing, words: int) -> None:
    out(f"add.w sp, sp, #{4 * words}", "pop.w {r4-r11, pc}")


STRETCH_CALL = ("pixels", "weights", "end", "entry", "stretches")
"""What a call says of a pixel's first stretch: r0 and r1, where its weights end and its entry; and of the next one's record."""


def first_stretch(out: Listing, at: dict[str, int], *begin: str) -> None:
    """Enter the loop at the first stretch of a pixel, after the instructions `begin`."""
    out(f"ldr.w r0, [sp, #{at['pixels']}]", f"ldr.w r1, [sp, #{at['weights']}]", f"ldr.w r2, [sp, #{at['end']}]")
    out(f"ldr.w r3, [sp, #{at['stretches']}]", *begin)
    out(f"str.w r2, [sp, #{at['ends']}]", f"str.w r3, [sp, #{at['stretch']}]", f"ldr.w pc, [sp, #{at['entry']}]")


def next_stretch(out: Listing, at: dict[str, int]) -> None:
    """After a stretch: move r0 and r1, and go where the next record says: into the loop, or to what comes before that."""
    out(f"ldr.w r12, [sp, #{at['ends']}]", "cmp.w r1, r12", "bne.w 3b")
    out(
        f"ldr.w lr, [sp, #{at['stretch']}]", "ldm.w lr!, {r2, r3, r12}", f"str.w r2, [sp, #{at['ends']}]", "add.w r1, r1, r3",
        "add.w r0, r0, r12", "add.w r2, lr, #8", f"str.w r2, [sp, #{at['stretch']}]", "ldr.w pc, [lr, #0]",
    )  # fmt: skip


def enter_stretch(out: Listing, at: dict[str, int]) -> None:
    """What came before the next stretch is done: go on to it."""
    out(f"ldr.w lr, [sp, #{at['stretch']}]", "ldr pc, [lr, #-4]")


def loop_record(kind: str, name: str, *numbers: int) -> str:
    """What C knows of a loop: a `struct kind` that holds the function and these numbers."""
    values = ", ".join(str(number) for number in numbers)
    return f"__attribute__((unused)) static const struct {kind} {name}_loop = {{{name}, {values}}};\n"


def field(out: Listing, to: str, low: str, high: str, bit: int, width: int) -> None:
    """One field of a 64-bit sum."""
    if bit + width <= 32:
        out(f"ubfx {to}, {low}, #{bit}, #{width}")
    elif bit >= 32:
        out(f"ubfx {to}, {high}, #{bit - 32}, #{width}")
    else:
        out(f"lsr.w {to}, {low}, #{bit}", f"bfi {to}, {high}, #{32 - bit}, #{bit + width - 32}")


def call_struct(name: str, fields: tuple[str, ...]) -> str:
    return f"struct {name} {{\n    uint32_t " + ", ".join(fields) + ";\n};\n"
