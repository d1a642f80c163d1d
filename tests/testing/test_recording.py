"""The recording dispatcher: what it keeps, how it fails, how time passes."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from dispatchers import (
    Backoff,
    DispatchRequest,
    DispatchStatus,
    ErrorCategory,
    Retry,
    configure,
    get_dispatcher,
    override,
    task,
)
from dispatchers.testing import RecordingDispatcher

RAN: list[object] = []


@task(name="recording.welcome")
def welcome(user_id: int, locale: str = "en") -> None:
    RAN.append((user_id, locale))


@task(name="recording.audit", dispatcher="audit")
def audit(who: UUID) -> None:
    RAN.append(who)


@task(name="recording.flaky", max_attempts=2, backoff=Backoff(initial=10))
def flaky() -> None:
    RAN.append("flaky")
    raise OSError("again")


@task(name="recording.patient", max_attempts=3)
def patient() -> None:
    RAN.append("patient")
    if len(RAN) == 1:
        raise Retry(after=60)


@task(name="recording.endless")
def endless() -> None:
    endless.dispatch()


@task(name="recording.chain")
def chain() -> None:
    welcome.dispatch(9)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    RAN.clear()


@pytest.fixture
def recording() -> RecordingDispatcher:
    return RecordingDispatcher()


# Looking.


def test_work_is_kept_with_typed_arguments(recording: RecordingDispatcher) -> None:
    """What was dispatched is kept as the handler would get it: equal, of the same type."""
    who = uuid4()

    audit.options(dispatcher=recording).dispatch(who)

    assert recording.assert_one(audit).arguments == {"who": who}
    assert recording.requests[0].payload == {"who": str(who)}


def test_defaults_are_arguments_too(recording: RecordingDispatcher) -> None:
    """An argument that was left out has the value that the handler gets."""
    welcome.options(dispatcher=recording).dispatch(1)

    recording.assert_one(welcome, user_id=1, locale="en")


def test_assert_one_shows_what_was_dispatched(recording: RecordingDispatcher) -> None:
    """A failed assertion shows the calls, their aliases and what was refused."""
    with recording.down():
        welcome.options(dispatcher=recording).dispatch(5)
    welcome.options(dispatcher=recording, queue="mail").dispatch(2)

    with pytest.raises(AssertionError) as caught:
        recording.assert_one(welcome, user_id=1)

    assert str(caught.value) == (
        "1 of 'recording.welcome' with user_id=1 expected, found 0; dispatched were:\n"
        "  recording.welcome(user_id=2, locale='en') through 'recording', queue=mail\n"
        "not taken were:\n"
        "  recording.welcome: rejected, unavailable: a test asked for this failure"
    )


def test_assert_one_refuses_two(recording: RecordingDispatcher) -> None:
    """Two are not one."""
    for _ in range(2):
        welcome.options(dispatcher=recording).dispatch(1)

    with pytest.raises(AssertionError, match="found 2"):
        recording.assert_one(welcome, user_id=1)
    assert len(recording.assert_many(welcome, 2)) == 2


def test_assert_none_says_what_there_was(recording: RecordingDispatcher) -> None:
    """`assert_none` alone is about everything, with a task about its dispatches."""
    recording.assert_none()
    welcome.options(dispatcher=recording).dispatch(1)

    recording.assert_none(audit)
    recording.assert_none(welcome, user_id=2)
    with pytest.raises(AssertionError, match="none of anything expected, found 1"):
        recording.assert_none()
    with pytest.raises(AssertionError, match=r"none of 'recording\.welcome' expected, found 1"):
        recording.assert_none(welcome)


def test_a_misspelt_argument_is_an_error_not_a_match(recording: RecordingDispatcher) -> None:
    """`assert_none(task, usr_id=1)` would always hold, so it raises with the nearest name."""
    with pytest.raises(TypeError, match="did you mean 'user_id'"):
        recording.assert_none(welcome, usr_id=1)


def test_what_is_no_task_is_an_error(recording: RecordingDispatcher) -> None:
    """A plain function is no task: asserting on it would always find none."""
    with pytest.raises(TypeError, match="a task or its name"):
        recording.assert_none(print)  # type: ignore[arg-type]


def test_work_of_an_unregistered_task_is_kept_as_json(recording: RecordingDispatcher) -> None:
    """A task known by name only has JSON values for arguments."""
    recording.dispatch(DispatchRequest(task="elsewhere.task", payload={"n": 1}))

    assert recording.assert_one("elsewhere.task", n=1).arguments == {"n": 1}


def test_arguments_that_do_not_fit_are_refused(recording: RecordingDispatcher) -> None:
    """C5: a request made by hand is checked against the task, as a worker would later."""
    response = recording.dispatch(DispatchRequest(task=welcome.name, payload={"user_id": "x"}))

    assert response.status is DispatchStatus.REJECTED
    assert response.error is not None
    assert response.error.category is ErrorCategory.INVALID
    recording.assert_none()


def test_the_same_key_is_a_duplicate(recording: RecordingDispatcher) -> None:
    """C10: work under a key that is known is not taken twice."""
    keyed = welcome.options(dispatcher=recording, idempotency_key="k", deduplicate=True)

    first, second = keyed.dispatch(1), keyed.dispatch(1)

    assert (first.status, second.status) == (DispatchStatus.ACCEPTED, DispatchStatus.DUPLICATE)
    recording.assert_one(welcome)


def test_clear_forgets(recording: RecordingDispatcher) -> None:
    """After `clear` nothing was dispatched, and no key is known."""
    keyed = welcome.options(dispatcher=recording, idempotency_key="k")
    keyed.dispatch(1)

    recording.clear()

    recording.assert_none()
    assert recording.responses == []
    assert keyed.dispatch(1).status is DispatchStatus.ACCEPTED


def test_threads_record_everything(recording: RecordingDispatcher) -> None:
    """C8: one recorder serves many threads."""

    def work(number: int) -> None:
        for item in range(50):
            welcome.options(dispatcher=recording).dispatch(number * 50 + item)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(e.arguments["user_id"] for e in recording.of(welcome)) == list(range(200))


def test_async_dispatches_are_recorded(recording: RecordingDispatcher) -> None:
    """`adispatch` and `dispatch` leave the same record."""
    asyncio.run(welcome.options(dispatcher=recording).adispatch(3))

    recording.assert_one(welcome, user_id=3)


# In place of what is configured.


def test_installed_takes_every_alias() -> None:
    """Whatever is configured, work goes to the recorder, under the alias it asked for."""
    settings = {"targets": {"t": {"default": "inline", "audit": {"backend": "inline"}}}}
    settings["targets"]["t"]["default"] = {"backend": "inline"}  # type: ignore[index]

    with override(settings, target="t"), RecordingDispatcher.installed() as dispatched:
        welcome.dispatch(1)
        audit.dispatch(uuid4())

        assert dispatched.assert_one(welcome).dispatcher == "default"
        assert dispatched.assert_one(audit).dispatcher == "audit"
    assert RAN == []


def test_installed_works_where_nothing_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets without a selected one are an error in production, and no obstacle for a test."""
    monkeypatch.delenv("DISPATCHERS_TARGET", raising=False)
    two = {"one": {"default": {"backend": "inline"}}, "two": {"default": {"backend": "inline"}}}

    with override({"targets": two}, target="one"), RecordingDispatcher.installed() as dispatched:
        assert get_dispatcher() is dispatched


def test_installed_ends_with_its_block() -> None:
    """Afterwards everything is as it was."""
    configure({"targets": {"t": {"default": {"backend": "inline"}}}}, target="t")
    try:
        with RecordingDispatcher.installed():
            pass

        assert welcome.dispatch(4).status is DispatchStatus.EXECUTED
    finally:
        configure()


@pytest.mark.dispatchers_unchecked
def test_installed_sees_refusals_before_any_dispatcher() -> None:
    """Arguments that make no request are among the responses."""
    with RecordingDispatcher.installed() as dispatched:
        welcome.dispatch("x")  # type: ignore[arg-type]

        assert [each.status for each in dispatched.responses] == [DispatchStatus.REJECTED]
        dispatched.assert_none()


def test_what_the_production_backend_lacks_can_be_lacking() -> None:
    """C6: with `lacks`, an option is refused as the backend in production would."""
    recording = RecordingDispatcher(lacks=["delay"])

    response = welcome.options(dispatcher=recording, delay=timedelta(1)).dispatch(1)

    assert response.error is not None
    assert response.error.category is ErrorCategory.UNSUPPORTED


def test_a_misspelt_capability_is_an_error() -> None:
    """`lacks` takes names of options, and names the nearest."""
    with pytest.raises(ValueError, match="did you mean 'delay'"):
        RecordingDispatcher(lacks=["delya"])


# Failures.


@pytest.mark.parametrize("status", ["rejected", "unknown", "failed"])
def test_fail_next_fails_once(recording: RecordingDispatcher, status: str) -> None:
    """One failure as asked for, then all is well; what failed is not recorded."""
    recording.fail_next(category="throttled", status=status)  # type: ignore[arg-type]

    first = welcome.options(dispatcher=recording).dispatch(1)
    second = welcome.options(dispatcher=recording).dispatch(2)

    assert first.error is not None
    assert (first.status, first.error.category) == (status, ErrorCategory.THROTTLED)
    assert second.ok
    recording.assert_one(welcome, user_id=2)


def test_a_rejection_is_retryable_as_its_category_says(recording: RecordingDispatcher) -> None:
    """C4: an injected failure is classified like a real one."""
    recording.fail_next(category="unavailable")
    recording.fail_next(category="unavailable", status="unknown")

    rejected, unknown = (welcome.options(dispatcher=recording).dispatch(n) for n in range(2))

    assert rejected.error is not None
    assert rejected.error.retryable
    assert unknown.error is not None
    assert not unknown.error.retryable


def test_unknown_work_may_have_arrived(recording: RecordingDispatcher) -> None:
    """With `arrives`, the work is taken and only the answer is lost."""
    recording.fail_next(status="unknown", arrives=True)

    response = welcome.options(dispatcher=recording).dispatch(1)

    assert response.status is DispatchStatus.UNKNOWN
    recording.assert_one(welcome)


def test_fail_when_asks_the_request(recording: RecordingDispatcher) -> None:
    """Only the requests fail of which the predicate is true."""
    recording.fail_when(lambda request: request.queue == "mail", times=None)
    plain, mail = (welcome.options(dispatcher=recording, queue=q) for q in ("other", "mail"))

    assert [bool(each.dispatch(1)) for each in (plain, mail, mail, plain)] == [
        True,
        False,
        False,
        True,
    ]


def test_down_lasts_until_up(recording: RecordingDispatcher) -> None:
    """A backend that is down refuses everything until it is up."""
    recording.down()

    refused = [bool(welcome.options(dispatcher=recording).dispatch(n)) for n in range(20)]
    recording.up()

    assert not any(refused)
    assert welcome.options(dispatcher=recording).dispatch(1).ok


def test_down_lasts_for_a_block(recording: RecordingDispatcher) -> None:
    """As a context manager it ends with its block, and leaves other failures be."""
    recording.fail_when(lambda request: request.queue == "mail")
    with recording.down(category="timeout", status="unknown"):
        inside = welcome.options(dispatcher=recording).dispatch(1)

    assert inside.status is DispatchStatus.UNKNOWN
    assert welcome.options(dispatcher=recording).dispatch(1).ok
    assert not welcome.options(dispatcher=recording, queue="mail").dispatch(1).ok


@pytest.mark.parametrize(
    "wrong",
    [
        {"category": "unavailble"},
        {"status": "accepted"},
        {"times": 0},
        {"arrives": True},
    ],
)
def test_a_failure_that_cannot_be_is_an_error(
    recording: RecordingDispatcher, wrong: dict[str, object]
) -> None:
    """A wish that does not fit raises at once, in the test."""
    with pytest.raises(ValueError, match=r".+"):
        recording.fail_next(**wrong)  # type: ignore[arg-type]


# Time.


def test_nothing_runs_by_itself(recording: RecordingDispatcher) -> None:
    """Work waits for `run_due`."""
    welcome.options(dispatcher=recording).dispatch(1)

    assert RAN == []
    assert [each.ok for each in recording.run_due()] == [True]
    assert RAN == [(1, "en")]
    assert recording.run_due() == []


def test_delayed_work_waits_for_virtual_time(recording: RecordingDispatcher) -> None:
    """Time passes when a test says so."""
    welcome.options(dispatcher=recording, delay=timedelta(hours=1)).dispatch(1)

    recording.advance(timedelta(minutes=59))
    early = recording.due()
    recording.advance(timedelta(minutes=2))

    assert early == []
    assert [each.arguments["user_id"] for each in recording.due()] == [1]


def test_delays_count_from_the_virtual_moment(recording: RecordingDispatcher) -> None:
    """An hour from now is an hour from the virtual now."""
    recording.advance(timedelta(days=1))
    welcome.options(dispatcher=recording, delay=timedelta(hours=1)).dispatch(1)

    assert recording.due() == []
    recording.advance(timedelta(hours=1))
    assert len(recording.due()) == 1


def test_an_eta_is_an_instant(recording: RecordingDispatcher) -> None:
    """Work for tomorrow is due once the virtual day has passed."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    welcome.options(dispatcher=recording, eta=tomorrow).dispatch(1)

    recording.advance(timedelta(days=1))

    assert len(recording.due()) == 1


def test_higher_priority_runs_first(recording: RecordingDispatcher) -> None:
    """Among what is due, priority decides, then order."""
    for number, priority in enumerate((0, 5, 5)):
        welcome.options(dispatcher=recording, priority=priority).dispatch(number)

    recording.run_due()

    assert [number for number, _ in RAN] == [1, 2, 0]  # type: ignore[misc]


def test_late_work_is_not_run(recording: RecordingDispatcher) -> None:
    """Expiry follows virtual time too."""
    welcome.options(dispatcher=recording, expires=timedelta(minutes=5)).dispatch(1)
    recording.advance(timedelta(minutes=6))

    outcome = recording.run_next()

    assert outcome is not None
    assert outcome.reason == "expired"
    assert RAN == []


def test_a_retry_waits_for_its_backoff(recording: RecordingDispatcher) -> None:
    """A failed run is tried again when its back-off has passed, and ends as a dead letter."""
    flaky.options(dispatcher=recording).dispatch()

    first = recording.run_due()
    between = recording.run_due()
    recording.advance(timedelta(seconds=10))
    second = recording.run_due()

    assert [each.action for each in (*first, *between, *second)] == ["retry", "dead"]
    assert isinstance(second[0].exception, OSError)
    assert [each.task for each in recording.dead] == ["recording.flaky"]


def test_a_handlers_wish_sets_the_wait(recording: RecordingDispatcher) -> None:
    """`Retry(after=60)` is due again a minute later."""
    patient.options(dispatcher=recording).dispatch()
    recording.run_due()

    recording.advance(timedelta(seconds=59))
    early = recording.run_due()
    recording.advance(timedelta(seconds=2))

    assert early == []
    assert [each.attempt for each in recording.run_due()] == [2]


def test_run_due_runs_what_runs_dispatch() -> None:
    """Work that a run dispatches is run as well."""
    with RecordingDispatcher.installed() as dispatched:
        chain.dispatch()

        assert len(dispatched.run_due()) == 2
    assert RAN == [(9, "en")]


def test_run_due_does_not_run_for_ever() -> None:
    """A task that dispatches itself is stopped by the limit, and nothing is lost."""
    with RecordingDispatcher.installed() as dispatched:
        endless.dispatch()

        with pytest.raises(RuntimeError, match=r"10 runs, and 'recording\.endless' is still due"):
            dispatched.run_due(limit=10)
        assert len(dispatched.due()) == 1


def test_time_does_not_run_backwards(recording: RecordingDispatcher) -> None:
    """A negative span is an error."""
    with pytest.raises(ValueError, match="backwards"):
        recording.advance(timedelta(seconds=-1))
