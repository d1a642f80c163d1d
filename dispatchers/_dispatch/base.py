"""The contract: `dispatch` never raises, never hangs, and says what is known (C1 to C4, C6, C12).

Callers see `Dispatcher`; an adapter's author inherits `BaseDispatcher` and writes `_send`,
`_category` and `_maybe_sent`. Everything that must hold for every backend is here, once.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import cached_property, partial
from time import monotonic
from typing import Any, ClassVar, final

from dispatchers._dispatch import reporting as _report
from dispatchers._dispatch.admission import Limits, admit
from dispatchers._dispatch.batch import Batch, is_hurried
from dispatchers._dispatch.circuit_breaker import Breaker
from dispatchers._dispatch.configured import ConfiguredBackend
from dispatchers._dispatch.error_mapping import (
    AnswerError,
    ErrorMapping,
    counts_against,
    failure,
    is_final,
    is_in_doubt,
    map_error,
    out_of_time,
    untried,
)
from dispatchers._dispatch.last_resort import ALL_REJECTED, ALL_UNKNOWN, REJECTED, UNKNOWN
from dispatchers._dispatch.protocol import Item, Sent, is_instance
from dispatchers._dispatch.reporting import unsent
from dispatchers._dispatch.shared_sending import GroupError, SharedSending
from dispatchers._errors import ErrorCategory, RejectedError
from dispatchers._models.base import build
from dispatchers._models.options import BackendOptions
from dispatchers._models.request import DispatchRequest
from dispatchers._models.response import (
    DispatchFailure,
    DispatchResponse,
    DispatchResponses,
    DispatchStatus,
)
from dispatchers._runtime.awaited_call import AwaitedCall, running_loop
from dispatchers._runtime.cancellation import CUT, shielded, within
from dispatchers._runtime.fork import generation, notice_fork
from dispatchers._runtime.guard import Guard
from dispatchers._runtime.loop_thread import Ended
from dispatchers._runtime.to_thread import begin_on_thread, on_thread


class BaseDispatcher(ConfiguredBackend):
    """The base of every adapter: `dispatch` and its kin are final, `_send` is yours.

    Args:
        options: The validated options; None builds them from `settings`.

        alias: The name the dispatcher is configured under; by default the backend's.

        settings: The options by keyword, for a dispatcher built from code.

    Raises:
        ConfigurationError: An option is unknown or does not fit.
    """

    _hands_over_at_once: ClassVar[bool] = False
    """`_send` never waits, so that a coroutine may call it."""
    guarded: bool = False
    """Run `_send` under the guard, for a client that cannot be bounded otherwise."""
    shares_sending: bool = False
    """Hand over what several callers dispatch at once in one `_send_many`, on a thread of one."""
    stops_at_failure: bool = False
    """`_send_in_order` hands over many at once: what is held in a lane need not go one by one."""
    required: ClassVar[tuple[str, ...]] = ("_send", "_category", "_maybe_sent")
    """What a concrete class must define."""

    def __init__(
        self, options: BackendOptions | None = None, *, alias: str | None = None, **settings: object
    ) -> None:
        super().__init__(options, alias=alias, **settings)
        self._closed = False
        self._breaker = self._new_breaker()
        self._guard = Guard(f"dispatchers-{self.alias}") if self.guarded else None

    @cached_property
    def _limits(self) -> Limits:
        """Read late, because an instance may narrow its capabilities."""
        return Limits.of(self.alias, self.name, self.options, self.capabilities)

    def _new_breaker(self) -> Breaker | None:
        settings = self.options.breaker
        return None if settings is False or self.capabilities.runs_here else Breaker(settings)

    # What callers use.

    @final
    def dispatch(self, request: DispatchRequest, /) -> DispatchResponse:
        """Hand over one request. Never raises an `Exception`, never outlasts its deadline."""
        contacted, started = False, 0.0
        try:
            if not generation[0]:  # asked here: a call for it would cost every dispatch
                notice_fork()
            started = monotonic()
            if self._breaker is not None and not self._breaker.allow():
                return self._refused_at_once(request, started)
            request, body, waived = admit(self._limits, request)
            timeout = self._time_left(request, started)
            contacted = True
            sent = (
                self._bounded_send(request, body, timeout)
                if (sharing := self._sharing) is None
                else self._shared_send(sharing, request, body, timeout)
            )
            return self._announce(self._sent(request, sent, started, waived))
        except Exception as exc:  # noqa: BLE001 - C1
            try:
                return self._announce(self._not_sent(request, exc, started, contacted=contacted))
            except Exception:  # noqa: BLE001 - C1: no stack or memory is left to answer with
                return UNKNOWN if contacted else REJECTED

    @final
    async def adispatch(self, request: DispatchRequest, /) -> DispatchResponse:
        """Hand over one request without blocking the event loop.

        Cancelling it does not unsend: what became of it still reaches the hooks.
        """
        contacted, started = False, 0.0
        try:
            if self._hands_over_at_once:
                running_loop()  # what is refused elsewhere is refused here
                return self.dispatch(request)
            if not generation[0]:
                notice_fork()
            started = monotonic()
            call: AwaitedCall[Sent] = AwaitedCall()
            if self._breaker is not None and not self._breaker.allow():
                return self._refused_at_once(request, started)
            request, body, waived = admit(self._limits, request)
            timeout = self._time_left(request, started)
            contacted = True
            self._hand_to_loop(call, request, body, timeout)
            answer = partial(self._told_of, request, started, waived)
            return answer(await call.outcome(heir=answer))
        except Exception as exc:  # noqa: BLE001 - C1
            try:
                return self._announce(
                    self._not_sent(request, no_loop(exc), started, contacted=contacted)
                )
            except Exception:  # noqa: BLE001 - C1: no stack or memory is left to answer with
                return UNKNOWN if contacted else REJECTED

    @final
    def dispatch_many(self, requests: Iterable[DispatchRequest], /) -> DispatchResponses:
        """Hand over several requests under one deadline; one response each, in order.

        The deadline is for the backend: encoding is not counted. What was not handed over by then
        is `REJECTED`, the rest has its own answers.
        """
        try:
            return self._in_chunks(requests, self._send_batch)
        except Exception:  # noqa: BLE001 - C1: no stack or memory is left to answer with
            return ALL_UNKNOWN

    @final
    async def adispatch_many(self, requests: Iterable[DispatchRequest], /) -> DispatchResponses:
        """Hand over several requests without blocking the event loop."""
        work, begun = None, True
        try:
            notice_fork()
            work = self._adispatch_many(requests)
            return await shielded(work)
        except Exception as exc:  # noqa: BLE001 - C1: no event loop of asyncio runs here
            try:
                begun = not (work is None or _never_began(work))
                return ALL_UNKNOWN if begun else self._all_refused(requests, no_loop(exc))
            except Exception:  # noqa: BLE001 - C1: no stack or memory is left to answer with
                return ALL_UNKNOWN if begun else ALL_REJECTED

    @final
    def _dispatch_in_order(self, requests: Iterable[DispatchRequest]) -> DispatchResponses:
        """Hand over requests, and none after one that failed and may be dispatched again.

        Such are those in doubt, and those rejected for a reason that may pass. What comes after the
        first of them is not tried, and rejected.
        """
        try:
            return self._in_chunks(requests, self._sent_in_order, in_order=True)
        except Exception:  # noqa: BLE001 - C1: no stack or memory is left to answer with
            return ALL_UNKNOWN

    def _in_chunks(
        self,
        requests: Iterable[DispatchRequest],
        send: Callable[[Sequence[Item], float], Sequence[Sent | Exception]],
        *,
        in_order: bool = False,
    ) -> DispatchResponses:
        notice_fork()
        batch = self._new_batch(in_order=in_order)
        for items in batch.chunks(requests):
            try:
                batch.take(send(items, self._time_for(batch)))
            except Exception as exc:  # noqa: BLE001 - C1
                batch.fail(exc)
        return self._announced(batch)

    def close(self, timeout: float = 5.0) -> int:
        """Finish what is under way within `timeout` seconds, then refuse further requests.

        Returns:
            How many pieces of accepted work were left undone; 0 for a backend that keeps them.
        """
        self._closed = True
        until = monotonic() + timeout
        if (sharing := self._sharing) is not None:
            sharing.drain(timeout)
        left = self._close(max(until - monotonic(), 0.0))
        return left + (self._guard.close(timeout) if self._guard else 0)

    # What an adapter's author writes.

    @abstractmethod
    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        """Hand over one envelope within `timeout` seconds.

        May raise anything; `RejectedError` says that it was certainly not handed over, and why.
        """

    @abstractmethod
    def _category(self, exc: Exception) -> ErrorCategory | None:
        """Return the category of an exception, or None for the core's."""

    @abstractmethod
    def _maybe_sent(self, exc: Exception) -> bool:
        """Tell whether the work may be handed over in spite of `exc`."""

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        """Hand over several envelopes; one result each, in order, an exception where it failed.

        Raising says the same of all of them. The default hands over one after the other.
        """
        until = monotonic() + timeout
        return [self._one_of_many(request, body, until) for request, body in items]

    def _send_in_order(
        self, items: Sequence[Item], *, timeout: float
    ) -> Sequence[Sent | Exception]:
        """Hand over several envelopes in order, and none after one that may be tried again.

        One result each, as of `_send_many`; they may end with that one. Raising says the same of
        all of them. The default hands over one after the other: with `stops_at_failure` say that
        yours costs less.
        """
        until = monotonic() + timeout
        results: list[Sent | Exception] = []
        for request, body in items:
            results.append(self._one_of_many(request, body, until))
            if self._may_be_repeated(results[-1]):
                break
        return results

    async def _asend(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        """Hand over one envelope on the event loop, by default on a thread."""
        return await on_thread(
            lambda left: self._bounded_send(request, body, left),
            timeout=timeout,
            cut=not self.capabilities.runs_here,
        )

    async def _asend_many(
        self, items: Sequence[Item], *, timeout: float
    ) -> Sequence[Sent | Exception]:
        """Hand over several on the event loop, by default on a thread.

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

    def _close(self, timeout: float) -> int:
        """Release what is held; return how many pieces of accepted work were left undone."""
        del timeout
        return 0

    # How the contract is kept.

    def _time_left(self, request: DispatchRequest, started: float) -> float:
        """Return the seconds left for contacting the backend, if it may be contacted at all."""
        if self._closed:
            raise RejectedError(ErrorCategory.CLOSED, f"dispatcher {self.alias!r} was closed")
        if self.capabilities.runs_here:
            return 0.0
        left = (request.deadline or self.options.deadline) - (monotonic() - started)
        if left <= 0:
            raise RejectedError(ErrorCategory.TIMEOUT, "the deadline passed before contact")
        return left

    def _new_batch(self, *, in_order: bool = False) -> Batch:
        started = monotonic()

        def answer(
            request: DispatchRequest, sent: Sent, waived: tuple[str, ...]
        ) -> DispatchResponse:
            return self._sent(request, sent, started, waived)

        def refuse(
            requests: Sequence[object], exc: Exception, contacted: bool, counted: bool
        ) -> list[DispatchResponse]:
            return self._refused(
                requests,
                exc,
                started,
                contacted=contacted,
                counted=counted,
                hurried=batch.is_hurried,
            )

        admits, deadline = partial(admit, self._limits), self.options.deadline
        batch = Batch(admits, answer, refuse, deadline, in_order=in_order)
        return batch

    def _time_for(self, batch: Batch) -> float:
        """Return the seconds left for a batch; the breaker is asked once for all of it."""
        if self._closed:
            raise RejectedError(ErrorCategory.CLOSED, f"dispatcher {self.alias!r} was closed")
        asked = batch.was_begun or self._breaker is None
        if not asked and self._breaker is not None and not self._breaker.allow():
            raise RejectedError(ErrorCategory.CIRCUIT_OPEN, self._open_error.message)
        return batch.begin(endless=self.capabilities.runs_here)

    def _announced(self, batch: Batch) -> DispatchResponses:
        responses = batch.responses()
        self._announce_all(responses)
        return responses

    def _all_refused(self, requests: object, exc: Exception) -> DispatchResponses:
        """Answer for a batch that was not begun, one response for each request."""
        batch = self._new_batch()
        batch.refuse_all(requests, exc)
        return self._announced(batch)

    def _announce(self, response: DispatchResponse) -> DispatchResponse:
        """Return the response, once the log and the hooks know of it."""
        return _report.told(response)

    def _announce_all(self, responses: Sequence[DispatchResponse]) -> None:
        """Tell the log and the hooks of a batch."""
        _report.told_all(responses)

    @cached_property
    def _open_error(self) -> DispatchFailure:
        message = (
            f"backend {self.name!r} failed repeatedly: {self.alias!r} waits before it is tried"
        )
        return failure(ErrorCategory.CIRCUIT_OPEN, message, None, retryable=True)

    def _refused_at_once(self, request: object, started: float) -> DispatchResponse:
        """Answer while the breaker is open: there is nothing to find out, or to prepare."""
        error, elapsed = self._open_error, monotonic() - started
        return self._announce(
            unsent(self.alias, self.name, request, TURNED_AWAY, error, None, elapsed)
        )

    def _bounded_send(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        if self._guard is None:
            return self._send(request, body, timeout=timeout)
        return self._guard.call(
            lambda: self._send(request, body, timeout=timeout),
            timeout=timeout,
            on_late=lambda late: _report.late(self.alias, self.name, request, late.error),
        )

    def _shared_send(
        self, sharing: SharedSending, request: DispatchRequest, body: bytes, timeout: float
    ) -> Sent:
        if _goes_alone(request, body):
            return self._bounded_send(request, body, timeout)
        until = monotonic() + timeout
        return sharing.send(self._made(request, body), until, request.priority or 0)

    @cached_property
    def _sharing(self) -> SharedSending | None:
        """Sending that callers share; made late, as an instance may narrow what it can do."""
        able = self.capabilities.batch and not self.capabilities.runs_here
        if not (self.shares_sending and able and self._most_at_once > 1):
            return None
        return SharedSending(
            self._send_made,
            self._is_of_all,
            size=self._most_at_once,
            usual=self.options.deadline,
        )

    @property
    def _most_at_once(self) -> int:
        """Messages of one shared call at most."""
        return 100

    def _made(self, request: DispatchRequest, body: bytes) -> Any:
        """Return what `_send_made` takes of one request, made by its caller."""
        return request, body

    def _send_made(self, made: Sequence[Any], timeout: float) -> Sequence[Sent | Exception]:
        """Hand over what several callers have made, within `timeout` seconds."""
        if len(made) > 1:
            return self._send_batch(made, timeout)
        request, body = made[0]
        return [self._bounded_send(request, body, timeout)]

    def _is_of_all(self, exc: Exception) -> bool:
        """Tell whether a call that failed would fail for each of its messages alone."""
        if is_in_doubt(exc, self._maybe_sent):
            return True
        return self._mapped(exc, contacted=True)[1].category in OF_ALL

    def _send_batch(self, items: Sequence[Item], timeout: float) -> Sequence[Sent | Exception]:
        native = type(self)._send_many is not BaseDispatcher._send_many
        if self._guard is None or not native:
            return self._send_many(items, timeout=timeout)
        return self._guard.call(lambda: self._send_many(items, timeout=timeout), timeout=timeout)

    def _sent_in_order(self, items: Sequence[Item], timeout: float) -> Sequence[Sent | Exception]:
        """`_send_in_order`, with an answer for what was not tried as well."""
        native = type(self)._send_in_order is not BaseDispatcher._send_in_order
        if self._guard is None or not native:
            results = self._send_in_order(items, timeout=timeout)
        else:
            results = self._guard.call(
                lambda: self._send_in_order(items, timeout=timeout), timeout=timeout
            )
        if len(results) < len(items) and results and self._may_be_repeated(results[-1]):
            return [*results, *[untried()] * (len(items) - len(results))]
        return results

    def _may_be_repeated(self, result: Sent | Exception) -> bool:
        """Tell whether an item was not taken, for now or as far as is known."""
        return isinstance(result, Exception) and not is_final(*self._mapped(result, contacted=True))

    async def _asend_bounded(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        """`_asend` as a task, cut at the deadline unless the work runs here."""
        work = self._asend(request, body, timeout=timeout)
        return await within(work, None if self.capabilities.runs_here else timeout + CUT)

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
            raise out_of_time()
        return left

    def _hand_to_loop(
        self, call: AwaitedCall[Sent], request: DispatchRequest, body: bytes, timeout: float
    ) -> None:
        """Begin to hand over for a coroutine; `call` is told how it ended."""
        cut = not self.capabilities.runs_here
        if (sharing := self._sharing) is not None and not _goes_alone(request, body):
            until = monotonic() + timeout
            sharing.send_for(call, self._made(request, body), until, request.priority or 0)
        elif type(self)._asend is not BaseDispatcher._asend or "_asend" in vars(self):
            work = self._asend(request, body, timeout=timeout)
            call.run(work, timeout + CUT if cut else None)
        else:
            begin_on_thread(
                call,
                lambda left: self._bounded_send(request, body, left),
                timeout=timeout,
                cut=cut,
            )

    def _told_of(
        self, request: DispatchRequest, started: float, waived: tuple[str, ...], end: Ended[Sent]
    ) -> DispatchResponse:
        """Return the response to what a coroutine, or its heir, is told of a hand-over."""
        try:
            return self._announce(self._sent(request, end.result(), started, waived))
        except Exception as exc:  # noqa: BLE001 - C1
            try:
                return self._announce(self._not_sent(request, exc, started, contacted=True))
            except Exception:  # noqa: BLE001 - C1: no stack or memory is left to answer with
                return UNKNOWN

    async def _adispatch_many(self, requests: Iterable[DispatchRequest]) -> DispatchResponses:
        batch = self._new_batch()
        for items in batch.chunks(requests):
            try:
                batch.take(await self._asend_batch(items, self._time_for(batch)))
            except Exception as exc:  # noqa: BLE001 - C1
                batch.fail(exc)
        return self._announced(batch)

    def _sent(
        self,
        request: DispatchRequest,
        sent: Sent,
        started: float,
        waived: tuple[str, ...] = (),
    ) -> DispatchResponse:
        """Return the response to what an adapter handed over, counted by the breaker."""
        task_id, status, confirmed, durable, error, exception = _checked(self.name, sent)
        capabilities = self.capabilities
        values = {
            "request_id": request.id,
            "task_id": task_id,
            "dispatcher": self.alias,
            "backend": self.name,
            "status": status,
            "confirmed": capabilities.confirmed if confirmed is None else confirmed,
            "durable": capabilities.durable if durable is None else durable,
            "waived": waived,
            "passed": (),
            "error": error,
            "elapsed": monotonic() - started,
            "request": request,
        }
        private = None if exception is None else {"_exception": exception}
        if self._breaker is not None and (change := self._breaker.record_success()) is not None:
            _report.breaker(self.alias, self.name, change, self._breaker.suppressed)
        return build(DispatchResponse, values, private)

    def _not_sent(
        self, request: object, exc: Exception, started: float, *, contacted: bool
    ) -> DispatchResponse:
        """Return the response to what could not be handed over, counted by the breaker."""
        deadline = request.deadline if is_instance(request, DispatchRequest) else None
        hurried = deadline is not None and is_hurried(deadline, self.options.deadline)
        return self._refused([request], exc, started, contacted=contacted, hurried=hurried)[0]

    def _refused(
        self,
        requests: Sequence[object],
        exc: Exception,
        started: float,
        *,
        contacted: bool,
        hurried: bool,
        counted: bool = True,
    ) -> list[DispatchResponse]:
        """Return the responses to requests that failed for one reason."""
        if isinstance(exc, GroupError):
            counted = counted and exc.counted
            exc = exc.reason
        status, error = self._mapped(exc, contacted=contacted)
        if counted and self._breaker is not None:
            # A deadline far shorter than the dispatcher's own says little of the backend.
            late = hurried and error.category is ErrorCategory.TIMEOUT
            bad = contacted and not late and counts_against(status, error)
            self._count(self._breaker, bad=bad)
        elapsed = monotonic() - started
        return [
            unsent(self.alias, self.name, request, status, error, exc, elapsed)
            for request in requests
        ]

    def _mapped(self, exc: Exception, *, contacted: bool) -> tuple[DispatchStatus, DispatchFailure]:
        mapping = ErrorMapping(
            self.name, self.alias, self._secrets, self._category, self._maybe_sent
        )
        return map_error(mapping, exc, contacted=contacted)

    def _count(self, breaker: Breaker, *, bad: bool) -> None:
        if not bad:
            breaker.record_neutral()
        elif (change := breaker.record_failure()) is not None:
            _report.breaker(self.alias, self.name, change, breaker.suppressed)


OF_ALL = frozenset(
    {
        ErrorCategory.UNAVAILABLE,
        ErrorCategory.TIMEOUT,
        ErrorCategory.AUTHENTICATION,
        ErrorCategory.PERMISSION,
        ErrorCategory.THROTTLED,
        ErrorCategory.CLOSED,
        ErrorCategory.MISSING_DEPENDENCY,
    }
)
"""Categories that say nothing of a single message: what failed with one fails for all."""

LARGE = 64 * 1024
"""Bytes of an envelope that is sent by itself, so that it holds up no small ones."""


def _goes_alone(request: DispatchRequest, body: bytes) -> bool:
    """Tell whether others must not wait for a request, or it not be cut by theirs."""
    return request.deadline is not None or len(body) > LARGE


def no_loop(exc: Exception) -> Exception:
    """Return what to answer where no event loop of asyncio runs; else the error itself."""
    if not isinstance(exc, RuntimeError) or isinstance(exc, RecursionError):
        return exc
    return RejectedError(
        ErrorCategory.UNSUPPORTED,
        "adispatch() runs on asyncio's event loop, and none runs here: call dispatch() on a "
        "thread instead, such as trio.to_thread.run_sync(...)",
    )


def _never_began(work: Coroutine[Any, Any, object]) -> bool:
    """Close a coroutine that was never run; false for one that was."""
    if inspect.getcoroutinestate(work) != inspect.CORO_CREATED:
        return False
    work.close()
    return True


# Looked up once: an enum's members are attributes that Python computes.
FAILED = DispatchStatus.FAILED
TURNED_AWAY = DispatchStatus.REJECTED


ANSWERS = (
    DispatchStatus.EXECUTED,
    DispatchStatus.ACCEPTED,
    DispatchStatus.DUPLICATE,
    DispatchStatus.DEFERRED,
    FAILED,
)
"""A tuple: looked through by identity, while an enum's hash is computed in Python."""


def _checked(backend: str, sent: object) -> Sent:
    """Return an answer that makes sense: callers must not be told what an adapter mistyped."""
    if not isinstance(sent, Sent):
        raise AnswerError(f"backend {backend!r} answered with no Sent")
    task_id, status, _, _, error, _ = sent
    if type(status) is not DispatchStatus or status not in ANSWERS:
        raise AnswerError(f"backend {backend!r} answered with a status that none may give")
    if (error is None) is (status is FAILED):
        said = "without" if error is None else "with"
        raise AnswerError(f"backend {backend!r} answered {status.value} {said} an error")
    if not (task_id is None or isinstance(task_id, str)):
        raise AnswerError(f"backend {backend!r} answered with a task id that is not text")
    return sent
