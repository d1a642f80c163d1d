"""Concurrent dispatches share a call of the client, and each keeps what the contract says."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dispatchers import (
    BaseDispatcher,
    Capabilities,
    DispatchRequest,
    DispatchResponse,
    DispatchStatus,
    ErrorCategory,
    PublishingDispatcher,
    RejectedError,
    Sent,
    hooks,
    task,
)
from dispatchers._dispatch import shared_sending
from dispatchers._dispatch.shared_sending import LOOK, THREADS, SharedSending, _Place
from dispatchers._runtime.loop_side import side_of
from dispatchers._runtime.waiting import Waiting
from dispatchers.testing.conformance._tools import told

PATIENCE = 30.0


@task(name="shared.work")
def work(number: int, text: str = "") -> None:
    pass


class Sharing(BaseDispatcher):
    """A client that takes many; what it does with them is told to it."""

    name = "sharing"
    contract = 1
    shares_sending = True
    capabilities = Capabilities(batch=True, confirmed=True, priority=True, delay=True)
    maybe = True

    def __init__(self, do: Callable[[Sequence[DispatchRequest], float], Any], **more: Any) -> None:
        super().__init__(**more)
        self.do = do
        self.calls: list[list[str]] = []
        """The ids of each call."""
        self.threads: list[int] = []

    def _send(self, request, body, *, timeout):
        answer = self._send_many([(request, body)], timeout=timeout)[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _send_many(self, items, *, timeout):
        requests = [request for request, _ in items]
        self.threads.append(threading.get_ident())
        self.calls.append([request.id for request in requests])
        answers = self.do(requests, timeout)
        return answers or [Sent(f"{request.id}-there") for request in requests]

    def _category(self, exc):
        return ErrorCategory.UNAVAILABLE if isinstance(exc, ConnectionError) else None

    def _maybe_sent(self, exc):
        return self.maybe


class Gate:
    """A client whose first call waits until it is told to go on; then it takes everything."""

    def __init__(self, then: Callable[..., Any] = lambda requests, timeout: None) -> None:
        self.begun, self.opened = threading.Event(), threading.Event()
        self._then = then

    def __call__(self, requests: Sequence[DispatchRequest], timeout: float) -> Any:
        if not self.begun.is_set():
            self.begun.set()
            assert self.opened.wait(PATIENCE)
            return None
        return self._then(requests, timeout)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has none of those who wait go on by itself, however slow the machine is."""
    monkeypatch.setattr(shared_sending, "LOOK", PATIENCE)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(60) as made:
        yield made


def requests_of(number: int, **options: Any) -> list[DispatchRequest]:
    return [work.options(**options).request(each) for each in range(number)]


def waits(made: Sharing, number: int) -> None:
    """Wait until so many are in the queue."""
    until = time.monotonic() + PATIENCE
    while sum(place.is_free for place in tuple(made._sharing._waiting)) < number:  # type: ignore[union-attr]
        assert time.monotonic() < until
        time.sleep(0.001)


def gathered(
    made: Sharing, gate: Gate, pool: ThreadPoolExecutor, requests: Sequence[DispatchRequest]
) -> list[Future[DispatchResponse]]:
    """Dispatch all but the first while the first is under way, one after the other."""
    futures = [pool.submit(made.dispatch, requests[0])]
    assert gate.begun.wait(PATIENCE)
    for number, request in enumerate(requests[1:], 1):
        futures.append(pool.submit(made.dispatch, request))
        waits(made, number)
    return futures


def test_a_dispatch_that_is_alone_is_sent_by_its_caller():
    """C2: it waits for no company, and for no thread."""
    made = Sharing(lambda requests, timeout: None)

    answers = [made.dispatch(request) for request in requests_of(3)]

    assert all(answers)
    assert [len(call) for call in made.calls] == [1, 1, 1]
    assert set(made.threads) == {threading.get_ident()}


@pytest.mark.usefixtures("patient")
def test_threads_share_a_call(pool):
    """C3: what came during a call goes in one, and each has its own answer."""
    gate = Gate()
    made, requests = Sharing(gate, deadline=PATIENCE), requests_of(11)

    futures = gathered(made, gate, pool, requests)
    gate.opened.set()
    answers = [future.result(PATIENCE) for future in futures]

    assert [len(call) for call in made.calls] == [1, 10]
    assert [answer.request_id for answer in answers] == [request.id for request in requests]
    assert [answer.task_id for answer in answers] == [f"{each.id}-there" for each in requests]


@pytest.mark.usefixtures("patient")
def test_coroutines_share_calls_and_each_loop_is_woken_once_for_one(monkeypatch):
    """C8: two hundred coroutines are a few calls, and one wake-up each."""
    gate = Gate()
    made, requests = Sharing(gate, deadline=PATIENCE), requests_of(201)
    woken = []

    async def main() -> list[DispatchResponse]:
        side = side_of(asyncio.get_running_loop())
        post = type(side).post
        monkeypatch.setattr(
            type(side), "post", lambda *given: (woken.append(given), post(*given))[1]
        )
        futures = [asyncio.ensure_future(made.adispatch(requests[0]))]
        while not gate.begun.is_set():  # noqa: ASYNC110 - a thread says so
            await asyncio.sleep(0.001)
        futures += [asyncio.ensure_future(made.adispatch(each)) for each in requests[1:]]
        await asyncio.sleep(0)
        gate.opened.set()
        return await asyncio.gather(*futures)

    answers = asyncio.run(main())

    assert [answer.task_id for answer in answers] == [f"{each.id}-there" for each in requests]
    assert [len(call) for call in made.calls] == [1, 100, 100]
    assert len(woken) == 3


def test_a_call_that_hangs_holds_up_no_other(pool):
    """C2: who waits behind one for a moment sends by itself, for those behind it, too."""
    gate = Gate()
    made, requests = Sharing(gate, deadline=PATIENCE), requests_of(6)

    futures = [pool.submit(made.dispatch, requests[0])]
    assert gate.begun.wait(PATIENCE)
    futures += [pool.submit(made.dispatch, request) for request in requests[1:]]
    answers = [future.result(PATIENCE) for future in futures[1:]]
    first_waits = not futures[0].done()
    gate.opened.set()

    assert all(answers)
    assert first_waits
    assert futures[0].result(PATIENCE).ok


def test_a_call_that_hangs_holds_up_no_coroutine():
    """C2: the same on an event loop."""
    gate = Gate()
    made, requests = Sharing(gate, deadline=PATIENCE), requests_of(6)

    async def main() -> tuple[list[DispatchResponse], bool]:
        first = asyncio.ensure_future(made.adispatch(requests[0]))
        while not gate.begun.is_set():  # noqa: ASYNC110 - a thread says so
            await asyncio.sleep(0.001)
        answers = await asyncio.gather(*map(made.adispatch, requests[1:]))
        waits = not first.done()
        gate.opened.set()
        await first
        return answers, waits

    answers, first_waits = asyncio.run(main())

    assert all(answers)
    assert first_waits


@pytest.mark.parametrize("way", ["threads", "coroutines"])
def test_no_fault_outlasts_a_deadline(way, pool):
    """C2: each of many is answered within its own deadline while the client does not answer."""

    def hang(requests: Sequence[DispatchRequest], timeout: float) -> None:
        time.sleep(timeout)
        raise TimeoutError

    made = Sharing(hang, deadline=0.5, breaker=False)

    def dispatch(request: DispatchRequest) -> tuple[DispatchResponse, float]:
        started = time.monotonic()
        return made.dispatch(request), time.monotonic() - started

    async def adispatch(request: DispatchRequest) -> tuple[DispatchResponse, float]:
        started = time.monotonic()
        return await made.adispatch(request), time.monotonic() - started

    async def main() -> list[tuple[DispatchResponse, float]]:
        return await asyncio.gather(*map(adispatch, requests_of(40)))

    found = list(pool.map(dispatch, requests_of(40))) if way == "threads" else asyncio.run(main())

    assert {answer.status for answer, _ in found} <= {
        DispatchStatus.UNKNOWN,
        DispatchStatus.REJECTED,
    }
    assert {answer.error.category for answer, _ in found if answer.error} == {ErrorCategory.TIMEOUT}
    sent = {each for call in made.calls for each in call}
    assert {a.request_id for a, _ in found if a.status is DispatchStatus.UNKNOWN} == sent


def test_exactly_what_is_under_way_at_the_deadline_is_unknown(monkeypatch):
    """C3: what no thread of ours came to send is rejected, the rest is in doubt."""
    opened = threading.Event()
    made = Sharing(lambda requests, timeout: opened.wait(PATIENCE) and None, deadline=2.0)
    monkeypatch.setattr(Sharing, "_most_at_once", 2)
    number = 2 * THREADS + 5

    async def main() -> list[DispatchResponse]:
        return await asyncio.gather(*map(made.adispatch, requests_of(number)))

    answers = asyncio.run(main())
    sent = {each for call in tuple(made.calls) for each in call}
    opened.set()

    unknown = {each.request_id for each in answers if each.status is DispatchStatus.UNKNOWN}
    rejected = {each.request_id for each in answers if each.status is DispatchStatus.REJECTED}
    assert len(unknown) + len(rejected) == number
    assert rejected
    assert unknown == sent
    assert not rejected & {each for call in made.calls for each in call}


@pytest.mark.usefixtures("patient")
def test_a_call_that_fails_leaves_all_of_it_unknown_and_the_breaker_counts_once(pool):
    """C3: ten that shared a call are one failure; with the next one the breaker opens."""

    def fail(requests: Sequence[DispatchRequest], timeout: float) -> None:
        raise ConnectionResetError

    gate = Gate(fail)
    made = Sharing(gate, deadline=PATIENCE, breaker={"failures": 2})

    futures = gathered(made, gate, pool, requests_of(11))
    gate.opened.set()
    first, *others = [future.result(PATIENCE) for future in futures]
    after = made.dispatch(requests_of(1)[0])
    refused = made.dispatch(requests_of(1)[0])

    assert first.ok
    assert {each.status for each in others} == {DispatchStatus.UNKNOWN}
    assert after.status is DispatchStatus.UNKNOWN
    assert refused.error is not None
    assert refused.error.category is ErrorCategory.CIRCUIT_OPEN


@pytest.mark.usefixtures("patient")
def test_one_that_is_taken_says_that_the_backend_is_alive(pool):
    """C3: of a call with answers of both kinds the breaker counts no failure."""

    def some(requests: Sequence[DispatchRequest], timeout: float) -> list[Any]:
        return [Sent("there"), *[ConnectionResetError() for _ in requests[1:]]]

    gate = Gate(some)
    made = Sharing(gate, deadline=PATIENCE, breaker={"failures": 1})

    futures = gathered(made, gate, pool, requests_of(11))
    gate.opened.set()
    answers = [future.result(PATIENCE) for future in futures]

    assert sum(map(bool, answers)) == 2
    made.do = lambda requests, timeout: None
    assert made.dispatch(requests_of(1)[0]).ok


@pytest.mark.usefixtures("patient")
def test_one_that_the_client_refuses_fails_no_other(pool):
    """C3: where a call was refused for one of its messages, each is tried alone."""

    def refuse(requests: Sequence[DispatchRequest], timeout: float) -> None:
        if any(request.payload["number"] == 5 for request in requests):
            raise RejectedError(ErrorCategory.INVALID, "five")

    gate = Gate(refuse)
    made = Sharing(gate, deadline=PATIENCE)

    futures = gathered(made, gate, pool, requests_of(11))
    gate.opened.set()
    answers = [future.result(PATIENCE) for future in futures]

    assert [number for number, answer in enumerate(answers) if not answer] == [5]
    assert answers[5].status is DispatchStatus.REJECTED


@pytest.mark.usefixtures("patient")
def test_too_few_answers_leave_all_unknown(pool):
    """C3: no answer is given to the wrong one."""
    gate = Gate(lambda requests, timeout: [Sent("one")])
    made = Sharing(gate, deadline=PATIENCE)

    futures = gathered(made, gate, pool, requests_of(4))
    gate.opened.set()
    answers = [future.result(PATIENCE) for future in futures]

    assert [each.status for each in answers[1:]] == [DispatchStatus.UNKNOWN] * 3


@pytest.mark.usefixtures("patient")
def test_who_is_interrupted_while_sending_leaves_the_others_in_doubt(pool):
    """C1, C3: a KeyboardInterrupt goes on to its own caller, and to no other."""

    def interrupt(requests: Sequence[DispatchRequest], timeout: float) -> None:
        raise KeyboardInterrupt

    gate = Gate(interrupt)
    made = Sharing(gate, deadline=PATIENCE)

    futures = gathered(made, gate, pool, requests_of(5))
    gate.opened.set()
    found = [future.exception(PATIENCE) or future.result() for future in futures]

    raised = [each for each in found[1:] if isinstance(each, KeyboardInterrupt)]
    others = [each for each in found[1:] if isinstance(each, DispatchResponse)]
    assert len(raised) == 1
    assert [each.status for each in others] == [DispatchStatus.UNKNOWN] * 3
    made.do = lambda requests, timeout: None
    assert made.dispatch(requests_of(1)[0]).ok


@pytest.mark.usefixtures("patient")
def test_the_urgent_go_first(pool, monkeypatch):
    """C6: what has gathered is sent by priority, and in the order of arrival within one."""
    gate = Gate()
    made = Sharing(gate, deadline=PATIENCE)
    monkeypatch.setattr(Sharing, "_most_at_once", 4)
    levels = [0, 0, 0, 5, 0, 9, -5, 5]
    requests = [work.options(priority=level).request(1) for level in levels]
    level_of = {request.id: request.priority for request in requests}

    futures = gathered(made, gate, pool, [*requests_of(1), *requests])
    gate.opened.set()
    assert all(future.result(PATIENCE) for future in futures)

    sent = [[level_of[each] for each in call] for call in made.calls[1:]]
    # The first who wakes sends its own with the others.
    assert sent == [[9, 5, 5, 0], [0, 0, 0, -5]]


def test_an_urgent_one_that_comes_as_others_are_taken_is_seen():
    """C6: it goes before the others that came as late as it did."""
    sharing, until = alone([]), time.monotonic() + PATIENCE
    first, second, normal = (_Place(name, until, 0) for name in ("first", "second", "normal"))
    urgent = _Place("urgent", until, 9)

    class Queue(deque[_Place]):
        def popleft(self) -> _Place:
            if second in self and urgent not in self:  # as the first is taken
                self.extend([normal, urgent])
                sharing._has_priorities = True
            return super().popleft()

    sharing._waiting = Queue([first, second])
    sharing._has_priorities = True

    gathered = [[place.message for place in sharing._gathered(most)] for most in (2, 1, 1)]

    assert gathered == [["first", "second"], ["urgent"], ["normal"]]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    "options", [{"deadline": 20.0}, {"text": "x" * 100_000}], ids=["own_deadline", "large"]
)
@pytest.mark.parametrize("way", ["thread", "coroutine"])
def test_what_would_hold_up_others_goes_alone(pool, options, way):
    """C2: a large one, or one with a deadline of its own, waits for none and cuts none."""
    gate = Gate()
    made = Sharing(gate, deadline=PATIENCE)
    chosen = work.options(deadline=options["deadline"]) if "deadline" in options else work
    request = chosen.request(1, options.get("text", ""))

    first = pool.submit(made.dispatch, requests_of(1)[0])
    assert gate.begun.wait(PATIENCE)
    answer = made.dispatch(request) if way == "thread" else asyncio.run(made.adispatch(request))
    gate.opened.set()

    assert answer.ok
    assert made.calls[1] == [request.id]
    assert first.result(PATIENCE).ok


@pytest.mark.usefixtures("patient")
def test_what_was_cancelled_while_it_waited_is_still_told():
    """C8: cancelling does not unsend, and each response reaches the hooks once."""
    gate = Gate()
    made, requests = Sharing(gate, deadline=PATIENCE), requests_of(21)

    async def main() -> None:
        futures = [asyncio.ensure_future(made.adispatch(requests[0]))]
        while not gate.begun.is_set():  # noqa: ASYNC110 - a thread says so
            await asyncio.sleep(0.001)
        futures += [asyncio.ensure_future(made.adispatch(each)) for each in requests[1:]]
        await asyncio.sleep(0)
        for future in futures[::2]:
            future.cancel()
        await asyncio.sleep(0)
        gate.opened.set()
        await asyncio.wait(futures)
        while len(seen) < len(requests):  # noqa: ASYNC110 - a hook tells
            await asyncio.sleep(0.001)

    with told() as seen:
        asyncio.run(asyncio.wait_for(main(), PATIENCE))

    assert sorted(each.request_id for each in seen) == sorted(each.id for each in requests)
    assert all(seen)


@pytest.mark.usefixtures("patient")
def test_each_hook_runs_in_the_context_of_its_caller(pool):
    """C8: whoever sends, the caller's variables are seen before and after."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    gate, seen = Gate(), {}
    made, requests = Sharing(gate, deadline=PATIENCE), requests_of(6)

    def dispatch(request: DispatchRequest) -> DispatchResponse:
        variable.set(request.id)
        return made.dispatch(request)

    def look(response: DispatchResponse) -> None:
        seen[response.request_id] = variable.get()

    hooks.after_dispatch(look)
    try:
        futures = [pool.submit(dispatch, requests[0])]
        assert gate.begun.wait(PATIENCE)
        futures += [pool.submit(dispatch, request) for request in requests[1:]]
        waits(made, 5)
        gate.opened.set()
        assert all(future.result(PATIENCE) for future in futures)
    finally:
        hooks.remove(look)

    assert seen == {request.id: request.id for request in requests}


def test_a_coroutine_that_is_alone_is_sent_in_its_context():
    """C8: a client's instrumentation finds the caller's span."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen = []
    made = Sharing(lambda requests, timeout: seen.append(variable.get()))

    async def main() -> DispatchResponse:
        variable.set("caller's")
        return await made.adispatch(requests_of(1)[0])

    assert asyncio.run(main()).ok
    assert seen == ["caller's"]


@pytest.mark.usefixtures("patient")
def test_who_dispatches_while_it_sends_waits_for_nobody():
    """C8: a signal handler's dispatch is answered within the one that it interrupts."""
    nested: list[DispatchResponse] = []

    def nest(requests: Sequence[DispatchRequest], timeout: float) -> None:
        if len(made.calls) == 1:
            nested.append(made.dispatch(requests_of(1)[0]))

    made = Sharing(nest, deadline=PATIENCE)
    answer = made.dispatch(requests_of(1)[0])

    assert answer.ok
    assert nested[0].ok


@pytest.mark.usefixtures("patient")
def test_a_child_that_is_forked_while_others_send_sends_its_own(pool):
    """C8: it finds an empty queue, and sends nothing of its parent's."""
    gate = Gate()
    made = Sharing(gate, deadline=PATIENCE)
    futures = gathered(made, gate, pool, requests_of(4))[:]

    if not (child := os.fork()):
        before, made.do = len(made.calls), lambda requests, timeout: None
        answers = [made.dispatch(request) for request in requests_of(3)]
        alone = [len(call) for call in made.calls[before:]] == [1, 1, 1]
        os._exit(0 if all(answers) and alone else 1)
    _, status = os.waitpid(child, 0)
    gate.opened.set()

    assert status == 0
    assert all(future.result(PATIENCE) for future in futures)


@pytest.mark.usefixtures("patient")
def test_closing_lets_those_who_wait_be_sent(pool):
    """C8: what waits when a dispatcher is closed is handed over within the timeout."""
    gate = Gate()
    made, closed = Sharing(gate, deadline=PATIENCE), []
    made._close = lambda timeout: (closed.append(len(made.calls)), 0)[1]  # type: ignore[method-assign]

    futures = gathered(made, gate, pool, requests_of(6))
    closing = pool.submit(made.close, PATIENCE)
    while not made._closed:
        time.sleep(0.001)
    late = made.dispatch(requests_of(1)[0])
    gate.opened.set()
    answers = [future.result(PATIENCE) for future in futures]

    assert closing.result(PATIENCE) == 0
    assert all(answers)
    assert closed == [2]
    assert late.error is not None
    assert late.error.category is ErrorCategory.CLOSED


@pytest.mark.usefixtures("patient")
def test_threads_and_loops_are_served_in_the_order_of_arrival(pool):
    """C8: a thread does not wait behind a loop's later coroutines, nor they behind threads'."""
    gate = Gate()
    made = Sharing(gate, deadline=PATIENCE)
    early, thread, later = requests_of(30), requests_of(1)[0], requests_of(150)

    async def main() -> None:
        first = asyncio.ensure_future(made.adispatch(requests_of(1)[0]))
        while not gate.begun.is_set():  # noqa: ASYNC110 - a thread says so
            await asyncio.sleep(0.001)
        futures = [asyncio.ensure_future(made.adispatch(each)) for each in early]
        await asyncio.sleep(0)
        blocker = made._sharing
        assert blocker is not None
        blocker._sending[0] = time.monotonic() + PATIENCE  # as if another thread sent just now
        futures.append(asyncio.wrap_future(pool.submit(made.dispatch, thread)))
        while not any(  # noqa: ASYNC110 - a thread does it
            place.message[0] is thread for place in tuple(blocker._waiting)
        ):
            await asyncio.sleep(0.001)
        futures += [asyncio.ensure_future(made.adispatch(each)) for each in later]
        await asyncio.sleep(0)
        gate.opened.set()
        assert all(await asyncio.gather(first, *futures))
        blocker._sending.clear()

    asyncio.run(asyncio.wait_for(main(), PATIENCE))

    order = [each for call in made.calls[1:] for each in call]
    assert order == [each.id for each in (*early, thread, *later)]


def test_a_dispatch_at_the_end_of_the_interpreter_has_an_answer():
    """C1: also where no thread can be started any more."""
    code = """
import asyncio, atexit
from test_shared_sending import Sharing, requests_of

made = Sharing(lambda requests, timeout: None)


def last():
    sync, looped = made.dispatch(requests_of(1)[0]), asyncio.run(made.adispatch(requests_of(1)[0]))
    for answer in (sync, looped):
        print(answer.status.value, answer.error and answer.error.category.value)


async def main():
    return await asyncio.gather(*map(made.adispatch, requests_of(10)))


atexit.register(last)
assert all(asyncio.run(main()))
"""

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
    )

    assert done.stdout.splitlines()[0] == "accepted None"
    assert done.stdout.splitlines()[1] in ("accepted None", "rejected closed")


def alone(sent: list[list[str]]) -> SharedSending:
    """What callers share, by itself; it notes what is sent."""

    def send(messages: Sequence[str], timeout: float) -> list[Sent]:
        sent.append(list(messages))
        return [Sent(message) for message in messages]

    return SharedSending(send, lambda exc: True, size=100, usual=1.0)


def test_what_comes_as_a_thread_of_ours_leaves_is_sent():
    """C2: it is put into the queue by one who saw that thread at it."""
    sent: list[list[str]] = []
    sharing, me = alone(sent), Waiting()
    late = _Place("late", time.monotonic() + PATIENCE, 0)

    class Helping(dict):  # type: ignore[type-arg]
        def pop(self, *given):
            if not sent:
                sharing._waiting.append(late)
            return super().pop(*given)

    sharing._helping = Helping({me: time.monotonic()})
    sharing._send_all(me)

    assert sent == [["late"]]
    assert not sharing._helping


def test_who_has_little_time_left_sends_its_own_alone():
    """C2: what others have left is not cut to that."""
    sent: list[list[str]] = []
    sharing = alone(sent)
    other = _Place("other", time.monotonic() + 1.0, 0)
    sharing._waiting.append(other)

    answer = sharing.send("mine", time.monotonic() + 0.4, 0)

    assert answer.task_id == "mine"
    assert sent == [["mine"]]
    assert other.is_free


@pytest.mark.usefixtures("patient")
def test_who_is_interrupted_while_it_waits_is_not_sent(pool, monkeypatch):
    """C1: a KeyboardInterrupt passes, and the work of nobody is handed over."""
    gate = Gate()
    made, request = Sharing(gate, deadline=PATIENCE), requests_of(1)[0]

    def interrupt(self: _Place, seconds: float) -> None:
        raise KeyboardInterrupt

    futures = gathered(made, gate, pool, requests_of(3))
    with monkeypatch.context() as patched:
        patched.setattr(_Place, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            made.dispatch(request)
    gate.opened.set()

    assert all(future.result(PATIENCE) for future in futures)
    assert request.id not in {each for call in made.calls for each in call}


def test_what_is_sent_after_its_loop_is_still_told():
    """C8: cancelled with its loop, which is closed when the answer comes."""
    gate, is_told = Gate(), threading.Event()
    made, requests = Sharing(gate, deadline=PATIENCE), requests_of(3)

    async def main() -> None:
        futures = [asyncio.ensure_future(made.adispatch(each)) for each in requests]
        while not gate.begun.is_set():  # noqa: ASYNC110 - a thread says so
            await asyncio.sleep(0.001)
        for future in futures:
            future.cancel()

    def look(_: DispatchResponse) -> None:
        if len(seen) == len(requests):
            is_told.set()

    with told() as seen:
        hooks.after_dispatch(look)
        try:
            asyncio.run(main())
            gate.opened.set()
            assert is_told.wait(PATIENCE)
        finally:
            hooks.remove(look)

    assert all(seen)
    assert sorted(each.request_id for each in seen) == sorted(each.id for each in requests)


class Publishing(PublishingDispatcher[str]):
    """A client that publishes, whose messages know the thread that made them."""

    name = "publishing"
    contract = 1
    capabilities = Capabilities(batch=True, confirmed=True)

    def __init__(self, gate: Gate, **more: Any) -> None:
        super().__init__(**more)
        self.gate = gate
        self.made_by: dict[str, int] = {}
        self.calls: list[list[str]] = []

    def _prepare(self, request, body):
        if request.payload["number"] == 3:
            raise RejectedError(ErrorCategory.INVALID, "three")
        self.made_by[request.id] = threading.get_ident()
        return request.id

    def _publish(self, messages, timeout):
        self.calls.append(list(messages))
        self.gate([], timeout)
        return [Sent(message) for message in messages]

    def _category(self, exc):
        return None

    def _maybe_sent(self, exc):
        return True


@pytest.mark.usefixtures("patient")
def test_messages_are_made_by_their_callers(pool):
    """C8: only the call is shared; one that cannot be made is rejected before it."""
    gate = Gate()
    made, requests = Publishing(gate, deadline=PATIENCE), requests_of(6)

    def dispatch(request: DispatchRequest) -> tuple[DispatchResponse, int]:
        return made.dispatch(request), threading.get_ident()

    futures = [pool.submit(dispatch, requests[0])]
    assert gate.begun.wait(PATIENCE)
    futures += [pool.submit(dispatch, request) for request in requests[1:]]
    waits(made, 4)  # type: ignore[arg-type]
    gate.opened.set()
    found = [future.result(PATIENCE) for future in futures]

    assert [len(call) for call in made.calls] == [1, 4]
    assert [answer.ok for answer, _ in found] == [True, True, True, False, True, True]
    assert made.made_by == {a.request_id: thread for a, thread in found if a.ok}


def test_look_is_far_below_a_deadline():
    """C2: who waits behind a call that hangs has most of its time left."""
    assert LOOK <= 0.1


class Interruption(BaseException):
    """What passes through a dispatch: no `Exception`."""


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("is_closed", [False, True], ids=["its loop runs", "its loop is closed"])
def test_what_a_hook_of_one_raises_holds_up_no_other_of_its_call(is_closed):
    """C8: each of those who were cancelled is told, whatever the hook of one of them raises."""
    gate, is_told, handled = Gate(), threading.Event(), []
    made, requests = Sharing(gate, deadline=PATIENCE), requests_of(4)

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, given: handled.append(given))
        futures = [asyncio.ensure_future(made.adispatch(each)) for each in requests]
        while not gate.begun.is_set():  # noqa: ASYNC110 - a thread says so
            await asyncio.sleep(0.001)
        for future in futures:
            future.cancel()
        await asyncio.wait(futures)
        if not is_closed:
            gate.opened.set()
            await asyncio.get_running_loop().run_in_executor(None, is_told.wait, PATIENCE / 2)

    def look(response: DispatchResponse) -> None:
        if len(seen) == len(requests):
            is_told.set()
        if response.request_id == requests[1].id:
            raise Interruption

    with told() as seen:
        hooks.after_dispatch(look)
        try:
            asyncio.run(main())
            gate.opened.set()
            assert is_told.wait(PATIENCE / 2)
        finally:
            hooks.remove(look)

    assert all(seen)
    assert [each.request_id for each in seen] == [each.id for each in requests]
    assert [type(each["exception"]) for each in handled] == [Interruption] * (not is_closed)
