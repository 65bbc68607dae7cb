"""A device's table `ops.csv`: one row per operation, shape and precision, in schema 2, or in schema 1 as it was written before.

The first line names the columns, so that any program that reads CSV reads the table; the name of the count's column tells the
schema: `count` is schema 2, `count_median` schema 1. A column that a schema does not know is refused, so none is misread.

Schema 2 (`COLUMNS`) holds what was counted, and what else cannot be known without the row: each column stands at most once, in
any order, all but `REQUIRED` may be left out, and an empty cell or a column left out means what is usual (`USUAL`): an interval
is the count itself, weights are packed densely, a symbol is this project's kernel, and `provenance`, `repeats` and `code_bytes`
are those of the row's run. `run` is the number of its line in `runs.jsonl`, from 1. Latency and energy follow from the count and
`profile.toml`, so another clock or power touches no row; where a row gives them all the same, they must be what follows.

Schema 1, the wide form (`WIDE`, the fields of `Measurement`), spells everything out and names runs by their `run_id`.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hwsearch.errors import ProfileError
from hwsearch.hardware.columns import COLUMNS, FIELD, PARSERS, REQUIRED, STATED, USUAL, WIDE, WIDE_OPTIONAL, Values, cell_text
from hwsearch.hardware.header import RUNS_FILE, ProfileHeader, Provenance, RunRecord
from hwsearch.hardware.measurement import POWER_X_TIME, Measurement, RowKey

TABLE_FILE = "ops.csv"
SCHEMA = 2
"""The schema that tables are written in."""
_FILLED = {FIELD[column] for column in REQUIRED}
RELATIVE_TOLERANCE = 1e-6
"""How far a derived column may be from its re-derivation; tables are written with twelve digits."""


def table_schema(folder: Path) -> int:
    """The schema of a profile's table, by its first line."""
    path = folder / TABLE_FILE
    with path.open(newline="", encoding="utf-8") as file:
        return _schema(next(csv.reader(file), []), path)


def read_table(
    folder: Path, header: ProfileHeader, runs: Sequence[RunRecord], *, derive: bool = False
) -> tuple[Measurement, ...]:
    """The rows of `ops.csv`, in their order. Latency and energy that a row gives must follow; with `derive` they are made so."""
    path = folder / TABLE_FILE
    by_id = {run.run_id: run for run in runs}
    rows: dict[RowKey, Measurement] = {}
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        columns = next(lines, [])
        parse = _parser(columns, _schema(columns, path), runs, path)
        for number, cells in enumerate(lines, start=2):
            where = f"{path}:{number}"
            given = parse(cells, where)
            row = _complete(given, by_id.get(given.get("run_id", "")), header, where, derive=derive)
            _check_row(row, where)
            if row.key in rows:
                raise ProfileError(f"{where}: each row must stand once, but {row.key} stands twice; remove one.")
            rows[row.key] = row
    return tuple(rows.values())


def _schema(columns: Sequence[str], path: Path) -> int:
    found = [schema for schema, name in ((1, "count_median"), (2, "count")) if name in columns]
    if len(found) != 1:
        raise ProfileError(
            f"{path}:1: the first line must name one of the columns count (schema 2) and count_median (schema 1), but has "
            f"{'both' if found else 'neither'}; correct it, or read the table with the version of hwsearch that wrote it."
        )
    return found[0]


# --- cells ------------------------------------------------------------------------------------------------------------


def _parser(columns: Sequence[str], schema: int, runs: Sequence[RunRecord], path: Path) -> Callable[[list[str], str], Values]:
    """A function from a line's cells and its place to the values that it gives."""
    if schema == 1:
        _check_wide_columns(columns, path)
    else:
        _check_columns(columns, path)
    parsers = PARSERS if schema == 1 else {**PARSERS, "run_id": lambda text: _run_id(text, runs)}
    plan = [(column, FIELD.get(column, column), parsers[FIELD.get(column, column)]) for column in columns]

    def parse(cells: list[str], where: str) -> Values:
        if len(cells) != len(plan):
            raise ProfileError(f"{where}: a row must have {len(plan)} cells, but has {len(cells)}; correct or remove it.")
        values: Values = {}
        for (column, field, of_text), text in zip(plan, cells, strict=True):
            if text or schema == 1:
                try:
                    values[field] = of_text(text)
                except ValueError as error:
                    raise ProfileError(f"{where}: {_wrong_cell(column, text, runs)}; correct it.") from error
        return values

    return parse


def _wrong_cell(column: str, text: str, runs: Sequence[RunRecord]) -> str:
    what = f"a line of {RUNS_FILE}, 1 to {len(runs)}" if column == "run" else "a plain value in the unit of its name"
    return f"{column} must be {what}, but found {text!r}"


def _run_id(text: str, runs: Sequence[RunRecord]) -> str:
    number = int(text)
    if not 1 <= number <= len(runs):
        raise ValueError(text)
    return runs[number - 1].run_id


def _check_columns(columns: Sequence[str], path: Path) -> None:
    wrong = sorted({*columns} - {*COLUMNS}) + [f"{name} twice" for name in sorted({*columns}) if columns.count(name) > 1]
    if wrong:
        raise ProfileError(
            f"{path}:1: the columns must be among {','.join(COLUMNS)}, each once, but found {', '.join(wrong)}; "
            "correct the first line."
        )
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise ProfileError(
            f"{path}:1: the columns {', '.join(REQUIRED)} must all stand in the table, but {', '.join(missing)} are missing; "
            "add them."
        )


def _check_wide_columns(columns: Sequence[str], path: Path) -> None:
    left_out = {column for column in WIDE_OPTIONAL if column not in columns}
    if [*columns] != [column for column in WIDE if column not in left_out]:
        wrong = sorted(({*WIDE} ^ {*columns}) - left_out) or ["their order"]
        raise ProfileError(
            f"{path}:1: the columns must be {','.join(WIDE)}, but they differ in {', '.join(wrong)}; correct the first line."
        )


# --- rows -------------------------------------------------------------------------------------------------------------


def _complete(given: Values, run: RunRecord | None, header: ProfileHeader, where: str, *, derive: bool) -> Measurement:
    """The row whose cells give these values, with what is usual for the others."""
    if not given.keys() >= _FILLED:
        missing = next(column for column in REQUIRED if FIELD[column] not in given)
        raise ProfileError(f"{where}: {', '.join(REQUIRED)} must stand in each row, but {missing} is empty; fill it in.")
    values = {**given}
    for field, usual in USUAL.items():
        if field not in values or (derive and field in STATED):
            found = usual(values, run, header)
            values[field] = given.get(field) if found is None else found
            if values[field] is None:
                raise ProfileError(f"{where}: {field} must stand in the row, since {_unknown(run)}; add it.")
    row = Measurement(**values)
    for field in STATED:
        if field in given and not derive:
            _check_stated(field, row, USUAL[field](values, run, header), header, where)
    return row


def _unknown(run: RunRecord | None) -> str:
    return f"its run {run.run_id} does not record it" if run is not None else "it has no run that records it"


def _check_row(row: Measurement, where: str) -> None:
    ordered = 0 <= row.count_p05 <= row.count_median <= row.count_p95 < float("inf")
    if not (ordered and row.repeats >= 1 and row.energy_uj >= 0):
        raise ProfileError(
            f"{where}: counts must satisfy 0 <= p05 <= median <= p95 with at least one repeat, but found "
            f"{row.count_p05:g}, {row.count_median:g}, {row.count_p95:g}, {row.repeats}; measure the row again."
        )
    if row.op.has_weights != (row.weight_bits > 0) or row.stored_bits < row.weight_bits:
        raise ProfileError(
            f"{where}: weight_bits must be above 0 where there are weights, 0 where there are none, and not above stored_bits, "
            f"but found {row.weight_bits} of {row.stored_bits} for {row.op}; correct the row."
        )


def _check_stated(field: str, row: Measurement, expected: float | None, header: ProfileHeader, where: str) -> None:
    """Energy that was measured follows from nothing."""
    found: float = getattr(row, field)
    if expected is None or abs(found - expected) <= RELATIVE_TOLERANCE * max(expected, 1e-9):
        return
    factor = round(expected / found, 6) if found else 0.0
    hint = f" (a factor of {factor:g}: another unit?)" if factor in (1000.0, 0.001, 1e6, 1e-6) else ""
    remedy = "correct the row or measure it again"
    if row.provenance in (Provenance.MEASURED, Provenance.EMULATED):
        remedy = (
            f"if profile.toml has another clock or power now, `hwsearch measure {Path(where).parent}` derives the table again "
            "without repeating what still holds; else correct the row"
        )
    count = "count_median / 1000" if header.counter.unit == "ns" else "count_median / clock_hz"
    rule = {"latency_us": count, "energy_uj": "latency_us * active_mw / 1000"}[field]
    raise ProfileError(f"{where}: {field} must be {rule} = {expected:.6g}, but is {found:.6g}{hint}; {remedy}.")


# --- writing ----------------------------------------------------------------------------------------------------------


def with_shared(runs: Iterable[RunRecord], rows: Iterable[Measurement]) -> tuple[RunRecord, ...]:
    """Each run's record with what all of its rows share, where the record does not say it yet."""
    of_run: dict[str, list[Measurement]] = {}
    for row in rows:
        of_run.setdefault(row.run_id, []).append(row)
    return tuple(_with_shared(run, of_run[run.run_id]) if run.run_id in of_run else run for run in runs)


def _with_shared(run: RunRecord, rows: Sequence[Measurement]) -> RunRecord:
    code: dict[str, set[int]] = {}
    for row in rows:
        code.setdefault(row.symbol, set()).add(row.code_bytes)
    shared = {symbol: max(sizes) for symbol, sizes in sorted(code.items()) if len(sizes) == 1}
    provenances, repeats = {row.provenance for row in rows}, {row.repeats for row in rows}
    found: Values = {}
    if run.provenance is None and len(provenances) == 1:
        found["provenance"] = provenances.pop()
    if "repeats" not in run.model_fields_set and len(repeats) == 1:
        found["repeats"] = repeats.pop()
    if not run.code_bytes and any(shared.values()):
        found["code_bytes"] = shared
    return run.model_copy(update=found) if found else run


def table_text(rows: Iterable[Measurement], runs: Sequence[RunRecord], header: ProfileHeader) -> str:
    """The table in schema 2: rows sorted, cells empty where they are what is usual, without columns that are empty throughout."""
    numbers = {run.run_id: number for number, run in enumerate(runs, start=1)}
    lines = [_short_cells(row, _number(row, numbers), runs, header) for row in sorted(rows, key=_order)]
    kept = [index for index, name in enumerate(COLUMNS) if name in REQUIRED or any(cells[index] for cells in lines)]
    return _csv([[cells[index] for index in kept] for cells in [COLUMNS, *lines]])


def wide_text(rows: Iterable[Measurement]) -> str:
    """The table in schema 1, where every row says everything."""
    lines = [[cell_text(getattr(row, field)) for field in WIDE] for row in sorted(rows, key=_order)]
    return _csv([WIDE, *lines])


def _number(row: Measurement, numbers: Mapping[str, int]) -> int:
    """The line of a row's run in `runs.jsonl`; 0 if it has none."""
    if row.run_id and row.run_id not in numbers:
        raise ProfileError(
            f"A row must name a run recorded in {RUNS_FILE}, but {row.key} names {row.run_id!r}; correct or remove the row."
        )
    return numbers.get(row.run_id, 0)


def _short_cells(row: Measurement, number: int, runs: Sequence[RunRecord], header: ProfileHeader) -> list[str]:
    run = runs[number - 1] if number else None
    values = {field: getattr(row, field) for field in WIDE}
    cells = {field: cell_text(value) for field, value in values.items()}
    usual = {field: cell_text(of_row(values, run, header)) for field, of_row in USUAL.items()}
    follows = {"latency_us", "energy_uj"} if row.energy_source == POWER_X_TIME else {"latency_us"}
    empty = {field for field in USUAL if cells[field] == usual[field]} | follows
    cells["run_id"] = str(number) if number else ""
    return ["" if field in empty else cells[field] for field in WIDE]


def _csv(lines: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _order(row: Measurement) -> tuple[Any, ...]:
    return (
        row.op, row.kernel, row.stride, row.groups, row.in_shape, row.out_shape,
        row.weight_bits, row.stored_bits, row.activation_bits, row.logits,
    )  # fmt: skip
