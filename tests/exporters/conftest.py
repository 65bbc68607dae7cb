"""Small random integer models that need no training: every operation kind, width and policy kind."""

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from hwsearch.graph.controllers import argmax_op, gate_graph
from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind, PolicyShape
from hwsearch.graph.network import INPUT, Network
from hwsearch.graph.op import Activation, Op, OpKind
from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.hardware.cost import Budget, PolicyCost
from hwsearch.hardware.profile import HardwareProfile, load_profile
from hwsearch.integers.execute import run_entry, run_model
from hwsearch.integers.integer_model import Codes, IntegerEntry, IntegerModel, OpConstants, StoredWeights
from hwsearch.measuring.grid import Work
from hwsearch.measuring.measure import measure
from hwsearch.pricing.cost_model import CostModel
from hwsearch.results.final_model import Certificate, FinalModel

CLASSES = 5
ModelMaker = Callable[..., IntegerModel]


def residual_network(*, exits: bool = False) -> Network:
    """Padding, strides, groups, depthwise, a residual addition, both pools, signed tensors and an odd image."""
    trunk = [
        Op(name="first", kind=OpKind.CONV2D, inputs=(INPUT,), in_shape=(3, 9, 7), out_shape=(8, 9, 7), kernel=(3, 3),
           padding=(1, 1), activation=Activation.RELU, batch_norm=True),
        Op(name="depth", kind=OpKind.DEPTHWISE_CONV2D, inputs=("first",), in_shape=(8, 9, 7), out_shape=(8, 9, 7), kernel=(3, 3),
           padding=(1, 1), groups=8, activation=Activation.RELU6),
        Op(name="point", kind=OpKind.CONV2D, inputs=("depth",), in_shape=(8, 9, 7), out_shape=(8, 9, 7)),
        Op(name="sum", kind=OpKind.ADD, inputs=("point", "first"), in_shape=(8, 9, 7), out_shape=(8, 9, 7)),
        Op(name="tanh", kind=OpKind.REQUANTIZE, inputs=("sum",), in_shape=(8, 9, 7), out_shape=(8, 9, 7),
           activation=Activation.HARDTANH),
        Op(name="grouped", kind=OpKind.CONV2D, inputs=("tanh",), in_shape=(8, 9, 7), out_shape=(6, 5, 4), kernel=(3, 3),
           stride=(2, 2), padding=(1, 1), groups=2),
        Op(name="largest", kind=OpKind.MAX_POOL, inputs=("grouped",), in_shape=(6, 5, 4), out_shape=(6, 3, 2), kernel=(3, 3),
           stride=(2, 2), padding=(1, 1)),
        Op(name="wide", kind=OpKind.LINEAR, inputs=("largest",), in_shape=(6, 3, 2), out_shape=(11,), activation=Activation.RELU),
        Op(name="logits", kind=OpKind.LINEAR, inputs=("wide",), in_shape=(11,), out_shape=(CLASSES,)),
    ]  # fmt: skip
    heads = [*_head("exit1", "first", (8, 9, 7)), *_head("exit2", "tanh", (8, 9, 7))]
    return Network([*trunk, *heads] if exits else trunk, (3, 9, 7), "residual")


def _head(name: str, source: str, shape: tuple[int, int, int]) -> list[Op]:
    channels, height, width = shape
    kernel = (height // 2, width // 2)
    pooled = (channels, 2, 2)
    return [
        Op(name=f"{name}.pool", kind=OpKind.AVG_POOL, inputs=(source,), in_shape=shape, out_shape=pooled, kernel=kernel,
           stride=kernel, exit=name),
        Op(name=f"{name}.fc", kind=OpKind.LINEAR, inputs=(f"{name}.pool",), in_shape=pooled, out_shape=(CLASSES,), exit=name),
    ]  # fmt: skip


def policy_of(kind: PolicyKind) -> PolicyShape:
    """A gate has a grid of 3 rows and 2 columns and 6 hidden units."""
    return PolicyShape(kind=kind, gate_grid=3, gate_hidden=6) if kind is PolicyKind.GATE else PolicyShape(kind=kind)


def random_codes(count: int, seed: int) -> Codes:
    """Images of different contrast, so that margins differ. `[N, 9, 7, 3]`"""
    rng = np.random.default_rng(seed)
    noise = rng.uniform(-1, 1, (count, 9, 7, 3)) * rng.uniform(0.1, 1, (count, 1, 1, 1))
    return np.clip((noise + rng.uniform(-0.3, 0.3, (count, 1, 1, 3))) * 128 + 128, 0, 255).astype(np.uint8)


def _random_assignment(network: Network, rng: np.random.Generator, widths: tuple[int, ...]) -> BitAssignment:
    """Random widths under the rules of a search space: readers of one tensor agree, pools pass their codes through."""
    width: dict[str, int] = {INPUT: 8}

    def drawn(tensor: str) -> int:
        return width.setdefault(tensor, int(rng.choice(widths)))

    bits: dict[str, Precision] = {}
    for op in network.ops:
        activation = drawn(op.inputs[0])
        for other in op.inputs[1:]:
            width[other] = activation
        if op.kind is OpKind.MAX_POOL:
            width[op.name] = activation
        if op.name == "first":  # what the addition joins
            width["point"] = drawn("first")
        bits[op.name] = Precision(int(rng.choice(widths)) if op.has_weights else 0, activation)
    return BitAssignment(bits)


def _zeros(network: Network, assignment: BitAssignment) -> dict[str, int]:
    """Zero point of every tensor: 0 where no value is negative."""
    zeros = {INPUT: 128}
    for op in network.ops:
        bits = network.output_bits(op.name, assignment)
        is_pool = op.kind in (OpKind.MAX_POOL, OpKind.AVG_POOL)
        signed = zeros[op.inputs[0]] > 0 if is_pool else not op.activation.is_unsigned
        zeros[op.name] = 2 ** (bits - 1) if signed and bits < 32 else 0
    return zeros


def _multiplier(factor: float) -> tuple[int, int]:
    """The integers m and s with m / 2^s close to `factor`, m in [2^30, 2^31)."""
    shift = 30 - int(np.floor(np.log2(factor)))
    return int(factor * 2.0**shift), shift


def _add_multipliers(factors: list[float]) -> tuple[list[int], int]:
    shift = min(30, 20 - int(np.floor(np.log2(max(factors)))))
    return [int(factor * 2**shift) for factor in factors], shift


def _constants(
    network: Network, op: Op, assignment: BitAssignment, stored: Mapping[str, StoredWeights], rng: np.random.Generator
) -> OpConstants:
    zeros = _zeros(network, assignment)
    precision, out_bits = assignment[op.name], network.output_bits(op.name, assignment)
    is_logits = out_bits == 32
    bias, multiplier, shift = np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int32)
    gain = 2.0 ** (min(out_bits, 8) - precision.activation_bits)
    if op.has_weights:
        codes = (stored[op.name].codes >> (stored[op.name].bits - precision.weight_bits)).astype(np.int64)
        centered = (2 * codes + 1 - 2**precision.weight_bits).reshape(op.out_channels, -1)
        spread = np.sqrt(op.reduction) * 2.0 ** (precision.weight_bits + precision.activation_bits) / 3
        drawn = rng.normal(0, spread / 2, op.out_channels).astype(np.int64)
        bias = (drawn - zeros[op.inputs[0]] * centered.sum(axis=1)).astype(np.int32)
        if not is_logits:
            pairs = [_multiplier(2.0**out_bits / (3 * spread) * rng.uniform(0.5, 2)) for _ in range(op.out_channels)]
            multiplier, shift = (np.array(numbers, np.int32) for numbers in zip(*pairs, strict=True))
    elif op.kind is OpKind.ADD:
        factors, exponent = _add_multipliers([gain * rng.uniform(0.3, 1.1) for _ in op.inputs])
        multiplier, shift = np.array(factors, np.int32), np.array([exponent], np.int32)
    elif op.kind in (OpKind.AVG_POOL, OpKind.REQUANTIZE):
        factor, exponent = _multiplier(gain * rng.uniform(0.7, 1.5) / (op.kernel[0] * op.kernel[1]))
        multiplier, shift = np.array([factor], np.int32), np.array([exponent], np.int32)
    return OpConstants(
        bias=bias,
        multiplier=multiplier,
        shift=shift,
        input_zero=tuple(zeros[name] for name in op.inputs),
        output_zero=zeros[op.name],
        output_max=0 if is_logits else 2**out_bits - 1 - int(op.activation is Activation.RELU6 and out_bits > 2),
    )


def _stored_weights(network: Network, menu: Menu, rng: np.random.Generator) -> dict[str, StoredWeights]:
    stored = {}
    for name, bits in menu.stored_bits(network).items():
        op = network[name]
        inner = (1, 1, op.reduction) if op.kind is OpKind.LINEAR else (*op.kernel, op.in_shape[0] // op.groups)
        stored[name] = StoredWeights(codes=rng.integers(0, 2**bits, (op.out_channels, *inner)).astype(np.uint8), bits=bits)
    return stored


def _folded(network: Network, menu: Menu, rng: np.random.Generator, gate: IntegerModel | None = None) -> IntegerModel:
    """A model with random weights and constants; with exits, all entries are one and the same network."""
    stored = _stored_weights(network, menu, rng)
    shared = int(rng.integers(2**32))
    entries = []
    for index, entry in enumerate(menu.entries):
        draw = np.random.default_rng(shared if menu.kind is PolicyKind.EXIT else int(rng.integers(2**32)))
        constants = {op.name: _constants(network, op, entry.assignment, stored, draw) for op in network.ops}
        used = {op.name: constants[op.name] for op in network.path(menu.exits_passed(index))}
        entries.append(IntegerEntry(constants=used, logit_step=0.01))
    return IntegerModel(
        network=network, menu=menu, stored=stored, entries=tuple(entries), input_step=0.0173, input_zero=128, gate=gate
    )


def _gate(entries: int, rng: np.random.Generator) -> IntegerModel:
    """A gate whose classes are made about equally likely by their biases."""
    network = gate_graph(policy_of(PolicyKind.GATE), (3, 9, 7), entries)
    menu = Menu(kind=PolicyKind.STATIC, entries=(MenuEntry(assignment=_random_assignment(network, rng, (8,))),))
    gate = _folded(network, menu, rng)
    logits = run_entry(gate, 0, random_codes(64, 3))[""]
    entry = gate.entries[0]
    choice = entry.constants["gate.choice"]
    balanced = dataclasses.replace(choice, bias=(choice.bias - np.median(logits, axis=0)).astype(np.int32))
    constants = {**entry.constants, "gate.choice": balanced}
    return dataclasses.replace(gate, entries=(dataclasses.replace(entry, constants=constants),))


def _median_margins(model: IntegerModel) -> tuple[int, ...]:
    """Thresholds that about half of the inputs reach at each entry."""
    codes = random_codes(64, 3)
    margins = []
    for index, entry in enumerate(model.menu.entries[:-1]):
        ordered = np.sort(run_entry(model, index, codes)[entry.exit].astype(np.int64), axis=1)
        margins.append(int(np.median(ordered[:, -1] - ordered[:, -2])))
    return tuple(margins)


def _make(kind: str, *, entries: int = 3, seed: int = 0, widths: tuple[int, ...] = (2, 4, 8)) -> IntegerModel:
    rng = np.random.default_rng(seed)
    policy = PolicyKind(kind)
    network = residual_network(exits=policy is PolicyKind.EXIT)
    if policy is PolicyKind.EXIT:
        assignment = _random_assignment(network, rng, widths)
        listed = tuple(MenuEntry(assignment=assignment, exit=name) for name in ("exit1", "exit2", ""))
    else:
        count = 1 if policy is PolicyKind.STATIC else entries
        listed = tuple(MenuEntry(assignment=_random_assignment(network, rng, widths)) for _ in range(count))
    menu = Menu(kind=policy, entries=listed)
    gate = _gate(len(listed), rng) if policy is PolicyKind.GATE else None
    model = _folded(network, menu, rng, gate)
    return dataclasses.replace(model, thresholds=_median_margins(model)) if policy.escalates else model


def _works(model: IntegerModel) -> list[Work]:
    """Every row that pricing a model needs."""
    stored = model.menu.stored_bits(model.network)
    works = [
        Work(
            op=op,
            precision=entry.assignment[op.name],
            stored_bits=stored.get(op.name, 0),
            logits=op.has_weights and not model.network.consumers(op.name),
        )
        for ops, entry in zip(model.menu.segments(model.network), model.menu.entries, strict=True)
        for op in ops
    ]
    decisions = [
        Work(op=argmax_op(size), precision=Precision(0, 8), stored_bits=0)
        for size in (len(model.entries), CLASSES)
        if len(model.entries) > 1
    ]
    return works + decisions + (_works(model.gate) if model.gate else [])


def _final(model: IntegerModel, profile: HardwareProfile, *, count: int = 24) -> FinalModel:
    """A finished model with prices of that profile and a budget that it just meets."""
    codes = random_codes(count, 5)
    answers = run_model(model, codes)
    shares = tuple(float(np.mean(answers.entries == index)) for index in range(len(model.entries)))
    paths = CostModel(model.network, profile).paths(model.menu, policy_of(model.menu.kind))
    cost = PolicyCost.of_paths(paths, shares)
    worst, mean = cost.worst, cost.mean.latency_us
    return FinalModel(
        model=model,
        policy=policy_of(model.menu.kind),
        task="random images",
        profile=profile.name,
        budget=Budget(
            latency_us=worst.latency_us * 1.05,
            flash_bytes=worst.flash_bytes,
            ram_bytes=worst.ram_bytes,
            mean_latency_us=mean * 1.1,
        ),
        paths=paths,
        shares=shares,
        cost=cost,
        accuracy={"test": 0.5},
        float_accuracy={"test": 0.6},
        certificate=Certificate(
            limit_us=mean * 1.1, bound_us=mean * 1.05, observed_mean_us=mean, confidence=0.95, n_samples=count, method="Hoeffding"
        ),
        seed=0,
        sample_codes=codes,
        sample_labels=np.zeros(count, np.int32),
        notes={"origin": "random"},
    )


@pytest.fixture(scope="session")
def make_model() -> ModelMaker:
    """`make_model(kind, entries=3, seed=0, widths=(2, 4, 8))` gives a random model of a policy kind."""
    return _make


@pytest.fixture(scope="session")
def make_codes() -> Callable[[int, int], Codes]:
    """`make_codes(count, seed)` gives random images for those models."""
    return random_codes


KINDS = ("static", "gate", "cascade", "exit")


@pytest.fixture(scope="session")
def profile(tmp_path_factory: pytest.TempPathFactory) -> HardwareProfile:
    """A table of exactly the operations of `make_model(kind)` of every kind, measured on the emulated Cortex-M4."""
    folder = tmp_path_factory.mktemp("profiles") / "test_m4"
    folder.mkdir()
    header = Path(__file__).parents[2] / "hardware_profiles" / "nucleo_l4r5zi" / "profile.toml"
    shutil.copyfile(header, folder / "profile.toml")
    works = {work.key: work for kind in KINDS for work in _works(_make(kind))}
    measure(str(folder), grid=tuple(works.values()), workers=1)
    return load_profile(folder)


@pytest.fixture(scope="session")
def make_works() -> Callable[[IntegerModel], list[Work]]:
    """`make_works(model)` is every row that pricing a model needs."""
    return _works


@pytest.fixture(scope="session")
def make_final(profile: HardwareProfile) -> Callable[[str], FinalModel]:
    """`make_final(kind)` is `make_model(kind)` priced, with a budget that it just meets."""
    return lambda kind: _final(_make(kind), profile)
