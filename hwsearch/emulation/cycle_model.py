"""What a cycle model is: it says what executed instructions cost on a core.

Three kinds: `single_issue.py`, `dual_issue.py` and, for cores that are priced block by block, `pipelines.py`. A core's record in
`cores/` holds its numbers, the words in the table, where they are from and how far they were validated. Cycles per instruction:

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

Not modelled: interrupts, DMA, bus contention, operand-dependent division, mispredicted branches; a load skipped inside an IT
block costs 2, not 1.
"""

from collections.abc import Sequence
from typing import Protocol

from hwsearch.emulation.instructions import Instruction


class CycleModel(Protocol):
    """Costs in cycles."""

    def issue(self, instructions: Sequence[Instruction]) -> tuple[list[int], list[int]]:
        """What each instruction of a straight stretch of code costs after the one before it, and after a taken branch."""

    def taken(self, instruction: Instruction) -> int:
        """What an instruction that leads elsewhere costs more."""
