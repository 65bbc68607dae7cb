"""`hwsearch preview`: a static front from a float model, its operations' sensitivities and an exact integer programme."""

from pathlib import Path

import torch

from hwsearch.errors import JobError
from hwsearch.graph.capture import capture_model
from hwsearch.graph.space import load_space
from hwsearch.hardware.profile import load_profile
from hwsearch.pricing.cost_model import CostModel
from hwsearch.results.front import ParetoFront
from hwsearch.service.console import stage_progress
from hwsearch.study.preview import preview
from hwsearch.tasks.catalogue import load_task
from hwsearch.tasks.float_training import train_float
from hwsearch.tasks.task import Task

_FLOAT_EPOCHS = 30


def preview_front(
    task_name: str, data: str | None, space_name: str, profile_name: str, weights: Path | None, seed: int
) -> ParetoFront:
    """The front of `preview`, with the float model read from `weights` or trained first."""
    torch.set_num_threads(1)  # with more, results depend on the machine's core count
    profile = load_profile(profile_name)
    task = load_task(task_name, data=data)
    captured = capture_model(task.model, task.example_input)
    space = load_space(space_name, captured.network)
    model = _trained(task, weights, seed)
    return preview(task, space, CostModel(space.network, profile), float_model=model, seed=seed, captured=captured)


def _trained(task: Task, weights: Path | None, seed: int) -> torch.nn.Module:
    if weights is None:
        with stage_progress("float") as progress:
            return train_float(task, epochs=_FLOAT_EPOCHS, seed=seed, progress=progress)
    try:
        task.model.load_state_dict(torch.load(weights, weights_only=True))
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise JobError(
            f"{weights} must hold the weights of {task.name}'s network, but does not ({reason}); give its state_dict."
        ) from None
    return task.model.eval()
