"""Linked images: what an ELF file holds, by name and by size."""

from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

from hwsearch.emulation.linker_script import BUILTINS_BEGIN, BUILTINS_END, RAM_START, SECTION_ALIGNMENT
from hwsearch.errors import ToolchainError


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What a linked file says about itself.

    `segments`: address and content of what must be loaded; `symbols`, `sizes`: address (lowest bit set for functions in
    Thumb) and bytes by name; `code`: address and bytes of the code section; `code_marks`: sorted addresses at which code (True)
    or data (False) begins in it; `flash_bytes`: code, constants and initial values; `ram_bytes`: variables; `builtins`: bytes of
    each function of the compiler's own library, which are part of `flash_bytes`.
    """

    segments: tuple[tuple[int, bytes], ...]
    symbols: dict[str, int]
    sizes: dict[str, int]
    code: tuple[int, int]
    code_marks: tuple[tuple[int, bool], ...]
    flash_bytes: int
    ram_bytes: int
    builtins: dict[str, int]

    @property
    def own_bytes(self) -> int:
        """Code and constants that were compiled from the given sources."""
        return self.flash_bytes - sum(self.builtins.values())

    @classmethod
    def read(cls, path: Path) -> "Image":
        """From an ELF file.

        Raises:
            ToolchainError: pyelftools is not installed, or the file has no code or no symbols.
        """
        try:
            from elftools.elf.elffile import ELFFile
        except ImportError as missing:
            raise missing_library("pyelftools") from missing
        with path.open("rb") as file:
            elf = ELFFile(file)
            text, table = elf.get_section_by_name(".text"), elf.get_section_by_name(".symtab")
            if not text or not table:
                raise ToolchainError(f"An image must have code and symbols, but {path.name} has not; link without stripping.")
            return _read(elf, text, table)


_MARKS = {"$t": True, "$x": True, "$d": False}
"""Mapping symbols: Thumb, other instruction sets, data. Without any, all of the section is code."""


def _read(elf: Any, text: Any, table: Any) -> Image:
    loaded = [segment for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD"]
    named = [symbol for symbol in table.iter_symbols() if symbol.name]
    plain = [symbol for symbol in named if not symbol.name.startswith("$")]
    first, size = text["sh_addr"], text["sh_size"]
    marks = {symbol["st_value"]: _MARKS[symbol.name[:2]] for symbol in named if symbol.name[:2] in _MARKS} or {first: True}
    symbols = {symbol.name: symbol["st_value"] for symbol in plain}
    return Image(
        segments=tuple((segment["p_vaddr"], segment.data()) for segment in loaded if segment["p_filesz"]),
        symbols=symbols,
        sizes={symbol.name: symbol["st_size"] for symbol in plain},
        code=(first, size),
        code_marks=tuple(sorted((at, is_code) for at, is_code in marks.items() if first <= at < first + size)),
        flash_bytes=sum(segment["p_filesz"] for segment in loaded),
        ram_bytes=max(0, *(segment["p_vaddr"] + segment["p_memsz"] - RAM_START for segment in loaded)),
        builtins=_builtins(symbols),
    )


def _builtins(symbols: dict[str, int]) -> dict[str, int]:
    """Bytes of each function of the compiler's library with the gap behind it, under the first of its names."""
    begin, end = symbols.get(BUILTINS_BEGIN, 0), symbols.get(BUILTINS_END, 0)
    names: dict[int, str] = {end: ""}
    for name, value in sorted(symbols.items(), reverse=True):
        address = value & -2
        if begin <= address < end and address % SECTION_ALIGNMENT == 0 and name != BUILTINS_BEGIN:
            names[address] = name
    starts = sorted(names)
    return {names[start]: after - start for start, after in pairwise(starts)}


def code_bytes(content: bytes, without: str) -> int:
    """Bytes of all functions in a library of this computer but one, from the content of its file.

    Raises:
        ToolchainError: pyelftools is not installed, or the file is no ELF file (other systems than Linux).
    """
    try:
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile
    except ImportError as missing:
        raise missing_library("pyelftools") from missing
    try:
        symbols = list(ELFFile(BytesIO(content)).get_section_by_name(".symtab").iter_symbols())
    except ELFError as other:
        raise ToolchainError("Libraries must be in ELF format, as on Linux, but are not; measure on such a system.") from other
    functions = {symbol["st_value"]: symbol for symbol in symbols if symbol["st_info"]["type"] == "STT_FUNC"}
    return sum(int(symbol["st_size"]) for symbol in functions.values() if symbol.name != without)


def missing_library(name: str) -> ToolchainError:
    """What to say when a library of the extra `mcu` is not there."""
    return ToolchainError(
        f"Measuring kernels needs the library {name}, but it is not installed; install it with: pip install 'hwsearch[mcu]'."
    )
