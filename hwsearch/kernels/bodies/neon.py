"""What the kernels in `kernels/c/neon/` need: convolutions cut the memory of the portable ones anew and take no more of it.

Nobody has counted their loops yet: interpolation takes those of the bodies whose counts fit best.
"""

import math

from hwsearch.emulation.isa import Isa
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.kernels.bodies.body import Body
from hwsearch.kernels.bodies.portable import convolution_tiling

FEWEST_CHANNELS, MOST_TAPS = 8, 64


def depthwise_scratch(op: Op, _: Precision) -> int:
    """A byte for each weight, and a pixel of padding; few channels and large windows go one by one, without memory."""
    taps, channels = math.prod(op.kernel), op.in_shape[0]
    return (taps + 1) * channels if channels >= FEWEST_CHANNELS and taps <= MOST_TAPS else 0


def linear_scratch(op: Op, _: Precision) -> int:
    """The whole vectors of the input, a byte for each code; the rest is arranged on the stack."""
    return op.reduction // 16 * 16


NEON = Body(
    folder="neon",
    number=5,
    isas=(Isa.ARMV8_A,),
    scratch={
        OpKind.CONV2D: lambda op, _: convolution_tiling(op).scratch_bytes(),
        OpKind.DEPTHWISE_CONV2D: depthwise_scratch,
        OpKind.LINEAR: linear_scratch,
    },
)
