"""Another computer over ssh: one program is built here for its processor, copied there, and fed with jobs."""

import hashlib
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from hwsearch.emulation.build_target import LINUX_TARGETS
from hwsearch.emulation.image import code_bytes
from hwsearch.emulation.toolchain import Compiler, build_program, build_shared, find_compiler, in_cache
from hwsearch.errors import ProfileError
from hwsearch.graph.menu import PolicyKind
from hwsearch.hardware.header import ProfileHeader
from hwsearch.hardware.profile import Provenance
from hwsearch.integers.cases import Case
from hwsearch.kernels.catalogue import C_FOLDER, Kernel, all_kernels, kernel
from hwsearch.measuring.targets.clock import REPEAT_NS, REPEATS, timing_of
from hwsearch.measuring.targets.kernel_sources import INCLUDES, units
from hwsearch.measuring.targets.placed_call import record
from hwsearch.measuring.targets.ssh_connection import Address, Connection
from hwsearch.measuring.targets.target import Timing

_JOB = "<64s6I"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteTarget:
    """Another computer, timed by its monotonic clock."""

    name: ClassVar[str] = "ssh"
    unit: ClassVar[str] = "ns"
    provenance: ClassVar[Provenance] = Provenance.MEASURED
    workers: ClassVar[int] = 1
    on_this_computer: ClassVar[bool] = False
    is_model: ClassVar[bool] = False

    compiler: Compiler
    machine: str
    connection: Connection

    def code_bytes(self, function: Kernel) -> int:
        return code_bytes(_library(self.compiler, function), without="")

    def builtins(self, function: Kernel) -> dict[str, int]:
        return {}  # shared with the whole system

    def runtime(self) -> dict[PolicyKind, dict[str, int]]:
        return {}

    def digest(self, function: Kernel) -> bytes:
        return hashlib.sha256(_library(self.compiler, function)).digest()

    def describe(self) -> str:
        return self.machine

    def time(self, case: Case) -> Timing:
        """Repeated calls with everything in warm caches, each repeat long enough for the clock."""
        arena = bytearray(64)  # address 0 means that there is nothing

        def place(data: bytes) -> int:
            address = len(arena)
            arena.extend(data + bytes(-len(data) % 64))
            return address

        output = place(bytes(case.output_bytes))
        filled = place(record(case, 64, place, place, output))
        symbol = kernel(case.op, case.precision).symbol.encode()
        head = (len(arena), filled, output, case.output_bytes, REPEATS, int(REPEAT_NS))
        answer = self.connection.exchange(struct.pack(_JOB, symbol, *head) + arena, 8 * REPEATS + case.output_bytes)
        return timing_of(np.frombuffer(answer, "<f8", REPEATS), answer[8 * REPEATS :])


@cache
def _library(compiler: Compiler, function: Kernel) -> bytes:
    """The file of one kernel built alone: for its size and hash."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / f"{function.symbol}.so"
        sources = [C_FOLDER / source for source in function.sources]
        return build_shared(sources, out=out, compiler=compiler, includes=INCLUDES, macros=function.macros).read_bytes()


def _timing_program(compiler: Compiler, folder: Path) -> Path:
    """The program that holds every kernel and times what it is sent."""
    lines = "".join(f" \\\n    HW_TIMED({function.symbol})" for function in all_kernels())
    table = in_cache("timed", f"#define HW_TIME_TABLE{lines}\n".encode(), "hw_time_table.h").parent
    sources = [C_FOLDER / "hw_time_jobs.c", C_FOLDER / "hw_time_calls.c", *units(all_kernels())]
    return build_program(sources, out=folder / "hw_time_jobs", compiler=compiler, includes=[*INCLUDES, table])


@contextmanager
def open_ssh(address: str, _header: ProfileHeader) -> Iterator[RemoteTarget]:
    """The computer `ssh:USER@HOST[:PORT]`, ready to time.

    Raises:
        ProfileError: the address is no address, or the computer is not one that can be built for.
        ToolchainError: it cannot be reached, or a compiler is missing.
    """
    connection = Connection(Address.parse(address))
    system, processor = connection.ask("uname", "-s").strip(), connection.ask("uname", "-m").strip()
    name = f"{system.lower()}-{processor}"
    if name not in LINUX_TARGETS:
        raise ProfileError(
            f"A computer to measure on must be one of {', '.join(LINUX_TARGETS)}, but {connection.address.place} is {name}; "
            "write its table by hand."
        )
    compiler = find_compiler(LINUX_TARGETS[name])
    with tempfile.TemporaryDirectory() as folder:
        connection.start(_timing_program(compiler, Path(folder)))
    try:
        yield RemoteTarget(compiler=compiler, machine=_describe(connection, system, processor), connection=connection)
    finally:
        connection.close()


def _describe(connection: Connection, system: str, processor: str) -> str:
    """The processor's own name where the system tells it."""
    lines = connection.ask("cat", "/proc/cpuinfo").splitlines()
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "Model"))]
    return f"{named[0] if named else processor}, {system} {processor}, over ssh"
