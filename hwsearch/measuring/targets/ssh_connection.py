"""A computer reached over ssh, and the program that runs there.

Uses the `ssh` and `scp` programs with the user's own configuration, keys and known hosts; a password is never asked for.
The variable HWSEARCH_SSH_CONFIG names another configuration file for them.
"""

import contextlib
import os
import shlex
import shutil
import subprocess
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hwsearch.errors import ProfileError, ToolchainError

PREFIX = "ssh:"
CONFIG_VARIABLE = "HWSEARCH_SSH_CONFIG"
_CONNECT_SECONDS = 10


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
