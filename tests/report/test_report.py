"""The report: one file that needs nothing else, in which every number of the run can be found."""

import base64
import math
import re
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from hwsearch.emulation.isa import Isa
from hwsearch.graph.controllers import argmax_op, attach_exits
from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind, PolicyShape
from hwsearch.graph.network import Network
from hwsearch.graph.op import Op, OpKind
from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.hardware.cost import Budget, PolicyCost
from hwsearch.hardware.header import Counter, Device, Library, Power, ProfileHeader, Validity
from hwsearch.hardware.profile import HardwareProfile, Measurement, Provenance
from hwsearch.integers.integer_model import IntegerModel, StoredWeights
from hwsearch.kernels.layout import packed_weight_bytes
from hwsearch.pricing.cost_model import CostModel
from hwsearch.report.charts import LOWER_EDGE, front_axes
from hwsearch.report.report import Inputs, Reference, ReportData, png, report_html, write_report
from hwsearch.results.final_model import Certificate, FinalModel
from hwsearch.results.front import FrontPoint, ParetoFront

W8A8, W4A4, W2A2 = (Precision(bits, bits) for bits in (8, 4, 2))
HEADER = ProfileHeader(
    schema=1,
    device=Device(
        name="Test board", isa=Isa.ARMV7E_M, core="Cortex-M4F", clock_hz=120_000_000, flash_bytes=1 << 21, ram_bytes=1 << 19,
        supply="1.8 V",
    ),
    counter=Counter(unit="cycles"),
    power=Power(active_mw=42.0, source="a cited table"),
    library=Library(kernel_library="hwsearch portable", version="0.1", compiler="clang", flags="-O2"),
    validity=Validity(text="Cycle model, within 10 % of boards.", relative_error=0.1),
)  # fmt: skip


def conv(name: str, source: str, inputs: int, outputs: int) -> Op:
    return Op(
        name=name, kind=OpKind.CONV2D, inputs=(source,), in_shape=(inputs, 8, 8), out_shape=(outputs, 8, 8), kernel=(3, 3),
        padding=(1, 1),
    )  # fmt: skip


def digits_network() -> Network:
    ops = [
        conv("conv1", "input", 1, 16),
        conv("conv2", "conv1", 16, 32),
        conv("conv3", "conv2", 32, 32),
        Op(
            name="pool", kind=OpKind.AVG_POOL, inputs=("conv3",), in_shape=(32, 8, 8), out_shape=(32, 2, 2), kernel=(4, 4),
            stride=(4, 4),
        ),
        Op(name="fc", kind=OpKind.LINEAR, inputs=("pool",), in_shape=(32, 2, 2), out_shape=(10,)),
    ]  # fmt: skip
    return attach_exits(Network(ops, (1, 8, 8), "digits"), ["conv2"])


def price_table(network: Network) -> HardwareProfile:
    rows = []
    for op in [*network.ops, argmax_op(10)]:
        for precision in (W8A8, W4A4, W2A2):
            own = precision if op.has_weights else precision.without_weights()
            for stored in {own.weight_bits, 8 * op.has_weights}:
                count = 400 + op.macs * (0.6 + 0.3 * own.weight_bits) + 9 * math.prod(op.out_shape) + math.prod(op.in_shape)
                rows.append(
                    Measurement.of_counts(
                        HEADER, op, own, stored_bits=stored, count_median=count, count_p05=count, count_p95=count, repeats=1,
                        provenance=Provenance.EMULATED, code_bytes=700, scratch_bytes=0, run_id="r", symbol=f"hw_{op.kind}_{own}",
                        weight_bytes=packed_weight_bytes(op, stored) if stored else 0,
                    )
                )  # fmt: skip
    return HardwareProfile(name="test_board", header=HEADER, measurements=tuple({row.key: row for row in rows}.values()))


def assignment(network: Network, precision: Precision) -> BitAssignment:
    fixed = {op.name: Precision(8 * op.has_weights, 8) for op in network.ops}
    inner = {"conv2": precision, "conv3": precision, "exit1.pool": precision.without_weights()}
    return BitAssignment(fixed | inner)


def exit_menu(network: Network) -> Menu:
    bits = assignment(network, W4A4)
    return Menu(kind=PolicyKind.EXIT, entries=(MenuEntry(assignment=bits, exit="exit1"), MenuEntry(assignment=bits)))


def front_of(network: Network, costs: CostModel) -> ParetoFront:
    points = []
    for trial, (precision, accuracy) in enumerate([(W2A2, 0.93), (W4A4, 0.975), (W8A8, 0.985)]):
        menu = Menu(kind=PolicyKind.STATIC, entries=(MenuEntry(assignment=assignment(network, precision)),))
        cost = PolicyCost.of_paths(costs.paths(menu), (1.0,))
        policy = PolicyShape(kind=PolicyKind.STATIC)
        points.append(FrontPoint(trial=trial, menu=menu, policy=policy, accuracy=accuracy, shares=(1.0,), cost=cost))
    menu = exit_menu(network)
    for trial, (share, accuracy) in enumerate([(0.9, 0.962), (0.75, 0.972), (0.4, 0.981)], start=3):
        cost = PolicyCost.of_paths(costs.paths(menu), (share, 1 - share))
        policy = PolicyShape(kind=PolicyKind.EXIT, escalation=(1 - share,))
        points.append(FrontPoint(trial=trial, menu=menu, policy=policy, accuracy=accuracy, shares=(share, 1 - share), cost=cost))
    return ParetoFront(points=tuple(points), profile="test_board", task="digits", space="digits_cnn", seed=3)


@pytest.fixture(scope="module")
def data() -> ReportData:
    network = digits_network()
    costs = CostModel(network, price_table(network))
    menu = exit_menu(network)
    paths = costs.paths(menu)
    cost = PolicyCost.of_paths(paths, (0.75, 0.25))
    stored = {
        name: StoredWeights(codes=np.zeros((1, 1, 1, 1), np.uint8), bits=bits) for name, bits in menu.stored_bits(network).items()
    }
    model = IntegerModel(
        network=network, menu=menu, stored=stored, entries=(), input_step=1 / 255, input_zero=0, thresholds=(1234,)
    )
    final = FinalModel(
        model=model, policy=PolicyShape(kind=PolicyKind.EXIT, escalation=(0.25,)), task="digits", profile="test_board",
        budget=Budget(latency_us=paths[1].latency_us * 1.2, flash_bytes=65536.0, mean_latency_us=cost.mean.latency_us * 1.05),
        paths=paths, shares=(0.75, 0.25), cost=cost, accuracy={"test": 0.9776}, float_accuracy={"test": 0.9875},
        certificate=Certificate(
            limit_us=cost.mean.latency_us * 1.05, bound_us=cost.mean.latency_us * 1.03, observed_mean_us=cost.mean.latency_us,
            confidence=0.95, n_samples=250, method="empirical Bernstein",
        ),
        seed=3, sample_codes=np.zeros((1, 8, 8, 1), np.uint8), sample_labels=np.zeros(1, np.int32),
        notes={"integer programme": "lower bound 0.031 <script>alert(1)</script>"},
    )  # fmt: skip
    return ReportData(
        final=final, front=front_of(network, costs), chosen_trial=4, header=HEADER, inferences=costs.inferences(menu),
        references=tuple(
            Reference(name=str(precision), accuracy=accuracy, cost=costs.price(assignment(network, precision)))
            for precision, accuracy in ((W8A8, 0.984), (W4A4, 0.971), (W2A2, 0.935))
        ),
        inputs=digit_inputs(), split="test",
        seconds={"float": 11.2, "supernet": 48.0, "search": 61.5, "finalize": 20.1, "export": 6.0},
        versions={"hwsearch": "0.1.0", "numpy": "2.4"},
    )  # fmt: skip


def digit_inputs() -> Inputs:
    digits = load_digits()
    images = (digits.images[:400, :, :, None] * 15.9375).astype(np.uint8)
    labels = digits.target[:400].astype(np.int64)
    rng = np.random.default_rng(0)
    predicted = np.where(rng.random(400) < 0.03, (labels + 3) % 10, labels)
    margins = rng.uniform(0, 5, size=400)
    return Inputs(images=images, labels=labels, predicted=predicted, entries=(margins < 1.25).astype(np.int64), margins=margins)


@pytest.fixture(scope="module")
def text(data: ReportData) -> str:
    return report_html(data)


def without_scripts(text: str) -> str:
    return re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


def test_a_report_needs_nothing_from_anywhere(text: str) -> None:
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", without_scripts(text))
    assert "plotly.js v" in text
    assert "cdn.plot.ly" not in re.sub(r"<script>.*?</script>", "", text, count=1, flags=re.DOTALL)


def test_the_same_run_gives_the_same_report(data: ReportData, text: str) -> None:
    assert report_html(data) == text


def test_the_headline_gives_accuracy_price_and_saving(data: ReportData, text: str) -> None:
    page = without_scripts(text)
    mean = data.final.cost.mean
    assert "<b>97.76 %</b><small>test split; float 98.75 %</small>" in page
    assert f"<b>{mean.latency_us / 1000:.3f} ms</b>" in page
    saving = 100 * (1 - mean.latency_us / data.references[0].cost.latency_us)
    assert f"{saving:.1f} % less than uniform w8a8" in page


def test_every_set_limit_stands_beside_what_is_spent(data: ReportData, text: str) -> None:
    cells = r"<td>([^<]*)</td><td>([\d.]+)</td><td>([\d.]+) (\w+)</td><td><div.*?</div></td><td>([\d.]+) % · (\w+)</td>"
    rows = re.findall(cells, text)
    assert [(row[0], row[5]) for row in rows] == [("worst latency", "met"), ("flash", "met"), ("mean latency", "met")]
    for (_, spent, limit, _, share, _), expected in zip(rows, data.final.budget.excess(data.final.cost).values(), strict=True):
        assert float(share) == pytest.approx(100 * (1 + expected), abs=0.05)
        assert float(spent) / float(limit) == pytest.approx(1 + expected, rel=0.01)


def test_an_exceeded_limit_is_called_exceeded(data: ReportData) -> None:
    over = replace(data, final=replace(data.final, budget=Budget(flash_bytes=100.0)))
    assert "· exceeded" in report_html(over)
    assert "· met" not in report_html(over)


def test_the_certificate_is_stated_with_its_confidence_and_samples(data: ReportData, text: str) -> None:
    certificate = data.final.certificate
    assert f"with probability 95 % the true mean latency is at most <b>{certificate.bound_us / 1000:.3f} ms</b>" in text
    assert "from 250 inputs used for nothing else" in text


def test_the_front_shows_every_point_every_reference_and_the_budget(data: ReportData, text: str) -> None:
    figure = re.search(r'id="front".*?</script>', text, flags=re.DOTALL)
    assert figure is not None
    for point in data.front.points:
        assert f"trial {point.trial}: {point.menu.kind}" in figure[0]
    assert '"text":["w8a8","w4a4","w2a2"]' in figure[0]
    assert "float 98.75 %" in figure[0]
    assert figure[0].count('"text":"budget"') == 2


def test_a_front_in_other_objectives_is_drawn_against_them(data: ReportData) -> None:
    budget = Budget(flash_bytes=65536.0)
    three = replace(data.front, objectives=("accuracy", "flash", "mean_energy"))
    page = report_html(replace(data, front=three, final=replace(data.final, budget=budget)))
    assert "no other one beats in accuracy, flash and mean energy, from the search" in page
    figure = re.search(r'id="front".*?</script>', page, flags=re.DOTALL)
    assert figure is not None
    assert '"text":"flash (KB)"' in figure[0] and '"text":"mean energy (uJ)"' in figure[0]
    assert figure[0].count('"text":"budget"') == 1
    for point in three.points:
        assert f"worst latency {point.cost.worst.latency_us / 1000:.3f} ms" in figure[0]  # what is not drawn is told


@pytest.mark.parametrize(
    ("objectives", "axes"),
    [
        (("accuracy", "mean_latency"), ["mean_latency", "latency"]),
        (("mean_latency", "accuracy", "flash", "ram"), ["mean_latency", "flash"]),
        (("accuracy", "latency"), ["latency", "mean_latency"]),
        (("accuracy", "ram"), ["ram", "latency"]),
    ],
)
def test_the_two_panels_show_the_first_costs(objectives: tuple[str, ...], axes: list[str]) -> None:
    assert [axis.name for axis in front_axes(objectives)] == axes


def test_a_reference_far_below_the_front_tells_its_accuracy_at_the_edge(data: ReportData) -> None:
    poor = replace(data.references[2], accuracy=0.31)
    page = report_html(replace(data, references=(*data.references[:2], poor)))
    assert '"text":["w8a8","w4a4","w2a2 (31.00 %)"]' in page
    lowest = 100 * (min(point.accuracy for point in data.front.points) - LOWER_EDGE)
    drawn = re.search(r'"y":\[98\.4,97\.1,([\d.]+)\]', page)
    assert drawn is not None
    assert float(drawn[1]) == pytest.approx(lowest)


def test_an_entry_that_skips_an_operation_says_so(text: str) -> None:
    row = re.search(r"<tr><td>conv3</td>.*?</tr>", text)
    assert row is not None
    cells = re.findall(r"<td>(.*?)</td>", row[0])
    assert cells[4] == "4 bit"
    assert "does not run" in cells[5]
    assert "w4" in cells[6]
    assert "a4" in cells[6]


def test_each_entry_shows_its_inputs_and_mistakes_in_red(data: ReportData, text: str) -> None:
    entries = data.inputs.entries
    for index, name in enumerate(("exit1", "end")):
        assert f"{name}: {np.sum(entries == index)} inputs" in text
    assert text.count("<figure>") == 28
    first = re.search(r"<figure>.*?</figure>", text)
    assert first is not None
    surest = int(np.argmax(np.where(entries == 0, data.inputs.margins, -1)))
    assert f"<figcaption>{data.inputs.predicted[surest]}" in first[0]
    assert base64.b64encode(png(data.inputs.images[surest])).decode() in first[0]
    assert "<em>" in text


def test_an_entry_that_no_input_takes_is_shown_as_empty(data: ReportData) -> None:
    inputs = replace(data.inputs, entries=np.zeros_like(data.inputs.entries))
    assert "end: 0 inputs (0.0 %)" in report_html(replace(data, inputs=inputs))


def test_prices_of_operations_add_up_to_the_paths(data: ReportData, text: str) -> None:
    table = re.search(r"<th>of the mean</th>.*?</table>", text)
    assert table is not None
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(<td>.*?)</tr>", table[0])]
    names = ["conv1", "conv2", "exit1.pool", "exit1.fc", "argmax", "conv3", "pool", "fc", "<b>whole inference</b>"]
    assert [row[0] for row in rows] == names
    for column, path in ((1, data.final.paths[0]), (2, data.final.paths[1])):
        numbers = [float(row[column]) for row in rows[:-1] if "absent" not in row[column]]
        assert sum(numbers) == pytest.approx(path.latency_us / 1000, abs=0.005)
    assert sum(float(row[3].removesuffix(" %")) for row in rows[:-1]) == pytest.approx(100, abs=0.5)


def test_provenance_error_and_power_source_are_told(text: str) -> None:
    assert "<td>emulated</td>" in text
    assert "±10 %" in text
    assert "a cited table" in text
    assert "Cycle model, within 10 % of boards." in text


def test_text_from_outside_is_escaped(text: str) -> None:
    assert "<script>alert(1)" not in text
    assert "&lt;script&gt;alert(1)" in text


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_a_valid_png_with_the_same_pixels(channels: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, size=(5, 7, channels), dtype=np.uint8)
    content = png(image)
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, position = {}, 8
    while position < len(content):
        (length,) = struct.unpack(">I", content[position : position + 4])
        kind, body = content[position + 4 : position + 8], content[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack(">I", content[position + 8 + length : position + 12 + length])
        assert checksum == zlib.crc32(kind + body)
        chunks[kind] = body
        position += 12 + length
    assert struct.unpack(">IIBB", chunks[b"IHDR"][:10]) == (7, 5, 8, {1: 0, 3: 2}[channels])
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(5, 1 + 7 * channels)
    assert np.array_equal(rows[:, 1:].reshape(5, 7, channels), image)
    assert not rows[:, 0].any()


def test_a_report_is_written_whole(data: ReportData, text: str, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", data)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == text
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("kind", [PolicyKind.STATIC, PolicyKind.GATE, PolicyKind.CASCADE])
def test_every_kind_of_policy_is_explained(data: ReportData, kind: PolicyKind) -> None:
    network = data.final.model.network
    entries = tuple(MenuEntry(assignment=assignment(network, precision)) for precision in (W2A2, W8A8))
    menu = Menu(kind=kind, entries=entries[-1:] if kind is PolicyKind.STATIC else entries)
    count = len(menu.entries)
    model = replace(data.final.model, menu=menu, thresholds=(77,) if kind is PolicyKind.CASCADE else ())
    final = replace(data.final, model=model, paths=data.final.paths[-count:], shares=(1.0,) if count == 1 else (0.5, 0.5))
    inputs = data.inputs if count > 1 else replace(data.inputs, entries=np.zeros_like(data.inputs.entries))
    page = report_html(replace(data, final=final, inferences=data.inferences[-count:], inputs=inputs))
    expected = {
        PolicyKind.STATIC: "static with 1 entry. One configuration runs for every input.",
        PolicyKind.GATE: "gate with 2 entries. A small network picks the entry for each input.",
        PolicyKind.CASCADE: "at entry 1 if it is 77 or more",
    }
    assert expected[kind] in page
