"""What the quantizers must know of a network's tensors: which share codes, which can be negative, who reads them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from hwsearch.errors import NetworkError
from hwsearch.graph.network import INPUT, Network
from hwsearch.graph.op import Activation, Op
from hwsearch.graph.precision import Precision

Options = Mapping[str, tuple[Precision, ...]]
"""The precisions each operation may take, by operation name."""


def code_source(network: Network, tensor: str) -> str:
    """The tensor whose step, zero point and codes `tensor` uses: maximum pooling passes codes through."""
    while tensor != INPUT and network[tensor].kind.traits.passes_codes:
        tensor = network[tensor].inputs[0]
    return tensor


def is_unsigned(network: Network, tensor: str, *, input_is_unsigned: bool) -> bool:
    """Whether a tensor's values are never negative, so that its zero point is code 0."""
    if tensor == INPUT:
        return input_is_unsigned
    op = network[tensor]
    if op.activation.is_unsigned:
        return True
    sources = (is_unsigned(network, source, input_is_unsigned=input_is_unsigned) for source in op.inputs)
    return op.kind.traits.keeps_sign and all(sources)


def read_widths(network: Network, tensor: str, options: Options) -> tuple[int, ...]:
    """Widths at which a tensor may be read, ascending."""
    return tuple(sorted({p.activation_bits for op in network.consumers(tensor) for p in options[op.name]}))


def weight_widths(op: Op, options: Options) -> tuple[int, ...]:
    """Widths that an operation's weights may take, ascending."""
    return tuple(sorted({p.weight_bits for p in options[op.name]}))


def check_quantizable(network: Network) -> None:
    """Refuse what the integer arithmetic cannot express, in one sentence."""
    for op in network.ops:
        if op.kind.traits.passes_codes and op.activation is not Activation.NONE:
            raise NetworkError(
                f"A {op.kind} passes codes through and can have no activation, but {op.name} has {op.activation}; "
                "put the activation before it."
            )
        if not network.consumers(op.name) and (not op.has_weights or op.batch_norm or op.activation is not Activation.NONE):
            raise NetworkError(
                f"Logits must come from a linear or convolution without batch norm and activation, but {op.name} is {op.kind} "
                f"with batch_norm={op.batch_norm}, activation={op.activation}; end the network with a plain one."
            )


def activate(op: Op, x: Tensor) -> Tensor:
    """The activation function in real numbers."""
    if op.activation is Activation.RELU:
        return torch.relu(x)
    if op.activation is Activation.RELU6:
        return torch.clamp(x, 0.0, 6.0)
    if op.activation is Activation.HARDTANH:
        return torch.clamp(x, -1.0, 1.0)
    return x
