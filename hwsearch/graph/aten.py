"""The calls of an exported torch program, read one by one as single steps of a network.

Every name means one value even where a module works in place, and views (flatten, reshape) vanish: a tensor keeps the shape
of what computed it. Nothing is fused yet. `aten_calls.py` says how each call is read.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from hwsearch.errors import NetworkError
from hwsearch.graph.network import INPUT
from hwsearch.graph.op import Op, OpKind, Shape

Node = torch.fx.Node

Source = str | Tensor
"""Where a model holds a tensor: a parameter's or buffer's name; a constant, which has none, by its value."""
T = TypeVar("T")
U = TypeVar("U")

SUPPORTED = "conv2d, linear, batch norm, ReLU, ReLU6, Hardtanh, add, max and average pooling, flatten and dropout"
HINTS = {
    "softmax": " or leave it out (it does not change which class is largest)",
    "log_softmax": " or leave it out (it does not change which class is largest)",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpParameters(Generic[T]):
    """Float parameters of an operation with weights, as the module holds them; the batch norm is not yet folded.

    `T` is `Tensor` where they are given by value, `Source` where it is said where they lie.

    `weight`: `[out, in / groups, kernel_h, kernel_w]`, or `[out, in]` with inputs in (channel, height, width) order;
    `bias` and the `bn_` tensors: `[out]`. The four batch norm tensors are all there or all None.
    """

    weight: T
    bias: T | None = None
    bn_weight: T | None = None
    bn_bias: T | None = None
    bn_mean: T | None = None
    bn_var: T | None = None
    bn_eps: float = 1e-5

    def each(self, read: Callable[[T], U]) -> "OpParameters[U]":
        """`read` of everything that is there."""

        def optional(one: T | None) -> U | None:
            return None if one is None else read(one)

        return OpParameters(
            weight=read(self.weight),
            bias=optional(self.bias),
            bn_weight=optional(self.bn_weight),
            bn_bias=optional(self.bn_bias),
            bn_mean=optional(self.bn_mean),
            bn_var=optional(self.bn_var),
            bn_eps=self.bn_eps,
        )


@dataclass(frozen=True, slots=True)
class Value:
    """What a node of the exported graph holds: the output of a call (or the input), in the shape it was computed in."""

    name: str
    shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One step: `op` as if nothing were fused; for a lone batch norm or activation its kind is `requantize`."""

    op: Op
    parameters: OpParameters[Source] | None = None
    is_batch_norm: bool = False


class ExportReader:
    """Reads the calls of an exported program in order."""

    def __init__(self, exported: torch.export.ExportedProgram, readers: "Mapping[str, CallReader]") -> None:
        self.readers = readers
        self.nodes = list(exported.graph_module.graph.nodes)
        self.tensors = placeholder_sources(exported)
        self.values: dict[Node, Value] = {}
        self.calls: list[Call] = []
        self.taken: Counter[str] = Counter()
        self.weights_read_by: dict[Node, str] = {}

    def read(self) -> list[Call]:
        """The calls that the output needs."""
        result: Value | None = None
        for node in self.nodes:
            if node.op == "placeholder" and node not in self.tensors:
                self.values[node] = Value(INPUT, tuple(node.meta["val"].shape[1:]))
            elif node.op == "output":
                result = self._result(node)
            elif node.op == "call_function":
                self._read_call(node)
        assert result is not None, "an exported graph always has an output node"
        return _needed(self.calls, result.name)

    def _result(self, node: Node) -> Value:
        outputs = node.args[0]
        assert isinstance(outputs, tuple)
        only = outputs[0] if len(outputs) == 1 else None
        if not isinstance(only, Node) or only not in self.values:
            raise NetworkError(
                f"A network must return one tensor of logits, but its forward returns {len(outputs)} values; "
                "return the logits alone (early exits are named in the search space)."
            )
        return self.values[only]

    def _read_call(self, node: Node) -> None:
        target = str(node.target).removeprefix("aten.")
        name = target.split(".")[0]
        inplace = name.endswith("_")
        read = self.readers.get(name.removesuffix("_") if inplace else name)
        if read is None and not any(source in self.values for source in node.all_input_nodes):
            return  # computed from parameters alone: whoever reads it refuses it, knowing what for
        if read is None:
            raise NetworkError(
                f"Operations must be among {SUPPORTED}, but {place(node)} calls {name}; replace it{HINTS.get(name, '')}."
            )
        before = self.values.get(node.args[0]) if node.args and isinstance(node.args[0], Node) else None
        value = read(self, node)
        self.values[node] = value
        if inplace and before is not None:  # every name of the overwritten tensor now means the new value
            self.values = {key: value if old.name == before.name else old for key, old in self.values.items()}

    # What the readers of single calls use.

    def value(self, node: Node, index: int) -> Value:
        """The tensor that a node reads as argument `index`."""
        source = node.args[index]
        if not isinstance(source, Node) or source not in self.values:
            found = "a parameter or constant" if isinstance(source, Node) else repr(source)
            raise NetworkError(
                f"Operations must read tensors computed from the input, but {place(node)} reads {found}; "
                "use a convolution or linear layer instead."
            )
        return self.values[source]

    def source(self, node: Node, index: int) -> Source | None:
        """Where the parameter lies that a node reads as argument `index`; None if it is left out."""
        source = argument(node, index, None)
        if source is None:
            return None
        if source not in self.tensors:
            raise NetworkError(
                f"Weights must be plain parameters, but {place(node)} computes its own; remove the parametrization first "
                "(torch.nn.utils.parametrize.remove_parametrizations)."
            )
        return self.tensors[source]

    def weights(self, node: Node) -> tuple[Source, Shape]:
        """Where the weights lie that a node reads, and their shape, `[out, in / groups, ...]`."""
        where, read = self.source(node, 1), node.args[1]
        assert where is not None and isinstance(read, Node)
        self.own_weights(node)
        return where, tuple(int(size) for size in read.meta["val"].shape)

    def own_weights(self, node: Node) -> None:
        """Refuse weights that two operations share: each operation stores and trains its own."""
        source = node.args[1]
        assert isinstance(source, Node)
        if source in self.weights_read_by:
            raise NetworkError(
                f"Every weight must be read once per inference, but {self.weights_read_by[source]} and {place(node)} share "
                "theirs; use two modules."
            )
        self.weights_read_by[source] = place(node)

    def add(self, node: Node, kind: OpKind, sources: tuple[Value, ...], **fields: Any) -> Value:
        """Append a call whose output has the node's own shape unless `out_shape` says otherwise."""
        parameters, is_batch_norm = fields.pop("parameters", None), fields.pop("is_batch_norm", False)
        out_shape = fields.pop("out_shape", None) or tuple(node.meta["val"].shape[1:])
        inputs = tuple(source.name for source in sources)
        op = Op(name=self._name(node), kind=kind, inputs=inputs, in_shape=sources[0].shape, out_shape=out_shape, **fields)
        self.calls.append(Call(op=op, parameters=parameters, is_batch_norm=is_batch_norm))
        return Value(op.name, out_shape)

    def _name(self, node: Node) -> str:
        """The module's path; for a call outside a torch layer, that of the module around it and what is called."""
        path, is_layer = _module_of(node)
        called = str(node.target).removeprefix("aten.").split(".")[0].removesuffix("_")
        name = path if is_layer and path else f"{path}.{called}".removeprefix(".")
        self.taken[name] += 1
        return name if self.taken[name] == 1 else f"{name}_{self.taken[name]}"


def placeholder_sources(exported: torch.export.ExportedProgram) -> dict[Node, Source]:
    """Parameter, buffer or constant of each placeholder node that stands for one."""
    signature = exported.graph_signature
    constants = signature.inputs_to_lifted_tensor_constants.items()
    sources: dict[str, Source] = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **{name: _value(exported.constants[held]) for name, held in constants},
    }
    nodes = [node for node in exported.graph_module.graph.nodes if node.op == "placeholder"]
    return {node: sources[node.name] for node in nodes if node.name in sources}


def _value(constant: Any) -> Tensor:
    assert isinstance(constant, Tensor)
    return constant.detach().clone()


def _module_of(node: Node) -> tuple[str, bool]:
    """Path of the innermost module that made a call, and whether that is one of torch's layers."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "", False
    path, kind = stack[-1]
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__name__}"
    is_layer = kind.startswith("torch.nn.modules.") and ".container." not in kind
    return re.sub(r"@\d+", "", str(path)), is_layer


def place(node: Node) -> str:
    path, _ = _module_of(node)
    return f"module {path}" if path else "the model's forward"


def _needed(calls: list[Call], result: str) -> list[Call]:
    """The calls that `result` depends on, in order."""
    needed = {result}
    for call in reversed(calls):
        if call.op.name in needed:
            needed.update(call.op.inputs)
    return [call for call in calls if call.op.name in needed]


def argument(node: Node, index: int, default: Any) -> Any:
    """A positional argument of an ATen call, which trails off where arguments have their defaults."""
    return node.args[index] if len(node.args) > index else default


CallReader = Callable[[ExportReader, Node], Value]
"""Reads one call: appends what it computes to the reader's calls and returns what its node holds."""
