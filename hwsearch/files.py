"""Files: written whole or not at all, found by name, and the first fault of a schema in words.

Every file that a later step relies on goes through `replacing`, so that all have one durability: a reader sees the old content or
the new, also after a power cut, and a failed write leaves nothing behind.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError  # takes longer to load than --help takes to answer

PACKAGE = Path(__file__).resolve().parent


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to be written; what it holds at the end takes the place of `path` at once.

    Its suffix is that of `path`. If writing fails, `path` is as it was and the temporary file is gone.
    """
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all; text as UTF-8 with the line ends it has."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def data_folders(kind: str, own: Iterable[Path] = ()) -> tuple[Path, ...]:
    """Folders that hold a kind of data, such as `search_spaces`: given, here, of the package, of the sources."""
    return (*own, Path(kind), PACKAGE / "_data" / kind, PACKAGE.parent / kind)


def find_named(folders: Iterable[Path], pattern: str) -> dict[str, Path]:
    """Files below `folders` that match `pattern`, sorted by name; of several with one name that of the first folder.

    The name is the first part of the path below its folder, without the ending `.toml`.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for path in folder.glob(pattern):
            found.setdefault(path.relative_to(folder).parts[0].removesuffix(".toml"), path)
    return dict(sorted(found.items()))


def first_fault(what: str, where: str, model: "type[BaseModel]", error: "ValidationError") -> str:
    """One sentence about the first thing in which a record breaks its schema.

    `what` is the kind of record ("A job"), `where` its file, and line if known.
    """
    fault = error.errors()[0]
    key = ".".join(map(str, fault["loc"]))
    if fault["type"] == "extra_forbidden":
        known = ", ".join(_known_keys(model, fault["loc"][:-1]))
        return f"{what} may only have known keys, but {where} has {key!r}; known here are {known}."
    if fault["type"] == "missing":
        return f"{what} must have the key {key!r}, but {where} lacks it; add it."
    if not key:
        return f"{what} must be right ({fault['msg']}), but {where} is not; correct it."
    return f"{what}'s {key!r} must be right ({fault['msg']}), but {where} has {fault['input']!r}; correct it."


def first_fault_in_toml(what: str, path: Path, text: str, model: "type[BaseModel]", error: "ValidationError") -> str:
    """As `first_fault`, of a TOML file with this text, whose line is named."""
    line = _line_of(text, error.errors()[0]["loc"])
    return first_fault(what, f"{path}, line {line}" if line else str(path), model, error)


def _known_keys(model: "type[BaseModel]", location: Sequence[int | str]) -> list[str]:
    for part in location:
        if isinstance(part, int):
            continue
        field = next((field for name, field in model.model_fields.items() if part in (name, field.alias)), None)
        inner = _model_in(field.annotation) if field else None
        if inner is None:
            break
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> "type[BaseModel] | None":
    """The schema that an annotation is, or that its elements have."""
    if hasattr(annotation, "model_fields"):
        found: type[BaseModel] = annotation
        return found
    return next((inner for inner in map(_model_in, get_args(annotation)) if inner is not None), None)


def _line_of(text: str, location: Sequence[int | str]) -> int | None:
    """Line (from 1) of the innermost part of a location that stands in a TOML text."""
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    table, start, found = "", 0, None
    for part in location:
        if isinstance(part, int):
            at = [number for number, line in enumerate(lines) if line == f"[[{table}]]"][part : part + 1]
        else:
            table = f"{table}.{part}".removeprefix(".")
            at = [number for number, line in enumerate(lines) if line == f"[{table}]"] or _key_lines(lines, start, part)
        if at:
            start, found = at[0] + 1, at[0] + 1
    return found


def _key_lines(lines: Sequence[str], start: int, key: str) -> list[int]:
    """Where a key stands from a line on, before the next table."""
    end = next((number for number in range(start, len(lines)) if lines[number].startswith("[")), len(lines))
    return [number for number in range(start, end) if lines[number].split("=")[0].strip().strip('"') == key]
