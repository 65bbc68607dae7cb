"""Classifying layers fitted by logistic regression."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from hwsearch.graph.precision import Precision
from hwsearch.quantizers.calibrate import estimate_statistics, untrained_supernet
from hwsearch.quantizers.evaluation import evaluate
from hwsearch.quantizers.heads import linear_heads, logistic_regression, refit_heads
from hwsearch.quantizers.supernet import Supernet
from hwsearch.quantizers.training import narrowest, widest
from hwsearch.tasks.float_training import train_float


@pytest.fixture(scope="module")
def untrained(small):
    task, space = small
    return untrained_supernet(task, space, train_float(task, epochs=10, seed=0))


def accuracy_of(supernet, task, assignment):
    statistics = estimate_statistics(supernet, assignment, task.train.images)
    return evaluate(supernet, assignment, task.validation, statistics).correct.mean(axis=1)  # [E]


def test_exits_are_useful_before_any_training(small, untrained):
    task, space = small
    assert accuracy_of(untrained, task, widest(space))[0] > 0.9


def test_refitting_lowers_the_loss_of_every_exit_on_what_it_was_fitted_to(small, untrained):
    task, space = small
    supernet = Supernet.from_arrays(space, untrained.to_arrays())
    assignments = [narrowest(space), widest(space)]

    def losses():
        found = []
        for assignment in assignments:
            statistics = estimate_statistics(supernet, assignment, task.train.images)
            found.append(evaluate(supernet, assignment, task.train, statistics).losses.mean(axis=1))
        return np.mean(found, axis=0)  # [E]

    before = losses()
    refit_heads(supernet, task.train, assignments)
    assert (losses() < before).all()


def test_refitting_leaves_everything_but_the_heads_alone(small, untrained):
    task, space = small
    supernet = Supernet.from_arrays(space, untrained.to_arrays())
    refit_heads(supernet, task.train, [space.uniform(Precision(4, 4))])
    changed = {name for name, array in supernet.to_arrays().items() if not np.array_equal(array, untrained.to_arrays()[name])}
    assert changed and all("fc" in name for name in changed)
    assert set(linear_heads(supernet)) == {"exit1", ""}


def test_the_regression_finds_the_optimum_that_scikit_learn_finds():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(300, 5, generator=generator)
    features = (features - features.mean(0)) / features.std(0, correction=0)
    labels = (features @ torch.randn(5, 3, generator=generator) + torch.randn(300, 3, generator=generator)).argmax(1)
    weight, bias = logistic_regression(features, labels, (torch.zeros(3, 5), torch.zeros(3)))
    # scikit-learn minimizes C * sum of losses + |W|^2 / 2; ours is mean loss + 1e-3 * |W|^2
    reference = LogisticRegression(C=1 / (2 * 1e-3 * 300), tol=1e-8, max_iter=1000).fit(features.numpy(), labels.numpy())
    ours, theirs = (
        F.cross_entropy(features @ w.T + b, labels) + 1e-3 * w.square().sum()
        for w, b in ((weight, bias), (torch.tensor(reference.coef_).float(), torch.tensor(reference.intercept_).float()))
    )
    assert float(ours) == pytest.approx(float(theirs), rel=1e-3)


def test_the_penalty_means_the_same_at_every_scale_of_features():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(200, 4, generator=generator)
    labels = (features[:, 0] + torch.randn(200, generator=generator) > 0).long()
    start = (torch.zeros(2, 4), torch.zeros(2))
    weight, bias = logistic_regression(features, labels, start)
    small_weight, small_bias = logistic_regression(features * 0.01 + 3, labels, start)
    answers, small_answers = features @ weight.T + bias, (features * 0.01 + 3) @ small_weight.T + small_bias
    assert torch.allclose(answers, small_answers, atol=0.02)
