"""On each core the kernels keep to exactly the working memory that is priced, which is that of its own bodies and no other's."""

import ctypes
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from hwsearch.emulation.build_target import HOST
from hwsearch.emulation.isa import Isa
from hwsearch.emulation.toolchain import build_shared, find_compiler
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.graph.space import load_space, network_for_space
from hwsearch.hardware.cost import Budget, PolicyCost
from hwsearch.hardware.header import read_header
from hwsearch.hardware.profile import load_profile
from hwsearch.integers.cases import Case, random_case
from hwsearch.kernels.catalogue import kernel
from hwsearch.kernels.layout import scratch_bytes
from hwsearch.measuring.targets.emulator import emulator_target
from hwsearch.measuring.targets.kernel_sources import INCLUDES, units
from hwsearch.pricing.cost_model import CostModel
from tests.kernels.guarded import expected, on_core, on_host

PROFILES = Path(__file__).parents[2] / "hardware_profiles"
BOARDS = {
    "m4": "nucleo_l4r5zi",
    "m33": "nucleo_u575zi_q",
    "m7": "nucleo_h7a3zi_q",
    "m0plus": "nucleo_g0b1re",
    "rv32imc": "esp32_c3",
    "aarch64": "raspberry_pi_zero_2w",
}
"""A shipped profile of each emulated core."""
Run = Callable[[Case, int], bytes]


def convolution(
    in_shape: tuple[int, int, int], outputs: int, size: tuple[int, int], stride: int = 1, padding: tuple[int, int] = (0, 0)
) -> Op:
    sides = [(side + 2 * pad - k) // stride + 1 for side, pad, k in zip(in_shape[1:], padding, size, strict=True)]
    return Op(
        name="conv", kind=OpKind.CONV2D, inputs=("x",), in_shape=in_shape, out_shape=(outputs, sides[0], sides[1]), kernel=size,
        stride=(stride, stride), padding=padding,
    )  # fmt: skip


def depthwise(in_shape: tuple[int, int, int], size: tuple[int, int] = (3, 3), stride: int = 1) -> Op:
    op = convolution(in_shape, in_shape[0], size, stride, (size[0] // 2, size[1] // 2))
    return Op(
        name="conv", kind=OpKind.DEPTHWISE_CONV2D, inputs=("x",), in_shape=in_shape, out_shape=op.out_shape, kernel=size,
        stride=op.stride, padding=op.padding, groups=in_shape[0],
    )  # fmt: skip


def linear(inputs: int, outputs: int) -> Op:
    return Op(name="fc", kind=OpKind.LINEAR, inputs=("x",), in_shape=(inputs,), out_shape=(outputs,))


OPS = (
    convolution((16, 9, 11), 7, (3, 3), padding=(1, 1)),
    convolution((3, 12, 12), 6, (3, 3), padding=(1, 1)),
    convolution((1, 21, 10), 8, (10, 4), stride=2, padding=(5, 1)),
    convolution((64, 6, 7), 12, (1, 1)),
    convolution((29, 2, 2), 5, (1, 1)),
    convolution((5, 4, 4), 4, (4, 4)),
    depthwise((10, 13, 9)),
    depthwise((8, 14, 6), stride=2),
    depthwise((6, 5, 8), size=(2, 5)),
    linear(67, 5),
    linear(300, 3),
)
PRECISIONS = (Precision(8, 8), Precision(4, 4), Precision(2, 2))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> tuple[Isa, Run]:
    if platform.machine() != "x86_64":
        pytest.skip("this computer has no x86-64 processor")
    taken = {kernel(op, precision) for op in OPS for precision in PRECISIONS}
    built = build_shared(
        units(taken), out=tmp_path_factory.mktemp("kernels") / "kernels.so", compiler=find_compiler(HOST), includes=INCLUDES
    )
    return Isa.X86_64, partial(on_host, ctypes.CDLL(str(built)))


def emulated(board: str) -> tuple[Isa, Run]:
    header = read_header(PROFILES / board)
    target = emulator_target(header.device, header.memory)
    return header.device.isa, lambda case, size: on_core(target.holding(kernel(case.op, case.precision)), case, size)


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("core", [*BOARDS, "x86-64"])
def test_kernels_keep_to_exactly_the_working_memory_that_is_priced(
    core: str, precision: Precision, request: pytest.FixtureRequest
) -> None:
    isa, run = emulated(BOARDS[core]) if core in BOARDS else request.getfixturevalue("host")
    for seed, op in enumerate(OPS):
        for stored_bits in {precision.weight_bits, 8}:
            case = random_case(op, precision, stored_bits, seed, logits=seed % 4 == 3)
            assert run(case, scratch_bytes(op, precision, isa)) == expected(case), f"{op} {precision} stored at {stored_bits}"


def test_a_keyword_network_is_priced_at_the_memory_of_the_boards_own_kernels() -> None:
    space = load_space("dscnn_kws", network_for_space("dscnn_kws"))
    price = CostModel(space.network, load_profile("esp32_c3")).price(space.uniform(Precision(8, 8)))
    assert price.ram_bytes == 21290
    assert Budget.parse(ram="28KB").is_met(PolicyCost.of_paths([price], [1.0]))
