"""The last step of finalizing: fold to integers, refit the policy, certify the mean on images nothing else has seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import InfeasibleBudget
from hwsearch.finalizer.certificate import MeanBound, MeanLimit, bound_mean, climb
from hwsearch.finalizer.policy_ladder import Answers, build_ladder, decisions, entry_results
from hwsearch.graph.menu import Menu, PolicyKind, PolicyShape
from hwsearch.hardware.cost import Budget, Cost, PolicyCost
from hwsearch.integers.integer_model import IntegerModel
from hwsearch.quantizers.calibrate import estimate_statistics
from hwsearch.quantizers.fold import fold_model
from hwsearch.quantizers.supernet import Supernet
from hwsearch.quantizers.uniform import InputQuantizer
from hwsearch.results.final_model import Certificate
from hwsearch.tasks.task import Task


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Folded:
    """Integers without a policy yet, and what all entries answer to the images that fit and certify one."""

    model: IntegerModel
    quantizer: InputQuantizer
    search: Answers
    calibration: Answers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Certified:
    """The finished model; `shares[k]` of the calibration images end at entry k."""

    model: IntegerModel
    shares: tuple[float, ...]
    cost: PolicyCost
    certificate: Certificate
    notes: Mapping[str, str]


def fold(supernet: Supernet, menu: Menu, task: Task) -> Folded:
    """Fold every entry with its own batch norm statistics of the training images."""
    supernet.eval()
    last = len(menu.entries) - 1
    paths = [
        (entry.assignment, menu.exits_passed(last if menu.kind.shares_trunk else index))
        for index, entry in enumerate(menu.entries)
    ]
    known = {path: estimate_statistics(supernet, path[0], task.train.images, exits=path[1]) for path in dict.fromkeys(paths)}
    statistics = [known[path] for path in paths]
    # a controller is fitted to the entries' integer answers, so they are folded first, as a cascade would be
    bare = replace(menu, kind=PolicyKind.CASCADE) if menu.kind.has_controller else menu
    thresholds = [0.0] * (len(menu.entries) - 1) if bare.kind.escalates else []
    model = fold_model(supernet, bare, statistics, thresholds=thresholds)
    if menu.kind.has_controller:
        model = replace(model, menu=menu, thresholds=())
    search, calibration = supernet.encode(task.search_split.images), supernet.encode(task.calibration_split.images)
    return Folded(
        model=model, quantizer=supernet.input_quantizer,
        search=Answers.of(model, search), calibration=Answers.of(model, calibration),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mean:
    """The price of each path and the budget; what the budget limits of the mean is what the certificate tests."""

    paths: Sequence[Cost]
    budget: Budget

    @property
    def limits(self) -> list[MeanLimit]:
        latency = tuple(path.latency_us for path in self.paths)
        energy = tuple(path.energy_uj for path in self.paths)
        pairs = ((self.budget.mean_latency_us, latency), (self.budget.mean_energy_uj, energy))
        return [MeanLimit(limit=limit, path_costs=costs) for limit, costs in pairs if limit is not None]


def certify(folded: Folded, policy: PolicyShape, task: Task, mean: Mean, *, seed: int, delta: float) -> Certified:
    """Fit the policy on the search split; take the highest rung of its ladder whose mean cost is certified.

    Without a limit on the mean the fitted policy is taken and its mean bounded. Raises InfeasibleBudget if even the first
    entry alone costs more than a mean limit.
    """
    results = entry_results(folded.model, folded.search, task.search_split, mean.paths)
    ladder = build_ladder(folded.model, policy, results, folded.search, quantizer=folded.quantizer, seed=seed)
    taken = [decisions(rung, folded.calibration) for rung in ladder]
    index = len(ladder) - 1
    if mean.limits:
        over = [limit for limit in mean.limits if limit.path_costs[0] > limit.limit]
        if over:
            raise InfeasibleBudget(
                f"A mean limit must allow the first entry, but is {over[0].limit:.6g} and that entry costs "
                f"{over[0].path_costs[0]:.6g}; raise the limit or choose a cheaper front point."
            )
        # the first rung ends every input at the first entry: its mean is that price, and needs no statistics
        index = 1 + climb(taken[1:], mean.limits, delta) if len(ladder) > 1 else 0
    entries = taken[index]
    shares = np.bincount(entries, minlength=len(mean.paths)) / len(entries)
    cost = PolicyCost.of_paths(mean.paths, tuple(float(share) for share in shares))
    return Certified(
        model=ladder[index],
        shares=tuple(float(share) for share in shares),
        cost=cost,
        certificate=_certificate(entries, mean, rung=index, rungs=len(ladder), delta=delta),
        notes={"policy": f"rung {index} of {len(ladder) - 1} between the first entry alone and the fitted policy"},
    )


def _certificate(entries: NDArray[np.int64], mean: Mean, *, rung: int, rungs: int, delta: float) -> Certificate:
    """What may be said of the mean latency after the rung was chosen.

    Under a limit on it, that limit: the climb tests no lower value. Where only the energy was limited, the bound holds for all
    rungs at once (risk divided by their number), the chosen one included.
    """
    latencies = [path.latency_us for path in mean.paths]
    limited = mean.budget.mean_latency_us
    if rung == 0 and rungs > 1:
        bound = MeanBound(upper=latencies[0], observed=latencies[0], method="exact: every input ends at the first entry")
    else:
        bound = bound_mean(entries, latencies, delta / rungs if mean.limits and limited is None else delta)
        if limited is not None and rungs > 1:
            bound = replace(bound, upper=limited, method=f"fixed-sequence test of {rungs} policies, {bound.method}")
    return Certificate(
        limit_us=limited,
        bound_us=bound.upper,
        observed_mean_us=bound.observed,
        confidence=1 - delta,
        n_samples=len(entries),
        method=bound.method,
    )
