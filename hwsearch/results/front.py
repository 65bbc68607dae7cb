"""A search's result: models between which only the user can choose, and the files that keep them."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hwsearch.errors import InfeasibleBudget, JobError
from hwsearch.files import write_whole
from hwsearch.graph.menu import Menu, MenuEntry, PolicyShape
from hwsearch.hardware.cost import (
    DEFAULT_OBJECTIVES,
    OBJECTIVES,
    Budget,
    Cost,
    PolicyCost,
    check_objectives,
    cost_objectives,
)

TABLE_FILE, RECORD_FILE = "front.csv", "front.json"
SCHEMA = 2
"""1, which is read too, had no `objectives`: they were accuracy and mean latency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """A model of the front. `accuracy` in 0..1 is the search's estimate; `shares[k]` of inputs end at menu entry k."""

    trial: int
    menu: Menu
    policy: PolicyShape
    accuracy: float
    shares: tuple[float, ...]
    cost: PolicyCost

    def values(self, objectives: Iterable[str] = DEFAULT_OBJECTIVES) -> tuple[float, ...]:
        """Of each objective, in the unit of its field."""
        return tuple(OBJECTIVES[name].value(self.accuracy, self.cost) for name in objectives)

    def dominates(self, other: "FrontPoint", objectives: Sequence[str] = DEFAULT_OBJECTIVES) -> bool:
        """No worse in every objective and better in one."""
        mine, theirs = self._losses(objectives), other._losses(objectives)
        return mine != theirs and _no_worse(mine, theirs)

    def _losses(self, objectives: Sequence[str]) -> tuple[float, ...]:
        """What shall be low: the costs in the order of the objectives, then the accuracy's negative."""
        return *(objective.value(self.accuracy, self.cost) for objective in cost_objectives(objectives)), -self.accuracy


def _no_worse(losses: tuple[float, ...], others: tuple[float, ...]) -> bool:
    return all(mine <= theirs for mine, theirs in zip(losses, others, strict=True))


def non_dominated(points: Iterable[FrontPoint], objectives: Sequence[str] = DEFAULT_OBJECTIVES) -> tuple[FrontPoint, ...]:
    """Points that no other dominates, cheapest in the first cost first; of several with equal objectives the earliest trial.

    Sorted by their losses, a point can be dominated only by one before it.
    """
    kept: dict[tuple[float, ...], FrontPoint] = {}
    for point in sorted(points, key=lambda one: (one._losses(objectives), one.trial)):
        losses = point._losses(objectives)
        if not any(_no_worse(better, losses) for better in reversed(kept)):
            kept[losses] = point
    return tuple(kept.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class ParetoFront:
    """Points that nothing beats in all `objectives`, cheapest in the first cost first; dominated ones given are left out."""

    points: tuple[FrontPoint, ...]
    profile: str
    task: str
    space: str
    seed: int
    objectives: tuple[str, ...] = DEFAULT_OBJECTIVES

    def __post_init__(self) -> None:
        check_objectives(self.objectives)
        object.__setattr__(self, "points", non_dominated(self.points, self.objectives))

    def most_accurate(self) -> FrontPoint:
        """The point of highest accuracy; of equal ones the first."""
        return max(self._some(), key=lambda point: point.accuracy)

    def fastest(self) -> FrontPoint:
        """The point of lowest mean latency; of equal ones the first."""
        return min(self._some(), key=lambda point: point.cost.mean.latency_us)

    def _some(self) -> tuple[FrontPoint, ...]:
        if not self.points:
            raise InfeasibleBudget(
                f"A front must have points, but no model of {self.space} met the budget on {self.profile}; raise the budget."
            )
        return self.points

    def best(self, budget: Budget) -> FrontPoint:
        """The most accurate point that meets `budget`; raises InfeasibleBudget naming the nearest one if none does."""
        points = self._some()
        fit = [point for point in points if budget.is_met(point.cost)]
        if fit:
            return max(fit, key=lambda point: point.accuracy)
        nearest = min(points, key=lambda point: max(budget.excess(point.cost).values()))
        excess = budget.excess(nearest.cost)
        binding = max(excess, key=excess.__getitem__)
        limit = budget.limits()[binding]
        raise InfeasibleBudget(
            f"A point of the front must meet the budget, but none does: {binding} is limited to {limit:.6g} and the nearest "
            f"point (trial {nearest.trial}, accuracy {nearest.accuracy:.4f}) needs {limit * (1 + excess[binding]):.6g}; "
            "raise the limit or search longer."
        )

    def save(self, folder: Path) -> None:
        """Write `front.csv` (for people and spreadsheets) and `front.json` (complete), each whole or not at all."""
        record = {
            "schema": SCHEMA, "profile": self.profile, "task": self.task, "space": self.space, "seed": self.seed,
            "objectives": list(self.objectives), "points": [point_to_json(point) for point in self.points],
        }  # fmt: skip
        write_whole(Path(folder) / TABLE_FILE, _table(self.points, self.objectives))
        write_whole(Path(folder) / RECORD_FILE, json.dumps(record, indent=1) + "\n")


def load_front(path: str | Path) -> ParetoFront:
    """Read a front from a run folder, or from its `front.json` or `front.csv` (beside which `front.json` lies)."""
    file = Path(path)
    if file.is_dir():
        file = file / RECORD_FILE
    elif file.name == TABLE_FILE:
        file = file.with_name(RECORD_FILE)
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["schema"] not in (1, SCHEMA):
            raise JobError(f"{file} must have schema 1 or {SCHEMA}, but has {record['schema']}; read it with what wrote it.")
        objectives = record["objectives"] if record["schema"] == SCHEMA else DEFAULT_OBJECTIVES
        return ParetoFront(
            points=tuple(point_from_json(point) for point in record["points"]), objectives=tuple(objectives),
            profile=record["profile"], task=record["task"], space=record["space"], seed=record["seed"],
        )  # fmt: skip
    except FileNotFoundError:
        raise JobError(f"A front must be a run folder or a {RECORD_FILE}, but there is no {file}; run a search first.") from None
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise JobError(f"{file} must be a front as a search writes it, but is damaged ({error!r}); search again.") from error


COLUMNS = {
    "accuracy": "accuracy", "mean_latency": "mean_latency_us", "latency": "worst_latency_us", "mean_energy": "mean_energy_uj",
    "flash": "flash_bytes", "ram": "ram_bytes",
}  # fmt: skip
"""Objectives that every table shows, and the column of each; one more that was searched for stands after them under its field."""


def _table(points: Iterable[FrontPoint], objectives: Sequence[str]) -> str:
    columns = COLUMNS | {name: OBJECTIVES[name].field for name in objectives if name not in COLUMNS}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "policy", "entries", *columns.values(), "shares", "assignments"])
    for point in points:
        writer.writerow(
            [
                point.trial, point.policy.kind, len(point.menu.entries), *point.values(columns),
                " ".join(format(share, ".6g") for share in point.shares),
                " | ".join(_entry_text(entry) for entry in point.menu.entries),
            ]
        )  # fmt: skip
    return text.getvalue()


def _entry_text(entry: MenuEntry) -> str:
    return entry.assignment.key + (f" to {entry.exit}" if entry.exit else "")


def point_to_json(point: FrontPoint) -> dict[str, Any]:
    """All of a point, as `front.json` and a search's journal keep it."""
    return {
        "trial": point.trial, "accuracy": point.accuracy, "shares": list(point.shares),
        "menu": point.menu.to_json(), "shape": point.policy.to_json(),
        "mean": asdict(point.cost.mean), "worst": asdict(point.cost.worst),
    }  # fmt: skip


def point_from_json(record: dict[str, Any]) -> FrontPoint:
    """The inverse of `point_to_json`; raises KeyError, TypeError or ValueError on a damaged record."""
    return FrontPoint(
        trial=record["trial"],
        menu=Menu.from_json(record["menu"]),
        policy=PolicyShape.from_json(record["shape"]),
        accuracy=record["accuracy"],
        shares=tuple(record["shares"]),
        cost=PolicyCost(mean=Cost(**record["mean"]), worst=Cost(**record["worst"])),
    )
