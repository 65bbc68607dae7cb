import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from hwsearch.errors import BundleError
from hwsearch.exporters.onnx_model import build_onnx, input_values, run_onnx
from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind
from hwsearch.graph.network import INPUT, Network
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.integers.execute import run_model
from hwsearch.integers.integer_model import IntegerEntry, IntegerModel, OpConstants, StoredWeights
from hwsearch.integers.reference import requantize

KINDS = ("static", "gate", "cascade", "exit")


def _save(model, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(build_onnx(model).SerializeToString())
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_onnx_runtime_computes_what_the_integer_reference_does(kind, seed, make_model, make_codes, tmp_path):
    model, codes = make_model(kind, seed=seed), make_codes(40, seed)
    expected = run_model(model, codes)
    logits, entries = run_onnx(_save(model, tmp_path), model, codes)
    assert (logits == expected.logits).all() and (entries == expected.entries).all()
    assert logits.dtype == np.int32 and entries.dtype == np.int64


@pytest.mark.parametrize("widths", [(1,), (3,), (1, 3), (1, 2, 3, 4, 8)])
def test_widths_that_onnx_has_no_type_for_are_computed_alike(widths, make_model, make_codes, tmp_path):
    model, codes = make_model("cascade", widths=widths, seed=1), make_codes(20, 1)
    assert {one.weight_bits for entry in model.menu.entries for one in entry.assignment.values()} & {1, 3}
    expected = run_model(model, codes)
    logits, entries = run_onnx(_save(model, tmp_path), model, codes)
    assert (logits == expected.logits).all() and (entries == expected.entries).all()


@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_random_models_reach_every_entry(kind, make_model, make_codes):
    assert set(run_model(make_model(kind), make_codes(40, 0)).entries) == {0, 1, 2}


@pytest.mark.parametrize("value", [0, 128, 255])
def test_constant_images_of_extreme_codes_agree(value, make_model, tmp_path):
    model = make_model("static", seed=2)
    codes = np.full((1, 9, 7, 3), value, np.uint8)
    logits, _ = run_onnx(_save(model, tmp_path), model, codes)
    assert (logits == run_model(model, codes).logits).all()


def test_onnx_own_reference_implementation_agrees(make_model, make_codes):
    model, codes = make_model("exit", widths=(4, 8)), make_codes(6, 1)
    evaluator = ReferenceEvaluator(build_onnx(model))
    expected = run_model(model, codes)
    for index, image in enumerate(input_values(model, codes)):
        logits, entry = evaluator.run(None, {"input": image[None]})
        assert (logits[0] == expected.logits[index]).all() and entry[0] == expected.entries[index]


def _one_linear(multiplier: list[int], shift: list[int], bias: list[int], output_zero: int) -> IntegerModel:
    """A linear with one weight of value 1 per channel, so that its accumulator is input + bias; logits show its output codes."""
    count = len(multiplier)
    eye = np.where(np.eye(count) > 0, 255, 0).astype(np.uint8).reshape(count, 1, 1, count)
    ops = [
        Op(name="fc", kind=OpKind.LINEAR, inputs=(INPUT,), in_shape=(1, 1, 1), out_shape=(count,)),
        Op(name="show", kind=OpKind.LINEAR, inputs=("fc",), in_shape=(count,), out_shape=(count,)),
    ]
    assignment = BitAssignment({"fc": Precision(2, 8), "show": Precision(8, 8)})
    ones = np.full((count, 1, 1, 1), 2, np.uint8)  # 2u + 1 - 2^2 = 1
    constants = {
        "fc": OpConstants(
            bias=np.array(bias, np.int32),
            multiplier=np.array(multiplier, np.int32),
            shift=np.array(shift, np.int32),
            input_zero=(0,),
            output_zero=output_zero,
            output_max=255,
        ),
        "show": OpConstants(
            bias=np.zeros(count, np.int32),
            multiplier=np.zeros(0, np.int32),
            shift=np.zeros(0, np.int32),
            input_zero=(0,),
            output_zero=0,
            output_max=0,
        ),
    }
    return IntegerModel(
        network=Network(ops, (1, 1, 1), "rounding"),
        menu=Menu(kind=PolicyKind.STATIC, entries=(MenuEntry(assignment=assignment),)),
        stored={"fc": StoredWeights(codes=ones, bits=2), "show": StoredWeights(codes=eye, bits=8)},
        entries=(IntegerEntry(constants=constants, logit_step=1.0),),
        input_step=1.0,
        input_zero=0,
    )


def test_rounding_is_exact_over_the_whole_range_of_int64_products(tmp_path):
    """Among them sums between 2^31 and 2^40, where ONNX Runtime's own int64 clamps fail."""
    rng = np.random.default_rng(0)
    bias = [int(b) for b in rng.integers(-(2**30), 2**30, 40)] + [2**31 - 300, -(2**31), 0, -1, 1]
    multiplier = [int(m) for m in rng.integers(2**30, 2**31, 40)] + [2**31 - 1, 2**31 - 1, 2**30, 2**30, 2**30]
    shift = [int(s) for s in rng.integers(1, 52, 40)] + [51, 51, 31, 31, 31]
    shift[:20] = [int(np.ceil(np.log2(abs(b) + 1) + 31 - 7)) for b in bias[:20]]  # outputs within the codes
    model = _one_linear(multiplier, shift, bias, 77)
    codes = np.array([0, 1, 2, 100, 255], np.uint8).reshape(-1, 1, 1, 1)
    logits, _ = run_onnx(_save(model, tmp_path), model, codes)
    accumulators = codes.reshape(-1, 1).astype(np.int64) + np.array(bias)
    outputs = np.clip(requantize(accumulators, np.array(multiplier), np.array(shift)) + 77, 0, 255)
    assert (logits == run_model(model, codes).logits).all()
    assert (logits == 510 * outputs - 255 * outputs.sum(axis=1, keepdims=True)).all()  # weights 255 and -255
    assert len(np.unique(outputs)) > 15


def test_inputs_halfway_between_codes_round_up(tmp_path):
    model = _one_linear([2**30], [30], [0], 0)
    session = onnxruntime.InferenceSession(str(_save(model, tmp_path)))
    for value, code in ((0.49, 0), (0.5, 1), (1.5, 2), (2.5, 3), (-0.5, 0), (-3.0, 0), (300.0, 255)):
        image = np.full((1, 1, 1, 1), value, np.float32)
        assert session.run(["logits"], {"input": image})[0][0, 0] == 255 * code


def test_weights_are_stored_once_and_packed(make_model):
    model = make_model("cascade")
    proto = build_onnx(model)
    packed = {item.name: item for item in proto.graph.initializer if item.name.endswith("/weights")}
    assert packed.keys() == {f"{name}/weights" for name in model.stored}
    types = {2: TensorProto.UINT2, 4: TensorProto.UINT4, 8: TensorProto.UINT8}
    for name, stored in model.stored.items():
        item = packed[f"{name}/weights"]
        assert item.data_type == types[stored.bits]
        assert len(item.raw_data) == -(-stored.codes.size * stored.bits // 8)
    assert len({stored.bits for stored in model.stored.values()}) > 1


def test_versions_are_the_lowest_that_have_the_stored_widths(make_model):
    def versions(model):
        proto = build_onnx(model)
        return proto.ir_version, proto.opset_import[0].version

    assert versions(make_model("static", widths=(4, 8))) == (10, 21)
    assert versions(make_model("static", widths=(3,))) == (10, 21)
    assert versions(make_model("static", widths=(2,))) == versions(make_model("static", widths=(1,))) == (12, 25)


def test_only_standard_operators_are_used(make_model):
    def domains(graph):
        for node in graph.node:
            yield node.domain
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    yield from domains(attribute.g)

    assert set(domains(build_onnx(make_model("gate")).graph)) == {""}


@pytest.mark.parametrize(("kind", "entry"), [("gate", 0), ("gate", 2), ("cascade", 0), ("cascade", 1), ("exit", 0), ("exit", 1)])
def test_only_the_chosen_path_executes(kind, entry, make_model, make_codes, tmp_path):
    model, codes = make_model(kind), make_codes(40, 0)
    position = int(np.flatnonzero(run_model(model, codes).entries == entry)[0])
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(str(_save(model, tmp_path)), options)
    session.run(None, {"input": input_values(model, codes[position : position + 1])})
    events = json.loads(Path(session.end_profiling()).read_text())
    convolutions = [event["name"] for event in events if event["args"].get("op_name") == "ConvInteger"]
    wanted = {"gate", f"e{entry}"} if kind == "gate" else {f"e{index}" for index in range(entry + 1)}
    assert {name.split("/")[0] for name in convolutions} == wanted


def test_a_width_without_an_onnx_type_is_refused_by_name(make_model):
    model = make_model("static")
    odd = {**model.stored, "wide": dataclasses.replace(model.stored["wide"], bits=5)}
    with pytest.raises(BundleError, match=r"one of \[1, 2, 3, 4, 8\] bits.*wide has 5; take that width out"):
        build_onnx(dataclasses.replace(model, stored=odd))


def test_a_file_that_is_no_onnx_model_is_refused(make_model, make_codes, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(BundleError, match="must load in ONNX Runtime"):
        run_onnx(path, make_model("static"), make_codes(1, 0))
