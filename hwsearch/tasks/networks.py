"""Reference networks, written with ordinary torch modules; nothing else in the package knows any of them.

Sizes follow the published ones so that prices can be compared: LeNet-5 as in Bayesian Bits and CGMQ (32C5-MP2-64C5-MP2-512FC-10),
ResNet8, DS-CNN and MobileNetV1-0.25 as in MLPerf Tiny v1.0 (arXiv 2106.07597), whose asymmetric padding becomes symmetric here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn


def _conv_bn_relu(in_channels: int, out_channels: int, kernel: int = 3, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    layers: dict[str, nn.Module] = {
        "conv": nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        "bn": nn.BatchNorm2d(out_channels),
        "relu": nn.ReLU(),
    }
    named = nn.Sequential()
    for name, layer in layers.items():
        named.add_module(name, layer)
    return named


class DigitsCNN(nn.Module):
    """Four 3x3 convolutions for the 8x8 digits of scikit-learn; 0.6 M MACs."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.pool = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(32)
        self.conv4 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.bn4 = nn.BatchNorm2d(32)
        self.fc = nn.Linear(32 * 4 * 4, classes)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))  # [N, 16, 8, 8]
        x = self.relu(self.bn2(self.conv2(x)))  # [N, 32, 8, 8]
        x = self.pool(x)  # [N, 32, 4, 4]
        x = self.relu(self.bn3(self.conv3(x)))  # [N, 32, 4, 4]
        x = self.relu(self.bn4(self.conv4(x)))  # [N, 32, 4, 4]
        logits: Tensor = self.fc(x.flatten(1))  # [N, classes]
        return logits


class LeNet5(nn.Module):
    """LeNet-5 of the quantization literature, for 28x28 grey images."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 5)
        self.conv2 = nn.Conv2d(32, 64, 5)
        self.fc1 = nn.Linear(64 * 4 * 4, 512)
        self.fc2 = nn.Linear(512, classes)
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.conv1(x)))  # [N, 32, 12, 12]
        x = self.pool(self.relu(self.conv2(x)))  # [N, 64, 4, 4]
        x = self.relu(self.fc1(x.flatten(1)))  # [N, 512]
        logits: Tensor = self.fc2(x)  # [N, classes]
        return logits


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where shapes differ."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        same = stride == 1 and in_channels == out_channels
        self.shortcut: nn.Module = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))  # [N, out, H / stride, W / stride]
        y = self.bn2(self.conv2(y))
        out: Tensor = self.relu(y + self.shortcut(x))
        return out


class ResNet8(nn.Module):
    """ResNet8 of MLPerf Tiny for 32x32 colour images: 12.5 M MACs, 78 k weights."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = _conv_bn_relu(3, 16)
        self.stage1 = ResidualBlock(16, 16, 1)
        self.stage2 = ResidualBlock(16, 32, 2)
        self.stage3 = ResidualBlock(32, 64, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage3(self.stage2(self.stage1(self.stem(x))))  # [N, 64, 8, 8]
        logits: Tensor = self.fc(self.pool(x).flatten(1))  # [N, classes]
        return logits


class DSCNN(nn.Module):
    """DS-CNN of MLPerf Tiny for keyword spotting on 49x10 MFCC images: 2.7 M MACs."""

    def __init__(self, classes: int = 12, channels: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, channels, (10, 4), 2, (5, 1), bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.blocks = nn.ModuleList(nn.ModuleDict(_separable(channels, channels, 1)) for _ in range(4))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)  # [N, 64, 25, 5]
        for block in self.blocks:
            x = _run_separable(block, x)  # [N, 64, 25, 5]
        logits: Tensor = self.fc(self.pool(x).flatten(1))  # [N, classes]
        return logits


class MobileNetV1(nn.Module):
    """MobileNetV1 with a quarter of the channels, as in MLPerf Tiny's visual wake words: 7.5 M MACs at 96x96."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        widths = [8, 16, 32, 32, 64, 64, *[128] * 6, 256, 256]
        strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1]
        self.stem = _conv_bn_relu(3, 8, stride=2)
        pairs = zip(pairwise(widths), strides, strict=True)
        self.blocks = nn.ModuleList(nn.ModuleDict(_separable(before, after, stride)) for (before, after), stride in pairs)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)  # [N, 8, H / 2, W / 2]
        for block in self.blocks:
            x = _run_separable(block, x)
        logits: Tensor = self.fc(self.pool(x).flatten(1))  # [N, classes]
        return logits


def _separable(in_channels: int, out_channels: int, stride: int) -> dict[str, nn.Module]:
    return {
        "depthwise": _conv_bn_relu(in_channels, in_channels, stride=stride, groups=in_channels),
        "pointwise": _conv_bn_relu(in_channels, out_channels, 1),
    }


def _run_separable(block: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(block, nn.ModuleDict)
    out: Tensor = block["pointwise"](block["depthwise"](x))
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceNetwork:
    """A network that spaces and tasks name: how to make it, and the shape (C, H, W) of its input."""

    make: Callable[[int], nn.Module]
    input_shape: tuple[int, int, int]
    classes: int

    def build(self, seed: int = 0) -> nn.Module:
        """The untrained network; the same weights for the same seed, and torch's global generator as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make(self.classes)


REFERENCE_NETWORKS = {
    "digits_cnn": ReferenceNetwork(make=DigitsCNN, input_shape=(1, 8, 8), classes=10),
    "lenet5": ReferenceNetwork(make=LeNet5, input_shape=(1, 28, 28), classes=10),
    "resnet8": ReferenceNetwork(make=ResNet8, input_shape=(3, 32, 32), classes=10),
    "dscnn": ReferenceNetwork(make=DSCNN, input_shape=(1, 49, 10), classes=12),
    "mobilenetv1": ReferenceNetwork(make=MobileNetV1, input_shape=(3, 96, 96), classes=2),
}
