"""RV32IMC: decoded as an independent disassembler does, computed as the reference says, timed as the table says."""

from pathlib import Path
from typing import Any

import capstone
import pytest

from hwsearch.errors import ToolchainError
from hwsearch.kernels.emulator import EmulatedCore
from hwsearch.kernels.instructions import Instruction, Kind
from hwsearch.kernels.riscv import decode
from hwsearch.kernels.timing import ESP32_C3, NO_WAIT
from hwsearch.kernels.toolchain import build_elf, find_compiler

KINDS = {
    Kind.LOAD: "lb lh lw lbu lhu c.lw c.lwsp",
    Kind.STORE: "sb sh sw c.sw c.swsp",
    Kind.BRANCH: "beq bne blt bge bltu bgeu jal jalr c.j c.jal c.jr c.jalr c.beqz c.bnez",
    Kind.MULTIPLY: "mul mulh mulhsu mulhu",
    Kind.DIVIDE: "div divu rem remu",
    Kind.SHIFT: "sll srl sra slli srli srai c.slli c.srli c.srai c.slli64 c.srli64 c.srai64",
    Kind.OTHER: "add sub and or xor slt sltu addi andi ori xori slti sltiu lui auipc c.addi c.addi16sp c.addi4spn c.li c.lui "
    "c.andi c.mv c.add c.and c.or c.xor c.sub c.nop c.unimp",
}
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names.split()}
ALIASES = {"nop": "addi", "li": "addi", "mv": "addi", "not": "xori", "seqz": "sltiu", "snez": "sltu", "neg": "sub", "sgtz": "slt",
           "sltz": "slt", "j": "jal", "jr": "jalr", "ret": "jalr", "beqz": "beq", "bnez": "bne", "blez": "bge", "bgez": "bge",
           "bltz": "blt", "bgtz": "blt", "unimp": "c.unimp"}  # fmt: skip
AT = 0x0800_0000


def ours(code: bytes) -> Instruction | None:
    try:
        return decode(code, AT)[0]
    except ToolchainError:
        return None


@pytest.fixture(scope="module")
def disassembler() -> Any:
    engine = capstone.Cs(capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV32 | capstone.CS_MODE_RISCVC)
    engine.detail = True
    return engine


def theirs(disassembler: Any, code: bytes) -> Any:
    found = next(disassembler.disasm(code, AT), None)
    return found if found is not None and ALIASES.get(found.mnemonic, found.mnemonic) in KIND_OF else None


def agree(disassembler: Any, code: bytes) -> bool:
    mine, other = ours(code), theirs(disassembler, code)
    if mine is None or other is None:
        return mine is None and other is None
    name = ALIASES.get(other.mnemonic, other.mnemonic)
    return mine.kind is KIND_OF[name] and mine.size == other.size


def test_x(disassembler: Any) -> None:
    wrong = []
    for word in range(65536):
        if word & 3 == 3:
            continue
        code = word.to_bytes(2, "little")
        if not agree(disassembler, code):
            wrong.append((hex(word), ours(code), next(disassembler.disasm(code, AT), None)))
    print(len(wrong), *[str(w) for w in wrong[:60:1]], sep="\n")
    assert not wrong
