"""What the shipped tables must hold: every operation of the reference networks, measured from the kernels that ship."""

from collections.abc import Callable, Iterator

import pytest

from hwsearch.emulation.cores.cortex_m4 import CORTEX_M4
from hwsearch.emulation.isa import Isa
from hwsearch.emulation.toolchain import find_compiler
from hwsearch.graph.controllers import gate_graph
from hwsearch.graph.menu import PolicyKind, PolicyShape
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import WEIGHT_WIDTHS, WEIGHTLESS_PRECISIONS, Precision
from hwsearch.graph.space import SearchSpace, list_spaces, load_space, network_for_space
from hwsearch.hardware.profile import HardwareProfile, RowKey
from hwsearch.kernels.bodies.known import BODIES
from hwsearch.kernels.catalogue import ALL_PRECISIONS, C_FOLDER, all_kernels, files_behind
from hwsearch.measuring.freshness import source_sha256
from hwsearch.measuring.grid import GRIDS, Work, default_grid, network_grid, reference_ops

SHIPPED = (
    "host_x86_64", "nucleo_l4r5zi", "nucleo_u575zi_q", "nucleo_h7a3zi_q", "disco_f746ng", "nrf52840", "nucleo_g0b1re",
    "rp2040", "esp32_c3", "raspberry_pi_4b", "raspberry_pi_zero_2w",
)  # fmt: skip


@pytest.fixture(scope="module")
def spaces() -> dict[str, SearchSpace]:
    return {name: load_space(name, network_for_space(name)) for name in list_spaces()}


@pytest.fixture(scope="module", params=SHIPPED)
def profile(request: pytest.FixtureRequest, shipped: Callable[[str], HardwareProfile]) -> HardwareProfile:
    return shipped(request.param)


def needed(space: SearchSpace) -> Iterator[RowKey]:
    """Rows of every choice that a space allows, weights stored at any width of the space that holds them."""
    for unit in space.units:
        widths = {precision.weight_bits for precision in unit.precisions}
        for op in (space.network[name] for name in unit.ops):
            logits = not space.network.consumers(op.name)
            for precision in unit.precisions:
                if op.has_weights:
                    yield from (RowKey.of(op, precision, bits, logits) for bits in widths if bits >= precision.weight_bits)
                else:
                    yield RowKey.of(op, precision.without_weights(), 0)


def gate_rows(space: SearchSpace) -> Iterator[RowKey]:
    policies = space.policies
    for grid in policies.gate_grids:
        for hidden in policies.gate_hidden:
            policy = PolicyShape(kind=PolicyKind.GATE, gate_grid=grid, gate_hidden=hidden)
            for entries in range(2, policies.max_entries + 1):
                gate = gate_graph(policy, space.network.input_shape, entries)
                for op in gate.ops:
                    bits = 8 if op.has_weights else 0
                    yield RowKey.of(op, Precision(bits, 8), bits, op is gate.output)


def test_the_grid_has_each_row_once_and_every_kernel() -> None:
    grid = default_grid()
    assert len({work.key for work in grid}) == len(grid)
    measured = {(work.op.kind, work.precision) for work in grid}
    for kind in OpKind:
        wanted = ALL_PRECISIONS if kind.has_weights else WEIGHTLESS_PRECISIONS
        if kind is not OpKind.ARGMAX:
            assert {precision for found, precision in measured if found is kind} == set(wanted)


def test_weights_are_stored_at_their_own_and_every_wider_width() -> None:
    op = Op(name="fc", kind=OpKind.LINEAR, inputs=("input",), in_shape=(8,), out_shape=(3,))
    network = reference_ops()["digits_cnn"]
    assert network[-1].kind is OpKind.LINEAR
    stored = {
        (work.precision.weight_bits, work.stored_bits)
        for work in default_grid()
        if work.op.kind is op.kind and work.op.in_shape == network[-1].in_shape and work.op.out_shape == network[-1].out_shape
    }
    assert stored == {(bits, wider) for bits in WEIGHT_WIDTHS for wider in WEIGHT_WIDTHS if wider >= bits}


def test_a_users_network_adds_its_own_rows(spaces: dict[str, SearchSpace]) -> None:
    space = spaces["digits_cnn"]
    works: tuple[Work, ...] = network_grid([space.network])
    assert {work.key for work in works} >= set(needed(space))


def test_every_shipped_space_is_covered_by_exact_rows(profile: HardwareProfile, spaces: dict[str, SearchSpace]) -> None:
    rows = {row.key for row in profile.measurements}
    for name, space in spaces.items():
        missing = [str(key) for key in (*needed(space), *gate_rows(space)) if key not in rows]
        assert not missing, f"{name} lacks {len(missing)} rows in {profile.name}, first {missing[0]}"


def test_every_reference_operation_is_covered_at_every_precision(profile: HardwareProfile) -> None:
    rows = {row.key for row in profile.measurements}
    assert not [str(work.key) for work in GRIDS[profile.header.library.grid]() if work.key not in rows]


def test_the_shipped_table_was_measured_from_the_kernels_that_ship(profile: HardwareProfile) -> None:
    last = profile.runs[-1]
    assert last.source_sha256 == source_sha256(profile.header.device.isa), (
        f"the kernels changed: run hwsearch measure {profile.name}"
    )
    assert last.rows + last.kept == len(profile.measurements), "rows that a run did not keep must go"
    assert {row.symbol for row in profile.measurements} <= {function.symbol for function in all_kernels()}


@pytest.mark.parametrize("isa", Isa)
def test_the_recorded_hash_covers_every_file_that_is_built_for_an_instruction_set(isa: Isa) -> None:
    folders = ["portable", *(body.folder for body in BODIES.values() if isa in body.isas)]
    found = {str(path.relative_to(C_FOLDER)) for folder in folders for path in (C_FOLDER / folder).rglob("*.[ch]")}
    assert {*files_behind(isa)} == found | {"hw_kernels.h"}


def test_the_header_names_the_compiler_and_flags_of_the_run(profile: HardwareProfile) -> None:
    last, library = profile.runs[-1], profile.header.library
    assert (library.compiler, library.flags) == (last.compiler, last.flags)


def test_the_board_is_measured_with_the_compiler_that_everyone_can_install_and_todays_flags(
    shipped: Callable[[str], HardwareProfile],
) -> None:
    library = shipped("nucleo_l4r5zi").header.library
    assert library.compiler.startswith("ziglang ")
    assert library.flags == find_compiler(CORTEX_M4.build_target, "ziglang").recorded_flags
