"""Fronts: only what nothing beats, the best within a budget, and files that give back what was saved."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsearch.errors import InfeasibleBudget, JobError
from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind, PolicyShape
from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.hardware.cost import OBJECTIVES, Budget, Cost, PolicyCost
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
        trial=trial, menu=menu, policy=PolicyShape(kind=PolicyKind.STATIC), accuracy=accuracy, shares=(1.0,), cost=cost
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


COSTS = tuple(name for name in OBJECTIVES if name != "accuracy")
CANDIDATES = st.lists(st.tuples(st.integers(0, 4), *[st.integers(1, 4)] * 6), min_size=1, max_size=10)


def candidate(trial: int, values: tuple[int, ...]) -> FrontPoint:
    """A point with small whole values, so that equal and dominated ones are common."""
    accuracy, mean_us, worst_us, mean_uj, worst_uj, flash, ram = values
    cost = PolicyCost(
        mean=Cost(latency_us=mean_us, energy_uj=mean_uj, flash_bytes=flash, ram_bytes=ram),
        worst=Cost(latency_us=worst_us, energy_uj=worst_uj, flash_bytes=flash, ram_bytes=ram),
    )
    return replace(point(trial, accuracy / 10, 1.0), cost=cost)


def by_definition(points: list[FrontPoint], objectives: tuple[str, ...]) -> set[int]:
    """Trials of which none other is at least as good in all objectives and better in one, or the same and earlier."""

    def beats(one: FrontPoint, other: FrontPoint) -> bool:
        pairs = [
            (mine, theirs) if name == "accuracy" else (-mine, -theirs)
            for name, mine, theirs in zip(objectives, one.values(objectives), other.values(objectives), strict=True)
        ]
        if any(mine < theirs for mine, theirs in pairs):
            return False
        return any(mine > theirs for mine, theirs in pairs) or one.trial < other.trial

    return {own.trial for own in points if not any(beats(other, own) for other in points)}


@given(CANDIDATES, st.lists(st.sampled_from(COSTS), min_size=1, max_size=4, unique=True), st.randoms(use_true_random=False))
def test_a_front_over_any_objectives_is_the_definition_whatever_the_order(
    values: list[tuple[int, ...]], costs: list[str], random: Random
) -> None:
    objectives = ("accuracy", *costs)
    points = [candidate(trial, own) for trial, own in enumerate(values)]
    kept = non_dominated(points, objectives)
    assert {one.trial for one in kept} == by_definition(points, objectives)
    assert [one.values(costs) for one in kept] == sorted(one.values(costs) for one in kept)
    shuffled, renamed = random.sample(points, len(points)), random.sample(objectives, len(objectives))
    assert non_dominated(shuffled, objectives) == kept
    assert {one.trial for one in non_dominated(points, renamed)} == {one.trial for one in kept}
    assert not any(one.dominates(other, objectives) for one in kept for other in kept)


def test_a_third_objective_keeps_what_two_would_drop() -> None:
    slow_and_small = point(3, 0.94, 250.0, flash=100)
    assert slow_and_small not in front(*THREE, slow_and_small).points
    made = replace(front(), points=(*THREE, slow_and_small), objectives=("accuracy", "mean_latency", "flash"))
    assert [kept.trial for kept in made.points] == [0, 1, 3, 2]
    assert (made.fastest().trial, made.most_accurate().trial, made.best(Budget(flash_bytes=500)).trial) == (0, 2, 3)


def test_the_ends_of_a_front_in_other_objectives_are_found_wherever_they_stand() -> None:
    small_and_best, fast = point(0, 0.99, 300.0, flash=100), point(1, 0.90, 50.0, flash=90)
    made = replace(front(), points=(small_and_best, fast), objectives=("accuracy", "flash"))
    assert (made.fastest().trial, made.most_accurate().trial) == (1, 0)
    equal = replace(front(), points=(point(0, 0.9, 90.0, flash=80), point(1, 0.9, 40.0, flash=90)), objectives=made.objectives)
    assert [kept.trial for kept in equal.points] == [0]


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
    policy = PolicyShape(kind=PolicyKind.EXIT, escalation=(0.25,))
    paths = [Cost(latency_us=latency, energy_uj=1.0, flash_bytes=10, ram_bytes=20) for latency in (10.0, 30.0)]
    cost = PolicyCost.of_paths(paths, (0.75, 0.25))
    menu = Menu(kind=PolicyKind.EXIT, entries=entries)
    return FrontPoint(trial=9, menu=menu, policy=policy, accuracy=1 / 3, shares=(0.75, 0.25), cost=cost)


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


def test_an_objective_that_no_table_shows_has_a_column_of_its_own(tmp_path: Path) -> None:
    made = replace(front(*THREE), objectives=("accuracy", "energy", "flash"))
    made.save(tmp_path)
    with (tmp_path / "front.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-4:] == ["ram_bytes", "energy_uj", "shares", "assignments"]
    assert [float(row["energy_uj"]) for row in rows] == [one.cost.worst.energy_uj for one in made.points]
    assert load_front(tmp_path) == made


@pytest.mark.parametrize(
    ("objectives", "message"), [(["accuracy", "speed"], "'speed'; known are"), (["flash", "ram"], "Accuracy must")]
)
def test_a_front_in_objectives_that_are_none_is_refused(tmp_path: Path, objectives: list[str], message: str) -> None:
    front(*THREE).save(tmp_path)
    record = json.loads((tmp_path / "front.json").read_text())
    (tmp_path / "front.json").write_text(json.dumps(record | {"objectives": objectives}))
    with pytest.raises(JobError, match=message):
        load_front(tmp_path)


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
    with pytest.raises(JobError, match="must have schema 1 or 2, but has 99"):
        load_front(tmp_path)
