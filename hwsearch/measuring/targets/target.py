"""What a target is: it builds a kernel for itself, runs one call of it, and counts."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

from hwsearch.emulation.toolchain import Compiler
from hwsearch.graph.menu import PolicyKind
from hwsearch.hardware.profile import Provenance
from hwsearch.integers.cases import Case
from hwsearch.kernels.catalogue import Kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Counts of one call in the target's unit: median and 5th and 95th percentile over repeats; and what the call wrote."""

    median: float
    p05: float
    p95: float
    repeats: int
    output: bytes


class Target(Protocol):
    """Something that runs kernels and counts."""

    name: ClassVar[str]
    unit: ClassVar[str]
    workers: ClassVar[int]
    """How many processes may time at once without disturbing each other; 0 is as many as there are cores."""
    on_this_computer: ClassVar[bool]
    """Whether the kernels run on this computer's own cores, so that its energy counters see them."""
    is_model: ClassVar[bool]
    """Whether counts are a model's, the same on every computer: those under another description are of another model."""

    @property
    def compiler(self) -> Compiler:
        """What builds the kernels."""

    @property
    def provenance(self) -> Provenance:
        """Where its counts come from."""

    def code_bytes(self, function: Kernel) -> int:
        """Bytes of machine code and constants of one kernel, without what the compiler's library adds."""

    def builtins(self, function: Kernel) -> dict[str, int]:
        """Bytes of each function of the compiler's library that the kernel needs, where it would be linked with it."""

    def runtime(self) -> dict[PolicyKind, dict[str, int]]:
        """Flash of each policy's package without kernels and data, by part; empty where no image is linked."""

    def digest(self, function: Kernel) -> bytes:
        """A hash of the built kernel."""

    def time(self, case: Case) -> Timing:
        """Run one call."""

    def describe(self) -> str:
        """The machine, in words, for the record of a run."""
