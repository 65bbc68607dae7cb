"""Latency of a shape that was not measured, from measured shapes of the same operation, kernel, stride and precision.

A kernel's time is a sum of loops, each run a number of times that follows from the shape: once, per output pixel, per output
element, per product and so on. Non-negative least squares on these counts, minimising relative errors, finds what each turn
costs. Convolutions are fitted with the loops of a plain kernel and with those of our own bodies; leaving rows out tells which are
right (with tiles, the errors for our own kernel are four times smaller). Nothing is interpolated across widths: latency is a
step function of them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from hwsearch.graph.op import Op, OpKind
from hwsearch.hardware.profile import Measurement, RowKey
from hwsearch.hardware.strips import DEPTHWISE_ROWS, POLY_OUT_ROWS, depthwise_pairs_bytes, packing, polynomials, strips
from hwsearch.hardware.tiling import LANES, QUAD, convolution_tiling, depthwise_stretches, filters_per_block

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


def _plain_turns(key: RowKey) -> Floats:
    """Turns of each loop of a kernel that works pixel by pixel or row by row.

    Once, per output row, pixel, channel, element, element and kernel row, product, gathered input, weight, input, border.
    """
    rows, pixels = (key.out_shape[1], math.prod(key.out_shape[1:])) if len(key.out_shape) > 1 else (1, 1)
    channels, inputs = key.out_shape[0], math.prod(key.in_shape)
    depth = inputs if key.op is OpKind.LINEAR else key.in_shape[0] // key.groups if key.op is OpKind.CONV2D else 1
    reduction = math.prod(key.kernel) * depth
    elements, border = pixels * channels, sum(key.out_shape[1:]) or 1
    return np.array(
        [
            1, rows, pixels, channels, elements, elements * key.kernel[0], elements * reduction, pixels * reduction,
            channels * reduction, inputs, border * reduction,
        ],
        dtype=np.float64,
    )  # fmt: skip


def _tiled_turns(key: RowKey) -> Floats:
    """Turns of each loop of `hw_conv2d.c`: packing per tile, expanding per tile and block of filters, multiplying, finishing."""
    cut = convolution_tiling(_op_of(key))
    filters = key.out_shape[0]
    blocks = key.groups * math.ceil(filters / key.groups / filters_per_block(key.precision))
    packed = key.groups * cut.tiles * cut.rows * cut.kernel[0] * cut.positions
    beyond_whole_quads = (cut.out_h % QUAD) * cut.out_w * filters  # finished one by one
    return np.array(
        [
            1, cut.tiles, packed, packed * cut.channels, cut.tiles * blocks * cut.window, cut.quads * blocks,
            cut.quads * blocks * cut.runs, cut.quads * blocks * cut.window, cut.out_h * cut.out_w * filters, beyond_whole_quads,
        ],
        dtype=np.float64,
    )  # fmt: skip


def _strip_turns(key: RowKey) -> Floats:
    """Turns of each loop of `hw_strips.h`: packing and summing per tile, expanding per tile and block of filters, multiplying."""
    op = _op_of(key)
    cut, pack = strips(op, key.precision), packing(key.precision)
    filters = key.out_shape[0] // key.groups
    blocks = key.groups * math.ceil(filters / pack.filters)
    packed = key.groups * cut.tiles * cut.in_rows * cut.positions
    rows = cut.tiles * cut.rows * blocks
    pixels = rows * cut.part
    loops = pixels * cut.runs * math.ceil(cut.window / cut.runs / 24)
    whole = filters % (4 if pack.filters == 4 else 2) == 0 and key.out_shape[0] % 2 == 0
    spread = cut.given != cut.channels
    packed_codes = packed * (cut.window if cut.gathered else cut.channels)
    way = (cut.gathered and cut.given % 4 != 0, cut.gathered and cut.given % 4 == 0, spread, not cut.gathered and not spread)
    packing_turns = [turns * taken for taken in way for turns in (packed, packed_codes)]
    slow = 0 if whole else cut.out_h * cut.out_w * key.out_shape[0]
    return np.array(
        [
            1, *packing_turns, cut.tiles * blocks, cut.tiles * blocks * cut.window, cut.tiles * blocks * cut.window * spread,
            rows, pixels, pixels * cut.runs, loops, pixels * cut.window, slow,
        ],
        dtype=np.float64,
    )  # fmt: skip


def _polynomial_turns(key: RowKey) -> Floats:
    """Turns of each loop of `hw_polynomials.h`; shapes that are no such products take strips, in other columns."""
    cut, others = polynomials(_op_of(key), key.precision), _strip_turns(key)
    if cut is None:
        return np.concatenate([np.zeros(9), others])
    pairs = key.out_shape[0] // 2
    tiles, row_pairs, columns = cut.tiles * key.groups, math.ceil(cut.out_h / 2), math.ceil(cut.out_w / cut.columns)
    segments = columns * math.ceil(cut.columns / cut.pixels)  # with padding beside the image left out, as usual
    in_rows = key.groups * (2 * row_pairs + 2 * math.ceil(cut.out_h / POLY_OUT_ROWS))
    calls = pairs * cut.tiles * cut.blocks
    own = [
        tiles, in_rows * segments, in_rows * segments * cut.channels, pairs * cut.tiles * cut.channels, calls,
        pairs * row_pairs * columns * cut.blocks, pairs * row_pairs * segments * cut.blocks,
        pairs * row_pairs * segments * cut.channels, cut.out_h * cut.out_w * pairs,
    ]  # fmt: skip
    return np.concatenate([np.array(own, dtype=np.float64), np.zeros(len(others))])


def _pair_turns(key: RowKey) -> Floats:
    """Turns of each loop of `hw_depthwise.h`; shapes that it leaves take the portable loops, in other columns."""
    op, others = _op_of(key), _depthwise_turns(key)
    if not depthwise_pairs_bytes(op):
        return np.concatenate([np.zeros(7), others])
    channels, (_, out_h, out_w), stride = op.in_shape[0], op.out_shape, op.stride[0]
    most_rows = (DEPTHWISE_ROWS - 3) // stride + 1
    tiles, steps = math.ceil(out_h / most_rows), math.ceil(out_w / 2) if stride == 1 else out_w
    in_rows = tiles * channels * (3 - stride) + channels * out_h * stride
    own = [
        1, tiles * channels, in_rows, in_rows * (steps + 1), channels * out_h, channels * out_h * steps,
        channels * out_h * out_w,
    ]  # fmt: skip
    return np.concatenate([np.array(own, dtype=np.float64), np.zeros(len(others))])


def _depthwise_turns(key: RowKey) -> Floats:
    """Turns of each loop of `hw_depthwise_conv2d.c`: copying, summing and finishing, per stretch, row and pixel."""
    cut = depthwise_stretches(_op_of(key))
    pieces = cut.stretches * cut.lanes
    copied = pieces * cut.in_rows * cut.in_columns
    whole_words = cut.channels % LANES == 0
    return np.array(
        [
            1, pieces, pieces * cut.in_rows, copied * whole_words, copied * (not whole_words), cut.lanes * cut.out_h,
            cut.lanes * cut.out_h * cut.out_w, cut.stretches * cut.channels, cut.out_h * cut.out_w * cut.channels,
        ],
        dtype=np.float64,
    )  # fmt: skip


def _op_of(key: RowKey) -> Op:
    """The operation of a row; a row does not tell its padding, which matters to a 1x1 convolution alone."""
    unpadded = key.in_shape[1:] == key.out_shape[1:]
    return Op(
        name="op", kind=key.op, inputs=("input",), in_shape=key.in_shape, out_shape=key.out_shape, kernel=key.kernel,
        stride=key.stride, padding=(0, 0) if unpadded else (1, 1), groups=key.groups,
    )  # fmt: skip


def _dimensions(key: RowKey) -> Floats:
    """What must lie within reach of measured rows: channels in and out, output pixels and the window."""
    pixels = math.prod(key.out_shape[1:])
    return np.array([key.in_shape[0], key.out_shape[0], pixels, key.kernel[0] * key.kernel[1]], dtype=np.float64)


def _fit(counts: Floats, latencies: Floats) -> Floats:
    """Cost of one turn of each loop, minimising the sum of squared relative errors; 0 for loops that no row enters."""
    entered = counts.max(axis=0) > 0
    scale = counts[:, entered].max(axis=0)  # [features]
    solution, _ = nnls(counts[:, entered] / scale / latencies[:, None], np.ones(len(latencies)), maxiter=50 * counts.shape[1])
    costs = np.zeros(counts.shape[1])
    costs[entered] = solution / scale
    return costs


Loops = Callable[[RowKey], Floats]
_OWN_LOOPS: dict[OpKind, tuple[Loops, ...]] = {
    OpKind.CONV2D: (_tiled_turns, _strip_turns, _polynomial_turns),
    OpKind.DEPTHWISE_CONV2D: (_depthwise_turns, _pair_turns),
}


def _errors_left_out(counts: Floats, latencies: Floats) -> Floats:
    """Relative error of each row's prediction by all others."""
    keep = np.ones(len(latencies), dtype=bool)
    errors = np.empty(len(latencies))
    for row in range(len(latencies)):
        keep[row] = False
        errors[row] = abs(counts[row] @ _fit(counts[keep], latencies[keep]) / latencies[row] - 1.0)
        keep[row] = True
    return errors


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeRegression:
    """A fit over the rows of one group; `error` is the stated relative error, found by leaving each row out in turn."""

    loops: Loops
    costs: Floats
    error: float
    lowest: Floats
    highest: Floats
    rows: tuple[Measurement, ...]

    @classmethod
    def fit(cls, rows: Sequence[Measurement]) -> "ShapeRegression":
        """Fit at least `MIN_ROWS` rows of one group."""
        latencies = np.array([row.latency_us for row in rows])
        candidates = (_plain_turns, *_OWN_LOOPS.get(rows[0].op, ()))
        turns = [np.stack([loops(row.key) for row in rows]) for loops in candidates]  # [rows, loops] each
        errors = [float(np.quantile(_errors_left_out(counts, latencies), ERROR_QUANTILE)) for counts in turns]
        best = int(np.argmin(errors))
        dimensions = np.stack([_dimensions(row.key) for row in rows])
        return cls(
            loops=candidates[best],
            costs=_fit(turns[best], latencies),
            error=errors[best],
            lowest=dimensions.min(axis=0),
            highest=dimensions.max(axis=0),
            rows=tuple(rows),
        )

    def reaches(self, key: RowKey) -> bool:
        """Whether every dimension lies within the measured ones, give or take the factor `REACH`."""
        dimensions = _dimensions(key)
        return bool(np.all(dimensions * REACH >= self.lowest) and np.all(dimensions <= self.highest * REACH))

    def latency_us(self, key: RowKey) -> float:
        return float(self.loops(key) @ self.costs)
