"""Arm Cortex-A72: Armv8-A, three operations per cycle enter a window of 128 and start as soon as operands and a unit are free.

Only W multiplies, only X accumulates pairs, shifts by registers, narrows.
"""

from hwsearch.emulation.aarch64 import AARCH64
from hwsearch.emulation.build_target import bare
from hwsearch.emulation.pipelines import Cost, Pipeline
from hwsearch.emulation.processor_core import Core

PIPELINE = Pipeline(
    width=3,
    units={"B": 1, "I": 2, "M": 1, "L": 1, "S": 1, "X": 1, "W": 1},
    either={"V": "XW"},
    window=128,
    costs={
        "plain": Cost("I", 1),
        "shifted": Cost("M", 2),
        "multiply general": Cost("M", 3, 1),
        "divide": Cost("M" * 8, 12),
        "branch": Cost("B", 1),
        "call": Cost("BI", 1),
        "load": Cost("L", 4),
        "load q": Cost("L", 5),
        "load pair": Cost("L", 5),
        "load pair q": Cost("LL", 6),
        "load lane": Cost("LV", 8),
        "load two": Cost("LLVV", 9),
        "load four": Cost("LLLLVVVV", 11),
        "store": Cost("S", 1),
        "store q": Cost("SS", 2),
        "store pair": Cost("S", 1),
        "store pair q": Cost("SSSS", 4),
        "store lane": Cost("S", 1),
        "store two": Cost("SSSS", 4),
        "store four": Cost("SSSSSSSS", 8),
        "transfer": Cost("IL", 6),
        "insert": Cost("LV", 8),
        "vector d": Cost("V", 3),
        "vector q": Cost("V", 3),
        "multiply d": Cost("W", 5, 1),
        "multiply q": Cost("WW", 6, 2),
        "multiply long q": Cost("W", 5, 1),
        "accumulate d": Cost("X", 4, 1),
        "accumulate q": Cost("X", 4, 1),
        "reduce d": Cost("X", 4),
        "reduce q": Cost("VX", 7),
        "shift d": Cost("V", 3),
        "shift q": Cost("XX", 4),
        "round d": Cost("X", 4),
        "round q": Cost("XX", 5),
        "narrow d": Cost("X", 4),
        "narrow q": Cost("X", 4),
        "table d": Cost("V", 3),
        "table q": Cost("VVV", 6),
        "permute d": Cost("V", 3),
        "permute q": Cost("VVV", 6),
        "select d": Cost("V", 3),
        "select q": Cost("VV", 3),
    },
)

CORTEX_A72 = Core(
    name="Cortex-A72",
    emulator_model="UC_CPU_ARM64_A72",
    architecture=AARCH64,
    build_target=bare("aarch64", "-target", "aarch64-freestanding-none"),  # any: as a Linux computer is given
    cycle_model=PIPELINE,
    costs="units and latencies of LLVM's model",
    sources="units, operations and latencies of LLVM's scheduling model (AArch64SchedA57.td, which LLVM uses for the A72 too), "
    "for what it names; assumed: stores of pairs, and stores of four registers",
    validity="a model of issue alone, without caches, fetch and mispredicted branches; not compared with a board",
    issue_only=True,
)
