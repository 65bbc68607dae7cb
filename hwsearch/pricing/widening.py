"""Widths that a library lacks run at the next wider one it has: what a model costs where it is deployed through that library."""

from collections.abc import Sequence

from hwsearch.errors import ProfileError
from hwsearch.graph.network import Network
from hwsearch.graph.op import Op
from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.hardware.profile import HardwareProfile

Width = tuple[int, int, int]
"""Stored, weight and activation bits that some row of an operation's kind has."""


def widen(assignments: Sequence[BitAssignment], network: Network, profile: HardwareProfile) -> tuple[BitAssignment, ...]:
    """The assignments of one model's entries, each operation at the narrowest precision of the profile that covers its own.

    An operation's weights are stored once, at one width for all entries. Raises ProfileError where nothing covers.
    """
    known: dict[str, set[Width]] = {}
    for row in profile.measurements:
        known.setdefault(row.op, set()).add((row.stored_bits, row.weight_bits, row.activation_bits))
    chosen: list[dict[str, Precision]] = [dict(assignment) for assignment in assignments]
    for op in network.ops:
        entries = [entry for entry in chosen if op.name in entry]
        wider = _wider([entry[op.name] for entry in entries], known.get(op.kind, set()), op, profile.name)
        for entry, precision in zip(entries, wider, strict=True):
            entry[op.name] = precision
    return tuple(BitAssignment(entry) for entry in chosen)


def _wider(wanted: Sequence[Precision], known: set[Width], op: Op, profile_name: str) -> list[Precision]:
    for stored in sorted({width[0] for width in known}):
        covering = [_narrowest(one, [width for width in known if width[0] == stored]) for one in wanted]
        found = [precision for precision in covering if precision is not None]
        if len(found) == len(wanted):
            return found
    listed = ", ".join(map(str, sorted({Precision(*width[1:]) for width in known}))) or "none"
    raise ProfileError(
        f"Profile {profile_name} must have a precision for {op.kind} that covers {', '.join(map(str, wanted))}, "
        f"but has {listed}; choose narrower widths or another profile."
    )


def _narrowest(wanted: Precision, known: Sequence[Width]) -> Precision | None:
    covers = [
        Precision(weights, activations)
        for _, weights, activations in known
        if weights >= wanted.weight_bits and activations >= wanted.activation_bits
    ]
    return min(covers, default=None)
