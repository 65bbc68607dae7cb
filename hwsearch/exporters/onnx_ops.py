"""One operation of an integer model as standard ONNX operators, exact to the bit.

| here | ONNX |
| --- | --- |
| weight code u of b bits, stored once | UINT8, UINT4 or UINT2 initializer, `Cast` to uint8, `BitShift` right by stored_bits - b |
| sum (2u + 1 - 2^b) * (q - z) | 2 * `ConvInteger`(q, u) - (2^b - 1) * `ConvInteger`(q, ones), both with x_zero_point z |
| requantize | int64 `Mul`, `Add`, `Div` by 2^shift, then float `Clip` to the code range, `Cast` to uint8 |

Both factors of the products are unsigned 8 bits, because runtimes may saturate the sums of pairs of u8 * s8 products.
`ConvInteger` pads with its zero point, as the arithmetic asks. ONNX divides integers toward zero and the reference rounds
toward minus infinity: they differ only below zero, where the clamp makes both zero. The clamp is done in float, where
codes and their order are exact, because ONNX Runtime's int64 `Max`, `Min` and `Clip` give wrong results beyond 2^31 on x86
(microsoft/onnxruntime pull request 25280).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from hwsearch.errors import BundleError
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.integers.integer_model import OpConstants, StoredWeights
from hwsearch.integers.reference import weight_values

PACKED_TYPES = {1: ml_dtypes.uint2, 2: ml_dtypes.uint2, 3: ml_dtypes.uint4, 4: ml_dtypes.uint4, 8: np.uint8}
"""Element type of the initializer that holds weights stored at a width: ONNX has none of 1 and 3 bits, so the next wider."""


@dataclass(slots=True, kw_only=True)
class GraphWriter:
    """Nodes of one graph. All initializers belong to the outermost graph, whose values every subgraph may read.

    Names carry `prefix`, so that no subgraph hides a name of a graph around it.
    """

    prefix: str = ""
    nodes: list[NodeProto] = field(default_factory=list)
    initializers: dict[str, TensorProto] = field(default_factory=dict)

    def subgraph(self, prefix: str) -> "GraphWriter":
        """An empty graph inside this one."""
        return GraphWriter(prefix=prefix, initializers=self.initializers)

    def named(self, prefix: str) -> "GraphWriter":
        """This very graph, with another prefix for what is appended."""
        return GraphWriter(prefix=prefix, nodes=self.nodes, initializers=self.initializers)

    def node(self, op_type: str, inputs: Sequence[str], name: str, attributes: Mapping[str, Any] | None = None) -> str:
        """Append a node with one output and return that output's name."""
        output = f"{self.prefix}{name}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [output], name=output, **(attributes or {})))
        return output

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """An initializer, written once however often it is asked for; `name` must stand for one value in the whole model."""
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def int64(self, value: int) -> str:
        return self.constant(f"int64_{value}", np.array(value, np.int64))

    def uint8(self, value: int) -> str:
        return self.constant(f"uint8_{value}", np.array(value, np.uint8))

    def real(self, value: int) -> str:
        """A float constant of integer value."""
        return self.constant(f"float_{value}", np.array(value, np.float32))

    def per_channel(self, name: str, values: NDArray[np.int64], op: Op) -> str:
        """Constants `[out]`, shaped to be broadcast along the channels of an operation's output."""
        shape = (-1,) if len(op.out_shape) == 1 else (-1, 1, 1)
        return self.constant(f"{self.prefix}{name}", values.reshape(shape))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpPlace:
    """An operation in one menu entry: what it reads (names of uint8 values) and what it is computed with.

    `model_name` tells the stored weights of the gate from those of the network.
    """

    op: Op
    precision: Precision
    constants: OpConstants
    stored: StoredWeights | None
    inputs: tuple[str, ...]
    model_name: str = ""


def write_op(graph: GraphWriter, place: OpPlace) -> str:
    """Append an operation; returns the name of its uint8 codes, or of its int32 logits `[1, classes]`."""
    op = place.op
    if op.kind not in ONNX_OPS:
        raise BundleError(f"An exported operation must be one that a network may hold, but {op.name} is {op.kind}; remove it.")
    return ONNX_OPS[op.kind](graph, place)


def _weighted_sum(graph: GraphWriter, place: OpPlace) -> str:
    """int64 accumulator with bias: `[1, out, H, W]` or `[1, out]`."""
    op, bits = place.op, place.precision.weight_bits
    product = graph.node("Cast", [_product(graph, place, _weights(graph, place), "product")], f"{op.name}/product64", _TO_INT64)
    total = graph.node("Cast", [_ones_product(graph, place)], f"{op.name}/ones64", _TO_INT64)
    doubled = graph.node("Mul", [product, graph.int64(2)], f"{op.name}/doubled")
    offset = graph.node("Mul", [total, graph.int64(2**bits - 1)], f"{op.name}/offset")
    centered = graph.node("Sub", [doubled, offset], f"{op.name}/centered")
    bias = graph.per_channel(f"{op.name}/bias", _centered_bias(place), op)
    return graph.node("Add", [centered, bias], f"{op.name}/accumulator")


def _centered_bias(place: OpPlace) -> NDArray[np.int64]:
    """Bias of the accumulator over q - z instead of q: the stored bias plus z * sum (2u + 1 - 2^b). `[out]`"""
    assert place.stored is not None
    bits = place.precision.weight_bits
    sums = weight_values(place.stored, bits).reshape(place.op.out_channels, -1).sum(axis=1, dtype=np.int64)
    bias: NDArray[np.int64] = place.constants.bias.astype(np.int64) + place.constants.input_zero[0] * sums
    return bias


def _weights(graph: GraphWriter, place: OpPlace) -> str:
    """uint8 codes at the entry's width, from the one stored copy."""
    op, stored = place.op, place.stored
    assert stored is not None
    name = graph.constant(f"{place.model_name}{op.name}/weights", _onnx_order(op, stored.codes).astype(PACKED_TYPES[stored.bits]))
    if stored.bits < 8:
        name = graph.node("Cast", [name], f"{op.name}/codes", {"to": TensorProto.UINT8})
    surplus = stored.bits - place.precision.weight_bits
    if surplus:
        name = graph.node("BitShift", [name, graph.uint8(surplus)], f"{op.name}/top_bits", {"direction": "RIGHT"})
    return name


def _onnx_order(op: Op, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`[out, kh, kw, in]` to ONNX's `[out, in, kh, kw]`, or to `[in, out]` with inputs in (C, H, W) order for a linear."""
    if not op.kind.traits.reads_vector:
        return codes.transpose(0, 3, 1, 2)
    if len(op.in_shape) == 1:
        return codes.reshape(op.out_channels, -1).T
    channels, height, width = op.in_shape
    return codes.reshape(op.out_channels, height, width, channels).transpose(0, 3, 1, 2).reshape(op.out_channels, -1).T


def _product(graph: GraphWriter, place: OpPlace, weights: str, name: str, groups: int | None = None) -> str:
    """int32 sums of (q - z) * weight."""
    op = place.op
    zero = graph.uint8(place.constants.input_zero[0])
    if not op.kind.traits.reads_vector:
        attributes = _window(op) | {"group": op.groups if groups is None else groups}
        return graph.node("ConvInteger", [place.inputs[0], weights, zero], f"{op.name}/{name}", attributes)
    flat = place.inputs[0]
    if len(op.in_shape) > 1:
        flat = graph.node("Flatten", [flat], f"{op.name}/flat_{name}", {"axis": 1})  # [1, C * H * W]
    return graph.node("MatMulInteger", [flat, weights, zero], f"{op.name}/{name}")


def _ones_product(graph: GraphWriter, place: OpPlace) -> str:
    """int32 sums of q - z over what each output reads: one channel if all outputs read the same inputs."""
    op = place.op
    if op.kind.traits.reads_vector:
        shape: tuple[int, ...] = (op.reduction, 1)
    else:
        shape = (1 if op.groups == 1 else op.out_channels, op.in_shape[0] // op.groups, *op.kernel)
    return _product(graph, place, _ones(graph, shape), "ones")


def _ones(graph: GraphWriter, shape: tuple[int, ...]) -> str:
    """uint8 ones, made at load time so that the file does not carry them."""
    text = "x".join(map(str, shape))
    size = graph.constant(f"shape_{text}", np.array(shape, np.int64))
    name = f"{graph.prefix}ones_{text}"
    if not any(name in node.output for node in graph.nodes):
        graph.node("ConstantOfShape", [size], f"ones_{text}", {"value": numpy_helper.from_array(np.array([1], np.uint8))})
    return name


def _window(op: Op) -> dict[str, list[int]]:
    rows, columns = op.padding
    return {"kernel_shape": list(op.kernel), "strides": list(op.stride), "pads": [rows, columns, rows, columns]}


def _weighted(graph: GraphWriter, place: OpPlace) -> str:
    total = _weighted_sum(graph, place)
    return _requantized(graph, place, total) if place.constants.multiplier.size else _logits(graph, place, total)


def _add(graph: GraphWriter, place: OpPlace) -> str:
    return _finished(graph, place, _scaled_inputs(graph, place))


def _avg_pool(graph: GraphWriter, place: OpPlace) -> str:
    return _requantized(graph, place, _window_sum(graph, place))


def _requantize(graph: GraphWriter, place: OpPlace) -> str:
    return _requantized(graph, place, _centered(graph, place, 0))


def _max_pool(graph: GraphWriter, place: OpPlace) -> str:
    return graph.node("MaxPool", place.inputs, f"{place.op.name}/pooled", _window(place.op))


def _window_sum(graph: GraphWriter, place: OpPlace) -> str:
    """int64 sum of q - z over each pooling window."""
    op = place.op
    channels = op.in_shape[0]
    total = _product(graph, place, _ones(graph, (channels, 1, *op.kernel)), "window", groups=channels)
    return graph.node("Cast", [total], f"{op.name}/window64", _TO_INT64)


def _centered(graph: GraphWriter, place: OpPlace, index: int) -> str:
    """int64 q - z of one input."""
    op = place.op
    wide = graph.node("Cast", [place.inputs[index]], f"{op.name}/input{index}", _TO_INT64)
    zero = graph.int64(place.constants.input_zero[index])
    return graph.node("Sub", [wide, zero], f"{op.name}/centered{index}")


def _scaled_inputs(graph: GraphWriter, place: OpPlace) -> str:
    """int64 sum over both inputs of (q - z) * multiplier."""
    op = place.op
    terms = [
        graph.node("Mul", [_centered(graph, place, index), graph.int64(int(factor))], f"{op.name}/scaled{index}")
        for index, factor in enumerate(place.constants.multiplier)
    ]
    return graph.node("Add", terms, f"{op.name}/sum")


def _requantized(graph: GraphWriter, place: OpPlace, accumulator: str) -> str:
    op = place.op
    factors = place.constants.multiplier.astype(np.int64)
    factor = graph.per_channel(f"{op.name}/multiplier", factors, op) if op.has_weights else graph.int64(int(factors[0]))
    return _finished(graph, place, graph.node("Mul", [accumulator, factor], f"{op.name}/scaled"))


def _finished(graph: GraphWriter, place: OpPlace, scaled: str) -> str:
    """Rounded shift, zero point and clamp of a scaled accumulator; uint8 codes.

    The numerator stays within int64: accumulator and multiplier are below 2^31, zero * 2^shift below 2^59.
    """
    op, constants = place.op, place.constants
    divisor = np.left_shift(np.int64(1), constants.shift.astype(np.int64))
    addend = divisor // 2 + constants.output_zero * divisor
    sum_ = graph.node("Add", [scaled, graph.per_channel(f"{op.name}/rounding", addend, op)], f"{op.name}/rounded")
    shifted = graph.node("Div", [sum_, graph.per_channel(f"{op.name}/divisor", divisor, op)], f"{op.name}/shifted")
    real = graph.node("Cast", [shifted], f"{op.name}/real", {"to": TensorProto.FLOAT})
    clamped = graph.node("Clip", [real, graph.real(0), graph.real(constants.output_max)], f"{op.name}/clamped")
    return graph.node("Cast", [clamped], f"{op.name}/out", {"to": TensorProto.UINT8})


def _logits(graph: GraphWriter, place: OpPlace, accumulator: str) -> str:
    op = place.op
    if len(op.out_shape) > 1:
        accumulator = graph.node("Flatten", [accumulator], f"{op.name}/flat_logits", {"axis": 1})
    return graph.node("Cast", [accumulator], f"{op.name}/logits", {"to": TensorProto.INT32})


_TO_INT64 = {"to": TensorProto.INT64}

ONNX_OPS: Mapping[OpKind, Callable[[GraphWriter, OpPlace], str]] = {
    OpKind.CONV2D: _weighted,
    OpKind.DEPTHWISE_CONV2D: _weighted,
    OpKind.LINEAR: _weighted,
    OpKind.ADD: _add,
    OpKind.MAX_POOL: _max_pool,
    OpKind.AVG_POOL: _avg_pool,
    OpKind.REQUANTIZE: _requantize,
}
"""Every kind that a network may hold, so all but those that decide."""
