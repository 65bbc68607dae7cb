"""A matrix times a vector."""

from hwsearch.integers.op_record import PER_CHANNEL, Call, OpRecord, Result, channel_factors
from hwsearch.integers.reference import finish_weighted, matmul


def run(call: Call) -> Result:
    op, codes = call.op, call.inputs[0]
    flat = codes.reshape(len(codes), op.reduction)  # [N, H*W*C]
    return finish_weighted(op, matmul(flat, call.weights.reshape(op.out_channels, -1), call.precision), call.constants)


LINEAR = OpRecord(run=run, counts=PER_CHANNEL, factors=channel_factors)
