"""Folding: the integer model computes what was trained. Torch, numpy and the fake-quantized pass are compared."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwsearch.errors import SpaceError
from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind
from hwsearch.graph.op import OpKind
from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.integers import execute
from hwsearch.integers.op_kinds import constant_counts
from hwsearch.integers.op_record import Counts
from hwsearch.quantizers.calibrate import estimate_statistics
from hwsearch.quantizers.fold import fold_model, folded_forward, integer_threshold, logit_step, multiplier_and_shift
from hwsearch.quantizers.training import narrowest, widest


def random_assignment(space, seed):
    rng = np.random.default_rng(seed)
    return space.assignment({unit.name: unit.precisions[rng.integers(len(unit.precisions))] for unit in space.units})


def fold_with_exits(supernet, assignment, images):
    exits = (*supernet.network.exits, "")
    menu = Menu(kind=PolicyKind.EXIT, entries=tuple(MenuEntry(assignment=assignment, exit=name) for name in exits))
    statistics = estimate_statistics(supernet, assignment, images, exits=exits)
    return fold_model(supernet, menu, [statistics] * len(exits), thresholds=[1.0] * (len(exits) - 1)), statistics


@pytest.mark.parametrize("seed", range(12))
def test_folded_integers_equal_the_numpy_reference_bit_for_bit(everything, seed):
    task, space, supernet = everything
    assignment = random_assignment(space, seed)
    model, _ = fold_with_exits(supernet, assignment, task.train.images)
    codes = supernet.encode(task.test.images[:16])
    last = len(model.entries) - 1
    torch_codes, numpy_codes = folded_forward(model, last, codes), execute.trace(model, last, codes)
    assert set(numpy_codes) == {op.name for op in space.network.ops}
    for name, wanted in numpy_codes.items():
        ours = torch_codes[name]
        channels_last = ours.permute(0, 2, 3, 1) if ours.dim() == 4 else ours
        assert np.array_equal(channels_last.numpy().reshape(wanted.shape), wanted), name


def test_every_kind_that_a_network_may_hold_is_captured_and_folds_to_constants_of_the_recorded_number(everything):
    task, space, supernet = everything
    model, _ = fold_with_exits(supernet, random_assignment(space, 0), task.train.images)
    assert {op.kind for op in space.network.ops} == {kind for kind in OpKind if not kind.traits.decides}
    for op in space.network.ops:
        constants, logits = model.entries[-1].constants[op.name], not space.network.consumers(op.name)
        found = Counts(bias=len(constants.bias), multiplier=len(constants.multiplier), shift=len(constants.shift))
        assert found == constant_counts(op, logits), op.name
        assert len(op.inputs) == len(constants.input_zero) == op.kind.traits.n_inputs, op.name


@pytest.mark.parametrize("seed", range(3))
def test_odd_widths_fold_to_the_numpy_reference_bit_for_bit(everything_odd, seed):
    task, space, supernet = everything_odd
    assignment = random_assignment(space, seed)
    assert {p.weight_bits for p in assignment.values()} & {1, 3} and {p.activation_bits for p in assignment.values()} & {1, 3}
    model, _ = fold_with_exits(supernet, assignment, task.train.images)
    codes, last = supernet.encode(task.test.images[:16]), len(model.entries) - 1
    logits = folded_forward(model, last, codes)[space.network.output.name]
    assert np.array_equal(logits.numpy(), execute.run_entry(model, last, codes)[""])


def fake_codes(supernet, assignment, images, statistics):
    """Codes of every operation in the fake-quantized pass, each from the integers its inputs really have."""
    seen = {}

    def remember(name):
        def hook(module, arguments, output):
            bits = arguments[1]
            seen[name] = torch.round(output / module.step(bits)) + module.zero(bits)

        return hook

    hooks = [
        supernet.activation(op.name).register_forward_hook(remember(op.name))
        for op in supernet.network.ops
        if not supernet.is_logits(op.name) and op.kind is not OpKind.MAX_POOL
    ]
    with torch.no_grad():
        logits = supernet.eval()(images, assignment, exits=(*supernet.network.exits, ""), statistics=statistics)
    for hook in hooks:
        hook.remove()
    return seen, logits


@pytest.mark.parametrize("seed", range(8))
def test_fake_quantized_codes_differ_by_at_most_one_and_rarely(everything, seed):
    """Tolerance: float32 sums meet rounding ties differently; 99.5 % of the codes are equal, none is more than one off.

    An early difference would be magnified later, so images are compared up to their first different tensor.
    """
    task, space, supernet = everything
    assignment = random_assignment(space, seed)
    model, statistics = fold_with_exits(supernet, assignment, task.train.images)
    integers = folded_forward(model, len(model.entries) - 1, supernet.encode(task.test.images))
    fake, logits = fake_codes(supernet, assignment, task.test.images, statistics)
    agrees = torch.ones(len(task.test), dtype=torch.bool)
    for name, codes in fake.items():
        difference = (codes.double() - integers[name]).abs().flatten(1)[agrees]
        assert difference.max() <= 1, name
        assert (difference != 0).double().mean() <= 0.005, name
        agrees[agrees.clone()] = difference.amax(dim=1) == 0
    assert agrees.double().mean() > 0.5
    for name, values in logits.items():
        whole = integers[space.network.output_of(name).name]
        in_units = values.double() / logit_step(supernet, assignment, name)
        assert (in_units - whole)[agrees].abs().max() <= 0.51 + 1e-5 * float(whole.abs().max())


def test_integer_answers_are_those_of_the_fake_quantized_network(everything):
    task, space, supernet = everything
    for precision in (Precision(8, 8), Precision(4, 4), Precision(2, 2)):
        assignment = space.uniform(precision)
        model, statistics = fold_with_exits(supernet, assignment, task.train.images)
        integers = execute.run_entry(model, len(model.entries) - 1, supernet.encode(task.test.images))[""]
        with torch.no_grad():
            logits = supernet(task.test.images, assignment, statistics=statistics)[""]
        assert (torch.from_numpy(integers).argmax(1) == logits.argmax(1)).double().mean() >= 0.98


def test_entries_of_different_widths_share_one_stored_code(everything):
    task, space, supernet = everything
    assignments = [narrowest(space), widest(space)]
    statistics = [estimate_statistics(supernet, one, task.train.images) for one in assignments]
    menu = Menu(kind=PolicyKind.CASCADE, entries=tuple(MenuEntry(assignment=one) for one in assignments))
    model = fold_model(supernet, menu, statistics, thresholds=[0.5])
    codes = supernet.encode(task.test.images[:8])
    for index, one in enumerate(assignments):
        alone = fold_model(supernet, Menu(kind=PolicyKind.STATIC, entries=(MenuEntry(assignment=one),)), [statistics[index]])
        assert np.array_equal(execute.run_entry(model, index, codes)[""], execute.run_entry(alone, 0, codes)[""])
    assert model.stored["stem"].bits == 8


def test_negative_batch_norm_scales_complement_the_stored_codes(everything):
    _, space, supernet = everything
    norm = supernet.weighted_op("stem").norm
    assert norm is not None and bool((norm.scale < 0).any()) and bool((norm.scale > 0).any())
    assignment = widest(space)
    menu = Menu(kind=PolicyKind.STATIC, entries=(MenuEntry(assignment=assignment),))
    running = {op.name: supernet.weighted_op(op.name).norm.running for op in space.network.ops if op.batch_norm}
    model = fold_model(supernet, menu, [running])
    codes = supernet.weighted_op("stem").quantizer.codes().permute(0, 2, 3, 1).numpy()
    for channel, scale in enumerate(norm.scale.tolist()):
        wanted = codes[channel] if scale > 0 else 255 - codes[channel]
        assert np.array_equal(model.stored["stem"].codes[channel], wanted)
    assert (model.entries[0].constants["stem"].multiplier > 0).all()


@pytest.mark.parametrize(("scale", "offset"), [(0.0, 0.7), (1e-12, -0.4), (0.0, 0.0)])
def test_a_dead_channel_keeps_its_constant_output(everything, scale, offset):
    task, space, original = everything
    supernet = type(original).from_arrays(space, original.to_arrays())
    norm = supernet.weighted_op("stem").norm
    with torch.no_grad():
        norm.scale[0], norm.offset[0] = scale, offset
    assignment = space.uniform(Precision(4, 4))
    model, statistics = fold_with_exits(supernet, assignment, task.train.images)
    integers = folded_forward(model, 0, supernet.encode(task.test.images[:8]))["stem"][:, 0]
    fake, _ = fake_codes(supernet, assignment, task.test.images[:8], statistics)
    assert torch.equal(integers, fake["stem"][:, 0].double())


@given(st.floats(2.0**-45, 2.0**29))
def test_multipliers_are_exact_to_31_bits(factor):
    multiplier, shift = multiplier_and_shift(factor)
    assert 0 < multiplier < 2**31 and 1 <= shift <= 51
    assert abs(multiplier / 2**shift - factor) <= max(factor * 2**-31, 2.0**-52)
    assert multiplier >= 2**30 or shift in (1, 51)


def test_a_factor_that_rounds_up_to_the_next_power_of_two_stays_in_range():
    assert multiplier_and_shift(1 - 2.0**-40) == (2**30, 30)


def test_a_factor_out_of_range_is_refused():
    with pytest.raises(SpaceError, match=r"must be below 2\^30"):
        multiplier_and_shift(2.0**31)


@given(st.floats(0, 1e4), st.floats(1e-6, 1.0), st.integers(0, 10**6))
def test_integer_thresholds_decide_as_real_ones(threshold, step, margin):
    exact = margin >= threshold / step
    assert (margin >= integer_threshold(threshold, step)) == exact


def test_an_infinite_threshold_is_above_every_margin():
    assert integer_threshold(float("inf"), 0.1) > 2 * (2**31 - 1)


def test_a_menu_without_its_thresholds_is_refused(everything):
    _, space, supernet = everything
    entries = tuple(MenuEntry(assignment=one) for one in (narrowest(space), widest(space)))
    with pytest.raises(SpaceError, match="must have 2 statistics, 1 thresholds"):
        fold_model(supernet, Menu(kind=PolicyKind.CASCADE, entries=entries), [{}, {}])


def test_statistics_that_miss_an_operation_are_refused(everything):
    _, space, supernet = everything
    menu = Menu(kind=PolicyKind.STATIC, entries=(MenuEntry(assignment=BitAssignment(widest(space))),))
    with pytest.raises(Exception, match="statistics must cover stem"):
        fold_model(supernet, menu, [{}])


def test_a_gate_that_reads_other_codes_is_refused(everything):
    task, space, supernet = everything
    alone = Menu(kind=PolicyKind.STATIC, entries=(MenuEntry(assignment=widest(space)),))
    statistics = estimate_statistics(supernet, widest(space), task.train.images)
    gate = replace(fold_model(supernet, alone, [statistics]), input_zero=0)
    menu = Menu(kind=PolicyKind.GATE, entries=(MenuEntry(assignment=narrowest(space)), MenuEntry(assignment=widest(space))))
    with pytest.raises(SpaceError, match="must read the codes that its model reads"):
        fold_model(supernet, menu, [statistics, statistics], gate=gate)
