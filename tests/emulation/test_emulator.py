"""Values, faults and cycles of an emulated Cortex-M4, on assembly whose cost can be added up by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwsearch.emulation.block_counts import native_hooks
from hwsearch.emulation.cores.cortex_m4 import CORTEX_M4
from hwsearch.emulation.emulator import EmulatedCore, EmulatorError
from hwsearch.emulation.flash import NO_WAIT, STM32L4PLUS_120MHZ, FlashTiming
from hwsearch.emulation.linker_script import FLASH_START, RAM_START
from hwsearch.emulation.toolchain import build_elf, find_compiler
from hwsearch.errors import ToolchainError

REFILL = 3
RETURN = 1 + REFILL
"""`bx lr`."""

LOOPS = """
#define FUNCTION(name, body) __asm__(".syntax unified\\n.section .text." #name ",\\"ax\\",%progbits\\n.balign 32\\n" \\
    ".thumb_func\\n.globl " #name "\\n.type " #name ",%function\\n" #name ":\\n" body "\\n bx lr\\n" \\
    ".size " #name ",.-" #name "\\n");
#define LOOP(name, body) FUNCTION(name, "1:" body "\\n subs r0, #1\\n bne 1b")

LOOP(empty_loop, "")
LOOP(alu, " adds r1, #1\\n adds r2, #1")
LOOP(one_load, " ldr r2, [r1]")
LOOP(two_loads, " ldr r2, [r1]\\n ldr r3, [r1, #4]")
LOOP(dependent_loads, " ldr r2, [r1]\\n ldr r3, [r2]")
LOOP(store_immediate, " str r2, [r1]")
LOOP(store_register, " str r2, [r1, r3]")
LOOP(address_stall, " adds r2, r1, #0\\n ldr r3, [r2]")
LOOP(load_pair, " ldrd r2, r3, [r1]")
LOOP(load_three, " ldm.w r1, {r2, r3, r12}")
LOOP(long_multiply, " umlal r2, r3, r1, r1")
LOOP(division, " udiv r2, r1, r1")
LOOP(skipped_branch, " cmp r0, #0\\n beq 2f\\n2:")
FUNCTION(odd_target, " b 1f\\n nop\\n nop\\n1: subs.w r0, r0, #1\\n bne 1b")
FUNCTION(cut_by_page, " nop\\n1:\\n .rept 200\\n ldr r2, [r1]\\n ldr r3, [r1, #4]\\n adds r2, #1\\n adds r3, #1\\n .endr\\n" \\
    " subs r0, #1\\n bne.w 1b")
#define CHOOSE(body, then) "cmp r0, r2\\n it hi\\n " body "\\n cmp.w r3, #1\\n beq 1f\\n " \\
    then " r0, #7\\n bx lr\\n1: " then " r0, #9"
FUNCTION(conditional_store, CHOOSE("strhi r0, [r1]", "movs"))
FUNCTION(conditional_load, CHOOSE("ldrhi r0, [r1]", "adds"))
FUNCTION(nops_only, "nop")
"""

FUNCTIONS = """
#include <stdint.h>
#include <string.h>
int32_t sum_of_six(int32_t a, int32_t b, int32_t c, int32_t d, int32_t e, int32_t f);
int32_t sum_of_six(int32_t a, int32_t b, int32_t c, int32_t d, int32_t e, int32_t f)
{
    return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f;
}
int32_t mixed(const uint8_t *data, uint32_t n);
int32_t mixed(const uint8_t *data, uint32_t n)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += data[i] > 127 ? (int64_t)data[i] * (int32_t)i : -(int64_t)(data[i] / (i + 1));
    uint8_t copy[64];
    memcpy(copy, data, sizeof copy);
    return (int32_t)(sum >> (n & 15)) + copy[n & 63];
}
uint32_t touch(const volatile uint32_t *words, uint32_t n, uint32_t passes);
uint32_t touch(const volatile uint32_t *words, uint32_t n, uint32_t passes)
{
    uint32_t sum = 0;
    while (passes--)
        for (uint32_t i = 0; i < n; i++)
            sum += words[i];
    return sum;
}
"""


@pytest.fixture(scope="module")
def elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    (folder / "loops.c").write_text(LOOPS)
    (folder / "functions.c").write_text(FUNCTIONS)
    names = [line.split("(")[1].split(",")[0] for line in LOOPS.splitlines() if line.startswith(("LOOP(", "FUNCTION("))]
    return build_elf(
        [folder / "loops.c", folder / "functions.c"],
        out=folder / "image.elf",
        compiler=find_compiler(CORTEX_M4.build_target),
        keep=[*names, "sum_of_six", "mixed", "touch"],
    )


@pytest.fixture(scope="module")
def core(elf: Path) -> EmulatedCore:
    return EmulatedCore(elf, flash=NO_WAIT)


TAKEN = 1 + REFILL
PER_TURN = [
    ("empty_loop", 0),
    ("alu", 2),
    ("one_load", 2),
    ("two_loads", 3),
    ("dependent_loads", 4),
    ("store_immediate", 1),
    ("store_register", 2),
    ("address_stall", 1 + 1 + 2),
    ("load_pair", 3),
    ("load_three", 4),
    ("long_multiply", 1),
    ("division", 7),
    ("skipped_branch", 2),
]


@pytest.mark.parametrize(("name", "body"), PER_TURN)
def test_a_loop_costs_what_the_table_says(core: EmulatedCore, name: str, body: int) -> None:
    core.release()
    turns = 10
    data = core.place(np.full(16, RAM_START, "<u4").tobytes())
    core.call(name, turns, data, 0, 0)
    # Every turn: the body, the subtraction and the branch, which falls through in the last turn.
    assert core.cycles == turns * (body + 1 + TAKEN) - REFILL + RETURN


def test_a_branch_to_an_unaligned_wide_instruction_costs_one_more(core: EmulatedCore) -> None:
    turns = 10
    core.call("odd_target", turns)
    # The leading branch arrives there once, the loop's own turns - 1 times.
    assert core.cycles == TAKEN + turns * (1 + TAKEN) - REFILL + RETURN + turns


def test_a_block_that_the_emulator_cuts_costs_the_same(core: EmulatedCore) -> None:
    core.release()
    data = core.place(bytes(16))
    turns = 5
    core.call("nops_only")
    before = core.cycles
    core.call("cut_by_page", turns, data)
    assert core.image.sizes["cut_by_page"] > 1024 + 8, "the loop must straddle a page wherever it begins"
    assert core.cycles - before == turns * (200 * (3 + 2) + 1 + TAKEN) - REFILL


def test_arguments_beyond_four_lie_on_the_stack(core: EmulatedCore) -> None:
    assert core.call("sum_of_six", 1, 2, 3, 4, 5, -6 & 0xFFFF_FFFF) == 1 + 4 + 9 + 16 + 25 - 36


def test_native_and_python_counts_agree_in_every_number(elf: Path) -> None:
    if native_hooks() is None:
        pytest.skip("no compiler for this computer")
    data = np.random.default_rng(0).integers(0, 256, 200, dtype=np.uint8).tobytes()
    runs = []
    for native in (True, False):
        core = EmulatedCore(elf, native=native, watch_alignment=True)
        assert core.counts_natively is native
        value = core.call("mixed", core.place(data, flash=True) + 1, 190)
        runs.append((value, core.last))
    assert runs[0] == runs[1]
    assert runs[0][1].flash_cycles > 0 and runs[0][1].instructions > 1000


def test_calls_do_not_add_up(core: EmulatedCore) -> None:
    core.call("sum_of_six", 1, 2, 3, 4, 5, 6)
    once = core.last
    core.call("sum_of_six", 1, 2, 3, 4, 5, 6)
    assert core.last == once


def flash_of(data_lines: int) -> FlashTiming:
    return replace(STM32L4PLUS_120MHZ, code_lines=0, data_lines=data_lines)


def test_constants_wait_for_flash_once_per_line_while_the_cache_holds_them(elf: Path) -> None:
    core = EmulatedCore(elf, flash=flash_of(32))
    words = core.place(np.arange(64, dtype="<u4").tobytes(), flash=True)  # 32 lines of 8 bytes
    assert core.call("touch", words, 64, 3) == 3 * sum(range(64))
    assert core.last.flash_cycles == 32 * 5


def test_one_line_too_many_evicts_all_under_least_recent_use(elf: Path) -> None:
    core = EmulatedCore(elf, flash=flash_of(31))
    words = core.place(np.arange(64, dtype="<u4").tobytes(), flash=True)
    core.call("touch", words, 64, 3)
    assert core.last.flash_cycles == 3 * 32 * 5


def test_data_in_ram_waits_for_nothing(elf: Path) -> None:
    core = EmulatedCore(elf, flash=flash_of(32))
    core.call("touch", core.place(bytes(256)), 64, 2)
    assert core.last.flash_cycles == 0


def test_unaligned_accesses_are_counted_where_watched(elf: Path) -> None:
    core = EmulatedCore(elf, watch_alignment=True)
    core.call("touch", core.place(bytes(64)) + 1, 8, 1)
    assert core.last.unaligned == 8


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("last", [1, 2])
def test_watching_memory_changes_no_result_inside_conditional_code(elf: Path, native: bool, last: int) -> None:
    """Unicorn keeps the IT state after a hooked conditional access; the hooks must clear it."""
    core = EmulatedCore(elf, native=native and native_hooks() is not None, watch_alignment=True)
    word = core.place(np.array([100], "<u4").tobytes(), flash=True)
    added = 9 if last == 1 else 7
    assert core.call("conditional_load", 5, word, 3, last) == 100 + added
    assert core.call("conditional_load", 3, word, 5, last) == 3 + added
    cell = core.reserve(4)
    assert core.call("conditional_store", 5, cell, 3, last) == added
    assert int.from_bytes(core.read(cell, 4), "little") == 5


def test_a_stray_pointer_names_the_function(core: EmulatedCore) -> None:
    with pytest.raises(EmulatorError, match=r"touch must stay within the board's memory, but faulted at 0x8.* in touch"):
        core.call("touch", 0x3000_0000, 1, 1)


def test_constants_cannot_be_written(core: EmulatedCore) -> None:
    with pytest.raises(EmulatorError, match="store_immediate must stay within"):
        core.call("store_immediate", 1, FLASH_START + 0x10000)


def test_a_function_that_is_not_there_is_named(core: EmulatedCore) -> None:
    with pytest.raises(EmulatorError, match="The image must hold no_such_function"):
        core.call("no_such_function")


def test_what_does_not_fit_is_refused(core: EmulatedCore) -> None:
    core.release()
    with pytest.raises(EmulatorError, match="Data must fit in 632 KB of RAM"):
        core.reserve(700 * 1024)
    core.release()
    with pytest.raises(EmulatorError, match="must fit in 2048 KB of flash"):
        core.place(bytes(2048 * 1024), flash=True)
    core.release()


def test_a_stripped_image_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "one.c"
    source.write_text("int one(void);\nint one(void) { return 1; }\n")
    compiler = find_compiler(CORTEX_M4.build_target)
    stripped = replace(compiler, flags=(*compiler.flags, "-Wl,--strip-all"))
    elf = build_elf([source], out=tmp_path / "one.elf", compiler=stripped, keep=["one"])
    with pytest.raises(ToolchainError, match=r"must have code and symbols, but one\.elf has not"):
        EmulatedCore(elf)
