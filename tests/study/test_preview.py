"""Menus by integer programme, and the preview that trains nothing."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from hwsearch.errors import InfeasibleBudget
from hwsearch.graph.menu import PolicyKind, PolicyShape
from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.hardware.cost import Budget
from hwsearch.quantizers.evaluation import PathEvaluation
from hwsearch.study.preview import MenuBuilder, Sensitivities, measure_sensitivities, preview, probes
from hwsearch.study.proposal import Proposal


def made_up(space: Any) -> Sensitivities:
    """Fewer bits lose more, and more so in conv2."""
    worth = {"conv1": 1.0, "conv2": 3.0}
    return {
        unit.name: {str(p): worth.get(unit.name, 0.0) * (1 / p.weight_bits + 1 / p.activation_bits) for p in unit.precisions}
        for unit in space.units
    }


def whole(space: Any) -> dict[str, tuple[Precision, ...]]:
    return {unit.name: unit.precisions for unit in space.units}


@pytest.fixture
def builder(problem: Any) -> MenuBuilder:
    return MenuBuilder(problem.space, problem.costs, made_up(problem.space), Budget())


def propose(problem: Any, kind: PolicyKind, *targets: float, **more: Any) -> Proposal:
    exits = ("exit1",) if kind is PolicyKind.EXIT else ()
    return Proposal(sets=whole(problem.space), policy=PolicyShape(kind=kind, **more), targets=targets, exits=exits)


class TestMenuBuilder:
    def test_the_ends_of_the_scale_are_the_fastest_and_the_widest_assignment(self, problem: Any, builder: MenuBuilder) -> None:
        fastest, widest = (builder.assignment(whole(problem.space), target) for target in (0.0, 1.0))
        assert problem.costs.price(fastest).latency_us == pytest.approx(builder.latency_us(0.0))
        assert widest == problem.space.uniform(Precision(8, 8))

    def test_an_assignment_is_the_least_sensitive_within_its_latency(self, problem: Any, builder: MenuBuilder) -> None:
        space, costs, scores = problem.space, problem.costs, made_up(problem.space)
        limit = builder.latency_us(0.4)

        def loss(assignment: BitAssignment) -> float:
            return scores["conv1"][str(assignment["conv1"])] + scores["conv2"][str(assignment["conv2"])]

        everything = [
            space.assignment(
                {"conv1": one, "conv2": two} | {u.name: u.widest for u in space.units if u.name not in ("conv1", "conv2")}
            )
            for one in space.unit_of("conv1").precisions
            for two in space.unit_of("conv2").precisions
        ]
        best = min(loss(one) for one in everything if costs.price(one).latency_us <= limit)
        found = builder.assignment(whole(space), 0.4)
        assert loss(found) == pytest.approx(best)
        assert costs.price(found).latency_us <= limit

    def test_a_target_below_what_the_sets_allow_gives_their_fastest(self, problem: Any, builder: MenuBuilder) -> None:
        sets = {**whole(problem.space), "conv2": (Precision(4, 8), Precision(8, 4))}
        found = builder.assignment(sets, 0.0)
        assert found["conv2"] in sets["conv2"]

    def test_of_equally_good_precisions_the_faster_is_taken(self, problem: Any) -> None:
        indifferent = {unit.name: {str(p): 0.0 for p in unit.precisions} for unit in problem.space.units}
        builder = MenuBuilder(problem.space, problem.costs, indifferent, Budget())
        assert builder.assignment(whole(problem.space), 1.0) == builder.assignment(whole(problem.space), 0.0)

    def test_a_budget_ends_the_scale(self, problem: Any) -> None:
        builder = MenuBuilder(problem.space, problem.costs, made_up(problem.space), Budget(latency_us=50.0))
        assert problem.costs.price(builder.assignment(whole(problem.space), 1.0)).latency_us <= 50.0

    def test_a_flash_limit_holds_in_the_programme(self, problem: Any) -> None:
        limit = problem.costs.price(problem.space.uniform(Precision(8, 8))).flash_bytes - 50
        builder = MenuBuilder(problem.space, problem.costs, made_up(problem.space), Budget(flash_bytes=limit))
        assert problem.costs.price(builder.assignment(whole(problem.space), 1.0)).flash_bytes <= limit

    def test_sets_that_do_not_fit_the_flash_are_left_to_the_price(self, problem: Any) -> None:
        builder = MenuBuilder(problem.space, problem.costs, made_up(problem.space), Budget(flash_bytes=10))
        assert builder.assignment(whole(problem.space), 1.0) == problem.space.uniform(Precision(8, 8))

    def test_entries_run_from_the_cheapest_to_the_dearest(self, problem: Any, builder: MenuBuilder) -> None:
        menu, policy = builder.menu(propose(problem, PolicyKind.CASCADE, 0.1, 0.5, 1.0, escalation=(0.5, 0.2)))
        latencies = [problem.costs.price(entry.assignment).latency_us for entry in menu.entries]
        assert latencies == sorted(latencies)
        assert len(latencies) == 3
        assert policy.escalation == (0.5, 0.2)

    def test_entries_that_coincide_are_one_and_a_cascade_loses_their_decision(self, problem: Any, builder: MenuBuilder) -> None:
        menu, policy = builder.menu(propose(problem, PolicyKind.CASCADE, 0.0, 1.0, 1.0, escalation=(0.5, 0.2)))
        assert (len(menu.entries), policy.escalation) == (2, (0.5,))

    def test_a_dynamic_menu_of_one_entry_is_static(self, problem: Any, builder: MenuBuilder) -> None:
        menu, policy = builder.menu(propose(problem, PolicyKind.GATE, 0.0, 0.0, gate_grid=2, gate_hidden=4, trade_off=0.1))
        assert menu.kind is PolicyKind.STATIC
        assert policy == PolicyShape(kind=PolicyKind.STATIC)

    def test_an_exit_menu_has_one_assignment_and_ends_at_the_trunk(self, problem: Any, builder: MenuBuilder) -> None:
        menu, _ = builder.menu(propose(problem, PolicyKind.EXIT, 0.5, escalation=(0.5,)))
        assert [entry.exit for entry in menu.entries] == ["exit1", ""]


def test_a_sensitivity_is_the_added_loss_and_never_negative(problem: Any) -> None:
    def evaluate_all(assignments: Sequence[BitAssignment]) -> Mapping[str, PathEvaluation]:
        losses = {
            one.key: sum(p.weight_bits == 2 for p in one.values()) - 0.5 * (one["conv1"].weight_bits == 4) for one in assignments
        }
        blank = PathEvaluation(exits=("",), losses=np.zeros((1, 3)), correct=np.ones((1, 3), dtype=bool), margins=np.ones((1, 3)))
        return {key: dataclasses.replace(blank, losses=np.full((1, 3), loss)) for key, loss in losses.items()}

    found = measure_sensitivities(problem.space, evaluate_all)
    assert found["conv1"] == {"w2a8": 1.0, "w4a8": 0.0, "w8a8": 0.0}
    assert found["conv2"]["w2a4"] == 1.0
    assert found["fc"] == {"w8a8": 0.0}


def test_every_precision_of_every_unit_is_probed_with_the_others_widest(problem: Any) -> None:
    wanted = probes(problem.space)
    assert wanted["conv2"]["w2a4"]["conv2"] == Precision(2, 4)
    assert wanted["conv2"]["w2a4"]["conv1"] == Precision(8, 8)
    assert sum(map(len, wanted.values())) == sum(len(unit.precisions) for unit in problem.space.units)


class TestPreview:
    def test_a_front_comes_without_training(self, static_problem: Any) -> None:
        p = static_problem
        calls: list[int] = []

        def progress(done: int, total: int, note: str = "") -> None:
            calls.append(done)
            assert done <= total

        front = preview(p.task, p.space, p.costs, float_model=p.task.model, n_points=8, progress=progress)
        assert len(front.points) >= 2
        assert front.most_accurate().accuracy > 0.5
        assert front.fastest().cost.mean.latency_us < p.costs.price(p.space.uniform(Precision(8, 8))).latency_us
        assert calls

    def test_the_same_preview_twice_is_the_same(self, static_problem: Any) -> None:
        p = static_problem
        assert preview(p.task, p.space, p.costs, float_model=p.task.model) == preview(
            p.task, p.space, p.costs, float_model=p.task.model
        )

    def test_nothing_outside_the_budget_is_shown(self, static_problem: Any) -> None:
        p = static_problem
        budget = Budget(latency_us=40.0)
        front = preview(p.task, p.space, p.costs, budget, float_model=p.task.model)
        assert front.points and all(budget.is_met(point.cost) for point in front.points)

    def test_an_unreachable_budget_is_refused_before_anything_runs(self, static_problem: Any) -> None:
        p = static_problem
        with pytest.raises(InfeasibleBudget, match="latency_us is limited to 1 and the cheapest model"):
            preview(p.task, p.space, p.costs, Budget(latency_us=1.0), float_model=p.task.model)
