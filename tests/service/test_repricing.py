"""Several devices side by side, and finished fronts priced anew."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsearch.errors import ProfileError
from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind, PolicyShape
from hwsearch.graph.network import Network
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.graph.space import load_space, network_for_space
from hwsearch.hardware.cost import Cost, PolicyCost
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.pricing.widening import widen
from hwsearch.results.front import FrontPoint, ParetoFront
from hwsearch.service.cli import main

CMSIS, CUBE, PI = "nucleo_l4r5zi.cmsis_nn", "nucleo_l4r5zi.x_cube_ai", "raspberry_pi_4b.tflite"
SPACE = "resnet8_cifar10"


@pytest.fixture
def hwsearch(monkeypatch, capsys):
    """Run a command; returns (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "250")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["hwsearch", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def cost(hwsearch, *profiles, bits="w8a8", extra=("--json",)):
    named = [part for profile in profiles for part in ("--profile", profile)]
    return hwsearch("cost", "--space", SPACE, "--bits", bits, *named, *extra)


def test_one_profile_gives_the_record_it_always_gave(hwsearch):
    code, out, _ = cost(hwsearch, CMSIS)
    assert code == 0
    assert list(json.loads(out)) == ["latency_us", "energy_uj", "flash_bytes", "ram_bytes", "provenance", "ops"]


def test_several_profiles_stand_in_a_list_each_as_if_alone(hwsearch):
    code, out, _ = cost(hwsearch, CMSIS, PI)
    assert code == 0
    both = json.loads(out)["profiles"]
    assert [record["profile"] for record in both] == [CMSIS, PI]
    for record, name in zip(both, (CMSIS, PI), strict=True):
        alone = json.loads(cost(hwsearch, name)[1])
        assert {key: record[key] for key in alone} == alone
        shares = [op["latency_us"] * op["uncertainty"] for op in record["ops"]]
        assert record["uncertainty"] == pytest.approx(sum(shares) / record["latency_us"])


def test_the_text_has_a_column_per_profile_and_the_totals_below(hwsearch):
    code, out, _ = cost(hwsearch, CMSIS, CUBE, extra=())
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["op", "kind", "out", "precision", CMSIS, CUBE]
    total = next(line for line in lines if line.startswith("total ms"))
    record = json.loads(cost(hwsearch, CMSIS, CUBE)[1])
    for one in record["profiles"]:
        assert f"{one['latency_us'] / 1000:.3f} ±" in total


def test_a_width_one_profile_lacks_is_refused_unless_wider_ones_are_allowed(hwsearch):
    code, _, err = cost(hwsearch, CMSIS, CUBE, bits="w4a8")
    assert code == 2
    assert "only the widths w8a8" in err
    code, out, _ = cost(hwsearch, CMSIS, CUBE, bits="w4a8", extra=("--json", "--widen"))
    assert code == 0
    narrow, wide = json.loads(out)["profiles"]
    assert narrow["ops"][1]["precision"] == "w4a8"
    assert wide == json.loads(cost(hwsearch, CMSIS, CUBE)[1])["profiles"][1]
    text = cost(hwsearch, CMSIS, CUBE, bits="w4a8", extra=("--widen",))[1]
    assert "(w8a8)" in text


# --- fronts -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def space():
    return load_space(SPACE, network_for_space(SPACE))


def point(space, trial, accuracy, kind, *bits, latency_us):
    entries = tuple(MenuEntry(assignment=space.uniform(Precision.parse(one))) for one in bits)
    cost = Cost(latency_us=latency_us, energy_uj=1.0, flash_bytes=1, ram_bytes=1)
    escalation = (0.5,) * (len(entries) - 1) if kind is PolicyKind.CASCADE else ()
    return FrontPoint(
        trial=trial, menu=Menu(kind=kind, entries=entries), policy=PolicyShape(kind=kind, escalation=escalation),
        accuracy=accuracy, shares=(1.0,) if len(entries) == 1 else (0.5, 0.5), cost=PolicyCost(mean=cost, worst=cost),
    )  # fmt: skip


@pytest.fixture
def run(space, tmp_path):
    """A front on which w4a8 is faster than w8a8, as it is not under CMSIS-NN."""
    points = (
        point(space, 3, 0.80, PolicyKind.STATIC, "w4a8", latency_us=10.0),
        point(space, 5, 0.85, PolicyKind.STATIC, "w8a8", latency_us=20.0),
        point(space, 9, 0.90, PolicyKind.CASCADE, "w4a8", "w8a8", latency_us=30.0),
    )
    ParetoFront(points=points, profile="elsewhere", task="cifar10", space=SPACE, seed=0).save(tmp_path)
    return tmp_path


def test_a_front_is_priced_as_its_models_are(hwsearch, run):
    code, out, err = hwsearch("price", run, "--profile", CMSIS, "--json")
    assert code == 0, err
    record = json.loads(out)
    assert record["profile"] == CMSIS
    assert [one["trial"] for one in record["front"]] == [5], "w4a8 is less accurate and slower under CMSIS-NN"
    assert record["dominated"] == [3]
    alone = json.loads(cost(hwsearch, CMSIS)[1])
    assert record["front"][0]["mean"]["latency_us"] == pytest.approx(alone["latency_us"])
    assert record["front"][0]["accuracy"] == 0.85


def test_points_that_a_device_cannot_run_are_named_with_the_reason(hwsearch, run):
    _, out, _ = hwsearch("price", run, "--profile", CMSIS, "--json")
    (unpriced,) = json.loads(out)["unpriced"]
    assert unpriced["trial"] == 9
    assert "must have a row for" in unpriced["reason"]
    text = hwsearch("price", run, "--profile", CMSIS)[1]
    assert "trial 9 has no price: " in text
    assert "no longer on the front: trials 3" in text


def test_a_front_that_no_row_fits_is_refused(hwsearch, space, tmp_path):
    points = (point(space, 1, 0.8, PolicyKind.STATIC, "w2a2", latency_us=1.0),)
    ParetoFront(points=points, profile="elsewhere", task="cifar10", space=SPACE, seed=0).save(tmp_path)
    code, out, err = hwsearch("price", tmp_path, "--profile", CUBE)
    assert code == 2
    assert not out
    assert "must price a point of the front, but prices none" in err
    code, out, _ = hwsearch("price", tmp_path / "front.json", "--profile", CUBE, "--widen", "--json")
    assert code == 0
    assert "w8a8" in json.loads(out)["front"][0]["assignments"][0]
    assert "w2a2" not in json.loads(out)["front"][0]["assignments"][0]


@pytest.mark.parametrize(
    ("arguments", "told"), [(["nowhere", "--profile", CMSIS], "run a search first"), ([".", "--profile", "toaster"], "toaster")]
)
def test_what_is_missing_is_named(hwsearch, run, monkeypatch, arguments, told):
    monkeypatch.chdir(run)
    code, _, err = hwsearch("price", *arguments)
    assert code == 2
    assert told in err
    assert "Traceback" not in err


def test_pricing_leaves_the_run_as_it_is(hwsearch, run):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    hwsearch("price", run, "--profile", CMSIS)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


# --- widening ---------------------------------------------------------------------------------------------------------


def one_op_network() -> Network:
    op = Op(
        name="conv", kind=OpKind.CONV2D, inputs=("input",), in_shape=(16, 32, 32), out_shape=(16, 32, 32), kernel=(3, 3),
        stride=(1, 1), padding=(1, 1),
    )  # fmt: skip
    return Network([op], (16, 32, 32), "one")


@pytest.fixture(scope="module")
def cmsis(shipped) -> HardwareProfile:
    return shipped(CMSIS)


@given(weights=st.sampled_from([1, 2, 3, 4, 5, 8]), activations=st.integers(1, 8))
def test_a_wider_precision_covers_the_one_asked_for(cmsis, weights, activations):
    (found,) = widen([BitAssignment({"conv": Precision(weights, activations)})], one_op_network(), cmsis)
    assert found["conv"] == Precision(4 if weights <= 4 else 8, 8)


def test_entries_that_share_weights_are_stored_at_one_width(cmsis):
    """CMSIS-NN has no kernel that reads 4 of 8 stored bits: both entries run at 8."""
    narrow, wide = (BitAssignment({"conv": Precision(bits, 8)}) for bits in (4, 8))
    assert widen([narrow, wide], one_op_network(), cmsis) == (wide, wide)


def test_an_operation_without_rows_cannot_be_widened(cmsis):
    op = Op(name="pool", kind=OpKind.MAX_POOL, inputs=("input",), in_shape=(4, 8, 8), out_shape=(4, 4, 4), kernel=(2, 2),
            stride=(2, 2))  # fmt: skip
    with pytest.raises(ProfileError, match="has none"):
        widen([BitAssignment({"pool": Precision(0, 4)})], Network([op], (4, 8, 8), "pool"), cmsis)
