"""Timing under a monotonic clock: how many repeats, how long each, and what of them is kept."""

import numpy as np
from numpy.typing import NDArray

from hwsearch.measuring.targets.target import Timing

REPEATS = 15
REPEAT_NS = 150e3
"""How long one repeat lasts at least, so that the clock's resolution does not matter."""


def timing_of(durations_ns: NDArray[np.float64], output: bytes) -> Timing:
    """From the mean time of a call in each repeat.

    >>> timing_of(np.array([1.0, 2.0, 3.0]), b"").median
    2.0
    """
    p05, median, p95 = np.percentile(durations_ns, [5, 50, 95])
    return Timing(median=float(median), p05=float(p05), p95=float(p95), repeats=len(durations_ns), output=output)
