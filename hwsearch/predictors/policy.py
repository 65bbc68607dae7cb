"""Kinds of policies: what a search varies about each, and how it learns from what a menu's entries gave.

A kind is a file of this room with four functions and a row of `POLICIES`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsearch.graph.menu import PolicyKind, PolicyShape
from hwsearch.graph.space import SearchSpace
from hwsearch.predictors import cascade, exit, gate, static
from hwsearch.predictors.fitted import EntryResults, FittedPolicy
from hwsearch.predictors.parameters import Parameter, Params
from hwsearch.quantizers.uniform import InputQuantizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One kind of policy.

    `parameters`: those that no other kind has, in the order in which they are sampled. `shape`: from a value of each parameter
    and the number of entries. `fit`: the policy of a shape that does best on results, from the supernet's input quantizer and
    a seed.
    """

    parameters: Callable[[SearchSpace], tuple[Parameter, ...]]
    shape: Callable[[Params, int], PolicyShape]
    fit: Callable[[PolicyShape, EntryResults, InputQuantizer, int], FittedPolicy]


POLICIES: Mapping[PolicyKind, Policy] = {
    PolicyKind.STATIC: Policy(parameters=static.parameters, shape=static.shape, fit=static.fit),
    PolicyKind.GATE: Policy(parameters=gate.parameters, shape=gate.shape, fit=gate.fit),
    PolicyKind.CASCADE: Policy(parameters=cascade.parameters, shape=cascade.shape, fit=cascade.fit),
    PolicyKind.EXIT: Policy(parameters=exit.parameters, shape=exit.shape, fit=exit.fit),
}


def fit_policy(shape: PolicyShape, results: EntryResults, *, input_quantizer: InputQuantizer, seed: int) -> FittedPolicy:
    """The policy of this shape that does best on `results`; `input_quantizer` is the supernet's."""
    return POLICIES[shape.kind].fit(shape, results, input_quantizer, seed)


def cross_fitted(shape: PolicyShape, results: EntryResults, *, input_quantizer: InputQuantizer, seed: int) -> NDArray[np.int64]:
    """Decisions of policies on images they were not fitted on: two random halves, each decided by the other's policy."""
    order = np.random.default_rng(seed).permutation(len(results.losses))
    halves = (np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :]))
    decisions = np.zeros(len(order), dtype=np.int64)
    for fitted_on, decided in (halves, halves[::-1]):
        policy = fit_policy(shape, results.subset(fitted_on), input_quantizer=input_quantizer, seed=seed)
        rest = results.subset(decided)
        decisions[decided] = policy.decide(rest.images, rest.margins)
    return decisions
