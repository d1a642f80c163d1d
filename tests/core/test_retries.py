"""Which failures are tried again, when, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from dispatchers import (
    Action,
    Backoff,
    Discard,
    DispatchRequest,
    DispatchStatus,
    Outcome,
    Reason,
    Retry,
    arun_envelope,
    classify,
    override,
    run_envelope,
    task,
)
from dispatchers._models.envelope import encode

WAYS: dict[str, Callable[..., Outcome]] = {
    "sync": run_envelope,
    "async": lambda *args, **values: asyncio.run(arun_envelope(*args, **values)),
}

RETRY = (Action.RETRY, Reason.FAILED)
EXHAUSTED = (Action.DEAD, Reason.EXHAUSTED)
PERMANENT = (Action.DEAD, Reason.PERMANENT)
DISCARDED = (Action.DONE, Reason.DISCARDED)


@pytest.fixture(params=WAYS)
def run(request: pytest.FixtureRequest) -> Callable[..., Outcome]:
    """Both ways of running an envelope."""
    return WAYS[request.param]


@pytest.fixture
def failing() -> Callable[..., bytes]:
    """Defines a task that raises, and gives an envelope for it."""

    def define(error: BaseException | type[BaseException], **options: Any) -> bytes:
        @task(name="shop.fail", **options)
        def fail() -> None:
            raise error

        return encode(DispatchRequest(task="shop.fail"))

    return define


def verdict(outcome: Outcome) -> tuple[Action, Reason]:
    return outcome.action, outcome.reason


def test_one_attempt_is_the_default(run, failing):
    """A failure is final unless the task says otherwise."""
    outcome = run(failing(OSError()))

    assert verdict(outcome) == EXHAUSTED
    assert (outcome.attempt, outcome.max_attempts, outcome.after) == (1, 1, 0.0)


def test_attempts_are_counted_from_one(run, failing):
    """With three, the third failure is the last."""
    body = failing(OSError(), max_attempts=3)

    outcomes = [run(body, attempt=n) for n in (1, 2, 3, 4)]

    assert list(map(verdict, outcomes)) == [RETRY, RETRY, EXHAUSTED, EXHAUSTED]
    assert [each.attempt for each in outcomes] == [1, 2, 3, 4]


def test_the_request_s_attempts_and_backoff_beat_the_task_s(run, failing):
    """Options beat the task's own."""
    failing(OSError(), max_attempts=2, backoff=Backoff(initial=1))
    more = DispatchRequest(task="shop.fail", max_attempts=4, backoff=Backoff(initial=7, factor=1))
    fewer = DispatchRequest(task="shop.fail", max_attempts=1)

    outcomes = [run(encode(more), attempt=3), run(encode(fewer))]

    assert (verdict(outcomes[0]), outcomes[0].after) == (RETRY, 7.0)
    assert verdict(outcomes[1]) == EXHAUSTED


def test_the_wait_follows_the_backoff(run, failing):
    """Growing by attempt, up to the maximum."""
    body = failing(OSError(), max_attempts=9, backoff=Backoff(initial=2, factor=3, maximum=20))

    waits = [run(body, attempt=n).after for n in (1, 2, 3, 4)]

    assert waits == [2.0, 6.0, 18.0, 20.0]


@pytest.mark.parametrize(
    "error", [TypeError, AttributeError, NameError, ImportError, AssertionError, KeyError]
)
def test_programming_errors_are_permanent(run, failing, error):
    """The same code fails in the same way again; a missing key may be data, and is retried."""
    expected = RETRY if error is KeyError else PERMANENT

    assert verdict(run(failing(error(), max_attempts=3))) == expected


def test_classified_errors_follow_their_class(run, failing):
    """`classify` extends by type; the nearest class wins."""

    class GatewayError(OSError): ...

    class DeclinedError(GatewayError): ...

    classify(GatewayError, "permanent")
    classify(DeclinedError, "transient")

    outcomes = [run(failing(error(), max_attempts=2)) for error in (GatewayError, DeclinedError)]

    assert list(map(verdict, outcomes)) == [PERMANENT, RETRY]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionError(), RETRY),
        (ConnectionResetError(), RETRY),
        (ValueError(), PERMANENT),
        (TypeError(), PERMANENT),
    ],
)
def test_retry_on_is_the_whole_list(run, failing, error, expected):
    """Where it is given, only what stands in it is tried again."""
    body = failing(error, max_attempts=3, retry_on=(ConnectionError,))

    assert verdict(run(body)) == expected


def test_retry_on_beats_the_classification(run, failing):
    """A task that knows its programming error to pass may say so."""
    body = failing(TypeError(), max_attempts=3, retry_on=(TypeError,))

    assert verdict(run(body)) == RETRY


@pytest.mark.parametrize("error", [ValueError(), UnicodeError(), Discard("gone")])
def test_discarded_work_is_done(run, failing, error, log):
    """`Discard`, and what stands in `discard_on`, subclasses too: not a failure."""
    outcome = run(failing(error, max_attempts=3, discard_on=(ValueError,)))

    assert verdict(outcome) == DISCARDED
    assert outcome.ok
    assert outcome.error is None
    assert [level for level, _ in log()] == [logging.INFO]


def test_discard_on_beats_retry_on(run, failing):
    """What is not wanted any more is not tried again."""
    body = failing(ValueError(), max_attempts=3, discard_on=ValueError, retry_on=ValueError)

    assert verdict(run(body)) == DISCARDED


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (None, 5.0),
        (30, 30.0),
        (0.5, 0.5),
        (0, 0.0),
        (-3, 0.0),
        (timedelta(minutes=2), 120.0),
        (timedelta(seconds=-1), 0.0),
    ],
)
def test_retry_says_when(run, failing, after, expected):
    """Seconds or a timedelta; without, the back-off."""
    outcome = run(failing(Retry(after), max_attempts=2, backoff=Backoff(initial=5)))

    assert verdict(outcome) == RETRY
    assert outcome.after == expected


def test_retry_is_an_attempt_like_any_other(run, failing):
    """As long as attempts are left; also where `retry_on` does not have it."""
    body = failing(Retry(5), max_attempts=2, retry_on=(ConnectionError,))

    assert [verdict(run(body, attempt=n)) for n in (1, 2)] == [RETRY, EXHAUSTED]


@pytest.mark.parametrize(
    ("after", "error"),
    [("5", TypeError), (True, TypeError), (float("nan"), ValueError), (float("inf"), ValueError)],
)
def test_retry_takes_only_what_can_be_waited_for(after, error):
    """A wrong value raises where it is written."""
    with pytest.raises(error):
        Retry(after)


def test_reasons_are_for_people(run, failing):
    """They stand in what is recorded."""
    outcome = run(failing(Retry(reason="the shop is closed"), max_attempts=2))

    assert outcome.error.message == "the shop is closed"
    assert Discard("gone").reason == "gone"


def test_a_run_that_overran_its_limit_is_tried_again(run):
    """The time limit is a timeout, which may pass."""

    @task(name="shop.slow", time_limit=0.02, max_attempts=2)
    async def slow() -> None:
        await asyncio.sleep(30)

    assert verdict(run(encode(DispatchRequest(task="shop.slow")))) == RETRY


# In process, `inline` honours all of it


def counted(*errors: BaseException | None, **options: Any) -> tuple[Any, list[int]]:
    """A task that raises one error after the other, and its attempts so far."""
    from dispatchers import current_run

    attempts: list[int] = []

    @task(name="shop.counted", **options)
    def count() -> None:
        attempts.append(current_run().attempt)
        error = errors[min(len(attempts), len(errors)) - 1]
        if error is not None:
            raise error

    return count, attempts


def test_inline_makes_one_attempt_unless_told_otherwise():
    """`retries = "never"` is the default: a caller is not kept waiting."""
    count, attempts = counted(OSError(), max_attempts=3)

    with override(default="inline"):
        response = count.dispatch()

    assert attempts == [1]
    assert response.status is DispatchStatus.FAILED
    assert "attempt 1 of 3" in response.error.message


@pytest.mark.parametrize("way", ["sync", "async"])
def test_inline_makes_all_attempts_at_once(inline, way):
    """`retries = "immediate"`, whatever the back-off."""
    count, attempts = counted(
        OSError(), OSError(), None, max_attempts=5, backoff=Backoff(initial=100)
    )

    response = count.dispatch() if way == "sync" else asyncio.run(count.adispatch())

    assert attempts == [1, 2, 3]
    assert response.status is DispatchStatus.EXECUTED


@pytest.mark.parametrize("way", ["sync", "async"])
def test_inline_can_sleep_between_attempts(way):
    """`retries = "sleep"`, with the back-off."""
    count, attempts = counted(OSError(), None, max_attempts=2, backoff=Backoff(initial=0.1))

    with override(default={"backend": "inline", "retries": "sleep"}):
        started = time.monotonic()
        response = count.dispatch() if way == "sync" else asyncio.run(count.adispatch())
        took = time.monotonic() - started

    assert attempts == [1, 2]
    assert response.ok
    assert took >= 0.1


def test_inline_fails_when_the_attempts_are_used_up(inline):
    """C3: `FAILED`, category `handler`, with the task's exception at hand."""
    error = OSError("s3cret")
    count, attempts = counted(error, max_attempts=3)

    response = count.dispatch()

    assert attempts == [1, 2, 3]
    assert response.status is DispatchStatus.FAILED
    assert response.error.category.value == "handler"
    assert response.error.exception_type == "OSError"
    assert "attempt 3 of 3" in response.error.message
    assert "s3cret" not in response.error.message
    assert response.exception is error


def test_inline_gives_up_on_permanent_failures(inline):
    """No further attempt is made."""
    count, attempts = counted(TypeError(), max_attempts=3)

    assert count.dispatch().status is DispatchStatus.FAILED
    assert attempts == [1]


def test_inline_counts_discarded_work_as_executed(inline):
    """The handler decided that there was nothing to do."""
    count, attempts = counted(Discard(), max_attempts=3)

    assert count.dispatch().status is DispatchStatus.EXECUTED
    assert attempts == [1]
