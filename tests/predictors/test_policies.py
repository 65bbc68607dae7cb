"""Policies learn from cached losses and margins; every kind decides deterministically."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwsearch.errors import SpaceError
from hwsearch.graph.controllers import gate_graph
from hwsearch.graph.menu import PolicyKind, PolicyShape
from hwsearch.integers import execute
from hwsearch.predictors.fitted import EntryResults
from hwsearch.predictors.gate import Gate, gate_network
from hwsearch.predictors.policy import cross_fitted, fit_policy
from hwsearch.predictors.threshold import first_confident, fit_thresholds
from hwsearch.quantizers.uniform import InputQuantizer

GATE = PolicyShape(kind=PolicyKind.GATE, gate_grid=4, gate_hidden=8, trade_off=0.2)


def bright_images_are_easy(count=400, seed=0):
    """The cheap entry is right on bright images and wrong on dark ones; the dear one is always right."""
    rng = np.random.default_rng(seed)
    bright = rng.random(count) < 0.6
    images = rng.uniform(0, 0.3, size=(count, 1, 8, 8)) + 0.6 * bright[:, None, None, None]
    losses = np.stack([np.where(bright, 0.05, 1.5), np.full(count, 0.05)], axis=1) + rng.uniform(0, 0.02, size=(count, 2))
    margins = np.stack([np.where(bright, 4.0, 1.0), np.full(count, 5.0)], axis=1) + rng.normal(0, 0.4, size=(count, 2))
    results = EntryResults(
        images=torch.tensor(images, dtype=torch.float32),
        losses=losses,
        margins=margins,
        relative_latencies=np.array([0.4, 1.0]),
    )
    return results, bright


QUANTIZER = InputQuantizer(step=1 / 255, zero=0)


def test_a_gate_learns_which_inputs_are_easy():
    results, _ = bright_images_are_easy()
    policy = fit_policy(GATE, results, input_quantizer=QUANTIZER, seed=0)
    fresh, fresh_bright = bright_images_are_easy(seed=1)
    decisions = policy.decide(fresh.images, fresh.margins)
    assert (decisions == np.where(fresh_bright, 0, 1)).mean() > 0.97
    assert decisions.dtype == np.int64


def test_a_gate_prefers_the_cheaper_entry_where_losses_are_equal():
    results, _ = bright_images_are_easy()
    equal = EntryResults(
        images=results.images,
        losses=np.full_like(results.losses, 0.3),
        margins=results.margins,
        relative_latencies=results.relative_latencies,
    )
    policy = fit_policy(GATE, equal, input_quantizer=QUANTIZER, seed=0)
    assert not policy.decide(results.images, results.margins).any()


def test_a_gate_that_pays_nothing_for_latency_takes_the_better_entry():
    results, bright = bright_images_are_easy()
    free = PolicyShape(kind=PolicyKind.GATE, gate_grid=2, gate_hidden=4, trade_off=0.0)
    decisions = fit_policy(free, results, input_quantizer=QUANTIZER, seed=0).decide(results.images, results.margins)
    assert (decisions[~bright] == 1).mean() > 0.97


def test_the_integer_gate_decides_as_the_fitted_policy_says():
    results, _ = bright_images_are_easy()
    policy = fit_policy(GATE, results, input_quantizer=QUANTIZER, seed=0)
    assert isinstance(policy, Gate)
    integer = policy.controller()
    codes = policy.quantized.encode(results.images)
    scores = execute.run_model(integer, codes).logits
    assert np.array_equal(scores.argmax(axis=1), policy.decide(results.images, results.margins))
    assert (integer.input_step, integer.input_zero) == (QUANTIZER.step, QUANTIZER.zero)


@pytest.mark.parametrize("input_shape", [(1, 8, 8), (3, 32, 32), (1, 49, 10), (1, 28, 28), (1, 3, 3)])
@pytest.mark.parametrize("grid", [1, 2, 4, 5])
def test_the_float_gate_has_the_shapes_of_its_graph(input_shape, grid):
    policy = PolicyShape(kind=PolicyKind.GATE, gate_grid=grid, gate_hidden=5)
    graph = gate_graph(policy, input_shape, 3)
    images = torch.rand(2, *input_shape, generator=torch.Generator().manual_seed(0))
    assert gate_network(policy, input_shape, 3, seed=0)(images).shape == (2, 3)
    assert graph["gate.hidden"].in_shape[1] <= grid and graph["gate.hidden"].in_shape[2] <= grid
    assert graph.output.out_shape == (3,)


def test_a_gate_without_a_grid_is_refused():
    with pytest.raises(SpaceError, match="grid and hidden units of 1 or more"):
        gate_graph(PolicyShape(kind=PolicyKind.GATE), (1, 8, 8), 2)


@given(st.integers(2, 60), st.integers(2, 4), st.integers(0, 10**6), st.data())
def test_thresholds_send_on_the_asked_share_of_those_that_arrive(count, entries, seed, data):
    margins = np.random.default_rng(seed).random((count, entries))
    shares = [data.draw(st.floats(0, 1)) for _ in range(entries - 1)]
    thresholds = fit_thresholds(margins, shares)
    decisions = first_confident(margins, thresholds)
    arrived = count
    for stage, share in enumerate(shares):
        sent_on = int((decisions > stage).sum())
        assert sent_on == round(share * arrived)
        arrived = sent_on


def test_no_share_stops_every_input_and_a_full_share_none():
    margins = np.array([[0.0, 1.0], [3.0, 1.0]])
    assert fit_thresholds(margins, [0.0]) == (0.0,)
    assert fit_thresholds(margins, [1.0]) == (np.inf,)
    assert first_confident(margins, (0.0,)).tolist() == [0, 0]
    assert first_confident(margins, (np.inf,)).tolist() == [1, 1]


def test_a_wrong_number_of_shares_is_refused():
    with pytest.raises(SpaceError, match="must have 2 escalation shares"):
        fit_thresholds(np.zeros((4, 3)), [0.5])


@pytest.mark.parametrize("kind", [PolicyKind.CASCADE, PolicyKind.EXIT])
def test_a_margin_policy_escalates_the_hard_inputs(kind):
    results, bright = bright_images_are_easy()
    policy = PolicyShape(kind=kind, escalation=(0.4,))
    decisions = cross_fitted(policy, results, input_quantizer=QUANTIZER, seed=0)
    assert (decisions == np.where(bright, 0, 1)).mean() > 0.93


def test_a_static_policy_takes_entry_zero():
    results, _ = bright_images_are_easy(count=10)
    policy = fit_policy(PolicyShape(kind=PolicyKind.STATIC), results, input_quantizer=QUANTIZER, seed=0)
    assert not policy.decide(results.images, results.margins).any()


def test_cross_fitting_judges_no_image_by_a_policy_that_saw_it():
    """Labels of pure noise: a policy fitted on the judged images would look good, a cross-fitted one looks like chance."""
    rng = np.random.default_rng(0)
    count = 120
    noise = rng.random(count) < 0.5
    results = EntryResults(
        images=torch.tensor(rng.random((count, 1, 8, 8)), dtype=torch.float32),
        losses=np.stack([np.where(noise, 0.0, 2.0), np.where(noise, 2.0, 0.0)], axis=1),
        margins=np.zeros((count, 2)),
        relative_latencies=np.array([1.0, 1.0]),
    )
    policy = PolicyShape(kind=PolicyKind.GATE, gate_grid=8, gate_hidden=32)
    seen = fit_policy(policy, results, input_quantizer=QUANTIZER, seed=0).decide(results.images, results.margins)
    crossed = cross_fitted(policy, results, input_quantizer=QUANTIZER, seed=0)
    wanted = np.where(noise, 0, 1)
    assert (seen == wanted).mean() > 0.9
    assert abs((crossed == wanted).mean() - 0.5) < 0.15


def test_cross_fitting_depends_on_the_seed_alone():
    results, _ = bright_images_are_easy(count=60)
    first, again = (cross_fitted(GATE, results, input_quantizer=QUANTIZER, seed=5) for _ in range(2))
    assert np.array_equal(first, again)


def test_results_that_do_not_align_are_refused():
    with pytest.raises(SpaceError, match=r"losses and margins \[N, K\]"):
        EntryResults(
            images=torch.zeros(3, 1, 8, 8), losses=np.zeros((3, 2)), margins=np.zeros((3, 1)), relative_latencies=np.ones(2)
        )
