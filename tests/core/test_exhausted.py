"""C1: a dispatch raises nothing with no stack, no memory, no thread and no descriptor left."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from dispatchers import (
    BaseDispatcher,
    Capabilities,
    DispatchRequest,
    DispatchResponse,
    DispatchResponses,
    DispatchStatus,
    ErrorCategory,
    Sent,
    task,
)
from dispatchers.backends.memory import MemoryDispatcher
from dispatchers.backends.null import NullDispatcher
from dispatchers.backends.sqlite import SQLiteDispatcher


@task(name="exhausted.work")
def work(number: int, text: str = "") -> None: ...


class Storing(BaseDispatcher):
    """Stores at once, and says that nothing was sent, whatever is raised."""

    name = "storing"
    contract = 1
    capabilities = Capabilities()

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.stored: list[str] = []
        self.exception: Exception | None = None

    def _send(self, request: DispatchRequest, body: bytes, *, timeout: float) -> Sent:
        self.stored.append(request.id)
        if self.exception is not None:
            raise self.exception
        return Sent(request.id)

    def _category(self, exc: Exception) -> ErrorCategory | None:
        return None

    def _maybe_sent(self, exc: Exception) -> bool:
        return False


def at_depth(depth: int, call: Callable[[], Any]) -> Any:
    """Call with `depth` more frames below it."""
    return call() if depth <= 0 else at_depth(depth - 1, call)


def frames() -> int:
    frame, count = sys._getframe(), 0
    while frame is not None:
        frame, count = frame.f_back, count + 1
    return count


def raised_in(exc: BaseException) -> str:
    """The file of the innermost frame."""
    trace = exc.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else trace.tb_frame.f_code.co_filename


def answers_near_the_limit(call: Callable[[], Any]) -> list[Any]:
    """Call at each depth from far below the recursion limit to where it cannot be entered."""
    found = []
    room = sys.getrecursionlimit() - frames()
    for depth in range(room - 150, room):
        try:
            found.append(at_depth(depth, call))
        except RecursionError as exc:
            assert raised_in(exc) == __file__, "it was entered, and raised"  # noqa: PT017 - either is right
    return found


@pytest.fixture(params=["storing", "memory", "null", "sqlite"])
def backend(request, tmp_path) -> BaseDispatcher:
    made: dict[str, Callable[[], BaseDispatcher]] = {
        "storing": Storing,
        "memory": MemoryDispatcher,
        "null": NullDispatcher,
        "sqlite": lambda: SQLiteDispatcher(path=str(tmp_path / "queue.db")),
    }
    dispatcher = made[request.param]()
    dispatcher.dispatch(work.request(0))  # imports and connects with a stack of its own
    yield dispatcher
    dispatcher.close()


def stored(dispatcher: BaseDispatcher) -> set[str] | None:
    if isinstance(dispatcher, Storing):
        return set(dispatcher.stored)
    if isinstance(dispatcher, MemoryDispatcher):
        return {request.id for request in dispatcher.waiting}
    return None


def batch_of(chosen: Any) -> Any:
    batch = chosen.batch()
    batch.add(number=1)
    return batch


@pytest.mark.parametrize("way", ["request", "task", "many", "batch"])
def test_no_stack_is_an_answer(backend, way, monkeypatch):
    """C1, C3: close to the recursion limit too; what was stored is never called rejected."""
    # What fails in a finalizer there is not raised, and pytest's own hook has no stack to note it.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    chosen = work.options(dispatcher=backend)
    given = iter([work.request(n) for n in range(200)])
    batches = iter([batch_of(chosen) for _ in range(200)])
    calls = {
        "request": lambda: backend.dispatch(next(given)),
        "task": lambda: chosen.dispatch(number=1, text="a"),
        "many": lambda: backend.dispatch_many([next(given)]),
        "batch": lambda: next(batches).dispatch(),
    }

    answers = answers_near_the_limit(calls[way])

    flat = [
        r for each in answers for r in (each if isinstance(each, DispatchResponses) else [each])
    ]
    assert all(isinstance(each, DispatchResponse) for each in flat)
    assert any(each.ok for each in flat)
    assert not all(each.ok for each in flat)
    known = stored(backend)
    if known is not None:
        rejected = {r.request_id for r in flat if r.status is DispatchStatus.REJECTED}
        assert not rejected & known
        lost = sum(r.status is DispatchStatus.UNKNOWN for r in flat)
        accepted = {r.request_id for r in flat if r.ok}
        assert len(known) - 1 - len(accepted & known) <= lost  # the first was before


def first_answer(coroutine: Any) -> Any:
    """Enter a coroutine without an event loop, which is an answer, too."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    finally:
        coroutine.close()
    raise AssertionError("it waits")


@pytest.mark.parametrize("many", [False, True])
def test_no_stack_is_an_answer_to_a_coroutine(backend, many, monkeypatch):
    """C1: as above; from its first line on, which runs in the caller's stack."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    request = work.request(1)

    def call() -> Any:
        made = backend.adispatch_many([request]) if many else backend.adispatch(request)
        return first_answer(made)

    answers = answers_near_the_limit(call)

    assert answers
    assert not any(each.ok for each in answers)


@pytest.mark.parametrize("exception", [MemoryError(), RecursionError()])
@pytest.mark.parametrize("many", [False, True])
def test_what_was_stored_is_not_rejected(exception, many):
    """C3: an exhausted process may fail after the backend has the work, whatever it says."""
    made = Storing(breaker={"failures": 1})
    made.exception = exception
    request = work.request(1)

    answers = made.dispatch_many([request]) if many else [made.dispatch(request)]

    assert [each.status for each in answers] == [DispatchStatus.UNKNOWN]
    assert answers[0].error.category is ErrorCategory.CAPACITY
    made.exception = None
    assert made.dispatch(request).ok, "the breaker counts what is the backend's fault only"


def test_no_memory_for_the_answer_is_an_answer(monkeypatch):
    """C1: where not even a response can be made, one that was made before is returned."""
    made = Storing()

    def exhausted(*args: object, **kwargs: object) -> None:
        raise MemoryError

    monkeypatch.setattr(made, "_sent", exhausted)
    monkeypatch.setattr(made, "_refused", exhausted)

    sent = made.dispatch(work.request(1))
    refused = made.dispatch(None)
    many = made.dispatch_many([work.request(1)])

    assert sent.status is DispatchStatus.UNKNOWN
    assert refused.status is DispatchStatus.REJECTED
    assert [each.status for each in many] == [DispatchStatus.UNKNOWN]
    assert {each.error.category for each in (sent, refused)} == {ErrorCategory.CAPACITY}


def test_no_descriptor_is_an_answer(tmp_path):
    """C1: a process at its limit of open files is told so."""
    dispatcher = SQLiteDispatcher(path=str(tmp_path / "queue.db"), deadline=0.5)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        response = dispatcher.dispatch(work.request(1))
    finally:
        for each in taken:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert response.status is not DispatchStatus.ACCEPTED
    assert response.error is not None
    assert dispatcher.dispatch(work.request(2)).ok
    dispatcher.close()


@pytest.mark.parametrize("guarded", [False, True])
def test_no_thread_is_an_answer(monkeypatch, guarded):
    """C1: where no thread can be started, the answer says so."""

    class Guarded(Storing):
        pass

    Guarded.guarded = guarded

    def none(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)

    response = Guarded().dispatch(work.request(1))

    assert response.ok is not guarded
    assert response.error is None or response.error.category is ErrorCategory.CAPACITY
