"""Random but realistic calls of kernels: inputs, weights and constants that use the whole range of their widths."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsearch.graph.op import Op
from hwsearch.graph.precision import Precision
from hwsearch.integers.integer_model import Int32, OpConstants, StoredWeights
from hwsearch.integers.op_kinds import OPS, constant_counts


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
        if self.op.kind.traits.decides:
            return 8
        gives_logits = self.op.has_weights and self.constants.multiplier.size == 0
        return math.prod(self.op.out_shape) * (4 if gives_logits else 1)


def random_case(op: Op, precision: Precision, stored_bits: int, seed: int, *, logits: bool = False) -> Case:
    """A call with random inputs, weights and constants; outputs are 8-bit codes, or int32 `logits` where asked.

    The zero point of padding is that of ReLU outputs, 0.
    """
    record, random = OPS[op.kind], np.random.default_rng(seed)
    inputs = record.inputs(op, precision, random)
    stored = _random_weights(op, stored_bits, random) if op.has_weights else None
    factors = [] if logits else record.factors(op, precision)
    multiplier, shift = _common_shift(factors) if record.shares_shift else _scales(factors)
    bias = np.full(constant_counts(op).bias, int(random.integers(1, 2**8)), np.int32)
    constants = OpConstants(
        bias=bias,
        multiplier=multiplier,
        shift=shift,
        input_zero=(0,) * len(inputs),
        output_zero=128 if op.has_weights else 0,
        output_max=255,
    )
    return Case(op=op, precision=precision, inputs=inputs, stored=stored, constants=constants)


def _random_weights(op: Op, bits: int, random: np.random.Generator) -> StoredWeights:
    shape = (op.out_channels, *op.kernel, op.reduction // math.prod(op.kernel))
    return StoredWeights(codes=random.integers(0, 2**bits, shape, dtype=np.uint8), bits=bits)


def _scales(factors: list[float]) -> tuple[Int32, Int32]:
    """Multiplier in [2^30, 2^31) and shift of each factor."""
    shifts = [30 - math.floor(math.log2(factor)) for factor in factors]
    return (
        np.array([min(round(f * 2.0**s), 2**31 - 1) for f, s in zip(factors, shifts, strict=True)], np.int32),
        np.array(shifts, np.int32),
    )


def _common_shift(factors: list[float]) -> tuple[Int32, Int32]:
    """Multipliers below 2^21 under one shift."""
    shift = 20 - math.ceil(math.log2(max(factors)))
    return np.array([round(factor * 2.0**shift) for factor in factors], np.int32), np.array([shift], np.int32)
