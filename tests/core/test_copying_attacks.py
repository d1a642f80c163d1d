"""What users hand to `multiprocessing`, `copy` and `repr`."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import dispatchers
from dispatchers import (
    Backoff,
    ConfigurationError,
    DeclarationError,
    Discard,
    DispatchError,
    DispatchResponse,
    DispatchResponses,
    DispatchUnknownError,
    ErrorCategory,
    MissingDependencyError,
    PayloadError,
    RegistrationError,
    RejectedError,
    Retry,
    catalogue,
    get_dispatcher,
    override,
    task,
)

COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "oldest pickle": lambda value: pickle.loads(pickle.dumps(value, 2)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
ways = pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)


@task(name="attack.copied")
def copied_task(x: int) -> None:
    if x < 0:
        raise RejectedError(ErrorCategory.CONFLICT, "negative")


class Unpicklable(Exception):
    def __init__(self, one: object, two: object) -> None:
        super().__init__("words")
        self.held = lambda: (one, two)


@task(name="attack.unpicklable")
def unpicklable() -> None:
    raise Unpicklable(1, 2)


def _responses() -> list[DispatchResponse]:
    with override(default="inline"):
        return [
            copied_task.dispatch(1),
            copied_task.dispatch("1"),  # type: ignore[arg-type]
            copied_task.dispatch(-1),
            unpicklable.dispatch(),
        ]


@ways
def test_requests_are_copied(copied: Callable[[Any], Any]) -> None:
    """A copy of a request is equal, has the same hash, and is dispatched as the same work."""
    request = copied_task.options(headers={"a": "b"}, backoff=Backoff(initial=3)).request(1)

    other = copied(request)

    assert other == request
    assert hash(other) == hash(request)
    with override(default="memory"):
        statuses = [get_dispatcher().dispatch(each).status for each in (request, other)]
    assert statuses == ["accepted", "duplicate"]


@ways
def test_responses_are_copied(copied: Callable[[Any], Any]) -> None:
    """A copy of a response is equal, whatever exception the original holds."""
    responses = _responses()

    assert [each.ok for each in responses] == [True, False, False, False]
    assert [copied(each) for each in responses] == responses
    assert copied(DispatchResponses(responses)) == DispatchResponses(responses)


@ways
def test_a_copy_of_a_task_is_the_task(copied: Callable[[Any], Any]) -> None:
    """A task is one per process: what arrives elsewhere is the task of that name there."""
    assert copied(copied_task) is copied_task
    with override(default="inline"):
        assert copied(copied_task.options(idempotency_key="k")).dispatch(1).ok


def test_a_pickled_task_brings_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process imports the module that makes the task, and is told if it makes none."""
    pickled = pickle.dumps(copied_task)
    monkeypatch.setattr(catalogue, "_tasks", {})

    with pytest.raises(LookupError, match=r"no task 'attack\.copied' is registered"):
        pickle.loads(pickled)


@ways
@pytest.mark.parametrize(
    "error",
    [
        RejectedError(ErrorCategory.CAPACITY, "full", retryable=False),
        PayloadError("is a str", "x"),
        Retry(after=3.5, reason="later"),
        Retry(),
        Discard("why"),
        ConfigurationError("words"),
        MissingDependencyError("words"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_exceptions_are_copied(error: Exception, copied: Callable[[Any], Any]) -> None:
    """What we raise crosses a process pool with its words and its attributes."""
    other = copied(error)

    assert type(other) is type(error)
    assert str(other) == str(error)
    assert vars(other) == vars(error)


@ways
def test_what_raise_for_error_raises_is_copied(copied: Callable[[Any], Any]) -> None:
    """A dispatch error crosses with its response, although the task's exception could not."""
    with pytest.raises(DispatchError) as caught:
        DispatchResponses(_responses()[1:]).raise_for_error()

    assert copied(caught.value).response == caught.value.response
    assert str(copied(caught.value)) == str(caught.value)


@ways
def test_a_dispatcher_is_not_copied(copied: Callable[[Any], Any]) -> None:
    """It holds what belongs to one process; the message says what to pass instead."""
    with override(default="memory"):
        dispatcher = get_dispatcher()

        with pytest.raises(TypeError, match=r"pass its alias, and call get_dispatcher\(alias\)"):
            copied(dispatcher)


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError,
        DeclarationError,
        Discard,
        DispatchError,
        DispatchUnknownError,
        MissingDependencyError,
        PayloadError,
        RegistrationError,
        RejectedError,
        Retry,
    ],
)
def test_a_traceback_names_what_one_imports(error: type[Exception]) -> None:
    """The last line of a traceback has the name that `except` takes."""
    assert error.__module__ == "dispatchers"
    assert getattr(dispatchers, error.__qualname__) is error


def test_reprs_name_the_thing() -> None:
    """What stands in a debugger says which dispatcher, batch or request it is, never its data."""
    with override(default="memory"):
        batch = copied_task.batch()
        batch.add(31337)
        things = [get_dispatcher(), batch, copied_task, copied_task.options(queue="x")]
        text = repr([*things, copied_task.request(31337), copied_task.request(31337).payload])

    assert "<MemoryDispatcher 'default'>" in text
    assert "<batch of 1 of task 'attack.copied'>" in text
    assert "<task 'attack.copied' with queue>" in text
    assert "31337" not in text


@pytest.mark.parametrize("value", ["x" * 1_000_000, b"x" * 1_000_000])
def test_a_text_is_no_series_of_requests(value: Any) -> None:
    """C1: text given to `dispatch_many` is one mistake, not one for each character."""
    with override(default="null"):
        responses = get_dispatcher().dispatch_many(value)

    assert [each.status for each in responses] == ["rejected"]
