"""The price of a network on a device: the sum of its operations' measured rows, and the memory it occupies.

Latency and energy add up over the operations that run, the policy's own included. Flash counts each kernel and each nested weight
once. RAM is the arena that the exported program uses, planned over the execution order, plus the caller's input.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple

from hwsearch.errors import ProfileError
from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind
from hwsearch.graph.network import Network
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import BitAssignment, Precision, kernel_precision
from hwsearch.graph.space import SearchSpace
from hwsearch.hardware.cost import Cost
from hwsearch.hardware.interpolation import MIN_ROWS, REACH, ShapeRegression, body_of, group_of, is_enough
from hwsearch.hardware.layout import (
    STEP_BYTES,
    activation_bytes,
    memory_plan,
    packed_weight_bytes,
    requantize_bytes,
    scratch_bytes,
)
from hwsearch.hardware.profile import HardwareProfile, Measurement, Provenance, RowKey

GATE_BITS = 8
"""Width of everything in a gate."""

PRICE_STEP = 2.0**-24
"""Prices of operations are whole multiples of this in us and uJ: up to 500 s their sums are exact, in whatever order."""

_TRUST = tuple(Provenance)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpPrice:
    """Price of one operation at one precision. `uncertainty` is a relative error; byte counts are those of the row's kernel."""

    op: str
    precision: Precision
    latency_us: float
    energy_uj: float
    provenance: Provenance
    uncertainty: float
    symbol: str
    code_bytes: int
    weight_bytes: int
    scratch_bytes: int
    interpolated: bool

    @property
    def origin(self) -> str:
        """Provenance, and whether the price was interpolated along shape."""
        return f"{self.provenance} (interpolated)" if self.interpolated else str(self.provenance)


class UnitPrice(NamedTuple):
    """What one precision of a search unit adds to a network's price: all its operations together."""

    precision: Precision
    latency_us: float
    flash_bytes: int


def argmax_op(classes: int) -> Op:
    """The decision over `classes` int32 logits, as it is measured and priced (at `a8`)."""
    return Op(name="argmax", kind=OpKind.ARGMAX, inputs=("input",), in_shape=(classes,), out_shape=(1,))


class CostModel:
    """Prices of one network on one device. Prices are computed once per operation and precision and kept."""

    def __init__(self, network: Network, profile: HardwareProfile) -> None:
        self.network = network
        self.profile = profile
        self._rows = {row.key: row for row in profile.measurements}
        self._groups: dict[RowKey, list[Measurement]] = {}
        self._bodies: dict[RowKey, list[Measurement]] = {}
        for row in profile.measurements:
            self._groups.setdefault(group_of(row.key), []).append(row)
            self._bodies.setdefault(body_of(row.key), []).append(row)
        self._regressions: dict[RowKey, ShapeRegression] = {}
        self._prices: dict[tuple[Op, Precision, int], OpPrice] = {}

    def op_price(self, op: Op, precision: Precision, stored_bits: int) -> OpPrice:
        """Price of `op` at `precision`, its weights stored at `stored_bits` (0 without weights).

        From the row of that very shape at the precision of the kernel that runs it, else interpolated along shape; raises
        ProfileError where neither is possible.
        """
        key = (op, precision, stored_bits)
        if key not in self._prices:
            row_key = RowKey.of(op, kernel_precision(precision), stored_bits)
            row = self._rows.get(row_key)
            found = self._interpolate(op, row_key) if row is None else self._read(op, row)
            self._prices[key] = replace(self._called(found), precision=precision)
        return self._prices[key]

    def _called(self, price: OpPrice) -> OpPrice:
        """The price with what it takes to call the operation from an exported program."""
        header = self.profile.header
        calling_us = header.latency_us(header.library.dispatch_count)
        energy_uj = price.energy_uj + header.energy_uj(calling_us)
        return replace(price, latency_us=_in_steps(price.latency_us + calling_us), energy_uj=_in_steps(energy_uj))

    def _read(self, op: Op, row: Measurement) -> OpPrice:
        return OpPrice(
            op=op.name, precision=row.precision, latency_us=row.latency_us, energy_uj=row.energy_uj, provenance=row.provenance,
            uncertainty=row.relative_error(self.profile.validity.relative_error), symbol=row.symbol, code_bytes=row.code_bytes,
            weight_bytes=row.weight_bytes, scratch_bytes=row.scratch_bytes, interpolated=False,
        )  # fmt: skip

    def _interpolate(self, op: Op, key: RowKey) -> OpPrice:
        regression = self._regression(key)
        latency_us = regression.latency_us(key)
        rows = regression.rows
        return OpPrice(
            op=op.name, precision=key.precision, latency_us=latency_us,
            energy_uj=latency_us * median(row.energy_uj / row.latency_us for row in rows),
            provenance=max((row.provenance for row in rows), key=_TRUST.index),
            uncertainty=median(row.relative_error(self.profile.validity.relative_error) for row in rows) + regression.error,
            symbol=rows[0].symbol, code_bytes=max(row.code_bytes for row in rows),
            weight_bytes=packed_weight_bytes(op, key.stored_bits) if op.has_weights else 0,
            scratch_bytes=scratch_bytes(op, key.precision), interpolated=True,
        )  # fmt: skip

    def _regression(self, key: RowKey) -> ShapeRegression:
        group = group_of(key)
        rows = self._groups.get(group, [])
        related = [row for row in self._bodies.get(body_of(key), []) if group_of(row.key) != group]
        if not is_enough(rows, related):
            raise ProfileError(self._missing(key, rows))
        if group not in self._regressions:
            self._regressions[group] = ShapeRegression.fit(rows, related)
        if not self._regressions[group].reaches(key):
            raise ProfileError(
                f"Profile {self.profile.name} must have a row within a factor {REACH:g} of every dimension of {key}, "
                f"but its rows are all smaller or larger; {self._remedy()}."
            )
        return self._regressions[group]

    def _missing(self, key: RowKey, rows: Sequence[Measurement]) -> str:
        widths = sorted({str(row.precision) for row in self.profile.measurements if row.op is key.op})
        if rows:
            found = f"only {len(rows)} of its kernel and precision (fewer than the {MIN_ROWS} that interpolation needs)"
        elif widths and str(key.precision) not in widths:
            found = f"for {key.op} only the widths {', '.join(widths)}"
        else:
            found = f"none of that kernel, stride and precision for {key.op}"
        return f"Profile {self.profile.name} must have a row for {key}, but has {found}; {self._remedy()}."

    def _remedy(self) -> str:
        if self.profile.header.library.published:
            return f"{self.profile.header.library.kernel_library} cannot be measured here: choose what the table has"
        return f"measure it with `hwsearch measure {self.profile.name} --space SPACE`"

    def breakdown(
        self, assignment: BitAssignment, *, stored_bits: Mapping[str, int] | None = None, exits: Iterable[str] = ("",)
    ) -> tuple[OpPrice, ...]:
        """Price of each operation on the way to the named exits, in execution order."""
        return self._prices_of(self.network.path(exits), assignment, stored_bits)

    def _prices_of(
        self, ops: Iterable[Op], assignment: BitAssignment, stored_bits: Mapping[str, int] | None
    ) -> tuple[OpPrice, ...]:
        stored = stored_bits or {}
        return tuple(self.op_price(op, assignment[op.name], stored.get(op.name, assignment[op.name].weight_bits)) for op in ops)

    def price(
        self, assignment: BitAssignment, *, stored_bits: Mapping[str, int] | None = None, exits: Iterable[str] = ("",)
    ) -> Cost:
        """Price of one static inference to the named exits, weights stored at each operation's own width unless given."""
        ops = self.network.path(exits)
        prices = self._prices_of(ops, assignment, stored_bits)
        return Cost(
            latency_us=sum(price.latency_us for price in prices),
            energy_uj=sum(price.energy_uj for price in prices),
            flash_bytes=self.own_flash_bytes(ops, prices) + _code_bytes(prices) + self.runtime_bytes,
            ram_bytes=self.input_bytes + memory_plan(self.network, ops, assignment).arena_bytes,
        )

    def paths(self, menu: Menu, gate_network: Network | None = None) -> tuple[Cost, ...]:
        """Price of the whole inference ending at each entry, the policy's own work included.

        `gate_network` is needed for `gate` alone. Flash and RAM are the whole model's and the same for all paths.
        """
        inferences = self.inferences(menu, gate_network)
        flash = self._menu_flash(menu, inferences, gate_network)
        ram = self._menu_ram(menu, gate_network)
        return tuple(
            Cost(
                latency_us=sum(price.latency_us for price in prices),
                energy_uj=sum(price.energy_uj for price in prices),
                flash_bytes=flash,
                ram_bytes=ram,
            )
            for prices in inferences
        )

    def inferences(self, menu: Menu, gate_network: Network | None = None) -> tuple[tuple[OpPrice, ...], ...]:
        """Price of everything that runs in an inference ending at each entry, gate and decisions included.

        To stop at an entry is a decision too, unless it is the last. A cascade names an operation once per run of it.
        """
        if (menu.kind is PolicyKind.GATE) != (gate_network is not None):
            raise ValueError(f"a gate network must be given for a gate menu and for no other, but the menu is {menu.kind}")
        own = [
            self._prices_of(segment, entry.assignment, read)
            for segment, entry, read in zip(menu.segments(self.network), menu.entries, menu.read_bits(self.network), strict=True)
        ]
        decisions = self._decision_prices(menu)
        if menu.kind in (PolicyKind.STATIC, PolicyKind.GATE):
            before = (*self._gate_prices(gate_network), *decisions)
            return tuple((*before, *prices) for prices in own)
        stages = [(*prices, *decisions[index : index + 1]) for index, prices in enumerate(own)]
        return tuple(tuple(price for stage in stages[: index + 1] for price in stage) for index in range(len(stages)))

    def _gate_prices(self, gate: Network | None) -> tuple[OpPrice, ...]:
        return () if gate is None else self._prices_of(gate.ops, gate_assignment(gate), None)

    def _decision_prices(self, menu: Menu) -> tuple[OpPrice, ...]:
        """The one decision of a gate; that of every entry but the last of a cascade or exits."""
        if menu.kind is PolicyKind.STATIC:
            return ()
        undecided = menu.entries[:-1]
        sizes = [len(menu.entries)] if menu.kind is PolicyKind.GATE else [self._classes(entry) for entry in undecided]
        return tuple(self.op_price(argmax_op(size), Precision(0, GATE_BITS), 0) for size in sizes)

    def _classes(self, entry: MenuEntry) -> int:
        return self.network.output_of(entry.exit).out_channels

    def _menu_flash(self, menu: Menu, inferences: Iterable[Iterable[OpPrice]], gate: Network | None) -> int:
        """Nested weights, their copies and kernels once, constants and program once per entry that runs them."""
        prices = [price for inference in inferences for price in inference]
        weights = sum(self._stored_bytes(menu).values()) + _weight_bytes(self._gate_prices(gate))
        steps = sum(_step_bytes(segment) for segment in menu.segments(self.network))
        steps += _step_bytes(gate.ops) if gate else 0
        return weights + steps + _code_bytes(prices) + self.runtime_bytes

    def _stored_bytes(self, menu: Menu) -> dict[tuple[str, int], int]:
        """Bytes of the weights by operation and width at which they are stored."""
        entries = zip(menu.segments(self.network), menu.entries, menu.read_bits(self.network), strict=True)
        return {
            (op.name, read[op.name]): self.op_price(op, entry.assignment[op.name], read[op.name]).weight_bytes
            for segment, entry, read in entries
            for op in segment
            if op.has_weights
        }

    def _menu_ram(self, menu: Menu, gate: Network | None) -> int:
        runs = menu.runs(self.network)
        assignments = [entry.assignment for entry in menu.entries][: len(runs)]
        arenas = [memory_plan(self.network, ops, bits).arena_bytes for ops, bits in zip(runs, assignments, strict=True)]
        if gate is not None:
            arenas.append(memory_plan(gate, gate.ops, gate_assignment(gate)).arena_bytes)
        return self.input_bytes + max(arenas)

    @staticmethod
    def own_flash_bytes(ops: Iterable[Op], prices: Iterable[OpPrice]) -> int:
        """Flash of operations in one entry without the kernels, which others may call too."""
        return _weight_bytes(prices) + _step_bytes(ops)

    @property
    def input_bytes(self) -> int:
        """RAM of the caller's input."""
        return activation_bytes(self.network.input_shape, 8)

    @property
    def runtime_bytes(self) -> int:
        """Flash of an exported program beside kernels, weights and constants."""
        return self.profile.header.library.runtime_bytes

    def unit_prices(self, space: SearchSpace, *, exits: Iterable[str] = ("",)) -> dict[str, list[UnitPrice]]:
        """What each precision of each unit adds on the way to the named exits, weights stored at that very width.

        Sums over units plus the kernels' code (shared, hence in no unit) give `price`; for an integer programme.
        """
        ops = {op.name: op for op in self.network.path(exits)}
        return {
            unit.name: [self._unit_price([ops[name] for name in unit.ops if name in ops], p) for p in unit.precisions]
            for unit in space.units
        }

    def _unit_price(self, ops: Sequence[Op], precision: Precision) -> UnitPrice:
        own = {op.name: precision if op.has_weights else precision.without_weights() for op in ops}
        prices = [self.op_price(op, own[op.name], own[op.name].weight_bits) for op in ops]
        return UnitPrice(
            precision=precision,
            latency_us=sum(price.latency_us for price in prices),
            flash_bytes=self.own_flash_bytes(ops, prices),
        )

    @staticmethod
    def provenance(prices: Iterable[OpPrice]) -> dict[str, float]:
        """Share of the latency by where its numbers come from, largest first."""
        shares: dict[str, float] = {}
        for price in prices:
            shares[price.origin] = shares.get(price.origin, 0.0) + price.latency_us
        total = sum(shares.values())
        return {kind: share / total for kind, share in sorted(shares.items(), key=lambda item: (-item[1], item[0]))}

    @staticmethod
    def uncertainty(prices: Iterable[OpPrice]) -> float:
        """Relative error of a sum of prices if all errors point the same way, as those of one cycle model do."""
        listed = tuple(prices)
        total = sum(price.latency_us for price in listed)
        return sum(price.latency_us * price.uncertainty for price in listed) / total


def gate_assignment(gate: Network) -> BitAssignment:
    """Every operation of a gate at 8 bits."""
    return BitAssignment({op.name: Precision(GATE_BITS if op.has_weights else 0, GATE_BITS) for op in gate.ops})


def _in_steps(price: float) -> float:
    return round(price / PRICE_STEP) * PRICE_STEP


def _weight_bytes(prices: Iterable[OpPrice]) -> int:
    return sum(price.weight_bytes for price in prices)


def _step_bytes(ops: Iterable[Op]) -> int:
    """Constants and program of one entry."""
    return sum(requantize_bytes(op) + STEP_BYTES for op in ops)


def _code_bytes(prices: Iterable[OpPrice]) -> int:
    """Machine code of every kernel once."""
    code: dict[str, int] = {}
    for price in prices:
        code[price.symbol] = max(code.get(price.symbol, 0), price.code_bytes)
    return sum(code.values())
