"""Packed copies of nested weights: what they save, what they weigh, and how much flash they may take."""

from dataclasses import replace

import pytest

from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind
from hwsearch.graph.network import Network
from hwsearch.graph.op import Op
from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.kernels.layout import in_lines, packed_weight_bytes
from hwsearch.pricing.copies import with_copies
from hwsearch.pricing.cost_model import CostModel
from hwsearch.pricing.prices import OpPrice, TablePrices


@pytest.fixture
def costs(network: Network, profile: HardwareProfile) -> CostModel:
    return CostModel(network, profile)


def copy_bytes(op: Op, bits: int) -> int:
    return in_lines(packed_weight_bytes(op, bits))


def cascade(network: Network, *bits: int) -> Menu:
    entries = [
        {op.name: Precision(width if op.has_weights else 0, width) for op in network.ops if op.name != "conv1"}
        | {"conv1": Precision(width, 8)}
        for width in bits
    ]
    return Menu(kind=PolicyKind.CASCADE, entries=tuple(MenuEntry(assignment=BitAssignment(one)) for one in entries))


def test_with_room_every_width_that_pays_has_a_copy_and_its_price_is_that_of_dense_weights(costs: CostModel) -> None:
    menu = cascade(costs.network, 2, 8)
    found = with_copies(menu, costs, None)
    assert found.copies == {("conv1", 2), ("conv2", 2)}  # what fc would gain is below a thousandth of the longest inference
    before, after = costs.paths(menu), costs.paths(found)
    own = costs.price(menu.entries[0].assignment, stored_bits={"fc": 8})
    decision = (
        before[0].latency_us - costs.price(menu.entries[0].assignment, stored_bits=menu.stored_bits(costs.network)).latency_us
    )
    assert after[0].latency_us == pytest.approx(own.latency_us + decision)
    assert after[1].latency_us - after[0].latency_us == pytest.approx(before[1].latency_us - before[0].latency_us)
    added = sum(copy_bytes(costs.network[name], 2) for name in ("conv1", "conv2"))
    assert [path.flash_bytes for path in after] == [path.flash_bytes + added for path in before]


def test_within_a_limit_the_copy_that_saves_most_per_byte_comes_first(costs: CostModel) -> None:
    menu = cascade(costs.network, 2, 8)
    used, weights = costs.paths(menu)[0].flash_bytes, copy_bytes(costs.network["conv1"], 2)
    saved = {
        name: costs.op_price(costs.network[name], menu.entries[0].assignment[name], 8).latency_us
        - costs.op_price(costs.network[name], menu.entries[0].assignment[name], 2).latency_us
        for name in ("conv1", "conv2")
    }
    assert saved["conv1"] / weights > saved["conv2"] / copy_bytes(costs.network["conv2"], 2)
    assert with_copies(menu, costs, used + weights).copies == {("conv1", 2)}
    assert with_copies(menu, costs, used + weights - 1).copies == frozenset()


def test_no_path_is_slower_and_no_limit_broken_for_any_number_of_entries(costs: CostModel) -> None:
    for bits in ((2, 4), (2, 4, 8), (4, 8), (8, 8)):
        menu = cascade(costs.network, *bits)
        before = costs.paths(menu)
        for room in (0, 40, 100, 1000):
            after = costs.paths(with_copies(menu, costs, before[0].flash_bytes + room))
            assert all(new.latency_us <= old.latency_us for new, old in zip(after, before, strict=True))
            assert after[0].flash_bytes <= before[0].flash_bytes + room


class Fussy(TablePrices):
    """Dense weights of conv2 are faster with 4-bit inputs, and slower, if by less, with 2-bit ones."""

    def op_price(self, op: Op, precision: Precision, stored_bits: int, *, logits: bool) -> OpPrice:
        price = super().op_price(op, precision, 8 if op.has_weights else 0, logits=logits)
        if op.name != "conv2" or stored_bits == 8 or precision.weight_bits != 2:
            return price
        return replace(price, latency_us=price.latency_us * (0.5 if precision.activation_bits == 4 else 1.1))


def test_a_copy_that_would_slow_one_entry_is_not_made_for_another(network: Network, profile: HardwareProfile) -> None:
    costs, menu = CostModel(network, profile, prices=Fussy(profile)), cascade(network, 2, 8)
    fast, dear = menu.entries
    other = MenuEntry(assignment=BitAssignment({**fast.assignment, "conv2": Precision(2, 4)}))
    assert ("conv2", 2) in with_copies(replace(menu, entries=(other, dear)), costs, None).copies
    assert ("conv2", 2) not in with_copies(replace(menu, entries=(fast, other, dear)), costs, None).copies


def test_a_static_menu_needs_no_copies(costs: CostModel) -> None:
    entry = cascade(costs.network, 2, 8).entries[0]
    assert with_copies(Menu(kind=PolicyKind.STATIC, entries=(entry,)), costs, None).copies == frozenset()
