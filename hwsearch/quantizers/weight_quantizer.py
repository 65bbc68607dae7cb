"""What every scheme of quantizing weights gives; the supernet, training and folding know no more of it.

The device stores one 8-bit code per weight, whatever the scheme: the b-bit code u is its top b bits and stands for
`half_step * (2u + 1 - 2^b)`, the middle of its bin. A scheme is free in where its steps come from and in how gradients pass.
`schemes.py` names all.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from hwsearch.errors import SpaceError
from hwsearch.quantizers.parameter_groups import ParameterGroups

CODE_BITS = 8


class WeightQuantizer(nn.Module, ABC):
    """The weights of one operation and how they are quantized at each of `widths`, those that the search space allows.

    `weight` are the float weights, in torch's shape. `per_channel`: one step per output channel, else one for all.
    `rescaled`: a factor per channel and width below 8 bits as well, for operations that have no batch norm to make up for the
    best range being narrower at few bits; it costs nothing in the integer model, where every menu entry has its own multipliers.
    """

    def __init__(self, weight: Tensor, widths: Sequence[int], *, per_channel: bool, rescaled: bool) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.channels = weight.shape[0] if per_channel else 1
        self.rescaled = rescaled
        self.weight = nn.Parameter(weight.detach().clone().float())

    @abstractmethod
    def forward(self, bits: int) -> Tensor:
        """Fake-quantized weights at this width, in the shape of the weights, with gradient to all parameters."""

    @abstractmethod
    def half_step(self, bits: int) -> Tensor:
        """Half the distance of neighbouring values at this width; `[channels or 1]`."""

    @abstractmethod
    def codes(self) -> Tensor:
        """The stored 8-bit codes, 0..255, int64 in the shape of the weights."""

    @abstractmethod
    def replace(self, weight: Tensor) -> None:
        """Take other weights of the same shape and set the steps anew."""

    @abstractmethod
    def parameter_groups(self) -> ParameterGroups:
        """Every parameter once."""

    def index(self, bits: int) -> int:
        """Place of a width among `widths`; `SpaceError` if it is not one of them."""
        if bits not in self.widths:
            raise SpaceError(f"Weights must have one of the widths {self.widths} they were trained for, but {bits} was asked.")
        return self.widths.index(bits)

    def across(self, per_channel: Tensor) -> Tensor:
        """A vector `[channels or 1]`, shaped to multiply the weights."""
        return per_channel.reshape(-1, *[1] * (self.weight.dim() - 1))
