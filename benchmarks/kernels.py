"""Cycles per MAC of every kernel on an emulated core, beside published kernels and what multiplier and loads alone take.

`python benchmarks/kernels.py` prints a table; `--json` prints rows `{op, core, shape, precision, cycles_per_mac, cycles, ...}`.
Cycles are those of a whole layer without flash wait states; `board` adds those of the profile `--board`, whose core is
emulated: NUCLEO-L4R5ZI, with a Cortex-M4, unless another is named. `portable` is the same layer in portable C. `cmsis-nn` are
cycles without wait states of CMSIS-NN (commit 99f736a, Apache-2.0), built by gcc -O3 and run in an emulator under the cycle
model that hwsearch/emulation/cycle_model.py describes: facts from cmsis_nn_cortex_m4.csv. They and the floor are of a Cortex-M4
alone. An operation without weights counts an output element as a MAC. Every result is compared with the reference before
its time is believed. Weights are stored at their own width, as a network of one policy has them; `--stored-bits 8` stores all
at 8, of which kernels use the top bits.
"""

import argparse
import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hwsearch.emulation.cores.cortex_m4 import CORTEX_M4
from hwsearch.emulation.flash import NO_WAIT, FlashTiming
from hwsearch.emulation.known_cores import find_core
from hwsearch.emulation.toolchain import find_compiler
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import WEIGHT_WIDTHS, WEIGHTLESS_PRECISIONS, Precision
from hwsearch.hardware.header import ProfileHeader, read_header
from hwsearch.hardware.profile import find_profile
from hwsearch.integers.cases import Case, random_case
from hwsearch.integers.op_kinds import run_op
from hwsearch.kernels.bodies.cortex_m import depthwise_streams, packing, polynomials
from hwsearch.kernels.catalogue import ALL_PRECISIONS
from hwsearch.measuring.targets.emulator import EmulatorTarget, flash_timing

BOARD = "nucleo_l4r5zi"
PUBLISHED = Path(__file__).with_name("cmsis_nn_cortex_m4.csv")
THREE_LAYERS = ("32x32x16-16", "16x16x32-32", "8x8x64-64")
"""3x3 convolutions of ResNet8, whose mean is the figure of merit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`shape` is height x width x channels - channels out; cycles are of one whole layer."""

    op: str
    kernel: str
    stride: str
    core: str
    shape: str
    precision: str
    cycles_per_mac: float
    cycles: int
    board_cycles_per_mac: float
    portable_cycles_per_mac: float
    published_cycles_per_mac: float | None
    floor_cycles_per_mac: float | None


Pair = tuple[int, int]
Known = dict[tuple[str, str, str, str, str], int]
"""Published cycles by operation, kernel, stride, shape and precision."""


def layer(
    kind: OpKind, shape: tuple[int, int, int], outputs: int, size: Pair = (1, 1), stride: int = 1, padding: Pair = (0, 0)
) -> Op:
    height, width, channels = shape
    if kind is OpKind.LINEAR:
        return Op(name="op", kind=kind, inputs=("input",), in_shape=(channels,), out_shape=(outputs,))
    steps = size if kind is OpKind.AVG_POOL else (stride, stride)
    sides = [(side + 2 * pad - k) // step + 1 for side, pad, k, step in zip((height, width), padding, size, steps, strict=True)]
    groups = channels if kind is OpKind.DEPTHWISE_CONV2D else 1
    inputs = ("input", "other") if kind is OpKind.ADD else ("input",)
    return Op(
        name="op", kind=kind, inputs=inputs, in_shape=(channels, height, width), out_shape=(outputs, sides[0], sides[1]),
        kernel=size, stride=steps, padding=padding, groups=groups,
    )  # fmt: skip


def layers() -> Iterator[Op]:
    """Layers of ResNet8, DS-CNN, MobileNetV1-0.25, LeNet-5 and an autoencoder of linear layers, and a few others."""
    conv, depthwise = OpKind.CONV2D, OpKind.DEPTHWISE_CONV2D
    for side, channels in ((32, 16), (16, 32), (8, 64)):
        yield layer(conv, (side, side, channels), channels, (3, 3), 1, (1, 1))
    for side, channels in ((32, 16), (16, 32)):
        yield layer(conv, (side, side, channels), 2 * channels, (3, 3), 2, (1, 1))
        yield layer(conv, (side, side, channels), 2 * channels, (1, 1), 2)
    for shape, outputs in (((48, 48, 8), 16), ((25, 5, 64), 64), ((12, 12, 64), 64), ((6, 6, 128), 128)):
        yield layer(conv, shape, outputs)
    yield layer(conv, (32, 32, 3), 16, (3, 3), 1, (1, 1))
    yield layer(conv, (49, 10, 1), 64, (10, 4), 2, (5, 1))
    yield layer(conv, (96, 96, 3), 8, (3, 3), 2, (1, 1))
    yield layer(conv, (12, 12, 32), 64, (5, 5))
    for shape in ((48, 48, 8), (24, 24, 32), (25, 5, 64), (12, 12, 64), (6, 6, 128), (3, 3, 256)):
        yield layer(depthwise, shape, shape[2], (3, 3), 1, (1, 1))
    for shape in ((48, 48, 16), (24, 24, 32), (12, 12, 64), (6, 6, 128)):
        yield layer(depthwise, shape, shape[2], (3, 3), 2, (1, 1))
    yield layer(depthwise, (12, 12, 32), 32, (5, 5), 1, (2, 2))
    for inputs, outputs in ((64, 10), (64, 12), (256, 2), (128, 128), (640, 128), (1024, 512)):
        yield layer(OpKind.LINEAR, (1, 1, inputs), outputs)
    for shape in ((32, 32, 16), (16, 16, 32), (8, 8, 64)):
        yield layer(OpKind.ADD, shape, shape[2])
    yield layer(OpKind.MAX_POOL, (24, 24, 32), 32, (2, 2), 2)
    yield layer(OpKind.MAX_POOL, (24, 24, 32), 32, (3, 3), 2, (1, 1))
    for shape in ((8, 8, 64), (25, 5, 64), (3, 3, 256)):
        yield layer(OpKind.AVG_POOL, shape, shape[2], shape[:2])
    yield layer(OpKind.REQUANTIZE, (16, 16, 32), 32)


def floor(op: Op, precision: Precision) -> float | None:
    """Cycles per MAC of multiplications and their loads alone; see hwsearch/kernels/loops."""
    if op.kind is OpKind.LINEAR:
        bits, codes = precision.weight_bits, 32 / precision.weight_bits
        fours = bits == 1 or (bits != 3 and 4 * (2**bits - 1) * (2**precision.activation_bits - 1) < 256)
        lanes = 4 if fours else 2  # products of a multiplication; a word of each of two filters takes 3 cycles, one of inputs 1
        return (2 * codes / lanes + 3 + codes / lanes) / (2 * codes)
    if op.kind is OpKind.DEPTHWISE_CONV2D:
        cut = depthwise_streams(op, precision)
        if cut is None:
            return None
        return 18 / 18 if cut.wide else (4 + 3) / 36 if cut.sums == 4 and op.stride == (1, 1) else (4 + 6) / (9 * cut.sums)
    if op.kind is not OpKind.CONV2D:
        return None
    cut, pack = polynomials(op, precision), packing(precision)
    if cut:
        return 25 / (12 * 3 * cut.pixels) if cut.stride == 1 else 52 / (24 * 1.5 * cut.pixels)
    return 16 / 16 if pack.is_wide else 9 / (pack.lanes * pack.filters)


def time(case: Case, board: ProfileHeader, flash: FlashTiming, *macros: str) -> int:
    core = find_core(board.device.core)
    compiler = find_compiler(core.build_target)
    flags = (*compiler.flags, *macros)
    timing = EmulatorTarget(compiler=replace(compiler, flags=flags), flash=flash, core=core).time(case)
    expected = run_op(case.op, case.precision, [codes[None] for codes in case.inputs], case.stored, case.constants)
    if timing.output != expected.tobytes():
        raise AssertionError(f"{case.op} at {case.precision} does not compute the reference")
    return round(timing.median)


def published() -> Known:
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        return {
            (row["op"], row["kernel"], row["stride"], row["shape"], row["precision"]): int(row["cycles"])
            for row in csv.DictReader(file)
        }


def measure(op: Op, precision: Precision, board: ProfileHeader, known: Known, stored_bits: int) -> Row:
    """Weights are stored at `stored_bits`, or at their own width where that is wider."""
    case = random_case(op, precision, max(stored_bits, precision.weight_bits) if op.has_weights else 0, seed=1)
    channels, height, width = (*op.in_shape, 1, 1)[:3]
    kernel, stride = f"{op.kernel[0]}x{op.kernel[1]}", f"{op.stride[0]}x{op.stride[1]}"
    shape = f"{channels}-{op.out_channels}" if op.kind is OpKind.LINEAR else f"{height}x{width}x{channels}-{op.out_channels}"
    work = op.macs if op.has_weights else op.out_channels * (op.out_shape[1] * op.out_shape[2])
    cycles, found = time(case, board, NO_WAIT), known.get((op.kind.value, kernel, stride, shape, str(precision)))
    return Row(
        op=op.kind.value,
        kernel=kernel,
        stride=stride,
        core=find_core(board.device.core).build_target.name,
        shape=shape,
        precision=str(precision),
        cycles_per_mac=cycles / work,
        cycles=cycles,
        board_cycles_per_mac=time(case, board, flash_timing(board.memory)) / work,
        portable_cycles_per_mac=time(case, board, NO_WAIT, "-DHW_BODIES=0") / work,
        published_cycles_per_mac=found / work if found else None,
        floor_cycles_per_mac=floor(op, precision) if find_core(board.device.core) is CORTEX_M4 else None,
    )


def rows(kinds: Sequence[str], board: ProfileHeader, stored_bits: int) -> Iterator[Row]:
    known = published() if find_core(board.device.core) is CORTEX_M4 else {}
    for op in layers():
        if kinds and op.kind.value not in kinds:
            continue
        for precision in ALL_PRECISIONS if op.has_weights else WEIGHTLESS_PRECISIONS:
            yield measure(op, precision, board, known, stored_bits)


def cell(value: float | None) -> str:
    return f"{value:9.3f}" if value is not None else "        -"


def print_table(found: Iterator[Row]) -> None:
    print("cycles per MAC, whole layer           |   kernel     board  portable  cmsis-nn     floor")
    three: dict[str, list[float]] = {}
    for row in found:
        name = f"{row.op} {row.kernel}/{row.stride.partition('x')[0]} {row.shape}"
        figures = (row.cycles_per_mac, row.board_cycles_per_mac, row.portable_cycles_per_mac)
        cells = " ".join(cell(value) for value in (*figures, row.published_cycles_per_mac, row.floor_cycles_per_mac))
        print(f"{name:42s} {row.precision:5s} {cells}", flush=True)
        if row.op == "conv2d" and row.kernel == "3x3" and row.shape in THREE_LAYERS:
            three.setdefault(row.precision, []).append(row.cycles_per_mac)
    for precision, values in three.items():
        print(f"mean of the 3x3 convolutions {', '.join(THREE_LAYERS)} at {precision}: {sum(values) / len(values):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print rows instead of a table")
    parser.add_argument("--op", action="append", default=[], help="only this kind of operation; may be given more than once")
    parser.add_argument("--board", default=BOARD, help=f"profile whose core is emulated; default: {BOARD}")
    parser.add_argument("--stored-bits", type=int, choices=WEIGHT_WIDTHS, default=1, help="store narrower weights at this width")
    arguments = parser.parse_args()
    found = rows(arguments.op, read_header(find_profile(arguments.board)), arguments.stored_bits)
    if arguments.json:
        print(json.dumps([asdict(row) for row in found], indent=1))
    else:
        print_table(found)


if __name__ == "__main__":
    main()
