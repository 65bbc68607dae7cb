"""What a search space file (`search_spaces/<network>.toml`) may hold."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hwsearch.errors import SpaceError
from hwsearch.files import first_fault_in_toml
from hwsearch.graph.menu import MAX_ENTRIES, PolicyKind

Bits = Annotated[int, Field(ge=1, le=8)]
Widths = Annotated[tuple[Bits, ...], Field(min_length=1)]
Reason = Annotated[str, Field(min_length=8)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RuleTable(_Table):
    """Widths that operations matching `match` (as in a shell: `*`, `?`, `[...]`) may take, and why."""

    match: str
    weight_bits: Widths | None = None
    activation_bits: Widths | None = None
    reason: Reason


class TieTable(_Table):
    """Operations matching `match` take one precision together, and why."""

    match: str
    on: Literal["precision"] = "precision"
    reason: Reason


class ExitTable(_Table):
    """An early exit that reads the output of the operation `after`."""

    after: str


class PoliciesTable(_Table):
    """Kinds of policy a search may choose from, and the ranges of what they vary."""

    kinds: Annotated[tuple[PolicyKind, ...], Field(min_length=1)] = (PolicyKind.STATIC,)
    max_entries: Annotated[int, Field(ge=1, le=MAX_ENTRIES)] = 2
    gate_grids: tuple[Annotated[int, Field(ge=1)], ...] = (4,)
    gate_hidden: tuple[Annotated[int, Field(ge=1)], ...] = (8,)
    exit: tuple[ExitTable, ...] = ()


class SpaceTable(_Table):
    """A whole file. `network` names the reference network that it is for, if it is for one."""

    schema_number: Literal[1] = Field(alias="schema")
    network: str | None = None
    weight_bits: Widths
    activation_bits: Widths
    rule: tuple[RuleTable, ...] = ()
    tie: tuple[TieTable, ...] = ()
    policies: PoliciesTable = PoliciesTable()


def read_space_file(path: Path) -> SpaceTable:
    """The file's content; `SpaceError` names the first field that is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
        record = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpaceError(f"A search space must be a TOML file, but {path} is not: {error}; correct that line.") from error
    try:
        return SpaceTable.model_validate(record)
    except ValidationError as error:
        raise SpaceError(first_fault_in_toml("A search space", path, text, SpaceTable, error)) from error
