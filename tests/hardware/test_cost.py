"""Objectives and limits: one list, read by budgets and job files alike; what is wrong with either in one sentence."""

from dataclasses import fields

import pytest

from hwsearch.errors import BudgetError, JobError
from hwsearch.hardware.cost import OBJECTIVES, Budget, Cost, PolicyCost, check_objectives, limit_names, limited
from hwsearch.service.job import BudgetSection

COST = PolicyCost(
    mean=Cost(latency_us=1.0, energy_uj=2.0, flash_bytes=3, ram_bytes=4),
    worst=Cost(latency_us=5.0, energy_uj=6.0, flash_bytes=7, ram_bytes=8),
)


def test_every_objective_is_read_from_its_own_place() -> None:
    read = {name: objective.value(0.5, COST) for name, objective in OBJECTIVES.items()}
    assert read == {
        "accuracy": 0.5, "mean_latency": 1.0, "latency": 5.0, "mean_energy": 2.0, "energy": 6.0, "flash": 7, "ram": 8,
    }  # fmt: skip
    assert [name for name, objective in OBJECTIVES.items() if objective.direction == "maximize"] == ["accuracy"]


def test_every_limit_is_on_an_objective_and_every_one_can_stand_in_a_job() -> None:
    assert [limited(field.name).field for field in fields(Budget)] == [field.name for field in fields(Budget)]
    assert tuple(BudgetSection.model_fields) == limit_names()


def test_each_limit_is_compared_with_what_it_limits() -> None:
    budget = Budget.parse(latency="10us", energy="3uJ", flash="7B", ram="16B", mean_latency="2us", mean_energy="1uJ")
    assert budget.excess(COST) == {
        "latency_us": -0.5, "energy_uj": 1.0, "flash_bytes": 0.0, "ram_bytes": -0.5, "mean_latency_us": -0.5,
        "mean_energy_uj": 1.0,
    }  # fmt: skip
    assert list(budget.hard().limits()) == ["latency_us", "energy_uj", "flash_bytes", "ram_bytes"]


def test_a_limit_on_nothing_known_lists_what_can_be_limited() -> None:
    with pytest.raises(
        BudgetError, match="limit only latency, energy, flash, ram, mean_latency, mean_energy, but found 'speed'; choose"
    ):
        Budget.parse(speed="3ms")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["accuracy", "speed"], "known ones, but found 'speed'; known are accuracy, mean_latency, latency, .*; choose"),
        (["accuracy", "flash", "flash"], "named once, but 'flash' is named 2 times; drop one"),
        (["flash", "ram"], "Accuracy must be among the objectives, but found flash, ram; add 'accuracy'"),
        ([], "Accuracy must be among the objectives, but found none; add 'accuracy'"),
        (["accuracy"], "two objectives or more, but found 'accuracy' alone; add one, such as 'mean_latency'"),
    ],
)  # fmt: skip
def test_objectives_that_cannot_be_searched_for_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(JobError, match=message):
        check_objectives(names)


def test_mean_and_worst_latency_may_stand_beside_each_other() -> None:
    assert check_objectives(["accuracy", "mean_latency", "latency"]) == ("accuracy", "mean_latency", "latency")
