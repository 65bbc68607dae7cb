"""What is compiled for a kernel: its function alone, as a package that uses nothing else compiles it."""

from collections.abc import Iterable
from pathlib import Path

from hwsearch.emulation.toolchain import in_cache
from hwsearch.kernels.catalogue import C_FOLDER, Kernel, unit

INCLUDES = (C_FOLDER,)
"""Folders that every kernel source needs on its include path."""


def units(functions: Iterable[Kernel]) -> list[Path]:
    """A source for each function that compiles it alone, as a package has: what to build where several go into one file."""
    return [in_cache("units", unit(item.sources, item.macros).encode(), f"{item.symbol}.c") for item in functions]
