"""Bit-widths as gates that fall while a hard limit is broken and rise while it is met.

After Constraint Guided Model Quantization, arXiv 2409.20138 (2024). What is the paper's and what is ours:

| theirs (opening of the preprint)                               | here                                              |
| -------------------------------------------------------------- | ------------------------------------------------- |
| the input is an upper bound on the computational cost          | `Excess`: any exact prices of the device, several at once |
| training lowers bit-widths until the bound holds               | `update`, its falling half                        |
| no hyper-parameter need be tuned to reach a feasible network   | `termination_bound` depends on no data            |
| satisfaction of the bound is guaranteed                        | `update`, the projection of its rising half       |

Ours, and not to be taken for the paper's (whose direction formulas, gate thresholds and schedule we have not seen):
gates over chains of measured prices instead of powers of two; one gate per unit of the search space and menu column; the
three rules `grad`, `mag`, `gradxmag`; the division by price; the finite-termination bound; the projection and the exchange.

Let `L` be the number of options of the longest chain, `rate` the levels that a gate moves at full push and `least_push` the
smallest share of it. *Termination*: a falling update lowers every gate of at least one broken column that is not yet at
its floor by `rate * least_push` or more, or, when all broken columns are at their floor, every gate. Each of the `C` columns
takes at most `ceil(L / (rate * least_push))` such updates, so a run of falling updates ends after at most `C + 1` times
that many: at the latest every gate is at its floor, and the floor was checked to be feasible. Nothing is assumed about the
price except that: not even that it is monotone, which a shared store of nested weights can break.
*Invariance*: a rising update crosses a level only where the exact price allows it, so what is feasible stays feasible.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import InfeasibleBudget
from hwsearch.graph.precision import Precision

Table = NDArray[np.float64]
"""One number per gate, `[columns, units]`."""

Levels = NDArray[np.int64]
"""Position in its chain of every gate, `[columns, units]`."""

Excess = Callable[[Levels], NDArray[np.float64]]
"""Exact check: the largest share over any limit that each column answers for, `[columns]`; 0 or less is met."""

WIDTH_PRIOR = 0.01
"""Loss that each operand is taken to add per squared step of its width, beside what was measured: 4^-bits of it."""

EXCHANGE_GAIN = 2.0
"""How much more salient a gate must be than the one that pays for its rise."""

_TINY = 1e-12


class Rule(StrEnum):
    """What makes a gate worth its bits: the mean absolute gradient `G` of its weights, their mean absolute value `M`, or both.

    `grad` ranks by G, `mag` by M, `gradxmag` by G * M, which is a first-order estimate of what removing the weights would cost.
    """

    GRAD = "grad"
    MAG = "mag"
    GRADXMAG = "gradxmag"

    def saliency(self, gradient: Table, magnitude: Table) -> Table:
        if self is Rule.GRAD:
            return gradient
        return magnitude if self is Rule.MAG else gradient * magnitude


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One precision of a unit: its price (of all the unit's operations) and the loss it was measured to add."""

    precision: Precision
    latency_us: float
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Options of a unit from cheap to dear; each step up costs more and was measured to lose less."""

    unit: str
    options: tuple[Option, ...]

    def __post_init__(self) -> None:
        for low, high in zip(self.options, self.options[1:], strict=False):
            if not (low.latency_us < high.latency_us and low.loss > high.loss):
                raise ValueError(f"options of {self.unit} must rise in price and fall in loss, but {low} precedes {high}")
        if not self.options:
            raise ValueError(f"unit {self.unit} needs at least one option")

    def affordable(self, latency_us: float) -> int:
        """Highest level that costs at most `latency_us`; the floor if none does."""
        return max((level for level, option in enumerate(self.options) if option.latency_us <= latency_us), default=0)


def price_chain(unit: str, options: Sequence[Option], floor: Precision | None = None) -> Chain:
    """Keep the options worth their price: cheapest first, then each that loses less than all cheaper ones.

    A wider precision can always represent a narrower one, so its measured loss counts as at most that of every
    precision it contains, and a little less still (`WIDTH_PRIOR`: quantization noise falls with 4^-bits): noise in
    the measurement does not make width look harmful. `floor` makes that option the first, whatever is cheaper.

    >>> w2, w4, w8 = Precision(2, 2), Precision(4, 4), Precision(8, 8)
    >>> measured = [(w8, 9.0, 0.02), (w4, 4.0, 0.01), (w2, 5.0, 0.5)]
    >>> chain = price_chain("conv", [Option(precision=p, latency_us=t, loss=e) for p, t, e in measured])
    >>> [str(option.precision) for option in chain.options]
    ['w4a4', 'w8a8']
    """
    lowest = [
        replace(option, loss=min(other.loss for other in options if _contains(option, other)) + _prior(option.precision))
        for option in options
    ]
    ordered = sorted(lowest, key=lambda option: (option.latency_us, option.loss))
    if floor is not None:
        first = next(option for option in ordered if option.precision == floor)
        ordered = [first, *(option for option in ordered if option.latency_us > first.latency_us)]
    kept: list[Option] = []
    for option in ordered:
        if not kept or (option.loss < kept[-1].loss and option.latency_us > kept[-1].latency_us):
            kept.append(option)
    return Chain(unit=unit, options=tuple(kept))


def _prior(precision: Precision) -> float:
    return WIDTH_PRIOR * sum(4.0**-bits for bits in (precision.weight_bits, precision.activation_bits) if bits)


def _contains(wide: Option, narrow: Option) -> bool:
    a, b = wide.precision, narrow.precision
    return a.weight_bits >= b.weight_bits and a.activation_bits >= b.activation_bits


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BitGates:
    """One real gate per menu column and unit; its whole part is the level in the unit's chain.

    A column is a menu entry that has its own assignment; the entries of an exit menu share one. `values` lie in
    [0, options of the chain).
    """

    chains: tuple[Chain, ...]
    values: Table  # [columns, units]
    rate: float = 0.1
    least_push: float = 0.1

    @property
    def levels(self) -> Levels:
        return np.minimum(self.values.astype(np.int64), self.tops)  # [columns, units]

    @property
    def tops(self) -> Levels:
        """Highest level of each unit, `[units]`."""
        return np.array([len(chain.options) - 1 for chain in self.chains], dtype=np.int64)

    def precisions(self, column: int) -> dict[str, Precision]:
        """The precision each gated unit takes in one column."""
        row = self.levels[column]
        return {chain.unit: chain.options[level].precision for chain, level in zip(self.chains, row, strict=True)}


def start(chains: Sequence[Chain], levels: Levels, excess: Excess, *, rate: float = 0.1, least_push: float = 0.1) -> BitGates:
    """BitGates in the middle of the given levels `[columns, units]`. Refuses limits that even the floor breaks."""
    if not (rate > 0 and 0 < least_push <= 1):
        raise ValueError(f"rate must be positive and least_push in (0, 1], but they are {rate} and {least_push}")
    worst = float(np.max(excess(np.zeros_like(levels)), initial=0.0))
    if worst > 0:
        raise InfeasibleBudget(
            f"The cheapest option of every unit must meet the limits, but exceeds one by {worst:.1%}; raise that limit."
        )
    return BitGates(chains=tuple(chains), values=np.asarray(levels + 0.5, dtype=np.float64), rate=rate, least_push=least_push)


def termination_bound(gates: BitGates) -> int:
    """Falling updates after which the limits are met at the latest, whatever the data (proof in the module's text)."""
    longest = max((len(chain.options) for chain in gates.chains), default=1)
    columns = int(gates.values.shape[0])
    return (columns + 1) * math.ceil(longest / (gates.rate * gates.least_push))


def update(gates: BitGates, saliency: Table, excess: Excess) -> BitGates:
    """One step of the gates: fall where a limit is broken, else rise as far as the limits allow.

    `saliency`: not negative, `[columns, units]`.
    """
    broken = excess(gates.levels) > 0  # [columns]
    return _fall(gates, saliency, broken) if broken.any() else _rise(gates, saliency, excess)


def settle(gates: BitGates, saliency: Table, excess: Excess) -> tuple[BitGates, int]:
    """Fall until every limit is met; also the number of updates it took, at most `termination_bound`."""
    for taken in range(termination_bound(gates) + 1):
        if not (excess(gates.levels) > 0).any():
            return gates, taken
        gates = update(gates, saliency, excess)
    raise AssertionError("the limits changed while the gates fell: the floor met them at the start")


def _fall(gates: BitGates, saliency: Table, broken: NDArray[np.bool_]) -> BitGates:
    """Lower the gates of broken columns, fastest where a level saves most per saliency lost; all gates if those are down."""
    columns = broken if gates.levels[broken].any() else np.ones_like(broken)
    saving = _price_step(gates, -1)
    push = np.maximum(_normalised(saving / (saliency + _TINY)), gates.least_push)
    lowered = np.maximum(gates.values - gates.rate * push, 0.0)
    return replace(gates, values=np.where(columns[:, None], lowered, gates.values))


def _rise(gates: BitGates, saliency: Table, excess: Excess) -> BitGates:
    """Raise all gates, fastest where a level buys most saliency per price; a level is crossed only if the limits then hold."""
    levels = gates.levels
    density = np.where(levels < gates.tops, saliency / (_price_step(gates, +1) + _TINY), 0.0)
    push = _normalised(density)
    wanted = gates.values + gates.rate * push
    values = gates.values.copy()
    moved: set[tuple[int, int]] = set()
    for column, unit in _by_descending(push):
        if (column, unit) in moved:
            continue
        values[column, unit] = min(wanted[column, unit], float(np.nextafter(levels[column, unit] + 1, 0)))
        if wanted[column, unit] < levels[column, unit] + 1:
            continue
        payer = _payer(levels, (column, unit), saliency, excess, moved)
        if payer is not None:
            levels = _exchanged(levels, (column, unit), payer)
            moved |= {(column, unit), (column, payer)}
            for changed in {unit, payer}:
                values[column, changed] = levels[column, changed] + 0.5
    return replace(gates, values=values)


def _payer(levels: Levels, gate: tuple[int, int], saliency: Table, excess: Excess, moved: set[tuple[int, int]]) -> int | None:
    """Who pays for a rise: the unit itself if there is room, else the least salient unit that makes room; None if no one can."""
    column, unit = gate
    limit = saliency[gate] / EXCHANGE_GAIN
    others = [int(other) for other in np.argsort(saliency[column], kind="stable") if other != unit]
    able = [other for other in others if levels[column, other] > 0 and saliency[column, other] < limit]
    for payer in (unit, *(other for other in able if (column, other) not in moved)):
        if not (excess(_exchanged(levels, gate, payer)) > 0).any():
            return payer
    return None


def _exchanged(levels: Levels, gate: tuple[int, int], payer: int) -> Levels:
    """Levels after the gate rises by one and the payer, if it is another unit of the column, falls by one."""
    column, unit = gate
    moved = levels.copy()
    moved[column, unit] += 1
    if payer != unit:
        moved[column, payer] -= 1
    return moved


def _price_step(gates: BitGates, direction: int) -> Table:
    """Latency between each gate's level and the next one up (+1) or down (-1), in us; 0 at the end of a chain."""
    steps = np.zeros(gates.values.shape)
    for (column, unit), level in np.ndenumerate(gates.levels):
        options, other = gates.chains[unit].options, int(level) + direction
        if 0 <= other < len(options):
            steps[column, unit] = abs(options[other].latency_us - options[int(level)].latency_us)
    return steps


def _normalised(table: Table) -> Table:
    """Shares of each row's largest number; a row of zeros stays."""
    largest = table.max(axis=1, keepdims=True, initial=0.0)
    return np.asarray(table / np.where(largest > 0, largest, 1.0))


def _by_descending(push: Table) -> list[tuple[int, int]]:
    """Gates from the strongest push to the weakest, ties in order; gates without push are left out."""
    order = np.argsort(-push, axis=None, kind="stable")
    pairs = [divmod(int(flat), push.shape[1]) for flat in order]
    return [(column, unit) for column, unit in pairs if push[column, unit] > 0]
