"""From a torch module to a network of priced operations.

`torch.export` (non-strict) records what the module computes and `aten.py` reads it as single steps; then batch norms and
activations are folded into the operation that feeds them.
"""

import contextlib
import copy
import io
import logging
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from hwsearch.errors import NetworkError
from hwsearch.graph.aten import Call, ExportReader, OpParameters, Source
from hwsearch.graph.aten_calls import READERS
from hwsearch.graph.network import Network
from hwsearch.graph.op import Activation, Op


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Captured:
    """A network, and where the model holds the float parameters of each operation with weights, by operation name.

    Training changes parameters but not where they lie, so they are read anew where the model was exported once.
    """

    network: Network
    sources: Mapping[str, OpParameters[Source]]

    def parameters_of(self, model: nn.Module) -> dict[str, OpParameters[Tensor]]:
        """Copies of the parameters that `model` has now: the captured model, or one trained from it.

        Constants (tensors that are neither parameter nor buffer, so nothing trains them) are those of the captured model.
        """
        parameters, buffers = model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
        held = {**dict(parameters), **dict(buffers)}
        return {name: one.each(lambda source: _copy(source, held)) for name, one in self.sources.items()}


def capture(model: nn.Module, example_input: Tensor) -> Network:
    """The network of priced operations that `model` computes.

    `example_input` is one input, [1, C, H, W] or [1, features]. The model stays as it is; it is read in evaluation mode.

    >>> network = capture(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)), torch.zeros(1, 1, 6, 6))
    >>> [(op.name, str(op.kind), str(op.activation), op.macs) for op in network.ops]
    [('0', 'conv2d', 'relu', 576), ('3', 'linear', 'none', 128)]
    """
    return capture_model(model, example_input).network


def capture_model(model: nn.Module, example_input: Tensor) -> Captured:
    """As `capture`, with where the model holds its float parameters."""
    exported = _export(copy.deepcopy(model).eval().float(), example_input[:1].float())
    ops, sources = _fused(ExportReader(exported, READERS).read())
    network = Network(ops, tuple(example_input.shape[1:]), name=type(model).__name__)
    _check_logits(network)
    return Captured(network=network, sources=sources)


def _copy(source: Source, held: Mapping[str, Tensor]) -> Tensor:
    if isinstance(source, Tensor):
        return source.clone()
    if source not in held:
        raise NetworkError(
            f"A model must have the tensors of the one that was captured, but has no {source}; give the captured model or one "
            "trained from it."
        )
    return held[source].detach().to(torch.float32, copy=True)


def _export(model: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    try:
        with _quiet_torch(), torch.no_grad():
            return torch.export.export(model, (example,), strict=False)
    except Exception as error:  # torch documents no common class for what export raises
        raise NetworkError(_export_refusal(model, error)) from error


@contextlib.contextmanager
def _quiet_torch() -> Iterator[None]:
    """Keep torch's reports of an export, dozens of lines when it fails, off the terminal; the refusal says it in one."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.fx.experimental.symbolic_shapes")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _export_refusal(model: nn.Module, error: Exception) -> str:
    where = _place_in_model(model, error)
    if type(error).__name__.startswith("GuardOnDataDependent") or "data-dependent" in str(error):
        return (
            f"A network must compute the same operations for every input, but {where} takes a decision from the data; "
            "move that decision out of forward (hwsearch adds its own early exits and gates)."
        )
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    found = f"{type(error).__name__}: {reason.rstrip('.')}"
    return f"A network must be readable by torch.export, but {where} is not ({found}); correct it."


def _place_in_model(model: nn.Module, error: Exception) -> str:
    """The innermost module that was running when the export failed, with file and line unless it is one of torch's."""
    names = {id(module): name for name, module in model.named_modules()}
    place = "the model"
    for frame, line in traceback.walk_tb(error.__traceback__):
        first = frame.f_code.co_varnames[:1]
        owner = frame.f_locals.get(first[0]) if first else None
        caller = str(frame.f_globals.get("__name__", ""))
        if id(owner) not in names or caller == __name__:
            continue
        where = "" if caller.startswith("torch.") else f", {Path(frame.f_code.co_filename).name} line {line}"
        name = names[id(owner)]
        place = f"{f'module {name}' if name else 'the model'} ({type(owner).__name__}{where})"
    return place


def _fused(calls: list[Call]) -> tuple[list[Op], dict[str, OpParameters[Source]]]:
    """Operations with batch norms and activations joined to the operation whose only reader they are."""
    readers = Counter(source for call in calls for source in call.op.inputs)
    ops: dict[str, Op] = {}
    parameters: dict[str, OpParameters[Source]] = {}
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


def _joins_activation(call: Call, producer: Op | None) -> bool:
    if call.op.activation is Activation.NONE or producer is None:
        return False
    return producer.kind.traits.takes_activation and producer.activation is Activation.NONE


def _with_batch_norm(call: Call, producer: Op | None) -> Op:
    joins = producer is not None and producer.has_weights
    if not joins or producer is None or producer.batch_norm or producer.activation is not Activation.NONE:
        raise NetworkError(
            f"A batch norm must directly follow a convolution or linear layer that nothing else reads, but {call.op.name} "
            "does not; move it there."
        )
    return replace(producer, batch_norm=True)


def _joined(own: OpParameters[Source], call: Call) -> OpParameters[Source]:
    assert call.parameters is not None
    return replace(call.parameters, weight=own.weight, bias=own.bias)


def _check_logits(network: Network) -> None:
    last = network.output
    wide = [size for size in last.out_shape[1:] if size != 1]
    if not last.kind.traits.gives_logits or last.activation is not Activation.NONE or wide:
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
