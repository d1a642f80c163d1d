"""A small adapter whose behaviour each test says, and the log."""

from __future__ import annotations

import gc
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from dispatchers import (
    BaseDispatcher,
    Capabilities,
    DispatchRequest,
    ErrorCategory,
    Sent,
    override,
    task,
)

SendFunction = Callable[[DispatchRequest, bytes, float], Any]


class Adapter(BaseDispatcher):
    """Does what it was told when it was made, and notes what it was asked."""

    name = "adapter"
    contract = 1
    capabilities = Capabilities(confirmed=True, durable=True)
    send: SendFunction
    category: Any = None
    maybe: Any = True

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        self.asked.append((request, body, timeout))
        return self.send(request, body, timeout)

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return self.category(exc) if callable(self.category) else self.category

    def _maybe_sent(self, exc: Exception) -> bool:
        return self.maybe(exc) if callable(self.maybe) else self.maybe


def _accept(request: DispatchRequest, body: bytes, timeout: float) -> Sent:
    return Sent(f"{request.id}-there")


def _raising(what: BaseException) -> SendFunction:
    def send(request: DispatchRequest, body: bytes, timeout: float) -> Sent:
        raise what

    return send


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Keeps the garbage of other tests, and its finalizers, out of a test."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def on_signal(uncollected: None) -> Callable[..., AbstractContextManager[None]]:
    """Has a signal call a handler while a block runs.

    With `every`, an alarm comes after so many seconds, and again as long after the handler has
    returned: handlers that are slower than their alarms would pile up for ever.

    A handler may run at any instant. Within a finalizer that a collection calls, what it raises
    is lost, and what it does is done in the middle of another test's code.
    """

    @contextmanager
    def handled(number: int, handler: Callable[..., object], every: float = 0) -> Iterator[None]:
        def handle(*args: object) -> None:
            handler(*args)
            if every:
                signal.setitimer(signal.ITIMER_REAL, every)

        before = signal.signal(number, handle)
        if every:
            signal.setitimer(signal.ITIMER_REAL, every)
        try:
            yield
        finally:
            if every:
                # pytest-timeout, whose handler was there, would take a late alarm for its own.
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(number, lambda *_: None)
            else:
                signal.signal(number, before)

    return handled


@pytest.fixture
def adapter() -> Iterator[Callable[..., Any]]:
    """Makes an adapter: `send` is what it does, an exception is raised; options by keyword.

    `category` and `maybe` are what `_category` and `_maybe_sent` say, or functions of the
    exception. `bases` are classes to derive from before `Adapter`.
    """
    made = []

    def make(
        send: SendFunction | BaseException = _accept,
        *,
        category: Any = None,
        maybe: Any = True,
        capabilities: Capabilities | None = None,
        guarded: bool = False,
        bases: tuple[type, ...] = (),
        members: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        act = _raising(send) if isinstance(send, BaseException) else send
        body = {
            "send": staticmethod(act),
            "category": staticmethod(category) if callable(category) else category,
            "maybe": staticmethod(maybe) if callable(maybe) else maybe,
            "guarded": guarded,
            "asked": [],
            **(members or {}),
        }
        if capabilities is not None:
            body["capabilities"] = capabilities
        made.append(type("Made", (*bases, Adapter), body)(**options))
        return made[-1]

    yield make

    for each in made:
        each.close(0)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[], list[tuple[int, str]]]:
    """The records of our logger so far: level and text."""
    caplog.set_level(logging.DEBUG, "dispatchers")

    def records() -> list[tuple[int, str]]:
        ours = (r for r in caplog.records if r.name.startswith("dispatchers"))
        return [(r.levelno, r.getMessage()) for r in ours]

    return records


@pytest.fixture
def inline() -> Iterator[None]:
    """`default` runs tasks here, with every attempt at once."""
    with override(default={"backend": "inline", "retries": "immediate"}):
        yield


@pytest.fixture
def request_() -> DispatchRequest:
    """Some request, of a task that need not exist."""
    return DispatchRequest(task="shop.send", payload={"user_id": 42})


@pytest.fixture
def send_welcome() -> Any:
    """A task that notes its calls in `.calls`."""
    calls: list[tuple[int, str]] = []

    @task(name="shop.send_welcome")
    def send_welcome(user_id: int, locale: str = "en") -> None:
        calls.append((user_id, locale))

    send_welcome.calls = calls
    return send_welcome
