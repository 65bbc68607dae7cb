"""Whole files, names, and the first fault of a schema."""

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hwsearch.files import data_folders, find_named, first_fault_in_toml, replacing, write_whole


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "front.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("disk full")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_written_as_given(tmp_path: Path) -> None:
    write_whole(tmp_path / "text", "one\r\ntwo\n")
    write_whole(tmp_path / "bytes", b"\x00\xff")
    assert (tmp_path / "text").read_bytes() == b"one\r\ntwo\n"
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"
    assert len(list(tmp_path.iterdir())) == 2


def test_the_first_folder_wins_and_names_are_sorted(tmp_path: Path) -> None:
    for folder, name in (("own", "b.x"), ("shipped", "b.x"), ("shipped", "a")):
        (tmp_path / folder / name).mkdir(parents=True)
        (tmp_path / folder / name / "profile.toml").touch()
    found = find_named([tmp_path / "own", tmp_path / "shipped", tmp_path / "absent"], "*/profile.toml")
    assert list(found) == ["a", "b.x"]
    assert found["b.x"] == tmp_path / "own" / "b.x" / "profile.toml"


def test_shipped_data_are_found_from_the_sources() -> None:
    assert "digits_cnn" in find_named(data_folders("search_spaces"), "*.toml")
    assert data_folders("search_spaces", [Path("mine")])[0] == Path("mine")


class Rule(BaseModel):
    model_config = ConfigDict(extra="forbid")

    match: str
    bits: tuple[Annotated[int, Field(le=8)], ...]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")

    clock: int


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: int = Field(alias="schema")
    device: Section
    rule: tuple[Rule, ...] = ()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "schema = 1\n[device]\nclock = 1\nclok = 2\n",
            "A thing may only have known keys, but f.toml, line 4 has 'device.clok'; known here are clock.",
        ),
        ("[device]\nclock = 1\n", "A thing must have the key 'schema', but f.toml lacks it; add it."),
        ("schema = 1\n[device]\n", "A thing must have the key 'device.clock', but f.toml, line 2 lacks it; add it."),
        (
            'schema = 1\n[device]\nclock = 1\n[[rule]]\nmatch = "a"\nbits = [8]\n[[rule]]\nmatch = "b"\nbits = [4, 9]\n',
            "'rule.1.bits.1' must be right (Input should be less than or equal to 8), but f.toml, line 9 has 9; correct it.",
        ),
        (
            'schema = 1\n[device]\nclock = 1\n[[rule]]\nmatch = "a"\nbits = [8]\nbit = 1\n',
            "A thing may only have known keys, but f.toml, line 7 has 'rule.0.bit'; known here are match, bits.",
        ),
        ("schema = 1\ndevice = { clock = 'x' }\n", "line 2 has 'x'; correct it."),
    ],
)
def test_the_first_fault_of_a_schema_is_one_sentence_with_its_line(text: str, sentence: str) -> None:
    import tomllib

    with pytest.raises(ValidationError) as caught:
        Record.model_validate(tomllib.loads(text))
    said = first_fault_in_toml("A thing", Path("f.toml"), text, Record, caught.value)
    assert said.endswith(sentence)
