"""How tensors lie in a device's memory: the sizes that prices, measurements and exports share."""

import math
from collections.abc import Sequence

from hwsearch.graph.network import INPUT, MemoryPlan, Network, plan_memory
from hwsearch.graph.op import Op, OpKind, Shape
from hwsearch.graph.precision import BitAssignment, Precision

REQUANTIZE_BYTES_PER_CHANNEL = 12
"""int32 bias, int32 multiplier and int32 shift of one output channel of one menu entry."""

STEP_BYTES = 64
"""One operation of one menu entry in the exported program of a 32-bit device: `hw_op` (60 bytes) and its kernel's address."""


def packed_weight_bytes(op: Op, stored_bits: int) -> int:
    """Bytes of an operation's weights: dense codes of `stored_bits`, each output channel's row padded to 4 bytes."""
    row_bits = op.reduction * stored_bits
    return op.out_channels * (-(-row_bits // 32) * 4)


def requantize_bytes(op: Op) -> int:
    """Bytes of the per-channel constants that one menu entry needs for this operation."""
    return op.out_channels * REQUANTIZE_BYTES_PER_CHANNEL if op.has_weights else REQUANTIZE_BYTES_PER_CHANNEL


def activation_bytes(shape: Shape, bits: int) -> int:
    """Bytes of a tensor in the arena: one byte per code at any width up to 8 bits, four per logit (32 bits)."""
    return math.prod(shape) * (4 if bits == 32 else 1)


def memory_plan(network: Network, ops: Sequence[Op], assignment: BitAssignment) -> MemoryPlan:
    """Where everything lies that one stretch of operations (`Menu.runs`) makes; the exported program uses this very plan.

    The network's input is not in the arena: it stays where the caller holds it, since a cascade reads it more than once.
    """

    def tensor_bytes(name: str) -> int:
        return 0 if name == INPUT else activation_bytes(network[name].out_shape, network.output_bits(name, assignment))

    return plan_memory(network, tensor_bytes, lambda op: scratch_bytes(op, assignment[op.name]), ops)


def scratch_bytes(op: Op, precision: Precision) -> int:
    """Bytes of working memory that the kernel of an operation needs while it runs; the same at every precision.

    Convolutions work on tiles whose size follows from the shapes; kernels/c/portable/hw_conv2d.c computes the same.
    """
    if op.kind is OpKind.CONV2D:
        return _convolution_scratch_bytes(op)
    return 0


_TILE_QUADS, _TILE_BYTES, _SHORT_RUN, _QUAD = 8, 16384, 16, 4
"""A tile holds up to 8 quads of 4 output pixels; their packed codes take up to 16 KB where more than one quad must fit."""


def _convolution_scratch_bytes(op: Op) -> int:
    """Packed codes, expanded weights of one block of filters, sums of codes, one pixel of padding."""
    channels, (kernel_h, kernel_w) = op.in_shape[0] // op.groups, op.kernel
    _, out_h, out_w = op.out_shape
    if op.kernel == op.stride == (1, 1) and op.padding == (0, 0):
        out_h, out_w = out_h * out_w, 1
    gathered = kernel_w * channels < _SHORT_RUN
    window = kernel_h * kernel_w * channels
    padded_window = -(-window // 4) * 4 if gathered else window

    def positions(columns: int) -> int:
        return columns if gathered else (columns - 1) * op.stride[1] + kernel_w

    def row_bytes(columns: int) -> int:
        return 8 * (columns * padded_window if gathered else kernel_h * positions(columns) * channels)

    columns = min(out_w, _TILE_QUADS)
    while columns > 1 and row_bytes(columns) > _TILE_BYTES:
        columns = (columns + 1) // 2
    rows = min(-(-out_h // _QUAD), _TILE_QUADS // columns)
    while rows > 1 and rows * row_bytes(columns) > _TILE_BYTES:
        rows = (rows + 1) // 2
    sums = rows * positions(columns) * _QUAD * 4
    return rows * row_bytes(columns) + 8 * padded_window + sums + -(-channels // 4) * 4
