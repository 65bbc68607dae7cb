"""Training of supernets."""

import numpy as np
import pytest
import torch

from hwsearch.graph.capture import capture
from hwsearch.graph.precision import Precision
from hwsearch.graph.space import load_space
from hwsearch.quantizers.calibrate import estimate_statistics, untrained_supernet
from hwsearch.quantizers.evaluation import evaluate
from hwsearch.quantizers.training import PathSampler, SupernetTraining, make_optimizer, narrowest, train_supernet, widest
from hwsearch.tasks.catalogue import load_task
from hwsearch.tasks.float_training import accuracy, train_float


@pytest.fixture(scope="module")
def float_model(small):
    task, _ = small
    return train_float(task, epochs=15, seed=0)


def loss_of(supernet, task, assignment):
    statistics = estimate_statistics(supernet, assignment, task.train.images)
    return evaluate(supernet, assignment, task.validation, statistics).losses.mean(axis=1)  # [E]


@pytest.mark.slow
def test_training_improves_the_narrowest_path_and_the_exit(small, float_model):
    task, space = small
    before = untrained_supernet(task, space, float_model)
    after = train_supernet(task, space, float_model=float_model, epochs=6, seed=0)
    assert np.all(loss_of(after, task, narrowest(space)) < loss_of(before, task, narrowest(space)))
    assert loss_of(after, task, widest(space))[0] < loss_of(before, task, widest(space))[0]
    assert not after.training


def test_training_improves_one_bit_and_three(small_odd, float_model):
    task, space = small_odd
    before = untrained_supernet(task, space, float_model)
    after = train_supernet(task, space, float_model=float_model, epochs=6, seed=0)
    for precision in (Precision(1, 1), Precision(1, 3), Precision(3, 3)):
        assignment = space.uniform(precision)
        assert np.all(loss_of(after, task, assignment) < loss_of(before, task, assignment)), precision


@pytest.mark.slow
def test_the_same_seed_gives_the_same_supernet_and_another_does_not(small, float_model):
    task, space = small
    first, second, other = (
        train_supernet(task, space, float_model=float_model, epochs=1, seed=seed).to_arrays() for seed in (3, 3, 4)
    )
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)


def test_training_leaves_the_global_generator_and_the_float_model_alone(small, float_model):
    task, space = small
    before, weights = torch.get_rng_state(), [p.clone() for p in float_model.parameters()]
    train_supernet(task, space, float_model=float_model, epochs=1, seed=0)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(old, new) for old, new in zip(weights, float_model.parameters(), strict=True))


def test_progress_is_told_every_epoch(small, float_model):
    task, space = small
    told = []
    train_supernet(task, space, float_model=float_model, epochs=2, seed=0, progress=lambda *args: told.append(args))
    assert [step[:2] for step in told] == [(1, 2), (2, 2)]
    assert all("loss" in step[2] for step in told)


def test_no_epochs_give_the_post_training_quantized_network(small, float_model):
    task, space = small
    trained = train_supernet(task, space, float_model=float_model, epochs=0, seed=0).to_arrays()
    untrained = untrained_supernet(task, space, float_model, seed=0).to_arrays()
    assert all(np.array_equal(trained[name], untrained[name]) for name in trained)


def test_the_optimizer_has_every_parameter_once(small):
    task, space = small
    supernet = untrained_supernet(task, space, task.model)
    groups = make_optimizer(supernet, SupernetTraining()).param_groups
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in supernet.parameters())


def test_paths_start_with_the_widest_and_the_narrowest(small):
    _, space = small
    paths = PathSampler(space, random_paths=2, seed=0).draw()
    assert paths[:2] == [widest(space), narrowest(space)] and len(paths) == 4
    assert widest(space)["conv2"] == Precision(8, 8) and narrowest(space)["conv2"] == Precision(2, 2)


@pytest.mark.slow
def test_digits_keep_their_accuracy_at_every_width():
    """A fraction of the demo's training, so with room to spare."""
    task = load_task("digits")
    model = train_float(task, epochs=15, seed=0)
    space = load_space("digits_cnn", capture(task.model, task.example_input))
    supernet = train_supernet(task, space, float_model=model, epochs=8, seed=0)
    reference = accuracy(model, task.validation)
    for precision, loss in (("w8a8", 0.010), ("w4a4", 0.015), ("w2a2", 0.025)):
        assignment = space.uniform(Precision.parse(precision))
        statistics = estimate_statistics(supernet, assignment, task.train.images)
        result = evaluate(supernet, assignment, task.validation, statistics)
        assert result.accuracy >= reference - loss, precision
        assert result.correct[0].mean() >= 0.90  # the first exit
