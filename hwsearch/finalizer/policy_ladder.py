"""A finished model's policy as a ladder from "always the first entry" to the policy as it was fitted.

Every rung is an integer model that differs from the others in thresholds or in the bias of its gate alone, and no input
costs more on a lower rung (but for what rounding a gate's charge to whole logits may do). The ladder is built from the
search split; the certificate climbs it on images that had no part in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from hwsearch.graph.menu import PolicyShape
from hwsearch.hardware.cost import Cost
from hwsearch.integers.execute import run_entry
from hwsearch.integers.integer_model import Codes, Int32, IntegerModel
from hwsearch.integers.reference import argmax
from hwsearch.predictors.fitted import EntryResults
from hwsearch.predictors.policy import fit_policy
from hwsearch.predictors.threshold import fit_thresholds
from hwsearch.quantizers.fold import integer_threshold
from hwsearch.quantizers.uniform import InputQuantizer
from hwsearch.tasks.task import Split

RUNGS = 20
_NEVER = 2**29
"""What is taken off a controller's output so that it never wins: more than outputs differ by, and far inside int32."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """Images as codes uint8 `[N, H, W, C]` and what every entry answers to them, int32 `[K, N, classes]`."""

    codes: Codes
    logits: Int32

    @classmethod
    def of(cls, model: IntegerModel, codes: Codes) -> "Answers":
        """Run every entry on all images, whatever the policy would choose."""
        entries = model.menu.entries
        if model.menu.kind.shares_trunk:  # one pass gives all exits
            last = len(entries) - 1
            by_exit = run_entry(model, last, codes, model.menu.exits_passed(last))
            return cls(codes=codes, logits=np.stack([by_exit[entry.exit] for entry in entries]))
        rows = [run_entry(model, index, codes)[entry.exit] for index, entry in enumerate(entries)]
        return cls(codes=codes, logits=np.stack(rows))

    @property
    def margins(self) -> NDArray[np.int64]:
        """Best minus second-best logit, in whole logit units, `[N, K]`."""
        return np.stack([argmax(logits)[1] for logits in self.logits], axis=1)


def entry_results(model: IntegerModel, answers: Answers, split: Split, paths: Sequence[Cost]) -> EntryResults:
    """What a policy is fitted on, from the integer model's own answers."""
    steps = np.array([entry.logit_step for entry in model.entries])
    logits = torch.from_numpy(answers.logits * steps[:, None, None])  # [K, N, classes]
    losses = [F.cross_entropy(one, split.labels, reduction="none").numpy() for one in logits]
    latencies = np.array([path.latency_us for path in paths])
    return EntryResults(
        images=split.images,
        losses=np.stack(losses, axis=1),
        margins=answers.margins * steps,
        relative_latencies=latencies / latencies.max(),
    )


def decisions(model: IntegerModel, answers: Answers) -> NDArray[np.int64]:
    """The entry at which each image's inference ends under the model's policy, int64 `[N]`; the model's own rule."""
    last = len(model.menu.entries) - 1
    if model.gate is not None:
        return argmax(run_entry(model.gate, 0, answers.codes)[""])[0]
    if not model.menu.kind.escalates:
        return np.full(len(answers.codes), last, dtype=np.int64)
    stops = np.ones((len(answers.codes), last + 1), dtype=bool)
    stops[:, :-1] = answers.margins[:, :-1] >= np.array(model.thresholds)
    return np.asarray(stops.argmax(axis=1), dtype=np.int64)


def build_ladder(
    model: IntegerModel, policy: PolicyShape, results: EntryResults, answers: Answers, *, quantizer: InputQuantizer, seed: int
) -> tuple[IntegerModel, ...]:
    """Rungs from the first entry alone to the policy as fitted; `results` are what `answers` amount to.

    `model` needs no policy yet; `quantizer` is that of its input.
    """
    if policy.kind.has_controller:
        controller = fit_policy(policy, results, input_quantizer=quantizer, seed=seed).controller()
        return _controller_ladder(replace(model, gate=controller), answers, results.relative_latencies)
    return _threshold_ladder(model, policy, results) if policy.kind.escalates else (model,)


def _threshold_ladder(model: IntegerModel, policy: PolicyShape, results: EntryResults) -> tuple[IntegerModel, ...]:
    """Escalation shares grow from none to the policy's."""
    rows: list[NDArray[np.int64]] = [np.zeros(len(policy.escalation), dtype=np.int64)]
    for share in np.linspace(0, 1, RUNGS + 1)[1:]:
        real = fit_thresholds(results.margins, [share * one for one in policy.escalation])
        units = zip(real, model.entries, strict=False)
        whole = np.array([integer_threshold(threshold, entry.logit_step) for threshold, entry in units], dtype=np.int64)
        rows.append(np.maximum(rows[-1], whole))  # a later stage's threshold may not fall where an earlier one rises
    return tuple(replace(model, thresholds=tuple(int(one) for one in row)) for row in rows)


def _controller_ladder(
    model: IntegerModel, answers: Answers, relative_latencies: NDArray[np.float64]
) -> tuple[IntegerModel, ...]:
    """What each unit of latency above the first entry's is charged falls from more than any controller could win to nothing."""
    assert model.gate is not None
    scores = run_entry(model.gate, 0, answers.codes)[""].astype(np.float64)  # [N, K]
    above = relative_latencies[1:] - relative_latencies[0]
    extra = np.maximum(above / max(float(above.max()), 1e-9), 1e-3)  # [K - 1]
    worth = ((scores[:, 1:] - scores[:, :1]) / extra).max(axis=1)  # charge at which an input goes back to the first entry
    wanting = worth[worth > 0]
    charges = [float(np.quantile(wanting, 1 - rung / RUNGS)) for rung in range(1, RUNGS)] if len(wanting) else []
    shifts = [np.minimum(np.ceil(charge * extra), _NEVER).astype(np.int64) for charge in charges]
    shifts = [np.full(len(extra), _NEVER), *shifts, np.zeros(len(extra), dtype=np.int64)]
    return tuple(replace(model, gate=_charged(model.gate, shift)) for shift in shifts)


def _charged(gate: IntegerModel, shift: NDArray[np.int64]) -> IntegerModel:
    """The gate with `shift` `[K - 1]` taken off the outputs of all entries but the first."""
    name = gate.network.output.name
    constants = gate.entries[0].constants[name]
    bias = constants.bias.astype(np.int64) - np.concatenate([[0], shift])
    charged = replace(constants, bias=bias.astype(np.int32))
    entry = replace(gate.entries[0], constants={**gate.entries[0].constants, name: charged})
    return replace(gate, entries=(entry,))
