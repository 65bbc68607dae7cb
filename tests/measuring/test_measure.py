import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hwsearch.emulation import toolchain
from hwsearch.errors import ProfileError, ToolchainError
from hwsearch.graph.op import OpKind
from hwsearch.graph.precision import Precision
from hwsearch.hardware.header import RunRecord
from hwsearch.hardware.profile import HardwareProfile, load_profile, wide_text
from hwsearch.kernels.layout import packed_weight_bytes, scratch_bytes
from hwsearch.measuring import measure as measuring
from hwsearch.measuring.freshness import source_sha256
from hwsearch.measuring.grid import GRIDS, Work, default_grid
from hwsearch.measuring.measure import measure

SMALL = tuple(
    work
    for work in default_grid()
    if work.op.macs < 40_000 and work.precision in (Precision(4, 4), Precision(0, 4)) and work.stored_bits in (0, 4)
)[:12]


def table_without_runs(profile: HardwareProfile) -> list[object]:
    return [replace(row, run_id="") for row in profile.measurements]


def test_a_measured_table_loads_and_says_how_it_was_made(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    run = measure(
        "nucleo_l4r5zi", grid=SMALL, folder=tmp_path, workers=1, progress=lambda d, total, note="": done.append((d, total))
    )
    profile = load_profile("nucleo_l4r5zi", [tmp_path])
    assert {row.key for row in profile.measurements} == {work.key for work in SMALL}
    assert profile.runs == (run,) and run.rows == len(SMALL) and run.source_sha256 == source_sha256("ARMv7E-M")
    assert run.compiler.startswith("ziglang") and "unicorn" in run.machine and "5 flash wait states" in run.machine
    assert done[-1] == (len(SMALL), len(SMALL)) and [d for d, _ in done] == sorted(d for d, _ in done)
    for row in profile.measurements:
        assert row.provenance == "emulated" and row.repeats == 1 and row.count_p05 == row.count_median > 0
        assert row.code_bytes > 40 and row.run_id == run.run_id


def test_another_clock_and_power_are_applied_to_a_table_without_measuring_again(tmp_path: Path) -> None:
    first = measure("nucleo_l4r5zi", grid=SMALL, folder=tmp_path, workers=1)
    before, path = load_profile("nucleo_l4r5zi", [tmp_path]), tmp_path / "nucleo_l4r5zi" / "profile.toml"
    path.write_text(path.read_text().replace("clock_hz = 120_000_000", "clock_hz = 60_000_000"))
    table = path.with_name("ops.csv").read_bytes()
    run = measure(str(path.parent), grid=SMALL)
    after = load_profile("nucleo_l4r5zi", [tmp_path])
    assert (run.rows, run.kept) == (0, len(SMALL)) and after.runs == (first,)
    assert path.with_name("ops.csv").read_bytes() == table
    for old, new in zip(before.measurements, after.measurements, strict=True):
        assert new.count_median == old.count_median and new.latency_us == pytest.approx(2 * old.latency_us, rel=1e-9)
        assert new.energy_uj == pytest.approx(2 * old.energy_uj, rel=1e-9)


def test_another_clock_and_power_are_applied_to_a_table_of_schema_1_too(tmp_path: Path) -> None:
    first = measure("nucleo_l4r5zi", grid=SMALL, folder=tmp_path, workers=1)
    before, path = load_profile("nucleo_l4r5zi", [tmp_path]), tmp_path / "nucleo_l4r5zi" / "profile.toml"
    table = path.with_name("ops.csv").read_bytes()
    path.with_name("ops.csv").write_text(wide_text(before.measurements))
    path.write_text(path.read_text().replace("clock_hz = 120_000_000", "clock_hz = 60_000_000"))
    with pytest.raises(
        ProfileError, match=r"ops\.csv:2: latency_us must be .*; if .*, `hwsearch measure .*nucleo_l4r5zi` derives"
    ):
        load_profile("nucleo_l4r5zi", [tmp_path])
    run = measure(str(path.parent), grid=SMALL)
    after = load_profile("nucleo_l4r5zi", [tmp_path])
    assert (run.rows, run.kept) == (0, len(SMALL)) and after.runs == (first,)
    assert path.with_name("ops.csv").read_bytes() == table
    for old, new in zip(before.measurements, after.measurements, strict=True):
        assert new.latency_us == pytest.approx(2 * old.latency_us, rel=1e-9)


def test_an_old_table_is_kept_and_comes_out_in_schema_2(tmp_path: Path) -> None:
    first = measure("nucleo_l4r5zi", grid=SMALL[:4], folder=tmp_path, workers=1)
    before, folder = load_profile("nucleo_l4r5zi", [tmp_path]), tmp_path / "nucleo_l4r5zi"
    (folder / "ops.csv").write_text(wide_text(before.measurements))
    old = first.model_dump_json(exclude={"provenance", "repeats", "code_bytes"})
    (folder / "runs.jsonl").write_text(old + "\n")
    second = measure("nucleo_l4r5zi", grid=SMALL[:6], folder=tmp_path, workers=1)
    after = load_profile("nucleo_l4r5zi", [tmp_path])
    assert (second.rows, second.kept) == (2, 4) and after.runs == (first, second)
    assert {row for row in after.measurements if row.run_id == first.run_id} == {*before.measurements}
    assert (folder / "ops.csv").read_text().splitlines()[0].endswith("count,scratch_bytes,run")


def test_weights_of_a_row_are_packed_at_their_stored_width(tmp_path: Path) -> None:
    op = next(work.op for work in default_grid() if work.op.kind is OpKind.LINEAR)
    works = [Work(op=op, precision=Precision(2, 8), stored_bits=bits) for bits in (2, 4, 8)]
    measure("nucleo_l4r5zi", grid=works, folder=tmp_path, workers=1)
    rows = load_profile("nucleo_l4r5zi", [tmp_path]).measurements
    assert [row.weight_bytes for row in rows] == [packed_weight_bytes(op, bits) for bits in (2, 4, 8)]


@pytest.mark.slow
def test_the_table_does_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    for workers in (1, 2):
        measure("nucleo_l4r5zi", grid=SMALL, folder=tmp_path / str(workers), workers=workers)
    one, two = (load_profile("nucleo_l4r5zi", [tmp_path / str(workers)]) for workers in (1, 2))
    assert table_without_runs(one) == table_without_runs(two)


def forget_code(folder: Path, *symbols: str) -> None:
    """Make the recorded runs look as if other sources had given other code for these kernels."""
    path = folder / "nucleo_l4r5zi" / "runs.jsonl"
    runs = [RunRecord.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
    changed = [
        run.model_copy(update={"source_sha256": "0" * 64, "kernels": {**run.kernels, **dict.fromkeys(symbols, "0" * 64)}})
        for run in runs
    ]
    path.write_text("".join(run.model_dump_json() + "\n" for run in changed), encoding="utf-8")


def test_measuring_again_measures_nothing_that_still_holds(tmp_path: Path) -> None:
    first = measure("nucleo_l4r5zi", grid=SMALL, folder=tmp_path, workers=1)
    table = (tmp_path / "nucleo_l4r5zi" / "ops.csv").read_bytes()
    second = measure("nucleo_l4r5zi", grid=SMALL, folder=tmp_path, workers=1)
    assert (first.rows, first.kept) == (len(SMALL), 0) and (second.rows, second.kept) == (0, len(SMALL))
    assert (tmp_path / "nucleo_l4r5zi" / "ops.csv").read_bytes() == table
    assert measure("nucleo_l4r5zi", grid=SMALL[:2], folder=tmp_path, workers=1, again=True).rows == 2


def test_only_kernels_whose_code_changed_are_measured_again(tmp_path: Path) -> None:
    first = measure("nucleo_l4r5zi", grid=SMALL, folder=tmp_path, workers=1)
    changed = sorted(first.kernels)[0]
    forget_code(tmp_path, changed)
    second = measure("nucleo_l4r5zi", grid=SMALL, folder=tmp_path, workers=1)
    rows = load_profile("nucleo_l4r5zi", [tmp_path]).measurements
    assert 0 < second.rows < len(SMALL) and second.kept == len(SMALL) - second.rows
    assert {row.symbol for row in rows if row.run_id == second.run_id} == {changed} == set(second.kernels)
    assert {row.key for row in rows} == {work.key for work in SMALL}


def test_rows_that_are_kept_take_the_scratch_memory_of_today(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure("nucleo_l4r5zi", grid=SMALL, folder=tmp_path, workers=1)
    before = load_profile("nucleo_l4r5zi", [tmp_path])
    forget_code(tmp_path)  # other sources, the same code
    monkeypatch.setattr(measuring, "scratch_bytes", lambda op, precision, isa: scratch_bytes(op, precision, isa) + 8)
    run = measure("nucleo_l4r5zi", grid=SMALL, folder=tmp_path, workers=1)
    after = load_profile("nucleo_l4r5zi", [tmp_path])
    assert (run.rows, run.kept) == (0, len(SMALL))
    assert [row.scratch_bytes - 8 for row in after.measurements] == [row.scratch_bytes for row in before.measurements]


def test_rows_of_other_code_are_dropped(tmp_path: Path) -> None:
    first = measure("nucleo_l4r5zi", grid=SMALL[:2], folder=tmp_path, workers=1)
    forget_code(tmp_path, *first.kernels)
    measure("nucleo_l4r5zi", grid=SMALL[1:3], folder=tmp_path, workers=1)
    profile = load_profile("nucleo_l4r5zi", [tmp_path])
    assert {row.key for row in profile.measurements} == {work.key for work in SMALL[1:3]}
    assert len(profile.runs) == 2


def test_another_flash_makes_every_emulated_row_stale(tmp_path: Path) -> None:
    measure("nucleo_l4r5zi", grid=SMALL[:2], folder=tmp_path, workers=1)
    path = tmp_path / "nucleo_l4r5zi" / "profile.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("flash_wait_states = 5", "flash_wait_states = 4"), encoding="utf-8")
    run = measure("nucleo_l4r5zi", grid=SMALL[1:3], folder=tmp_path, workers=1)
    assert (run.rows, run.kept) == (2, 0)
    assert {row.key for row in load_profile("nucleo_l4r5zi", [tmp_path]).measurements} == {work.key for work in SMALL[1:3]}


def test_a_profile_names_the_grid_that_is_measured() -> None:
    thin, full = ({work.key for work in GRIDS[name]()} for name in ("thin", "full"))
    assert thin < full and 0.4 * len(full) < len(thin) < 0.8 * len(full)
    exact = {key for key in full if key.op is OpKind.ARGMAX}
    assert exact <= thin


def test_sources_that_change_meanwhile_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = iter(["0" * 64, "1" * 64])
    monkeypatch.setattr(measuring, "source_sha256", lambda isa: next(hashes))
    with pytest.raises(ToolchainError, match="must stay as they are while they are measured"):
        measure("nucleo_l4r5zi", grid=SMALL[:1], folder=tmp_path, workers=1)
    assert not list(tmp_path.rglob("ops.csv"))


def test_rows_of_the_same_sources_are_kept(tmp_path: Path) -> None:
    measure("nucleo_l4r5zi", grid=SMALL[:2], folder=tmp_path, workers=1)
    measure("nucleo_l4r5zi", grid=SMALL[2:3], folder=tmp_path, workers=1)
    assert {row.key for row in load_profile("nucleo_l4r5zi", [tmp_path]).measurements} == {work.key for work in SMALL[:3]}


@pytest.mark.skipif(sys.platform != "linux", reason="host tables need libraries in ELF format")
def test_this_computer_is_measured_by_its_clock(tmp_path: Path) -> None:
    measure("host_x86_64", grid=SMALL[:3], folder=tmp_path)
    for row in load_profile("host_x86_64", [tmp_path]).measurements:
        assert row.provenance == "measured" and row.repeats >= 5
        assert 0 < row.count_p05 <= row.count_median <= row.count_p95
        assert row.latency_us == pytest.approx(row.count_median / 1e3)


def test_a_target_that_counts_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="must count cycles, but the target host counts ns"):
        measure("nucleo_l4r5zi", target="host", grid=SMALL[:1], folder=tmp_path, workers=1)


def test_an_unknown_device_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"known are .*nucleo_l4r5zi"):
        measure("nucleo_l4r5z", grid=SMALL[:1], folder=tmp_path, workers=1)


def test_without_a_compiler_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_command", lambda name: ())
    with pytest.raises(ToolchainError, match="needs one of these compilers: ziglang, but none was found"):
        measure("nucleo_l4r5zi", grid=SMALL[:1], folder=tmp_path, workers=1)
    assert not list(tmp_path.rglob("ops.csv"))
