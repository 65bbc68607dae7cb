"""The tasks that are known by name, each with its data, its reference network and the changes that augment it."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hwsearch.errors import JobError
from hwsearch.tasks.networks import REFERENCE_NETWORKS
from hwsearch.tasks.readers import Bytes, as_split, read_cifar_binary, read_idx, read_npz
from hwsearch.tasks.task import Augmentation, Split, Task

Splits = tuple[Split, Split, Split]

_SPLIT_SEED = 7
_DIGITS_TRAIN, _DIGITS_VALIDATION = 900, 500
_AS_IT_IS = Augmentation()
_HELD_OUT = 5000
"""Training images of MNIST and CIFAR-10, their last ones, that serve as validation."""


def load_task(name: str, *, data: str | os.PathLike[str] | None = None, seed: int = 0) -> Task:
    """A known task with its reference network, untrained; `seed` fixes the initial weights and nothing else.

    `data` is the folder that holds the data set's published files; it defaults to the environment variable HWSEARCH_DATA.
    `digits` needs none.

    >>> task = load_task("digits")
    >>> len(task.train), len(task.validation), len(task.test), tuple(task.example_input.shape)
    (900, 500, 397, (1, 1, 8, 8))
    """
    if name not in TASKS:
        raise JobError(f"A task must be one of {', '.join(TASKS)}, but found {name!r}; name one of these or make a Task.")
    known = TASKS[name]
    given = data if data is not None else os.environ.get("HWSEARCH_DATA")
    train, validation, test = known.read(Path(given) if given else None)
    reference = REFERENCE_NETWORKS[known.network]
    return Task(
        name=name,
        model=reference.build(seed),
        train=train,
        validation=validation,
        test=test,
        classes=reference.classes,
        augmentation=known.augmentation,
    )


def _read_digits(_: Path | None) -> Splits:
    """scikit-learn's 1797 digits of 8x8 pixels in 0..1: they travel with the library. Split by class, with a fixed seed."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = torch.from_numpy(digits.images.astype(np.float32) / 16)[:, None]  # [N, 1, 8, 8]
    everything = Split(images=images, labels=torch.from_numpy(digits.target.astype(np.int64)))
    train, rest = train_test_split(
        np.arange(len(everything)), train_size=_DIGITS_TRAIN, stratify=digits.target, random_state=_SPLIT_SEED
    )
    validation, test = train_test_split(
        rest, train_size=_DIGITS_VALIDATION, stratify=digits.target[rest], random_state=_SPLIT_SEED
    )
    return everything.subset(train), everything.subset(validation), everything.subset(test)


def _read_mnist(data: Path | None) -> Splits:
    folders = [] if data is None else [data, data / "mnist", data / "MNIST" / "raw"]

    def array(stem: str) -> Bytes:
        files = [folder / f"{stem}{ending}" for folder in folders for ending in ("", ".gz")]
        return read_idx(_first(files, "mnist", f"{stem}[.gz]", data))

    images, labels = array("train-images-idx3-ubyte")[:, None], array("train-labels-idx1-ubyte")  # [N, 1, 28, 28]
    test = as_split(array("t10k-images-idx3-ubyte")[:, None], array("t10k-labels-idx1-ubyte"))
    return *_held_out(images, labels), test


def _read_cifar10(data: Path | None) -> Splits:
    """The binary version alone: the python version is pickles, and nothing here unpickles a user's file."""
    roots = [] if data is None else [data, data / "cifar10"]
    folder = _first([root / "cifar-10-batches-bin" for root in roots], "cifar10", "cifar-10-batches-bin/", data)
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    *batches, test = [read_cifar_binary(_first([folder / name], "cifar10", name, folder)) for name in names]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return *_held_out(images, labels), as_split(*test)


def _read_keywords(data: Path | None) -> Splits:
    return read_npz(_npz(data, "kws"))


def _read_wake_words(data: Path | None) -> Splits:
    return read_npz(_npz(data, "vww"))


def _npz(data: Path | None, name: str) -> Path:
    found = [] if data is None else sorted([*data.glob(f"{name}*.npz"), *data.glob(f"{name}*/*.npz")])
    return _first(found, name, f"{name}*.npz", data)


def _held_out(images: Bytes, labels: Bytes) -> tuple[Split, Split]:
    """Training and validation images: the last `_HELD_OUT`, or the last tenth of a smaller set, validate."""
    cut = len(labels) - min(_HELD_OUT, max(2, len(labels) // 10))
    return as_split(images[:cut], labels[:cut]), as_split(images[cut:], labels[cut:])


def _first(paths: list[Path], task: str, wanted: str, data: Path | None) -> Path:
    """The first path that exists."""
    for path in paths:
        if path.exists():
            return path
    found = "no data folder was given" if data is None else f"{data} has none"
    raise JobError(
        f"Task {task} must find {wanted} in the data folder, but {found}; put the published files there and "
        "name the folder with HWSEARCH_DATA or data=."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTask:
    """How a named task is made: the reader of its data folder, its network in `tasks.networks`, its augmentation."""

    read: Callable[[Path | None], Splits]
    network: str
    augmentation: Augmentation = _AS_IT_IS


TASKS: Mapping[str, KnownTask] = {
    "digits": KnownTask(read=_read_digits, network="digits_cnn", augmentation=Augmentation(shift_pixels=1)),
    "mnist": KnownTask(read=_read_mnist, network="lenet5", augmentation=Augmentation(shift_pixels=2)),
    "cifar10": KnownTask(read=_read_cifar10, network="resnet8", augmentation=Augmentation(shift_pixels=4, flip=True)),
    "kws": KnownTask(read=_read_keywords, network="dscnn"),
    "vww": KnownTask(read=_read_wake_words, network="mobilenetv1", augmentation=Augmentation(shift_pixels=4, flip=True)),
}
