"""This computer, timed by its monotonic clock."""

import ctypes
import hashlib
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hwsearch.emulation.build_target import HOST
from hwsearch.emulation.image import code_bytes
from hwsearch.emulation.toolchain import Compiler, build_shared, find_compiler
from hwsearch.graph.menu import PolicyKind
from hwsearch.hardware.header import ProfileHeader
from hwsearch.hardware.profile import Provenance
from hwsearch.integers.cases import Case
from hwsearch.kernels.catalogue import C_FOLDER, Kernel, kernel
from hwsearch.measuring.targets.clock import REPEAT_NS, REPEATS, timing_of
from hwsearch.measuring.targets.kernel_sources import INCLUDES
from hwsearch.measuring.targets.placed_call import record
from hwsearch.measuring.targets.target import Timing


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

    name: ClassVar[str] = HOST.name
    unit: ClassVar[str] = "ns"
    provenance: ClassVar[Provenance] = Provenance.MEASURED
    workers: ClassVar[int] = 1
    on_this_computer: ClassVar[bool] = True
    is_model: ClassVar[bool] = False

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
        calls = max(1, round(REPEAT_NS / max(float(measure(1, 3).min()), 1.0)))
        return timing_of(measure(calls, REPEATS), written.tobytes())


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


@contextmanager
def open_host(_name: str, header: ProfileHeader) -> Iterator[HostTarget]:
    """This computer, built for by the compiler that the profile names."""
    yield HostTarget(compiler=find_compiler(HOST, header.library.compiler_name))
