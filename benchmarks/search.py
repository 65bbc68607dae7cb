"""What a search costs beside the evaluation of its trials, and how many trials a second it finishes with one and two workers.

`python benchmarks/search.py` prints both and writes them to benchmarks/search.md; `--json` prints them as rows instead. For the
driver's own time workers answer at once with numbers made from a digest of the question, so that all that remains is to ask
the sampler, to build and price menus, to tell, and to keep the journal. With real workers the network is that of the digits,
untrained, since how good it is does not matter to how long it takes; the time that workers take to start is left out.
"""

import argparse
import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hwsearch.graph.precision import BitAssignment, Precision
from hwsearch.graph.space import SearchSpace, load_space, network_for_space
from hwsearch.hardware.cost import Budget
from hwsearch.hardware.profile import load_profile
from hwsearch.pricing.cost_model import CostModel
from hwsearch.quantizers.calibrate import untrained_supernet
from hwsearch.quantizers.evaluation import PathEvaluation
from hwsearch.study.evaluate import Material, PolicyAnswer, PolicyQuestion, build, evaluate_assignment
from hwsearch.study.pool import Build, Function, Notify, Pool, ignore, open_pool
from hwsearch.study.preview import MenuBuilder, Sensitivities
from hwsearch.study.proposal import read_proposal
from hwsearch.study.search import search
from hwsearch.tasks.catalogue import load_task
from hwsearch.tasks.networks import REFERENCE_NETWORKS
from hwsearch.tasks.task import Split, Task

PROFILE, SPACE, NETWORK = "nucleo_l4r5zi", "resnet8_cifar10", "resnet8"
BUDGET = Budget(latency_us=400e3)
SEED = 0
IMAGES = 256
"""Images that stub answers are for."""
N_DRIVER, N_WORKERS = 128, 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`trial_ms`: one trial, all included; `cpu_ms`: of it, computed in this process; `price_ms`: of that, its menu and price."""

    space: str
    evaluator: str
    workers: int
    trials: int
    trial_ms: float
    cpu_ms: float
    price_ms: float | None

    @property
    def per_second(self) -> float:
        return 1000 / self.trial_ms


class StubPool:
    """Answers at once."""

    def __init__(self, space: SearchSpace) -> None:
        self._exits = (*space.network.exits, "")

    def share(self, build: Build, payload: Any) -> None:
        pass

    def map(self, function: Function, items: Sequence[Any], finished: Notify = ignore) -> list[Any]:
        results = [self._evaluation(item) if function is evaluate_assignment else self._answer(item) for item in items]
        for index, result in enumerate(results):
            finished(index, result)
        return results

    def close(self) -> None:
        pass

    def _evaluation(self, key: str) -> PathEvaluation:
        bits = [(p.weight_bits or 8) * p.activation_bits for _, p in BitAssignment.from_key(key).items()]
        random = np.random.default_rng(_number(key))
        losses = random.exponential(1 / np.mean(bits), (len(self._exits), IMAGES))
        return PathEvaluation(exits=self._exits, losses=losses, correct=losses < 0.1, margins=-losses)

    def _answer(self, question: PolicyQuestion) -> PolicyAnswer:
        entries = question.correct.shape[1]
        return PolicyAnswer(accuracy=float(question.correct.mean()), shares=(1 / entries,) * entries)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")


def image_task(space: SearchSpace) -> Task:
    """The reference network of a space on random images: nothing of it is evaluated."""
    shape = space.network.input_shape

    def split(count: int) -> Split:
        return Split(images=torch.rand(count, *shape), labels=torch.randint(10, (count,)))

    torch.manual_seed(SEED)
    return Task(
        model=REFERENCE_NETWORKS[NETWORK].build(SEED), train=split(64), validation=split(64), test=split(64), name="random images"
    )


def driver(n_trials: int) -> Row:
    """The search without any evaluation."""
    space = load_space(SPACE, network_for_space(SPACE))
    costs, task = CostModel(space.network, load_profile(PROFILE)), image_task(space)
    supernet = untrained_supernet(task, space, task.model, seed=SEED)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "trials.jsonl"
        began, cpu_began = time.perf_counter(), time.process_time()
        search(supernet, task, space, costs, BUDGET, n_trials=n_trials, seed=SEED, pool=StubPool(space), log=log)
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
        records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()[1:]]
    price_ms = price_seconds(space, costs, records) / n_trials * 1e3
    return Row(
        space=SPACE, evaluator="none", workers=1, trials=n_trials, trial_ms=seconds / n_trials * 1e3,
        cpu_ms=cpu_s / n_trials * 1e3, price_ms=price_ms,
    )  # fmt: skip


def price_seconds(space: SearchSpace, costs: CostModel, records: Sequence[dict[str, Any]]) -> float:
    """This process's time to build and price the menus of a journal's trials again."""
    sensitivities: Sensitivities = next(record["sensitivities"] for record in records if "sensitivities" in record)
    builder = MenuBuilder(space, costs, sensitivities, BUDGET)
    proposals = [read_proposal(space, record["params"]) for record in records if "params" in record]
    began = time.process_time()
    for proposal in proposals:
        menu, policy = builder.menu(proposal)
        costs.paths(menu, policy)
    return time.process_time() - began


class Started:
    """A pool whose workers hold their state already: to share it again would start them again."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def share(self, build: Build, payload: Any) -> None:
        """The state is the one they have."""

    def map(self, function: Function, items: Sequence[Any], finished: Notify = ignore) -> list[Any]:
        return self._pool.map(function, items, finished)

    def close(self) -> None:
        """The owner closes it."""


def throughput(workers: int, n_trials: int) -> Row:
    """The search of the digits with real evaluations; workers are started before the clock."""
    task = load_task("digits", seed=SEED)
    space = load_space("digits_cnn", network_for_space("digits_cnn"))
    costs = CostModel(space.network, load_profile(PROFILE))
    supernet = untrained_supernet(task, space, task.model, seed=SEED)
    with closing(open_pool(workers)) as pool:
        pool.share(build, Material.of(supernet, task, space))
        pool.map(evaluate_assignment, [space.uniform(Precision(8, 8)).key] * workers)
        began, cpu_began = time.perf_counter(), time.process_time()
        search(supernet, task, space, costs, Budget(), n_trials=n_trials, seed=SEED, pool=Started(pool))
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    return Row(
        space=space.name, evaluator="digits", workers=workers, trials=n_trials, trial_ms=seconds / n_trials * 1e3,
        cpu_ms=cpu_s / n_trials * 1e3, price_ms=None,
    )  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    head = ["| space | evaluation | workers | trials | one trial, ms | computed here, ms | menus and prices, ms | per second |"]
    head += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
    body = [
        f"| {r.space} | {r.evaluator} | {r.workers} | {r.trials} | {r.trial_ms:.1f} | {r.cpu_ms:.1f} | "
        f"{'' if r.price_ms is None else format(r.price_ms, '.1f')} | {r.per_second:.1f} |"
        for r in rows
    ]
    return "\n".join([*head, *body])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print rows instead of a table")
    parser.add_argument("--driver-only", action="store_true", help="only the search without evaluations")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    rows = [driver(N_DRIVER)]
    if not options.driver_only:
        rows += [throughput(workers, N_WORKERS) for workers in (1, 2)]
    if options.json:
        print(json.dumps([asdict(row) | {"per_second": row.per_second} for row in rows], indent=1))
        return
    where = f"{os.cpu_count()} cores of {platform.machine()}, load {load:.1f} before"
    text = f"# Trials of a search, {where}\n\n{table(rows)}\n"
    print(text)
    if not options.driver_only:
        Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
