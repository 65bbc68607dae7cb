"""The report's figures, drawn with plotly; every one works without colour too (shapes, labels)."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from hwsearch.graph.menu import PolicyKind
from hwsearch.hardware.cost import DEFAULT_OBJECTIVES, OBJECTIVES, Budget, Objective, PolicyCost, cost_objectives
from hwsearch.pricing.prices import OpPrice
from hwsearch.results.front import FrontPoint

INK, MUTED, RULE = "#1f2933", "#7b8794", "#e4e7eb"
ACCENT = "#c2410c"
_COLOURS = ("#52606d", "#0f766e", "#7c3aed", "#2563eb", "#b45309", "#be185d", "#4d7c0f", "#0369a1")
_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "cross", "star", "hexagon", "triangle-down")
KIND_COLOURS = {kind: _COLOURS[place % len(_COLOURS)] for place, kind in enumerate(PolicyKind)}
_KIND_SYMBOLS = {kind: _SYMBOLS[place % len(_SYMBOLS)] for place, kind in enumerate(PolicyKind)}
"""A colour and a mark for each kind of policy, in the order of the kinds."""
LOWER_EDGE = 0.05
"""How far below the front, in accuracy, a figure still reaches."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def entry_colours(entries: int) -> list[str]:
    """From light (the cheapest entry) to dark, in one hue."""
    light, dark = (191, 219, 254), (30, 64, 175)
    steps = [0.55] if entries == 1 else [index / (entries - 1) for index in range(entries)]
    return ["#" + "".join(f"{round(a + step * (b - a)):02x}" for a, b in zip(light, dark, strict=True)) for step in steps]


def front_axes(objectives: Sequence[str]) -> tuple[Objective, Objective]:
    """The two costs that a front is drawn against: the first two it is in; one alone has a latency beside it."""
    searched = cost_objectives(objectives)
    beside = [OBJECTIVES[name] for name in ("latency", "mean_latency") if OBJECTIVES[name] != searched[0]]
    first, second, *_ = [*searched, *beside]
    return first, second


def front_figure(
    points: Sequence[FrontPoint],
    *,
    chosen_trial: int,
    finished: tuple[float, PolicyCost],
    references: Mapping[str, tuple[float, PolicyCost]],
    float_accuracy: float,
    budget: Budget,
    objectives: Sequence[str] = DEFAULT_OBJECTIVES,
) -> go.Figure:
    """Accuracy against two costs, by default mean latency (left) and worst latency (right); all others are in the hover text.

    `references`: accuracy and cost of static models by name; `finished`: accuracy and cost of the finished model.
    """
    figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.04)
    lowest = min(finished[0], *(point.accuracy for point in points)) - LOWER_EDGE
    for column, axis in enumerate(front_axes(objectives), start=1):
        _add_points(figure, points, axis, column)
        _add_references(figure, references, lowest, axis, column)
        _add_finished(figure, [point for point in points if point.trial == chosen_trial], finished, axis, column)
        figure.add_hline(y=100 * float_accuracy, line={"color": MUTED, "width": 1, "dash": "dot"}, row=1, col=column)
        limit = budget.limits().get(axis.field)
        if limit is not None:
            _add_limit(figure, axis.shown(limit), column)
        figure.update_xaxes(title_text=f"{axis.label} ({axis.quantity.shown})", rangemode="tozero", row=1, col=column)
    figure.add_annotation(
        text=f"float {100 * float_accuracy:.2f} %", x=1, y=100 * float_accuracy, xref="x2 domain", yref="y2", yanchor="bottom",
        xanchor="right", showarrow=False, font={"color": MUTED, "size": 12},
    )  # fmt: skip
    figure.update_yaxes(title_text="accuracy (%)", row=1, col=1)
    return _styled(figure, 430, legend=True)


def _add_points(figure: go.Figure, points: Sequence[FrontPoint], axis: Objective, column: int) -> None:
    by_cost = sorted(points, key=lambda point: _along(axis, point.cost))
    for kind in PolicyKind:
        own = [point for point in by_cost if point.menu.kind is kind]
        if own:
            figure.add_trace(
                go.Scatter(
                    x=[_along(axis, point.cost) for point in own], y=[100 * point.accuracy for point in own], mode="markers",
                    name=f"{kind} (search)", legendgroup=kind, showlegend=column == 1,
                    marker={"color": KIND_COLOURS[kind], "symbol": _KIND_SYMBOLS[kind], "size": 9, "opacity": 0.9},
                    text=[_hover(point) for point in own], hovertemplate="%{text}<extra></extra>",
                ), row=1, col=column,
            )  # fmt: skip


def _along(axis: Objective, cost: PolicyCost) -> float:
    """Where a cost lies on an axis, in the unit that is shown."""
    return axis.shown(axis.value(0.0, cost))


def _hover(point: FrontPoint) -> str:
    costs = [f"{one.label} {_along(one, point.cost):.3f} {one.quantity.shown}" for one in cost_objectives(tuple(OBJECTIVES))]
    title = f"trial {point.trial}: {point.menu.kind}, {len(point.menu.entries)} entries"
    return "<br>".join([title, f"accuracy {_percent(point.accuracy)}", *costs])


def _add_references(
    figure: go.Figure, references: Mapping[str, tuple[float, PolicyCost]], lowest: float, axis: Objective, column: int
) -> None:
    """Crosses; a model far below the front is a triangle at the lower edge with its accuracy, so that the front stays wide."""
    below = [accuracy < lowest for accuracy, _ in references.values()]
    text = [f"{name} ({_percent(references[name][0])})" if low else name for name, low in zip(references, below, strict=True)]
    figure.add_trace(
        go.Scatter(
            x=[_along(axis, cost) for _, cost in references.values()],
            y=[100 * max(accuracy, lowest) for accuracy, _ in references.values()],
            mode="markers+text", text=text, textfont={"size": 11, "color": MUTED}, cliponaxis=False,
            textposition=["top center" if low else "bottom center" for low in below],
            name="uniform", legendgroup="uniform", showlegend=column == 1,
            marker={
                "symbol": ["triangle-down" if low else "x-thin" for low in below],
                "color": MUTED, "size": 9, "line": {"width": 2, "color": MUTED},
            },
            customdata=[_percent(accuracy) for accuracy, _ in references.values()],
            hovertemplate="uniform<br>accuracy %{customdata}<br>%{x:.3f} " + axis.quantity.shown + "<extra></extra>",
        ), row=1, col=column,
    )  # fmt: skip


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _add_finished(
    figure: go.Figure, origins: Sequence[FrontPoint], finished: tuple[float, PolicyCost], axis: Objective, column: int
) -> None:
    """The finished model as a star, and a thin line from the point of the search it was made from."""
    accuracy, cost = finished
    place = _along(axis, cost)
    for point in origins:
        figure.add_trace(
            go.Scatter(
                x=[_along(axis, point.cost), place], y=[100 * point.accuracy, 100 * accuracy], mode="lines", hoverinfo="skip",
                line={"color": ACCENT, "width": 1, "dash": "dash"}, showlegend=False,
            ), row=1, col=column,
        )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=[place], y=[100 * accuracy], mode="markers", name="finished model", legendgroup="finished",
            showlegend=column == 1, marker={"color": ACCENT, "symbol": "star", "size": 15},
            hovertemplate="finished model<br>accuracy %{y:.2f} %<br>" + axis.label + " %{x:.3f} " + axis.quantity.shown
            + "<extra></extra>",
        ), row=1, col=column,
    )  # fmt: skip


def _add_limit(figure: go.Figure, limit: float, column: int) -> None:
    figure.add_vline(x=limit, line={"color": ACCENT, "width": 1}, row=1, col=column)
    figure.add_annotation(
        text="budget", x=limit, y=0.5, xref=f"x{column}", yref="y domain", showarrow=False, xanchor="right", yanchor="middle",
        textangle=-90, font={"color": ACCENT, "size": 11},
    )  # fmt: skip


def price_figure(inferences: Sequence[Sequence[OpPrice]], shares: Sequence[float], names: Sequence[str]) -> go.Figure:
    """What each operation contributes to the mean latency, split by the entry an inference ends at; `names` of the entries."""
    ops = list(dict.fromkeys(price.op for prices in inferences for price in prices))
    figure = go.Figure()
    for prices, share, name, colour in zip(inferences, shares, names, entry_colours(len(names)), strict=True):
        spent = {op: share * sum(price.latency_us for price in prices if price.op == op) / 1000 for op in ops}
        figure.add_trace(
            go.Bar(
                y=ops, x=[spent[op] for op in ops], orientation="h", name=f"ending at {name} ({100 * share:.0f} %)",
                marker={"color": colour}, hovertemplate="%{y}: %{x:.4f} ms of the mean<extra>" + name + "</extra>",
            )
        )  # fmt: skip
    figure.update_layout(barmode="stack", bargap=0.35)
    figure.update_xaxes(title_text="contribution to mean latency (ms)")
    figure.update_yaxes(autorange="reversed")
    return _styled(figure, 110 + 24 * len(ops), legend=len(names) > 1)


def _styled(figure: go.Figure, height: int, *, legend: bool) -> go.Figure:
    figure.update_layout(
        height=height, template="plotly_white", font={"family": FONT, "size": 13, "color": INK}, showlegend=legend,
        margin={"l": 10, "r": 10, "t": 40 if legend else 10, "b": 10},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "xanchor": "left", "x": 0, "traceorder": "normal"},
        hoverlabel={"font": {"family": FONT}}, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
    )  # fmt: skip
    axis = {"gridcolor": RULE, "zeroline": False, "linecolor": RULE, "automargin": True, "title_font_size": 13}
    figure.update_xaxes(axis)
    figure.update_yaxes(axis)
    return figure


def figure_html(figure: go.Figure, name: str) -> str:
    """The figure as a `div` of that name; the page must hold `plotly_script` once."""
    config = {"displaylogo": False, "responsive": True, "displayModeBar": False}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config=config))


def plotly_script() -> str:
    """The plotly library itself, so that a report needs no network."""
    return f"<script>{get_plotlyjs()}</script>"
