"""Two small networks with spaces of every width: one of everything the integer arithmetic has, one that trains in a second."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hwsearch.graph.capture import capture
from hwsearch.graph.space import SearchSpace, build_space
from hwsearch.graph.space_file import SpaceTable
from hwsearch.quantizers.calibrate import untrained_supernet
from hwsearch.quantizers.supernet import Supernet
from hwsearch.tasks.task import Split, Task

CLASSES = 3


class Everything(nn.Module):
    """Every kind of operation, activation and parameter: batch norms with negative scales, biases, groups, odd sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(3, 2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.bn2 = nn.BatchNorm2d(8)
        self.signed = nn.Conv2d(8, 8, 1)
        self.side = nn.Conv2d(8, 8, 1)
        self.grouped = nn.Conv2d(8, 12, 3, groups=2)
        self.tanh = nn.Hardtanh()
        self.average = nn.AvgPool2d(2, 1)
        self.hidden = nn.Linear(12 * 2 * 2, 16)
        self.last = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.bn1(self.stem(x))))  # [N, 8, 5, 5]
        y = nn.functional.relu6(self.bn2(self.depthwise(x)))  # [N, 8, 5, 5]
        y = self.signed(y) + self.side(x)  # [N, 8, 5, 5], negative values as well
        y = torch.relu(y) + y  # [N, 8, 5, 5], an activation that cannot be fused
        y = self.average(self.tanh(self.grouped(y)))  # [N, 12, 2, 2]
        return self.last(torch.relu(self.hidden(y.flatten(1))))  # [N, classes]


def make_task(model: nn.Module, channels: int, side: int, *, shift: float = 0.0) -> Task:
    """Bars at as many places as there are classes, under noise; `shift` makes some pixels negative."""

    def split(count: int, seed: int) -> Split:
        rng = np.random.default_rng(seed)
        labels = rng.integers(CLASSES, size=count)
        images = rng.uniform(0, 0.5, size=(count, channels, side, side))
        for image, label in zip(images, labels, strict=True):
            image[:, 2 * label : 2 * label + 2] += rng.uniform(0.2, 0.5)
        return Split(images=torch.tensor(images - shift, dtype=torch.float32), labels=torch.tensor(labels))

    return Task(model=model, train=split(192, 0), validation=split(64, 1), test=split(64, 2), classes=CLASSES)


def make_space(task: Task, exits: tuple[str, ...], widths: tuple[int, ...] = (2, 4, 8)) -> SearchSpace:
    policies = {"kinds": ["static", "exit", "cascade", "gate"], "exit": [{"after": name} for name in exits]}
    table = {"schema": 1, "weight_bits": widths, "activation_bits": widths, "policies": policies}
    return build_space("test", capture(task.model, task.example_input), SpaceTable.model_validate(table))


def randomized(model: nn.Module, seed: int) -> nn.Module:
    """Batch norms as after training: any sign of scale, any statistics."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator))
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.3)
            module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) * 0.2 + 0.05)
    return model.eval()


@pytest.fixture(scope="session")
def everything() -> tuple[Task, SearchSpace, Supernet]:
    """A post-training quantized `Everything` with two exits, and inputs that may be negative."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = randomized(Everything(), seed=1)
    task = make_task(model, channels=2, side=9, shift=0.3)
    space = make_space(task, ("pool", "add"))
    return task, space, untrained_supernet(task, space, model, seed=2)


@pytest.fixture(scope="session")
def everything_odd(everything: tuple[Task, SearchSpace, Supernet]) -> tuple[Task, SearchSpace, Supernet]:
    """The same with every width that has kernels."""
    task = everything[0]
    space = make_space(task, ("pool", "add"), (1, 2, 3, 4, 8))
    return task, space, untrained_supernet(task, space, randomized(task.model, seed=1), seed=2)


@pytest.fixture(scope="session")
def small_odd() -> tuple[Task, SearchSpace]:
    """`small` with weights and activations of 1 and 3 bits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Small()
    task = make_task(model, channels=1, side=6)
    return task, make_space(task, (), (1, 3))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 3 * 3, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))  # [N, 8, 6, 6]
        x = torch.relu(self.bn2(self.conv2(x)))  # [N, 8, 3, 3]
        return self.fc(x.flatten(1))  # [N, classes]


@pytest.fixture(scope="session")
def small() -> tuple[Task, SearchSpace]:
    """A task that a second of training solves, with one exit."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Small()
    task = make_task(model, channels=1, side=6)
    return task, make_space(task, ("conv1",))
