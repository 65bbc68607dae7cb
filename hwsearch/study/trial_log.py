"""The search's journal: `trials.jsonl`, one line per finished trial, from which a killed search continues.

The first line says what the search was; every further line is a trial or the measured sensitivities. A line counts once its
newline is on disk. Trials may stand out of order, since each is written the moment it is finished.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from hwsearch.errors import JobError
from hwsearch.hardware.cost import DEFAULT_OBJECTIVES
from hwsearch.results.front import FrontPoint, point_from_json, point_to_json

SCHEMA = 2
"""1, which is read too, did not name the objectives: they were accuracy and mean latency."""

Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """A finished trial: what was asked, what is told. `point` is None for a trial refused by its price, which costs nothing.

    `constraints` are shares over the budget's limits (0 or less is met); `values` those of the objectives, in their units.
    """

    number: int
    params: Params
    constraints: Mapping[str, float]
    values: tuple[float, ...]
    point: FrontPoint | None = None

    @property
    def is_feasible(self) -> bool:
        return self.point is not None and all(share <= 0 for share in self.constraints.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "trial": self.number, "params": dict(self.params), "constraints": dict(self.constraints),
            "values": list(self.values), "point": None if self.point is None else point_to_json(self.point),
        }  # fmt: skip

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        point = None if record["point"] is None else point_from_json(record["point"])
        return cls(
            number=record["trial"], params=record["params"], constraints=record["constraints"],
            values=tuple(record["values"]), point=point,
        )  # fmt: skip


@dataclass
class TrialLog:
    """The open journal; use it as a context. Only one process may have it open."""

    trials: dict[int, TrialRecord]
    sensitivities: dict[str, dict[str, float]]
    """By unit and precision; empty until they are measured."""
    _file: BinaryIO | None = field(repr=False, default=None)

    @classmethod
    def open(cls, path: str | Path | None, header: Mapping[str, Any], *, resume: bool) -> Self:
        """Open the journal of the search that `header` describes, continuing one that exists only with `resume`.

        The header names the `objectives`, of which each trial has a value. A torn last line is cut off. Without a path
        nothing is kept. Raises JobError if the journal is in use, damaged, or another search's.
        """
        if path is None:
            return cls(trials={}, sensitivities={})
        file = Path(path)
        handle = _locked(file)
        try:
            trials, sensitivities = _read(file, handle, {"schema": SCHEMA, **header}, resume=resume)
        except BaseException:
            handle.close()
            raise
        return cls(trials=trials, sensitivities=sensitivities, _file=handle)

    def add(self, record: TrialRecord) -> None:
        """Append a finished trial; on return it is on disk."""
        self._write(record.to_json())
        self.trials[record.number] = record

    def add_sensitivities(self, sensitivities: dict[str, dict[str, float]]) -> None:
        self._write({"sensitivities": sensitivities})
        self.sensitivities = sensitivities

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._file is not None:
            _append(self._file, record)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()


def _locked(path: Path) -> BinaryIO:
    """The file, created if absent, open to read and append, locked until it is closed or its process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = path.open("a+b")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        raise JobError(f"Only one search may write {path}, but another has it open; wait for it or stop it.") from None
    return handle


def _append(handle: BinaryIO, record: Mapping[str, Any]) -> None:
    handle.write(json.dumps(record, allow_nan=False).encode() + b"\n")
    handle.flush()
    os.fsync(handle.fileno())


def _read(
    path: Path, handle: BinaryIO, header: Mapping[str, Any], *, resume: bool
) -> tuple[dict[int, TrialRecord], dict[str, dict[str, float]]]:
    lines = _whole_lines(handle)
    if not lines:
        _append(handle, header)
        return {}, {}
    if not resume:
        raise JobError(f"A new search must have a new journal, but {path} exists; resume it or name another run folder.")
    records = [_parsed(path, number, line) for number, line in enumerate(lines, start=1)]
    began = _current(records[0])
    _require_same(path, began, json.loads(json.dumps(header)))
    trials: dict[int, TrialRecord] = {}
    sensitivities: dict[str, dict[str, float]] = {}
    for number, record in enumerate(records[1:], start=2):
        if "sensitivities" in record:
            sensitivities = record["sensitivities"]
            continue
        try:
            trial = TrialRecord.from_json(record)
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path, number, repr(error)) from error
        if len(trial.values) != len(began["objectives"]):
            raise _damaged(path, number, f"{len(trial.values)} values of {len(began['objectives'])} objectives")
        trials[trial.number] = trial
    return trials, sensitivities


def _current(header: dict[str, Any]) -> dict[str, Any]:
    """The first line as this schema writes it."""
    if header.get("schema") != 1:
        return header
    return {**header, "schema": SCHEMA, "objectives": list(DEFAULT_OBJECTIVES)}


def _whole_lines(handle: BinaryIO) -> list[bytes]:
    """All complete lines; bytes after the last newline, which a killed driver left, are cut off the file."""
    handle.seek(0)
    content = handle.read()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        handle.truncate(end)
    return content[:end].splitlines()


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise _damaged(path, number, str(error)) from error
    if not isinstance(record, dict):
        raise _damaged(path, number, "not an object")
    return record


def _damaged(path: Path, number: int, found: str) -> JobError:
    return JobError(f"Every line of {path} must be one a search wrote, but line {number} is not ({found}); restore or remove it.")


def _require_same(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name in sorted({*found, *wanted}):
        if found.get(name) != wanted.get(name):
            raise JobError(
                f"A resumed search must be the one that {path} began, but {name} is now {wanted.get(name)!r} and was "
                f"{found.get(name)!r}; undo the change or start in another run folder."
            )
