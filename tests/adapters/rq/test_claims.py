"""Claims on jobs that are moved to another backend."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dispatchers import DispatchRequest
from dispatchers.testing import processes

from .harness import Place


@pytest.fixture
def place(shared_redis: str, tmp_path: Path) -> Iterator[Place]:
    found = Place(shared_redis, tmp_path, lease=1.0)
    yield found
    found.close()


def claims(place: Place) -> Any:
    return place.dispatcher._moving(None)


def put(place: Place, **options: Any) -> str:
    request = DispatchRequest(task="rq_tests.note", **options)
    assert place.dispatcher.dispatch(request).ok
    return request.id


def test_scheduled_work_of_a_killed_move_is_scheduled_again(place: Place) -> None:
    """O16: it is not run before its time, although observers see a job that is with a worker."""
    id_ = put(place, delay=timedelta(hours=1))
    client, scheduled = place.dispatcher.broker.client, f"rq:scheduled:{place.queue}"
    due = client.zscore(scheduled, id_)
    (claimed,) = claims(place).claim(10)
    before = (client.zcard(scheduled), place.status(id_))
    observer = claims(place)

    processes.wait_until(lambda: observer.renew() and client.zcard(scheduled) == 1, "it is lost")

    assert before == (0, "queued")
    assert claimed.due == due
    assert (client.zscore(scheduled, id_), place.status(id_)) == (due, "scheduled")


def test_what_was_moved_leaves_nothing(place: Place) -> None:
    """Job and key are gone, so that the same work may be moved back."""
    put(place, idempotency_key="k")
    client, mine = place.dispatcher.broker.client, claims(place)
    found = mine.claim(10)

    mine.settle(found, ())

    (stats,) = place.dispatcher.stats()
    assert (stats.waiting, stats.running) == (0, 0)
    assert not client.exists(f"rq:job:{found[0].handle[1]}")
    assert place.dispatcher.dispatch(DispatchRequest(task="t", idempotency_key="k")).ok


def test_a_lost_lease_is_told_and_settles_nothing(place: Place) -> None:
    """What has gone back to the workers is theirs."""
    id_ = put(place)
    client, mine = place.dispatcher.broker.client, claims(place)
    found = mine.claim(10)
    client.hset(f"rq:dispatchers:leases:{place.queue}", id_, "another:0")

    alive = mine.renew()
    mine.settle(found, ())

    assert not alive
    assert client.exists(f"rq:job:{id_}")
    assert mine.renew()
