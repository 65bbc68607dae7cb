"""What people read holds: every example runs or is read by what it is for, every name, path and link is there."""

import csv
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import CliRunner as ClickRunner
from typer.testing import CliRunner

import hwsearch as hw
from hwsearch.graph.space import load_space, network_for_space
from hwsearch.hardware.header import read_header
from hwsearch.kernels.catalogue import C_FOLDER
from hwsearch.service import views
from hwsearch.service.cli import app
from hwsearch.service.job import read_job

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted((ROOT / "docs").glob("*.md")),
    *(
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "hardware_profiles/README.md", "cluster/README.md")
    ),
]
BOARD = Path("boards/my_board")


# --- blocks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block. `file` is the file that it stands for, where its first line is a comment that names one."""

    page: str
    line: int
    language: str
    text: str

    @property
    def file(self) -> str:
        found = re.match(r"(?:#|/\*) ([\w/]+\.\w+)(?: \*/)?\n", self.text)
        return found[1] if found else ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def read_blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page=str(page.relative_to(ROOT)), line=line, language=found[1], text=found[2])


BLOCKS = [block for page in PAGES for block in read_blocks(page)]


def blocks(language: str, page: str = "") -> list[Block]:
    return [block for block in BLOCKS if block.language == language and page in ("", block.page)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command of a shell block."""

    block: Block
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)

    @property
    def is_complete(self) -> bool:
        """Whether nothing in it is to be filled in: NAME, USER@HOST."""
        return not any(re.search(r"\b[A-Z]+\b", word) for word in self.words)

    def __str__(self) -> str:
        return f"{self.block.page}: {self.text[:60]}"


COMMANDS = [
    Command(block=block, text=text.strip())
    for block in blocks("sh")
    for line in block.text.replace("\\\n", "").splitlines()
    for text in line.split(" && ")
    if text.strip()
]


def test_every_block_says_what_it_is() -> None:
    assert len(BLOCKS) > 25
    assert [str(block) for block in BLOCKS if block.language not in {"sh", "python", "toml", "c", "csv", "text"}] == []


def test_every_toml_block_is_read_by_what_it_is_for(tmp_path: Path) -> None:
    readers: Mapping[str, Callable[[Path], object]] = {
        "job.toml": read_job,
        "space.toml": lambda path: load_space(str(path), network_for_space(str(path))),
        "profile.toml": lambda path: read_header(path.parent),
    }
    found = blocks("toml")
    assert {Path(block.file).name for block in found} == {*readers}
    for block in found:
        path = tmp_path / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
        assert readers[path.name](path)


def test_a_device_of_your_own_takes_ten_lines() -> None:
    (profile,) = blocks("toml", "README.md")
    commands = [command for command in COMMANDS if command.block.page == "README.md" and "my_board" in command.text]
    assert len(commands) == 2 and len(profile.text.strip().splitlines()) + len(commands) <= 10


def test_the_table_written_by_hand_is_one(tmp_path: Path) -> None:
    (table,), (profile,) = blocks("csv"), blocks("toml", "README.md")
    (tmp_path / "profile.toml").write_text(profile.text)
    (tmp_path / "ops.csv").write_text(table.text)
    rows = hw.load_profile(tmp_path).measurements
    assert len(rows) == len(list(csv.DictReader(table.text.splitlines()))) and {str(row.provenance) for row in rows} == {
        "datasheet"
    }


def test_what_the_demo_prints_has_the_form_that_it_has_here() -> None:
    (shown,) = blocks("text")
    assert views.run_text(summary_of(shown.text)) + "\n" == shown.text


def summary_of(text: str) -> dict[str, Any]:
    """The summary of a run, from what was printed of it."""
    values = {line[:15].strip(): line[16:] for line in text.splitlines()}
    numbers = {name: [float(number) for number in re.findall(r"\d+\.\d+", value)] for name, value in values.items()}

    def cost(name: str) -> dict[str, float]:
        flash, ram = numbers["memory"]
        latency_ms, energy_uj = numbers[name]
        return {"latency_us": latency_ms * 1e3, "energy_uj": energy_uj, "flash_bytes": flash * 1024, "ram_bytes": ram * 1024}

    return {
        **{name: values[name] for name in ("bundle", "report", "policy")},
        "accuracy": numbers["accuracy"][0] / 100,
        "float_accuracy": numbers["accuracy"][1] / 100,
        "mean": cost("mean"),
        "worst": cost("worst"),
        "uniform": {
            name.split()[1]: {"latency_us": numbers[name][0] * 1e3, "accuracy": numbers[name][1] / 100}
            for name in values
            if name.startswith("uniform")
        },
        "verified": values["verified"] == "yes",
        "seconds": {name: float(seconds) for name, seconds in re.findall(r"(\w+) ([\d.]+)", values["seconds"])},
    }


# --- commands ---------------------------------------------------------------------------------------------------------


def parse(program: Any, words: list[str]) -> None:
    """Read a command line as the program, a group of click or of typer, would, without running it."""
    verb = next(word for word in words if word in program.commands)
    context = program.make_context("program", words[:])
    program.commands[verb].make_context(verb, words[words.index(verb) + 1 :], parent=context)


def check_hwsearch(words: list[str]) -> None:
    parse(typer.main.get_command(app), words)


def check_ray(words: list[str]) -> None:
    from ray.scripts.scripts import cli

    assert ClickRunner().invoke(cli, [*words, "--help"]).exit_code == 0  # unknown verbs and options are refused even so


def check_mkdocs(words: list[str]) -> None:
    from mkdocs.__main__ import cli

    parse(cli, words)


def check_python(words: list[str]) -> None:
    script = ROOT / words[0]
    assert importlib.util.find_spec(words[1]) if words[0] == "-m" else script.is_file(), words


def check_pip(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert words[:2] == ["install", "-e"] and {*re.findall(r"\[(\w+)\]", words[-1])} & {*extras}, words


def check_export(words: list[str]) -> None:
    assert all(re.fullmatch(r"[A-Z_]+=\w+", word) for word in words)


def check_built(words: list[str]) -> None:
    """What another command of these pages makes."""
    assert words in ([], [".venv/bin/activate"])


PROGRAMS: Mapping[str, Callable[[list[str]], None]] = {
    "hwsearch": check_hwsearch,
    "ray": check_ray,
    "mkdocs": check_mkdocs,
    "python": check_python,
    "pip": check_pip,
    "export": check_export,
    ".": check_built,
    "./classify": check_built,
}


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_is_one_that_its_program_takes(command: Command) -> None:
    name, *words = command.words
    PROGRAMS[name](words)


def test_a_command_that_is_not_taken_would_be_seen() -> None:
    for wrong in ("cost --space digits_cnn", "run job.toml --resumed", "profiles A B"):
        with pytest.raises(Exception, match=r"(?i)missing parameter|no such option|unexpected extra"):
            check_hwsearch(wrong.split())
    with pytest.raises(StopIteration):
        check_hwsearch(["fly"])
    with pytest.raises(AssertionError):
        check_ray(["start", "--heads"])


# --- what runs --------------------------------------------------------------------------------------------------------

QUICK = {"spaces", "profiles", "cost", "check", "price", "verify"}
"""Verbs that answer in seconds."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the main example of the README ran: its bundle, its front as the run folder of a job, and every file shown."""
    folder = tmp_path_factory.mktemp("place")
    (example,) = blocks("python", "README.md")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        names: dict[str, Any] = {}
        exec(compile(example.text, "README.md", "exec"), names)
    for block in BLOCKS:
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.text)
    for name in ("ops.csv", "runs.jsonl"):  # as its README says: another clock or power touches no row
        shutil.copy(ROOT / "hardware_profiles" / "nucleo_l4r5zi" / name, folder / BOARD / name)
    (folder / "hardware_profiles").symlink_to(ROOT / "hardware_profiles")
    (folder / "runs" / "job").mkdir(parents=True)
    names["front"].save(folder / "runs" / "job")
    shutil.copytree(folder / "out" / "digits", folder / "runs" / "job" / "bundle")
    return folder


@pytest.mark.slow
def test_the_main_job_in_python_runs_as_written(place: Path) -> None:
    assert (place / "out" / "digits" / "model.onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({block.page for block in blocks("python")} - {"README.md"}))
def test_the_python_of_a_page_runs_as_written(page: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    names: dict[str, Any] = {}
    for block in blocks("python", page):
        exec(compile(block.text, str(block), "exec"), names)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [one for one in COMMANDS if one.words[0] == "hwsearch" and one.is_complete and {*one.words} & QUICK],
    ids=str,
)
def test_a_quick_command_does_what_it_says(command: Command, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("HWSEARCH_PROFILES", "")  # so that what --profiles sets is gone afterwards
    result = CliRunner().invoke(app, command.words[1:])
    assert result.exit_code == 0, result.output + repr(result.exception)
    assert result.output


@pytest.mark.slow
def test_the_package_is_built_and_answers_as_written(place: Path) -> None:
    built = [block for block in blocks("sh", "docs/bundle.md") if "ziglang" in block.text]
    (block,) = built
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["sh", "-ec", block.text], cwd=place, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(r"class \d, answered by entry \d\n", result.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("c"), ids=str)
def test_c_compiles_against_an_exported_package(block: Block, place: Path, tmp_path: Path) -> None:
    options = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I", "out/digits/c"]
    command = [sys.executable, "-m", "ziglang", "cc", *options, "-c", block.file, "-o", str(tmp_path / "out.o")]
    result = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("script", ["docs_pages.py", "docs_examples.py"])
def test_what_shapes_the_pages_does_as_its_examples_say(script: str) -> None:
    command = [sys.executable, "-m", "doctest", "-v", str(ROOT / "tools" / script)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and "1 passed" in result.stdout, result.stdout + result.stderr


@pytest.mark.slow
def test_the_pages_build_without_a_warning_and_fetch_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # about the tool's future, not about these pages
    result = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and "WARNING" not in result.stdout + result.stderr, result.stdout + result.stderr
    pages = {path.stem: path.read_text() for path in tmp_path.glob("*.html")}
    elsewhere = {"404", "devices", "cluster", "contributing", "changelog"}
    assert {*pages} == elsewhere | {page.stem for page in (ROOT / "docs").glob("*.md")}
    assert not [name for name, text in pages.items() if re.search(r"<(script|link|img)[^>]*(src|href)=\"?https?:", text)]
    assert "<blockquote" not in pages["api"] and '<span class="gp">&gt;' in pages["api"], "examples in docstrings are code"


# --- names, paths, links ----------------------------------------------------------------------------------------------


def test_the_bundles_page_names_every_c_function() -> None:
    named = (ROOT / "docs" / "bundle.md").read_text()
    headers = "".join((C_FOLDER / name).read_text() for name in ("hw_run.h", "hw_governor.h"))
    functions = re.findall(r"^\w+ (hw_\w+)\(", headers, flags=re.MULTILINE)
    assert len(functions) == 6
    assert [name for name in functions if f"`{name}(" not in named] == []


@pytest.mark.slow
def test_the_bundles_page_names_every_constant_of_an_exported_header(place: Path) -> None:
    named = (ROOT / "docs" / "bundle.md").read_text()
    header = (place / "out" / "digits" / "c" / "hw_model.h").read_text()
    constants = re.findall(r"#define (HW_MODEL_\w+) ", header)
    assert len(constants) == 10
    assert [name for name in (*constants, "hw_model_cost_ns") if f"`{name}" not in named] == []


def test_every_public_name_is_in_the_reference() -> None:
    assert sorted(re.findall(r"^::: hwsearch\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)) == sorted(
        hw.__all__
    )


def test_the_rooms_are_those_of_the_contract_from_the_roof_down() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    floors = [{*layer.split(" | ")} for layer in next(one for one in contracts if one["type"] == "layers")["layers"]]
    text = (ROOT / "docs" / "architecture.md").read_text()
    described = re.findall(r"^\| \d \| `(\w+)` \| .+ \|$", text, re.MULTILINE)
    for floor in floors:
        assert {*described[: len(floor)]} == floor
        described = described[len(floor) :]
    assert described == []
    picture = (ROOT / "docs" / "architecture.svg").read_text()
    assert [room for floor in floors for room in floor if not re.search(rf"[> ]{room}[< ]", picture)] == []


TOP_FOLDERS = ("hwsearch", "hardware_profiles", "search_spaces", "cluster", "tests", "benchmarks", "tools", "docs", ".ci")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_and_link_of_a_page_exists(page: Path) -> None:
    """Of a path with a placeholder, such as `hwsearch/predictors/<kind>.py`, there is one of that form at least."""
    text = page.read_text(encoding="utf-8")
    paths = [path for path in re.findall(r"`([\w.<>/-]+)`", text) if path.split("/")[0] in TOP_FOLDERS and "/" in path]
    assert [path for path in paths if not any(ROOT.glob(re.sub(r"<\w+>", "*", path.rstrip("/"))))] == []
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []


def test_no_gap_is_left() -> None:
    assert [page.name for page in PAGES if re.search(r"@[A-Z_]+@|TODO|FIXME", page.read_text(encoding="utf-8"))] == []
