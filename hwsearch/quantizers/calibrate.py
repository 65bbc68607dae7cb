"""What a supernet takes from data without training: activation steps, and batch norm statistics of an assignment."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hwsearch.graph.capture import Captured, capture_model
from hwsearch.graph.precision import BitAssignment
from hwsearch.graph.space import SearchSpace
from hwsearch.quantizers.heads import fit_exit_heads
from hwsearch.quantizers.schemes import DEFAULT_SCHEME
from hwsearch.quantizers.supernet import Supernet
from hwsearch.quantizers.switchable import ChannelStatistics
from hwsearch.quantizers.uniform import InputQuantizer
from hwsearch.tasks.task import Task

CALIBRATION_IMAGES = 512
STATISTICS_IMAGES = 512
"""The first training images; batch norm statistics of assignments that are compared with each other are estimated on these."""
_SAMPLES_PER_TENSOR = 16384


def calibrate_activations(supernet: Supernet, images: Tensor) -> None:
    """Set every activation step to the least squared error on what the float network computes from `images`."""

    def observe(name: str, output: Tensor) -> None:
        if supernet.is_logits(name) or supernet.network[name].kind.traits.passes_codes:
            return
        values = output.flatten()
        stride = -(-values.numel() // _SAMPLES_PER_TENSOR) | 1
        supernet.activation(name).calibrate(values[::stride])

    # every exit's path is observed; an odd stride over a whole batch meets every channel and place
    supernet.float_forward(images[:CALIBRATION_IMAGES], observe, exits=(*supernet.network.exits, ""))


def estimate_statistics(
    supernet: Supernet,
    assignment: BitAssignment,
    images: Tensor,
    *,
    exits: Sequence[str] = ("",),
    batch: int = CALIBRATION_IMAGES,
) -> dict[str, ChannelStatistics]:
    """Batch norm statistics of an assignment on `images`, pooled over batches each normalized by its own."""
    parts = [supernet.observe_statistics(chunk, assignment, exits=exits) for chunk in torch.split(images, batch)]
    shares = torch.tensor([len(chunk) / len(images) for chunk in torch.split(images, batch)])
    return {name: _pooled([part[name] for part in parts], shares) for name in parts[0]}


def _pooled(parts: Sequence[ChannelStatistics], shares: Tensor) -> ChannelStatistics:
    means = torch.stack([part.mean for part in parts])  # [batches, channels]
    variances = torch.stack([part.variance for part in parts])  # [batches, channels]
    mean = shares @ means
    return ChannelStatistics(mean=mean, variance=shares @ (variances + (means - mean).square()))


def untrained_supernet(
    task: Task,
    space: SearchSpace,
    float_model: nn.Module,
    *,
    seed: int = 0,
    scheme: str = DEFAULT_SCHEME,
    captured: Captured | None = None,
) -> Supernet:
    """The supernet that post-training quantization of a trained float network gives, exit heads fitted to its features.

    Where training starts, and what a preview without training measures. `captured` is the float model's network or that of
    the model it was trained from; without it the float model is captured here.
    """
    known = captured or capture_model(float_model, task.example_input)
    quantizer = InputQuantizer.of_images(task.train.images)
    supernet = Supernet.of_space(space, quantizer, known.parameters_of(float_model), seed=seed, scheme=scheme)
    fit_exit_heads(supernet, task.train)
    calibrate_activations(supernet, task.train.images)
    return supernet.eval()
