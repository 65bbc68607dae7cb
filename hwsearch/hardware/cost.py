"""What one inference costs, what it may cost, and what a search makes better.

`OBJECTIVES` is the one list: whatever names a quantity of a cost (a budget's limit, a job's `objectives`, a column of a front, an
axis of a report) reads it there. One more objective is one more entry; a field of `Budget` with its name makes it a limit too.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

from hwsearch.errors import BudgetError, JobError


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Cost of one inference. Flash and RAM are what the model occupies, not what one inference touches."""

    latency_us: float
    energy_uj: float
    flash_bytes: int
    ram_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyCost:
    """Cost of a dynamic model, controller and switching included: `mean` over inputs, `worst` over all possible ones."""

    mean: Cost
    worst: Cost

    @classmethod
    def of_paths(cls, paths: Sequence[Cost], shares: Sequence[float]) -> "PolicyCost":
        """From the cost of the whole inference ending at each entry and the share of inputs that end there."""
        if len(paths) != len(shares) or abs(sum(shares) - 1) > 1e-9:
            raise ValueError(f"shares must be one per path and sum to 1, but {len(paths)} paths have shares {list(shares)}")
        flash, ram = max(path.flash_bytes for path in paths), max(path.ram_bytes for path in paths)

        def average(field: str) -> float:
            return float(sum(share * getattr(path, field) for path, share in zip(paths, shares, strict=True)))

        return cls(
            mean=Cost(latency_us=average("latency_us"), energy_uj=average("energy_uj"), flash_bytes=flash, ram_bytes=ram),
            worst=Cost(
                latency_us=max(path.latency_us for path in paths),
                energy_uj=max(path.energy_uj for path in paths),
                flash_bytes=flash,
                ram_bytes=ram,
            ),
        )


# --- objectives -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A kind of amount: the unit that fields are in, the units that people may write with their sizes, the one shown to them."""

    unit: str
    sizes: Mapping[str, float]
    shown: str


LATENCY = Quantity(unit="us", sizes={"us": 1.0, "ms": 1e3, "s": 1e6}, shown="ms")
ENERGY = Quantity(unit="uj", sizes={"nJ": 1e-3, "uJ": 1.0, "mJ": 1e3, "J": 1e6}, shown="uJ")
MEMORY = Quantity(unit="bytes", sizes={"B": 1.0, "KB": 1024.0, "MB": 1048576.0}, shown="KB")
SHARE = Quantity(unit="", sizes={"%": 0.01}, shown="%")


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Something that a search makes better. `of` reads it from a cost; without it, it is the point's own accuracy.

    Accuracy shall be high, everything that is read from a cost low.
    """

    name: str
    """As job files and budgets write it."""
    label: str
    quantity: Quantity
    of: Callable[[PolicyCost], float] | None

    @property
    def field(self) -> str:
        """The name with its unit, as records hold it: `mean_latency_us`."""
        return f"{self.name}_{self.quantity.unit}" if self.quantity.unit else self.name

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        return "maximize" if self.of is None else "minimize"

    def value(self, accuracy: float, cost: PolicyCost) -> float:
        """Of a model, in the field's unit; accuracy in 0..1."""
        return accuracy if self.of is None else self.of(cost)

    def shown(self, value: float) -> float:
        """A value in the unit that people are shown."""
        return value / self.quantity.sizes[self.quantity.shown]


ACCURACY = "accuracy"
OBJECTIVES = {
    entry.name: entry
    for entry in (
        Objective(name=ACCURACY, label="accuracy", quantity=SHARE, of=None),
        Objective(name="mean_latency", label="mean latency", quantity=LATENCY, of=lambda cost: cost.mean.latency_us),
        Objective(name="latency", label="worst latency", quantity=LATENCY, of=lambda cost: cost.worst.latency_us),
        Objective(name="mean_energy", label="mean energy", quantity=ENERGY, of=lambda cost: cost.mean.energy_uj),
        Objective(name="energy", label="worst energy", quantity=ENERGY, of=lambda cost: cost.worst.energy_uj),
        Objective(name="flash", label="flash", quantity=MEMORY, of=lambda cost: cost.worst.flash_bytes),
        Objective(name="ram", label="RAM", quantity=MEMORY, of=lambda cost: cost.worst.ram_bytes),
    )
}
"""Everything that a search may optimise, by name."""
DEFAULT_OBJECTIVES = (ACCURACY, "mean_latency")


def check_objectives(names: Sequence[str]) -> tuple[str, ...]:
    """The names as a tuple; raises JobError unless they are two or more known ones, each once, accuracy among them."""
    unknown = [name for name in names if name not in OBJECTIVES]
    if unknown:
        raise JobError(
            f"Objectives must be known ones, but found {unknown[0]!r}; known are {', '.join(OBJECTIVES)}; choose of them."
        )
    repeated = [name for name in OBJECTIVES if names.count(name) > 1]
    if repeated:
        raise JobError(
            f"Each objective must be named once, but {repeated[0]!r} is named {names.count(repeated[0])} times; drop one."
        )
    if ACCURACY not in names:
        raise JobError(f"Accuracy must be among the objectives, but found {', '.join(names) or 'none'}; add {ACCURACY!r}.")
    if len(names) < 2:
        raise JobError(
            f"A search must have two objectives or more, but found {ACCURACY!r} alone; add one, such as 'mean_latency'."
        )
    return tuple(names)


def cost_objectives(names: Sequence[str]) -> tuple[Objective, ...]:
    """Those that are read from a cost, in the order given: all but accuracy."""
    return tuple(OBJECTIVES[name] for name in names if OBJECTIVES[name].of is not None)


# --- limits -----------------------------------------------------------------------------------------------------------

_NUMBER_AND_UNIT = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z]*)\s*")


def parse_quantity(text: str, objective: Objective) -> float:
    """A number with its unit, in microseconds, microjoules or bytes (1 KB = 1024 B).

    >>> parse_quantity("1.5ms", OBJECTIVES["latency"])
    1500.0
    """
    sizes = objective.quantity.sizes
    match = _NUMBER_AND_UNIT.fullmatch(text)
    if match is None or match[2] not in sizes:
        raise BudgetError(
            f"Budget {objective.name!r} must be a number with one of the units {', '.join(sizes)}, but found {text!r}; "
            f'write for example {objective.name}="10{list(sizes)[1]}".'
        )
    return float(match[1]) * sizes[match[2]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits on the worst cost (hard, for every input) and on the mean cost (certified); None is no limit.

    Each field is that of an objective, which says what it limits.
    """

    latency_us: float | None = None
    energy_uj: float | None = None
    flash_bytes: float | None = None
    ram_bytes: float | None = None
    mean_latency_us: float | None = None
    mean_energy_uj: float | None = None

    @classmethod
    def parse(cls, **quantities: str | None) -> "Budget":
        """From quantities with units, by objective.

        >>> Budget.parse(latency="20ms", flash="96KB").flash_bytes
        98304.0
        """
        known = limit_names()
        for name in quantities:
            if name not in known:
                raise BudgetError(f"A budget may limit only {', '.join(known)}, but found {name!r}; choose one of them.")
        given = [(OBJECTIVES[name], text) for name, text in quantities.items() if text is not None]
        return cls(**{objective.field: parse_quantity(text, objective) for objective, text in given})

    def limits(self) -> dict[str, float]:
        """The limits that are set, by field name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}

    def excess(self, cost: PolicyCost) -> dict[str, float]:
        """Share by which each set limit is exceeded; 0 or less is met.

        The one place that compares a cost with a budget: the search's constraint, the finalizer's test,
        the report and the error message all come from here.
        """
        return {name: limited(name).value(0.0, cost) / limit - 1.0 for name, limit in self.limits().items()}

    def is_met(self, cost: PolicyCost) -> bool:
        return all(share <= 0 for share in self.excess(cost).values())

    def hard(self) -> "Budget":
        """The limits on the worst case alone."""
        return replace(self, **{field.name: None for field in fields(self) if field.name.startswith("mean_")})


def limit_names() -> tuple[str, ...]:
    """What a budget may limit, as `Budget.parse` takes it."""
    return tuple(limited(field.name).name for field in fields(Budget))


def limited(limit: str) -> Objective:
    """What a limit of a budget, given by its field, is on."""
    return _BY_FIELD[limit]


_BY_FIELD = {objective.field: objective for objective in OBJECTIVES.values()}
