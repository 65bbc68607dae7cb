"""RV32IMC: decoded as an independent disassembler does, timed as the table in cycle_model.py says."""

from pathlib import Path
from typing import Any

import capstone
import numpy as np
import pytest

from hwsearch.emulation.cores.esp32_c3 import ESP32_C3
from hwsearch.emulation.emulator import EmulatedCore
from hwsearch.emulation.flash import NO_WAIT
from hwsearch.emulation.instructions import Instruction, Kind
from hwsearch.emulation.riscv import decode
from hwsearch.emulation.toolchain import build_elf, find_compiler
from hwsearch.errors import ToolchainError

KINDS = {
    Kind.LOAD: "lb lh lw lbu lhu c.lw c.lwsp",
    Kind.STORE: "sb sh sw c.sw c.swsp",
    Kind.BRANCH: "beq bne blt bge bltu bgeu beqz bnez blez bgez bltz bgtz jal jalr j jr ret c.j c.jal c.jr c.jalr c.beqz c.bnez",
    Kind.MULTIPLY: "mul mulh mulhsu mulhu",
    Kind.DIVIDE: "div divu rem remu",
    Kind.SHIFT: "sll srl sra slli srli srai c.slli c.srli c.srai",
    Kind.OTHER: "add sub and or xor slt sltu addi andi ori xori slti sltiu lui auipc nop li mv not neg seqz snez sgtz sltz "
    "c.addi c.addi16sp c.addi4spn c.li c.lui c.andi c.mv c.add c.and c.or c.xor c.sub c.nop unimp c.unimp",
}
"""Capstone's names of all RV32IMC instructions that compilers emit, its abbreviations included."""
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names.split()}
WIDE_OPCODES = (0x03, 0x13, 0x17, 0x23, 0x33, 0x37, 0x63, 0x67, 0x6F, 0x73, 0x53, 0x2F, 0x07)
AT = 0x0800_0000


@pytest.fixture(scope="module")
def disassembler() -> Any:
    engine = capstone.Cs(capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV32 | capstone.CS_MODE_RISCVC)
    engine.detail = True
    return engine


def ours(code: bytes) -> Instruction | None:
    try:
        return decode(code, AT)[0]
    except ToolchainError:
        return None


def agrees(disassembler: Any, code: bytes) -> bool:
    """Same kind, same size, same target; what capstone does not know or calls by another extension's name is no instruction.

    Capstone names no hints (results to x0) and takes shifts by more than 31, which only 64-bit cores have.
    """
    mine, other = ours(code), next(disassembler.disasm(code, AT), None)
    if other is None:
        return mine is None or not mine.writes
    if other.mnemonic not in KIND_OF or (mine is None and other.mnemonic.removeprefix("c.") in ("slli", "srli", "srai")):
        return mine is None
    immediates = [operand.imm for operand in other.operands if operand.type == capstone.riscv.RISCV_OP_IMM]
    same = mine is not None and (mine.kind, mine.size) == (KIND_OF[other.mnemonic], other.size)
    return same and mine is not None and (mine.target is None or mine.target == AT + immediates[-1])


@pytest.mark.slow
def test_every_narrow_instruction_is_what_a_disassembler_says(disassembler: Any) -> None:
    narrow = (word.to_bytes(2, "little") for word in range(0x10000) if word & 3 != 3)
    assert [code.hex() for code in narrow if not agrees(disassembler, code)] == []


def test_wide_instructions_are_what_a_disassembler_says(disassembler: Any) -> None:
    generator = np.random.default_rng(0)
    words = generator.integers(0, 1 << 25, 20000) & ~0x7F | generator.choice(WIDE_OPCODES, 20000)
    words |= generator.choice([0, 1, 0x20, 0x7F, 0x15], 20000) << 25
    assert [hex(word) for word in words if not agrees(disassembler, int(word).to_bytes(4, "little"))] == []


@pytest.mark.parametrize(
    ("code", "reads", "writes"),
    [
        ("3385c500", {11, 12}, {10}),  # add a0, a1, a2
        ("1447", {14}, {13}),  # lw a3, 8(a4)
        ("a300f800", {15, 16}, set()),  # sb a5, 1(a6)
        ("2e95", {10, 11}, {10}),  # c.add a0, a1
        ("2e85", {11}, {10}),  # c.mv a0, a1
        ("1246", {2}, {12}),  # c.lwsp a2, 4(sp)
        ("c8c1", {10, 11}, set()),  # c.sw a0, 4(a1)
        ("1d8c", {8, 15}, {8}),  # c.sub s0, a5
        ("8296", {13}, {1}),  # c.jalr a3
        ("0561", {2}, {2}),  # c.addi16sp sp, 32
        ("8d45", set(), {11}),  # c.li a1, 3
        ("b3327302", {6, 7}, {5}),  # mulhu t0, t1, t2
    ],
)
def test_registers_read_and_written_are_known(code: str, reads: set[int], writes: set[int]) -> None:
    (found,) = decode(bytes.fromhex(code), AT)
    assert (found.reads, found.writes) == (reads, writes)


def test_what_is_no_instruction_is_refused_with_its_address() -> None:
    with pytest.raises(ToolchainError, match="must be RV32IMC instructions, but found 0x0000302f at 0x8000002"):
        decode(bytes.fromhex("2e952f300000"), AT)


NAKED = """
#pragma GCC diagnostic ignored "-Wunused-parameter"
#define LOOP(name, body) \\
    void name(unsigned n, void *p); \\
    __attribute__((naked)) void name(unsigned n, void *p) { \\
        __asm__ volatile("1: " body "\\n addi a0, a0, -1\\n bnez a0, 1b\\n ret"); }
LOOP(empty, "")
LOOP(alu, "add a2, a0, a0\\n sub a3, a2, a0")
LOOP(multiply, "mul a2, a0, a0\\n mulhu a3, a2, a0")
LOOP(load, "lw a2, 0(a1)\\n lbu a3, 4(a1)")
LOOP(load_then_use, "lw a2, 0(a1)\\n add a3, a2, a2")
LOOP(use_later, "lw a2, 0(a1)\\n add a3, a0, a0\\n add a3, a2, a2")
LOOP(store, "sw a0, 0(a1)\\n sb a0, 4(a1)")
LOOP(divide, "divu a2, a0, a1")
LOOP(not_taken, "beqz a0, 1b\\n")
LOOP(jump, "j 2f\\n nop\\n 2:")
#include <stdint.h>
int32_t sum_of_ten(int32_t a, int32_t b, int32_t c, int32_t d, int32_t e, int32_t f, int32_t g, int32_t h, int32_t i, int32_t j);
int32_t sum_of_ten(int32_t a, int32_t b, int32_t c, int32_t d, int32_t e, int32_t f, int32_t g, int32_t h, int32_t i, int32_t j)
{
    return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h + 9 * i + 10 * j;
}
uint32_t mixed(const uint8_t *data, uint32_t n);
uint32_t mixed(const uint8_t *data, uint32_t n)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += data[i] > 127 ? (uint64_t)data[i] << (i & 31) : data[i] / (i + 1);
    return (uint32_t)(sum >> 8) + *(const volatile uint32_t *)(const volatile void *)(data + 1);
}
"""
TAKEN = 1 + 2
TURNS = {
    "empty": 0, "alu": 2, "multiply": 2, "load": 2, "load_then_use": 1 + 2, "use_later": 3, "store": 2,
    "divide": 17, "not_taken": 1, "jump": TAKEN,
}  # fmt: skip


@pytest.fixture(scope="module")
def elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("riscv")
    (folder / "code.c").write_text(NAKED)
    keep = [*TURNS, "sum_of_ten", "mixed"]
    return build_elf([folder / "code.c"], out=folder / "code.elf", compiler=find_compiler(ESP32_C3.build_target), keep=keep)


@pytest.mark.parametrize("name", TURNS)
def test_a_turn_costs_what_the_table_says(elf: Path, name: str) -> None:
    core = EmulatedCore(elf, core=ESP32_C3, flash=NO_WAIT)
    place, cycles = core.reserve(8), []
    for turns in (100, 300):
        core.call(name, turns, place)
        cycles.append(core.cycles)
    assert cycles[1] - cycles[0] == 200 * (TURNS[name] + 1 + TAKEN)


def test_arguments_beyond_eight_lie_on_the_stack(elf: Path) -> None:
    core = EmulatedCore(elf, core=ESP32_C3, flash=NO_WAIT)
    assert core.call("sum_of_ten", 1, 2, 3, 4, 5, 6, 7, 8, 9, -10 & 0xFFFF_FFFF) == sum(i * i for i in range(1, 10)) - 100


def test_native_and_python_counts_agree_in_every_number(elf: Path) -> None:
    data = np.random.default_rng(0).integers(0, 256, 200, dtype=np.uint8).tobytes()
    runs = []
    for native in (None, False):
        core = EmulatedCore(elf, core=ESP32_C3, native=native, watch_alignment=True)
        value = core.call("mixed", core.place(data, flash=True), 190)
        runs.append((value, core.last))
    assert runs[0] == runs[1]
    assert runs[0][1].flash_cycles > 0 and runs[0][1].instructions > 1000 and runs[0][1].unaligned == 1
