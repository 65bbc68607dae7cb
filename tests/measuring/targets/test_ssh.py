"""Measuring over ssh, against an sshd of this computer that these tests start and stop."""

import getpass
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwsearch.emulation.build_target import LINUX_TARGETS
from hwsearch.emulation.toolchain import find_compiler
from hwsearch.errors import ProfileError, ToolchainError
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.hardware.header import read_header
from hwsearch.hardware.profile import load_profile
from hwsearch.integers.cases import random_case
from hwsearch.integers.op_kinds import run_op
from hwsearch.kernels.catalogue import kernel
from hwsearch.measuring.grid import Work
from hwsearch.measuring.measure import measure
from hwsearch.measuring.targets.ssh import RemoteTarget, open_ssh
from hwsearch.measuring.targets.ssh_connection import CONFIG_VARIABLE, Address, Connection

ANY = read_header(Path(__file__).resolve().parents[3] / "hardware_profiles" / "host_x86_64")
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
needs_sshd = pytest.mark.skipif(
    SSHD is None or platform.system() != "Linux", reason="no sshd is installed here (Debian: openssh-server)"
)

OPS = (
    Op(name="conv", kind=OpKind.CONV2D, inputs=("x",), in_shape=(8, 5, 6), out_shape=(5, 5, 6), kernel=(3, 3), padding=(1, 1)),
    Op(name="fc", kind=OpKind.LINEAR, inputs=("x",), in_shape=(67,), out_shape=(10,)),
    Op(name="add", kind=OpKind.ADD, inputs=("x", "y"), in_shape=(5, 3, 3), out_shape=(5, 3, 3)),
    Op(name="argmax", kind=OpKind.ARGMAX, inputs=("x",), in_shape=(10,), out_shape=(1,)),
)

HEADER = """
schema = 1
[device]
name = "a board on the desk"
isa = "ARMv8-A"
core = "any"
clock_hz = 1_000_000_000
flash_bytes = 1_000_000
ram_bytes = 1_000_000
supply = "5 V"
[counter]
unit = "ns"
[power]
active_mw = 1000
source = "assumed"
[library]
kernel_library = "hwsearch"
version = "0"
compiler = "ziglang"
flags = ""
[validity]
relative_error = 0.1
text = "a test"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`ssh:USER@HOST:PORT` of a server that takes one key, which the configuration file in HWSEARCH_SSH_CONFIG names."""
    folder = tmp_path_factory.mktemp("sshd")
    folder.chmod(0o700)
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True, capture_output=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder / 'host'}\nAuthorizedKeysFile {folder / 'user.pub'}\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n"
    )
    (folder / "config").write_text(
        f"Host *\n  IdentityFile {folder / 'user'}\n  IdentitiesOnly yes\n  StrictHostKeyChecking accept-new\n"
        f"  UserKnownHostsFile {folder / 'known'}\n"
    )
    assert SSHD
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd, as root, shuts itself in
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.PIPE)
    try:
        _wait_for(port, server)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(CONFIG_VARIABLE, str(folder / "config"))
            yield f"ssh:{getpass.getuser()}@127.0.0.1:{port}"
    finally:
        server.terminate()
        server.communicate()


def _wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    for _ in range(100):
        assert server.poll() is None, server.communicate()[1].decode()
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("sshd does not answer")


@pytest.fixture(scope="module")
def target(place: str) -> Iterator[RemoteTarget]:
    with open_ssh(place, ANY) as opened:
        yield opened


@needs_sshd
@pytest.mark.slow
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_the_other_computer_computes_what_the_reference_says(target: RemoteTarget, op: Op) -> None:
    for bits in (8,) if op.kind is OpKind.ARGMAX else (8, 4, 2):
        precision = Precision(bits if op.has_weights else 0, bits)
        case = random_case(op, precision, precision.weight_bits, seed=3)
        timing = target.time(case)
        if op.kind is not OpKind.ARGMAX:
            expected = run_op(op, precision, [codes[None] for codes in case.inputs], case.stored, case.constants)
            assert timing.output == expected.tobytes()
        assert 0 < timing.p05 <= timing.median <= timing.p95 and timing.repeats >= 5
    assert 40 < target.code_bytes(kernel(op, precision)) < 20_000


@needs_sshd
@pytest.mark.slow
def test_a_table_is_measured_over_ssh_and_nothing_stays_there(place: str, tmp_path: Path) -> None:
    profile = tmp_path / "desk_board"
    profile.mkdir()
    (profile / "profile.toml").write_text(HEADER)
    works = [Work(op=OPS[1], precision=Precision(bits, bits), stored_bits=bits) for bits in (4, 8)]
    before = set(Path("/tmp").glob("tmp.*/hw_time_jobs"))
    run = measure("desk_board", target=place, grid=works, folder=tmp_path)
    rows = load_profile("desk_board", [tmp_path]).measurements
    assert run.rows == 2 and run.machine.endswith("over ssh") and run.compiler.startswith("ziglang")
    assert {row.provenance for row in rows} == {"measured"} and {row.run_id for row in rows} == {run.run_id}
    assert set(Path("/tmp").glob("tmp.*/hw_time_jobs")) <= before
    assert measure("desk_board", target=place, grid=works, folder=tmp_path).kept == 2


@needs_sshd
@pytest.mark.slow
def test_a_key_that_is_not_accepted_is_said(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "config"
    other.write_text(f"Host *\n  IdentityFile {tmp_path / 'none'}\n  IdentitiesOnly yes\n  StrictHostKeyChecking no\n"
                     f"  UserKnownHostsFile {tmp_path / 'known'}\n")  # fmt: skip
    monkeypatch.setenv(CONFIG_VARIABLE, str(other))
    with pytest.raises(ToolchainError, match=r"must be reachable with ssh and a key, but ssh left with code 255 .*denied"):
        Connection(Address.parse(place)).ask("uname")


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh client is installed here")
def test_a_computer_that_does_not_answer_is_said_at_once() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    begun = time.monotonic()
    with pytest.raises(ToolchainError, match=r"127\.0\.0\.1 must be reachable .* try `ssh .*127\.0\.0\.1` by hand first"):
        Connection(Address.parse(f"ssh:me@127.0.0.1:{port}")).ask("uname")
    assert time.monotonic() - begun < 10


def test_another_processor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "ask", lambda _self, *command: {"-s": "Linux\n", "-m": "ppc64le\n"}[command[1]])
    with pytest.raises(ProfileError, match="must be one of linux-aarch64, linux-x86_64, but me@there is linux-ppc64le"), \
            open_ssh("ssh:me@there", ANY):  # fmt: skip
        pass


@pytest.mark.parametrize("text", ["ssh:", "ssh:me@", "ssh:@there", "ssh:me@there:port", "ssh:me@there:0", "ssh:-oProxy=x@y"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ProfileError, match=f"must be given as ssh:USER@HOST or ssh:USER@HOST:PORT, but found '{text}'"):
        Address.parse(text)


@pytest.mark.slow
def test_the_timing_program_is_built_for_aarch64_too(tmp_path: Path) -> None:
    from hwsearch.measuring.targets.ssh import _timing_program

    program = _timing_program(find_compiler(LINUX_TARGETS["linux-aarch64"]), tmp_path).read_bytes()
    assert program[:4] == b"\x7fELF" and program[18:20] == b"\xb7\x00"  # EM_AARCH64
