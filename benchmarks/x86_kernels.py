"""How much faster the x86-64 kernels are than portable C on this computer, one core, warm caches.

`python benchmarks/x86_kernels.py` prints a table (x86_kernels.txt); `--json` prints rows `{op, kernel, stride, shape,
precision, body, ns, times_portable, gmac_per_s}`. The bodies of one layer take turns, so that what else the computer does falls
on all alike; `times_portable` is the median over rounds of portable time over the body's time. An operation without weights
counts an output element as a MAC. Every result is compared with the reference before its time is believed. Bodies that the
processor cannot run are left out.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from kernels import layers

from hwsearch.emulation.build_target import HOST
from hwsearch.emulation.toolchain import find_compiler
from hwsearch.graph.op import Op
from hwsearch.graph.precision import Precision
from hwsearch.integers.cases import random_case
from hwsearch.integers.op_kinds import run_op
from hwsearch.measuring.targets.host import HostTarget, processor_name

ROUNDS = 5
PRECISIONS = tuple(Precision.parse(text) for text in ("w8a8", "w4a8", "w4a4", "w2a2"))
BODIES = {
    "portable": ("HW_BODIES=0", ()),
    "sse2": ("HW_X86_LEVEL=0", ("sse2",)),
    "avx2": ("HW_X86_LEVEL=1", ("avx2",)),
    "vnni": ("HW_X86_LEVEL=2", ("avx512bw", "avx512vl", "avx512_vnni")),
}
"""The macro that fixes a body, and the processor features that it needs, as Linux names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One body on one layer; `shape` is height x width x channels - channels out."""

    op: str
    kernel: str
    stride: str
    shape: str
    precision: str
    body: str
    ns: float
    times_portable: float
    gmac_per_s: float


def targets() -> dict[str, HostTarget]:
    """What this processor runs, by name."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    flags = next(line for line in lines if line.startswith("flags")).split()
    compiler = find_compiler(HOST)
    return {
        name: HostTarget(compiler=replace(compiler, flags=(*compiler.flags, f"-D{macro}")))
        for name, (macro, features) in BODIES.items()
        if {*features} <= {*flags}
    }


def measure(op: Op, precision: Precision, bodies: dict[str, HostTarget]) -> Iterator[Row]:
    case = random_case(op, precision, precision.weight_bits, seed=1)
    expected = run_op(op, precision, [codes[None] for codes in case.inputs], case.stored, case.constants).tobytes()
    found: dict[str, list[float]] = {name: [] for name in bodies}
    for _ in range(ROUNDS):
        for name, target in bodies.items():
            timing = target.time(case)
            if timing.output != expected:
                raise AssertionError(f"{name}: {op} at {precision} does not compute the reference")
            found[name].append(timing.median)
    channels, height, width = (*op.in_shape, 1, 1)[:3]
    work = op.macs if op.has_weights else int(np.prod(op.out_shape))
    for name, times in found.items():
        yield Row(
            op=op.kind.value,
            kernel=f"{op.kernel[0]}x{op.kernel[1]}",
            stride=f"{op.stride[0]}x{op.stride[1]}",
            shape=f"{height}x{width}x{channels}-{op.out_channels}",
            precision=str(precision),
            body=name,
            ns=float(np.median(times)),
            times_portable=float(np.median(np.divide(found["portable"], times))),
            gmac_per_s=work / float(np.median(times)),
        )


def rows(kinds: Sequence[str], precisions: Sequence[Precision]) -> Iterator[Row]:
    bodies = targets()
    for op in layers():
        if kinds and op.kind.value not in kinds:
            continue
        for precision in precisions if op.has_weights else [Precision(0, 8)]:
            yield from measure(op, precision, bodies)


def print_table(found: Iterator[Row]) -> None:
    names = [name for name in targets() if name != "portable"]
    print(f"{processor_name()}, one core; {find_compiler(HOST).description}")
    print(f"{'times faster than portable C, (GMAC/s)':48s} {'portable':>9s}" + "".join(f"{name:>17s}" for name in names))
    by_body: dict[str, dict[str, list[float]]] = {}
    line = ""
    for row in found:
        if row.body == "portable":
            line = f"{row.op} {row.kernel}/{row.stride[0]} {row.shape}"
            line = f"{line:42s} {row.precision:5s} {f'({row.gmac_per_s:.2f})':>9s}"
            continue
        line += f"{row.times_portable:8.2f} {f'({row.gmac_per_s:.2f})':>8s}"
        by_body.setdefault(f"{row.op} {row.precision}", {}).setdefault(row.body, []).append(row.times_portable)
        if row.body == names[-1]:
            print(line, flush=True)
    for kind, bodies in by_body.items():
        means = "".join(f"{float(np.exp(np.mean(np.log(bodies[name])))):8.2f} {'':8s}" for name in names)
        print(f"{'geometric mean of ' + kind:58s}{means}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print rows instead of a table")
    parser.add_argument("--op", action="append", default=[], help="only this kind of operation; may be given more than once")
    parser.add_argument("--bits", action="append", default=[], help="only this precision; may be given more than once")
    arguments = parser.parse_args()
    found = rows(arguments.op, [Precision.parse(text) for text in arguments.bits] or PRECISIONS)
    if arguments.json:
        print(json.dumps([asdict(row) for row in found], indent=1))
    else:
        print_table(found)


if __name__ == "__main__":
    main()
