"""`BaseAsyncDispatcher`: a client that is asyncio only, under the same contract."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dispatchers import (
    BaseAsyncDispatcher,
    Capabilities,
    ConfigurationError,
    DispatchRequest,
    DispatchStatus,
    ErrorCategory,
    RejectedError,
    Sent,
    hooks,
)
from dispatchers._runtime.loop_thread import bridge

from ..timing import within  # noqa: TID252 - as for the other cases

GENEROUS = 20.0

SendFunction = Callable[[DispatchRequest], Awaitable[Any]]


class AsyncAdapter(BaseAsyncDispatcher):
    """Does what it was told, on whatever loop it finds itself."""

    name = "async"
    contract = 1
    capabilities = Capabilities(confirmed=True)

    def __init__(self, send: SendFunction, *, maybe: bool = False, **options: object) -> None:
        super().__init__(**options)
        self.send = send
        self.maybe = maybe
        self.loops: list[asyncio.AbstractEventLoop] = []

    async def _asend(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        self.loops.append(asyncio.get_running_loop())
        return await self.send(request)

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return None

    def _maybe_sent(self, exc: Exception) -> bool:
        return self.maybe


async def accept(request: DispatchRequest) -> Sent:
    await asyncio.sleep(0)
    return Sent(request.id)


async def hang(request: DispatchRequest) -> Sent:
    await asyncio.sleep(30)
    return Sent(request.id)


def raising(error: BaseException) -> SendFunction:
    async def send(request: DispatchRequest) -> Sent:
        raise error

    return send


def stubborn(released: threading.Event) -> SendFunction:
    """A client that catches its cancellation and goes on."""

    async def send(request: DispatchRequest) -> Sent:
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        return Sent(request.id)

    return send


def both_ways(dispatcher: AsyncAdapter, request: DispatchRequest) -> list[Any]:
    return [dispatcher.dispatch(request), asyncio.run(dispatcher.adispatch(request))]


def test_it_serves_sync_and_async_callers(request_):
    """The answers are equal, but for the time they took."""
    sync, async_ = both_ways(AsyncAdapter(accept), request_)

    assert sync.ok
    assert sync.model_dump(exclude={"elapsed"}) == async_.model_dump(exclude={"elapsed"})


def test_one_loop_serves_all_callers(request_):
    """C8: a client that is bound to its loop serves every thread and every other loop."""
    made = AsyncAdapter(accept)

    both_ways(made, request_)
    both_ways(made, request_)
    threads = [threading.Thread(target=both_ways, args=(made, request_)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(made.loops) == 12
    assert len(set(made.loops)) == 1


def test_a_sync_dispatch_works_where_a_loop_is_running(request_):
    """C8: a loop in the calling thread is in nobody's way."""
    made = AsyncAdapter(accept)

    async def main() -> Any:
        return made.dispatch(request_)

    assert asyncio.run(main()).ok


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        StopAsyncIteration(),
        ExceptionGroup("two", [ValueError(), OSError()]),
        ConnectionError("\udc80"),
        RejectedError("nonsense", 5),
    ],
    ids=lambda error: type(error).__name__,
)
def test_it_never_raises(request_, error):
    """C1: whatever the client raises is an answer."""
    made = AsyncAdapter(raising(error))

    answers = [
        *both_ways(made, request_),
        *made.dispatch_many([request_, request_]),
        *asyncio.run(made.adispatch_many([request_])),
    ]

    assert {each.status for each in answers} == {DispatchStatus.REJECTED}


@pytest.mark.parametrize("send", [lambda _: None, lambda _: 5], ids=["none", "number"])
def test_a_client_that_is_not_awaitable_is_an_answer(request_, send):
    """C1: an author's mistake raises in nobody's face."""
    for answer in both_ways(AsyncAdapter(send), request_):
        assert not answer.ok


def test_an_answer_that_is_none_is_unknown(request_):
    """C3: the client returned, so the work may be handed over."""

    async def send(request: DispatchRequest) -> Any:
        return None

    for answer in both_ways(AsyncAdapter(send), request_):
        assert answer.status is DispatchStatus.UNKNOWN


@pytest.mark.parametrize("deadline", [0.05, 0.2])
def test_a_client_that_hangs_costs_the_deadline(request_, deadline):
    """C2, C3: what was cut at the deadline is unknown, whatever `_maybe_sent` says."""
    made = AsyncAdapter(hang, deadline=deadline, maybe=False)

    for dispatch in (
        lambda: made.dispatch(request_),
        lambda: asyncio.run(made.adispatch(request_)),
    ):
        with within(deadline):
            answer = dispatch()
        assert answer.status is DispatchStatus.UNKNOWN
        assert answer.error.category is ErrorCategory.TIMEOUT
        assert not answer.error.retryable


def test_a_client_that_ignores_its_cancellation_costs_the_deadline(request_):
    """C2: nobody waits for it to heed."""
    released = threading.Event()
    made = AsyncAdapter(stubborn(released), deadline=0.1)

    async def main() -> Any:
        return await made.adispatch(request_)

    for dispatch in (lambda: made.dispatch(request_), lambda: asyncio.run(main())):
        with within(0.1):
            answer = dispatch()
        assert answer.status is DispatchStatus.UNKNOWN
    released.set()


def test_a_client_that_blocks_the_loop_costs_the_deadline(request_):
    """C2, C3: who began is unknown; who waited for the loop was certainly not sent."""
    released, begun = threading.Event(), threading.Event()

    async def block(request: DispatchRequest) -> Sent:
        begun.set()
        released.wait(20)
        return Sent(request.id)

    blocking = AsyncAdapter(block, deadline=0.3)
    waiting = AsyncAdapter(accept, deadline=0.1)
    first: list[Any] = []
    thread = threading.Thread(target=lambda: first.append(blocking.dispatch(request_)))
    thread.start()
    assert begun.wait(20)

    with within(0.1):
        second = waiting.dispatch(request_)
    thread.join()
    released.set()

    assert second.status is DispatchStatus.REJECTED
    assert second.error.category is ErrorCategory.TIMEOUT
    assert first[0].status is DispatchStatus.UNKNOWN
    assert AsyncAdapter(accept, deadline=20.0).dispatch(request_).ok
    assert waiting.loops == []


def test_the_client_s_own_timeout_is_the_client_s(request_):
    """C3: a timeout that the client raised in time is for `_maybe_sent` to judge."""
    answers = both_ways(AsyncAdapter(raising(TimeoutError("connecting")), maybe=False), request_)

    assert {each.status for each in answers} == {DispatchStatus.REJECTED}
    assert {each.error.category for each in answers} == {ErrorCategory.TIMEOUT}


def test_a_batch_keeps_what_was_accepted_in_time():
    """C3: one item that hangs takes no other's answer away."""
    requests = [DispatchRequest(task=name) for name in ("quick", "slow", "quick")]

    async def send(request: DispatchRequest) -> Sent:
        return await (hang if request.task == "slow" else accept)(request)

    made = AsyncAdapter(send, deadline=0.1)
    expected = [DispatchStatus.ACCEPTED, DispatchStatus.UNKNOWN, DispatchStatus.ACCEPTED]

    with within(0.1):
        sync = made.dispatch_many(requests)
    async_ = asyncio.run(made.adispatch_many(requests))

    assert [each.status for each in sync] == expected
    assert [each.status for each in async_] == expected


def test_a_batch_is_handed_over_at_once():
    """Items wait for the backend together, not one after the other."""
    together = 0
    most = 0

    async def send(request: DispatchRequest) -> Sent:
        nonlocal together, most
        together += 1
        most = max(most, together)
        await asyncio.sleep(0.01)
        together -= 1
        return Sent(request.id)

    requests = [DispatchRequest(task="t") for _ in range(10)]
    answers = AsyncAdapter(send).dispatch_many(requests)

    assert answers.ok
    assert [each.task_id for each in answers] == [each.id for each in requests]
    assert most == 10


def test_cancelling_adispatch_does_not_unsend(request_):
    """C8: what became of it still reaches the hooks."""
    begun, released = threading.Event(), threading.Event()
    told: list[Any] = []
    hooks.after_dispatch(told.append)

    async def send(request: DispatchRequest) -> Sent:
        begun.set()
        await asyncio.to_thread(released.wait, 20)
        return Sent(request.id)

    async def main() -> None:
        waiting = asyncio.ensure_future(AsyncAdapter(send, deadline=20.0).adispatch(request_))
        await asyncio.to_thread(begun.wait, 20)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        released.set()
        while not told:  # noqa: ASYNC110 - a hook tells no event loop
            await asyncio.sleep(0.005)

    asyncio.run(main())

    assert [each.status for each in told] == [DispatchStatus.ACCEPTED]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_a_loop_of_its_own(request_):
    """C8: the parent's loop does not run in the child."""
    made = AsyncAdapter(accept, deadline=20.0)
    assert all(both_ways(made, request_))
    parents = bridge._loop

    pid = os.fork()
    if pid == 0:
        fine = False
        try:
            fine = all(both_ways(made, request_)) and bridge._loop is not parents
        finally:
            os._exit(0 if fine else 1)
    _, status = os.waitpid(pid, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert all(both_ways(made, request_))


def test_a_loop_that_cannot_be_started_is_a_certain_rejection(request_, monkeypatch):
    """C3: at interpreter shutdown no thread can be started, and nothing was sent."""

    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(bridge, "_loop", None)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    answer = AsyncAdapter(accept).dispatch(request_)
    monkeypatch.undo()

    assert answer.status is DispatchStatus.REJECTED
    assert answer.error.category is ErrorCategory.CLOSED
    assert AsyncAdapter(accept).dispatch(request_).ok


class Resourceful(AsyncAdapter):
    """Notes where it is probed and closed; both do what they are told."""

    def __init__(
        self,
        *,
        probe: Callable[[], Awaitable[Any]] | None = None,
        close: Callable[[], Awaitable[int]] | None = None,
        **options: object,
    ) -> None:
        super().__init__(accept, **options)
        self.probe, self.closing = probe, close

    async def _aprobe(self, *, timeout: float) -> Any:
        self.loops.append(asyncio.get_running_loop())
        return self.probe and await self.probe()

    async def _aclose(self, *, timeout: float) -> int:
        self.loops.append(asyncio.get_running_loop())
        return await self.closing() if self.closing else 0


async def for_ever() -> Any:
    await asyncio.sleep(30)


def test_probe_and_close_run_on_the_loop_of_the_client(request_):
    """C8: what a client opened on the core's loop is closed there."""
    made = Resourceful(probe=lambda: returned(("slow disk",)), close=lambda: returned(2))

    made.dispatch(request_)
    made.check(contact=True)
    left = made.close(GENEROUS)

    assert made.warnings == ("slow disk",)
    assert left == 2
    assert len(made.loops) == 3
    assert set(made.loops) == {bridge._loop}


async def returned(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


def test_a_probe_that_fails_is_the_checks_answer():
    """C12: what `_aprobe` raises is told as what any probe raises."""

    async def refused() -> None:
        raise ConnectionRefusedError(111, "no server there")

    with pytest.raises(ConfigurationError, match=r"ConnectionRefusedError.*no server there"):
        Resourceful(probe=refused).check(contact=True)


def test_a_probe_that_hangs_costs_the_deadline():
    """C12: a server that does not answer fails the check."""
    with within(0.2), pytest.raises(ConfigurationError, match="could not be reached"):
        Resourceful(probe=for_ever, deadline=0.2).check(contact=True)


@pytest.mark.parametrize("timeout", [0.0, 0.1])
def test_a_close_that_hangs_keeps_its_timeout(request_, timeout, caplog):
    """C8: a client that does not end is left alone, with a line in the log."""
    ended = threading.Event()

    async def hang() -> int:
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()
        return 1

    made = Resourceful(close=hang)
    made.dispatch(request_)

    left = made.close(timeout)

    assert left == 0
    assert "closing 'async' (async)" in caplog.text
    assert ended.wait(GENEROUS), "it was not cancelled"


def test_a_close_that_raises_is_told(request_):
    """What `_aclose` raises leaves `close`, as with any backend."""

    async def fail() -> int:
        raise OSError("half closed")

    made = Resourceful(close=fail)
    made.dispatch(request_)

    with pytest.raises(OSError, match="half closed"):
        made.close(GENEROUS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_closing_in_a_child_that_used_no_loop_starts_none(request_):
    """C8: a child that has dispatched nothing does not touch what its parent opened."""
    made = Resourceful(close=lambda: returned(1))
    made.dispatch(request_)

    pid = os.fork()
    if pid == 0:
        os._exit(0 if made.close(GENEROUS) == 0 and not bridge.is_started else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert made.close(GENEROUS) == 1
