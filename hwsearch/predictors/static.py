"""The static policy: one entry for every input. There is nothing to learn."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hwsearch.graph.menu import PolicyKind, PolicyShape
from hwsearch.graph.space import SearchSpace
from hwsearch.predictors.fitted import EntryResults, FittedPolicy
from hwsearch.predictors.parameters import Parameter, Params
from hwsearch.quantizers.uniform import InputQuantizer


@dataclass(frozen=True, slots=True)
class FirstEntry(FittedPolicy):
    """Entry 0, whatever the input."""

    def decide(self, images: Tensor, margins: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.zeros(len(images), dtype=np.int64)


def parameters(space: SearchSpace) -> tuple[Parameter, ...]:
    """None."""
    return ()


def policy_of(params: Params, entries: int) -> PolicyShape:
    return PolicyShape(kind=PolicyKind.STATIC)


def fit(policy: PolicyShape, results: EntryResults, input_quantizer: InputQuantizer, seed: int) -> FirstEntry:
    return FirstEntry()
