"""A network: priced operations in execution order, on a networkx graph, with exits and memory lifetimes."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import networkx as nx

from hwsearch.errors import NetworkError
from hwsearch.graph.op import Activation, Op, OpKind, Shape
from hwsearch.graph.precision import BitAssignment

INPUT = "input"


class Network:
    """Operations in execution order. `ops[i].inputs` name earlier operations or `input`.

    The trunk ends in exactly one operation without consumers; each exit head ends in one more.
    """

    def __init__(self, ops: Iterable[Op], input_shape: Shape, name: str = "network") -> None:
        self.ops = tuple(ops)
        self.input_shape = input_shape
        self.name = name
        self._by_name = {op.name: op for op in self.ops}
        self._paths: dict[tuple[str, ...], tuple[Op, ...]] = {}
        self._check()

    def _check(self) -> None:
        if len(self._by_name) != len(self.ops) or INPUT in self._by_name:
            raise NetworkError("Operation names must be unique and none may be 'input'; rename the modules.")
        known = {INPUT}
        for op in self.ops:
            missing = [name for name in op.inputs if name not in known]
            if missing:
                raise NetworkError(f"Operation {op.name} must read earlier operations, but reads {missing[0]}; reorder them.")
            known.add(op.name)
        self.output  # noqa: B018  raises unless there is exactly one

    @cached_property
    def graph(self) -> "nx.DiGraph[str]":
        """Operation names as nodes (attribute `op`), an edge from each producer to each consumer."""
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_node(INPUT)
        for op in self.ops:
            graph.add_node(op.name, op=op)
            graph.add_edges_from((source, op.name) for source in op.inputs)
        return graph

    def __getitem__(self, name: str) -> Op:
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def consumers(self, tensor: str) -> tuple[Op, ...]:
        """Operations that read the output of `tensor` (an operation's name or `input`), in execution order."""
        return self._consumers.get(tensor, ())

    @cached_property
    def _consumers(self) -> dict[str, tuple[Op, ...]]:
        read = dict.fromkeys(source for op in self.ops for source in op.inputs)
        return {tensor: tuple(op for op in self.ops if tensor in op.inputs) for tensor in read}

    def shape_of(self, tensor: str) -> Shape:
        return self.input_shape if tensor == INPUT else self[tensor].out_shape

    @property
    def exits(self) -> tuple[str, ...]:
        """Names of early exits in execution order; the trunk's end is not among them."""
        return tuple(dict.fromkeys(op.exit for op in self.ops if op.exit))

    @property
    def output(self) -> Op:
        """The trunk's last operation, whose output are the logits."""
        return self.output_of("")

    def output_of(self, exit_name: str) -> Op:
        """The operation whose output are the logits of an exit; the empty name is the trunk's end."""
        ends = [op for op in self.ops if op.exit == exit_name and not self.consumers(op.name)]
        if len(ends) != 1:
            found = ", ".join(op.name for op in ends) or "none"
            raise NetworkError(f"A network must have exactly one output per exit, but {exit_name or 'the trunk'} has {found}.")
        return ends[0]

    def path(self, exit_names: Iterable[str]) -> tuple[Op, ...]:
        """Operations that must run to reach all the named exits, in execution order (`""` is the trunk's end)."""
        wanted = tuple(exit_names)
        if wanted not in self._paths:
            ends = [self.output_of(exit_name).name for exit_name in wanted]
            needed = set(ends).union(*(nx.ancestors(self.graph, end) for end in ends))
            self._paths[wanted] = tuple(op for op in self.ops if op.name in needed)
        return self._paths[wanted]

    def output_bits(self, name: str, assignment: BitAssignment) -> int:
        """Width at which an operation's output is stored: that of its readers; 32 for logits."""
        readers = self.consumers(name)
        if not readers:
            return 32
        return assignment[readers[0].name].activation_bits

    def lifetimes(self, ops: Iterable[Op] | None = None) -> dict[str, tuple[int, int]]:
        """First and last step (positions in `ops`, both included) at which each tensor must exist.

        The input exists from step 0; outputs nobody reads exist to the end.
        """
        steps = tuple(ops) if ops is not None else self.ops
        lives = {INPUT: (0, 0)}
        for step, op in enumerate(steps):
            for source in op.inputs:
                lives[source] = (lives[source][0], step)
            lives[op.name] = (step, step)
        read = {source for op in steps for source in op.inputs}
        return {name: (first, last if name in read else len(steps) - 1) for name, (first, last) in lives.items()}

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "input_shape": list(self.input_shape), "ops": [asdict(op) for op in self.ops]}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Network":
        return cls(map(_op_from_json, record["ops"]), tuple(record["input_shape"]), record["name"])


def _op_from_json(record: dict[str, Any]) -> Op:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
    return Op(**{**fields, "kind": OpKind(fields["kind"]), "activation": Activation(fields["activation"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Byte offset of each tensor (and of each operation's scratch) in one arena."""

    offsets: dict[str, int]
    arena_bytes: int


def plan_memory(
    network: Network,
    tensor_bytes: Callable[[str], int],
    scratch_bytes: Callable[[Op], int],
    ops: Iterable[Op] | None = None,
) -> MemoryPlan:
    """Place tensors so that those alive together never overlap: greedy, largest first, lowest free offset, 8-byte aligned.

    An operation's scratch lives for its own step, under the key `op-name:scratch`. This very plan is the exported
    arena, so the price of RAM is the arena's size and not an estimate.
    """
    steps = tuple(ops) if ops is not None else network.ops
    blocks = [(tensor_bytes(name), first, last, name) for name, (first, last) in network.lifetimes(steps).items()]
    scratch = [(scratch_bytes(op), step, step, f"{op.name}:scratch") for step, op in enumerate(steps)]
    blocks += [block for block in scratch if block[0]]
    taken: list[list[tuple[int, int]]] = [[] for _ in range(len(steps) or 1)]  # places by step
    offsets: dict[str, int] = {}
    arena_bytes = 0
    for size, first, last, name in sorted(blocks, key=lambda block: (-block[0], block[1], block[3])):
        offset = 0
        for start, end in sorted({place for places in taken[first : last + 1] for place in places}):
            if start < offset + size and offset < end:
                offset = -(-end // 8) * 8
        offsets[name] = offset
        arena_bytes = max(arena_bytes, offset + size)
        for places in taken[first : last + 1]:
            places.append((offset, offset + size))
    return MemoryPlan(offsets=offsets, arena_bytes=arena_bytes)
