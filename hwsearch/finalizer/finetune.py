"""The finalizer: from a front point to a finished integer model that meets its budget, with proof.

1. A budget that no menu of the point's kind can meet is refused, before anything trains.
2. Each unit's precisions are measured and become chains; an integer programme gives the start if the point itself
   breaks a limit, and the lower bound that the result is reported against.
3. Weights and gates train together under the exact limits (`cgmq`), then the weights alone; both distil from the float network.
4. The model is folded to integers; its policy is refitted on what the integers answer on the search split.
5. On the calibration split, which nothing else has seen, the mean cost is certified, and the policy is held back as far as
   the mean budget demands.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hwsearch.errors import InfeasibleBudget
from hwsearch.finalizer import cgmq
from hwsearch.finalizer.certified_policy import Mean, certify, fold
from hwsearch.finalizer.cgmq import BitGates, Chain, Levels
from hwsearch.finalizer.gated_training import BitGateSchedule, GatedRun, GatedTraining, Teacher
from hwsearch.finalizer.limits import Choice, Limits, Problem, choice_of, choices_of, find_floor, limits_of
from hwsearch.finalizer.sensitivity import Judgement, Meter, best_levels, gap_note, measure_chains, summed_latency
from hwsearch.graph.menu import Menu
from hwsearch.graph.precision import Precision
from hwsearch.graph.space import SearchSpace
from hwsearch.hardware.cost import Budget
from hwsearch.integers.execute import run_model
from hwsearch.integers.integer_model import IntegerModel
from hwsearch.pricing.copies import with_copies
from hwsearch.pricing.cost_model import CostModel
from hwsearch.pricing.feasibility import require_reachable
from hwsearch.progress import Progress, silent
from hwsearch.quantizers.calibrate import estimate_statistics
from hwsearch.quantizers.supernet import Supernet
from hwsearch.results.final_model import FinalModel
from hwsearch.results.front import FrontPoint
from hwsearch.tasks.float_training import accuracy
from hwsearch.tasks.task import Split, Task

SAMPLES = 256
"""Test images that become the bundle's vectors."""
START_SHARES = 41
"""Shares of the front point's latency at which a start within the limits is looked for."""
GATE_RATE = 0.2
"""Levels that the gate with the strongest push moves at once."""


def finalize(
    point: FrontPoint,
    supernet: Supernet,
    task: Task,
    space: SearchSpace,
    costs: CostModel,
    budget: Budget,
    *,
    epochs: int = 20,
    seed: int = 0,
    delta: float = 0.05,
    float_model: nn.Module | None = None,
    float_accuracy: Mapping[str, float] | None = None,
    schedule: BitGateSchedule | None = None,
    progress: Progress = silent,
) -> FinalModel:
    """Train a front point to the end and return it as integers, within `budget` and no slower than the point on any path.

    `supernet` is left as it is. The certificate of the mean cost is wrong with probability `delta` at most. The teacher is
    `float_model`, or without one the supernet at its widest. Raises InfeasibleBudget, before training, if no menu
    of the point's kind meets the budget.
    """
    require_reachable(space, costs, budget)
    problem = problem_of(point, space, costs, budget)
    floor = find_floor(problem)
    job = _Job(
        limits=limits_of(problem, floor, point.shares), floor=floor, task=task, epochs=epochs, seed=seed,
        schedule=schedule or BitGateSchedule(), progress=progress,
    )  # fmt: skip
    trained = _train(job, supernet, teacher_of(float_model, supernet, space, task))
    # Training held the limits without copies; they make every path faster within the same limit on flash.
    menu = with_copies(trained.menu, costs, budget.flash_bytes, point.policy)
    paths = costs.paths(menu, point.policy)
    folded = fold(trained.supernet, menu, task)
    certified = certify(folded, point.policy, task, Mean(paths=paths, budget=budget), seed=seed, delta=delta)
    if not budget.is_met(certified.cost):
        raise InfeasibleBudget(
            f"A final model must meet its budget, but shares over its limits are {budget.excess(certified.cost)}; "
            "this is a fault of hwsearch, not of the budget: report it."
        )
    if float_accuracy is None:
        float_accuracy = {} if float_model is None else {n: accuracy(float_model, part) for n, part in _parts(task).items()}
    codes = trained.supernet.encode(task.test.images[:SAMPLES])
    return FinalModel(
        model=certified.model, policy=point.policy, task=task.name, profile=costs.profile.name, budget=budget, paths=paths,
        shares=certified.shares, cost=certified.cost, accuracy=_accuracies(certified.model, trained.supernet, task),
        float_accuracy=float_accuracy, certificate=certified.certificate, seed=seed, sample_codes=codes,
        sample_labels=task.test.labels[:SAMPLES].numpy().astype(np.int32), notes={**trained.notes, **certified.notes},
    )  # fmt: skip


def problem_of(point: FrontPoint, space: SearchSpace, costs: CostModel, budget: Budget) -> Problem:
    """The menus among which a front point is finalized."""
    return Problem(menu=point.menu, policy=point.policy, space=space, costs=costs, budget=budget)


def teacher_of(float_model: nn.Module | None, supernet: Supernet, space: SearchSpace, task: Task) -> Teacher:
    """The float network, or else a frozen copy of the supernet at its widest."""
    if float_model is not None:
        model = copy.deepcopy(float_model).eval()

        @torch.no_grad()
        def answer(images: Tensor) -> Tensor:
            logits: Tensor = model(images)
            return logits

        return answer
    frozen = copy.deepcopy(supernet).eval()
    widest = space.assignment({unit.name: unit.widest for unit in space.units})
    statistics = estimate_statistics(frozen, widest, task.train.images)

    @torch.no_grad()
    def widest_answer(images: Tensor) -> Tensor:
        logits: Tensor = frozen(images, widest, statistics=statistics)[""]
        return logits

    return widest_answer


def _parts(task: Task) -> dict[str, Split]:
    return {"test": task.test, "validation": task.validation}


def _accuracies(model: IntegerModel, supernet: Supernet, task: Task) -> dict[str, float]:
    """Share of right answers of the integer model with its policy, by split."""
    shares = {}
    for name, split in _parts(task).items():
        answers = run_model(model, supernet.encode(split.images)).logits.argmax(axis=1)
        shares[name] = float((answers == split.labels.numpy()).mean())
    return shares


# --- training ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Job:
    """What to train a menu with. `floor` is the choice that meets the budget in every column."""

    limits: Limits
    floor: Choice
    task: Task
    epochs: int
    seed: int
    schedule: BitGateSchedule
    progress: Progress

    @property
    def problem(self) -> Problem:
        return self.limits.problem

    def choices(self, gates: BitGates) -> list[dict[str, Precision]]:
        return choices_of(gates.chains, gates.levels, self.floor)

    def judge(self, supernet: Supernet, gates: BitGates) -> Judgement:
        """All entries on the search split, averaged."""
        meter, menu = Meter(supernet=supernet, task=self.task), self.problem.with_choices(self.choices(gates))
        if menu.kind.shares_trunk:
            return meter.judge(menu.entries[-1].assignment, self.problem.exits)
        found = [meter.judge(entry.assignment, (entry.exit,)) for entry in menu.entries]
        return Judgement(errors=float(np.mean([one.errors for one in found])), loss=float(np.mean([one.loss for one in found])))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Trained:
    """A menu within every worst-case limit, the supernet whose weights are trained for it, and what is worth telling."""

    supernet: Supernet
    menu: Menu
    notes: dict[str, str]


def _train(job: _Job, supernet: Supernet, teacher: Teacher) -> _Trained:
    """BitGates and weights under the limits, then weights alone; what training made worse on the search split is taken back."""
    problem, student = job.problem, copy.deepcopy(supernet)
    free = sum(len(unit.precisions) > 1 for unit in problem.space.units)
    chains = measure_chains(
        Meter(supernet=student, task=job.task), problem.space, problem.unit_prices(), job.floor,
        exits=problem.exits, progress=_shifted(job.progress, 0, free + job.epochs),
    )  # fmt: skip
    excess = job.limits.of_levels(chains, job.floor)
    first = cgmq.start(chains, start_levels(job.limits, chains, job.floor), excess, rate=GATE_RATE)
    run = GatedRun(
        supernet=student, task=job.task, space=problem.space, menu=problem.menu, fixed=job.floor, excess=excess,
        teacher=teacher, schedule=job.schedule,
    )  # fmt: skip
    training = GatedTraining(run, epochs=job.epochs, seed=job.seed, progress=_shifted(job.progress, free, free + job.epochs))
    began, _ = cgmq.settle(first, np.ones_like(first.values), excess)
    moved, fell = training.move_gates(first)
    kept = min((moved, began), key=lambda gates: job.judge(student, gates))
    training.tune(kept)
    before, after = job.judge(supernet, began), job.judge(student, kept)
    if before.errors < after.errors:
        student, kept = supernet, began
    choices = in_order(job.limits, kept, job.floor)
    notes = {
        "gates": f"rule {job.schedule.rule}: levels {_text(began)} became {_text(moved)}, kept {_text(kept)}; "
        f"limits met after {fell} more falling updates of at most {cgmq.termination_bound(first)}",
        "training": f"errors of the entries on the search split {before.errors:.2%}, after training {after.errors:.2%}",
        "integer_programme": "losses by unit, summed: " + gap_note(chains, kept.levels, job.limits.slack_us(choices)),
    }
    return _Trained(supernet=student, menu=problem.with_choices(choices), notes=notes)


def _shifted(progress: Progress, before: int, steps: int) -> Progress:
    """A part of a longer work of `steps`, of which `before` were done when it began."""

    def report(done: int, total: int, note: str = "") -> None:
        progress(before + done, steps, note)

    return report


def _text(gates: BitGates) -> str:
    return "/".join("".join(map(str, row)) for row in gates.levels) or "none"


def start_levels(limits: Limits, chains: Sequence[Chain], floor: Choice) -> Levels:
    """The integer programme's levels for each column at the front point's own latency, or at the highest share of it allowed.

    What units share (a kernel's code, weights stored for another column) is in no unit's price: limits are checked exactly.
    """
    problem, excess = limits.problem, limits.of_levels(chains, floor)
    prices = {unit: {one.precision: one.latency_us for one in table} for unit, table in problem.unit_prices().items()}
    choices = [choice_of(problem.space, entry.assignment) for entry in problem.menu.entries[: problem.columns]]
    spent = [sum(prices[chain.unit][choice[chain.unit]] for chain in chains) for choice in choices]
    for share in np.linspace(1.0, 0.0, START_SHARES):
        rows = [best_levels(chains, float(share) * latency) for latency in spent]
        levels = np.array(rows, dtype=np.int64).reshape(problem.columns, len(chains))
        if not (excess(levels) > 0).any():
            return levels
    return np.zeros((problem.columns, len(chains)), dtype=np.int64)


def in_order(limits: Limits, gates: BitGates, floor: Choice) -> list[dict[str, Precision]]:
    """The choice of each column, cheapest first as a menu must have them, unless that order breaks a limit."""
    levels = gates.levels
    order = np.argsort([summed_latency(gates.chains, [int(level) for level in row]) for row in levels], kind="stable")
    ordered = choices_of(gates.chains, levels[order], floor)
    return ordered if not (limits.excess(ordered) > 0).any() else choices_of(gates.chains, levels, floor)
