"""What each kind of operation computes in torch: on real numbers, for training, and on whole ones, the twin of the numpy bodies.

Tensors are `[N, C, H, W]` or `[N, features]`. Whole numbers are held by float64 tensors: every sum stays far below 2^53.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hwsearch.errors import NetworkError
from hwsearch.graph.op import Op, OpKind
from hwsearch.integers.integer_model import OpConstants

Real = Callable[[Op, Sequence[Tensor], Tensor | None], Tensor]
"""(op, inputs, weight as torch keeps it) -> output without bias, batch norm and activation."""
Whole = Callable[[Op, Sequence[Tensor], Tensor | None, OpConstants], Tensor]
"""(op, codes, weights in half steps `[out, kernel_h, kernel_w, in / groups]`, constants) -> codes, or logits `[N, classes]`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchOp:
    """The two bodies of one kind of operation."""

    real: Real
    whole: Whole


def operate(op: Op, inputs: Sequence[Tensor], weight: Tensor | None = None) -> Tensor:
    """An operation on real numbers without bias, batch norm and activation."""
    return _torch_op(op).real(op, inputs, weight)


def operate_whole(op: Op, codes: Sequence[Tensor], weights: Tensor | None, constants: OpConstants) -> Tensor:
    """An operation on codes, bias and activation included."""
    return _torch_op(op).whole(op, codes, weights, constants)


def _torch_op(op: Op) -> TorchOp:
    if op.kind not in TORCH_OPS:
        raise NetworkError(f"A network must consist of operations that can be trained, but {op.name} is {op.kind}; remove it.")
    return TORCH_OPS[op.kind]


def _linear(op: Op, inputs: Sequence[Tensor], weight: Tensor | None) -> Tensor:
    assert weight is not None
    return F.linear(inputs[0].flatten(1), weight)  # [N, features]


def _convolution(op: Op, inputs: Sequence[Tensor], weight: Tensor | None) -> Tensor:
    assert weight is not None
    return F.conv2d(inputs[0], weight, None, op.stride, op.padding, 1, op.groups)  # [N, C, H, W]


def _add(op: Op, inputs: Sequence[Tensor], weight: Tensor | None) -> Tensor:
    return inputs[0] + inputs[1]


def _max_pool(op: Op, inputs: Sequence[Tensor], weight: Tensor | None) -> Tensor:
    largest: Tensor = F.max_pool2d(inputs[0], op.kernel, op.stride, op.padding)  # [N, C, H, W]
    return largest


def _avg_pool(op: Op, inputs: Sequence[Tensor], weight: Tensor | None) -> Tensor:
    return F.avg_pool2d(inputs[0], op.kernel, op.stride, op.padding)  # [N, C, H, W]


def _unchanged(op: Op, inputs: Sequence[Tensor], weight: Tensor | None) -> Tensor:
    return inputs[0]


def _whole_linear(op: Op, codes: Sequence[Tensor], weights: Tensor | None, constants: OpConstants) -> Tensor:
    assert weights is not None
    x = codes[0]
    flat = x.permute(0, 2, 3, 1).flatten(1) if x.dim() == 4 else x  # [N, in]
    return _finish_weighted(flat @ weights.reshape(op.out_channels, -1).T + _bias(constants), constants)  # [N, out]


def _whole_convolution(op: Op, codes: Sequence[Tensor], weights: Tensor | None, constants: OpConstants) -> Tensor:
    assert weights is not None
    rows, columns = op.padding
    padded = F.pad(codes[0], (columns, columns, rows, rows), value=float(constants.input_zero[0]))
    sums = F.conv2d(padded, weights.permute(0, 3, 1, 2), _bias(constants), op.stride, 0, 1, op.groups)  # [N, C, H, W]
    return _finish_weighted(sums, constants)


def _whole_add(op: Op, codes: Sequence[Tensor], weights: Tensor | None, constants: OpConstants) -> Tensor:
    terms = zip(codes, constants.input_zero, constants.multiplier, strict=True)
    total = torch.stack([(x - zero).long() * int(multiplier) for x, zero, multiplier in terms]).sum(dim=0)
    return _clamp_codes(_shift_rounding(total, torch.from_numpy(constants.shift).long()), constants)


def _whole_max_pool(op: Op, codes: Sequence[Tensor], weights: Tensor | None, constants: OpConstants) -> Tensor:
    return _max_pool(op, codes, weights)


def _whole_avg_pool(op: Op, codes: Sequence[Tensor], weights: Tensor | None, constants: OpConstants) -> Tensor:
    centred = codes[0] - constants.input_zero[0]
    sums = F.avg_pool2d(centred, op.kernel, op.stride, op.padding, divisor_override=1)  # [N, C, H, W]
    return _requantized(sums, constants)


def _whole_requantize(op: Op, codes: Sequence[Tensor], weights: Tensor | None, constants: OpConstants) -> Tensor:
    return _requantized(codes[0] - constants.input_zero[0], constants)


def _bias(constants: OpConstants) -> Tensor:
    return torch.from_numpy(constants.bias).double()


def _finish_weighted(accumulator: Tensor, constants: OpConstants) -> Tensor:
    """Codes, or logits `[N, classes]` where there are no multipliers."""
    return _requantized(accumulator, constants) if len(constants.multiplier) else accumulator.flatten(1)


def _requantized(accumulator: Tensor, constants: OpConstants) -> Tensor:
    shape = (-1, *[1] * (accumulator.dim() - 2))
    product: Tensor = accumulator.long() * torch.from_numpy(constants.multiplier).long().reshape(shape)
    return _clamp_codes(_shift_rounding(product, torch.from_numpy(constants.shift).long().reshape(shape)), constants)


def _shift_rounding(value: Tensor, shift: Tensor) -> Tensor:
    half = torch.ones_like(shift) << (shift - 1)
    return torch.bitwise_right_shift(value + half, shift)


def _clamp_codes(value: Tensor, constants: OpConstants) -> Tensor:
    return torch.clamp(value + constants.output_zero, 0, constants.output_max).double()


TORCH_OPS: Mapping[OpKind, TorchOp] = {
    OpKind.CONV2D: TorchOp(real=_convolution, whole=_whole_convolution),
    OpKind.DEPTHWISE_CONV2D: TorchOp(real=_convolution, whole=_whole_convolution),
    OpKind.LINEAR: TorchOp(real=_linear, whole=_whole_linear),
    OpKind.ADD: TorchOp(real=_add, whole=_whole_add),
    OpKind.MAX_POOL: TorchOp(real=_max_pool, whole=_whole_max_pool),
    OpKind.AVG_POOL: TorchOp(real=_avg_pool, whole=_whole_avg_pool),
    OpKind.REQUANTIZE: TorchOp(real=_unchanged, whole=_whole_requantize),
}
"""Every kind that a network may hold, so all but those that decide."""
