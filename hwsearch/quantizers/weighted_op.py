"""One operation of a supernet that has weights: their quantizer, and a bias or a batch norm."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hwsearch.graph.op import Op
from hwsearch.quantizers.parameter_groups import ParameterGroups
from hwsearch.quantizers.schemes import scheme_named
from hwsearch.quantizers.switchable import SwitchableBatchNorm
from hwsearch.quantizers.weight_quantizer import WeightQuantizer

if TYPE_CHECKING:
    from hwsearch.graph.aten import OpParameters


class WeightedOp(nn.Module):
    """What one operation with weights learns: quantized weights, and a bias or a batch norm."""

    def __init__(
        self, op: Op, widths: Sequence[int], activation_widths: Sequence[int], weight: Tensor, *, is_logits: bool, scheme: str
    ) -> None:
        super().__init__()
        rescaled = not op.batch_norm and not is_logits
        self.scheme = scheme
        self.add_module(scheme, scheme_named(scheme)(weight, widths, per_channel=not is_logits, rescaled=rescaled))
        self.bias = None if op.batch_norm else nn.Parameter(torch.zeros(op.out_channels))
        self.norm: SwitchableBatchNorm | None = None
        if op.batch_norm:
            # the float network's epsilon replaces this one when its parameters are loaded
            self.norm = SwitchableBatchNorm(
                channels=op.out_channels, eps=1e-5, weight_widths=widths, activation_widths=activation_widths
            )

    @property
    def quantizer(self) -> WeightQuantizer:
        """The weights; a submodule of their scheme's name, so that saved tensors say which scheme they belong to."""
        module = self.get_submodule(self.scheme)
        assert isinstance(module, WeightQuantizer)
        return module

    def parameter_groups(self) -> ParameterGroups:
        own = self.quantizer.parameter_groups()
        if self.bias is not None:
            own += ParameterGroups(rest=(self.bias,))
        return own if self.norm is None else own + self.norm.parameter_groups()

    @torch.no_grad()
    def load(self, parameters: "OpParameters[Tensor]") -> None:
        """Take bias and batch norm of a float operation (its weight was given to the constructor)."""
        bias = torch.zeros(len(self.quantizer.weight)) if parameters.bias is None else torch.as_tensor(parameters.bias).float()
        if self.norm is None:
            assert self.bias is not None
            self.bias.copy_(bias)
            return
        assert parameters.bn_weight is not None and parameters.bn_bias is not None
        assert parameters.bn_mean is not None and parameters.bn_var is not None
        self.norm.eps.fill_(parameters.bn_eps)
        self.norm.scale.copy_(torch.as_tensor(parameters.bn_weight))
        self.norm.offset.copy_(torch.as_tensor(parameters.bn_bias))
        self.norm.running_mean.copy_(torch.as_tensor(parameters.bn_mean) - bias)
        self.norm.running_variance.copy_(torch.as_tensor(parameters.bn_var))

    @torch.no_grad()
    def set_linear(self, weight: Tensor, bias: Tensor) -> None:
        """Replace the weights `[out, in]` and bias of an operation without batch norm."""
        assert self.bias is not None
        self.quantizer.replace(weight)
        self.bias.copy_(bias)


def weight_shape(op: Op) -> tuple[int, ...]:
    """Shape of an operation's weights as torch keeps them."""
    if op.kind.traits.reads_vector:
        return (op.out_channels, op.reduction)
    return (op.out_channels, op.in_shape[0] // op.groups, *op.kernel)
