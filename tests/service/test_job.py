import pytest

from hwsearch.errors import BudgetError, JobError
from hwsearch.service.job import Job, demo_job, read_job

GOOD = """\
schema = 1
task = "digits"
space = "digits_cnn"
profile = "nucleo_l4r5zi"
seed = 3

[budget]
latency = "20ms"

[search]
trials = 12
"""


def write(tmp_path, text):
    path = tmp_path / "job.toml"
    path.write_text(text)
    return path


def test_a_job_reads_back_as_it_was_written(tmp_path):
    job = read_job(write(tmp_path, GOOD))
    again = read_job(write(tmp_path, job.to_toml()))
    assert again == job
    assert job.budget.parse().latency_us == 20_000
    assert job.search.trials == 12


def test_the_demo_job_is_a_valid_job_file(tmp_path):
    job = demo_job(seed=1, workers=2)
    assert read_job(write(tmp_path, job.to_toml())) == job


def test_an_unknown_key_is_named_with_its_line_and_the_known_ones(tmp_path):
    path = write(tmp_path, GOOD.replace("trials", "trails"))
    with pytest.raises(JobError, match=r"line 11 has 'search\.trails'; known here are trials, workers, batch"):
        read_job(path)


def test_an_unknown_section_is_refused(tmp_path):
    with pytest.raises(JobError, match="has 'serch'; known here are schema, task"):
        read_job(write(tmp_path, GOOD + "\n[serch]\nx = 1\n"))


def test_a_missing_key_is_named(tmp_path):
    with pytest.raises(JobError, match="must have the key 'profile'"):
        read_job(write(tmp_path, GOOD.replace('profile = "nucleo_l4r5zi"\n', "")))


def test_a_value_out_of_range_is_named_with_its_line(tmp_path):
    with pytest.raises(JobError, match=r"line 11 has 0; correct it"):
        read_job(write(tmp_path, GOOD.replace("trials = 12", "trials = 0")))


def test_a_budget_without_unit_names_file_and_units(tmp_path):
    with pytest.raises(BudgetError, match=r"job\.toml: Budget 'latency' must be a number with one of the units us, ms, s"):
        read_job(write(tmp_path, GOOD.replace("20ms", "20")))


def test_broken_toml_names_the_place(tmp_path):
    with pytest.raises(JobError, match=r"not: .*line 1"):
        read_job(write(tmp_path, "schema = = 1"))


def test_an_absent_file_is_said_so(tmp_path):
    with pytest.raises(JobError, match="No such file"):
        read_job(tmp_path / "none.toml")


def test_workers_do_not_determine_the_result():
    one, four = demo_job(0, 1), demo_job(0, 4)
    assert one != four
    assert one.result_fields() == four.result_fields()
    assert one.result_fields() != demo_job(1, 1).result_fields()


def test_the_schema_number_is_checked(tmp_path):
    with pytest.raises(JobError, match="schema"):
        read_job(write(tmp_path, GOOD.replace("schema = 1", "schema = 2")))
    assert Job.model_validate({"task": "t", "space": "s", "profile": "p"}).seed == 0


def test_objectives_are_read_written_and_part_of_the_result(tmp_path):
    job = read_job(write(tmp_path, GOOD + 'objectives = ["accuracy", "mean_latency", "flash"]\n'))
    assert job.search.objectives == ("accuracy", "mean_latency", "flash")
    assert read_job(write(tmp_path, job.to_toml())) == job
    plain = read_job(write(tmp_path, GOOD))
    assert plain.search.objectives == ("accuracy", "mean_latency")
    assert plain.result_fields() != job.result_fields()


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ('["accuracy", "speed"]', r"job\.toml: Objectives must be known ones, but found 'speed'; known are accuracy, "),
        ('["flash", "ram"]', r"job\.toml: Accuracy must be among the objectives"),
        ('"accuracy"', r"'search\.objectives' must be right .*line 12"),
    ],
)
def test_objectives_that_cannot_be_are_refused_naming_the_file(tmp_path, objectives, message):
    with pytest.raises(JobError, match=message):
        read_job(write(tmp_path, GOOD + f"objectives = {objectives}\n"))
