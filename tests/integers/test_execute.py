"""Whole models: the four kinds of policy, and the file they travel in."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwsearch.errors import BundleError, NetworkError
from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind
from hwsearch.graph.network import Network
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.integers.execute import run_entry, run_model, trace
from hwsearch.integers.integer_model import Codes, IntegerEntry, IntegerModel, OpConstants, StoredWeights
from hwsearch.integers.model_file import load_model, save_model
from hwsearch.integers.op_kinds import run_op
from hwsearch.integers.reference import argmax

CLASSES = 3


def conv(name: str, source: str, channels: tuple[int, int]) -> Op:
    return Op(
        name=name, kind=OpKind.CONV2D, inputs=(source,), in_shape=(channels[0], 6, 6), out_shape=(channels[1], 6, 6),
        kernel=(3, 3), padding=(1, 1),
    )  # fmt: skip


def head(prefix: str, source: str, exit_name: str) -> tuple[Op, Op]:
    pool = Op(
        name=f"{prefix}pool", kind=OpKind.AVG_POOL, inputs=(source,), in_shape=(4, 6, 6), out_shape=(4, 2, 2),
        kernel=(3, 3), stride=(3, 3), exit=exit_name,
    )  # fmt: skip
    fc = Op(name=f"{prefix}fc", kind=OpKind.LINEAR, inputs=(pool.name,), in_shape=(4, 2, 2), out_shape=(CLASSES,), exit=exit_name)
    return pool, fc


def residual_network() -> Network:
    """A residual block between two convolutions, and an early exit after the first."""
    shape = (4, 6, 6)
    add = Op(name="add", kind=OpKind.ADD, inputs=("first", "second"), in_shape=shape, out_shape=shape)
    ops = (conv("first", "input", (1, 4)), *head("exit1.", "first", "exit1"), conv("second", "first", (4, 4)), add)
    return Network((*ops, *head("", "add", "")), (1, 6, 6), "residual")


def assignment(network: Network, text: str) -> BitAssignment:
    precision = Precision.parse(text)
    return BitAssignment({op.name: precision if op.has_weights else precision.without_weights() for op in network.ops})


def random_constants(op: Op, random: np.random.Generator, *, ends: bool) -> OpConstants:
    scales = 0 if ends else op.out_channels if op.has_weights else 2 if op.kind is OpKind.ADD else 1
    low, high, shifts = (2**18, 2**19, (19, 20)) if op.kind is OpKind.ADD else (2**30, 2**31, (35, 38))
    if op.kind is OpKind.AVG_POOL:
        shifts = (33, 34)
    shift_count = min(scales, 1) if op.kind is OpKind.ADD else scales
    return OpConstants(
        bias=random.integers(-400, 400, op.out_channels if op.has_weights else 0).astype(np.int32),
        multiplier=random.integers(low, high, scales).astype(np.int32),
        shift=random.integers(*shifts, shift_count).astype(np.int32),
        input_zero=(0,) * len(op.inputs),
        output_zero=0,
        output_max=255,
    )


def random_entry(network: Network, exits: tuple[str, ...], seed: int) -> IntegerEntry:
    random = np.random.default_rng(seed)
    ops = network.path(exits)
    constants = {op.name: random_constants(op, random, ends=not network.consumers(op.name)) for op in ops}
    return IntegerEntry(constants=constants, logit_step=0.125)


def random_stored(network: Network, seed: int = 0) -> Mapping[str, StoredWeights]:
    random = np.random.default_rng(seed)
    stored = {}
    for op in network.ops:
        window = (1, 1, op.reduction) if op.kind is OpKind.LINEAR else (*op.kernel, op.in_shape[0])
        if op.has_weights:
            stored[op.name] = StoredWeights(codes=random.integers(0, 256, (op.out_channels, *window), dtype=np.uint8), bits=8)
    return stored


def model_of(kind: PolicyKind, thresholds: tuple[int, ...] = (), gate: IntegerModel | None = None) -> IntegerModel:
    network = residual_network()
    texts = {PolicyKind.STATIC: ["w8a8"], PolicyKind.EXIT: ["w4a8", "w4a8"]}.get(kind, ["w2a8", "w4a8", "w8a8"])
    exits = ["exit1", ""] if kind is PolicyKind.EXIT else [""] * len(texts)
    entries = tuple(MenuEntry(assignment=assignment(network, text), exit=at) for text, at in zip(texts, exits, strict=True))
    menu = Menu(kind=kind, entries=entries)
    constants = tuple(
        random_entry(network, menu.exits_passed(index), 7 if kind is PolicyKind.EXIT else index) for index in range(len(entries))
    )
    if kind is PolicyKind.EXIT:  # one assignment has one set of constants; the last entry's covers every exit
        constants = (constants[-1],) * 2
    return IntegerModel(
        network=network, menu=menu, stored=random_stored(network), entries=constants,
        input_step=1 / 255, input_zero=0, thresholds=thresholds, gate=gate,
    )  # fmt: skip


def gate_model() -> IntegerModel:
    pool = Op(
        name="pool", kind=OpKind.AVG_POOL, inputs=("input",), in_shape=(1, 6, 6), out_shape=(1, 2, 2),
        kernel=(3, 3), stride=(3, 3),
    )  # fmt: skip
    fc = Op(name="fc", kind=OpKind.LINEAR, inputs=("pool",), in_shape=(1, 2, 2), out_shape=(3,))
    network = Network((pool, fc), (1, 6, 6), "gate")
    menu = Menu(kind=PolicyKind.STATIC, entries=(MenuEntry(assignment=assignment(network, "w8a8")),))
    return IntegerModel(
        network=network, menu=menu, stored=random_stored(network), entries=(random_entry(network, ("",), 3),),
        input_step=1 / 255, input_zero=0,
    )  # fmt: skip


@pytest.fixture
def codes() -> Codes:
    return np.random.default_rng(5).integers(0, 256, (90, 6, 6, 1), dtype=np.uint8)


def middle_threshold(model: IntegerModel, index: int, codes: Codes) -> int:
    margins = argmax(run_entry(model, index, codes)[model.menu.entries[index].exit])[1]
    return int(np.median(margins))


def test_an_entry_runs_its_operations_in_order(codes: Codes) -> None:
    model = model_of(PolicyKind.STATIC)
    constants, stored, bits = model.entries[0].constants, model.stored, model.menu.entries[0].assignment
    tensors: dict[str, np.ndarray] = {"input": codes}
    for op in model.network.path(("",)):
        inputs = [tensors[name] for name in op.inputs]
        tensors[op.name] = run_op(op, bits[op.name], inputs, stored.get(op.name), constants[op.name])
    logits = run_entry(model, 0, codes)[""]
    assert logits.shape == (90, CLASSES) and logits.dtype == np.int32
    assert (logits == tensors["fc"]).all()
    traced = trace(model, 0, codes)
    assert all((traced[op.name] == tensors[op.name]).all() for op in model.network.path(("",)))
    assert len(np.unique(traced["first"])) > 50, "the test's constants must not saturate everything"


def test_results_do_not_depend_on_the_batch(codes: Codes) -> None:
    model = model_of(PolicyKind.STATIC)
    together = run_entry(model, 0, codes)[""]
    assert all((run_entry(model, 0, codes[i : i + 1])[""] == together[i]).all() for i in range(0, 90, 17))


def test_no_images_give_no_logits(codes: Codes) -> None:
    assert run_entry(model_of(PolicyKind.STATIC), 0, codes[:0])[""].shape == (0, CLASSES)


def test_an_early_exit_needs_nothing_behind_it(codes: Codes) -> None:
    model = model_of(PolicyKind.EXIT, (0,))
    assert set(trace(model, 0, codes)) == {"first", "exit1.pool", "exit1.fc"}
    both = run_entry(model, 1, codes, ("exit1", ""))
    assert (both["exit1"] == run_entry(model, 0, codes)["exit1"]).all()
    assert (both[""] == run_entry(model, 1, codes)[""]).all()


def test_a_gate_sends_each_image_to_its_best_class(codes: Codes) -> None:
    gate = gate_model()
    model = model_of(PolicyKind.GATE, gate=gate)
    done = run_model(model, codes)
    wanted = run_entry(gate, 0, codes)[""].argmax(axis=1)
    assert len(set(wanted.tolist())) == 3, "the gate must use every entry"
    assert (done.entries == wanted).all()
    assert all((done.logits[i] == run_entry(model, int(wanted[i]), codes[i : i + 1])[""][0]).all() for i in range(90))


def test_a_gate_policy_without_a_gate_is_refused(codes: Codes) -> None:
    with pytest.raises(NetworkError, match="must hold its gate"):
        run_model(model_of(PolicyKind.GATE), codes)


@pytest.mark.parametrize("kind", [PolicyKind.CASCADE, PolicyKind.EXIT])
def test_an_inference_goes_on_while_its_margin_is_below_the_threshold(kind: PolicyKind, codes: Codes) -> None:
    model = model_of(kind)
    last = len(model.entries) - 1
    model = replace(model, thresholds=tuple(middle_threshold(model, index, codes) for index in range(last)))
    done = run_model(model, codes)
    for image, logits, entry in zip(codes, done.logits, done.entries, strict=True):
        index = 0
        while True:
            expected = run_entry(model, index, image[None])[model.menu.entries[index].exit]
            if index == last or int(argmax(expected)[1][0]) >= model.thresholds[index]:
                break
            index += 1
        assert entry == index
        assert (logits == expected[0]).all()
    assert len(set(done.entries.tolist())) == last + 1


@pytest.mark.parametrize("kind", [PolicyKind.CASCADE, PolicyKind.EXIT])
def test_a_margin_equal_to_the_threshold_stops(kind: PolicyKind, codes: Codes) -> None:
    model = model_of(kind)
    first = model.menu.entries[0].exit
    margin = int(argmax(run_entry(model, 0, codes[:1])[first])[1][0])
    others = (0,) * (len(model.entries) - 2)
    assert run_model(replace(model, thresholds=(margin, *others)), codes[:1]).entries.tolist() == [0]
    assert run_model(replace(model, thresholds=(margin + 1, *others)), codes[:1]).entries.tolist() == [1]


@pytest.mark.parametrize("wrong", [np.zeros((2, 6, 6, 1), np.float32), np.zeros((2, 1, 6, 6), np.uint8)], ids=["type", "order"])
def test_inputs_of_another_type_or_order_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(NetworkError, match=r"must be uint8 codes \[N, 6, 6, 1\], but found"):
        run_model(model_of(PolicyKind.STATIC), wrong)


MODELS = {
    "static": model_of(PolicyKind.STATIC),
    "gate": model_of(PolicyKind.GATE, gate=gate_model()),
    "cascade": model_of(PolicyKind.CASCADE, (900, 2**33)),
    "exit": model_of(PolicyKind.EXIT, (700,)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_computes_the_same(name: str, codes: Codes, tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    save_model(MODELS[name], path)
    loaded = load_model(path)
    before, after = run_model(MODELS[name], codes), run_model(loaded, codes)
    assert (before.logits == after.logits).all() and (before.entries == after.entries).all()
    assert loaded.menu == MODELS[name].menu
    assert loaded.network.ops == MODELS[name].network.ops
    assert loaded.thresholds == MODELS[name].thresholds
    assert loaded.entries[0].logit_step == MODELS[name].entries[0].logit_step


def test_a_menus_copies_are_saved_and_older_files_have_none(tmp_path: Path) -> None:
    model = MODELS["cascade"]
    copied = replace(model, menu=replace(model.menu, copies=frozenset({("fc", 2), ("conv", 4)})))
    save_model(copied, tmp_path / "model.npz")
    assert load_model(tmp_path / "model.npz").menu == copied.menu
    with zipfile.ZipFile(tmp_path / "model.npz") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(parts["header.json"])
    del header["model"]["menu"]["copies"]
    with zipfile.ZipFile(tmp_path / "model.npz", "w") as archive:
        for name, content in (parts | {"header.json": json.dumps(header).encode()}).items():
            archive.writestr(name, content)
    assert load_model(tmp_path / "model.npz").menu == model.menu


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        save_model(MODELS["gate"], tmp_path / name)
    save_model(load_model(tmp_path / "a.npz"), tmp_path / "c.npz")
    assert len({(tmp_path / name).read_bytes() for name in ("a.npz", "b.npz", "c.npz")}) == 1


def test_numpy_reads_the_arrays_without_pickle(tmp_path: Path) -> None:
    save_model(MODELS["static"], tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz", allow_pickle=False) as arrays:
        assert (arrays["stored/first"] == MODELS["static"].stored["first"].codes).all()


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"nowhere\.npz must be a model .* but there is no such file"):
        load_model(tmp_path / "nowhere.npz")


def test_a_flipped_byte_in_any_array_is_found(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    save_model(MODELS["exit"], path)
    sound = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        places = [(info.header_offset + 30 + len(info.filename), info.compress_size) for info in archive.infolist()]
    for start, size in places:
        damaged = bytearray(sound)
        damaged[start + size // 2] ^= 0x10
        path.write_bytes(bytes(damaged))
        with pytest.raises(BundleError, match=r"model\.npz must .*export it again"):
            load_model(path)


@pytest.mark.parametrize("length", [0, 10, 1000, -30])
def test_a_torn_file_is_found(length: int, tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    save_model(MODELS["static"], path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(BundleError, match="it is damaged"):
        load_model(path)


def test_a_missing_array_and_an_unknown_schema_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    save_model(MODELS["static"], path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}

    def write(changed: dict[str, bytes]) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in changed.items():
                archive.writestr(name, content)

    write({name: content for name, content in parts.items() if name != "stored/second.npy"})
    with pytest.raises(BundleError, match="it lacks 'stored/second'"):
        load_model(path)
    write(parts | {"header.json": parts["header.json"].replace(b'"schema": 1', b'"schema": 9')})
    with pytest.raises(BundleError, match="must have schema 1, but has 9"):
        load_model(path)
