"""What is captured computes what the module computes; what integer kernels cannot compute is refused by name."""

import copy
import warnings
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hwsearch.errors import NetworkError
from hwsearch.graph.aten import OpParameters
from hwsearch.graph.capture import Captured, capture, capture_model
from hwsearch.graph.network import INPUT, Network
from hwsearch.graph.op import Activation, Op, OpKind
from hwsearch.tasks.networks import REFERENCE_NETWORKS

ACTIVATIONS = {
    Activation.NONE: lambda x: x,
    Activation.RELU: F.relu,
    Activation.RELU6: F.relu6,
    Activation.HARDTANH: F.hardtanh,
}


def run(captured: Captured, model: nn.Module, images: Tensor) -> Tensor:
    """Evaluate a captured network in float, operation by operation, with the parameters that the model has now."""
    parameters = captured.parameters_of(model)
    tensors = {INPUT: images}
    for op in captured.network.ops:
        sources = [tensors[name].reshape(len(images), *op.in_shape) for name in op.inputs]
        out = run_op(op, sources, parameters.get(op.name))
        tensors[op.name] = ACTIVATIONS[op.activation](out).reshape(len(images), *op.out_shape)
    return tensors[captured.network.output.name].flatten(1)


def run_op(op: Op, sources: list[Tensor], own: OpParameters[Tensor] | None) -> Tensor:
    x = sources[0]
    if op.kind is OpKind.ADD:
        return x + sources[1]
    if op.kind is OpKind.MAX_POOL:
        return F.max_pool2d(x, op.kernel, op.stride, op.padding)
    if op.kind is OpKind.AVG_POOL:
        return F.avg_pool2d(x, op.kernel, op.stride, op.padding)
    if op.kind is OpKind.REQUANTIZE:
        return x
    assert own is not None
    if op.kind is OpKind.LINEAR:
        out = F.linear(x.flatten(1), own.weight, own.bias)
    else:
        out = F.conv2d(x, own.weight, own.bias, op.stride, op.padding, groups=op.groups)
    if op.batch_norm:
        out = F.batch_norm(out, own.bn_mean, own.bn_var, own.bn_weight, own.bn_bias, eps=own.bn_eps)
    return out


def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with batch norms that matter."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                if tensor is not None:
                    tensor.data = torch.rand(tensor.shape, generator=generator) + 0.5
    return model.eval()


def assert_same_function(model: nn.Module, shape: tuple[int, ...]) -> Captured:
    images = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    captured = capture_model(model, images[:1])
    with torch.no_grad():
        torch.testing.assert_close(run(captured, model, images), model(images).flatten(1), rtol=1e-4, atol=1e-4)
    return captured


def without_largest(names: Iterable[str]) -> list[Any]:
    """The largest network with the slow tests alone."""
    return [pytest.param(name, marks=pytest.mark.slow) if name == "mobilenetv1" else name for name in names]


@pytest.mark.parametrize("name", without_largest(REFERENCE_NETWORKS))
def test_every_reference_network_is_captured_as_it_computes(name: str) -> None:
    reference = REFERENCE_NETWORKS[name]
    captured = assert_same_function(shaken(reference.build()), reference.input_shape)
    assert set(captured.sources) == {op.name for op in captured.network.ops if op.has_weights}
    assert captured.network.output.out_shape == (reference.classes,)


@pytest.mark.parametrize(
    ("name", "n_ops", "macs", "weights"),
    [
        ("digits_cnn", 6, 604_160, 28_304),
        ("lenet5", 6, 4_267_008, 581_408),
        ("resnet8", 14, 12_501_632, 77_360),  # MLPerf Tiny, arXiv 2106.07597: 12.5 M MACs, 78 k parameters
        ("dscnn", 11, 2_656_768, 22_016),  # 2.7 M, 23 k
        ("mobilenetv1", 29, 7_489_664, 208_112),  # 7.5 M, 219 k with biases and batch norms
    ],
)
def test_reference_networks_have_the_published_size(name: str, n_ops: int, macs: int, weights: int) -> None:
    reference = REFERENCE_NETWORKS[name]
    ops = capture(reference.build(), torch.zeros(1, *reference.input_shape)).ops
    assert (len(ops), sum(op.macs for op in ops), sum(op.n_weights for op in ops)) == (n_ops, macs, weights)


def test_capture_leaves_the_model_as_it_was() -> None:
    model = REFERENCE_NETWORKS["digits_cnn"].build().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    capture(model, torch.zeros(1, 1, 8, 8))
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_captured_parameters_are_copies() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    captured = capture_model(model, torch.zeros(1, 1, 2, 2))
    captured.parameters_of(model)["1"].weight.zero_()
    assert all(parameter.abs().sum() > 0 for parameter in model.parameters())


def test_a_convolution_takes_its_batch_norm_and_activation_in() -> None:
    model = shaken(nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(), nn.Flatten(), nn.Linear(64, 3)))
    first, last = assert_same_function(model, (2, 6, 6)).network.ops
    assert (first.name, first.batch_norm, first.activation) == ("0", True, Activation.RELU6)
    assert (last.name, last.in_shape) == ("4", (4, 4, 4)), "a linear layer keeps the shape of what was flattened"


class Branches(nn.Module):
    """The first convolution is read before and after its activation, so neither can join it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.act = nn.ReLU()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z: Tensor = self.fc((self.act(y) + y).mean((2, 3)))
        return z


def test_an_activation_whose_input_is_read_twice_becomes_a_requantize() -> None:
    network = assert_same_function(Branches(), (2, 5, 5)).network
    assert [(op.name, str(op.kind), str(op.activation)) for op in network.ops] == [
        ("conv", "conv2d", "none"),
        ("act", "requantize", "relu"),
        ("add", "add", "none"),
        ("mean", "avg_pool", "none"),
        ("fc", "linear", "none"),
    ]
    assert network["add"].inputs == ("act", "conv")


class InPlace(nn.Module):
    """After `relu_`, the name `y` means the rectified tensor, in the skip connection as well."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        flat = y.flatten(1)
        F.relu(y, inplace=True)
        z = self.conv2(flat.view(len(flat), 4, 5, 5) if flat.dim() == 4 else y)
        z += y
        out: Tensor = self.fc(F.hardtanh_(z).mean((2, 3)))
        return out


def test_in_place_operations_change_every_name_of_their_tensor() -> None:
    network = assert_same_function(InPlace(), (2, 5, 5)).network
    assert network["conv1"].activation is Activation.RELU
    assert network["add"].inputs == ("conv2", "conv1")
    assert network["add"].activation is Activation.HARDTANH


class Reused(nn.Module):
    """One pooling and one activation module, called twice each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 2), nn.Linear(16, 3)
        self.pool, self.act = nn.AvgPool2d(2), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.act(self.conv1(x)))
        x = self.pool(self.act(self.conv2(x)))
        out: Tensor = self.fc(F.dropout(x, 0.5, self.training).view(x.shape[0], -1))
        return out


def test_modules_without_weights_may_be_called_twice() -> None:
    network = assert_same_function(shaken(Reused()), (1, 12, 12)).network
    assert [op.name for op in network.ops] == ["conv1", "pool", "conv2", "pool_2", "fc"]


VARIANTS = {
    "grouped convolution": nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.Flatten(), nn.Linear(128, 3)),
    "depthwise with stride": nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1, groups=4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)),
    "same padding": nn.Sequential(nn.Conv2d(4, 2, (5, 3), padding="same"), nn.Flatten(), nn.Linear(72, 3)),
    "batch norm of a linear layer": nn.Sequential(nn.Flatten(), nn.Linear(144, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)),
    "batch norm without scale": nn.Sequential(nn.Conv2d(4, 3, 6), nn.BatchNorm2d(3, affine=False), nn.Flatten()),
    "padded pooling": nn.Sequential(
        nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2, 1, 1), nn.Conv2d(4, 2, 1), nn.Flatten(), nn.Linear(32, 3)
    ),
    "adaptive pooling to a grid": nn.Sequential(nn.Conv2d(4, 2, 1), nn.AdaptiveAvgPool2d((3, 2)), nn.Flatten(), nn.Linear(12, 3)),
    "convolution to one pixel": nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 3, 1), nn.Flatten()),
    "activation after activation": nn.Sequential(nn.Conv2d(4, 2, 1), nn.Hardtanh(), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)),
    "identity, dropout and copies": nn.Sequential(nn.Identity(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 3)),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_captured_as_they_compute(variant: str) -> None:
    assert_same_function(shaken(VARIANTS[variant]), (4, 6, 6))


def test_depthwise_and_grouped_convolutions_are_told_apart() -> None:
    grouped = capture(VARIANTS["grouped convolution"], torch.zeros(1, 4, 6, 6)).ops[0]
    depthwise = capture(VARIANTS["depthwise with stride"], torch.zeros(1, 4, 6, 6)).ops[0]
    assert (grouped.kind, grouped.groups, grouped.reduction) == (OpKind.CONV2D, 2, 18)
    assert (depthwise.kind, depthwise.groups, depthwise.reduction) == (OpKind.DEPTHWISE_CONV2D, 4, 9)


def test_what_the_output_does_not_need_is_left_out() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.spare = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.spare(x.flatten(1)).relu_()
            out: Tensor = self.fc(x.flatten(1))
            return out

    assert [op.name for op in capture(Unused(), torch.zeros(1, 1, 2, 2)).ops] == ["fc"]


# --- parameters of a model that was trained since ---------------------------------------------------------------------


class Constants(nn.Module):
    """Weights that are no parameters: a buffer, one that is not saved, and plain tensors."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.plain, self.listed = torch.randn(6, 4, 3, 3, generator=generator), [torch.randn(5, 96, generator=generator)]
        self.register_buffer("saved", torch.randn(6, generator=generator))
        self.register_buffer("unsaved", torch.randn(3, 5, generator=generator), persistent=False)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(F.conv2d(x, self.plain, self.saved))
        return F.linear(F.relu(F.linear(y.flatten(1), self.listed[0])), self.unsaved)


class Twice(nn.Module):
    """A bias that two layers share; each operation stores its own copy of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(144, 4), nn.Linear(4, 4)
        self.last.bias = self.first.bias

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(F.relu(self.first(x.flatten(1))))
        return out


def references() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    return {name: (reference.build(), reference.input_shape) for name, reference in REFERENCE_NETWORKS.items()}


KEPT: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    **references(),
    **{name: (model, (4, 6, 6)) for name, model in VARIANTS.items()},
    "a skip connection": (Branches(), (2, 5, 5)),
    "in place": (InPlace(), (2, 5, 5)),
    "modules called twice": (Reused(), (1, 12, 12)),
    "constants": (Constants(), (4, 6, 6)),
    "a shared bias": (Twice(), (4, 6, 6)),
    "64 bits": (nn.Sequential(nn.Flatten(), nn.Linear(144, 3)).double(), (4, 6, 6)),
}


def retrained(model: nn.Module) -> nn.Module:
    """Every parameter and buffer of a copy of the model is another."""
    trained, generator = copy.deepcopy(model), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in (*trained.parameters(), *trained.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return trained.eval()


@pytest.mark.parametrize("name", without_largest(KEPT))
def test_parameters_of_a_trained_model_are_read_without_another_export(name: str) -> None:
    model, shape = KEPT[name]
    example = torch.zeros(1, *shape)
    once, trained = capture_model(model, example), retrained(model)
    again = capture_model(trained, example)
    assert again.network.ops == once.network.ops
    found, wanted = once.parameters_of(trained), again.parameters_of(trained)
    assert found.keys() == wanted.keys()
    for op in found:
        for field in fields(OpParameters):
            one, other = getattr(found[op], field.name), getattr(wanted[op], field.name)
            assert torch.equal(one, other) if isinstance(one, Tensor) else one == other, (op, field.name)
            assert not isinstance(one, Tensor) or one.dtype is torch.float32
    images = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(run(once, trained, images), trained.float()(images).flatten(1), rtol=1e-4, atol=1e-3)


def test_a_model_of_other_tensors_is_refused() -> None:
    captured = capture_model(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.zeros(1, 1, 2, 2))
    with pytest.raises(NetworkError, match=r"has no 1\.weight; give the captured model or one trained from it"):
        captured.parameters_of(nn.Linear(4, 2))


# --- refusals ---------------------------------------------------------------------------------------------------------


class Chooser(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return x * 2


class Deciding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.fc = Chooser(), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.inner(x).flatten(1))
        return out


def test_control_flow_that_depends_on_data_is_refused_in_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NetworkError) as refusal:
        capture(Deciding(), torch.zeros(1, 1, 2, 2))
    message = str(refusal.value)
    assert message.startswith("A network must compute the same operations for every input")
    assert "module inner (Chooser, test_capture.py line " in message
    assert "\n" not in message
    assert capfd.readouterr() == ("", ""), "torch's own report must not reach the terminal"


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(F.relu(self.fc(x.flatten(1))))
        return out


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out = self.fc(x.flatten(1))
        return out, F.relu(out)


class AddsNumber(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc((x + 1).flatten(1))
        return out


class AddsWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.offset = nn.Linear(16, 16), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc((x + self.offset.exp()).flatten(1))
        return out


class AlwaysDrops(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(F.dropout(x.flatten(1)))
        return out


def weight_normed() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(16, 2)))


def ending(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(2))


REFUSED = [
    (Shared(), "read once per inference, but module fc and module fc share theirs"),
    (TwoOutputs(), "must return one tensor of logits, but its forward returns 2 values"),
    (AddsNumber(), "but the model's forward reads 1"),
    (AlwaysDrops(), "Dropout must be off in evaluation"),
    (weight_normed(), "Weights must be plain parameters"),
    (AddsWeight(), "but the model's forward reads a parameter or constant"),
    (ending(nn.Conv2d(1, 1, 1), nn.Sigmoid()), "but module 1 calls sigmoid; replace it"),
    (ending(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.BatchNorm2d(1)), "A batch norm must directly follow a convolution"),
    (ending(nn.BatchNorm2d(1)), "but 0 does not; move it there"),
    (ending(nn.Conv2d(1, 1, 1, dilation=2)), "must have dilation 1, but module 0 has dilation (2, 2)"),
    (ending(nn.Conv2d(1, 1, 2, padding="same")), "Padding must be equal on opposite sides"),
    (ending(nn.Hardtanh(-2, 2)), "Activations must be limited to"),
    (ending(nn.AdaptiveAvgPool2d(3)), "must divide its map evenly, but module 0 has 4x4 to 3x3"),
    (ending(nn.AvgPool2d(3, 2, 1, count_include_pad=False)), "must divide by the whole window"),
    (ending(nn.MaxPool2d(3, 2, ceil_mode=True)), "has ceil_mode=True; set ceil_mode=False"),
    (nn.Sequential(nn.Flatten(), nn.Linear(16, 2), nn.Softmax(1)), "calls softmax; replace it or leave it out"),
    (nn.Sequential(nn.Flatten(), nn.Linear(16, 2), nn.ReLU()), "must end in a linear layer"),
    (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), "must end in a linear layer (or a convolution to one pixel)"),
    (nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten()), "readable by torch.export, but module 0 (Conv2d) is not (RuntimeError: "),
    (nn.Sequential(nn.Linear(4, 2)), "must read one vector per input, but module 0 has a shape (1, 4, 4)"),
    (nn.Identity(), "exactly one output per exit, but the trunk has none"),
]


@pytest.mark.parametrize(("model", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_what_kernels_cannot_compute_is_refused_by_name(model: nn.Module, message: str) -> None:
    example = torch.zeros(1, 1, 4, 4)
    for module in model.modules():
        if isinstance(module, nn.LazyLinear):  # its size is what reaches it
            with warnings.catch_warnings(action="ignore"):
                model(example.expand(2, -1, -1, -1))
    with pytest.raises(NetworkError) as refusal:
        capture(model, example)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_captured_network_survives_json() -> None:
    network = capture(REFERENCE_NETWORKS["resnet8"].build(), torch.zeros(1, 3, 32, 32))
    assert Network.from_json(network.to_json()).ops == network.ops
