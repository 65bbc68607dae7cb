"""The README's blocks are run as they stand."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_the_main_job_in_python_runs_as_written(tmp_path, monkeypatch):
    (code,) = blocks("python")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "out" / "digits" / "model.onnx").exists()


def test_the_profile_in_the_readme_is_complete(tmp_path):
    from hwsearch.hardware.profile import read_header

    (text,) = blocks("toml")
    tomllib.loads(text)
    (tmp_path / "profile.toml").write_text(text)
    commands = [line for block in blocks("") for line in block.splitlines() if "my_board" in line]
    assert len(text.strip().splitlines()) + len(commands) <= 10
    assert read_header(tmp_path).device.name == "my_board"


def test_no_gap_is_left_in_the_readme():
    assert not re.findall(r"@[A-Z_]+@", TEXT)


def test_every_file_the_readme_links_to_exists():
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (ROOT / target).exists(), target
