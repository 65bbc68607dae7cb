"""Margin thresholds: when a cascade or an early exit is confident enough to stop."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hwsearch.errors import SpaceError
from hwsearch.predictors.fitted import FittedPolicy
from hwsearch.predictors.parameters import Interval, Params


@dataclass(frozen=True, slots=True)
class Thresholds(FittedPolicy):
    """Margins of real logits, one per entry but the last, at which an inference stops."""

    values: tuple[float, ...]

    def decide(self, images: Tensor, margins: NDArray[np.float64]) -> NDArray[np.int64]:
        return first_confident(margins, self.values)


def escalation_parameters(stages: int) -> tuple[Interval, ...]:
    """For each stage the share of inputs that reach it and are sent on."""
    return tuple(Interval(name=f"escalation{stage}", low=0.02, high=0.9) for stage in range(stages))


def escalation_of(params: Params, stages: int) -> tuple[float, ...]:
    """The shares that the parameters name for the first stages."""
    return tuple(params[f"escalation{stage}"] for stage in range(stages))


def fit_thresholds(margins: NDArray[np.float64], escalation: Sequence[float]) -> tuple[float, ...]:
    """Thresholds at which stage k sends on the share `escalation[k]` of the inputs that reach it.

    `margins`: best minus second-best logit, `[N, K]` for K entries; there are K - 1 thresholds. A stage stops where its
    margin is at least the threshold: 0 stops always, infinity never. Equal margins go the same way.

    >>> fit_thresholds(np.array([[1.0, 9.0], [2.0, 9.0], [3.0, 9.0], [4.0, 9.0]]), [0.5])
    (3.0,)
    """
    stages = margins.shape[1] - 1
    if len(escalation) != stages or any(not 0 <= share <= 1 for share in escalation):
        raise SpaceError(
            f"A policy of {stages + 1} entries must have {stages} escalation shares in 0..1, but has "
            f"{list(escalation)}; give one per stage."
        )
    running = np.ones(len(margins), dtype=bool)
    thresholds = []
    for stage, share in enumerate(escalation):
        threshold = _upper_quantile(margins[running, stage], share)
        thresholds.append(threshold)
        running &= margins[:, stage] < threshold
    return tuple(thresholds)


def _upper_quantile(margins: NDArray[np.float64], share: float) -> float:
    """The value below which the share of `margins` lies."""
    sent_on = round(share * len(margins))
    if sent_on == 0:
        return 0.0
    return float(np.sort(margins)[sent_on]) if sent_on < len(margins) else np.inf


def first_confident(margins: NDArray[np.float64], thresholds: Sequence[float]) -> NDArray[np.int64]:
    """Index of the entry at which each input stops: the first whose margin reaches its threshold, else the last; `[N]`.

    >>> first_confident(np.array([[5.0, 1.0], [0.5, 1.0]]), [2.0])
    array([0, 1])
    """
    stops = np.ones(margins.shape, dtype=bool)
    stops[:, :-1] = margins[:, :-1] >= np.asarray(thresholds)
    first: NDArray[np.int64] = stops.argmax(axis=1)
    return first
