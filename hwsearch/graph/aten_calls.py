"""How each supported ATen call becomes a step of a network; what integer kernels cannot compute is refused by name."""

from collections.abc import Mapping

import torch

from hwsearch.errors import NetworkError
from hwsearch.graph.aten import CallReader, ExportReader, Node, OpParameters, Source, Value, argument, place
from hwsearch.graph.op import Activation, OpKind


def _pair(node: Node, index: int, default: int | tuple[int, int]) -> tuple[int, int]:
    given = argument(node, index, None)
    if given is None or given == []:
        given = default
    both = [given, given] if isinstance(given, int) else [int(one) for one in given]
    return (both[0], both[-1])


def _refuse(node: Node, must: str, found: str, do: str) -> NetworkError:
    return NetworkError(f"{must}, but {place(node)} has {found}; {do}.")


def _convolution(reader: ExportReader, node: Node) -> Value:
    source, (weight, shape) = reader.value(node, 0), reader.weights(node)
    dilation = _pair(node, 5, 1)
    if dilation != (1, 1):
        raise _refuse(node, "Convolutions must have dilation 1", f"dilation {dilation}", "use a larger kernel or more layers")
    groups = argument(node, 6, 1)
    kernel = (shape[2], shape[3])
    depthwise = groups == source.shape[0] == shape[0] and groups > 1
    return reader.add(
        node,
        OpKind.DEPTHWISE_CONV2D if depthwise else OpKind.CONV2D,
        (source,),
        kernel=kernel,
        stride=_pair(node, 3, 1),
        padding=_convolution_padding(node, kernel),
        groups=groups,
        parameters=OpParameters(weight=weight, bias=reader.source(node, 2)),
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


def _linear(reader: ExportReader, node: Node) -> Value:
    source, (weight, _) = reader.value(node, 0), reader.weights(node)
    if len(node.meta["val"].shape) != 2:
        raise _refuse(node, "A linear layer must read one vector per input", f"a shape {source.shape}", "flatten before it")
    return reader.add(node, OpKind.LINEAR, (source,), parameters=OpParameters(weight=weight, bias=reader.source(node, 2)))


def _batch_norm(reader: ExportReader, node: Node) -> Value:
    source, mean, var = reader.value(node, 0), reader.source(node, 3), reader.source(node, 4)
    if mean is None or var is None:
        raise _refuse(node, "A batch norm must keep running statistics", "none", "set track_running_stats=True")
    scale, offset, channels = reader.source(node, 1), reader.source(node, 2), source.shape[0]
    parameters: OpParameters[Source] = OpParameters(
        weight=mean,  # replaced when the batch norm joins the operation before it
        bn_weight=torch.ones(channels) if scale is None else scale,
        bn_bias=torch.zeros(channels) if offset is None else offset,
        bn_mean=mean,
        bn_var=var,
        bn_eps=float(argument(node, 7, 1e-5)),
    )
    return reader.add(node, OpKind.REQUANTIZE, (source,), out_shape=source.shape, parameters=parameters, is_batch_norm=True)


def _activation(reader: ExportReader, node: Node, activation: Activation) -> Value:
    source = reader.value(node, 0)
    return reader.add(node, OpKind.REQUANTIZE, (source,), out_shape=source.shape, activation=activation)


def _relu(reader: ExportReader, node: Node) -> Value:
    return _activation(reader, node, Activation.RELU)


def _relu6(reader: ExportReader, node: Node) -> Value:
    return _activation(reader, node, Activation.RELU6)


def _clamp(reader: ExportReader, node: Node) -> Value:
    """Hardtanh, ReLU6 and clamp are one function with two limits, of which three pairs are known."""
    hardtanh = "hardtanh" in str(node.target)
    low, high = argument(node, 1, -1.0 if hardtanh else None), argument(node, 2, 1.0 if hardtanh else None)
    known = {(-1.0, 1.0): Activation.HARDTANH, (0.0, 6.0): Activation.RELU6, (0.0, None): Activation.RELU}
    if (low, high) not in known:
        raise _refuse(
            node, "Activations must be limited to [0, inf), [0, 6] or [-1, 1]", f"[{low}, {high}]", "use ReLU, ReLU6 or Hardtanh"
        )
    return _activation(reader, node, known[low, high])


def _add(reader: ExportReader, node: Node) -> Value:
    left, right = reader.value(node, 0), reader.value(node, 1)
    if left.shape != right.shape or node.kwargs.get("alpha", 1) != 1:
        found = f"{left.shape} + {right.shape} (alpha {node.kwargs.get('alpha', 1)})"
        raise _refuse(node, "An addition must add two tensors of one shape as they are", found, "bring both to one shape")
    return reader.add(node, OpKind.ADD, (left, right), out_shape=left.shape)


def _max_pool(reader: ExportReader, node: Node) -> Value:
    dilation, ceil_mode = _pair(node, 4, 1), argument(node, 5, False)
    if dilation != (1, 1):
        raise _refuse(node, "Pooling must have dilation 1", f"dilation {dilation}", "use a plain window")
    return _pool(reader, node, OpKind.MAX_POOL, ceil_mode)


def _avg_pool(reader: ExportReader, node: Node) -> Value:
    counts_padding, divisor = argument(node, 5, True), argument(node, 6, None)
    if divisor is not None or (_pair(node, 3, 0) != (0, 0) and not counts_padding):
        do = "set count_include_pad=True and no divisor_override"
        raise _refuse(node, "Average pooling must divide by the whole window", "another divisor", do)
    return _pool(reader, node, OpKind.AVG_POOL, argument(node, 4, False))


def _pool(reader: ExportReader, node: Node, kind: OpKind, ceil_mode: bool) -> Value:
    source, kernel = reader.value(node, 0), _pair(node, 1, 1)
    stride, padding = _pair(node, 2, kernel), _pair(node, 3, 0)
    sides = zip(source.shape[1:], kernel, stride, padding, strict=True)
    whole = tuple((size + 2 * pad - width) // step + 1 for size, width, step, pad in sides)
    if ceil_mode and whole != tuple(node.meta["val"].shape[2:]):
        raise _refuse(node, "Pooling windows must lie inside the padded map", "ceil_mode=True", "set ceil_mode=False")
    return reader.add(node, kind, (source,), kernel=kernel, stride=stride, padding=padding)


def _adaptive_pool(reader: ExportReader, node: Node) -> Value:
    """Average pooling to a given grid, whose windows must be equal to be one operation."""
    source, (rows, columns) = reader.value(node, 0), _pair(node, 1, 1)
    channels, height, width = source.shape
    if height % rows or width % columns:
        found = f"{height}x{width} to {rows}x{columns}"
        raise _refuse(node, "Adaptive pooling must divide its map evenly", found, "choose a grid that divides it")
    window = (height // rows, width // columns)
    return reader.add(node, OpKind.AVG_POOL, (source,), out_shape=(channels, rows, columns), kernel=window, stride=window)


def _mean(reader: ExportReader, node: Node) -> Value:
    source, given = reader.value(node, 0), argument(node, 1, None)
    axes = {axis % 4 for axis in given or ()}
    if len(source.shape) != 3 or axes != {2, 3}:
        raise _refuse(node, "A mean must be global pooling, over height and width", f"axes {given}", "use dim=(2, 3)")
    channels, height, width = source.shape
    window = (height, width)
    return reader.add(node, OpKind.AVG_POOL, (source,), out_shape=(channels, 1, 1), kernel=window, stride=window)


def _unchanged(reader: ExportReader, node: Node) -> Value:
    """A copy: nothing to compute."""
    return reader.value(node, 0)


def _dropout(reader: ExportReader, node: Node) -> Value:
    if argument(node, 2, False):
        raise _refuse(node, "Dropout must be off in evaluation", "training=True", "pass training=self.training or use nn.Dropout")
    return reader.value(node, 0)


def _flatten(reader: ExportReader, node: Node) -> Value:
    """A change of view that keeps the order of elements: to one vector per input, or none at all."""
    source, shape = reader.value(node, 0), tuple(node.meta["val"].shape)
    is_vector = len(shape) == 2 and shape[0] == 1
    drops_ones = tuple(size for size in shape[1:] if size != 1) == tuple(size for size in source.shape if size != 1)
    if shape[:1] != (1,) or not (is_vector or drops_ones):
        found = f"{source.shape} to {shape[1:]}"
        raise _refuse(node, "A reshape must flatten each input to one vector", found, "flatten before the linear layer")
    return source


READERS: Mapping[str, CallReader] = {
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
    "dropout": _dropout,
    "feature_dropout": _dropout,
    "alpha_dropout": _dropout,
    "clone": _unchanged,
    "contiguous": _unchanged,
    "detach": _unchanged,
    "alias": _unchanged,
    "flatten": _flatten,
    "view": _flatten,
    "reshape": _flatten,
    "squeeze": _flatten,
}
