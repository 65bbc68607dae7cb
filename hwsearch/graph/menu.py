"""Menus: the complete configurations that a dynamic model may switch between at run time.

What a kind of policy is, it says by its traits; whoever prices, trains, runs or exports a model asks these and never which kind
it is. A new kind is a member and a row of `_TRAITS` here, what it learns and how in `predictors/`, and a row in each dict
literal over kinds (`tests/graph/test_policy_kinds.py` lists them and holds them complete).

A menu and a policy are written the same way wherever they are kept: in `front.json`, in a search's journal, in a model's
file and in a bundle's manifest (`to_json`, `from_json`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Self

from hwsearch.errors import SpaceError
from hwsearch.graph.network import Network
from hwsearch.graph.op import Op
from hwsearch.graph.precision import BitAssignment

MAX_ENTRIES = 16


class PolicyKind(StrEnum):
    """How a model picks an entry for an input (the field's bit predictor or bit controller)."""

    STATIC = "static"
    """One entry for every input."""
    GATE = "gate"
    """A small network on the downsampled input picks the entry."""
    CASCADE = "cascade"
    """Run the cheapest entry; while its margin is below a threshold, run the next. Costs add up."""
    EXIT = "exit"
    """Run the trunk to an exit; while its margin is below a threshold, go on. Nothing is computed twice."""

    @property
    def has_controller(self) -> bool:
        """A network of its own (`controllers.controller_of`) runs first and picks the entry."""
        return _TRAITS[self].has_controller

    @property
    def escalates(self) -> bool:
        """Entries run one after another, and each but the last stops the inference where its margin is large enough."""
        return _TRAITS[self].escalates

    @property
    def shares_trunk(self) -> bool:
        """Entries are exits of one assignment: nothing is computed twice."""
        return _TRAITS[self].shares_trunk

    @property
    def has_one_entry(self) -> bool:
        """There is nothing to pick. Every other kind's menus have several entries."""
        return _TRAITS[self].has_one_entry

    @property
    def description(self) -> str:
        """How it picks, in a sentence for whoever reads a report or a package."""
        return _TRAITS[self].description


@dataclass(frozen=True, slots=True, kw_only=True)
class _Traits:
    """What sets kinds apart. One without a trait runs the last entry that it may, which for a static model is its only one."""

    description: str
    has_controller: bool = False
    escalates: bool = False
    shares_trunk: bool = False
    has_one_entry: bool = False


_TRAITS: Mapping[PolicyKind, _Traits] = {
    PolicyKind.STATIC: _Traits(description="One configuration runs for every input.", has_one_entry=True),
    PolicyKind.GATE: _Traits(description="A small network picks the entry for each input.", has_controller=True),
    PolicyKind.CASCADE: _Traits(
        description="Entries run in order until one is confident; an entry's price includes those before it.", escalates=True
    ),
    PolicyKind.EXIT: _Traits(
        description="The network stops at the first confident exit; an entry's price includes what ran before it.",
        escalates=True,
        shares_trunk=True,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MenuEntry:
    """An assignment and the exit at which it ends (`""`: the trunk's end)."""

    assignment: BitAssignment
    exit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Menu:
    """Entries from the cheapest to the most expensive, and the kind of policy that picks among them.

    Entries that share a trunk have one assignment and follow the network's exits in order. `copies` are operations and weight
    widths whose codes are stored a second time, densely, beside the nested ones; they change flash and time, never a result.
    """

    kind: PolicyKind
    entries: tuple[MenuEntry, ...]
    copies: frozenset[tuple[str, int]] = frozenset()

    def __post_init__(self) -> None:
        if not 1 <= len(self.entries) <= MAX_ENTRIES:
            raise SpaceError(f"A menu must have 1 to {MAX_ENTRIES} entries, but has {len(self.entries)}; choose fewer.")
        if self.kind.has_one_entry != (len(self.entries) == 1):
            raise SpaceError(f"A static menu must have one entry and any other several, but {self.kind} has {len(self.entries)}.")
        if self.kind.shares_trunk and len({entry.assignment for entry in self.entries}) != 1:
            raise SpaceError("All entries of an exit menu must share one assignment, but they differ; use a cascade instead.")

    def to_json(self) -> dict[str, Any]:
        """All of the menu; the inverse of `from_json`."""
        entries = [{"assignment": entry.assignment.key, "exit": entry.exit} for entry in self.entries]
        return {"kind": str(self.kind), "entries": entries, "copies": [list(copy) for copy in sorted(self.copies)]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """A menu as `to_json` wrote it, or as earlier versions did, without copies; raises SpaceError on a damaged record."""
        try:
            entries = tuple(
                MenuEntry(assignment=BitAssignment.from_key(entry["assignment"]), exit=entry["exit"])
                for entry in record["entries"]
            )
            copies = frozenset((str(name), int(bits)) for name, bits in record.get("copies", ()))
            return cls(kind=PolicyKind(record["kind"]), entries=entries, copies=copies)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged("menu", "kind, entries and copies", error) from error

    def exits_passed(self, index: int) -> tuple[str, ...]:
        """Exits whose heads run in an inference that ends at entry `index`, in order, its own included."""
        if not self.kind.shares_trunk:
            return (self.entries[index].exit,)
        return tuple(entry.exit for entry in self.entries[: index + 1])

    def segments(self, network: Network) -> tuple[tuple[Op, ...], ...]:
        """Operations that each entry runs by itself, in execution order.

        With a shared trunk, those of entry k are what entry k - 1 has not run yet, so that the order of a whole inference is the
        concatenation of all segments; otherwise each segment is the entry's whole path.
        """
        paths = [network.path(self.exits_passed(index)) for index in range(len(self.entries))]
        if not self.kind.shares_trunk:
            return tuple(paths)
        done = [frozenset[Op]()] + [frozenset(path) for path in paths[:-1]]
        return tuple(tuple(op for op in path if op not in before) for path, before in zip(paths, done, strict=True))

    def runs(self, network: Network) -> tuple[tuple[Op, ...], ...]:
        """Operations of every stretch with one memory plan: with a shared trunk the one inference, else one per entry."""
        segments = self.segments(network)
        return (tuple(op for segment in segments for op in segment),) if self.kind.shares_trunk else segments

    def stored_bits(self, network: Network) -> dict[str, int]:
        """Width at which each weighted operation's nested weights are stored: the widest that any entry uses.

        Operations that no entry runs are absent.
        """
        bits: dict[str, int] = {}
        for index, entry in enumerate(self.entries):
            for op in network.path(self.exits_passed(index)):
                if op.has_weights:
                    bits[op.name] = max(bits.get(op.name, 0), entry.assignment[op.name].weight_bits)
        return bits

    def read_bits(self, network: Network) -> tuple[dict[str, int], ...]:
        """For each entry the width at which the weights it reads are stored: its own where there is a copy, else the nested."""
        nested = self.stored_bits(network)
        return tuple(
            {
                name: own if (name, own := entry.assignment[name].weight_bits) in self.copies else bits
                for name, bits in nested.items()
            }
            for entry in self.entries
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyShape:
    """What a search decides about a policy besides its menu.

    `gate_grid`: side of the downsampled input a gate sees; `gate_hidden`: its hidden units; `trade_off`: price in loss of one
    relative unit of latency when a gate is trained. `escalation`: of kinds that escalate, the share of inputs that each stage but
    the last sends on.
    """

    kind: PolicyKind
    gate_grid: int = 0
    gate_hidden: int = 0
    trade_off: float = 0.0
    escalation: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All of the policy; the inverse of `from_json`."""
        return {**asdict(self), "kind": str(self.kind), "escalation": list(self.escalation)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """A policy as `to_json` wrote it; raises SpaceError on a damaged record."""
        try:
            known = {**record, "kind": PolicyKind(record["kind"]), "escalation": tuple(map(float, record["escalation"]))}
            return cls(**known)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged("policy", ", ".join(field.name for field in fields(cls)), error) from error


def _damaged(what: str, keys: str, error: Exception) -> SpaceError:
    found = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    return SpaceError(f"A {what}'s record must have {keys} as they were written, but {found}; restore the file it stands in.")
