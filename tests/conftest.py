"""What tests of several rooms share: the shipped tables."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from hwsearch.hardware.profile import HardwareProfile, load_profile

SHIPPED = Path(__file__).resolve().parents[1] / "hardware_profiles"


@pytest.fixture(scope="session")
def shipped() -> Callable[[str], HardwareProfile]:
    """`shipped(name)` is a shipped profile, each read once for all tests."""
    return cache(lambda name: load_profile(SHIPPED / name))
