"""The ladder of policies on a real folded model: the same decisions as the model's own run, growing from the first entry."""

from collections.abc import Callable

import numpy as np
import pytest

from hwsearch.errors import InfeasibleBudget
from hwsearch.finalizer.certified_policy import Folded, Mean, certify, fold
from hwsearch.finalizer.policy_ladder import build_ladder, decisions, entry_results
from hwsearch.graph.menu import PolicyKind
from hwsearch.graph.space import SearchSpace
from hwsearch.hardware.cost import Budget, Cost
from hwsearch.integers.execute import run_model
from hwsearch.integers.integer_model import IntegerModel
from hwsearch.pricing.cost_model import CostModel
from hwsearch.quantizers.supernet import Supernet
from hwsearch.results.front import FrontPoint
from hwsearch.tasks.task import Task

POINTS = [
    (PolicyKind.STATIC, ("w4a4",)),
    (PolicyKind.GATE, ("w2a2", "w8a8")),
    (PolicyKind.CASCADE, ("w2a2", "w4a4", "w8a8")),
    (PolicyKind.EXIT, ("w4a4",)),
]
DYNAMIC = POINTS[1:]


@pytest.fixture(scope="module")
def made(
    task: Task, space: SearchSpace, costs: CostModel, supernet: Supernet, point_of: Callable[..., FrontPoint]
) -> Callable[..., tuple[FrontPoint, Folded, tuple[Cost, ...], tuple[IntegerModel, ...]]]:
    known: dict[PolicyKind, tuple[FrontPoint, Folded, tuple[Cost, ...], tuple[IntegerModel, ...]]] = {}

    def make(kind: PolicyKind, widths: tuple[str, ...]) -> tuple[FrontPoint, Folded, tuple[Cost, ...], tuple[IntegerModel, ...]]:
        if kind not in known:
            point = point_of(kind, *widths)
            folded = fold(supernet, point.menu, task)
            paths = costs.paths(point.menu, point.policy)
            results = entry_results(folded.model, folded.search, task.search_split, paths)
            ladder = build_ladder(folded.model, point.policy, results, folded.search, quantizer=folded.quantizer, seed=0)
            known[kind] = point, folded, paths, ladder
        return known[kind]

    return make


@pytest.mark.parametrize(("kind", "widths"), POINTS)
def test_decisions_are_those_of_the_running_model(made: Callable, kind: PolicyKind, widths: tuple[str, ...]) -> None:
    _, folded, _, ladder = made(kind, widths)
    for rung in (ladder[0], ladder[len(ladder) // 2], ladder[-1]):
        execution = run_model(rung, folded.calibration.codes)
        chosen = decisions(rung, folded.calibration)
        assert (chosen == execution.entries).all()
        assert (folded.calibration.logits[chosen, np.arange(len(chosen))] == execution.logits).all()


@pytest.mark.parametrize(("kind", "widths"), DYNAMIC)
def test_a_ladder_starts_at_the_first_entry_and_grows_dearer(made: Callable, kind: PolicyKind, widths: tuple[str, ...]) -> None:
    point, folded, paths, ladder = made(kind, widths)
    latencies = np.array([path.latency_us for path in paths])
    taken = [decisions(rung, folded.search) for rung in ladder]
    means = [latencies[entries].mean() for entries in taken]
    assert (taken[0] == 0).all()
    assert (decisions(ladder[0], folded.calibration) == 0).all()
    assert means == sorted(means)
    if kind is not PolicyKind.GATE:
        assert (taken[-1] > 0).mean() == pytest.approx(point.policy.escalation[0], abs=0.02)


@pytest.mark.parametrize(("kind", "widths"), DYNAMIC)
def test_without_a_limit_the_fitted_policy_is_taken_and_bounded(
    made: Callable, task: Task, kind: PolicyKind, widths: tuple[str, ...]
) -> None:
    point, folded, paths, ladder = made(kind, widths)
    certified = certify(folded, point.policy, task, Mean(paths=paths, budget=Budget()), seed=0, delta=0.05)
    assert (decisions(certified.model, folded.search) == decisions(ladder[-1], folded.search)).all()
    assert certified.certificate.observed_mean_us == pytest.approx(certified.cost.mean.latency_us)
    assert certified.certificate.bound_us >= certified.certificate.observed_mean_us
    assert certified.certificate.limit_us is None
    assert certified.certificate.n_samples == len(task.calibration_split)


@pytest.mark.parametrize(("kind", "widths"), [DYNAMIC[1], DYNAMIC[2]])
def test_a_mean_limit_holds_the_policy_back_until_it_is_certified(
    made: Callable, task: Task, kind: PolicyKind, widths: tuple[str, ...]
) -> None:
    point, folded, paths, _ = made(kind, widths)
    free = certify(folded, point.policy, task, Mean(paths=paths, budget=Budget()), seed=0, delta=0.05)
    limit = (paths[0].latency_us + free.cost.mean.latency_us) / 2
    held = certify(folded, point.policy, task, Mean(paths=paths, budget=Budget(mean_latency_us=limit)), seed=0, delta=0.05)
    assert paths[0].latency_us < held.cost.mean.latency_us < limit < free.cost.mean.latency_us
    assert held.certificate.bound_us == held.certificate.limit_us == limit
    energy = limit / free.cost.mean.latency_us * free.cost.mean.energy_uj
    by_energy = certify(folded, point.policy, task, Mean(paths=paths, budget=Budget(mean_energy_uj=energy)), seed=0, delta=0.05)
    assert by_energy.cost.mean.energy_uj < energy
    assert by_energy.certificate.limit_us is None and by_energy.certificate.bound_us > by_energy.certificate.observed_mean_us


@pytest.mark.parametrize(("kind", "widths"), DYNAMIC)
def test_a_limit_at_the_first_entrys_price_leaves_that_entry_alone(
    made: Callable, task: Task, kind: PolicyKind, widths: tuple[str, ...]
) -> None:
    point, folded, paths, _ = made(kind, widths)
    mean = Mean(paths=paths, budget=Budget(mean_latency_us=paths[0].latency_us))
    certified = certify(folded, point.policy, task, mean, seed=0, delta=0.05)
    assert certified.shares[0] == 1.0
    assert certified.certificate.bound_us == paths[0].latency_us
    assert "exact" in certified.certificate.method


def test_a_limit_below_the_first_entry_is_refused(made: Callable, task: Task) -> None:
    point, folded, paths, _ = made(*DYNAMIC[1])
    mean = Mean(paths=paths, budget=Budget(mean_latency_us=0.9 * paths[0].latency_us))
    with pytest.raises(InfeasibleBudget, match="must allow the first entry"):
        certify(folded, point.policy, task, mean, seed=0, delta=0.05)
