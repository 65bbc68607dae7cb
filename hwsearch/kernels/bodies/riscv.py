"""What the kernels in `kernels/c/riscv/` need: convolutions cut the memory of the portable ones anew and take no more of it.

Nobody has counted their loops yet: interpolation takes those of the bodies whose counts fit best.
"""

from hwsearch.emulation.isa import Isa
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.kernels.bodies.body import Body
from hwsearch.kernels.bodies.portable import WORD_CODES, convolution_tiling, depthwise_stretches


def linear_lanes(precision: Precision) -> int:
    """Codes of one multiplication (`HW_LANES` in `hw_riscv.h`): as many as have a sum of products that fits a field."""
    largest = (2**precision.weight_bits - 1) * (2**precision.activation_bits - 1)
    return 4 if 4 * largest < 2**8 else 2 if 2 * largest < 2**16 else 1


def linear_scratch(op: Op, precision: Precision) -> int:
    """The input as words of so many lanes, in whole words of stored codes; single bytes are read where they lie.

    Of weights stored at 3 bits whole stretches of 32 alone are arranged, to 16 words each.
    """
    lanes, per_word = linear_lanes(precision), WORD_CODES[precision.weight_bits]
    if lanes == 1:
        return 0
    arranged = -(-op.reduction // per_word) * per_word * 4 // lanes
    return max(arranged, op.reduction // 32 * 64) if precision.weight_bits <= 3 else arranged


RISCV = Body(
    folder="riscv",
    number=3,
    isas=(Isa.RV32IMC, Isa.RV32IMAC),
    scratch={
        OpKind.CONV2D: lambda op, _: convolution_tiling(op).scratch_bytes(),
        OpKind.DEPTHWISE_CONV2D: lambda op, _: depthwise_stretches(op).scratch_bytes(),
        OpKind.LINEAR: linear_scratch,
    },
)
