"""Training of weights and gates together under exact limits, then of the weights alone with the gates frozen."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hwsearch.finalizer.cgmq import BitGates, Excess, Rule, Table, settle, update
from hwsearch.finalizer.limits import Choice, choices_of
from hwsearch.graph.menu import Menu
from hwsearch.graph.precision import BitAssignment
from hwsearch.graph.space import SearchSpace
from hwsearch.progress import Progress
from hwsearch.quantizers.heads import refit_heads
from hwsearch.quantizers.supernet import Supernet
from hwsearch.quantizers.training import SupernetTraining, distillation_loss, make_optimizer, shuffled_batches, warm_cosine
from hwsearch.tasks.task import Task

Teacher = Callable[[Tensor], Tensor]
"""Images `[N, C, H, W]` to logits `[N, classes]`, without gradient."""


FINE_TUNING = SupernetTraining(learning_rate=5e-4, step_learning_rate=5e-4, label_share=0.7)
"""Gentler than a supernet's training, and closer to the labels: every path is a known one by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BitGateSchedule:
    """How gates move while weights train.

    `share`: of the epochs in which they move. `warm_steps`: optimizer steps before the first move, which fill the
    average of the saliencies. `rest_steps`: steps between moves, in which the weights get used to the last one.
    `memory`: of the running average of saliencies.
    """

    rule: Rule = Rule.GRADXMAG
    share: float = 0.5
    warm_steps: int = 10
    rest_steps: int = 4
    memory: float = 0.9
    training: SupernetTraining = FINE_TUNING


class SaliencyProbe:
    """Mean absolute gradient and value of what each gate quantizes, per column, as running averages.

    A unit with weights is judged by them (gradients summed over the weights, so that large and small units compare in units of
    the loss); one without by the codes it reads.
    """

    def __init__(self, run: "GatedRun", units: Sequence[str], columns: int) -> None:
        self.rule, self.memory = run.schedule.rule, run.schedule.memory
        self.average: Table = np.zeros((columns, len(units)))
        self._tensors = [_Watched(run.supernet, run.space, unit) for unit in units]
        self._steps = 0

    def start_step(self) -> None:
        """Gradients were just set to zero."""
        self._steps += 1
        for watched in self._tensors:
            watched.forget()

    def record(self, column: int) -> None:
        """Take the gradients that the column's backward pass just left."""
        pairs = [watched.take() for watched in self._tensors]
        gradient = np.array([[pair[0] for pair in pairs]])
        magnitude = np.array([[pair[1] for pair in pairs]])
        now = self.rule.saliency(gradient, magnitude)[0] if pairs else np.zeros(0)
        self.average[column] += (1 - self.memory) * (now - self.average[column])

    @property
    def saliency(self) -> Table:
        """The averages, freed from their start at zero; `[columns, units]`."""
        return np.asarray(self.average / (1 - self.memory ** max(self._steps, 1)))

    def close(self) -> None:
        for watched in self._tensors:
            watched.close()


class _Watched:
    """The weights of one unit, or the codes that a unit without weights reads."""

    def __init__(self, supernet: Supernet, space: SearchSpace, unit_name: str) -> None:
        unit = next(unit for unit in space.units if unit.name == unit_name)
        weighted = [name for name in unit.ops if space.network[name].has_weights]
        self.weights = [supernet.weighted_op(name).quantizer.weight for name in weighted]
        self._before: list[Tensor | float] = [0.0] * len(self.weights)
        self._seen: list[Tensor] = []
        self._hooks = []
        if not weighted:
            sources = {supernet.activation(source) for name in unit.ops for source in space.network[name].inputs}
            self._hooks = [quantizer.register_forward_hook(self._keep) for quantizer in sources]

    def _keep(self, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.requires_grad:
            output.retain_grad()
            self._seen.append(output)

    def take(self) -> tuple[float, float]:
        """Summed absolute gradient of this backward pass, and mean absolute value."""
        tensors = self.weights or self._seen
        gradients = [tensor.grad for tensor in tensors]
        total, size, count = 0.0, 0.0, 0
        for index, (tensor, gradient) in enumerate(zip(tensors, gradients, strict=True)):
            size += float(tensor.detach().abs().sum())
            count += tensor.numel()
            if gradient is not None:
                before = self._before[index] if self.weights else 0.0
                total += float((gradient - before).abs().sum())
                if self.weights:
                    self._before[index] = gradient.clone()
        self._seen = []
        return total, size / max(count, 1)

    def forget(self) -> None:
        self._before = [0.0] * len(self.weights)

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GatedRun:
    """What one training under limits works on. `fixed`: precisions of the units that have no gate."""

    supernet: Supernet
    task: Task
    space: SearchSpace
    menu: Menu
    fixed: Choice
    excess: Excess
    teacher: Teacher
    schedule: BitGateSchedule

    def assignments(self, gates: BitGates) -> list[BitAssignment]:
        """The assignment of each column."""
        return [self.space.assignment(choice) for choice in choices_of(gates.chains, gates.levels, self.fixed)]

    def exits(self, column: int) -> tuple[str, ...]:
        """Exits whose logits a column learns."""
        last = len(self.menu.entries) - 1
        return self.menu.exits_passed(last if self.menu.kind.shares_trunk else column)


class GatedTraining:
    """One optimizer and learning-rate schedule over both phases: `move_gates`, then `tune`."""

    def __init__(self, run: GatedRun, *, epochs: int, seed: int, progress: Progress) -> None:
        self.run, self.epochs, self.progress = run, epochs, progress
        self.gate_epochs = round(epochs * run.schedule.share)
        self._done = 0
        self._generator = torch.Generator().manual_seed(seed)
        self._optimizer = make_optimizer(run.supernet, run.schedule.training)
        steps = epochs * math.ceil(len(run.task.train) / run.schedule.training.batch)
        self._rate = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda step: warm_cosine(step, steps))

    def move_gates(self, gates: BitGates) -> tuple[BitGates, int]:
        """Train weights and gates for their share of the epochs; the gates that result meet every limit.

        Also the number of falling updates that were still needed at the end, without data.
        """
        run, schedule = self.run, self.run.schedule
        probe = SaliencyProbe(run, [chain.unit for chain in gates.chains], len(gates.values))
        step, next_move = 0, schedule.warm_steps
        for _ in range(self.gate_epochs):
            assignments = run.assignments(gates)
            for images, labels in self._batches():
                self._step(images, labels, assignments, probe)
                step += 1
                if step >= next_move:
                    before, gates = gates.levels, update(gates, probe.saliency, run.excess)
                    if (gates.levels != before).any():
                        assignments, next_move = run.assignments(gates), step + schedule.rest_steps
            self._epoch_done("gates " + " ".join("".join(map(str, row)) for row in gates.levels))
        probe.close()
        return settle(gates, np.ones_like(gates.values) if step == 0 else probe.saliency, run.excess)

    def tune(self, gates: BitGates) -> None:
        """Train the weights alone for the remaining epochs, then fit the heads to images as they are, without augmentation."""
        assignments = self.run.assignments(gates)
        while self._done < self.epochs:
            loss = [self._step(images, labels, assignments, None) for images, labels in self._batches()]
            self._epoch_done(f"loss {np.mean(loss):.3f}")
        if self.epochs:
            refit_heads(self.run.supernet, self.run.task.train, assignments)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.run.supernet.train()
        return shuffled_batches(self.run.task, self.run.schedule.training.batch, self._generator)

    def _epoch_done(self, note: str) -> None:
        self._done += 1
        self.run.supernet.eval()
        self.progress(self._done, self.epochs, note)

    def _step(self, images: Tensor, labels: Tensor, assignments: Sequence[BitAssignment], probe: SaliencyProbe | None) -> float:
        """One optimizer step on the sum of all columns' losses; returns their mean."""
        run, total = self.run, 0.0
        answers = run.teacher(images)
        self._optimizer.zero_grad()
        if probe is not None:
            probe.start_step()
        for column, assignment in enumerate(assignments):
            logits = run.supernet(images, assignment, exits=run.exits(column))
            parts = [distillation_loss(one, labels, answers, run.schedule.training) for one in logits.values()]
            loss = torch.stack(parts).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            if probe is not None:
                probe.record(column)
            total += float(loss.detach()) / len(assignments)
        self._optimizer.step()
        self._rate.step()
        return total
