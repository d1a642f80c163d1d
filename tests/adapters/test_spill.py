"""`spill` before a real Redis that is stopped, cut off and killed (F7, F8, F10; O3 to O5, O11)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest

from dispatchers import DispatchRequest, DispatchStatus, build
from dispatchers.backends.spill import SpillDispatcher
from dispatchers.testing import FaultProxy, processes
from dispatchers.testing.servers import RabbitMQServer, RedisServer

DEADLINE = 0.8
GRACE = 0.25
LATE = 1.0
"""Seconds that this machine may be late by itself."""


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    pytest.importorskip("rq")
    with RedisServer() as server:
        yield server


class Site:
    """A spill before a queue of its own in a Redis."""

    def __init__(self, folder: Path, url: str, server: RedisServer, **options: Any) -> None:
        self.queue = f"spill-{uuid4().hex}"
        self.server = server
        breaker = {"failures": 2, "reset": 0.2}
        self.broker: Any = build(
            "rq", alias="broker", url=url, queue=self.queue, deadline=DEADLINE, breaker=breaker
        )
        self.spill = SpillDispatcher(to=self.broker, path=str(folder / "spill.db"), **options)

    def dispatch(self, number: int) -> Any:
        return self.spill.dispatch(DispatchRequest(task="t", payload={"n": number}))

    def arrived(self) -> list[int]:
        """The numbers of what the queue holds, in its order."""
        from redis import Redis

        with Redis(port=self.server.port) as client:
            ids = client.lrange(f"rq:queue:{self.queue}", 0, -1)
            bodies = [client.hgetall(f"rq:job:{each.decode()}") for each in ids]
        return [_number(each) for each in bodies]

    @property
    def held(self) -> int:
        return self.spill.held.totals(timeout=5)[0]

    def close(self) -> None:
        self.spill.close(5)
        self.broker.close(1)


def _number(job: dict[bytes, bytes]) -> int:
    from dispatchers_rq._message import body_of

    return int(DispatchRequest.model_validate_json(body_of(job)).payload["n"])


def test_a_stopped_broker_gets_all_of_it_in_order_when_it_is_back(tmp_path, redis):
    """F7, F8, F10, O4: by itself, each piece once."""
    site = Site(tmp_path, redis.url, redis)
    before = site.dispatch(0)
    redis.stop()
    during = [site.dispatch(n) for n in range(1, 101)]
    held = site.held
    redis.start()
    processes.wait_until(lambda: site.held == 0, "what was held does not leave")

    assert before.dispatcher == "broker"
    assert {each.status for each in during} == {DispatchStatus.DEFERRED}
    assert held == 100
    assert site.arrived() == list(range(101))
    site.close()


@pytest.mark.slow
def test_a_stopped_rabbitmq_gets_all_of_it_in_order_when_it_is_back(tmp_path):
    """F7, F8, F10, O4: a single lane, of which only the first piece is tried meanwhile."""
    pytest.importorskip("celery")
    from kombu import Connection

    with RabbitMQServer() as server:
        queue = f"spill-{uuid4().hex}"
        breaker = {"failures": 1, "reset": 0.2}
        broker: Any = build(
            "celery", alias="broker", url=server.url, queue=queue, deadline=10.0, breaker=breaker
        )
        spill = SpillDispatcher(to=broker, path=str(tmp_path / "spill.db"))
        requests = [DispatchRequest(task="t", payload={"n": n}) for n in range(21)]
        before = spill.dispatch(requests[0])
        server.stop()
        during = [spill.dispatch(each) for each in requests[1:]]
        server.start()
        processes.wait_until(
            lambda: spill.held.totals(timeout=5)[0] == 0, "what was held does not leave"
        )
        with Connection(server.url) as connection:
            channel = connection.channel()
            found = [channel.basic_get(queue, no_ack=True) for _ in requests]
        spill.close(5)
        broker.close(1)

    assert before.dispatcher == "broker"
    assert {each.status for each in during} == {DispatchStatus.DEFERRED}
    assert [each.properties["correlation_id"] for each in found] == [r.id for r in requests]


def test_a_black_hole_is_paid_for_until_the_breaker_opens(tmp_path, redis):
    """F2, O5: then the file alone is waited for, and nothing is lost."""
    with FaultProxy(redis.host, redis.port) as proxy:
        site = Site(tmp_path, f"redis://127.0.0.1:{proxy.port}/0", redis)
        proxy.black_hole(accept=False)
        took = []
        for n in range(5):
            started = monotonic()
            assert site.dispatch(n).status is DispatchStatus.DEFERRED
            took.append(monotonic() - started)
        proxy.heal()
        processes.wait_until(lambda: site.held == 0, "what was held does not leave")

        assert max(took) <= DEADLINE + GRACE + LATE
        assert site.arrived() == list(range(5))
        site.close()


CHILD = """
import sys
from dispatchers import DispatchRequest, build
from dispatchers.backends.spill import SpillDispatcher
folder, url, queue = sys.argv[1:]
broker = build("rq", alias="broker", url=url, queue=queue, deadline=0.8, breaker={"reset": 0.1})
spill = SpillDispatcher(to=broker, path=folder + "/spill.db", lease=1)
for n in range(200):
    assert spill.dispatch(DispatchRequest(task="t", payload={"n": n})).status == "deferred"
print("kept", flush=True)
spill.forwarder._batch = 7  # many steps, of which one is killed
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_process_killed_amid_its_hand_over_leaves_the_rest_to_another(tmp_path, redis):
    """O3, O11: each piece arrives, at most repeated under its id, and in order."""
    site = Site(tmp_path, redis.url, redis, lease=1)
    redis.stop()
    command = [sys.executable, "-c", CHILD, str(tmp_path), redis.url, site.queue]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"kept\n"
        redis.start()
        processes.wait_until(lambda: len(site.arrived()) > 10, "nothing is handed over")
        os.kill(child.pid, signal.SIGKILL)
    left = site.held
    site.spill.forwarder.start()
    processes.wait_until(lambda: site.held == 0, "no other process takes over")

    arrived = site.arrived()
    assert left > 0
    assert list(dict.fromkeys(arrived)) == list(range(200))
    site.close()
