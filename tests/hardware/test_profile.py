"""Profiles: what is written is read back in either schema, and every contradiction is refused with its place."""

import shutil
from dataclasses import astuple, replace
from pathlib import Path

import pytest

from hwsearch.errors import ProfileError
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.hardware.profile import (
    Measurement,
    Provenance,
    RunRecord,
    derive_again,
    find_profile,
    list_profiles,
    load_profile,
    profile_folders,
    read_header,
    read_runs,
    wide_text,
    write_measurements,
)
from hwsearch.kernels.catalogue import all_kernels

DATA = Path(__file__).parents[1] / "data"

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
    provenance=Provenance.EMULATED, repeats=1, code_bytes={"hw_conv2d_w4a4": 900},
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


def write_wide(folder: Path, rows: list[Measurement]) -> None:
    """A table as it was written before: in schema 1."""
    write_measurements(folder, rows, RUN)
    (folder / "ops.csv").write_text(wide_text(rows))


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
    write_wide(folder, [row(folder, count=12345.0)])
    rewrite(folder, ",123.45,", ",0.12345,")
    message = r"ops\.csv:2: latency_us must be count_median / clock_hz = 123\.45, but is 0\.12345.*unit"
    with pytest.raises(ProfileError, match=message):
        load_profile(folder)


def test_energy_that_does_not_follow_from_power_is_refused(folder: Path) -> None:
    write_wide(folder, [row(folder, count=12345.0)])
    rewrite(folder, ",4.938,", ",4.9,")
    with pytest.raises(ProfileError, match=r"ops\.csv:2: energy_uj must be latency_us \* active_mw / 1000 = 4\.938, but is 4\.9"):
        load_profile(folder)


def test_a_changed_clock_contradicts_a_table_that_states_latencies(folder: Path) -> None:
    write_wide(folder, [row(folder)])
    rewrite(folder, "100_000_000", "120_000_000", "profile.toml")
    with pytest.raises(ProfileError, match="latency_us must be"):
        load_profile(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'unit = "cycles"',
            'unit = "kcycles"',
            r"'counter\.unit' .* be 'cycles' or 'ns'\), but .*toml, line \d+ has 'kcycles'",
        ),
        ("clock_hz = 100_000_000", 'clock_hz = "100 MHz"', r"'device\.clock_hz' must be right .*line \d+ has '100 MHz'"),
        (
            'isa = "ARMv7E-M"',
            'isa = "armv7e-m"',
            r"'device\.isa' .* be 'ARMv6-M', .* or 'x86-64'\), but .*line \d+ has 'armv7e-m'",
        ),
        ('supply = "1.8 V"', "", r"must have the key 'device\.supply'"),
        ("active_mw", "activ_mw", r"must have the key 'power\.active_mw'"),
        ("schema = 1", "schema = 9", r"'schema' must be right \(Input should be 1\), but .* has 9"),
        ("relative_error = 0.1", "relative_error = 0.1\nx = 1", r"has 'validity\.x'; known here are text, relative_error"),
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
        ("count_p05,", "count_low,", "the columns must be .* but they differ in count_low, count_p05"),
        ("count_median,count_p05", "count_p05,count_median", "the columns must be .* but they differ in their order"),
        (
            "count_median,",
            "counts,",
            r"ops\.csv:1: the first line must name one of .*count_median \(schema 1\), but has neither; correct",
        ),
        (",108,64,", ",108,,", "scratch_bytes must be a plain value.*''"),
        (",12345,12345,12345,1,", ",12345,12346,12345,1,", "counts must satisfy 0 <= p05 <= median"),
        ("1,4,8,4", "1,8,4,4", "not above stored_bits"),
        ("1x1,1,4,8", "1x1,0,4,8", "groups must be a plain value in the unit of its name, but found '0'"),
        ("hw_conv2d_w4a4,r1", "hw_conv2d_w4a4,r7", "emulated must name a run recorded in runs.jsonl, but names 'r7'"),
    ],
)
def test_a_faulty_row_of_schema_1_is_refused_naming_the_fault(folder: Path, old: str, new: str, message: str) -> None:
    write_wide(folder, [row(folder)])
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
    with pytest.raises(ProfileError, match=r"Invalid JSON.*runs\.jsonl:2 is not"):
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


SCHEMA_2 = """\
op,in_shape,out_shape,kernel,weight_bits,stored_bits,activation_bits,count,weight_bytes,scratch_bytes,symbol,run
conv2d,8x8x3,8x8x4,3x3,4,8,4,12345,108,64,hw_conv2d_w4a4,1
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("conv2d,8x8x3", "conv3d,8x8x3", r"ops\.csv:2: op must be a plain value.*'conv3d'"),
        (",12345,", ",,", r"ops\.csv:2: op, .*, count must stand in each row, but count is empty; fill it in"),
        (",1\n", "\n", "a row must have 12 cells, but has 11"),
        (",1\n", ",2\n", r"ops\.csv:2: run must be a line of runs\.jsonl, 1 to 1, but found '2'; correct it"),
        (",1\n", ",0\n", "run must be a line of runs"),
        (",1\n", ",\n", "provenance must stand in the row, since it has no run that records it; add it"),
        ("hw_conv2d_w4a4,", "mine,", "code_bytes must stand in the row, since its run r1 does not record it; add it"),
        ("weight_bytes", "weigth_bytes", r"ops\.csv:1: the columns must be among .*, each once, but found weigth_bytes; correct"),
        ("scratch_bytes", "weight_bytes", "each once, but found weight_bytes twice; correct"),
        ("out_shape", "kernel_2", "each once, but found kernel_2"),
        ("activation_bits", "groups", "must all stand in the table, but activation_bits are missing; add them"),
        (
            ",count,",
            ",count3,",
            r"ops\.csv:1: the first line must name one of the columns count \(schema 2\) and .*, but has neither",
        ),
        ("scratch_bytes", "count_median", "the first line must name one of .*, but has both"),
        (",8,4,12345", ",2,4,12345", "not above stored_bits"),
        (",64,", ",-,", "scratch_bytes must be a plain value"),
        ("kernel,weight_bits", "groups,weight_bits", "groups must be a plain value in the unit of its name, but found '3x3'"),
    ],
)
def test_a_faulty_row_of_schema_2_is_refused_naming_the_fault(folder: Path, old: str, new: str, message: str) -> None:
    write_measurements(folder, [row(folder)], RUN)
    (folder / "ops.csv").write_text(SCHEMA_2)
    assert load_profile(folder).measurements[0].key == row(folder).key
    rewrite(folder, old, new)
    with pytest.raises(ProfileError, match=message):
        load_profile(folder)


@pytest.mark.parametrize(
    ("column", "right", "wrong", "rule"),
    [
        ("latency_us", "123.45", "0.12345", "count_median / clock_hz = 123.45"),
        ("energy_uj", "4.938", "4.9", "latency_us .* = 4.938"),
    ],
)
def test_what_a_row_of_schema_2_states_although_it_follows_must_follow(
    folder: Path, column: str, right: str, wrong: str, rule: str
) -> None:
    write_measurements(folder, [row(folder)], RUN)
    for number, text in ((1, right), (2, wrong)):
        (folder / "ops.csv").write_text(SCHEMA_2.replace("run\n", f"run,{column}\n").replace(",1\n", f",1,{text}\n"))
        if number == 1:
            assert load_profile(folder).measurements[0].latency_us == 123.45
    with pytest.raises(ProfileError, match=rf"ops\.csv:2: {column} must be {rule}, but is {wrong}"):
        load_profile(folder)
    derive_again(folder)
    assert load_profile(folder).measurements[0].energy_uj == 4.938 and column not in (folder / "ops.csv").read_text()


def test_a_changed_clock_or_power_touches_no_row(folder: Path) -> None:
    write_measurements(folder, [row(folder, count=12345.0)], RUN)
    before = (folder / "ops.csv").read_bytes()
    rewrite(folder, "100_000_000", "50_000_000", "profile.toml")
    rewrite(folder, "active_mw = 40.0", "active_mw = 10.0", "profile.toml")
    derive_again(folder)
    assert (folder / "ops.csv").read_bytes() == before
    only = load_profile(folder).measurements[0]
    assert (only.latency_us, only.energy_uj) == (246.9, 2.469)


def test_a_row_states_what_differs_from_its_run_and_its_run_what_all_share(folder: Path) -> None:
    rows = [row(folder, "w8a8"), replace(row(folder, "w2a2"), repeats=7, count_p05=12000.0, weight_bytes=112, symbol="other")]
    plain = RUN.model_dump(exclude={"provenance", "repeats", "code_bytes"})
    written = write_measurements(folder, rows, RunRecord.model_validate(plain))
    assert (written.provenance, written.code_bytes) == ("emulated", {"hw_conv2d_w4a4": 900, "other": 900})
    assert written.repeats == 1 and read_runs(folder) == (written,)
    first, narrow, wide = (folder / "ops.csv").read_text().splitlines()
    assert first == (
        "op,in_shape,out_shape,kernel,weight_bits,stored_bits,activation_bits,count,count_p05,repeats,weight_bytes,"
        "scratch_bytes,symbol,run"
    )
    assert narrow == "conv2d,8x8x3,8x8x4,3x3,2,8,2,12345,12000,7,,64,other,1"
    assert wide == "conv2d,8x8x3,8x8x4,3x3,8,,8,12345,,,108,64,hw_conv2d_w4a4,1"
    assert [read.repeats for read in load_profile(folder).measurements] == [7, 1]


def test_measured_energy_is_kept_as_it_is(folder: Path) -> None:
    metered = replace(row(folder), energy_uj=7.5, energy_source="meter")
    write_measurements(folder, [metered], RUN)
    rewrite(folder, "100_000_000", "50_000_000", "profile.toml")
    only = load_profile(folder).measurements[0]
    assert (only.energy_uj, only.energy_source, only.latency_us) == (7.5, "meter", 246.9)
    rewrite(folder, "7.5,", ",")
    with pytest.raises(ProfileError, match=r"ops\.csv:2: energy_uj must stand in the row"):
        load_profile(folder)


def test_a_run_that_is_recorded_again_keeps_its_line(folder: Path) -> None:
    runs = [RUN, RUN.model_copy(update={"run_id": "r2"})]
    write_measurements(folder, [row(folder, "w8a8", run_id="r1")], runs[0])
    write_measurements(folder, [row(folder, "w2a2", run_id="r2")], runs[1])
    write_measurements(folder, [row(folder, "w8a8", run_id="r1")], runs[0].model_copy(update={"machine": "another"}))
    profile = load_profile(folder)
    assert [(run.run_id, run.machine) for run in profile.runs] == [("r1", "another"), ("r2", "emulator")]
    assert [read.run_id for read in profile.measurements] == ["r2", "r1"]


def test_a_row_of_an_unrecorded_run_is_not_written(folder: Path) -> None:
    with pytest.raises(ProfileError, match=r"A row must name a run recorded in runs\.jsonl, but conv2d .* names 'r9'; correct"):
        write_measurements(folder, [row(folder, run_id="r9")], RUN)
    assert not (folder / "ops.csv").exists() and not (folder / "runs.jsonl").exists()


def test_a_table_of_each_schema_reads_the_same() -> None:
    old, new = (load_profile(DATA / f"profile_schema{number}") for number in (1, 2))
    assert old.measurements == new.measurements and len(old.measurements) == 8
    assert wide_text(new.measurements) == (DATA / "profile_schema1" / "ops.csv").read_text()
    assert [run.run_id for run in old.runs] == [run.run_id for run in new.runs]
    assert (old.runs[1].code_bytes, new.runs[1].code_bytes["hw_linear_w4a4"]) == ({}, 2016)
    row = new.measurements[0]
    assert astuple(row)[:4] == ("add", (1, 8, 8), (1, 8, 8), (1, 1)) and (row.latency_us, row.code_bytes) == (6.94166666667, 1440)
    assert row.run_id == "20261121T092426Z-8dde8429" and row.symbol == "hw_add"
    assert {row.provenance for row in new.measurements} == {"emulated"}


def test_an_old_table_comes_out_in_schema_2(tmp_path: Path) -> None:
    for number in (1, 2):
        shutil.copytree(DATA / f"profile_schema{number}", tmp_path / str(number))
    before = load_profile(tmp_path / "1").measurements
    derive_again(tmp_path / "1")
    for file in ("ops.csv", "runs.jsonl"):
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes()
    assert load_profile(tmp_path / "1").measurements == before


def test_rows_merge_into_an_old_table(tmp_path: Path) -> None:
    folder = tmp_path / "board"
    shutil.copytree(DATA / "profile_schema1", folder)
    before = load_profile(folder).measurements
    write_measurements(folder, [row(folder)], RUN)
    after = load_profile(folder)
    assert {read for read in after.measurements if read.run_id != "r1"} == {*before} and len(after.measurements) == 9
    assert "count_median" not in (folder / "ops.csv").read_text() and [run.run_id for run in after.runs][2] == "r1"


def test_the_usual_symbol_is_that_of_the_catalogue(folder: Path) -> None:
    (folder / "ops.csv").write_text(
        "op,in_shape,out_shape,weight_bits,activation_bits,count,provenance\n"
        "linear,16,10,4,8,100,datasheet\nadd,8x8x1,8x8x1,,8,100,datasheet\n"
    )
    symbols = {read.symbol for read in load_profile(folder).measurements}
    assert symbols == {"hw_linear_w4a8", "hw_add"} <= {function.symbol for function in all_kernels()}


EXAMPLE = """\
op,in_shape,out_shape,kernel,stride,groups,weight_bits,stored_bits,activation_bits,count_median,count_p05,count_p95,\
provenance,code_bytes,weight_bytes,scratch_bytes,symbol
conv2d,8x8x1,8x8x16,3x3,1x1,1,8,8,8,41000,37000,45000,datasheet,0,192,0,vendor_conv
"""


def test_a_table_of_schema_1_written_by_hand_may_leave_out_what_follows_from_its_counts(folder: Path) -> None:
    (folder / "ops.csv").write_text(EXAMPLE)
    profile = load_profile(folder)
    only = profile.measurements[0]
    assert only.latency_us == profile.header.latency_us(41000) and only.energy_uj == profile.header.energy_uj(only.latency_us)
    assert (only.energy_source, only.repeats, only.logits, only.run_id) == ("power_x_time", 1, False, "")


def test_the_guide_shows_a_table_that_is_accepted(folder: Path) -> None:
    guide = (Path(__file__).parents[2] / "hardware_profiles" / "README.md").read_text()
    table = next(block.removeprefix("csv") for block in guide.split("```") if block.startswith("csv\nop,in_shape"))
    (folder / "ops.csv").write_text(table.lstrip())
    assert len(load_profile(folder).measurements) >= 3
    assert len(table.lstrip().splitlines()[0].split(",")) <= 12
    conv = load_profile(folder).measurements[0]
    assert (conv.groups, conv.stored_bits, conv.weight_bytes, conv.scratch_bytes, conv.run_id) == (1, 8, 192, 0, "")


def test_five_columns_and_where_it_comes_from_are_a_table(folder: Path) -> None:
    (folder / "ops.csv").write_text("activation_bits,count,op,in_shape,out_shape,provenance\n8,5000,add,8x8x1,8x8x1,published\n")
    only = load_profile(folder).measurements[0]
    assert (only.count_p05, only.count_p95, only.latency_us, only.energy_uj) == (5000.0, 5000.0, 50.0, 2.0)
    assert (only.weight_bits, only.stored_bits, only.weight_bytes, only.code_bytes, only.repeats) == (0, 0, 0, 0, 1)
