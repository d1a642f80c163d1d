"""The Redis of a dispatcher and its queues: for dispatcher, worker and dead letters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from typing import Any

from redis import Redis

from dispatchers import ConfigurationError, Stats, queue_stats
from dispatchers.redis import DurabilityWatch, bounded_client, durability, within
from dispatchers.stores import load_client

from ._message import MARK, queue_key
from ._options import RQOptions
from ._scripts import COUNT

MIN_REDIS = (6, 2)
"""The first Redis that has `BLMOVE`, by which idle workers wait: https://redis.io/commands/blmove"""
PREFIX = queue_key("")
LOSSY = (
    "worker {name!r} of RQ serves a queue of this dispatcher: what it runs is lost when it is "
    "killed. `dispatchers worker` starts one that keeps it; one of RQ's needs `--serializer "
    "rq.serializers.JSONSerializer`, or here serializer = 'pickle'"
)


class Broker:
    """A Redis with RQ's queues.

    Args:
        options: The dispatcher's.

        alias: The dispatcher's, for messages.

    Raises:
        ConfigurationError: The options name no Redis, or several.
    """

    def __init__(self, options: RQOptions, alias: str) -> None:
        self.options = options
        self.alias = alias
        self.place = self._place()
        try:
            # Bytes: the data of RQ's own jobs is compressed or pickled, and is no text.
            self.client: Any = bounded_client(self.place, decode_responses=False)
        except ConfigurationError as exc:
            option = "url" if options.connection is None else "connection"
            raise ConfigurationError(f"{self._subject}: {option}: {exc}") from None
        self.durability = DurabilityWatch(self.client)

    @property
    def _subject(self) -> str:
        return f"dispatcher {self.alias!r} (rq)"

    def _place(self) -> str | Redis:
        """Return the address, or the client whose settings are taken."""
        given, url = self.options.connection, self.options.url
        found: Any = load_client(self._subject, "connection", given, url, "a redis.Redis")
        return found if url is None else url  # the connection says what is wrong with it

    def own_client(self) -> Redis:
        """Return a client for RQ's own bookkeeping, which changes its settings."""
        if isinstance(self.place, str):
            # Without our bounds: RQ's workers wait longer than a dispatch may.
            return Redis.from_url(self.place)
        pool = self.place.connection_pool
        settings: dict[str, Any] = {**pool.connection_kwargs, "decode_responses": False}
        return Redis(connection_pool=type(pool)(connection_class=pool.connection_class, **settings))

    # Queues.

    @property
    def default_queue(self) -> str:
        """The queue of work that names none: RQ's own default, unless configured."""
        return self.options.queue or "default"

    @cached_property
    def declared(self) -> frozenset[str]:
        """The queues that the configuration names; others have to be there already."""
        return frozenset({self.default_queue, *self.options.queues})

    def queues(self, *, timeout: float) -> list[str]:
        """Return the configured queues; where none is, all that this Redis knows."""
        if self.options.queue or self.options.queues:
            return sorted(self.declared)
        with within(timeout):
            known = self.client.smembers("rq:queues")
        return sorted({self.default_queue, *(each.decode()[len(PREFIX) :] for each in known)})

    def stats(self, *, timeout: float) -> list[Stats]:
        """Return the figures of each queue."""
        names = self.queues(timeout=timeout)
        with within(timeout):
            replies = COUNT.run_many(self.client, [(name,) for name in names])
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        found = dict(zip(names, replies, strict=True))
        kinds = enumerate(("waiting", "running", "delayed", "dead"))
        counts = {kind: {name: each[n] for name, each in found.items()} for n, kind in kinds}
        oldest = {name: waited(*each[4:]) for name, each in found.items()}
        return queue_stats(**counts, oldest=oldest)

    # Contact.

    def probe(self, *, timeout: float) -> Iterable[str]:
        """Reach the server; return what an operator should know of it and its workers.

        Raises:
            ConfigurationError: It is too old, or takes no writes.
        """
        client = self.client
        with within(timeout):
            version = str(client.info("server")["redis_version"])
            found = durability(client)
            plain = self._plain_workers()
        if tuple(int(part) for part in version.split(".")[:2]) < MIN_REDIS:
            raise ConfigurationError(
                f"{self._subject}: Redis {version} is too old for its workers: 6.2 or later is "
                "needed"
            )
        if found.refuses_writes:
            raise ConfigurationError(f"{self._subject}: {found.warnings[-1]}")
        return [*found.warnings, *(LOSSY.format(name=name) for name in plain)]

    def _plain_workers(self) -> Sequence[str]:
        """Return the workers of the configured queues that are RQ's own."""
        client = self.client
        sets = [client.smembers(f"rq:workers:{queue}") for queue in sorted(self.declared)]
        keys = {key for each in sets for key in each}
        found = (k for k in keys if client.hexists(k, "birth") and not client.hexists(k, MARK))
        return sorted(key.decode().removeprefix("rq:worker:") for key in found)


def waited(enqueued: bytes, overdue: bytes, now: bytes) -> float:
    """Return the seconds that the oldest due job has waited; 0 where none waits."""
    times = [float(overdue)] if overdue else []
    with suppress(ValueError):  # none, or not in RQ's format
        times.append(float(now) - datetime.fromisoformat(enqueued.decode()).timestamp())
    return max(0.0, *times) if times else 0.0
