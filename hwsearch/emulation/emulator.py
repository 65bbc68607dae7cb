"""An emulated core: runs functions of a linked image and says what they would cost on a board.

Values come from unicorn's instruction-set emulation, cycles from block counts under the cycle model of the core's record
(`cores/`). Memory is the board's, so that code which does not fit or strays outside faults here as it would there.
"""

import ctypes
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.emulation.block_counts import BlockCounts, Hooks, PythonHooks, Window, native_hooks
from hwsearch.emulation.code_costs import CodeCosts
from hwsearch.emulation.cores.cortex_m4 import CORTEX_M4
from hwsearch.emulation.flash import STM32L4PLUS_120MHZ, FlashTiming
from hwsearch.emulation.image import Image
from hwsearch.emulation.linker_script import FLASH_BYTES, FLASH_START, RAM_BYTES, RAM_START
from hwsearch.emulation.processor_core import Core
from hwsearch.errors import HwsearchError, ToolchainError

STACK_BYTES = 8 * 1024
_RETURN = 0x0BFF_FFF0
_PAGE = 4096


class EmulatorError(HwsearchError):
    """Emulated code touched memory that the board does not have, or an instruction that the core does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one call cost. `cycles` is core plus flash; `unaligned` is counted only if alignment is watched."""

    core_cycles: int
    flash_cycles: int
    instructions: int
    unaligned: int

    @property
    def cycles(self) -> int:
        return self.core_cycles + self.flash_cycles


class EmulatedCore:
    """One core, of the kind that `core` records, with flash and RAM.

    `native=False` counts blocks in Python even where a host compiler exists.
    """

    def __init__(
        self,
        elf: Path,
        *,
        core: Core = CORTEX_M4,
        flash: FlashTiming = STM32L4PLUS_120MHZ,
        native: bool | None = None,
        watch_alignment: bool = False,
    ) -> None:
        self.image = Image.read(elf)
        self.symbols = self.image.symbols
        self.core, self.flash, self._architecture = core, flash, core.architecture
        self.last = Run(core_cycles=0, flash_cycles=0, instructions=0, unaligned=0)
        start, size = self.image.code
        self._counts = BlockCounts(
            Window(
                code_start=start,
                code_bytes=size,
                flash_start=FLASH_START,
                flash_bytes=FLASH_BYTES,
                code_cache=(flash.code_lines, flash.code_line_bytes, flash.code_ways),
                data_cache=(flash.data_lines, flash.data_line_bytes, flash.data_ways),
            )
        )
        self._costs = CodeCosts.empty(-(-size // 2))
        self._decoded: set[int] = set()
        self._engine = self._start_engine()
        self._hooks = self._attach(native, watch_alignment)
        self.release()

    @property
    def cycles(self) -> int:
        """Cycles of the last call, flash waits included."""
        return self.last.cycles

    @property
    def counts_natively(self) -> bool:
        return self._hooks.native

    def _start_engine(self) -> Any:
        engine = self._architecture.open(self.core.emulator_model)
        import unicorn

        engine.mem_map(FLASH_START, FLASH_BYTES, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        engine.mem_map(RAM_START, RAM_BYTES, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
        engine.mem_map(_RETURN & -_PAGE, _PAGE, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        engine.mem_write(_RETURN, self._architecture.endless)  # never executed
        for address, data in self.image.segments:
            engine.mem_write(address, data)
        return engine

    def _attach(self, native: bool | None, watch_alignment: bool) -> Hooks:
        import unicorn

        hooks: Hooks | None = None if native is False else native_hooks()
        if hooks is None and native:
            raise ToolchainError(
                "Counting natively needs a C compiler for this computer, but none was found; install one, or let Python count."
            )
        hooks = hooks or PythonHooks(self._counts)
        self._give_registers()
        self._hook(hooks, unicorn.UC_HOOK_BLOCK, hooks.block, 1, 0)
        if watch_alignment:
            self._hook(hooks, unicorn.UC_HOOK_MEM_READ | unicorn.UC_HOOK_MEM_WRITE, hooks.access, 1, 0)
        elif self.flash.data_lines:
            self._hook(hooks, unicorn.UC_HOOK_MEM_READ, hooks.access, FLASH_START, FLASH_START + FLASH_BYTES - 1)
        return hooks

    def _give_registers(self) -> None:
        """Let the hooks read and write the status register (see hw_block_hook.c)."""
        from unicorn.unicorn_py3.unicorn import uclib

        state = self._counts.state
        state.status_register = self._architecture.register(self._architecture.status)
        state.read_register = ctypes.cast(uclib.uc_reg_read, ctypes.c_void_p).value
        state.write_register = ctypes.cast(uclib.uc_reg_write, ctypes.c_void_p).value

    def _hook(self, hooks: Hooks, kind: int, function: Any, begin: int, end: int) -> None:
        """Attach to addresses `begin` to `end`; all if `begin` > `end`."""
        if not hooks.native:
            self._engine.hook_add(kind, function, begin=begin, end=end)
            return
        # The binding offers no way to attach a C function, so this goes through its own library handle (hence unicorn < 2.2).
        from unicorn.unicorn_py3.unicorn import uclib

        handle = ctypes.c_size_t()
        failed = uclib.uc_hook_add(
            self._engine._uch, ctypes.byref(handle), ctypes.c_int(kind), function,
            ctypes.byref(self._counts.state), ctypes.c_uint64(begin), ctypes.c_uint64(end),
        )  # fmt: skip
        if failed:
            raise ToolchainError(f"Unicorn must accept a native hook, but answered with error {failed}; install unicorn 2.1.")

    def release(self) -> None:
        """Give back everything that was reserved and placed."""
        ends = [address + len(data) for address, data in self.image.segments if address < RAM_START]
        self._free_flash, self._free_ram = max(ends), RAM_START + self.image.ram_bytes

    def reserve(self, n_bytes: int) -> int:
        """Address of so many bytes of RAM, 32-byte aligned, content undefined."""
        address = -(-self._free_ram // 32) * 32
        self._free_ram = address + n_bytes
        if self._free_ram > RAM_START + RAM_BYTES - STACK_BYTES:
            raise EmulatorError(
                f"Data must fit in {(RAM_BYTES - STACK_BYTES) // 1024} KB of RAM, but {n_bytes} B more do not; "
                "use a smaller shape."
            )
        return address

    def place(self, data: bytes, *, flash: bool = False) -> int:
        """Address at which `data` now lies, 32-byte aligned, in RAM or behind the image in flash."""
        if flash:
            address = -(-self._free_flash // 32) * 32
            self._free_flash = address + len(data)
            if self._free_flash > FLASH_START + FLASH_BYTES:
                raise EmulatorError(
                    f"Code and constants must fit in {FLASH_BYTES // 1024} KB of flash, "
                    f"but {len(data)} B more do not; use a smaller shape."
                )
        else:
            address = self.reserve(len(data))
        self.write(address, data)
        return address

    def write(self, address: int, data: bytes) -> None:
        self._engine.mem_write(address, data)

    def read(self, address: int, n_bytes: int) -> bytes:
        return bytes(self._engine.mem_read(address, n_bytes))

    def call(self, symbol: str, *arguments: int) -> int:
        """Call a function with arguments of a pointer's size; returns its result. `last` and `cycles` then say what it cost.

        Raises:
            EmulatorError: the code left the board's memory or met an invalid instruction.
        """
        if symbol not in self.symbols:
            raise EmulatorError(f"The image must hold {symbol}, but does not; name it in `keep` when linking.")
        self._counts.clear()
        self._pass(arguments)
        self._execute(symbol)
        self._counts.finish()
        self.last = self._price()
        return int(self._engine.reg_read(self._architecture.register(self._architecture.arguments[0])))

    def _pass(self, arguments: tuple[int, ...]) -> None:
        """The first arguments in registers, the rest on an aligned stack."""
        convention, registers = self._architecture, len(self._architecture.arguments)
        word, mask = convention.pointer_bits // 8, (1 << convention.pointer_bits) - 1
        spilled = b"".join((value & mask).to_bytes(word, "little") for value in arguments[registers:])
        stack = (RAM_START + RAM_BYTES - 64 - len(spilled)) & -convention.stack_alignment
        self.write(stack, spilled)
        for name, value in zip(convention.arguments, arguments, strict=False):
            self._engine.reg_write(convention.register(name), value & mask)
        self._engine.reg_write(convention.register(convention.stack), stack)
        self._engine.reg_write(convention.register(convention.return_address), _RETURN | convention.function_bit)

    def _execute(self, symbol: str) -> None:
        from unicorn import UcError

        try:
            self._engine.emu_start(self.symbols[symbol] | self._architecture.function_bit, _RETURN)
        except UcError as fault:
            at = int(self._engine.reg_read(self._architecture.register(self._architecture.counter)))
            raise EmulatorError(
                f"{symbol} must stay within the board's memory, but faulted at {at:#x} in {self._function_at(at)}: {fault}; "
                "check its pointers and sizes."
            ) from fault

    def _function_at(self, address: int) -> str:
        functions = sorted((value & -2, name) for name, value in self.symbols.items())
        index = bisect_right([start for start, _ in functions], address) - 1
        return functions[index][1] if index >= 0 else "no function"

    def _price(self) -> Run:
        state = self._counts.state
        if state.outside or state.resized:
            raise EmulatorError(
                f"Every executed block must lie in the image's code and keep its size, but {state.outside} lay outside and "
                f"{state.resized} changed; code in RAM and self-modifying code cannot be timed."
            )
        executed, last_instruction = self._executions()
        counts, costs = self._counts, self._costs
        arrived = counts.entered.astype(np.int64)
        core = int(((executed - arrived) * costs.in_line + arrived * costs.entered).sum())
        blocks = np.flatnonzero(counts.left)
        core += int((counts.left[blocks].astype(np.int64) * costs.taken[last_instruction[blocks]]).sum())
        return Run(
            core_cycles=core,
            flash_cycles=self.flash.cycles(state.code.misses + state.data.misses),
            instructions=int(executed.sum()),
            unaligned=state.unaligned,
        )

    def _executions(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Executions of the instruction at each halfword, and for each block the halfword of its last instruction."""
        counts = self._counts
        starts = np.flatnonzero(counts.executed)
        ends = starts + counts.block_bytes[starts].astype(np.int64) // 2
        self._decode(starts)
        change = np.zeros(len(counts.executed) + 1, np.int64)
        np.add.at(change, starts, counts.executed[starts].astype(np.int64))
        np.subtract.at(change, ends, counts.executed[starts].astype(np.int64))
        executed = np.cumsum(change)[:-1] * self._costs.starts
        nearest = np.maximum.accumulate(np.where(self._costs.starts, np.arange(len(executed)), 0))
        last = np.zeros(len(executed), np.int64)
        last[starts] = nearest[ends - 1]
        return executed, last

    def _decode(self, block_starts: NDArray[np.int64]) -> None:
        """Fill in the costs of the stretches of code in which the blocks lie."""
        code_start, code_bytes = self.image.code
        marks = self.image.code_marks
        addresses = [address for address, _ in marks]
        for start in np.unique(np.searchsorted(addresses, code_start + 2 * block_starts, side="right") - 1):
            if int(start) in self._decoded:
                continue
            self._decoded.add(int(start))
            begin = addresses[start]
            end = addresses[start + 1] if start + 1 < len(addresses) else code_start + code_bytes
            self._costs.add(self._architecture.decode(self.read(begin, end - begin), begin), code_start, self.core.cycle_model)
