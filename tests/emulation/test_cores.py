"""Every emulated core computes what the reference says; their cycle models follow the table in cycle_model.py."""

from pathlib import Path

import pytest

from hwsearch.emulation.cores.cortex_m0plus import CORTEX_M0PLUS
from hwsearch.emulation.cores.cortex_m0plus_small import CORTEX_M0PLUS_SMALL
from hwsearch.emulation.cores.cortex_m4 import CORTEX_M4
from hwsearch.emulation.cores.cortex_m7 import CORTEX_M7
from hwsearch.emulation.cores.cortex_m33 import CORTEX_M33
from hwsearch.emulation.cores.esp32_c3 import ESP32_C3
from hwsearch.emulation.emulator import EmulatedCore
from hwsearch.emulation.flash import NO_WAIT, FlashTiming
from hwsearch.emulation.processor_core import Core
from hwsearch.emulation.thumb import decoder
from hwsearch.emulation.toolchain import build_elf, find_compiler
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.integers.cases import random_case
from hwsearch.integers.op_kinds import run_op
from hwsearch.measuring.targets.emulator import EmulatorTarget

OTHERS = (CORTEX_M33, CORTEX_M7, CORTEX_M0PLUS, ESP32_C3)
OPS = (
    Op(name="conv", kind=OpKind.CONV2D, inputs=("x",), in_shape=(8, 5, 6), out_shape=(5, 5, 6), kernel=(3, 3), padding=(1, 1)),
    Op(name="depthwise", kind=OpKind.DEPTHWISE_CONV2D, inputs=("x",), in_shape=(5, 7, 6), out_shape=(5, 7, 6), kernel=(3, 3),
       padding=(1, 1), groups=5),
    Op(name="fc", kind=OpKind.LINEAR, inputs=("x",), in_shape=(67,), out_shape=(10,)),
    Op(name="pool", kind=OpKind.AVG_POOL, inputs=("x",), in_shape=(6, 4, 4), out_shape=(6, 2, 2), kernel=(2, 2), stride=(2, 2)),
    Op(name="add", kind=OpKind.ADD, inputs=("x", "y"), in_shape=(5, 3, 3), out_shape=(5, 3, 3)),
)  # fmt: skip


def target(core: Core) -> EmulatorTarget:
    return EmulatorTarget(compiler=find_compiler(core.build_target, "ziglang"), flash=NO_WAIT, core=core, watch_alignment=True)


@pytest.mark.slow
@pytest.mark.parametrize("core", OTHERS, ids=lambda core: core.build_target.name)
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_every_core_computes_what_the_reference_says(core: Core, op: Op) -> None:
    """The Cortex-M0+ faults on unaligned words and the ESP32-C3 traps, so none may be touched."""
    for bits in (8, 4, 2):
        precision = Precision(bits if op.has_weights else 0, bits)
        case = random_case(op, precision, precision.weight_bits, seed=11)
        place = target(core)
        timing = place.time(case)
        codes = run_op(op, precision, [codes[None] for codes in case.inputs], case.stored, case.constants)
        assert timing.output == codes.tobytes()
        assert timing.median > 0


LOOPS = """
__attribute__((naked)) void multiply(unsigned n) { __asm__ volatile("1: muls r1, r1\\n subs r0, #1\\n bne 1b\\n bx lr"); }
__attribute__((naked)) void load(unsigned n, void *p) {
    __asm__ volatile("1: ldr r2, [r1]\\n ldr r3, [r1]\\n subs r0, #1\\n bne 1b\\n bx lr"); }
__attribute__((naked)) void store(unsigned n, void *p) { __asm__ volatile("1: str r0, [r1]\\n subs r0, #1\\n bne 1b\\n bx lr"); }
__attribute__((naked)) void call(unsigned n) {
    __asm__ volatile("push {r4, lr}\\n mov r4, r0\\n 1: bl 2f\\n subs r4, #1\\n bne 1b\\n pop {r4, pc}\\n 2: bx lr"); }
"""
NAMES = ("multiply", "load", "store", "call")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loops")
    source = folder / "loops.c"
    declared = "void multiply(unsigned); void load(unsigned, void *); void store(unsigned, void *); void call(unsigned);\n"
    quiet = '#pragma GCC diagnostic ignored "-Wunused-parameter"\n'
    source.write_text(quiet + declared + '__asm__(".syntax unified");\n' + LOOPS)
    return build_elf(
        [source], out=folder / "loops.elf", compiler=find_compiler(CORTEX_M0PLUS.build_target, "ziglang"), keep=NAMES
    )


@pytest.mark.parametrize(
    ("core", "function", "turn"),
    [
        (CORTEX_M0PLUS, "multiply", 1 + 1 + 2),
        (CORTEX_M0PLUS_SMALL, "multiply", 32 + 1 + 2),
        (CORTEX_M0PLUS, "load", 2 + 2 + 1 + 2),
        (CORTEX_M4, "load", 2 + 1 + 1 + 4),
        (CORTEX_M0PLUS, "store", 2 + 1 + 2),
        (CORTEX_M4, "store", 1 + 1 + 4),
        (CORTEX_M0PLUS, "call", 3 + 2 + 1 + 2),
        (CORTEX_M7, "load", 1 + 1 + 1),  # both loads; the count and the branch; one more, taken
    ],
)
def test_a_turn_of_a_loop_costs_what_the_table_says(image: Path, core: Core, function: str, turn: int) -> None:
    emulated = EmulatedCore(image, core=core, flash=NO_WAIT)
    place = emulated.reserve(8)
    cycles = []
    for turns in (100, 300):
        emulated.call(function, turns, place)
        cycles.append(emulated.cycles)
    assert cycles[1] - cycles[0] == 200 * turn


def thumb(*halfwords: int) -> list[int]:
    """Cycles that each instruction of a stretch adds on a dual-issue core."""
    code = b"".join(word.to_bytes(2, "little") for word in halfwords)
    return CORTEX_M7.cycle_model.issue(decoder().decode(code, 0x0800_0000))[0]


def test_two_independent_instructions_share_a_cycle_and_dependent_ones_do_not() -> None:
    add_r0, add_r1, add_r0_again = 0x3001, 0x3101, 0x3001
    assert thumb(add_r0, add_r1)[1] == 0 or thumb(0x4611, 0x461A)[1] == 0  # adds write flags; moves of high form do not
    assert thumb(add_r0, add_r0_again) == [1, 1]


def test_loads_pair_and_their_result_is_late() -> None:
    load_r0_r1, load_r2_r3, move_r4_r0 = 0x6808, 0x681A, 0x4604
    assert thumb(load_r0_r1, load_r2_r3) == [1, 0]
    assert thumb(load_r0_r1, move_r4_r0) == [1, 2]


def test_a_store_waits_for_the_load_beside_it() -> None:
    load_r0_r1, store_r2_r3 = 0x6808, 0x601A
    assert thumb(load_r0_r1, store_r2_r3) == [1, 1]


def test_sums_pass_from_one_multiplication_to_the_next() -> None:
    umlal = (0xFBE2, 0x0103)  # umlal r0, r1, r2, r3
    assert thumb(*umlal, *umlal, *umlal) == [1, 1, 1]


def test_a_set_of_a_cache_holds_as_many_lines_as_it_has_ways(image: Path) -> None:
    """Sixteen lines in two ways: three lines of one set do not fit, three of different sets do."""
    from hwsearch.emulation.block_counts import BlockCounts, PythonHooks, Window

    counts = BlockCounts(
        Window(code_start=0, code_bytes=64, flash_start=0, flash_bytes=2**20, data_cache=(16, 32, 2)),
    )
    hooks = PythonHooks(counts)

    class Engine:
        def reg_read(self, _register: int) -> int:
            return 0

    for stride, misses in ((32 * 8, 9), (32, 3)):
        counts.clear()
        for _ in range(3):
            for line in range(3):
                hooks.access(Engine(), 0, line * stride, 4, 0, None)
        assert counts.state.data.misses == misses


def test_native_and_python_counts_agree_on_a_set_associative_cache(image: Path) -> None:
    flash = FlashTiming(wait_states=5, code_lines=4, code_line_bytes=8, data_lines=8, data_line_bytes=8, code_ways=2, data_ways=4)
    runs = []
    for native in (None, False):
        core = EmulatedCore(image, core=CORTEX_M0PLUS, flash=flash, native=native)
        constant = core.place(bytes(64), flash=True)
        core.call("load", 50, constant)
        runs.append(core.last)
    assert runs[0] == runs[1] and runs[0].flash_cycles > 0
