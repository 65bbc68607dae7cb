"""A small task that trains in a second, and prices by formula, so that limits can be placed exactly."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hwsearch.emulation.isa import Isa
from hwsearch.graph.capture import capture
from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind, PolicyShape
from hwsearch.graph.op import Op
from hwsearch.graph.precision import Precision
from hwsearch.graph.space import SearchSpace, build_space
from hwsearch.graph.space_file import PoliciesTable, SpaceTable
from hwsearch.hardware.cost import PolicyCost
from hwsearch.hardware.header import Counter, Device, Library, Power, ProfileHeader, Validity
from hwsearch.hardware.profile import HardwareProfile, Provenance
from hwsearch.kernels.layout import STEP_BYTES, in_lines, packed_weight_bytes, requantize_bytes
from hwsearch.pricing.cost_model import CostModel
from hwsearch.pricing.prices import OpPrice, Prices
from hwsearch.quantizers.supernet import Supernet
from hwsearch.quantizers.training import train_supernet
from hwsearch.results.front import FrontPoint
from hwsearch.tasks.float_training import train_float
from hwsearch.tasks.task import Split, Task

CLASSES = 4


class TinyNet(nn.Module):
    """Three convolutions on 8x8 images; small enough to train in a second."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.conv3 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 4 * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))  # [N, 8, 8, 8]
        x = torch.relu(self.bn2(self.conv2(x)))  # [N, 8, 4, 4]
        x = torch.relu(self.bn3(self.conv3(x)))  # [N, 8, 4, 4]
        return self.fc(x.flatten(1))  # [N, classes]


def _split(count: int, seed: int) -> Split:
    """Bars at four places, of varying brightness, under noise: easy and hard images."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=count)
    images = rng.normal(0.3, 0.25, size=(count, 1, 8, 8))
    for image, label in zip(images, labels, strict=True):
        image[0, 2 * label : 2 * label + 2] += rng.uniform(0.2, 0.7)
    return Split(images=torch.tensor(images.clip(0, 1), dtype=torch.float32), labels=torch.tensor(labels))


@pytest.fixture(scope="session")
def task() -> Task:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TinyNet()
    return Task(model=model, train=_split(256, 1), validation=_split(400, 2), test=_split(200, 3), name="bars")


@pytest.fixture(scope="session")
def float_model(task: Task) -> nn.Module:
    return train_float(task, epochs=6, seed=0)


@pytest.fixture(scope="session")
def space(task: Task) -> SearchSpace:
    kinds = tuple(PolicyKind)
    table = SpaceTable(
        schema=1,
        weight_bits=(2, 4, 8),
        activation_bits=(2, 4, 8),
        policies=PoliciesTable(kinds=kinds, max_entries=3, gate_grids=(2,), gate_hidden=(4,), exit=[{"after": "conv2"}]),
    )
    return build_space("bars", capture(task.model, task.example_input), table)


@pytest.fixture(scope="session")
def supernet(task: Task, space: SearchSpace, float_model: nn.Module) -> Supernet:
    return train_supernet(task, space, float_model=float_model, epochs=3, seed=0)


HEADER = ProfileHeader(
    schema=1,
    device=Device(name="formula", isa=Isa.ARMV7E_M, core="-", clock_hz=10**6, flash_bytes=2**20, ram_bytes=2**18, supply="-"),
    counter=Counter(unit="cycles"),
    power=Power(active_mw=10.0, source="formula"),
    library=Library(kernel_library="formula", version="1", compiler="-", flags="-"),
    validity=Validity(text="a formula", relative_error=0.0),
)


class Formula:
    """Half a nanosecond per MAC and bit of either operand, plus one microsecond per op; dearer if weights are stored wider."""

    def op_price(self, op: Op, precision: Precision, stored_bits: int, *, logits: bool) -> OpPrice:
        bits = precision.weight_bits + precision.activation_bits
        latency_us = 1.0 + op.macs * bits * 5e-4 * (1.0 + 0.01 * (stored_bits > precision.weight_bits))
        return OpPrice(
            op=op.name, precision=precision, latency_us=latency_us, energy_uj=latency_us * 0.01, provenance=Provenance.EMULATED,
            uncertainty=0.0, symbol=f"hw_{op.kind}_{precision}", code_bytes=200, scratch_bytes=0, interpolated=False,
            weight_bytes=in_lines(packed_weight_bytes(op, stored_bits)) if op.has_weights else 0,
            constant_bytes=requantize_bytes(op, logits) + STEP_BYTES,
        )  # fmt: skip


def priced(name: str, space: SearchSpace, prices: Prices) -> CostModel:
    return CostModel(space.network, HardwareProfile(name=name, header=HEADER, measurements=()), prices=prices)


@pytest.fixture(scope="session")
def costs(space: SearchSpace) -> CostModel:
    return priced("formula", space, Formula())


class WideIsFast(Formula):
    """A device whose narrow weights must be unpacked at length: speed and size pull in opposite directions."""

    def op_price(self, op: Op, precision: Precision, stored_bits: int, *, logits: bool) -> OpPrice:
        price = super().op_price(op, precision, stored_bits, logits=logits)
        latency_us = 1.0 + op.macs * (10 - precision.weight_bits) * 1e-3
        return replace(price, latency_us=latency_us, energy_uj=latency_us * 0.01, code_bytes=0)


@pytest.fixture(scope="session")
def wide_is_fast(space: SearchSpace) -> CostModel:
    return priced("wide", space, WideIsFast())


class DenseIsFast(Formula):
    """A device on which weights that lie densely at the width they are read save nearly a third."""

    def op_price(self, op: Op, precision: Precision, stored_bits: int, *, logits: bool) -> OpPrice:
        price = super().op_price(op, precision, stored_bits, logits=logits)
        return replace(price, latency_us=price.latency_us * (0.7 if stored_bits == precision.weight_bits else 1.0))


@pytest.fixture(scope="session")
def dense_is_fast(space: SearchSpace) -> CostModel:
    return priced("dense", space, DenseIsFast())


def menu_of(space: SearchSpace, kind: PolicyKind, *widths: str) -> Menu:
    """Uniform entries; an exit menu has one width and all the space's exits."""
    uniform = [space.uniform(Precision.parse(width)) for width in widths]
    if kind is PolicyKind.EXIT:
        return Menu(kind=kind, entries=tuple(MenuEntry(assignment=uniform[0], exit=name) for name in (*space.network.exits, "")))
    return Menu(kind=kind, entries=tuple(MenuEntry(assignment=one) for one in uniform))


def policy_of(menu: Menu) -> PolicyShape:
    gated, stages = menu.kind is PolicyKind.GATE, len(menu.entries) - 1
    escalation = (0.4,) * stages if menu.kind.escalates else ()
    return PolicyShape(kind=menu.kind, gate_grid=2 * gated, gate_hidden=4 * gated, trade_off=0.02, escalation=escalation)


@pytest.fixture(scope="session")
def point_of(space: SearchSpace, costs: CostModel) -> Callable[..., FrontPoint]:
    """A front point with uniform entries, priced, with made-up accuracy."""

    def make(kind: PolicyKind, *widths: str) -> FrontPoint:
        menu = menu_of(space, kind, *widths)
        policy = policy_of(menu)
        shares = [0.4**k for k in range(len(menu.entries))]
        shares = tuple(share / sum(shares) for share in shares)
        cost = PolicyCost.of_paths(costs.paths(menu, policy), shares)
        return FrontPoint(trial=0, menu=menu, policy=policy, accuracy=0.9, shares=shares, cost=cost)

    return make
