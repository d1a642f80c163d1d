"""`django.tasks` over a dispatcher: its tasks, its results, its refusals."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import django
import pytest
from dispatchers_django.models import TaskResult as Row
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, IntegrityError, connections, transaction
from django.test import Client, RequestFactory, modify_settings, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dispatchers import (
    ConfigurationError,
    DispatchError,
    DispatchRequest,
    Outcome,
    Retry,
    RunSettings,
    hooks,
    run_envelope,
)
from dispatchers._models.envelope import encode
from dispatchers._worker.runner import killed
from dispatchers.http import PATH, EndpointSettings
from dispatchers.testing.processes import wait_until

BUILT_IN = django.VERSION >= (6,)
API = pytest.importorskip(
    "django.tasks" if BUILT_IN else "django_tasks",
    reason='needs pip install "dispatchers[django-tasks]"',
)

from dispatchers_django import _task_results, views  # noqa: E402
from dispatchers_django._statements import insert, update  # noqa: E402
from dispatchers_django._task_api import (  # noqa: E402
    InvalidTask,
    TaskResultDoesNotExist,
    task_backends,
    task_enqueued,
    task_finished,
    task_started,
)
from dispatchers_django.checks import check_settings, check_tables  # noqa: E402
from dispatchers_django.tasks import DispatcherBackend, WorkLostError  # noqa: E402

OURS = "dispatchers_django.tasks.DispatcherBackend"
RAN: list[Any] = []
"""What the tasks below were called with."""


@API.task
def add(one: int, two: int) -> int:
    RAN.append((one, two))
    return one + two


@API.task
def fail() -> None:
    raise LookupError("not found here")


@API.task
def try_again() -> None:
    RAN.append("tried")
    if len(RAN) < 2:
        raise Retry(after=0)


@API.task
async def add_later(one: int, two: int) -> int:
    await asyncio.sleep(0)
    return one + two


@API.task(takes_context=True)
def identify(context: Any) -> list[Any]:
    return [context.task_result.id, context.attempt, context.task_result.status]


@API.task
def give(what: str) -> Any:
    return {"set": {1}, "infinite": math.inf, "keys": {1: 2}, "tuple": (1, 2)}[what]


@API.task
def write(name: str, fails: bool) -> None:
    User.objects.create(username=name)
    if fails:
        raise LookupError


@API.task(takes_context=True)
def outlast_lease(context: Any) -> None:
    """Run until the lease is another than it was at the start."""
    row = Row.objects.filter(pk=context.task_result.id)
    first = row.get().lease_until
    wait_until(lambda: row.get().lease_until > first, "the lease was not renewed")


@API.task(takes_context=True)
def be_overtaken(context: Any) -> None:
    """Fail after another worker has begun the same work."""
    begun(context.task_result.id)
    raise LookupError


def _kept(request: DispatchRequest) -> None:
    """Keep what is dispatched, for a worker that comes later."""
    KEPT.append(request)


KEPT: list[DispatchRequest] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> Iterator[None]:
    RAN.clear()
    KEPT.clear()
    hooks.before_dispatch(_kept)
    yield
    hooks.remove(_kept)


class Configured:
    """Settings of one backend over one dispatcher, for the rest of a test."""

    def __init__(self) -> None:
        self.entered: list[Any] = []

    def __call__(self, backend: str, options: dict[str, Any] | None = None, **chosen: Any) -> Any:
        settings = override_settings(
            DISPATCHERS={"work": {"BACKEND": backend, "OPTIONS": options or {}}},
            TASKS={
                "default": {
                    "BACKEND": OURS,
                    "QUEUES": [],
                    "OPTIONS": {"dispatcher": "work", **chosen},
                }
            },
        )
        settings.enable()
        self.entered.append(settings)
        return task_backends["default"]


@pytest.fixture
def configured() -> Iterator[Configured]:
    chosen = Configured()
    yield chosen
    for each in reversed(chosen.entered):
        each.disable()


def run(request: DispatchRequest, **facts: Any) -> Outcome:
    """Run the work as a worker does."""
    return run_envelope(encode(request), **facts)


def begun(result_id: str) -> _task_results.Held:
    """Begin a run as another worker does."""
    held = _task_results.begin(Row.objects.get(pk=result_id), "another worker", 60)
    assert held is not None
    return held


def lapse(result_id: str, seconds: float) -> None:
    """Have the row look as after a kill: running, its lease over for so many seconds."""
    over = timezone.now() - timedelta(seconds=seconds)
    Row.objects.filter(pk=result_id).update(status="RUNNING", lease_until=over, finished_at=None)


def test_a_task_runs_over_a_dispatcher(configured):
    """Django's own `@task`, its result in the answer and in the database."""
    configured("inline")

    result = add.enqueue(1, two=2)

    assert (result.status, result.return_value, result.attempts) == ("SUCCESSFUL", 3, 1)
    assert result.enqueued_at <= result.started_at <= result.finished_at
    assert add.get_result(result.id) == result


def test_an_exception_is_the_result_of_its_task(configured):
    """With its class and its traceback."""
    configured("inline")

    result = fail.enqueue()

    assert result.status == "FAILED"
    assert result.errors[0].exception_class is LookupError
    assert result.errors[0].traceback.endswith("LookupError: not found here\n")
    assert "in fail" in result.errors[0].traceback


@pytest.mark.parametrize(
    ("what", "error"), [("set", TypeError), ("infinite", ValueError), ("keys", TypeError)]
)
def test_a_result_that_json_cannot_carry_is_a_failure(configured, what, error):
    """As with Django's own backends."""
    configured("inline")

    assert give.enqueue(what).errors[0].exception_class is error


def test_a_tuple_that_is_returned_becomes_a_list(configured):
    """The work is done, and is not refused for it."""
    configured("inline")

    assert give.enqueue("tuple").return_value == [1, 2]


def test_async_tasks_and_callers(configured):
    """A coroutine function runs; `aenqueue` and `aget_result` are awaited."""
    configured("inline")

    async def both() -> tuple[Any, Any]:
        result = await add_later.aenqueue(1, 2)
        return result, await add_later.aget_result(result.id)

    assert add_later.enqueue(2, 2).return_value == 4
    result, found = asyncio.run(both())
    assert (result.return_value, found.return_value) == (3, 3)


def test_a_task_may_take_its_context(configured):
    """It sees its own result as running."""
    configured("inline")

    result = identify.enqueue()

    assert result.return_value == [result.id, 1, "RUNNING"]


@pytest.mark.parametrize(
    ("backend", "options", "flags"),
    [
        ("inline", {}, (False, False)),
        ("memory", {}, (True, True)),
        ("rq", {"url": "redis://127.0.0.1:1/0"}, (True, False)),
    ],
)
def test_flags_are_the_dispatchers_capabilities(configured, backend, options, flags):
    """C5: told without network, also by a backend whose server is down."""
    own = configured(backend, options)

    assert (own.supports_defer, own.supports_priority) == flags
    assert (own.supports_async_task, own.supports_get_result) == (True, True)


def test_what_the_dispatcher_lacks_is_refused_before_anything_is_sent(configured):
    """No row is written either."""
    configured("inline")

    with pytest.raises(InvalidTask, match="priority"):
        add.using(priority=5)
    with pytest.raises(InvalidTask, match="run_after"):
        add.using(run_after=timezone.now())
    assert (KEPT, Row.objects.count()) == ([], 0)


@pytest.mark.parametrize(
    ("asked", "told"), [({"queue_name": "q" * 256}, "queue: "), ({"priority": True}, "priority: ")]
)
def test_what_no_request_can_carry_is_an_invalid_task(configured, asked, told):
    """And is not told in the words of another library, nor with a value."""
    configured("memory")

    with pytest.raises(InvalidTask, match=told):
        add.using(**asked).enqueue(1, 2)

    assert Row.objects.count() == 0


def test_what_a_task_asks_for_is_asked_of_the_dispatcher(configured):
    """Queue, priority, time; the queue that Django gives by default is left to the dispatcher."""
    configured("null")
    due = datetime(2031, 1, 1, tzinfo=UTC)

    result = add.using(queue_name="mail", priority=7, run_after=due).enqueue(1, 2)
    add.enqueue(1, 2)

    asked, plain = KEPT
    assert (asked.queue, asked.priority, asked.eta) == ("mail", 7, due)
    assert (plain.queue, plain.priority, plain.eta) == (None, None, None)
    found = add.get_result(result.id).task
    assert (found.queue_name, found.priority, found.run_after) == ("mail", 7, due)


@pytest.mark.parametrize(
    "value",
    [(1, 2), {1: 2}, b"x", math.nan, [math.inf], {"at": datetime(2026, 1, 1, tzinfo=UTC)}, {1}],
    ids=repr,
)
def test_values_that_json_would_change_are_refused(configured, value):
    """C3: before anything is sent, and without a row."""
    configured("inline")

    with pytest.raises((TypeError, ValueError)):
        add.enqueue(value, 2)

    assert (KEPT, Row.objects.count()) == ([], 0)


@pytest.mark.parametrize("value", [True, 1.0, "\x00 \u2028 é", 2**70, [], {"": None}], ids=repr)
def test_values_arrive_as_they_were(configured, value):
    """C3: and are read back so."""
    configured("inline")

    result = add.using().get_backend().enqueue(echo, [value], {})

    assert result.return_value == value
    assert type(result.return_value) is type(value)
    assert echo.get_result(result.id).args == [value]


@API.task
def echo(value: Any) -> Any:
    return value


def test_a_task_that_no_worker_could_find_is_refused(configured):
    """Its module has something else under its name."""
    configured("inline")

    hidden = API.task(add.func.__globals__["_hidden"])

    with pytest.raises(InvalidTask, match="no worker could find"):
        hidden.enqueue()
    assert Row.objects.count() == 0


def _hidden() -> None:
    """Not decorated, so that its module has a function under its name."""


def test_a_broker_that_is_down_gives_a_failed_result(configured):
    """C1: the caller is told by the result, which is kept."""
    configured("rq", {"url": "redis://127.0.0.1:1/0", "deadline": 5})
    told: list[Any] = []
    task_finished.connect(receiver := lambda **facts: told.append(facts["task_result"].id))

    result = add.enqueue(1, 2)

    task_finished.disconnect(receiver)
    assert result.status == "FAILED"
    assert result.errors[0].exception_class is DispatchError
    assert "direct cause" not in result.errors[0].traceback  # the client's words may hold secrets
    assert add.get_result(result.id).status == "FAILED"
    assert told == [result.id]


def test_a_broker_that_is_down_may_raise(configured):
    """With `raise_errors`; the result is kept all the same."""
    configured("rq", {"url": "redis://127.0.0.1:1/0", "deadline": 5}, raise_errors=True)

    with pytest.raises(DispatchError):
        add.enqueue(1, 2)

    assert [row.status for row in Row.objects.all()] == ["FAILED"]


@pytest.mark.parametrize("wrong", ["123", "", "x" * 500, "a\x00b", "é", None, 7], ids=repr)
def test_unknown_and_malformed_ids_do_not_exist(configured, wrong):
    """One exception for all of them; no database is asked, which an event loop would refuse."""
    own = configured("inline")

    async def look() -> None:
        own.get_result(wrong)

    with pytest.raises(TaskResultDoesNotExist):
        asyncio.run(look())


def test_an_id_of_another_backend_does_not_exist(configured):
    """Nor one that nothing has."""
    own = configured("inline")
    result = add.enqueue(1, 2)
    Row.objects.update(backend="other")

    for unknown in (result.id, "0" * 32):
        with pytest.raises(TaskResultDoesNotExist):
            own.get_result(unknown)


def test_signals_have_the_class_as_their_sender(configured):
    """In order, with the result as it is then."""
    configured("inline")
    told: list[Any] = []

    def receiver(sender: Any, signal: Any, task_result: Any, **_: Any) -> None:
        told.append((sender, signal, str(task_result.status)))

    for signal in (task_enqueued, task_started, task_finished):
        signal.connect(receiver)
    add.enqueue(1, 2)
    for signal in (task_enqueued, task_started, task_finished):
        signal.disconnect(receiver)

    assert told == [
        (DispatcherBackend, task_enqueued, "READY"),
        (DispatcherBackend, task_started, "RUNNING"),
        (DispatcherBackend, task_finished, "SUCCESSFUL"),
    ]


def test_a_receiver_that_raises_changes_nothing(configured, caplog):
    """The work is done, and Django logs the receiver."""
    configured("inline")

    def receiver(**_: Any) -> None:
        raise LookupError

    task_started.connect(receiver)
    result = add.enqueue(1, 2)
    task_started.disconnect(receiver)

    assert result.status == "SUCCESSFUL"


def test_work_waits_for_the_commit_on_request(configured):
    """A rollback takes it back, and its row."""
    configured("null", on_commit=True)

    with transaction.atomic():
        kept = add.enqueue(1, 2)
        assert KEPT == []
    with pytest.raises(LookupError), transaction.atomic():
        lost = add.enqueue(1, 2)
        raise LookupError

    assert [each.id for each in KEPT] == [kept.id]
    with pytest.raises(TaskResultDoesNotExist):
        add.get_result(lost.id)


def test_a_worker_may_be_faster_than_the_commit(configured):
    """The row that is missing is made from the work itself."""
    configured("null")
    result = add.enqueue(1, 2)
    Row.objects.all().delete()

    run(KEPT[0])

    found = add.get_result(result.id)
    assert (found.return_value, found.args, found.enqueued_at) == (3, [1, 2], result.enqueued_at)


def test_a_killed_run_is_not_running(configured):
    """First it may be delivered again; later it is lost, and says so."""
    configured("null", lost_after=60)
    result = add.enqueue(1, 2)

    lapse(result.id, 1)
    soon = add.get_result(result.id)
    lapse(result.id, 61)
    late = add.get_result(result.id)

    assert (soon.status, soon.finished_at) == ("READY", None)
    assert late.status == "FAILED"
    assert late.is_finished
    assert late.errors[0].exception_class is WorkLostError


def test_a_run_that_lives_is_running(configured):
    """Its heartbeat renews the lease, and ends when another run has the row."""
    configured("null")
    result = add.enqueue(1, 2)
    held = begun(result.id)
    before = Row.objects.get().lease_until

    renewed = _task_results.renew(result.id, held.owner, 120)

    assert renewed
    assert Row.objects.get().lease_until > before + timedelta(seconds=30)
    assert not _task_results.renew(result.id, "another", 120)
    assert add.get_result(result.id).status == "RUNNING"


def test_a_run_renews_its_lease(configured):
    """For as long as it takes."""
    configured("inline", lease=0.3)

    assert outlast_lease.enqueue().status == "SUCCESSFUL"


def test_a_run_that_was_killed_at_its_time_limit_has_failed(configured):
    """Its process says nothing any more; what has killed it does."""
    configured("null")
    result = add.enqueue(1, 2)
    begun(result.id)

    killed(encode(KEPT[0]), attempt=1, deliveries=1)

    found = add.get_result(result.id)
    assert found.status == "FAILED"
    assert issubclass(found.errors[0].exception_class, TimeoutError)


def test_work_that_is_replayed_succeeds_after_its_failure(configured):
    """A dead letter that is replayed comes under the same id."""
    configured("null")
    result = try_again.enqueue()

    run(KEPT[0])
    failed = try_again.get_result(result.id)
    run(KEPT[0])

    assert (failed.status, failed.is_finished) == ("FAILED", True)
    assert try_again.get_result(result.id).status == "SUCCESSFUL"


def test_what_comes_again_after_a_kill_runs(configured):
    """Also where it was read as lost in the meantime; each run counts."""
    configured("null", lost_after=0)
    result = add.enqueue(1, 2)
    begun(result.id)
    lapse(result.id, 1)
    result.refresh()
    assert result.status == "FAILED"

    run(KEPT[0], deliveries=2)

    result.refresh()
    assert (result.status, result.attempts, result.errors) == ("SUCCESSFUL", 2, [])


def test_what_has_succeeded_does_not_run_again(configured):
    """C10: a delivery that comes again changes nothing."""
    configured("null")
    result = add.enqueue(1, 2)

    run(KEPT[0])
    run(KEPT[0], deliveries=2)

    assert RAN == [(1, 2)]
    assert add.get_result(result.id).attempts == 1


def test_a_run_that_was_overtaken_says_no_failure(configured):
    """The row is another run's by then; a success counts whoever has it."""
    configured("null")
    result = add.enqueue(1, 2)
    one, two = begun(result.id), begun(result.id)

    late = one.end("FAILED")
    found = add.get_result(result.id).status
    success = one.end("SUCCESSFUL", value=3)

    assert (late, found, success) == (False, "RUNNING", True)
    assert not two.end("FAILED")
    assert add.get_result(result.id).return_value == 3


def test_the_failure_of_an_overtaken_run_does_not_count(configured):
    """Its worker was slow, and another has the work."""
    configured("null")
    result = be_overtaken.enqueue()

    run(KEPT[0])

    assert be_overtaken.get_result(result.id).status == "RUNNING"


def test_work_of_a_worker_that_stops_is_ready(configured):
    """It gave up in time: neither an attempt that failed, nor an error."""
    configured("null")
    result = try_again.enqueue()

    run(KEPT[0], stopping=lambda: True)

    found = try_again.get_result(result.id)
    assert (found.status, found.errors) == ("READY", [])


def test_attempts_are_those_of_the_dispatcher(configured):
    """Between two of them the result is ready, with the failure."""
    configured("null")
    with override_settings(
        DISPATCHERS_SETTINGS={"tasks": {"django.tasks.run": {"max_attempts": 2}}}
    ):
        result = try_again.enqueue()

    run(KEPT[0], attempt=1)
    between = try_again.get_result(result.id)
    run(KEPT[0], attempt=2)
    after = try_again.get_result(result.id)

    assert (between.status, between.is_finished, len(between.errors)) == ("READY", False, 1)
    assert (after.status, after.attempts, len(after.errors)) == ("SUCCESSFUL", 2, 1)


def test_work_that_is_dead_without_a_run_has_failed(configured):
    """C9: it kills its workers, and is put aside; nobody waits for it for ever."""
    configured("null")
    result = add.enqueue(1, 2)
    begun(result.id)

    run(KEPT[0], deliveries=100)

    found = add.get_result(result.id)
    assert (found.status, found.errors[0].exception_class) == ("FAILED", WorkLostError)
    assert RAN == []


@pytest.mark.parametrize("path", ["not_imported.work", "os.getcwd", "nothing"])
def test_a_task_that_is_unknown_here_is_handed_back(configured, path, tmp_path, monkeypatch):
    """A newer worker may have it; then it has failed. What a message names is not imported."""
    (tmp_path / "not_imported.py").write_text("from os import getcwd as work")
    monkeypatch.syspath_prepend(tmp_path)
    configured("null")
    result = add.enqueue(1, 2)
    unknown = KEPT[0].replace(payload={**KEPT[0].payload, "path": path})

    back = run(unknown)
    between = add.get_result(result.id).status
    dead = run(unknown, settings=RunSettings(skew_grace=0))

    assert (back.action, back.reason, between) == ("return", "unknown_task", "READY")
    assert dead.action == "dead"
    found = add.get_result(result.id)
    assert (found.status, found.errors[0].exception_class) == ("FAILED", WorkLostError)
    assert path in found.errors[0].traceback
    assert "not_imported" not in sys.modules


def test_work_is_handed_back_while_the_database_is_down(configured):
    """It is no attempt of the work, which has not begun."""
    configured("null")
    result = add.enqueue(1, 2)

    with override_settings(DATABASE_ROUTERS=[Unreachable()]):
        outcome = run(KEPT[0])

    assert (outcome.action, outcome.reason) == ("return", "store_unavailable")
    assert (RAN, add.get_result(result.id).status) == ([], "READY")


class Unreachable:
    """Has results in a database that has no table for them."""

    def db_for_write(self, model: Any, **_: Any) -> str:
        return "empty"


@pytest.fixture
def pushed() -> Iterator[Any]:
    """Pushes work to the endpoint, which has a transaction for each run."""
    views._served[:] = [views._Endpoint(EndpointSettings(worker=True, secrets=("s" * 32,)))]
    connections.settings["default"]["ATOMIC_REQUESTS"] = True
    headers = {"authorization": "Bearer " + "s" * 32}
    yield lambda request: Client().post(
        PATH, encode(request), content_type="application/json", headers=headers
    )
    connections.settings["default"]["ATOMIC_REQUESTS"] = False
    views._served.clear()


@pytest.mark.parametrize(
    ("fails", "status", "names"), [(True, "FAILED", []), (False, "SUCCESSFUL", ["ada"])]
)
def test_a_result_survives_the_rollback_of_its_run(configured, pushed, fails, status, names):
    """What a failed run wrote is gone; its failure stands in the table of results."""
    configured("null")
    result = write.enqueue("ada", fails)

    pushed(KEPT[0])

    result.refresh()
    assert (result.status, result.attempts, len(result.errors)) == (status, 1, int(fails))
    assert [user.username for user in User.objects.all()] == names


def test_what_was_not_run_survives_the_rollback(configured, pushed):
    """The outcome of a delivery that was refused, too."""
    configured("null")
    result = add.enqueue(1, 2)

    pushed(KEPT[0].replace(expires=datetime(2026, 1, 1, tzinfo=UTC)))

    result.refresh()
    assert (result.status, result.attempts) == ("FAILED", 0)


@pytest.fixture
def no_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the database of results be one that has no table for them."""
    monkeypatch.setattr(_task_results, "database", lambda: "empty")


def test_without_results_no_table_is_touched(configured, no_tables):
    """The call that runs the work knows its end; nothing else does."""
    own = configured("inline", results=False)

    done, wrong = add.enqueue(1, two=2), fail.enqueue()

    assert (done.status, done.return_value, done.attempts) == ("SUCCESSFUL", 3, 1)
    assert done.enqueued_at <= done.started_at == done.last_attempted_at <= done.finished_at
    assert (wrong.status, wrong.errors[0].exception_class) == ("FAILED", LookupError)
    assert identify.enqueue().return_value[1:] == [1, "RUNNING"]
    assert own.supports_get_result is False
    for look in (done.refresh, lambda: add.get_result(done.id)):
        with pytest.raises(NotImplementedError):
            look()


def test_without_results_a_worker_runs_the_work(configured, no_tables, signalled):
    """C10: with nothing to look up, what succeeded runs again, and attempts are counted."""
    configured("null", results=False)

    result = identify.using(queue_name="mail").enqueue()
    outcomes = [run(KEPT[0]), run(KEPT[0], attempt=2)]

    assert (result.status, result.attempts) == ("READY", 0)
    assert [each.result[1:] for each in outcomes] == [[1, "RUNNING"], [2, "RUNNING"]]
    assert [status for _, status in signalled] == ["READY", *["RUNNING", "SUCCESSFUL"] * 2]


def test_without_results_work_that_is_dead_is_told(configured, no_tables, signalled):
    """By the signal; one that may run again, or is unknown here, by nothing."""
    configured("null", results=False)
    result = add.enqueue(1, 2)
    unknown = KEPT[0].replace(payload={**KEPT[0].payload, "path": "not_imported.work"})

    run(unknown, settings=RunSettings(skew_grace=0))
    killed(encode(KEPT[0]), attempt=1, deliveries=1)

    assert signalled == [(result.id, "READY"), (result.id, "FAILED")]


def test_without_results_a_broker_that_is_down_gives_a_failed_result(configured, no_tables):
    """C1: or raises, with `raise_errors`."""
    options = {"url": "redis://127.0.0.1:1/0", "deadline": 5}
    configured("rq", options, results=False)

    result = add.enqueue(1, 2)
    configured("rq", options, results=False, raise_errors=True)

    assert (result.status, result.errors[0].exception_class) == ("FAILED", DispatchError)
    with pytest.raises(DispatchError):
        add.enqueue(1, 2)


@pytest.fixture
def signalled() -> Iterator[list[tuple[str, str]]]:
    """Id and status of each signal."""
    told: list[tuple[str, str]] = []

    def receiver(task_result: Any, **_: Any) -> None:
        told.append((task_result.id, str(task_result.status)))

    for signal in (task_enqueued, task_started, task_finished):
        signal.connect(receiver)
    yield told
    for signal in (task_enqueued, task_started, task_finished):
        signal.disconnect(receiver)


@pytest.mark.parametrize("keeps", [True, False])
def test_what_is_refused_in_the_call_has_ended_once(configured, signalled, keeps):
    """Without a run: neither attempts nor a second error."""
    configured("inline", results=keeps)
    with override_settings(DISPATCHERS_SETTINGS={"tasks": {"django.tasks.run": {"expires": 1e-6}}}):
        result = add.enqueue(1, 2)

    assert (result.status, result.attempts, result.started_at) == ("FAILED", 0, None)
    assert (len(result.errors), [status for _, status in signalled]) == (1, ["READY", "FAILED"])
    assert [add.get_result(row.id) for row in Row.objects.all()] == [result] * keeps


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize(("retries", "ended"), [("never", 1), ("immediate", 2)])
def test_attempts_in_the_call_are_its_own(configured, signalled, keeps, retries, ended):
    """The end of the call is the end of the work, also with attempts left."""
    configured("inline", {"retries": retries}, results=keeps)
    with override_settings(
        DISPATCHERS_SETTINGS={"tasks": {"django.tasks.run": {"max_attempts": 2}}}
    ):
        result = try_again.enqueue()

    assert (result.status, result.attempts) == (("FAILED", "SUCCESSFUL")[ended - 1], ended)
    assert len(result.errors) == 1
    assert [status for _, status in signalled].count(result.status) == 1
    assert [try_again.get_result(row.id) for row in Row.objects.all()] == [result] * keeps


def test_a_result_is_written_by_two_statements_in_the_call(
    configured,
):
    """One before the run, which holds the lease, one after it."""
    configured("inline")
    add.enqueue(1, 2)

    with CaptureQueriesContext(connections["default"]) as written:
        add.enqueue(1, 2)

    assert [each["sql"].split()[0] for each in written] == ["INSERT", "UPDATE"]


def test_a_result_is_written_by_four_statements_over_a_queue(configured):
    """One that enqueues; the worker reads the row, and writes its beginning and its end."""
    configured("null")
    add.enqueue(1, 2)

    with CaptureQueriesContext(connections["default"]) as written:
        add.enqueue(1, 2)
        run(KEPT[-1])

    verbs = [each["sql"].split()[0] for each in written]
    assert verbs == ["INSERT", "SELECT", "UPDATE", "UPDATE"]


def test_where_no_text_equals_an_empty_one_the_orm_finds_the_row(configured, monkeypatch):
    """Oracle keeps an empty text as NULL, which the ORM knows."""
    configured("memory")
    row = Row.objects.get(pk=add.enqueue(1, 2).id)
    monkeypatch.setattr(connections["default"].features, "interprets_empty_strings_as_nulls", True)

    assert update(row, {"status": "FAILED"}, {"status": "READY"}, using="default")
    assert not update(row, {"status": "FAILED"}, {"owner": ""}, using="default")

    assert Row.objects.get(pk=row.pk).status == "FAILED"


def test_a_statement_that_fails_has_its_transaction_rolled_back(configured):
    """As any other of Django's."""
    configured("memory")
    row = Row.objects.get(pk=add.enqueue(1, 2).id)

    with transaction.atomic():
        with pytest.raises(IntegrityError):
            insert(row, using="default")

        assert transaction.get_connection().needs_rollback
        transaction.set_rollback(False)


def test_a_kill_in_the_call_leaves_nothing_running(configured):
    """What ends the process ends the run without a word; its lease ends as well."""
    configured("inline", lost_after=0)

    with pytest.raises(SystemExit):
        leave.enqueue()

    row = Row.objects.get()
    assert (row.status, row.worker_ids != "[]") == ("RUNNING", True)
    lapse(row.pk, 1)
    assert leave.get_result(row.pk).status == "FAILED"


@API.task
def leave() -> None:
    raise SystemExit


def test_times_without_zones(configured):
    """With `USE_TZ` off, what is stored and read is naive, what is dispatched aware."""
    configured("null")
    due = datetime(2031, 1, 1)

    with override_settings(USE_TZ=False):
        result = add.using(run_after=due).enqueue(1, 2)
        run(KEPT[0])
        found = add.get_result(result.id)

    assert KEPT[0].eta is not None
    assert found.task.run_after == due
    assert found.status == "SUCCESSFUL"
    assert found.finished_at.tzinfo is None


def test_old_results_are_deleted(configured):
    """A hundred at a time, as others are enqueued; what waits is kept."""
    configured("null", keep=60)
    old, lost, waiting = (add.enqueue(1, 2).id for _ in range(3))
    past = timezone.now() - timedelta(seconds=61)
    Row.objects.filter(pk=old).update(status="SUCCESSFUL", finished_at=past)
    lapse(lost, 61)

    _task_results.purge(60)

    assert [row.id for row in Row.objects.all()] == [waiting]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"leese": 5}, "leese: unknown option; did you mean 'lease'"),
        ({"lease": 0}, "lease: "),
        ({"lease": "60"}, "lease: "),
        ({"lease": True}, "lease: "),
        ({"keep": math.inf}, "keep: "),
        ({"lost_after": 1e300}, "lost_after: "),
        ({"results": "no"}, "results: "),
        (None, "must be a mapping"),
        ([], "must be a mapping"),
    ],
)
def test_options_are_checked(configured, options, told):
    """A wrong one is no default in silence, and fails where the backend is made."""
    table = {"BACKEND": OURS, "OPTIONS": options}

    with (
        override_settings(TASKS={"default": table}),
        pytest.raises(ImproperlyConfigured, match=told),
    ):
        _ = task_backends["default"]


def test_a_dispatcher_that_is_not_there_is_found_by_the_checks(configured):
    """And keeps nothing from being declared."""
    own = configured("inline", dispatcher="mail")

    assert [each.id for each in own.check()] == ["dispatchers.E004"]
    with pytest.raises(ConfigurationError, match="mail"):
        add.using(priority=5, run_after=timezone.now()).enqueue(1, 2)
    assert Row.objects.count() == 0
    assert configured("inline").check() == []


@pytest.mark.parametrize("results", [True, False])
def test_an_application_that_is_not_installed_is_found_by_the_checks(configured, results):
    """It reads the settings and brings the worker; it keeps results only where that is asked."""
    own = configured("inline", results=results)

    with modify_settings(INSTALLED_APPS={"remove": ["dispatchers_django"]}):
        (found,) = own.check()

    assert found.id == "dispatchers.E003"
    assert "settings.DISPATCHERS" in found.msg
    assert ("keeps results" in found.msg) is results


class ResultsIn:
    """A router that has results written to a database, and may forbid their table there."""

    def __init__(self, place: str, *, table: bool) -> None:
        self.place, self.table = place, table

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        del hints
        return self.place if model is Row else None

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        del hints
        return self.table if (db, app_label) == (self.place, "dispatchers") else None


def test_a_table_of_results_that_is_not_there_yet_is_a_warning(configured):
    """By `check --database`: `enqueue` would raise the database's error."""
    configured("null")

    with override_settings(DATABASE_ROUTERS=[ResultsIn("empty", table=True)]):
        assert check_settings(None) == check_tables(None, databases=["default"]) == []
        (found,) = check_tables(None, databases=["default", "empty"])
        with pytest.raises(DatabaseError):
            add.enqueue(1, 2)

    assert (found.id, found.is_serious()) == ("dispatchers.W005", False)
    assert found.msg.startswith("settings.TASKS['default']: database 'empty' has no table")
    assert "migrate dispatchers --database empty" in found.msg


def test_a_router_that_keeps_the_table_of_results_away_is_an_error(configured):
    """No migration could ever make it."""
    configured("null")

    with override_settings(DATABASE_ROUTERS=[ResultsIn("empty", table=False)]):
        (found,) = check_settings(None)

    assert found.id == "dispatchers.E005"
    assert found.msg.startswith("settings.TASKS['default']: database 'empty' gets no table")


def test_without_results_no_table_is_asked_for(configured):
    """Nothing is written to it."""
    configured("null", results=False)

    with override_settings(DATABASE_ROUTERS=[ResultsIn("empty", table=False)]):
        assert check_settings(None) == check_tables(None, databases=["default", "empty"]) == []


@pytest.mark.parametrize(
    "rest",
    [{}, {"modules": ["json"]}, {"modules": ["this"]}],
    ids=["no modules", "imported", "not imported"],
)
def test_a_misspelt_task_of_the_settings_is_a_warning(configured, rest):
    """Unless a worker imports modules that this process has not, and which may have it."""
    configured("null")
    named = {"tasks": {"django.tasks.rum": {"max_attempts": 5}}, **rest}

    with override_settings(DISPATCHERS_SETTINGS=named):
        found = check_settings(None)

    known = rest != {"modules": ["this"]}
    assert [each.id for each in found] == ["dispatchers.W006"] * known
    assert all(each.msg.endswith("; did you mean 'django.tasks.run'?") for each in found)


def test_the_admin_shows_no_arguments(configured, use):
    """They are users' data, as are tracebacks and what was returned."""
    configured("inline")
    result = add.enqueue(4711, 2)
    request = RequestFactory().get("/")
    request.user = User(username="ada", is_superuser=True, is_staff=True, is_active=True)

    page = admin.site.get_model_admin(Row)
    shown = page.get_fields(request, Row.objects.get(pk=result.id))

    assert "status" in shown
    assert not {"args", "kwargs", "errors", "return_value"} & {*shown}
    assert not page.has_change_permission(request)


WITHOUT = """
import sys
sys.modules["django.tasks"] = sys.modules["django_tasks"] = None
from django.conf import settings
settings.configure(INSTALLED_APPS=["dispatchers_django"], DATABASES={}, **%r)
import django
try:
    django.setup()
    import dispatchers_django.tasks
    print("fine")
except ImportError as exc:
    print(type(exc).__name__, exc)
"""


@pytest.mark.parametrize(
    ("settings", "said"),
    [({}, "fine"), ({"TASKS": {"default": {"BACKEND": OURS}}}, "MissingDependencyError")],
    ids=["unused", "used"],
)
def test_a_missing_library_is_told_where_it_is_used(settings: Any, said: str) -> None:
    """With the command that installs it; everything else works without it."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT % settings], capture_output=True, text=True, check=False
    )

    assert said in done.stdout, done.stderr
    assert ('pip install "dispatchers[django-tasks]"' in done.stdout) is (said != "fine")


def test_over_an_outbox_result_and_work_are_rows_of_one_transaction(configured, use):
    """`on_commit` waits for nothing there: to write the row later would lose it in between."""
    from dispatchers_django.models import OutboxRow

    configured("null", on_commit=True)
    use(work={"backend": "outbox", "to": "broker", "store": "django:default"}, broker="null")

    with pytest.raises(LookupError), transaction.atomic():
        add.enqueue(1, 2)
        written = OutboxRow.objects.count(), Row.objects.count()
        raise LookupError

    assert written == (1, 1)
    assert (OutboxRow.objects.count(), Row.objects.count()) == (0, 0)
