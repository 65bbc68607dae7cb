"""What calling one operation costs in an exported program, beside the operation as it was measured: `dispatch_count`.

A row is measured by calling one kernel from cold caches. In a program the loop over operations calls it, arguments come from
flash, and caches hold what ran before. For each board the reference networks, whose rows are exact, run whole at uniform widths:
what they take beyond the sum of their rows, per operation, is printed, and the largest of it, rounded up to ten, is what
`[library] dispatch_count` in profile.toml should say, so that no price falls below its program. Where it is more than a few
hundred cycles it is not the call: kernels then take longer with some constants than with those of their rows (on a Cortex-M0+
long products have a short way), and no number is proposed. A table must be of today's kernels. `python tools/dispatch.py
[BOARD…]` prints a table, `--json` rows instead, `--write` puts the values into the profile.toml files.
"""

import argparse
import json
import math
import multiprocessing
import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from hwsearch.errors import HwsearchError
from hwsearch.hardware.profile import HardwareProfile, Provenance, find_profile, list_profiles, load_profile
from hwsearch.pricing.cost_model import CostModel

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from cost_model import SPACES, UNIFORM, RandomNetwork, Subject, static_menu

ROUND_TO = 10
LARGEST_CALL = 500
"""Cycles; what goes beyond is no cost of calling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Cycles per operation beyond the rows of one network at one uniform width, and what the profile says now."""

    board: str
    network: str
    assignment: str
    ops: int
    beyond_rows: float
    stated: float


def emulated_boards() -> list[str]:
    return [name for name, folder in list_profiles().items() if _is_emulated(folder)]


def _is_emulated(folder: Path) -> bool:
    try:
        profile = load_profile(folder)
    except HwsearchError:
        return False
    return profile.measurements[0].provenance is Provenance.EMULATED and not profile.header.library.published


def measure(board: str, network_name: str) -> list[Row]:
    torch.set_num_threads(1)
    profile, network = load_profile(board), RandomNetwork.make(Subject(name=network_name, unseen=False))
    return [_row(profile, network, str(precision)) for precision in UNIFORM]


def _row(profile: HardwareProfile, network: RandomNetwork, width: str) -> Row:
    assignment = network.space.uniform(next(precision for precision in UNIFORM if str(precision) == width))
    cycles, _ = network.emulate(assignment, profile)
    prices = CostModel(network.space.network, profile).inferences(static_menu(assignment))[0]
    if any(price.interpolated for price in prices):
        raise HwsearchError(f"The table of {profile.name} must hold {network.name}, but lacks rows; measure it again.")
    stated = profile.header.library.dispatch_count
    rows = sum(price.latency_us for price in prices) * profile.device.clock_hz / 1e6 - stated * len(prices)
    beyond = (cycles - rows) / len(prices)
    return Row(
        board=profile.name, network=network.name, assignment=width, ops=len(prices), beyond_rows=round(beyond, 1), stated=stated
    )


def proposed(rows: list[Row]) -> dict[str, int | None]:
    """The largest of each board, rounded up; None where that is no cost of calling."""
    largest: dict[str, float] = {}
    for row in rows:
        largest[row.board] = max(row.beyond_rows, largest.get(row.board, 0.0))
    return {
        board: math.ceil(cycles / ROUND_TO) * ROUND_TO if cycles <= LARGEST_CALL else None for board, cycles in largest.items()
    }


def table(rows: list[Row]) -> str:
    counts = proposed(rows)
    lines = [
        "| board | cycles per operation beyond its rows: least, mean, most | stated | to state |",
        "| --- | --- | --- | --- |",
    ]
    for board, count in counts.items():
        own = [row for row in rows if row.board == board]
        found = [row.beyond_rows for row in own]
        spread = f"{min(found):.0f}, {sum(found) / len(found):.0f}, {max(found):.0f}"
        lines.append(f"| {board} | {spread} | {own[0].stated:g} | {'no cost of calling' if count is None else count} |")
    return "\n".join(lines)


def write(counts: dict[str, int | None], places: dict[str, Path]) -> None:
    """Put the values into the profile.toml files, which keep everything else."""
    known = {board: count for board, count in counts.items() if count is not None}
    for board, count in known.items():
        path = places[board] / "profile.toml"
        text = path.read_text(encoding="utf-8")
        changed, found = re.subn(r"(?m)^dispatch_count *=.*$", f"dispatch_count = {count}", text)
        if not found:
            changed = re.sub(r"(?m)^\[library\]$", f"[library]\ndispatch_count = {count}", text)
        path.write_text(changed, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("boards", nargs="*", metavar="BOARD", help="profiles by name or path; all emulated ones by default")
    parser.add_argument("--network", choices=SPACES, action="append")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    boards, networks = options.boards or emulated_boards(), options.network or list(SPACES)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        pending = [pool.submit(measure, board, network) for board in boards for network in networks]
        rows = [row for future in pending for row in future.result()]
    print(json.dumps([asdict(row) for row in rows], indent=2) if options.json else table(rows))
    if options.write:
        write(proposed(rows), {load_profile(board).name: find_profile(board) for board in boards})


if __name__ == "__main__":
    main()
