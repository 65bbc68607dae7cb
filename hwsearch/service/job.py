"""A job: everything needed to repeat a run, as one TOML file with a schema."""

import tomllib
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hwsearch.errors import BudgetError, JobError
from hwsearch.files import first_fault_in_toml
from hwsearch.hardware.cost import DEFAULT_OBJECTIVES, Budget, check_objectives


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BudgetSection(_Section):
    """Quantities with units, as `Budget.parse` takes them; what is left out has no limit."""

    latency: str | None = None
    energy: str | None = None
    flash: str | None = None
    ram: str | None = None
    mean_latency: str | None = None
    mean_energy: str | None = None

    def parse(self) -> Budget:
        return Budget.parse(**self.model_dump())


class TrainingSection(_Section):
    float_epochs: int = Field(default=30, ge=1)
    supernet_epochs: int = Field(default=30, ge=1)
    final_epochs: int = Field(default=15, ge=0)


class SearchSection(_Section):
    trials: int = Field(default=100, ge=1)
    workers: int = Field(default=2, ge=1)
    batch: int = Field(default=8, ge=1)
    """Trials asked before any is told; part of what determines the result, unlike `workers`."""
    objectives: tuple[str, ...] = DEFAULT_OBJECTIVES
    """What the front is in: accuracy and one or more of the costs that a device's table gives."""


class ChoiceSection(_Section):
    """Which front point is finalized: the most accurate within the budget, or the fastest within `accuracy_drop` of it."""

    prefer: Literal["most_accurate", "fastest"] = "fastest"
    accuracy_drop: float = Field(default=0.005, ge=0, le=1)
    delta: float = Field(default=0.05, gt=0, lt=1)
    """Probability with which the certified mean may be wrong."""


class Job(_Section):
    """One run of the main job. `profile` and `space` are names or paths; `data` is the folder of a task's data."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    task: str
    space: str
    profile: str
    data: str | None = None
    seed: int = Field(default=0, ge=0)
    budget: BudgetSection = BudgetSection()
    training: TrainingSection = TrainingSection()
    search: SearchSection = SearchSection()
    choice: ChoiceSection = ChoiceSection()

    def to_toml(self) -> str:
        record = self.model_dump(by_alias=True, exclude_none=True)
        return tomli_w.dumps({key: value for key, value in record.items() if value != {}})

    def result_fields(self) -> dict[str, Any]:
        """What determines the result: everything but the number of workers."""
        return self.model_dump(exclude={"search": {"workers"}})


def read_job(path: Path) -> Job:
    """Read and check a job file; every fault names the file, the line and what to write instead."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise JobError(
            f"A job must be a readable TOML file, but {path} is not ({error.strerror}); give the path of one."
        ) from None
    try:
        record = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise JobError(f"A job must be valid TOML, but {path} is not: {error}; mend that line.") from None
    try:
        job = Job.model_validate(record)
    except ValidationError as error:
        raise JobError(first_fault_in_toml("A job", path, text, Job, error)) from None
    try:
        job.budget.parse()
        check_objectives(job.search.objectives)
    except (BudgetError, JobError) as error:
        raise type(error)(f"{path}: {error}") from None
    return job


def demo_job(seed: int, workers: int) -> Job:
    """The main job on scikit-learn's digits, for a Cortex-M4 board, in a few minutes on two cores."""
    return Job(
        task="digits",
        space="digits_cnn",
        profile="nucleo_l4r5zi",
        seed=seed,
        budget=BudgetSection(latency="7ms", mean_latency="4.5ms", flash="96KB", ram="16KB"),
        search=SearchSection(trials=96, workers=workers),
    )
