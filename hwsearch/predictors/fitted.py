"""What a policy learns from, and what it is once it has learnt: a rule that picks an entry for each input."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwsearch.errors import SpaceError
from hwsearch.integers.integer_model import IntegerModel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EntryResults:
    """What the entries of a menu gave on some images: all that a policy learns from.

    `images`: float32 `[N, C, H, W]`; `losses`: `[N, K]`; `margins`: best minus second-best logit in real logits, `[N, K]`;
    `relative_latencies`: `[K]`, the latency of a whole inference that ends at each entry over that of the most expensive.
    """

    images: Tensor
    losses: NDArray[np.float64]
    margins: NDArray[np.float64]
    relative_latencies: NDArray[np.float64]

    def __post_init__(self) -> None:
        count, entries = self.losses.shape
        if self.margins.shape != (count, entries) or len(self.images) != count or self.relative_latencies.shape != (entries,):
            raise SpaceError(
                f"Results of {entries} entries on {count} images must have losses and margins [N, K] and latencies [K], but "
                f"margins have {self.margins.shape}, latencies {self.relative_latencies.shape}, images {len(self.images)}; align."
            )

    def subset(self, indices: NDArray[np.int64]) -> "EntryResults":
        """The results of some images."""
        return EntryResults(
            images=self.images[torch.from_numpy(indices)],
            losses=self.losses[indices],
            margins=self.margins[indices],
            relative_latencies=self.relative_latencies,
        )


class FittedPolicy(ABC):
    """A policy that can decide."""

    @abstractmethod
    def decide(self, images: Tensor, margins: NDArray[np.float64]) -> NDArray[np.int64]:
        """Index of the entry at which the inference of each image ends, int64 `[N]`; `margins` of all entries are `[N, K]`."""

    def controller(self) -> IntegerModel | None:
        """The controller in integers, its classes the menu's entries, where the kind has one."""
        return None
