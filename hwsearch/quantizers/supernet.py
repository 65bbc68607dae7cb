"""The supernet: one set of weights that runs at every bit assignment of a search space.

Its forward pass is fake-quantized: real numbers that are exactly those the integers stand for. In training mode batch
norm uses the batch; in evaluation mode it is folded and its bias rounded to accumulator units, just as `fold.py`
does it, so that what is evaluated is what will run.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hwsearch.errors import NetworkError
from hwsearch.graph.network import INPUT, Network
from hwsearch.graph.op import Op
from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.integers.integer_model import Codes
from hwsearch.quantizers.parameter_groups import ParameterGroups
from hwsearch.quantizers.schemes import DEFAULT_SCHEME, scheme_of
from hwsearch.quantizers.switchable import ChannelStatistics, Statistics, folded, integer_bias
from hwsearch.quantizers.tensors import (
    Options,
    activate,
    check_quantizable,
    code_source,
    is_unsigned,
    read_widths,
    weight_widths,
)
from hwsearch.quantizers.torch_ops import operate
from hwsearch.quantizers.uniform import ActivationQuantizer, InputQuantizer, straight_through
from hwsearch.quantizers.weighted_op import WeightedOp, weight_shape

if TYPE_CHECKING:
    from hwsearch.graph.aten import OpParameters
    from hwsearch.graph.space import SearchSpace

Arrays = Mapping[str, NDArray[np.generic]]
Finish = Callable[[Op, Tensor, Precision], Tensor]
"""Bias or batch norm: (op, output before it, precision) -> output."""


class Supernet(nn.Module):
    """A network whose operations run at any of their optional precisions.

    `parameters` are those of a trained float network; operations it does not name (exit heads) start at random
    from `seed`. Activation steps still have to be calibrated (`calibrate.calibrate_activations`). `scheme` is how weights are
    quantized, one of `schemes.SCHEMES`.
    """

    def __init__(
        self,
        network: Network,
        options: Options,
        input_quantizer: InputQuantizer,
        parameters: "Mapping[str, OpParameters[Tensor]] | None" = None,
        *,
        seed: int = 0,
        scheme: str = DEFAULT_SCHEME,
    ) -> None:
        super().__init__()
        check_quantizable(network)
        self.scheme = scheme
        self.network = network
        self.options = dict(options)
        self.input_quantizer = input_quantizer
        self._paths: dict[tuple[str, ...], tuple[Op, ...]] = {}
        self._ends = {name: network.output_of(name).name for name in (*network.exits, "")}
        self._readers = {op.name: next((reader.name for reader in network.consumers(op.name)), "") for op in network.ops}
        self._sources = {name: code_source(network, name) for name in (INPUT, *self._readers)}
        self.weighted = nn.ModuleDict()
        self.activations = nn.ModuleDict()
        self._make_weighted(parameters or {}, torch.Generator().manual_seed(seed))
        self._make_activations()

    @classmethod
    def of_space(
        cls,
        space: "SearchSpace",
        input_quantizer: InputQuantizer,
        parameters: "Mapping[str, OpParameters[Tensor]] | None" = None,
        *,
        seed: int = 0,
        scheme: str = DEFAULT_SCHEME,
    ) -> Self:
        """A supernet for every assignment of a search space."""
        return cls(space.network, options_of(space), input_quantizer, parameters, seed=seed, scheme=scheme)

    def _make_weighted(self, parameters: "Mapping[str, OpParameters[Tensor]]", generator: torch.Generator) -> None:
        for op in self.network.ops:
            if not op.has_weights:
                continue
            given = parameters.get(op.name)
            shape = weight_shape(op)
            if given is not None:
                weight = torch.as_tensor(given.weight).reshape(shape)
            else:
                weight = (2 * torch.rand(shape, generator=generator) - 1) * op.reduction**-0.5
            reads = tuple(sorted({p.activation_bits for p in self.options[op.name]}))
            widths = weight_widths(op, self.options)
            module = WeightedOp(op, widths, reads, weight, is_logits=self.is_logits(op.name), scheme=self.scheme)
            if given is not None:
                module.load(given)
            self.weighted[_key(op.name)] = module

    def _make_activations(self) -> None:
        unsigned_input = self.input_quantizer.zero == 0
        for op in self.network.ops:
            if self.is_logits(op.name) or op.kind.traits.passes_codes:
                continue
            self.activations[_key(op.name)] = ActivationQuantizer(
                read_widths(self.network, op.name, self.options),
                unsigned=is_unsigned(self.network, op.name, input_is_unsigned=unsigned_input),
                limit=op.activation.limit,
            )

    def is_logits(self, name: str) -> bool:
        return not self._readers[name]

    def weighted_op(self, name: str) -> WeightedOp:
        module = self.weighted[_key(name)]
        assert isinstance(module, WeightedOp)
        return module

    def activation(self, tensor: str) -> ActivationQuantizer:
        """The quantizer of a tensor other than the input; maximum pooling shares that of its input."""
        module = self.activations[_key(self._sources[tensor])]
        assert isinstance(module, ActivationQuantizer)
        return module

    def parameter_groups(self) -> ParameterGroups:
        """Every parameter once."""
        weighted = (self.weighted_op(op.name).parameter_groups() for op in self.network.ops if op.has_weights)
        owners = (module for module in self.activations.values() if isinstance(module, ActivationQuantizer))
        activations = (module.parameter_groups() for module in owners)
        return sum((*weighted, *activations), ParameterGroups())

    def step_and_zero(self, tensor: str, bits: int) -> tuple[Tensor, int]:
        """Real value of one code, and the code of zero, of a tensor read at a width."""
        if self._sources[tensor] == INPUT:
            return torch.tensor(self.input_quantizer.step, dtype=torch.float64), self.input_quantizer.zero
        quantizer = self.activation(tensor)
        return quantizer.step(bits), quantizer.zero(bits)

    def path(self, exits: Sequence[str]) -> tuple[Op, ...]:
        """Operations that reach the exits, in execution order."""
        key = tuple(exits)
        if key not in self._paths:
            self._paths[key] = self.network.path(key)
        return self._paths[key]

    def forward(
        self,
        images: Tensor,
        assignment: BitAssignment,
        *,
        exits: Sequence[str] = ("",),
        statistics: Statistics | None = None,
    ) -> dict[str, Tensor]:
        """Fake-quantized logits `[N, classes]` of each exit for images `[N, C, H, W]`.

        In training mode batch norm uses the batch's own statistics; in evaluation mode the given ones, or without
        them those of the float network.
        """

        def finish(op: Op, y: Tensor, precision: Precision) -> Tensor:
            return self._finish_folded(op, y, precision, statistics)

        values = self._run(images, assignment, exits, self._finish_by_batch if self.training else finish)
        return {name: values[self._ends[name]].flatten(1) for name in exits}

    @torch.no_grad()
    def tensors(self, images: Tensor, assignment: BitAssignment, *, exits: Sequence[str] = ("",)) -> dict[str, Tensor]:
        """Every operation's fake-quantized output, by its name, with batch norm using the batch's statistics."""
        return self._run(images, assignment, exits, self._finish_by_batch)

    def observe_statistics(
        self, images: Tensor, assignment: BitAssignment, *, exits: Sequence[str] = ("",)
    ) -> dict[str, ChannelStatistics]:
        """Channel statistics of every operation with batch norm on one batch, each normalized by its own."""
        seen: dict[str, ChannelStatistics] = {}

        def finish(op: Op, y: Tensor, precision: Precision) -> Tensor:
            if op.batch_norm:
                variance, mean = torch.var_mean(y, dim=[d for d in range(y.dim()) if d != 1], correction=0)
                seen[op.name] = ChannelStatistics(mean=mean, variance=variance)
            return self._finish_by_batch(op, y, precision)

        with torch.no_grad():
            self._run(images, assignment, exits, finish)
        return seen

    def _run(self, images: Tensor, assignment: BitAssignment, exits: Sequence[str], finish: Finish) -> dict[str, Tensor]:
        values = {INPUT: self.input_quantizer(images)}
        for op in self.path(exits):
            inputs = [self._read(op, source, values) for source in op.inputs]
            y = self._weigh(op, inputs[0], assignment[op.name], finish) if op.has_weights else operate(op, inputs)
            if not op.kind.traits.passes_codes and not self.is_logits(op.name):
                y = self.activation(op.name)(y, assignment[self._readers[op.name]].activation_bits)
            values[op.name] = y
        return values

    def _read(self, op: Op, source: str, values: Mapping[str, Tensor]) -> Tensor:
        """A source's value; an exit head reads the trunk without sending gradients into it."""
        enters_head = bool(op.exit) and (source == INPUT or self.network[source].exit != op.exit)
        return values[source].detach() if enters_head else values[source]

    def _weigh(self, op: Op, x: Tensor, precision: Precision, finish: Finish) -> Tensor:
        y = operate(op, [x], self.weighted_op(op.name).quantizer(precision.weight_bits))
        return finish(op, y, precision)

    @torch.no_grad()
    def accumulator_unit(self, op: Op, precision: Precision) -> Tensor:
        """Real value of one unit of an operation's integer accumulator before bias or batch norm; `[channels or 1]`."""
        step, _ = self.step_and_zero(op.inputs[0], precision.activation_bits)
        return self.weighted_op(op.name).quantizer.half_step(precision.weight_bits) * step

    def _finish_by_batch(self, op: Op, y: Tensor, precision: Precision) -> Tensor:
        module = self.weighted_op(op.name)
        if module.norm is None:
            assert module.bias is not None
            return y + _over_channels(module.bias, y)
        scale, offset = module.norm.affine(precision)
        return F.batch_norm(y, None, None, scale, offset, training=True, eps=module.norm.epsilon)

    def _finish_folded(self, op: Op, y: Tensor, precision: Precision, statistics: Statistics | None) -> Tensor:
        factor, addend = self.folded_affine(op, precision, statistics)
        bias, roomy = integer_bias(factor.detach().abs() * self.accumulator_unit(op, precision), addend.detach())
        rounded = straight_through(addend, bias * roomy).to(y.dtype)
        return y * _over_channels(factor.to(y.dtype), y) + _over_channels(rounded, y)

    def folded_affine(self, op: Op, precision: Precision, statistics: Statistics | None) -> tuple[Tensor, Tensor]:
        """Factor and addend per output channel that an operation's bias or batch norm comes down to, in float64."""
        module = self.weighted_op(op.name)
        if module.norm is None:
            assert module.bias is not None
            return torch.ones_like(module.bias, dtype=torch.float64), module.bias.double()
        if statistics is not None and op.name not in statistics:
            raise NetworkError(f"Batch norm statistics must cover {op.name}, but do not; estimate them with its exit's path.")
        chosen = module.norm.running if statistics is None else statistics[op.name]
        scale, offset = module.norm.affine(precision)
        return folded(scale, offset, chosen, module.norm.epsilon)

    @torch.no_grad()
    def float_forward(
        self, images: Tensor, observe: Callable[[str, Tensor], None] | None = None, *, exits: Sequence[str] = ("",)
    ) -> dict[str, Tensor]:
        """Logits of the unquantized network with its own statistics; `observe` sees every operation's output."""
        values = {INPUT: images}
        for op in self.path(exits):
            inputs = [values[source] for source in op.inputs]
            y = operate(op, inputs, self.weighted_op(op.name).quantizer.weight if op.has_weights else None)
            if op.has_weights:
                y = self._finish_float(op, y)
            values[op.name] = activate(op, y)
            if observe is not None:
                observe(op.name, values[op.name])
        return {name: values[self._ends[name]].flatten(1) for name in exits}

    def _finish_float(self, op: Op, y: Tensor) -> Tensor:
        module = self.weighted_op(op.name)
        if module.norm is None:
            assert module.bias is not None
            return y + _over_channels(module.bias, y)
        norm = module.norm
        return F.batch_norm(y, norm.running_mean, norm.running_variance, norm.scale, norm.offset, eps=norm.epsilon)

    def encode(self, images: Tensor) -> Codes:
        """Images `[N, C, H, W]` as the uint8 codes `[N, H, W, C]` that the integer model reads."""
        codes = self.input_quantizer.codes(images).to(torch.uint8)
        return codes.permute(0, 2, 3, 1).contiguous().numpy()  # [N, H, W, C]

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """All that `from_arrays` needs besides the search space."""
        arrays: dict[str, NDArray[np.generic]] = {name: tensor.numpy().copy() for name, tensor in self.state_dict().items()}
        arrays["input.step"] = np.array(self.input_quantizer.step)
        arrays["input.zero"] = np.array(self.input_quantizer.zero)
        return arrays

    @classmethod
    def from_arrays(cls, space: "SearchSpace", arrays: Arrays) -> Self:
        """The supernet whose `to_arrays` gave `arrays`, in evaluation mode."""
        quantizer = InputQuantizer(step=float(arrays["input.step"]), zero=int(arrays["input.zero"]))
        supernet = cls.of_space(space, quantizer, scheme=scheme_of(arrays))
        tensors = {name: torch.tensor(array) for name, array in arrays.items() if not name.startswith("input.")}
        supernet.load_state_dict(tensors)
        return supernet.eval()


def options_of(space: "SearchSpace") -> dict[str, tuple[Precision, ...]]:
    """The precisions each operation may take; an operation without weights takes the activation widths of its unit."""
    options: dict[str, tuple[Precision, ...]] = {}
    for unit in space.units:
        for name in unit.ops:
            precisions = unit.precisions
            if not space.network[name].has_weights:
                precisions = tuple(dict.fromkeys(p.without_weights() for p in precisions))
            options[name] = precisions
    return options


def _key(name: str) -> str:
    """An operation's name as a module name, which may hold no dot."""
    return name.replace(".", "/")


def _over_channels(vector: Tensor, y: Tensor) -> Tensor:
    """A vector over channels, shaped to meet `[N, C, H, W]` or `[N, C]`."""
    return vector.reshape(-1, *[1] * (y.dim() - 2))
