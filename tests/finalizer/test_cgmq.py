"""Bit gates alone, on random prices: they end, they never lose a met limit, and they find the optimum where it is enumerable."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsearch.errors import InfeasibleBudget
from hwsearch.finalizer import cgmq
from hwsearch.finalizer.cgmq import BitGates, Chain, Levels, Option, Rule, price_chain
from hwsearch.graph.precision import Precision

WIDTHS = [Precision(w, a) for w in (2, 4, 8) for a in (2, 4, 8)]


def chain(name: str, prices: list[float], losses: list[float] | None = None) -> Chain:
    falling = losses or [1.0 / (level + 1) for level in range(len(prices))]
    options = [Option(precision=WIDTHS[i], latency_us=p, loss=e) for i, (p, e) in enumerate(zip(prices, falling, strict=True))]
    return Chain(unit=name, options=tuple(options))


def ladder(name: str, length: int) -> Chain:
    return chain(name, [float(level + 1) for level in range(length)])


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Chain], Levels, cgmq.Excess, np.random.Generator]:
    """Chains, a start and an arbitrary exact price per column: additive, plus a term from what columns share (not monotone)."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    columns = draw(st.integers(1, 3))
    chains = [ladder(f"u{i}", n) for i, n in enumerate(lengths)]
    levels = np.array([[rng.integers(n) for n in lengths] for _ in range(columns)], dtype=np.int64)
    tables = [[rng.random(n) for n in lengths] for _ in range(columns)]
    coupling = draw(st.floats(0, 1))

    def price(at: Levels) -> np.ndarray:
        own = np.array([sum(tables[c][u][at[c, u]] for u in range(len(lengths))) for c in range(columns)])
        return own + coupling * at.max(axis=0).sum()

    limits = price(np.zeros_like(levels)) * draw(st.floats(1.0, 2.0))
    return chains, levels, lambda at: price(at) / limits - 1, rng


@settings(deadline=None)
@given(problems())
def test_gates_meet_every_limit_within_the_termination_bound(problem: tuple) -> None:
    chains, levels, excess, rng = problem
    gates = cgmq.start(chains, levels, excess)
    settled, taken = cgmq.settle(gates, rng.random(levels.shape), excess)
    assert taken <= cgmq.termination_bound(gates)
    assert (excess(settled.levels) <= 0).all()


@settings(deadline=None)
@given(problems(), st.sampled_from([0.05, 0.3, 1.0]))
def test_a_met_limit_stays_met_whatever_the_data_say(problem: tuple, rate: float) -> None:
    chains, levels, excess, rng = problem
    gates, _ = cgmq.settle(cgmq.start(chains, levels, excess, rate=rate), rng.random(levels.shape), excess)
    for _ in range(40):
        gates = cgmq.update(gates, rng.random(levels.shape) ** 4, excess)
        assert (excess(gates.levels) <= 0).all()
        assert ((gates.values >= 0) & (gates.levels <= gates.tops)).all()


@settings(deadline=None)
@given(problems())
def test_no_gate_rises_while_a_limit_is_broken(problem: tuple) -> None:
    chains, levels, excess, rng = problem
    gates = cgmq.start(chains, levels, excess)
    while (excess(gates.levels) > 0).any():
        lowered = cgmq.update(gates, rng.random(levels.shape), excess)
        assert (lowered.values <= gates.values).all()
        gates = lowered


def test_a_broken_column_leaves_the_others_alone() -> None:
    chains = [ladder("a", 4), ladder("b", 4)]
    gates = cgmq.start(chains, np.full((2, 2), 3), lambda at: at.sum(axis=1) - np.array([2.0, 6.0]))
    lowered = cgmq.update(gates, np.ones((2, 2)), lambda at: at.sum(axis=1) - np.array([2.0, 6.0]))
    assert (lowered.values[0] < gates.values[0]).all()
    assert (lowered.values[1] == gates.values[1]).all()


def test_columns_that_cannot_help_themselves_pull_down_the_others() -> None:
    """A column at its floor may still be broken by what the other one stores."""
    excess = lambda at: np.array([at.max() - 0.5, -1.0])  # noqa: E731
    gates = cgmq.start([ladder("a", 3)], np.array([[0], [2]]), excess)
    settled, _ = cgmq.settle(gates, np.ones((2, 1)), excess)
    assert settled.levels.tolist() == [[0], [0]]


def test_a_floor_that_breaks_a_limit_is_refused_before_anything_moves() -> None:
    with pytest.raises(InfeasibleBudget, match=r"exceeds one by 25\.0%"):
        cgmq.start([ladder("a", 3)], np.array([[2]]), lambda at: at.sum(axis=1) + 0.25)


def additive(chains: list[Chain], limit: float) -> cgmq.Excess:
    def excess(at: Levels) -> np.ndarray:
        return np.array([sum(c.options[n].latency_us for c, n in zip(chains, row, strict=True)) / limit - 1 for row in at])

    return excess


def climbed(chains: list[Chain], limit: float, saliency: list[float], levels: list[int]) -> BitGates:
    excess = additive(chains, limit)
    gates = cgmq.start(chains, np.array([levels]), excess)
    for _ in range(400):
        gates = cgmq.update(gates, np.array([saliency]), excess)
    return gates


def test_slack_is_spent_on_the_salient_unit() -> None:
    gates = climbed([ladder("dull", 4), ladder("keen", 4)], 5.0, [0.1, 1.0], [0, 0])
    assert gates.levels.tolist() == [[0, 3]]


def test_a_salient_unit_takes_its_bits_from_a_dull_one_when_the_budget_is_spent() -> None:
    gates = climbed([ladder("dull", 4), ladder("keen", 4)], 5.0, [0.1, 1.0], [3, 0])
    assert gates.levels.tolist() == [[0, 3]]


def test_units_of_like_saliency_do_not_trade_bits_for_ever() -> None:
    gates = climbed([ladder("left", 4), ladder("right", 4)], 5.0, [1.0, 1.2], [2, 1])
    assert gates.levels.tolist() == [[2, 1]]


def test_all_units_reach_their_widest_where_nothing_forbids_it() -> None:
    gates = climbed([ladder("a", 4), ladder("b", 2)], 1e9, [0.3, 0.7], [0, 0])
    assert gates.levels.tolist() == [[3, 1]]


def test_gates_reach_the_enumerated_best_of_equal_steps() -> None:
    """With equal prices per level and a fixed saliency per unit, the best use of the limit is known by enumeration."""
    chains, worth, limit = [ladder(name, 3) for name in "abc"], [3.0, 0.5, 1.2], 6.0
    gates = climbed(chains, limit, worth, [1, 1, 1])
    feasible = [at for at in itertools.product(range(3), repeat=3) if additive(chains, limit)(np.array([at]))[0] <= 0]
    best = max(feasible, key=lambda at: sum(w * n for w, n in zip(worth, at, strict=True)))
    assert gates.levels[0].tolist() == list(best)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0, 1)), min_size=9, max_size=9))
def test_a_chain_rises_in_price_and_falls_in_loss_and_starts_at_the_cheapest(table: list[tuple[float, float]]) -> None:
    options = [Option(precision=p, latency_us=t, loss=e) for p, (t, e) in zip(WIDTHS, table, strict=True)]
    kept = price_chain("u", options)
    assert kept.options[0].latency_us == min(t for t, _ in table)
    best = min(e for _, e in table)
    assert best < kept.options[-1].loss <= best + 2 * cgmq.WIDTH_PRIOR
    for low, high in itertools.pairwise(kept.options):
        assert low.latency_us < high.latency_us and low.loss > high.loss


def test_a_chain_can_be_told_where_to_start() -> None:
    options = chain("u", [1.0, 2.0, 3.0], [9.0, 5.0, 1.0]).options
    assert [o.precision for o in price_chain("u", options, floor=WIDTHS[1]).options] == WIDTHS[1:3]


def test_a_level_is_read_off_a_price() -> None:
    steps = chain("u", [1.0, 2.0, 4.0])
    assert [steps.affordable(t) for t in (0.5, 1.0, 3.9, 4.0)] == [0, 0, 1, 2]


def test_rules_rank_by_what_their_names_say() -> None:
    gradient, magnitude = np.array([[1.0, 3.0]]), np.array([[4.0, 2.0]])
    assert Rule.GRAD.saliency(gradient, magnitude).tolist() == [[1.0, 3.0]]
    assert Rule.MAG.saliency(gradient, magnitude).tolist() == [[4.0, 2.0]]
    assert Rule.GRADXMAG.saliency(gradient, magnitude).tolist() == [[4.0, 6.0]]
