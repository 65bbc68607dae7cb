"""What the quantizers must know of a network's tensors: which share codes, which can be negative, who reads them."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from hwsearch.errors import NetworkError
from hwsearch.graph.network import INPUT, Network
from hwsearch.graph.op import Activation, Op, OpKind
from hwsearch.graph.precision import Precision

Options = Mapping[str, tuple[Precision, ...]]
"""The precisions each operation may take, by operation name."""


def code_source(network: Network, tensor: str) -> str:
    """The tensor whose step, zero point and codes `tensor` uses: maximum pooling passes codes through."""
    while tensor != INPUT and network[tensor].kind is OpKind.MAX_POOL:
        tensor = network[tensor].inputs[0]
    return tensor


def is_unsigned(network: Network, tensor: str, *, input_is_unsigned: bool) -> bool:
    """Whether a tensor's values are never negative, so that its zero point is code 0."""
    if tensor == INPUT:
        return input_is_unsigned
    op = network[tensor]
    if op.activation.is_unsigned:
        return True
    keeps_sign = op.kind in (OpKind.MAX_POOL, OpKind.AVG_POOL, OpKind.REQUANTIZE, OpKind.ADD)
    return keeps_sign and all(is_unsigned(network, source, input_is_unsigned=input_is_unsigned) for source in op.inputs)


def read_widths(network: Network, tensor: str, options: Options) -> tuple[int, ...]:
    """Widths at which a tensor may be read, ascending."""
    return tuple(sorted({p.activation_bits for op in network.consumers(tensor) for p in options[op.name]}))


def weight_widths(op: Op, options: Options) -> tuple[int, ...]:
    """Widths that an operation's weights may take, ascending."""
    return tuple(sorted({p.weight_bits for p in options[op.name]}))


def check_quantizable(network: Network) -> None:
    """Refuse what the integer arithmetic cannot express, in one sentence."""
    for op in network.ops:
        if op.kind is OpKind.MAX_POOL and op.activation is not Activation.NONE:
            raise NetworkError(
                f"Maximum pooling passes codes through and can have no activation, but {op.name} has {op.activation}; "
                "put the activation before it."
            )
        if not network.consumers(op.name) and (not op.has_weights or op.batch_norm or op.activation is not Activation.NONE):
            raise NetworkError(
                f"Logits must come from a linear or convolution without batch norm and activation, but {op.name} is {op.kind} "
                f"with batch_norm={op.batch_norm}, activation={op.activation}; end the network with a plain one."
            )


def operate(op: Op, inputs: list[Tensor], weight: Tensor | None = None) -> Tensor:
    """An operation on tensors `[N, C, H, W]` or `[N, features]` without bias, batch norm and activation."""
    if op.kind is OpKind.LINEAR:
        assert weight is not None
        return F.linear(inputs[0].flatten(1), weight)  # [N, features]
    if op.has_weights:
        assert weight is not None
        return F.conv2d(inputs[0], weight, None, op.stride, op.padding, 1, op.groups)  # [N, C, H, W]
    if op.kind is OpKind.ADD:
        return inputs[0] + inputs[1]
    if op.kind is OpKind.MAX_POOL:
        return F.max_pool2d(inputs[0], op.kernel, op.stride, op.padding)  # [N, C, H, W]
    if op.kind is OpKind.AVG_POOL:
        return F.avg_pool2d(inputs[0], op.kernel, op.stride, op.padding)  # [N, C, H, W]
    if op.kind is OpKind.REQUANTIZE:
        return inputs[0]
    raise NetworkError(f"A network must consist of operations that can be trained, but {op.name} is {op.kind}; remove it.")


def activate(op: Op, x: Tensor) -> Tensor:
    """The activation function in real numbers."""
    if op.activation is Activation.RELU:
        return torch.relu(x)
    if op.activation is Activation.RELU6:
        return torch.clamp(x, 0.0, 6.0)
    if op.activation is Activation.HARDTANH:
        return torch.clamp(x, -1.0, 1.0)
    return x
