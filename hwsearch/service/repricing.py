"""One model on several devices: an assignment priced side by side, and a finished front priced anew without training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hwsearch.errors import ProfileError
from hwsearch.graph.network import Network
from hwsearch.graph.precision import BitAssignment
from hwsearch.graph.space import SearchSpace, load_space, network_for_space
from hwsearch.hardware.cost import PolicyCost
from hwsearch.hardware.profile import HardwareProfile, load_profile
from hwsearch.pricing.cost_model import CostModel
from hwsearch.pricing.widening import widen
from hwsearch.results.front import FrontPoint, ParetoFront, load_front
from hwsearch.service import views
from hwsearch.service.job import read_job


def compare(space: SearchSpace, profiles: Sequence[HardwareProfile], bits: BitAssignment, *, wider: bool) -> list[views.Record]:
    """The price of one assignment on each device; with `wider`, at the next wider widths where a device lacks its own."""
    records = []
    for profile in profiles:
        own = widen([bits], space.network, profile)[0] if wider else bits
        costs = CostModel(space.network, profile)
        uncertainty = CostModel.uncertainty(costs.breakdown(own))
        records.append({"profile": profile.name, "uncertainty": uncertainty, **views.cost_record(space, costs, own)})
    return records


@dataclass(frozen=True, slots=True, kw_only=True)
class Repriced:
    """A front on another device.

    `dominated` are trials of the old front that no longer belong to it, `unpriced` the reason of each that has no price there.
    """

    front: ParetoFront
    dominated: tuple[int, ...]
    unpriced: dict[int, str]


def price_front(run: Path, profile: HardwareProfile, *, wider: bool) -> Repriced:
    """Price each point of a run's front on another device; accuracies and policies stay as they are.

    Raises ProfileError if the device can price none of the points.
    """
    front = load_front(run)
    space = _space_of(run, front)
    priced, unpriced = [], {}
    for point in front.points:
        try:
            priced.append(_priced(point, space.network, profile, wider=wider))
        except ProfileError as error:
            unpriced[point.trial] = str(error)
    if front.points and not priced:
        raise ProfileError(f"{profile.name} must price a point of the front, but prices none: {next(iter(unpriced.values()))}")
    again = replace(front, points=tuple(priced), profile=profile.name)
    kept = {point.trial for point in again.points}
    return Repriced(front=again, dominated=tuple(p.trial for p in priced if p.trial not in kept), unpriced=unpriced)


def _space_of(run: Path, front: ParetoFront) -> SearchSpace:
    """The space of the run's job, which may be a file of the user's own; else the one that the front names."""
    job_file = (run if run.is_dir() else run.parent) / "job.toml"
    name = read_job(job_file).space if job_file.exists() else front.space
    return load_space(name, network_for_space(name))


def _priced(point: FrontPoint, network: Network, profile: HardwareProfile, *, wider: bool) -> FrontPoint:
    menu = point.menu
    if wider:
        assignments = widen([entry.assignment for entry in menu.entries], network, profile)
        entries = tuple(replace(entry, assignment=own) for entry, own in zip(menu.entries, assignments, strict=True))
        menu = replace(menu, entries=entries)
    paths = CostModel(network, profile).paths(menu, point.policy)
    return replace(point, menu=menu, cost=PolicyCost.of_paths(paths, point.shares))


def price_run(run: Path, profile_name: str, *, wider: bool) -> tuple[views.Record, str]:
    """What `hwsearch price` prints, as a record and as text."""
    priced = price_front(run, load_profile(profile_name), wider=wider)
    record = views.front_record(priced.front)
    record |= {
        "dominated": list(priced.dominated),
        "unpriced": [{"trial": trial, "reason": reason} for trial, reason in priced.unpriced.items()],
    }
    lines = [views.front_text(record)]
    if priced.dominated:
        lines.append(f"no longer on the front: trials {', '.join(map(str, priced.dominated))}")
    lines += [f"trial {trial} has no price: {reason}" for trial, reason in priced.unpriced.items()]
    return record, "\n".join(lines)
