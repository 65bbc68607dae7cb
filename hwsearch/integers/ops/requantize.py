"""A change of scale, width and range: what remains of an activation that stands alone."""

import numpy as np

from hwsearch.graph.op import Op
from hwsearch.graph.precision import Precision
from hwsearch.integers.op_record import ONE_SCALE, Call, OpRecord, Result
from hwsearch.integers.reference import requantized


def run(call: Call) -> Result:
    return requantized(call.inputs[0].astype(np.int64) - call.constants.input_zero[0], call.constants)


def factors(op: Op, precision: Precision) -> list[float]:
    return [255 / 2**precision.activation_bits]


REQUANTIZE = OpRecord(run=run, counts=ONE_SCALE, factors=factors)
