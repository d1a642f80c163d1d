"""`Q_CLUSTER` as it is, for brokers, clusters and django-q2's own options."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dispatchers_django_q import DjangoQDispatcher
from django.db import connection, transaction
from django.test import override_settings

from dispatchers import ConfigurationError, WorkerOptions, override, task
from dispatchers.backends.null import NullDispatcher
from dispatchers.testing import tasks
from tests.adapters.without_settings import doctor_without_settings

from .harness import OrmHarness, RedisHarness


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        (None, "Q_CLUSTER is missing"),
        ({"name": "x", "sqs": {"aws_region": "x"}}, "has 'sqs'.*'redis' and 'orm'"),
        ({"name": "x", "broker_class": "shop.Broker"}, "has 'broker_class'"),
    ],
)
def test_what_cannot_work_is_refused(conf: Any, words: str) -> None:
    """C12: the dispatcher is not made, and the message names the setting."""
    with override_settings(Q_CLUSTER=conf), pytest.raises(ConfigurationError, match=words):
        DjangoQDispatcher()


def test_a_cluster_that_the_settings_lack_is_rejected(orm: OrmHarness) -> None:
    """C4: no `qcluster` would ever take it."""
    dispatcher = orm.make_dispatcher()

    answer = tasks.note.options(dispatcher=dispatcher, queue="nowhere").dispatch("/nowhere")

    assert answer.error is not None
    assert (answer.status, answer.error.category) == ("rejected", "not_found")
    assert orm.queue in answer.error.message


def test_figures_of_rows_are_those_that_are_due(orm: OrmHarness) -> None:
    """C12: a locked row is delayed or runs, which its table does not tell: None, and not 0."""
    dispatcher = orm.make_dispatcher()
    note = tasks.note.options(dispatcher=dispatcher)
    note.dispatch("/nowhere").raise_for_error()
    note.options(delay=timedelta(hours=1)).dispatch("/nowhere").raise_for_error()

    [figures] = [each for each in dispatcher.stats() if each.queue == orm.queue]

    assert (figures.waiting, figures.running, figures.delayed) == (1, None, None)
    assert figures.oldest is not None
    assert figures.oldest >= 0


def test_figures_of_redis_tell_delayed_work(redis: RedisHarness) -> None:
    """C12: it waits in rows of schedules."""
    dispatcher = redis.make_dispatcher()
    note = tasks.note.options(dispatcher=dispatcher)
    note.dispatch("/nowhere").raise_for_error()
    note.options(delay=timedelta(hours=1)).dispatch("/nowhere").raise_for_error()

    [figures] = [each for each in dispatcher.stats() if each.queue == redis.queue]

    assert (figures.waiting, figures.running, figures.delayed) == (1, None, 1)


def test_a_worker_is_django_q2_s_own(orm: OrmHarness) -> None:
    """`dispatchers worker` names the command that runs this dispatcher's cluster."""
    own = DjangoQDispatcher()
    other = orm.make_dispatcher()

    with pytest.raises(ConfigurationError, match=r": manage.py qcluster$"):
        own._worker(WorkerOptions())
    with pytest.raises(ConfigurationError, match=f"Q_CLUSTER_NAME={orm.queue} manage.py qcluster"):
        other._worker(WorkerOptions())


def test_options_of_django_q2_are_apart_from_a_task_s_arguments(
    orm: OrmHarness, tmp_path: Path
) -> None:
    """A task may have arguments of these names; they arrive, and mean nothing to django-q2."""
    got: list[Any] = []

    @task(name="shop.odd")
    def odd(group: str, timeout: int, hook: str, sync: bool, q_options: dict[str, int]) -> None:
        got.append((group, timeout, hook, sync, q_options))

    dispatcher = orm.make_dispatcher(group="reports")
    values = {"group": "g", "timeout": 0, "hook": "h", "sync": True, "q_options": {"a": 1}}
    odd.options(dispatcher=dispatcher).dispatch(**values).raise_for_error()
    package = orm.taken()
    assert package is not None
    orm._settled(orm._worked(dispatcher, package))

    assert got == [("g", 0, "h", True, {"a": 1})]
    assert (package["name"], package["group"]) == ("shop.odd", "reports")
    assert not {"hook", "sync", "timeout", "ack_failure"} & package.keys()
    assert package["kwargs"] == {}


def test_django_q2_s_signal_sees_each_package(orm: OrmHarness) -> None:
    """Whoever watches `pre_enqueue` sees ours as well."""
    from django_q.signals import pre_enqueue

    seen: list[Any] = []

    def note(*, task: dict[str, Any], **_: object) -> None:
        seen.append(task)

    pre_enqueue.connect(note)
    tasks.note.options(dispatcher=orm.make_dispatcher()).dispatch("/nowhere")
    pre_enqueue.disconnect(note)

    assert [each["name"] for each in seen] == [tasks.note.name]


def test_a_row_waits_until_it_is_due(orm: OrmHarness) -> None:
    """C6: to the second, by its lock; no schedule is needed."""
    dispatcher = orm.make_dispatcher()

    tasks.note.options(dispatcher=dispatcher, delay=timedelta(hours=1)).dispatch("/nowhere")

    from django_q.models import OrmQ

    row = OrmQ.objects.get(key=orm.queue)
    wait = row.lock - datetime.now(UTC)
    assert orm.taken() is None
    assert timedelta(minutes=59) < wait <= timedelta(hours=1)


def test_in_redis_a_schedule_waits_until_it_is_due(redis: RedisHarness) -> None:
    """C6: the row is written before it is accepted, and its cluster pushes it once."""
    from django_q.models import Schedule

    dispatcher = redis.make_dispatcher(group="reports")
    sent = tasks.note.options(dispatcher=dispatcher, delay=timedelta(hours=1)).dispatch("/nowhere")

    early = redis.taken()
    Schedule.objects.filter(cluster=redis.queue).update(next_run=datetime.now(UTC))
    package = redis.taken()

    assert (sent.status, early) == ("accepted", None)
    assert package is not None
    assert (package["name"], package["group"]) == (tasks.note.name, "reports")
    assert not Schedule.objects.filter(cluster=redis.queue).exists()


def test_without_a_scheduler_redis_refuses_delays(redis: RedisHarness) -> None:
    """C6: it would wait for ever."""
    redis.table["scheduler"] = False
    dispatcher = redis.make_dispatcher()

    late = tasks.note.options(dispatcher=dispatcher, delay=timedelta(seconds=1)).dispatch("/x")

    assert late.error is not None
    assert late.error.category == "unsupported"


def test_redis_is_not_called_durable(redis: RedisHarness) -> None:
    """C3: what a cluster had taken dies with it, and the check says so."""
    dispatcher = redis.make_dispatcher()

    sent = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")
    dispatcher.check(contact=True)

    assert (sent.status, sent.durable) == ("accepted", False)
    assert any("lost when it is killed" in each for each in dispatcher.warnings)


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"timeout": 30, "retry": 60}, []),
        ({"timeout": 90, "retry": 60}, ["timeout = 90 and retry = 60"]),
        ({"timeout": None, "retry": 60}, ["no timeout and retry = 60"]),
        ({"max_attempts": 2}, ["max_attempts = 2"]),
    ],
)
def test_the_check_tells_what_would_repeat_or_drop_work(
    orm: OrmHarness, conf: dict[str, Any], words: list[str]
) -> None:
    """C10, C12: by the settings that do it."""
    orm.table.update(conf)
    dispatcher = orm.make_dispatcher()

    dispatcher.check(contact=True)

    assert len(dispatcher.warnings) == len(words)
    assert all(word in text for word, text in zip(words, dispatcher.warnings, strict=True))


def test_a_task_that_outlasts_the_redelivery_is_refused(orm: OrmHarness) -> None:
    """C10: another worker would begin it while it runs."""

    @task(name="shop.long", time_limit=61)
    def long() -> None: ...

    with pytest.raises(ConfigurationError, match=r"shop\.long.*Q_CLUSTER\['retry'\]"):
        orm.make_dispatcher().check()


def test_sync_runs_in_the_call(orm: OrmHarness, tmp_path: Path) -> None:
    """`Q_CLUSTER["sync"]` is for tests, as it is there."""
    orm.table["sync"] = True
    dispatcher = orm.make_dispatcher()

    answer = tasks.note.options(dispatcher=dispatcher).dispatch(str(tmp_path / "journal"))

    assert answer.status == "executed", answer
    assert (tmp_path / "journal").exists()


def test_a_rollback_does_not_take_work_back(orm: OrmHarness) -> None:
    """C7: `accepted` is the truth in a transaction, too: the row has one of its own."""
    dispatcher = orm.make_dispatcher()

    with transaction.atomic():
        answer = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")
        transaction.set_rollback(True)
    held = orm.received(dispatcher)

    assert answer.status == "accepted"
    assert len(held) == 1


def test_a_file_that_the_caller_has_locked_is_told_in_time(orm: OrmHarness) -> None:
    """C2, C7: SQLite lets no second writer in; it is certain that nothing was written."""
    from django_q.models import OrmQ

    dispatcher = orm.make_dispatcher(deadline=2.0)

    with transaction.atomic():
        OrmQ.objects.create(key="mine", payload="", lock=datetime.now(UTC))
        answer = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")
    held = orm.received(dispatcher)
    connection.close()

    assert answer.error is not None
    assert (answer.status, answer.error.category) == ("rejected", "unavailable")
    assert answer.error.retryable
    assert held == []


def test_a_missing_table_is_a_matter_of_configuration(orm: OrmHarness) -> None:
    """C4: repeating it would not help; the database that is named has no tables."""
    from django.db import connections

    empty = {**connections.settings["default"], "NAME": ":memory:"}
    connections.settings["bare"] = empty
    orm.table["orm"] = "bare"
    dispatcher = orm.make_dispatcher()

    answer = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")
    del connections.settings["bare"]

    assert answer.error is not None
    assert (answer.status, answer.error.category) == ("rejected", "configuration")


@pytest.fixture
def exiting() -> Any:
    """A task that ends its process."""

    @task(name="shop.exiting")
    def exiting() -> None:
        sys.exit(3)

    return exiting


def test_a_task_that_exits_does_not_end_the_worker(orm: OrmHarness, exiting: Any) -> None:
    """C9, C10: its row stays for another, with the delivery counted."""
    from django_q.models import OrmQ

    dispatcher = orm.make_dispatcher()
    exiting.options(dispatcher=dispatcher).dispatch().raise_for_error()

    package = orm.taken()
    assert package is not None
    done = orm._worked(dispatcher, package)
    orm._settled(done)

    row = OrmQ.objects.get(key=orm.queue)
    assert done["success"] is False
    assert row.task["args"][1:3] == (1, 2)


def test_a_task_that_exits_goes_back_to_redis(redis: RedisHarness, exiting: Any) -> None:
    """C9: no row is left to come again, so that the package is put once more."""
    dispatcher = redis.make_dispatcher()
    exiting.options(dispatcher=dispatcher).dispatch().raise_for_error()

    package = redis.taken()
    assert package is not None
    redis._settled(redis._worked(dispatcher, package))
    again = redis.taken()

    assert again is not None
    assert again["args"] == (package["args"][0], 1, 2, *package["args"][3:])


def test_a_dead_letter_store_is_used(orm: OrmHarness, tmp_path: Path) -> None:
    """C9: then django-q2 has nothing to keep, and shows no envelope."""
    from django_q.models import OrmQ, Task

    dispatcher = orm.make_dispatcher(dead_letters="memory")
    sent = tasks.fail.options(dispatcher=dispatcher, max_attempts=1).dispatch(
        str(tmp_path / "j"), 9
    )

    orm.run_next(dispatcher)

    assert dispatcher.letters.get(sent.request_id) is not None
    assert not OrmQ.objects.filter(key=orm.queue).exists()
    assert not Task.objects.filter(cluster=orm.queue).exists()


def test_a_worker_with_another_configuration_runs_nothing(orm: OrmHarness) -> None:
    """C11: the row stays, for a worker that has the dispatcher."""
    from dispatchers_django_q import run
    from django_q.models import OrmQ
    from django_q.signals import pre_execute

    tasks.note.options(dispatcher=orm.make_dispatcher()).dispatch("/nowhere")
    package = orm.taken()
    assert package is not None

    pre_execute.send(sender="django_q", func=run, task=package)
    with override(django_q=NullDispatcher()), pytest.raises(ConfigurationError, match="django_q"):
        run(*package["args"])

    assert OrmQ.objects.filter(key=orm.queue).count() == 1


def test_a_process_without_django_s_settings_is_told(tmp_path: Path) -> None:
    """C12: by the command line, with the cure and without a traceback."""
    said = doctor_without_settings("django_q", tmp_path)

    assert "set DJANGO_SETTINGS_MODULE, or run" in said
    assert "Traceback" not in said
