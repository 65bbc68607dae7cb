"""A finished model with everything its bundle promises: integers, prices, certificate, accuracies."""

from collections.abc import Mapping
from dataclasses import dataclass

from hwsearch.graph.menu import PolicyShape
from hwsearch.hardware.cost import Budget, Cost, PolicyCost
from hwsearch.kernels.integer_network import Codes, Int32, IntegerModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Upper bound on the mean latency of one inference, from data used for nothing else.

    With probability `confidence` over the draw of `n_samples` inputs, the true mean is at most `bound_us`.
    `limit_us` is the budget it was held against; None if the mean had no limit.
    """

    limit_us: float | None
    bound_us: float
    observed_mean_us: float
    confidence: float
    n_samples: int
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalModel:
    """The finalizer's result and the exporter's input.

    `paths[k]` is the price of a whole inference ending at menu entry k, `shares[k]` the share of certification inputs that
    end there. `accuracy` and `float_accuracy` map a split's name to a share in 0..1, the former computed by the integer reference.
    `sample_codes` (uint8 `[N, height, width, channels]`, N >= 200 where the task has as many) and `sample_labels` become the
    bundle's test vectors. `lower_bound` reports what the integer programme says is the best reachable score.
    """

    model: IntegerModel
    shape: PolicyShape
    task: str
    profile: str
    budget: Budget
    paths: tuple[Cost, ...]
    shares: tuple[float, ...]
    cost: PolicyCost
    accuracy: Mapping[str, float]
    float_accuracy: Mapping[str, float]
    certificate: Certificate
    seed: int
    sample_codes: Codes
    sample_labels: Int32
    notes: Mapping[str, str]
