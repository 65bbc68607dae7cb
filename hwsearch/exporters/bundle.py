"""A bundle: the exported folder of one model, written whole or not at all, and read with every byte checked."""

import platform
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hwsearch.errors import BundleError
from hwsearch.exporters.c_package import PackageNotes, write_c_package
from hwsearch.exporters.manifest import (
    MANIFEST_FILE,
    Manifest,
    PriceRecord,
    check_files,
    file_record,
    read_manifest,
    write_manifest,
)
from hwsearch.exporters.onnx_model import build_onnx
from hwsearch.exporters.prediction import Prediction, predict
from hwsearch.exporters.program import Program
from hwsearch.hardware.profile import HardwareProfile, load_profile
from hwsearch.integers.execute import Execution, run_model
from hwsearch.integers.integer_model import Codes, Int32, IntegerModel
from hwsearch.integers.model_file import load_model, save_model
from hwsearch.pricing.cost_model import CostModel
from hwsearch.results.final_model import FinalModel
from hwsearch.version import VERSION

MODEL_FILE, ONNX_FILE, VECTORS_FILE, REPORT_FILE, C_FOLDER_NAME = "model.npz", "model.onnx", "vectors.npz", "report.html", "c"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors:
    """Inputs with the answers of the integer reference: `inputs` `[N, H, W, C]`, `labels` `[N]`."""

    inputs: Codes
    labels: Int32
    answers: Execution


@dataclass(frozen=True)
class Bundle:
    """An exported folder. What it holds is read when asked for; `check_files` says whether it is as it was exported."""

    path: Path

    @cached_property
    def manifest(self) -> Manifest:
        """Raises `BundleError` if it is missing or altered."""
        return read_manifest(self.path)

    def check_files(self) -> None:
        """Raises `BundleError` if a byte of any file is not the exported one."""
        check_files(self.manifest, self.path)

    def model(self) -> IntegerModel:
        return load_model(self.path / MODEL_FILE)

    def predict(self, images: NDArray[np.generic]) -> Prediction:
        """What the exported model answers for images, by the integer reference; see `predict`.

        >>> from hwsearch.exporters.bundle import load_bundle
        >>> load_bundle("nowhere")
        Traceback (most recent call last):
        hwsearch.errors.BundleError: nowhere must be a bundle with a manifest.json, but has none; give an exported folder.
        """
        return predict(self.model(), images, self.manifest.paths)

    def vectors(self) -> Vectors:
        """Raises `BundleError` where the arrays are not those of vectors."""
        path = self.path / VECTORS_FILE
        try:
            with np.load(path, allow_pickle=False) as arrays:
                answers = Execution(logits=arrays["logits"], entries=arrays["entries"])
                return Vectors(inputs=arrays["inputs"], labels=arrays["labels"], answers=answers)
        except (OSError, ValueError, KeyError) as error:
            raise BundleError(f"{path} must hold inputs, labels, logits and entries, but: {error}; export again.") from error


def load_bundle(folder: str | Path) -> Bundle:
    """An exported folder, with every byte checked against its manifest.

    Raises:
        BundleError: it is no bundle, or a file is missing or altered.
    """
    bundle = Bundle(Path(folder))
    bundle.check_files()
    return bundle


def export(final: FinalModel, folder: str | Path, *, report: str | None = None, profile: HardwareProfile | None = None) -> Bundle:
    """Write the bundle of a finished model; nothing is left behind if that fails. A bundle already there is replaced.

    `report`: text of `report.html`. `profile`: the one the model was priced with, by default the one of that name.

    Raises:
        BundleError: `folder` exists and is no bundle, or the model cannot be exported.
    """
    target = Path(folder)
    _require_replaceable(target)
    profile = profile or load_profile(final.profile)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        partial.chmod(0o755)  # mkdtemp's folders are for the owner alone
        _write(final, partial, report, profile)
        _replace(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return Bundle(target)


def _require_replaceable(target: Path) -> None:
    if not target.exists() or (target / MANIFEST_FILE).is_file():
        return
    if not target.is_dir() or any(target.iterdir()):
        raise BundleError(
            f"A bundle must go to a new folder or replace a bundle, but {target} holds other files; choose another."
        )


def _replace(partial: Path, target: Path) -> None:
    """Move a finished folder into place; what was there is gone only after the new one stands."""
    if not target.exists():
        partial.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    target.rename(old / "bundle")
    try:
        partial.rename(target)
    except OSError:
        (old / "bundle").rename(target)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _write(final: FinalModel, folder: Path, report: str | None, profile: HardwareProfile) -> None:
    answers = run_model(final.model, final.sample_codes)
    save_model(final.model, folder / MODEL_FILE)
    (folder / ONNX_FILE).write_bytes(build_onnx(final.model).SerializeToString(deterministic=True))
    np.savez_compressed(
        folder / VECTORS_FILE,
        inputs=final.sample_codes,
        labels=final.sample_labels,
        logits=answers.logits,
        entries=answers.entries,
    )
    (folder / C_FOLDER_NAME).mkdir()
    program = write_c_package(
        final.model, folder / C_FOLDER_NAME, _package_notes(final, profile), inputs=final.sample_codes, answers=answers
    )
    if report is not None:
        (folder / REPORT_FILE).write_text(report, encoding="utf-8", newline="\n")
    write_manifest(_manifest(final, folder, program, profile), folder)


def _package_notes(final: FinalModel, profile: HardwareProfile) -> PackageNotes:
    library = profile.header.library
    return PackageNotes(
        task=final.task,
        device=profile.name,
        isa=profile.header.device.isa,
        built_with=f"{library.compiler} {library.flags}",
        paths=final.paths,
        mean_limit_us=final.budget.mean_latency_us,
    )


def _manifest(final: FinalModel, folder: Path, program: Program, profile: HardwareProfile) -> Manifest:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return Manifest(
        schema=2,
        digest="",
        versions=_versions(),
        task=final.task,
        profile=final.profile,
        seed=final.seed,
        network=final.model.network.name,
        menu=final.model.menu,
        policy=final.policy,
        thresholds=final.model.thresholds,
        paths=final.paths,
        shares=final.shares,
        arena_bytes=program.arena_bytes,
        budget=final.budget,
        price=_price(final, profile),
        certificate=final.certificate,
        accuracy=_plain(final.accuracy),
        float_accuracy=_plain(final.float_accuracy),
        notes=dict(final.notes),
        files={name: file_record(folder / name) for name in names},
    )


def _price(final: FinalModel, profile: HardwareProfile) -> PriceRecord:
    """The costs, and what the numbers of the dearest path rest on."""
    model = final.model
    dearest = max(range(len(final.paths)), key=lambda index: final.paths[index].latency_us)
    prices = CostModel(model.network, profile).breakdown(
        model.menu.entries[dearest].assignment,
        stored_bits=model.menu.read_bits(model.network)[dearest],
        exits=model.menu.exits_passed(dearest),
    )
    return PriceRecord(
        mean=final.cost.mean,
        worst=final.cost.worst,
        provenance=CostModel.provenance(prices),
        uncertainty=CostModel.uncertainty(prices),
        validity=profile.validity.text,
    )


def _plain(shares: Mapping[str, Any]) -> dict[str, float]:
    """Shares as Python floats, whatever computed them."""
    return {split: float(share) for split, share in shares.items()}


def _versions() -> dict[str, str]:
    """What wrote the bundle."""
    return {
        "hwsearch": VERSION,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnx": onnx.__version__,
    }
