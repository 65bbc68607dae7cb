"""Splits, augmentation and the tasks known by name."""

import numpy as np
import pytest
import torch
from torch import nn

from hwsearch.errors import JobError
from hwsearch.tasks.catalogue import load_task
from hwsearch.tasks.task import Augmentation, Split, Task


def split(count: int = 6, classes: int = 3, side: int = 4) -> Split:
    images = torch.arange(count * side * side, dtype=torch.float32).reshape(count, 1, side, side)
    return Split(images=images, labels=torch.arange(count) % classes)


def task(**changes: object) -> Task:
    parts = {"model": nn.Identity(), "train": split(), "validation": split(9), "test": split(4), **changes}
    return Task(**parts)  # type: ignore[arg-type]


def identities(part: Split) -> set[bytes]:
    return {image.numpy().tobytes() for image in part.images}


def test_classes_are_counted_from_the_labels() -> None:
    assert task().classes == 3
    assert task(classes=7).classes == 7


def test_validation_is_halved_without_overlap_and_always_alike() -> None:
    one = task()
    search, calibration = identities(one.search_split), identities(one.calibration_split)
    assert not search & calibration
    assert search | calibration == identities(one.validation)
    assert (len(one.search_split), len(one.calibration_split)) == (5, 4)
    assert torch.equal(one.calibration_split.images, task(name="other").calibration_split.images)


def test_the_example_input_is_one_image() -> None:
    assert task().example_input.shape == (1, 1, 4, 4)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 4, 4), torch.zeros(2, dtype=torch.int64), r"float32 tensor \[N, C, H, W\], but .*32 \[2, 4, 4\]"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), "but are torch.uint8"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(3, dtype=torch.int64), r"each of the 2 images .* but are torch.int64 \[3\]"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2), "must be int64"),
        (torch.zeros(0, 1, 4, 4), torch.zeros(0, dtype=torch.int64), "at least one"),
        (torch.zeros(2, 1, 4, 4), torch.tensor([0, -1]), "the smallest is -1"),
    ],
)
def test_a_malformed_split_is_refused(images: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(JobError, match=message):
        Split(images=images, labels=labels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": split(side=5)}, "images of one shape"),
        ({"validation": split(1, 1)}, "2 images or more, but has 1"),
        ({"classes": 2}, "Labels must be below 2, the number of classes, but reach 2"),
    ],
)
def test_a_task_that_contradicts_itself_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(JobError, match=message):
        task(**changes)


def test_a_shift_moves_the_image_and_repeats_its_border() -> None:
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    padded = np.pad(image.numpy()[0, 0], 1, mode="edge")
    possible = {padded[row : row + 3, column : column + 3].tobytes() for row in range(3) for column in range(3)}
    shifted = Augmentation(shift_pixels=1).apply(image.expand(200, 1, 3, 3), torch.Generator().manual_seed(0))
    assert {one.numpy().tobytes() for one in shifted} == possible


def test_a_flip_mirrors_about_half_of_the_images() -> None:
    images = split(400).images
    flipped = Augmentation(flip=True).apply(images, torch.Generator().manual_seed(0))
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    assert ((flipped == images).flatten(1).all(1) | mirrored).all()
    assert 150 < int(mirrored.sum()) < 250


def test_no_augmentation_changes_nothing() -> None:
    images = split().images
    assert torch.equal(Augmentation().apply(images, torch.Generator()), images)


# --- digits -----------------------------------------------------------------------------------------------------------


def test_digits_are_split_by_class_without_overlap() -> None:
    digits = load_task("digits")
    parts = (digits.train, digits.validation, digits.test)
    assert [len(part) for part in parts] == [900, 500, 397]
    for part in parts:
        shares = np.bincount(part.labels.numpy(), minlength=10) / len(part)
        assert (abs(shares - 0.1) < 0.01).all()
    assert sum(len(identities(part)) for part in parts) == len(set().union(*map(identities, parts)))
    assert float(digits.train.images.min()) == 0
    assert float(digits.train.images.max()) == 1


def test_a_seed_fixes_the_weights_and_nothing_else() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, same, other = load_task("digits"), load_task("digits"), load_task("digits", seed=1)
    assert torch.equal(torch.get_rng_state(), before), "the global generator must stay as it was"
    weights = [next(one.model.parameters()) for one in (first, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(first.test.images, other.test.images)


def test_an_unknown_task_is_told_the_known_ones() -> None:
    with pytest.raises(JobError, match=r"one of digits, mnist, cifar10, kws, vww, but found 'imagenet'"):
        load_task("imagenet")
