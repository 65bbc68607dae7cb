"""Arm Cortex-M4: Armv7E-M, three stages in order."""

from hwsearch.emulation.build_target import cortex_m
from hwsearch.emulation.processor_core import Core
from hwsearch.emulation.single_issue import SingleIssue
from hwsearch.emulation.thumb import THUMB

CORTEX_M4 = Core(
    name="Cortex-M4",
    emulator_model="UC_CPU_ARM_CORTEX_M4",
    architecture=THUMB,
    build_target=cortex_m("cortex-m4", "cortex_m4"),
    cycle_model=SingleIssue(refill=3, divide=7, unaligned_fetch=1, pairs_loads=True),
    costs="TRM 100166 costs, refill 3, fetch alignment",
    sources="Arm's public Technical Reference Manual (100166, table 3-1 and its load/store timings); two rules are not in it, "
    "others found them by measuring: a taken branch to a 32-bit instruction that is not word-aligned costs 1 more, and so does "
    "a run of three or more such instructions",
    validity="without wait states: mean error 0.9 %, largest 3.3 %, over 32 published cycle counts of cryptographic code on "
    "Cortex-M4 silicon (pqm4); refill and fetch alignment were chosen on those same points",
)
