"""From the entries that unseen inputs took to an upper bound on the mean cost of the next one.

The inputs that a certificate is made of must have been used for nothing else: not for weights, thresholds, the search or
the choice of a checkpoint. They, and the inputs of later use, are taken as independent draws from one source; where the source
drifts, the run-time governor holds the mean and this bound does not.

An inference costs one of the menu's path costs, so its cost is bounded. With `n` inputs:

| path costs  | bound                                                                                           |
| ----------- | ----------------------------------------------------------------------------------------------- |
| all alike   | the cost itself                                                                                 |
| two values  | Clopper and Pearson (1934): exact for the share that takes the dearer path                      |
| more        | the smaller, at half the risk each, of Hoeffding-Bentkus (Bates et al., arXiv 2101.02703, section 3.1) |
|             | and the empirical Bernstein bound of Maurer and Pontil (arXiv 0907.3740, theorem 4)             |

Which row applies depends on the prices alone, never on the sample, so nothing is lost by choosing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr
from scipy.stats import beta

_BISECTIONS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanBound:
    """With probability `1 - delta` over the sample, the true mean is at most `upper` (in the unit of the costs)."""

    upper: float
    observed: float
    method: str


def bound_mean(entries: NDArray[np.int64], path_costs: Sequence[float], delta: float) -> MeanBound:
    """Bound the mean cost from the entries `[N]` that a sample of inputs took.

    >>> took = np.repeat([0, 1], [180, 20])
    >>> bound = bound_mean(took, (1.0, 2.0), delta=0.05)
    >>> round(bound.observed, 3), round(bound.upper, 3), bound.method
    (1.1, 1.142, 'clopper-pearson')
    """
    _check(entries, delta)
    costs = np.asarray(path_costs, dtype=np.float64)
    low, high = float(costs.min()), float(costs.max())
    observed = float(costs[entries].mean())
    if low == high:
        return MeanBound(upper=high, observed=high, method="exact")
    shares = (costs[entries] - low) / (high - low)
    if len(np.unique(costs)) == 2:
        upper = clopper_pearson(int(np.count_nonzero(shares)), len(shares), delta)
        method = "clopper-pearson"
    else:
        bounds = {
            "hoeffding-bentkus": hoeffding_bentkus(float(shares.mean()), len(shares), delta / 2),
            "empirical-bernstein": empirical_bernstein(shares, delta / 2),
        }
        method = min(bounds, key=lambda name: bounds[name])
        upper = bounds[method]
    return MeanBound(upper=low + (high - low) * min(upper, 1.0), observed=observed, method=method)


def _check(entries: NDArray[np.int64], delta: float) -> None:
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie between 0 and 1, but is {delta}")
    if len(entries) < 2:
        raise ValueError(f"a certificate needs at least two inputs, but has {len(entries)}")


def clopper_pearson(successes: int, n: int, delta: float) -> float:
    """Upper bound on a probability from `successes` in `n` trials, exact at risk `delta`."""
    return 1.0 if successes == n else float(beta.ppf(1 - delta, successes + 1, n - successes))


def hoeffding_bentkus(mean: float, n: int, delta: float) -> float:
    """Upper bound on the mean of variables in [0, 1] from the mean of `n`: the tighter of two tails, at risk `delta`.

    Both bound the chance of a sample mean this low if the true mean is `m`: Hoeffding's in its relative-entropy form,
    exp(-n KL(mean, m)), and Bentkus', e P(Binomial(n, m) <= ceil(n mean)) (`bdtr`). Both fall as `m` grows.
    """

    def tail(true_mean: float) -> float:
        chernoff = math.exp(-n * _relative_entropy(mean, true_mean))
        return min(chernoff, math.e * float(bdtr(math.ceil(n * mean - 1e-9), n, true_mean)))

    return _last_above(tail, delta, mean)


def _relative_entropy(p: float, q: float) -> float:
    """KL divergence of two coins, for 0 <= p <= q < 1."""
    first = p * math.log(p / q) if p > 0 else 0.0
    return first + ((1 - p) * math.log((1 - p) / (1 - q)) if p < 1 else 0.0)


def _last_above(tail: Callable[[float], float], delta: float, start: float) -> float:
    """Upper end of the last bisection interval above `start` in which a falling tail crosses `delta`."""
    low, high = start, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if middle >= 1.0 or tail(middle) < delta:
            high = middle
        else:
            low = middle
    return high


def empirical_bernstein(values: NDArray[np.float64], delta: float) -> float:
    """Upper bound on the mean of variables in [0, 1], tight where they vary little, at risk `delta`."""
    n, log_term = len(values), math.log(2 / delta)
    spread = math.sqrt(2 * float(np.var(values, ddof=1)) * log_term / n)
    return float(values.mean()) + spread + 7 * log_term / (3 * (n - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanLimit:
    """A limit on a mean, and what each path costs in its unit."""

    limit: float
    path_costs: tuple[float, ...]


def climb(rungs: Sequence[NDArray[np.int64]], limits: Sequence[MeanLimit], delta: float) -> int:
    """The last of a ladder of policies whose mean cost is certified to be within every limit; -1 if not even the first is.

    `rungs[j]`: entries `[N]` that the certification inputs take under policy `j`. The policies and their order must
    be fixed without these inputs. Fixed-sequence testing: each rung is tested at the full risk `delta` and the first
    that fails ends the climb; the statement "the chosen policy's true means are within the limits" is then wrong with
    probability at most `delta`, however many rungs there are (the first rung that is truly above a limit has a fixed
    place, and only passing its test can do harm). With several limits a rung must pass each one's test, which costs nothing.
    """
    for index, entries in enumerate(rungs):
        if any(bound_mean(entries, limit.path_costs, delta).upper > limit.limit for limit in limits):
            return index - 1
    return len(rungs) - 1
