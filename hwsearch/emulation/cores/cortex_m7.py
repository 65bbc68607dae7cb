"""Arm Cortex-M7: Armv7E-M, six stages in order, up to two instructions per cycle."""

from hwsearch.emulation.build_target import cortex_m
from hwsearch.emulation.dual_issue import DualIssue
from hwsearch.emulation.processor_core import Core
from hwsearch.emulation.thumb import THUMB

CORTEX_M7 = Core(
    name="Cortex-M7",
    emulator_model="UC_CPU_ARM_CORTEX_M7",
    architecture=THUMB,
    build_target=cortex_m("cortex-m7", "cortex_m7"),
    cycle_model=DualIssue(refill=1, divide=7),
    costs="in-order dual issue, refill 1",
    sources="Arm publishes no table; units and latencies as in LLVM's scheduling model (ARMScheduleM7.td)",
    validity="not validated: on CMSIS-NN 1.46 to 1.49 times fewer cycles than the Cortex-M4 model, where published networks of "
    "one library on both cores give 1.41 to 1.83; 25 % either way",
)
