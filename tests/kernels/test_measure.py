import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hwsearch.errors import ProfileError, ToolchainError
from hwsearch.graph.op import OpKind
from hwsearch.graph.precision import Precision
from hwsearch.hardware.layout import packed_weight_bytes
from hwsearch.hardware.profile import HardwareProfile, load_profile
from hwsearch.kernels import measure as measuring
from hwsearch.kernels.grid import Work, default_grid
from hwsearch.kernels.measure import measure, source_sha256

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
    assert profile.runs == (run,) and run.rows == len(SMALL) and run.source_sha256 == source_sha256()
    assert run.compiler.startswith("ziglang") and "unicorn" in run.machine and "5 flash wait states" in run.machine
    assert done[-1] == (len(SMALL), len(SMALL)) and [d for d, _ in done] == sorted(d for d, _ in done)
    for row in profile.measurements:
        assert row.provenance == "emulated" and row.repeats == 1 and row.count_p05 == row.count_median > 0
        assert row.code_bytes > 40 and row.run_id == run.run_id


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


def test_rows_of_other_kernel_sources_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure("nucleo_l4r5zi", grid=SMALL[:2], folder=tmp_path, workers=1)
    monkeypatch.setattr(measuring, "source_sha256", lambda: "0" * 64)
    measure("nucleo_l4r5zi", grid=SMALL[1:3], folder=tmp_path, workers=1)
    profile = load_profile("nucleo_l4r5zi", [tmp_path])
    assert {row.key for row in profile.measurements} == {work.key for work in SMALL[1:3]}
    assert len(profile.runs) == 2


def test_sources_that_change_meanwhile_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = iter(["0" * 64, "1" * 64])
    monkeypatch.setattr(measuring, "source_sha256", lambda: next(hashes))
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
    def nothing(name: str, memory: object, prefer: str | None = None) -> None:
        raise ToolchainError("none")

    monkeypatch.setattr(measuring, "find_target", nothing)
    with pytest.raises(ToolchainError):
        measure("nucleo_l4r5zi", grid=SMALL[:1], folder=tmp_path, workers=1)
    assert not list(tmp_path.rglob("ops.csv"))
