"""The Cortex-M functions, emulated, compute what the numpy reference computes, and write nothing else."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from hwsearch.emulation.cores.cortex_m4 import CORTEX_M4
from hwsearch.emulation.flash import NO_WAIT
from hwsearch.emulation.isa import Isa
from hwsearch.emulation.toolchain import find_compiler
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.integers.cases import Case, random_case
from hwsearch.integers.integer_model import OpConstants, StoredWeights
from hwsearch.kernels.bodies.cortex_m_polynomials import polynomials
from hwsearch.kernels.catalogue import ALL_PRECISIONS, C_FOLDER, WIDTHS, kernel
from hwsearch.kernels.loops.__main__ import FILES, text_of
from hwsearch.measuring.targets.emulator import EmulatorTarget
from tests.kernels.guarded import expected, least_scratch_bytes, on_core


@cache
def target() -> EmulatorTarget:
    return EmulatorTarget(flash=NO_WAIT, compiler=find_compiler(CORTEX_M4.build_target), watch_alignment=True)


def agrees(case: Case) -> bool:
    core = target().holding(kernel(case.op, case.precision))
    found = on_core(core, case, least_scratch_bytes(case.op, case.precision, Isa.ARMV7E_M))
    assert core.last.unaligned == 0, f"accessed words at odd places: {case.op} {case.precision}"
    return found == expected(case)


def varied(case: Case, seed: int) -> Case:
    """The same call with other zero points, clamps and, sometimes, scales that need the slow way."""
    random = np.random.default_rng(seed)
    old, largest = case.constants, 2**case.precision.activation_bits
    shift = old.shift - random.integers(0, 12) if random.random() < 0.25 else old.shift
    constants = OpConstants(
        bias=random.integers(-(2**13), 2**13, old.bias.shape).astype(np.int32),
        multiplier=old.multiplier,
        shift=np.maximum(shift, 1).astype(np.int32),
        input_zero=tuple(int(random.choice([0, largest // 2])) for _ in old.input_zero),
        output_zero=int(random.choice([0, 2, 8, 128])),
        output_max=int(random.choice([3, 11, 15, 255])),
    )
    return replace(case, constants=constants)


def convolution(
    in_shape: tuple[int, int, int], outputs: int, kernel_size: tuple[int, int], stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0), groups: int = 1,
) -> Op:  # fmt: skip
    axes = zip(in_shape[1:], padding, kernel_size, stride, strict=True)
    sides = [(side + 2 * pad - k) // step + 1 for side, pad, k, step in axes]
    depthwise = groups == in_shape[0] == outputs > 1
    return Op(
        name="conv", kind=OpKind.DEPTHWISE_CONV2D if depthwise else OpKind.CONV2D, inputs=("input",), in_shape=in_shape,
        out_shape=(outputs, sides[0], sides[1]), kernel=kernel_size, stride=stride, padding=padding, groups=groups,
    )  # fmt: skip


def random_convolutions(seed: int, count: int) -> Iterator[Op]:
    """Odd sizes, few and many channels, one pixel, every padding."""
    random = np.random.default_rng(seed)
    while count:
        size = (3, 3) if random.random() < 0.4 else (int(random.integers(1, 6)), int(random.integers(1, 6)))
        stride = (1, 1) if random.random() < 0.5 else (int(random.integers(1, 4)), int(random.integers(1, 4)))
        padding = (int(random.integers(0, size[0])), int(random.integers(0, size[1])))
        groups = int(random.choice([1, 1, 1, 2, 3]))
        channels, outputs = groups * int(random.choice([1, 2, 3, 4, 8, 12, 16, 20, 24])), groups * int(random.integers(1, 13))
        sides = (int(random.integers(1, 14)), int(random.integers(1, 20)))
        if all(side + 2 * pad >= k for side, pad, k in zip(sides, padding, size, strict=True)):
            yield convolution((channels, *sides), outputs, size, stride, padding, groups)
            count -= 1


def stored_width(precision: Precision, seed: int) -> int:
    widths = [bits for bits in WIDTHS if bits >= precision.weight_bits]
    return widths[seed % len(widths)]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ALL_PRECISIONS, ids=str)
def test_convolutions_agree(precision: Precision) -> None:
    for seed, op in enumerate(random_convolutions(ALL_PRECISIONS.index(precision), 60)):
        if op.kind is OpKind.CONV2D:
            case = random_case(op, precision, stored_width(precision, seed), seed, logits=seed % 7 == 6)
            assert agrees(case if seed % 7 == 6 else varied(case, seed)), f"seed {seed}: {op} {precision}"


@pytest.mark.slow
@pytest.mark.parametrize("precision", ALL_PRECISIONS, ids=str)
def test_depthwise_convolutions_agree(precision: Precision) -> None:
    random = np.random.default_rng(ALL_PRECISIONS.index(precision))
    for seed in range(30):
        channels, step, pad = int(random.choice([1, 3, 4, 8, 12])), int(random.integers(1, 4)), int(random.integers(0, 3))
        sides = (int(random.integers(3, 24)), int(random.integers(3, 24)))
        size = (3, 3) if random.random() < 0.8 else (2, 5)
        if min(sides) + 2 * pad < 5 or channels == 1:
            continue
        op = convolution((channels, *sides), channels, size, (step, step), (pad, pad), groups=channels)
        case = random_case(op, precision, stored_width(precision, seed), seed, logits=seed % 9 == 8)
        assert agrees(case if seed % 9 == 8 else varied(case, seed)), f"seed {seed}: {op} {precision}"
        assert seed % 5 or agrees(with_largest_codes(case)), f"largest codes, seed {seed}: {op} {precision}"


def with_largest_codes(case: Case) -> Case:
    """Every input code and every weight at its largest, the sums as they are."""
    assert case.stored is not None
    largest = 2**case.precision.activation_bits - 1
    inputs = tuple(np.full_like(codes, largest) for codes in case.inputs)
    stored = StoredWeights(codes=np.full_like(case.stored.codes, 2**case.stored.bits - 1), bits=case.stored.bits)
    return replace(case, inputs=inputs, stored=stored)


@pytest.mark.parametrize("precision", ALL_PRECISIONS, ids=str)
def test_fields_hold_the_largest_products(precision: Precision) -> None:
    ops = [
        convolution((64, 6, 9), 8, (3, 3), padding=(1, 1)),
        convolution((132, 5, 5), 4, (3, 3), padding=(1, 1)),
        convolution((8, 9, 9), 6, (5, 5)),
        convolution((264, 3, 3), 8, (1, 1)),
        convolution((3, 8, 8), 4, (3, 3), stride=(2, 2), padding=(1, 1)),
    ]
    cut = polynomials(ops[0], precision)
    if cut:  # as many channels as one field takes, and padding that counts
        ops.append(convolution((cut.most_channels // 4 * 4, 3, 9), 2, (3, 3), padding=(1, 1)))
    for op in ops:
        for logits in (True, False):
            assert agrees(with_largest_codes(random_case(op, precision, 8, 1, logits=logits))), f"{op} {precision}"


def with_smallest_weights(case: Case) -> Case:
    """Every input code at its largest and every weight at its most negative."""
    largest = with_largest_codes(case)
    assert largest.stored is not None
    return replace(largest, stored=StoredWeights(codes=np.zeros_like(largest.stored.codes), bits=largest.stored.bits))


@pytest.mark.parametrize("precision", ALL_PRECISIONS, ids=str)
def test_depthwise_fields_hold_sums_of_either_sign(precision: Precision) -> None:
    """Rows and columns of every length modulo a word, also turned ones, with large and small biases."""
    for seed, (height, width, step) in enumerate([(5, 6, 1), (25, 5, 1), (7, 3, 1), (11, 12, 2), (9, 25, 2), (1, 1, 1)]):
        op = convolution((4, height, width), 4, (3, 3), (step, step), (1, 1), groups=4)
        case = random_case(op, precision, precision.weight_bits, seed)
        bias = np.array([0, 9000, -9000, 40000], np.int32)
        largest = with_largest_codes(case)
        for extreme in (largest, replace(case, inputs=largest.inputs), with_smallest_weights(case)):
            constants = replace(extreme.constants, bias=bias, shift=extreme.constants.shift + 4)
            assert agrees(replace(extreme, constants=constants)), f"{op} {precision}"


@pytest.mark.parametrize("precision", ALL_PRECISIONS, ids=str)
def test_shapes_of_real_networks_agree(precision: Precision) -> None:
    ops = [
        convolution((16, 32, 32), 16, (3, 3), padding=(1, 1)),
        convolution((64, 8, 8), 64, (3, 3), padding=(1, 1)),
        convolution((1, 49, 10), 64, (10, 4), stride=(2, 2), padding=(5, 1)),
        convolution((16, 32, 32), 32, (1, 1), stride=(2, 2)),
        convolution((64, 12, 12), 64, (1, 1)),
        convolution((256, 3, 3), 32, (3, 3), padding=(1, 1)),
    ]
    for op in ops:
        assert agrees(random_case(op, precision, 8, 3)), f"{op} {precision}"


@pytest.mark.parametrize("precision", ALL_PRECISIONS, ids=str)
def test_wide_images_are_cut_into_tiles_of_uneven_width(precision: Precision) -> None:
    ops = [
        convolution((16, 5, 150), 4, (3, 3), padding=(1, 1)),
        convolution((16, 5, 170), 4, (3, 3), stride=(2, 2), padding=(1, 1)),
        convolution((32, 4, 90), 6, (3, 3), stride=(2, 2), padding=(0, 2)),
        convolution((3, 5, 800), 4, (3, 3), padding=(1, 1)),
        convolution((3, 5, 601), 8, (5, 3), stride=(2, 2), padding=(2, 1)),
    ]
    for op in ops:
        assert agrees(random_case(op, precision, 8, 3)), f"{op} {precision}"


def test_generated_files_are_what_the_generator_writes() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in (C_FOLDER / "cortex_m" / "generated").iterdir()}
    assert written == {name: text_of(name) for name in FILES}


def pool(
    kind: OpKind, in_shape: tuple[int, int, int], size: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int]
) -> Op:
    axes = zip(in_shape[1:], pad, size, stride, strict=True)
    sides = [(side + 2 * more - k) // step + 1 for side, more, k, step in axes]
    return Op(
        name="pool", kind=kind, inputs=("input",), in_shape=in_shape, out_shape=(in_shape[0], sides[0], sides[1]), kernel=size,
        stride=stride, padding=pad,
    )  # fmt: skip


@pytest.mark.parametrize("kind", [OpKind.MAX_POOL, OpKind.AVG_POOL])
def test_pools_agree(kind: OpKind) -> None:
    random = np.random.default_rng(0)
    shapes = [((32, 8, 6), (2, 2), (2, 2), (0, 0)), ((4, 5, 5), (2, 2), (1, 2), (0, 0)), ((12, 25, 20), (25, 20), (1, 1), (0, 0))]
    for _ in range(40):
        channels = int(random.choice([1, 3, 4, 12, 16, 20, 36]))
        size = (2, 2) if random.random() < 0.4 else (int(random.integers(1, 6)), int(random.integers(1, 6)))
        pad = (int(random.integers(0, size[0] // 2 + 1)), int(random.integers(0, size[1] // 2 + 1)))
        sides = (int(random.integers(size[0], 12)), int(random.integers(size[1], 12)))
        shapes.append(((channels, *sides), size, (int(random.integers(1, 4)), int(random.integers(1, 4))), pad))
    for seed, shape in enumerate(shapes):
        op = pool(kind, *shape)
        case = random_case(op, Precision(0, 8), 0, seed)
        assert agrees(case if kind is OpKind.MAX_POOL else varied(case, seed)), op
        assert agrees(replace(case, inputs=(np.full_like(case.inputs[0], 255),))), f"largest codes: {op}"


def elementwise(kind: OpKind, shape: tuple[int, int, int]) -> Op:
    return Op(name="op", kind=kind, inputs=("input", "other")[: 1 + (kind is OpKind.ADD)], in_shape=shape, out_shape=shape)


@pytest.mark.parametrize("kind", [OpKind.ADD, OpKind.REQUANTIZE])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_operations_on_elements_agree(kind: OpKind, bits: int) -> None:
    random = np.random.default_rng(bits)
    sizes = [
        (1, 1, 1),
        (3, 5, 7),
        (4, 16, 16),
        (1, 37, 29),
        (8, 12, 11),
        (64, 8, 8),
        *((int(n), 1, 1) for n in random.integers(1, 1200, 12)),
    ]
    for seed, shape in enumerate(sizes):
        case = random_case(elementwise(kind, shape), Precision(0, bits), 0, seed)
        assert agrees(case), f"{shape} a{bits}"
        for change in range(3):
            other = varied(case, 10 * seed + change)
            largest = replace(other, inputs=tuple(np.full_like(codes, 255) for codes in case.inputs))
            assert agrees(other) and agrees(largest), f"{shape} a{bits}, {other.constants}"


@pytest.mark.parametrize("place", [0, 15, 16, 700, 2047])
def test_one_wide_code_ends_the_table_of_narrow_sums(place: int) -> None:
    case = random_case(elementwise(OpKind.ADD, (8, 16, 16)), Precision(0, 4), 0, 1)
    inputs = tuple(codes.copy() for codes in case.inputs)
    inputs[place % 2].reshape(-1)[place] = 16
    assert agrees(replace(case, inputs=inputs))


@pytest.mark.parametrize("precision", ALL_PRECISIONS, ids=str)
def test_linear_operations_agree(precision: Precision) -> None:
    """Rows of every length modulo a word and a turn of the loops, few and odd numbers of filters, all stored widths."""
    random = np.random.default_rng(ALL_PRECISIONS.index(precision))
    lengths = [1, 7, 10, 11, 21, 22, 32, 33, 64, 96, 97, *random.integers(1, 300, 8).tolist()]
    for seed, length in enumerate(lengths):
        outputs = int(random.integers(1, 6))
        op = Op(name="fc", kind=OpKind.LINEAR, inputs=("input",), in_shape=(length,), out_shape=(outputs,))
        for stored in (bits for bits in WIDTHS if bits >= precision.weight_bits):
            case = random_case(op, precision, stored, seed, logits=seed % 2 == 0)
            assert agrees(case if seed % 2 == 0 else varied(case, seed)), f"{op} {precision} of {stored}"
            assert agrees(with_largest_codes(case)), f"largest codes: {op} {precision} of {stored}"


def test_a_long_sum_of_multiples_of_codes_does_not_overflow() -> None:
    op = Op(name="fc", kind=OpKind.LINEAR, inputs=("input",), in_shape=(65535,), out_shape=(2,))
    assert agrees(with_largest_codes(random_case(op, Precision(1, 8), 8, 0, logits=True)))
