"""Nested weights: one 8-bit code per weight serves every width, since the b-bit code is its top b bits.

A b-bit code u stands for `half_step * (2u + 1 - 2^b)`, the middle of its bin. Without that half-LSB offset dropping
bits would shift all weights down by half a bin and cost 5 to 6 dB at 4 bits and fewer. The idea of dropping bits is
AdaBits' (arXiv 1912.09666) and that of training through the truncation TruncQuant's (arXiv 2506.11431); the offset is
AdaBits' "centered" variant.
"""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from hwsearch.quantizers.parameter_groups import ParameterGroups
from hwsearch.quantizers.uniform import straight_through
from hwsearch.quantizers.weight_quantizer import CODE_BITS, WeightQuantizer

_HIGHEST = 128 * (1 - 2.0**-20)
"""Just below 128, so that flooring the largest clipped weight gives the code 127 in float32."""


def bin_middle(scaled: Tensor, bits: int) -> Tensor:
    """Middle of the `bits`-wide bin of weights given in steps of the 8-bit code, clipped to its range.

    >>> bin_middle(torch.tensor([-200.0, -0.1, 0.1, 70.0]), 2)
    tensor([-96., -32.,  32.,  96.])
    """
    coarse = 2.0 ** (CODE_BITS - bits)
    clipped = torch.clamp(scaled, -128.0, _HIGHEST)
    return straight_through(clipped, (torch.floor(clipped / coarse) + 0.5) * coarse)


@final
class NestedWeight(WeightQuantizer):
    """Learned steps shared by every width, and where `rescaled` a learned factor per width."""

    def __init__(self, weight: Tensor, widths: Sequence[int], *, per_channel: bool, rescaled: bool) -> None:
        super().__init__(weight, widths, per_channel=per_channel, rescaled=rescaled)
        self.log_step = nn.Parameter(torch.zeros(self.channels))
        self.log_factor = nn.Parameter(torch.zeros(len(self.widths), self.channels)) if rescaled else None
        self.calibrate()

    def factor(self, bits: int) -> Tensor:
        """What a code of this width stands for relative to its bin's middle; `[channels or 1]`."""
        index = self.index(bits)
        return torch.ones_like(self.log_step) if self.log_factor is None else torch.exp(self.log_factor[index])

    def half_step(self, bits: int) -> Tensor:
        return torch.exp(self.log_step) * self.factor(bits) * 2.0 ** (CODE_BITS - bits - 1)

    def forward(self, bits: int) -> Tensor:
        step = self.across(torch.exp(self.log_step))
        factor = self.across(self.factor(bits))
        return bin_middle(self.weight / step, bits) * (step * factor)

    @torch.no_grad()
    def codes(self) -> Tensor:
        clipped = torch.clamp(self.weight / self.across(torch.exp(self.log_step)), -128.0, _HIGHEST)
        return torch.floor(clipped).long() + 128

    @torch.no_grad()
    def replace(self, weight: Tensor) -> None:
        self.weight.copy_(weight)
        self.calibrate()

    def parameter_groups(self) -> ParameterGroups:
        steps = (self.log_step,) if self.log_factor is None else (self.log_step, self.log_factor)
        return ParameterGroups(weights=(self.weight,), steps=steps)

    @torch.no_grad()
    def calibrate(self) -> None:
        """Set the steps to minimise the relative squared error, summed over widths, by a search over clipping points.

        The best single magnitude of 1 bit is the mean of all; it lies further inside the range than clips of wider codes.
        """
        rows = self.weight.reshape(self.log_step.numel(), -1)  # [channels or 1, weights]
        peak = rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-8)
        shares = torch.arange(5 if 1 in self.widths else 17, 65) / 64
        errors = torch.stack([self._relative_errors(rows, peak * share / 128) for share in shares])  # [clips, widths, rows]
        total = (errors / errors.amin(dim=0, keepdim=True).clamp(min=1e-12)).sum(dim=1)  # [clips, rows]
        self.log_step.copy_((peak[:, 0] * shares[total.argmin(dim=0)] / 128).log())
        if self.log_factor is not None:
            self._calibrate_factors(rows)

    def _relative_errors(self, rows: Tensor, step: Tensor) -> Tensor:
        """Squared error of each row at each width, `[widths, rows]`."""
        quantized = [bin_middle(rows / step, bits) * step for bits in self.widths]
        return torch.stack([(values - rows).square().sum(dim=1) for values in quantized])

    def _calibrate_factors(self, rows: Tensor) -> None:
        assert self.log_factor is not None
        step = torch.exp(self.log_step)[:, None]
        for index, bits in enumerate(self.widths):
            values = bin_middle(rows / step, bits) * step
            best = (values * rows).sum(dim=1) / values.square().sum(dim=1)
            self.log_factor[index] = best.clamp(min=0.25, max=4.0).log()
