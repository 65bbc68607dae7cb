"""Prices: sums of the rows that run, memory of whole menus, and refusals that name what is missing."""

import pickle
from dataclasses import replace
from types import SimpleNamespace

import pytest

from hwsearch.errors import ProfileError
from hwsearch.graph.controllers import argmax_op, controller_assignment
from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind, PolicyShape
from hwsearch.graph.network import Network
from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.graph.space import PolicyRanges, SearchSpace, Unit
from hwsearch.hardware.profile import HardwareProfile, RowKey
from hwsearch.kernels.layout import STEP_BYTES, in_lines, memory_plan, packed_weight_bytes, requantize_bytes, scratch_bytes
from hwsearch.pricing.cost_model import CostModel

W8A8, W4A4, W2A2 = (Precision(bits, bits) for bits in (8, 4, 2))
INPUT_BYTES, RUNTIME_BYTES = 64, 500


def assign(network: Network, precision: Precision) -> BitAssignment:
    """`precision` in conv2 and its inputs; the input's reader and every logit at 8 bits."""
    own = {op.name: Precision(8 if op.has_weights else 0, 8) for op in network.ops}
    own |= {"conv2": precision, "exit1.pool": precision.without_weights()}
    return BitAssignment(own)


def expected_us(costs: CostModel, make: SimpleNamespace, assignment: BitAssignment, names: str, stored: dict[str, int]) -> float:
    ops = [costs.network[name] for name in names.split()]
    own = [assignment[op.name] for op in ops]
    counts = [make.cycles(op, p, stored.get(op.name, p.weight_bits)) for op, p in zip(ops, own, strict=True)]
    return float(sum(counts)) / 100.0


def static(assignment: BitAssignment) -> Menu:
    return Menu(kind=PolicyKind.STATIC, entries=(MenuEntry(assignment=assignment),))


@pytest.fixture
def costs(network: Network, profile: HardwareProfile) -> CostModel:
    return CostModel(network, profile)


def test_activations_narrower_than_a_kernel_are_priced_as_that_kernel(costs: CostModel) -> None:
    narrow, runs_at = Precision(2, 1), Precision(2, 2)
    op = costs.network["conv2"]
    price = costs.op_price(op, narrow, 2)
    assert price.precision == narrow and replace(price, precision=runs_at) == costs.op_price(op, runs_at, 2)
    assert scratch_bytes(op, narrow, costs.isa) == scratch_bytes(op, runs_at, costs.isa)


def test_the_price_is_the_sum_of_the_rows_that_run(costs: CostModel, make: SimpleNamespace) -> None:
    assignment = assign(costs.network, W4A4)
    price = costs.price(assignment)
    assert price.latency_us == pytest.approx(expected_us(costs, make, assignment, "conv1 conv2 pool fc", {}))
    assert price.energy_uj == pytest.approx(price.latency_us * 40.0 / 1000)
    assert [part.op for part in costs.breakdown(assignment)] == ["conv1", "conv2", "pool", "fc"]
    assert sum(part.latency_us for part in costs.breakdown(assignment)) == pytest.approx(price.latency_us)


def test_a_price_to_an_exit_leaves_out_what_follows_it(costs: CostModel, make: SimpleNamespace) -> None:
    assignment = assign(costs.network, W4A4)
    early = costs.price(assignment, exits=("exit1",))
    assert early.latency_us == pytest.approx(expected_us(costs, make, assignment, "conv1 exit1.pool exit1.fc", {}))


def test_weights_stored_wider_cost_their_expansion_and_their_flash(costs: CostModel, make: SimpleNamespace) -> None:
    assignment = assign(costs.network, W2A2)
    own, nested = costs.price(assignment), costs.price(assignment, stored_bits={"conv2": 8})
    assert nested.latency_us == pytest.approx(expected_us(costs, make, assignment, "conv1 conv2 pool fc", {"conv2": 8}))
    conv2 = costs.network["conv2"]
    wide, narrow = (in_lines(packed_weight_bytes(conv2, bits)) for bits in (8, 2))
    assert nested.flash_bytes - own.flash_bytes == wide - narrow > 0


def test_flash_is_weights_constants_program_and_each_kernel_once(costs: CostModel) -> None:
    network = costs.network
    assignment = assign(network, W8A8)
    ops = [network[name] for name in ("conv1", "conv2", "pool", "fc")]
    weights = sum(in_lines(packed_weight_bytes(op, 8)) for op in ops if op.has_weights)
    constants = sum(requantize_bytes(op, logits=op.name == "fc") + STEP_BYTES for op in ops)
    code = 188 + 188 + 100  # conv2d and linear at w8a8, and the pool; conv2d is used twice but linked once
    tied = 3 * 32  # hw_program, one segment and one price, each on a line of its own
    assert costs.price(assignment).flash_bytes == weights + constants + code + RUNTIME_BYTES + tied


def test_ram_is_the_planned_arena_and_the_callers_input(costs: CostModel) -> None:
    network = costs.network
    assignment = assign(network, W4A4)
    arena = memory_plan(network, network.path([""]), assignment, costs.isa).arena_bytes
    assert costs.price(assignment).ram_bytes == INPUT_BYTES + arena
    assert arena >= 4 * 8 * 8 + 8 * 4 * 4  # conv1's and conv2's outputs live together


def test_a_static_path_costs_what_its_assignment_costs(costs: CostModel) -> None:
    assignment = assign(costs.network, W2A2)
    assert costs.paths(static(assignment)) == (costs.price(assignment),)


def test_a_cascade_adds_up_and_decides_after_every_entry_but_the_last(costs: CostModel, make: SimpleNamespace) -> None:
    cheap, dear = assign(costs.network, W2A2), assign(costs.network, W8A8)
    menu = Menu(kind=PolicyKind.CASCADE, entries=(MenuEntry(assignment=cheap), MenuEntry(assignment=dear)))
    paths = costs.paths(menu)
    names, stored = "conv1 conv2 pool fc", {"conv2": 8}
    first = expected_us(costs, make, cheap, names, stored) + decision_us(make, 10)
    assert paths[0].latency_us == pytest.approx(first)
    assert paths[1].latency_us == pytest.approx(first + expected_us(costs, make, dear, names, stored))


def decision_us(make: SimpleNamespace, classes: int) -> float:
    return float(make.cycles(argmax_op(classes), Precision(0, 8), 0)) / 100.0


def test_exits_share_the_trunk_and_pay_every_head_they_pass(costs: CostModel, make: SimpleNamespace) -> None:
    assignment = assign(costs.network, W4A4)
    entries = (MenuEntry(assignment=assignment, exit="exit1"), MenuEntry(assignment=assignment))
    first, second = costs.paths(Menu(kind=PolicyKind.EXIT, entries=entries))
    head = expected_us(costs, make, assignment, "conv1 exit1.pool exit1.fc", {})
    rest = expected_us(costs, make, assignment, "conv2 pool fc", {})
    assert first.latency_us == pytest.approx(head + decision_us(make, 10))
    assert second.latency_us == pytest.approx(head + decision_us(make, 10) + rest)


def test_a_gate_pays_itself_its_decision_and_one_entry(
    costs: CostModel, gate: Network, gate_policy: PolicyShape, make: SimpleNamespace
) -> None:
    cheap, dear = assign(costs.network, W2A2), assign(costs.network, W8A8)
    menu = Menu(kind=PolicyKind.GATE, entries=(MenuEntry(assignment=cheap), MenuEntry(assignment=dear)))
    paths = costs.paths(menu, gate_policy)
    own = controller_assignment(gate)
    gate_us = sum(make.cycles(op, own[op.name], own[op.name].weight_bits) for op in gate.ops) / 100.0
    for path, assignment in zip(paths, (cheap, dear), strict=True):
        entry = expected_us(costs, make, assignment, "conv1 conv2 pool fc", {"conv2": 8})
        assert path.latency_us == pytest.approx(gate_us + decision_us(make, 2) + entry)


def test_a_dynamic_model_keeps_weights_once_and_constants_per_entry(costs: CostModel) -> None:
    cheap, dear = assign(costs.network, W2A2), assign(costs.network, W8A8)
    alone = costs.paths(static(dear))[0]
    menu = Menu(kind=PolicyKind.CASCADE, entries=(MenuEntry(assignment=cheap), MenuEntry(assignment=dear)))
    first, second = costs.paths(menu)
    assert (first.flash_bytes, first.ram_bytes) == (second.flash_bytes, second.ram_bytes)
    constants = sum(requantize_bytes(op, logits=op.name == "fc") + STEP_BYTES for op in costs.network.path([""]))
    new_code = 122 + 100  # conv2d at w2a2 and the decision
    thresholds = 32
    assert first.flash_bytes == alone.flash_bytes + constants + new_code + thresholds
    assert first.ram_bytes == max(alone.ram_bytes, costs.price(cheap).ram_bytes)


def test_an_exit_menu_keeps_one_set_of_constants(costs: CostModel) -> None:
    assignment = assign(costs.network, W8A8)
    entries = (MenuEntry(assignment=assignment, exit="exit1"), MenuEntry(assignment=assignment))
    flash = costs.paths(Menu(kind=PolicyKind.EXIT, entries=entries))[0].flash_bytes
    head = [costs.network["exit1.pool"], costs.network["exit1.fc"]]
    constants = requantize_bytes(head[0]) + requantize_bytes(head[1], logits=True) + 2 * STEP_BYTES
    decision_code, thresholds = 100, 32
    extra = constants + in_lines(packed_weight_bytes(head[1], 8)) + decision_code + thresholds
    assert flash == costs.price(assignment).flash_bytes + extra


def test_a_gate_menu_without_its_policy_is_a_programming_error(costs: CostModel, gate_policy: PolicyShape) -> None:
    assignment = assign(costs.network, W8A8)
    menu = Menu(kind=PolicyKind.GATE, entries=(MenuEntry(assignment=assignment),) * 2)
    with pytest.raises(ValueError, match="the policy of a gate menu must be given to price it, but none was"):
        costs.paths(menu)
    with pytest.raises(ValueError, match="the policy of a cascade menu must be given to price it, but that of a gate was"):
        costs.paths(replace(menu, kind=PolicyKind.CASCADE), gate_policy)


def test_a_kind_without_controller_costs_the_same_with_its_shape_and_without(costs: CostModel) -> None:
    cheap, dear = assign(costs.network, W2A2), assign(costs.network, W8A8)
    menu = Menu(kind=PolicyKind.CASCADE, entries=(MenuEntry(assignment=cheap), MenuEntry(assignment=dear)))
    assert costs.paths(menu, PolicyShape(kind=PolicyKind.CASCADE, escalation=(0.5,))) == costs.paths(menu)


def test_unit_prices_add_up_to_the_price(costs: CostModel) -> None:
    widths = (W2A2, W4A4, W8A8)
    units = (
        Unit(name="conv1", ops=("conv1",), precisions=(W8A8,)),
        Unit(name="conv2", ops=("conv2", "exit1.pool"), precisions=widths),
        Unit(name="pool", ops=("pool",), precisions=(Precision(0, 8),)),
        Unit(name="fc", ops=("fc",), precisions=(W8A8,)),
        Unit(name="head", ops=("exit1.fc",), precisions=(W8A8,)),
    )
    space = SearchSpace(name="small", network=costs.network, units=units, policies=PolicyRanges())
    prices = costs.unit_prices(space)
    assert {name: len(options) for name, options in prices.items()} == {"conv1": 1, "conv2": 3, "pool": 1, "fc": 1, "head": 1}
    assert prices["head"] == [(W8A8, 0, 0)]  # not on the way to the trunk's end
    for option, precision in enumerate(widths):
        chosen = [options[option if name == "conv2" else 0] for name, options in prices.items()]
        price = costs.price(assign(costs.network, precision))
        assert sum(unit.latency_us for unit in chosen) == pytest.approx(price.latency_us)
        shared = costs.shared_flash_bytes(costs.breakdown(assign(costs.network, precision)))
        assert sum(unit.flash_bytes for unit in chosen) + shared == price.flash_bytes


def test_provenance_shares_are_of_latency_and_sum_to_one(costs: CostModel) -> None:
    prices = costs.breakdown(assign(costs.network, W8A8))
    assert costs.provenance(prices) == {"emulated": pytest.approx(1.0)}
    mixed = [replace(prices[0], interpolated=True), *prices[1:]]
    shares = costs.provenance(mixed)
    total = sum(price.latency_us for price in prices)
    assert shares["emulated (interpolated)"] == pytest.approx(prices[0].latency_us / total)
    assert sum(shares.values()) == pytest.approx(1.0)


def test_the_uncertainty_is_the_validity_plus_the_spread_of_the_clock(network: Network, profile: HardwareProfile) -> None:
    noisy = replace(profile.measurements[0], count_p05=0.9 * profile.measurements[0].count_median)
    model = CostModel(network, replace(profile, measurements=(noisy, *profile.measurements[1:])))
    op = next(op for op in network.ops if RowKey.of(op, noisy.precision, noisy.stored_bits) == noisy.key)
    price = model.op_price(op, noisy.precision, noisy.stored_bits)
    assert price.uncertainty == pytest.approx(0.1 + 0.05)
    quiet = model.op_price(network["fc"], W8A8, 8)
    assert CostModel.uncertainty([price]) == pytest.approx(0.15)
    both = (price.latency_us * 0.15 + quiet.latency_us * 0.1) / (price.latency_us + quiet.latency_us)
    assert CostModel.uncertainty([price, quiet]) == pytest.approx(both)


def test_a_missing_width_is_refused_naming_row_and_command(network: Network, profile: HardwareProfile) -> None:
    kept = tuple(row for row in profile.measurements if str(row.precision) != "w4a4")
    costs = CostModel(network, replace(profile, measurements=kept))
    message = (
        r"Profile board must have a row for conv2d 3x3 8x8x4 -> 4x4x8 w4a4 stored at 4 bits, but has for conv2d only the widths "
        r"w2a2, w2a4.*measure it with `hwsearch measure board"
    )
    with pytest.raises(ProfileError, match=message):
        costs.price(assign(network, W4A4))


def test_a_missing_operation_is_refused_naming_row_and_command(network: Network, profile: HardwareProfile) -> None:
    kept = tuple(row for row in profile.measurements if row.op != "avg_pool")
    costs = CostModel(network, replace(profile, measurements=kept))
    message = r"a row for avg_pool 4x4 4x4x8 -> 1x1x8 a8, but has none of that kernel.*hwsearch measure"
    with pytest.raises(ProfileError, match=message):
        costs.price(assign(network, W8A8))


def test_too_few_rows_are_not_interpolated(network: Network, profile: HardwareProfile, make: SimpleNamespace) -> None:
    other = make.conv("other", "input", (5, 7), 8)
    with pytest.raises(ProfileError, match=r"only 1 of its kernel and precision \(fewer than the 4"):
        CostModel(network, profile).op_price(other, W8A8, 8)


def test_a_model_survives_pickling(costs: CostModel) -> None:
    copy: CostModel = pickle.loads(pickle.dumps(costs))
    assert copy.price(assign(copy.network, W4A4)) == costs.price(assign(costs.network, W4A4))
