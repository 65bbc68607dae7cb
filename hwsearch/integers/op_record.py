"""What a kind of operation is in integers: one frozen record, written in `ops/<kind>.py` and listed in `op_kinds.py`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsearch.graph.op import Op
from hwsearch.graph.precision import Precision
from hwsearch.integers.integer_model import Codes, Int32, OpConstants, StoredWeights
from hwsearch.integers.reference import weight_values

Result = Codes | Int32 | NDArray[np.uint32]
"""uint8 codes `[N, height, width, channels]` or `[N, features]`; int32 logits `[N, classes]` of an operation that ends a path;
uint32 index and margin `[N, 2]` of a decision."""

_SPREAD = 40.0
"""Standard deviation of random outputs in codes before clamping: some saturate, most do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One operation on a batch. `inputs`: codes `[N, height, width, channels]` or `[N, features]`, or logits `[N, classes]`."""

    op: Op
    precision: Precision
    inputs: Sequence[NDArray[np.integer]]
    stored: StoredWeights | None
    constants: OpConstants

    @property
    def weights(self) -> Int32:
        """Weights in half steps, `[out, kernel_h, kernel_w, in / groups]`; ValueError if the call has none."""
        if self.stored is None:
            raise ValueError(f"operation {self.op.name} needs its weights")
        return weight_values(self.stored, self.precision.weight_bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many int32 of each constant: per output channel of an operation with weights, else of the whole operation."""

    bias: int = 0
    multiplier: int = 0
    shift: int = 0


PER_CHANNEL = Counts(bias=1, multiplier=1, shift=1)
ONE_SCALE = Counts(multiplier=1, shift=1)


def channel_factors(op: Op, precision: Precision) -> list[float]:
    """Factors of an operation with weights, a little different in every channel."""
    steps, codes = 2**precision.weight_bits, 2**precision.activation_bits
    deviation = math.sqrt(op.reduction) * (steps / math.sqrt(3)) * (codes / math.sqrt(3))
    return [_SPREAD / deviation * (1 + channel / (4 * op.out_channels)) for channel in range(op.out_channels)]


def no_factors(op: Op, precision: Precision) -> list[float]:
    return []


def random_codes(op: Op, precision: Precision, random: np.random.Generator) -> tuple[NDArray[np.uint8] | Int32, ...]:
    """Codes of the whole range of their width for each input, without a batch."""
    shape = (*op.in_shape[1:], op.in_shape[0]) if len(op.in_shape) == 3 else op.in_shape
    largest = 2**precision.activation_bits - 1
    return tuple(random.integers(0, largest + 1, shape, dtype=np.uint8) for _ in range(op.kind.traits.n_inputs))


def _steps(op: Op, steps: Sequence[float]) -> list[float]:
    return list(steps)


def _nothing(op: Op) -> str:
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpRecord:
    """One kind of operation. What the graph must know of it too (inputs, weights, codes passed through) is `OpKind.traits`."""

    run: Callable[[Call], Result]
    """The numpy body: the specification."""
    counts: Counts
    factors: Callable[[Op, Precision], list[float]]
    """Real factors from accumulator to output code, as many as multipliers, that spread random outputs over 8 bits."""
    inputs: Callable[[Op, Precision, np.random.Generator], tuple[NDArray[np.uint8] | Int32, ...]] = random_codes
    """Random inputs of one call."""
    units: Callable[[Op, Sequence[float]], list[float]] = _steps
    """Without weights: the real value that each multiplier scales by one, from the inputs' steps."""
    refusal: Callable[[Op], str] = _nothing
    """Why no kernel computes such an operation, at any precision; empty if one does."""

    @property
    def shares_shift(self) -> bool:
        """Several multipliers, below 2^21, under one shift of 1 .. 30, so that int32 holds the sum of all products."""
        return self.counts.multiplier > self.counts.shift
