import pytest

from hwsearch.errors import JobError
from hwsearch.service.job import demo_job
from hwsearch.service.run_folder import RunFolder


def test_a_folder_is_continued_by_the_same_job_with_other_workers(tmp_path):
    RunFolder.open(tmp_path / "run", demo_job(0, 2))
    assert RunFolder.open(tmp_path / "run", demo_job(0, 4)).job_file.exists()


def test_a_folder_of_another_job_is_refused_and_the_difference_named(tmp_path):
    RunFolder.open(tmp_path / "run", demo_job(0, 2))
    with pytest.raises(JobError, match="differs in seed"):
        RunFolder.open(tmp_path / "run", demo_job(1, 2))


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(JobError, match="holds something else"):
        RunFolder.open(tmp_path, demo_job(0, 2))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_seconds_of_a_resumed_stage_add_up(tmp_path):
    folder = RunFolder.open(tmp_path / "run", demo_job(0, 2))
    folder.stages_file.write_text('{"stage": "search", "seconds": 1.5}\n{"stage": "search", "seconds": 2.0}\n')
    assert folder.seconds() == {"search": 3.5}
