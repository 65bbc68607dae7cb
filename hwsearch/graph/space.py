"""Search spaces: the precisions that each operation of a network may take, and why no more.

Operations that read the same tensor read it at one width, and a maximum pooling passes codes through; so operations are
grouped in *units* that take one precision together (the closure of these two rules and of the file's ties).
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import networkx as nx

from hwsearch.errors import SpaceError
from hwsearch.files import data_folders, find_named
from hwsearch.graph.controllers import attach_exits
from hwsearch.graph.menu import PolicyKind
from hwsearch.graph.network import INPUT, Network
from hwsearch.graph.op import Op
from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.graph.space_file import RuleTable, SpaceTable, read_space_file

NETWORKS_FILE = Path(__file__).parent / "reference_networks.jsonl"
"""Captured from `hwsearch/tasks/networks.py` by `tools/reference_networks.py`."""

INPUT_REASON = "the network's input arrives as 8-bit codes"
LOGITS_REASON = "logits decide the class and the policy, and their layer is small"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Operations that take one precision together; those without weights take its activation width.

    `precisions` run from the narrowest to the widest; `reason` says why there are no more, empty if nothing restricts it.
    """

    name: str
    ops: tuple[str, ...]
    precisions: tuple[Precision, ...]
    reason: str = ""

    @property
    def widest(self) -> Precision:
        return max(self.precisions)

    def nearest(self, wanted: Precision) -> Precision:
        """The narrowest precision that is at least `wanted` in weights and activations; the widest if there is none.

        >>> Unit(name="conv", ops=("conv",), precisions=(Precision(2, 8), Precision(8, 8))).nearest(Precision(4, 4))
        Precision(weight_bits=8, activation_bits=8)
        """

        def covers(one: Precision) -> bool:
            wide_weights = not one.weight_bits or one.weight_bits >= wanted.weight_bits
            return wide_weights and one.activation_bits >= wanted.activation_bits

        return min(filter(covers, self.precisions), default=self.widest)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRanges:
    """What a search may choose for a policy. `exits_after`: the operations whose outputs exit heads read, in order."""

    kinds: tuple[PolicyKind, ...] = (PolicyKind.STATIC,)
    max_entries: int = 2
    gate_grids: tuple[int, ...] = (4,)
    gate_hidden: tuple[int, ...] = (8,)
    exits_after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SearchSpace:
    """The choices a search has. `network` already has its exit heads attached; every operation is in exactly one unit."""

    name: str
    network: Network
    units: tuple[Unit, ...]
    policies: PolicyRanges

    def __post_init__(self) -> None:
        grouped = sorted(name for unit in self.units for name in unit.ops)
        if grouped != sorted(op.name for op in self.network.ops):
            raise SpaceError(
                f"Every operation of {self.network.name} must be in one unit of {self.name}, but units hold {grouped}."
            )

    def unit_of(self, op_name: str) -> Unit:
        """The unit that an operation belongs to."""
        for unit in self.units:
            if op_name in unit.ops:
                return unit
        raise SpaceError(f"An operation must be one of {', '.join(op.name for op in self.network.ops)}, but found {op_name!r}.")

    def assignment(self, choice: Mapping[str, Precision]) -> BitAssignment:
        """The assignment in which each unit takes its chosen precision; `choice` has one for every unit."""
        if set(choice) != {unit.name for unit in self.units}:
            raise SpaceError(f"A choice must name every unit of {self.name} once, but names {sorted(choice)}; complete it.")
        for unit in self.units:
            if choice[unit.name] not in unit.precisions:
                raise SpaceError(
                    f"Unit {unit.name} must take one of {', '.join(map(str, unit.precisions))}, but found {choice[unit.name]}"
                    f"{f' ({unit.reason})' if unit.reason else ''}; choose one of them."
                )
        chosen = {op: choice[unit.name] for unit in self.units for op in unit.ops}
        return BitAssignment({op.name: _for_op(op, chosen[op.name]) for op in self.network.ops})

    def uniform(self, precision: Precision) -> BitAssignment:
        """`precision` everywhere it is allowed; elsewhere the next wider one, or the widest there is."""
        if not any(precision in unit.precisions for unit in self.units):
            known = sorted({one for unit in self.units for one in unit.precisions if one.weight_bits})
            raise SpaceError(
                f"A uniform precision must be one that {self.name} has ({', '.join(map(str, known))}), but found {precision}; "
                "choose one of them."
            )
        return self.assignment({unit.name: unit.nearest(precision) for unit in self.units})


def _for_op(op: Op, precision: Precision) -> Precision:
    return precision if op.has_weights else precision.without_weights()


# --- units ------------------------------------------------------------------------------------------------------------


def build_space(name: str, network: Network, table: SpaceTable, source: str = "") -> SearchSpace:
    """The space that a file's content describes for a network without exits; `source` names the file in errors."""
    policies = PolicyRanges(
        kinds=table.policies.kinds,
        max_entries=table.policies.max_entries,
        gate_grids=table.policies.gate_grids,
        gate_hidden=table.policies.gate_hidden,
        exits_after=tuple(one.after for one in table.policies.exit),
    )
    try:
        complete = attach_exits(network, policies.exits_after)
    except SpaceError as error:
        raise SpaceError(f"{source or name}: {error}") from error
    limits = _limits(complete, table, source or name)
    ties = [(_matching(complete, tie.match, source or name), tie.reason) for tie in table.tie]
    groups = _groups(complete, [tied for tied, _ in ties])
    tie_reasons = [tuple(reason for tied, reason in ties if tied[0] in group) for group in groups]
    units = tuple(
        _unit(complete, group, limits, reasons, source or name) for group, reasons in zip(groups, tie_reasons, strict=True)
    )
    return SearchSpace(name=name, network=complete, units=units, policies=policies)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limit:
    """Widths one operation may take."""

    weight_bits: tuple[int, ...]
    activation_bits: tuple[int, ...]
    reasons: tuple[str, ...] = ()


def _limits(network: Network, table: SpaceTable, source: str) -> dict[str, _Limit]:
    """The file's widths, then its rules in order (a later one replaces an earlier), then what holds for every network."""
    start = _Limit(weight_bits=table.weight_bits, activation_bits=table.activation_bits)
    limits = {op.name: start for op in network.ops}
    for rule in table.rule:
        for op_name in _matching(network, rule.match, source):
            limits[op_name] = _restricted(limits[op_name], rule)
    for op in network.ops:
        if INPUT in op.inputs:
            limits[op.name] = replace(limits[op.name], activation_bits=(8,), reasons=(*limits[op.name].reasons, INPUT_REASON))
        if not network.consumers(op.name):
            limits[op.name] = _Limit(weight_bits=(8,), activation_bits=(8,), reasons=(LOGITS_REASON,))
    return limits


def _restricted(limit: _Limit, rule: RuleTable) -> _Limit:
    return _Limit(
        weight_bits=rule.weight_bits or limit.weight_bits,
        activation_bits=rule.activation_bits or limit.activation_bits,
        reasons=(*limit.reasons, rule.reason),
    )


def _matching(network: Network, pattern: str, source: str) -> tuple[str, ...]:
    found = tuple(op.name for op in network.ops if fnmatchcase(op.name, pattern))
    if not found:
        raise SpaceError(
            f"Every pattern must match an operation of {network.name}, but in {source} {pattern!r} matches none of "
            f"{', '.join(op.name for op in network.ops)}; correct the pattern."
        )
    return found


def _groups(network: Network, ties: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Operations that must share a precision, each group and the groups among themselves in execution order."""
    together: nx.Graph[str] = nx.Graph()
    together.add_nodes_from(op.name for op in network.ops)
    for tensor in (INPUT, *(op.name for op in network.ops)):
        nx.add_path(together, [op.name for op in network.consumers(tensor)])
    for op in network.ops:
        if op.kind.traits.passes_codes:
            together.add_edges_from((op.name, reader.name) for reader in network.consumers(op.name))
    for tie in ties:
        nx.add_path(together, tie)
    position = {op.name: index for index, op in enumerate(network.ops)}
    groups = (tuple(sorted(group, key=position.__getitem__)) for group in nx.connected_components(together))
    return sorted(groups, key=lambda group: position[group[0]])


def _unit(
    network: Network, names: tuple[str, ...], limits: Mapping[str, _Limit], tie_reasons: tuple[str, ...], source: str
) -> Unit:
    """A unit takes what all its operations may take; it is named after the first that has weights."""
    weighted = [name for name in names if network[name].has_weights]
    activations = _common(limits[name].activation_bits for name in names)
    weights = _common(limits[name].weight_bits for name in weighted) if weighted else [0]
    if not activations or not weights:
        side, widths = ("weights", [limits[name].weight_bits for name in weighted])
        if not activations:
            side, widths = ("activations", [limits[name].activation_bits for name in names])
        raise SpaceError(
            f"Operations that read one tensor, or are tied, must have a common width, but in {source} {', '.join(names)} "
            f"have no common width of {side} ({widths}); widen one of their rules."
        )
    reasons = dict.fromkeys((*(reason for name in names for reason in limits[name].reasons), *tie_reasons))
    precisions = tuple(Precision(*bits) for bits in product(weights, activations))
    return Unit(name=(weighted or names)[0], ops=names, precisions=precisions, reason="; ".join(reasons))


def _common(widths: Iterable[tuple[int, ...]]) -> list[int]:
    return sorted(set.intersection(*(set(one) for one in widths)))


# --- files ------------------------------------------------------------------------------------------------------------


def load_space(name_or_path: str | os.PathLike[str], network: Network) -> SearchSpace:
    """The space of a TOML file, by path or by the name of a shipped or local one, for a network without exits.

    >>> space = load_space("digits_cnn", network_for_space("digits_cnn"))
    >>> [unit.name for unit in space.units], space.network.exits
    (['conv1', 'conv2', 'conv3', 'exit1.fc', 'conv4', 'exit2.fc', 'fc'], ('exit1', 'exit2'))
    >>> str(space.uniform(Precision.parse("w4a4"))["conv1"])
    'w4a8'
    """
    path = find_space(name_or_path)
    return build_space(path.stem, network, read_space_file(path), str(path))


def network_for_space(name_or_path: str | os.PathLike[str]) -> Network:
    """The reference network that a space file names, without exits, as it was captured when it was last changed.

    torch takes seconds to load and to capture a network; whoever only prices a space needs none.
    """
    path = find_space(name_or_path)
    named = read_space_file(path).network
    references = reference_networks()
    if named is None:
        raise SpaceError(
            f"A space must name a reference network to be used without a model, but {path} does not; "
            f"add network = with one of {', '.join(references)}."
        )
    if named not in references:
        raise SpaceError(f"A reference network must be one of {', '.join(references)}, but {path} names {named!r}; correct it.")
    return Network.from_json(references[named])


@cache
def reference_networks() -> Mapping[str, dict[str, Any]]:
    """The captured reference networks (`Network.to_json`) by the name that a space gives, from `NETWORKS_FILE`."""
    records = map(json.loads, NETWORKS_FILE.read_text(encoding="utf-8").splitlines())
    return {record["reference"]: record["network"] for record in records}


def list_spaces() -> tuple[str, ...]:
    """Names of all spaces that `load_space` finds by name."""
    return tuple(_named_spaces())


def find_space(name_or_path: str | os.PathLike[str]) -> Path:
    """The file of a space: a path to one, or a name looked up here, in the installed package, in the source tree."""
    given = Path(name_or_path)
    if given.is_file():
        return given
    known = _named_spaces()
    if str(given) in known:
        return known[str(given)]
    raise SpaceError(
        f"A search space must be a TOML file or one of {', '.join(known) or 'the shipped ones'}, "
        f"but found {str(name_or_path)!r}; name one of these."
    )


def _named_spaces() -> dict[str, Path]:
    return find_named(data_folders("search_spaces"), "*.toml")
