"""The specification itself: against rational arithmetic and plain loops that share no code with it."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.integers.integer_model import OpConstants, StoredWeights
from hwsearch.integers.op_kinds import run_op
from hwsearch.integers.ops.avg_pool import window_sums
from hwsearch.integers.ops.max_pool import max_pool
from hwsearch.integers.reference import argmax, requantize, stored_to_codes, weight_values

INT32 = st.integers(-(2**31), 2**31 - 1)


@given(accumulator=INT32, multiplier=st.integers(0, 2**31 - 1), shift=st.integers(1, 51))
def test_requantize_rounds_the_exact_quotient_with_halves_upward(accumulator: int, multiplier: int, shift: int) -> None:
    exact = floor(Fraction(accumulator * multiplier, 2**shift) + Fraction(1, 2))
    arrays = (np.array([value]) for value in (accumulator, multiplier, shift))
    assert int(requantize(*arrays)[0]) == exact


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_are_odd_symmetric_and_never_zero(bits: int) -> None:
    codes = np.arange(2**bits, dtype=np.uint8).reshape(-1, 1, 1, 1)
    values = weight_values(StoredWeights(codes=codes, bits=bits), bits).ravel()
    assert (values % 2 == 1).all()
    assert (values == -values[::-1]).all()
    assert np.diff(values).tolist() == [2] * (2**bits - 1)


def test_narrow_weights_are_the_nearest_of_their_grid() -> None:
    stored = StoredWeights(codes=np.arange(256, dtype=np.uint8).reshape(-1, 1, 1, 1), bits=8)
    wide = weight_values(stored, 8).ravel() / 256
    for bits in (2, 4):
        narrow = weight_values(stored, bits).ravel() / 2**bits
        grid = np.unique(narrow)
        distances = np.abs(wide[:, None] - grid[None, :])
        assert np.allclose(np.abs(wide - narrow), distances.min(axis=1))
        assert (stored_to_codes(stored, bits).ravel() == np.arange(256) >> (8 - bits)).all()


def plain_convolution(op: Op, codes: np.ndarray, weights: np.ndarray, bias: np.ndarray, zero: int) -> np.ndarray:
    """One image, one product at a time; padding reads the zero point."""
    height, width, _ = codes.shape
    group_in, group_out = op.in_shape[0] // op.groups, op.out_channels // op.groups
    out = np.zeros((op.out_shape[1], op.out_shape[2], op.out_channels), np.int64)
    for y, x, o in np.ndindex(*out.shape):
        total = int(bias[o])
        for i, j, c in np.ndindex(op.kernel[0], op.kernel[1], group_in):
            v, u = y * op.stride[0] + i - op.padding[0], x * op.stride[1] + j - op.padding[1]
            inside = 0 <= v < height and 0 <= u < width
            code = int(codes[v, u, o // group_out * group_in + c]) if inside else zero
            total += code * int(weights[o, i, j, c])
        out[y, x, o] = total
    return out


@pytest.mark.parametrize("kind", [OpKind.CONV2D, OpKind.DEPTHWISE_CONV2D])
@pytest.mark.parametrize("precision", [Precision(2, 4), Precision(8, 8)], ids=str)
@pytest.mark.parametrize("zero", [0, 8])
def test_convolution_is_the_sum_over_its_window(kind: OpKind, precision: Precision, zero: int) -> None:
    random = np.random.default_rng(0)
    groups = 4 if kind is OpKind.DEPTHWISE_CONV2D else 2
    op = Op(
        name="conv", kind=kind, inputs=("input",), in_shape=(4, 5, 6), out_shape=(4, 3, 6),
        kernel=(3, 2), stride=(2, 1), padding=(1, 1), groups=groups,
    )  # fmt: skip
    op = Op(**{name: getattr(op, name) for name in op.__dataclass_fields__} | {"out_shape": (4, 3, 7)})
    stored = StoredWeights(codes=random.integers(0, 256, (4, 3, 2, 4 // groups), dtype=np.uint8), bits=8)
    codes = random.integers(0, 2**precision.activation_bits, (3, 5, 6, 4), dtype=np.uint8)
    bias = random.integers(-99, 99, 4).astype(np.int32)
    nothing = np.array([], np.int32)
    constants = OpConstants(bias=bias, multiplier=nothing, shift=nothing, input_zero=(zero,), output_zero=0, output_max=255)
    got = run_op(op, precision, [codes], stored, constants)
    weights = weight_values(stored, precision.weight_bits)
    expected = [plain_convolution(op, image, weights, bias, zero).ravel() for image in codes]
    assert got.dtype == np.int32
    assert (got == np.array(expected)).all()


def test_padding_reads_the_zero_point() -> None:
    op = Op(
        name="conv", kind=OpKind.CONV2D, inputs=("input",), in_shape=(1, 1, 1), out_shape=(1, 1, 1),
        kernel=(3, 3), padding=(1, 1),
    )  # fmt: skip
    stored = StoredWeights(codes=np.full((1, 3, 3, 1), 2, np.uint8), bits=2)  # each weight is 1 half step
    nothing = np.array([], np.int32)
    constants = OpConstants(
        bias=np.array([0], np.int32), multiplier=nothing, shift=nothing, input_zero=(7,), output_zero=0, output_max=255
    )
    logits = run_op(op, Precision(2, 4), [np.array([[[[5]]]], np.uint8)], stored, constants)
    assert logits.tolist() == [[8 * 7 + 5]]


def test_outputs_are_clamped_between_zero_and_their_largest_code() -> None:
    op = Op(name="requantize", kind=OpKind.REQUANTIZE, inputs=("input",), in_shape=(1, 1, 4), out_shape=(1, 1, 4))
    constants = OpConstants(
        bias=np.array([], np.int32), multiplier=np.array([2**30], np.int32), shift=np.array([29], np.int32),
        input_zero=(8,), output_zero=2, output_max=15,
    )  # fmt: skip
    codes = np.array([0, 8, 9, 15], np.uint8).reshape(1, 1, 4, 1)
    assert run_op(op, Precision(0, 4), [codes], None, constants).ravel().tolist() == [0, 2, 4, 15]


def pool(kind: OpKind) -> Op:
    return Op(
        name="pool", kind=kind, inputs=("input",), in_shape=(1, 3, 3), out_shape=(1, 2, 2),
        kernel=(3, 3), stride=(2, 2), padding=(1, 1),
    )  # fmt: skip


def test_padding_never_wins_a_maximum_and_adds_nothing_to_a_mean() -> None:
    codes = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.uint8).reshape(1, 3, 3, 1)
    assert max_pool(pool(OpKind.MAX_POOL), codes).ravel().tolist() == [5, 6, 8, 9]
    assert window_sums(pool(OpKind.AVG_POOL), codes, 5).ravel().tolist() == [12 - 20, 16 - 20, 24 - 20, 28 - 20]


def test_addition_rounds_once_for_both_inputs() -> None:
    op = Op(name="add", kind=OpKind.ADD, inputs=("a", "b"), in_shape=(1, 1, 1), out_shape=(1, 1, 1))
    constants = OpConstants(
        bias=np.array([], np.int32), multiplier=np.array([1, 1], np.int32), shift=np.array([1], np.int32),
        input_zero=(0, 0), output_zero=0, output_max=255,
    )  # fmt: skip
    three = np.full((1, 1, 1, 1), 3, np.uint8)
    assert run_op(op, Precision(0, 8), [three, three], None, constants).item() == 3
    assert run_op(op, Precision(0, 8), [three, three + np.uint8(1)], None, constants).item() == 4


def test_sums_beyond_the_whole_numbers_of_float32_stay_exact() -> None:
    op = Op(name="fc", kind=OpKind.LINEAR, inputs=("input",), in_shape=(16001,), out_shape=(1,))
    random = np.random.default_rng(0)
    stored = StoredWeights(codes=random.integers(128, 256, (1, 1, 1, 16001), dtype=np.uint8), bits=8)
    codes = random.integers(128, 256, (2, 16001), dtype=np.uint8)
    nothing = np.array([], np.int32)
    constants = OpConstants(
        bias=np.array([1], np.int32), multiplier=nothing, shift=nothing, input_zero=(0,), output_zero=0, output_max=255
    )
    got = run_op(op, Precision(8, 8), [codes], stored, constants)
    exact = [sum(int(q) * (2 * int(u) - 255) for q, u in zip(row, stored.codes.ravel(), strict=True)) + 1 for row in codes]
    assert min(exact) > 2**24
    assert got.ravel().tolist() == exact


@given(logits=st.lists(INT32, min_size=2, max_size=6))
def test_the_margin_is_the_lead_over_the_second_largest(logits: list[int]) -> None:
    index, margin = argmax(np.array([logits], np.int32))
    best = max(logits)
    assert int(index[0]) == logits.index(best)
    assert int(margin[0]) == best - sorted(logits)[-2]
