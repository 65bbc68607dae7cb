"""A kernel's call in memory of which every byte is known: what the call may not write must afterwards be as it was.

The one harness of all cores. A call's data lie one behind the other, with a guard directly before and behind each, wherever the
core has its memory: on this computer, in an emulated core's RAM, in a program that takes calls.
"""

import ctypes

import numpy as np
from numpy.typing import NDArray

from hwsearch.emulation.emulator import EmulatedCore
from hwsearch.emulation.isa import Isa
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import Precision, kernel_precision
from hwsearch.integers.cases import Case
from hwsearch.integers.op_kinds import run_op
from hwsearch.kernels.bodies.known import bodies_for
from hwsearch.kernels.catalogue import C_FOLDER, arguments, kernel, op_bytes, pack_weights
from hwsearch.kernels.layout import scratch_bytes

ALIGNMENT = 8
"""Of every tensor, as in an exported arena; nothing lies at a multiple of more."""
GUARD_BYTES = 4096
_PATTERN = np.random.default_rng(0).bytes(GUARD_BYTES + ALIGNMENT)
"""No stretch of it repeats, so that no copy of it is mistaken for it."""


def least_scratch_bytes(op: Op, precision: Precision, isa: Isa) -> int:
    """What the core's own body says that it takes: less than is priced, where the portable one takes more and would hide a fault.

    Depthwise bodies of small cores hand some shapes on to the portable one, and need what is priced.
    """
    own = bodies_for(isa)[-1]
    hands_on = op.kind is OpKind.DEPTHWISE_CONV2D and own.folder in ("cortex_m", "cortex_m0", "riscv")
    if hands_on or not (C_FOLDER / own.folder / f"hw_{op.kind}.c").exists():
        return scratch_bytes(op, precision, isa)
    return own.scratch[op.kind](op, kernel_precision(precision)) if op.kind in own.scratch else 0


class Arena:
    """A call's data from address `start` on; output and working memory come last."""

    def __init__(self, case: Case, *, scratch_bytes: int, start: int = 0, pointer_bits: int = 64) -> None:
        self._case, self._scratch_bytes, self._start = case, scratch_bytes, start
        self.data = bytearray(_PATTERN[:GUARD_BYTES])
        constants = case.constants
        inputs = [self._place(codes.tobytes()) for codes in case.inputs]
        pointers: dict[str, int | tuple[int, int]] = {
            "input": (inputs[0], inputs[-1] if len(inputs) > 1 else 0),
            "weights": self._place(pack_weights(case.op, case.stored)) if case.stored else 0,
            "bias": self._table(constants.bias),
            "multiplier": self._table(constants.multiplier),
            "shift": self._table(constants.shift),
        }
        values = arguments(case.op, case.precision, case.stored_bits, constants)
        self.record_at = self._place(op_bytes(pointer_bits, values, pointers))
        self.written_from = len(self.data) - GUARD_BYTES
        self._output_at = self._place(_filled(case.output_bytes))
        self._scratch_at = self._place(_filled(scratch_bytes))
        record = op_bytes(pointer_bits, values, {**pointers, "output": self._output_at, "scratch": self._scratch_at})
        self.data[self.record_at - start : self.record_at - start + len(record)] = record

    def _place(self, data: bytes) -> int:
        address = self._start + len(self.data)
        self.data += data + _PATTERN[: GUARD_BYTES + -len(data) % ALIGNMENT]
        return address

    def _table(self, values: NDArray[np.int32]) -> int:
        return self._place(values.astype("<i4").tobytes()) if values.size else 0

    def output(self, after: bytes) -> bytes:
        """What the call gave, from the arena's last bytes `after` it, of which only output and working memory may differ."""
        first = len(self.data) - len(after)
        output, scratch = self._output_at - self._start - first, self._scratch_at - self._start - first
        behind = output + self._case.output_bytes, scratch + self._scratch_bytes
        for begin, end in ((0, output), (behind[0], scratch), (behind[1], len(after))):
            assert after[begin:end] == self.data[first + begin : first + end], (
                f"wrote outside its buffers, {self._where(after, first, begin, end)}: {self._case.op} {self._case.precision}"
            )
        return after[output : behind[0]]

    def _where(self, after: bytes, first: int, begin: int, end: int) -> str:
        changed = [at for at in range(begin, end) if after[at] != self.data[first + at]]
        scratch = self._scratch_at - self._start - first
        return f"{len(changed)} bytes from {changed[0] - scratch} on, where working memory is 0 to {self._scratch_bytes}"


def _filled(count: int) -> bytes:
    return (_PATTERN * (count // len(_PATTERN) + 1))[:count]


_HOST_MEMORY = np.zeros(8 << 20, np.uint8)


def on_host(library: ctypes.CDLL, case: Case, scratch_bytes: int) -> bytes:
    """What the call writes on this computer."""
    free = -_HOST_MEMORY.ctypes.data % 16 + ALIGNMENT
    start = int(_HOST_MEMORY.ctypes.data) + free
    arena = Arena(case, scratch_bytes=scratch_bytes, start=start)
    memory = _HOST_MEMORY[free : free + len(arena.data)]
    memory[:] = np.frombuffer(arena.data, np.uint8)
    getattr(library, kernel(case.op, case.precision).symbol)(ctypes.c_void_p(arena.record_at))
    return arena.output(memory.tobytes())


def on_core(core: EmulatedCore, case: Case, scratch_bytes: int) -> bytes:
    """What the call writes on an emulated core whose image holds the kernel."""
    core.release()
    start = core.reserve(0)
    arena = Arena(case, scratch_bytes=scratch_bytes, start=start, pointer_bits=core.core.architecture.pointer_bits)
    assert core.place(bytes(arena.data)) == start
    core.call(kernel(case.op, case.precision).symbol, arena.record_at)
    return arena.output(core.read(start, len(arena.data)))


def expected(case: Case) -> bytes:
    """What it should write."""
    inputs = [codes[None] for codes in case.inputs]
    return run_op(case.op, case.precision, inputs, case.stored, case.constants).tobytes()
