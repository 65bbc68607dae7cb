"""The governor in C, compiled for this computer, against its law."""

import ctypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsearch.emulation.build_target import HOST
from hwsearch.emulation.toolchain import build_shared, find_compiler
from hwsearch.kernels.catalogue import C_FOLDER
from hwsearch.predictors.governor import Governor as PythonGovernor


class Governor(ctypes.Structure):
    _fields_ = [
        ("costs", ctypes.POINTER(ctypes.c_uint64)),
        ("rate", ctypes.c_uint64),
        ("capacity", ctypes.c_uint64),
        ("balance", ctypes.c_uint64),
        ("entries", ctypes.c_int),
    ]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    out = tmp_path_factory.mktemp("governor") / "governor.so"
    build_shared([C_FOLDER / "hw_governor.c"], out=out, compiler=find_compiler(HOST), includes=[C_FOLDER])
    loaded = ctypes.CDLL(str(out))
    loaded.hw_governor_init.argtypes = [
        ctypes.POINTER(Governor),
        ctypes.POINTER(ctypes.c_uint64),
        ctypes.c_int,
        *[ctypes.c_uint64] * 3,
    ]
    return loaded


def _governor(library, costs, rate, capacity, initial):
    governor, table = Governor(), (ctypes.c_uint64 * len(costs))(*costs)
    status = library.hw_governor_init(ctypes.byref(governor), table, len(costs), rate, capacity, initial)
    governor.kept_alive = table
    return governor, status


CASES = st.lists(st.integers(0, 10**12), min_size=1, max_size=16).flatmap(
    lambda costs: st.tuples(
        st.just(costs),
        st.integers(costs[0], 2 * 10**12),
        st.integers(costs[0], 4 * 10**12),
        st.floats(0, 1),
        st.lists(st.integers(0, 15), min_size=1, max_size=60),
    )
)


@given(CASES)
def test_total_spend_never_exceeds_what_was_earned_plus_the_initial_balance(library, case):
    costs, rate, capacity, share, wishes = case
    initial = int(share * capacity)
    governor, status = _governor(library, costs, rate, capacity, initial)
    assert status == 0
    spent = 0
    for count, wish in enumerate(wishes, 1):
        limit = library.hw_governor_earn(ctypes.byref(governor))
        assert 0 <= limit < len(costs)
        entry = min(wish, limit)
        library.hw_governor_spend(ctypes.byref(governor), entry)
        spent += costs[entry]
        assert spent <= initial + count * rate
        assert governor.balance <= capacity


def test_the_dearest_entry_runs_whenever_it_was_saved_for(library):
    governor, _ = _governor(library, [10, 30], 20, 40, 0)
    allowed = []
    for _ in range(6):
        limit = library.hw_governor_earn(ctypes.byref(governor))
        library.hw_governor_spend(ctypes.byref(governor), limit)
        allowed.append(limit)
    assert allowed == [0, 1, 0, 1, 0, 1]


def test_an_entry_above_one_that_cannot_be_paid_is_not_offered(library):
    governor, _ = _governor(library, [10, 50, 20], 30, 100, 0)
    assert library.hw_governor_earn(ctypes.byref(governor)) == 0


@pytest.mark.parametrize(
    ("costs", "rate", "capacity", "initial"),
    [([10, 20], 9, 100, 0), ([10, 20], 100, 9, 0), ([10, 20], 15, 100, 101), ([], 1, 1, 0)],
)
def test_what_could_not_be_paid_is_refused(library, costs, rate, capacity, initial):
    assert _governor(library, costs, rate, capacity, initial)[1] == -1


@given(CASES)
def test_c_and_python_governors_allow_the_same(library, case):
    costs, rate, capacity, share, wishes = case
    initial = int(share * capacity)
    in_c, _ = _governor(library, costs, rate, capacity, initial)
    in_python = PythonGovernor(costs, rate=rate, capacity=capacity, initial=initial)
    for wish in wishes:
        limit = library.hw_governor_earn(ctypes.byref(in_c))
        assert limit == in_python.earn()
        library.hw_governor_spend(ctypes.byref(in_c), min(wish, limit))
        in_python.spend(min(wish, limit))
        assert in_c.balance == in_python.balance
