"""A dynamic integer model as one ONNX file of standard operators, written node by node.

Input `input` float `[1, C, H, W]`, outputs `logits` int32 `[1, classes]` and `entry` int64 `[1]`. Choices are nested `If`
nodes, so only the path that was chosen executes. IR version and opset are the lowest that have the packed weight types: opset 21
for 4-bit, 25 for 2-bit.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, helper

from hwsearch.errors import BundleError
from hwsearch.exporters.onnx_ops import PACKED_TYPES, GraphWriter, OpPlace, write_op
from hwsearch.exporters.program import entry_constants
from hwsearch.graph.network import INPUT
from hwsearch.integers.integer_model import Codes, Int32, IntegerModel

Outcome = tuple[str, str]
"""Names of a graph's logits and of the entry it ended at."""


def build_onnx(model: IntegerModel) -> ModelProto:
    """The whole model as ONNX; raises `BundleError` where a stored width has no ONNX type or the checker refuses the file."""
    _check_widths(model)
    graph = GraphWriter()
    codes = _input_codes(graph, model)
    if model.menu.kind.has_controller:
        outcome = _chosen(graph, model, codes, _gate_decision(graph, model, codes), 0)
    else:
        outcome = _escalating(graph, model, {INPUT: codes}, 0 if model.menu.kind.escalates else len(model.entries) - 1)
    for name, result in zip(("logits", "entry"), outcome, strict=True):
        graph.nodes.append(helper.make_node("Identity", [result], [name], name=name))
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, *model.network.input_shape])]
    proto = _model_proto(_graph_proto(graph, model, "hwsearch", ("logits", "entry"), inputs), _opset(model))
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BundleError(f"The ONNX file must pass onnx.checker, but it says: {error}; report the network.") from error
    return proto


def input_values(model: IntegerModel, codes: Codes) -> NDArray[np.float32]:
    """Real images `[N, C, H, W]` whose codes are `codes` `[N, H, W, C]`: what the ONNX model is fed."""
    steps = (codes.astype(np.float64) - model.input_zero) * model.input_step
    return np.ascontiguousarray(steps.transpose(0, 3, 1, 2).astype(np.float32))  # [N, C, H, W]


def run_onnx(path: Path, model: IntegerModel, codes: Codes) -> tuple[Int32, NDArray[np.int64]]:
    """Logits `[N, classes]` and entries `[N]` that ONNX Runtime computes, one image per call as on a device."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own exceptions have no public base
        raise BundleError(f"{path} must load in ONNX Runtime, but it says: {error}; export the bundle again.") from error
    results = [session.run(["logits", "entry"], {"input": image[None]}) for image in input_values(model, codes)]
    return np.concatenate([logits for logits, _ in results]), np.concatenate([entry for _, entry in results])


def _check_widths(model: IntegerModel) -> None:
    for name, stored in _all_stored(model).items():
        if stored not in PACKED_TYPES:
            raise BundleError(
                f"Weights must be stored at one of {sorted(PACKED_TYPES)} bits to be exported to ONNX, but {name} has {stored}; "
                f"take that width out of the search space."
            )


def _all_stored(model: IntegerModel) -> dict[str, int]:
    own = {name: stored.bits for name, stored in model.stored.items()}
    return own if model.gate is None else own | {f"gate/{name}": bits for name, bits in _all_stored(model.gate).items()}


def _opset(model: IntegerModel) -> tuple[int, int]:
    """Lowest opset and IR version with every packed type the model stores."""
    return (25, 12) if {1, 2} & set(_all_stored(model).values()) else (21, 10)


def _model_proto(graph: GraphProto, versions: tuple[int, int]) -> ModelProto:
    opset, ir_version = versions
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version, producer_name="hwsearch"
    )


def _graph_proto(
    graph: GraphWriter, model: IntegerModel, name: str, outcome: Sequence[str], inputs: Sequence[Any] = ()
) -> GraphProto:
    """A graph with outputs (logits, entry); only the outermost one, which alone has inputs, carries the initializers."""
    logits, entry = outcome
    classes = model.network.output.out_channels
    outputs = [
        helper.make_tensor_value_info(logits, TensorProto.INT32, [1, classes]),
        helper.make_tensor_value_info(entry, TensorProto.INT64, [1]),
    ]
    initializers = list(graph.initializers.values()) if inputs else []
    return helper.make_graph(graph.nodes, name, list(inputs), outputs, initializer=initializers)


def _input_codes(graph: GraphWriter, model: IntegerModel) -> str:
    """uint8 codes floor(x / step + 1/2) + zero, as inputs are quantized in training; QuantizeLinear rounds ties to even."""
    step = graph.constant("input_step", np.array(model.input_step, np.float32))
    scaled = graph.node("Div", ["input", step], "input/scaled")
    raised = graph.node("Add", [scaled, graph.constant("half", np.array(0.5, np.float32))], "input/raised")
    rounded = graph.node("Floor", [raised], "input/rounded")
    shifted = graph.node("Add", [rounded, graph.real(model.input_zero)], "input/shifted")
    clipped = graph.node("Clip", [shifted, graph.real(0), graph.real(255)], "input/clipped")
    return graph.node("Cast", [clipped], "input/codes", {"to": TensorProto.UINT8})


def _write_segment(graph: GraphWriter, model: IntegerModel, index: int, values: dict[str, str], *, model_name: str = "") -> str:
    """Append what entry `index` runs by itself, adding to `values` (operation or `input` to ONNX name); the logits' name."""
    constants, assignment = entry_constants(model, index), model.menu.entries[index].assignment
    for op in model.menu.segments(model.network)[index]:
        place = OpPlace(
            op=op,
            precision=assignment[op.name],
            constants=constants[op.name],
            stored=model.stored.get(op.name),
            inputs=tuple(values[name] for name in op.inputs),
            model_name=model_name,
        )
        values[op.name] = write_op(graph, place)
    return values[model.network.output_of(model.menu.entries[index].exit).name]


def _entry_constant(graph: GraphWriter, index: int) -> str:
    return graph.node("Identity", [graph.constant(f"entry_{index}", np.array([index], np.int64))], f"entry_{index}")


def _gate_decision(graph: GraphWriter, model: IntegerModel, codes: str) -> str:
    """The gate's choice, int64 `[1]`; the first of equal logits wins, as ArgMax does."""
    gate = model.gate
    if gate is None:
        raise BundleError("A model with a gate policy must hold the gate's integers, but holds none; finalize it again.")
    inside = graph.named("gate/")
    logits = _write_segment(inside, gate, 0, {INPUT: codes}, model_name="gate/")
    return inside.node("ArgMax", [logits], "choice", {"axis": 1, "keepdims": 0})


def _chosen(graph: GraphWriter, model: IntegerModel, codes: str, choice: str, index: int) -> Outcome:
    """The path of the entry that `choice` names, among entries `index` and above."""

    def path(around: GraphWriter) -> Outcome:
        inside = around.named(f"e{index}/")
        return _write_segment(inside, model, index, {INPUT: codes}), _entry_constant(inside, index)

    if index == len(model.entries) - 1:
        return path(graph)
    chosen, other = graph.subgraph(f"e{index}/"), graph.subgraph(f"above{index}/")
    is_chosen = graph.node("Equal", [choice, graph.constant(f"index_{index}", np.array([index], np.int64))], f"is_{index}")
    branches = (chosen, path(chosen)), (other, _chosen(other, model, codes, choice, index + 1))
    return _if(graph, model, is_chosen, index, branches)


def _escalating(graph: GraphWriter, model: IntegerModel, values: Mapping[str, str], index: int) -> Outcome:
    """Entry `index`; below its threshold, what comes after it. Where nothing escalates, the last is all.

    `values` are the codes that exist already: with exits those of the trunk so far, in a cascade the input alone.
    """
    known = dict(values)
    inside = graph.named(f"e{index}/")
    logits = _write_segment(inside, model, index, known)
    if index == len(model.entries) - 1:
        return logits, _entry_constant(inside, index)
    stop, go_on = graph.subgraph(f"stop{index}/"), graph.subgraph(f"above{index}/")
    kept = stop.node("Identity", [logits], "logits"), _entry_constant(stop, index)
    passed_on = known if model.menu.kind.shares_trunk else values
    branches = (stop, kept), (go_on, _escalating(go_on, model, passed_on, index + 1))
    return _if(graph, model, _is_confident(inside, model, logits, index), index, branches)


def _is_confident(graph: GraphWriter, model: IntegerModel, logits: str, index: int) -> str:
    """Whether best minus second-best logit reaches the entry's threshold, as bool `[1]`, in int64."""
    wide = graph.node("Cast", [logits], "logits64", {"to": TensorProto.INT64})
    two = graph.constant("two", np.array([2], np.int64))
    best = f"{graph.prefix}best_two"
    graph.nodes.append(helper.make_node("TopK", [wide, two], [best, f"{best}_places"], name=best, axis=1))
    first, second = (graph.node("Gather", [best, graph.int64(place)], f"best_{place}", {"axis": 1}) for place in (0, 1))
    margin = graph.node("Sub", [first, second], "margin")
    return graph.node("GreaterOrEqual", [margin, graph.int64(int(model.thresholds[index]))], "confident")


def _if(
    graph: GraphWriter, model: IntegerModel, condition: str, index: int, branches: tuple[tuple[GraphWriter, Outcome], ...]
) -> Outcome:
    """One `If` whose branches are (then, else)."""
    outputs = f"{graph.prefix}logits_from_{index}", f"{graph.prefix}entry_from_{index}"
    then_branch, else_branch = (
        _graph_proto(inside, model, name, outcome) for name, (inside, outcome) in zip(("then", "else"), branches, strict=True)
    )
    graph.nodes.append(
        helper.make_node(
            "If", [condition], list(outputs), name=f"{graph.prefix}if_{index}", then_branch=then_branch, else_branch=else_branch
        )
    )
    return outputs
