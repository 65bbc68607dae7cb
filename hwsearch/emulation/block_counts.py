"""Counts of what an emulated core executes: a native unicorn hook where a host compiler exists, else the same in Python.

Both fill the same structure, so that a table does not depend on which one counted; the native one is some twenty times faster.
"""

import ctypes
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hwsearch.emulation.build_target import HOST
from hwsearch.emulation.toolchain import build_shared, find_compiler
from hwsearch.errors import ToolchainError

HOOK_SOURCE = Path(__file__).parent / "hw_block_hook.c"
MAX_LINES = 1024
_NO_LINE = 0xFFFF_FFFF
_IT_STATE = 0x0600_FC00


class Cache(ctypes.Structure):
    """`hw_cache` of hw_block_hook.c."""

    _fields_ = (
        ("line_bytes", ctypes.c_uint32),
        ("n_lines", ctypes.c_uint32),
        ("last_line", ctypes.c_uint32),
        ("ways", ctypes.c_uint32),
        ("clock", ctypes.c_uint64),
        ("misses", ctypes.c_uint64),
        ("used", ctypes.c_uint64 * MAX_LINES),
        ("line", ctypes.c_uint32 * MAX_LINES),
    )


class Counts(ctypes.Structure):
    """`hw_counts` of hw_block_hook.c."""

    _fields_ = (
        ("code_start", ctypes.c_uint32),
        ("n_halfwords", ctypes.c_uint32),
        ("flash_start", ctypes.c_uint32),
        ("flash_bytes", ctypes.c_uint32),
        ("previous", ctypes.c_uint32),
        ("previous_end", ctypes.c_uint32),
        ("outside", ctypes.c_uint64),
        ("resized", ctypes.c_uint64),
        ("unaligned", ctypes.c_uint64),
        ("executed", ctypes.c_void_p),
        ("left", ctypes.c_void_p),
        ("entered", ctypes.c_void_p),
        ("block_bytes", ctypes.c_void_p),
        ("read_register", ctypes.c_void_p),
        ("write_register", ctypes.c_void_p),
        ("status_register", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("code", Cache),
        ("data", Cache),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Where code lies, where reads go through the flash's data cache, and the two caches.

    A cache is (lines, bytes per line, ways); 0 ways stand for fully associative.
    """

    code_start: int
    code_bytes: int
    flash_start: int
    flash_bytes: int
    code_cache: tuple[int, int, int] = (0, 1, 0)
    data_cache: tuple[int, int, int] = (0, 1, 0)


class BlockCounts:
    """Arrays of one call, `[n_halfwords]` each, indexed by (address - code_start) / 2 of a block's first instruction."""

    def __init__(self, window: Window) -> None:
        n_halfwords = -(-window.code_bytes // 2)
        self.executed: NDArray[np.uint64] = np.zeros(n_halfwords, np.uint64)
        self.left: NDArray[np.uint64] = np.zeros(n_halfwords, np.uint64)
        self.entered: NDArray[np.uint64] = np.zeros(n_halfwords, np.uint64)
        self.block_bytes: NDArray[np.uint32] = np.zeros(n_halfwords, np.uint32)
        self.window = window
        self.state = Counts(
            code_start=window.code_start,
            n_halfwords=n_halfwords,
            flash_start=window.flash_start,
            flash_bytes=window.flash_bytes,
            executed=self.executed.ctypes.data,
            left=self.left.ctypes.data,
            entered=self.entered.ctypes.data,
            block_bytes=self.block_bytes.ctypes.data,
        )
        self.clear()

    def clear(self) -> None:
        """Forget what was counted; both caches are empty again."""
        for array in (self.executed, self.left, self.entered):
            array[:] = 0
        self.block_bytes[:] = 0
        state = self.state
        state.previous = state.previous_end = state.outside = state.resized = state.unaligned = 0
        state.code, state.data = _empty(self.window.code_cache), _empty(self.window.data_cache)

    def finish(self) -> None:
        """Count the return that ended the call: it is a taken branch, but no block follows it."""
        if self.state.previous_end:
            self.left[self.state.previous] += np.uint64(1)


def _empty(shape: tuple[int, int, int]) -> Cache:
    n_lines, line_bytes, ways = shape
    if not 0 <= n_lines <= MAX_LINES or (ways and n_lines % ways):
        raise ValueError(f"a cache must have 0 to {MAX_LINES} lines in whole sets, but {n_lines} in {ways} ways were asked for")
    return Cache(n_lines=n_lines, line_bytes=line_bytes, last_line=_NO_LINE, ways=ways or n_lines)


class Hooks(Protocol):
    """What unicorn calls for each block and each memory access: C function pointers or Python functions."""

    block: Any
    access: Any
    native: bool


class NativeHooks:
    native = True

    def __init__(self, library: ctypes.CDLL) -> None:
        self.block = ctypes.cast(library.hw_count_block, ctypes.c_void_p)
        self.access = ctypes.cast(library.hw_count_access, ctypes.c_void_p)


@cache
def native_hooks() -> NativeHooks | None:
    """The hooks in C; None where no compiler for this computer exists."""
    try:
        compiler = find_compiler(HOST)
    except ToolchainError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = build_shared([HOOK_SOURCE], out=Path(folder) / "hw_block_hook.so", compiler=compiler)
        return NativeHooks(ctypes.CDLL(str(library)))


class PythonHooks:
    """The same as hw_block_hook.c, statement by statement."""

    native = False

    def __init__(self, counts: BlockCounts) -> None:
        self.block: Callable[..., None] = lambda _engine, address, size, _user: _count_block(counts, address, size)
        self.access: Callable[..., None] = lambda engine, _type, address, size, _value, _user: _count_access(
            engine, counts.state, address, size
        )


def _count_block(counts: BlockCounts, start: int, size: int) -> None:
    state = counts.state
    index = (start - state.code_start) // 2
    if not 0 <= index < state.n_halfwords:
        state.outside += 1
        return
    if state.previous_end != start:
        if state.previous_end:
            counts.left[state.previous] += np.uint64(1)
        counts.entered[index] += np.uint64(1)
    state.resized += int(counts.block_bytes[index]) not in (0, size)
    counts.block_bytes[index] = size
    counts.executed[index] += np.uint64(1)
    state.previous, state.previous_end = index, start + size
    if state.code.n_lines:
        _fetch(state.code, start, size)


def _fetch(cached: Cache, address: int, size: int) -> None:
    for line in range(address // cached.line_bytes, (address + size - 1) // cached.line_bytes + 1):
        if line == cached.last_line:
            continue
        if not _touch(cached, line) and line != cached.last_line + 1:
            cached.misses += 1
        cached.last_line = line


def _touch(cached: Cache, line: int) -> bool:
    cached.clock += 1
    oldest = line % (cached.n_lines // cached.ways) * cached.ways
    for i in range(oldest, oldest + cached.ways):
        if cached.line[i] == line + 1:
            cached.used[i] = cached.clock
            return True
        if cached.used[i] < cached.used[oldest]:
            oldest = i
    cached.line[oldest], cached.used[oldest] = line + 1, cached.clock
    return False


def _clear_it_state(engine: Any, status_register: int) -> None:
    status = engine.reg_read(status_register)
    if status & _IT_STATE:
        engine.reg_write(status_register, status & ~_IT_STATE)


def _count_access(engine: Any, state: Counts, start: int, size: int) -> None:
    if state.status_register:
        _clear_it_state(engine, state.status_register)
    state.unaligned += start % size != 0
    if 0 <= start - state.flash_start < state.flash_bytes and state.data.n_lines:
        state.data.misses += not _touch(state.data, start // state.data.line_bytes)
