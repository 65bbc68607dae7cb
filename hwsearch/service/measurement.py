"""`hwsearch measure`: which shapes, drawn as progress."""

from collections.abc import Sequence
from pathlib import Path

from hwsearch.graph.space import load_space, network_for_space
from hwsearch.measuring.measure import measure
from hwsearch.service.console import stage_progress


def measure_device(
    device: str, target: str | None, spaces: Sequence[str], folder: Path | None, meter: Path | None = None, *, again: bool = False
) -> str:
    """Measure the default grid and the shapes of the named spaces; returns one line about the run."""
    networks = [load_space(space, network_for_space(space)).network for space in spaces]
    with stage_progress("measure") as progress:
        run = measure(device, target=target, networks=networks, folder=folder, meter=meter, again=again, progress=progress)
    kept = f", {run.kept} rows still hold" if run.kept else ""
    return f"{run.rows} rows measured{kept}, in {run.seconds:.0f} s with {run.compiler} ({run.machine}), run {run.run_id}"
