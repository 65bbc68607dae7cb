"""Training of the float network is repeatable, leaves its task alone, and reaches what the demo needs."""

import pytest
import torch
from torch import nn

from hwsearch.tasks.catalogue import load_task
from hwsearch.tasks.float_training import accuracy, train_float
from hwsearch.tasks.task import Split, Task


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def small(task: Task) -> Task:
    few = task.train.subset(torch.arange(128))
    return Task(model=task.model, train=few, validation=task.validation, test=task.test, augmentation=task.augmentation)


def test_the_same_seed_trains_the_same_model() -> None:
    task = small(load_task("digits"))
    first, same, other = (train_float(task, epochs=1, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(weights(first), weights(same))
    assert not torch.equal(weights(first), weights(other))


def test_training_leaves_the_task_and_the_global_generator_as_they_were() -> None:
    task = small(load_task("digits"))
    before, state = weights(task.model).clone(), torch.get_rng_state()
    trained = train_float(task, epochs=1, seed=0)
    assert torch.equal(weights(task.model), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert not trained.training


def test_no_epochs_give_an_untrained_copy() -> None:
    task = small(load_task("digits"))
    copy = train_float(task, epochs=0, seed=0)
    assert copy is not task.model
    assert torch.equal(weights(copy), weights(task.model))


def test_progress_is_told_once_an_epoch() -> None:
    told: list[tuple[int, int, str]] = []
    train_float(small(load_task("digits")), epochs=2, seed=0, progress=lambda *step: told.append(step))
    assert [step[:2] for step in told] == [(1, 2), (2, 2)]
    assert all(step[2].startswith("loss ") for step in told)


def test_accuracy_is_the_share_of_largest_logits_that_are_right() -> None:
    class FirstPixels(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert not self.training
            return x[:, 0, 0]

    images = torch.eye(3).repeat(200, 1)[:, None, None].contiguous()  # [600, 1, 1, 3], more than one batch
    labels = torch.arange(600) % 3
    labels[:150] = (labels[:150] + 1) % 3
    model = FirstPixels().train()
    assert accuracy(model, Split(images=images, labels=labels)) == 0.75
    assert model.training, "the model's mode is left as it was"


@pytest.mark.slow
def test_the_digits_network_reaches_98_percent() -> None:
    """On validation and test together, 897 images none of which is trained on; the demo starts from such a network."""
    task = load_task("digits")
    images = torch.cat([task.validation.images, task.test.images])
    labels = torch.cat([task.validation.labels, task.test.labels])
    assert accuracy(train_float(task, epochs=30, seed=0), Split(images=images, labels=labels)) >= 0.98
