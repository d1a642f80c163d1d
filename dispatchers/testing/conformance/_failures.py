"""C4: failures have a structure, and say nothing that they should keep to themselves."""

from __future__ import annotations

import logging

import pytest

from dispatchers import DispatchStatus, ErrorCategory
from dispatchers.testing import tasks
from dispatchers.testing.harness import Harness
from dispatchers.testing.journal import Journal

from ._never_raises import every_way
from ._tools import eventually, log_records, refused_with, send

__all__ = ["StructuredFailures"]

MARK = "the-payload-of-a-customer-7f3a"


class StructuredFailures:
    """C4, from outside."""

    def test_a_failure_has_a_category_a_type_and_words(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C4: callers branch on the category, people read the message, and the type is named."""
        dispatcher = harness.dispatcher()

        with harness.broken(dispatcher, TimeoutError("boom")):
            answers = every_way(harness, dispatcher, tasks.note.request(journal.path))

        for answer in answers.values():
            assert answer.error is not None
            assert answer.error.category is ErrorCategory.TIMEOUT
            assert answer.error.message
            assert answer.error.exception_type

    def test_only_what_was_not_handed_over_is_retryable(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C4: `retryable` promises that repeating cannot duplicate the work."""
        dispatcher = harness.dispatcher()
        raised = [TimeoutError("boom"), ConnectionResetError(104, "boom"), RuntimeError("boom")]

        for exc in raised:
            with harness.broken(dispatcher, exc):
                answer = send(dispatcher, journal)
            assert answer.error is not None
            # Only this direction: an adapter may promise less than it knows.
            if answer.error.retryable:
                assert answer.status is DispatchStatus.REJECTED

    def test_payloads_are_never_shown(self, harness: Harness, journal: Journal) -> None:
        """C4: what is dispatched stands in no message, no log record and no `repr`."""
        dispatcher = harness.dispatcher()
        request = tasks.note.options(context={"mark": MARK}).request(journal.path, MARK)

        with log_records() as records:
            answers = [*every_way(harness, dispatcher, request).values()]
            for exc in (RuntimeError("boom"), ConnectionResetError(104, "boom")):
                with harness.broken(dispatcher, exc):
                    answers += every_way(harness, dispatcher, request).values()

        shown = [repr(answer) for answer in answers] + [repr(dispatcher), repr(request)]
        logged = [_whole(record) for record in records]
        assert not [text for text in shown + logged if MARK in text]

    def test_secrets_are_never_shown(self, harness: Harness, journal: Journal) -> None:
        """C4: a configured secret is struck out, even where the client's own words quote it."""
        if not harness.secrets:
            pytest.skip("the harness configures no secrets")
        dispatcher = harness.dispatcher()
        request = tasks.note.request(journal.path)
        # As clients do: their errors quote the address, password and all.
        told = f"cannot reach {' or '.join(harness.secrets)}"

        with log_records() as records:
            answers = [*every_way(harness, dispatcher, request).values()]
            for exc in (ConnectionRefusedError(111, told), OSError(told), RuntimeError(told)):
                with harness.broken(dispatcher, exc):
                    answers += every_way(
                        harness, dispatcher, tasks.note.request(journal.path)
                    ).values()

        shown = [repr(answer) + answer.model_dump_json() for answer in answers]
        shown += [_whole(record) for record in records] + [repr(dispatcher)]
        shown += [repr(dispatcher.options), str(dispatcher.options)]
        assert not [text for text in shown for secret in harness.secrets if secret in text]

    def test_a_failure_is_logged_once(self, harness: Harness, journal: Journal) -> None:
        """C4: each dispatch that is not `ok` is one record at ERROR, in the library's logger."""
        dispatcher = harness.dispatcher()

        with log_records() as records, harness.broken(dispatcher, RuntimeError("boom")):
            answers = every_way(harness, dispatcher, tasks.note.request(journal.path))

        errors = [record for record in records if record.levelno >= logging.ERROR]
        assert not any(answers.values())
        assert len(errors) == len(answers)

    def test_success_is_not_logged(self, harness: Harness, journal: Journal) -> None:
        """C4: a successful dispatch writes no log record."""
        dispatcher = harness.dispatcher()

        with log_records() as records:
            answers = every_way(harness, dispatcher, tasks.note.request(journal.path))

        assert all(answers.values())
        assert [record for record in records if record.levelno >= logging.WARNING] == []

    def test_a_failing_backend_is_left_alone(self, harness: Harness, journal: Journal) -> None:
        """C4: after failures in a row the breaker answers: REJECTED, `circuit_open`, retryable.

        It says so once, and the refusals meanwhile are not logged above DEBUG.
        """
        dispatcher = harness.dispatcher(breaker={"failures": 3, "reset": 600.0})
        if dispatcher.capabilities.runs_here:
            pytest.skip("the work runs in this process: there is no backend to be left alone")

        with log_records() as records, harness.broken(dispatcher, ConnectionResetError("boom")):
            before = [send(dispatcher, journal) for _ in range(3)]
            after = every_way(harness, dispatcher, tasks.note.request(journal.path))

        assert [each.error is not None for each in before] == [True] * 3
        for answer in after.values():
            refused_with(answer, ErrorCategory.CIRCUIT_OPEN)
            assert answer.error is not None
            assert answer.error.retryable
        errors = [record for record in records if record.levelno >= logging.WARNING]
        assert len(errors) == len(before) + 1

    def test_the_breaker_closes_when_the_backend_is_back(
        self, harness: Harness, journal: Journal
    ) -> None:
        """C4: a probe that succeeds closes the breaker."""
        dispatcher = harness.dispatcher(breaker={"failures": 1, "reset": 0.001})
        with harness.broken(dispatcher, ConnectionResetError("boom")):
            send(dispatcher, journal)

        eventually(lambda: send(dispatcher, journal).ok)
        assert send(dispatcher, journal).ok

    def test_the_callers_fault_opens_no_breaker(self, harness: Harness, journal: Journal) -> None:
        """C4: what is the caller's fault says nothing about the backend."""
        dispatcher = harness.dispatcher(breaker={"failures": 2, "reset": 600.0})

        for _ in range(5):
            refused_with(dispatcher.dispatch("no request"), ErrorCategory.INVALID)  # type: ignore[arg-type]

        assert send(dispatcher, journal).ok


def _whole(record: logging.LogRecord) -> str:
    """The message and everything else that a record carries."""
    return record.getMessage() + repr(vars(record))
