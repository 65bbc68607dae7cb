"""Profiles of published stacks, derived from published totals of whole networks.

Writes `nucleo_l4r5zi.cmsis_nn`, `nucleo_l4r5zi.x_cube_ai` and `raspberry_pi_4b.tflite` from the facts in `tools/data`
(`published_fits.py` holds the methods) and prints what they were fitted to, with the error on each network when it is left out.
`python tools/published_boards.py` writes hardware_profiles/ and tools/published_boards.md; `--folder` another place;
`--json` prints rows `{profile, network, precision, published_us, left_out_us, left_out_error}` and writes nothing.
"""

import argparse
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from published_fits import (
    CYCLES,
    DATA,
    L4R5,
    LEAST_CYCLES_PER_MAC,
    PI4,
    PI4_LEIP,
    RATE_SLACK,
    TINY,
    Floats,
    Layer,
    PerLayerFit,
    cmsis_nn_problem,
    factor_left_out,
    family_of,
    identified,
    left_out,
    members,
    one_factor,
    op_turns,
    read,
    tiny_layers,
    tiny_totals,
    x_cube_ai_problem,
)

from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.hardware.header import HEADER_FILE, ProfileHeader, RunRecord, read_runs
from hwsearch.hardware.profile import Measurement, Provenance, write_measurements
from hwsearch.hardware.published import PublishedNetwork, write_networks
from hwsearch.kernels.layout import packed_weight_bytes
from hwsearch.measuring.grid import reference_ops

ROOT = Path(__file__).resolve().parents[1]
CMSIS_NN, X_CUBE_AI = "microTVM + CMSIS-NN", "X-CUBE-AI v9.0"
CLOCK_HZ = 120_000_000
PROFILES = ("nucleo_l4r5zi.cmsis_nn", "nucleo_l4r5zi.x_cube_ai", "raspberry_pi_4b.tflite")
MEMORY = "Flash and RAM are those of hwsearch's own memory plan without kernel code: nothing was published about this stack's."
L4R5_DEVICE = {
    "name": "NUCLEO-L4R5ZI (STM32L4R5ZIT6)", "isa": "ARMv7E-M", "core": "Cortex-M4F", "clock_hz": CLOCK_HZ,
    "flash_bytes": 2_097_152, "ram_bytes": 655_360,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of a table before it has a header: a count, the interval it lies in, and the kernel's name in that stack."""

    op: Op
    precision: Precision
    low: float
    point: float
    high: float
    symbol: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Everything of a profile but its run."""

    name: str
    header: dict[str, Any]
    rows: tuple[Row, ...]
    networks: tuple[PublishedNetwork, ...]
    sources: tuple[Path, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "hardware_profiles")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    profiles = (cmsis_nn(), x_cube_ai(), tflite())
    if options.json:
        print(json.dumps([record for profile in profiles for record in records(profile)], indent=2))
        return
    for profile in profiles:
        write(profile, options.folder)
    text = "\n\n".join(["# Profiles of published stacks: errors on networks left out of the fit", *map(section, profiles)]) + "\n"
    print(text)
    if options.folder == ROOT / "hardware_profiles":
        Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


# --- NUCLEO-L4R5ZI ----------------------------------------------------------------------------------------------------


def cmsis_nn() -> Profile:
    """CMSIS-NN at w8a8 and w4a8: emulated cycles without wait states times the one factor that fits four published totals."""
    layers, totals = tiny_layers(), tiny_totals(CMSIS_NN, CLOCK_HZ)
    cycles = np.array([layer.cycles for layer in layers], dtype=np.float64)
    emulated = members(layers) @ cycles
    factor, errors = one_factor(emulated, totals), factor_left_out(emulated, totals)
    found = identified(cmsis_nn_problem(layers, totals))
    rows = []
    for op, index in matched(layers):
        layer, low, high = layers[index], found.low[index] / cycles[index], found.high[index] / cycles[index]
        for bits, count in ((8, layer.cycles), (4, layer.four_bit_cycles)):
            if count:
                rows.append(
                    Row(
                        op=op, precision=Precision(bits if op.has_weights else 0, 8), low=low * count, point=factor * count,
                        high=high * count, symbol=f"{CMSIS_SYMBOLS[op.kind]}_s{bits}",
                    )
                )  # fmt: skip
    narrow = members(layers) @ np.array([layer.four_bit_cycles or layer.cycles for layer in layers], dtype=np.float64)
    text = (
        f"Cycles of CMSIS-NN's kernels on an emulated Cortex-M4 without wait states, times {factor:.3f}: the factor that fits "
        f"four published latencies of {CMSIS_NN} on this board. {_left_out_text(errors)} An operation's interval (count_p05 to "
        "count_p95) holds every cost that agrees with all four totals if classes of layers are slowed by different factors, none "
        "below 1. At 4-bit weights nothing was published: the same factor is assumed. Emulated, w4a8 takes "
        f"{_range(narrow / emulated)} the cycles of w8a8; even if flash did not slow it at all, it would take "
        f"{_range(narrow / totals)} the published int8 latency: 4-bit weights save flash there, not time. {MEMORY}"
    )
    library = {
        "kernel_library": "CMSIS-NN", "version": "commit 99f736a; the published runs: microTVM with CMSIS-NN, MLPerf Tiny v1.0",
        "compiler": "arm-none-eabi-gcc 12.2 (emulated cycles)", "flags": "-O3", "published": True,
    }  # fmt: skip
    return Profile(
        name=PROFILES[0], header=_l4r5_header(CMSIS_NN, "not stated", library, text, errors), rows=tuple(rows),
        networks=_tiny_networks(CMSIS_NN, errors), sources=(CYCLES, L4R5),
    )  # fmt: skip


CMSIS_SYMBOLS = {
    OpKind.CONV2D: "arm_convolve", OpKind.DEPTHWISE_CONV2D: "arm_depthwise_conv", OpKind.LINEAR: "arm_fully_connected",
    OpKind.ADD: "arm_elementwise_add", OpKind.AVG_POOL: "arm_avgpool",
}  # fmt: skip


def x_cube_ai() -> Profile:
    """X-CUBE-AI at w8a8: closed kernels, four totals, hence wide intervals."""
    layers, totals = tiny_layers(), tiny_totals(X_CUBE_AI, CLOCK_HZ)
    cycles = np.array([layer.cycles for layer in layers], dtype=np.float64)
    factor = one_factor(members(layers) @ cycles, tiny_totals(CMSIS_NN, CLOCK_HZ))
    problem = x_cube_ai_problem(layers, totals, factor * cycles)
    found, errors = identified(problem), left_out(problem)
    rows = tuple(
        _at_8_bits(op, found.low[index], found.point[index], found.high[index], "x_cube_ai") for op, index in matched(layers)
    )
    text = (
        "The engine's kernels are closed, and four totals of networks do not give the price of each operation. An operation's "
        "interval (count_p05 to count_p95) holds every cost that agrees with all four published latencies if layers of one class "
        f"cost the same per product, give or take {RATE_SLACK:.0%}, plus a cost per output, none is faster than "
        f"{LEAST_CYCLES_PER_MAC:g} cycles per product and none slower than under CMSIS-NN here; the count is the solution "
        "nearest to the intervals' geometric middles. Priced at w8a8 the four networks come out as published, softmax aside; "
        f"single operations are known only to their intervals. {_left_out_text(errors)} {MEMORY}"
    )
    library = {
        "kernel_library": "X-CUBE-AI", "version": "9.0 (MLPerf Tiny v1.2)", "compiler": "not stated", "flags": "not stated",
        "published": True,
    }  # fmt: skip
    return Profile(
        name=PROFILES[1], header=_l4r5_header(X_CUBE_AI, "1.8 V, internal LDO", library, text, errors), rows=rows,
        networks=_tiny_networks(X_CUBE_AI, errors), sources=(CYCLES, L4R5),
    )  # fmt: skip


def _at_8_bits(op: Op, low: float, point: float, high: float, stack: str) -> Row:
    precision = Precision(8 if op.has_weights else 0, 8)
    return Row(op=op, precision=precision, low=low, point=point, high=high, symbol=f"{stack}.{op.kind}")


def matched(layers: tuple[Layer, ...]) -> Iterator[tuple[Op, int]]:
    """Operations of the reference networks and of the autoencoder, each shape once, with the layer that has it."""
    ops = [op for network in reference_ops().values() for op in network]
    ops += [_linear(layer) for layer in layers if layer.kind == OpKind.LINEAR]
    shapes = {(op.kind, op.in_shape, op.out_shape, op.kernel, op.stride): op for op in ops}
    for op in shapes.values():
        found = [index for index, layer in enumerate(layers) if layer.is_of(op)]
        if found:
            yield op, found[0]


def _linear(layer: Layer) -> Op:
    return Op(name="linear", kind=OpKind.LINEAR, inputs=("input",), in_shape=layer.in_shape, out_shape=layer.out_shape)


def _l4r5_header(stack: str, supply: str, library: dict[str, Any], text: str, errors: Floats) -> dict[str, Any]:
    rows = [row for row in read(L4R5) if row["stack"] == stack]
    powers = [float(row["power_mw"]) for row in rows]
    rounds = " and ".join(sorted({f"{row['round']} ({row['submitter']})" for row in rows}))
    return {
        "schema": 1,
        "device": L4R5_DEVICE | {"supply": supply},
        "counter": {"unit": "cycles"},
        "power": {
            "active_mw": round(float(np.mean(powers)), 1),
            "source": f"mean rail power of {stack} on it, MLPerf Tiny {rounds}: {min(powers):.1f} to {max(powers):.1f} mW",
        },
        "library": library,
        "validity": {"relative_error": _worst(errors), "text": text},
    }


def _tiny_networks(stack: str, errors: Floats) -> tuple[PublishedNetwork, ...]:
    rows = {row["network"]: row for row in read(L4R5) if row["stack"] == stack}
    return tuple(
        PublishedNetwork(
            network=f"mlperf-tiny-{name}", precision="int8", latency_us=float(rows[name]["latency_ms"]) * 1e3,
            energy_uj=float(rows[name]["energy_uj"]), left_out_us=float(rows[name]["latency_ms"]) * 1e3 * (1 + error),
            source=rows[name]["source"],
        )
        for name, error in zip(TINY, errors, strict=True)
    )  # fmt: skip


def _left_out_text(errors: Floats) -> str:
    listed = ", ".join(f"{name} {100 * error:+.1f} %" for name, error in zip(TINY, errors, strict=True))
    return f"Each MLPerf Tiny network predicted by the other three: {listed}."


def _percent(errors: Floats) -> str:
    return f"{100 * np.abs(errors).max():.0f} %"


def _range(shares: Floats) -> str:
    return f"{shares.min():.2f} to {shares.max():.2f} times"


def _worst(errors: Floats) -> float:
    """The largest error, rounded up to a whole percent."""
    return float(np.ceil(np.abs(errors).max() * 100) / 100)


# --- Raspberry Pi 4 ---------------------------------------------------------------------------------------------------


def tflite() -> Profile:
    """TensorFlow Lite at int8 on four cores: a sum over layers fitted to published networks; float32 as whole networks only."""
    fit, real = PerLayerFit.of("int8"), PerLayerFit.of("float32")
    errors, by_family = fit.left_out(), fit.left_out(family_of)
    tolerance = _worst(errors)
    rows = []
    for op in {_shape_key(op): op for network in reference_ops().values() for op in network}.values():
        low, high = fit.interval(op_turns(op), tolerance)
        rows.append(_at_8_bits(op, 1e3 * low, 1e3 * float(op_turns(op) @ fit.costs), 1e3 * high, "tflite"))
    text = (
        f"Microseconds per layer, per product of convolutions and of depthwise ones, and per output, fitted to {len(fit.names)} "
        "published int8 networks (MobileNetV1, EfficientNet-lite; 14 million to 2.6 thousand million products). Each network "
        f"predicted by all others: worst {100 * np.abs(errors).max():.1f} %, mean {100 * np.abs(errors).mean():.1f} %; "
        f"each family by the other: worst {100 * np.abs(by_family).max():.1f} %. An operation's interval (count_p05 to "
        f"count_p95) holds every cost that meets all networks within {tolerance:.0%}. MLPerf Tiny's networks lie below the fit's "
        f"range, where the cost per layer decides: another stack on this board (LEIP, not in the fit) took {_tiny_ratios(fit)} "
        f"what is predicted at int8. float32 has no rows: a search chooses integers of up to 8 bits, and the same form fits the "
        f"published float32 networks to {_percent(real.errors())} only (left out: worst {_percent(real.left_out())}, by family "
        f"{_percent(real.left_out(family_of))}); they stand in networks.csv as whole networks. {MEMORY}"
    )
    return Profile(
        name=PROFILES[2], header=_pi4_header(text, by_family), rows=tuple(rows),
        networks=(*_pi4_networks("int8", fit), *_pi4_networks("float32", real)), sources=(PI4, PI4_LEIP),
    )  # fmt: skip


def _shape_key(op: Op) -> tuple[Any, ...]:
    return op.kind, op.in_shape, op.out_shape, op.kernel, op.stride


def _tiny_ratios(fit: PerLayerFit) -> str:
    """Latency under another stack of the networks that are ours, relative to the prediction."""
    networks = {"ic": "resnet8", "kws": "dscnn", "vww": "mobilenetv1"}
    published = {row["network"]: float(row["latency_ms"]) * 1e3 for row in read(PI4_LEIP) if row["precision"] == "int8"}
    ops = reference_ops()
    shares = [published[tiny] / sum(op_turns(op) @ fit.costs for op in ops[name]) for tiny, name in networks.items()]
    return _range(np.array(shares))


def _pi4_header(text: str, errors: Floats) -> dict[str, Any]:
    rows = [row for row in read(PI4) if row["precision"] == "int8"]
    powers, idle = ([float(row[name]) for row in rows] for name in ("power_w", "idle_power_w"))
    return {
        "schema": 1,
        "device": {
            "name": "Raspberry Pi 4 Model B (BCM2711), 4 GB, dual fan", "isa": "ARMv8-A", "core": "4 x Cortex-A72",
            "clock_hz": 1_500_000_000, "flash_bytes": 4_294_967_296, "ram_bytes": 4_294_967_296,
            "supply": "AC adapter, measured at the wall",
        },
        "counter": {"unit": "ns"},
        "power": {
            "active_mw": round(1e3 * float(np.median(powers))),
            "source": f"median wall power of the whole board under {len(rows)} int8 networks, MLPerf Inference v1.0 (Krai): "
            f"{min(powers):.2f} to {max(powers):.2f} W, "
            f"of which {np.median(idle):.2f} W idle; for float32 see networks.csv",
        },
        "library": {
            "kernel_library": "TensorFlow Lite", "version": "2.4.1 with ruy, 4 threads (MLPerf Inference v1.0)",
            "compiler": "not stated", "flags": "not stated", "published": True,
        },
        "validity": {"relative_error": _worst(errors), "text": text},
    }  # fmt: skip


def _pi4_networks(precision: str, fit: PerLayerFit) -> tuple[PublishedNetwork, ...]:
    rows = [row for row in read(PI4) if row["precision"] == precision]
    return tuple(
        PublishedNetwork(
            network=row["network"], precision=precision, latency_us=latency,
            energy_uj=latency * float(row["power_w"]), left_out_us=latency * (1 + error), source=row["source"],
        )
        for row, latency, error in zip(rows, fit.latency_us, fit.left_out(), strict=True)
    )  # fmt: skip


# --- files ------------------------------------------------------------------------------------------------------------


def write(profile: Profile, root: Path) -> None:
    """Write one profile's four files. A run whose facts and methods are unchanged keeps its record."""
    folder = root / profile.name
    folder.mkdir(parents=True, exist_ok=True)
    header = ProfileHeader.model_validate(profile.header)
    text = "# Written by tools/published_boards.py.\n" + tomli_w.dumps(profile.header)
    (folder / HEADER_FILE).write_text(text, encoding="utf-8")
    run, earlier = _run(profile, folder), {run.run_id for run in read_runs(folder)}
    write_measurements(folder, (_measurement(header, row, run.run_id) for row in profile.rows), run, earlier)
    write_networks(folder, profile.networks)


def _run(profile: Profile, folder: Path) -> RunRecord:
    facts = _sha256(profile.sources)
    run_id = f"published-{facts[:8]}"
    scripts = _sha256([Path(__file__), Path(__file__).with_name("published_fits.py"), *profile.sources])
    for earlier in read_runs(folder):
        if (earlier.run_id, earlier.source_sha256) == (run_id, scripts):
            return earlier
    library = profile.header["library"]
    return RunRecord(
        run_id=run_id, utc_date=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", command="python tools/published_boards.py",
        git_commit="none", source_sha256=scripts, binary_sha256=facts, compiler=library["compiler"], flags=library["flags"],
        machine=f"published results: {', '.join(path.relative_to(DATA.parent).as_posix() for path in profile.sources)}",
        rows=len(profile.rows), seconds=0.0,
    )  # fmt: skip


def _sha256(paths: Iterable[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def _measurement(header: ProfileHeader, row: Row, run_id: str) -> Measurement:
    """A row in whole cycles or nanoseconds. Code and scratch of these kernels are not known: 0."""
    bits = row.precision.weight_bits
    return Measurement.of_counts(
        header, row.op, row.precision, stored_bits=bits, count_median=round(row.point), count_p05=round(row.low),
        count_p95=round(row.high), repeats=1, provenance=Provenance.CALIBRATED, code_bytes=0,
        weight_bytes=packed_weight_bytes(row.op, bits) if row.op.has_weights else 0, scratch_bytes=0, symbol=row.symbol,
        run_id=run_id,
    )  # fmt: skip


# --- tables -----------------------------------------------------------------------------------------------------------


def records(profile: Profile) -> Iterator[dict[str, Any]]:
    for network in profile.networks:
        yield {
            "profile": profile.name, "network": network.network, "precision": network.precision,
            "published_us": network.latency_us, "left_out_us": network.left_out_us, "left_out_error": network.left_out_error,
        }  # fmt: skip


def section(profile: Profile) -> str:
    """One profile's table."""
    spans = sorted((row.high - row.low) / (2 * row.point) for row in profile.rows)
    lines = [
        f"## {profile.name}\n",
        f"{len(profile.rows)} rows; half width of their intervals: median {100 * spans[len(spans) // 2]:.0f} %, "
        f"widest {100 * spans[-1]:.0f} %. {profile.header['validity']['text']}\n",
        "| network | precision | published ms | mJ | predicted when left out, ms | error |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row.network} | {row.precision} | {row.latency_us / 1000:.3f} | {row.energy_uj / 1000:.3f} "
        f"| {row.left_out_us / 1000:.3f} | {100 * row.left_out_error:+.1f} % |"
        for row in profile.networks
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
