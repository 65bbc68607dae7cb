"""A task: an untrained or trained classifier, its labelled images, and how they are split."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from hwsearch.errors import JobError

_HALVING_SEED = 20
"""Fixed for ever: a certificate must be checkable by whoever has the task, without knowing a run's seed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Labelled images: `images` float32 `[N, C, H, W]`, `labels` int64 `[N]`, counted from 0."""

    images: torch.Tensor
    labels: torch.Tensor

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype is not torch.float32 or images.ndim != 4:
            raise JobError(
                f"Images must be a float32 tensor [N, C, H, W], but are {images.dtype} {list(images.shape)}; "
                "convert them with images.float() and add the channel axis."
            )
        if labels.dtype is not torch.int64 or labels.shape != images.shape[:1] or not len(labels):
            raise JobError(
                f"Labels must be int64, one for each of the {len(images)} images and at least one, "
                f"but are {labels.dtype} {list(labels.shape)}; pass one class number per image."
            )
        if int(labels.min()) < 0:
            raise JobError(f"Labels must count classes from 0, but the smallest is {int(labels.min())}; renumber the classes.")

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: np.ndarray | torch.Tensor) -> "Split":
        """The images at `indices` (integers `[M]`), in that order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return Split(images=self.images[chosen], labels=self.labels[chosen])


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Random changes that keep a training image's label: shifts by up to `shift_pixels` each way, left-right flips."""

    shift_pixels: int = 0
    flip: bool = False

    def apply(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Changed copies of `images` [N, C, H, W]; what a shift uncovers is filled with the image's border."""
        if self.flip:
            mirrored = torch.rand(len(images), generator=generator) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        if not self.shift_pixels:
            return images
        reach, (count, _, height, width) = self.shift_pixels, images.shape
        padded = nn.functional.pad(images, (reach,) * 4, mode="replicate")  # [N, C, H + 2r, W + 2r]
        offsets = torch.randint(0, 2 * reach + 1, (2, count, 1), generator=generator)
        rows = (offsets[0] + torch.arange(height))[:, None, :, None]
        columns = (offsets[1] + torch.arange(width))[:, None, None, :]
        channels = torch.arange(images.shape[1])[None, :, None, None]
        return padded[torch.arange(count)[:, None, None, None], channels, rows, columns]  # [N, C, H, W]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """What to learn. `classes` is counted from the labels if it is not given.

    `validation` is halved by a fixed random permutation, so that given one half the other is an unbiased sample:
    `search_split` serves search and policy fitting, `calibration_split` the certificate and nothing else.
    """

    model: nn.Module
    train: Split
    validation: Split
    test: Split
    name: str = "task"
    classes: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        shapes = {name: tuple(split.images.shape[1:]) for name, split in splits.items()}
        if len(set(shapes.values())) != 1:
            raise JobError(f"All splits of a task must hold images of one shape, but have {shapes}; resize them.")
        if len(self.validation) < 2:
            raise JobError(f"The validation split must have 2 images or more, but has {len(self.validation)}; add images.")
        found = 1 + max(int(split.labels.max()) for split in splits.values())
        if self.classes and found > self.classes:
            raise JobError(f"Labels must be below {self.classes}, the number of classes, but reach {found - 1}; correct one.")
        object.__setattr__(self, "classes", self.classes or found)

    @property
    def example_input(self) -> torch.Tensor:
        """One training image, [1, C, H, W]."""
        return self.train.images[:1]

    @property
    def search_split(self) -> Split:
        """Half of the validation images: for search and policy fitting."""
        return self._half(0)

    @property
    def calibration_split(self) -> Split:
        """The other half: for the certificate alone, never trained or searched on."""
        return self._half(1)

    def _half(self, which: int) -> Split:
        count = len(self.validation)
        order = np.random.default_rng(_HALVING_SEED).permutation(count)
        return self.validation.subset(np.sort(np.array_split(order, 2)[which]))

    def with_model(self, model: nn.Module) -> "Task":
        """The same data with another (for example a trained) model."""
        return replace(self, model=model)
