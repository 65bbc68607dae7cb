"""What is in a package and what its functions do; that its arithmetic is exact is tested by verifying whole bundles."""

import ctypes
import dataclasses
import platform
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from hwsearch.emulation.build_target import HOST
from hwsearch.emulation.isa import Isa
from hwsearch.emulation.toolchain import build_shared, find_compiler
from hwsearch.exporters.c_data import input_step_text
from hwsearch.exporters.c_package import PackageNotes, package_includes, package_sources, write_c_package
from hwsearch.exporters.compiled import EmulatedPackage
from hwsearch.exporters.program import plan_program
from hwsearch.hardware.cost import Cost
from hwsearch.hardware.header import read_header
from hwsearch.hardware.profile import load_profile
from hwsearch.integers.execute import run_entry, run_model
from hwsearch.kernels.bodies.known import BODIES, bodies_for
from hwsearch.kernels.layout import memory_plan
from hwsearch.measuring.measure import measure
from hwsearch.pricing.cost_model import CostModel

SHIPPED = Path(__file__).parents[2] / "hardware_profiles"


HERE = {"x86_64": Isa.X86_64, "aarch64": Isa.ARMV8_A}.get(platform.machine(), Isa.ARMV7_M)
"""The instruction set whose bodies this computer runs; one without any if it has none."""
OWN = [Isa.ARMV7_M, *(body.isas[0] for body in BODIES.values() if body.isas)]
"""An instruction set without bodies of its own, and one of each folder."""


def _notes(model, isa):
    paths = tuple(
        Cost(latency_us=100.0003 * (index + 1), energy_uj=1.0, flash_bytes=1, ram_bytes=1) for index in range(len(model.entries))
    )
    return PackageNotes(task="random images", device="a test", isa=isa, built_with="cc -O3", paths=paths, mean_limit_us=150.7)


def _write(model, codes, folder, isa=HERE):
    folder.mkdir(exist_ok=True)
    write_c_package(model, folder, _notes(model, isa), inputs=codes, answers=run_model(model, codes))
    return folder


@pytest.fixture(scope="module")
def cascade(make_model, make_codes, tmp_path_factory):
    """A cascade's model, images and loaded library."""
    model, codes = make_model("cascade"), make_codes(20, 4)
    root = tmp_path_factory.mktemp("cascade")
    folder = _write(model, codes, root / "c")
    out = root / "model.so"
    build_shared(package_sources(folder), out=out, compiler=find_compiler(HOST), includes=package_includes(folder))
    return model, codes, ctypes.CDLL(str(out))


def _run(library, image, lowest, highest):
    logits = np.zeros(5, np.int32)
    image = np.ascontiguousarray(image)
    arguments = ctypes.c_void_p(image.ctypes.data), ctypes.c_void_p(logits.ctypes.data)
    return library.hw_model_run_between(*arguments, lowest, highest), logits


@pytest.mark.slow
@pytest.mark.parametrize("board", ["nucleo_u575zi_q", "nucleo_h7a3zi_q", "nucleo_g0b1re", "esp32_c3", "raspberry_pi_4b"])
def test_a_package_answers_alike_on_every_emulated_core(board, make_model, make_codes, tmp_path):
    model, codes = make_model("cascade"), make_codes(4, 4)
    header = read_header(Path(__file__).parents[2] / "hardware_profiles" / board)
    package = EmulatedPackage(_write(model, codes, tmp_path / "c", header.device.isa), model.network, header)
    found, expected = package.run(codes), run_model(model, codes)
    assert package.core == header.device.core and package.is_priced_core
    assert (found.logits == expected.logits).all() and (found.entries == expected.entries).all()


@pytest.mark.slow
@pytest.mark.parametrize("board", ["nucleo_g0b1re", "esp32_c3"])
def test_flash_is_exact_where_kernels_share_the_compilers_functions(board, make_model, make_works, make_codes, tmp_path):
    """Cores without division or wide products call for them; each is linked, and priced, once."""
    model = make_model("static", widths=(4, 8))
    shutil.copytree(SHIPPED / board, tmp_path / board, ignore=shutil.ignore_patterns("ops.csv", "runs.jsonl"))
    measure(str(tmp_path / board), grid=make_works(model), workers=1)
    profile = load_profile(tmp_path / board)
    folder = _write(model, make_codes(4, 4), tmp_path / "c", profile.device.isa)
    package = EmulatedPackage(folder, model.network, profile.header)
    (price,) = CostModel(model.network, profile).paths(model.menu)
    assert package.size().flash_bytes == price.flash_bytes
    assert package.size().ram_bytes + int(np.prod(model.network.input_shape)) == price.ram_bytes
    if board == "nucleo_g0b1re":
        shared = [name for parts in profile.runs[-1].builtins.values() for name in parts]
        assert len(shared) > len(set(shared))


@pytest.mark.slow
@pytest.mark.parametrize("widths", [(1, 3), (1, 2, 3, 4, 8)])
def test_odd_widths_answer_alike_on_this_computer_and_on_a_board(widths, make_model, make_codes, tmp_path):
    model, codes = make_model("cascade", widths=widths, seed=1), make_codes(6, 1)
    header = read_header(Path(__file__).parents[2] / "hardware_profiles" / "nucleo_l4r5zi")
    own, board = _write(model, codes, tmp_path / "own"), _write(model, codes, tmp_path / "board", header.device.isa)
    assert {one.weight_bits for entry in model.menu.entries for one in entry.assignment.values()} & {1, 3}
    assert _self_test(own, tmp_path) == _self_test(board, tmp_path) == 0  # the latter by portable bodies
    found, expected = EmulatedPackage(board, model.network, header).run(codes), run_model(model, codes)
    assert (found.logits == expected.logits).all() and (found.entries == expected.entries).all()


@pytest.mark.parametrize("entry", range(3))
def test_every_entry_can_be_forced(entry, cascade):
    model, codes, library = cascade
    expected = run_entry(model, entry, codes)[""]
    for index, image in enumerate(codes):
        found, logits = _run(library, image, entry, entry)
        assert found == entry and (logits == expected[index]).all()


def test_a_limit_ends_the_escalation_there(cascade):
    model, codes, library = cascade
    free = run_model(model, codes).entries
    limited = [_run(library, image, 0, 1)[0] for image in codes]
    assert limited == np.minimum(free, 1).tolist() and 2 in free


def test_a_governed_run_stays_within_what_was_earned(cascade):
    model, codes, library = cascade
    costs = (ctypes.c_uint64 * 3).in_dll(library, "hw_model_cost_ns")
    assert list(costs) == [100001, 200001, 300001]  # rounded up
    governor = (ctypes.c_uint64 * 5)()  # at least as large as hw_governor
    rate = 150_700
    library.hw_governor_init.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, *[ctypes.c_uint64] * 3]
    assert library.hw_governor_init(governor, costs, 3, rate, 300_001, 0) == 0
    logits, spent, entries = np.zeros(5, np.int32), 0, []
    hard = codes[run_model(model, codes).entries == 2][0]
    for count in range(1, 30):
        entry = library.hw_model_run_governed(governor, ctypes.c_void_p(hard.ctypes.data), ctypes.c_void_p(logits.ctypes.data))
        entries.append(entry)
        spent += costs[entry]
        assert spent <= count * rate
    assert set(entries) >= {0, 1}  # an input that asks for the last entry every time is held to what it can pay


def test_the_self_test_passes_and_notices_a_changed_bias(make_model, make_codes, tmp_path):
    model, codes = make_model("exit"), make_codes(20, 4)
    folder = _write(model, codes, tmp_path / "c")
    assert _self_test(folder, tmp_path) == 0
    data = folder / "hw_model_data.c"
    changed = re.sub(r"(bias of logits \*/\n[^{]*\{\s*)(-?\d+)", r"\g<1>1234567", data.read_text(), count=1)
    assert changed != data.read_text()
    data.write_text(changed)
    assert _self_test(folder, tmp_path) > 0


def _self_test(folder, scratch):
    compiler = find_compiler(HOST)
    sources = [*package_sources(folder), folder / "hw_selftest.c"]
    program = scratch / "selftest"
    command = [*compiler.command, *compiler.flags, f"-I{folder}", *map(str, sources), "-o", str(program)]
    subprocess.run(command, check=True)
    return subprocess.run([str(program)], check=False).returncode


@pytest.mark.skipif(not shutil.which("cmake"), reason="cmake is not installed")
def test_the_cmake_project_builds_and_passes_its_test(make_model, make_codes, tmp_path):
    folder = _write(make_model("exit"), make_codes(20, 4), tmp_path / "c")
    for command in (["cmake", "-S", folder, "-B", tmp_path / "b"], ["cmake", "--build", tmp_path / "b"]):
        subprocess.run([str(word) for word in command], check=True, capture_output=True)
    subprocess.run(["ctest", "--test-dir", str(tmp_path / "b")], check=True, capture_output=True)


@pytest.mark.parametrize("isa", OWN)
def test_c_has_no_decimal_floats_and_no_libc_but_string(isa, make_model, make_codes, tmp_path):
    folder = _write(make_model("gate"), make_codes(20, 4), tmp_path / "c", isa)
    for path in folder.rglob("*.[ch]"):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        assert not re.search(r"\b\d+\.\d+(?!\d*p)", re.sub(r"0x[\da-f.]+p[+-]?\d+f", "", text)), path
        assert not re.search(r"\b(float|double|malloc|printf)\b", text), path
        own = {"x86": {"cpuid.h", "immintrin.h"}, "neon": {"arm_neon.h"}}.get(
            path.parent.name, set()
        )  # instructions of a compiler
        assert set(re.findall(r"#include <(.*)>", text)) <= {"stdint.h", "string.h"} | own, path


@pytest.mark.parametrize("isa", OWN)
def test_a_package_has_the_bodies_of_its_own_core_and_the_portable_ones_alone(isa, make_model, make_codes, tmp_path):
    folder = _write(make_model("cascade"), make_codes(20, 4), tmp_path / "c", isa)
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"kernels", *(body.folder for body in bodies_for(isa))}
    included = {name for unit in (folder / "kernels").iterdir() for name in re.findall(r'#include "(.*)"', unit.read_text())}
    sources = {path.relative_to(folder) for path in folder.glob("*/hw_*.c") if path.parent.name != "kernels"}
    assert included == {path.as_posix() for path in sources}


def test_a_package_for_one_core_has_memory_for_its_bodies_and_runs_portable_ones_elsewhere(make_model, make_codes, tmp_path):
    model, codes = make_model("cascade"), make_codes(20, 4)
    folder = tmp_path / "c"
    folder.mkdir()
    notes = _notes(model, Isa.ARMV7E_M)
    program = write_c_package(model, folder, notes, inputs=codes, answers=run_model(model, codes))
    assert program.arena_bytes == plan_program(model, Isa.ARMV7E_M).arena_bytes
    assert all("#define HW_BODIES 1 /* cortex_m */\n" in path.read_text() for path in (folder / "kernels").iterdir())
    assert _self_test(folder, tmp_path) == 0


@pytest.mark.parametrize(("isa", "takes"), [(Isa.X86_64, True), (Isa.ARMV7E_M, False), (Isa.ARMV7_M, False)])
@pytest.mark.skipif(platform.machine() != "x86_64", reason="asks which bodies an x86-64 computer takes")
def test_only_packages_for_it_take_an_x86_body(isa, takes, make_model, make_codes, tmp_path):
    folder, out = _write(make_model("static"), make_codes(20, 4), tmp_path / "c", isa), tmp_path / "model.so"
    build_shared(package_sources(folder), out=out, compiler=find_compiler(HOST), includes=package_includes(folder))
    assert (b"hw_finish_avx2" in out.read_bytes()) is takes  # in the library's symbols


def test_packed_copies_change_what_is_stored_and_no_answer(make_model, make_codes, tmp_path):
    model, codes = make_model("cascade"), make_codes(20, 4)
    nested = model.menu.stored_bits(model.network)
    used = {(name, entry.assignment[name].weight_bits) for entry in model.menu.entries for name in nested}
    copies = frozenset((name, bits) for name, bits in used if bits < nested[name])
    assert len({bits for _, bits in copies}) > 1
    copied = dataclasses.replace(model, menu=dataclasses.replace(model.menu, copies=copies))
    folder = _write(copied, codes, tmp_path / "c")
    tables = [
        line for line in (folder / "hw_model_data.c").read_text().splitlines() if line.startswith("static const HW_LINE uint32_t")
    ]
    assert len(tables) == len(nested) + len(copies)
    assert _self_test(folder, tmp_path) == 0


def test_weights_are_stored_once_and_constants_of_a_step_lie_in_one_table(make_model, make_codes, tmp_path):
    model = make_model("exit")
    data = (_write(model, make_codes(20, 4), tmp_path / "c") / "hw_model_data.c").read_text()
    assert len(re.findall(r"static const HW_LINE uint32_t", data)) == len(model.stored)
    constants = model.entries[-1].constants.values()
    with_any = [one for one in constants if one.bias.size + one.multiplier.size]
    assert len(re.findall(r"static const HW_LINE int32_t", data)) == len(with_any) < len(constants)


def test_tensors_alive_together_never_share_bytes(make_model):
    """Walks the program's own offsets: what a step writes overlaps nothing that is still to be read."""
    program = plan_program(make_model("exit"), Isa.ARMV7E_M)
    steps = [step for segment in program.segments for step in segment.steps]
    spans = [(step.output, step.output + _bytes(step)) for step in steps]
    last = {
        index: max([later for later, step in enumerate(steps) if steps[index].op.name in step.op.inputs], default=len(steps) - 1)
        for index in range(len(steps))
    }
    for index, (start, end) in enumerate(spans):
        assert end <= program.arena_bytes
        for other in range(index):
            if last[other] >= index:
                assert end <= spans[other][0] or spans[other][1] <= start, (steps[other].op.name, steps[index].op.name)


def _bytes(step):
    return int(np.prod(step.op.out_shape)) * (1 if step.constants.multiplier.size or not step.op.has_weights else 4)


def test_the_arena_of_a_cascade_is_that_of_its_hungriest_entry(make_model):
    model = make_model("cascade")
    runs = zip(model.menu.runs(model.network), model.menu.entries, strict=True)
    arenas = [memory_plan(model.network, ops, entry.assignment, Isa.ARMV7E_M).arena_bytes for ops, entry in runs]
    assert plan_program(model, Isa.ARMV7E_M).arena_bytes == max(arenas)


def test_the_input_step_is_written_exactly():
    for step in (1 / 3, 0.0173, 1e-7, 1.0):
        text = input_step_text(step)
        assert text.endswith("f") and np.float32(float.fromhex(text[:-1])) == np.float32(step)
