"""An adapter that is broken in one way for every case of the conformance suite.

`BROKEN` says which case must catch which adapters. Each class is a sound adapter but for the one
mistake that its docstring names, mostly one that somebody has made in earnest.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cached_property
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from dispatchers import (
    Action,
    Capabilities,
    ConfigurationError,
    DispatchFailure,
    DispatchRequest,
    DispatchResponse,
    DispatchResponses,
    DispatchStatus,
    ErrorCategory,
    Outcome,
    RejectedError,
    RunSettings,
    Sent,
    Stats,
    catalogue,
    hooks,
    run_envelope,
)
from dispatchers._dispatch.protocol import Item
from dispatchers._dispatch.shared_sending import GroupError, SharedSending
from dispatchers._models.capabilities import OPTIONS
from dispatchers._models.envelope import decode, encode
from dispatchers._runtime.awaited_call import AwaitedCall
from dispatchers.backends.inline import InlineDispatcher
from dispatchers.backends.memory import Delivery
from dispatchers.testing import Harness, tasks

from .reference import (
    InlineHarness,
    SentInPartError,
    SharingDispatcher,
    ShelfDispatcher,
    ShelfHarness,
    SocketDispatcher,
    SocketHarness,
    left,
)

__all__ = ["BROKEN"]

HOME = os.getpid()
LATE = 1.0
"""Seconds that an impatient caller would not wait; the cases' deadline is shorter."""


class Shelf(ShelfDispatcher):
    """What most of them begin with: a shelf whose answers can be twisted."""

    def twist(self, response: DispatchResponse) -> DispatchResponse:
        """The answer as a broken adapter gives it."""
        return response

    def dispatch(self, request: DispatchRequest, /) -> DispatchResponse:  # type: ignore[misc]
        return self.twist(super().dispatch(request))

    async def adispatch(self, request: DispatchRequest, /) -> DispatchResponse:  # type: ignore[misc]
        return self.twist(await super().adispatch(request))

    def dispatch_many(self, requests: Iterable[DispatchRequest], /) -> DispatchResponses:  # type: ignore[misc]
        return DispatchResponses(map(self.twist, super().dispatch_many(requests)))

    async def adispatch_many(self, requests: Iterable[DispatchRequest], /) -> DispatchResponses:  # type: ignore[misc]
        return DispatchResponses(map(self.twist, await super().adispatch_many(requests)))


def changed(response: DispatchResponse, **values: object) -> DispatchResponse:
    """A response that nobody validated."""
    return DispatchResponse.model_construct(**{**vars(response), **values})


# C1


class Trusting(ShelfDispatcher):
    """Looks into the request before anybody has checked that it is one."""

    def dispatch(self, request: DispatchRequest, /) -> DispatchResponse:  # type: ignore[misc]
        logging.getLogger("acme").debug("dispatching %s", request.task)
        return super().dispatch(request)


class Offended(ShelfDispatcher):
    """Listens to what becomes of dispatches, and takes what is the caller's fault personally."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._hook = hooks.after_dispatch(self._listen)

    def _listen(self, response: DispatchResponse) -> None:
        self._closed = self._closed or not response.ok

    def _close(self, timeout: float) -> int:
        hooks.remove(self._hook)
        return super()._close(timeout)


class Unguarded(ShelfDispatcher):
    """Has a way to dispatch of its own, and lets everything out."""

    async def adispatch(self, request: DispatchRequest, /) -> DispatchResponse:  # type: ignore[misc]
        body = encode(request)
        sent = await self._asend(request, body, timeout=self.options.deadline)
        return self._sent(request, sent, monotonic())


class Swallowing(ShelfDispatcher):
    """Catches what is no exception."""

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        try:
            return super()._send(request, body, timeout=timeout)
        except BaseException as exc:
            raise RuntimeError("something went wrong") from exc


class Bold(ShelfDispatcher):
    """Asks itself for a category where nothing catches what that raises."""

    def dispatch(self, request: DispatchRequest, /) -> DispatchResponse:  # type: ignore[misc]
        response = super().dispatch(request)
        if isinstance(response.exception, Exception):
            self._category(response.exception)
        return response


class Sure(Shelf):
    """Never says that it does not know."""

    def twist(self, response: DispatchResponse) -> DispatchResponse:
        unknown = response.status is DispatchStatus.UNKNOWN
        return changed(response, status=DispatchStatus.REJECTED) if unknown else response


class TellsItself(Shelf):
    """Calls the hooks itself, as if they could not raise."""

    def twist(self, response: DispatchResponse) -> DispatchResponse:
        for hook in hooks.hooks.after_dispatch:
            hook(response)
        return response


class Listing(ShelfDispatcher):
    """Makes a list of the requests before anything can be caught."""

    def dispatch_many(self, requests: Iterable[DispatchRequest], /) -> DispatchResponses:  # type: ignore[misc]
        return super().dispatch_many(list(requests))


class Importing(ShelfDispatcher):
    """Finds out whether its library is there by importing it."""

    @classmethod
    def is_available(cls) -> bool:
        importlib.import_module(cls.library or "json")
        return True


class Particular(ShelfDispatcher):
    """Takes only requests that a task of this process has made."""

    def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        if request.fingerprint is None:
            raise ValueError("who made this?")
        return super().put(request, body, timeout)


# C2


class Patient(SocketDispatcher):
    """Has a timeout of its own, for each step."""

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        return super()._send(request, body, timeout=LATE)


class BlocksTheLoop(SocketDispatcher):
    """Calls its synchronous client on the event loop."""

    async def _asend(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        return self._send(request, body, timeout=max(timeout, LATE))

    async def _asend_many(
        self, items: Sequence[Item], *, timeout: float
    ) -> Sequence[Sent | Exception]:
        return self._send_many(items, timeout=timeout)


class AsIfAlone(SocketDispatcher):
    """Gives each item of a batch all the time there is."""

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        return [self._one(request, body, timeout) for request, body in items]

    def _one(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent | Exception:
        try:
            return self._send(request, body, timeout=timeout)
        except Exception as exc:  # noqa: BLE001 - broken on purpose
            return exc


class Sulking(SocketDispatcher):
    """Does not forgive."""

    _hurt = False

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        if self._hurt:
            raise ConnectionError("not again")
        try:
            return super()._send(request, body, timeout=timeout)
        except Exception:
            self._hurt = True
            raise


class Waiting(ShelfDispatcher):
    """Waits for an answer as long as the client likes to."""

    def wait_in_vain(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        return super().wait_in_vain(request, body, timeout + LATE)


class Deaf(SocketDispatcher):
    """Knows only the deadline that it was configured with."""

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        return super()._send(request, body, timeout=min(self.options.deadline, LATE))


class Hurried(InlineDispatcher):
    """Cuts a run at the deadline for handing over."""

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(super()._send, request, body, timeout=timeout)
            return run.result(timeout)


# C3


class Buffering(ShelfDispatcher):
    """Says accepted, and hands over later."""

    def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        self._later = [*getattr(self, "_later", []), (request, body, timeout)]
        return Sent(request.id)

    def _close(self, timeout: float) -> int:
        for each in getattr(self, "_later", []):
            super().put(*each)
        return super()._close(timeout)


class Spilling(ShelfDispatcher):
    """Keeps the work for itself when the backend is down, and says that it was rejected."""

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        try:
            return super()._send(request, body, timeout=timeout)
        except ConnectionError:
            ShelfDispatcher.put(self, request, body, timeout)
            raise


class Doubting(SocketDispatcher):
    """Never knows."""

    def _maybe_sent(self, exc: Exception) -> bool:
        return True


class Denying(SocketDispatcher):
    """Takes a lost answer for a lost request."""

    def _maybe_sent(self, exc: Exception) -> bool:
        return False


class Forgetting(SocketDispatcher):
    """Does not wait for the server's word."""

    def answered(self, connection: Any, until: float) -> bytes:
        return b"+"


class Contradicting(Shelf):
    """Adds a warning to work that was accepted."""

    def twist(self, response: DispatchResponse) -> DispatchResponse:
        warning = DispatchFailure(category=ErrorCategory.THROTTLED, message="slow down")
        return changed(response, error=response.error or warning)


class Renaming(Shelf):
    """Answers with an id of its own instead of the request's."""

    def twist(self, response: DispatchResponse) -> DispatchResponse:
        return changed(response, request_id="12345")


class Numbering(Shelf):
    """Gives its task ids as the client does: as numbers."""

    def twist(self, response: DispatchResponse) -> DispatchResponse:
        return changed(response, task_id=7)


class Boasting(ShelfDispatcher):
    """Calls durable what is not."""

    def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        return super().put(request, body, timeout)._replace(durable=True)


class Reassuring(Shelf):
    """Calls confirmed what failed."""

    def twist(self, response: DispatchResponse) -> DispatchResponse:
        return changed(response, confirmed=True)


class Ignoring(InlineDispatcher):
    """Runs the task, and does not look at what became of it."""

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        run_envelope(body)
        return Sent(status=DispatchStatus.EXECUTED)


# C4


class Wordless(ShelfDispatcher):
    """Makes one error of all errors."""

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        try:
            return super()._send(request, body, timeout=timeout)
        except Exception:  # noqa: BLE001 - broken on purpose
            raise RejectedError(ErrorCategory.INTERNAL, "") from None


class Encouraging(Shelf):
    """Says that everything may be tried again."""

    def _maybe_sent(self, exc: Exception) -> bool:
        return True

    def twist(self, response: DispatchResponse) -> DispatchResponse:
        if response.error is None:
            return response
        return changed(response, error=response.error.model_copy(update={"retryable": True}))


class Quoting(ShelfDispatcher):
    """Shows what it could not hand over."""

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        try:
            return super()._send(request, body, timeout=timeout)
        except Exception as exc:
            raise RejectedError(ErrorCategory.UNAVAILABLE, f"cannot send {body!r}") from exc


class Talkative(ShelfDispatcher):
    """Shows where it connects to, password and all."""

    def __repr__(self) -> str:
        return f"Talkative({self.options.url})"  # type: ignore[attr-defined]


class Complaining(ShelfDispatcher):
    """Logs failures itself, too."""

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        try:
            return super()._send(request, body, timeout=timeout)
        except Exception:
            logging.getLogger("dispatchers").error("it failed!")
            raise


class Chatting(ShelfDispatcher):
    """Logs that it is still alive."""

    def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        logging.getLogger("dispatchers").warning("sent %s", request.id)
        return super().put(request, body, timeout)


class Insisting(ShelfDispatcher):
    """Has no breaker."""

    def _new_breaker(self) -> None:
        return None


class SulkingShelf(ShelfDispatcher):
    """Does not forgive."""

    _hurt = False

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        if self._hurt:
            raise ConnectionError("not again")
        try:
            return super()._send(request, body, timeout=timeout)
        except Exception:
            self._hurt = True
            raise


class Accusing(ShelfDispatcher):
    """Blames the backend for everything."""

    def _not_sent(
        self, request: object, exc: Exception, started: float, *, contacted: bool
    ) -> DispatchResponse:
        if self._breaker is not None:
            self._breaker.record_failure()
        return super()._not_sent(request, exc, started, contacted=contacted)


# C5


class Rewriting(ShelfDispatcher):
    """Lets a serializer at the envelope."""

    def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        return super().put(request, json.dumps(json.loads(body)).encode(), timeout)


class Batching(ShelfDispatcher):
    """Has another encoding for batches."""

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        return [self.put(r, json.dumps(json.loads(b)).encode(), timeout) for r, b in items]


class CuttingBatches(ShelfDispatcher):
    """Has a column of 64 KiB for batches."""

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        return [self.put(r, b[:65536], timeout) for r, b in items]


class Normalising(ShelfDispatcher):
    """Writes numbers as it likes them."""

    def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        return super().put(request, body.replace(b"890.10", b"890.1"), timeout)


class Cutting(ShelfDispatcher):
    """Has a column of 64 KiB."""

    def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        return super().put(request, body[:65536], timeout)


class Headless(ShelfDispatcher):
    """Has no room for headers."""

    def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        bare = request.replace(headers={})
        return super().put(bare, encode(bare), timeout)


class Hasty(ShelfDispatcher):
    """Encodes before the hooks have had their say."""

    def dispatch(self, request: DispatchRequest, /) -> DispatchResponse:  # type: ignore[misc]
        self._early = encode(request)
        return super().dispatch(request)

    def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        return super().put(request, self._early, timeout)


# C6


class Growing(ShelfDispatcher):
    """Can do more than its class says."""

    capabilities = ShelfDispatcher.capabilities.model_copy(update={"delay": False})

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.capabilities = ShelfDispatcher.capabilities


POOR = Capabilities(retries=True, confirmed=True)
"""Neither delay nor priority nor deduplication."""


class Dropping(ShelfDispatcher):
    """Takes every option, and drops what it cannot do."""

    capabilities = POOR

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._limits = self._limits._replace(supported=frozenset(OPTIONS))


class Silent(Shelf):
    """Does not say what it left out."""

    capabilities = POOR

    def twist(self, response: DispatchResponse) -> DispatchResponse:
        return changed(response, waived=())


def without(**values: object) -> type[ShelfDispatcher]:
    """A shelf that loses some values of each request."""

    class Losing(ShelfDispatcher):
        def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
            less = request.replace(**values)
            return super().put(less, encode(less), timeout)

    return Losing


class Local(ShelfDispatcher):
    """Takes an instant of UTC for one of its own time zone."""

    def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        if request.due is not None:
            due = datetime.fromtimestamp(request.due.replace(tzinfo=None).timestamp(), UTC)
            request = request.replace(delay=None, eta=due)
        return super().put(request, body, timeout)


class Hastening(ShelfDispatcher):
    """Forgets the delay of what is awaited."""

    async def _asend(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        return self.put(request.replace(delay=None), body, timeout)


class Forcing(Shelf):
    """Has limits, and no respect for them."""

    capabilities = ShelfDispatcher.capabilities.model_copy(
        update={"max_size": 10_000, "max_delay": timedelta(hours=1)}
    )

    def twist(self, response: DispatchResponse) -> DispatchResponse:
        return changed(response, status=DispatchStatus.ACCEPTED, error=None)


class Creating(ShelfDispatcher):
    """Creates every queue that it is asked for."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        settings.pop("queues", None)
        super().__init__(*args, **settings)


class Counting(ShelfDispatcher):
    """Sends headers of its own beside the envelope, and forgets that they count."""

    def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        if len(body) + 40 > (self.capabilities.max_size or 0):
            raise RejectedError(ErrorCategory.TOO_LARGE, "the message is too large")
        return super().put(request, body, timeout)


class Lumping(SocketDispatcher):
    """Has one category for whatever the server refuses."""

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        try:
            return super()._send(request, body, timeout=timeout)
        except RejectedError as exc:
            raise RejectedError(ErrorCategory.UNAVAILABLE, str(exc)) from exc


class Wavering(SocketDispatcher):
    """Does not believe the server that it refused."""

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        try:
            return super()._send(request, body, timeout=timeout)
        except RejectedError as exc:
            raise SentInPartError(str(exc)) from exc


# Batches


class Batch(ShelfDispatcher):
    """What broken batches begin with: single dispatches are sound."""

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        return [self.one(request, timeout) for request, _ in items]

    def one(self, request: DispatchRequest, timeout: float) -> Sent | Exception:
        """The answer to one item."""
        try:
            return self.put(request, encode(request), timeout)
        except RejectedError as exc:
            return exc


class Uniform(Batch):
    """Takes the options of the first for those of all."""

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        delay = items[0][0].delay
        return [self.one(request.replace(delay=delay), timeout) for request, _ in items]


def losing(**values: object) -> type[ShelfDispatcher]:
    """A batch that loses some values of each request."""

    class Losing(Batch):
        def one(self, request: DispatchRequest, timeout: float) -> Sent | Exception:
            return super().one(request.replace(**values), timeout)

    return Losing


class AsTheyCome(Batch):
    """Gives the answers in the order in which they came."""

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        return super()._send_many(items, timeout=timeout)[::-1]


class LastFirst(Batch):
    """Hands over from the end."""

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        return super()._send_many(items[::-1], timeout=timeout)[::-1]


class OnceABatch(Batch):
    """Looks for known keys before the batch, and not within it."""

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        seen: set[str] = set()
        return [self._first(request, seen, timeout) for request, _ in items]

    def _first(self, request: DispatchRequest, seen: set[str], timeout: float) -> Sent | Exception:
        key = request.idempotency_key or request.id
        known = key in seen
        seen.add(key)
        bare = {"deduplicate": False, "idempotency_key": None}
        return self.one(request.replace(**bare) if known else request, timeout)


class GoesOn(ShelfDispatcher):
    """Hands over in order as it does a batch: the rest goes on after a failure."""

    def _new_batch(self, **_: object) -> Any:
        return super()._new_batch()


class PicksUp(SocketDispatcher):
    """Goes on with what comes after a connection that broke."""

    def _send_in_order(
        self, items: Sequence[Item], *, timeout: float
    ) -> Sequence[Sent | Exception]:
        return self._send_many(items, timeout=timeout)


class AllAlike(Batch):
    """Has one answer for a batch: that of its first item."""

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        return [super()._send_many(items, timeout=timeout)[0]] * len(items)


class Together(Batch):
    """What broken shared calls begin with: single dispatches and batches of one are sound."""

    shares_sending = True
    capabilities = Batch.capabilities.model_copy(update={"batch": True})

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        time.sleep(0.005)  # others come meanwhile
        return super()._send(request, body, timeout=timeout)


class MixedUp(Together):
    """Gives the answers of a shared call in the order in which they came."""

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        time.sleep(0.005)
        return super()._send_many(items, timeout=timeout)[::-1]


class OneOfMany(Together):
    """Hands over the first of a shared call, and says the same of the others."""

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        time.sleep(0.005)
        return [super()._send_many(items[:1], timeout=timeout)[0]] * len(items)


class InTurn(AsIfAlone):
    """Gives each of a shared call all the time there is."""

    shares_sending = True
    capabilities = AsIfAlone.capabilities.model_copy(update={"batch": True})


class TurnedRound(Together):
    """Reads priorities of a shared call on the broker's own scale, on which 0 is served first."""

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        time.sleep(0.005)
        turned = [request.replace(priority=-(request.priority or 0)) for request, _ in items]
        return super()._send_many([(each, encode(each)) for each in turned], timeout=timeout)


class OneTrace(Together):
    """Gives the headers of the first of a shared call to all of them."""

    def _send_many(self, items: Sequence[Item], *, timeout: float) -> Sequence[Sent | Exception]:
        time.sleep(0.005)
        traced = [request.replace(headers=items[0][0].headers) for request, _ in items]
        return super()._send_many([(each, encode(each)) for each in traced], timeout=timeout)


class CountsEach(SharingDispatcher):
    """Tells the breaker of each of those who shared a call that failed."""

    def _refused(
        self, requests: Sequence[object], exc: Exception, started: float, **more: Any
    ) -> list[DispatchResponse]:
        reason = exc.reason if isinstance(exc, GroupError) else exc
        return super()._refused(requests, reason, started, **more)


class DenyingTogether(Denying, SharingDispatcher):
    """Takes a lost answer to a shared call for lost requests."""


class ThreadsFirst(ShelfDispatcher):
    """Has a loop wait until threads have had enough."""

    _last = 0.0

    def dispatch(self, request: DispatchRequest, /) -> DispatchResponse:  # type: ignore[misc]
        self._last = monotonic()
        return super().dispatch(request)

    async def adispatch(self, request: DispatchRequest, /) -> DispatchResponse:  # type: ignore[misc]
        started = monotonic()
        while monotonic() < self._last + LATE / 4:
            if monotonic() > started + LATE:
                return self._starved(request)
            await asyncio.sleep(0.001)
        return await super().adispatch(request)

    def _starved(self, request: DispatchRequest) -> DispatchResponse:
        late = RejectedError(ErrorCategory.TIMEOUT, "it never had its turn")
        return self._not_sent(request, late, monotonic(), contacted=False)


class LoopsFirst(ThreadsFirst):
    """Has threads wait until loops have had enough."""

    async def adispatch(self, request: DispatchRequest, /) -> DispatchResponse:  # type: ignore[misc]
        self._last = monotonic()
        return await ShelfDispatcher.adispatch(self, request)

    def dispatch(self, request: DispatchRequest, /) -> DispatchResponse:  # type: ignore[misc]
        started = monotonic()
        while monotonic() < self._last + LATE / 4:
            if monotonic() > started + LATE:
                return self._starved(request)
            time.sleep(0.001)
        return ShelfDispatcher.dispatch(self, request)


class OneLine(SocketDispatcher):
    """Sends one after the other, however large."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._line = threading.Lock()

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        until = monotonic() + timeout
        if not self._line.acquire(timeout=timeout):
            raise RejectedError(ErrorCategory.TIMEOUT, "the line was busy")
        try:
            return super()._send(request, body, timeout=until - monotonic())
        finally:
            self._line.release()


class SmallPatience(SocketHarness):
    """Gives each dispatch as long as its broken adapter needs to show itself."""

    deadline = 1.0


class Elsewhere(ShelfDispatcher):
    """Tells the hooks on a thread of its own."""

    def _announce(self, response: DispatchResponse) -> DispatchResponse:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(super()._announce, response).result()


class Heirless(SharingDispatcher):
    """Forgets who was cancelled while it waited."""

    async def adispatch(self, request: DispatchRequest, /) -> DispatchResponse:  # type: ignore[misc]
        started, call = monotonic(), AwaitedCall[Sent]()
        self._hand_to_loop(call, request, encode(request), self.options.deadline)
        return self._told_of(request, started, (), await call.outcome())


class Slamming(SocketDispatcher):
    """Closes the connections that are in use."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._in_use: list[Any] = []

    def connected(self, until: float) -> Any:
        made = super().connected(until)
        self._in_use.append(made)
        return made

    def _close(self, timeout: float) -> int:
        for each in self._in_use:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        return 0


class Undrained(SharingDispatcher):
    """Closes before those who wait were sent, and refuses them then."""

    _is_shut = False

    def close(self, timeout: float = 5.0) -> int:
        self._closed = self._is_shut = True
        return 0

    def _one_of_many(self, request: DispatchRequest, body: bytes, until: float) -> Sent | Exception:
        if self._is_shut:
            return RejectedError(ErrorCategory.CLOSED, "it was closed")
        return super()._one_of_many(request, body, until)


class Inheriting(SharingDispatcher):
    """Keeps in a child what had gathered in its parent."""

    @property
    def _most_at_once(self) -> int:
        return 2

    @cached_property
    def _sharing(self) -> SharedSending:
        made = super()._sharing
        assert made is not None
        vars(made)["_after_fork"] = bool  # does nothing
        return made

    def _one_of_many(self, request: DispatchRequest, body: bytes, until: float) -> Sent | Exception:
        if os.getpid() == HOME:
            time.sleep(0.05)  # the child is the first to send what both have
        return super()._one_of_many(request, body, until)


class Waiters(ShelfDispatcher):
    """Has a queue under a plain lock, in which a signal meets its caller."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._turn = threading.Lock()

    def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        with self._turn:
            if threading.current_thread() is threading.main_thread() and callable(
                signal.getsignal(signal.SIGUSR1)
            ):
                signal.raise_signal(signal.SIGUSR1)
            return super().put(request, body, timeout)


class Submitting(ShelfDispatcher):
    """Sends by an executor, which takes nothing more as the interpreter exits."""

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        pool: ThreadPoolExecutor = self.__dict__.setdefault("_pool", ThreadPoolExecutor(1))
        return pool.submit(super()._send, request, body, timeout=timeout).result()


class Joining(ShelfDispatcher):
    """Waits for a thread that ends with the interpreter."""

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        if "_calls" not in vars(self):
            self._calls: SimpleQueue[Any] = SimpleQueue()
            self._worker = threading.Thread(target=self._serve)
            self._worker.start()
        done: SimpleQueue[Sent] = SimpleQueue()
        self._calls.put((request, body, timeout, done))
        return done.get()

    def _serve(self) -> None:
        while threading.main_thread().is_alive():
            with contextlib.suppress(Empty):
                request, body, timeout, done = self._calls.get(timeout=0.01)
                done.put(super()._send(request, body, timeout=timeout))


class Reversing(ShelfDispatcher):
    """Answers a batch from the end."""

    def dispatch_many(self, requests: Iterable[DispatchRequest], /) -> DispatchResponses:  # type: ignore[misc]
        return super().dispatch_many(requests)[::-1]


class AllOrNothing(ShelfDispatcher):
    """Refuses the whole batch for one bad item."""

    def dispatch_many(self, requests: Iterable[DispatchRequest], /) -> DispatchResponses:  # type: ignore[misc]
        known = list(requests)
        if all(isinstance(each, DispatchRequest) for each in known):
            return super().dispatch_many(known)
        return super().dispatch_many([None] * len(known))  # type: ignore[list-item]


class LooksAtTheFirst(ShelfDispatcher):
    """Takes for granted that there is a first request."""

    def dispatch_many(self, requests: Iterable[DispatchRequest], /) -> DispatchResponses:  # type: ignore[misc]
        known = list(requests)
        self._task = known[0].task
        return super().dispatch_many(known)


class Repeating(ShelfDispatcher):
    """Tells the hooks of a batch once more."""

    def dispatch_many(self, requests: Iterable[DispatchRequest], /) -> DispatchResponses:  # type: ignore[misc]
        responses = super().dispatch_many(requests)
        for response in responses:
            hooks.tell("after_dispatch", response)
        return responses


class TwoMinded(ShelfDispatcher):
    """Knows less when it is awaited."""

    async def _asend(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        sent = await super()._asend(request, body, timeout=timeout)
        return sent._replace(confirmed=False)


# C7, C8


class Postponing(ShelfDispatcher):
    """Waits for a commit, unasked."""

    def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        return super().put(request, body, timeout)._replace(status=DispatchStatus.DEFERRED)


class OneAtATime(ShelfDispatcher):
    """Keeps what it is doing in an attribute."""

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        self._doing = request, body
        time.sleep(0.001)
        return self.put(*self._doing, timeout)


class AtHome(ShelfDispatcher):
    """Works only in the process that made it."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._home = os.getpid()

    def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        if os.getpid() != self._home:
            raise RuntimeError("not my process")
        return super().put(request, body, timeout)


class Locking(ShelfDispatcher):
    """Holds a plain lock that nobody renews in a child, and nobody may take twice."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._plain = threading.Lock()

    def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        with self._plain:
            time.sleep(0.002)
            return super().put(request, body, timeout)


class Unshielded(ShelfDispatcher):
    """Is cancelled with its caller."""

    async def adispatch(self, request: DispatchRequest, /) -> DispatchResponse:  # type: ignore[misc]
        sent = await self._asend(request, encode(request), timeout=self.options.deadline)
        return self._announce(self._sent(request, sent, monotonic()))

    async def _asend(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        await asyncio.sleep(0.05)
        return self.put(request, body, timeout)


class Faithful(ShelfDispatcher):
    """Belongs to the loop that used it first."""

    _loop: asyncio.AbstractEventLoop | None = None

    async def _asend(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        self._loop = self._loop or asyncio.get_running_loop()
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError("attached to a different loop")
        return self.put(request, body, timeout)


class Reopening(ShelfDispatcher):
    """Opens again after it was closed."""

    def close(self, timeout: float = 5.0) -> int:
        return 0


class Keeping(SocketDispatcher):
    """Keeps its connection: over a restart of the server, and in a forked child."""

    _kept: Any = None

    def connected(self, until: float) -> Any:
        self._kept = self._kept or super().connected(until)
        return self._kept.dup()  # its caller closes what it is given

    def exchanged(self, connection: Any, body: bytes, until: float) -> bytes:
        answer = super().exchanged(connection, body, until)
        if body and decode(body).id.encode() not in answer:
            raise EOFError("an answer to something else")
        return answer

    def _close(self, timeout: float) -> int:
        if self._kept is not None:
            self._kept.close()
        return 0


class KeepingBlindly(Keeping):
    """Keeps its connection, and takes what it has written for what has arrived."""

    def exchanged(self, connection: Any, body: bytes, until: float) -> bytes:
        connection.sendall(len(body).to_bytes(4, "big") + body)
        return b"+" + decode(body).id.encode()


class Polite(SocketDispatcher):
    """Takes its leave of the server, and waits for the answer."""

    def _close(self, timeout: float) -> int:
        until = monotonic() + timeout + LATE
        with contextlib.suppress(OSError), self.connected(until) as connection:
            self.exchanged(connection, b"", until)
        return 0


class Lingering(ShelfDispatcher):
    """Takes its time to close."""

    def _close(self, timeout: float) -> int:
        time.sleep(timeout + LATE)
        return 0


# C9, C10


class HeldBack(SocketDispatcher):
    """Says accepted, and sends what it has when more comes."""

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        held: list[Item] = self.__dict__.setdefault("_held", [])
        held.append((request, body))
        while len(held) > 1:
            super()._send(*held.pop(0), timeout=timeout)
        return Sent(request.id)


class Stripping(ShelfDispatcher):
    """Writes a new message after a run, without what it did not need itself."""

    def settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        bare = decode(delivery.work.body).replace(headers={}, context={})
        delivery.work.body = encode(bare)
        return super().settle(delivery, outcome)


class EarlyAck(ShelfDispatcher):
    """Settles a delivery when it is handed out."""

    def abandon(self, delivery: Delivery) -> bool:
        return self._queue.finish(delivery, remember=True)


class Miscounting(ShelfDispatcher):
    """Counts a lost delivery as an attempt."""

    def abandon(self, delivery: Delivery) -> bool:
        delivery.work.attempt += 1
        return super().abandon(delivery)


class Uncounting(ShelfDispatcher):
    """Begins to count anew with each delivery."""

    def abandon(self, delivery: Delivery) -> bool:
        delivery.work.deliveries = 0
        return super().abandon(delivery)


class Unkeyed(ShelfDispatcher):
    """Refuses keys that it has no use for."""

    def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        if request.idempotency_key:
            raise RejectedError(ErrorCategory.UNSUPPORTED, "no keys here")
        return super().put(request, body, timeout)


class Welcoming(ShelfDispatcher):
    """Calls a duplicate accepted."""

    def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        return super().put(request, body, timeout)._replace(status=DispatchStatus.ACCEPTED)


class Unremembering(ShelfDispatcher):
    """Has a worker that does not ask the idempotency store."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._settings = RunSettings()

    def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        self.forget()
        return super().put(request, body, timeout)


# C11


class Worker(ShelfDispatcher):
    """What the broken workers begin with: an outcome is turned into another before it counts."""

    def turned(self, outcome: Outcome) -> Outcome:
        """The outcome as a broken worker sees it."""
        return outcome

    def settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        return super().settle(delivery, self.turned(outcome))


def taking(action: Action, for_action: Action) -> type[ShelfDispatcher]:
    """A worker that takes one outcome for another."""

    class Mistaking(Worker):
        def turned(self, outcome: Outcome) -> Outcome:
            wrong = outcome.action is for_action
            return outcome.model_copy(update={"action": action}) if wrong else outcome

    return Mistaking


class Burying(Worker):
    """Takes work that was discarded for work that failed."""

    def turned(self, outcome: Outcome) -> Outcome:
        wrong = outcome.reason == "discarded"
        return outcome.model_copy(update={"action": Action.DEAD}) if wrong else outcome


class Impatient(Worker):
    """Tries again at once, whatever the handler asked for."""

    def turned(self, outcome: Outcome) -> Outcome:
        return outcome.model_copy(update={"after": 0.0})


class Unraised(ShelfDispatcher):
    """Runs failed work over and over, always as its first attempt."""

    def settle(self, delivery: Delivery, outcome: Outcome) -> bool:
        settled = super().settle(delivery, outcome)
        delivery.work.attempt = 1
        return settled


class Leaking(Worker):
    """Runs each task in a context that earlier runs have changed."""

    def turned(self, outcome: Outcome) -> Outcome:
        tasks.COLOR.set("left behind")
        return outcome


class Keyed(ShelfDispatcher):
    """Knows a key, and not the call that it stands for."""

    def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        try:
            return super().put(request, body, timeout)
        except RejectedError:
            return Sent(request.id, DispatchStatus.DUPLICATE)


class Grudging(ShelfDispatcher):
    """Never takes what it has seen, although it died."""

    def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        seen = vars(self).setdefault("seen", set())
        if request.id in seen:
            return Sent(request.id, DispatchStatus.DUPLICATE)
        seen.add(request.id)
        return super().put(request, body, timeout)


class Modern(ShelfDispatcher):
    """Does not know the names that tasks had."""

    def put(self, request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        if request.task not in [task.name for task in catalogue.all()]:
            raise RejectedError(ErrorCategory.NOT_FOUND, "no such task")
        return super().put(request, body, timeout)


# C12


class Affirming(ShelfDispatcher):
    """Has more to say than yes or no."""

    @classmethod
    def is_available(cls) -> bool:
        return "yes, version 3"  # type: ignore[return-value]


class Eager(SocketDispatcher):
    """Connects when it is made."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.connected(monotonic() + 0.2).close()


class QuietlyEager(SocketDispatcher):
    """Connects when it is made, and says nothing if that fails."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        with contextlib.suppress(OSError):
            self.connected(monotonic() + 0.2).close()


class Anxious(ShelfDispatcher):
    """Finds fault with itself."""

    def _check(self) -> None:
        raise ConfigurationError("is this right?")


class Careless(SocketDispatcher):
    """Looks at nothing when it is asked to look."""

    def _probe(self, *, timeout: float) -> None:
        left(monotonic() + timeout)


class Tolerant(ShelfDispatcher):
    """Takes any option."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        known = {k: v for k, v in settings.items() if k in (*self.Options.model_fields, "alias")}
        super().__init__(*args, **known)


class Selfwilled(ShelfDispatcher):
    """Is called what it likes to be called."""

    def __init__(self, options: Any = None, *, alias: str | None = None, **settings: Any) -> None:
        super().__init__(options, alias="shelf", **settings)


def shelf(kind: type[ShelfDispatcher]) -> Callable[[], Harness]:
    return lambda: ShelfHarness(kind)


def plug(kind: type[SocketDispatcher]) -> Callable[[], Harness]:
    return lambda: SocketHarness(kind)


class HastyHarness(SocketHarness):
    """For a broken adapter that waits for its whole deadline."""

    deadline = 1.0


def inline(kind: type[InlineDispatcher]) -> Callable[[], Harness]:
    return lambda: InlineHarness(kind)


class Guessing(ShelfDispatcher):
    """Declares figures, and has none."""

    def _stats(self, *, timeout: float) -> Sequence[Stats]:
        del timeout
        return []


class Staring(SocketDispatcher):
    """Looks at its server with a client that knows no timeout, past the core's bound."""

    def stats(self, *, timeout: float = 2.0) -> list[Stats]:  # type: ignore[misc]
        del timeout
        return list(self._stats(timeout=LATE))


BROKEN: dict[str, tuple[Callable[[], Harness], ...]] = {
    # C1
    "test_what_is_no_request_is_an_answer": (shelf(Trusting),),
    "test_arguments_that_do_not_fit_are_an_answer": (shelf(Offended),),
    "test_options_that_do_not_fit_are_an_answer": (shelf(Offended),),
    "test_what_the_client_raises_is_an_answer": (shelf(Unguarded),),
    "test_what_is_no_exception_passes": (shelf(Swallowing),),
    "test_a_category_that_raises_is_an_answer": (shelf(Bold),),
    "test_a_doubt_that_raises_is_unknown": (shelf(Sure),),
    "test_hooks_that_raise_change_nothing": (shelf(TellsItself),),
    "test_a_batch_whose_requests_raise_is_an_answer": (shelf(Listing),),
    "test_a_missing_library_is_told_without_raising": (shelf(Importing),),
    "test_a_request_made_by_hand_is_enough": (shelf(Particular),),
    # C2
    "test_no_fault_outlasts_the_deadline": (plug(Patient),),
    "test_no_fault_outlasts_the_deadline_of_a_connection": (plug(Patient),),
    "test_no_fault_outlasts_the_deadline_when_awaited": (plug(BlocksTheLoop),),
    "test_a_batch_has_one_deadline": (plug(AsIfAlone),),
    "test_it_works_again_once_the_fault_is_gone": (plug(Sulking),),
    "test_a_backend_that_stalls_costs_the_deadline": (shelf(Waiting),),
    "test_a_connection_gone_stale_is_replaced": (plug(Keeping), plug(KeepingBlindly)),
    "test_a_requests_own_deadline_rules": (plug(Deaf),),
    "test_the_deadline_never_cuts_a_run": (inline(Hurried),),
    # C3
    "test_accepted_work_is_there": (shelf(Buffering),),
    "test_rejected_work_is_not_there": (shelf(Spilling),),
    "test_a_refused_connection_is_rejected": (plug(Doubting),),
    "test_a_lost_reply_is_unknown": (plug(Forgetting), plug(Denying)),
    "test_a_cut_request_is_judged_truly": (plug(Forgetting),),
    "test_status_ok_and_error_agree": (shelf(Contradicting),),
    "test_a_response_names_what_it_answers": (shelf(Renaming),),
    "test_a_response_travels_as_json": (shelf(Numbering),),
    "test_acceptance_is_of_the_declared_kind": (shelf(Boasting),),
    "test_what_failed_is_neither_confirmed_nor_durable": (shelf(Reassuring),),
    "test_a_task_that_fails_here_is_failed": (inline(Ignoring),),
    # C4
    "test_a_failure_has_a_category_a_type_and_words": (shelf(Wordless),),
    "test_only_what_was_not_handed_over_is_retryable": (shelf(Encouraging),),
    "test_payloads_are_never_shown": (shelf(Quoting),),
    "test_secrets_are_never_shown": (shelf(Talkative),),
    "test_a_failure_is_logged_once": (shelf(Complaining),),
    "test_success_is_not_logged": (shelf(Chatting),),
    "test_a_failing_backend_is_left_alone": (shelf(Insisting),),
    "test_the_breaker_closes_when_the_backend_is_back": (shelf(SulkingShelf),),
    "test_the_callers_fault_opens_no_breaker": (shelf(Accusing),),
    # C5
    "test_the_envelope_arrives_byte_for_byte": (shelf(Rewriting),),
    "test_every_way_hands_over_the_same_bytes": (shelf(Batching), shelf(CuttingBatches)),
    "test_typed_values_arrive_equal": (shelf(Normalising),),
    "test_large_arguments_arrive_whole": (shelf(Cutting),),
    "test_what_json_cannot_carry_is_refused": (shelf(Offended),),
    "test_the_handler_sees_the_whole_request": (shelf(Headless),),
    "test_what_a_hook_changes_travels": (shelf(Hasty),),
    # C6
    "test_capabilities_are_known_without_an_instance": (shelf(Growing),),
    "test_an_option_is_taken_or_refused": (shelf(Dropping),),
    "test_a_waived_option_is_told": (shelf(Silent),),
    "test_delayed_work_waits": (shelf(without(delay=None)), shelf(Hastening)),
    "test_work_for_an_instant_waits_for_it": (shelf(without(eta=None)),),
    "test_an_instant_is_the_same_in_each_time_zone": (shelf(Local),),
    "test_higher_priority_runs_first": (shelf(without(priority=None)),),
    "test_late_work_is_not_run": (shelf(without(expires=None)),),
    "test_a_run_that_overruns_is_cancelled": (shelf(without(time_limit=None)),),
    "test_too_large_an_envelope_is_refused": (shelf(Forcing),),
    "test_the_largest_envelope_is_taken": (shelf(Counting),),
    "test_what_the_server_refuses_has_its_category": (plug(Lumping), plug(Wavering)),
    "test_work_goes_to_the_queue_of_its_request": (
        shelf(without(queue=None)),
        shelf(losing(queue=None)),
    ),
    "test_too_long_a_delay_is_refused": (shelf(Forcing),),
    "test_an_unknown_queue_is_refused": (shelf(Creating),),
    # batches
    "test_a_batch_answers_each_in_order": (shelf(Reversing),),
    "test_one_bad_item_spoils_no_other": (shelf(AllOrNothing),),
    "test_a_batch_honours_the_options_of_each": (shelf(Uniform), shelf(losing(delay=None))),
    "test_a_batch_answers_what_became_of_each": (
        shelf(AsTheyCome),
        shelf(OnceABatch),
        shelf(AllAlike),
    ),
    "test_a_batch_in_order_stops_at_a_failure": (shelf(GoesOn),),
    "test_a_cut_batch_in_order_leaves_its_beginning": (plug(PicksUp),),
    "test_each_item_has_its_own_task_id": (shelf(AsTheyCome), shelf(AllAlike)),
    "test_a_batch_is_in_the_order_of_single_dispatches": (shelf(LastFirst),),
    "test_an_empty_batch_is_ok": (shelf(LooksAtTheFirst),),
    "test_each_item_is_told_once": (shelf(Repeating),),
    "test_sync_and_async_answers_agree": (shelf(TwoMinded),),
    # C7, C8
    "test_a_dispatcher_acts_now": (shelf(Postponing),),
    "test_many_threads_share_a_dispatcher": (shelf(OneAtATime),),
    "test_a_forked_child_and_its_parent_both_work": (shelf(AtHome),),
    "test_a_forked_child_and_its_parent_dispatch_at_once": (lambda: HastyHarness(Keeping),),
    "test_a_child_forked_during_a_dispatch_works": (shelf(Locking),),
    "test_a_signal_handler_may_dispatch": (shelf(Locking),),
    "test_an_awaited_dispatch_does_not_block_the_loop": (plug(BlocksTheLoop),),
    "test_a_cancelled_dispatch_is_still_told": (shelf(Unshielded),),
    "test_two_loops_share_a_dispatcher": (shelf(Faithful),),
    "test_each_of_many_at_once_has_its_own_answer": (shelf(MixedUp), shelf(OneOfMany)),
    "test_each_of_many_at_once_keeps_its_deadline": (plug(InTurn),),
    "test_some_of_many_at_once_may_be_cancelled": (shelf(Unshielded), plug(Heirless)),
    "test_many_that_fail_together_count_once": (plug(CountsEach),),
    "test_many_whose_reply_is_lost_are_in_doubt": (plug(DenyingTogether),),
    "test_the_urgent_of_many_at_once_run_first": (shelf(TurnedRound),),
    "test_neither_threads_nor_loops_starve": (shelf(ThreadsFirst), shelf(LoopsFirst)),
    "test_a_large_one_holds_up_no_small_ones": (lambda: SmallPatience(OneLine),),
    "test_each_is_told_in_the_context_of_its_caller": (shelf(Elsewhere),),
    "test_each_of_many_at_once_carries_its_own_trace": (shelf(OneTrace),),
    "test_closing_lets_those_who_wait_be_sent": (plug(Slamming), plug(Undrained)),
    "test_a_child_forked_while_many_wait_sends_none_of_them": (plug(Inheriting),),
    "test_a_signal_handler_may_dispatch_beside_others": (shelf(Waiters),),
    "test_a_dispatch_at_the_end_of_the_interpreter_is_answered": (
        shelf(Submitting),
        shelf(Joining),
    ),
    "test_a_closed_dispatcher_refuses": (shelf(Reopening),),
    "test_closing_keeps_its_timeout": (plug(Polite), shelf(Lingering)),
    "test_closing_an_unused_dispatcher_is_quick": (shelf(Lingering),),
    # C9, C10
    "test_durable_work_survives_the_death_of_its_process": (plug(HeldBack),),
    "test_work_survives_its_worker": (shelf(EarlyAck),),
    "test_deliveries_are_no_attempts": (shelf(Miscounting),),
    "test_work_that_kills_its_workers_is_given_up": (shelf(Uncounting),),
    "test_a_key_is_never_refused": (shelf(Unkeyed),),
    "test_work_with_a_known_key_is_a_duplicate": (shelf(Welcoming),),
    "test_the_same_request_is_a_duplicate": (shelf(Welcoming),),
    "test_a_key_with_other_arguments_is_a_conflict": (shelf(Keyed),),
    "test_a_request_may_be_repeated_after_its_death": (shelf(Grudging),),
    "test_each_run_has_a_context_of_its_own": (shelf(Leaking),),
    "test_an_idempotency_store_runs_it_once": (shelf(Unremembering),),
    # C9, C11
    "test_what_a_request_carries_survives_each_attempt": (shelf(Stripping),),
    "test_a_dead_letter_holds_what_was_sent": (shelf(Stripping),),
    "test_failed_work_is_tried_again": (
        shelf(taking(Action.DONE, Action.RETRY)),
        shelf(Unraised),
    ),
    "test_a_handler_may_ask_for_another_attempt": (shelf(Impatient),),
    "test_what_a_handler_discards_is_done": (shelf(Burying),),
    "test_work_that_failed_for_good_is_kept": (shelf(taking(Action.DONE, Action.DEAD)),),
    "test_what_is_not_understood_is_handed_back": (
        shelf(taking(Action.DONE, Action.RETURN)),
        shelf(taking(Action.DEAD, Action.RETURN)),
    ),
    "test_what_is_never_understood_is_kept": (shelf(taking(Action.DONE, Action.DEAD)),),
    "test_work_under_a_former_name_runs": (shelf(Modern),),
    # C12
    "test_available_is_a_word": (shelf(Affirming),),
    "test_nothing_is_contacted_before_the_first_dispatch": (plug(Eager), plug(QuietlyEager)),
    "test_it_can_be_built_with_nobody_there": (plug(Eager),),
    "test_a_sound_dispatcher_passes_its_check": (shelf(Anxious),),
    "test_a_check_with_contact_finds_nobody": (plug(Careless),),
    "test_figures_count_what_waits": (shelf(Guessing),),
    "test_figures_of_nobody_are_an_empty_list": (plug(Staring),),
    "test_a_wrong_option_raises_at_once": (shelf(Tolerant),),
    "test_what_it_is_can_be_read": (shelf(Selfwilled),),
}
