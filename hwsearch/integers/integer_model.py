"""A finished network as integers: what training hands over and what ONNX, C and the reference all compute.

Arithmetic, for an operation with weights that reads activations of zero point `z`:

- activations are unsigned codes `q` in 0 .. 2^a - 1 with real value `step * (q - z)`; `z` is 0 after ReLU and
  2^(a-1) where values may be negative. Padding has the code `z`.
- weights are unsigned codes `u` of b bits with real value `half_step * (2u + 1 - 2^b)`: the half-LSB offset grid, in which
  the b-bit code is the top b bits of the stored code: `u = stored >> (stored_bits - b)`.
- `accumulator = sum (2u + 1 - 2^b) * q + bias`, int32; the bias holds `-z * sum (2u + 1 - 2^b)` and the folded batch norm.
- `output = clamp(requantize(accumulator, multiplier, shift) + zero, 0, output_max)` (`reference.requantize`);
  the last operation of a path returns its accumulator, the logit, as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsearch.graph.menu import Menu
from hwsearch.graph.network import Network
from hwsearch.graph.op import Op

Int32 = NDArray[np.int32]
Codes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWeights:
    """Nested weight codes of one operation, kept once for all menu entries.

    `codes`: uint8, unpacked, `[out, kernel_h, kernel_w, in / groups]`, each below 2^bits; a linear operation has
    `[out, 1, 1, in]` with inputs in (height, width, channel) order.
    """

    codes: Codes
    bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpConstants:
    """Constants of one operation in one menu entry.

    `bias`, `multiplier`, `shift`: int32 `[out]` for an operation with weights. Without weights: `bias` is empty;
    `multiplier` is `[1]` for average pooling and requantize, `[2]` (one per input) for an addition, empty for
    maximum pooling; `shift` is `[1]` or empty likewise. The last operation of a path (logits) has empty `multiplier`
    and `shift`. `input_zero` has one code per input; `output_max` is 2^bits - 1 of the output or less.
    """

    bias: Int32
    multiplier: Int32
    shift: Int32
    input_zero: tuple[int, ...]
    output_zero: int
    output_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerEntry:
    """Constants of every operation that a menu entry runs, by operation name, and the real value of one logit unit."""

    constants: Mapping[str, OpConstants]
    logit_step: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerModel:
    """A complete dynamic model in integers.

    `stored` holds the weights once, whatever copies the menu has (see `read`); `entries[k]` belongs to `menu.entries[k]`. Input
    images are uint8 codes `[N, height, width, channels]` with real value `input_step * (code - input_zero)`.

    How an entry is chosen, by the traits of `menu.kind`:
    has a controller: `gate` (a static IntegerModel on the same input whose output classes are the entries) runs and its
    largest logit wins, ties to the lower index. Escalates: after entry k < K - 1 the inference stops if best logit -
    second-best logit >= thresholds[k] (int64 difference of int32 logits), else goes on. Neither: the last entry, of a
    static model its only one. With a shared trunk, entry k's constants also cover the heads of all exits before it.
    """

    network: Network
    menu: Menu
    stored: Mapping[str, StoredWeights]
    entries: tuple[IntegerEntry, ...]
    input_step: float
    input_zero: int
    thresholds: tuple[int, ...] = ()
    gate: "IntegerModel | None" = None

    def encode(self, images: NDArray[np.float32]) -> Codes:
        """Images `[N, C, H, W]` in real units as the uint8 codes `[N, H, W, C]` that the model reads."""
        codes = np.clip(np.floor(images / np.float32(self.input_step) + np.float32(0.5)) + np.float32(self.input_zero), 0, 255)
        return np.ascontiguousarray(codes.astype(np.uint8).transpose(0, 2, 3, 1))  # [N, H, W, C]

    def read(self, index: int, op: Op) -> StoredWeights | None:
        """The weights that entry `index` reads for an operation: its own copy where the menu has one, else the nested codes."""
        nested, bits = self.stored.get(op.name), self.menu.entries[index].assignment[op.name].weight_bits
        if nested is None or (op.name, bits) not in self.menu.copies:
            return nested
        return StoredWeights(codes=nested.codes >> np.uint8(nested.bits - bits), bits=bits)
