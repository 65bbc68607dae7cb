"""Latency of a shape that was not measured, from measured shapes of the same operation, kernel, stride and precision.

A kernel's time is a sum of loops, each run a number of times that follows from the shape: once, per output pixel, per output
element, per product and so on. Non-negative least squares on these counts, minimising relative errors, finds what each turn
costs. Nothing is interpolated across widths: latency is a step function of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from hwsearch.graph.op import OpKind
from hwsearch.hardware.profile import Measurement, RowKey

MIN_ROWS = 4
"""Fewer measured shapes than this say nothing about others."""
REACH = 2.0
"""How far beyond the smallest and largest measured dimension a price is still given, as a factor."""
ERROR_QUANTILE = 0.95
"""Which leave-one-out error is stated as a regression's uncertainty."""

Floats = NDArray[np.float64]


def group_of(key: RowKey) -> RowKey:
    """What all rows of one regression share: the key without its shapes.

    Depthwise groups are its channels, a dimension like any other. A pool whose windows do not overlap reads each input
    once whatever its window, so that all average pools of that kind are one group; exit heads and global pools are priced so.
    """
    group = replace(key, in_shape=(), out_shape=())
    if key.op is OpKind.DEPTHWISE_CONV2D:
        group = replace(group, groups=0)
    if key.op is OpKind.AVG_POOL and key.kernel == key.stride:
        group = replace(group, kernel=(0, 0), stride=(0, 0))
    return group


def _counts(key: RowKey) -> tuple[int, int, int, int]:
    """Output pixels, output channels, products per output element, input elements."""
    pixels = math.prod(key.out_shape[1:])
    inputs = math.prod(key.in_shape)
    if key.op is OpKind.LINEAR:
        return 1, key.out_shape[0], inputs, inputs
    reduction = key.kernel[0] * key.kernel[1] * (key.in_shape[0] // key.groups if key.op is OpKind.CONV2D else 1)
    return pixels, key.out_shape[0], reduction, inputs


def features(key: RowKey) -> Floats:
    """Turns of each loop that a kernel may have, all at least 1.

    Once, per output pixel, per element, per product, per gathered input, per weight, per input, per border element, and per
    pair of pixels and of channels (kernels take two of each at a time, and the odd one costs as much as two).
    """
    pixels, channels, reduction, inputs = _counts(key)
    rows = key.out_shape[1] if len(key.out_shape) > 1 else 1
    border = sum(key.out_shape[1:]) or 1
    pairs = 4 * math.ceil(pixels / 2) * math.ceil(channels / 2)
    return np.array(
        [
            1, rows, pixels, channels, pixels * channels, pixels * channels * reduction, pixels * reduction, channels * reduction,
            inputs, border * reduction, pairs, pairs * reduction,
        ],
        dtype=np.float64,
    )  # fmt: skip


def _dimensions(key: RowKey) -> Floats:
    """What must lie within reach of measured rows: channels in and out, output pixels and the window."""
    pixels = math.prod(key.out_shape[1:])
    return np.array([key.in_shape[0], key.out_shape[0], pixels, key.kernel[0] * key.kernel[1]], dtype=np.float64)


def _fit(counts: Floats, latencies: Floats) -> Floats:
    """Cost of one turn of each loop, minimising the sum of squared relative errors."""
    scale = counts.max(axis=0)  # [features]
    solution, _ = nnls(counts / scale / latencies[:, None], np.ones(len(latencies)), maxiter=50 * counts.shape[1])
    return np.asarray(solution / scale, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeRegression:
    """A fit over the rows of one group; `error` is the stated relative error, found by leaving each row out in turn."""

    costs: Floats
    error: float
    lowest: Floats
    highest: Floats
    rows: tuple[Measurement, ...]

    @classmethod
    def fit(cls, rows: Sequence[Measurement]) -> "ShapeRegression":
        """Fit at least `MIN_ROWS` rows of one group."""
        counts = np.stack([features(row.key) for row in rows])  # [rows, features]
        latencies = np.array([row.latency_us for row in rows])
        keep = np.ones(len(rows), dtype=bool)
        errors = []
        for left_out in range(len(rows)):
            keep[left_out] = False
            predicted = float(counts[left_out] @ _fit(counts[keep], latencies[keep]))
            errors.append(abs(predicted / latencies[left_out] - 1.0))
            keep[left_out] = True
        dimensions = np.stack([_dimensions(row.key) for row in rows])
        return cls(
            costs=_fit(counts, latencies),
            error=float(np.quantile(errors, ERROR_QUANTILE)),
            lowest=dimensions.min(axis=0),
            highest=dimensions.max(axis=0),
            rows=tuple(rows),
        )

    def reaches(self, key: RowKey) -> bool:
        """Whether every dimension lies within the measured ones, give or take the factor `REACH`."""
        dimensions = _dimensions(key)
        return bool(np.all(dimensions * REACH >= self.lowest) and np.all(dimensions <= self.highest * REACH))

    def latency_us(self, key: RowKey) -> float:
        return float(features(key) @ self.costs)
