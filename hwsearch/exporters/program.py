"""The exported C program as a record: which function runs when, on which bytes of the arena.

Each stretch of operations that shares memory (`Menu.runs`) has its own plan, and all of them one arena, which is as
large as the largest needs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hwsearch.emulation.isa import Isa
from hwsearch.errors import BundleError
from hwsearch.graph.controllers import DECISION, argmax_op
from hwsearch.graph.network import INPUT, MemoryPlan
from hwsearch.graph.op import Op
from hwsearch.graph.precision import Precision
from hwsearch.integers.integer_model import IntegerModel, OpConstants, StoredWeights
from hwsearch.kernels.catalogue import Kernel, kernel
from hwsearch.kernels.layout import memory_plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call of a kernel. Offsets are bytes into the arena; an input of None is the caller's image, a scratch of None none."""

    op: Op
    precision: Precision
    kernel: Kernel
    constants: OpConstants
    stored: StoredWeights | None
    inputs: tuple[int | None, ...]
    output: int
    scratch: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What one entry (or the gate) runs by itself, and where its int32 logits then lie."""

    steps: tuple[Step, ...]
    logits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Everything the C package executes. `segments[k]` belongs to menu entry k; `decides`: logits pick the entry."""

    segments: tuple[Segment, ...]
    gate: Segment | None
    arena_bytes: int
    decides: bool

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Every function that the program calls, once, by symbol; that of the policy's decision included."""
        parts = self.segments if self.gate is None else (*self.segments, self.gate)
        found = {step.kernel.symbol: step.kernel for part in parts for step in part.steps}
        if self.decides:
            decision = kernel(argmax_op(len(self.segments)), DECISION)
            found[decision.symbol] = decision
        return tuple(found[symbol] for symbol in sorted(found))


def plan_program(model: IntegerModel, isa: Isa) -> Program:
    """The program of a model; raises `BundleError` where a gate policy has no gate."""
    menu, network = model.menu, model.network
    runs = menu.runs(network)
    plans = [memory_plan(network, ops, entry.assignment, isa) for ops, entry in zip(runs, menu.entries[: len(runs)], strict=True)]
    # On a shared trunk there is one plan for all entries, otherwise one for each.
    plan_of = [plans[0 if menu.kind.shares_trunk else index] for index in range(len(menu.entries))]
    segments = tuple(_segment(model, index, ops, plan_of[index]) for index, ops in enumerate(menu.segments(network)))
    gate = _gate_program(model, isa)
    arenas = [plan.arena_bytes for plan in plans] + ([gate.arena_bytes] if gate else [])
    return Program(
        segments=segments, gate=gate.segments[0] if gate else None, arena_bytes=max(arenas),
        decides=menu.kind.has_controller or menu.kind.escalates,
    )  # fmt: skip


def entry_constants(model: IntegerModel, index: int) -> Mapping[str, OpConstants]:
    """Constants of what entry `index` runs; on a shared trunk the last entry has all of them."""
    return model.entries[-1 if model.menu.kind.shares_trunk else index].constants


def _gate_program(model: IntegerModel, isa: Isa) -> Program | None:
    if model.menu.kind.has_controller != (model.gate is not None):
        raise BundleError(
            f"A model must hold a gate exactly if its policy is one, but its policy is {model.menu.kind} and it holds "
            f"{'none' if model.gate is None else 'one'}; finalize it again."
        )
    return plan_program(model.gate, isa) if model.gate else None


def _segment(model: IntegerModel, index: int, ops: Sequence[Op], plan: MemoryPlan) -> Segment:
    entry = model.menu.entries[index]
    steps = tuple(_step(model, index, op, plan) for op in ops)
    return Segment(steps=steps, logits=plan.offsets[model.network.output_of(entry.exit).name])


def _step(model: IntegerModel, index: int, op: Op, plan: MemoryPlan) -> Step:
    precision = model.menu.entries[index].assignment[op.name]
    return Step(
        op=op,
        precision=precision,
        kernel=kernel(op, precision),
        constants=entry_constants(model, index)[op.name],
        stored=model.read(index, op),
        inputs=tuple(None if name == INPUT else plan.offsets[name] for name in op.inputs),
        output=plan.offsets[op.name],
        scratch=plan.offsets.get(f"{op.name}:scratch"),
    )
