"""Training of a supernet: the sandwich rule with distillation from the widest path.

Every step runs the widest assignment, the narrowest and some random ones on the same images (slimmable networks'
sandwich rule, arXiv 1903.05134). The widest learns from the labels and the float network, all others from the widest.
Heads are fitted to the finished features at the end (`heads.refit_heads`), so exits cost the trunk nothing.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsearch.graph.capture import Captured
from hwsearch.graph.precision import BitAssignment
from hwsearch.graph.space import SearchSpace
from hwsearch.progress import Progress, silent
from hwsearch.quantizers.calibrate import untrained_supernet
from hwsearch.quantizers.heads import linear_heads, refit_heads
from hwsearch.quantizers.schemes import DEFAULT_SCHEME
from hwsearch.quantizers.supernet import Supernet
from hwsearch.tasks.float_training import train_float
from hwsearch.tasks.task import Task

_REFITTED_PATHS = 4
"""Random assignments that heads are fitted to after training, besides the widest and the narrowest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernetTraining:
    """How a supernet is trained; the defaults are what the shipped spaces were tried with.

    `random_paths`: mixed assignments per step besides the widest and the narrowest. `label_share`: weight of the labels'
    cross-entropy against the teacher's soft answers.
    """

    batch: int = 64
    learning_rate: float = 2e-3
    step_learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    random_paths: int = 1
    label_share: float = 0.5
    temperature: float = 2.0


def train_supernet(
    task: Task,
    space: SearchSpace,
    *,
    float_model: nn.Module | None = None,
    epochs: int,
    seed: int,
    progress: Progress = silent,
    training: SupernetTraining | None = None,
    scheme: str = DEFAULT_SCHEME,
    captured: Captured | None = None,
) -> Supernet:
    """A supernet trained from a float network (which is trained first if none is given), in evaluation mode.

    `scheme` is how weights are quantized (`schemes.SCHEMES`); `captured` spares a second export of a captured network.
    The result depends on the arguments alone; with 0 epochs it is the post-training quantized network.
    """
    chosen = training or SupernetTraining()
    teacher = float_model if float_model is not None else train_float(task, epochs=epochs, seed=seed)
    supernet = untrained_supernet(task, space, teacher, seed=seed, scheme=scheme, captured=captured)
    if epochs <= 0:
        return supernet
    optimizer = make_optimizer(supernet, chosen)
    steps = epochs * math.ceil(len(task.train) / chosen.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, steps))
    sampler = PathSampler(space, chosen.random_paths, seed)
    generator = torch.Generator().manual_seed(seed)
    supernet.train()
    for epoch in range(epochs):
        total = 0.0
        for images, labels in shuffled_batches(task, chosen.batch, generator):
            with torch.no_grad():
                batch = _Batch(images=images, labels=labels, answers=teacher(images))
            optimizer.zero_grad()
            total += _step(supernet, batch, sampler.draw(), chosen)
            optimizer.step()
            schedule.step()
        progress(epoch + 1, epochs, f"loss {total * chosen.batch / len(task.train):.3f}")
    refit_heads(supernet, task.train, sampler.draw(random_paths=_REFITTED_PATHS))
    return supernet.eval()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """Images with their labels and the float network's logits."""

    images: Tensor
    labels: Tensor
    answers: Tensor


def _step(supernet: Supernet, batch: _Batch, paths: list[BitAssignment], training: SupernetTraining) -> float:
    """Add up the gradients of all paths; returns their mean loss. The first path is the widest and teaches the rest."""
    exits = _trained_exits(supernet)
    total = 0.0
    teacher = batch.answers
    for index, assignment in enumerate(paths):
        logits = supernet(batch.images, assignment, exits=exits)
        loss = torch.stack([distillation_loss(logits[name], batch.labels, teacher, training) for name in exits]).sum()
        torch.autograd.backward(loss)
        total += float(loss.detach()) / len(paths)
        if index == 0:
            teacher = logits[""].detach()
    return total


def _trained_exits(supernet: Supernet) -> tuple[str, ...]:
    """The trunk's end, and exits whose heads `refit_heads` does not fit afterwards."""
    refitted = linear_heads(supernet)
    return tuple(name for name in (*supernet.network.exits, "") if not name or name not in refitted)


def distillation_loss(logits: Tensor, labels: Tensor, teacher: Tensor, training: SupernetTraining) -> Tensor:
    """Cross-entropy with the labels and Kullback-Leibler divergence from the teacher's softened answers."""
    heat = training.temperature
    soft = F.kl_div(
        F.log_softmax(logits / heat, dim=1), F.log_softmax(teacher / heat, dim=1), log_target=True, reduction="batchmean"
    )
    return training.label_share * F.cross_entropy(logits, labels) + (1 - training.label_share) * heat**2 * soft


def shuffled_batches(task: Task, batch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass over the training images in random order, augmented as the task says."""
    for indices in torch.split(torch.randperm(len(task.train), generator=generator), batch):
        if len(indices) > 1:  # batch norm needs two
            yield task.augmentation.apply(task.train.images[indices], generator), task.train.labels[indices]


def make_optimizer(supernet: Supernet, training: SupernetTraining) -> torch.optim.Optimizer:
    """Adam with decoupled decay on weights alone; steps, scales and offsets are not decayed."""
    own = supernet.parameter_groups()
    groups = [
        {"params": own.weights, "lr": training.learning_rate, "weight_decay": training.weight_decay},
        {"params": own.steps, "lr": training.step_learning_rate, "weight_decay": 0.0},
        {"params": own.rest, "lr": training.learning_rate, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, fused=True)


def warm_cosine(step: int, steps: int, warm_share: float = 0.05) -> float:
    """Share of the full learning rate: a linear rise, then half a cosine to 0."""
    warm = max(1, round(steps * warm_share))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))


class PathSampler:
    """The assignments of one training step: widest, narrowest, then random ones."""

    def __init__(self, space: SearchSpace, random_paths: int, seed: int) -> None:
        self.space = space
        self.random_paths = random_paths
        self.random = np.random.default_rng(seed)

    def draw(self, random_paths: int | None = None) -> list[BitAssignment]:
        """`random_paths` replaces the sampler's own number."""
        count = self.random_paths if random_paths is None else random_paths
        return [widest(self.space), narrowest(self.space), *(self._random() for _ in range(count))]

    def _random(self) -> BitAssignment:
        return self.space.assignment(
            {unit.name: unit.precisions[self.random.integers(len(unit.precisions))] for unit in self.space.units}
        )


def widest(space: SearchSpace) -> BitAssignment:
    """Every unit at its most bits, weights before activations."""
    return space.assignment({unit.name: max(unit.precisions) for unit in space.units})


def narrowest(space: SearchSpace) -> BitAssignment:
    """Every unit at its fewest bits, weights before activations."""
    return space.assignment({unit.name: min(unit.precisions) for unit in space.units})
