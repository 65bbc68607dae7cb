"""Every target that can be named opens, and emulated ones give the shipped tables again."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hwsearch.errors import ProfileError
from hwsearch.graph.op import OpKind
from hwsearch.hardware.header import read_header, read_runs
from hwsearch.hardware.profile import HardwareProfile, load_profile
from hwsearch.measuring.grid import GRIDS, Work
from hwsearch.measuring.measure import measure
from hwsearch.measuring.targets.known_targets import TARGETS, open_target

PROFILES = Path(__file__).resolve().parents[3] / "hardware_profiles"
BOARD = read_header(PROFILES / "nucleo_l4r5zi")
EMULATED = sorted(
    folder.parent.name
    for folder in PROFILES.glob("*/profile.toml")
    if (header := read_header(folder.parent)).counter.unit == "cycles" and not header.library.published
)


def test_the_emulator_opens_as_the_profile_says() -> None:
    with open_target("emulator", BOARD) as target:
        assert (target.name, target.unit, target.is_model, target.on_this_computer) == ("emulator", "cycles", True, False)
        assert target.compiler.name == BOARD.library.compiler_name
        assert target.describe().split("; ")[1] == "Cortex-M4, TRM 100166 costs, refill 3, fetch alignment"


def test_this_computer_opens_as_the_profile_says() -> None:
    header = read_header(PROFILES / "host_x86_64")
    with open_target("host", header) as target:
        assert (target.name, target.unit, target.is_model, target.on_this_computer) == ("host", "ns", False, True)
        assert target.compiler.name == header.library.compiler_name


def test_another_computer_is_asked_for_its_address() -> None:
    with pytest.raises(ProfileError, match="must be given as ssh:USER@HOST"), open_target("ssh:me@", BOARD):
        pass


@pytest.mark.parametrize("name", ["board", "emulator:", "ssh", "ssh.me@there", ""])
def test_an_unknown_target_is_refused(name: str) -> None:
    assert [*TARGETS] == ["emulator", "host", "ssh:USER@HOST"]
    with pytest.raises(ProfileError, match=f"must be one of emulator, host, ssh:USER@HOST, but found '{name}'"):
        open_target(name, BOARD)


def few(works: tuple[Work, ...]) -> list[Work]:
    """Of each kind the smallest operation, at its narrowest, a middle and its widest precision."""
    found = []
    for kind in OpKind:
        own = sorted((work for work in works if work.op.kind is kind), key=lambda work: (work.op.macs, str(work.key)))
        same = [work for work in own if work.op == own[0].op]
        found += [same[index] for index in sorted({0, len(same) // 2, len(same) - 1})] if same else []
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", EMULATED)
def test_a_shipped_table_is_measured_again_row_for_row_and_built_byte_for_byte(
    name: str, shipped: Callable[[str], HardwareProfile], tmp_path: Path
) -> None:
    table = shipped(name)
    works = few(GRIDS[table.header.library.grid]())
    run = measure(name, grid=works, folder=tmp_path, workers=1)
    again = load_profile(tmp_path / name)
    rows = {row.key: row for row in table.measurements}
    recorded = {one.run_id: one for one in read_runs(PROFILES / name)}
    assert len(again.measurements) == len(works) > 12
    for row in again.measurements:
        before = rows[row.key]
        assert row == replace(before, run_id=row.run_id), row.key
        assert run.kernels[row.symbol] == recorded[before.run_id].kernels[row.symbol], row.symbol
