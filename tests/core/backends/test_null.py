"""`null`: accepts everything and does nothing with it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from dispatchers import DispatchStatus, ErrorCategory, task
from dispatchers.backends.null import NullDispatcher


def test_accepts_and_never_runs(seen):
    """C3: what nobody has is accepted, but neither confirmed nor durable."""

    @task(name="null.note")
    def note(x: int) -> None:
        seen(x)

    response = note.options(dispatcher=NullDispatcher()).dispatch(x=1)

    assert response.status is DispatchStatus.ACCEPTED
    assert (response.confirmed, response.durable, response.waived) == (False, False, ())
    assert response.task_id == response.request_id
    assert seen.items == []


@pytest.mark.parametrize(
    "options",
    [
        {"delay": timedelta(days=1)},
        {"eta": datetime(2100, 1, 1, tzinfo=UTC)},
        {"expires": timedelta(seconds=1)},
        {"priority": 100},
        {"time_limit": 1.0},
        {"idempotency_key": "k", "deduplicate": True},
    ],
)
def test_takes_every_option(send_welcome, options):
    """C6: no option is refused or waived, for none would be honoured by doing nothing."""
    welcome = send_welcome.options(dispatcher=NullDispatcher(), **options)

    response = welcome.dispatch(user_id=1)

    assert response.status is DispatchStatus.ACCEPTED
    assert response.waived == ()


def test_checks_requests_as_others_do(send_welcome):
    """C5: what would not pass elsewhere does not pass here."""
    response = send_welcome.options(dispatcher=NullDispatcher()).dispatch(user_id="one")

    assert response.error.category is ErrorCategory.INVALID


def test_sync_and_async_agree(send_welcome):
    """C8: the answers on an event loop are those of a thread, one for each request."""
    null = NullDispatcher()
    requests = [send_welcome.request(user_id=n) for n in range(3)]

    one = asyncio.run(null.adispatch(requests[0]))
    many = asyncio.run(null.adispatch_many(requests))

    assert one.status is DispatchStatus.ACCEPTED
    assert [each.request_id for each in many] == [each.id for each in requests]
    assert many.ok


def test_closed_refuses(send_welcome):
    """C8: nothing is left to close, and after it nothing is taken."""
    null = NullDispatcher()

    left = null.close()
    response = send_welcome.options(dispatcher=null).dispatch(user_id=1)

    assert left == 0
    assert response.error.category is ErrorCategory.CLOSED
