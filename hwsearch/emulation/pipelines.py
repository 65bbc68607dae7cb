"""Issue of code on a core with several units, such as Cortex-A53 and A72: what a block costs, executed over and over.

Each unit starts one operation per cycle. An instruction is one or several operations, given as a word with a letter for each:
B branch, I integer arithmetic (two units), M integer multiplication and shifted operands, D division, L load, S store,
V vector; where vectors have two units, X and W, V stands for either. `latency` is when a result can be used, `forward` when the
next accumulation can. A core's numbers and their sources stand in its record (`cores/cortex_a53.py`, `cores/cortex_a72.py`).

Not modelled: caches and memory (everything lies in the first level), mispredicted and taken branches, instruction fetch, the
eight-entry queues before units.

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

    def issue(self, instructions: Sequence[Instruction]) -> tuple[list[int], list[int]]:
        """Cycles of each instruction, however it is reached: all of a block's, rounded, stand at its first; at least one."""
        costs: list[int] = []
        for block in blocks(instructions):
            costs += [max(1, round(block_cycles(block, self))), *([0] * (len(block) - 1))]
        return costs, costs

    def taken(self, instruction: Instruction) -> int:
        """Nothing: branches are taken to be predicted."""
        return 0


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
