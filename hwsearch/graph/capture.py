"""From a torch module to a network of priced operations.

`torch.export` (non-strict) records what the module computes. Its ATen calls are first read as a chain of single steps (`_Call`), in
which every name means one value even where a module works in place; then batch norms and activations are folded into
the operation that feeds them (`_fused`). What integer kernels cannot compute is refused here, by name.
"""

import copy
import logging
import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hwsearch.errors import NetworkError
from hwsearch.graph.network import INPUT, Network
from hwsearch.graph.op import Activation, Op, OpKind, Shape

Node = torch.fx.Node


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpParameters:
    """Float parameters of an operation with weights, as the module holds them; the batch norm is not yet folded.

    `weight`: `[out, in / groups, kernel_h, kernel_w]`, or `[out, in]` with inputs in (channel, height, width) order;
    `bias` and the `bn_` tensors: `[out]`. The four batch norm tensors are all there or all None.
    """

    weight: Tensor
    bias: Tensor | None = None
    bn_weight: Tensor | None = None
    bn_bias: Tensor | None = None
    bn_mean: Tensor | None = None
    bn_var: Tensor | None = None
    bn_eps: float = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Captured:
    """A network and the float parameters of each of its operations with weights, by operation name."""

    network: Network
    parameters: Mapping[str, OpParameters]


def capture(model: nn.Module, example_input: Tensor) -> Network:
    """The network of priced operations that `model` computes.

    `example_input` is one input, [1, C, H, W] or [1, features]. The model stays as it is; it is read in evaluation mode.

    >>> network = capture(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)), torch.zeros(1, 1, 6, 6))
    >>> [(op.name, str(op.kind), str(op.activation), op.macs) for op in network.ops]
    [('0', 'conv2d', 'relu', 576), ('3', 'linear', 'none', 128)]
    """
    return capture_parameters(model, example_input).network


def capture_parameters(model: nn.Module, example_input: Tensor) -> Captured:
    """As `capture`, with copies of the model's float parameters."""
    exported = _export(copy.deepcopy(model).eval().float(), example_input[:1].float())
    reader = _Reader(exported)
    calls = reader.read()
    ops, parameters = _fused(calls)
    network = Network(ops, tuple(example_input.shape[1:]), name=type(model).__name__)
    _check_logits(network)
    return Captured(network=network, parameters=parameters)


# --- torch.export -----------------------------------------------------------------------------------------------------


def _export(model: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    try:
        with _quiet_torch(), torch.no_grad():
            return torch.export.export(model, (example,), strict=False)
    except Exception as error:  # torch documents no common class for what export raises
        raise NetworkError(_export_refusal(model, error)) from error


@contextmanager
def _quiet_torch() -> Iterator[None]:
    """Keep torch's own reports of a failed export, dozens of lines, off the terminal; the refusal says it in one."""
    logger = logging.getLogger("torch")
    chatter = [logger, logging.getLogger("torch.fx.experimental.symbolic_shapes")]
    levels = [one.level for one in chatter]
    for one in chatter:
        one.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for one, level in zip(chatter, levels, strict=True):
            one.setLevel(level)


def _export_refusal(model: nn.Module, error: Exception) -> str:
    where = _place_in_model(model, error)
    if type(error).__name__.startswith("GuardOnDataDependent") or "data-dependent" in str(error):
        return (
            f"A network must compute the same operations for every input, but {where} takes a decision from the data; "
            "move that decision out of forward (hwsearch adds its own early exits and gates)."
        )
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"A network must be readable by torch.export, but {where} is not ({type(error).__name__}: {reason}); rewrite that line."


def _place_in_model(model: nn.Module, error: Exception) -> str:
    """The innermost `forward` outside torch that was running when the export failed: module, file and line."""
    names = {id(module): name for name, module in model.named_modules()}
    place = f"module {type(model).__name__}"
    for frame, line in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and id(owner) in names and not type(owner).__module__.startswith("torch."):
            name = names[id(owner)] or "the model itself"
            place = f"module {name} ({type(owner).__name__}, {Path(frame.f_code.co_filename).name} line {line})"
    return place


# --- ATen calls to single steps ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Value:
    """What a node of the exported graph holds: the output of a call (or the input), seen as a map or flattened."""

    name: str
    shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """One step: `op` as if nothing were fused; for a lone batch norm or activation its kind is `requantize`."""

    op: Op
    parameters: OpParameters | None = None
    is_batch_norm: bool = False


class _Reader:
    """Reads the calls of an exported program in order."""

    def __init__(self, exported: torch.export.ExportedProgram) -> None:
        self.nodes = list(exported.graph_module.graph.nodes)
        self.tensors = _placeholder_tensors(exported)
        self.values: dict[Node, _Value] = {}
        self.calls: list[_Call] = []
        self.taken: Counter[str] = Counter()
        self.weights_read_by: dict[Node, str] = {}

    def read(self) -> list[_Call]:
        """The calls that the output needs."""
        result: _Value | None = None
        for node in self.nodes:
            if node.op == "placeholder" and node not in self.tensors:
                self.values[node] = _Value(INPUT, tuple(node.meta["val"].shape[1:]))
            elif node.op == "output":
                result = self._result(node)
            elif node.op == "call_function":
                self._read_call(node)
        assert result is not None, "an exported graph always has an output node"
        return _needed(self.calls, result.name)

    def _result(self, node: Node) -> _Value:
        outputs = node.args[0]
        assert isinstance(outputs, tuple)
        if len(outputs) != 1 or outputs[0] not in self.values:
            raise NetworkError(
                f"A network must return one tensor of logits, but its forward returns {len(outputs)} values; "
                "return the logits alone (early exits are named in the search space)."
            )
        return self.values[outputs[0]]

    def _read_call(self, node: Node) -> None:
        target = str(node.target).removeprefix("aten.")
        name = target.split(".")[0]
        in_place = name.endswith("_")
        read = _CALLS.get(name.removesuffix("_") if in_place else name)
        if read is None:
            raise NetworkError(
                f"Operations must be among {_SUPPORTED}, but {_place(node)} calls {name}; replace it{_HINTS.get(name, '')}."
            )
        before = self.values.get(node.args[0]) if node.args and isinstance(node.args[0], Node) else None
        value = read(self, node)
        self.values[node] = value
        if in_place and before is not None:  # every name of the overwritten tensor now means the new value
            self.values = {key: value if old.name == before.name else old for key, old in self.values.items()}

    # What the readers of single calls use.

    def value(self, node: Node, index: int) -> _Value:
        """The tensor that a node reads as argument `index`."""
        source = node.args[index]
        if not isinstance(source, Node) or source not in self.values:
            raise NetworkError(
                f"Operations must read tensors computed from the input, but {_place(node)} reads "
                f"{'a parameter' if isinstance(source, Node) else repr(source)}; compute it with a convolution or linear layer instead."
            )
        return self.values[source]

    def tensor(self, node: Node, index: int) -> Tensor | None:
        """The parameter that a node reads as argument `index`; None if it is left out."""
        source = argument(node, index, None)
        if source is None:
            return None
        if source not in self.tensors:
            raise NetworkError(
                f"Weights must be plain parameters, but {_place(node)} computes its own; remove the parametrization first "
                "(torch.nn.utils.parametrize.remove_parametrizations)."
            )
        return self.tensors[source].detach().clone()

    def own_weights(self, node: Node, name: str) -> None:
        """Refuse weights that two operations share: each operation stores and trains its own."""
        source = node.args[1]
        assert isinstance(source, Node)
        if source in self.weights_read_by:
            raise NetworkError(
                f"Every weight must be read once per inference, but {self.weights_read_by[source]} and {_place(node)} share theirs; "
                "use two modules."
            )
        self.weights_read_by[source] = name

    def add(self, node: Node, kind: OpKind, sources: tuple[_Value, ...], **fields: Any) -> _Value:
        """Append a call whose output has the node's own shape unless `out_shape` says otherwise."""
        parameters, is_batch_norm = fields.pop("parameters", None), fields.pop("is_batch_norm", False)
        out_shape = fields.pop("out_shape", None) or tuple(node.meta["val"].shape[1:])
        inputs = tuple(source.name for source in sources)
        op = Op(name=self._name(node), kind=kind, inputs=inputs, in_shape=sources[0].shape, out_shape=out_shape, **fields)
        self.calls.append(_Call(op=op, parameters=parameters, is_batch_norm=is_batch_norm))
        return _Value(op.name, out_shape)

    def _name(self, node: Node) -> str:
        """The module's path; for a call outside a torch layer, that of the module around it and what is called."""
        path, is_layer = _module_of(node)
        called = str(node.target).removeprefix("aten.").split(".")[0].removesuffix("_")
        name = path if is_layer and path else f"{path}.{called}".removeprefix(".")
        self.taken[name] += 1
        return name if self.taken[name] == 1 else f"{name}_{self.taken[name]}"


def _placeholder_tensors(exported: torch.export.ExportedProgram) -> dict[Node, Tensor]:
    """Parameter and buffer of each placeholder node that stands for one."""
    signature = exported.graph_signature
    held = {**signature.inputs_to_parameters, **signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
    known = {**exported.state_dict, **exported.constants}
    nodes = [node for node in exported.graph_module.graph.nodes if node.op == "placeholder"]
    return {node: known[held[node.name]] for node in nodes if node.name in held}


def _module_of(node: Node) -> tuple[str, bool]:
    """Path of the innermost module that made a call, and whether that is one of torch's layers."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "", False
    path, kind = stack[-1]
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__name__}"
    is_layer = kind.startswith("torch.nn.modules.") and ".container." not in kind
    return re.sub(r"@\d+", "", str(path)), is_layer


def _place(node: Node) -> str:
    path, _ = _module_of(node)
    return f"module {path}" if path else "the model's forward"


def _needed(calls: list[_Call], result: str) -> list[_Call]:
    """The calls that `result` depends on, in order."""
    needed = {result}
    for call in reversed(calls):
        if call.op.name in needed:
            needed.update(call.op.inputs)
    return [call for call in calls if call.op.name in needed]


def argument(node: Node, index: int, default: Any) -> Any:
    """A positional argument of an ATen call, which trails off where arguments have their defaults."""
    return node.args[index] if len(node.args) > index else default


def _pair(node: Node, index: int, default: int | tuple[int, int]) -> tuple[int, int]:
    given = argument(node, index, None)
    if given is None or given == []:
        given = default
    both = [given, given] if isinstance(given, int) else [int(one) for one in given]
    return (both[0], both[-1])


def _refuse(node: Node, must: str, found: str, do: str) -> NetworkError:
    return NetworkError(f"{must}, but {_place(node)} has {found}; {do}.")


# --- one reader per supported call ------------------------------------------------------------------------------------


def _convolution(reader: _Reader, node: Node) -> _Value:
    source, weight = reader.value(node, 0), reader.tensor(node, 1)
    assert weight is not None
    reader.own_weights(node, str(node.name))
    dilation = _pair(node, 5, 1)
    if dilation != (1, 1):
        raise _refuse(node, "Convolutions must have dilation 1", f"dilation {dilation}", "use a larger kernel or more layers")
    groups = argument(node, 6, 1)
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    depthwise = groups == source.shape[0] == weight.shape[0] and groups > 1
    return reader.add(
        node,
        OpKind.DEPTHWISE_CONV2D if depthwise else OpKind.CONV2D,
        (source,),
        kernel=kernel,
        stride=_pair(node, 3, 1),
        padding=_convolution_padding(node, kernel),
        groups=groups,
        parameters=OpParameters(weight=weight, bias=reader.tensor(node, 2)),
    )


def _convolution_padding(node: Node, kernel: tuple[int, int]) -> tuple[int, int]:
    given = argument(node, 4, 0)
    if given == "valid":
        return (0, 0)
    if given != "same":
        return _pair(node, 4, 0)
    if kernel[0] % 2 == 0 or kernel[1] % 2 == 0:
        raise _refuse(node, "Padding must be equal on opposite sides", f"'same' with kernel {kernel}", "use an odd kernel")
    return (kernel[0] // 2, kernel[1] // 2)


def _linear(reader: _Reader, node: Node) -> _Value:
    source, weight = reader.value(node, 0), reader.tensor(node, 1)
    assert weight is not None
    reader.own_weights(node, str(node.name))
    if len(node.meta["val"].shape) != 2:
        raise _refuse(node, "A linear layer must read one vector per input", f"a shape {source.shape}", "flatten before it")
    return reader.add(node, OpKind.LINEAR, (source,), parameters=OpParameters(weight=weight, bias=reader.tensor(node, 2)))


def _batch_norm(reader: _Reader, node: Node) -> _Value:
    source, mean, var = reader.value(node, 0), reader.tensor(node, 3), reader.tensor(node, 4)
    if mean is None or var is None:
        raise _refuse(node, "A batch norm must keep running statistics", "none", "set track_running_stats=True")
    scale, offset = reader.tensor(node, 1), reader.tensor(node, 2)
    parameters = OpParameters(
        weight=mean,  # replaced when the batch norm joins the operation before it
        bn_weight=torch.ones_like(mean) if scale is None else scale,
        bn_bias=torch.zeros_like(mean) if offset is None else offset,
        bn_mean=mean,
        bn_var=var,
        bn_eps=float(argument(node, 7, 1e-5)),
    )
    return reader.add(node, OpKind.REQUANTIZE, (source,), out_shape=source.shape, parameters=parameters, is_batch_norm=True)


def _activation(reader: _Reader, node: Node, activation: Activation) -> _Value:
    source = reader.value(node, 0)
    return reader.add(node, OpKind.REQUANTIZE, (source,), out_shape=source.shape, activation=activation)


def _relu(reader: _Reader, node: Node) -> _Value:
    return _activation(reader, node, Activation.RELU)


def _relu6(reader: _Reader, node: Node) -> _Value:
    return _activation(reader, node, Activation.RELU6)


def _clamp(reader: _Reader, node: Node) -> _Value:
    """Hardtanh, ReLU6 and clamp are one function with two limits, of which three pairs are known."""
    hardtanh = "hardtanh" in str(node.target)
    low, high = argument(node, 1, -1.0 if hardtanh else None), argument(node, 2, 1.0 if hardtanh else None)
    known = {(-1.0, 1.0): Activation.HARDTANH, (0.0, 6.0): Activation.RELU6, (0.0, None): Activation.RELU}
    if (low, high) not in known:
        raise _refuse(
            node, "Activations must be limited to [0, inf), [0, 6] or [-1, 1]", f"[{low}, {high}]", "use ReLU, ReLU6 or Hardtanh"
        )
    return _activation(reader, node, known[low, high])


def _add(reader: _Reader, node: Node) -> _Value:
    left, right = reader.value(node, 0), reader.value(node, 1)
    if left.shape != right.shape or node.kwargs.get("alpha", 1) != 1:
        raise _refuse(
            node, "An addition must add two tensors of one shape as they are", f"{left.shape} + {right.shape}", "bring both to one shape"
        )
    return reader.add(node, OpKind.ADD, (left, right), out_shape=left.shape)


def _max_pool(reader: _Reader, node: Node) -> _Value:
    dilation, ceil_mode = _pair(node, 4, 1), argument(node, 5, False)
    if dilation != (1, 1):
        raise _refuse(node, "Pooling must have dilation 1", f"dilation {dilation}", "use a plain window")
    return _pool(reader, node, OpKind.MAX_POOL, ceil_mode)


def _avg_pool(reader: _Reader, node: Node) -> _Value:
    counts_padding, divisor = argument(node, 5, True), argument(node, 6, None)
    if divisor is not None or (_pair(node, 3, 0) != (0, 0) and not counts_padding):
        raise _refuse(
            node, "Average pooling must divide by the whole window", "another divisor", "set count_include_pad=True and no divisor"
        )
    return _pool(reader, node, OpKind.AVG_POOL, argument(node, 4, False))


def _pool(reader: _Reader, node: Node, kind: OpKind, ceil_mode: bool) -> _Value:
    source, kernel = reader.value(node, 0), _pair(node, 1, 1)
    stride, padding = _pair(node, 2, kernel), _pair(node, 3, 0)
    sides = zip(source.shape[1:], kernel, stride, padding, strict=True)
    whole = tuple((size + 2 * pad - width) // step + 1 for size, width, step, pad in sides)
    if ceil_mode and whole != tuple(node.meta["val"].shape[2:]):
        raise _refuse(node, "Pooling windows must lie inside the padded map", "ceil_mode=True", "set ceil_mode=False")
    return reader.add(node, kind, (source,), kernel=kernel, stride=stride, padding=padding)


def _adaptive_pool(reader: _Reader, node: Node) -> _Value:
    """Average pooling to a given grid, whose windows must be equal to be one operation."""
    source, (rows, columns) = reader.value(node, 0), _pair(node, 1, 1)
    channels, height, width = source.shape
    if height % rows or width % columns:
        raise _refuse(
            node, "Adaptive pooling must divide its map evenly", f"{height}x{width} to {rows}x{columns}", "choose a grid that divides it"
        )
    window = (height // rows, width // columns)
    return reader.add(node, OpKind.AVG_POOL, (source,), out_shape=(channels, rows, columns), kernel=window, stride=window)


def _mean(reader: _Reader, node: Node) -> _Value:
    source, given = reader.value(node, 0), argument(node, 1, None)
    axes = {axis % 4 for axis in given or ()}
    if len(source.shape) != 3 or axes != {2, 3}:
        raise _refuse(node, "A mean must be global pooling, over height and width", f"axes {given}", "use dim=(2, 3)")
    channels, height, width = source.shape
    window = (height, width)
    return reader.add(node, OpKind.AVG_POOL, (source,), out_shape=(channels, 1, 1), kernel=window, stride=window)


def _unchanged(reader: _Reader, node: Node) -> _Value:
    """Dropout in evaluation mode, a copy: nothing to compute."""
    return reader.value(node, 0)


def _flatten(reader: _Reader, node: Node) -> _Value:
    """A change of view that keeps the order of elements: to one vector per input, or none at all."""
    source, shape = reader.value(node, 0), tuple(node.meta["val"].shape)
    is_vector = len(shape) == 2 and shape[0] == 1
    drops_ones = tuple(size for size in shape[1:] if size != 1) == tuple(size for size in source.shape if size != 1)
    if shape[:1] != (1,) or not (is_vector or drops_ones):
        raise _refuse(
            node, "A reshape must flatten each input to one vector", f"{source.shape} to {shape[1:]}", "flatten before the linear layer"
        )
    return source


_CALLS: Mapping[str, Callable[[_Reader, Node], _Value]] = {
    "conv2d": _convolution,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "relu": _relu,
    "relu6": _relu6,
    "hardtanh": _clamp,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "add": _add,
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool2d": _adaptive_pool,
    "mean": _mean,
    "dropout": _unchanged,
    "feature_dropout": _unchanged,
    "alpha_dropout": _unchanged,
    "clone": _unchanged,
    "contiguous": _unchanged,
    "detach": _unchanged,
    "alias": _unchanged,
    "flatten": _flatten,
    "view": _flatten,
    "reshape": _flatten,
    "squeeze": _flatten,
}

_SUPPORTED = "conv2d, linear, batch norm, ReLU, ReLU6, Hardtanh, add, max and average pooling, flatten and dropout"
_HINTS = {
    "softmax": " or leave it out (it does not change which class is largest)",
    "log_softmax": " or leave it out (it does not change which class is largest)",
}


# --- fusion -----------------------------------------------------------------------------------------------------------

_TAKES_BATCH_NORM = frozenset({OpKind.CONV2D, OpKind.DEPTHWISE_CONV2D, OpKind.LINEAR})
_TAKES_ACTIVATION = _TAKES_BATCH_NORM | {OpKind.ADD}


def _fused(calls: list[_Call]) -> tuple[list[Op], dict[str, OpParameters]]:
    """Operations with batch norms and activations joined to the operation whose only reader they are."""
    readers = Counter(source for call in calls for source in call.op.inputs)
    ops: dict[str, Op] = {}
    parameters: dict[str, OpParameters] = {}
    stands_for: dict[str, str] = {}
    for call in calls:
        inputs = tuple(stands_for.get(source, source) for source in call.op.inputs)
        producer = ops.get(inputs[0]) if readers[call.op.inputs[0]] == 1 else None
        if call.is_batch_norm:
            ops[inputs[0]] = _with_batch_norm(call, producer)
            parameters[inputs[0]] = _joined(parameters[inputs[0]], call)
            stands_for[call.op.name] = inputs[0]
        elif _joins_activation(call, producer):
            assert producer is not None
            ops[producer.name] = replace(producer, activation=call.op.activation)
            stands_for[call.op.name] = producer.name
        else:
            ops[call.op.name] = replace(call.op, inputs=inputs)
            if call.parameters is not None:
                parameters[call.op.name] = call.parameters
    return list(ops.values()), parameters


def _joins_activation(call: _Call, producer: Op | None) -> bool:
    if call.op.kind is not OpKind.REQUANTIZE or producer is None:
        return False
    return producer.kind in _TAKES_ACTIVATION and producer.activation is Activation.NONE


def _with_batch_norm(call: _Call, producer: Op | None) -> Op:
    joins = producer is not None and producer.kind in _TAKES_BATCH_NORM
    if not joins or producer is None or producer.batch_norm or producer.activation is not Activation.NONE:
        raise NetworkError(
            f"A batch norm must directly follow a convolution or linear layer that nothing else reads, but {call.op.name} "
            "does not; move it there."
        )
    return replace(producer, batch_norm=True)


def _joined(own: OpParameters, call: _Call) -> OpParameters:
    assert call.parameters is not None
    return replace(call.parameters, weight=own.weight, bias=own.bias)


def _check_logits(network: Network) -> None:
    last = network.output
    wide = [size for size in last.out_shape[1:] if size != 1]
    if last.kind not in (OpKind.LINEAR, OpKind.CONV2D) or last.activation is not Activation.NONE or wide:
        raise NetworkError(
            f"A network must end in a linear layer (or a convolution to one pixel) that gives one logit per class, but ends in "
            f"{last.name} ({last.kind}, activation {last.activation}, output {last.out_shape}); let the linear layer be the last."
        )


class _Reference(Protocol):
    """A reference network of `tasks.networks`."""

    input_shape: tuple[int, int, int]

    def build(self, seed: int = 0) -> nn.Module: ...


def capture_reference(reference: _Reference) -> Network:
    """The network of a reference architecture, captured from an untrained module."""
    return capture(reference.build(), torch.zeros(1, *reference.input_shape))
