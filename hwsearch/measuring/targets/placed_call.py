"""The record of a call, `hw_op` of the C, with its data placed in a target's memory."""

from collections.abc import Callable

import numpy as np

from hwsearch.integers.cases import Case
from hwsearch.kernels.catalogue import REQUANTIZE_FIELDS, arguments, op_bytes, pack_weights
from hwsearch.kernels.layout import largest_scratch_bytes

Place = Callable[[bytes], int]
"""Puts data into memory and returns their address."""


def record(case: Case, pointer_bits: int, constant: Place, variable: Place, output: int) -> bytes:
    """A filled `hw_op` whose data were placed by the given functions, each of which returns an address."""
    constants, op = case.constants, case.op
    inputs = [variable(codes.tobytes()) for codes in case.inputs]

    scratch = largest_scratch_bytes(op, case.precision)
    pointers: dict[str, int | tuple[int, int]] = {
        "input": (inputs[0], inputs[-1] if len(inputs) > 1 else 0),
        "output": output,
        "weights": constant(pack_weights(op, case.stored)) if case.stored else 0,
        "scratch": variable(bytes(scratch)) if scratch else 0,
    }
    tables = [getattr(constants, name) for name in REQUANTIZE_FIELDS]
    joined = np.concatenate(tables).astype("<i4").tobytes()
    address = constant(joined) if joined else 0
    for name, values in zip(REQUANTIZE_FIELDS, tables, strict=True):
        pointers[name] = address if values.size else 0
        address += 4 * values.size
    return op_bytes(pointer_bits, arguments(op, case.precision, case.stored_bits, constants), pointers)
