"""Which kind of policy it is, nothing asks: kinds are rows of dict literals, and everything else asks their traits."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import hwsearch
from hwsearch.errors import SpaceError
from hwsearch.graph.controllers import CONTROLLERS, controller_assignment, controller_of, decisions
from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind, PolicyShape
from hwsearch.graph.network import Network
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import BitAssignment, Precision

PACKAGE = Path(hwsearch.__file__).parent
OWN_FILE = PACKAGE / "graph" / "menu.py"
WITH_CONTROLLER = {kind for kind in PolicyKind if kind.has_controller}


def is_kind(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "PolicyKind"


def names_a_kind(node: ast.AST) -> bool:
    """`PolicyKind.GATE`, or the text that stands for it in files."""
    return is_kind(node) or (isinstance(node, ast.Constant) and node.value in list(PolicyKind))


def parents(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    return {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}


def is_a_row_or_a_records_field(node: ast.AST, above: dict[ast.AST, ast.AST]) -> bool:
    """A key or value of a dict literal; an argument by keyword; the default of an argument or of a field."""
    holder = above[node]
    while isinstance(holder, ast.Tuple):
        holder = above[holder]
    return isinstance(holder, ast.Dict | ast.keyword | ast.arguments | ast.AnnAssign)


def comparisons(tree: ast.AST) -> Iterator[int]:
    """Lines of every comparison with a kind or with a collection of some, and of every case of a match on one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            compared = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            compared = [node.value]
        else:
            continue
        if any(names_a_kind(part) for side in compared for part in ast.walk(side)):
            yield node.lineno


def faults_in(source: str) -> list[int]:
    """Lines that test which kind something is, or name one outside a row or a record."""
    tree = ast.parse(source)
    above = parents(tree)
    named = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_kind(node)]
    strays = [node.lineno for node in named if not is_a_row_or_a_records_field(node, above)]
    return sorted({*comparisons(tree), *strays})


def test_nothing_but_rows_and_records_names_a_kind() -> None:
    files = [path for path in PACKAGE.rglob("*.py") if path != OWN_FILE]
    assert len(files) > 100
    found = {str(path.relative_to(PACKAGE)): faults_in(path.read_text(encoding="utf-8")) for path in files}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "if kind is PolicyKind.GATE: pass", "x = kind != PolicyKind.EXIT", "x = kind in (PolicyKind.GATE, PolicyKind.EXIT)",
        "x = PolicyKind.EXIT in kinds", "x = {PolicyKind.GATE} & kinds", "x = is_it(kind, PolicyKind.GATE)", "x = kind == 'gate'",
        "match kind:\n    case PolicyKind.STATIC | PolicyKind.GATE: pass", "match kind:\n    case 'cascade': pass",
    ],
)  # fmt: skip
def test_a_test_on_a_kind_would_be_seen(source: str) -> None:
    assert faults_in(source)


@pytest.mark.parametrize(
    "source",
    [
        "x = {PolicyKind.GATE: 1}", "Menu(kind=PolicyKind.STATIC, entries=())", "x: Kinds = (PolicyKind.STATIC,)",
        "def f(kind: PolicyKind = PolicyKind.STATIC): pass", "x = kind.has_controller", "x = a.kind is b.kind",
    ],
)  # fmt: skip
def test_rows_records_and_traits_are_no_tests(source: str) -> None:
    assert not faults_in(source)


def rows(tree: ast.AST) -> Iterator[set[str]]:
    """Keys of every dict literal over kinds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict) and node.keys and all(key is not None and is_kind(key) for key in node.keys):
            yield {key.attr for key in node.keys if isinstance(key, ast.Attribute)}


def test_every_dict_over_kinds_has_a_row_for_each() -> None:
    """All of them, or for controllers all that have one."""
    found = [keys for path in PACKAGE.rglob("*.py") for keys in rows(ast.parse(path.read_text(encoding="utf-8")))]
    assert len(found) >= 3
    assert all(keys in ({kind.name for kind in PolicyKind}, {kind.name for kind in WITH_CONTROLLER}) for keys in found)


# --- traits -----------------------------------------------------------------------------------------------------------


def network_with_exit() -> Network:
    shape = (2, 4, 4)
    ops = [
        Op(name="conv", kind=OpKind.CONV2D, inputs=("input",), in_shape=shape, out_shape=shape),
        Op(name="exit1.fc", kind=OpKind.LINEAR, inputs=("conv",), in_shape=shape, out_shape=(3,), exit="exit1"),
        Op(name="fc", kind=OpKind.LINEAR, inputs=("conv",), in_shape=shape, out_shape=(3,)),
    ]
    return Network(ops, shape)


def menu_of(kind: PolicyKind, network: Network) -> Menu:
    """Two entries, or the one that the kind has."""
    wide, narrow = (BitAssignment({op.name: Precision(bits, 8) for op in network.ops}) for bits in (8, 2))
    if kind.shares_trunk:
        return Menu(kind=kind, entries=(MenuEntry(assignment=wide, exit="exit1"), MenuEntry(assignment=wide)))
    entries = (MenuEntry(assignment=narrow), MenuEntry(assignment=wide))
    return Menu(kind=kind, entries=entries[:1] if kind.has_one_entry else entries)


@pytest.mark.parametrize("kind", list(PolicyKind))
def test_a_controller_gives_one_logit_per_entry_and_only_kinds_that_have_one_get_one(kind: PolicyKind) -> None:
    controller = controller_of(PolicyShape(kind=kind, gate_grid=2, gate_hidden=4), (1, 8, 8), 3)
    assert (controller is not None) == kind.has_controller == (kind in CONTROLLERS)
    if controller is not None:
        assert controller.output.out_shape == (3,) and controller.input_shape == (1, 8, 8)
        assert {str(controller_assignment(controller)[op.name]) for op in controller.ops} == {"a8", "w8a8"}


@pytest.mark.parametrize("kind", list(PolicyKind))
def test_decisions_are_over_a_controllers_logits_or_those_of_every_entry_but_the_last(kind: PolicyKind) -> None:
    network = network_with_exit()
    sizes = [op.in_shape for op in decisions(menu_of(kind, network), network)]
    assert sizes == ([(2,)] if kind.has_controller else [(3,)] if kind.escalates else [])


@pytest.mark.parametrize("kind", list(PolicyKind))
def test_on_a_shared_trunk_nothing_runs_twice(kind: PolicyKind) -> None:
    network = network_with_exit()
    menu = menu_of(kind, network)
    run = [op.name for segment in menu.segments(network) for op in segment]
    assert (len(run) == len(set(run))) == (kind.shares_trunk or kind.has_one_entry)
    assert len(menu.runs(network)) == (1 if kind.shares_trunk else len(menu.entries))


@pytest.mark.parametrize("kind", list(PolicyKind))
def test_a_menu_has_as_many_entries_as_its_kind_allows(kind: PolicyKind) -> None:
    entry = MenuEntry(assignment=BitAssignment({"fc": Precision(8, 8)}))
    with pytest.raises(SpaceError, match="one entry and any other several"):
        Menu(kind=kind, entries=(entry,) * (2 if kind.has_one_entry else 1))
