"""The NEON functions compute what the numpy reference computes, and write nothing else.

Twice: in the program that times over ssh, run by qemu where it is installed, and on the emulated core.
"""

import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from hwsearch.emulation.build_target import LINUX_TARGETS
from hwsearch.emulation.cores.cortex_a72 import CORTEX_A72
from hwsearch.emulation.emulator import EmulatedCore
from hwsearch.emulation.flash import NO_WAIT
from hwsearch.emulation.isa import Isa
from hwsearch.emulation.single_issue import SingleIssue
from hwsearch.emulation.toolchain import build_elf, find_compiler
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.integers.cases import Case, random_case
from hwsearch.integers.integer_model import OpConstants, StoredWeights
from hwsearch.kernels.catalogue import (
    ALL_PRECISIONS,
    WIDTHS,
    all_kernels,
    kernel,
)
from hwsearch.measuring.targets.kernel_sources import INCLUDES, units
from hwsearch.measuring.targets.ssh import _timing_program
from tests.kernels.guarded import Arena, expected, least_scratch_bytes, on_core

QEMU = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
REPEATS = 3

Board = Callable[[Case], bytes]
"""Runs a call and gives what it wrote."""


@pytest.fixture(scope="module")
def qemu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    found = find_compiler(LINUX_TARGETS["linux-aarch64"])
    flags = tuple("aarch64-linux-musl" if flag.startswith("aarch64-") else flag for flag in found.flags)  # needs no libraries
    program = _timing_program(replace(found, flags=flags), tmp_path_factory.mktemp("board"))
    program.chmod(0o755)
    process = subprocess.Popen([str(QEMU), str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(case: Case) -> bytes:
        assert process.stdin and process.stdout
        arena = Arena(case, scratch_bytes=least_scratch_bytes(case.op, case.precision, Isa.ARMV8_A))
        count, symbol = len(arena.data) - arena.written_from, kernel(case.op, case.precision).symbol
        head = struct.pack("<64s6I", symbol.encode(), len(arena.data), arena.record_at, arena.written_from, count, REPEATS, 0)
        process.stdin.write(head + arena.data)
        process.stdin.flush()
        answer = process.stdout.read(8 * REPEATS + count)
        assert len(answer) == 8 * REPEATS + count, f"crashed: {case.op} {case.precision}"
        return arena.output(answer[8 * REPEATS :])

    yield run
    process.communicate()


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Board:
    program = build_elf(
        units(all_kernels()),
        out=tmp_path_factory.mktemp("emulated") / "kernels.elf",
        compiler=find_compiler(CORTEX_A72.build_target),
        includes=INCLUDES,
        keep=[function.symbol for function in all_kernels()],
    )
    core = EmulatedCore(program, core=replace(CORTEX_A72, cycle_model=SingleIssue(refill=0)), flash=NO_WAIT)

    def run(case: Case) -> bytes:
        return on_core(core, case, least_scratch_bytes(case.op, case.precision, Isa.ARMV8_A))

    return run


NO_QEMU = "no qemu-aarch64 is installed (Debian: qemu-user)"
BOARDS = ["emulated", pytest.param("qemu", marks=pytest.mark.skipif(QEMU is None, reason=NO_QEMU))]


@pytest.fixture(params=BOARDS)
def board(request: pytest.FixtureRequest) -> Board:
    found: Board = request.getfixturevalue(request.param)
    return found


def varied(case: Case, seed: int) -> Case:
    """The same call with other zero points, clamps and, sometimes, scales from far too small to far too large."""
    random = np.random.default_rng(seed)
    old, largest = case.constants, 2**case.precision.activation_bits
    multiplier, shift = old.multiplier, old.shift
    if case.op.kind is not OpKind.ADD and random.random() < 0.4:
        shift = random.integers(1, 52, shift.shape)
        multiplier = np.where(shift == 51, multiplier >> 4, multiplier)
    constants = OpConstants(
        bias=random.integers(-(2**13), 2**13, old.bias.shape).astype(np.int32),
        multiplier=multiplier.astype(np.int32),
        shift=shift.astype(np.int32),
        input_zero=tuple(int(random.choice([0, largest // 2])) for _ in old.input_zero),
        output_zero=int(random.choice([0, 2, 8, 128])),
        output_max=int(random.choice([3, 11, 15, 255])),
    )
    return replace(case, constants=constants)


def with_largest_codes(case: Case) -> Case:
    assert case.stored is not None
    inputs = tuple(np.full_like(codes, 2**case.precision.activation_bits - 1) for codes in case.inputs)
    stored = StoredWeights(codes=np.full_like(case.stored.codes, 2**case.stored.bits - 1), bits=case.stored.bits)
    return replace(case, inputs=inputs, stored=stored)


def convolution(
    in_shape: tuple[int, int, int], outputs: int, size: tuple[int, int], stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0), groups: int = 1,
) -> Op:  # fmt: skip
    axes = zip(in_shape[1:], padding, size, stride, strict=True)
    height, width = [(side + 2 * pad - k) // step + 1 for side, pad, k, step in axes]
    depthwise = groups == in_shape[0] == outputs > 1
    return Op(
        name="conv", kind=OpKind.DEPTHWISE_CONV2D if depthwise else OpKind.CONV2D, inputs=("input",), in_shape=in_shape,
        out_shape=(outputs, height, width), kernel=size, stride=stride, padding=padding, groups=groups,
    )  # fmt: skip


def linear(inputs: int, outputs: int) -> Op:
    return Op(name="fc", kind=OpKind.LINEAR, inputs=("input",), in_shape=(inputs,), out_shape=(outputs,))


def random_op(random: np.random.Generator, depthwise: bool) -> Op:
    """Odd sizes, one pixel, few and many channels, every padding."""
    size = (3, 3) if random.random() < 0.4 else (int(random.integers(1, 6)), int(random.integers(1, 6)))
    stride = (1, 1) if random.random() < 0.5 else (int(random.integers(1, 4)), int(random.integers(1, 4)))
    padding = (int(random.integers(0, size[0])), int(random.integers(0, size[1])))
    sides = (int(random.integers(size[0], 12)), int(random.integers(size[1], 16)))
    if depthwise:
        groups = int(random.choice([2, 3, 7, 8, 9, 16, 19, 24, 40]))
        return convolution((groups, *sides), groups, size, stride, padding, groups)
    groups = int(random.choice([1, 1, 1, 2, 3]))
    channels, outputs = groups * int(random.choice([1, 2, 3, 5, 8, 16, 17, 24, 32, 72])), groups * int(random.integers(1, 11))
    return convolution((channels, *sides), outputs, size, stride, padding, groups)


def stored_widths(precision: Precision) -> list[int]:
    return [bits for bits in WIDTHS if bits >= precision.weight_bits]


@pytest.mark.parametrize("precision", ALL_PRECISIONS, ids=str)
def test_random_shapes_agree(board: Board, precision: Precision) -> None:
    random = np.random.default_rng(ALL_PRECISIONS.index(precision))
    for seed in range(36):
        op = (
            random_op(random, seed % 3 == 1)
            if seed % 3 < 2
            else linear(int(random.integers(1, 400)), int(random.integers(1, 10)))
        )
        widths = stored_widths(precision)
        logits = seed % 8 == 7
        case = random_case(op, precision, widths[seed // 3 % len(widths)], seed, logits=logits)
        case = case if logits else varied(case, seed)
        assert board(case) == expected(case), f"seed {seed}: {op} {precision} stored at {case.stored_bits}"


@pytest.mark.parametrize("precision", ALL_PRECISIONS, ids=str)
def test_lanes_hold_the_largest_sums(board: Board, precision: Precision) -> None:
    """Windows beyond every limit of 8- and 16-bit lanes, at all stored widths."""
    ops = [
        convolution((257, 4, 5), 5, (3, 3), padding=(1, 1)),
        convolution((1040, 3, 3), 5, (1, 1)),
        convolution((3, 8, 8), 4, (3, 3), stride=(2, 2), padding=(1, 1)),
        convolution((16, 9, 9), 16, (3, 3), padding=(1, 1), groups=16),
        convolution((8, 11, 11), 8, (8, 8), groups=8),
        convolution((8, 11, 11), 8, (9, 9), groups=8),
        linear(4100, 5),
    ]
    for stored in stored_widths(precision):
        for op in ops:
            for logits in (True, False):
                case = with_largest_codes(random_case(op, precision, stored, 1, logits=logits))
                assert board(case) == expected(case), f"{op} {precision} stored at {stored}"


@pytest.mark.parametrize("precision", ALL_PRECISIONS, ids=str)
def test_shapes_of_real_networks_agree(board: Board, precision: Precision) -> None:
    ops = [
        convolution((16, 32, 32), 16, (3, 3), padding=(1, 1)),
        convolution((64, 8, 8), 64, (3, 3), padding=(1, 1)),
        convolution((1, 49, 10), 64, (10, 4), stride=(2, 2), padding=(5, 1)),
        convolution((16, 32, 32), 32, (1, 1), stride=(2, 2)),
        convolution((64, 12, 12), 64, (1, 1)),
        convolution((64, 25, 5), 64, (3, 3), padding=(1, 1), groups=64),
        linear(640, 128),
    ]
    for op in ops:
        case = random_case(op, precision, 8, 3)
        assert board(case) == expected(case), f"{op} {precision}"


def test_weightless_operations_agree(board: Board) -> None:
    random = np.random.default_rng(0)
    for seed in range(80):
        bits, channels = int(random.choice([1, 2, 4, 8])), int(random.choice([1, 3, 7, 8, 9, 16, 21, 32, 40]))
        size = (int(random.integers(1, 5)), int(random.integers(1, 5)))
        pool = convolution((channels, int(random.integers(4, 13)), int(random.integers(4, 13))), channels, size,
                           (int(random.integers(1, 5)), int(random.integers(1, 5))), (size[0] // 2, size[1] // 2))  # fmt: skip
        kind = [OpKind.MAX_POOL, OpKind.AVG_POOL, OpKind.ADD, OpKind.REQUANTIZE][seed % 4]
        if kind in (OpKind.MAX_POOL, OpKind.AVG_POOL):
            op = replace(pool, kind=kind, groups=1)
        else:
            op = Op(name="op", kind=kind, inputs=("a", "b")[: 1 + (kind is OpKind.ADD)], in_shape=pool.in_shape,
                    out_shape=pool.in_shape)  # fmt: skip
        case = random_case(op, Precision(0, bits), 0, seed)
        case = case if kind is OpKind.MAX_POOL else varied(case, seed)
        assert board(case) == expected(case), f"seed {seed}: {op} {bits}"
