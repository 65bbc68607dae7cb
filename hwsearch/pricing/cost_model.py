"""The price of a network on a device: the sum of its operations' measured rows, and the memory it occupies.

Latency and energy add up over the operations that run, the policy's own included. Flash counts each kernel and each nested weight
once. RAM is the arena that the exported program uses, planned over the execution order, plus the caller's input.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from hwsearch.emulation.isa import Isa
from hwsearch.graph.controllers import DECISION, controller_assignment, controller_of, decisions
from hwsearch.graph.menu import Menu, PolicyKind, PolicyShape
from hwsearch.graph.network import Network
from hwsearch.graph.op import Op
from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.graph.space import SearchSpace
from hwsearch.hardware.cost import Cost
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.kernels.layout import STEP_BYTES, activation_bytes, memory_plan, program_bytes, requantize_bytes
from hwsearch.pricing.prices import OpPrice, Prices, TablePrices


class UnitPrice(NamedTuple):
    """What one precision of a search unit adds to a network's price: all its operations together."""

    precision: Precision
    latency_us: float
    flash_bytes: int


class CostModel:
    """Prices of one network on one device; those of single operations come from the profile's table unless `prices` are given."""

    def __init__(self, network: Network, profile: HardwareProfile, *, prices: Prices | None = None) -> None:
        self.network = network
        self.profile = profile
        self._table: Prices = TablePrices(profile) if prices is None else prices
        self._ends = _ends(network)
        self._own_prices: dict[tuple[str, Precision, int], OpPrice] = {}

    def op_price(self, op: Op, precision: Precision, stored_bits: int, *, logits: bool | None = None) -> OpPrice:
        """Price of `op` at `precision`, its weights stored at `stored_bits` (0 without weights).

        `logits`: whether it gives int32 logits, by default whether the network ends in it. Raises ProfileError where the table
        has no price for it (`TablePrices`).
        """
        gives_logits = op.has_weights and (op in self._ends if logits is None else logits)
        return self._table.op_price(op, precision, stored_bits, logits=gives_logits)

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

    def paths(self, menu: Menu, policy: PolicyShape | None = None) -> tuple[Cost, ...]:
        """Price of the whole inference ending at each entry, the policy's own work included.

        A `policy` of a kind without a controller may be left out. Flash and RAM are the whole model's, the same for all paths.
        """
        inferences = self.inferences(menu, policy)
        controller = self._controller(menu, policy)
        flash = self._menu_flash(menu, inferences, controller)
        ram = self._menu_ram(menu, controller)
        return tuple(
            Cost(
                latency_us=sum(price.latency_us for price in prices),
                energy_uj=sum(price.energy_uj for price in prices),
                flash_bytes=flash,
                ram_bytes=ram,
            )
            for prices in inferences
        )

    def inferences(self, menu: Menu, policy: PolicyShape | None = None) -> tuple[tuple[OpPrice, ...], ...]:
        """Price of everything that runs in an inference ending at each entry, controller and decisions included.

        To stop at an entry is a decision too, unless it is the last. A cascade names an operation once per run of it.
        """
        controller = self._controller(menu, policy)
        own = [
            self._prices_of(segment, entry.assignment, read)
            for segment, entry, read in zip(menu.segments(self.network), menu.entries, menu.read_bits(self.network), strict=True)
        ]
        decided = tuple(self.op_price(op, DECISION, 0) for op in decisions(menu, self.network))
        if not menu.kind.escalates:
            before = (*self._controller_prices(controller), *decided)
            return tuple((*before, *prices) for prices in own)
        stages = [(*prices, *decided[index : index + 1]) for index, prices in enumerate(own)]
        return tuple(tuple(price for stage in stages[: index + 1] for price in stage) for index in range(len(stages)))

    def _controller(self, menu: Menu, policy: PolicyShape | None) -> Network | None:
        """The controller that this policy runs for this menu; None where its kind has none."""
        if policy is None and not menu.kind.has_controller:
            return None
        if policy is None or policy.kind is not menu.kind:
            found = "none" if policy is None else f"that of a {policy.kind}"
            raise ValueError(f"the policy of a {menu.kind} menu must be given to price it, but {found} was")
        return controller_of(policy, self.network.input_shape, len(menu.entries))

    def _controller_prices(self, controller: Network | None) -> tuple[OpPrice, ...]:
        if controller is None:
            return ()
        own, ends = controller_assignment(controller), _ends(controller)
        return tuple(self.op_price(op, own[op.name], own[op.name].weight_bits, logits=op in ends) for op in controller.ops)

    def _menu_flash(self, menu: Menu, inferences: Iterable[Iterable[OpPrice]], controller: Network | None) -> int:
        """Nested weights, their copies and kernels once, constants and program once per entry that runs them."""
        prices = [price for inference in inferences for price in inference]
        weights = sum(self._stored_bytes(menu).values())
        weights += sum(price.weight_bytes for price in self._controller_prices(controller))
        steps = [requantize_bytes(op, op in self._ends) for segment in menu.segments(self.network) for op in segment]
        steps += [requantize_bytes(op, op in _ends(controller)) for op in controller.ops] if controller else []
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

    def _menu_ram(self, menu: Menu, controller: Network | None) -> int:
        runs = menu.runs(self.network)
        assignments = [entry.assignment for entry in menu.entries][: len(runs)]
        arenas = [memory_plan(self.network, ops, bits, self.isa).arena_bytes for ops, bits in zip(runs, assignments, strict=True)]
        if controller is not None:
            arenas.append(memory_plan(controller, controller.ops, controller_assignment(controller), self.isa).arena_bytes)
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
