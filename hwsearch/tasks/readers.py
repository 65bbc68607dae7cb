"""Readers of the file formats that image data sets are published in. Nothing is downloaded and nothing is unpickled."""

import gzip
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hwsearch.errors import JobError
from hwsearch.tasks.task import Split

Bytes = NDArray[np.uint8]
_CIFAR_SHAPE = (3, 32, 32)


def read_idx(path: Path) -> Bytes:
    """An IDX file of unsigned bytes (MNIST's format), gzip-compressed or not: `[N, H, W]` images or `[N]` labels."""
    content = _content(path)
    dimensions = content[3] if len(content) >= 4 else 0
    sizes = struct.unpack_from(f">{dimensions}I", content, 4) if len(content) >= 4 + 4 * dimensions else ()
    start = 4 + 4 * dimensions
    if content[:3] != b"\0\0\x08" or not sizes or len(content) != start + math.prod(sizes):
        raise JobError(f"An IDX file must hold unsigned bytes as its header says, but {path} does not; fetch it again.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)


def _content(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, OSError) as error:
        raise JobError(f"A data file must be readable, but {path} is not ({error}); fetch it again.") from error


def read_cifar_binary(path: Path) -> tuple[Bytes, Bytes]:
    """One file of CIFAR-10's binary version: images `[N, 3, 32, 32]` and labels `[N]`."""
    content = np.frombuffer(_content(path), np.uint8)
    record = 1 + math.prod(_CIFAR_SHAPE)
    if not len(content) or len(content) % record:
        found = f"{path} has {len(content)} bytes"
        raise JobError(f"A CIFAR-10 batch must be records of {record} bytes, but {found}; fetch it again.")
    records = content.reshape(-1, record)
    return records[:, 1:].reshape(-1, *_CIFAR_SHAPE), records[:, 0]


def read_npz(path: Path) -> tuple[Split, Split, Split]:
    """Train, validation and test from an .npz file.

    It holds `images` (or `mfcc`) `[N, H, W]` or `[N, H, W, C]`, `labels` (or `label`) `[N]` and `split` `[N]`: 0 train,
    1 validation, 2 test. Images are shifted and scaled to mean 0 and deviation 1 over the training images.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images = np.asarray(arrays["images" if "images" in arrays else "mfcc"], np.float32)
            labels = np.asarray(arrays["labels" if "labels" in arrays else "label"], np.int64)
            part = np.asarray(arrays["split"])
    except (KeyError, ValueError, OSError, EOFError) as error:
        found = f"{path} does not ({error})"
        raise JobError(f"A data file must hold arrays images, labels and split, but {found}; add them.") from error
    if not len(images) == len(labels) == len(part) or any(not (part == code).any() for code in range(3)):
        raise JobError(f"Every image must have a label and a split (0, 1, 2, each used), but in {path} not all have; add them.")
    images = images[..., None] if images.ndim == 3 else images
    train = images[part == 0]
    scaled = np.ascontiguousarray(((images - train.mean()) / max(float(train.std()), 1e-9)).transpose(0, 3, 1, 2))  # [N, C, H, W]
    first, second, third = (as_split(scaled[part == code], labels[part == code]) for code in range(3))
    return first, second, third


def as_split(images: NDArray[Any], labels: NDArray[Any]) -> Split:
    """A split from arrays: bytes become 0..1, floats stay. `images` `[N, C, H, W]`, `labels` `[N]`."""
    scale = np.float32(1 / 255) if images.dtype == np.uint8 else np.float32(1)
    return Split(images=torch.from_numpy(images.astype(np.float32) * scale), labels=torch.from_numpy(labels.astype(np.int64)))
