"""Limits: who answers for what, the floor, and the refusal of what cannot be met."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from hwsearch.errors import InfeasibleBudget
from hwsearch.finalizer.limits import Problem, choice_of, find_floor, first_only, limits_of
from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind, PolicyShape
from hwsearch.graph.precision import Precision
from hwsearch.graph.space import SearchSpace
from hwsearch.hardware.cost import Budget, PolicyCost
from hwsearch.pricing.cost_model import CostModel
from hwsearch.results.front import FrontPoint

PointOf = Callable[..., FrontPoint]


def problem(point: FrontPoint, space: SearchSpace, costs: CostModel, budget: Budget) -> Problem:
    return Problem(menu=point.menu, policy=point.policy, space=space, costs=costs, budget=budget)


def uniform(space: SearchSpace, width: str) -> dict[str, Precision]:
    return choice_of(space, space.uniform(Precision.parse(width)))


def test_a_choice_and_its_assignment_are_inverse(space: SearchSpace) -> None:
    for width in ("w2a2", "w4a8", "w8a8"):
        assignment = space.uniform(Precision.parse(width))
        assert space.assignment(choice_of(space, assignment)) == assignment


def test_the_point_meets_its_promise_and_nothing_wider_does(space: SearchSpace, costs: CostModel, point_of: PointOf) -> None:
    asked = problem(point_of(PolicyKind.STATIC, "w4a4"), space, costs, Budget())
    limits = limits_of(asked, find_floor(asked), (1.0,))
    assert limits.excess([uniform(space, "w4a4")])[0] == pytest.approx(0.0)
    assert limits.excess([uniform(space, "w8a4")])[0] > 0
    assert limits.excess([uniform(space, "w2a4")])[0] < 0
    assert limits.slack_us([uniform(space, "w4a4")]) == [pytest.approx(0.0)]


def test_in_a_cascade_an_entry_answers_for_every_later_path(space: SearchSpace, costs: CostModel, point_of: PointOf) -> None:
    point = point_of(PolicyKind.CASCADE, "w2a2", "w4a4")
    asked = problem(point, space, costs, Budget(latency_us=0.99 * point.cost.worst.latency_us))
    limits = limits_of(asked, uniform(space, "w2a2"), point.shares)
    over = limits.excess([uniform(space, "w2a2"), uniform(space, "w4a4")])
    assert over[0] == over[1] == pytest.approx(1 / 0.99 - 1)


def test_behind_a_gate_each_entry_answers_for_itself(space: SearchSpace, costs: CostModel) -> None:
    entries = tuple(MenuEntry(assignment=space.uniform(Precision.parse(width))) for width in ("w2a2", "w8a8"))
    static = [costs.paths(Menu(kind=PolicyKind.STATIC, entries=(entry,)))[0].latency_us for entry in entries]
    policy = PolicyShape(kind=PolicyKind.GATE, gate_grid=2, gate_hidden=4)
    budget = Budget(latency_us=sum(static) / 2)
    asked = Problem(menu=Menu(kind=PolicyKind.GATE, entries=entries), policy=policy, space=space, costs=costs, budget=budget)
    over = limits_of(asked, uniform(space, "w2a2"), (0.5, 0.5)).excess([uniform(space, "w2a2"), uniform(space, "w8a8")])
    assert over[0] <= 0 < over[1]


def test_exits_share_one_column(space: SearchSpace, costs: CostModel, point_of: PointOf) -> None:
    point = point_of(PolicyKind.EXIT, "w4a4")
    asked = problem(point, space, costs, Budget(mean_latency_us=0.9 * point.cost.mean.latency_us))
    limits = limits_of(asked, find_floor(asked), point.shares)
    assert asked.columns == 1 and asked.exits == ("exit1", "")
    assert limits.excess([uniform(space, "w4a4")]) == pytest.approx([1 / 0.9 - 1])


def test_every_set_limit_is_seen(space: SearchSpace, costs: CostModel, point_of: PointOf) -> None:
    point = point_of(PolicyKind.CASCADE, "w2a2", "w4a4")
    choices = [uniform(space, "w2a2"), uniform(space, "w4a4")]
    cost = point.cost
    limited = {
        "latency_us": cost.worst.latency_us, "energy_uj": cost.worst.energy_uj, "flash_bytes": cost.worst.flash_bytes,
        "ram_bytes": cost.worst.ram_bytes, "mean_latency_us": cost.mean.latency_us, "mean_energy_uj": cost.mean.energy_uj,
    }  # fmt: skip
    for name, value in limited.items():
        asked = problem(point, space, costs, Budget(**{name: 0.999 * value}))
        assert limits_of(asked, uniform(space, "w2a2"), point.shares).excess(choices).max() > 0, name
        roomy = problem(point, space, costs, Budget(**{name: 1.001 * value}))
        assert limits_of(roomy, uniform(space, "w2a2"), point.shares).excess(choices).max() <= 1e-12, name


def test_a_mean_that_even_the_floor_breaks_at_the_points_shares_is_trained_for_with_the_first_entry_alone(
    space: SearchSpace, costs: CostModel, point_of: PointOf
) -> None:
    point = point_of(PolicyKind.CASCADE, "w2a2", "w4a4")
    floor = uniform(space, "w2a2")
    one = costs.price(space.assignment(floor)).latency_us
    asked = problem(point, space, costs, Budget(mean_latency_us=1.05 * one))
    assert limits_of(asked, floor, point.shares).shares == first_only(2)
    assert find_floor(asked) == floor


def test_the_floor_is_the_fastest_choice_and_by_integer_programme_within_the_flash(
    space: SearchSpace, wide_is_fast: CostModel, point_of: PointOf
) -> None:
    """Where wide is fast, a flash limit between the extremes must give the enumerated fastest choice that fits."""
    point = point_of(PolicyKind.STATIC, "w8a8")
    free = find_floor(problem(point, space, wide_is_fast, Budget()))
    assert {unit.name: free[unit.name].weight_bits for unit in space.units} == {unit.name: 8 for unit in space.units}
    sizes = [wide_is_fast.price(space.uniform(Precision.parse(width))).flash_bytes for width in ("w2a2", "w8a8")]
    budget = Budget(flash_bytes=(sizes[0] + sizes[1]) / 2)
    floor = find_floor(problem(point, space, wide_is_fast, budget))
    price = wide_is_fast.price(space.assignment(floor))
    assert price.flash_bytes <= (sizes[0] + sizes[1]) / 2
    assert price.latency_us == pytest.approx(_enumerated_fastest(space, wide_is_fast, (sizes[0] + sizes[1]) / 2))


def _enumerated_fastest(space: SearchSpace, costs: CostModel, flash_bytes: float) -> float:
    free = [unit for unit in space.units if len(unit.precisions) > 1]
    fixed = {unit.name: unit.widest for unit in space.units}
    weights = [[p for p in unit.precisions if p.activation_bits == unit.widest.activation_bits] for unit in free]
    found = []
    for combination in product(*weights):
        choice = {**fixed, **{unit.name: p for unit, p in zip(free, combination, strict=True)}}
        price = costs.price(space.assignment(choice))
        if price.flash_bytes <= flash_bytes:
            found.append(price.latency_us)
    return min(found)


def test_a_budget_no_such_menu_meets_is_refused_with_limit_cost_and_op(
    space: SearchSpace, costs: CostModel, point_of: PointOf
) -> None:
    point = point_of(PolicyKind.CASCADE, "w2a2", "w4a4")
    one = costs.price(space.assignment(uniform(space, "w2a2"))).latency_us
    asked = problem(point, space, costs, Budget(latency_us=1.5 * one))  # one entry would fit, two do not
    with pytest.raises(InfeasibleBudget, match=r"latency_us is limited to .* cascade model with 2 entries .* op conv\d holds"):
        find_floor(asked)
    cost = PolicyCost.of_paths(asked.paths([uniform(space, "w2a2")] * 2), (1.0, 0.0))
    with pytest.raises(InfeasibleBudget, match=f"needs {cost.worst.latency_us:.6g}"):
        find_floor(asked)


def test_prices_per_column_come_back_in_device_units(space: SearchSpace, costs: CostModel, point_of: PointOf) -> None:
    point = point_of(PolicyKind.CASCADE, "w2a2", "w4a4")
    asked = problem(point, space, costs, Budget())
    limits = limits_of(asked, uniform(space, "w2a2"), point.shares)
    narrower = [uniform(space, "w2a2"), uniform(space, "w2a4")]
    saved = point.cost.worst.latency_us - asked.paths(narrower)[1].latency_us
    slack = limits.slack_us(narrower)
    assert slack[1] == pytest.approx(saved)
    assert np.all(np.array(slack) >= 0)
