"""Thumb: the instruction set of the Cortex-M, decoded by capstone."""

from functools import cache
from typing import Any

from hwsearch.emulation.architecture import Architecture
from hwsearch.emulation.image import missing_library
from hwsearch.emulation.instructions import Instruction, Kind

_NAMES = {
    Kind.LOAD: "LDR LDRB LDRH LDRSB LDRSH VLDR",
    Kind.STORE: "STR STRB STRH VSTR",
    Kind.PAIR: "LDRD STRD",
    Kind.MULTIPLE: "LDM LDMDB STM STMDB PUSH POP VLDMIA VLDMDB VSTMIA VSTMDB VPUSH VPOP",
    Kind.BRANCH: "B BL BX BLX CBZ CBNZ",
    Kind.TABLE_BRANCH: "TBB TBH",
    Kind.DIVIDE: "SDIV UDIV",
    Kind.FLOAT_MAC: "VMLA VMLS VFMA VFMS VNMLA VNMLS VFNMA VFNMS",
    Kind.FLOAT_DIVIDE: "VDIV VSQRT",
    Kind.MULTIPLY: "MUL MLA MLS SMULL UMULL SMLAL UMLAL UMAAL SMLAD SMLADX SMLSD SMLSDX SMUAD SMUADX SMUSD SMLALD SMLALDX "
    "SMLABB SMLABT SMLATB SMLATT SMULBB SMULBT SMULTB SMULTT SMLAWB SMLAWT SMULWB SMULWT SMMUL SMMULR SMMLA SMMLAR "
    "SMLALBB SMLALBT SMLALTB SMLALTT",
    Kind.SIMD: "SXTB16 UXTB16 SXTAB16 UXTAB16 PKHBT PKHTB SSAT USAT SSAT16 USAT16 QADD QSUB SADD8 UADD8 UHADD8 SADD16 UADD16 "
    "SSUB16 USUB16 USAD8 USADA8 SEL REV REV16 REVSH",
    Kind.SHIFT: "SXTB UXTB SXTH UXTH UBFX SBFX BFI BFC LSL LSR ASR ROR RRX",
}
_LONG_ACCUMULATION = ("SMLAL", "UMLAL", "UMAAL", "SMLALD", "SMLALDX", "SMLALBB", "SMLALBT", "SMLALTB", "SMLALTT")
_BARE_LISTS = ("PUSH", "POP", "VPUSH", "VPOP")
_STORES = ("STR", "STRB", "STRH", "VSTR", "STRD", "STM", "STMDB", "PUSH", "VSTMIA", "VSTMDB", "VPUSH")
_MEMORY = (Kind.LOAD, Kind.STORE, Kind.PAIR)


class Decoder:
    """A disassembler.

    Raises:
        ToolchainError: capstone is not installed.
    """

    def __init__(self) -> None:
        try:
            import capstone
            from capstone import arm
        except ImportError as missing:
            raise missing_library("capstone") from missing
        self._arm = arm
        self._engine = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
        self._engine.detail = True
        self._kinds = {_id(arm, name): kind for kind, names in _NAMES.items() for name in names.split()}
        self._bare_lists = {_id(arm, name) for name in _BARE_LISTS}
        self._long = {_id(arm, name) for name in _LONG_ACCUMULATION}
        self._stores = {_id(arm, name) for name in _STORES}

    def decode(self, code: bytes, address: int) -> list[Instruction]:
        """The instructions of a stretch of code that holds no data; it ends where nothing valid follows."""
        return [self._describe(found) for found in self._engine.disasm(code, address)]

    def _describe(self, found: Any) -> Instruction:
        arm = self._arm
        kind = self._kinds.get(found.id, Kind.OTHER)
        registers = [operand.reg for operand in found.operands if operand.type == arm.ARM_OP_REG]
        memory = [operand.mem for operand in found.operands if operand.type == arm.ARM_OP_MEM]
        read, written = (frozenset(registers) for registers in found.regs_access())
        shifted = frozenset(o.reg for o in found.operands if o.type == arm.ARM_OP_REG and o.shift.type and o.shift.value)
        kind = Kind.SHIFT if kind is Kind.OTHER and shifted else kind
        ends_flow = kind in (Kind.BRANCH, Kind.TABLE_BRANCH) or arm.ARM_REG_PC in written or _pops_pc(arm, kind, registers)
        targets = [operand.imm for operand in found.operands if operand.type == arm.ARM_OP_IMM]
        return Instruction(
            address=found.address,
            size=found.size,
            kind=kind,
            reads=read,
            writes=written,
            shifted=shifted,
            accumulates=self._accumulates(found, kind, registers),
            loads=frozenset(registers[:1]) if kind is Kind.LOAD else frozenset(),
            address_registers=self._address_registers(found, kind, registers, memory),
            register_offset=any(part.index for part in memory),
            n_registers=self._n_registers(found, kind, registers),
            is_store=found.id in self._stores,
            ends_flow=ends_flow,
            target=targets[-1] if kind is Kind.BRANCH and targets else None,
        )

    def _address_registers(self, found: Any, kind: Kind, registers: list[int], memory: list[Any]) -> frozenset[int]:
        if kind in _MEMORY:
            return frozenset(register for part in memory for register in (part.base, part.index) if register)
        if kind is Kind.MULTIPLE:
            return frozenset({self._arm.ARM_REG_SP} if found.id in self._bare_lists else registers[:1])
        return frozenset()

    def _accumulates(self, found: Any, kind: Kind, registers: list[int]) -> frozenset[int]:
        if kind is not Kind.MULTIPLY:
            return frozenset()
        return frozenset(registers[:2] if found.id in self._long else registers[3:])

    def _n_registers(self, found: Any, kind: Kind, registers: list[int]) -> int:
        """Words transferred by a multiple; a double-precision register is two."""
        if kind is not Kind.MULTIPLE:
            return 0
        listed = registers if found.id in self._bare_lists else registers[1:]
        words = [2 if found.reg_name(register).startswith("d") else 1 for register in listed]
        return sum(words)


def _pops_pc(arm: Any, kind: Kind, registers: list[int]) -> bool:
    return kind is Kind.MULTIPLE and arm.ARM_REG_PC in registers


def _id(arm: Any, name: str) -> int:
    return int(getattr(arm, f"ARM_INS_{name}"))


@cache
def decoder() -> Decoder:
    """The one disassembler of this process."""
    return Decoder()


def _decode(code: bytes, address: int) -> list[Instruction]:
    return decoder().decode(code, address)


THUMB = Architecture(
    name="Thumb",
    pointer_bits=32,
    engine="UC_ARCH_ARM",
    modes=("UC_MODE_THUMB", "UC_MODE_MCLASS"),
    constants="arm_const",
    arguments=tuple(f"UC_ARM_REG_R{index}" for index in range(4)),
    stack="UC_ARM_REG_SP",
    stack_alignment=8,
    return_address="UC_ARM_REG_LR",
    counter="UC_ARM_REG_PC",
    endless=b"\xfe\xe7",
    function_bit=1,
    status="UC_ARM_REG_CPSR",
    decode=_decode,
)
"""Calls follow Arm's procedure call standard."""
