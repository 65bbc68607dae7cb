"""The Cortex-M0+ of chips that chose the small multiplier, which takes a cycle for each bit."""

from dataclasses import replace

from hwsearch.emulation.cores.cortex_m0plus import CORTEX_M0PLUS
from hwsearch.emulation.single_issue import SingleIssue

CORTEX_M0PLUS_SMALL = replace(
    CORTEX_M0PLUS,
    cycle_model=SingleIssue(refill=1, multiply=32, store=2, call=1, loaded_counter=1),
    costs="DDI 0484 costs as recalled, multiplier of 32 cycles",
)
