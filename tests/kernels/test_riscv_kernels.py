"""The RV32IM functions, emulated, compute what the numpy reference computes, and write nothing else."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwsearch.emulation.cores.esp32_c3 import ESP32_C3
from hwsearch.emulation.emulator import EmulatedCore
from hwsearch.emulation.flash import NO_WAIT
from hwsearch.emulation.isa import Isa
from hwsearch.emulation.toolchain import build_elf, find_compiler
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import KERNEL_PRECISIONS, WEIGHT_WIDTHS, Precision
from hwsearch.integers.cases import Case, random_case
from hwsearch.integers.integer_model import OpConstants, StoredWeights
from hwsearch.kernels.catalogue import C_FOLDER, Kernel, all_kernels
from hwsearch.measuring.targets.kernel_sources import INCLUDES, units
from tests.kernels.guarded import expected, least_scratch_bytes, on_core

KINDS = (OpKind.CONV2D, OpKind.DEPTHWISE_CONV2D, OpKind.LINEAR)


def kernels_of(kind: OpKind) -> list[Kernel]:
    return [function for function in all_kernels() if function.symbol.startswith(f"hw_{kind}_w")]


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> EmulatedCore:
    """All functions with weights in one image."""
    functions = [function for kind in KINDS for function in kernels_of(kind)]
    elf = build_elf(
        units(functions),
        out=tmp_path_factory.mktemp("riscv") / "kernels.elf",
        compiler=find_compiler(ESP32_C3.build_target),
        includes=INCLUDES,
        keep=[function.symbol for function in functions],
    )
    return EmulatedCore(elf, core=ESP32_C3, flash=NO_WAIT, watch_alignment=True)


def agrees(core: EmulatedCore, case: Case) -> bool:
    """Whether a call computes the reference, touching no word at an odd place and no byte around its buffers."""
    found = on_core(core, case, least_scratch_bytes(case.op, case.precision, Isa.RV32IMC))
    return core.last.unaligned == 0 and found == expected(case)


def convolution(
    in_shape: tuple[int, int, int], outputs: int, size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int],
    groups: int = 1,
) -> Op:  # fmt: skip
    axes = zip(in_shape[1:], padding, size, stride, strict=True)
    sides = [(side + 2 * pad - k) // step + 1 for side, pad, k, step in axes]
    kind = OpKind.DEPTHWISE_CONV2D if groups == in_shape[0] == outputs > 1 else OpKind.CONV2D
    return Op(
        name="conv", kind=kind, inputs=("x",), in_shape=in_shape, out_shape=(outputs, sides[0], sides[1]), kernel=size,
        stride=stride, padding=padding, groups=groups,
    )  # fmt: skip


def random_ops(seed: int, count: int) -> Iterator[Op]:
    """Odd sizes, few and many channels, one pixel, every padding; every third depthwise, every fifth linear."""
    random = np.random.default_rng(seed)
    number = 0
    while number < count:
        size = (3, 3) if random.random() < 0.6 else (int(random.integers(1, 6)), int(random.integers(1, 6)))
        stride = (int(random.integers(1, 4)), int(random.integers(1, 4))) if random.random() < 0.4 else (1, 1)
        padding = (int(random.integers(0, size[0])), int(random.integers(0, size[1])))
        sides = (int(random.integers(1, 12)), int(random.integers(1, 14)))
        groups, channels = int(random.choice([1, 1, 1, 2, 3])), int(random.choice([1, 2, 3, 4, 7, 8, 12, 15, 16, 20, 29]))
        outputs = groups * int(random.integers(1, 11))
        if number % 5 == 4:
            inputs = int(random.integers(1, 150))
            yield Op(name="fc", kind=OpKind.LINEAR, inputs=("x",), in_shape=(inputs,), out_shape=(outputs,))
        elif any(side + 2 * pad < k for side, pad, k in zip(sides, padding, size, strict=True)):
            continue
        elif number % 3 == 2 and channels > 1:
            yield convolution((channels, *sides), channels, size, stride, padding, channels)
        else:
            yield convolution((groups * channels, *sides), outputs, size, stride, padding, groups)
        number += 1


def varied(case: Case, seed: int) -> Case:
    """The same call with other zero points, clamps and, sometimes, scales that need the slow way."""
    random = np.random.default_rng(seed)
    old, largest = case.constants, 2**case.precision.activation_bits
    shift = old.shift - random.integers(0, 12) if random.random() < 0.3 else old.shift
    constants = OpConstants(
        bias=random.integers(-(2**13), 2**13, old.bias.shape).astype(np.int32),
        multiplier=old.multiplier,
        shift=np.maximum(shift, 1).astype(np.int32),
        input_zero=tuple(int(random.choice([0, largest // 2])) for _ in old.input_zero),
        output_zero=int(random.choice([0, 2, 8, 128, 255])),
        output_max=int(random.choice([3, 11, 15, 255])),
    )
    return replace(case, constants=constants)


@pytest.mark.parametrize("precision", KERNEL_PRECISIONS, ids=str)
def test_calls_of_any_shape_agree(core: EmulatedCore, precision: Precision) -> None:
    widths = [bits for bits in WEIGHT_WIDTHS if bits >= precision.weight_bits]
    for seed, op in enumerate(random_ops(KERNEL_PRECISIONS.index(precision), 45)):
        case = random_case(op, precision, widths[seed % len(widths)], seed, logits=seed % 7 == 6)
        assert agrees(core, case if seed % 7 == 6 else varied(case, seed)), f"{seed}: {op} {precision} {case.stored_bits}"


@pytest.mark.parametrize("precision", KERNEL_PRECISIONS, ids=str)
def test_fields_hold_the_largest_products(core: EmulatedCore, precision: Precision) -> None:
    largest = 2**precision.activation_bits - 1
    for op in (
        convolution((132, 4, 3), 4, (3, 3), (1, 1), (1, 1)),
        convolution((29, 2, 2), 5, (1, 1), (1, 1), (0, 0)),
        convolution((6, 7, 7), 4, (5, 5), (1, 1), (0, 0)),
        convolution((5, 5, 7), 5, (3, 3), (2, 2), (1, 1), 5),
        Op(name="fc", kind=OpKind.LINEAR, inputs=("x",), in_shape=(515,), out_shape=(6,)),
    ):
        for stored_bits in (precision.weight_bits, 8):
            case = random_case(op, precision, stored_bits, 1, logits=True)
            assert case.stored
            for codes in (0, 2**stored_bits - 1):
                stored = StoredWeights(codes=np.full_like(case.stored.codes, codes), bits=stored_bits)
                extreme = replace(case, inputs=tuple(np.full_like(codes, largest) for codes in case.inputs), stored=stored)
                assert agrees(core, extreme), f"{op} {precision} {stored_bits} {codes}"


def test_an_odd_number_of_channels_fits_the_smallest_tile(core: EmulatedCore) -> None:
    """Windows of 13 to 15 codes beyond a multiple of 16 take three codes more than a tile of one quad was made for."""
    for channels, size in ((29, (1, 1)), (29, (2, 1)), (15, (1, 2)), (31, (1, 1)), (45, (3, 1)), (61, (1, 2))):
        op = convolution((channels, 3, 2), 6, size, (1, 1), (size[0] // 2, 0))
        case = random_case(op, Precision(4, 4), 4, 1)
        assert agrees(core, varied(case, 1)), f"{op}"
        assert agrees(core, varied(random_case(op, Precision(8, 8), 8, 1), 2)), f"{op}"


def test_sources_are_those_of_the_instruction_set() -> None:
    for kind in KINDS:
        assert f"riscv/hw_{kind}.c" in kernels_of(kind)[0].sources and Path(C_FOLDER / f"riscv/hw_{kind}.c").exists()
