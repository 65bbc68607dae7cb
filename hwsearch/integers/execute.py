"""Runs an integer model as it is specified: one menu entry, or the whole with its policy."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import NetworkError
from hwsearch.graph.network import INPUT, Network
from hwsearch.graph.op import Op
from hwsearch.integers.integer_model import Codes, Int32, IntegerModel
from hwsearch.integers.op_kinds import run_op
from hwsearch.integers.reference import argmax

Int64 = NDArray[np.int64]
Tensors = dict[str, NDArray[np.integer]]
"""By operation name: codes uint8 `[N, height, width, channels]` or `[N, features]`, logits int32 `[N, classes]`."""

_BATCH = 64
"""Images at a time; bounds memory, not results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What a model answers: `logits` int32 `[N, classes]` and the index of the menu entry that gave them, int64 `[N]`."""

    logits: Int32
    entries: Int64


def run_entry(model: IntegerModel, index: int, codes: Codes, exits: Iterable[str] | None = None) -> dict[str, Int32]:
    """Logits int32 `[N, classes]` of one menu entry by exit name; by default of the exit at which the entry ends.

    `codes`: uint8 `[N, height, width, channels]`.
    """
    wanted = (model.menu.entries[index].exit,) if exits is None else tuple(exits)
    ops = model.network.path(wanted)
    ends = {name: model.network.output_of(name).name for name in wanted}
    parts = [_forward(model, index, ops, batch, set(ends.values())) for batch in _batches(model.network, codes)]
    return {name: np.concatenate([part[end] for part in parts]).astype(np.int32) for name, end in ends.items()}


def trace(model: IntegerModel, index: int, codes: Codes) -> Tensors:
    """Every tensor that one menu entry computes, the heads of the exits it passes included."""
    ops = model.network.path(model.menu.exits_passed(index))
    names = {op.name for op in ops}
    parts = [_forward(model, index, ops, batch, names) for batch in _batches(model.network, codes)]
    return {op.name: np.concatenate([part[op.name] for part in parts]) for op in ops}


def run_model(model: IntegerModel, codes: Codes) -> Execution:
    """The whole model: its policy picks an entry for each input (see `IntegerModel`), which gives the logits."""
    kind, last = model.menu.kind, len(model.entries) - 1
    if kind.has_controller:
        return _run_chosen(model, codes)
    if kind.escalates:
        return _run_exits(model, codes) if kind.shares_trunk else _run_cascade(model, codes)
    return Execution(logits=_logits(model, last, codes), entries=np.full(len(codes), last, np.int64))


def _logits(model: IntegerModel, index: int, codes: Codes) -> Int32:
    return run_entry(model, index, codes)[model.menu.entries[index].exit]


def _run_chosen(model: IntegerModel, codes: Codes) -> Execution:
    """The controller's largest logit names the entry."""
    if model.gate is None:
        raise NetworkError("A model with a gate policy must hold its gate, but has none; fold it again.")
    entries, _ = argmax(run_model(model.gate, codes).logits)
    logits = np.zeros((len(codes), _classes(model)), np.int32)
    for index in range(len(model.entries)):
        chosen = entries == index
        if chosen.any():
            logits[chosen] = _logits(model, index, codes[chosen])
    return Execution(logits=logits, entries=entries)


def _run_cascade(model: IntegerModel, codes: Codes) -> Execution:
    """An entry's logits stand if its margin reaches the threshold; the rest goes on to the next entry."""
    logits, entries = np.zeros((len(codes), _classes(model)), np.int32), np.zeros(len(codes), np.int64)
    waiting = np.arange(len(codes))
    for index in range(len(model.entries)):
        logits[waiting] = _logits(model, index, codes[waiting])
        entries[waiting] = index
        if index + 1 < len(model.entries):
            waiting = waiting[argmax(logits[waiting])[1] < model.thresholds[index]]
            if not len(waiting):
                break
    return Execution(logits=logits, entries=entries)


def _run_exits(model: IntegerModel, codes: Codes) -> Execution:
    """All entries share one assignment, so one pass to the last gives every exit's logits."""
    last = len(model.entries) - 1
    by_exit = run_entry(model, last, codes, model.menu.exits_passed(last))
    stacked = np.stack([by_exit[entry.exit] for entry in model.menu.entries])  # [K, N, classes]
    entries = np.full(len(codes), last, np.int64)
    for index in reversed(range(last)):
        entries[argmax(stacked[index])[1] >= model.thresholds[index]] = index
    return Execution(logits=stacked[entries, np.arange(len(codes))], entries=entries)


def _classes(model: IntegerModel) -> int:
    return model.network.output.out_channels


def _batches(network: Network, codes: Codes) -> list[Codes]:
    channels, height, width = network.input_shape
    if codes.dtype != np.uint8 or codes.shape[1:] != (height, width, channels):
        raise NetworkError(
            f"Inputs of {network.name} must be uint8 codes [N, {height}, {width}, {channels}], "
            f"but found {codes.dtype} {list(codes.shape)}; quantize the images and put channels last."
        )
    return [codes[first : first + _BATCH] for first in range(0, max(1, len(codes)), _BATCH)]


def _forward(model: IntegerModel, index: int, ops: tuple[Op, ...], codes: Codes, keep: set[str]) -> Tensors:
    """Runs operations in order and returns the tensors named in `keep`; others are dropped after their last reader."""
    assignment, constants = model.menu.entries[index].assignment, model.entries[index].constants
    last_use = {source: step for step, op in enumerate(ops) for source in op.inputs}
    tensors: Tensors = {INPUT: codes}
    for step, op in enumerate(ops):
        inputs = [tensors[source] for source in op.inputs]
        tensors[op.name] = run_op(op, assignment[op.name], inputs, model.stored.get(op.name), constants[op.name])
        for source in set(op.inputs) - keep:
            if last_use[source] == step:
                del tensors[source]
    return {name: tensors[name] for name in keep}
