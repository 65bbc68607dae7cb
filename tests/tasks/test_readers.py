"""Published file formats are read as they are; damaged or missing ones are refused, and no pickle is run."""

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from hwsearch.errors import JobError
from hwsearch.tasks.catalogue import load_task
from hwsearch.tasks.readers import read_cifar_binary, read_idx, read_npz

RNG = np.random.default_rng(0)


def random_bytes(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder: Path, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    folder.mkdir()
    images, labels = random_bytes(count, 28, 28), (np.arange(count) % 10).astype(np.uint8)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(images[:10]))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(labels[:10]))
    return images, labels


def test_mnist_is_read_packed_and_unpacked(tmp_path: Path) -> None:
    images, labels = write_mnist(tmp_path / "mnist")
    mnist = load_task("mnist", data=tmp_path)
    assert (len(mnist.train), len(mnist.validation), len(mnist.test), mnist.classes) == (36, 4, 10, 10)
    np.testing.assert_allclose(mnist.train.images[:, 0].numpy(), images[:36] / 255, atol=1e-6)
    assert mnist.validation.labels.tolist() == labels[36:].tolist()


def test_the_data_folder_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path / "mnist")
    monkeypatch.setenv("HWSEARCH_DATA", str(tmp_path / "mnist"))
    assert len(load_task("mnist").test) == 10


def test_a_truncated_idx_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    path.write_bytes(idx(random_bytes(10))[:-1])
    with pytest.raises(JobError, match=r"must hold unsigned bytes as its header says, but .*labels does not"):
        read_idx(path)
    path.with_suffix(".gz").write_bytes(gzip.compress(idx(random_bytes(10)))[:-9])
    with pytest.raises(JobError, match="must be readable"):
        read_idx(path.with_suffix(".gz"))


def write_cifar(folder: Path) -> np.ndarray:
    """Six batches of 20 images; returns those of the first."""
    folder.mkdir(parents=True)
    first = random_bytes(20, 3, 32, 32)
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
        labels = np.arange(20, dtype=np.uint8) % 10
        (folder / f"{name}.bin").write_bytes(np.concatenate([labels[:, None], first.reshape(20, -1)], axis=1).tobytes())
    return first


def test_cifar10_is_read_in_its_binary_version(tmp_path: Path) -> None:
    first = write_cifar(tmp_path / "cifar10" / "cifar-10-batches-bin")
    cifar = load_task("cifar10", data=tmp_path)
    assert (len(cifar.train), len(cifar.validation), len(cifar.test)) == (90, 10, 20)
    np.testing.assert_allclose(cifar.train.images[:20].numpy(), first / 255, atol=1e-6)


def test_the_pickled_version_of_cifar10_is_not_opened(tmp_path: Path) -> None:
    folder, trace = tmp_path / "cifar-10-batches-py", tmp_path / "trace"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"cpathlib\nPath.touch\n(" + pickle.dumps(str(trace), protocol=0)[:-1] + b"tR.")
    with pytest.raises(JobError, match="cifar-10-batches-bin/"):
        load_task("cifar10", data=tmp_path)
    assert not trace.exists()


def test_a_cifar_batch_of_the_wrong_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(bytes(3000))
    with pytest.raises(JobError, match=r"records of 3073 bytes, but .* has 3000 bytes"):
        read_cifar_binary(path)


def test_npz_images_are_standardised_by_their_training_part(tmp_path: Path) -> None:
    images, part = RNG.normal(5, 3, (30, 49, 10)).astype(np.float32), np.arange(30) % 3
    np.savez(tmp_path / "kws.npz", mfcc=images, label=np.arange(30) % 12, split=part)
    kws = load_task("kws", data=tmp_path)
    assert [len(one) for one in (kws.train, kws.validation, kws.test)] == [10, 10, 10]
    assert kws.example_input.shape == (1, 1, 49, 10)
    torch.testing.assert_close(kws.train.images.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    train = images[part == 0]
    np.testing.assert_allclose(kws.test.images[:, 0].numpy(), (images[part == 2] - train.mean()) / train.std(), atol=1e-5)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((3, 4, 4)), "labels": np.zeros(3)}, "must hold arrays images, labels and split"),
        ({"images": np.zeros((3, 4, 4)), "labels": np.zeros(3), "split": np.array([0, 1, 1])}, "must have a label and a split"),
        ({"images": np.zeros((3, 4, 4)), "labels": np.zeros(2), "split": np.arange(3)}, "must have a label and a split"),
    ],
)
def test_an_incomplete_npz_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "vww.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(JobError, match=message):
        read_npz(tmp_path / "vww.npz")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("mnist", r"train-images-idx3-ubyte\[\.gz\]"),
        ("cifar10", "cifar-10-batches-bin/"),
        ("kws", r"kws\*\.npz"),
        ("vww", "v"),
    ],
)
def test_missing_data_is_said_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, wanted: str) -> None:
    monkeypatch.delenv("HWSEARCH_DATA", raising=False)
    with pytest.raises(JobError, match=f"Task {name} must find {wanted}.* but no data folder was given; .*HWSEARCH_DATA"):
        load_task(name)
    with pytest.raises(JobError, match=f"but {tmp_path} has none"):
        load_task(name, data=tmp_path)
