"""Each core: its record opens, builds, runs and prices; shipped profiles name known cores, whose flags are as recorded."""

from pathlib import Path

import pytest

from hwsearch.emulation.build_target import HOST, LINUX_TARGETS, ZIG
from hwsearch.emulation.cores.cortex_m4 import CORTEX_M4
from hwsearch.emulation.emulator import EmulatedCore
from hwsearch.emulation.flash import NO_WAIT
from hwsearch.emulation.known_cores import CORES, find_core
from hwsearch.emulation.processor_core import Core
from hwsearch.emulation.toolchain import build_elf, find_compiler
from hwsearch.errors import ProfileError
from hwsearch.hardware.header import RunRecord, read_header, read_runs

PROFILES = Path(__file__).resolve().parents[2] / "hardware_profiles"
EMULATED = sorted(
    folder.parent
    for folder in PROFILES.glob("*/profile.toml")
    if (header := read_header(folder.parent)).counter.unit == "cycles" and not header.library.published
)
CODE = """
int sum(const int *values, int count);
int sum(const int *values, int count) { int total = 0; for (int i = 0; i < count; ++i) total += values[i] * i; return total; }
"""


@pytest.fixture(scope="module", params=CORES.values(), ids=list(CORES))
def core(request: pytest.FixtureRequest) -> Core:
    found: Core = request.param
    return found


def test_a_core_builds_runs_and_prices_a_program(core: Core, tmp_path: Path) -> None:
    (tmp_path / "sum.c").write_text(CODE)
    compiler = find_compiler(core.build_target, ZIG)
    emulated = EmulatedCore(
        build_elf([tmp_path / "sum.c"], out=tmp_path / "sum.elf", compiler=compiler, keep=["sum"]), core=core, flash=NO_WAIT
    )
    cycles = []
    for count in (40, 80):
        values = emulated.place(b"".join(value.to_bytes(4, "little") for value in range(count)))
        assert emulated.call("sum", values, count) == sum(value * value for value in range(count))
        cycles.append(emulated.cycles)
        assert 0 < emulated.last.instructions < 3 * cycles[-1], "no core starts more than three instructions per cycle"
    assert cycles[0] < cycles[1]


def test_a_core_says_where_its_numbers_are_from_and_how_far_they_hold(core: Core) -> None:
    assert core.architecture.open(core.emulator_model) is not None
    assert all(len(text) > 20 for text in (core.costs, core.sources, core.validity))
    assert core.description.startswith(f"{core.name}, ")


def test_an_unknown_core_is_refused() -> None:
    with pytest.raises(ProfileError, match=r"must be one of Cortex-M4, .*, but found 'Cortex-M55'"):
        find_core("Cortex-M55")


def test_every_core_of_a_shipped_profile_that_counts_cycles_is_known() -> None:
    assert len(EMULATED) >= 9
    for folder in PROFILES.glob("*/profile.toml"):
        header = read_header(folder.parent)
        assert header.counter.unit != "cycles" or header.device.core in CORES, folder


def last_run(folder: Path) -> RunRecord:
    return read_runs(folder)[-1]


@pytest.mark.parametrize("folder", EMULATED, ids=lambda folder: folder.name)
def test_a_core_is_built_for_with_the_flags_that_its_tables_record(folder: Path) -> None:
    core, run = find_core(read_header(folder).device.core), last_run(folder)
    assert find_compiler(core.build_target, ZIG).recorded_flags == run.flags
    assert f"; {core.description}; " in run.machine


BARE = "-ffunction-sections -fdata-sections -falign-functions=32 -falign-loops=4 -ffreestanding -fomit-frame-pointer"


def test_flags_of_targets_without_a_table_stay_as_they_are() -> None:
    gcc = " ".join(flag for flag in CORTEX_M4.build_target.gcc if not flag.startswith("-isystem"))
    assert gcc == (
        "-std=c99 -O3 -Wall -Wextra -Werror -mcpu=cortex-m4 -mthumb -mfloat-abi=soft -fno-tree-loop-distribute-patterns " + BARE
    )
    assert " ".join(HOST.gcc) == "-std=c99 -O3 -Wall -Wextra -Werror -fPIC"
    assert " ".join(LINUX_TARGETS["linux-aarch64"].zig) == (
        "-target aarch64-linux-gnu.2.28 -std=c99 -O3 -Wall -Wextra -Werror -fPIC -fno-sanitize=undefined"
    )
