"""Messages that a backend's own client wrote for a task before it was converted."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from dispatchers import Action, Reason, current_run, run_envelope, task
from dispatchers.native import former_envelope

_seen: list[tuple[int, date, str | None]] = []


@task(name="former_tests.book", max_attempts=3)
def book(number: int, day: date, note: str | None = None) -> None:
    _seen.append((number, day, note))
    assert current_run().max_attempts == 3


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ([1, date(2024, 2, 3)], {"note": "x"}),
        ([1, "2024-02-03", "x"], {}),
        ([], {"number": 1, "day": "2024-02-03", "note": "x"}),
    ],
)
def test_plain_arguments_are_a_run(args: list[Any], kwargs: dict[str, Any]) -> None:
    """By position or name, typed or as JSON has them, they arrive as the declared types."""
    _seen.clear()

    outcome = run_envelope(former_envelope(book, args, kwargs, id="message-1"))

    assert outcome.ok
    assert outcome.request_id == "message-1"
    assert outcome.max_attempts == 3
    assert _seen == [(1, date(2024, 2, 3), "x")]


@pytest.mark.parametrize("args", [[], [1, "no date"], [1, "2024-02-03", "x", "more"]])
def test_arguments_that_do_not_fit_are_handed_back(args: list[Any]) -> None:
    """C11: an older or newer producer's arguments are neither lost nor run."""
    outcome = run_envelope(former_envelope(book, args, {}))

    assert (outcome.action, outcome.reason) == (Action.RETURN, Reason.INVALID_ARGUMENTS)
