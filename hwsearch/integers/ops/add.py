"""The sum of two tensors, each at its own scale, rounded once."""

import numpy as np

from hwsearch.graph.op import Op
from hwsearch.graph.precision import Precision
from hwsearch.integers.op_record import Call, Counts, OpRecord, Result
from hwsearch.integers.reference import finish


def run(call: Call) -> Result:
    """`((q0 - z0) * m0 + (q1 - z1) * m1 + 2^(shift - 1)) >> shift`; m below 2^21 and shift 1 .. 30, so that int32 holds it."""
    constants = call.constants
    shift = int(constants.shift[0])
    total = np.full(call.inputs[0].shape, 1 << (shift - 1), np.int64)
    for codes, zero, multiplier in zip(call.inputs, constants.input_zero, constants.multiplier, strict=True):
        total += (codes.astype(np.int64) - zero) * int(multiplier)
    return finish(total >> shift, constants)


def factors(op: Op, precision: Precision) -> list[float]:
    codes = 2**precision.activation_bits
    return [128 / codes, 96 / codes]


ADD = OpRecord(run=run, counts=Counts(multiplier=2, shift=1), factors=factors)
