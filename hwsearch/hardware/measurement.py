"""One row of a device's table: what was measured of one operation at one precision, and what identifies it."""

from dataclasses import dataclass

from hwsearch.graph.op import Op, OpKind, Shape, shape_text
from hwsearch.graph.precision import Precision
from hwsearch.hardware.header import ProfileHeader, Provenance

POWER_X_TIME = "power_x_time"
"""Energy source of a row whose energy is latency times the device's active power: no second objective beside latency."""


@dataclass(frozen=True, slots=True)
class RowKey:
    """What identifies a row: an operation's kind and shapes, its precision, the width its weights are stored at, and whether it
    gives int32 logits instead of codes, which takes less."""

    op: OpKind
    in_shape: Shape
    out_shape: Shape
    kernel: tuple[int, int]
    stride: tuple[int, int]
    groups: int
    weight_bits: int
    stored_bits: int
    activation_bits: int
    logits: bool = False

    @classmethod
    def of(cls, op: Op, precision: Precision, stored_bits: int, logits: bool = False) -> "RowKey":
        """The row of `op` at `precision` with weights stored at `stored_bits` (0 without weights)."""
        return cls(
            op.kind, op.in_shape, op.out_shape, op.kernel, op.stride, op.groups,
            precision.weight_bits, stored_bits, precision.activation_bits, logits,
        )  # fmt: skip

    @property
    def precision(self) -> Precision:
        return Precision(self.weight_bits, self.activation_bits)

    def __str__(self) -> str:
        stored = f" stored at {self.stored_bits} bits" if self.stored_bits else ""
        shapes = f"{shape_text(self.in_shape)} -> {shape_text(self.out_shape)}"
        gives = " giving logits" if self.logits else ""
        return f"{self.op} {self.kernel[0]}x{self.kernel[1]} {shapes} {self.precision}{stored}{gives}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One row of a table with all that is known of it: fields are the columns of its wide form, in order.

    `stored_bits` and `weight_bits` are 0 without weights; `logits` is 1 where int32 logits were made instead of
    codes. Counts are in the unit of `[counter]`: median and 5th and 95th percentile over `repeats`, or, in a row that no clock
    or emulator gave, a value and the interval it lies in. `code_bytes` is the machine code of `symbol`, `weight_bytes` the
    packed weights, `scratch_bytes` the kernel's working memory.
    """

    op: OpKind
    in_shape: Shape
    out_shape: Shape
    kernel: tuple[int, int]
    stride: tuple[int, int]
    groups: int
    weight_bits: int
    stored_bits: int
    activation_bits: int
    logits: bool
    count_median: float
    count_p05: float
    count_p95: float
    repeats: int
    latency_us: float
    energy_uj: float
    energy_source: str
    provenance: Provenance
    code_bytes: int
    weight_bytes: int
    scratch_bytes: int
    symbol: str
    run_id: str

    @property
    def key(self) -> RowKey:
        return RowKey(
            self.op, self.in_shape, self.out_shape, self.kernel, self.stride, self.groups,
            self.weight_bits, self.stored_bits, self.activation_bits, self.logits,
        )  # fmt: skip

    @property
    def precision(self) -> Precision:
        return Precision(self.weight_bits, self.activation_bits)

    def relative_error(self, device_error: float) -> float:
        """What the row's latency may be off by, given the error of the whole table.

        Scatter of repeated runs comes on top of that error; a derived row's interval says all that is known of the row.
        """
        spread = (self.count_p95 - self.count_p05) / (2 * self.count_median) if self.count_median else 0.0
        timed = self.provenance in (Provenance.MEASURED, Provenance.EMULATED)
        return device_error + spread if timed else max(device_error, spread)

    @classmethod
    def of_counts(
        cls,
        header: ProfileHeader,
        op: Op,
        precision: Precision,
        *,
        stored_bits: int,
        count_median: float,
        count_p05: float,
        count_p95: float,
        repeats: int,
        provenance: Provenance,
        code_bytes: int,
        weight_bytes: int,
        scratch_bytes: int,
        symbol: str,
        run_id: str,
        logits: bool = False,
    ) -> "Measurement":
        """A row from counts: latency follows from the clock, energy from the active power."""
        latency_us = header.latency_us(count_median)
        return cls(
            op=op.kind, in_shape=op.in_shape, out_shape=op.out_shape, kernel=op.kernel, stride=op.stride, groups=op.groups,
            weight_bits=precision.weight_bits, stored_bits=stored_bits, activation_bits=precision.activation_bits, logits=logits,
            count_median=count_median, count_p05=count_p05, count_p95=count_p95, repeats=repeats,
            latency_us=latency_us, energy_uj=header.energy_uj(latency_us), energy_source=POWER_X_TIME,
            provenance=provenance, code_bytes=code_bytes, weight_bytes=weight_bytes, scratch_bytes=scratch_bytes,
            symbol=symbol, run_id=run_id,
        )  # fmt: skip
