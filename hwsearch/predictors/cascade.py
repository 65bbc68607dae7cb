"""The cascade: entries run from the cheapest on, each from the start, until one is confident. Costs add up."""

from hwsearch.graph.menu import PolicyKind, PolicyShape
from hwsearch.graph.space import SearchSpace
from hwsearch.predictors.fitted import EntryResults
from hwsearch.predictors.parameters import Parameter, Params
from hwsearch.predictors.threshold import Thresholds, escalation_of, fit_thresholds
from hwsearch.quantizers.uniform import InputQuantizer


def parameters(space: SearchSpace) -> tuple[Parameter, ...]:
    """None of its own: shares of inputs that are sent on are those of every kind that escalates (`threshold.py`)."""
    return ()


def policy_of(params: Params, entries: int) -> PolicyShape:
    return PolicyShape(kind=PolicyKind.CASCADE, escalation=escalation_of(params, entries - 1))


def fit(policy: PolicyShape, results: EntryResults, input_quantizer: InputQuantizer, seed: int) -> Thresholds:
    return Thresholds(fit_thresholds(results.margins, policy.escalation))
