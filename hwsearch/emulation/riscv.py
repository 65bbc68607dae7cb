"""RV32IMC: the 32-bit RISC-V instruction set with multiplication and 16-bit encodings, decoded from the tables of its manual.

Registers are numbered 1 to 31; x0, which always reads 0, is left out.
"""

from collections.abc import Iterable

from hwsearch.emulation.architecture import Architecture
from hwsearch.emulation.instructions import Instruction, Kind
from hwsearch.errors import ToolchainError

RETURN_REGISTER, STACK_REGISTER = 1, 2
_LOAD, _IMMEDIATE, _AUIPC, _STORE, _REGISTER, _LUI, _BRANCH, _JALR, _JAL = 0x03, 0x13, 0x17, 0x23, 0x33, 0x37, 0x63, 0x67, 0x6F
"""Major opcodes of the 32-bit encodings."""


def decode(code: bytes, address: int) -> list[Instruction]:
    """The instructions of a stretch of code that holds no data.

    Raises:
        ToolchainError: it holds what is no RV32IMC instruction.
    """
    instructions, at = [], 0
    while at + 2 <= len(code):
        size = 4 if code[at] & 3 == 3 else 2
        word = int.from_bytes(code[at : at + size], "little")
        found = _wide(word, address + at) if size == 4 else _narrow(word, address + at)
        if found is None:
            raise ToolchainError(
                f"Code must be RV32IMC instructions, but found {word:#0{2 + 2 * size}x} at {address + at:#x}; "
                "build it for that instruction set, and mark data within code."
            )
        instructions.append(found)
        at += size
    return instructions


def _bits(word: int, low: int, count: int) -> int:
    return word >> low & ((1 << count) - 1)


def _signed(value: int, bits: int) -> int:
    return value - (value >> (bits - 1) << bits)


def _gather(word: int, *places: tuple[int, int, int]) -> int:
    """An immediate from its pieces: (lowest bit in the word, number of bits, lowest bit in the immediate)."""
    return sum(_bits(word, low, count) << to for low, count, to in places)


def _registers(*numbers: int) -> frozenset[int]:
    return frozenset(number for number in numbers if number)


def _made(address: int, size: int, kind: Kind, writes: int = 0, reads: Iterable[int] = ()) -> Instruction:
    return Instruction(address=address, size=size, kind=kind, reads=_registers(*reads), writes=_registers(writes))


def _load(address: int, size: int, writes: int, base: int) -> Instruction:
    return Instruction(
        address=address, size=size, kind=Kind.LOAD, reads=_registers(base), writes=_registers(writes),
        loads=_registers(writes), address_registers=_registers(base),
    )  # fmt: skip


def _store(address: int, size: int, value: int, base: int) -> Instruction:
    return Instruction(
        address=address, size=size, kind=Kind.STORE, reads=_registers(value, base), writes=frozenset(), is_store=True,
        address_registers=_registers(base),
    )  # fmt: skip


def _branch(address: int, size: int, offset: int | None, writes: int = 0, reads: Iterable[int] = ()) -> Instruction:
    """A branch, jump, call or return; `offset` is None where a register holds the address."""
    return Instruction(
        address=address, size=size, kind=Kind.BRANCH, reads=_registers(*reads), writes=_registers(writes), ends_flow=True,
        target=None if offset is None else address + offset,
    )  # fmt: skip


def _wide(word: int, address: int) -> Instruction | None:
    """A 32-bit instruction; None if there is none."""
    opcode, rd, rs1, rs2 = _bits(word, 0, 7), _bits(word, 7, 5), _bits(word, 15, 5), _bits(word, 20, 5)
    minor, upper = _bits(word, 12, 3), _bits(word, 25, 7)
    if opcode == _LOAD and minor in (0, 1, 2, 4, 5):
        return _load(address, 4, rd, rs1)
    if opcode == _STORE and minor < 3:
        return _store(address, 4, rs2, rs1)
    if opcode in (_LUI, _AUIPC):
        return _made(address, 4, Kind.OTHER, rd)
    if opcode in (_IMMEDIATE, _REGISTER):
        kind = _immediate_kind(minor, upper) if opcode == _IMMEDIATE else _register_kind(minor, upper)
        return _made(address, 4, kind, rd, [rs1] if opcode == _IMMEDIATE else [rs1, rs2]) if kind else None
    return _wide_branch(word, address)


def _wide_branch(word: int, address: int) -> Instruction | None:
    opcode, rd, rs1, rs2, minor = _bits(word, 0, 7), _bits(word, 7, 5), _bits(word, 15, 5), _bits(word, 20, 5), _bits(word, 12, 3)
    if opcode == _BRANCH and minor not in (2, 3):
        offset = _gather(word, (8, 4, 1), (25, 6, 5), (7, 1, 11), (31, 1, 12))
        return _branch(address, 4, _signed(offset, 13), reads=[rs1, rs2])
    if opcode == _JAL:
        offset = _gather(word, (21, 10, 1), (20, 1, 11), (12, 8, 12), (31, 1, 20))
        return _branch(address, 4, _signed(offset, 21), rd)
    if opcode == _JALR and minor == 0:
        return _branch(address, 4, None, rd, [rs1])
    return None


def _immediate_kind(minor: int, upper: int) -> Kind | None:
    """Of an operation on a register and an immediate; a shift by up to 31."""
    if minor not in (1, 5):
        return Kind.OTHER
    return Kind.SHIFT if upper == 0 or (minor == 5 and upper == 0x20) else None


def _register_kind(minor: int, upper: int) -> Kind | None:
    """Of an operation between two registers."""
    if upper == 1:
        return Kind.MULTIPLY if minor < 4 else Kind.DIVIDE
    if upper == 0 or (upper == 0x20 and minor in (0, 5)):
        return Kind.SHIFT if minor in (1, 5) else Kind.OTHER
    return None


def _narrow(word: int, address: int) -> Instruction | None:
    """A 16-bit instruction; None if there is none. Linkers fill gaps with 0, which faults where it is executed."""
    quadrant = (_zeroth, _first, _second)[word & 3]
    return quadrant(word, address) if word else _made(address, 2, Kind.OTHER)


def _zeroth(word: int, address: int) -> Instruction | None:
    """Quadrant 0: addresses on the stack, loads and stores of words, in the registers 8 to 15."""
    minor, base, data = _bits(word, 13, 3), 8 + _bits(word, 7, 3), 8 + _bits(word, 2, 3)
    if minor == 0:
        return _made(address, 2, Kind.OTHER, data, [STACK_REGISTER]) if _bits(word, 5, 8) else None
    if minor == 2:
        return _load(address, 2, data, base)
    return _store(address, 2, data, base) if minor == 6 else None


def _first(word: int, address: int) -> Instruction | None:
    """Quadrant 1: immediates, arithmetic in the registers 8 to 15, jumps and branches."""
    minor, rd, small = _bits(word, 13, 3), _bits(word, 7, 5), 8 + _bits(word, 7, 3)
    if minor == 0:
        return _made(address, 2, Kind.OTHER, rd, [rd])
    if minor in (1, 5):
        places = ((3, 3, 1), (11, 1, 4), (2, 1, 5), (7, 1, 6), (6, 1, 7), (9, 2, 8), (8, 1, 10), (12, 1, 11))
        return _branch(address, 2, _signed(_gather(word, *places), 12), RETURN_REGISTER if minor == 1 else 0)
    if minor in (2, 3):
        moves_stack = minor == 3 and rd == STACK_REGISTER
        return _made(address, 2, Kind.OTHER, rd, [rd] if moves_stack else []) if not moves_stack or word & 0x107C else None
    if minor in (6, 7):
        offset = _gather(word, (3, 2, 1), (10, 2, 3), (2, 1, 5), (5, 2, 6), (12, 1, 8))
        return _branch(address, 2, _signed(offset, 9), reads=[small])
    return _arithmetic(word, address, small)


def _arithmetic(word: int, address: int, small: int) -> Instruction | None:
    """Shifts right, masks, and operations between two of the registers 8 to 15."""
    form = _bits(word, 10, 2)
    if form < 2:
        return _made(address, 2, Kind.SHIFT, small, [small]) if not _bits(word, 12, 1) else None
    if form == 2:
        return _made(address, 2, Kind.OTHER, small, [small])
    return _made(address, 2, Kind.OTHER, small, [small, 8 + _bits(word, 2, 3)]) if not _bits(word, 12, 1) else None


def _second(word: int, address: int) -> Instruction | None:
    """Quadrant 2: shifts, words on the stack, moves and additions, jumps to registers."""
    minor, rd, rs2, high = _bits(word, 13, 3), _bits(word, 7, 5), _bits(word, 2, 5), _bits(word, 12, 1)
    if minor == 0:
        return _made(address, 2, Kind.SHIFT, rd, [rd]) if not high else None
    if minor == 2:
        return _load(address, 2, rd, STACK_REGISTER) if rd else None
    if minor == 6:
        return _store(address, 2, rs2, STACK_REGISTER)
    if minor != 4:
        return None
    if rs2:
        return _made(address, 2, Kind.OTHER, rd, [rd, rs2] if high else [rs2])
    return _branch(address, 2, None, RETURN_REGISTER if high else 0, [rd]) if rd else None


RV32 = Architecture(
    name="RV32IMC",
    pointer_bits=32,
    engine="UC_ARCH_RISCV",
    modes=("UC_MODE_RISCV32",),
    constants="riscv_const",
    arguments=tuple(f"UC_RISCV_REG_A{index}" for index in range(8)),
    stack="UC_RISCV_REG_SP",
    return_address="UC_RISCV_REG_RA",
    counter="UC_RISCV_REG_PC",
    endless=b"\x01\xa0",
    decode=decode,
)
"""Calls follow the RISC-V integer calling convention."""
