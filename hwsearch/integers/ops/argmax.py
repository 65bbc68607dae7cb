"""The decision of a policy: which logit is the largest, and by how much."""

import numpy as np

from hwsearch.graph.op import Op
from hwsearch.graph.precision import Precision
from hwsearch.integers.integer_model import Int32
from hwsearch.integers.op_record import Call, Counts, OpRecord, Result, no_factors
from hwsearch.integers.reference import argmax


def run(call: Call) -> Result:
    """Index and margin of `reference.argmax`, uint32 `[N, 2]`."""
    return np.stack(argmax(call.inputs[0].astype(np.int32)), axis=1).astype(np.uint32)


def ascending_logits(op: Op, precision: Precision, random: np.random.Generator) -> tuple[Int32]:
    """The slowest input."""
    return (np.sort(random.integers(-(2**20), 2**20, op.in_shape)).astype(np.int32),)


ARGMAX = OpRecord(run=run, counts=Counts(), factors=no_factors, inputs=ascending_logits)
