"""The project's own rules, executed: style, types, the direction of imports, and what an import may cost."""

import subprocess
import sys
from pathlib import Path

import pytest

import hwsearch as hw

ROOT = Path(__file__).parents[1]


def run(*command):
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("-m", "ruff", "check", "."),
        ("-m", "ruff", "format", "--check", "."),
        ("-m", "mypy", "hwsearch"),
        ("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"),
    ],
    ids=["lint", "format", "types", "imports"],
)
def test_the_code_keeps_its_rules(command):
    result = run(*command)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "command",
    [
        "import hwsearch",
        "import contextlib, sys\nfrom hwsearch.service.cli import main\nsys.argv = ['hwsearch', '--help']\n"
        "with contextlib.suppress(SystemExit): main()",
    ],
    ids=["import", "help"],
)
def test_importing_and_help_load_no_heavy_library(command):
    heavy = {"torch", "ray", "optuna", "scipy", "onnx", "numpy", "networkx", "pydantic"}
    forbidden = f"import sys; found = {heavy} & set(sys.modules); assert not found, found"
    result = run("-c", f"{command}\n{forbidden}")
    assert result.returncode == 0, result.stderr


def test_every_public_name_exists():
    import hwsearch

    for name in hwsearch.__all__:
        assert getattr(hwsearch, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        hwsearch.nothing  # noqa: B018


def test_the_ci_calls_the_test_command_of_the_readme():
    command = (ROOT / ".ci" / "run").read_text().splitlines()[-1].replace("--quiet --editable", "-e")
    assert command in (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_a_type_checker_sees_the_public_names_as_they_are(tmp_path):
    script = tmp_path / "use.py"
    script.write_text("import hwsearch as hw\n" + "".join(f"reveal_type(hw.{name})\n" for name in hw.__all__))
    result = run("-m", "mypy", "--no-incremental", "--follow-imports=silent", str(script))
    revealed = [line for line in result.stdout.splitlines() if "Revealed type" in line]
    assert len(revealed) == len(hw.__all__), result.stdout
    assert not [line for line in revealed if '"Any"' in line]
