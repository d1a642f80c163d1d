"""A queue of RQ's, stepped job by job as our workers take and settle them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

from dispatchers_rq import RQDispatcher
from dispatchers_rq._letters import FailedJobs
from dispatchers_rq._message import body_of
from dispatchers_rq._runs import run_taken
from dispatchers_rq._taken import Leases, Taken
from redis import Redis

from dispatchers.testing import Harness

__all__ = ["RQHarness", "forget"]


def forget(client: Any, *queues: str) -> None:
    """Leave nothing of these queues in a server that others use."""
    for queue in queues:
        places = [f"rq:{kind}:{queue}" for kind in ("scheduled", "failed", "finished", "wip")]
        ids = client.lrange(f"rq:queue:{queue}", 0, -1)
        for place in places:
            ids += client.zrange(place, 0, -1)
        ids += client.hkeys(f"rq:dispatchers:leases:{queue}")
        jobs = [b"rq:job:" + number.partition(b":")[0] for number in ids]
        jobs += [b"rq:results:" + job[len(b"rq:job:") :] for job in jobs]
        keys = [key for job in jobs[: len(ids)] if (key := client.hget(job, "dispatchers_key"))]
        client.delete(f"rq:queue:{queue}", f"rq:dispatchers:leases:{queue}", *places, *jobs, *keys)
        client.srem("rq:queues", f"rq:queue:{queue}")
        if workers := client.smembers(f"rq:workers:{queue}"):
            client.srem("rq:workers", *workers)
            client.delete(f"rq:workers:{queue}", *workers)


class RQHarness(Harness):
    """One queue."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.queue = f"conformance-{uuid4().hex}"
        self.client: Any = Redis.from_url(url)

    def make_dispatcher(self, **options: Any) -> RQDispatcher:
        return RQDispatcher(**{"url": self.url, "queue": self.queue, **options})

    @property
    def upstream(self) -> tuple[str, int]:
        settings = self.client.connection_pool.connection_kwargs
        return settings.get("host", "localhost"), settings.get("port", 6379)

    def connect(self, host: str, port: int, **options: Any) -> RQDispatcher:
        place = self.url.partition("@")[2] or self.url.partition("://")[2]
        url = self.url.replace(place.partition("/")[0], f"{host}:{port}")
        return self.make_dispatcher(**{"url": url, **options})

    def received(self, dispatcher: Any) -> list[bytes]:
        ids = self.client.lrange(f"rq:queue:{self.queue}", 0, -1)
        ids += self.client.zrange(f"rq:scheduled:{self.queue}", 0, -1)
        ids += self.client.hkeys(f"rq:dispatchers:leases:{self.queue}")
        return [body_of(self.client.hgetall(b"rq:job:" + number)) for number in ids]

    def _leases(self, dispatcher: Any) -> Leases:
        return Leases(dispatcher.link, dispatcher.options)

    def run_next(self, dispatcher: Any) -> object:
        leases = self._leases(dispatcher)
        taken = leases.take([self.queue], "conformance")
        if not isinstance(taken, Taken):
            return None
        return run_taken(taken, leases, dispatcher, bool)

    def dead(self, dispatcher: Any) -> list[bytes]:
        return [letter.body for letter in FailedJobs(dispatcher).list()]

    def crash(self, dispatcher: Any) -> None:
        """The worker is gone, and another one has waited for the length of the lease."""
        leases = self._leases(dispatcher)
        taken = leases.take([self.queue], "conformance")
        assert isinstance(taken, Taken)
        leases._reap(self.queue, taken.id.encode(), f"{taken.token}:0".encode())

    def close(self) -> None:
        forget(self.client, self.queue)
        self.client.close()
