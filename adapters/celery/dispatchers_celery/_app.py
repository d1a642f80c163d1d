"""What the adapter reads of a Celery application; it changes nothing of it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any

from celery import Celery
from kombu.entity import Queue
from kombu.utils.url import parse_url

from dispatchers import ConfigurationError
from dispatchers.stores import load_object

from ._options import CeleryOptions

__all__ = ["Application", "Transport"]

Transport = str
"""`redis`, `amqp`, `memory` or another of kombu's."""
AMQP = ("amqp", "amqps", "pyamqp", "librabbitmq")
REDIS = ("redis", "rediss")
VISIBILITY = 3600.0
"""kombu's `visibility_timeout` on Redis, in seconds: kombu 5.7, `transport/redis.py`."""
CONSUMER_TIMEOUT = 1800.0
"""RabbitMQ's `consumer_timeout`, in seconds: https://www.rabbitmq.com/docs/consumers, 3.12."""
MARGIN = 0.9
"""The part of the redelivery window that work may wait in a worker's memory."""


class Application:
    """A Celery application as the options name it.

    Raises:
        ConfigurationError: They name none, or two.
    """

    def __init__(self, options: CeleryOptions, alias: str) -> None:
        self._options = options
        self.app: Any = _application(options, alias)
        self.url = _explicit(options.url or self.app.conf.broker_write_url or "amqp://")
        self._import_all()

    def _import_all(self) -> None:
        """Import what Celery and kombu import late: a fork meanwhile would leave a lock behind."""
        importlib.import_module("encodings.idna")
        connection: Any = self.app.connection_for_write(self.url)
        connection.get_transport_cls()
        connection.transport  # noqa: B018 - made on first use
        _ = self.app.amqp.send_task_message, self.app.amqp.queues

    @cached_property
    def transport(self) -> Transport:
        """The kind of broker."""
        scheme = self.url.partition("://")[0].partition("+")[0]
        if scheme in AMQP:
            return "amqp"
        return "redis" if scheme in REDIS else scheme

    @cached_property
    def address(self) -> str:
        """Host and port, for messages."""
        parts = parse_url(self.url) if "://" in self.url else {}
        host, port = parts.get("hostname") or "localhost", parts.get("port")
        return f"{host}:{port}" if port else str(host)

    @cached_property
    def window(self) -> float:
        """Seconds after which the broker gives unsettled work to another worker."""
        if self._options.window is not None:
            return self._options.window
        if self.transport != "redis":
            return CONSUMER_TIMEOUT
        settings: Mapping[str, Any] = self.app.conf.broker_transport_options or {}
        return float(settings.get("visibility_timeout", VISIBILITY))

    @property
    def max_hold(self) -> timedelta:
        """A delayed message waits unsettled in a worker's memory: no longer than that is safe."""
        return timedelta(seconds=self.window * MARGIN)

    @property
    def default_queue(self) -> str:
        """Where work goes that names no queue."""
        return str(self.app.conf.task_default_queue)

    def queue(self, name: str) -> Queue | None:
        """The queue as the application, or our configuration, declares it; None if neither does."""
        declared = self.app.amqp.queues
        if name in declared or name in declared.aliases:
            return declared[name]
        if name in self.known:
            return declared.new_missing(name)
        return None

    @property
    def known(self) -> set[str]:
        """The names of all queues that count as declared."""
        own = {name for name in (self._options.queue, *self._options.queues) if name}
        return {*own, *self.app.amqp.queues, self.default_queue}

    def highest_priority(self, queue: Any) -> int:
        """`x-max-priority` of a queue on RabbitMQ; 0 where it has no priorities."""
        arguments = {**(queue.queue_arguments or {})}
        found = queue.max_priority or arguments.get("x-max-priority")
        return int(found or self.app.conf.task_queue_max_priority or 0)

    @property
    def has_priorities(self) -> bool:
        """Whether the order of work can be told."""
        if self.transport == "redis":
            return self._options.priorities
        return any(self.highest_priority(queue) for queue in self.app.amqp.queues.values())


def _explicit(url: str | list[str]) -> str:
    """With the one AMQP client there is: for `amqp` kombu 5.7 tries to import another each time.

    A process that is forked during an import inherits its lock, held by nobody.
    """
    urls = url if isinstance(url, list) else url.split(";")
    return ";".join(f"py{each}" if each.startswith("amqp://") else each for each in urls)


def _application(options: CeleryOptions, alias: str) -> Any:
    if (options.app is None) is (options.url is None):
        raise ConfigurationError(
            f"dispatcher {alias!r} (celery): give `app`, your Celery application as "
            "'package.module:attribute', or `url`, the broker's address, and not both"
        )
    if options.url is not None:
        return _own(options)
    app = load_object("app", options.app) if isinstance(options.app, str) else options.app
    if not isinstance(app, Celery):
        raise ConfigurationError(
            f"dispatcher {alias!r} (celery): app is {type(app).__name__}, no Celery application: "
            "name one as 'package.module:attribute'"
        )
    return app


def _own(options: CeleryOptions) -> Any:
    """An application for a broker that is known by its address alone."""
    app = Celery("dispatchers", broker=options.url, set_as_current=False)
    app.conf.update(
        task_default_queue=options.queue or "celery",
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        broker_connection_retry_on_startup=True,
        task_create_missing_queues=True,
    )
    return app
