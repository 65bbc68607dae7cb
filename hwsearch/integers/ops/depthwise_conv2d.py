"""Convolution of each channel with its own filter."""

import numpy as np

from hwsearch.graph.op import Op
from hwsearch.integers.op_record import PER_CHANNEL, Call, OpRecord, Result, channel_factors
from hwsearch.integers.reference import finish_weighted, padded, windows


def run(call: Call) -> Result:
    """Tap by tap."""
    op, weights = call.op, call.weights
    taken = windows(op, padded(op, call.inputs[0], call.constants.input_zero[0]))
    sums = np.zeros(taken.shape[:4], np.int64)  # [N, out_h, out_w, C]
    for i, j in np.ndindex(op.kernel):
        sums += taken[..., i, j].astype(np.int32) * weights[:, i, j, 0]
    return finish_weighted(op, sums, call.constants)


def refusal(op: Op) -> str:
    if op.in_shape[0] == op.out_channels == op.groups:
        return ""
    return "a depthwise convolution has one filter per channel; more filters are a grouped conv2d"


DEPTHWISE_CONV2D = OpRecord(run=run, counts=PER_CHANNEL, factors=channel_factors, refusal=refusal)
