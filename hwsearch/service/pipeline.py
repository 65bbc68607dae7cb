"""The main job as stages, each of which is read from its file in the run folder if that is there and made otherwise.

float model -> supernet -> front -> final model -> bundle -> report
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hwsearch.exporters.bundle import Bundle, export
from hwsearch.exporters.verify import Verification, verify
from hwsearch.files import replacing
from hwsearch.finalizer.finetune import finalize
from hwsearch.integers.execute import run_model
from hwsearch.progress import Progress
from hwsearch.quantizers.supernet import Supernet
from hwsearch.quantizers.training import train_supernet
from hwsearch.report.baselines import uniform_baselines
from hwsearch.report.report import Inputs, Reference, ReportData, write_report
from hwsearch.results.final_model import FinalModel, load_final, save_final
from hwsearch.results.front import FrontPoint, ParetoFront, load_front
from hwsearch.service.inputs import JobInputs
from hwsearch.service.run_folder import RunFolder
from hwsearch.study.search import search
from hwsearch.tasks.float_training import accuracy, train_float

ShowProgress = Callable[[str], AbstractContextManager[Progress]]


class Pipeline:
    """One run. Reading an attribute makes that stage and all before it, or reads what an earlier run left."""

    def __init__(
        self,
        inputs: JobInputs,
        folder: RunFolder,
        show: ShowProgress,
        *,
        workers: int | None = None,
        ray_address: str | None = None,
    ):
        self.inputs = inputs
        self.job = inputs.job
        self.folder = folder
        self._show = show
        self._workers = workers or self.job.search.workers
        self._ray_address = ray_address
        torch.set_num_threads(1)  # with more, results depend on the machine's core count

    @contextmanager
    def _stage(self, name: str) -> Iterator[Progress]:
        with self.folder.stage(name), self._show(name) as progress:
            yield progress

    @cached_property
    def float_model(self) -> torch.nn.Module:
        file = self.folder.float_file
        if file.exists():
            self.inputs.task.model.load_state_dict(torch.load(file, weights_only=True))
            return self.inputs.task.model.eval()  # as `train_float` leaves it: batch norm of a teacher in training mode differs
        with self._stage("float") as progress:
            model = train_float(self.inputs.task, epochs=self.job.training.float_epochs, seed=self.job.seed, progress=progress)
            with replacing(file) as temporary:
                torch.save(model.state_dict(), temporary)
        return model

    @cached_property
    def float_accuracy(self) -> dict[str, float]:
        return {
            "test": accuracy(self.float_model, self.inputs.task.test),
            "validation": accuracy(self.float_model, self.inputs.task.validation),
        }

    @cached_property
    def supernet(self) -> Supernet:
        file = self.folder.supernet_file
        if file.exists():
            arrays = {name: tensor.numpy() for name, tensor in torch.load(file, weights_only=True).items()}
            return Supernet.from_arrays(self.inputs.space, arrays)
        model = self.float_model
        with self._stage("supernet") as progress:
            epochs = self.job.training.supernet_epochs
            supernet = train_supernet(
                self.inputs.task,
                self.inputs.space,
                float_model=model,
                epochs=epochs,
                seed=self.job.seed,
                captured=self.inputs.captured,
                progress=progress,
            )
            tensors = {name: torch.from_numpy(array) for name, array in supernet.to_arrays().items()}
            with replacing(file) as temporary:
                torch.save(tensors, temporary)
        return supernet

    @cached_property
    def front(self) -> ParetoFront:
        if self.folder.front_file.exists():
            return load_front(self.folder.front_file)
        supernet = self.supernet
        with self._stage("search") as progress:
            front = search(
                supernet, self.inputs.task, self.inputs.space, self.inputs.costs, self.inputs.budget,
                n_trials=self.job.search.trials, seed=self.job.seed, workers=self._workers, ray_address=self._ray_address,
                batch=self.job.search.batch, objectives=self.job.search.objectives,
                log=self.folder.trials_file, resume=True, progress=progress,
            )  # fmt: skip
            front.save(self.folder.path)
        return front

    @property
    def chosen(self) -> FrontPoint:
        """The front point to finalize: within the budget, and fastest among those close to the most accurate if so preferred."""
        best = self.front.best(self.inputs.budget)
        if self.job.choice.prefer == "most_accurate":
            return best
        floor = best.accuracy - self.job.choice.accuracy_drop
        fit = [point for point in self.front.points if point.accuracy >= floor and self.inputs.budget.is_met(point.cost)]
        return min(fit, key=lambda point: (point.cost.mean.latency_us, point.trial))

    @cached_property
    def final(self) -> FinalModel:
        if self.folder.final_file.exists():
            return load_final(self.folder.final_file)
        point, supernet = self.chosen, self.supernet
        with self._stage("finalize") as progress:
            final = finalize(
                point, supernet, self.inputs.task, self.inputs.space, self.inputs.costs, self.inputs.budget,
                epochs=self.job.training.final_epochs, seed=self.job.seed, delta=self.job.choice.delta,
                float_model=self.float_model,
                float_accuracy=self.float_accuracy, progress=progress,
            )  # fmt: skip
            with replacing(self.folder.final_file) as temporary:
                save_final(final, temporary)
        return final

    @cached_property
    def bundle(self) -> Bundle:
        if self.folder.bundle.exists():
            return Bundle(self.folder.bundle)
        final = self.final
        report = self.report()
        with self._stage("export"):
            return export(final, self.folder.bundle, report=report.read_text(encoding="utf-8"), profile=self.inputs.profile)

    def report(self) -> Path:
        """Write report.html from what the run has; it needs the final model."""
        final = self.final
        with self._stage("report"):
            write_report(self.folder.report_file, self._report_data(final))
        return self.folder.report_file

    @cached_property
    def baselines(self) -> tuple[Reference, ...]:
        return uniform_baselines(self.supernet, self.inputs.task, self.inputs.space, self.inputs.costs)

    def _report_data(self, final: FinalModel) -> ReportData:
        return ReportData(
            final=final,
            front=self.front,
            chosen_trial=self.chosen.trial,
            header=self.inputs.profile.header,
            inferences=self.inputs.costs.inferences(final.model.menu, final.policy),
            references=self.baselines,
            inputs=_shown_inputs(final),
            split="test",
            seconds=self.folder.seconds(),
            versions={name: version(name) for name in ("torch", "optuna", "ray", "numpy", "onnx", "onnxruntime")},
        )

    def run(self) -> dict[str, Any]:
        """Every stage, the bundle verified at the end; returns the record that `run --json` prints."""
        bundle = self.bundle
        with self._stage("verify"):
            checked = verify(bundle.path)
        return self._summary(bundle, checked)

    def _summary(self, bundle: Bundle, checked: Verification) -> dict[str, Any]:
        final = self.final
        return {
            "run_folder": str(self.folder.path),
            "bundle": str(bundle.path),
            "report": str(self.folder.report_file),
            "policy": str(final.model.menu.kind),
            "accuracy": final.accuracy["test"],
            "float_accuracy": final.float_accuracy["test"],
            "mean": asdict(final.cost.mean),
            "worst": asdict(final.cost.worst),
            "budget": final.budget.limits(),
            "certificate": asdict(final.certificate),
            "uniform": {r.name: {"accuracy": r.accuracy, **asdict(r.cost)} for r in self.baselines},
            "verified": checked.ok,
            "failed_checks": [check.name for check in checked.checks if not check.ok],
            "seconds": self.folder.seconds(),
        }


def _shown_inputs(final: FinalModel) -> Inputs:
    """What the integer model did with the bundle's sample inputs, which are the test split's first."""
    execution = run_model(final.model, final.sample_codes)
    ordered = np.sort(execution.logits.astype(np.int64), axis=1)  # [N, classes]
    steps = np.array([entry.logit_step for entry in final.model.entries])
    codes = final.sample_codes.astype(np.float64)
    images = (255 * (codes - codes.min()) / max(np.ptp(codes), 1)).astype(np.uint8)  # [N, height, width, channels]
    return Inputs(
        images=images,
        labels=final.sample_labels.astype(np.int64),
        predicted=np.argmax(execution.logits, axis=1),
        entries=execution.entries,
        margins=(ordered[:, -1] - ordered[:, -2]) * steps[execution.entries],
    )
