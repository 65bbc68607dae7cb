"""Pools: one contract for all, and what only Ray can do wrong."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hwsearch.errors import ClusterError, SpaceError
from hwsearch.study import pool as pools
from hwsearch.study.pool import InProcessPool, Pool, RayPool, SimulatedPool, check_address, open_pool


@pytest.fixture(params=["in process", "simulated", pytest.param("ray", marks=pytest.mark.slow)])
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    if request.param == "ray":
        request.getfixturevalue("ray_of_four")
        made: Pool = RayPool(2)
    else:
        made = InProcessPool() if request.param == "in process" else SimulatedPool(2)
    with closing(made):
        yield made


# Functions are nested, so that they travel to Ray's workers, which cannot import a test.
class TestEveryPool:
    def test_it_applies_functions_to_the_shared_state_in_order(self, pool: Pool) -> None:
        def build(payload: int) -> dict[str, int]:
            return {"offset": payload}

        def add(state: dict[str, int], item: int) -> int:
            return state["offset"] + item

        pool.share(build, 100)
        assert pool.map(add, [1, 2, 3, 4, 5]) == [101, 102, 103, 104, 105]
        assert pool.map(add, [7]) == [107]

    def test_it_reports_each_result_once(self, pool: Pool) -> None:
        seen: dict[int, int] = {}

        def double(state: Any, item: int) -> int:
            return 2 * item

        def notice(index: int, result: int) -> None:
            assert index not in seen
            seen[index] = result

        pool.share(lambda payload: payload, None)
        pool.map(double, [5, 6, 7], notice)
        assert seen == {0: 10, 1: 12, 2: 14}

    def test_it_raises_the_functions_own_error(self, pool: Pool) -> None:
        def refuse(state: Any, item: int) -> int:
            raise SpaceError(f"{item} is refused")

        pool.share(lambda payload: payload, None)
        with pytest.raises(SpaceError, match=r"^1 is refused"):
            pool.map(refuse, [1])

    def test_no_items_give_no_results(self, pool: Pool) -> None:
        pool.share(lambda payload: payload, None)
        assert pool.map(lambda state, item: item, []) == []


@pytest.mark.slow
@pytest.mark.usefixtures("ray_of_four")
class TestRay:
    def test_a_killed_workers_item_is_tried_again(self, tmp_path: Path) -> None:
        mark = str(tmp_path / "killed")

        def die_once(state: Any, item: int) -> int:
            if item == 2 and not os.path.exists(mark):
                open(mark, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return item * 10

        with closing(RayPool(2)) as pool:
            pool.share(lambda payload: payload, None)
            assert pool.map(die_once, [0, 1, 2, 3, 4]) == [0, 10, 20, 30, 40]
        assert os.path.exists(mark)

    def test_workers_that_cannot_start_are_an_error_in_words(self) -> None:
        def build(payload: Any) -> Any:
            raise MemoryError("no room for the model")

        with closing(RayPool(1)) as pool:
            pool.share(build, None)
            with pytest.raises(
                ClusterError, match="A worker must start, but 4 in a row died: MemoryError: no room for the model"
            ):
                pool.map(lambda state, item: item, [1])


def test_one_worker_needs_no_ray() -> None:
    assert isinstance(open_pool(1), InProcessPool)


class TestAddress:
    def test_nobody_there_is_said_within_seconds(self) -> None:
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        began = time.perf_counter()
        with pytest.raises(
            ClusterError, match=f"A Ray cluster must answer at 127.0.0.1:{port}, but there is no answer .*ray start"
        ):
            RayPool(2, f"127.0.0.1:{port}")
        assert time.perf_counter() - began < 10

    def test_a_host_that_swallows_everything_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pools, "PROBE_S", 0.2)
        silent = pytest.raises(ClusterError, match=r"but there is no answer \(timed out\)")
        with closing(socket.create_server(("127.0.0.1", 0))) as mute, silent:
            check_address(f"127.0.0.1:{mute.getsockname()[1]}")

    @pytest.mark.parametrize(
        ("answer", "found"), [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers there is not Ray"), (b"", "not Ray")]
    )
    def test_another_service_is_recognized(self, answer: bytes, found: str) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as server:
            _answer_once(server, answer)
            with pytest.raises(ClusterError, match=found):
                check_address(f"127.0.0.1:{server.getsockname()[1]}")

    def test_a_grpc_server_passes(self) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as server:
            _answer_once(server, bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            check_address(f"127.0.0.1:{server.getsockname()[1]}")

    def test_a_cluster_others_can_reach_must_ask_for_a_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pools, "_silence_of", lambda host, port: "")
        monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
        with pytest.raises(
            ClusterError, match="must ask for a token, but RAY_AUTH_MODE is 'unset' and head is not this computer"
        ):
            check_address("head:6379")
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        check_address("head:6379")

    @pytest.mark.parametrize("address", ["head", "head:port", ":6379", "head:99999", "ray://head"])
    def test_what_is_no_address_is_refused(self, address: str) -> None:
        with pytest.raises(ClusterError, match="must be HOST:PORT or ray://HOST:PORT, but found"):
            check_address(address)

    @pytest.mark.slow
    @pytest.mark.usefixtures("ray_of_four")
    def test_a_running_cluster_passes(self) -> None:
        import ray

        port = ray.get_runtime_context().gcs_address.rpartition(":")[2]
        check_address(f"127.0.0.1:{port}")

    @pytest.mark.slow
    @pytest.mark.usefixtures("ray_of_four")
    def test_a_process_in_another_cluster_is_refused(self) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as server:
            _answer_once(server, bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            with pytest.raises(ClusterError, match="must not find another Ray in its process, but this one has joined"):
                RayPool(1, f"127.0.0.1:{server.getsockname()[1]}")


def _answer_once(server: socket.socket, answer: bytes) -> None:
    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(64)
            connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
