"""The largest code of each window; scale and width stay as they are."""

import numpy as np
from numpy.typing import NDArray

from hwsearch.graph.op import Op
from hwsearch.integers.integer_model import Codes
from hwsearch.integers.op_record import Call, Counts, OpRecord, Result, no_factors
from hwsearch.integers.reference import padded, windows


def run(call: Call) -> Result:
    return max_pool(call.op, call.inputs[0])


def max_pool(op: Op, codes: NDArray[np.integer]) -> Codes:
    """Largest code of each window; padding is below every code and never wins."""
    largest: Codes = windows(op, padded(op, codes, 0)).max(axis=(4, 5)).astype(np.uint8)
    return largest


MAX_POOL = OpRecord(run=run, counts=Counts(), factors=no_factors)
