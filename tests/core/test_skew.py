"""C11: what a worker does not understand is handed back for a while, and then is dead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatchers import Action, DispatchRequest, Outcome, Reason, RunSettings, run_envelope
from dispatchers._models.envelope import encode

GRACE = 900.0


def unknown(age: float = 0.0, **values: Any) -> bytes:
    """An envelope of an unknown task that was made so many seconds ago."""
    created = datetime.now(UTC) - timedelta(seconds=age)
    return encode(DispatchRequest(task="shop.unknown", created_at=created, **values))


def newer(body: bytes) -> bytes:
    return body.replace(b'"version":1', b'"version":2', 1)


def run(body: bytes, **values: Any) -> Outcome:
    return run_envelope(body, **values)


@pytest.mark.parametrize(
    ("change", "reason"),
    [(bytes, Reason.UNKNOWN_TASK), (newer, Reason.NEWER_ENVELOPE)],
    ids=["unknown", "newer"],
)
def test_it_is_handed_back_and_then_dead(change, reason):
    """C11: for `skew_grace`, by default 15 minutes; never endless, never a silent skip."""
    early, late = run(change(unknown(age=GRACE - 5))), run(change(unknown(age=GRACE + 5)))

    assert (early.action, early.reason) == (Action.RETURN, reason)
    assert (late.action, late.reason) == (Action.DEAD, reason)


def test_arguments_that_do_not_fit_are_handed_back_too(send_welcome):
    """C11: a worker of before the deploy may not know a parameter yet."""
    now = datetime.now(UTC)
    request = DispatchRequest(
        task="shop.send_welcome", payload={"user_id": 1, "tone": "warm"}, created_at=now
    )

    early = run(encode(request))
    late = run(encode(request.replace(created_at=now - timedelta(hours=1))))

    assert (early.action, early.reason) == (Action.RETURN, Reason.INVALID_ARGUMENTS)
    assert (late.action, late.reason) == (Action.DEAD, Reason.INVALID_ARGUMENTS)
    assert send_welcome.calls == []


def test_handing_back_is_no_attempt():
    """C10: attempt and deliveries of others are not used up."""
    outcome = run(unknown(), attempt=3, deliveries=50)

    assert (outcome.action, outcome.attempt) == (Action.RETURN, 3)


def test_the_pauses_grow_up_to_a_minute():
    """Back-off: quick at first, for most deploys are short."""
    pauses = [run(unknown(age=age)).after for age in (0, 10, 60, 118, 600)]

    assert pauses == sorted(pauses)
    assert pauses[0] == pytest.approx(1.0, abs=0.5)
    assert pauses[1] == pytest.approx(6.0, abs=0.5)
    assert pauses[-1] == 60.0


def test_the_grace_is_a_setting():
    """0 means that nothing is handed back."""
    none, long = RunSettings(skew_grace=0.0), RunSettings(skew_grace=7200.0)

    assert run(unknown(), settings=none).action is Action.DEAD
    assert run(unknown(age=3600), settings=long).action is Action.RETURN


@pytest.mark.parametrize("option", ["delay", "eta"])
def test_the_grace_begins_when_the_work_is_due(option):
    """C11: work that was delayed for a day has not been handed back for a day."""
    now = datetime.now(UTC)
    due = {"delay": timedelta(hours=1)} if option == "delay" else {"eta": now}

    outcome = run(unknown(age=3600, **due))

    assert outcome.action is Action.RETURN


@pytest.mark.parametrize(
    "due", [{"delay": timedelta(days=1)}, {"eta": datetime(2100, 1, 1, tzinfo=UTC)}]
)
def test_work_that_comes_before_it_is_due_counts_from_its_creation(due):
    """C6, C11: where the delay was waived, waiting for the due time would be endless."""
    early, late = run(unknown(age=0, **due)), run(unknown(age=GRACE + 5, **due))

    assert early.action is Action.RETURN
    assert late.action is Action.DEAD


def test_a_clock_that_steps_back_does_not_make_it_endless():
    """C11: work from the future is counted by its deliveries, until it is dead."""
    body = unknown(age=-86400)
    waited, deliveries = 0.0, 1

    while (outcome := run(body, deliveries=deliveries)).action is Action.RETURN:
        waited += outcome.after
        deliveries += 1
        assert deliveries < 1000

    assert outcome.action is Action.DEAD
    assert GRACE <= waited <= GRACE + 60


def test_a_clock_that_steps_back_kills_nothing_at_once():
    """C11: the grace is given all the same."""
    outcome = run(unknown(age=-3600))

    assert outcome.action is Action.RETURN
    assert outcome.after == pytest.approx(1.0)


def test_the_message_says_what_to_do(log):
    """For who reads the log of a deploy."""
    outcome = run(newer(unknown()))

    assert "upgrade the worker" in outcome.error.message
    assert "upgrade the worker" in log()[0][1]


def test_task_and_id_are_told_as_far_as_they_can_be_made_out():
    """Also of an envelope that this worker cannot read."""
    body = unknown()

    outcomes = [run(body), run(newer(body))]

    assert [each.task for each in outcomes] == ["shop.unknown"] * 2
    assert all(len(each.request_id) == 32 for each in outcomes)


@pytest.mark.parametrize(
    "body",
    [
        b'{"version":2}',
        b'{"version":2,"created_at":5e300}',
        b'{"version":2,"created_at":"yesterday"}',
        b'{"version":2,"task":5,"id":[],"created_at":null}',
        b'{"version":2,"created_at":"0001-01-01T00:00:00+10:00"}',
        b'{"version":2,"created_at":"9999-12-31T00:00:00Z","delay":"P99D"}',
    ],
)
def test_a_newer_envelope_that_tells_no_time_is_dead(body):
    """C11: without a beginning there is no end, so it is kept for people at once."""
    outcome = run(body)

    assert (outcome.action, outcome.reason) == (Action.DEAD, Reason.NEWER_ENVELOPE)


def test_nulls_are_no_reason_to_be_dead():
    """An envelope in which somebody wrote out what is absent."""
    body = unknown().replace(b'"id":', b'"eta":null,"delay":null,"id":', 1)

    assert run(body).action is Action.RETURN
