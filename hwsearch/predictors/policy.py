"""Fitting of bit policies: from cached losses and margins of a menu's entries to a rule that picks one per input."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwsearch.errors import SpaceError
from hwsearch.graph.menu import PolicyKind, PolicyShape
from hwsearch.predictors.gate import Gate, quantize_gate, train_gate
from hwsearch.predictors.threshold import first_confident, fit_thresholds
from hwsearch.quantizers.uniform import InputQuantizer


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedPolicy:
    """A policy that can decide. `thresholds` are margins of real logits, one per entry but the last (`cascade`, `exit`)."""

    shape: PolicyShape
    thresholds: tuple[float, ...] = ()
    gate: Gate | None = None

    def decide(self, images: Tensor, margins: NDArray[np.float64]) -> NDArray[np.int64]:
        """Index of the entry at which the inference of each image ends, int64 `[N]`; `margins` is `[N, K]`."""
        match self.shape.kind:
            case PolicyKind.STATIC:
                return np.zeros(len(images), dtype=np.int64)
            case PolicyKind.GATE:
                assert self.gate is not None
                return self.gate.decide(images)
            case PolicyKind.CASCADE | PolicyKind.EXIT:
                return first_confident(margins, self.thresholds)


def fit_policy(shape: PolicyShape, results: EntryResults, *, input_quantizer: InputQuantizer, seed: int) -> FittedPolicy:
    """The policy of this shape that does best on `results`; `input_quantizer` is the supernet's."""
    if shape.kind is PolicyKind.STATIC:
        return FittedPolicy(shape=shape)
    if shape.kind is PolicyKind.GATE:
        trained = train_gate(results.images, results.losses, results.relative_latencies, shape, seed=seed)
        return FittedPolicy(shape=shape, gate=quantize_gate(trained, results.images, shape, input_quantizer))
    return FittedPolicy(shape=shape, thresholds=fit_thresholds(results.margins, shape.escalation))


def cross_fitted(shape: PolicyShape, results: EntryResults, *, input_quantizer: InputQuantizer, seed: int) -> NDArray[np.int64]:
    """Decisions of policies on images they were not fitted on: two random halves, each decided by the other's policy."""
    order = np.random.default_rng(seed).permutation(len(results.losses))
    halves = (np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :]))
    decisions = np.zeros(len(order), dtype=np.int64)
    for fitted_on, decided in (halves, halves[::-1]):
        policy = fit_policy(shape, results.subset(fitted_on), input_quantizer=input_quantizer, seed=seed)
        rest = results.subset(decided)
        decisions[decided] = policy.decide(rest.images, rest.margins)
    return decisions
