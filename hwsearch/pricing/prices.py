"""The price of one operation on a device: the row that was measured for it, else what rows of other shapes say.

`CostModel` sums such prices over a network, and takes any `Prices` for them: a table's, or a formula.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Protocol

from hwsearch.errors import ProfileError
from hwsearch.graph.op import Op
from hwsearch.graph.precision import Precision, kernel_precision
from hwsearch.hardware.profile import HardwareProfile, Measurement, Provenance, RowKey
from hwsearch.kernels.layout import STEP_BYTES, in_lines, packed_weight_bytes, requantize_bytes, scratch_bytes
from hwsearch.pricing.interpolation import MIN_ROWS, REACH, ShapeRegression, body_of, group_of, is_enough

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


class Prices(Protocol):
    """Where prices of operations come from."""

    def op_price(self, op: Op, precision: Precision, stored_bits: int, *, logits: bool) -> OpPrice:
        """Price of `op` at `precision`, its weights stored at `stored_bits` (0 without weights); `logits`: it gives int32."""
        ...


class TablePrices:
    """Prices from a profile's table. Each is computed once per operation, precision and stored width, and kept."""

    def __init__(self, profile: HardwareProfile) -> None:
        self.profile = profile
        self._rows = {row.key: row for row in profile.measurements}
        self._groups: dict[RowKey, list[Measurement]] = {}
        self._bodies: dict[RowKey, list[Measurement]] = {}
        for row in profile.measurements:
            self._groups.setdefault(group_of(row.key), []).append(row)
            self._bodies.setdefault(body_of(row.key), []).append(row)
        self._builtins = {key: tuple(parts.items()) for key, parts in profile.builtins().items()}
        self._regressions: dict[RowKey, ShapeRegression] = {}
        self._prices: dict[tuple[Op, Precision, int, bool], OpPrice] = {}

    def op_price(self, op: Op, precision: Precision, stored_bits: int, *, logits: bool) -> OpPrice:
        """From the row of that very shape at the precision of the kernel that runs it, else interpolated along shape.

        Raises ProfileError where neither is possible. Where a table has no logits, making codes stands for it, which takes a
        little more.
        """
        key = (op, precision, stored_bits, logits)
        if key not in self._prices:
            self._prices[key] = self._price_of(op, precision, RowKey.of(op, kernel_precision(precision), stored_bits, logits))
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
            weight_bytes=in_lines(row.weight_bytes), scratch_bytes=scratch_bytes(op, row.precision, self.profile.device.isa),
            interpolated=False, builtins=self._builtins.get((row.run_id, row.symbol), ()),
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
            scratch_bytes=scratch_bytes(op, key.precision, self.profile.device.isa), interpolated=True,
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


def _in_steps(price: float) -> float:
    return round(price / PRICE_STEP) * PRICE_STEP
