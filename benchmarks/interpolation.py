"""How far interpolated prices are from emulated ones, operation by operation, on shapes that no table holds.

Shapes are drawn at random between the smallest and the largest that the grid has, odd channel counts and odd sides too; each is
priced from the table and then emulated. `python benchmarks/interpolation.py` prints mean and worst error by operation, kernel
and stride, and writes benchmarks/interpolation.md; `--json` prints a row for each shape instead. A shape that the cost model
refuses to interpolate is counted, not judged. `--seed` draws other shapes; 0 is the one that was looked at while the regression
was built, so that it is judged by another.
"""

import argparse
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from itertools import repeat
from pathlib import Path

import numpy as np

from hwsearch.errors import ProfileError
from hwsearch.graph.network import Network
from hwsearch.graph.op import Op, OpKind, shape_text
from hwsearch.graph.precision import KERNEL_PRECISIONS, Precision
from hwsearch.hardware.profile import load_profile
from hwsearch.integers.cases import random_case
from hwsearch.kernels.catalogue import supported
from hwsearch.measuring.targets.known_targets import open_target
from hwsearch.measuring.targets.target import Target
from hwsearch.pricing.cost_model import CostModel

SEED = 1
SHAPES = 24
"""Of each kind; every shape at one random precision and stored width."""
PRECISIONS = {
    "even": tuple(one for one in KERNEL_PRECISIONS if one.weight_bits % 2 == 0 and one.activation_bits % 2 == 0),
    "odd": tuple(one for one in KERNEL_PRECISIONS if one.weight_bits % 2 == 1),
}
"""Odd widths are measured at fewer shapes (see hwsearch/measuring/grid.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    kind: str
    widths: str
    shape: str
    precision: str
    stored_bits: int
    predicted_us: float | None
    """None where the cost model refuses the shape."""
    emulated_us: float
    stated_error: float
    """What the cost model itself says, beside the device's."""

    @property
    def error(self) -> float:
        if self.predicted_us is None:
            raise ValueError(f"{self.shape} was refused and has no error")
        return self.predicted_us / self.emulated_us - 1


def _between(rng: np.random.Generator, low: int, high: int) -> int:
    """A whole number, evenly distributed in its logarithm."""
    return round(float(np.exp(rng.uniform(np.log(low), np.log(high)))))


def _convolution(rng: np.random.Generator, kind: OpKind, side: int, stride: int) -> Op:
    inputs, size = _between(rng, 6, 128), _between(rng, 4, 32)
    outputs = inputs if kind is OpKind.DEPTHWISE_CONV2D else _between(rng, 8, 128)
    while inputs * outputs * size * size * side * side > 4_000_000 and kind is OpKind.CONV2D:
        size = max(4, size // 2)
        outputs, inputs = max(8, outputs * 3 // 4), max(6, inputs * 3 // 4)
    out = (size + 2 * (side // 2) - side) // stride + 1
    return Op(
        name="op", kind=kind, inputs=("input",), in_shape=(inputs, size, size), out_shape=(outputs, out, out),
        kernel=(side, side), stride=(stride, stride), padding=(side // 2, side // 2),
        groups=inputs if kind is OpKind.DEPTHWISE_CONV2D else 1,
    )  # fmt: skip


def _map(rng: np.random.Generator) -> tuple[int, int, int]:
    size = _between(rng, 4, 28)
    return (_between(rng, 6, 128), size, size)


def _same(rng: np.random.Generator, kind: OpKind) -> Op:
    shape = _map(rng)
    return Op(name="op", kind=kind, inputs=("a", "b") if kind is OpKind.ADD else ("a",), in_shape=shape, out_shape=shape)


def _pool(rng: np.random.Generator, kind: OpKind, side: int, stride: int) -> Op:
    channels, size, _ = _map(rng)
    size = max(size, side)
    out = (size - side) // stride + 1
    return Op(
        name="op", kind=kind, inputs=("a",), in_shape=(channels, size, size), out_shape=(channels, out, out),
        kernel=(side, side), stride=(stride, stride),
    )  # fmt: skip


def _linear(rng: np.random.Generator) -> Op:
    return Op(
        name="op", kind=OpKind.LINEAR, inputs=("a",), in_shape=(_between(rng, 16, 1500),), out_shape=(_between(rng, 8, 128),)
    )


def shapes(seed: int) -> Iterator[tuple[str, Op, bool]]:
    """Kind in words, shape, and whether it gives logits."""
    rng = np.random.default_rng(seed)
    for _ in range(SHAPES):
        for side in (1, 3, 5):
            for stride in (1, 2):
                yield f"conv2d {side}x{side} stride {stride}", _convolution(rng, OpKind.CONV2D, side, stride), False
        for side in (3, 5):
            for stride in (1, 2):
                yield f"depthwise {side}x{side} stride {stride}", _convolution(rng, OpKind.DEPTHWISE_CONV2D, side, stride), False
        yield "linear", _linear(rng), False
        yield "linear giving logits", _linear(rng), True
        yield "max pool 2x2 stride 2", _pool(rng, OpKind.MAX_POOL, 2, 2), False
        yield "max pool 3x3 stride 2", _pool(rng, OpKind.MAX_POOL, 3, 2), False
        side = int(rng.integers(2, 9))
        yield "average pool", _pool(rng, OpKind.AVG_POOL, side, side), False
        yield "add", _same(rng, OpKind.ADD), False
        yield "requantize", _same(rng, OpKind.REQUANTIZE), False


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    kind: str
    widths: str
    op: Op
    precision: Precision
    stored_bits: int
    logits: bool


def works(seed: int) -> Iterator[Work]:
    rng = np.random.default_rng(seed + 1)
    for kind, op, logits in shapes(seed):
        if not op.has_weights:
            yield Work(kind=kind, widths="any", op=op, precision=Precision(0, 8), stored_bits=0, logits=False)
            continue
        for widths, precisions in PRECISIONS.items():
            precision = precisions[int(rng.integers(len(precisions)))]
            if supported(op, precision):
                wider = [bits for bits in (2, 4, 8) if bits >= precision.weight_bits] if widths == "even" else []
                stored = wider[int(rng.integers(len(wider)))] if wider else precision.weight_bits
                yield Work(kind=kind, widths=widths, op=op, precision=precision, stored_bits=stored, logits=logits)


def measure(listed: list[Work], profile_name: str, seed: int) -> list[Row]:
    costs = _model(profile_name)
    with open_target("emulator", costs.profile.header) as target:
        return [row for work in listed if (row := _row(work, costs, target, seed)) is not None]


def _row(work: Work, costs: CostModel, target: Target, seed: int) -> Row | None:
    """None for a shape that the table holds."""
    profile, predicted_us, stated_error = costs.profile, None, 0.0
    header = profile.header
    with suppress(ProfileError):  # refused, which the table counts
        price = costs.op_price(work.op, work.precision, work.stored_bits, logits=work.logits)
        if not price.interpolated:
            return None
        predicted_us = price.latency_us - header.latency_us(header.library.dispatch_count)
        stated_error = price.uncertainty - profile.validity.relative_error
    case = random_case(work.op, work.precision, work.stored_bits, seed, logits=work.logits)
    return Row(
        kind=work.kind,
        widths=work.widths,
        shape=f"{shape_text(work.op.in_shape)} -> {shape_text(work.op.out_shape)}",
        precision=str(work.precision),
        stored_bits=work.stored_bits,
        predicted_us=predicted_us,
        emulated_us=header.latency_us(target.time(case).median),
        stated_error=stated_error,
    )


@cache
def _model(name: str) -> CostModel:
    """A cost model prices any operation; it wants some network all the same."""
    op = Op(name="only", kind=OpKind.LINEAR, inputs=("input",), in_shape=(4,), out_shape=(2,))
    return CostModel(Network([op], (4, 1, 1), "none"), load_profile(name))


def table(rows: list[Row]) -> str:
    columns = (
        "operation",
        "widths",
        "shapes",
        "refused",
        "mean error",
        "worst",
        "worst beyond 20 us",
        "stated, mean",
        "worst shape",
    )
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row.widths, row.kind)):
        groups.setdefault((row.kind, row.widths), []).append(row)
    for (kind, widths), every in groups.items():
        own = [row for row in every if row.predicted_us is not None]
        errors, stated = [abs(row.error) for row in own], [row.stated_error for row in own]
        worst = max(own, key=lambda row: abs(row.error))
        large = max((abs(row.error) for row in own if row.emulated_us > 20), default=0.0)
        shares = (sum(errors) / len(errors), max(errors), large, sum(stated) / len(stated))
        cells = [kind, widths, str(len(every)), str(len(every) - len(own)), *(f"{100 * share:.1f} %" for share in shares)]
        cells.append(f"{worst.shape} {worst.precision} stored {worst.stored_bits}: {100 * worst.error:+.1f} %")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="nucleo_l4r5zi")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--kind", help="only operations whose kind begins so")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    listed = sorted(
        (work for work in works(options.seed) if work.kind.startswith(options.kind or "")), key=lambda work: str(work.precision)
    )
    chunks = [listed[start : start + 40] for start in range(0, len(listed), 40)]
    with ProcessPoolExecutor(options.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        rows = [row for part in pool.map(measure, chunks, repeat(options.profile), repeat(options.seed)) for row in part]
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    name = Path(options.profile).name
    text = f"# Interpolated against emulated on {name}, seed {options.seed}\n\n{table(rows)}\n"
    print(text)
    if options.kind is None and (name, options.seed) == (parser.get_default("profile"), SEED):
        Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
