"""Work that is held is checked at once, handed over once, and always reported."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from dispatchers import (
    Capabilities,
    DispatchRequest,
    DispatchStatus,
    ErrorCategory,
    RejectedError,
    hooks,
    task,
)
from dispatchers.held import HoldingDispatcher


class Held(HoldingDispatcher):
    """Holds in a list."""

    name = "held"
    contract = 1

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.requests: list[DispatchRequest] = []

    def _hold(self, request: DispatchRequest) -> None:
        self.requests.append(request)


def test_what_is_held_is_deferred_and_handed_over_later(adapter, request_):
    """C3: `DEFERRED` until then; the later response goes to the callback."""
    told: list[Any] = []
    to = adapter()
    held = Held(to, told.append)

    deferred = held.dispatch(request_)
    before = list(to.asked)
    responses = held.release(held.requests)

    assert (deferred.status, deferred.durable, deferred.confirmed) == ("deferred", False, False)
    assert before == []
    assert told == list(responses)
    assert [each.status for each in responses] == [DispatchStatus.ACCEPTED]
    assert [request for request, _, _ in to.asked] == [request_]


def test_it_is_the_same_on_the_event_loop(adapter, request_):
    """An async callback is awaited there."""
    told: list[Any] = []
    to = adapter()

    async def tell(response: Any) -> None:
        await asyncio.sleep(0)
        told.append(response)

    async def use() -> Any:
        held = Held(to, tell)
        await held.adispatch_many([request_, request_])
        await held.adispatch(request_)
        return await held.arelease(held.requests)

    responses = asyncio.run(use())

    assert [each.ok for each in responses] == [True] * 3
    assert told == list(responses)


def test_what_does_not_fit_is_refused_at_once(adapter, request_):
    """C6, C7: while somebody looks, and by the rules of the dispatcher that would get it."""
    held = Held(adapter(capabilities=Capabilities(max_size=400), queues=["mail"]))

    answers = [
        held.dispatch(request_.replace(priority=5)),
        held.dispatch(request_.replace(queue="post")),
        held.dispatch(request_.replace(payload={"text": "x" * 500})),
        held.dispatch("no request"),  # type: ignore[arg-type]
    ]

    assert [each.error.category for each in answers if each.error] == [
        ErrorCategory.UNSUPPORTED,
        ErrorCategory.NOT_FOUND,
        ErrorCategory.TOO_LARGE,
        ErrorCategory.INVALID,
    ]
    assert held.requests == []


def test_a_place_that_is_full_says_so(adapter, request_):
    """A subclass may refuse."""

    class Full(Held):
        def _hold(self, request: DispatchRequest) -> None:
            raise RejectedError(ErrorCategory.CAPACITY, "no room")

    answer = Full(adapter()).dispatch(request_)

    assert answer.error is not None
    assert (answer.status, answer.error.category) == ("rejected", "capacity")


@pytest.mark.parametrize("released", ["sync", "async"])
def test_hooks_change_a_request_once(adapter, request_, released):
    """At the release the context they looked at is gone."""

    @hooks.before_dispatch
    def count(request: DispatchRequest) -> DispatchRequest:
        times = int(request.headers.get("times", "0")) + 1
        return request.replace(headers={"times": str(times)})

    to = adapter()
    held = Held(to)
    held.dispatch(request_)
    if released == "sync":
        held.release(held.requests)
    else:
        asyncio.run(held.arelease(held.requests))

    assert [request.headers["times"] for request, _, _ in to.asked] == ["1"]
    assert to.dispatch(request_).request.headers["times"] == "1"


def test_work_that_is_dispatched_by_released_work_is_seen(request_):
    """Only the held requests themselves have been seen; a task that runs here dispatches more."""
    from dispatchers.backends.inline import InlineDispatcher

    inline, seen = InlineDispatcher(), []

    @task(name="held.inner")
    def inner() -> None:
        """Nothing."""

    @task(name="held.outer")
    def outer() -> None:
        inner.options(dispatcher=inline).dispatch()

    @hooks.before_dispatch
    def note(request: DispatchRequest) -> None:
        seen.append(request.task)

    held = Held(inline)
    outer.options(dispatcher=held).dispatch()
    responses = held.release(held.requests)

    assert [each.status for each in responses] == [DispatchStatus.EXECUTED]
    assert seen == ["held.outer", "held.inner"]


def test_what_is_dropped_is_reported(adapter, request_, caplog):
    """C4: rejected, for the reason given, to the callback, the hooks and the log."""
    told: list[Any] = []
    seen: list[Any] = []
    hooks.after_dispatch(seen.append)
    held = Held(adapter(), told.append)
    held.dispatch(request_)

    (dropped,) = held.drop(held.requests, "it was rolled back")

    assert (dropped.status, dropped.error.category) == ("rejected", "closed")
    assert dropped.error.message == "it was rolled back"
    assert told == [dropped]
    assert [each.status for each in seen] == ["deferred", "rejected"]
    assert [each.levelno for each in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize("broken", ["sync", "async"])
def test_a_callback_that_raises_changes_nothing(adapter, request_, caplog, broken):
    """It is logged by its type, and the next is told."""

    def fail(_: object) -> None:
        raise RuntimeError("s3cret")

    async def afail(_: object) -> None:
        raise RuntimeError("s3cret")

    held = Held(adapter(), fail if broken == "sync" else afail)

    responses = asyncio.run(held.arelease([request_, request_]))

    assert [each.ok for each in responses] == [True, True]
    assert [each.message for each in caplog.records] == [
        "on_result raised RuntimeError; the dispatch stands"
    ] * 2


def test_an_async_callback_without_an_event_loop_is_named(adapter, request_, caplog):
    """Not a coroutine that nobody awaited, which Python tells much later."""

    async def tell(_: object) -> None:
        """Never runs."""

    Held(adapter(), tell).release([request_])

    assert [each.message for each in caplog.records] == [
        "on_result is async, and nothing awaits it here"
    ]


def test_an_async_callback_hears_of_what_is_dropped(adapter, request_):
    """On the event loop it is awaited."""
    told: list[Any] = []

    async def tell(response: Any) -> None:
        told.append(response)

    asyncio.run(Held(adapter(), tell).adrop([request_], "it was rolled back"))

    assert [each.status for each in told] == [DispatchStatus.REJECTED]


def test_cancelling_a_release_stops_neither_it_nor_its_reports(adapter, request_):
    """C8: what became of it is still told."""

    async def use() -> list[Any]:
        told: list[Any] = []
        held = Held(adapter(), told.append)
        releasing = asyncio.ensure_future(held.arelease([request_]))
        await asyncio.sleep(0)
        releasing.cancel()
        await asyncio.wait([releasing])
        for _ in range(3000):
            if told:
                break
            await asyncio.sleep(0.01)
        return told

    told = asyncio.run(use())

    assert [each.status for each in told] == [DispatchStatus.ACCEPTED]


def test_a_class_that_does_not_say_how_it_holds_cannot_be_made(adapter):
    """The one method an author writes."""
    with pytest.raises(TypeError, match="_hold"):
        HoldingDispatcher(adapter())  # type: ignore[abstract]
