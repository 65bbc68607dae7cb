"""A kind of operation is whole: every table that must know it does, and no table knows one that is gone."""

from collections.abc import Mapping
from pathlib import Path

import pytest

import hwsearch.integers.ops
from hwsearch.exporters.onnx_ops import ONNX_OPS
from hwsearch.graph.op import OpKind
from hwsearch.integers.cases import random_case
from hwsearch.integers.op_kinds import OPS, constant_counts
from hwsearch.kernels.catalogue import C_FOLDER, PORTABLE
from hwsearch.measuring.grid import Work, default_grid
from hwsearch.quantizers.torch_ops import TORCH_OPS

TRAINED = {kind for kind in OpKind if not kind.traits.decides}
"""What a network may hold."""


@pytest.mark.parametrize(
    ("table", "kinds"), [(OPS, {*OpKind}), (TORCH_OPS, TRAINED), (ONNX_OPS, TRAINED)], ids=["numpy", "torch", "onnx"]
)
def test_every_table_holds_exactly_the_kinds_that_it_must(table: Mapping[OpKind, object], kinds: set[OpKind]) -> None:
    assert {*table} == kinds


def test_every_kind_has_a_numpy_file_and_a_portable_c_file_of_its_name() -> None:
    numpy_files = {path.stem for path in Path(hwsearch.integers.ops.__path__[0]).glob("*.py")} - {"__init__"}
    c_files = {path.stem.removeprefix("hw_") for path in (C_FOLDER / PORTABLE.folder).glob("*.c")}
    assert numpy_files == c_files == {*map(str, OpKind)}


def test_every_kind_is_measured_with_inputs_and_constants_of_the_recorded_number() -> None:
    works: dict[tuple[OpKind, bool], Work] = {(work.op.kind, work.logits): work for work in default_grid()}
    assert {kind for kind, _ in works} == {*OpKind}
    for (kind, logits), work in works.items():
        case, counts = (
            random_case(work.op, work.precision, work.stored_bits, seed=0, logits=logits),
            constant_counts(work.op, logits),
        )
        constants = case.constants
        assert len(case.inputs) == len(work.op.inputs) == kind.traits.n_inputs
        assert (len(constants.bias), len(constants.multiplier), len(constants.shift)) == (
            counts.bias,
            counts.multiplier,
            counts.shift,
        )


def test_codes_that_pass_through_need_no_constants() -> None:
    for kind in OpKind:
        counts = OPS[kind].counts
        assert (counts.multiplier == 0) == (kind.traits.passes_codes or kind.traits.decides)
        assert bool(counts.bias) == kind.has_weights
