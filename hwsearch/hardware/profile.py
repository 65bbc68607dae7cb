"""Hardware profiles: a device described by hand (`profile.toml`) and a table measured by machine (`ops.csv`, `runs.jsonl`).

Reading checks everything that one part of a profile says about another: a latency must follow from its count and the clock, an
energy from latency and power, a measured row from a recorded run. A row that contradicts itself is refused with file and line.
"""

import csv
import functools
import io
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Any

from hwsearch.errors import ProfileError
from hwsearch.graph.menu import PolicyKind
from hwsearch.graph.op import Op, OpKind, Shape, parse_shape, shape_text
from hwsearch.graph.precision import Precision
from hwsearch.hardware.header import HEADER_FILE, RUNS_FILE, Device, ProfileHeader, RunRecord, Validity, read_header, read_runs
from hwsearch.hardware.published import PublishedNetwork, read_networks

__all__ = [
    "HardwareProfile", "Measurement", "ProfileHeader", "Provenance", "RowKey", "RunRecord",
    "find_profile", "list_profiles", "load_profile", "profile_folders", "read_header", "read_measurements", "read_runs",
    "write_measurements",
]  # fmt: skip

TABLE_FILE = "ops.csv"
POWER_X_TIME = "power_x_time"
"""Energy source of a row whose energy is latency times the device's active power: no second objective beside latency."""
RELATIVE_TOLERANCE = 1e-6
"""How far a derived column may be from its re-derivation; tables are written with twelve digits."""


class Provenance(StrEnum):
    """Where a number comes from."""

    MEASURED = "measured"
    """A clock on the device itself."""
    EMULATED = "emulated"
    """A documented cycle model on an instruction-set emulator."""
    CALIBRATED = "calibrated"
    """Derived from cited published numbers of whole networks: an emulation or a sum of loops fitted to them."""
    PUBLISHED = "published"
    DATASHEET = "datasheet"
    MODELLED = "modelled"
    """The code that ships, emulated, under a model of the core that was not held against one: right in kind, not in number."""

    @property
    def needs_run(self) -> bool:
        """Whether such a row must name a run that `runs.jsonl` records."""
        return self in (Provenance.MEASURED, Provenance.EMULATED, Provenance.CALIBRATED, Provenance.MODELLED)


@dataclass(frozen=True, slots=True)
class RowKey:
    """What identifies a row: an operation's kind and shapes, its precision, the width its weights are stored at, and whether it
    gives int32 logits instead of codes, which takes less."""

    op: OpKind
    in_shape: Shape
    out_shape: Shape
    kernel: tuple[int, int]
    stride: tuple[int, int]
    groups: int
    weight_bits: int
    stored_bits: int
    activation_bits: int
    logits: bool = False

    @classmethod
    def of(cls, op: Op, precision: Precision, stored_bits: int, logits: bool = False) -> "RowKey":
        """The row of `op` at `precision` with weights stored at `stored_bits` (0 without weights)."""
        return cls(
            op.kind, op.in_shape, op.out_shape, op.kernel, op.stride, op.groups,
            precision.weight_bits, stored_bits, precision.activation_bits, logits,
        )  # fmt: skip

    @property
    def precision(self) -> Precision:
        return Precision(self.weight_bits, self.activation_bits)

    def __str__(self) -> str:
        stored = f" stored at {self.stored_bits} bits" if self.stored_bits else ""
        shapes = f"{shape_text(self.in_shape)} -> {shape_text(self.out_shape)}"
        gives = " giving logits" if self.logits else ""
        return f"{self.op} {self.kernel[0]}x{self.kernel[1]} {shapes} {self.precision}{stored}{gives}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One row of `ops.csv`: fields are its columns, in order.

    `stored_bits` and `weight_bits` are 0 without weights; `logits` is 1 where int32 logits were made instead of
    codes. Counts are in the unit of `[counter]`: median and 5th and 95th percentile over `repeats`, or, in a row that no clock
    or emulator gave, a value and the interval it lies in. `code_bytes` is the machine code of `symbol`, `weight_bytes` the
    packed weights, `scratch_bytes` the kernel's working memory.
    """

    op: OpKind
    in_shape: Shape
    out_shape: Shape
    kernel: tuple[int, int]
    stride: tuple[int, int]
    groups: int
    weight_bits: int
    stored_bits: int
    activation_bits: int
    logits: bool
    count_median: float
    count_p05: float
    count_p95: float
    repeats: int
    latency_us: float
    energy_uj: float
    energy_source: str
    provenance: Provenance
    code_bytes: int
    weight_bytes: int
    scratch_bytes: int
    symbol: str
    run_id: str

    @property
    def key(self) -> RowKey:
        return RowKey(
            self.op, self.in_shape, self.out_shape, self.kernel, self.stride, self.groups,
            self.weight_bits, self.stored_bits, self.activation_bits, self.logits,
        )  # fmt: skip

    @property
    def precision(self) -> Precision:
        return Precision(self.weight_bits, self.activation_bits)

    def relative_error(self, device_error: float) -> float:
        """What the row's latency may be off by, given the error of the whole table.

        Scatter of repeated runs comes on top of that error; a derived row's interval says all that is known of the row.
        """
        spread = (self.count_p95 - self.count_p05) / (2 * self.count_median) if self.count_median else 0.0
        timed = self.provenance in (Provenance.MEASURED, Provenance.EMULATED)
        return device_error + spread if timed else max(device_error, spread)

    @classmethod
    def of_counts(
        cls,
        header: ProfileHeader,
        op: Op,
        precision: Precision,
        *,
        stored_bits: int,
        count_median: float,
        count_p05: float,
        count_p95: float,
        repeats: int,
        provenance: Provenance,
        code_bytes: int,
        weight_bytes: int,
        scratch_bytes: int,
        symbol: str,
        run_id: str,
        logits: bool = False,
    ) -> "Measurement":
        """A row from counts: latency follows from the clock, energy from the active power."""
        latency_us = header.latency_us(count_median)
        return cls(
            op=op.kind, in_shape=op.in_shape, out_shape=op.out_shape, kernel=op.kernel, stride=op.stride, groups=op.groups,
            weight_bits=precision.weight_bits, stored_bits=stored_bits, activation_bits=precision.activation_bits, logits=logits,
            count_median=count_median, count_p05=count_p05, count_p95=count_p95, repeats=repeats,
            latency_us=latency_us, energy_uj=header.energy_uj(latency_us), energy_source=POWER_X_TIME,
            provenance=provenance, code_bytes=code_bytes, weight_bytes=weight_bytes, scratch_bytes=scratch_bytes,
            symbol=symbol, run_id=run_id,
        )  # fmt: skip


COLUMNS = tuple(field.name for field in fields(Measurement))
OPTIONAL = {
    "logits": "0", "repeats": "1", "latency_us": "nan", "energy_uj": "nan", "energy_source": POWER_X_TIME, "run_id": "",
}  # fmt: skip
"""Columns that a table may leave out, and what then stands in each of its rows; latency and energy follow from the counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareProfile:
    """A device and its table. `name` is the folder's name, by which the profile is found."""

    name: str
    header: ProfileHeader
    measurements: tuple[Measurement, ...]
    runs: tuple[RunRecord, ...] = ()
    networks: tuple[PublishedNetwork, ...] = ()

    @property
    def device(self) -> Device:
        return self.header.device

    @property
    def validity(self) -> Validity:
        return self.header.validity

    @property
    def energy_is_time(self) -> bool:
        """Whether every energy of the table is its latency times one power."""
        return all(row.energy_source == POWER_X_TIME for row in self.measurements)

    def builtins(self) -> dict[tuple[str, str], dict[str, int]]:
        """Bytes in flash of what a kernel needs of the compiler's own library, by run and kernel, then by function."""
        return {(run.run_id, symbol): parts for run in self.runs for symbol, parts in run.builtins.items()}

    def runtime_of(self, kind: PolicyKind) -> dict[str, int]:
        """Bytes in flash by part of what a policy's package has besides kernels and data: recorded, else as the header says."""
        recorded = [run.runtime[kind] for run in self.runs if kind in run.runtime]
        return recorded[-1] if recorded else {"runtime": self.header.library.runtime_bytes}

    def shares(self) -> dict[str, float]:
        """Share of rows of each provenance."""
        counts: dict[str, float] = {}
        for row in self.measurements:
            counts[str(row.provenance)] = counts.get(str(row.provenance), 0.0) + 1.0
        return {kind: count / len(self.measurements) for kind, count in sorted(counts.items())}


def profile_folders(folders: Iterable[str | Path] = ()) -> tuple[Path, ...]:
    """Folders in which profiles are looked for, first match wins: given, `HWSEARCH_PROFILES`, here, shipped."""
    listed = os.environ.get("HWSEARCH_PROFILES", "")
    candidates = [Path(folder) for folder in folders]
    candidates += [Path(folder) for folder in listed.split(os.pathsep) if folder]
    candidates.append(Path("hardware_profiles"))
    candidates.append(Path(str(resources.files("hwsearch"))) / "_data" / "hardware_profiles")
    candidates.append(Path(__file__).resolve().parents[2] / "hardware_profiles")
    return tuple(candidates)


def list_profiles(folders: Iterable[str | Path] = ()) -> dict[str, Path]:
    """Folder of every profile that can be found, by name, sorted."""
    found: dict[str, Path] = {}
    for folder in profile_folders(folders):
        for header in sorted(folder.glob(f"*/{HEADER_FILE}")):
            found.setdefault(header.parent.name, header.parent)
    return dict(sorted(found.items()))


def find_profile(name_or_path: str | Path, folders: Iterable[str | Path] = ()) -> Path:
    """Folder of a profile given by name or by path (its folder or its `profile.toml`)."""
    path = Path(name_or_path)
    if path.name == HEADER_FILE and path.is_file():
        return path.parent
    if (path / HEADER_FILE).is_file():
        return path
    known = list_profiles(folders)
    if str(name_or_path) in known:
        return known[str(name_or_path)]
    raise ProfileError(
        f"A profile must be a known name or a folder with a {HEADER_FILE}, but found {str(name_or_path)!r}; "
        f"known are {', '.join(known) or 'none'}; choose one or give the folder that holds yours with --profiles."
    )


def load_profile(name_or_path: str | Path, folders: Iterable[str | Path] = ()) -> HardwareProfile:
    """Read and check a whole profile."""
    folder = find_profile(name_or_path, folders)
    header = read_header(folder)
    runs = read_runs(folder)
    rows = read_measurements(folder, header)
    _check_runs(folder, rows, runs)
    return HardwareProfile(
        name=folder.resolve().name, header=header, measurements=rows, runs=runs, networks=read_networks(folder)
    )


def read_measurements(folder: Path, header: ProfileHeader, *, derive: bool = False) -> tuple[Measurement, ...]:
    """Read `ops.csv`. Derived columns must be what follows from the raw ones; with `derive` they are made so."""
    path = folder / TABLE_FILE
    if not path.exists():
        raise ProfileError(f"Profile {folder.name} must have a table {path}, but there is none; run `{_measuring(folder)}`.")
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        columns = next(lines, [])
        derive = derive or not {"latency_us", "energy_uj"} <= {*columns}
        left_out = [column for column in OPTIONAL if column not in columns]
        if columns != [column for column in COLUMNS if column not in left_out]:
            wrong = sorted((set(COLUMNS) ^ set(columns)) - set(left_out)) or ["their order"]
            raise ProfileError(
                f"{path}:1: the columns must be {','.join(COLUMNS)}, but they differ in {', '.join(wrong)}; "
                "correct the first line."
            )
        rows: dict[RowKey, Measurement] = {}
        for number, cells in enumerate(lines, start=2):
            row = _parse_row(columns, cells, f"{path}:{number}")
            if derive:
                latency_us, energy_uj = _derived(row, header)
                row = replace(row, latency_us=latency_us, energy_uj=energy_uj)
            _check_row(row, header, f"{path}:{number}")
            if row.key in rows:
                raise ProfileError(f"{path}:{number}: each row must stand once, but {row.key} stands twice; remove one.")
            rows[row.key] = row
    return tuple(rows.values())


@functools.cache
def _shape(text: str) -> Shape:
    return parse_shape(text)


@functools.cache
def _pair(text: str) -> tuple[int, int]:
    rows, columns = text.split("x")
    return int(rows), int(columns)


_PARSERS: dict[str, Any] = {
    "op": OpKind, "in_shape": _shape, "out_shape": _shape, "kernel": _pair, "stride": _pair, "groups": int,
    "weight_bits": int, "stored_bits": int, "activation_bits": int, "logits": lambda text: bool(int(text)),
    "count_median": float, "count_p05": float, "count_p95": float, "repeats": int,
    "latency_us": float, "energy_uj": float, "energy_source": str, "provenance": Provenance,
    "code_bytes": int, "weight_bytes": int, "scratch_bytes": int, "symbol": str, "run_id": str,
}  # fmt: skip


def _parse_row(columns: Sequence[str], cells: Sequence[str], where: str) -> Measurement:
    if len(cells) != len(columns):
        raise ProfileError(f"{where}: a row must have {len(columns)} cells, but has {len(cells)}; correct or remove it.")
    values: dict[str, Any] = {}
    for column, text in {**OPTIONAL, **dict(zip(columns, cells, strict=True))}.items():
        try:
            values[column] = _PARSERS[column](text)
        except ValueError as error:
            raise ProfileError(
                f"{where}: {column} must be a plain value in the unit of its name, but found {text!r}; correct it."
            ) from error
    return Measurement(**values)


def _check_row(row: Measurement, header: ProfileHeader, where: str) -> None:
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
    rule = "count_median / 1000" if header.counter.unit == "ns" else "count_median / clock_hz"
    latency_us, energy_uj = _derived(row, header)
    _check_derived("latency_us", row, latency_us, rule, where)
    _check_derived("energy_uj", row, energy_uj, "latency_us * active_mw / 1000", where)


def _derived(row: Measurement, header: ProfileHeader) -> tuple[float, float]:
    """Latency in us and energy in uJ that follow from the row's count; energy that was measured follows from nothing."""
    latency_us = header.latency_us(row.count_median)
    return latency_us, header.energy_uj(latency_us) if row.energy_source == POWER_X_TIME else row.energy_uj


def _check_derived(column: str, row: Measurement, expected: float, rule: str, where: str) -> None:
    found: float = getattr(row, column)
    if abs(found - expected) <= RELATIVE_TOLERANCE * max(expected, 1e-9):
        return
    factor = round(expected / found, 6) if found else 0.0
    hint = f" (a factor of {factor:g}: another unit?)" if factor in (1000.0, 0.001, 1e6, 1e-6) else ""
    remedy = "correct the row or measure it again"
    if row.provenance in (Provenance.MEASURED, Provenance.EMULATED):
        remedy = (
            f"if profile.toml has another clock or power now, `{_measuring(Path(where).parent)}` derives the table again "
            "without repeating what still holds; else correct the row"
        )
    raise ProfileError(f"{where}: {column} must be {rule} = {expected:.6g}, but is {found:.6g}{hint}; {remedy}.")


def derive_again(folder: Path) -> None:
    """Write a table with latency and energy as they follow from its counts under today's `profile.toml`."""
    if not (folder / TABLE_FILE).exists():
        return
    header = read_header(folder)
    try:
        read_measurements(folder, header)
    except ProfileError:
        _write_table(folder, read_measurements(folder, header, derive=True))


def _measuring(folder: Path) -> str:
    """The command that measures a profile: by its name where that finds it."""
    known = list_profiles().get(folder.name)
    is_known = known is not None and known.resolve() == folder.resolve()
    return f"hwsearch measure {folder.name if is_known else folder}"


def _check_runs(folder: Path, rows: Iterable[Measurement], runs: Iterable[RunRecord]) -> None:
    known = {run.run_id for run in runs}
    for number, row in enumerate(rows, start=2):
        if row.provenance.needs_run and row.run_id not in known:
            raise ProfileError(
                f"{folder / TABLE_FILE}:{number}: a row that is {row.provenance} must name a run recorded in {RUNS_FILE}, "
                f"but names {row.run_id!r}; run `{_measuring(folder)}` or correct run_id."
            )


def write_measurements(folder: Path, rows: Iterable[Measurement], run: RunRecord, stale: Collection[str] = ()) -> None:
    """Merge rows into `ops.csv` (new ones replace those of the same key), sorted, and append the run to `runs.jsonl`.

    Rows of the runs in `stale` are dropped, as when the kernels have changed since.
    Both files are replaced atomically, the run first, so that no row ever names an unrecorded run.
    """
    merged: dict[RowKey, Measurement] = {}
    if (folder / TABLE_FILE).exists():
        known = read_measurements(folder, read_header(folder))
        merged = {row.key: row for row in known if row.run_id not in stale}
    merged |= {row.key: row for row in rows}
    earlier = [record.model_dump_json() for record in read_runs(folder) if record.run_id != run.run_id]
    _replace(folder / RUNS_FILE, "".join(line + "\n" for line in [*earlier, run.model_dump_json()]))
    _write_table(folder, merged.values())


def _write_table(folder: Path, rows: Iterable[Measurement]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_cells(row) for row in sorted(rows, key=_order))
    _replace(folder / TABLE_FILE, text.getvalue())


def _order(row: Measurement) -> tuple[Any, ...]:
    return (
        row.op, row.kernel, row.stride, row.groups, row.in_shape, row.out_shape,
        row.weight_bits, row.stored_bits, row.activation_bits, row.logits,
    )  # fmt: skip


def _cells(row: Measurement) -> list[str]:
    return [_cell(getattr(row, column)) for column in COLUMNS]


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return format(value, ".12g")
    if isinstance(value, tuple):
        return shape_text(value) if len(value) != 2 else f"{value[0]}x{value[1]}"
    return str(value)


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
