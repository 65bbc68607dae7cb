"""The exact integer programme behind menus and budgets: one option per unit, lowest total score, every limit kept.

A multiple-choice knapsack (Kellerer, Pferschy, Pisinger, Knapsack Problems, 2004, chapter 11), solved to optimality by
HiGHS. The solver works with tolerances; a solution that exceeds a limit by rounding is cut off and the next best one found.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import LinearConstraint, OptimizeResult, milp
from scipy.sparse import csr_array

from hwsearch.errors import InfeasibleBudget

Table = Sequence[Sequence[float]]
"""A number for each option of each unit: `[units][options]`."""

SCORE_SCALE = 1e4
"""Scores are brought to this size: HiGHS stops at an absolute gap of 1e-6."""
MAX_CUTS = 200

Floats = NDArray[np.float64]


def choose(scores: Table, costs: Mapping[str, Table], limits: Mapping[str, float]) -> list[int]:
    """The option of each unit that minimises the sum of scores while the sum of each cost keeps its limit.

    `costs` may hold more than `limits` names; costs without a limit do not matter. Raises InfeasibleBudget if no choice
    keeps all limits.

    >>> choose([[0.0, 5.0], [0.0, 1.0]], {"latency_us": [[9.0, 2.0], [9.0, 2.0]]}, {"latency_us": 11.0})
    [0, 1]
    """
    _require_reachable(costs, limits)
    kept = [_undominated(unit, row, costs, limits) for unit, row in enumerate(scores)]
    reduced = {name: _only(kept, costs[name]) for name in limits}
    choice = _best_of_each(_only(kept, scores))
    if any(_total(reduced[name], choice) > limit for name, limit in limits.items()):
        choice = _programme(_only(kept, scores), reduced, limits)
    return [row[index] for row, index in zip(kept, choice, strict=True)]


def _undominated(unit: int, scores: Sequence[float], costs: Mapping[str, Table], limits: Mapping[str, float]) -> list[int]:
    """Options of a unit than which no other is as good in score and every limited cost; of equal ones the first."""
    rows = [(score, *(costs[name][unit][index] for name in limits)) for index, score in enumerate(scores)]

    def beats(one: int, other: int) -> bool:
        no_worse = all(a <= b for a, b in zip(rows[one], rows[other], strict=True))
        return no_worse and (rows[one] != rows[other] or one < other)

    places = range(len(rows))
    return [index for index in places if not any(beats(other, index) for other in places if other != index)]


def _only(kept: Sequence[Sequence[int]], table: Table) -> list[list[float]]:
    return [[row[index] for index in indices] for row, indices in zip(table, kept, strict=True)]


def _best_of_each(scores: Table) -> list[int]:
    """The choice if there were no limits."""
    return [min(range(len(row)), key=row.__getitem__) for row in scores]


def _programme(scores: Table, costs: Mapping[str, Table], limits: Mapping[str, float]) -> list[int]:
    """Solve by HiGHS; every limit can be kept alone."""
    sizes = [len(options) for options in scores]
    unit = np.repeat(np.arange(len(sizes)), sizes)
    flat = _flat(scores)
    objective = (flat - flat.min()) * (SCORE_SCALE / max(float(np.ptp(flat)), 1e-300))
    constraints = [LinearConstraint(_one_hot(unit, len(sizes)), 1, 1)]
    for name, limit in limits.items():
        scale = abs(limit) or 1.0
        constraints.append(LinearConstraint(_flat(costs[name])[None, :] / scale, -np.inf, limit / scale))
    for _ in range(MAX_CUTS):
        picked = _solve(objective, constraints, costs, limits)
        choice = [int(np.argmax(picked[unit == index])) for index in range(len(sizes))]
        if all(_total(costs[name], choice) <= limit for name, limit in limits.items()):
            return choice
        constraints.append(LinearConstraint((picked > 0.5).astype(float)[None, :], -np.inf, len(sizes) - 1))
    raise ArithmeticError(f"{MAX_CUTS} solutions of the integer programme exceed a limit by rounding alone; scale the costs")


def _require_reachable(costs: Mapping[str, Table], limits: Mapping[str, float]) -> None:
    for name, limit in limits.items():
        cheapest = _total(costs[name], [int(np.argmin(options)) for options in costs[name]])
        if cheapest > limit:
            raise InfeasibleBudget(
                f"The limit on {name} must be reachable, but is {limit:.6g} and the cheapest choice needs {cheapest:.6g}; "
                "raise it, allow narrower widths, or choose a smaller network."
            )


def _solve(
    objective: Floats, constraints: list[LinearConstraint], costs: Mapping[str, Table], limits: Mapping[str, float]
) -> Floats:
    result: OptimizeResult = milp(
        objective, integrality=np.ones_like(objective), bounds=(0, 1), constraints=constraints, options={"mip_rel_gap": 0.0}
    )
    if result.x is None:
        raise InfeasibleBudget(_conflict(costs, limits))
    return np.asarray(result.x, dtype=np.float64)


def _conflict(costs: Mapping[str, Table], limits: Mapping[str, float]) -> str:
    """Every limit can be kept alone, but not all together: say how low the last can go while the others hold."""
    names = list(limits)
    last = names[-1]
    others = {name: limits[name] for name in names[:-1]}
    within = f"the limits on {', '.join(others)} alone can be kept"
    try:
        choice = choose(costs[last], costs, others)
        within = f"within {', '.join(f'{name} <= {limit:.6g}' for name, limit in others.items())} the lowest {last} is "
        within += f"{_total(costs[last], choice):.6g}"
    except InfeasibleBudget as error:
        within = str(error).rstrip(".")
    return (
        f"The limits on {', '.join(names)} must be reachable together, but {last} is limited to {limits[last]:.6g} and "
        f"{within}; raise one of them."
    )


def _flat(table: Table) -> Floats:
    return np.concatenate([np.asarray(options, dtype=np.float64) for options in table])


def _one_hot(unit: NDArray[np.intp], units: int) -> csr_array:
    return csr_array((np.ones(len(unit)), (unit, np.arange(len(unit)))), shape=(units, len(unit)))


def _total(table: Table, choice: Sequence[int]) -> float:
    return float(sum(options[index] for options, index in zip(table, choice, strict=True)))
