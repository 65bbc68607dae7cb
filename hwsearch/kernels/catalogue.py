"""Which C function runs which operation at which precision, and how its arguments lie in memory."""

import ctypes
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwsearch.emulation.isa import Isa
from hwsearch.errors import NetworkError
from hwsearch.graph.op import Op, OpKind, Shape
from hwsearch.graph.precision import ACTIVATION_WIDTHS, KERNEL_PRECISIONS, WEIGHT_WIDTHS, Precision, kernel_precision
from hwsearch.integers.integer_model import OpConstants, StoredWeights
from hwsearch.integers.op_kinds import OPS
from hwsearch.kernels.bodies.known import bodies_for
from hwsearch.kernels.bodies.portable import PORTABLE

C_FOLDER = Path(__file__).parent / "c"
HEADERS = ("hw_kernels.h", *sorted(str(path.relative_to(C_FOLDER)) for path in C_FOLDER.glob("*/**/hw_*.h")))
"""Included by kernel sources, for which `C_FOLDER` must be on the include path."""

WIDTHS = WEIGHT_WIDTHS
ALL_PRECISIONS = KERNEL_PRECISIONS
"""Precisions of the functions of a weighted operation; a weightless one has a single function."""

ACCUMULATOR_LIMIT = 2**30
"""A sum of products stays below this magnitude, which leaves as much room for the bias in an int32."""

FIELDS: tuple[tuple[str, str], ...] = (
    ("input", "pointer[2]"),
    ("output", "pointer"),
    ("weights", "pointer"),
    ("bias", "pointer"),
    ("multiplier", "pointer"),
    ("shift", "pointer"),
    ("scratch", "pointer"),
    *((name, "uint16") for name in ("in_h", "in_w", "in_c", "out_h", "out_w", "out_c", "groups")),
    *((name, "uint8") for name in ("kernel_h", "kernel_w", "stride_h", "stride_w", "pad_h", "pad_w", "stored_bits")),
    ("input_zero", "uint8[2]"),
    ("output_zero", "uint8"),
    ("output_max", "uint8"),
)
"""The members of `hw_op` (c/hw_kernels.h), in order."""

REQUANTIZE_FIELDS = ("bias", "multiplier", "shift")
"""Fields that point to constants, which lie one behind the other."""

Arguments = dict[str, int | tuple[int, int]]
"""Values of the fields of `hw_op` that are not pointers; `input_zero` is a pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One C function. `sources` are paths below `C_FOLDER`; `precision` is its pair of widths, if it has weights."""

    symbol: str
    sources: tuple[str, ...]
    precision: Precision | None = None

    @property
    def macros(self) -> tuple[str, ...]:
        """What its sources are compiled with, each `NAME=value` (see c/portable/hw_portable.h)."""
        pair = self.precision
        return (f"HW_W={pair.weight_bits}", f"HW_A={pair.activation_bits}") if pair else ()


def kernel(op: Op, precision: Precision) -> Kernel:
    """The function that runs an operation.

    A function without weights handles one byte per code, whatever the width, so it serves all activation widths. One with
    weights serves every activation width for which it is the narrowest (`kernel_precision`).

    >>> from hwsearch.graph.op import Op, OpKind
    >>> fc = Op(name="fc", kind=OpKind.LINEAR, inputs=("input",), in_shape=(64,), out_shape=(10,))
    >>> kernel(fc, Precision(4, 4)).symbol
    'hw_linear_w4a4'
    """
    require_support(op, precision)
    return _kernel(op.kind, kernel_precision(precision) if op.has_weights else None)


def all_kernels() -> tuple[Kernel, ...]:
    """Every function of the catalogue, sorted by symbol."""
    found = [_kernel(kind, pair) for kind in OpKind for pair in (KERNEL_PRECISIONS if kind.has_weights else (None,))]
    return tuple(sorted(found, key=lambda item: item.symbol))


def _kernel(kind: OpKind, precision: Precision | None) -> Kernel:
    return Kernel(symbol=f"hw_{kind}{f'_{precision}' if precision else ''}", sources=_sources(kind), precision=precision)


def unit(sources: Iterable[str], macros: Iterable[str]) -> str:
    """C text that compiles these sources (paths on the include path) with these macros, each `NAME=value`.

    >>> print(unit(["portable/hw_linear.c"], ["HW_W=4", "HW_A=8"]), end="")
    #define HW_W 4
    #define HW_A 8
    #include "portable/hw_linear.c"
    """
    lines = [*(f"#define {macro.replace('=', ' ', 1)}" for macro in macros), *(f'#include "{source}"' for source in sources)]
    return "".join(f"{line}\n" for line in lines)


def all_sources() -> tuple[str, ...]:
    """Every C source of the catalogue, as paths below `C_FOLDER`."""
    return tuple(chain.from_iterable(_sources(kind) for kind in sorted(OpKind)))


@cache
def _sources(kind: OpKind) -> tuple[str, ...]:
    """The portable body and all that may replace it."""
    portable = f"{PORTABLE.folder}/hw_{kind}.c"
    own = sorted(str(path.relative_to(C_FOLDER)) for path in C_FOLDER.glob(f"*/hw_{kind}.c"))
    return (portable, *(source for source in own if source != portable))


def files_behind(isa: Isa) -> tuple[str, ...]:
    """Sources and headers that decide what is built for an instruction set, sorted."""
    return tuple(sorted(carried((*HEADERS, *all_sources()), isa)))


def carried(names: Iterable[str], isa: Isa) -> tuple[str, ...]:
    """Those of these paths below `C_FOLDER` that a package for an instruction set has: shared, portable and its own bodies."""
    folders = [body.folder for body in bodies_for(isa)]
    return tuple(name for name in names if "/" not in name or name.partition("/")[0] in folders)


def supported(op: Op, precision: Precision) -> bool:
    """Whether the catalogue has a function that computes this operation without overflow."""
    return not refusal(op, precision)


def require_support(op: Op, precision: Precision) -> None:
    """Raises `NetworkError` with the reason if `supported` is false."""
    reason = refusal(op, precision)
    if reason:
        raise NetworkError(f"Operation {op.name} ({op.kind}) at {precision} has no kernel: {reason}.")


def refusal(op: Op, precision: Precision) -> str:
    """Why the catalogue refuses an operation; empty if it does not."""
    if op.has_weights != bool(precision.weight_bits):
        return "a precision must name a weight width exactly where there are weights; write a8 or w8a8"
    if precision.activation_bits not in ACTIVATION_WIDTHS or (op.has_weights and precision.weight_bits not in WEIGHT_WIDTHS):
        return "widths must be 1, 2, 3, 4 or 8 bits; choose the next wider one"
    shapes = (*_height_width_channels(op, op.in_shape), *_height_width_channels(op, op.out_shape), op.groups)
    if max(shapes) > 65535 or max(*op.kernel, *op.stride, *op.padding) > 255:
        return "sides and channels must fit 16 bits, kernel, stride and padding 8 bits; make the layer smaller"
    if reason := OPS[op.kind].refusal(op):
        return reason
    runs_at = kernel_precision(precision)
    largest = op.reduction * (2**runs_at.weight_bits - 1) * (2**runs_at.activation_bits - 1)
    if largest >= ACCUMULATOR_LIMIT:
        return f"its sum of {op.reduction} products may reach {largest}, beyond 2^30; choose narrower widths or fewer inputs"
    return ""


def pack_weights(op: Op, stored: StoredWeights) -> bytes:
    """Dense codes as the C functions read them: the first code in the lowest bits, each output channel padded to 4 bytes."""
    rows = stored.codes.reshape(op.out_channels, op.reduction)
    bits = np.unpackbits(rows[..., None], axis=2, count=stored.bits, bitorder="little")
    packed: NDArray[np.uint8] = np.packbits(bits.reshape(len(rows), -1), axis=1, bitorder="little")
    return np.pad(packed, ((0, 0), (0, -packed.shape[1] % 4))).tobytes()


def arguments(op: Op, precision: Precision, stored_bits: int, constants: OpConstants | None) -> Arguments:
    """The fields of `hw_op` that are not pointers.

    Without `constants` (when only time is wanted) zero points are 0 and the output takes 8 bits.
    """
    require_support(op, precision)
    zeros = constants.input_zero if constants else (0,)
    in_h, in_w, in_c = _height_width_channels(op, op.in_shape)
    out_h, out_w, out_c = _height_width_channels(op, op.out_shape)
    return {
        "in_h": in_h, "in_w": in_w, "in_c": in_c, "out_h": out_h, "out_w": out_w, "out_c": out_c,
        "groups": op.groups,
        "kernel_h": op.kernel[0], "kernel_w": op.kernel[1], "stride_h": op.stride[0], "stride_w": op.stride[1],
        "pad_h": op.padding[0], "pad_w": op.padding[1],
        "stored_bits": stored_bits,
        "input_zero": (zeros[0] if zeros else 0, zeros[1] if len(zeros) > 1 else 0),
        "output_zero": constants.output_zero if constants else 0,
        "output_max": constants.output_max if constants else 255,
    }  # fmt: skip


def _height_width_channels(op: Op, shape: Shape) -> tuple[int, int, int]:
    """A vector is one pixel, and so is whatever a linear operation reads."""
    if op.kind.traits.reads_vector or len(shape) == 1:
        return (1, 1, math.prod(shape))
    channels, height, width = shape
    return (height, width, channels)


@cache
def op_struct(pointer_bits: int) -> type[ctypes.Structure]:
    """`hw_op` as a ctypes structure for a target with pointers of 32 or 64 bits; pointers are plain integers.

    >>> ctypes.sizeof(op_struct(32))
    60
    """
    integers: dict[str, type[ctypes._SimpleCData[int]]] = {
        "pointer": {32: ctypes.c_uint32, 64: ctypes.c_uint64}[pointer_bits],
        "uint16": ctypes.c_uint16,
        "uint8": ctypes.c_uint8,
    }

    def c_type(text: str) -> type:
        plain = integers[text.removesuffix("[2]")]
        return plain * 2 if text.endswith("[2]") else plain

    return type(f"HwOp{pointer_bits}", (ctypes.Structure,), {"_fields_": [(name, c_type(text)) for name, text in FIELDS]})


def op_bytes(pointer_bits: int, values: Arguments, pointers: Mapping[str, int | tuple[int, int]]) -> bytes:
    """A filled `hw_op`, little-endian: `values` from `arguments`, `pointers` the addresses by field (0 where absent)."""
    record = op_struct(pointer_bits)()
    for name, value in {**values, **pointers}.items():
        if isinstance(value, tuple):
            getattr(record, name)[:] = value
        else:
            setattr(record, name, value)
    return bytes(record)
