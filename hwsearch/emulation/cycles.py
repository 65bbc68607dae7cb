"""Cycle models: what executed instructions cost on a core, and what reading flash adds on a board.

Cycles per instruction; `CORES` below holds the numbers that a word in the table stands for, and how far each was validated:

| instruction | Cortex-M4, M33 | Cortex-M0+ | Cortex-M7 |
| --- | --- | --- | --- |
| data processing, IT | 1 | 1 | two at once where `dual_issue.py` allows |
| MUL | 1 | `multiply` (1, or 32 where the chip has the small multiplier) | 1, result after 2 |
| MLA, SMLAD, UMULL, UMLAL, UMAAL | 1 | none: long products are calls | 1 per cycle, result after 2 |
| LDR, LDRB, LDRH, VLDR | 2; 1 straight after such a load whose result is not in this address | 2 | two at once, result after 2 |
| STR, STRB, STRH, VSTR | 1; 2 with a register offset, unless straight after such a load | 2 | 1, not beside a load |
| LDRD, STRD | 3 | none | 1, 2, alone |
| LDM, STM, PUSH, POP of n words | 1 + n | 1 + n, 1 more for a loaded program counter | n, alone |
| a load or store whose address register the data-processing instruction before it wrote | 1 more | 0 more | 0 more |
| B, BX, CBZ, any load of the program counter | 1; `refill` more if taken | the same; BL 1 more | the same, paired |
| TBB, TBH | 3 + `refill` | none | 3 + `refill` |
| SDIV, UDIV | `divide` (2 to 12 in the manual, depending on operands) | none: a call | `divide`, alone |
| VMLA, VFMA and kin; VDIV, VSQRT | 3; 14 | none | 3; 14, alone |

The ESP32-C3 (RV32IMC, four stages in order, one instruction at a time) has a short table: everything 1, but a load whose
result the next instruction reads 1 more, a taken branch, jump, call or return `refill` more, and DIV, REM `divide`.

The Cortex-A53 and A72 are priced block by block by `pipelines.py`, which has a table and sources of its own.

Sources. M4: Arm's public Technical Reference Manual (100166, table 3-1 and its load/store timings); two rules are not in it,
others found them by measuring: a taken branch to a 32-bit instruction that is not word-aligned costs 1 more, and so does a run
of three or more such instructions. M33: Arm publishes no table; the M4's is used as it is. M0+: recalled from its manual (DDI
0484), not looked up. M7: Arm publishes no table; units and latencies as in LLVM's scheduling model (ARMScheduleM7.td).
ESP32-C3: no table is published; what such a pipeline usually takes, assumed.

An instruction costs what it does in its straight-line context, except where a taken branch arrives: there nothing
precedes. Executions come from block counts, and a block that the emulator happened to cut in two costs the same.
Not modelled: interrupts, DMA, bus contention, operand-dependent division, mispredicted branches; a load skipped inside an IT
block costs 2, not 1.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsearch.emulation import pipelines
from hwsearch.emulation.aarch64 import AARCH64
from hwsearch.emulation.architecture import Architecture
from hwsearch.emulation.dual_issue import issue_costs
from hwsearch.emulation.instructions import DATA_PROCESSING, Instruction, Kind
from hwsearch.emulation.riscv import RV32
from hwsearch.emulation.thumb import THUMB
from hwsearch.errors import ProfileError

Cycles = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreTiming:
    """The numbers that the table above leaves open, in cycles, and how far the whole was validated.

    `processor` is the core's name for compilers, `model` unicorn's; `load_use` is what an instruction straight after a load takes
    more if it reads the result; `pairs_loads` says whether a load behind a load takes 1 cycle less and an
    address straight from the data-processing instruction before 1 more; `call` is what BL, and `loaded_counter` what a loaded
    program counter, takes besides `refill`; `pipeline` names a core of `pipelines.py` where that decides all.
    """

    name: str
    processor: str
    model: str
    refill: int
    divide: int
    unaligned_fetch: int
    validity: str
    architecture: Architecture = THUMB
    multiply: int = 1
    load: int = 2
    load_use: int = 0
    store: int = 1
    pairs_loads: bool = True
    call: int = 0
    loaded_counter: int = 0
    dual_issue: bool = False
    pipeline: str = ""


CORTEX_M4 = CoreTiming(
    name="Cortex-M4, TRM 100166 costs, refill 3, fetch alignment",
    processor="cortex-m4",
    model="UC_CPU_ARM_CORTEX_M4",
    refill=3,
    divide=7,
    unaligned_fetch=1,
    validity="without wait states: mean error 0.9 %, largest 3.3 %, over 32 published cycle counts of cryptographic code on "
    "Cortex-M4 silicon (pqm4); refill and fetch alignment were chosen on those same points",
)

CORTEX_M33 = CoreTiming(
    name="Cortex-M33, costs of the Cortex-M4",
    processor="cortex-m33",
    model="UC_CPU_ARM_CORTEX_M33",
    refill=3,
    divide=7,
    unaligned_fetch=1,
    validity="0.4 % to 9.1 % above the published latency of four MLPerf Tiny networks on one Cortex-M33 (nRF5340, CMSIS-NN)",
)

CORTEX_M7 = CoreTiming(
    name="Cortex-M7, in-order dual issue, refill 1",
    processor="cortex-m7",
    model="UC_CPU_ARM_CORTEX_M7",
    refill=1,
    divide=7,
    unaligned_fetch=0,
    dual_issue=True,
    validity="not validated: on CMSIS-NN 1.46 to 1.49 times fewer cycles than the Cortex-M4 model, where published networks of "
    "one library on both cores give 1.41 to 1.83; 25 % either way",
)

ESP32_C3 = CoreTiming(
    name="ESP32-C3, four stages in order, costs assumed",
    processor="rv32imc",
    model="UC_CPU_RISCV32_SIFIVE_E31",  # RV32IMC and atomics, which compilers are not allowed to use
    architecture=RV32,
    refill=2,
    divide=17,  # the middle of 1 to 33: a bit per cycle, fewer for small numbers
    unaligned_fetch=0,
    load=1,
    load_use=1,
    pairs_loads=False,
    validity="not validated: costs assumed, no published cycle count compared",
)

_MODELLED = "a model of issue alone, without caches, fetch and mispredicted branches; not compared with a board"
CORTEX_A53 = CoreTiming(
    name="Cortex-A53, units and latencies of LLVM's model",
    processor="aarch64",
    model="UC_CPU_ARM64_A53",
    architecture=AARCH64,
    refill=0,
    divide=0,
    unaligned_fetch=0,
    pipeline="Cortex-A53",
    validity=_MODELLED,
)
CORTEX_A72 = CoreTiming(
    name="Cortex-A72, units and latencies of LLVM's model",
    processor="aarch64",
    model="UC_CPU_ARM64_A72",
    architecture=AARCH64,
    refill=0,
    divide=0,
    unaligned_fetch=0,
    pipeline="Cortex-A72",
    validity=_MODELLED,
)

_M0PLUS_VALIDITY = "not validated: costs recalled from the manual, no published cycle count compared"
CORTEX_M0PLUS = CoreTiming(
    name="Cortex-M0+, DDI 0484 costs as recalled, multiplier of 1 cycle",
    processor="cortex-m0plus",
    model="UC_CPU_ARM_CORTEX_M0",  # the same instructions
    refill=1,
    divide=0,
    unaligned_fetch=0,
    store=2,
    pairs_loads=False,
    call=1,
    loaded_counter=1,
    validity=_M0PLUS_VALIDITY,
)
CORTEX_M0PLUS_SMALL = CoreTiming(
    name="Cortex-M0+, DDI 0484 costs as recalled, multiplier of 32 cycles",
    processor="cortex-m0plus",
    model="UC_CPU_ARM_CORTEX_M0",  # the same instructions
    refill=1,
    divide=0,
    unaligned_fetch=0,
    multiply=32,
    store=2,
    pairs_loads=False,
    call=1,
    loaded_counter=1,
    validity=_M0PLUS_VALIDITY,
)

CORES = {
    "Cortex-M4": CORTEX_M4,
    "Cortex-M4F": CORTEX_M4,
    "Cortex-M33": CORTEX_M33,
    "Cortex-M7": CORTEX_M7,
    "Cortex-M0+": CORTEX_M0PLUS,
    "Cortex-M0+ with 32-cycle multiplier": CORTEX_M0PLUS_SMALL,
    "ESP32-C3": ESP32_C3,
    "Cortex-A53": CORTEX_A53,
    "Cortex-A72": CORTEX_A72,
}
"""Cycle models by the name that a profile's `[device] core` gives."""


def core_timing(core: str) -> CoreTiming:
    """The cycle model of a profile's `[device] core`.

    Raises:
        ProfileError: there is none.

    >>> core_timing("Cortex-M0+ with 32-cycle multiplier").multiply
    32
    """
    if core not in CORES:
        raise ProfileError(
            f"To be emulated, a profile's [device] core must be one of {', '.join(CORES)}, but found {core!r}; "
            "correct it, or measure on the device itself with --target ssh:USER@HOST."
        )
    return CORES[core]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashTiming:
    """A flash behind instruction and data caches (least recently used; 0 ways: fully associative).

    A code line that follows the last one fetched has been prefetched and costs no wait.
    """

    wait_states: int
    code_lines: int
    code_line_bytes: int
    data_lines: int
    data_line_bytes: int
    code_ways: int = 0
    data_ways: int = 0

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
        in_line, entered = _costs(instructions, timing)
        for instruction, following, arriving in zip(instructions, in_line, entered, strict=True):
            index = (instruction.address - code_start) // 2
            self.starts[index] = 1
            self.in_line[index] = following
            self.entered[index] = arriving
            self.taken[index] = _taken(instruction, timing) if instruction.ends_flow else 0


def _costs(instructions: list[Instruction], timing: CoreTiming) -> tuple[list[int], list[int]]:
    """Cycles of each instruction after the one before it, and after a taken branch."""
    if timing.pipeline:
        costs = pipelines.issue_costs(instructions, pipelines.PIPELINES[timing.pipeline])
        return costs, costs
    return issue_costs(instructions, timing.divide) if timing.dual_issue else _single_issue(instructions, timing)


def _taken(instruction: Instruction, timing: CoreTiming) -> int:
    if instruction.kind is Kind.MULTIPLE:
        return timing.refill + timing.loaded_counter
    is_call = instruction.kind is Kind.BRANCH and instruction.size == 4
    return timing.refill + (timing.call if is_call else 0)


def _single_issue(instructions: list[Instruction], timing: CoreTiming) -> tuple[list[int], list[int]]:
    """Cycles of each instruction after the one before it, and after a taken branch."""
    in_line, entered = [], []
    previous: Instruction | None = None
    alignment = timing.unaligned_fetch
    for instruction, run in zip(instructions, _unaligned_runs(instructions), strict=True):
        in_line.append(_cycles(instruction, previous, timing) + alignment * (run == 3))
        entered.append(_cycles(instruction, None, timing) + alignment * instruction.is_unaligned_fetch)
        previous = instruction
    return in_line, entered


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
    stall, follows_load = 0, False
    if previous and timing.load_use:
        stall = timing.load_use * bool(previous.loads & instruction.reads)
    if previous and timing.pairs_loads:
        computed = previous.kind in DATA_PROCESSING and not previous.ends_flow
        stall = int(computed and bool(previous.writes & instruction.address_registers))
        follows_load = previous.kind is Kind.LOAD and not previous.loads & instruction.address_registers
    fixed = {
        Kind.PAIR: 3,
        Kind.MULTIPLE: 1 + instruction.n_registers,
        Kind.TABLE_BRANCH: 3,
        Kind.DIVIDE: timing.divide,
        Kind.FLOAT_MAC: 3,
        Kind.FLOAT_DIVIDE: 14,
        Kind.MULTIPLY: timing.multiply,
    }
    if kind is Kind.LOAD:
        return stall + (1 if follows_load else timing.load)
    if kind is Kind.STORE:
        slow = timing.pairs_loads and instruction.register_offset and not follows_load
        return stall + (2 if slow else timing.store)
    return stall + fixed.get(kind, 1)
