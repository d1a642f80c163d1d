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
    "killed. `dispatchers worker` starts one that keeps it"
)
IN_JSON = "; one of RQ's reads these jobs with `--serializer rq.serializers.JSONSerializer` only"
UNSCHEDULED = (
    "no worker or scheduler moves delayed work and retries of queue {queue!r} to its workers when "
    "they are due: start RQ's with `--with-scheduler`, or `dispatchers worker`"
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
            plain, idle = self._plain_workers(), self._unscheduled_queues()
        if tuple(int(part) for part in version.split(".")[:2]) < MIN_REDIS:
            raise ConfigurationError(
                f"{self._subject}: Redis {version} is too old for its workers: 6.2 or later is "
                "needed"
            )
        if found.refuses_writes:
            raise ConfigurationError(f"{self._subject}: {found.warnings[-1]}")
        lossy = LOSSY + (IN_JSON if self.options.serializer == "json" else "")
        return [
            *found.warnings,
            *(lossy.format(name=name) for name in plain),
            *(UNSCHEDULED.format(queue=queue) for queue in idle),
        ]

    def _plain_workers(self) -> Sequence[str]:
        """Return the workers of the configured queues that are RQ's own."""
        keys = {key for queue in self.declared for key in self._workers(queue, ours=False)}
        return sorted(key.decode().removeprefix("rq:worker:") for key in keys)

    def _unscheduled_queues(self) -> Sequence[str]:
        """Return the queues that only workers without a scheduler serve."""
        return [queue for queue in sorted(self.declared) if self._is_unscheduled(queue)]

    def _is_unscheduled(self, queue: str) -> bool:
        served = self._workers(queue, ours=False) and not self._workers(queue, ours=True)
        return bool(served) and not self.client.exists(f"rq:scheduler-lock:{queue}")

    def _workers(self, queue: str, *, ours: bool) -> Sequence[bytes]:
        """Return the keys of a queue's workers: those with a lease, or RQ's own."""
        client, keys = self.client, self.client.smembers(f"rq:workers:{queue}")
        living = (key for key in keys if client.hexists(key, "birth"))
        return [key for key in living if client.hexists(key, MARK) is ours]


def waited(enqueued: bytes, overdue: bytes, now: bytes) -> float:
    """Return the seconds that the oldest due job has waited; 0 where none waits."""
    times = [float(overdue)] if overdue else []
    with suppress(ValueError):  # none, or not in RQ's format
        times.append(float(now) - datetime.fromisoformat(enqueued.decode()).timestamp())
    return max(0.0, *times) if times else 0.0
