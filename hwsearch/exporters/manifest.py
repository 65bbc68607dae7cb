"""`manifest.json`: everything a bundle promises, and the bytes it promises it with.

The manifest guards itself too: `digest` is the SHA-256 of its own text with 64 zeros in the digest's place.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hwsearch.errors import BundleError
from hwsearch.files import first_fault
from hwsearch.graph.menu import PolicyKind
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


class EntryRecord(_Section):
    """A menu entry: the exit it ends at, its precisions (`BitAssignment.key`), its price, and the share of inputs it answers."""

    exit: str
    assignment: str
    path: Cost
    share: float


class PolicyRecord(_Section):
    """How an entry is chosen; see `PolicyShape` for the fields."""

    kind: PolicyKind
    gate_grid: int
    gate_hidden: int
    trade_off: float
    escalation: tuple[float, ...]
    thresholds: tuple[int, ...]


class PriceRecord(_Section):
    """Mean and worst cost, the share of the latency of the dearest path by where its numbers come from, and their uncertainty."""

    mean: Cost
    worst: Cost
    provenance: dict[str, float]
    uncertainty: float
    validity: str


class Manifest(_Section):
    """The content of `manifest.json`."""

    schema_number: Literal[1] = Field(alias="schema")
    digest: str
    versions: dict[str, str]
    task: str
    profile: str
    seed: int
    network: str
    policy: PolicyRecord
    entries: tuple[EntryRecord, ...]
    arena_bytes: int
    budget: Budget
    price: PriceRecord
    certificate: Certificate
    accuracy: dict[str, float]
    float_accuracy: dict[str, float]
    notes: dict[str, str]
    files: dict[str, FileRecord]

    @property
    def paths(self) -> tuple[Cost, ...]:
        return tuple(entry.path for entry in self.entries)

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
    except ValidationError as error:
        raise BundleError(first_fault("A bundle's manifest", str(path), Manifest, error)) from error


def _digest(content: bytes, found: "re.Match[bytes]") -> str:
    return hashlib.sha256(content[: found.start(1)] + _NO_DIGEST.encode() + content[found.end(1) :]).hexdigest()


def _known_schema(record: dict[str, Any], path: Path) -> dict[str, Any]:
    if record.get("schema") != 1:
        raise BundleError(f"{path} must have schema 1, but has {record.get('schema')}; read it with the version that wrote it.")
    return record


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
