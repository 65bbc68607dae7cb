"""The main job as stages, each of which is read from its file in the run folder if that is there and made otherwise.

float model -> supernet -> front -> final model -> bundle -> report
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from hwsearch.errors import JobError
from hwsearch.exporters.bundle import Bundle, export
from hwsearch.finalizer.finetune import finalize
from hwsearch.graph.capture import capture
from hwsearch.graph.space import SearchSpace, load_space
from hwsearch.hardware.cost import Budget
from hwsearch.hardware.cost_model import CostModel
from hwsearch.hardware.front import FrontPoint, ParetoFront, load_front
from hwsearch.hardware.profile import HardwareProfile, load_profile
from hwsearch.kernels.final_model import FinalModel, load_final, save_final
from hwsearch.progress import Progress
from hwsearch.quantizers.supernet import Supernet
from hwsearch.quantizers.training import train_supernet
from hwsearch.service.job import Job
from hwsearch.service.run_folder import RunFolder, write_atomically
from hwsearch.study.search import search
from hwsearch.tasks.catalogue import load_task
from hwsearch.tasks.float_training import accuracy, train_float
from hwsearch.tasks.task import Task

if TYPE_CHECKING:
    from hwsearch.service.report import ReportData

ShowProgress = Callable[[str], AbstractContextManager[Progress]]


class Pipeline:
    """One run. Reading an attribute makes that stage and all before it, or reads what an earlier run left."""

    def __init__(self, job: Job, folder: RunFolder, show: ShowProgress, *, workers: int | None = None, ray_address: str | None = None):
        self.job = job
        self.folder = folder
        self._show = show
        self._workers = workers or job.search.workers
        self._ray_address = ray_address
        torch.set_num_threads(1)  # with more, results depend on the machine's core count

    @contextmanager
    def _stage(self, name: str) -> Iterator[Progress]:
        with self.folder.stage(name), self._show(name) as progress:
            yield progress

    @cached_property
    def budget(self) -> Budget:
        return self.job.budget.parse()

    @cached_property
    def task(self) -> Task:
        return load_task(self.job.task, self.job.data)

    @cached_property
    def space(self) -> SearchSpace:
        return load_space(self.job.space, capture(self.task.model, self.task.example_input))

    @cached_property
    def profile(self) -> HardwareProfile:
        return load_profile(self.job.profile)

    @cached_property
    def costs(self) -> CostModel:
        return CostModel(self.space.network, self.profile)

    @cached_property
    def float_model(self) -> torch.nn.Module:
        file = self.folder.float_file
        if file.exists():
            self.task.model.load_state_dict(torch.load(file, weights_only=True))
            return self.task.model
        with self._stage("float") as progress:
            model = train_float(self.task, epochs=self.job.training.float_epochs, seed=self.job.seed, progress=progress)
            write_atomically(file, lambda temporary: torch.save(model.state_dict(), temporary))
        return model

    @cached_property
    def float_accuracy(self) -> dict[str, float]:
        return {"test": accuracy(self.float_model, self.task.test), "validation": accuracy(self.float_model, self.task.validation)}

    @cached_property
    def supernet(self) -> Supernet:
        file = self.folder.supernet_file
        if file.exists():
            arrays = {name: tensor.numpy() for name, tensor in torch.load(file, weights_only=True).items()}
            return Supernet.from_arrays(self.space, arrays)
        model = self.float_model
        with self._stage("supernet") as progress:
            epochs = self.job.training.supernet_epochs
            supernet = train_supernet(
                self.task, self.space, float_model=model, epochs=epochs, seed=self.job.seed, progress=progress
            )
            tensors = {name: torch.from_numpy(array) for name, array in supernet.to_arrays().items()}
            write_atomically(file, lambda temporary: torch.save(tensors, temporary))
        return supernet

    @cached_property
    def front(self) -> ParetoFront:
        if self.folder.front_file.exists():
            return load_front(self.folder.front_file)
        supernet = self.supernet
        with self._stage("search") as progress:
            front = search(
                supernet, self.task, self.space, self.costs, self.budget,
                n_trials=self.job.search.trials, seed=self.job.seed, workers=self._workers, ray_address=self._ray_address,
                batch=self.job.search.batch, log=self.folder.trials_file, resume=True, progress=progress,
            )  # fmt: skip
            front.save(self.folder.path)
        return front

    @property
    def chosen(self) -> FrontPoint:
        """The front point to finalize: within the budget, and fastest among those close to the most accurate if so preferred."""
        best = self.front.best(self.budget)
        if self.job.choice.prefer == "most_accurate":
            return best
        floor = best.accuracy - self.job.choice.accuracy_drop
        fit = [point for point in self.front.points if point.accuracy >= floor and self.budget.is_met(point.cost)]
        return min(fit, key=lambda point: (point.cost.mean.latency_us, point.trial))

    @cached_property
    def final(self) -> FinalModel:
        if self.folder.final_file.exists():
            return load_final(self.folder.final_file)
        point, supernet = self.chosen, self.supernet
        with self._stage("finalize") as progress:
            final = finalize(
                point, supernet, self.task, self.space, self.costs, self.budget,
                epochs=self.job.training.final_epochs, seed=self.job.seed, delta=self.job.choice.delta,
                float_accuracy=self.float_accuracy, progress=progress,
            )  # fmt: skip
            write_atomically(self.folder.final_file, lambda temporary: save_final(final, temporary))
        return final

    @cached_property
    def bundle(self) -> Bundle:
        if self.folder.bundle.exists():
            return Bundle(self.folder.bundle)
        final = self.final
        with self._stage("export"):
            report = self.report()
            return export(final, self.folder.bundle, report=report.read_text(encoding="utf-8"))

    def report(self) -> Path:
        """Write report.html from what the run has; it needs the final model."""
        from hwsearch.service.report import write_report

        write_report(self.folder.report_file, self._report_data())
        return self.folder.report_file

    def _report_data(self) -> "ReportData":
        raise JobError("report data")
