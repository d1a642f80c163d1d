"""`failover` and `spill` over a plain dispatch to the same Redis, in the same run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any
from uuid import uuid4

from dispatchers_rq import RQDispatcher

from dispatchers import DispatchRequest
from dispatchers._models.envelope import encode
from dispatchers.backends.failover import FailoverDispatcher
from dispatchers.backends.spill import SpillDispatcher
from dispatchers.forwarding import Step
from dispatchers.sqlite._held import NewRow
from dispatchers.testing.servers import RedisServer, free_port

from ._measure import Figure, interleaved, ratio
from .tasks import small

ROWS, MANY = 5000, 100_000
OPEN = {"failures": 1, "reset": 3600.0}
"""A breaker that opens at once and stays open."""


def _broker(url: str, alias: str, **options: Any) -> RQDispatcher:
    queue = f"bench-{uuid4().hex}"
    return RQDispatcher(url=url, queue=queue, alias=alias, deadline=30.0, **options)


def failover() -> Iterator[Figure]:
    with RedisServer(keeps="nothing") as server:
        broker = _broker(server.url, "broker")
        dead = _broker(f"redis://127.0.0.1:{free_port()}/0", "dead", breaker=OPEN)
        both = FailoverDispatcher(to=[dead, broker])
        plain, over = (small.options(dispatcher=each) for each in (broker, both))
        times = interleaved(
            lambda: plain.dispatch(number=1, text="abc"),
            lambda: over.dispatch(number=1, text="abc"),
            rounds=30,
            each=50,
        )
    case = "failover with a dead first member (breaker open) over a plain dispatch"
    yield ratio(case, 1.15, times[1], times[0])


def spill() -> Iterator[Figure]:
    with TemporaryDirectory() as folder, RedisServer(keeps="nothing") as server:
        broker = _broker(server.url, "broker")
        dead = _broker(f"redis://127.0.0.1:{free_port()}/0", "dead", breaker=OPEN)
        healthy, away = _spill(folder, "there", broker), _spill(folder, "away", dead)
        quick = _spill(folder, "quick", dead, synchronous="normal")
        calls = [small.options(dispatcher=each) for each in (broker, healthy, away, quick)]
        times = interleaved(
            *(lambda each=each: each.dispatch(number=1, text="abc") for each in calls),
            _sync(folder),
            rounds=30,
            each=20,
        )
        yield ratio("spill before a healthy broker over a plain dispatch", 1.15, times[1], times[0])
        full, normal, disk = (each * 1e3 for each in times[2:])
        case = "spill: a caller once the breaker is open"
        detail = f"{full:.3f} ms, of which the disk takes {disk:.3f} ms to synchronise"
        yield Figure(f"{case}, full sync", 1.0, full, detail, "ms")
        yield Figure(f"{case}, normal sync", 1.0, normal, f"{normal:.3f} ms", "ms")
        for lanes, limit in ((ROWS, 200.0), (100, 200.0), (1, 300.0)):
            each = _drained(healthy, ROWS, lanes) * 1e6
            case = f"spill: a held row handed over to Redis, {lanes} lanes"
            yield Figure(case, limit, each, f"{1e6 / each:,.0f} rows per second", "us")


def spill_drained() -> Iterator[Figure]:
    """O4: an hour's work, while a broker that keeps what it has was down."""
    with TemporaryDirectory() as folder, RedisServer() as server:
        made = _spill(folder, "there", _broker(server.url, "broker"))
        took = _drained(made, MANY, 100) * MANY
        case = f"spill: {MANY:,} held rows handed over to Redis with an AOF, 100 lanes"
        yield Figure(case, 30.0, took, f"{MANY / took:,.0f} rows per second", "s")


def _sync(folder: str) -> Callable[[], None]:
    """Return a write of a page that waits for the disk."""
    file = os.open(Path(folder, "page"), os.O_WRONLY | os.O_CREAT)

    def sync() -> None:
        os.write(file, b"x" * 4096)
        os.fsync(file)

    return sync


def _spill(folder: str, name: str, to: RQDispatcher, **options: Any) -> SpillDispatcher:
    path = str(Path(folder, f"{name}.sqlite3"))
    made = SpillDispatcher(to=to, path=path, alias=name, **options)
    made.forwarder.start = lambda: None  # type: ignore[method-assign] # stepped here
    return made


def _drained(spill: SpillDispatcher, count: int, lanes: int) -> float:
    """Seconds for each row that was held."""
    requests = [DispatchRequest(task=small.name, payload={"number": n}) for n in range(count)]
    rows = [
        NewRow(each.id, each.task, f"lane-{n % lanes}", encode(each), deduplicate=False)
        for n, each in enumerate(requests)
    ]
    spill.held.put(rows, timeout=60.0)
    started = perf_counter()
    while spill.forwarder.step() is not Step.EMPTY:
        pass
    return (perf_counter() - started) / count
