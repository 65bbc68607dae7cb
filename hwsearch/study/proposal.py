"""What a trial decides, as named parameters, and what they mean.

Each unit with a choice has a range of weight widths and a range of activation widths: the box between them is its precision set.
Within these sets an integer programme picks the entries' assignments (`preview.py`), so a trial with whole sets is the best
by measured sensitivity, and one with single precisions is exactly the assignment it names. All parameters exist in
every trial, whatever its policy: a sampler learns most from a fixed set.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import log2
from typing import Any

from hwsearch.graph.menu import PolicyKind, PolicyShape
from hwsearch.graph.precision import Precision
from hwsearch.graph.space import SearchSpace, Unit
from hwsearch.predictors.exit import chosen_exits
from hwsearch.predictors.parameters import Category, Interval, Parameter, Params
from hwsearch.predictors.policy import POLICIES
from hwsearch.predictors.threshold import escalation_parameters

PrecisionSets = Mapping[str, tuple[Precision, ...]]

MAX_SEEDED_TARGETS = 3


def parameters(space: SearchSpace) -> tuple[Parameter, ...]:
    """All parameters of a trial in this space, in a fixed order."""
    return (*_unit_parameters(space), *_policy_parameters(space))


def _unit_parameters(space: SearchSpace) -> Iterator[Parameter]:
    for unit in space.units:
        for axis in ("weights", "activations"):
            if len(_widths(unit, axis)) > 1:
                yield Category(name=f"{axis}:{unit.name}", options=tuple(_ranges(_widths(unit, axis))))


def _policy_parameters(space: SearchSpace) -> Iterator[Parameter]:
    """What several kinds have in common and what each has of its own; for one seed the trials hang on this order."""
    kinds, most = usable_kinds(space), space.policies.max_entries
    yield Interval(name="target", low=0.0, high=1.0)
    if len(kinds) > 1:
        yield Category(name="policy", options=tuple(str(kind) for kind in kinds))
    if any(map(_has_own_entries, kinds)):
        yield Interval(name="descent", low=0.0, high=1.0)
        if most > 2:
            yield Category(name="entries", options=tuple(range(2, most + 1)))
    for kind, record in POLICIES.items():
        yield from record.parameters(space) if kind in kinds else ()
    yield from escalation_parameters(max((_most_entries(space, kind) - 1 for kind in kinds if kind.escalates), default=0))


def _has_own_entries(kind: PolicyKind) -> bool:
    """Whether each entry of its menus has an assignment of its own."""
    return not kind.has_one_entry and not kind.shares_trunk


def usable_kinds(space: SearchSpace) -> tuple[PolicyKind, ...]:
    """Kinds of policy that the space allows and its network can have."""
    return tuple(kind for kind in space.policies.kinds if not kind.shares_trunk or space.network.exits)


def _most_entries(space: SearchSpace, kind: PolicyKind) -> int:
    """Entries of the longest menu of a dynamic kind; on a shared trunk there are no more than the exits and its end."""
    ends = len(space.network.exits) + 1
    return min(ends, space.policies.max_entries) if kind.shares_trunk else space.policies.max_entries


# --- precision sets ---------------------------------------------------------------------------------------------------


def _widths(unit: Unit, axis: str) -> list[int]:
    return sorted({p.weight_bits if axis == "weights" else p.activation_bits for p in unit.precisions})


def _ranges(widths: Sequence[int]) -> list[str]:
    """All ranges from one width to another, as text.

    >>> _ranges([2, 4])
    ['2..2', '2..4', '4..4']
    """
    return [f"{low}..{high}" for low, high in combinations_with_replacement(widths, 2)]


def precision_sets(space: SearchSpace, params: Params) -> PrecisionSets:
    """The precisions each unit may take in a trial."""
    return {unit.name: _precision_set(unit, params) for unit in space.units}


def _precision_set(unit: Unit, params: Params) -> tuple[Precision, ...]:
    """Precisions in the box of the unit's ranges; if none lies inside, the nearest ones, counted in doublings."""

    def outside(precision: Precision) -> float:
        return sum(
            _distance(bits, params.get(f"{axis}:{unit.name}"))
            for axis, bits in (("weights", precision.weight_bits), ("activations", precision.activation_bits))
        )

    nearest = min(map(outside, unit.precisions))
    return tuple(precision for precision in unit.precisions if outside(precision) == nearest)


def _distance(bits: int, wanted: str | None) -> float:
    """Doublings between a width and a range; 0 inside, and where there is no choice."""
    if wanted is None:
        return 0.0
    low, high = map(int, wanted.split(".."))
    if bits < low:
        return log2(low / bits)
    return log2(bits / high) if bits > high else 0.0


# --- policy -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A trial's wishes: precision sets, a policy, and how fast each entry shall be.

    `targets`: for each entry from the cheapest on, its place between the fastest assignment (0) and the slowest
    within the budget (1); one for all entries of a shared trunk. `exits`: those on a shared trunk.
    """

    sets: PrecisionSets
    policy: PolicyShape
    targets: tuple[float, ...]
    exits: tuple[str, ...] = ()


def read_proposal(space: SearchSpace, params: Params) -> Proposal:
    """The proposal that a trial's parameters stand for."""
    kind = PolicyKind(params["policy"]) if "policy" in params else usable_kinds(space)[0]
    exits = chosen_exits(params) if kind.shares_trunk else ()
    targets = _targets(params) if _has_own_entries(kind) else (params["target"],)
    policy = POLICIES[kind].policy_of(params, len(exits) + len(targets))
    return Proposal(sets=precision_sets(space, params), policy=policy, targets=targets, exits=exits)


def _targets(params: Params) -> tuple[float, ...]:
    return _descending(params["target"], params["descent"], params.get("entries", 2))


def _descending(top: float, descent: float, entries: int) -> tuple[float, ...]:
    """Targets from the cheapest entry, `top * (1 - descent)`, to `top`, evenly spaced."""
    return tuple(top * (1 - descent * (entries - 1 - index) / (entries - 1)) for index in range(entries))


# --- first trials -----------------------------------------------------------------------------------------------------


def seeded_trials(space: SearchSpace) -> list[dict[str, Any]]:
    """Parameters of the trials a search begins with: uniform precisions, then whole precision sets for every policy.

    Parameters that are left out are the sampler's choice.
    """
    whole = {p.name: max(p.options, key=_extent) for p in _unit_parameters(space) if isinstance(p, Category)}
    kinds = usable_kinds(space)
    plainest = max(kinds, key=lambda kind: kind.has_one_entry)
    uniform = [{**_uniform(space, bits), **_policy(space, plainest), "target": 1.0} for bits in _uniform_bits(space)]
    targets = [place / MAX_SEEDED_TARGETS for place in range(MAX_SEEDED_TARGETS)]
    rest = [{**whole, **_policy(space, kind), "target": target} for target in targets for kind in kinds]
    return [_known(space, params) for params in uniform + rest]


def _extent(text: str | int) -> int:
    low, high = map(int, str(text).split(".."))
    return high - low


def _uniform_bits(space: SearchSpace) -> list[int]:
    """Widths b such that w{b}a{b} is allowed somewhere, widest first."""
    found = {p.weight_bits for unit in space.units for p in unit.precisions if p.weight_bits == p.activation_bits}
    return sorted(found, reverse=True)


def _uniform(space: SearchSpace, bits: int) -> dict[str, str]:
    chosen = {unit.name: unit.nearest(Precision(bits, bits)) for unit in space.units}
    return {
        f"{axis}:{unit.name}": f"{width}..{width}"
        for unit in space.units
        for axis, width in (("weights", chosen[unit.name].weight_bits), ("activations", chosen[unit.name].activation_bits))
        if len(_widths(unit, axis)) > 1
    }


def _policy(space: SearchSpace, kind: PolicyKind) -> dict[str, Any]:
    """A middling policy of one kind: two entries far apart, a third of the inputs sent on, the last exit."""
    exits = space.network.exits[-1:] if kind.shares_trunk else ()
    fixed = {"policy": str(kind), "descent": 1.0, "entries": 2, "escalation0": 0.3}
    return _known(space, fixed | ({"exits": exits[0]} if exits else {}))


def _known(space: SearchSpace, params: Mapping[str, Any]) -> dict[str, Any]:
    names = {parameter.name for parameter in parameters(space)}
    return {name: value for name, value in params.items() if name in names}
