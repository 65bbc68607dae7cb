"""Fill a device's table: time every kernel at every shape of the grid on a target, and record how it was done."""

import hashlib
import multiprocessing
import os
import platform
import shutil
import subprocess
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from hwsearch.emulation.isa import Isa
from hwsearch.errors import ProfileError, ToolchainError
from hwsearch.graph.network import Network
from hwsearch.hardware.header import HEADER_FILE, ProfileHeader, RunRecord, read_header, read_runs
from hwsearch.hardware.profile import Measurement, RowKey, derive_again, find_profile, write_measurements
from hwsearch.integers.cases import random_case
from hwsearch.kernels.catalogue import C_FOLDER, kernel
from hwsearch.kernels.layout import packed_weight_bytes, scratch_bytes
from hwsearch.measuring.freshness import ENERGY_NOTE, outdated, source_sha256, still_valid
from hwsearch.measuring.grid import GRIDS, Work, network_grid
from hwsearch.measuring.power import EnergyTrace, Span, find_meter, whole_span, with_energy
from hwsearch.measuring.targets.emulator import EmulatorTarget
from hwsearch.measuring.targets.host import HostTarget
from hwsearch.measuring.targets.known_targets import open_target
from hwsearch.measuring.targets.target import Target, Timing
from hwsearch.progress import Progress, silent

_CHUNK_MACS = 2_000_000
"""Work that a process takes at a time; small enough that progress and balance are fine, large enough to reuse what it built."""


def measure(
    device: str,
    *,
    target: str | None = None,
    networks: Sequence[Network] = (),
    grid: Sequence[Work] | None = None,
    folder: Path | None = None,
    workers: int | None = None,
    meter: Path | None = None,
    again: bool = False,
    progress: Progress = silent,
) -> RunRecord:
    """Measure a device's table and write `ops.csv` and `runs.jsonl` into `folder/<profile>`.

    `device` is a profile's name or path; `host` is this computer's own (`host_x86_64`, say). `target` is `emulator`, `host` or
    `ssh:USER@HOST[:PORT]`, by default what the profile counts: cycles are emulated, nanoseconds taken here. The grid is the one
    that the profile names and all of `networks`, unless given. A profile found elsewhere has its header copied, so that a
    shipped table is never changed. Rows that the same compiler's same code gave on the same machine are kept and not measured
    again, unless `again` or a meter asks for it; rows of other code are dropped. A table of schema 1 comes out in today's. Energy
    is what `meter` recorded, a file that a user's meter writes meanwhile; without one what the processor counts, where it can be
    read; else active power times time.

    Raises:
        ProfileError: no such profile, its counter does not fit the target, or the meter did not watch.
        ToolchainError: a compiler or the emulator is missing, or the other computer cannot be reached.
    """
    started = time.monotonic()
    source, destination = _places(device, folder)
    header = read_header(source)
    _require_own_kernels(header, destination.name)
    shapes = tuple(grid) if grid is not None else (*GRIDS[header.library.grid](), *network_grid(networks))
    works = {work.key: work for work in shapes}
    with open_target(target or (HostTarget.name if header.counter.unit == "ns" else EmulatorTarget.name), header) as chosen:
        _require_unit(header, destination.name, chosen)
        derive_again(destination)
        sources = source_sha256(header.device.isa)
        kept = () if again or meter else still_valid(destination, chosen, sources)
        valid = [_with_scratch(row, works, header.device.isa) for row in kept]
        known = {row.key for row in valid}
        todo = tuple(work for key, work in works.items() if key not in known)
        sweep = _sweep(chosen, todo, workers, meter, progress)
        _require_unchanged(sources, header.device.isa)
        run = _run_record(device, chosen, sources, sweep, kept=len(works) - len(todo), started=started)
    _copy_header(source, destination)
    runs = read_runs(destination)
    if todo or not runs or (runs[-1].source_sha256, runs[-1].runtime) != (sources, run.runtime):
        rows = [_row(header, work, result, chosen, run.run_id) for work, result in zip(todo, sweep.timed, strict=True)]
        rows = with_energy(rows, [one.span for one in sweep.timed], sweep.trace) if sweep.trace is not None else rows
        return write_measurements(destination, [*valid, *rows], run, outdated(runs, chosen, sources))
    return run


def _require_own_kernels(header: ProfileHeader, name: str) -> None:
    if header.library.published:
        raise ProfileError(
            f"A profile to measure must be of kernels that can be built here, but {name} holds published numbers of "
            f"{header.library.kernel_library}; measure the board's own profile, such as {name.partition('.')[0]}."
        )


def _require_unit(header: ProfileHeader, name: str, chosen: Target) -> None:
    if chosen.unit != header.counter.unit:
        raise ProfileError(
            f"The table of {name} must count {header.counter.unit}, but the target {chosen.name} counts {chosen.unit}"
            "; choose the other target or correct [counter] in its profile.toml."
        )


def _require_unchanged(sources: str, isa: Isa) -> None:
    if source_sha256(isa) != sources:
        raise ToolchainError("The kernel sources must stay as they are while they are measured, but they changed; measure again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sweep:
    """What timing all rows gave, and the energy that was recorded meanwhile, if any."""

    timed: list["Timed"]
    trace: EnergyTrace | None


def _sweep(chosen: Target, works: Sequence[Work], workers: int | None, meter: Path | None, progress: Progress) -> _Sweep:
    if not works:
        return _Sweep(timed=[], trace=None)
    watching = find_meter(meter, on_this_computer=chosen.on_this_computer)
    if watching is not None:
        watching.start()
    timed = _time_all(chosen, works, workers, progress)
    trace = watching.stop() if watching is not None else None
    if meter is None and trace is not None and trace.mean_mw(whole_span([one.span for one in timed])) is None:
        trace = None  # too short for the processor's counters
    return _Sweep(timed=timed, trace=trace)


def _run_record(device: str, chosen: Target, sources: str, sweep: _Sweep, *, kept: int, started: float) -> RunRecord:
    now = datetime.now(UTC)
    return RunRecord(
        run_id=f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z-{sources[:8]}",
        utc_date=f"{now:%Y-%m-%dT%H:%M:%SZ}",
        command=f"hwsearch measure {device}",
        git_commit=_git_commit(),
        source_sha256=sources,
        binary_sha256=_binary_sha256(sweep.timed),
        compiler=chosen.compiler.description,
        flags=chosen.compiler.recorded_flags,
        machine=chosen.describe() + (f"{ENERGY_NOTE}{sweep.trace.source}" if sweep.trace is not None else ""),
        rows=len(sweep.timed),
        kept=kept,
        kernels={one.symbol: one.digest.hex() for one in sorted(sweep.timed, key=lambda one: one.symbol)},
        builtins={one.symbol: one.builtins for one in sorted(sweep.timed, key=lambda one: one.symbol)},
        runtime=chosen.runtime(),
        seconds=round(time.monotonic() - started, 1),
    )


def _copy_header(source: Path, destination: Path) -> None:
    if not (destination / HEADER_FILE).exists():
        destination.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / HEADER_FILE, destination / HEADER_FILE)


def _places(device: str, folder: Path | None) -> tuple[Path, Path]:
    """The folder a profile is read from, and the one its table is written to."""
    name = f"host_{platform.machine()}" if device == HostTarget.name else device
    found = find_profile(name, [folder] if folder else [])
    given_as_path = folder is None and Path(device).exists()
    return found, found if given_as_path else (folder or Path("hardware_profiles")) / found.resolve().name


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """What timing one row gave, what was built for it, and when it was timed."""

    timing: Timing
    symbol: str
    code_bytes: int
    digest: bytes
    builtins: dict[str, int]
    span: Span


def _time_all(target: Target, works: Sequence[Work], workers: int | None, progress: Progress) -> list[Timed]:
    """Time all rows, in as many processes as the target allows; the result is in the order of `works`."""
    chunks = _chunks(works)
    allowed = target.workers or os.cpu_count() or 1
    count = min(workers or allowed, allowed)
    results: dict[int, Timed] = {}
    for indices, timed in _run_chunks(target, works, chunks, count):
        results.update(zip(indices, timed, strict=True))
        progress(len(results), len(works))
    return [results[index] for index in range(len(works))]


def _run_chunks(
    target: Target, works: Sequence[Work], chunks: Sequence[list[int]], workers: int
) -> Iterator[tuple[list[int], list[Timed]]]:
    listed = [[works[index] for index in chunk] for chunk in chunks]
    if workers == 1:
        yield from zip(chunks, (_time_chunk(target, chunk) for chunk in listed), strict=True)
        return
    # Started afresh, since a fork would inherit this process's threads in an unknown state.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        pending = [pool.submit(_time_chunk, target, chunk) for chunk in listed]
        for chunk, future in zip(chunks, pending, strict=True):
            yield chunk, future.result()


def _chunks(works: Sequence[Work]) -> list[list[int]]:
    """Positions of rows that one process does in a row: they call one function, and together are a few million products."""
    order = sorted(range(len(works)), key=lambda i: (kernel(works[i].op, works[i].precision).symbol, i))
    chunks: list[list[int]] = []
    load, symbol = 0, ""
    for index in order:
        work = works[index]
        function = kernel(work.op, work.precision).symbol
        if function != symbol or load > _CHUNK_MACS:
            chunks.append([])
            load, symbol = 0, function
        chunks[-1].append(index)
        load += work.op.macs
    return chunks


def _time_chunk(target: Target, works: Sequence[Work]) -> list[Timed]:
    timed = []
    for work in works:
        function = kernel(work.op, work.precision)
        seed = zlib.crc32(str(work.key).encode())  # the same inputs for a row in whatever order and process
        case = random_case(work.op, work.precision, work.stored_bits, seed, logits=work.logits)
        code_bytes, digest = target.code_bytes(function), target.digest(function)  # built before the time that a meter sees
        begun = time.time()
        timing = target.time(case)
        timed.append(
            Timed(
                timing=timing,
                symbol=function.symbol,
                code_bytes=code_bytes,
                digest=digest,
                builtins=target.builtins(function),
                span=(begun, time.time()),
            )
        )
    return timed


def _row(header: ProfileHeader, work: Work, timed: Timed, target: Target, run_id: str) -> Measurement:
    timing = timed.timing
    return Measurement.of_counts(
        header,
        work.op,
        work.precision,
        stored_bits=work.stored_bits,
        logits=work.logits,
        count_median=timing.median,
        count_p05=timing.p05,
        count_p95=timing.p95,
        repeats=timing.repeats,
        provenance=target.provenance,
        code_bytes=timed.code_bytes,
        weight_bytes=packed_weight_bytes(work.op, work.stored_bits) if work.op.has_weights else 0,
        scratch_bytes=scratch_bytes(work.op, work.precision, header.device.isa),
        symbol=kernel(work.op, work.precision).symbol,
        run_id=run_id,
    )


def _with_scratch(row: Measurement, works: Mapping[RowKey, Work], isa: Isa) -> Measurement:
    """A row whose kernel is as it was, with the working memory that the layout gives its operation today."""
    work = works.get(row.key)
    return row if work is None else replace(row, scratch_bytes=scratch_bytes(work.op, work.precision, isa))


def _binary_sha256(timed: Sequence[Timed]) -> str:
    """One hash over all built kernels."""
    return hashlib.sha256(b"".join(sorted({one.digest for one in timed}))).hexdigest()


def _git_commit() -> str:
    """The commit of the sources; `none` where they are installed and not in a checkout."""
    if not shutil.which("git"):
        return "none"
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=C_FOLDER, capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else "none"
