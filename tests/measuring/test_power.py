"""Energy from counters and meters, by files that imitate them."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsearch.errors import ProfileError
from hwsearch.graph.precision import Precision
from hwsearch.hardware.profile import POWER_X_TIME, HardwareProfile, load_profile
from hwsearch.measuring import power as metering
from hwsearch.measuring.grid import default_grid
from hwsearch.measuring.measure import measure
from hwsearch.measuring.power import EnergyTrace, MeterFile, RaplMeter, find_meter, read_meter, trace_of_counters, with_energy

SMALL = tuple(
    work for work in default_grid() if work.op.macs < 20_000 and work.precision in (Precision(8, 8), Precision(0, 8))
    and work.stored_bits in (0, 8)
)[:4]  # fmt: skip


def meter_file(folder: Path, lines: list[str], header: str = "time_s,power_w") -> Path:
    path = folder / "meter.csv"
    path.write_text("".join(line + "\n" for line in [header, *lines]), encoding="utf-8")
    return path


def test_power_is_integrated_between_samples() -> None:
    """2 W for 2 s, then rising to 4 W within 1 s: 4 J and 3 J."""
    trace = EnergyTrace.of_power(np.array([0.0, 1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0, 4.0]), "meter")
    assert trace.joules == pytest.approx([0, 2, 4, 7])
    assert trace.mean_mw((0.0, 2.0)) == pytest.approx(2000)
    assert trace.mean_mw((0.0, 3.0)) == pytest.approx(7000 / 3)
    assert trace.mean_mw((0.5, 3.0)) == pytest.approx(1e3 * 6 / 2.5)


def test_a_stretch_with_few_samples_or_outside_has_no_power() -> None:
    trace = EnergyTrace.of_power(np.arange(10.0), np.full(10, 3.0), "meter")
    assert trace.mean_mw((2.1, 4.9)) is None, "two samples"
    assert trace.mean_mw((1.9, 4.1)) == pytest.approx(3000)
    assert trace.mean_mw((-0.5, 4.0)) is None
    assert trace.mean_mw((5.0, 9.5)) is None


@given(watts=st.lists(st.floats(0.1, 100), min_size=4, max_size=30), begin=st.floats(0.0, 0.3), end=st.floats(0.7, 1.0))
def test_mean_power_lies_between_the_samples(watts: list[float], begin: float, end: float) -> None:
    times = np.linspace(0, 1, len(watts))
    mean = EnergyTrace.of_power(times, np.array(watts), "meter").mean_mw((begin, end))
    if mean is not None:
        assert min(watts) * 999.999 <= mean <= max(watts) * 1000.001


# --- meter files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("header", "values"), [("time_s,power_w", "2.5"), ("power_mw,time_s", "2500")])
def test_a_meter_may_write_watts_or_milliwatts_in_any_order(tmp_path: Path, header: str, values: str) -> None:
    first = header.startswith("time")
    path = meter_file(tmp_path, [f"{t},{values}" if first else f"{values},{t}" for t in range(5)], header)
    trace = read_meter(path)
    assert trace.mean_mw((0.0, 4.0)) == pytest.approx(2500)
    assert trace.source == "meter"


def test_a_line_still_being_written_is_left_out(tmp_path: Path) -> None:
    path = meter_file(tmp_path, ["0,1", "1,1", "2,1", "3,1"])
    path.write_text(path.read_text() + "4,9999")
    assert read_meter(path).times_s[-1] == 3


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["0,1", "1,x", "2,1"], r"meter\.csv:3: time_s and power_w must be numbers"),
        (["0,1", "1", "2,1"], r"meter\.csv:3: time_s and power_w must be numbers"),
        (["0,1", "2,1", "1,1"], r"meter\.csv:4: times must increase"),
        (["0,1", "1,-3", "2,1"], r"meter\.csv:3: power must be 0 or more"),
        (["0,1", "1,nan", "2,1"], r"meter\.csv:3: power must be 0 or more"),
        (["0,1"], "at least 3 samples, but has 1"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(tmp_path: Path, lines: list[str], told: str) -> None:
    with pytest.raises(ProfileError, match=told):
        read_meter(meter_file(tmp_path, lines))


@pytest.mark.parametrize("header", ["time,power_w", "time_s,power", "time_s,power_w,power_mw", ""])
def test_columns_are_checked_before_anything_is_measured(tmp_path: Path, header: str) -> None:
    with pytest.raises(ProfileError, match=r"must have the columns time_s and one of power_w, power_mw"):
        MeterFile(path=meter_file(tmp_path, [], header)).start()
    with pytest.raises(ProfileError, match="start the meter first"):
        MeterFile(path=tmp_path / "none.csv").start()


def test_an_emulator_has_no_power_to_meter(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="target emulator runs on none"):
        measure("nucleo_l4r5zi", grid=SMALL, folder=tmp_path, meter=meter_file(tmp_path, []))
    assert not (tmp_path / "nucleo_l4r5zi").exists()


# --- RAPL -------------------------------------------------------------------------------------------------------------


def powercap(folder: Path, names: tuple[str, ...] = ("package-0",), energy: int = 5_000_000, range_uj: int = 10_000_000) -> Path:
    for index, name in enumerate(names):
        domain = folder / f"intel-rapl:{index}"
        domain.mkdir()
        (domain / "name").write_text(name + "\n")
        (domain / "energy_uj").write_text(f"{energy}\n")
        (domain / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return folder


def test_a_counter_that_starts_again_loses_nothing() -> None:
    """10 J range: 9 J, then 1 J is 2 J later; two packages add up."""
    samples = [(0.0, (9_000_000, 0)), (1.0, (1_000_000, 500_000)), (2.0, (3_000_000, 1_000_000))]
    trace = trace_of_counters(samples, [10_000_000, 10_000_000])
    assert trace.joules == pytest.approx([0, 2.5, 5.0])
    assert trace.mean_mw((0.0, 2.0)) == pytest.approx(2500)


def test_only_packages_with_readable_counters_count(tmp_path: Path) -> None:
    assert RaplMeter.found(tmp_path) is None
    assert RaplMeter.found(tmp_path / "absent") is None
    folder = powercap(tmp_path, ("core", "package-0", "dram"))
    assert RaplMeter.found(folder) is not None
    (folder / "intel-rapl:1" / "energy_uj").unlink()
    assert RaplMeter.found(folder) is None


def test_rapl_is_sampled_while_it_runs(tmp_path: Path) -> None:
    """A thread plays a package of 20 W."""
    folder = powercap(tmp_path, energy=0, range_uj=1 << 40)
    counter, ended = folder / "intel-rapl:0" / "energy_uj", threading.Event()
    began = time.time()

    def play() -> None:
        while not ended.wait(0.002):
            fresh = counter.with_suffix(".new")
            fresh.write_text(str(int(20e6 * (time.time() - began))))
            fresh.replace(counter)

    player = threading.Thread(target=play)
    player.start()
    meter = RaplMeter([folder / "intel-rapl:0"], period_s=0.01)
    time.sleep(0.05)
    meter.start()
    begun = time.time()
    time.sleep(0.4)
    span = (begun, time.time())
    trace = meter.stop()
    ended.set()
    player.join()
    mean = trace.mean_mw(span)
    assert mean is not None
    assert mean == pytest.approx(20_000, rel=0.3)


def test_the_emulator_is_not_metered_and_a_host_without_counters_neither(tmp_path: Path) -> None:
    assert find_meter(None, on_this_computer=False, powercap=powercap(tmp_path)) is None
    assert find_meter(None, on_this_computer=True, powercap=tmp_path / "absent") is None
    assert isinstance(find_meter(None, on_this_computer=True, powercap=tmp_path), RaplMeter)
    assert isinstance(find_meter(tmp_path / "m.csv", on_this_computer=True, powercap=tmp_path), MeterFile)


# --- rows -------------------------------------------------------------------------------------------------------------


def test_rows_take_their_own_power_where_there_are_samples_and_the_mean_elsewhere(
    shipped: Callable[[str], HardwareProfile],
) -> None:
    rows = shipped("nucleo_l4r5zi.x_cube_ai").measurements[:2]
    times = np.linspace(100, 110, 101)
    trace = EnergyTrace.of_power(times, np.where(times < 105, 2.0, 6.0), "meter")
    long, short = with_energy(rows, [(100.0, 104.0), (109.91, 109.95)], trace)
    assert (long.energy_source, short.energy_source) == ("meter", "meter_mean")
    assert long.energy_uj == pytest.approx(long.latency_us * 2.0)
    whole = trace.mean_mw((100.0, 109.95))
    assert whole is not None
    assert short.energy_uj == pytest.approx(short.latency_us * whole / 1e3)
    assert (long.latency_us, long.count_median) == (rows[0].latency_us, rows[0].count_median)


def test_a_meter_that_did_not_watch_is_refused(shipped: Callable[[str], HardwareProfile]) -> None:
    rows = shipped("nucleo_l4r5zi.x_cube_ai").measurements[:1]
    trace = EnergyTrace.of_power(np.arange(5.0), np.ones(5), "meter")
    with pytest.raises(ProfileError, match=r"from 7.000 to 8.000 s .* lie from 0.000 to 4.000 s"):
        with_energy(rows, [(7.0, 8.0)], trace)


def test_a_measured_table_holds_the_energy_of_the_meter(tmp_path: Path) -> None:
    """A meter that says 3 W from before to long after the run."""
    now = time.time()
    path = meter_file(tmp_path, [f"{now - 1 + 0.002 * step:.3f},3.0" for step in range(30_000)])
    measure("host_x86_64", grid=SMALL, folder=tmp_path, meter=path)
    profile = load_profile("host_x86_64", [tmp_path])
    assert profile.runs[-1].machine.endswith("; energy: meter")
    for row in profile.measurements:
        assert row.energy_source in ("meter", "meter_mean")
        assert row.energy_uj == pytest.approx(3.0 * row.latency_us)


def test_a_run_too_short_for_the_counters_keeps_power_times_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = RaplMeter([powercap(tmp_path) / "intel-rapl:0"], period_s=60.0)
    monkeypatch.setattr(metering.RaplMeter, "found", classmethod(lambda cls, folder: slow))
    measure("host_x86_64", grid=SMALL[:2], folder=tmp_path)
    profile = load_profile("host_x86_64", [tmp_path])
    assert {row.energy_source for row in profile.measurements} == {POWER_X_TIME}


def test_without_a_meter_energy_is_power_times_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering.RaplMeter, "found", classmethod(lambda cls, folder: None))
    measure("host_x86_64", grid=SMALL[:2], folder=tmp_path)
    profile = load_profile("host_x86_64", [tmp_path])
    assert {row.energy_source for row in profile.measurements} == {POWER_X_TIME}
    assert "energy:" not in profile.runs[-1].machine
