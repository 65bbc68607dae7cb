"""Hardware profiles: a device described by hand (`profile.toml`) and a table measured by machine (`ops.csv`, `runs.jsonl`).

Reading checks everything that one part of a profile says about another: a latency that is stated must follow from its count and
the clock, an energy from latency and power, a measured row from a recorded run. A row that contradicts itself is refused with
file and line.
"""

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from hwsearch.errors import ProfileError
from hwsearch.files import data_folders, find_named, write_whole
from hwsearch.graph.menu import PolicyKind
from hwsearch.hardware.header import (
    HEADER_FILE,
    RUNS_FILE,
    Device,
    ProfileHeader,
    Provenance,
    RunRecord,
    Validity,
    read_header,
    read_runs,
)
from hwsearch.hardware.measurement import POWER_X_TIME, Measurement, RowKey
from hwsearch.hardware.published import PublishedNetwork, read_networks
from hwsearch.hardware.table import SCHEMA, TABLE_FILE, read_table, table_schema, table_text, wide_text, with_shared

__all__ = [
    "POWER_X_TIME", "TABLE_FILE", "HardwareProfile", "Measurement", "ProfileHeader", "Provenance", "RowKey", "RunRecord",
    "derive_again", "find_profile", "list_profiles", "load_profile", "profile_folders", "read_header", "read_measurements",
    "read_runs", "wide_text", "write_measurements",
]  # fmt: skip


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
    listed = os.environ.get("HWSEARCH_PROFILES", "").split(os.pathsep)
    return data_folders("hardware_profiles", map(Path, (*folders, *filter(None, listed))))


def list_profiles(folders: Iterable[str | Path] = ()) -> dict[str, Path]:
    """Folder of every profile that can be found, by name, sorted."""
    return {name: path.parent for name, path in find_named(profile_folders(folders), f"*/{HEADER_FILE}").items()}


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
    header, runs = read_header(folder), read_runs(folder)
    rows = _read_table(folder, header, runs)
    _check_runs(folder, rows, runs)
    return HardwareProfile(
        name=folder.resolve().name, header=header, measurements=rows, runs=runs, networks=read_networks(folder)
    )


def read_measurements(folder: Path, header: ProfileHeader) -> tuple[Measurement, ...]:
    """Read `ops.csv` in whichever schema it is."""
    return _read_table(folder, header, read_runs(folder))


def _read_table(folder: Path, header: ProfileHeader, runs: tuple[RunRecord, ...]) -> tuple[Measurement, ...]:
    path = folder / TABLE_FILE
    if not path.exists():
        raise ProfileError(f"Profile {folder.name} must have a table {path}, but there is none; run `{_measuring(folder)}`.")
    return read_table(folder, header, runs)


def derive_again(folder: Path) -> None:
    """Write a table of schema 1 in today's, where latency and energy are not stated but follow from today's `profile.toml`.

    So is one of schema 2 that states them all the same, if they do not follow any more.
    """
    if not (folder / TABLE_FILE).exists():
        return
    header, runs = read_header(folder), read_runs(folder)
    try:
        read_table(folder, header, runs)
        stands = table_schema(folder) == SCHEMA
    except ProfileError:
        stands = False
    if not stands:
        _write(folder, read_table(folder, header, runs, derive=True), runs, header)


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


def write_measurements(folder: Path, rows: Iterable[Measurement], run: RunRecord, stale: Collection[str] = ()) -> RunRecord:
    """Merge rows into `ops.csv` (new ones replace those of the same key), sorted, and append the run to `runs.jsonl`.

    Rows of the runs in `stale` are dropped, as when the kernels have changed since. The record that is returned is the run's as
    it was written: with what all of its rows share.
    """
    header, runs = read_header(folder), read_runs(folder)
    merged: dict[RowKey, Measurement] = {}
    if (folder / TABLE_FILE).exists():
        merged = {row.key: row for row in read_table(folder, header, runs) if row.run_id not in stale}
    merged |= {row.key: row for row in rows}
    known = {record.run_id for record in runs}
    again = tuple(run if record.run_id == run.run_id else record for record in runs)  # a row names its run by its line
    written = _write(folder, merged.values(), again if run.run_id in known else (*runs, run), header)
    return next(record for record in written if record.run_id == run.run_id)


def _write(
    folder: Path, rows: Collection[Measurement], runs: tuple[RunRecord, ...], header: ProfileHeader
) -> tuple[RunRecord, ...]:
    """Both files are replaced atomically, the runs first, so that no row ever names an unrecorded run."""
    recorded = with_shared(runs, rows)
    text = table_text(rows, recorded, header)
    write_whole(folder / RUNS_FILE, "".join(run.model_dump_json(exclude_unset=True) + "\n" for run in recorded))
    write_whole(folder / TABLE_FILE, text)
    return recorded
