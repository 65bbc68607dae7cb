"""Issue of code on the Cortex-A53 and A72: what a straight block costs when it is executed over and over.

A core has units, each of which starts one operation per cycle. An instruction is one or several operations, given below as a word
with a letter for each: B branch, I integer arithmetic (two units), M integer multiplication and shifted operands, D division,
L load, S store, V vector; on the A72 vectors have two units, X and W, and V stands for either. `latency` is when a
result can be used, `forward` when the next accumulation can.

- Cortex-A53: in order, two instructions per cycle. Vector registers are 64 bits wide inside: 128 bits take two cycles.
- Cortex-A72: three operations per cycle enter a window of 128 instructions and start as soon as operands and a unit are free.
  Only W multiplies, only X accumulates pairs, shifts by registers, narrows.

Sources: units, operations and latencies are those of LLVM's scheduling models (AArch64SchedA53.td; AArch64SchedA57.td, which LLVM
uses for the A72 too), for what they name. Assumed: on the A53 128-bit and paired loads and stores take two cycles, vector
results are there after 4 cycles; on the A72 stores of pairs, and stores of four registers. Not modelled: caches and memory
(everything lies in the first level), mispredicted and taken branches, instruction fetch, the eight-entry queues before units.

A block starts at the target of a branch or behind one. What is priced is its turn in an endless repetition. Only a block that
branches to its own start waits for results of its turn before; others find their operands ready, as if their neighbours
overlapped with them.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hwsearch.emulation.instructions import Instruction

_ENOUGH = 160
"""Instructions that are issued, at least, before the cost of a turn is taken to be steady."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Operations by letter, and cycles until a result can be used: by anything, and by the next accumulation."""

    operations: str
    latency: int
    forward: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A core. `units`: how many operations of a letter start per cycle; `either`: letters that a letter stands for.

    `window` is how many instructions may be under way; 0 means that all start in order.
    """

    width: int
    units: Mapping[str, int]
    costs: Mapping[str, Cost]
    window: int = 0
    either: Mapping[str, str] = field(default_factory=dict)


_VECTORS = ("vector", "multiply", "accumulate", "shift", "round", "narrow", "table", "permute", "select", "reduce")

CORTEX_A53 = Pipeline(
    width=2,
    units={"B": 1, "I": 2, "M": 1, "D": 1, "L": 1, "V": 1},
    costs={
        "plain": Cost("I", 1),
        "shifted": Cost("I", 2),
        "multiply general": Cost("M", 3, 2),
        "divide": Cost("D" * 4, 8),
        "branch": Cost("B", 1),
        "call": Cost("B", 1),
        "load": Cost("L", 3),
        "load q": Cost("LL", 4),
        "load pair": Cost("LL", 4),
        "load pair q": Cost("LLLL", 6),
        "load lane": Cost("L", 4),
        "load two": Cost("LLLL", 7),
        "load four": Cost("LLLLL", 8),
        "store": Cost("L", 1),
        "store q": Cost("LL", 1),
        "store pair": Cost("LL", 1),
        "store pair q": Cost("LLLL", 1),
        "store lane": Cost("L", 1),
        "store two": Cost("LL", 1),
        "store four": Cost("LLL", 1),
        "transfer": Cost("V", 4),
        "insert": Cost("V", 6),
        **{f"{name} d": Cost("V", 4) for name in _VECTORS},
        **{f"{name} q": Cost("VV", 4) for name in (*_VECTORS, "multiply long")},
    },
)

CORTEX_A72 = Pipeline(
    width=3,
    units={"B": 1, "I": 2, "M": 1, "L": 1, "S": 1, "X": 1, "W": 1},
    either={"V": "XW"},
    window=128,
    costs={
        "plain": Cost("I", 1),
        "shifted": Cost("M", 2),
        "multiply general": Cost("M", 3, 1),
        "divide": Cost("M" * 8, 12),
        "branch": Cost("B", 1),
        "call": Cost("BI", 1),
        "load": Cost("L", 4),
        "load q": Cost("L", 5),
        "load pair": Cost("L", 5),
        "load pair q": Cost("LL", 6),
        "load lane": Cost("LV", 8),
        "load two": Cost("LLVV", 9),
        "load four": Cost("LLLLVVVV", 11),
        "store": Cost("S", 1),
        "store q": Cost("SS", 2),
        "store pair": Cost("S", 1),
        "store pair q": Cost("SSSS", 4),
        "store lane": Cost("S", 1),
        "store two": Cost("SSSS", 4),
        "store four": Cost("SSSSSSSS", 8),
        "transfer": Cost("IL", 6),
        "insert": Cost("LV", 8),
        "vector d": Cost("V", 3),
        "vector q": Cost("V", 3),
        "multiply d": Cost("W", 5, 1),
        "multiply q": Cost("WW", 6, 2),
        "multiply long q": Cost("W", 5, 1),
        "accumulate d": Cost("X", 4, 1),
        "accumulate q": Cost("X", 4, 1),
        "reduce d": Cost("X", 4),
        "reduce q": Cost("VX", 7),
        "shift d": Cost("V", 3),
        "shift q": Cost("XX", 4),
        "round d": Cost("X", 4),
        "round q": Cost("XX", 5),
        "narrow d": Cost("X", 4),
        "narrow q": Cost("X", 4),
        "table d": Cost("V", 3),
        "table q": Cost("VVV", 6),
        "permute d": Cost("V", 3),
        "permute q": Cost("VVV", 6),
        "select d": Cost("V", 3),
        "select q": Cost("VV", 3),
    },
)

PIPELINES = {"Cortex-A53": CORTEX_A53, "Cortex-A72": CORTEX_A72}
"""By the name that `CoreTiming.pipeline` gives."""


class _Issue:
    """Instructions that were started, and when."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._taken: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._entered: defaultdict[int, int] = defaultdict(int)
        self._ready: dict[int, tuple[int, int]] = {}
        self._left: list[int] = []
        self._front = 0
        self.last = 0

    def start(self, instruction: Instruction) -> None:
        cost = self._pipeline.costs[instruction.form]
        waiting = [self._ready[r][r in instruction.accumulates] for r in instruction.reads if r in self._ready]
        ready = max([self._enter(cost), *waiting])
        if self._pipeline.window:
            started = [self._claim(letter, ready) for letter in cost.operations]
            done = max(started[0] + cost.latency, started[-1] + 1)
            forwarded = max(started[-1] + 1, started[0] + (cost.forward or cost.latency))
        else:
            first = self._claim_run(cost.operations, ready)
            self._entered[first] += 1
            self._front, done, forwarded = first, first + cost.latency, first + (cost.forward or cost.latency)
            started = [first]
        self.last = max(self.last, *started)
        for register in instruction.writes:
            self._ready[register] = (done, forwarded)
        self._left.append(max(done, self._left[-1] if self._left else 0))

    def forget_results(self) -> None:
        """Nothing that follows waits for what was started so far."""
        self._ready.clear()

    def _enter(self, cost: Cost) -> int:
        """The first cycle in which an instruction may start: there is room beside those before it."""
        pipeline = self._pipeline
        if not pipeline.window:
            return self._front
        full = len(self._left) >= pipeline.window
        self._front = max(self._front, self._left[-pipeline.window] if full else 0)
        for _ in cost.operations:
            while self._entered[self._front] >= pipeline.width:
                self._front += 1
            self._entered[self._front] += 1
        return self._front

    def _claim(self, letter: str, cycle: int) -> int:
        """Take the first free cycle of a unit."""
        names = self._pipeline.either.get(letter, letter)
        while True:
            for name in names:
                if self._taken[name, cycle] < self._pipeline.units[name]:
                    self._taken[name, cycle] += 1
                    return cycle
            cycle += 1

    def _claim_run(self, operations: str, cycle: int) -> int:
        """Take one unit for as many cycles as there are operations, all of one letter."""
        name, capacity = operations[0], self._pipeline.units[operations[0]]
        while self._entered[cycle] >= self._pipeline.width or self._taken[name, cycle] >= capacity:
            cycle += 1
        for after in range(len(operations)):
            self._taken[name, cycle + after] += 1
        return cycle


def block_cycles(instructions: Sequence[Instruction], pipeline: Pipeline) -> float:
    """Cycles of one turn of a block that is executed over and over."""
    issue = _Issue(pipeline)
    half = max(2, -(-_ENOUGH // (2 * len(instructions))))
    is_loop = instructions[-1].target == instructions[0].address
    middle = 0
    for turn in range(2 * half):
        if turn == half:
            middle = issue.last
        if not is_loop:
            issue.forget_results()
        for instruction in instructions:
            issue.start(instruction)
    return (issue.last - middle) / half


def issue_costs(instructions: Sequence[Instruction], pipeline: Pipeline) -> list[int]:
    """Cycles of each instruction: all of a block's, rounded, stand at its first; at least one."""
    costs: list[int] = []
    for block in blocks(instructions):
        costs += [max(1, round(block_cycles(block, pipeline))), *([0] * (len(block) - 1))]
    return costs


def blocks(instructions: Sequence[Instruction]) -> Iterator[list[Instruction]]:
    """Stretches that are entered at their start alone and left at their end."""
    targets = {instruction.target for instruction in instructions}
    block: list[Instruction] = []
    for instruction in instructions:
        if block and (instruction.address in targets or block[-1].ends_flow):
            yield block
            block = []
        block.append(instruction)
    if block:
        yield block
