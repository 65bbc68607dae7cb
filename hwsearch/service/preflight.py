"""Checks made before any long work: everything a job names exists, loads and fits together."""

import tomllib
from pathlib import Path

from hwsearch.errors import JobError, ProfileError
from hwsearch.graph.space import load_space, network_for_space
from hwsearch.hardware.profile import load_profile
from hwsearch.pricing.feasibility import require_own_axes, require_reachable
from hwsearch.service.inputs import JobInputs
from hwsearch.service.job import read_job


def check_job(inputs: JobInputs, ray_address: str | None = None) -> None:
    """Raise the error of the first thing a job names that is missing or does not fit; what it loads stays in `inputs`."""
    require_own_axes(inputs.job.search.objectives, inputs.profile)
    _check_network(inputs)
    space, costs = inputs.space, inputs.costs
    for unit in space.units:
        for precision in unit.precisions:
            for name in unit.ops:
                op = space.network[name]
                own = precision if op.has_weights else precision.without_weights()
                costs.op_price(op, own, own.weight_bits)
    require_reachable(space, costs, inputs.budget)
    if ray_address is not None:
        from hwsearch.study.pool import check_address

        check_address(ray_address)


def _check_network(inputs: JobInputs) -> None:
    """The network that the task trains must be the one that the space was written for."""
    job, trained, expected = inputs.job, inputs.captured.network, network_for_space(inputs.job.space)
    if trained.ops != expected.ops:
        raise JobError(
            f"A job's space must be written for its task's network, but {job.task} trains {trained.name} "
            f"({len(trained.ops)} operations) and {job.space} is for {expected.name} ({len(expected.ops)}); choose one that fits."
        )


def check_path(path: Path) -> str:
    """What a path is and that it is right, in a few words; raises what is wrong with it."""
    if not path.exists():
        raise JobError(f"A path to check must exist, but {path} does not; give a profile, space, job, run folder or bundle.")
    if path.is_dir():
        return _check_folder(path)
    if path.name == "profile.toml":
        return _check_profile(path.parent)
    return _check_toml(path)


def _check_folder(path: Path) -> str:
    if (path / "profile.toml").exists():
        return _check_profile(path)
    if (path / "manifest.json").exists():
        from hwsearch.exporters.bundle import Bundle

        Bundle(path).check_files()
        return "bundle, every file as its manifest says (hwsearch verify recomputes it)"
    if (path / "job.toml").exists():
        check_job(JobInputs(read_job(path / "job.toml")))
        return "run folder"
    raise JobError(f"A folder to check must hold profile.toml, manifest.json or job.toml, but {path} holds none; give another.")


def _check_profile(path: Path) -> str:
    profile = load_profile(str(path))
    if not profile.measurements:
        raise ProfileError(f"A profile must have rows, but {path / 'ops.csv'} has none; run hwsearch measure {path.name}.")
    return f"profile, {len(profile.measurements)} rows"


def _check_toml(path: Path) -> str:
    try:
        record = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise JobError(f"A file to check must be readable TOML, but {path} is not: {error}; mend it.") from None
    if "task" in record or "space" in record:
        check_job(JobInputs(read_job(path)))
        return "job"
    space = load_space(str(path), network_for_space(str(path)))
    return f"space, {len(space.units)} units over {len(space.network.ops)} operations"
