"""How tensors lie in a device's memory: the sizes that prices, measurements and exports share."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from hwsearch.emulation.isa import Isa
from hwsearch.graph.menu import PolicyKind
from hwsearch.graph.network import INPUT, MemoryPlan, Network, plan_memory
from hwsearch.graph.op import Op, Shape
from hwsearch.graph.op import packed_weight_bytes as packed_weight_bytes  # noqa: PLC0414  re-exported: a size like the others
from hwsearch.graph.precision import BitAssignment, Precision, kernel_precision
from hwsearch.integers.op_kinds import constant_counts
from hwsearch.kernels.bodies.known import bodies_for

LINE_BYTES = 32
"""Every function and table begins at a multiple of this in flash: a line of the largest flash cache."""

STEP_BYTES = 64
"""One operation of one menu entry in the exported program of a 32-bit device: `hw_op` (60 bytes) and its kernel's address."""

_SEGMENT_BYTES, _PRICE_BYTES = 12, 8
"""`hw_segment` of a 32-bit device, and a price or a threshold."""


def in_lines(n_bytes: int) -> int:
    """What so many bytes occupy in flash."""
    return -(-n_bytes // LINE_BYTES) * LINE_BYTES


def requantize_bytes(op: Op, logits: bool = False) -> int:
    """Bytes of the constants that one menu entry needs for this operation, each an int32.

    With weights: bias, multiplier and shift of each output channel, of `logits` the bias alone.
    """
    counts = constant_counts(op, logits)
    return in_lines(4 * (counts.bias + counts.multiplier + counts.shift))


def program_bytes(entries: int, kind: PolicyKind) -> int:
    """Bytes of what ties a model's parts together: `hw_program`, segments, thresholds and prices of the entries."""
    tables = [LINE_BYTES, _SEGMENT_BYTES * entries, _PRICE_BYTES * entries]
    if kind.has_controller:
        tables.append(_SEGMENT_BYTES)
    if kind.escalates:
        tables.append(_PRICE_BYTES * (entries - 1))
    return sum(map(in_lines, tables))


def activation_bytes(shape: Shape, bits: int) -> int:
    """Bytes of a tensor in the arena: one byte per code at any width up to 8 bits, four per logit (32 bits)."""
    return math.prod(shape) * (4 if bits == 32 else 1)


def memory_plan(network: Network, ops: Sequence[Op], assignment: BitAssignment, isa: Isa) -> MemoryPlan:
    """Where everything lies that one stretch of operations (`Menu.runs`) makes; the exported program uses this very plan.

    The network's input is not in the arena: it stays where the caller holds it, since a cascade reads it more than once.
    """

    def tensor_bytes(name: str) -> int:
        return 0 if name == INPUT else activation_bytes(network[name].out_shape, network.output_bits(name, assignment))

    plan = plan_memory(network, tensor_bytes, lambda op: scratch_bytes(op, assignment[op.name], isa), ops)
    return replace(plan, arena_bytes=-(-plan.arena_bytes // 8) * 8)  # the size of an 8-byte aligned C object


@cache
def scratch_bytes(op: Op, precision: Precision, isa: Isa) -> int:
    """Bytes of working memory that the kernel of an operation needs on a core: what the portable body takes, or the core's own.

    Convolutions pack tiles of their input; depthwise ones expand their weights, copy and sum a few rows of some channels; linear
    operations arrange their input. The portable bodies' memory is always there, for shapes that others leave to them and for
    other computers, where a package tests itself.
    """
    runs_at = kernel_precision(precision)
    return max((body.scratch[op.kind](op, runs_at) for body in bodies_for(isa) if op.kind in body.scratch), default=0)


def largest_scratch_bytes(op: Op, precision: Precision) -> int:
    """What is enough for any core: for a computer that has memory to spare."""
    return max(scratch_bytes(op, precision, isa) for isa in Isa)
