"""Kinds of policies: what a search varies about each, and how it learns from what a menu's entries gave.

A kind is a file of this room with three functions and a row of `POLICIES`.
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
class PolicyRecord:
    """One kind of policy.

    `parameters`: those that no other kind has, in the order in which they are sampled. `policy_of`: the policy that a value of
    each parameter describes for a number of entries. `fit`: that policy, fitted to do best on results, from the supernet's
    input quantizer and a seed.
    """

    parameters: Callable[[SearchSpace], tuple[Parameter, ...]]
    policy_of: Callable[[Params, int], PolicyShape]
    fit: Callable[[PolicyShape, EntryResults, InputQuantizer, int], FittedPolicy]


POLICIES: Mapping[PolicyKind, PolicyRecord] = {
    PolicyKind.STATIC: PolicyRecord(parameters=static.parameters, policy_of=static.policy_of, fit=static.fit),
    PolicyKind.GATE: PolicyRecord(parameters=gate.parameters, policy_of=gate.policy_of, fit=gate.fit),
    PolicyKind.CASCADE: PolicyRecord(parameters=cascade.parameters, policy_of=cascade.policy_of, fit=cascade.fit),
    PolicyKind.EXIT: PolicyRecord(parameters=exit.parameters, policy_of=exit.policy_of, fit=exit.fit),
}


def fit_policy(policy: PolicyShape, results: EntryResults, *, input_quantizer: InputQuantizer, seed: int) -> FittedPolicy:
    """A policy fitted to do best on `results`; `input_quantizer` is the supernet's."""
    return POLICIES[policy.kind].fit(policy, results, input_quantizer, seed)


def cross_fitted(policy: PolicyShape, results: EntryResults, *, input_quantizer: InputQuantizer, seed: int) -> NDArray[np.int64]:
    """Decisions of policies on images they were not fitted on: two random halves, each decided by the other's policy."""
    order = np.random.default_rng(seed).permutation(len(results.losses))
    halves = (np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :]))
    decisions = np.zeros(len(order), dtype=np.int64)
    for fitted_on, decided in (halves, halves[::-1]):
        fitted = fit_policy(policy, results.subset(fitted_on), input_quantizer=input_quantizer, seed=seed)
        rest = results.subset(decided)
        decisions[decided] = fitted.decide(rest.images, rest.margins)
    return decisions
