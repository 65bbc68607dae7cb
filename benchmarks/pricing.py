"""Assignments of ResNet8 priced per second on one core: all at once, and one after another as `CostModel.price` does.

`python benchmarks/pricing.py` prints both rates and writes them to benchmarks/pricing.md; `--json` prints them as rows
instead. Every price of the scalar path is compared with the batch's.
"""

import argparse
import json
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwsearch.graph.space import SearchSpace, load_space, network_for_space
from hwsearch.hardware.profile import load_profile
from hwsearch.pricing.batch import BatchPricer, BatchPrices
from hwsearch.pricing.cost_model import CostModel

SEED = 0
REPEATS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """`prepare_s`: building the tables and planning the arenas that were met, once per space and device."""

    space: str
    path: str
    assignments: int
    prepare_s: float
    seconds: float

    @property
    def per_second(self) -> float:
        return self.assignments / self.seconds


def random_choices(space: SearchSpace, n: int) -> NDArray[np.int64]:
    """Option indices `[N, units]`."""
    sizes = [len(unit.precisions) for unit in space.units]
    return np.random.default_rng(SEED).integers(0, sizes, (n, len(sizes)))


def measure(space_name: str, profile_name: str, n: int, n_scalar: int) -> list[Rate]:
    space = load_space(space_name, network_for_space(space_name))
    costs = CostModel(space.network, load_profile(profile_name))
    choices = random_choices(space, n)
    began = time.perf_counter()
    pricer = BatchPricer(costs, space)
    first = pricer.price(choices)
    first_s = time.perf_counter() - began
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        pricer.price(choices)
        times.append(time.perf_counter() - began)
    batch_s = float(np.median(times))
    scalar_s = scalar_seconds(costs, pricer, choices[:n_scalar], first)
    return [
        Rate(space=space_name, path="batch", assignments=n, prepare_s=max(0.0, first_s - batch_s), seconds=batch_s),
        Rate(space=space_name, path="one by one", assignments=n_scalar, prepare_s=0.0, seconds=scalar_s),
    ]


def scalar_seconds(costs: CostModel, pricer: BatchPricer, choices: NDArray[np.int64], expected: BatchPrices) -> float:
    """Time to price each assignment alone; raises if a price differs from the batch's."""
    assignments = [pricer.assignment(choice) for choice in choices]
    began = time.perf_counter()
    prices = [costs.price(assignment) for assignment in assignments]
    seconds = time.perf_counter() - began
    for index, price in enumerate(prices):
        if price.latency_us != expected.latency_us[index] or price.energy_uj != expected.energy_uj[index]:
            raise AssertionError(f"assignment {index}: the batch's latency or energy differs from {price}")
        if price.flash_bytes != expected.flash_bytes[index] or price.ram_bytes != expected.ram_bytes[index]:
            raise AssertionError(f"assignment {index}: the batch's flash or RAM differs from {price}")
    return seconds


def table(rates: list[Rate]) -> str:
    head = ["| space | path | assignments | per second | once, s |", "| --- | --- | --- | --- | --- |"]
    body = [f"| {r.space} | {r.path} | {r.assignments:,} | {r.per_second:,.0f} | {r.prepare_s:.2f} |" for r in rates]
    return "\n".join([*head, *body])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="nucleo_l4r5zi")
    parser.add_argument("--space", default="resnet8_cifar10")
    parser.add_argument("--assignments", type=int, default=1_000_000)
    parser.add_argument("--scalar", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rates = measure(options.space, options.profile, options.assignments, options.scalar)
    if options.json:
        print(json.dumps([asdict(rate) | {"per_second": rate.per_second} for rate in rates], indent=2))
        return
    where = f"One core of {platform.machine()}, median of {REPEATS} runs; equal to the last bit wherever both were priced."
    text = f"# Assignments priced per second on {options.profile}\n\n{where}\n\n{table(rates)}\n"
    print(text)
    Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
