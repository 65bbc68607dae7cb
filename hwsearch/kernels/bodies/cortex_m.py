"""How the kernels in `kernels/c/cortex_m/` cut their work: their working memory and the turns of their loops.

`hw_strips.h`: some rows of output at a time, their columns dealt to lanes that are computed together; the input under them is
packed once, in at most 16 KB where one row of lanes fits. `hw_polynomials.h`: 3x3 convolutions of narrow codes go by tiles of
8 rows, several pixels to a word. `hw_depthwise_conv2d.c`: some rows of four channels, as streams. The C code computes the same
sizes.
"""

from dataclasses import dataclass

from hwsearch.graph.op import Op
from hwsearch.graph.precision import Precision

STRIP_BYTES, FEW_CHANNELS, STRETCH_BYTES, MOST_FILTERS = 16384, 2, 20, 6
WIDE_LIMIT = 2**20
"""Steps after which sums of SMLAD would be emptied: never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How the products of one precision are multiplied: `lanes` pixels times `filters` filters, `limit` products per field.

    The limit is how many products of the largest codes fit a field; see `kernels/c/cortex_m/hw_conv2d.c`.
    """

    lanes: int
    filters: int
    limit: int

    @property
    def is_wide(self) -> bool:
        return self.lanes == 2


def packing(precision: Precision) -> Packing:
    """SMLAD for products of 12 bits and more, else UMLAL with fields of 10 to 15 bits."""
    widths = (precision.weight_bits, precision.activation_bits)
    if widths in ((8, 8), (8, 4), (4, 8), (3, 8)):
        return Packing(lanes=2, filters=4, limit=WIDE_LIMIT)
    field_bits = {(1, 2): 10, (2, 2): 10, (3, 3): 14, (3, 4): 14, (4, 4): 14}.get(widths, 15)
    largest = (2 ** widths[0] - 1) * (2 ** widths[1] - 1)
    return Packing(lanes=4, filters=6 if field_bits == 10 else 4, limit=(2**field_bits - 1) // largest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strips:
    """Tiles of one convolution: `columns` x `rows` output pixels, `part` columns to each lane.

    `gathered`: every window is copied, and the tile's pixels are one row; else lanes share `in_rows` x `positions` inputs, and
    the `given` channels of a group are packed in fours, as `channels`. `paired`: two lanes take turns, `positions` are those of
    both, and rows are packed as they lie.
    """

    out_h: int
    out_w: int
    given: int
    channels: int
    window: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    gathered: bool
    paired: bool
    columns: int
    rows: int
    lanes: int
    limit: int

    @property
    def part(self) -> int:
        return -(-self.columns // self.lanes)

    @property
    def positions(self) -> int:
        if self.gathered:
            return self.part
        return ((self.columns if self.paired else self.part) - 1) * self.stride[1] + self.kernel[1]

    @property
    def in_rows(self) -> int:
        return 1 if self.gathered else (self.rows - 1) * self.stride[0] + self.kernel[0]

    @property
    def tiles(self) -> int:
        return -(-self.out_h // self.rows) * -(-self.out_w // self.columns)

    @property
    def runs(self) -> int:
        """Stretches of consecutive codes in a window."""
        return 1 if self.gathered else self.kernel[0]

    @property
    def is_spread(self) -> bool:
        """Whether weights are copied to one code per byte first."""
        return self.given != self.channels or self.paired

    @property
    def run(self) -> int:
        """Packed codes of one such stretch."""
        if self.gathered:
            return self.window
        return -(-self.kernel[1] * self.given // 2) * 2 if self.paired else self.kernel[1] * self.channels

    @property
    def row_bytes(self) -> int:
        """Packed codes of one input row, two bytes each."""
        if self.paired:
            return ((self.part - 1) * self.stride[1] * self.given * 2 + self.run) * self.lanes * 2
        return self.positions * (self.window if self.gathered else self.channels) * self.lanes * 2

    def scratch_bytes(self) -> int:
        """Packed codes, expanded weights of one block of filters, stretches, sums of codes, padding, bytes on their way."""
        stretches = STRETCH_BYTES * (self.runs + self.window // self.limit + 2)
        # Rows that are packed as they lie leave no sums: weights of SMLAD are centred.
        sums = 0 if self.paired else 4 * self.lanes * (self.in_rows * self.positions + self.rows * self.part)
        padding = -(-self.channels // 4) * 4
        staged = self.lanes * (self.window if self.gathered else self.channels) if self.given % 4 else 0
        if self.paired:
            staged = self.positions * self.given // 4 * 4 + 4
        spread = MOST_FILTERS * self.window if self.is_spread else 0
        return self.in_rows * self.row_bytes + 8 * self.window + stretches + sums + padding + staged + spread


def strips(op: Op, precision: Precision) -> Strips:
    """The tiling of a convolution; a 1x1 convolution without stride or padding sees the image as one row."""
    given, pack = op.in_shape[0] // op.groups, packing(precision)
    (kernel_h, kernel_w), (stride_h, stride_w) = op.kernel, op.stride
    _, out_h, out_w = op.out_shape
    gathered = given % 4 != 0 and given <= FEW_CHANNELS
    pointwise = op.kernel == op.stride == (1, 1) and op.padding == (0, 0) and not gathered
    if not pointwise and kernel_h <= stride_h and kernel_w <= stride_w:
        gathered = True
    paired = not (gathered or pointwise) and pack.is_wide and given % 4 != 0 and op.groups == 1 and out_w % 2 == 0
    channels = given if gathered or paired else -(-given // 4) * 4
    run = -(-kernel_w * channels // 2) * 2 if paired else kernel_w * channels
    window = -(-kernel_h * run // 4) * 4
    if pointwise or gathered:
        out_h, out_w = 1, out_h * out_w

    def cut(columns: int, rows: int) -> Strips:
        return Strips(
            out_h=out_h, out_w=out_w, given=given, channels=channels, window=window, kernel=op.kernel,
            stride=op.stride, gathered=gathered, paired=paired, columns=columns, rows=rows, lanes=pack.lanes, limit=pack.limit,
        )  # fmt: skip

    under = 1 if gathered else kernel_h
    pieces, columns = 1, out_w
    while columns > pack.lanes and cut(columns, 1).row_bytes * under > STRIP_BYTES:
        pieces += 1
        columns = -(-out_w // pieces)
        columns += columns % 2 if paired else 0
    fit, rows = STRIP_BYTES // cut(columns, 1).row_bytes, 1
    if not gathered and fit > under:
        rows = min((fit - under) // stride_h + 1, out_h)
    rows = -(-out_h // -(-out_h // rows))
    return cut(columns, rows)


POLY_BYTES, POLY_OUT_ROWS, POLY_MOST_CHANNELS, POLY_STRIDED_SIDE = 16384, 8, 128, 6
_POLYNOMIALS = {
    (1, 2): (4, 10), (1, 4): (3, 13), (1, 8): (2, 15), (2, 2): (4, 10), (2, 4): (3, 13), (2, 8): (2, 15),
    (3, 3): (3, 13), (3, 4): (3, 13), (4, 2): (3, 13), (4, 4): (2, 14),
}  # fmt: skip
_STRIDED = {(1, 2): (4, 10), (2, 2): (4, 10)} | dict.fromkeys([(1, 4), (2, 4), (3, 3), (3, 4), (4, 2), (4, 4)], (3, 14))
"""Pixels in a word and bits of a field, by widths of weights and activations: with stride 1 and 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Polynomials:
    """Tiles of one 3x3 convolution: `columns` x 8 output pixels; segments of `pixels` columns are words, with stride 2 two."""

    out_h: int
    out_w: int
    channels: int
    columns: int
    stride: int
    pixels: int
    most_channels: int

    @property
    def tiles(self) -> int:
        return -(-self.out_h // POLY_OUT_ROWS) * -(-self.out_w // self.columns)

    @property
    def segments(self) -> int:
        """Segments per row of a whole tile, with all columns of padding."""
        return (self.columns + 2 - self.stride + self.pixels) // self.pixels

    @property
    def in_rows(self) -> int:
        """Input rows under a tile."""
        return (POLY_OUT_ROWS - 1) * self.stride + 3

    @property
    def blocks(self) -> int:
        """Groups of channels after each of which fields are emptied."""
        return -(-self.channels // self.most_channels)

    @property
    def packed_bytes(self) -> int:
        return self.segments * self.channels * self.in_rows * self.stride * 4

    def scratch_bytes(self) -> int:
        """Packed codes, weights of two filters, totals, sums of codes by position and by window, one pixel of padding."""
        positions = self.segments * self.pixels
        totals, sums = 2 * POLY_OUT_ROWS * (positions + 2), self.in_rows * (positions * self.stride + 2)
        words = 6 * self.stride * self.channels + totals + sums + POLY_OUT_ROWS * self.columns
        return self.packed_bytes + 4 * words + self.channels


def polynomials(op: Op, precision: Precision) -> Polynomials | None:
    """The tiling of a 3x3 convolution of narrow codes; None for others."""
    channels, outputs = op.in_shape[0] // op.groups, op.out_channels // op.groups
    stride = op.stride[0]
    shape_fits = op.kernel == (3, 3) and op.stride in ((1, 1), (2, 2)) and channels % 4 == 0
    widths = (precision.weight_bits, precision.activation_bits)
    found = (_POLYNOMIALS if stride == 1 else _STRIDED).get(widths)
    few = stride == 2 and min(op.out_shape[1:]) < POLY_STRIDED_SIDE
    if not found or not shape_fits or few or channels > POLY_MOST_CHANNELS // stride**2 or outputs % 2:
        return None
    pixels, field_bits = found
    most_channels = (2**field_bits - 1) // (9 * (2 ** widths[0] - 1) * (2 ** widths[1] - 1))
    _, out_h, out_w = op.out_shape
    pieces = 1
    while True:
        columns = -(-out_w // pieces)
        cut = Polynomials(
            out_h=out_h, out_w=out_w, channels=channels, columns=columns, stride=stride, pixels=pixels,
            most_channels=most_channels,
        )  # fmt: skip
        if columns == 1 or cut.packed_bytes <= POLY_BYTES:
            return cut
        pieces += 1


STREAM_BYTES, CHANNELS, STREAM_UNROLL = 8192, 4, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthwiseStreams:
    """Tiles of one 3x3 depthwise convolution: `rows` output rows, `lines` input rows of `phases` x `words` words a channel.

    `turned`: neighbours lie along columns, which are the rows meant here. Sums of 32 bits have a place of their own (`wide`).
    """

    out_rows: int
    rows: int
    lines: int
    words: int
    phases: int
    sums: int
    turned: bool
    wide: bool

    @property
    def tiles(self) -> int:
        return -(-self.out_rows // self.rows)

    def scratch_bytes(self) -> int:
        """Streams of four channels, with what loops read beyond them, and sums of one channel."""
        streams = (self.lines * self.words + STREAM_UNROLL + 2) * self.phases * CHANNELS
        sums = (self.rows * self.words + STREAM_UNROLL) * self.sums + 8 if self.wide else 0
        return 4 * (streams + sums)


def depthwise_streams(op: Op, precision: Precision) -> DepthwiseStreams | None:
    """How a 3x3 depthwise convolution with stride 1 or 2 is cut; None for others."""
    if op.kernel != (3, 3) or op.stride not in ((1, 1), (2, 2)):
        return None
    stride = op.stride[0]
    span = 9 * (2**precision.weight_bits - 1) * (2**precision.activation_bits - 1)
    wide, pixels = span >= 2**16, 4 if span < 2**8 else 2
    phases, sums = (1, 3 - stride) if wide else (stride, pixels)

    def row_words(axis: int) -> int:
        width, pad = op.out_shape[axis], op.padding[axis - 1]
        shared = pad > 0 and (stride == 1 or 2 * width - pad >= op.in_shape[axis])
        return -(-(width + 3 - stride - shared) // sums)

    _, out_h, out_w = op.out_shape
    turned = row_words(1) * out_w < row_words(2) * out_h
    out_rows, words = (out_w, row_words(1)) if turned else (out_h, row_words(2))
    fit = STREAM_BYTES // (4 * CHANNELS * phases * words)
    rows = min(max(fit - 2 if stride == 1 else (fit - 1) // 2, 1), out_rows)
    rows = -(-out_rows // -(-out_rows // rows))
    return DepthwiseStreams(
        out_rows=out_rows, rows=rows, lines=rows * stride + 3 - stride, words=words, phases=phases, sums=sums,
        turned=turned, wide=wide,
    )  # fmt: skip
