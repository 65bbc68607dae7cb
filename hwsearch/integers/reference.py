"""The integer arithmetic that all operations share, specified in numpy. C, ONNX and the trained model are held to it.

What each kind of operation computes stands in `ops/`.

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

import numpy as np
from numpy.typing import NDArray

from hwsearch.graph.op import Op
from hwsearch.graph.precision import Precision
from hwsearch.integers.integer_model import Codes, Int32, OpConstants, StoredWeights

Int64 = NDArray[np.int64]


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


def finish(value: Int64, constants: OpConstants) -> Codes:
    """Codes from whole multiples of the output's step: zero point added, clamped to the output's range."""
    return np.clip(value + constants.output_zero, 0, constants.output_max).astype(np.uint8)


def requantized(accumulator: Int64, constants: OpConstants) -> Codes:
    """Codes from whole multiples of the accumulator's unit, `[N, ..., out]`."""
    return finish(requantize(accumulator, constants.multiplier, constants.shift), constants)


def finish_weighted(op: Op, sums: Int64, constants: OpConstants) -> Codes | Int32:
    """From sums of products `[N, ..., out]`, without bias: codes of the same shape, or logits `[N, classes]`."""
    accumulator = sums + constants.bias
    if constants.multiplier.size == 0:
        return accumulator.reshape(len(accumulator), math.prod(op.out_shape)).astype(np.int32)  # [N, classes]
    return requantized(accumulator, constants)


def padded(op: Op, codes: NDArray[np.integer], value: int) -> NDArray[np.integer]:
    """Codes `[N, height, width, channels]` with an operation's padding of that value around them."""
    rows, columns = op.padding
    return np.pad(codes, ((0, 0), (rows, rows), (columns, columns), (0, 0)), constant_values=value)


def windows(op: Op, codes: NDArray[np.integer]) -> NDArray[np.integer]:
    """Every window of an operation on padded codes: a view `[N, out_h, out_w, C, kernel_h, kernel_w]`."""
    every = np.lib.stride_tricks.sliding_window_view(codes, op.kernel, axis=(1, 2))
    return every[:, :: op.stride[0], :: op.stride[1]][:, : op.out_shape[1], : op.out_shape[2]]


def matmul(rows: NDArray[np.integer], filters: Int32, precision: Precision) -> Int64:
    """`rows @ filters.T` in integers; see the module's docstring for why floating point is exact."""
    largest = filters.shape[1] * 2**precision.weight_bits * 2**precision.activation_bits
    if largest < 2**24:
        return (rows.astype(np.float32) @ filters.astype(np.float32).T).astype(np.int64)
    return (rows.astype(np.float64) @ filters.astype(np.float64).T).astype(np.int64)


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
