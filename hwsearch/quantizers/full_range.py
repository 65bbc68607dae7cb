"""Dry run: LSQ-style steps per width, started at the full range."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from hwsearch.quantizers.nested import bin_middle
from hwsearch.quantizers.parameter_groups import ParameterGroups
from hwsearch.quantizers.weight_quantizer import CODE_BITS, WeightQuantizer


@final
class FullRangeWeight(WeightQuantizer):
    """A step per channel and a factor per width."""

    def __init__(self, weight: Tensor, widths: Sequence[int], *, per_channel: bool, rescaled: bool) -> None:
        super().__init__(weight, widths, per_channel=per_channel, rescaled=rescaled)
        self.step = nn.Parameter(torch.zeros(self.channels))
        self.factors = nn.Parameter(torch.zeros(len(self.widths), self.channels))
        self.replace(weight)

    def _worth(self, bits: int) -> Tensor:
        return torch.exp(self.step + self.factors[self.index(bits)])

    def half_step(self, bits: int) -> Tensor:
        return self._worth(bits) * 2.0 ** (CODE_BITS - bits - 1)

    def forward(self, bits: int) -> Tensor:
        return bin_middle(self.weight / self.across(self.step.exp()), bits) * self.across(self._worth(bits))

    @torch.no_grad()
    def codes(self) -> Tensor:
        scaled = self.weight / self.across(self.step.exp())
        return torch.floor(torch.clamp(scaled, -128, 128 * (1 - 2.0**-20))).long() + 128

    @torch.no_grad()
    def replace(self, weight: Tensor) -> None:
        self.weight.copy_(weight)
        rows = self.weight.reshape(self.channels, -1)
        self.step.copy_((rows.abs().amax(dim=1) * 0.999 / 128).log())
        self.factors.zero_()

    def parameter_groups(self) -> ParameterGroups:
        return ParameterGroups(weights=(self.weight,), steps=(self.step, self.factors))
