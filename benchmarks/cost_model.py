"""Predicted against emulated latency of whole exported networks.

Each reference network gets random weights and, besides three uniform widths, random mixed assignments of its search
space. Every one is folded to integers, exported as C, compiled, and run once on the emulated Cortex-M4; the price comes from
the profile's table alone.
`python benchmarks/cost_model.py` prints the table and writes it to benchmarks/cost_model.md; `--json` prints rows instead.
`--unseen` takes networks whose shapes the table lacks (benchmarks/unseen_networks.py), which judges the interpolation, and
writes benchmarks/cost_model_unseen.md.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from unseen_networks import UNSEEN

from hwsearch.exporters.c_package import PackageNotes, write_c_package
from hwsearch.exporters.compiled import EmulatedPackage
from hwsearch.graph.capture import capture, capture_parameters
from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind
from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.graph.space import SearchSpace, load_space
from hwsearch.hardware.cost_model import CostModel
from hwsearch.hardware.profile import load_profile
from hwsearch.kernels.execute import run_model
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
class Row:
    network: str
    assignment: str
    predicted_us: float
    emulated_us: float
    interpolated: float = 0.0
    """Share of the predicted latency from shapes that the table lacks."""

    @property
    def error(self) -> float:
        return self.predicted_us / self.emulated_us - 1


def assignments(space: SearchSpace, n_mixed: int) -> Iterator[tuple[str, BitAssignment]]:
    """Uniform widths, then random precisions per unit."""
    yield from ((str(precision), space.uniform(precision)) for precision in UNIFORM)
    rng = np.random.default_rng(SEED)
    for index in range(n_mixed):
        choice = {unit.name: unit.precisions[rng.integers(len(unit.precisions))] for unit in space.units}
        yield f"mixed {index + 1}", space.assignment(choice)


def random_supernet(reference: ReferenceNetwork, profile_space: str) -> tuple[Supernet, SearchSpace, torch.Tensor]:
    """The network with random weights and steps fitted to random images `[16, C, H, W]`."""
    images = torch.rand((16, *reference.input_shape), generator=torch.Generator().manual_seed(SEED))  # [N, C, H, W]
    model = _normalized(reference.build(SEED), images)
    space = load_space(profile_space, capture(model, images[:1]))
    parameters = capture_parameters(model, images[:1]).parameters
    supernet = Supernet.of_space(space, InputQuantizer.of_images(images), parameters, seed=SEED)
    calibrate_activations(supernet, images)
    return supernet.eval(), space, images


def _normalized(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """The model with the batch norm statistics of `images`, as training would have left it."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain average, here of one batch
    with torch.no_grad():
        model.train()(images)
    return model.eval()


def measure(network_name: str, profile_name: str, n_mixed: int, *, unseen: bool) -> Iterator[Row]:
    title, reference = network_name, REFERENCE_NETWORKS[network_name]
    if unseen:
        change, reference = UNSEEN[network_name]
        title = f"{network_name}, {change}"
    supernet, space, images = random_supernet(reference, SPACES[network_name])
    profile = load_profile(profile_name)
    costs = CostModel(space.network, profile)
    for label, assignment in assignments(space, n_mixed):
        menu = Menu(kind=PolicyKind.STATIC, entries=(MenuEntry(assignment=assignment),))
        model = fold_model(supernet, menu, [estimate_statistics(supernet, assignment, images)])
        codes = supernet.encode(images[:1])  # [1, H, W, C]
        answers = run_model(model, codes)
        paths = costs.paths(menu)
        with tempfile.TemporaryDirectory() as folder:
            notes = PackageNotes(task=network_name, device=profile.name, built_with="hwsearch", paths=paths, mean_limit_us=None)
            write_c_package(model, Path(folder), notes, inputs=codes, answers=answers)
            package = EmulatedPackage(Path(folder), space.network, profile.header)
            if not np.array_equal(package.run(codes).logits, answers.logits):
                raise AssertionError(f"{network_name} {label}: emulated C differs from the integer reference")
            cycles = package.cycles_of_entry(0, codes[0])
        emulated_us = cycles / profile.device.clock_hz * 1e6
        shares = costs.provenance(costs.inferences(menu)[0])
        interpolated = sum(share for origin, share in shares.items() if origin.endswith("(interpolated)"))
        yield Row(
            network=title, assignment=label, predicted_us=paths[0].latency_us, emulated_us=emulated_us, interpolated=interpolated
        )


def summary(rows: list[Row]) -> str:
    """The README's table: uniform widths of each network, and the error over all of its assignments."""
    lines = [
        "| network | interpolated | w8a8 ms: predicted / emulated | w4a4 | w2a2 "
        "| error over all assignments: mean of absolutes, worst |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in dict.fromkeys(row.network for row in rows):
        own = [row for row in rows if row.network == name]
        cells = [f"{100 * min(row.interpolated for row in own):.0f} %"]
        cells += [f"{row.predicted_us / 1000:.2f} / {row.emulated_us / 1000:.2f}" for row in own[: len(UNIFORM)]]
        errors = [abs(row.error) for row in own]
        cells.append(f"{100 * sum(errors) / len(errors):.2f} %, {100 * max(errors):.2f} % ({len(own)} assignments)")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def all_rows(rows: list[Row]) -> str:
    head = ["| network | assignment | predicted ms | emulated ms | error |", "| --- | --- | --- | --- | --- |"]
    body = [
        f"| {row.network} | {row.assignment} | {row.predicted_us / 1000:.3f} | {row.emulated_us / 1000:.3f} "
        f"| {100 * row.error:+.2f} % |"
        for row in rows
    ]
    return "\n".join([*head, *body])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="nucleo_l4r5zi")
    parser.add_argument("--network", choices=SPACES, action="append")
    parser.add_argument("--mixed", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--unseen", action="store_true")
    options = parser.parse_args()
    names = options.network or (UNSEEN if options.unseen else SPACES)
    if not options.unseen or set(names) <= set(UNSEEN):
        report(names, options)
    else:
        parser.error(f"--unseen has {', '.join(UNSEEN)}")


def report(names: Iterable[str], options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    rows = [row for name in names for row in measure(name, options.profile, options.mixed, unseen=options.unseen)]
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    kind = ", shapes that the table lacks" if options.unseen else ""
    text = f"# Predicted against emulated latency on {options.profile}{kind}\n\n{summary(rows)}\n\n{all_rows(rows)}\n"
    print(text)
    if options.network is None:
        name = "cost_model_unseen.md" if options.unseen else "cost_model.md"
        Path(__file__).with_name(name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
