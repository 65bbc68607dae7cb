"""AArch64: the 64-bit instruction set of the Cortex-A, with NEON, decoded by capstone.

Each instruction is given a `form`, by which `pipelines.py` prices it. Names of forms end in "d" or "q" where 64 and 128 bits
of a vector register take different time. Registers are numbered 0 to 30, 31 is the stack pointer, 32 to 63 are the vector
registers, 64 are the flags; the zero register is left out.
"""

import re
from functools import cache
from typing import Any

from hwsearch.emulation.architecture import Architecture
from hwsearch.emulation.image import missing_library
from hwsearch.emulation.instructions import Instruction, Kind

FLAGS = 64
_STACK, _VECTOR = 31, 32
_LOADS = ("ldr", "ldur", "ldp", "ldnp", "ld1", "ld2", "ld3", "ld4", "ldar", "ldxr")
_STORES = ("str", "stur", "stp", "stnp", "st1", "st2", "st3", "st4", "stlr", "stxr")
_BRANCHES = re.compile(r"(b|bl|br|blr|ret|cbz|cbnz|tbz|tbnz|b\..*)$")
_COMPARISONS = ("cmp", "cmn", "tst", "ccmp", "ccmn")
_CONDITIONAL = re.compile(r"(b\..*|cs(el|inc|inv|neg|et|etm)|c(inc|inv|neg)|cc(mp|mn))$")
_DIVISIONS = ("udiv", "sdiv")
_MULTIPLICATIONS = re.compile(r"([us]?mul[lh]?|[us]?madd[l]?|[us]?msub[l]?|[us]?mneg[l]?)$")
_VECTORS = (
    ("multiply long", re.compile(r"[us](mull|mlal|mlsl)2?$")),
    ("multiply", re.compile(r"(mul|mla|mls|sqr?dmulh)$")),
    ("accumulate", re.compile(r"([us]adalp|[us]r?sra)$")),
    ("reduce", re.compile(r"([us]?addl?v|[us](min|max)v)$")),
    ("shift", re.compile(r"[us]shl$")),
    ("round", re.compile(r"[us](r|q|qr)shl$")),
    ("narrow", re.compile(r"([us]qxtn|sqxtun|[us]?q?r?shrun?|[us]?q?r?shrn)2?$")),
    ("table", re.compile(r"tb[lx]$")),
    ("permute", re.compile(r"(zip|uzp)[12]$")),
    ("select", re.compile(r"(bsl|bit|bif)$")),
)
_ACCUMULATIONS = re.compile(r"([us]ml[as]l2?|ml[as]|[us]adalp|[us]r?sra)$")
_SIXTEEN_BYTES = re.compile(r"\.(16b|8h|4s|2d)\b")
_ARRANGED = re.compile(r"\.\d+[bhsd]\b")
_ELEMENT = re.compile(r"v\d+\.[bhsd]\[")
_GENERAL = re.compile(r"\b([wx]\d+|[wx]zr)\b")
_LANE = re.compile(r"\}\[\d+\]")
_REGISTER = re.compile(r"([wxbhsdqv])(\d+)$")


class Decoder:
    """A disassembler.

    Raises:
        ToolchainError: capstone is not installed.
    """

    def __init__(self) -> None:
        try:
            import capstone
            from capstone import arm64
        except ImportError as missing:
            raise missing_library("capstone") from missing
        self._arm64 = arm64
        self._engine = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
        self._engine.detail = True

    def decode(self, code: bytes, address: int) -> list[Instruction]:
        """The instructions of a stretch of code that holds no data; it ends where nothing valid follows."""
        return [self._describe(found) for found in self._engine.disasm(code, address)]

    def _describe(self, found: Any) -> Instruction:
        arm64 = self._arm64
        form = self._form(found)
        read, written = self._registers(found, form)
        branches = form in ("branch", "call")
        immediates = [operand.imm for operand in found.operands if operand.type == arm64.ARM64_OP_IMM]
        direct = branches and found.mnemonic not in ("br", "blr", "ret")
        return Instruction(
            address=found.address,
            size=found.size,
            kind=_kind(form),
            reads=read,
            writes=written,
            accumulates=self._numbers(found, [found.operands[0].reg]) if _ACCUMULATIONS.match(found.mnemonic) else frozenset(),
            is_store=form.startswith("store"),
            ends_flow=branches,
            target=immediates[-1] if direct and immediates else None,
            form=form,
        )

    def _registers(self, found: Any, form: str) -> tuple[frozenset[int], frozenset[int]]:
        """What is read and written. Capstone takes a comparison's first register and a load's last content for the other."""
        read, written = (self._numbers(found, registers) for registers in found.regs_access())
        if found.mnemonic in _COMPARISONS:
            registers = [operand.reg for operand in found.operands if operand.type == self._arm64.ARM64_OP_REG]
            read, written = self._numbers(found, registers), frozenset()
        if form.startswith("load") and not _LANE.search(found.op_str):
            read = frozenset(number for number in read if number < _VECTOR)
        flags = frozenset({FLAGS})
        read = read | flags if _CONDITIONAL.match(found.mnemonic) else read - flags
        return read, written | flags if found.update_flags else written - flags

    def _numbers(self, found: Any, registers: list[int]) -> frozenset[int]:
        return frozenset(n for n in (_number(found.reg_name(register)) for register in registers) if n is not None)

    def _form(self, found: Any) -> str:
        name, text = found.mnemonic, found.op_str
        if _BRANCHES.match(name):
            return "call" if name in ("bl", "blr") else "branch"
        if name.startswith((*_LOADS, *_STORES, "prfm")):
            return _memory_form(name, text)
        if _ARRANGED.search(text) or _ELEMENT.search(text) or name == "fmov":
            return _vector_form(name, text)
        return self._general_form(found)

    def _general_form(self, found: Any) -> str:
        if _MULTIPLICATIONS.match(found.mnemonic):
            return "multiply general"
        if found.mnemonic in _DIVISIONS:
            return "divide"
        shifted = any((operand.shift.type and operand.shift.value) or operand.ext for operand in found.operands)
        return "shifted" if shifted else "plain"


def _vector_form(name: str, text: str) -> str:
    """Arithmetic, and moves between vector and general registers."""
    into_vector = text.startswith("v") or re.match(r"[bhsd]\d", text) is not None
    if _GENERAL.search(text):
        return "insert" if into_vector else "transfer"
    family = next((family for family, pattern in _VECTORS if pattern.match(name)), "vector")
    sized = text.partition(",")[0] if family == "table" else text  # its table is always 128 bits wide
    return f"{family} {'q' if _SIXTEEN_BYTES.search(sized) else 'd'}"


def _memory_form(name: str, text: str) -> str:
    """Loads and stores: one register, a pair, one lane, or several registers with their elements dealt out."""
    access = "store" if name.startswith("st") else "load"
    first = text.partition(",")[0]
    if name.startswith(("ldp", "ldnp", "stp", "stnp")):
        return f"{access} pair{' q' if first.startswith('q') else ''}"
    if not text.startswith("{"):
        return f"{access}{' q' if first.startswith('q') else ''}"
    count = text.partition("}")[0].count("v")
    if _LANE.search(text) or name.endswith("r"):
        return f"{access} lane"
    return f"{access} q" if count == 1 else f"{access} {'two' if count == 2 else 'four'}"


def _kind(form: str) -> Kind:
    starts = {
        "load": Kind.LOAD, "store": Kind.STORE, "branch": Kind.BRANCH, "call": Kind.BRANCH, "divide": Kind.DIVIDE,
        "multiply": Kind.MULTIPLY, "plain": Kind.OTHER, "shifted": Kind.SHIFT,
    }  # fmt: skip
    return starts.get(form.partition(" ")[0], Kind.SIMD)


def _number(name: str) -> int | None:
    if name in ("sp", "wsp"):
        return _STACK
    if name == "nzcv":
        return FLAGS
    found = _REGISTER.match(name)
    if found is None:
        return {"fp": 29, "lr": 30}.get(name)
    return int(found[2]) + (0 if found[1] in "wx" else _VECTOR)


@cache
def decoder() -> Decoder:
    """The one disassembler of this process."""
    return Decoder()


def _decode(code: bytes, address: int) -> list[Instruction]:
    return decoder().decode(code, address)


AARCH64 = Architecture(
    name="AArch64",
    pointer_bits=64,
    engine="UC_ARCH_ARM64",
    modes=("UC_MODE_ARM",),
    constants="arm64_const",
    arguments=tuple(f"UC_ARM64_REG_X{index}" for index in range(8)),
    stack="UC_ARM64_REG_SP",
    return_address="UC_ARM64_REG_X30",
    counter="UC_ARM64_REG_PC",
    endless=b"\x00\x00\x00\x14",
    decode=_decode,
)
"""Calls follow Arm's procedure call standard for the 64-bit architecture."""
