"""Arm Cortex-M0+: Armv6-M, two stages in order, multiplying in one cycle."""

from hwsearch.emulation.build_target import cortex_m
from hwsearch.emulation.processor_core import Core
from hwsearch.emulation.single_issue import SingleIssue
from hwsearch.emulation.thumb import THUMB

CORTEX_M0PLUS = Core(
    name="Cortex-M0+",
    emulator_model="UC_CPU_ARM_CORTEX_M0",  # the same instructions
    architecture=THUMB,
    build_target=cortex_m("cortex-m0plus", "cortex_m0plus"),
    cycle_model=SingleIssue(refill=1, store=2, call=1, loaded_counter=1),
    costs="DDI 0484 costs as recalled, multiplier of 1 cycle",
    sources="recalled from Arm's manual (DDI 0484), not looked up",
    validity="not validated: costs recalled from the manual, no published cycle count compared",
)
