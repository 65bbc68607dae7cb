"""`manifest.json`: everything a bundle promises, and the bytes it promises it with.

The manifest guards itself too: `digest` is the SHA-256 of its own text with 64 zeros in the digest's place.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, ValidationError

from hwsearch.errors import BundleError, SpaceError
from hwsearch.files import first_fault
from hwsearch.graph.menu import Menu, PolicyShape
from hwsearch.hardware.cost import Budget, Cost, PolicyCost
from hwsearch.results.final_model import Certificate

MANIFEST_FILE = "manifest.json"
_NO_DIGEST = "0" * 64
_DIGEST = re.compile(rb'"digest": "([0-9a-f]{64})"')


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class FileRecord(_Section):
    bytes: int
    sha256: str


class PriceRecord(_Section):
    """Mean and worst cost, the share of the latency of the dearest path by where its numbers come from, and their uncertainty."""

    mean: Cost
    worst: Cost
    provenance: dict[str, float]
    uncertainty: float
    validity: str


def _menu(given: Menu | dict[str, Any]) -> Menu:
    return given if isinstance(given, Menu) else Menu.from_json(given)


def _policy(given: PolicyShape | dict[str, Any]) -> PolicyShape:
    return given if isinstance(given, PolicyShape) else PolicyShape.from_json(given)


class Manifest(_Section):
    """The content of `manifest.json`.

    `paths[k]` is the price of a whole inference that ends at entry k of `menu`, `shares[k]` the share of inputs it answers.
    """

    schema_number: Literal[2] = Field(alias="schema")
    digest: str
    versions: dict[str, str]
    task: str
    profile: str
    seed: int
    network: str
    menu: Annotated[Menu, PlainValidator(_menu), PlainSerializer(Menu.to_json)]
    policy: Annotated[PolicyShape, PlainValidator(_policy), PlainSerializer(PolicyShape.to_json)]
    thresholds: tuple[int, ...]
    paths: tuple[Cost, ...]
    shares: tuple[float, ...]
    arena_bytes: int
    budget: Budget
    price: PriceRecord
    certificate: Certificate
    accuracy: dict[str, float]
    float_accuracy: dict[str, float]
    notes: dict[str, str]
    files: dict[str, FileRecord]

    @property
    def cost(self) -> PolicyCost:
        return PolicyCost(mean=self.price.mean, worst=self.price.worst)


def file_record(path: Path) -> FileRecord:
    content = path.read_bytes()
    return FileRecord(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write `manifest.json`, filling in its digest."""
    blank = manifest.model_copy(update={"digest": _NO_DIGEST})
    text = json.dumps(blank.model_dump(mode="json", by_alias=True), indent=1, allow_nan=False) + "\n"
    content = text.encode()
    digest = hashlib.sha256(content).hexdigest()
    (folder / MANIFEST_FILE).write_bytes(content.replace(_NO_DIGEST.encode(), digest.encode(), 1))


def read_manifest(folder: Path) -> Manifest:
    """Read and check `manifest.json`; raises `BundleError` if it is missing, altered or of another schema."""
    path = folder / MANIFEST_FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{folder} must be a bundle with a {MANIFEST_FILE}, but has none; give an exported folder.") from error
    found = _DIGEST.search(content)
    if not found or _digest(content, found) != found[1].decode():
        raise BundleError(f"{path} must be as it was exported, but its text does not give its own digest; copy the bundle again.")
    try:
        return Manifest.model_validate(_known_schema(json.loads(content), path))
    except (SpaceError, KeyError, TypeError) as error:
        raise BundleError(f"{path} must be a manifest as export writes it, but: {error} Export the bundle again.") from error
    except ValidationError as error:
        raise BundleError(first_fault("A bundle's manifest", str(path), Manifest, error)) from error


def _digest(content: bytes, found: "re.Match[bytes]") -> str:
    return hashlib.sha256(content[: found.start(1)] + _NO_DIGEST.encode() + content[found.end(1) :]).hexdigest()


def _known_schema(record: dict[str, Any], path: Path) -> dict[str, Any]:
    """The record in today's schema."""
    if record.get("schema") not in (1, 2):
        raise BundleError(
            f"{path} must have schema 1 or 2, but has {record.get('schema')}; read it with the version that wrote it."
        )
    return _from_schema_1(record) if record["schema"] == 1 else record


def _from_schema_1(record: dict[str, Any]) -> dict[str, Any]:
    """Schema 1 had each entry with its price and share, the policy with the thresholds, and no copies."""
    entries, policy = record["entries"], dict(record["policy"])
    thresholds = policy.pop("thresholds")
    kept = {key: value for key, value in record.items() if key != "entries"}
    return kept | {
        "schema": 2,
        "menu": {"kind": policy["kind"], "entries": [{key: entry[key] for key in ("assignment", "exit")} for entry in entries]},
        "policy": policy,
        "thresholds": thresholds,
        "paths": [entry["path"] for entry in entries],
        "shares": [entry["share"] for entry in entries],
    }


def check_files(manifest: Manifest, folder: Path) -> None:
    """Raises `BundleError` at the first file that is missing or differs from the manifest; files it does not list are ignored."""
    for name, record in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"The bundle must hold {name}, but {path} is missing; copy the bundle again.")
        found = file_record(path)
        if found != record:
            size = (
                f"{found.bytes} bytes instead of {record.bytes}" if found.bytes != record.bytes else "other content of equal size"
            )
            raise BundleError(f"{path} must be as it was exported, but has {size}; copy the bundle again.")
