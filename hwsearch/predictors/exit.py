"""Early exits: the trunk runs to one exit after another, until one is confident. Nothing is computed twice."""

from itertools import chain, combinations

from hwsearch.graph.menu import PolicyKind, PolicyShape
from hwsearch.graph.space import SearchSpace
from hwsearch.predictors.fitted import EntryResults
from hwsearch.predictors.parameters import Category, Parameter, Params
from hwsearch.predictors.threshold import Thresholds, escalation_of, fit_thresholds
from hwsearch.quantizers.uniform import InputQuantizer

ALL_EXITS = "+"
"""Between the names of the exits that a policy uses."""


def parameters(space: SearchSpace) -> tuple[Parameter, ...]:
    """Which exits there are; shares of inputs that are sent on are those of every kind that escalates (`threshold.py`)."""
    return (Category(name="exits", options=tuple(exit_sets(space))),)


def exit_sets(space: SearchSpace) -> list[str]:
    """Every choice of one exit or more, up to the entries that a menu may have, joined by `+`."""
    sizes = range(1, min(len(space.network.exits), space.policies.max_entries - 1) + 1)
    return [ALL_EXITS.join(chosen) for chosen in chain(*(combinations(space.network.exits, size) for size in sizes))]


def chosen_exits(params: Params) -> tuple[str, ...]:
    """The exits that the parameters name, in order."""
    return tuple(params["exits"].split(ALL_EXITS))


def policy_of(params: Params, entries: int) -> PolicyShape:
    return PolicyShape(kind=PolicyKind.EXIT, escalation=escalation_of(params, entries - 1))


def fit(policy: PolicyShape, results: EntryResults, input_quantizer: InputQuantizer, seed: int) -> Thresholds:
    return Thresholds(fit_thresholds(results.margins, policy.escalation))
