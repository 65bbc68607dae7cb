"""How the modelled Cortex-A53 and A72 stand beside published times of MobileNetV1-1.0-224 in 8 bits on one core.

    python benchmarks/modelled_boards.py [--json]

Other kernels, other boards' memory: the comparison bounds the model's error and does not measure it. Each layer is run on as many
rows as take a moment, and its cycles are scaled to all of them; the model knows no caches, so rows cost the same.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass

from hwsearch.emulation.flash import NO_WAIT
from hwsearch.emulation.known_cores import find_core
from hwsearch.emulation.toolchain import find_compiler
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.integers.cases import random_case
from hwsearch.measuring.targets.emulator import EmulatorTarget

WIDTHS = ((32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), *[(512, 512, 1)] * 5,
          (512, 1024, 2), (1024, 1024, 1))  # fmt: skip
"""Input and output channels of each separable block, and the stride of its depthwise half."""
ROWS = 7
"""Output rows that are emulated, at most."""


@dataclass(frozen=True)
class Published:
    """A time of one thread, ncnn's int8 `mobilenet`; Tencent/ncnn benchmark/README.md at commit a4d2ea1."""

    board: str
    core: str
    clock_hz: float
    ms: float


PUBLISHED = (
    Published("Raspberry Pi 4B", "Cortex-A72", 1.8e9, 84.8),
    Published("Raspberry Pi 3B+", "Cortex-A53", 1.4e9, 181.9),
    Published("Raspberry Pi Zero 2 W", "Cortex-A53", 1.0e9, 286.8),
)


def layer(side: int, inputs: int, outputs: int, size: int, stride: int, groups: int = 1) -> tuple[Op, float]:
    """A convolution with few output rows, and how many times it makes the whole."""
    rows, pad = min(side, ROWS), size // 2
    kind = OpKind.DEPTHWISE_CONV2D if groups > 1 else OpKind.CONV2D
    in_shape, out_shape = (inputs, rows * stride, side * stride), (outputs, rows, side)
    op = Op(
        name="layer", kind=kind, inputs=("input",), in_shape=in_shape, out_shape=out_shape, kernel=(size, size),
        stride=(stride, stride), padding=(pad, pad), groups=groups,
    )  # fmt: skip
    return op, side / rows


def layers() -> Iterator[tuple[Op, float]]:
    side = 112
    yield layer(side, 3, 32, 3, 2)
    for inputs, outputs, stride in WIDTHS:
        side //= stride
        yield layer(side, inputs, inputs, 3, stride, groups=inputs)
        yield layer(side, inputs, outputs, 1, 1)


def cycles(core: str) -> tuple[float, float]:
    """Cycles and products of the whole network."""
    found = find_core(core)
    target = EmulatorTarget(compiler=find_compiler(found.build_target), flash=NO_WAIT, core=found)
    total, products = 0.0, 0.0
    for op, times in layers():
        total += times * target.time(random_case(op, Precision(8, 8), 8, seed=0)).median
        products += times * op.macs
    return total, products


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print rows")
    as_json = parser.parse_args().json
    modelled = {core: cycles(core) for core in sorted({entry.core for entry in PUBLISHED})}
    rows = []
    for entry in PUBLISHED:
        count, products = modelled[entry.core]
        rows.append({
            "board": entry.board, "core": entry.core, "modelled_ms": count / entry.clock_hz * 1e3, "published_ms": entry.ms,
            "modelled_macs_per_cycle": products / count, "published_macs_per_cycle": products / (entry.ms / 1e3 * entry.clock_hz),
        })  # fmt: skip
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    print("| board | core | modelled, ms | published (ncnn), ms | modelled / published | products per cycle |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for row in rows:
        ratio = row["modelled_ms"] / row["published_ms"]
        rates = f"{row['modelled_macs_per_cycle']:.2f} against {row['published_macs_per_cycle']:.2f}"
        print(f"| {row['board']} | {row['core']} | {row['modelled_ms']:.1f} | {row['published_ms']} | {ratio:.2f} | {rates} |")


if __name__ == "__main__":
    main()
