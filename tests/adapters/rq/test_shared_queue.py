"""One queue with RQ's own jobs and ours, and workers of both kinds: the day of the move."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from dispatchers_rq import RQDispatcher, native
from dispatchers_rq._message import data_of
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.registry import FailedJobRegistry
from rq.serializers import DefaultSerializer, JSONSerializer

from dispatchers import override

from .harness import Place, forget, run_job, work

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="RQ's workers fork")

PLAIN, FORMER = "rq_work.plain", "rq_work.converted"


@pytest.fixture
def client(shared_redis: str) -> Iterator[Any]:
    found = Redis.from_url(shared_redis)
    yield found
    found.close()


@pytest.fixture
def place(shared_redis: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    found = Place(shared_redis, tmp_path, **getattr(request, "param", {}))
    yield found
    found.close()


def failed(place: Place, client: Any) -> list[str]:
    return list(FailedJobRegistry(place.queue, connection=client).get_job_ids())


def dispatched(place: Place, path: Path, count: int) -> list[str]:
    work_ = work.note.options(dispatcher=place.dispatcher)
    return [str(work_.dispatch(str(path), "ours").raise_for_error().task_id) for _ in range(count)]


def test_each_job_is_run_by_a_worker_that_can(place: Place, client: Any) -> None:
    """C11: pickled jobs and ours in one queue, RQ's default worker and ours: none ever fails."""
    queue = Queue(place.queue, connection=client)
    text = place.folder / "plain.txt"
    journal = place.folder / "journal"
    theirs = [queue.enqueue(PLAIN, str(text), text="theirs").id for _ in range(3)]
    ours = dispatched(place, journal, 3)
    theirs += [queue.enqueue(PLAIN, str(text), text="theirs").id for _ in range(3)]
    place.start_rq()
    place.start()
    ours += dispatched(place, journal, 3)

    place.until(lambda: all(place.status(each) == "finished" for each in (*theirs, *ours)))

    assert text.read_text().split() == ["theirs"] * 6
    assert failed(place, client) == []


def test_pickled_jobs_are_left_to_others(place: Place, client: Any) -> None:
    """C5: nothing is unpickled; the job stays where it is, and ours behind it is run."""
    evil = place.folder / "evil"
    queue = Queue(place.queue, connection=client)
    jobs = [queue.enqueue(PLAIN, Bomb(str(evil))) for _ in range(3)]
    (ours,) = dispatched(place, place.folder / "journal", 1)

    drained = place.start("--drain")

    assert drained.wait(60) == 0, place.log()
    assert place.status(ours) == "finished"
    assert [job.id for job in jobs] == queue.get_job_ids()
    assert [job.get_status(refresh=True) for job in jobs] == ["queued"] * 3
    assert not evil.exists()
    assert "unpickle = true" in place.log()


class Bomb:
    """A payload that a stranger with access to the Redis could send."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("place", [{"unpickle": True}], indirect=True)
def test_pickled_jobs_run_where_an_option_says_so(place: Place, client: Any) -> None:
    """`unpickle = true`: RQ's own jobs run as RQ runs them, former ones of tasks as tasks."""
    queue = Queue(place.queue, connection=client)
    text = place.folder / "plain.txt"
    plain = queue.enqueue(PLAIN, str(text), text="theirs")
    former = queue.enqueue(FORMER, str(text), "former", number=7)
    itself = queue.enqueue(work.converted, str(text), "itself", number=8)

    drained = place.start("--drain")

    assert drained.wait(60) == 0, place.log()
    assert {job.get_status(refresh=True) for job in (plain, former, itself)} == {"finished"}
    assert sorted(text.read_text().split()) == ["former-7-1", "itself-8-1", "theirs"]


def test_a_job_of_a_former_life_is_a_run(place: Place, client: Any) -> None:
    """Attempts, `current_run()` and dead letters apply to what `enqueue` wrote before."""
    queue = Queue(place.queue, connection=client, serializer=JSONSerializer)
    text = place.folder / "plain.txt"
    good = queue.enqueue(FORMER, str(text), "good")
    bad = queue.enqueue(FORMER, str(text), text="fail")

    drained = place.start("--drain")

    assert drained.wait(60) == 0, place.log()
    letter = place.letters.get(bad.id)
    assert sorted(text.read_text().split()) == ["fail-1-1", "fail-1-2", "good-1-1"]
    assert good.get_status(refresh=True) == "finished"
    assert letter is not None
    assert (letter.task, letter.reason, letter.attempts) == ("rq_work.converted", "exhausted", 2)


@pytest.mark.parametrize("place", [{"serializer": "pickle"}], indirect=True)
def test_rqs_default_worker_runs_ours_if_told_so(place: Place, client: Any) -> None:
    """`serializer = "pickle"`: RQ's default worker imports the tasks and runs them."""
    (ours,) = dispatched(place, place.folder / "journal", 1)
    with override(default=place.dispatcher):
        theirs = native(PLAIN).dispatch(str(place.folder / "plain.txt"), text="native")

    done = place.start_rq("--burst")

    assert done.wait(60) == 0, place.log()
    assert place.status(ours) == place.status(theirs.task_id) == "finished", place.log()
    assert failed(place, client) == []


@pytest.mark.parametrize("place", [{"serializer": "pickle"}], indirect=True)
def test_our_worker_reads_both_formats(place: Place) -> None:
    """Jobs that are written for RQ's default workers run in ours as well."""
    (ours,) = dispatched(place, place.folder / "journal", 1)

    drained = place.start("--drain")

    assert drained.wait(60) == 0, place.log()
    assert place.status(ours) == "finished"


@pytest.mark.parametrize("serializer", ["rq.serializers.JSONSerializer"])
def test_a_plain_worker_imports_the_tasks(place: Place, client: Any, serializer: str) -> None:
    """`rq worker` knows only RQ; a failure there is a dead letter too, with no retry of RQ's."""
    (good,) = dispatched(place, place.folder / "journal", 1)
    bad = work.converted.options(dispatcher=place.dispatcher, max_attempts=1)
    dead = bad.dispatch(str(place.folder / "plain.txt"), "fail").raise_for_error()

    done = place.start_rq("--burst", "--serializer", serializer)

    assert done.wait(60) == 0, place.log()
    letter = place.letters.get(dead.request_id)
    assert place.status(good) == "finished", place.log()
    assert failed(place, client) == [dead.task_id]
    assert letter is not None
    assert (letter.reason, letter.task) == ("exhausted", "rq_work.converted")


def test_a_worker_that_cannot_read_ours_leaves_it(place: Place, client: Any) -> None:
    """C9: RQ's default worker alone: the job is scheduled again, and never fails."""
    (ours,) = dispatched(place, place.folder / "journal", 1)

    done = place.start_rq("--burst")

    assert done.wait(60) == 0, place.log()
    assert failed(place, client) == []
    assert place.status(ours) == "scheduled"


def test_what_is_no_job_is_set_aside(place: Place, client: Any) -> None:
    """Elements that name nothing, no hash, or a hash that RQ cannot read: the worker goes on."""
    list_ = f"rq:queue:{place.queue}"
    names = [f"{uuid4().hex}-{kind}" for kind in ("text", "empty", "torn")]
    client.set(f"rq:job:{names[0]}", "text")
    client.hset(f"rq:job:{names[1]}", mapping={"a": "b"})
    torn = {"data": '["x",null,[],{}]', "created_at": "yesterday", "status": "queued"}
    client.hset(f"rq:job:{names[2]}", mapping=torn)
    client.rpush(list_, "hello", b"\xff\xfe", *names)
    (ours,) = dispatched(place, place.folder / "journal", 1)

    drained = place.start("--drain")

    code = drained.wait(60)
    left = [name.decode() for name in client.lrange(list_, 0, -1)]
    client.delete(*(f"rq:job:{name}" for name in names))
    assert code == 0, place.log()
    assert place.status(ours) == "finished"
    assert sorted(left) == sorted(names[1:])


def test_a_queue_that_is_no_list_holds_up_no_other(place: Place, client: Any) -> None:
    """A key of another type is passed by."""
    other = f"{place.queue}-text"
    client.set(f"rq:queue:{other}", "text")
    (ours,) = dispatched(place, place.folder / "journal", 1)

    drained = place.start("--drain", "--queues", f"{other},{place.queue}")

    code = drained.wait(60)
    client.delete(f"rq:queue:{other}")
    assert code == 0, place.log()
    assert place.status(ours) == "finished"


def test_work_is_not_held_up_by_what_is_left(shared_redis: str, client: Any) -> None:
    """10,000 pickled jobs in front: ours is taken at the first look, and their order is kept."""
    dispatcher = RQDispatcher(url=shared_redis, queue=f"shared-{uuid4().hex}")
    name = dispatcher.broker.default_queue
    data = pickle.dumps((PLAIN, None, (), {}))
    ids = [f"{name}-{number}" for number in range(10_000)]
    with client.pipeline(transaction=False) as pipe:
        for each in ids:
            pipe.hset(f"rq:job:{each}", mapping={"data": data, "dispatchers_kind": "pickle"})
        pipe.rpush(f"rq:queue:{name}", *ids)
        pipe.execute()
    response = work.note.options(dispatcher=dispatcher).dispatch("/nowhere/journal", "x")

    outcome = run_job(dispatcher, name)
    kept = [each.decode() for each in client.lrange(f"rq:queue:{name}", 0, -1)]
    forget(client, name)
    dispatcher.close()

    assert outcome.request_id == response.request_id
    assert kept == ids


def test_jobs_that_depend_on_ours_begin(place: Place, client: Any) -> None:
    """RQ's `depends_on` with the id of one of our jobs."""
    queue = Queue(place.queue, connection=client, serializer=JSONSerializer)
    text = place.folder / "plain.txt"
    (ours,) = dispatched(place, place.folder / "journal", 1)
    then = queue.enqueue(PLAIN, str(text), text="then", depends_on=ours)

    drained = place.start("--drain")

    assert drained.wait(60) == 0, place.log()
    assert then.get_status(refresh=True) == "finished"
    assert text.read_text() == "then\n"


@pytest.mark.parametrize("name", ["shop.mail", "größe", "with 'quotes'", "a" * 300])
def test_the_handwritten_pickle_is_what_rq_reads(name: str) -> None:
    """It holds text, None, and two empty containers; nothing is pickled to write it."""
    expected = (f"dispatchers_rq.run.{name}", None, (), {})

    assert DefaultSerializer.loads(data_of(name, "pickle")) == expected
    assert tuple(JSONSerializer.loads(data_of(name, "json"))) == (expected[0], None, [], {})


def test_each_task_name_leads_to_our_function(client: Any) -> None:
    """RQ resolves the path of a job, whatever the task is called."""
    for name in ("shop.mail", "größe", "a..b", ".", "with blanks"):
        job = Job.create(f"dispatchers_rq.run.{name}", connection=client)

        assert job.func is __import__("dispatchers_rq").run
