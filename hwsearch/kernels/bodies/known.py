"""All sets of C bodies; a new folder is made known here."""

from hwsearch.emulation.isa import Isa
from hwsearch.kernels.bodies.body import Body
from hwsearch.kernels.bodies.cortex_m import CORTEX_M
from hwsearch.kernels.bodies.cortex_m0 import CORTEX_M0
from hwsearch.kernels.bodies.neon import NEON
from hwsearch.kernels.bodies.portable import PORTABLE
from hwsearch.kernels.bodies.riscv import RISCV
from hwsearch.kernels.bodies.x86 import X86

BODIES: dict[str, Body] = {
    "portable": PORTABLE,
    "cortex_m": CORTEX_M,
    "cortex_m0": CORTEX_M0,
    "riscv": RISCV,
    "x86": X86,
    "neon": NEON,
}
"""By folder, the portable one first."""


def bodies_for(isa: Isa) -> tuple[Body, ...]:
    """The portable bodies, and those of the instruction set's own folder if it has one."""
    return (PORTABLE, *(body for body in BODIES.values() if isa in body.isas))
