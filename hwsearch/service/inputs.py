"""What a job names, each thing read when it is first asked for and once: checks before the work and the work itself share it."""

from functools import cached_property
from typing import TYPE_CHECKING

from hwsearch.graph.space import SearchSpace, load_space
from hwsearch.hardware.cost import Budget
from hwsearch.hardware.profile import HardwareProfile, load_profile
from hwsearch.pricing.cost_model import CostModel
from hwsearch.service.job import Job

if TYPE_CHECKING:
    from hwsearch.graph.capture import Captured
    from hwsearch.tasks.task import Task


class JobInputs:
    """The task, captured network, space, profile and prices of a job. What needs torch loads it when it is asked for."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @cached_property
    def budget(self) -> Budget:
        return self.job.budget.parse()

    @cached_property
    def task(self) -> "Task":
        from hwsearch.tasks.catalogue import load_task

        return load_task(self.job.task, data=self.job.data)

    @cached_property
    def captured(self) -> "Captured":
        """The task's network, and where its parameters lie: a job's one export."""
        from hwsearch.graph.capture import capture_model

        return capture_model(self.task.model, self.task.example_input)

    @cached_property
    def space(self) -> SearchSpace:
        return load_space(self.job.space, self.captured.network)

    @cached_property
    def profile(self) -> HardwareProfile:
        return load_profile(self.job.profile)

    @cached_property
    def costs(self) -> CostModel:
        return CostModel(self.space.network, self.profile)
