"""Which shapes are measured: every operation of the reference networks, their exit heads and gates, and shapes between.

Reference networks get exact rows at every precision that has a kernel, with weights stored at their own and every wider width;
the other shapes exist so that a regression along shape, within one operation, kernel and stride, has enough to hold on to. Odd
widths, weights of 1 or 3 bits or stored so, are choices of few: every second of the other shapes has them, which is enough to
price any nested menu of any network, if more roughly. The networks' operations are read as they were captured, since this room
knows no torch.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import prod

from hwsearch.graph.controllers import CONTROLLER_BITS, DECISION, argmax_op, exit_head, gate_graph
from hwsearch.graph.menu import PolicyKind, PolicyShape
from hwsearch.graph.network import Network
from hwsearch.graph.op import Op, OpKind, Shape
from hwsearch.graph.precision import KERNEL_PRECISIONS, WEIGHT_WIDTHS, WEIGHTLESS_PRECISIONS, Precision
from hwsearch.graph.space import reference_networks
from hwsearch.hardware.profile import RowKey
from hwsearch.kernels.catalogue import supported

CONTROLLER = Precision(CONTROLLER_BITS, CONTROLLER_BITS)
"""Of a controller's weighted operations, and of exit heads, which a space keeps as wide."""
GATE_GRIDS = (2, 3, 4, 5, 6, 8, 10)
GATE_HIDDEN = (4, 8, 16, 32)
MENU_SIZES = tuple(range(2, 17))

# (in channels, height, width, out channels) of convolutions; dimensions vary independently of each other.
_CONV_SHAPES = (
    (1, 8, 8, 16), (3, 32, 32, 8), (3, 16, 16, 32), (8, 16, 16, 16), (16, 16, 16, 16), (16, 8, 8, 64), (24, 12, 12, 48),
    (32, 16, 16, 32), (32, 8, 8, 16), (32, 4, 4, 64), (64, 8, 8, 32), (64, 4, 4, 64), (64, 2, 2, 128), (128, 4, 4, 32),
    (10, 10, 10, 20), (20, 5, 5, 50),
)  # fmt: skip
_WIDE_CONV_SHAPES = ((1, 28, 28, 8), (1, 16, 16, 32), (3, 32, 32, 16), (8, 12, 12, 8), (16, 12, 12, 32), (32, 8, 8, 16),
                     (32, 12, 12, 64), (10, 9, 9, 20), (64, 4, 4, 32), (20, 6, 6, 50))  # fmt: skip
_ODD_CONV_SHAPES = ((7, 9, 9, 21), (13, 10, 10, 9), (16, 6, 6, 15), (27, 5, 5, 34), (40, 4, 4, 29), (12, 12, 12, 26))
"""Channels that are no multiples of what kernels do at once."""
_CONVS = (
    *((3, stride, (*_CONV_SHAPES, *_ODD_CONV_SHAPES)) for stride in (1, 2)),
    *((1, stride, (*_CONV_SHAPES, *_ODD_CONV_SHAPES, (256, 2, 2, 256), (8, 48, 48, 16))) for stride in (1, 2)),
    *((5, stride, (*_WIDE_CONV_SHAPES, *_ODD_CONV_SHAPES)) for stride in (1, 2)),
)
_DEPTHWISE_SHAPES = (
    (8, 48, 48), (16, 24, 24), (16, 8, 8), (32, 16, 16), (32, 4, 4), (64, 12, 12), (64, 6, 6), (128, 6, 6), (128, 3, 3),
    (256, 3, 3), (24, 10, 10), (50, 5, 7), (3, 32, 32), (9, 12, 12), (5, 7, 7), (27, 6, 6), (38, 14, 14),
    (6, 20, 20), (11, 26, 26), (74, 5, 5),
)  # fmt: skip
_DEPTHWISE = tuple(product((3, 5), (1, 2)))
_LINEAR_SHAPES = (
    (16, 8), (16, 64), (64, 10), (64, 64), (100, 30), (128, 2), (128, 128), (256, 16), (256, 100), (400, 120), (512, 32),
    (640, 128), (1024, 10), (1152, 64), (2048, 16), (18, 21), (39, 34), (129, 33), (301, 9),
)  # fmt: skip
_MAPS = ((1, 8, 8), (3, 32, 32), (8, 24, 24), (16, 16, 16), (16, 32, 32), (32, 4, 4), (32, 16, 16), (64, 8, 8), (128, 2, 2),
         (128, 6, 6), (256, 4, 4), (20, 7, 7), (5, 7, 7), (9, 12, 12), (27, 6, 6), (50, 10, 10), (6, 4, 4),
         (7, 6, 6))  # fmt: skip
_MAX_POOLS = (((2, 2), (2, 2)), ((3, 3), (2, 2)), ((3, 3), (1, 1)))
_AVG_POOL_WINDOWS = (2, 3, 4, 5, 6, 7, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One row to be measured. `stored_bits` is 0 without weights; `logits` are what a network ends in."""

    op: Op
    precision: Precision
    stored_bits: int
    logits: bool = False

    @property
    def key(self) -> RowKey:
        return RowKey.of(self.op, self.precision, self.stored_bits, self.logits)


def reference_ops() -> dict[str, tuple[Op, ...]]:
    """Operations of the reference networks without exits, by network, as they were captured."""
    return {name: Network.from_json(record).ops for name, record in reference_networks().items()}


def default_grid() -> tuple[Work, ...]:
    """Every row of a complete table, each key once, in a fixed order."""
    return _grid(1)


def thin_grid() -> tuple[Work, ...]:
    """The default grid with every second of the shapes between, for boards whose tables must stay small.

    Reference networks, exit heads and gates are complete.
    """
    return _grid(2)


@cache
def _grid(step: int) -> tuple[Work, ...]:
    """Of the shapes between, every `step`-th, and every second of these with odd widths."""
    networks = reference_ops()
    common = (work for work in _between_works(_thinned(_between(), step)) if not _is_odd(work))
    odd = (work for work in _between_works(_thinned(_between(), 2 * step)) if _is_odd(work))
    return _unique([*_network_works(networks.values()), *common, *odd, *_fixed_works(networks.values())])


def _is_odd(work: Work) -> bool:
    return work.precision.weight_bits % 2 == 1 or work.stored_bits % 2 == 1


def _thinned(ops: Iterable[Op], step: int) -> Iterator[Op]:
    """Of each operation, kernel and stride: every `step`-th by work, with the smallest and the largest."""
    groups: dict[tuple[OpKind, tuple[int, int], tuple[int, int]], list[Op]] = {}
    for op in ops:
        groups.setdefault((op.kind, op.kernel, op.stride), []).append(op)
    for group in groups.values():
        ordered = sorted(group, key=lambda op: (op.macs, prod(op.in_shape), prod(op.out_shape)))
        yield from {id(op): op for op in (*ordered[::step], ordered[-1])}.values()


def network_grid(networks: Sequence[Network]) -> tuple[Work, ...]:
    """Every row that pricing these networks at any precision needs, exits included if they are attached."""
    ends = [(op, not network.consumers(op.name)) for network in networks for op in network.ops]
    return _unique(work for op, is_end in ends for work in _works([op], logits=is_end and op.has_weights))


def _unique(works: Iterable[Work]) -> tuple[Work, ...]:
    return tuple({work.key: work for work in reversed(list(works))}.values())[::-1]


def _network_works(networks: Iterable[Sequence[Op]]) -> Iterator[Work]:
    """All precisions of networks without exits, whose last operations give logits."""
    for ops in networks:
        yield from _works(ops[:-1])
        yield from _works(ops[-1:], logits=True)


def _between_works(ops: Iterable[Op]) -> Iterator[Work]:
    """All precisions; linear operations both within a network and at its end."""
    for op in ops:
        yield from _works([op])
        if op.kind.traits.reads_vector:
            yield from _works([op], logits=True)


def _fixed_works(networks: Iterable[Sequence[Op]]) -> Iterator[Work]:
    """Exit heads and gates at the one precision they have; pools still read whatever their producer stores."""
    for network in networks:
        for op, logits in (*_exit_heads(network), *_gates(network)):
            if op.has_weights:
                yield Work(op=op, precision=CONTROLLER, stored_bits=CONTROLLER_BITS, logits=logits)
            else:
                yield from _works([op])


def _works(ops: Iterable[Op], logits: bool = False) -> Iterator[Work]:
    """All precisions that have a kernel of each operation, weights stored at their own and every wider width."""
    for op in ops:
        if op.has_weights:
            for precision in KERNEL_PRECISIONS:
                stored = [bits for bits in WEIGHT_WIDTHS if bits >= precision.weight_bits] if supported(op, precision) else []
                yield from (Work(op=op, precision=precision, stored_bits=bits, logits=logits) for bits in stored)
        else:
            precisions = (DECISION,) if op.kind.traits.decides else WEIGHTLESS_PRECISIONS
            yield from (Work(op=op, precision=precision, stored_bits=0) for precision in precisions)


GRIDS = {"full": default_grid, "thin": thin_grid}
"""Grids by the name that a profile's `[library] grid` gives."""

_ONE = (1, 1)


def _op(
    kind: OpKind,
    in_shape: Shape,
    out_shape: Shape,
    *,
    kernel: tuple[int, int] = _ONE,
    stride: tuple[int, int] = _ONE,
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> Op:
    return Op(
        name=str(kind),
        kind=kind,
        inputs=("input",) * kind.traits.n_inputs,
        in_shape=in_shape,
        out_shape=out_shape,
        kernel=kernel,
        stride=stride,
        padding=padding,
        groups=groups,
    )


def _convolution(kind: OpKind, in_shape: Shape, channels: int, side: int, stride: int, groups: int = 1) -> Op:
    """A square kernel with half of it as padding."""
    padding = side // 2
    height, width = ((size + 2 * padding - side) // stride + 1 for size in in_shape[1:])
    return _op(
        kind,
        in_shape,
        (channels, height, width),
        kernel=(side, side),
        stride=(stride, stride),
        padding=(padding, padding),
        groups=groups,
    )


def _pool(kind: OpKind, in_shape: Shape, kernel: tuple[int, int], stride: tuple[int, int]) -> Op:
    """Pooling without padding."""
    height, width = ((size - kernel[i]) // stride[i] + 1 for i, size in enumerate(in_shape[1:]))
    return _op(kind, in_shape, (in_shape[0], height, width), kernel=kernel, stride=stride)


def _exit_heads(ops: Sequence[Op]) -> Iterator[tuple[Op, bool]]:
    """The head of an exit after any operation with a feature map, and its decision; True where it gives logits."""
    (classes,) = ops[-1].out_shape
    sources = {op.out_shape: op for op in ops if len(op.out_shape) == 3}
    for shape in sorted(sources):
        pool, head = exit_head(sources[shape], "exit", classes)
        yield from ((pool, False), (head, True))
    yield argmax_op(classes), False


def _gates(ops: Sequence[Op]) -> Iterator[tuple[Op, bool]]:
    """BitGates of every size on a network's input, and their decisions; True where one gives logits."""
    for grid, hidden, entries in product(GATE_GRIDS, GATE_HIDDEN, MENU_SIZES):
        policy = PolicyShape(kind=PolicyKind.GATE, gate_grid=grid, gate_hidden=hidden)
        gate = gate_graph(policy, ops[0].in_shape, entries)
        yield from ((op, op is gate.output) for op in gate.ops)
    yield from ((argmax_op(entries), False) for entries in MENU_SIZES)


def _between() -> Iterator[Op]:
    """Shapes of no particular network, for regressions along shape."""
    for side, stride, shapes in _CONVS:
        for *in_shape, outputs in shapes:
            yield _convolution(OpKind.CONV2D, tuple(in_shape), outputs, side, stride)
    for (side, stride), shape in product(_DEPTHWISE, _DEPTHWISE_SHAPES):
        yield _convolution(OpKind.DEPTHWISE_CONV2D, shape, shape[0], side, stride, shape[0])
    yield from (_op(OpKind.LINEAR, (inputs,), (outputs,)) for inputs, outputs in _LINEAR_SHAPES)
    for shape in _MAPS:
        yield from (_op(kind, shape, shape) for kind in (OpKind.ADD, OpKind.REQUANTIZE))
        yield from _pools(shape)


def _pools(shape: Shape) -> Iterator[Op]:
    smallest = min(shape[1:])
    yield from (_pool(OpKind.MAX_POOL, shape, kernel, stride) for kernel, stride in _MAX_POOLS if smallest >= kernel[0])
    windows = ((side, side) for side in _AVG_POOL_WINDOWS if smallest >= side)
    yield from (_pool(OpKind.AVG_POOL, shape, window, window) for window in windows)
