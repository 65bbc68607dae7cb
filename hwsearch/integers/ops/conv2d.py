"""Convolution, grouped or not, as products of matrices of patches."""

import numpy as np
from numpy.typing import NDArray

from hwsearch.graph.op import Op
from hwsearch.graph.precision import Precision
from hwsearch.integers.integer_model import Int32
from hwsearch.integers.op_record import PER_CHANNEL, Call, OpRecord, Result, channel_factors
from hwsearch.integers.reference import Int64, finish_weighted, matmul, padded, windows

_PATCH_VALUES = 2**21
"""Most values of a matrix of patches at a time; bounds memory, not results."""


def run(call: Call) -> Result:
    op, weights = call.op, call.weights
    codes = padded(op, call.inputs[0], call.constants.input_zero[0])
    images = max(1, _PATCH_VALUES // (op.out_shape[1] * op.out_shape[2] * op.reduction * op.groups))
    starts = range(0, max(1, len(codes)), images)
    parts = [_convolve(op, call.precision, codes[first : first + images], weights) for first in starts]
    return finish_weighted(op, np.concatenate(parts), call.constants)


def _convolve(op: Op, precision: Precision, codes: NDArray[np.integer], weights: Int32) -> Int64:
    """Sums of products, `[N, out_h, out_w, out]`."""
    patches = windows(op, codes)  # [N, out_h, out_w, C, kernel_h, kernel_w]
    count = len(codes) * op.out_shape[1] * op.out_shape[2]
    inputs, outputs = op.in_shape[0] // op.groups, op.out_channels // op.groups
    sums = []
    for group in range(op.groups):
        taken = patches[:, :, :, group * inputs : (group + 1) * inputs].transpose(0, 1, 2, 4, 5, 3)
        rows = taken.reshape(count, op.reduction)  # [N*out_h*out_w, kernel_h*kernel_w*C/groups]
        filters = weights[group * outputs : (group + 1) * outputs].reshape(outputs, op.reduction)
        sums.append(matmul(rows, filters, precision))
    return np.concatenate(sums, axis=1).reshape(len(codes), op.out_shape[1], op.out_shape[2], op.out_channels)


CONV2D = OpRecord(run=run, counts=PER_CHANNEL, factors=channel_factors)
