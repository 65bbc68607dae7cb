"""The main job through the command line, small: every file, every JSON key, resumption, verification, damage."""

import json
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

JOB = """\
schema = 1
task = "digits"
space = "digits_cnn"
profile = "nucleo_l4r5zi"
seed = 5

[budget]
latency = "20ms"
flash = "96KB"

[training]
float_epochs = 6
supernet_epochs = 2
final_epochs = 1

[search]
trials = 8
workers = 2
"""


def hwsearch(folder, *arguments):
    command = [sys.executable, "-c", "from hwsearch.service.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    (folder / "job.toml").write_text(JOB)
    result = hwsearch(folder, "run", "job.toml", "--json")
    assert result.returncode == 0, result.stderr
    return folder, json.loads(result.stdout)


def test_the_summary_has_the_promised_keys_and_holds_the_budget(finished):
    _, summary = finished
    promised = {"run_folder", "bundle", "accuracy", "float_accuracy", "mean", "worst", "budget", "seconds"}
    assert promised <= set(summary)
    assert summary["verified"], summary["failed_checks"]
    assert 0 < summary["mean"]["latency_us"] <= summary["worst"]["latency_us"] <= 20_000
    assert summary["worst"]["flash_bytes"] <= 96 * 1024
    assert {"float", "supernet", "search", "finalize", "export", "verify"} <= set(summary["seconds"])


def test_every_stage_left_its_file(finished):
    folder, summary = finished
    run = folder / summary["run_folder"]
    for name in ("job.toml", "float.pt", "supernet.pt", "trials.jsonl", "front.csv", "front.json", "report.html"):
        assert (run / name).stat().st_size > 0, name
    assert len((run / "trials.jsonl").read_text().splitlines()) > 8


def test_a_finished_run_is_shown_again_without_repeating_anything(finished):
    folder, summary = finished
    trials = (folder / summary["run_folder"] / "trials.jsonl").read_bytes()
    refused = hwsearch(folder, "run", "job.toml")
    assert refused.returncode == 2 and "--resume" in refused.stderr
    again = hwsearch(folder, "run", "job.toml", "--resume", "--json")
    assert again.returncode == 0, again.stderr
    record = json.loads(again.stdout)
    assert record["accuracy"] == summary["accuracy"] and record["mean"] == summary["mean"]
    assert (folder / summary["run_folder"] / "trials.jsonl").read_bytes() == trials


def test_the_same_seed_gives_the_same_front_with_one_worker(finished, tmp_path):
    folder, summary = finished
    (tmp_path / "job.toml").write_text(JOB)
    result = hwsearch(tmp_path, "search", "job.toml", "--workers", "1", "--out", "other", "--json")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "other" / "front.csv").read_bytes() == (folder / summary["run_folder"] / "front.csv").read_bytes()
    assert json.loads(result.stdout)["front"]


def test_a_job_in_three_objectives_gives_a_front_in_them_and_a_bundle(tmp_path):
    objectives = ["accuracy", "mean_latency", "flash"]
    (tmp_path / "job.toml").write_text(JOB + f"objectives = {json.dumps(objectives)}\n")
    result = hwsearch(tmp_path, "run", "job.toml", "--json")
    assert result.returncode == 0, result.stderr
    run = tmp_path / json.loads(result.stdout)["run_folder"]
    assert json.loads(result.stdout)["verified"]
    record = json.loads((run / "front.json").read_text())
    assert record["objectives"] == objectives
    lines = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
    assert lines[0]["objectives"] == objectives
    values = {line["trial"]: line["values"] for line in lines if "trial" in line}
    assert len(values) == 8
    kept = [values[point["trial"]] for point in record["points"]]
    assert all(len(own) == 3 for own in kept)
    assert not any(a != b and a[0] >= b[0] and a[1] <= b[1] and a[2] <= b[2] for a in values.values() for b in kept)
    again = hwsearch(tmp_path, "search", "job.toml", "--json")
    assert [point["trial"] for point in json.loads(again.stdout)["front"]] == [point["trial"] for point in record["points"]]
    assert "flash KB" in hwsearch(tmp_path, "search", "job.toml").stdout


def test_verify_and_check_accept_the_bundle(finished):
    folder, summary = finished
    result = hwsearch(folder, "verify", summary["bundle"], "--json")
    record = json.loads(result.stdout)
    assert result.returncode == 0 and record["ok"]
    assert all({"name", "ok", "detail"} <= set(check) for check in record["checks"])
    assert hwsearch(folder, "check", summary["bundle"], "job.toml", summary["run_folder"]).returncode == 0


@pytest.mark.parametrize("name", ["model.onnx", "model.npz", "vectors.npz", "manifest.json", "c/hw_model_data.c"])
def test_a_flipped_byte_in_a_bundle_is_one_sentence(finished, tmp_path, name):
    folder, summary = finished
    bundle = tmp_path / "bundle"
    shutil.copytree(folder / summary["bundle"], bundle)
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    for verb in ("verify", "check"):
        result = hwsearch(folder, verb, bundle)
        assert result.returncode in (1, 2)
        assert "Traceback" not in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
        assert name in result.stderr


def test_without_a_compiler_verify_says_how_to_get_one(finished):
    folder, summary = finished
    code = "import os, sys; os.environ['PATH'] = ''; sys.modules['ziglang'] = None; from hwsearch.service.cli import main; main()"
    command = [sys.executable, "-c", code, "verify", summary["bundle"]]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 3
    assert len(result.stderr.strip().splitlines()) == 1 and "pip install" in result.stderr
