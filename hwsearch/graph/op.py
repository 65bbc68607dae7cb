"""One priced operation of a network, with its shapes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

Shape = tuple[int, ...]
"""`(channels, height, width)` of a feature map, `(features,)` of a vector; the batch is never part of it."""


class OpKind(StrEnum):
    CONV2D = "conv2d"
    DEPTHWISE_CONV2D = "depthwise_conv2d"
    LINEAR = "linear"
    ADD = "add"
    MAX_POOL = "max_pool"
    AVG_POOL = "avg_pool"
    REQUANTIZE = "requantize"
    """A change of scale and width with nothing else; an activation that could not be fused into its producer."""
    ARGMAX = "argmax"
    """The decision of a policy: best and second-best logit."""

    @property
    def traits(self) -> "Traits":
        return _TRAITS[self]

    @property
    def has_weights(self) -> bool:
        return _TRAITS[self].has_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a graph must know of a kind of operation; what it computes is told by `integers/ops/<kind>.py`."""

    n_inputs: int = 1
    has_weights: bool = False
    """A batch norm may be fused into these, and into no others: it scales their weights."""
    reads_vector: bool = False
    """Its input, whatever the shape, is one vector of features, in (height, width, channel) order."""
    takes_activation: bool = False
    """Whether an activation that follows may be fused into it."""
    gives_logits: bool = False
    """Whether a network may end in it."""
    keeps_sign: bool = False
    """Outputs are never negative where inputs never are."""
    passes_codes: bool = False
    """Outputs are codes of the input, with its width, step and zero point."""
    decides: bool = False
    """It reads logits and chooses between menu entries; no operation of a network, so never trained."""


_TRAITS: Mapping[OpKind, Traits] = {
    OpKind.CONV2D: Traits(has_weights=True, takes_activation=True, gives_logits=True),
    OpKind.DEPTHWISE_CONV2D: Traits(has_weights=True, takes_activation=True),
    OpKind.LINEAR: Traits(has_weights=True, reads_vector=True, takes_activation=True, gives_logits=True),
    OpKind.ADD: Traits(n_inputs=2, takes_activation=True, keeps_sign=True),
    OpKind.MAX_POOL: Traits(keeps_sign=True, passes_codes=True),
    OpKind.AVG_POOL: Traits(keeps_sign=True),
    OpKind.REQUANTIZE: Traits(keeps_sign=True),
    OpKind.ARGMAX: Traits(decides=True),
}


class Activation(StrEnum):
    NONE = "none"
    RELU = "relu"
    RELU6 = "relu6"
    HARDTANH = "hardtanh"

    @property
    def is_unsigned(self) -> bool:
        """Whether its values are never negative, so that codes need no zero point."""
        return self in (Activation.RELU, Activation.RELU6)

    @property
    def limit(self) -> float | None:
        """The largest value it lets pass; None if there is none."""
        return {Activation.RELU6: 6.0, Activation.HARDTANH: 1.0}.get(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operation. A batch norm and an activation that directly follow are part of it.

    `inputs` names the operations whose outputs it reads, in order; the network's own input is named `input`.
    `padding` is applied on all four sides as (rows, columns). `groups` is that of a convolution.
    `exit` names the early exit whose head the operation belongs to; empty for the trunk.
    """

    name: str
    kind: OpKind
    inputs: tuple[str, ...]
    in_shape: Shape
    out_shape: Shape
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    activation: Activation = Activation.NONE
    batch_norm: bool = False
    exit: str = ""

    @property
    def has_weights(self) -> bool:
        return self.kind.has_weights

    @property
    def out_channels(self) -> int:
        return self.out_shape[0]

    @property
    def reduction(self) -> int:
        """Products summed into one output element."""
        traits = self.kind.traits
        if traits.reads_vector:
            return math.prod(self.in_shape)
        if traits.has_weights:
            return self.kernel[0] * self.kernel[1] * self.in_shape[0] // self.groups
        return 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference; pooling and additions have none."""
        return math.prod(self.out_shape) * self.reduction

    @property
    def n_weights(self) -> int:
        return self.out_channels * self.reduction


def packed_weight_bytes(op: Op, stored_bits: int) -> int:
    """Bytes of an operation's weights: dense codes of `stored_bits`, each output channel's row padded to 4 bytes."""
    row_bits = op.reduction * stored_bits
    return op.out_channels * (-(-row_bits // 32) * 4)


def shape_text(shape: Shape) -> str:
    """A shape as written in tables: `HxWxC`, or the number of features.

    >>> shape_text((16, 32, 24)), shape_text((64,))
    ('32x24x16', '64')
    """
    if len(shape) == 1:
        return str(shape[0])
    channels, height, width = shape
    return f"{height}x{width}x{channels}"


def parse_shape(text: str) -> Shape:
    """The inverse of `shape_text`."""
    numbers = tuple(int(part) for part in text.split("x"))
    if len(numbers) == 1:
        return numbers
    height, width, channels = numbers
    return (channels, height, width)
