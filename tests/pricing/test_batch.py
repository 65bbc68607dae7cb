"""Prices of many assignments at once are those of each, to the last bit."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from hwsearch.errors import SpaceError
from hwsearch.graph.network import Network
from hwsearch.graph.precision import Precision
from hwsearch.graph.space import PolicyRanges, SearchSpace, Unit, list_spaces, load_space, network_for_space
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.pricing import batch
from hwsearch.pricing.batch import BatchPricer
from hwsearch.pricing.cost_model import CostModel

SPACES = ("digits_cnn", "dscnn_kws", "lenet5_mnist", "mobilenetv1_vww", "resnet8_cifar10")
OnBoard = Callable[[str], tuple[CostModel, SearchSpace]]


@pytest.fixture(scope="module")
def on_board(shipped: Callable[[str], HardwareProfile]) -> OnBoard:
    """`on_board(name)` is a shipped space with its prices on the Cortex-M4 board."""

    def made(name: str) -> tuple[CostModel, SearchSpace]:
        space = load_space(name, network_for_space(name))
        return CostModel(space.network, shipped("nucleo_l4r5zi")), space

    return cache(made)


def random_choices(space: SearchSpace, n: int, seed: int) -> np.ndarray:
    sizes = [len(unit.precisions) for unit in space.units]
    return np.random.default_rng(seed).integers(0, sizes, (n, len(sizes)))  # [N, units]


def assert_equal_to_each(costs: CostModel, space: SearchSpace, choices: np.ndarray, exits: tuple[str, ...] = ("",)) -> None:
    pricer = BatchPricer(costs, space, exits=exits)
    prices = pricer.price(choices)
    for index, choice in enumerate(choices):
        cost = costs.price(pricer.assignment(choice), exits=exits)
        found = (prices.latency_us[index], prices.energy_uj[index], prices.flash_bytes[index], prices.ram_bytes[index])
        assert found == (cost.latency_us, cost.energy_uj, cost.flash_bytes, cost.ram_bytes)


def test_every_shipped_space_is_tested() -> None:
    assert set(SPACES) <= set(list_spaces())


@pytest.mark.parametrize("name", SPACES)
def test_random_assignments_cost_what_each_costs_alone(name: str, on_board: OnBoard) -> None:
    costs, space = on_board(name)
    assert_equal_to_each(costs, space, random_choices(space, 60, seed=1))


@pytest.mark.parametrize("exits", [("exit1",), ("exit1", "exit2", "")])
def test_exits_are_priced_too(exits: tuple[str, ...], on_board: OnBoard) -> None:
    costs, space = on_board("digits_cnn")
    assert_equal_to_each(costs, space, random_choices(space, 30, seed=2), exits)


@pytest.fixture
def small(network: Network, profile: HardwareProfile) -> tuple[CostModel, SearchSpace]:
    widths = (2, 4, 8)
    free = tuple(Precision(weights, activations) for weights in widths for activations in widths)
    grouped = {
        "conv1": ("conv1",), "exit1.pool": ("exit1.pool", "conv2"), "exit1.fc": ("exit1.fc",), "pool": ("pool",), "fc": ("fc",),
    }  # fmt: skip
    units = tuple(Unit(name=name, ops=ops, precisions=free) for name, ops in grouped.items())
    policies = PolicyRanges()
    return CostModel(network, profile), SearchSpace(name="small", network=network, units=units, policies=policies)


def test_rows_of_one_kernel_may_state_different_sizes(small: tuple[CostModel, SearchSpace]) -> None:
    """The largest that any called row states is in flash, as in the scalar price."""
    costs, space = small
    rows = [
        replace(row, code_bytes=row.code_bytes + 8 * (len(row.in_shape) + row.in_shape[0])) for row in costs.profile.measurements
    ]
    uneven = CostModel(costs.network, replace(costs.profile, measurements=tuple(rows)))
    assert_equal_to_each(uneven, space, random_choices(space, 200, seed=3))


def test_more_kernels_than_bits_of_a_word_take_several_words(
    small: tuple[CostModel, SearchSpace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "WORD_BITS", 4)
    monkeypatch.setattr(batch, "SLICE_BITS", 2)
    costs, space = small
    assert_equal_to_each(costs, space, random_choices(space, 100, seed=4))


def test_small_tables_and_chunks_give_the_same_prices(
    small: tuple[CostModel, SearchSpace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "TABLE_ROWS", 1)
    monkeypatch.setattr(batch, "CHUNK", 7)
    costs, space = small
    assert_equal_to_each(costs, space, random_choices(space, 50, seed=5))


def test_combinations_that_cannot_be_numbered_are_planned_one_by_one(on_board: OnBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MOST_COMBINATIONS", 10)
    costs, space = on_board("digits_cnn")
    assert_equal_to_each(costs, space, random_choices(space, 20, seed=6))


def test_no_assignments_have_no_prices(small: tuple[CostModel, SearchSpace]) -> None:
    costs, space = small
    assert BatchPricer(costs, space).price(np.zeros((0, len(space.units)), dtype=np.int64)).latency_us.shape == (0,)


def test_a_choice_that_is_no_option_is_refused(small: tuple[CostModel, SearchSpace]) -> None:
    costs, space = small
    pricer = BatchPricer(costs, space)
    with pytest.raises(SpaceError, match=r"unit conv1 must lie in 0\.\.8, but found 9;"):
        pricer.price(np.array([[9, 0, 0, 0, 0]]))
    with pytest.raises(SpaceError, match=r"unit fc must lie in 0\.\.8, but found -1;"):
        pricer.price(np.array([[0, 0, 0, 0, -1]]))
    with pytest.raises(SpaceError, match="one column for each of the 5 units"):
        pricer.price(np.array([[0.0] * 5]))
