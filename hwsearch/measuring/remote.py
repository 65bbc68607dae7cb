"""Timing on another computer over ssh: one program is built here for its processor, copied there, and fed with jobs.

Uses the `ssh` and `scp` programs with the user's own configuration, keys and known hosts; a password is never asked for.
The variable HWSEARCH_SSH_CONFIG names another configuration file for them.
"""

import contextlib
import hashlib
import os
import shlex
import shutil
import struct
import subprocess
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from hwsearch.emulation.image import code_bytes
from hwsearch.emulation.toolchain import LINUX_TARGETS, Compiler, build_program, build_shared, find_compiler, in_cache
from hwsearch.errors import ProfileError, ToolchainError
from hwsearch.graph.menu import PolicyKind
from hwsearch.hardware.profile import Provenance
from hwsearch.kernels.catalogue import C_FOLDER, Kernel, all_kernels, kernel
from hwsearch.measuring.cases import Case
from hwsearch.measuring.targets import HOST_REPEAT_NS, HOST_REPEATS, INCLUDES, Timing, record, units

PREFIX = "ssh:"
CONFIG_VARIABLE = "HWSEARCH_SSH_CONFIG"
_CONNECT_SECONDS = 10
_JOB = "<64s6I"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a computer answers; `user` and `port` as the user's ssh configuration says if not given."""

    host: str
    user: str | None
    port: int | None

    @classmethod
    def parse(cls, target: str) -> "Address":
        """From `ssh:USER@HOST:PORT`, user and port optional.

        >>> Address.parse("ssh:pi@board.local:2222")
        Address(host='board.local', user='pi', port=2222)
        """
        user, at, place = target.removeprefix(PREFIX).rpartition("@")
        host, colon, port = place.partition(":")
        valid_port = not colon or (port.isdecimal() and 0 < int(port) < 65536)
        # A leading dash would be read as an option by ssh.
        if not host or host.startswith("-") or user.startswith("-") or (at and not user) or not valid_port:
            raise ProfileError(
                f"A computer to measure on must be given as ssh:USER@HOST or ssh:USER@HOST:PORT, but found {target!r}; "
                "correct it."
            )
        return cls(host=host, user=user or None, port=int(port) if colon else None)

    @property
    def place(self) -> str:
        return f"{self.user}@{self.host}" if self.user else self.host


class Connection:
    """One computer reached over ssh, and the program that runs there until the connection is closed."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._program: subprocess.Popen[bytes] | None = None

    def ask(self, *command: str) -> str:
        """What a command prints there."""
        return self._run([*self._command("ssh"), self.address.place, shlex.join(command)])

    def start(self, program: Path) -> None:
        """Copy a program and start it. Its folder is removed when it ends; nothing else is left behind."""
        folder = self.ask("mktemp", "-d").strip()
        there = f"{folder}/{program.name}"
        copied = [*self._command("scp", port_option="-P"), "-q", str(program), f"{self.address.place}:{there}"]
        self._run(copied)
        quoted = shlex.quote(folder)
        shell = f"trap 'rm -rf {quoted}' EXIT; chmod 700 {shlex.quote(there)} && {shlex.quote(there)}"
        self._program = subprocess.Popen(
            [*self._command("ssh"), self.address.place, shell], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        weakref.finalize(self, _end, self._program)

    def exchange(self, message: bytes, n_bytes: int) -> bytes:
        """Send a message to the program and read its answer."""
        program = self._program
        assert program and program.stdin and program.stdout
        with contextlib.suppress(BrokenPipeError):
            program.stdin.write(message)
            program.stdin.flush()
        answer = program.stdout.read(n_bytes)
        if len(answer) != n_bytes:
            raise ToolchainError(
                f"The timing program on {self.address.place} must answer with {n_bytes} bytes, but stopped after {len(answer)}; "
                "check that the computer has free memory and stays reachable, and measure again."
            )
        return answer

    def close(self) -> None:
        if self._program:
            _end(self._program)

    def _command(self, name: str, port_option: str = "-p") -> list[str]:
        if not shutil.which(name):
            raise ToolchainError(
                f"Measuring over ssh needs the program {name}, but it is not installed; install OpenSSH's client."
            )
        configuration = os.environ.get(CONFIG_VARIABLE)
        port = self.address.port
        return [
            name, *(["-F", configuration] if configuration else []),
            "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_SECONDS}", *([port_option, str(port)] if port else []),
        ]  # fmt: skip

    def _run(self, command: Sequence[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            raise ToolchainError(
                f"The computer {self.address.place} must be reachable with {command[0]} and a key, but {command[0]} left with "
                f"code {done.returncode} and said: {said[-1] if said else 'nothing'}; "
                f"try `ssh {self.address.place}` by hand first."
            )
        return done.stdout


def _end(program: subprocess.Popen[bytes]) -> None:
    if program.stdin:
        with contextlib.suppress(BrokenPipeError):
            program.stdin.close()  # the program ends with its input
    program.wait()
    if program.stdout:
        program.stdout.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteTarget:
    """Another computer, timed by its monotonic clock."""

    name: ClassVar[str] = "ssh"
    unit: ClassVar[str] = "ns"
    provenance: ClassVar[Provenance] = Provenance.MEASURED
    workers: ClassVar[int] = 1

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
        head = (len(arena), filled, output, case.output_bytes, HOST_REPEATS, int(HOST_REPEAT_NS))
        answer = self.connection.exchange(struct.pack(_JOB, symbol, *head) + arena, 8 * HOST_REPEATS + case.output_bytes)
        p05, median, p95 = np.percentile(np.frombuffer(answer, "<f8", HOST_REPEATS), [5, 50, 95])
        written = answer[8 * HOST_REPEATS :]
        return Timing(median=float(median), p05=float(p05), p95=float(p95), repeats=HOST_REPEATS, output=written)


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


@contextlib.contextmanager
def remote_target(target: str) -> Iterator[RemoteTarget]:
    """The computer `ssh:USER@HOST[:PORT]`, ready to time.

    Raises:
        ProfileError: the address is no address, or the computer is not one that can be built for.
        ToolchainError: it cannot be reached, or a compiler is missing.
    """
    connection = Connection(Address.parse(target))
    system, processor = connection.ask("uname", "-s").strip(), connection.ask("uname", "-m").strip()
    name = f"{system.lower()}-{processor}"
    if name not in LINUX_TARGETS:
        raise ProfileError(
            f"A computer to measure on must be one of {', '.join(LINUX_TARGETS)}, but {connection.address.place} is {name}; "
            "write its table by hand."
        )
    compiler = find_compiler(name)
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
