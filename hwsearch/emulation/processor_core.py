"""What is recorded of a processor core: how it is emulated, how C is built for it, what its instructions cost.

Each core is one such record in a file of its own in `cores/`; `known_cores.py` lists them.
"""

from dataclasses import dataclass, field

from hwsearch.emulation.architecture import Architecture
from hwsearch.emulation.build_target import BuildTarget
from hwsearch.emulation.cycle_model import CycleModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """`emulator_model` is unicorn's name of the core. `costs` are the cycle model's in a few words, `sources` where its numbers
    are from, `validity` how far they were held against silicon. `issue_only` says that the model leaves out caches, fetch and
    mispredicted branches, so that its cycles are right in kind and not in number."""

    name: str
    emulator_model: str
    architecture: Architecture
    build_target: BuildTarget
    cycle_model: CycleModel = field(hash=False)  # may hold tables
    costs: str
    sources: str
    validity: str
    issue_only: bool = False

    @property
    def description(self) -> str:
        """The core and its cycle model, as a run's record has them: rows hold as long as it stays the same."""
        return f"{self.name}, {self.costs}"
