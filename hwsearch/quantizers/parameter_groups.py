"""Which parameters an optimizer treats alike. Each module that owns parameters says it of its own; nobody reads names."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParameterGroups:
    """The parameters of a module; `+` joins those of two, so `sum(…, ParameterGroups())` those of many.

    `weights` decay towards zero. `steps` are step sizes and positive factors, learned as logarithms, at a rate of their own.
    `rest` are biases, scales and offsets.
    """

    weights: tuple[nn.Parameter, ...] = ()
    steps: tuple[nn.Parameter, ...] = ()
    rest: tuple[nn.Parameter, ...] = ()

    def __add__(self, other: "ParameterGroups") -> "ParameterGroups":
        return ParameterGroups(weights=self.weights + other.weights, steps=self.steps + other.steps, rest=self.rest + other.rest)
