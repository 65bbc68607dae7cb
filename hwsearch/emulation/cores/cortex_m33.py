"""Arm Cortex-M33: Armv8-M Mainline with the DSP extension, three stages in order."""

from hwsearch.emulation.build_target import cortex_m
from hwsearch.emulation.cores.cortex_m4 import CORTEX_M4
from hwsearch.emulation.processor_core import Core
from hwsearch.emulation.thumb import THUMB

CORTEX_M33 = Core(
    name="Cortex-M33",
    emulator_model="UC_CPU_ARM_CORTEX_M33",
    architecture=THUMB,
    build_target=cortex_m("cortex-m33", "cortex_m33+dsp"),
    cycle_model=CORTEX_M4.cycle_model,
    costs="costs of the Cortex-M4",
    sources="Arm publishes no table; the Cortex-M4's is used as it is",
    validity="0.4 % to 9.1 % above the published latency of four MLPerf Tiny networks on one Cortex-M33 (nRF5340, CMSIS-NN)",
)
