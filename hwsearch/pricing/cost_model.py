"""The price of a network on a device: the sum of its operations' measured rows, and the memory it occupies.

Latency and energy add up over the operations that run, the policy's own included. Flash counts each kernel and each nested weight
once. RAM is the arena that the exported program uses, planned over the execution order, plus the caller's input.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple

from hwsearch.emulation.isa import Isa
from hwsearch.errors import ProfileError
from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind
from hwsearch.graph.network import Network
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import BitAssignment, Precision, kernel_precision
from hwsearch.graph.space import SearchSpace
from hwsearch.hardware.cost import Cost
from hwsearch.hardware.profile import HardwareProfile, Measurement, Provenance, RowKey
from hwsearch.kernels.layout import (
    STEP_BYTES,
    activation_bytes,
    in_lines,
    memory_plan,
    packed_weight_bytes,
    program_bytes,
    requantize_bytes,
    scratch_bytes,
)
from hwsearch.pricing.interpolation import MIN_ROWS, REACH, ShapeRegression, body_of, group_of, is_enough

GATE_BITS = 8
"""Width of everything in a gate."""

PRICE_STEP = 2.0**-24
"""Prices of operations are whole multiples of this in us and uJ: up to 500 s their sums are exact, in whatever order."""

_TRUST = tuple(Provenance)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpPrice:
    """Price of one operation at one precision. `uncertainty` is a relative error.

    `code_bytes` are those of the row's kernel, `builtins` those of what it needs of the compiler's library, by function;
    `constant_bytes` are the operation's constants and its step in an entry's program.
    """

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
    constant_bytes: int = 0
    builtins: tuple[tuple[str, int], ...] = ()

    @property
    def code(self) -> dict[str, int]:
        """Bytes of machine code by function."""
        return {self.symbol: self.code_bytes, **dict(self.builtins)}

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
        self._builtins = {key: tuple(parts.items()) for key, parts in profile.builtins().items()}
        self._ends = _ends(network)
        self._regressions: dict[RowKey, ShapeRegression] = {}
        self._prices: dict[tuple[Op, Precision, int, bool], OpPrice] = {}
        self._own_prices: dict[tuple[str, Precision, int], OpPrice] = {}

    def op_price(self, op: Op, precision: Precision, stored_bits: int, *, logits: bool | None = None) -> OpPrice:
        """Price of `op` at `precision`, its weights stored at `stored_bits` (0 without weights).

        `logits`: whether it gives int32 logits, by default whether the network ends in it. From the row of that very shape at the
        precision of the kernel that runs it, else interpolated along shape; raises ProfileError where neither is possible.
        Where a table has no logits, making codes stands for it, which takes a little more.
        """
        key = (op, precision, stored_bits, op.has_weights and (op in self._ends if logits is None else logits))
        if key not in self._prices:
            self._prices[key] = self._price_of(op, precision, RowKey.of(op, kernel_precision(precision), stored_bits, key[3]))
        return self._prices[key]

    def _price_of(self, op: Op, precision: Precision, key: RowKey) -> OpPrice:
        constants = requantize_bytes(op, key.logits) + STEP_BYTES
        if key not in self._rows and not is_enough(*self._comparable(key)):
            key = replace(key, logits=False)
        price = self._read(op, self._rows[key]) if key in self._rows else self._interpolate(op, key)
        return replace(self._called(price), precision=precision, constant_bytes=constants)

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
            weight_bytes=in_lines(row.weight_bytes), scratch_bytes=scratch_bytes(op, row.precision, self.isa), interpolated=False,
            builtins=self._builtins.get((row.run_id, row.symbol), ()),
        )  # fmt: skip

    def _interpolate(self, op: Op, key: RowKey) -> OpPrice:
        regression = self._regression(key)
        latency_us = regression.latency_us(key)
        rows = regression.rows
        return OpPrice(
            op=op.name, precision=key.precision, latency_us=latency_us,
            energy_uj=latency_us * median(row.energy_uj / row.latency_us for row in rows),
            provenance=max((row.provenance for row in rows), key=_TRUST.index),
            uncertainty=median(row.relative_error(self.profile.validity.relative_error) for row in rows) + regression.error(key),
            symbol=rows[0].symbol, code_bytes=max(row.code_bytes for row in rows),
            weight_bytes=in_lines(packed_weight_bytes(op, key.stored_bits)) if op.has_weights else 0,
            scratch_bytes=scratch_bytes(op, key.precision, self.isa), interpolated=True,
            builtins=self._builtins.get((rows[0].run_id, rows[0].symbol), ()),
        )  # fmt: skip

    def _comparable(self, key: RowKey) -> tuple[list[Measurement], list[Measurement]]:
        """Rows of the key's group, and others of the same body of code."""
        group = group_of(key)
        related = [row for row in self._bodies.get(body_of(key), []) if group_of(row.key) != group]
        return self._groups.get(group, []), related

    def _regression(self, key: RowKey) -> ShapeRegression:
        group = group_of(key)
        rows, related = self._comparable(key)
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
        """Of the network's own operations, which are known by their names."""
        stored = stored_bits or {}

        def price_of(op: Op) -> OpPrice:
            precision = assignment[op.name]
            key = (op.name, precision, stored.get(op.name, precision.weight_bits))
            if key not in self._own_prices:
                self._own_prices[key] = self.op_price(op, precision, key[2])
            return self._own_prices[key]

        return tuple(map(price_of, ops))

    def price(
        self, assignment: BitAssignment, *, stored_bits: Mapping[str, int] | None = None, exits: Iterable[str] = ("",)
    ) -> Cost:
        """Price of one static inference to the named exits, weights stored at each operation's own width unless given."""
        ops = self.network.path(exits)
        prices = self._prices_of(ops, assignment, stored_bits)
        return Cost(
            latency_us=sum(price.latency_us for price in prices),
            energy_uj=sum(price.energy_uj for price in prices),
            flash_bytes=self.own_flash_bytes(prices) + self.shared_flash_bytes(prices),
            ram_bytes=self.input_bytes + memory_plan(self.network, ops, assignment, self.isa).arena_bytes,
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
        if gate is None:
            return ()
        own, ends = gate_assignment(gate), _ends(gate)
        return tuple(self.op_price(op, own[op.name], own[op.name].weight_bits, logits=op in ends) for op in gate.ops)

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
        weights = sum(self._stored_bytes(menu).values()) + sum(price.weight_bytes for price in self._gate_prices(gate))
        steps = [requantize_bytes(op, op in self._ends) for segment in menu.segments(self.network) for op in segment]
        steps += [requantize_bytes(op, op in _ends(gate)) for op in gate.ops] if gate else []
        own = weights + sum(steps) + STEP_BYTES * len(steps)
        return own + self.shared_flash_bytes(prices, menu.kind, len(menu.entries))

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
        arenas = [memory_plan(self.network, ops, bits, self.isa).arena_bytes for ops, bits in zip(runs, assignments, strict=True)]
        if gate is not None:
            arenas.append(memory_plan(gate, gate.ops, gate_assignment(gate), self.isa).arena_bytes)
        return self.input_bytes + max(arenas)

    @staticmethod
    def own_flash_bytes(prices: Iterable[OpPrice]) -> int:
        """Flash of operations in one entry without the kernels, which others may call too."""
        return sum(price.weight_bytes + price.constant_bytes for price in prices)

    def shared_flash_bytes(self, prices: Iterable[OpPrice], kind: PolicyKind = PolicyKind.STATIC, entries: int = 1) -> int:
        """Flash of everything else in an exported program: each function once, and what ties the entries together."""
        return sum(joined_code([self.runtime_code(kind), *(price.code for price in prices)]).values()) + program_bytes(
            entries, kind
        )

    def runtime_code(self, kind: PolicyKind = PolicyKind.STATIC) -> dict[str, int]:
        """Bytes of machine code by function that any exported program of a policy has beside kernels."""
        return self.profile.runtime_of(kind)

    @property
    def isa(self) -> Isa:
        """The device's instruction set: it decides which kernels run, and with them how much scratch memory they need."""
        return self.profile.header.device.isa

    @property
    def input_bytes(self) -> int:
        """RAM of the caller's input."""
        return activation_bytes(self.network.input_shape, 8)

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
            flash_bytes=self.own_flash_bytes(prices),
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


def _ends(network: Network) -> frozenset[Op]:
    """Operations whose outputs are logits."""
    read = {source for op in network.ops for source in op.inputs}
    return frozenset(op for op in network.ops if op.name not in read)


def joined_code(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Bytes of machine code by function, each once; where sizes differ, as in tables of several runs, the largest."""
    code: dict[str, int] = {}
    for part in parts:
        for symbol, size in part.items():
            code[symbol] = max(code.get(symbol, 0), size)
    return code
