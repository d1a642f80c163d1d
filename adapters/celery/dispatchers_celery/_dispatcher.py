"""The producer's side: envelopes as Celery messages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from time import monotonic
from typing import Any

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
    Sent,
    Worker,
    WorkerOptions,
)
from dispatchers.stores import dead_letters

from ._app import Application
from ._errors import category_of, is_certainly_unsent
from ._link import Link, Message, ReturnedError
from ._links import Links
from ._message import NATIVE, message_of
from ._options import CeleryOptions

__all__ = ["CeleryDispatcher"]

Item = tuple[DispatchRequest, bytes]
AT_ONCE = 100
"""Messages in one pipeline, or under way without a confirm."""


class CeleryDispatcher(BaseDispatcher):
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
    Options = CeleryOptions
    options: CeleryOptions

    def __init__(
        self, options: CeleryOptions | None = None, *, alias: str | None = None, **settings: object
    ) -> None:
        super().__init__(options, alias=alias, **settings)
        self.application = Application(self.options, self.alias)
        self.capabilities = self._exactly()
        self._links = Links(
            self.application, confirm=self.options.confirm, mandatory=self.options.mandatory
        )

    def _exactly(self) -> Capabilities:
        """What this application and its broker can do."""
        application, options = self.application, self.options
        volatile = application.transport in ("memory", "filesystem")
        return self.capabilities.model_copy(
            update={
                "priority": application.has_priorities,
                "confirmed": options.confirm or application.transport != "amqp",
                "durable": not volatile,
                "dead_letters": options.dead_letters is not None,
            }
        )

    # Handing over.

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        if NATIVE in request.headers and self.application.app.conf.task_always_eager:
            return self._eagerly(request)
        result = self._send_many([(request, body)], timeout=timeout)[0]
        if isinstance(result, Exception):
            raise result
        return result

    def _eagerly(self, request: DispatchRequest) -> Sent:
        """One of Celery's own tasks in an application that runs them in the call."""
        payload: Any = request.payload
        task = self.application.app.tasks.get(request.task)
        if task is None:
            message = f"no task {request.task!r} in the application, which runs tasks in the call"
            raise RejectedError(ErrorCategory.NOT_FOUND, message)
        result = task.apply(args=payload["args"], kwargs=payload["kwargs"], throw=False)
        if not result.failed():
            return Sent(result.id, DispatchStatus.EXECUTED)
        error = DispatchFailure(
            category=ErrorCategory.HANDLER,
            retryable=False,
            exception_type=type(result.result).__name__,
            message=f"task {request.task!r} failed with {type(result.result).__name__}",
        )
        return Sent(result.id, DispatchStatus.FAILED, error=error, exception=result.result)

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        messages = [self._message_or_error(request, body) for request, body in items]
        good = [message for message in messages if not isinstance(message, Exception)]
        answers = iter(self.publish(good, timeout=timeout))
        return [
            message if isinstance(message, Exception) else _result(message, next(answers))
            for message in messages
        ]

    def _message_or_error(self, request: DispatchRequest, body: bytes) -> Message | Exception:
        try:
            return self._message(request, body)
        except RejectedError as exc:
            return exc

    def _message(self, request: DispatchRequest, body: bytes) -> Message:
        name = self.queue_of(request) or self.application.default_queue
        queue = self.application.queue(name)
        if queue is None:
            raise RejectedError(
                ErrorCategory.NOT_FOUND,
                f"no queue {name!r} in the application or in `queues` of {self.alias!r}: "
                f"there are {', '.join(sorted(self.application.known))}",
            )
        return message_of(self.application, request, body, queue)

    def publish(self, messages: Sequence[Message], *, timeout: float) -> list[Exception | None]:
        """Publish messages; None for each that the broker has, else why it has it not.

        Raises:
            RejectedError: There is no connection: nothing was handed over.
        """
        if not messages:
            return []
        until = monotonic() + timeout
        answers: list[Exception | None] = []
        with self._links.lent(timeout) as link:
            for start in range(0, len(messages), AT_ONCE):
                if link.usable:
                    answers += self._published(link, messages[start : start + AT_ONCE], until)
        untried = RejectedError(ErrorCategory.UNAVAILABLE, "the connection failed before its turn")
        return [*answers, *[untried] * (len(messages) - len(answers))]

    def _published(
        self, link: Link, messages: Sequence[Message], until: float
    ) -> list[Exception | None]:
        """What came back is tried once more, its queue declared again: someone deleted it."""
        answers = link.publish(messages, until)
        returned = [n for n, each in enumerate(answers) if isinstance(each, ReturnedError)]
        if returned:
            link.forget_queues()
            again = link.publish([messages[n] for n in returned], until)
            for place, answer in zip(returned, again, strict=True):
                answers[place] = answer
        return answers

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return category_of(exc)

    def _maybe_sent(self, exc: Exception) -> bool:
        return not is_certainly_unsent(exc)

    # The rest.

    def _check(self) -> None:
        """A run that takes longer than the redelivery window is begun again while it goes on."""
        from dispatchers import catalogue

        window = self.application.window
        for task in catalogue.all():
            if (task.time_limit or 0) > window:
                raise ConfigurationError(
                    f"task {task.name!r} may run for {task.time_limit} s, and after {window:.0f} s "
                    f"the broker of {self.alias!r} gives its work to another worker: shorten it, "
                    "or raise visibility_timeout or consumer_timeout, and `window` with it"
                )

    def _probe(self, *, timeout: float) -> None:
        with self._links.lent(timeout):
            pass

    def _close(self, timeout: float) -> int:
        self._links.close()
        return 0

    def _dead_letters(self) -> DeadLetterStore | None:
        return self.letters

    @cached_property
    def letters(self) -> DeadLetterStore | None:
        """The configured store for work that failed for good."""
        spec = self.options.dead_letters
        return None if spec is None else dead_letters(spec)

    def _worker(self, options: WorkerOptions) -> Worker:
        from ._worker import CeleryWorker

        return CeleryWorker(self, options)


def _result(message: Message, answer: Exception | None) -> Sent | Exception:
    return Sent(message.id) if answer is None else answer
