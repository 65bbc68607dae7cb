"""Predicted against emulated latency, flash and RAM of whole exported networks.

Each network gets random weights and, besides three uniform widths, random mixed assignments of its search space. Every one is
folded to integers, exported as C, compiled, and run once on the emulated core of the profile; the price comes from the
profile's table alone. Flash is compared with the sections of the linked file, RAM with its variables and the caller's input.
Besides the reference networks there are networks whose shapes the table lacks (benchmarks/unseen_networks.py), which judge the
interpolation. `python benchmarks/cost_model.py` prints the table and writes it to benchmarks/cost_model.md; `--json` prints
rows instead. Weights, images and assignments are drawn with seed 0.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from unseen_networks import UNSEEN

from hwsearch.exporters.c_package import PackageNotes, write_c_package
from hwsearch.exporters.compiled import EmulatedPackage, ImageSize
from hwsearch.graph.capture import capture_model
from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind
from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.graph.space import SearchSpace, load_space
from hwsearch.hardware.profile import HardwareProfile, load_profile
from hwsearch.integers.execute import run_model
from hwsearch.pricing.cost_model import CostModel
from hwsearch.quantizers.calibrate import calibrate_activations, estimate_statistics
from hwsearch.quantizers.fold import fold_model
from hwsearch.quantizers.supernet import Supernet
from hwsearch.quantizers.uniform import InputQuantizer
from hwsearch.tasks.networks import REFERENCE_NETWORKS, ReferenceNetwork

SPACES = {
    "digits_cnn": "digits_cnn",
    "lenet5": "lenet5_mnist",
    "resnet8": "resnet8_cifar10",
    "dscnn": "dscnn_kws",
    "mobilenetv1": "mobilenetv1_vww",
}
UNIFORM = (Precision(8, 8), Precision(4, 4), Precision(2, 2))
SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A network to price and to run: one that the table holds, or one whose shapes it lacks."""

    name: str
    unseen: bool

    @property
    def title(self) -> str:
        return f"{self.name}, {UNSEEN[self.name][0]}" if self.unseen else self.name

    @property
    def reference(self) -> ReferenceNetwork:
        return UNSEEN[self.name][1] if self.unseen else REFERENCE_NETWORKS[self.name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    network: str
    assignment: str
    predicted_us: float
    emulated_us: float
    interpolated: float
    """Share of the predicted latency from shapes that the table lacks."""
    predicted_flash_bytes: int
    linked_flash_bytes: int
    predicted_ram_bytes: int
    linked_ram_bytes: int
    """Variables of the linked file and the caller's input."""

    @property
    def error(self) -> float:
        return self.predicted_us / self.emulated_us - 1

    @property
    def memory_is_exact(self) -> bool:
        predicted = (self.predicted_flash_bytes, self.predicted_ram_bytes)
        return predicted == (self.linked_flash_bytes, self.linked_ram_bytes)


def assignments(space: SearchSpace, n_mixed: int) -> Iterator[tuple[str, BitAssignment]]:
    """Uniform widths, then random precisions per unit."""
    yield from ((str(precision), space.uniform(precision)) for precision in UNIFORM)
    rng = np.random.default_rng(SEED)
    for index in range(n_mixed):
        choice = {unit.name: unit.precisions[rng.integers(len(unit.precisions))] for unit in space.units}
        yield f"mixed {index + 1}", space.assignment(choice)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomNetwork:
    """A network with random weights and steps fitted to random images `[16, C, H, W]`."""

    name: str
    supernet: Supernet
    space: SearchSpace
    images: torch.Tensor

    @classmethod
    def make(cls, subject: Subject) -> "RandomNetwork":
        reference = subject.reference
        images = torch.rand((16, *reference.input_shape), generator=torch.Generator().manual_seed(SEED))  # [N, C, H, W]
        model = _normalized(reference.build(SEED), images)
        captured = capture_model(model, images[:1])
        space, parameters = load_space(SPACES[subject.name], captured.network), captured.parameters_of(model)
        supernet = Supernet.of_space(space, InputQuantizer.of_images(images), parameters, seed=SEED)
        calibrate_activations(supernet, images)
        return cls(name=subject.title, supernet=supernet.eval(), space=space, images=images)

    def emulate(self, assignment: BitAssignment, profile: HardwareProfile) -> tuple[int, ImageSize]:
        """Cycles of one inference of the exported program, whose answer must be the integer reference's, and its size."""
        menu = static_menu(assignment)
        model = fold_model(self.supernet, menu, [estimate_statistics(self.supernet, assignment, self.images)])
        codes = self.supernet.encode(self.images[:1])  # [1, H, W, C]
        answers, paths = run_model(model, codes), CostModel(self.space.network, profile).paths(menu)
        with tempfile.TemporaryDirectory() as folder:
            notes = PackageNotes(
                task=self.name,
                device=profile.name,
                built_with="hwsearch",
                paths=paths,
                mean_limit_us=None,
                isa=profile.device.isa,
            )
            write_c_package(model, Path(folder), notes, inputs=codes, answers=answers)
            package = EmulatedPackage(Path(folder), self.space.network, profile.header)
        if not np.array_equal(package.run(codes).logits, answers.logits):
            raise AssertionError(f"{self.name} {assignment.key}: emulated C differs from the integer reference")
        return package.cycles, package.size()


def static_menu(assignment: BitAssignment) -> Menu:
    return Menu(kind=PolicyKind.STATIC, entries=(MenuEntry(assignment=assignment),))


def _normalized(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """The model with the batch norm statistics of `images`, as training would have left it."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain average, here of one batch
    with torch.no_grad():
        model.train()(images)
    return model.eval()


def measure(subject: Subject, profile_name: str, n_mixed: int) -> list[Row]:
    torch.set_num_threads(1)
    profile, network = load_profile(profile_name), RandomNetwork.make(subject)
    costs = CostModel(network.space.network, profile)
    rows = []
    for label, assignment in assignments(network.space, n_mixed):
        cycles, size = network.emulate(assignment, profile)
        menu = static_menu(assignment)
        price, shares = costs.paths(menu)[0], costs.provenance(costs.inferences(menu)[0])
        rows.append(
            Row(
                network=subject.title,
                assignment=label,
                predicted_us=price.latency_us,
                emulated_us=cycles / profile.device.clock_hz * 1e6,
                interpolated=sum(share for origin, share in shares.items() if origin.endswith("(interpolated)")),
                predicted_flash_bytes=price.flash_bytes,
                linked_flash_bytes=size.flash_bytes,
                predicted_ram_bytes=price.ram_bytes,
                linked_ram_bytes=size.ram_bytes + costs.input_bytes,
            )
        )
    return rows


def summary(rows: list[Row]) -> str:
    """The README's table: uniform widths of each network, and the error over all of its assignments."""
    lines = [
        "| network | interpolated | w8a8 ms: predicted / emulated | w4a4 | w2a2 "
        "| error over all assignments: mean of absolutes, worst | flash and RAM to the byte |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in dict.fromkeys(row.network for row in rows):
        own = [row for row in rows if row.network == name]
        cells = [f"{100 * min(row.interpolated for row in own):.0f} to {100 * max(row.interpolated for row in own):.0f} %"]
        cells += [f"{row.predicted_us / 1000:.2f} / {row.emulated_us / 1000:.2f}" for row in own[: len(UNIFORM)]]
        cells.append(f"{_errors(own)} ({len(own)} assignments)")
        cells.append(f"{sum(row.memory_is_exact for row in own)} of {len(own)}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _errors(rows: list[Row]) -> str:
    errors = [abs(row.error) for row in rows]
    return f"{100 * sum(errors) / len(errors):.2f} %, {100 * max(errors):.2f} %"


def all_rows(rows: list[Row]) -> str:
    head = [
        "| network | assignment | predicted ms | emulated ms | error | flash bytes: predicted / linked | RAM bytes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    body = [
        f"| {row.network} | {row.assignment} | {row.predicted_us / 1000:.3f} | {row.emulated_us / 1000:.3f} "
        f"| {100 * row.error:+.2f} % | {row.predicted_flash_bytes} / {row.linked_flash_bytes} "
        f"| {row.predicted_ram_bytes} / {row.linked_ram_bytes} |"
        for row in rows
    ]
    return "\n".join([*head, *body])


def subjects(options: argparse.Namespace) -> list[Subject]:
    seen = [] if options.unseen else [Subject(name=name, unseen=False) for name in SPACES]
    unseen = [] if options.seen else [Subject(name=name, unseen=True) for name in UNSEEN]
    chosen = [one for one in (*seen, *unseen) if options.network is None or one.name in options.network]
    return chosen


def all_measured(options: argparse.Namespace) -> list[Row]:
    """Rows of all networks, each network in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        pending = [pool.submit(measure, subject, options.profile, options.mixed) for subject in subjects(options)]
        return [row for future in pending for row in future.result()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="nucleo_l4r5zi")
    parser.add_argument("--network", choices=SPACES, action="append")
    parser.add_argument("--mixed", type=int, default=5, help="random mixed assignments of each network")
    parser.add_argument("--seen", action="store_true", help="only networks that the table holds")
    parser.add_argument("--unseen", action="store_true", help="only networks whose shapes the table lacks")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = all_measured(options)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    name = Path(options.profile).name
    text = f"# Predicted against emulated on {name}\n\n{summary(rows)}\n\nAll: {_errors(rows)}.\n\n{all_rows(rows)}\n"
    print(text)
    if options.network is None and not options.seen and not options.unseen and name == parser.get_default("profile"):
        Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
