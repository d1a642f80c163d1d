"""C1: `dispatch` and its kin raise no `Exception`, whatever is wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from dispatchers import (
    BaseDispatcher,
    DispatchRequest,
    DispatchResponse,
    DispatchStatus,
    ErrorCategory,
    hooks,
)
from dispatchers.testing import tasks
from dispatchers.testing.harness import Harness
from dispatchers.testing.journal import Journal

from ._tools import arrived, label, refused_with, send

__all__ = ["WAYS", "NeverRaises", "every_way"]


class UnspeakableError(Exception):
    """An exception that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Interruption(BaseException):
    """Something like a timeout of gevent: no `Exception`, and none of ours to catch."""


class OddOSError(OSError):
    """An error of the system whose number is none."""

    @property
    def errno(self) -> int:  # type: ignore[override]
        """No number."""
        raise ZeroDivisionError


RAISED: dict[str, BaseException] = {
    "RuntimeError": RuntimeError("boom"),
    "KeyError": KeyError("boom"),
    "ImportError": ImportError("no module named 'client'"),
    "TimeoutError": TimeoutError("boom"),
    "ConnectionError": ConnectionResetError(104, "boom"),
    "unspeakable": UnspeakableError(),
    "odd errno": OddOSError("boom"),
    "group": ExceptionGroup("several", [ValueError("boom")]),
}
PASSING: dict[str, BaseException] = {
    "KeyboardInterrupt": KeyboardInterrupt(),
    "SystemExit": SystemExit(3),
    "Interruption": Interruption(),
}


Way = Callable[[Harness, BaseDispatcher, Any], DispatchResponse]


def _adispatch(harness: Harness, dispatcher: BaseDispatcher, request: Any) -> DispatchResponse:
    return harness.run_coroutine(dispatcher.adispatch(request))


def _adispatch_many(harness: Harness, dispatcher: BaseDispatcher, request: Any) -> DispatchResponse:
    return harness.run_coroutine(dispatcher.adispatch_many([request]))[0]


WAYS: dict[str, Way] = {
    "dispatch": lambda _, dispatcher, request: dispatcher.dispatch(request),
    "adispatch": _adispatch,
    "dispatch_many": lambda _, dispatcher, request: dispatcher.dispatch_many([request])[0],
    "adispatch_many": _adispatch_many,
}
"""The four ways to dispatch."""


def every_way(
    harness: Harness, dispatcher: BaseDispatcher, request: Any
) -> dict[str, DispatchResponse]:
    """The answers of `dispatch` and its kin to one request, by their names."""
    return {name: way(harness, dispatcher, request) for name, way in WAYS.items()}


class NeverRaises:
    """C1, from outside."""

    @pytest.mark.parametrize("wrong", [None, "text", {"task": "x"}, object(), b"bytes"], ids=label)
    def test_what_is_no_request_is_an_answer(self, harness: Harness, wrong: object) -> None:
        """C1: whatever is given instead of a request, the answer is REJECTED, `invalid`."""
        dispatcher = harness.dispatcher()

        answers = every_way(harness, dispatcher, wrong)

        for answer in answers.values():
            refused_with(answer, ErrorCategory.INVALID)

    def test_arguments_that_do_not_fit_are_an_answer(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C1: wrong arguments are REJECTED as `invalid`; right ones are taken afterwards."""
        dispatcher = harness.dispatcher()
        dispatch: Any = tasks.note.options(dispatcher=dispatcher).dispatch

        refused_with(dispatch(5), ErrorCategory.INVALID)
        refused_with(dispatch(), ErrorCategory.INVALID)
        refused_with(dispatch(journal.path, "x", "y"), ErrorCategory.INVALID)
        refused_with(dispatch(journal.path, txet="x"), ErrorCategory.INVALID)
        refused_with(dispatch(journal.path, "\ud800"), ErrorCategory.INVALID)
        assert send(dispatcher, journal).ok

    @pytest.mark.parametrize(
        "wrong",
        [
            {"priority": 1000},
            {"priority": True},
            {"delay": 5},
            {"eta": datetime(2030, 1, 1)},  # noqa: DTZ001 - naive is what is wrong with it
            {"deadline": -1},
            {"max_attempts": 0},
            {"idempotency_key": ""},
            {"headers": {"x": 1}},
            {"context": {"x": float("nan")}},
        ],
        ids=label,
    )
    def test_options_that_do_not_fit_are_an_answer(
        self, harness: Harness, journal: Journal, wrong: dict[str, Any]
    ) -> None:
        """C1: a wrong value of an option is REJECTED, `invalid`; right ones are taken after."""
        dispatcher = harness.dispatcher()

        response = tasks.note.options(dispatcher=dispatcher, **wrong).dispatch(journal.path)

        refused_with(response, ErrorCategory.INVALID)
        assert send(dispatcher, journal).ok

    @pytest.mark.parametrize("raised", RAISED)
    def test_what_the_client_raises_is_an_answer(
        self, harness: Harness, journal: Journal, raised: str
    ) -> None:
        """C1: whatever the client raises is the answer, in all four ways of dispatching."""
        dispatcher = harness.dispatcher()
        request = tasks.note.request(journal.path)

        with harness.broken(dispatcher, RAISED[raised]):
            answers = every_way(harness, dispatcher, request)

        for way, answer in answers.items():
            assert not answer.ok, way
            assert answer.error is not None, way

    @pytest.mark.parametrize("raised", PASSING)
    def test_what_is_no_exception_passes(
        self, harness: Harness, journal: Journal, raised: str
    ) -> None:
        """C1: KeyboardInterrupt and its like pass through; afterwards all is well."""
        dispatcher = harness.dispatcher()

        with harness.broken(dispatcher, PASSING[raised]), pytest.raises(type(PASSING[raised])):
            send(dispatcher, journal)

        assert send(dispatcher, journal).ok

    def test_a_category_that_raises_is_an_answer(self, harness: Harness, journal: Journal) -> None:
        """C1: an adapter that fails to classify an exception must not raise."""
        dispatcher = harness.dispatcher()
        # Into the instance: the class is shared with the other cases.
        vars(dispatcher)["_category"] = _raise

        with harness.broken(dispatcher, RuntimeError("boom")):
            response = dispatcher.dispatch(tasks.note.request(journal.path))

        assert response.error is not None

    def test_a_doubt_that_raises_is_unknown(self, harness: Harness, journal: Journal) -> None:
        """C1, C3: where `_maybe_sent` itself fails the answer is UNKNOWN."""
        dispatcher = harness.dispatcher()
        vars(dispatcher)["_maybe_sent"] = _raise

        with harness.broken(dispatcher, RuntimeError("boom")):
            response = send(dispatcher, journal)

        assert response.status is DispatchStatus.UNKNOWN

    def test_hooks_that_raise_change_nothing(self, harness: Harness, journal: Journal) -> None:
        """C1: a hook that raises is ignored; the work goes where it would have gone."""
        dispatcher = harness.dispatcher()
        before, after = hooks.before_dispatch(_raise), hooks.after_dispatch(_raise)
        try:
            response = send(dispatcher, journal)
        finally:
            # Hooks are the process's: left in place, they would reach every later case.
            hooks.remove(before)
            hooks.remove(after)

        assert response.ok

    def test_a_batch_whose_requests_raise_is_an_answer(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C1: an iterable that raises half-way is answered; what came before is handed over."""
        dispatcher = harness.dispatcher()
        first = tasks.note.request(journal.path)

        def requests() -> Any:
            yield first
            raise RuntimeError("no more")

        responses = dispatcher.dispatch_many(requests())

        assert [each.ok for each in responses] == [True, False]

    def test_a_missing_library_is_told_without_raising(self, harness: Harness) -> None:
        """C1, C12: with its library gone, `is_available` says no; it does not raise."""
        kind = type(harness.dispatcher())
        members = {"library": "dispatchers_no_such_library"}
        # A subclass: an import that really fails would stay broken for the cases after it.
        lacking: type[BaseDispatcher] = type(kind.__name__, (kind,), members)

        assert kind.is_available() is True
        assert lacking.is_available() is False

    def test_a_request_made_by_hand_is_enough(self, harness: Harness, journal: Journal) -> None:
        """C1: a request whose task is known by name only is dispatched like any other."""
        dispatcher = harness.dispatcher()
        request = DispatchRequest.model_validate(
            {"task": tasks.note.name, "payload": {"journal": journal.path}}
        )

        response = dispatcher.dispatch(request)

        assert response.ok
        assert response.request_id == request.id
        if not dispatcher.capabilities.runs_here and harness.has("received"):
            assert request.id in arrived(harness, dispatcher, journal)


def _raise(*_: object, **__: object) -> Any:
    raise UnspeakableError
