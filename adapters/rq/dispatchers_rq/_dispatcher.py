"""The producer's side: envelopes as jobs of RQ's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from redis import Redis

from dispatchers import (
    BaseDispatcher,
    Capabilities,
    ConfigurationError,
    DeadLetterStore,
    DispatchRequest,
    DispatchStatus,
    ErrorCategory,
    RejectedError,
    Sent,
    Worker,
    WorkerOptions,
    run_envelope,
    run_settings,
)
from dispatchers.redis import category_of, is_certainly_unsent
from dispatchers.stores import dead_letters, load_object

from ._eager import answer, run_native
from ._keys import id_of, queue_key
from ._letters import FailedJobs
from ._link import Link, Reply
from ._message import NATIVE, script_args
from ._options import RQOptions
from ._scripts import DISPATCH

__all__ = ["RQDispatcher"]

Item = tuple[DispatchRequest, bytes]


class RQDispatcher(BaseDispatcher):
    """Hands work over to RQ's queues: `ACCEPTED` is Redis' answer that job and queue have it.

    What of it survives the server is the server's setting: see the adapter's README.

    Args:
        options: The validated options; None builds them from `settings`.

        alias: The name the dispatcher is configured under.

        settings: The options by keyword.

    Raises:
        ConfigurationError: An option does not fit, or there is no such connection.
    """

    name = "rq"
    contract = 1
    library = "rq"
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
    )
    Options = RQOptions
    options: RQOptions

    def __init__(
        self, options: RQOptions | None = None, *, alias: str | None = None, **settings: object
    ) -> None:
        super().__init__(options, alias=alias, **settings)
        if self.options.is_async:
            self.place = self._place()
            self.link = Link(self.place)
        else:
            self.capabilities = EAGER

    def _place(self) -> str | Redis:
        """The address, or the client whose settings are taken."""
        given, url = self.options.connection, self.options.url
        if (given is None) is (url is None):
            raise ConfigurationError(
                f"dispatcher {self.alias!r} (rq): give `connection`, a redis.Redis as "
                "'package.module:attribute', or `url`, the server's address, and not both"
            )
        if url is not None:
            return url
        found: Any = load_object("connection", given) if isinstance(given, str) else given
        return found  # the link says what is wrong with it

    # Handing over.

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        if not self.options.is_async:
            return self._eagerly(request, body)
        return self._sent_as(
            request, self.link.run(DISPATCH, self._args(request, body), timeout=timeout)
        )

    def _eagerly(self, request: DispatchRequest, body: bytes) -> Sent:
        if NATIVE in request.headers:
            return run_native(request)
        return answer(run_envelope(body, settings=run_settings(self.options)))

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        if not self.options.is_async:
            return super()._send_many(items, timeout=timeout)
        args = [self._args(request, body) for request, body in items]
        replies = self.link.run_many(DISPATCH, args, timeout=timeout)
        return [self._result(item[0], reply) for item, reply in zip(items, replies, strict=True)]

    def _result(self, request: DispatchRequest, reply: Reply) -> Sent | Exception:
        if isinstance(reply, Exception):
            return reply
        try:
            return self._sent_as(request, reply)
        except RejectedError as exc:
            return exc

    def _args(self, request: DispatchRequest, body: bytes) -> tuple[Any, ...]:
        queue = self.queue_of(request) or self.default_queue
        return script_args(request, body, queue, declared=queue in self.declared)

    def _sent_as(self, request: DispatchRequest, reply: Any) -> Sent:
        """What the script's reply says."""
        if reply == 1:
            return Sent(id_of(request))
        if reply == -1:
            name = self.queue_of(request) or self.default_queue
            raise RejectedError(
                ErrorCategory.NOT_FOUND,
                f"no queue {name!r} in this Redis or in `queues` of {self.alias!r}, which has "
                f"{', '.join(sorted(self.declared))}",
            )
        return Sent(_text(reply), DispatchStatus.DUPLICATE)

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return category_of(exc)

    def _maybe_sent(self, exc: Exception) -> bool:
        return not is_certainly_unsent(exc)

    # Queues.

    @property
    def default_queue(self) -> str:
        """Where work goes that names no queue: RQ's own word for it, unless configured."""
        return self.options.queue or "default"

    @cached_property
    def declared(self) -> frozenset[str]:
        """The queues that the configuration names; others have to be there already."""
        return frozenset({self.default_queue, *self.options.queues})

    def queues(self, *, timeout: float) -> list[str]:
        """The configured queues; where none is, all that this Redis knows."""
        if self.options.queue or self.options.queues:
            return sorted(self.declared)
        from dispatchers.redis import within

        with within(timeout):
            known = self.link.client.smembers("rq:queues")
        return sorted({self.default_queue, *(_text(each)[len(queue_key("")) :] for each in known)})

    # The rest.

    def _probe(self, *, timeout: float) -> None:
        if self.options.is_async:
            from ._probe import probe

            probe(self, timeout=timeout)

    def _close(self, timeout: float) -> int:
        if self.options.is_async:
            self.link.close()
        return 0

    def _dead_letters(self) -> DeadLetterStore | None:
        if not self.options.is_async:
            return self.letters
        return self.letters or FailedJobs(self)

    @cached_property
    def letters(self) -> DeadLetterStore | None:
        """The store that is configured beside RQ's failed jobs."""
        spec = self.options.dead_letters
        return None if spec is None else dead_letters(spec)

    def _worker(self, options: WorkerOptions) -> Worker:
        if not self.options.is_async:
            return super()._worker(options)
        from ._worker import RQWorkers

        return RQWorkers(self, options)

    @property
    def address(self) -> str:
        """Host and port, for messages."""
        if isinstance(self.place, str):
            return urlsplit(self.place).netloc.rpartition("@")[2]
        settings = self.place.connection_pool.connection_kwargs
        return f"{settings.get('host', 'localhost')}:{settings.get('port', 6379)}"


EAGER = Capabilities(runs_here=True)
"""Of work that runs in the call."""


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
