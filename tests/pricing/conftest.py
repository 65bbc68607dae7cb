"""A small network with one exit, and a profile whose every row follows from a known formula."""

import math
from types import SimpleNamespace

import pytest

from hwsearch.emulation.isa import Isa
from hwsearch.graph.controllers import argmax_op, gate_graph
from hwsearch.graph.menu import PolicyKind, PolicyShape
from hwsearch.graph.network import Network
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.hardware.header import Counter, Device, Library, Power, ProfileHeader, Validity
from hwsearch.hardware.profile import HardwareProfile, Measurement, Provenance
from hwsearch.kernels.layout import packed_weight_bytes, scratch_bytes

WIDTHS = (2, 4, 8)


def conv(name: str, source: str, channels: tuple[int, int], side: int, stride: int = 1) -> Op:
    out = -(-side // stride)
    return Op(
        name=name, kind=OpKind.CONV2D, inputs=(source,), in_shape=(channels[0], side, side), out_shape=(channels[1], out, out),
        kernel=(3, 3), stride=(stride, stride), padding=(1, 1),
    )  # fmt: skip


def pool(name: str, source: str, channels: int, side: int, window: int, *, exit_name: str = "") -> Op:
    out = side // window
    return Op(
        name=name, kind=OpKind.AVG_POOL, inputs=(source,), in_shape=(channels, side, side), out_shape=(channels, out, out),
        kernel=(window, window), stride=(window, window), exit=exit_name,
    )  # fmt: skip


def linear(name: str, source: str, in_shape: tuple[int, ...], classes: int, exit_name: str = "") -> Op:
    return Op(name=name, kind=OpKind.LINEAR, inputs=(source,), in_shape=in_shape, out_shape=(classes,), exit=exit_name)


@pytest.fixture
def make() -> SimpleNamespace:
    """The functions of this file, for tests that need other operations."""
    return SimpleNamespace(conv=conv, pool=pool, linear=linear, cycles=cycles, row=row, rows_of=rows_of)


@pytest.fixture
def network() -> Network:
    ops = [
        conv("conv1", "input", (1, 4), 8),
        pool("exit1.pool", "conv1", 4, 8, 4, exit_name="exit1"),
        linear("exit1.fc", "exit1.pool", (4, 2, 2), 10, "exit1"),
        conv("conv2", "conv1", (4, 8), 8, 2),
        pool("pool", "conv2", 8, 4, 4),
        linear("fc", "pool", (8, 1, 1), 10),
    ]
    return Network(ops, (1, 8, 8), "small")


@pytest.fixture
def gate_policy() -> PolicyShape:
    return PolicyShape(kind=PolicyKind.GATE, gate_grid=4, gate_hidden=3)


@pytest.fixture
def gate(gate_policy: PolicyShape) -> Network:
    return gate_graph(gate_policy, (1, 8, 8), 2)


@pytest.fixture
def header() -> ProfileHeader:
    return ProfileHeader(
        schema=1,
        device=Device(
            name="Board",
            isa=Isa.ARMV7E_M,
            core="M4",
            clock_hz=100_000_000,
            flash_bytes=1 << 20,
            ram_bytes=1 << 17,
            supply="1.8 V",
        ),
        counter=Counter(unit="cycles"),
        power=Power(active_mw=40.0, source="test"),
        library=Library(kernel_library="portable", version="1", compiler="cc", flags="-O2", runtime_bytes=500),
        validity=Validity(text="test", relative_error=0.1),
    )


def cycles(op: Op, precision: Precision, stored_bits: int) -> float:
    """A kernel that spends what its loops' turns cost; expanding nested weights costs by how many bits are dropped."""
    work = 40 + 3 * precision.weight_bits + stored_bits - precision.weight_bits
    elements = math.prod(op.out_shape)
    return 200 + elements * 12 + op.macs * work / 16 + math.prod(op.in_shape) * (2 + precision.activation_bits / 8)


def row(header: ProfileHeader, op: Op, precision: Precision, stored_bits: int) -> Measurement:
    count = cycles(op, precision, stored_bits)
    symbol = f"hw_{op.kind}_{precision}" if op.has_weights else f"hw_{op.kind}"
    return Measurement.of_counts(
        header, op, precision, stored_bits=stored_bits, count_median=count, count_p05=count, count_p95=count, repeats=1,
        provenance=Provenance.EMULATED, code_bytes=100 + 10 * precision.weight_bits + precision.activation_bits * op.has_weights,
        weight_bytes=packed_weight_bytes(op, stored_bits) if op.has_weights else 0,
        scratch_bytes=scratch_bytes(op, precision, header.device.isa),
        symbol=symbol, run_id="r1",
    )  # fmt: skip


def rows_of(header: ProfileHeader, op: Op) -> list[Measurement]:
    """Every precision and stored width of one operation."""
    if not op.has_weights:
        return [row(header, op, Precision(0, bits), 0) for bits in WIDTHS]
    return [
        row(header, op, Precision(weights, activations), stored)
        for weights in WIDTHS
        for activations in WIDTHS
        for stored in WIDTHS
        if stored >= weights
    ]


@pytest.fixture
def profile(header: ProfileHeader, network: Network, gate: Network) -> HardwareProfile:
    ops = [*network.ops, *gate.ops, argmax_op(2), argmax_op(10)]
    unique = {measured.key: measured for op in ops for measured in rows_of(header, op)}
    return HardwareProfile(name="board", header=header, measurements=tuple(unique.values()))


@pytest.fixture
def wide_profile(header: ProfileHeader) -> HardwareProfile:
    """A grid of 3x3 convolutions, of pools and of linear layers, none of which is an operation of the small network."""
    ops = [conv("conv", "input", (inputs, outputs), side) for inputs in (2, 6) for outputs in (3, 12) for side in (5, 16)]
    ops += [pool("pool", "input", channels, side, side // 2) for channels in (3, 16) for side in (6, 10)]
    ops += [linear("fc", "input", (inputs,), outputs) for inputs in (6, 40) for outputs in (4, 30)]
    return HardwareProfile(
        name="grid", header=header, measurements=tuple(measured for op in ops for measured in rows_of(header, op))
    )
