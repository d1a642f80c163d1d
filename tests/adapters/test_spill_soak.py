"""Producers, relays and their Redis killed at random: nothing is lost, order is kept."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from dispatchers import DispatchRequest, build
from dispatchers.backends.spill import SpillDispatcher
from dispatchers.testing.servers import RedisServer

from .soaking import Actor, drained, in_rq, judge

# A lease shorter than what can be configured: else each kill costs a second in which nothing moves.
OPENED = """
import sys, time
from dispatchers import DispatchRequest, build
from dispatchers.backends.spill import SpillDispatcher
folder, url, queue, *more = sys.argv[1:]
breaker = {"failures": 2, "reset": 0.1}
broker = build("rq", alias="broker", url=url, queue=queue, deadline=1.0, breaker=breaker)
spill = SpillDispatcher(to=broker, path=folder + "/spill.db")
spill.held.lease = 0.3
"""
PRODUCER = (
    OPENED
    + """
number = int(more[0])
while True:
    headers = {"lane": f"lane-{number % 3}"}
    response = spill.dispatch(DispatchRequest(task="t", payload={"n": number}, headers=headers))
    print(number, response.status.value, flush=True)
    number += 1
    time.sleep(0.002)
"""
)
RELAY = OPENED + "print('up', flush=True)\nspill.forwarder.run(lambda: False)\n"
TAKEN = ("accepted", "deferred", "duplicate")


class Site:
    """A producer, a relay and a Redis, one of which is killed now and then."""

    def __init__(self, folder: Path, server: RedisServer) -> None:
        self.folder, self.server, self.queue = folder, server, f"soak-{uuid4().hex}"
        given = (str(folder), server.url, self.queue)
        self.producer, self.relay = Actor(folder, PRODUCER, *given), Actor(folder, RELAY, *given)
        self.spill = self._spill()
        self.killed: Counter[str] = Counter()
        self.amid = 0
        """The kills while something was held."""

    def _spill(self) -> SpillDispatcher:
        broker = build("rq", alias="broker", url=self.server.url, queue=self.queue)
        return SpillDispatcher(to=broker, path=str(self.folder / "spill.db"))

    @property
    def held(self) -> int:
        return self.spill.held.totals(timeout=30)[0]

    def start(self) -> None:
        self.producer.start("0")
        self.relay.start()

    @property
    def kills(self) -> int:
        return self.killed.total()

    def kill(self, chance: random.Random, *names: str) -> None:
        """Kill one of the three, and start it again."""
        name = chance.choice(names or ["producer", "relay", "broker"])
        self.killed[name] += 1
        self.amid += self.held > 0
        if name == "broker":
            self.server.kill()
            time.sleep(chance.random() * 0.5)
            # As often while there is something to hand over as when all is handed over.
            while chance.random() < 0.5:
                self.kill(chance, "producer", "relay")
            self.server.start()
            time.sleep(chance.random() * 0.2)
            self.kill(chance, "producer", "relay")
        elif name == "relay":
            self.relay.kill()
            self.relay.start()
        else:
            self.producer.kill()
            # One more than was said may have been dispatched.
            self.producer.start(str(int(self.producer.said[-1][0]) + 2))

    def end(self) -> tuple[list[int], list[int]]:
        """Hand over what is left; return the numbers that were taken, and that arrived."""
        self.producer.kill()
        drained(lambda: self.held)
        self.relay.kill()
        to: Any = self.spill.to
        self.spill.close(5)
        to.close(5)
        taken = [int(number) for number, status in self.producer.said if status in TAKEN]
        return taken, in_rq(self.server.port, self.queue)


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(8, marks=pytest.mark.slow),
        pytest.param(300, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ],
)
def test_nothing_is_lost_and_lanes_keep_their_order(
    tmp_path: Path, kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """F7, F8: over random `kill -9` of producer, relay and broker."""
    pytest.importorskip("rq")
    chance = random.Random(kills)
    with RedisServer() as server:
        site = Site(tmp_path, server)
        try:
            site.start()
            while site.kills < kills:
                time.sleep(chance.random() * 0.5)
                site.kill(chance)
            taken, arrived = site.end()
        finally:
            site.producer.kill()
            site.relay.kill()

    with capsys.disabled():
        print(f"\n{dict(site.killed)}, {site.amid} amid; {len(taken)} taken, {len(arrived)} came")
    judge(taken, arrived)


MANY = 100_000
OF_MANY = [f"lane-{n}" for n in range(100)]


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_what_came_while_the_broker_was_down_leaves_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """O4: 100,000 pieces of work, in their lanes, none lost and none twice."""
    pytest.importorskip("rq")
    with RedisServer() as server:
        site = Site(tmp_path, server)
        server.stop()
        numbers = _held_by(site.spill)
        held = site.held
        server.start()
        begun = time.monotonic()
        site.spill.forwarder.wake()
        drained(lambda: site.held)
        took = time.monotonic() - begun
        arrived = in_rq(server.port, site.queue)

    with capsys.disabled():
        print(f"\n{held} held, drained in {took:.1f} s")
    assert held == len(numbers) == MANY
    assert sorted(arrived) == numbers
    for lane in range(len(OF_MANY)):
        of_lane = [n for n in arrived if n % len(OF_MANY) == lane]
        assert of_lane == sorted(of_lane), f"lane {lane} out of order"


def _held_by(spill: SpillDispatcher) -> list[int]:
    """Dispatch while the broker is down; return the numbers of what was kept."""
    kept: list[int] = []
    for first in range(0, MANY, 1000):
        numbers = range(first, first + 1000)
        requests = [
            DispatchRequest(task="t", payload={"n": n}, headers={"lane": OF_MANY[n % len(OF_MANY)]})
            for n in numbers
        ]
        answers = spill.dispatch_many(requests)
        kept += [n for n, each in zip(numbers, answers, strict=True) if each.status == "deferred"]
    return kept
