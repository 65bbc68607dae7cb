"""What a search may vary about a policy, as named parameters with their ranges."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Params = Mapping[str, Any]
"""A value of each parameter, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """A parameter without order."""

    name: str
    options: tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A real parameter."""

    name: str
    low: float
    high: float
    log: bool = False


Parameter = Category | Interval
