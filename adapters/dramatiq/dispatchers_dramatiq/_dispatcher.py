"""The producer's side: envelopes as Dramatiq messages."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dispatchers import (
    Capabilities,
    ConfigurationError,
    DispatchRequest,
    ErrorCategory,
    PublishingDispatcher,
    RejectedError,
    Sent,
    Stats,
    catalogue,
)
from dispatchers.delivery import Eager, called

from ._broker import ConfiguredBroker
from ._connection import BATCH_SIZE, RedisPublisher, publisher_of
from ._errors import category_of, is_certainly_unsent
from ._message import PICKLES, Packet, is_pickling, packet_of
from ._options import DramatiqOptions

if TYPE_CHECKING:
    from dispatchers.moving import Claims


class DramatiqDispatcher(PublishingDispatcher[Packet | Eager]):
    """Hands work over to the workers of a Dramatiq broker: `ACCEPTED`.

    RabbitMQ has confirmed the message and routed it to a queue; Redis has answered the script that
    stores it. Which of it survives what is the server's setting: see the adapter's README.

    Args:
        options: The validated options; None builds them from `settings`.

        alias: The name the dispatcher is configured under.

        settings: The options by keyword.

    Raises:
        ConfigurationError: An option does not fit, or there is no such broker.
    """

    name = "dramatiq"
    contract = 1
    library = "dramatiq"
    worker = "dispatchers_dramatiq._worker:DramatiqWorker"
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
    Options = DramatiqOptions
    options: DramatiqOptions
    redelivery_cure = "shorten it, or raise consumer_timeout, and `window` with it"

    def __init__(
        self,
        options: DramatiqOptions | None = None,
        *,
        alias: str | None = None,
        **settings: object,
    ) -> None:
        super().__init__(options, alias=alias, **settings)
        self.broker = ConfiguredBroker(self.options, self.alias)
        self._is_eager = self.options.eager and self.broker.kind == "stub"
        self.capabilities = self._exactly()
        self.publisher = publisher_of(self.broker, self.options)

    def _exactly(self) -> Capabilities:
        """Return what this broker can do."""
        kind, options = self.broker.kind, self.options
        narrowed = {
            "priority": bool(self.broker.max_priority),
            "confirmed": options.confirm or kind != "rabbitmq",
            "durable": kind != "stub",
        }
        if self._is_eager:
            narrowed |= {"runs_here": True, "delay": False, "retries": False, "batch": False}
        return self.capabilities.model_copy(update=narrowed)

    @property
    def redelivery_window(self) -> float | None:
        """RabbitMQ's `consumer_timeout`; Redis waits for a worker that gives signs of life."""
        return self.options.window if self.broker.kind == "rabbitmq" else None

    # Handing over.

    def _prepare(self, request: DispatchRequest, body: bytes) -> Packet | Eager:
        return Eager(request, body) if self._is_eager else packet_of(self.broker, request, body)

    def _publish(
        self, messages: Sequence[Packet | Eager], timeout: float
    ) -> Sequence[Sent | Exception]:
        packets = [each for each in messages if isinstance(each, Packet)]
        if not packets:
            eager = [each for each in messages if isinstance(each, Eager)]
            return [each.run(self.options, self._called) for each in eager]
        answers = self.publisher.publish(packets, timeout)
        # After publishing: declaring a queue is what shows that it is not durable.
        durable = {name: self.publisher.durable(name) for name in {p.queue for p in packets}}
        return [
            Sent(packet.id, durable=durable[packet.queue]) if answer is None else answer
            for packet, answer in zip(packets, answers, strict=True)
        ]

    def _called(self, request: DispatchRequest) -> Sent:
        actor = self.broker.dramatiq.actors.get(request.task)
        if actor is None:
            message = f"no actor {request.task!r} at the broker, which runs actors in the call"
            raise RejectedError(ErrorCategory.NOT_FOUND, message)
        return called(request, _function_of(actor))

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return category_of(exc)

    def _maybe_sent(self, exc: Exception) -> bool:
        return not is_certainly_unsent(exc)

    # The rest.

    def _check(self) -> None:
        if is_pickling():
            raise ConfigurationError(f"dispatcher {self.alias!r} (dramatiq): {PICKLES}")

    def _probe(self, *, timeout: float) -> Sequence[str]:
        return self.publisher.probe(self._all_queues(), timeout)

    def _stats(self, *, timeout: float) -> Sequence[Stats]:
        return self.publisher.stats(self._all_queues(), timeout)

    def _moving(self, queues: Sequence[str] | None) -> Claims:
        if not isinstance(self.publisher, RedisPublisher):
            raise ConfigurationError(
                f"dispatcher {self.alias!r} (dramatiq): work can be moved from Redis only, and its "
                f"broker is {self.broker.kind}"
            )
        # Late: only `dispatchers move` claims work to move it.
        from ._claims import RedisClaims

        return RedisClaims(self.publisher, self._all_queues() if queues is None else queues)

    def _all_queues(self) -> list[str]:
        tasks = (task.policy.queue for task in catalogue.all())
        return sorted({*self.broker.known, *filter(None, tasks)})

    def _close(self, timeout: float) -> int:
        self.publisher.close()
        return 0


def _function_of(actor: Any) -> Any:
    """Return what is called: an async actor waits for the event loop of Dramatiq's workers."""
    function = getattr(actor.fn, "__wrapped__", None)
    return function if inspect.iscoroutinefunction(function) else actor
