"""Bit-widths: of one operation (`Precision`) and of all operations of a network (`BitAssignment`)."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hwsearch.errors import SpaceError

_PATTERN = re.compile(r"(?:w(\d+))?a(\d+)")


@dataclass(frozen=True, slots=True, order=True)
class Precision:
    """Bit-width of an operation's weights and of the activations it reads.

    `weight_bits` is 0 for an operation without weights, which is written `a8` instead of `w8a8`.

    >>> Precision.parse("w4a8")
    Precision(weight_bits=4, activation_bits=8)
    >>> str(Precision(0, 8))
    'a8'
    """

    weight_bits: int
    activation_bits: int

    def __post_init__(self) -> None:
        if not (0 <= self.weight_bits <= 8 and 1 <= self.activation_bits <= 8):
            raise SpaceError(
                f"Widths must lie in 1..8 bits (weights may be 0 where there are none), "
                f"but weights have {self.weight_bits} and activations {self.activation_bits}; choose widths in that range."
            )

    @classmethod
    def parse(cls, text: str) -> "Precision":
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise SpaceError(f"A precision must be written like w4a8 (or a8 without weights), but found {text!r}; rewrite it.")
        return cls(int(match[1] or 0), int(match[2]))

    def without_weights(self) -> "Precision":
        """The precision of a weightless operation that reads the same activations."""
        return Precision(0, self.activation_bits)

    def __str__(self) -> str:
        return f"w{self.weight_bits}a{self.activation_bits}" if self.weight_bits else f"a{self.activation_bits}"


WEIGHT_WIDTHS = (1, 2, 3, 4, 8)
"""Widths of weights that kernels multiply, and at which weights are stored."""

ACTIVATION_WIDTHS = (1, 2, 3, 4, 8)
"""Widths of activations that kernels read."""

_ACTIVATION_CLASSES = {0: (2, 4, 8), 1: (2, 4, 8), 2: (2, 4, 8), 3: (3, 4, 8), 4: (2, 4, 8), 8: (2, 4, 8)}
"""Activation widths that kernels are written for, by the width of their weights (0: none)."""


def kernel_precision(precision: Precision) -> Precision:
    """The precision of the kernel that runs an operation: its weights' width, and the narrowest activations that hold its own.

    Narrower activations than a kernel is written for use less of its range, take the same time and have no rows of their own.
    A width that no kernel has is returned as it is.

    >>> [str(kernel_precision(Precision.parse(text))) for text in ("w1a1", "w2a3", "w3a2", "w8a8", "a3")]
    ['w1a2', 'w2a4', 'w3a3', 'w8a8', 'a4']
    """
    classes = _ACTIVATION_CLASSES.get(precision.weight_bits, ())
    if precision.activation_bits not in ACTIVATION_WIDTHS or not classes:
        return precision
    return Precision(precision.weight_bits, next(bits for bits in classes if bits >= precision.activation_bits))


KERNEL_PRECISIONS = tuple(Precision(weight, activation) for weight in WEIGHT_WIDTHS for activation in _ACTIVATION_CLASSES[weight])
"""Precisions that weighted operations have kernels of their own for."""

WEIGHTLESS_PRECISIONS = tuple(Precision(0, activation) for activation in _ACTIVATION_CLASSES[0])
"""Precisions at which operations without weights are measured."""


class BitAssignment(Mapping[str, Precision]):
    """A precision for every operation of a network, by operation name; immutable and hashable.

    >>> a = BitAssignment({"conv": Precision(4, 8), "fc": Precision(8, 8)})
    >>> a.key
    'conv=w4a8,fc=w8a8'
    >>> BitAssignment.from_key(a.key) == a
    True
    """

    __slots__ = ("_by_op", "key")

    def __init__(self, by_op: Mapping[str, Precision]) -> None:
        self._by_op = dict(by_op)
        self.key = ",".join(f"{name}={precision}" for name, precision in self._by_op.items())

    @classmethod
    def from_key(cls, key: str) -> "BitAssignment":
        pairs = (item.rsplit("=", 1) for item in key.split(","))
        return cls({name: Precision.parse(text) for name, text in pairs})

    def __getitem__(self, op_name: str) -> Precision:
        return self._by_op[op_name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_op)

    def __len__(self) -> int:
        return len(self._by_op)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BitAssignment) and self._by_op == other._by_op

    def __repr__(self) -> str:
        return f"BitAssignment({self.key})"
