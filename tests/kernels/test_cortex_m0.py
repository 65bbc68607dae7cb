"""The Cortex-M0+ functions, emulated, compute what the numpy reference computes, and write nothing else."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from hwsearch.emulation.cores.cortex_m0plus import CORTEX_M0PLUS
from hwsearch.emulation.flash import NO_WAIT
from hwsearch.emulation.isa import Isa
from hwsearch.emulation.toolchain import find_compiler
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import KERNEL_PRECISIONS, WEIGHT_WIDTHS, Precision
from hwsearch.integers.cases import Case, random_case
from hwsearch.integers.integer_model import OpConstants, StoredWeights
from hwsearch.kernels.bodies.cortex_m0 import fields_and_limit
from hwsearch.kernels.catalogue import C_FOLDER, kernel
from hwsearch.kernels.loops.__main__ import M0_FILES, text_of
from hwsearch.measuring.targets.emulator import EmulatorTarget
from tests.kernels.guarded import expected, least_scratch_bytes, on_core
from tests.kernels.sweeps import sweep

GEOMETRY = tuple[tuple[int, int, int], int, tuple[int, int], tuple[int, int], tuple[int, int], int]
GEOMETRIES: tuple[GEOMETRY, ...] = (  # input, outputs, kernel, stride, padding, groups
    ((16, 7, 9), 7, (3, 3), (1, 1), (1, 1), 1),
    ((8, 9, 5), 4, (3, 3), (2, 2), (1, 1), 1),
    ((3, 8, 11), 5, (3, 3), (1, 1), (1, 1), 1),
    ((1, 13, 6), 3, (5, 4), (2, 1), (4, 1), 1),
    ((20, 1, 1), 6, (1, 1), (1, 1), (0, 0), 1),
    ((12, 5, 7), 8, (1, 1), (1, 1), (0, 0), 1),
    ((5, 6, 6), 9, (1, 1), (2, 2), (0, 0), 1),
    ((12, 6, 5), 8, (2, 3), (1, 2), (0, 2), 2),
    ((36, 4, 3), 1, (3, 3), (1, 1), (1, 1), 1),
)
DEPTHWISE: tuple[GEOMETRY, ...] = (
    ((5, 7, 9), 5, (3, 3), (1, 1), (1, 1), 5),
    ((3, 14, 3), 3, (3, 3), (1, 1), (1, 1), 3),
    ((8, 12, 5), 8, (3, 3), (1, 1), (1, 1), 8),
    ((4, 25, 17), 4, (3, 3), (2, 2), (1, 1), 4),
    ((3, 6, 11), 3, (3, 3), (2, 1), (0, 2), 3),
    ((6, 5, 8), 6, (2, 5), (1, 1), (1, 2), 6),
    ((4, 1, 1), 4, (3, 3), (1, 1), (1, 1), 4),
)


def convolution(geometry: GEOMETRY) -> Op:
    in_shape, outputs, size, stride, padding, groups = geometry
    axes = zip(in_shape[1:], padding, size, stride, strict=True)
    sides = [(side + 2 * pad - k) // step + 1 for side, pad, k, step in axes]
    kind = OpKind.DEPTHWISE_CONV2D if groups == in_shape[0] == outputs else OpKind.CONV2D
    return Op(
        name="conv", kind=kind, inputs=("x",), in_shape=in_shape, out_shape=(outputs, sides[0], sides[1]), kernel=size,
        stride=stride, padding=padding, groups=groups,
    )  # fmt: skip


def linear(inputs: int, outputs: int) -> Op:
    return Op(name="fc", kind=OpKind.LINEAR, inputs=("x",), in_shape=(inputs,), out_shape=(outputs,))


@cache
def target() -> EmulatorTarget:
    compiler = find_compiler(CORTEX_M0PLUS.build_target)
    return EmulatorTarget(flash=NO_WAIT, compiler=compiler, core=CORTEX_M0PLUS, watch_alignment=True)


def agrees(case: Case) -> bool:
    """Whether a call computes the reference, touching no word at an odd place and no byte around its buffers."""
    core = target().holding(kernel(case.op, case.precision))
    found = on_core(core, case, least_scratch_bytes(case.op, case.precision, Isa.ARMV6_M))
    assert core.last.unaligned == 0, f"accessed words at odd places: {case.op} {case.precision}"
    return found == expected(case)


def varied(case: Case, seed: int) -> Case:
    """The same call with other zero points, clamps, biases, and shifts on every way that accumulators can go."""
    random = np.random.default_rng(seed)
    old, largest = case.constants, 2**case.precision.activation_bits
    constants = OpConstants(
        bias=random.integers(-(2**13), 2**13, old.bias.shape).astype(np.int32) * int(random.choice([0, 1, 64])),
        multiplier=old.multiplier,
        shift=np.clip(old.shift + random.choice([0, 0, 2, -9, -14]), 1, 51).astype(np.int32),
        input_zero=tuple(int(random.choice([0, largest // 2])) for _ in old.input_zero),
        output_zero=int(random.choice([0, 8, 128])),
        output_max=int(random.choice([1, 15, 255])),
    )
    return replace(case, constants=constants)


def stored_width(precision: Precision, seed: int) -> int:
    widths = [bits for bits in WEIGHT_WIDTHS if bits >= precision.weight_bits]
    return widths[seed % len(widths)]


def with_largest_codes(case: Case) -> Case:
    assert case.stored is not None
    largest = 2**case.precision.activation_bits - 1
    stored = StoredWeights(codes=np.full_like(case.stored.codes, 2**case.stored.bits - 1), bits=case.stored.bits)
    return replace(case, inputs=tuple(np.full_like(codes, largest) for codes in case.inputs), stored=stored)


def disagreements(ops: tuple[Op, ...], precision: Precision) -> Iterator[str]:
    """Calls that differ from the reference: logits and codes, random and largest."""
    for seed, op in enumerate(ops):
        for logits in (False, True):
            case = random_case(op, precision, stored_width(precision, seed + logits), seed, logits=logits)
            for tried in (case if logits else varied(case, seed), with_largest_codes(case)):
                if not agrees(tried):
                    yield f"{op} {precision} stored at {tried.stored_bits}, logits {logits}"


@pytest.mark.parametrize("precision", sweep(KERNEL_PRECISIONS, "w2a2", "w8a8"), ids=str)
def test_convolutions_agree(precision: Precision) -> None:
    assert not list(disagreements(tuple(convolution(geometry) for geometry in GEOMETRIES), precision))


@pytest.mark.parametrize("precision", sweep(KERNEL_PRECISIONS, "w2a2", "w8a8"), ids=str)
def test_depthwise_convolutions_agree(precision: Precision) -> None:
    assert not list(disagreements(tuple(convolution(geometry) for geometry in DEPTHWISE), precision))


@pytest.mark.parametrize("precision", sweep(KERNEL_PRECISIONS, "w2a2", "w8a8"), ids=str)
def test_linear_operations_agree(precision: Precision) -> None:
    assert not list(disagreements((linear(67, 5), linear(1, 1), linear(96, 4), linear(300, 3)), precision))


@pytest.mark.parametrize("kind", [OpKind.ADD, OpKind.MAX_POOL, OpKind.AVG_POOL, OpKind.REQUANTIZE])
def test_operations_without_weights_agree(kind: OpKind) -> None:
    """Every channel count modulo 4, and clamps on both sides."""
    for channels, bits in ((4, 8), (5, 8), (6, 4), (7, 2), (1, 1)):
        pool = kind in (OpKind.MAX_POOL, OpKind.AVG_POOL)
        op = Op(
            name="op", kind=kind, inputs=("x", "y") if kind is OpKind.ADD else ("x",), in_shape=(channels, 5, 6),
            out_shape=(channels, 2, 3) if pool else (channels, 5, 6), kernel=(2, 2) if pool else (1, 1),
            stride=(2, 2) if pool else (1, 1),
        )  # fmt: skip
        case = random_case(op, Precision(0, bits), 0, channels)
        assert agrees(case) and agrees(replace(case, constants=replace(case.constants, output_zero=100, output_max=127)))


@pytest.mark.slow
@pytest.mark.parametrize("precision", [Precision(8, 8), Precision(4, 8), Precision(4, 4), Precision(2, 2)], ids=str)
def test_shapes_of_real_networks_agree(precision: Precision) -> None:
    for geometry in (
        ((16, 32, 32), 16, (3, 3), (1, 1), (1, 1), 1), ((64, 8, 8), 64, (3, 3), (1, 1), (1, 1), 1),
        ((16, 32, 32), 32, (1, 1), (2, 2), (0, 0), 1), ((256, 3, 3), 32, (3, 3), (1, 1), (1, 1), 1),
        ((1, 49, 10), 16, (10, 4), (2, 2), (5, 1), 1), ((64, 25, 5), 64, (3, 3), (1, 1), (1, 1), 64),
    ):  # fmt: skip
        op = convolution(geometry)
        for stored_bits in {precision.weight_bits, 8}:
            assert agrees(random_case(op, precision, stored_bits, 3)), f"{op} {precision}"


@pytest.mark.slow
def test_fields_hold_as_many_products_as_they_may_before_they_are_emptied() -> None:
    """More products than a field holds, all of them the largest."""
    for precision in KERNEL_PRECISIONS:
        fields, limit = fields_and_limit(precision)
        if fields > 1:
            op = convolution(((limit + 5, 1, 2), 3, (1, 1), (1, 1), (0, 0), 1))
            assert agrees(with_largest_codes(random_case(op, precision, precision.weight_bits, 1, logits=True))), str(precision)


def test_generated_files_are_what_the_generator_writes() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in (C_FOLDER / "cortex_m0" / "generated").iterdir()}
    assert written == {name: text_of(name) for name in M0_FILES}
