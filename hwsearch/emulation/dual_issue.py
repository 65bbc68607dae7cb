"""Issue of a straight stretch of code on an in-order core that starts up to two instructions per cycle, as the Cortex-M7.

Rules, after LLVM's scheduling model of that core: per cycle one multiplication or packed instruction, which goes first; one
shift; two loads or one store; anything of several words, and divisions, alone. Results of loads and multiplications are there
after two cycles, all others after one; a multiplication passes its sum to the next one's accumulator after one; an operand that
goes through the shifter is needed one cycle earlier. A branch target starts a cycle of its own, whichever way it is reached.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hwsearch.emulation.instructions import Instruction, Kind

_WIDTH = 2
_LATENCY = {Kind.LOAD: 2, Kind.MULTIPLY: 2}
_UNIT = {Kind.MULTIPLY: "first", Kind.SIMD: "first", Kind.SHIFT: "shift", Kind.LOAD: "load", Kind.STORE: "store"}
_ALONE = frozenset({Kind.PAIR, Kind.MULTIPLE, Kind.DIVIDE, Kind.FLOAT_MAC, Kind.FLOAT_DIVIDE, Kind.TABLE_BRANCH})


@dataclass(slots=True)
class _Pipeline:
    """`ready`: cycle from which each register can be read, and whether a multiplication writes it."""

    cycle: int = -1
    started: int = _WIDTH
    units: list[str] = field(default_factory=list)
    ready: dict[int, tuple[int, bool]] = field(default_factory=dict)

    def advance(self) -> None:
        self.cycle += 1
        self.started = 0
        self.units.clear()

    def must_wait(self, instruction: Instruction) -> bool:
        if self.started >= _WIDTH or any(self._needed(instruction, register) > self.cycle for register in instruction.reads):
            return True
        if instruction.kind in _ALONE:
            return self.started > 0
        unit = _UNIT.get(instruction.kind, "")
        if unit == "first":
            return self.started > 0
        if unit == "load":
            return "store" in self.units
        if unit == "store":
            return "store" in self.units or "load" in self.units
        return unit == "shift" and "shift" in self.units

    def _needed(self, instruction: Instruction, register: int) -> int:
        cycle, by_multiply = self.ready.get(register, (0, False))
        if by_multiply and register in instruction.accumulates:
            return cycle - 1
        return cycle + 1 if register in instruction.shifted and cycle else cycle

    def start(self, instruction: Instruction, divide: int) -> None:
        self.started += 1
        self.units.append(_UNIT.get(instruction.kind, ""))
        extra = _further_cycles(instruction, divide)
        for register in instruction.writes:
            latency = _LATENCY.get(instruction.kind, 1)
            self.ready[register] = (self.cycle + extra + latency, instruction.kind is Kind.MULTIPLY)
        if instruction.kind in _ALONE:
            self.cycle += extra
            self.started = _WIDTH


def _further_cycles(instruction: Instruction, divide: int) -> int:
    """Cycles beyond the first of what is started alone."""
    return {
        Kind.PAIR: 1 if instruction.is_store else 0,
        Kind.MULTIPLE: max(0, instruction.n_registers - 1),
        Kind.TABLE_BRANCH: 2,
        Kind.DIVIDE: divide - 1,
        Kind.FLOAT_MAC: 2,
        Kind.FLOAT_DIVIDE: 13,
    }.get(instruction.kind, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DualIssue:
    """Cycles: `refill` is what a taken branch takes more, `divide` a division."""

    refill: int
    divide: int

    def issue(self, instructions: Sequence[Instruction]) -> tuple[list[int], list[int]]:
        """Cycles that each instruction adds after the one before it, and after a taken branch."""
        targets = {instruction.target for instruction in instructions}
        pipeline = _Pipeline()
        in_line, entered = [], []
        for instruction in instructions:
            before = pipeline.cycle
            if instruction.address in targets:
                pipeline.advance()
            while pipeline.must_wait(instruction):
                pipeline.advance()
            pipeline.start(instruction, self.divide)
            in_line.append(pipeline.cycle - before)
            entered.append(1 + _further_cycles(instruction, self.divide))
        return in_line, entered

    def taken(self, instruction: Instruction) -> int:
        """The same for every branch."""
        return self.refill
