"""The report of a run: one HTML file that needs nothing else.

It answers, in this order: what came out, does it keep its budgets, what else was there to choose, what runs at which
width, which inputs take which way, where the time goes and how sure that is, and how to repeat it.
"""

import base64
import html
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwsearch.files import write_whole
from hwsearch.graph.op import shape_text
from hwsearch.hardware.cost import OBJECTIVES, Cost, PolicyCost, limited
from hwsearch.hardware.header import ProfileHeader
from hwsearch.integers.integer_model import IntegerModel
from hwsearch.pricing.cost_model import CostModel
from hwsearch.pricing.prices import OpPrice
from hwsearch.report.charts import entry_colours, figure_html, front_figure, plotly_script, price_figure
from hwsearch.results.final_model import FinalModel
from hwsearch.results.front import ParetoFront

PICTURES_PER_ENTRY = 14
"""Pictures shown for each entry: as many surely classified ones as doubtful ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A static model to compare with: its name (`w8a8`), accuracy on the report's split and cost."""

    name: str
    accuracy: float
    cost: Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What the finished model did with the inputs of the report's split.

    `images`: uint8 `[N, height, width, channels]`, 1 or 3 channels, as people see them; `labels`, `predicted` and `entries`
    (where each inference ended): integers `[N]`; `margins`: best minus second-best logit where it ended, real units, `[N]`.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    entries: NDArray[np.int64]
    margins: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """Everything a report shows.

    `split`: the name, in `final.accuracy`, of the split that accuracies of finished models are on. `inferences[k]`: everything an
    inference ending at entry k runs (`CostModel.inferences`). `seconds`: by stage. `versions`: of the programs that took part.
    """

    final: FinalModel
    front: ParetoFront
    chosen_trial: int
    header: ProfileHeader
    inferences: tuple[tuple[OpPrice, ...], ...]
    references: tuple[Reference, ...]
    inputs: Inputs
    split: str
    seconds: Mapping[str, float]
    versions: Mapping[str, str]


def write_report(path: Path, data: ReportData) -> None:
    """Write the report to `path`, whole or not at all."""
    text = report_html(data)
    write_whole(path, text)


def report_html(data: ReportData) -> str:
    sections = [
        _headline(data), _budgets(data), _front(data), _bits(data), _inputs(data), _prices(data), _origin(data), _repeat(data),
    ]  # fmt: skip
    style = resources.files("hwsearch.report").joinpath("report.css").read_text(encoding="utf-8")
    title = f"{data.final.task} on {data.final.profile}"
    head = f"<meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>{_text(title)}</title>"
    return (
        f"<!doctype html><html lang='en'><head>{head}<style>{style}</style>{plotly_script()}</head>"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def _section(title: str, lead: str, *blocks: str) -> str:
    return f"<section><h2>{_text(title)}</h2><p class='lead'>{lead}</p>{''.join(blocks)}</section>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """Cells are HTML; the first column is left-aligned."""
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class='scroll'><table class='{kind}'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _bar(share: float) -> str:
    """A bar filled to `share`, in the warning colour beyond 1."""
    return f"<div class='bar{' over' if share > 1 else ''}'><i style='width:{100 * min(share, 1):.1f}%'></i></div>"


def _ms(latency_us: float) -> str:
    return f"{latency_us / 1000:.3f}" if latency_us < 99_950 else f"{latency_us / 1000:.1f}"


def _percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f} %"


def _entry_names(data: ReportData) -> list[str]:
    """`exit1`, `end` on a shared trunk; `entry 1` and so on otherwise."""
    entries = data.final.model.menu.entries
    if data.final.model.menu.kind.shares_trunk:
        return [entry.exit or "end" for entry in entries]
    return [f"entry {index}" for index in range(1, len(entries) + 1)]


def _headline(data: ReportData) -> str:
    final = data.final
    mean, worst = final.cost.mean, final.cost.worst
    accuracy, float_accuracy = final.accuracy[data.split], final.float_accuracy[data.split]
    tiles = [
        ("accuracy", _percent(accuracy), f"{_text(data.split)} split; float {_percent(float_accuracy)}"),
        ("mean latency", f"{_ms(mean.latency_us)} ms", _saving(data)),
        ("worst latency", f"{_ms(worst.latency_us)} ms", "for every input, by construction"),
        ("mean energy", f"{mean.energy_uj:.1f} µJ", "active power × time"),
        ("flash", f"{worst.flash_bytes / 1024:.1f} KB", "weights, constants, code"),
        ("RAM", f"{worst.ram_bytes / 1024:.1f} KB", "arena and input"),
    ]
    cells = "".join(
        f"<div class='tile'><span>{name}</span><b>{value}</b><small>{note}</small></div>" for name, value, note in tiles
    )
    device = data.header.device
    under = f"{_text(device.name)}, {_text(device.core)} at {device.clock_hz / 1e6:g} MHz. {_policy(data)}"
    title = f"{_text(final.task)} on {_text(final.profile)}"
    return f"<header><h1>{title}</h1><p>{under}</p><div class='tiles'>{cells}</div></header>"


def _saving(data: ReportData) -> str:
    """Mean latency against the widest uniform model."""
    if not data.references:
        return "over the certification inputs"
    widest = max(data.references, key=lambda reference: reference.cost.latency_us)
    change = data.final.cost.mean.latency_us / widest.cost.latency_us - 1
    return f"{abs(100 * change):.1f} % {'less' if change < 0 else 'more'} than uniform {_text(widest.name)}"


def _policy(data: ReportData) -> str:
    """How the model decides, in one or two sentences."""
    model = data.final.model
    count = len(model.menu.entries)
    told = f"Policy: {model.menu.kind} with {count} {'entry' if count == 1 else 'entries'}. {model.menu.kind.description}"
    if model.menu.kind.escalates:
        stops = zip(_entry_names(data), model.thresholds, strict=False)
        places = ", ".join(f"at {name} if it is {threshold} or more" for name, threshold in stops)
        told += f" The margin between the two best logits decides where to stop: {places}."
    return _text(told)


def _budgets(data: ReportData) -> str:
    final = data.final
    excess = final.budget.excess(final.cost)
    rows = []
    for name, limit in final.budget.limits().items():
        of, spent = limited(name), 1 + excess[name]
        verdict = f"{100 * spent:.1f} % · {'met' if spent <= 1 else 'exceeded'}"
        allowed = f"{of.shown(limit):.3f} {of.quantity.shown.replace('u', 'µ')}"
        rows.append([of.label, f"{of.shown(limit * spent):.3f}", allowed, _bar(spent), verdict])
    table = _table(["limit on", "spent", "allowed", "", ""], rows) if rows else "<p>No limit was set.</p>"
    return _section("Budgets", _certificate(data), table)


def _certificate(data: ReportData) -> str:
    certificate = data.final.certificate
    limit = f" (limit {_ms(certificate.limit_us)} ms)" if certificate.limit_us is not None else ""
    return (
        "Worst-case limits hold for every input: each way through the model fits. Certificate for the mean: with probability "
        f"{_percent(certificate.confidence, 0)} the true mean latency is at most <b>{_ms(certificate.bound_us)} ms</b>{limit}, "
        f"from {certificate.n_samples} inputs used for nothing else, on which it was {_ms(certificate.observed_mean_us)} ms "
        f"({_text(certificate.method)})."
    )


def _front(data: ReportData) -> str:
    references = {one.name: (one.accuracy, PolicyCost(mean=one.cost, worst=one.cost)) for one in data.references}
    finished = (data.final.accuracy[data.split], data.final.cost)
    figure = front_figure(
        data.front.points, chosen_trial=data.chosen_trial, finished=finished, references=references,
        float_accuracy=data.final.float_accuracy[data.split], budget=data.final.budget, objectives=data.front.objectives,
    )  # fmt: skip
    count = len(data.front.points)
    *labels, last = [OBJECTIVES[name].label for name in data.front.objectives]
    lead = (
        f"{count} model{'s' if count > 1 else ''} that no other one beats in {', '.join(labels)} and {last}, from the search "
        f"(accuracy estimated on its own part of the validation split). The star is the finished model, made from trial "
        f"{data.chosen_trial}; it, the uniform models and float are on the {_text(data.split)} split."
    )
    return _section("The front", lead, figure_html(figure, "front"))


def _bits(data: ReportData) -> str:
    """A cell per operation and entry, shaded by width."""
    model = data.final.model
    names = _entry_names(data)
    ways = [model.network.path(model.menu.exits_passed(index)) for index in range(len(names))]
    run = [{op.name for op in way} for way in ways]
    rows = []
    for op in model.network.ops:
        if any(op.name in ran for ran in run):
            cells = [
                _bits_cell(entry.assignment[op.name].weight_bits, entry.assignment[op.name].activation_bits) if op.name in ran
                else "<span class='absent'>does not run</span>"
                for entry, ran in zip(model.menu.entries, run, strict=True)
            ]  # fmt: skip
            stored = _stored(model, op.name)
            macs = f"{op.macs:,}" if op.macs else ""
            rows.append([_text(op.name), _text(op.kind), shape_text(op.out_shape), macs, stored, *cells])
    lead = (
        "Weights are stored once, at the widest width any entry uses; a narrower entry reads the top bits of the same codes, or "
        "a packed copy where the table says that it pays and flash has room."
    )
    columns = ["operation", "kind", "output", "MACs", "stored", *map(_text, names)]
    return _section("Bits of every operation", lead, _table(columns, rows, "bits"))


def _stored(model: IntegerModel, op: str) -> str:
    """At which widths an operation's weights lie in flash."""
    if op not in model.stored:
        return ""
    copies = sorted((bits for name, bits in model.menu.copies if name == op), reverse=True)
    return " + ".join(map(str, (model.stored[op].bits, *copies))) + " bit"


def _bits_cell(weight_bits: int, activation_bits: int) -> str:
    parts = [("w", weight_bits)] * bool(weight_bits) + [("a", activation_bits)]
    return "".join(f"<span class='b{bits}'>{letter}{bits}</span>" for letter, bits in parts)


def _inputs(data: ReportData) -> str:
    inputs, names = data.inputs, _entry_names(data)
    blocks = []
    for index, (name, colour) in enumerate(zip(names, entry_colours(len(names)), strict=True)):
        own = np.flatnonzero(inputs.entries == index)
        right = float(np.mean(inputs.predicted[own] == inputs.labels[own])) if len(own) else 0.0
        share = _percent(len(own) / len(inputs.entries), 1)
        heading = f"{_text(name)}: {len(own)} inputs ({share}), {_ms(data.final.paths[index].latency_us)} ms each"
        heading += f", {_percent(right, 1)} of them right" if len(own) else ""
        blocks.append(f"<h3><i style='background:{colour}'></i>{heading}</h3>" + _pictures(inputs, own))
    lead = (
        f"Inputs of the {_text(data.split)} split by where their inference ended; on the left those with the largest margin "
        "there, on the right those with the smallest. Captions: what the model says, and in red what it should have said."
    )
    return _section("Which inputs take which way", lead, *blocks)


def _pictures(inputs: Inputs, own: NDArray[np.int64]) -> str:
    ordered = own[np.argsort(-inputs.margins[own], kind="stable")]
    half = PICTURES_PER_ENTRY // 2
    groups = [ordered] if len(ordered) <= PICTURES_PER_ENTRY else [ordered[:half], ordered[-half:]]
    return "<div class='pictures'>" + "<hr>".join("".join(_picture(inputs, int(i)) for i in group) for group in groups) + "</div>"


def _picture(inputs: Inputs, index: int) -> str:
    label, predicted = int(inputs.labels[index]), int(inputs.predicted[index])
    caption = f"{predicted}" if label == predicted else f"{predicted} <em>{label}</em>"
    source = base64.b64encode(png(inputs.images[index])).decode("ascii")
    picture = f"<img alt='class {label}' src='data:image/png;base64,{source}'>"
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def png(image: NDArray[np.uint8]) -> bytes:
    """A picture `[height, width, 1 or 3]` as a PNG file (ISO/IEC 15948: one IDAT chunk, no filter)."""
    height, width, channels = image.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), image.reshape(height, width * channels)], axis=1)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _prices(data: ReportData) -> str:
    names, shares = _entry_names(data), data.final.shares
    ops = list(dict.fromkeys(price.op for prices in data.inferences for price in prices))
    mean_us = data.final.cost.mean.latency_us
    rows = []
    for op in ops:
        own = [[price for price in prices if price.op == op] for prices in data.inferences]
        spent = [sum(price.latency_us for price in prices) for prices in own]
        average = sum(share * latency for share, latency in zip(shares, spent, strict=True))
        seen = [price for prices in own for price in prices]
        origins = sorted({price.origin for price in seen})
        error = max(price.uncertainty for price in seen)
        cells = [_ms(latency) if latency else "<span class='absent'>–</span>" for latency in spent]
        rows.append([_text(op), *cells, f"{100 * average / mean_us:.1f} %", _text(", ".join(origins)), f"±{100 * error:.0f} %"])
    totals = [f"<b>{_ms(path.latency_us)}</b>" for path in data.final.paths]
    rows.append(["<b>whole inference</b>", *totals, "<b>100 %</b>", "", ""])
    columns = ["operation", *(f"{_text(name)}, ms" for name in names), "of the mean", "from", "error"]
    lead = "Time of each operation in an inference that ends at each entry, the policy's own work included."
    figure = figure_html(price_figure(data.inferences, shares, names), "prices")
    return _section("Where the time goes", lead, figure, _table(columns, rows))


def _origin(data: ReportData) -> str:
    """Shares of provenance, in the mean."""
    totals: dict[str, float] = {}
    for prices, share, path in zip(data.inferences, data.final.shares, data.final.paths, strict=True):
        for kind, part in CostModel.provenance(prices).items():
            totals[kind] = totals.get(kind, 0.0) + part * share * path.latency_us
    whole = sum(totals.values())
    rows = [
        [_text(kind), _bar(part / whole), _percent(part / whole, 1)]
        for kind, part in sorted(totals.items(), key=lambda item: -item[1])
    ]
    error = CostModel.uncertainty([price for prices in data.inferences for price in prices])
    lead = (
        f"{_text(data.header.validity.text)} Stated error of these prices, if all parts err the same way: ±{100 * error:.0f} %. "
        f"Power: {data.header.power.active_mw:g} mW ({_text(data.header.power.source)})."
    )
    return _section("How sure the price is", lead, _table(["share of the mean latency", "", ""], rows))


def _repeat(data: ReportData) -> str:
    final, library = data.final, data.header.library
    facts = {
        "seed": final.seed, "search space": data.front.space,
        "kernels": f"{library.kernel_library} {library.version}, {library.compiler}, {library.flags}",
        **data.versions, **final.notes,
    }  # fmt: skip
    total = sum(data.seconds.values())
    longest = max(data.seconds.values(), default=1.0) or 1.0
    stages = [[_text(stage), _bar(seconds / longest), f"{seconds:.1f} s"] for stage, seconds in data.seconds.items()]
    lead = f"The stages took {total:.0f} s together. The same job with the same seed gives the same models."
    stage_table = _table(["stage", "", ""], stages)
    fact_table = _table(["", ""], [[_text(name), _text(value)] for name, value in facts.items()], "facts")
    return _section("How to repeat it", lead, f"<div class='columns'>{stage_table}{fact_table}</div>")
