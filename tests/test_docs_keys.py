"""The pages that describe a file key by key describe the file that is read: its keys, defaults, ranges and choices."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import annotated_types
import pytest
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from hwsearch.exporters.manifest import Manifest
from hwsearch.graph.space_file import SpaceTable
from hwsearch.hardware.cost import OBJECTIVES
from hwsearch.hardware.header import ProfileHeader
from hwsearch.service.job import Job
from hwsearch.tasks.catalogue import TASKS

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key of a schema, by its path without positions in lists or names in maps."""

    path: str
    annotation: Any
    metadata: tuple[Any, ...]
    default: object
    is_required: bool


def record_in(annotation: Any) -> type | None:
    """The model or record that a type is made of, if it is."""
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_dataclass(annotation)):
        return annotation
    return next(filter(None, map(record_in, get_args(annotation))), None)


def keys_of(record: type, prefix: str = "") -> Iterator[Key]:
    """Every key of a schema that holds no others."""
    if issubclass(record, BaseModel):
        fields = {info.alias or name: info for name, info in record.model_fields.items()}
    else:
        fields = {name: FieldInfo.from_annotation(hint) for name, hint in get_type_hints(record).items()}
    for name, info in fields.items():
        inner = record_in(info.annotation)
        if inner is not None:
            yield from keys_of(inner, f"{prefix}{name}.")
        else:
            required = info.is_required()
            yield Key(
                path=prefix + name,
                annotation=info.annotation,
                metadata=tuple(info.metadata),
                default=None if required else TypeAdapter(Any).dump_python(info.default, mode="json"),
                is_required=required,
            )


def parts(annotation: Any, metadata: tuple[Any, ...] = ()) -> Iterator[Any]:
    """All types and constraints within a type."""
    for item in (annotation, *metadata):
        yield item
        yield from parts(None, tuple(item.metadata)) if isinstance(item, FieldInfo) else ()
    yield from chain.from_iterable(parts(inner) for inner in get_args(annotation) if get_origin(annotation) is not Literal)
    yield from chain.from_iterable(parts(None, tuple(one.metadata)) for one in get_args(annotation) if isinstance(one, FieldInfo))


SIGNS = {
    annotated_types.Ge: ("≥", "ge"),
    annotated_types.Gt: (">", "gt"),
    annotated_types.Le: ("≤", "le"),
    annotated_types.Lt: ("<", "lt"),
}


def bounds(key: Key) -> set[str]:
    """Limits on numbers, as the pages write them."""
    found = [*parts(key.annotation, key.metadata)]
    shown = {
        annotated_types.Ge: ("≥", "ge"),
        annotated_types.Gt: (">", "gt"),
        annotated_types.Le: ("≤", "le"),
        annotated_types.Lt: ("<", "lt"),
    }
    return {f"{sign} {getattr(one, field):g}" for kind, (sign, field) in shown.items() for one in found if isinstance(one, kind)}


def choices(key: Key) -> set[str]:
    """Words that are allowed where not every one is."""
    found = [*parts(key.annotation, key.metadata)]
    words = chain.from_iterable(get_args(one) for one in found if get_origin(one) is Literal)
    members = chain.from_iterable(one for one in found if isinstance(one, type) and issubclass(one, Enum))
    return {str(member.value) for member in members} | {word for word in words if isinstance(word, str)}


def rows_of(page: str) -> dict[str, dict[str, str]]:
    """Rows of the page's tables of keys: key -> cell by column."""
    rows: dict[str, dict[str, str]] = {}
    columns: list[str] = []
    for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if cells[:1] == ["key"]:
            columns = cells
        elif not cells:
            columns = []
        elif columns and not cells[0].startswith("---"):
            key = cells[0].strip("`")
            assert key not in rows and len(cells) == len(columns), line
            rows[key] = dict(zip(columns, cells, strict=True))
    return rows


SCHEMAS = {"job.md": Job, "search_space.md": SpaceTable, "profile.md": ProfileHeader, "bundle.md": Manifest}


@pytest.mark.parametrize("page", SCHEMAS)
def test_a_page_describes_every_key_of_its_schema_and_no_other(page: str) -> None:
    rows, keys = rows_of(page), [key.path for key in keys_of(SCHEMAS[page])]
    assert len(keys) > 10 and sorted(rows) == sorted(keys)
    assert all(row["type"] and row["meaning"] for row in rows.values())


@pytest.mark.parametrize("page", [page for page in SCHEMAS if page != "bundle.md"])
def test_a_page_states_the_defaults_and_ranges_of_its_schema(page: str) -> None:
    rows = rows_of(page)
    for key in keys_of(SCHEMAS[page]):
        row = rows[key.path]
        if key.is_required or key.default is None:
            assert row["default"] == ("required" if key.is_required else "none"), key.path
        else:
            assert tomllib.loads(f"value = {row['default'].strip('`')}")["value"] == key.default, key.path
        assert {*re.findall(r"[≥>≤<] [\d.]+", row["range"])} == bounds(key), key.path
        assert {*re.findall(r"`([^`]+)`", row["range"])} == choices(key), key.path


def test_the_jobs_page_names_every_task_and_every_objective() -> None:
    rows = rows_of("job.md")
    named = {key: {*re.findall(r"`(\w+)`", rows[key]["meaning"])} for key in ("task", "search.objectives")}
    assert named == {"task": {*TASKS}, "search.objectives": {*OBJECTIVES} | {"mean"}}
