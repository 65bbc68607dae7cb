"""Which worker computes which item: first come first served, with retries for dead workers and copies for stragglers.

The rules know neither Ray nor a clock: a `Crew` gives events and the time. Results come back in the order of the items, so
that nothing a search computes depends on how many workers it has or on which of them died.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol

from hwsearch.errors import ClusterError

MAX_ATTEMPTS = 4
"""An item is given up, with an error, when this many workers died on it; so is a worker that died as often before its start."""
MAX_COPIES = 2
STRAGGLER_FACTOR = 3.0
"""An item that has run this many times the median is given to a second, idle worker; whoever is first counts."""
STRAGGLER_MIN_S = 2.0
MIN_FINISHED = 3
"""Items that must have finished before a median means anything."""
START_LIMIT_S = 90.0
"""Time by which at least one worker must have started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A worker has started."""

    worker: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A worker has computed its item."""

    worker: int
    result: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A worker's function raised: the same would happen anywhere, so nothing is retried."""

    worker: int
    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class Died:
    """A worker is gone, and with it what it was computing."""

    worker: int
    reason: str


Event = Ready | Finished | Failed | Died
Function = Callable[[Any, Any], Any]


class Crew(Protocol):
    """Workers numbered from 0. Each is starting, then idle or busy with one item."""

    def start(self, worker: int, function: Function, item: Any) -> None:
        """Give an idle worker an item."""

    def replace(self, worker: int) -> None:
        """Start a new worker under the number of a dead one."""

    def wait(self, timeout_s: float) -> Event | None:
        """The next event, or None if there is none within the time."""

    def now(self) -> float:
        """Seconds on the crew's clock."""


@dataclass(slots=True)
class _Running:
    """What a worker is busy with; `batch` tells it from items of an earlier `run`, whose results are dropped."""

    batch: int
    index: int
    since: float


@dataclass(slots=True)
class _Batch:
    number: int
    function: Function
    items: Sequence[Any]
    queue: deque[int]
    results: dict[int, Any] = field(default_factory=dict)
    durations: list[float] = field(default_factory=list)
    deaths: dict[int, int] = field(default_factory=dict)


class Schedule:
    """Keeps a crew busy over any number of batches."""

    def __init__(self, crew: Crew, workers: int) -> None:
        self._crew = crew
        self._idle: set[int] = set()
        self._starting = set(range(workers))
        self._running: dict[int, _Running] = {}
        self._false_starts = 0
        self._batches = 0

    def run(self, function: Function, items: Sequence[Any], finished: Callable[[int, Any], None]) -> list[Any]:
        """`function(state, item)` for every item; `finished(index, result)` is called once for each, as they come in."""
        self._batches += 1
        batch = _Batch(self._batches, function, items, deque(range(len(items))))
        while len(batch.results) < len(items):
            self._assign(batch)
            event = self._crew.wait(self._patience(batch))
            if event is None:
                self._require_a_worker()
            elif isinstance(event, Ready):
                self._starting.discard(event.worker)
                self._idle.add(event.worker)
                self._false_starts = 0
            elif isinstance(event, Died):
                self._bury(batch, event)
            else:
                self._take(batch, event, finished)
        return [batch.results[index] for index in range(len(items))]

    def _assign(self, batch: _Batch) -> None:
        for worker in sorted(self._idle):
            index = batch.queue.popleft() if batch.queue else self._straggler(batch)
            if index is None:
                return
            self._idle.remove(worker)
            self._running[worker] = _Running(batch.number, index, self._crew.now())
            self._crew.start(worker, batch.function, batch.items[index])

    def _straggler(self, batch: _Batch) -> int | None:
        """The item that has run longest, if it is due for a copy."""
        due = self._next_straggler(batch)
        return due[1] if due is not None and due[0] <= self._crew.now() else None

    def _next_straggler(self, batch: _Batch) -> tuple[float, int] | None:
        """When the item that has run longest is due for a copy, and its index."""
        alone = [(running.since, running.index) for running in self._alone(batch)]
        if not alone or len(batch.durations) < MIN_FINISHED:
            return None
        since, index = min(alone)
        return since + max(STRAGGLER_MIN_S, STRAGGLER_FACTOR * median(batch.durations)), index

    def _alone(self, batch: _Batch) -> list[_Running]:
        """Unfinished items of this batch that fewer than the allowed number of workers compute."""
        own = [r for r in self._running.values() if r.batch == batch.number and r.index not in batch.results]
        copies = [running.index for running in own]
        return [running for running in own if copies.count(running.index) < MAX_COPIES]

    def _patience(self, batch: _Batch) -> float:
        """Seconds to wait for an event: until the oldest item becomes a straggler, if somebody could take it."""
        due = self._next_straggler(batch) if self._idle else None
        return START_LIMIT_S if due is None else max(0.0, due[0] - self._crew.now())

    def _require_a_worker(self) -> None:
        if not self._idle and not self._running:
            raise ClusterError(
                f"A cluster must have a free CPU for a worker, but none of {len(self._starting)} started within "
                f"{START_LIMIT_S:g} s; stop what occupies the cluster or add a node."
            )

    def _bury(self, batch: _Batch, event: Died) -> None:
        """Replace a dead worker and queue its item again, in front."""
        running = self._running.pop(event.worker, None)
        self._idle.discard(event.worker)
        self._starting.add(event.worker)
        if running is None:
            self._false_starts += 1
            if self._false_starts >= MAX_ATTEMPTS:
                raise ClusterError(f"A worker must start, but {self._false_starts} in a row died: {event.reason}")
        elif running.batch == batch.number and running.index not in batch.results:
            self._retry(batch, running.index, event.reason)
        self._crew.replace(event.worker)

    def _retry(self, batch: _Batch, index: int, reason: str) -> None:
        batch.deaths[index] = batch.deaths.get(index, 0) + 1
        if batch.deaths[index] >= MAX_ATTEMPTS:
            raise ClusterError(
                f"A trial must survive on a worker, but {batch.deaths[index]} workers died on the same one ({reason}); "
                "give the workers more memory."
            )
        if all(running.index != index for running in self._alone(batch)):
            batch.queue.appendleft(index)

    def _take(self, batch: _Batch, event: Finished | Failed, finished: Callable[[int, Any], None]) -> None:
        running = self._running.pop(event.worker)
        self._idle.add(event.worker)
        if running.batch != batch.number or running.index in batch.results:
            return  # a copy was faster
        if isinstance(event, Failed):
            raise event.error
        batch.results[running.index] = event.result
        batch.durations.append(self._crew.now() - running.since)
        finished(running.index, event.result)
