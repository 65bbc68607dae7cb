"""A small task on real parts (capture, space, supernet), priced by a formula so that limits can be placed exactly.

Plain functions, so that a search that is to be killed can be built from this very file in another process.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hwsearch.emulation.isa import Isa
from hwsearch.graph.capture import capture
from hwsearch.graph.menu import PolicyKind
from hwsearch.graph.op import Op
from hwsearch.graph.precision import Precision
from hwsearch.graph.space import SearchSpace, build_space
from hwsearch.graph.space_file import ExitTable, PoliciesTable, SpaceTable
from hwsearch.hardware.cost import Budget
from hwsearch.hardware.header import Counter, Device, Library, Power, ProfileHeader, Validity
from hwsearch.hardware.profile import HardwareProfile, Provenance
from hwsearch.kernels.layout import STEP_BYTES, in_lines, packed_weight_bytes, requantize_bytes, scratch_bytes
from hwsearch.pricing.cost_model import CostModel
from hwsearch.pricing.prices import OpPrice
from hwsearch.quantizers.calibrate import untrained_supernet
from hwsearch.quantizers.supernet import Supernet
from hwsearch.results.front import ParetoFront
from hwsearch.study.search import search
from hwsearch.tasks.float_training import train_float
from hwsearch.tasks.task import Split, Task

CLASSES = 4
STATIC = (PolicyKind.STATIC,)
ALL_KINDS = tuple(PolicyKind)


class TinyNet(nn.Module):
    """Two convolutions on 8x8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6 * 4 * 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))  # [N, 6, 8, 8]
        x = torch.relu(self.bn2(self.conv2(x)))  # [N, 6, 4, 4]
        logits: Tensor = self.fc(x.flatten(1))  # [N, classes]
        return logits


def _split(count: int, seed: int) -> Split:
    """Bars at four places, of varying brightness, under noise: easy and hard images."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=count)
    images = rng.normal(0.3, 0.3, size=(count, 1, 8, 8))
    for image, label in zip(images, labels, strict=True):
        image[0, 2 * label : 2 * label + 2] += rng.uniform(0.1, 0.5)
    return Split(images=torch.tensor(images.clip(0, 1), dtype=torch.float32), labels=torch.tensor(labels))


def make_task() -> Task:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TinyNet()
    task = Task(model=model, train=_split(256, 1), validation=_split(300, 2), test=_split(50, 3), name="bars")
    return task.with_model(train_float(task, epochs=5, seed=0))


def make_space(task: Task, kinds: tuple[PolicyKind, ...]) -> SearchSpace:
    exits = (ExitTable(after="conv1"),) if PolicyKind.EXIT in kinds else ()
    policies = PoliciesTable(kinds=kinds, max_entries=3, gate_grids=(2,), gate_hidden=(4,), exit=exits)
    table = SpaceTable(schema=1, weight_bits=(2, 4, 8), activation_bits=(2, 4, 8), policies=policies)
    return build_space("bars", capture(task.model, task.example_input), table)


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
            uncertainty=0.0, symbol=f"hw_{op.kind}_{precision}", code_bytes=200, interpolated=False,
            weight_bytes=in_lines(packed_weight_bytes(op, stored_bits)) if op.has_weights else 0,
            constant_bytes=requantize_bytes(op, logits) + STEP_BYTES,
            scratch_bytes=scratch_bytes(op, precision, Isa.ARMV7E_M),
        )  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """All that a search needs besides its own settings."""

    supernet: Supernet
    task: Task
    space: SearchSpace
    costs: CostModel

    def search(self, budget: Budget | None = None, **settings: Any) -> ParetoFront:
        return search(self.supernet, self.task, self.space, self.costs, budget or Budget(), **settings)


def make_problem(kinds: tuple[PolicyKind, ...]) -> Problem:
    torch.set_num_threads(1)
    task = make_task()
    space = make_space(task, kinds)
    profile = HardwareProfile(name="formula", header=HEADER, measurements=())
    costs = CostModel(space.network, profile, prices=Formula())
    return Problem(untrained_supernet(task, space, task.model, seed=0), task, space, costs)


@pytest.fixture(scope="session")
def static_problem() -> Problem:
    """Small enough to try every assignment."""
    return make_problem(STATIC)


@pytest.fixture(scope="session")
def problem() -> Problem:
    """Every kind of policy."""
    return make_problem(ALL_KINDS)


@pytest.fixture
def table(tmp_path: Path) -> Callable[[ParetoFront], str]:
    """A front as the text of its front.csv."""

    def read(front: ParetoFront) -> str:
        front.save(tmp_path)
        return (tmp_path / "front.csv").read_text()

    return read


@pytest.fixture(scope="session")
def ray_of_four() -> Iterator[None]:
    """One Ray for all tests; pools find it running and leave it so."""
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # Ray warns unless it is set, and warnings are errors
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level="error", log_to_driver=False)
    yield
    ray.shutdown()
