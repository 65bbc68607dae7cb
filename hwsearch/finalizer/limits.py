"""What a menu may cost, checked exactly and in device units, and the refusal of budgets that no menu of its kind meets.

Two kinds of limits hold at once: the user's budget, and the promise of the front point that is being finalized, whose
latencies no training may exceed. Bit gates see them per column: the entry (or entries) that one set of gates decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import InfeasibleBudget
from hwsearch.finalizer.cgmq import Chain, Excess, Levels
from hwsearch.graph.menu import Menu, PolicyShape
from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.graph.space import SearchSpace
from hwsearch.hardware.cost import Budget, Cost, PolicyCost
from hwsearch.pricing.cost_model import CostModel, UnitPrice
from hwsearch.pricing.feasibility import fastest_assignment, smallest_assignment
from hwsearch.pricing.knapsack import choose

Choice = Mapping[str, Precision]
"""A precision for every unit of the space."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """Menus of one kind and number of entries, how they are priced, and the budget they must meet.

    `menu` gives the kind and the exits; `policy` is what picks among its entries.
    """

    menu: Menu
    policy: PolicyShape
    space: SearchSpace
    costs: CostModel
    budget: Budget

    @property
    def columns(self) -> int:
        """Sets of gates a menu needs: one per entry, but a single one where the entries share an assignment."""
        return 1 if self.menu.kind.shares_trunk else len(self.menu.entries)

    @property
    def exits(self) -> tuple[str, ...]:
        """All exits at which an inference may end, the last one's included."""
        return tuple(dict.fromkeys(entry.exit for entry in self.menu.entries))

    def with_choices(self, choices: Sequence[Choice]) -> Menu:
        """The menu with new assignments, one choice per column."""
        assignments = [self.space.assignment(choice) for choice in choices]
        last = len(assignments) - 1
        entries = [replace(entry, assignment=assignments[min(k, last)]) for k, entry in enumerate(self.menu.entries)]
        return replace(self.menu, entries=tuple(entries))

    def paths(self, choices: Sequence[Choice]) -> tuple[Cost, ...]:
        """Price of the whole inference ending at each entry."""
        return self.costs.paths(self.with_choices(choices), self.policy)

    def unit_prices(self) -> dict[str, list[UnitPrice]]:
        """What each precision of each unit adds to the longest inference."""
        return self.costs.unit_prices(self.space, exits=self.exits)


def choice_of(space: SearchSpace, assignment: BitAssignment) -> dict[str, Precision]:
    """The precision each unit takes in an assignment."""
    chosen: dict[str, Precision] = {}
    for unit in space.units:
        weighted = [name for name in unit.ops if space.network[name].has_weights]
        chosen[unit.name] = assignment[(weighted or list(unit.ops))[0]]
    return chosen


def choices_of(chains: Sequence[Chain], levels: Levels, fixed: Choice) -> list[dict[str, Precision]]:
    """The choice of every column that levels `[columns, gated units]` stand for; other units are as in `fixed`."""
    return [
        {**fixed, **{chain.unit: chain.options[int(level)].precision for chain, level in zip(chains, row, strict=True)}}
        for row in levels
    ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Limits:
    """The budget and the promise.

    `shares`: of inputs that end at each entry, for the mean limits during training; the certificate settles the mean
    afterwards. `promise_us[k]`: latency of path k that no budget but the front point sets.
    """

    problem: Problem
    shares: tuple[float, ...]
    promise_us: tuple[float, ...]

    def excess(self, choices: Sequence[Choice]) -> NDArray[np.float64]:
        """Largest share over any limit that each column answers for, `[columns]`; 0 or less is met.

        A path's limits are answered for by every column that runs on it, the mean and what all share by every column.
        """
        paths = self.problem.paths(choices)
        own = np.array([self._path_excess(path, promise) for path, promise in zip(paths, self.promise_us, strict=True)])
        over = self.problem.budget.excess(PolicyCost.of_paths(paths, self.shares))
        mean = max((share for name, share in over.items() if name.startswith("mean_")), default=-np.inf)
        return np.asarray(np.maximum(self._by_column(own, np.maximum), mean))

    def _path_excess(self, path: Cost, promise_us: float) -> float:
        budget = self.problem.budget.hard().excess(PolicyCost(mean=path, worst=path))
        return max(*budget.values(), path.latency_us / promise_us - 1.0) if budget else path.latency_us / promise_us - 1.0

    def _by_column(self, of_paths: NDArray[np.float64], fold: np.ufunc) -> NDArray[np.float64]:
        """Reduce a number per path, `[paths]`, over the paths that each column runs on, `[columns]`."""
        if self.problem.columns == 1:
            return np.array([fold.reduce(of_paths)])
        if self.problem.menu.kind.escalates:  # entry k runs on its own path and on every later one
            return np.asarray(fold.accumulate(of_paths[::-1])[::-1])
        return of_paths

    def of_levels(self, chains: Sequence[Chain], fixed: Choice) -> Excess:
        """The same check for gates: levels `[columns, gated units]` in `chains`, all other units as in `fixed`."""
        known: dict[bytes, NDArray[np.float64]] = {}

        def excess(levels: Levels) -> NDArray[np.float64]:
            key = levels.tobytes()
            if key not in known:
                known[key] = self.excess(choices_of(chains, levels, fixed))
            return known[key]

        return excess

    def slack_us(self, choices: Sequence[Choice]) -> list[float]:
        """How much longer each column's entry could take, all others as they are, before a limit on the worst latency breaks."""
        hard = self.problem.budget.latency_us or np.inf
        limits = np.minimum(np.array(self.promise_us), hard)
        slack = limits - np.array([path.latency_us for path in self.problem.paths(choices)])
        return [float(one) for one in self._by_column(slack, np.minimum)]


def limits_of(problem: Problem, floor: Choice, shares: Sequence[float]) -> Limits:
    """Limits for the front point whose menu the problem holds and whose inputs ended in `shares`.

    Where the floor is slower than the point, the promise is the floor's latency. If even the floor would break a mean limit
    at these shares, training reckons with all inputs at the first entry.
    """
    start = problem.costs.paths(problem.menu, problem.policy)
    least = problem.paths([floor] * problem.columns)
    return Limits(
        problem=problem,
        shares=tuple(shares) if problem.budget.is_met(PolicyCost.of_paths(least, shares)) else first_only(len(start)),
        promise_us=tuple(max(path.latency_us, low.latency_us) for path, low in zip(start, least, strict=True)),
    )


def first_only(entries: int) -> tuple[float, ...]:
    """Shares if every input ends at the first entry."""
    return (1.0, *[0.0] * (entries - 1))


# --- the floor --------------------------------------------------------------------------------------------------------


def find_floor(problem: Problem) -> dict[str, Precision]:
    """The cheapest choice for all columns with which a menu of this kind meets the budget, every input at its first entry.

    Tried in order: the fastest precisions, the fastest within the flash limit (integer programme), the narrowest.
    Raises InfeasibleBudget with the limit that binds, the op that holds most of it, and what the cheapest such menu costs.
    """
    tried: list[tuple[float, str, dict[str, Precision], PolicyCost]] = []
    for choice in _floor_candidates(problem):
        cost = PolicyCost.of_paths(problem.paths([choice] * problem.columns), first_only(len(problem.menu.entries)))
        excess = problem.budget.excess(cost)
        binding = max(excess, key=lambda name: excess[name], default="")
        if not binding or excess[binding] <= 0:
            return choice
        tried.append((excess[binding], binding, choice, cost))
    _, binding, choice, cost = min(tried, key=lambda one: one[0])
    raise InfeasibleBudget(_refusal(problem, binding, choice, cost))


def _floor_candidates(problem: Problem) -> list[dict[str, Precision]]:
    space, costs = problem.space, problem.costs
    fastest = choice_of(space, fastest_assignment(space, costs))
    within = _fastest_within_flash(problem, fastest)
    return [fastest, *([within] if within else []), choice_of(space, smallest_assignment(space))]


def _fastest_within_flash(problem: Problem, fastest: Choice) -> dict[str, Precision] | None:
    """The integer programme's answer, taking what units do not hold (code, constants) as with the fastest choice."""
    if problem.budget.flash_bytes is None:
        return None
    units, prices = problem.space.units, problem.unit_prices()
    used = sum(price.flash_bytes for unit in units for price in prices[unit.name] if price.precision == fastest[unit.name])
    beside = problem.paths([fastest] * problem.columns)[0].flash_bytes - used
    latencies = [[price.latency_us for price in prices[unit.name]] for unit in units]
    sizes = [[float(price.flash_bytes) for price in prices[unit.name]] for unit in units]
    try:
        picked = choose(latencies, {"flash_bytes": sizes}, {"flash_bytes": problem.budget.flash_bytes - beside})
    except InfeasibleBudget:
        return None
    return {unit.name: prices[unit.name][index].precision for unit, index in zip(units, picked, strict=True)}


def _refusal(problem: Problem, binding: str, choice: Choice, cost: PolicyCost) -> str:
    quantity = binding.removeprefix("mean_")
    needed = getattr(cost.mean if binding.startswith("mean_") else cost.worst, quantity)
    op, share = _binding_op(problem, quantity, choice)
    menu, worst = problem.menu, cost.worst
    return (
        f"The budget must be reachable, but {binding} is limited to {problem.budget.limits()[binding]:.6g} and the cheapest "
        f"{menu.kind} model with {len(menu.entries)} entries needs {needed:.6g} (in the worst case {worst.latency_us:.6g} us, "
        f"{worst.energy_uj:.6g} uJ, {worst.flash_bytes} B of flash, {worst.ram_bytes} B of RAM; op {op} holds {share:.0%}); "
        "raise that limit, choose a front point with fewer entries, or allow narrower widths."
    )


_PRICE_FIELD = {
    "latency_us": "latency_us", "energy_uj": "energy_uj", "flash_bytes": "weight_bytes", "ram_bytes": "scratch_bytes",
}  # fmt: skip


def _binding_op(problem: Problem, quantity: str, choice: Choice) -> tuple[str, float]:
    """The op with the largest part of a quantity (of flash: weights; of RAM: scratch), and its share among all ops."""
    prices = problem.costs.breakdown(problem.space.assignment(choice), exits=problem.exits)
    parts = {price.op: float(getattr(price, _PRICE_FIELD[quantity])) for price in prices}
    largest = max(parts, key=lambda name: parts[name])
    return largest, parts[largest] / (sum(parts.values()) or 1.0)
