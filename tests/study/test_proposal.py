"""What a trial's parameters mean: every set of values is a proposal, and every assignment can be proposed."""

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsearch.graph.controllers import attach_exits
from hwsearch.graph.menu import PolicyKind
from hwsearch.graph.network import Network
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.graph.space import PolicyRanges, SearchSpace, Unit
from hwsearch.predictors.parameters import Category, Interval, Parameter
from hwsearch.study.proposal import (
    parameters,
    precision_sets,
    read_proposal,
    seeded_trials,
)


def conv(name: str, source: str) -> Op:
    return Op(
        name=name, kind=OpKind.CONV2D, inputs=(source,), in_shape=(4, 8, 8), out_shape=(4, 8, 8), kernel=(3, 3), padding=(1, 1)
    )


def precisions(*texts: str) -> tuple[Precision, ...]:
    return tuple(Precision.parse(text) for text in texts)


GRID = tuple(Precision(w, a) for w in (2, 4, 8) for a in (2, 4, 8))


def space_of(kinds: tuple[PolicyKind, ...] = tuple(PolicyKind), exits: int = 2, **ranges: Any) -> SearchSpace:
    """Three convolutions: one with all precisions, one with three that form no box, one fixed; and a head after some."""
    ops = [conv("a", "input"), conv("b", "a"), conv("c", "b")]
    fc = Op(name="fc", kind=OpKind.LINEAR, inputs=("c",), in_shape=(4, 8, 8), out_shape=(10,))
    network = attach_exits(Network([*ops, fc], (4, 8, 8)), ["a", "b"][:exits])
    heads = [op.name for op in network.ops if op.exit]
    units = (
        Unit(name="a", ops=("a",), precisions=GRID),
        Unit(
            name="b", ops=("b", *(name for name in heads if name.endswith("pool"))), precisions=precisions("w2a4", "w4a8", "w8a2")
        ),
        Unit(name="c", ops=("c",), precisions=precisions("w8a8")),
        Unit(name="fc", ops=("fc", *(name for name in heads if name.endswith("fc"))), precisions=precisions("w8a8")),
    )
    return SearchSpace(name="three", network=network, units=units, policies=PolicyRanges(kinds=kinds, max_entries=3, **ranges))


def values_of(parameter: Parameter) -> st.SearchStrategy[Any]:
    if isinstance(parameter, Category):
        return st.sampled_from(parameter.options)
    return st.floats(parameter.low, parameter.high)


@given(params=st.fixed_dictionaries({p.name: values_of(p) for p in parameters(space_of())}))
def test_any_values_of_the_parameters_are_a_proposal(params: dict[str, Any]) -> None:
    space = space_of()
    proposal = read_proposal(space, params)
    assert proposal.policy.kind == params["policy"]
    assert all(set(allowed) <= set(unit.precisions) and allowed for unit, allowed in _with_units(space, proposal.sets))
    assert all(0 <= target <= 1 for target in proposal.targets)
    assert list(proposal.targets) == sorted(proposal.targets)
    stages = {
        PolicyKind.CASCADE: len(proposal.targets) - 1,
        PolicyKind.EXIT: len(proposal.exits),
    }
    assert len(proposal.policy.escalation) == stages.get(proposal.policy.kind, 0)


def _with_units(space: SearchSpace, sets: Any) -> list[tuple[Unit, tuple[Precision, ...]]]:
    return [(unit, sets[unit.name]) for unit in space.units]


def test_every_assignment_is_proposed_by_some_parameters() -> None:
    space = space_of()
    declared = [p for p in parameters(space) if isinstance(p, Category) and ":" in p.name]
    reached = set()
    for values in product(*(p.options for p in declared)):
        sets = precision_sets(space, dict(zip((p.name for p in declared), values, strict=True)))
        if all(len(allowed) == 1 for allowed in sets.values()):
            reached.add(tuple(allowed[0] for allowed in sets.values()))
    assert reached == set(product(*(unit.precisions for unit in space.units)))


def test_a_set_is_the_box_of_its_ranges() -> None:
    sets = precision_sets(space_of(), {"weights:a": "2..4", "activations:a": "4..8"})
    assert sets["a"] == precisions("w2a4", "w2a8", "w4a4", "w4a8")


def test_an_empty_box_means_the_nearest_precisions() -> None:
    sets = precision_sets(space_of(), {"weights:b": "2..2", "activations:b": "2..2"})
    assert sets["b"] == precisions("w2a4")
    sets = precision_sets(space_of(), {"weights:b": "8..8", "activations:b": "8..8"})
    assert sets["b"] == precisions("w4a8")


def test_units_without_a_choice_have_no_parameter() -> None:
    names = {p.name for p in parameters(space_of())}
    assert {"weights:a", "activations:a", "weights:b", "activations:b"} <= names
    assert not {name for name in names if name.endswith((":c", ":fc"))}


def test_a_policy_that_the_space_lacks_has_no_parameters() -> None:
    static = parameters(space_of(kinds=(PolicyKind.STATIC,)))
    assert [p.name for p in static if ":" not in p.name] == ["target"]
    cascade = [p.name for p in parameters(space_of(kinds=(PolicyKind.CASCADE,))) if ":" not in p.name]
    assert cascade == ["target", "descent", "entries", "escalation0", "escalation1"]


def test_exits_are_offered_only_where_the_network_has_some() -> None:
    kinds = next(p for p in parameters(space_of(exits=0)) if p.name == "policy")
    assert isinstance(kinds, Category) and "exit" not in kinds.options
    exits = next(p for p in parameters(space_of()) if p.name == "exits")
    assert isinstance(exits, Category) and exits.options == ("exit1", "exit2", "exit1+exit2")


def test_targets_descend_evenly_to_the_cheapest_entry() -> None:
    params = {"policy": "gate", "target": 0.8, "descent": 0.5, "entries": 3, "gate_grid": 4, "gate_hidden": 8, "trade_off": 0.1}
    assert read_proposal(space_of(), params).targets == pytest.approx((0.4, 0.6, 0.8))


def test_the_first_trials_are_the_uniform_precisions_then_every_policy_with_whole_sets() -> None:
    space = space_of()
    seeds = seeded_trials(space)
    uniform = [precision_sets(space, params)["a"] for params in seeds[:3]]
    assert uniform == [precisions("w8a8"), precisions("w4a4"), precisions("w2a2")]
    assert {params["policy"] for params in seeds[:3]} == {"static"}
    assert {params["policy"] for params in seeds[3:7]} == set(PolicyKind)
    assert all(precision_sets(space, params)["a"] == GRID for params in seeds[3:])


def test_the_first_trials_use_only_declared_parameters_and_values() -> None:
    for space in (space_of(), space_of(kinds=(PolicyKind.STATIC,)), space_of(kinds=(PolicyKind.EXIT, PolicyKind.CASCADE))):
        declared = {p.name: p for p in parameters(space)}
        for params in seeded_trials(space):
            for name, value in params.items():
                parameter = declared[name]
                inside = (
                    value in parameter.options if isinstance(parameter, Category) else parameter.low <= value <= parameter.high
                )
                assert inside, f"{name}={value}"


def test_a_trade_off_is_searched_on_a_logarithmic_scale() -> None:
    trade_off = next(p for p in parameters(space_of()) if p.name == "trade_off")
    assert isinstance(trade_off, Interval) and trade_off.log
