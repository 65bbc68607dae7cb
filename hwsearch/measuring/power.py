"""Energy of measured rows: from the processor's own counters (RAPL) or from a user's meter, both as power over time.

A meter sees the whole package or board, idle power and everything else that runs included. Calls are far shorter than a meter's
samples; a row gets the mean power of the stretch of time in which it was repeated, if enough samples lie in it, else the mean
over all rows. The source of each row's energy says which.
"""

import csv
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import ProfileError
from hwsearch.hardware.profile import Measurement

POWERCAP = Path("/sys/class/powercap")
TIME_COLUMN = "time_s"
POWER_COLUMNS = {"power_w": 1.0, "power_mw": 1e-3}
"""Columns that a meter's file may have, and watts per unit."""
LEAST_SAMPLES = 3
"""Fewer samples in a stretch of time say nothing about its power."""
_RAPL_PERIOD_S = 0.02

Span = tuple[float, float]
"""Begin and end of a stretch of time, in seconds since 1970 (`time.time`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyTrace:
    """Energy used until each of some increasing moments. `source` is the energy source that rows name."""

    times_s: NDArray[np.float64]
    joules: NDArray[np.float64]
    source: str

    @classmethod
    def of_power(cls, times_s: NDArray[np.float64], watts: NDArray[np.float64], source: str) -> "EnergyTrace":
        """From power samples, between which power changes evenly."""
        steps = np.diff(times_s) * (watts[1:] + watts[:-1]) / 2
        return cls(times_s=times_s, joules=np.concatenate([[0.0], np.cumsum(steps)]), source=source)

    def mean_mw(self, span: Span) -> float | None:
        """Mean power of a stretch of time; None if the trace does not cover it or has too few samples in it."""
        begin, end = span
        inside = int(np.searchsorted(self.times_s, end, "right") - np.searchsorted(self.times_s, begin, "left"))
        if begin < self.times_s[0] or end > self.times_s[-1] or inside < LEAST_SAMPLES:
            return None
        used = float(np.interp(end, self.times_s, self.joules) - np.interp(begin, self.times_s, self.joules))
        return 1e3 * used / (end - begin)


class Meter(Protocol):
    """Something that records while rows are timed."""

    def start(self) -> None:
        """Begin to record; raises ProfileError if the meter cannot be read."""

    def stop(self) -> EnergyTrace:
        """What was recorded since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterFile:
    """A file that a user's meter writes: CSV with `time_s` (seconds since 1970) and `power_w` or `power_mw`, oldest first."""

    path: Path

    def start(self) -> None:
        """Check that the file is there with its columns, before anything is measured; samples may follow later."""
        _columns(self.path)

    def stop(self) -> EnergyTrace:
        return read_meter(self.path)


def _columns(path: Path) -> tuple[str, float]:
    """The power column of a meter's file and its watts per unit."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            columns = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"A meter's file must be readable CSV, but {path} is not ({error}); start the meter first.") from None
    power = [name for name in columns if name in POWER_COLUMNS]
    if TIME_COLUMN not in columns or len(power) != 1:
        raise ProfileError(
            f"{path}:1: a meter's file must have the columns {TIME_COLUMN} and one of {', '.join(POWER_COLUMNS)}, but has "
            f"{', '.join(columns) or 'none'}; name them so."
        )
    return power[0], POWER_COLUMNS[power[0]]


def read_meter(path: Path) -> EnergyTrace:
    """Read a meter's file; raises ProfileError with the line of what is wrong. A last line still being written is left out."""
    column, watts_per_unit = _columns(path)
    text = path.read_text(encoding="utf-8")
    lines = text[: text.rfind("\n") + 1].splitlines()
    samples = []
    for number, cells in enumerate(csv.DictReader(lines), start=2):
        try:
            sample = float(cells[TIME_COLUMN]), float(cells[column]) * watts_per_unit
        except (TypeError, ValueError):
            raise ProfileError(f"{path}:{number}: {TIME_COLUMN} and {column} must be numbers; remove the line.") from None
        if not (np.isfinite(sample).all() and sample[1] >= 0):
            raise ProfileError(f"{path}:{number}: power must be 0 or more, but found {sample[1]:g} W; correct the line.")
        samples.append(sample)
    _check_order(path, [moment for moment, _ in samples])
    values = np.array(samples)
    return EnergyTrace.of_power(values[:, 0], values[:, 1], "meter")


def _check_order(path: Path, moments: Sequence[float]) -> None:
    if len(moments) < LEAST_SAMPLES:
        raise ProfileError(f"{path} must hold at least {LEAST_SAMPLES} samples, but has {len(moments)}; let the meter run on.")
    for number, (earlier, later) in enumerate(pairwise(moments), start=3):
        if later <= earlier:
            raise ProfileError(f"{path}:{number}: times must increase, but {later:.6f} follows {earlier:.6f}; sort the file.")


class RaplMeter:
    """The energy counters of all processor packages, sampled by a thread (`power/powercap` of the Linux kernel)."""

    def __init__(self, domains: Sequence[Path], period_s: float = _RAPL_PERIOD_S) -> None:
        self._domains = tuple(domains)
        self._period_s = period_s
        self._ranges = [_counter(domain / "max_energy_range_uj") for domain in self._domains]
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._samples: list[tuple[float, tuple[int, ...]]] = []

    @classmethod
    def found(cls, folder: Path = POWERCAP) -> "RaplMeter | None":
        """A meter over the packages whose counters can be read; None if there are none (often only root may)."""
        domains = []
        for domain in sorted(folder.glob("*:*")):
            try:
                if (domain / "name").read_text(encoding="ascii").startswith("package"):
                    _counter(domain / "energy_uj")
                    _counter(domain / "max_energy_range_uj")
                    domains.append(domain)
            except (OSError, ValueError):
                continue
        return cls(domains) if domains else None

    def start(self) -> None:
        self._samples, self._thread = [], threading.Thread(target=self._record, daemon=True)
        self._ended.clear()
        self._sample()
        self._thread.start()

    def _record(self) -> None:
        while not self._ended.wait(self._period_s):
            self._sample()

    def _sample(self) -> None:
        self._samples.append((time.time(), tuple(_counter(domain / "energy_uj") for domain in self._domains)))

    def stop(self) -> EnergyTrace:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._sample()
        return trace_of_counters(self._samples, self._ranges)


def _counter(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))


def trace_of_counters(samples: Iterable[tuple[float, tuple[int, ...]]], ranges: Sequence[int]) -> EnergyTrace:
    """From counters in microjoules, one per package, each of which starts again at 0 after its range."""
    listed = list(samples)
    counts = np.array([values for _, values in listed], dtype=np.int64)  # [samples, packages]
    steps = np.diff(counts, axis=0)
    steps = np.where(steps < 0, steps + np.array(ranges, dtype=np.int64), steps).sum(axis=1)
    joules = np.concatenate([[0.0], np.cumsum(steps) / 1e6])
    return EnergyTrace(times_s=np.array([moment for moment, _ in listed]), joules=joules, source="rapl")


def find_meter(file: Path | None, *, on_this_computer: bool, powercap: Path = POWERCAP) -> Meter | None:
    """The user's meter if given, else RAPL where the kernels run on this computer and it can be read; None without either."""
    if file is not None and not on_this_computer:
        raise ProfileError(
            "A meter must watch the device while it runs, but the target emulator runs on none; leave --meter out or "
            "measure with --target host."
        )
    if file is not None:
        return MeterFile(path=file)
    return RaplMeter.found(powercap) if on_this_computer else None


def whole_span(spans: Sequence[Span]) -> Span:
    """From the first beginning to the last end."""
    return min(begin for begin, _ in spans), max(end for _, end in spans)


def with_energy(rows: Sequence[Measurement], spans: Sequence[Span], trace: EnergyTrace) -> list[Measurement]:
    """Rows with the energy that was measured while each was repeated.

    Raises ProfileError if the trace has no power for the time of the run.
    """
    own = [trace.mean_mw(span) for span in spans]
    begin, end = whole_span(spans)
    whole = trace.mean_mw((begin, end))
    if whole is None:
        raise ProfileError(
            f"The meter must have at least {LEAST_SAMPLES} samples from {begin:.3f} to {end:.3f} s (since 1970), when rows were "
            f"timed, but its {len(trace.times_s)} samples lie from {trace.times_s[0]:.3f} to {trace.times_s[-1]:.3f} s; "
            "let it run before, during and after, by this computer's clock."
        )
    sources = [trace.source if power is not None else f"{trace.source}_mean" for power in own]
    return [
        replace(row, energy_uj=row.latency_us * (whole if power is None else power) / 1e3, energy_source=source)
        for row, power, source in zip(rows, own, sources, strict=True)
    ]
