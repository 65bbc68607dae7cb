"""Training of the float network that everything else starts from, and its accuracy."""

import copy
import math

import torch
from torch import nn

from hwsearch.progress import Progress, silent
from hwsearch.tasks.task import Split, Task

_BATCH = 64
_LEARNING_RATE = 4e-3


def train_float(task: Task, *, epochs: int, seed: int, progress: Progress = silent) -> nn.Module:
    """A trained copy of `task.model` in evaluation mode; `task.model` stays as it is.

    AdamW with a one-cycle learning rate on the training split, augmented as the task says. `seed` fixes the order of
    the images, their augmentation and dropout; the initial weights are those of `task.model`.

    >>> from hwsearch.tasks.catalogue import load_task
    >>> task = load_task("digits")
    >>> accuracy(train_float(task, epochs=1, seed=0), task.test) > accuracy(task.model, task.test)
    True
    """
    model = copy.deepcopy(task.model)
    if epochs <= 0:
        return model.eval()
    steps = epochs * math.ceil(len(task.train) / _BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # dropout draws from the global generator
        torch.manual_seed(seed)
        for epoch in range(epochs):
            loss = _train_epoch(model, task, optimizer, schedule, generator)
            progress(epoch + 1, epochs, f"loss {loss:.3f}")
    return model.eval()


def _train_epoch(
    model: nn.Module,
    task: Task,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    generator: torch.Generator,
) -> float:
    """Mean loss over one pass through the training images."""
    model.train()
    order = torch.randperm(len(task.train), generator=generator)
    total = 0.0
    for indices in torch.split(order, _BATCH):
        images = task.augmentation.apply(task.train.images[indices], generator)  # [B, C, H, W]
        loss = nn.functional.cross_entropy(model(images), task.train.labels[indices], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        total += float(loss.detach()) * len(indices)
    return total / len(task.train)


@torch.no_grad()
def accuracy(model: nn.Module, split: Split) -> float:
    """Share of images whose largest logit is their label's, 0..1; the model's mode is left as it was."""
    was_training = model.training
    model.eval()
    batches = zip(torch.split(split.images, 512), torch.split(split.labels, 512), strict=True)
    correct = [int((model(images).argmax(1) == labels).sum()) for images, labels in batches]
    model.train(was_training)
    return sum(correct) / len(split)
