"""The tasks that are known by name."""

from pathlib import Path

import numpy as np
import torch

from hwsearch.tasks.networks import REFERENCE_NETWORKS
from hwsearch.tasks.task import Augmentation, Split, Task

_SPLIT_SEED = 7
_DIGITS_TRAIN, _DIGITS_VALIDATION = 900, 500


def _digits(data: Path | None, seed: int) -> Task:
    """scikit-learn's 1797 digits of 8x8 pixels, in 0..1; they travel with the library, so no data folder is read."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = torch.from_numpy(digits.images.astype(np.float32) / 16.0)[:, None]  # [N, 1, 8, 8]
    everything = Split(images=images, labels=torch.from_numpy(digits.target.astype(np.int64)))
    train, rest = train_test_split(
        np.arange(len(everything)), train_size=_DIGITS_TRAIN, stratify=digits.target, random_state=_SPLIT_SEED
    )
    validation, test = train_test_split(
        rest, train_size=_DIGITS_VALIDATION, stratify=digits.target[rest], random_state=_SPLIT_SEED
    )
    return Task(
        name="digits",
        model=REFERENCE_NETWORKS["digits_cnn"].build(seed),
        train=everything.subset(train),
        validation=everything.subset(validation),
        test=everything.subset(test),
        classes=10,
        augmentation=Augmentation(shift_pixels=1),
    )


def load_task(name: str, *, data: str | Path | None = None, seed: int = 0) -> Task:
    return _digits(None, seed)
