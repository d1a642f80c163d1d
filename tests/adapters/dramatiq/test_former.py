"""Messages that an actor's own `send` wrote, for tasks that were actors once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import dramatiq
import pytest
from dispatchers_dramatiq import DramatiqDispatcher, register
from dispatchers_dramatiq._delivery import MessageDelivery
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker
from dramatiq.results import Results
from dramatiq.results.backends.redis import RedisBackend
from dramatiq.results.backends.stub import StubBackend

from dispatchers import (
    Backoff,
    ConfigurationError,
    Discard,
    Retry,
    catalogue,
    current_run,
    hooks,
    task,
)
from dispatchers.testing import Journal

from .harness import DramatiqHarness, RabbitHarness, RedisHarness, StubHarness

AT_ONCE = Backoff(initial=0, jitter=0)


@pytest.fixture(params=["redis", "rabbitmq", "stub"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DramatiqHarness]:
    found: DramatiqHarness
    if request.param == "stub":
        found = StubHarness(tmp_path)
    else:
        url = request.getfixturevalue(f"shared_{request.param}")
        kind = RedisHarness if request.param == "redis" else RabbitHarness
        found = kind(url, tmp_path)
    yield found
    found.end()


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    before = {each.name for each in catalogue.all()}
    yield
    for each in catalogue.all():
        if each.name not in before:
            catalogue.remove(each)


def send(harness: DramatiqHarness, name: str, *args: Any, delay: int | None = None) -> str:
    """Write what the actor's own `send` writes."""
    message = dramatiq.Message(harness.queue, name, args, {}, {"traced": "abc"})
    harness.broker.declare_queue(harness.queue)
    harness.broker.enqueue(message, delay=delay)
    return message.message_id


def work_off(harness: DramatiqHarness, dispatcher: Any, times: int = 10) -> None:
    for _ in range(times):
        harness.run_next(dispatcher)


def test_it_is_a_run_of_the_core(harness: DramatiqHarness, tmp_path: Path) -> None:
    """C1: attempts, Retry, `current_run()` and hooks, as for an envelope."""
    journal = Journal(tmp_path / "journal")
    ends: list[str] = []

    @task(name="former.tries", max_attempts=3, backoff=AT_ONCE)
    def tries(path: str) -> None:
        run = current_run()
        Journal(path).write(f"{run.attempt} {run.request.id}")
        if run.attempt == 1:
            raise OSError("as asked")
        if run.attempt == 2:
            raise Retry

    dispatcher = harness.dispatcher()
    harness._steps(dispatcher)
    hooks.after_run(lambda run, outcome: ends.append(outcome.reason.value))
    id_ = send(harness, "former.tries", journal.path)
    work_off(harness, dispatcher)

    assert journal.texts == [f"1 {id_}", f"2 {id_}", f"3 {id_}"]
    assert len(ends) == 3


def test_an_async_task_is_awaited(harness: DramatiqHarness, tmp_path: Path) -> None:
    """What is called done has run."""
    journal = Journal(tmp_path / "journal")

    @task(name="former.awaits")
    async def awaits(path: str) -> None:
        Journal(path).write("ran")

    dispatcher = harness.dispatcher()
    harness._steps(dispatcher)
    send(harness, "former.awaits", journal.path)
    work_off(harness, dispatcher, 2)

    assert journal.texts == ["ran"]


def test_what_it_discards_is_done_and_what_fails_is_a_dead_letter(
    harness: DramatiqHarness, tmp_path: Path
) -> None:
    """C9: the store has a letter that can be replayed, of the one that failed."""

    @task(name="former.discards")
    def discards() -> None:
        raise Discard("not wanted")

    @task(name="former.fails")
    def fails(path: str) -> None:
        raise OSError(path)

    dispatcher = harness.dispatcher(dead_letters="memory")
    harness._steps(dispatcher)
    discarded = send(harness, "former.discards")
    failed = send(harness, "former.fails", "somewhere")
    work_off(harness, dispatcher, 3)

    letters: Any = dispatcher.letters  # type: ignore[attr-defined]
    assert letters.get(discarded) is None
    assert letters.get(failed).task == "former.fails"


def test_a_delayed_one_waits_and_runs(harness: DramatiqHarness, tmp_path: Path) -> None:
    """C9: it is moved by a confirmed publish, as ours are, and keeps its arguments."""
    journal = Journal(tmp_path / "journal")

    @task(name="former.waits")
    def waits(path: str) -> None:
        Journal(path).write("ran")

    dispatcher = harness.dispatcher()
    harness._steps(dispatcher)
    send(harness, "former.waits", journal.path, delay=50)
    while not journal.texts:
        harness.run_next(dispatcher)

    assert journal.texts == ["ran"]


def test_both_kinds_lie_in_one_queue(harness: DramatiqHarness, tmp_path: Path) -> None:
    """On the day of a deploy former, native and new messages are each run by their own function."""
    journal = Journal(tmp_path / "journal")
    natives: list[str] = []

    @task(name="former.both")
    def both(path: str, text: str) -> None:
        Journal(path).write(text)

    @dramatiq.actor(broker=harness.broker, actor_name="native.own", queue_name=harness.queue)
    def own() -> None:
        natives.append("ran")

    dispatcher = harness.dispatcher()
    harness._steps(dispatcher)
    send(harness, "former.both", journal.path, "former")
    both.options(dispatcher=dispatcher).dispatch(journal.path, "ours").raise_for_error()
    own.send()
    work_off(harness, dispatcher, 3)

    assert sorted(journal.texts) == ["former", "ours"]
    assert natives == ["ran"]


def test_a_next_attempt_can_be_run_by_an_old_worker(harness: DramatiqHarness) -> None:
    """It is plain as well, with all its options: an old worker may be the one that takes it."""

    @task(name="former.again", max_attempts=2, backoff=Backoff(initial=0.001, jitter=0))
    def again(number: int) -> None:
        raise OSError(number)

    dispatcher = harness.dispatcher()
    steps = harness._steps(dispatcher)
    id_ = send(harness, "former.again", 7)
    harness.run_next(dispatcher)
    while not (messages := steps.messages()):
        pass

    (message,) = messages
    assert (message.actor_name, message.args, message.message_id) == ("former.again", (7,), id_)
    assert message.options["traced"] == "abc"
    assert "max_retries" not in message.options


def test_arguments_that_do_not_fit_are_handed_back(harness: DramatiqHarness) -> None:
    """C11: an old producer during a deploy; then a dead letter, and never endless."""

    @task(name="former.typed")
    def typed(number: int) -> None: ...

    dispatcher = harness.dispatcher(dead_letters="memory", skew_grace=0)
    harness._steps(dispatcher)
    id_ = send(harness, "former.typed", "seven")
    work_off(harness, dispatcher, 2)

    assert dispatcher.letters.get(id_) is not None  # type: ignore[attr-defined]


def test_results_and_pipelines_have_the_result_of_the_run() -> None:
    """`send().get_result()` and `|` of a converted actor; an attempt that failed starts nothing."""
    broker: Any = StubBroker()
    broker.add_middleware(Results(backend=StubBackend(), store_results=True))
    noted: list[int] = []

    @task(name="former.doubles", max_attempts=2, backoff=AT_ONCE)
    def doubles(number: int) -> int:
        if current_run().attempt == 1:
            raise OSError(number)
        return number * 2

    @dramatiq.actor(broker=broker, actor_name="native.notes", queue_name="q")
    def notes(number: int) -> None:
        noted.append(number)

    dispatcher = DramatiqDispatcher(broker=broker, queue="q")
    register(broker, dispatcher)
    first = dramatiq.Message("q", "former.doubles", (21,), {}, {})
    second = dramatiq.Message("q", "native.notes", (), {}, {})
    broker.declare_queue("q")
    worker = dramatiq.Worker(broker, worker_timeout=50, worker_threads=1)
    worker.start()
    try:
        pipeline = dramatiq.pipeline([first, second], broker=broker).run()
        pipeline.get_result(block=True, timeout=20_000)
        result = first.get_result(backend=broker.get_results_backend(), block=True)
    finally:
        worker.stop()

    assert result == 42
    assert noted == [42]


@pytest.mark.parametrize("fault", ["none", "publish", "configuration"])
def test_a_result_is_that_of_the_last_attempt(
    monkeypatch: pytest.MonkeyPatch, fault: str, shared_redis: str
) -> None:
    """What waits for it gets no None of an attempt that failed or of a delivery given back."""
    broker: Any = RedisBroker(url=shared_redis)
    results: Any = ResultsByTime(url=shared_redis)
    broker.add_middleware(Results(backend=results, store_results=True))
    queue = f"former-{uuid4().hex}"

    @task(name="former.last", max_attempts=3, backoff=AT_ONCE)
    def last(number: int) -> int:
        if current_run().attempt < 3:
            raise OSError(number)
        return number * 2

    dispatcher = DramatiqDispatcher(broker=broker, queue=queue)
    register(broker, dispatcher)
    break_once(monkeypatch, dispatcher, fault)
    message = dramatiq.Message(queue, "former.last", (21,), {}, {})
    broker.declare_queue(queue)
    worker = dramatiq.Worker(broker, queues={queue}, worker_timeout=50, worker_threads=1)
    worker.start()
    try:
        broker.enqueue(message)
        result = message.get_result(backend=results, block=True, timeout=20_000)
    finally:
        worker.stop()
        forget(broker, queue)
        dispatcher.close()

    assert result == 42
    assert results.stored == [42]


class ResultsByTime(RedisBackend):
    """Notes each result that is stored."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.stored: list[Any] = []

    def store_result(self, message: Any, result: Any, ttl: int) -> None:
        self.stored.append(result)
        super().store_result(message, result, ttl)


def break_once(monkeypatch: pytest.MonkeyPatch, dispatcher: Any, fault: str) -> None:
    """Have the first retry not be published, or the first run find no configuration."""
    monkeypatch.setattr("dispatchers_dramatiq._delivery.RETRY_DELAY", 0.01)
    monkeypatch.setattr("dispatchers_dramatiq._registration.RETRY_DELAY", 0.01)
    publish, delivery = dispatcher.publisher.publish, MessageDelivery
    left = [1]

    def publishing(packets: Any, timeout: float) -> Any:
        failed = fault == "publish" and left and left.pop()
        return [OSError("as asked")] * len(packets) if failed else publish(packets, timeout)

    def delivering(*args: Any) -> Any:
        if fault == "configuration" and left and left.pop():
            raise ConfigurationError("as asked")
        return delivery(*args)

    monkeypatch.setattr(dispatcher.publisher, "publish", publishing)
    monkeypatch.setattr("dispatchers_dramatiq._registration.MessageDelivery", delivering)


def forget(broker: Any, queue: str) -> None:
    keys = broker.client.keys(f"dramatiq:{queue}*")
    if keys:
        broker.client.delete(*keys)
    broker.close()


def test_registration_configures_nothing() -> None:
    """The broker's later settings apply: nothing is declared or connected before a worker."""
    broker: Any = StubBroker()

    @task(name="former.lazy", queue="lazy")
    def lazy() -> None: ...

    register(broker, "not_configured_yet")

    assert broker.actors == {}
    assert broker.queues == {}
