"""Where kernels are timed: an emulated core under a cycle model, this computer or another (`remote.py`) under its clock.

Every kernel is built alone, as a package that uses nothing else would build it; the code measured is the code that ships.
"""

import ctypes
import hashlib
import platform
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from hwsearch.emulation.cycles import CORTEX_M4, CoreTiming, FlashTiming, core_timing
from hwsearch.emulation.emulator import EmulatedCore
from hwsearch.emulation.image import code_bytes
from hwsearch.emulation.toolchain import HOST, Compiler, build_elf, build_shared, find_compiler, in_cache
from hwsearch.graph.menu import PolicyKind
from hwsearch.hardware.header import Device, Memory
from hwsearch.hardware.profile import Provenance
from hwsearch.kernels.catalogue import (
    C_FOLDER,
    REQUANTIZE_FIELDS,
    Kernel,
    arguments,
    kernel,
    op_bytes,
    pack_weights,
    unit,
)
from hwsearch.kernels.layout import largest_scratch_bytes
from hwsearch.kernels.runtime import runtime_bytes
from hwsearch.measuring.cases import Case

EMULATOR = "emulator"
INCLUDES = (C_FOLDER,)
"""Folders that every kernel source needs on its include path."""
HOST_REPEATS = 15
HOST_REPEAT_NS = 150e3
"""How long one repeat on the host lasts at least, so that the clock's resolution does not matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Counts of one call in the target's unit: median and 5th and 95th percentile over repeats; and what the call wrote."""

    median: float
    p05: float
    p95: float
    repeats: int
    output: bytes


class Target(Protocol):
    """Something that runs kernels and counts."""

    name: ClassVar[str]
    unit: ClassVar[str]
    workers: ClassVar[int]
    """How many processes may time at once without disturbing each other; 0 is as many as there are cores."""

    @property
    def compiler(self) -> Compiler:
        """What builds the kernels."""

    @property
    def provenance(self) -> Provenance:
        """Where its counts come from."""

    def code_bytes(self, function: Kernel) -> int:
        """Bytes of machine code and constants of one kernel, without what the compiler's library adds."""

    def builtins(self, function: Kernel) -> dict[str, int]:
        """Bytes of each function of the compiler's library that the kernel needs, where it would be linked with it."""

    def runtime(self) -> dict[PolicyKind, dict[str, int]]:
        """Flash of each policy's package without kernels and data, by part; empty where no image is linked."""

    def digest(self, function: Kernel) -> bytes:
        """A hash of the built kernel."""

    def time(self, case: Case) -> Timing:
        """Run one call."""

    def describe(self) -> str:
        """The machine, in words, for the record of a run."""


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


def units(functions: Iterable[Kernel]) -> list[Path]:
    """A source for each function that compiles it alone, as a package has: what to build where several go into one file."""
    return [in_cache("units", unit(item.sources, item.macros).encode(), f"{item.symbol}.c") for item in functions]


Place = Callable[[bytes], int]


def record(case: Case, pointer_bits: int, constant: Place, variable: Place, output: int) -> bytes:
    """A filled `hw_op` whose data were placed by the given functions, each of which returns an address."""
    constants, op = case.constants, case.op
    inputs = [variable(codes.tobytes()) for codes in case.inputs]

    scratch = largest_scratch_bytes(op, case.precision)
    pointers: dict[str, int | tuple[int, int]] = {
        "input": (inputs[0], inputs[-1] if len(inputs) > 1 else 0),
        "output": output,
        "weights": constant(pack_weights(op, case.stored)) if case.stored else 0,
        "scratch": variable(bytes(scratch)) if scratch else 0,
    }
    tables = [getattr(constants, name) for name in REQUANTIZE_FIELDS]
    joined = np.concatenate(tables).astype("<i4").tobytes()
    address = constant(joined) if joined else 0
    for name, values in zip(REQUANTIZE_FIELDS, tables, strict=True):
        pointers[name] = address if values.size else 0
        address += 4 * values.size
    return op_bytes(pointer_bits, arguments(op, case.precision, case.stored_bits, constants), pointers)


@cache
def _build_core(
    compiler: Compiler, timing: CoreTiming, flash: FlashTiming, watch_alignment: bool, function: Kernel
) -> EmulatedCore:
    with tempfile.TemporaryDirectory() as folder:
        elf = build_elf(
            [C_FOLDER / source for source in function.sources],
            out=Path(folder) / f"{function.symbol}.elf",
            compiler=compiler,
            includes=INCLUDES,
            macros=function.macros,
            keep=[function.symbol],
        )
        return EmulatedCore(elf, core=timing, flash=flash, watch_alignment=watch_alignment)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorTarget:
    """A core in unicorn. Weights, constants and the call's record lie in flash, activations and scratch in RAM."""

    name: ClassVar[str] = EMULATOR
    unit: ClassVar[str] = "cycles"
    workers: ClassVar[int] = 0

    compiler: Compiler
    flash: FlashTiming
    timing: CoreTiming = CORTEX_M4
    watch_alignment: bool = False

    @property
    def provenance(self) -> Provenance:
        """A model of pipelines is held to no silicon."""
        return Provenance.MODELLED if self.timing.pipeline else Provenance.EMULATED

    def core(self, function: Kernel) -> EmulatedCore:
        """The emulated core that holds one kernel and nothing else."""
        return _build_core(self.compiler, self.timing, self.flash, self.watch_alignment, function)

    def code_bytes(self, function: Kernel) -> int:
        return self.core(function).image.own_bytes

    def builtins(self, function: Kernel) -> dict[str, int]:
        return self.core(function).image.builtins

    def runtime(self) -> dict[PolicyKind, dict[str, int]]:
        return runtime_bytes(self.compiler)

    def digest(self, function: Kernel) -> bytes:
        return hashlib.sha256(repr(self.core(function).image.segments).encode()).digest()

    def describe(self) -> str:
        flash = self.flash
        code = _cache_text(flash.code_lines, flash.code_line_bytes, flash.code_ways)
        data = _cache_text(flash.data_lines, flash.data_line_bytes, flash.data_ways)
        waits = f"{flash.wait_states} flash wait states, {code} and {data} caches"
        return f"unicorn {version('unicorn')}; {self.timing.name}; {waits}"

    def time(self, case: Case) -> Timing:
        """One call from cold caches; emulation is deterministic, so once is enough."""
        return time_on(self.core(kernel(case.op, case.precision)), case)


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


@cache
def _build_library(compiler: Compiler, function: Kernel) -> tuple[ctypes.CDLL, bytes]:
    """The loaded library of one kernel and the timing loop, and its file's content."""
    with tempfile.TemporaryDirectory() as folder:
        path = build_shared(
            [C_FOLDER / "hw_time_calls.c", *(C_FOLDER / source for source in function.sources)],
            out=Path(folder) / f"{function.symbol}.so",
            compiler=compiler,
            includes=INCLUDES,
            macros=function.macros,
        )
        return ctypes.CDLL(str(path)), path.read_bytes()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTarget:
    """This computer, timed by its monotonic clock."""

    name: ClassVar[str] = HOST
    unit: ClassVar[str] = "ns"
    provenance: ClassVar[Provenance] = Provenance.MEASURED
    workers: ClassVar[int] = 1

    compiler: Compiler

    def code_bytes(self, function: Kernel) -> int:
        return code_bytes(_build_library(self.compiler, function)[1], without="hw_time_calls")

    def builtins(self, function: Kernel) -> dict[str, int]:
        return {}  # shared with the whole system

    def runtime(self) -> dict[PolicyKind, dict[str, int]]:
        return {}

    def digest(self, function: Kernel) -> bytes:
        return hashlib.sha256(_build_library(self.compiler, function)[1]).digest()

    def describe(self) -> str:
        return f"{processor_name()}, {platform.system()} {platform.machine()}"

    def time(self, case: Case) -> Timing:
        """Repeated calls with everything in warm caches, each repeat long enough for the clock."""
        function = kernel(case.op, case.precision)
        library, _ = _build_library(self.compiler, function)
        kept: list[NDArray[np.uint8]] = []

        def place(data: bytes) -> int:
            return _aligned(np.frombuffer(data, np.uint8), kept)

        output = place(bytes(case.output_bytes))
        written = kept[-1]
        filled = place(record(case, 64, place, place, output))
        call = ctypes.cast(getattr(library, function.symbol), ctypes.c_void_p)

        def measure(calls: int, repeats: int) -> NDArray[np.float64]:
            durations = np.zeros(repeats)
            library.hw_time_calls(
                call, ctypes.c_void_p(filled), ctypes.c_uint32(calls), ctypes.c_uint32(repeats),
                durations.ctypes.data_as(ctypes.c_void_p),
            )  # fmt: skip
            return durations

        measure(1, 1)
        calls = max(1, round(HOST_REPEAT_NS / max(float(measure(1, 3).min()), 1.0)))
        p05, median, p95 = np.percentile(measure(calls, HOST_REPEATS), [5, 50, 95])
        return Timing(median=float(median), p05=float(p05), p95=float(p95), repeats=HOST_REPEATS, output=written.tobytes())


def _aligned(data: NDArray[np.uint8], kept: list[NDArray[np.uint8]]) -> int:
    """Address of a 64-byte aligned copy; the copy goes to the end of `kept`, which keeps it alive."""
    room = np.zeros(len(data) + 64, np.uint8)
    start = -room.ctypes.data % 64
    kept += [room, room[start : start + len(data)]]
    kept[-1][:] = data
    return int(kept[-1].ctypes.data)


def processor_name() -> str:
    """The processor's own name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def emulator_target(device: Device, memory: Memory, prefer: str | None = None) -> EmulatorTarget:
    """The emulated core of a profile; `prefer` names the compiler."""
    timing = core_timing(device.core)
    return EmulatorTarget(compiler=find_compiler(timing.processor, prefer), flash=flash_timing(memory), timing=timing)
