"""Profiles: what is written is read back, and every contradiction is refused with its place."""

from pathlib import Path

import pytest

from hwsearch.errors import ProfileError
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.hardware.profile import (
    Measurement,
    Provenance,
    RunRecord,
    find_profile,
    list_profiles,
    load_profile,
    profile_folders,
    read_header,
    write_measurements,
)

HEADER = """schema = 1
[device]
name = "Test board"
isa = "ARMv7E-M"
core = "Cortex-M4F"
clock_hz = 100_000_000
flash_bytes = 1048576
ram_bytes = 131072
supply = "1.8 V"
[counter]
unit = "cycles"
[power]
active_mw = 40.0
source = "data sheet, table 1"
[library]
kernel_library = "hwsearch portable"
version = "1"
compiler = "clang 21"
flags = "-O2"
[validity]
text = "cycle model, within 10 % of the board"
relative_error = 0.1
"""
CONV = Op(
    name="conv", kind=OpKind.CONV2D, inputs=("input",), in_shape=(3, 8, 8), out_shape=(4, 8, 8), kernel=(3, 3), padding=(1, 1)
)
RUN = RunRecord(
    run_id="r1", utc_date="2025-01-01T00:00:00Z", command="hwsearch measure board", git_commit="abc", source_sha256="0",
    binary_sha256="1", compiler="clang", flags="-O2", machine="emulator", rows=1, seconds=1.0,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    board = tmp_path / "board"
    board.mkdir()
    (board / "profile.toml").write_text(HEADER)
    return board


def row(folder: Path, precision: str = "w4a4", count: float = 12345.0, run_id: str = "r1") -> Measurement:
    return Measurement.of_counts(
        read_header(folder), CONV, Precision.parse(precision), stored_bits=8,
        count_median=count, count_p05=count, count_p95=count, repeats=1, provenance=Provenance.EMULATED,
        code_bytes=900, weight_bytes=108, scratch_bytes=64, symbol="hw_conv2d_w4a4", run_id=run_id,
    )  # fmt: skip


def rewrite(folder: Path, old: str, new: str, file: str = "ops.csv") -> None:
    path = folder / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def test_written_rows_are_read_back_equal(folder: Path) -> None:
    rows = [row(folder, "w8a8", 1e6), row(folder, "w2a2", 1234567.0)]
    write_measurements(folder, rows, RUN)
    profile = load_profile(folder)
    assert profile.name == "board"
    assert profile.runs == (RUN,)
    found = [(read.key, read.count_median, read.symbol) for read in profile.measurements]
    assert found == [(written.key, written.count_median, written.symbol) for written in rows[::-1]]
    assert profile.measurements[1].latency_us == pytest.approx(1e4, rel=1e-9)
    assert profile.measurements[1].energy_uj == pytest.approx(1e4 * 40 / 1000, rel=1e-9)
    assert profile.shares() == {"emulated": 1.0}


def test_a_new_row_replaces_the_old_one_and_keeps_the_others(folder: Path) -> None:
    write_measurements(folder, [row(folder, "w8a8", 10.0), row(folder, "w2a2", 20.0)], RUN)
    write_measurements(folder, [row(folder, "w2a2", 30.0, "r2")], RUN.model_copy(update={"run_id": "r2"}))
    profile = load_profile(folder)
    assert [(r.count_median, r.run_id) for r in profile.measurements] == [(30.0, "r2"), (10.0, "r1")]
    assert [run.run_id for run in profile.runs] == ["r1", "r2"]
    assert not list(folder.glob("*.new"))


def test_writing_the_same_rows_again_changes_no_byte(folder: Path) -> None:
    rows = [row(folder, "w8a8", 1e6 / 3), row(folder, "w2a2", 7.0)]
    write_measurements(folder, rows, RUN)
    before = (folder / "ops.csv").read_bytes()
    write_measurements(folder, rows[::-1], RUN)
    assert (folder / "ops.csv").read_bytes() == before


def test_latency_in_another_unit_is_refused_with_file_and_line(folder: Path) -> None:
    write_measurements(folder, [row(folder, count=12345.0)], RUN)
    rewrite(folder, ",123.45,", ",0.12345,")
    message = r"ops\.csv:2: latency_us must be count_median / clock_hz = 123\.45, but is 0\.12345.*unit"
    with pytest.raises(ProfileError, match=message):
        load_profile(folder)


def test_energy_that_does_not_follow_from_power_is_refused(folder: Path) -> None:
    write_measurements(folder, [row(folder, count=12345.0)], RUN)
    rewrite(folder, ",4.938,", ",4.9,")
    with pytest.raises(ProfileError, match=r"ops\.csv:2: energy_uj must be latency_us \* active_mw / 1000 = 4\.938, but is 4\.9"):
        load_profile(folder)


def test_a_changed_clock_contradicts_the_table(folder: Path) -> None:
    write_measurements(folder, [row(folder)], RUN)
    rewrite(folder, "100_000_000", "120_000_000", "profile.toml")
    with pytest.raises(ProfileError, match="latency_us must be"):
        load_profile(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('unit = "cycles"', 'unit = "kcycles"', r"toml: counter\.unit: input should be 'cycles' or 'ns', but found 'kcycles'"),
        ("clock_hz = 100_000_000", 'clock_hz = "100 MHz"', r"device\.clock_hz: .*but found '100 MHz'"),
        (
            'isa = "ARMv7E-M"',
            'isa = "armv7e-m"',
            r"device\.isa: input should be 'ARMv6-M', .* or 'x86-64', but found 'armv7e-m'",
        ),
        ('supply = "1.8 V"', "", r"device\.supply: field required"),
        ("active_mw", "activ_mw", r"power\.active_mw: field required"),
        ("schema = 1", "schema = 9", r"schema: input should be 1, but found 9"),
        ("relative_error = 0.1", "relative_error = 0.1\nx = 1", r"validity\.x: extra inputs are not permitted"),
        ("[counter]", "[counter", "must be TOML"),
    ],
)
def test_a_faulty_header_is_refused_naming_the_field(folder: Path, old: str, new: str, message: str) -> None:
    rewrite(folder, old, new, "profile.toml")
    with pytest.raises(ProfileError, match=message):
        read_header(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("conv2d,8x8x3", "conv3d,8x8x3", r"ops\.csv:2: op must be a plain value.*'conv3d'"),
        ("8x8x3", "8by8", "in_shape must be a plain value"),
        (",12345,", ",12345 cycles,", "count_median must be a plain value.*'12345 cycles'"),
        ("hw_conv2d_w4a4,r1", "hw_conv2d_w4a4", "a row must have 23 cells, but has 22"),
        ("count_median,", "count,", "the columns must be .* but they differ in count, count_median"),
        (",12345,12345,12345,1,", ",12345,12346,12345,1,", "counts must satisfy 0 <= p05 <= median"),
        ("1,4,8,4", "1,8,4,4", "not above stored_bits"),
        ("hw_conv2d_w4a4,r1", "hw_conv2d_w4a4,r7", "emulated must name a run recorded in runs.jsonl, but names 'r7'"),
    ],
)
def test_a_faulty_row_is_refused_naming_the_fault(folder: Path, old: str, new: str, message: str) -> None:
    write_measurements(folder, [row(folder)], RUN)
    rewrite(folder, old, new)
    with pytest.raises(ProfileError, match=message):
        load_profile(folder)


def test_a_row_that_stands_twice_is_refused(folder: Path) -> None:
    write_measurements(folder, [row(folder)], RUN)
    lines = (folder / "ops.csv").read_text().splitlines()
    (folder / "ops.csv").write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.raises(ProfileError, match=r"ops\.csv:3: each row must stand once"):
        load_profile(folder)


def test_a_damaged_run_record_is_refused_with_its_line(folder: Path) -> None:
    write_measurements(folder, [row(folder)], RUN)
    with (folder / "runs.jsonl").open("a") as file:
        file.write('{"run_id": "r2"\n')
    with pytest.raises(ProfileError, match=r"runs\.jsonl:2: "):
        load_profile(folder)


def test_an_unmeasured_profile_names_the_command(folder: Path) -> None:
    with pytest.raises(ProfileError, match=r"run `hwsearch measure .*board`"):
        load_profile(folder)


def test_an_unknown_profile_lists_the_known_ones(folder: Path) -> None:
    with pytest.raises(ProfileError, match=r"'bord'; known are .*board.*--profiles"):
        load_profile("bord", [folder.parent])


def test_given_folders_come_before_the_environment(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "elsewhere" / "board"
    other.mkdir(parents=True)
    (other / "profile.toml").write_text(HEADER)
    monkeypatch.setenv("HWSEARCH_PROFILES", str(other.parent))
    assert find_profile("board", [folder.parent]) == folder
    assert find_profile("board") == other
    assert find_profile(str(other / "profile.toml")) == other
    assert profile_folders([folder.parent])[:2] == (folder.parent, other.parent)
    assert list_profiles([folder.parent])["board"] == folder


EXAMPLE = """\
op,in_shape,out_shape,kernel,stride,groups,weight_bits,stored_bits,activation_bits,count_median,count_p05,count_p95,\
provenance,code_bytes,weight_bytes,scratch_bytes,symbol
conv2d,8x8x1,8x8x16,3x3,1x1,1,8,8,8,41000,37000,45000,datasheet,0,192,0,vendor_conv
"""


def test_a_table_written_by_hand_may_leave_out_what_follows_from_its_counts(folder: Path) -> None:
    (folder / "ops.csv").write_text(EXAMPLE)
    profile = load_profile(folder)
    only = profile.measurements[0]
    assert only.latency_us == profile.header.latency_us(41000) and only.energy_uj == profile.header.energy_uj(only.latency_us)
    assert (only.energy_source, only.repeats, only.logits, only.run_id) == ("power_x_time", 1, False, "")


def test_the_guide_shows_a_table_that_is_accepted(folder: Path) -> None:
    guide = (Path(__file__).parents[2] / "hardware_profiles" / "README.md").read_text()
    table = next(block for block in guide.split("```") if block.startswith("\nop,in_shape"))
    (folder / "ops.csv").write_text(table.lstrip())
    assert len(load_profile(folder).measurements) >= 3
