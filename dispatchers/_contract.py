"""The contract: `dispatch` never raises, never hangs, and says what is known (C1 to C4, C6, C12).

Callers see `Dispatcher`; an adapter's author inherits `BaseDispatcher` and writes `_send`,
`_category` and `_maybe_sent`. Everything that must hold for every backend is here, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Never, Protocol, final

from pydantic import ValidationError

from . import _report
from ._admission import admit, encoded
from ._batch import Batch
from ._breaker import Breaker
from ._bridge import CUT, on_thread, shielded, within
from ._capabilities import OPTIONS, Capabilities
from ._envelope import head
from ._errors import ConfigurationError, ErrorCategory, RejectedError
from ._guard import Guard
from ._library import is_importable
from ._model import build
from ._net import bounded
from ._options import BackendOptions, options_error
from ._refusal import unsent
from ._request import DispatchRequest
from ._response import DispatchFailure, DispatchResponse, DispatchResponses, DispatchStatus
from ._secrets import secrets_of
from ._verdict import (
    AnswerError,
    counts_against,
    failure,
    safe_text,
    type_name,
    verdict,
)

if TYPE_CHECKING:
    from ._dead import DeadLetterStore
    from ._worker import Worker, WorkerOptions

__all__ = ["CONTRACT", "BaseDispatcher", "Dispatcher", "Item", "Sent"]

CONTRACT = 1
"""The number of the contract between the core and adapters that this core speaks."""

Item = tuple[DispatchRequest, bytes]
"""A request and its envelope."""


class Dispatcher(Protocol):
    """What callers need: anything that hands requests over and answers with responses."""

    @property
    def alias(self) -> str:
        """The name it is configured under."""
        ...

    def dispatch(self, request: DispatchRequest, /) -> DispatchResponse:
        """Hand over one request. Never raises."""
        ...

    async def adispatch(self, request: DispatchRequest, /) -> DispatchResponse:
        """The same without blocking the event loop."""
        ...

    def dispatch_many(self, requests: Iterable[DispatchRequest], /) -> DispatchResponses:
        """Hand over several requests under one deadline. Never raises."""
        ...

    async def adispatch_many(self, requests: Iterable[DispatchRequest], /) -> DispatchResponses:
        """The same without blocking the event loop."""
        ...


class Sent(NamedTuple):
    """What an adapter knows after handing over one envelope."""

    task_id: str | None = None
    """The backend's own identifier of the work."""
    status: DispatchStatus = DispatchStatus.ACCEPTED
    """`ACCEPTED`, `DUPLICATE`, `DEFERRED`, or for work that ran here `EXECUTED` or `FAILED`."""
    confirmed: bool | None = None
    """Whether the backend itself confirmed; None is what the capabilities say."""
    durable: bool | None = None
    """Whether the work survives; None is what the capabilities say."""
    error: DispatchFailure | None = None
    """Why, with `FAILED`."""
    exception: BaseException | None = None
    """What the task raised, with `FAILED`."""


class BaseDispatcher(ABC):
    """The base of every adapter: `dispatch` and its kin are final, `_send` is yours.

    Args:
        options: The validated options; None builds them from `settings`.

        alias: The name the dispatcher is configured under; by default the backend's.

        settings: The options by keyword, for a dispatcher built from code.

    Raises:
        ConfigurationError: An option is unknown or does not fit.
    """

    name: str
    """The registered name of the backend."""
    contract: int
    """The contract number the class was written for. No default: writing it is reading it."""
    capabilities: Capabilities
    """On the class what is possible at most; an instance may narrow it."""
    Options: type[BackendOptions] = BackendOptions
    """The options model."""
    library: str | None = None
    """The module whose presence makes the backend available; None needs nothing."""
    guarded: bool = False
    """Run `_send` under the guard, for a client that cannot be bounded otherwise."""
    required: ClassVar[tuple[str, ...]] = ("_send", "_category", "_maybe_sent")
    """What a concrete class must define."""

    def __init__(
        self, options: BackendOptions | None = None, *, alias: str | None = None, **settings: object
    ) -> None:
        self.alias: str = alias or self.name
        self.options = self._validated(options, settings)
        self._closed = False
        self._breaker = self._new_breaker()
        self._guard = Guard(f"dispatchers-{self.alias}") if self.guarded else None
        self._secrets = secrets_of(self.options)

    @classmethod
    def _validated(
        cls, options: BackendOptions | None, settings: dict[str, object]
    ) -> BackendOptions:
        if options is not None and not settings:
            return options
        try:
            return cls.Options.model_validate({**(options.__dict__ if options else {}), **settings})
        except ValidationError as exc:
            raise options_error(exc, cls.Options, f"{cls.__name__}") from None

    @cached_property
    def _supported(self) -> frozenset[str]:
        """The options that may be used; looked at late, as an instance may narrow them."""
        return frozenset(o for o in OPTIONS if self.capabilities.supports(o))

    def _new_breaker(self) -> Breaker | None:
        settings = self.options.breaker
        return None if settings is False or self.capabilities.runs_here else Breaker(settings)

    # What callers use.

    @classmethod
    def is_available(cls) -> bool:
        """Whether the backend's library is installed. Reads configuration only, never raises."""
        return cls.library is None or is_importable(cls.library)

    def check(self, *, contact: bool = False) -> None:
        """Check what can be known at start-up; with `contact`, reach the backend as well.

        Raises:
            ConfigurationError: It would reject every dispatch, or could not be reached.
        """
        self._check()
        if contact:
            self._contact()

    @final
    def dispatch(self, request: DispatchRequest, /) -> DispatchResponse:
        """Hand over one request. Never raises an `Exception`, never outlasts its deadline."""
        started = monotonic()
        contacted = False
        try:
            if self._breaker is not None and self._breaker.refuses():
                return self._refused_at_once(request, started)
            request = admit(self, request)
            body = encoded(self, request)
            timeout = self._time_left(request, started)
            contacted = True
            sent = self._bounded_send(request, body, timeout)
            return self._sent(request, sent, started)
        except Exception as exc:  # noqa: BLE001 - C1
            return self._not_sent(request, exc, started, contacted=contacted)

    @final
    async def adispatch(self, request: DispatchRequest, /) -> DispatchResponse:
        """Hand over one request without blocking the event loop.

        Cancelling it does not unsend: what became of it still reaches the hooks.
        """
        return await shielded(self._adispatch(request))

    @final
    def dispatch_many(self, requests: Iterable[DispatchRequest], /) -> DispatchResponses:
        """Hand over several requests under one deadline; one response each, in order."""
        batch = Batch(self, requests)
        try:
            if batch.items:
                batch.take(self._send_batch(batch.items, batch.time_left()))
        except Exception as exc:  # noqa: BLE001 - C1
            batch.fail(exc)
        return batch.responses()

    @final
    async def adispatch_many(self, requests: Iterable[DispatchRequest], /) -> DispatchResponses:
        """Hand over several requests without blocking the event loop."""
        return await shielded(self._adispatch_many(requests))

    def close(self, timeout: float = 5.0) -> int:
        """Finish what is under way within `timeout` seconds, then refuse further requests.

        Returns:
            How many pieces of accepted work were left undone; 0 for a backend that keeps them.
        """
        self._closed = True
        left = self._close(timeout)
        return left + (self._guard.close(timeout) if self._guard else 0)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.alias!r}>"

    def __reduce__(self) -> Never:
        """It holds connections and threads, which are of one process.

        Raises:
            TypeError: Always; the message says what to pass instead.
        """
        raise TypeError(
            f"dispatcher {self.alias!r} cannot be copied or pickled: "
            "pass its alias, and call get_dispatcher(alias) there"
        )

    # What an adapter's author writes.

    @abstractmethod
    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        """Hand over one envelope within `timeout` seconds.

        May raise anything; `RejectedError` says that it was certainly not handed over, and why.
        """

    @abstractmethod
    def _category(self, exc: Exception) -> ErrorCategory | None:
        """The category of an exception that `_send` raised; None leaves it to the core."""

    @abstractmethod
    def _maybe_sent(self, exc: Exception) -> bool:
        """Whether the work may have been handed over although `_send` raised `exc`."""

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        """Hand over several envelopes; one result each, in order, an exception where it failed.

        Raising says the same of all of them. The default hands over one after the other.
        """
        until = monotonic() + timeout
        return [self._one_of_many(request, body, until) for request, body in items]

    async def _asend(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        """Like `_send` on the running event loop; the default runs `_send` on a thread."""
        return await on_thread(
            lambda left: self._bounded_send(request, body, left),
            timeout=timeout,
            cut=not self.capabilities.runs_here,
        )

    async def _asend_many(
        self, items: Sequence[Item], *, timeout: float
    ) -> Sequence[Sent | Exception]:
        """Like `_send_many` on the running event loop; the default runs it on a thread.

        Where neither is written, `_asend` hands over one after the other.
        """
        if type(self)._send_many is BaseDispatcher._send_many:
            until = monotonic() + timeout
            return [await self._aone_of_many(request, body, until) for request, body in items]
        return await on_thread(
            lambda left: self._send_batch(items, left),
            timeout=timeout,
            cut=not self.capabilities.runs_here,
        )

    def _check(self) -> None:  # noqa: B027 - nothing to check is fine
        """Raise `ConfigurationError` for what is wrong and can be known without contact."""

    def _probe(self, *, timeout: float) -> None:  # noqa: B027 - nothing to reach is fine
        """Reach the backend, or raise."""

    @final
    def _contact(self) -> None:
        """Reach the backend within the deadline, whatever the client's probe does."""
        deadline = self.options.deadline
        try:
            bounded(lambda: self._probe(timeout=deadline), timeout=deadline)
        except Exception as exc:
            text = safe_text(exc, self._secrets)
            raise ConfigurationError(
                f"dispatcher {self.alias!r} ({self.name}) could not be reached: "
                f"{type_name(exc)}: {text}"
            ) from exc

    def _close(self, timeout: float) -> int:
        """Release what is held; return how many pieces of accepted work were left undone."""
        del timeout
        return 0

    def _worker(self, options: WorkerOptions) -> Worker:
        """The worker that runs this dispatcher's work.

        Raises:
            ConfigurationError: There is none for this backend.
        """
        del options
        raise ConfigurationError(
            f"backend {self.name!r} has no worker: it needs none, or brings its own"
        )

    def _dead_letters(self) -> DeadLetterStore | None:
        """The backend's own dead letters, or None where it keeps none."""
        return None

    def _cancel(self, task_id: str) -> bool:
        """Reserved: take back accepted work that has not begun."""
        del task_id
        return False

    # How the contract is kept.

    def queue_of(self, request: DispatchRequest) -> str | None:
        """The queue a request goes to: its own, else the configured one, else None."""
        return request.queue or self.options.queue

    def _time_left(self, request: DispatchRequest, started: float) -> float:
        """Seconds left for contacting the backend, if it may be contacted at all."""
        if self.capabilities.runs_here:
            return 0.0
        left = (request.deadline or self.options.deadline) - (monotonic() - started)
        if left <= 0:
            raise RejectedError(ErrorCategory.TIMEOUT, "the deadline passed before contact")
        if self._breaker is not None and not self._breaker.allow():
            raise RejectedError(ErrorCategory.CIRCUIT_OPEN, self._open_error.message)
        return left

    @cached_property
    def _open_error(self) -> DispatchFailure:
        message = (
            f"backend {self.name!r} failed repeatedly: {self.alias!r} waits before it is tried"
        )
        return failure(ErrorCategory.CIRCUIT_OPEN, message, None, retryable=True)

    def _refused_at_once(self, request: object, started: float) -> DispatchResponse:
        """The answer while the breaker is open: there is nothing to find out, or to prepare."""
        error, elapsed = self._open_error, monotonic() - started
        return _report.told(unsent(self.alias, self.name, request, REJECTED, error, None, elapsed))

    def _bounded_send(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        if self._guard is None:
            return self._send(request, body, timeout=timeout)
        return self._guard.call(
            lambda: self._send(request, body, timeout=timeout),
            timeout=timeout,
            on_late=lambda late: _report.late(self, request, late.error),
        )

    def _send_batch(self, items: Sequence[Item], timeout: float) -> Sequence[Sent | Exception]:
        native = type(self)._send_many is not BaseDispatcher._send_many
        if self._guard is None or not native:
            return self._send_many(items, timeout=timeout)
        return self._guard.call(lambda: self._send_many(items, timeout=timeout), timeout=timeout)

    async def _asend_bounded(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        """`_asend`, cut at the deadline unless the work runs here."""
        work = self._asend(request, body, timeout=timeout)
        return await (work if self.capabilities.runs_here else within(work, timeout + CUT))

    async def _asend_batch(
        self, items: Sequence[Item], timeout: float
    ) -> Sequence[Sent | Exception]:
        work = self._asend_many(items, timeout=timeout)
        return await (work if self.capabilities.runs_here else within(work, timeout + 1.5 * CUT))

    def _one_of_many(self, request: DispatchRequest, body: bytes, until: float) -> Sent | Exception:
        try:
            return self._bounded_send(request, body, self._left_of_many(until))
        except Exception as exc:  # noqa: BLE001 - C1
            return exc

    async def _aone_of_many(
        self, request: DispatchRequest, body: bytes, until: float
    ) -> Sent | Exception:
        try:
            return await self._asend_bounded(request, body, self._left_of_many(until))
        except Exception as exc:  # noqa: BLE001 - C1
            return exc

    def _left_of_many(self, until: float) -> float:
        left = until - monotonic()
        if left <= 0 and not self.capabilities.runs_here:
            raise RejectedError(ErrorCategory.TIMEOUT, "the deadline passed before its turn")
        return left

    async def _adispatch(self, request: DispatchRequest) -> DispatchResponse:
        started = monotonic()
        contacted = False
        try:
            request = admit(self, request)
            body = encoded(self, request)
            timeout = self._time_left(request, started)
            contacted = True
            sent = await self._asend_bounded(request, body, timeout)
            return self._sent(request, sent, started)
        except Exception as exc:  # noqa: BLE001 - C1
            return self._not_sent(request, exc, started, contacted=contacted)

    async def _adispatch_many(self, requests: Iterable[DispatchRequest]) -> DispatchResponses:
        batch = Batch(self, requests)
        try:
            if batch.items:
                batch.take(await self._asend_batch(batch.items, batch.time_left()))
        except Exception as exc:  # noqa: BLE001 - C1
            batch.fail(exc)
        return batch.responses()

    def _sent(self, request: DispatchRequest, sent: Sent, started: float) -> DispatchResponse:
        """The response to what an adapter handed over, told to breaker, hooks and log."""
        task_id, status, confirmed, durable, error, exception = _checked(self, sent)
        capabilities = self.capabilities
        values = {
            "request_id": request.id,
            "task_id": task_id,
            "dispatcher": self.alias,
            "backend": self.name,
            "status": status,
            "confirmed": capabilities.confirmed if confirmed is None else confirmed,
            "durable": capabilities.durable if durable is None else durable,
            "waived": self._waived(request) if self.options.waive else (),
            "error": error,
            "elapsed": monotonic() - started,
            "request": request,
        }
        private = {"_exception": exception} if exception else None
        if self._breaker is not None:
            _report.breaker(self, self._breaker.record_success())
        return _report.told(build(DispatchResponse, values, private))

    def _waived(self, request: DispatchRequest) -> tuple[str, ...]:
        return tuple(sorted(head(request).needs - self._supported))

    def _not_sent(
        self,
        request: object,
        exc: Exception,
        started: float,
        *,
        contacted: bool,
        counted: bool = True,
    ) -> DispatchResponse:
        """The response to what could not be handed over, told to breaker, hooks and log."""
        status, error = verdict(self, exc, contacted=contacted)
        elapsed = monotonic() - started
        response = unsent(self.alias, self.name, request, status, error, exc, elapsed)
        if contacted and counted and self._breaker is not None:
            bad = counts_against(status, error.category)
            record = self._breaker.record_failure if bad else self._breaker.record_neutral
            _report.breaker(self, record())
        return _report.told(response)


# Looked up once: an enum's members are attributes that Python computes.
FAILED, REJECTED = DispatchStatus.FAILED, DispatchStatus.REJECTED
ANSWERS = (
    DispatchStatus.EXECUTED,
    DispatchStatus.ACCEPTED,
    DispatchStatus.DUPLICATE,
    DispatchStatus.DEFERRED,
    FAILED,
)
"""A tuple: looked through by identity, while an enum's hash is computed in Python."""


def _checked(dispatcher: BaseDispatcher, sent: object) -> Sent:
    """An answer that makes sense: callers must not be told what an adapter mistyped."""
    if not isinstance(sent, Sent):
        raise AnswerError(f"backend {dispatcher.name!r} answered with no Sent")
    task_id, status, _, _, error, _ = sent
    if type(status) is not DispatchStatus or status not in ANSWERS:
        raise AnswerError(f"backend {dispatcher.name!r} answered with a status that none may give")
    if (error is None) is (status is FAILED):
        said = "without" if error is None else "with"
        raise AnswerError(f"backend {dispatcher.name!r} answered {status.value} {said} an error")
    if not (task_id is None or isinstance(task_id, str)):
        raise AnswerError(f"backend {dispatcher.name!r} answered with a task id that is no text")
    return sent
