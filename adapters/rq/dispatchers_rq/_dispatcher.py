"""The producer's side: envelopes as jobs of RQ's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from dispatchers import (
    BackendOptions,
    Capabilities,
    DeadLetterStore,
    DispatchRequest,
    DispatchStatus,
    ErrorCategory,
    PublishingDispatcher,
    RejectedError,
    Sent,
    Stats,
    Worker,
    WorkerOptions,
)
from dispatchers.delivery import Eager
from dispatchers.redis import category_of, is_certainly_unsent, within

from ._broker import Broker
from ._message import id_of, script_args
from ._native import run_in_the_call
from ._options import RQOptions
from ._scripts import DISPATCH, DISPATCH_IN_ORDER

if TYPE_CHECKING:
    from dispatchers.moving import Claims

EAGER = Capabilities(runs_here=True)
"""With `is_async=False`: work runs in the call."""
NO_QUEUE, CONFLICT = -1, -2
BATCH_SIZE = 100
"""Jobs that are sent before their replies are read: the replies wait in the server's memory."""


class Job(NamedTuple):
    """A request, and the arguments of the script that makes it a job."""

    request: DispatchRequest
    args: tuple[Any, ...]


class RQDispatcher(PublishingDispatcher["Job | Eager"]):
    """Hands work over to RQ's queues; `ACCEPTED` is the server's own answer.

    What survives the server depends on the server's settings: see the adapter's README.

    Args:
        options: The validated options; None builds them from `settings`.

        alias: The name the dispatcher is configured under.

        settings: The options by keyword.

    Raises:
        ConfigurationError: An option does not fit, or there is no such connection.
    """

    name = "rq"
    posix_worker = True
    contract = 1
    library = "rq"
    worker: str | None = "dispatchers_rq._worker:RQWorkers"
    capabilities = Capabilities(
        delay=True,
        kills=True,
        retries=True,
        deduplicate=True,
        queues=True,
        batch=True,
        confirmed=True,
        durable=True,
        worker=True,
        dead_letters=True,
        stats=True,
    )
    batch_size = BATCH_SIZE
    stops_at_failure = True
    Options: type[BackendOptions] = RQOptions
    options: RQOptions

    def __init__(
        self, options: RQOptions | None = None, *, alias: str | None = None, **settings: object
    ) -> None:
        super().__init__(options, alias=alias, **settings)
        if self.options.is_async:
            self.broker = Broker(self.options, self.alias)
        else:
            self.capabilities = EAGER

    # Handing over.

    def _prepare(self, request: DispatchRequest, body: bytes) -> Job | Eager:
        if not self.options.is_async:
            return Eager(request, body)
        return Job(request, self._args(request, body))

    def _publish(self, messages: Sequence[Job | Eager], timeout: float) -> list[Sent | Exception]:
        jobs = [each for each in messages if isinstance(each, Job)]
        # A dispatcher is eager or not as a whole: no batch holds both kinds.
        if not jobs:
            eager = [each for each in messages if isinstance(each, Eager)]
            return [each.run(self.options, run_in_the_call, repeats=False) for each in eager]
        with within(timeout):
            replies = DISPATCH.run_many(self.broker.client, [job.args for job in jobs])
            durable = self.broker.durability.durable()
        return [
            self._result(job.request, reply, durable)
            for job, reply in zip(jobs, replies, strict=True)
        ]

    def _publish_in_order(
        self, messages: Sequence[Job | Eager], timeout: float
    ) -> Sequence[Sent | Exception]:
        jobs = [each for each in messages if isinstance(each, Job)]
        if not jobs:
            return self._publish(messages, timeout)  # each runs to its end
        flat = [part for job in jobs for part in (len(job.args), *job.args)]
        with within(timeout):
            replies = DISPATCH_IN_ORDER.run_many(self.broker.client, [flat])[0]
            if isinstance(replies, Exception):
                return [replies] * len(jobs)
            durable = self.broker.durability.durable()
        return [
            self._result(job.request, reply, durable)
            for job, reply in zip(jobs, replies, strict=False)
        ]

    def _args(self, request: DispatchRequest, body: bytes) -> tuple[Any, ...]:
        queue = self.queue_of(request) or self.broker.default_queue
        # A declared queue is made by its first job, as RQ does; any other must exist already, so
        # that a misspelt name is refused.
        declared = queue in self.broker.declared
        serializer = self.options.serializer
        return script_args(request, body, queue, declared=declared, serializer=serializer)

    def _result(
        self, request: DispatchRequest, reply: Any, durable: bool | None
    ) -> Sent | Exception:
        """Return the answer that the script's reply stands for."""
        if isinstance(reply, Exception):
            return reply
        if reply == 1:
            return Sent(id_of(request), durable=durable)
        if reply == NO_QUEUE:
            return self._no_queue(request)
        if reply == CONFLICT:
            message = "other work, with another payload, was dispatched under its idempotency key"
            return RejectedError(ErrorCategory.CONFLICT, message)
        return Sent(reply.decode(), DispatchStatus.DUPLICATE, durable=durable)

    def _no_queue(self, request: DispatchRequest) -> RejectedError:
        name = self.queue_of(request) or self.broker.default_queue
        declared = ", ".join(sorted(self.broker.declared))
        return RejectedError(
            ErrorCategory.NOT_FOUND,
            f"no queue {name!r} in this Redis or in `queues` of {self.alias!r}, which has "
            f"{declared}",
        )

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return category_of(exc)

    def _maybe_sent(self, exc: Exception) -> bool:
        return not is_certainly_unsent(exc)

    # The rest.

    def _probe(self, *, timeout: float) -> Sequence[str]:
        return tuple(self.broker.probe(timeout=timeout)) if self.options.is_async else ()

    def _stats(self, *, timeout: float) -> Sequence[Stats]:
        return self.broker.stats(timeout=timeout)

    def _close(self, timeout: float) -> int:
        if self.options.is_async:
            self.broker.client.connection_pool.disconnect()
        return 0

    def _dead_letters(self) -> DeadLetterStore | None:
        return self.letters or self._failed_jobs

    def _moving(self, queues: Sequence[str] | None) -> Claims | None:
        # Late: only `dispatchers move` claims work to move it.
        from ._claims import RQClaims

        return RQClaims(self.broker, queues) if self.options.is_async else None

    @cached_property
    def _failed_jobs(self) -> DeadLetterStore | None:
        # Late: most producers never look at dead letters.
        from ._dead_letters import FailedJobs

        return FailedJobs(self.broker) if self.options.is_async else None

    def _worker(self, options: WorkerOptions) -> Worker:
        if not self.options.is_async:
            self.worker = None  # the core says that it needs none
        return super()._worker(options)
