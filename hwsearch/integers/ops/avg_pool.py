"""The mean of each window; the multiplier holds the division."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hwsearch.graph.op import Op
from hwsearch.graph.precision import Precision
from hwsearch.integers.op_record import ONE_SCALE, Call, OpRecord, Result
from hwsearch.integers.reference import Int64, padded, requantized, windows


def run(call: Call) -> Result:
    return requantized(window_sums(call.op, call.inputs[0], call.constants.input_zero[0]), call.constants)


def window_sums(op: Op, codes: NDArray[np.integer], zero: int) -> Int64:
    """Sum of `q - zero` over each window: `[N, out_h, out_w, C]`; padding has the code of zero and adds nothing."""
    sums: Int64 = windows(op, padded(op, codes.astype(np.int64) - zero, 0)).sum(axis=(4, 5))
    return sums


def factors(op: Op, precision: Precision) -> list[float]:
    return [255 / (2**precision.activation_bits * math.prod(op.kernel))]


def units(op: Op, steps: Sequence[float]) -> list[float]:
    return [steps[0] / math.prod(op.kernel)]


AVG_POOL = OpRecord(run=run, counts=ONE_SCALE, factors=factors, units=units)
