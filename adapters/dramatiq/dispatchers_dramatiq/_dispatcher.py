"""The producer's side: envelopes as Dramatiq messages."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cached_property
from time import monotonic
from typing import Any, Protocol

from dispatchers import (
    BaseDispatcher,
    Capabilities,
    ConfigurationError,
    DeadLetterStore,
    DispatchFailure,
    DispatchRequest,
    DispatchStatus,
    ErrorCategory,
    RejectedError,
    RunSettings,
    Sent,
    Worker,
    WorkerOptions,
    run_settings,
)
from dispatchers.stores import dead_letters

from ._errors import category_of, is_certainly_unsent
from ._message import NATIVE, Packet, packet_of
from ._options import DramatiqOptions
from ._place import Place

__all__ = ["DramatiqDispatcher"]

Item = tuple[DispatchRequest, bytes]


class Publisher(Protocol):
    """Hands packets to a broker, within bounds."""

    def publish(self, packets: Sequence[Packet], until: float) -> list[Exception | None]:
        """Publish; None for each that the broker has, else why it has it not."""
        ...

    def probe(self, timeout: float) -> None:
        """Reach the broker, or raise."""
        ...

    def waiting(self, queues: Sequence[str], timeout: float) -> int:
        """How many messages wait in these queues, delayed ones among them."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


class DramatiqDispatcher(BaseDispatcher):
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
    )
    Options = DramatiqOptions
    options: DramatiqOptions

    def __init__(
        self,
        options: DramatiqOptions | None = None,
        *,
        alias: str | None = None,
        **settings: object,
    ) -> None:
        super().__init__(options, alias=alias, **settings)
        self.place = Place(self.options, self.alias)
        self.capabilities = self._exactly()
        self._publisher = _publisher(self.place, self.options)

    def _exactly(self) -> Capabilities:
        """What this broker can do."""
        place, options = self.place, self.options
        return self.capabilities.model_copy(
            update={
                "priority": bool(place.max_priority),
                "confirmed": options.confirm or place.kind != "rabbitmq",
                "durable": place.kind != "stub",
                "dead_letters": options.dead_letters is not None,
            }
        )

    # Handing over.

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        if self.options.eager and NATIVE in request.headers and self.place.kind == "stub":
            return self._eagerly(request)
        packet = self._packet(request, body)
        answer = self._publisher.publish([packet], monotonic() + timeout)[0]
        if answer is not None:
            raise answer
        return Sent(packet.id)

    def _eagerly(self, request: DispatchRequest) -> Sent:
        """One of Dramatiq's own actors, run in the call."""
        payload: Any = request.payload
        actor = self.place.broker.actors.get(request.task)
        if actor is None:
            message = f"no actor {request.task!r} at the broker, which runs actors in the call"
            raise RejectedError(ErrorCategory.NOT_FOUND, message)
        try:
            actor(*payload["args"], **payload["kwargs"])
        except Exception as exc:  # noqa: BLE001 - the answer
            error = DispatchFailure(
                category=ErrorCategory.HANDLER,
                retryable=False,
                exception_type=type(exc).__name__,
                message=f"actor {request.task!r} failed with {type(exc).__name__}",
            )
            return Sent(request.id, DispatchStatus.FAILED, error=error, exception=exc)
        return Sent(request.id, DispatchStatus.EXECUTED)

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        until = monotonic() + timeout
        packets = [self._packet_or_error(request, body) for request, body in items]
        good = [packet for packet in packets if isinstance(packet, Packet)]
        answers = iter(self._publisher.publish(good, until) if good else ())
        return [
            _result(packet, next(answers)) if isinstance(packet, Packet) else packet
            for packet in packets
        ]

    def _packet_or_error(self, request: DispatchRequest, body: bytes) -> Packet | Exception:
        try:
            return self._packet(request, body)
        except RejectedError as exc:
            return exc

    def _packet(self, request: DispatchRequest, body: bytes) -> Packet:
        name = request.queue or self.place.default_queue
        if not self.place.knows(name):
            raise RejectedError(
                ErrorCategory.NOT_FOUND,
                f"no queue {name!r} at the broker or in `queues` of {self.alias!r}: "
                f"there are {', '.join(sorted(self.place.known))}",
            )
        return packet_of(self.place, request, body, name)

    def publish(self, packets: Sequence[Packet]) -> list[Exception | None]:
        """Publish what follows from a run; None for each that the broker has. Raises nothing."""
        until = monotonic() + self.options.deadline
        try:
            return self._publisher.publish(packets, until)
        except Exception as exc:  # noqa: BLE001 - the answer of them all
            return [exc] * len(packets)

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return category_of(exc)

    def _maybe_sent(self, exc: Exception) -> bool:
        return not is_certainly_unsent(exc)

    # The rest.

    def _check(self) -> None:
        """A run that takes longer than the redelivery window is begun again while it goes on."""
        from dispatchers import catalogue

        if self.place.kind != "rabbitmq":
            return
        window = self.options.window
        for task in catalogue.all():
            if (task.time_limit or 0) > window:
                raise ConfigurationError(
                    f"task {task.name!r} may run for {task.time_limit} s, and after {window:.0f} s "
                    f"the broker of {self.alias!r} gives its work to another worker: shorten it, "
                    "or raise consumer_timeout, and `window` with it"
                )

    def _probe(self, *, timeout: float) -> None:
        self._publisher.probe(timeout)

    def _close(self, timeout: float) -> int:
        self._publisher.close()
        return 0

    def _dead_letters(self) -> DeadLetterStore | None:
        return self.letters

    @cached_property
    def letters(self) -> DeadLetterStore | None:
        """The configured store for work that failed for good."""
        spec = self.options.dead_letters
        return None if spec is None else dead_letters(spec)

    @cached_property
    def run_settings(self) -> RunSettings:
        """What the options say about runs."""
        return run_settings(self.options)

    def waiting(self, queues: Sequence[str]) -> int:
        """How many messages wait in these queues, delayed ones among them."""
        return self._publisher.waiting(queues, self.options.deadline)

    def _worker(self, options: WorkerOptions) -> Worker:
        from ._worker import DramatiqWorker

        return DramatiqWorker(self, options)


def _publisher(place: Place, options: DramatiqOptions) -> Publisher:
    importlib.import_module("encodings.idna")  # not by a name's first resolution, beside a fork
    if place.kind == "redis":
        from ._redis import RedisPublisher

        return RedisPublisher(place.broker)
    if place.kind == "rabbitmq":
        from ._links import RabbitPublisher

        return RabbitPublisher(
            place.broker, place.address, confirm=options.confirm, mandatory=options.mandatory
        )
    from ._stub import StubPublisher

    return StubPublisher(place.broker)


def _result(packet: Packet, answer: Exception | None) -> Sent | Exception:
    return Sent(packet.id) if answer is None else answer
