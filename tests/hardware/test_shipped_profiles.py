"""Every shipped profile of our own kernels agrees with the layout rules and prices every shipped space at every precision.

Profiles of published stacks are tested in test_published_boards.py.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from hwsearch.graph.op import Op
from hwsearch.graph.precision import Precision
from hwsearch.graph.space import SearchSpace, list_spaces, load_space, network_for_space
from hwsearch.hardware.profile import HardwareProfile, Measurement, Provenance, read_header
from hwsearch.kernels.layout import packed_weight_bytes, scratch_bytes
from hwsearch.pricing.cost_model import CostModel

SHIPPED = Path(__file__).resolve().parents[2] / "hardware_profiles"
NAMES = sorted(folder.parent.name for folder in SHIPPED.glob("*/profile.toml"))


PUBLISHED = [name for name in NAMES if read_header(SHIPPED / name).library.published]


@pytest.fixture(scope="module", params=[name for name in NAMES if name not in PUBLISHED])
def profile(request: pytest.FixtureRequest, shipped: Callable[[str], HardwareProfile]) -> HardwareProfile:
    return shipped(request.param)


@pytest.fixture(scope="module")
def spaces() -> list[SearchSpace]:
    return [load_space(name, network_for_space(name)) for name in list_spaces()]


def op_of(row: Measurement) -> Op:
    unpadded = row.in_shape[1:] == row.out_shape[1:]
    return Op(
        name="op", kind=row.op, inputs=("input",), in_shape=row.in_shape, out_shape=row.out_shape, kernel=row.kernel,
        stride=row.stride, padding=(0, 0) if unpadded else (1, 1), groups=row.groups,
    )  # fmt: skip


def test_two_profiles_are_shipped() -> None:
    assert {"nucleo_l4r5zi", "host_x86_64"} <= set(NAMES) - set(PUBLISHED)


def test_memory_columns_follow_the_layout(profile: HardwareProfile) -> None:
    for row in profile.measurements:
        op = op_of(row)
        assert row.scratch_bytes == scratch_bytes(op, row.precision, profile.device.isa), row.key
        assert row.weight_bytes == (packed_weight_bytes(op, row.stored_bits) if op.has_weights else 0), row.key
        assert row.code_bytes > 0, row.key


def test_every_number_says_where_it_comes_from(profile: HardwareProfile) -> None:
    emulated = Provenance.MODELLED if profile.device.core.startswith("Cortex-A") else Provenance.EMULATED
    expected = Provenance.MEASURED if profile.header.counter.unit == "ns" else emulated
    assert {row.provenance for row in profile.measurements} == {expected}
    assert len(profile.validity.text) > 80
    assert profile.validity.relative_error > 0


@pytest.mark.slow
def test_every_shipped_space_has_a_price_at_every_precision(profile: HardwareProfile, spaces: list[SearchSpace]) -> None:
    for space in spaces:
        costs = CostModel(space.network, profile)
        for exits in (("",), *((name,) for name in space.network.exits)):
            for unit, options in costs.unit_prices(space, exits=exits).items():
                assert all(option.latency_us >= 0 and option.flash_bytes >= 0 for option in options), unit
        widest = space.assignment({unit.name: unit.widest for unit in space.units})
        assert costs.provenance(costs.breakdown(widest)).keys() <= {"emulated", "measured", "modelled"}, (
            "reference networks have exact rows"
        )


def test_low_bits_pay_on_the_microcontroller(shipped: Callable[[str], HardwareProfile]) -> None:
    space = load_space("digits_cnn", network_for_space("digits_cnn"))
    costs = CostModel(space.network, shipped("nucleo_l4r5zi"))
    by_width = {bits: costs.price(space.uniform(Precision(bits, bits))).latency_us for bits in (2, 4, 8)}
    assert by_width[4] < 0.8 * by_width[8]
    assert by_width[2] < by_width[4]


def test_shipped_tables_say_nothing_that_follows() -> None:
    for name in NAMES:
        columns = (SHIPPED / name / "ops.csv").read_text(encoding="utf-8").partition("\n")[0].split(",")
        interval = {"count_p05", "count_p95"} if name in PUBLISHED or name.startswith("host_") else set()
        symbol = {"symbol"} if name in PUBLISHED else {"stored_bits", "logits", "scratch_bytes"}
        key = {"op", "in_shape", "out_shape", "kernel", "stride", "groups", "weight_bits", "activation_bits"}
        assert {*columns} == key | {"count", "run"} | interval | symbol, name
