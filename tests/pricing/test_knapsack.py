"""The integer programme: equal to trying every choice, within every limit, and clear about what cannot be had."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsearch.errors import InfeasibleBudget
from hwsearch.pricing.knapsack import _programme, choose

Table = list[list[float]]


def total(table: Table, choice: tuple[int, ...] | list[int]) -> float:
    return float(sum(options[index] for options, index in zip(table, choice, strict=True)))


def best_by_trying_all(scores: Table, costs: dict[str, Table], limits: dict[str, float]) -> float | None:
    choices = itertools.product(*(range(len(options)) for options in scores))
    fit = [choice for choice in choices if all(total(costs[name], choice) <= limit for name, limit in limits.items())]
    return min((total(scores, choice) for choice in fit), default=None)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), units=st.integers(1, 5), tightness=st.floats(0.0, 1.0))
def test_the_choice_is_the_best_of_all_choices(seed: int, units: int, tightness: float) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, size=units)
    scores, latency, flash = ([rng.uniform(0, 9, size=size).round(2).tolist() for size in sizes] for _ in range(3))
    costs = {"latency_us": latency, "flash_bytes": flash}
    limits = {}
    for name, table in costs.items():
        low, high = sum(map(min, table)), sum(map(max, table))
        limits[name] = low + tightness * (high - low)
    expected = best_by_trying_all(scores, costs, limits)
    if expected is None:
        with pytest.raises(InfeasibleBudget):
            choose(scores, costs, limits)
    else:
        choice = choose(scores, costs, limits)
        assert total(scores, choice) == pytest.approx(expected, abs=1e-9)
        assert all(total(costs[name], choice) <= limit for name, limit in limits.items())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), units=st.integers(6, 12))
@pytest.mark.slow
def test_leaving_out_dominated_options_loses_nothing(seed: int, units: int) -> None:
    """Beyond what can be enumerated: the solver alone, on all options, finds no better choice."""
    rng = np.random.default_rng(seed)
    scores, latency = (rng.uniform(0, 9, size=(units, 9)).tolist() for _ in range(2))
    limits = {"latency_us": sum(map(min, latency)) + 0.3 * (sum(map(max, latency)) - sum(map(min, latency)))}
    costs = {"latency_us": latency}
    found, whole = choose(scores, costs, limits), _programme(scores, costs, limits)
    assert total(scores, found) == pytest.approx(total(scores, whole), abs=1e-9)


def test_without_limits_every_unit_takes_its_best_option() -> None:
    assert choose([[3.0, 1.0], [0.5, 0.7, 0.2]], {}, {}) == [1, 2]


def test_equal_scores_are_a_choice_too() -> None:
    assert choose([[0.0, 0.0]], {"latency_us": [[5.0, 1.0]]}, {"latency_us": 2.0}) == [1]


def test_a_limit_is_kept_even_where_the_solver_would_round() -> None:
    latency = [[1e6, 1e6 + 1e-3]] * 3
    choice = choose([[1.0, 0.0]] * 3, {"latency_us": latency}, {"latency_us": 3e6 + 1.5e-3})
    assert total(latency, choice) <= 3e6 + 1.5e-3
    assert sum(choice) == 1


def test_a_zero_limit_is_a_limit() -> None:
    assert choose([[0.0, 1.0]], {"flash_bytes": [[4.0, 0.0]]}, {"flash_bytes": 0.0}) == [1]


def test_the_same_programme_has_the_same_answer_every_time() -> None:
    rng = np.random.default_rng(3)
    scores = [rng.integers(0, 3, size=4).tolist() for _ in range(8)]  # many ties
    costs = {"latency_us": [rng.integers(1, 9, size=4).tolist() for _ in range(8)]}
    answers = {tuple(choose(scores, costs, {"latency_us": 30.0})) for _ in range(5)}
    assert len(answers) == 1


def test_an_unreachable_limit_names_itself_and_the_cheapest_value() -> None:
    with pytest.raises(InfeasibleBudget, match="latency_us must be reachable, but is 3 and the cheapest choice needs 4;"):
        choose([[0.0, 1.0], [0.0, 1.0]], {"latency_us": [[9.0, 2.0], [9.0, 2.0]]}, {"latency_us": 3.0})


def test_limits_that_exclude_each_other_are_both_named() -> None:
    costs = {"latency_us": [[1.0, 9.0]], "flash_bytes": [[9.0, 1.0]]}
    message = "reachable together, but flash_bytes is limited to 2 and within latency_us <= 2 the lowest flash_bytes is 9;"
    with pytest.raises(InfeasibleBudget, match=message):
        choose([[0.0, 0.0]], costs, {"latency_us": 2.0, "flash_bytes": 2.0})
