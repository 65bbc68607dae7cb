"""Which rows of a table still hold: the code that was timed then is the code that would be timed now."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from hwsearch.emulation.isa import Isa
from hwsearch.hardware.header import RunRecord, read_header, read_runs
from hwsearch.hardware.profile import TABLE_FILE, Measurement, read_measurements
from hwsearch.kernels.catalogue import C_FOLDER, all_kernels, files_behind
from hwsearch.measuring.targets.target import Target

ENERGY_NOTE = "; energy: "
"""What separates a run's machine from where its energy came from."""


def source_sha256(isa: Isa) -> str:
    """One hash over every kernel source and header built for an instruction set, in hexadecimal; a table belongs to exactly one.

    >>> len(source_sha256(Isa.ARMV7E_M))
    64
    """
    digest = hashlib.sha256()
    for name in files_behind(isa):
        digest.update(f"{name}\0".encode() + (C_FOLDER / name).read_bytes() + b"\0")
    return digest.hexdigest()


def still_valid(folder: Path, target: Target, sources: str) -> tuple[Measurement, ...]:
    """Rows of a table that `target` would give again.

    The sources are those of the row's run, or the kernel built from them is the same byte for byte; compiler, flags and
    machine (with the cycle model and the flash, where it is emulated) are those of the run too.
    """
    if not (folder / TABLE_FILE).exists():
        return ()
    runs = {run.run_id: run for run in read_runs(folder)}
    now = {function.symbol: function for function in all_kernels()}
    built: dict[str, str] = {}

    def holds(row: Measurement) -> bool:
        run = runs.get(row.run_id)
        if run is None or not _same_place(run, target) or row.symbol not in now:
            return False
        if run.source_sha256 == sources:
            return True
        if row.symbol not in run.kernels:
            return False
        if row.symbol not in built:
            built[row.symbol] = target.digest(now[row.symbol]).hex()
        return run.kernels[row.symbol] == built[row.symbol]

    return tuple(row for row in read_measurements(folder, read_header(folder)) if holds(row))


def outdated(runs: Sequence[RunRecord], target: Target, sources: str) -> set[str]:
    """Runs none of whose rows may stay unless they are known to be still valid."""
    return {
        run.run_id
        for run in runs
        if run.source_sha256 != sources or not _same_build(run, target) or (target.is_model and not _same_place(run, target))
    }


def _same_build(run: RunRecord, target: Target) -> bool:
    return (run.compiler, run.flags) == (target.compiler.description, target.compiler.recorded_flags)


def _same_place(run: RunRecord, target: Target) -> bool:
    return _same_build(run, target) and run.machine.split(ENERGY_NOTE)[0] == target.describe()
