"""BitGates and weights together on a tiny network: what the probe sees, that limits hold, that nothing is random."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hwsearch.finalizer import cgmq
from hwsearch.finalizer.cgmq import Chain, Option, Rule
from hwsearch.finalizer.finetune import teacher_of
from hwsearch.finalizer.gated_training import BitGateSchedule, GatedRun, GatedTraining, SaliencyProbe
from hwsearch.finalizer.limits import Problem, choice_of, choices_of, find_floor, limits_of
from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind
from hwsearch.graph.network import Network
from hwsearch.graph.op import Activation, Op, OpKind
from hwsearch.graph.precision import Precision
from hwsearch.graph.space import SearchSpace, build_space
from hwsearch.graph.space_file import SpaceTable
from hwsearch.hardware.cost import Budget
from hwsearch.pricing.cost_model import CostModel
from hwsearch.progress import silent
from hwsearch.quantizers.calibrate import calibrate_activations
from hwsearch.quantizers.supernet import Supernet
from hwsearch.quantizers.uniform import InputQuantizer
from hwsearch.results.front import FrontPoint
from hwsearch.tasks.task import Task

PLAIN = ("w2a2", "w4a4", "w8a8")


def chains_of(space: SearchSpace, costs: CostModel) -> list[Chain]:
    """Chains over uniform precisions with losses that fall evenly."""
    chains = []
    for unit, prices in costs.unit_prices(space).items():
        kept = [price for price in prices if str(price.precision) in PLAIN]
        if len(kept) > 1:
            options = [
                Option(precision=price.precision, latency_us=price.latency_us, loss=1.0 / price.precision.weight_bits)
                for price in kept
            ]
            chains.append(Chain(unit=unit, options=tuple(options)))
    return chains


@pytest.fixture
def make_run(
    task: Task,
    space: SearchSpace,
    costs: CostModel,
    supernet: Supernet,
    float_model: nn.Module,
    point_of: Callable[..., FrontPoint],
) -> Callable[..., tuple[GatedRun, cgmq.BitGates]]:
    def make(budget_share: float, schedule: BitGateSchedule) -> tuple[GatedRun, cgmq.BitGates]:
        point = point_of(PolicyKind.CASCADE, "w4a4", "w8a8")
        budget = Budget(latency_us=budget_share * point.cost.worst.latency_us)
        problem = Problem(menu=point.menu, policy=point.policy, space=space, costs=costs, budget=budget)
        floor = find_floor(problem)
        chains = chains_of(space, costs)
        excess = limits_of(problem, floor, point.shares).of_levels(chains, floor)
        levels = np.array([[1] * len(chains), [2] * len(chains)], dtype=np.int64)
        run = GatedRun(
            supernet=copy.deepcopy(supernet), task=task, space=space, menu=point.menu, fixed=floor, excess=excess,
            teacher=teacher_of(float_model, supernet, space, task), schedule=schedule,
        )  # fmt: skip
        return run, cgmq.start(chains, levels, excess, rate=0.5)

    return make


@pytest.mark.parametrize("rule", list(Rule))
def test_training_ends_within_the_limits_whatever_the_rule(make_run: Callable, rule: Rule) -> None:
    run, gates = make_run(0.7, BitGateSchedule(rule=rule, warm_steps=1, rest_steps=1))
    assert (run.excess(gates.levels) > 0).any()
    moved, _ = GatedTraining(run, epochs=2, seed=0, progress=silent).move_gates(gates)
    assert (run.excess(moved.levels) <= 0).all()
    assert moved.levels.sum() > 0  # not simply the floor


def test_limits_are_met_even_if_there_is_no_time_to_train(make_run: Callable) -> None:
    run, gates = make_run(0.7, BitGateSchedule())
    moved, fell = GatedTraining(run, epochs=0, seed=0, progress=silent).move_gates(gates)
    assert (run.excess(moved.levels) <= 0).all()
    assert 0 < fell <= cgmq.termination_bound(gates)


def test_the_same_seed_gives_the_same_gates_and_weights(make_run: Callable) -> None:
    results = []
    for seed in (3, 3, 4):
        run, gates = make_run(0.8, BitGateSchedule(warm_steps=1, rest_steps=1))
        training = GatedTraining(run, epochs=2, seed=seed, progress=silent)
        moved, _ = training.move_gates(gates)
        training.tune(moved)
        results.append((moved.values, run.supernet.to_arrays()))
    assert (results[0][0] == results[1][0]).all()
    assert all((results[0][1][name] == results[1][1][name]).all() for name in results[0][1])
    assert any((results[0][1][name] != results[2][1][name]).any() for name in results[0][1])


def test_each_epoch_is_told_once(make_run: Callable) -> None:
    told: list[tuple[int, int]] = []
    run, gates = make_run(0.9, BitGateSchedule())
    training = GatedTraining(run, epochs=3, seed=0, progress=lambda done, total, note="": told.append((done, total)))
    moved, _ = training.move_gates(gates)
    training.tune(moved)
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_the_probe_separates_columns_that_share_weights(make_run: Callable, task: Task, space: SearchSpace) -> None:
    """A column's saliency is the gradient of its own loss, though both columns' gradients add up in the same weights."""
    run, gates = make_run(1.0, BitGateSchedule(rule=Rule.GRAD, memory=0.0))
    units = [chain.unit for chain in gates.chains]
    probe = SaliencyProbe(run, units, 2)
    choices = choices_of(gates.chains, gates.levels, run.fixed)
    run.supernet.train()
    run.supernet.zero_grad()
    probe.start_step()
    alone = []
    for column in (0, 1):
        logits = run.supernet(task.train.images[:32], space.assignment(choices[column]))[""]
        loss = F.cross_entropy(logits, task.train.labels[:32])
        weights = [run.supernet.weighted_op(unit).quantizer.weight for unit in units]
        alone.append([float(grad.abs().sum()) for grad in torch.autograd.grad(loss, weights, retain_graph=True)])
        loss.backward()
        probe.record(column)
    assert probe.saliency == pytest.approx(np.array(alone), rel=1e-4)


def test_a_unit_without_weights_is_judged_by_the_codes_it_reads(task: Task) -> None:
    """A pooling that is alone in its unit has no weights, yet its gate must see a gradient."""
    before, after = (2, 8, 8), (2, 4, 4)
    ops = (
        Op(
            name="conv", kind=OpKind.CONV2D, inputs=("input",), in_shape=(1, 8, 8), out_shape=before, kernel=(3, 3),
            padding=(1, 1), activation=Activation.RELU,
        ),
        Op(name="pool", kind=OpKind.AVG_POOL, inputs=("conv",), in_shape=before, out_shape=after, kernel=(2, 2), stride=(2, 2)),
        Op(name="fc", kind=OpKind.LINEAR, inputs=("pool",), in_shape=after, out_shape=(4,)),
    )  # fmt: skip
    space = build_space("t", Network(ops, (1, 8, 8)), SpaceTable(schema=1, weight_bits=(4, 8), activation_bits=(4, 8)))
    supernet = Supernet.of_space(space, InputQuantizer.of_images(task.train.images))
    calibrate_activations(supernet, task.train.images)
    menu = Menu(kind=PolicyKind.STATIC, entries=(MenuEntry(assignment=space.uniform(Precision(8, 8))),))
    run = GatedRun(
        supernet=supernet.train(), task=task, space=space, menu=menu, fixed=choice_of(space, menu.entries[0].assignment),
        excess=lambda levels: np.zeros(len(levels)), teacher=lambda images: images,
        schedule=BitGateSchedule(rule=Rule.GRAD, memory=0.0),
    )  # fmt: skip
    probe = SaliencyProbe(run, ["pool"], 1)

    def passed_back() -> float:
        probe.start_step()
        supernet(task.train.images[:8], menu.entries[0].assignment)[""].square().sum().backward()
        probe.record(0)
        return float(probe.saliency[0, 0])

    assert passed_back() > 0
    probe.close()
    assert passed_back() == 0  # a closed probe leaves nothing in the network
