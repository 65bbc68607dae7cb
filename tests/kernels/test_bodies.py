"""Tiles cover every output once, keep to their memory, and match sizes worked out by hand."""

import math
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsearch.emulation.isa import Isa
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision, kernel_precision
from hwsearch.kernels.bodies.cortex_m import depthwise_streams, strips
from hwsearch.kernels.bodies.cortex_m0 import blocks
from hwsearch.kernels.bodies.cortex_m_polynomials import polynomials
from hwsearch.kernels.bodies.known import BODIES, bodies_for
from hwsearch.kernels.bodies.portable import (
    QUAD,
    TILE_BYTES,
    TILE_QUADS,
    convolution_tiling,
    depthwise_stretches,
    filters_per_block,
)
from hwsearch.kernels.catalogue import C_FOLDER
from hwsearch.kernels.layout import scratch_bytes


def conv(channels: int, filters: int, height: int, width: int, kernel: int = 3, stride: int = 1) -> Op:
    padding = kernel // 2
    out = tuple((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
    return Op(
        name="conv", kind=OpKind.CONV2D, inputs=("input",), in_shape=(channels, height, width), out_shape=(filters, *out),
        kernel=(kernel, kernel), stride=(stride, stride), padding=(padding, padding),
    )  # fmt: skip


BARE = ("-ffreestanding", f"-isystem{files('hwsearch.emulation') / 'freestanding'}")
SHAPES = st.tuples(st.integers(1, 300), st.integers(1, 8), st.integers(1, 40), st.integers(1, 40))


@given(SHAPES, st.sampled_from([1, 3, 5]), st.sampled_from([1, 2]))
def test_tiles_cover_the_output_and_keep_to_their_memory(shape: tuple[int, int, int, int], kernel: int, stride: int) -> None:
    op = conv(*shape, kernel, stride)
    cut = convolution_tiling(op)
    assert cut.out_h * cut.out_w == math.prod(op.out_shape[1:])
    assert cut.quads * QUAD >= cut.out_h * cut.out_w
    assert cut.tiles * cut.rows * cut.columns >= cut.quads
    assert 1 <= cut.rows * cut.columns <= TILE_QUADS
    assert cut.rows * cut.columns == 1 or cut.rows * cut.row_bytes(cut.columns) <= TILE_BYTES
    assert cut.window >= kernel * kernel * shape[0]
    assert cut.window % cut.runs == 0
    assert cut.scratch_bytes() % 4 == 0


def test_a_wide_layer_matches_sizes_worked_out_by_hand() -> None:
    cut = convolution_tiling(conv(32, 16, 8, 8))
    # 8 columns touch 10 input columns: 3 rows x 10 x 32 pairs of words, 7680 bytes a row of quads; one row makes a tile
    assert (cut.columns, cut.rows, cut.positions, cut.tiles, cut.quads) == (8, 1, 10, 2, 16)
    assert cut.scratch_bytes() == 7680 + 288 * 8 + 10 * 4 * 4 + 32


def test_a_first_layer_gathers_its_short_runs() -> None:
    cut = convolution_tiling(conv(1, 16, 8, 8))
    # 9 products are padded to 12; weights have room for 16
    assert (cut.gathered, cut.window, cut.runs, cut.columns, cut.rows) == (True, 12, 1, 8, 1)
    assert cut.scratch_bytes() == 8 * 12 * 8 + 16 * 8 + 8 * 4 * 4 + 4


def test_a_pointwise_layer_is_one_column() -> None:
    cut = convolution_tiling(conv(64, 8, 5, 5, kernel=1))
    assert (cut.out_h, cut.out_w, cut.quads, cut.rows, cut.columns) == (25, 1, 7, 7, 1)


def test_rows_of_a_picture_match_sizes_worked_out_by_hand() -> None:
    cut = strips(conv(3, 16, 32, 32), Precision(8, 8))
    # 3 columns of 3 channels are 10 codes with one of the next window; 16 pairs of columns, 6 codes apart, take 15 * 6 + 10
    # codes for each of 2 lanes, two bytes each: 400 bytes; 34 rows of them fit 16 KB, so the image is one tile
    assert (cut.paired, cut.run, cut.window, cut.row_bytes, cut.rows, cut.tiles) == (True, 10, 32, 400, 32, 1)
    stretches, staged, spread = 20 * 5, 34 * 3 + 2, 6 * 32
    assert cut.scratch_bytes() == 34 * 400 + 8 * 32 + stretches + 4 + staged + spread


def test_scratch_is_the_portable_ones_or_that_of_the_cores_own_bodies() -> None:
    op, precision = conv(32, 32, 8, 8), Precision(8, 8)
    portable, block, strip = (
        cut.scratch_bytes() for cut in (convolution_tiling(op), blocks(op, precision), strips(op, precision))
    )
    assert scratch_bytes(op, precision, Isa.ARMV7E_M) == max(portable, strip)
    assert scratch_bytes(op, precision, Isa.ARMV6_M) == max(portable, block)
    assert {scratch_bytes(op, precision, isa) for isa in (Isa.RV32IMC, Isa.X86_64, Isa.ARMV8_A, Isa.ARMV7_M)} == {portable}
    assert portable < min(strip, block)


def test_scratch_covers_tiles_of_every_shape() -> None:
    precision = Precision(8, 8)
    for channels, side, size in product((1, 3, 16, 200), (1, 4, 7, 33), (1, 3, 5)):
        op = replace(conv(channels, 8, side + size, side + size, size), padding=(0, 0), out_shape=(8, side + 1, side + 1))
        tiling = convolution_tiling(op)
        assert 0 < tiling.columns <= tiling.out_w
        for isa, own in ((Isa.ARMV7E_M, strips(op, precision)), (Isa.ARMV6_M, blocks(op, precision))):
            assert scratch_bytes(op, precision, isa) == max(tiling.scratch_bytes(), own.scratch_bytes())


@pytest.mark.parametrize("kind", [OpKind.ADD, OpKind.MAX_POOL, OpKind.AVG_POOL, OpKind.REQUANTIZE, OpKind.ARGMAX])
@pytest.mark.parametrize("isa", Isa)
def test_operations_without_weights_take_no_working_memory(kind: OpKind, isa: Isa) -> None:
    assert scratch_bytes(replace(conv(8, 8, 6, 6), kind=kind), Precision(0, 8), isa) == 0


def test_linear_operations_match_sizes_worked_out_by_hand() -> None:
    """100 inputs are 4 words of 32 codes, 7 of 16 (a vector), 13 of 8, 25 of 4; 3 whole stretches of 32."""
    op = Op(name="fc", kind=OpKind.LINEAR, inputs=("input",), in_shape=(100,), out_shape=(10,))
    sizes = {
        "portable": {"w1a2": 128, "w1a8": 256, "w2a2": 112, "w2a8": 224, "w3a3": 208, "w4a4": 208, "w8a8": 200},
        "riscv": {"w1a2": 192, "w1a8": 256, "w2a2": 192, "w2a8": 224, "w3a3": 192, "w4a4": 208, "w8a8": 0},
        "cortex_m": {"w1a2": 288, "w3a3": 288, "w4a4": 224, "w8a8": 224},
        "x86": {"w1a2": 224, "w8a8": 224},
        "neon": {"w1a2": 96, "w8a8": 96},
    }
    for folder, expected in sizes.items():
        scratch = BODIES[folder].scratch[OpKind.LINEAR]
        assert expected == {text: scratch(op, Precision.parse(text)) for text in expected}, folder


def test_every_folder_of_bodies_is_known_by_its_name_and_number() -> None:
    folders = {path.name for path in C_FOLDER.iterdir() if path.is_dir()}
    assert folders == {*BODIES} == {body.folder for body in BODIES.values()}
    assert [body.number for body in BODIES.values()] == list(range(len(BODIES)))
    claimed = [isa for body in BODIES.values() for isa in body.isas]
    assert len(claimed) == len({*claimed})


THUMB = ("-target", "thumb-freestanding-eabi")
TARGETS = {
    Isa.ARMV6_M: (*THUMB, "-mcpu=cortex_m0plus"),
    Isa.ARMV7_M: (*THUMB, "-mcpu=cortex_m3"),
    Isa.ARMV7E_M: (*THUMB, "-mcpu=cortex_m4"),
    Isa.ARMV8_M_BASELINE: (*THUMB, "-mcpu=cortex_m23"),
    Isa.ARMV8_M_MAINLINE: (*THUMB, "-mcpu=cortex_m33-dsp"),
    Isa.ARMV8_M_MAINLINE_DSP: (*THUMB, "-mcpu=cortex_m33+dsp"),
    Isa.ARMV8_A: ("-target", "aarch64-freestanding"),
    Isa.RV32IMC: ("-target", "riscv32-freestanding", "-mcpu=generic_rv32+m+c"),
    Isa.RV32IMAC: ("-target", "riscv32-freestanding", "-mcpu=generic_rv32+m+a+c"),
    Isa.X86_64: ("-target", "x86_64-freestanding"),
}
"""What a compiler is told for each instruction set."""


@pytest.mark.parametrize("isa", Isa)
def test_the_c_takes_the_bodies_that_an_instruction_set_is_said_to_have(isa: Isa) -> None:
    own = [body for body in BODIES.values() if body.number]
    asks = "".join(f"#ifdef HW_{body.folder.upper()}\n{body.folder} is taken\n#endif\n" for body in own)
    command = [sys.executable, "-m", "ziglang", "cc", "-E", "-x", "c", "-", *TARGETS[isa], *BARE, f"-I{C_FOLDER}"]
    text = f'#include "portable/hw_portable.h"\n{asks}'
    answer = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    assert [body.folder for body in own if f"{body.folder} is taken" in answer.splitlines()] == [
        body.folder for body in bodies_for(isa) if body.number
    ]


def test_loops_have_turns_of_every_shape() -> None:
    """A shape enters some loop of each body that counts its kind, whatever way it is taken, and no loop less than never."""
    for body in BODIES.values():
        for kind, loops in body.loops.items():
            for stride, width in product((1, 2), (1, 2, 4, 8)):
                op = replace(conv(12, 12, 13, 14, 3, stride), kind=kind, groups=12 if kind is OpKind.DEPTHWISE_CONV2D else 1)
                turns = loops(op, kernel_precision(Precision(width if op.has_weights else 0, width)), width)
                assert any(turns.values()) and min(turns.values()) >= 0, (body.folder, kind)


def test_odd_widths_and_narrow_codes_have_places_for_missing_channels() -> None:
    assert not strips(conv(3, 16, 32, 31), Precision(8, 8)).paired
    assert strips(conv(3, 16, 32, 32), Precision(4, 4)).channels == 4


def test_strided_polynomials_match_sizes_worked_out_by_hand() -> None:
    cut = polynomials(conv(16, 32, 32, 32, stride=2), Precision(4, 4))
    assert cut is not None
    # 16 columns and one before them are 6 segments of 3; 8 rows lie above 17, of two words each
    assert (cut.columns, cut.segments, cut.in_rows, cut.tiles, cut.blocks) == (16, 6, 17, 2, 2)
    packed, weights, totals, sums, centres = 6 * 16 * 17 * 2, 12 * 16, 16 * 20, 17 * 38, 8 * 16
    assert cut.scratch_bytes() == 4 * (packed + weights + totals + sums + centres) + 16


def test_strided_polynomials_are_for_some_columns_and_few_channels() -> None:
    narrow = Precision(4, 4)
    assert polynomials(conv(32, 16, 12, 12, stride=2), narrow) is not None
    assert polynomials(conv(32, 16, 10, 12, stride=2), narrow) is None
    assert polynomials(conv(36, 16, 12, 12, stride=2), narrow) is None


def test_depthwise_stretches_match_sizes_worked_out_by_hand() -> None:
    op = conv(6, 6, 10, 20)
    cut = depthwise_stretches(op)
    # 64 pixels are 3 rows of 20; under them lie 5 x 22 inputs; 6 channels are two groups
    assert (cut.rows, cut.in_rows, cut.in_columns, cut.stretches, cut.lanes) == (3, 5, 22, 4, 2)
    assert cut.scratch_bytes() == 9 * 2 * 8 + 5 * 22 * 8 + 3 * 20 * 16


def test_depthwise_streams_match_sizes_worked_out_by_hand() -> None:
    op = replace(conv(8, 8, 25, 5), kind=OpKind.DEPTHWISE_CONV2D, groups=8)
    # columns of 25 and one place of padding are 7 words of 4, 13 of 2; rows of 5 and one place would be 2 or 3 of each of 25 rows
    quarters, halves, wide = (depthwise_streams(op, Precision.parse(text)) for text in ("w2a2", "w4a4", "w8a8"))
    assert quarters and halves and wide
    assert (quarters.turned, quarters.words, quarters.rows, quarters.lines) == (True, 7, 5, 7)
    assert quarters.scratch_bytes() == (7 * 7 + 6) * 16
    assert halves.scratch_bytes() == (7 * 13 + 6) * 16
    assert wide.scratch_bytes() == (7 * 13 + 6) * 16 + ((5 * 13 + 4) * 2 + 8) * 4


def test_a_depthwise_tile_of_stride_2_has_words_of_even_and_of_odd_pixels() -> None:
    op = replace(conv(8, 8, 96, 96), kind=OpKind.DEPTHWISE_CONV2D, groups=8, stride=(2, 2), out_shape=(8, 48, 48))
    cut = depthwise_streams(op, Precision.parse("w4a4"))
    # 49 even pixels are 25 words, as many odd ones; 800 bytes a row: 10 rows in 8 KB, under 4 rows of output, of 48
    assert cut and (cut.words, cut.phases, cut.rows, cut.lines, cut.tiles) == (25, 2, 4, 9, 12)


@pytest.mark.parametrize(
    ("precision", "filters"),
    [("w8a8", 2), ("w4a8", 2), ("w8a4", 2), ("w4a4", 4), ("w2a8", 4), ("w8a2", 4), ("w2a4", 4), ("w2a2", 6)],
)
def test_narrow_codes_share_a_word(precision: str, filters: int) -> None:
    assert filters_per_block(Precision.parse(precision)) == filters
