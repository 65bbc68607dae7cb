"""Flash for time: which widths of an operation's weights get a packed copy of their own beside the nested one.

A nested weight is stored once, at the widest width any entry uses, and a narrower entry reads the top bits of the same codes.
Dense codes of the narrow width are faster to unpack (linear operations gain most, see the rows of a table that differ in
`stored_bits` alone) but lie in flash a second time. What a copy saves is known from the table, and so is what it weighs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hwsearch.graph.menu import Menu, PolicyShape
from hwsearch.kernels.layout import in_lines, packed_weight_bytes
from hwsearch.pricing.cost_model import CostModel

WORTH = 1e-3
"""A copy must save at least this share of the longest inference, so that flash is not spent on nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A copy of one operation's weights at one width. `saved_us`: over all entries that would read it, each run once."""

    copy: tuple[str, int]
    saved_us: float
    flash_bytes: int


def with_copies(menu: Menu, costs: CostModel, flash_limit_bytes: float | None, policy: PolicyShape | None = None) -> Menu:
    """The menu with the copies that save most time per byte, as many as the limit (or without one the device) has room for.

    No entry becomes slower, and flash stays within the limit if it was before.
    """
    plain = replace(menu, copies=frozenset())
    paths = costs.paths(plain, policy)
    limit = costs.profile.header.device.flash_bytes if flash_limit_bytes is None else flash_limit_bytes
    room, longest_us = limit - paths[0].flash_bytes, max(path.latency_us for path in paths)
    worthwhile = [one for one in _candidates(plain, costs) if one.saved_us >= WORTH * longest_us]
    taken: set[tuple[str, int]] = set()
    for one in sorted(worthwhile, key=lambda one: (-one.saved_us / one.flash_bytes, one.copy)):
        if one.flash_bytes <= room:
            room -= one.flash_bytes
            taken.add(one.copy)
    return replace(plain, copies=frozenset(taken))


def _candidates(menu: Menu, costs: CostModel) -> Iterator[_Candidate]:
    nested = menu.stored_bits(costs.network)
    saved: dict[tuple[str, int], list[float]] = {}
    for segment, entry in zip(menu.segments(costs.network), menu.entries, strict=True):
        for op in segment:
            precision = entry.assignment[op.name]
            if op.has_weights and precision.weight_bits < nested[op.name]:
                slow, fast = (costs.op_price(op, precision, bits) for bits in (nested[op.name], precision.weight_bits))
                key = (op.name, precision.weight_bits)
                saved.setdefault(key, []).append(slow.latency_us - fast.latency_us)
    for (name, bits), by_entry in saved.items():
        if min(by_entry) >= 0:
            flash_bytes = in_lines(packed_weight_bytes(costs.network[name], bits))
            yield _Candidate(copy=(name, bits), saved_us=sum(by_entry), flash_bytes=flash_bytes)
