"""What is particular to `django_tasks`: foreign backends, transactions, the worker's side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from dispatchers_django import OnCommit, _settings
from dispatchers_django.checks import check_settings
from dispatchers_django_tasks import DjangoTasksDispatcher, _errors, _run
from dispatchers_django_tasks._api import LIBRARY, task_backends
from django.db import OperationalError, connections, transaction
from django.test import override_settings

from dispatchers import (
    ConfigurationError,
    DispatchStatus,
    ErrorCategory,
    get_dispatcher,
    override,
    task,
)
from dispatchers.testing import Canary

from .harness import DatabaseHarness

pytest.importorskip("django_tasks_db")
from django_tasks_db import DatabaseBackend
from django_tasks_db.models import DBTaskResult


class DownBackend(DatabaseBackend):
    """The database's, which takes nothing more once it is down."""

    down = False

    def enqueue(self, *args: Any) -> Any:
        if DownBackend.down:
            raise ConnectionRefusedError
        return super().enqueue(*args)


class DownHarness(DatabaseHarness):
    backend = f"{__name__}.DownBackend"


@pytest.fixture
def place() -> Iterator[DatabaseHarness]:
    harness = DatabaseHarness()
    yield harness
    harness.end()


@pytest.fixture
def down() -> Iterator[DownHarness]:
    harness = DownHarness()
    yield harness
    DownBackend.down = False
    harness.end()


def rows(harness: DatabaseHarness) -> list[DBTaskResult]:
    found = DBTaskResult.objects.filter(queue_name=harness.queue)
    return list(found.order_by("enqueued_at"))


def test_a_result_says_what_became_of_the_work(place):
    """Whoever looks into the backend sees the task's name, and how its run ended."""
    dispatcher = place.dispatcher()

    @task(name="shop.add")
    def add(one: int) -> None: ...

    response = add.options(dispatcher=dispatcher).dispatch(one=1)
    place.run_next(dispatcher)

    (row,) = rows(place)
    assert row.id.hex == (response.task_id or "").replace("-", "")
    assert row.task_path == "dispatchers_django_tasks.task.run"
    assert row.args_kwargs["kwargs"]["task"] == "shop.add"
    assert (row.status, row.return_value) == ("SUCCESSFUL", "succeeded")


def test_the_next_attempt_is_there_before_this_one_ends(place):
    """C9: it is a result of its own, with the queue and the priority of the first."""
    dispatcher = place.dispatcher()
    seen: list[int] = []

    @task(name="shop.flaky", max_attempts=2, priority=7)
    def flaky() -> None:
        seen.append(len(rows(place)))
        raise LookupError

    flaky.options(dispatcher=dispatcher).dispatch()
    place.run_next(dispatcher)

    first, second = rows(place)
    assert seen == [1]
    assert (first.status, first.return_value) == ("SUCCESSFUL", "failed")
    assert (second.status, second.priority, second.queue_name) == ("READY", 7, place.queue)
    assert second.enqueued_at < first.finished_at


def test_what_fails_for_good_is_a_failed_result(place):
    """C9: the result keeps the envelope; the handler's words are in no result."""
    dispatcher = place.dispatcher()

    @task(name="shop.never")
    def never() -> None:
        raise LookupError("secret words")

    never.options(dispatcher=dispatcher).dispatch()
    place.run_next(dispatcher)

    (row,) = rows(place)
    assert row.status == "FAILED"
    assert row.exception_class_path == "dispatchers_django_tasks._errors.WorkFailedError"
    assert "shop.never is dead-lettered" in row.traceback
    assert "secret words" not in row.traceback


def test_a_retry_that_cannot_be_handed_over_is_not_lost(down):
    """C9: the result fails, and its arguments hold the envelope."""
    dispatcher = down.dispatcher()

    @task(name="shop.flaky", max_attempts=2)
    def flaky() -> None:
        DownBackend.down = True
        raise LookupError

    flaky.options(dispatcher=dispatcher).dispatch()
    down.run_next(dispatcher)

    (row,) = rows(down)
    assert row.status == "FAILED"
    assert "could not be settled" in row.traceback
    assert '"shop.flaky"' in row.args_kwargs["kwargs"]["body"]


def test_a_backend_that_is_down_is_an_answer(down):
    """C1, C3: what its client raises is classified, `ConnectionRefusedError` for one."""
    DownBackend.down = True

    @task(name="shop.add")
    def add() -> None: ...

    response = add.options(dispatcher=down.dispatcher()).dispatch()

    assert response.error is not None
    assert response.error.category is ErrorCategory.UNAVAILABLE
    assert rows(down) == []


def test_a_table_that_is_missing_is_a_matter_of_configuration():
    """C4: migrations that were not run; SQLite has no class of its own for it."""
    with pytest.raises(OperationalError) as raised:
        DBTaskResult.objects.using("empty").count()

    assert _errors.category_of(raised.value) is ErrorCategory.CONFIGURATION
    assert _errors.is_certainly_unsent(raised.value)


def test_a_database_that_cannot_be_opened_has_nothing():
    """C3: what was raised while Django connected was certainly not handed over."""
    wrapper = connections.create_connection("other")
    wrapper.settings_dict = {**wrapper.settings_dict, "NAME": "/no/such/folder/file.sqlite3"}

    with pytest.raises(OperationalError) as raised:
        wrapper.ensure_connection()

    raised.value.__cause__ = None  # SQLite's own class says it as well
    assert _errors.category_of(raised.value) is ErrorCategory.UNAVAILABLE
    assert _errors.is_certainly_unsent(raised.value)


def test_a_killed_worker_leaves_its_work_running(place):
    """The finding behind `durable = false`: `django-tasks-db` never looks at it again."""
    dispatcher = place.dispatcher()

    @task(name="shop.add")
    def add() -> None: ...

    add.options(dispatcher=dispatcher).dispatch()
    rows(place)[0].claim("a worker that is killed now")

    assert place.run_next(dispatcher) is None
    assert rows(place)[0].status == "RUNNING"


def test_work_is_no_part_of_the_callers_transaction(place):
    """C7: it is handed over now, on a connection of its own; a rollback takes nothing back."""

    @task(name="shop.add")
    def add() -> None: ...

    with transaction.atomic():
        response = add.options(dispatcher=place.dispatcher()).dispatch()
        transaction.set_rollback(True)

    assert response.status is DispatchStatus.ACCEPTED
    assert len(rows(place)) == 1


def test_a_caller_that_holds_sqlites_lock_is_answered(place):
    """C2, C7: SQLite has one writer: the hand-over waits for it until the deadline, and says so."""
    dispatcher = place.dispatcher(deadline=0.3)

    @task(name="shop.add")
    def add() -> None: ...

    with transaction.atomic():
        DBTaskResult.objects.update(priority=1)
        response = add.options(dispatcher=dispatcher).dispatch()

    assert response.status is DispatchStatus.UNKNOWN
    assert response.error is not None
    assert response.error.category is ErrorCategory.TIMEOUT


def test_on_commit_waits_for_the_commit(place):
    """C7: `OnCommit` is the way to tie work to a transaction, over this backend as over others."""
    dispatcher = place.dispatcher()

    @task(name="shop.add")
    def add() -> None: ...

    with override(**{dispatcher.alias: dispatcher}), transaction.atomic():
        response = add.options(dispatcher=OnCommit(to=dispatcher.alias)).dispatch()
        before = len(rows(place))

    assert (response.status, before, len(rows(place))) == (DispatchStatus.DEFERRED, 0, 1)


def test_a_queue_that_django_does_not_name_is_refused(place):
    """`QUEUES` in `TASKS` says which there are; the message has them."""

    @task(name="shop.add")
    def add() -> None: ...

    response = add.options(dispatcher=place.dispatcher(), queue="mial").dispatch()

    assert response.error is not None
    assert response.error.category is ErrorCategory.NOT_FOUND
    assert place.queue in response.error.message


def test_a_default_queue_that_does_not_exist_is_told_by_the_check(place):
    """C12: without `queue`, every dispatch would be refused."""
    dispatcher = DjangoTasksDispatcher(tasks=place.queue)

    with pytest.raises(ConfigurationError, match="set `queue`"):
        dispatcher.check()


def test_an_alias_that_django_does_not_have_is_refused(place):
    """The message has those that it has."""
    with pytest.raises(ConfigurationError, match=f"has no 'defualt', it has '{place.queue}'"):
        DjangoTasksDispatcher(tasks="defualt")


def test_a_backend_that_cannot_be_imported_is_refused():
    """C12: early, and with the name."""
    with override_settings(TASKS={"default": {"BACKEND": "shop.NoBackend"}}):
        with pytest.raises(ConfigurationError, match=r"TASKS\['default'\] cannot be used.*shop"):
            DjangoTasksDispatcher()


LOOP = {
    "DISPATCHERS": {"default": {"BACKEND": "django_tasks", "OPTIONS": {}}},
    "TASKS": {"default": {"BACKEND": "dispatchers_django.tasks.DispatcherBackend"}},
}


def test_a_loop_is_refused_by_checks():
    """A dispatcher over a backend of Django's over a dispatcher: which could be the first."""
    with override_settings(**LOOP):
        _settings.install()
        found = [*check_settings(None), *task_backends["default"].check()]
        with pytest.raises(ConfigurationError, match="hands its work to a dispatcher"):
            get_dispatcher("default")

    assert [each.id for each in found] == ["dispatchers.E001", "dispatchers.E004"]
    assert all("hands its work to a dispatcher" in each.msg for each in found)


@pytest.mark.skipif(LIBRARY == "django_tasks", reason="Django 6 alone has the API without a use")
def test_django_6_alone_makes_it_not_available():
    """`backend = "auto"` counts it only where the settings name backends of Django's."""
    assert DjangoTasksDispatcher.is_available() is False
    with override_settings(TASKS={}):
        assert DjangoTasksDispatcher.is_available() is True


@pytest.mark.parametrize(
    "part",
    [
        Canary("django.db.backends.base.base:BaseDatabaseWrapper.connect", "self"),
        Canary("django.utils.connection:BaseConnectionHandler.create_connection", "self", "alias"),
        Canary(f"{LIBRARY}:TaskBackendHandler.create_connection", "self", "alias"),
        Canary(f"{LIBRARY}.base:TaskContext.attempt"),
    ],
    ids=str,
)
def test_a_private_part_is_unchanged(part: Canary) -> None:
    """A release of Django that changes it fails here first."""
    assert part.problem() is None


def test_a_wait_that_is_too_long_is_handed_over_again(place, monkeypatch):
    """A backend that starts work early, or cannot defer, holds a worker a short while only."""
    dispatcher = place.dispatcher()
    monkeypatch.setattr(_run, "LONGEST_HOLD", 0.0)
    dispatcher.capabilities = dispatcher.capabilities.model_copy(update={"delay": False})
    ran: list[int] = []

    @task(name="shop.flaky", max_attempts=2)
    def flaky() -> None:
        ran.append(1)
        raise LookupError

    flaky.options(dispatcher=dispatcher).dispatch()
    for _ in range(3):
        place.run_next(dispatcher)

    assert ran == [1]
    assert [row.return_value for row in rows(place)] == ["failed", "early", "early", None]
