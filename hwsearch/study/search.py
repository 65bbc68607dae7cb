"""The search: Optuna proposes, the cost model prices, workers evaluate, Optuna is told, batch by batch.

One driver owns the study in memory. A batch is asked whole, what its price refuses is never evaluated, and results are told in
the order of the trials: so one seed gives one front whatever the number of workers. Each finished trial is on disk before the
next is begun; a killed search is replayed from there, asking Optuna the same questions again. This is the only file
that speaks Optuna. Samplers are chosen by measurement: TPE is better up to some 500 trials, NSGA-II beyond.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from hwsearch.errors import JobError
from hwsearch.graph.menu import Menu, PolicyShape
from hwsearch.graph.precision import BitAssignment
from hwsearch.graph.space import SearchSpace
from hwsearch.hardware.cost import DEFAULT_OBJECTIVES, OBJECTIVES, Budget, Cost, PolicyCost, check_objectives, cost_objectives
from hwsearch.predictors.parameters import Category, Parameter
from hwsearch.pricing.cost_model import CostModel
from hwsearch.pricing.feasibility import require_own_axes, require_reachable
from hwsearch.progress import Progress, silent
from hwsearch.quantizers.evaluation import PathEvaluation
from hwsearch.quantizers.supernet import Supernet
from hwsearch.results.front import FrontPoint, ParetoFront, non_dominated
from hwsearch.study.evaluate import Material, PolicyAnswer, PolicyQuestion, build, evaluate_assignment, evaluate_policy
from hwsearch.study.pool import Pool, open_pool
from hwsearch.study.preview import MenuBuilder, measure_sensitivities
from hwsearch.study.proposal import parameters, read_proposal, seeded_trials
from hwsearch.study.trial_log import TrialLog, TrialRecord
from hwsearch.tasks.task import Task
from hwsearch.version import VERSION

MOST_TPE_TRIALS = 500
NSGA2_POPULATION = 50


def search(
    supernet: Supernet,
    task: Task,
    space: SearchSpace,
    costs: CostModel,
    budget: Budget,
    *,
    n_trials: int,
    seed: int,
    objectives: Sequence[str] = DEFAULT_OBJECTIVES,
    workers: int = 1,
    ray_address: str | None = None,
    pool: Pool | None = None,
    log: Path | str | None = None,
    resume: bool = False,
    batch: int = 8,
    progress: Progress = silent,
) -> ParetoFront:
    """The front in `objectives` (names in `hardware.cost.OBJECTIVES`; accuracy is that on the search split), within the budget.

    One worker without an address is this process; more are Ray actors, on a Ray of our own or at `ray_address`; `pool`
    replaces both and stays open. With `log`, a journal is kept there, and `resume` continues it. `batch` trials are asked
    before any is told: unlike `workers` it is part of what determines the front. Raises InfeasibleBudget before any work
    if no model of the space can meet the budget, ClusterError if Ray does not answer, JobError if the objectives are not
    known ones with accuracy among them, or two are one axis on this device, or if the journal is not this search's.
    """
    aims = check_objectives(objectives)
    require_own_axes(aims, costs.profile)
    require_reachable(space, costs, budget)
    material = Material.of(supernet, task, space)
    header = _header(material, task, costs, budget, aims, seed=seed, batch=batch, n_trials=n_trials)
    with TrialLog.open(log, header, resume=resume) as journal, ExitStack() as stack:

        def opened() -> Pool:
            made = pool if pool is not None else stack.enter_context(closing(open_pool(workers, ray_address)))
            made.share(build, material)
            return made

        evaluator = _Evaluator(_LazyPool(opened), seed)
        report = _Report(n_trials, progress, aims)
        trials = _Trials(space, costs, budget, aims, journal=journal, evaluator=evaluator, report=report)
        trials.run(_create_study(space, aims, n_trials, seed), n_trials, batch)
        points = tuple(trial.point for trial in journal.trials.values() if trial.point and trial.is_feasible)
    return ParetoFront(points=points, objectives=aims, profile=costs.profile.name, task=task.name, space=space.name, seed=seed)


# --- the study --------------------------------------------------------------------------------------------------------


def _sampler_name(n_trials: int) -> str:
    return "tpe" if n_trials <= MOST_TPE_TRIALS else "nsga2"


def _create_study(space: SearchSpace, objectives: Sequence[str], n_trials: int, seed: int) -> optuna.Study:
    sampler: optuna.samplers.BaseSampler
    if _sampler_name(n_trials) == "tpe":
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    else:
        sampler = optuna.samplers.NSGAIISampler(seed=seed, population_size=NSGA2_POPULATION)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=[OBJECTIVES[name].direction for name in objectives], sampler=sampler)
    optuna.logging.set_verbosity(verbosity)
    for params in seeded_trials(space):
        study.enqueue_trial(params)
    return study


def _distributions(declared: Iterable[Parameter]) -> dict[str, optuna.distributions.BaseDistribution]:
    return {
        p.name: optuna.distributions.CategoricalDistribution(p.options)
        if isinstance(p, Category)
        else optuna.distributions.FloatDistribution(p.low, p.high, log=p.log)
        for p in declared
    }


def _tell(study: optuna.Study, trial: optuna.Trial, record: TrialRecord) -> None:
    """Infeasible trials have values too: samplers rank them by their excess alone, but insist on a number."""
    for name, share in record.constraints.items():
        trial.set_constraint(name, share)
    study.tell(trial, record.values)


# --- trials -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A trial that has been priced. `excess`: shares over the budget's limits, those on means at their lowest possible."""

    number: int
    params: Mapping[str, Any]
    menu: Menu
    policy: PolicyShape
    paths: tuple[Cost, ...]
    excess: Mapping[str, float]

    @property
    def is_affordable(self) -> bool:
        return all(share <= 0 for share in self.excess.values())

    def refused(self, objectives: Sequence[str]) -> TrialRecord:
        """Valued as a model that is never right and takes the dearest way for every input."""
        worst = PolicyCost.of_paths(self.paths, (1.0, *[0.0] * (len(self.paths) - 1))).worst
        cost = PolicyCost(mean=worst, worst=worst)
        values = tuple(OBJECTIVES[name].value(0.0, cost) for name in objectives)
        return TrialRecord(number=self.number, params=self.params, constraints=self.excess, values=values)

    def judged(self, answer: PolicyAnswer, budget: Budget, objectives: Sequence[str]) -> TrialRecord:
        cost = PolicyCost.of_paths(self.paths, answer.shares)
        point = FrontPoint(
            trial=self.number, menu=self.menu, policy=self.policy, accuracy=answer.accuracy, shares=answer.shares, cost=cost
        )
        return TrialRecord(
            number=self.number, params=self.params, constraints=budget.excess(cost),
            values=point.values(objectives), point=point,
        )  # fmt: skip


class _Trials:
    """All trials of one search, those of the journal included."""

    def __init__(
        self,
        space: SearchSpace,
        costs: CostModel,
        budget: Budget,
        objectives: Sequence[str],
        *,
        journal: TrialLog,
        evaluator: "_Evaluator",
        report: "_Report",
    ) -> None:
        self._space, self._costs, self._budget, self._objectives = space, costs, budget, objectives
        self._journal, self._evaluator, self._report = journal, evaluator, report

    def run(self, study: optuna.Study, n_trials: int, batch: int) -> None:
        distributions = _distributions(parameters(self._space))
        builder = MenuBuilder(self._space, self._costs, self._sensitivities(), self._budget)
        for start in range(0, n_trials, batch):
            asked = [study.ask(distributions) for _ in range(min(batch, n_trials - start))]
            self._finish([trial for trial in asked if not self._is_known(trial)], builder)
            for trial in asked:
                _tell(study, trial, self._journal.trials[trial.number])

    def _sensitivities(self) -> dict[str, dict[str, float]]:
        if not self._journal.sensitivities:
            measured = measure_sensitivities(self._space, self._evaluate_probes)
            self._journal.add_sensitivities(measured)
        return self._journal.sensitivities

    def _evaluate_probes(self, probes: Sequence[BitAssignment]) -> Mapping[str, PathEvaluation]:
        self._report.say(f"measuring the sensitivity of {len(self._space.units)} units")
        return self._evaluator.assignments(probes)

    def _is_known(self, trial: optuna.Trial) -> bool:
        """Whether the journal has it; raises JobError if it was another trial then."""
        record = self._journal.trials.get(trial.number)
        if record is None:
            return False
        if dict(record.params) != trial.params:
            different = next(name for name in trial.params if record.params.get(name) != trial.params[name])
            raise JobError(
                f"Trial {trial.number} of the journal must be what this search asks again, but {different} was "
                f"{record.params.get(different)!r} and is now {trial.params[different]!r}; "
                "resume with the versions that began it."
            )
        self._report.finished(record)
        return True

    def _finish(self, asked: Sequence[optuna.Trial], builder: MenuBuilder) -> None:
        """Put a record of each trial in the journal: at once where the price refuses it, else when it is evaluated."""
        plans = [self._plan(trial.number, trial.params, builder) for trial in asked]
        for plan in plans:
            if not plan.is_affordable:
                self._add(plan.refused(self._objectives))

        def judged(plan: _Plan, answer: PolicyAnswer) -> None:
            self._add(plan.judged(answer, self._budget, self._objectives))

        self._evaluator.policies([plan for plan in plans if plan.is_affordable], judged)

    def _add(self, record: TrialRecord) -> None:
        self._journal.add(record)
        self._report.finished(record)

    def _plan(self, number: int, params: Mapping[str, Any], builder: MenuBuilder) -> _Plan:
        menu, policy = builder.menu(read_proposal(self._space, params))
        paths = self._costs.paths(menu, policy)
        fastest = int(np.argmin([path.latency_us for path in paths]))
        lowest = PolicyCost.of_paths(paths, [float(index == fastest) for index in range(len(paths))])
        return _Plan(number=number, params=params, menu=menu, policy=policy, paths=paths, excess=self._budget.excess(lowest))


class _Evaluator:
    """Evaluations by the pool, each assignment and each policy once."""

    def __init__(self, pool: "_LazyPool", seed: int) -> None:
        self._pool = pool
        self._seed = seed
        self._evaluations: dict[str, PathEvaluation] = {}
        self._answers: dict[tuple[Menu, PolicyShape], PolicyAnswer] = {}

    def assignments(self, wanted: Iterable[BitAssignment]) -> Mapping[str, PathEvaluation]:
        keys = list(dict.fromkeys(assignment.key for assignment in wanted))
        missing = [key for key in keys if key not in self._evaluations]
        if missing:
            results = self._pool.opened.map(evaluate_assignment, missing)
            self._evaluations.update(zip(missing, results, strict=True))
        return {key: self._evaluations[key] for key in keys}

    def policies(self, plans: Sequence[_Plan], finished: Callable[[_Plan, PolicyAnswer], None]) -> None:
        """Call `finished` with each plan and its answer, as soon as that is known."""
        asked: dict[tuple[Menu, PolicyShape], list[_Plan]] = {}
        for plan in plans:
            asked.setdefault((plan.menu, plan.policy), []).append(plan)
        new = [key for key in asked if key not in self._answers]
        evaluations = self.assignments(entry.assignment for menu, _ in new for entry in menu.entries)
        questions = [self._question(asked[key][0], evaluations) for key in new]

        def answered(index: int, answer: PolicyAnswer) -> None:
            self._answers[new[index]] = answer
            for plan in asked[new[index]]:
                finished(plan, answer)

        for key, same in asked.items():
            if key not in new:
                for plan in same:
                    finished(plan, self._answers[key])
        if questions:
            self._pool.opened.map(evaluate_policy, questions, answered)

    def _question(self, plan: _Plan, evaluations: Mapping[str, PathEvaluation]) -> PolicyQuestion:
        latencies_us = [path.latency_us for path in plan.paths]
        return PolicyQuestion.of(plan.menu, plan.policy, evaluations, latencies_us, self._seed)


class _LazyPool:
    """Workers are started when there is something to compute: a finished search that is resumed needs none."""

    def __init__(self, open_it: Callable[[], Pool]) -> None:
        self._open = open_it

    @cached_property
    def opened(self) -> Pool:
        return self._open()


# --- what is told to whom ---------------------------------------------------------------------------------------------


class _Report:
    """Progress with the front so far."""

    def __init__(self, n_trials: int, progress: Progress, objectives: Sequence[str]) -> None:
        self._n_trials = n_trials
        self._progress = progress
        self._objectives = objectives
        self._done = 0
        self._points: list[FrontPoint] = []

    def say(self, note: str) -> None:
        self._progress(self._done, self._n_trials, note)

    def finished(self, record: TrialRecord) -> None:
        self._done += 1
        if record.point is not None and record.is_feasible:
            self._points = list(non_dominated([*self._points, record.point], self._objectives))
        self.say(self._front())

    def _front(self) -> str:
        if not self._points:
            return "nothing within the budget yet"
        first = cost_objectives(self._objectives)[0]

        def told(point: FrontPoint) -> str:
            cost = first.shown(first.value(point.accuracy, point.cost))
            return f"{100 * point.accuracy:.1f} % at {cost:.3g} {first.quantity.shown}"

        ends = [told(self._points[0]), told(max(self._points, key=lambda point: point.accuracy))]
        return f"front of {len(self._points)}: {' to '.join(dict.fromkeys(ends))}"


def _header(
    material: Material,
    task: Task,
    costs: CostModel,
    budget: Budget,
    objectives: Sequence[str],
    *,
    seed: int,
    batch: int,
    n_trials: int,
) -> dict[str, Any]:
    """Everything that determines the trials, as the journal's first line keeps it; longer contents by digest."""
    space = material.space
    arrays = [part for name in sorted(material.arrays) for part in (name.encode(), material.arrays[name].tobytes())]
    return {
        "hwsearch": VERSION, "optuna": optuna.__version__, "sampler": _sampler_name(n_trials),
        "seed": seed, "batch": batch, "task": task.name, "space": space.name, "profile": costs.profile.name,
        "budget": budget.limits(), "objectives": list(objectives),
        "units": _digest(repr((space.units, space.policies)).encode()),
        "prices": _digest(repr(costs.unit_prices(space)).encode()),
        "supernet": _digest(*arrays),
        "data": _digest(*(array.tobytes() for array in (material.statistics_images, material.images, material.labels))),
    }  # fmt: skip


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]
