"""What each precision of each unit is worth: measured loss and price, and the integer programme over both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from hwsearch.finalizer.cgmq import Chain, Levels, Option, price_chain
from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.graph.space import SearchSpace
from hwsearch.pricing.cost_model import UnitPrice
from hwsearch.pricing.knapsack import choose
from hwsearch.progress import Progress, silent
from hwsearch.quantizers.calibrate import STATISTICS_IMAGES, estimate_statistics
from hwsearch.quantizers.evaluation import evaluate
from hwsearch.quantizers.supernet import Supernet
from hwsearch.tasks.task import Task

LOSS_IMAGES = 512


class Judgement(NamedTuple):
    """Share of wrong answers, then cross-entropy: ordered so that the better is the lesser.

    Errors come first because distillation changes how sure a network is, and with it the loss, without changing its answers.
    """

    errors: float
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Meter:
    """Measures assignments on the search split (never the certificate's), with batch norm re-estimated on training images."""

    supernet: Supernet
    task: Task

    def judge(self, assignment: BitAssignment, exits: Sequence[str]) -> Judgement:
        """Averaged over images and exits."""
        statistics = estimate_statistics(self.supernet, assignment, self.task.train.images[:STATISTICS_IMAGES], exits=exits)
        images = self.task.search_split.subset(torch.arange(min(LOSS_IMAGES, len(self.task.search_split))))
        found = evaluate(self.supernet, assignment, images, statistics, exits=exits)
        return Judgement(errors=1.0 - float(found.correct.mean()), loss=float(found.losses.mean()))


def worthwhile(prices: Sequence[UnitPrice]) -> list[UnitPrice]:
    """Options that no other option contains at no higher price: the rest need not be measured.

    >>> table = [UnitPrice(Precision(2, 2), 5.0, 10), UnitPrice(Precision(4, 4), 5.0, 20), UnitPrice(Precision(8, 8), 9.0, 40)]
    >>> [str(price.precision) for price in worthwhile(table)]
    ['w4a4', 'w8a8']
    """
    return [price for price in prices if not any(_beats(other, price) for other in prices)]


def _beats(other: UnitPrice, price: UnitPrice) -> bool:
    wider = (
        other.precision != price.precision
        and other.precision.weight_bits >= price.precision.weight_bits
        and other.precision.activation_bits >= price.precision.activation_bits
    )
    return wider and other.latency_us <= price.latency_us


def measure_chains(
    meter: Meter,
    space: SearchSpace,
    prices: Mapping[str, Sequence[UnitPrice]],
    floor: Mapping[str, Precision],
    *,
    exits: Sequence[str],
    progress: Progress = silent,
) -> list[Chain]:
    """A chain for every unit that has a choice worth its price, starting at the floor's precision.

    An option's loss is what it adds to the widest assignment when the unit alone takes it.
    """
    widest = {unit.name: unit.widest for unit in space.units}
    base = meter.judge(space.assignment(widest), exits).loss
    free = [unit for unit in space.units if len(unit.precisions) > 1]
    chains: list[Chain] = []
    for done, unit in enumerate(free):
        kept = {price.precision for price in worthwhile(prices[unit.name])} | {floor[unit.name]}
        options = [
            Option(
                precision=price.precision,
                latency_us=price.latency_us,
                loss=meter.judge(space.assignment({**widest, unit.name: price.precision}), exits).loss - base,
            )
            for price in prices[unit.name]
            if price.precision in kept
        ]
        chains.append(price_chain(unit.name, options, floor[unit.name]))
        progress(done + 1, len(free), f"measured {unit.name}")
    return [chain for chain in chains if len(chain.options) > 1]


def best_levels(chains: Sequence[Chain], latency_us: float) -> list[int]:
    """Integer programme: the levels of least measured loss whose latencies sum to at most `latency_us`; else the floor."""
    latencies = [[option.latency_us for option in chain.options] for chain in chains]
    if not chains or sum(row[0] for row in latencies) > latency_us:
        return [0] * len(chains)
    losses = [[option.loss for option in chain.options] for chain in chains]
    return choose(losses, {"latency_us": latencies}, {"latency_us": latency_us})


def summed_loss(chains: Sequence[Chain], levels: Sequence[int]) -> float:
    """The measured losses of one column's levels, added up."""
    return sum(chain.options[level].loss for chain, level in zip(chains, levels, strict=True))


def summed_latency(chains: Sequence[Chain], levels: Sequence[int]) -> float:
    """The latency of one column's gated units at their levels, in us, weights stored at their own width."""
    return sum(chain.options[level].latency_us for chain, level in zip(chains, levels, strict=True))


def gap_note(chains: Sequence[Chain], levels: Levels, slack_us: Sequence[float]) -> str:
    """Per column, the summed measured loss of its levels beside the integer programme's lower bound under the same limit."""
    parts = []
    for column, slack in enumerate(slack_us):
        picked = [int(level) for level in levels[column]]
        bound = best_levels(chains, summed_latency(chains, picked) + max(slack, 0.0))
        parts.append(f"column {column} {summed_loss(chains, picked):+.4f}, lower bound {summed_loss(chains, bound):+.4f}")
    return "; ".join(parts) or "no unit has a choice"
