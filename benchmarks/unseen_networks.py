"""Networks whose shapes no table holds: the reference networks for other inputs and with other numbers of channels."""

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from hwsearch.tasks.networks import REFERENCE_NETWORKS, ReferenceNetwork

CHANNELS_TO = 4
"""Channels are rounded to multiples of this, as networks of other widths usually are."""


def scaled(model: nn.Module, factor: float) -> nn.Module:
    """The same network with `factor` times the channels everywhere but at its input and output."""

    def channels(count: int) -> int:
        return max(CHANNELS_TO, round(count * factor / CHANNELS_TO) * CHANNELS_TO)

    for name, module in model.named_children():
        if isinstance(module, nn.Conv2d):
            inputs = module.in_channels if module.in_channels in (1, 3) else channels(module.in_channels)
            groups = 1 if module.groups == 1 else inputs
            setattr(model, name, _convolution(module, inputs, channels(module.out_channels), groups))
        elif isinstance(module, nn.BatchNorm2d):
            setattr(model, name, nn.BatchNorm2d(channels(module.num_features)))
        elif isinstance(module, nn.Linear):
            setattr(model, name, nn.Linear(channels(module.in_features), module.out_features))
        else:
            scaled(module, factor)
    return model


def _convolution(like: nn.Conv2d, inputs: int, outputs: int, groups: int) -> nn.Conv2d:
    (rows, columns), stride = like.kernel_size, (like.stride[0], like.stride[1])
    padding = tuple(map(int, like.padding))
    return nn.Conv2d(
        inputs, outputs, (rows, columns), stride, (padding[0], padding[1]), groups=groups, bias=like.bias is not None
    )


def _scaled_reference(name: str, factor: float, input_shape: tuple[int, int, int]) -> ReferenceNetwork:
    make: Callable[[int], nn.Module] = REFERENCE_NETWORKS[name].make
    return replace(REFERENCE_NETWORKS[name], make=lambda classes: scaled(make(classes), factor), input_shape=input_shape)


def _lenet5_24(classes: int) -> nn.Module:
    """Its two convolutions and poolings leave 3x3 maps of a 24x24 image."""
    model = REFERENCE_NETWORKS["lenet5"].make(classes)
    model.fc1 = nn.Linear(64 * 3 * 3, 512)
    return model


UNSEEN = {
    "lenet5": ("24x24", replace(REFERENCE_NETWORKS["lenet5"], make=_lenet5_24, input_shape=(1, 24, 24))),
    "resnet8": ("28x28, 12 to 48 channels", _scaled_reference("resnet8", 0.75, (3, 28, 28))),
    "dscnn": ("48 channels", _scaled_reference("dscnn", 0.75, (1, 49, 10))),
    "mobilenetv1": ("72x72, 0.3 of the channels", _scaled_reference("mobilenetv1", 1.2, (3, 72, 72))),
}
"""By the reference network whose space fits: what differs from it, and the network."""
