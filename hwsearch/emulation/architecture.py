"""What the emulated core must know of an instruction set: its registers, its calling convention, how its code is decoded.

Each instruction set is one of these in a module of its own, beside its decoder (`thumb.py`, `riscv.py`); a `Core` names it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from hwsearch.emulation.image import missing_library
from hwsearch.emulation.instructions import Instruction

Decode = Callable[[bytes, int], list[Instruction]]
"""The instructions of a stretch of code that holds no data, from its bytes and address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """An instruction set. Names are those of unicorn's constants.

    `constants` is the module of its Python binding that holds the registers. The first arguments of a call are passed in the
    registers `arguments`, the rest on an aligned stack, `pointer_bits` each; the result is in the first. `function_bit` is
    set in the address of a function; `endless` is an instruction that branches to itself; `status` is the register that the
    memory hooks clear of Thumb's IT state, if it has one (see hw_block_hook.c).
    """

    name: str
    pointer_bits: int
    engine: str
    modes: tuple[str, ...]
    constants: str
    arguments: tuple[str, ...]
    stack: str
    return_address: str
    counter: str
    endless: bytes
    decode: Decode
    stack_alignment: int = 16
    function_bit: int = 0
    status: str = ""

    def open(self, model: str) -> Any:
        """A unicorn engine of a core model, with no memory.

        Raises:
            ToolchainError: unicorn is not installed.
        """
        constants = self._constants()
        import unicorn

        modes = [getattr(unicorn, mode) for mode in self.modes]
        engine = unicorn.Uc(getattr(unicorn, self.engine), sum(modes))
        engine.ctl_set_cpu_model(getattr(constants, model))
        return engine

    def register(self, name: str) -> int:
        """Unicorn's number of a register; 0, which no register has, if `name` is empty."""
        return int(getattr(self._constants(), name)) if name else 0

    def _constants(self) -> ModuleType:
        from importlib import import_module

        try:
            return import_module(f"unicorn.{self.constants}")
        except ImportError as missing:
            raise missing_library("unicorn") from missing
