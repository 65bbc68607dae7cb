"""What one inference costs, and what it may cost."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

from hwsearch.errors import BudgetError


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


_UNITS = {
    "latency": {"us": 1.0, "ms": 1e3, "s": 1e6},
    "energy": {"nJ": 1e-3, "uJ": 1.0, "mJ": 1e3, "J": 1e6},
    "bytes": {"B": 1.0, "KB": 1024.0, "MB": 1048576.0},
}
_QUANTITY = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z]*)\s*")
_DIMENSION = {
    "latency": "latency",
    "energy": "energy",
    "flash": "bytes",
    "ram": "bytes",
    "mean_latency": "latency",
    "mean_energy": "energy",
}


def parse_quantity(text: str, dimension: str, field: str) -> float:
    """A number with its unit, in microseconds, microjoules or bytes (1 KB = 1024 B).

    >>> parse_quantity("1.5ms", "latency", "latency")
    1500.0
    """
    units = _UNITS[dimension]
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in units:
        raise BudgetError(
            f"Budget {field!r} must be a number with one of the units {', '.join(units)}, but found {text!r}; "
            f'write for example {field}="10{list(units)[1]}".'
        )
    return float(match[1]) * units[match[2]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits on the worst cost (hard, for every input) and on the mean cost (certified); None is no limit."""

    latency_us: float | None = None
    energy_uj: float | None = None
    flash_bytes: float | None = None
    ram_bytes: float | None = None
    mean_latency_us: float | None = None
    mean_energy_uj: float | None = None

    @classmethod
    def parse(
        cls,
        *,
        latency: str | None = None,
        energy: str | None = None,
        flash: str | None = None,
        ram: str | None = None,
        mean_latency: str | None = None,
        mean_energy: str | None = None,
    ) -> "Budget":
        """From quantities with units.

        >>> Budget.parse(latency="20ms", flash="96KB").flash_bytes
        98304.0
        """
        given = {
            "latency": latency, "energy": energy, "flash": flash, "ram": ram,
            "mean_latency": mean_latency, "mean_energy": mean_energy,
        }  # fmt: skip
        suffix = {"latency": "_us", "energy": "_uj", "bytes": "_bytes"}
        limits = {
            field + suffix[_DIMENSION[field]]: parse_quantity(text, _DIMENSION[field], field)
            for field, text in given.items()
            if text is not None
        }
        return cls(**limits)

    def limits(self) -> dict[str, float]:
        """The limits that are set, by field name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}

    def excess(self, cost: PolicyCost) -> dict[str, float]:
        """Share by which each set limit is exceeded; 0 or less is met.

        The one place that compares a cost with a budget: the search's constraint, the finalizer's test,
        the report and the error message all come from here.
        """

        def spent(limit: str) -> float:
            side = cost.mean if limit.startswith("mean_") else cost.worst
            return float(getattr(side, limit.removeprefix("mean_")))

        return {name: spent(name) / limit - 1.0 for name, limit in self.limits().items()}

    def is_met(self, cost: PolicyCost) -> bool:
        return all(share <= 0 for share in self.excess(cost).values())

    def hard(self) -> "Budget":
        """The limits on the worst case alone."""
        return Budget(
            latency_us=self.latency_us, energy_uj=self.energy_uj, flash_bytes=self.flash_bytes, ram_bytes=self.ram_bytes
        )
