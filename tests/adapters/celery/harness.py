"""A queue of a Celery application, stepped message by message as Celery's worker settles them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from celery import Celery
from celery.app.task import Context
from celery.exceptions import Ignore, Reject
from celery.exceptions import Retry as CeleryRetry
from dispatchers_celery import CeleryDispatcher
from dispatchers_celery._delivery import run
from dispatchers_celery._message import Received
from dispatchers_celery._redis_consumer import move_due

from dispatchers import BaseDispatcher, ErrorCategory
from dispatchers.stores import dead_letters
from dispatchers.testing import Harness

__all__ = ["CeleryHarness", "application", "delete_queues"]


def application(url: str, queue: str, **settings: Any) -> Celery:
    """An application as a user would write it."""
    app = Celery("shop", broker=url, set_as_current=False)
    app.conf.update(task_default_queue=queue, **settings)
    return app


def delete_queues(app: Any, *names: str) -> None:
    """Leave nothing of queues, whose names no other test uses, in a server that others share."""
    with app.connection_for_write() as connection:
        channel = connection.channel()
        for name in names:
            if connection.transport.driver_type == "redis":
                # Kombu deletes only what this channel has declared, and no bindings of exchanges.
                for key in channel.client.scan_iter(f"*{name}*"):
                    channel.client.delete(key)
            else:
                channel.queue_delete(name)


class CeleryHarness(Harness):
    """One queue, and the messages that were taken and are not settled yet."""

    scheme = "redis"

    def __init__(self, url: str, folder: Path, **settings: Any) -> None:
        self.url = url
        self.queue = f"conformance-{uuid4().hex}"
        self.app = application(url, self.queue, **settings)
        self.letters = f"sqlite:{folder / 'dead.db'}"
        self.held: list[Any] = []
        self.given_back = False
        self.others: list[str] = []
        self._open()

    def _open(self) -> None:
        self.connection: Any = self.app.connection_for_read()
        self.channel = self.connection.channel()
        self.app.amqp.queues[self.queue](self.channel).declare()

    def make_dispatcher(self, **options: Any) -> CeleryDispatcher:
        return CeleryDispatcher(app=self.app, **{"dead_letters": self.letters, **options})

    @property
    def upstream(self) -> tuple[str, int]:
        with self.app.connection_for_read() as connection:
            return "127.0.0.1", connection.port or connection.default_port

    def connect(self, host: str, port: int, **options: Any) -> CeleryDispatcher:
        place = self.url.partition("@")[2] or self.url.partition("://")[2]
        url = self.url.replace(place.partition("/")[0], f"{host}:{port}")
        return CeleryDispatcher(url=url, queue=self.queue, **options)

    def queue_name(self, name: str) -> str:
        self.others.append(f"{self.queue}-{name}")
        return self.others[-1]

    def refusals(self) -> Iterator[tuple[BaseDispatcher, ErrorCategory]]:
        if not self.has("network"):
            return
        host, port = self.upstream
        url = f"{self.url.partition('://')[0]}://guest:wrong@{host}:{port}/"
        wrong = CeleryDispatcher(url=url, queue=self.queue, breaker=False, deadline=self.deadline)
        yield self.keep(wrong), ErrorCategory.AUTHENTICATION

    def _fetch(self) -> None:
        """Take everything that is there, unsettled, as a worker does that holds work back."""
        if self.url.startswith("redis"):
            move_due(self.channel, [self.queue])
        while (message := self.app.amqp.queues[self.queue](self.channel).get()) is not None:
            self.held.append(message)

    def received(self, dispatcher: Any) -> list[bytes]:
        self._fetch()
        until = time.monotonic() + 5
        while self.given_back and not self.held and time.monotonic() < until:
            time.sleep(0.05)  # the broker holds it, and tells of it when it is due
            self._fetch()
        return [str(message.decode()[0][0]).encode() for message in self.held]

    def run_next(self, dispatcher: Any) -> object:
        self._fetch()
        message = self._due()
        if message is None:
            return None
        try:
            run(_received(message), dispatcher)
        except Reject:
            message.reject(requeue=True)
        except (Ignore, CeleryRetry):
            self.given_back = True
            message.ack()
        except Exception:  # noqa: BLE001 - a failure: Celery acknowledges, and records it
            message.ack()
        else:
            message.ack()
        return message

    def _due(self) -> Any:
        now = datetime.now(UTC)
        for message in self.held:
            eta = message.headers.get("eta")
            if eta is None or datetime.fromisoformat(eta) <= now:
                self.held.remove(message)
                return message
        return None

    def dead(self, dispatcher: Any) -> list[bytes]:
        return [letter.body for letter in dead_letters(self.letters).list()]

    def crash(self, dispatcher: Any) -> None:
        """The worker's connection ends: what it held is given to the next."""
        self._fetch()
        self.held.clear()
        self.connection.close()
        self._open()
        self._count(dispatcher)

    def _count(self, dispatcher: Any) -> None:
        """A worker that takes a flagged delivery replaces it by one that is counted, and runs it.

        The suite wants to see the run: what was only counted is no run.
        """
        self._fetch()
        for message in list(self.held):
            received = _received(message)
            if received.is_uncounted:
                self.held.remove(message)
                with contextlib.suppress(Ignore):
                    run(received, dispatcher)
                message.ack()

    def close(self) -> None:
        for message in self.held:
            message.ack()
        # Before the queues are deleted: what it has not settled goes back.
        self.connection.close()
        with contextlib.suppress(Exception):
            delete_queues(self.app, self.queue, *self.others)


def _received(message: Any) -> Received:
    """Return a message as a worker reads it."""
    args, kwargs, _ = message.decode()
    context = Context(message.headers, delivery_info=message.delivery_info)
    return Received.read(context, message.headers["task"], args, kwargs)
