"""Menus by integer programme: what each precision of each unit costs in loss, what in microseconds, and the best of both.

Sensitivity = loss on the search split when one unit takes a precision and all others their widest, minus the loss with all at
their widest (as in HAWQ-V3, arXiv 2011.10680, with the loss itself in place of its second-order estimate). An
assignment's estimated loss is the sum over its units; the programme minimises it exactly below a latency. The same programme
swept over latencies, without any training, is the static preview.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from hwsearch.errors import InfeasibleBudget
from hwsearch.graph.capture import Captured
from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind, PolicyShape
from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.graph.space import SearchSpace
from hwsearch.hardware.cost import Budget, PolicyCost
from hwsearch.pricing.cost_model import CostModel, UnitPrice
from hwsearch.pricing.feasibility import require_reachable
from hwsearch.pricing.knapsack import choose
from hwsearch.progress import Progress, silent
from hwsearch.quantizers.calibrate import untrained_supernet
from hwsearch.quantizers.evaluation import PathEvaluation
from hwsearch.results.front import FrontPoint, ParetoFront
from hwsearch.study.evaluate import Material, build, evaluate_assignment
from hwsearch.study.proposal import PrecisionSets, Proposal
from hwsearch.tasks.float_training import train_float
from hwsearch.tasks.task import Task

Sensitivities = dict[str, dict[str, float]]
"""Added loss by unit and precision (as text)."""
EvaluateAll = Callable[[Sequence[BitAssignment]], Mapping[str, PathEvaluation]]
"""Assignments to their evaluations, by the assignment's key."""

TIE_BREAK = 1e-6
"""Loss that the whole latency of the widest assignment is worth: of equally good precisions the faster is taken."""
MAX_TIGHTENINGS = 5
PREVIEW_FLOAT_EPOCHS = 30


def probes(space: SearchSpace) -> dict[str, dict[str, BitAssignment]]:
    """The assignments whose losses give the sensitivities, by unit and precision: one unit at each, the others widest."""
    widest = {unit.name: unit.widest for unit in space.units}
    return {
        unit.name: {str(precision): space.assignment({**widest, unit.name: precision}) for precision in unit.precisions}
        for unit in space.units
    }


def measure_sensitivities(space: SearchSpace, evaluate_all: EvaluateAll) -> Sensitivities:
    """Added loss of every precision of every unit; never negative, since a gain would be noise."""
    wanted = probes(space)
    distinct = {assignment.key: assignment for options in wanted.values() for assignment in options.values()}
    losses = {key: float(result.losses[-1].mean()) for key, result in evaluate_all(list(distinct.values())).items()}
    widest = losses[space.assignment({unit.name: unit.widest for unit in space.units}).key]
    return {
        unit: {precision: max(0.0, losses[assignment.key] - widest) for precision, assignment in options.items()}
        for unit, options in wanted.items()
    }


class MenuBuilder:
    """Turns a trial's wishes into the menu that serves them best by the measured sensitivities."""

    def __init__(self, space: SearchSpace, costs: CostModel, sensitivities: Sensitivities, budget: Budget) -> None:
        self._space = space
        self._costs = costs
        self._sensitivities = sensitivities
        self._prices = costs.unit_prices(space)
        widest = space.assignment({unit.name: unit.widest for unit in space.units})
        own_flash = sum(_priced(self._prices[unit.name], unit.widest).flash_bytes for unit in space.units)
        self._shared_flash = costs.price(widest).flash_bytes - own_flash  # kernels and run time, in no unit
        self._flash_budget = budget.flash_bytes
        self._fastest_us = sum(min(option.latency_us for option in options) for options in self._prices.values())
        self._widest_us = costs.price(widest).latency_us
        self._slowest_us = min(self._widest_us, budget.latency_us or self._widest_us)

    def latency_us(self, target: float) -> float:
        """The latency at a place between the fastest assignment (0) and the widest or the budget (1)."""
        return self._fastest_us + target * max(0.0, self._slowest_us - self._fastest_us)

    def assignment(self, sets: PrecisionSets, target: float) -> BitAssignment:
        """The least sensitive assignment within the sets and the latency of `target`; the fastest in the sets if none is."""
        options = [self._options(unit.name, sets[unit.name]) for unit in self._space.units]
        names = [unit.name for unit in self._space.units]
        scores = [[self._score(name, option) for option in row] for name, row in zip(names, options, strict=True)]
        latencies = [[option.latency_us for option in row] for row in options]
        flash = [[float(option.flash_bytes) for option in row] for row in options]
        limit_us = max(self.latency_us(target), sum(min(row) for row in latencies))
        costs = {"latency_us": latencies, "flash_bytes": flash}

        def within(**limits: float) -> BitAssignment:
            choice = choose(scores, costs, limits)
            picked = {name: row[index].precision for name, row, index in zip(names, options, choice, strict=True)}
            return self._space.assignment(picked)

        return self._fit_flash(within, limit_us)

    def _fit_flash(self, within: Callable[..., BitAssignment], limit_us: float) -> BitAssignment:
        """Solve with ever lower limits on the units' flash until the price, kernels included, keeps the budget's.

        Kernels are shared between units and so in none; how many are needed is known only once the widths are chosen.
        Where nothing fits, the best without that limit is left to be refused by its price.
        """
        found = within(latency_us=limit_us)
        if self._flash_budget is None:
            return found
        unit_limit = self._flash_budget - self._shared_flash
        try:
            for _ in range(MAX_TIGHTENINGS):
                fitting = within(latency_us=limit_us, flash_bytes=unit_limit)
                excess = self._costs.price(fitting).flash_bytes - self._flash_budget
                if excess <= 0:
                    return fitting
                unit_limit -= excess
        except InfeasibleBudget:
            pass
        return found

    def _options(self, unit: str, allowed: Iterable[Precision]) -> list[UnitPrice]:
        return [price for price in self._prices[unit] if price.precision in set(allowed)]

    def _score(self, unit: str, option: UnitPrice) -> float:
        return self._sensitivities[unit][str(option.precision)] + TIE_BREAK * option.latency_us / self._widest_us

    def menu(self, proposal: Proposal) -> tuple[Menu, PolicyShape]:
        """The menu, and the policy to go with it: a dynamic one whose entries coincide is static."""
        chosen = [self.assignment(proposal.sets, target) for target in proposal.targets]
        kind = proposal.policy.kind
        if kind.shares_trunk:
            entries = tuple(MenuEntry(assignment=chosen[0], exit=name) for name in (*proposal.exits, ""))
            return Menu(kind=kind, entries=entries), proposal.policy
        distinct = list(dict.fromkeys(chosen))
        if len(distinct) == 1:
            entry = MenuEntry(assignment=distinct[0])
            return Menu(kind=PolicyKind.STATIC, entries=(entry,)), PolicyShape(kind=PolicyKind.STATIC)
        return self._ordered(kind, distinct), _shortened(proposal.policy, len(distinct))

    def _ordered(self, kind: PolicyKind, assignments: Sequence[BitAssignment]) -> Menu:
        """A menu of whole-trunk assignments, from the fastest to the slowest with weights stored as this menu stores them."""
        menu = Menu(kind=kind, entries=tuple(MenuEntry(assignment=one) for one in assignments))
        stored = menu.stored_bits(self._space.network)
        latencies = {one: self._costs.price(one, stored_bits=stored).latency_us for one in assignments}
        return Menu(kind=kind, entries=tuple(sorted(menu.entries, key=lambda entry: latencies[entry.assignment])))


def _priced(options: Sequence[UnitPrice], precision: Precision) -> UnitPrice:
    return next(option for option in options if option.precision == precision)


def _shortened(policy: PolicyShape, entries: int) -> PolicyShape:
    """The policy with one escalation share per decision that is left, where entries escalate."""
    return replace(policy, escalation=policy.escalation[: entries - 1])


def preview(
    task: Task,
    space: SearchSpace,
    costs: CostModel,
    budget: Budget | None = None,
    *,
    float_model: nn.Module | None = None,
    seed: int = 0,
    n_points: int = 16,
    captured: Captured | None = None,
    progress: Progress = silent,
) -> ParetoFront:
    """A front of static models in seconds: post-training quantization, sensitivities, integer programme; nothing is trained.

    Without `float_model` the task's model is trained in float first. `n_points` latencies are swept; what lies outside
    the budget is left out; `captured` spares a second export of a captured network. Accuracies are of the search split and
    rise with training: read them as an order, not a promise.
    """
    limits = budget or Budget()
    require_reachable(space, costs, limits)
    trained = float_model or train_float(task, epochs=PREVIEW_FLOAT_EPOCHS, seed=seed)
    supernet = untrained_supernet(task, space, trained, seed=seed, captured=captured)
    bench = build(Material.of(supernet, task, space))
    total = sum(len(options) for options in probes(space).values()) + n_points
    known: dict[str, PathEvaluation] = {}

    def evaluate_all(assignments: Sequence[BitAssignment]) -> Mapping[str, PathEvaluation]:
        for one in assignments:
            if one.key not in known:
                known[one.key] = evaluate_assignment(bench, one.key)
                progress(min(len(known), total), total, "measuring sensitivities")
        return {one.key: known[one.key] for one in assignments}

    builder = MenuBuilder(space, costs, measure_sensitivities(space, evaluate_all), limits)
    swept = static_assignments(space, builder, n_points)
    results = evaluate_all(swept)
    points = [_static_point(costs, number, one, results[one.key].accuracy) for number, one in enumerate(swept)]
    progress(total, total, f"{len(points)} assignments")
    return ParetoFront(
        points=tuple(point for point in points if limits.is_met(point.cost)),
        profile=costs.profile.name, task=task.name, space=space.name, seed=seed,
    )  # fmt: skip


def static_assignments(space: SearchSpace, builder: MenuBuilder, n_points: int) -> list[BitAssignment]:
    """The least sensitive assignments at evenly spaced latencies, each once, from the fastest on."""
    whole = {unit.name: unit.precisions for unit in space.units}
    swept = [builder.assignment(whole, float(target)) for target in np.linspace(0.0, 1.0, n_points)]
    return list(dict.fromkeys(swept))


def _static_point(costs: CostModel, number: int, assignment: BitAssignment, accuracy: float) -> FrontPoint:
    menu = Menu(kind=PolicyKind.STATIC, entries=(MenuEntry(assignment=assignment),))
    return FrontPoint(
        trial=number, menu=menu, policy=PolicyShape(kind=PolicyKind.STATIC), accuracy=accuracy, shares=(1.0,),
        cost=PolicyCost.of_paths(costs.paths(menu), (1.0,)),
    )  # fmt: skip
