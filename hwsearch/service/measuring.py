"""`hwsearch measure`: which shapes, drawn as progress."""

from collections.abc import Sequence
from pathlib import Path

from hwsearch.graph.space import load_space, network_for_space
from hwsearch.kernels.measure import measure
from hwsearch.service.console import stage_progress


def measure_device(device: str, target: str | None, spaces: Sequence[str], folder: Path | None, meter: Path | None = None) -> str:
    """Measure the default grid and the shapes of the named spaces; returns one line about the run."""
    networks = [load_space(space, network_for_space(space)).network for space in spaces]
    with stage_progress("measure") as progress:
        run = measure(device, target=target, networks=networks, folder=folder, meter=meter, progress=progress)
    return f"{run.rows} rows in {run.seconds:.0f} s with {run.compiler} ({run.machine}), run {run.run_id}"
