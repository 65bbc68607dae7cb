"""The core of the ESP32-C3: RV32IMC, four stages in order."""

from hwsearch.emulation.build_target import bare
from hwsearch.emulation.processor_core import Core
from hwsearch.emulation.riscv import RV32
from hwsearch.emulation.single_issue import SingleIssue

ESP32_C3 = Core(
    name="ESP32-C3",
    emulator_model="UC_CPU_RISCV32_SIFIVE_E31",  # RV32IMC and atomics, which compilers are not allowed to use
    architecture=RV32,
    build_target=bare("rv32imc", "-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+m+c"),
    cycle_model=SingleIssue(refill=2, divide=17, load=1, load_use=1),  # divide: the middle of 1 to 33, a bit per cycle
    costs="four stages in order, costs assumed",
    sources="no table is published; what such a pipeline usually takes, assumed",
    validity="not validated: costs assumed, no published cycle count compared",
)
