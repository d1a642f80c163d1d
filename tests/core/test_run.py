"""The worker's core: an envelope in, an outcome out, and what a handler sees meanwhile."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import logging
import os
import re
import threading
import time
from asyncio import AbstractEventLoop, CancelledError, ensure_future, get_running_loop, sleep
from asyncio import run as asyncio_run
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID, uuid4

import pytest
from pydantic import AfterValidator, BaseModel

from dispatchers import (
    Action,
    DispatchRequest,
    Heartbeat,
    Outcome,
    Reason,
    Retry,
    RunSettings,
    arun_envelope,
    configure,
    current_run,
    declare,
    hooks,
    run_envelope,
    task,
)
from dispatchers._models.envelope import encode

WAYS: dict[str, Callable[..., Outcome]] = {
    "sync": run_envelope,
    "async": lambda *args, **values: asyncio.run(arun_envelope(*args, **values)),
}


@pytest.fixture(params=WAYS)
def run(request: pytest.FixtureRequest) -> Callable[..., Outcome]:
    """Both ways of running an envelope."""
    return WAYS[request.param]


def body_of(name: str, payload: dict[str, Any] | None = None, **values: Any) -> bytes:
    return encode(DispatchRequest(task=name, payload=payload or {}, **values))


class Line(BaseModel):
    sku: str
    price: Decimal


def refuse(value: int) -> int:
    raise KeyError("s3cret")


def test_a_handler_gets_its_arguments_as_they_were_typed(run):
    """C5: equal and of the same type."""
    seen: list[Any] = []

    @task(name="shop.typed")
    def typed(key: UUID, at: datetime, wait: timedelta, lines: list[Line], raw: bytes) -> None:
        seen.append((key, at, wait, lines, raw))

    values = (
        uuid4(),
        datetime(1969, 7, 20, 20, 17, tzinfo=UTC),
        timedelta(days=-1, microseconds=3),
        [Line(sku="a", price=Decimal("1.10"))],
        b"\x00\xff",
    )

    outcome = run(encode(typed.request(*values)))

    assert outcome.ok
    assert seen == [values]


def test_an_outcome_says_what_an_adapter_needs(run, send_welcome):
    """Action and reason, whose work it was, which attempt, and how long it took."""
    request = send_welcome.options(max_attempts=4).request(1)

    outcome = run(encode(request), attempt=3)

    assert (outcome.action, outcome.reason, outcome.ok) == (Action.DONE, Reason.SUCCEEDED, True)
    assert (outcome.task, outcome.request_id) == ("shop.send_welcome", request.id)
    assert (outcome.attempt, outcome.max_attempts) == (3, 4)
    assert outcome.elapsed >= 0
    assert outcome.error is None


def test_an_outcome_round_trips_through_json(run):
    """A worker's child process hands it to its parent."""

    @task(name="shop.fail")
    def fail() -> None:
        raise ValueError("why\udc80")

    outcome = run(body_of("shop.fail"))

    assert Outcome.model_validate_json(outcome.model_dump_json()) == outcome


def test_a_handler_sees_its_run(run):
    """`current_run()` gives request, attempt, deliveries and time."""
    seen: list[Any] = []

    @task(name="shop.look", time_limit=60, max_attempts=7)
    def look(number: int) -> None:
        here = current_run()
        seen.append(
            (
                here.request.payload["number"],
                here.request.context["tenant"],
                here.request.headers["traceparent"],
                here.attempt,
                here.deliveries,
                here.max_attempts,
                0 < here.time_left <= 60,
                here.should_stop,
                here.task is look,
            )
        )

    request = look.options(context={"tenant": 5}, headers={"traceparent": "00"}).request(1)
    run(encode(request), attempt=2, deliveries=3)

    assert seen == [(1, 5, "00", 2, 3, 7, True, False, True)]


def test_current_run_outside_of_a_run_raises(send_welcome):
    """A plain call of a task is no run, nor is what comes after one."""
    seen: list[Any] = []

    @task(name="shop.look")
    def look() -> None:
        with pytest.raises(LookupError, match="no run"):
            current_run()
        seen.append(1)

    look()
    run_envelope(body_of("shop.send_welcome", {"user_id": 1}))

    with pytest.raises(LookupError, match="no run"):
        current_run()
    assert seen == [1]


def test_a_run_within_a_run_is_its_own(inline):
    """A task that dispatches inline is afterwards in its own run again."""
    seen: list[str] = []

    @task(name="shop.inner")
    def inner() -> None:
        seen.append(current_run().task.name)

    @task(name="shop.outer")
    def outer() -> None:
        inner.dispatch().raise_for_error()
        seen.append(current_run().task.name)

    outer.dispatch().raise_for_error()

    assert seen == ["shop.inner", "shop.outer"]


def test_a_run_s_repr_shows_no_payload(run):
    """C4."""
    seen: list[str] = []

    @task(name="shop.look")
    def look(password: str) -> None:
        seen.append(repr(current_run()))

    run(body_of("shop.look", {"password": "s3cret"}))

    assert seen == ["Run(task='shop.look', attempt=1)"]


# Async tasks


def test_an_async_task_runs_to_its_end(run):
    """On a loop of its own for sync callers, on theirs for async ones."""
    seen: list[Any] = []

    @task(name="shop.async")
    async def async_task(number: int) -> None:
        await asyncio.sleep(0)
        seen.append((number, current_run().task.name))

    outcome = run(body_of("shop.async", {"number": 5}))

    assert outcome.ok
    assert seen == [(5, "shop.async")]


def test_an_async_task_under_a_sync_call_on_a_running_loop_runs_on_another_thread():
    """The call waits, and with it the loop; nothing deadlocks."""
    seen: list[Any] = []

    @task(name="shop.async")
    async def async_task() -> None:
        await asyncio.sleep(0)
        seen.append((threading.get_ident(), current_run().task.name))

    async def main() -> Outcome:
        return run_envelope(body_of("shop.async"))

    outcome = asyncio.run(main())

    assert outcome.ok
    assert seen[0][0] != threading.get_ident()
    assert seen[0][1] == "shop.async"


def test_a_sync_task_does_not_block_the_loop():
    """`arun_envelope` runs it on a thread, in the caller's context."""
    ticked = threading.Event()
    seen: list[bool] = []

    @task(name="shop.slow")
    def slow() -> None:
        seen.append(ticked.wait(20))
        seen.append(current_run().task.name == "shop.slow")

    async def main() -> Outcome:
        running = asyncio.ensure_future(arun_envelope(body_of("shop.slow")))
        await asyncio.sleep(0.01)
        ticked.set()
        return await running

    assert asyncio.run(main()).ok
    assert seen == [True, True]


def test_an_async_run_is_cancelled_at_its_time_limit(run):
    """It counts as failed, with the kind `timeout`."""
    seen: list[str] = []

    @task(name="shop.long", max_attempts=2)
    async def long() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            seen.append("cleaned up")

    started = time.monotonic()
    outcome = run(body_of("shop.long", time_limit=0.05))

    assert time.monotonic() - started < 5
    assert (outcome.action, outcome.reason) == (Action.RETRY, Reason.FAILED)
    assert outcome.error.kind == "timeout"
    assert outcome.error.exception_type == "dispatchers.TimeLimitError"
    assert seen == ["cleaned up"]


def test_a_timeout_of_the_handler_s_own_is_not_the_time_limit(run):
    """Both are timeouts, and told apart by type."""

    @task(name="shop.own", time_limit=60)
    async def own() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(30)

    assert run(body_of("shop.own")).error.exception_type == "TimeoutError"


def test_the_request_s_time_limit_beats_the_task_s(run):
    """Options beat the task's own."""
    seen: list[float] = []

    @task(name="shop.look", time_limit=1000)
    def look() -> None:
        seen.append(current_run().time_left)

    run(body_of("shop.look", time_limit=5.0))
    run(body_of("shop.look"))

    assert seen[0] <= 5
    assert 5 < seen[1] <= 1000


def test_a_sync_handler_can_see_that_its_time_is_over(run):
    """It cannot be stopped, which is declared and not pretended."""
    seen: list[bool] = []

    @task(name="shop.busy")
    def busy() -> None:
        here = current_run()
        while not here.should_stop:
            time.sleep(0.005)
        seen.append(here.time_left <= 0)

    run(body_of("shop.busy", time_limit=0.02))

    assert seen == [True]


def test_without_a_limit_there_is_no_time_left_to_tell(run):
    """None, and nothing asks it to stop."""
    seen: list[Any] = []

    @task(name="shop.look")
    def look() -> None:
        seen.append((current_run().time_left, current_run().should_stop))

    run(body_of("shop.look"))

    assert seen == [(None, False)]


def undressed(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that hides what it wraps."""

    def wrapper(number: int) -> Any:
        return function(number)

    wrapper.__qualname__ = function.__qualname__
    return wrapper


def test_a_coroutine_that_a_decorator_hid_is_run(run):
    """What looks synchronous and gives a coroutine must not pass for done."""
    seen: list[int] = []

    async def hidden(number: int) -> None:
        await asyncio.sleep(0)
        seen.append(number)

    hiding = task(name="shop.hidden")(undressed(hidden))

    assert not hiding.is_async
    assert run(body_of("shop.hidden", {"number": 5})).ok
    assert seen == [5]


def test_an_async_task_that_a_decorator_made_sync_is_run(run):
    """`functools.wraps` says async, the wrapper has awaited already."""
    seen: list[int] = []

    async def inner(number: int) -> None:
        seen.append(number)

    @functools.wraps(inner)
    def in_a_thread(number: int) -> None:
        thread = threading.Thread(target=lambda: asyncio.run(inner(number)))
        thread.start()
        thread.join()

    task(name="shop.wrapped")(in_a_thread)

    assert run(body_of("shop.wrapped", {"number": 5})).ok
    assert seen == [5]


def test_an_async_callable_object_can_be_a_task(run):
    """Whatever can be called and gives a coroutine."""
    seen: list[int] = []

    async def inner(kind: str, number: int) -> None:
        seen.append(number)

    task(name="shop.partial")(functools.partial(inner, "kind"))

    assert run(body_of("shop.partial", {"number": 5})).ok
    assert seen == [5]


# What is no Exception


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
@pytest.mark.parametrize("is_async", [True, False])
def test_what_is_no_exception_passes_through(error, is_async):
    """A worker that is told to end must end; no run is left behind."""
    if is_async:

        @task(name="shop.exit")
        async def leave() -> None:
            raise error
    else:

        @task(name="shop.exit")
        def leave() -> None:
            raise error

    with pytest.raises(type(error)):
        run_envelope(body_of("shop.exit"))
    with pytest.raises(LookupError):
        current_run()


def test_a_handler_that_cancels_something_of_its_own_has_failed(run):
    """`CancelledError` is no `Exception`, but nobody cancelled the run."""

    @task(name="shop.cancels", max_attempts=2)
    async def cancels() -> None:
        inner = asyncio.ensure_future(asyncio.sleep(30))
        inner.cancel()
        await inner

    outcome = run(body_of("shop.cancels"))

    assert (outcome.action, outcome.reason) == (Action.RETRY, Reason.FAILED)
    assert outcome.error.exception_type.endswith("CancelledError")


def test_a_run_that_is_cancelled_passes_that_on():
    """The worker that cancels it decides what becomes of the delivery."""
    seen: list[str] = []
    begun = asyncio.Event()

    @task(name="shop.long")
    async def long() -> None:
        begun.set()
        try:
            await asyncio.sleep(30)
        finally:
            seen.append("cleaned up")

    async def main() -> None:
        running = asyncio.ensure_future(arun_envelope(body_of("shop.long")))
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())

    assert seen == ["cleaned up"]


# What never raises


class BrokenText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class BrokenTraceback(Exception):
    @property
    def __traceback__(self) -> Any:
        raise RuntimeError("no traceback")


class BrokenClass(Exception):
    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class")


class BrokenAttributes(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("no attributes")


class BrokenInterruption(BaseException):
    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class")


class FalseError(Exception):
    def __bool__(self) -> bool:
        return False


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        BrokenText(),
        ValueError("\udc80"),
        StopIteration(),
        StopAsyncIteration(),
        RecursionError(),
        MemoryError(),
        ExceptionGroup("two", [ValueError(), OSError()]),
        Warning(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("is_async", [True, False])
def test_whatever_a_handler_raises_is_an_outcome(run, error, is_async):
    """`run_envelope` raises no `Exception`; the outcome is valid JSON."""
    if is_async:

        @task(name="shop.fail")
        async def fail() -> None:
            raise error
    else:

        @task(name="shop.fail")
        def fail() -> None:
            raise error

    outcome = run(body_of("shop.fail"))

    assert outcome.action is Action.DEAD
    assert outcome.model_dump_json()


async def run_in_a_loop(body: bytes) -> Outcome:
    return run_envelope(body)


# As classes: pytest looks at what it is given as a parameter.
@pytest.mark.parametrize(
    "error",
    [BrokenTraceback, BrokenClass, BrokenAttributes, BrokenInterruption, FalseError],
)
@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("way", [*WAYS.values(), lambda body: asyncio.run(run_in_a_loop(body))])
def test_an_exception_that_cannot_be_looked_at_ends_its_run(way, error, is_async):
    """C9: code of an exception's own neither keeps a run for ever nor makes it a success."""
    if is_async:

        @task(name="shop.fail")
        async def fail() -> None:
            raise error
    else:

        @task(name="shop.fail")
        def fail() -> None:
            raise error

    outcome = way(body_of("shop.fail"))

    assert outcome.action is Action.DEAD
    assert outcome.model_dump_json()


@pytest.mark.parametrize(
    "body",
    [
        None,
        5,
        "{}",
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"version":1,"task":"\xff"}',
        b'{"version":1,"task":"shop.send_welcome"}',
        b'{"version":1,"task":"shop.send_welcome","task":"other","payload":{}}',
        b"[" * 100_000,
        bytearray(b"{}"),
    ],
    ids=lambda body: repr(body)[:40],
)
def test_what_is_no_envelope_is_dead_at_once(run, send_welcome, body):
    """C11: nothing that waiting could cure; never a crash of the worker."""
    outcome = run(body)

    assert (outcome.action, outcome.reason) == (Action.DEAD, Reason.NO_ENVELOPE)
    assert outcome.error.message.startswith("no envelope")
    assert send_welcome.calls == []


def test_a_task_s_name_that_stands_twice_is_refused(run, send_welcome):
    """C11: what is read quickly and what is validated must be the same task."""
    body = body_of("shop.send_welcome", {"user_id": 1})
    twice = body.replace(b'"id":', b'"task":"shop.other","id":', 1)

    outcome = run(twice)

    assert outcome.reason is Reason.NO_ENVELOPE
    assert send_welcome.calls == []


def test_a_validator_that_raises_anything_is_an_outcome(run):
    """The types of a task's arguments are anybody's code."""

    @task(name="shop.odd")
    def odd(number: Annotated[int, AfterValidator(refuse)]) -> None: ...

    outcome = run(body_of("shop.odd", {"number": 1}))

    assert outcome.reason is Reason.INVALID_ARGUMENTS
    assert "KeyError" in outcome.error.message
    assert "s3cret" not in outcome.error.message


@pytest.mark.parametrize(
    "payload", ['{"number":NaN}', '{"number":1,"number":Infinity}', '{"number":1e999}']
)
def test_numbers_that_json_does_not_have_are_refused(run, payload):
    """C5: no sender of ours writes them, and no handler gets them."""
    seen: list[float] = []

    @task(name="shop.number")
    def number(number: float) -> None:
        seen.append(number)

    body = body_of("shop.number").replace(b"{}", payload.encode())

    outcome = run(body)

    assert outcome.action is not Action.DONE
    assert seen == []


def nulls(**values: Any) -> bytes:
    """An envelope in which somebody wrote out what is absent."""
    given = json.loads(body_of("shop.send_welcome", {"user_id": 1}))
    names = ("queue", "delay", "eta", "expires", "priority", "time_limit", "max_attempts")
    more = ("backoff", "idempotency_key", "fingerprint")
    return json.dumps(
        {**given, **dict.fromkeys((*names, *more)), **values}, separators=(",", ":")
    ).encode()


def test_null_is_as_good_as_absent(run, send_welcome):
    """Another language's library writes null where ours writes nothing."""
    outcome = run(nulls())

    assert outcome.ok
    assert send_welcome.calls == [(1, "en")]


def test_a_span_beyond_the_calendar_never_expires(run, send_welcome):
    """C11: and is no crash."""
    assert run(nulls(expires="P999999999D")).ok


@pytest.mark.parametrize("action", ["before", "after"])
def test_expired_work_is_done_and_not_run(run, send_welcome, action):
    """Later than `expires`, which is a span from the creation or an instant."""
    now = datetime.now(UTC)
    late = [
        body_of("shop.send_welcome", {"user_id": 1}, expires=now - timedelta(seconds=1)),
        body_of(
            "shop.send_welcome",
            {"user_id": 1},
            created_at=now - timedelta(hours=2),
            expires=timedelta(hours=1),
        ),
    ]
    in_time = body_of("shop.send_welcome", {"user_id": 1}, expires=timedelta(hours=1))

    outcomes = [run(body) for body in (*late, in_time)]

    assert [(each.action, each.reason) for each in outcomes] == [
        (Action.DONE, Reason.EXPIRED),
        (Action.DONE, Reason.EXPIRED),
        (Action.DONE, Reason.SUCCEEDED),
    ]
    assert len(send_welcome.calls) == 1


def test_a_configuration_that_is_broken_loses_no_outcome(run, monkeypatch):
    """C1: what is wrong there was said at start-up; here the task's own word counts."""

    @task(name="shop.fail", on_handler_error="log")
    def fail() -> None:
        raise ValueError

    monkeypatch.setenv("DISPATCHERS_TARGTS__X", "1")
    from dispatchers._config import api as _instances

    _instances.reload()
    outcome = run(body_of("shop.fail"))
    monkeypatch.delenv("DISPATCHERS_TARGTS__X")
    _instances.reload()

    assert (outcome.action, outcome.reason) == (Action.DONE, Reason.EXHAUSTED)


def test_a_log_handler_that_raises_breaks_no_run(run):
    """What cannot be logged is an outcome all the same."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("disk full")

    @task(name="shop.fail")
    def fail() -> None:
        raise ValueError

    handler = Broken()
    logging.getLogger("dispatchers").addHandler(handler)
    try:
        outcomes = [run(body_of("shop.fail")), run(b"")]
    finally:
        logging.getLogger("dispatchers").removeHandler(handler)

    assert [each.reason for each in outcomes] == [Reason.EXHAUSTED, Reason.NO_ENVELOPE]


# What is recorded


def test_an_error_is_recorded_with_type_place_and_words(run):
    """Beside the payload, for people; not in the log."""

    @task(name="shop.fail")
    def fail() -> None:
        raise ValueError("user 42 has no address")

    outcome = run(body_of("shop.fail"))

    assert outcome.error.exception_type == "ValueError"
    assert outcome.error.message == "user 42 has no address"
    assert "test_run.py" in outcome.error.where
    assert outcome.error.where.endswith(" in fail")
    assert isinstance(outcome.exception, ValueError)


def test_the_log_names_type_and_place_but_quotes_nothing(run, log):
    """C4: an exception's words may be somebody's data."""

    @task(name="shop.fail", max_attempts=2)
    def fail(password: str) -> None:
        raise ValueError(password)

    run(body_of("shop.fail", {"password": "s3cret"}))
    run(body_of("shop.fail", {"password": "s3cret"}), attempt=2)

    (first, retried), (second, exhausted) = log()
    assert (first, second) == (logging.WARNING, logging.ERROR)
    assert "run of shop.fail failed (failed, attempt 1 of 2): ValueError at " in retried
    assert "again in 1.0 s" in retried
    assert "(exhausted, attempt 2 of 2)" in exhausted
    assert "s3cret" not in retried + exhausted


def test_a_run_that_ends_well_is_one_line_of_information(run, send_welcome, log):
    """A healthy worker shows each run: task, attempt, request and seconds."""
    run(body_of("shop.send_welcome", {"user_id": 1}))

    ((level, text),) = log()
    assert level == logging.INFO
    assert re.fullmatch(
        r"run of shop.send_welcome succeeded \(attempt 1 of \d+, request \S+, \d+\.\d{3} s\)", text
    )


def test_a_caller_that_waits_for_the_run_has_no_line(run, send_welcome, log):
    """A dispatch that runs the work in the call is told by its answer."""
    run(body_of("shop.send_welcome", {"user_id": 1}), settings=RunSettings(quiet=True))

    assert log() == []


@pytest.mark.parametrize("kind", [type("Stopped", (BaseException,), {}), CancelledError])
def test_every_end_of_a_run_is_an_outcome(run, kind):
    """C9: an exception that is no `Exception` fails the run, and is retried or dead-lettered."""

    @task(name="shop.stops", max_attempts=2)
    def stops() -> None:
        raise kind

    body = body_of("shop.stops", {})

    assert run(body).action == "retry"
    assert run(body, attempt=2).action == "dead"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_the_end_of_the_worker_is_no_outcome(run, kind):
    """C1: what ends a process goes on to it, from an async task as well."""

    @task(name="shop.ends", max_attempts=2)
    def ends() -> None:
        raise kind

    with pytest.raises(kind):
        run(body_of("shop.ends", {}))


color: ContextVar[str] = ContextVar("color", default="none")


def test_each_run_has_a_context_of_its_own(run):
    """What a task leaves in a context variable is not there for the next, nor for the caller."""
    found: list[str] = []

    @task(name="shop.paints")
    def paints() -> None:
        found.append(color.get())
        color.set("red")

    @task(name="shop.paints_later")
    async def paints_later() -> None:
        found.append(color.get())
        color.set("blue")

    for name in ("shop.paints", "shop.paints_later") * 2:
        run(body_of(name, {}))

    assert found == ["none"] * 4
    assert color.get() == "none"


def test_an_async_run_that_swallows_its_time_limit_has_failed(run):
    """A run that catches its cancellation and returns is no success."""

    @task(name="shop.swallows", time_limit=0.05)
    async def swallows() -> None:
        with suppress(CancelledError):
            await sleep(30)

    outcome = run(body_of("shop.swallows", {}))

    assert outcome.reason == "exhausted"
    assert "TimeLimitError" in outcome.error.exception_type


def test_where_runs_are_interrupted_a_swallowed_time_limit_is_a_failure(run):
    """A sync run that returns after its interruption has swallowed it; elsewhere it is late."""

    @task(name="shop.late", time_limit=0.05)
    def late() -> None:
        while not current_run().is_late:
            pass

    body = body_of("shop.late", {})

    assert run(body).ok
    assert run(body, settings=RunSettings(interrupts=True)).reason == "exhausted"


def test_a_failure_names_the_frame_of_the_task_and_of_the_library(run):
    """The application's own line is in log and letter, not only the library's that raised."""

    @task(name="shop.reads")
    def reads(text: str) -> None:
        json.loads(text)

    where = run(body_of("shop.reads", {"text": "{"})).error.where

    assert re.match(r".*test_run\.py:\d+ in reads, raised at .*decoder\.py:\d+ in \w+$", where)


def test_a_group_of_failures_names_the_first_of_them(run):
    """What a task group raises tells where its own parts failed, in log, letter and frames.

    It leaves its task looking cancelled before Python 3.13, which is no reason to run again.
    """

    @task(name="shop.groups")
    async def groups(text: str) -> None:
        async def reads() -> None:
            json.loads(text)

        async with asyncio.TaskGroup() as group:
            group.create_task(reads())

    body = body_of("shop.groups", {"text": "{"})
    error = run(body, settings=RunSettings(tracebacks=True)).error

    first = (
        r"; its first is json\.decoder\.JSONDecodeError at .*test_run\.py:\d+ in reads, raised at"
    )
    assert re.search(r"in groups, raised at .*" + first, error.where)
    assert any("in reads" in frame for frame in error.frames)


def test_exceptions_that_cannot_be_compared_have_frames(run):
    """An exception's own `__eq__` has no part in how its causes are told."""

    class Odd(Exception):
        def __eq__(self, other: object) -> bool:
            raise RuntimeError("not to be compared")

        __hash__ = None

    @task(name="shop.odd")
    def odd() -> None:
        raise Odd from Odd()

    error = run(body_of("shop.odd", {}), settings=RunSettings(tracebacks=True)).error

    assert "test_run.py" in error.where
    assert len(error.frames) == 3


def test_all_frames_are_kept_on_request_and_quote_nothing(run, log):
    """`tracebacks` keeps file, line and function of each frame, causes too, never a value."""

    def parse(text: str) -> None:
        try:
            json.loads(text)
        except ValueError as exc:
            raise RuntimeError(text) from exc

    @task(name="shop.parses")
    def parses(text: str) -> None:
        parse(text)

    body = body_of("shop.parses", {"text": "{s3cret"})
    error = run(body, settings=RunSettings(tracebacks=True)).error

    frames = "\n".join(error.frames)
    assert [name in frames for name in ("in parses", "in parse", "decoder.py")] == [True] * 3
    assert "s3cret" not in frames + log()[-1][1]
    assert "in parse" in log()[-1][1]
    assert run(body).error.frames == ()


# Deliveries, leases and stopping


def test_too_many_deliveries_are_dead(run, send_welcome):
    """C10: a task that kills its worker does not circle for ever; attempts do not matter."""
    settings = RunSettings(max_deliveries=3)
    body = body_of("shop.send_welcome", {"user_id": 1})

    outcomes = [run(body, deliveries=n, attempt=9, settings=settings) for n in (1, 3, 4)]

    assert [(each.action, each.reason) for each in outcomes] == [
        (Action.DONE, Reason.SUCCEEDED),
        (Action.DONE, Reason.SUCCEEDED),
        (Action.DEAD, Reason.TOO_MANY_DELIVERIES),
    ]
    assert (outcomes[2].attempt, outcomes[2].task) == (9, "shop.send_welcome")
    assert "delivered 4 times" in outcomes[2].error.message
    assert len(send_welcome.calls) == 2


def test_a_heartbeat_is_renewed_while_the_handler_runs(run):
    """On a thread that no handler can block, and no longer than the run."""
    beats = threading.Semaphore(0)
    count: list[float] = []

    def renew() -> bool:
        count.append(time.monotonic())
        beats.release()
        return True

    @task(name="shop.busy")
    def busy() -> None:
        assert all(beats.acquire(timeout=20) for _ in range(3))

    outcome = run(body_of("shop.busy"), heartbeat=Heartbeat(renew, 0.01))
    renewed = len(count)
    time.sleep(0.05)

    assert outcome.ok
    assert len(count) - renewed <= 1  # one may have been under way


def test_a_lost_lease_stops_the_handler_and_refuses_its_result(run):
    """DESIGN 8: another worker may have it by now."""
    seen: list[bool] = []

    @task(name="shop.busy")
    def busy() -> None:
        here = current_run()
        until = time.monotonic() + 20
        while not here.should_stop and time.monotonic() < until:
            time.sleep(0.002)
        seen.append(here.lease_lost)

    outcome = run(body_of("shop.busy"), heartbeat=Heartbeat(lambda: False, 0.005))

    assert (outcome.action, outcome.reason) == (Action.RETURN, Reason.LEASE_LOST)
    assert seen == [True]


def test_a_heartbeat_that_raises_has_not_lost_the_lease(run, log):
    """It may last until the next try; the log says so."""
    failures = threading.Semaphore(0)

    def renew() -> bool:
        failures.release()
        raise ConnectionError("s3cret")

    @task(name="shop.busy")
    def busy() -> None:
        assert failures.acquire(timeout=20)
        assert failures.acquire(timeout=20)
        assert not current_run().lease_lost

    outcome = run(body_of("shop.busy"), heartbeat=Heartbeat(renew, 0.005))

    assert outcome.ok
    assert (logging.WARNING, "a lease could not be renewed: ConnectionError") in log()


def test_many_heartbeats_are_renewed_off_the_handlers_threads():
    """However many runs there are."""
    begun = threading.Barrier(9)
    names: set[str] = set()

    def renew() -> bool:
        names.add(threading.current_thread().name)
        return True

    @task(name="shop.busy")
    def busy() -> None:
        begun.wait(20)
        time.sleep(0.03)

    def work() -> None:
        run_envelope(body_of("shop.busy"), heartbeat=Heartbeat(renew, 0.005))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    begun.wait(20)
    for thread in threads:
        thread.join()

    assert names == {"dispatchers-beats"}


def test_a_worker_that_stops_asks_the_handler_to(run):
    """`should_stop` asks the worker each time."""
    stopping = threading.Event()
    seen: list[bool] = []

    @task(name="shop.busy", max_attempts=3)
    def busy() -> None:
        seen.append(current_run().should_stop)
        stopping.set()
        seen.append(current_run().should_stop)
        raise Retry

    outcome = run(body_of("shop.busy"), attempt=3, stopping=stopping.is_set)

    assert seen == [False, True]
    assert (outcome.action, outcome.reason) == (Action.RETURN, Reason.STOPPING)


def test_a_failure_while_the_worker_stops_is_a_failure(run):
    """Only `Retry` says that the handler gave up in time."""

    @task(name="shop.fail")
    def fail() -> None:
        raise ValueError

    assert run(body_of("shop.fail"), stopping=lambda: True).reason is Reason.EXHAUSTED


# on_handler_error: task, dispatcher, global


@pytest.mark.parametrize(
    ("of_host", "of_task", "of_worker", "expected"),
    [
        (None, None, None, Action.DEAD),
        (None, None, "log", Action.DONE),
        (None, None, "raise", Action.DEAD),
        (None, "log", None, Action.DONE),
        (None, "log", "raise", Action.DONE),
        (None, "raise", "log", Action.DEAD),
        ("log", "raise", "raise", Action.DONE),
        ("raise", "log", "log", Action.DEAD),
    ],
)
def test_the_nearest_word_on_handler_errors_counts(run, of_host, of_task, of_worker, expected):
    """The host's on this task, the task's, the worker's; `raise` where nobody said anything."""

    @task(name="shop.fail", on_handler_error=of_task)
    def fail() -> None:
        raise ValueError

    if of_host:
        configure({"tasks": {"shop.fail": {"on_handler_error": of_host}}})

    outcome = run(body_of("shop.fail"), settings=RunSettings(on_handler_error=of_worker))

    assert (outcome.action, outcome.reason) == (expected, Reason.EXHAUSTED)
    assert not outcome.ok
    assert outcome.error.exception_type == "ValueError"


def test_a_failure_that_is_only_logged_is_still_retried_first(run):
    """`log` is about the end, not about the attempts before it."""

    @task(name="shop.fail", on_handler_error="log", max_attempts=2)
    def fail() -> None:
        raise ValueError

    outcomes = [run(body_of("shop.fail"), attempt=n) for n in (1, 2)]

    assert [each.action for each in outcomes] == [Action.RETRY, Action.DONE]


def test_a_global_word_reaches_every_dispatcher():
    """Global is below the dispatcher's own."""

    @task(name="shop.fail")
    def fail() -> None:
        raise ValueError

    told: list[Outcome] = []
    hooks.after_run(lambda run, outcome: told.append(outcome))
    targets = {
        "x": {
            "default": {"backend": "inline"},
            "other": {"backend": "inline", "on_handler_error": "raise"},
        }
    }
    configure({"on_handler_error": "log", "targets": targets}, target="x")

    fail.dispatch()
    fail.options(dispatcher="other").dispatch()

    assert [outcome.action for outcome in told] == [Action.DONE, Action.DEAD]


# Who is found


def test_work_under_a_former_name_runs(run):
    """C11: a rename loses nothing."""
    seen: list[int] = []

    @task(name="shop.new", former_names=("shop.old", "shop.older"))
    def renamed(number: int) -> None:
        seen.append(number)

    outcomes = [
        run(body_of(name, {"number": n}))
        for n, name in enumerate(("shop.old", "shop.older", "shop.new"))
    ]

    assert [each.task for each in outcomes] == ["shop.new"] * 3
    assert seen == [0, 1, 2]


def test_a_declared_task_without_a_body_is_no_task_here(run):
    """C11: handed back with the cure, not run as nothing."""

    @declare(name="shop.elsewhere")
    def elsewhere(number: int) -> None: ...

    outcome = run(body_of("shop.elsewhere", {"number": 1}))

    assert (outcome.action, outcome.reason) == (Action.RETURN, Reason.UNKNOWN_TASK)
    assert "declared here without a body" in outcome.error.message


def test_an_unknown_task_is_told_with_the_nearest(run, send_welcome):
    """C11: never another task, never a silent skip."""
    outcome = run(body_of("shop.send_welcom", {"user_id": 1}))

    assert (outcome.action, outcome.reason) == (Action.RETURN, Reason.UNKNOWN_TASK)
    assert "did you mean 'shop.send_welcome'?" in outcome.error.message
    assert send_welcome.calls == []


def test_arguments_that_do_not_fit_never_reach_the_handler(run, send_welcome):
    """C11: handed back for a while, for an old worker may have got what a new one understands."""
    outcome = run(body_of("shop.send_welcome", {"user_id": "s3cret"}))

    assert (outcome.action, outcome.reason) == (Action.RETURN, Reason.INVALID_ARGUMENTS)
    assert "user_id" in outcome.error.message
    assert "s3cret" not in outcome.error.message
    assert send_welcome.calls == []


def test_absent_arguments_get_the_worker_s_defaults(run):
    """C5: defaults do not travel, so that they can change."""
    seen: list[Any] = []

    @task(name="shop.defaults")
    def defaults(a: int = 1, b: str | None = "b") -> None:
        seen.append((a, b))

    run(body_of("shop.defaults"))
    run(body_of("shop.defaults", {"a": 2, "b": None}))

    assert seen == [(1, "b"), (2, None)]


def test_both_ways_take_the_same_arguments():
    """`arun_envelope` is `run_envelope` for an event loop."""
    assert inspect.signature(run_envelope) == inspect.signature(arun_envelope)


def test_one_thread_runs_its_async_tasks_on_one_loop():
    """A client that is kept by the module serves the second run too."""
    loops: list[object] = []

    @task(name="shop.looped")
    async def looped() -> None:
        loops.append(get_running_loop())

    body = body_of("shop.looped", {})

    async def within_a_loop() -> None:
        run_envelope(body)
        run_envelope(body)

    run_envelope(body)
    run_envelope(body)
    asyncio_run(within_a_loop())

    assert loops[0] is loops[1]
    assert loops[2] is loops[3]
    assert not loops[0].is_closed()


def test_the_loop_of_a_thread_ends_with_it():
    """A thread that is done leaves no loop open, and nothing that runs on it."""
    loops: list[AbstractEventLoop] = []
    left: list[object] = []

    @task(name="shop.leaves")
    async def leaves() -> None:
        loops.append(get_running_loop())
        left.append(ensure_future(sleep(60)))

    thread = threading.Thread(target=run_envelope, args=[body_of("shop.leaves", {})])
    thread.start()
    thread.join()

    assert loops[0].is_closed()


def test_a_forked_child_has_a_loop_of_its_own():
    """C8: a child never touches the selector that it shares with its parent."""
    loops: list[object] = []

    @task(name="shop.forks")
    async def forks() -> None:
        loops.append(get_running_loop())

    body = body_of("shop.forks", {})
    run_envelope(body)

    if not (pid := os.fork()):
        ok = run_envelope(body).ok and loops[0] is not loops[1]
        os._exit(not ok)
    _, status = os.waitpid(pid, 0)

    assert status == 0
    assert run_envelope(body).ok


def test_an_unknown_task_is_told_to_the_hooks_too(caplog):
    """`after_run` sees each outcome of work that has a request, also of what no worker here has."""
    seen: list[tuple[str, str, str]] = []

    @hooks.after_run
    def note(run, outcome) -> None:
        seen.append((run.task.name, run.request.task, outcome.reason.value))

    try:
        run_envelope(body_of("shop.nobody_has_it", {}))
    finally:
        hooks.remove(note)

    assert seen == [("shop.nobody_has_it", "shop.nobody_has_it", "unknown_task")]


class HooksEnd(BaseException):
    """What is no `Exception`, raised by a hook."""


@pytest.mark.parametrize("event", ["before_run", "after_run"])
@pytest.mark.parametrize("error", [SystemExit, HooksEnd])
@pytest.mark.parametrize("kind", ["sync", "async", "deliveries", "unknown"])
def test_a_hook_that_exits_changes_no_outcome(send_welcome, event, error, kind):
    """C10: else what has run well would be run again, and what is to end would circle for ever."""
    body = encode(send_welcome.request(user_id=1))
    if kind == "unknown":
        body = body.replace(send_welcome.name.encode(), b"tests.nothing")
    deliveries = 9 if kind == "deliveries" else 1

    @getattr(hooks, event)
    def ends(*_):
        raise error

    try:
        if kind == "async":
            outcome = asyncio.run(arun_envelope(body, deliveries=deliveries))
        else:
            outcome = run_envelope(body, deliveries=deliveries)
    finally:
        hooks.remove(ends)

    expected = {"deliveries": "too_many_deliveries", "unknown": "unknown_task"}
    assert outcome.reason == expected.get(kind, "succeeded")


def test_a_hook_that_is_interrupted_is_the_workers(send_welcome):
    """What ends the process ends it, wherever it is at work."""

    @hooks.after_run
    def ends(*_):
        raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            run_envelope(encode(send_welcome.request(user_id=1)))
    finally:
        hooks.remove(ends)
