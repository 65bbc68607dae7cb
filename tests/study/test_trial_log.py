"""The journal: what is written is read back, a torn line is cut off, another search's journal is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from hwsearch.errors import JobError
from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind, PolicyShape
from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.hardware.cost import Cost, PolicyCost
from hwsearch.results.front import FrontPoint
from hwsearch.study.trial_log import TrialLog, TrialRecord

HEADER: dict[str, Any] = {"seed": 0, "space": "bars", "budget": {"latency_us": 20.0}, "objectives": ["accuracy", "mean_latency"]}


def record(number: int) -> TrialRecord:
    cost = Cost(latency_us=0.1 + number, energy_uj=1 / 3, flash_bytes=10, ram_bytes=20)
    menu = Menu(kind=PolicyKind.STATIC, entries=(MenuEntry(assignment=BitAssignment({"conv": Precision(4, 8)})),))
    point = FrontPoint(
        trial=number, menu=menu, policy=PolicyShape(kind=PolicyKind.STATIC), accuracy=0.9, shares=(1.0,),
        cost=PolicyCost(mean=cost, worst=cost),
    )  # fmt: skip
    return TrialRecord(
        number=number, params={"target": 0.1 + 0.2, "policy": "static"}, constraints={"latency_us": -0.5},
        values=(0.9, 0.1 + number), point=point,
    )  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with trials 1 and 0, in that order."""
    file = tmp_path / "trials.jsonl"
    with TrialLog.open(file, HEADER, resume=False) as log:
        log.add_sensitivities({"conv": {"w4a8": 0.25}})
        log.add(record(1))
        log.add(record(0))
    return file


def test_what_is_added_is_read_back_equal(path: Path) -> None:
    with TrialLog.open(path, HEADER, resume=True) as log:
        assert log.trials == {0: record(0), 1: record(1)}
        assert log.sensitivities == {"conv": {"w4a8": 0.25}}


def test_a_refused_trial_has_no_point_and_is_not_feasible(path: Path) -> None:
    refused = TrialRecord(number=2, params={}, constraints={"flash_bytes": 0.2}, values=(0.0, 9.0))
    with TrialLog.open(path, HEADER, resume=True) as log:
        log.add(refused)
    with TrialLog.open(path, HEADER, resume=True) as log:
        assert log.trials[2] == refused
        assert not log.trials[2].is_feasible


def test_a_torn_last_line_is_cut_off_and_writing_goes_on(path: Path) -> None:
    whole = path.read_bytes()
    for cut in (1, 20, len(whole.splitlines()[-1])):
        path.write_bytes(whole[:-cut])
        with TrialLog.open(path, HEADER, resume=True) as log:
            assert set(log.trials) == {1}
            log.add(record(0))
        assert path.read_bytes() == whole


def test_a_torn_header_starts_anew(tmp_path: Path) -> None:
    file = tmp_path / "trials.jsonl"
    file.write_bytes(b'{"schema": 1, "se')
    with TrialLog.open(file, HEADER, resume=False) as log:
        assert log.trials == {}
    assert len(file.read_bytes().splitlines()) == 1


@pytest.mark.parametrize("damage", ["{", "[]", '{"trial": 1}', '{"trial": 1, "params": {}, "constraints": {}, "values": [1]}'])
def test_a_damaged_line_is_named(path: Path, damage: str) -> None:
    lines = path.read_text().splitlines()
    lines[2] = damage
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(JobError, match=r"trials.jsonl must be one a search wrote, but line 3 is not"):
        TrialLog.open(path, HEADER, resume=True)


def test_a_line_with_another_number_of_values_than_objectives_is_named(path: Path) -> None:
    path.write_text(path.read_text().replace('"values": [0.9, 1.1]', '"values": [0.9]'))
    with pytest.raises(JobError, match=r"line 3 is not \(1 values of 2 objectives\)"):
        TrialLog.open(path, HEADER, resume=True)


def test_a_journal_of_schema_1_had_the_default_objectives(path: Path) -> None:
    first, *rest = path.read_text().splitlines(keepends=True)
    old = {name: value for name, value in json.loads(first).items() if name != "objectives"} | {"schema": 1}
    path.write_text(json.dumps(old) + "\n" + "".join(rest))
    with TrialLog.open(path, HEADER, resume=True) as log:
        assert log.trials == {0: record(0), 1: record(1)}
    with pytest.raises(JobError, match=r"but objectives is now \['accuracy', 'flash'\] and was \['accuracy', 'mean_latency'\]"):
        TrialLog.open(path, HEADER | {"objectives": ["accuracy", "flash"]}, resume=True)


def test_another_searchs_journal_is_refused_naming_the_difference(path: Path) -> None:
    with pytest.raises(JobError, match=r"but seed is now 1 and was 0; undo the change or start in another run folder"):
        TrialLog.open(path, HEADER | {"seed": 1}, resume=True)
    with pytest.raises(JobError, match=r"but budget is now \{\} and was \{'latency_us': 20.0\}"):
        TrialLog.open(path, HEADER | {"budget": {}}, resume=True)


def test_a_journal_is_not_written_over_without_resume(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(JobError, match=r"must have a new journal, but .* exists; resume it or name another run folder"):
        TrialLog.open(path, HEADER, resume=False)
    assert path.read_bytes() == before


def test_two_searches_cannot_write_one_journal(path: Path) -> None:
    with TrialLog.open(path, HEADER, resume=True), pytest.raises(JobError, match="Only one search may write"):
        TrialLog.open(path, HEADER, resume=True)
    with TrialLog.open(path, HEADER, resume=True) as log:
        assert len(log.trials) == 2


def test_a_refused_journal_is_free_again(path: Path) -> None:
    with pytest.raises(JobError, match="seed"):
        TrialLog.open(path, HEADER | {"seed": 1}, resume=True)
    with TrialLog.open(path, HEADER, resume=True) as log:
        assert len(log.trials) == 2
