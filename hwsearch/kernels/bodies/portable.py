"""How the kernels in `kernels/c/portable/` cut their work: their working memory and the turns of their loops.

`hw_conv2d.c`: a quad is 4 output pixels of one column. A tile holds up to 8 quads, fewer where their packed codes take more
than 16 KB; for each tile every block of filters is expanded once. `hw_depthwise_conv2d.c`: some rows of output at a time (64
pixels, at least one row), for four channels at a time. The C code computes the same sizes.
"""

import math
from dataclasses import dataclass

from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.kernels.bodies.body import Body, Turns

TILE_QUADS, TILE_BYTES, SHORT_RUN, QUAD = 8, 16384, 16, 4
STRETCH = 64
LANES = 4
"""Channels that a depthwise kernel does together."""
WORD_PAIR_BYTES = 8
"""A quad's codes at one position and channel, and two expanded weights, are two words each."""
WORD_CODES = {1: 32, 2: 16, 3: 8, 4: 8, 8: 4}
"""Most codes that are taken from one word of stored weights, by the width they are used at; stored at 3 bits they go by fours."""


def filters_per_block(precision: Precision) -> int:
    """Filters whose weights are expanded together: two words of as many filters as fields fit."""
    weights, activations = precision.weight_bits, precision.activation_bits
    if weights <= 2 and activations == 2:
        return 6
    return 4 if weights <= 2 or activations == 2 or max(weights, activations) <= 4 else 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvolutionTiling:
    """Tiles of one convolution. `columns` output columns and `rows` rows of quads make a tile.

    `gathered`: windows with short runs of channels are copied to one run each, padded to 4; otherwise one run per kernel row.
    """

    out_h: int
    out_w: int
    channels: int
    kernel: tuple[int, int]
    stride_w: int
    gathered: bool
    columns: int
    rows: int

    @property
    def window(self) -> int:
        """Word pairs that one output pixel's quad multiplies."""
        products = self.kernel[0] * self.kernel[1] * self.channels
        return -(-products // 4) * 4 if self.gathered else products

    @property
    def runs(self) -> int:
        """Stretches of consecutive word pairs in a window."""
        return 1 if self.gathered else self.kernel[0]

    @property
    def positions(self) -> int:
        """Input columns that one row of quads packs, per kernel row; gathered windows copy those that they share."""
        return self.columns * self.kernel[1] if self.gathered else self._touched(self.columns)

    def _touched(self, columns: int) -> int:
        return (columns - 1) * self.stride_w + self.kernel[1]

    @property
    def tiles(self) -> int:
        return math.ceil(self.quad_rows / self.rows) * math.ceil(self.out_w / self.columns)

    @property
    def quad_rows(self) -> int:
        return math.ceil(self.out_h / QUAD)

    @property
    def quads(self) -> int:
        return self.quad_rows * self.out_w

    def row_bytes(self, columns: int) -> int:
        """Packed codes of one row of quads."""
        pairs = columns * self.window if self.gathered else self.kernel[0] * self._touched(columns) * self.channels
        return WORD_PAIR_BYTES * pairs

    def scratch_bytes(self) -> int:
        """Packed codes, expanded weights of one block of filters, sums of codes, one pixel of padding."""
        products = self.kernel[0] * self.kernel[1] * self.channels
        weights = WORD_PAIR_BYTES * (-(-products // 16) * 16)
        sums = self.rows * (self.columns if self.gathered else self.positions) * QUAD * 4
        return self.rows * self.row_bytes(self.columns) + weights + sums + -(-self.channels // 4) * 4


def convolution_tiling(op: Op) -> ConvolutionTiling:
    """The tiling of a convolution; a 1x1 convolution without stride or padding sees the image as one column."""
    channels = op.in_shape[0] // op.groups
    _, out_h, out_w = op.out_shape
    if op.kernel == op.stride == (1, 1) and op.padding == (0, 0):
        out_h, out_w = out_h * out_w, 1
    columns, rows = min(out_w, TILE_QUADS), 1

    def tiling() -> ConvolutionTiling:
        return ConvolutionTiling(
            out_h=out_h, out_w=out_w, channels=channels, kernel=op.kernel, stride_w=op.stride[1],
            gathered=op.kernel[1] * channels < SHORT_RUN, columns=columns, rows=rows,
        )  # fmt: skip

    while columns > 1 and tiling().row_bytes(columns) > TILE_BYTES:
        columns = (columns + 1) // 2
    rows = min(math.ceil(out_h / QUAD), TILE_QUADS // columns)
    while rows > 1 and rows * tiling().row_bytes(columns) > TILE_BYTES:
        rows = (rows + 1) // 2
    return tiling()


def convolution_loops(op: Op, precision: Precision, _: int) -> Turns:
    """`hw_conv2d.c`: packing per tile, expanding per tile and block of filters, multiplying, finishing."""
    cut, filters = convolution_tiling(op), op.out_channels
    blocks = op.groups * math.ceil(filters / op.groups / filters_per_block(precision))
    packed = op.groups * cut.tiles * cut.rows * cut.kernel[0] * cut.positions
    return {
        "call": 1,
        "tile": cut.tiles,
        "packed position": packed,
        "packed code": packed * cut.channels,
        "expanded weight": cut.tiles * blocks * cut.window,
        "quad and block": cut.quads * blocks,
        "run": cut.quads * blocks * cut.runs,
        "product": cut.quads * blocks * cut.window,
        "output": cut.out_h * cut.out_w * filters,
        "output beyond whole quads": (cut.out_h % QUAD) * cut.out_w * filters,  # finished one by one
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthwiseStretches:
    """Stretches of one depthwise convolution: `rows` output rows, under which `in_rows` x `in_columns` inputs lie."""

    out_h: int
    out_w: int
    channels: int
    taps: int
    rows: int
    in_rows: int
    in_columns: int

    @property
    def stretches(self) -> int:
        return math.ceil(self.out_h / self.rows)

    @property
    def lanes(self) -> int:
        """Groups of four channels."""
        return math.ceil(self.channels / LANES)

    def scratch_bytes(self) -> int:
        """Weights of 16 bits for all channels; for one group inputs of 16 bits and int32 sums."""
        pairs = self.taps * self.lanes + self.in_rows * self.in_columns
        return WORD_PAIR_BYTES * pairs + self.rows * self.out_w * LANES * 4


def depthwise_stretches(op: Op) -> DepthwiseStretches:
    """How a depthwise convolution is cut."""
    _, out_h, out_w = op.out_shape
    rows = min(max(STRETCH // out_w, 1), out_h)
    return DepthwiseStretches(
        out_h=out_h, out_w=out_w, channels=op.in_shape[0], taps=math.prod(op.kernel), rows=rows,
        in_rows=(rows - 1) * op.stride[0] + op.kernel[0], in_columns=(out_w - 1) * op.stride[1] + op.kernel[1],
    )  # fmt: skip


def depthwise_loops(op: Op, _: Precision, __: int) -> Turns:
    """`hw_depthwise_conv2d.c`: copying, summing and finishing, per stretch, row and pixel."""
    cut = depthwise_stretches(op)
    pieces, by_words = cut.stretches * cut.lanes, cut.channels % LANES == 0
    copied = pieces * cut.in_rows * cut.in_columns
    return {
        "call": 1,
        "stretch of four channels": pieces,
        "copied row": pieces * cut.in_rows,
        "copied word": copied * by_words,
        "copied bytes": copied * (not by_words),
        "summed row": cut.lanes * cut.out_h,
        "summed pixel": cut.lanes * cut.out_h * cut.out_w,
        "finished channel": cut.stretches * cut.channels,
        "output": cut.out_h * cut.out_w * cut.channels,
    }


def linear_scratch(op: Op, precision: Precision) -> int:
    """The input in whole words of stored codes: two to a word, or four where two bits meet at most two."""
    fours = precision.weight_bits <= 2 and precision.activation_bits == 2
    per_word = WORD_CODES[precision.weight_bits]
    arranged = -(-op.reduction // per_word) * per_word
    return arranged * (1 if fours else 2)


PORTABLE = Body(
    folder="portable",
    number=0,
    isas=(),
    scratch={
        OpKind.CONV2D: lambda op, _: convolution_tiling(op).scratch_bytes(),
        OpKind.DEPTHWISE_CONV2D: lambda op, _: depthwise_stretches(op).scratch_bytes(),
        OpKind.LINEAR: linear_scratch,
    },
    loops={OpKind.CONV2D: convolution_loops, OpKind.DEPTHWISE_CONV2D: depthwise_loops},
)
"""These run wherever there are none of the core's own, so that their memory is always there."""
