"""The kernels on both targets compute what the reference says, and time is attributed to what ships."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwsearch.emulation import build_target
from hwsearch.emulation.cores.cortex_m4 import CORTEX_M4
from hwsearch.emulation.emulator import EmulatedCore
from hwsearch.emulation.flash import NO_WAIT, STM32L4PLUS_120MHZ
from hwsearch.emulation.isa import Isa
from hwsearch.emulation.toolchain import build_elf, find_compiler
from hwsearch.errors import ProfileError, ToolchainError
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.hardware.header import Device, Memory
from hwsearch.integers.cases import Case, random_case
from hwsearch.integers.op_kinds import run_op
from hwsearch.kernels.catalogue import ALL_PRECISIONS, Kernel, all_kernels, kernel
from hwsearch.measuring.targets.emulator import EmulatorTarget, emulator_target, flash_timing, time_on
from hwsearch.measuring.targets.host import HostTarget
from hwsearch.measuring.targets.kernel_sources import INCLUDES, units
from hwsearch.measuring.targets.target import Target

EMULATED = EmulatorTarget(
    compiler=find_compiler(CORTEX_M4.build_target, "ziglang"), flash=STM32L4PLUS_120MHZ, watch_alignment=True
)
HOST = HostTarget(compiler=find_compiler(build_target.HOST))

SHAPES: dict[OpKind, list[Op]] = {
    OpKind.CONV2D: [
        Op(name="odd", kind=OpKind.CONV2D, inputs=("x",), in_shape=(5, 7, 6), out_shape=(3, 7, 6), kernel=(3, 3), padding=(1, 1)),
        Op(name="strided", kind=OpKind.CONV2D, inputs=("x",), in_shape=(16, 9, 9), out_shape=(8, 5, 5), kernel=(3, 3),
           stride=(2, 2), padding=(1, 1)),
        Op(name="pointwise", kind=OpKind.CONV2D, inputs=("x",), in_shape=(32, 3, 5), out_shape=(7, 3, 5)),
        Op(name="tall", kind=OpKind.CONV2D, inputs=("x",), in_shape=(1, 19, 10), out_shape=(4, 10, 5), kernel=(10, 4),
           stride=(2, 2), padding=(5, 1)),
    ],
    OpKind.DEPTHWISE_CONV2D: [
        Op(name="odd", kind=OpKind.DEPTHWISE_CONV2D, inputs=("x",), in_shape=(5, 7, 6), out_shape=(5, 7, 6), kernel=(3, 3),
           padding=(1, 1), groups=5),
        Op(name="strided", kind=OpKind.DEPTHWISE_CONV2D, inputs=("x",), in_shape=(8, 9, 9), out_shape=(8, 5, 5), kernel=(3, 3),
           stride=(2, 2), padding=(1, 1), groups=8),
    ],
    OpKind.LINEAR: [
        Op(name="fc", kind=OpKind.LINEAR, inputs=("x",), in_shape=(67,), out_shape=(10,)),
        Op(name="flattened", kind=OpKind.LINEAR, inputs=("x",), in_shape=(8, 2, 2), out_shape=(5,)),
    ],
    OpKind.ADD: [Op(name="add", kind=OpKind.ADD, inputs=("x", "y"), in_shape=(5, 3, 7), out_shape=(5, 3, 7))],
    OpKind.MAX_POOL: [
        Op(name="max", kind=OpKind.MAX_POOL, inputs=("x",), in_shape=(5, 7, 8), out_shape=(5, 3, 4), kernel=(2, 2),
           stride=(2, 2)),
    ],
    OpKind.AVG_POOL: [
        Op(name="avg", kind=OpKind.AVG_POOL, inputs=("x",), in_shape=(5, 7, 8), out_shape=(5, 2, 2), kernel=(3, 4),
           stride=(3, 4)),
    ],
    OpKind.REQUANTIZE: [Op(name="rq", kind=OpKind.REQUANTIZE, inputs=("x",), in_shape=(5, 3, 7), out_shape=(5, 3, 7))],
}  # fmt: skip


def cases() -> list[Case]:
    """Every kind at every precision, weights stored at their own width, at the widest and at that whose codes straddle bytes."""
    found = []
    for kind, ops in SHAPES.items():
        for op in ops:
            if not kind.has_weights:
                found += [random_case(op, Precision(0, bits), 0, seed=bits) for bits in (2, 4, 8)]
                continue
            for precision in ALL_PRECISIONS:
                stored = sorted({precision.weight_bits, max(precision.weight_bits, 3), 8})
                found += [random_case(op, precision, bits, seed=bits) for bits in stored]
    return found


def expected(case: Case) -> bytes:
    inputs = [codes[None] for codes in case.inputs]
    return run_op(case.op, case.precision, inputs, case.stored, case.constants).tobytes()


def check(target: Target, case: Case) -> None:
    assert target.time(case).output == expected(case), f"{case.op.kind} {case.op.name} {case.precision} of {case.stored_bits}"


@pytest.mark.parametrize("target", [EMULATED, HOST], ids=["emulator", "host"])
@pytest.mark.parametrize(("kind", "text"), [(OpKind.CONV2D, "w4a4"), (OpKind.LINEAR, "w8a8"), (OpKind.AVG_POOL, "a8")])
def test_a_kernel_computes_the_reference(target: Target, kind: OpKind, text: str) -> None:
    precision = Precision.parse(text)
    check(target, random_case(SHAPES[kind][0], precision, precision.weight_bits, seed=1))


@pytest.mark.slow
def test_every_kernel_on_the_emulator_computes_the_reference() -> None:
    for case in cases():
        check(EMULATED, case)


@pytest.mark.slow
def test_no_kernel_asks_for_an_unaligned_access() -> None:
    """Clang may merge byte stores into an unaligned word, which this core allows; told not to, nothing unaligned is left.

    Except one: memset of the compiler's run-time library ends with an unaligned store.
    """
    compiler = replace(EMULATED.compiler, flags=(*EMULATED.compiler.flags, "-mno-unaligned-access"))
    strict = EmulatorTarget(compiler=compiler, flash=NO_WAIT, watch_alignment=True)
    for case in cases():
        check(strict, case)
        core = strict.holding(kernel(case.op, case.precision))
        assert core.last.unaligned <= int("memset" in core.symbols), f"{case.op.kind} {case.precision}"


@pytest.mark.slow
def test_every_kernel_on_this_computer_computes_the_reference() -> None:
    for case in cases():
        check(HOST, case)


@pytest.mark.parametrize("target", [EMULATED, HOST], ids=["emulator", "host"])
def test_logits_are_written_as_integers_of_32_bits(target: Target) -> None:
    case = random_case(SHAPES[OpKind.LINEAR][0], Precision(8, 8), 8, seed=3, logits=True)
    logits = np.frombuffer(target.time(case).output, np.int32)
    assert logits.tobytes() == expected(case) and np.abs(logits).max() > 255


@pytest.mark.parametrize("target", [EMULATED, HOST], ids=["emulator", "host"])
def test_argmax_returns_index_and_margin(target: Target) -> None:
    case = random_case(
        Op(name="argmax", kind=OpKind.ARGMAX, inputs=("x",), in_shape=(10,), out_shape=(1,)), Precision(0, 8), 0, seed=4
    )
    index, margin = np.frombuffer(target.time(case).output, np.uint32)
    first, second = np.sort(case.inputs[0].astype(np.int64))[[-1, -2]]
    assert (index, margin) == (case.inputs[0].argmax(), first - second)


def test_random_cases_use_the_whole_range_of_outputs() -> None:
    case = random_case(SHAPES[OpKind.CONV2D][1], Precision(4, 4), 8, seed=5)
    codes = np.frombuffer(expected(case), np.uint8)
    assert 20 < codes.std() < 80 and 64 < np.median(codes) < 192


def test_narrow_precisions_are_faster_on_the_cortex_m4() -> None:
    op = Op(name="c", kind=OpKind.CONV2D, inputs=("x",), in_shape=(32, 8, 8), out_shape=(16, 8, 8), kernel=(3, 3), padding=(1, 1))
    wide, middle, narrow = (EMULATED.time(random_case(op, Precision(bits, bits), bits, seed=6)).median for bits in (8, 4, 2))
    assert middle < 0.75 * wide and narrow < middle


@pytest.mark.parametrize("kind", [kind for kind in SHAPES if kind not in (OpKind.ADD, OpKind.MAX_POOL)])
def test_every_shift_costs_the_same(kind: OpKind) -> None:
    """A row of the table holds for every model: which shifts its folding chooses changes no latency.

    At a shift of 27 the largest sum would be worth more than 32000 codes, of which 255 are left: no folding chooses that, and
    the body of a depthwise convolution finishes such channels one sum at a time.
    """
    precision = Precision(4 if kind.has_weights else 0, 4)
    case = random_case(SHAPES[kind][0], precision, precision.weight_bits, seed=9)
    timings = []
    for shift in (28, 32, 33, 38):
        constants = replace(case.constants, shift=np.full_like(case.constants.shift, shift))
        shifted = replace(case, constants=constants)
        check(EMULATED, shifted)
        timings.append(EMULATED.time(shifted).median)
    assert max(timings) <= 1.002 * min(timings)


def test_waiting_for_flash_costs_time_and_changes_no_result() -> None:
    case = random_case(SHAPES[OpKind.LINEAR][0], Precision(8, 8), 8, seed=7)
    without = EmulatorTarget(compiler=EMULATED.compiler, flash=NO_WAIT).time(case)
    with_waits = EMULATED.time(case)
    assert with_waits.output == without.output
    assert 1.02 * without.median < with_waits.median < 1.6 * without.median


@pytest.mark.slow
def test_a_kernel_costs_the_same_beside_all_others(tmp_path: Path) -> None:
    """A package, which compiles each function alone and links them, pays for each exactly what the table says."""
    together = build_elf(
        units(all_kernels()),
        out=tmp_path / "all.elf",
        compiler=EMULATED.compiler,
        includes=INCLUDES,
        keep=[function.symbol for function in all_kernels()],
    )
    core = EmulatedCore(together, flash=EMULATED.flash)
    for function in all_kernels():
        alone = EMULATED.holding(function).image
        assert core.image.sizes[function.symbol] == alone.sizes[function.symbol], function.symbol
    case = random_case(SHAPES[OpKind.CONV2D][0], Precision(4, 4), 4, seed=8)
    assert time_on(core, case).median == pytest.approx(EMULATED.time(case).median, rel=0.002)


def test_the_flash_of_a_profile_becomes_lines_of_caches() -> None:
    memory = Memory(
        flash_wait_states=5,
        instruction_cache_bytes=1024,
        instruction_line_bytes=32,
        data_cache_bytes=256,
        data_line_bytes=8,
    )
    assert flash_timing(memory) == STM32L4PLUS_120MHZ
    assert flash_timing(Memory()).cycles(1000) == 0


def device(core: str) -> Device:
    return Device(name="d", isa=Isa.ARMV7E_M, core=core, clock_hz=1, flash_bytes=1, ram_bytes=1, supply="s")


def test_unknown_cores_and_compilers_are_refused() -> None:
    with pytest.raises(ProfileError, match=r"must be one of Cortex-M4, .*, but found 'Cortex-M55'; .* --target ssh:USER@HOST"):
        emulator_target(device("Cortex-M55"), Memory())
    with pytest.raises(ToolchainError, match="needs one of these compilers: armcc"):
        emulator_target(device("Cortex-M7"), Memory(), prefer="armcc")


def test_code_bytes_count_a_kernel_alone() -> None:
    function = Kernel(symbol="hw_argmax", sources=("portable/hw_argmax.c",))
    assert 40 < EMULATED.code_bytes(function) < 400
    assert 40 < HOST.code_bytes(function) < 600
