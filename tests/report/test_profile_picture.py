"""The picture of a profile: every number in it follows from rows, and it says where fewer bits pay."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from hwsearch.emulation.isa import Isa
from hwsearch.errors import ProfileError
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.hardware.header import Counter, Device, Library, Power, ProfileHeader, Validity
from hwsearch.hardware.profile import HardwareProfile, Measurement, Provenance, load_profile
from hwsearch.report.profile_picture import profile_cells, svg, work_of, write_picture
from hwsearch.service.cli import main

SHIPPED = Path(__file__).resolve().parents[2] / "hardware_profiles"
W8A8, W4A4, W2A2 = Precision(8, 8), Precision(4, 4), Precision(2, 2)
HEADER = ProfileHeader(
    schema=1,
    device=Device(name="Board", isa=Isa.ARMV7E_M, core="M4", clock_hz=100_000_000, flash_bytes=1, ram_bytes=1, supply="1.8 V"),
    counter=Counter(unit="cycles"),
    power=Power(active_mw=40.0, source="test"),
    library=Library(kernel_library="<own> & co", version="1", compiler="cc", flags="-O2"),
    validity=Validity(text="made for a test", relative_error=0.1),
)


def conv(side: int) -> Op:
    return Op(
        name="conv", kind=OpKind.CONV2D, inputs=("input",), in_shape=(2, side, side), out_shape=(3, side, side), kernel=(3, 3),
        padding=(1, 1),
    )  # fmt: skip


def row(
    op: Op, precision: Precision, count: float, *, half: float = 0.0, provenance: Provenance = Provenance.EMULATED
) -> Measurement:
    return Measurement.of_counts(
        HEADER, op, precision, stored_bits=precision.weight_bits, count_median=count, count_p05=count * (1 - half),
        count_p95=count * (1 + half), repeats=1, provenance=provenance, code_bytes=1, weight_bytes=1, scratch_bytes=1, symbol="s",
        run_id="r",
    )  # fmt: skip


@pytest.fixture
def profile() -> HardwareProfile:
    """Two shapes at 8 and 4 bits, where 4 take half; 2 bits cost more. An addition at 8 bits alone."""
    add = Op(name="add", kind=OpKind.ADD, inputs=("a", "b"), in_shape=(4, 5, 5), out_shape=(4, 5, 5))
    rows = [row(conv(side), W8A8, 2.0 * conv(side).macs) for side in (4, 8)]
    rows += [row(conv(side), W4A4, 1.0 * conv(side).macs) for side in (4, 8)]
    rows += [row(conv(4), W2A2, 3.0 * conv(4).macs), row(add, Precision(0, 8), 700.0)]
    return HardwareProfile(name="board<1>", header=HEADER, measurements=tuple(rows))


def test_cells_hold_cost_per_product_and_ratio_to_eight_bits(profile: HardwareProfile) -> None:
    cells = profile_cells(profile)
    assert set(cells) == {"convolution 3x3", "add"}
    three = cells["convolution 3x3"]
    assert (three[W8A8].cost, three[W8A8].ratio) == (2.0, None)
    assert (three[W4A4].cost, three[W4A4].ratio) == (1.0, 0.5)
    assert (three[W2A2].cost, three[W2A2].ratio) == (3.0, 1.5)
    assert cells["add"][Precision(0, 8)].cost == 7.0


def test_work_is_the_products_of_the_operation() -> None:
    for other in load_profile(SHIPPED / "nucleo_l4r5zi.x_cube_ai").measurements:
        op = Op(
            name="op", kind=other.op, inputs=("input",), in_shape=other.in_shape, out_shape=other.out_shape, kernel=other.kernel,
            stride=other.stride, groups=other.groups, padding=(9, 9),
        )  # fmt: skip
        if other.op.has_weights:
            assert work_of(other) == op.macs


def test_weights_expanded_from_more_bits_are_left_out(profile: HardwareProfile) -> None:
    nested = replace(row(conv(4), W4A4, 9e9), stored_bits=8)
    with_nested = replace(profile, measurements=(*profile.measurements, nested))
    assert profile_cells(with_nested) == profile_cells(profile)


def test_intervals_of_derived_rows_are_shown_and_scatter_of_timed_ones_is_not(profile: HardwareProfile) -> None:
    derived = row(conv(4), W8A8, 100.0, half=0.25, provenance=Provenance.CALIBRATED)
    timed = row(conv(4), W8A8, 100.0, half=0.25, provenance=Provenance.MEASURED)
    for one, shown in ((derived, 0.25), (timed, 0.0)):
        cells = profile_cells(replace(profile, measurements=(one,)))
        assert cells["convolution 3x3"][W8A8].half_interval == pytest.approx(shown)
    assert "±25 %" in svg(replace(profile, measurements=(derived,)))


def drawn(text: str) -> dict[str, tuple[str, list[str]]]:
    """Fill and words of each cell, by the start of its tooltip."""
    cells = {}
    for group in ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}g"):
        title, box, *words = list(group)
        cells[(title.text or "").split(":")[0]] = (box.get("fill") or "", [word.text or "" for word in words])
    return cells


def test_the_picture_is_well_formed_and_coloured_by_what_pays(profile: HardwareProfile) -> None:
    cells = drawn(svg(profile))
    assert cells["convolution 3x3 w4a4"] == ("rgb(15,118,110)", ["1", "×0.50"])
    assert cells["convolution 3x3 w8a8"][0] == "rgb(247,248,250)"
    red, green, blue = map(int, re.findall(r"\d+", cells["convolution 3x3 w2a2"][0]))
    assert red > green > blue, "more expensive is towards orange"
    assert cells["add a8"][1][0] == "7"


def test_an_absent_kernel_is_a_dash(profile: HardwareProfile) -> None:
    lacking = replace(profile, measurements=tuple(r for r in profile.measurements if r.precision != W2A2 or r.op is OpKind.ADD))
    linear = Op(name="fc", kind=OpKind.LINEAR, inputs=("input",), in_shape=(8,), out_shape=(4,))
    assert ">–<" not in svg(lacking)
    assert ">–<" in svg(replace(lacking, measurements=(*lacking.measurements, row(linear, W2A2, 5.0))))


def test_a_page_holds_the_picture_and_the_validity(profile: HardwareProfile, tmp_path: Path) -> None:
    write_picture(profile, tmp_path / "board.html")
    page = (tmp_path / "board.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "made for a test" in page
    assert "board&lt;1&gt;" in page
    assert "board<1>" not in page
    assert not re.findall(r"(?:src|href)=", page)


def test_another_suffix_and_a_folder_that_is_not_there_are_refused(profile: HardwareProfile, tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"must be an .svg or .html file"):
        write_picture(profile, tmp_path / "board.png")
    with pytest.raises(ProfileError, match="folder that exists"):
        write_picture(profile, tmp_path / "no" / "board.svg")


@pytest.mark.parametrize("name", ["nucleo_l4r5zi.cmsis_nn", "nucleo_l4r5zi.x_cube_ai", "raspberry_pi_4b.tflite"])
def test_the_command_draws_every_published_profile(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "picture.svg"
    monkeypatch.setattr(sys, "argv", ["hwsearch", "profiles", name, "--picture", str(file)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert "published network" in capsys.readouterr().out
    cells = drawn(file.read_text(encoding="utf-8"))
    assert "convolution 3x3 w8a8" in cells
    if name.endswith("cmsis_nn"):
        ratios = [float(words[1].split()[0][1:]) for cell, (_, words) in cells.items() if cell.endswith("w4a8")]
        assert len(ratios) == 5
        assert min(ratios) > 1.4, "4-bit weights pay nowhere under CMSIS-NN"
