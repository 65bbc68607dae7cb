"""Instructions of any instruction set as the cycle models see them: what kind, which registers, where a branch leads."""

from dataclasses import dataclass
from enum import Enum, auto


class Kind(Enum):
    LOAD = auto()
    STORE = auto()
    PAIR = auto()
    """Two words at once: Arm's LDRD, STRD."""
    MULTIPLE = auto()
    """A list of words: Arm's LDM, STM, PUSH, POP and their floating-point kin."""
    BRANCH = auto()
    """Every branch, jump, call and return."""
    TABLE_BRANCH = auto()
    DIVIDE = auto()
    FLOAT_MAC = auto()
    FLOAT_DIVIDE = auto()
    MULTIPLY = auto()
    """Every integer multiplication, with or without accumulation."""
    SIMD = auto()
    """Instructions on packed halfwords and bytes, saturation, byte reversal."""
    SHIFT = auto()
    """Shifts, extensions and bit fields, and data processing with a shifted operand."""
    OTHER = auto()


DATA_PROCESSING = frozenset({Kind.MULTIPLY, Kind.SIMD, Kind.SHIFT, Kind.OTHER})
_NONE: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One decoded instruction. Registers are numbers of the decoder's choice; one that always reads 0 is left out.

    `address_registers` are read to form an address, `shifted` are read through the shifter, `accumulates` are what a
    multiplication adds to; `loads` is what a single load writes; `n_registers` counts the words a multiple transfers;
    `is_store` tells STRD and STM from LDRD and LDM; `ends_flow` is true if it may write the program counter; `target` is where a
    direct branch leads; `form` is AArch64's finer kind (see aarch64.py).
    """

    address: int
    size: int
    kind: Kind
    reads: frozenset[int]
    writes: frozenset[int]
    shifted: frozenset[int] = _NONE
    accumulates: frozenset[int] = _NONE
    loads: frozenset[int] = _NONE
    address_registers: frozenset[int] = _NONE
    register_offset: bool = False
    n_registers: int = 0
    is_store: bool = False
    ends_flow: bool = False
    target: int | None = None
    form: str = ""

    @property
    def is_unaligned_fetch(self) -> bool:
        """Whether it is a 32-bit instruction that straddles two words of code memory."""
        return self.size == 4 and self.address % 4 == 2
