"""The whole finalizer on a tiny task: every kind of policy meets its budget, in exact prices, as an integer model."""

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torch import nn

from hwsearch.errors import InfeasibleBudget
from hwsearch.finalizer.finetune import finalize
from hwsearch.graph.capture import capture
from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind, PolicyShape
from hwsearch.graph.precision import Precision
from hwsearch.graph.space import SearchSpace, load_space
from hwsearch.hardware.cost import Budget, PolicyCost
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.integers.execute import run_model
from hwsearch.pricing.cost_model import CostModel
from hwsearch.quantizers.supernet import Supernet
from hwsearch.quantizers.training import train_supernet
from hwsearch.results.final_model import FinalModel
from hwsearch.results.front import FrontPoint
from hwsearch.tasks.catalogue import load_task
from hwsearch.tasks.float_training import train_float
from hwsearch.tasks.task import Task

POINTS = {
    PolicyKind.STATIC: ("w4a4",),
    PolicyKind.GATE: ("w2a2", "w8a8"),
    PolicyKind.CASCADE: ("w2a2", "w8a8"),
    PolicyKind.EXIT: ("w4a4",),
}
PointOf = Callable[..., FrontPoint]
Finalize = Callable[..., FinalModel]


@pytest.fixture(scope="module")
def run(task: Task, space: SearchSpace, costs: CostModel, supernet: Supernet, float_model: nn.Module) -> Finalize:
    def finalized(point: FrontPoint, budget: Budget, **options: Any) -> FinalModel:
        settings: dict[str, Any] = {"epochs": 2, "float_model": float_model, **options}
        return finalize(point, supernet, task, space, costs, budget, **settings)

    return finalized


def tight(point: FrontPoint, share: float) -> Budget:
    """Limits at a share of the point's own price where training can reach, and its mean."""
    worst, mean = point.cost.worst, point.cost.mean
    return Budget(latency_us=share * worst.latency_us, flash_bytes=worst.flash_bytes, mean_latency_us=share * mean.latency_us)


def every_kind(*always: PolicyKind) -> list[Any]:
    """All kinds, those not named with the slow tests alone."""
    return [kind if kind in always else pytest.param(kind, marks=pytest.mark.slow) for kind in PolicyKind]


@pytest.mark.parametrize("kind", every_kind(PolicyKind.STATIC, PolicyKind.CASCADE))
def test_every_kind_meets_a_budget_tighter_than_its_point(
    run: Finalize, point_of: PointOf, space: SearchSpace, costs: CostModel, kind: PolicyKind
) -> None:
    point = point_of(kind, *POINTS[kind])
    budget = tight(point, 0.9)
    final = run(point, budget)
    assert final.paths == costs.paths(final.model.menu, point.policy)
    assert budget.is_met(final.cost)
    assert all(path.latency_us <= budget.latency_us for path in final.paths)
    assert final.certificate.bound_us <= budget.mean_latency_us
    assert final.model.menu.kind is kind
    assert final.accuracy["test"] > 0.7  # of four classes


@pytest.mark.parametrize("kind", every_kind(PolicyKind.GATE, PolicyKind.EXIT))
def test_what_is_said_of_the_model_is_what_it_computes(
    run: Finalize, point_of: PointOf, supernet: Supernet, task: Task, kind: PolicyKind
) -> None:
    final = run(point_of(kind, *POINTS[kind]), Budget())
    execution = run_model(final.model, supernet.encode(task.test.images))
    assert final.accuracy["test"] == pytest.approx((execution.logits.argmax(axis=1) == task.test.labels.numpy()).mean())
    calibration = run_model(final.model, supernet.encode(task.calibration_split.images)).entries
    assert final.shares == pytest.approx(np.bincount(calibration, minlength=len(final.paths)) / len(calibration))
    assert (final.sample_codes == supernet.encode(task.test.images[:256])).all()
    assert (final.sample_labels == task.test.labels[:256].numpy()).all()
    assert set(final.float_accuracy) == set(final.accuracy)


def test_no_path_is_slower_than_the_points_own_though_the_budget_is_open(
    run: Finalize, point_of: PointOf, costs: CostModel
) -> None:
    point = point_of(PolicyKind.CASCADE, *POINTS[PolicyKind.CASCADE])
    final = run(point, Budget())
    for path, promised in zip(final.paths, costs.paths(point.menu), strict=True):
        assert path.latency_us <= promised.latency_us * (1 + 1e-12)


@pytest.mark.slow
def test_flash_that_is_left_goes_to_packed_copies_that_make_paths_faster(
    task: Task, space: SearchSpace, supernet: Supernet, float_model: nn.Module, point_of: PointOf, dense_is_fast: CostModel
) -> None:
    point = point_of(PolicyKind.CASCADE, "w2a2", "w8a8")

    def finalized(budget: Budget) -> FinalModel:
        return finalize(point, supernet, task, space, dense_is_fast, budget, epochs=2, float_model=float_model)

    final = finalized(Budget())
    without = dense_is_fast.paths(replace(final.model.menu, copies=frozenset()))
    assert final.model.menu.copies and final.paths == dense_is_fast.paths(final.model.menu)
    assert all(new.latency_us < old.latency_us for new, old in zip(final.paths, without, strict=True))
    kept = finalized(Budget(flash_bytes=without[0].flash_bytes))
    assert not kept.model.menu.copies and kept.cost.worst.flash_bytes <= without[0].flash_bytes


@pytest.mark.slow
def test_the_same_seed_gives_the_same_model_and_the_supernet_stays_as_it_was(
    run: Finalize, point_of: PointOf, supernet: Supernet
) -> None:
    before = copy.deepcopy(supernet.to_arrays())
    point = point_of(PolicyKind.CASCADE, *POINTS[PolicyKind.CASCADE])
    first, second = run(point, tight(point, 0.9), seed=5), run(point, tight(point, 0.9), seed=5)
    assert first.model.thresholds == second.model.thresholds
    assert first.model.menu == second.model.menu
    for name, stored in first.model.stored.items():
        assert (stored.codes == second.model.stored[name].codes).all()
    assert first.notes == second.notes
    assert all((before[name] == array).all() for name, array in supernet.to_arrays().items())


def test_without_a_float_network_the_widest_path_teaches(run: Finalize, point_of: PointOf) -> None:
    final = run(point_of(PolicyKind.STATIC, "w4a4"), Budget(), float_model=None, float_accuracy={"test": 0.5})
    assert final.float_accuracy == {"test": 0.5}
    assert final.accuracy["test"] > 0.7


@pytest.mark.parametrize(
    ("limit", "share"),
    [("latency_us", 0.3), ("flash_bytes", 0.3), ("mean_latency_us", 0.1), ("ram_bytes", 0.5), ("energy_uj", 0.3)],
)
def test_an_unreachable_budget_is_refused_before_anything_trains(
    run: Finalize, point_of: PointOf, limit: str, share: float
) -> None:
    point = point_of(PolicyKind.CASCADE, "w2a2", "w4a4")
    field = limit.removeprefix("mean_")
    budget = Budget(**{limit: share * getattr(point.cost.mean if limit != field else point.cost.worst, field)})
    steps: list[int] = []
    with pytest.raises(InfeasibleBudget, match=limit):
        run(point, budget, progress=lambda done, total, note="": steps.append(done))
    assert not steps


def test_notes_tell_how_far_the_result_is_from_the_integer_programmes_bound(run: Finalize, point_of: PointOf) -> None:
    notes = run(point_of(PolicyKind.STATIC, "w4a4"), Budget()).notes
    own, bound = map(float, re.findall(r"[+-]\d\.\d{4}", notes["integer_programme"]))
    assert bound <= own
    assert "of at most" in notes["gates"]


@pytest.mark.slow
def test_digits_on_the_shipped_board_within_a_latency_flash_and_mean_budget(shipped: Callable[[str], HardwareProfile]) -> None:
    task = load_task("digits")
    space = load_space("digits_cnn", capture(task.model, task.example_input))
    costs = CostModel(space.network, shipped("nucleo_l4r5zi"))
    model = train_float(task, epochs=8, seed=0)
    supernet = train_supernet(task, space, float_model=model, epochs=3, seed=0)
    entries = tuple(MenuEntry(assignment=space.uniform(Precision.parse(width))) for width in ("w2a2", "w8a8"))
    menu = Menu(kind=PolicyKind.CASCADE, entries=entries)
    shares = (0.8, 0.2)
    cost = PolicyCost.of_paths(costs.paths(menu), shares)
    policy = PolicyShape(kind=PolicyKind.CASCADE, escalation=(0.2,))
    point = FrontPoint(trial=0, menu=menu, policy=policy, accuracy=0.97, shares=shares, cost=cost)
    budget = Budget(
        latency_us=0.8 * cost.worst.latency_us, flash_bytes=cost.worst.flash_bytes, mean_latency_us=0.95 * cost.mean.latency_us
    )
    final = finalize(point, supernet, task, space, costs, budget, epochs=4, float_model=model)
    assert budget.is_met(final.cost)
    assert final.paths[-1].latency_us > 0.6 * budget.latency_us  # the budget is used
    assert final.certificate.bound_us <= budget.mean_latency_us
    assert final.accuracy["test"] >= 0.95
