"""What the instructions of an image cost, where the counts of executed blocks find them.

An instruction costs what it does in its straight-line context, except where a taken branch arrives: there nothing
precedes. Executions come from block counts, and a block that the emulator happened to cut in two costs the same.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsearch.emulation.cycle_model import CycleModel
from hwsearch.emulation.instructions import Instruction

Cycles = NDArray[np.int64]


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

    def add(self, instructions: list[Instruction], code_start: int, model: CycleModel) -> None:
        """Fill in a straight stretch of code."""
        in_line, entered = model.issue(instructions)
        for instruction, following, arriving in zip(instructions, in_line, entered, strict=True):
            index = (instruction.address - code_start) // 2
            self.starts[index] = 1
            self.in_line[index] = following
            self.entered[index] = arriving
            self.taken[index] = model.taken(instruction) if instruction.ends_flow else 0
