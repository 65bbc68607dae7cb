"""A core that starts one instruction at a time, in order: Cortex-M4, M33, M0+ and the four stages of an ESP32-C3.

What each kind of instruction costs is the table in `cycle_model.py`; the numbers that it leaves open are the fields here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hwsearch.emulation.instructions import DATA_PROCESSING, Instruction, Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleIssue:
    """Cycles.

    `refill` is what a taken branch, `call` what BL, and `loaded_counter` what a loaded program counter takes besides; `divide`
    and `multiply`, `load` and `store` are whole instructions; `load_use` is what an instruction straight after a load takes more
    if it reads the result; `unaligned_fetch` is what 32-bit instructions across two words of code memory take more: one that a
    taken branch arrives at, and the third of a run. `pairs_loads` says whether a load behind a load takes 1 cycle less, and an
    address straight from the data-processing instruction before 1 more.
    """

    refill: int
    divide: int = 0
    multiply: int = 1
    load: int = 2
    load_use: int = 0
    store: int = 1
    unaligned_fetch: int = 0
    pairs_loads: bool = False
    call: int = 0
    loaded_counter: int = 0

    def issue(self, instructions: Sequence[Instruction]) -> tuple[list[int], list[int]]:
        """Cycles of each instruction after the one before it, and after a taken branch."""
        in_line, entered = [], []
        previous: Instruction | None = None
        alignment = self.unaligned_fetch
        for instruction, run in zip(instructions, _unaligned_runs(instructions), strict=True):
            in_line.append(self._cycles(instruction, previous) + alignment * (run == 3))
            entered.append(self._cycles(instruction, None) + alignment * instruction.is_unaligned_fetch)
            previous = instruction
        return in_line, entered

    def taken(self, instruction: Instruction) -> int:
        """Cycles more of an instruction that leads elsewhere."""
        if instruction.kind is Kind.MULTIPLE:
            return self.refill + self.loaded_counter
        is_call = instruction.kind is Kind.BRANCH and instruction.size == 4
        return self.refill + (self.call if is_call else 0)

    def _cycles(self, instruction: Instruction, previous: Instruction | None) -> int:
        stall, follows_load = self._after(previous, instruction) if previous else (0, False)
        if instruction.kind is Kind.LOAD:
            return stall + (1 if follows_load else self.load)
        if instruction.kind is Kind.STORE:
            slow = self.pairs_loads and instruction.register_offset and not follows_load
            return stall + (2 if slow else self.store)
        return stall + self._whole(instruction)

    def _after(self, previous: Instruction, instruction: Instruction) -> tuple[int, bool]:
        """Cycles of waiting for the instruction before, and whether that is a load whose result is not this one's address."""
        if self.pairs_loads:
            computed = previous.kind in DATA_PROCESSING and not previous.ends_flow
            stall = int(computed and bool(previous.writes & instruction.address_registers))
            return stall, previous.kind is Kind.LOAD and not previous.loads & instruction.address_registers
        return self.load_use * bool(previous.loads & instruction.reads), False

    def _whole(self, instruction: Instruction) -> int:
        """Cycles of an instruction that neither loads nor stores a single value."""
        return {
            Kind.PAIR: 3,
            Kind.MULTIPLE: 1 + instruction.n_registers,
            Kind.TABLE_BRANCH: 3,
            Kind.DIVIDE: self.divide,
            Kind.FLOAT_MAC: 3,
            Kind.FLOAT_DIVIDE: 14,
            Kind.MULTIPLY: self.multiply,
        }.get(instruction.kind, 1)


def _unaligned_runs(instructions: Sequence[Instruction]) -> list[int]:
    """How many 32-bit instructions in a row, this one included, straddle words; branches and their targets start anew."""
    targets = {instruction.target for instruction in instructions}
    runs: list[int] = []
    run = 0
    for instruction in instructions:
        run = 0 if instruction.address in targets else run
        run = run + 1 if instruction.is_unaligned_fetch else 0
        runs.append(run)
        run = 0 if instruction.ends_flow else run
    return runs
