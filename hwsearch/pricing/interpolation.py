"""Latency of a shape that was not measured, from measured shapes of the same operation, kernel, stride and precision.

A kernel's time is a sum of loops, each run a number of times that follows from the shape: once, per output pixel, per output
element, per product and so on. Non-negative least squares on these counts, minimising relative errors, finds what each turn
costs. Convolutions are fitted with the loops of a plain kernel and with those of our own bodies, portable, Cortex-M and
Cortex-M0+; where there are many rows, those of other kernel sizes and strides help, since they run the same loops. Leaving
rows out tells which fit is right. Nothing is interpolated across widths: latency is a step function of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.hardware.profile import Measurement, RowKey
from hwsearch.kernels.bodies.body import Loops, Turns
from hwsearch.kernels.bodies.known import BODIES

MIN_ROWS = 4
"""Fewer measured shapes than this say nothing about others."""
REACH = 2.0
"""How far beyond the smallest and largest measured dimension a price is still given, as a factor."""
ERROR_QUANTILE = 0.95
"""Which leave-one-out error is stated as a regression's uncertainty."""

MIN_POOLED_ROWS = 64
"""Rows of one body of code from which other kernels and strides help; at least one for each loop of the most
detailed body. With fewer, a fit may be sure of itself and wrong: errors of half the price were seen with 52 rows."""

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
    pooled = len(rows) + len(related) >= MIN_POOLED_ROWS and bool(rows) and bool(_own_loops(rows[0].op))
    return len(rows) >= MIN_ROWS or pooled


def _plain_turns(op: Op, _: Precision, __: int) -> Turns:
    """Turns of each loop of a kernel that works pixel by pixel or row by row."""
    rows, pixels = (op.out_shape[1], math.prod(op.out_shape[1:])) if len(op.out_shape) > 1 else (1, 1)
    channels, inputs = op.out_shape[0], math.prod(op.in_shape)
    depth = inputs if op.kind is OpKind.LINEAR else op.in_shape[0] // op.groups if op.kind is OpKind.CONV2D else 1
    reduction = math.prod(op.kernel) * depth
    elements, border = pixels * channels, sum(op.out_shape[1:]) or 1
    return {
        "call": 1,
        "row": rows,
        "pixel": pixels,
        "channel": channels,
        "output": elements,
        "output and kernel row": elements * op.kernel[0],
        "product": elements * reduction,
        "gathered input": pixels * reduction,
        "weight": channels * reduction,
        "input": inputs,
        "border": border * reduction,
    }


def _op_of(key: RowKey) -> Op:
    """The operation of a row; a row does not tell its padding, which is the least that gives its output."""
    rows = columns = 0
    if len(key.in_shape) == len(key.out_shape) == 3:
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


def _own_loops(kind: OpKind) -> tuple[Loops, ...]:
    """The loops of every folder that counts those of this kind: which of them a table's kernels run, leaving rows out tells."""
    return tuple(body.loops[kind] for body in BODIES.values() if kind in body.loops)


def _turns(loops: Loops, key: RowKey) -> Turns:
    return loops(_op_of(key), key.precision, key.stored_bits)


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
    """One way to fit a group: with these loops, to its rows or to all that share its body of code.

    `costs` are in us per turn, of the loops that any row enters; what others cost is not known.
    """

    loops: Loops
    costs: Turns
    error: float

    @classmethod
    def fit(cls, loops: Loops, rows: Sequence[Measurement], judged: int) -> "_Candidate":
        """The first `judged` rows are those whose errors count."""
        latencies = np.array([row.latency_us for row in rows])
        turns = [_turns(loops, row.key) for row in rows]
        names = tuple(dict.fromkeys(name for row in turns for name in row))
        counts = np.array([[row.get(name, 0) for name in names] for row in turns], dtype=np.float64)  # [rows, loops]
        error = float(np.quantile(_errors_left_out(counts, latencies, judged), ERROR_QUANTILE))
        entered = counts.max(axis=0) > 0
        costs = zip(names, _fit(counts, latencies), entered, strict=True)
        return cls(loops=loops, costs={name: float(cost) for name, cost, known in costs if known}, error=error)

    def knows(self, key: RowKey) -> bool:
        """Whether the shape enters only loops that were measured."""
        return all(name in self.costs for name, turns in _turns(self.loops, key).items() if turns)

    def latency_us(self, key: RowKey) -> float:
        return sum(self.costs[name] * turns for name, turns in _turns(self.loops, key).items() if turns)


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
        own, pooled = _own_loops(rows[0].op), [*rows, *related]
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
        return self._chosen(key).latency_us(key)

    def error(self, key: RowKey) -> float:
        """The stated relative error, found by leaving each row out in turn."""
        return self._chosen(key).error

    def _chosen(self, key: RowKey) -> _Candidate:
        return next(candidate for candidate in self.candidates if candidate.knows(key))
