"""Producers, forwarders and their Redis killed at random: nothing is lost, order is kept."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from dispatchers import DispatchRequest, build
from dispatchers.backends.spill import SpillDispatcher
from dispatchers.testing import processes
from dispatchers.testing.servers import RedisServer

LANES = 3
PRODUCER = """
import sys
from dispatchers import DispatchRequest, build
from dispatchers.backends.spill import SpillDispatcher
folder, url, queue, first = sys.argv[1:]
breaker = {"failures": 2, "reset": 0.1}
broker = build("rq", alias="broker", url=url, queue=queue, deadline=1.0, breaker=breaker)
spill = SpillDispatcher(to=broker, path=folder + "/spill.db", lease=1)
number = int(first)
while True:
    headers = {"lane": f"lane-{number % 3}"}
    response = spill.dispatch(DispatchRequest(task="t", payload={"n": number}, headers=headers))
    print(number, response.status.value, flush=True)
    number += 1
"""


class Producer:
    """A process that dispatches numbers and says what became of each."""

    def __init__(self, folder: Path, server: RedisServer, queue: str, first: int) -> None:
        self.said: list[tuple[int, str]] = []
        self._out = folder / f"said-{first}-{uuid4().hex}"
        command = [sys.executable, "-c", PRODUCER, str(folder), server.url, queue, str(first)]
        with self._out.open("wb") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)

    def kill(self) -> list[tuple[int, str]]:
        """End it by `kill -9`; return what it has said."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        # The last line may be cut: what was not said is not counted.
        lines = self._out.read_text().rpartition("\n")[0].splitlines()
        return [(int(number), status) for number, status in (line.split() for line in lines)]

    @property
    def has_begun(self) -> bool:
        return self._out.stat().st_size > 0


@contextmanager
def stopped(server: RedisServer, chance: random.Random) -> Iterator[None]:
    """Kill the server for a moment, or leave it."""
    kills = chance.random() < 0.5
    if kills:
        server.kill()
    yield
    if kills:
        server.start()


@pytest.mark.parametrize(
    "kills",
    [pytest.param(6, marks=pytest.mark.slow), pytest.param(300, marks=pytest.mark.soak)],
)
def test_nothing_is_lost_and_lanes_keep_their_order(tmp_path: Path, kills: int) -> None:
    """F7, F8: over random `kill -9` of producer, forwarder and broker."""
    pytest.importorskip("rq")
    chance, queue = random.Random(kills), f"soak-{uuid4().hex}"
    said: list[tuple[int, str]] = []
    with RedisServer() as server:
        for _ in range(kills):
            producer = Producer(tmp_path, server, queue, said[-1][0] + 2 if said else 0)
            processes.wait_until(lambda p=producer: p.has_begun, "no producer begins")
            with stopped(server, chance):
                time.sleep(chance.random() * 0.5)
                # As often while the server is away as when it is back, and all is handed over.
                if chance.random() < 0.5:
                    said += producer.kill()
                    producer = None  # type: ignore[assignment]
            if producer is not None:
                time.sleep(chance.random() * 0.5)
                said += producer.kill()
        _drain(tmp_path, server, queue)
        arrived = _arrived(server, queue)
    taken = [number for number, status in said if status in ("accepted", "deferred", "duplicate")]
    _judge(taken, arrived)


def _drain(folder: Path, server: RedisServer, queue: str) -> None:
    broker = build("rq", alias="broker", url=server.url, queue=queue)
    spill = SpillDispatcher(to=broker, path=str(folder / "spill.db"), lease=1)
    spill.forwarder.start()
    processes.wait_until(lambda: spill.held.is_empty(), "what is held does not leave")
    spill.close(5)
    broker.close(1)


def _arrived(server: RedisServer, queue: str) -> list[int]:
    from dispatchers_rq._message import body_of
    from redis import Redis

    with Redis(port=server.port) as client:
        ids = client.lrange(f"rq:queue:{queue}", 0, -1)
        jobs: list[Any] = [client.hgetall(f"rq:job:{each.decode()}") for each in ids]
    requests = [DispatchRequest.model_validate_json(body_of(job)) for job in jobs]
    return [int(each.payload["n"]) for each in requests]


def _judge(taken: list[int], arrived: list[int]) -> None:
    assert len(taken) > LANES
    assert set(taken) - set(arrived) == set(), "lost"
    assert len(set(arrived)) == len(arrived), "twice, although the queue knows the id"
    certain = set(taken)
    for lane in range(LANES):
        numbers = [n for n in arrived if n % LANES == lane and n in certain]
        assert numbers == sorted(numbers), f"lane {lane} out of order"
