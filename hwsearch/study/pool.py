"""Where trials are computed: in this process, on Ray, or on a simulated clock. One protocol; results in the order of the items.

A pool is given once what all items need (`share`), then any number of batches (`map`). This is the only file that speaks Ray.
Traps it avoids: `ray.init()` without an address joins whatever cluster an old file names; joining an address where
no Ray answers hangs for minutes; a cluster reachable by others runs anybody's code unless it asks for a token.
"""

import heapq
import itertools
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from hwsearch.errors import ClusterError
from hwsearch.study.schedule import Died, Event, Failed, Finished, Function, Ready, Schedule
from hwsearch.version import VERSION

PROBE_S = 3.0
"""Time a cluster has to answer."""
LOOPBACK = ("127.", "localhost", "::1", "[::1]")
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""Connection preface and an empty SETTINGS frame (RFC 9113, section 3.4); every gRPC server answers with its own SETTINGS."""

Build = Callable[[Any], Any]
Notify = Callable[[int, Any], None]


def ignore(index: int, result: Any) -> None:
    """For callers of `map` who need no word of single items."""


class Pool(Protocol):
    """Workers that hold a state and apply functions to it."""

    def share(self, build: Build, payload: Any) -> None:
        """Let each worker make its state, `build(payload)`; replaces an earlier one."""

    def map(self, function: Function, items: Sequence[Any], finished: Notify = ignore) -> list[Any]:
        """`function(state, item)` for every item, in order; `finished(index, result)` is called as each comes in."""

    def close(self) -> None:
        """Let the workers go."""


def open_pool(workers: int, ray_address: str | None = None) -> Pool:
    """This process for one worker without an address, else Ray: a cluster of our own, or the one at the address.

    >>> open_pool(1).map(lambda state, item: 2 * item, [1, 2])
    [2, 4]
    """
    if workers == 1 and ray_address is None:
        return InProcessPool()
    return RayPool(workers, ray_address or "local")


class InProcessPool:
    """One worker: this process."""

    def __init__(self) -> None:
        self._state: Any = None

    def share(self, build: Build, payload: Any) -> None:
        self._state = build(payload)

    def map(self, function: Function, items: Sequence[Any], finished: Notify = ignore) -> list[Any]:
        results = []
        for index, item in enumerate(items):
            results.append(function(self._state, item))
            finished(index, results[-1])
        return results

    def close(self) -> None:
        self._state = None


# --- simulated clock --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong, by the number of the start (0 for the first item any worker was given, and so on).

    `dies_after_s`: the worker dies that long into it. `slower`: it takes that many times as long. `start_s`: how long
    each worker takes to start, None if it never does.
    """

    dies_after_s: Mapping[int, float] = field(default_factory=dict)
    slower: Mapping[int, float] = field(default_factory=dict)
    start_s: Mapping[int, float | None] = field(default_factory=dict)


class SimulatedCrew:
    """Workers on a clock that jumps from event to event; functions run here, when their item is due."""

    def __init__(self, workers: int, build: Build, payload: Any, faults: Faults, seconds_per_item: float) -> None:
        self._make = partial(build, payload)
        self._faults = faults
        self._seconds = seconds_per_item
        self._clock = 0.0
        self._starts = 0
        self._due: list[tuple[float, int, Callable[[], Event]]] = []
        self._order = itertools.count()
        self._states: dict[int, Any] = {}
        for worker in range(workers):
            self.replace(worker)

    def start(self, worker: int, function: Function, item: Any) -> None:
        number, self._starts = self._starts, self._starts + 1
        dies = self._faults.dies_after_s.get(number)
        if dies is not None:
            self._at(dies, lambda: Died(worker=worker, reason=f"simulated death of start {number}"))
            return
        self._at(self._seconds * self._faults.slower.get(number, 1.0), lambda: self._compute(worker, function, item))

    def _compute(self, worker: int, function: Function, item: Any) -> Event:
        try:
            return Finished(worker=worker, result=function(self._states[worker], item))
        except Exception as error:
            return Failed(worker=worker, error=error)

    def replace(self, worker: int) -> None:
        self._states[worker] = self._make()
        delay = self._faults.start_s.get(worker, 0.0)
        if delay is not None:
            self._at(delay, lambda: Ready(worker=worker))

    def _at(self, delay_s: float, event: Callable[[], Event]) -> None:
        heapq.heappush(self._due, (self._clock + delay_s, next(self._order), event))

    def wait(self, timeout_s: float) -> Event | None:
        if not self._due or self._due[0][0] > self._clock + timeout_s:
            self._clock += timeout_s
            return None
        self._clock, _, event = heapq.heappop(self._due)
        return event()

    def now(self) -> float:
        return self._clock


class SimulatedPool:
    """The schedule of a Ray pool on a simulated clock, with faults, in milliseconds. `elapsed_s` is that clock's time."""

    def __init__(self, workers: int, faults: Faults | None = None, seconds_per_item: float = 10.0) -> None:
        self._workers = workers
        self._faults = faults or Faults()
        self._seconds = seconds_per_item
        self.share(lambda payload: payload, None)

    def share(self, build: Build, payload: Any) -> None:
        self._crew = SimulatedCrew(self._workers, build, payload, self._faults, self._seconds)
        self._schedule = Schedule(self._crew, self._workers)

    def map(self, function: Function, items: Sequence[Any], finished: Notify = ignore) -> list[Any]:
        return self._schedule.run(function, items, finished)

    @property
    def elapsed_s(self) -> float:
        return self._crew.now()

    def close(self) -> None:
        """Nothing is held."""


# --- Ray --------------------------------------------------------------------------------------------------------------


def check_address(address: str) -> None:
    """Raise ClusterError within seconds unless a Ray cluster answers at `HOST:PORT` (or `ray://HOST:PORT`)."""
    host, port = _host_and_port(address)
    found = _silence_of(host, port)
    if found:
        raise ClusterError(
            f"A Ray cluster must answer at {address}, but {found}; start one there with `ray start --head --port={port}` "
            "or correct the address."
        )
    if not host.startswith(LOOPBACK) and os.environ.get("RAY_AUTH_MODE") != "token":
        raise ClusterError(
            f"A Ray cluster that others can reach must ask for a token, but RAY_AUTH_MODE is "
            f"{os.environ.get('RAY_AUTH_MODE', 'unset')!r} and {host} is not this computer; export RAY_AUTH_MODE=token "
            "here and on every node (see cluster/README.md)."
        )


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ClusterError(f"A Ray address must be HOST:PORT or ray://HOST:PORT, but found {address!r}; correct it.")
    return host, int(port)


def _silence_of(host: str, port: int) -> str:
    """Why no Ray answers there; empty if one does."""
    try:
        with closing(socket.create_connection((host.strip("[]"), port), timeout=PROBE_S)) as connection:
            if os.environ.get("RAY_USE_TLS") == "1":  # speaks only after a handshake that Ray itself must make
                return ""
            connection.sendall(_HTTP2_HELLO)
            answer = connection.recv(9, socket.MSG_WAITALL)
    except OSError as error:
        return f"there is no answer ({error.strerror or error})"
    is_settings_frame = len(answer) == 9 and answer[3] == 4
    return "" if is_settings_frame else "what answers there is not Ray"


class RayPool:
    """Ray actors with one CPU each. Dead ones are replaced and their items tried again; see `schedule.py`.

    A Ray that this process has already joined is used and left as it is.
    """

    def __init__(self, workers: int, address: str = "local") -> None:
        self._workers = workers
        self._started = _connect(address, workers)
        self._crew: _RayCrew | None = None
        self._schedule: Schedule | None = None

    def share(self, build: Build, payload: Any) -> None:
        if self._crew is not None:
            self._crew.stop()
        self._crew = _RayCrew(self._workers, build, payload)
        self._schedule = Schedule(self._crew, self._workers)

    def map(self, function: Function, items: Sequence[Any], finished: Notify = ignore) -> list[Any]:
        if self._schedule is None:
            self.share(_as_it_is, None)
        assert self._schedule is not None
        return self._schedule.run(function, items, finished)

    def close(self) -> None:
        import ray

        if self._crew is not None:
            self._crew.stop()
        if self._started:
            ray.shutdown()


def _as_it_is(payload: Any) -> Any:
    return payload


def _connect(address: str, workers: int) -> bool:
    """Join the cluster, or start one for `local`; whether this call did it (and not an earlier owner)."""
    if address != "local":
        check_address(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # leaves CUDA_VISIBLE_DEVICES alone, as Ray will by default
    import ray
    from ray.exceptions import RayError

    if ray.is_initialized():
        _require_joined(address, ray.get_runtime_context().gcs_address)
        return False
    own = {"num_cpus": workers, "include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, logging_level="error", log_to_driver=False, **own)
    except (RayError, ConnectionError, ValueError, RuntimeError) as error:
        raise ClusterError(
            f"Ray must accept this driver at {address}, but does not ({_first_line(error)}); "
            "use the cluster's versions of Ray and Python and its token (RAY_AUTH_MODE=token, ~/.ray/auth_token)."
        ) from error
    return True


def _require_joined(address: str, joined: str) -> None:
    """One process can be in one cluster; hosts go by many names, so ports are compared."""
    if address != "local" and _host_and_port(address)[1] != _host_and_port(joined)[1]:
        raise ClusterError(
            f"A search at {address} must not find another Ray in its process, but this one has joined {joined}; "
            "call ray.shutdown() first or give that address."
        )


class _Worker:
    """What runs in an actor."""

    def __init__(self, made_of: tuple[Build, Any]) -> None:
        build, payload = made_of
        self._state = build(payload)

    def version(self) -> str:
        return VERSION

    def call(self, function: Function, item: Any) -> Any:
        return function(self._state, item)


class _RayCrew:
    """Actors by number, and what each is asked."""

    def __init__(self, workers: int, build: Build, payload: Any) -> None:
        import ray

        self._ray = ray
        # owned by the driver, so that no dead node can take the only copy with it
        self._made_of = ray.put((build, payload))
        self._actor = ray.remote(num_cpus=1)(_Worker)
        self._actors: dict[int, Any] = {}
        self._asked: dict[Any, tuple[int, bool]] = {}
        for worker in range(workers):
            self.replace(worker)

    def replace(self, worker: int) -> None:
        self._actors[worker] = self._actor.remote(self._made_of)
        self._asked[self._actors[worker].version.remote()] = (worker, True)

    def start(self, worker: int, function: Function, item: Any) -> None:
        self._asked[self._actors[worker].call.remote(function, item)] = (worker, False)

    def wait(self, timeout_s: float) -> Event | None:
        done, _ = self._ray.wait(list(self._asked), num_returns=1, timeout=timeout_s)
        if not done:
            return None
        worker, is_start = self._asked.pop(done[0])
        try:
            answer = self._ray.get(done[0])
        except self._ray.exceptions.RayTaskError as error:
            return Failed(worker=worker, error=error.cause if isinstance(error.cause, Exception) else error)
        except self._ray.exceptions.RayError as error:
            return Died(worker=worker, reason=_last_line(error))
        if is_start:
            _require_version(answer)
            return Ready(worker=worker)
        return Finished(worker=worker, result=answer)

    def now(self) -> float:
        return time.monotonic()

    def stop(self) -> None:
        for actor in self._actors.values():
            self._ray.kill(actor)


def _require_version(found: str) -> None:
    if found != VERSION:
        raise ClusterError(
            f"All nodes must run hwsearch {VERSION} as this driver does, but a worker has {found}; install the same version."
        )


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _last_line(error: BaseException) -> str:
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
