"""Prices of many static assignments at once, equal to `CostModel.price` of each: millions per second.

Latency, energy, weights and constants add up over units, so they are read from tables, one row for each joint choice of a few
units. Two parts do not add up. A kernel's machine code is in flash once, whoever calls it: every row has a bit for each
kernel it calls, and the bits of all rows are joined. RAM is a planned arena, which depends on widths only through the working
memory of kernels: few combinations of it differ (1,250 among all assignments of ResNet8), and each is planned once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import prod

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import SpaceError
from hwsearch.graph.menu import PolicyKind
from hwsearch.graph.op import Op
from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.graph.space import SearchSpace, Unit
from hwsearch.kernels.layout import memory_plan, program_bytes, scratch_bytes
from hwsearch.pricing.cost_model import CostModel, joined_code

TABLE_ROWS = 4096
"""Most joint choices in one table: what a core's nearest caches hold."""
CHUNK = 16384
"""Assignments priced together, for the same reason."""
WORD_BITS = 60
"""Kernels whose bits share one int64."""
SLICE_BITS = 12
"""Bits of a word whose bytes of code are looked up at once."""
MOST_COMBINATIONS = 2**62
"""Combinations of working memory beyond which they have no number in an int64, and every assignment is planned."""

Choices = NDArray[np.integer]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPrices:
    """One price per assignment, each array `[N]`."""

    latency_us: Floats
    energy_uj: Floats
    flash_bytes: Ints
    ram_bytes: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class _Option:
    """What one precision of one unit adds: `code` are bytes by kernel, `scratch` the working memory of each operation."""

    latency_us: float
    energy_uj: float
    own_bytes: int
    code: dict[str, int]
    scratch: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """Sums over the joint choices of some units, each `[rows]`, `kernels` `[words, rows]`. `columns`: unit, factor in the row."""

    columns: tuple[tuple[int, int], ...]
    latency_us: Floats
    energy_uj: Floats
    own_bytes: Ints
    kernels: Ints
    combination: Ints

    def rows(self, choices: Choices) -> NDArray[np.intp]:
        """The row of each choice `[N, units]`."""
        rows = np.zeros(len(choices), dtype=np.intp)
        for unit, factor in self.columns:
            rows += choices[:, unit] * np.intp(factor)
        return rows


class BatchPricer:
    """Prices of a space's assignments on the way to the named exits, weights stored at each operation's own width.

    An assignment is a row of option indices, one per unit: `space.units[i].precisions[choices[n, i]]`.
    """

    def __init__(self, costs: CostModel, space: SearchSpace, *, exits: Iterable[str] = ("",)) -> None:
        self._costs, self._space = costs, space
        self._ops = costs.network.path(exits)
        self._sizes = np.array([len(unit.precisions) for unit in space.units])
        options = [[self._option(unit, precision) for precision in unit.precisions] for unit in space.units]
        runtime = costs.runtime_code()
        self._code = _CodeBits([runtime, *(one.code for row in options for one in row)])
        self._always = self._code.words_of(runtime)
        self._program_bytes = program_bytes(1, kind=PolicyKind.STATIC)
        combinations, self._n_combinations = _combinations(options)
        self._tables = [_table(group, options, combinations, self._code) for group in _groups(self._sizes.tolist())]
        self._arenas: dict[int, int] = {}

    def _option(self, unit: Unit, precision: Precision) -> _Option:
        ops = [op for op in self._ops if op.name in unit.ops]
        own = [_own(op, precision) for op in ops]
        prices = [self._costs.op_price(op, bits, bits.weight_bits) for op, bits in zip(ops, own, strict=True)]
        return _Option(
            latency_us=sum(price.latency_us for price in prices),
            energy_uj=sum(price.energy_uj for price in prices),
            own_bytes=self._costs.own_flash_bytes(prices),
            code=joined_code(price.code for price in prices),
            scratch=tuple(scratch_bytes(op, bits, self._costs.isa) for op, bits in zip(ops, own, strict=True)),
        )

    def price(self, choices: Choices) -> BatchPrices:
        """Prices of `choices`, integers `[N, units]`; raises SpaceError if one is no option of its unit."""
        self._check(choices)
        parts = [self._chunk(choices[start : start + CHUNK]) for start in range(0, max(len(choices), 1), CHUNK)]
        joined = [np.concatenate([part[quantity] for part in parts]) for quantity in range(4)]
        return BatchPrices(latency_us=joined[0], energy_uj=joined[1], flash_bytes=joined[2], ram_bytes=joined[3])

    def _check(self, choices: Choices) -> None:
        if choices.ndim != 2 or choices.shape[1] != len(self._sizes) or not np.issubdtype(choices.dtype, np.integer):
            raise SpaceError(
                f"Choices must be integers, one row per assignment and one column for each of the {len(self._sizes)} units of "
                f"{self._space.name}, but are {choices.dtype} of shape {choices.shape}; index each unit's precisions."
            )
        if len(choices) == 0:
            return
        for unit, lowest, highest in zip(self._space.units, choices.min(axis=0), choices.max(axis=0), strict=True):
            if lowest < 0 or highest >= len(unit.precisions):
                raise SpaceError(
                    f"A choice for unit {unit.name} must lie in 0..{len(unit.precisions) - 1}, "
                    f"but found {lowest if lowest < 0 else highest}; index its precisions."
                )

    def _chunk(self, choices: Choices) -> tuple[Floats, Floats, Ints, Ints]:
        latency_us, energy_uj = np.zeros((2, len(choices)))
        flash, combination = np.zeros((2, len(choices)), dtype=np.int64)
        kernels = np.repeat(np.array(self._always, dtype=np.int64)[:, None], len(choices), axis=1)  # [words, N]
        for table in self._tables:
            rows = table.rows(choices)
            latency_us += table.latency_us[rows]
            energy_uj += table.energy_uj[rows]
            flash += table.own_bytes[rows]
            combination += table.combination[rows]
            kernels |= table.kernels[:, rows]
        flash += self._code.total_bytes(kernels) + self._program_bytes
        return latency_us, energy_uj, flash, self._ram_bytes(choices, combination)

    def _ram_bytes(self, choices: Choices, combination: Ints) -> Ints:
        if self._n_combinations > MOST_COMBINATIONS:
            return np.array([self._plan(choice) for choice in choices], dtype=np.int64)
        distinct, first, which = np.unique(combination, return_index=True, return_inverse=True)
        for number, place in zip(distinct.tolist(), first.tolist(), strict=True):
            if number not in self._arenas:
                self._arenas[number] = self._plan(choices[place])
        return np.array([self._arenas[number] for number in distinct.tolist()], dtype=np.int64)[which]

    def _plan(self, choice: Choices) -> int:
        arena = memory_plan(self._costs.network, self._ops, self.assignment(choice), self._costs.isa).arena_bytes
        return self._costs.input_bytes + arena

    def assignment(self, choice: Sequence[int] | Choices) -> BitAssignment:
        """The assignment that one row of choices stands for."""
        return self._space.assignment(
            {unit.name: unit.precisions[int(index)] for unit, index in zip(self._space.units, choice, strict=True)}
        )


def _own(op: Op, precision: Precision) -> Precision:
    return precision if op.has_weights else precision.without_weights()


class _CodeBits:
    """A bit for each kernel; a kernel whose rows state several sizes has one for each step between them, the largest counts."""

    def __init__(self, called: Sequence[dict[str, int]]) -> None:
        sizes: dict[str, set[int]] = {}
        for code in called:
            for symbol, size in code.items():
                sizes.setdefault(symbol, {0}).add(size)
        steps = {symbol: sorted(found) for symbol, found in sorted(sizes.items())}
        self._bits = [(symbol, size) for symbol, rising in steps.items() for size in rising[1:]]
        added = [size - below for rising in steps.values() for below, size in pairwise(rising)]
        self.words = -(-len(added) // WORD_BITS)
        padded = np.zeros((self.words, WORD_BITS // SLICE_BITS, SLICE_BITS), dtype=np.int64)
        padded.reshape(-1)[: len(added)] = added
        set_bits = np.arange(2**SLICE_BITS)[:, None] >> np.arange(SLICE_BITS) & 1  # [patterns, bits]
        self._lookup = padded @ set_bits.T  # [words, slices, patterns]

    def words_of(self, code: dict[str, int]) -> list[int]:
        """Bits of one option, word by word."""
        words = [0] * self.words
        for place, (symbol, size) in enumerate(self._bits):
            if code.get(symbol, 0) >= size:
                words[place // WORD_BITS] |= 1 << place % WORD_BITS
        return words

    def total_bytes(self, kernels: Ints) -> Ints:
        """Machine code of the kernels whose bits are set in `kernels` `[words, N]`."""
        total = np.zeros(kernels.shape[1], dtype=np.int64)
        for word, slices in zip(kernels, self._lookup, strict=True):
            for place, lookup in enumerate(slices):
                if lookup[-1]:
                    total += lookup[word >> place * SLICE_BITS & (2**SLICE_BITS - 1)]
        return total


def _groups(sizes: Sequence[int]) -> list[list[int]]:
    """Neighbouring units whose joint choices fit one table."""
    groups: list[list[int]] = [[]]
    for unit, size in enumerate(sizes):
        if groups[-1] and prod(sizes[other] for other in groups[-1]) * size > TABLE_ROWS:
            groups.append([])
        groups[-1].append(unit)
    return groups


def _combinations(options: Sequence[Sequence[_Option]]) -> tuple[list[list[int]], int]:
    """What each option adds to the number of its combination of working memory, and how many combinations there are."""
    numbers, total = [], 1
    for row in options:
        distinct = list(dict.fromkeys(option.scratch for option in row))
        numbers.append([distinct.index(option.scratch) * total for option in row])
        total *= len(distinct)
    return (numbers, total) if total <= MOST_COMBINATIONS else ([[0] * len(row) for row in options], total)


def _table(
    group: Sequence[int], options: Sequence[Sequence[_Option]], combinations: Sequence[Sequence[int]], code: _CodeBits
) -> _Table:
    sizes = [len(options[unit]) for unit in group]
    factors = [prod(sizes[place + 1 :]) for place in range(len(group))]
    indices = np.array(list(product(*map(range, sizes))), dtype=np.intp)  # [rows, units of the group]

    def gathered(numbers: Sequence[Sequence[float]], kind: type[np.generic]) -> list[NDArray[np.generic]]:
        return [np.array(row, dtype=kind)[indices[:, place]] for place, row in enumerate(numbers)]

    chosen = [options[unit] for unit in group]
    words = [[code.words_of(option.code) for option in row] for row in chosen]
    kernels = [np.array(row, dtype=np.int64).reshape(len(row), code.words)[indices[:, place]] for place, row in enumerate(words)]
    return _Table(
        columns=tuple((unit, factor) for unit, factor, size in zip(group, factors, sizes, strict=True) if size > 1),
        latency_us=np.sum(gathered([[option.latency_us for option in row] for row in chosen], np.float64), axis=0),
        energy_uj=np.sum(gathered([[option.energy_uj for option in row] for row in chosen], np.float64), axis=0),
        own_bytes=np.sum(gathered([[option.own_bytes for option in row] for row in chosen], np.int64), axis=0),
        kernels=np.bitwise_or.reduce(kernels).T.copy(),
        combination=np.sum(gathered([combinations[unit] for unit in group], np.int64), axis=0),
    )
