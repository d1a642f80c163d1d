"""Django's settings as they are, for queues, Redis and formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import rq
from dispatchers_django_rq import LeasedWorker
from dispatchers_rq import native
from django.db import connection, transaction
from django.test import override_settings

from dispatchers import ConfigurationError, override
from dispatchers.testing import tasks
from tests.adapters.rq.harness import forget
from tests.adapters.without_settings import doctor_without_settings

from .harness import DjangoRQHarness

RQ_JSON, RQ_PICKLE = "rq.serializers.JSONSerializer", "rq.serializers.DefaultSerializer"


def fields(place: DjangoRQHarness, task_id: str | None) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = place.client.hgetall(f"rq:job:{task_id}")
    return found


def test_a_queue_that_the_settings_lack_is_refused(place: DjangoRQHarness) -> None:
    """C12: the dispatcher is not made, and the message has the queues that there are."""
    tables = {"high": {"URL": place.url}, "low": {"URL": place.url}}

    with override_settings(RQ_QUEUES=tables), pytest.raises(ConfigurationError) as caught:
        type(place).kind(queue="mail")

    assert "no queue 'mail': it has high, low" in str(caught.value)


@pytest.mark.parametrize("missing", [{}, None])
def test_settings_without_queues_are_refused(place: DjangoRQHarness, missing: Any) -> None:
    """C12: the message names the setting."""
    with override_settings(RQ_QUEUES=missing), pytest.raises(ConfigurationError, match="RQ_QUEUES"):
        type(place).kind()


def test_every_queue_of_the_same_redis_is_served(place: DjangoRQHarness) -> None:
    """One dispatcher has those that one `rqworker` may have."""
    other = f"{place.queue}-other"
    place.tables[other] = {"URL": place.url, "DB": None, "DEFAULT_TIMEOUT": 9}
    dispatcher = place.make_dispatcher()

    answer = tasks.note.options(dispatcher=dispatcher, queue=other).dispatch("/nowhere")
    held = place.client.lrange(f"rq:queue:{other}", 0, -1)
    forget(place.client, other)

    assert answer.status == "accepted"
    assert held == [str(answer.task_id).encode()]
    assert dispatcher.broker.queues(timeout=5) == sorted([place.queue, other])


@pytest.mark.parametrize(
    "table", [{"URL": "redis://elsewhere:1/0"}, {"SERIALIZER": RQ_JSON}, {"ASYNC": False}, None]
)
def test_a_queue_of_another_redis_or_format_is_rejected(
    place: DjangoRQHarness, table: dict[str, Any] | None
) -> None:
    """C4: `not_found`, with the queues that there are; nothing reaches the wrong server."""
    if table is not None:
        place.tables["away"] = {"URL": place.url, "DB": None, **table}
    dispatcher = place.make_dispatcher()

    answer = tasks.note.options(dispatcher=dispatcher, queue="away").dispatch("/nowhere")

    assert answer.error is not None
    assert (answer.status, answer.error.category) == ("rejected", "not_found")
    assert f"known are '{place.queue}'" in answer.error.message
    with pytest.raises(ConfigurationError, match=f"no queue 'away'.*it has {place.queue};"):
        type(place).kind(queue=place.queue, queues=["away"])


@pytest.mark.parametrize(
    ("given", "written"), [(None, "pickle"), (RQ_PICKLE, "pickle"), (RQ_JSON, "json")]
)
def test_jobs_are_written_as_the_queue_s_workers_read_them(
    place: DjangoRQHarness, given: str | None, written: str
) -> None:
    """`rqworker` reads pickles unless it is told otherwise; nothing of ours is pickled."""
    place.tables[place.queue]["SERIALIZER"] = given
    dispatcher = place.make_dispatcher()

    answer = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")
    place.tables[place.queue].pop("SERIALIZER")

    data = fields(place, answer.task_id)[b"data"]
    assert data.startswith(b"[" if written == "json" else b"\x80\x02")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"SERIALIZER": "shop.Mine"}, "SERIALIZER = 'shop.Mine'"),
        ({"SENTINELS": [("a", 1)], "MASTER_NAME": "m"}, "has SENTINELS"),
        ({"URL": "http://user:secret-word@host"}, "makes no connection of it: ValueError"),
        ({"HOST": "h", "PASSWORD": "secret-word"}, "makes no connection of it: KeyError"),
    ],
)
def test_what_cannot_work_is_refused_with_the_queue_s_name(
    place: DjangoRQHarness, table: dict[str, Any], words: str
) -> None:
    """C12: and no password is repeated."""
    base = {} if {"HOST", "SENTINELS"} & table.keys() else {"URL": place.url}

    with (
        override_settings(RQ_QUEUES={"default": {**base, **table}}),
        pytest.raises(ConfigurationError) as caught,
    ):
        type(place).kind()

    assert "RQ_QUEUES['default']" in str(caught.value)
    assert words in str(caught.value)
    assert "secret-word" not in str(caught.value)


def test_without_async_work_runs_in_the_call(place: DjangoRQHarness, tmp_path: Path) -> None:
    """`ASYNC: False` is for tests, as it is there: no Redis is contacted."""
    path = tmp_path / "journal"
    with override_settings(RQ_QUEUES={"default": {"URL": "redis://nowhere:1", "ASYNC": False}}):
        dispatcher = type(place).kind()

    answer = tasks.note.options(dispatcher=dispatcher).dispatch(str(path))

    assert answer.status == "executed"
    assert path.exists()


def test_default_timeout_is_for_jobs_of_rq_s_own(place: DjangoRQHarness) -> None:
    """A task says by itself how long it may run."""
    place.tables[place.queue]["DEFAULT_TIMEOUT"] = 77
    dispatcher = place.make_dispatcher()

    with override(ours=dispatcher):
        job = native("shop.clean", dispatcher="ours").dispatch()
        own = native("shop.clean", dispatcher="ours", time_limit=5).dispatch()
    task = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")

    found = [fields(place, each.task_id)[b"timeout"] for each in (job, own, task)]
    assert found == [b"77", b"5", b"-1"]


def test_accepted_is_said_when_redis_has_it_in_a_transaction_too(place: DjangoRQHarness) -> None:
    """C7: django-rq holds its own jobs back in silence there; this dispatcher acts at once."""
    from django_rq import get_queue

    dispatcher = place.make_dispatcher()

    with override_settings(RQ={"COMMIT_MODE": "on_db_commit"}), transaction.atomic():
        theirs = get_queue(place.queue).enqueue("builtins.print")
        before = place.client.llen(f"rq:queue:{place.queue}")
        answer = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")
        during = place.client.lrange(f"rq:queue:{place.queue}", 0, -1)
        transaction.set_rollback(True)
    connection.close()

    assert (theirs, before) == (None, 0)
    assert answer.status == "accepted"
    assert during == [str(answer.task_id).encode()]


@pytest.mark.parametrize(
    ("chosen", "warned"),
    [
        ({}, ""),
        ({"COMMIT_MODE": "auto"}, ""),
        ({"AUTOCOMMIT": True}, ""),
        ({"COMMIT_MODE": "on_db_commit"}, "COMMIT_MODE = 'on_db_commit'"),
        ({"COMMIT_MODE": "request_finished"}, "COMMIT_MODE = 'request_finished'"),
        ({"AUTOCOMMIT": False}, "AUTOCOMMIT = False"),
    ],
)
def test_the_check_tells_of_a_commit_mode(
    place: DjangoRQHarness, chosen: dict[str, Any], warned: str
) -> None:
    """C7: whoever chose that work waits for the commit is told that it does not."""
    dispatcher = place.make_dispatcher()

    with override_settings(RQ=chosen):
        dispatcher.check(contact=True)

    told = [each for each in dispatcher.warnings if "settings.RQ" in each]
    assert len(told) == bool(warned)
    assert warned in "".join(told)


def test_the_check_tells_of_workers_without_a_scheduler(place: DjangoRQHarness) -> None:
    """C6: `rqworker` leaves delayed work and retries where they are, unless told otherwise."""
    dispatcher = place.make_dispatcher()
    worker = rq.Worker([place.queue], connection=place.client)
    worker.register_birth()

    dispatcher.check(contact=True)
    alone = dispatcher.warnings
    place.client.set(f"rq:scheduler-lock:{place.queue}", 1, ex=60)
    dispatcher.check(contact=True)
    with_scheduler = dispatcher.warnings
    place.client.delete(f"rq:scheduler-lock:{place.queue}")

    assert len([each for each in alone if "--with-scheduler" in each]) == 1
    assert len([each for each in alone if worker.name in each]) == 1
    assert not [each for each in with_scheduler if "--with-scheduler" in each]


def test_a_worker_of_another_dispatcher_s_queues_is_refused(place: DjangoRQHarness) -> None:
    """C12: it would run work by options that are not the work's."""
    from django_rq import get_queue

    place.tables["strange"] = {"URL": "redis://elsewhere:1"}

    with (
        override(default=place.make_dispatcher(queues=[place.queue])),
        pytest.raises(ConfigurationError, match="alias"),
    ):
        LeasedWorker([get_queue("strange")])


def test_a_process_without_django_s_settings_is_told(tmp_path: Path) -> None:
    """C12: by the command line, with the cure and without a traceback."""
    said = doctor_without_settings("django_rq", tmp_path)

    assert "set DJANGO_SETTINGS_MODULE, or run" in said
    assert "Traceback" not in said
