"""From a trained supernet to an integer model: batch norm, steps and zero points become bias, multiplier and shift.

What an accumulator unit is worth, `half_step * step_in * |scale / sqrt(variance + eps)|`, over the output's step, is
the real factor that `multiplier / 2^shift` approximates to 2^-31 of itself. Where a batch norm's scale is negative the
weight codes are complemented (`u -> 255 - u`, which negates `2u + 1 - 2^b` at every width) and multipliers stay positive.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hwsearch.errors import SpaceError
from hwsearch.graph.menu import Menu
from hwsearch.graph.network import INPUT
from hwsearch.graph.op import Op
from hwsearch.graph.precision import BitAssignment
from hwsearch.integers.integer_model import Codes, Int32, IntegerEntry, IntegerModel, OpConstants, StoredWeights
from hwsearch.integers.op_kinds import OPS
from hwsearch.quantizers.supernet import Supernet
from hwsearch.quantizers.switchable import Statistics, integer_bias
from hwsearch.quantizers.torch_ops import operate_whole
from hwsearch.quantizers.weight_quantizer import CODE_BITS

MULTIPLIER_BITS = 31
LARGEST_SHIFT = 51
ADD_MULTIPLIER_BITS = 21
LARGEST_ADD_SHIFT = 30


def multiplier_and_shift(factor: float, *, bits: int = MULTIPLIER_BITS, largest_shift: int = LARGEST_SHIFT) -> tuple[int, int]:
    """Whole numbers with `multiplier / 2^shift` nearest to a positive factor: multiplier in [2^(bits-1), 2^bits) where the
    shift's limits (1 and `largest_shift`) allow.

    >>> multiplier_and_shift(0.25)
    (1073741824, 32)
    """
    _, exponent = math.frexp(factor)
    shift = min(max(bits - exponent, 1), largest_shift)
    multiplier = math.floor(math.ldexp(factor, shift) + 0.5)
    if multiplier == 2**bits and shift > 1:
        multiplier, shift = multiplier // 2, shift - 1
    if not 0 <= multiplier < 2**bits:
        raise SpaceError(f"A change of scale must be below 2^{bits - 1}, but one is {factor}; train with smaller steps.")
    return multiplier, shift


def fold_model(
    supernet: Supernet,
    menu: Menu,
    statistics: Sequence[Statistics],
    *,
    thresholds: Sequence[float] = (),
    gate: IntegerModel | None = None,
) -> IntegerModel:
    """The integer model of a menu; `statistics[k]` are the batch norm statistics of entry k's assignment.

    `thresholds` are margins of real logits, one per entry but the last where the kind escalates, else none; each is rounded
    up to whole logit units of its entry, which decides for every logit as the real threshold would.
    """
    _check_policy(menu, statistics, thresholds, gate)
    reads = (supernet.input_quantizer.step, supernet.input_quantizer.zero)
    if gate is not None and (gate.input_step, gate.input_zero) != reads:
        raise SpaceError(
            f"A gate must read the codes that its model reads (step, zero = {reads}), but reads ({gate.input_step}, "
            f"{gate.input_zero}); fit it with the supernet's input quantizer."
        )
    stored_bits = menu.stored_bits(supernet.network)
    stored = {name: stored_weights(supernet, supernet.network[name], bits) for name, bits in stored_bits.items()}
    entries = tuple(
        _EntryFold(supernet=supernet, assignment=entry.assignment, statistics=statistics[index], stored=stored).entry(
            supernet.network.path(menu.exits_passed(index)), entry.exit
        )
        for index, entry in enumerate(menu.entries)
    )
    units = zip(thresholds, entries, strict=False)
    return IntegerModel(
        network=supernet.network,
        menu=menu,
        stored=stored,
        entries=entries,
        input_step=supernet.input_quantizer.step,
        input_zero=supernet.input_quantizer.zero,
        thresholds=tuple(integer_threshold(threshold, entry.logit_step) for threshold, entry in units),
        gate=gate,
    )


def integer_threshold(threshold: float, logit_step: float) -> int:
    """The least margin in logit units that is no less than a real margin."""
    if math.isinf(threshold):
        return 2**32 if threshold > 0 else 0
    return min(max(math.ceil(threshold / logit_step), 0), 2**32)


def _check_policy(menu: Menu, statistics: Sequence[Statistics], thresholds: Sequence[float], gate: IntegerModel | None) -> None:
    count = len(menu.entries)
    wanted = count - 1 if menu.kind.escalates else 0
    if len(statistics) != count or len(thresholds) != wanted or (gate is not None) != menu.kind.has_controller:
        raise SpaceError(
            f"A {menu.kind} menu of {count} entries must have {count} statistics, {wanted} thresholds and a gate if it is one, "
            f"but has {len(statistics)}, {len(thresholds)} and gate={gate is not None}; fit its policy first."
        )


def stored_weights(supernet: Supernet, op: Op, bits: int) -> StoredWeights:
    """Top `bits` of an operation's 8-bit codes in (out, row, column, in) order, complemented where batch norm negates."""
    module = supernet.weighted_op(op.name)
    codes = module.quantizer.codes()
    if module.norm is not None:
        negated = (module.norm.scale < 0).reshape(-1, *[1] * (codes.dim() - 1))
        codes = torch.where(negated, 2**CODE_BITS - 1 - codes, codes)
    if op.kind.traits.reads_vector:
        channels, height, width = op.in_shape if len(op.in_shape) == 3 else (op.in_shape[0], 1, 1)
        ordered = codes.reshape(-1, channels, height, width).permute(0, 2, 3, 1)  # [out, H, W, C]
        ordered = ordered.reshape(op.out_channels, 1, 1, -1)  # [out, 1, 1, in]
    else:
        ordered = codes.permute(0, 2, 3, 1)  # [out, kernel_h, kernel_w, in / groups]
    top = ordered >> (CODE_BITS - bits)
    return StoredWeights(codes=top.contiguous().numpy().astype(np.uint8), bits=bits)


@torch.no_grad()
def logit_step(supernet: Supernet, assignment: BitAssignment, exit_name: str) -> float:
    """Real value of one unit of an exit's integer logits."""
    op = supernet.network.output_of(exit_name)
    return float(supernet.accumulator_unit(op, assignment[op.name]))


@dataclass(frozen=True, slots=True, kw_only=True)
class _EntryFold:
    """Folds the operations of one menu entry."""

    supernet: Supernet
    assignment: BitAssignment
    statistics: Statistics
    stored: Mapping[str, StoredWeights]

    @torch.no_grad()
    def entry(self, path: Sequence[Op], ends_at: str) -> IntegerEntry:
        constants = {op.name: self.constants(op) for op in path}
        return IntegerEntry(constants=constants, logit_step=logit_step(self.supernet, self.assignment, ends_at))

    def constants(self, op: Op) -> OpConstants:
        supernet, record, read_bits = self.supernet, OPS[op.kind], self.assignment[op.name].activation_bits
        inputs = [supernet.step_and_zero(source, read_bits) for source in op.inputs]
        zeros = tuple(zero for _, zero in inputs)
        if op.kind.traits.passes_codes:
            return _constants(input_zero=zeros, output_zero=zeros[0], output_max=2**read_bits - 1)
        steps = [float(step) for step, _ in inputs]
        bias, units = self._weighted(op, zeros[0]) if op.has_weights else ((), record.units(op, steps))
        if supernet.is_logits(op.name):
            return _constants(bias=bias, input_zero=zeros, output_zero=0, output_max=0)
        written_bits = supernet.network.output_bits(op.name, self.assignment)
        step, zero = supernet.step_and_zero(op.name, written_bits)
        factors = [unit / float(step) for unit in units]
        multiplier, shift = _common_shift(factors) if record.shares_shift else _scales(factors)
        return _constants(
            bias=bias,
            multiplier=multiplier,
            shift=shift,
            input_zero=zeros,
            output_zero=zero,
            output_max=2**written_bits - 1,
        )

    def _weighted(self, op: Op, zero: int) -> tuple[Sequence[int], Sequence[float]]:
        """Bias per output channel, the input's zero point included, and the real value of an accumulator unit."""
        precision = self.assignment[op.name]
        factor, addend = self.supernet.folded_affine(op, precision, self.statistics)
        bias, unit = integer_bias(factor.abs() * self.supernet.accumulator_unit(op, precision), addend)
        whole = bias.long() - zero * _centred(self.stored[op.name], precision.weight_bits).flatten(1).sum(dim=1)
        return whole.tolist(), unit.expand(op.out_channels).tolist()


def _centred(stored: StoredWeights, bits: int) -> Tensor:
    """Weights in half steps, `2u + 1 - 2^bits`, int64 in the shape of the stored codes."""
    u = torch.from_numpy(stored.codes.astype(np.int64)) >> (stored.bits - bits)
    centred: Tensor = 2 * u + 1 - 2**bits
    return centred


def _constants(
    *,
    bias: Sequence[int] = (),
    multiplier: Sequence[int] = (),
    shift: Sequence[int] = (),
    input_zero: tuple[int, ...],
    output_zero: int,
    output_max: int,
) -> OpConstants:
    return OpConstants(
        bias=_int32(bias),
        multiplier=_int32(multiplier),
        shift=_int32(shift),
        input_zero=input_zero,
        output_zero=output_zero,
        output_max=output_max,
    )


def _scales(factors: Sequence[float]) -> tuple[list[int], list[int]]:
    pairs = [multiplier_and_shift(factor) for factor in factors]
    return [multiplier for multiplier, _ in pairs], [shift for _, shift in pairs]


def _common_shift(factors: Sequence[float]) -> tuple[list[int], list[int]]:
    """One shift for all inputs, the largest at which all multipliers stay below 2^21."""
    _, shift = multiplier_and_shift(max(factors), bits=ADD_MULTIPLIER_BITS, largest_shift=LARGEST_ADD_SHIFT)
    return [math.floor(math.ldexp(factor, shift) + 0.5) for factor in factors], [shift]


def _int32(values: Sequence[int]) -> Int32:
    """`values` in 32 bits; refuses what does not fit."""
    wide = np.array(values, dtype=np.int64)
    if wide.size and np.abs(wide).max() >= 2**31:
        raise SpaceError(f"Integer constants must fit 32 bits, but one is {np.abs(wide).max()}; train with smaller steps.")
    return wide.astype(np.int32)


def folded_forward(model: IntegerModel, index: int, codes: Codes) -> dict[str, Tensor]:
    """Menu entry `index` on codes `[N, H, W, C]` in whole numbers held by float64 tensors; codes of every operation it runs,
    `[N, C, H, W]` (logits `[N, classes]`), by operation name.

    The torch twin of the numpy reference. Every sum is exact: it stays far below 2^53.
    """
    entry, assignment = model.entries[index], model.menu.entries[index].assignment
    values = {INPUT: torch.from_numpy(codes.astype(np.float64)).permute(0, 3, 1, 2)}  # [N, C, H, W]
    for op in model.network.path(model.menu.exits_passed(index)):
        inputs = [values[source] for source in op.inputs]
        bits = assignment[op.name].weight_bits
        weights = _centred(model.stored[op.name], bits).double() if op.has_weights else None
        values[op.name] = operate_whole(op, inputs, weights, entry.constants[op.name])
    return values
