"""Files that released versions wrote still read: one small file of each schema, in `tests/data`, as it was written then."""

import json
from pathlib import Path

import numpy as np

from hwsearch.exporters.manifest import MANIFEST_FILE, read_manifest
from hwsearch.graph.menu import PolicyKind
from hwsearch.integers.execute import run_model
from hwsearch.integers.model_file import load_model
from hwsearch.results.final_model import load_final
from hwsearch.results.front import load_front
from hwsearch.service.job import read_job
from hwsearch.study.trial_log import TrialLog

DATA = Path(__file__).parent / "data"
RUN, BUNDLE = DATA / "run_schema1", DATA / "bundle_schema1"
RUN_2, BUNDLE_2 = DATA / "run_schema2", DATA / "bundle_schema2"


def test_a_job_of_schema_1() -> None:
    job = read_job(RUN / "job.toml")
    assert (job.task, job.seed, job.search.trials) == ("digits", 3, 8)


def test_a_front_of_schema_1_without_copies() -> None:
    front = load_front(RUN)
    assert (front.profile, front.task, len(front.points)) == ("nucleo_l4r5zi", "digits", 2)
    assert all(not point.menu.copies for point in front.points)
    assert front.objectives == ("accuracy", "mean_latency")
    assert front.most_accurate().accuracy > front.fastest().accuracy > 0.9


def test_a_journal_of_schema_1(tmp_path: Path) -> None:
    journal = tmp_path / "trials.jsonl"
    journal.write_bytes((RUN / "trials.jsonl").read_bytes())
    header = json.loads(journal.read_text().splitlines()[0])
    today = {key: value for key, value in header.items() if key != "schema"} | {"objectives": ["accuracy", "mean_latency"]}
    with TrialLog.open(journal, today, resume=True) as log:
        assert sorted(log.trials) == list(range(8))
        assert {log.trials[point.trial].point for point in load_front(RUN).points} == set(load_front(RUN).points)


def test_a_final_model_of_schema_1() -> None:
    final = load_final(RUN / "final.npz")
    assert final.policy.kind is PolicyKind.STATIC
    assert final.budget.latency_us == 7000 and final.paths[0] == final.cost.worst


def test_a_manifest_of_schema_1_becomes_one_of_today() -> None:
    written = json.loads((BUNDLE / MANIFEST_FILE).read_text())
    manifest = read_manifest(BUNDLE)
    assert written["schema"] == 1 and manifest.schema_number == 2
    assert [entry.assignment.key for entry in manifest.menu.entries] == [entry["assignment"] for entry in written["entries"]]
    assert manifest.paths[0].latency_us == written["entries"][0]["path"]["latency_us"]
    assert manifest.shares == (1.0,) and manifest.policy.kind is PolicyKind.STATIC and manifest.thresholds == ()


def test_a_model_of_schema_1_computes_what_it_did() -> None:
    model = load_model(BUNDLE / "model.npz")
    with np.load(BUNDLE / "vectors.npz") as vectors:
        found = run_model(model, vectors["inputs"][:16])
        assert (found.logits == vectors["logits"][:16]).all()


# --- schema 2 ---------------------------------------------------------------------------------------------------------


def test_a_front_of_schema_2_is_that_of_schema_1_and_names_its_objectives() -> None:
    written = json.loads((RUN_2 / "front.json").read_text())
    assert written["schema"] == 2 and written["objectives"] == ["accuracy", "mean_latency"]
    assert load_front(RUN_2) == load_front(RUN)


def test_a_journal_of_schema_2(tmp_path: Path) -> None:
    journal = tmp_path / "trials.jsonl"
    journal.write_bytes((RUN_2 / "trials.jsonl").read_bytes())
    header = json.loads(journal.read_text().splitlines()[0])
    with TrialLog.open(journal, {key: value for key, value in header.items() if key != "schema"}, resume=True) as log:
        assert {log.trials[point.trial].point for point in load_front(RUN_2).points} == set(load_front(RUN_2).points)


def test_a_manifest_of_schema_2_says_what_schema_1_said() -> None:
    first, second = read_manifest(BUNDLE), read_manifest(BUNDLE_2)
    assert json.loads((BUNDLE_2 / MANIFEST_FILE).read_text())["schema"] == 2
    assert (first.menu, first.policy, first.thresholds, first.paths) == (
        second.menu, second.policy, second.thresholds, second.paths,
    )  # fmt: skip
    assert (first.accuracy, first.certificate, first.budget) == (second.accuracy, second.certificate, second.budget)
