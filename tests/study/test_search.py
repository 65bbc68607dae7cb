"""Searches on a space small enough to enumerate, killed, resumed, and run on other numbers of workers."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from hwsearch.errors import ClusterError, InfeasibleBudget, JobError
from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind
from hwsearch.hardware.cost import OBJECTIVES, Budget, PolicyCost
from hwsearch.results.front import ParetoFront
from hwsearch.study import search as search_module
from hwsearch.study.evaluate import Material, build, evaluate_assignment
from hwsearch.study.pool import Faults, InProcessPool, Notify, RayPool, SimulatedPool, ignore

Table = Callable[[ParetoFront], str]


class CountingPool(InProcessPool):
    """Remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, Any]] = []

    def map(self, function: Any, items: Sequence[Any], finished: Notify = ignore) -> list[Any]:
        self.calls += [(function.__name__, item) for item in items]
        return super().map(function, items, finished)

    @property
    def assignments(self) -> list[str]:
        return [item for name, item in self.calls if name == "evaluate_assignment"]


# --- the enumerated space ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything(static_problem: Any) -> list[tuple[float, PolicyCost]]:
    """Accuracy and cost of every assignment of the static space."""
    p = static_problem
    bench = build(Material.of(p.supernet, p.task, p.space))
    found = []
    for choice in product(*(unit.precisions for unit in p.space.units)):
        assignment = p.space.assignment({unit.name: one for unit, one in zip(p.space.units, choice, strict=True)})
        menu = Menu(kind=PolicyKind.STATIC, entries=(MenuEntry(assignment=assignment),))
        accuracy = evaluate_assignment(bench, assignment.key).accuracy
        found.append((accuracy, PolicyCost.of_paths(p.costs.paths(menu), (1.0,))))
    assert len(found) == 27
    return found


BUDGETS = {
    "none": Budget(),
    "latency": Budget(latency_us=45.0),
    "flash": Budget(flash_bytes=1700),
    "both": Budget(latency_us=45.0, flash_bytes=1700),
    "mean": Budget(mean_latency_us=38.0),
}


@pytest.mark.parametrize(
    ("limits", "seed"),
    [
        *((name, 0) for name in BUDGETS if "flash_bytes" not in BUDGETS[name].limits()),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("flash", 0), ("both", 0), ("none", 1), ("both", 1))),
    ],
)
def test_the_front_is_the_true_one_of_an_enumerated_space(
    static_problem: Any, everything: list[tuple[float, PolicyCost]], limits: str, seed: int
) -> None:
    budget = BUDGETS[limits]
    allowed = [(accuracy, cost.mean.latency_us) for accuracy, cost in everything if budget.is_met(cost)]
    assert len(allowed) > 1 and (not budget.limits() or len(allowed) < 27)
    best = {(a, t) for a, t in allowed if not any(a2 >= a and t2 <= t and (a2, t2) != (a, t) for a2, t2 in allowed)}
    front = static_problem.search(budget, n_trials=100, seed=seed)
    assert {(point.accuracy, point.cost.mean.latency_us) for point in front.points} == best
    assert all(budget.is_met(point.cost) for point in front.points)


THREE = ("accuracy", "mean_latency", "flash")


@pytest.mark.parametrize(
    "budget", [Budget(), pytest.param(Budget(flash_bytes=1700), marks=pytest.mark.slow)], ids=["none", "flash"]
)
def test_a_front_in_three_objectives_is_the_true_one_of_an_enumerated_space(
    static_problem: Any, everything: list[tuple[float, PolicyCost]], budget: Budget
) -> None:
    allowed = [(a, cost.mean.latency_us, cost.worst.flash_bytes) for a, cost in everything if budget.is_met(cost)]

    def beaten(a: float, t: float, f: int) -> bool:
        return any(a2 >= a and t2 <= t and f2 <= f and (a2, t2, f2) != (a, t, f) for a2, t2, f2 in allowed)

    best = {values for values in allowed if not beaten(*values)}
    in_two = {(a, t) for a, t, _ in allowed if not any(a2 >= a and t2 <= t and (a2, t2) != (a, t) for a2, t2, _ in allowed)}
    assert len(best) > len(in_two)  # else the third would not be tested
    front = static_problem.search(budget, n_trials=100, seed=0, objectives=THREE)
    assert {(p.accuracy, p.cost.mean.latency_us, p.cost.worst.flash_bytes) for p in front.points} == best
    assert all(budget.is_met(point.cost) for point in front.points)
    assert front.objectives == THREE


@pytest.mark.parametrize(
    ("name", "n_trials"),
    [
        ("latency", 100),
        ("ram", 100),
        *(pytest.param(name, 100, marks=pytest.mark.slow) for name in ("mean_energy", "energy")),
        pytest.param("flash", 400, marks=pytest.mark.slow),  # proposals aim at latencies
    ],
)
def test_every_cost_alone_beside_accuracy_gives_the_true_front(
    static_problem: Any, everything: list[tuple[float, PolicyCost]], name: str, n_trials: int
) -> None:
    allowed = [(accuracy, OBJECTIVES[name].value(accuracy, cost)) for accuracy, cost in everything]
    best = {(a, c) for a, c in allowed if not any(a2 >= a and c2 <= c and (a2, c2) != (a, c) for a2, c2 in allowed)}
    front = static_problem.search(n_trials=n_trials, seed=0, objectives=("accuracy", name))
    assert {(point.accuracy, *point.values([name])) for point in front.points} == best


def test_naming_the_default_objectives_changes_nothing(static_problem: Any, table: Table) -> None:
    named = static_problem.search(n_trials=30, seed=0, objectives=["accuracy", "mean_latency"])
    assert table(named) == table(static_problem.search(n_trials=30, seed=0))


def test_energy_beside_latency_is_refused_where_it_is_power_times_time(static_problem: Any, tmp_path: Path) -> None:
    pool = CountingPool()
    message = (
        r"the energy of formula is latency times active power .*mean_energy beside latency .* the same axis; leave mean_energy"
    )
    for beside in ("latency", "mean_latency"):
        with pytest.raises(JobError, match=message.replace("beside latency", f"beside {beside}")):
            objectives = ("accuracy", "mean_energy", beside)
            static_problem.search(n_trials=8, seed=0, objectives=objectives, pool=pool, log=tmp_path / "trials.jsonl")
    assert not pool.calls
    assert not (tmp_path / "trials.jsonl").exists()


def test_dynamic_models_keep_the_budget_too(problem: Any) -> None:
    budget = Budget(latency_us=60.0, flash_bytes=2300, mean_latency_us=40.0)
    front = problem.search(budget, n_trials=24, seed=0)
    assert front.points
    assert all(budget.is_met(point.cost) for point in front.points)


@pytest.mark.slow
def test_all_kinds_of_policy_are_tried(problem: Any, tmp_path: Path) -> None:
    problem.search(n_trials=24, seed=0, log=tmp_path / "trials.jsonl")
    points = [json.loads(line).get("point") for line in (tmp_path / "trials.jsonl").read_text().splitlines()]
    assert {point["menu"]["kind"] for point in points if point} == set(PolicyKind)


def test_shares_and_costs_of_a_point_belong_together(problem: Any) -> None:
    for point in problem.search(n_trials=24, seed=1).points:
        assert sum(point.shares) == pytest.approx(1)
        assert len(point.shares) == len(point.menu.entries)
        assert point.cost.mean.latency_us <= point.cost.worst.latency_us


# --- what is evaluated ------------------------------------------------------------------------------------------------


def test_what_the_price_refuses_is_never_evaluated(static_problem: Any, tmp_path: Path) -> None:
    pool = CountingPool()
    budget = Budget(latency_us=40.0)
    static_problem.search(budget, n_trials=40, seed=0, pool=pool, log=tmp_path / "trials.jsonl")
    trials = [json.loads(line) for line in (tmp_path / "trials.jsonl").read_text().splitlines()[2:]]
    refused = [trial for trial in trials if trial["point"] is None]
    assert refused and all(trial["constraints"]["latency_us"] > 0 for trial in refused)
    judged = [item for name, item in pool.calls if name == "evaluate_policy"]
    assert len(judged) <= len(trials) - len(refused)


def test_an_assignment_is_evaluated_once(problem: Any) -> None:
    pool = CountingPool()
    problem.search(n_trials=24, seed=0, pool=pool)
    assert len(pool.assignments) == len(set(pool.assignments))


def test_a_budget_that_nothing_meets_is_refused_before_any_work(static_problem: Any, tmp_path: Path) -> None:
    pool = CountingPool()
    with pytest.raises(InfeasibleBudget, match="flash_bytes is limited to 100 and the cheapest model of bars on formula needs"):
        static_problem.search(Budget(flash_bytes=100), n_trials=8, seed=0, pool=pool, log=tmp_path / "trials.jsonl")
    assert not pool.calls
    assert not (tmp_path / "trials.jsonl").exists()


def test_progress_says_how_far_it_is_and_what_the_front_is(static_problem: Any) -> None:
    told: list[tuple[int, int, str]] = []
    static_problem.search(n_trials=10, seed=0, progress=lambda done, total, note="": told.append((done, total, note)))
    assert [done for done, _, _ in told] == list(range(11))
    assert told[-1][2].startswith("front of ")


@pytest.mark.slow
def test_beyond_tpes_reach_another_sampler_serves(
    static_problem: Any, everything: list[tuple[float, PolicyCost]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(search_module, "MOST_TPE_TRIALS", 100)
    front = static_problem.search(n_trials=250, seed=0, log=tmp_path / "trials.jsonl")
    assert json.loads((tmp_path / "trials.jsonl").read_text().splitlines()[0])["sampler"] == "nsga2"
    assert front.most_accurate().accuracy == max(accuracy for accuracy, _ in everything)


# --- workers ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(problem: Any) -> ParetoFront:
    """The front of one worker in this process."""
    return problem.search(n_trials=24, seed=5)  # type: ignore[no-any-return]


@pytest.mark.slow
def test_dead_and_slow_workers_do_not_change_a_front_in_three_objectives(problem: Any, table: Table) -> None:
    pool = SimulatedPool(4, Faults(dies_after_s={2: 3.0, 17: 5.0}, slower={9: 40.0}, start_s={3: 25.0}))
    found = problem.search(n_trials=24, seed=5, objectives=THREE, pool=pool)
    assert table(found) == table(problem.search(n_trials=24, seed=5, objectives=THREE))


def test_dead_and_slow_workers_do_not_change_the_front(problem: Any, alone: ParetoFront, table: Table) -> None:
    pool = SimulatedPool(4, Faults(dies_after_s={2: 3.0, 17: 5.0, 40: 1.0}, slower={9: 40.0, 30: 7.0}, start_s={3: 25.0}))
    assert table(problem.search(n_trials=24, seed=5, pool=pool)) == table(alone)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_four")
def test_one_two_and_four_workers_give_the_same_front(problem: Any, alone: ParetoFront, table: Table) -> None:
    assert table(problem.search(n_trials=24, seed=5, workers=2)) == table(alone)
    assert table(problem.search(n_trials=24, seed=5, workers=4)) == table(alone)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_four")
def test_a_trial_whose_ray_worker_is_killed_is_tried_again(
    problem: Any, alone: ParetoFront, table: Table, tmp_path: Path
) -> None:
    with closing(KillingPool(tmp_path)) as pool:
        front = problem.search(n_trials=24, seed=5, pool=pool)
    assert {path.name for path in tmp_path.glob("killed*")} == {"killed-evaluate_assignment", "killed-evaluate_policy"}
    assert table(front) == table(alone)


class KillingPool(RayPool):
    """Kills the first worker that computes each kind of item."""

    def __init__(self, folder: Path) -> None:
        super().__init__(2)
        self.folder = folder

    def map(self, function: Any, items: Sequence[Any], finished: Notify = ignore) -> list[Any]:
        mark = str(self.folder / f"killed-{function.__name__}")

        def die_once(state: Any, item: Any) -> Any:
            if not os.path.exists(mark):
                open(mark, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return function(state, item)

        return super().map(die_once, items, finished)


def test_an_address_without_ray_is_said_before_the_search_begins(static_problem: Any) -> None:
    began = time.perf_counter()
    with pytest.raises(ClusterError, match=r"A Ray cluster must answer at 127\.0\.0\.1:1, but there is no answer"):
        static_problem.search(n_trials=8, seed=0, ray_address="127.0.0.1:1")
    assert time.perf_counter() - began < 10


# --- resume -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uninterrupted(static_problem: Any) -> ParetoFront:
    return static_problem.search(n_trials=30, seed=0)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def journal_of_30(static_problem: Any, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    log: Path = tmp_path_factory.mktemp("whole") / "trials.jsonl"
    static_problem.search(n_trials=30, seed=0, log=log)
    return log.read_bytes()


@pytest.fixture
def finished(journal_of_30: bytes, tmp_path: Path) -> Path:
    """The journal of a whole search, to be damaged."""
    (tmp_path / "trials.jsonl").write_bytes(journal_of_30)
    return tmp_path / "trials.jsonl"


def test_a_finished_search_is_read_back_without_work(
    static_problem: Any, finished: Path, uninterrupted: ParetoFront, table: Table
) -> None:
    pool = CountingPool()
    before = finished.read_bytes()
    front = static_problem.search(n_trials=30, seed=0, log=finished, resume=True, pool=pool)
    assert table(front) == table(uninterrupted)
    assert not pool.calls
    assert finished.read_bytes() == before


@pytest.mark.parametrize("lines", [1, 2, 9, 31])
def test_a_search_cut_anywhere_resumes_to_the_same_front(
    static_problem: Any, finished: Path, uninterrupted: ParetoFront, table: Table, lines: int
) -> None:
    whole = finished.read_bytes().splitlines(keepends=True)
    finished.write_bytes(b"".join(whole[:lines]) + whole[lines][: len(whole[lines]) // 2])
    front = static_problem.search(n_trials=30, seed=0, log=finished, resume=True)
    assert table(front) == table(uninterrupted)
    assert finished.read_bytes().startswith(b"".join(whole[:lines]))
    assert len(finished.read_bytes().splitlines()) == len(whole)


def test_a_resumed_search_may_go_further(static_problem: Any, finished: Path, table: Table) -> None:
    front = static_problem.search(n_trials=50, seed=0, log=finished, resume=True)
    assert table(front) == table(static_problem.search(n_trials=50, seed=0))


def test_a_search_with_another_seed_or_budget_cannot_be_resumed(static_problem: Any, finished: Path) -> None:
    with pytest.raises(JobError, match="but seed is now 1 and was 0"):
        static_problem.search(n_trials=30, seed=1, log=finished, resume=True)
    with pytest.raises(JobError, match=r"but budget is now \{'latency_us': 50.0\} and was \{\}"):
        static_problem.search(Budget(latency_us=50.0), n_trials=30, seed=0, log=finished, resume=True)


def test_a_search_in_three_objectives_resumes_to_the_same_front_and_to_no_other(
    static_problem: Any, table: Table, tmp_path: Path
) -> None:
    journal = tmp_path / "trials.jsonl"
    budget = Budget(latency_us=45.0)  # some trials are refused by their price, which have values too
    whole = static_problem.search(budget, n_trials=30, seed=0, objectives=THREE, log=journal)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:12]))
    assert table(static_problem.search(budget, n_trials=30, seed=0, objectives=THREE, log=journal, resume=True)) == table(whole)
    with pytest.raises(JobError, match=r"but objectives is now \['accuracy', 'mean_latency'\] and was \['accuracy', "):
        static_problem.search(budget, n_trials=30, seed=0, log=journal, resume=True)


def test_a_journal_whose_trials_would_be_asked_otherwise_is_refused(static_problem: Any, finished: Path) -> None:
    text = finished.read_text()
    assert '"target": 1.0' in text
    finished.write_text(text.replace('"target": 1.0', '"target": 0.5', 1))
    with pytest.raises(JobError, match=r"Trial 0 of the journal .* but target was 0.5 and is now 1.0; resume with the versions"):
        static_problem.search(n_trials=30, seed=0, log=finished, resume=True)


SCRIPT = """
import runpy, sys, time
here = runpy.run_path(sys.argv[1])
problem = here["make_problem"](here["ALL_KINDS"])
problem.search(n_trials=24, seed=5, log=sys.argv[2], progress=lambda done, total, note="": time.sleep(0.05))
"""


@pytest.mark.slow
def test_a_driver_killed_at_any_moment_resumes_without_losing_a_finished_trial(
    problem: Any, alone: ParetoFront, table: Table, tmp_path: Path
) -> None:
    journal = tmp_path / "trials.jsonl"
    driver = subprocess.Popen([sys.executable, "-c", SCRIPT, str(Path(__file__).with_name("conftest.py")), str(journal)])
    try:
        deadline = time.monotonic() + 90
        while not journal.exists() or len(journal.read_bytes().splitlines()) < 14:
            assert driver.poll() is None, "the driver ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        driver.kill()  # SIGKILL
        driver.wait()
    done = journal.read_bytes()
    lines = done[: done.rfind(b"\n") + 1].splitlines()
    assert 14 <= len(lines) < 26
    pool = CountingPool()
    front = problem.search(n_trials=24, seed=5, log=journal, resume=True, pool=pool)
    assert table(front) == table(alone)
    assert journal.read_bytes().splitlines()[: len(lines)] == lines
    asked_again = [item for name, item in pool.calls if name == "evaluate_policy"]
    assert len(asked_again) <= 26 - len(lines)
