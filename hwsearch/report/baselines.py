"""What a dynamic model is compared with: the same network at one width everywhere, in the same integers on the same device."""

import numpy as np

from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind
from hwsearch.graph.precision import Precision
from hwsearch.graph.space import SearchSpace
from hwsearch.integers.execute import run_model
from hwsearch.pricing.cost_model import CostModel
from hwsearch.quantizers.calibrate import estimate_statistics
from hwsearch.quantizers.fold import fold_model
from hwsearch.quantizers.supernet import Supernet
from hwsearch.report.report import Reference
from hwsearch.tasks.task import Task

STATISTICS_IMAGES = 4096


def uniform_baselines(supernet: Supernet, task: Task, space: SearchSpace, costs: CostModel) -> tuple[Reference, ...]:
    """Every uniform width of the supernet, its accuracy on the test split by the integer reference.

    What the space restricts (the first and last operations) keeps its own width.
    """
    return tuple(_baseline(supernet, task, space, costs, precision) for precision in _uniform_precisions(space))


def _uniform_precisions(space: SearchSpace) -> list[Precision]:
    """Precisions of weights and activations of one width that the space has, widest first."""
    found = {p for unit in space.units for p in unit.precisions if p.weight_bits == p.activation_bits}
    return sorted(found, reverse=True)


def _baseline(supernet: Supernet, task: Task, space: SearchSpace, costs: CostModel, precision: Precision) -> Reference:
    menu = Menu(kind=PolicyKind.STATIC, entries=(MenuEntry(assignment=space.uniform(precision)),))
    statistics = estimate_statistics(supernet, menu.entries[0].assignment, task.train.images[:STATISTICS_IMAGES])
    model = fold_model(supernet, menu, [statistics])
    logits = run_model(model, supernet.encode(task.test.images)).logits  # [N, classes]
    correct = np.argmax(logits, axis=1) == task.test.labels.numpy()
    return Reference(name=str(precision), accuracy=float(correct.mean()), cost=costs.paths(menu)[0])
