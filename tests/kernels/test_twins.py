"""The portable C functions, compiled for this computer, compute what the numpy reference computes, and write nothing else."""

import ctypes
import math
import platform
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hwsearch.emulation.build_target import HOST
from hwsearch.emulation.isa import Isa
from hwsearch.emulation.toolchain import build_shared, find_compiler
from hwsearch.errors import NetworkError
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision, kernel_precision
from hwsearch.integers import reference
from hwsearch.integers.cases import Case, random_case
from hwsearch.integers.integer_model import OpConstants, StoredWeights
from hwsearch.kernels.catalogue import (
    ALL_PRECISIONS,
    C_FOLDER,
    WIDTHS,
    all_kernels,
    all_sources,
    kernel,
    supported,
)
from hwsearch.measuring.grid import default_grid
from hwsearch.measuring.targets.kernel_sources import INCLUDES, units
from tests.kernels.guarded import expected, least_scratch_bytes, on_host

WITHOUT_OWN = Isa.ARMV7_M
"""An instruction set that no bodies are written for."""
many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)


LEVELS = {
    "portable": ("HW_BODIES=0", ()),
    "sse2": ("HW_X86_LEVEL=0", ("sse2",)),
    "avx2": ("HW_X86_LEVEL=1", ("avx2",)),
    "vnni": ("HW_X86_LEVEL=2", ("avx512bw", "avx512vl", "avx512_vnni")),
}
"""What fixes the bodies that this computer runs, and the processor features that they need, as Linux names them."""


@dataclass(frozen=True)
class Library:
    """The functions as this computer runs them, and the instruction set whose bodies they are."""

    functions: ctypes.CDLL
    isa: Isa

    def run(self, case: Case) -> bytes:
        return on_host(self.functions, case, least_scratch_bytes(case.op, case.precision, self.isa))

    def agrees(self, case: Case) -> bool:
        return self.run(case) == expected(case)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in LEVELS if name != "portable"]
"""All functions are built for each. The fast tests run this computer's own bodies in exported packages and on its target."""


@pytest.fixture(scope="module", params=["portable", *SLOW])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Library:
    macro, features = LEVELS[request.param]
    missing = {*features} - processor_features()
    if missing:
        pytest.skip(f"this processor does not tell of {', '.join(sorted(missing))}")
    built = build_shared(
        units(all_kernels()),
        out=tmp_path_factory.mktemp("kernels") / "kernels.so",
        compiler=find_compiler(HOST),
        includes=INCLUDES,
        macros=[macro],
    )
    isa = WITHOUT_OWN if request.param == "portable" else Isa.X86_64
    return Library(ctypes.CDLL(str(built)), isa)


@pytest.mark.parametrize("compiler", ["cc", "ziglang"])
def test_the_best_body_of_this_processor_is_chosen(compiler: str, tmp_path: Path) -> None:
    """Whatever the compiler's library knows of processors."""
    if platform.machine() != "x86_64":
        pytest.skip("only x86-64 has bodies to choose from")
    (tmp_path / "level.c").write_text('#include "x86/hw_x86.h"\nint level(void);\nint level(void) { return hw_level(); }\n')
    built = build_shared(
        [tmp_path / "level.c"],
        out=tmp_path / "level.so",
        compiler=find_compiler(HOST, compiler),
        includes=INCLUDES,
    )
    able = [{*features} <= processor_features() for name, (_, features) in LEVELS.items() if name != "portable"]
    library = ctypes.CDLL(str(built))
    assert library.level() == library.level() == max(level for level, known in enumerate(able) if known)


def processor_features() -> set[str]:
    """Flags of the processor; none where the system does not list them."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    return {flag for line in lines if line.startswith("flags") for flag in line.split(":")[1].split()}


seeds = st.integers(0, 2**32 - 1)


def weighted_call(
    op: Op, precision: Precision, stored_bits: int, seed: int, *, extreme: bool = False, logits: bool = False
) -> Case:
    random = np.random.default_rng(seed)
    largest = 2**precision.activation_bits - 1
    shape = (*op.in_shape[1:], op.in_shape[0]) if len(op.in_shape) == 3 else op.in_shape
    codes = np.full(shape, largest) if extreme else random.integers(0, largest + 1, shape)
    weights_shape = (op.out_channels, *op.kernel, op.reduction // math.prod(op.kernel))
    if op.kind is OpKind.LINEAR:
        weights_shape = (op.out_channels, 1, 1, op.reduction)
    weights = np.full(weights_shape, 2**stored_bits - 1) if extreme else random.integers(0, 2**stored_bits, weights_shape)
    zero = int(random.choice([0, 2 ** (precision.activation_bits - 1)]))
    return Case(
        op=op,
        precision=precision,
        inputs=(codes.astype(np.uint8),),
        stored=StoredWeights(codes=weights.astype(np.uint8), bits=stored_bits),
        constants=random_constants(random, (zero,), op.out_channels, op.out_channels, logits=logits),
    )


def random_constants(
    random: np.random.Generator, zeros: tuple[int, ...], biases: int, scales: int, *, logits: bool = False
) -> OpConstants:
    """Scales from far too small to far too large; shift 51 with small multipliers included."""
    shift = random.integers(1, 52, scales) if random.random() < 0.3 else random.integers(28, 46, scales)
    multiplier = random.integers(2**30, 2**31, scales)
    multiplier[shift == 51] >>= 4
    return OpConstants(
        bias=random.integers(-(2**13), 2**13, biases).astype(np.int32),
        multiplier=(multiplier[:0] if logits else multiplier).astype(np.int32),
        shift=(shift[:0] if logits else shift).astype(np.int32),
        input_zero=zeros,
        output_zero=int(random.choice([0, 2, 8, 128])),
        output_max=int(random.choice([3, 15, 255])),
    )


@st.composite
def convolutions(draw: st.DrawFn, *, depthwise: bool = False) -> Op:
    kernel_size = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    padding = (draw(st.integers(0, kernel_size[0] - 1)), draw(st.integers(0, kernel_size[1] - 1)))
    out_h, out_w = draw(st.integers(1, 9)), draw(st.integers(1, 11))
    height = max(1, (out_h - 1) * stride[0] + kernel_size[0] - 2 * padding[0] + draw(st.integers(0, stride[0] - 1)))
    width = max(1, (out_w - 1) * stride[1] + kernel_size[1] - 2 * padding[1] + draw(st.integers(0, stride[1] - 1)))
    out_h = (height + 2 * padding[0] - kernel_size[0]) // stride[0] + 1
    out_w = (width + 2 * padding[1] - kernel_size[1]) // stride[1] + 1
    groups = draw(st.integers(1, 19)) if depthwise else draw(st.sampled_from([1, 1, 1, 2, 3]))
    in_c = groups if depthwise else groups * draw(st.sampled_from([1, 2, 3, 4, 5, 8, 12, 16, 20]))
    out_c = groups if depthwise else groups * draw(st.integers(1, 9))
    return Op(
        name="conv", kind=OpKind.DEPTHWISE_CONV2D if depthwise else OpKind.CONV2D, inputs=("input",),
        in_shape=(in_c, height, width), out_shape=(out_c, out_h, out_w),
        kernel=kernel_size, stride=stride, padding=padding, groups=groups,
    )  # fmt: skip


precisions = st.sampled_from(ALL_PRECISIONS)


def stored_widths(precision: Precision) -> st.SearchStrategy[int]:
    return st.sampled_from([bits for bits in WIDTHS if bits >= precision.weight_bits])


@many
@given(data=st.data(), op=convolutions(), precision=precisions, seed=seeds, logits=st.booleans())
def test_convolutions_agree(library: Library, data: st.DataObject, op: Op, precision: Precision, seed: int, logits: bool) -> None:
    call = weighted_call(op, precision, data.draw(stored_widths(precision)), seed, logits=logits)
    assert library.agrees(call)


@many
@given(data=st.data(), op=convolutions(depthwise=True), precision=precisions, seed=seeds, logits=st.booleans())
def test_depthwise_convolutions_agree(
    library: Library, data: st.DataObject, op: Op, precision: Precision, seed: int, logits: bool
) -> None:
    call = weighted_call(op, precision, data.draw(stored_widths(precision)), seed, logits=logits)
    assert library.agrees(call)


@many
@given(
    data=st.data(), inputs=st.integers(1, 300), outputs=st.integers(1, 9), precision=precisions, seed=seeds, logits=st.booleans()
)
def test_linear_operations_agree(
    library: Library, data: st.DataObject, inputs: int, outputs: int, precision: Precision, seed: int, logits: bool
) -> None:
    op = Op(name="fc", kind=OpKind.LINEAR, inputs=("input",), in_shape=(inputs,), out_shape=(outputs,))
    call = weighted_call(op, precision, data.draw(stored_widths(precision)), seed, logits=logits)
    assert library.agrees(call)


def conv(in_shape: tuple[int, int, int], outputs: int, size: int, padding: int, groups: int = 1) -> Op:
    _, height, width = in_shape
    out_shape = (outputs, height + 2 * padding - size + 1, width + 2 * padding - size + 1)
    kind = OpKind.DEPTHWISE_CONV2D if groups == in_shape[0] == outputs > 1 else OpKind.CONV2D
    return Op(
        name="conv", kind=kind, inputs=("input",), in_shape=in_shape, out_shape=out_shape,
        kernel=(size, size), padding=(padding, padding), groups=groups,
    )  # fmt: skip


NESTED = [(precision, bits) for precision in ALL_PRECISIONS for bits in WIDTHS if bits >= precision.weight_bits]


@pytest.mark.parametrize(("precision", "stored_bits"), NESTED, ids=str)
def test_fields_hold_the_largest_products(library: Library, precision: Precision, stored_bits: int) -> None:
    ops = [
        conv((64, 4, 5), 7, 3, 1),  # several fields' worth of products
        conv((520, 3, 3), 5, 1, 0),  # more channels than one stretch of sums takes
        conv((128, 5, 9), 3, 3, 1),  # a tile of fewer columns, so that its codes fit
        conv((1, 9, 9), 4, 5, 0),
        conv((12, 6, 7), 12, 3, 1, groups=12),
        Op(name="fc", kind=OpKind.LINEAR, inputs=("input",), in_shape=(1025,), out_shape=(3,)),
    ]
    for op in ops:
        assert library.agrees(weighted_call(op, precision, stored_bits, 1, extreme=True, logits=True))
        assert library.agrees(weighted_call(op, precision, stored_bits, 2, extreme=True))


@pytest.mark.parametrize("text", ["w1a8", "w3a4", "w4a8", "w8a2", "w8a8"])
def test_work_that_is_cut_agrees(library: Library, text: str) -> None:
    """Windows, filters and channels beyond what fits the working memory at once, and last blocks that are not full."""
    ops = [
        conv((1100, 4, 5), 19, 3, 0),
        conv((64, 3, 3), 300, 1, 0),
        conv((40, 15, 16), 40, 3, 1, groups=40),
        conv((19, 14, 15), 19, 13, 6, groups=19),
        conv((34, 5, 4), 36, 3, 1, groups=2),
    ]
    precision = Precision.parse(text)
    for op in ops:
        assert library.agrees(weighted_call(op, precision, 8, 5))
        assert library.agrees(weighted_call(op, precision, precision.weight_bits, 6, extreme=True, logits=True))


@pytest.mark.parametrize("precision", ALL_PRECISIONS, ids=str)
def test_shapes_of_real_networks_agree(library: Library, precision: Precision) -> None:
    resnet, mobilenet = conv((16, 32, 32), 16, 3, 1), conv((64, 12, 12), 64, 1, 0)
    keyword = Op(
        name="conv", kind=OpKind.CONV2D, inputs=("input",), in_shape=(1, 49, 10), out_shape=(64, 25, 5),
        kernel=(10, 4), stride=(2, 2), padding=(5, 1),
    )  # fmt: skip
    for op in (resnet, mobilenet, keyword, conv((32, 24, 24), 32, 3, 1, groups=32)):
        assert library.agrees(weighted_call(op, precision, 8, 3))


@pytest.mark.parametrize("stored_bits", [1, 2, 3, 4, 8])
def test_every_code_is_read_at_every_place_of_a_stored_word(library: Library, stored_bits: int) -> None:
    """Codes of 3 bits straddle bytes and words: an input of one 1 among zeros reads one weight, at any place of 3 words."""
    codes = np.arange(2**stored_bits, dtype=np.uint8)
    for place in range(33):
        inputs = np.zeros(33, np.uint8)
        inputs[place] = 1
        weights = np.random.default_rng(place).integers(0, 2**stored_bits, (len(codes), 1, 1, 33)).astype(np.uint8)
        weights[:, 0, 0, place] = codes
        op = Op(name="fc", kind=OpKind.LINEAR, inputs=("input",), in_shape=(33,), out_shape=(len(codes),))
        pixel = Op(name="conv", kind=OpKind.CONV2D, inputs=("input",), in_shape=(33, 1, 1), out_shape=(len(codes), 1, 1))
        none = np.array([], np.int32)
        constants = OpConstants(
            bias=np.zeros(len(codes), np.int32), multiplier=none, shift=none, input_zero=(0,), output_zero=0, output_max=255
        )
        for bits in (bits for bits in WIDTHS if bits <= stored_bits):
            for taken, shape in ((op, (33,)), (pixel, (1, 1, 33))):
                stored = StoredWeights(codes=weights, bits=stored_bits)
                precision, read = Precision(bits, 8), (inputs.reshape(shape),)
                assert library.agrees(Case(op=taken, precision=precision, inputs=read, stored=stored, constants=constants))


@pytest.mark.parametrize("text", ["w1a1", "w1a3", "w2a1", "w2a3", "w3a1", "w3a2", "w4a1", "w4a3", "w8a1", "w8a3"])
def test_an_activation_width_without_a_kernel_runs_on_the_next_wider_one(library: Library, text: str) -> None:
    precision = Precision.parse(text)
    for op in (conv((16, 8, 9), 6, 3, 1), Op(name="fc", kind=OpKind.LINEAR, inputs=("input",), in_shape=(70,), out_shape=(5,))):
        call = weighted_call(op, precision, precision.weight_bits, 4)
        assert kernel(op, precision).symbol == kernel(op, kernel_precision(precision)).symbol != f"hw_{op.kind}_{precision}"
        assert library.agrees(call)


def test_a_flattened_image_is_read_in_channel_last_order(library: Library) -> None:
    op = Op(name="fc", kind=OpKind.LINEAR, inputs=("pool",), in_shape=(6, 2, 3), out_shape=(5,))
    assert library.agrees(weighted_call(op, Precision(4, 8), 8, 0))


@st.composite
def pools(draw: st.DrawFn, kind: OpKind) -> Op:
    size = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    stride = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    padding = (draw(st.integers(0, size[0] // 2)), draw(st.integers(0, size[1] // 2)))
    channels, height, width = draw(st.integers(1, 9)), draw(st.integers(size[0], 12)), draw(st.integers(size[1], 12))
    out_h = (height + 2 * padding[0] - size[0]) // stride[0] + 1
    out_w = (width + 2 * padding[1] - size[1]) // stride[1] + 1
    return Op(
        name="pool", kind=kind, inputs=("input",), in_shape=(channels, height, width), out_shape=(channels, out_h, out_w),
        kernel=size, stride=stride, padding=padding,
    )  # fmt: skip


def weightless_call(op: Op, bits: int, seed: int, scales: int) -> Case:
    random = np.random.default_rng(seed)
    channels, *sides = (*op.in_shape, 1, 1)[:3]
    count = 2 if op.kind is OpKind.ADD else 1
    inputs = tuple(random.integers(0, 2**bits, (*sides, channels)).astype(np.uint8) for _ in range(count))
    zeros = tuple(int(random.choice([0, 2 ** (bits - 1)])) for _ in range(count))
    return Case(
        op=op, precision=Precision(0, bits), inputs=inputs, stored=None, constants=random_constants(random, zeros, 0, scales)
    )


@many
@given(op=pools(OpKind.MAX_POOL), bits=st.sampled_from(WIDTHS), seed=seeds)
def test_max_pools_agree(library: Library, op: Op, bits: int, seed: int) -> None:
    assert library.agrees(weightless_call(op, bits, seed, 0))


@many
@given(op=pools(OpKind.AVG_POOL), bits=st.sampled_from(WIDTHS), seed=seeds)
def test_average_pools_agree(library: Library, op: Op, bits: int, seed: int) -> None:
    assert library.agrees(weightless_call(op, bits, seed, 1))


@many
@given(shape=st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)), bits=st.sampled_from(WIDTHS), seed=seeds)
def test_requantizations_agree(library: Library, shape: tuple[int, int, int], bits: int, seed: int) -> None:
    op = Op(name="relu", kind=OpKind.REQUANTIZE, inputs=("input",), in_shape=shape, out_shape=shape)
    assert library.agrees(weightless_call(op, bits, seed, 1))


@many
@given(shape=st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)), bits=st.sampled_from(WIDTHS), seed=seeds)
def test_additions_agree(library: Library, shape: tuple[int, int, int], bits: int, seed: int) -> None:
    op = Op(name="add", kind=OpKind.ADD, inputs=("a", "b"), in_shape=shape, out_shape=shape)
    call, random = weightless_call(op, bits, seed, 2), np.random.default_rng(seed)
    multiplier, shift = random.integers(0, 2**21, 2), random.integers(1, 31, 1)
    constants = OpConstants(
        bias=np.array([], np.int32), multiplier=multiplier.astype(np.int32), shift=shift.astype(np.int32),
        input_zero=call.constants.input_zero, output_zero=call.constants.output_zero, output_max=call.constants.output_max,
    )  # fmt: skip
    assert library.agrees(replace(call, constants=constants))


@pytest.mark.parametrize("kind", OpKind)
def test_the_random_case_of_every_kind_agrees_in_every_form_that_is_measured(library: Library, kind: OpKind) -> None:
    """The smallest shape at each precision, width of stored weights and kind of output."""
    works = sorted((work for work in default_grid() if work.op.kind is kind), key=lambda work: -math.prod(work.op.in_shape))
    forms = {(work.precision, work.stored_bits, work.logits): work for work in works}
    assert forms
    for work in forms.values():
        case = random_case(work.op, work.precision, work.stored_bits, seed=1, logits=work.logits)
        assert len(expected(case)) == case.output_bytes
        assert library.agrees(case), str(work.key)


def run_argmax(library: Library, logits: NDArray[np.int32]) -> tuple[int, int]:
    op = Op(name="decide", kind=OpKind.ARGMAX, inputs=("fc",), in_shape=(len(logits),), out_shape=(2,))
    none = np.array([], np.int32)
    constants = OpConstants(bias=none, multiplier=none, shift=none, input_zero=(0,), output_zero=0, output_max=255)
    case = Case(op=op, precision=Precision(0, 8), inputs=(logits,), stored=None, constants=constants)
    index, margin = np.frombuffer(library.run(case), np.uint32)
    return int(index), int(margin)


@many
@given(values=st.lists(st.integers(-(2**31), 2**31 - 1) | st.sampled_from([-(2**31), 0, 2**31 - 1]), min_size=1, max_size=12))
def test_argmax_agrees(library: Library, values: list[int]) -> None:
    logits = np.array(values, np.int32)
    index, margin = reference.argmax(logits[None])
    assert run_argmax(library, logits) == (int(index[0]), int(margin[0]))


def test_rounding_is_exhaustively_that_of_the_reference_around_every_half(library: Library) -> None:
    op = Op(name="fc", kind=OpKind.LINEAR, inputs=("input",), in_shape=(1,), out_shape=(2000,))
    codes = StoredWeights(codes=np.zeros((2000, 1, 1, 1), np.uint8), bits=2)
    for shift in range(1, 52):
        multiplier = 2**30 if shift < 51 else 2**30 - 1
        step = 2.0 ** (shift - 30)
        bias = np.round((np.arange(2000) // 8 - 5) * step / 2 + np.arange(2000) % 8 - 4)
        constants = OpConstants(
            bias=np.clip(bias, -(2**30), 2**30).astype(np.int32), multiplier=np.full(2000, multiplier, np.int32),
            shift=np.full(2000, shift, np.int32), input_zero=(0,), output_zero=5, output_max=255,
        )  # fmt: skip
        assert library.agrees(
            Case(op=op, precision=Precision(2, 2), inputs=(np.zeros(1, np.uint8),), stored=codes, constants=constants)
        )


def test_every_function_of_the_catalogue_exists(library: Library) -> None:
    assert all(hasattr(library.functions, found.symbol) for found in all_kernels())
    assert len(all_kernels()) == sum(15 if kind.has_weights else 1 for kind in OpKind)


@pytest.mark.parametrize(("widths", "has_one"), [(("HW_W=4", "HW_A=4"), True), ((), False)])
def test_a_source_gives_the_function_of_one_pair_of_widths_and_without_them_nothing(
    widths: tuple[str, ...], has_one: bool, tmp_path: Path
) -> None:
    sources = [C_FOLDER / source for source in all_sources() if source.endswith("/hw_linear.c")]
    out, compiler = tmp_path / "linear.so", find_compiler(HOST)
    library = ctypes.CDLL(str(build_shared(sources, out=out, compiler=compiler, includes=INCLUDES, macros=widths)))
    found = [function.symbol for function in all_kernels() if hasattr(library, function.symbol)]
    assert found == (["hw_linear_w4a4"] if has_one else [])


def test_sums_that_could_overflow_are_refused() -> None:
    wide = Op(name="fc", kind=OpKind.LINEAR, inputs=("input",), in_shape=(20000,), out_shape=(2,))
    assert supported(wide, Precision(4, 4)) and not supported(wide, Precision(8, 8))
    with pytest.raises(NetworkError, match="20000 products may reach 1300500000"):
        kernel(wide, Precision(8, 8))


@pytest.mark.parametrize(
    ("precision", "reason"), [(Precision(5, 8), "2, 3, 4 or 8 bits"), (Precision(0, 8), "name a weight width")]
)
def test_precisions_without_a_kernel_are_refused(precision: Precision, reason: str) -> None:
    with pytest.raises(NetworkError, match=reason):
        kernel(conv((4, 4, 4), 4, 3, 1), precision)


def test_depthwise_convolutions_with_several_filters_per_channel_are_refused() -> None:
    op = Op(
        name="conv", kind=OpKind.DEPTHWISE_CONV2D, inputs=("input",), in_shape=(4, 3, 3), out_shape=(8, 1, 1),
        kernel=(3, 3), groups=4,
    )  # fmt: skip
    with pytest.raises(NetworkError, match="grouped conv2d"):
        kernel(op, Precision(8, 8))
