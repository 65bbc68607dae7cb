"""What published totals of whole networks say about single operations.

A handful of totals never fixes the price of every kind of operation. So each operation gets, beside a point, the interval of
all prices that agree with every published total under a stated form (`identified`): a linear programme per end. Errors are found
by leaving whole networks out.
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog, minimize, nnls

from hwsearch.graph.op import Op, OpKind, parse_shape

DATA = Path(__file__).parent / "data"
CYCLES, L4R5, PI4, PI4_LEIP = (
    DATA / "cmsis_nn_cycles.csv", DATA / "mlperf_tiny_nucleo_l4r5zi.csv", DATA / "mlperf_raspberry_pi_4b_tflite.csv",
    DATA / "mlperf_tiny_raspberry_pi_4b_leip.csv",
)  # fmt: skip
TINY = ("ic", "kws", "vww", "ad")
"""The four networks of MLPerf Tiny: ResNet8, DS-CNN, MobileNetV1-0.25, a fully connected autoencoder."""

Floats = NDArray[np.float64]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One operation of the MLPerf Tiny networks and the cycles of CMSIS-NN without wait states, at 8-bit weights and at 4.

    `times` says how often each network of `TINY` runs it. `kind` is `softmax` where no operation of ours corresponds;
    `four_bit_cycles` is 0 where there are no weights.
    """

    times: tuple[int, ...]
    kind: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    macs: int
    cycles: int
    four_bit_cycles: int

    @property
    def outputs(self) -> int:
        return int(np.prod(self.out_shape))

    def is_of(self, op: Op) -> bool:
        """Whether `op` has this layer's shapes; the flattened input of a linear layer has one shape here."""
        same_input = op.reduction == self.in_shape[0] if op.kind is OpKind.LINEAR else op.in_shape == self.in_shape
        same_window = op.kind is OpKind.LINEAR or (op.kernel, op.stride) == (self.kernel, self.stride)
        return op.kind == self.kind and same_input and same_window and op.out_shape == self.out_shape


def tiny_layers() -> tuple[Layer, ...]:
    """Every operation of the four networks once, in order."""
    cycles: dict[tuple[str, ...], dict[str, int]] = {}
    runs: dict[tuple[str, ...], list[str]] = {}
    for row in read(CYCLES):
        shape = tuple(row[column] for column in ("op", "in_shape", "out_shape", "kernel", "stride", "macs"))
        cycles.setdefault(shape, {})[row["weight_bits"]] = int(row["cycles"])
        if row["weight_bits"] != "4":
            runs.setdefault(shape, []).append(row["network"])
    return tuple(
        Layer(
            times=tuple(runs[shape].count(network) for network in TINY), kind=shape[0], in_shape=parse_shape(shape[1]),
            out_shape=parse_shape(shape[2]), kernel=_pair(shape[3]), stride=_pair(shape[4]), macs=int(shape[5]),
            cycles=found["8" if "8" in found else "0"], four_bit_cycles=found.get("4", 0),
        )
        for shape, found in cycles.items()
    )  # fmt: skip


def _pair(text: str) -> tuple[int, int]:
    rows, columns = text.split("x")
    return int(rows), int(columns)


# --- intervals --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Prices of operations of which only sums are known.

    Operation o costs `basis[o] @ rates` up to the share `slack` either way, and lies within `lowest[o]` and `highest[o]`
    (infinite if unknown). Each row of `members` [networks, ops] says how often a network runs each; that sums to a total.
    """

    basis: Floats
    members: Floats
    totals: Floats
    slack: float
    least_rate: float
    lowest: Floats
    highest: Floats

    def without(self, network: int) -> "Problem":
        """The same with one total unknown."""
        keep = np.arange(len(self.totals)) != network
        return Problem(
            basis=self.basis, members=self.members[keep], totals=self.totals[keep], slack=self.slack,
            least_rate=self.least_rate, lowest=self.lowest, highest=self.highest,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Identified:
    """Lowest and highest price of each operation that agrees with all totals, and one price of each that does so together."""

    low: Floats
    point: Floats
    high: Floats


def identified(problem: Problem) -> Identified:
    """Both ends of each operation's interval, and of all solutions the one nearest to the intervals' geometric middles.

    Raises ValueError if no prices agree with all totals.
    """
    unit = float(np.median(problem.totals))
    basis, n_ops = problem.basis / unit, len(problem.basis)
    slacks = np.vstack(
        [np.hstack([-(1 + problem.slack) * basis, np.eye(n_ops)]), np.hstack([(1 - problem.slack) * basis, -np.eye(n_ops)])]
    )
    n_rates = basis.shape[1]
    sums = np.hstack([np.zeros((len(problem.totals), n_rates)), problem.members])
    bounds = [(problem.least_rate, None)] * n_rates
    bounds += [(low / unit, high / unit) for low, high in zip(problem.lowest, problem.highest, strict=True)]
    extremes = np.empty((2, n_ops, n_rates + n_ops))
    for op in range(n_ops):
        for end, sign in enumerate((1.0, -1.0)):
            aim = np.zeros(n_rates + n_ops)
            aim[n_rates + op] = sign
            found = linprog(aim, A_ub=slacks, b_ub=np.zeros(2 * n_ops), A_eq=sums, b_eq=problem.totals / unit, bounds=bounds)
            if not found.success:
                raise ValueError(f"prices must agree with all totals, but none do ({found.message}); allow more slack")
            extremes[end, op] = found.x
    low, high = np.diagonal(extremes[:, :, n_rates:], axis1=1, axis2=2)
    start = extremes.mean(axis=(0, 1))
    point = _nearest(np.sqrt(low * high), high - low, start, slacks, sums, problem.totals / unit)
    return Identified(low=low * unit, point=np.clip(point, low, high) * unit, high=high * unit)


def _nearest(middles: Floats, widths: Floats, start: Floats, slacks: Floats, sums: Floats, totals: Floats) -> Floats:
    """The solution whose distances from the middles, in widths of the intervals, have the least sum of squares."""
    n_rates = len(start) - len(middles)
    scale = np.concatenate([np.maximum(start[:n_rates], 1e-9), np.maximum(widths, 1e-9)])
    origin = np.concatenate([np.zeros(n_rates), middles])
    only_ops = np.arange(len(start)) >= n_rates
    limits = [
        {"type": "ineq", "fun": lambda z: -slacks @ (origin + scale * z), "jac": lambda z: -slacks * scale},
        {"type": "eq", "fun": lambda z: sums @ (origin + scale * z) - totals, "jac": lambda z: sums * scale},
    ]
    found = minimize(
        lambda z: float(z[only_ops] @ z[only_ops]), (start - origin) / scale, jac=lambda z: 2 * z * only_ops, method="SLSQP",
        constraints=limits, options={"maxiter": 500, "ftol": 1e-12},
    )  # fmt: skip
    if not found.success:
        raise ValueError(f"a nearest solution must be found, but the search ended with: {found.message}")
    return np.asarray((origin + scale * found.x)[n_rates:])


def left_out(problem: Problem) -> Floats:
    """Relative error of each total when it is predicted by the point that the others leave."""
    errors = []
    for network, (layers, total) in enumerate(zip(problem.members, problem.totals, strict=True)):
        errors.append(float(layers @ identified(problem.without(network)).point / total - 1))
    return np.array(errors)


def members(layers: Sequence[Layer]) -> Floats:
    """How often each of the four networks runs each layer, [4, layers]."""
    return np.array([layer.times for layer in layers], dtype=np.float64).T


# --- Cortex-M4 --------------------------------------------------------------------------------------------------------


def tiny_totals(stack: str, clock_hz: float) -> Floats:
    """Published cycles of the four networks on NUCLEO-L4R5ZI."""
    latency_ms = {row["network"]: float(row["latency_ms"]) for row in read(L4R5) if row["stack"] == stack}
    return np.array([latency_ms[network] * clock_hz / 1e3 for network in TINY])


def one_factor(emulated: Floats, totals: Floats) -> float:
    """The factor that minimises the squared relative errors of the totals."""
    shares = emulated / totals
    return float(shares.sum() / (shares @ shares))


def factor_left_out(emulated: Floats, totals: Floats) -> Floats:
    """Relative error of each total when the factor is fitted on the other ones."""
    keep = ~np.eye(len(totals), dtype=bool)
    factors = np.array([one_factor(emulated[rest], totals[rest]) for rest in keep])
    return factors * emulated / totals - 1


CLASS_SLACK = 0.10
"""How far layers of one class may differ in how much flash slows them."""


def cmsis_nn_problem(layers: Sequence[Layer], totals: Floats) -> Problem:
    """Each class of layers is slowed by its own factor, never below 1: a board cannot be faster than without wait states."""
    classes = [_class_of(layer) for layer in layers]
    cycles = np.array([layer.cycles for layer in layers], dtype=np.float64)
    basis = np.stack([cycles * [name == one for one in classes] for name in sorted(set(classes))], axis=1)
    return Problem(
        basis=basis, members=members(layers), totals=totals, slack=CLASS_SLACK, least_rate=1.0, lowest=cycles,
        highest=np.full(len(layers), np.inf),
    )  # fmt: skip


def _class_of(layer: Layer) -> str:
    if layer.kind == OpKind.CONV2D:
        return "pointwise" if layer.kernel == (1, 1) else "convolution"
    return layer.kind if layer.macs else "without weights"


RATE_SLACK = 0.25
"""How far layers of one class may differ from its rate in an engine whose kernels are not known."""
LEAST_CYCLES_PER_MAC = 0.5
"""SMLAD makes two products per cycle; loads and stores come on top."""


def x_cube_ai_problem(layers: Sequence[Layer], totals: Floats, cmsis_nn: Floats) -> Problem:
    """Cycles per product and class, and per output; no layer slower than under CMSIS-NN here, nor faster than its products.

    A layer without weights takes at least a cycle per output.
    First convolutions, which have one to three input channels, are classes of their own, by window.
    """
    names = [_rate_of(layer) for layer in layers]
    macs = np.array([layer.macs for layer in layers], dtype=np.float64)
    outputs = np.array([layer.outputs for layer in layers], dtype=np.float64)
    rates = sorted({name for name in names if name})
    basis = np.stack([*(macs * [name == one for one in names] for name in rates), outputs], axis=1)
    return Problem(
        basis=basis, members=members(layers), totals=totals, slack=RATE_SLACK, least_rate=0.0,
        lowest=np.where(macs > 0, LEAST_CYCLES_PER_MAC * macs, outputs), highest=cmsis_nn,
    )  # fmt: skip


def _rate_of(layer: Layer) -> str:
    if layer.kind == OpKind.CONV2D and layer.in_shape[0] <= 3:
        return f"first {layer.kernel[0]}x{layer.kernel[1]}"
    return _class_of(layer) if layer.macs else ""


# --- Raspberry Pi 4 ---------------------------------------------------------------------------------------------------

Turns = tuple[int, int, int, int]
"""What a layer does: 1, products of a convolution or linear layer, products of a depthwise one, outputs."""


def mobilenet_v1(width: float, side: int) -> list[Turns]:
    """MobileNetV1 (arXiv 1704.04861, table 1) of a width multiplier and an input side, with 1001 classes."""
    side //= 2
    channels = _rounded(32 * width)
    layers = [_conv(3, side, 3, channels)]
    blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for outputs, stride in blocks:
        side = -(-side // stride)
        layers += [_depthwise(3, side, channels), _conv(1, side, channels, _rounded(outputs * width))]
        channels = _rounded(outputs * width)
    return [*layers, _conv(1, 1, channels, 1001)]


_LITE = ((1.0, 1.0, 224), (1.0, 1.1, 240), (1.1, 1.2, 260), (1.2, 1.4, 280), (1.4, 1.8, 300))
_LITE_BLOCKS = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
                (6, 320, 1, 1, 3))  # fmt: skip


def efficientnet_lite(number: int) -> list[Turns]:
    """EfficientNet-lite: the blocks of arXiv 1905.11946 without squeeze-and-excite; stem, head, first and last stage unscaled.

    Each block is (expansion, outputs, repeats, stride, window).
    """
    width, depth, side = _LITE[number]
    side, channels = -(-side // 2), 32
    layers = [_conv(3, side, 3, channels)]
    for stage, (expansion, outputs, repeats, first_stride, window) in enumerate(_LITE_BLOCKS):
        count = repeats if stage in (0, len(_LITE_BLOCKS) - 1) else int(np.ceil(repeats * depth))
        for index in range(count):
            stride, wide, out = first_stride if index == 0 else 1, channels * expansion, _rounded(outputs * width)
            layers += [_conv(1, side, channels, wide)] if expansion > 1 else []
            side = -(-side // stride)
            layers += [_depthwise(window, side, wide), _conv(1, side, wide, out)]
            layers += [(1, 0, 0, side * side * out)] if stride == 1 and channels == out else []
            channels = out
    return [*layers, _conv(1, side, channels, 1280), _conv(1, 1, 1280, 1000)]


def resnet50() -> list[Turns]:
    """ResNet-50 v1.5 (arXiv 1512.03385, table 1; the stride in the 3x3 convolution) with 1001 classes."""
    layers, channels, side = [_conv(7, 112, 3, 64)], 64, 56
    for outputs, repeats, first_stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for index in range(repeats):
            layers.append(_conv(1, side, channels, outputs))
            side //= first_stride if index == 0 else 1
            layers += [_conv(3, side, outputs, outputs), _conv(1, side, outputs, 4 * outputs)]
            layers += [_conv(1, side, channels, 4 * outputs)] if index == 0 else []
            layers.append((1, 0, 0, side * side * 4 * outputs))
            channels = 4 * outputs
    return [*layers, _conv(1, 1, channels, 1001)]


def _rounded(channels: float) -> int:
    """The next multiple of 8, not more than a tenth below."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def _conv(window: int, side: int, inputs: int, outputs: int) -> Turns:
    return 1, window * window * side * side * inputs * outputs, 0, side * side * outputs


def _depthwise(window: int, side: int, channels: int) -> Turns:
    return 1, 0, window * window * side * side * channels, side * side * channels


def pi4_turns(network: str) -> Floats:
    """Sums over the layers of one of the networks that were timed on the Raspberry Pi 4."""
    family, _, rest = network.partition("-")
    if family == "mobilenet":
        _, width, side = rest.split("-")
        layers = mobilenet_v1(float(width), int(side))
    else:
        layers = efficientnet_lite(int(network[-1])) if family == "efficientnet" else resnet50()
    return np.asarray(np.array(layers, dtype=np.float64).sum(axis=0))


def op_turns(op: Op) -> Floats:
    """The same of one operation."""
    depthwise = op.kind is OpKind.DEPTHWISE_CONV2D
    return np.array([1, 0 if depthwise else op.macs, op.macs if depthwise else 0, np.prod(op.out_shape)], dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class PerLayerFit:
    """Latency as a sum over layers, with microseconds per turn. Rows are networks, all at one precision."""

    names: tuple[str, ...]
    turns: Floats
    latency_us: Floats
    costs: Floats

    @classmethod
    def of(cls, precision: str) -> "PerLayerFit":
        rows = [row for row in read(PI4) if row["precision"] == precision]
        turns = np.stack([pi4_turns(row["network"]) for row in rows])
        latency_us = np.array([float(row["latency_ms"]) * 1e3 for row in rows])
        costs = _relative_fit(turns, latency_us)
        return cls(names=tuple(row["network"] for row in rows), turns=turns, latency_us=latency_us, costs=costs)

    def errors(self) -> Floats:
        """Relative errors on the very networks of the fit."""
        return self.turns @ self.costs / self.latency_us - 1

    def left_out(self, group: Callable[[str], str] = str) -> Floats:
        """Relative error of each network predicted by all of other groups; by default a network is a group."""
        groups = np.array([group(name) for name in self.names])
        errors = np.empty(len(self.names))
        for one in set(groups):
            rest = groups != one
            costs = _relative_fit(self.turns[rest], self.latency_us[rest])
            errors[~rest] = self.turns[~rest] @ costs / self.latency_us[~rest] - 1
        return errors

    def interval(self, turns: Floats, tolerance: float) -> tuple[float, float]:
        """Lowest and highest latency of these turns over all costs that meet every network within `tolerance`."""
        shares = self.turns / self.latency_us[:, None]
        scale = shares.max(axis=0)
        rows, limits = np.vstack([shares, -shares]) / scale, np.repeat([1 + tolerance, tolerance - 1], len(shares))
        ends = [linprog(sign * turns / scale, A_ub=rows, b_ub=limits) for sign in (1.0, -1.0)]
        if not all(end.success for end in ends):
            raise ValueError(f"some costs must meet every network within {tolerance:g}, but none do; allow more")
        return float(ends[0].fun), float(-ends[1].fun)


def _relative_fit(turns: Floats, latency_us: Floats) -> Floats:
    scale = turns.max(axis=0)
    scale[scale == 0] = 1
    costs, _ = nnls(turns / scale / latency_us[:, None], np.ones(len(latency_us)))
    return np.asarray(costs / scale)


def family_of(network: str) -> str:
    """`mobilenet`, `efficientnet` or `resnet50`."""
    return network.split("-", maxsplit=1)[0]
