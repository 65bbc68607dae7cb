"""Uniform quantization of activations: unsigned codes with one learned step per width.

The gradient of a step is that of LSQ (arXiv 1902.08153, eq. 3), which follows by itself from rounding with the
straight-through estimator; LSQ's gradient scale is not needed, since steps are learned as logarithms under Adam.

| symbol in the paper | name here |
| --- | --- |
| s | step |
| -Q_N, Q_P | low, high |
| v-bar, v-hat | code - zero, the fake-quantized value |
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hwsearch.errors import SpaceError
from hwsearch.quantizers.parameter_groups import ParameterGroups

INPUT_BITS = 8


def round_half_up(x: Tensor) -> Tensor:
    """Nearest integer, ties upward, as integer arithmetic rounds (torch.round takes ties to even)."""
    return torch.floor(x + 0.5)


def straight_through(value: Tensor, rounded: Tensor) -> Tensor:
    """`rounded` going forward, the gradient of `value` going backward."""
    return value + (rounded - value).detach()


class _FakeQuantize(torch.autograd.Function):
    """`step * clamp(round(x / step), low, high)` with LSQ's gradients, in fewer passes over memory than autograd would take."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
        y = (x / step).add_(0.5).floor_().clamp_(low, high).mul_(step)
        ctx.save_for_backward(x, step, y)
        ctx.range = (low, high)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, step, y = ctx.saved_tensors
        low, high = (float(step) * end for end in ctx.range)
        to_x = torch.ops.aten.hardtanh_backward(gradient, x, low, high)  # the gradient where low < x < high, else 0
        # sum of gradient * (code - x / step inside the range, code outside it)
        to_step = (torch.dot(gradient.flatten(), y.flatten()) - torch.dot(to_x.flatten(), x.flatten())) / step
        return to_x, to_step, None, None


def fake_quantize(x: Tensor, step: Tensor, zero: int, bits: int) -> Tensor:
    """The real values that codes of `bits` width with this scalar step and zero point hold; same shape as `x`."""
    quantized: Tensor = _FakeQuantize.apply(x, step, -zero, 2**bits - 1 - zero)  # type: ignore[no-untyped-call]
    return quantized


def largest_step(bits: int, *, unsigned: bool, limit: float | None) -> float:
    """The largest step at which no code stands for a value beyond `limit`; infinite without a limit."""
    if limit is None:
        return math.inf
    levels: int = 2**bits - 1 if unsigned else 2 ** (bits - 1)
    return limit / levels


def best_step(samples: Tensor, *, bits: int, unsigned: bool, limit: float | None = None) -> float:
    """The step with the least mean squared error on `samples`, by a search over 64 clipping points.

    Zeros, which every step represents exactly, do not count; without other samples the step is 1 / (2^bits - 1).
    """
    bound = largest_step(bits, unsigned=unsigned, limit=limit)
    values = samples[samples != 0]
    if values.numel() == 0:
        return min(1.0 / float(2**bits - 1), bound)
    zero = zero_point(bits, unsigned=unsigned)
    reach: int = max(2**bits - 1 - zero, 1)  # signed codes of 1 bit hold zero and one negative value
    peak = float(values.abs().max())
    steps = [min(peak * share / 64 / reach, bound) for share in range(2, 66)]
    errors = [float((fake_quantize(values, torch.tensor(step), zero, bits) - values).square().mean()) for step in steps]
    return steps[errors.index(min(errors))]


def zero_point(bits: int, *, unsigned: bool) -> int:
    """The code of the value zero."""
    return 0 if unsigned else 2 ** (bits - 1)


class ActivationQuantizer(nn.Module):
    """Quantizer of one tensor: a learned step per width.

    `limit` is the largest value of the activation function that made the tensor (6 for ReLU6); the steps are kept so
    small that no code exceeds it, and so the function needs no arithmetic of its own.
    """

    def __init__(self, widths: Sequence[int], *, unsigned: bool, limit: float | None) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.unsigned = unsigned
        self.limit = limit
        self.log_step = nn.Parameter(torch.zeros(len(self.widths)))

    def step(self, bits: int) -> Tensor:
        """Real value of one code at this width; a scalar tensor with gradient."""
        if bits not in self.widths:
            raise SpaceError(f"A tensor must be read at a width it was trained for ({self.widths}), but {bits} was asked.")
        step = torch.exp(self.log_step[self.widths.index(bits)])
        bound = largest_step(bits, unsigned=self.unsigned, limit=self.limit)
        return step if math.isinf(bound) else step.clamp(max=bound)

    def zero(self, bits: int) -> int:
        return zero_point(bits, unsigned=self.unsigned)

    @torch.no_grad()
    def calibrate(self, samples: Tensor) -> None:
        """Set every width's step to the one with the least squared error on `samples`."""
        steps = [best_step(samples, bits=bits, unsigned=self.unsigned, limit=self.limit) for bits in self.widths]
        self.log_step.copy_(torch.tensor(steps).log())

    def parameter_groups(self) -> ParameterGroups:
        return ParameterGroups(steps=(self.log_step,))

    def forward(self, x: Tensor, bits: int) -> Tensor:
        return fake_quantize(x, self.step(bits), self.zero(bits), bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputQuantizer:
    """How an image becomes 8-bit codes: value = step * (code - zero). Fixed, since a camera or microphone delivers codes."""

    step: float
    zero: int

    @classmethod
    def of_images(cls, images: Tensor) -> "InputQuantizer":
        """From the range of the training images, which always holds zero so that padding has a code."""
        low, high = min(float(images.min()), 0.0), max(float(images.max()), 0.0)
        step = (high - low) / (2**INPUT_BITS - 1) or 1.0
        return cls(step=step, zero=math.floor(-low / step + 0.5))

    def codes(self, images: Tensor) -> Tensor:
        """Codes of images as a float tensor of whole numbers, same shape."""
        return torch.clamp(round_half_up(images / self.step) + self.zero, 0, 2**INPUT_BITS - 1)

    def __call__(self, images: Tensor) -> Tensor:
        return (self.codes(images) - self.zero) * self.step
