"""How good an assignment is: per-sample losses, correctness and margins at every exit, in one forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hwsearch.graph.precision import BitAssignment
from hwsearch.quantizers.supernet import Supernet
from hwsearch.quantizers.switchable import Statistics
from hwsearch.tasks.task import Split

_BATCH = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class PathEvaluation:
    """Results of one assignment at each of its exits, in execution order; the trunk's end is the last and named `""`.

    `losses`: cross-entropy, float64 `[E, N]`; `correct`: bool `[E, N]`; `margins`: best minus second-best logit, in
    real (not integer) logits, float64 `[E, N]`.
    """

    exits: tuple[str, ...]
    losses: NDArray[np.float64]
    correct: NDArray[np.bool_]
    margins: NDArray[np.float64]

    def at(self, exit_name: str) -> int:
        """Row of an exit."""
        return self.exits.index(exit_name)

    @property
    def accuracy(self) -> float:
        """Share of correct answers at the last exit."""
        return float(self.correct[-1].mean())


@torch.no_grad()
def evaluate(
    supernet: Supernet,
    assignment: BitAssignment,
    split: Split,
    statistics: Statistics | None = None,
    *,
    exits: Sequence[str] | None = None,
) -> PathEvaluation:
    """Run an assignment on a split; `exits` are all of the network and the trunk's end unless named."""
    names = tuple(exits) if exits is not None else (*supernet.network.exits, "")
    was_training = supernet.training
    supernet.eval()
    batches = [supernet(images, assignment, exits=names, statistics=statistics) for images in torch.split(split.images, _BATCH)]
    supernet.train(was_training)
    logits = torch.stack([torch.cat([batch[name] for batch in batches]) for name in names])  # [E, N, classes]
    return _judge(names, logits, split.labels)


def _judge(names: tuple[str, ...], logits: Tensor, labels: Tensor) -> PathEvaluation:
    repeated = labels.expand(len(names), -1)  # [E, N]
    losses = F.cross_entropy(logits.flatten(0, 1), repeated.flatten(), reduction="none").reshape(repeated.shape)
    best = logits.topk(2, dim=2).values  # [E, N, 2]
    return PathEvaluation(
        exits=names,
        losses=losses.double().numpy(),
        correct=(logits.argmax(dim=2) == repeated).numpy(),
        margins=(best[:, :, 0] - best[:, :, 1]).double().numpy(),
    )
