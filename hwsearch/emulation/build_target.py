"""What C is built for: a name, the compilers that can, and the flags that each of them needs.

Flags are fixed here and in the records of cores, and recorded in every table, because a table is only valid for code built the
same way. Functions and loops are aligned, so that cycles do not move with the order in which functions are linked.
"""

from dataclasses import dataclass
from pathlib import Path

ZIG = "ziglang"
"""The compiler that comes from PyPI and builds for everything."""

_FREESTANDING = Path(__file__).parent / "freestanding"
"""The one header that C without an operating system may include and compilers do not bring: string.h."""
_WARNINGS = ("-Wall", "-Wextra", "-Werror")
_COMMON = ("-std=c99", "-O3", *_WARNINGS)
_SECTIONS = ("-ffunction-sections", "-fdata-sections")
_ALIGNED = ("-falign-functions=32", "-falign-loops=4")
_BARE = ("-ffreestanding", "-fomit-frame-pointer", f"-isystem{_FREESTANDING}")
# zig switches builtins off and traps on where there is no operating system: memcpy of 4 bytes would become a call.
_BARE_ZIG = ("-fbuiltin", "-fno-sanitize=undefined")
_HOST_GCC = (*_COMMON, "-fPIC")
_HOST_ZIG = (*_HOST_GCC, "-fno-sanitize=undefined")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildTarget:
    """`compilers` are tried in turn; `gcc` are the flags of those that take gcc's options, `zig` those of ziglang; empty
    where such a compiler cannot build for it."""

    name: str
    compilers: tuple[str, ...]
    gcc: tuple[str, ...] = ()
    zig: tuple[str, ...] = ()

    def flags(self, compiler: str) -> tuple[str, ...]:
        """The flags of a compiler, by its name; empty if it cannot build for this.

        >>> LINUX_TARGETS["linux-x86_64"].flags("ziglang")[:2]
        ('-target', 'x86_64-linux-gnu.2.28')
        """
        return self.zig if compiler == ZIG else self.gcc


HOST = BuildTarget(name="host", compilers=("cc", "gcc", "clang", ZIG), gcc=_HOST_GCC, zig=_HOST_ZIG)
"""This computer."""


def _linux(name: str, triple: str) -> BuildTarget:
    return BuildTarget(name=name, compilers=(ZIG,), zig=("-target", triple, *_HOST_ZIG))


LINUX_TARGETS = {
    "linux-aarch64": _linux("linux-aarch64", "aarch64-linux-gnu.2.28"),
    "linux-x86_64": _linux("linux-x86_64", "x86_64-linux-gnu.2.28"),
}
"""Other computers, by `uname`; 2.28 is the oldest C library that what is built runs with."""


def bare(name: str, *processor: str) -> BuildTarget:
    """A core without an operating system; `processor` are the options that tell zig which.

    >>> bare("rv32imc", "-target", "riscv32-freestanding-none").compilers
    ('ziglang',)
    """
    return BuildTarget(name=name, compilers=(ZIG,), zig=_bare(*processor, *_BARE_ZIG))


def cortex_m(name: str, zig_name: str) -> BuildTarget:
    """A Cortex-M without floating-point instructions, by gcc's and zig's names of it.

    >>> cortex_m("cortex-m4", "cortex_m4").compilers
    ('arm-none-eabi-gcc', 'ziglang')
    """
    return BuildTarget(
        name=name,
        compilers=("arm-none-eabi-gcc", ZIG),
        gcc=_bare(f"-mcpu={name}", "-mthumb", "-mfloat-abi=soft", "-fno-tree-loop-distribute-patterns"),
        zig=_bare("-target", "thumb-freestanding-eabi", f"-mcpu={zig_name}", *_BARE_ZIG),
    )


def _bare(*processor: str) -> tuple[str, ...]:
    return (*_COMMON, *processor, *_SECTIONS, *_ALIGNED, *_BARE)
