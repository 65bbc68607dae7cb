"""Sweeps over precisions: a few run always, all of them with the slow tests."""

from collections.abc import Sequence
from typing import Any

import pytest

from hwsearch.graph.precision import Precision


def sweep(precisions: Sequence[Precision], *always: str) -> list[Any]:
    """The parameters of a test: all `precisions`, those not named marked as slow.

    Emulation and building for a core take most of the time of these tests, and both are spent on each precision anew.
    """
    assert {*always} <= {*map(str, precisions)}
    return [one if str(one) in always else pytest.param(one, marks=pytest.mark.slow) for one in precisions]
