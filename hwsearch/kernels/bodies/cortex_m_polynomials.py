"""How `kernels/c/cortex_m/hw_polynomials.h` cuts 3x3 convolutions of narrow codes: its working memory and the turns of its loops.

Tiles are of 8 rows, and several pixels share a word. The C code computes the same sizes.
"""

import math
from dataclasses import dataclass

from hwsearch.graph.op import Op
from hwsearch.graph.precision import Precision
from hwsearch.kernels.bodies.body import Turns

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


def polynomial_loops(op: Op, cut: Polynomials) -> Turns:
    """Packing segments, summing windows, expanding two filters, beginning, multiplying and finishing their totals."""
    segments, across = _segments(cut, padded=cut.stride == 2 or op.in_shape[2] == cut.out_w), math.ceil(cut.out_w / cut.columns)
    pairs = op.groups * (cut.out_h // POLY_OUT_ROWS * (POLY_OUT_ROWS // 2) + -(-(cut.out_h % POLY_OUT_ROWS) // 2))
    tiles, filters = op.groups * cut.tiles, op.out_channels // op.groups // 2
    packed_rows = 2 * cut.stride * pairs + (3 - cut.stride) * op.groups * math.ceil(cut.out_h / POLY_OUT_ROWS)
    words, multiplied = packed_rows * segments * cut.stride, pairs * segments * filters
    return {
        "tile": tiles,
        "packed row": packed_rows * across,
        "packed segment": words,
        "packed word": words * cut.channels,
        "summed window": cut.out_h * cut.out_w * op.groups,
        "two filters of a tile": tiles * filters,
        "expanded weights": tiles * filters * cut.channels,
        "begun row": pairs * filters * across,
        "begun totals": pairs * filters * cut.out_w,
        "emptied word": multiplied * cut.blocks,
        "product": multiplied * cut.channels * cut.stride,
        "finished row": cut.out_h * across * op.groups * filters,
        "finished totals": cut.out_h * cut.out_w * op.groups * filters,
    }


def _segments(cut: Polynomials, padded: bool) -> int:
    """Words per row and channel of all tiles beside each other; columns of padding beside the image take none."""
    total = 0
    for start in range(0, cut.out_w, cut.columns):
        columns = min(cut.columns, cut.out_w - start)
        beside = (start == 0) + (cut.stride == 1 and start + columns == cut.out_w) if padded else 0
        total += max(columns + 2 - cut.stride - beside, 0) // cut.pixels + 1
    return total
