"""What the kernels in `kernels/c/x86/` need: all from the stack, but for the input of linear operations.

Nobody has counted their loops yet: interpolation takes those of the bodies whose counts fit best.
"""

from hwsearch.emulation.isa import Isa
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.kernels.bodies.body import Body


def linear_scratch(op: Op, _: Precision) -> int:
    """The input as 16-bit numbers, in whole vectors of 16; as bytes, where a processor multiplies those, it takes less."""
    return -(-op.reduction // 16) * 32


X86 = Body(folder="x86", number=4, isas=(Isa.X86_64,), scratch={OpKind.LINEAR: linear_scratch})
