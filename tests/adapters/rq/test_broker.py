"""A Redis that is killed, full or cut off, and what RQ's own tools see in it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
import rq
from dispatchers_rq import RQDispatcher, SimpleWorker
from dispatchers_rq._leases import Leases, Taken
from rq import Queue
from rq.job import Job
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from dispatchers import (
    Backoff,
    ConfigurationError,
    DispatchRequest,
    DispatchStatus,
    ErrorCategory,
    override,
    task,
)
from dispatchers.testing import FaultProxy, Journal, tasks
from dispatchers.testing.conformance._tools import answered
from dispatchers.testing.servers import RedisServer

from .harness import RQHarness, forget, run_job

_made: list[RQDispatcher] = []
TIMEOUT = 30.0


def dispatcher_of(url: str, **options: Any) -> RQDispatcher:
    settings = {"breaker": False, "deadline": 1.0, "queue": f"broker-{uuid4().hex}", **options}
    dispatcher = RQDispatcher(url=url, **settings)
    _made.append(dispatcher)
    return dispatcher


@pytest.fixture(autouse=True)
def _close_all(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    while _made:
        dispatcher = _made.pop()
        if "private_redis" not in request.fixturenames:
            forget(dispatcher.broker.client, *dispatcher.broker.declared)
        dispatcher.close()


def ids_in(dispatcher: RQDispatcher) -> list[str]:
    """The ids of all jobs that are in the queue."""
    found = dispatcher.broker.client.lrange(f"rq:queue:{dispatcher.broker.default_queue}", 0, -1)
    return [number.decode() for number in found]


def as_rq_sees_it(dispatcher: RQDispatcher, number: str | None) -> Job:
    client = redis.Redis.from_url(dispatcher.options.url)
    job = Job.fetch(str(number), connection=client, serializer=JSONSerializer)
    client.close()
    return job


def step(dispatcher: RQDispatcher) -> Any:
    """Run the next job as a worker does, and return its outcome."""
    return run_job(dispatcher, dispatcher.broker.default_queue)


def test_redis_killed_in_mid_burst_loses_nothing(private_redis: RedisServer) -> None:
    """C9: with an append-only file nothing that was ACCEPTED is lost by `kill -9` of Redis."""
    private_redis.stop()
    private_redis.keeps = "always"
    private_redis.start()
    dispatcher = dispatcher_of(private_redis.url)
    accepted: list[str] = []
    stop = threading.Event()

    def burst() -> None:
        while not stop.is_set():
            response = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")
            if response.status is DispatchStatus.ACCEPTED:
                accepted.append(response.request_id)

    threads = [threading.Thread(target=burst) for _ in range(2)]
    for thread in threads:
        thread.start()
    while len(accepted) < 100:
        time.sleep(0.01)
    private_redis.kill()
    before = len(accepted)
    private_redis.start()
    end = time.monotonic() + TIMEOUT
    while len(accepted) <= before + 10 and time.monotonic() < end:
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()

    there = ids_in(dispatcher)
    print(f"{len(accepted)} accepted, {before} before the kill")
    assert len(accepted) > before
    assert set(accepted) <= set(there)
    assert len(there) == len(set(there))


BURST = """
import sys
from dispatchers_rq import RQDispatcher
from dispatchers.testing import tasks

work = tasks.note.options(dispatcher=RQDispatcher(url=sys.argv[1], queue=sys.argv[2]))
while True:
    print(work.dispatch("/nowhere").raise_for_error().request_id, flush=True)
"""


def test_a_producer_killed_in_mid_burst_loses_nothing(shared_redis: str) -> None:
    """C9: what a process was told to be ACCEPTED is there after its `kill -9`, whole."""
    dispatcher = dispatcher_of(shared_redis)
    command = [sys.executable, "-c", BURST, shared_redis, dispatcher.broker.default_queue]

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as producer:
        assert producer.stdout is not None
        said = [producer.stdout.readline().strip() for _ in range(200)]
        producer.kill()
        said += [line.strip() for line in producer.stdout if line.endswith("\n")]

    there = ids_in(dispatcher)
    assert set(said) <= set(there)
    assert all(dispatcher.broker.client.exists(f"rq:job:{number}") for number in there)


def test_redis_restarted_between_two_calls_costs_no_dispatch(private_redis: RedisServer) -> None:
    """A connection that the server has closed is noticed before anything is sent over it."""
    work = tasks.note.options(dispatcher=dispatcher_of(private_redis.url))
    first = work.dispatch("/nowhere")

    private_redis.kill()
    private_redis.start()
    second = work.dispatch("/nowhere")

    assert first.ok
    assert second.ok


def test_a_full_redis_is_a_rejection(private_redis: RedisServer) -> None:
    """C3: Redis that refuses for want of memory has certainly not got it, not a part of it."""
    dispatcher = dispatcher_of(private_redis.url)
    work = tasks.note.options(dispatcher=dispatcher)
    assert work.dispatch("/nowhere").ok
    client = redis.Redis(port=private_redis.port)
    client.config_set("maxmemory", "1")

    response = work.dispatch("/nowhere")
    there = client.exists(f"rq:job:{response.request_id}")
    client.close()

    assert response.status is DispatchStatus.REJECTED
    assert response.error is not None
    assert response.error.category is ErrorCategory.CAPACITY
    assert not there
    assert len(ids_in(dispatcher)) == 1


def test_a_request_may_be_repeated_after_unknown(shared_redis: str, tmp_path: Path) -> None:
    """C3, C10: the reply is lost: UNKNOWN; the same request again is a DUPLICATE, and one job."""
    harness = RQHarness(shared_redis, tmp_path)
    request = tasks.note.request("/nowhere")
    with FaultProxy(*harness.upstream) as proxy:
        dispatcher = harness.connect(*proxy.address, breaker=False, deadline=0.5)
        assert tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere").ok
        proxy.drop_reply()
        first = dispatcher.dispatch(request)
        proxy.heal()
        again = dispatcher.dispatch(request)
        dispatcher.close()

    bodies = harness.received(dispatcher)
    harness.close()
    assert first.status is DispatchStatus.UNKNOWN
    assert again.status is DispatchStatus.DUPLICATE
    assert again.task_id == request.id
    assert len([body for body in bodies if request.id.encode() in body]) == 1


def test_a_cut_batch_leaves_in_doubt_what_has_no_reply(shared_redis: str, tmp_path: Path) -> None:
    """C3: replies that came are ACCEPTED; UNKNOWN are exactly those of whom none came."""
    harness = RQHarness(shared_redis, tmp_path)
    requests = [tasks.note.request("/nowhere") for _ in range(250)]
    with FaultProxy(*harness.upstream) as proxy:
        dispatcher = harness.connect(*proxy.address, breaker=False, deadline=2.0)
        assert tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere").ok
        proxy.cut(after=4 * 120, direction="reply")  # each reply is `:1` and an end of line
        responses = dispatcher.dispatch_many(requests)
        dispatcher.close()

    there = b"".join(harness.received(dispatcher))
    harness.close()
    said = [response.status.value for response in responses]
    order = ["accepted", "unknown", "rejected"]
    assert said == sorted(said, key=order.index)
    assert set(said) == set(order)
    for request, word in zip(requests, said, strict=True):
        assert word == "unknown" or (request.id.encode() in there) is (word == "accepted")


@pytest.mark.parametrize("options", [{"queues": ["mail-of-tests"]}, {"queue": "mail-of-tests"}])
def test_a_mistyped_queue_is_refused(shared_redis: str, options: dict[str, Any]) -> None:
    """A queue that was never named or used is refused, not created."""
    dispatcher = dispatcher_of(shared_redis, **options)
    name = f"mial-{uuid4().hex}"

    response = tasks.note.options(dispatcher=dispatcher, queue=name).dispatch("/nowhere")

    assert response.status is DispatchStatus.REJECTED
    assert response.error is not None
    assert response.error.category is ErrorCategory.NOT_FOUND
    assert "mail-of-tests" in response.error.message
    assert not dispatcher.broker.client.sismember("rq:queues", f"rq:queue:{name}")


def test_a_queue_that_rq_knows_is_taken(shared_redis: str) -> None:
    """A queue that others use counts as declared."""
    dispatcher = dispatcher_of(shared_redis)
    other = dispatcher_of(shared_redis)
    tasks.note.options(dispatcher=other).dispatch("/nowhere").raise_for_error()

    name = other.broker.default_queue
    response = tasks.note.options(dispatcher=dispatcher, queue=name).dispatch("/nowhere")

    assert response.ok
    assert len(ids_in(other)) == 2


def test_rq_sees_a_job_of_its_own_kind(shared_redis: str) -> None:
    """RQ reads it as any job: our function, the task's name, and no argument in sight."""
    dispatcher = dispatcher_of(shared_redis)
    limited = tasks.note.options(dispatcher=dispatcher, time_limit=7.5)

    response = limited.dispatch("/nowhere", "a-secret")
    job = as_rq_sees_it(dispatcher, response.task_id)

    assert job.func_name == f"dispatchers_rq.run.{tasks.note.name}"
    assert job.description == tasks.note.name
    assert "a-secret" not in str(job)
    assert (job.get_status(), job.origin) == ("queued", dispatcher.broker.default_queue)
    assert job.timeout == 8
    assert job.func.__name__ == "run"


def test_failed_work_is_among_rqs_failed_jobs(shared_redis: str) -> None:
    """RQ lists it with a reason; to us it is a letter, to be edited, and replayed under its id."""
    from dispatchers.cli._dead_letters import Found, LetterStore, replay

    dispatcher = dispatcher_of(shared_redis)
    once = tasks.fail.options(dispatcher=dispatcher, max_attempts=1)
    response = once.dispatch("/nowhere/journal", 9)
    step(dispatcher)
    letters = dispatcher._dead_letters()
    assert letters is not None

    job = as_rq_sees_it(dispatcher, response.task_id)
    result = job.latest_result()
    listed = FailedJobRegistry(
        queue=Queue(dispatcher.broker.default_queue, connection=job.connection)
    ).get_job_ids()
    letter = letters.list(task=tasks.fail.name)[0]
    edited = letters.edit(letter.id, letter.body.replace(b":9", b":0"))
    with override(default=dispatcher):
        replayed = replay(Found(LetterStore("default", letters), letters.get(letter.id) or letter))
    job.connection.close()

    assert listed == [response.task_id]
    assert letter.id == response.request_id
    assert letter.reason in str(result and result.exc_string)
    assert edited
    assert replayed.word == "replayed", replayed
    assert letters.list() == []
    assert ids_in(dispatcher) == [letter.id]
    assert not letters.delete(letter.id)


def test_a_dead_letter_releases_its_key(shared_redis: str) -> None:
    """C10: until it is dead, work under the same key is a DUPLICATE; then it may be done again."""
    dispatcher = dispatcher_of(shared_redis)
    keyed = tasks.fail.options(dispatcher=dispatcher, max_attempts=1, idempotency_key=uuid4().hex)
    first = keyed.dispatch("/nowhere/journal", 9)

    meanwhile = keyed.dispatch("/nowhere/journal", 9)
    step(dispatcher)
    after = keyed.dispatch("/nowhere/journal", 9)

    assert meanwhile.status is DispatchStatus.DUPLICATE
    assert meanwhile.task_id == first.task_id
    assert after.status is DispatchStatus.ACCEPTED


def test_work_is_remembered_when_it_is_done(shared_redis: str, tmp_path: Path) -> None:
    """C10: for `keep` seconds, as RQ keeps results; with 0, nothing of it is left."""
    for keep, expected in ((60, "duplicate"), (0, "accepted")):
        dispatcher = dispatcher_of(shared_redis, keep=keep)
        key = uuid4().hex
        keyed = tasks.note.options(dispatcher=dispatcher, idempotency_key=key)
        journal = Journal(tmp_path / f"{keep}.journal")
        first = keyed.dispatch(journal.path)
        step(dispatcher)
        ttl = dispatcher.broker.client.ttl(f"rq:job:{first.task_id}")

        assert keyed.dispatch(journal.path).status == expected
        assert ttl == (-2 if keep == 0 else pytest.approx(keep, abs=5))


@task(name="rq_broker_tests.interrupted", max_attempts=2, backoff=Backoff(initial=0))
def interrupted(journal: str) -> None:
    """Redis is gone when it is to be tried again."""
    Journal(journal).write("ran")
    if len(Journal(journal).entries) == 1:
        _server[0].kill()
        raise OSError("as asked")


_server: list[RedisServer] = []


def test_a_retry_waits_for_a_redis_that_is_gone(private_redis: RedisServer, tmp_path: Path) -> None:
    """C9: the server is killed while the work runs: its next attempt is written when it is back."""
    private_redis.stop()
    private_redis.keeps = "always"
    private_redis.start()
    _server[:] = [private_redis]
    dispatcher = dispatcher_of(private_redis.url, lease=TIMEOUT)
    journal = Journal(tmp_path / "journal")
    interrupted.options(dispatcher=dispatcher).dispatch(journal.path).raise_for_error()
    back = threading.Timer(1.0, private_redis.start)

    back.start()
    first = step(dispatcher)
    back.join()
    second = step(dispatcher)

    assert (first.action, second.action) == ("retry", "done")
    assert [entry.attempt for entry in journal.entries] == [1, 2]


def test_a_lost_lease_settles_nothing(shared_redis: str) -> None:
    """C10: what was given to another worker meanwhile is that worker's."""
    dispatcher = dispatcher_of(shared_redis)
    tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere").raise_for_error()
    leases = Leases(dispatcher.broker.client, dispatcher.options)
    queue = dispatcher.broker.default_queue
    lost = leases.take([queue], "one")
    assert isinstance(lost, Taken)
    leases._reap(queue, lost.id.encode(), f"{lost.token}:0".encode())
    taken = leases.take([queue], "another")
    assert isinstance(taken, Taken)

    assert not leases.renew(lost)
    assert not leases.settle(lost, "done", 500)
    assert leases.renew(taken)
    assert taken.deliveries == 2
    assert leases.settle(taken, "done", 0)


def test_a_lease_that_is_renewed_is_not_taken_away(shared_redis: str) -> None:
    """An observer gives back only what was not renewed for a lease's length, by its clock."""
    dispatcher = dispatcher_of(shared_redis, lease=1.0)
    for _ in range(2):
        tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere").raise_for_error()
    mine, observer = (Leases(dispatcher.broker.client, dispatcher.options) for _ in range(2))
    queue = dispatcher.broker.default_queue
    alive, dead = mine.take([queue], "alive"), mine.take([queue], "dead")
    assert isinstance(alive, Taken)
    assert isinstance(dead, Taken)

    end = time.monotonic() + TIMEOUT
    while not ids_in(dispatcher) and time.monotonic() < end:
        assert mine.renew(alive)
        observer.observe([queue])
        time.sleep(0.1)

    assert ids_in(dispatcher) == [dead.id]
    assert mine.under_way([queue]) == 1


def test_the_users_connection_is_left_as_it_is(shared_redis: str) -> None:
    """Bounds are set on connections of our own; text in place of bytes changes nothing."""
    client: Any = redis.Redis.from_url(shared_redis, decode_responses=True, socket_timeout=77)
    before = dict(client.connection_pool.connection_kwargs)
    queue = f"broker-{uuid4().hex}"
    dispatcher = RQDispatcher(connection=client, queue=queue)
    _made.append(dispatcher)

    tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere").raise_for_error()

    assert dict(client.connection_pool.connection_kwargs) == before
    assert client.llen(f"rq:queue:{queue}") == 1
    client.close()


def test_a_plain_worker_runs_our_jobs_by_rqs_rules(shared_redis: str, tmp_path: Path) -> None:
    """`rq worker` with the JSON serializer: success, another attempt, and failure, are RQ's own."""
    dispatcher = dispatcher_of(shared_redis)
    queue = dispatcher.broker.default_queue
    journal = Journal(tmp_path / "journal")
    tasks.note.options(dispatcher=dispatcher).dispatch(journal.path, "x").raise_for_error()
    again = tasks.fail.options(dispatcher=dispatcher).dispatch(journal.path, 2)
    dead = tasks.fail.options(dispatcher=dispatcher, max_attempts=1).dispatch(journal.path, 99)

    code = "import sys; from dispatchers.testing import tasks; from rq.cli import main; main()"
    command = [
        sys.executable,
        "-c",
        code,
        "worker",
        "--burst",
        "--serializer",
        "rq.serializers.JSONSerializer",
    ]
    done = subprocess.run(
        [*command, "--url", shared_redis, queue], capture_output=True, text=True, timeout=100
    )

    assert done.returncode == 0, done.stderr
    assert as_rq_sees_it(dispatcher, again.task_id).get_status() == "finished"
    assert as_rq_sees_it(dispatcher, dead.task_id).get_status() == "failed"
    assert sorted(set(journal.texts)) == ["failed", "succeeded", "x"]


def test_the_check_names_workers_that_are_rqs_alone(
    shared_redis: str, caplog: pytest.LogCaptureFixture
) -> None:
    """C12: such a worker needs the JSON serializer, and keeps nothing when it is killed."""
    dispatcher = dispatcher_of(shared_redis)
    client = redis.Redis.from_url(shared_redis)
    place = Queue(dispatcher.broker.default_queue, connection=client)
    plain = rq.SimpleWorker([place], connection=client)
    ours = SimpleWorker(dispatcher, [dispatcher.broker.default_queue])
    plain.register_birth()
    ours.register_birth()

    dispatcher.check(contact=True)
    for worker in (plain, ours):
        worker.register_death()
        client.delete(worker.key)
        worker.connection.close()

    said = [record.getMessage() for record in caplog.records]
    assert any(plain.name in line and "rq.serializers.JSONSerializer" in line for line in said)
    assert not any(ours.name in line for line in said)


@pytest.mark.parametrize("options", [{}, {"url": "redis://x", "connection": "a:b"}])
def test_either_a_connection_or_an_address(options: dict[str, str]) -> None:
    """Neither, or both, is an error that says what to give."""
    with pytest.raises(ConfigurationError, match="give `connection`"):
        RQDispatcher(**options)  # type: ignore[arg-type]


def test_an_id_of_other_letters_is_taken(shared_redis: str) -> None:
    """RQ takes ASCII letters, digits, `_` and `-`; ours may be any letters."""
    dispatcher = dispatcher_of(shared_redis)
    request = DispatchRequest.model_validate(
        {"task": tasks.note.name, "id": "größe", "payload": {"journal": "/nowhere"}}
    )

    response = dispatcher.dispatch(request)

    assert response.ok
    assert as_rq_sees_it(dispatcher, response.task_id).id == response.task_id
    assert os.fspath(str(response.task_id)).isascii()


def test_one_key_with_another_payload_is_a_conflict(shared_redis: str) -> None:
    """C10: a duplicate is the same work; other work under its key was not done."""
    dispatcher = dispatcher_of(shared_redis)
    keyed = tasks.note.options(dispatcher=dispatcher, idempotency_key=uuid4().hex)
    first, same, other = (keyed.dispatch("/nowhere", word) for word in ("a", "a", "b"))

    assert first.status is DispatchStatus.ACCEPTED
    assert same.status is DispatchStatus.DUPLICATE
    assert other.status is DispatchStatus.REJECTED
    assert other.error is not None
    assert other.error.category is ErrorCategory.CONFLICT
    assert len(ids_in(dispatcher)) == 1


@pytest.mark.parametrize("size", [12_000])
def test_a_batch_of_any_size_keeps_its_deadline(shared_redis: str, size: int) -> None:
    """C2: what there was no time for was certainly not handed over; the rest is known."""
    dispatcher = dispatcher_of(shared_redis, deadline=0.3)
    requests = [tasks.note.request("/nowhere") for _ in range(size)]

    responses = answered(0.3, lambda: dispatcher.dispatch_many(requests))

    there = set(ids_in(dispatcher))
    assert {each.status for each in responses} <= {
        DispatchStatus.ACCEPTED,
        DispatchStatus.REJECTED,
        DispatchStatus.UNKNOWN,
    }
    for each in responses:
        if each.status is not DispatchStatus.UNKNOWN:
            assert each.ok is (each.request_id in there)


def test_durable_is_not_said_where_it_is_known_to_be_false(private_redis: RedisServer) -> None:
    """C9: a server that evicts accepted work has it, and may lose it; the check says so."""
    client = redis.Redis(port=private_redis.port)
    kept = tasks.note.options(dispatcher=dispatcher_of(private_redis.url)).dispatch("/nowhere")
    client.config_set("maxmemory", "1gb")
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.close()
    dispatcher = dispatcher_of(private_redis.url)

    evicted = tasks.note.options(dispatcher=dispatcher).dispatch("/nowhere")
    many = dispatcher.dispatch_many([tasks.note.request("/nowhere") for _ in range(2)])
    dispatcher.check(contact=True)

    assert (kept.ok, kept.durable) == (True, True)
    assert (evicted.ok, evicted.durable) == (True, False)
    assert [each.durable for each in many] == [False, False]
    assert any("noeviction" in each for each in dispatcher.warnings)


def test_a_replica_is_refused_at_the_start(private_redis: RedisServer) -> None:
    """C12: it would reject every dispatch."""
    client = redis.Redis(port=private_redis.port)
    client.replicaof("127.0.0.1", "1")
    client.close()

    with pytest.raises(ConfigurationError, match="master"):
        dispatcher_of(private_redis.url).check(contact=True)


@pytest.mark.parametrize("url", ["localhost", "redis+sentinel://:secret@host/0", "redis://h/x"])
def test_a_misread_address_is_refused_by_name(url: str) -> None:
    """C12: alias and option are named, and no part of the address."""
    with pytest.raises(ConfigurationError, match=r"'mail' \(rq\): url: ") as caught:
        RQDispatcher(url=url, alias="mail")

    assert "secret" not in str(caught.value)


def test_figures_of_a_queue(shared_redis: str) -> None:
    """Counts of waiting, running, delayed and failed work, and the age of the oldest."""
    dispatcher = dispatcher_of(shared_redis, queues=["figures-of-none"])
    work = tasks.note.options(dispatcher=dispatcher)
    failing = tasks.fail.options(dispatcher=dispatcher, max_attempts=1)
    failing.dispatch("/nowhere/journal", 9)
    step(dispatcher)
    for options in ({}, {}, {}, {"delay": timedelta(hours=1)}):
        work.options(**options).dispatch("/nowhere").raise_for_error()
    leases = Leases(dispatcher.broker.client, dispatcher.options)
    leases.take([dispatcher.broker.default_queue], "a test")

    none, found = sorted(dispatcher.stats(), key=lambda each: each.waiting or 0)

    assert (found.waiting, found.running, found.delayed, found.dead) == (2, 1, 1, 1)
    assert found.oldest is not None
    assert 0 < found.oldest < 60
    assert (none.queue, none.waiting, none.oldest) == ("figures-of-none", 0, 0.0)


@pytest.mark.parametrize("name", ["status", "data", "dispatchers_attempt", "timeout", "meta"])
def test_names_of_callers_cannot_collide_with_rqs_fields(
    shared_redis: str, tmp_path: Path, name: str
) -> None:
    """Headers and context are the envelope's, whatever they are called."""
    dispatcher = dispatcher_of(shared_redis)
    journal = Journal(tmp_path / "journal")
    work = tasks.note.options(dispatcher=dispatcher, headers={name: "-1"}, context={name: 7})

    work.dispatch(journal.path).raise_for_error()
    outcome = step(dispatcher)

    assert outcome.ok
    assert len(journal.entries) == 1


# Batches in order.


def _in_order(dispatcher: RQDispatcher, *changes: dict[str, Any]) -> list[str]:
    """Hand over a request for each of these changes, in order; the words of their answers."""
    base = DispatchRequest(task="shop.mail", payload={"n": 1})
    requests = [
        DispatchRequest(**{"task": base.task, "payload": base.payload, **each}) for each in changes
    ]
    answers = dispatcher._dispatch_in_order(requests)
    return [each.status if each.error is None else each.error.category for each in answers]


def test_a_batch_in_order_stops_where_there_is_no_queue(shared_redis):
    """F8: nothing is pushed after a job that may be pushed later; what never can be, stops none."""
    dispatcher = dispatcher_of(shared_redis)
    key = {"idempotency_key": uuid4().hex}
    said = _in_order(
        dispatcher, {}, key, {**key, "payload": {"n": 2}}, {"queue": f"no-{uuid4().hex}"}, {}, {}
    )
    assert said == ["accepted", "accepted", "conflict", "not_found", "unavailable", "unavailable"]
    assert dispatcher.broker.client.llen(f"rq:queue:{dispatcher.options.queue}") == 2


def test_a_batch_in_order_stops_at_an_error_of_the_server(shared_redis):
    """F8: also where the server stumbles over one job of many."""
    dispatcher = dispatcher_of(shared_redis, queues=[f"text-{uuid4().hex}"])
    (wrong,) = dispatcher.options.queues
    dispatcher.broker.client.set(f"rq:queue:{wrong}", "no list")
    try:
        assert _in_order(dispatcher, {}, {"queue": wrong}, {}) == [
            *("accepted", "unavailable", "unavailable")
        ]
    finally:
        dispatcher.broker.client.delete(f"rq:queue:{wrong}")
    assert dispatcher.broker.client.llen(f"rq:queue:{dispatcher.options.queue}") == 1


def test_a_long_batch_in_order_stops_as_a_whole(shared_redis):
    """F8: what is sent in several calls ends with the call that fails."""
    dispatcher = dispatcher_of(shared_redis)
    said = _in_order(dispatcher, *[{}] * 150, {"queue": f"no-{uuid4().hex}"}, *[{}] * 100)
    assert said == [*["accepted"] * 150, "not_found", *["unavailable"] * 100]
    assert dispatcher.broker.client.llen(f"rq:queue:{dispatcher.options.queue}") == 150
