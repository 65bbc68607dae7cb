"""Batch norm of a network whose precisions switch, and its reduction to integers.

Affine parameters are shared by all precisions up to a learned correction per width of the operation's own weights and
activations; since every menu entry has its own folded constants, that costs nothing on the device. Mean and variance
depend on the whole assignment and are re-estimated for each (`calibrate.estimate_statistics`): statistics kept per
layer precision are not enough for mixed assignments.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hwsearch.graph.precision import Precision
from hwsearch.quantizers.parameter_groups import ParameterGroups
from hwsearch.quantizers.uniform import round_half_up

LARGEST_BIAS = 2.0**30


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStatistics:
    """Mean and (biased) variance of each channel of an operation's output before its batch norm; both `[channels]`."""

    mean: Tensor
    variance: Tensor


Statistics = Mapping[str, ChannelStatistics]
"""Channel statistics of every operation with batch norm, by operation name; they belong to one assignment."""


class SwitchableBatchNorm(nn.Module):
    """Batch norm with corrections per weight width and per activation width."""

    eps: Tensor
    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, *, channels: int, eps: float, weight_widths: Sequence[int], activation_widths: Sequence[int]) -> None:
        super().__init__()
        self.weight_widths = tuple(weight_widths)
        self.activation_widths = tuple(activation_widths)
        self.scale = nn.Parameter(torch.ones(channels))
        self.offset = nn.Parameter(torch.zeros(channels))
        rows = len(self.weight_widths) + len(self.activation_widths)
        self.log_scale_correction = nn.Parameter(torch.zeros(rows, channels))
        self.offset_correction = nn.Parameter(torch.zeros(rows, channels))
        self.register_buffer("eps", torch.tensor(eps, dtype=torch.float64))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_variance", torch.ones(channels))

    @property
    def epsilon(self) -> float:
        return float(self.eps)

    @property
    def running(self) -> ChannelStatistics:
        """Statistics of the float network this one started from."""
        return ChannelStatistics(mean=self.running_mean, variance=self.running_variance)

    def parameter_groups(self) -> ParameterGroups:
        """The scale's correction is a logarithm, so it is learned as steps are."""
        return ParameterGroups(steps=(self.log_scale_correction,), rest=(self.scale, self.offset, self.offset_correction))

    def affine(self, precision: Precision) -> tuple[Tensor, Tensor]:
        """Scale and offset, both `[channels]`.

        A correction multiplies the scale by a positive factor, so its sign is the same at every precision: where it is
        negative the stored weight codes are complemented once for all menu entries.
        """
        rows = [
            self.weight_widths.index(precision.weight_bits),
            len(self.weight_widths) + self.activation_widths.index(precision.activation_bits),
        ]
        growth = self.log_scale_correction[rows].sum(dim=0).exp()
        return self.scale * growth, self.offset + self.offset_correction[rows].sum(dim=0)


def folded(scale: Tensor, offset: Tensor, statistics: ChannelStatistics, eps: float) -> tuple[Tensor, Tensor]:
    """The factor and addend that batch norm with given statistics comes down to; both `[channels]`, in float64."""
    factor = scale.double() / torch.sqrt(statistics.variance.double() + eps)
    return factor, offset.double() - factor * statistics.mean.double()


def integer_bias(unit: Tensor, addend: Tensor) -> tuple[Tensor, Tensor]:
    """The whole number of accumulator units nearest to an addend, and the size of a unit; both float64 `[channels]`.

    `unit` is what one unit of the accumulator is worth, positive. Where the bias would not fit its 30 bits, the unit is
    enlarged until it does; the accumulated products are then worth less than one output code, since the addend itself
    is of the order of the output.
    """
    roomy = torch.maximum(unit, addend.abs() / LARGEST_BIAS).clamp(min=2.0**-60)
    return round_half_up(addend / roomy), roomy
