"""Hooks see every dispatch and every run; one that raises changes nothing."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from dispatchers import DispatchRequest, DispatchStatus, ErrorCategory, current_run, hooks, task


def fail(*values: object) -> None:
    raise RuntimeError("s3cret of a hook")


def test_before_dispatch_may_change_the_request(adapter, request_):
    """What it returns takes the request's place, for sync, async and many."""

    @hooks.before_dispatch
    def stamp(request: DispatchRequest) -> DispatchRequest:
        return request.replace(headers={**request.headers, "tenant": "acme"})

    made = adapter()

    answers = [
        made.dispatch(request_),
        asyncio.run(made.adispatch(request_)),
        *made.dispatch_many([request_]),
    ]

    assert [each.request.headers for each in answers] == [{"tenant": "acme"}] * 3
    assert all(b'"tenant":"acme"' in body for _, body, _ in made.asked)
    assert request_.headers == {}


def test_hooks_follow_one_another(adapter, request_):
    """In the order they were added, each seeing what the one before returned."""
    hooks.before_dispatch(lambda request: request.replace(queue="first"))
    hooks.before_dispatch(lambda request: request.replace(queue=f"{request.queue}-second"))

    answer = adapter().dispatch(request_)

    assert answer.request.queue == "first-second"


@pytest.mark.parametrize("returned", [None, 5, "text", {"task": "t"}])
def test_a_hook_that_returns_no_request_changes_nothing(adapter, request_, returned):
    """Most hooks only look."""
    hooks.before_dispatch(lambda _: returned)

    answer = adapter().dispatch(request_)

    assert answer.ok
    assert answer.request == request_


def test_a_changed_request_is_checked_like_any_other(adapter, request_):
    """C6: a hook cannot smuggle in what the backend cannot do."""
    hooks.before_dispatch(lambda request: request.replace(priority=5))

    answer = adapter().dispatch(request_)

    assert answer.error.category is ErrorCategory.UNSUPPORTED


@pytest.mark.parametrize("event", ["before_dispatch", "after_dispatch"])
def test_a_dispatch_hook_that_raises_changes_nothing(adapter, request_, log, event):
    """The others are called; the log names hook and type, not the words."""
    seen: list[object] = []
    getattr(hooks, event)(fail)
    getattr(hooks, event)(seen.append)

    answer = adapter().dispatch(request_)

    assert answer.ok
    assert len(seen) == 1
    assert log() == [(logging.WARNING, f"{event} hook fail raised RuntimeError; it is ignored")]


@pytest.mark.parametrize("event", ["before_run", "after_run"])
def test_a_run_hook_that_raises_changes_nothing(send_welcome, inline, log, event):
    """The work goes on."""
    getattr(hooks, event)(fail)

    answer = send_welcome.dispatch(1)

    assert answer.status is DispatchStatus.EXECUTED
    assert send_welcome.calls == [(1, "en")]
    assert any(f"{event} hook fail" in text for _, text in log())


def test_what_is_no_exception_passes_through_a_hook(adapter, request_):
    """C1: a signal is not swallowed."""

    def interrupt(request: DispatchRequest) -> None:
        raise KeyboardInterrupt

    hooks.before_dispatch(interrupt)

    with pytest.raises(KeyboardInterrupt):
        adapter().dispatch(request_)


def test_after_dispatch_sees_every_answer(adapter, request_, send_welcome):
    """Also those for which no dispatcher could be asked."""
    seen: list[Any] = []
    hooks.after_dispatch(seen.append)

    answers = [
        adapter().dispatch(request_),
        adapter(ConnectionError()).dispatch(request_),
        adapter().dispatch(None),
        send_welcome.dispatch(user_id="no number"),
        send_welcome.options(dispatcher=5).dispatch(1),
    ]

    assert [each.ok for each in answers] == [True, False, False, False, False]
    assert seen == answers


def test_run_hooks_see_every_run(send_welcome, inline):
    """In the context of the run, with its outcome after it."""
    seen: list[Any] = []
    hooks.before_run(lambda run: seen.append((run.task.name, current_run() is run)))
    hooks.after_run(lambda run, outcome: seen.append((outcome.action.value, current_run() is run)))

    send_welcome.dispatch(1)

    assert seen == [("shop.send_welcome", True), ("done", True)]


def test_run_hooks_see_failures_and_every_attempt(inline):
    """A run is one attempt."""
    seen: list[Any] = []
    hooks.after_run(lambda run, outcome: seen.append((run.attempt, outcome.reason.value)))

    @task(name="shop.fail", max_attempts=2)
    def always_fails() -> None:
        raise ValueError("no")

    always_fails.dispatch()

    assert seen == [(1, "failed"), (2, "exhausted")]


def test_run_hooks_see_async_runs(inline):
    """On whatever way they were dispatched."""
    seen: list[str] = []
    hooks.before_run(lambda run: seen.append(run.task.name))

    @task(name="shop.async")
    async def async_task() -> None:
        await asyncio.sleep(0)

    async_task.dispatch()
    asyncio.run(async_task.adispatch())

    assert seen == ["shop.async"] * 2


def test_a_run_hook_that_interrupts_leaves_no_run_behind(send_welcome, inline):
    """What is no `Exception` passes through, and the next code is part of no run."""

    def interrupt(run: object) -> None:
        raise KeyboardInterrupt

    hooks.before_run(interrupt)

    with pytest.raises(KeyboardInterrupt):
        send_welcome.dispatch(1)
    with pytest.raises(LookupError):
        current_run()


def test_a_hook_can_be_removed(adapter, request_):
    """Removing one that was never added does nothing."""
    seen: list[Any] = []

    @hooks.after_dispatch
    def look(response: object) -> None:
        seen.append(response)

    hooks.remove(look)
    hooks.remove(look)
    adapter().dispatch(request_)

    assert seen == []


def test_a_hook_is_given_back_by_its_decorator():
    """So that it can be called and removed by its name."""

    def look(response: object) -> None: ...

    assert hooks.after_dispatch(look) is look


@pytest.mark.parametrize("event", ["before_dispatch", "after_dispatch", "before_run", "after_run"])
def test_what_can_be_no_hook_is_refused_at_once(event):
    """An async function would never be awaited, and a number never called."""

    async def hook(value: object) -> None: ...

    with pytest.raises(TypeError, match="nothing would await it"):
        getattr(hooks, event)(hook)
    with pytest.raises(TypeError, match="not int"):
        getattr(hooks, event)(5)
