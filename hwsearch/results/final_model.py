"""A finished model with everything its bundle promises: integers, prices, certificate, accuracies."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path

import numpy as np

from hwsearch.graph.menu import PolicyShape
from hwsearch.hardware.cost import Budget, Cost, PolicyCost
from hwsearch.integers.integer_model import Codes, Int32, IntegerModel
from hwsearch.integers.model_file import load_model, save_model

_ARRAYS = ("model", "sample_codes", "sample_labels")
_KEYS = {"policy": "shape"}
"""Keys in the file that differ from their fields: released files call a policy's record `shape`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Upper bound on the mean latency of one inference, from data used for nothing else.

    With probability `confidence` over the draw of `n_samples` inputs, the true mean is at most `bound_us`.
    `limit_us` is the budget it was held against; None if the mean had no limit.
    """

    limit_us: float | None
    bound_us: float
    observed_mean_us: float
    confidence: float
    n_samples: int
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalModel:
    """The finalizer's result and the exporter's input.

    `paths[k]` is the price of a whole inference ending at menu entry k, `shares[k]` the share of certification inputs that
    end there. `accuracy` and `float_accuracy` map a split's name to a share in 0..1, the former computed by the
    integer reference.
    `sample_codes` (uint8 `[N, height, width, channels]`, N >= 200 where the task has as many) and `sample_labels` become the
    bundle's test vectors. `lower_bound` reports what the integer programme says is the best reachable score.
    """

    model: IntegerModel
    policy: PolicyShape
    task: str
    profile: str
    budget: Budget
    paths: tuple[Cost, ...]
    shares: tuple[float, ...]
    cost: PolicyCost
    accuracy: Mapping[str, float]
    float_accuracy: Mapping[str, float]
    certificate: Certificate
    seed: int
    sample_codes: Codes
    sample_labels: Int32
    notes: Mapping[str, str]


def save_final(final: FinalModel, path: Path) -> None:
    """Write a final model as one npz file: the integer model's own file, the sample inputs, and the rest as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        model_file = Path(folder) / "model.npz"
        save_model(final.model, model_file)
        model_bytes = np.frombuffer(model_file.read_bytes(), np.uint8)
    names = [field.name for field in fields(final) if field.name not in _ARRAYS]
    record = {_KEYS.get(name, name): _plain(getattr(final, name)) for name in names}
    with path.open("wb") as file:
        np.savez(
            file,
            model=model_bytes,
            sample_codes=final.sample_codes,
            sample_labels=final.sample_labels,
            record=np.frombuffer(json.dumps(record).encode(), np.uint8),
        )


def _plain(value: object) -> object:
    """Records and mappings as dictionaries, sequences as lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def load_final(path: Path) -> FinalModel:
    """Read what `save_final` wrote."""
    with np.load(path, allow_pickle=False) as arrays, tempfile.TemporaryDirectory() as folder:
        model_file = Path(folder) / "model.npz"
        model_file.write_bytes(arrays["model"].tobytes())
        record = json.loads(arrays["record"].tobytes())
        policy = PolicyShape.from_json(record.pop(_KEYS["policy"]))
        return FinalModel(
            **{
                **record,
                "model": load_model(model_file),
                "policy": policy,
                "budget": Budget(**record["budget"]),
                "paths": tuple(Cost(**path_cost) for path_cost in record["paths"]),
                "shares": tuple(record["shares"]),
                "cost": PolicyCost(mean=Cost(**record["cost"]["mean"]), worst=Cost(**record["cost"]["worst"])),
                "certificate": Certificate(**record["certificate"]),
                "sample_codes": arrays["sample_codes"],
                "sample_labels": arrays["sample_labels"],
            }
        )
