"""An emulated core under a cycle model, with the flash of a board."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from hwsearch.emulation.cores.cortex_m4 import CORTEX_M4
from hwsearch.emulation.emulator import EmulatedCore
from hwsearch.emulation.flash import FlashTiming
from hwsearch.emulation.known_cores import find_core
from hwsearch.emulation.processor_core import Core
from hwsearch.emulation.toolchain import Compiler, build_elf, find_compiler
from hwsearch.graph.menu import PolicyKind
from hwsearch.hardware.header import Device, Memory, ProfileHeader
from hwsearch.hardware.profile import Provenance
from hwsearch.integers.cases import Case
from hwsearch.kernels.catalogue import C_FOLDER, Kernel, kernel
from hwsearch.kernels.runtime import runtime_bytes
from hwsearch.measuring.targets.kernel_sources import INCLUDES
from hwsearch.measuring.targets.placed_call import record
from hwsearch.measuring.targets.target import Timing


def flash_timing(memory: Memory) -> FlashTiming:
    """The flash of a profile's `[memory]`."""
    return FlashTiming(
        wait_states=memory.flash_wait_states,
        code_lines=memory.instruction_cache_bytes // memory.instruction_line_bytes,
        code_line_bytes=memory.instruction_line_bytes,
        data_lines=memory.data_cache_bytes // memory.data_line_bytes,
        data_line_bytes=memory.data_line_bytes,
        code_ways=memory.instruction_ways,
        data_ways=memory.data_ways,
    )


@cache
def _build_core(compiler: Compiler, core: Core, flash: FlashTiming, watch_alignment: bool, function: Kernel) -> EmulatedCore:
    with tempfile.TemporaryDirectory() as folder:
        elf = build_elf(
            [C_FOLDER / source for source in function.sources],
            out=Path(folder) / f"{function.symbol}.elf",
            compiler=compiler,
            includes=INCLUDES,
            macros=function.macros,
            keep=[function.symbol],
        )
        return EmulatedCore(elf, core=core, flash=flash, watch_alignment=watch_alignment)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorTarget:
    """A core in unicorn. Weights, constants and the call's record lie in flash, activations and scratch in RAM."""

    name: ClassVar[str] = "emulator"
    unit: ClassVar[str] = "cycles"
    workers: ClassVar[int] = 0
    on_this_computer: ClassVar[bool] = False
    is_model: ClassVar[bool] = True

    compiler: Compiler
    flash: FlashTiming
    core: Core = CORTEX_M4
    watch_alignment: bool = False

    @property
    def provenance(self) -> Provenance:
        """A model of issue alone is held to no silicon."""
        return Provenance.MODELLED if self.core.issue_only else Provenance.EMULATED

    def holding(self, function: Kernel) -> EmulatedCore:
        """The emulated core that holds one kernel and nothing else."""
        return _build_core(self.compiler, self.core, self.flash, self.watch_alignment, function)

    def code_bytes(self, function: Kernel) -> int:
        return self.holding(function).image.own_bytes

    def builtins(self, function: Kernel) -> dict[str, int]:
        return self.holding(function).image.builtins

    def runtime(self) -> dict[PolicyKind, dict[str, int]]:
        return runtime_bytes(self.compiler)

    def digest(self, function: Kernel) -> bytes:
        return hashlib.sha256(repr(self.holding(function).image.segments).encode()).digest()

    def describe(self) -> str:
        flash = self.flash
        code = _cache_text(flash.code_lines, flash.code_line_bytes, flash.code_ways)
        data = _cache_text(flash.data_lines, flash.data_line_bytes, flash.data_ways)
        waits = f"{flash.wait_states} flash wait states, {code} and {data} caches"
        return f"unicorn {version('unicorn')}; {self.core.description}; {waits}"

    def time(self, case: Case) -> Timing:
        """One call from cold caches; emulation is deterministic, so once is enough."""
        return time_on(self.holding(kernel(case.op, case.precision)), case)


def _cache_text(lines: int, line_bytes: int, ways: int) -> str:
    return f"{lines} x {line_bytes} B" + (f" in {ways} ways" if ways else "")


def time_on(core: EmulatedCore, case: Case) -> Timing:
    """One call on a core whose image holds the kernel, from cold caches."""
    core.release()
    output = core.reserve(case.output_bytes)
    filled = record(case, core.core.architecture.pointer_bits, lambda data: core.place(data, flash=True), core.place, output)
    core.call(kernel(case.op, case.precision).symbol, core.place(filled, flash=True))
    cycles = float(core.cycles)
    return Timing(median=cycles, p05=cycles, p95=cycles, repeats=1, output=core.read(output, case.output_bytes))


def emulator_target(device: Device, memory: Memory, prefer: str | None = None) -> EmulatorTarget:
    """The emulated core of a profile; `prefer` names the compiler."""
    core = find_core(device.core)
    return EmulatorTarget(compiler=find_compiler(core.build_target, prefer), flash=flash_timing(memory), core=core)


@contextmanager
def open_emulator(_name: str, header: ProfileHeader) -> Iterator[EmulatorTarget]:
    """The emulated core of a profile, built for by the compiler that the profile names."""
    yield emulator_target(header.device, header.memory, header.library.compiler_name)
