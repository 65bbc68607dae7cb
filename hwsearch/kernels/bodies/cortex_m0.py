"""How the kernels in `kernels/c/cortex_m0/` cut their work: their working memory and the turns of their loops.

`hw_blocks.h`: the output is dealt to equal parts, of which the pixels at one place are computed together; the input under a
tile of places is packed once, to two words per position and channel. The C code computes the same sizes.
"""

import math
from dataclasses import dataclass

from hwsearch.emulation.isa import Isa
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.kernels.bodies.body import Body, Turns
from hwsearch.kernels.bodies.portable import depthwise_loops

BLOCK_FILTERS = 3
"""Filters multiplied together (`MOST_FILTERS` of `hw_blocks.h`): as many as give six sums with two words of pixels."""
MOST_COLUMNS, MOST_ROWS, BLOCK_BYTES, CHANNEL_BYTES, SHORTEST_RUN = 32, 16, 16384, 8192, 8
BLOCK_STRETCH_BYTES, COLUMN_BYTES = 16, 48
FEW_ROWS = 12
"""A depthwise convolution with fewer output rows goes one pixel at a time."""
FEWEST_PRODUCTS = 16
"""Fields that hold fewer products are not worth emptying."""


def fields_and_limit(precision: Precision) -> tuple[int, int]:
    """Pixels of a word, and how many products of the largest codes one of its fields holds."""
    largest = (2**precision.weight_bits - 1) * (2**precision.activation_bits - 1)
    for fields, bits in ((4, 8), (2, 16)):
        if (2**bits - 1) // largest >= FEWEST_PRODUCTS:
            return fields, (2**bits - 1) // largest
    return 1, 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """One convolution's tiles: `rows` x `columns` places, each of as many pixels as there are lanes."""

    op: Op
    fields: int
    limit: int
    gathered: bool
    part_h: int
    part_w: int
    rows: int
    columns: int

    @property
    def tiles(self) -> int:
        return -(-self.part_h // self.rows) * -(-self.part_w // self.columns)

    @property
    def runs(self) -> int:
        """Stretches of consecutive codes in a window."""
        return 1 if self.gathered else self.op.kernel[0]

    @property
    def lanes(self) -> int:
        return 2 * self.fields

    @property
    def channels(self) -> int:
        return self.op.in_shape[0] // self.op.groups

    @property
    def window(self) -> int:
        return math.prod(self.op.kernel) * self.channels

    @property
    def positions(self) -> int:
        return self.columns if self.gathered else (self.columns - 1) * self.op.stride[1] + self.op.kernel[1]

    @property
    def in_rows(self) -> int:
        return self.rows if self.gathered else (self.rows - 1) * self.op.stride[0] + self.op.kernel[0]

    @property
    def tile_bytes(self) -> int:
        """Packed codes, their sums, and totals of one row of places."""
        row = self.positions * (self.window if self.gathered else self.channels) * 8
        return self.in_rows * (row + self.positions * self.lanes * 4) + self.columns * COLUMN_BYTES

    def scratch_bytes(self) -> int:
        """The tile, expanded weights of three filters, stretches, one pixel of padding."""
        stretches = BLOCK_STRETCH_BYTES * (self.runs + self.window // self.limit + 1)
        return self.tile_bytes + 4 * BLOCK_FILTERS * self.window + stretches + -(-self.channels // 4) * 4


def blocks(op: Op, precision: Precision) -> Blocks:
    """The tiling of a convolution; a 1x1 convolution without stride or padding sees the image as one row."""
    fields, limit = fields_and_limit(precision)
    _, out_h, out_w = op.out_shape
    if op.kernel == op.stride == (1, 1) and op.padding == (0, 0):
        out_h, out_w = 1, out_h * out_w
    short = op.kernel[1] * (op.in_shape[0] // op.groups) < SHORTEST_RUN
    gathered = short or (op.kernel[0] <= op.stride[0] and op.kernel[1] <= op.stride[1])

    def tile(rows: int, columns: int) -> Blocks:
        return Blocks(
            op=op, fields=fields, limit=limit, gathered=gathered, part_h=part_h, part_w=part_w, rows=rows, columns=columns
        )

    part_h, part_w = _part(out_h, out_w, 2 * fields)
    rows, columns = min(part_h, MOST_ROWS), min(part_w, MOST_COLUMNS)
    while rows * columns > 1 and tile(rows, columns).tile_bytes + 4 * tile(1, 1).window > BLOCK_BYTES:
        rows, columns = ((rows + 1) // 2, columns) if rows >= columns else (rows, (columns + 1) // 2)
    return tile(rows, columns)


def convolution_loops(op: Op, precision: Precision, _: int) -> Turns:
    """`hw_conv2d.c`: packing, expanding, multiplying three filters or the rest, finishing."""
    cut, outputs = blocks(op, precision), op.out_channels // op.groups
    whole, rest = divmod(outputs, BLOCK_FILTERS)
    parts = whole + (rest > 0)
    tiles, places = op.groups * cut.tiles, op.groups * cut.part_h * cut.part_w
    packed = tiles * cut.in_rows * cut.positions * (math.prod(op.kernel) if cut.gathered else 1)
    rows = op.groups * cut.part_h * -(-cut.part_w // cut.columns)
    return {
        "call": 1,
        "tile": tiles,
        "packed position": packed * cut.lanes,
        "packed word": packed * cut.channels,
        "summed window": tiles * cut.rows * cut.columns * cut.lanes * cut.runs,
        "expanded block": tiles * parts,
        "expanded weights of three": tiles * whole * cut.window,
        "expanded weight of the rest": tiles * rest * cut.window,
        "row of places": rows * parts,
        "stretch": places * parts * (cut.runs + cut.window // cut.limit),
        "product with three": places * whole * cut.window,
        "product with one": places * (rest == 1) * cut.window,
        "product with two": places * (rest == 2) * cut.window,
        "finished row": rows * cut.lanes * outputs,
        "output": math.prod(op.out_shape),
    }


def _part(out_h: int, out_w: int, lanes: int) -> tuple[int, int]:
    """Height and width of the parts that waste the fewest places; of equal ones the widest."""
    splits = [2**i for i in reversed(range(lanes.bit_length()))]
    return min(((-(-out_h // rows), -(-out_w // (lanes // rows))) for rows in splits), key=lambda part: part[0] * part[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelTile:
    """One depthwise convolution's tiles, of one channel: `rows` x `part_w` places over `in_rows` x `in_columns` inputs."""

    lanes: int
    part_h: int
    part_w: int
    rows: int
    in_rows: int
    in_columns: int

    @property
    def way(self) -> str:
        """Whether the pixels of several lanes share words."""
        return "single" if self.lanes == 1 else "shared"

    def scratch_bytes(self) -> int:
        """Packed codes and totals, a word each."""
        return 4 * (self.in_rows * self.in_columns + self.rows * self.part_w)


def channel_tile(op: Op, precision: Precision) -> ChannelTile | None:
    """How a 3x3 depthwise convolution with steps of 1 or 2 along rows is cut; None for others."""
    if op.kernel != (3, 3) or op.stride[1] > 2:
        return None
    reach = 9 * (2**precision.weight_bits - 1) * 2 ** (precision.activation_bits - 1)
    lanes = 1 if op.out_shape[1] < FEW_ROWS else 4 if reach < 2**7 else 2 if reach < 2**15 else 1
    part_h, part_w = _part(op.out_shape[1], op.out_shape[2], lanes)

    def tile(rows: int) -> ChannelTile:
        return ChannelTile(
            lanes=lanes, part_h=part_h, part_w=part_w, rows=rows, in_rows=(rows - 1) * op.stride[0] + 3,
            in_columns=(part_w - 1) * op.stride[1] + 3,
        )  # fmt: skip

    rows = part_h
    while rows > 1 and tile(rows).scratch_bytes() > CHANNEL_BYTES:
        rows = (rows + 1) // 2
    return tile(rows)


def channel_loops(op: Op, precision: Precision, stored_bits: int) -> Turns:
    """`hw_depthwise_conv2d.c`: some where pixels share words, others where not, the portable ones of shapes that it leaves."""
    cut = channel_tile(op, precision)
    if cut is None:
        return {f"portable {loop}": turns for loop, turns in depthwise_loops(op, precision, stored_bits).items()}
    channels, tiles = op.out_channels, -(-cut.part_h // cut.rows)
    in_rows = tiles * cut.in_rows
    own = {
        "call": 1,
        "channel": channels,
        "tile": tiles * channels,
        "packed row": channels * in_rows,
        "packed code": channels * in_rows * cut.in_columns,
        "summed row": channels * cut.part_h,
        "summed place": channels * cut.part_h * cut.part_w,
        "finished run": channels * (tiles * cut.lanes if cut.part_w == op.out_shape[2] else cut.part_h * cut.lanes),
        "output": math.prod(op.out_shape),
    }
    return {f"{way} {loop}": turns * (way == cut.way) for way in ("single", "shared") for loop, turns in own.items()}


def depthwise_scratch(op: Op, precision: Precision) -> int:
    cut = channel_tile(op, precision)
    return cut.scratch_bytes() if cut else 0


def linear_scratch(op: Op, precision: Precision) -> int:
    """Two bytes for each code of the input, in whole words of stored codes, with room to spare as on a Cortex-M4."""
    return -(-op.reduction // 32) * 72 if precision.weight_bits <= 3 else -(-op.reduction // 16) * 32


CORTEX_M0 = Body(
    folder="cortex_m0",
    number=2,
    isas=(Isa.ARMV6_M,),
    scratch={
        OpKind.CONV2D: lambda op, precision: blocks(op, precision).scratch_bytes(),
        OpKind.DEPTHWISE_CONV2D: depthwise_scratch,
        OpKind.LINEAR: linear_scratch,
    },
    loops={OpKind.CONV2D: convolution_loops, OpKind.DEPTHWISE_CONV2D: channel_loops},
)
