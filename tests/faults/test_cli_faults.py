"""Everything a user can get wrong: one clear sentence on stderr, the right exit code, no traceback, nothing half-written."""

import shutil
import sys
from pathlib import Path

import pytest

from hwsearch.graph.space import find_space
from hwsearch.hardware.profile import find_profile, load_profile, wide_text
from hwsearch.service.cli import main

SHIPPED = find_profile("nucleo_l4r5zi").resolve()
SPACE = find_space("digits_cnn").resolve()

JOB = """\
schema = 1
task = "digits"
space = "digits_cnn"
profile = "nucleo_l4r5zi"

[budget]
latency = "20ms"
"""


@pytest.fixture
def hwsearch(monkeypatch, capsys, tmp_path):
    """Run one command in an empty folder; returns (exit code, stderr) and checks that no traceback is shown."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["hwsearch", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.err

    return call


def copy_profile(tmp_path, change, *, wide=False):
    folder = tmp_path / "broken_board"
    shutil.copytree(SHIPPED, folder)
    table = folder / "ops.csv"
    table.write_text(change(wide_text(load_profile(folder).measurements) if wide else table.read_text()))
    return folder


def one_sentence(text):
    """One line that starts as an error does and says what to do after a semicolon."""
    lines = text.strip().splitlines()
    return len(lines) == 1 and ";" in lines[0]


def test_an_unknown_profile_lists_the_known_ones(hwsearch):
    code, err = hwsearch("cost", "--space", "digits_cnn", "--profile", "nucleo_x", "--bits", "w4a8")
    assert code == 2 and one_sentence(err)
    assert "nucleo_x" in err and "nucleo_l4r5zi" in err


def test_a_row_in_the_wrong_unit_is_named_by_file_and_line(hwsearch, tmp_path):
    def in_milliseconds(text):
        lines = text.splitlines()
        column = lines[0].split(",").index("latency_us")
        cells = lines[5].split(",")
        cells[column] = str(float(cells[column]) / 1000)
        lines[5] = ",".join(cells)
        return "\n".join(lines) + "\n"

    folder = copy_profile(tmp_path, in_milliseconds, wide=True)
    code, err = hwsearch("cost", "--space", "digits_cnn", "--profile", folder, "--bits", "w4a8")
    assert code == 2 and one_sentence(err)
    assert "ops.csv:6:" in err
    code, err = hwsearch("check", folder)
    assert code == 2 and "ops.csv:6:" in err


def test_a_missing_width_names_the_row_and_the_command_that_measures_it(hwsearch, tmp_path):
    def without_w4a8(text):
        header, *rows = text.splitlines()
        names = header.split(",")
        w, a = names.index("weight_bits"), names.index("activation_bits")
        kept = [row for row in rows if (row.split(",")[w], row.split(",")[a]) != ("4", "8")]
        assert len(kept) < len(rows)
        return "\n".join([header, *kept]) + "\n"

    folder = copy_profile(tmp_path, without_w4a8)
    code, err = hwsearch("cost", "--space", "digits_cnn", "--profile", folder, "--bits", "w4a8")
    assert code == 2 and one_sentence(err)
    assert "w4a8" in err and "hwsearch measure" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--csv"], "hwsearch profiles NAME --csv"), (["nucleo_l4r5zi", "--csv", "--json"], "both --csv and --json")],
)
def test_a_wide_table_is_of_one_profile_and_in_one_form(hwsearch, options, said):
    code, err = hwsearch("profiles", *options)
    assert code == 2 and one_sentence(err) and said in err


def test_a_table_of_another_schema_is_refused_by_file_and_line(hwsearch, tmp_path):
    folder = copy_profile(tmp_path, lambda text: text.replace("count,", "cycles,", 1))
    code, err = hwsearch("check", folder)
    assert code == 2 and one_sentence(err) and "ops.csv:1: the first line must name" in err


def test_a_pattern_that_matches_no_op_is_named(hwsearch, tmp_path):
    space = tmp_path / "mine.toml"
    space.write_text(SPACE.read_text() + '\n[[rule]]\nmatch = "no_such_op"\nweight_bits = [8]\nreason = "a rule for nothing"\n')
    code, err = hwsearch("cost", "--space", space, "--profile", "nucleo_l4r5zi", "--bits", "w4a8")
    assert code == 2 and one_sentence(err)
    assert "no_such_op" in err and "mine.toml" in err


def test_a_budget_without_unit_is_refused_before_anything_is_written(hwsearch, tmp_path):
    (tmp_path / "job.toml").write_text(JOB.replace("20ms", "20"))
    code, err = hwsearch("run", "job.toml")
    assert code == 2 and one_sentence(err)
    assert "'20'" in err and "ms" in err
    assert [path.name for path in tmp_path.iterdir()] == ["job.toml"]


@pytest.mark.slow
def test_a_budget_that_cannot_be_met_is_refused_before_training(hwsearch, tmp_path):
    (tmp_path / "job.toml").write_text(JOB.replace("20ms", "1us"))
    code, err = hwsearch("run", "job.toml")
    assert code == 1 and one_sentence(err)
    assert "latency" in err
    assert not (tmp_path / "runs").exists()


def test_an_unknown_key_of_a_job_is_named_with_its_line(hwsearch, tmp_path):
    (tmp_path / "job.toml").write_text(JOB + "\n[search]\ntrails = 5\n")
    code, err = hwsearch("run", "job.toml")
    assert code == 2 and one_sentence(err)
    assert "search.trails" in err and "line 10" in err


@pytest.mark.parametrize(
    ("objectives", "said"),
    [
        ('["accuracy", "speed"]', "known are accuracy, mean_latency, latency, mean_energy, energy, flash, ram"),
        ('["accuracy", "flash", "flash"]', "'flash' is named 2 times"),
        ('["mean_latency", "flash"]', "found mean_latency, flash"),
        ('["accuracy"]', "'accuracy' alone"),
        ('["accuracy", "mean_latency", "mean_energy"]', "it is the same axis"),
    ],
)
def test_objectives_that_make_no_front_are_refused_before_training(hwsearch, tmp_path, objectives, said):
    (tmp_path / "job.toml").write_text(JOB + f"\n[search]\nobjectives = {objectives}\n")
    for verb in ("run", "search", "check"):
        code, err = hwsearch(verb, "job.toml")
        assert code == 2 and one_sentence(err)
        assert said in err
    assert not (tmp_path / "runs").exists()


def test_a_space_of_another_network_is_refused_before_training(hwsearch, tmp_path):
    (tmp_path / "job.toml").write_text(JOB.replace("digits_cnn", "lenet5_mnist"))
    code, err = hwsearch("run", "job.toml")
    assert code == 2 and one_sentence(err)
    assert "DigitsCNN" in err and "LeNet5" in err
    assert not (tmp_path / "runs").exists()


def test_data_that_is_not_there_is_refused_before_training(hwsearch, tmp_path, monkeypatch):
    (tmp_path / "job.toml").write_text(JOB.replace('"digits"', '"mnist"').replace("digits_cnn", "lenet5_mnist"))
    monkeypatch.delenv("HWSEARCH_DATA", raising=False)
    code, err = hwsearch("run", "job.toml")
    assert code == 2 and one_sentence(err)
    assert "HWSEARCH_DATA" in err


def test_a_ray_address_that_does_not_answer_is_said_so(hwsearch, tmp_path):
    (tmp_path / "job.toml").write_text(JOB)
    code, err = hwsearch("run", "job.toml", "--ray-address", "127.0.0.1:9")
    assert code == 2 and one_sentence(err)
    assert "127.0.0.1:9" in err
    assert not (tmp_path / "runs").exists()


def test_a_wrong_option_and_a_missing_path_are_wrong_input(hwsearch):
    assert hwsearch("cost", "--space", "digits_cnn", "--bitz", "w4a8")[0] == 2
    code, err = hwsearch("check", "nowhere")
    assert code == 2 and "nowhere" in err


def test_a_precision_that_is_none_is_refused(hwsearch):
    code, err = hwsearch("cost", "--space", "digits_cnn", "--profile", "nucleo_l4r5zi", "--bits", "4/8")
    assert code == 2 and one_sentence(err)
    assert "w4a8" in err and "'4/8'" in err


def test_without_a_c_compiler_measuring_says_how_to_get_one(hwsearch, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "ziglang", None)
    code, err = hwsearch("measure", "nucleo_l4r5zi", "--folder", "out")
    assert code == 3 and one_sentence(err)
    assert "pip install" in err
    assert not Path("out").exists()
