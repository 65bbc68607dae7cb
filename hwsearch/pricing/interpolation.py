"""Latency of a shape that was not measured, from measured shapes of the same operation, kernel, stride and precision.

A kernel's time is a sum of loops, each run a number of times that follows from the shape: once, per output pixel, per output
element, per product and so on. Non-negative least squares on these counts, minimising relative errors, finds what each turn
costs. Convolutions are fitted with the loops of a plain kernel and with those of our own bodies, portable, Cortex-M and
Cortex-M0+; where there are many rows, those of other kernel sizes and strides help, since they run the same loops. Leaving
rows out tells which fit is right. Nothing is interpolated across widths: latency is a step function of them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwsearch.graph.op import Op, OpKind
from hwsearch.hardware.profile import Measurement, RowKey
from hwsearch.kernels.bodies.cortex_m import (
    POLY_OUT_ROWS,
    Polynomials,
    depthwise_streams,
    packing,
    polynomials,
    strips,
)
from hwsearch.kernels.bodies.cortex_m0 import MOST_FILTERS, blocks, channel_tile
from hwsearch.kernels.bodies.portable import LANES, QUAD, convolution_tiling, depthwise_stretches, filters_per_block

MIN_ROWS = 4
"""Fewer measured shapes than this say nothing about others."""
REACH = 2.0
"""How far beyond the smallest and largest measured dimension a price is still given, as a factor."""
ERROR_QUANTILE = 0.95
"""Which leave-one-out error is stated as a regression's uncertainty."""

WIDE, CODES, MOST_CODES, WORTH_A_TABLE = 16, 256, 257, 1024
"""Channels that a pool sums at once, values of a byte, codes that 16 bits sum, and sums that a table is made for."""
MIN_POOLED_ROWS = 64
"""Rows of one body of code from which other kernels and strides help; at least one for each loop of the most
detailed body. With fewer, a fit may be sure of itself and wrong: errors of half the price were seen with 52 rows."""
N_STRIP_LOOPS, N_POLYNOMIAL_LOOPS, N_STREAM_LOOPS, N_CHANNEL_LOOPS = 22, 13, 17, 9
"""Loops of the ways in which a Cortex-M convolves."""

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


def body_of(key: RowKey) -> RowKey:
    """What all rows share that one body of code computes with the same inner loops, whatever its kernel and stride."""
    return replace(group_of(key), kernel=(0, 0), stride=(0, 0))


def is_enough(rows: Sequence[Measurement], related: Sequence[Measurement]) -> bool:
    """Whether a group can be fitted: from its own rows, or from one of its own and many of the same body."""
    pooled = len(rows) + len(related) >= MIN_POOLED_ROWS and bool(rows) and rows[0].op in _OWN_LOOPS
    return len(rows) >= MIN_ROWS or pooled


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


def _stream_turns(key: RowKey) -> Floats:
    """Turns of each loop of `cortex_m/hw_depthwise_conv2d.c`; shapes that it leaves take the portable loops, in other columns."""
    op, others = _op_of(key), _depthwise_turns(key)
    cut = depthwise_streams(op, key.precision)
    if cut is None:
        return np.concatenate([np.zeros(N_STREAM_LOOPS), others])
    channels, quads, stride = op.in_shape[0], math.ceil(op.in_shape[0] / LANES), op.stride[0]
    (in_rows, in_width), pad = (op.in_shape[1:], op.padding[0]) if not cut.turned else (op.in_shape[:0:-1], op.padding[1])
    lines = inside = words = 0
    for first in range(0, cut.out_rows, cut.rows):
        length, top = min(cut.rows, cut.out_rows - first), first * stride - pad
        below = top + length * stride + 3 - stride
        lines, inside, words = lines + below - top, inside + min(below, in_rows) - max(top, 0), words + length * cut.words
    packed, stored, bytewise = inside * cut.phases * cut.words, words * cut.sums / 4, channels % LANES > 0
    own = [
        1, cut.tiles * quads, inside * quads, inside * cut.phases * quads, packed * quads, (lines - inside) * cut.words * quads,
        cut.tiles * channels, channels * words, channels * stored, quads * stored, quads * cut.out_rows,
        math.prod(op.out_shape), bytewise * packed * quads, bytewise * inside * in_width * channels, bytewise * stored * quads,
        bytewise * math.prod(op.out_shape), bytewise * inside * cut.phases * quads,
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


def _block_turns(key: RowKey) -> Floats:
    """Turns of each loop of `cortex_m0/hw_conv2d.c`: packing, expanding, multiplying three filters or the rest, finishing."""
    cut, outputs = blocks(_op_of(key), key.precision), key.out_shape[0] // key.groups
    whole, rest = divmod(outputs, MOST_FILTERS)
    tiles, places = key.groups * cut.tiles, key.groups * cut.part_h * cut.part_w
    packed = tiles * cut.in_rows * cut.positions * (math.prod(cut.op.kernel) if cut.gathered else 1)
    rows = key.groups * cut.part_h * -(-cut.part_w // cut.columns)
    stretches, elements = cut.runs + cut.window // cut.limit, math.prod(key.out_shape)
    return np.array(
        [
            1, tiles, packed * cut.lanes, packed * cut.channels, tiles * cut.rows * cut.columns * cut.lanes * cut.runs,
            tiles * (whole + (rest > 0)), tiles * whole * cut.window, tiles * rest * cut.window, rows * (whole + (rest > 0)),
            places * (whole + (rest > 0)) * stretches, places * whole * cut.window, places * (rest == 1) * cut.window,
            places * (rest == 2) * cut.window, rows * cut.lanes * outputs, elements,
        ],
        dtype=np.float64,
    )  # fmt: skip


def _channel_turns(key: RowKey) -> Floats:
    """Turns of each loop of `cortex_m0/hw_depthwise_conv2d.c`; shapes that it leaves take the portable loops."""
    op, others = _op_of(key), _depthwise_turns(key)
    cut = channel_tile(op, key.precision)
    if cut is None:
        return np.concatenate([np.zeros(2 * N_CHANNEL_LOOPS), others])
    channels, tiles = key.out_shape[0], -(-cut.part_h // cut.rows)
    runs = tiles * cut.lanes if cut.part_w == key.out_shape[2] else cut.part_h * cut.lanes
    in_rows = tiles * cut.in_rows
    own = [
        1, channels, tiles * channels, channels * in_rows, channels * in_rows * cut.in_columns, channels * cut.part_h,
        channels * cut.part_h * cut.part_w, channels * runs, math.prod(key.out_shape),
    ]  # fmt: skip
    single, packed = np.array(own) * (cut.lanes == 1), np.array(own) * (cut.lanes > 1)
    return np.concatenate([single, packed, np.zeros(len(others))]).astype(np.float64)


def _pool_turns(key: RowKey) -> Floats:
    """Turns of each loop of the pools: sixteen and four channels at a time where they come in fours, else one by one."""
    rows, pixels, channels = key.out_shape[1], math.prod(key.out_shape[1:]), key.out_shape[0]
    whole = key.op is OpKind.AVG_POOL and key.in_shape[2] == key.kernel[1] and math.prod(key.kernel) <= MOST_CODES
    window = np.array([1, 1 if whole else key.kernel[0], math.prod(key.kernel)], dtype=np.float64)
    by_words = channels % LANES == 0
    wide, narrow = pixels * (channels // WIDE), pixels * (channels % WIDE // LANES)
    in_words = np.concatenate([[rows, pixels], wide * window, narrow * window]) * by_words
    return np.concatenate([[1], in_words, [pixels * (not by_words)], pixels * channels * window * (not by_words)])


def _lookup_turns(key: RowKey) -> Floats:
    """Turns of each loop of `cortex_m/hw_requantize.c`: a table first where codes are more than a byte has values."""
    count = math.prod(key.out_shape)
    many = count > CODES
    return np.array([1, many, many * (count // 8), many * (count % 8), (not many) * count], dtype=np.float64)


def _sum_turns(key: RowKey) -> Floats:
    """Turns of each loop of `cortex_m/hw_add.c`: many sums of codes below 16 come from a table."""
    count = math.prod(key.out_shape)
    by_table = count >= WORTH_A_TABLE and key.precision.activation_bits <= 4
    return np.array([1, by_table, by_table * count, (not by_table) * count], dtype=np.float64)


def _row_turns(key: RowKey) -> Floats:
    """Turns of each loop of `cortex_m/hw_linear.c` and its like: arranging inputs, then words of 1, 2 or 4 rows at once."""
    inputs, outputs = math.prod(key.in_shape), key.out_shape[0]
    words = math.ceil(inputs * key.stored_bits / 32)
    pairs, quads = math.ceil(outputs / 2), math.ceil(outputs / 4)
    return np.array(
        [1, inputs, words, outputs, outputs * words, pairs, pairs * words, pairs * inputs, quads, quads * words, quads * inputs],
        dtype=np.float64,
    )


def _strip_turns(key: RowKey) -> Floats:
    """Turns of each loop of `cortex_m/hw_conv2d.c`: strips, or for narrow 3x3 kernels polynomials; zero for the other way."""
    polynomial = polynomials(_op_of(key), key.precision)
    if polynomial is None:
        return np.concatenate([[1], _in_strips(key), np.zeros(N_POLYNOMIAL_LOOPS)])
    return np.concatenate([[1], np.zeros(N_STRIP_LOOPS), _in_polynomials(key, polynomial)])


def _in_strips(key: RowKey) -> Floats:
    """Packing words or bytes, summing windows, expanding a block of filters, multiplying, finishing in the loop or after it."""
    cut, pack = strips(_op_of(key), key.precision), packing(key.precision)
    outputs, taps = key.out_shape[0] // key.groups, math.prod(cut.kernel)
    blocks = key.groups * math.ceil(outputs / pack.filters)
    positions = key.groups * cut.tiles * cut.in_rows * cut.positions
    bytewise, spread = cut.given % LANES != 0, cut.is_spread
    calls = positions * (taps if cut.gathered and not bytewise else 1)
    words = calls * (cut.window if cut.gathered and bytewise else cut.channels)
    summed = key.groups * cut.tiles * cut.rows * cut.part
    pixels = blocks * cut.out_h * cut.part * math.ceil(cut.out_w / cut.columns)
    stretches = pixels * (cut.runs + cut.window // cut.limit)
    quick = outputs % (2 if pack.filters == 6 else 4) == 0
    elements = cut.out_h * cut.part * math.ceil(cut.out_w / cut.columns) * cut.lanes * key.out_shape[0]
    ways = (cut.gathered and bytewise, cut.gathered and not bytewise, spread, not cut.gathered and not spread)
    packing_turns = [turns * taken for taken in ways for turns in (calls, words)]
    return np.array(
        [
            key.groups * cut.tiles, *packing_turns, positions * cut.kernel[0] * ways[0], summed,
            summed * (1 if cut.gathered else taps), cut.tiles * blocks, cut.tiles * blocks * cut.window,
            cut.tiles * blocks * cut.window * spread, blocks * cut.out_h, pixels * quick, pixels * (not quick), stretches,
            pixels * cut.runs * cut.run, elements * quick, elements * (not quick),
        ],
        dtype=np.float64,
    )  # fmt: skip


def _in_polynomials(key: RowKey, cut: Polynomials) -> Floats:
    """Packing segments, summing windows, expanding two filters, beginning, multiplying and finishing their totals."""
    segments, across = _segments(cut, padded=cut.stride == 2 or key.in_shape[2] == cut.out_w), math.ceil(cut.out_w / cut.columns)
    pairs = key.groups * (cut.out_h // POLY_OUT_ROWS * (POLY_OUT_ROWS // 2) + -(-(cut.out_h % POLY_OUT_ROWS) // 2))
    tiles, filters = key.groups * cut.tiles, key.out_shape[0] // key.groups // 2
    stride, down = cut.stride, key.groups * math.ceil(cut.out_h / POLY_OUT_ROWS)
    packed_rows = 2 * stride * pairs + (3 - stride) * down
    words, multiplied = packed_rows * segments * stride, pairs * segments * filters
    return np.array(
        [
            tiles, packed_rows * across, words, words * cut.channels, cut.out_h * cut.out_w * key.groups, tiles * filters,
            tiles * filters * cut.channels, pairs * filters * across, pairs * filters * cut.out_w, multiplied * cut.blocks,
            multiplied * cut.channels * stride, cut.out_h * across * key.groups * filters,
            cut.out_h * cut.out_w * key.groups * filters,
        ],
        dtype=np.float64,
    )  # fmt: skip


def _segments(cut: Polynomials, padded: bool) -> int:
    """Words per row and channel of all tiles beside each other; columns of padding beside the image take none."""
    total = 0
    for start in range(0, cut.out_w, cut.columns):
        columns = min(cut.columns, cut.out_w - start)
        beside = (start == 0) + (cut.stride == 1 and start + columns == cut.out_w) if padded else 0
        total += max(columns + 2 - cut.stride - beside, 0) // cut.pixels + 1
    return total


def _op_of(key: RowKey) -> Op:
    """The operation of a row; a row does not tell its padding, which is the least that gives its output."""
    missing = zip(key.in_shape[1:], key.out_shape[1:], key.kernel, key.stride, strict=True)
    rows, columns = (max(0, -(-((out - 1) * stride + side - given) // 2)) for given, out, side, stride in missing)
    return Op(
        name="op", kind=key.op, inputs=("input",), in_shape=key.in_shape, out_shape=key.out_shape, kernel=key.kernel,
        stride=key.stride, padding=(rows, columns), groups=key.groups,
    )  # fmt: skip


def _dimensions(key: RowKey) -> Floats:
    """What must lie within reach of measured rows: channels in and out, output pixels and the window."""
    pixels = math.prod(key.out_shape[1:])
    return np.array([key.in_shape[0], key.out_shape[0], pixels, key.kernel[0] * key.kernel[1]], dtype=np.float64)


def _fit(counts: Floats, latencies: Floats) -> Floats:
    """Cost of one turn of each loop, minimising the sum of squared relative errors; 0 for loops that no row enters."""
    from scipy.optimize import nnls  # takes longer to load than tables that need no fit take to price

    entered = counts.max(axis=0) > 0
    scale = counts[:, entered].max(axis=0)  # [features]
    solution, _ = nnls(counts[:, entered] / scale / latencies[:, None], np.ones(len(latencies)), maxiter=50 * counts.shape[1])
    costs = np.zeros(counts.shape[1])
    costs[entered] = solution / scale
    return costs


Loops = Callable[[RowKey], Floats]
_OWN_LOOPS: dict[OpKind, tuple[Loops, ...]] = {
    OpKind.CONV2D: (_tiled_turns, _strip_turns, _block_turns),
    OpKind.AVG_POOL: (_pool_turns,),
    OpKind.MAX_POOL: (_pool_turns,),
    OpKind.ADD: (_sum_turns,),
    OpKind.REQUANTIZE: (_lookup_turns,),
    OpKind.LINEAR: (_row_turns,),
    OpKind.DEPTHWISE_CONV2D: (_depthwise_turns, _stream_turns, _channel_turns),
}


def _errors_left_out(counts: Floats, latencies: Floats, judged: int) -> Floats:
    """Relative error of the prediction of each of the first `judged` rows by all others."""
    keep = np.ones(len(latencies), dtype=bool)
    errors = np.empty(judged)
    for row in range(judged):
        keep[row] = False
        errors[row] = abs(counts[row] @ _fit(counts[keep], latencies[keep]) / latencies[row] - 1.0)
        keep[row] = True
    return errors


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """One way to fit a group: with these loops, to its rows or to all that share its body of code."""

    loops: Loops
    costs: Floats
    entered: NDArray[np.bool_]
    """Loops that any row enters; what others cost is not known."""
    error: float

    @classmethod
    def fit(cls, loops: Loops, rows: Sequence[Measurement], judged: int) -> "_Candidate":
        """The first `judged` rows are those whose errors count."""
        latencies = np.array([row.latency_us for row in rows])
        counts = np.stack([loops(row.key) for row in rows])  # [rows, loops]
        error = float(np.quantile(_errors_left_out(counts, latencies, judged), ERROR_QUANTILE))
        return cls(loops=loops, costs=_fit(counts, latencies), entered=counts.max(axis=0) > 0, error=error)

    def knows(self, key: RowKey) -> bool:
        """Whether the shape enters only loops that were measured."""
        return not np.any(self.loops(key)[~self.entered])


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeRegression:
    """A fit over the rows of one group. Of the candidates that know a shape's loops, the one with the least error prices it."""

    candidates: tuple[_Candidate, ...]
    """From the least error to the largest."""
    lowest: Floats
    highest: Floats
    rows: tuple[Measurement, ...]

    @classmethod
    def fit(cls, rows: Sequence[Measurement], related: Sequence[Measurement] = ()) -> "ShapeRegression":
        """Fit the rows of one group; `related` are further rows of the same body of code, which may be of other kernels.

        Raises ValueError if there are fewer rows than `is_enough` asks for.
        """
        if not is_enough(rows, related):
            raise ValueError(f"a fit needs {MIN_ROWS} rows of one group, but found {len(rows)}")
        own, pooled = _OWN_LOOPS.get(rows[0].op, ()), [*rows, *related]
        candidates = []
        if len(rows) >= MIN_ROWS:
            candidates += [_Candidate.fit(loops, rows, len(rows)) for loops in (_plain_turns, *own)]
        if len(pooled) >= MIN_POOLED_ROWS:
            judged = len(rows) if len(rows) >= MIN_ROWS else len(pooled)
            candidates += [_Candidate.fit(loops, pooled, judged) for loops in own]
        dimensions = np.stack([_dimensions(row.key) for row in rows])
        return cls(
            candidates=tuple(sorted(candidates, key=lambda candidate: candidate.error)), lowest=dimensions.min(axis=0),
            highest=dimensions.max(axis=0), rows=tuple(rows),
        )  # fmt: skip

    def reaches(self, key: RowKey) -> bool:
        """Whether every dimension lies within the measured ones, give or take the factor `REACH`, and its loops are known."""
        dimensions = _dimensions(key)
        inside = np.all(dimensions * REACH >= self.lowest) and np.all(dimensions <= self.highest * REACH)
        return bool(inside) and any(candidate.knows(key) for candidate in self.candidates)

    def latency_us(self, key: RowKey) -> float:
        chosen = self._chosen(key)
        return float(chosen.loops(key) @ chosen.costs)

    def error(self, key: RowKey) -> float:
        """The stated relative error, found by leaving each row out in turn."""
        return self._chosen(key).error

    def _chosen(self, key: RowKey) -> _Candidate:
        return next(candidate for candidate in self.candidates if candidate.knows(key))
