"""The producer's side: envelopes as Celery messages."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from kombu.entity import Queue

from dispatchers import (
    Capabilities,
    ConfigurationError,
    DispatchRequest,
    DispatchStatus,
    ErrorCategory,
    PublishingDispatcher,
    RejectedError,
    Sent,
    Stats,
    queue_stats,
)
from dispatchers.delivery import Eager, failed
from dispatchers.native import arguments
from dispatchers.stores import count_dead

from ._broker import Broker
from ._connection import BATCH_SIZE, KombuPublisher, Publisher
from ._errors import category_of, is_certainly_unsent
from ._message import Draft, draft_of
from ._options import CeleryOptions
from ._rabbitmq import RabbitPublisher

if TYPE_CHECKING:
    from dispatchers.moving import Claims

__all__ = ["CeleryDispatcher"]


class CeleryDispatcher(PublishingDispatcher[Draft | Eager]):
    """Hands work over to the workers of a Celery application: `ACCEPTED`.

    RabbitMQ has confirmed the message and routed it to a queue; Redis has answered the command that
    stores it. Which of it survives what is the broker's setting: see the adapter's README.

    Args:
        options: The validated options; None builds them from `settings`.

        alias: The name the dispatcher is configured under.

        settings: The options by keyword.

    Raises:
        ConfigurationError: An option does not fit, or there is no such application.
    """

    name = "celery"
    contract = 1
    library = "celery"
    worker = "dispatchers_celery._worker:CeleryWorker"
    capabilities = Capabilities(
        delay=True,
        priority=True,
        retries=True,
        queues=True,
        batch=True,
        confirmed=True,
        durable=True,
        worker=True,
        dead_letters=True,
        stats=True,
    )
    batch_size = BATCH_SIZE
    Options = CeleryOptions
    options: CeleryOptions
    redelivery_cure = (
        "shorten it, or raise visibility_timeout or consumer_timeout, and `window` with it"
    )

    def __init__(
        self, options: CeleryOptions | None = None, *, alias: str | None = None, **settings: object
    ) -> None:
        super().__init__(options, alias=alias, **settings)
        self.broker = Broker(self.options, self.alias)
        kind = RabbitPublisher if self.broker.kind == "amqp" else KombuPublisher
        self.publisher: Publisher = kind(self.broker)
        # Of this instance: two dispatchers may lead to applications with different brokers.
        self.capabilities = self._exact_capabilities()

    def _exact_capabilities(self) -> Capabilities:
        """Return what this application and its broker can do."""
        broker = self.broker
        return self.capabilities.model_copy(
            update={
                "priority": broker.has_priorities,
                "confirmed": self.options.confirm or broker.kind != "amqp",
                "durable": not broker.is_volatile,
                "runs_here": broker.is_eager,
            }
        )

    # Handing over.

    def _prepare(self, request: DispatchRequest, body: bytes) -> Draft | Eager:
        if self.broker.is_eager:
            return Eager(request, body)
        queue, options = self._destination(request)
        return draft_of(self.broker, request, body, queue, options)

    def _destination(self, request: DispatchRequest) -> tuple[Queue, dict[str, Any]]:
        """Return the queue: the request's, the dispatcher's, or the one the application routes to.

        Raises:
            RejectedError: It is declared nowhere.
        """
        broker, name = self.broker, self.queue_of(request)
        if name is None:
            return broker.route(request)
        if (queue := broker.queue(name)) is None:
            raise RejectedError(
                ErrorCategory.NOT_FOUND,
                f"no queue {name!r} in the application or in `queues` of {self.alias!r}: "
                f"there are {', '.join(sorted(broker.known))}",
            )
        return queue, {}

    def _publish(
        self, messages: Sequence[Draft | Eager], timeout: float
    ) -> Sequence[Sent | Exception]:
        # An application is eager or not as a whole: no batch holds both kinds.
        eager = [each for each in messages if isinstance(each, Eager)]
        if eager:
            return [each.run(self.options, self._apply) for each in eager]
        good = [each for each in messages if isinstance(each, Draft)]
        return self.publisher.publish(good, monotonic() + timeout)

    def _apply(self, request: DispatchRequest) -> Sent:
        """Run one of Celery's own tasks in Celery's way."""
        args, kwargs = arguments(request)
        task = self.broker.app.tasks.get(request.task)
        if task is None:
            message = f"no task {request.task!r} in the application, which runs tasks in the call"
            raise RejectedError(ErrorCategory.NOT_FOUND, message)
        # As Celery's own eager mode runs it: an exception becomes the result's.
        result = task.apply(args=args, kwargs=kwargs, throw=False)
        if result.failed():
            return failed(request.task, result.result, result.id)
        return Sent(result.id, DispatchStatus.EXECUTED)

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return category_of(exc)

    def _maybe_sent(self, exc: Exception) -> bool:
        return not is_certainly_unsent(exc)

    # The rest.

    @property
    def redelivery_window(self) -> float:
        return self.broker.window

    def _check(self) -> None:
        self.broker.check()

    def _probe(self, *, timeout: float) -> Sequence[str]:
        until = monotonic() + timeout
        self.publisher.probe(timeout)
        return tuple(self.publisher.problems(sorted(self.broker.known), until - monotonic()))

    def _stats(self, *, timeout: float) -> Sequence[Stats]:
        sizes = self.publisher.sizes(sorted(self.broker.known), timeout)
        delayed = {name: held for name, (_, held) in sizes.items() if held is not None}
        return queue_stats(
            waiting={name: size for name, (size, _) in sizes.items()},
            # None is unknown: RabbitMQ keeps what it holds back in queues of the delay, not in
            # these.
            delayed=delayed if self.broker.uses_redis else None,
            dead=count_dead(self.letters),
            queues=sizes,
        )

    def _moving(self, queues: Sequence[str] | None) -> Claims:
        if not self.broker.uses_redis or not isinstance(self.publisher, KombuPublisher):
            raise ConfigurationError(
                f"dispatcher {self.alias!r} (celery): work can be moved from Redis only, and its "
                f"broker is {self.broker.connections[0].transport.driver_type}"
            )
        # Late: only `dispatchers move` claims work to move it.
        from ._claims import RedisClaims

        return RedisClaims(self.broker, self.publisher, queues)

    def _close(self, timeout: float) -> int:
        self.publisher.close()
        return 0
