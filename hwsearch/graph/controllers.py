"""Every operation that a policy adds to a network, and its precision: controllers, decisions, heads of exits.

A controller is a network on the model's input that runs first and picks the entry. A decision is an argmax over logits: of the
controller's, or of each entry at which an inference may stop. Whoever searches, prices, measures, trains or exports one of these
takes it from here.
"""

from collections.abc import Callable, Iterable, Mapping

from hwsearch.errors import SpaceError
from hwsearch.graph.menu import Menu, PolicyKind, PolicyShape
from hwsearch.graph.network import INPUT, Network
from hwsearch.graph.op import Activation, Op, OpKind, Shape
from hwsearch.graph.precision import BitAssignment, Precision

CONTROLLER_BITS = 8
"""Width of everything in a controller: it is small and decides for everything after it."""
DECISION = Precision(0, CONTROLLER_BITS)
"""The precision at which a decision is measured and priced, whatever gave its int32 logits."""
EXIT_GRID = 2
"""Side of the map that an exit head's linear layer reads; 1 where the feature map has no 2 rows or columns."""


# --- controllers ------------------------------------------------------------------------------------------------------


def gate_graph(policy: PolicyShape, input_shape: Shape, n_entries: int) -> Network:
    """The gate as priced operations: `gate.pool` (absent where nothing is to pool), `gate.hidden`, `gate.choice`.

    The grid has at most `policy.gate_grid` rows and columns; rows and columns that do not fill a window are left out.

    >>> policy = PolicyShape(kind=PolicyKind.GATE, gate_grid=4, gate_hidden=8)
    >>> [(op.name, op.in_shape, op.out_shape) for op in gate_graph(policy, (1, 8, 8), 3).ops]
    [('gate.pool', (1, 8, 8), (1, 4, 4)), ('gate.hidden', (1, 4, 4), (8,)), ('gate.choice', (8,), (3,))]
    """
    if policy.gate_grid < 1 or policy.gate_hidden < 1 or n_entries < 2:
        raise SpaceError(
            "A gate must have a grid and hidden units of 1 or more and 2 entries or more, "
            f"but has {policy.gate_grid}, {policy.gate_hidden} and {n_entries}; correct the policy."
        )
    channels, height, width = input_shape
    window = (-(-height // policy.gate_grid), -(-width // policy.gate_grid))
    pooled = (channels, height // window[0], width // window[1])
    pool = Op(
        name="gate.pool", kind=OpKind.AVG_POOL, inputs=(INPUT,), in_shape=input_shape, out_shape=pooled,
        kernel=window, stride=window,
    )  # fmt: skip
    before = () if window == (1, 1) else (pool,)
    hidden = Op(
        name="gate.hidden", kind=OpKind.LINEAR, inputs=(before[0].name if before else INPUT,), in_shape=pooled,
        out_shape=(policy.gate_hidden,), activation=Activation.RELU,
    )  # fmt: skip
    choice = Op(
        name="gate.choice", kind=OpKind.LINEAR, inputs=("gate.hidden",), in_shape=(policy.gate_hidden,), out_shape=(n_entries,)
    )
    return Network((*before, hidden, choice), input_shape, "gate")


CONTROLLERS: Mapping[PolicyKind, Callable[[PolicyShape, Shape, int], Network]] = {PolicyKind.GATE: gate_graph}
"""What gives the controller of each kind that has one, its logits as many as the menu's entries."""


def controller_of(policy: PolicyShape, input_shape: Shape, n_entries: int) -> Network | None:
    """The network that picks among `n_entries` from an input of this shape; None where the kind has no controller."""
    return CONTROLLERS[policy.kind](policy, input_shape, n_entries) if policy.kind.has_controller else None


def controller_assignment(controller: Network) -> BitAssignment:
    """Every operation of a controller at 8 bits."""
    return BitAssignment({op.name: Precision(CONTROLLER_BITS if op.has_weights else 0, CONTROLLER_BITS) for op in controller.ops})


# --- decisions --------------------------------------------------------------------------------------------------------


def argmax_op(classes: int) -> Op:
    """The decision over `classes` int32 logits, as it is measured and priced (at `DECISION`)."""
    return Op(name="argmax", kind=OpKind.ARGMAX, inputs=("input",), in_shape=(classes,), out_shape=(1,))


def decisions(menu: Menu, network: Network) -> tuple[Op, ...]:
    """The one decision over a controller's logits; those of every entry but the last where the kind escalates; else none."""
    if menu.kind.has_controller:
        return (argmax_op(len(menu.entries)),)
    stops = menu.entries[:-1] if menu.kind.escalates else ()
    return tuple(argmax_op(network.output_of(entry.exit).out_channels) for entry in stops)


# --- exits ------------------------------------------------------------------------------------------------------------


def exit_head(source: Op, name: str, classes: int) -> tuple[Op, Op]:
    """Average pooling of an operation's feature map to 2x2, and a linear layer from there to the classes."""
    channels, height, width = source.out_shape
    grid = EXIT_GRID if min(height, width) >= EXIT_GRID else 1
    window = (height // grid, width // grid)
    pooled = (channels, grid, grid)
    pool = Op(
        name=f"{name}.pool", kind=OpKind.AVG_POOL, inputs=(source.name,), in_shape=source.out_shape, out_shape=pooled,
        kernel=window, stride=window, exit=name,
    )  # fmt: skip
    head = Op(name=f"{name}.fc", kind=OpKind.LINEAR, inputs=(pool.name,), in_shape=pooled, out_shape=(classes,), exit=name)
    return pool, head


def attach_exits(network: Network, after: Iterable[str]) -> Network:
    """The network with a head after each named trunk operation: average pooling to 2x2 and a linear layer to the classes.

    Heads are called `exit1`, `exit2`, ... in execution order, their operations `exit1.pool` and `exit1.fc`.
    """
    wanted = tuple(after)
    for name in wanted:
        if name not in network or network[name].exit or network[name] is network.output or len(network[name].out_shape) != 3:
            places = [op.name for op in network.ops if len(op.out_shape) == 3 and op is not network.output and not op.exit]
            raise SpaceError(
                f"An exit must read a feature map inside the network ({', '.join(places)}), but found {name!r}; "
                "name one of these."
            )
    if len(set(wanted)) != len(wanted):
        raise SpaceError(f"Exits must read different operations, but {', '.join(wanted)} repeats one; name each once.")
    ops: list[Op] = []
    number = len(network.exits)
    for op in network.ops:
        ops.append(op)
        if op.name in wanted:
            number += 1
            ops += exit_head(op, f"exit{number}", network.output.out_shape[0])
    return Network(ops, network.input_shape, network.name)
