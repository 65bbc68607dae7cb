"""What Python knows of one folder of C bodies: for which cores it is, what memory its functions take, how their loops turn."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hwsearch.emulation.isa import Isa
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision

Turns = dict[str, float]
"""How often each loop of a function runs, by the loop's name; one that is not named runs never."""
Scratch = Callable[[Op, Precision], int]
"""Bytes of working memory of an operation at the precision of its kernel, whatever width its weights are stored at."""
Loops = Callable[[Op, Precision, int], Turns]
"""Turns of an operation's loops at the precision of its kernel, its weights stored at so many bits (0 without weights)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A folder below `kernels/c/`. `number` is what `HW_BODIES` calls it in c/portable/hw_portable.h, 0 the portable one.

    `scratch` has the kinds of operation whose functions take working memory, `loops` those whose time interpolation explains
    by them. Shapes that a function hands on to the portable one need nothing here: that one's memory is there anyway.
    """

    folder: str
    number: int
    isas: tuple[Isa, ...]
    scratch: Mapping[OpKind, Scratch] = field(default_factory=dict)
    loops: Mapping[OpKind, Loops] = field(default_factory=dict)
