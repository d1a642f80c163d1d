"""Producers, relays, PostgreSQL and Redis killed at random: work arrives if its order is there."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from dispatchers.outbox import schema
from dispatchers.testing.servers import PrivateServer, RedisServer

from .soaking import LANES, Actor, drained, in_rq

PRODUCER = """
import sys, time
import psycopg
from dispatchers import DispatchRequest
from dispatchers._models.envelope import encode
from dispatchers.outbox import NewRow, insertion

url, number = sys.argv[1], int(sys.argv[2])

def order(connection):
    headers = {"lane": f"lane-{number % 3}"}
    request = DispatchRequest(task="t", payload={"n": number}, headers=headers)
    row = NewRow.of(request, encode(request), "broker", headers["lane"])
    connection.execute("INSERT INTO orders VALUES (%s)", [number])
    for sql, values in insertion("postgresql", [row]):
        connection.execute(sql.replace("?", "%s"), values)
    if number % 7 == 0:
        raise psycopg.Rollback

while True:
    try:
        with psycopg.connect(url, connect_timeout=2) as connection:
            while True:
                with connection.transaction():
                    order(connection)
                print(number, "rolled" if number % 7 == 0 else "committed", flush=True)
                number += 1
                time.sleep(0.002)
    except psycopg.Error:
        # Maybe committed: this number is not used again.
        print(number, "lost", flush=True)
        number += 1
        time.sleep(0.02)
"""
RELAY = """
import sys
from dispatchers import build
from dispatchers.forwarding import Forwarder
from dispatchers.outbox import OutboxRows, PostgresStore

url, redis, queue = sys.argv[1:]
breaker = {"failures": 2, "reset": 0.1}
broker = build("rq", alias="broker", url=redis, queue=queue, deadline=1.0, breaker=breaker)
rows = OutboxRows(PostgresStore(url), "broker", lease=0.3)
print("up", flush=True)
forwarder = Forwarder(rows, broker)
with rows.watched(forwarder.wake):
    forwarder.run(lambda: False)
"""


class PostgresServer(PrivateServer):
    """A private PostgreSQL, of the user `postgres` where this is root, whom it refuses."""

    kind = "postgresql"

    @property
    def url(self) -> str:
        return f"postgresql://postgres@{self.host}:{self.port}/postgres"

    def make(self) -> None:
        """Make its folder."""
        if os.geteuid() == 0:
            # Not below TMPDIR, which may be root's alone.
            self.folder.rmdir()
            self.folder = Path(tempfile.mkdtemp(prefix="dispatchers-postgresql-", dir="/tmp"))
            shutil.chown(self.folder, "postgres")
        command = [self._beside("initdb"), "-D", self._data, "-A", "trust", "-U", "postgres"]
        subprocess.run(
            [*self._as_user(), *command, "--no-sync"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
        )

    def answers(self) -> bool:
        import psycopg

        try:
            with psycopg.connect(self.url, connect_timeout=2) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _program(self) -> str:
        return self._beside("postgres")

    def _beside(self, name: str) -> str:
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"needs {name} of PostgreSQL")
        return found

    def _as_user(self) -> Sequence[str]:
        if os.geteuid():
            return ()
        return ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")

    def _command(self) -> Sequence[str]:
        # What is killed here are processes, which files outlive that were not synchronised.
        settings = {"port": self.port, "unix_socket_directories": "", "fsync": "off"}
        given = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [*self._as_user(), self.program, "-D", self._data, *given]


class Site:
    """A producer, a relay and two servers, one of which is killed now and then."""

    def __init__(self, folder: Path, database: PostgresServer, redis: RedisServer) -> None:
        self.database, self.redis, self.queue = database, redis, f"soak-{uuid4().hex}"
        self.producer = Actor(folder, PRODUCER, database.url)
        self.relay = Actor(folder, RELAY, database.url, redis.url, self.queue)
        self.killed: Counter[str] = Counter()

    def query(self, sql: str) -> list[Any]:
        import psycopg

        with psycopg.connect(self.database.url, autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        for statement in [*schema("postgresql"), "CREATE TABLE orders (number INTEGER)"]:
            self.query(statement)
        self.producer.start("1")
        self.relay.start()

    def kill(self, chance: random.Random, *names: str) -> None:
        """Kill one of the four, and start it again."""
        name = chance.choice(names or ["producer", "relay", "redis", "database"])
        self.killed[name] += 1
        if name == "relay":
            self.relay.kill()
            self.relay.start()
        elif name == "producer":
            self.producer.kill()
            # One more than was said may have been committed.
            self.producer.start(str(int(self.producer.said[-1][0]) + 2))
        else:
            self._kill(self.redis if name == "redis" else self.database, chance)

    def _kill(self, server: PrivateServer, chance: random.Random) -> None:
        server.kill()
        time.sleep(chance.random() * 0.5)
        while chance.random() < 0.5:
            self.kill(chance, "producer", "relay")
        server.start()
        time.sleep(chance.random() * 0.2)
        self.kill(chance, "producer", "relay")

    def end(self) -> None:
        self.producer.kill()
        drained(lambda: self.query("SELECT count(*) FROM dispatchers_outbox")[0][0])
        self.relay.kill()


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(8, marks=pytest.mark.slow),
        pytest.param(300, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ],
)
def test_work_arrives_once_if_its_order_is_there(
    tmp_path: Path, kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """F6 to F8: over random `kill -9` of producer, relay, database and broker; O1 to O3."""
    pytest.importorskip("rq")
    pytest.importorskip("psycopg")
    chance, database = random.Random(kills), PostgresServer()
    database.make()
    with database, RedisServer() as redis:
        site = Site(tmp_path, database, redis)
        try:
            site.start()
            while site.killed.total() < kills:
                time.sleep(chance.random() * 0.5)
                site.kill(chance)
            site.end()
        finally:
            site.producer.kill()
            site.relay.kill()
        orders = [number for (number,) in site.query("SELECT number FROM orders")]
        arrived = in_rq(redis.port, site.queue)

    with capsys.disabled():
        print(f"\n{dict(site.killed)}; {len(orders)} orders, {len(arrived)} came")
    said = {state: _numbers(site.producer, state) for state in ("committed", "rolled")}
    assert said["committed"] <= set(orders), "PostgreSQL has lost a commit"
    assert set(orders) - set(arrived) == set(), "lost"
    assert set(arrived) - set(orders) == set(), "came without its order"
    assert len(set(arrived)) == len(arrived), "twice, although the queue knows the id"
    assert not said["rolled"] & set(arrived), "came although its order was rolled back"
    for lane in range(LANES):
        of_lane = [n for n in arrived if n % LANES == lane]
        assert of_lane == sorted(of_lane), f"lane {lane} out of order"


def _numbers(producer: Actor, state: str) -> set[int]:
    return {int(number) for number, word in producer.said if word == state}
