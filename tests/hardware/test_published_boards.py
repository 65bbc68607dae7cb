"""Profiles of published stacks: derived from the committed facts, honest about what those leave open, and usable."""

import csv
import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsearch.errors import ProfileError
from hwsearch.graph.network import Network
from hwsearch.graph.precision import Precision
from hwsearch.hardware.profile import HardwareProfile, Provenance, RowKey, load_profile
from hwsearch.hardware.published import COLUMNS, read_networks
from hwsearch.measuring.grid import reference_ops
from hwsearch.measuring.measure import measure
from hwsearch.pricing.cost_model import CostModel
from hwsearch.pricing.prices import OpPrice

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("nucleo_l4r5zi.cmsis_nn", "nucleo_l4r5zi.x_cube_ai", "raspberry_pi_4b.tflite")
TINY = {"ic": "resnet8", "kws": "dscnn", "vww": "mobilenetv1"}
W8A8, W4A8 = Precision(8, 8), Precision(4, 8)


def prices(profile: HardwareProfile, tiny: str, precision: Precision) -> list[OpPrice]:
    """Of every operation of one reference network."""
    ops = reference_ops()[TINY[tiny]]
    costs = CostModel(Network(ops[:1], ops[0].in_shape, "first operation"), profile)
    own = [precision if op.has_weights else precision.without_weights() for op in ops]
    return [costs.op_price(op, one, one.weight_bits) for op, one in zip(ops, own, strict=True)]


def total_us(listed: list[OpPrice]) -> float:
    return sum(price.latency_us for price in listed)


@pytest.fixture(scope="module")
def profiles(shipped: Callable[[str], HardwareProfile]) -> dict[str, HardwareProfile]:
    return {name: shipped(name) for name in NAMES}


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    yield importlib.import_module("published_fits")
    del sys.modules["published_fits"]


@pytest.mark.slow
def test_the_script_writes_what_is_shipped(profiles: dict[str, HardwareProfile], tmp_path: Path) -> None:
    script = ROOT / "tools" / "published_boards.py"
    result = subprocess.run(
        [sys.executable, script, "--folder", tmp_path], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    for name in NAMES:
        again, before = load_profile(tmp_path / name), profiles[name]
        assert again.header == before.header
        assert again.networks == before.networks
        assert [row.key for row in again.measurements] == [row.key for row in before.measurements]
        for new, old in zip(again.measurements, before.measurements, strict=True):
            assert (new.count_p05, new.count_median, new.count_p95) == pytest.approx(
                (old.count_p05, old.count_median, old.count_p95), rel=1e-4, abs=2
            ), new.key


@pytest.mark.parametrize("name", NAMES)
def test_every_row_is_calibrated_and_has_an_interval(profiles: dict[str, HardwareProfile], name: str) -> None:
    profile = profiles[name]
    assert {row.provenance for row in profile.measurements} == {Provenance.CALIBRATED}
    assert profile.header.library.published
    assert all(0 < row.count_p05 < row.count_median < row.count_p95 for row in profile.measurements)


@pytest.mark.parametrize("name", NAMES)
def test_the_stated_error_covers_every_network_left_out(profiles: dict[str, HardwareProfile], name: str) -> None:
    profile = profiles[name]
    errors = [abs(network.left_out_error) for network in profile.networks if network.precision == "int8"]
    assert len(errors) >= 4
    assert max(errors) <= profile.validity.relative_error < 1.0
    for error in errors if name.startswith("nucleo") else [max(errors)]:
        assert f"{100 * error:.1f} %" in profile.validity.text


@pytest.mark.parametrize("name", NAMES)
def test_mlperf_tiny_networks_have_a_price(profiles: dict[str, HardwareProfile], name: str) -> None:
    for tiny in TINY:
        for price in prices(profiles[name], tiny, W8A8):
            assert not price.interpolated
            assert price.uncertainty >= profiles[name].validity.relative_error


def published_us(profile: HardwareProfile, tiny: str) -> float:
    (network,) = [one for one in profile.networks if one.network == f"mlperf-tiny-{tiny}"]
    return network.latency_us


@pytest.mark.parametrize(("name", "tolerance"), [(NAMES[0], 0.10), (NAMES[1], 0.01)])
def test_whole_networks_cost_what_was_published(profiles: dict[str, HardwareProfile], name: str, tolerance: float) -> None:
    for tiny in TINY:
        priced = total_us(prices(profiles[name], tiny, W8A8))
        assert priced == pytest.approx(published_us(profiles[name], tiny), rel=tolerance)


def test_four_bit_weights_do_not_pay_under_cmsis_nn(profiles: dict[str, HardwareProfile]) -> None:
    profile = profiles[NAMES[0]]
    lowest_us = {row.key: row.count_p05 / profile.device.clock_hz * 1e6 for row in profile.measurements}
    for tiny, network in TINY.items():
        wide, narrow = prices(profile, tiny, W8A8), prices(profile, tiny, W4A8)
        assert total_us(narrow) > 1.5 * total_us(wide)
        assert sum(price.weight_bytes for price in narrow) < 0.6 * sum(price.weight_bytes for price in wide)
        keys = [RowKey.of(op, W4A8 if op.has_weights else Precision(0, 8), 4 * op.has_weights) for op in reference_ops()[network]]
        assert sum(lowest_us[key] for key in keys) > total_us(wide), "even without any wait for flash"


def test_a_width_the_library_lacks_is_refused_without_advice_to_measure(profiles: dict[str, HardwareProfile]) -> None:
    with pytest.raises(ProfileError, match=r"only the widths w8a8; X-CUBE-AI cannot be measured here"):
        prices(profiles[NAMES[1]], "ic", Precision(4, 4))


def test_our_kernels_are_not_measured_into_a_published_table(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="published numbers of CMSIS-NN; measure the board's own profile"):
        measure("nucleo_l4r5zi.cmsis_nn", folder=tmp_path)


def test_float32_stands_as_whole_networks_only(profiles: dict[str, HardwareProfile]) -> None:
    profile = profiles[NAMES[2]]
    real = {network.network: network for network in profile.networks if network.precision == "float32"}
    narrow = {network.network: network for network in profile.networks if network.precision == "int8"}
    assert len(narrow) == 21
    assert all(real[name].latency_us > 1.8 * narrow[name].latency_us for name in narrow)
    assert all(real[name].energy_uj > 1.7 * narrow[name].energy_uj for name in narrow)
    assert "float32 has no rows" in profile.validity.text


def test_products_of_published_architectures_are_those_counted_elsewhere(fits: Any) -> None:
    """569 M for MobileNetV1 (its paper), 13.57 M for the smallest; 4.1 thousand million for ResNet-50."""
    assert sum(fits.pi4_turns("mobilenet-v1-1.0-224")[1:3]) == 568_741_376
    assert sum(fits.pi4_turns("mobilenet-v1-0.25-128")[1:3]) == 13_570_304
    assert sum(fits.pi4_turns("resnet50")[1:3]) == pytest.approx(4.09e9, rel=0.01)
    assert sum(fits.pi4_turns("efficientnet-lite0")[1:3]) == pytest.approx(407e6, rel=0.06)


def test_an_interval_is_what_the_totals_leave_open(fits: Any) -> None:
    """Two prices with sum 10, neither below 2: each lies in 2..8; a second total of the first alone settles both."""
    one = fits.Problem(
        basis=np.eye(2), members=np.array([[1.0, 1.0]]), totals=np.array([10.0]), slack=0.0, least_rate=0.0,
        lowest=np.array([2.0, 2.0]), highest=np.array([np.inf, np.inf]),
    )  # fmt: skip
    found = fits.identified(one)
    assert found.low == pytest.approx([2, 2])
    assert found.high == pytest.approx([8, 8])
    assert found.point == pytest.approx([5, 5])
    both = fits.Problem(
        basis=np.eye(2), members=np.array([[1.0, 1.0], [1.0, 0.0]]), totals=np.array([10.0, 3.0]), slack=0.0, least_rate=0.0,
        lowest=np.array([2.0, 2.0]), highest=np.array([np.inf, np.inf]),
    )  # fmt: skip
    settled = fits.identified(both)
    assert settled.low == pytest.approx([3, 7])
    assert settled.high == pytest.approx([3, 7])


def test_totals_that_no_prices_meet_are_refused(fits: Any) -> None:
    impossible = fits.Problem(
        basis=np.eye(1), members=np.array([[1.0]]), totals=np.array([1.0]), slack=0.0, least_rate=0.0,
        lowest=np.array([2.0]), highest=np.array([np.inf]),
    )  # fmt: skip
    with pytest.raises(ValueError, match="allow more slack"):
        fits.identified(impossible)


def test_the_one_factor_of_proportional_totals_is_exact(fits: Any) -> None:
    emulated = np.array([10.0, 30.0, 5.0])
    assert fits.one_factor(emulated, 1.3 * emulated) == pytest.approx(1.3)
    assert fits.factor_left_out(emulated, 1.3 * emulated) == pytest.approx([0, 0, 0], abs=1e-12)


def test_damaged_networks_are_refused_with_their_line(tmp_path: Path) -> None:
    with (tmp_path / "networks.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, ["a", "int8", "12", "-3", "11", "somewhere"]])
    with pytest.raises(ProfileError, match=r"networks\.csv:2: times and energies must be above 0, but found -3"):
        read_networks(tmp_path)
