"""The gate: a small network on the downsampled input that picks a menu entry before the model runs.

Average pooling to a coarse grid, a linear layer with ReLU, a linear layer with one output per entry; the largest
output wins, ties to the lower and so cheaper entry. It is a network of priced operations like any other, at w8a8.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwsearch.graph.aten import OpParameters
from hwsearch.graph.controllers import controller_assignment, gate_graph
from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind, PolicyShape
from hwsearch.graph.op import Shape
from hwsearch.graph.precision import BitAssignment
from hwsearch.graph.space import SearchSpace
from hwsearch.integers.integer_model import IntegerModel
from hwsearch.predictors.fitted import EntryResults, FittedPolicy
from hwsearch.predictors.parameters import Category, Interval, Parameter, Params
from hwsearch.quantizers.calibrate import calibrate_activations
from hwsearch.quantizers.fold import fold_model
from hwsearch.quantizers.supernet import Supernet
from hwsearch.quantizers.uniform import InputQuantizer

_STEPS = 150
_LEARNING_RATE = 0.03
_WEIGHT_DECAY = 0.02


def parameters(space: SearchSpace) -> tuple[Parameter, ...]:
    """The side of the grid that a gate sees, its hidden units, and what a relative unit of latency is worth to it."""
    return (
        Category(name="gate_grid", options=space.policies.gate_grids),
        Category(name="gate_hidden", options=space.policies.gate_hidden),
        Interval(name="trade_off", low=0.01, high=10.0, log=True),
    )


def policy_of(params: Params, entries: int) -> PolicyShape:
    return PolicyShape(
        kind=PolicyKind.GATE, gate_grid=params["gate_grid"], gate_hidden=params["gate_hidden"], trade_off=params["trade_off"]
    )


def fit(policy: PolicyShape, results: EntryResults, input_quantizer: InputQuantizer, seed: int) -> "Gate":
    trained = train_gate(results.images, results.losses, results.relative_latencies, policy, seed=seed)
    return quantize_gate(trained, results.images, policy, input_quantizer)


def gate_network(policy: PolicyShape, input_shape: Shape, n_entries: int, *, seed: int) -> nn.Sequential:
    """The gate in float: images `[N, C, H, W]` to scores `[N, n_entries]`; at the start it has no preference."""
    graph = gate_graph(policy, input_shape, n_entries)
    hidden, choice = nn.Linear(graph["gate.hidden"].reduction, policy.gate_hidden), nn.Linear(policy.gate_hidden, n_entries)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        hidden.weight.copy_((2 * torch.rand(hidden.weight.shape, generator=generator) - 1) * (3 / hidden.in_features) ** 0.5)
        for start_at_zero in (hidden.bias, choice.weight, choice.bias):
            start_at_zero.zero_()
    pool = [nn.AvgPool2d(graph["gate.pool"].kernel)] if "gate.pool" in graph else []
    return nn.Sequential(*pool, nn.Flatten(), hidden, nn.ReLU(), choice)


def train_gate(
    images: Tensor,
    losses: NDArray[np.float64],
    relative_latencies: NDArray[np.float64],
    policy: PolicyShape,
    *,
    seed: int,
) -> nn.Sequential:
    """A float gate whose choices have a low mean of loss + trade_off × relative latency.

    `losses`: `[N, K]`, cached per image and entry; `relative_latencies`: `[K]`, 1 for the most expensive entry.

    Cost-sensitive classification: each image's cross-entropy towards an entry weighs what that entry saves against the
    worst one, so the best score goes to the entry with the largest expected saving. (Minimising the expected price of softened
    choices directly gets stuck where one entry takes all.)
    """
    gate = gate_network(policy, tuple(images.shape[1:]), losses.shape[1], seed=seed)
    price = torch.from_numpy(losses + policy.trade_off * relative_latencies).float()  # [N, K]
    saving = price.amax(dim=1, keepdim=True) - price  # [N, K]
    saving = saving / saving.sum(dim=1).mean().clamp(min=1e-9)
    optimizer = torch.optim.AdamW(gate.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY, fused=True)
    features, restore = _standardized(gate[:-3](images))  # [N, grid * grid * C]
    for _ in range(_STEPS):
        loss = -(saving * torch.log_softmax(gate[-3:](features), dim=1)).sum(dim=1).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    restore(gate[-3])
    return gate.eval()


def _standardized(features: Tensor) -> tuple[Tensor, Callable[[nn.Module], None]]:
    """Features with mean 0 and spread about 1, and what makes a linear layer trained on them read the raw ones.

    Nearly constant features (an image's border) are not blown up: no spread counts as less than a quarter of the mean one.
    """
    mean, spread = features.mean(dim=0), features.std(dim=0, correction=0)
    spread = spread.clamp(min=max(0.25 * float(spread.mean()), 1e-6))

    @torch.no_grad()
    def restore(layer: nn.Module) -> None:
        assert isinstance(layer, nn.Linear)
        layer.weight.div_(spread)
        layer.bias.sub_(layer.weight @ mean)

    return (features - mean) / spread, restore


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gate(FittedPolicy):
    """A trained gate, quantized after training; `decide` computes what its integer model computes."""

    quantized: Supernet
    assignment: BitAssignment

    @torch.no_grad()
    def decide(self, images: Tensor, margins: NDArray[np.float64]) -> NDArray[np.int64]:
        scores: Tensor = self.quantized(images, self.assignment)[""]  # [N, K]
        chosen: NDArray[np.int64] = scores.numpy().argmax(axis=1)  # the first of equals
        return chosen

    def controller(self) -> IntegerModel:
        menu = Menu(kind=PolicyKind.STATIC, entries=(MenuEntry(assignment=self.assignment),))
        return fold_model(self.quantized, menu, [{}])


def quantize_gate(gate: nn.Sequential, images: Tensor, policy: PolicyShape, input_quantizer: InputQuantizer) -> Gate:
    """A float gate at w8a8; `images` calibrate its activations, the input's codes are those of the model it serves."""
    hidden, choice = gate[-3], gate[-1]
    assert isinstance(hidden, nn.Linear) and isinstance(choice, nn.Linear)
    network = gate_graph(policy, tuple(images.shape[1:]), choice.out_features)
    parameters: Mapping[str, OpParameters[Tensor]] = {
        name: OpParameters(weight=layer.weight.detach(), bias=layer.bias.detach())
        for name, layer in (("gate.hidden", hidden), ("gate.choice", choice))
    }
    assignment = controller_assignment(network)
    options = {name: (precision,) for name, precision in assignment.items()}
    quantized = Supernet(network, options, input_quantizer, parameters)
    calibrate_activations(quantized, images)
    return Gate(quantized=quantized.eval(), assignment=assignment)
