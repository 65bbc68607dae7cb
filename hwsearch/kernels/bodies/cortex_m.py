"""How the kernels in `kernels/c/cortex_m/` cut their work: their working memory and the turns of their loops.

`hw_strips.h`: some rows of output at a time, their columns dealt to lanes that are computed together; the input under them is
packed once, in at most 16 KB where one row of lanes fits. `hw_polynomials.h`: 3x3 convolutions of narrow codes go by tiles of
8 rows, several pixels to a word (`cortex_m_polynomials.py`). `hw_depthwise_conv2d.c`: some rows of four channels, as streams.
The C code computes the same sizes.
"""

import math
from dataclasses import dataclass

from hwsearch.emulation.isa import Isa
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.kernels.bodies.body import Body, Turns
from hwsearch.kernels.bodies.cortex_m_polynomials import polynomial_loops, polynomials
from hwsearch.kernels.bodies.portable import LANES, depthwise_loops

STRIP_BYTES, FEW_CHANNELS, STRIP_STRETCH_BYTES = 16384, 2, 20
STRIP_FILTERS = 6
"""Most filters whose weights are spread together (`MOST_FILTERS` of `hw_strips.h`)."""
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
        stretches = STRIP_STRETCH_BYTES * (self.runs + self.window // self.limit + 2)
        # Rows that are packed as they lie leave no sums: weights of SMLAD are centred.
        sums = 0 if self.paired else 4 * self.lanes * (self.in_rows * self.positions + self.rows * self.part)
        padding = -(-self.channels // 4) * 4
        staged = self.lanes * (self.window if self.gathered else self.channels) if self.given % 4 else 0
        if self.paired:
            staged = self.positions * self.given // 4 * 4 + 4
        spread = STRIP_FILTERS * self.window if self.is_spread else 0
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


def convolution_loops(op: Op, precision: Precision, _: int) -> Turns:
    """`hw_conv2d.c`: strips, or polynomials for narrow 3x3 kernels."""
    polynomial = polynomials(op, precision)
    if polynomial is None:
        return {"call": 1} | {f"strips: {loop}": turns for loop, turns in strip_loops(op, precision).items()}
    return {"call": 1} | {f"polynomials: {loop}": turns for loop, turns in polynomial_loops(op, polynomial).items()}


def strip_loops(op: Op, precision: Precision) -> Turns:
    """Packing words or bytes, summing windows, expanding a block of filters, multiplying, finishing in the loop or after it."""
    cut, pack = strips(op, precision), packing(precision)
    outputs, taps = op.out_channels // op.groups, math.prod(cut.kernel)
    blocks = op.groups * math.ceil(outputs / pack.filters)
    positions = op.groups * cut.tiles * cut.in_rows * cut.positions
    bytewise = cut.given % LANES != 0
    calls = positions * (taps if cut.gathered and not bytewise else 1)
    words = calls * (cut.window if cut.gathered and bytewise else cut.channels)
    summed = op.groups * cut.tiles * cut.rows * cut.part
    pixels = blocks * cut.out_h * cut.part * math.ceil(cut.out_w / cut.columns)
    quick = outputs % (2 if pack.filters == 6 else 4) == 0
    elements = cut.out_h * cut.part * math.ceil(cut.out_w / cut.columns) * cut.lanes * op.out_channels
    packed = {
        "bytes of windows": cut.gathered and bytewise,
        "words of windows": cut.gathered and not bytewise,
        "bytes of rows": cut.is_spread,
        "words of rows": not cut.gathered and not cut.is_spread,
    }
    return {
        "tile": op.groups * cut.tiles,
        **{
            f"{packing}, {loop}": turns * taken
            for packing, taken in packed.items()
            for loop, turns in (("calls", calls), ("words", words))
        },
        "row of a window's bytes": positions * cut.kernel[0] * packed["bytes of windows"],
        "summed window": summed,
        "summed position": summed * (1 if cut.gathered else taps),
        "block of a tile": cut.tiles * blocks,
        "expanded weight": cut.tiles * blocks * cut.window,
        "spread weight": cut.tiles * blocks * cut.window * cut.is_spread,
        "row and block": blocks * cut.out_h,
        "pixels finished at once": pixels * quick,
        "pixels finished later": pixels * (not quick),
        "stretch": pixels * (cut.runs + cut.window // cut.limit),
        "product": pixels * cut.runs * cut.run,
        "output at once": elements * quick,
        "output later": elements * (not quick),
    }


def convolution_scratch(op: Op, precision: Precision) -> int:
    """Either way is taken, polynomials but for logits."""
    polynomial = polynomials(op, precision)
    return max(strips(op, precision).scratch_bytes(), polynomial.scratch_bytes() if polynomial else 0)


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


def stream_loops(op: Op, precision: Precision, stored_bits: int) -> Turns:
    """`hw_depthwise_conv2d.c`: its own loops, or the portable ones of shapes that it leaves."""
    cut = depthwise_streams(op, precision)
    if cut is None:
        return {f"portable {loop}": turns for loop, turns in depthwise_loops(op, precision, stored_bits).items()}
    channels, quads, stride = op.in_shape[0], math.ceil(op.in_shape[0] / LANES), op.stride[0]
    (in_rows, in_width), pad = (op.in_shape[1:], op.padding[0]) if not cut.turned else (op.in_shape[:0:-1], op.padding[1])
    lines = inside = words = 0
    for first in range(0, cut.out_rows, cut.rows):
        length, top = min(cut.rows, cut.out_rows - first), first * stride - pad
        below = top + length * stride + 3 - stride
        lines, inside, words = lines + below - top, inside + min(below, in_rows) - max(top, 0), words + length * cut.words
    packed, stored, bytewise = inside * cut.phases * cut.words, words * cut.sums / 4, channels % LANES > 0
    return {
        "call": 1,
        "tile": cut.tiles * quads,
        "packed line": inside * quads,
        "packed phase": inside * cut.phases * quads,
        "packed words": packed * quads,
        "padded words": (lines - inside) * cut.words * quads,
        "channel of a tile": cut.tiles * channels,
        "product": channels * words,
        "stored sums": channels * stored,
        "stored codes": quads * stored,
        "finished row": quads * cut.out_rows,
        "output": math.prod(op.out_shape),
        "packed bytes": bytewise * packed * quads,
        "gathered bytes": bytewise * inside * in_width * channels,
        "stored bytes": bytewise * stored * quads,
        "output by bytes": bytewise * math.prod(op.out_shape),
        "packed phase of bytes": bytewise * inside * cut.phases * quads,
    }


def depthwise_scratch(op: Op, precision: Precision) -> int:
    cut = depthwise_streams(op, precision)
    return cut.scratch_bytes() if cut else 0


def linear_scratch(op: Op, precision: Precision) -> int:
    """Two bytes for each code of the input; weights stored at 3 bits meet 18 words for 32 codes."""
    return -(-op.reduction // 32) * 72 if precision.weight_bits <= 3 else -(-op.reduction // 16) * 32


def linear_loops(op: Op, _: Precision, stored_bits: int) -> Turns:
    """`hw_linear.c`, and others like it: arranging inputs, then words of 1, 2 or 4 rows at once."""
    inputs, outputs = op.reduction, op.out_channels
    words, pairs, quads = math.ceil(inputs * stored_bits / 32), math.ceil(outputs / 2), math.ceil(outputs / 4)
    return {
        "call": 1,
        "arranged input": inputs,
        "stored word": words,
        "row": outputs,
        "word of a row": outputs * words,
        "pair of rows": pairs,
        "word of a pair": pairs * words,
        "input of a pair": pairs * inputs,
        "four rows": quads,
        "word of four": quads * words,
        "input of four": quads * inputs,
    }


WIDE, CODES, MOST_CODES, WORTH_A_TABLE = 16, 256, 257, 1024
"""Channels that a pool sums at once, values of a byte, codes that 16 bits sum, and sums that a table is made for."""


def pool_loops(op: Op, _: Precision, __: int) -> Turns:
    """`hw_avg_pool.c` and `hw_max_pool.c`: sixteen and four channels at a time where they come in fours, else one by one."""
    pixels, channels = math.prod(op.out_shape[1:]), op.out_channels
    at_once = op.kind is OpKind.AVG_POOL and op.in_shape[2] == op.kernel[1] and math.prod(op.kernel) <= MOST_CODES
    window = {"": 1, " row": 1 if at_once else op.kernel[0], " code": math.prod(op.kernel)}
    by_words = channels % LANES == 0
    vectors = {"sixteen": pixels * (channels // WIDE) * by_words, "four": pixels * (channels % WIDE // LANES) * by_words}
    return {
        "call": 1,
        "row": op.out_shape[1] * by_words,
        "pixel": pixels * by_words,
        **{f"{width}{part}": turns * times for width, turns in vectors.items() for part, times in window.items()},
        "pixel of bytes": pixels * (not by_words),
        **{f"byte{part}": pixels * channels * times * (not by_words) for part, times in window.items()},
    }


def requantize_loops(op: Op, _: Precision, __: int) -> Turns:
    """`hw_requantize.c`: a table first where codes are more than a byte has values."""
    count = math.prod(op.out_shape)
    many = count > CODES
    return {
        "call": 1,
        "table": many,
        "eight codes": many * (count // 8),
        "code after eights": many * (count % 8),
        "code": (not many) * count,
    }


def add_loops(op: Op, precision: Precision, _: int) -> Turns:
    """`hw_add.c`: many sums of codes below 16 come from a table."""
    count = math.prod(op.out_shape)
    by_table = count >= WORTH_A_TABLE and precision.activation_bits <= 4
    return {"call": 1, "table": by_table, "sum by table": by_table * count, "sum": (not by_table) * count}


CORTEX_M = Body(
    folder="cortex_m",
    number=1,
    isas=(Isa.ARMV7E_M, Isa.ARMV8_M_MAINLINE_DSP),
    scratch={
        OpKind.CONV2D: convolution_scratch,
        OpKind.DEPTHWISE_CONV2D: depthwise_scratch,
        OpKind.LINEAR: linear_scratch,
    },
    loops={
        OpKind.CONV2D: convolution_loops,
        OpKind.DEPTHWISE_CONV2D: stream_loops,
        OpKind.LINEAR: linear_loops,
        OpKind.ADD: add_loops,
        OpKind.MAX_POOL: pool_loops,
        OpKind.AVG_POOL: pool_loops,
        OpKind.REQUANTIZE: requantize_loops,
    },
)
