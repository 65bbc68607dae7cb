"""What workers compute: how good an assignment is, and how good a policy over a menu of assignments is.

Workers rebuild the supernet once from arrays that all share. A policy is judged from the cached results of its entries,
on images its own parameters were not fitted on, so that a trial needs no pass through the backbone.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hwsearch.graph.menu import Menu, PolicyShape
from hwsearch.graph.precision import BitAssignment
from hwsearch.graph.space import SearchSpace
from hwsearch.predictors.fitted import EntryResults
from hwsearch.predictors.policy import cross_fitted
from hwsearch.quantizers.calibrate import STATISTICS_IMAGES, estimate_statistics
from hwsearch.quantizers.evaluation import PathEvaluation, evaluate
from hwsearch.quantizers.supernet import Supernet
from hwsearch.tasks.task import Split, Task


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Material:
    """All that workers need, as arrays that Ray shares without copying.

    `arrays` is `Supernet.to_arrays`; `statistics_images` and `images` are float32 `[N, C, H, W]`, `labels` int64 `[N]`.
    """

    space: SearchSpace
    arrays: Mapping[str, NDArray[np.generic]]
    statistics_images: NDArray[np.float32]
    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, supernet: Supernet, task: Task, space: SearchSpace) -> "Material":
        """Statistics come from the training split, judgement from the search split."""
        judged = task.search_split
        return cls(
            space=space,
            arrays=supernet.to_arrays(),
            statistics_images=task.train.images[:STATISTICS_IMAGES].numpy(),
            images=judged.images.numpy(),
            labels=judged.labels.numpy(),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bench:
    """A worker's state."""

    supernet: Supernet
    statistics_images: torch.Tensor
    split: Split


def build(material: Material) -> Bench:
    """Copies what Ray shares, since its memory may not be written."""
    return Bench(
        supernet=Supernet.from_arrays(material.space, material.arrays),
        statistics_images=torch.tensor(material.statistics_images),
        split=Split(images=torch.tensor(material.images), labels=torch.tensor(material.labels)),
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in torch depend on the number of threads; with one they are the same in every worker."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def evaluate_assignment(bench: Bench, key: str) -> PathEvaluation:
    """The assignment written as `key`, at every exit, with its own batch norm statistics."""
    assignment = BitAssignment.from_key(key)
    exits = (*bench.supernet.network.exits, "")
    with one_thread():
        statistics = estimate_statistics(bench.supernet, assignment, bench.statistics_images, exits=exits)
        return evaluate(bench.supernet, assignment, bench.split, statistics, exits=exits)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PolicyQuestion:
    """How good is this policy, fitted, over these entries? `losses`, `margins` and `correct` are `[N, K]`, latencies `[K]`."""

    policy: PolicyShape
    losses: NDArray[np.float64]
    margins: NDArray[np.float64]
    correct: NDArray[np.bool_]
    relative_latencies: NDArray[np.float64]
    seed: int

    @classmethod
    def of(
        cls, menu: Menu, policy: PolicyShape, evaluations: Mapping[str, PathEvaluation], latencies_us: list[float], seed: int
    ) -> "PolicyQuestion":
        """From the evaluations of the menu's assignments, by key."""
        rows = [(evaluations[entry.assignment.key], entry.exit) for entry in menu.entries]
        latencies = np.asarray(latencies_us)
        return cls(
            policy=policy,
            losses=np.stack([result.losses[result.at(name)] for result, name in rows], axis=1),
            margins=np.stack([result.margins[result.at(name)] for result, name in rows], axis=1),
            correct=np.stack([result.correct[result.at(name)] for result, name in rows], axis=1),
            relative_latencies=latencies / latencies.max(),
            seed=seed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyAnswer:
    """Share of correct answers, and of images that end at each entry."""

    accuracy: float
    shares: tuple[float, ...]


def evaluate_policy(bench: Bench, question: PolicyQuestion) -> PolicyAnswer:
    """Fit on one half of the search split, judge on the other, and the reverse."""
    results = EntryResults(
        images=bench.split.images,
        losses=question.losses,
        margins=question.margins,
        relative_latencies=question.relative_latencies,
    )
    with one_thread():
        ends = cross_fitted(question.policy, results, input_quantizer=bench.supernet.input_quantizer, seed=question.seed)
    count, entries = question.correct.shape
    counts = np.bincount(ends, minlength=entries)
    return PolicyAnswer(
        accuracy=float(question.correct[np.arange(count), ends].mean()),
        shares=tuple(float(share) for share in counts / count),
    )
