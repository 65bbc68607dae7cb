"""What is written about a device by hand (`profile.toml`), and about each measuring run by machine (`runs.jsonl`)."""

import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hwsearch.emulation.isa import Isa
from hwsearch.errors import ProfileError
from hwsearch.files import first_fault, first_fault_in_toml
from hwsearch.graph.menu import PolicyKind

HEADER_FILE, RUNS_FILE = "profile.toml", "runs.jsonl"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Device(_Section):
    name: str
    isa: Isa
    core: str
    clock_hz: int = Field(gt=0)
    flash_bytes: int = Field(gt=0)
    ram_bytes: int = Field(gt=0)
    supply: str


class Counter(_Section):
    """What a table's counts count; with the clock it becomes time."""

    unit: Literal["cycles", "ns"]


class Power(_Section):
    active_mw: float = Field(gt=0)
    source: str


class Library(_Section):
    """The kernels that were measured.

    `runtime_bytes` is what every model occupies besides kernels and tables, where no run recorded it; `dispatch_count` what
    calling one operation takes besides the operation itself, in the unit of `[counter]`. A `published` library is known from
    publications alone: it is neither built nor timed here.
    """

    kernel_library: str
    version: str
    compiler: str
    flags: str
    runtime_bytes: int = Field(default=0, ge=0)
    dispatch_count: float = Field(default=0.0, ge=0)
    published: bool = False
    grid: Literal["full", "thin"] = "full"

    @property
    def compiler_name(self) -> str:
        """The word that `compiler` begins with, since a table is only valid for one."""
        return self.compiler.split()[0]


class Validity(_Section):
    """How far the table's numbers may be from the device, as a share, and why."""

    text: str
    relative_error: float = Field(ge=0)


class Memory(_Section):
    """How instruction and constant fetches wait for flash; the default is none.

    `flash_wait_states` is what a line that no cache holds waits; a cache of 0 ways is fully associative.
    """

    flash_wait_states: int = Field(default=0, ge=0)
    instruction_cache_bytes: int = Field(default=0, ge=0)
    instruction_line_bytes: int = Field(default=32, gt=0)
    instruction_ways: int = Field(default=0, ge=0)
    data_cache_bytes: int = Field(default=0, ge=0)
    data_line_bytes: int = Field(default=8, gt=0)
    data_ways: int = Field(default=0, ge=0)


class ProfileHeader(_Section):
    """The content of `profile.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_number: Literal[1] = Field(alias="schema")
    device: Device
    counter: Counter
    power: Power
    library: Library
    validity: Validity
    memory: Memory = Memory()

    def latency_us(self, count: float) -> float:
        """Time of a count in the unit of `[counter]`."""
        return count / 1e3 if self.counter.unit == "ns" else count / self.device.clock_hz * 1e6

    def energy_uj(self, latency_us: float) -> float:
        """Energy of that time at the device's active power."""
        return latency_us * self.power.active_mw / 1e3


class Provenance(StrEnum):
    """Where a number comes from."""

    MEASURED = "measured"
    """A clock on the device itself."""
    EMULATED = "emulated"
    """A documented cycle model on an instruction-set emulator."""
    CALIBRATED = "calibrated"
    """Derived from cited published numbers of whole networks: an emulation or a sum of loops fitted to them."""
    PUBLISHED = "published"
    DATASHEET = "datasheet"
    MODELLED = "modelled"
    """The code that ships, emulated, under a model of the core that was not held against one: right in kind, not in number."""

    @property
    def needs_run(self) -> bool:
        """Whether such a row must name a run that `runs.jsonl` records."""
        return self in (Provenance.MEASURED, Provenance.EMULATED, Provenance.CALIBRATED, Provenance.MODELLED)


class RunRecord(_Section):
    """One measuring run: everything needed to repeat it. Hashes are sha256 in hexadecimal.

    `rows` were measured, `kept` were still valid from earlier runs; `kernels` is the built code of each measured kernel.
    `builtins` are bytes of the compiler's own functions that a measured kernel needs, by kernel and function; `runtime` what a
    package of each policy has besides kernels and data, by part. What all of its rows share stands here and not in each of them:
    `provenance`, `repeats` and `code_bytes`, the machine code of each kernel by symbol (none where it is not known).
    """

    run_id: str
    utc_date: str
    command: str
    git_commit: str
    source_sha256: str
    binary_sha256: str
    compiler: str
    flags: str
    machine: str
    rows: int = Field(ge=0)
    kept: int = Field(default=0, ge=0)
    kernels: dict[str, str] = Field(default_factory=dict)
    builtins: dict[str, dict[str, int]] = Field(default_factory=dict)
    runtime: dict[PolicyKind, dict[str, int]] = Field(default_factory=dict)
    provenance: Provenance | None = None
    repeats: int = Field(default=1, ge=1)
    code_bytes: dict[str, int] = Field(default_factory=dict)
    seconds: float = Field(ge=0)


def read_header(folder: Path) -> ProfileHeader:
    """Read `profile.toml`, which may exist before anything was measured."""
    path = folder / HEADER_FILE
    text = path.read_text(encoding="utf-8")
    try:
        record = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{path} must be TOML, but {str(error)[:1].lower()}{str(error)[1:]}; correct that line.") from error
    try:
        return ProfileHeader.model_validate(record)
    except ValidationError as error:
        raise ProfileError(first_fault_in_toml("A profile", path, text, ProfileHeader, error)) from error


def read_runs(folder: Path) -> tuple[RunRecord, ...]:
    """The measuring runs in `runs.jsonl`, oldest first; none if the table was written by hand."""
    path = folder / RUNS_FILE
    if not path.exists():
        return ()
    runs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            runs.append(RunRecord.model_validate_json(line))
        except ValidationError as error:
            raise ProfileError(first_fault("A measuring run", f"{path}:{number}", RunRecord, error)) from error
    return tuple(runs)
