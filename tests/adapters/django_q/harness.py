"""A cluster of django-q2's, stepped by its own worker and monitor, in this process."""

from __future__ import annotations

import ast
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing import Value
from queue import Queue
from typing import Any
from uuid import uuid4

from dispatchers_django_q import DjangoQDispatcher
from django.conf import settings
from django.db import connections
from django.test import override_settings
from redis import Redis

from dispatchers import Outcome
from dispatchers.testing import Harness


class _Cluster(Harness):
    """One cluster of a name of its own."""

    of_broker: dict[str, Any]

    def __init__(self) -> None:
        from django_q.conf import Conf

        self.queue = f"conformance-{uuid4().hex}"
        self.table: dict[str, Any] = {
            "name": "tests",
            "ALT_CLUSTERS": {self.queue: {}},
            "timeout": 30,
            "retry": 60,
            **self.of_broker,
        }
        self._override: Any = override_settings(Q_CLUSTER=self.table)
        self._override.enable()
        self._before = {name: getattr(Conf, name) for name in ("ORM", "REDIS")}
        self._use(Conf)
        self.outcomes: list[Any] = []

    def _use(self, conf: Any) -> None:
        """Have django-q2 use the same broker; it has read its settings when it was imported."""
        conf.ORM = self.of_broker.get("orm")
        conf.REDIS = self.of_broker.get("redis", {})

    def make_dispatcher(self, **options: Any) -> Any:
        given = {"queue": self.queue, **options}
        names = {given["queue"], *given.get("queues", ())}
        self.table["ALT_CLUSTERS"] |= {name: {} for name in names}
        return self.keep(DjangoQDispatcher(**given))

    @property
    def broker(self) -> Any:
        from django_q.brokers import get_broker

        return get_broker(self.queue)

    def taken(self) -> dict[str, Any] | None:
        """What django-q2's pusher would give a worker."""
        from django_q.signing import SignedPackage

        packages = self.broker.dequeue()
        if not packages:
            return None
        row, text = packages[0]
        return {**SignedPackage.loads(text), "cluster": self.queue, "ack_id": row}

    def run_next(self, dispatcher: Any) -> Any:
        task = self.taken()
        if task is None:
            return None
        self.outcomes.clear()
        done = self._worked(dispatcher, task)
        self._settled(done)
        return self.outcomes[-1] if self.outcomes else done

    def _worked(self, dispatcher: Any, task: dict[str, Any]) -> dict[str, Any]:
        from dispatchers_django_q import _entry
        from django_q.worker import worker

        tasks: Any = Queue()
        results: Any = Queue()
        tasks.put(task)
        tasks.put("STOP")
        find, process = _entry._dispatcher, _entry.process
        _entry._dispatcher = lambda alias: dispatcher
        _entry.process = lambda *args, **named: self._noted(process(*args, **named))  # type: ignore[assignment]
        try:
            worker(tasks, results, Value("f", -1), None)  # type: ignore[arg-type]
        finally:
            _entry._dispatcher, _entry.process = find, process
        found: dict[str, Any] = results.get_nowait()
        return found

    def _noted(self, outcome: Outcome) -> Outcome:
        self.outcomes.append(outcome)
        return outcome

    def _settled(self, task: dict[str, Any]) -> None:
        from django_q.monitor import monitor

        results: Any = Queue()
        results.put(task)
        results.put("STOP")
        monitor(results, self.broker)

    def dead(self, dispatcher: Any) -> list[bytes]:
        from django_q.models import Failure

        rows = Failure.objects.filter(cluster=self.queue)
        return [row.args[0].encode() for row in rows if row.result.startswith(dead_words())]

    def close(self) -> None:
        from django_q.conf import Conf
        from django_q.models import OrmQ, Schedule, Task

        for name, value in self._before.items():
            setattr(Conf, name, value)
        OrmQ.objects.using(self.of_broker.get("orm", "default")).all().delete()
        for model in (Schedule, Task):
            model.objects.all().delete()
        self._override.disable()
        connections.close_all()


def dead_words() -> tuple[str, ...]:
    from dispatchers import Reason

    return tuple(f"{each.value} : " for each in Reason)


class OrmHarness(_Cluster):
    """Rows of the database `default`, a file of SQLite."""

    of_broker = {"orm": "default"}
    without = {"network": "the database is a file"}

    def received(self, dispatcher: Any) -> list[bytes]:
        from django_q.models import OrmQ

        rows = OrmQ.objects.using(self.of_broker["orm"]).filter(key=self.queue).order_by("pk")
        return [row.task["args"][0].encode() for row in rows]

    def crash(self, dispatcher: Any) -> None:
        """A worker is gone in the midst of a run, and `retry` seconds have passed."""
        from dispatchers_django_q._entry import PackageDelivery
        from dispatchers_django_q._package import Package
        from django.utils import timezone
        from django_q.models import OrmQ

        task = self.taken()
        assert task is not None
        PackageDelivery(dispatcher, Package.taken(task["args"], task), task["ack_id"]).begin()
        rows = OrmQ.objects.using(self.of_broker["orm"])
        rows.filter(pk=task["ack_id"]).update(lock=timezone.now())

    @contextmanager
    def stalled(self, dispatcher: Any) -> Generator[None]:
        """Another process writes for a while."""
        writer = sqlite3.connect(settings.DATABASES["default"]["NAME"], isolation_level=None)
        writer.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            writer.execute("ROLLBACK")
            writer.close()


class RedisHarness(_Cluster):
    """A list in Redis."""

    without = {
        "crash": "what a cluster has taken out of Redis is lost with it",
    }

    def __init__(self, url: str) -> None:
        self.url = url
        self.of_broker = {"redis": url}
        self.client: Any = Redis.from_url(url)
        super().__init__()

    @property
    def upstream(self) -> tuple[str, int]:
        given = self.client.connection_pool.connection_kwargs
        return given.get("host", "localhost"), given.get("port", 6379)

    def connect(self, host: str, port: int, **options: Any) -> Any:
        from django_q.conf import Conf

        Conf.REDIS = {"host": host, "port": port}
        try:
            return self.make_dispatcher(**options)
        finally:
            Conf.REDIS = self.url

    def received(self, dispatcher: Any) -> list[bytes]:
        from django_q.models import Schedule
        from django_q.signing import SignedPackage

        texts = self.client.lrange(f"django_q:{self.queue}:q", 0, -1)
        rows = Schedule.objects.filter(cluster=self.queue)
        waiting = [SignedPackage.loads(text)["args"] for text in texts]
        return [args[0].encode() for args in (*waiting, *(ast.literal_eval(r.args) for r in rows))]

    def taken(self) -> dict[str, Any] | None:
        """As a cluster does; django-q2's own call waits for a second where nothing is."""
        self.schedule()
        if not self.client.llen(f"django_q:{self.queue}:q"):
            return None
        return super().taken()

    def schedule(self) -> None:
        """What a cluster does every half minute."""
        from django_q.conf import Conf
        from django_q.scheduler import scheduler

        before, Conf.CLUSTER_NAME = Conf.CLUSTER_NAME, self.queue
        try:
            scheduler(self.broker)
        finally:
            Conf.CLUSTER_NAME = before

    def close(self) -> None:
        self.client.delete(f"django_q:{self.queue}:q")
        self.client.close()
        super().close()
