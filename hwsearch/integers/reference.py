"""The integer arithmetic, specified: one numpy function per operation. C, ONNX and the trained model are held to it.

Rounding is defined once, by `requantize`: to the nearest integer, halves upward. Ten numbers that everyone must agree on:

>>> table = [  # accumulator, multiplier, shift, result
...     (0, 1 << 30, 31, 0),
...     (1, 1 << 30, 31, 1),                     # 1/2 rounds up
...     (-1, 1 << 30, 31, 0),                    # so does -1/2
...     (3, 1 << 30, 31, 2),                     # 3/2
...     (-3, 1 << 30, 31, -1),                   # -3/2
...     (-5, 1 << 30, 32, -1),                   # -5/4
...     (1000, 1717986918, 34, 100),             # a tenth, a little below
...     (2**31 - 1, 2**31 - 1, 31, 2**31 - 2),   # the largest product
...     (-(2**31), 2**31 - 1, 31, -(2**31 - 1)), # the smallest
...     (2**31 - 1, 1 << 30, 51, 1024),          # the largest shift
... ]
>>> [int(requantize(np.array([a]), np.array([m]), np.array([s]))[0]) - r for a, m, s, r in table]
[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]

Sums of products are computed by floating-point matrix products, which are exact here: every partial sum is an integer
below 2^24 in float32, or below 2^53 in float64, where such integers have no rounding.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.integers.integer_model import Codes, Int32, OpConstants, StoredWeights

Int64 = NDArray[np.int64]

_PATCH_VALUES = 2**21
"""Most values of a matrix of patches at a time; bounds memory, not results."""


def requantize(accumulator: NDArray[np.integer], multiplier: NDArray[np.integer], shift: NDArray[np.integer]) -> Int64:
    """`floor(accumulator * multiplier / 2^shift + 1/2)`.

    Ranges: `accumulator` int32, `shift` 1 .. 51, `multiplier` 2^30 .. 2^31 - 1, or less where the shift is 51 already; C relies
    on it. The product stays below 2^62, the sum below 2^63.
    """
    product = accumulator.astype(np.int64) * multiplier.astype(np.int64)
    half = np.int64(1) << (shift.astype(np.int64) - 1)
    return np.right_shift(product + half, shift.astype(np.int64), dtype=np.int64)


def stored_to_codes(stored: StoredWeights, bits: int) -> Codes:
    """The `bits`-bit codes nested in stored codes: their top bits."""
    return stored.codes >> np.uint8(stored.bits - bits)


def weight_values(stored: StoredWeights, bits: int) -> Int32:
    """Weights in half steps, `2u + 1 - 2^bits`: odd, symmetric, never zero.

    >>> codes = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    >>> weight_values(StoredWeights(codes=codes, bits=2), 2).ravel().tolist()
    [-3, -1, 1, 3]
    """
    codes = stored_to_codes(stored, bits).astype(np.int32)
    return 2 * codes + np.int32(1 - 2**bits)


def run_op(
    op: Op, precision: Precision, inputs: Sequence[NDArray[np.integer]], stored: StoredWeights | None, constants: OpConstants
) -> Codes | Int32:
    """The output of one operation for a batch.

    `inputs` hold codes `[N, height, width, channels]` or `[N, features]`; so does the result (uint8), unless the operation
    ends a path: then it is int32 logits `[N, classes]`.
    """
    match op.kind:
        case OpKind.MAX_POOL:
            return max_pool(op, inputs[0])
        case OpKind.ADD:
            value = add(inputs, constants)
        case OpKind.AVG_POOL:
            value = requantize(window_sums(op, inputs[0], constants.input_zero[0]), constants.multiplier, constants.shift)
        case OpKind.REQUANTIZE:
            value = requantize(inputs[0].astype(np.int64) - constants.input_zero[0], constants.multiplier, constants.shift)
        case OpKind.CONV2D | OpKind.DEPTHWISE_CONV2D | OpKind.LINEAR:
            sums = accumulators(op, precision, inputs[0], _required(op, stored), constants)
            if constants.multiplier.size == 0:
                return sums.reshape(len(sums), math.prod(op.out_shape)).astype(np.int32)  # [N, classes]
            value = requantize(sums, constants.multiplier, constants.shift)
        case OpKind.ARGMAX:
            raise ValueError("argmax decides between entries and is no operation of a network; call reference.argmax")
    return np.clip(value + constants.output_zero, 0, constants.output_max).astype(np.uint8)


def _required(op: Op, stored: StoredWeights | None) -> StoredWeights:
    if stored is None:
        raise ValueError(f"operation {op.name} needs its weights")
    return stored


def accumulators(
    op: Op, precision: Precision, codes: NDArray[np.integer], stored: StoredWeights, constants: OpConstants
) -> Int64:
    """Sums of products plus bias: `[N, out_h, out_w, out]`, or `[N, out]` of a linear operation."""
    weights = weight_values(stored, precision.weight_bits)
    if op.kind is OpKind.LINEAR:
        flat = codes.reshape(len(codes), op.reduction)  # [N, H*W*C]
        return _matmul(flat, weights.reshape(op.out_channels, -1), precision) + constants.bias
    padded = _padded(codes, op, constants.input_zero[0])
    if op.kind is OpKind.DEPTHWISE_CONV2D:
        return _convolve_channels(op, padded, weights) + constants.bias
    images = max(1, _PATCH_VALUES // (op.out_shape[1] * op.out_shape[2] * op.reduction * op.groups))
    parts = [_convolve(op, precision, padded[first : first + images], weights) for first in range(0, max(1, len(padded)), images)]
    sums: Int64 = np.concatenate(parts) + constants.bias
    return sums


def _padded(codes: NDArray[np.integer], op: Op, value: int) -> NDArray[np.integer]:
    rows, columns = op.padding
    return np.pad(codes, ((0, 0), (rows, rows), (columns, columns), (0, 0)), constant_values=value)


def _convolve(op: Op, precision: Precision, padded: NDArray[np.integer], weights: Int32) -> Int64:
    patches = _windows(op, padded)  # [N, out_h, out_w, C, kernel_h, kernel_w]
    count = len(padded) * op.out_shape[1] * op.out_shape[2]
    inputs, outputs = op.in_shape[0] // op.groups, op.out_channels // op.groups
    sums = []
    for group in range(op.groups):
        taken = patches[:, :, :, group * inputs : (group + 1) * inputs].transpose(0, 1, 2, 4, 5, 3)
        rows = taken.reshape(count, op.reduction)  # [N*out_h*out_w, kernel_h*kernel_w*C/groups]
        filters = weights[group * outputs : (group + 1) * outputs].reshape(outputs, op.reduction)
        sums.append(_matmul(rows, filters, precision))
    return np.concatenate(sums, axis=1).reshape(len(padded), op.out_shape[1], op.out_shape[2], op.out_channels)


def _convolve_channels(op: Op, padded: NDArray[np.integer], weights: Int32) -> Int64:
    """One filter per channel, tap by tap."""
    windows = _windows(op, padded)
    sums = np.zeros(windows.shape[:4], np.int64)  # [N, out_h, out_w, C]
    for i, j in np.ndindex(op.kernel):
        sums += windows[..., i, j].astype(np.int32) * weights[:, i, j, 0]
    return sums


def _windows(op: Op, padded: NDArray[np.integer]) -> NDArray[np.integer]:
    """Every window of an operation: a view `[N, out_h, out_w, C, kernel_h, kernel_w]`."""
    every = np.lib.stride_tricks.sliding_window_view(padded, op.kernel, axis=(1, 2))
    return every[:, :: op.stride[0], :: op.stride[1]][:, : op.out_shape[1], : op.out_shape[2]]


def _matmul(rows: NDArray[np.integer], filters: Int32, precision: Precision) -> Int64:
    """`rows @ filters.T` in integers; see the module's docstring for why floating point is exact."""
    largest = filters.shape[1] * 2**precision.weight_bits * 2**precision.activation_bits
    if largest < 2**24:
        return (rows.astype(np.float32) @ filters.astype(np.float32).T).astype(np.int64)
    return (rows.astype(np.float64) @ filters.astype(np.float64).T).astype(np.int64)


def add(inputs: Sequence[NDArray[np.integer]], constants: OpConstants) -> Int64:
    """`((q0 - z0) * m0 + (q1 - z1) * m1 + 2^(shift - 1)) >> shift`; m below 2^21 and shift 1 .. 30, so that int32 holds it."""
    shift = int(constants.shift[0])
    total = np.full(inputs[0].shape, 1 << (shift - 1), np.int64)
    for codes, zero, multiplier in zip(inputs, constants.input_zero, constants.multiplier, strict=True):
        total += (codes.astype(np.int64) - zero) * int(multiplier)
    return total >> shift


def window_sums(op: Op, codes: NDArray[np.integer], zero: int) -> Int64:
    """Sum of `q - zero` over each window: `[N, out_h, out_w, C]`; padding has the code of zero and adds nothing."""
    sums: Int64 = _windows(op, _padded(codes.astype(np.int64) - zero, op, 0)).sum(axis=(4, 5))
    return sums


def max_pool(op: Op, codes: NDArray[np.integer]) -> Codes:
    """Largest code of each window; padding is below every code and never wins."""
    largest: Codes = _windows(op, _padded(codes, op, 0)).max(axis=(4, 5)).astype(np.uint8)
    return largest


def argmax(logits: Int32) -> tuple[Int64, Int64]:
    """Index of the largest logit (ties go to the lower one) and its lead over the second largest: `[N]`, `[N]`.

    A single logit has no second; its margin is 2^32 - 1.

    >>> index, margin = argmax(np.array([[3, 9, 9], [2, -5, 1]], dtype=np.int32))
    >>> index.tolist(), margin.tolist()
    ([1, 0], [0, 1])
    """
    wide = logits.astype(np.int64)
    index: Int64 = wide.argmax(axis=1)
    if wide.shape[1] == 1:
        return index, np.full(len(wide), 2**32 - 1, np.int64)
    top = np.partition(wide, -2, axis=1)
    margin: Int64 = top[:, -1] - top[:, -2]
    return index, margin
