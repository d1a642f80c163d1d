"""The Celery application and its broker, as the application itself is configured.

Nothing of the application is changed. Where the broker is, and of which kind, is asked of kombu's
own connection: text that only looks like an address is read in one place alone, kombu's.
"""

from __future__ import annotations

import importlib
import ssl
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any, Literal

from celery import Celery
from celery.exceptions import QueueNotFound
from kombu.entity import Queue
from kombu.transport import pyamqp

from dispatchers import ConfigurationError, DispatchRequest, ErrorCategory, RejectedError
from dispatchers.delivery import HOLD_SHARE
from dispatchers.native import arguments
from dispatchers.net import ForkGate, misread
from dispatchers.stores import load_client

from ._options import CeleryOptions

__all__ = ["Broker", "gate"]

Kind = Literal["amqp", "redis", "sentinel", "other"]
VISIBILITY_TIMEOUT = 3600.0
"""kombu's `visibility_timeout` on Redis, in seconds: kombu 5.7, `transport/redis.py`."""
RESTORE_INTERVAL = 10.0
"""Seconds between two looks for the work of dead workers, at most."""
CONSUMER_TIMEOUT = 1800.0
"""RabbitMQ's `consumer_timeout`, in seconds: https://www.rabbitmq.com/docs/consumers, 3.12."""
ROUTING = {"queue", "exchange", "routing_key", "exchange_type", "priority"} | {
    *("delivery_mode", "compression"),
}
"""Options of a task or a route that say how its message is sent."""
CHECKED = ("redis://", "rediss://", "amqp://", "amqps://", "pyamqp://")
"""Addresses whose form is known here; those of other transports are kombu's alone to read."""
VERIFIED = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
JSON = {"json", "application/json"}


gate = ForkGate()
"""kombu computes its attributes under locks that belong to its classes: kombu 5.7."""


class Broker:
    """A Celery application as the options name it, and where its messages go.

    Args:
        options: The options of the dispatcher.

        alias: The alias of the dispatcher, for messages.

    Raises:
        ConfigurationError: The options name no application or two, or no usable broker.
    """

    def __init__(self, options: CeleryOptions, alias: str) -> None:
        self.options = options
        self.alias = alias
        self.app: Any = _application(options, alias)
        self.urls = tuple(self._urls())
        self.connections = tuple(self._connection(url) for url in self.urls)
        self.kind: Kind = self._kind()
        self._keep_to_window()
        self._import_late_modules()

    def _keep_to_window(self) -> None:
        """Have workers of an application of our own give work of dead ones back in time."""
        window = self.options.window
        if self.options.url is None or window is None or not self.uses_redis:
            return
        self.app.conf.broker_transport_options = {
            "visibility_timeout": window,
            # kombu looks in every tenth interval of ten seconds: kombu 5.7, `restore_visible`.
            "unacked_restore_interval": min(RESTORE_INTERVAL, window / 3),
            "unacked_restore_throttle": 1,
        }

    def _urls(self) -> Iterator[Any]:
        """Yield each address of a fail-over list; Sentinel needs all of its own at once."""
        urls = _listed(self.options.url or self.app.conf.broker_write_url or "amqp://")
        if urls[0].lower().startswith("sentinel"):
            # kombu asks all sentinels by itself; one address alone is not a fail-over list.
            yield ";".join(urls)
        else:
            yield from (url.strip() for url in urls if url.strip())

    def _connection(self, url: str) -> Any:
        """Return kombu's connection for an address; nothing is connected yet.

        Raises:
            ConfigurationError: kombu does not know such an address, or would use another.
        """
        if url.startswith(CHECKED) and (why := misread(url)) is not None:
            raise self._unusable(url, why)
        try:
            connection: Any = self.app.connection_for_write(_explicit(url))
            # Here, not in the first dispatch: a missing client is an error of the configuration.
            connection.transport  # noqa: B018 - made on first use, imports the client
        except Exception as exc:  # noqa: BLE001 - whatever an import or a parser raises
            # Without its cause: that quotes the part it cannot read, which may be a password.
            raise self._unusable(url, f"kombu cannot use it ({type(exc).__name__})") from None
        if (why := _misunderstood(url, connection)) is not None:
            raise self._unusable(url, why)
        if self._skips_verification(url, connection):
            said = connection.ssl if isinstance(connection.ssl, dict) else {}
            connection.ssl = {**said, **VERIFIED}
        return connection

    def _skips_verification(self, url: str, connection: Any) -> bool:
        """Tell whether kombu chose by itself to verify no certificate, as it does for Redis."""
        said = self.app.conf.broker_use_ssl
        if said and not isinstance(said, dict):
            # kombu ignores `True`, and would send the password in plain text.
            return getattr(connection.get_transport_cls(), "driver_type", "") == "redis"
        chosen = said or "ssl_cert_reqs" in url
        return not chosen and _is_rediss(url) and isinstance(connection.ssl, dict)

    def verify_certificates(self) -> None:
        """Have the application's own connections to Redis verify certificates: a worker's."""
        conf = self.app.conf
        said, urls = conf.broker_use_ssl, _listed(conf.broker_read_url or "")
        chosen = (isinstance(said, dict) and said) or any("ssl_cert_reqs" in each for each in urls)
        if not chosen and (said or all(_is_rediss(each.strip()) for each in urls)):
            conf.broker_use_ssl = {**VERIFIED}

    def _unusable(self, url: str, why: str) -> ConfigurationError:
        option = "url" if self.options.url is not None else "broker_url of the application"
        scheme = url.partition("://")[0] if "://" in url else ""
        named = f"{scheme}://..." if scheme.replace("+", "").isalnum() else "an address"
        return ConfigurationError(
            f"dispatcher {self.alias!r} (celery): {option} is {named}, and {why}: give "
            "'amqp://user:password@host/vhost', 'redis://host:6379/0', or "
            "an application with 'sentinel://host:26379' and master_name in its "
            "broker_transport_options"
        )

    def _kind(self) -> Kind:
        kinds: set[Kind] = {_kind_of(connection) for connection in self.connections}
        if len(kinds) > 1:
            raise ConfigurationError(
                f"dispatcher {self.alias!r} (celery): the broker's addresses are of several kinds "
                f"({', '.join(sorted(kinds))}): a fail-over list is of one"
            )
        return kinds.pop()

    def _import_late_modules(self) -> None:
        """Import what Celery and kombu import late: a fork meanwhile would leave a lock behind."""
        # `socket.getaddrinfo` imports it on the first host name.
        importlib.import_module("encodings.idna")
        # Kept, because each access takes a lock that a child could inherit: kombu 5.7,
        # `utils.objects.cached_property`.
        self.amqp: Any = self.app.amqp
        self.send_task_message: Any = self.amqp.send_task_message
        self._router: Any = self.amqp.router
        self.queues: Any = self.amqp.queues

    @cached_property
    def address(self) -> str:
        """Hosts and ports, for messages."""
        return ", ".join(address_of(connection) for connection in self.connections)

    @property
    def uses_redis(self) -> bool:
        """Tell whether the messages are in a Redis."""
        return self.kind in ("redis", "sentinel")

    @property
    def is_volatile(self) -> bool:
        """Tell whether the messages are in the memory, or a folder, of one machine."""
        return self.connections[0].transport.driver_type in ("memory", "filesystem")

    @property
    def is_eager(self) -> bool:
        """Tell whether the application runs its tasks in the call, as tests have it."""
        return bool(self.app.conf.task_always_eager)

    @cached_property
    def window(self) -> float:
        """Seconds after which the broker gives unsettled work to another worker."""
        if self.options.window is not None:
            return self.options.window
        if not self.uses_redis:
            return CONSUMER_TIMEOUT
        settings: Mapping[str, Any] = self.app.conf.broker_transport_options or {}
        return float(settings.get("visibility_timeout", VISIBILITY_TIMEOUT))

    @property
    def max_hold(self) -> timedelta:
        """The longest time that work may wait unsettled in a worker's memory."""
        return timedelta(seconds=self.window * HOLD_SHARE)

    @property
    def default_queue(self) -> str:
        """The queue for work that names none."""
        return str(self.app.conf.task_default_queue)

    def queue(self, name: str) -> Queue | None:
        """Return the queue as application or configuration declares it; None if neither does."""
        declared = self.queues
        if name in declared or name in declared.aliases:
            return declared[name]
        return declared.new_missing(name) if name in self.known else None

    def route(self, request: DispatchRequest) -> tuple[Queue, dict[str, Any]]:
        """Return the queue and the options that the application's own routing gives a task.

        Raises:
            RejectedError: The routing names a queue that the application does not declare.
        """
        own = request.is_native
        args, kwargs = arguments(request) if own else ([], dict(request.payload))
        task = self.registered(request.task) if own or self.app.conf.task_routes else None
        chosen = {name: getattr(task, name, None) for name in ROUTING} if own else {}
        given = {name: value for name, value in chosen.items() if value is not None}
        try:
            routed = self._router.route(given, request.task, args, kwargs, task_type=task)
        except QueueNotFound as exc:
            raise RejectedError(ErrorCategory.NOT_FOUND, f"{exc}: declare it there") from exc
        queue = routed.pop("queue", None) or self._queue_of(routed)
        return queue, {name: routed[name] for name in ROUTING & routed.keys()}

    def registered(self, name: str) -> Any:
        """Return the application's own task; this finalizes the application, as `delay` does."""
        with gate.entered():
            ready = self.app.finalized or self.app.autofinalize
            return self.app.tasks.get(name) if ready else None

    def _queue_of(self, routed: Mapping[str, Any]) -> Queue:
        """Return the queue behind an exchange that a route names without one."""
        name = getattr(routed.get("exchange"), "name", routed.get("exchange"))
        found = (each for each in self.queues.values() if each.exchange.name == name)
        return next(found, None) or self.queues[self.default_queue]

    @property
    def known(self) -> set[str]:
        """The names of all queues that count as declared."""
        own = {name for name in (self.options.queue, *self.options.queues) if name}
        return {*own, *self.queues, self.default_queue}

    def highest_priority(self, queue: Any) -> int:
        """Return `x-max-priority` of a queue on RabbitMQ; 0 where it has no priorities."""
        arguments = {**(queue.queue_arguments or {})}
        found = queue.max_priority or arguments.get("x-max-priority")
        return int(found or self.app.conf.task_queue_max_priority or 0)

    @property
    def has_priorities(self) -> bool:
        """Tell whether the broker sorts work by priority."""
        if self.uses_redis:
            return self.options.priorities
        return any(self.highest_priority(queue) for queue in self.queues.values())

    def check(self) -> None:
        """Refuse settings of the application that keep its workers from running our messages.

        Raises:
            ConfigurationError: There is one.
        """
        if not JSON & set(map(str, self.app.conf.accept_content or ())):
            raise ConfigurationError(
                f"dispatcher {self.alias!r} (celery): accept_content of the application lacks "
                "'json', so that its workers would discard every message: add it"
            )


def _listed(given: Any) -> list[str]:
    """Return the addresses of a fail-over list, which is text or a sequence."""
    return list(given) if isinstance(given, list | tuple) else given.split(";")


def _explicit(url: str) -> str:
    """Name the one AMQP client there is: for `amqp` kombu 5.7 tries to import another each time.

    A process that is forked during an import inherits its lock, which no thread releases.
    """
    return f"py{url}" if url.startswith("amqp://") else url


def _misunderstood(url: str, connection: Any) -> str | None:
    """Say what of an address kombu would ignore, or finds out on the first connection only."""
    scheme, _, inner = url.partition("://")[0].lower().partition("+")
    if scheme in ("redis", "rediss", "amqp") and inner not in ("", "socket"):
        return f"kombu's {connection.get_transport_cls().__name__} would ignore its host"
    kind, database = _kind_of(connection), (connection.virtual_host or "").strip("/")
    if kind == "redis" and not (database.isdecimal() or not database):
        return "the database behind the last / is a number"
    if kind == "sentinel" and not (connection.transport_options or {}).get("master_name"):
        return "broker_transport_options has no master_name, by which Sentinel knows the server"
    if "://" not in url and ":" in (connection.hostname or ""):
        return "kombu reads a port only behind a scheme"
    return None


def _kind_of(connection: Any) -> Kind:
    transport = connection.get_transport_cls()
    if issubclass(transport, pyamqp.Transport) or transport.driver_type == "amqp":
        return "amqp"
    if transport.driver_type == "redis":
        return "sentinel" if "Sentinel" in transport.__name__ else "redis"
    return "other"


def address_of(connection: Any) -> str:
    """Return host and port that kombu's connection leads to."""
    host = connection.hostname or "localhost"
    port = connection.port or connection.transport.default_port
    return f"{host}:{port}" if port and "://" not in host else str(host)


def _application(options: CeleryOptions, alias: str) -> Any:
    subject, what = f"dispatcher {alias!r} (celery)", "your Celery application"
    app = load_client(subject, "app", options.app, options.url, what)
    if options.url is not None:
        return _own(options, options.url)
    if not isinstance(app, Celery):
        raise ConfigurationError(
            f"{subject}: app is {type(app).__name__}, not a Celery "
            "application: name one as 'package.module:attribute'"
        )
    return app


def _own(options: CeleryOptions, url: str) -> Any:
    """Make an application for a broker that is known by its address alone."""
    # Not the current application: `@shared_task` of other libraries must not land here.
    app = Celery("dispatchers", broker=url, set_as_current=False)
    app.conf.update(
        task_default_queue=options.queue or "celery",
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        broker_connection_retry_on_startup=True,
        task_create_missing_queues=True,
    )
    return app


def _is_rediss(url: str) -> bool:
    return url.lower().startswith("rediss")
