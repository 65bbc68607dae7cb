"""A search's result: models between which only the user can choose, and the files that keep them."""

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hwsearch.errors import InfeasibleBudget, JobError
from hwsearch.files import write_whole
from hwsearch.graph.menu import Menu, MenuEntry, PolicyShape
from hwsearch.hardware.cost import Budget, Cost, PolicyCost

TABLE_FILE, RECORD_FILE = "front.csv", "front.json"
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """A model of the front. `accuracy` in 0..1 is the search's estimate; `shares[k]` of inputs end at menu entry k."""

    trial: int
    menu: Menu
    shape: PolicyShape
    accuracy: float
    shares: tuple[float, ...]
    cost: PolicyCost

    def dominates(self, other: "FrontPoint") -> bool:
        """No worse in accuracy and mean latency and better in one."""
        mine, theirs = self._objectives, other._objectives
        return mine != theirs and mine[0] >= theirs[0] and mine[1] <= theirs[1]

    @property
    def _objectives(self) -> tuple[float, float]:
        return self.accuracy, self.cost.mean.latency_us


def non_dominated(points: Iterable[FrontPoint]) -> tuple[FrontPoint, ...]:
    """Points that no other dominates, fastest first; of several with equal objectives the earliest trial."""
    kept: list[FrontPoint] = []
    for point in sorted(points, key=lambda p: (p.cost.mean.latency_us, -p.accuracy, p.trial)):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return tuple(kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParetoFront:
    """Non-dominated points in accuracy and mean latency, fastest first; dominated ones that are given are left out."""

    points: tuple[FrontPoint, ...]
    profile: str
    task: str
    space: str
    seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", non_dominated(self.points))

    def most_accurate(self) -> FrontPoint:
        return self._ends()[1]

    def fastest(self) -> FrontPoint:
        """The point of lowest mean latency."""
        return self._ends()[0]

    def _ends(self) -> tuple[FrontPoint, FrontPoint]:
        if not self.points:
            raise InfeasibleBudget(
                f"A front must have points, but no model of {self.space} met the budget on {self.profile}; raise the budget."
            )
        return self.points[0], self.points[-1]

    def best(self, budget: Budget) -> FrontPoint:
        """The most accurate point that meets `budget`; raises InfeasibleBudget naming the nearest one if none does."""
        self._ends()
        fit = [point for point in self.points if budget.is_met(point.cost)]
        if fit:
            return fit[-1]
        nearest = min(self.points, key=lambda point: max(budget.excess(point.cost).values()))
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
            "points": [point_to_json(point) for point in self.points],
        }  # fmt: skip
        write_whole(Path(folder) / TABLE_FILE, _table(self.points))
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
        if record["schema"] != SCHEMA:
            raise JobError(f"{file} must have schema {SCHEMA}, but has {record['schema']}; read it with what wrote it.")
        points = tuple(point_from_json(point) for point in record["points"])
        return ParetoFront(
            points=points, profile=record["profile"], task=record["task"], space=record["space"], seed=record["seed"]
        )
    except FileNotFoundError:
        raise JobError(f"A front must be a run folder or a {RECORD_FILE}, but there is no {file}; run a search first.") from None
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise JobError(f"{file} must be a front as a search writes it, but is damaged ({error!r}); search again.") from error


COLUMNS = (
    "trial", "policy", "entries", "accuracy", "mean_latency_us", "worst_latency_us", "mean_energy_uj", "flash_bytes", "ram_bytes",
    "shares", "assignments",
)  # fmt: skip


def _table(points: Iterable[FrontPoint]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for point in points:
        mean, worst = point.cost.mean, point.cost.worst
        writer.writerow(
            [
                point.trial, point.shape.kind, len(point.menu.entries), point.accuracy, mean.latency_us, worst.latency_us,
                mean.energy_uj, worst.flash_bytes, worst.ram_bytes, " ".join(format(share, ".6g") for share in point.shares),
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
        "menu": point.menu.to_json(), "shape": point.shape.to_json(),
        "mean": asdict(point.cost.mean), "worst": asdict(point.cost.worst),
    }  # fmt: skip


def point_from_json(record: dict[str, Any]) -> FrontPoint:
    """The inverse of `point_to_json`; raises KeyError, TypeError or ValueError on a damaged record."""
    return FrontPoint(
        trial=record["trial"],
        menu=Menu.from_json(record["menu"]),
        shape=PolicyShape.from_json(record["shape"]),
        accuracy=record["accuracy"],
        shares=tuple(record["shares"]),
        cost=PolicyCost(mean=Cost(**record["mean"]), worst=Cost(**record["worst"])),
    )
