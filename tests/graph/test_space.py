"""Units, rules, ties and exits of search spaces, and what a wrong file is told."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from hwsearch.errors import SpaceError
from hwsearch.graph.capture import capture, capture_reference
from hwsearch.graph.menu import PolicyKind
from hwsearch.graph.network import INPUT, Network
from hwsearch.graph.op import OpKind
from hwsearch.graph.precision import Precision
from hwsearch.graph.space import (
    NETWORKS_FILE,
    SearchSpace,
    attach_exits,
    list_spaces,
    load_space,
    network_for_space,
    reference_networks,
)
from hwsearch.tasks.networks import REFERENCE_NETWORKS

ROOT = Path(__file__).parents[2]
SHIPPED = ("digits_cnn", "dscnn_kws", "lenet5_mnist", "mobilenetv1_vww", "resnet8_cifar10")
HEAD = "schema = 1\nweight_bits = [2, 4, 8]\nactivation_bits = [4, 8]\n"


def chain() -> Network:
    """conv -> max pool -> conv -> linear."""
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)]
    model = nn.Sequential()
    for name, layer in zip(["conv1", "act1", "pool", "conv2", "act2", "flat", "fc"], layers, strict=True):
        model.add_module(name, layer)
    return capture(model, torch.zeros(1, 1, 8, 8))


def space_of(tmp_path: Path, text: str, network: Network | None = None) -> SearchSpace:
    path = tmp_path / "mine.toml"
    path.write_text(HEAD + text)
    return load_space(path, network or chain())


def bits(texts: str) -> tuple[Precision, ...]:
    return tuple(Precision.parse(text) for text in texts.split())


@pytest.fixture(scope="module", params=SHIPPED)
def shipped(request: pytest.FixtureRequest) -> SearchSpace:
    name = str(request.param)
    return load_space(name, network_for_space(name))


def test_the_shipped_spaces_are_listed() -> None:
    assert set(SHIPPED) <= set(list_spaces())


def test_a_shipped_space_gives_every_operation_one_unit(shipped: SearchSpace) -> None:
    assert sorted(name for unit in shipped.units for name in unit.ops) == sorted(op.name for op in shipped.network.ops)
    assert len(shipped.network.exits) == len(shipped.policies.exits_after) >= 1
    assert len(shipped.policies.kinds) == len(PolicyKind)


def test_readers_of_one_tensor_always_read_it_at_one_width(shipped: SearchSpace) -> None:
    choices = [{unit.name: unit.precisions[index % len(unit.precisions)] for unit in shipped.units} for index in range(9)]
    for assignment in map(shipped.assignment, choices):
        for op in shipped.network.ops:
            readers = shipped.network.consumers(op.name)
            assert len({assignment[reader.name].activation_bits for reader in readers}) <= 1
            if op.kind is OpKind.MAX_POOL:
                assert assignment[op.name].activation_bits == assignment[readers[0].name].activation_bits


def test_inputs_are_read_at_8_bits_and_logits_made_at_w8a8(shipped: SearchSpace) -> None:
    for reader in shipped.network.consumers(INPUT):
        assert {one.activation_bits for one in shipped.unit_of(reader.name).precisions} == {8}
    for exit_name in ("", *shipped.network.exits):
        unit = shipped.unit_of(shipped.network.output_of(exit_name).name)
        assert unit.precisions == (Precision(8, 8),)
        assert "logits" in unit.reason


def test_every_restricted_unit_of_a_shipped_space_says_why(shipped: SearchSpace) -> None:
    for unit in shipped.units:
        full = 9 if shipped.network[unit.name].has_weights else 3
        assert bool(unit.reason) or len(unit.precisions) == full, unit


def test_a_choice_becomes_a_precision_for_every_operation(shipped: SearchSpace) -> None:
    narrow = shipped.assignment({unit.name: unit.precisions[0] for unit in shipped.units})
    assert list(narrow) == [op.name for op in shipped.network.ops]
    assert all(bool(narrow[op.name].weight_bits) == op.has_weights for op in shipped.network.ops)


def test_uniform_keeps_restricted_units_as_near_as_they_can_be(tmp_path: Path) -> None:
    space = space_of(tmp_path, "")
    assert space.uniform(Precision(4, 4)).key == "conv1=w4a8,pool=a4,conv2=w4a4,fc=w8a8"
    assert space.uniform(Precision(8, 8)).key == "conv1=w8a8,pool=a8,conv2=w8a8,fc=w8a8"


def test_a_uniform_precision_that_no_unit_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"must be one that mine has \(w2a4, w2a8, .*but found w2a2"):
        space_of(tmp_path, "").uniform(Precision(2, 2))


def test_a_max_pool_is_in_the_unit_of_its_reader(tmp_path: Path) -> None:
    units = space_of(tmp_path, "").units
    assert [(unit.name, unit.ops) for unit in units] == [("conv1", ("conv1",)), ("conv2", ("pool", "conv2")), ("fc", ("fc",))]
    assert units[1].precisions == bits("w2a4 w2a8 w4a4 w4a8 w8a4 w8a8")


def test_a_later_rule_replaces_an_earlier_one(tmp_path: Path) -> None:
    text = '[[rule]]\nmatch = "conv*"\nweight_bits = [8]\nreason = "first reason"\n'
    text += '[[rule]]\nmatch = "conv2"\nweight_bits = [2, 4]\nactivation_bits = [4]\nreason = "second reason"\n'
    with pytest.raises(SpaceError, match=r"pool, conv2 have no common width|common width"):
        space_of(tmp_path, text.replace("activation_bits = [4]", "activation_bits = [2]"))
    unit = space_of(tmp_path, text).unit_of("conv2")
    assert unit.precisions == bits("w2a4 w4a4")
    assert unit.reason == "first reason; second reason"


def test_tied_operations_take_one_precision(tmp_path: Path) -> None:
    space = space_of(tmp_path, '[[tie]]\nmatch = "conv?"\nreason = "alike in shape"\n')
    unit = space.unit_of("conv1")
    assert unit.ops == ("conv1", "pool", "conv2")
    assert unit.precisions == bits("w2a8 w4a8 w8a8")
    assert "alike in shape" in unit.reason


def test_exits_are_attached_in_execution_order_and_share_their_readers_unit(tmp_path: Path) -> None:
    text = '[[policies.exit]]\nafter = "conv2"\n[[policies.exit]]\nafter = "conv1"\n'
    space = space_of(tmp_path, text)
    names = [op.name for op in space.network.ops]
    assert names == ["conv1", "exit1.pool", "exit1.fc", "pool", "conv2", "exit2.pool", "exit2.fc", "fc"]
    assert space.network.exits == ("exit1", "exit2")
    assert space.unit_of("exit1.pool").ops == ("exit1.pool", "pool", "conv2")
    assert space.unit_of("exit2.pool") == space.unit_of("fc"), "both read conv2's output, so w8a8 holds for both"


def test_an_exit_head_pools_to_two_by_two() -> None:
    network = attach_exits(chain(), ["conv1", "pool"])
    pool, head = network["exit1.pool"], network["exit1.fc"]
    assert (pool.in_shape, pool.kernel, pool.stride, pool.out_shape) == ((4, 6, 6), (3, 3), (3, 3), (4, 2, 2))
    assert (head.in_shape, head.out_shape) == ((4, 2, 2), (3,))
    assert network["exit2.pool"].kernel == (1, 1), "a 3x3 map is pooled by 1x1 windows, its last row and column left out"


def test_a_space_and_its_network_load_without_torch() -> None:
    code = "import sys, hwsearch.graph.space as s; s.network_for_space('resnet8_cifar10'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- what a wrong file is told ----------------------------------------------------------------------------------------

RULE = '[[rule]]\nmatch = "{}"\nweight_bits = [8]\nreason = "because of a test"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (RULE.format("stage9.*"), r"mine\.toml 'stage9\.\*' matches none of conv1, pool, conv2, fc; correct the pattern"),
        ('[[tie]]\nmatch = "x"\nreason = "because of a test"\n', "'x' matches none"),
        (
            '[[rule]]\nmatch = "conv1"\nweight_bits = [8]\n',
            r"the key 'rule\.0\.reason', but .*toml, line 4 lacks",
        ),
        (
            '[[rule]]\nmatch = "conv1"\nweight_bits = [9]\nreason = "because of a test"\n',
            r"weight_bits\.0' .*line 6 has 9",
        ),
        (
            '[[rule]]\nmatch = "conv1"\nbits = [8]\nreason = "because of a test"\n',
            r"'rule\.0\.bits'; known here are match, w",
        ),
        ('[policies]\nkinds = ["oracle"]\n', r"'policies\.kinds\.0' must be right \(Input should be 'static'"),
        ("[policies]\nmax_entries = 17\n", r"'policies\.max_entries' must be right .*has 17"),
        ('[[policies.exit]]\nafter = "conv9"\n', r"mine\.toml: An exit must read a feature map .*conv1, pool, conv2.*'conv9'"),
        ('[[policies.exit]]\nafter = "fc"\n', "but found 'fc'"),
        ('[[policies.exit]]\nafter = "pool"\n[[policies.exit]]\nafter = "pool"\n', "pool, pool repeats one"),
        ("weight_bits = [4]\n", r"must be a TOML file, but .*mine\.toml is not: Cannot overwrite a value"),
        ('[[tie]]\nmatch = "*1"\non = "weights"\nreason = "because of it"\n', r"'tie\.0\.on' must be right .* be 'precision'"),
        (
            '[[tie]]\nmatch = "conv*"\nreason = "because of a test"\n'
            '[[rule]]\nmatch = "conv2"\nactivation_bits = [4]\nreason = "because of a test"\n',
            r"conv1, pool, conv2 have no common width of activations \(\[\(8,\), \(4, 8\), \(4,\)\]\); widen one",
        ),
    ],
)
def test_a_wrong_file_is_told_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message) as refusal:
        space_of(tmp_path, text)
    assert "\n" not in str(refusal.value)


def test_an_unknown_schema_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.toml"
    path.write_text(HEAD.replace("schema = 1", "schema = 2"))
    with pytest.raises(SpaceError, match=r"'schema' must be right \(Input should be 1\), but .*line 1 has 2"):
        load_space(path, chain())


def test_an_unknown_space_is_told_the_known_ones() -> None:
    with pytest.raises(SpaceError, match=r"one of .*digits_cnn, .*but found 'digitz'"):
        load_space("digitz", chain())


@pytest.mark.slow
def test_the_kept_networks_are_what_torch_captures() -> None:
    script = importlib.util.spec_from_file_location("reference_networks", ROOT / "tools" / "reference_networks.py")
    assert script and script.loader
    module = importlib.util.module_from_spec(script)
    script.loader.exec_module(module)
    assert NETWORKS_FILE.read_text() == module.lines(), "run python tools/reference_networks.py"
    for name, reference in REFERENCE_NETWORKS.items():
        kept, captured = Network.from_json(reference_networks()[name]), capture_reference(reference)
        assert (kept.ops, kept.input_shape, kept.name) == (captured.ops, captured.input_shape, captured.name)


def test_a_space_without_a_network_cannot_stand_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(HEAD)
    with pytest.raises(SpaceError, match="add network = with one of digits_cnn"):
        network_for_space(path)
    path.write_text('network = "vgg"\n' + HEAD)
    with pytest.raises(SpaceError, match=r"must be one of digits_cnn, .*names 'vgg'"):
        network_for_space(path)


def test_the_users_own_space_is_found_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "search_spaces").mkdir()
    (tmp_path / "search_spaces" / "digits_cnn.toml").write_text(HEAD)
    monkeypatch.chdir(tmp_path)
    assert load_space("digits_cnn", chain()).policies.kinds == (PolicyKind.STATIC,)


def test_a_choice_outside_the_space_is_refused(tmp_path: Path) -> None:
    space = space_of(tmp_path, "")
    widest = {unit.name: unit.widest for unit in space.units}
    with pytest.raises(SpaceError, match=r"Unit conv1 must take one of w2a8, w4a8, w8a8, but found w8a4 \(the network's input"):
        space.assignment({**widest, "conv1": Precision(8, 4)})
    with pytest.raises(SpaceError, match=r"must name every unit of mine once, but names \['conv1', 'conv2'\]"):
        space.assignment({name: one for name, one in widest.items() if name != "fc"})
    with pytest.raises(SpaceError, match="found 'conv7'"):
        space.unit_of("conv7")
