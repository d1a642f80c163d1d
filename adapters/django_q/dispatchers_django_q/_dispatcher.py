"""The producer's side: envelopes as packages of django-q2's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import DatabaseError, InterfaceError, OperationalError

from dispatchers import (
    BackendOptions,
    Capabilities,
    DispatchRequest,
    ErrorCategory,
    PublishingDispatcher,
    RejectedError,
    Sent,
    Stats,
    queue_stats,
)
from dispatchers.delivery import Eager
from dispatchers.native import is_native
from dispatchers.redis import category_of, is_certainly_unsent
from dispatchers.stores import count_dead

from ._brokers import OrmBroker, broker_of, cluster_settings, clusters
from ._options import DjangoQOptions
from ._package import Package

EAGER = Capabilities(runs_here=True)
"""With `Q_CLUSTER["sync"]`: work runs in the call."""


class DjangoQDispatcher(PublishingDispatcher["Package | Eager"]):
    """Hands work over to django-q2's clusters, outside of any transaction of the caller's.

    Args:
        options: The validated options; None builds them from `settings`.

        alias: The name the dispatcher is configured under.

        settings: The options by keyword.

    Raises:
        ConfigurationError: An option does not fit, or `Q_CLUSTER` has no broker that is known.
    """

    name = "django_q"
    contract = 1
    library = "django_q"
    capabilities = Capabilities(
        delay=True,
        retries=True,
        queues=True,
        batch=True,
        confirmed=True,
        durable=True,
        stats=True,
    )
    Options = DjangoQOptions
    options: DjangoQOptions

    def __init__(
        self, options: BackendOptions | None = None, *, alias: str | None = None, **settings: object
    ) -> None:
        given: Any = self._validated(options, settings)
        queue = given.queue or clusters()[0]
        queues = tuple(dict.fromkeys((queue, *(given.queues or clusters()))))
        named = {"queue": queue, "queues": queues}
        runs_here = bool(cluster_settings().get("sync"))
        self.guarded = not runs_here  # a run is not cut by the deadline
        super().__init__(given.model_copy(update=named), alias=alias)
        self.broker = broker_of(self.options)
        self.batch_size = self.broker.batch_size
        self.capabilities = EAGER if runs_here else self._exactly()

    def _exactly(self) -> Capabilities:
        broker = self.broker
        found = {"durable": broker.durable, "delay": broker.delays, "retries": broker.delays}
        found["batch"] = broker.batch_size > 1
        return self.capabilities.model_copy(update=found)

    def _prepare(self, request: DispatchRequest, body: bytes) -> Package | Eager:
        if is_native(request):
            message = "django-q2's own tasks are handed over by its async_task"
            raise RejectedError(ErrorCategory.UNSUPPORTED, message)
        if self.capabilities.runs_here:
            return Eager(request, body)
        return Package.of(request, body, self.alias, str(self.queue_of(request)))

    def _publish(
        self, messages: Sequence[Package | Eager], timeout: float
    ) -> list[Sent | Exception]:
        packages = [each for each in messages if isinstance(each, Package)]
        # A dispatcher is eager or not as a whole: no batch holds both kinds.
        if not packages:
            eager = [each for each in messages if isinstance(each, Eager)]
            return [each.run(self.options, _no_native, repeats=False) for each in eager]
        self.broker.put(packages, timeout=timeout)
        return [Sent(each.id) for each in packages]

    def _category(self, exc: Exception) -> ErrorCategory | None:
        if not isinstance(exc, DatabaseError | InterfaceError):
            return category_of(exc)
        # SQLite has one class for a file that is locked and for a table that is missing.
        missing = getattr(exc.__cause__, "sqlite_errorname", "") == "SQLITE_ERROR"
        lost = isinstance(exc, OperationalError | InterfaceError) and not missing
        return ErrorCategory.UNAVAILABLE if lost else ErrorCategory.CONFIGURATION

    def _maybe_sent(self, exc: Exception) -> bool:
        if not isinstance(exc, DatabaseError | InterfaceError):
            return not is_certainly_unsent(exc)
        # SQLite says so of its own file; a server's last word may have been lost.
        certain = hasattr(exc.__cause__, "sqlite_errorname")
        return isinstance(exc, OperationalError | InterfaceError) and not certain

    def _probe(self, *, timeout: float) -> Sequence[str]:
        if self.capabilities.runs_here:
            return ("settings.Q_CLUSTER has sync = True: work runs in the call",)
        return self.broker.warnings(timeout=timeout)

    def _close(self, timeout: float) -> int:
        del timeout
        self.broker.close()
        return 0

    def _stats(self, *, timeout: float) -> Sequence[Stats]:
        if self.capabilities.runs_here:
            return ()
        counts: Any = self.broker.counts(timeout=timeout)
        return queue_stats(**counts, dead=count_dead(self.letters), queues=self.options.queues)

    @property
    def run_by(self) -> str | None:
        """The command of django-q2 for the cluster."""
        if self.capabilities.runs_here:
            return None
        name = self.options.queue
        # django-q2 takes the name of another cluster than `Q_CLUSTER`'s from the environment.
        cluster = "" if name == clusters()[0] else f"Q_CLUSTER_NAME={name} "
        return f"django-q2's own command, beside its other work: {cluster}manage.py qcluster"

    @property
    def redelivery_window(self) -> float | None:
        """Seconds after which the row of a run is given to another worker."""
        return cluster_settings().get("retry", 60) if isinstance(self.broker, OrmBroker) else None

    redelivery_cure = "raise Q_CLUSTER['retry']"


def _no_native(request: DispatchRequest) -> Sent:
    raise RejectedError(ErrorCategory.UNSUPPORTED, f"{request.task!r} is no task")
