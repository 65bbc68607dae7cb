"""Every kind of operation, and what all of them can be asked."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.integers.integer_model import OpConstants, StoredWeights
from hwsearch.integers.op_record import Call, Counts, OpRecord, Result
from hwsearch.integers.ops.add import ADD
from hwsearch.integers.ops.argmax import ARGMAX
from hwsearch.integers.ops.avg_pool import AVG_POOL
from hwsearch.integers.ops.conv2d import CONV2D
from hwsearch.integers.ops.depthwise_conv2d import DEPTHWISE_CONV2D
from hwsearch.integers.ops.linear import LINEAR
from hwsearch.integers.ops.max_pool import MAX_POOL
from hwsearch.integers.ops.requantize import REQUANTIZE

OPS: Mapping[OpKind, OpRecord] = {
    OpKind.CONV2D: CONV2D,
    OpKind.DEPTHWISE_CONV2D: DEPTHWISE_CONV2D,
    OpKind.LINEAR: LINEAR,
    OpKind.ADD: ADD,
    OpKind.MAX_POOL: MAX_POOL,
    OpKind.AVG_POOL: AVG_POOL,
    OpKind.REQUANTIZE: REQUANTIZE,
    OpKind.ARGMAX: ARGMAX,
}


def run_op(
    op: Op, precision: Precision, inputs: Sequence[NDArray[np.integer]], stored: StoredWeights | None, constants: OpConstants
) -> Result:
    """The output of one operation for a batch."""
    return OPS[op.kind].run(Call(op=op, precision=precision, inputs=inputs, stored=stored, constants=constants))


def constant_counts(op: Op, logits: bool = False) -> Counts:
    """How many constants, each an int32, an operation has in one menu entry; of `logits` the bias alone."""
    counts, times = OPS[op.kind].counts, op.out_channels if op.has_weights else 1
    if logits:
        return Counts(bias=counts.bias * times)
    return Counts(bias=counts.bias * times, multiplier=counts.multiplier * times, shift=counts.shift * times)
