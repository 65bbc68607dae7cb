"""A profile as a picture: what a product (or an output, without weights) costs at each width, and where fewer bits pay.

A cell is the median over shapes, the same ones along a line where some were measured at every width of it; its colour compares
each shape with itself at 8 bits.
Drawn as SVG by hand, so that it opens anywhere and weighs little; an HTML file holds the same picture and the profile's text.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import median

from hwsearch.errors import ProfileError
from hwsearch.graph.op import OpKind
from hwsearch.graph.precision import Precision
from hwsearch.hardware.profile import HardwareProfile, Measurement, Provenance
from hwsearch.report.charts import FONT, INK, MUTED, RULE

SUFFIXES = (".svg", ".html")
PAYS, EVEN, COSTS = (15, 118, 110), (247, 248, 250), (194, 65, 12)
"""Colours of half the cost at 8 bits, the same, and twice."""
EQUAL = 0.03
"""Ratios nearer to 1 than this neither pay nor cost."""
_CELL_WIDTH, _CELL_HEIGHT, _LABEL_WIDTH, _MARGIN = 92, 46, 150, 24
_NAMES = {OpKind.CONV2D: "convolution", OpKind.DEPTHWISE_CONV2D: "depthwise", OpKind.AVG_POOL: "average pool",
          OpKind.MAX_POOL: "maximum pool"}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """`cost` in counts per product or output; `ratio` to 8 bits, None at 8 bits or where no shape has both.

    `half_interval` is that of derived rows, relative; 0 where rows were timed.
    """

    cost: float
    ratio: float | None
    half_interval: float
    rows: int


Cells = Mapping[str, Mapping[Precision, Cell]]
"""By family (an operation and its window) and precision."""


def profile_cells(profile: HardwareProfile) -> Cells:
    """Every family of the table; weights lie in memory at the width they are computed at."""
    families: dict[str, dict[Precision, dict[tuple[object, ...], Measurement]]] = {}
    for row in profile.measurements:
        if row.stored_bits == row.weight_bits and row.count_median > 0:
            shape = (row.in_shape, row.out_shape, row.kernel, row.stride, row.groups)
            families.setdefault(_family(row), {}).setdefault(row.precision, {})[shape] = row
    return {family: {p: _cell(rows, widths, p) for p, rows in widths.items()} for family, widths in sorted(families.items())}


def _family(row: Measurement) -> str:
    name = _NAMES.get(row.op, str(row.op))
    return f"{name} {row.kernel[0]}x{row.kernel[1]}" if row.op.has_weights and not row.op.traits.reads_vector else name


def _cell(
    rows: Mapping[tuple[object, ...], Measurement],
    widths: Mapping[Precision, Mapping[tuple[object, ...], Measurement]],
    precision: Precision,
) -> Cell:
    wide = Precision(8 if precision.weight_bits else 0, 8)
    rows = {shape: row for shape, row in rows.items() if all(shape in own for own in widths.values())} or rows
    shared = [(row, widths[wide][shape]) for shape, row in rows.items() if shape in widths.get(wide, {})]
    ratios = [row.count_median / other.count_median for row, other in shared]
    timed = all(row.provenance in (Provenance.MEASURED, Provenance.EMULATED) for row in rows.values())
    return Cell(
        cost=median(row.count_median / work_of(row) for row in rows.values()),
        ratio=median(ratios) if ratios and precision != wide else None,
        half_interval=0.0 if timed else median(row.relative_error(0.0) for row in rows.values()),
        rows=len(rows),
    )


def work_of(row: Measurement) -> int:
    """Products of a row's operation, or outputs where it has no weights."""
    outputs = math.prod(row.out_shape)
    if row.op.traits.reads_vector:
        return outputs * math.prod(row.in_shape)
    if row.op.has_weights:
        return outputs * math.prod(row.kernel) * (row.in_shape[0] // row.groups)
    return outputs


# --- drawing ----------------------------------------------------------------------------------------------------------


def write_picture(profile: HardwareProfile, path: Path) -> None:
    """Write `path`, an .svg or .html file; raises ProfileError for another suffix or a place that cannot be written."""
    if path.suffix not in SUFFIXES:
        raise ProfileError(f"A picture must be an {' or '.join(SUFFIXES)} file, but found {str(path)!r}; give it such a name.")
    drawing = svg(profile)
    text = drawing if path.suffix == ".svg" else _page(profile, drawing)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ProfileError(
            f"A picture must be written to a folder that exists, but {path} is not ({error}); choose one."
        ) from None


def svg(profile: HardwareProfile) -> str:
    """The whole picture: one grid for operations with weights, one for the others."""
    cells, unit = profile_cells(profile), profile.header.counter.unit
    with_weights = {name: row for name, row in cells.items() if next(iter(row)).weight_bits}
    without = {name: row for name, row in cells.items() if name not in with_weights}
    parts, y, width = [], 84, 640
    for title, rows in ((f"{unit} per product", with_weights), (f"{unit} per output", without)):
        if rows:
            drawn, y, right = _grid(title, rows, y)
            parts += drawn
            width = max(width, right + _MARGIN)
    device, library, y = profile.device, profile.header.library.kernel_library, y + 4
    head = [
        _text(_MARGIN, 34, profile.name, size=18, weight=600),
        _text(_MARGIN, 56, f"{device.core}, {device.clock_hz / 1e6:g} MHz, {library}", colour=MUTED),
    ]
    legend = _legend(_MARGIN, y)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y + 44}" viewBox="0 0 {width} {y + 44}" role="img" '
        f'font-family="{escape(FONT)}"><title>{escape(profile.name)}</title><rect width="100%" height="100%" fill="#fff"/>'
        + "".join([*head, *parts, *legend])
        + "</svg>\n"
    )


def _grid(title: str, rows: Cells, y: int) -> tuple[list[str], int, int]:
    """Drawn cells, the y below them and the x at their right."""
    columns = sorted({p for row in rows.values() for p in row}, reverse=True)
    left = _MARGIN + _LABEL_WIDTH
    parts = [_text(_MARGIN, y + 14, title, weight=600)]
    parts += [
        _text(left + index * _CELL_WIDTH + _CELL_WIDTH / 2, y + 14, str(precision), anchor="middle")
        for index, precision in enumerate(columns)
    ]
    y += 24
    for name, row in rows.items():
        parts.append(_text(_MARGIN, y + _CELL_HEIGHT / 2 + 4, name))
        for index, precision in enumerate(columns):
            parts += _draw(row.get(precision), left + index * _CELL_WIDTH, y, f"{name} {precision}")
        y += _CELL_HEIGHT
    return parts, y + 26, left + len(columns) * _CELL_WIDTH


def _draw(cell: Cell | None, x: float, y: float, name: str) -> list[str]:
    middle = x + _CELL_WIDTH / 2
    if cell is None:
        return [_box(x, y, "none"), _text(middle, y + 27, "–", anchor="middle", colour=MUTED)]
    fill = _colour(cell.ratio)
    ink = "#fff" if cell.ratio is not None and abs(math.log2(cell.ratio)) > 0.6 else INK
    told = [f"{name}: {cell.cost:.3g}, {cell.rows} shapes"]
    told += [f"{cell.ratio:.2f} times the cost at 8 bits"] if cell.ratio is not None else []
    told += [f"known to ±{100 * cell.half_interval:.0f} %"] if cell.half_interval else []
    below = [f"×{cell.ratio:.2f}"] if cell.ratio is not None else []
    below += [f"±{100 * cell.half_interval:.0f} %"] if cell.half_interval else []
    return [
        f"<g><title>{escape('; '.join(told))}</title>", _box(x, y, fill),
        _text(middle, y + (21 if below else 27), f"{cell.cost:.3g}", anchor="middle", colour=ink, weight=600),
        _text(middle, y + 37, " ".join(below), anchor="middle", colour=ink, size=11), "</g>",
    ]  # fmt: skip


def _colour(ratio: float | None) -> str:
    """From the colour that pays over none to the one that costs, along the logarithm of the ratio."""
    if ratio is None or abs(ratio - 1) < EQUAL:
        return f"rgb{EVEN}".replace(" ", "")
    towards = PAYS if ratio < 1 else COSTS
    share = min(abs(math.log2(ratio)), 1.0)
    mixed = tuple(round(a + share * (b - a)) for a, b in zip(EVEN, towards, strict=True))
    return f"rgb{mixed}".replace(" ", "")


def _legend(x: float, y: float) -> list[str]:
    parts: list[str] = []
    for colour, words in ((0.5, "fewer bits pay"), (1.0, "same as 8 bits"), (2.0, "fewer bits cost more")):
        parts += [_box(x, y, _colour(colour), side=14), _text(x + 22, y + 12, words, size=12, colour=MUTED)]
        x += 165
    return [*parts, _text(x, y + 12, "– no kernel or no row", size=12, colour=MUTED)]


def _box(x: float, y: float, fill: str, side: float | None = None) -> str:
    width, height = (side, side) if side else (_CELL_WIDTH - 4, _CELL_HEIGHT - 4)
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="3" fill="{fill}" stroke="{RULE}"/>'


def _text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 13, weight: int = 400, colour: str = INK) -> str:
    style = f'font-size="{size}" font-weight="{weight}" fill="{colour}" text-anchor="{anchor}"'
    return f'<text x="{x:g}" y="{y:g}" {style}>{escape(words)}</text>'


def _page(profile: HardwareProfile, drawing: str) -> str:
    """A page of its own: the picture, and what the profile says about its numbers."""
    lines: Sequence[tuple[str, str]] = (
        ("Validity", f"±{100 * profile.validity.relative_error:.0f} %. {profile.validity.text}"),
        ("Power", f"{profile.header.power.active_mw:g} mW: {profile.header.power.source}"),
        ("Rows", _provenance(profile.measurements)),
    )
    body = "".join(f"<p><b>{escape(name)}.</b> {escape(words)}</p>" for name, words in lines)
    style = f"body{{font:15px/1.5 {FONT};color:{INK};max-width:66rem;margin:2rem auto;padding:0 1rem}}"
    style += "svg{max-width:100%;height:auto}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(profile.name)}</title>'
        f"<style>{style}</style></head><body>{drawing}{body}</body></html>\n"
    )


def _provenance(rows: Iterable[Measurement]) -> str:
    counts: dict[str, int] = {}
    for row in rows:
        counts[str(row.provenance)] = counts.get(str(row.provenance), 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
