"""`torch.export` takes seconds, so a job calls it once: checks, space and supernet share one capture."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from hwsearch.graph.capture import capture_reference
from hwsearch.progress import silent
from hwsearch.quantizers.calibrate import untrained_supernet
from hwsearch.quantizers.supernet import Supernet
from hwsearch.service.inputs import JobInputs
from hwsearch.service.job import Job, demo_job
from hwsearch.service.pipeline import Pipeline
from hwsearch.service.preflight import check_job
from hwsearch.service.previewing import preview_front
from hwsearch.service.run_folder import RunFolder
from hwsearch.tasks.networks import REFERENCE_NETWORKS


@pytest.fixture
def exports(monkeypatch):
    """The class of every module that was exported so far."""
    seen, real = [], torch.export.export

    def export(model, *arguments, **options):
        seen.append(type(model).__name__)
        return real(model, *arguments, **options)

    monkeypatch.setattr(torch.export, "export", export)
    threads = torch.get_num_threads()
    yield seen
    torch.set_num_threads(threads)


def small_job() -> Job:
    whole = demo_job(0, 1)
    return whole.model_copy(update={"training": whole.training.model_copy(update={"float_epochs": 1, "supernet_epochs": 1})})


@contextmanager
def unseen(_):
    yield silent


def checked(job: Job, folder) -> Pipeline:
    inputs = JobInputs(job)
    check_job(inputs)
    return Pipeline(inputs, RunFolder.open(folder, job), unseen)


def same(one: Supernet, other: Supernet) -> bool:
    arrays, others = one.to_arrays(), other.to_arrays()
    return arrays.keys() == others.keys() and all(np.array_equal(array, others[name]) for name, array in arrays.items())


@pytest.mark.slow
def test_a_job_exports_its_network_once_and_a_resumed_one_no_more(exports, tmp_path):
    job, file = small_job(), tmp_path / "run" / "supernet.pt"
    first = checked(job, file.parent).supernet
    assert exports == ["DigitsCNN"]
    assert same(first, checked(job, file.parent).supernet)
    assert exports == ["DigitsCNN"] * 2
    file.unlink()
    assert same(first, checked(job, file.parent).supernet), (
        "a run that stopped after the float network trains as one that did not"
    )
    assert exports == ["DigitsCNN"] * 3


@pytest.mark.slow
def test_a_preview_exports_its_network_once(exports, tmp_path):
    torch.save(REFERENCE_NETWORKS["digits_cnn"].build(0).state_dict(), tmp_path / "float.pt")
    assert preview_front("digits", None, "digits_cnn", "nucleo_l4r5zi", tmp_path / "float.pt", 0).points
    assert exports == ["DigitsCNN"]


def test_a_capture_is_one_export(exports):
    capture_reference(REFERENCE_NETWORKS["digits_cnn"])
    assert exports == ["DigitsCNN"]


@pytest.mark.slow
def test_one_capture_of_the_untrained_network_gives_the_supernet_that_a_second_export_gives(exports):
    inputs = JobInputs(small_job())
    trained = REFERENCE_NETWORKS["digits_cnn"].build(7)
    shared = untrained_supernet(inputs.task, inputs.space, trained, captured=inputs.captured)
    assert exports == ["DigitsCNN"]
    assert same(shared, untrained_supernet(inputs.task, inputs.space, trained))
    assert exports == ["DigitsCNN"] * 2
