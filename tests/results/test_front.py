"""Fronts: only what nothing beats, the best within a budget, and files that give back what was saved."""

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsearch.errors import InfeasibleBudget, JobError
from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind, PolicyShape
from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.hardware.cost import Budget, Cost, PolicyCost
from hwsearch.results.front import FrontPoint, ParetoFront, load_front, non_dominated

CHEAP = BitAssignment({"conv": Precision(2, 4), "pool": Precision(0, 8)})
DEAR = BitAssignment({"conv": Precision(8, 8), "pool": Precision(0, 8)})


def point(trial: int, accuracy: float, mean_us: float, worst_us: float = 0.0, flash: int = 1000) -> FrontPoint:
    cost = PolicyCost(
        mean=Cost(latency_us=mean_us, energy_uj=mean_us * 0.04, flash_bytes=flash, ram_bytes=500),
        worst=Cost(latency_us=worst_us or mean_us, energy_uj=(worst_us or mean_us) * 0.04, flash_bytes=flash, ram_bytes=500),
    )
    menu = Menu(kind=PolicyKind.STATIC, entries=(MenuEntry(assignment=DEAR),))
    return FrontPoint(
        trial=trial, menu=menu, shape=PolicyShape(kind=PolicyKind.STATIC), accuracy=accuracy, shares=(1.0,), cost=cost
    )


def front(*points: FrontPoint) -> ParetoFront:
    return ParetoFront(points=points, profile="board", task="digits", space="digits_cnn", seed=7)


THREE = (point(0, 0.90, 100.0), point(1, 0.95, 200.0, 300.0), point(2, 0.97, 400.0, flash=5000))


def test_dominated_points_are_left_out_and_the_fastest_stands_first() -> None:
    made = front(THREE[2], point(3, 0.94, 250.0), THREE[0], THREE[1], point(4, 0.97, 401.0), point(5, 0.90, 100.0))
    assert [kept.trial for kept in made.points] == [0, 1, 2]
    assert (made.fastest().trial, made.most_accurate().trial) == (0, 2)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6)), min_size=1, max_size=12))
def test_the_filter_agrees_with_the_definition(values: list[tuple[int, int]]) -> None:
    points = [point(trial, accuracy / 10, float(mean)) for trial, (accuracy, mean) in enumerate(values)]
    kept = non_dominated(points)
    assert all(not other.dominates(one) for one in kept for other in points)
    objectives = {(one.accuracy, one.cost.mean.latency_us) for one in kept}
    assert len(objectives) == len(kept)
    for one in points:
        if not any(other.dominates(one) for other in points):
            assert (one.accuracy, one.cost.mean.latency_us) in objectives


def test_the_best_point_is_the_most_accurate_that_meets_the_budget() -> None:
    made = front(*THREE)
    assert made.best(Budget()).trial == 2
    assert made.best(Budget(flash_bytes=2000)).trial == 1
    assert made.best(Budget(latency_us=250.0)).trial == 0  # the worst case counts, not the mean
    assert made.best(Budget(mean_latency_us=250.0)).trial == 1


def test_a_budget_that_no_point_meets_names_the_limit_and_the_nearest_point() -> None:
    message = r"mean_latency_us is limited to 50 and the nearest point \(trial 0, accuracy 0.9000\) needs 100;"
    with pytest.raises(InfeasibleBudget, match=message):
        front(*THREE).best(Budget(mean_latency_us=50.0, flash_bytes=2000))


def test_an_empty_front_says_so() -> None:
    with pytest.raises(InfeasibleBudget, match="no model of digits_cnn met the budget on board"):
        front().most_accurate()


def dynamic() -> FrontPoint:
    entries = (MenuEntry(assignment=CHEAP, exit="exit1"), MenuEntry(assignment=CHEAP))
    shape = PolicyShape(kind=PolicyKind.EXIT, escalation=(0.25,))
    paths = [Cost(latency_us=latency, energy_uj=1.0, flash_bytes=10, ram_bytes=20) for latency in (10.0, 30.0)]
    cost = PolicyCost.of_paths(paths, (0.75, 0.25))
    menu = Menu(kind=PolicyKind.EXIT, entries=entries)
    return FrontPoint(trial=9, menu=menu, shape=shape, accuracy=1 / 3, shares=(0.75, 0.25), cost=cost)


def test_a_saved_front_is_loaded_equal_from_folder_and_files(tmp_path: Path) -> None:
    made = front(dynamic(), *THREE)
    made.save(tmp_path)
    for path in (tmp_path, tmp_path / "front.json", tmp_path / "front.csv"):
        assert load_front(path) == made
    assert not list(tmp_path.glob("*.new"))


def test_the_table_has_the_promised_columns(tmp_path: Path) -> None:
    front(dynamic(), *THREE).save(tmp_path)
    with (tmp_path / "front.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "trial", "policy", "entries", "accuracy", "mean_latency_us", "worst_latency_us", "mean_energy_uj", "flash_bytes",
        "ram_bytes", "shares", "assignments",
    ]  # fmt: skip
    assert rows[0]["trial"] == "9"
    assert (rows[0]["policy"], rows[0]["entries"], rows[0]["shares"]) == ("exit", "2", "0.75 0.25")
    assert float(rows[0]["accuracy"]) == 1 / 3
    assert (float(rows[0]["mean_latency_us"]), float(rows[0]["worst_latency_us"])) == (15.0, 30.0)
    assert rows[0]["assignments"] == "conv=w2a4,pool=a8 to exit1 | conv=w2a4,pool=a8"


def test_a_missing_front_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"must be a run folder or a front\.json, but there is no .*front\.json"):
        load_front(tmp_path)


@pytest.mark.parametrize("damage", ["{", '{"schema": 1}', "[]", '{"schema": 1, "points": [{}]}'])
def test_a_damaged_front_is_refused(tmp_path: Path, damage: str) -> None:
    (tmp_path / "front.json").write_text(damage)
    with pytest.raises(JobError, match="is damaged"):
        load_front(tmp_path)


def test_a_front_of_another_schema_is_refused(tmp_path: Path) -> None:
    front(*THREE).save(tmp_path)
    record = json.loads((tmp_path / "front.json").read_text())
    (tmp_path / "front.json").write_text(json.dumps(record | {"schema": 99}))
    with pytest.raises(JobError, match="must have schema 1, but has 99"):
        load_front(tmp_path)
