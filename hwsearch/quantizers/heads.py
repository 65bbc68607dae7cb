"""Classifying layers, of exits and of the trunk, fitted as what they are: logistic regressions on given features.

Before training this makes exits useful at once (a preview has nothing else). After training it adapts every head to the
quantized features of several assignments and to images as they are: a trunk trained on augmented images leaves its head
fitted to a distribution that no test image has (the effect of arXiv 1906.06423).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from hwsearch.graph.op import Op
from hwsearch.graph.precision import BitAssignment
from hwsearch.quantizers.supernet import Supernet
from hwsearch.tasks.task import Split

_BATCH = 512
_MOST_IMAGES = 4096
_DECAY = 1e-3
_ITERATIONS = 60


def linear_heads(supernet: Supernet) -> dict[str, Op]:
    """The last operation of each exit (and of the trunk, `""`) that is linear and has no other weighted operation in its head."""
    network = supernet.network
    ends = {name: network.output_of(name) for name in (*network.exits, "")}
    alone = {name for name in ends if not name or sum(op.has_weights for op in network.ops if op.exit == name) == 1}
    return {name: op for name, op in ends.items() if name in alone and op.kind.traits.reads_vector}


def fit_exit_heads(supernet: Supernet, split: Split) -> None:
    """Set the exits' linear heads from nothing, on the features of the float network."""
    heads = {name: op for name, op in linear_heads(supernet).items() if name}

    def tensors(images: Tensor) -> Mapping[str, Tensor]:
        outputs: dict[str, Tensor] = {}
        supernet.float_forward(images, outputs.__setitem__, exits=tuple(heads))
        return outputs

    features = _features(heads, split, tensors)
    for name, op in heads.items():
        start = torch.zeros(op.out_channels, op.reduction), torch.zeros(op.out_channels)
        supernet.weighted_op(op.name).set_linear(*logistic_regression(features[name], split.labels[:_MOST_IMAGES], start))


def refit_heads(supernet: Supernet, split: Split, assignments: Sequence[BitAssignment]) -> None:
    """Move all linear heads, the trunk's included, to what fits the quantized features of these assignments together.

    `split` holds training images without augmentation. Batch norm uses their own statistics, as `estimate_statistics` does.
    """
    heads = linear_heads(supernet)
    exits = tuple(heads)
    gathered = [
        _features(heads, split, partial(supernet.tensors, assignment=assignment, exits=exits)) for assignment in assignments
    ]
    for name, op in heads.items():
        module = supernet.weighted_op(op.name)
        assert module.bias is not None
        start = module.quantizer.weight.detach(), module.bias.detach()
        features = torch.cat([part[name] for part in gathered])  # [assignments * N, features]
        labels = split.labels[:_MOST_IMAGES].repeat(len(assignments))
        module.set_linear(*logistic_regression(features, labels, start))


Tensors = Callable[[Tensor], Mapping[str, Tensor]]
"""Every operation's output for a batch of images."""


def _features(heads: Mapping[str, Op], split: Split, tensors: Tensors) -> dict[str, Tensor]:
    """What each head's linear layer reads, `[N, features]`."""
    parts: dict[str, list[Tensor]] = {name: [] for name in heads}
    for chunk in torch.split(split.images[:_MOST_IMAGES], _BATCH):
        outputs = tensors(chunk)
        for name, op in heads.items():
            parts[name].append(outputs[op.inputs[0]].flatten(1))
    return {name: torch.cat(chunks) for name, chunks in parts.items()}


def logistic_regression(features: Tensor, labels: Tensor, start: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Weights `[classes, features]` and bias `[classes]` of least cross-entropy on features `[N, features]`.

    Leaving the weights of `start` is penalized by the square of the distance, on standardized features so that it means
    the same at every scale.
    """
    mean, spread = features.mean(dim=0), features.std(dim=0, correction=0)
    spread = spread.clamp(min=max(0.1 * float(spread.mean()), 1e-8))
    scaled = (features - mean) / spread
    origin = start[0] * spread
    weight = origin.clone().requires_grad_()
    bias = (start[1] + start[0] @ mean).requires_grad_()
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(scaled, weight, bias), labels) + _DECAY * (weight - origin).square().sum()
        torch.autograd.backward(loss)
        return loss.detach()

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    raw = weight.detach() / spread
    return raw, bias.detach() - raw @ mean
