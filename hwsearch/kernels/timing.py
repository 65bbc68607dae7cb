"""Cycle models: what executed instructions cost on a core, and what reading flash adds on a board.

Cortex-M4, after the public Technical Reference Manual (Arm 100166, table 3-1 and its load/store timings):

| instruction | cycles |
| --- | --- |
| data processing, MUL, MLA, SMLAD, UMULL, UMLAL, UMAAL, IT | 1 |
| LDR, LDRB, LDRH, VLDR | 2; 1 straight after such a load whose result is not in this address |
| STR, STRB, STRH, VSTR | 1; 2 with a register offset, unless straight after such a load |
| LDRD, STRD | 3 |
| LDM, STM, PUSH, POP of n words | 1 + n |
| a load or store whose address register the data-processing instruction before it wrote | 1 more |
| B, BL, BX, BLX, CBZ, CBNZ, any load of the program counter | 1 more `refill` if taken |
| TBB, TBH | 3 + `refill` |
| SDIV, UDIV | `divide` (2 to 12 in the manual, depending on operands) |
| VMLA, VFMA and kin; VDIV, VSQRT | 3; 14 |

Two rules are not in the manual; others found them by measuring: a taken branch to a 32-bit instruction that is not
word-aligned costs 1 more, and so does a run of three or more such instructions.

An instruction costs what it does in its straight-line context, except where a taken branch arrives: there nothing
precedes. Executions come from block counts, and a block that the emulator happened to cut in two costs the same.
Not modelled: interrupts, DMA, bus contention, operand-dependent division; a load skipped inside an IT block costs 2, not 1.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsearch.kernels.thumb import Instruction, Kind

Cycles = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreTiming:
    """The numbers that the table above leaves open, in cycles, and how far the whole was validated."""

    name: str
    refill: int
    divide: int
    unaligned_fetch: int
    validity: str


CORTEX_M4 = CoreTiming(
    name="Cortex-M4, TRM 100166 costs, refill 3, fetch alignment",
    refill=3,
    divide=7,
    unaligned_fetch=1,
    validity="without wait states: mean error 0.9 %, largest 3.3 %, over 32 published cycle counts of cryptographic code on "
    "Cortex-M4 silicon (pqm4); refill and fetch alignment were chosen on those same points",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashTiming:
    """A flash behind small instruction and data caches (fully associative, least recently used).

    A code line that follows the last one fetched has been prefetched and costs no wait.
    """

    wait_states: int
    code_lines: int
    code_line_bytes: int
    data_lines: int
    data_line_bytes: int

    def cycles(self, misses: int) -> int:
        return self.wait_states * misses


NO_WAIT = FlashTiming(wait_states=0, code_lines=0, code_line_bytes=32, data_lines=0, data_line_bytes=8)

STM32L4PLUS_120MHZ = FlashTiming(wait_states=5, code_lines=32, code_line_bytes=32, data_lines=32, data_line_bytes=8)
"""STM32L4+ at 120 MHz, dual bank: 1 KB of instruction cache and 256 B of data cache, filled 64 bits at a time.

Recalled from the family's reference manual, not looked up. With these numbers the four MLPerf Tiny networks of the public
microTVM submission on NUCLEO-L4R5ZI come out 0.4 % to 10.4 % below their published latency; without waits 10 % to 22 % below.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeCosts:
    """Costs of the instructions of an image, by halfword of code; 0 where none starts.

    `in_line`: cycles when the instruction before it was executed before it; `entered`: cycles when a taken branch
    arrives at it; `taken`: cycles more when it is a branch and taken; `starts`: 1 where an instruction starts.
    """

    in_line: Cycles
    entered: Cycles
    taken: Cycles
    starts: Cycles

    @classmethod
    def empty(cls, n_halfwords: int) -> "CodeCosts":
        return cls(**{name: np.zeros(n_halfwords, np.int64) for name in ("in_line", "entered", "taken", "starts")})

    def add(self, instructions: list[Instruction], code_start: int, timing: CoreTiming) -> None:
        """Fill in a straight stretch of code."""
        runs = _unaligned_runs(instructions)
        previous: Instruction | None = None
        for instruction, run in zip(instructions, runs, strict=True):
            index = (instruction.address - code_start) // 2
            alignment = timing.unaligned_fetch
            self.starts[index] = 1
            self.in_line[index] = _cycles(instruction, previous, timing) + alignment * (run == 3)
            self.entered[index] = _cycles(instruction, None, timing) + alignment * instruction.is_unaligned_fetch
            self.taken[index] = timing.refill if instruction.ends_flow else 0
            previous = instruction


def _unaligned_runs(instructions: Iterable[Instruction]) -> list[int]:
    """How many 32-bit instructions in a row, this one included, straddle words; branches and their targets start anew."""
    listed = list(instructions)
    targets = {instruction.target for instruction in listed}
    runs: list[int] = []
    run = 0
    for instruction in listed:
        run = 0 if instruction.address in targets else run
        run = run + 1 if instruction.is_unaligned_fetch else 0
        runs.append(run)
        run = 0 if instruction.ends_flow else run
    return runs


def _cycles(instruction: Instruction, previous: Instruction | None, timing: CoreTiming) -> int:
    kind = instruction.kind
    stall = 0
    if previous and previous.kind is Kind.OTHER and not previous.ends_flow:
        stall = int(bool(previous.writes & instruction.address_registers))
    follows_load = bool(previous and previous.kind is Kind.LOAD and not previous.loads & instruction.address_registers)
    fixed = {
        Kind.PAIR: 3,
        Kind.MULTIPLE: 1 + instruction.n_registers,
        Kind.TABLE_BRANCH: 3,
        Kind.DIVIDE: timing.divide,
        Kind.FLOAT_MAC: 3,
        Kind.FLOAT_DIVIDE: 14,
    }
    if kind is Kind.LOAD:
        return stall + (1 if follows_load else 2)
    if kind is Kind.STORE:
        return stall + (2 if instruction.register_offset and not follows_load else 1)
    return stall + fixed.get(kind, 1)
