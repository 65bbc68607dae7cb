"""What the reading verbs print: each result as a record (the JSON that other programs rely on) and as text."""

import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from hwsearch.errors import ProfileError, SpaceError
from hwsearch.graph.op import shape_text
from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.graph.space import SearchSpace
from hwsearch.hardware.cost import OBJECTIVES, Cost, PolicyCost
from hwsearch.hardware.profile import HardwareProfile, find_profile, load_profile, read_header
from hwsearch.results.front import ParetoFront

if TYPE_CHECKING:
    from hwsearch.pricing.cost_model import CostModel  # loads scipy, which --help has no need of

Record = dict[str, Any]
TEXT_WIDTH = 100


def _table(title: str, columns: list[str], rows: list[list[str]], prose: tuple[str, ...] = ()) -> str:
    """Columns after the first are right-aligned, but those named in `prose` left and wrapped; a title stands above."""
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="", padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        left = index == 0 or column in prose
        table.add_column(column, justify="left" if left else "right", no_wrap=column not in prose, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(width=140 if prose else 200, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())


def _ms(microseconds: float) -> str:
    return f"{microseconds / 1000:.3f}"


def front_record(front: ParetoFront) -> Record:
    return {
        "profile": front.profile,
        "objectives": list(front.objectives),
        "front": [
            {
                "trial": point.trial,
                "policy": str(point.policy.kind),
                "accuracy": point.accuracy,
                "mean": asdict(point.cost.mean),
                "worst": asdict(point.cost.worst),
                "shares": list(point.shares),
                "assignments": [entry.assignment.key for entry in point.menu.entries],
            }
            for point in front.points
        ],
    }


_FRONT_COLUMNS = {
    "accuracy": ("accuracy %", 2), "mean_latency": ("mean ms", 3), "latency": ("worst ms", 3), "mean_energy": ("mean uJ", 1),
    "flash": ("flash KB", 1), "ram": ("RAM KB", 1),
}  # fmt: skip
"""Objectives that a front always shows, each with its title and decimals; one more that was searched for stands after them."""


def front_text(record: Record) -> str:
    searched = [OBJECTIVES[name] for name in record["objectives"] if name not in _FRONT_COLUMNS]
    columns = _FRONT_COLUMNS | {one.name: (f"{one.label} {one.quantity.shown}", 3) for one in searched}
    rows = []
    for point in record["front"]:
        cost = PolicyCost(mean=Cost(**point["mean"]), worst=Cost(**point["worst"]))
        cells = [
            f"{OBJECTIVES[name].shown(OBJECTIVES[name].value(point['accuracy'], cost)):.{decimals}f}"
            for name, (_, decimals) in columns.items()
        ]
        rows.append([point["policy"], str(point["trial"]), *cells])
    titles = ["policy", "trial", *(title for title, _ in columns.values())]
    return _table(f"Pareto front on {record['profile']}", titles, rows)


def run_text(record: Record) -> str:
    mean, worst = record["mean"], record["worst"]
    lines = [
        f"bundle          {record['bundle']}",
        f"report          {record['report']}",
        f"policy          {record['policy']}",
        f"accuracy        {100 * record['accuracy']:.2f} % on test (float {100 * record['float_accuracy']:.2f} %)",
        f"mean            {_ms(mean['latency_us'])} ms, {mean['energy_uj']:.1f} uJ",
        f"worst           {_ms(worst['latency_us'])} ms, {worst['energy_uj']:.1f} uJ",
        f"memory          {worst['flash_bytes'] / 1024:.1f} KB flash, {worst['ram_bytes'] / 1024:.1f} KB RAM",
    ]
    for name, point in record["uniform"].items():
        lines.append(f"uniform {name:<7} {_ms(point['latency_us'])} ms at {100 * point['accuracy']:.2f} %")
    lines += [f"verified        {'yes' if record['verified'] else 'NO'}"]
    lines += ["seconds         " + ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in record["seconds"].items())]
    return "\n".join(lines)


def verification_text(record: Record) -> str:
    lines = [f"{'ok  ' if check['ok'] else 'FAIL'} {check['name']}: {check['detail']}" for check in record["checks"]]
    return "\n".join([*lines, "verified" if record["ok"] else "NOT verified"])


def profile_record(profile: HardwareProfile) -> Record:
    kinds = sorted({row.provenance for row in profile.measurements})
    counts = {kind: sum(row.provenance == kind for row in profile.measurements) for kind in kinds}
    return {
        "name": profile.name,
        "core": profile.device.core,
        "clock_hz": profile.device.clock_hz,
        "rows": len(profile.measurements),
        "provenance": counts,
        "validity": profile.validity.text,
        "relative_error": profile.validity.relative_error,
    }


def profile_record_or_fault(name: str) -> Record:
    """A profile's record; one that cannot be read is listed with what is wrong, so that it hides no other.

    What a header without a table says is listed too.
    """
    try:
        return profile_record(load_profile(name))
    except ProfileError as fault:
        return {**_header_record(name), "fault": str(fault)}


def _header_record(name: str) -> Record:
    nothing = {"name": name, "core": "", "clock_hz": 0, "rows": 0, "provenance": {}, "validity": "", "relative_error": 0.0}
    try:
        header = read_header(find_profile(name))
    except ProfileError:
        return nothing
    device, validity = header.device, header.validity
    said = {
        "core": device.core,
        "clock_hz": device.clock_hz,
        "validity": validity.text,
        "relative_error": validity.relative_error,
    }
    return {**nothing, **said}


def profiles_text(records: list[Record]) -> str:
    rows = [
        [
            r["name"], r["core"], f"{r['clock_hz'] / 1e6:.0f}", str(r["rows"]), _counts_text(r["provenance"]),
            f"±{100 * r['relative_error']:.0f} %",
        ]
        for r in records
        if "fault" not in r
    ]  # fmt: skip
    told = (f"{r['name']}: {r['fault']}" for r in records if "fault" in r)
    faults = [textwrap.fill(text, TEXT_WIDTH, subsequent_indent="  ", break_on_hyphens=False) for text in told]
    return "\n".join([_table("", ["profile", "core", "MHz", "rows", "provenance", "stated error"], rows), *faults])


def _counts_text(counts: dict[str, int]) -> str:
    return next(iter(counts)) if len(counts) == 1 else ", ".join(f"{count} {kind}" for kind, count in counts.items())


def profile_ops(profile: HardwareProfile) -> list[Record]:
    """Mean latency and rows by operation and precision."""
    groups: dict[tuple[str, str], list[float]] = {}
    for row in profile.measurements:
        precision = str(Precision(row.weight_bits, row.activation_bits))
        groups.setdefault((row.op, precision), []).append(row.latency_us)
    return [
        {"op": op, "precision": precision, "rows": len(times), "mean_latency_us": sum(times) / len(times)}
        for (op, precision), times in sorted(groups.items())
    ]


def profile_details(profile: HardwareProfile) -> Record:
    """What is shown of one profile alone."""
    networks = [asdict(network) | {"left_out_error": network.left_out_error} for network in profile.networks]
    return {"ops": profile_ops(profile)} | ({"networks": networks} if networks else {})


def profile_text(record: Record) -> str:
    head = [
        f"{record['name']}: {record['core']} at {record['clock_hz'] / 1e6:.0f} MHz, {record['rows']} rows",
        *textwrap.wrap(f"validity: {record['validity']}", TEXT_WIDTH),
    ]
    rows = [[op["op"], op["precision"], str(op["rows"]), f"{op['mean_latency_us']:.1f}"] for op in record["ops"]]
    return "\n".join([*head, _table("", ["op", "precision", "rows", "mean us"], rows), *_networks_text(record)])


def _networks_text(record: Record) -> list[str]:
    """Whole networks as they were published, if the profile has some."""
    rows = [
        [
            n["network"], n["precision"], _ms(n["latency_us"]), f"{n['energy_uj'] / 1000:.3f}", _ms(n["left_out_us"]),
            f"{100 * n['left_out_error']:+.1f}",
        ]
        for n in record.get("networks", [])
    ]  # fmt: skip
    columns = ["published network", "precision", "ms", "mJ", "predicted when left out, ms", "error %"]
    return [_table("", columns, rows)] if rows else []


def space_record(space: SearchSpace) -> Record:
    return {
        "name": space.name,
        "network": space.network.name,
        "macs": sum(op.macs for op in space.network.ops if not op.exit),
        "policies": [str(kind) for kind in space.policies.kinds],
        "exits": list(space.network.exits),
        "units": [
            {"name": u.name, "ops": list(u.ops), "precisions": [str(p) for p in u.precisions], "reason": u.reason}
            for u in space.units
        ],
    }


def spaces_text(records: list[Record], *, whole: bool) -> str:
    if not whole:
        rows = [
            [r["name"], r["network"], f"{r['macs'] / 1e6:.2f}", str(len(r["units"])), ", ".join(r["policies"])] for r in records
        ]
        return _table("", ["space", "network", "M MAC", "units", "policies"], rows)
    (record,) = records
    rows = [[u["name"], " ".join(u["ops"]), " ".join(u["precisions"]), u["reason"]] for u in record["units"]]
    return _table(
        f"{record['name']}: {record['macs']} MAC", ["unit", "ops", "precisions", "reason"], rows, ("ops", "precisions", "reason")
    )


def cost_record(space: SearchSpace, costs: "CostModel", assignment: BitAssignment) -> Record:
    total = costs.price(assignment)
    prices = costs.breakdown(assignment)
    ops = [
        {
            "name": op.name,
            "kind": str(op.kind),
            "in_shape": shape_text(op.in_shape),
            "out_shape": shape_text(op.out_shape),
            "precision": str(assignment[op.name]),
            "macs": op.macs,
            "latency_us": price.latency_us,
            "energy_uj": price.energy_uj,
            "provenance": price.provenance,
            "uncertainty": price.uncertainty,
            "interpolated": price.interpolated,
        }
        for op, price in zip(space.network.path([""]), prices, strict=True)
    ]
    return asdict(total) | {"provenance": costs.provenance(prices), "ops": ops}


def read_bits(space: SearchSpace, bits: str) -> BitAssignment:
    """A uniform precision, or `op=precision,...`."""
    if "=" not in bits:
        return space.uniform(Precision.parse(bits))
    assignment = BitAssignment.from_key(bits)
    names = {op.name for op in space.network.path([""])}
    if not names <= set(assignment):
        missing = ", ".join(sorted(names - set(assignment)))
        raise SpaceError(f"An assignment must name every operation of the network, but {missing} is missing; add it to --bits.")
    return assignment


def cost_text(record: Record) -> str:
    rows = [
        [
            op["name"], op["kind"], op["in_shape"], op["out_shape"], op["precision"],
            _ms(op["latency_us"]), f"{op['energy_uj']:.2f}", f"{100 * op['latency_us'] / record['latency_us']:.1f}",
            op["provenance"] + (" (interpolated)" if op["interpolated"] else ""),
        ]
        for op in record["ops"]
    ]  # fmt: skip
    columns = ["op", "kind", "in", "out", "precision", "ms", "uJ", "%", "provenance"]
    shares = ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in record["provenance"].items())
    total = (
        f"total {_ms(record['latency_us'])} ms, {record['energy_uj']:.1f} uJ (power x time), "
        f"{record['flash_bytes'] / 1024:.1f} KB flash, {record['ram_bytes'] / 1024:.1f} KB RAM; {shares}"
    )
    return _table("", columns, rows) + "\n" + total


def comparison_text(records: list[Record]) -> str:
    """Milliseconds of each operation per device; a precision stands beside them where a device runs another one."""
    rows = []
    for own in zip(*(record["ops"] for record in records), strict=True):
        precision = own[0]["precision"]
        cells = [_ms(op["latency_us"]) + (f" ({op['precision']})" if op["precision"] != precision else "") for op in own]
        rows.append([own[0]["name"], own[0]["kind"], own[0]["out_shape"], precision, *cells])
    totals = [
        ("total ms", [f"{_ms(r['latency_us'])} ±{100 * r['uncertainty']:.0f} %" for r in records]),
        ("uJ (power x time)", [f"{r['energy_uj']:.1f}" for r in records]),
        ("flash KB", [f"{r['flash_bytes'] / 1024:.1f}" for r in records]),
        ("RAM KB", [f"{r['ram_bytes'] / 1024:.1f}" for r in records]),
        ("from", [", ".join(f"{kind} {100 * share:.0f} %" for kind, share in r["provenance"].items()) for r in records]),
    ]
    rows += [[name, "", "", "", *cells] for name, cells in totals]
    return _table("", ["op", "kind", "out", "precision", *(record["profile"] for record in records)], rows)
