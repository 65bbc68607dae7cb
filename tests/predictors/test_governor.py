"""The governor's law: what is spent never exceeds what was earned, on every sequence of inputs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsearch.errors import BudgetError
from hwsearch.predictors.governor import Governor


@st.composite
def governors(draw):
    costs = [draw(st.integers(0, 1000)) for _ in range(draw(st.integers(1, 5)))]
    rate, capacity = (draw(st.integers(costs[0], 2000)) for _ in range(2))
    return costs, rate, capacity, draw(st.integers(0, capacity))


@given(governors(), st.lists(st.integers(0, 4), max_size=60))
def test_total_spend_never_exceeds_the_rate_and_the_initial_balance(settings, wishes):
    costs, rate, capacity, initial = settings
    governor = Governor(costs, rate=rate, capacity=capacity, initial=initial)
    spent = 0
    for count, wish in enumerate(wishes, start=1):
        entry = min(wish, governor.earn())
        governor.spend(entry)
        spent += costs[entry]
        assert 0 <= governor.balance <= capacity
        assert spent <= initial + count * rate


def test_a_rate_above_every_cost_allows_everything():
    governor = Governor([10, 20, 30], rate=30, capacity=30)
    for _ in range(5):
        assert governor.earn() == 2
        governor.spend(2)


def test_savings_from_easy_inputs_pay_for_hard_ones():
    governor = Governor([10, 100], rate=20, capacity=200, initial=0)
    for _ in range(8):
        assert governor.earn() == 0
        governor.spend(0)
    assert governor.balance == 80
    assert governor.earn() == 1


def test_spending_more_than_the_balance_is_refused():
    governor = Governor([10, 100], rate=20, capacity=50)
    governor.earn()
    with pytest.raises(BudgetError, match=r"but entry 1 costs 100; end at the entry that earn\(\) allows"):
        governor.spend(1)


@pytest.mark.parametrize(("rate", "capacity", "initial"), [(9, 50, 0), (20, 9, 0), (20, 50, 51), (20, 50, -1)])
def test_a_governor_that_could_not_pay_entry_zero_is_refused(rate, capacity, initial):
    with pytest.raises(BudgetError, match="must be at least the cost of entry 0"):
        Governor([10, 100], rate=rate, capacity=capacity, initial=initial)
