"""Interpolation along shape: exact where the kernel is a sum of loops, honest where it is not, refused outside."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from hwsearch.errors import ProfileError
from hwsearch.graph.network import Network
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.hardware.header import ProfileHeader
from hwsearch.hardware.profile import HardwareProfile, Measurement, RowKey
from hwsearch.kernels.bodies.portable import convolution_tiling
from hwsearch.kernels.layout import in_lines, packed_weight_bytes
from hwsearch.pricing import interpolation
from hwsearch.pricing.cost_model import CostModel
from hwsearch.pricing.interpolation import ShapeRegression, group_of, is_enough
from hwsearch.pricing.prices import PRICE_STEP

W4A8, W8A8 = Precision(4, 8), Precision(8, 8)


@pytest.fixture
def costs(network: Network, wide_profile: HardwareProfile) -> CostModel:
    return CostModel(network, wide_profile)


def test_a_sum_of_loops_is_predicted_where_nothing_was_measured(costs: CostModel, make: SimpleNamespace) -> None:
    for op in (make.conv("c", "input", (4, 8), 9), make.conv("c", "input", (3, 5), 12)):
        price = costs.op_price(op, W4A8, 8)
        assert price.latency_us == pytest.approx(make.cycles(op, W4A8, 8) / 100.0, rel=0.01)
        assert price.interpolated
        assert price.origin == "emulated (interpolated)"
        assert price.energy_uj == pytest.approx(price.latency_us * 0.04)
        assert (price.symbol, price.weight_bytes) == ("hw_conv2d_w4a8", in_lines(packed_weight_bytes(op, 8)))


def test_a_tiled_kernel_is_recognised_by_its_leaps(header: ProfileHeader, make: SimpleNamespace) -> None:
    """Five rows of output take as long as eight, since the kernel works on four at a time."""

    def measured(op: Op) -> Measurement:
        cut = convolution_tiling(op)
        count = 300.0 + cut.tiles * 900 + cut.quads * -(-op.out_channels // 2) * (60 + 12 * cut.window)
        plain: Measurement = make.row(header, op, W8A8, 8)
        return replace(plain, count_median=count, latency_us=header.latency_us(count))

    shapes = [(4, 6, 5), (8, 16, 9), (16, 8, 8), (4, 32, 13), (8, 8, 16), (16, 16, 6), (6, 12, 11), (12, 6, 7), (5, 20, 10)]
    rows = [measured(make.conv("c", "input", (inputs, outputs), side)) for inputs, outputs, side in shapes]
    fitted = ShapeRegression.fit(rows)
    for side in (5, 6, 7, 8, 12, 14):
        wanted = measured(make.conv("c", "input", (10, 10), side))
        assert fitted.latency_us(wanted.key) == pytest.approx(wanted.latency_us, rel=0.03)
    assert fitted.error(rows[0].key) < 0.05


def test_a_linear_layer_does_not_care_how_its_input_was_shaped(costs: CostModel, make: SimpleNamespace) -> None:
    flat = costs.op_price(make.linear("fc", "input", (32,), 10), W8A8, 8)
    mapped = costs.op_price(make.linear("fc", "input", (8, 2, 2), 10), W8A8, 8)
    assert flat.latency_us == mapped.latency_us


def test_pools_without_overlap_are_one_group_whatever_their_window(costs: CostModel, make: SimpleNamespace) -> None:
    op = make.pool("p", "input", 8, 8, 4)
    expected_us = make.cycles(op, Precision(0, 8), 0) / 100.0
    assert costs.op_price(op, Precision(0, 8), 0).latency_us == pytest.approx(expected_us, rel=0.02)


def test_a_measured_shape_is_read_and_not_fitted(costs: CostModel, make: SimpleNamespace) -> None:
    op = make.conv("c", "input", (2, 3), 5)
    price = costs.op_price(op, W8A8, 8)
    assert not price.interpolated
    assert price.latency_us == pytest.approx(make.cycles(op, W8A8, 8) / 100.0, abs=PRICE_STEP)


def test_the_stated_error_covers_a_kernel_that_is_no_sum_of_loops(network: Network, wide_profile: HardwareProfile) -> None:
    rng = np.random.default_rng(0)
    noisy = tuple(replace(row, latency_us=row.latency_us * float(rng.uniform(0.8, 1.25))) for row in wide_profile.measurements)
    rows = [row for row in noisy if row.op == "conv2d" and row.precision == W8A8 and row.stored_bits == 8]
    assert ShapeRegression.fit(rows).error(rows[0].key) > 0.1
    clean = [row for row in wide_profile.measurements if group_of(row.key) == group_of(rows[0].key)]
    assert ShapeRegression.fit(clean).error(clean[0].key) < 0.02


def test_the_uncertainty_of_an_interpolated_price_includes_its_error(costs: CostModel, make: SimpleNamespace) -> None:
    fitted = costs.op_price(make.conv("c", "input", (4, 8), 9), W4A8, 8)
    read = costs.op_price(make.conv("c", "input", (2, 3), 5), W4A8, 8)
    assert read.uncertainty == 0.1
    assert fitted.uncertainty > read.uncertainty


@pytest.mark.parametrize(("channels", "side"), [((4, 80), 9), ((40, 8), 9), ((4, 8), 64), ((4, 1), 9)])
def test_a_shape_far_outside_the_measured_ones_is_refused(
    costs: CostModel, make: SimpleNamespace, channels: tuple[int, int], side: int
) -> None:
    with pytest.raises(ProfileError, match=r"a row within a factor 2 of every dimension of conv2d 3x3 .*hwsearch measure grid"):
        costs.op_price(make.conv("c", "input", channels, side), W8A8, 8)


def test_nothing_is_interpolated_across_widths_strides_or_kernels(costs: CostModel, make: SimpleNamespace) -> None:
    op = make.conv("c", "input", (4, 8), 9)
    for other in (make.conv("c", "input", (4, 8), 9, 2), replace(op, kernel=(1, 1), padding=(0, 0))):
        with pytest.raises(ProfileError, match="none of that kernel, stride and precision"):
            costs.op_price(other, W8A8, 8)
    with pytest.raises(ProfileError, match="only the widths"):
        costs.op_price(op, Precision(3, 8), 8)


@pytest.mark.parametrize(("precision", "stated"), [(Precision(8, 8), 0.03), (Precision(4, 4), 0.06), (Precision(2, 2), 0.12)])
def test_the_loops_of_the_cortex_m_body_fit_its_table(
    precision: Precision, stated: float, shipped: Callable[[str], HardwareProfile]
) -> None:
    """Each 3x3 convolution predicted by all other rows of its body; a plain kernel's loops err by a third."""
    bits = precision.weight_bits
    rows = [row for row in shipped("nucleo_l4r5zi").measurements if row.op == "conv2d" and row.precision == precision]
    own = [row for row in rows if row.kernel == (3, 3) and row.stride == (1, 1) and row.stored_bits == bits]
    related = [row for row in rows if row.stored_bits == bits and row not in own]
    assert ShapeRegression.fit(own, related).error(own[0].key) < stated


def test_one_row_of_a_kernel_suffices_where_its_body_has_many(shipped: Callable[[str], HardwareProfile]) -> None:
    rows = [row for row in shipped("nucleo_l4r5zi").measurements if row.op == "conv2d" and row.precision == W8A8]
    own = [row for row in rows if row.kernel == (10, 4)]
    related = [row for row in rows if row not in own]
    assert is_enough(own, related)
    assert not is_enough(own, related[:20])
    assert not is_enough([], related)
    with pytest.raises(ValueError, match="a fit needs 4 rows of one group, but found 1"):
        ShapeRegression.fit(own)
    fitted = ShapeRegression.fit(own, related)
    assert fitted.latency_us(own[0].key) == pytest.approx(own[0].latency_us, rel=0.05)


def test_a_way_that_no_row_took_prices_nothing(header: ProfileHeader, make: SimpleNamespace) -> None:
    """Channels in fours say nothing about the loop that takes channels one by one, however well they fit."""
    ops = [make.pool("p", "input", channels, side, 2) for channels in (4, 8, 16, 48) for side in (4, 8, 12)]
    fitted = ShapeRegression.fit([make.row(header, op, Precision(0, 8), 0) for op in ops])
    odd = RowKey.of(make.pool("p", "input", 9, 8, 2), Precision(0, 8), 0)
    even = RowKey.of(make.pool("p", "input", 12, 8, 2), Precision(0, 8), 0)
    assert len(fitted.candidates) > 1
    assert fitted.latency_us(odd) > 0.5 * fitted.latency_us(even)


def test_padding_is_the_least_that_gives_the_output(make: SimpleNamespace) -> None:
    for size, side, stride, padding in ((16, 3, 1, 1), (16, 3, 2, 1), (15, 3, 2, 1), (9, 5, 1, 2), (9, 1, 1, 0), (8, 1, 2, 0)):
        out = (size + 2 * padding - side) // stride + 1
        op = Op(name="c", kind=OpKind.CONV2D, inputs=("input",), in_shape=(4, size, size), out_shape=(4, out, out),
                kernel=(side, side), stride=(stride, stride), padding=(padding, padding))  # fmt: skip
        assert interpolation._op_of(RowKey.of(op, W8A8, 8)).padding == (padding, padding)
