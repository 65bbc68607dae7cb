"""The instruction sets that a device may have, by the names that a profile's `[device] isa` gives.

A set of C bodies says for which of them it is written (`kernels/bodies/`); on the others the portable bodies run.
"""

from enum import StrEnum


class Isa(StrEnum):
    ARMV6_M = "ARMv6-M"
    ARMV7_M = "ARMv7-M"
    ARMV7E_M = "ARMv7E-M"
    ARMV8_M_BASELINE = "ARMv8-M Baseline"
    ARMV8_M_MAINLINE = "ARMv8-M Mainline"
    ARMV8_M_MAINLINE_DSP = "ARMv8-M Mainline with DSP"
    ARMV8_A = "ARMv8-A"
    RV32IMC = "RV32IMC"
    RV32IMAC = "RV32IMAC"
    X86_64 = "x86-64"
