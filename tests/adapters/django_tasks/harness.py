"""Published backends of `django.tasks`, stepped by their own workers."""

from __future__ import annotations

import json
import sqlite3
from abc import abstractmethod
from collections.abc import Generator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from dispatchers_django_tasks import DjangoTasksDispatcher
from dispatchers_django_tasks._api import LIBRARY
from django.conf import settings
from django.db import connections
from django.test import override_settings
from redis import Redis

from dispatchers import override
from dispatchers.testing import Harness

__all__ = ["DatabaseHarness", "ImmediateHarness", "TasksHarness"]


class TasksHarness(Harness):
    """One alias in `settings.TASKS`, with one queue."""

    backend: str

    def __init__(self, **others: Any) -> None:
        self.queue = f"q{uuid4().hex[:24]}"
        table = {"BACKEND": self.backend, "QUEUES": [self.queue], "OPTIONS": {}}
        self._settings = override_settings(TASKS={self.queue: table}, **others)
        self._settings.enable()

    def make_dispatcher(self, **options: Any) -> DjangoTasksDispatcher:
        given = {"alias": self.queue, "tasks": self.queue, "queue": self.queue, **options}
        return DjangoTasksDispatcher(**given)

    def run_next(self, dispatcher: Any) -> object:
        # A worker finds the dispatcher's options under its alias.
        with override(**{dispatcher.alias: dispatcher}):
            return self.step()

    @abstractmethod
    def step(self) -> object:
        """Have the backend's own worker run one piece of work; None where none was due."""

    def close(self) -> None:
        self._settings.disable()


class ImmediateHarness(TasksHarness):
    """Django's own: work runs in the call."""

    backend = f"{LIBRARY}.backends.immediate.ImmediateBackend"
    without = {
        "received": "work is run in the call, and held nowhere",
        "stepping": "work is run in the call",
        "dead": "the answer is FAILED, and nothing is kept",
        "crash": "work dies with its process",
        "network": "nothing is contacted",
        "stall": "nothing is waited for",
        "processes": "work is run in the process of the call",
        "retry": "one attempt, whose failure is the answer",
    }

    def step(self) -> object:
        return None


class DatabaseHarness(TasksHarness):
    """`django-tasks-db`, in a file of SQLite."""

    backend = "django_tasks_db.DatabaseBackend"
    without = {
        "crash": "a task whose worker is killed stays RUNNING, and is never run again",
        "network": "a file of SQLite",
    }

    def _rows(self, *statuses: str) -> list[bytes]:
        from django_tasks_db.models import DBTaskResult

        found = DBTaskResult.objects.filter(queue_name=self.queue, status__in=statuses)
        return [row.args_kwargs["kwargs"]["body"].encode() for row in found]

    def received(self, dispatcher: Any) -> list[bytes]:
        return self._rows("READY", "RUNNING")

    def dead(self, dispatcher: Any) -> list[bytes]:
        return self._rows("FAILED")

    def step(self) -> object:
        from django_tasks_db.management.commands.db_worker import Worker

        worker = Worker(
            queue_names=[self.queue],
            excluded_queue_names=[],
            interval=0,
            batch=True,
            backend_name=self.queue,
            startup_delay=False,
            max_tasks=1,
            worker_id=uuid4().hex,
        )
        worker.run()
        return worker._run_tasks or None

    @contextmanager
    def stalled(self, dispatcher: Any) -> Generator[None]:
        with closing(sqlite3.connect(settings.DATABASES["default"]["NAME"], timeout=30)) as other:
            other.isolation_level = None
            other.execute("BEGIN EXCLUSIVE")
            yield
            other.execute("ROLLBACK")

    def close(self) -> None:
        from django_tasks_db.models import DBTaskResult

        DBTaskResult.objects.filter(queue_name=self.queue).delete()
        connections.close_all()
        super().close()


class ServerHarness(TasksHarness):
    """A backend on a Redis."""

    def __init__(self, url: str, **others: Any) -> None:
        super().__init__(**others)
        self.url = url
        self.point_to(url)

    @abstractmethod
    def point_to(self, url: str) -> None:
        """Have the backend's settings name this server."""

    @property
    def upstream(self) -> tuple[str, int]:
        address = urlsplit(self.url)
        return address.hostname or "localhost", address.port or 6379

    def connect(self, host: str, port: int, **options: Any) -> DjangoTasksDispatcher:
        address = urlsplit(self.url)
        self.point_to(address._replace(netloc=f"{host}:{port}").geturl())
        return self.make_dispatcher(**options)


class RQHarness(ServerHarness):
    """`django-tasks-rq`, with envelopes in RQ's JSON."""

    backend = "django_tasks_rq.RQBackend"
    without = {"crash": "RQ fails a job whose worker is killed, and never runs it again"}

    def __init__(self, url: str) -> None:
        super().__init__(url, RQ_QUEUES={})

    def point_to(self, url: str) -> None:
        serializer = "rq.serializers.JSONSerializer"
        table = {"URL": url, "SERIALIZER": serializer}
        # `RQBackend.get_result` asks the server of the queue `default`, whatever its own are.
        settings.RQ_QUEUES.update({self.queue: table, "default": table})

    def _queue(self) -> Any:
        from django_rq import get_queue
        from django_tasks_rq import Job

        return get_queue(self.queue, connection=Redis.from_url(self.url), job_class=Job)

    def _bodies(self, ids: list[str]) -> list[bytes]:
        jobs = (self._queue().fetch_job(each) for each in ids)
        return [job.kwargs["body"].encode() for job in jobs if job]

    def received(self, dispatcher: Any) -> list[bytes]:
        queue = self._queue()
        return self._bodies(queue.get_job_ids() + queue.scheduled_job_registry.get_job_ids())

    def dead(self, dispatcher: Any) -> list[bytes]:
        return self._bodies(self._queue().failed_job_registry.get_job_ids())

    def step(self) -> object:
        from django_tasks_rq import Job
        from rq import SimpleWorker

        queue = self._queue()
        due = queue.scheduled_job_registry
        for number in due.get_jobs_to_schedule():
            queue.enqueue_job(queue.fetch_job(number))
            due.remove(number)
        serializer = queue.serializer
        worker = SimpleWorker(
            [queue], connection=queue.connection, job_class=Job, serializer=serializer
        )
        job = queue.dequeue_any(
            [queue], None, connection=queue.connection, job_class=Job, serializer=serializer
        )
        if job is None:
            return None
        worker.execute_job(job[0], queue)
        return job[0]

    def close(self) -> None:
        queue = self._queue()
        for registry in (
            queue.scheduled_job_registry,
            queue.failed_job_registry,
            queue.finished_job_registry,
        ):
            for number in registry.get_job_ids():
                registry.remove(number, delete_job=True)
        queue.delete(delete_jobs=True)
        super().close()


class RedisHarness(ServerHarness):
    """`django-tasks-redis`, which wants Django 6."""

    backend = "django_tasks_redis.RedisTaskBackend"

    def point_to(self, url: str) -> None:
        options = {"REDIS_URL": url, "REDIS_KEY_PREFIX": self.queue, "REDIS_CLAIM_TIMEOUT": 0}
        settings.TASKS[self.queue]["OPTIONS"].update(options)

    def _bodies(self, *statuses: str) -> list[bytes]:
        from django_tasks_redis.executor import get_tasks

        every, _ = get_tasks(self.queue, limit=10_000)
        found = [each["kwargs_json"] for each in every if each["status"] in statuses]
        return [json.loads(each)["body"].encode() for each in found]

    def received(self, dispatcher: Any) -> list[bytes]:
        self.point_to(self.url)
        return self._bodies("READY", "RUNNING")

    def dead(self, dispatcher: Any) -> list[bytes]:
        return self._bodies("FAILED")

    def step(self) -> object:
        from django_tasks_redis.executor import process_one_task

        return process_one_task(backend_name=self.queue, worker_id=self.queue)

    def crash(self, dispatcher: Any) -> None:
        from django_tasks_redis.executor import claim_stale_tasks

        backend = dispatcher.backend
        # As the one that steps: what it claims from a dead worker is pending for it alone.
        (message,) = backend.broker.receive(worker_id=self.queue)
        backend.claim_task(message.task_id, worker_id=self.queue)
        claim_stale_tasks(self.queue, claim_timeout=0, worker_id=self.queue)

    def close(self) -> None:
        client = Redis.from_url(self.url)
        keys = list(client.scan_iter(f"{self.queue}*"))
        if keys:
            client.delete(*keys)
        client.close()
        super().close()
