"""An exported C package, compiled and run: on this computer, and on an emulated core."""

import ctypes
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwsearch.emulation.build_target import HOST, ZIG
from hwsearch.emulation.cores.cortex_m4 import CORTEX_M4
from hwsearch.emulation.emulator import EmulatedCore
from hwsearch.emulation.known_cores import CORES
from hwsearch.emulation.toolchain import build_elf, build_shared, find_compiler
from hwsearch.exporters.c_package import package_includes, package_sources
from hwsearch.graph.network import Network
from hwsearch.hardware.header import ProfileHeader
from hwsearch.integers.execute import Execution
from hwsearch.integers.integer_model import Codes
from hwsearch.kernels.runtime import ENTRY_POINTS
from hwsearch.measuring.targets.emulator import flash_timing

RUN, RUN_BETWEEN = "hw_model_run", "hw_model_run_between"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSize:
    """Bytes of a linked package: code and constants, and static variables."""

    flash_bytes: int
    ram_bytes: int


class HostPackage:
    """The package as a shared library of this computer."""

    def __init__(self, folder: Path, network: Network) -> None:
        self.compiler = find_compiler(HOST)
        self._classes = network.output.out_channels
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "hw_model.so"
            build_shared(package_sources(folder), out=out, compiler=self.compiler, includes=package_includes(folder))
            self._library = ctypes.CDLL(str(out))

    def run(self, inputs: Codes) -> Execution:
        """Answers to `[N, H, W, C]` codes."""
        logits = np.zeros((len(inputs), self._classes), np.int32)
        entries = np.zeros(len(inputs), np.int64)
        for index, image in enumerate(np.ascontiguousarray(inputs)):
            aligned = image.copy()  # numpy aligns what it allocates
            entries[index] = self._library[RUN](ctypes.c_void_p(aligned.ctypes.data), ctypes.c_void_p(logits[index].ctypes.data))
        return Execution(logits=logits, entries=entries)


class EmulatedPackage:
    """The package cross-compiled and loaded into the emulated core of a profile, or a Cortex-M4 where it has none."""

    def __init__(self, folder: Path, network: Network, header: ProfileHeader) -> None:
        measured_with_zig = header.library.compiler_name == ZIG
        core = CORES.get(header.device.core, CORTEX_M4)
        self.core = core.name
        self.compiler = find_compiler(core.build_target, ZIG if measured_with_zig else None)
        same_core = header.device.core in CORES and header.counter.unit == "cycles"
        self.is_priced_core = same_core and not header.library.published
        self._classes = network.output.out_channels
        with tempfile.TemporaryDirectory() as scratch:
            elf = build_elf(
                package_sources(folder),
                out=Path(scratch) / "hw_model.elf",
                compiler=self.compiler,
                includes=package_includes(folder),
                keep=(*ENTRY_POINTS, "hw_model_cost_ns"),
            )
            self._core = EmulatedCore(elf, core=core, flash=flash_timing(header.memory))
        self._input = self._core.reserve(int(np.prod(network.input_shape)))
        self._logits = self._core.reserve(4 * self._classes)

    def run(self, inputs: Codes) -> Execution:
        """Answers to `[N, H, W, C]` codes."""
        results = [self._call(image, RUN) for image in inputs]
        return Execution(
            logits=np.array([logits for logits, _ in results], np.int32).reshape(len(inputs), self._classes),
            entries=np.array([entry for _, entry in results], np.int64),
        )

    @property
    def cycles(self) -> int:
        """Cycles of the last inference."""
        return self._core.cycles

    def cycles_of_entry(self, entry: int, image: Codes) -> int:
        """Cycles of a whole inference that is made to end at `entry`, for one `[H, W, C]` image."""
        self._call(image, RUN_BETWEEN, entry, entry)
        return self._core.cycles

    def size(self) -> ImageSize:
        image = self._core.image
        return ImageSize(flash_bytes=image.flash_bytes, ram_bytes=image.ram_bytes)

    def _call(self, image: Codes, symbol: str, *bounds: int) -> tuple[NDArray[np.int32], int]:
        self._core.write(self._input, image.tobytes())
        entry = self._core.call(symbol, self._input, self._logits, *bounds)
        return np.frombuffer(self._core.read(self._logits, 4 * self._classes), "<i4").astype(np.int32), entry
