"""The columns of a device's table: their names in either schema, how a cell is read and written, and what an empty one means."""

import functools
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from hwsearch.graph.op import Op, OpKind, Shape, packed_weight_bytes, parse_shape, shape_text
from hwsearch.hardware.header import ProfileHeader, Provenance, RunRecord
from hwsearch.hardware.measurement import POWER_X_TIME, Measurement

WIDE = tuple(field.name for field in fields(Measurement))
"""The columns of schema 1, in this order."""

WIDE_OPTIONAL = ("logits", "repeats", "latency_us", "energy_uj", "energy_source", "run_id")
"""Those that a table of schema 1 may leave out."""

_SHORTER = {"count_median": "count", "run_id": "run"}
COLUMNS = tuple(_SHORTER.get(field, field) for field in WIDE)
"""The columns of schema 2: the fields of a `Measurement`, two of them shorter."""

FIELD = dict(zip(COLUMNS, WIDE, strict=True))
"""The field that a column of schema 2 gives."""

REQUIRED = ("op", "in_shape", "out_shape", "activation_bits", "count")
"""Those that every row of schema 2 must fill."""

Values = dict[str, Any]
"""The fields of a `Measurement`, by name."""


@functools.cache
def kernel_symbol(op: OpKind, weight_bits: int, activation_bits: int) -> str:
    """Name of this project's kernel for an operation at a kernel's own precision.

    >>> kernel_symbol(OpKind.CONV2D, 4, 8), kernel_symbol(OpKind.ADD, 0, 8)
    ('hw_conv2d_w4a8', 'hw_add')
    """
    return f"hw_{op}_w{weight_bits}a{activation_bits}" if op.has_weights else f"hw_{op}"


def _latency_us(values: Values, _: RunRecord | None, header: ProfileHeader) -> float:
    return _digits(header.latency_us(values["count_median"]))


def _energy_uj(values: Values, _: RunRecord | None, header: ProfileHeader) -> float | None:
    follows = values["energy_source"] == POWER_X_TIME
    return _digits(header.energy_uj(header.latency_us(values["count_median"]))) if follows else None


def _digits(value: float) -> float:
    """A derived number to the twelve digits of the wide form, so that it is the same whether a table states it or not."""
    return float(format(value, ".12g"))


def _code_bytes(values: Values, run: RunRecord | None, _: ProfileHeader) -> int | None:
    """As the run recorded it; a run that built nothing, as of published numbers, knows of no code."""
    return run.code_bytes.get(values["symbol"]) if run is not None and run.code_bytes else 0


def _weight_bytes(values: Values, _: RunRecord | None, __: ProfileHeader) -> int:
    shapes = values["in_shape"], values["out_shape"], values["kernel"], values["groups"]
    return _packed(values["op"], *shapes, values["stored_bits"]) if values["stored_bits"] else 0


@functools.cache
def _packed(kind: OpKind, in_shape: Shape, out_shape: Shape, kernel: tuple[int, int], groups: int, stored_bits: int) -> int:
    op = Op(name="", kind=kind, inputs=(), in_shape=in_shape, out_shape=out_shape, kernel=kernel, groups=groups)
    return packed_weight_bytes(op, stored_bits)


USUAL: dict[str, Callable[[Values, RunRecord | None, ProfileHeader], Any]] = {
    "kernel": lambda *_: (1, 1),
    "stride": lambda *_: (1, 1),
    "groups": lambda *_: 1,
    "weight_bits": lambda *_: 0,
    "stored_bits": lambda values, *_: values["weight_bits"],
    "logits": lambda *_: False,
    "count_p05": lambda values, *_: values["count_median"],
    "count_p95": lambda values, *_: values["count_median"],
    "repeats": lambda _, run, __: run.repeats if run is not None else 1,
    "latency_us": _latency_us,
    "energy_source": lambda *_: POWER_X_TIME,
    "energy_uj": _energy_uj,
    "provenance": lambda _, run, __: run.provenance if run is not None else None,
    "symbol": lambda values, *_: kernel_symbol(values["op"], values["weight_bits"], values["activation_bits"]),
    "code_bytes": _code_bytes,
    "weight_bytes": _weight_bytes,
    "scratch_bytes": lambda *_: 0,
    "run_id": lambda *_: "",
}
"""What an empty cell means, each from the values before it; None: nothing, so the row must say it."""

STATED = ("latency_us", "energy_uj")
"""Columns that a row may give although they follow; then they must be what follows."""


@functools.cache
def _shape(text: str) -> Shape:
    return parse_shape(text)


@functools.cache
def _pair(text: str) -> tuple[int, int]:
    rows, columns = text.split("x")
    return int(rows), int(columns)


def _above_0(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


PARSERS: dict[str, Callable[[str], Any]] = {
    "op": functools.cache(OpKind), "in_shape": _shape, "out_shape": _shape, "kernel": _pair, "stride": _pair, "groups": _above_0,
    "weight_bits": int, "stored_bits": int, "activation_bits": int, "logits": lambda text: bool(int(text)),
    "count_median": float, "count_p05": float, "count_p95": float, "repeats": int,
    "latency_us": float, "energy_uj": float, "energy_source": str, "provenance": functools.cache(Provenance),
    "code_bytes": int, "weight_bytes": int, "scratch_bytes": int, "symbol": str, "run_id": str,
}  # fmt: skip
"""A field from the text of a cell; ValueError where it is none."""


def cell_text(value: Any) -> str:
    """A field as a cell: sides as height x width x channels, numbers with twelve digits."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return format(value, ".12g")
    if isinstance(value, tuple):
        return shape_text(value) if len(value) != 2 else f"{value[0]}x{value[1]}"
    return str(value)
