"""Dead workers and stragglers, on a simulated clock: the schedule is the very one that Ray pools run."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsearch.errors import ClusterError
from hwsearch.study.pool import Faults, SimulatedPool
from hwsearch.study.schedule import MAX_ATTEMPTS, START_LIMIT_S

ITEMS = list(range(12))


def square(state: Any, item: int) -> int:
    return item * item


SQUARES = [item * item for item in ITEMS]


def test_results_stand_in_the_order_of_the_items() -> None:
    pool = SimulatedPool(3, Faults(slower={0: 2.5, 4: 1.7}))
    arrived: list[int] = []
    assert pool.map(square, ITEMS, lambda index, result: arrived.append(index)) == SQUARES
    assert sorted(arrived) == ITEMS
    assert arrived != ITEMS


def test_more_workers_take_less_time() -> None:
    times = []
    for workers in (1, 2, 4):
        pool = SimulatedPool(workers, seconds_per_item=10.0)
        pool.map(square, ITEMS)
        times.append(pool.elapsed_s)
    assert times == [120.0, 60.0, 30.0]


def test_a_dead_workers_item_is_computed_by_another() -> None:
    pool = SimulatedPool(2, Faults(dies_after_s={1: 5.0, 6: 9.0}))
    assert pool.map(square, ITEMS) == SQUARES


def test_an_item_on_which_every_worker_dies_is_an_error_in_words() -> None:
    pool = SimulatedPool(1, Faults(dies_after_s={number: 1.0 for number in range(MAX_ATTEMPTS)}))
    with pytest.raises(
        ClusterError, match=r"4 workers died on the same one \(simulated death of start 3\); give the workers more"
    ):
        pool.map(square, ITEMS)


def test_one_death_less_is_survived() -> None:
    pool = SimulatedPool(1, Faults(dies_after_s={number: 1.0 for number in range(MAX_ATTEMPTS - 1)}))
    assert pool.map(square, ITEMS) == SQUARES


def test_a_straggler_is_overtaken_by_a_copy() -> None:
    pool = SimulatedPool(2, Faults(slower={5: 1000.0}), seconds_per_item=10.0)
    assert pool.map(square, ITEMS) == SQUARES
    assert pool.elapsed_s < 200.0  # 12 items on one worker are 120 s; the slow one alone would take 10,000


def test_a_stragglers_late_result_does_not_enter_the_next_batch() -> None:
    pool = SimulatedPool(2, Faults(slower={5: 30.0}), seconds_per_item=10.0)
    assert pool.map(square, ITEMS) == SQUARES
    assert pool.map(lambda state, item: -item, list(range(40))) == [-item for item in range(40)]
    assert pool.elapsed_s > 300.0  # the late result has come in meanwhile


def test_each_item_is_reported_once_even_if_two_workers_finish_it() -> None:
    pool = SimulatedPool(2, Faults(slower={5: 3.2}), seconds_per_item=10.0)
    reported: list[int] = []
    pool.map(square, ITEMS, lambda index, result: reported.append(index))
    pool.map(square, ITEMS, lambda index, result: reported.append(index))
    assert sorted(reported) == sorted(ITEMS * 2)


def test_workers_that_never_start_are_done_without() -> None:
    pool = SimulatedPool(3, Faults(start_s={0: None, 2: 40.0}), seconds_per_item=10.0)
    assert pool.map(square, ITEMS) == SQUARES
    assert pool.elapsed_s == pytest.approx(80.0)


def test_no_worker_at_all_is_an_error_in_words() -> None:
    pool = SimulatedPool(2, Faults(start_s={0: None, 1: None}))
    with pytest.raises(ClusterError, match="must have a free CPU for a worker, but none of 2 started within 90 s; stop what"):
        pool.map(square, ITEMS)
    assert pool.elapsed_s == START_LIMIT_S


def test_an_exception_of_the_function_is_raised_and_not_retried() -> None:
    calls: list[int] = []

    def fail_on_three(state: Any, item: int) -> int:
        calls.append(item)
        if item == 3:
            raise ZeroDivisionError("three")
        return item

    with pytest.raises(ZeroDivisionError, match="three"):
        SimulatedPool(1).map(fail_on_three, ITEMS)
    assert calls == [0, 1, 2, 3]


@settings(deadline=None, max_examples=60)
@given(
    workers=st.integers(1, 5),
    deaths=st.dictionaries(st.integers(0, 20), st.floats(0.1, 30.0), max_size=3),
    slow=st.dictionaries(st.integers(0, 20), st.floats(0.1, 200.0), max_size=5),
    starts=st.dictionaries(st.integers(0, 4), st.floats(0.0, 60.0), max_size=5),
)
def test_no_fault_changes_a_result(
    workers: int, deaths: dict[int, float], slow: dict[int, float], starts: dict[int, float | None]
) -> None:
    pool = SimulatedPool(workers, Faults(dies_after_s=deaths, slower=slow, start_s=starts))
    for _ in range(2):
        assert pool.map(square, ITEMS) == SQUARES


def test_hours_on_the_simulated_clock_take_milliseconds() -> None:
    began = time.perf_counter()
    pool = SimulatedPool(4, Faults(dies_after_s={3: 1800.0}, slower={7: 50.0}), seconds_per_item=3600.0)
    assert pool.map(square, ITEMS) == SQUARES
    assert pool.elapsed_s > 3 * 3600
    assert time.perf_counter() - began < 1.0
