"""Arm Cortex-A53: Armv8-A, in order, two instructions per cycle.

Vector registers are 64 bits wide inside: 128 bits take two cycles.
"""

from hwsearch.emulation.aarch64 import AARCH64
from hwsearch.emulation.build_target import bare
from hwsearch.emulation.pipelines import Cost, Pipeline
from hwsearch.emulation.processor_core import Core

_VECTORS = ("vector", "multiply", "accumulate", "shift", "round", "narrow", "table", "permute", "select", "reduce")

PIPELINE = Pipeline(
    width=2,
    units={"B": 1, "I": 2, "M": 1, "D": 1, "L": 1, "V": 1},
    costs={
        "plain": Cost("I", 1),
        "shifted": Cost("I", 2),
        "multiply general": Cost("M", 3, 2),
        "divide": Cost("D" * 4, 8),
        "branch": Cost("B", 1),
        "call": Cost("B", 1),
        "load": Cost("L", 3),
        "load q": Cost("LL", 4),
        "load pair": Cost("LL", 4),
        "load pair q": Cost("LLLL", 6),
        "load lane": Cost("L", 4),
        "load two": Cost("LLLL", 7),
        "load four": Cost("LLLLL", 8),
        "store": Cost("L", 1),
        "store q": Cost("LL", 1),
        "store pair": Cost("LL", 1),
        "store pair q": Cost("LLLL", 1),
        "store lane": Cost("L", 1),
        "store two": Cost("LL", 1),
        "store four": Cost("LLL", 1),
        "transfer": Cost("V", 4),
        "insert": Cost("V", 6),
        **{f"{name} d": Cost("V", 4) for name in _VECTORS},
        **{f"{name} q": Cost("VV", 4) for name in (*_VECTORS, "multiply long")},
    },
)

CORTEX_A53 = Core(
    name="Cortex-A53",
    emulator_model="UC_CPU_ARM64_A53",
    architecture=AARCH64,
    build_target=bare("aarch64", "-target", "aarch64-freestanding-none"),  # any: as a Linux computer is given
    cycle_model=PIPELINE,
    costs="units and latencies of LLVM's model",
    sources="units, operations and latencies of LLVM's scheduling model (AArch64SchedA53.td), for what it names; assumed: "
    "128-bit and paired loads and stores take two cycles, vector results are there after 4 cycles",
    validity="a model of issue alone, without caches, fetch and mispredicted branches; not compared with a board",
    issue_only=True,
)
