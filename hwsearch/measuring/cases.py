"""Random but realistic calls of kernels: inputs, weights and constants that use the whole range of their widths."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.integers.integer_model import Int32, OpConstants, StoredWeights

_SPREAD = 40.0
"""Standard deviation of outputs in codes before clamping: some saturate, most do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One call. `inputs`: uint8 codes `[height, width, channels]` or `[features]`; int32 logits `[classes]` for argmax."""

    op: Op
    precision: Precision
    inputs: tuple[NDArray[np.uint8] | Int32, ...]
    stored: StoredWeights | None
    constants: OpConstants

    @property
    def stored_bits(self) -> int:
        return self.stored.bits if self.stored else 0

    @property
    def output_bytes(self) -> int:
        """Bytes the kernel writes: index and margin for argmax, else codes (logits take four bytes each)."""
        if self.op.kind is OpKind.ARGMAX:
            return 8
        gives_logits = self.op.has_weights and self.constants.multiplier.size == 0
        return math.prod(self.op.out_shape) * (4 if gives_logits else 1)


def random_case(op: Op, precision: Precision, stored_bits: int, seed: int, *, logits: bool = False) -> Case:
    """A call with random codes, weights and constants; outputs are 8-bit codes, or int32 `logits` where asked.

    Argmax gets ascending logits, its slowest input. The zero point of padding is that of ReLU outputs, 0.
    """
    random = np.random.default_rng(seed)
    largest = 2**precision.activation_bits - 1
    if op.kind is OpKind.ARGMAX:
        ascending = np.sort(random.integers(-(2**20), 2**20, op.in_shape)).astype(np.int32)
        return Case(op=op, precision=precision, inputs=(ascending,), stored=None, constants=_constants(op, [], 0, (0,)))
    shape = (*op.in_shape[1:], op.in_shape[0]) if len(op.in_shape) == 3 else op.in_shape
    n_inputs = 2 if op.kind is OpKind.ADD else 1
    inputs = tuple(random.integers(0, largest + 1, shape, dtype=np.uint8) for _ in range(n_inputs))
    stored = _random_weights(op, stored_bits, random) if op.has_weights else None
    factors = [] if logits or op.kind is OpKind.MAX_POOL else _factors(op, precision)
    return Case(
        op=op,
        precision=precision,
        inputs=inputs,
        stored=stored,
        constants=_constants(op, factors, int(random.integers(1, 2**8)), (0,) * n_inputs),
    )


def _random_weights(op: Op, bits: int, random: np.random.Generator) -> StoredWeights:
    if op.kind is OpKind.LINEAR:
        shape = (op.out_channels, 1, 1, op.reduction)
    else:
        shape = (op.out_channels, *op.kernel, op.in_shape[0] // op.groups)
    return StoredWeights(codes=random.integers(0, 2**bits, shape, dtype=np.uint8), bits=bits)


def _factors(op: Op, precision: Precision) -> list[float]:
    """Real factors from accumulator to output code that spread the outputs over 8 bits."""
    codes = 2**precision.activation_bits
    if op.kind is OpKind.ADD:
        return [128 / codes, 96 / codes]
    if op.kind is OpKind.AVG_POOL:
        return [255 / (codes * math.prod(op.kernel))]
    if op.kind is OpKind.REQUANTIZE:
        return [255 / codes]
    deviation = math.sqrt(op.reduction) * (2**precision.weight_bits / math.sqrt(3)) * (codes / math.sqrt(3))
    return [_SPREAD / deviation * (1 + channel / (4 * op.out_channels)) for channel in range(op.out_channels)]


def _constants(op: Op, factors: list[float], bias: int, zeros: tuple[int, ...]) -> OpConstants:
    multiplier, shift = _add_scales(factors) if op.kind is OpKind.ADD else _scales(factors)
    return OpConstants(
        bias=np.full(op.out_channels if op.has_weights else 0, bias, np.int32),
        multiplier=multiplier,
        shift=shift,
        input_zero=zeros,
        output_zero=0 if op.kind is OpKind.MAX_POOL else 128 if op.has_weights else 0,
        output_max=255,
    )


def _scales(factors: list[float]) -> tuple[Int32, Int32]:
    """Multiplier in [2^30, 2^31) and shift of each factor."""
    shifts = [30 - math.floor(math.log2(factor)) for factor in factors]
    return (
        np.array([min(round(f * 2.0**s), 2**31 - 1) for f, s in zip(factors, shifts, strict=True)], np.int32),
        np.array(shifts, np.int32),
    )


def _add_scales(factors: list[float]) -> tuple[Int32, Int32]:
    """Multipliers below 2^21 under one shift."""
    shift = 20 - math.ceil(math.log2(max(factors)))
    return np.array([round(factor * 2.0**shift) for factor in factors], np.int32), np.array([shift], np.int32)
