"""Order, paths, lifetimes and the memory plan of networks."""

from collections.abc import Iterable
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsearch.errors import NetworkError
from hwsearch.graph.network import INPUT, Network, plan_memory
from hwsearch.graph.op import Op, OpKind, parse_shape, shape_text
from hwsearch.graph.precision import BitAssignment, Precision


def conv(name: str, source: str, channels: int = 4, exit_name: str = "") -> Op:
    shape = (channels, 4, 4)
    return Op(name=name, kind=OpKind.CONV2D, inputs=(source,), in_shape=shape, out_shape=shape, exit=exit_name)


def add(name: str, left: str, right: str) -> Op:
    shape = (4, 4, 4)
    return Op(name=name, kind=OpKind.ADD, inputs=(left, right), in_shape=shape, out_shape=shape)


def linear(name: str, source: str, exit_name: str = "") -> Op:
    return Op(name=name, kind=OpKind.LINEAR, inputs=(source,), in_shape=(4, 4, 4), out_shape=(10,), exit=exit_name)


RESIDUAL = Network([conv("a", INPUT), conv("b", "a"), conv("c", "b"), add("sum", "c", "a"), linear("fc", "sum")], (4, 4, 4))
EXITING = Network([conv("a", INPUT), linear("head", "a", "exit1"), conv("b", "a"), linear("fc", "b")], (4, 4, 4))


def test_a_tensor_lives_from_its_producer_to_its_last_reader() -> None:
    assert RESIDUAL.lifetimes() == {"input": (0, 0), "a": (0, 3), "b": (1, 2), "c": (2, 3), "sum": (3, 4), "fc": (4, 4)}


def test_logits_of_an_exit_live_to_the_end() -> None:
    assert EXITING.lifetimes()["head"] == (1, 3)


def test_a_path_holds_what_its_exits_need_and_nothing_else() -> None:
    assert [op.name for op in EXITING.path(("exit1",))] == ["a", "head"]
    assert [op.name for op in EXITING.path(("",))] == ["a", "b", "fc"]
    assert [op.name for op in EXITING.path(("exit1", ""))] == ["a", "head", "b", "fc"]


def test_an_output_is_stored_at_the_width_its_readers_read() -> None:
    bits = BitAssignment({name: Precision(8, width) for name, width in [("a", 8), ("head", 4), ("b", 4), ("fc", 2)]})
    assert [EXITING.output_bits(name, bits) for name in ("input", "a", "b", "fc", "head")] == [8, 4, 2, 32, 32]


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ([conv("a", INPUT), conv("a", "a")], "Operation names must be unique"),
        ([conv("input", INPUT)], "none may be 'input'"),
        ([conv("a", "b"), conv("b", INPUT)], "must read earlier operations, but reads b"),
        ([conv("a", INPUT), conv("b", INPUT)], "exactly one output per exit, but the trunk has a, b"),
        ([], "but the trunk has none"),
    ],
)
def test_a_network_out_of_order_is_refused(ops: list[Op], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        Network(ops, (4, 4, 4))


def test_networks_survive_json() -> None:
    again = Network.from_json(EXITING.to_json())
    assert (again.ops, again.input_shape, again.name) == (EXITING.ops, EXITING.input_shape, EXITING.name)


@given(st.one_of(st.tuples(st.integers(1, 999)), st.tuples(*[st.integers(1, 99)] * 3)))
def test_shapes_survive_their_text(shape: tuple[int, ...]) -> None:
    assert parse_shape(shape_text(shape)) == shape


Block = tuple[int, int, str, int | None]
"""Offset, size, operation or tensor, and the one step of a scratch block."""

# --- the memory plan --------------------------------------------------------------------------------------------------


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Random networks of up to 12 operations whose trunk ends in one operation; some have an exit head."""
    ops: list[Op] = []
    for index in range(draw(st.integers(1, 11))):
        sources = [INPUT, *(op.name for op in ops)]
        pick = st.sampled_from(sources)
        ops.append(add(f"op{index}", draw(pick), draw(pick)) if draw(st.booleans()) else conv(f"op{index}", draw(pick)))
    if len(ops) > 2 and draw(st.booleans()):
        ops.insert(2, linear("head", ops[1].name, "exit1"))
    read = {source for op in ops for source in op.inputs}
    loose = [op.name for op in ops if op.name not in read and not op.exit]
    for index, (left, right) in enumerate(zip(_chain(loose), loose[1:], strict=False)):
        ops.append(add(f"join{index}", left, right))
    return Network(ops, (4, 4, 4))


def _chain(loose: list[str]) -> Iterable[str]:
    yield loose[0]
    for index in range(len(loose) - 2):
        yield f"join{index}"


def alive(network: Network, tensor: str, step: int) -> bool:
    """Whether a tensor must exist while operation `step` runs, from the definition."""
    born = -1 if tensor == INPUT else [op.name for op in network.ops].index(tensor)
    readers = [index for index, op in enumerate(network.ops) if tensor in op.inputs]
    never_read = not readers and tensor != INPUT
    return born <= step and (never_read or step <= max([born, 0, *readers]))


@settings(deadline=None)
@given(networks())
def test_lifetimes_say_when_a_tensor_must_exist(network: Network) -> None:
    for tensor, (first, last) in network.lifetimes().items():
        for step in range(len(network.ops)):
            assert (first <= step <= last) == alive(network, tensor, step), (tensor, step)


@settings(deadline=None)
@given(networks(), st.data())
def test_the_memory_plan_never_overlaps_tensors_alive_together(network: Network, data: st.DataObject) -> None:
    sizes = {name: data.draw(st.integers(1, 100), name) for name in network.lifetimes()}
    scratch = {op.name: data.draw(st.integers(0, 60), f"scratch of {op.name}") for op in network.ops}
    plan = plan_memory(network, sizes.__getitem__, lambda op: scratch[op.name])

    blocks: list[Block] = [(plan.offsets[name], sizes[name], name, None) for name in sizes]
    blocks += [(plan.offsets[f"{name}:scratch"], size, name, step) for step, (name, size) in enumerate(scratch.items()) if size]

    def together(left: Block, right: Block) -> bool:
        return any(lives(left, step) and lives(right, step) for step in range(len(network.ops)))

    def lives(block: Block, step: int) -> bool:
        return block[3] == step if block[3] is not None else alive(network, block[2], step)

    for left, right in combinations(blocks, 2):
        apart = left[0] + left[1] <= right[0] or right[0] + right[1] <= left[0]
        assert apart or not together(left, right), (left, right, plan)
    assert all(offset % 8 == 0 for offset, *_ in blocks)
    assert plan.arena_bytes == max(offset + size for offset, size, *_ in blocks)
    peak = max(sum(block[1] for block in blocks if lives(block, step)) for step in range(len(network.ops)))
    assert peak <= plan.arena_bytes <= sum(size + 8 for _, size, *_ in blocks)


def test_the_memory_plan_of_a_chain_is_its_largest_pair() -> None:
    chain = Network([conv("a", INPUT), conv("b", "a"), conv("c", "b"), linear("fc", "c")], (4, 4, 4))
    sizes = {"input": 64, "a": 128, "b": 64, "c": 8, "fc": 40}
    assert plan_memory(chain, sizes.__getitem__, lambda op: 0).arena_bytes == 192


def test_the_memory_plan_of_a_path_leaves_the_rest_out() -> None:
    plan = plan_memory(EXITING, lambda name: 64, lambda op: 16 if op.name == "b" else 0, EXITING.path(("exit1",)))
    assert set(plan.offsets) == {"input", "a", "head"}
